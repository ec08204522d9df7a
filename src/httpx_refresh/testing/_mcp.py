"""The parts of the server that MCP authorization needs: the API's metadata, and client registration."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ._wire import Call, Refusal, Reply, json_reply

if TYPE_CHECKING:
    from ._settings import Settings

PLACE = "/.well-known/oauth-protected-resource"

_ECHOED = ("client_name", "grant_types", "response_types", "application_type", "scope")


def describe_resource(settings: Settings) -> dict[str, Any]:
    """Return the metadata document of RFC 9728 section 2."""
    document: dict[str, Any] = {
        "resource": settings.api_url,
        "authorization_servers": [settings.issuer],
        "bearer_methods_supported": ["header"],
    }
    if settings.scopes_supported:
        document["scopes_supported"] = list(settings.scopes_supported)
    return document


def resource_challenge(settings: Settings) -> str:
    """Return the further parameters of a 401's challenge (RFC 9728 section 5.1); empty for an API without metadata."""
    if not settings.resource_metadata:
        return ""
    found = f', resource_metadata="{settings.issuer}{PLACE}/api"'
    if settings.challenge_scope is not None:
        found += f', scope="{settings.challenge_scope}"'
    return found


def check_resource(settings: Settings, asked: Mapping[str, str]) -> None:
    """Refuse to issue a token for any other resource than the API (RFC 8707 section 2)."""
    if settings.resource_metadata and asked.get("resource") != settings.api_url:
        raise Refusal("invalid_target", "the resource is another one, or is missing")


class Registry:
    """The clients that have registered themselves (RFC 7591)."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._redirect_uris: dict[str, list[str]] = {}
        self.requests: list[dict[str, Any]] = []

    def register(self, call: Call) -> Reply:
        """Serve the registration endpoint (RFC 7591 section 3)."""
        settings = self._settings
        if settings.registration is None:
            return json_reply({"error": "not found"}, 404)
        try:
            asked = json.loads(call.body)
        except ValueError:
            asked = None
        if not isinstance(asked, dict):
            raise Refusal("invalid_client_metadata", "the body must be a JSON object")
        self.requests.append(asked)
        if settings.registration == "refused":
            raise Refusal("invalid_redirect_uri", "not a redirect URI for this server")
        uris, method = asked.get("redirect_uris"), asked.get("token_endpoint_auth_method")
        if not (isinstance(uris, list) and uris and all(isinstance(uri, str) for uri in uris)):
            raise Refusal("invalid_redirect_uri", "redirect_uris is missing")
        method = method or "client_secret_basic"
        if method not in settings.auth_methods:
            raise Refusal("invalid_client_metadata", f"{method} is not accepted here")
        client_id = f"registered-{len(self._redirect_uris)}"
        secret = None if method == "none" else secrets.token_urlsafe(16)
        settings.clients = {**settings.clients, client_id: secret}
        self._redirect_uris[client_id] = uris
        answer: dict[str, Any] = {name: asked[name] for name in _ECHOED if name in asked}
        answer |= {
            "client_id": client_id,
            "redirect_uris": uris,
            "token_endpoint_auth_method": method,
        }
        if secret is not None:
            answer |= {"client_secret": secret, "client_secret_expires_at": 0}
        return json_reply(answer, 201)

    def forget(self) -> None:
        """Forget all registered clients."""
        registered, self._redirect_uris = self._redirect_uris, {}
        self._settings.clients = {
            client: secret
            for client, secret in self._settings.clients.items()
            if client not in registered
        }

    def check_redirect(self, client_id: str, redirect_uri: str) -> None:
        """Refuse a redirect URI that does not equal one that the client has registered."""
        uris = self._redirect_uris.get(client_id)
        if uris is not None and redirect_uri not in uris:
            raise Refusal("invalid_request", "the redirect_uri is not registered")

    def knows(self, client_id: str) -> bool:
        """Whether a client id is the address of a metadata document, and this server accepts those."""
        return self._settings.client_id_metadata_documents and client_id.startswith("https://")
