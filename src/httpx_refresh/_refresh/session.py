"""What is known of one token, who waits for a new one, and when a refresh starts."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from threading import Lock
from types import MappingProxyType

from .._errors import again
from .._token import Token
from . import record as _record
from .detached import current_loop, spawn
from .flight import Flight, Need
from .journal import Journal, NotSaved
from .known import Known, know
from .pauses import Pauses
from .record import Record
from .redemption import Endpoint, describe
from .slot import Slot
from .unsaved import hand_over

logger = logging.getLogger("httpx_refresh")

_NO_FLIGHTS: Mapping[object, Flight] = MappingProxyType({})

# Held while one session's mapping of flights is replaced by another: loops of several threads may do so at once.
_swapping = Lock()


class Session:
    """The refreshes of one token in one process. A request with a good token reads `known`, and nothing else."""

    __slots__ = (
        "_flights",
        "endpoint",
        "host",
        "known",
        "on_unsaved",
        "pauses",
        "refresh_before",
        "refresh_timeout",
        "slot",
        "unsaved",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        slot: Slot,
        *,
        refresh_before: float,
        refresh_timeout: float,
        on_unsaved: Callable[[Token], object] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.slot = slot
        self.host = slot.host
        self.refresh_before = refresh_before
        self.refresh_timeout = refresh_timeout
        self.on_unsaved = on_unsaved
        self.known: Known | None = None
        self.unsaved: Journal | None = None
        self.pauses = Pauses(slot.host)
        # The flight under way of each event loop, by loop; one that landed and still saves, by itself. It is never
        # changed, but replaced as a whole: of very many sessions most have none.
        self._flights = _NO_FLIGHTS

    # -- what callers ask --------------------------------------------------------------------------------------

    async def good(self) -> Known:
        """Return a token that holds: at once while one does, after a refresh if none does."""
        known = self.known or (None if self._flights else self._at_once())
        if known is None:
            return (await self._join(None)).result()
        now = self.host.wall()
        if known.expired(now):
            return (await self._join(known.token.access_token)).result()
        if now >= known.renew_at and self.pauses.may_look_ahead():
            loop = current_loop()
            if loop not in self._flights:
                self._start(Flight(self, loop, known.token.access_token, need=Need.AHEAD))
        return known

    def _at_once(self) -> Known | None:
        """Adopt what is in this process's memory: thousands of first callers need not wait for a flight."""
        record = self.slot.peek()
        step = _record.decide(record, stale=None, now=self.host.wall(), abandoned=False)
        return self.publish(record.token) if step == "adopt" and record.token else None

    def held(self, refused: Known) -> Known | None:
        """Return the token that is held if it is another one than `refused`, and good for all we know."""
        known = self.known
        if (
            known is None
            or known.token.access_token == refused.token.access_token
            or known.expired(self.host.wall())
        ):
            return None
        return known

    async def renew(self, refused: Known) -> tuple[Known | None, bool]:
        """Return another token than `refused`, which the API refused, and whether a refresh was spent on it.

        None if the refusal is to be passed on: another token would be refused just the same.
        """
        access_token = refused.token.access_token
        known = self.held(refused)
        if known is not None:
            return known, False
        if self.pauses.believes_refusal(access_token, describe(self.endpoint)):
            # Somebody may have logged in again because of it, elsewhere.
            if not self.pauses.may_look():
                return None, False
            await self._join(access_token, need=Need.LOOK)
            return self.held(refused), False
        while True:  # As `_join` does, a coroutine less: thousands may wait here at once.
            flight = self._board(access_token)
            await flight.landed.wait()
            if flight.serves(access_token):
                break
        if flight.spent and not flight.counted:
            flight.counted = True  # One token died, however many waited for the next.
            self.pauses.died(refused.is_early(self.host.wall()), describe(self.endpoint))
        return flight.result(), flight.spent

    async def refresh(self) -> Known:
        """Refresh now, whatever the store holds; share a refresh that is under way."""
        return (await self._join(None, forced=True)).result()

    async def set_token(self, token: Token) -> None:
        """Put a token into the store in the place of whatever is there."""
        await self.slot.put(token)
        self.unsaved = None
        self.pauses.succeeded()
        self.pauses.forget_refusals()
        self.publish(token)

    async def aclose(self) -> None:
        """Wait for what is under way on this event loop."""
        loop = current_loop()
        for flight in list(self._flights.values()):
            if flight.loop is loop:
                flight.closing.set()
                await flight.ended.wait()

    # -- sharing -----------------------------------------------------------------------------------------------

    async def _join(
        self, stale: str | None, *, need: Need = Need.RESULT, forced: bool = False
    ) -> Flight:
        """Wait for this loop's flight; return it once it brought what is asked."""
        while True:
            flight = self._board(stale, need, forced)
            await flight.landed.wait()
            if flight.serves(stale, need, forced):
                return flight

    def _board(self, stale: str | None, need: Need = Need.RESULT, forced: bool = False) -> Flight:
        """Return this loop's flight, started if there is none.

        Between the look at `_flights` and the registration there is no await: that is what makes it one flight.
        """
        loop = current_loop()
        flight = self._flights.get(loop)
        if flight is None:
            if need is Need.RESULT and not forced:
                self.pauses.raise_if_just_looked()
            flight = Flight(self, loop, stale, need=need, forced=forced)
            self._start(flight)
        if flight.need < need:
            flight.need = need
        return flight

    def _start(self, flight: Flight) -> None:
        self._list(flight.loop, flight)
        spawn(flight.run, flight.over)

    def _list(self, key: object, flight: Flight) -> None:
        with _swapping:
            self._flights = {**self._flights, key: flight}

    def _unlist(self, key: object) -> None:
        with _swapping:
            self._flights = {
                other: flight for other, flight in self._flights.items() if other is not key
            } or _NO_FLIGHTS

    # -- what a flight reports ---------------------------------------------------------------------------------

    def publish(self, token: Token, *, fresh: bool = False) -> Known:
        """Make this token the one that requests carry; `fresh`: it comes from the token endpoint just now."""
        known = know(token, self.endpoint, self.host, refresh_before=self.refresh_before)
        if fresh:
            self.pauses.obtained(token.access_token)
        else:
            self.pauses.adopted()
        self.known = known
        return known

    def land(self, flight: Flight) -> None:
        """Let the waiters of a flight go."""
        self._unlist(flight.loop)
        if flight.error is not None:
            if not flight.cut_off:
                self.pauses.failed(flight.error)
        elif flight.known is not None:
            self.pauses.succeeded()
        if flight.need is Need.AHEAD and flight.known is None:
            self._look_ahead_later(flight.error)
        flight.landed.set()

    def saving(self, flight: Flight, journal: Journal) -> None:
        """Keep a flight that landed with a token that is not in the store yet."""
        self._list(flight, flight)
        self.unsaved = journal

    def saved(self, journal: Journal, record: Record) -> None:
        """Take what the store holds for the truth again, be it that result or a newer one."""
        if self.unsaved is journal:
            self.unsaved = None
            if record.token is not None and not journal.brought(record.token):
                self.publish(record.token)

    def ended(self, flight: Flight) -> None:
        """Let go of a flight that is over, saved or not."""
        self._unlist(flight)
        flight.ended.set()

    async def save_unsaved(self) -> None:
        """Save what an earlier flight could not save; raise its `StoreError` if that fails again."""
        journal = self.unsaved
        if journal is not None:
            try:
                record = await journal.save()
            except NotSaved as error:
                raise again(error.cause) from error
            self.saved(journal, record)

    async def give_up_saving(self, token: Token) -> None:
        """Hand over a token that cannot be saved."""
        await hand_over(token, self.on_unsaved, self.endpoint, self.slot.store)

    def _look_ahead_later(self, error: Exception | None) -> None:
        expires_at = None if self.known is None else self.known.token.expires_at
        left = math.inf if expires_at is None else expires_at - self.host.wall()
        self.pauses.look_ahead_later(min(self.refresh_timeout, left / 2))
        if error is not None:
            logger.warning("Refreshing ahead failed; the token goes on being used: %s", error)
