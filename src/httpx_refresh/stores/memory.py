"""A store in this process's memory."""

from __future__ import annotations

import logging
import os
from threading import Lock
from typing import NoReturn

from .._errors import StoreError, frameless

__all__ = ["MemoryStore"]

logger: logging.Logger = logging.getLogger("httpx_refresh")

# Held for one comparison and one assignment, never across an await, so one lock serves all stores.
_lock = Lock()

_A_COPY = (
    "this MemoryStore is a copy: its token belongs to the process that this one was forked from. No refresh token was "
    "spent. Use a FileStore, which processes share, or make the store after the fork"
)

# The number of forks between this process and the one that imported this module.
_forks = 0


def _count_fork() -> None:
    global _forks, _lock
    _forks += 1
    _lock = Lock()  # Another thread of the parent may have held it.


if hasattr(os, "register_at_fork"):  # pragma: no branch  # nothing forks on Windows
    os.register_at_fork(after_in_child=_count_fork)


class MemoryStore:
    """Keeps the text in the memory of one process; it is lost when the process ends.

    Every coroutine, event loop and thread of the process may share one `MemoryStore`. It never
    waits. A rotated refresh token that is kept only here is lost with the process, so use it for
    tests, and for tokens that do not rotate.

    A forked child has a copy, which does not see the parent's refreshes: both would spend the same
    refresh token. So a store that holds a text and was used before the fork raises `StoreError` in a
    child. A store that was not used yet is warned about once, because other children may have the
    same copy. Let processes share a `FileStore` instead. For the same reason `copy`
    returns the store itself, and it cannot be pickled.

    Args:
        text: the initial text, for instance the JSON text of a token response.

    Raises:
        TypeError: `text` is not a str; pass a token response as `json.dumps(response)`.
    """

    __slots__ = ("__weakref__", "_forks", "_text", "_used")

    @frameless
    def __init__(self, text: str | None = None) -> None:
        if text is not None and not isinstance(text, str):
            raise TypeError(
                f"MemoryStore takes a str, not {type(text).__name__}. For a token response: "
                "MemoryStore(json.dumps(response))"
            )
        self._text = text
        self._used = False
        self._forks = _forks

    def peek(self) -> str | None:
        """Return the text the slot holds, as `load` does, without an await."""
        return self._text

    async def load(self) -> str | None:
        """Return the text the slot holds, or None if it holds nothing."""
        if not self._may_be_used():
            raise StoreError(_A_COPY)
        return self._text

    async def replace(self, old: str | None, new: str) -> bool:
        """Write `new` if the slot still holds exactly `old` (None: nothing); else return False."""
        if not self._may_be_used():
            del old, new  # An exception holds this frame.
            raise StoreError(_A_COPY)
        with _lock:
            if self._text != old:
                return False
            self._text = new
            return True

    def __copy__(self) -> MemoryStore:
        return self  # Two stores with one refresh token would both spend it.

    def __deepcopy__(self, _: object) -> MemoryStore:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a MemoryStore cannot be pickled: a copy in another process would spend the same refresh token. Processes "
            "share a FileStore, or one of httpx_refresh.stores"
        )

    def _may_be_used(self) -> bool:
        """Note that the store is used; return False if it is a copy of a store that the parent process uses."""
        if self._forks != _forks and self._text is not None:
            if self._used:
                return False
            logger.warning(
                "%r was made before this process was forked: if another process uses its copy, both will spend one "
                "refresh token. Processes share a FileStore.",
                self,
            )
        self._forks = _forks
        self._used = True
        return True

    def __repr__(self) -> str:
        return "<MemoryStore, empty>" if self._text is None else "<MemoryStore, holding a text>"


class OwnMemory(MemoryStore):
    """The memory of one process, for tokens that can be requested again. A forked child goes on with its copy.

    A fork costs one token request and no token.
    """

    __slots__ = ()

    def _may_be_used(self) -> bool:
        return True

    def __repr__(self) -> str:
        return "<the memory of this process>"
