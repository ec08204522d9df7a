"""A race for one slot: the part of a store's contract that depends on how it is connected."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable

import anyio

from httpx_refresh.stores import TokenStore

MakeStore = Callable[[], TokenStore | Awaitable[TokenStore]]


async def check_race(make_store: MakeStore) -> None:
    """Check that of many swaps at once one wins, and that every handle sees it; from an empty slot, and from a text."""
    stores: list[TokenStore] = []
    for _ in range(5):
        made = make_store()
        stores.append(await made if inspect.isawaitable(made) else made)
    held: str | None = None
    for number in range(2):
        winners: list[str] = []
        async with anyio.create_task_group() as group:
            for swapper in range(50):
                new = f"{number}: {swapper}"
                group.start_soon(_swap, stores[swapper % 5], held, new, winners)
        assert len(winners) == 1
        assert [await store.load() for store in stores] == winners * 5
        assert not await stores[0].replace(held, "too late")
        (held,) = winners


async def _swap(store: TokenStore, held: str | None, new: str, winners: list[str]) -> None:
    if await store.replace(held, new):
        winners.append(new)
