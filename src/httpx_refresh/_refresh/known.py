"""What is known of a token at one moment, and when it is time for another. No I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .._token import Token, lifetime
from .slot import Host


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """One token, ready to be sent: an immutable value, swapped at once, shared by all loops and threads."""

    token: Token
    header: str
    renew_at: float
    """Epoch seconds from which on a request asks the session first."""

    def expired(self, now: float) -> bool:
        """Whether the token's time is over, in epoch seconds; never so if nobody knows its time."""
        expires_at = self.token.expires_at
        return expires_at is not None and now >= expires_at

    def is_early(self, now: float) -> bool:
        """Whether less than half of the token's lifetime has gone by."""
        life = lifetime(self.token.extra)
        if self.token.expires_at is None or life is None:
            return False
        return self.token.expires_at - now > life / 2


def know(token: Token, endpoint: object, host: Host, *, refresh_before: float) -> Known:
    """Make a token ready: its header, and when to refresh it ahead of its expiry.

    That is `refresh_before` seconds ahead, a fifth of the lifetime at most, not before the server allows it, and not
    at the same moment in every process.
    """
    header = f"{getattr(endpoint, 'authorization_scheme', 'Bearer')} {token.access_token}"
    if token.expires_at is None:
        return Known(token, header, math.inf)
    life = lifetime(token.extra)
    not_before = getattr(endpoint, "refresh_not_before_expiry", None)
    lead = min(
        refresh_before,
        math.inf if life is None else life / 5,
        math.inf if not_before is None else not_before,
    )
    return Known(token, header, token.expires_at - host.jitter(lead, 0.9))
