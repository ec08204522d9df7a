"""Find a server's endpoints by its issuer: RFC 8414, and OpenID Connect Discovery 1.0.

What it finds was written by others: it is checked before an endpoint is made of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx

from .._errors import frameless
from .._http.hosts import is_this_host
from .._http.origins import read_url
from .authentication import MutualTLS
from .documents import Documents, list_of, text_of
from .endpoint import TokenEndpoint
from .material import Text
from .settings import checked_url, seconds
from .settings import client as checked_client

if TYPE_CHECKING:
    from .._http.libraries import AsyncClient

_ENDPOINTS = ("authorization_endpoint", "device_authorization_endpoint", "revocation_endpoint")

# With a secret, the first of these that the server knows.
_METHODS = ("client_secret_basic", "client_secret_post", "client_secret_jwt")


@frameless
async def discover(
    issuer: str,
    client_id: str,
    client_secret: Text | None = None,
    *,
    client: AsyncClient | Callable[[], AsyncClient] | None = None,
    timeout: float = 30.0,
    **overrides: Any,
) -> TokenEndpoint:
    """Make a `TokenEndpoint` of what an authorization server says about itself.

    Its metadata is looked for where RFC 8414 §3 has it, then where OpenID Connect Discovery 1.0 §4 has it, and must
    name this very issuer. An issuer on another host names no endpoint on this one, and an https issuer none over
    http. What it says is asked for as a token is: of a client's defaults only `User-Agent` is sent, no redirect is
    followed, and at most 1 MiB is read.

    Args:
        issuer: the server's identifier, an https URL (http to loopback excepted, and with `allow_http=True`).
        client_id: the client's identifier.
        client_secret: the client's secret, see `TokenEndpoint`. None: a public client, or one whose `client_auth` has
            credentials of its own. With `MutualTLS` the server's `mtls_endpoint_aliases` are used (RFC 8705 §5).
        client: what to ask with, now and later, see `TokenEndpoint`.
        timeout: seconds for all that is asked here, and later for each request of the endpoint.
        overrides: arguments of `TokenEndpoint` that take the place of what the server says.

    Raises:
        RefreshUnavailable: the server could not be asked.
        TypeError, ValueError: it answered with no metadata that can be used, or an argument is invalid.
    """
    checked_url(issuer, "issuer", allow_http=overrides.get("allow_http") is True)
    documents = Documents(checked_client(client), seconds("timeout", timeout))
    metadata = await server_metadata(issuer, documents)
    facts = {**endpoint_facts(metadata), "client": client, "timeout": timeout}
    if client_secret:
        # RFC 8414 §2: client_secret_basic where nothing is said.
        known = list_of(metadata, "token_endpoint_auth_methods_supported") or [_METHODS[0]]
        facts["client_auth"] = next((one for one in _METHODS if one in known), None)
    if isinstance(overrides.get("client_auth"), MutualTLS):
        facts.update(_mtls_facts(metadata))
    if facts["url"] is None and "url" not in overrides:
        raise ValueError(f"the metadata of {issuer} names no token_endpoint")
    for name in ("url", *_ENDPOINTS):
        if facts[name] is not None and name not in overrides:
            check_endpoint(issuer, facts[name], "token_endpoint" if name == "url" else name)
    facts.update(overrides)
    return TokenEndpoint(facts.pop("url"), client_id, client_secret, **facts)


async def server_metadata(issuer: str, documents: Documents) -> dict[str, Any]:
    """Return what an authorization server says about itself (RFC 8414 §3, OpenID Connect Discovery 1.0 §4).

    Raises:
        RefreshUnavailable: the server could not be asked.
        ValueError: it says nothing, or is not the issuer that was asked.
    """
    places = _places(issuer)
    found = await documents.first(places, of=issuer)
    if found is None:
        raise ValueError(
            f"{issuer} serves no metadata (asked for {' and '.join(places)}): give the endpoints' URLs instead"
        )
    if found.get("issuer") != issuer:
        raise ValueError(
            f"the metadata of {issuer} names another issuer, and cannot be trusted (RFC 8414 §3.3); an issuer is "
            "compared to the letter, a slash at its end included"
        )
    return found


def _places(issuer: str) -> tuple[str, ...]:
    # Imported here: importing the library stays fast.
    from authlib.oauth2.rfc8414 import get_well_known_url

    base = issuer.rstrip("/")
    inserted = [
        get_well_known_url(base, external=True, suffix=suffix)
        for suffix in ("oauth-authorization-server", "openid-configuration")
    ]
    # An issuer without a path has one place less.
    return tuple(dict.fromkeys([*inserted, f"{base}/.well-known/openid-configuration"]))


def endpoint_facts(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `TokenEndpoint` that a server's metadata tells, unchecked; `url` may be None."""
    issuer: str = metadata["issuer"]
    facts: dict[str, Any] = {
        "name": httpx.URL(issuer).host,
        "issuer": issuer,
        "sends_iss": metadata.get("authorization_response_iss_parameter_supported") is True,
        "code_challenge_methods": tuple(list_of(metadata, "code_challenge_methods_supported")),
        "url": text_of(metadata, "token_endpoint"),
    }
    for name in _ENDPOINTS:
        facts[name] = text_of(metadata, name)
    return facts


def _mtls_facts(metadata: dict[str, Any]) -> dict[str, str]:
    """Return the endpoints that the server has elsewhere for clients with a certificate (RFC 8705 §5)."""
    aliases = metadata.get("mtls_endpoint_aliases")
    if not isinstance(aliases, dict):
        return {}
    names = {"url": "token_endpoint", **{name: name for name in _ENDPOINTS}}
    found = {name: text_of(aliases, alias) for name, alias in names.items()}
    return {name: url for name, url in found.items() if url is not None}


def check_endpoint(issuer: str, url: str, name: str) -> None:
    """Refuse an endpoint that only somebody else's metadata would name: a service on this host, or one without TLS."""
    endpoint, home = read_url(url), httpx.URL(issuer)
    if endpoint is None:
        raise ValueError(f"the metadata of {issuer} names a {name} that is no URL")
    if is_this_host(endpoint) and not is_this_host(home):
        raise ValueError(
            f"the metadata of {issuer} names a {name} on this host, where that issuer is not: secrets of the client "
            "would go to whatever listens there"
        )
    if home.scheme == "https" and endpoint.scheme != "https":
        raise ValueError(
            f"the metadata of {issuer} names a {name} that is not https: it must be https"
        )
