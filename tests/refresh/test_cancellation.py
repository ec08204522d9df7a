"""Rule 4: cancelling a caller in any way loses no token, does not delay that caller, and affects no other."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from httpx_refresh import RefreshAuth, RefreshUnavailable, StoreError, Token
from httpx_refresh.testing import Gate
from tests.fakes import Endpoint, Store, claims, loop_wall, no_write, results, use_loop_time

# -- the ways to cancel a caller -------------------------------------------------------------------


async def _cancel(caller: Callable[[], Coroutine[Any, Any, Any]], arrived: Gate) -> None:
    task = asyncio.ensure_future(caller())
    await arrived.arrived()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _wait_for(caller: Callable[[], Coroutine[Any, Any, Any]], arrived: Gate) -> None:
    task = asyncio.ensure_future(asyncio.wait_for(caller(), 0.01))
    await arrived.arrived()
    with pytest.raises(asyncio.TimeoutError):
        await task


async def _timeout(caller: Callable[[], Coroutine[Any, Any, Any]], arrived: Gate) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):  # type: ignore[attr-defined,unused-ignore]  # from Python 3.11 on
            await caller()


async def _sibling(caller: Callable[[], Coroutine[Any, Any, Any]], arrived: Gate) -> None:
    async def fail() -> None:
        await arrived.arrived()
        raise KeyError("sibling")

    async def family() -> None:
        async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined,unused-ignore]  # from Python 3.11 on
            group.create_task(caller())
            group.create_task(fail())

    with pytest.raises(BaseExceptionGroup) as caught:  # type: ignore[name-defined,unused-ignore]  # noqa: F821  # from Python 3.11 on
        await family()
    assert [type(one) for one in caught.value.exceptions] == [KeyError]


async def _scope(caller: Callable[[], Coroutine[Any, Any, Any]], arrived: Gate) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(caller)
        await arrived.arrived()
        group.cancel_scope.cancel()


async def _deadline(caller: Callable[[], Coroutine[Any, Any, Any]], arrived: Gate) -> None:
    with pytest.raises(TimeoutError), anyio.fail_after(0.01):
        await caller()


WAYS = {
    "asyncio": [_cancel, _wait_for, *([_timeout, _sibling] if sys.version_info >= (3, 11) else [])],
    "any": [_scope, _deadline],
}


@pytest.mark.anyio
@pytest.mark.parametrize("way", WAYS["any"] + WAYS["asyncio"])
@pytest.mark.parametrize("stage", ["claiming", "asking", "saving"])
async def test_a_cancelled_caller_is_let_go_at_once_and_the_pair_is_saved(
    way: Callable[..., Awaitable[None]], stage: str, anyio_backend_name: str
) -> None:
    if way in WAYS["asyncio"] and anyio_backend_name != "asyncio":
        pytest.skip("a way of cancelling that trio does not have")
    endpoint = Endpoint()
    store = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store)
    gate = store.gate
    if stage == "asking":
        endpoint.gate = gate
    else:
        store.holds = claims if stage == "claiming" else results
    await way(auth.token, gate)
    await gate.arrived()
    gate.release()  # The flight is still held, so nobody waited for it.
    await auth.aclose()
    assert store.record.token == await auth.token()
    assert (store.record.generation, endpoint.asked) == (1, ["SECRET-r0"])


@pytest.mark.anyio
async def test_a_cancelled_leader_hurts_none_of_its_ten_followers() -> None:
    endpoint = Endpoint()
    endpoint.gate = gate = Gate()
    store = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store)
    got: list[Token] = []

    async def call(scope: anyio.CancelScope) -> None:
        with scope:
            got.append(await auth.token())

    scopes = [anyio.CancelScope() for _ in range(11)]
    async with anyio.create_task_group() as group:
        group.start_soon(call, scopes[0])
        await gate.arrived()
        for scope in scopes[1:]:
            group.start_soon(call, scope)
        await anyio.wait_all_tasks_blocked()
        scopes[0].cancel()
        gate.release()
    assert scopes[0].cancelled_caught
    assert got == [store.record.token] * 10
    assert endpoint.asked == ["SECRET-r0"]


@pytest.mark.anyio
async def test_cancelled_followers_hurt_neither_the_leader_nor_each_other() -> None:
    endpoint = Endpoint()
    endpoint.gate = gate = Gate()
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=-1)))
    got: list[Token] = []

    async def call(scope: anyio.CancelScope) -> None:
        with scope:
            got.append(await auth.token())

    scopes = [anyio.CancelScope() for _ in range(11)]
    async with anyio.create_task_group() as group:
        for scope in scopes:
            group.start_soon(call, scope)
        await gate.arrived()
        for scope in scopes[1::2]:
            scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert [scope.cancelled_caught for scope in scopes] == [False, True] * 5 + [False]
        gate.release()
    assert [one.access_token for one in got] == ["SECRET-a1"] * 6
    assert endpoint.asked == ["SECRET-r0"]


class _Fragile(Store):
    """A store whose load waits for a future that only the waiting task keeps alive."""

    pending: weakref.ref[asyncio.Future[None]] | None = None

    async def load(self) -> str | None:
        future = asyncio.get_running_loop().create_future()
        self.pending = weakref.ref(future)
        await future
        return await super().load()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_flight_outlives_its_caller_and_its_refresh_auth() -> None:
    endpoint = Endpoint()
    store = _Fragile(endpoint.text(expires_in=-1))
    store.holds = results
    caller = asyncio.create_task(RefreshAuth(endpoint, store).token())
    while store.pending is None:
        await checkpoint()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    del caller
    gc.collect()
    assert store.pending is not None
    future = store.pending()
    assert future is not None, "the flight was collected"
    future.set_result(None)
    await store.gate.arrived()
    store.gate.release()
    assert (store.record.generation, endpoint.asked) == (1, ["SECRET-r0"])


# -- the end of the event loop ---------------------------------------------------------------------


def _guard() -> asyncio.Task[Any]:
    (guard,) = [one for one in asyncio.all_tasks() if one.get_name() == "httpx-refresh guard"]
    return guard


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_what_lists_all_tasks_can_ask_a_guard_what_it_asks_a_task(
    capsys: pytest.CaptureFixture[str],
) -> None:
    endpoint = Endpoint()
    endpoint.gate = gate = Gate()
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=-1)))
    caller = asyncio.create_task(auth.token())
    await gate.arrived()
    guard = _guard()
    assert inspect.iscoroutine(guard.get_coro())
    guard.print_stack(file=sys.stdout)
    assert "httpx_refresh" in capsys.readouterr().out
    assert not guard.done()
    gate.release()
    await caller
    await asyncio.wait([guard])
    assert (guard.cancelled(), guard.exception()) == (False, None)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_who_waits_for_a_refresh_that_is_cancelled_before_its_first_step_is_told_so() -> None:
    """Somebody has cancelled all tasks of the event loop but the waiter's."""
    endpoint = Endpoint()
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=-1)))
    caller = asyncio.create_task(auth.token())
    await asyncio.sleep(0)
    _guard().cancel()
    with anyio.fail_after(60), pytest.raises(RefreshUnavailable, match="loop ended") as caught:
        await caller
    assert (caught.value.outcome, endpoint.asked) == ("not_sent", [])
    assert (await auth.token()).access_token == "SECRET-a1"


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
@pytest.mark.parametrize("when", ["at the first save", "while it is tried again"])
async def test_a_pair_is_handed_over_when_the_loop_ends_and_the_store_fails(when: str) -> None:
    endpoint = Endpoint()
    store = Store(endpoint.text(expires_in=-1))
    unsaved: list[Token] = []

    async def keep(token: Token) -> None:
        await asyncio.sleep(0)
        unsaved.append(token)

    auth = RefreshAuth(endpoint, store, on_unsaved=keep)
    store.fails = results
    if when == "at the first save":
        store.delays = results
    caller = asyncio.create_task(auth.token())
    await (store.gate.arrived() if when == "at the first save" else asyncio.wait([caller]))
    guard = _guard()
    guard.cancel()
    store.gate.release()
    assert (await caller).access_token == "SECRET-a1"
    await asyncio.wait([guard])
    assert [token.access_token for token in unsaved] == ["SECRET-a1"]
    # An object made at import time goes on in the next loop with the pair in memory, and saves it.
    store.fails = no_write
    assert (await auth.refresh()).access_token == "SECRET-a2"
    assert endpoint.asked == ["SECRET-r0", "SECRET-r1"]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_what_can_be_saved_as_the_loop_ends_is_saved_and_not_handed_over() -> None:
    endpoint = Endpoint()
    store = Store(endpoint.text(expires_in=-1))
    store.fails = results
    unsaved: list[Token] = []
    auth = RefreshAuth(endpoint, store, on_unsaved=unsaved.append)
    token = await auth.token()
    store.fails = no_write
    guard = _guard()
    guard.cancel()
    await asyncio.wait([guard])
    assert (store.record.token, unsaved) == (token, [])


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio+virtual"], indirect=True)
@pytest.mark.parametrize("stage", ["claiming", "saving"])
async def test_a_store_that_hangs_holds_an_ending_loop_no_longer_than_refresh_timeout(
    stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_loop_time(monkeypatch)
    endpoint = Endpoint(clock=loop_wall)
    store = Store(endpoint.text(expires_in=-1))
    unsaved: list[Token] = []
    auth = RefreshAuth(endpoint, store, refresh_timeout=10.0, on_unsaved=unsaved.append)
    store.delays = claims if stage == "claiming" else results
    caller = asyncio.create_task(auth.token())
    await store.gate.arrived()
    before = anyio.current_time()
    guard = _guard()
    guard.cancel()
    await asyncio.wait([guard])
    assert anyio.current_time() - before <= 10
    store.delays = no_write
    if stage == "claiming":
        with pytest.raises(StoreError, match="no answer within 5 s"):
            await caller
        assert (endpoint.asked, unsaved) == ([], [])
        assert (await auth.refresh()).access_token == "SECRET-a1"
    else:
        assert [await caller] == unsaved
        # This process knows that the claim that still stands has no owner any more.
        assert (await auth.refresh()).access_token == "SECRET-a2"
    assert anyio.current_time() - before <= 11
