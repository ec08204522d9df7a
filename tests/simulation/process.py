"""A process of the world: its session, its event loops, and how it is stopped, killed and started again."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from httpx_refresh import RefreshAuth
from httpx_refresh._refresh import own_loop
from httpx_refresh._refresh.host import Host
from httpx_refresh._refresh.session import Session
from httpx_refresh._refresh.slot import Slot
from tests.simulation.caller import Caller
from tests.simulation.endpoint import Odd
from tests.simulation.loop import Loop, Machine
from tests.simulation.plan import NEVER
from tests.simulation.threads import SyncCaller, thread_here

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from httpx_refresh import Token
    from tests.simulation.threads import OwnLoop, Thread
    from tests.simulation.world import World


CALLER = "caller"
STRIKES = ("crash", "stop", "sleep", "shutdown", "exit", "close", "aclose")
_NO_EXCUSE = {"shutdown", "exit", "aclose"}
"""Nothing is lost for these."""


class Standing(dict[str, Any]):
    """What a process remembers of its own claims. There are many processes in this one: each sees no other's."""

    def get(self, nonce: str, default: Any = None) -> Any:
        return super().get(nonce, default) if self._is_own(nonce) else default

    def items(self) -> Any:
        return {nonce: claim for nonce, claim in super().items() if self._is_own(nonce)}.items()

    def _is_own(self, nonce: str) -> bool:
        owner = asyncio.get_running_loop().owner  # type: ignore[attr-defined]  # a `Loop`'s
        return nonce.startswith(f"{owner}#")


class SimulatedHost(Host):
    """The seam: what a session asks of its machine, the world answers."""

    __slots__ = ("_process",)

    def __init__(self, process: Process) -> None:
        self._process = process

    def wall(self) -> float:
        return self._process.wall()

    def monotonic(self) -> float:
        return self._process.machine.monotonic()

    def name(self) -> str:
        return self._process.name

    def nonce(self) -> str:
        return self._process.world.watch.new_nonce(self._process)

    def jitter(self, value: float, least: float) -> float:
        return value * self._process.world.random.uniform(least, 1.0)


class ThreadedHost(SimulatedHost):
    """The same where threads run: one that looks at a clock may lose its turn."""

    __slots__ = ()

    def wall(self) -> float:
        thread = thread_here()
        if thread is not None:
            thread.perhaps_lose_turn()
        return super().wall()

    def monotonic(self) -> float:
        thread = thread_here()
        if thread is not None:
            thread.perhaps_lose_turn()
        return super().monotonic()


