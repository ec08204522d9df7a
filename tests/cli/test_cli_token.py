"""`httpx-refresh token`: a service's token, which nobody logs in for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joserfc.jwk import RSAKey

from httpx_refresh.cli.console import Exit

if TYPE_CHECKING:
    from httpx_refresh.testing import AuthorizationServer
    from tests.cli.conftest import Run


def configure(server: AuthorizationServer, **settings: Any) -> None:
    fields = {
        "token_url": server.token_url,
        "client_id": "client",
        "store": "file:token.json",
        "grant": "client_credentials",
        **settings,
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in fields.items() if value is not None]
    Path("config.toml").write_text("[reports]\n" + "\n".join(lines) + "\n")


def test_a_service_gets_its_token_and_a_good_one_is_left_as_it_is(
    server: AuthorizationServer, run: Run
) -> None:
    configure(server, client_secret="secret", scope="read", audience="x")
    for _ in range(2):
        result = run("token", "reports", "--config", "config.toml")
        assert result.exit_code == Exit.DONE, result.output
        held = json.loads(Path("token.json").read_text())
        assert held["access_token"] not in result.output
        assert "scope read" in held["httpx_refresh"]["purpose"]
    assert server.token_requests == 1
    assert b"audience=x" in server.token_calls[0].body
    assert run("refresh", "reports", "--config", "config.toml").exit_code == Exit.DONE
    assert server.token_requests == 2
    assert run("keep-alive", "--config", "config.toml").exit_code == Exit.DONE
    assert server.token_requests == 2


def test_a_service_may_sign_an_assertion(server: AuthorizationServer, run: Run) -> None:
    key = RSAKey.generate_key(2048)
    Path("key.pem").write_bytes(key.as_pem(private=True))
    server.clients = {"client": None}
    server.assertion_keys = {"client": key.as_dict(private=False)}
    configure(server, grant="jwt-bearer", client_key_file="key.pem", subject="ann")
    result = run("token", "reports", "--config", "config.toml")
    assert result.exit_code == Exit.DONE, result.output


def test_an_empty_slot_of_a_service_waits_for_nobody(server: AuthorizationServer, run: Run) -> None:
    configure(server, client_secret="secret")
    result = run("status", "reports", "--config", "config.toml")
    assert result.exit_code == Exit.DONE
    assert "one is asked for when it is needed" in result.output


def test_a_login_for_a_service_says_what_to_do_instead(
    server: AuthorizationServer, run: Run
) -> None:
    configure(server, client_secret="secret")
    result = run("login", "reports", "--config", "config.toml")
    assert result.exit_code == Exit.USAGE
    assert "`httpx-refresh token reports`" in result.output.replace("\n", " ")


def test_settings_that_make_no_grant_say_so(server: AuthorizationServer, run: Run) -> None:
    for settings, words in (
        ({"grant": None, "client_secret": "secret"}, "names no grant"),
        ({"grant": "password", "client_secret": "secret"}, "is not one of"),
        ({"subject": "x", "client_secret": "secret"}, "subject is for"),
        ({"grant": "jwt-bearer"}, "needs client_key_file"),
        ({}, "client credentials are for clients that authenticate"),
    ):
        configure(server, **settings)
        result = run("token", "reports", "--config", "config.toml")
        assert result.exit_code == Exit.USAGE
        assert words in result.output.replace("\n", " ")
    assert server.token_requests == 0


def test_a_refused_service_ends_with_the_code_for_that(
    server: AuthorizationServer, run: Run
) -> None:
    configure(server, client_secret="wrong")
    result = run("token", "reports", "--config", "config.toml")
    assert result.exit_code == Exit.REFUSED
    assert "wrong" not in result.output.replace("wrong secret", "")
