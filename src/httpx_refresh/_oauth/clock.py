"""A server's clock, as far as it can be known: the moments in an assertion are compared with it (RFC 7523 §3)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from typing import TypeVar

from .answer import Answer

SKEW = 5.0
"""Seconds by which the clocks may differ before a request that was refused is made by the server's."""

T = TypeVar("T")

Heard = tuple[T, float | None]
"""What came of a request; and if the clock may be why it was refused, by how many seconds the server's is ahead."""


class ServerClock:
    """By how much the clock of one server is ahead of this host's.

    Mutable: `ahead`, in seconds; replaced as a whole. Tasks and threads that ask at the same time may each replace it,
    and any of their values is as good as another's.

    Invariant: after a request that was refused it is 0, whatever a `Date` said: one that is wrong does no lasting harm.
    """

    __slots__ = ("ahead",)

    def __init__(self) -> None:
        self.ahead: float = 0.0

    async def agree(
        self, came: T, used: float, ahead: float, ask: Callable[[float], Awaitable[Heard[T]]]
    ) -> T:
        """Ask once more by the server's clock, if a request that was refused was made by another.

        Args:
            came: what came of that request.
            used: by how many seconds the server's clock was taken to be ahead.
            ahead: by how many it is.
            ask: makes another request with the server's clock so many seconds ahead.
        """
        still: float | None = ahead
        if abs(ahead - used) > SKEW:
            came, still = await ask(ahead)
        self.ahead = ahead if still is None else 0.0
        return came


def ahead_of(answer: Answer, asked_at: float, answered_at: float) -> float | None:
    """Return by how many seconds the clock of a server is ahead, as its `Date` says (RFC 9110 §6.6.1).

    Args:
        answer: the answer.
        asked_at: when it was asked, by this host's clock; epoch seconds.
        answered_at: when the answer was there.
    """
    try:
        date = parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None
    # It was written at some moment between these two, and cut to a whole second.
    if date < asked_at - 1.0:
        return date - asked_at
    return max(0.0, date - answered_at)
