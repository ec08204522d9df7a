"""Many processes on one token: the stall at an expiry, how soon others have the new token, a takeover after a kill."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from typing import Any

from httpx_refresh.testing import Answer, Gate, RunningServer, running_server
from tests import services

from .measure import Spread
from .worker import ONE_PIPE, open_store, prepare_pipe

REFRESH_TIMEOUT = 20.0
TAKEOVER_TIMEOUT = 1.0  # `refresh_timeout` where a process is killed
REFRESH = 1.0  # seconds that the token endpoint takes where another process waits for the end


async def run(*, smoke: bool) -> dict[str, Any]:
    """Measure every backend that this machine can start."""
    counts, rounds = ((2,), 1) if smoke else ((1, 2, 4, 8, 16), 3)
    missing = services.missing_services()
    rows: list[dict[str, Any]] = []
    wakings: list[dict[str, Any]] = []
    takeovers: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        places = {ONE_PIPE: "", "file": "", "SQLite": ""}
        for backend, fixture in (("Redis", "redis_url"), ("PostgreSQL", "postgres_url")):
            if backend not in missing and not smoke:
                start = contextlib.contextmanager(getattr(services, fixture).__wrapped__)
                places[backend] = stack.enter_context(start())
        home = stack.enter_context(tempfile.TemporaryDirectory())
        server = stack.enter_context(running_server(reuse_grace=60))
        # The first worker of all compiles what is not compiled yet: its figures are nobody's.
        place = await _prepare("file", "", home, server)
        _expire(server, "file", place, 1)
        for backend, url in places.items():
            for count in counts:
                stalls, operations, requests, worked = [], [], [], []
                for _ in range(rounds):
                    place = await _prepare(backend, url, home, server)
                    reports, asked = _expire(server, backend, place, count)
                    stalls += [report["stall"] for report in reports]
                    operations.append(sum(report["operations"] for report in reports))
                    requests.append(asked)
                    worked.append(sum(report["processor"] for report in reports))
                rows.append(
                    {
                        "backend": backend,
                        "processes": count,
                        "stall_milliseconds": Spread.of(stalls).scaled(1e3).json(),
                        "longest_stall_milliseconds": max(stalls) * 1e3,
                        "processor_milliseconds": Spread.of(worked).scaled(1e3).json(),
                        "store_operations": Spread.of(operations).json(),
                        "token_requests": max(requests),
                    }
                )
            if backend == ONE_PIPE:
                continue  # It is what the stalls are compared with.
            waits = []
            for _ in range(1 if smoke else 15):
                place = await _prepare(backend, url, home, server)
                waits.append(_woken(server, backend, place))
            wakings.append(
                {"backend": backend, "milliseconds": Spread.of(waits).scaled(1e3).json()}
            )
            place = await _prepare(backend, url, home, server)
            takeovers.append({"backend": backend, "seconds": _takeover(server, backend, place)})
    return {
        "expiries": rows,
        "wakings": wakings,
        "waking_refresh": REFRESH,
        "takeovers": takeovers,
        "takeover_refresh_timeout": TAKEOVER_TIMEOUT,
        "not_measured": [name for name in missing if name in ("Redis", "PostgreSQL")],
    }


async def _prepare(backend: str, url: str, home: str, server: RunningServer) -> str:
    """Put a new login into a slot of its own; return its place."""
    name = uuid.uuid4().hex
    if backend == ONE_PIPE:
        return prepare_pipe(f"{home}/{name}", server.login())
    if backend == "file":
        place = f"{home}/{name}.json"
    elif backend == "SQLite":
        place = f"sqlite+aiosqlite:///{home}/{name}.sqlite#token"
    else:
        place = f"{url}#{name}"
    store: Any = open_store(backend, place)
    if hasattr(store, "create_table"):
        await store.create_table()
    assert await store.replace(None, json.dumps(server.login()))
    return place


@contextlib.contextmanager
def _worker(
    server: RunningServer, backend: str, place: str, refresh_timeout: float, processes: int = 2
) -> Iterator[subprocess.Popen[str]]:
    order = {
        "backend": backend,
        "place": place,
        "token_url": server.token_url,
        "api_url": server.api_url,
        "client_id": server.client_id,
        "client_secret": server.client_secret,
        "refresh_timeout": refresh_timeout,
        "processes": processes,
    }
    command = [sys.executable, "-m", "benchmarks.worker"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            _tell(process, json.dumps(order))
            yield process
        finally:
            process.kill()


def _tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def _hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "a worker ended without a word"
    return line


def _expire(
    server: RunningServer, backend: str, place: str, count: int
) -> tuple[list[dict[str, Any]], int]:
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(_worker(server, backend, place, REFRESH_TIMEOUT, count))
            for _ in range(count)
        ]
        for worker in workers:
            assert _hear(worker) == "ready\n"
        before = server.stats()["token_requests"]
        server.expire()
        for worker in workers:
            _tell(worker, "go")
        reports = [json.loads(_hear(worker)) for worker in workers]
        assert all(report["status"] == 200 for report in reports)
        return reports, server.stats()["token_requests"] - before


@contextlib.contextmanager
def _two_ready(
    server: RunningServer, backend: str, place: str, refresh_timeout: float
) -> Iterator[tuple[subprocess.Popen[str], subprocess.Popen[str]]]:
    """Start two workers that hold a token which has just ended."""
    with (
        _worker(server, backend, place, refresh_timeout) as one,
        _worker(server, backend, place, refresh_timeout) as other,
    ):
        assert _hear(one) == _hear(other) == "ready\n"
        server.expire()
        yield one, other


def _woken(server: RunningServer, backend: str, place: str) -> float:
    """Let two processes meet a slow refresh; return the seconds from the save to the answer that the other one had.

    The clock of `time.perf_counter` is one for all processes of a Linux machine.
    """
    with _two_ready(server, backend, place, REFRESH_TIMEOUT) as workers:
        server.script(Answer(delay=REFRESH))
        for worker in workers:
            _tell(worker, "go")
        reports = [json.loads(_hear(worker)) for worker in workers]
        assert all(report["status"] == 200 for report in reports)
        saved_at = max(report["written_at"] for report in reports)
        return max(float(report["answered_at"]) for report in reports) - saved_at


def _takeover(server: RunningServer, backend: str, place: str) -> float:
    """Kill a process while it waits for the token endpoint; return what the next one waits for."""
    gate = Gate()
    with _two_ready(server, backend, place, TAKEOVER_TIMEOUT) as (killed, heir):
        server.script(Answer(gate=gate))
        _tell(killed, "go")
        server.arrived(gate)
        killed.kill()
        killed.wait()
        _tell(heir, "go")
        start = time.perf_counter()
        report = json.loads(_hear(heir))
        elapsed = time.perf_counter() - start
        server.release(gate)
        assert report["status"] == 200
        return elapsed


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(smoke="--smoke" in sys.argv)), indent=1))
