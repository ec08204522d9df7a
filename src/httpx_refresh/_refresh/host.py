"""The machine that a refresh runs on: clocks, chance, a name, and tasks that no caller owns. It knows no token.

A refresh must not end because its caller was cancelled, nor because its event loop ends: the answer of a token
request may be the only copy of a rotated refresh token. anyio's shields do not hold against asyncio's own
`task.cancel()`, so the work runs in a task of its own, which `asyncio.run` does not find among all tasks. In its place
a guard is found and cancelled there: a future that is done when the work is, however often it is cancelled, and so the
loop waits. On trio the work is shielded in a system task, for which `trio.run` waits.
"""

from __future__ import annotations

import contextvars
import logging
import math
import os
import random
import secrets
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import cache, partial
from threading import RLock
from typing import Any, TypeVar

import anyio

from .._errors import cause_of
from .._http.libraries import asking
from .._limits import longer

# asyncio is imported where it is used: importing the library stays fast.

T = TypeVar("T")

logger = logging.getLogger("httpx_refresh")


class Host:
    """What a refresh asks of the machine it runs on: the time, chance, and a name.

    Intervals are measured on `monotonic`; `wall` is for `expires_at`, and for what people read.
    """

    __slots__ = ()

    # The interpreter's own functions, as they are: who follows a refresh through the code is not led here by each
    # look at a clock.
    wall: staticmethod[[], float] = staticmethod(time.time)
    monotonic: staticmethod[[], float] = staticmethod(time.monotonic)
    nonce: staticmethod[[], str] = staticmethod(partial(secrets.token_hex, 8))

    def name(self) -> str:
        return f"{socket.gethostname()}:{os.getpid()}"

    def machine(self) -> str:
        """Return a name that this machine has until it restarts, and no other machine has.

        It is the same for all processes, those in containers included: on Linux, the boot id. Elsewhere it is the
        host's name.
        """
        try:
            return _boot_id()
        except OSError:
            return socket.gethostname()

    def jitter(self, value: float, least: float) -> float:
        """Return `value` times something between `least` and 1."""
        return value * random.uniform(least, 1.0)  # noqa: S311 - it spreads load, and guards nothing


@cache
def _boot_id() -> str:
    """Read what the kernel drew at its start (Linux, random(4))."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


THIS_HOST = Host()


def _trio() -> Any:
    """Return the trio module if the caller is a trio task, else None; never imports it."""
    trio = sys.modules.get("trio")
    return trio if trio is not None and trio.lowlevel.in_trio_task() else None


def current_loop() -> object:
    """Return what stands for the running event loop: alike for all its tasks, and for no other loop's."""
    if "trio" in sys.modules and (trio := _trio()) is not None:
        return trio.lowlevel.current_trio_token()
    import asyncio

    return asyncio.get_running_loop()


def loop_here() -> object | None:
    """Return the event loop that runs in this thread, as `current_loop` does; None if none does."""
    import asyncio

    trio = _trio()
    return trio.lowlevel.current_trio_token() if trio is not None else asyncio._get_running_loop()


def is_closed(loop: object) -> bool:
    """Whether an asyncio event loop was closed: nothing runs on it again, whatever it left unfinished.

    trio's loops end only after all of their tasks did.
    """
    closed = getattr(loop, "is_closed", None)
    return closed is not None and bool(closed())


CHANGING = RLock()
"""Held while state is replaced that several threads change; never across an await.

A fork waits until no other thread holds it, so that a child never inherits it locked.
"""

if hasattr(os, "register_at_fork"):  # pragma: no branch  # nothing forks on Windows
    os.register_at_fork(
        before=CHANGING.acquire, after_in_parent=CHANGING.release, after_in_child=CHANGING.release
    )

# The tasks of each event loop: a loop does not keep them alive, and a caller may be gone before its task ends.
_running: dict[object, set[object]] = {}

if hasattr(os, "register_at_fork"):  # pragma: no branch  # nothing forks on Windows
    os.register_at_fork(
        after_in_child=_running.clear
    )  # A forked child has none of its parent's tasks.


