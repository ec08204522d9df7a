"""The event loop of callers who have none: it runs in a daemon thread of the library. It knows no token.

It is made when it is first needed, and made again in a forked child; a fork waits until it is between two steps. When
the interpreter ends, what runs on it is told so, as at the end of `asyncio.run`, and is waited for.
"""

from __future__ import annotations

import atexit
import contextvars
import os
import socket
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent import futures
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from .._threads import run_blocking
from .host import bare_context, is_closed, loop_here

# asyncio is imported where it is used: importing the library stays fast.

T = TypeVar("T")


class NoAnswer(Exception):
    """The loop did not come back in time: what was asked for may happen yet.

    Attributes:
        is_ending: whether that is because the interpreter ends.
        no_loop: why there is no loop, so that nothing was begun; None if there is one.
    """

    def __init__(self, *, is_ending: bool = False, no_loop: str | None = None) -> None:
        super().__init__("the library's own event loop did not answer")
        self.is_ending = is_ending
        self.no_loop = no_loop


class WaitsForItself(Exception):
    """A thread would wait for work that can only go on when it stops waiting: the work of its own event loop."""


blocked_loop: contextvars.ContextVar[object | None] = contextvars.ContextVar(
    "httpx_refresh_blocked_loop", default=None
)
"""The event loop that is blocked until what runs in this context has ended; None if none is."""


class _OwnLoop:
    """One event loop and its thread.

    Mutable, from any thread: `longest`, the seconds that work on it may take, for which the end of the interpreter
    waits; it only grows.
    """

    def __init__(self) -> None:
        self.loop = _make_loop()
        self.longest = 0.0
        self.thread = threading.Thread(
            target=self.loop.run_forever, name="httpx-refresh loop", daemon=True
        )
        try:
            self.thread.start()
        except RuntimeError:
            self.loop.close()
            raise

    def finish(self) -> None:
        """Tell what runs on the loop that it is to end, and wait for it."""
        import asyncio

        with suppress(futures.TimeoutError, futures.CancelledError, RuntimeError):
            asyncio.run_coroutine_threadsafe(_end_tasks(), self.loop).result(self.longest)

    def stop(self) -> None:
        """Stop the loop, and close it."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(1.0)
        if not self.thread.is_alive():
            self.loop.close()


def _make_loop() -> Any:
    import asyncio

    kind: Any = getattr(asyncio, "ProactorEventLoop", asyncio.SelectorEventLoop)

    class Loop(kind):  # type: ignore[misc]  # the base differs by platform
        """An asyncio loop whose name lookups need no executor: that of the interpreter ends before its last refresh."""

        async def getaddrinfo(
            self,
            host: Any,
            port: Any,
            *,
            family: int = 0,
            type: int = 0,
            proto: int = 0,
            flags: int = 0,
        ) -> Any:
            look = partial(socket.getaddrinfo, host, port, family, type, proto, flags)
            return await run_blocking(look, group=socket.getaddrinfo)

    return Loop()


async def _end_tasks() -> None:
    """Cancel all tasks of this loop, and wait until they have ended."""
    import asyncio

    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


# -- one for each process ----------------------------------------------------------------------------------------------

# A thread that holds it may be made to fork, by a signal's handler.
_lock = threading.RLock()
_own: _OwnLoop | None = None
_is_hooked = False
_is_over = False
"""The interpreter waits for nothing any more: nothing new is begun that nobody waits for."""


def run(function: Callable[..., Coroutine[Any, Any, T]], *args: Any, seconds: float) -> T:
    """Run a coroutine function on the library's own event loop, and wait for it.

    Interrupted, this cancels it and raises at once.

    Args:
        function: runs in a copy of this context.
        args: its positional arguments.
        seconds: how long it is waited for at most.

    Raises:
        NoAnswer: it is not back in time, or cannot be run: the interpreter is ending, or there is no thread for it.
    """
    own = _get(seconds)
    context = contextvars.copy_context()
    context.run(blocked_loop.set, callers_loop())
    sniffio: Any = sys.modules.get("sniffio")
    if (
        sniffio is not None
    ):  # What it is told here is of another event loop, which may run in this thread.
        context.run(sniffio.current_async_library_cvar.set, None)
    future: futures.Future[T] = futures.Future()
    try:
        own.loop.call_soon_threadsafe(_begin, own.loop, future, function, args, context=context)
        return future.result(seconds)
    except futures.CancelledError:
        raise NoAnswer(is_ending=True) from None
    except futures.TimeoutError:
        if future.done():
            raise
        raise NoAnswer from None
    except RuntimeError:
        if future.done() or not is_closed(own.loop):
            raise
        raise NoAnswer(is_ending=True) from None
    finally:
        future.cancel()


def _begin(
    loop: Any,
    future: futures.Future[T],
    function: Callable[..., Coroutine[Any, Any, T]],
    args: tuple[Any, ...],
) -> None:
    """Run a coroutine function in a task of `loop`, whose thread calls this, and have `future` end like the task.

    The coroutine is made here, and not by the thread that waits: should the loop have ended, or have been dropped by a
    forked child, then there is none that was never awaited, of which Python would warn.
    """
    if future.cancelled():
        return  # Nobody waits any more.
    task = loop.create_task(function(*args))

    def task_ended(_: object) -> None:
        if task.cancelled():
            future.cancel()
            return
        error = task.exception()
        if not future.set_running_or_notify_cancel():
            return
        if error is None:
            future.set_result(task.result())
        else:
            future.set_exception(error)

    def future_ended(_: object) -> None:
        if future.cancelled() and not is_closed(loop):
            with suppress(RuntimeError):  # It was closed just now.
                loop.call_soon_threadsafe(task.cancel)

    task.add_done_callback(task_ended)
    future.add_done_callback(future_ended)


def soon(function: Callable[..., object], *args: Any, seconds: float) -> None:
    """Call `function` on the library's own event loop soon, and do not wait for it; not while the interpreter ends.

    Args:
        function: raises nothing.
        args: its positional arguments.
        seconds: how long what it begins may take.
    """
    if not _is_over:
        with suppress(NoAnswer, RuntimeError):  # RuntimeError: it was closed just now.
            loop = _get(seconds).loop
            loop.call_soon_threadsafe(partial(function, *args), context=bare_context())


def callers_loop() -> object | None:
    """Return the event loop that the caller blocks if it waits; None if it blocks none.

    Under gevent the library's own loop runs in a greenlet: it shares the system's thread with all others, and asyncio
    takes it for theirs.
    """
    here, own = loop_here(), _own
    if own is not None and here is own.loop and own.thread is not threading.current_thread():
        return None
    return here


def own_loop() -> object | None:
    """Return the library's own event loop; None if nobody has needed it yet."""
    own = _own
    return None if own is None else own.loop


