"""Client registration at an authorization server: OAuth 2.0 Dynamic Client Registration (RFC 7591).

It knows no store: the caller keeps the registration.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from .._errors import LoginFailed
from .._http.origins import is_loopback
from .answer import Answer, NoAnswer
from .documents import Documents, list_of, text_of
from .redaction import redacted

METHODS = ("none", "client_secret_post", "client_secret_basic")
"""The methods by which a client that registers itself can authenticate, in order of preference.

A program on a person's computer cannot keep a secret (RFC 8252 §8.5). With a secret, the form comes first: servers that
accept the header accept the form, too, and some accept the header only if the form repeats the client id.
"""

_MOST_ANSWER = 65_536
_MOST_TEXT = 8_192  # characters of an identifier or a secret


@dataclass(frozen=True, slots=True)
class Registration:
    """A client as an authorization server has registered it (RFC 7591 §3.2.1). Its repr shows no secret.

    Attributes:
        client_id: the client's identifier.
        client_secret: its secret, if it was given one.
        method: how it authenticates, by a name of RFC 7591 §2.
        redirect_uris: its redirect URIs.
        scope: the scope that it may request; None if that is not known.
        expires_at: when its secret expires, in epoch seconds; None: never.
    """

    client_id: str
    client_secret: str | None = field(default=None, repr=False)
    method: str = "none"
    redirect_uris: tuple[str, ...] = ()
    scope: str | None = None
    expires_at: float | None = None

    def fits(self, redirect_uri: str, scope: str, *, now: float) -> bool:
        """Whether a login with this redirect URI and scope is possible with the registration.

        Args:
            redirect_uri: compared as a whole, as most servers do, including the port, although RFC 8252 §7.3 allows
                any port.
            scope: words separated by spaces.
            now: epoch seconds.
        """
        if self.expires_at is not None and self.expires_at <= now:
            return False
        if self.scope is not None and not set(scope.split()) <= set(self.scope.split()):
            return False
        return redirect_uri in self.redirect_uris

    def note(self) -> dict[str, Any]:
        """Return it as a JSON value."""
        fields = {
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "token_endpoint_auth_method": self.method,
            "redirect_uris": list(self.redirect_uris),
            "scope": self.scope,
            "client_secret_expires_at": self.expires_at,
        }
        return {name: value for name, value in fields.items() if value is not None}

    @classmethod
    def from_note(cls, note: object) -> Registration | None:
        """Read a value that `note` returned, or a registration response; None if it is no usable registration."""
        if not isinstance(note, dict):
            return None
        client_id, secret = text_of(note, "client_id"), text_of(note, "client_secret")
        if client_id is None or len(client_id) > _MOST_TEXT or len(secret or "") > _MOST_TEXT:
            return None
        method = text_of(note, "token_endpoint_auth_method")
        if method is None:
            method = "none" if secret is None else "client_secret_basic"  # RFC 7591 §2
        if method == "none":
            secret = None
        if method not in METHODS or (method != "none" and secret is None):
            return None
        ends = note.get("client_secret_expires_at")
        # RFC 7591 §3.2.1: 0 means that the secret does not expire.
        expires_at = float(ends) if type(ends) in (int, float) and ends and secret else None
        uris = tuple(list_of(note, "redirect_uris"))
        return cls(client_id, secret, method, uris, text_of(note, "scope"), expires_at)


def application_type_of(redirect_uri: str) -> str:
    """Return the `application_type` of a client (OpenID Connect Dynamic Client Registration 1.0 §2).

    A program is native if its redirect URI is on the person's computer or has a scheme of its own.
    """
    url = httpx.URL(redirect_uri)
    return "web" if url.scheme in ("http", "https") and not is_loopback(url.host) else "native"


def client_metadata(
    redirect_uri: str, *, client_name: str, scope: str, method: str
) -> dict[str, Any]:
    """Return the metadata of a client that registers (RFC 7591 §2)."""
    said: dict[str, Any] = {
        "client_name": client_name,
        "redirect_uris": [redirect_uri],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": method,
        "application_type": application_type_of(redirect_uri),
    }
    return {**said, "scope": scope} if scope else said


def method_for(supported: list[str]) -> str:
    """Return the method by which a client authenticates at a server that supports these methods (RFC 8414 §2).

    Raises:
        ValueError: the server supports no method that works without a key.
    """
    # The default is client_secret_basic.
    found = next((one for one in METHODS if one in (supported or METHODS[2:])), None)
    if found is None:
        raise ValueError(
            "the server takes no client that registers itself: its token endpoint asks for one of "
            + ", ".join(sorted(redacted(one, [], 64) or "" for one in supported[:8]))
        )
    return found


async def register(
    url: str, metadata: Mapping[str, Any], documents: Documents, *, name: str
) -> Registration:
    """Register a client (RFC 7591 §3.1).

    Args:
        url: the registration endpoint.
        metadata: the client's metadata.
        documents: makes the request.
        name: the server's name in messages.

    Raises:
        LoginFailed: the server did not register the client, or the registration cannot be used.
    """
    headers = {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
    }
    answer = await documents.ask("POST", url, headers, json.dumps(dict(metadata)))
    if isinstance(answer, NoAnswer):
        raise LoginFailed(
            f"{name}'s registration endpoint could not be reached, or gave no answer ({answer.why}). No login was "
            "begun. Try again later.",
            transient=answer.transient,
            caused_by=answer.caused_by,
        )
    fields = _fields(answer)
    if answer.status not in (200, 201):
        raise _refused(answer, fields, name)
    asked = metadata["token_endpoint_auth_method"]
    if (
        asked != "none"
    ):  # The answer should hold all metadata; for missing fields the requested values apply.
        fields = {"token_endpoint_auth_method": asked, **fields}
    registration = Registration.from_note(fields)
    if registration is None:
        raise LoginFailed(
            f"{name} answered the registration with no client that can be used: without a client_id, or with a way to "
            "authenticate that this client does not have. No login was begun. Register a client there by hand, and "
            "pass its client_id (--client-id)."
        )
    (wanted,) = metadata["redirect_uris"]
    # RFC 7591 §3.2.1: a server may replace the requested values.
    uris = registration.redirect_uris or (wanted,)
    if wanted not in uris:
        raise LoginFailed(
            f"{name} registered this client with another redirect URI than it asked for: nobody would come back from "
            "the login. No login was begun. Register a client there by hand, and pass its client_id (--client-id)."
        )
    scope = registration.scope or metadata.get("scope")
    return Registration(
        registration.client_id,
        registration.client_secret,
        registration.method,
        uris[:16],
        scope,
        registration.expires_at,
    )


def _fields(answer: Answer) -> dict[str, Any]:
    if answer.cut or len(answer.body) > _MOST_ANSWER:
        return {}
    try:
        fields = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _refused(answer: Answer, fields: dict[str, Any], name: str) -> LoginFailed:
    error = redacted(text_of(fields, "error"), [], 64)
    description = redacted(text_of(fields, "error_description"), [], 300)
    said = f"status {answer.status}" + (f", {error}" if error else "")
    said += f": {description}" if description else ""
    busy = answer.status in (408, 425, 429) or answer.status >= 500
    why = {
        "invalid_redirect_uri": "It does not take this redirect URI; another may do (--port, --redirect-uri).",
        "invalid_client_metadata": "It does not take what this client says of itself, its scope for example (--scope).",
    }.get(
        error or "",
        "Try again later."
        if busy
        else "Register a client there by hand, and pass its client_id (--client-id).",
    )
    return LoginFailed(
        f"{name} did not register this client ({said}). Nothing has changed. {why}",
        error=error,
        error_description=description,
        transient=busy,
    )
