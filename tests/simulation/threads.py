"""Threads that make sync calls, and the library's own event loop, which runs their refreshes.

A simulated thread is an operating system thread that runs only while the world waits for it. It gives its turn back
where it would block: on an answer of the API, on the library's own loop, or on a sleep. It may also lose its turn when
it reads a clock. The seed decides which thread or event loop gets the next turn, so a seed repeats exactly.

The code of `own_loop.run` is the real one, except for the thread of the loop and the future that the caller waits for.
Not simulated: the end of the interpreter, and preemption at other points than these.
"""

from __future__ import annotations

from concurrent import futures
from contextlib import contextmanager
from threading import Lock, local
from threading import Thread as SystemThread
from typing import TYPE_CHECKING, Any
from unittest import mock

from httpx_refresh import _auth
from httpx_refresh._refresh import own_loop
from httpx_refresh._refresh.host import CHANGING
from tests.simulation.caller import Caller
from tests.simulation.loop import Loop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

    from tests.simulation.process import Process

_here = local()
_LOSES_TURN = 0.1
"""How likely a thread loses its turn when it looks at a clock."""


class Killed(BaseException):
    """Raised in a simulated thread after the simulation, to end the system's thread."""


def thread_here() -> Thread | None:
    """Return the simulated thread that runs now; None on the world's own thread."""
    return getattr(_here, "thread", None)


class Thread:
    """A thread of a process. It runs from one turn to the next, as a `Loop` does, and blocks in between."""

    def __init__(self, process: Process, name: str) -> None:
        self.process = process
        self.world = process.world
        self.name = name
        self.running = True
        """False while the process is stopped, and for good once it is dead."""
        self.calls_ended = 0
        """How many calls that might be interrupted have ended. An interrupt that comes too late does nothing."""
        self._work: Callable[[], None] = lambda: None
        self._has_turn = False
        self._interrupted = False
        self._over = False
        self._killed = False
        self._go, self._back = Lock(), Lock()
        self._go.acquire()
        self._back.acquire()
        self._thread = SystemThread(target=self._main, name=name, daemon=True)
        self.world.threads.append(self)

    def start(self, work: Callable[[], None]) -> None:
        """Have the thread call `work`, from its first turn on."""
        self._work = work
        self._thread.start()
        self.wake()

    # -- what the world does with it ---------------------------------------------------------------------------

    def wake(self) -> None:
        """Give it a turn soon."""
        if not self._has_turn and not self._over:
            self._has_turn = True
            if self.running:
                self.world.awake.append(self)

    def step(self) -> None:
        """Let it run until it blocks."""
        self._has_turn = False
        self.world.awake.remove(self)
        self._go.release()
        self._back.acquire()

    def interrupt(self, calls_ended: int) -> None:
        """Raise KeyboardInterrupt where the thread waits, unless the call that was to be interrupted has ended."""
        if self.running and self.calls_ended == calls_ended:
            self._interrupted = True
            self.wake()

    def stop_running(self) -> None:
        """Give it no turn until `go_on`."""
        self.running = False
        if self._has_turn:
            self.world.awake.remove(self)

    def go_on(self) -> None:
        self.running = True
        if self._has_turn:
            self.world.awake.append(self)

    def die(self) -> None:
        """Give it no turn any more: no handler runs, and no `finally`."""
        if self.running:
            self.stop_running()
        self._over = True

    def dispose(self) -> None:
        """End the system's thread, after the simulation."""
        self._killed = True
        if self._thread.is_alive():
            self._go.release()
            self._thread.join()

    # -- what it does itself -----------------------------------------------------------------------------------

    def _main(self) -> None:
        _here.thread = self
        error: BaseException | None = None
        try:
            self._block(gives_back=False)
            self._work()
        except Killed:
            return
        except BaseException as raised:
            error = raised
        if not self._killed:
            self._over = True
            self.process.thread_ended(self, error)
            self._back.release()

    def _block(self, *, gives_back: bool = True) -> None:
        if gives_back and not self._killed:
            self._back.release()
        if not self._killed:
            self._go.acquire()
        if self._killed:
            raise Killed
        if self._interrupted:
            self._interrupted = False
            raise KeyboardInterrupt

    def wait(self, done: Callable[[], bool], seconds: float | None) -> None:
        """Block until it is done, or for so many seconds of the machine's monotonic clock.

        Raises:
            KeyboardInterrupt: the thread was interrupted.
        """
        machine, world = self.process.machine, self.world
        due = None if seconds is None else machine.monotonic() + seconds
        while not done() and (due is None or machine.monotonic() < due):
            if due is not None:
                world.at(machine.moment(due) + 1e-7, self.wake)
            self._block()

    def sleep(self, seconds: float) -> None:
        """Block for so many seconds."""
        self.wait(lambda: False, seconds)

    def perhaps_lose_turn(self) -> None:
        """Let others run before it goes on, or not. A thread that holds the library's lock keeps its turn."""
        if not CHANGING._is_owned() and self.world.random.random() < _LOSES_TURN:  # type: ignore[attr-defined]  # typeshed does not have it
            self.wake()
            self._block()  # Here, too, it may be interrupted.


