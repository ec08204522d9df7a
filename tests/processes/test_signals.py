"""Signals at any moment of a refresh: few rounds here. `scripts/signals` plays thousands, and prints figures."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.processes.signals.rounds import MAY_LOSE, Setting
from tests.processes.signals.run import play
from tests.processes.signals.tally import Tally, table

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="it reads states of processes in /proc"
)

SLOTS = 6


@pytest.fixture(params=["file", "redis_url"])
def tally_of(request: pytest.FixtureRequest, rounds: int) -> Callable[..., Tally]:
    """Play some rounds on each store."""
    url = None if request.param == "file" else request.getfixturevalue(request.param)

    def played(mode: Any, grace: Any) -> Tally:
        setting = Setting(mode, "redis" if url else "file", grace)
        tally = asyncio.run(play(setting, rounds=SLOTS * rounds, seed=1, slots=SLOTS, url=url))
        assert tally.rounds >= SLOTS * rounds
        return tally

    return played


@pytest.mark.parametrize("mode", ["kill", "stop"])
def test_where_reuse_is_forgiven_a_signal_at_any_moment_loses_nothing(
    tally_of: Callable[..., Tally], mode: str
) -> None:
    tally = tally_of(mode, 60.0)
    assert (tally.lost, tally.revoked, tally.hung) == (0, 0, 0)


@pytest.mark.parametrize("mode", ["kill", "stop"])
def test_where_it_is_not_only_what_was_rotated_and_not_saved_is_lost(
    tally_of: Callable[..., Tally], mode: str
) -> None:
    tally = tally_of(mode, 0.0)
    assert {moment for moment, lost in tally.lost_at.items() if lost} <= MAY_LOSE
    assert tally.hung == 0


def test_the_figures_are_shown_by_signal_store_and_moment() -> None:
    tally = Tally(rounds=3, lost=1)
    tally.moments.update({"rotated, not saved": 1, "not claimed": 2})
    tally.lost_at["rotated, not saved"] = 1
    tally.ends["witness 200"] = 9
    tally.held("witness", 0.254)
    shown = table([{"mode": "kill", "backend": "file", "grace": 0.0, **tally.told()}])
    assert "| kill | file | 0.0 | 3 | 1 | 0 | 0 | 0 | 0 | 0.25 |" in shown
    assert "| kill | file | 0.0 | not claimed: 0 of 2<br>rotated, not saved: 1 of 1 |" in shown
    assert "| kill | file | 0.0 | witness 200 9 |" in shown
