from __future__ import annotations

import getpass
import hashlib
import json
import secrets
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from httpx_refresh import DeviceAuthorization, FileStore, TokenEndpoint
from httpx_refresh.cli import console, login
from httpx_refresh.cli.console import Exit, ask_hidden
from httpx_refresh.testing import Answer
from tests.oauth.test_login import changed

if TYPE_CHECKING:
    from httpx_refresh.testing import AuthorizationServer
    from tests.cli.conftest import Browser, Run

OLD = '{"access_token": "OLD-ACCESS", "refresh_token": "OLD-REFRESH"}'


def token() -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(Path("token.json").read_text())
    return fields


def the_old_token_is_kept() -> None:
    assert Path("token.json").read_text() == OLD


def test_a_login_ends_on_a_page_and_with_a_token_in_the_store(
    run: Run, at: list[str], browser: Browser
) -> None:
    result = run("login", *at, "--scope", "a b")
    assert result.exit_code == Exit.DONE, result.output
    (page,) = browser.pages
    assert page.status_code == 200
    assert "You are logged in" in page.text
    assert "The token is saved. You can close this window." in page.text
    assert token()["scope"] == "a b"
    assert "Logged in at 127.0.0.1. The token is in FileStore('token.json')." in result.stdout


def test_nothing_that_is_printed_or_shown_is_a_secret(
    run: Run, at: list[str], browser: Browser, server: AuthorizationServer
) -> None:
    server.clients = {"client": "CLIENT-SECRET"}
    Path("secret.txt").write_text("CLIENT-SECRET")
    result = run("login", *at)
    saved = token()
    code = parse_qs(urlsplit(str(browser.pages[0].request.url)).query)["code"][0]
    for secret in (saved["access_token"], saved["refresh_token"], code, "CLIENT-SECRET"):
        assert secret not in result.output
        assert secret not in browser.pages[0].text


def test_the_page_runs_nothing_loads_nothing_and_tells_nobody_where_it_was(
    run: Run, at: list[str], browser: Browser
) -> None:
    run("login", *at)
    headers = browser.pages[0].headers
    assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert "<script" not in browser.pages[0].text


def test_a_token_that_was_there_is_replaced_and_counted(
    run: Run, at: list[str], browser: Browser
) -> None:
    Path("token.json").write_text(OLD)
    assert run("login", *at).exit_code == Exit.DONE
    assert token()["access_token"] != "OLD-ACCESS"
    assert token()["httpx_refresh"]["generation"] == 1


def test_what_the_redirect_brings_is_kept_and_shown(
    run: Run, at: list[str], browser: Browser, server: AuthorizationServer
) -> None:
    server.redirect_fields = {"realmId": "4620816365"}
    urls = ["--token-url", server.token_url, "--authorization-url", f"{server.issuer}/authorize"]
    # Intuit's preset, at this server's addresses.
    result = run("login", "quickbooks", *urls, *at[2:])
    assert result.exit_code == Exit.DONE, result.output
    assert token()["realmId"] == "4620816365"
    assert "realmId: 4620816365" in result.stdout
    assert "scope=com.intuit.quickbooks.accounting" in browser.opened[0]


def test_what_the_redirect_does_not_bring_is_not_missed(
    run: Run, at: list[str], browser: Browser, server: AuthorizationServer
) -> None:
    urls = ["--token-url", server.token_url, "--authorization-url", f"{server.issuer}/authorize"]
    result = run("login", "quickbooks", *urls, *at[2:])
    assert result.exit_code == Exit.DONE, result.output
    assert "realmId" not in result.output


def test_a_login_without_a_refresh_token_is_warned_of(
    run: Run, at: list[str], browser: Browser, server: AuthorizationServer
) -> None:
    server.script(Answer(omit=("refresh_token",)))
    result = run("login", *at)
    assert result.exit_code == Exit.DONE
    assert "gave no refresh token" in result.stderr


def test_a_fixed_port_and_a_redirect_uri_are_used_as_registered(
    run: Run, at: list[str], browser: Browser, free_port: int
) -> None:
    assert run("login", *at, "--port", str(free_port)).exit_code == Exit.DONE
    assert str(browser.pages[0].request.url).startswith(f"http://127.0.0.1:{free_port}/callback?")
    uri = f"http://localhost:{free_port}/my/path"
    assert run("login", *at, "--redirect-uri", uri).exit_code == Exit.DONE
    assert str(browser.pages[1].request.url).startswith(f"{uri}?")


