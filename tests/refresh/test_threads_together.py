"""Sync callers in many threads, and event loops, on real threads, with each operation on the store delayed in turn.

The simulation has one thread only. Here each run delays one operation on the store, by its number, until others have
been made, so that threads overlap in ways that could go wrong.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal

import anyio
import pytest

from httpx_refresh import MemoryStore, RefreshAuth, Token
from tests.fakes import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable

OPERATIONS = 8
"""The least number of operations: loads, claims and saves. Each is delayed in a run of its own."""

PATIENCE = 0.05
"""Seconds after which a delayed operation continues if no others come. No result depends on it."""


class Cell:
    """The cell of all stores of a run; its operation number `held` is delayed before or after it is done."""

    def __init__(self, text: str, held: int, when: Literal["before", "after"]) -> None:
        self.memory = MemoryStore(text)
        self._held = held
        self._when = when
        self._lock = threading.Lock()
        self.begun = 0

    def begin(self) -> int:
        with self._lock:
            self.begun += 1
            return self.begun - 1

    async def pass_by(self, number: int, when: str) -> None:
        if (number, when) == (self._held, self._when):
            until = time.monotonic() + PATIENCE
            while self.begun < number + 4 and time.monotonic() < until:  # noqa: ASYNC110 - in other threads
                await anyio.sleep(0.001)


class Handle:
    """A custom store on that cell, which does not tell that others share the cell."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell

    async def load(self) -> str | None:
        number = self._cell.begin()
        await self._cell.pass_by(number, "before")
        text = await self._cell.memory.load()
        await self._cell.pass_by(number, "after")
        return text

    async def replace(self, old: str | None, new: str) -> bool:
        number = self._cell.begin()
        await self._cell.pass_by(number, "before")
        won = await self._cell.memory.replace(old, new)
        await self._cell.pass_by(number, "after")
        return won


def together(auths: list[RefreshAuth], refused: Token) -> set[str]:
    """Let sync threads and event loops refresh `refused` through all objects at once; return the access tokens."""

    def sync(auth: RefreshAuth) -> Callable[[], set[str]]:
        return lambda: {auth.sync.refresh(refused=refused).access_token}

    def loop(auth: RefreshAuth) -> Callable[[], set[str]]:
        async def views() -> set[str]:
            found = await asyncio.gather(*[auth.refresh(refused=refused) for _ in range(2)])
            return {token.access_token for token in found}

        return lambda: asyncio.run(views())

    callers = [kind(auth) for auth in auths for kind in (sync, loop, sync)]
    start = threading.Barrier(len(callers))

    def call(caller: Callable[[], set[str]]) -> set[str]:
        start.wait()
        return caller()

    with ThreadPoolExecutor(len(callers)) as pool:
        return set().union(*pool.map(call, callers))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("held", range(OPERATIONS))
def test_wherever_one_is_held_up_threads_and_loops_make_one_token_request_an_expiry(
    held: int, when: Literal["before", "after"]
) -> None:
    endpoint = Endpoint()
    cell = Cell(endpoint.text(), held, when)
    # Others wait for the claim of a delayed caller, so the timeout is long.
    auths = [RefreshAuth(endpoint, Handle(cell), refresh_timeout=60) for _ in range(2)]
    for expiry in range(2):
        assert together(auths, endpoint.current) == {f"SECRET-a{expiry + 1}"}
    assert endpoint.asked == ["SECRET-r0", "SECRET-r1"]
    assert cell.begun > held  # It was held up.
    for auth in auths:
        auth.sync.aclose()
