"""The hot path: a request with a good token."""

from __future__ import annotations

import time
from types import ModuleType
from typing import Any

import httpx
import httpx2

from . import loopback, peers
from .measure import Spread, interleaved, ratios
from .world import PING, World


async def run(*, smoke: bool) -> list[dict[str, Any]]:
    """Measure both libraries, in the process and over loopback."""
    rows = []
    rounds, requests = (2, 20) if smoke else (41, 250)
    with loopback.running() as address:
        for library in (httpx, httpx2):
            rows += await _measure(library, "in the process", None, rounds, requests)
            rows += await _measure(library, "loopback", address, rounds, requests * 2 // 5)
    return rows


async def _measure(
    library: ModuleType, way: str, address: str | None, rounds: int, requests: int
) -> list[dict[str, Any]]:
    url = PING if address is None else f"{address}/ping"
    clients = {}
    for peer in peers.of(library):
        if peer.name == peers.TWICE:
            continue
        world = World()
        transport = world.transport(library) if address is None else None
        clients[peer.name] = peer.make(library, world, time.time() + 36_000, transport)

    # In the process nothing waits for anything, and what else the machine does is not to be counted.
    clock = time.process_time if address is None else time.perf_counter

    async def once(client: Any) -> float:
        start = clock()
        for _ in range(requests):
            response = await client.get(url)
        elapsed = clock() - start
        assert response.status_code == 200
        return elapsed / requests

    for client in clients.values():
        await once(client)
    # `client=client`: a closure made in a loop sees the loop's last value otherwise.
    cases = {name: lambda client=client: once(client) for name, client in clients.items()}
    figures = await interleaved(cases, rounds)
    for client in clients.values():
        await client.aclose()
    against = ratios(figures, peers.STATIC)
    return [
        {
            "library": library.__name__,
            "way": way,
            "peer": name,
            "microseconds": Spread.of(values).scaled(1e6).json(),
            "best_microseconds": min(values) * 1e6,
            "ratio": against[name].json(),
        }
        for name, values in figures.items()
    ]
