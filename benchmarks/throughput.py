"""Throughput across refreshes: callers in a loop while token after token expires."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from types import ModuleType
from typing import Any

import anyio
import httpx
import httpx2

from httpx_refresh import MemoryStore, RefreshAuth, TokenEndpoint

from . import peers
from .measure import COLLECTOR, Spread, interleaved, percentile, ratios
from .world import BASE, PING, TOKEN_URL, World

AHEAD = "httpx-refresh, ahead of expiry"
ON_REFUSAL = "httpx-refresh, on refusal"
RECIPE = "asyncio.Lock recipe"
LATENCY = 0.02  # seconds that the token endpoint takes


def _metered(library: ModuleType, auth: Any, held: list[float]) -> Any:
    """An auth that does what `auth` does, and writes down how long that held each request.

    Without the garbage collector, which may come at any moment and is nobody's wait for a token.
    """

    def clock() -> float:
        return time.perf_counter() - COLLECTOR.seconds

    class Metered(library.Auth):  # type: ignore[name-defined, misc]  # a base of either library
        requires_response_body = auth.requires_response_body

        async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
            flow = auth.async_auth_flow(request)
            total, start = 0.0, clock()
            try:
                request = await flow.__anext__()
                while True:
                    total += clock() - start
                    response = yield request
                    start = clock()
                    request = await flow.asend(response)
            except StopAsyncIteration:
                held.append(total + clock() - start)
            finally:
                await flow.aclose()

    return Metered()


async def run(*, smoke: bool) -> list[dict[str, Any]]:
    """Measure both libraries."""
    anyio.Event()  # At its first use anyio imports its backend; a client that is on sockets has done so.
    rows = []
    callers, expiries, lifetime, rounds = (20, 1, 0.5, 1) if smoke else (200, 20, 2.0, 1)
    for library in (httpx, httpx2):
        rows += await _measure(library, callers, expiries, lifetime, rounds)
    return rows


def _client(library: ModuleType, name: str, lifetime: float) -> tuple[World, Any]:
    if name == peers.STATIC:
        world = World()
        return world, peers.PEERS[name].make(library, world, None, world.transport(library))
    world = World(lifetime=lifetime, latency=LATENCY, tell=name == AHEAD)
    transport = world.transport(library)
    if name == RECIPE:
        return world, peers.PEERS[name].make(library, world, None, transport)
    asking = library.AsyncClient(transport=world.transport(library))
    endpoint = TokenEndpoint(TOKEN_URL, "client", "secret", client=asking, origins=BASE)
    text = world.response()
    if name == AHEAD:
        text["expires_at"] = time.time() + lifetime
    # A fifth of the lifetime is what it takes at most.
    auth = RefreshAuth(endpoint, MemoryStore(json.dumps(text)), refresh_before=lifetime / 5)
    return world, library.AsyncClient(transport=transport, auth=auth)


async def _measure(
    library: ModuleType, callers: int, expiries: int, lifetime: float, rounds: int
) -> list[dict[str, Any]]:
    names = [peers.STATIC, AHEAD, ON_REFUSAL, RECIPE]
    longest: dict[str, list[float]] = {name: [] for name in names}
    ends: dict[str, list[float]] = {name: [] for name in names}
    holds: dict[str, list[float]] = {name: [] for name in names}
    refreshes: dict[str, int] = dict.fromkeys(names, 0)
    refused: dict[str, int] = dict.fromkeys(names, 0)
    failed: dict[str, int] = dict.fromkeys(names, 0)

    async def once(name: str) -> float:
        world, client = _client(library, name, lifetime)
        stalls: list[float] = []
        held: list[float] = []
        client.auth = _metered(library, client.auth or library.Auth(), held)
        start = time.perf_counter()
        end = start + expiries * lifetime

        async def call() -> None:
            while (before := time.perf_counter()) < end:
                response = await client.get(PING)
                stalls.append(time.perf_counter() - before)
                failed[name] += response.status_code != 200

        await asyncio.gather(*[call() for _ in range(callers)])
        elapsed = time.perf_counter() - start
        await client.aclose()
        longest[name].append(max(stalls))
        holds[name].append(max(held))
        ends[name].append(percentile(stalls, 0.999))
        refreshes[name] += world.token_requests
        refused[name] += world.refused
        return len(stalls) / elapsed

    cases = {name: lambda name=name: once(name) for name in names}
    figures = await interleaved(cases, rounds)
    against = ratios(figures, peers.STATIC)
    return [
        {
            "library": library.__name__,
            "callers": callers,
            "token_endpoint_milliseconds": LATENCY * 1e3,
            "peer": name,
            "requests_a_second": Spread.of(figures[name]).json(),
            "ratio": against[name].json(),
            "longest_stall_milliseconds": Spread.of(longest[name]).scaled(1e3).json(),
            "p999_stall_milliseconds": Spread.of(ends[name]).scaled(1e3).json(),
            "longest_hold_milliseconds": Spread.of(holds[name]).scaled(1e3).json(),
            "refreshes_a_round": refreshes[name] / rounds,
            "refused_a_round": refused[name] / rounds,
            "failed": failed[name],
        }
        for name in names
    ]
