"""All orders in which two processes can refresh one token, with everything that can go wrong once."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.simulation import __main__ as command
from tests.simulation import mutants
from tests.simulation.orders import enumerate_orders
from tests.simulation.run import quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet():
        yield


def test_two_processes_and_one_fault_keep_every_promise_in_all_orders() -> None:
    found = enumerate_orders(2, faults=1, takeovers=1)
    assert not found.violation, found.trace
    assert found.complete
    assert found.orders > 10_000


@pytest.mark.parametrize(
    "mutant",
    [
        mutants.claim_not_fenced,
        mutants.server_errors_are_death,
        mutants.release_by_another,
        mutants.takeover_forgets_the_doubt,
        mutants.sent_after_its_time,
        mutants.retried_without_grace,
    ],
)
def test_some_order_shows_what_is_broken(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    assert enumerate_orders(2, faults=1, takeovers=1).violation


def test_the_command_counts_orders_and_states(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["simulate", "--enumerate", "--processes", "1"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert command.main() == 0
    assert "distinct states" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*arguments, "--minutes", "0"])
    assert command.main() == 0
    assert "not all there are" in capsys.readouterr().out
    mutants.retried_without_grace(monkeypatch)
    monkeypatch.setattr(sys, "argv", arguments)
    assert command.main() == 1
    assert "VIOLATION" in capsys.readouterr().out
