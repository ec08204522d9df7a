"""Who waits for a new token, and when a refresh starts; the credential in use. It knows no HTTP library."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import RunVar

from .._challenges import claims_text
from .._errors import (
    ReauthorizationRequired,
    RefreshAuthError,
    RefreshUnavailable,
    RevocationFailed,
    StepUpRequired,
    StoreError,
    cause_of,
    fresh,
)
from .._token import Token, lifetime
from . import own_loop
from .flight import Flight, Landing
from .host import (
    CHANGING,
    CallRaised,
    Host,
    NotBack,
    bounded,
    current_loop,
    is_closed,
    pass_on_interrupt,
    spawn,
)
from .observers import Observer, Observers
from .pauses import LOOK, Backoff, Trouble, trouble_after
from .record import Record, Refusals, without_token
from .refusals import (
    FIRST_DOUBT,
    MANY_EARLY_ENDS,
    NEW,
    NOTHING_SAID,
    Need,
    after_acceptance,
    after_fruit,
    after_futile,
    told,
)
from .renewal import Renewal, decide, reason_of, reauthorization_required
from .slot import Slot, View
from .source import Facts, TokenSource, facts_of
from .spending import Spending

if TYPE_CHECKING:
    from .events import Event

# Events are imported where one is told: importing the library stays fast.

_NEVER_YET = -math.inf  # One object for all sessions: a process may have very many.

_NO_FLIGHTS: Mapping[object, Flight] = MappingProxyType({})

# Acquired by a caller that finds no flight to join, on each event loop.
_boarding: RunVar[anyio.Lock] = RunVar("httpx_refresh_boarding")


@dataclass(frozen=True, slots=True, eq=False)
class Credential:
    """One token, ready to be sent: an immutable value, swapped at once, shared by all loops and threads.

    Attributes:
        token: the token.
        header: the `Authorization` header's value.
        renew_at: epoch seconds from which on a request asks the session first.
        expires_at: epoch seconds; None if it is not known.
        generation: the stored token's.
        since: when (monotonic) this process had it first.
        age: seconds since its issue then; infinite if not known.
        early: how many tokens in a row had ended early when this one came.
    """

    token: Token
    header: str = field(repr=False)
    renew_at: float
    expires_at: float | None
    generation: int
    since: float
    age: float
    early: int

    @property
    def scope(self) -> str | None:
        """What the token may do (RFC 6749 §3.3), if the server said."""
        scope = self.token.extra.get("scope")
        return scope if isinstance(scope, str) else None

    def expired(self, now: float) -> bool:
        """Whether the token has expired at `now` (epoch seconds); False if its expiry is not known."""
        return self.expires_at is not None and now >= self.expires_at

    def age_at(self, now: float) -> float:
        """Return the seconds since the token's issue at `now` (monotonic); infinite if they are not known."""
        return now - self.since + self.age

    def same_as(self, other: Credential) -> bool:
        """Whether both are of the same access token."""
        return self.token.access_token == other.token.access_token


def ahead_of(
    token: Token, expires_at: float | None, facts: Facts, host: Host, *, refresh_before: float
) -> float:
    """Return when (epoch seconds) to refresh a token ahead of its expiry; infinity if its expiry is not known.

    That is `refresh_before` seconds ahead, a fifth of the lifetime at most, not before the server allows it, and not
    at the same moment in every process.
    """
    if expires_at is None:
        return math.inf
    life, not_before = lifetime(token.extra), facts.refresh_not_before_expiry
    lead = min(
        refresh_before,
        math.inf if life is None else life / 5,
        math.inf if not_before is None else not_before,
    )
    return expires_at - host.jitter(lead, 0.9)


