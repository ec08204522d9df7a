"""Find a server's endpoints by its issuer: RFC 8414, and OpenID Connect Discovery 1.0.

What it finds was written by others: it is checked before an endpoint is made of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anyio
import httpx

from .._errors import RefreshUnavailable, frameless
from .._http.origins import is_loopback
from .answer import Answer, NoAnswer
from .endpoint import TokenEndpoint
from .exchange import exchange
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
    client_secret: str | None = None,
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
        client_secret: the client's secret; None: a public client.
        client: what to ask with, now and later, see `TokenEndpoint`.
        timeout: seconds for all that is asked here, and later for each request of the endpoint.
        overrides: arguments of `TokenEndpoint` that take the place of what the server says.

    Raises:
        RefreshUnavailable: the server could not be asked.
        TypeError, ValueError: it answered with no metadata that can be used, or an argument cannot be meant.
    """
    checked_url(issuer, "issuer", allow_http=overrides.get("allow_http") is True)
    checked_client(client)
    metadata = await _metadata(issuer, client, seconds("timeout", timeout))
    facts: dict[str, Any] = {
        "name": httpx.URL(issuer).host,
        "issuer": issuer,
        "client": client,
        "timeout": timeout,
        "sends_iss": metadata.get("authorization_response_iss_parameter_supported") is True,
        "code_challenge_methods": tuple(
            one for one in _list(metadata, "code_challenge_methods_supported")
        ),
    }
    for name in _ENDPOINTS:
        facts[name] = _text(metadata, name)
    if client_secret:
        # RFC 8414 §2: client_secret_basic where nothing is said.
        known = _list(metadata, "token_endpoint_auth_methods_supported") or [_METHODS[0]]
        facts["token_endpoint_auth_method"] = next((one for one in _METHODS if one in known), None)
    facts["url"] = _text(metadata, "token_endpoint")
    if facts["url"] is None and "url" not in overrides:
        raise ValueError(f"the metadata of {issuer} names no token_endpoint")
    for name in ("url", *_ENDPOINTS):
        if facts[name] is not None and name not in overrides:
            _check_endpoint(issuer, facts[name], "token_endpoint" if name == "url" else name)
    facts.update(overrides)
    return TokenEndpoint(facts.pop("url"), client_id, client_secret, **facts)


def _check_endpoint(issuer: str, url: str, name: str) -> None:
    """Refuse an endpoint that only somebody else's metadata would name: a service on this host, or one without TLS."""
    try:
        endpoint, home = httpx.URL(url), httpx.URL(issuer)
    except httpx.InvalidURL:
        raise ValueError(f"the metadata of {issuer} names a {name} that is no URL") from None
    if is_loopback(endpoint.host) and not is_loopback(home.host):
        raise ValueError(
            f"the metadata of {issuer} names a {name} on this host, where that issuer is not: secrets of the client "
            "would go to whatever listens there"
        )
    if home.scheme == "https" and endpoint.scheme != "https":
        raise ValueError(
            f"the metadata of {issuer} names a {name} that is not https: it must be https"
        )


async def _metadata(
    issuer: str, client: AsyncClient | Callable[[], AsyncClient] | None, timeout: float
) -> dict[str, Any]:
    # Imported here: whoever imports the library need not wait for it.
    from authlib.oauth2.rfc8414 import get_well_known_url

    places = (
        get_well_known_url(issuer, external=True),
        f"{issuer.rstrip('/')}/.well-known/openid-configuration",
    )
    found = None
    deadline = anyio.current_time() + timeout
    for place in places:
        left = max(deadline - anyio.current_time(), 0.0)
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        answer = await exchange(client, "GET", place, headers, timeout=left)
        if isinstance(answer, NoAnswer):
            raise RefreshUnavailable(
                f"The metadata of {issuer} could not be read ({answer.why}). Try again later.",
                outcome="not_sent",
                transient=answer.transient,
                caused_by=answer.caused_by,
            )
        found = _object(answer)
        if found is not None:
            break
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


def _object(answer: Answer) -> dict[str, Any] | None:
    """Return the JSON object that the answer is, if it is one."""
    if answer.status != 200 or answer.cut:
        return None
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _text(metadata: dict[str, Any], name: str) -> str | None:
    value = metadata.get(name)
    return value if isinstance(value, str) and value else None


def _list(metadata: dict[str, Any], name: str) -> list[str]:
    value = metadata.get(name)
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
