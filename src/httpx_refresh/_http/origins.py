"""The origins that a bearer token may be sent to: scheme, host and port."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import httpx

from .._errors import OriginNotAllowed

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

    from .libraries import URL

_CACHED = 1024

# A WebSocket begins as an HTTP request (RFC 6455 §4.1), so the same rules protect it.
_HTTP_SCHEMES = {"wss": "https", "ws": "http"}

# Labels of letters, digits, hyphens and underscores (names of containers have these); no label is empty. Parsers
# disagree about other characters.
_HOST_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")

# The public suffix list has this domain to keep the cookies of Google's services apart. Every host below it belongs to
# Google, so a token that is sent to the wrong one still reaches no stranger.
_ONE_OWNER = frozenset({"googleapis.com"})


def is_secure(scheme: str, host: str, *, allow_http: bool = False) -> bool:
    """Return whether secrets may be sent over `scheme` to `host`: over https, and over http to loopback.

    The whole library uses this function for that decision (RFC 6749 §3.1 and §3.2, RFC 6750 §5.3).

    Args:
        scheme: a URL's scheme, in lower case; anything but `https` and `http` is not secure.
        host: a URL's host, in lower case, an IPv6 address without its brackets.
        allow_http: whether http is accepted for every host, as in a service mesh or a test.
    """
    return scheme == "https" or (scheme == "http" and (allow_http or is_loopback(host)))


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine: `localhost`, 127.0.0.0/8 or ::1."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_url(text: str) -> httpx.URL | None:
    """Return a URL that others wrote; None if it names no host that can be read.

    `httpx.URL` takes `xn--` in front of anything, and raises an error of `idna` when its host is asked for.
    """
    try:
        url = httpx.URL(text)
        return url if url.host else None
    except (httpx.InvalidURL, UnicodeError):
        return None


class Origin(NamedTuple):
    """Scheme, host and port (RFC 6454 §4)."""

    scheme: str
    """`https` or `http`; `wss` and `ws` count as these."""
    host: str
    """In ASCII, as it is sent: the two libraries encode international names alike, but decode them differently."""
    port: int | None
    """None stands for the scheme's own port."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port is None else f":{self.port}")


def origin_of(url: URL) -> Origin:
    """Return the origin of a URL."""
    return Origin(_HTTP_SCHEMES.get(url.scheme, url.scheme), url.raw_host.decode("ascii"), url.port)


class Origins:
    """The origins that a token may be sent to.

    Immutable except for `_known`, a cache of answers. Several threads may write the same answer to it.

    Args:
        allowed: origins such as `https://api.xero.com`, `https://*.example.com` (any subdomain, at any depth, not
            the domain itself), `http://127.0.0.1:8000`. None: every https origin, and http to loopback.
        allow_http: whether `allowed` may name http origins besides loopback.

    Raises:
        ValueError: a text that is no origin, plain http to another host than loopback, or a wildcard for hosts of
            many owners.
    """

    __slots__ = ("_allow_http", "_exact", "_known", "_wildcards")

    def __init__(self, allowed: tuple[str, ...] | None, *, allow_http: bool = False) -> None:
        self._known: dict[tuple[str, bytes, int | None], bool] = {}
        self._exact: frozenset[Origin] | None = None
        self._wildcards: tuple[Origin, ...] = ()
        # Without named origins, http stays limited to loopback: nobody has said which other host is meant.
        self._allow_http = allow_http and allowed is not None
        if allowed is not None:
            parsed = [_parse(text, allow_http) for text in allowed]
            self._exact = frozenset(origin for origin, is_wildcard in parsed if not is_wildcard)
            self._wildcards = tuple(origin for origin, is_wildcard in parsed if is_wildcard)

    def check(self, url: URL) -> None:
        """Raise `OriginNotAllowed` if the token must not go to this URL."""
        key = (url.scheme, url.raw_host, url.port)
        allowed = self._known.get(key)
        if allowed is None:
            if len(self._known) >= _CACHED:
                self._known.clear()
            allowed = self._known[key] = self._allows(origin_of(url))
        if not allowed:
            raise self._refusal(origin_of(url))

    def _allows(self, origin: Origin) -> bool:
        if not (self._is_secure(origin) and _is_host(origin.host)):
            return False
        if self._exact is None or origin in self._exact:
            return True
        return any(
            (origin.scheme, origin.port) == (wildcard.scheme, wildcard.port)
            and origin.host.endswith(f".{wildcard.host}")
            for wildcard in self._wildcards
        )

    def _is_secure(self, origin: Origin) -> bool:
        return is_secure(origin.scheme, origin.host, allow_http=self._allow_http)

    def _refusal(self, origin: Origin) -> OriginNotAllowed:
        if not self._is_secure(origin):
            return OriginNotAllowed(
                f"The bearer token goes over https only (RFC 6750 §5.3; http to loopback excepted), and this request "
                f"is for {str(origin)!r}. Nothing was sent. Use an https URL; or, for a network that you trust, pass "
                f"allow_http=True and name the origin in origins=."
            )
        if not _is_host(origin.host):
            return OriginNotAllowed(
                f"The host of {str(origin)!r} is not a host name that every program reads alike, so the bearer token "
                "does not go there. Nothing was sent. Correct the request's URL."
            )
        listed = ", ".join(
            [str(one) for one in sorted(self._exact or (), key=str)]
            + [str(one._replace(host=f"*.{one.host}")) for one in self._wildcards]
        )
        return OriginNotAllowed(
            f"The bearer token is meant for {listed or 'no origin at all'}, and this request is for {origin}. Nothing "
            f"was sent. If that origin is to have the token, pass origins=[..., {str(origin)!r}] to RefreshAuth (or "
            "to the endpoint); else send the request with auth=None."
        )