def spawn(
    work: Callable[[], Coroutine[Any, Any, None]],
    *,
    ending: Callable[[], None],
    every: float = math.inf,
    tick: Callable[[], None] | None = None,
) -> None:
    """Run `work` in a task that no caller owns, and for which the event loop waits before it ends.

    It runs in an empty context (trio: the system's): a caller's context variables (a database session, a request's log
    fields) must neither leak into the work of all nor be kept alive by it. Only the kind of client that asks is
    passed on. `work` must raise nothing.

    Args:
        work: runs to its end, unless the process dies or the loop is closed without cancelling its tasks.
        ending: called when the event loop is about to end: `work` should leave out what can wait. It may be called
            before the first step of `work`.
        every: seconds between two calls of `tick` while `work` runs.
        tick: called then.
    """
    trio, asked = _trio(), asking.get()
    if trio is None:
        bare_context().run(_spawn_on_asyncio, work, ending, every, tick)
        return
    done = trio.Event()

    async def shielded() -> None:
        asking.set(asked)
        with trio.CancelScope(shield=True):
            await _contained(work, done.set)

    async def guard() -> None:
        try:
            while not done.is_set():
                with trio.move_on_after(every):
                    await done.wait()
                if tick is not None and not done.is_set():
                    tick()
        except trio.Cancelled:
            ending()
            raise

    trio.lowlevel.spawn_system_task(shielded)
    trio.lowlevel.spawn_system_task(guard)


def bare_context() -> contextvars.Context:
    """Return an empty context, except for the kind of the client that asks."""
    context = contextvars.Context()
    context.run(asking.set, asking.get())
    return context


async def _contained(
    work: Callable[[], Coroutine[Any, Any, None]], over: Callable[[], None]
) -> None:
    """Await `work`, and let nothing out: on trio it would end the whole run, on asyncio nobody would hear of it.

    `over` is called at the end.
    """
    try:
        await work()
    except GeneratorExit:  # The loop was closed under it: nothing can be awaited any more.
        raise
    except BaseException as error:
        with suppress(Exception):
            logger.error("a task of this library failed, which it should not: %s", cause_of(error))
    over()


def _spawn_on_asyncio(
    work: Callable[[], Coroutine[Any, Any, None]],
    ending: Callable[[], None],
    every: float,
    tick: Callable[[], None] | None,
) -> None:
    import asyncio

    loop = asyncio.get_running_loop()
    guard = _guard_class()(loop, ending, every, tick)
    guard.work = _hidden(loop, _contained(work, guard.let_go))


@cache
def _guard_class() -> Any:
    """Return the class of guards, whose base must not be imported early.

    `_register_task` is documented for those who write tasks (asyncio, "Extending", "Task lifetime support").
    """
    import asyncio

    class Guard(asyncio.Future):  # type: ignore[type-arg]  # no type arguments at run time
        """What asyncio finds among its tasks in place of a hidden one; it is done when that is.

        Its cancellation calls `ending`, and does nothing else. Whatever else is asked of a task, the hidden one
        answers: `work`, which is set once.
        """

        __slots__ = ("_ending", "_every", "_tick", "_timer", "work")

        def __init__(
            self,
            loop: asyncio.AbstractEventLoop,
            ending: Callable[[], None],
            every: float,
            tick: Callable[[], None] | None,
        ) -> None:
            super().__init__(loop=loop)
            self.work: asyncio.Task[None] | None = None
            self._ending = ending
            self._every = every
            self._tick = tick
            self._timer: asyncio.TimerHandle | None = None
            self._wait()
            asyncio._register_task(self)  # type: ignore[arg-type]  # it is like one

        def __getattr__(self, name: str) -> Any:
            return getattr(self.work, name)

        def get_name(self) -> str:
            return "httpx-refresh guard"

        def cancel(self, msg: object = None) -> bool:
            self._ending()
            return True

        def _wait(self) -> None:
            if self._tick is not None:
                self._timer = self.get_loop().call_later(self._every, self._ticked, self._tick)

        def _ticked(self, tick: Callable[[], None]) -> None:
            tick()
            self._wait()

        def let_go(self) -> None:
            """Let the event loop end: the work is done."""
            if self._timer is not None:
                self._timer.cancel()
            self.set_result(None)

    return Guard


def _keep(loop: object, task: Any) -> None:
    """Hold a task until it is done. Each loop changes its own set; all else here is one step of the interpreter."""
    tasks = _running.get(loop)
    if tasks is None:
        for other in list(_running):
            if is_closed(other):
                _running.pop(other, None)  # Closed with tasks unfinished: they never run again.
        tasks = _running.setdefault(loop, set())
    tasks.add(task)
    task.add_done_callback(tasks.discard)


def _hidden(loop: Any, coroutine: Coroutine[Any, Any, T]) -> Any:
    """Start a task that `asyncio.all_tasks` does not list, so that the end of `asyncio.run` does not cancel it.

    `_unregister_task` is documented beside `_register_task`.
    """
    import asyncio

    task = loop.create_task(coroutine, name="httpx-refresh")
    if not task.done():
        asyncio._unregister_task(task)
        _keep(loop, task)
    return task


class NotBack(Exception):
    """A call did not end in time. It was cancelled, and nobody waits for what it still does.

    Attributes:
        is_back: whether it has ended by now.
    """

    def __init__(self, is_back: Callable[[], bool]) -> None:
        super().__init__("a call did not end in time")
        self.is_back = is_back


