"""Rule 4 at every step: after any cancellation or end, the pair is neither lost nor spent twice."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import trio
from trio.testing import MockClock

from httpx_refresh import RefreshAuth, RefreshUnavailable, Token
from httpx_refresh._refresh import host
from tests.fakes import Endpoint, Store, loop_wall, results
from tests.refresh.stepping import Steps
from tests.virtual_time import VirtualTimeLoop


def _uvloop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


ASYNCIO: dict[str, dict[str, Any]] = {"asyncio": {}}
if sys.platform != "win32":
    ASYNCIO["uvloop"] = {"new_loop": _uvloop}
if sys.version_info >= (3, 12):
    ASYNCIO["eager"] = {"eager_start": True}

on_each_asyncio = pytest.mark.parametrize("loop", ASYNCIO.values(), ids=ASYNCIO)


def sweep(run: Callable[[int], Steps]) -> int:
    """Run with 1, 2, 3, ... until a run ends before its step is reached; return the number of runs before."""
    at = 1
    while run(at).reached:
        at += 1
    return at - 1


class World:
    """An expired token, and the object that refreshes it."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self.endpoint = Endpoint(clock=clock)
        self.store = Store(self.endpoint.text(expires_in=-1))
        self.auth = RefreshAuth(self.endpoint, self.store)

    def assert_nothing_is_lost(self) -> int:
        """Return the generation in the store. Check that it is the newest pair's, and that no claim stays."""
        record, endpoint = self.store.record, self.endpoint
        assert record.token is not None
        assert (record.redeeming, record.uncertain, record.failed) == (None, None, ())
        assert record.token.refresh_token == endpoint.current.refresh_token
        assert endpoint.asked == ["SECRET-r0"] * endpoint.issued
        assert record.generation == endpoint.issued
        return record.generation

    def assert_the_next_run_goes_on(self, run: Callable[..., Any]) -> None:
        async def main() -> None:
            with anyio.fail_after(30):
                assert (await self.auth.token()).access_token == "SECRET-a1"

        run(main)
        assert self.assert_nothing_is_lost() == 1


def _cancel_tasks(name: str) -> None:
    for task in asyncio.all_tasks():
        if task.get_name() == name:
            task.cancel()


@on_each_asyncio
def test_asyncio_a_caller_is_cancelled_after_every_single_step(loop: dict[str, Any]) -> None:
    def run(at: int) -> Steps:
        world = World()
        steps = Steps(at, lambda: _cancel_tasks("caller"))

        async def main() -> None:
            caller = asyncio.create_task(world.auth.token(), name="caller")
            follower = asyncio.create_task(world.auth.token())
            await asyncio.wait([caller])
            token = await follower
            assert token.access_token == "SECRET-a1"
            await world.auth.aclose()

        steps.asyncio_run(main, **loop)
        assert world.assert_nothing_is_lost() == 1
        return steps

    assert sweep(run) > 10


@on_each_asyncio
@pytest.mark.parametrize("times", [1, 2, 5, 1000])
def test_asyncio_the_guard_of_a_flight_is_cancelled_after_every_single_step(
    times: int, loop: dict[str, Any]
) -> None:
    outcomes = set()

    def run(at: int) -> Steps:
        world = World()
        steps = Steps(at, lambda: _cancel_tasks("httpx-refresh guard"), times=times)

        async def main() -> None:
            caller = asyncio.create_task(world.auth.token())
            with anyio.fail_after(30):  # A hanging run fails: a waiter was not woken.
                await asyncio.wait([caller])
                await world.auth.aclose()
            error = caller.exception()
            assert error is None or isinstance(error, RefreshUnavailable)
            outcomes.add(None if error is None else error.outcome)

        steps.asyncio_run(main, **loop)
        world.assert_nothing_is_lost()
        return steps

    assert sweep(run) > 10
    assert outcomes == {None, "not_sent"}


@on_each_asyncio
@pytest.mark.parametrize("cancelled_again", [False, True], ids=["", "and cancelled on and on"])
@pytest.mark.parametrize("closing", [False, True], ids=["plain", "async with"])
def test_asyncio_run_ends_after_every_single_step(
    closing: bool, cancelled_again: bool, loop: dict[str, Any]
) -> None:
    ends = set()

    def run(at: int) -> Steps:
        world = World()
        stop: list[asyncio.Event] = []

        def act() -> None:
            if stop[0].is_set():
                _cancel_tasks("httpx-refresh guard")
            stop[0].set()

        steps = Steps(at, act, times=10 if cancelled_again else 1)

        async def call() -> None:
            if closing:
                async with world.auth:
                    await world.auth.token()
            else:
                await world.auth.token()

        async def main() -> None:
            stop.append(asyncio.Event())
            caller = asyncio.create_task(call())
            ended = asyncio.create_task(stop[0].wait())
            await asyncio.wait([caller, ended], return_when=asyncio.FIRST_COMPLETED)

        steps.asyncio_run(main, **loop)
        ends.add(world.assert_nothing_is_lost())
        world.assert_the_next_run_goes_on(lambda main: asyncio.run(main()))
        return steps

    assert sweep(run) > 10
    # An eager task has sent its request before its loop can end, unless it is cancelled at each step; so has any task
    # of uvloop, which takes one more turn to end.
    always_sent = bool(loop) and not cancelled_again
    assert ends == ({1} if always_sent else {0, 1})


