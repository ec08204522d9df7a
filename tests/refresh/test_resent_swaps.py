"""A store's client that repeats a swap because the first answer was lost gets False, although the first swap won."""

from __future__ import annotations

import anyio
import pytest

from httpx_refresh import RefreshAuth
from httpx_refresh._refresh.record import Record
from tests.fakes import Endpoint, Store, Writes, claims, loop_wall, results
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.usefixtures("loop_time")


class ResendingStore(Store):
    """Returns False for the first write that `resends` picks, although it was done."""

    def __init__(self, text: str, resends: Writes) -> None:
        super().__init__(text)
        self.resends = resends

    async def replace(self, old: str | None, new: str) -> bool:
        won = await super().replace(old, new)
        if won and self.resends(self.record):
            self.resends = _none
            return False
        return won


def _none(_: Record) -> bool:
    return False


@pytest.mark.parametrize("resends", [claims, results], ids=["claim", "result"])
@pytest.mark.anyio
@virtual_time
async def test_a_swap_that_was_won_and_called_lost_costs_a_poll_at_most(resends: Writes) -> None:
    endpoint = Endpoint(clock=loop_wall)
    store = ResendingStore(endpoint.text(expires_in=-1), resends)
    auth = RefreshAuth(endpoint, store)
    before = anyio.current_time()
    assert (await auth.token()).access_token == "SECRET-a1"
    assert anyio.current_time() - before < 0.1
    assert endpoint.asked == ["SECRET-r0"]
    assert (store.record.generation, store.record.uncertain, store.record.redeeming) == (
        1,
        None,
        None,
    )
