"""Blocking calls: where they run, how many at once, and what happens when nobody waits for them."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import subprocess
import sys
import threading
import traceback
import weakref
from collections.abc import Hashable, Iterator
from queue import Empty, SimpleQueue
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from httpx_refresh import _threads
from httpx_refresh._threads import run_blocking

ASYNCIO = pytest.mark.parametrize(
    "anyio_backend", ["asyncio", "asyncio+uvloop"], indirect=True
)  # where a task can be cancelled, or its loop closed, without anyio
LONG = 30.0  # seconds after which a test that waits has failed


class Stuck:
    """A call that hangs until it is told to return; says when it began."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.ended = threading.Semaphore(0)
        self.at_once = 0
        self._running = 0
        self._lock = threading.Lock()

    def __call__(self, result: object = None) -> object:
        with self._lock:
            self._running += 1
            self.at_once = max(self.at_once, self._running)
        self.begun.release()
        assert self.go_on.wait(LONG)
        with self._lock:
            self._running -= 1
        self.ended.release()
        return result

    async def has_begun(self, times: int = 1) -> None:
        for _ in range(times):
            assert await anyio.to_thread.run_sync(self.begun.acquire, True, LONG)

    async def has_ended(self, times: int = 1) -> None:
        for _ in range(times):
            assert await anyio.to_thread.run_sync(self.ended.acquire, True, LONG)

    def now_running(self) -> int:
        with self._lock:
            return self._running


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    stuck = Stuck()
    yield stuck
    stuck.go_on.set()


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> _threads._Threads:
    """The threads of this test, and none of another."""
    threads = _threads._Threads()
    monkeypatch.setattr(_threads, "_threads", threads)
    return threads


async def nothing_runs(threads: _threads._Threads) -> None:
    """Wait until all calls are over, and check what is kept then."""
    with anyio.fail_after(LONG):
        while threads._groups:
            await anyio.lowlevel.checkpoint()
    assert threads._busy == 0
    assert not threads._ready


@pytest.mark.anyio
async def test_a_call_runs_in_a_daemon_thread_and_its_result_is_returned() -> None:
    def look(one: int, two: str) -> tuple[threading.Thread, int, str]:
        return threading.current_thread(), one, two

    thread, *args = await run_blocking(look, 1, "2", group="look")
    assert thread is not threading.current_thread()
    assert thread.daemon
    assert args == [1, "2"]


@pytest.mark.anyio
async def test_what_a_call_raises_comes_without_the_frames_that_hold_what_it_works_on() -> None:
    def fail(secret: str) -> None:
        try:
            raise KeyError(secret)
        except KeyError as error:
            raise ValueError("fit to be shown") from error

    with pytest.raises(ValueError, match="fit to be shown") as caught:
        await run_blocking(fail, "se" + "same", group="fail")
    said = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    lines = "".join(line for line in said.format() if "sesame" in line)
    assert lines == ""
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert caught.traceback[-1].name == "run_blocking"


@pytest.mark.anyio
async def test_even_an_exit_that_a_call_raises_is_the_callers() -> None:
    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit) as caught:
        await run_blocking(leave, group="leave")
    assert caught.value.code == 3


@pytest.mark.anyio
async def test_a_call_sees_the_callers_context_and_changes_only_its_own() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("the caller's")

    def change() -> str:
        seen = variable.get()
        variable.set("the call's")
        return seen

    assert await run_blocking(change, group="context") == "the caller's"
    assert variable.get() == "the caller's"


@pytest.mark.anyio
async def test_calls_in_a_row_share_one_thread(threads: _threads._Threads) -> None:
    idents = {await run_blocking(threading.get_ident, group="row") for _ in range(20)}
    assert len(idents) == 1


@pytest.mark.anyio
async def test_a_thread_without_a_call_ends(
    threads: _threads._Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_threads, "_IDLE", 0.0)
    thread = await run_blocking(threading.current_thread, group="short")
    await anyio.to_thread.run_sync(thread.join, LONG)
    assert not thread.is_alive()
    assert threads._idle == []
    assert await run_blocking(threading.current_thread, group="short") is not thread


def test_a_call_that_comes_as_a_threads_time_is_up_is_made(threads: _threads._Threads) -> None:
    call: Any = object()

    class TimeIsUp(SimpleQueue[Any]):
        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            if timeout is not None:
                raise Empty
            return call

    assert threads._next(TimeIsUp()) is call


@pytest.mark.anyio
async def test_a_thread_that_waits_keeps_nothing_of_its_last_call(
    threads: _threads._Threads,
) -> None:
    class Text:
        """What a call works on."""

    async def call() -> weakref.ref[Text]:
        text = Text()
        assert await run_blocking(lambda one: one, text, group="text") is text
        return weakref.ref(text)

    kept = await call()
    await nothing_runs(threads)
    with anyio.fail_after(LONG):
        while kept() is not None:  # The thread may still be on its way to where it waits.
            gc.collect()
            await anyio.lowlevel.checkpoint()


