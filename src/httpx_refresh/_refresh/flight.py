"""The flight: one refresh that all who need its result on one event loop wait for. It knows no session and no store."""

from __future__ import annotations

import math
import os
import sys
from typing import Any, NamedTuple

import anyio

from .._errors import RefreshAuthError
from .._token import Token
from .record import Claim, Record
from .refusals import Need

# asyncio is imported where it is used: importing the library stays fast.


class Landing(NamedTuple):
    """What a flight came to.

    Attributes:
        need: what it was to do, at the end.
        token: what it brought; None if it failed, or did no more than was needed.
        record: what the store held at last, or holds now; None if that is not known.
        error: what it failed with. Waiters raise fresh ones like it.
        claims: those that it was asked for with.
        spent: whether the refresh token was sent.
        passed_on: a refusal by the API is not worth a refresh now; `record` says why.
        by_exchange: whether the token comes from the source, not from the store.
        seen_at: when (monotonic) the store was looked at, or claimed: what a login put there later is newer.
    """

    need: Need
    token: Token | None = None
    record: Record | None = None
    error: RefreshAuthError | None = None
    claims: str | None = None
    spent: bool = False
    passed_on: bool = False
    by_exchange: bool = False
    seen_at: float = math.inf


def _event() -> anyio.Event:
    """Return an event of the event loop that runs. `anyio.Event()` takes five times as long to find out which it is."""
    trio: Any = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        return trio.Event()  # type: ignore[no-any-return]  # it has the methods that are used
    import asyncio

    return asyncio.Event()  # type: ignore[return-value]  # so has this


class Flight:
    """What the callers of one event loop share: what they need, and how it came out.

    Mutable:
        need, forced, stale: what is asked for, by those who join; each join may ask for more, never for less. Read by
            the renewal at each of its steps.
        claims: what the API asked for, as text; such a flight is for those who ask for the same.
        sent: whether the refresh token may have left; by the renewal.
        behind: the claim that the flight waits for the end of; by the renewal.
        turn: an event that is set, and replaced by another one, now and then; by the guard of the flight's task. Who
            waits wakes up with it, and sees whether it has waited for too long.
        waiters: how many callers have joined.
        links: what stands for the first of them, for those who trace.
        landing: set once, before `turn` and `ended`.
        closing: set to end it soon: it starts nothing new then.

    Invariants: all of it happens on `loop`. `ended` is set after `landing`, once the token is saved, too.
    """

    __slots__ = (
        "behind",
        "claims",
        "closing",
        "ended",
        "forced",
        "landing",
        "links",
        "loop",
        "need",
        "pid",
        "sent",
        "stale",
        "turn",
        "waiters",
    )

    def __init__(
        self,
        loop: object,
        stale: Token | None,
        *,
        need: Need,
        forced: bool = False,
        claims: str | None = None,
    ) -> None:
        self.loop = loop
        self.pid = os.getpid()
        self.stale = stale
        self.need = need
        self.forced = forced
        self.claims = claims
        self.sent = False
        self.behind: Claim | None = None
        self.waiters = 0
        self.links: list[object] = []
        self.landing: Landing | None = None
        self.turn = _event()
        self.ended = _event()
        self.closing = _event()

    def __repr__(self) -> str:
        return f"<Flight {self.need.name}, {'landed' if self.landing else 'under way'}>"

    def wake(self) -> None:
        """Let all who wait look at how long they have been waiting."""
        turn, self.turn = self.turn, _event()
        turn.set()

    def wait_behind(self, claim: Claim | None) -> None:
        """Note whose end the flight waits for. Who blocks the claim's owner must not wait for the flight."""
        if claim != self.behind:
            self.behind = claim
            self.wake()

    def land(self, landing: Landing) -> None:
        """Let all who wait go. The first landing counts: what is raised after it changes nothing."""
        if self.landing is None:
            self.landing = landing
            self.turn.set()  # Nobody waits any more, and so it is not replaced.

    def join(self, need: Need, claims: str | None) -> None:
        """Ask for more than the flight was to do. What has to do with claims is not asked of another flight."""
        if self.claims is None and claims is None:
            self.need = max(self.need, need)

    def serves(
        self,
        landing: Landing,
        stale: Token | None,
        need: Need,
        *,
        forced: bool,
        claims: str | None = None,
    ) -> bool:
        """Whether this landing is an answer to what a waiter asked for.

        Else the flight did less than is asked, before the waiter joined; or it renewed another token than the waiter's.
        """
        if need is Need.LOOK:
            return True
        if forced and not (self.forced or landing.spent):
            return False
        if self.claims != claims and landing.token is None:
            return False
        if landing.error is not None:
            return True
        if landing.token is None:
            return landing.passed_on and landing.need >= need
        if stale is None or landing.token.access_token != stale.access_token:
            return True
        return self.stale is not None and self.stale.access_token == stale.access_token
