"""Rule 7: the pauses that a process keeps for itself, after what concerns no other process."""

from __future__ import annotations

import math
from typing import Any

import pytest

from httpx_refresh import (
    ReauthorizationRequired,
    RefreshAuthError,
    RefreshUnavailable,
    StoreError,
)
from httpx_refresh._refresh.host import Host
from httpx_refresh._refresh.pauses import Backoff, Trouble, pause_after, trouble_after

NOW = 1000.0


class Fixed(Host):
    """A host whose clock stands still; chance is always at its upper end, or always at its lower."""

    def __init__(self, *, lower: bool = False) -> None:
        self.lower = lower

    def monotonic(self) -> float:
        return NOW

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