class Answer(futures.Future[Any]):
    """A future that a simulated thread can wait for."""

    def result(self, timeout: float | None = None) -> Any:
        thread = thread_here()
        if thread is not None and not self.done():
            self.add_done_callback(lambda _: thread.wake())
            thread.wait(self.done, timeout)
            timeout = 0.0
        return super().result(timeout)


class OwnLoop:
    """Replaces `own_loop._OwnLoop`. Its event loop is one of the world's, and has no thread."""

    def __init__(self, process: Process) -> None:
        self.loop = Loop(process.world, process.machine, shuffled=process.world.plan.shuffled)
        self.loop.owner = process.name
        self.loop.is_own = True
        self.longest = 0.0


def _own_of_this_process(seconds: float) -> OwnLoop:
    thread = thread_here()
    assert thread is not None, "only a thread without an event loop needs the library's own"
    process = thread.process
    if process.own is None:
        process.own = OwnLoop(process)
    process.own.longest = max(process.own.longest, seconds)
    return process.own


def _own_loop_here() -> object | None:
    thread = thread_here()
    return None if thread is None or thread.process.own is None else thread.process.own.loop


class _Time:
    """What `_auth` uses of the module `time`."""

    @staticmethod
    def sleep(seconds: float) -> None:
        thread = thread_here()
        assert thread is not None
        thread.sleep(seconds)


@contextmanager
def in_simulated_threads() -> Iterator[None]:
    """Let sync calls of simulated threads run on their process's own loop, and block in virtual time."""
    with (
        mock.patch.object(own_loop, "_get", _own_of_this_process),
        mock.patch.object(own_loop, "own_loop", _own_loop_here),
        mock.patch.object(futures, "Future", Answer),
        mock.patch.object(_auth, "time", _Time),
    ):
        yield


class SyncCaller(Caller):
    """A caller in a thread: it uses `sync_auth_flow` and `auth.sync`, and blocks.

    Its coroutines never suspend: what a `Caller` awaits, it waits for in here.
    """

    def __init__(self, process: Process, name: str) -> None:
        super().__init__(process, name)
        self._thread = Thread(process, name)

    def start(self, work: Coroutine[Any, Any, None]) -> Thread:
        """Run one of this caller's coroutines in its thread."""
        self._thread.start(lambda: _to_the_end(work))
        return self._thread

    async def _sleep(self, seconds: float) -> None:
        self._thread.sleep(seconds)

    def _flow(self, request: Any) -> Any:
        return _BlockingFlow(self._process.auth.sync_auth_flow(request))

    def _answer(self) -> Any:
        return Answer()

    async def _wait_for(self, answer: Any) -> Any:
        return answer.result()

    async def _ask_token(self) -> Any:
        return self._process.auth.sync.token()

    async def _ask_refresh(self) -> Any:
        return self._process.auth.sync.refresh()

    async def _ask_set_token(self, token: Any) -> None:
        self._process.auth.sync.set_token(token)

    async def _cancelled(self, ask: Callable[[], Awaitable[bool]]) -> None:
        """Ask, but not for long: Ctrl-C is pressed, or a time-out raises in this thread."""
        world, process, thread = self._world, self._process, self._thread
        patience = world.random.choice([0.0, 0.05, 0.3, 1.0]) * process.refresh_timeout
        due, stopped = process.machine.monotonic() + patience, process.time_stopped
        since = thread.calls_ended
        world.at(process.machine.moment(due) + 1e-7, lambda: thread.interrupt(since))
        try:
            await self._answered(ask)
        except KeyboardInterrupt:
            world.note(self._name, "is interrupted")
            late = process.machine.monotonic() - due
            world.require(
                late < 1e-6 or process.time_stopped != stopped,
                "a caller that is interrupted ends at once",
                self._name,
                late,
            )
        thread.calls_ended += 1


class _BlockingFlow:
    """A sync flow with an async flow's methods, which do not suspend."""

    def __init__(self, flow: Any) -> None:
        self._flow = flow

    async def __anext__(self) -> Any:
        return next(self._flow)

    async def asend(self, response: Any) -> Any:
        try:
            return self._flow.send(response)
        except StopIteration:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        self._flow.close()


def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("what blocks has suspended")
