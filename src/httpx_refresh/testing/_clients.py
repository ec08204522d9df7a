"""Who asks: client authentication at the token endpoint (RFC 6749 section 2.3)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

from ._wire import Call, Refusal

if TYPE_CHECKING:
    from ._settings import Settings


def authenticate(call: Call, form: Mapping[str, str], settings: Settings) -> str:
    """Return the client's id if it proved who it is in exactly one accepted way."""
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
    if client_id not in settings.clients:
        raise Refusal("invalid_client", "no such client", 401)
    if settings.clients[client_id] != secret:
        raise Refusal("invalid_client", "wrong secret, or none", 401)
    return client_id


def _read_basic(header: str) -> tuple[str, str | None]:
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "basic":
        raise Refusal("invalid_client", "an Authorization header that is not Basic", 401)
    try:
        client_id, colon, secret = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        # The error may hold the credentials: it stays out of the chain.
        raise Refusal("invalid_client", "unreadable Basic credentials", 401) from None
    if not colon:
        raise Refusal("invalid_client", "Basic credentials without a colon", 401)
    # RFC 6749 section 2.3.1: both are form-urlencoded before they are put together.
    return unquote_plus(client_id), unquote_plus(secret)
