"""One slot of a store as a refresh sees it: records instead of texts, `StoreError` instead of anybody's errors."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable

from . import _record
from ._errors import StoreError
from ._record import Claim, Record
from .stores.base import TokenStore


class Clock:
    """The time. Intervals are measured on `monotonic`; `wall` is for `expires_at` and what people read."""

    __slots__ = ()

    def wall(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


SYSTEM_CLOCK = Clock()


class Slot:
    """Reads and swaps the text of one store, and knows how long a claim has been standing there."""

    __slots__ = ("_unsent", "_watched", "clock", "store")

    def __init__(self, store: TokenStore, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self._watched: tuple[str, float] | None = None
        self._unsent: str | None = None

    async def read(self) -> Record:
        """Load and read the text; raise `StoreError` if either cannot be done."""
        try:
            text = await self.store.load()
        except Exception as error:
            raise StoreError(
                f"{self.store!r} could not be read ({type(error).__name__}). The token in it is as it was, and no "
                "refresh token was spent. Mend the store; the next request tries again."
            ) from error
        try:
            return _record.parse(text)
        except _record.BadText as error:
            raise StoreError(
                f"{self.store!r} holds a text that is no token: {error}. It was left as it is, and nothing was sent. "
                "Put a token response there (a JSON object with access_token and refresh_token), or empty the slot "
                "and log in again."
            ) from None

    async def swap(self, old: str | None, new: str) -> bool:
        """Write `new` if the slot still holds `old`; raise `StoreError` if the store fails (written or not)."""
        try:
            return await self.store.replace(old, new)
        except Exception as error:
            raise StoreError(
                f"{self.store!r} could not be written ({type(error).__name__}). The next request tries again; mend "
                "the store."
            ) from error

    def claim(self) -> Claim:
        """Make a claim that no other one equals."""
        return Claim(
            f"{socket.gethostname()}:{os.getpid()}", secrets.token_hex(8), self.clock.wall()
        )

    def forgo(self, claim: Claim) -> None:
        """Remember that nothing was sent under this claim of ours, wherever it may still stand."""
        self._unsent = claim.nonce

    def was_unsent(self, claim: Claim) -> bool:
        """Whether this is a claim of ours under which nothing was sent."""
        return claim.nonce == self._unsent

    def is_abandoned(self, record: Record, patience: float) -> bool:
        """Whether the claim on `record` is nobody's any more.

        It is if this very slot object saw it unchanged for `patience` seconds on its own monotonic clock (no two
        hosts' clocks are compared), if it is ours and unsent, or if it is older than any clock is wrong.
        """
        claim = record.redeeming
        if claim is None:
            self._watched = None
            return False
        if self._watched is None or self._watched[0] != claim.nonce:
            self._watched = (claim.nonce, self.clock.monotonic())
        return (
            self.clock.monotonic() - self._watched[1] >= patience
            or self.was_unsent(claim)
            or self.clock.wall() - claim.since > _record.ABANDONED_AFTER
        )


OnUnsaved = Callable[[_record.Token], None]
