"""Run one seed: draw a world, let things go wrong in it, then let nothing fail, and require an answer for everybody."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest import mock

from httpx_refresh._refresh import record as _record
from httpx_refresh._refresh import slot as _slot
from tests.simulation.caller import Caller
from tests.simulation.kinds import draw
from tests.simulation.loop import EPOCH, Machine
from tests.simulation.process import Process, Standing
from tests.simulation.threads import SyncCaller, in_simulated_threads
from tests.simulation.world import Violation, World

if TYPE_CHECKING:
    from tests.simulation.plan import Plan

_LONG = 20_000.0
"""Seconds within which everybody must have an answer once nothing fails any more. A fresh token that the API refuses
is not replaced for up to an hour."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a seed."""

    seed: int
    violation: str | None
    trace: str
    reasons: tuple[str, ...]
    slowest: float
    token_requests: int
    generation: int
    operations: int
    """Of the store, until nothing failed any more and everybody had an answer."""
    last_operations: int
    """Those of the last expiry, which comes after that and finds everybody asking at once."""

    @property
    def digest(self) -> str:
        """Alike for runs in which the same things happened at the same times."""
        return hashlib.sha256(self.trace.encode()).hexdigest()


def simulate(seed: int, plan: Plan | None = None, *, kind: str = "faults") -> Outcome:
    """Run one seed, in a world of this kind or of this plan, to its end or to its first violation.

    It runs in its own thread, because the caller's thread may be running an event loop.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_simulate, seed, draw(seed, kind) if plan is None else plan).result()


def _simulate(seed: int, plan: Plan) -> Outcome:
    world = World(seed, plan)
    violation = None
    with separate(), _logged(world), parsed_once() as unchanged, in_simulated_threads():
        try:
            _play(world)
            world.require(unchanged(), "nobody changes a record that was read")
            world.run(until=world.now)  # Raises what is broken.
        except Violation as broken:
            violation = str(broken)
        finally:
            for thread in world.threads:
                thread.dispose()
    with quiet():
        for loop in world.loops:
            loop.dispose()
    trace = f"seed {seed}\n{world.plan}\n" + "".join(
        f"{at:10.3f}  {who:12}  {what}\n" for at, who, what in world.notes
    )
    watch = world.watch
    return Outcome(
        seed,
        violation,
        trace + (f"VIOLATION: {violation}\n" if violation else ""),
        tuple(watch.reasons),
        watch.slowest,
        len(world.server.spent),
        world.cell.record.generation,
        world.operations,
        world.cell.operations - world.operations,
    )


def _play(world: World) -> None:
    plan = world.plan
    if not plan.purposes:
        _login(world)
    for number in range(plan.processes):
        name = f"p{number}"
        skew = world.random.uniform(-plan.skew, plan.skew)
        rate = 1.0 + world.random.uniform(-plan.drift, plan.drift)
        machine = Machine(world, name, skew=skew, rate=rate)
        world.processes[name] = Process(world, machine, number)
    for fault, happens in _HAPPENINGS.items():
        for _ in range(world.random.randint(1, 3) if plan.has(fault) else 0):
            world.at(world.random.uniform(0.0, plan.horizon), partial(happens, world))
    if plan.api is not None and plan.api.rekeys:
        world.at(plan.api.refuses[1], partial(_expires_early, world))
    if plan.api is not None and plan.api.ends_every:
        world.after(plan.api.ends_every, partial(_ends_again, world, plan.api.ends_every))
    world.run(until=plan.horizon)
    world.now = (
        plan.horizon
    )  # Else a process that is stopped would go on at the very moment when a timer ends.
    _calm(world)
    world.run(world.all_answered, until=world.now + _LONG)
    world.require(world.all_answered(), "everybody is answered in the end")
    world.operations = world.cell.operations
    if not world.watch.needs_login():
        _one_more_expiry(world)


def _calm(world: World) -> None:
    """From now on nothing fails; whoever stands goes on, whoever is dead is started."""
    world.note("world", "is calm")
    world.calm = True
    for process in list(world.processes.values()):
        process.go_on(process.stopped_at)
        process.restart()


def _one_more_expiry(world: World) -> None:
    """The next expiry works, and costs one token request."""
    most = max(world.plan.refresh_timeout, *world.plan.timeouts, 0.0)
    world.run(until=world.now + 3.0 * most)
    if world.plan.kind == "unsaved":
        token = world.cell.record.token
        assert token is not None
        held = world.server.refresh_tokens[str(token.refresh_token)]
        world.require(held.spent is None, "what came is saved in the end", token.refresh_token)
    world.note("world", "ends all access tokens")
    world.server.expire()
    began, requests = world.now, len(world.server.spent)
    for process in world.processes.values():
        for loop in process.loops if world.plan.callers else []:
            process.call(loop, Caller(process, f"{process.name}/last").settle())
        for number in range(world.plan.threads):
            caller = SyncCaller(process, f"{process.name}/t{number}")
            process.call_in_thread(caller, caller.settle())
    world.run(world.all_answered, until=world.now + _LONG)
    world.require(world.all_answered(), "everybody is answered after the next expiry")
    requests = len(world.server.spent) - requests
    # Clocks that differ by more than a lifetime see tokens that have expired when they are made.
    skews = [process.machine.skew for process in world.processes.values()]
    in_time = world.now - began + max(skews) - min(skews) < 0.7 * world.plan.lifetime
    # Services of several purposes that share a slot take it from each other: that costs requests.
    excused = not in_time or world.watch.needs_login() or world.plan.purposes > 1
    # An API that learns of a token later than it is sent once more refuses each new one, up to three.
    api = world.plan.api
    most = 3 if api is not None and api.lag > 1.0 else 1
    world.require(1 <= requests <= most or excused, "one expiry, one token request", requests)


# -- what others do --------------------------------------------------------------------------------------------


def _login(world: World) -> None:
    """Another tool writes a token response to the slot, as it got it or with `expires_at`."""
    fields = world.server.login()
    if world.random.random() < 0.5:
        fields["expires_at"] = EPOCH + world.now + world.plan.lifetime
    if world.plan.has("others") and world.random.random() < 0.1:
        del fields["refresh_token"]
        world.watch.reasons.append("no refresh token")
    world.cell.put(None, json.dumps(fields))


def _logout(world: World) -> None:
    record = world.cell.record
    if record.token is not None:
        world.watch.reasons.append("logout")
        world.server.end(record.token, "logout")
        revoked = _record.without_token(record, since=EPOCH + world.now)
        world.cell.put(None, _record.write(revoked, rev=f"logout {world.now}"))


def _others(world: World) -> None:
    """Somebody who is not of the library does something to the grant, or to the slot."""
    record, dice = world.cell.record, world.random.random()
    if dice < 0.5:
        _login(world)
        return
    if dice < 0.7:
        _logout(world)
    elif dice < 0.85:
        world.watch.reasons.append("emptied")
        world.cell.put(None, None)
    elif record.token is not None:
        world.watch.reasons.append("revoked by the server")
        world.note("server", "revokes")
        world.server.end(record.token, "revoked by the server")
    if world.random.random() < 0.7:
        world.after(world.random.uniform(0.0, 30.0), partial(_login, world))


def _outage(world: World) -> None:
    who = world.random.choice(["everyone", *(p.name for p in world.processes.values())])
    lasts = world.random.choice([0.3, 1.0, 3.0]) * world.plan.refresh_timeout
    world.note("store", f"is down for {who}, {lasts:.1f} s")
    world.cell.down_until[who] = world.now + lasts


def _damage(world: World) -> None:
    world.watch.reasons.append("emptied")
    for process in world.processes.values():
        process.fault("damage")
    world.cell.damage()
    world.after(world.random.uniform(20.0, 60.0), partial(_login, world))


def _expires_early(world: World) -> None:
    world.note("server", "ends all access tokens")
    world.server.expire()


def _ends_again(world: World, every: float) -> None:
    if not world.calm:
        _expires_early(world)
        world.after(world.about(every), partial(_ends_again, world, every))


def _steps_clock(world: World) -> None:
    machine = world.random.choice(list(world.processes.values())).machine
    step = world.random.uniform(-world.plan.clock_steps, world.plan.clock_steps)
    world.note(machine.name, f"steps its wall clock by {step:.1f} s")
    machine.skew += step
    machine.stepped += abs(step)


_HAPPENINGS = {
    "others": _others,
    "damage": _damage,
    "store outage": _outage,
    "api": _expires_early,
    "wall": _steps_clock,
}


# -- the log ---------------------------------------------------------------------------------------------------


class _Log(logging.Handler):
    """Puts what the library logs into the trace; no secret may be in it."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        self._world.note("log", text)
        self._world.require("rt-" not in text and "at-" not in text, "no token in a log", text)


@contextmanager
def separate() -> Iterator[None]:
    """Keep apart what each simulated process stores in a global variable of the library."""
    with mock.patch.object(_slot, "_standing", Standing()):
        yield


@contextmanager
def parsed_once() -> Iterator[Callable[[], bool]]:
    """Parse each text only once in this context. Most texts are read many times, and by many processes.

    Yields a function that parses all texts again and tells whether the records still equal them.
    """
    parse = _record.parse
    records: dict[str | None, _record.Record] = {}

    def parse_once(text: str | None) -> _record.Record:
        known = records.get(text)
        if known is None:
            known = records[text] = parse(text)
        return known

    def unchanged() -> bool:
        return all(record == parse(text) for text, record in records.items())

    with (
        mock.patch.object(_record, "parse", parse_once),
        mock.patch.object(_slot, "parse", parse_once),
    ):
        yield unchanged


@contextmanager
def quiet() -> Iterator[None]:
    """Log nothing."""
    logger = logging.getLogger("httpx_refresh")
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = False


@contextmanager
def _logged(world: World) -> Iterator[None]:
    logger = logging.getLogger("httpx_refresh")
    before: tuple[Any, ...] = logger.level, logger.propagate
    handler = _Log(world)
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
