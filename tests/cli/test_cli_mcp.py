from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from httpx_refresh.cli.console import Exit

if TYPE_CHECKING:
    from httpx_refresh.testing import AuthorizationServer
    from tests.cli.conftest import Browser, Run


@pytest.fixture
def mcp(server: AuthorizationServer) -> list[str]:
    """The options of a login at an MCP server."""
    server.resource_metadata = True
    server.registration = "open"
    server.scopes_supported = ("read",)
    return ["--mcp", server.mcp_url, "--store", "file:token.json"]


def held() -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(Path("token.json").read_text())
    return fields


def test_a_login_registers_the_client_and_ends_with_a_token_in_the_store(
    run: Run, mcp: list[str], browser: Browser, server: AuthorizationServer
) -> None:
    result = run("login", *mcp, "--client-name", "My agents")
    assert result.exit_code == Exit.DONE, result.output
    (page,) = browser.pages
    assert "You are logged in" in page.text
    assert held()["scope"] == "read"
    (said,) = server.registrations
    assert said["client_name"] == "My agents"
    assert said["application_type"] == "native"


def test_a_second_login_comes_back_to_the_same_port_and_registers_nothing(
    run: Run, mcp: list[str], browser: Browser, server: AuthorizationServer
) -> None:
    run("login", *mcp)
    assert run("login", *mcp).exit_code == Exit.DONE
    assert len(server.registrations) == 1
    first, second = (urlsplit(str(page.request.url)).port for page in browser.pages)
    assert first == second
    assert run("login", *mcp, "--register").exit_code == Exit.DONE
    assert len(server.registrations) == 2


def test_where_that_port_is_taken_by_now_the_client_is_registered_for_another(
    run: Run, mcp: list[str], browser: Browser, server: AuthorizationServer
) -> None:
    run("login", *mcp)
    (uri,) = held()["httpx_refresh"]["registrations"][server.issuer]["redirect_uris"]
    with socket.create_server(("127.0.0.1", urlsplit(uri).port or 0)):
        result = run("login", *mcp)
    assert result.exit_code == Exit.DONE, result.output
    assert len(server.registrations) == 2


def test_a_port_that_is_given_is_the_only_place_where_the_browser_comes_back(
    run: Run, mcp: list[str], browser: Browser, server: AuthorizationServer, free_port: int
) -> None:
    run("login", *mcp)
    result = run("login", *mcp, "--port", str(free_port))
    assert result.exit_code == Exit.DONE, result.output
    assert urlsplit(str(browser.pages[-1].request.url)).port == free_port
    assert len(server.registrations) == 2


def test_a_registration_for_an_application_elsewhere_is_no_place_for_this_browser(
    run: Run, mcp: list[str], browser: Browser, server: AuthorizationServer
) -> None:
    """The store may be a web application's, whose users come back to its own address."""
    run("login", *mcp)
    fields = held()
    registration = fields["httpx_refresh"]["registrations"][server.issuer]
    registration["redirect_uris"] = ["https://app.test/back"]
    Path("token.json").write_text(json.dumps(fields))
    result = run("login", *mcp)
    assert result.exit_code == Exit.DONE, result.output
    assert str(browser.pages[-1].request.url).startswith("http://127.0.0.1:")
    assert len(server.registrations) == 2


def test_a_server_that_registers_nobody_is_told_of_before_a_browser_opens(
    run: Run, mcp: list[str], browser: Browser, server: AuthorizationServer
) -> None:
    server.registration = None
    result = run("login", *mcp)
    assert result.exit_code != Exit.DONE
    assert "--client-id" in result.stderr
    assert browser.opened == []


def test_refresh_and_revoke_find_their_way_by_the_token(
    run: Run, mcp: list[str], browser: Browser, server: AuthorizationServer
) -> None:
    run("login", *mcp)
    result = run("refresh", *mcp)
    assert result.exit_code == Exit.DONE, result.output
    assert server.rotations == 1
    result = run("revoke", "--yes", *mcp)
    assert result.exit_code == Exit.DONE, result.output
    assert server.family_revocations == 1
    assert "access_token" not in held()
    # The client is registered still.
    assert run("login", *mcp).exit_code == Exit.DONE
    assert len(server.registrations) == 1


def test_a_refused_registration_ends_the_login_before_a_browser_opens(
    run: Run, mcp: list[str], browser: Browser, server: AuthorizationServer
) -> None:
    server.registration = "refused"
    result = run("login", *mcp)
    assert result.exit_code == Exit.LOGIN_FAILED
    assert "did not register this client" in result.stderr
    assert "--port" in result.stderr
    assert browser.opened == []
    assert not Path("token.json").exists()


def test_a_stronger_login_is_asked_for(
    run: Run, mcp: list[str], browser: Browser, server: AuthorizationServer
) -> None:
    """What a `StepUpRequired` of an MCP server holds."""
    result = run("login", *mcp, "--acr-values", "phr", "--max-age", "60", "--scope", "read")
    assert result.exit_code == Exit.DONE, result.output
    (url,) = browser.opened
    asked = parse_qs(urlsplit(url).query)
    assert (asked["acr_values"], asked["max_age"], asked["scope"]) == (["phr"], ["60"], ["read"])


@pytest.mark.parametrize(
    "options", [["--token-url", "https://x.test/"], ["--device"], ["--no-pkce"]]
)
def test_options_of_other_servers_do_not_go_with_it(
    run: Run, mcp: list[str], options: list[str]
) -> None:
    result = run("login", *mcp, *options)
    assert result.exit_code == Exit.USAGE
    assert "--mcp" in result.stderr


def test_an_address_that_is_none_is_wrong_usage(run: Run) -> None:
    result = run("login", "--mcp", "http://mcp.example.com/", "--store", "file:token.json")
    assert result.exit_code == Exit.USAGE
    assert "must be https" in result.stderr
