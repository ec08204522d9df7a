"""The process that refreshes is stopped past its claim, another takes over, and then the first goes on."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from httpx_refresh.testing import Answer, Gate, running_server
from tests.processes.fleet import Fleet

if TYPE_CHECKING:
    from tests.processes.fleet import Worker
    from tests.processes.stores import Slot

TIMEOUT = 2.0
"""The `refresh_timeout` of the process that is stopped, in seconds: others wait for its claim for 1.5 times this."""


def check_served(worker: Worker, began: float) -> None:
    """Check that all five callers were served; on a busy machine, the others have reached their limit.

    No caller waits longer than twice `refresh_timeout`, and the wait until a claim is abandoned takes 1.5 times it.
    """
    ends = worker.answer()["ends"]
    assert sum(ends.values()) == 5
    in_time = time.monotonic() - began < 2 * TIMEOUT
    assert ends.keys() <= ({"200"} if in_time else {"200", "RefreshUnavailable"})


def test_who_was_stopped_past_its_claim_overwrites_nothing(slot: Slot, rounds: int) -> None:
    with running_server(reuse_grace=60.0) as server, Fleet(server, slot) as fleet:
        slot.fill(server.token)
        # The other process judges the claim by its owner's timeout, and has more time for its own calls.
        stopped = fleet.worker(refresh_timeout=TIMEOUT, reuse_grace=60.0)
        other = fleet.worker(reuse_grace=60.0)
        for worker in (stopped, other):
            worker.warm_up()
        for number in range(rounds):
            gate = Gate()
            slot.rest()
            server.expire()
            server.script(Answer(gate=gate))
            began = time.monotonic()
            stopped.ask(5)
            server.arrived(gate)
            stopped.send(signal.SIGSTOP)
            server.release(gate)
            other.ask(5)
            assert other.answer()["ends"] == {"200": 5}
            taken_over = slot.read()
            stopped.send(signal.SIGCONT)
            # The server's answer comes too late for its claim, so it adopts the other process's token.
            check_served(stopped, began)
            assert slot.read() == taken_over
            # The next expiry costs one request, and both get its token. The process with the longer timeout makes it.
            requests = server.stats()["token_requests"]
            gate = Gate()
            slot.rest()
            server.expire()
            server.script(Answer(gate=gate))
            other.ask(5)
            server.arrived(gate)
            began = time.monotonic()
            stopped.ask(5)
            server.release(gate)
            assert other.answer()["ends"] == {"200": 5}
            check_served(stopped, began)
            assert server.stats()["token_requests"] == requests + 1
            assert slot.notes() == {"generation": 2 * number + 2}
