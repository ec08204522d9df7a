"""Find a server's endpoints by its issuer: RFC 8414, and OpenID Connect Discovery 1.0."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx

from .._errors import RefreshUnavailable
from .._http.libraries import REQUEST_ERRORS
from .asking import read_answer
from .endpoint import TokenEndpoint
from .login_settings import checked_url

if TYPE_CHECKING:
    from .._http.libraries import AsyncClient

# With a secret, the first of these that the server knows.
_METHODS = ("client_secret_basic", "client_secret_post", "client_secret_jwt")


async def discover(
    issuer: str,
    client_id: str,
    client_secret: str | None = None,
    *,
    client: AsyncClient | None = None,
    **overrides: Any,
) -> TokenEndpoint:
    """Make a `TokenEndpoint` of what an authorization server says about itself.

    Its metadata is looked for where RFC 8414 §3 has it, then where OpenID Connect Discovery 1.0 §4 has it, and must
    name this very issuer.

    Args:
        issuer: the server's identifier, an https URL (http to loopback excepted).
        client_id: the client's identifier.
        client_secret: the client's secret; None: a public client.
        client: an `httpx.AsyncClient` or `httpx2.AsyncClient` of yours to ask with, now and later; not closed here.
        overrides: arguments of `TokenEndpoint` that take the place of what the server says.

    Raises:
        RefreshUnavailable: the server could not be asked.
        ValueError: it answered with no metadata that can be used, or the issuer is no https URL.
    """
    checked_url(issuer, "issuer")
    metadata = await _metadata(issuer, client)
    facts: dict[str, Any] = {
        "name": httpx.URL(issuer).host,
        "issuer": issuer,
        "client": client,
        "sends_iss": metadata.get("authorization_response_iss_parameter_supported") is True,
        "code_challenge_methods": tuple(
            one for one in _list(metadata, "code_challenge_methods_supported")
        ),
    }
    for name in ("authorization_endpoint", "device_authorization_endpoint", "revocation_endpoint"):
        facts[name] = _text(metadata, name)
    if client_secret:
        # RFC 8414 §2: client_secret_basic where nothing is said.
        known = _list(metadata, "token_endpoint_auth_methods_supported") or [_METHODS[0]]
        facts["token_endpoint_auth_method"] = next((one for one in _METHODS if one in known), None)
    url = _text(metadata, "token_endpoint")
    if url is None and "url" not in overrides:
        raise ValueError(f"the metadata of {issuer} names no token_endpoint")
    facts = {"url": url, **facts, **overrides}
    return TokenEndpoint(facts.pop("url"), client_id, client_secret, **facts)


async def _metadata(issuer: str, client: AsyncClient | None) -> dict[str, Any]:
    # Imported here: whoever imports the library need not wait for it.
    from authlib.oauth2.rfc8414 import get_well_known_url

    places = (
        get_well_known_url(issuer, external=True),
        f"{issuer.rstrip('/')}/.well-known/openid-configuration",
    )
    try:
        if client is not None:
            found = await _first(client, places)
        else:
            async with httpx.AsyncClient(timeout=20.0) as own:
                found = await _first(own, places)
    except REQUEST_ERRORS as error:
        raise RefreshUnavailable(
            f"The metadata of {issuer} could not be read ({type(error).__name__}). Try again later.",
            outcome="not_sent",
        ) from error
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


async def _first(client: Any, places: tuple[str, ...]) -> dict[str, Any] | None:
    """Return the first of these that is a JSON object."""
    for place in places:
        request = client.build_request("GET", place, headers={"Accept": "application/json"})
        response = await client.send(request, stream=True, auth=None, follow_redirects=False)
        try:
            answer = await read_answer(response)
        finally:
            await response.aclose()
        if answer.status == 200 and not answer.cut:
            try:
                found = json.loads(answer.body)
            except (ValueError, RecursionError):
                continue
            if isinstance(found, dict):
                return found
    return None


def _text(metadata: dict[str, Any], name: str) -> str | None:
    value = metadata.get(name)
    return value if isinstance(value, str) and value else None


def _list(metadata: dict[str, Any], name: str) -> list[str]:
    value = metadata.get(name)
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