def compiled(origins: Iterable[str] | str | None, *, allow_http: bool = False) -> Origins:
    """Return the `Origins` for these texts. Equal texts share one object, which saves memory with many tenants.

    Args:
        origins: one or several; `"any"`: every https origin, and http to loopback. None: no origin at all, because
            none was named.
        allow_http: whether http origins may be named.

    Raises:
        TypeError, ValueError: see `Origins`.
    """
    if origins == "any":
        return _compiled(None, allow_http)
    if isinstance(origins, str):
        return _compiled((origins,), allow_http)
    allowed = () if origins is None else origins
    if not isinstance(allowed, Iterable):
        raise TypeError(f"origins must be strings, not {type(origins).__name__}")
    listed = tuple(allowed)
    if not all(isinstance(one, str) for one in listed):
        raise TypeError("origins must be strings")
    return _compiled(listed, allow_http)


@lru_cache(maxsize=256)
def _compiled(allowed: tuple[str, ...] | None, allow_http: bool) -> Origins:
    return Origins(allowed, allow_http=allow_http)


def _parse(text: str, allow_http: bool) -> tuple[Origin, bool]:
    """Return the origin that `text` names, and whether it is a wildcard for the subdomains of its host."""
    scheme, separator, rest = text.partition("://")
    is_wildcard = rest.startswith("*.")
    try:
        url = httpx.URL(f"{scheme}://{rest[2:] if is_wildcard else rest}")
    except (httpx.InvalidURL, UnicodeError):
        url = httpx.URL("")
    origin = origin_of(url)
    if (
        not separator
        or not _is_host(origin.host)
        or url.userinfo
        or url.query
        or url.fragment
        or url.path not in ("", "/")
        or not (origin.port is None or 0 < origin.port < 65_536)
    ):
        raise ValueError(
            f"{text!r} is no origin: write scheme, host and port only, as in 'https://api.example.com' or "
            "'https://*.example.com'"
        )
    if not is_secure(origin.scheme, origin.host, allow_http=allow_http):
        raise ValueError(
            f"{text!r} cannot be an origin for a bearer token: https only, but for loopback. In a network that you "
            "trust, pass allow_http=True"
        )
    if is_wildcard and not _has_one_owner(origin.host):
        raise ValueError(
            f"{text!r} stands for hosts of many owners, strangers among them: name a domain below {origin.host}, as "
            f"in '{origin.scheme}://*.example.{origin.host}', or each host"
        )
    return origin, is_wildcard


def _is_host(host: str) -> bool:
    """Return whether a host is an IP address or a name that all parsers read alike."""
    if _HOST_NAME.fullmatch(host):
        return True
    try:
        return "%" not in host and bool(ipaddress.IPv6Address(host))
    except ValueError:
        return False


def _has_one_owner(domain: str) -> bool:
    """Return whether all subdomains of a domain belong to one owner, by the public suffix list.

    If the list does not have a top-level domain, every name directly below that domain counts as an owner's.
    """
    if domain in _ONE_OWNER:
        return True
    if domain.rpartition(".")[2].isdecimal():
        return False  # `*.0.0.1` would match an IP address.
    try:
        return not _public_suffixes().is_public(domain.encode().decode("idna"))
    except UnicodeError:  # It begins like an encoded name, but is not one.
        return False


@lru_cache(maxsize=1)
def _public_suffixes() -> PublicSuffixList:
    # Imported and read here, because it takes a twentieth of a second and few programs use a wildcard.
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList(accept_encoded_idn=False)
