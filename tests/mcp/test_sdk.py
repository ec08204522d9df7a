"""The MCP SDK's own server and client, of the installed generation.

The two generations exclude each other: run this file in an environment of the group `sdks`, and in one of `sdks-mcp1`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, cast

import anyio
import pytest

from httpx_refresh import FileStore, MemoryStore, RefreshAuth, mcp
from tests.mcp.sdk import (
    DEPRECATIONS,
    GENERATION,
    ON_ASYNCIO,
    ROOT,
    Running,
    call,
    running,
    session,
)

pytestmark = [*ON_ASYNCIO, *DEPRECATIONS]


@pytest.fixture
def server() -> Iterator[Running]:
    with running() as one:
        yield one


async def test_calls_in_a_session_go_on_over_expiries(server: Running) -> None:
    source, store = mcp.Server(server.url), MemoryStore()
    token = await server.log_in(source, store)
    assert token.extra["scope"] == "use"
    async with session(server.url, RefreshAuth(source, store)) as opened:
        for number in range(3):
            assert await call(opened, number) == f"call {number}"
            server.control("expire")
        assert await call(opened, 3) == "call 3"
    stats = server.stats()
    assert stats["rotations"] == 3
    assert stats["registrations"] == 1
    assert "reuses" not in stats
    # Each token was asked for with the server's own address as resource.
    assert stats[f"resource {server.url}"] == 4


async def test_calls_that_meet_one_expiry_together_share_one_refresh(server: Running) -> None:
    source, store = mcp.Server(server.url), MemoryStore()
    await server.log_in(source, store)
    said: list[str] = []
    async with session(server.url, RefreshAuth(source, store)) as opened:
        server.control("hold")

        async def one(number: int) -> None:
            said.append(await call(opened, number))

        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(one, number)
            await anyio.to_thread.run_sync(server.control, "arrived")
            server.control("release")
    assert sorted(said) == sorted(f"call {number}" for number in range(10))
    assert server.stats()["rotations"] == 1


async def test_a_call_that_is_cancelled_during_the_refresh_loses_no_token(server: Running) -> None:
    source, store = mcp.Server(server.url), MemoryStore()
    await server.log_in(source, store)
    auth = RefreshAuth(source, store)
    async with session(server.url, auth) as opened:
        server.control("hold")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, opened, 1)
            await anyio.to_thread.run_sync(server.control, "arrived")
            tasks.cancel_scope.cancel()
            server.control("release")
        assert await call(opened, 2) == "call 2"
        await auth.aclose()
    stats = server.stats()
    assert stats["rotations"] == 1
    assert "reuses" not in stats


@pytest.mark.skipif(
    GENERATION == 1, reason="the SDK's first generation ends a session at any 401, with a group"
)
async def test_a_dead_grant_in_mid_session_fails_one_call_and_a_login_heals_the_session(
    server: Running,
) -> None:
    source, store = mcp.Server(server.url), MemoryStore()
    await server.log_in(source, store)
    auth = RefreshAuth(source, store, unauthorized="return")
    async with session(server.url, auth) as opened:
        assert await call(opened, 1) == "call 1"
        server.control("forget")
        with pytest.raises(Exception, match=r"(?i)unauthorized|401|session|server returned"):
            await call(opened, 2)
        await server.log_in(source, store)
        await auth.set_token(await RefreshAuth(source, store).token())
        assert await call(opened, 3) == "call 3"


AGENT = """
import sys, anyio
from httpx_refresh import FileStore, RefreshAuth, mcp
from tests.mcp.sdk import call, session

async def main(url, store):
    async with session(url, RefreshAuth(mcp.Server(url), FileStore(store))) as opened:
        for number in range(2):
            print(await call(opened, number), flush=True)
            await anyio.to_thread.run_sync(sys.stdin.readline)

