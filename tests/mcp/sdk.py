"""The installed MCP SDK, of either generation: its server in a process, and its client with `RefreshAuth`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Any, cast

import httpx
import pytest

from httpx_refresh import RefreshAuth, Token, mcp
from httpx_refresh.stores import TokenStore

sdk = pytest.importorskip("mcp", reason="the MCP SDK is not installed")

ROOT = Path(__file__).parents[2]
REDIRECT = "http://127.0.0.1:9/callback"
PATIENCE = 60.0  # seconds; the clients' default of five is short on a busy machine
GENERATION = 2 if hasattr(sdk, "MCPError") else 1

# The SDK's warnings about its own deprecations are no errors.
DEPRECATIONS = [
    pytest.mark.filterwarnings("default:::mcp"),
    pytest.mark.filterwarnings("ignore:Use .streamable_http_client. instead:DeprecationWarning"),
]

# Servers and clients on sockets: one event loop is enough, the library's own tests use all of them.
ON_ASYNCIO = [
    pytest.mark.anyio,
    pytest.mark.parametrize("anyio_backend", ["asyncio"], scope="module"),
]


def consent(page: str) -> dict[str, str]:
    """Return the fields that the form of a consent page sends when a person agrees."""
    fields = dict(re.findall(r'<input[^>]*\bname="([^"]+)"[^>]*\bvalue="([^"]*)"', page))
    ((name, value),) = re.findall(
        r'<button[^>]*\bname="([^"]+)"[^>]*\bvalue="(allow|approve)"', page
    )
    return {**fields, name: value}


class Running:
    """A running MCP server, and a person who agrees there."""

    def __init__(self, url: str) -> None:
        self.base = url
        self.url = f"{url}/mcp"

    def stats(self) -> dict[str, int]:
        answer = httpx.get(f"{self.base}/control/stats", trust_env=False, timeout=PATIENCE)
        counts: dict[str, int] = answer.json()
        return counts

    def control(self, what: str) -> None:
        answer = httpx.post(f"{self.base}/control/{what}", trust_env=False, timeout=PATIENCE)
        answer.raise_for_status()

    async def log_in(self, source: mcp.Server, store: TokenStore) -> Token:
        login = await source.begin_login(store, REDIRECT)
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as browser:
            answer = await browser.get(login.url)
            while not (there := answer.headers.get("location", "")).startswith(REDIRECT):
                if answer.has_redirect_location:
                    answer = await browser.get(answer.url.join(there))
                else:
                    answer = await browser.post(answer.url, data=consent(answer.text))
        token = await source.finish_login(store, there, login)
        await RefreshAuth(source, store).set_token(token)
        return token


@contextmanager
def running(module: str = "tests.mcp.sdk_server") -> Iterator[Running]:
    """Run a server in a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-m", module],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Running(json.loads(cast("IO[str]", process.stdout).readline())["url"])
        finally:
            cast("IO[str]", process.stdin).close()


@asynccontextmanager
async def session(url: str, auth: RefreshAuth) -> AsyncIterator[Any]:
    """Open a session of the SDK's client, as its users do."""
    from mcp.client.session import ClientSession

    if GENERATION == 2:
        import httpx2
        from mcp.client.streamable_http import streamable_http_client

        async with (
            httpx2.AsyncClient(auth=auth, trust_env=False, timeout=PATIENCE) as client,
            streamable_http_client(url, http_client=client) as (reading, writing, *_),
            ClientSession(reading, writing) as opened,
        ):
            await opened.initialize()
            yield opened
        return
    from mcp.client.streamable_http import streamablehttp_client

    async with (
        streamablehttp_client(url, auth=auth) as (reading, writing, *_),
        ClientSession(reading, writing) as opened,
    ):
        await opened.initialize()
        yield opened


async def call(opened: Any, number: int) -> str:
    """Call the server's tool, and return its answer."""
    result = await opened.call_tool("whoami", {"number": number})
    text: str = result.content[0].text
    return text
