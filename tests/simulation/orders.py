"""Every order: a few processes and one expired token, and all orders in which what they ask can be done.

A step is one operation of the store, one token request, or time that passes. At each step something may go wrong, so
many times in a world, and time may go by. The protocol's own code runs between the steps; what it does then depends on
nothing but what it was told until now, so that two orders after which everybody was told the same, and the store and
the server hold the same, go on alike: each such state is looked into once.
"""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from httpx_refresh import ReauthorizationRequired, RefreshAuthError, RefreshUnavailable, Token
from tests.simulation.endpoint import token_of
from tests.simulation.loop import EPOCH, Machine
from tests.simulation.plan import NEVER, Plan
from tests.simulation.process import Process
from tests.simulation.run import separate
from tests.simulation.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

_TIMEOUT = 20.0
_TICK = 2.1
"""Seconds after which whoever waits between two looks at the store has looked again."""
_TAKEOVER = 1.5 * _TIMEOUT + 1.0
"""Seconds after which a claim that was seen before is abandoned, and a token request is given up."""
_OPERATION_FAULTS = ("fails", "answer lost", "late", "crash", "pause")
_REQUEST_FAULTS = ("not sent", "request lost", "answer lost", "crash", "pause")

Step = tuple[str, int]


@dataclass(slots=True, eq=False)
class Asked:
    """What a process asked, and what it waits for."""

    process: Process
    name: str
    arguments: Hashable
    work: Callable[[], Any]
    answer: asyncio.Future[Any]

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for the answer; else it is on its way still, and may arrive or not."""
        return self.process.alive and not self.answer.done()


class _Store:
    def __init__(self, world: Orders, process: Process) -> None:
        self._world = world
        self._process = process

    async def load(self) -> str | None:
        cell = self._world.cell
        text: str | None = await self._world.ask(self._process, "load", None, lambda: cell.text)
        return text

    async def replace(self, old: str | None, new: str) -> bool:
        cell, process = self._world.cell, self._process
        won: bool = await self._world.ask(
            process, "replace", (old, new), lambda: cell.swap(process, old, new)
        )
        return won


class _Endpoint:
    name = "server"
    origins = ("https://api.test",)
    is_expired = None
    reuse_grace = 0.0

    def __init__(self, world: Orders, process: Process) -> None:
        self._world = world
        self._process = process

    async def refresh(self, token: Token) -> Token:
        world, process = self._world, self._process
        assert token.refresh_token is not None
        spending = world.watch.sends(process, token.refresh_token)
        outcome = "unknown"
        try:
            fields: dict[str, Any] | None = await world.ask(
                process, "refresh", token.refresh_token, lambda: world.server.spend(spending)
            )
            outcome = "token"
        except RefreshUnavailable as error:
            outcome = error.outcome
            raise
        finally:
            world.watch.has_sent(spending, outcome)
        if fields is None:
            raise ReauthorizationRequired("refused", error="invalid_grant")
        return token_of(fields, process.wall())


class Orders(World):
    """One world, stepped.

    Attributes:
        asked: what was asked and has not been done, the oldest first.
        told: what each process was told until now, by its number.
        faults: what went wrong until now.
        takeovers: how many times as much time went by as it takes until a claim is abandoned.
    """

    def __init__(self, processes: int, *, faults: int, takeovers: int) -> None:
        plan = Plan(
            kind="orders",
            faults=frozenset({"orders"}),
            lenient=True,
            processes=processes,
            callers=0,
            refresh_timeout=_TIMEOUT,
            lifetime=1000.0,
        )
        super().__init__(0, plan)
        self.asked: list[Asked] = []
        self.told: list[list[Hashable]] = [[] for _ in range(processes)]
        self.faults: list[str] = []
        self.takeovers = 0
        self._most_faults = faults
        self._most_takeovers = takeovers
        self._looked: list[str | None] = [None] * processes
        fields = self.server.login()
        fields["expires_at"] = EPOCH - 1.0
        self.server.expire()
        self.cell.put(None, json.dumps(fields))
        for number in range(processes):
            machine = Machine(self, f"p{number}", skew=0.0, rate=1.0)
            process = Process(self, machine, number)
            self.processes[machine.name] = process
            process.call(process.loops[0], self._caller(process))
        self._go_on()

    def endpoint_of(self, process: Process) -> Any:
        return _Endpoint(self, process)

    def store_of(self, process: Process) -> Any:
        return _Store(self, process)

    async def _caller(self, process: Process) -> None:
        began = self.now
        try:
            token = await process.auth.token()
        except RefreshAuthError as error:
            self.watch.failed(process, error, began)
            self.told[process.number].append(type(error).__name__)
            self.require(
                self.faults or self.takeovers,
                "where nothing fails, everybody is served",
                type(error).__name__,
            )
        else:
            self.watch.handed_out(process, token.access_token)

    async def ask(
        self, process: Process, name: str, arguments: Hashable, work: Callable[[], Any]
    ) -> Any:
        """Wait until a step does this."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.asked.append(Asked(process, name, arguments, work, answer))
        return await answer

    # -- steps -------------------------------------------------------------------------------------------------

    def steps(self) -> list[Step]:
        """What can happen next, first of all what happens if nothing goes wrong. None: the world is over."""
        if not self._unfinished():
            return []
        steps: list[Step] = [("do", i) for i, one in enumerate(self.asked) if one.awaited]
        stopped = [p.number for p in self._all() if p.alive and p.stopped_at is not None]
        if not steps and not stopped and self._sleeping():
            steps.append(("tick", 0) if self._may_tick() else ("takeover", 0))
        elif self._may_tick():
            steps.append(("tick", 0))
        steps += [("go on", number) for number in stopped]
        steps += [("do", i) for i, one in enumerate(self.asked) if not one.awaited]
        if self.takeovers < self._most_takeovers and ("takeover", 0) not in steps:
            steps.append(("takeover", 0))
        if len(self.faults) < self._most_faults:
            for i, one in enumerate(self.asked):
                if one.awaited:
                    faults = _REQUEST_FAULTS if one.name == "refresh" else _OPERATION_FAULTS
                    steps += [(fault, i) for fault in faults]
        return steps

    def take(self, step: Step) -> None:
        """Let this happen, and whatever follows until somebody asks for something."""
        name, index = step
        if name == "tick":
            self._pass(_TICK)
        elif name == "takeover":
            self.takeovers += 1
            for process in self._all():
                process.fault("store hung")  # If it waits for the store.
            self._pass(_TAKEOVER)
        elif name == "go on":
            process = self._all()[index]
            self.told[index].append("go on")
            process.go_on(process.stopped_at)
        else:
            self._do(name, self.asked[index])
        self._go_on()

    def _do(self, name: str, one: Asked) -> None:
        process = one.process
        self.note(process.name, f"{one.name}: {name}")
        if name != "do":
            self.faults.append(name)
            of_store = one.name != "refresh" and name in ("fails", "late", "answer lost")
            process.fault("store failed" if of_store else {"pause": "stop"}.get(name, name))
        if name == "crash":
            process.die()
        elif name == "pause":
            process.stopped_at = self.now
            process.loops[0].stop_running()
        elif name == "do":
            self.asked.remove(one)
            self._tell(one, one.work())
        elif name == "not sent":
            self.asked.remove(one)
            self._tell(one, RefreshUnavailable("not reached", outcome="not_sent"))
        else:
            if name != "late":
                self.asked.remove(one)
            if name == "answer lost":
                one.work()
            if one.name != "refresh":
                self.watch.not_saved(process)
            self._tell(one, ConnectionResetError("lost"))

    def _tell(self, one: Asked, result: Any) -> None:
        if not one.awaited:
            return
        number = one.process.number
        if isinstance(result, Exception):
            self.told[number].append((one.name, type(result).__name__))
            one.answer.set_exception(result)
        else:
            self.told[number].append((one.name, repr(result)))
            one.answer.set_result(result)
        self._looked[number] = self.cell.text

    def _pass(self, seconds: float) -> None:
        """Let time go by: whose time comes within it finds that all of it has gone by."""
        self.now += seconds
        for process in self._all():
            if process.alive and process.stopped_at is None:
                self.told[process.number].append(seconds)
        while self._events and self._events[0][0] <= self.now:
            self.next_event()()

    def _go_on(self) -> None:
        while self.awake:
            self.awake[0].step()

    # -- what there is -----------------------------------------------------------------------------------------

    def _all(self) -> list[Process]:
        return list(self.processes.values())

    def _unfinished(self) -> bool:
        return any(process.calling for process in self._all())

    def _sleeping(self) -> list[Process]:
        """Those that wait for nothing but time."""
        asking = {one.process for one in self.asked if one.awaited}
        return [
            process
            for process in self._all()
            if process.calling and process.stopped_at is None and process not in asking
        ]

    def _may_tick(self) -> bool:
        """Whether somebody waits who would see something new, or tries again after a failure."""
        return any(
            self._looked[process.number] != self.cell.text or self._failed(process)
            for process in self._sleeping()
        )

    def _failed(self, process: Process) -> bool:
        last = self.told[process.number][-1]
        return isinstance(last, tuple) and last[1].endswith(("Error", "Unavailable"))

    def state(self) -> Hashable:
        """All that the rest of the world depends on."""
        server = self.server
        return (
            self.cell.text,
            tuple(held.spent is not None for held in server.refresh_tokens.values()),
            tuple(family.ended for family in server.families),
            tuple(map(tuple, self.told)),
            tuple((one.process.number, one.name, one.arguments, one.awaited) for one in self.asked),
            tuple((p.alive, p.stopped_at is None) for p in self._all()),
            tuple(self.faults),
            self.takeovers,
            self.now,
        )

    # -- the end -----------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Let everything be done that is still asked, and judge what there is then."""
        for _ in range(12):
            for one in [one for one in self.asked if one.awaited]:
                self._do_quietly(one)
            self._pass(_TICK * 5)
            self._go_on()
        requests = len(self.server.spent)
        undisturbed = not self.faults and not self.takeovers
        self.require(requests == 1 or not undisturbed, "one expiry, one token request", requests)
        record = self.cell.record
        lost = record.token is None or self._is_lost(str(record.token.refresh_token))
        excused = self.takeovers or _LOSES.intersection(self.faults)
        self.require(not lost or excused, "no grant is lost", self.faults)

    def _do_quietly(self, one: Asked) -> None:
        if one.awaited:
            self.asked.remove(one)
            self._tell(one, one.work())
            self._go_on()

    def _is_lost(self, refresh_token: str) -> bool:
        held = self.server.refresh_tokens[refresh_token]
        return held.spent is not None or held.family.ended is not None

    def check(self) -> str:
        """Return what is broken by now, if anything is."""
        self.require(not self.unhandled, "every exception is somebody's", self.unhandled)
        return "\n".join(self.broken)


