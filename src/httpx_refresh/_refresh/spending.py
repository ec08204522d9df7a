"""One spending: the claim before the request leaves, the request, and what came of it, saved.

What is spent is a refresh token; or nothing is, where a source obtains a token from nothing. It knows no waiters and no
event loop's end; whether to spend was decided before.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import anyio

from .._errors import (
    ReauthorizationRequired,
    RefreshUnavailable,
    StepUpRequired,
    StoreError,
    cause_of,
    fresh,
)
from .._limits import OutOfTime, may_send
from .._token import Token
from ..stores.base import Release
from .host import CallRaised, NotBack, bounded, pass_on_interrupt
from .pauses import Backoff, pause_after
from .record import (
    MOST_FAILED,
    AskedClaims,
    Claim,
    Dead,
    Failed,
    Pause,
    Record,
    fingerprint,
    is_blank,
    merged,
)
from .refusals import Need, after_claims, after_fruit, after_refresh
from .slot import Slot, View
from .source import Facts, Obtains, Refreshes, TokenSource, facts_now

if TYPE_CHECKING:
    from .events import Event

# Events are imported where one is told: importing the library stays fast.

LONGEST_HELD_PAUSE = 1.0
"""Seconds for which a claim is held while its owner waits to ask again."""

TIME_TO_ANSWER = 0.25
"""This part of `refresh_timeout` must be left when the source is asked, or its answer would come when nobody waits. A
`TokenEndpoint` looks once more when it is connected: that may take long, and its process may be stopped meanwhile."""


LEAST_TIME = 0.25
"""At least this part of `refresh_timeout` is waited for an answer, however short the provider's grace is."""


def time_to_spend(refresh_timeout: float, reuse_grace: float) -> float:
    """Return the seconds for one spending, and for which its claim says that its owner goes on.

    That is `refresh_timeout`, or half of a short `reuse_grace`: who takes the claim over, after 1.5 times this, spends
    the refresh token a second time, and a quarter of the grace is left for that.
    """
    if reuse_grace == 0:
        return refresh_timeout
    return min(refresh_timeout, max(reuse_grace / 2, refresh_timeout * LEAST_TIME))


class Unsent:
    """Nothing was sent: this process was held up for too long first, or was told to end."""

    __slots__ = ()


class NoToken(NamedTuple):
    """The source brought no token.

    Attributes:
        error: why.
        maybe_spent: the refresh token may be spent all the same.
        pause: seconds to wait before it is asked again, if it is asked again.
    """

    error: RefreshUnavailable
    maybe_spent: bool
    pause: float = 0.0


class Refused(NamedTuple):
    """The source refused the refresh token for good; or, where nothing was spent, says that a person has to help."""

    error: ReauthorizationRequired
    maybe_spent: bool


class Declined(NamedTuple):
    """The source gives no token with these claims: that needs a person. Nothing was spent."""

    error: StepUpRequired


class Renewed(NamedTuple):
    """The source brought a token."""

    token: Token


Outcome = Unsent | NoToken | Refused | Declined | Renewed
"""What became of one spending. One value, made once; what is written at its end follows from it alone."""


