"""What a `TokenEndpoint` may be told: each argument is checked when it comes in, not at the first refresh."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .._http.challenge import ExpiryRule
from .answer import Refusal
from .asking import CLIENTS
from .client_auth import is_sendable

# What a token request says by itself (RFC 6749 §6, RFC 7521 §4.2); `body` is a word of Authlib's.
_RESERVED = frozenset(
    {
        "body",
        "client_assertion",
        "client_assertion_type",
        "client_id",
        "client_secret",
        "grant_type",
        "refresh_token",
    }
)


def seconds(name: str, value: float) -> float:
    """Return a duration."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be finite, and not negative")
    return float(value)


def refusals(name: str, value: Iterable[Refusal]) -> tuple[Refusal, ...]:
    """Return kinds of refusals."""
    value = tuple(value)
    if not all(isinstance(one, Refusal) for one in value):
        raise TypeError(f"{name} must hold Refusal objects")
    return value


def params(value: Mapping[str, str] | None) -> dict[str, str]:
    """Return further parameters of a token request."""
    value = dict(value or {})
    for name, text in value.items():
        if not (isinstance(name, str) and isinstance(text, str)):
            raise TypeError("params must be a mapping of str to str")
        if name in _RESERVED:
            raise ValueError(f"params must not hold {name!r}: the token request says it by itself")
        if not is_sendable(name + text):
            raise ValueError("params must be text that UTF-8 can carry")
    return value


def scheme(value: str) -> str:
    """Return the word before the token in an `Authorization` header (RFC 9110 §11.1)."""
    if not isinstance(value, str):
        raise TypeError("authorization_scheme must be a str")
    word = value.replace("-", "")
    if not (word.isascii() and word.isalnum()):
        raise ValueError("authorization_scheme must be one word")
    return value


def client(value: Any) -> Any:
    """Return a client, or None."""
    if value is not None and not isinstance(value, CLIENTS):
        raise TypeError("client must be an AsyncClient of httpx or httpx2, or None")
    return value


def expiry(
    value: ExpiryRule | Callable[[Any], bool] | None,
) -> ExpiryRule | Callable[[Any], bool] | None:
    """Return what tells an expired access token."""
    if not (value is None or isinstance(value, ExpiryRule) or callable(value)):
        raise TypeError("is_expired must be callable, an ExpiryRule, or None")
    return value
