"""The handles of the worker processes, for the one who signals them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[3]

PATIENCE = 150.0
"""Seconds for which an answer is waited for. Callers that have none by then hang."""


class Hung(AssertionError):
    """Callers got no answer."""


class Died(AssertionError):
    """A worker ended that nobody killed."""


async def until(happened: Callable[[], bool]) -> None:
    """Poll until something has happened in another process."""
    deadline = time.monotonic() + PATIENCE
    while not happened():
        if time.monotonic() > deadline:  # pragma: no cover - where a promise is broken
            raise Hung("it did not happen")
        await asyncio.sleep(0.003)


class Worker:
    """One worker process."""

    def __init__(
        self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.pid = pid
        self._reader = reader
        self._writer = writer

    def ask(self, count: int, doom: dict[str, Any] | None = None) -> None:
        """Let it make so many requests at once."""
        self._writer.write(f"{json.dumps({'count': count, 'doom': doom})}\n".encode())

    async def answer(self) -> dict[str, Any]:
        """Return how they ended."""
        answer: dict[str, Any] = await self._line()
        return answer

    async def _line(self) -> Any:
        try:
            line = await asyncio.wait_for(self._reader.readline(), PATIENCE)
        except asyncio.TimeoutError:  # pragma: no cover - where a promise is broken
            raise Hung(f"no answer in {PATIENCE:g} s") from None
        if not line:  # pragma: no cover - where a promise is broken
            raise Died(f"the worker {self.pid} has ended")
        return json.loads(line)

    def has_answer(self) -> bool:
        """Whether something was said that is not read yet. A `StreamReader` has no public way to look."""
        return bool(self._reader._buffer)  # type: ignore[attr-defined]  # its stub hides it

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    async def wait_until_gone(self) -> None:
        """Wait until the process has ended; what it said before is dropped."""
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(self._reader.read(), PATIENCE)
        # The socket is closed in the same moment as files and their locks, or just before.
        await until(self.has_ended)
        self._writer.close()

    async def kill(self) -> None:
        self.send(signal.SIGKILL)
        await self.wait_until_gone()

    async def close(self) -> None:
        """Let the process end by itself."""
        self._writer.write_eof()
        await self.wait_until_gone()

    def stands_still(self) -> bool:
        return self._state() == "T"

    def has_ended(self) -> bool:
        return self._state() in ("", "Z")

    def _state(self) -> str:
        """Return the state of the process, as Linux names it; empty if there is none."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return ""


class Nursery:
    """The process that all workers are forked from."""

    def __init__(self, process: subprocess.Popen[bytes], orders: socket.socket) -> None:
        self._process = process
        self._orders = orders
        self._one = asyncio.Lock()

    async def worker(self, setup: dict[str, Any]) -> Worker:
        """Start a worker; it has imported everything, and is ready."""
        mine, its = socket.socketpair()
        with its:
            async with self._one:
                socket.send_fds(self._orders, [json.dumps(setup).encode()], [its.fileno()])
                pid = int(await asyncio.get_running_loop().sock_recv(self._orders, 64))
        worker = Worker(pid, *await asyncio.open_connection(sock=mine))
        assert await worker._line() == "ready"
        return worker

    @classmethod
    @contextlib.contextmanager
    def open(cls) -> Iterator[Nursery]:
        mine, its = socket.socketpair()
        command = [sys.executable, "-W", "error", "-m", "tests.processes.signals.forked"]
        with (
            mine,
            its,
            subprocess.Popen(
                # Not in this group: once its shell ends, stopped processes of a group are continued.
                command,
                cwd=ROOT,
                stdin=its.fileno(),
                start_new_session=True,
            ) as process,
        ):
            its.close()
            try:
                assert mine.recv(64), "it could not start"
                mine.setblocking(False)
                yield cls(process, mine)
            finally:
                mine.close()  # It ends.
