from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from httpx_refresh._errors import StoreError
from httpx_refresh.stores import MemoryStore, TokenStore, memory
from httpx_refresh.testing import check_store

from .secrecy import everything_shown


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


@pytest.mark.anyio
async def test_a_copy_of_a_memory_store_is_that_store_and_it_is_not_pickled() -> None:
    """A second one with the same refresh token would spend it, too."""
    store = MemoryStore("SECRET")
    assert await copy.deepcopy([store])[0].replace("SECRET", "next")
    assert await copy.copy(store).load() == await store.load() == "next"
    with pytest.raises(TypeError, match="share a FileStore") as caught:
        pickle.dumps(store)
    assert "next" not in str(caught.value)


class Compared(str):
    """A text that records whether the lock is held while it is compared."""

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


@pytest.mark.parametrize("text", [{"access_token": "sesame"}, b"sesame", 1])
def test_what_is_no_text_is_refused_with_the_way_to_make_one(text: Any) -> None:
    with pytest.raises(TypeError, match=r"not (dict|bytes|int)\. .*json\.dumps") as caught:
        MemoryStore(text)
    assert "sesame" not in everything_shown(caught.value)


@pytest.fixture
def fork(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Make this process look like a forked child, by calling the hook of a fork."""
    monkeypatch.setattr(memory, "_forks", memory._forks)
    monkeypatch.setattr(memory, "_lock", memory._lock)
    return memory._count_fork


@pytest.mark.anyio
@pytest.mark.parametrize("use", ["load", "replace"])
async def test_a_child_may_not_use_the_copy_of_a_store_that_its_parent_uses(
    fork: Callable[[], None], use: str
) -> None:
    store = MemoryStore("sesame")
    if use == "load":
        await store.load()
    else:
        assert await store.replace("sesame", "sesame, open")
    fork()
    for call in (store.load, lambda: store.replace("sesame, open", "sesame too")):
        with pytest.raises(StoreError, match="Use a FileStore") as caught:
            await call()
        assert "sesame" not in everything_shown(caught.value)
    assert store.peek() is not None


@pytest.mark.anyio
async def test_a_child_is_warned_once_about_a_text_that_others_may_have_too(
    fork: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore("sesame")
    fork()
    for _ in range(2):
        assert await store.load() == "sesame"
    assert await store.replace("sesame", "next")
    (record,) = caplog.records
    assert "was made before this process was forked" in record.getMessage()
    fork()
    with pytest.raises(StoreError, match="is a copy"):
        await store.load()


@pytest.mark.anyio
async def test_an_empty_store_is_as_good_in_a_child(
    fork: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore()
    assert await store.load() is None
    fork()
    assert await store.replace(None, "the child's")
    assert await store.load() == "the child's"
    assert not caplog.records


FORKS = """
import os, sys
import anyio
from httpx_refresh.stores import MemoryStore

store = MemoryStore("text")
anyio.run(store.load)
if os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
anyio.run(store.load)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="nothing forks on Windows")
def test_a_fork_is_noticed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "StoreError: this MemoryStore is a copy" in done.stderr


def test_a_memory_store_has_no_dict() -> None:
    """A process may have a hundred thousand of them."""
    assert not hasattr(MemoryStore(), "__dict__")


def test_the_repr_tells_whether_there_is_a_text_but_not_which() -> None:
    assert repr(MemoryStore()) == "<MemoryStore, empty>"
    assert repr(MemoryStore("secret")) == "<MemoryStore, holding a text>"


def test_a_store_is_recognised_by_its_two_methods() -> None:
    assert isinstance(MemoryStore(), TokenStore)
    assert not isinstance(object(), TokenStore)
