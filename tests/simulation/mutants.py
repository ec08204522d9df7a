"""The protocol with one thing wrong: what the simulation must find, to be believed when it finds nothing.

Most are an edit of one function's source. An edit of what is not there any more fails, and must be corrected.
"""

from __future__ import annotations

import inspect
import textwrap
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from httpx_refresh import ReauthorizationRequired, StoreError, _auth, _limits
from httpx_refresh._http import challenge
from httpx_refresh._refresh import (
    host,
    own_loop,
    pauses,
    record,
    refusals,
    renewal,
    session,
    slot,
    spending,
)
from httpx_refresh._refresh.flight import Flight
from httpx_refresh._refresh.renewal import Renewal
from httpx_refresh._refresh.session import Session
from httpx_refresh._refresh.slot import Slot, View
from httpx_refresh._refresh.spending import Refused, Spending

if TYPE_CHECKING:
    import pytest

    from httpx_refresh import Token
    from httpx_refresh._refresh.record import Record

Mutant = Callable[["pytest.MonkeyPatch"], None]


def edited(owner: Any, name: str, old: str, new: str) -> Mutant:
    """Make a mutant that replaces a piece of a function's source, which must be in it once."""

    def edit(patch: pytest.MonkeyPatch) -> None:
        function = inspect.getattr_static(owner, name)
        source = textwrap.dedent(inspect.getsource(function))
        if source.count(old) != 1:
            raise LookupError(f"{name} has {source.count(old)} times {old!r}")
        namespace: dict[str, Any] = {}
        code = compile(
            "from __future__ import annotations\n" + source.replace(old, new),
            inspect.getsourcefile(function) or "",
            "exec",
        )
        exec(code, function.__globals__, namespace)  # noqa: S102 - our own source
        patch.setattr(owner, name, namespace[name])

    return edit


# -- claims, and what is sent under them ---------------------------------------------------------------------------


def token_read_before_the_claim(patch: pytest.MonkeyPatch) -> None:
    """The refresh token that is spent is the one that its flight read first, not the one that was claimed."""
    first: dict[object, Token] = {}
    init = Spending.__init__

    def remembers(
        self: Spending, slot: Slot, source: Any, facts: Any, view: View, held: Token, **options: Any
    ) -> None:
        init(self, slot, source, facts, view, held, **options)
        self._held = first.setdefault(slot, held)

    patch.setattr(Spending, "__init__", remembers)


takeover_by_the_wall_clock = edited(
    Slot, "_is_abandoned", "watched >= 1.5 * patience", "self.host.wall() - claim.since >= patience"
)
"""A claim's age is told by its `since`, which another host's clock wrote."""

impatient_takeover = edited(Slot, "_is_abandoned", "1.5 * patience", "0.5 * patience")
"""A claim is taken over while its owner may still be waiting for the answer."""

patience_of_the_watcher = edited(
    Slot, "_is_abandoned", "claim.patience or self.refresh_timeout", "self.refresh_timeout"
)
"""A claim is judged by the `refresh_timeout` of whoever watches it."""


def shortcut_of_five_minutes(patch: pytest.MonkeyPatch) -> None:
    """A claim that is five minutes old by its reader's clock is abandoned."""
    patch.setattr(slot, "A_DAY", 300.0)


def claim_not_fenced(patch: pytest.MonkeyPatch) -> None:
    """Whoever has a result writes it, whatever stands there by now."""

    async def save(self: Spending, *, wait: bool = True) -> Record:
        written = None
        while written is None:
            written = await self._slot.swap((await self._slot.read()).text, self.next_record())
        self.saved = written
        return written

    patch.setattr(Spending, "save", save)


def server_errors_are_death(patch: pytest.MonkeyPatch) -> None:
    """An answer that is no token is taken for a refusal of the grant."""
    settle = Spending._settle

    async def dies(self: Spending) -> None:
        outcome = self.outcome
        if isinstance(outcome, spending.NoToken) and outcome.error.outcome == "unknown":
            error = ReauthorizationRequired("no")
            self.outcome = Refused(error, maybe_spent=True)
        await settle(self)

    patch.setattr(Spending, "_settle", dies)