@pytest.mark.parametrize(
    "fields, words, page_says",
    [
        ({"state": "another"}, "its state is another one", "its state is another one"),
        (
            {"code": None, "error": "access_denied", "error_description": "<b>no</b>"},
            "was denied (access_denied: <b>no</b>)",
            "access_denied: &lt;b&gt;no&lt;/b&gt;",
        ),
        ({"code": None}, "brings no authorization code", "brings no authorization code"),
        ({"code": "another"}, "refused the code", "refused the code"),
        ({"iss": "https://mallory.example"}, "another issuer", "another issuer"),
    ],
)
def test_a_redirect_that_is_wrong_is_told_here_and_in_the_browser_and_the_old_token_stays(
    run: Run,
    at: list[str],
    browser: Browser,
    fields: dict[str, str | None],
    words: str,
    page_says: str,
) -> None:
    Path("token.json").write_text(OLD)
    browser.change = lambda redirect: changed(redirect, **fields)
    result = run("login", *at)
    assert result.exit_code == Exit.LOGIN_FAILED
    assert words in result.stderr
    (page,) = browser.pages
    assert page.status_code == 400
    assert "The login did not work" in page.text
    assert page_says in page.text
    the_old_token_is_kept()


def test_a_person_who_denies_is_believed(
    run: Run, at: list[str], browser: Browser, server: AuthorizationServer
) -> None:
    server.consent = "deny"
    result = run("login", *at)
    assert result.exit_code == Exit.LOGIN_FAILED
    assert "was denied (access_denied)" in result.stderr


def test_a_redirect_of_an_earlier_login_is_refused(
    run: Run, at: list[str], browser: Browser
) -> None:
    assert run("login", *at).exit_code == Exit.DONE
    earlier = urlsplit(str(browser.pages[0].request.url)).query
    browser.change = lambda redirect: f"{redirect.partition('?')[0]}?{earlier}"
    result = run("login", *at)
    assert result.exit_code == Exit.LOGIN_FAILED
    assert "its state is another one" in result.stderr


def test_a_wrong_client_secret_is_named_and_the_old_token_stays(
    run: Run, at: list[str], browser: Browser
) -> None:
    Path("token.json").write_text(OLD)
    Path("secret.txt").write_text("WRONG-SECRET")
    result = run("login", *at)
    assert result.exit_code == Exit.LOGIN_FAILED
    assert "Check the client id, the client secret" in result.stderr
    assert "WRONG-SECRET" not in result.output + browser.pages[0].text
    the_old_token_is_kept()


def test_a_browser_that_is_closed_ends_the_login_after_a_while(run: Run, at: list[str]) -> None:
    Path("token.json").write_text(OLD)
    result = run("login", *at, "--timeout", "0.1")
    assert result.exit_code == Exit.LOGIN_FAILED
    assert "Nobody came back from the login within 0.1 s" in result.stderr
    the_old_token_is_kept()


