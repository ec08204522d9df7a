"""The journal of one refresh, kept in the slot: a claim before the request leaves, the result in its place after."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import anyio

from .._errors import StoreError
from .._token import Token
from . import record as _record
from .record import Dead, Record
from .slot import Poll, Slot

logger = logging.getLogger("httpx_refresh")


class NotSaved(Exception):
    """The result in `journal` is not in the store, and only this process knows it."""

    def __init__(self, journal: Journal, cause: StoreError) -> None:
        super().__init__("the new token is not saved")
        self.journal = journal
        self.cause = cause


class Journal:
    """Sees to it that the slot holds, in the end, what became of one refresh token.

    Invariant: from the claim on, `_next_text()` is what the slot has to hold when this ends, whatever ends it: the
    result if there is one, else the latch of a refusal, else the mark `uncertain` if the token may have been spent,
    else what was there before.

    Attributes:
        claim: what stands in the slot meanwhile.
        maybe_spent: whether the refresh token may be spent, for all this process knows.
        result: what the slot shall hold in the end, once the server has answered with a new token.
        dead: the server's refusal, once it refused for good.
        lost: whether the slot was found to hold something that is not ours to replace.
    """

    def __init__(self, slot: Slot, base: Record, held: Token, *, refresh_timeout: float) -> None:
        self.claim = slot.claim()
        self.maybe_spent = False
        self.result: Token | None = None
        self.dead: Dead | None = None
        self.lost = False
        self._slot = slot
        self._base = base
        self._held = held
        self._refresh_timeout = refresh_timeout
        self._uncertain = base.uncertain
        if base.redeeming is not None and not slot.was_unsent(base.redeeming):
            # A claim that is taken over: nobody knows how far its owner came.
            self._uncertain = base.redeeming
        self._claimed = _record.write(
            held, base.generation, redeeming=self.claim, uncertain=self._uncertain
        )
        self._text: str | None = self._claimed
        self._ended = False

    async def open(self) -> bool:
        """Put the claim on the slot; False if somebody else was faster."""
        try:
            won = await self._slot.swap(self._base.text, self._claimed)
        except StoreError:
            # It may be written all the same, and only the answer is lost.
            self._slot.give_up(self.claim, maybe_spent=False)
            raise
        except anyio.get_cancelled_exc_class():
            # A write in a thread goes on, and may come after what is written here.
            self._slot.give_up(self.claim, maybe_spent=False)
            await self.settle()
            raise
        if not won:
            # It may be ours all the same: a client that sends a swap again, because the answer to the first was
            # lost, is told that it lost.
            self._slot.give_up(self.claim, maybe_spent=False)
        return won

    def sending(self) -> None:
        """Take note that the refresh token leaves this process now."""
        self.maybe_spent = True

    @property
    def new_token(self) -> Token:
        """The result; there must be one."""
        if self.result is None:
            raise AssertionError("there is no result yet")
        return self.result

    def is_unsaved(self) -> bool:
        """Whether there is a result, and nothing is known to stand in the slot that came of it or after it."""
        return self.result is not None and not self._ended

    def brought(self, token: Token) -> bool:
        """Whether `token` is the result, not a rival's."""
        return self.result is not None and token.access_token == self.result.access_token

    def _next_text(self) -> str:
        base = self._base
        if self.result is not None:
            return _record.write(self.result, base.generation + 1)
        if self.dead is not None:
            return _record.write(
                self._held, base.generation, uncertain=self._uncertain, dead=self.dead
            )
        if self.maybe_spent:
            return _record.write(self._held, base.generation, uncertain=self.claim)
        if base.text is not None and base.redeeming is None:
            return base.text
        return _record.write(self._held, base.generation, uncertain=self._uncertain)

    async def put(self) -> Record | None:
        """Bring the slot to its end; None once that is done, else what stands there and is not ours to replace.

        Fenced: the claim is replaced by compare-and-swap, so that a process which lost its claim replaces nothing of
        another's. A result outlives the loss of its claim, because nobody else knows it: it replaces a text that no
        result came to meanwhile, once no other's claim stands on that.
        """
        text = self._next_text()
        while not await self._slot.swap(self._text, text):
            there = await self._slot.read()
            if there.text == text:  # An earlier try wrote it, and the store's answer was lost.
                break
            emptied = there.text is None and self.result is not None
            final = self.result is not None or self.dead is not None
            if not final or not (emptied or there.same_base(self._base)) or self._is_held(there):
                self._ended = not there.same_base(self._base)
                self.lost = True
                return there
            self._text = there.text
        self._text, self._ended = text, True
        return None

    def _is_held(self, there: Record) -> bool:
        """Whether another's claim stands there, and may be alive."""
        return (
            there.redeeming is not None
            and there.redeeming.nonce != self.claim.nonce
            and not self._slot.is_abandoned(there, self._refresh_timeout * 1.5)
        )

    async def put_or_warn(self) -> bool:
        """Bring the slot to its end; False, and logged, if the store fails."""
        try:
            await self.put()
        except StoreError as error:
            logger.warning("The end of a refresh could not be noted: %s", error)
            self._slot.give_up(self.claim, maybe_spent=self.maybe_spent)
            return False
        return True

    async def settle(self) -> bool:
        """Bring the slot to its end although this task is cancelled; False, and logged, if that failed."""
        with anyio.move_on_after(self._refresh_timeout, shield=True):
            return await self.put_or_warn()
        self._slot.give_up(self.claim, maybe_spent=self.maybe_spent)
        return False

    async def save(self) -> Record:
        """Save the result; return what the slot holds then: it, or what somebody else brought meanwhile.

        Raises:
            NotSaved: the store failed.
        """
        poll = Poll(self._slot.host)
        while True:
            try:
                there = await self.put()
            except StoreError as error:
                raise NotSaved(self, error) from error
            if there is None:
                return _record.parse(self._text)
            if not there.same_base(self._base):
                return there  # A newer token, somebody's login, or a logout.
            await (
                poll.sleep()
            )  # Another's claim on the token that we spent: it ends, or is abandoned.

    async def keep_saving(
        self, closing: anyio.Event, give_up: Callable[[], Awaitable[None]]
    ) -> Record:
        """Try the save again and again until it is done, and return what the slot holds then.

        Args:
            closing: once set, the next try comes at once and is the last.
            give_up: called once: when saving has failed for `refresh_timeout`, or for the last time.

        Raises:
            NotSaved: the last try failed.
        """
        host = self._slot.host
        started, given_up, delay = host.monotonic(), False, 0.1
        try:
            while True:
                with anyio.move_on_after(host.jitter(delay, 0.5)):
                    await closing.wait()
                delay = min(delay * 2, 10.0)
                last = closing.is_set()
                try:
                    record = await self.save()
                except NotSaved as error:
                    late = host.monotonic() - started >= self._refresh_timeout
                    if not given_up and (last or late):
                        given_up = True
                        await give_up()
                    if last:
                        raise
                    logger.error("The new token is still not saved: %s", error.cause)
                else:
                    logger.warning("The new token is saved after all.")
                    return record
        except anyio.get_cancelled_exc_class():
            if not await self.settle() and not given_up:
                with anyio.move_on_after(self._refresh_timeout, shield=True):
                    await give_up()
            raise
