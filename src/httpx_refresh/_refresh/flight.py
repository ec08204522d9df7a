"""The flight: one refresh, run detached from every caller, that all who need its result wait for."""

from __future__ import annotations

import logging
from enum import IntEnum
from typing import TYPE_CHECKING

import anyio

from .._errors import RefreshUnavailable, again
from . import record as _record
from .journal import Journal, NotSaved
from .messages import reauthorization_required
from .redemption import Redemption, describe
from .slot import Poll

if TYPE_CHECKING:
    from .known import Known
    from .session import Session

logger = logging.getLogger("httpx_refresh")


class Need(IntEnum):
    """What a flight is to do, each more than the one before; who joins it may need more than who started it."""

    LOOK = 0
    """Adopt another token if the store holds one; refresh nothing."""
    AHEAD = 1
    """Refresh, but leave another's claim be: the token is still good, and nobody waits."""
    RESULT = 2
    """Bring a token, or the reason why there is none."""


class Flight:
    """One look at the store, and whatever it takes until there is a token that is not `stale`.

    Attributes:
        loop: the event loop that it runs on.
        stale: the access token that will not do; None if any that holds will do.
        need: what it is to do.
        forced: the token that the store holds will not do, whichever it is.
        spent: whether the refresh token was sent.
        counted: whether the token that it replaced was counted as refused.
        cut_off: whether the event loop ended first.
        known: the result; None if it failed, or did no more than was needed.
        error: what it failed with; waiters raise fresh ones like it.
        landed: set when waiters can go.
        ended: set when the result is saved, too.
        closing: set by whoever wants it to end soon.
    """

    __slots__ = (
        "_journal",
        "closing",
        "counted",
        "cut_off",
        "ended",
        "error",
        "forced",
        "known",
        "landed",
        "loop",
        "need",
        "session",
        "spent",
        "stale",
    )

    def __init__(
        self,
        session: Session,
        loop: object,
        stale: str | None,
        *,
        need: Need = Need.RESULT,
        forced: bool = False,
    ) -> None:
        self.session = session
        self.loop = loop
        self.stale = stale
        self.need = need
        self.forced = forced
        self.spent = False
        self.counted = False
        self.cut_off = False
        self.known: Known | None = None
        self.error: Exception | None = None
        self.landed = anyio.Event()
        self.ended = anyio.Event()
        self.closing = anyio.Event()
        self._journal: Journal | None = None

    def result(self) -> Known:
        """Return the token of a flight that brought one."""
        if self.known is None:
            raise AssertionError("this flight brought no token")
        return self.known

    def serves(self, stale: str | None, need: Need = Need.RESULT, forced: bool = False) -> bool:
        """Whether this flight, which landed, brought what a waiter asked; if it failed, raise its error anew."""
        if need is Need.LOOK:
            return True
        if forced and not (self.forced or self.spent):
            return False
        if self.error is not None:
            raise again(self.error)
        known = self.known
        # Else it did less than is asked, before the waiter joined; or it renewed another token than the waiter's.
        return known is not None and (
            self.stale == stale or stale is None or known.token.access_token != stale
        )

    async def run(self) -> None:
        """Fly, land, and, should the store have failed, go on until the result is saved."""
        session = self.session
        try:
            self.known = await self._fly()
        except NotSaved as unsaved:
            await self._land_unsaved(unsaved)
        except anyio.get_cancelled_exc_class():
            self._cut_off()
            await self._rescue()
            raise
        except Exception as error:
            # Nothing is hidden: every waiter raises one like it, or the log has it.
            self.error = error
            session.land(self)
        else:
            session.land(self)
        finally:
            session.ended(self)

    def over(self) -> None:
        """Land, should the event loop have ended before the first step of `run`."""
        if not self.ended.is_set():
            self._cut_off()
            self.session.ended(self)

    def _cut_off(self) -> None:
        self.cut_off = True
        self.error = RefreshUnavailable(
            "The event loop ended during the refresh. What became of the refresh token is noted in the store; "
            "try again.",
            outcome="unknown" if self.spent else "not_sent",
        )
        self.session.land(self)

    async def _rescue(self) -> None:
        """Keep a result that came before the event loop ended, and that the store did not take."""
        session, journal = self.session, self._journal
        if journal is not None and journal.is_unsaved():
            session.unsaved = journal
            session.publish(journal.new_token, fresh=True)
            with anyio.move_on_after(session.refresh_timeout, shield=True):
                await session.give_up_saving(journal.new_token)

    async def _land_unsaved(self, unsaved: NotSaved) -> None:
        """Serve the pair in memory, which is the truth, and keep at saving it."""
        session, journal = self.session, unsaved.journal
        logger.error(
            "The new token could not be saved: %s It is in memory and in use, and the save is tried again. If this "
            "process ends before that, a person must log in again.",
            unsaved.cause,
        )
        token = journal.new_token
        self.known = session.publish(token, fresh=True)
        session.land(self)
        session.saving(self, journal)
        try:
            record = await journal.keep_saving(self.closing, lambda: session.give_up_saving(token))
        except NotSaved:
            return  # It was handed over, and a later flight tries it first of all.
        session.saved(journal, record)

    async def _fly(self) -> Known | None:
        session = self.session
        slot, host, timeout = session.slot, session.host, session.refresh_timeout
        await session.save_unsaved()
        poll = Poll(host)
        started = host.monotonic()
        until = started + timeout
        first = True
        while True:
            record = await slot.read()
            token = record.token
            if first and self.forced and token is not None:
                self.stale = token.access_token
            first = False
            # Asked at every look: this is what watches a claim.
            abandoned = slot.is_abandoned(record, timeout * 1.5)
            step = _record.decide(record, stale=self.stale, now=host.wall(), abandoned=abandoned)
            if step == "adopt" and token is not None:
                return session.publish(token)
            if self.need is Need.LOOK:
                return None
            if step == "wait":
                if self.need is Need.AHEAD:
                    return None
                await poll.sleep()
                continue
            if token is None or step != "spend":
                raise reauthorization_required(record, session.endpoint, slot.store)
            if not self.forced:
                session.pauses.raise_if_asked_in_vain()
            if record.redeeming is not None:
                until = host.monotonic() + timeout  # A takeover: its time begins now.
            elif until - host.monotonic() < timeout / 4:
                raise RefreshUnavailable(
                    f"The time for a refresh (refresh_timeout, {timeout:g} s) went by while another process tried "
                    f"one, or while {slot.store!r} was slow; there is no new token. This process did not send the "
                    "refresh token. Try again later.",
                    outcome="not_sent",
                )
            redemption = Redemption(slot, session.endpoint, record, token, refresh_timeout=timeout)
            if not await redemption.claim():
                await poll.sleep()
                continue
            self.spent = True
            self._journal = redemption.journal
            saved = await redemption.run()
            if saved is not None and saved.token is not None:
                logger.info(
                    "%s: token refreshed (generation %d), %.3f s after it was needed",
                    describe(session.endpoint),
                    saved.generation,
                    host.monotonic() - started,
                )
                return session.publish(saved.token, fresh=redemption.journal.brought(saved.token))
