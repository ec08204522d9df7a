"""What a token source is, and the facts that it declares about itself. It knows no store and no wire."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from .._token import Token


class TokenSource(Protocol):
    """Anything with `async refresh(token) -> Token`: it spends `token.refresh_token` and returns what it got for it.

    It raises `ReauthorizationRequired` if the grant is dead, and `RefreshUnavailable`, with the `outcome` it knows, if
    there is no new token. Whatever else it raises counts as "unknown": the refresh token may have been spent.

    A source may declare facts about itself as attributes, see `Facts`. They are read once, by `RefreshAuth`.
    """

    async def refresh(self, token: Token, /) -> Token:
        """Spend `token.refresh_token` and return what the server answered."""
        ...


@dataclass(frozen=True, slots=True)
class Facts:
    """What a token source declares, each as an attribute of that name; all may be left out.

    Attributes:
        name: what messages call it. Default: the name of its class.
        reuse_grace: seconds for which the server accepts a refresh token that was spent already, because its answer may
            have been lost (RFC 9700 §4.14.2). Default: 0, it does not. A source says `"until_used"`, which is infinity
            here, if a lost answer can be asked for again until a request carries the new access token: since that is
            saved before any request carries it, a token that nobody saved was never used.
        authorization_scheme: the word before the token in the `Authorization` header.
        refresh_not_before_expiry: seconds before its expiry up to which the server refuses to replace a token.
        client_fingerprint: a short hash of the client's credentials. A refusal of the client binds those who have the
            same one; None: everybody.
    """

    name: str
    reuse_grace: float = 0.0
    authorization_scheme: str = "Bearer"
    refresh_not_before_expiry: float | None = None
    client_fingerprint: str | None = None


@lru_cache(maxsize=256)
def _interned(*values: Any) -> Facts:
    """Return one object for equal facts: a process may have very many tenants of one provider."""
    return Facts(*values)


def facts_of(source: object) -> Facts:
    """Read and check what a source declares about itself.

    Raises:
        TypeError: it is no source, or a fact is of another type than declared.
        ValueError: a number of seconds is negative or not finite.
    """
    if isinstance(source, type) or not callable(getattr(source, "refresh", None)):
        raise TypeError("source must have an async method refresh(token), as TokenEndpoint has")
    name = getattr(source, "name", None)
    scheme = getattr(source, "authorization_scheme", "Bearer")
    client = getattr(source, "client_fingerprint", None)
    if not (name is None or isinstance(name, str)):
        raise TypeError("the source's name must be a str or None")
    if not isinstance(scheme, str):
        raise TypeError("the source's authorization_scheme must be a str")
    if not (client is None or isinstance(client, str)):
        raise TypeError("the source's client_fingerprint must be a str or None")
    not_before = getattr(source, "refresh_not_before_expiry", None)
    return _interned(
        name or type(source).__name__,
        _grace(getattr(source, "reuse_grace", 0.0)),
        scheme,
        None if not_before is None else _seconds("refresh_not_before_expiry", not_before),
        client,
    )


def _grace(value: object) -> float:
    return math.inf if value == "until_used" else _seconds("reuse_grace", value)


def _seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"the source's {name} must be a number of seconds")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"the source's {name} must be finite, and not negative")
    return float(value)
