"""What a token store is: compare and swap on one small text. Also what the stores here have in common."""

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
]

_PIECE = 8  # characters of a text that a message may not repeat
_LONGEST_MESSAGE = 10_000  # characters that are searched for pieces


@runtime_checkable
class TokenStore(Protocol):
    """One slot that holds one small text, or nothing.

    Any class with these two coroutine methods is a store; nothing needs to be inherited or
    registered. `httpx_refresh.testing.check_store` puts a store through the whole contract:

    - the text comes back exactly as it was written, character for character;
    - texts are compared exactly: case, trailing space and Unicode normalisation count;
    - of any number of swaps from the same text, in any threads, processes or hosts that share
      the slot, exactly one wins;
    - what a swap that won has written, every later `load` and every later swap through any handle
      sees, at once: a store with replicas reads and compares where it writes.

    A store raises its backend's own errors. After an error nobody knows whether the swap took
    place: the caller loads and looks.

    A store may have more, and is then put to better use: `ClaimLock` and `WakingStore`. It may have
    `slot`, a `str` that names it among all stores; `EncryptedStore` binds texts to it.
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
    """A lock that is held; the operating system releases it if the process ends in any way."""

    @property
    def is_first(self) -> bool:
        """Whether the lock was made just now: that it was free then tells nothing of an earlier holder."""
        ...

    def release(self) -> None:
        """Let others have the lock. It raises nothing, and does nothing the second time.

        It does not wait, and may be called in any thread, event loop or `finally`, also after the
        event loop has ended. In a forked child it does nothing.
        """
        ...


@runtime_checkable
class ClaimLock(Protocol):
    """What a store has in addition whose users are all on one host: a lock that dies with its owner.

    The process that spends a refresh token holds this lock from before the claim is written until the claim
    is gone. If the lock is free while a claim stands whose note says that it is held, the
    claim's owner has died, and nobody needs to wait for it, unless the lock `is_first`.
    """

    async def hold(self) -> Release | None:
        """Take the lock without waiting for it; return None if somebody holds it.

        It excludes other processes, and other calls in this process. A subprocess does not inherit
        it. A process that cannot get it may go on without: then others wait as they do with any
        store.
        """
        ...


@runtime_checkable
class WakingStore(Protocol):
    """What a store has in addition that can tell of a change, so that nobody has to poll for it."""

    async def changed(self, old: str | None) -> None:
        """Return when the slot may hold something else than `old`; it may be early, or wrong.

        It returns at once if the slot holds something else already.
        """
        ...


@runtime_checkable
class OneLoop(Protocol):
    """What a store has in addition that may belong to one event loop, as its connections do."""

    @property
    def one_loop(self) -> str | None:
        """The code that makes a store which serves every event loop; None if this one does.

        Sync clients, whose refreshes run on an event loop of the library's own, are shown it.
        """
        ...


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
    # Raised outside the handler: a UnicodeEncodeError holds the whole text, and must not travel
    # as __context__.
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
    """Raise a RuntimeError that names `store`, unless an asyncio task is running this."""
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