class Spending:
    """Spends one refresh token under one claim; or obtains a token under one, from nothing.

    Mutable, by the one task that runs it:
        outcome: what became of it; `Unsent` until something else is known. From the moment a request may leave it is
            never `Unsent` again, whatever raises.
        _there: the text that this process last knew to stand in the store.
        saved: the record that stands in the store in the end, as soon as that is known.
        unsaved: why a token is not in the store yet.

    Invariants: while the claim stands, nobody else writes. Once `outcome` is `Renewed`, the token in it is the truth,
    saved or not: nobody else has it. Each text is written at most once.
    """

    __slots__ = (
        "_base",
        "_claim",
        "_claims",
        "_deadline",
        "_facts",
        "_held",
        "_need",
        "_obtains",
        "_seconds",
        "_slot",
        "_source",
        "_there",
        "_uncertain",
        "emit",
        "outcome",
        "repeatable",
        "saved",
        "unsaved",
    )

    def __init__(
        self,
        slot: Slot,
        source: TokenSource,
        facts: Facts,
        view: View,
        held: Token | None,
        *,
        need: Need,
        claims: str | None,
        hold: Release | None,
        emit: Callable[[Event], None],
    ) -> None:
        base = view.record
        self._obtains = not may_refresh(base, facts)
        self.repeatable: bool = self._obtains and facts.repeatable
        """Whether asking again costs a request and no token: then there is no doubt to be noted."""
        self.outcome: Outcome = Unsent()
        self.saved: Record | None = None
        self.unsaved: StoreError | None = None
        self.emit = emit
        self._slot = slot
        self._source = source
        self._facts = facts
        self._base = base
        self._held = held
        self._need = need
        self._claims = claims
        self._there = base.text
        self._deadline = 0.0
        grace = 0.0 if self._obtains else facts.reuse_grace
        self._seconds = time_to_spend(slot.refresh_timeout, grace)
        self._claim: Claim = slot.claim(hold, self._seconds)
        # A claim that is taken over: nobody knows how far its owner came, unless it is one of ours.
        taken_over = base.redeeming is not None and not view.unsent and not self.repeatable
        self._uncertain = base.redeeming if taken_over else base.uncertain

    @property
    def token(self) -> Token:
        """The token that the source brought; there must be one."""
        if not isinstance(self.outcome, Renewed):
            raise AssertionError("there is no token")
        return self.outcome.token

    # -- the claim ---------------------------------------------------------------------------------------------

    async def claim(self) -> bool:
        """Put the claim into the store; return whether nobody else was faster.

        Nothing is sent later than `_seconds` after this began. All of that time is the request's, however long its
        flight had waited for others before: an answer that is not waited for is a rotated token lost.

        Raises:
            StoreError: the store failed. The claim may stand there all the same, and nothing is sent under it.
        """
        # Taken before the write: a watcher of the claim cannot have begun earlier.
        self._deadline = self._slot.host.monotonic() + self._seconds
        claimed = self._base._replace(redeeming=self._claim, uncertain=self._uncertain)
        won = None
        try:
            won = await self._slot.swap(self._base.text, claimed)
        finally:
            if won is None:
                # It may stand there although the store failed, or although the swap was said to be lost: a client that
                # sends a swap again, because the answer to the first was lost, is told so.
                self._slot.give_up(self._claim, maybe_spent=False)
        if won is None:
            return False
        self._there = won.text
        return True

    # -- the request -------------------------------------------------------------------------------------------

    async def spend(self, closing: anyio.Event, next_pause: Callable[[], float]) -> Outcome:
        """Ask the source, again where that is safe, and settle what came of it in the store.

        Args:
            closing: once it is set, nothing is asked again.
            next_pause: returns the pause (seconds) before another request.

        Returns:
            The outcome. If it is `Renewed` and `saved` is None, the store failed, and the token is not saved yet.
        """
        try:
            await self._ask(closing, next_pause)
        except GeneratorExit:  # The loop was closed under it: nothing can be awaited any more.
            raise
        except BaseException:
            await (
                self._settle()
            )  # Whatever it is: the claim does not stay, and a token is not lost.
            raise
        await self._settle()
        return self.outcome

    async def _ask(self, closing: anyio.Event, next_pause: Callable[[], float]) -> None:
        host = self._slot.host
        started = host.monotonic()
        maybe_spent = False
        while (remaining := self._remaining()) > 0:  # Else it was held up for too long.
            try:
                answer = await self._ask_once(remaining)
            except BaseException:
                # Whatever it is: the request may have been sent.
                self.outcome = NoToken(
                    self._unknown(f"The refresh at {self._facts.name} was interrupted.", None),
                    maybe_spent=not self.repeatable,
                )
                raise
            if isinstance(answer, Unsent):
                return
            if isinstance(answer, Token):
                self.outcome = Renewed(answer)  # It is not lost, whatever is raised from here on.
                kept = None if self._obtains else self._held
                if not self._facts.refreshes:
                    answer = replace(answer, refresh_token=None)  # RFC 6749 §4.4.3
                self.outcome = Renewed(merged(kept, answer, now=host.wall()))
                return
            if isinstance(answer, ReauthorizationRequired):
                self.outcome = Refused(answer, maybe_spent)
                return
            if isinstance(answer, StepUpRequired):
                self.outcome = Declined(answer)
                return
            unknown = answer.outcome == "unknown"
            if unknown and self.repeatable:
                answer.transient = True  # Nothing is at stake.
            maybe_spent = maybe_spent or (unknown and not self.repeatable)
            pause = max(min(answer.retry_after or 0.0, 300.0), next_pause())
            self.outcome = NoToken(answer, maybe_spent, pause)
            forgiven = (
                not self._obtains and host.monotonic() + pause - started < self._facts.reuse_grace
            )
            if pause >= self._remaining() or not self._may_ask_again(
                answer, pause, maybe_spent=maybe_spent, forgiven=forgiven
            ):
                return
            from . import events

            self.emit(
                events.RefreshRetried(outcome=answer.outcome, message=str(answer), pause=pause)
            )
            with anyio.move_on_after(pause):
                await closing.wait()
            if closing.is_set():
                return

    def _may_ask_again(
        self, answer: RefreshUnavailable, pause: float, *, maybe_spent: bool, forgiven: bool
    ) -> bool:
        """Whether another request is safe, and should be made under this claim."""
        if self._failed_before() is not None or pause > LONGEST_HELD_PAUSE:
            return False  # At the end of a pause the first process to come asks once.
        if maybe_spent and not forgiven and self._need is Need.AHEAD:
            return False  # The access token is still good: nothing is risked for another one.
        # A server that answers "unavailable" most likely did nothing; and its callers need a token.
        return answer.transient or forgiven

    def _remaining(self) -> float:
        # The monotonic clock stands still while a machine sleeps; this host's wall clock does not.
        host = self._slot.host
        awake = self._claim.since + self._seconds - host.wall()
        return min(self._deadline - host.monotonic(), awake)

    def _has_time(self) -> bool:
        """Whether an answer to what is sent now would still be waited for."""
        return self._remaining() > self._seconds * TIME_TO_ANSWER

    async def _ask_once(
        self, remaining: float
    ) -> Token | RefreshUnavailable | ReauthorizationRequired | StepUpRequired | Unsent:
        name = self._facts.name
        try:
            token: object = await bounded(self._call, remaining)
        except OutOfTime:
            return Unsent()
        except (ReauthorizationRequired, RefreshUnavailable) as error:
            return checked(error)
        except StepUpRequired as error:
            if (
                self._claims is None
            ):  # Nobody asked for any: the grant is of no use without a person.
                return ReauthorizationRequired(str(error), error=error.error)
            return fresh(error)
        except NotBack:
            what = f"{name} gave no answer within {self._seconds:g} s (refresh_timeout)."
            if self._seconds < self._slot.refresh_timeout:
                what = (
                    f"{name} gave no answer within {self._seconds:g} s (less than refresh_timeout, because its "
                    "reuse_grace is short)."
                )
            return self._unknown(what, None)
        except Exception as error:
            # Nothing is hidden: what it was is told to every waiter, and the outcome is noted as unknown.
            raised = error.error if isinstance(error, CallRaised) else error
            if isinstance(raised, KeyboardInterrupt):
                pass_on_interrupt()
            return self._unknown(
                f"The refresh at {name} failed with {type(raised).__name__}.", cause_of(raised)
            )
        if not isinstance(token, Token):
            return self._unknown(
                f"{name} returned {type(token).__name__} where a Token belongs.", None
            )
        return token

    async def _call(self) -> object:
        """Ask the source, in a task of its own; raise `OutOfTime` if it is too late to send anything."""
        # The process may have been held up before this, the first step, and by now the claim may be another's.
        if not self._has_time():
            raise OutOfTime
        may_send.set(self._has_time)
        # Only a source that takes claims is asked for any.
        claims: Any = {} if self._claims is None else {"claims": json.loads(self._claims)}
        if self._obtains:
            answer: Any = cast("Obtains", self._source).obtain(self._held, **claims)
        elif self._held is None:
            raise AssertionError("what is refreshed is held")
        else:
            answer = cast("Refreshes", self._source).refresh(self._held, **claims)
        # A method that is no `async def` has spent the refresh token all the same, and brings a token.
        return await answer if inspect.isawaitable(answer) else answer

    def _unknown(self, what: str, caused_by: str | None) -> RefreshUnavailable:
        if self.repeatable:
            return RefreshUnavailable(
                f"{what} Nothing is lost by that: it is tried again at the next need.",
                outcome="unknown",
                caused_by=caused_by,
            )
        return RefreshUnavailable(
            f"{what} Whether the refresh token was spent is unknown; that is noted in the store. The token there is "
            "kept, and is tried once more at the next need.",
            outcome="unknown",
            caused_by=caused_by,
        )

    # -- the end -----------------------------------------------------------------------------------------------

    def next_record(self) -> Record:
        """Return what the store has to hold in the end, as it follows from the outcome."""
        base, outcome, host = self._base, self.outcome, self._slot.host
        if isinstance(outcome, Renewed):
            generation = base.next_generation()
            purpose = self._facts.purpose
            other = base.purpose != purpose and base.is_for_another(purpose)
            failed, asked_claims = self._failed_of_others(), self._asked_claims(generation)
            refusals = after_refresh(
                # What was refused was another's. That tokens end early is told: where each of two kinds ends the
                # other, neither would ever pause.
                after_fruit(base.refusals) if other else base.refusals,
                self._need,
                generation=generation,
                now=host.wall(),
                nonce=host.nonce(),
            )
            return Record(
                None,
                outcome.token,
                generation,
                failed=failed,
                refusals=refusals,
                issued=host.wall(),
                purpose=purpose,
                asked_claims=asked_claims,
                others=base.others,
            )
        unclaimed = base._replace(text=None, redeeming=None, uncertain=self._uncertain)
        if isinstance(outcome, Unsent):
            return unclaimed
        if isinstance(outcome, Declined):
            return unclaimed._replace(asked_claims=self._asked_claims(base.generation))
        uncertain = self._claim if outcome.maybe_spent else self._uncertain
        if isinstance(outcome, Refused) and not self._obtains and self._held is not None:
            refusal = outcome.error
            dead = Dead(
                fingerprint(self._held.refresh_token or ""),
                refusal.error,
                refusal.error_description or str(refusal),
                host.wall(),
            )
            return unclaimed._replace(uncertain=uncertain, dead=dead, failed=())
        failed = self._failed(outcome.error, maybe_spent=outcome.maybe_spent)
        return unclaimed._replace(uncertain=uncertain, failed=failed)

    def _asked_claims(self, generation: int) -> AskedClaims | None:
        """Return the note about claims beside the token of this generation."""
        base, host = self._base, self._slot.host
        if self._claims is None:
            return base.asked_claims
        return after_claims(
            base.asked_claims,
            self._claims,
            generation=generation,
            now=host.wall(),
            nonce=host.nonce(),
        )

    @property
    def _client(self) -> str | None:
        """The fingerprint of the credentials that the request carried, if there was one."""
        return facts_now(self._facts, self._source).client_fingerprint

    def _failed_before(self) -> Failed | None:
        """Return the noted failure whose pause binds this client, too."""
        failed = self._base.failed
        mine = (None, self._client) if failed else ()
        return next((one for one in failed if one.client in mine), None)

    def _failed(
        self, error: RefreshUnavailable | ReauthorizationRequired, *, maybe_spent: bool
    ) -> tuple[Failed, ...]:
        """Return the notes that share the pause with everybody; what was never sent concerns this process only."""
        before, host = self._failed_before(), self._slot.host
        person = isinstance(error, ReauthorizationRequired)
        answered = "refused" if isinstance(error, ReauthorizationRequired) else error.outcome
        if answered == "not_sent" and not maybe_spent:
            return self._base.failed
        failures = 0 if before is None else before.failures
        seconds = host.jitter(pause_after(failures, first=1.0, most=30.0), 0.6)
        seconds = max(seconds, min(getattr(error, "retry_after", None) or 0.0, 300.0))
        client = self._client if answered == "refused" else None
        pause = Pause(host.nonce(), seconds, host.wall() + seconds)
        transient = not isinstance(error, ReauthorizationRequired) and error.transient
        note = Failed(
            str(error)[:1000], answered, transient, failures + 1, pause, client, person=person
        )
        return (note, *self._failed_of_others())[:MOST_FAILED]

    def _failed_of_others(self) -> tuple[Failed, ...]:
        failed = self._base.failed
        mine = (None, self._client) if failed else ()
        return tuple(one for one in failed if one.client not in mine)

    async def _settle(self) -> None:
        try:
            await self.save(wait=False)
        except StoreError as error:
            if isinstance(self.outcome, Renewed):
                self.unsaved = fresh(error)
                return  # The claim stands: it is what keeps others from spending the old token.
            from . import events

            self.emit(events.EndNotNoted(message=str(error)))
            self._slot.give_up(self._claim, maybe_spent=not isinstance(self.outcome, Unsent))

    async def keep_saving(self, closing: anyio.Event, late: Callable[[], None]) -> Record | None:
        """Try to save the token until it is saved; return what the store holds then, None if it was not saved.

        Args:
            closing: once set, the next try comes at once and is the last.
            late: called once: when saving has failed for `refresh_timeout`, or for the last time.
        """
        host = self._slot.host
        started, told = host.monotonic(), False
        backoff = Backoff(host, 0.1, 10.0)
        while True:
            with anyio.move_on_after(backoff.next()):
                await closing.wait()
            last = closing.is_set()
            try:
                return await self.save(wait=not last)
            except StoreError as error:
                if not told and (last or host.monotonic() - started >= self._slot.refresh_timeout):
                    told = True
                    late()
                if last:
                    self._slot.give_up(self._claim, maybe_spent=True)
                    return None
                if not self.repeatable:
                    from . import events

                    self.emit(events.StillUnsaved(message=str(error)))

    async def save(self, *, wait: bool = True) -> Record:
        """Bring the store to its end; return what stands there then: that, or what somebody else brought meanwhile.

        Fenced: the claim is replaced by compare-and-swap, so that a process which lost its claim replaces nothing of
        another's. A token outlives the loss of its claim, because nobody else knows it: it replaces a text that no
        other token came to meanwhile, once no other's claim stands on that.

        Args:
            wait: for the end of another's claim.

        Raises:
            StoreError: the store failed, or another's claim stands there.
        """
        host, backoff = self._slot.host, None
        until = host.monotonic() + self._slot.refresh_timeout / 2
        record = self.next_record()
        while True:
            if self.saved is not None:
                # Somebody else's try came to an end: `_there` may be a newer token by now, or a logout.
                return self.saved
            written = await self._slot.swap(self._there, record)
            if written is not None:
                break
            there = await self._slot.read()
            if self._is_ours(there):
                written = there  # An earlier try wrote it, and the store's answer was lost.
                break
            claim = there.redeeming
            if (
                claim is not None
                and claim.nonce == self._claim.nonce
                and there.same_base(self._base)
            ):
                self._there = there.text  # Somebody wrote into it although it is claimed.
            elif not self._may_replace(there):
                written = there  # A newer token, somebody's login, or a logout.
                break
            elif self._slot.judge(there).claim == "standing":
                if not isinstance(self.outcome, Renewed):
                    written = there
                    break
                # Another's claim on the token that we spent: it ends, or is abandoned.
                if not wait:
                    raise StoreError(
                        "Another process claims the token that was exchanged here. Saving is tried again."
                    )
                until = host.monotonic() + self._slot.refresh_timeout / 2
            else:
                self._there = there.text
            if host.monotonic() > until:
                raise self._slot.keeps_changing()
            backoff = backoff or Backoff(host, 0.02, 1.0)
            await anyio.sleep(backoff.next())
        self.saved = written
        self._there = written.text
        if isinstance(self.outcome, Renewed):
            self._slot.exchanged(None if self._obtains else self._held, self.outcome.token)
        self._slot.give_up(self._claim, maybe_spent=not isinstance(self.outcome, Unsent))
        return written

    def _is_ours(self, there: Record) -> bool:
        outcome = self.outcome
        return (
            isinstance(outcome, Renewed)
            and there.token is not None
            and there.token.access_token == outcome.token.access_token
        )

    def _may_replace(self, there: Record) -> bool:
        """Whether what stands there is older than what became of this spending."""
        outcome = self.outcome
        if isinstance(outcome, Renewed) and is_blank(there.text):
            return True
        return isinstance(outcome, (Renewed, Refused)) and there.same_base(self._base)

    def lost(self) -> bool:
        """Whether the store was found to hold another token instead of the one that was spent."""
        return (
            self.saved is not None
            and not self._is_ours(self.saved)
            and not self.saved.same_base(self._base)
        )


def may_refresh(record: Record, facts: Facts) -> bool:
    """Whether the token in this record is refreshed; else another one is obtained from nothing.

    A token for something else, and a refresh token that was refused for good, are of no use to a source that can start.
    """
    token = record.token
    if not facts.starts:
        return True
    return (
        facts.refreshes
        and token is not None
        and token.refresh_token is not None
        and not record.is_dead()
        and not record.is_for_another(facts.purpose)
    )


def checked(
    error: RefreshUnavailable | ReauthorizationRequired,
) -> RefreshUnavailable | ReauthorizationRequired:
    """Return a source's error without its frames, and with no odd values in it."""
    error = fresh(error)
    if isinstance(error, RefreshUnavailable):
        if error.outcome not in ("not_sent", "busy", "refused", "unknown"):
            error.outcome = "unknown"
        wait = error.retry_after
        if isinstance(wait, bool) or not isinstance(wait, (int, float)) or not 0 <= wait < 1e9:
            error.retry_after = None
        error.transient = error.transient is True
    else:
        for name in ("error", "error_description"):
            if not isinstance(getattr(error, name), str):
                setattr(error, name, None)
    return error
