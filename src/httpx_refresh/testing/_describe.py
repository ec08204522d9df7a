"""What the server says of itself (RFC 8414)."""

from __future__ import annotations

from typing import Any

from ._settings import Settings

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


def describe(settings: Settings) -> dict[str, Any]:
    """Write the metadata document of RFC 8414 section 2."""
    issuer = settings.issuer
    document: dict[str, Any] = {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/authorize",
        "token_endpoint": f"{issuer}/token",
        "revocation_endpoint": f"{issuer}/revoke",
        "device_authorization_endpoint": f"{issuer}/device_authorization",
        "response_types_supported": ["code"],
        "grant_types_supported": ["authorization_code", "refresh_token", DEVICE_GRANT],
        "token_endpoint_auth_methods_supported": list(settings.auth_methods),
        "authorization_response_iss_parameter_supported": settings.send_iss,
    }
    if settings.pkce != "unsupported":
        document["code_challenge_methods_supported"] = ["S256"]
    return document
