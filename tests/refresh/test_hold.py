"""A store with an operating system's lock beside the claim: a process that gets it knows that the owner has died."""

from __future__ import annotations

import socket
import sys

import anyio
import pytest

from httpx_refresh import RefreshAuth, StoreError
from httpx_refresh._refresh import host, slot
from httpx_refresh._refresh.host import THIS_HOST
from tests.fakes import Endpoint, Store, loop_wall, refreshing, results
from tests.virtual_time import virtual_time

pytestmark = [pytest.mark.anyio, virtual_time, pytest.mark.usefixtures("loop_time")]


class Holding(Store):
    """Another process holds its lock while `taken`; `released` counts the releases."""

    taken = False
    held = False
    released = 0
    broken = False

    @property
    def is_first(self) -> bool:
        return False

    async def hold(self) -> Holding | None:
        if self.broken:
            raise OSError("no locks here")
        if self.taken or self.held:
            return None
        self.held = True
        return self

    def release(self) -> None:
        self.held = False
        self.released += 1


def _claimed(held: object = THIS_HOST.machine()) -> tuple[Endpoint, Holding]:
    endpoint = Endpoint(clock=loop_wall)
    claim = {"by": "here:1", "nonce": "n", "since": loop_wall(), "for": 20.0, "held": held}
    return endpoint, Holding(endpoint.text(expires_in=-1, redeeming=claim))


async def test_the_claim_of_a_dead_process_is_taken_over_at_once() -> None:
    endpoint, store = _claimed()
    before = anyio.current_time()
    assert (await RefreshAuth(endpoint, store).token()).access_token == "SECRET-a1"
    assert anyio.current_time() == before
    assert store.written[0].uncertain is not None  # It is not known how far it came.
    assert (store.held, store.released) == (False, 1)


async def test_the_claim_of_a_living_process_is_waited_for() -> None:
    endpoint, store = _claimed()
    store.taken = True
    auth = RefreshAuth(endpoint, store)
    async with anyio.create_task_group() as group:
        group.start_soon(auth.token)
        await anyio.sleep(5)
        assert endpoint.asked == []
        store.taken = False
    assert (await auth.token()).access_token == "SECRET-a1"
    assert not store.held


@pytest.mark.parametrize("held", ["another machine's boot", True, None])
async def test_a_lock_that_is_free_here_proves_no_death_on_another_machine(held: object) -> None:
    """On a mount whose locks do not reach the other host, its live owner would be taken for dead."""
    endpoint, store = _claimed(held)
    before = anyio.current_time()
    auth = RefreshAuth(endpoint, store)
    async with anyio.create_task_group() as group:
        group.start_soon(auth.token)
        await anyio.sleep(29.9)
        assert (endpoint.asked, store.released) == ([], 0)
    assert endpoint.asked == ["SECRET-r0"]  # One and a half times the owner's time have gone by.
    assert anyio.current_time() - before >= 30


async def test_a_machine_has_one_name_for_all_processes_and_else_its_hosts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = "from httpx_refresh._refresh.host import THIS_HOST; print(THIS_HOST.machine())"
    said = await anyio.run_process([sys.executable, "-c", code])
    assert said.stdout.decode().strip() == THIS_HOST.machine() != ""

    def unknown() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(host, "_boot_id", unknown)
    assert THIS_HOST.machine() == socket.gethostname()


@pytest.mark.parametrize(
    "is_new, held", [(True, THIS_HOST.machine()), (False, None), (False, "another machine's")]
)
async def test_a_lock_that_can_be_had_tells_nothing_of_a_claim_whose_owner_never_held_it(
    is_new: bool, held: str | None
) -> None:
    """The lock is a new one, or somebody who holds none that is seen here was faster in claiming the token."""
    endpoint, store = _claimed()

    class Fresh(Holding):
        @property
        def is_first(self) -> bool:
            return is_new

        async def hold(self) -> Holding | None:
            claim = {"by": "here:2", "nonce": "m", "since": loop_wall(), "for": 20.0, "held": held}
            self.text = endpoint.text(expires_in=-1, redeeming=claim)
            return await super().hold()

    there = Fresh(store.text)
    auth = RefreshAuth(endpoint, there)
    async with anyio.create_task_group() as group:
        group.start_soon(auth.token)
        await anyio.sleep(5)
        assert endpoint.asked == []
        there.text = Endpoint(clock=loop_wall).text(expires_in=3600)
    assert (endpoint.asked, there.held) == ([], False)


async def test_a_claim_says_that_a_lock_is_held_and_lets_go_of_it_at_its_end() -> None:
    endpoint = Endpoint(clock=loop_wall)
    store = Holding(endpoint.text(expires_in=-1))
    await RefreshAuth(endpoint, store).token()
    claim = store.written[0].redeeming
    assert claim is not None
    assert claim.held == THIS_HOST.machine()
    assert (store.held, store.released) == (False, 1)
    assert claim.nonce not in slot._holding


async def test_a_store_whose_locks_fail_is_used_without_them() -> None:
    endpoint = Endpoint(clock=loop_wall)
    store = Holding(endpoint.text(expires_in=-1))
    store.broken = True
    assert (await RefreshAuth(endpoint, store).token()).access_token == "SECRET-a1"
    claim = store.written[0].redeeming
    assert claim is not None
    assert claim.held is None


async def test_a_claim_that_cannot_be_written_holds_no_lock() -> None:
    endpoint = Endpoint(clock=loop_wall)
    store = Holding(endpoint.text(expires_in=-1))
    store.fails = lambda _: True
    with pytest.raises(StoreError):
        await RefreshAuth(endpoint, store).token()
    assert (store.held, store.released) == (False, 1)


async def test_a_save_that_is_given_up_lets_go_of_the_lock_beside_its_claim() -> None:
    endpoint = Endpoint(clock=loop_wall)
    store = Holding(endpoint.text(expires_in=-1))
    store.fails = results
    auth = RefreshAuth(endpoint, store)
    await auth.token()
    assert store.held  # It is being saved.
    await auth.aclose()
    assert store.record.redeeming is not None
    assert not store.held  # Others need not wait for a claim without an active owner.


async def test_a_claim_lets_go_of_no_lock_of_a_claim_that_stands() -> None:
    """Two tokens are refreshed at once on one event loop."""
    endpoint, other = Endpoint(clock=loop_wall), Endpoint(clock=loop_wall)
    store, another = (Holding(one.text(expires_in=-1)) for one in (endpoint, other))
    auth = RefreshAuth(endpoint, store)
    async with refreshing(auth, endpoint):
        assert store.held
        await RefreshAuth(other, another).token()
        assert store.held
    assert (store.held, store.released, another.released) == (False, 1, 1)
