"""One spending of a refresh token: ask the endpoint, again where that is safe, and journal what it said."""

from __future__ import annotations

import logging
from typing import Protocol

import anyio

from .._errors import ReauthorizationRequired, RefreshUnavailable
from .._token import Token
from . import record as _record
from .journal import Journal
from .record import Dead, Record
from .slot import Slot

logger = logging.getLogger("httpx_refresh")


class Endpoint(Protocol):
    """What `RefreshAuth` refreshes with: anything that has this method."""

    async def refresh(self, token: Token, /) -> Token:
        """Spend `token.refresh_token` and return what the server answered."""
        ...


def describe(endpoint: Endpoint) -> str:
    """Name an endpoint in a message to a person."""
    name = getattr(endpoint, "name", None)
    return name if isinstance(name, str) and name else type(endpoint).__name__


class Redemption:
    """Spends one refresh token under one claim."""

    def __init__(
        self, slot: Slot, endpoint: Endpoint, base: Record, held: Token, *, refresh_timeout: float
    ) -> None:
        self.journal = Journal(slot, base, held, refresh_timeout=refresh_timeout)
        self._host = slot.host
        self._endpoint = endpoint
        self._held = held
        self._refresh_timeout = refresh_timeout
        self._deadline = 0.0

    async def claim(self) -> bool:
        """Put the claim on the slot; False if somebody else was faster.

        Nothing is sent later than `refresh_timeout` after this began. All of that time is the request's, however long
        its flight had waited for others before: an answer that is not waited for is a rotated token lost.
        """
        # Taken before the write: whoever watches the claim cannot have begun earlier.
        self._deadline = self._host.monotonic() + self._refresh_timeout
        return await self.journal.open()

    async def run(self) -> Record | None:
        """Spend the token and save what comes of it; return the record then, or None to look at the slot again.

        Raises:
            NotSaved: there is a result and it could not be saved; it is the truth all the same.
            RefreshUnavailable: there is no result; the claim is gone from the slot.
            anyio's cancellation: the flight was cancelled; the slot was settled first.
        """
        journal = self.journal
        try:
            try:
                answer = await self._ask()
                journal.result = _record.merged(self._held, answer, now=self._host.wall())
            except RefreshUnavailable:
                if await journal.put_or_warn() and journal.lost:
                    return None  # Others were not held up as we were: there may be a token.
                raise
            except ReauthorizationRequired as refusal:
                journal.dead = Dead(
                    _record.fingerprint(self._held.refresh_token or ""),
                    refusal.error,
                    refusal.error_description or str(refusal),
                    self._host.wall(),
                )
                if not await journal.put_or_warn():
                    raise
                return None
            return await journal.save()
        except anyio.get_cancelled_exc_class():
            await journal.settle()
            raise

    def _remaining(self) -> float:
        # The monotonic clock stands still while a machine sleeps; this host's wall clock does not.
        awake = self.journal.claim.since + self._refresh_timeout - self._host.wall()
        return min(self._deadline - self._host.monotonic(), awake)

    async def _ask(self) -> Token:
        """Ask the endpoint until it answers, as long as asking again is safe and the deadline is not reached."""
        grace = float(getattr(self._endpoint, "reuse_grace", 0.0))
        started = self._host.monotonic()
        delay = 0.25
        while True:
            answer = await self._ask_once()
            if isinstance(answer, Token):
                return answer
            pause = max(answer.retry_after or 0.0, self._host.jitter(delay, 0.5))
            delay = min(delay * 2, 8.0)
            forgiven = self._host.monotonic() + pause - started < grace
            if (
                answer.outcome == "refused"
                or (self.journal.maybe_spent and not forgiven)
                or pause >= self._remaining()
            ):
                raise answer
            logger.info("%s Trying again in %.2f s.", answer, pause)
            await anyio.sleep(pause)

    async def _ask_once(self) -> Token | RefreshUnavailable:
        name = describe(self._endpoint)
        remaining = self._remaining()
        if remaining <= 0:
            return RefreshUnavailable(
                f"This process was held up for longer than refresh_timeout, so the refresh token for {name} was not "
                "sent. The next request tries again.",
                outcome="not_sent",
            )
        before = self.journal.maybe_spent
        self.journal.sending()
        try:
            with anyio.fail_after(remaining):
                token: object = await self._endpoint.refresh(self._held)
        except ReauthorizationRequired:
            raise
        except RefreshUnavailable as error:
            if error.outcome != "unknown":
                self.journal.maybe_spent = before
            return error
        except TimeoutError as error:
            return _unknown(
                f"{name} gave no answer within {self._refresh_timeout:g} s (refresh_timeout).",
                error,
            )
        except Exception as error:
            # Nothing is hidden: it is the cause of what every waiter raises, and the outcome is noted as unknown.
            return _unknown(f"The refresh at {name} failed with {type(error).__name__}.", error)
        if not isinstance(token, Token):
            return _unknown(f"{name} returned {type(token).__name__} where a Token belongs.", None)
        return token


def _unknown(what: str, cause: BaseException | None) -> RefreshUnavailable:
    error = RefreshUnavailable(
        f"{what} Whether the refresh token was spent is unknown; that is noted in the store. The token there is kept, "
        "and is tried once more at the next need.",
        outcome="unknown",
    )
    error.__cause__ = cause
    return error
