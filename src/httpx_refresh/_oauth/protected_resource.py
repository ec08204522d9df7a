"""Find out who issues tokens for an API: OAuth 2.0 Protected Resource Metadata (RFC 9728).

What it finds was written by others: it must be of the API that was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import httpx

from .._http.origins import is_secure, origin_of, read_url
from .documents import Documents, list_of, text_of

_MOST_SERVERS = 20
_MOST_SHOWN = 300


@dataclass(frozen=True, slots=True)
class ProtectedResource:
    """What an API says of the tokens that it takes (RFC 9728 §2).

    Attributes:
        resource: its identifier, to the letter: the `resource` of RFC 8707.
        authorization_servers: the issuers whose tokens it takes.
        scopes_supported: the scopes that it knows; None if it does not say.
    """

    resource: str
    authorization_servers: tuple[str, ...]
    scopes_supported: tuple[str, ...] | None = None


async def protected_resource(
    url: str, documents: Documents, *, named: str | None = None, allow_http: bool = False
) -> ProtectedResource | None:
    """Return the metadata of the API at `url`; None if it serves none.

    Args:
        url: the API's address.
        documents: asks.
        named: where the API itself says that its metadata is (RFC 9728 §5.1); None: at the well-known places (§3.1),
            that of its path first.
        allow_http: whether the metadata may be asked for over plain http, and may name such issuers.

    Raises:
        RefreshUnavailable: nobody could be asked.
        ValueError: the metadata is not this API's, or names no issuer that can be asked.
    """
    # Imported here: importing the library stays fast.
    from authlib.oauth2.rfc8414 import get_well_known_url

    home = httpx.URL(url)
    shown = str(home.copy_with(query=None, fragment=None))  # A query may hold a key.
    if named is None:
        base = shown.rstrip("/")
        places = [
            get_well_known_url(one, external=True, suffix="oauth-protected-resource")
            for one in (base, str(home.copy_with(raw_path=b"/")).rstrip("/"))
        ]
    else:
        _check_place(named, home, shown, allow_http=allow_http)
        places = [named]
    found = await documents.first(dict.fromkeys(places), of=shown)
    if found is None:
        if named is not None:
            raise ValueError(
                f"{shown} says that its metadata is at {named[:_MOST_SHOWN]}, and no metadata is there"
            )
        return None
    resource = text_of(found, "resource")
    if resource is None or not covers(resource, url):
        raise ValueError(
            f"the metadata that {shown} leads to is of another resource, and cannot be trusted (RFC 9728 §3.3): a "
            "token for that one would go to this server"
        )
    servers = list_of(found, "authorization_servers")[:_MOST_SERVERS]
    if not servers:
        raise ValueError(
            f"the metadata of {shown} names no authorization_servers: nobody issues tokens for it"
        )
    scopes = list_of(found, "scopes_supported") if "scopes_supported" in found else None
    return ProtectedResource(
        resource, tuple(dict.fromkeys(servers)), None if scopes is None else tuple(scopes)
    )


def _check_place(named: str, home: httpx.URL, shown: str, *, allow_http: bool) -> None:
    """Refuse an address that this API would not name for its metadata."""
    place = read_url(named)
    if place is None or place.userinfo:
        raise ValueError(f"{shown} names a place for its metadata that is no address")
    if place.scheme == home.scheme == "http" and origin_of(place) == origin_of(home):
        return
    if not is_secure(place.scheme, place.host, allow_http=allow_http):
        raise ValueError(
            f"{shown} says that its metadata is at {named[:_MOST_SHOWN]}: it must be https"
        )


def covers(resource: str, url: str) -> bool:
    """Whether a resource identifier is an API's own address, or a parent of its path on its origin.

    RFC 9728 §3.3 has the first; the SDKs of the Model Context Protocol take the second, too. A slash at the end, and
    capital letters in scheme and host, make no difference.
    """
    parent, child = read_url(resource), read_url(url)
    if (
        parent is None
        or child is None
        or parent.fragment
        or parent.userinfo
        or origin_of(parent) != origin_of(child)
    ):
        return False
    above, below = _segments(resource), _segments(url)
    if parent.query and (parent.query != child.query or above != below):
        return False
    if any(one in (".", "..") or "/" in one or "\\" in one for one in above):
        return False
    return below[: len(above)] == above


def _segments(url: str) -> list[str]:
    # Not httpx's path, in which the dots of "/a/../b" are already resolved.
    path = urlsplit(url).path.strip("/")
    return [unquote(one) for one in path.split("/")] if path else []