def test_trio_a_caller_is_cancelled_after_every_single_step() -> None:
    def run(at: int) -> Steps:
        world = World()
        scope = trio.CancelScope()
        steps = Steps(at, scope.cancel)

        async def call() -> None:
            with scope:
                await world.auth.token()

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call)
                assert (await world.auth.token()).access_token == "SECRET-a1"
            await world.auth.aclose()

        steps.trio_run(main)
        assert world.assert_nothing_is_lost() == 1
        return steps

    assert sweep(run) > 10


@pytest.mark.parametrize("closing", [False, True], ids=["plain", "async with"])
def test_trio_run_ends_after_every_single_step(closing: bool) -> None:
    ends = set()

    def run(at: int) -> Steps:
        world = World()
        scope = trio.CancelScope()
        steps = Steps(at, scope.cancel)

        async def main() -> None:
            with scope:
                if closing:
                    async with world.auth:
                        await world.auth.token()
                else:
                    await world.auth.token()

        steps.trio_run(main)
        ends.add(world.assert_nothing_is_lost())
        world.assert_the_next_run_goes_on(trio.run)
        return steps

    assert sweep(run) > 10
    assert ends == {0, 1}


# -- an object that is closed --------------------------------------------------------------------------------------


class Closing(World):
    """Two callers need a token, and at one step of theirs the object is closed.

    The trouble that they meet: `busy`, the endpoint answers only the third request; `full`, the store takes the new
    token at the fourth try; `broken`, it never takes it.
    """

    def __init__(self, trouble: str) -> None:
        super().__init__(clock=loop_wall)
        self.handed_over: list[Token] = []
        self.answers: list[str] = []
        self.auth = RefreshAuth(self.endpoint, self.store, on_unsaved=self.handed_over.append)
        self.stop = anyio.Event()
        if trouble == "busy":
            self.endpoint.script += [RefreshUnavailable("busy", outcome="busy")] * 2
        if trouble in ("full", "broken"):
            tries = itertools.count(1)
            self.store.fails = lambda record: (
                results(record) and (trouble == "broken" or next(tries) < 4)
            )

    async def call(self) -> None:
        try:
            self.answers.append((await self.auth.token()).access_token)
        except RefreshUnavailable as error:
            self.answers.append(error.outcome)

    async def close(self) -> None:
        await self.stop.wait()
        await self.auth.aclose()
        assert not self.auth._session._flights

    def assert_nothing_is_lost(self) -> int:
        """Return how many tokens were issued. The newest is in the store, or it was handed over."""
        # They may differ: what comes once the object is closed starts anew.
        assert len(self.answers) == 2
        assert set(self.answers) <= {"SECRET-a1", "not_sent", "busy"}
        endpoint = self.endpoint
        if "SECRET-a1" in self.answers:
            assert endpoint.issued == 1
        saved = self.store.record.token
        assert saved is not None
        newest = [saved.refresh_token, *(token.refresh_token for token in self.handed_over)]
        assert endpoint.current.refresh_token in newest
        assert set(endpoint.asked) <= {"SECRET-r0"}
        assert endpoint.issued <= 1
        return endpoint.issued


class ClosedAt:
    """A world that begins on the event loop, and is closed after so many steps of that."""

    world: Closing

    def __init__(self, at: int, trouble: str) -> None:
        self.steps = Steps(at, self._close)
        self._trouble = trouble
        self._begun = False

    def begun(self) -> Closing:
        self.world = Closing(self._trouble)
        self._begun = True
        return self.world

    def _close(self) -> None:
        if self._begun:
            self.world.stop.set()


CLOSED = {name: options for name, options in ASYNCIO.items() if name != "uvloop"}


@pytest.mark.parametrize("trouble", ["none", "busy", "full", "broken"])
@pytest.mark.parametrize("loop", CLOSED.values(), ids=CLOSED)
@pytest.mark.usefixtures("loop_time")
def test_asyncio_an_object_is_closed_after_every_single_step(
    loop: dict[str, Any], trouble: str
) -> None:
    ends = set()

    def run(at: int) -> Steps:
        closed = ClosedAt(at, trouble)

        async def main() -> None:
            world = closed.begun()
            tasks = [asyncio.create_task(call()) for call in (world.close, world.call, world.call)]
            await asyncio.wait(tasks[1:])
            world.stop.set()
            await asyncio.gather(*tasks)
            assert asyncio.all_tasks() == {asyncio.current_task()}
            left: set[Any] = host._running[asyncio.get_running_loop()]
            assert all(task.done() for task in left)

        closed.steps.asyncio_run(main, new_loop=VirtualTimeLoop, **loop)
        ends.add(closed.world.assert_nothing_is_lost())
        return closed.steps

    assert sweep(run) > 10
    assert ends == {0, 1}


@pytest.mark.parametrize("trouble", ["none", "busy", "full", "broken"])
@pytest.mark.usefixtures("loop_time")
def test_trio_an_object_is_closed_after_every_single_step(trouble: str) -> None:
    ends = set()

    def run(at: int) -> Steps:
        closed = ClosedAt(at, trouble)

        async def main() -> None:
            world = closed.begun()
            async with trio.open_nursery() as closing:
                closing.start_soon(world.close)
                async with trio.open_nursery() as calls:
                    calls.start_soon(world.call)
                    calls.start_soon(world.call)
                world.stop.set()

        closed.steps.trio_run(main, clock=MockClock(autojump_threshold=0))
        ends.add(closed.world.assert_nothing_is_lost())
        return closed.steps

    assert sweep(run) > 10
    assert ends == {0, 1}