_LOSES = {"crash", "pause", "answer lost"}
"""What loses a grant without a takeover: nobody but the dead knew the new token, or the answer with it is lost."""


@dataclass(slots=True)
class Found:
    """What an enumeration saw.

    Attributes:
        runs: how many worlds were run, each from its beginning.
        ends: how many of these came to an end that no other one had.
        states: how many distinct states.
        complete: whether there was time for all.
        orders: how many orders there are, each of which leads through these states.
        longest: the most steps in one of them.
        violation: what broke; "": nothing.
        path: the steps that lead there.
        trace: what happened in them.
    """

    runs: int = 0
    ends: int = 0
    states: int = 0
    complete: bool = False
    orders: int = 0
    longest: int = 0
    violation: str = ""
    path: list[Step] = field(default_factory=list)
    trace: str = ""


def enumerate_orders(
    processes: int = 2, *, faults: int = 1, takeovers: int = 1, seconds: float = NEVER
) -> Found:
    """Go through all orders, for as long as this; in a thread of its own, as `simulate` does."""
    with separate(), ThreadPoolExecutor(1) as thread:
        began = partial(Orders, processes, faults=faults, takeovers=takeovers)
        return thread.submit(_enumerate, began, time.monotonic() + seconds).result()


def _enumerate(begin: Callable[[], Orders], deadline: float) -> Found:
    found = Found()
    edges: dict[int, list[int]] = {}
    todo: list[list[Step]] = [[]]
    while todo and time.monotonic() < deadline:
        path = todo.pop()
        world = begin()
        found.runs += 1
        before = None
        for step in path[:-1]:
            world.take(step)
        if path:
            before = hash(world.state())
            world.take(path[-1])
        while True:
            here = hash(world.state())
            if before is not None:
                edges[before].append(here)
            violation = world.check()
            if here in edges and not violation:
                break
            edges.setdefault(here, [])
            steps = world.steps()
            if not steps and not violation:
                found.ends += 1
                world.finish()
                violation = world.check()
            if violation:
                return _violated(found, world, path, violation)
            if not steps:
                found.longest = max(found.longest, len(path))
                break
            todo += [[*path, step] for step in steps[1:]]
            path = [*path, steps[0]]
            world.take(steps[0])
            before = here
        _dispose(world)
    found.states = len(edges)
    found.complete = not todo
    found.orders = _orders(edges) if found.complete else 0
    return found


def _violated(found: Found, world: Orders, path: list[Step], violation: str) -> Found:
    found.violation, found.path = violation, path
    found.trace = "".join(f"{at:10.3f}  {who:12}  {what}\n" for at, who, what in world.notes)
    _dispose(world)
    return found


def _dispose(world: Orders) -> None:
    for loop in world.loops:
        loop.dispose()


def _orders(edges: dict[int, list[int]]) -> int:
    """Count the ways from the first state to an end."""
    ways: dict[int, int] = {}
    todo = [next(iter(edges))]
    while todo:
        state = todo[-1]
        missing = [after for after in edges[state] if after not in ways]
        if missing:
            todo += missing
        else:
            ways[state] = sum(ways[after] for after in edges[state]) or 1
            todo.pop()
    return ways[next(iter(edges))]
