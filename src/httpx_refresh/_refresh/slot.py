"""One slot of a store as a refresh sees it: records instead of texts, `StoreError` instead of anybody's errors."""

from __future__ import annotations

import os
import random
import secrets
import socket
import time
from contextlib import suppress

import anyio

from .._errors import StoreError
from .._token import Token
from ..stores.base import TokenStore
from ..stores.memory import MemoryStore
from . import record as _record
from .record import Claim, Record


class Host:
    """What a refresh asks of the machine it runs on: the time, chance, and a name.

    Intervals are measured on `monotonic`; `wall` is for `expires_at`, and for what people read.
    """

    __slots__ = ()

    def wall(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def name(self) -> str:
        return f"{socket.gethostname()}:{os.getpid()}"

    def nonce(self) -> str:
        return secrets.token_hex(8)

    def jitter(self, value: float, least: float) -> float:
        """Return `value` times something between `least` and 1."""
        return value * random.uniform(least, 1.0)  # noqa: S311 - it spreads load, and guards nothing


THIS_HOST = Host()


class Poll:
    """The pauses between two looks at the store: 20 ms at first, then longer and longer, each with jitter."""

    __slots__ = ("_host", "_pause")

    def __init__(self, host: Host) -> None:
        self._host = host
        self._pause = 0.02

    async def sleep(self) -> None:
        pause, self._pause = self._pause, min(self._pause * 1.6, 2.0)
        await anyio.sleep(self._host.jitter(pause, 0.8))


class Slot:
    """Reads and swaps the text of one store, and knows how long a claim has been standing there."""

    __slots__ = ("_over", "_watched", "host", "store")

    def __init__(self, store: TokenStore, host: Host) -> None:
        self.store = store
        self.host = host
        self._watched: tuple[str, float] | None = None
        self._over: tuple[str, bool] | None = None

    async def read(self) -> Record:
        """Load and read the text; raise `StoreError` if either cannot be done."""
        try:
            text = await self.store.load()
        except StoreError:
            raise
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

    def peek(self) -> Record:
        """Read a text that is in this process's memory; an empty record where it is elsewhere, or is no token."""
        # Not its subclasses: what they do when they load is not to be passed by.
        if type(self.store) is MemoryStore:
            with suppress(_record.BadText):  # Who reads it gets the error.
                return _record.parse(self.store.peek())
        return Record(None)

    async def put(self, token: Token) -> None:
        """Put `token` in the place of whatever the slot holds; raise `StoreError` if that cannot be done."""
        poll = Poll(self.host)
        while True:
            record = await self.read()
            if await self.swap(record.text, _record.write(token, record.generation + 1)):
                return
            await poll.sleep()

    async def swap(self, old: str | None, new: str) -> bool:
        """Write `new` if the slot still holds `old`; raise `StoreError` if the store fails (written or not)."""
        try:
            return await self.store.replace(old, new)
        except StoreError:
            raise
        except Exception as error:
            raise StoreError(
                f"{self.store!r} could not be written ({type(error).__name__}). The next request tries again; mend "
                "the store."
            ) from error

    def claim(self) -> Claim:
        """Make a claim that no other one equals."""
        return Claim(self.host.name(), self.host.nonce(), self.host.wall())

    def give_up(self, claim: Claim, *, maybe_spent: bool) -> None:
        """Remember that nothing more is done under this claim of ours, should it still stand somewhere.

        Not before its owner has stopped: this slot object may serve other event loops, and the claim is all that keeps
        them from spending the same refresh token.
        """
        self._over = (claim.nonce, maybe_spent)

    def was_unsent(self, claim: Claim) -> bool:
        """Whether this is a claim of ours that was given up before anything was sent."""
        return self._over == (claim.nonce, False)

    def is_abandoned(self, record: Record, patience: float) -> bool:
        """Whether the claim on `record` is nobody's any more.

        It is if this very slot object saw it unchanged for `patience` seconds on its own monotonic clock (no two
        hosts' clocks are compared), if it is ours and given up, or if it is older than any clock is wrong.
        """
        claim = record.redeeming
        if claim is None:
            self._watched = None
            return False
        if self._watched is None or self._watched[0] != claim.nonce:
            self._watched = (claim.nonce, self.host.monotonic())
        return (
            self.host.monotonic() - self._watched[1] >= patience
            or (self._over is not None and self._over[0] == claim.nonce)
            or self.host.wall() - claim.since > max(_record.ABANDONED_AFTER, patience)
        )
