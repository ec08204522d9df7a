"""Rule 4, swept: whatever is cancelled after whichever step, the pair is never lost, nor spent twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio
import pytest
import trio

from httpx_refresh import RefreshAuth, RefreshUnavailable
from tests.fakes import Endpoint, Store
from tests.refresh.stepping import Steps


def sweep(run: Callable[[int], Steps]) -> int:
    """Run with 1, 2, 3, ... until a run ends before its step is reached; return how many did not."""
    at = 1
    while run(at).reached:
        at += 1
    return at - 1


def assert_nothing_is_lost(endpoint: Endpoint, store: Store) -> None:
    """The store holds the newest pair, or says that it may not be; and nothing stays claimed."""
    record = store.record
    assert record.token is not None
    assert record.redeeming is None
    assert endpoint.asked in ([], ["SECRET-r0"])
    if record.uncertain is None:
        assert record.token.refresh_token == endpoint.current.refresh_token
        assert record.generation == endpoint.issued
    else:
        assert record.token.refresh_token == "SECRET-r0"
        assert record.generation == 0


def _cancel_tasks(name: str) -> None:
    for task in asyncio.all_tasks():
        if task.get_name() == name:
            task.cancel()


def test_asyncio_a_caller_is_cancelled_after_every_single_step() -> None:
    def run(at: int) -> Steps:
        endpoint = Endpoint()
        store = Store(endpoint.text(expires_in=-1))
        auth = RefreshAuth(endpoint, store)
        steps = Steps(at, lambda: _cancel_tasks("caller"))

        async def main() -> None:
            caller = asyncio.create_task(auth.token(), name="caller")
            follower = asyncio.create_task(auth.token())
            await asyncio.wait([caller])
            token = await follower
            assert token.access_token == "SECRET-a1"
            await auth.aclose()

        steps.asyncio_run(main)
        assert_nothing_is_lost(endpoint, store)
        assert (endpoint.asked, store.record.generation) == (["SECRET-r0"], 1)
        return steps

    assert sweep(run) > 10


def test_asyncio_the_flight_itself_is_cancelled_after_every_single_step() -> None:
    outcomes = set()

    def run(at: int) -> Steps:
        endpoint = Endpoint()
        store = Store(endpoint.text(expires_in=-1))
        auth = RefreshAuth(endpoint, store)
        steps = Steps(at, lambda: _cancel_tasks("httpx-refresh"))

        async def main() -> None:
            caller = asyncio.create_task(auth.token())
            with anyio.fail_after(5):  # What hangs fails: a waiter that nobody wakes.
                await asyncio.wait([caller])
                await auth.aclose()
            error = caller.exception()
            assert error is None or isinstance(error, RefreshUnavailable)
            outcomes.add(None if error is None else error.outcome)

        steps.asyncio_run(main)
        assert_nothing_is_lost(endpoint, store)
        return steps

    assert sweep(run) > 10
    assert outcomes == {None, "not_sent", "unknown"}


@pytest.mark.parametrize("closing", [False, True], ids=["plain", "async with"])
def test_asyncio_run_ends_after_every_single_step(closing: bool) -> None:
    ends = set()

    def run(at: int) -> Steps:
        endpoint = Endpoint()
        store = Store(endpoint.text(expires_in=-1))
        auth = RefreshAuth(endpoint, store)
        stop: list[asyncio.Event] = []
        steps = Steps(at, lambda: stop[0].set())

        async def call() -> None:
            if closing:
                async with auth:
                    await auth.token()
            else:
                await auth.token()

        async def main() -> None:
            stop.append(asyncio.Event())
            caller = asyncio.create_task(call())
            ended = asyncio.create_task(stop[0].wait())
            await asyncio.wait([caller, ended], return_when=asyncio.FIRST_COMPLETED)

        steps.asyncio_run(main)
        assert_nothing_is_lost(endpoint, store)
        assert not auth._session._flights
        ends.add((store.record.generation, store.record.uncertain is not None))
        return steps

    assert sweep(run) > 10
    assert ends == {(0, False), (0, True), (1, False)}


def test_trio_a_caller_is_cancelled_after_every_single_step() -> None:
    def run(at: int) -> Steps:
        endpoint = Endpoint()
        store = Store(endpoint.text(expires_in=-1))
        auth = RefreshAuth(endpoint, store)
        scope = trio.CancelScope()
        steps = Steps(at, scope.cancel)

        async def call() -> None:
            with scope:
                await auth.token()

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call)
                assert (await auth.token()).access_token == "SECRET-a1"
            await auth.aclose()

        steps.trio_run(main)
        assert_nothing_is_lost(endpoint, store)
        assert (endpoint.asked, store.record.generation) == (["SECRET-r0"], 1)
        return steps

    assert sweep(run) > 10


@pytest.mark.parametrize("closing", [False, True], ids=["plain", "async with"])
def test_trio_run_ends_after_every_single_step(closing: bool) -> None:
    ends = set()

    def run(at: int) -> Steps:
        endpoint = Endpoint()
        store = Store(endpoint.text(expires_in=-1))
        auth = RefreshAuth(endpoint, store)
        scope = trio.CancelScope()
        steps = Steps(at, scope.cancel)

        async def main() -> None:
            with scope:
                if closing:
                    async with auth:
                        await auth.token()
                else:
                    await auth.token()

        steps.trio_run(main)
        assert_nothing_is_lost(endpoint, store)
        assert not auth._session._flights
        ends.add((store.record.generation, store.record.uncertain is not None))
        return steps

    assert sweep(run) > 10
    assert ends == {(0, False), (0, True), (1, False)}
