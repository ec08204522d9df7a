"""check_store finds each way to break the contract, and names the broken promise."""

from __future__ import annotations

import json
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
from tests.virtual_time import virtual_time


class SqliteStore:
    """A store on the standard library's sqlite3, in worker threads."""

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
    """A correct store in memory; subclasses add flaws."""

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
    """This shows that the tests below fail because of their flaws."""
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
    """Once it holds a text, it also writes the texts that it refuses, except those of the same crowd of swaps."""

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


def notes(text: str | None) -> dict[str, Any]:
    """Return this library's notes beside a token; empty for other texts."""
    if text is None or not text.startswith("{") or "httpx_refresh" not in text:
        return {}
    found: dict[str, Any] = json.loads(text)["httpx_refresh"]
    return found


class TakesAClaimForNothing(Flawed):
    """A text without a token counts as an empty slot."""

    def same(self, held: str | None, old: str | None) -> bool:
        return held == old or (old is None and "empty" in notes(held))


class KeepsTokensOnly(Flawed):
    """It keeps the fields that it knows, and the purpose is not one of them."""

    def kept(self, new: str) -> str:
        if "purpose" not in notes(new):
            return new
        fields = json.loads(new)
        del fields["httpx_refresh"]["purpose"]
        return json.dumps(fields)


class ComparesTokens(Flawed):
    """Texts with the same token are the same to it."""

    def same(self, held: str | None, old: str | None) -> bool:
        if "purpose" in notes(held) and "purpose" in notes(old):
            return True
        return held == old


class SkipsTheSameToken(Flawed):
    """It treats a write of the token that it already holds as unnecessary, and refuses it."""

    async def replace(self, old: str | None, new: str) -> bool:
        if "purpose" in notes(self.text) and "purpose" in notes(new):
            return False
        return await super().replace(old, new)


class WantsATokenFirst(Flawed):
    """It never replaces a claim without a token."""

    def same(self, held: str | None, old: str | None) -> bool:
        return held == old and "empty" not in notes(held)


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
        (TakesAClaimForNothing, ONE_WINS),
        (WantsATokenFirst, "takes the place of a claim that holds none"),
        (KeepsTokensOnly, "what a token is for comes back with it"),
        (ComparesTokens, "and another purpose, are two texts"),
        (SkipsTheSameToken, "replaced when its purpose alone is another"),
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


class Replicas:
    """A primary, and a copy of it that lags some writes behind."""

    def __init__(self, behind: int) -> None:
        self.behind = behind
        self.history: list[str | None] = [None]

    def newest(self) -> str | None:
        return self.history[-1]

    def copied(self) -> str | None:
        return self.history[max(len(self.history) - 1 - self.behind, 0)]

    def write(self, old: str | None, new: str, held: str | None) -> bool:
        if held != old:
            return False
        self.history.append(new)
        return True


class LaggingReads:
    """A handle that writes to the primary and reads from a copy."""

    def __init__(self, slot: Replicas) -> None:
        self.slot = slot

    async def load(self) -> str | None:
        return self.slot.copied()

    async def replace(self, old: str | None, new: str) -> bool:
        return self.slot.write(old, new, self.slot.newest())


class LaggingReadsOfOthers(LaggingReads):
    """A handle that sees its own writes, and others' later, as with a session's consistency."""

    mine: str | None = None

    async def load(self) -> str | None:
        newest = self.slot.newest()
        return newest if newest == self.mine else self.slot.copied()

    async def replace(self, old: str | None, new: str) -> bool:
        won = await super().replace(old, new)
        if won:
            self.mine = new
        return won


class LaggingNowAndThen(LaggingReads):
    """A handle whose every hundredth read is answered by a copy."""

    reads = 0

    async def load(self) -> str | None:
        self.reads += 1
        copied = self.slot.copied()
        return copied if self.reads % 100 == 0 else self.slot.newest()


class GoesBack(LaggingReads):
    """A handle that reads from the primary and a copy in turn: it sees the new text, then the old one."""

    reads = 0

    async def load(self) -> str | None:
        self.reads += 1
        copied = self.slot.copied()
        return copied if self.reads % 3 == 0 else self.slot.newest()


