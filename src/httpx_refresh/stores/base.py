"""The protocol of a token store, which is compare and swap on one small text, and helpers of the stores here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

__all__ = [
    "ClaimLock",
    "OneLoop",
    "Release",
    "TokenStore",
    "WakingStore",
    "decode_text",
    "encode_text",
    "quotes",
    "require_asyncio",
    "say_reason",
]

_PIECE = 8  # characters of a text that a message may not repeat
_LONGEST_MESSAGE = 10_000  # characters; longer messages are not searched


@runtime_checkable
class TokenStore(Protocol):
    """One slot that holds one small text or nothing.

    Any class with these two coroutine methods is a store; there is nothing to inherit from or to
    register. `httpx_refresh.testing.check_store` checks a store against the whole contract:

    - the text comes back exactly as it was written, character for character;
    - texts are compared exactly: case, trailing space and Unicode normalisation count;
    - of any number of swaps from the same text, in any threads, processes or hosts that share
      the slot, exactly one wins;
    - every later `load` and every later swap, through any handle, sees at once what the last winning
      swap wrote: a store with replicas reads and compares where it writes.

    A store raises its backend's own errors. After an error it is not known whether the swap took
    place, so the caller loads the text to find out. `StoreError` does not repeat what an error says, which may
    quote the text. It says the error's type, an operating system's reason, and the error's attribute `store_reason`,
    a few words or a code that hold nothing of the text, if the store has set it.

    A store may also implement `ClaimLock` and `WakingStore`, which shorten waits. It may have the
    attribute `slot`, a `str` that names it among all stores; `EncryptedStore` binds texts to it.
    """

    async def load(self) -> str | None:
        """Return the text the slot holds, or None if it holds nothing."""
        ...

    async def replace(self, old: str | None, new: str) -> bool:
        """Write `new` if the slot still holds exactly `old` (None: nothing).

        Returns False, and writes nothing, if the slot holds something else. `old` and `new` may
        be equal: then the answer says whether the slot holds that text, and the slot keeps it as
        it is.
        """
        ...


class Release(Protocol):
    """A lock that is held. The operating system releases it if the process ends in any way."""

    @property
    def is_first(self) -> bool:
        """Whether the lock was created just now, so that its being free says nothing about an earlier holder."""
        ...

    def release(self) -> None:
        """Release the lock. It raises nothing, and does nothing the second time.

        It does not wait, and may be called in any thread, event loop or `finally`, also after the
        event loop has ended. In a forked child it does nothing.
        """
        ...


@runtime_checkable
class ClaimLock(Protocol):
    """An optional part of a store whose users are all on one host: a lock that ends with its owner's process.

    The process that spends a refresh token holds this lock from before it writes the claim until the claim
    is gone. A claim notes whether its owner holds the lock. If the lock of such a claim is free, the owner
    has died and nobody needs to wait for it, unless the lock `is_first`.
    """

    async def hold(self) -> Release | None:
        """Take the lock without waiting for it; return None if somebody holds it.

        It excludes other processes, and other calls in this process. A subprocess does not inherit
        it. A process that cannot get the lock may go on without it; then others wait as they do with
        any store.
        """
        ...


@runtime_checkable
class WakingStore(Protocol):
    """An optional part of a store: it reports changes, so that waiters need not poll."""

    async def changed(self, old: str | None) -> None:
        """Return when the slot may hold something other than `old`.

        It returns at once if the slot already holds something else. Early and wrong returns are
        allowed: the caller loads the text and looks.
        """
        ...


@runtime_checkable
class OneLoop(Protocol):
    """An optional part of a store whose connections may belong to one event loop."""

    @property
    def one_loop(self) -> str | None:
        """Code that makes a store which serves every event loop; None if this store does.

        Errors show it to users of sync clients, whose refreshes run on an event loop of the library.
        """
        ...


def say_reason(error: Exception, reason: str) -> None:
    """Have `StoreError` say this of a store's error; see `TokenStore`."""
    error.store_reason = reason  # type: ignore[attr-defined]  # anybody's exception


def quotes(message: str, texts: Iterable[str]) -> bool:
    """Whether a message repeats eight characters of one of these texts, or is too long to tell."""
    if len(message) > _LONGEST_MESSAGE:
        return True
    pieces = {message[at : at + _PIECE] for at in range(len(message) - _PIECE + 1)}
    return any(piece in text for text in texts for piece in pieces)


def encode_text(text: str) -> bytes:
    """Return the UTF-8 bytes of `text`; ValueError, without the text, for a lone surrogate."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        pass
    # ValueError is raised outside the handler: a UnicodeEncodeError holds the whole text, and must
    # not become its __context__.
    raise ValueError("the text has a lone surrogate and cannot be written as UTF-8")


def decode_text(data: bytes, where: str) -> str:
    """Return the text of these UTF-8 bytes; ValueError, naming `where` only, if they are not."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        pass
    # As above: a UnicodeDecodeError holds all the bytes.
    raise ValueError(f"{where} does not hold UTF-8 text")


def require_asyncio(store: str) -> None:
    """Raise a RuntimeError that names `store`, unless this runs in an asyncio task."""
    import asyncio  # Not at the top: importing the library stays fast.

    try:
        task = asyncio.current_task()
    except RuntimeError:  # no asyncio loop runs in this thread: trio's does
        task = None
    if task is None:  # trio as a guest of an asyncio loop
        raise RuntimeError(
            f"{store} serves asyncio only, for its driver knows no other event loop; "
            "under trio use a FileStore, or a store of your own"
        )