class Process:
    """One process; when it starts again after its death, it is another one of these on the same machine."""

    def __init__(self, world: World, machine: Machine, number: int, *, start: int = 1) -> None:
        plan = world.plan
        self.world = world
        self.machine = machine
        self.number = number
        self.start = start
        self.refresh_timeout = plan.timeout_of(number)
        self.refresh_before = plan.refresh_before
        self.name = f"{machine.name}.{start}"
        self.alive = True
        self.stopped_at: float | None = None
        self.time_stopped = 0.0
        self._callers: dict[asyncio.Task[None] | Thread, Loop | None] = {}
        """Those that have not come to their end."""
        self.refused: set[str] = set()
        """Access tokens that the API refused to somebody in this process."""
        self.lacking: set[str] = set()
        """Access tokens that the API accepts, but for which it wanted claims of somebody in this process."""
        self.unsaved: set[str] = set()
        """Access tokens that the store failed to save for this process."""
        self.forces = False
        self.login: str | None = None
        """The last access token that the application put into the store, from this process."""
        self.auth = self._new_auth()
        self.session = self.auth._session
        self.loops: list[Loop] = []
        self.own: OwnLoop | None = None
        """The library's own event loop; None until a thread needs it."""
        self.threads: list[Thread] = []
        self._strikes = [s for s in STRIKES if plan.has(s)]
        self._asleep = False
        self._ending: list[Loop] = []
        self._fuse: tuple[Loop, int] | None = None
        world.note(self.name, "starts")
        for _ in range(plan.loops):
            self._begin_loop()
        for number in range(plan.threads):
            caller = SyncCaller(self, f"{self.name}/t{number}")
            self.call_in_thread(caller, caller.run())

    def _new_auth(self) -> RefreshAuth:
        """Make what is tested, on this process's machine. A source that declares what cannot be meant is refused."""
        source, store = self.world.endpoint_of(self), self.world.store_of(self)
        try:
            auth = RefreshAuth(source, store)
        except (TypeError, ValueError):
            source.reuse_grace = 0.0
            auth = RefreshAuth(source, store)
        host = ThreadedHost(self) if self.world.plan.threads else SimulatedHost(self)
        auth._session = Session(
            source,
            Slot(store, host, refresh_timeout=self.refresh_timeout),
            refresh_before=self.refresh_before,
            on_unsaved=self._unsaved if self.world.plan.on_unsaved else None,
        )
        return auth

    async def _unsaved(self, token: Token) -> None:
        """What the application does with a token that is not saved."""
        does = self.world.plan.on_unsaved
        self.world.note(self.name, f"is handed {token.access_token}, and {does}")
        if does == "raises":
            raise Odd("no")
        await anyio.sleep(0.1 if does == "waits" else NEVER)

    @property
    def calling(self) -> bool:
        """Whether a caller has not come to its end."""
        return self.alive and bool(self._callers)

    def wall(self) -> float:
        return self.machine.wall()

    def fault(self, what: str) -> None:
        """Note something that went wrong for this process: a reason for what may come of it."""
        self.world.watch.faults.setdefault(self.name, []).append((self.world.now, what))

    # -- answers that come in ----------------------------------------------------------------------------------

    def hands(self, answer: asyncio.Future[Any], result: object) -> None:
        if self.alive and not answer.done():
            answer.set_result(result)

    def raises(self, answer: asyncio.Future[Any], error: BaseException) -> None:
        if self.alive and not answer.done():
            answer.set_exception(error)

    def is_refused(self) -> bool:
        """Whether the endpoint refuses this process's client now."""
        since, until, most = self.world.plan.refuses_clients
        return since <= self.world.now < until and self.number < most

    # -- loops and callers -------------------------------------------------------------------------------------

    def _begin_loop(self) -> None:
        world = self.world
        loop = Loop(world, self.machine, shuffled=world.plan.shuffled)
        loop.owner = self.name
        self.loops.append(loop)
        for number in range(world.plan.callers):
            self.call(loop, Caller(self, f"{self.name}/{len(self.loops)}{chr(97 + number)}").run())

    def call(self, loop: Loop, work: Coroutine[Any, Any, None]) -> None:
        """Start a caller on a loop."""
        task = loop.create_task(work, name=CALLER)
        self._callers[task] = loop
        task.add_done_callback(self._called)

    def call_in_thread(self, caller: SyncCaller, work: Coroutine[Any, Any, None]) -> None:
        """Start a caller in its thread."""
        thread = caller.start(work)
        self.threads.append(thread)
        self._callers[thread] = None

    def thread_ended(self, thread: Thread, error: BaseException | None) -> None:
        """Take note that a caller in a thread has come to its end."""
        del self._callers[thread]
        self.threads.remove(thread)
        self.world.require(error is None, "a caller knows all that can happen to it", repr(error))

    def _everything(self) -> list[Loop | Thread]:
        """What runs in this process."""
        own = [] if self.own is None else [self.own.loop]
        return [*self.loops, *own, *self.threads]

    def _called(self, task: asyncio.Task[None]) -> None:
        del self._callers[task]
        error = None if task.cancelled() else task.exception()
        self.world.require(error is None, "a caller knows all that can happen to it", repr(error))

    # -- what strikes it ---------------------------------------------------------------------------------------

    def hazard(self) -> None:
        """Perhaps light a fuse: within a few steps from here something strikes, at whatever await that is."""
        if self._strikes and self.world.chance(self.world.plan.strike):
            if self._fuse is not None:
                self._fuse[0].on_step = None
            own = [] if self.own is None else [self.own.loop]
            self._fuse = (self.world.choice([*self.loops, *own]), self.world.below(8))
            self._fuse[0].on_step = self._burn

    def _burn(self, loop: Loop) -> None:
        if self._fuse is not None:
            self._fuse = (loop, self._fuse[1] - 1)
            if self._fuse[1] < 0:
                self._fuse = loop.on_step = None
                if not self.world.calm:
                    self._strike(self.world.random.choice(self._strikes), loop)

    def _strike(self, what: str, loop: Loop) -> None:
        world, timeout = self.world, self.refresh_timeout
        if world.plan.lenient or what not in _NO_EXCUSE:
            self.fault(what)
        world.note(self.name, f"is struck: {what}")
        if loop not in self.loops:  # The library's own, which has no end of its own.
            loop = self.loops[0]
        if what == "crash":
            self.die()
            world.after(world.random.uniform(0.0, 3.0 * timeout), self.restart)
        elif what == "close":
            self._close_loop(loop)
        elif what in ("shutdown", "exit", "aclose"):
            if loop not in self._ending:
                gently = what == "aclose" or world.random.random() < 0.5
                self._end_loop(loop, gently=gently, exits=what == "exit")
        else:
            lasts = world.random.choice([0.1, 0.5, 1.2, 2.0, 6.0]) * timeout
            self.stopped_at, self._asleep = world.now, what == "sleep"
            for one in self._everything():
                one.stop_running()
            world.after(lasts, partial(self.go_on, world.now))

    def go_on(self, stopped_at: float | None) -> None:
        """Go on, if it is stopped, and was since then."""
        if self.alive and self.stopped_at is not None and self.stopped_at == stopped_at:
            stood = self.world.now - self.stopped_at
            self.stopped_at = None
            self.time_stopped += stood
            self.fault("pause")
            self.world.note(self.name, f"goes on after {stood:.2f} s")
            if self._asleep:
                self.machine.slept(stood)
            for one in self._everything():
                one.go_on()

    def die(self) -> None:
        """End at once: whatever it was about to do, it never does."""
        self.alive = False
        for one in self._everything():
            one.die()

    def restart(self) -> None:
        """Start it again, if it is dead."""
        processes = self.world.processes
        if not self.alive and processes[self.machine.name] is self:
            processes[self.machine.name] = Process(
                self.world, self.machine, self.number, start=self.start + 1
            )

    def _end_loop(self, loop: Loop, *, gently: bool, exits: bool) -> None:
        """End an event loop as asyncio.run does: cancel all its tasks and wait for them; then begin another one.

        Gently: as `async with auth` does, which waits for what is under way.
        """
        self._ending.append(loop)
        self.world.watch.not_saved(self)
        if not gently:
            self._cancel_all(loop, exits=exits)
            return
        for task in loop.left():
            if task.get_name() == CALLER:
                task.cancel()
        closing = loop.create_task(self._aclose())
        closing.add_done_callback(lambda _: self._cancel_all(loop, exits=exits))

    def _exit(self) -> None:
        """End as the interpreter does: what runs on the library's own loop is told so, and is waited for."""
        world, own = self.world, self.own

        def ends() -> None:
            if self.alive:
                self.die()
                world.after(world.random.uniform(0.0, 3.0 * self.refresh_timeout), self.restart)

        if own is None:
            ends()
            return
        for thread in self.threads:  # Daemon threads: they do not go on.
            thread.die()
        ending = own.loop.create_task(own_loop._end_tasks())
        ending.add_done_callback(lambda _: world.after(0.0, ends))
        world.at(self.machine.moment(self.machine.monotonic() + own.longest), ends)

    async def _aclose(self) -> None:
        """Close, and see that this takes no longer than it may, and spends nothing for nobody."""
        world, watch = self.world, self.world.watch
        began, stopped = world.now, self.time_stopped
        alone = len(self.loops) == 1 and not self.threads
        await self.auth.aclose()
        if world.plan.lenient:
            return
        took = world.now - began - (self.time_stopped - stopped)
        world.require(took <= 2.0 * self.refresh_timeout + 0.5, "aclose ends in time", took)
        begun = watch.claims_since(began, self) if alone else []
        world.require(not begun, "aclose starts nothing new", *begun)

    def _cancel_all(self, loop: Loop, *, exits: bool) -> None:
        """Cancel every task that asyncio knows of, once or a few times, and go on when they are done."""
        world, left = self.world, loop.left()
        for task in left:
            task.cancel()
        for _ in range(world.random.choice([0, 0, 1, 3])):
            moment = world.random.uniform(0.0, 0.5) * self.refresh_timeout
            world.after(moment, lambda: self._cancel_again(loop, left))
        waits_for = set(left)

        def done(task: asyncio.Task[Any]) -> None:
            waits_for.discard(task)
            if not waits_for:
                self._close_soon(loop, 3, exits=exits)

        for task in left:
            task.add_done_callback(done)
        if not left:
            self._close_soon(loop, 3, exits=exits)

    def _cancel_again(self, loop: Loop, tasks: list[asyncio.Task[Any]]) -> None:
        if self.alive and loop.running:
            for task in tasks:
                task.cancel()

    def _close_soon(self, loop: Loop, turns: int, *, exits: bool) -> None:
        """Close the loop after as many turns as `asyncio.run` takes for its asynchronous generators and executors.

        A turn runs all handles that are ready when it begins.
        """
        due = list(loop.ready)

        def again() -> None:
            if any(handle in loop.ready for handle in due):
                loop.call_soon(again)
            elif turns:
                self._close_soon(loop, turns - 1, exits=exits)
            else:
                self._close_loop(loop, exits=exits)

        loop.call_soon(again)

    def _close_loop(self, loop: Loop, *, exits: bool = False) -> None:
        world = self.world
        world.note(self.name, "exits" if exits else "closes a loop")
        if exits:
            self._exit()
            return
        self._callers = {task: its for task, its in self._callers.items() if its is not loop}
        loop.close()
        self.loops.remove(loop)
        self._begin_loop()
