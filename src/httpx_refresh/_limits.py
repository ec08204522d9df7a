"""Time limits that make allowance for an event loop that stood still.

A loop stands still while a handler blocks it, while its process is stopped or frozen, and while nobody runs it. When it
goes on, all limits are over, and yet the answer may have come long ago: it lies in a socket that nobody has read. It
may be the only copy of a rotated refresh token. So a limit that ends late is followed by another one. And what was
about to be sent when the loop stood still may be too late by now. Knows nothing of tokens and HTTP.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

__all__ = ["OutOfTime", "longer", "may_send", "require_time"]

_LATE = 0.01
"""A limit that ends later than by this part of it was not looked at in time."""

_LATE_SECONDS = 0.05
"""Seconds by which each timer of a busy loop may be late, although the loop does not stand still."""

_LONGER = 0.25
"""This part of a limit is added then."""

_MOST = 4
"""How often it is added, should the loop stand still again and again: so twice the limit is the most."""


def longer(seconds: float, late: float, times: int) -> float:
    """Return for how many seconds more to wait; 0: no more.

    Args:
        seconds: the limit.
        late: how many seconds late it ended.
        times: how often it was lengthened before.
    """
    stood_still = late > max(seconds * _LATE, _LATE_SECONDS)
    return seconds * _LONGER if stood_still and times < _MOST else 0.0


class OutOfTime(Exception):
    """It is too late to send what was to be sent; nothing of it was."""


may_send: ContextVar[Callable[[], bool] | None] = ContextVar("httpx_refresh_may_send", default=None)
"""Tells whether a request may still be sent in this context; None: at any time."""


def require_time() -> None:
    """Raise `OutOfTime` if it is too late: to be called when everything is there for the first byte to leave."""
    in_time = may_send.get()
    if in_time is not None and not in_time():
        raise OutOfTime