def test_a_port_that_is_in_use_is_found_out_before_the_browser_opens(
    run: Run, at: list[str], browser: Browser
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = run("login", *at, "--port", str(taken.getsockname()[1]))
    assert result.exit_code == Exit.LOGIN_FAILED
    assert "is in use" in result.stderr
    assert browser.opened == []


def test_a_server_without_pkce_is_found_out_before_the_browser_opens(
    run: Run, at: list[str], browser: Browser, server: AuthorizationServer
) -> None:
    server.pkce = "unsupported"
    result = run("login", *at)
    assert result.exit_code == Exit.LOGIN_FAILED
    assert "does not support PKCE" in result.stderr
    assert browser.opened == []
    assert run("login", *at, "--no-pkce").exit_code == Exit.DONE


@pytest.mark.parametrize(
    "store, words",
    [
        ("file:absent/token.json", "could not be"),
        ("file:broken.json", "holds a text that is no token"),
        ("sqlite+aiosqlite:////absent/tokens.db?key=a", "its table could not be made"),
        ("redis://127.0.0.1:1/0?key=a", "could not be read"),
    ],
)
def test_a_store_that_cannot_be_used_is_found_out_before_the_browser_opens(
    run: Run, at: list[str], browser: Browser, store: str, words: str
) -> None:
    Path("broken.json").write_text("no token")
    result = run("login", *at, "--store", store)
    assert result.exit_code == Exit.STORE, result.output
    assert words in result.stderr
    assert browser.opened == []
    assert Path("broken.json").read_text() == "no token"


def test_a_read_only_database_is_found_out_before_the_browser_opens(
    run: Run, at: list[str], browser: Browser, tmp_path: Path
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/tokens.db?key=a"
    assert run("login", *at, "--store", url).exit_code == Exit.DONE
    read_only = f"sqlite+aiosqlite:///file:{tmp_path}/tokens.db?mode=ro&uri=true&key=a"
    result = run("login", *at, "--store", read_only)
    assert result.exit_code == Exit.STORE
    assert "could not be written" in result.stderr
    assert len(browser.opened) == 1


def test_a_slot_that_somebody_else_writes_to_meanwhile_is_tried_again(
    run: Run, at: list[str], browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refresh by somebody else comes between the look at the slot and the write that tries it."""
    Path("token.json").write_text(OLD)
    newer = OLD.replace("OLD", "NEWER")
    replace, seen = FileStore.replace, list[str | None]()

    async def raced(self: FileStore, old: str | None, new: str) -> bool:
        if not seen:
            assert await replace(self, old, newer)
        seen.append(old)
        return await replace(self, old, new)

    monkeypatch.setattr(FileStore, "replace", raced)
    assert run("login", *at).exit_code == Exit.DONE
    assert seen[:3] == [OLD, newer, f"{newer} "]


def test_a_login_makes_the_table_that_it_needs_and_encrypts_what_it_writes(
    run: Run, at: list[str], browser: Browser, tmp_path: Path
) -> None:
    Path("keys.txt").write_text(run("generate-key").stdout)
    url = f"sqlite+aiosqlite:///{tmp_path}/tokens.db?key=a"
    options = ["--store", url, "--encrypt-key-file", "keys.txt"]
    result = run("login", *at, *options)
    assert result.exit_code == Exit.DONE, result.output
    assert b"access_token" not in Path("tokens.db").read_bytes()
    assert run("status", *options).exit_code == Exit.DONE
    assert run("status", "--store", url).exit_code == Exit.STORE


def test_a_login_takes_a_plain_slot_over_to_encryption(
    run: Run, at: list[str], browser: Browser
) -> None:
    Path("keys.txt").write_text(run("generate-key").stdout)
    Path("token.json").write_text(OLD)
    result = run("login", *at, "--encrypt-key-file", "keys.txt")
    assert result.exit_code == Exit.DONE, result.output
    assert not Path("token.json").read_text().startswith("{")


def where_it_ends(
    server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch, redirect_uri: str
) -> str:
    """The address that a person's browser ends at, anywhere, for the login that comes next."""
    known = SimpleNamespace(
        token_urlsafe=lambda size: "x" * size, compare_digest=secrets.compare_digest
    )
    monkeypatch.setattr("httpx_refresh._oauth.login.secrets", known)
    endpoint = TokenEndpoint(
        server.token_url, "client", authorization_endpoint=f"{server.issuer}/authorize"
    )
    url = endpoint.authorization_url(redirect_uri).url
    return httpx.get(url, trust_env=False).headers["location"]


def test_without_a_browser_the_address_is_printed_and_where_it_ended_is_pasted(
    run: Run, at: list[str], server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = where_it_ends(server, monkeypatch, "http://127.0.0.1/callback")
    result = run("login", *at, "--no-browser", input=f"  {ended}\n")
    assert result.exit_code == Exit.DONE, result.output
    assert result.stdout.startswith(
        f"{server.issuer}/authorize?response_type=code&client_id=client"
    )
    code = parse_qs(urlsplit(ended).query)["code"][0]
    assert code not in result.output
    assert token()["refresh_token"]


@pytest.mark.parametrize(
    "option, value",
    [("--port", "8123"), ("--redirect-uri", "https://app.example/connected")],
)
def test_without_a_browser_any_redirect_uri_will_do(
    run: Run,
    at: list[str],
    server: AuthorizationServer,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    value: str,
) -> None:
    uri = value if "://" in value else f"http://127.0.0.1:{value}/callback"
    ended = where_it_ends(server, monkeypatch, uri)
    result = run("login", *at, "--no-browser", option, value, input=f"{ended}\n")
    assert result.exit_code == Exit.DONE, result.output


@pytest.mark.parametrize(
    "pasted, words",
    [
        ("", "No address was pasted"),
        ("http://127.0.0.1/callback?code=a&state=b", "its state is another one"),
        ("gibberish", "its state is missing"),
    ],
)
def test_what_is_pasted_wrongly_changes_nothing(
    run: Run, at: list[str], pasted: str, words: str
) -> None:
    Path("token.json").write_text(OLD)
    result = run("login", *at, "--no-browser", input=f"{pasted}\n")
    assert result.exit_code == Exit.LOGIN_FAILED
    assert words in result.stderr
    the_old_token_is_kept()


def test_at_a_terminal_what_is_pasted_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def hidden(prompt: str, stream: object) -> str:
        asked.append(prompt)
        return " pasted "

    monkeypatch.setattr(console, "at_terminal", lambda: True)
    monkeypatch.setattr(getpass, "getpass", hidden)
    assert ask_hidden("Paste: ") == "pasted"
    assert asked == ["Paste: "]


def test_a_device_login_shows_a_code_and_waits_for_the_person(
    run: Run, at: list[str], server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The person decides while the device waits; its wait of five seconds is cut short."""
    server.consent = "ask"

    async def person(seconds: float) -> None:
        assert seconds == 5
        server.decide_device("0000-" + hashlib.sha256(device_codes[0].encode()).hexdigest()[:4])

    device_codes: list[str] = []
    new_token = server.new_token

    def noted() -> str:
        device_codes.append(new_token())
        return device_codes[-1]

    server.new_token = noted
    monkeypatch.setattr("httpx_refresh._oauth.device.anyio.sleep", person)
    result = run("login", *at, "--device")
    assert result.exit_code == Exit.DONE, result.output
    assert result.stdout.startswith("0000-")
    assert f"{server.issuer}/device" in result.stderr
    assert device_codes[0] not in result.output
    assert token()["refresh_token"]


def test_a_device_login_needs_no_address_with_the_code_in_it(
    run: Run, at: list[str], server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def begin(*_: object, **__: object) -> DeviceAuthorization:
        return DeviceAuthorization("device", "USER-CODE", "https://x.test/go", None, 1e9, 5.0)

    monkeypatch.setattr(TokenEndpoint, "device_authorization", begin)
    result = run("login", *at, "--device", "--timeout", "0.1")
    assert result.exit_code == Exit.LOGIN_FAILED
    assert "open https://x.test/go and enter this code" in result.stderr
    assert "Or open" not in result.stderr


def test_a_device_login_that_nobody_decides_about_ends(run: Run, at: list[str]) -> None:
    result = run("login", *at, "--device", "--timeout", "0.1")
    assert result.exit_code == Exit.LOGIN_FAILED
    assert "Nobody decided about the login within 0.1 s" in result.stderr


def test_a_device_login_needs_a_provider_that_knows_it(run: Run, at: list[str]) -> None:
    result = run("login", "xero", *at[2:], "--device")
    assert result.exit_code == Exit.USAGE
    assert "Xero is not known to log in devices" in result.stderr


def test_a_provider_that_logs_nobody_in_is_reported(run: Run, server: AuthorizationServer) -> None:
    options = ["--token-url", server.token_url, "--client-id", "client", "--store", "file:t.json"]
    result = run("login", *options)
    assert result.exit_code == Exit.USAGE
    assert "no authorization_endpoint is known" in result.stderr


def test_an_interrupted_login_says_what_became_of_the_token(
    run: Run, at: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(prompt: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(login, "ask_hidden", interrupt)
    result = run("login", *at, "--no-browser")
    assert result.exit_code == Exit.INTERRUPTED
    assert "The token in the store is as it was" in result.stderr


def test_ctrl_c_ends_the_question_at_once(at: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "httpx_refresh", "login", *at, "--no-browser"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stderr is not None
        said = ""
        while "Paste it here" not in said:
            line = process.stderr.readline()
            assert line, f"it ended: {said}"
            said += line
        # Its stdin stays open: what ends the question is the signal, and not the end of its input. A signal that comes
        # while the interpreter is where an exception goes nowhere (a weak reference's callback) is lost: press again.
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
        err = process.stderr.read()
    assert process.returncode == Exit.INTERRUPTED
    assert err == "Interrupted. The token in the store is as it was, or newer.\n"
