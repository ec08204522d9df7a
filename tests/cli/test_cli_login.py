from __future__ import annotations

import getpass
import hashlib
import io
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx
import pytest

from httpx_refresh import (
    DeviceAuthorization,
    FileStore,
    LoginFailed,
    RefreshAuth,
    Token,
    TokenEndpoint,
)
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


def out_of_time(monkeypatch: pytest.MonkeyPatch, *, looks: int) -> None:
    """End the time of the next login when its deadline has been checked this many times."""
    moments = iter([0.0] * (1 + looks))
    clock = SimpleNamespace(monotonic=lambda: next(moments, 1e9))
    monkeypatch.setattr(login, "time", clock)


def test_a_redirect_of_an_earlier_login_is_turned_away_and_the_login_waits_on(
    run: Run, at: list[str], browser: Browser
) -> None:
    assert run("login", *at).exit_code == Exit.DONE
    earlier = str(browser.pages[0].request.url)
    first = token()
    turned_away: list[httpx.Response] = []

    def change(redirect: str) -> str:
        query = urlsplit(earlier).query
        turned_away.append(
            httpx.get(f"{redirect.partition('?')[0]}?{query}", trust_env=False, timeout=60),
        )
        turned_away.append(
            httpx.get(changed(redirect, state=None, code=None, error="access_denied"), timeout=60)
        )
        return redirect

    browser.change = change
    result = run("login", *at)
    assert [page.status_code for page in turned_away] == [400, 400]
    assert "Not this login" in turned_away[0].text
    assert "its state is another one, or missing" in result.stderr
    assert result.exit_code == Exit.DONE
    assert token() != first


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


def test_a_browser_that_is_closed_ends_the_login_after_a_while(
    run: Run, at: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("token.json").write_text(OLD)
    out_of_time(monkeypatch, looks=2)
    result = run("login", *at, "--timeout", "60")
    assert result.exit_code == Exit.LOGIN_FAILED
    assert "Nobody came back from the login within 60 s (--timeout)" in result.stderr
    the_old_token_is_kept()


@pytest.mark.parametrize(
    "looks, words",
    [(0, "did not say where its endpoints are within"), (1, "The store did not answer within")],
)
def test_the_time_for_a_login_counts_from_its_beginning(
    run: Run,
    at: list[str],
    browser: Browser,
    monkeypatch: pytest.MonkeyPatch,
    looks: int,
    words: str,
) -> None:
    Path("token.json").write_text(OLD)
    out_of_time(monkeypatch, looks=looks)
    result = run("login", *at, "--timeout", "2")
    assert result.exit_code == Exit.LOGIN_FAILED
    assert words in result.stderr
    assert "2 s (--timeout)" in result.stderr
    assert browser.opened == []
    the_old_token_is_kept()


@pytest.mark.parametrize("path", ["metadata", "token", "device"])
def test_a_server_that_never_answers_does_not_hold_a_login_up(
    run: Run,
    at: list[str],
    server: AuthorizationServer,
    browser: Browser,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
) -> None:
    """A server that accepts connections and never answers."""

    def open_browser(url: str) -> None:
        with suppress(httpx.TransportError):  # Nobody can answer it any more.
            browser.open(url)

    monkeypatch.setattr(webbrowser, "open", open_browser)
    Path("token.json").write_text(OLD)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        endpoints = ["--authorization-url", f"{server.issuer}/authorize"]
        options = {
            "metadata": ["--issuer", url],
            "token": ["--token-url", url, *endpoints],
            "device": ["--token-url", url, "--device-authorization-url", url, "--device"],
        }[path]
        began = time.monotonic()
        result = run("login", *at[2:], *options, "--timeout", "0.2")
        took = time.monotonic() - began
    assert result.exit_code == Exit.LOGIN_FAILED, result.output
    assert "within 0.2 s (--timeout)" in result.stderr
    # Far less than the half minute that a client waits by default.
    assert took < 5
    the_old_token_is_kept()


@pytest.mark.anyio
async def test_a_token_that_has_come_is_saved_though_the_time_is_up(
    server: AuthorizationServer,
) -> None:
    auth = RefreshAuth(
        TokenEndpoint(server.token_url, "client"), FileStore("token.json"), origins=()
    )
    with anyio.CancelScope() as scope:
        scope.cancel()
        await login._save(auth, Token("NEW", "NEW"))
    assert token()["access_token"] == "NEW"


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


def test_a_directory_that_may_not_be_written_is_found_out_before_the_browser_opens(
    run: Run, at: list[str], browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Path, int]] = []

    def access(path: Path, mode: int) -> bool:  # Root may write anywhere.
        asked.append((path, mode))
        return False

    monkeypatch.setattr("httpx_refresh.cli.slots.os.access", access)
    Path("token.json").write_text(OLD)
    result = run("login", *at)
    assert result.exit_code == Exit.STORE
    assert "its directory is not writable" in result.stderr
    assert asked == [(Path.cwd().resolve(), os.W_OK)]
    assert browser.opened == []
    the_old_token_is_kept()


