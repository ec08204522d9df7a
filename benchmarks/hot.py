"""The hot path: a request with a good token, on each of the four clients."""

from __future__ import annotations

import json
import time
from types import ModuleType
from typing import Any

import httpx
import httpx2

from httpx_refresh import MemoryStore, RefreshAuth, TokenEndpoint

from . import loopback, peers
from .measure import Spread, interleaved, ratios
from .world import PING, TOKEN_URL, World


async def run(*, smoke: bool) -> list[dict[str, Any]]:
    """Measure both libraries, in the process and over loopback."""
    rows = []
    rounds, requests = (2, 20) if smoke else (41, 250)
    with loopback.running() as address:
        for library in (httpx, httpx2):
            rows += await _measure(library, "in the process", None, rounds, requests)
            rows += await _measure(library, "loopback", address, rounds, requests * 2 // 5)
            rows += await _measure_sync(library, rounds, requests)
    return rows


async def _measure_sync(library: ModuleType, rounds: int, requests: int) -> list[dict[str, Any]]:
    """Measure the sync client in the process; of the peers only the static header and ours serve it alike."""
    world = World()
    fields = {**world.response(), "expires_at": time.time() + 36_000}
    endpoint = TokenEndpoint(TOKEN_URL, "client", "secret", origins="any")
    auth = RefreshAuth(endpoint, MemoryStore(json.dumps(fields)), refresh_before=0)
    header = {"Authorization": f"Bearer {world.access_token}"}
    transport = world.sync_transport(library)
    clients = {
        peers.STATIC: library.Client(transport=transport, headers=header),
        peers.OURS: library.Client(transport=transport, auth=auth),
    }

    async def once(client: Any) -> float:
        start = time.process_time()
        for _ in range(requests):
            response = client.get(PING)
        elapsed = time.process_time() - start
        assert response.status_code == 200
        return elapsed / requests

    for client in clients.values():
        await once(client)
    cases = {name: lambda client=client: once(client) for name, client in clients.items()}
    figures = await interleaved(cases, rounds)
    for client in clients.values():
        client.close()
    return _rows(library, "in the process, sync", figures)


async def _measure(
    library: ModuleType, way: str, address: str | None, rounds: int, requests: int
) -> list[dict[str, Any]]:
    url = PING if address is None else f"{address}/ping"
    clients = {}
    for peer in peers.of(library):
        if peer.name in (peers.TWICE, peers.ONE_EVENT):
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
    return _rows(library, way, figures)


def _rows(library: ModuleType, way: str, figures: dict[str, list[float]]) -> list[dict[str, Any]]:
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
