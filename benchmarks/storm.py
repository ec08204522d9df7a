"""The storm: very many callers at one expiry."""

from __future__ import annotations

import asyncio
import gc
import logging
import statistics
import time
import tracemalloc
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import httpx
import httpx2

from . import peers
from .measure import COLLECTOR, Spread, interleaved, percentile, ratios
from .world import PING, World

REFUSED = "the API refuses the token"
KNOWN = "the client knows that it expired"


@dataclass
class _Outcome:
    """What came of the callers of one peer, over all rounds."""

    stalls: list[float] = field(default_factory=list)
    token_requests: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    reuses: int = 0
    collecting: list[float] = field(default_factory=list)
    full_collections: list[int] = field(default_factory=list)


async def run(*, smoke: bool) -> list[dict[str, Any]]:
    """Measure both ways of meeting an expiry, with both libraries."""
    logging.getLogger("mcp").setLevel(logging.CRITICAL)  # one traceback for each caller
    sizes = {10: 1, 50: 1} if smoke else {10: 41, 100: 21, 1_000: 15, 2_000: 9, 10_000: 5}
    rows = []
    for library in (httpx, httpx2):
        for peer in peers.of(library, refreshing=True):
            # Not measured: what each imports at its first refresh.
            await _storm(library, peer, KNOWN, 1, _Outcome())
        for expiry in (REFUSED, KNOWN):
            for callers, rounds in sizes.items():
                rows += await _measure(library, expiry, callers, rounds)
    return rows


async def _measure(
    library: ModuleType, expiry: str, callers: int, rounds: int
) -> list[dict[str, Any]]:
    baseline = peers.TWICE if expiry == REFUSED else peers.STATIC
    bare = [baseline, peers.ONE_EVENT] if expiry == REFUSED else [baseline]
    field_ = [*(peers.PEERS[name] for name in bare), *peers.of(library, refreshing=True)]
    if expiry == REFUSED and callers > 1_000:
        # It takes each refusal for a new login, one caller after the other, and none succeeds.
        field_ = [peer for peer in field_ if peer.name != "MCP SDK"]
    outcomes = {peer.name: _Outcome() for peer in field_}

    async def once(peer: peers.Peer) -> float:
        return await _storm(library, peer, expiry, callers, outcomes[peer.name])

    cases = {peer.name: lambda peer=peer: once(peer) for peer in field_}
    figures = await interleaved(cases, rounds)
    against = ratios(figures, baseline)
    working = {
        name: [one - spent for one, spent in zip(values, outcomes[name].collecting, strict=True)]
        for name, values in figures.items()
    }
    working_against = ratios(working, baseline)
    # Both without the collector: what a refresh adds to waiting for it.
    to_one_event = ratios(working, peers.ONE_EVENT) if expiry == REFUSED else {}
    rows = []
    for peer in field_:
        outcome = outcomes[peer.name]
        peak = await _peak(library, peer, expiry, callers) if callers <= 1_000 else None
        rows.append(
            {
                "library": library.__name__,
                "expiry": expiry,
                "callers": callers,
                "peer": peer.name,
                "milliseconds": Spread.of(figures[peer.name]).scaled(1e3).json(),
                "ratio": against[peer.name].json(),
                "ratio_without_collector": working_against[peer.name].json(),
                "ratio_to_one_event": to_one_event[peer.name].json() if to_one_event else None,
                "full_collections": statistics.median(outcome.full_collections),
                "stall_p50_milliseconds": percentile(outcome.stalls, 0.50) * 1e3,
                "stall_p99_milliseconds": percentile(outcome.stalls, 0.99) * 1e3,
                "token_requests": max(outcome.token_requests),
                "failed": max(outcome.failed),
                "reuses": outcome.reuses,
                "peak_bytes_a_caller": peak,
            }
        )
    return rows


async def _peak(library: ModuleType, peer: peers.Peer, expiry: str, callers: int) -> float:
    """The most memory that is held at once, in bytes a caller: the library's, the client's and the calls'."""
    tracemalloc.start()
    await _storm(library, peer, expiry, callers, _Outcome())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / callers


async def _storm(
    library: ModuleType, peer: peers.Peer, expiry: str, callers: int, outcome: _Outcome
) -> float:
    world = World()
    transport = world.transport(library)
    now = time.time()
    expires_at = now - 120 if expiry == KNOWN else now + 3600
    client = peer.make(library, world, expires_at, transport)
    if expiry == REFUSED and peer.refreshes:
        assert (await client.get(PING)).status_code == 200  # the expiry meets a client in service
    if peer.refreshes:
        world.expire()
    stalls = outcome.stalls

    async def call() -> int:
        start = time.perf_counter()
        try:
            status: int = (await client.get(PING)).status_code
        finally:
            stalls.append(time.perf_counter() - start)
        return status

    gc.collect()
    collecting, full = COLLECTOR.seconds, COLLECTOR.full
    # Processor time: nothing here waits for anything, and what else the machine does is not to be counted.
    start = time.process_time()
    answers = await asyncio.gather(*[call() for _ in range(callers)], return_exceptions=True)
    elapsed = time.process_time() - start
    outcome.collecting.append(COLLECTOR.seconds - collecting)
    outcome.full_collections.append(COLLECTOR.full - full)
    outcome.token_requests.append(world.token_requests)
    outcome.failed.append(sum(answer != 200 for answer in answers))
    outcome.reuses += world.reuses
    await client.aclose()
    return elapsed