def test_a_login_that_is_not_finished_leaves_a_slot_as_it_was(
    run: Run, at: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file keeps its bytes and its inode, so it was not written at all."""
    written: list[str] = []
    replace = FileStore.replace

    async def noted(self: FileStore, old: str | None, new: str) -> bool:
        won = await replace(self, old, new)
        written.extend([new] * won)
        return won

    monkeypatch.setattr(FileStore, "replace", noted)
    Path("token.json").write_text(OLD)
    before = Path("token.json").stat()
    result = run("login", *at, "--no-browser", input="\n")
    assert result.exit_code == Exit.LOGIN_FAILED
    after = Path("token.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    the_old_token_is_kept()
    assert written == []


@pytest.mark.parametrize("store", ["file:token.json", "sqlite+aiosqlite:///tokens.db?key=a"])
def test_a_login_that_is_not_finished_leaves_an_empty_slot_empty(
    run: Run, at: list[str], store: str
) -> None:
    result = run("login", *at, "--store", store, "--no-browser", input="\n")
    assert result.exit_code == Exit.LOGIN_FAILED
    assert not Path("token.json").exists()
    assert "no token: log in" in run("status", "--store", store).stdout


def test_a_login_that_is_not_finished_does_not_encrypt_what_somebody_put_there(
    run: Run, at: list[str], browser: Browser
) -> None:
    """Somebody who can write to the store, without a key, puts a token there. A login must not encrypt it."""
    Path("keys.txt").write_text(run("generate-key").stdout)
    planted = '{"access_token": "PLANTED", "refresh_token": "PLANTED"}'
    Path("token.json").write_text(planted)
    encrypted = ["--encrypt-key-file", "keys.txt"]
    result = run("login", *at, *encrypted, "--no-browser", input="\n")
    assert result.exit_code == Exit.LOGIN_FAILED
    assert Path("token.json").read_text() == planted
    refused = run("status", "--store", "file:token.json", *encrypted)
    assert refused.exit_code == Exit.STORE
    assert "holds a text that is not encrypted" in refused.stderr
    assert run("login", *at, *encrypted).exit_code == Exit.DONE
    assert run("status", "--store", "file:token.json", *encrypted).exit_code == Exit.DONE


def test_the_browser_inherits_no_setting_of_this_program(
    run: Run, at: list[str], browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    inherited: dict[str, str] = {}
    monkeypatch.setattr(
        webbrowser, "open", lambda url: inherited.update(os.environ) or browser.open(url)
    )
    Path("config.toml").write_text(
        f'[own]\nissuer = "{at[1]}"\nclient_id = "client"\nclient_secret_env = "OWN_SECRET"\n'
    )
    env = {
        "OWN_SECRET": "secret",
        "HTTPX_REFRESH_CLIENT_SECRET": "secret",
        "HTTPX_REFRESH_STORE": "file:token.json",
        "HTTPX_REFRESH_CONFIG": "config.toml",
        "HTTPX_REFRESH_A_KEY": "key",
        "SOMETHING_ELSE": "kept",
    }
    for arguments in (["login", "own"], ["login", *at[:4]]):
        inherited.clear()
        result = run(*arguments, env=env)
        assert result.exit_code == Exit.DONE, result.output
        assert inherited["SOMETHING_ELSE"] == "kept"
        assert [name for name in inherited if name.startswith("HTTPX_REFRESH_")] == []
    assert "OWN_SECRET" in inherited  # It was not a setting of the second login.


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
    """Return the address at which a browser on any machine ends the next login."""
    known = SimpleNamespace(
        token_urlsafe=lambda size: "x" * size, compare_digest=secrets.compare_digest
    )
    monkeypatch.setattr("httpx_refresh._oauth.login.secrets", known)
    endpoint = TokenEndpoint(
        server.token_url, "client", authorization_endpoint=f"{server.issuer}/authorize"
    )
    url = endpoint.authorization_url(redirect_uri).url
    return httpx.get(url, trust_env=False, timeout=60).headers["location"]


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


def test_a_question_that_nobody_answers_ends_with_the_time_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A terminal or a pipe that stays open without input."""
    reading, writing = os.pipe()
    with open(reading) as silent, open(writing, "w"):
        monkeypatch.setattr(sys, "stdin", silent)
        with pytest.raises(LoginFailed, match="Nobody answered in time"):
            ask_hidden("Paste: ", timeout=0)
    # The alarm has its earlier handler and time again.
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_an_alarm_that_goes_nowhere_rings_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rings: list[tuple[float, ...]] = []
    setitimer = signal.setitimer

    def noted(which: int, *seconds: float) -> None:
        rings.append(seconds)
        setitimer(which, *seconds)

    monkeypatch.setattr(signal, "setitimer", noted)
    monkeypatch.setattr(sys, "stdin", io.StringIO("pasted\n"))
    assert ask_hidden("Paste: ", timeout=60) == "pasted"
    assert rings == [(60, 1.0), (0,)]


def test_without_such_a_timer_a_question_is_asked_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(signal, "setitimer")
    monkeypatch.setattr(sys, "stdin", io.StringIO("pasted\n"))
    assert ask_hidden("Paste: ", timeout=0) == "pasted"


def test_a_pasted_code_has_a_moment_to_be_redeemed_when_the_time_is_up(
    run: Run, at: list[str], server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = where_it_ends(server, monkeypatch, "http://127.0.0.1/callback")
    monkeypatch.setattr(login, "GRACE", 60)
    out_of_time(monkeypatch, looks=3)
    result = run("login", *at, "--no-browser", input=f"{ended}\n")
    assert result.exit_code == Exit.DONE, result.output


@pytest.mark.parametrize("control", ["\x1b[2J", "\n", "\r", "\x9b31m", "\u202e", "\x7f"])
def test_what_others_say_does_not_reach_the_terminal_as_it_is(
    run: Run,
    at: list[str],
    browser: Browser,
    server: AuthorizationServer,
    monkeypatch: pytest.MonkeyPatch,
    control: str,
) -> None:
    odd = f"a{control}Logged out"
    server.script(Answer(fields={"scope": odd, "realmId": odd}))
    urls = ["--token-url", server.token_url, "--authorization-url", f"{server.issuer}/authorize"]
    result = run("login", "quickbooks", *urls, *at[2:])
    assert result.exit_code == Exit.DONE, result.output
    shown = f"a\\u{ord(control[0]):04x}{control[1:]}Logged out"
    assert f"realmId: {shown}\n" in result.stdout
    status = run("status", "--store", at[-1])
    assert status.stdout.count(shown) == 2
    assert odd not in result.output + status.output

    async def begin(*_: object, **__: object) -> DeviceAuthorization:
        return DeviceAuthorization("device", odd, f"https://x.test/{odd}", f"https://{odd}", 1e9, 5)

    monkeypatch.setattr(TokenEndpoint, "device_authorization", begin)
    out_of_time(monkeypatch, looks=3)
    device = run("login", *at, "--device")
    assert device.output.count(shown) == 3
    assert odd not in device.output


def test_a_device_login_shows_a_code_and_waits_for_the_person(
    run: Run, at: list[str], server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The person decides while the device waits. The wait of five seconds is shortened."""
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
    out_of_time(monkeypatch, looks=3)
    result = run("login", *at, "--device")
    assert result.exit_code == Exit.LOGIN_FAILED
    assert "open https://x.test/go and enter this code" in result.stderr
    assert "Or open" not in result.stderr


def test_a_device_login_that_nobody_decides_about_ends(
    run: Run, at: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out_of_time(monkeypatch, looks=3)
    result = run("login", *at, "--device", "--timeout", "60")
    assert result.exit_code == Exit.LOGIN_FAILED
    assert "Nobody decided about the login within 60 s" in result.stderr


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
    def interrupt(prompt: str, **_: object) -> str:
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
        # Its stdin stays open, so the signal ends the question, and not the end of the input. The exception of a signal
        # may be swallowed (in a weak reference's callback), so the signal is sent again.
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
        err = process.stderr.read()
    assert process.returncode == Exit.INTERRUPTED
    assert err == "Interrupted. The token in the store is as it was, or newer.\n"


def test_a_name_server_that_does_not_answer_outlasts_no_timeout(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answered, done = threading.Event(), threading.Event(), threading.Event()

    def stuck(*arguments: object, **options: object) -> None:
        asked.set()
        answered.wait(120)
        done.set()
        raise OSError("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", stuck)
    at = ["--issuer", "https://stuck.test", "--client-id", "a", "--store", "file:token.json"]
    try:
        result = run("login", *at, "--timeout", "0.5")
        assert result.exit_code == Exit.LOGIN_FAILED
        assert "did not say where its endpoints are within 0.5 s" in result.stderr
        assert asked.is_set()
        assert not done.is_set()
    finally:
        answered.set()
        assert not asked.is_set() or done.wait(120)


def test_a_login_asks_for_what_an_api_wanted(
    run: Run, at: list[str], browser: Browser, server: AuthorizationServer
) -> None:
    claims = '{"access_token":{"acrs":{"value":"c1"}}}'
    wanted = ["--scope", "a b", "--claims", claims, "--acr-values", "gold silver", "--max-age", "0"]
    result = run("login", *at, *wanted)
    assert result.exit_code == Exit.DONE, result.output
    asked = {"claims": claims, "acr_values": "gold silver", "max_age": "0"}
    assert server.families[-1].asked == asked
    assert server.families[-1].scope == "a b"


@pytest.mark.parametrize(
    "options, said",
    [
        (["--claims", "c1"], "--claims must be a JSON object"),
        (["--device", "--acr-values", "gold"], "a device login cannot ask for --acr-values"),
    ],
)
def test_what_cannot_be_asked_for_is_found_out_before_the_browser_opens(
    run: Run, at: list[str], browser: Browser, options: list[str], said: str
) -> None:
    result = run("login", *at, *options)
    assert result.exit_code != Exit.DONE
    assert said in " ".join(result.stderr.split())
    assert not browser.opened
