"""One renewal: look at the store, decide, then adopt what is there, wait, or spend. It returns a landing.

The decision is a pure function of what was seen. It knows no waiters: how they are told is the flight's affair.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Literal

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
from . import events
from .flight import Flight, Landing
from .pauses import (
    LONGEST_EARLY_WAIT,
    Backoff,
    Need,
    Polls,
    Trouble,
    claims_are_futile,
    held_back,
)
from .record import Claim, Failed, Record
from .slot import Slot, View
from .source import Facts, TokenSource, facts_now
from .spending import Declined, NoToken, Outcome, Refused, Renewed, Spending, Unsent
from .waking import Waiting

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


def reason_of(flight: Flight, now: float) -> events.Reason:
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


@dataclass(slots=True)
class Renewal:
    """Brings one flight to its landing.

    Mutable, by the one task that runs it:
        asked: whether it came so far that the refresh token was to be sent.
        facts: replaced where the client's credentials were rotated.
        spending: the spending whose token is not in the store yet; it is saved after the landing.
        _waiting: the wait for another process, once there was one.
    """

    slot: Slot
    source: TokenSource
    facts: Facts
    flight: Flight
    emit: Callable[[events.Event], None]
    refreshing: (
        Callable[
            [events.RefreshStarted, Sequence[object]],
            AbstractContextManager[Callable[[str], object]],
        ]
        | None
    ) = None
    trouble: Trouble | None = None
    asked: bool = field(default=False, init=False)
    spending: Spending | None = field(default=None, init=False)
    _waiting: Waiting | None = field(default=None, init=False)

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
        host, flight, timeout = self.slot.host, self.flight, self.slot.refresh_timeout
        retries = Backoff(host, 0.25, 8.0)
        failure: RefreshUnavailable | None = None
        started = begun = host.monotonic()
        beginnings = 0
        first, waited = True, False
        claimed_since: float | None = None
        hold: Release | None = None
        try:
            while True:
                seen_at = host.monotonic()
                view = await self.slot.look()
                record, need = view.record, flight.need
                if view.failed:  # Whose refusals these are matters.
                    self.facts = facts_now(self.facts, self.source)
                if first and flight.forced and record.token is not None:
                    flight.stale = record.token
                first = False
                if (
                    hold is not None
                    and not hold.is_first
                    and record.redeeming is not None
                    and record.redeeming.held
                ):
                    # The claimant held what is held here now: it has died.
                    view = replace(view, claim="abandoned")
                step = decide(
                    view,
                    stale=flight.stale,
                    need=need,
                    forced=flight.forced,
                    facts=self.facts,
                    now=host.wall(),
                    claims=flight.claims,
                    patience=min(LONGEST_EARLY_WAIT, timeout / 2),
                )
                token = record.token
                if step == "wait" and claimed_since is None:
                    claimed_since = host.monotonic()
                elif step != "wait" and claimed_since is not None:
                    self.emit(events.ClaimWaited(duration=host.monotonic() - claimed_since))
                    claimed_since = None
                if step == "adopt" and token is not None:
                    return Landing(
                        need,
                        token,
                        record,
                        spent=flight.sent,
                        claims=self.flight.claims,
                        seen_at=seen_at,
                    )
                if need is Need.LOOK or flight.closing.is_set():
                    return self._ended(need, record)
                waited = waited or step in ("wait", "soon", "pause")
                if step == "wait":
                    if need is Need.AHEAD:
                        return Landing(need, record=record)
                    if record.redeeming is not None and record.redeeming.held and hold is None:
                        hold = await self.slot.hold()
                        if hold is not None:
                            continue  # The claim may have ended between the look and this.
                    flight.wait_behind(record.redeeming)
                    await self._pause(record)
                    continue
                if step == "pass_on":
                    return Landing(
                        need,
                        record=record,
                        passed_on=True,
                        spent=flight.sent,
                    )
                if step == "soon":
                    await self._pause(record)
                    continue
                if step == "pause":
                    failed, pause = failed_for(view, self.facts.client_fingerprint)
                    left = begun + timeout - host.monotonic()
                    if failed is None or need is Need.AHEAD or not failed.transient or pause > left:
                        raise failed_like(failed, pause)
                    await self._pause(record, pause)
                    continue
                if step == "for_another":
                    raise for_another(record, self.facts, repr(self.slot.store))
                if step != "spend":
                    raise reauthorization_required(record, self.facts.name, repr(self.slot.store))
                trouble = self.trouble
                if trouble and not flight.forced and host.monotonic() < trouble.ask_at:
                    raise fresh(trouble.error)  # A failure that is this process's own affair.
                if view.claim == "abandoned":
                    begun = host.monotonic()  # A takeover: its time begins now.
                elif host.monotonic() - begun > timeout * 0.75:
                    failed, _ = failed_for(view, self.facts.client_fingerprint)
                    if failure is None and failed is not None:
                        raise failed_like(failed, 0.0)  # What the others were told.
                    beginnings += 1
                    if failure is not None or waited or beginnings == _MOST_BEGINNINGS:
                        raise failure or out_of_time(
                            self.facts.name, timeout, repr(self.slot.store)
                        )
                    begun = host.monotonic()  # This process was held up, and nothing was sent.
                if hold is None:
                    hold = await self.slot.hold()
                spending = Spending(
                    self.slot,
                    self.source,
                    self.facts,
                    view,
                    token,
                    need=need,
                    claims=flight.claims,
                    hold=hold,
                    emit=self.emit,
                )
                hold = None  # It is the claim's now.
                claimed_at = host.monotonic()
                if not await spending.claim():
                    await self._pause(record)
                    continue
                if view.claim == "abandoned" and record.redeeming is not None:
                    self.emit(events.ClaimTakenOver(by=record.redeeming.by))
                self.asked = True
                event = events.RefreshStarted(
                    generation=record.generation, reason=reason_of(flight, host.wall())
                )
                self.emit(event)
                sent_before, flight.sent = flight.sent, True
                with (
                    self.refreshing(event, flight.links)
                    if self.refreshing
                    else nullcontext() as told
                ):
                    outcome = await spending.spend(flight.closing, retries)
                    if told is not None and not isinstance(outcome, Renewed):
                        told(outcome_of(outcome))
                flight.sent = sent_before or maybe_sent(outcome)
                if isinstance(outcome, Renewed):
                    landing = self._renewed(spending, outcome, started, claimed_at)
                    if landing is not None:
                        return landing
                elif isinstance(outcome, Unsent):
                    begun = host.monotonic()
                    beginnings += 1
                    if beginnings == _MOST_BEGINNINGS:
                        raise out_of_time(self.facts.name, timeout, repr(self.slot.store))
                elif isinstance(outcome, NoToken):
                    failure = fresh(outcome.error)
                    left = begun + timeout - host.monotonic()
                    if not spending.lost() and not self._is_worth_waiting(outcome, left):
                        raise failure
                    if failure.outcome == "not_sent":
                        await self._sleep(outcome.pause)  # Else the store tells how long to wait.
                elif isinstance(outcome, Declined):
                    if not spending.lost():
                        raise fresh(outcome.error)
                elif not spending.lost():
                    saved = spending.saved
                    if saved is not None and self.slot.judge(saved).claim == "standing":
                        continue  # Another took the claim over: what it brings is waited for.
                    if saved is None or not saved.is_dead():
                        raise fresh(outcome.error)
                    if self.facts.starts:
                        continue  # Another one is obtained from nothing.
                    raise reauthorization_required(saved, self.facts.name, repr(self.slot.store))
        finally:
            if hold is not None:
                hold.release()

    def _renewed(
        self, spending: Spending, outcome: Renewed, started: float, claimed_at: float
    ) -> Landing | None:
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
        if mine:
            elapsed = self.slot.host.monotonic() - started
            self.emit(
                events.Refreshed(
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

    def _is_worth_waiting(self, outcome: NoToken, left: float) -> bool:
        """Whether the source is asked again by this flight, after a pause."""
        flight = self.flight
        return (
            outcome.error.transient
            and flight.need > Need.AHEAD
            and not flight.closing.is_set()
            and outcome.pause < left
        )

    def _ended(self, need: Need, record: Record) -> Landing:
        if need in (Need.LOOK, Need.AHEAD):
            return Landing(need, record=record)
        raise RefreshUnavailable(
            "The event loop ended, or the object was closed, before anything was sent. Try again.",
            outcome="unknown" if self.flight.sent else "not_sent",
        )

    async def _pause(self, seen: Record, most: float = math.inf) -> None:
        """Wait until the store is worth another look, `most` seconds, or until the flight is to end."""
        if self._waiting is None:
            polls = Polls(self.slot.host, most=min(0.25, self.slot.refresh_timeout / 8))
            self._waiting = Waiting(self.slot, polls, self.emit)
        await self._waiting.pause(self.flight.closing, seen.text, most)

    async def _sleep(self, seconds: float) -> None:
        """Wait, unless the flight is to end.

        For a millisecond at least: what is left of a pause may be less than the clocks can tell.
        """
        with anyio.move_on_after(max(seconds, 0.001)):
            await self.flight.closing.wait()


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
