"""The command line and a browser log in at the SDK's MCP server: registration, consent, redirect."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from httpx_refresh import FileStore, RefreshAuth, mcp
from httpx_refresh.cli.console import Exit
from tests.browser.conftest import running as running_command
from tests.browser.conftest import see
from tests.mcp.sdk import DEPRECATIONS, Running, call, running, session

pytestmark = DEPRECATIONS


@pytest.fixture
def server() -> Iterator[Running]:
    with running() as one:
        yield one


class Done(NamedTuple):
    """How a login ended: the command's exit code and output, and the text of the page that the browser ended on."""

    code: int
    out: str
    err: str
    text: str


def log_in(
    server: Running, store: Path, chromium: webdriver.Chrome, button: str, title: str
) -> Done:
    """Run `httpx-refresh login --mcp`, and press a button on the server's consent page."""
    command = [sys.executable, "-m", "httpx_refresh", "login", "--mcp", server.url]
    command += ["--store", f"file:{store}", "--client-name", "Agents of the test"]
    with running_command(command, store.parent) as (url, process):
        chromium.get(url)
        heading = chromium.find_element(By.TAG_NAME, "h1")
        assert heading.text == "Agents of the test asks for access"
        chromium.find_element(By.ID, button).click()
        text = see(chromium, title, store.parent)
        out, err = process.communicate(timeout=120)
    return Done(process.returncode, out, err, text)


def held(store: Path) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(store.read_text())
    return fields


async def work(server: Running, store: Path) -> list[str]:
    """Call the server's tool before and after the token has expired there."""
    auth = RefreshAuth(mcp.Server(server.url), FileStore(store))
    async with session(server.url, auth) as opened:
        before = await call(opened, 1)
        server.control("expire")
        return [before, await call(opened, 2)]


def test_a_person_logs_in_at_an_mcp_server_and_agents_use_the_token_over_an_expiry(
    server: Running, chromium: webdriver.Chrome, tmp_path: Path
) -> None:
    store = tmp_path / "token.json"
    first = log_in(server, store, chromium, "allow", "You are logged in")
    assert first.code == Exit.DONE, first.err
    fields = held(store)
    assert fields["scope"] == "use"
    for secret in (fields["access_token"], fields["refresh_token"]):
        assert secret not in first.out + first.err + first.text
    assert anyio.run(work, server, store) == ["call 1", "call 2"]

    # A second login ends at the same address, so the client need not register again.
    second = log_in(server, store, chromium, "allow", "You are logged in")
    assert second.code == Exit.DONE, second.err
    stats = server.stats()
    assert (stats["registrations"], stats["rotations"]) == (1, 1)
    assert stats[f"resource {server.url}"] == 3  # For each login, and for the refresh.


def test_a_person_says_no_to_an_mcp_server_and_only_the_registration_is_kept(
    server: Running, chromium: webdriver.Chrome, tmp_path: Path
) -> None:
    store = tmp_path / "token.json"
    done = log_in(server, store, chromium, "deny", "The login did not work")
    assert done.code == Exit.LOGIN_FAILED
    assert "was denied (access_denied" in done.err
    assert "was denied (access_denied" in done.text
    fields = held(store)
    assert "access_token" not in fields
    (issuer,) = fields["httpx_refresh"]["registrations"]
    assert issuer.rstrip("/") == server.base
    assert server.stats() == {"registrations": 1}