class CallRaised(Exception):
    """A call raised what is no `Exception`: a cancellation of its own, `SystemExit`, `KeyboardInterrupt`, ..."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(type(error).__name__)
        self.error = error


async def bounded(call: Callable[[], Awaitable[T]], seconds: float) -> T:
    """Await somebody else's code, for so many seconds and no longer, even if it ignores its cancellation.

    If this event loop stood still meanwhile, it is awaited somewhat longer: its answer may be there, unread.

    To be called from a task of `spawn`. Each `Exception` that `call` raises is raised here.

    Raises:
        NotBack: it did not end in time.
        CallRaised: it raised something else.
    """
    outcome: list[tuple[bool, Any]] = []
    more, times = seconds, 0
    trio = _trio()
    if trio is not None:
        done, scope, asked = trio.Event(), trio.CancelScope(shield=True), asking.get()

        async def run_on_trio() -> None:
            asking.set(asked)
            try:
                with scope:
                    outcome.append((True, await call()))
            except BaseException as error:  # Nothing may escape a system task; it is raised below.
                outcome.append((False, error))
            finally:
                done.set()

        # Else it had none of the caller's context variables: the span that a request belongs to is one.
        context = contextvars.copy_context()
        trio.lowlevel.spawn_system_task(run_on_trio, context=context)
        while more:
            due = trio.current_time() + more
            with trio.move_on_at(due):
                await done.wait()
            more = 0.0 if outcome else longer(seconds, trio.current_time() - due, times)
            times += 1
        if not outcome:
            scope.cancel()
            raise NotBack(done.is_set)
    else:
        import asyncio

        loop, back = asyncio.get_running_loop(), asyncio.Event()

        async def run() -> None:
            try:
                outcome.append((True, await call()))
            except BaseException as error:  # A task that raised would stop the loop, or be logged.
                outcome.append((False, error))
            if not loop.is_closed():  # Else it was closed under it, and nobody can be woken.
                back.set()

        task = _hidden(loop, run())
        while more and not outcome:
            due = loop.time() + more
            timer = loop.call_at(due, back.set)
            try:
                await back.wait()
            finally:
                timer.cancel()
            back.clear()
            more = 0.0 if outcome else longer(seconds, loop.time() - due, times)
            times += 1
        if not outcome:
            task.cancel()
            raise NotBack(task.done)
    succeeded, value = outcome[0]
    if not succeeded:
        # Told apart from what is raised because this very task is cancelled or closed.
        raise value if isinstance(value, Exception) else CallRaised(value)
    return value  # type: ignore[no-any-return]  # it is what `call` returned


class Beside:
    """A call of somebody else's code, in a task of its own: it ends by itself, or is cancelled.

    Mutable, by that task:
        done: set when it has ended, however.
        failed: what it raised, as text; set before `done`.
    """

    __slots__ = ("_cancel", "done", "failed")

    def __init__(self, call: Callable[[], Awaitable[object]], on_end: Callable[[], None]) -> None:
        """Start it.

        Args:
            call: is called and awaited.
            on_end: is called when it has ended.
        """
        self.done: anyio.Event = anyio.Event()
        self.failed: str | None = None
        trio = _trio()
        if trio is not None:
            scope = trio.CancelScope()

            async def run_on_trio() -> None:
                with scope:
                    await self._run(call, on_end, trio.Cancelled)

            self._cancel: Callable[[], object] = scope.cancel
            trio.lowlevel.spawn_system_task(run_on_trio)
        else:
            import asyncio

            task = _hidden(asyncio.get_running_loop(), self._run(call, on_end, GeneratorExit))
            self._cancel = task.cancel

    async def _run(
        self,
        call: Callable[[], Awaitable[object]],
        on_end: Callable[[], None],
        passed_on: type[BaseException],
    ) -> None:
        try:
            await call()
        except passed_on:
            raise
        except BaseException as error:  # Nobody would hear of it; and on trio it would end the run.
            if isinstance(error, KeyboardInterrupt):
                pass_on_interrupt()
            self.failed = cause_of(error)
        finally:
            self.done.set()
            on_end()

    def cancel(self) -> None:
        """Ask it to end; it may ignore that."""
        self._cancel()


def pass_on_interrupt() -> None:
    """Let the main thread have a Ctrl-C that was raised in code of ours, where it was no more than a failure.

    Not at once: the next step of ours would meet it again.
    """
    import _thread

    trio = _trio()
    if trio is not None:
        trio.lowlevel.current_trio_token().run_sync_soon(_thread.interrupt_main)
    else:
        import asyncio

        asyncio.get_running_loop().call_soon(_thread.interrupt_main)
