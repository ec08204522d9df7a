"""The store: one cell, and the connections to it that are slow and break."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

from httpx_refresh._refresh import record as _record
from tests.simulation.plan import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.process import Process
    from tests.simulation.world import World


_FAILURES = ((True, False, False), (False, True, False), (True, False, True))
"""How an operation fails: before it is done, after that, or before it is done after all."""


class Cell:
    """One slot. What is written is judged as it is written."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.text: str | None = None
        self.record = _record.parse(None)
        self.since = 0.0
        self._texts: set[str | None] = set()
        self.down_until: dict[str, float] = {}
        self.operations = 0

    def swap(self, writer: Process | None, old: str | None, new: str) -> bool:
        """Compare and swap; `writer` is None for somebody who does not use the library."""
        if old != self.text:
            return False
        self.put(writer, new)
        return True

    def put(self, writer: Process | None, new: str | None) -> None:
        world, before, after = self._world, self.record, _record.parse(new)
        world.note("cell" if writer is None else writer.name, f"writes {shown(after)}")
        world.require(writer is None or new not in self._texts, "no text is written twice")
        self._texts.add(new)
        world.watch.written(writer, before, after)
        self.text, self.record, self.since = new, after, world.now

    def damage(self) -> None:
        """Put something there that is no token."""
        self._world.note("cell", "is damaged")
        self._world.watch.written(None, self.record, _record.parse(None))
        self.text, self.record, self.since = "{", _record.parse(None), self._world.now

    def is_down(self, who: str) -> bool:
        return self._world.now < max(
            self.down_until.get("everyone", 0.0), self.down_until.get(who, 0.0)
        )


class Store:
    """A process's connection to the cell: the `TokenStore` that the code under test is given."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process
        self._claims: Counter[object] = Counter()
        """How many claims each event loop is writing."""

    def __repr__(self) -> str:
        return "SimulatedStore()"

    async def load(self) -> str | None:
        text: str | None = await self._ask("load", lambda: self._world.cell.text)
        return text

    async def replace(self, old: str | None, new: str) -> bool:
        claims = _record.parse(new).redeeming is not None
        return await (self._claiming if claims else self._swap)(old, new)

    async def _claiming(self, old: str | None, new: str) -> bool:
        """Write a claim, and see that its event loop writes no other one meanwhile: its callers share a flight."""
        loop = asyncio.get_running_loop()
        self._claims[loop] += 1
        several = self._claims[loop] > 1
        self._world.require(
            not (several and self._world.plan.one_claim),
            "the callers of one event loop share one flight",
            self._process.name,
        )
        try:
            return await self._swap(old, new)
        finally:
            self._claims[loop] -= 1

    async def _swap(self, old: str | None, new: str) -> bool:
        process = self._process
        won: bool = await self._ask("replace", lambda: self._world.cell.swap(process, old, new))
        return won

    async def _ask(self, name: str, work: Callable[[], Any]) -> Any:
        """Send an operation and wait for the answer, which may be lost, before or after the work was done."""
        world, process, plan = self._world, self._process, self._world.plan
        cell = world.cell
        cell.operations += 1
        latency = plan.latency["store"]
        there, back = world.about(latency), world.about(latency)
        if plan.has("slow store") and world.chance(0.1):
            there += world.random.uniform(0.0, plan.refresh_timeout)
            process.fault("slow store")
        if plan.has("late answers") and world.chance(0.3):
            back += world.random.uniform(0.0, plan.refresh_timeout)
            process.fault("slow store")
        if plan.has("hung store") and world.chance(plan.store_fails):
            hung = world.random.choice(("asked", "answered", "asked late", "answered late"))
            long = world.random.choice([0.5, 1.0, 2.0, 5.0]) * process.refresh_timeout
            process.fault("store hung")
            world.note(process.name, f"{name} hangs ({hung})")
            world.watch.not_saved(process)
            there += {"asked": NEVER, "asked late": long}.get(hung, 0.0)
            back += {"answered": NEVER, "answered late": long}.get(hung, 0.0)
        fails = plan.has("store") and world.chance(plan.store_fails)
        before, after, late = world.choice(_FAILURES)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        process.hazard()

        def arrives() -> None:
            if (fails and before) or (cell.is_down(process.name) and not world.calm):
                process.fault("store failed")
                world.note(process.name, f"{name} fails")
                world.watch.not_saved(process)
                world.after(back, lambda: process.raises(answer, ConnectionError("store")))
                if late:  # It was in a queue somewhere, and is done after all.
                    world.after(world.random.uniform(0.0, 2.0 * plan.refresh_timeout), work)
                return
            result = work()
            process.hazard()
            if fails and after and result is True and world.random.random() < 0.3:
                # A client that sends a swap again, for the answer was lost, is told that it lost.
                process.fault("store resent")
                world.note(process.name, f"{name} is done, and sent again in vain")
                world.after(back, lambda: process.hands(answer, False))
            elif fails and after:
                process.fault("store failed")
                world.note(process.name, f"the answer to {name} is lost")
                world.watch.not_saved(process)
                world.after(back, lambda: process.raises(answer, ConnectionError("store")))
            else:
                world.after(back, lambda: process.hands(answer, result))

        world.after(there, arrives)
        return await answer


def shown(record: _record.Record) -> str:
    """Write a record for the trace."""
    if record.token is None:
        return "revoked" if record.revoked else "nothing"
    words = [f"g{record.generation}", record.token.access_token, str(record.token.refresh_token)]
    for name in ("redeeming", "uncertain"):
        claim: _record.Claim | None = getattr(record, name)
        words += [] if claim is None else [f"{name}={claim.nonce}"]
    words += ["dead"] if record.dead else []
    return " ".join(words)
