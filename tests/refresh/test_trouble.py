"""Rule 7: the pauses that a process keeps for itself, and those that it notes for all, by value."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from httpx_refresh import (
    ReauthorizationRequired,
    RefreshAuthError,
    RefreshUnavailable,
    StoreError,
    Token,
)
from httpx_refresh._refresh import slot as slots
from httpx_refresh._refresh.host import Host
from httpx_refresh._refresh.pauses import Backoff, Trouble, pause_after, trouble_after
from httpx_refresh._refresh.record import MOST_FAILED, Claim, Failed, Pause, Record
from httpx_refresh._refresh.refusals import Need
from httpx_refresh._refresh.renewal import failed_like
from httpx_refresh._refresh.slot import Slot, View
from httpx_refresh._refresh.source import facts_of
from httpx_refresh._refresh.spending import (
    NoToken,
    Outcome,
    Refused,
    Renewed,
    Spending,
    Unsent,
)
from tests.fakes import Endpoint, Store

NOW, WALL = 1000.0, 50_000.0


class Fixed(Host):
    """A host whose clock stands still; chance is always at its upper end, or always at its lower."""

    def __init__(self, *, lower: bool = False) -> None:
        self.lower = lower

    def monotonic(self) -> float:
        return NOW

    def wall(self) -> float:
        return WALL

    def jitter(self, value: float, least: float) -> float:
        return value * least if self.lower else value


def _unavailable(outcome: Any, retry_after: float | None = None) -> RefreshUnavailable:
    return RefreshUnavailable("no", outcome=outcome, retry_after=retry_after)


@pytest.mark.parametrize(
    "error, failures, looks_after, asks_after, then",
    [
        # A dead grant: only a login helps, which is looked for each second.
        (ReauthorizationRequired("log in"), 3, 1.0, 0.0, 0),
        # A store that fails is tried again soon, and every two seconds at last.
        (StoreError("gone"), None, 0.1, 0.1, 1),
        (StoreError("gone"), 3, 0.8, 0.8, 4),
        (StoreError("gone"), 10, 1.0, 2.0, 11),
        # What the endpoint answered is paused for by all, as the store tells.
        (_unavailable("refused"), 3, 1.0, 0.0, 0),
        (_unavailable("busy", 40.0), 3, 1.0, 40.0, 0),
        (_unavailable("unknown", 1000.0), 3, 1.0, 300.0, 0),
        # What was never sent.
        (_unavailable("not_sent"), None, 1.0, 1.0, 1),
        (_unavailable("not_sent"), 2, 1.0, 4.0, 3),
        (_unavailable("not_sent"), 100, 1.0, 30.0, 101),
        (_unavailable("not_sent", 100.0), None, 1.0, 100.0, 1),
        (_unavailable("not_sent", 1000.0), None, 1.0, 300.0, 1),
    ],
)
def test_when_a_process_looks_and_asks_again_follows_from_what_failed(
    error: RefreshAuthError, failures: int | None, looks_after: float, asks_after: float, then: int
) -> None:
    before = None if failures is None else Trouble(error, 0.0, 0.0, failures)
    trouble = trouble_after(before, error, Fixed())
    assert trouble.error is error
    assert trouble[1:] == pytest.approx((NOW + looks_after, NOW + asks_after, then))


@pytest.mark.parametrize(
    "error, looks_after, asks_after",
    [
        (StoreError("gone"), 0.8, 1.0),
        (_unavailable("not_sent"), 0.8, 15.0),
        # What is asked for is kept.
        (_unavailable("not_sent", 100.0), 0.8, 100.0),
        (_unavailable("busy", 40.0), 0.8, 40.0),
    ],
)
def test_these_pauses_differ_from_process_to_process(
    error: RefreshAuthError, looks_after: float, asks_after: float
) -> None:
    trouble = trouble_after(Trouble(error, 0.0, 0.0, 100), error, Fixed(lower=True))
    assert trouble[1:3] == pytest.approx((NOW + looks_after, NOW + asks_after))
    # The store is looked at before anything is asked.
    first = trouble_after(None, _unavailable("not_sent"), Fixed(lower=True))
    assert first[1:3] == pytest.approx((NOW + 0.5, NOW + 0.5))


def test_a_backoff_grows_to_its_longest_pause_with_jitter() -> None:
    backoff = Backoff(Fixed(), 0.25, 1.5)
    assert [backoff.next() for _ in range(5)] == [0.25, 0.5, 1.0, 1.5, 1.5]
    backoff = Backoff(Fixed(lower=True), 1.0, 10.0, factor=3.0)
    assert [backoff.next() for _ in range(4)] == pytest.approx([0.6, 1.8, 5.4, 6.0])


def test_a_pause_doubles_with_each_failure_and_does_not_overflow() -> None:
    pauses = [pause_after(failures, first=1.0, most=30.0) for failures in (0, 1, 4, 5, 10**6)]
    assert pauses == [1.0, 2.0, 16.0, 30.0, 30.0]


def test_pauses_of_one_process_s_own_grow_with_its_failures_and_do_not_overflow() -> None:
    host = Host()
    error = RefreshUnavailable("no route", outcome="not_sent")
    for make, most in ((error, 30.0), (StoreError("gone"), 2.0)):
        trouble = None
        for _ in range(3000):
            trouble = trouble_after(trouble, make, host)
        assert trouble is not None
        assert trouble.failures == 3000
        assert most / 2 - 1 <= trouble.ask_at - host.monotonic() <= most
        assert not math.isinf(trouble.look_at)


# -- what is noted in the store, for all processes -------------------------------------------------


class Client(Endpoint):
    client_fingerprint = "me"


class Anew:
    """It obtains tokens from nothing."""

    client_fingerprint = "me"

    async def obtain(self, _: Token | None, /) -> Token:
        raise AssertionError("nobody asks")


def _noted(client: str | None, failures: int) -> Failed:
    return Failed("no", "refused", False, failures, Pause(f"p{failures}", 9.0, 9.0), client)


THEIRS, MINE = _noted("other", 7), _noted("me", 3)


@contextmanager
def spending(
    outcome: Outcome, failed: tuple[Failed, ...], source: Any, *, lower: bool = False
) -> Iterator[Spending]:
    """A spending that came to this, where these failures were noted before it."""
    slot = Slot(Store(None), Fixed(lower=lower), refresh_timeout=20.0)
    before = Claim("x:1", "n0", 1.0)
    record = Record("text", Token("SECRET-a", "SECRET-r"), 4, uncertain=before, failed=failed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slots, "current_loop", object)  # No event loop is needed here.
        made = Spending(
            slot,
            source,
            facts_of(source),
            View(record),
            record.token,
            need=Need.RESULT,
            claims=None,
            hold=None,
            emit=lambda _: None,
        )
    made.outcome = outcome
    try:
        yield made
    finally:
        slot.release(made._claim)


@pytest.mark.parametrize(
    "failed, lower, failures, seconds",
    [
        ((), False, 1, 1.0),
        ((THEIRS,), False, 1, 1.0),
        ((THEIRS, MINE), False, 4, 8.0),
        ((THEIRS, MINE), True, 4, 4.8),
        ((_noted(None, 3),), False, 4, 8.0),
        ((_noted("me", 100),), False, 101, 30.0),
    ],
)
def test_a_refused_client_notes_a_pause_for_those_with_its_credentials_beside_those_of_others(
    failed: tuple[Failed, ...], lower: bool, failures: int, seconds: float
) -> None:
    outcome = NoToken(_unavailable("refused"), maybe_spent=False)
    with spending(outcome, failed, Client(), lower=lower) as made:
        note, *others = made.next_record().failed
    assert (note.client, note.failures, note.outcome, note.transient) == (
        "me",
        failures,
        "refused",
        False,
    )
    assert note.pause.seconds == pytest.approx(seconds)
    assert note.pause.until == pytest.approx(WALL + seconds)
    assert others == [one for one in failed if one is THEIRS]


def test_a_pause_that_the_server_asks_for_is_noted_and_an_outage_binds_all() -> None:
    with spending(NoToken(_unavailable("busy", 1000.0), False), (), Client()) as made:
        (note,) = made.next_record().failed
    assert (note.client, note.pause.seconds) == (None, 300.0)
    # What was never sent is noted only where something else was.
    for maybe_spent in (False, True):
        outcome = NoToken(_unavailable("not_sent"), maybe_spent)
        with spending(outcome, (THEIRS,), Client()) as made:
            assert (made.next_record().failed == (THEIRS,)) is not maybe_spent


def test_the_notes_of_very_many_clients_are_bounded_and_the_latest_is_kept() -> None:
    failed = tuple(_noted(f"c{number}", number) for number in range(MOST_FAILED))
    with spending(NoToken(_unavailable("refused"), False), failed, Client()) as made:
        note, *others = made.next_record().failed
    assert (note.client, others) == ("me", list(failed[:-1]))


def test_a_token_ends_the_pauses_that_bound_its_client_and_no_others() -> None:
    with spending(Renewed(Token("SECRET-b")), (MINE, THEIRS), Client()) as made:
        assert made.next_record().failed == (THEIRS,)


def test_a_dead_grant_is_noted_with_whether_it_had_been_spent_and_without_pauses() -> None:
    refusal = ReauthorizationRequired("no", error="invalid_grant")
    for maybe_spent in (False, True):
        with spending(Refused(refusal, maybe_spent), (MINE,), Client()) as made:
            record = made.next_record()
        assert record.is_dead()
        assert (record.failed, record.redeeming) == ((), None)
        assert record.uncertain is not None
        assert (record.uncertain.nonce == "n0") is not maybe_spent


def test_that_a_person_has_to_help_is_noted_where_nothing_was_spent() -> None:
    refusal = ReauthorizationRequired("consent", error="consent_required")
    with spending(Refused(refusal, False), (), Anew()) as made:
        record = made.next_record()
    assert record.dead is None
    (note,) = record.failed
    assert (note.person, note.transient, note.outcome, note.client) == (
        True,
        False,
        "refused",
        "me",
    )
    assert isinstance(failed_like(note, 5.0), ReauthorizationRequired)


def test_those_that_keep_a_pause_raise_what_was_said_and_how_long_it_lasts() -> None:
    for transient in (False, True):
        error = failed_like(MINE._replace(outcome="busy", transient=transient), 5.0)
        assert isinstance(error, RefreshUnavailable)
        assert (str(error), error.outcome, error.retry_after) == ("no", "busy", 5.0)
        assert error.transient is transient


@pytest.mark.parametrize(
    "failed, pause, again",
    [((), 1.0, True), ((), 1.01, False), ((MINE,), 0.1, False), ((THEIRS,), 0.1, True)],
)
def test_a_claim_is_held_through_no_pause_of_more_than_a_second(
    failed: tuple[Failed, ...], pause: float, again: bool
) -> None:
    error = RefreshUnavailable("busy", outcome="busy", transient=True)
    with spending(Unsent(), failed, Client()) as made:
        ask = made._may_ask_again(error, pause, maybe_spent=False, forgiven=False)
    assert ask is again
