"""Where a bearer token may go: scheme, host and port."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

import httpx

from .._errors import OriginNotAllowed

if TYPE_CHECKING:
    from .libraries import URL

_DEFAULT_PORTS = {"https": 443, "http": 80}
_CACHED = 1024


def is_loopback(host: str) -> bool:
    """Whether a host is this one: `localhost`, 127.0.0.0/8 or ::1."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def origin_of(url: URL) -> tuple[str, str, int | None]:
    """Return scheme, host and port of a URL; None stands for the scheme's own port."""
    return url.scheme, url.host, url.port


def written(scheme: str, host: str, port: int | None) -> str:
    """Write an origin as people do."""
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}" if port is None else f"{scheme}://{host}:{port}"


class Origins:
    """A set of origins; asking it twice about the same one costs a look into a dict.

    Args:
        allowed: origins such as `https://api.xero.com`, `https://*.example.com` (any subdomain, at any depth, not
            the domain itself), `http://127.0.0.1:8000` (http for loopback only). None: every https origin, and
            http to loopback.

    Raises:
        ValueError: something that is no origin, or plain http to another host than loopback.
    """

    __slots__ = ("_exact", "_known", "_suffixes")

    def __init__(self, allowed: tuple[str, ...] | None) -> None:
        self._known: dict[tuple[str, str, int | None], bool] = {}
        self._exact: frozenset[tuple[str, str, int | None]] | None = None
        self._suffixes: tuple[tuple[str, str, int | None], ...] = ()
        if allowed is not None:
            parsed = [(text, *_parse(text)) for text in allowed]
            self._exact = frozenset(origin for _, origin, wildcard in parsed if not wildcard)
            self._suffixes = tuple(origin for _, origin, wildcard in parsed if wildcard)

    def check(self, url: URL) -> None:
        """Raise `OriginNotAllowed` if the bearer must not go to this URL."""
        origin = (url.scheme, url.host, url.port)
        allowed = self._known.get(origin)
        if allowed is None:
            if len(self._known) >= _CACHED:
                self._known.clear()
            allowed = self._known[origin] = self._allows(*origin)
        if not allowed:
            raise self._refusal(*origin)

    def _allows(self, scheme: str, host: str, port: int | None) -> bool:
        if scheme != "https" and not (scheme == "http" and is_loopback(host)):
            return False
        if self._exact is None or (scheme, host, port) in self._exact:
            return True
        return any(
            (scheme, port) == (its_scheme, its_port) and host.endswith(f".{domain}")
            for its_scheme, domain, its_port in self._suffixes
        )

    def _refusal(self, scheme: str, host: str, port: int | None) -> OriginNotAllowed:
        origin = written(scheme, host, port)
        if scheme != "https" and not (scheme == "http" and is_loopback(host)):
            return OriginNotAllowed(
                f"The bearer token goes over https only (RFC 6750 §5.3; http to loopback excepted), and this request "
                f"is for {origin}. Nothing was sent. Use an https URL; origins= cannot allow this one."
            )
        listed = ", ".join(
            [written(*one) for one in sorted(self._exact or (), key=str)]
            + [written(one[0], f"*.{one[1]}", one[2]) for one in self._suffixes]
        )
        return OriginNotAllowed(
            f"The bearer token is meant for {listed or 'no origin at all'}, and this request is for {origin}. Nothing "
            f"was sent. If that origin is to have the token, pass origins=[..., {origin!r}] to RefreshAuth (or to the "
            "endpoint); else send the request with auth=None."
        )


def _parse(text: str) -> tuple[tuple[str, str, int | None], bool]:
    if not isinstance(text, str):
        raise TypeError("origins must be strings")
    scheme, separator, rest = text.partition("://")
    wildcard = rest.startswith("*.")
    try:
        url = httpx.URL(f"{scheme}://{rest[2:] if wildcard else rest}")
    except httpx.InvalidURL:
        url = httpx.URL("")
    if (
        not separator
        or not url.host
        or url.userinfo
        or url.query
        or url.fragment
        or url.path not in ("", "/")
        or "*" in url.host
    ):
        raise ValueError(
            f"{text!r} is no origin: write scheme, host and port only, as in 'https://api.example.com' or "
            "'https://*.example.com'"
        )
    origin = origin_of(url)
    if origin[0] != "https" and not (origin[0] == "http" and is_loopback(origin[1])):
        raise ValueError(
            f"{text!r} cannot be an origin for a bearer token: https only, but for loopback"
        )
    return origin, wildcard


@lru_cache(maxsize=256)
def _compiled(allowed: tuple[str, ...] | None) -> Origins:
    return Origins(allowed)


def compiled(origins: Iterable[str] | str | None) -> Origins:
    """Return the `Origins` of these; equal ones are one object, however many tenants a process has."""
    if origins is None:
        return _compiled(None)
    if isinstance(origins, str):
        return _compiled((origins,))
    return _compiled(tuple(origins))
