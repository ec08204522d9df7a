"""A browser logs in to an MCP server of the SDK's own, from the command line on: registration, consent, redirect."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import anyio
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from httpx_refresh import FileStore, RefreshAuth, mcp
from httpx_refresh.cli.console import Exit
from tests.browser.conftest import running as running_command
from tests.browser.conftest import see
from tests.mcp.sdk import Running, call, running, session

# What the SDK says of its own deprecations.
pytestmark = [
    pytest.mark.filterwarnings("default:::mcp"),
    pytest.mark.filterwarnings("ignore:Use .streamable_http_client. instead:DeprecationWarning"),
]


@pytest.fixture
def server() -> Iterator[Running]:
    with running() as one:
        yield one


def login(
    server: Running, store: Path
) -> AbstractContextManager[tuple[str, subprocess.Popen[str]]]:
    """Run `httpx-refresh login --mcp`."""
    command = [sys.executable, "-m", "httpx_refresh", "login", "--mcp", server.url]
    command += ["--store", f"file:{store}", "--client-name", "Agents of the test"]
    return running_command(command, store.parent)


def held(store: Path) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(store.read_text())
    return fields


def decide(chromium: webdriver.Chrome, url: str, button: str) -> None:
    """Go to the server's consent page as sent, and press a button there."""
    chromium.get(url)
    assert chromium.find_element(By.TAG_NAME, "h1").text == "Agents of the test asks for access"
    chromium.find_element(By.ID, button).click()


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
    with login(server, store) as (url, process):
        decide(chromium, url, "allow")
        text = see(chromium, "You are logged in", tmp_path)
        out, err = process.communicate(timeout=120)
    assert process.returncode == Exit.DONE, err
    fields = held(store)
    assert fields["scope"] == "use"
    for secret in (fields["access_token"], fields["refresh_token"]):
        assert secret not in out + err + text
    assert anyio.run(work, server, store) == ["call 1", "call 2"]

    # A second login ends at the same address, so that the client need not register again.
    with login(server, store) as (url, process):
        decide(chromium, url, "allow")
        see(chromium, "You are logged in", tmp_path)
        _, err = process.communicate(timeout=120)
    assert process.returncode == Exit.DONE, err
    stats = server.stats()
    assert (stats["registrations"], stats["rotations"]) == (1, 1)
    assert stats[f"resource {server.url}"] == 3  # Of each login, and of the refresh.


def test_a_person_says_no_to_an_mcp_server_and_only_the_registration_is_kept(
    server: Running, chromium: webdriver.Chrome, tmp_path: Path
) -> None:
    store = tmp_path / "token.json"
    with login(server, store) as (url, process):
        decide(chromium, url, "deny")
        text = see(chromium, "The login did not work", tmp_path)
        _, err = process.communicate(timeout=120)
    assert process.returncode == Exit.LOGIN_FAILED
    assert "was denied (access_denied" in err
    assert "was denied (access_denied" in text
    fields = held(store)
    assert "access_token" not in fields
    (issuer,) = fields["httpx_refresh"]["registrations"]
    assert issuer.rstrip("/") == server.base
    assert server.stats() == {"registrations": 1}
