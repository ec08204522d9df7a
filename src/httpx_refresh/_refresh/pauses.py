"""When not to ask: after a failure, while fresh tokens are refused, and while another refreshes ahead. No I/O."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace

from .._errors import ReauthorizationRequired, StoreError, again
from .slot import Host

logger = logging.getLogger("httpx_refresh")

FRESH = 60.0
"""Seconds for which a token from the token endpoint is not suspected when the API refuses it."""

LONGEST = 3600.0
"""Seconds that this grows to while one fresh token after the other is refused."""

LOOK = 1.0
"""Seconds between two looks at the store while there is trouble."""

LONG_AGO = -math.inf
"""One object of it, for there may be very many sessions."""

EARLY_DEATHS = 3
"""So many tokens in a row refused long before their time make a warning."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What the last flight failed with, and when (monotonic) the store and the endpoint may be asked again."""

    error: Exception
    look_at: float
    ask_at: float
    failures: int


class Pauses:
    """What holds the next refresh back. All of it is this process's own: nothing here is in the store."""

    __slots__ = (
        "_early_deaths",
        "_fresh_pause",
        "_host",
        "_look_ahead_at",
        "_look_at",
        "_trouble",
        "_unproven",
        "_unproven_since",
        "_unproven_was_refused",
        "accepting",
    )

    def __init__(self, host: Host) -> None:
        self._host = host
        self._trouble: Trouble | None = None
        self._look_ahead_at = LONG_AGO
        self._look_at = LONG_AGO
        self._unproven: str | None = None
        self._unproven_since = 0.0
        self._unproven_was_refused = False
        self._fresh_pause = FRESH
        self._early_deaths = 0
        self.accepting = True
        """False while there is a fresh token that no request was accepted with yet."""

    # -- failures ----------------------------------------------------------------------------------------------

    def failed(self, error: Exception) -> None:
        """Let the next flights fail the same way for a while, without asking."""
        now, trouble = self._host.monotonic(), self._trouble
        look_at = now + self._host.jitter(LOOK, 0.8)
        if isinstance(error, StoreError):
            return  # Nothing was asked, and a store that is back is to be seen at once.
        if isinstance(error, ReauthorizationRequired):
            self._trouble = Trouble(error, look_at, now, 0)
        elif trouble is not None and error.__cause__ is trouble.error:
            self._trouble = replace(trouble, look_at=look_at)
        else:
            failures = 0 if trouble is None else trouble.failures
            pause = self._host.jitter(min(2.0**failures, 30.0), 0.5)
            pause = max(pause, min(getattr(error, "retry_after", None) or 0.0, 300.0))
            self._trouble = Trouble(error, min(look_at, now + pause), now + pause, failures + 1)

    def succeeded(self) -> None:
        """Forget the last failure: a flight brought a token."""
        self._trouble = None

    def raise_if_just_looked(self) -> None:
        """Raise the last failure again if the store was looked at within about a second."""
        if self._trouble is not None and self._host.monotonic() < self._trouble.look_at:
            raise again(self._trouble.error)

    def raise_if_asked_in_vain(self) -> None:
        """Raise the last failure again while the endpoint is left in peace after it."""
        if self._trouble is not None and self._host.monotonic() < self._trouble.ask_at:
            raise again(self._trouble.error)

    # -- refreshing ahead --------------------------------------------------------------------------------------

    def may_look_ahead(self) -> bool:
        """Whether a flight may start for a token that still holds."""
        return self._host.monotonic() >= self._look_ahead_at

    def look_ahead_later(self, most: float) -> None:
        """Start no such flight for a while of at most `most` seconds."""
        now = self._host.monotonic()
        pause = self._host.jitter(max(most, 0.2), 0.5)
        if self._trouble is not None:
            pause = max(pause, self._trouble.ask_at - now)
        self._look_ahead_at = now + pause

    # -- tokens that are refused -------------------------------------------------------------------------------

    def obtained(self, access_token: str) -> None:
        """Take note that this access token has just come from the token endpoint."""
        self._fresh_pause = (
            min(self._fresh_pause * 2, LONGEST) if self._unproven_was_refused else FRESH
        )
        self._unproven = access_token
        self._unproven_since = self._host.monotonic()
        self._unproven_was_refused = False
        self.accepting = False

    def adopted(self) -> None:
        """Take note that the token in use comes from the store, not from the endpoint."""
        self._unproven = None

    def accepted(self, access_token: str) -> None:
        """Take note that the API accepted a request with this access token."""
        if self._unproven is None or access_token == self._unproven:
            self.forget_refusals()

    def forget_refusals(self) -> None:
        """Start anew: the API accepts tokens, or somebody put another one there."""
        self._unproven = None
        self._unproven_was_refused = False
        self._fresh_pause = FRESH
        self.accepting = True

    def believes_refusal(self, access_token: str, name: str) -> bool:
        """Whether this token is so fresh, and unproven, that another one would be refused just the same."""
        if access_token != self._unproven:
            return False
        if self._host.monotonic() >= self._unproven_since + self._fresh_pause:
            return False
        if not self._unproven_was_refused:
            self._unproven_was_refused = True
            logger.warning(
                "%s: the API refused a token that had just come from the token endpoint, and has accepted no request "
                "with it. Refusals are passed on, and no other token is asked for within %.0f s of that one. Look at "
                "the token's scope and audience, at the API's address, and at the clocks.",
                name,
                self._fresh_pause,
            )
        return True

    def may_look(self) -> bool:
        """Whether to look at the store for another token than a fresh one that is refused; if so, not again soon."""
        now = self._host.monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + self._host.jitter(LOOK, 0.8)
        return True

    def died(self, early: bool, name: str) -> None:
        """Count a good token that was refused and replaced; `early`: long before its time."""
        self._early_deaths = self._early_deaths + 1 if early else 0
        if self._early_deaths == EARLY_DEATHS:
            self._early_deaths = 0
            logger.warning(
                "%s: %d good tokens in a row were refused long before they expire. The likely cause: another "
                "deployment refreshes the same grant from a store of its own, and each refresh ends the other's "
                "token. Let all of them share one store, or give each a login of its own.",
                name,
                EARLY_DEATHS,
            )