class Session:
    """The refreshes of one token in one process. A request with a good token reads `credential`, and nothing else.

    Mutable; each field is replaced as a whole, under `host.CHANGING` where its new value follows from the old one:
        credential: the token in use; replaced by `_use` alone.
        _flights: the flights under way, by event loop; one that has landed and still saves, by itself.
        _trouble: what the last flight failed with; None once one brought a token.
        _unsaved: the spending whose token the store does not have yet. What it brought is the truth then.
        verdicts: what the API said of `credential`.
        _ahead_at: when (monotonic) a refresh ahead of expiry may start again.
        _emptied_at: when (monotonic) the store was emptied here last. What was seen there before is not used any more.
        _observers_if_any: who is told; without callbacks it is made when it is first needed.

    Invariants: there is at most one flight for a loop in `_flights`: between the look and the registration in `_board`
    nothing is awaited, and the loop's lock is held. `credential` is never replaced by one of an earlier generation that
    a late acknowledgement brings.
    """

    __slots__ = (
        "_ahead_at",
        "_emptied_at",
        "_flights",
        "_label",
        "_observers_if_any",
        "_on_unsaved",
        "_refresh_before",
        "_trouble",
        "_unsaved",
        "credential",
        "facts",
        "host",
        "slot",
        "source",
        "verdicts",
    )

    def __init__(
        self,
        source: TokenSource,
        slot: Slot,
        *,
        refresh_before: float,
        on_unsaved: Callable[[Token], object] | None = None,
        observers: Sequence[Observer] = (),
        label: str | None = None,
    ) -> None:
        self.source = source
        self.facts = facts_of(source)
        self.slot = slot
        self.host = slot.host
        self.credential: Credential | None = None
        self.verdicts = NOTHING_SAID
        self._refresh_before = refresh_before
        self._on_unsaved = on_unsaved
        self._flights = _NO_FLIGHTS
        self._trouble: Trouble | None = None
        self._unsaved: Spending | None = None
        self._ahead_at = self._emptied_at = _NEVER_YET
        self._label = label
        self._observers_if_any: Observers | None = None
        if observers:
            self._observers_if_any = self._observers_of(observers)
            slot.told = self.emit

    def _observers_of(self, callbacks: Sequence[Observer]) -> Observers:
        found = Observers(
            callbacks,
            source=self.source,
            provider=self.facts.name,
            store=self.slot.store,
            label=self._label,
        )
        known = self.credential
        found.generation = None if known is None else known.generation
        return found

    @property
    def _observers(self) -> Observers:
        found = self._observers_if_any
        if found is None:  # Not made before: a process may have very many sessions.
            found = self._observers_if_any = self._observers_of(())
        return found

    @property
    def emit(self) -> Callable[[Event], None]:
        """What takes the events of this token."""
        return self._observers.emit  # Not kept: a process may have very many sessions.

    # -- what callers ask --------------------------------------------------------------------------------------

    @property
    def longest(self) -> float:
        """Seconds for which a caller is held at most."""
        return 2.0 * self.slot.refresh_timeout

    async def good(self) -> Credential:
        """Return a credential that holds: at once while one does, after a refresh if none does.

        Raises:
            ReauthorizationRequired, RefreshUnavailable, StoreError: there is none to be had.
        """
        known = self.at_hand()
        if known is None:
            expired = self.credential
            return await self._need(None if expired is None else expired.token)
        self.renew_ahead()
        return known

    def at_hand(self) -> Credential | None:
        """Return a credential that holds, without waiting; None if there is none."""
        known = self.credential or (None if self._flights else self._at_once())
        return None if known is None or known.expired(self.host.wall()) else known

    def is_due(self, known: Credential, loop: object) -> bool:
        """Whether there is something to do on `loop` for a credential that holds, see `renew_ahead`."""
        return known.renew_at == -math.inf or (
            self.host.wall() >= known.renew_at
            and self.host.monotonic() >= self._ahead_at
            and loop not in self._flights
        )

    def renew_ahead(self) -> None:
        """Start what a credential that holds is in need of, on this event loop: a refresh ahead, or its saving."""
        known, loop = self.at_hand(), current_loop()
        if known is None or not self.is_due(known, loop):
            return
        if known.renew_at == -math.inf:
            self._resume_saving(known, loop)
        else:
            self._start(Flight(loop, known.token, need=Need.AHEAD))

    def is_hosted_on(self, loop: object) -> bool:
        """Whether a refresh of this token runs on `loop`: code that blocks that loop must not wait for it."""
        return self.slot.is_claimed_on(loop) or any(
            flight.loop is loop and flight.need > Need.LOOK for flight in self._flights.values()
        )

    async def refresh(self, refused: Token | None) -> Credential:
        """Refresh now, whatever the store holds, or only if it still holds `refused`; share one that is under way."""
        if refused is None:
            return await self._need(None, forced=True)
        known = self.credential
        if known is not None and known.token.access_token != refused.access_token:
            return known if not known.expired(self.host.wall()) else await self._need(known.token)
        return await self._need(refused)

    def newer_than(self, refused: Credential) -> Credential | None:
        """Return the credential that is held if it is another one than `refused`, and good for all that is known."""
        known = self.credential
        if known is None or known is refused or known.same_as(refused):
            return None
        return None if known.expired(self.host.wall()) else known

    async def step_up(
        self, refused: Credential, claims: Mapping[str, Any] | None
    ) -> tuple[Credential | None, bool]:
        """Return a credential that may be more than `refused`, which is good, and whether a refresh was spent on it.

        It is another one that the store holds, as after a login; or one that a refresh with `claims` brings, which
        all who ask for the same share. None if there is none to be had without a person.

        Args:
            refused: what the request carried.
            claims: what the token must hold; None if a refresh could not change it.

        Raises:
            StepUpRequired: the source says that these claims need a person; it names those that the login needs.
            RefreshUnavailable, StoreError, ReauthorizationRequired: there is no new token.
        """
        if claims is None or not self.facts.takes_claims:
            await self._wait(refused.token, Need.LOOK)
            return self.newer_than(refused), False
        asked = claims_text(claims)
        landing = await self._wait(refused.token, Need.CLAIMS, claims=asked)
        # What another flight brought may do as well, and if not, there is one yet for these claims.
        mine = landing.spent and landing.claims == asked
        return (None if landing.token is None else self._brought(landing)), mine

    async def renew(
        self, refused: Credential, kind: Callable[[], str]
    ) -> tuple[Credential | None, bool]:
        """Return another credential than `refused`, which the API refused, and whether a refresh was spent on it.

        None if the refusal must be passed on: another token would be refused as well.

        Args:
            refused: what the request carried.
            kind: returns what kind of request it was, see `kind_of`.
        """
        began, known, spent = self.host.monotonic(), None, False
        for _ in range(2):
            # What other processes know is learnt in the first round, and judged in the second.
            known = self.newer_than(refused)
            if known is not None:
                break
            need = self._judge(kind)
            if need is Need.LOOK and not self._may_look():
                break
            landing = await self._wait(refused.token, need, began=began)
            if need is Need.LOOK:
                known = self.newer_than(refused)
                break
            if landing.token is not None:
                known, spent = self._brought(landing), landing.spent
                break
        if known is not None:
            self.replaying(known)
            if self._observers.listening:
                await self._observers.told()
        return known, spent

    async def set_token(self, token: Token) -> None:
        """Replace what the store holds by a token, and use it.

        The write goes on if the caller is cancelled.
        """

        async def put() -> None:
            record = await self.slot.put(token, self.facts.purpose)
            self._start_over()
            self._use(token, record, issued=False)
            if self._observers.hears():
                from . import events

                self.emit(events.LoginSeen(generation=record.generation))

        await self._to_the_end(put)

    async def revoke(self, *, at_source: bool) -> bool:
        """Have the source revoke the token, and empty the store; return whether the source was asked.

        It goes on if the caller is cancelled. A refresh under way, anywhere, is waited for: it would bring another
        token. It is revoked before the store is emptied: after that, no process would know the token.

        Args:
            at_source: False: only empty the store. A grant that is dead is not revoked either.

        Raises:
            TypeError: the source cannot revoke.
            RevocationFailed, StoreError, RefreshUnavailable: the token is still there, and may still be good.
            WaitsForItself: a refresh is under way on the event loop that this caller blocks.
        """
        blocked = own_loop.blocked_loop.get()
        revoke: Callable[[Token], Awaitable[object]] | None = getattr(self.source, "revoke", None)
        if at_source and not callable(revoke):
            raise TypeError(
                f"{self.facts.name} cannot revoke tokens: it has no method revoke(token). Nothing was sent; forget() "
                "empties the store and leaves the token as good as it is"
            )
        asked: list[bool] = []

        async def give_back() -> None:
            host = self.host
            given: Token | None = None
            polls, until = Backoff(host, 0.02, 1.0), host.monotonic() + self.longest
            await self._save_unsaved()
            while True:
                record = await self.slot.read()
                token = record.token
                if self.slot.judge(record).claim == "standing":  # Of the very first token, too.
                    if blocked is not None and self.slot.loop_of(record.redeeming) is blocked:
                        raise own_loop.WaitsForItself
                    if host.monotonic() >= until:
                        raise held_too_long(self.facts.name, self.longest, sent=False)
                    await anyio.sleep(polls.next())
                    continue
                if token is None:
                    break
                if revoke is not None and at_source and not record.is_dead() and token != given:
                    asked.append(True)
                    await self._revoked(partial(revoke, token))
                    given = token  # Once: a server may call the second time a failure.
                emptied = without_token(record, since=host.wall())
                if await self.slot.swap(record.text, emptied) is None and host.monotonic() >= until:
                    raise self.slot.keeps_changing()
            with CHANGING:
                self.credential = None
                self.verdicts = NOTHING_SAID
                self._emptied_at = host.monotonic()
            self._start_over()

        await self._to_the_end(give_back)
        return bool(asked)

    async def _revoked(self, revoke: Callable[[], Awaitable[object]]) -> None:
        """Await a source's own `revoke`, in bounded time."""
        seconds, cause = self.slot.refresh_timeout, None
        try:
            await bounded(revoke, seconds)
            return
        except NotBack:
            why = f"no answer within {seconds:g} s (refresh_timeout)"
        except (RefreshAuthError, ValueError):
            raise
        except Exception as error:
            raised = error.error if isinstance(error, CallRaised) else error
            why, cause = type(raised).__name__, cause_of(raised)
        raise RevocationFailed(
            f"{self.facts.name} did not confirm that it revoked the token ({why}): it may still be good, and is still "
            "in the store. Try again later.",
            caused_by=cause,
        )

    def _start_over(self) -> None:
        """Forget what was learnt of the token that is no longer there."""
        if self._unsaved is not None:
            from . import events

            self._unsaved = None  # Another text is there in its place.
            self.emit(events.Saved())
        self._trouble = None
        with CHANGING:
            self.verdicts = self.verdicts.forgotten()

    async def _to_the_end(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do `work` in a task that no caller owns, and wait for it; raise what it raises, without its frames.

        It goes on if the caller is cancelled, and if the event loop ends.
        """
        done = anyio.Event()
        failure: list[Exception] = []

        async def run() -> None:
            try:
                await work()
            except (RefreshAuthError, ValueError) as error:
                failure.append(fresh(error))
            except own_loop.WaitsForItself:
                failure.append(own_loop.WaitsForItself())
            except BaseException as error:
                failure.append(_unforeseen(error, "not_sent"))
            finally:
                done.set()

        spawn(run, ending=_nothing)
        await done.wait()
        if failure:
            raise failure[0]

    async def aclose(self) -> None:
        """Wait for what is under way on this event loop; start nothing new."""
        loop = current_loop()
        for flight in list(self._flights.values()):
            if flight.loop is loop:
                flight.closing.set()
                await flight.ended.wait()
        if self._observers.listening:
            await self._observers.told()

    # -- refusals and acceptances ------------------------------------------------------------------------------

    def second_try(self, refused: Credential, kind: Callable[[], str]) -> float | None:
        """Return in how many seconds the same token is worth sending once more; None if it is not."""
        age = refused.age_at(self.host.monotonic())
        pause = self.verdicts.second_try(kind, age=age, early=refused.early)
        return None if pause is None else self.host.jitter(pause, 0.8)

    def is_new(self, credential: Credential) -> bool:
        """Whether a refusal of this token, too, says something of the API, and not of an old token in the store."""
        return credential.age_at(self.host.monotonic()) <= NEW

    def accepted(self, credential: Credential, kind: str, *, after_refusal: bool) -> None:
        """Take note that a request was accepted; called only while `verdicts.listening`.

        Args:
            credential: what it carried.
            kind: see `kind_of`.
            after_refusal: it was refused with another token before: that refresh was fruitful.
        """
        with CHANGING:
            if not self._is_used(credential):
                return
            self.verdicts, ended, news = self.verdicts.after_acceptance(
                kind, self.host.monotonic(), after_refusal=after_refusal
            )
            forbidden, allowed = self.verdicts.forbidden(), self.verdicts.allowed()
        if ended:
            from . import events

            self.emit(events.DoubtEnded())
            self._tell(credential, lambda view: after_fruit(view.record.refusals))
        elif news:
            generation = credential.generation
            self._tell(
                credential,
                lambda view: self._vouched(
                    view.record.refusals, view.accepted_for, forbidden, allowed, generation
                ),
            )

    def futile(self, credential: Credential, kind: str) -> None:
        """Take note that a request that was refused with another token was refused with this one, too."""
        with CHANGING:
            if not self._is_used(credential):
                return
            before = self.verdicts
            after = before.after_futile(credential.generation, kind, self.host.monotonic())
            self.verdicts = after._replace(told=credential.generation)
            kinds = told({} if after.doubt is None else after.doubt.kinds)
        if before.doubt is None:
            from . import events

            self.emit(events.DoubtBegan(pause=FIRST_DOUBT))
        if before.told != credential.generation:
            self._tell(credential, lambda view: self._verdict(view, credential, kinds))

    def _is_used(self, credential: Credential) -> bool:
        """Whether this is the credential in use, so that what the API says of it matters."""
        current = self.credential
        return current is not None and current.same_as(credential)

    def _vouched(
        self,
        refusals: Refusals | None,
        accepted_for: float,
        forbidden: tuple[str, ...],
        allowed: tuple[str, ...],
        generation: int,
    ) -> Refusals | None:
        """Return what to note in the store about a token that is accepted while it is in doubt."""
        host = self.host
        return after_acceptance(
            refusals,
            accepted_for,
            forbidden,
            allowed=allowed,
            generation=generation,
            now=host.wall(),
            nonce=host.nonce(),
        )

    def _verdict(
        self, view: View, credential: Credential, kinds: tuple[str, ...]
    ) -> Refusals | None:
        """Return what to note in the store about a token that was refused like the one before it."""
        generation, host, refusals = credential.generation, self.host, view.record.refusals
        if refusals is None or refusals.generation != generation or not refusals.kinds:
            refusals = after_futile(
                refusals, kinds, generation=generation, now=host.wall(), nonce=host.nonce()
            )
        verdicts = self.verdicts
        if verdicts.accepted and self._is_used(credential):
            # Accepted before this was written: that found nothing to tell it of.
            forbidden, allowed = verdicts.forbidden(), verdicts.allowed()
            return self._vouched(refusals, view.accepted_for, forbidden, allowed, generation)
        return refusals

    def _judge(self, kind: Callable[[], str]) -> Need:
        """Say what a refusal of the credential in use is worth."""
        with CHANGING:
            return self.verdicts.need(kind, self.host.monotonic())

    def _may_look(self) -> bool:
        """Whether to look at the store for another token; if so, not again soon."""
        now = self.host.monotonic()
        with CHANGING:
            if now < self.verdicts.look_at:
                return False
            self._look_again_at(now)
            return True

    def _look_again_at(self, now: float) -> None:
        self.verdicts = self.verdicts._replace(look_at=now + self.host.jitter(LOOK, 0.8))

    def _learn(self, view: View) -> None:
        """Take over what the store tells of refusals."""
        refusals, credential = view.record.refusals, self.credential
        if refusals is None or credential is None:
            return
        now = self.host.monotonic()
        with CHANGING:
            self.verdicts = self.verdicts.learnt(
                credential.generation,
                refusals,
                refusals_for=view.refusals_for,
                accepted_for=view.accepted_for,
                now=now,
            )
            self._look_again_at(now)

    def _tell(self, credential: Credential, change: Callable[[View], Refusals | None]) -> None:
        """Write a verdict into the store, beside everything else; it stays in memory if the token is claimed, or gone.

        No caller waits for this flight. Losing it costs a token request, and no token.
        """

        async def tell(flight: Flight) -> None:
            try:
                # Once more if another was faster, or if more has become known meanwhile.
                for _ in range(_MOST_TELLINGS):
                    record = await self.slot.read()
                    view = self.slot.judge(record)
                    refusals = change(view)
                    if refusals == record.refusals:
                        if refusals is not None and refusals.futile:
                            self._learn(view)
                        return
                    if (
                        flight.closing.is_set()
                        or record.token is None
                        or record.redeeming is not None
                        or record.token.access_token != credential.token.access_token
                    ):
                        return
                    await self.slot.swap(record.text, record._replace(text=None, refusals=refusals))
            except StoreError as error:
                from . import events

                self.emit(events.EndNotNoted(message=str(error)))

        if own_loop.callers_loop() is None:
            own_loop.soon(self._aside, tell, seconds=self.slot.refresh_timeout)
        else:
            self._aside(tell)

    def _aside(self, work: Callable[[Flight], Coroutine[Any, Any, None]]) -> None:
        """Run `work` on this event loop beside the loop's own flight; only the loop's end and `aclose` wait for it."""
        flight = Flight(current_loop(), None, need=Need.LOOK)

        async def fly() -> None:
            try:
                await work(flight)
            finally:
                self._end(flight)

        self._list(flight, flight)
        spawn(fly, ending=flight.closing.set)

    # -- sharing -----------------------------------------------------------------------------------------------

    async def _need(self, stale: Token | None, *, forced: bool = False) -> Credential:
        return self._brought(await self._wait(stale, Need.RESULT, forced=forced))

    def _brought(self, landing: Landing) -> Credential:
        """Return the credential of a token that a flight brought; a newer one, if there is one by now."""
        known = self.credential
        if known is None:  # It was revoked as soon as it was there.
            emptied = without_token(landing.record or Record(None), since=self.host.wall())
            raise reauthorization_required(emptied, self.facts.name, repr(self.slot.store))
        return known

    async def _wait(
        self,
        stale: Token | None,
        need: Need,
        *,
        forced: bool = False,
        claims: str | None = None,
        began: float | None = None,
    ) -> Landing:
        """Wait for this loop's flight; return its landing once it is an answer to what is asked.

        Raises:
            RefreshAuthError: it failed, or it takes longer than anybody is held.
            WaitsForItself: it goes on only on the event loop that this caller blocks.
        """
        failure: RefreshAuthError
        blocked = own_loop.blocked_loop.get()
        longest = self.longest
        if began is None:
            began = self.host.monotonic()
        loop = current_loop()
        while True:
            flight = self._flight_of(loop)
            if flight is None:
                flight = await self._board(loop, stale, need, forced, claims)
            else:
                flight.join(need, claims)
            flight.waiters += 1
            observers = self._observers_if_any
            if observers is not None and observers.tracing:
                observers.waiting(flight.links)
            while (landing := flight.landing) is None:
                if blocked is not None and self.slot.loop_of(flight.behind) is blocked:
                    raise own_loop.WaitsForItself
                await flight.turn.wait()
                if flight.landing is None and (
                    self.host.monotonic() - began + _TURNS * self.slot.refresh_timeout >= longest
                ):
                    break
            if landing is None:
                failure = held_too_long(self.facts.name, longest, sent=flight.sent)
                break
            if flight.serves(landing, stale, need, forced=forced, claims=claims):
                if landing.error is None or need is Need.LOOK:
                    return landing
                failure = fresh(landing.error)
                break
        raise failure

    async def _board(
        self, loop: object, stale: Token | None, need: Need, forced: bool, claims: str | None
    ) -> Flight:
        """Start this loop's flight, unless there is one by now; return it."""
        if need not in (Need.LOOK, Need.CLAIMS) and not forced:
            self._raise_if_just_looked()
        lock = _boarding.get(None)
        if lock is None:
            lock = anyio.Lock(fast_acquire=True)
            _boarding.set(lock)
        async with lock:
            # Nothing is awaited in here, and so the lock is never contended. It keeps "one flight a loop" true should
            # an await ever be added between the look and the registration.
            flight = self._flight_of(loop)
            if flight is None:
                flight = Flight(loop, stale, need=need, forced=forced, claims=claims)
                self._start(flight)
            else:  # pragma: no cover  # not before something is awaited in here
                flight.join(need, claims)
        return flight

    def _flight_of(self, loop: object) -> Flight | None:
        flight = self._flights.get(loop)
        if flight is not None and flight.pid != os.getpid():
            with CHANGING:
                self._flights = _NO_FLIGHTS  # They are the parent's; this is a forked child.
            return None
        return flight

    def _start(self, flight: Flight) -> None:
        self._list(flight.loop, flight)
        spawn(
            lambda: self._fly(flight),
            ending=flight.closing.set,
            every=_TURNS * self.slot.refresh_timeout,
            tick=flight.wake,
        )

    def _list(self, key: object, flight: Flight) -> None:
        with CHANGING:
            # One whose loop was closed under it never ends.
            alive = {
                one: other for one, other in self._flights.items() if not is_closed(other.loop)
            }
            self._flights = {**alive, key: flight}

    def _unlist(self, flight: Flight) -> None:
        with CHANGING:
            self._flights = {
                key: other for key, other in self._flights.items() if other is not flight
            } or _NO_FLIGHTS

    # -- one flight --------------------------------------------------------------------------------------------

    async def _fly(self, flight: Flight) -> None:
        """Renew the token, land, and, should the store have failed, go on until it is saved."""
        renewal = Renewal(
            self.slot,
            self.source,
            self.facts,
            flight,
            observers=self._observers,
            trouble=self._trouble,
        )
        started = self.host.monotonic()
        try:
            try:
                # Before anything is claimed or sent: with a token in hand that is not saved, and as many files open as
                # this process may have, an import would fail, and nobody would save on.
                from . import events
            except OSError as error:
                self._land(flight, Landing(flight.need, error=_not_begun(error)), None)
                return
            try:
                if self._unsaved is not None:
                    await self._save_unsaved()
                landing = await renewal.run()
            except RefreshAuthError as error:
                landing = Landing(flight.need, error=fresh(error), spent=flight.sent)
            except GeneratorExit:  # The loop was closed under it: nothing can be awaited any more.
                raise
            except BaseException as error:
                # Whatever it is: every waiter hears of it, and nothing of it is kept but its name.
                if isinstance(error, KeyboardInterrupt):
                    pass_on_interrupt()
                outcome = "unknown" if flight.sent else "not_sent"
                landing = Landing(flight.need, error=_unforeseen(error, outcome), spent=flight.sent)
            if renewal.spending is None:
                elapsed = self.host.monotonic() - started
                self._tell_observers(flight, landing, elapsed, asked=renewal.asked)
                if self._observers.listening:
                    await self._observers.told()
            self._land(flight, landing, renewal.spending)
            if renewal.spending is not None:
                message = str(renewal.spending.unsaved)
                self.emit(
                    events.NotShared(message=message)
                    if renewal.spending.repeatable
                    else events.Unsaved(message=message)
                )
                await self._save_on(flight, renewal.spending)
        finally:
            self._end(flight)

    def _tell_observers(
        self, flight: Flight, landing: Landing, elapsed: float, *, asked: bool
    ) -> None:
        """Tell what a flight came to, before it lands: who waits for it finds that it was told."""
        known, record, error = self.credential, landing.record, landing.error
        before = None if self._trouble is None else self._trouble.error
        logged_out = isinstance(before, ReauthorizationRequired)
        adopted = landing.token is not None and record is not None and not landing.by_exchange
        if error is None and not (adopted and self._observers.hears()):
            return  # There is nothing to tell, or nobody to tell it to.
        from . import events

        if adopted and record is not None:
            if logged_out:
                self.emit(events.LoginSeen(generation=record.generation))
            elif known is not None and known.generation < record.generation:
                self.emit(events.Adopted(generation=record.generation))
        if error is None or (flight.closing.is_set() and _was_not_sent(error)):
            return
        if not asked and (flight.need is Need.LOOK or str(error) == str(before)):
            return  # Nothing new: it is told once.
        self.emit(
            events.RefreshFailed(
                reason=reason_of(flight, self.host.wall()),
                outcome=_outcome_of(error),
                duration=elapsed,
                message=str(error),
                waiters=flight.waiters,
                asked=asked,
            )
        )
        if isinstance(error, ReauthorizationRequired) and not logged_out:
            self.emit(events.LoginRequired(message=str(error)))

    def _end(self, flight: Flight) -> None:
        """Let go of a flight, whatever became of it."""
        self._unlist(flight)
        if is_closed(flight.loop):
            return  # Under the flight: its callers wait there, and nobody can be woken.
        if flight.landing is None:
            flight.land(_no_landing(flight))
        flight.ended.set()

    def _land(self, flight: Flight, landing: Landing, unsaved: Spending | None) -> None:
        """Let the waiters of a flight go; what it came to is in force before they do."""
        try:
            self._unlist(flight)
            if unsaved is not None:
                self._unsaved = unsaved
                self._list(flight, flight)
            record, error = landing.record, landing.error
            if error is not None:
                if not (flight.closing.is_set() and _was_not_sent(error)) and not isinstance(
                    error, StepUpRequired
                ):
                    # Else the flight was told to end, or claims were refused: no trouble of the next one.
                    with CHANGING:
                        self._trouble = trouble_after(self._trouble, error, self.host)
            elif landing.token is not None:
                self._trouble = None
                self._use(
                    landing.token, record, issued=landing.by_exchange, seen_at=landing.seen_at
                )
            elif landing.passed_on and record is not None:
                self._learn(self.slot.judge(record))
            if flight.need is Need.AHEAD and landing.token is None:
                self._look_ahead_later()
        finally:
            flight.land(landing)

    def _use(
        self, token: Token, record: Record | None, *, issued: bool, seen_at: float = math.inf
    ) -> None:
        """Make this token the one that requests carry.

        Args:
            token: the token.
            record: what the store holds; None if it does not hold this token yet.
            issued: whether the token comes from the source.
            seen_at: when (monotonic) it was seen in the store. What was put to use later is newer.
        """
        known = self.credential
        if known is None and seen_at <= self._emptied_at:
            return  # It has been revoked or forgotten since then.
        if known is not None and known.since >= seen_at:
            # A clock may be too coarse to tell the two moments apart: then the generation tells.
            came_before = record is not None and record.generation < known.generation
            came_after = issued and record is not None and record.generation > known.generation
            if came_before or (known.since > seen_at and not came_after):
                return
        generation = 0 if known is None else known.generation + 1
        if record is not None:
            generation = record.generation
        if (
            known is not None
            and known.generation == generation
            and known.token.access_token == token.access_token
        ):
            return
        refusals = None if record is None else record.refusals
        view = View(Record(None)) if record is None or refusals is None else self.slot.judge(record)
        expires_at = token.expires_at
        if expires_at is not None and expires_at <= self.host.wall():
            # It has expired on its arrival: a clock is wrong, and refreshing it would bring another one like it.
            expires_at = None
        credential = Credential(
            token,
            f"{self.facts.authorization_scheme} {token.access_token}",
            self._renew_at(token, expires_at),
            expires_at,
            generation,
            self.host.monotonic(),
            0.0 if issued else self._age(record),
            0 if refusals is None else refusals.early,
        )
        with CHANGING:
            self.credential = credential
            if self._observers_if_any is not None:
                self._observers_if_any.generation = generation
            self.verdicts = self.verdicts.of_next(
                generation,
                refusals,
                refusals_for=view.refusals_for,
                accepted_for=view.accepted_for,
                now=self.host.monotonic(),
            )
        if refusals is not None and issued and refusals.early >= MANY_EARLY_ENDS:
            from . import events

            self.emit(events.EarlyEnds(count=refusals.early))

    def _raise_if_just_looked(self) -> None:
        """Raise the last failure again if the store was looked at within about a second."""
        trouble = self._trouble
        if trouble is not None and self.host.monotonic() < trouble.look_at:
            raise fresh(trouble.error)

    def _look_ahead_later(self) -> None:
        """Start no refresh ahead of expiry for a while."""
        known, trouble = self.credential, self._trouble
        expires_at = None if known is None else known.expires_at
        left = math.inf if expires_at is None else expires_at - self.host.wall()
        most = min(self.slot.refresh_timeout, left / 2)
        now = self.host.monotonic()
        pause = self.host.jitter(max(most, 0.2), 0.5)
        if trouble is not None:
            pause = max(pause, trouble.ask_at - now)
        self._ahead_at = now + pause

    def _renew_at(self, token: Token, expires_at: float | None) -> float:
        return ahead_of(
            token, expires_at, self.facts, self.host, refresh_before=self._refresh_before
        )

    def _age(self, record: Record | None) -> float:
        """Return how long ago (seconds) the stored token was refreshed; infinite if its text does not tell.

        A clock that is wrong makes a token look older or newer: that costs a request, no token.
        """
        issued = None if record is None else record.issued
        return math.inf if issued is None else max(0.0, self.host.wall() - issued)

    # -- what the store does not take --------------------------------------------------------------------------

    async def _save_unsaved(self) -> None:
        """Save what an earlier flight could not save; raise its `StoreError` if that fails again."""
        spending = self._unsaved
        if spending is not None:
            self._saved(spending, await spending.save())

    async def _save_on(self, flight: Flight, spending: Spending) -> None:
        """Save a token again and again, until it is saved or the flight has to end."""
        last: list[Callable[[], Coroutine[Any, Any, None]]] = []

        def late() -> None:
            if spending.repeatable:
                return  # It can be obtained again, so the application need not save it.
            hand_over = self._hand_over(spending)
            if hand_over is not None and flight.closing.is_set():
                last.append(
                    hand_over
                )  # The event loop waits for this flight, and for nothing that starts now.
            elif hand_over is not None:
                spawn(hand_over, ending=_nothing)

        record = await spending.keep_saving(flight.closing, late)
        if record is not None:
            self._saved(spending, record)
            return
        for hand_over in last:
            await hand_over()
        with CHANGING:
            known = self.credential
            if known is not None and self._unsaved is spending:
                self.credential = replace(known, renew_at=-math.inf)  # The next request saves on.

    def _resume_saving(self, known: Credential, loop: object) -> None:
        """Save on what an event loop that ended could not save."""
        spending = self._unsaved
        with CHANGING:
            self.credential = replace(known, renew_at=self._renew_at(known.token, known.expires_at))
        if spending is None or any(flight.loop is loop for flight in self._flights.values()):
            return
        self._aside(lambda flight: self._save_on(flight, spending))

    def _saved(self, spending: Spending, record: Record) -> None:
        """Take what the store holds for the truth again, be it that token or a newer one."""
        if self._unsaved is spending:
            from . import events

            self._unsaved = None
            self.emit(events.Saved())
            if record.token is not None and not record.is_for_another(self.facts.purpose):
                self._use(record.token, record, issued=False)

    def _hand_over(self, spending: Spending) -> Callable[[], Coroutine[Any, Any, None]] | None:
        """Return what hands over a token that cannot be saved; it ends within `refresh_timeout`, and raises nothing."""
        from . import events

        on_unsaved, token = self._on_unsaved, spending.token
        self.emit(events.HandedOver(handled=on_unsaved is not None))
        if on_unsaved is None:
            return None

        async def call() -> None:
            answer = on_unsaved(token)
            if inspect.isawaitable(answer):
                await answer

        async def hand_over() -> None:
            try:
                await bounded(call, self.slot.refresh_timeout)
            except Exception as error:
                raised = error.error if isinstance(error, CallRaised) else error
                self.emit(events.CallbackFailed(callback="on_unsaved", cause=cause_of(raised)))

        return hand_over

    # -- the rest ----------------------------------------------------------------------------------------------

    def _at_once(self) -> Credential | None:
        """Adopt what is in this process's memory: thousands of first callers need not wait for a flight."""
        record = self.slot.peek()
        if record.token is None:
            return None
        view = View(record)
        step = decide(
            view, stale=None, need=Need.LOOK, forced=False, facts=self.facts, now=self.host.wall()
        )
        if step != "adopt":
            return None
        self._use(record.token, record, issued=False)
        return self.credential

    def replaying(self, credential: Credential) -> None:
        """Tell that a request is sent again with this credential; `renew` tells it itself."""
        if self._observers.hears():
            from . import events

            self.emit(events.Replayed(generation=credential.generation))


_MOST_TELLINGS = 4
"""So often a verdict is tried to be written, where others write, too."""

_TURNS = 0.1
"""So much of `refresh_timeout` goes by between two looks of those who wait at how long they have been waiting."""


def _nothing() -> None:
    """Do nothing."""


def _no_landing(flight: Flight) -> Landing:
    error = RefreshUnavailable(
        "The event loop ended during the refresh. What became of it is noted in the store; try again.",
        outcome="unknown" if flight.sent else "not_sent",
    )
    return Landing(flight.need, error=error, spent=flight.sent)


def _not_begun(error: OSError) -> RefreshUnavailable:
    return RefreshUnavailable(
        f"The refresh could not begin: a module of this library could not be read ({error}). Nothing was sent. See "
        "whether this process has as many open files as it may have, and try again.",
        outcome="not_sent",
    )


def _was_not_sent(error: RefreshAuthError) -> bool:
    return isinstance(error, RefreshUnavailable) and error.outcome == "not_sent"


def _outcome_of(error: RefreshAuthError) -> str:
    if isinstance(error, RefreshUnavailable):
        return error.outcome
    return "login_required" if isinstance(error, ReauthorizationRequired) else "store"


def _unforeseen(error: BaseException, outcome: object) -> RefreshUnavailable:
    return RefreshUnavailable(
        f"The refresh failed with {type(error).__name__}, which it should not. Try again later, and report it.",
        outcome="unknown" if outcome == "unknown" else "not_sent",
        caused_by=cause_of(error),
    )


def held_too_long(name: str, seconds: float, *, sent: bool) -> RefreshUnavailable:
    return RefreshUnavailable(
        f"There is no new token for {name} after {seconds:g} s (twice refresh_timeout): another process holds the "
        "refresh token, or the store or the token endpoint does not answer. The refresh goes on. Try again: the next "
        "request uses what it brings.",
        outcome="unknown" if sent else "not_sent",
    )
