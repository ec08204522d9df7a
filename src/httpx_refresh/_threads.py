"""Blocking calls in daemon threads of the library, for coroutines of any event loop.

Not anyio's worker threads: the application shares their limiter and may have taken all of its forty places, for
instance with sync endpoints that wait for a token; and on asyncio they are no daemons, so that a call that hangs keeps
the interpreter from ending. Knows nothing of tokens, stores and HTTP.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar, cast

import anyio
import anyio.lowlevel

from ._errors import frameless

__all__ = ["run_blocking", "waker"]

_T = TypeVar("_T")

_MOST_OF_A_GROUP = (
    4  # calls of one group that run at once, those that nobody waits for any more included
)
_MOST = 40  # calls that run at once and that somebody waits for
_IDLE = 5.0  # seconds that a thread waits for its next call

_NO_THREAD = (
    "no thread can be started for a blocking call: the interpreter is ending, or the process has as many threads as "
    "it may have. The call was not made"
)


async def run_blocking(function: Callable[..., _T], *args: Any, group: Hashable) -> _T:
    """Call `function(*args)` in a daemon thread, and return or raise what it does.

    Cancelled, this returns at once: a call that has not begun is never made, and one that runs is abandoned. Its
    thread finishes it, and nobody learns the result. The same holds if the event loop ends meanwhile.

    What the call raises comes without its frames and chain, which hold what it works on; a note says where it was
    raised.

    Args:
        function: is called in a copy of this context. It must not use the event loop.
        args: its positional arguments.
        group: what a call that hangs hangs on, for instance a store. Of one group four calls run at once, abandoned
            ones included; more of them wait until one ends. Other groups go on.

    Raises:
        RuntimeError: no thread can be started, since the interpreter is ending or a limit of the system is reached.
            The call was not made.
    """
    done = anyio.Event()
    call = _Call(function, args, group, waker(done.set))
    del function, args  # A frame's locals are shown by error trackers; a call's repr shows nothing.
    await anyio.lowlevel.checkpoint_if_cancelled()
    threads = _threads
    threads.submit(call)
    try:
        await done.wait()
    except GeneratorExit:
        # This coroutine is collected, perhaps by a thread that holds the lock just now.
        call.left = True
        raise
    except BaseException:
        threads.leave(call)
        raise
    if call.error is not None:
        try:
            raise call.error
        finally:
            del call  # The error's traceback holds this frame, which held the error.
    return cast("_T", call.result)


def waker(wake: Callable[[], object]) -> Callable[[], object]:
    """Return what has the running event loop call `wake`; to be called in any thread, RuntimeError once it is over."""
    import asyncio  # Not at the top: importing the library stays fast.

    try:
        task = asyncio.current_task()
    except RuntimeError:  # No asyncio loop runs in this thread.
        task = None
    if task is not None:
        loop = task.get_loop()
        return lambda: loop.call_soon_threadsafe(wake)
    import trio

    token = trio.lowlevel.current_trio_token()
    return lambda: token.run_sync_soon(wake)


class _Call(Generic[_T]):
    """One call, and what became of it.

    `result` and `error` are written by the thread that makes the call, once, before it wakes the caller, who reads them
    afterwards. `left` is set once the caller waits no longer, and never unset. `has_place` is `_Threads`' own, under
    its lock: the call is made, and counts among those that somebody waits for.
    """

    __slots__ = (
        "_args",
        "_context",
        "_function",
        "_wake",
        "error",
        "group",
        "has_place",
        "left",
        "result",
    )

    def __init__(
        self,
        function: Callable[..., _T],
        args: tuple[Any, ...],
        group: Hashable,
        wake: Callable[[], object],
    ) -> None:
        self._function = function
        self._args = args
        self._context = contextvars.copy_context()
        self._wake = wake
        self.group = group
        self.has_place = False
        self.left = False
        self.result: _T | None = None
        self.error: BaseException | None = None

    def make(self) -> None:
        """Call the function, and keep what it returns or raises."""
        try:
            self.result = self._context.run(frameless(self._function), *self._args)
        except BaseException as error:  # Whatever it is, it is the caller's.
            self.error = error.with_traceback(None)

    def report(self) -> None:
        """Wake the caller, if its event loop still runs."""
        with suppress(RuntimeError):  # asyncio: the loop is closed; trio: the run is finished.
            self._wake()


class _Group:
    """The calls of one group: how many have a place in it, and those that wait for one, in their order."""

    __slots__ = ("admitted", "waiting")

    def __init__(self) -> None:
        self.admitted = 0
        self.waiting: dict[_Call[Any], None] = {}


_Box = SimpleQueue[_Call[Any]]
"""Where a thread finds its next call."""


class _Threads:
    """The threads of a process, and the calls that wait for one.

    All of it changes under `_lock`, which is held for a few assignments and the start of a thread, never while a call
    is made. Whenever the lock is free:

    - `_groups` has an entry for each group that has calls, and for no other. Of a group's calls at most
      `_MOST_OF_A_GROUP` are admitted; others wait only while as many are.
    - A call that is admitted is being made, or it is in `_ready`, and then `_busy` is `_MOST`.
    - `_busy` is the number of calls with `has_place`. A call that was abandoned has its place in its group, and no
      other: what hangs holds up its own group only.
    - `_idle` has the box of each thread without a call, the one used last at its end. Who takes a box out fills it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: dict[Hashable, _Group] = {}
        self._ready: dict[_Call[Any], None] = {}
        self._busy = 0
        self._idle: list[_Box] = []

    def submit(self, call: _Call[Any]) -> None:
        """Have this call made as soon as there is a place for it."""
        with self._lock:
            self._groups.setdefault(call.group, _Group()).waiting[call] = None
            self._admit(call.group)
            refused = self._begin()
        _report(refused)

    def leave(self, call: _Call[Any]) -> None:
        """Note that nobody waits for this call any more, whatever has become of it."""
        with self._lock:
            call.left = True
            group = self._groups.get(call.group)
            if call.has_place:
                call.has_place = False
                self._busy -= 1
            elif call in self._ready:
                del self._ready[call]
                self._discharge(call.group)
            elif group is not None:
                group.waiting.pop(call, None)  # not there if it is done
            refused = self._begin()
        _report(refused)

    def _admit(self, name: Hashable) -> None:
        group = self._groups[name]
        while group.waiting and group.admitted < _MOST_OF_A_GROUP:
            call = _pop_first(group.waiting)
            if not call.left:
                group.admitted += 1
                self._ready[call] = None
        if not group.admitted:
            del self._groups[name]

    def _discharge(self, name: Hashable) -> None:
        self._groups[name].admitted -= 1
        self._admit(name)

    def _begin(self) -> list[_Call[Any]]:
        """Give admitted calls to threads; return those for which none can be started, to be reported."""
        refused: list[_Call[Any]] = []
        while self._ready and self._busy < _MOST:
            call = _pop_first(self._ready)
            if call.left:
                self._discharge(call.group)
            elif self._idle:
                self._idle.pop().put(call)
                self._place(call)
            elif self._start_thread(call):
                self._place(call)
            else:
                call.error = RuntimeError(_NO_THREAD)
                self._discharge(call.group)
                refused.append(call)
        return refused

    def _place(self, call: _Call[Any]) -> None:
        call.has_place = True
        self._busy += 1

    def _start_thread(self, call: _Call[Any]) -> bool:
        box: _Box = SimpleQueue()
        box.put(call)  # not among the thread's arguments: it keeps those until it ends
        thread = threading.Thread(
            target=self._work, args=(box,), name="httpx-refresh blocking call", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            return False
        return True

    def _work(self, box: _Box) -> None:
        while (call := self._next(box)) is not None:
            call.make()
            with self._lock:
                if call.has_place:
                    call.has_place = False
                    self._busy -= 1
                self._discharge(call.group)
                self._idle.append(box)
                refused = self._begin()  # most likely gives the next call to this very thread
            call.report()
            _report(refused)
            del call, refused  # A thread that waits keeps nothing of theirs.

    def _next(self, box: _Box) -> _Call[Any] | None:
        """Wait for a thread's next call; None if there is none for some seconds."""
        with suppress(Empty):
            return box.get(timeout=_IDLE)
        with self._lock:
            if box in self._idle:
                self._idle.remove(box)
                return None
        return box.get()  # It was filled as the time was up.


def _pop_first(calls: dict[_Call[Any], None]) -> _Call[Any]:
    call = next(iter(calls))
    del calls[call]
    return call


def _report(calls: list[_Call[Any]]) -> None:
    for call in calls:
        call.report()


_threads = _Threads()


def _begin_again() -> None:
    """Drop threads and calls: after a fork they are the parent's."""
    global _threads
    _threads = _Threads()


if hasattr(os, "register_at_fork"):  # pragma: no branch  # nothing forks on Windows
    os.register_at_fork(after_in_child=_begin_again)
