"""Client authentication at the server, and the verification of signed assertions."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_plus

from ._settings import Settings
from ._wire import Call, Refusal

_JWT = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

_LONGEST_HEADER = 16_384
"""Bytes of an assertion's header, which may hold a chain of certificates (RFC 7515 section 4.1.6)."""

_LEEWAY = 5.0
"""Seconds by which a client's clock may differ."""


class AssertionDesk:
    """Verifies signed assertions: those that authenticate clients, and those that are grants (RFC 7523 section 3).

    Mutable: `_shown`, the `jti` of each assertion that was accepted, by its issuer.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._shown: set[tuple[str, str]] = set()

    def take(
        self,
        assertion: str,
        keys: Mapping[str, Mapping[str, Any]],
        error: str,
        status: int = 400,
        *,
        again: bool = False,
    ) -> dict[str, Any]:
        """Return the claims of an assertion, or refuse it with the error code `error`.

        `keys` holds the JWK of each issuer; `again` says whether the assertion may be used several times.
        """

        def refused(description: str, outcome: str | None = None) -> Refusal:
            return Refusal(error, description, status, outcome=outcome)

        claims = _verified(assertion, keys)
        if claims is None:
            raise refused("the assertion is not signed by a known issuer")
        now, settings = self._settings.clock(), self._settings
        for name in ("iat", "exp"):
            if not isinstance(claims.get(name), (int, float)):
                raise refused(f"the assertion has no {name}")
        if not isinstance(claims.get("sub", claims["iss"]), str):
            raise refused("the sub of the assertion is no text")
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        wanted = settings.assertion_audiences
        known = {settings.token_url, settings.issuer} if wanted is None else set(wanted)
        if not known & set(map(str, audiences)):
            raise refused("the assertion is for somebody else")
        if claims["iat"] > now + _LEEWAY:
            raise refused("the assertion is from the future", "clock")
        if (
            claims["exp"] <= now - _LEEWAY
            or claims["exp"] - claims["iat"] > settings.longest_assertion
        ):
            raise refused("the assertion has expired, or lives too long", "clock")
        if again:
            return claims
        shown = (claims["iss"], str(claims.get("jti")))
        if "jti" not in claims or shown in self._shown:
            raise refused("the assertion has no jti, or was used before")
        self._shown.add(shown)
        return claims


def _verified(assertion: str, keys: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the claims of an assertion that is signed with a key of its issuer."""
    from joserfc import jws
    from joserfc.errors import JoseError
    from joserfc.jwk import import_key

    try:
        registry = jws.JWSRegistry()
        registry.max_header_length = _LONGEST_HEADER
        signed = jws.extract_compact(assertion.encode(), registry=registry)
        claims = json.loads(signed.payload)
        key = import_key(dict(keys[claims["iss"]]))
        registry.allowed = [str(signed.headers()["alg"])]
        jws.deserialize_compact(assertion, key, registry=registry)
    except (JoseError, ValueError, KeyError, TypeError):
        return None
    return claims if isinstance(claims, dict) else None


class ClientDesk:
    """Authenticates clients. It has no mutable state."""

    def __init__(self, settings: Settings, assertions: AssertionDesk) -> None:
        self._settings = settings
        self._assertions = assertions

    def authenticate(self, call: Call, form: Mapping[str, str]) -> str:
        """Return the client's id if it authenticates by exactly one accepted method (RFC 6749 section 2.3)."""
        settings = self._settings
        if "client_assertion" in form:
            return self._by_assertion(call, form)
        header = call.headers.get("authorization")
        if header is not None:
            if "client_secret" in form:
                raise Refusal("invalid_request", "two methods of client authentication at once")
            credentials = _read_basic(header)
            if form.get("client_id", credentials[0]) != credentials[0]:
                raise Refusal("invalid_request", "two client ids")
            method = "client_secret_basic"
        else:
            credentials = form.get("client_id", ""), form.get("client_secret")
            method = "none" if credentials[1] is None else "client_secret_post"
        client_id, secret = credentials
        if method not in settings.auth_methods:
            raise Refusal("invalid_client", f"{method} is not accepted here", 401)
        if settings.client_id_metadata_documents and client_id.startswith("https://"):
            return client_id
        if client_id not in settings.clients:
            raise Refusal("invalid_client", "no such client", 401)
        if settings.clients[client_id] != secret:
            raise Refusal("invalid_client", "wrong secret, or none", 401)
        return client_id

    def _by_assertion(self, call: Call, form: Mapping[str, str]) -> str:
        """Authenticate by an assertion.

        RFC 7521 section 4.2, RFC 7523 section 2.2, OpenID Connect Core 1.0 section 9.
        """
        settings = self._settings
        if "client_secret" in form or "authorization" in call.headers:
            raise Refusal("invalid_request", "two methods of client authentication at once")
        if form.get("client_assertion_type") != _JWT:
            raise Refusal("invalid_client", "the client_assertion_type is not known", 401)
        federated = settings.federated.get(form.get("client_id", ""))
        if federated is not None:
            of_others = {federated[0]: settings.assertion_keys.get(federated[0], {})}
            claims = self._assertions.take(
                form["client_assertion"], of_others, "invalid_client", 401, again=True
            )
            if claims.get("sub") != federated[1]:
                raise Refusal("invalid_client", "the assertion is for somebody else", 401)
            return form["client_id"]
        keys: dict[str, Mapping[str, Any]] = {}
        if "private_key_jwt" in settings.auth_methods:
            keys.update(settings.client_keys)
        if "client_secret_jwt" in settings.auth_methods:
            for client_id, secret in settings.clients.items():
                if secret is not None:
                    key = base64.urlsafe_b64encode(secret.encode()).rstrip(b"=").decode()
                    keys.setdefault(client_id, {"kty": "oct", "k": key})
        claims = self._assertions.take(form["client_assertion"], keys, "invalid_client", 401)
        client_id = str(claims["iss"])
        if claims.get("sub") != client_id or form.get("client_id", client_id) != client_id:
            raise Refusal("invalid_client", "the assertion is of another client", 401)
        return client_id


def _read_basic(header: str) -> tuple[str, str | None]:
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "basic":
        raise Refusal("invalid_client", "an Authorization header that is not Basic", 401)
    try:
        client_id, colon, secret = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        # The error may hold the credentials, so it must not be chained.
        raise Refusal("invalid_client", "unreadable Basic credentials", 401) from None
    if not colon:
        raise Refusal("invalid_client", "Basic credentials without a colon", 401)
    # RFC 6749 section 2.3.1: both are form-urlencoded before they are joined.
    return unquote_plus(client_id), unquote_plus(secret)
