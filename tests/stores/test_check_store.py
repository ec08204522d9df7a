"""check_store finds each way a store can break the contract, and says which promise it was."""

from __future__ import annotations

import sqlite3
import unicodedata
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from httpx_refresh.stores import MemoryStore
from httpx_refresh.testing import check_store


class SqliteStore:
    """A store on another database: the standard library's sqlite3, in worker threads."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def load(self) -> str | None:
        rows = await self._run("SELECT text FROM slot")
        return rows[0][0] if rows else None

    async def replace(self, old: str | None, new: str) -> bool:
        if old is None:
            rows = await self._run("INSERT OR IGNORE INTO slot VALUES (1, ?) RETURNING 1", new)
        else:
            rows = await self._run("UPDATE slot SET text = ? WHERE text = ? RETURNING 1", new, old)
        return rows != []

    async def _run(self, statement: str, *values: str) -> list[tuple[Any, ...]]:
        def run() -> list[tuple[Any, ...]]:
            with closing(sqlite3.connect(self._path, timeout=30)) as database, database:
                database.execute("CREATE TABLE IF NOT EXISTS slot (id INTEGER PRIMARY KEY, text)")
                return database.execute(statement, values).fetchall()

        return await anyio.to_thread.run_sync(run)


@pytest.mark.anyio
async def test_a_store_of_ones_own_in_a_few_lines_keeps_the_contract(tmp_path: Path) -> None:
    await check_store(lambda: SqliteStore(tmp_path / "token.db"))


class Flawed:
    """A store in memory whose flaws are to be overridden in."""

    def __init__(self) -> None:
        self.text: str | None = None

    def same(self, held: str | None, old: str | None) -> bool:
        return held == old

    def kept(self, new: str) -> str:
        return new

    async def load(self) -> str | None:
        return self.text

    async def replace(self, old: str | None, new: str) -> bool:
        if not self.same(self.text, old):
            return False
        self.text = self.kept(new)
        return True


@pytest.mark.anyio
async def test_without_a_flaw_the_flawed_store_keeps_the_contract() -> None:
    """So that each of the tests below fails for its flaw."""
    store = Flawed()
    await check_store(lambda: store)


class WinsOnEmpty(Flawed):
    def same(self, held: str | None, old: str | None) -> bool:
        return held is None or held == old


class WritesWhatItRefuses(Flawed):
    async def replace(self, old: str | None, new: str) -> bool:
        won = await super().replace(old, new)
        self.text = new
        return won


class WritesLate(Flawed):
    """Once it holds a text it writes what it refuses, but for another swap of the same crowd."""

    async def replace(self, old: str | None, new: str) -> bool:
        won = await super().replace(old, new)
        if new == "late":
            self.text = new
        return won


class InsertsAlways(Flawed):
    def same(self, held: str | None, old: str | None) -> bool:
        return held == old or (old is None and held == "late")

    def kept(self, new: str) -> str:
        return "late"


class PutsWithoutLooking(Flawed):
    def same(self, held: str | None, old: str | None) -> bool:
        return held == old or (old is None and held is not None)


class TakesTheSameForNothing(Flawed):
    async def replace(self, old: str | None, new: str) -> bool:
        return (old is None and self.text == new) or await super().replace(old, new)


class LooksThenWrites(Flawed):
    async def replace(self, old: str | None, new: str) -> bool:
        held = await self.load()
        await anyio.lowlevel.checkpoint()
        if held != old:
            return False
        self.text = new
        return True


class CountsChangedRows(Flawed):
    async def replace(self, old: str | None, new: str) -> bool:
        return old != new and await super().replace(old, new)


class WinsWithoutAChange(Flawed):
    async def replace(self, old: str | None, new: str) -> bool:
        return old == new or await super().replace(old, new)


class IgnoresCase(Flawed):
    def same(self, held: str | None, old: str | None) -> bool:
        return (held or "").lower() == (old or "").lower()


class PadsSpace(Flawed):
    def same(self, held: str | None, old: str | None) -> bool:
        return (held or "").rstrip(" ") == (old or "").rstrip(" ")


class ComparesNormalForms(Flawed):
    def same(self, held: str | None, old: str | None) -> bool:
        return unicodedata.normalize("NFC", held or "") == unicodedata.normalize("NFC", old or "")


class ComparesAPrefix(Flawed):
    def same(self, held: str | None, old: str | None) -> bool:
        return (held or "")[:10_000] == (old or "")[:10_000]


class TranslatesLineBreaks(Flawed):
    def kept(self, new: str) -> str:
        return new.replace("\r\n", "\n")


class CutsOff(Flawed):
    def kept(self, new: str) -> str:
        return new[:65_535]


class HasNoAstralCharacters(Flawed):
    def kept(self, new: str) -> str:
        return "".join(letter if ord(letter) < 0x10000 else "?" for letter in new)


class LosesForNoReason(Flawed):
    def same(self, held: str | None, old: str | None) -> bool:
        return held == old and held != "one"


ONE_WINS = "exactly one wins"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "flawed, promise",
    [
        (WinsOnEmpty, "an empty slot holds no text"),
        (WritesWhatItRefuses, "an empty slot too"),
        (WritesLate, "a swap that is lost writes nothing"),
        (PutsWithoutLooking, ONE_WINS),
        (TakesTheSameForNothing, "also when it would write what is there"),
        (InsertsAlways, ONE_WINS),
        (LooksThenWrites, ONE_WINS),
        (CountsChangedRows, "a swap of a text for itself wins if it is held"),
        (WinsWithoutAChange, "a swap of a text for itself loses if it is not held"),
        (IgnoresCase, "exactly: case makes another text"),
        (PadsSpace, "exactly: a trailing space makes another text"),
        (ComparesNormalForms, "exactly: Unicode normalisation makes another text"),
        (ComparesAPrefix, "exactly: the last of 64 KiB makes another text"),
        (TranslatesLineBreaks, "exactly as it was written: white space at its ends"),
        (CutsOff, "exactly as it was written: 64 KiB"),
        (HasNoAstralCharacters, "exactly as it was written: characters beyond the basic plane"),
        (LosesForNoReason, "a swap of a text for itself wins if it is held"),
    ],
)
async def test_each_flaw_is_found_and_named(flawed: Callable[[], Flawed], promise: str) -> None:
    store = flawed()
    with pytest.raises(AssertionError, match=promise):
        await check_store(lambda: store)


@pytest.mark.anyio
async def test_handles_that_do_not_share_the_slot_are_found() -> None:
    with pytest.raises(AssertionError, match=ONE_WINS):
        await check_store(MemoryStore)


@pytest.mark.anyio
async def test_a_handle_that_remembers_what_it_read_is_found() -> None:
    slot = MemoryStore()

    class Remembers:
        def __init__(self) -> None:
            self.seen: str | None = None

        async def load(self) -> str | None:
            self.seen = self.seen or await slot.load()
            return self.seen

        async def replace(self, old: str | None, new: str) -> bool:
            return await slot.replace(old, new)

    with pytest.raises(AssertionError, match="what one handle has written, every other sees"):
        await check_store(Remembers)


@pytest.mark.anyio
async def test_what_is_no_store_is_found() -> None:
    with pytest.raises(AssertionError, match="has the methods load and replace"):
        await check_store(lambda: object())  # type: ignore[arg-type, return-value]  # no store, on purpose


@pytest.mark.anyio
async def test_a_slot_that_is_not_empty_is_refused_and_left_alone() -> None:
    store = MemoryStore("a token")
    with pytest.raises(ValueError, match="empty slot"):
        await check_store(lambda: store)
    assert await store.load() == "a token"


@pytest.mark.anyio
async def test_a_handle_may_be_made_with_await() -> None:
    store = MemoryStore()

    async def make_store() -> MemoryStore:
        await anyio.lowlevel.checkpoint()
        return store

    await check_store(make_store)
    assert await store.load() is not None