anyio.run(main, *sys.argv[1:])
"""


@contextmanager
def _agents(command: list[str], count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Start processes, and kill those that are still running when the block ends."""
    pipe = subprocess.PIPE
    with ExitStack() as stack:
        agents = []
        for _ in range(count):
            one = stack.enter_context(
                subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
            )
            stack.callback(one.kill)
            agents.append(one)
        yield agents


def _say(agent: subprocess.Popen[str], line: str) -> None:
    stdin = cast("IO[str]", agent.stdin)
    stdin.write(line)
    stdin.flush()


def _hear(agent: subprocess.Popen[str], lines: int = 1) -> list[str]:
    """Read lines from a process. If it ends before, fail with what it wrote to standard error."""
    out = cast("IO[str]", agent.stdout)
    heard = [line for line in (out.readline() for _ in range(lines)) if line]
    if len(heard) < lines:
        pytest.fail(f"the agent said {heard}, and then: {cast('IO[str]', agent.stderr).read()}")
    return heard


def _end(agent: subprocess.Popen[str]) -> None:
    _, err = agent.communicate(timeout=120)
    assert agent.returncode == 0, err


async def test_three_processes_share_one_refresh(server: Running, tmp_path: Path) -> None:
    store = tmp_path / "token.json"
    await server.log_in(mcp.Server(server.url), FileStore(store))
    with _agents([sys.executable, "-c", AGENT, server.url, str(store)], 3) as agents:
        assert [_hear(one) for one in agents] == [["call 0\n"]] * 3
        server.control("hold")
        for one in agents:
            _say(one, "\n")
        server.control("arrived")
        server.control("release")
        assert [_hear(one) for one in agents] == [["call 1\n"]] * 3
        for one in agents:
            _end(one)
    stats = server.stats()
    assert stats["rotations"] == 1
    assert "reuses" not in stats


@pytest.mark.skipif(
    GENERATION == 1, reason="the example is written for the SDK's second generation"
)
async def test_the_example_of_three_agents(server: Running, tmp_path: Path) -> None:
    """examples/mcp_agents.py: three processes, one credential, one expiry, one refresh."""
    store = tmp_path / "token.json"
    await server.log_in(mcp.Server(server.url), FileStore(store))
    command = [sys.executable, "examples/mcp_agents.py", server.url, str(store)]
    with _agents(command, 1) as (example,):
        assert _hear(example, 3) == ["whoami\n"] * 3
        server.control("hold")
        _say(example, "\n")
        server.control("arrived")
        server.control("release")
        assert _hear(example, 3) == ["whoami\n"] * 3
        _end(example)
    assert server.stats()["rotations"] == 1
    assert json.loads(store.read_text())["httpx_refresh"]["generation"] == 2


async def test_what_the_sdks_storage_holds_is_taken_over_once(server: Running) -> None:
    from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

    elsewhere, source = MemoryStore(), mcp.Server(server.url)
    token = await server.log_in(source, elsewhere)
    client = token.extra["mcp"]

    class Storage:
        asked = 0

        async def get_tokens(self) -> OAuthToken:
            self.asked += 1
            return OAuthToken(
                access_token=token.access_token, refresh_token=token.refresh_token, expires_in=1
            )

        async def get_client_info(self) -> OAuthClientInformationFull:
            return OAuthClientInformationFull(
                client_id=client["client_id"],
                client_secret=client["client_secret"],
                token_endpoint_auth_method=client["token_endpoint_auth_method"],
                redirect_uris=["http://127.0.0.1:9/callback"],
            )

    store, storage = MemoryStore(), Storage()
    taken = await mcp.from_token_storage(storage, source, store)
    assert taken is not None
    assert taken.access_token == token.access_token
    assert taken.expires_at is None
    server.control("expire")
    auth = RefreshAuth(source, store)
    renewed = await auth.refresh(refused=taken)
    again = await mcp.from_token_storage(storage, source, store)
    assert again is not None
    assert again.access_token == renewed.access_token
    assert storage.asked == 1
    assert await mcp.from_token_storage(storage, source, store) is not None
