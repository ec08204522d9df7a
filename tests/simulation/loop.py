"""A simulated process's clocks, and its event loop, which runs only when the world lets it.

An asyncio event loop consists of a queue of handles and a heap of timers. Here each loop has its own queue, and all
loops share the world's heap. So one thread can run any number of processes, each with its own clocks. The handles of
a process that died are never run again. Those of a stopped process are kept until it continues.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from httpx_refresh._refresh import host as _host

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextvars import Context

    from tests.simulation.world import World


_set_running_loop = asyncio._set_running_loop


class Machine:
    """What the processes of one host share: clocks that are wrong in their own way."""

    def __init__(self, world: World, name: str, *, skew: float, rate: float) -> None:
        self.world = world
        self.name = name
        self.skew = skew
        self.rate = rate
        self.stepped = 0.0
        """By how much the wall clock was put forward and back, altogether."""
        self._asleep = 0.0

    def wall(self) -> float:
        """Epoch seconds, as this host believes."""
        return EPOCH + self.world.now + self.skew

    def monotonic(self) -> float:
        """Seconds since this host's start, a little too fast or too slow; it stands still while the host sleeps."""
        return (self.world.now - self._asleep) * self.rate

    def moment(self, monotonic: float) -> float:
        """When, in the world's time, this host's monotonic clock will show that."""
        return monotonic / self.rate + self._asleep

    def slept(self, seconds: float) -> None:
        self._asleep += seconds


EPOCH = 1_700_000_000.0


class Handle:
    """A callback that is to run: as much of `asyncio.Handle` as tasks, futures and anyio ask for."""

    __slots__ = ("args", "callback", "context", "dropped")

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = copy_context() if context is None else context
        self.dropped = False

    def cancel(self) -> None:
        """Drop it: a handle stays where it is, and does nothing when its turn comes."""
        self.dropped = True

    def cancelled(self) -> bool:
        return self.dropped


class Timer(Handle):
    """A callback that is to run at a moment of its loop's clock."""

    __slots__ = ("loop", "moment")

    def __init__(
        self,
        moment: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: Loop,
        context: Context | None,
    ) -> None:
        super().__init__(callback, args, context)
        self.moment = moment
        self.loop = loop

    def when(self) -> float:
        return self.moment

    def due(self) -> None:
        """Run soon, if the loop runs; called at the moment, or when a stopped loop goes on."""
        loop = self.loop
        if self.dropped or loop.dead:
            return
        if not loop.running:
            loop.held.append(self)
        elif loop.machine.moment(self.moment) > loop.world.now + 1e-9:
            loop.set(self)  # The machine slept meanwhile.
        else:
            loop.enqueue(self)


class Loop:
    """One event loop of a process: as much of `asyncio.AbstractEventLoop` as tasks, futures and timers ask for."""

    def __init__(self, world: World, machine: Machine, *, shuffled: bool) -> None:
        world.loops.append(self)
        self.world = world
        self.machine = machine
        self._loop: Any = self
        self.shuffled = shuffled
        self.running = True
        """False while the process is stopped, and for good once it is dead."""
        self.dead = False
        self.ready: deque[Handle] = deque()
        self.held: list[Timer] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.closed = False
        self.is_own = False
        """Whether it is the library's own, which serves threads."""
        self.owner = ""
        """The name of its process."""
        self.on_step: Callable[[Loop], None] | None = None
        """Called after each handle that ran; None: nobody looks."""

    # -- what asyncio asks of an event loop --------------------------------------------------------------------

    def time(self) -> float:
        return self.machine.monotonic()

    get_debug = staticmethod(bool)
    """False, and in C: each task and each future asks."""

    def is_running(self) -> bool:
        return asyncio._get_running_loop() is self._loop

    def is_closed(self) -> bool:
        return self.closed

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        handle = Handle(callback, args, context)
        ready = self.ready
        if not ready and self.running:
            self.world.awake.append(self)
        ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> Timer:
        timer = Timer(when, callback, args, self, context)
        self.set(timer)
        return timer

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> Timer:
        timer = Timer(self.machine.monotonic() + delay, callback, args, self, context)
        self.set(timer)
        return timer

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self._loop)

    def create_task(
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, **options: Any
    ) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self._loop, name=name, **options)
        if len(self.tasks) > 200:
            self.tasks = [one for one in self.tasks if not one.done()]
        self.tasks.append(task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.world.unhandled.append(f"{context.get('message')}: {context.get('exception')!r}")

    # -- what the world does with it ---------------------------------------------------------------------------

    def set(self, timer: Timer) -> None:
        """Have a timer called at its moment."""
        # A hair later: a clock that shows a little less than was waited for makes its reader wait again.
        self.world.at(self.machine.moment(timer.moment) + 1e-7, timer.due)

    def enqueue(self, handle: Handle) -> None:
        """Have a handle run soon."""
        if not self.ready and self.running:
            self.world.awake.append(self)
        self.ready.append(handle)

    def stop_running(self) -> None:
        """Run nothing until `go_on`."""
        self.running = False
        if self.ready:
            self.world.awake.remove(self)

    def go_on(self) -> None:
        self.running = True
        if self.ready:
            self.world.awake.append(self)
        held, self.held = self.held, []
        for timer in held:
            timer.due()

    def die(self) -> None:
        """Run nothing any more: no handler, no `finally`. Only a loop that runs can die: it does so at a step."""
        self.stop_running()
        self.dead = True
        self.ready.clear()
        self.held.clear()

    def close(self) -> None:
        """Run nothing any more, as a loop that is closed: whoever asks can see that it is."""
        self.die()
        self.closed = True

    def left(self) -> list[asyncio.Task[Any]]:
        """Return the tasks that are not done and that `asyncio.all_tasks` finds, the oldest first.

        In place of a hidden task it finds the guard of it.
        """
        found = asyncio.all_tasks(self._loop)
        guards: dict[object, Any] = {getattr(one, "work", one): one for one in found}
        return [guards[task] for task in self.tasks if task in guards]

    def step(self) -> None:
        """Run one handle."""
        ready = self.ready
        if self.shuffled and len(ready) > 1:  # As trio does: in no order that a task can rely on.
            ready.rotate(-self.world.below(len(ready)))
        handle = ready.popleft()
        if not ready:
            self.world.awake.remove(self)
        if handle.dropped:
            return
        _set_running_loop(self._loop)
        try:
            handle.context.run(handle.callback, *handle.args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self.call_exception_handler(
                {"message": f"Exception in callback {handle.callback!r}", "exception": error}
            )
        finally:
            _set_running_loop(None)
        if self.on_step is not None:
            self.on_step(self)

    def dispose(self) -> None:
        """Let go of what never ended, after the simulation, as quietly as a killed process does."""
        _set_running_loop(self._loop)
        try:
            for task in self.tasks:
                if not task.done():
                    task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own, not typed
                    _close(task, self)
        finally:
            _set_running_loop(None)
        # A loop that is dead tells nobody that its tasks are done.
        _host._running.pop(self._loop, None)
        self.tasks.clear()
        self.ready.clear()


def _close(task: asyncio.Task[Any], loop: Loop) -> None:
    coroutine: Any = task.get_coro()
    asyncio.tasks._enter_task(loop._loop, task)
    try:
        # As the garbage collector does it: what awaits something all the same is told again.
        for _ in range(20):
            with suppress(RuntimeError):
                coroutine.close()
                break
    finally:
        asyncio.tasks._leave_task(loop._loop, task)
