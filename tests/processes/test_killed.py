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
"""The `refresh_timeout` of the workers that are killed, in seconds; a call of a store may take half of it.

Where no lock tells that the worker has died, others wait for 1.5 times this.
"""

PATIENT = 20.0
"""The `refresh_timeout` of the other workers; and of the killed ones where a lock tells at once that they have died."""


def has_lock(slot: Slot) -> bool:
    """Whether the slot's store has a lock that ends with the process that holds it."""
    return slot.url.startswith("file:")


def timeout_of(slot: Slot) -> float:
    """Return the `refresh_timeout` of the workers that are killed."""
    return PATIENT if has_lock(slot) else TIMEOUT


def kill_the_claimant(server: RunningServer, fleet: Fleet, worker: Worker, witness: Worker) -> None:
    """Kill `worker` once the server has answered its refresh, which `witness` waits for or is about to need."""
    worker.warm_up()
    witness.warm_up()
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
        # A claim is judged by its owner's timeout, so those who wait for it may have a longer one.
        patience = 1.5 * timeout_of(slot)
        killed = {"refresh_timeout": timeout_of(slot), "reuse_grace": 60.0}
        worker, witness = fleet.worker(**killed), fleet.worker(reuse_grace=60.0)
        for number in range(rounds):
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
        # With a lock, others know at once that the claimant has died. Without one, they wait until its claim is
        # abandoned, by its owner's timeout and not by their own. The median allows for a busy machine.
        assert sorted(waits)[len(waits) // 2] < 1.5 * PATIENT
        if not has_lock(slot):
            assert min(waits) >= patience


def test_where_it_is_not_the_attempt_is_made_once_and_the_interruption_is_named(slot: Slot) -> None:
    with running_server() as server, Fleet(server, slot) as fleet:
        slot.fill(server.token)
        worker = fleet.worker(refresh_timeout=timeout_of(slot))
        witness, third = fleet.worker(), fleet.worker()
        kill_the_claimant(server, fleet, worker, witness)
        answer = witness.answer()
        assert answer["ends"] == {"ReauthorizationRequired": 5}
        (said,) = answer["said"]
        assert "had been interrupted" in said
        assert f":{worker.pid} " in said
        third.ask(5)
        assert third.answer() == answer
        assert server.stats()["token_requests"] == 2