def release_by_another(patch: pytest.MonkeyPatch) -> None:
    """Whoever finds another's claim tidies it up."""
    read = Slot.read

    async def tidies(self: Slot) -> Record:
        there = await read(self)
        if there.redeeming is not None:
            await self.swap(there.text, there._replace(text=None, redeeming=None))
        return there

    patch.setattr(Slot, "read", tidies)


def takeover_forgets_the_doubt(patch: pytest.MonkeyPatch) -> None:
    """A takeover does not note that the one before it may have spent the token."""
    judge = Slot.judge
    patch.setattr(Slot, "judge", lambda self, there: replace(judge(self, there), unsent=True))


def sent_after_its_time(patch: pytest.MonkeyPatch) -> None:
    """A process that was held up sends all the same."""
    remaining = Spending._remaining
    patch.setattr(Spending, "_remaining", lambda self: max(remaining(self), 1.0))
    patch.setattr(Spending, "_has_time", lambda self: True)


def cut_short(patch: pytest.MonkeyPatch) -> None:
    """What a flight had waited is taken from the time of its request: found soonest where much is waited for."""
    claim, run = Spending.claim, Renewal.run
    began: dict[Slot, float] = {}

    async def runs(self: Renewal) -> Any:
        began[self.slot] = self.slot.host.monotonic()
        return await run(self)

    async def claims(self: Spending) -> bool:
        won = await claim(self)
        self._deadline = began[self._slot] + self._slot.refresh_timeout
        return won

    patch.setattr(Renewal, "run", runs)
    patch.setattr(Spending, "claim", claims)


def retried_without_grace(patch: pytest.MonkeyPatch) -> None:
    """Sent and no answer: sent again, at a server that forgives no reuse."""
    patch.setattr(Spending, "_may_ask_again", lambda self, *args, **options: True)


def short_grace_ignored(patch: pytest.MonkeyPatch) -> None:
    """A claim lasts for `refresh_timeout`, however soon the server forgives no more."""
    patch.setattr(spending, "time_to_spend", lambda refresh_timeout, reuse_grace: refresh_timeout)


def cut_off_forgets_the_doubt(patch: pytest.MonkeyPatch) -> None:
    """What may be spent is not marked so."""
    next_record = Spending.next_record
    patch.setattr(
        Spending,
        "next_record",
        lambda self: next_record(self)._replace(uncertain=self._base.uncertain),
    )


def dead_not_noted(patch: pytest.MonkeyPatch) -> None:
    """That a grant is dead is not written down: everybody asks for it."""
    next_record = Spending.next_record
    patch.setattr(Spending, "next_record", lambda self: next_record(self)._replace(dead=None))


generation_not_counted = edited(
    Spending, "next_record", "generation = base.next_generation()", "generation = base.generation"
)
"""The result is written with the generation of what it replaces."""


# -- what callers get ----------------------------------------------------------------------------------------------


def memory_before_the_store(patch: pytest.MonkeyPatch) -> None:
    """The new token is in use before it is saved."""
    settle = Spending._settle
    session_of = _sessions(patch)

    async def publishes(self: Spending) -> None:
        if isinstance(self.outcome, spending.Renewed):
            session_of[self._slot]._use(self.outcome.token, None, issued=True)
        await settle(self)

    patch.setattr(Spending, "_settle", publishes)


settled_save_goes_on = edited(Spending, "save", "if self.saved is not None:", "if False:")
"""A save that has come to an end is tried again, over whatever stands there then."""


def sent_token_not_compared(patch: pytest.MonkeyPatch) -> None:
    """A late 401 for an older token refreshes the new one."""
    patch.setattr(Session, "newer_than", lambda self, refused: None)
    decide = renewal.decide

    def spends(view: View, *, stale: Token | None, **options: Any) -> Any:
        step = decide(view, stale=stale, **options)
        return "spend" if step == "adopt" and stale is not None else step

    patch.setattr(renewal, "decide", spends)


held_without_an_end = edited(Session, "_wait", ">= longest", ">= 1e9")
"""Callers wait until their flight lands, however long that takes."""


