"""The process that refreshes is stopped past its claim, another takes over, and then the first goes on."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from httpx_refresh.testing import Answer, Gate, running_server
from tests.processes.fleet import Fleet

if TYPE_CHECKING:
    from tests.processes.stores import Slot

OPTIONS = {"refresh_timeout": 2.0, "reuse_grace": 60.0}


def test_who_was_stopped_past_its_claim_overwrites_nothing(slot: Slot, rounds: int) -> None:
    with running_server(reuse_grace=60.0) as server, Fleet(server, slot) as fleet:
        slot.fill(server.token)
        stopped, other = fleet.worker(**OPTIONS), fleet.worker(**OPTIONS)
        for number in range(rounds):
            gate = Gate()
            slot.rest()
            server.expire()
            server.script(Answer(gate=gate))
            other.wait_until_ready()
            stopped.ask(5)
            server.arrived(gate)
            stopped.send(signal.SIGSTOP)
            server.release(gate)
            other.ask(5)
            assert other.answer()["ends"] == {"200": 5}
            taken_over = slot.read()
            stopped.send(signal.SIGCONT)
            # The answer that waits for it is too old to count, but there is the token of the other.
            assert stopped.answer()["ends"] == {"200": 5}
            assert slot.read() == taken_over
            # The next expiry works, for both, and costs one request.
            requests = server.stats()["token_requests"]
            slot.rest()
            server.expire()
            for worker in (stopped, other):
                worker.ask(5)
            assert [worker.answer()["ends"] for worker in (stopped, other)] == [{"200": 5}] * 2
            assert server.stats()["token_requests"] == requests + 1
            assert slot.notes() == {"generation": 2 * number + 2}