class LaggingSwaps(LaggingReads):
    """A handle that reads where it writes, and whose swap wins where the primary or a copy agrees."""

    async def load(self) -> str | None:
        return self.slot.newest()

    async def replace(self, old: str | None, new: str) -> bool:
        one_writes = old is not None and old.startswith(
            "write"
        )  # in a crowd it compares as it should
        agrees = one_writes and old == self.slot.copied()
        return self.slot.write(old, new, old if agrees else self.slot.newest())


class LosesAWrite(LaggingReads):
    """A primary that fails over to a copy: a write that it has acknowledged is gone."""

    async def load(self) -> str | None:
        return self.slot.newest()

    async def replace(self, old: str | None, new: str) -> bool:
        won = await super().replace(old, new)
        if len(self.slot.history) == 30:
            self.slot.history.pop()
        return won


LAG = "at once|every other sees|exactly as it was written|what the winner of a race wrote"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "handle, promise",
    [
        (LaggingReads, LAG),
        (LaggingReadsOfOthers, LAG),
        (LaggingNowAndThen, LAG),
        (GoesBack, LAG),
        (LaggingSwaps, "compares with what was written last"),
        (LosesAWrite, LAG),
    ],
)
async def test_a_store_of_eventual_consistency_is_found(
    handle: Callable[[Replicas], LaggingReads], promise: str
) -> None:
    slot = Replicas(behind=1)
    with pytest.raises(AssertionError, match=promise):
        await check_store(lambda: handle(slot))


@pytest.mark.anyio
@pytest.mark.parametrize("handle", [LaggingReads, LaggingReadsOfOthers, LaggingSwaps])
async def test_handles_whose_copies_do_not_lag_keep_the_contract(
    handle: Callable[[Replicas], LaggingReads],
) -> None:
    """This shows that the tests above fail because of the lag."""
    slot = Replicas(behind=0)
    await check_store(lambda: handle(slot))


@pytest.mark.anyio
async def test_a_new_handle_that_sees_an_older_text_is_found() -> None:
    slot = MemoryStore()
    made: list[MemoryStore] = []

    def make_store() -> MemoryStore:
        made.append(slot)
        return slot if len(made) <= 5 else MemoryStore("from a cache that was filled long ago")

    with pytest.raises(AssertionError, match="a handle that was made last sees"):
        await check_store(make_store)


class Held:
    """A lock of a claim in memory."""

    def __init__(self, store: Locks) -> None:
        self.store = store
        self.is_first: Any = False

    def release(self) -> Any:
        if self.store.holder is self:
            self.store.holder = None


class Locks(Flawed):
    """A correct store in memory with a lock; subclasses add flaws."""

    def __init__(self) -> None:
        super().__init__()
        self.holder: Held | None = None

    async def hold(self) -> Held | None:
        if self.holder is not None:
            return None
        self.holder = Held(self)
        return self.holder


class NeverHad(Locks):
    async def hold(self) -> Held | None:
        return None


class HadByAll(Locks):
    async def hold(self) -> Held | None:
        return Held(self)


class HadAgain(Locks):
    """A lock that counts its holders, as a reentrant lock does."""

    tries = 0

    async def hold(self) -> Held | None:
        self.tries += 1
        return Held(self) if self.tries != 2 else None


class KeepsWriters(Locks):
    def same(self, held: str | None, old: str | None) -> bool:
        return held == old and self.holder is None


class KeepsReaders(Locks):
    async def load(self) -> str | None:
        return self.text if self.holder is None else None


class NeverReleased(Locks):
    async def hold(self) -> Held | None:
        hold = await super().hold()
        if hold is not None:
            hold.release = lambda: None  # type: ignore[method-assign]  # the flaw
        return hold


class ReleasedTwice(Locks):
    async def hold(self) -> Held | None:
        hold = await super().hold()
        if hold is not None:
            hold.release = lambda: setattr(self, "holder", None)  # type: ignore[method-assign]  # the flaw
        return hold


