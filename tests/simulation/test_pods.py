"""A thousand pods that share one token, at one expiry: what it costs the token endpoint and the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.simulation.plan import Plan
from tests.simulation.run import simulate
from tests.simulation.world import World

if TYPE_CHECKING:
    from tests.simulation.run import Outcome

PODS = 1000


@pytest.fixture(autouse=True)
def _exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """All latencies are exactly what the plan says, and all pods start and ask at the same moment."""
    monkeypatch.setattr(World, "about", lambda self, seconds: seconds)


def _live(answer_takes: float) -> Outcome:
    """Let a thousand pods live through two expiries: one that they see coming, and one that they do not."""
    plan = Plan(
        processes=PODS,
        callers=1,
        think=10.0,
        horizon=110.0,
        lifetime=100.0,
        refresh_before=20.0,
        refresh_timeout=30.0,
        latency={"store": 0.005, "server": answer_takes / 2},
    )
    outcome = simulate(1, plan)
    assert outcome.violation is None
    return outcome


def test_an_expiry_costs_one_token_request_and_operations_by_pods_not_by_pods_times_time() -> None:
    """An endpoint ten times as slow costs less than four times the looks: pauses grow to a quarter of a second."""
    quick, slow = _live(1.0), _live(10.0)
    assert (quick.token_requests, slow.token_requests) == (2, 2)
    # Nobody knew of it: all are refused at once, try to claim, and wait, with pauses of a tenth of what was waited.
    assert quick.last_operations <= PODS * 35
    assert slow.last_operations < quick.last_operations * 4
    # Everybody saw it coming: one refreshes, and the others go on with a token that is still good. Each looks once at
    # its start, and a few times in the fifth of the lifetime that is left.
    assert quick.operations <= PODS * 4
    assert slow.operations <= PODS * 4
