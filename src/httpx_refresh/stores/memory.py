"""A store in this process's memory."""

from __future__ import annotations

from threading import Lock

__all__ = ["MemoryStore"]

# Held for one comparison and one assignment, never across an await; and so one serves all stores.
_lock = Lock()


class MemoryStore:
    """Keeps the text in memory: for one process, and gone with it.

    Every coroutine, event loop and thread of the process may share one `MemoryStore`. It never
    waits and never fails. A rotated refresh token that lives only here is lost when the process
    ends: fit for tests, and for tokens that do not rotate.

    Args:
        text: what the slot holds at first, for instance the JSON text of a token response.
    """

    __slots__ = ("__weakref__", "_text")

    def __init__(self, text: str | None = None) -> None:
        self._text = text

    def peek(self) -> str | None:
        """Return the text the slot holds, as `load` does, without being awaited."""
        return self._text

    async def load(self) -> str | None:
        """Return the text the slot holds, or None if it holds nothing."""
        return self._text

    async def replace(self, old: str | None, new: str) -> bool:
        """Write `new` if the slot still holds exactly `old` (None: nothing); else return False."""
        with _lock:
            if self._text != old:
                return False
            self._text = new
            return True

    def __repr__(self) -> str:
        return "<MemoryStore, empty>" if self._text is None else "<MemoryStore, holding a text>"
