from __future__ import annotations

import threading

import anyio
import pytest

from httpx_refresh.stores import MemoryStore, TokenStore, memory
from httpx_refresh.testing import check_store


@pytest.mark.anyio
async def test_a_memory_store_keeps_the_contract() -> None:
    store = MemoryStore()
    await check_store(lambda: store)


@pytest.mark.anyio
async def test_a_memory_store_starts_with_the_text_it_is_given() -> None:
    store = MemoryStore("start")
    assert await store.load() == "start"
    assert not await store.replace(None, "other")
    assert await store.replace("start", "next")


class Compared(str):
    """A text that tells what holds while it is compared."""

    locked = False

    def __ne__(self, other: object) -> bool:
        self.locked = memory._lock.locked()
        return str.__ne__(self, other)


@pytest.mark.anyio
async def test_no_other_thread_swaps_between_the_comparison_and_the_write() -> None:
    old = Compared("old")
    assert await MemoryStore("old").replace(old, "new")
    assert old.locked


def test_of_threads_that_swap_from_one_text_exactly_one_wins() -> None:
    store = MemoryStore("0")
    barrier = threading.Barrier(4)
    wins: list[int] = []

    async def swap_in_step() -> None:
        for number in range(50):
            barrier.wait()
            if await store.replace(str(number), str(number + 1)):
                wins.append(number)

    threads = [threading.Thread(target=anyio.run, args=(swap_in_step,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wins == list(range(50))


def test_a_memory_store_has_no_dict() -> None:
    """A process may hold a hundred thousand of them."""
    assert not hasattr(MemoryStore(), "__dict__")


def test_the_repr_tells_whether_there_is_a_text_but_not_which() -> None:
    assert repr(MemoryStore()) == "<MemoryStore, empty>"
    assert repr(MemoryStore("secret")) == "<MemoryStore, holding a text>"


def test_a_store_is_recognised_by_its_two_methods() -> None:
    assert isinstance(MemoryStore(), TokenStore)
    assert not isinstance(object(), TokenStore)
