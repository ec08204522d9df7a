"""Run an event loop and act after its n-th step, for every n, so that every moment is covered."""

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
    """Run a coroutine unchanged, and report each of its steps."""
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
    """Counts the steps of all tasks of a run, and calls `act` after step number `at`, this many `times`."""

    def __init__(self, at: int, act: Act, *, times: int = 1) -> None:
        self.count = 0
        self._at = at
        self._act = act
        self._times = times

    def _stepped(self) -> None:
        self.count += 1
        if self._at <= self.count < self._at + self._times:
            self._act()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._stepped()

    @property
    def reached(self) -> bool:
        """Whether there was a step with that number."""
        return self.count >= self._at

    def asyncio_run(
        self,
        main: Callable[[], Coroutine[Any, Any, None]],
        new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
        **task_options: Any,
    ) -> None:
        """Do what `asyncio.run` does, and count the steps.

        When the main task ends, all others are cancelled and waited for.

        Args:
            main: makes the main task's coroutine.
            new_loop: makes the event loop.
            task_options: for each task; `eager_start=True` as an eager task factory does.
        """

        def factory(loop: Any, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
            stepping = _task(coroutine, self._stepped)
            task = asyncio.Task(stepping, loop=loop, **{**options, **task_options})
            # One that is cancelled before its first step never awaits it.
            task.add_done_callback(lambda _: coroutine.close())
            return task

        async def counted() -> None:
            loop.set_task_factory(factory)
            await main()

        loop = new_loop()
        try:
            loop.run_until_complete(counted())
        finally:
            asyncio.runners._cancel_all_tasks(loop)  # type: ignore[attr-defined]  # what asyncio.run calls
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    def trio_run(self, main: Callable[[], Coroutine[Any, Any, None]], **options: Any) -> None:
        """Do what `trio.run` does with these options, and count the steps."""
        trio.run(main, instruments=[self], **options)
