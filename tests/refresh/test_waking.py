"""Waits for another process: the cost of polls, and the effect of a store's `changed`."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from httpx_refresh import MemoryStore, RefreshAuth
from httpx_refresh._refresh.host import Host
from httpx_refresh._refresh.pauses import Polls
from httpx_refresh.stores.encrypted import EncryptedStore, generate_key
from tests.fakes import Endpoint, Store, loop_wall, results
from tests.virtual_time import virtual_time

pytestmark = [pytest.mark.anyio, virtual_time, pytest.mark.usefixtures("loop_time")]


class Waking(Store):
    """A store whose `changed` does what the test says."""

    def __init__(self, text: str, changed: Callable[[str | None], Awaitable[None]]) -> None:
        super().__init__(text)
        self.calls = 0
        self.open = 0
        self._wakes = changed

    async def changed(self, old: str | None) -> None:
        self.calls += 1
        self.open += 1
        try:
            await self._wakes(old)
        finally:
            self.open -= 1


class Pair:
    """One process that refreshes for `seconds`, and another that waits for it."""

    def __init__(self, changed: Callable[[str | None], Awaitable[None]] | None = None) -> None:
        self.endpoint = Endpoint(clock=loop_wall)
        text = self.endpoint.text(expires_in=-1)
        self.store = Store(text) if changed is None else Waking(text, changed)
        self.looks = 0
        self.late = math.inf

    async def run(self, seconds: float) -> None:
        """Run both; `late` is the time from the save until the second has the token, `looks` counts its loads."""
        endpoint, store, saved = self.endpoint, self.store, 0.0
        claimed = anyio.Event()

        async def refresh(token: Any) -> Any:
            claimed.set()
            await anyio.sleep(seconds)
            return await Endpoint.refresh(endpoint, token)

        endpoint.refresh = refresh  # type: ignore[method-assign]  # it takes its time

        async def first() -> None:
            nonlocal saved
            await RefreshAuth(endpoint, store).token()
            saved = anyio.current_time()

        async def second() -> None:
            await claimed.wait()
            before = store.loads
            assert (await RefreshAuth(endpoint, store).token()).access_token == "SECRET-a1"
            self.late = anyio.current_time() - saved
            self.looks = store.loads - before

        async with anyio.create_task_group() as group:
            group.start_soon(first)
            group.start_soon(second)
        assert endpoint.asked == ["SECRET-r0"]


@pytest.mark.parametrize("seconds", [0.05, 0.3, 1.0, 2.0, 8.0])
async def test_whoever_waits_has_the_token_a_tenth_of_the_refresh_later_at_most(
    seconds: float,
) -> None:
    it = Pair()
    await it.run(seconds)
    assert it.late <= min(0.1 * seconds, 0.25) + 0.02


@pytest.mark.parametrize("seconds, looks", [(0.05, 9), (0.3, 28), (1.0, 42), (8.0, 85)])
async def test_what_a_wait_costs_is_bounded(seconds: float, looks: int) -> None:
    it = Pair()
    await it.run(seconds)
    assert it.looks <= looks


@pytest.mark.parametrize("size", [50, pytest.param(300, marks=pytest.mark.size)])
async def test_a_fleet_that_waits_a_second_looks_so_often(size: int) -> None:
    """The limit for one process times their number; a refresh ahead of expiry causes no loads."""
    endpoint = Endpoint(clock=loop_wall)
    store = Store(endpoint.text(expires_in=-1))
    claimed = anyio.Event()

    async def refresh(token: Any) -> Any:
        claimed.set()
        await anyio.sleep(1.0)
        return await Endpoint.refresh(endpoint, token)

    endpoint.refresh = refresh  # type: ignore[method-assign]  # it takes its time
    fleet = [RefreshAuth(endpoint, store, refresh_before=300) for _ in range(size)]
    async with anyio.create_task_group() as group:
        group.start_soon(fleet[0].token)
        await claimed.wait()
        store.loads = 0
        for auth in fleet[1:]:
            group.start_soon(auth.token)
    assert store.loads / size <= 42
    assert endpoint.asked == ["SECRET-r0"]
    # Each acts by its own clock and loads once; nobody waits for a faster one.
    await anyio.sleep(3600 - 250)
    store.loads = 0
    for auth in fleet:
        await auth.token()
    await anyio.sleep(20)
    assert store.loads <= 2.2 * size
    assert len(endpoint.asked) == 2


async def test_polls_are_a_tenth_of_what_was_waited_between_ten_milliseconds_and_a_quarter() -> (
    None
):
    polls = Polls(Host())
    waited, pauses = 0.0, []
    while waited < 10:
        pause = polls.next()
        assert 0.8 * max(0.01, min(waited / 10, 0.25)) - 1e-9 <= pause
        assert pause <= max(0.01, min(waited / 10, 0.25)) + 1e-9
        pauses.append(pause)
        await anyio.sleep(pause)
        waited += pause
    assert len(set(pauses)) > len(pauses) / 2


async def _soon(store: list[Waking], old: str | None) -> None:
    while store[0].text == old:  # noqa: ASYNC110 - the text is plain data, as in a database
        await anyio.sleep(0.002)


async def test_a_store_that_tells_of_a_change_shortens_the_wait() -> None:
    stores: list[Waking] = []
    it = Pair(lambda old: _soon(stores, old))
    assert isinstance(it.store, Waking)
    stores.append(it.store)
    await it.run(8.0)
    assert it.late <= 0.01
    assert it.store.open == 0


async def _at_once(old: str | None) -> None:
    return


async def _never(old: str | None) -> None:
    await anyio.sleep_forever()


async def _raises(old: str | None) -> None:
    await anyio.sleep(0.05)
    raise OSError("SECRET")


async def _exits(old: str | None) -> None:
    raise SystemExit


@pytest.mark.parametrize("changed", [_at_once, _never, _raises, _exits])
async def test_what_changed_does_wrong_costs_a_look_or_two_and_no_token(
    changed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    it = Pair(changed)
    await it.run(1.0)
    assert it.late <= 0.12
    assert it.looks <= 45
    assert isinstance(it.store, Waking)
    assert it.store.calls <= 2
    assert it.store.open == 0
    said = [one for one in caplog.messages if "changed()" in one]
    assert len(said) == (1 if changed in (_raises, _exits) else 0)
    assert "SECRET" not in caplog.text


async def test_a_changed_that_does_not_heed_its_cancellation_is_told_once_and_called_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    end = anyio.Event()

    async def stubborn(old: str | None) -> None:
        with anyio.CancelScope(shield=True):
            while not end.is_set():
                with contextlib.suppress(anyio.get_cancelled_exc_class()):
                    await end.wait()

    it = Pair(stubborn)
    assert isinstance(it.store, Waking)
    it.endpoint.lifetime = 10.0
    auth = RefreshAuth(it.endpoint, it.store, refresh_before=0)
    for number in range(2):
        claim = {"by": "x", "nonce": f"n{number}", "since": loop_wall(), "for": 0.5}
        it.store.text = it.endpoint.text(expires_in=-1, redeeming=claim)
        auth._session.credential = None
        await auth.token()
    assert it.store.calls == 1
    assert len([one for one in caplog.messages if "changed()" in one]) == 1
    end.set()
    await anyio.sleep(0.1)


class _Inner(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str | None] = []

    async def changed(self, old: str | None) -> None:
        self.asked.append(old)
        if await self.load() == old:
            await anyio.sleep_forever()


async def test_an_encrypted_store_passes_changes_through() -> None:
    inner = _Inner()
    store = EncryptedStore(inner, [generate_key()], slot="one")
    assert not hasattr(EncryptedStore(MemoryStore(), [generate_key()], slot="one"), "changed")
    assert await store.replace(None, "text")
    with anyio.move_on_after(0) as scope:
        await store.changed("text")
    assert scope.cancelled_caught
    assert inner.asked == [await inner.load()]
    await store.changed("another")


async def test_a_wait_ends_with_its_flight_and_leaves_no_call() -> None:
    it = Pair(_never)
    assert isinstance(it.store, Waking)
    it.store.holds = results
    claim = {"by": "x", "nonce": "n", "since": loop_wall(), "for": 20.0}
    it.store.text = it.endpoint.text(expires_in=-1, redeeming=claim)
    auth = RefreshAuth(it.endpoint, it.store)
    async with anyio.create_task_group() as group:
        group.start_soon(auth.token)
        await anyio.sleep(1)
        assert it.store.open == 1
        group.cancel_scope.cancel()
    await auth.aclose()
    assert it.store.open == 0


async def test_a_change_that_is_told_while_the_store_is_looked_at_has_it_looked_at_once_more() -> (
    None
):
    told = anyio.Event()

    async def changed(_: str | None) -> None:
        await told.wait()

    class ToldMeanwhile(Waking):
        looked_at: list[float]

        async def load(self) -> str | None:
            self.looked_at.append(anyio.current_time())
            if self.open and len(self.looked_at) > 10:
                told.set()
                for _ in range(10):  # The call ends before the store answers.
                    await anyio.lowlevel.checkpoint()
            return await super().load()

    it = Pair()
    it.store = store = ToldMeanwhile(it.endpoint.text(expires_in=-1), changed)
    store.looked_at = []
    await it.run(2.0)
    pauses = [b - a for a, b in itertools.pairwise(store.looked_at)]
    assert [one for one in pauses[5:] if one < 0.005] == [pytest.approx(0.001, abs=1e-4)]
