"""Many tenants in a process: what each holds, what a request of one costs, and when all expire at once."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import time
import tracemalloc
from collections.abc import Coroutine
from typing import Any

import httpx

from httpx_refresh import MemoryStore, RefreshAuth, TokenEndpoint

from . import peers
from .measure import COLLECTOR, Spread, interleaved, ratios
from .world import BASE, PING, TOKEN_URL, World


class _Grants(httpx.AsyncBaseTransport):
    """One `World` for each tenant, found by the number in its tokens."""

    def __init__(self, worlds: list[World]) -> None:
        self._worlds = worlds

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0)
        if request.url.path == "/token":
            body = await request.aread()
            status, answer = self._worlds[_number(body.decode())].token(body)
        else:
            authorization = request.headers["authorization"]
            status, answer = self._worlds[_number(authorization)].api(authorization)
        return httpx.Response(status, content=answer)


def _number(text: str) -> int:
    return int(text.partition("tenant-")[2].partition("-")[0])


class _Tenant(World):
    def __init__(self, number: int) -> None:
        self._number = number
        super().__init__()

    def _let_in(self) -> None:
        self.access_token = f"tenant-{self._number}-access-{self.generation:020d}"
        self.refresh_token = f"tenant-{self._number}-refresh-{self.generation:020d}"
        super()._let_in()


class _Accepting(httpx.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200)


async def run(*, smoke: bool) -> dict[str, Any]:
    """Measure all of it."""
    sizes = (100, 1_000) if smoke else (1_000, 10_000, 100_000)
    return {
        "sizes": [await _hold(size, requests=200 if smoke else 3_000) for size in sizes],
        "mass_expiry": await _mass_expiry(100 if smoke else 10_000, 1 if smoke else 5),
    }


def _texts(size: int) -> list[str]:
    expires_at = time.time() + 36_000
    return [
        json.dumps(
            {
                "access_token": f"access-{number:036d}",
                "refresh_token": f"refresh-{number:035d}",
                "token_type": "Bearer",
                "expires_at": expires_at,
            }
        )
        for number in range(size)
    ]


async def _hold(size: int, *, requests: int) -> dict[str, Any]:
    asking = httpx.AsyncClient(transport=_Accepting())
    endpoint = TokenEndpoint(TOKEN_URL, "client", "secret", client=asking, origins=BASE)
    texts = _texts(size)
    RefreshAuth(endpoint, MemoryStore())  # what is imported or cached once is not a tenant's

    gc.collect()
    start = time.perf_counter()
    tenants = [RefreshAuth(endpoint, MemoryStore(text)) for text in texts]
    build = time.perf_counter() - start

    async with httpx.AsyncClient(transport=_Accepting()) as client:
        for tenant in tenants:
            await client.get(PING, auth=tenant)
        chosen = random.Random(1).choices(tenants, k=requests)
        costs = []
        for _ in range(5):
            gc.collect()
            start = time.perf_counter()
            for tenant in chosen:
                await client.get(PING, auth=tenant)
            costs.append((time.perf_counter() - start) / requests)

        del tenants, chosen
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        tenants = [RefreshAuth(endpoint, MemoryStore(text)) for text in texts]
        gc.collect()
        idle = tracemalloc.get_traced_memory()[0] - before
        for tenant in tenants:
            await client.get(PING, auth=tenant)
        gc.collect()
        used = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
    return {
        "tenants": size,
        "build_microseconds_each": build / size * 1e6,
        "idle_bytes_each": idle / size,
        "used_bytes_each": used / size,
        "text_bytes_each": sum(map(len, texts)) / size,
        "request_microseconds": Spread.of(costs).scaled(1e6).json(),
    }


async def _mass_expiry(size: int, rounds: int) -> dict[str, Any]:
    token_requests = []
    collecting: dict[str, list[float]] = {"bare": [], "ours": []}

    async def timed(name: str, calls: list[Coroutine[Any, Any, Any]]) -> tuple[list[Any], float]:
        """Make these calls at once; return their answers, and the processor time."""
        gc.collect()
        collected, start = COLLECTOR.seconds, time.process_time()
        answers = await asyncio.gather(*calls)
        elapsed = time.process_time() - start
        collecting[name].append(COLLECTOR.seconds - collected)
        return answers, elapsed

    async def ours() -> float:
        worlds: list[World] = [_Tenant(number) for number in range(size)]
        grants = _Grants(worlds)
        endpoint = TokenEndpoint(
            TOKEN_URL, "client", "secret", client=httpx.AsyncClient(transport=grants), origins=BASE
        )
        tenants = [
            RefreshAuth(endpoint, MemoryStore(json.dumps(world.response()))) for world in worlds
        ]
        for world in worlds:
            world.expire()
        async with httpx.AsyncClient(transport=grants) as client:
            answers, elapsed = await timed(
                "ours", [client.get(PING, auth=tenant) for tenant in tenants]
            )
        assert all(answer.status_code == 200 for answer in answers)
        token_requests.append(sum(world.token_requests for world in worlds))
        return elapsed

    async def bare() -> float:
        """The same requests with nobody to decide about them: refused, a token request, accepted."""
        world = World()
        client: Any = peers.PEERS[peers.TWICE].make(httpx, world, None, world.transport(httpx))

        async def call() -> None:
            await client.get(PING)
            form = {"grant_type": "refresh_token", "refresh_token": "none"}
            await client.post(TOKEN_URL, data=form, auth=None)

        _, elapsed = await timed("bare", [call() for _ in range(size)])
        await client.aclose()
        return elapsed

    figures = await interleaved({"bare": bare, "ours": ours}, rounds)
    working = {
        name: [one - spent for one, spent in zip(values, collecting[name], strict=True)]
        for name, values in figures.items()
    }
    return {
        "tenants": size,
        "seconds": Spread.of(figures["ours"]).json(),
        "ratio": ratios(figures, "bare")["ours"].json(),
        "ratio_without_collector": ratios(working, "bare")["ours"].json(),
        "token_requests_a_tenant": max(token_requests) / size,
    }