@pytest.mark.anyio
async def test_a_caller_that_is_cancelled_leaves_a_stuck_call_at_once(
    threads: _threads._Threads, stuck: Stuck
) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: run_blocking(stuck, group="stuck"))
        await stuck.has_begun()
        group.cancel_scope.cancel()
    assert stuck.now_running() == 1
    stuck.go_on.set()
    await stuck.has_ended()
    await nothing_runs(threads)


@ASYNCIO
@pytest.mark.anyio
async def test_a_task_that_is_cancelled_leaves_a_stuck_call_at_once(
    threads: _threads._Threads, stuck: Stuck
) -> None:
    task = asyncio.create_task(run_blocking(stuck, group="stuck"))
    await stuck.has_begun()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stuck.now_running() == 1
    stuck.go_on.set()
    await nothing_runs(threads)


@ASYNCIO
@pytest.mark.anyio
async def test_a_coroutine_that_is_collected_leaves_its_call(
    threads: _threads._Threads, stuck: Stuck
) -> None:
    """Like a loop that is closed without being cancelled; the collector may hold the lock."""
    running = run_blocking(stuck, group="stuck")
    await anyio.lowlevel.checkpoint()
    while threads._busy == 0:
        running.send(None)
    with threads._lock:
        running.close()
    stuck.go_on.set()
    await nothing_runs(threads)


@ASYNCIO
@pytest.mark.anyio
async def test_calls_whose_coroutines_were_collected_before_they_began_are_never_made(
    threads: _threads._Threads, stuck: Stuck, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    monkeypatch.setattr(_threads, "_MOST", 4)
    four = [asyncio.create_task(run_blocking(stuck, group="stuck")) for _ in range(4)]
    await stuck.has_begun(4)
    for name in ("stuck", "another"):  # waits for its group, and waits for a thread
        running = run_blocking(made.append, name, group=name)
        running.send(None)
        running.close()
    stuck.go_on.set()
    await asyncio.gather(*four)
    await nothing_runs(threads)
    assert made == []


@pytest.mark.anyio
async def test_a_caller_that_is_cancelled_already_makes_no_call(
    threads: _threads._Threads,
) -> None:
    made: list[str] = []
    with anyio.CancelScope() as scope:
        scope.cancel()
        await run_blocking(made.append, "a call", group="cancelled")
    assert scope.cancelled_caught
    assert threads._groups == {}
    assert made == []


@pytest.mark.anyio
async def test_four_calls_of_a_group_run_at_once_and_a_fifth_waits_while_other_groups_go_on(
    threads: _threads._Threads, stuck: Stuck
) -> None:
    results: list[object] = []

    async def call(number: int) -> None:
        results.append(await run_blocking(stuck, number, group="stuck"))

    async with anyio.create_task_group() as group:
        for number in range(7):
            group.start_soon(call, number)
        await stuck.has_begun(4)
        await anyio.wait_all_tasks_blocked()
        assert await run_blocking(lambda: "another", group="another") == "another"
        assert stuck.now_running() == 4
        stuck.go_on.set()
    assert stuck.at_once <= 4
    assert sorted(map(str, results)) == list("0123456")
    await nothing_runs(threads)


@pytest.mark.anyio
async def test_a_fifth_call_after_four_that_are_stuck_waits_until_its_callers_deadline(
    threads: _threads._Threads, stuck: Stuck
) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(lambda: run_blocking(stuck, group="stuck"))
        await stuck.has_begun(4)
        group.cancel_scope.cancel()
    # The abandoned calls use the places of their group only.
    assert threads._busy == 0
    with anyio.CancelScope() as fifth:
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: run_blocking(stuck, group="stuck"))
            await anyio.wait_all_tasks_blocked()
            fifth.cancel()
    assert stuck.now_running() == 4
    stuck.go_on.set()
    await nothing_runs(threads)
    assert stuck.at_once == 4
    assert not stuck.begun.acquire(blocking=False)


@pytest.mark.anyio
async def test_a_caller_that_is_cancelled_as_its_call_ends_frees_no_place_twice(
    threads: _threads._Threads,
) -> None:
    reported = anyio.Event()
    call = _threads._Call(int, (), "group", _threads.waker(reported.set))
    threads.submit(call)
    await reported.wait()
    threads.leave(call)
    await nothing_runs(threads)


@pytest.mark.anyio
async def test_no_more_than_so_many_calls_run_that_somebody_waits_for(
    threads: _threads._Threads, stuck: Stuck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_threads, "_MOST", 3)
    scopes: dict[Hashable, anyio.CancelScope] = {}
    results: list[object] = []

    async def call(number: int) -> None:
        with anyio.CancelScope() as scopes[number]:
            results.append(await run_blocking(stuck, number, group=number))

    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(call, number)
            await anyio.wait_all_tasks_blocked()
        await stuck.has_begun(3)
        assert len(threads._ready) == 3
        assert stuck.now_running() == 3
        # One that waits for a thread is cancelled: it is never made. One that runs is abandoned: another begins.
        waiting = [call.group for call in threads._ready]
        scopes[waiting[0]].cancel()
        await anyio.wait_all_tasks_blocked()
        assert [call.group for call in threads._ready] == waiting[1:]
        running = (scopes.keys() - waiting).pop()
        scopes[running].cancel()
        await stuck.has_begun()
        assert stuck.now_running() == 4
        stuck.go_on.set()
    assert len(results) == 4
    await nothing_runs(threads)