def error_of_nobody(patch: pytest.MonkeyPatch) -> None:
    """A callback of the event loop fails, where no caller sees it."""
    unlist = Session._unlist

    def fails(self: Session, flight: Flight) -> None:
        unlist(self, flight)
        host.current_loop().call_soon(lambda: 1 / 0)  # type: ignore[attr-defined]  # asyncio's

    patch.setattr(Session, "_unlist", fails)


def expired_on_arrival(patch: pytest.MonkeyPatch) -> None:
    """A token that is expired by this clock when it comes is refreshed at once, again and again."""
    expired = "expires_at is not None and expires_at <= "
    edited(Session, "_use", f"{expired}self.host.wall()", "False")(patch)
    edited(record, "merged", f"{expired}now", "False")(patch)
    patch.setattr(spending, "merged", record.merged)


# -- the end of event loops and processes --------------------------------------------------------------------------


def exchange_cancelled(patch: pytest.MonkeyPatch) -> None:
    """The exchange is among all tasks, and is cancelled with them when the event loop ends."""

    def visible(loop: Any, coroutine: Any) -> Any:
        task = loop.create_task(coroutine, name="httpx-refresh")
        host._keep(loop, task)
        return task

    patch.setattr(host, "_hidden", visible)


def awaited_once_more(patch: pytest.MonkeyPatch) -> None:
    """The event loop waits for the exchange, but not if it is cancelled twice."""
    guard = host._guard_class()
    cancel, let_go, again = guard.cancel, guard.let_go, weakref.WeakSet[Any]()

    def gives_up(self: Any, msg: object = None) -> bool:
        if self in again:
            self.let_go()
        again.add(self)
        return bool(cancel(self, msg))

    patch.setattr(guard, "cancel", gives_up)
    patch.setattr(guard, "let_go", lambda self: self.done() or let_go(self))


