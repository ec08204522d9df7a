"""`httpx-refresh token`: a service's token, without a login."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import anyio
import pytest
from joserfc.jwk import RSAKey

from httpx_refresh.cli.console import Exit
from httpx_refresh.cli.settings import read_config
from httpx_refresh.grants import ID_TOKEN, JWT, JWTBearer
from httpx_refresh.providers import GitHubInstallation, google_service_account

if TYPE_CHECKING:
    from httpx_refresh.testing import AuthorizationServer
    from tests.cli.conftest import Run


def toml(value: Any) -> str:
    """Return a value as TOML in one line."""
    if not isinstance(value, dict):
        return json.dumps(value)
    return "{" + ", ".join(f"{name} = {toml(one)}" for name, one in value.items()) + "}"


def configure(server: AuthorizationServer, **settings: Any) -> None:
    fields = {
        "token_url": server.token_url,
        "client_id": "client",
        "store": "file:token.json",
        "grant": "client_credentials",
        **settings,
    }
    lines = [f"{name} = {toml(value)}" for name, value in fields.items() if value is not None]
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
    assert "one is requested when it is needed" in result.output


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
        ({"installation_id": "7", "client_secret": "secret"}, "is for another grant"),
        ({"grant": None, "audience": "x", "client_secret": "secret"}, "names no grant"),
        ({"grant": "token-exchange", "subject": "x"}, "subject is for the grant jwt-bearer"),
        (
            {"grant": "token-exchange", "subject_token_env": "X", "subject_token_file": "x"},
            "subject_token_env and subject_token_file do not go together",
        ),
        (
            {"grant": "token-exchange", "subject_token_env": "HTTPX_REFRESH_TEST_NO_SUCH"},
            "the environment variable HTTPX_REFRESH_TEST_NO_SUCH is not set",
        ),
        (
            {"grant": "token-exchange", "subject_token_file": "gone"},
            "the subject_token 'gone' cannot be read",
        ),
        ({"params": {"x": 7}}, "params.x in [reports] must be a text"),
        ({"params": {"x": {"enw": "y"}}}, "params.x in [reports] must be a text"),
        ({"params": {"x": {"env": "HTTPX_REFRESH_TEST_NO_SUCH"}}}, "is not set"),
        ({"provider": "google-service-account"}, "has the grant jwt-bearer"),
        (
            {"provider": "google-service-account", "grant": None},
            "google-service-account needs client_key_file",
        ),
        (
            {"provider": "google-service-account", "grant": None, "client_key_file": "gone.pem"},
            "google-service-account needs a scope",
        ),
        (
            {"provider": "github-installation", "grant": None, "client_key_file": "gone.pem"},
            "needs client_id (the app's) and installation_id",
        ),
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


def test_a_vendor_s_own_grant_is_told_its_parameters(
    server: AuthorizationServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.vendor_grants = {
        "account_credentials": {"account_id": "A1", "pin": "s3cr3t", "tan": "t"}
    }
    monkeypatch.setenv("PIN", "s3cr3t")
    Path("tan").write_text("t\n")
    params = {"account_id": "A1", "pin": {"env": "PIN"}, "tan": {"file": "tan"}}
    configure(server, grant="account_credentials", client_secret="secret", params=params)
    result = run("token", "reports", "--config", "config.toml")
    assert result.exit_code == Exit.DONE, result.output
    held = Path("token.json").read_text()
    assert "account_credentials at" in json.loads(held)["httpx_refresh"]["purpose"]
    assert "s3cr3t" not in held + result.output
    configure(server, grant="account_credentials", client_secret="secret", params={})
    result = run("refresh", "reports", "--config", "config.toml")
    assert result.exit_code == Exit.REFUSED
    assert "account_id is missing" in result.output.replace("\n", " ")


@pytest.mark.parametrize("where", ["env", "file"])
def test_a_token_may_be_exchanged(
    server: AuthorizationServer, run: Run, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    server.subject_tokens = ["s3cr3t"]
    monkeypatch.setenv("SUBJECT", "s3cr3t")
    Path("subject").write_text("s3cr3t\n")
    Path("subject").chmod(0o600)
    place = {"env": "SUBJECT", "file": "subject"}[where]
    told = {f"{name}_token_{where}": place for name in ("subject", "actor")}
    configure(
        server,
        grant="token-exchange",
        client_secret="secret",
        subject_token_type=JWT,
        actor_token_type=ID_TOKEN,
        audience="orders",
        params={"organization": "acme"},
        **told,
    )
    result = run("token", "reports", "--config", "config.toml")
    assert result.exit_code == Exit.DONE, result.output
    assert "s3cr3t" not in result.output
    form = dict(parse_qsl(server.token_calls[-1].body.decode()))
    assert (form["subject_token"], form["subject_token_type"]) == ("s3cr3t", JWT)
    assert (form["actor_token"], form["actor_token_type"]) == ("s3cr3t", ID_TOKEN)
    assert (form["audience"], form["organization"]) == ("orders", "acme")


def test_an_exchange_without_a_subject_lives_on_what_the_store_holds(
    server: AuthorizationServer, run: Run
) -> None:
    configure(server, grant="token-exchange", client_secret="secret")
    result = run("token", "reports", "--config", "config.toml")
    assert result.exit_code == Exit.LOG_IN
    assert server.token_requests == 0


def test_the_presets_of_services_are_made_of_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    key = RSAKey.generate_key(2048).as_pem(private=True).decode()
    Path("app.pem").write_text(key)
    account = {"client_email": "robot@acme.test", "private_key": key, "private_key_id": "k1"}
    Path("sa.json").write_text(json.dumps(account))
    Path("config.toml").write_text(
        """
        [drive]
        provider = "google-service-account"
        client_key_file = "sa.json"
        scope = "a"
        subject = "ann@acme.test"

        [repository]
        provider = "github-installation"
        client_id = "Iv1"
        client_key_file = "app.pem"
        installation_id = "345"
        """
    )
    found = read_config("config.toml")
    drive, repository = (anyio.run(found[name].source) for name in ("drive", "repository"))
    same = google_service_account(account, scope="a", subject="ann@acme.test")
    assert isinstance(drive, JWTBearer)
    assert drive.purpose == same.purpose
    assert isinstance(repository, GitHubInstallation)
    assert repository.endpoint.url.endswith("/app/installations/345/access_tokens")
