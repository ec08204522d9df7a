"""Drive an event loop and act after its n-th step, for every n: a sweep over all moments there are."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import trio
import trio.abc

Act = Callable[[], None]


@types.coroutine
def _counted(coroutine: Coroutine[Any, Any, Any], stepped: Act) -> Generator[Any, Any, Any]:
    """Run a coroutine as it is, and report each of its steps."""
    value, error = None, None
    while True:
        try:
            waits_for = coroutine.send(value) if error is None else coroutine.throw(error)
        except StopIteration as end:
            return end.value
        finally:
            stepped()
        try:
            value, error = (yield waits_for), None
        except BaseException as thrown:  # What the loop throws in goes where it was meant to go.
            value, error = None, thrown


async def _task(coroutine: Coroutine[Any, Any, Any], stepped: Act) -> Any:
    return await _counted(coroutine, stepped)


class Steps(trio.abc.Instrument):
    """Counts the steps of all tasks of a run, and does `act` after the one with number `at`."""

    def __init__(self, at: int, act: Act) -> None:
        self.count = 0
        self._at = at
        self._act = act

    def _stepped(self) -> None:
        self.count += 1
        if self.count == self._at:
            self._act()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._stepped()

    @property
    def reached(self) -> bool:
        """Whether there was a step with that number."""
        return self.count >= self._at

    def asyncio_run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do what `asyncio.run` does, and count.

        The main task ending, all others are cancelled and waited for.
        """

        def factory(loop: Any, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
            task = asyncio.Task(_task(coroutine, self._stepped), loop=loop, **options)
            # One that is cancelled before its first step never awaits it.
            task.add_done_callback(lambda _: coroutine.close())
            return task

        async def counted() -> None:
            asyncio.get_running_loop().set_task_factory(factory)
            await main()

        asyncio.run(counted())

    def trio_run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do `trio.run`, and count."""
        trio.run(main, instruments=[self])
