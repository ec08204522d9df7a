"""When not to ask: pauses that grow with failures and with waiting. No I/O."""

from __future__ import annotations

from typing import NamedTuple

from .._errors import ReauthorizationRequired, RefreshAuthError, StoreError
from .host import Host

LOOK = 1.0
"""Seconds between two looks at the store while there is trouble."""


class Backoff:
    """Pauses that grow from `first` to `most` seconds, each `factor` times the one before, with jitter.

    Mutable, by its one user: the next pause.
    """

    __slots__ = ("_factor", "_host", "_most", "_pause")

    def __init__(self, host: Host, first: float, most: float, *, factor: float = 2.0) -> None:
        self._host = host
        self._pause = first
        self._most = most
        self._factor = factor

    def next(self) -> float:
        """Return the next pause in seconds."""
        pause, self._pause = self._pause, min(self._pause * self._factor, self._most)
        return self._host.jitter(pause, 0.6)


class Polls:
    """Pauses between two looks at what another process does: a tenth of what was waited so far, with jitter.

    So a waiter learns of the end at most a tenth of the wait later. A wait costs about ten looks for its first tenth
    of a second, ten more each time that it becomes 2.7 times as long, and four to five a second after 2.5 seconds.

    Mutable, by its one user: when (monotonic) the wait began.
    """

    __slots__ = ("_host", "_least", "_most", "_since")

    def __init__(self, host: Host, *, least: float = 0.01, most: float = 0.25) -> None:
        self._host = host
        self._least = least
        self._most = most
        self._since: float | None = None

    def next(self) -> float:
        """Return the next pause in seconds; the first call is the beginning of the wait."""
        now = self._host.monotonic()
        if self._since is None:
            self._since = now
        pause = max(self._least, min((now - self._since) / 10, self._most))
        return self._host.jitter(pause, 0.8)


def pause_after(failures: int, *, first: float, most: float) -> float:
    """Return the pause in seconds after so many failures in a row before this one."""
    return float(min(first * 2.0 ** min(failures, 32), most))


class Trouble(NamedTuple):
    """What the last flight failed with, and when (monotonic) this process may look at the store and ask again.

    It covers failures that do not concern other processes: requests that were never sent, and a store that fails.
    `failures`: how many of those there were in a row.
    """

    error: RefreshAuthError
    look_at: float
    ask_at: float
    failures: int = 0


def trouble_after(before: Trouble | None, error: RefreshAuthError, host: Host) -> Trouble:
    """Return the trouble that follows from a flight's error."""
    now = host.monotonic()
    look_at = now + host.jitter(LOOK, 0.8)
    if isinstance(error, ReauthorizationRequired):
        return Trouble(error, look_at, now)
    failures = 0 if before is None else before.failures
    if isinstance(error, StoreError):
        pause = host.jitter(pause_after(failures, first=0.1, most=2.0), 0.5)
        return Trouble(error, min(look_at, now + pause), now + pause, failures + 1)
    wait = min(getattr(error, "retry_after", None) or 0.0, 300.0)
    if getattr(error, "outcome", None) != "not_sent":
        return Trouble(error, look_at, now + wait)  # The store tells everybody how long to wait.
    pause = max(wait, host.jitter(pause_after(failures, first=1.0, most=30.0), 0.5))
    return Trouble(error, min(look_at, now + pause), now + pause, failures + 1)
