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
