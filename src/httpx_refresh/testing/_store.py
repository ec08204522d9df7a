"""The contract of a token store, as checks that any store can be put through."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable

import anyio

from ..stores.base import TokenStore

__all__ = ["BrokenPromise", "check_store"]

MakeStore = Callable[[], TokenStore | Awaitable[TokenStore]]

_CROWD = 100
_ROUNDS = 4
_HANDLES = 5

_TEXTS = {
    "JSON": '{"access_token": "a\\u00e9\\\\", "httpx_refresh": {"generation": 1}}',
    "white space at its ends": " \t{}\r\n\n ",
    "quotes, backslashes and percent signs": "'\"`\\%s%%{}:x?$1--;\x01\x7f",
    "letters beyond ASCII": "Grüße, Ἑλλάς, 日本語, עברית",
    "characters beyond the basic plane": "\U0001f511\U0001d11e\U00020000",
    "64 KiB": "0123456789abcdef" * 4096,
    "64 KiB beyond ASCII": "é\U0001f511" * 8192,
}

# A store that compares by a collation, a prefix or a normal form takes these for one another.
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


class BrokenPromise(AssertionError):
    """A store does not keep a promise of the contract; the text says which."""


async def check_store(make_store: MakeStore) -> None:
    """Put a store through the contract that `httpx_refresh` relies on.

    Every check moves one slot from text to text, so the slot must be empty at the start; it holds
    a text at the end. One call takes a few hundred swaps, a hundred of them at once. With pytest:

        @pytest.mark.anyio
        async def test_my_store_keeps_the_contract(database):
            await check_store(lambda: MyStore(database, key="contract"))

    Args:
        make_store: returns a handle on the same slot each time, with or without `await`: as
            another process would make it. For a store that lives in one object, that object.

    Raises:
        BrokenPromise: an AssertionError whose text names the promise that is not kept.
        ValueError: the slot is not empty at the start.
    """
    stores = [await _made(make_store) for _ in range(_HANDLES)]
    first, second = stores[0], stores[1]
    if await first.load() is not None:
        raise ValueError("check_store needs an empty slot: this one holds a text")

    won = await first.replace("nothing like it", "text")
    _require(not won, "an empty slot holds no text: a swap from a text loses there")
    _require(await first.load() is None, "a swap that is lost writes nothing, an empty slot too")

    held = await _crowd(stores, None)
    won = await second.replace(None, "late")
    _require(not won, "replace(None, ...) loses once the slot holds a text")
    won = await second.replace(None, held)
    _require(not won, "replace(None, ...) loses also when it would write what is there")
    await _expect(stores, held, "a swap that is lost writes nothing")

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
            won = await second.replace(alike, "taken for another")
            _require(not won, f"texts are compared exactly: {what} makes another text")
    for _ in range(_ROUNDS):
        held = await _crowd(stores, held)


async def _made(make_store: MakeStore) -> TokenStore:
    made = make_store()
    store = await made if inspect.isawaitable(made) else made
    _require(isinstance(store, TokenStore), "a store has the methods load and replace")
    return store


async def _check_swaps(stores: list[TokenStore], held: str) -> str:
    """Check the swap that wins, the one that comes too late, and that of a text for itself."""
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


async def _crowd(stores: list[TokenStore], old: str | None) -> str:
    """Let a hundred swap from `old` at once; return the text of the one that won."""
    winners: list[str] = []

    async def swap(store: TokenStore, new: str) -> None:
        if await store.replace(old, new):
            winners.append(new)

    async with anyio.create_task_group() as group:
        for number in range(_CROWD):
            new = f"swapper {number}, from {'nothing' if old is None else old[:40]}"
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
