"""fastmcp's server behind its OAuth proxy, and fastmcp's client with `RefreshAuth`.

fastmcp is in the dependency group `sdks`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from httpx_refresh import MemoryStore, ReauthorizationRequired, RefreshAuth, mcp
from tests.mcp.sdk import DEPRECATIONS, ON_ASYNCIO, Running, running

fastmcp: Any = pytest.importorskip("fastmcp", reason="fastmcp is in the dependency group `sdks`")

pytestmark = [*ON_ASYNCIO, *DEPRECATIONS, pytest.mark.filterwarnings("default:::fastmcp")]


@pytest.fixture
def server() -> Iterator[Running]:
    with running("tests.mcp.fastmcp_server") as one:
        yield one


async def call(client: Any, number: int) -> str:
    """Call the server's tool, and return its answer."""
    text: str = (await client.call_tool("whoami", {"number": number})).data
    return text


async def test_calls_go_on_over_expiries_behind_the_proxy(server: Running) -> None:
    source, store = mcp.Server(server.url), MemoryStore()
    await server.log_in(source, store)
    auth = RefreshAuth(source, store)
    async with fastmcp.Client(server.url, auth=auth) as client:
        for number in range(3):
            assert await call(client, number) == f"call {number}"
            server.control("expire")
        assert await call(client, 3) == "call 3"
    stats = server.stats()
    assert (stats["rotations"], stats["reuses"], stats["registrations"]) == (3, 0, 1)


async def test_clients_that_meet_one_expiry_together_share_one_refresh(server: Running) -> None:
    source, store = mcp.Server(server.url), MemoryStore()
    await server.log_in(source, store)
    said: list[str] = []

    async def one(client: Any, number: int) -> None:
        said.append(await call(client, number))

    # Each has a `RefreshAuth` of its own, as separate processes would.
    async with (
        fastmcp.Client(server.url, auth=RefreshAuth(source, store)) as first,
        fastmcp.Client(server.url, auth=RefreshAuth(mcp.Server(server.url), store)) as second,
    ):
        server.control("expire")
        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(one, (first, second)[number % 2], number)
    assert sorted(said) == sorted(f"call {number}" for number in range(10))
    stats = server.stats()
    assert (stats["rotations"], stats["reuses"]) == (1, 0)


async def test_the_proxy_revokes_the_grant_behind_it(server: Running) -> None:
    source, store = mcp.Server(server.url), MemoryStore()
    await server.log_in(source, store)
    auth = RefreshAuth(source, store)
    assert await auth.revoke()
    assert server.stats()["revocations"] == 1
    with pytest.raises(ReauthorizationRequired, match="was revoked"):
        await auth.token()
