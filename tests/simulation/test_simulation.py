"""The protocol in thousands of simulated worlds: several processes, one store, one server, and what goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from httpx_refresh._refresh import record as _record
from tests.simulation import __main__ as command
from tests.simulation.kinds import KINDS
from tests.simulation.mutants import MUTANTS, claim_not_fenced, cut_short, forbidden_for_ever
from tests.simulation.plan import Plan
from tests.simulation.run import parsed_once, simulate

ROOT = Path(__file__).parents[2]

# The reasons for which a person may have to log in again: no other one may be found.
REASONS = {
    # Somebody wanted it so.
    "logout",
    "emptied",
    "revoked by the server",
    "no refresh token",
    # The answer never came, or came when nobody waited for it any more: the new token is lost.
    "lost answer",
    "late answer",
    "error after",
    "garbage",
    "late request",
    # A first try left so little time that nobody waited for the answer to the second.
    "not sent",
    "lost request",
    "error before",
    "busy",
    "refused",
    # Whoever spent the token did not come to save the new one before its claim was abandoned.
    "crash",
    "stop",
    "sleep",
    "pause",
    "shutdown",
    "slow store",
    "store failed",
    "store resent",
    "store hung",
    "close",
    # What a custom endpoint raised or returned after the token was spent.
    "odd token",
    # The one assumption about wall clocks.
    "clocks that differ by more than five minutes",
}


# Hours go by in each of their worlds, or tens of processes are in it.
SLOW_KINDS = {
    "early ends",
    "end in doubt",
    "forbidden",
    "hours of failure",
    "outage",
    "random",
    "refusing",
}


@pytest.mark.sample
def test_every_world_keeps_every_promise(worlds: int) -> None:
    for seed in range(worlds):
        outcome = simulate(seed)
        assert outcome.violation is None, outcome.trace
        assert REASONS.issuperset(outcome.reasons)


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"faults"}))
def test_worlds_of_each_kind_keep_every_promise(kind: str) -> None:
    for seed in range(5 if kind in SLOW_KINDS else 100):
        outcome = simulate(seed, kind=kind)
        assert outcome.violation is None, outcome.trace
        assert REASONS.issuperset(outcome.reasons)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_protocol_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant, kind = MUTANTS[name]
    mutant(monkeypatch)
    assert any(simulate(seed, kind=kind).violation for seed in range(2000))


def test_a_kind_that_was_taken_for_forbidden_by_mistake_is_found_to_be_good_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """This world is one of a thousand; to find it each time takes too long."""
    assert simulate(785, kind="quiet").violation is None
    forbidden_for_ever(monkeypatch)
    assert simulate(785, kind="quiet").violation == "everybody is answered in the end"


def test_a_seed_repeats_exactly_in_another_process_with_other_hashes() -> None:
    script = (
        "from tests.simulation.run import simulate\n"
        "from tests.simulation.kinds import KINDS\n"
        "print(*(simulate(seed).digest for seed in range(30)))\n"
        "print(*(simulate(0, kind=kind).digest for kind in KINDS))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    there = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    here = [simulate(seed).digest for seed in range(30)]
    here += [simulate(0, kind=kind).digest for kind in KINDS]
    assert there.stdout.split() == here


SLOW = Plan(
    processes=5,
    skew=100.0,
    lifetime=20.0,
    refresh_timeout=2.0,
    think=2.0,
    horizon=60.0,
    latency={"store": 0.01, "server": 0.26},
)
"""Hosts whose clocks differ by lifetimes refresh one after the other, and each request takes its time."""


def test_what_its_flight_had_waited_is_not_taken_from_a_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for seed in range(30):
        outcome = simulate(seed, SLOW)
        assert outcome.violation is None, outcome.trace
    cut_short(monkeypatch)
    assert any(simulate(seed, SLOW).violation for seed in range(200))


def test_without_faults_one_generation_costs_one_token_request() -> None:
    for seed in range(30):
        outcome = simulate(seed, Plan(processes=4, callers=3))
        assert outcome.violation is None, outcome.trace
        assert outcome.token_requests == outcome.generation > 2


def test_sync_callers_of_several_processes_share_one_token_request() -> None:
    for seed in range(30):
        outcome = simulate(seed, Plan(processes=3, callers=0, threads=3))
        assert outcome.violation is None, outcome.trace
        assert outcome.token_requests == outcome.generation > 2


def test_sync_callers_are_interrupted_and_lose_no_grant_by_it() -> None:
    plan = Plan(
        processes=2, callers=1, threads=2, faults=frozenset({"cancel"}), cancels=0.5, held=2.0
    )
    interrupts = 0
    for seed in range(30):
        outcome = simulate(seed, plan)
        assert outcome.violation is None, outcome.trace
        assert not outcome.reasons
        interrupts += outcome.trace.count("is interrupted")
    assert interrupts > 30


def test_a_clock_that_is_ahead_by_nearly_a_lifetime_makes_short_tokens_and_no_violation() -> None:
    """By that clock each token is good on its arrival and has expired a few seconds later: it is refreshed."""
    outcome = simulate(2_000_474, kind="expired on arrival")
    assert outcome.violation is None, outcome.trace
    assert outcome.token_requests > 100


def test_a_record_that_is_changed_after_it_was_read_is_noticed() -> None:
    with parsed_once() as unchanged:
        record = _record.parse('{"access_token": "at", "scope": ["read"]}')
        assert _record.parse('{"access_token": "at", "scope": ["read"]}') is record
        assert unchanged()
        assert record.token is not None
        record.token.extra["scope"].append("write")
        assert not unchanged()


def test_the_command_finds_nothing_and_says_what_it_saw() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--from", "10", "--seeds", "20"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "20 seeds" in done.stdout
    assert "token requests" in done.stdout


def test_the_command_prints_the_first_seed_that_fails_and_its_trace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    claim_not_fenced(monkeypatch)
    monkeypatch.setattr(sys, "argv", ["simulate", "--kind", "faults"])
    assert command.main() == 1
    said = capsys.readouterr().out
    seed = said.rpartition("--seed ")[2].split()[0]
    monkeypatch.setattr(sys, "argv", ["simulate", "--seed", seed, "--trace"])
    assert command.main() == 1
    trace = capsys.readouterr().out
    assert trace.startswith(f"seed {seed}\n")
    assert "VIOLATION: " in trace
    monkeypatch.setattr(sys, "argv", ["simulate", "--seed", seed])
    assert command.main() == 1
    assert capsys.readouterr().out in trace.partition("VIOLATION: ")[2]
    monkeypatch.undo()
    monkeypatch.setattr(sys, "argv", ["simulate", "--seed", seed])
    assert command.main() == 0
