"""One renewal: look at the store, decide, then adopt what is there, wait, or spend. It returns a landing.

The decision is a pure function of what was seen. It knows no waiters: how they are told is the flight's affair.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Literal

import anyio

from .._errors import (
    ReauthorizationRequired,
    RefreshAuthError,
    RefreshUnavailable,
    StoreError,
    fresh,
    shown,
)
from .._token import Token
from ..stores.base import Release
from .flight import Flight, Landing
from .observers import Observers
from .pauses import Backoff, Polls, Trouble
from .record import Claim, Failed, Record
from .refusals import LONGEST_EARLY_WAIT, Need, claims_are_futile, held_back
from .slot import Slot, View
from .source import Facts, TokenSource, facts_now
from .spending import (
    TIME_TO_ANSWER,
    Declined,
    NoToken,
    Outcome,
    Refused,
    Renewed,
    Spending,
    Unsent,
)
from .waking import Waiting

if TYPE_CHECKING:
    from .events import Reason, RefreshStarted

# Events are imported where one is told: importing the library stays fast.

Step = Literal[
    "adopt",
    "none",
    "no_refresh_token",
    "dead",
    "for_another",
    "pass_on",
    "wait",
    "soon",
    "pause",
    "spend",
]

_MOST_BEGINNINGS = 5
"""How often a refresh that was held up before anything was sent is started again."""


def decide(
    view: View,
    *,
    stale: Token | None,
    need: Need,
    forced: bool,
    facts: Facts,
    now: float,
    claims: str | None = None,
    patience: float = LONGEST_EARLY_WAIT,
) -> Step:
    """Decide what a caller that needs a token does about what the store holds.

    Args:
        view: the store's text, just read, and judged.
        stale: the token that will not do (it was refused, or it expires); None if any that holds will do.
        need: why another one is wanted.
        forced: it is wanted also within a pause.
        facts: what this process's source declares.
        now: epoch seconds.
        claims: what the API asked for, if that is why.
        patience: seconds for which a pause between early ends is waited out.
    """
    record = view.record
    token = record.token
    if record.purpose != facts.purpose and record.is_for_another(facts.purpose):
        if is_a_login_to_keep(record, facts):
            return "for_another"
    elif token is not None:
        refused = stale is not None and token.access_token == stale.access_token
        if not refused and (token.expires_at is None or token.expires_at > now):
            return "adopt"
    if not facts.starts:
        if claims is not None and (
            token is None or token.refresh_token is None or record.is_dead()
        ):
            return "pass_on"  # The token in use is good; for this request a person has to log in.
        if token is None:
            return "none"
        if token.refresh_token is None:
            return "no_refresh_token"
        if record.dead is not None and record.is_dead():
            return "dead"
    if view.claim == "standing":
        return "wait"
    if claims is not None and claims_are_futile(
        record.asked_claims, claims, record.generation, view.claims_for
    ):
        return "pass_on"
    refusals = None if forced else record.refusals
    wait = (
        0.0 if refusals is None else held_back(need, refusals, view.refusals_for, view.accepted_for)
    )
    if wait > 0:
        patient = need is not Need.PROBE and wait <= patience
        return "soon" if patient else "pass_on"
    if not forced and failed_for(view, facts.client_fingerprint)[1] > 0:
        return "pause"
    return "spend"


def is_a_login_to_keep(record: Record, facts: Facts) -> bool:
    """Whether a token for something else must not be replaced: nobody can get it again, or this source no other."""
    token = record.token
    is_login = token is not None and token.refresh_token is not None
    return not facts.starts or (is_login and not facts.refreshes)


def failed_for(view: View, client: str | None) -> tuple[Failed | None, float]:
    """Return what the endpoint answered, if that concerns this client, and for how many seconds it does.

    A refusal of one client's credentials is nothing to those who have others.
    """
    return max(
        ((one, left) for one, left in view.failed if one.client in (None, client)),
        key=lambda pair: pair[1],
        default=(None, 0.0),
    )


def reason_of(flight: Flight, now: float) -> Reason:
    """Say why a flight refreshes the token; `now` in epoch seconds."""
    if flight.need is Need.AHEAD:
        return "ahead"
    if flight.claims is not None:
        return "claims"
    if flight.forced:
        return "forced"
    if flight.stale is None:
        return "first"
    expires_at = flight.stale.expires_at
    expired = flight.need is Need.RESULT and expires_at is not None and expires_at <= now
    return "expired" if expired else "refused"


def outcome_of(outcome: Unsent | NoToken | Refused | Declined) -> str:
    """Say how a spending failed, as events do."""
    if isinstance(outcome, NoToken):
        return outcome.error.outcome
    return "not_sent" if isinstance(outcome, Unsent) else "login_required"


def maybe_sent(outcome: Outcome) -> bool:
    """Whether the refresh token may have left this process."""
    if isinstance(outcome, NoToken):
        return outcome.maybe_spent or outcome.error.outcome != "not_sent"
    return not isinstance(outcome, Unsent)


class Renewal:
    """Brings one flight to its landing: looks at the store, and does what `decide` says, until that ends it.

    Mutable, by the one task that runs it:
        asked: whether it came so far that the refresh token was to be sent.
        facts: replaced where the client's credentials were rotated.
        spending: the spending whose token is not in the store yet; it is saved after the landing.
        _started: when (monotonic) it started.
        _begun: when (monotonic) the time for a request began. It begins again at each takeover, and where this process
            was held up before anything was sent.
        _beginnings: how often it began again for the latter reason.
        _waited: whether another process or a pause was waited for.
        _claimed_since: when (monotonic) the claim that is waited for was first seen; None while none is.
        _hold: the lock beside the store that a claim needs, from its acquisition until a spending takes it over.
        _failure: what the source failed with last.
        _retries: the pauses between two requests.
        _waiting: the wait for another process, once there was one.
    """

    __slots__ = (
        "_beginnings",
        "_begun",
        "_claimed_since",
        "_failure",
        "_hears",
        "_hold",
        "_observers",
        "_retries",
        "_started",
        "_trouble",
        "_waited",
        "_waiting",
        "asked",
        "facts",
        "flight",
        "slot",
        "source",
        "spending",
    )

    def __init__(
        self,
        slot: Slot,
        source: TokenSource,
        facts: Facts,
        flight: Flight,
        *,
        observers: Observers,
        trouble: Trouble | None,
    ) -> None:
        self.slot = slot
        self.source = source
        self.facts = facts
        self.flight = flight
        self.asked = False
        self.spending: Spending | None = None
        self._observers = observers
        self._hears = observers.hears()
        self._trouble = trouble
        self._started = self._begun = math.inf
        self._beginnings = 0
        self._waited = False
        self._claimed_since: float | None = None
        self._hold: Release | None = None
        self._failure: RefreshUnavailable | None = None
        self._retries: Backoff | None = None
        self._waiting: Waiting | None = None

    async def run(self) -> Landing:
        """Renew the token.

        Raises:
            RefreshAuthError: there is no token.
        """
        try:
            landing = await self._run()
        except GeneratorExit:  # The loop was closed under it: nothing can be awaited any more.
            raise
        except BaseException:
            if self._waiting is not None:
                await self._waiting.end()
            raise
        if self._waiting is not None:
            await self._waiting.end()
        return landing

    async def _run(self) -> Landing:
        host, flight = self.slot.host, self.flight
        self._started = self._begun = host.monotonic()
        try:
            seen_at = self._started
            view = await self.slot.look()
            if flight.forced and view.record.token is not None:
                flight.stale = view.record.token  # What was there first is to be replaced.
            while (landing := await self._follow(view, seen_at)) is None:
                seen_at = host.monotonic()
                view = await self.slot.look()
            return landing
        finally:
            if self._hold is not None:
                self._hold.release()

    async def _follow(self, view: View, seen_at: float) -> Landing | None:
        """Do what follows from one look; return the landing, or None if the store is to be looked at again.

        Args:
            view: what the store held.
            seen_at: when (monotonic) the look began.
        """
        host, flight, record = self.slot.host, self.flight, view.record
        need = flight.need
        if view.failed:  # Whose refusals these are matters.
            self.facts = facts_now(self.facts, self.source)
        hold, claim = self._hold, record.redeeming
        if hold is not None and not hold.is_first and self.slot.sees_lock_of(claim):
            view = replace(view, claim="abandoned")  # The claimant held what is held here: it died.
        step = decide(
            view,
            stale=flight.stale,
            need=need,
            forced=flight.forced,
            facts=self.facts,
            now=host.wall(),
            claims=flight.claims,
            patience=min(LONGEST_EARLY_WAIT, self.slot.refresh_timeout / 2),
        )
        self._time_the_claim(step)
        if step == "adopt":
            return Landing(
                need,
                record.token,
                record,
                spent=flight.sent,
                claims=flight.claims,
                seen_at=seen_at,
            )
        if need is Need.LOOK or flight.closing.is_set():
            return self._ended(need, record)
        self._waited = self._waited or step in ("wait", "soon", "pause")
        match step:
            case "wait" if need is Need.AHEAD:
                return Landing(need, record=record)
            case "wait":
                await self._wait_for(record)
            case "pass_on":
                return Landing(need, record=record, passed_on=True, spent=flight.sent)
            case "soon":
                await self._pause(record)
            case "pause":
                await self._keep_the_pause(view)
            case "for_another":
                raise for_another(record, self.facts, repr(self.slot.store))
            case "spend":
                return await self._spend(view, need)
            case _:  # "none", "no_refresh_token", "dead"
                raise reauthorization_required(record, self.facts.name, repr(self.slot.store))
        return None

    # -- waiting -----------------------------------------------------------------------------------------------

    def _time_the_claim(self, step: Step) -> None:
        """Tell how long a claim was waited for, once that is over."""
        host = self.slot.host
        if step == "wait":
            if self._claimed_since is None:
                self._claimed_since = host.monotonic()
        elif self._claimed_since is not None:
            if self._hears:
                from .events import ClaimWaited

                self._observers.emit(ClaimWaited(duration=host.monotonic() - self._claimed_since))
            self._claimed_since = None

    async def _wait_for(self, record: Record) -> None:
        """Wait behind the claim that stands in this record, until the store is worth another look."""
        claim = record.redeeming
        if self._hold is None and self.slot.sees_lock_of(claim):
            self._hold = await self.slot.hold()
            if self._hold is not None:
                return  # The claim may have ended between the look and this.
        self.flight.wait_behind(claim)
        await self._pause(record)

    async def _keep_the_pause(self, view: View) -> None:
        """Wait until the source may be asked again; raise what it said if that is too long."""
        failed, pause = failed_for(view, self.facts.client_fingerprint)
        if (
            failed is None
            or not failed.transient
            or self.flight.need is Need.AHEAD
            or pause > self._left()
        ):
            raise failed_like(failed, pause)
        await self._pause(view.record, pause)

    def _left(self) -> float:
        """Return the seconds that are left of the time for a request."""
        return self._begun + self.slot.refresh_timeout - self.slot.host.monotonic()

    async def _pause(self, seen: Record, most: float = math.inf) -> None:
        """Wait until the store is worth another look, `most` seconds, or until the flight is to end."""
        if self._waiting is None:
            polls = Polls(self.slot.host, most=min(0.25, self.slot.refresh_timeout / 8))
            self._waiting = Waiting(self.slot, polls, self._observers.emit)
        await self._waiting.pause(self.flight.closing, seen.text, most)

    async def _sleep(self, seconds: float) -> None:
        """Wait, unless the flight is to end.

        For a millisecond at least: what is left of a pause may be less than the clocks can tell.
        """
        with anyio.move_on_after(max(seconds, 0.001)):
            await self.flight.closing.wait()

    def _ended(self, need: Need, record: Record) -> Landing:
        if need in (Need.LOOK, Need.AHEAD):
            return Landing(need, record=record)
        raise RefreshUnavailable(
            "The event loop ended, or the object was closed, before anything was sent. Try again.",
            outcome="unknown" if self.flight.sent else "not_sent",
        )

    # -- spending ----------------------------------------------------------------------------------------------

    async def _spend(self, view: View, need: Need) -> Landing | None:
        """Spend what the store holds under a claim; return as `_follow` does."""
        host, flight, record = self.slot.host, self.flight, view.record
        trouble = self._trouble
        if trouble and not flight.forced and host.monotonic() < trouble.ask_at:
            raise fresh(trouble.error)  # A failure that is this process's own affair.
        self._begin_in_time(view)
        if self._hold is None:
            self._hold = await self.slot.hold()
        spending = Spending(
            self.slot,
            self.source,
            self.facts,
            view,
            record.token,
            need=need,
            claims=flight.claims,
            hold=self._hold,
            emit=self._observers.emit,
        )
        self._hold = None  # It is the claim's now.
        claimed_at = host.monotonic()
        if not await spending.claim():
            await self._pause(record)
            return None
        if view.claim == "abandoned" and record.redeeming is not None:
            from .events import ClaimTakenOver

            self._observers.emit(ClaimTakenOver(by=record.redeeming.by))
        self.asked = True
        outcome = await self._ask(spending, record)
        match outcome:
            case Renewed():
                return self._renewed(spending, outcome, claimed_at)
            case Unsent():
                self._begin_again()
            case NoToken():
                self._failure = fresh(outcome.error)
                if not spending.lost() and not self._is_worth_waiting(outcome):
                    raise self._failure
                if self._failure.outcome == "not_sent":
                    await self._sleep(outcome.pause)  # Else the store tells how long to wait.
            case Declined():
                if not spending.lost():
                    raise fresh(outcome.error)
            case Refused():  # pragma: no branch  # there is no other outcome
                self._after_refusal(spending, outcome)
        return None

    def _begin_in_time(self, view: View) -> None:
        """See that there is time left for a request and its answer.

        A takeover has the whole time, and so has a process that was held up before it sent anything. Raises what the
        flight has to tell its waiters, if it came too late because it waited for others.
        """
        host = self.slot.host
        if view.claim == "abandoned":
            self._begun = host.monotonic()  # A takeover: its time begins now.
        elif self._left() < self.slot.refresh_timeout * TIME_TO_ANSWER:
            failed, _ = failed_for(view, self.facts.client_fingerprint)
            if self._failure is None and failed is not None:
                raise failed_like(failed, 0.0)  # What the others were told.
            if self._failure is not None:
                raise self._failure
            if self._waited:
                raise self._out_of_time()
            self._begin_again()  # This process was held up, and nothing was sent.

    def _begin_again(self) -> None:
        """Begin the time for a request again, where nothing was sent; raise if that was done often enough."""
        self._beginnings += 1
        if self._beginnings == _MOST_BEGINNINGS:
            raise self._out_of_time()
        self._begun = self.slot.host.monotonic()

    def _out_of_time(self) -> RefreshUnavailable:
        return out_of_time(self.facts.name, self.slot.refresh_timeout, repr(self.slot.store))

    async def _ask(self, spending: Spending, record: Record) -> Outcome:
        """Ask the source, and tell those who observe and trace."""
        flight, observers = self.flight, self._observers
        event: RefreshStarted | None = None
        if self._hears:
            from .events import RefreshStarted

            reason = reason_of(flight, self.slot.host.wall())
            event = RefreshStarted(generation=record.generation, reason=reason)
            observers.emit(event)
        sent_before, flight.sent = flight.sent, True
        with (
            observers.refreshing(event, flight.links)
            if event and observers.tracing
            else nullcontext() as told
        ):
            outcome = await spending.spend(flight.closing, self._next_retry)
            if told is not None and not isinstance(outcome, Renewed):
                told(outcome_of(outcome))
        flight.sent = sent_before or maybe_sent(outcome)
        return outcome

    def _next_retry(self) -> float:
        """Return the pause (seconds) before the source is asked again."""
        if self._retries is None:
            self._retries = Backoff(self.slot.host, 0.25, 8.0)
        return self._retries.next()

    def _after_refusal(self, spending: Spending, outcome: Refused) -> None:
        """Raise what a refusal for good means, unless there is another way to a token."""
        if spending.lost():
            return
        saved = spending.saved
        if saved is not None and self.slot.judge(saved).claim == "standing":
            return  # Another took the claim over: what it brings is waited for.
        if saved is None or not saved.is_dead():
            raise fresh(outcome.error)
        if not self.facts.starts:  # Else another one is obtained from nothing.
            raise reauthorization_required(saved, self.facts.name, repr(self.slot.store))

    def _renewed(self, spending: Spending, outcome: Renewed, claimed_at: float) -> Landing | None:
        """Return the landing with a new token; None if somebody revoked it before it was saved."""
        need, saved = self.flight.need, spending.saved
        if saved is not None and saved.token is None:
            return None
        mine = (
            saved is not None
            and saved.token is not None
            and saved.token.access_token == outcome.token.access_token
        )
        # Somebody may use this slot for something else. What came is good all the same, here.
        if saved is None or (not mine and saved.is_for_another(self.facts.purpose)):
            if saved is None:
                self.spending = spending
            return Landing(
                need,
                outcome.token,
                None,
                spent=True,
                claims=self.flight.claims,
                by_exchange=True,
                seen_at=claimed_at,
            )
        if mine and self._hears:
            from .events import Refreshed

            elapsed = self.slot.host.monotonic() - self._started
            self._observers.emit(
                Refreshed(
                    generation=saved.generation,
                    reason=reason_of(self.flight, self.slot.host.wall()),
                    duration=elapsed,
                    waiters=self.flight.waiters,
                )
            )
        return Landing(
            need,
            saved.token,
            saved,
            spent=True,
            claims=self.flight.claims,
            by_exchange=mine,
            seen_at=claimed_at,
        )

    def _is_worth_waiting(self, outcome: NoToken) -> bool:
        """Whether the source is asked again by this flight, after a pause."""
        flight = self.flight
        return (
            outcome.error.transient
            and flight.need > Need.AHEAD
            and not flight.closing.is_set()
            and outcome.pause < self._left()
        )


# -- what a person is told -------------------------------------------------------------------------------------

_NEXT_STEP = (
    "Log in again and put the token there (`httpx-refresh login` does both; so does RefreshAuth.set_token after a "
    "login of your own). A running service sees it within about a second."
)
_FIRST_STEP = (
    "Log in and put the token there (`httpx-refresh login` does both; so does RefreshAuth.set_token after a login of "
    "your own). A running service sees it within about a second."
)


def failed_like(failed: Failed | None, left: float) -> RefreshAuthError:
    """Return the error of the process that asked the endpoint, for those that keep its pause."""
    if failed is None:
        raise AssertionError("nothing has failed")
    if failed.person:
        return ReauthorizationRequired(failed.message)
    return RefreshUnavailable(
        failed.message, outcome=failed.outcome, transient=failed.transient, retry_after=left
    )


def out_of_time(name: str, timeout: float, store: str) -> RefreshUnavailable:
    """Say that the time for a refresh went by before anything was sent."""
    return RefreshUnavailable(
        f"The time for a refresh of {name} (refresh_timeout, {timeout:g} s) went by while another process tried one, "
        f"or while {store} was slow; there is no new token. This process did not send its request. Try again later.",
        outcome="not_sent",
    )


def moment(epoch: float) -> str:
    """Write epoch seconds as people do."""
    try:
        return datetime.fromtimestamp(epoch, timezone.utc).isoformat(" ", "seconds")
    except (OverflowError, OSError, ValueError):
        return "an unknown time"


def _interrupted(claim: Claim) -> str:
    return (
        f" A refresh by {shown(claim.by, 100)} at {moment(claim.since)} had been interrupted, and its outcome was "
        "never known: the server most likely rotated the refresh token then, and the one that is left here was spent."
    )


def for_another(record: Record, facts: Facts, store: str) -> StoreError:
    """Say that the store holds a token for something else, and what either is for."""
    theirs = shown(record.purpose or "", 400)
    return StoreError(
        f"{store} holds a token for something else: it is for {theirs}, and {facts.name} is for "
        f"{facts.purpose}. It was left as it is, and nothing was sent. Give this one a store (or a slot) of its own; "
        "or, if the change is meant, log in again (`httpx-refresh login`, RefreshAuth.set_token)."
    )


def reauthorization_required(record: Record, name: str, store: str) -> ReauthorizationRequired:
    """Say why the token in `record` can serve no more."""
    dead = record.dead
    if record.revoked is not None:
        return ReauthorizationRequired(f"The token for {name} in {store} was revoked. {_NEXT_STEP}")
    if record.token is None:
        return ReauthorizationRequired(f"{store} holds no token for {name} yet. {_FIRST_STEP}")
    if record.token.refresh_token is None:
        return ReauthorizationRequired(
            f"The access token for {name} in {store} is no longer good, and there is no refresh token beside it to "
            f"get another with. {_NEXT_STEP} For most providers the login has to ask for offline access."
        )
    if dead is None:
        raise AssertionError("this token is not known to be dead")
    # Anybody who can write to the store may have written these words.
    error = dead.error and shown(dead.error, 64)
    description = dead.error_description and shown(dead.error_description, 300)
    said = error or "no error code"
    if description:
        said += f": {description}"
    interrupted = "" if record.uncertain is None else _interrupted(record.uncertain)
    return ReauthorizationRequired(
        f"{name} refused the refresh token in {store} for good, at {moment(dead.since)} ({said}).{interrupted} It is "
        f"kept as it is, and not sent again. {_NEXT_STEP}",
        error=error,
        error_description=description,
        since=dead.since,
    )
