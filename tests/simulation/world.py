"""The simulated world: one clock, one source of random numbers, and the order in which everything happens."""

from __future__ import annotations

import heapq
import random
from typing import TYPE_CHECKING, Any, TypeVar

from tests.simulation.api import Api
from tests.simulation.budget import Budget
from tests.simulation.endpoint import Endpoint, Service
from tests.simulation.plan import NEVER
from tests.simulation.server import Server
from tests.simulation.store import Cell, Store
from tests.simulation.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.simulation.loop import Loop
    from tests.simulation.plan import Plan
    from tests.simulation.process import Process
    from tests.simulation.threads import Thread

_MOST_STEPS_AT_A_MOMENT = 50_000
_SPREAD = 1.7 - 0.3
_push = heapq.heappush
_T = TypeVar("_T")


class Violation(AssertionError):
    """An invariant did not hold."""


class World:
    """Runs all event loops and threads in virtual time. The seed decides their order."""

    def __init__(self, seed: int, plan: Plan) -> None:
        self.seed = seed
        self.plan = plan
        self.random = random.Random(seed)
        self._dice = self.random.random
        self._bits = self.random.getrandbits
        self.now = 0.0
        self.calm = False
        """True at the end, when nothing fails any more."""
        self.operations = 0
        self.awake: list[Loop | Thread] = []
        """The event loops and threads that have something to do."""
        self.notes: list[tuple[float, str, str]] = []
        self.broken: list[str] = []
        self.unhandled: list[str] = []
        self.loops: list[Loop] = []
        self.threads: list[Thread] = []
        self.processes: dict[str, Process] = {}
        self.cell = Cell(self)
        self.server = Server(self)
        self.watch = Watch(self)
        self.api = Api(self)
        self.budget = Budget(self)
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._events_set = 0

    def endpoint_of(self, process: Process) -> Any:
        """Return what this process refreshes with."""
        return Service(self, process) if self.plan.purposes else Endpoint(self, process)

    def store_of(self, process: Process) -> Any:
        """Return what this process keeps its token in."""
        return Store(self, process)

    def note(self, who: str, what: str) -> None:
        """Put a line into the trace."""
        self.notes.append((self.now, who, what))

    def require(self, holds: object, rule: str, *details: object) -> None:
        """Record a violation unless `holds`.

        Only `run` raises it. Raised here it would pass through the code under test, which might catch it.
        """
        if not holds:
            self.broken.append(": ".join([rule, *map(str, details)]))

    def at(self, moment: float, event: Callable[[], object]) -> None:
        """Let something happen at that moment, which may be never."""
        self._events_set += 1
        if moment != NEVER:
            _push(self._events, (moment, self._events_set, event))

    def after(self, seconds: float, event: Callable[[], object]) -> None:
        """Let something happen in so many seconds."""
        self._events_set += 1
        if seconds != NEVER:
            _push(self._events, (self.now + seconds, self._events_set, event))

    def next_event(self) -> Callable[[], object]:
        """Take the next event off the list; it is its moment now, unless that is past."""
        at, _, event = heapq.heappop(self._events)
        if at > self.now:
            self.now = at
        return event

    def chance(self, likelihood: float) -> bool:
        """Whether something goes wrong now: never once the world is calm."""
        return self._dice() < likelihood and not self.calm

    def about(self, seconds: float) -> float:
        """Return a duration near this one."""
        return seconds * (0.3 + _SPREAD * self._dice())

    def below(self, number: int) -> int:
        """Return a whole number below this one, as `random.randrange` does, in less time."""
        bits = number.bit_length()
        drawn = self._bits(bits)
        while drawn >= number:
            drawn = self._bits(bits)
        return drawn

    def choice(self, several: Sequence[_T]) -> _T:
        """Return one of several, as `random.choice` does, in less time."""
        return several[self.below(len(several))]

    def all_answered(self) -> bool:
        """Whether no caller waits for anything any more."""
        for process in self.processes.values():  # noqa: SIM110 - asked at each step: no generator
            if process.calling:
                return False
        return True

    def run(self, done: Callable[[], bool] | None = None, *, until: float) -> bool:
        """Let time go by until something is done, or `until`; return whether it is done.

        Raises:
            Violation: an invariant did not hold.
        """
        steps, moment = 0, self.now
        awake, events, below = self.awake, self._events, self.below
        while done is None or not done():
            if awake:
                several = len(awake)
                awake[below(several) if several > 1 else 0].step()
                steps += 1
            elif not events or events[0][0] > until:
                break
            else:
                event = self.next_event()
                if self.now != moment:
                    steps, moment = 0, self.now
                event()
            if self.broken or self.unhandled or steps >= _MOST_STEPS_AT_A_MOMENT:
                break
        self.require(steps < _MOST_STEPS_AT_A_MOMENT, "time goes on")
        self.require(not self.unhandled, "every exception is somebody's", self.unhandled)
        if self.broken:
            raise Violation("\n".join(self.broken))
        return done is not None and done()