@pytest.mark.anyio
async def test_where_no_thread_can_be_started_the_call_is_an_error_that_says_so(
    threads: _threads._Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="no thread can be started") as caught:
            await run_blocking(made.append, "a call", group="full")
        assert caught.value.__context__ is None
    await nothing_runs(threads)
    assert made == []
    await run_blocking(made.append, "a call", group="full")
    assert made == ["a call"]


@pytest.mark.anyio
async def test_a_call_that_waited_learns_that_no_thread_can_be_started(
    threads: _threads._Threads, stuck: Stuck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_threads, "_MOST", 1)
    errors: list[BaseException] = []

    async def wait() -> None:
        with pytest.raises(RuntimeError, match="no thread can be started") as caught:
            await run_blocking(stuck, group="waits")
        errors.append(caught.value)

    async with anyio.create_task_group() as group:
        scope = anyio.CancelScope()

        async def run() -> None:
            with scope:
                await run_blocking(stuck, group="runs")

        group.start_soon(run)
        await stuck.has_begun()
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()

        def start(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as full:
            full.setattr(threading.Thread, "start", start)
            scope.cancel()
            await anyio.wait_all_tasks_blocked()
            with anyio.fail_after(LONG):
                while not errors:
                    await anyio.lowlevel.checkpoint()
    stuck.go_on.set()
    await nothing_runs(threads)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_call_that_ends_after_its_event_loop_reports_to_nobody(
    threads: _threads._Threads, stuck: Stuck, backend: str
) -> None:
    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: run_blocking(stuck, group="stuck"))
            await stuck.has_begun()
            group.cancel_scope.cancel()

    anyio.run(main, backend=backend)
    stuck.go_on.set()
    assert stuck.ended.acquire(timeout=LONG)
    anyio.run(nothing_runs, threads, backend=backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_event_loops_of_several_threads_share_the_places(
    threads: _threads._Threads, backend: str
) -> None:
    at_once: list[int] = []
    counted = Stuck()
    counted.go_on.set()

    async def call_many() -> None:
        async def call() -> None:
            for _ in range(20):
                await run_blocking(counted, group="counted")

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(call)
        at_once.append(counted.at_once)

    loops = [
        threading.Thread(target=anyio.run, args=(call_many,), kwargs={"backend": backend})
        for _ in range(3)
    ]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join()
    assert len(at_once) == 3
    assert max(at_once) <= 4
    for _ in range(300):
        assert counted.ended.acquire(blocking=False)
    anyio.run(nothing_runs, threads, backend=backend)


STUCK_AT_EXIT = """
import sys, threading
import anyio
from httpx_refresh._threads import run_blocking

begun = threading.Event()

def hang():
    begun.set()
    threading.Event().wait()

async def main():
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: run_blocking(hang, group="stuck"))
            while not begun.is_set():
                await anyio.sleep(0.01)
            scope.cancel()
    print("left")

anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_stuck_call_does_not_keep_the_interpreter_from_ending(backend: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STUCK_AT_EXIT, backend],
        capture_output=True,
        text=True,
        timeout=LONG,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("left\n", "")


FORKS = """
import os, sys, threading, warnings
import anyio
from httpx_refresh import _threads
from httpx_refresh._threads import run_blocking

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads: that is what is tried here
go_on = threading.Event()

async def main():
    parents = await run_blocking(threading.get_native_id, group="same")
    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(lambda: run_blocking(go_on.wait, group="same"))
        await anyio.wait_all_tasks_blocked()
        with _threads._threads._lock:  # as another thread might
            child = os.fork()
        if child == 0:
            os._exit(in_child(parents))
        go_on.set()
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

def in_child(parents):
    async def call():
        return await run_blocking(threading.get_native_id, group="same")

    result = []
    loop = threading.Thread(target=lambda: result.append(anyio.run(call, backend="trio")))
    loop.start()
    loop.join(20)
    return 0 if result and result[0] != parents else 1

anyio.run(main)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="nothing forks on Windows")
def test_a_forked_child_has_threads_and_places_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=LONG, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


AT_EXIT = """
import atexit
import anyio
from httpx_refresh._threads import run_blocking

async def call():
    try:
        print(await run_blocking(lambda: "made", group="late"))
    except RuntimeError as error:
        print(str(error)[:26])

atexit.register(anyio.run, call)
"""


def test_a_call_while_the_interpreter_ends_is_made_or_is_an_error_that_says_so() -> None:
    """The version of Python decides which of the two it is."""
    done = subprocess.run(
        [sys.executable, "-c", AT_EXIT], capture_output=True, text=True, timeout=LONG, check=True
    )
    assert done.stderr == ""
    assert done.stdout in ("made\n", "no thread can be started f\n")
