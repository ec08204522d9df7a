"""How a client authenticates at its authorization server (RFC 6749 §2.3, RFC 7523)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args
from urllib.parse import quote_plus

AuthMethod = Literal[
    "client_secret_basic", "client_secret_post", "none", "client_secret_jwt", "private_key_jwt"
]

Prepare = Callable[[str, dict[str, str], str], tuple[dict[str, str], str]]
"""Return headers and body of a POST to a URL with the client's credentials added."""

SIGNING = ("client_secret_jwt", "private_key_jwt")


def checked_method(
    method: AuthMethod | None, client_id: str, client_secret: str | None
) -> AuthMethod:
    """Return the method that a client uses; raise TypeError or ValueError if that cannot be."""
    if not isinstance(client_id, str):
        raise TypeError("client_id must be a str")
    if client_secret is not None and not isinstance(client_secret, str):
        raise TypeError("client_secret must be a str or None")
    if not client_id or client_secret == "":
        raise ValueError(
            "client_id and client_secret must not be empty; leave client_secret out (None) for a public client"
        )
    if not (is_sendable(client_id) and is_sendable(client_secret or "")):
        raise ValueError("client_id and client_secret must be text that UTF-8 can carry")
    if method is None:
        return "none" if client_secret is None else "client_secret_basic"
    if method not in get_args(AuthMethod):
        raise ValueError(
            f"token_endpoint_auth_method must be one of {', '.join(get_args(AuthMethod))}, not {method!r}"
        )
    if (method == "none") != (client_secret is None):
        raise ValueError(
            f"token_endpoint_auth_method {method!r} and client_secret do not go together: every method but 'none' "
            "needs one, and 'none' has none"
        )
    return method


def is_sendable(text: str) -> bool:
    """Whether UTF-8 can carry a text: JSON may hold half a surrogate pair, which it cannot."""
    return not any("\ud800" <= one <= "\udfff" for one in text)


def authentication(
    method: AuthMethod, client_id: str, client_secret: str | None, *, audience: str
) -> Prepare:
    """Return what adds a client's credentials to a request.

    Args:
        method: a method that `checked_method` returned.
        client_id: the client's identifier.
        client_secret: its secret; for `private_key_jwt` an RSA private key in PEM.
        audience: what a signed assertion is for: the token endpoint's URL (RFC 7523 §3).

    Raises:
        ValueError: the secret is no key that can sign.
    """
    # Imported here: whoever imports the library need not wait for it.
    from authlib.oauth2.auth import ClientAuth

    if method == "client_secret_basic":
        # RFC 6749 §2.3.1: both are form-urlencoded first; Authlib leaves that to the caller.
        return _prepare(ClientAuth(quote_plus(client_id), quote_plus(client_secret or ""), method))
    if method not in SIGNING:
        return _prepare(ClientAuth(client_id, client_secret, method))
    # It brings a JOSE library along.
    from authlib.oauth2.rfc7523 import ClientSecretJWT, PrivateKeyJWT

    maker = ClientSecretJWT if method == "client_secret_jwt" else PrivateKeyJWT
    prepare = _prepare(ClientAuth(client_id, client_secret, maker(audience)))
    if not _can_sign(prepare, audience):
        raise ValueError(
            f"client_secret is no key that {method} can sign with; it takes "
            + ("an RSA private key in PEM" if method == "private_key_jwt" else "a shared secret")
        )
    return prepare


def _prepare(auth: Any) -> Prepare:
    def prepare(url: str, headers: dict[str, str], body: str) -> tuple[dict[str, str], str]:
        _, headers, body = auth.prepare("POST", url, headers, body)
        return headers, body

    return prepare


def _can_sign(prepare: Prepare, url: str) -> bool:
    """Try it now. What a key's parser says of a key that it does not like may hold parts of it."""
    try:
        prepare(url, {}, "")
    except Exception:
        return False
    return True