class DoesNotSayWhetherItIsFirst(Locks):
    async def hold(self) -> Held | None:
        hold = await super().hold()
        assert hold is not None
        hold.is_first = None
        return hold


@pytest.mark.anyio
async def test_without_a_flaw_the_store_with_a_lock_keeps_the_contract() -> None:
    store = Locks()
    await check_store(lambda: store)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "flawed, promise",
    [
        (NeverHad, "a lock that nobody holds can be had"),
        (HadByAll, "a lock that one handle holds, no other gets"),
        (HadAgain, "it does not get a second time"),
        (KeepsWriters, "swapped by another handle while the lock is held"),
        (KeepsReaders, "read while the lock is held"),
        (NeverReleased, "a lock that was released can be had"),
        (ReleasedTwice, "a lock is released once"),
        (DoesNotSayWhetherItIsFirst, "a lock says whether it is_first"),
    ],
)
async def test_each_flaw_of_a_lock_is_found_and_named(
    flawed: Callable[[], Locks], promise: str
) -> None:
    store = flawed()
    with pytest.raises(AssertionError, match=promise):
        await check_store(lambda: store)


@pytest.mark.anyio
async def test_a_release_that_wants_to_be_awaited_is_found() -> None:
    class Awaited(Held):
        async def release(self) -> None:
            """Do nothing, if anybody awaits it."""

    class ReleasedWithAwait(Locks):
        async def hold(self) -> Held | None:
            hold = await super().hold()
            return None if hold is None else Awaited(self)

    store = ReleasedWithAwait()
    with pytest.raises(AssertionError, match="release is no coroutine function"):
        await check_store(lambda: store)


class Wakes(Flawed):
    """A store in memory that wakes those who wait for a change."""

    def __init__(self) -> None:
        super().__init__()
        self.event = anyio.Event()

    def kept(self, new: str) -> str:
        self.event.set()
        self.event = anyio.Event()
        return new

    async def changed(self, old: str | None) -> None:
        if self.text == old:
            await self.event.wait()


class WakesForNothing(Wakes):
    async def changed(self, old: str | None) -> None:
        await anyio.lowlevel.checkpoint()


class WaitsForTheNextChange(Wakes):
    async def changed(self, old: str | None) -> None:
        await self.event.wait()


class NeverWakes(Wakes):
    async def changed(self, old: str | None) -> None:
        if self.text == old:
            await anyio.sleep_forever()


class WaitersKeepWritersOut(Wakes):
    waiting = 0

    def same(self, held: str | None, old: str | None) -> bool:
        return held == old and not self.waiting

    async def changed(self, old: str | None) -> None:
        self.waiting += self.text == old
        await super().changed(old)


@pytest.mark.anyio
@pytest.mark.parametrize("store", [Wakes, WakesForNothing])
async def test_a_store_that_wakes_keeps_the_contract_even_if_it_wakes_for_nothing(
    store: Callable[[], Wakes],
) -> None:
    made = store()
    await check_store(lambda: made)


@virtual_time
@pytest.mark.anyio
@pytest.mark.parametrize(
    "flawed, promise",
    [
        (WaitsForTheNextChange, "changed returns if the slot holds something else already"),
        (NeverWakes, "changed returns once the slot holds something else"),
        (WaitersKeepWritersOut, "a swap wins while others wait"),
    ],
)
async def test_each_flaw_of_waking_is_found_and_named(
    flawed: Callable[[], Wakes], promise: str
) -> None:
    store = flawed()
    with pytest.raises(AssertionError, match=promise):
        await check_store(lambda: store)


@pytest.mark.anyio
@pytest.mark.parametrize("second", [Locks, Wakes])
async def test_handles_of_which_only_some_have_a_method_are_found(
    second: Callable[[], Flawed],
) -> None:
    slot = second()

    class Plain:
        async def load(self) -> str | None:
            return await slot.load()

        async def replace(self, old: str | None, new: str) -> bool:
            return await slot.replace(old, new)

    made: list[Flawed | Plain] = [Plain(), slot, slot, slot, slot, slot]
    handles = iter(made)
    with pytest.raises(AssertionError, match="either all handles have the method"):
        await check_store(lambda: next(handles))


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