def closed_loop_is_waited_for(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks whether the event loop of a claim was closed."""
    patch.setattr(slot, "is_closed", lambda loop: False)
    patch.setattr(host, "is_closed", lambda loop: False)


closing_spends = edited(
    Renewal, "_follow", "need is Need.LOOK or flight.closing.is_set()", "need is Need.LOOK"
)
"""`aclose` waits a claim out, and then spends the token, for nobody."""


def answer_of_a_stopped_process_dropped(patch: pytest.MonkeyPatch) -> None:
    """What came while the event loop stood still is not read any more."""
    patch.setattr(host, "longer", lambda seconds, late, times: 0.0)


def sent_without_time_to_answer(patch: pytest.MonkeyPatch) -> None:
    """A request leaves as long as there is any time left."""
    patch.setattr(Spending, "_has_time", lambda self: self._remaining() > 0)


def sent_however_long_it_connects(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks at the time again once there is a connection."""
    patch.setattr(_limits, "require_time", lambda: None)


def held_up_is_an_error(patch: pytest.MonkeyPatch) -> None:
    """What was not sent, because the process was held up, is not begun again."""
    patch.setattr(renewal, "_MOST_BEGINNINGS", 1)


# -- sync callers --------------------------------------------------------------------------------------------------


def sync_callers_do_not_join(patch: pytest.MonkeyPatch) -> None:
    """Each sync caller starts a flight, though there is one on the library's own loop."""
    flight_of = Session._flight_of

    def finds_none(self: Session, loop: Any) -> Flight | None:
        return None if loop.is_own else flight_of(self, loop)

    patch.setattr(Session, "_flight_of", finds_none)


def sync_callers_refresh_by_themselves(patch: pytest.MonkeyPatch) -> None:
    """A sync caller whose token has expired spends the refresh token itself, without a flight and a claim."""
    blocked = _auth._blocked

    def spends(session: Session, call: Any) -> Any:
        known = session.credential
        if known is not None and known.expired(session.host.wall()):
            source: Any = session.source
            token = own_loop.run(source.refresh, known.token, seconds=session.longest)
            session._use(token, None, issued=True)
        return blocked(session, call)

    patch.setattr(_auth, "_blocked", spends)


def given_up_is_cancelled(patch: pytest.MonkeyPatch) -> None:
    """A sync caller that is interrupted takes all with it that runs on the library's own loop, the exchange too."""
    exchange_cancelled(patch)
    everything = "[own.loop.call_soon_threadsafe(one.cancel) for one in own.loop.left()]"
    edited(own_loop, "run", "future.cancel()", f"future.cancel() and {everything}")(patch)


def exit_without_waiting(patch: pytest.MonkeyPatch) -> None:
    """The end of the interpreter does not wait for what runs on the library's own loop."""

    async def end_tasks() -> None:
        return

    patch.setattr(own_loop, "_end_tasks", end_tasks)


# -- stores and endpoints ------------------------------------------------------------------------------------------


def store_without_bound(patch: pytest.MonkeyPatch) -> None:
    """A call of the store may take for ever."""

    async def call(self: Slot, done: str, work: Callable[[], Any]) -> Any:
        try:
            return await work()
        except Exception:
            raise StoreError("failed") from None

    patch.setattr(Slot, "_call", call)


def failures_overflow(patch: pytest.MonkeyPatch) -> None:
    """The pause after a failure is reckoned with a power that overflows at the 1,024th."""

    def pause_after(failures: int, *, first: float, most: float) -> float:
        return min(first * 2.0**failures, most)

    for owner in (pauses, refusals, spending):
        patch.setattr(owner, "pause_after", pause_after)


pause_of_one_process = edited(
    renewal, "decide", "failed_for(view, facts.client_fingerprint)[1] > 0", "False"
)
"""That the endpoint refused is no reason for other processes not to ask."""

refusal_binds_everybody = edited(renewal, "failed_for", "if one.client in (None, client)", "")
"""A client that is refused silences those with other credentials."""

late_acknowledgement_wins = edited(Session, "_use", "known.since >= seen_at", "False")
"""A token that was seen in the store before another one was put there comes back."""

odd_values_pass = edited(spending, "checked", "error = fresh(error)", "return fresh(error)")
"""What a custom endpoint's errors hold is believed."""


asking_again_is_never_safe = edited(
    spending.Spending, "__init__", "self._obtains and facts.repeatable", "False"
)
"""What can be asked for again is treated like a refresh token that may be spent."""

obtained_for_anything = edited(record.Record, "is_for_another", "self.purpose != purpose", "False")
"""Nobody looks what a stored token is for."""

purpose_not_written = edited(Spending, "next_record", "purpose=purpose,", "purpose=None,")
"""The stored text does not say what its token is for."""


# -- when a refusal is worth a refresh -----------------------------------------------------------------------------


acceptance_anywhere_ends_doubt = edited(
    refusals.Verdicts,
    "after_acceptance",
    "doubt is not None and after_refusal",
    "doubt is not None",
)
"""A request that is accepted elsewhere counts as proof that the token is good."""


def doubt_of_one_process(patch: pytest.MonkeyPatch) -> None:
    """Each process finds out by itself that the API refuses everybody."""
    patch.setattr(Session, "_tell", lambda self, credential, change: None)
    patch.setattr(spending, "after_refresh", lambda *args, **options: None)


def doubt_for_an_hour(patch: pytest.MonkeyPatch) -> None:
    """An API that is back is not used for an hour."""
    patch.setattr(refusals, "FIRST_DOUBT", 3600.0)
    patch.setattr(refusals, "MOST_DOUBT", 3600.0)


def forbidden_for_ever(patch: pytest.MonkeyPatch) -> None:
    """A kind of request that was taken for forbidden by mistake stays that, though others are accepted with it."""
    patch.setattr(refusals, "FORBIDDEN_FOR", 1e9)
    patch.setattr(refusals.Verdicts, "allowed", lambda self: ())


def acceptance_for_ever(patch: pytest.MonkeyPatch) -> None:
    """What was accepted once with a token shows for ever that the token is good."""
    patch.setattr(refusals, "ACCEPTED_FOR", 1e9)


def probes_are_no_early_ends(patch: pytest.MonkeyPatch) -> None:
    """A token that a probe replaced is not counted among those that ended early."""
    fruit = refusals.after_fruit

    def after_fruit(note: record.Refusals | None) -> record.Refusals | None:
        return fruit(None if note is None else note._replace(probed=False))

    patch.setattr(session, "after_fruit", after_fruit)


def no_doubt(patch: pytest.MonkeyPatch) -> None:
    """Every refusal is worth a refresh."""
    patch.setattr(Session, "_judge", lambda self, *args: refusals.Need.RESULT)


def early_ends_without_pauses(patch: pytest.MonkeyPatch) -> None:
    """However often tokens end early, each end is followed by a refresh at once."""
    patch.setattr(refusals, "early_left", lambda refusals, left: 0.0)


def late_learner_is_refused(patch: pytest.MonkeyPatch) -> None:
    """A token that the API does not know yet is refreshed at once."""
    patch.setattr(Session, "second_try", lambda self, refused, kind: None)


# -- step-ups ------------------------------------------------------------------------------------------------------

claims_of_another = edited(
    Flight, "serves", "self.claims != claims and landing.token is None", "False"
)
"""What the claims of one request came to is an answer to whoever waited meanwhile, for other claims or for none."""

refused_claims_are_death = edited(Spending, "_ask_once", "self._claims is None", "True")
"""Where the server wants a person for claims, the whole grant is taken for dead."""


def claims_again_and_again(patch: pytest.MonkeyPatch) -> None:
    """Nobody remembers which claims a token was asked for with."""
    patch.setattr(renewal, "claims_are_futile", lambda asked, claims, generation, left: left > 0)


claims_without_pauses = edited(spending, "after_claims", "early_pause(count + 1)", "0.0")
"""However many claims an API asks for, each are asked for at once."""


def step_up_is_an_expiry(patch: pytest.MonkeyPatch) -> None:
    """A 401 that asks for another login is taken for one that says that the token has expired."""
    patch.setattr(challenge, "_step_up", lambda headers: None)


def _sessions(patch: pytest.MonkeyPatch) -> dict[Slot, Session]:
    """The session of each slot that is made from now on."""
    session_of: dict[Slot, Session] = {}
    init = Session.__init__

    def notes(self: Session, source: Any, slot: Slot, **options: Any) -> None:
        init(self, source, slot, **options)
        session_of[slot] = self

    patch.setattr(Session, "__init__", notes)
    return session_of


MUTANTS: dict[str, tuple[Mutant, str]] = {
    name: (globals()[name], kind)
    for kind, names in {
        "faults": (
            "token_read_before_the_claim takeover_by_the_wall_clock impatient_takeover claim_not_fenced "
            "server_errors_are_death release_by_another takeover_forgets_the_doubt sent_after_its_time "
            "retried_without_grace cut_off_forgets_the_doubt dead_not_noted generation_not_counted "
            "memory_before_the_store sent_token_not_compared error_of_nobody"
        ),
        "loop ends": "exchange_cancelled awaited_once_more",
        "loops closed": "closed_loop_is_waited_for",
        "sync callers": (
            "sync_callers_do_not_join sync_callers_refresh_by_themselves given_up_is_cancelled "
            "exit_without_waiting"
        ),
        "closing": "closing_spends",
        "freezes": (
            "held_up_is_an_error answer_of_a_stopped_process_dropped sent_without_time_to_answer "
            "sent_however_long_it_connects"
        ),
        "timeouts": "patience_of_the_watcher held_without_an_end",
        "clocks": "shortcut_of_five_minutes",
        "graces": "short_grace_ignored",
        "hung store": "store_without_bound",
        "odd endpoint": "odd_values_pass",
        "unsaved": "settled_save_goes_on",
        "logins": "late_acknowledgement_wins",
        "outage": "pause_of_one_process",
        "services": "asking_again_is_never_safe",
        "purposes": "obtained_for_anything purpose_not_written",
        "stale secrets": "refusal_binds_everybody",
        "hours of failure": "failures_overflow",
        "expired on arrival": "expired_on_arrival",
        "forbidden": "acceptance_anywhere_ends_doubt no_doubt",
        "quiet": "acceptance_for_ever",
        "refusing": "doubt_of_one_process doubt_for_an_hour",
        "early ends": "early_ends_without_pauses probes_are_no_early_ends",
        "late": "late_learner_is_refused",
        "step-ups": (
            "claims_of_another refused_claims_are_death claims_again_and_again claims_without_pauses "
            "step_up_is_an_expiry"
        ),
    }.items()
    for name in names.split()
}
"""Each with the kind of world that is to find it."""