def _get(seconds: float) -> _OwnLoop:
    global _own, _is_hooked
    with _lock:
        own = _own
        if own is None:
            try:
                own = _own = _OwnLoop()
            except (
                RuntimeError,
                OSError,
            ) as error:  # There is no thread to be had, or no descriptor.
                if _is_over or "shutdown" in str(error):
                    raise NoAnswer(is_ending=True) from None
                raise NoAnswer(no_loop=f"{type(error).__name__}: {error}") from None
            if not _is_hooked:
                _is_hooked = True
                _hook()
        own.longest = max(own.longest, seconds)
    return own


def _hook() -> None:
    """Have the interpreter wait at its end."""
    # The executors' own end is registered when they are imported. What is registered later is called earlier, and name
    # lookups of other loops' still work then.
    with suppress(RuntimeError):  # The main thread has ended already.
        import concurrent.futures.thread  # noqa: F401 - for what its import registers

        register = getattr(threading, "_register_atexit", None)
        if register is not None:
            register(_main_thread_ended)
    atexit.register(_interpreter_ends)


def _main_thread_ended() -> None:
    own = _own
    others = [
        one
        for one in threading.enumerate()
        if not one.daemon and one is not threading.main_thread()
    ]
    if own is not None and not others:  # Others go on working, and may need a token.
        own.finish()


def _interpreter_ends() -> None:
    global _own, _is_over
    own = _own
    if own is not None:
        own.finish()
        _is_over = True
        _own = None
        own.stop()


class _Standstill:
    """A step of the loop during which its thread does nothing, until it is let go."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.over = threading.Event()

    def stand(self) -> None:
        self.reached.set()
        self.over.wait()


_LONGEST_STEP = 5.0
"""Seconds for which a fork waits for the end of a step: the step may itself wait for the thread that forks."""

_standstill: _Standstill | None = None


def _before_fork() -> None:
    """Wait until the loop's thread is between two steps.

    A lock that a step holds is never released in a child, where the thread does not exist. The first refresh imports
    modules, and each import holds one.
    """
    global _standstill
    _lock.acquire()
    own = _own
    if own is None or own.thread is threading.current_thread():
        return
    _standstill = _Standstill()
    with suppress(RuntimeError):  # The loop was closed.
        own.loop.call_soon_threadsafe(_standstill.stand)
        _standstill.reached.wait(_LONGEST_STEP)


def _after_fork() -> None:
    """Let the loop of the parent go on."""
    global _standstill
    standstill, _standstill = _standstill, None
    if standstill is not None:
        standstill.over.set()
    _lock.release()


def _begin_again() -> None:
    """Drop the loop: after a fork it is the parent's."""
    global _lock, _own, _is_over, _standstill
    _lock = threading.RLock()
    _own = None
    _is_over = False
    _standstill = None


if hasattr(os, "register_at_fork"):  # pragma: no branch  # nothing forks on Windows
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_begin_again
    )
