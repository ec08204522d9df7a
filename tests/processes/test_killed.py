"""The process that refreshes is killed after the server rotated the token and before it could save the new one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from httpx_refresh.testing import Answer, Gate, RunningServer, TokenEvent, running_server
from tests.processes import conftest
from tests.processes.fleet import Fleet, Worker

if TYPE_CHECKING:
    from tests.processes.stores import Slot

# The quick verdict has the backends that need no server.
BACKENDS = [
    pytest.param(backend, marks=[] if backend.endswith("_url") else [pytest.mark.sample])
    for backend in conftest.BACKENDS
]

TIMEOUT = 4.0
"""The `refresh_timeout` of the workers that are killed, in seconds: half of it is the time for each call of a store."""

PATIENT = 20.0
"""That of the others."""


def kill_the_claimant(server: RunningServer, fleet: Fleet, worker: Worker, witness: Worker) -> None:
    """Let `worker` begin a refresh, `witness` wait for it, and kill `worker` when the server has done its work."""
    gate = Gate()
    server.expire()
    server.script(Answer(gate=gate))
    worker.ask(5)
    server.arrived(gate)
    witness.ask(5)
    fleet.kill(worker)
    server.release(gate)


@pytest.mark.parametrize("slot", BACKENDS, indirect=True)
def test_where_reuse_is_forgiven_the_callers_of_others_see_nothing_but_a_delay(
    slot: Slot, rounds: int
) -> None:
    with running_server(reuse_grace=60.0) as server, Fleet(server, slot) as fleet:
        slot.fill(server.token)
        is_file = slot.url.startswith("file:")
        # How long a claim is good is its owner's affair: who waits for it has more time.
        patience = 1.5 * (PATIENT if is_file else TIMEOUT)
        killed = {"refresh_timeout": patience / 1.5, "reuse_grace": 60.0}
        worker, witness = fleet.worker(**killed), fleet.worker(reuse_grace=60.0)
        for number in range(rounds):
            worker.wait_until_ready()
            witness.wait_until_ready()
            slot.rest()
            kill_the_claimant(server, fleet, worker, witness)
            worker = fleet.worker(**killed)
            assert witness.answer()["ends"] == {"200": 5}
            assert slot.notes() == {"generation": number + 1}
        requests = [event for event in server.events() if isinstance(event, TokenEvent)]
        assert [event.outcome for event in requests] == ["issued", "reissued"] * rounds
        waits = [
            second.at - first.at
            for first, second in zip(requests[::2], requests[1::2], strict=True)
        ]
        if is_file:
            # The lock that the claimant held tells at once that it has died.
            assert sorted(waits)[len(waits) // 2] < patience
        else:
            # Not sooner than a live claim may still be in use, and not later than the claim is known to be abandoned,
            # and a poll; that, and not what would be the patience with the witness's own claim. The rest is a busy
            # machine's.
            assert min(waits) >= patience
            assert sorted(waits)[len(waits) // 2] < 1.5 * PATIENT


def test_where_it_is_not_the_attempt_is_made_once_and_the_interruption_is_named(slot: Slot) -> None:
    with running_server() as server, Fleet(server, slot) as fleet:
        slot.fill(server.token)
        worker = fleet.worker(refresh_timeout=TIMEOUT)
        witness, third = fleet.worker(), fleet.worker()
        witness.wait_until_ready()
        kill_the_claimant(server, fleet, worker, witness)
        answer = witness.answer()
        assert answer["ends"] == {"ReauthorizationRequired": 5}
        (said,) = answer["said"]
        assert "had been interrupted" in said
        assert f":{worker.pid} " in said
        third.ask(5)
        assert third.answer() == answer
        assert server.stats()["token_requests"] == 2
