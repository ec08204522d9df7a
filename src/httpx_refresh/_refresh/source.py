"""What a token source is, and the facts that it declares about itself. It knows no store and no wire."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, TypeAlias

from .._token import Token


class Refreshes(Protocol):
    """Anything with `async refresh(token) -> Token`: it spends `token.refresh_token` and returns what it got for it.

    It raises `ReauthorizationRequired` if the grant is dead, and `RefreshUnavailable`, with the `outcome` it knows, if
    there is no new token. Whatever else it raises counts as "unknown": the refresh token may have been spent.
    """

    async def refresh(self, token: Token, /) -> Token:
        """Spend `token.refresh_token` and return what the server answered."""
        ...


class Obtains(Protocol):
    """Anything with `async obtain(held) -> Token`: it gets a token from nothing but what it is made of.

    It raises `RefreshUnavailable`, with the `outcome` it knows, if there is no token to be had now, and
    `ReauthorizationRequired` if only a person can help. An empty store is its beginning.
    """

    async def obtain(self, held: Token | None, /) -> Token:
        """Ask for a token, and return what the server answered.

        Args:
            held: the token that will not do any more; None where there is none.
        """
        ...


TokenSource: TypeAlias = Refreshes | Obtains
"""What gives tokens. With both methods it starts with `obtain`, and refreshes while there is a refresh token.

