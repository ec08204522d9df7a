"""The one primitive a store has: compare and swap on one small text."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

__all__ = ["TokenStore", "decode_text", "encode_text", "require_asyncio"]


@runtime_checkable
class TokenStore(Protocol):
    """One slot that holds one small text, or nothing.

    Any class with these two coroutine methods is a store; nothing needs to be inherited or
    registered. `httpx_refresh.testing.check_store` puts a store through the whole contract:

    - the text comes back exactly as it was written, character for character;
    - texts are compared exactly: case, trailing space and Unicode normalisation count;
    - of any number of swaps from the same text, in any threads, processes or hosts that share
      the slot, exactly one wins;
    - what a swap that won has written, every later `load` through any handle sees.

    A store raises its backend's own errors. After an error nobody knows whether the swap took
    place: the caller loads and looks.
    """

    async def load(self) -> str | None:
        """Return the text the slot holds, or None if it holds nothing."""
        ...

    async def replace(self, old: str | None, new: str) -> bool:
        """Write `new` if the slot still holds exactly `old` (None: nothing).

        Returns False, and writes nothing, if the slot holds something else. `old` and `new` may
        be equal: then the answer says whether the slot holds that text.
        """
        ...


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
    import asyncio  # Not at the top: whoever imports the library need not wait for it.

    try:
        task = asyncio.current_task()
    except RuntimeError:  # no asyncio loop runs in this thread: trio's does
        task = None
    if task is None:  # trio as a guest of an asyncio loop
        raise RuntimeError(
            f"{store} serves asyncio only, for its driver knows no other event loop; "
            "under trio use a FileStore, or a store of your own"
        )
