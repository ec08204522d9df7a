"""The contract of a token store, as checks for any store."""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Awaitable, Callable

import anyio

from ..stores.base import ClaimLock, Release, TokenStore, WakingStore

__all__ = ["BrokenPromise", "check_store"]

MakeStore = Callable[[], TokenStore | Awaitable[TokenStore]]

_CROWD = 100
_ROUNDS = 4
_HANDLES = 5
_WRITES = 40  # after each, every handle must see it
_LOOKS = 3  # of each handle, after each write
_WAKING = 10.0  # seconds

_TEXTS = {
    "JSON": '{"access_token": "a\\u00e9\\\\", "httpx_refresh": {"generation": 1}}',
    "white space at its ends": " \t{}\r\n\n ",
    "quotes, backslashes and percent signs": "'\"`\\%s%%{}:x?$1--;\x01\x7f",
    "letters beyond ASCII": "Grüße, Ἑλλάς, 日本語, עברית",
    "characters beyond the basic plane": "\U0001f511\U0001d11e\U00020000",
    "64 KiB": "0123456789abcdef" * 4096,
    "64 KiB beyond ASCII": "é\U0001f511" * 8192,
}

# A store that compares by a collation, a prefix or a normal form treats these as equal.
_ALIKE = {
    "case": ("token-a", "token-A"),
    "a trailing space": ("token", "token "),
    "a leading space": ("token", " token"),
    "a trailing line break": ("token", "token\n"),
    "the kind of line break": ("a\nb", "a\r\nb"),
    "Unicode normalisation": ("caf\u00e9", "cafe\u0301"),
    "an accent": ("cafe", "café"),
    "a zero-width character": ("token", "to\u200bken"),
    "the last of 64 KiB": ("x" * 65_535 + "a", "x" * 65_535 + "b"),
    "a number's spelling": ("1", "1.0"),
}


_NO_LAG_OF_READS = (
    "what a swap has written, every later load through any handle sees at once, and never again what was there "
    "before: no reads from copies that lag (eventual consistency)"
)
_NO_LAG_OF_SWAPS = (
    "a swap compares with what was written last: no comparison with copies that lag "
    "(eventual consistency)"
)


_SEEN_WHOLE = (
    "what one handle has written, every other sees, and what a token is for comes back with it"
)


class BrokenPromise(AssertionError):
    """A store breaks the contract; the message names the promise."""


async def check_store(make_store: MakeStore) -> None:
    """Check a store against the contract that `httpx_refresh` relies on.

    The checks write many texts into one slot. The slot must be empty at the start, and holds a text
    at the end. One call makes about a thousand operations, a hundred of them at once. With pytest:

        @pytest.mark.anyio
        async def test_my_store_keeps_the_contract(database):
            await check_store(lambda: MyStore(database, key="contract"))

    The slot begins as a service's does: many callers claim it while it is empty, and a token that names its purpose
    replaces the claim. The optional methods `hold` and `changed` are checked if the store has them.

    A store that reads or compares on replicas fails only if a replica lags during the checks. So make handles as in
    production, connected to all replicas that it uses.

    Args:
        make_store: a function, sync or async, that returns a new handle on the same slot each time,
            as another process would make it. For a store that is one object, return that object.

    Raises:
        BrokenPromise: an AssertionError whose message names the broken promise.
        ValueError: the slot is not empty at the start.
    """
    stores = [await _made(make_store) for _ in range(_HANDLES)]
    first, second = stores[0], stores[1]
    if await first.load() is not None:
        raise ValueError("check_store needs an empty slot: this one holds a text")

    won = await first.replace("nothing like it", "text")
    _require(not won, "an empty slot holds no text: a swap from a text loses there")
    _require(await first.load() is None, "a swap that is lost writes nothing, an empty slot too")

    held = await _crowd(stores, None, _beginning)
    won = await second.replace(None, "late")
    _require(not won, "replace(None, ...) loses once the slot holds a text")
    won = await second.replace(None, held)
    _require(not won, "replace(None, ...) loses also when it would write what is there")
    await _expect(stores, held, "a swap that is lost writes nothing")

    held = await _check_service(stores, held)
    held = await _check_swaps(stores, held)
    for what, text in _TEXTS.items():
        won = await first.replace(held, text)
        _require(won, f"a swap from the text that is held wins, to and from a text with {what}")
        held = text
        await _expect(stores, held, f"a text comes back exactly as it was written: {what}")
    for what, pair in _ALIKE.items():
        for text, alike in (pair, pair[::-1]):
            _require(await first.replace(held, text), "a swap from the text that is held wins")
            held = text
            await _expect(stores[1:2], held, "what one handle has written, every other sees")
            won = await second.replace(alike, "taken for another")
            _require(not won, f"texts are compared exactly: {what} makes another text")
    for _ in range(_ROUNDS):
        held = await _crowd(stores, held)
    held = await _check_freshness(make_store, stores, held)
    await _check_hold(stores, held)
    await _check_changed(stores, held)


