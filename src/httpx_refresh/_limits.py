"""Time limits that make allowance for an event loop that stood still.

A loop stands still while a handler blocks it, while its process is stopped or frozen, and while nobody runs it. When it
goes on, all limits are over, and yet the answer may have come long ago: it lies in a socket that nobody has read. It
may be the only copy of a rotated refresh token. So a limit that ends late is followed by another one. And what was
about to be sent when the loop stood still may be too late by now. Knows nothing of tokens and HTTP.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import anyio

__all__ = ["OutOfTime", "longer", "may_send", "move_on_after", "require_time"]

_LATE = 0.01
"""A limit that ends later than by this part of it was not looked at in time."""

_LONGER = 0.25
"""This part of a limit is added then; and again, if the loop stood still once more."""


def longer(seconds: float, late: float) -> float:
    """Return for how many seconds more to wait, where a limit of `seconds` ended `late` seconds late; 0: no more."""
    return seconds * _LONGER if late > seconds * _LATE else 0.0


class OutOfTime(Exception):
    """It is too late to send what was to be sent; nothing of it was."""


may_send: ContextVar[Callable[[], bool] | None] = ContextVar("httpx_refresh_may_send", default=None)
"""Tells whether a request may still be sent in this context; None: at any time."""


def require_time() -> None:
    """Raise `OutOfTime` if it is too late: to be called when everything is there for the first byte to leave."""
    in_time = may_send.get()
    if in_time is not None and not in_time():
        raise OutOfTime


@contextmanager
def move_on_after(seconds: float) -> Iterator[anyio.CancelScope]:
    """Cancel what is inside after `seconds`, as anyio's does, or somewhat later if the event loop stood still."""
    with anyio.CancelScope() as scope:
        stop = _call_late(seconds, scope.cancel)
        try:
            yield scope
        finally:
            stop()


def _call_late(seconds: float, then: Callable[[], object]) -> Callable[[], object]:
    """Call `then` after `seconds`, or after somewhat more; return what prevents that."""
    trio = sys.modules.get("trio")
    if trio is None or not trio.lowlevel.in_trio_task():
        return _Timer(seconds, then).cancel
    scope = trio.CancelScope()

    async def sleep() -> None:
        more = seconds
        with scope:
            while more:
                due = trio.current_time() + more
                await trio.sleep_until(due)
                more = longer(seconds, trio.current_time() - due)
            then()

    trio.lowlevel.spawn_system_task(sleep)
    return scope.cancel  # type: ignore[no-any-return]  # trio is not imported here


class _Timer:
    """A timer of asyncio's; another one takes its place if it ends late."""

    def __init__(self, seconds: float, then: Callable[[], object]) -> None:
        import asyncio  # Not at the top: importing the library stays fast.

        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._then = then
        self._wait(seconds)

    def _wait(self, seconds: float) -> None:
        due = self._loop.time() + seconds
        self._handle = self._loop.call_at(due, self._look, due)

    def _look(self, due: float) -> None:
        if more := longer(self._seconds, self._loop.time() - due):
            self._wait(more)
        else:
            self._then()

    def cancel(self) -> None:
        self._handle.cancel()
