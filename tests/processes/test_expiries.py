"""Eight processes, twenty-five callers in each, one token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from httpx_refresh.testing import running_server
from tests.processes.fleet import Fleet

if TYPE_CHECKING:
    from tests.processes.stores import Slot


def test_five_expiries_cost_five_token_requests(slot: Slot) -> None:
    with running_server() as server, Fleet(server, slot) as fleet:
        slot.fill(server.token)
        workers = [fleet.worker() for _ in range(8)]
        for _ in range(5):
            server.expire()
            for worker in workers:
                worker.ask(25)
            assert [worker.answer()["ends"] for worker in workers] == [{"200": 25}] * 8
        assert server.stats()["token_requests"] == 5
        assert slot.notes() == {"generation": 5}


def test_a_service_that_starts_from_nothing_makes_one_token_request_an_expiry(slot: Slot) -> None:
    with running_server() as server, Fleet(server, slot) as fleet:
        workers = [fleet.worker(service=True) for _ in range(8)]
        for number in range(1, 6):
            for worker in workers:
                worker.ask(25)
            assert [worker.answer()["ends"] for worker in workers] == [{"200": 25}] * 8
            assert server.stats()["token_requests"] == number
            server.expire()
        assert slot.notes() == {"generation": 5}