async def _made(make_store: MakeStore) -> TokenStore:
    made = make_store()
    store = await made if inspect.isawaitable(made) else made
    _require(isinstance(store, TokenStore), "a store has the methods load and replace")
    return store


def _beginning(number: int) -> str:
    """Return the text that a service writes into an empty slot before its first token request: only a claim."""
    claim = {"by": f"host:{number}", "nonce": f"{number:016x}", "since": 1.8e9, "for": 20.0}
    notes = {"generation": 0, "rev": f"{number:016x}", "redeeming": claim, "empty": True}
    return json.dumps({"httpx_refresh": notes})


def _obtained(scope: str) -> str:
    """Return the text that a service saves with its token, with the token's purpose."""
    purpose = f"client_credentials at https://server.test/token, client a, scope {scope} [0123456789abcdef]"
    notes = {"generation": 1, "rev": "1", "issued": 1.8e9, "purpose": purpose}
    return json.dumps({"access_token": "a", "expires_at": 1.8e9, "httpx_refresh": notes})


async def _check_service(stores: list[TokenStore], claim: str) -> str:
    """Check the swaps of a service in a slot that was empty and now holds its claim."""
    first, second = stores[0], stores[1]
    mine, other = _obtained("read"), _obtained("write")
    won = await second.replace(claim, mine)
    _require(won, "the first token of a service takes the place of a claim that holds none")
    await _expect(stores, mine, _SEEN_WHOLE)
    won = await first.replace(claim, other)
    _require(not won, "a service's claim that was answered is not answered again")
    won = await first.replace(other, claim)
    _require(not won, "two texts with one token, and another purpose, are two texts")
    won = await first.replace(mine, other)
    _require(won, "the text of a service is replaced when its purpose alone is another")
    await _expect(stores, other, _SEEN_WHOLE)
    return other


async def _check_swaps(stores: list[TokenStore], held: str) -> str:
    """Check a swap that wins, one that comes too late, and one of a text for itself."""
    first, second = stores[0], stores[1]
    _require(await second.replace(held, "one"), "a swap from the text that is held wins")
    await _expect(stores, "one", "what one handle has written, every other sees")
    won = await first.replace(held, "two")
    _require(not won, "a swap from a text that is held no longer loses")
    await _expect(stores, "one", "a swap that is lost writes nothing")
    won = await first.replace("one", "one")
    _require(won, "a swap of a text for itself wins if it is held")
    await _expect(stores, "one", "a swap of a text for itself keeps it")
    won = await first.replace("two", "two")
    _require(not won, "a swap of a text for itself loses if it is not held")
    _require(await first.replace("one", held), "a swap back to an earlier text wins")
    await _expect(stores, held, "what one handle has written, every other sees")
    return held


async def _check_freshness(make_store: MakeStore, stores: list[TokenStore], held: str) -> str:
    """Write through each handle in turn. After each write, load through all of them and swap from the earlier text."""
    for number in range(_WRITES):
        before, held = held, f"write {number}"
        writer = stores[number % len(stores)]
        won = await writer.replace(before, held)
        _require(
            won, "a swap from the text that is held wins, no matter which handle has written it"
        )
        seen: list[str | None] = []
        late: list[bool] = []
        async with anyio.create_task_group() as group:
            for store in stores:
                group.start_soon(_look, store, seen)
                group.start_soon(_swap_late, store, before, late)
        _require(not any(late), _NO_LAG_OF_SWAPS)
        _require(all(text == held for text in seen), _NO_LAG_OF_READS)
    fresh = await _made(make_store)
    _require(
        await fresh.load() == held, "a handle that was made last sees what the others have written"
    )
    return held


