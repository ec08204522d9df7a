"""A process of the world: its session, its event loops, and how it is stopped, killed and started again."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from httpx_refresh import RefreshAuth
from httpx_refresh._refresh.session import Session
from httpx_refresh._refresh.slot import Host, Slot
from tests.simulation.caller import Caller
from tests.simulation.endpoint import Endpoint
from tests.simulation.loop import Loop, Machine
from tests.simulation.store import Store

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine

    from tests.simulation.world import World


CALLER = "caller"
STRIKES = ("crash", "stop", "sleep", "shutdown")


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


class Process:
    """One process; when it starts again after its death, it is another one of these on the same machine."""

    def __init__(self, world: World, machine: Machine, *, start: int = 1) -> None:
        plan = world.plan
        self.world = world
        self.machine = machine
        self.start = start
        self.name = f"{machine.name}.{start}"
        self.alive = True
        self.stopped_at: float | None = None
        self.time_stopped = 0.0
        self.calling = 0
        """How many callers have not come to their end."""
        self.refused: set[str] = set()
        """Access tokens that the API refused to somebody in this process."""
        self.unsaved: set[str] = set()
        """Access tokens that the store failed to save for this process."""
        self.forces = False
        self.auth = RefreshAuth(Endpoint(world, self), Store(world, self))
        self.session = self.auth._session = Session(
            self.auth._session.endpoint,
            Slot(self.auth._session.slot.store, SimulatedHost(self)),
            refresh_before=plan.refresh_before,
            refresh_timeout=plan.refresh_timeout,
        )
        self.loops: list[Loop] = []
        self._strikes = [s for s in STRIKES if plan.has(s)]
        self._asleep = False
        self._ending: list[Loop] = []
        self._fuse: tuple[Loop, int] | None = None
        world.note(self.name, "starts")
        for _ in range(plan.loops):
            self._begin_loop()

    def wall(self) -> float:
        return self.machine.wall()

    def fault(self, what: str) -> None:
        """Note something that went wrong for this process: a reason for what may come of it."""
        self.world.watch.faults.setdefault(self.name, []).append((self.world.now, what))

    # -- answers that come in ----------------------------------------------------------------------------------

    def hands(self, answer: asyncio.Future[Any], result: object) -> None:
        if self.alive and not answer.done():
            answer.set_result(result)

    def raises(self, answer: asyncio.Future[Any], error: Exception) -> None:
        if self.alive and not answer.done():
            answer.set_exception(error)

    # -- loops and callers -------------------------------------------------------------------------------------

    def _begin_loop(self) -> None:
        world = self.world
        loop = Loop(world, self.machine, shuffled=world.plan.shuffled)
        loop.on_step = self._burn
        self.loops.append(loop)
        for number in range(world.plan.callers):
            self.call(loop, Caller(self, f"{self.name}/{len(self.loops)}{'abc'[number]}").run())

    def call(self, loop: Loop, work: Coroutine[Any, Any, None]) -> None:
        """Start a caller on a loop."""
        self.calling += 1
        loop.create_task(work, name=CALLER).add_done_callback(self._called)

    def _called(self, task: asyncio.Task[None]) -> None:
        self.calling -= 1
        error = None if task.cancelled() else task.exception()
        self.world.require(error is None, "a caller knows all that can happen to it", repr(error))

    # -- what strikes it ---------------------------------------------------------------------------------------

    def hazard(self) -> None:
        """Perhaps light a fuse: within a few steps from here something strikes, at whatever await that is."""
        if self._strikes and self.world.chance(self.world.plan.strike):
            self._fuse = (self.world.random.choice(self.loops), self.world.random.randrange(8))

    def _burn(self, loop: Loop) -> None:
        if self._fuse is not None and self._fuse[0] is loop:
            self._fuse = (loop, self._fuse[1] - 1)
            if self._fuse[1] < 0:
                self._fuse = None
                if not self.world.calm:
                    self._strike(self.world.random.choice(self._strikes), loop)

    def _strike(self, what: str, loop: Loop) -> None:
        world, timeout = self.world, self.world.plan.refresh_timeout
        self.fault(what)
        world.note(self.name, f"is struck: {what}")
        if what == "crash":
            self.die()
            world.after(world.random.uniform(0.0, 3.0 * timeout), self.restart)
        elif what == "shutdown":
            if loop not in self._ending:
                self._end_loop(loop, gently=world.random.random() < 0.5)
        else:
            lasts = world.random.choice([0.1, 0.5, 1.2, 2.0, 6.0]) * timeout
            self.stopped_at, self._asleep = world.now, what == "sleep"
            for one in self.loops:
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
            for one in self.loops:
                one.go_on()

    def die(self) -> None:
        """End at once: whatever it was about to do, it never does."""
        self.alive, self.calling = False, 0
        for loop in self.loops:
            loop.die()

    def restart(self) -> None:
        """Start it again, if it is dead."""
        processes = self.world.processes
        if not self.alive and processes[self.machine.name] is self:
            processes[self.machine.name] = Process(self.world, self.machine, start=self.start + 1)

    def _end_loop(self, loop: Loop, *, gently: bool) -> None:
        """End an event loop as asyncio.run does: cancel all its tasks and wait for them; then begin another one.

        Gently: as `async with auth` does, which waits for what is under way.
        """
        self._ending.append(loop)
        self.world.watch.not_saved(self)
        for task in _left(loop):
            if not gently or task.get_name() == CALLER:
                task.cancel()
        if gently:
            loop.create_task(self.auth.aclose()).add_done_callback(
                lambda _: self._end_loop(loop, gently=False)
            )
        else:
            self._replace_loop(loop)

    def _replace_loop(self, loop: Loop) -> None:
        left = _left(loop)
        if left:
            left[-1].add_done_callback(lambda _: self._replace_loop(loop))
        elif loop.ready:
            loop.call_soon(lambda: self._replace_loop(loop))
        else:
            self.world.note(self.name, "ends a loop")
            loop.die()
            self.loops.remove(loop)
            self._begin_loop()


def _left(loop: Loop) -> list[asyncio.Task[Any]]:
    return [task for task in loop.tasks if not task.done()]
