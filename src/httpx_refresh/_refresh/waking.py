"""Waits for another process: polls, which a store that tells of changes may cut short. It reads nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anyio

from .host import Beside
from .pauses import Polls
from .slot import Slot

if TYPE_CHECKING:
    from .events import Event

_LEAST = 0.001
"""Seconds that each pause takes: what is left of a pause may be less than the clocks can tell."""

_TO_END = 0.1
"""Seconds for which a call that was cancelled is waited for."""


class Waiting:
    """The pauses of one wait. A store's `changed` only shortens them, whatever it does.

    Mutable, by the task that waits:
        _call: the call of `changed` under way, or the last one.
        _text: what the store held when that was called.
        _cut: the end of that call has cut a pause short.
        _pausing: the pause that its end cuts short.
        _usable: whether `changed` may be called: there is one, it has not failed in this wait, and no call hangs.

    Invariants: there is one call at a time. A pause is cut short once for each text that was seen: a store that always
    says "changed" costs one look beside those that are made anyway.
    """

    __slots__ = (
        "_call",
        "_changed",
        "_cut",
        "_emit",
        "_pausing",
        "_polls",
        "_slot",
        "_text",
        "_usable",
    )

    def __init__(self, slot: Slot, polls: Polls, emit: Callable[[Event], None]) -> None:
        self._slot = slot
        self._polls = polls
        self._emit = emit
        self._changed: Any = getattr(slot.store, "changed", None)
        self._usable = callable(self._changed) and not slot.hangs()
        self._call: Beside | None = None
        self._text: str | None = None
        self._cut = False
        self._pausing: anyio.CancelScope | None = None

    async def pause(self, closing: anyio.Event, text: str | None, most: float) -> None:
        """Wait until it is time to look at the store again, or `closing` is set.

        Args:
            closing: ends the wait at once.
            text: what the store was seen to hold.
            most: seconds; the longest pause.
        """
        seconds = max(_LEAST, min(self._polls.next(), most))
        if self._usable and (self._call is None or self._text != text):
            await self.end()
        if self._usable and self._call is None:
            self._text, self._cut = text, False
            self._call = Beside(lambda: self._changed(text), self._wake)
        call = self._call
        if call is not None and call.done.is_set() and not self._cut:
            seconds = _LEAST  # It ended while the store was looked at, perhaps after that.
        with anyio.move_on_after(seconds) as self._pausing:
            await closing.wait()
        self._pausing = None
        if call is None or not call.done.is_set():
            return
        self._cut = True
        if call.failed is not None:
            self._usable = False
            self._say_once(call.failed)

    def _wake(self) -> None:
        if self._pausing is not None and not self._cut:
            self._pausing.cancel()

    async def end(self) -> None:
        """Let go of the call that is under way; its end is waited for a moment."""
        call, self._call = self._call, None
        if call is None or call.done.is_set():
            return
        call.cancel()
        with anyio.move_on_after(_TO_END):
            await call.done.wait()
        if not call.done.is_set():
            self._usable = False
            self._slot.hanging = call
            self._say_once("it does not end when it is cancelled")

    def _say_once(self, cause: str) -> None:
        if not self._slot.said:
            from . import events

            self._slot.said = True
            self._emit(events.CallbackFailed(callback="changed() of the store", cause=cause))