async def _look(store: TokenStore, seen: list[str | None]) -> None:
    seen += [await store.load() for _ in range(_LOOKS)]


async def _swap_late(store: TokenStore, before: str, late: list[bool]) -> None:
    late.append(await store.replace(before, "from a text that is no longer there"))


async def _check_hold(stores: list[TokenStore], held: str) -> None:
    """Check the lock of a claim, if the store has it."""
    locks = [store for store in stores if isinstance(store, ClaimLock)]
    if not locks:
        return
    _require(len(locks) == len(stores), "either all handles have the method hold, or none has")
    first, second = locks[0], locks[1]
    hold = await _taken(first, "a lock that nobody holds can be had")
    _require(await second.hold() is None, "a lock that one handle holds, no other gets")
    _require(
        await first.hold() is None, "a lock that a handle holds, it does not get a second time"
    )
    await _expect(stores, held, "the text can be read while the lock is held")
    won = await stores[1].replace(held, "while it is held")
    _require(won, "the text can be swapped by another handle while the lock is held")
    _require(await stores[0].replace("while it is held", held), "and swapped back")
    _release(hold)
    again = await _taken(second, "a lock that was released can be had")
    _release(hold)
    _require(await first.hold() is None, "a lock is released once: later it is another's")
    thread = threading.Thread(target=_release, args=(again,))
    thread.start()
    thread.join()
    _release(await _taken(first, "a lock can be released in any thread"))


async def _taken(store: ClaimLock, promise: str) -> Release:
    hold = await store.hold()
    if hold is None:
        raise BrokenPromise(promise)
    _require(isinstance(hold.is_first, bool), "a lock says whether it is_first")
    return hold


def _release(hold: Release) -> None:
    # Its type excludes a coroutine function, but the store under test may not be typed.
    _require(not inspect.iscoroutinefunction(hold.release), "release is no coroutine function")
    hold.release()


async def _check_changed(stores: list[TokenStore], held: str) -> None:
    """Check that a waiter is woken, if the store can wake one. It may also be woken without a change."""
    waking = [store for store in stores if isinstance(store, WakingStore)]
    if not waking:
        return
    _require(len(waking) == len(stores), "either all handles have the method changed, or none has")
    woken: list[bool] = []
    for old in (None, "another text"):
        await _wait(waking[0], old, woken)
    _require(all(woken), "changed returns if the slot holds something else already")
    won = False
    async with anyio.create_task_group() as group:
        for store in waking:
            group.start_soon(_wait, store, held, woken)
        await anyio.wait_all_tasks_blocked()
        won = await stores[-1].replace(held, "a change")
        if not won:
            group.cancel_scope.cancel()
    _require(won, "a swap wins while others wait for it")
    _require(all(woken), "changed returns once the slot holds something else")


async def _wait(store: WakingStore, old: str | None, woken: list[bool]) -> None:
    with anyio.move_on_after(_WAKING) as scope:
        await store.changed(old)
    woken.append(not scope.cancelled_caught)


async def _crowd(
    stores: list[TokenStore], old: str | None, write: Callable[[int], str] | None = None
) -> str:
    """Make a hundred swaps from `old` at once; return the text of the one that won."""
    winners: list[str] = []

    async def swap(store: TokenStore, new: str) -> None:
        if await store.replace(old, new):
            winners.append(new)

    async with anyio.create_task_group() as group:
        for number in range(_CROWD):
            new = f"swapper {number}, from {old[:40] if old else 'nothing'}"
            if write is not None:
                new = write(number)
            group.start_soon(swap, stores[number % len(stores)], new)
    _require(
        len(winners) == 1,
        f"of any number of swaps from one text exactly one wins; of {_CROWD}, {len(winners)} did",
    )
    await _expect(stores, winners[0], "the slot holds what the winner of a race wrote")
    return winners[0]


async def _expect(stores: list[TokenStore], text: str, promise: str) -> None:
    for store in stores:
        _require(await store.load() == text, promise)


def _require(kept: bool, promise: str) -> None:
    if not kept:
        raise BrokenPromise(promise)
