"""Drive an event loop and act after its n-th step, for every n: a sweep over all moments there are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import trio
import trio.abc

Act = Callable[[], None]


class _Counted(Coroutine[Any, Any, Any]):
    """A task's coroutine that reports each of its steps."""

    def __init__(self, coroutine: Any, stepped: Act) -> None:
        self._coroutine = coroutine
        self._stepped = stepped

    def send(self, value: Any) -> Any:
        try:
            return self._coroutine.send(value)
        finally:
            self._stepped()

    def throw(self, *error: Any) -> Any:
        try:
            return self._coroutine.throw(*error)
        finally:
            self._stepped()

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Any:
        return self._coroutine.__await__()

    def __getattr__(self, name: str) -> Any:  # cr_frame and the like, which anyio looks at
        return getattr(self._coroutine, name)


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
            return asyncio.Task(_Counted(coroutine, self._stepped), loop=loop, **options)

        async def counted() -> None:
            asyncio.get_running_loop().set_task_factory(factory)
            await main()

        asyncio.run(counted())

    def trio_run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do `trio.run`, and count."""
        trio.run(main, instruments=[self])
