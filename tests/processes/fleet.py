"""Processes with callers, and their control by a test."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from httpx_refresh.testing import RunningServer
    from tests.processes.stores import Slot

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0

_RUN = "from tests.processes.worker import main; main()"


class Worker:
    """One process with callers: `ask` lets them begin, `answer` waits until they are done."""

    def __init__(
        self,
        server: RunningServer,
        slot: Slot,
        *,
        refresh_timeout: float = 20.0,
        reuse_grace: float = 0.0,
        service: bool = False,
    ) -> None:
        setup = {
            "store": slot.url,
            "key": slot.key,
            "token_url": server.token_url,
            "api_url": server.api_url,
            "client_id": server.client_id,
            "client_secret": server.client_secret,
            "refresh_timeout": refresh_timeout,
            "reuse_grace": reuse_grace,
            "service": service,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _RUN, json.dumps(setup)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.pid = self._process.pid
        self._ready = False
        self._is_warm = False

    def ask(self, count: int) -> None:
        """Let it make this many requests at once, as soon as it is ready."""
        pipe = cast("IO[bytes]", self._process.stdin)
        pipe.write(f"{count}\n".encode())
        pipe.flush()

    def answer(self) -> dict[str, Any]:
        """Return how the requests ended: `ends` counts statuses and errors, `said` holds the errors' messages."""
        self.wait_until_ready()
        answer: dict[str, Any] = self._line()
        return answer

    def served(self, count: int) -> bool:
        """Make this many requests now; return whether the API accepted all of them."""
        self.ask(count)
        return bool(self.answer()["ends"] == {"200": count})

    def wait_until_ready(self) -> None:
        """Wait until the process has imported everything."""
        if not self._ready:
            assert self._line() == "ready"
            self._ready = True

    def warm_up(self) -> None:
        """Make one request with a good token.

        The first request imports the store's driver and connects. On a busy machine that can take longer than a call
        of the store may take within a short `refresh_timeout`.
        """
        if not self._is_warm:
            assert self.served(1)
            self._is_warm = True

    def _line(self) -> Any:
        line = cast("IO[bytes]", self._process.stdout).readline()
        assert line, f"the worker ended with {self._process.wait()}"
        return json.loads(line)

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        self._process.kill()
        self._close()

    def close(self) -> None:
        """Let the process end by itself; it must end with exit code 0."""
        cast("IO[bytes]", self._process.stdin).close()
        assert self._process.wait(PATIENCE) == 0
        self._close()

    def _close(self) -> None:
        with self._process:
            pass


class Fleet:
    """The workers of one test. All of them have ended when the block ends."""

    def __init__(self, server: RunningServer, slot: Slot) -> None:
        self._server = server
        self._slot = slot
        self._workers: list[Worker] = []

    def worker(self, **options: Any) -> Worker:
        worker = Worker(self._server, self._slot, **options)
        self._workers.append(worker)
        return worker

    def kill(self, worker: Worker) -> None:
        self._workers.remove(worker)
        worker.kill()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        for worker in self._workers:
            (worker.kill if failed else worker.close)()


def wait_until(happened: Callable[[], bool]) -> None:
    """Poll until something has happened in another process, for a minute at most."""
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