A source may declare facts about itself as attributes, see `Facts`. They are read once, by `RefreshAuth`; its
`client_fingerprint` is read again by a refresh that fails, or that finds the note of a failure.
"""


class Facts(NamedTuple):
    """What a token source declares, each as an attribute of that name; all may be left out.

    Attributes:
        name: what messages call it. Default: the name of its class.
        reuse_grace: seconds for which the server accepts a refresh token that was spent already, because its answer may
            have been lost (RFC 9700 §4.14.2). Default: 0, it does not. A source says `"until_used"`, which is infinity
            here, if a lost answer can be asked for again until a request carries the new access token: since that is
            saved before any request carries it, a token that nobody saved was never used.
        authorization_scheme: the word before the token in the `Authorization` header.
        refresh_not_before_expiry: seconds before its expiry up to which the server refuses to replace a token.
        client_fingerprint: a short hash of the client's credentials, as they were read last. A refusal of the client
            binds those who have the same one; None: everybody.
        refreshes: whether it has `refresh`. Not declared.
        starts: whether it can get a token from nothing. Default: whether it has `obtain`.
        repeatable: whether `obtain` may be asked again although it may have been answered: that costs a request, and
            no login. Default: whether it starts.
        ends_previous: whether each new token ends the last one at once, so that all processes must share one.
        takes_claims: whether `refresh` and `obtain` take `claims`, a mapping: what the new token has to hold, as an API
            asked (OpenID Connect Core §5.5). They raise `StepUpRequired` if that needs a person. Default: they do not.
        purpose: what its tokens are for, as text without a secret, see `purpose_of`. The stored text names it, and a
            text that names another is not adopted. None: it adopts any.
    """

    name: str
    reuse_grace: float = 0.0
    authorization_scheme: str = "Bearer"
    refresh_not_before_expiry: float | None = None
    client_fingerprint: str | None = None
    refreshes: bool = True
    starts: bool = False
    repeatable: bool = False
    ends_previous: bool = False
    purpose: str | None = None
    takes_claims: bool = False

    @property
    def needs_store(self) -> bool:
        """Whether its tokens have to be kept where all processes find them.

        A refresh token that only one process knows dies with it; and processes that end each other's tokens would
        never be done.
        """
        return not (self.starts and self.repeatable) or self.ends_previous


@lru_cache(maxsize=256)
def _interned(*values: Any) -> Facts:
    """Return one object for equal facts: a process may have very many tenants of one provider."""
    return Facts(*values)


def facts_of(source: object) -> Facts:
    """Read and check what a source declares about itself.

    Raises:
        TypeError: it is no source, or a fact is of another type than declared.
        ValueError: a number of seconds is negative or not finite, or the purpose is too long to be kept.
    """
    refreshes = callable(getattr(source, "refresh", None))
    obtains = callable(getattr(source, "obtain", None))
    if isinstance(source, type) or not (refreshes or obtains):
        raise TypeError(
            "source must have an async method refresh(token), as TokenEndpoint has, or obtain(held), as the sources "
            "of httpx_refresh.grants have"
        )
    name = getattr(source, "name", None)
    scheme = getattr(source, "authorization_scheme", "Bearer")
    client = getattr(source, "client_fingerprint", None)
    purpose = getattr(source, "purpose", None)
    if not (name is None or isinstance(name, str)):
        raise TypeError("the source's name must be a str or None")
    if not isinstance(scheme, str):
        raise TypeError("the source's authorization_scheme must be a str")
    if not (client is None or isinstance(client, str)):
        raise TypeError("the source's client_fingerprint must be a str or None")
    if not (purpose is None or isinstance(purpose, str)):
        raise TypeError("the source's purpose must be a str or None")
    if purpose is not None and len(purpose) > MOST_PURPOSE:
        raise ValueError(f"the source's purpose must not be longer than {MOST_PURPOSE} characters")
    not_before = getattr(source, "refresh_not_before_expiry", None)
    starts = obtains and _yes_or_no(source, "starts", default=True)
    if not (starts or refreshes):
        raise ValueError("the source can neither start nor refresh")
    return _interned(
        name or type(source).__name__,
        _grace(getattr(source, "reuse_grace", 0.0)),
        scheme,
        None if not_before is None else _seconds("refresh_not_before_expiry", not_before),
        client,
        refreshes,
        starts,
        starts and _yes_or_no(source, "repeatable", default=True),
        _yes_or_no(source, "ends_previous", default=False),
        purpose or None,
        _yes_or_no(source, "takes_claims", default=False) and _take_claims(source),
    )


def facts_now(facts: Facts, source: object) -> Facts:
    """Return the facts with the fingerprint of the credentials that the source used last: they may be rotated."""
    client = getattr(source, "client_fingerprint", None)
    if client == facts.client_fingerprint or not (client is None or isinstance(client, str)):
        return facts
    return facts._replace(client_fingerprint=client)


def _grace(value: object) -> float:
    return math.inf if value == "until_used" else _seconds("reuse_grace", value)


def _seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"the source's {name} must be a number of seconds")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"the source's {name} must be finite, and not negative")
    return float(value)


def _yes_or_no(source: object, name: str, *, default: bool) -> bool:
    value = getattr(source, name, default)
    if not isinstance(value, bool):
        raise TypeError(f"the source's {name} must be True or False")
    return value


def _take_claims(source: object) -> bool:
    """Whether its methods take `claims`: a subclass of a source that does may have written them without."""
    for name in ("refresh", "obtain"):
        method = getattr(source, name, None)
        if callable(method):
            function = getattr(method, "__func__", None)
            # A function of a class is looked at once: a process may have very many tenants of one provider.
            takes = _has_claims(method) if function is None else _function_has_claims(function)
            if not takes:
                return False
    return True


def _has_claims(function: Callable[..., object]) -> bool:
    parameters = inspect.signature(function).parameters
    return "claims" in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())


# For the functions of classes, which live as long as their classes.
_function_has_claims = lru_cache(maxsize=256)(_has_claims)


# -- what tokens are for -----------------------------------------------------------------------------------------------

MOST_PURPOSE = 1000
"""Characters of a purpose that are kept in a store."""

_MOST_WORDS = 200


def purpose_of(grant: str, url: str, client_id: str | None, **asked: str | None) -> str:
    """Say what tokens are for: in words, for people, and with a hash of all of it. No secret is in it.

    Args:
        grant: the grant's short name.
        url: the token endpoint. Its query, which may hold a key, is in the hash only.
        client_id: the client's identifier, where there is one.
        asked: what was asked for, by the parameter's name: `scope`, `audience`, `resource`. That of `subject`, which
            may be a person's address, is in the hash only.
    """
    named: Mapping[str, str] = {
        # The order of its words does not matter (RFC 6749 §3.3).
        name: " ".join(sorted(value.split())) if name == "scope" else value
        for name, value in asked.items()
        if value
    }
    parts = [grant, url, client_id or "", *(f"{name}={named[name]}" for name in sorted(named))]
    digest = hashlib.sha256(
        "\0".join(f"{len(part)} {part}" for part in parts).encode("utf-8", "replace")
    ).hexdigest()
    words = f"{grant} at {url.partition('?')[0]}"
    if client_id:
        words += f", client {client_id}"
    words += "".join(f", {name} {named[name]}" for name in sorted(named) if name != "subject")
    if len(words) > _MOST_WORDS:
        words = f"{words[:_MOST_WORDS]}..."
    printable = "".join(one if one.isprintable() else "?" for one in words)
    return f"{printable} [{digest[:16]}]"
