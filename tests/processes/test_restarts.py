"""The store's server dies in the middle of a refresh, and comes back."""

from __future__ import annotations

import secrets
from functools import partial
from typing import TYPE_CHECKING

import pytest

from httpx_refresh.testing import Answer, Gate, running_server
from tests.processes import servers
from tests.processes.fleet import Fleet, wait_until
from tests.processes.stores import Slot

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager


@pytest.mark.parametrize("start", [servers.redis, servers.postgres, servers.mariadb])
def test_the_new_token_is_served_while_the_store_is_down_and_saved_when_it_is_back(
    start: Callable[[], AbstractContextManager[servers.Restartable]], rounds: int
) -> None:
    with start() as store, running_server() as server:
        slot = Slot(store.url, secrets.token_hex(8))
        slot.fill(server.token)
        with Fleet(server, slot) as fleet:
            worker, other = fleet.worker(), fleet.worker()
            for number in range(rounds):
                gate = Gate()
                slot.rest()
                server.expire()
                server.script(Answer(gate=gate))
                worker.ask(5)
                server.arrived(gate)
                assert slot.notes()["redeeming"]["by"].endswith(f":{worker.pid}")
                store.kill()
                server.release(gate)
                assert worker.answer()["ends"] == {"200": 5}
                store.start()
                wait_until(partial(_holds, slot, number + 1))
                # Its old connections are broken: each fails one load, and the next request loads again.
                wait_until(partial(other.served, 1))
                assert server.stats()["token_requests"] == number + 1


def _holds(slot: Slot, generation: int) -> bool:
    return slot.notes() == {"generation": generation}
