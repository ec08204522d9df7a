"""The command line logs in at a real provider, in a real browser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, cast

import anyio
import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from httpx_refresh import FileStore, RefreshAuth, TokenEndpoint
from httpx_refresh.cli.console import Exit
from tests.browser.conftest import running, see

ROOT = Path(__file__).parents[2]
ROUNDS, CALLERS = 5, 8


class Provider(NamedTuple):
    url: str
    user: str
    password: str
    client_id: str
    client_secret: str

    def refresh_tokens(self) -> dict[str, int]:
        counts: dict[str, int] = httpx.get(
            f"{self.url}/control/tokens", trust_env=False, timeout=60
        ).json()
        return counts


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[Provider]:
    """Run django-oauth-toolkit in a process of its own."""
    command = [sys.executable, "-m", "tests.browser", str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Provider(**json.loads(cast("IO[str]", process.stdout).readline()))
        finally:
            cast("IO[str]", process.stdin).close()


@contextmanager
def login(
    provider: Provider, store: Path, *options: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run `httpx-refresh login`; yield the address that it prints, and the process."""
    command = [str(Path(sys.executable).with_name("httpx-refresh")), "login"]
    command += ["--issuer", provider.url, "--scope", "read", "--store", f"file:{store}", *options]
    with running(
        command,
        store.parent,
        HTTPX_REFRESH_CLIENT_ID=provider.client_id,
        HTTPX_REFRESH_CLIENT_SECRET=provider.client_secret,
    ) as (url, process):
        yield url, process


def sign_in(chromium: webdriver.Chrome, provider: Provider, url: str) -> None:
    """Go to the address that the command line printed, and log in at the provider."""
    chromium.get(url)
    chromium.find_element(By.NAME, "username").send_keys(provider.user)
    chromium.find_element(By.NAME, "password").send_keys(provider.password)
    chromium.find_element(By.CSS_SELECTOR, "[type=submit]").click()
    assert "Read your books" in chromium.find_element(By.ID, "authorizationForm").text


def test_a_person_logs_in_and_the_token_lives_through_many_rotations(
    provider: Provider, chromium: webdriver.Chrome, tmp_path: Path
) -> None:
    store = tmp_path / "token.json"
    with login(provider, store) as (url, process):
        sign_in(chromium, provider, url)
        chromium.find_element(By.NAME, "allow").click()
        text = see(chromium, "You are logged in", tmp_path)
        ended_at = chromium.current_url
        out, err = process.communicate(timeout=120)
    assert process.returncode == Exit.DONE, err
    assert "The token is saved. You can close this window." in text
    assert "Logged in at 127.0.0.1." in out
    held = json.loads(store.read_text())
    for secret in (held["access_token"], held["refresh_token"], provider.client_secret):
        assert secret not in out + err + text

    # The redirect URI no longer works: nobody listens there.
    with pytest.raises(httpx.ConnectError):
        httpx.get(ended_at, trust_env=False)

    statuses = anyio.run(use, provider, store, backend="trio")
    assert statuses == [200] * ROUNDS * CALLERS
    # One rotation in each round, and only the token in the store is still good.
    assert provider.refresh_tokens() == {"issued": 1 + ROUNDS, "good": 1}
    assert json.loads(store.read_text())["httpx_refresh"]["generation"] == 1 + ROUNDS


async def use(provider: Provider, store: Path) -> list[int]:
    """Expire the token at the provider and call the API from many tasks at once, again and again."""
    endpoint = TokenEndpoint(f"{provider.url}/token/", provider.client_id, provider.client_secret)
    statuses: list[int] = []
    async with (
        RefreshAuth(endpoint, FileStore(store), origins=provider.url, refresh_timeout=60) as auth,
        httpx.AsyncClient(auth=auth, trust_env=False, base_url=provider.url, timeout=60) as client,
        httpx.AsyncClient(trust_env=False, base_url=provider.url, timeout=60) as control,
    ):

        async def call() -> None:
            statuses.append((await client.get("/api/ping")).status_code)

        for _ in range(ROUNDS):
            (await control.get("/control/expire")).raise_for_status()
            async with anyio.create_task_group() as tasks:
                for _ in range(CALLERS):
                    tasks.start_soon(call)
    return statuses


def test_a_person_says_no_and_the_old_token_is_kept(
    provider: Provider, chromium: webdriver.Chrome, tmp_path: Path
) -> None:
    store = tmp_path / "token.json"
    store.write_text('{"access_token": "OLD"}')
    with login(provider, store) as (url, process):
        sign_in(chromium, provider, url)
        chromium.find_element(By.CSS_SELECTOR, "[value=Cancel]").click()
        text = see(chromium, "The login did not work", tmp_path)
        _, err = process.communicate(timeout=120)
    assert process.returncode == Exit.LOGIN_FAILED
    assert "was denied (access_denied" in err
    assert "was denied (access_denied" in text
    assert store.read_text() == '{"access_token": "OLD"}'


def test_what_was_logged_in_by_hand_is_revoked_for_good(
    provider: Provider, chromium: webdriver.Chrome, tmp_path: Path
) -> None:
    """With `--no-browser` the browser ends at an address that does not load, and a person pastes that address."""
    store = tmp_path / "token.json"
    with login(provider, store, "--no-browser") as (url, process):
        sign_in(chromium, provider, url)
        chromium.find_element(By.NAME, "allow").click()
        WebDriverWait(chromium, 60).until(lambda browser: "code=" in browser.current_url)
        _, err = process.communicate(f"{chromium.current_url}\n", timeout=60)
    assert process.returncode == Exit.DONE, err
    command = [str(Path(sys.executable).with_name("httpx-refresh")), "revoke", "--yes"]
    command += ["--issuer", provider.url, "--store", f"file:{store}"]
    environment = {
        **os.environ,
        "HTTPX_REFRESH_CLIENT_ID": provider.client_id,
        "HTTPX_REFRESH_CLIENT_SECRET": provider.client_secret,
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == Exit.DONE, done.stderr
    assert provider.refresh_tokens() == {"issued": 1, "good": 0}
