"""The client of an authorization server (RFC 6749 §2): it authenticates, asks, and hides its secrets.

It knows no grant: refreshes, logins and revocations tell it what to ask.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, get_args
from urllib.parse import parse_qs, quote_plus

from .._errors import cause_of
from .._threads import run_blocking
from .answer import Answer, NoAnswer
from .exchange import exchange
from .redaction import redacted
from .settings import is_sendable

if TYPE_CHECKING:
    from .._http.libraries import AsyncClient

AuthMethod = Literal[
    "client_secret_basic", "client_secret_post", "none", "client_secret_jwt", "private_key_jwt"
]

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"

_SIGNING = ("client_secret_jwt", "private_key_jwt")

_Prepare = Callable[[str, dict[str, str], str], tuple[dict[str, str], str]]
"""Return headers and body of a POST to a URL with the client's credentials added."""


class Client:
    """A client of one authorization server. Nothing of it changes, and its repr shows nothing.

    Args:
        url: the token endpoint; also what a signed assertion is for (RFC 7523 §3).
        client_id: the client's identifier.
        client_secret: its secret; for `private_key_jwt` an RSA private key in PEM.
        method: how it authenticates; None: `client_secret_basic` with a secret, `none` without.
        name: what messages call the server.
        source: makes the requests, see `exchange`.
        timeout: seconds for one exchange.
        json_urls: the endpoints that take JSON where the RFCs have a form.

    Raises:
        TypeError, ValueError: these do not go together, or the secret is no key that can sign.
    """

    __slots__ = (
        "_json_urls",
        "_prepare",
        "_secret",
        "_source",
        "_timeout",
        "client_id",
        "method",
        "name",
        "url",
    )

    def __init__(
        self,
        url: str,
        client_id: str,
        client_secret: str | None,
        method: AuthMethod | None,
        *,
        name: str,
        source: AsyncClient | Callable[[], AsyncClient] | None,
        timeout: float,
        json_urls: frozenset[str] = frozenset(),
    ) -> None:
        self.url = url
        self.method: AuthMethod = _checked_method(method, client_id, client_secret)
        self.client_id = client_id
        self.name = name
        self._secret = client_secret
        self._source = source
        self._timeout = timeout
        self._json_urls = json_urls
        self._prepare = _authentication(self.method, client_id, client_secret, audience=url)

    @property
    def is_public(self) -> bool:
        """Whether it has no secret (RFC 6749 §2.1)."""
        return self._secret is None

    @property
    def fingerprint(self) -> str:
        """Tell credentials apart: 8 hex digits, of which no secret can be made."""
        credentials = f"{len(self.client_id)} {self.client_id} {self._secret or ''}"
        return hashlib.sha256(credentials.encode()).hexdigest()[:8]

    async def post(
        self, body: str, *, url: str | None = None, content_type: str = FORM
    ) -> Answer | NoAnswer:
        """Ask an endpoint of the server, authenticated.

        Args:
            body: what is asked.
            url: the endpoint; None: the token endpoint.
            content_type: of the body.
        """
        url = url or self.url
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": content_type,
        }
        try:
            if self.method in _SIGNING:  # That takes a millisecond.
                headers, body = await run_blocking(self._prepare, url, headers, body, group=Client)
            else:
                headers, body = self._prepare(url, headers, body)
        except Exception as error:
            why = f"the client could not authenticate: {type(error).__name__}"
            return NoAnswer(False, why, caused_by=cause_of(error))
        if content_type == FORM and url in self._json_urls:
            headers, body = {**headers, "Content-Type": JSON}, _as_json(body)
        return await exchange(self._source, "POST", url, headers, body, timeout=self._timeout)

    def redact(self, text: str | None, most: int, *secrets: str | None) -> str | None:
        """Make a server's words fit to be shown, without the client's secret and these.

        Args:
            text: the words.
            most: characters of the result.
            secrets: what else was sent and must not be shown.
        """
        return redacted(text, [one for one in (self._secret, *secrets) if one], most)


def _as_json(form: str) -> str:
    """Return the JSON object of a form; a parameter that stands there several times is a list."""
    fields = parse_qs(form, keep_blank_values=True)
    return json.dumps({name: one[0] if len(one) == 1 else one for name, one in fields.items()})


def _checked_method(
    method: AuthMethod | None, client_id: str, client_secret: str | None
) -> AuthMethod:
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


def _authentication(
    method: AuthMethod, client_id: str, client_secret: str | None, *, audience: str
) -> _Prepare:
    """Return what adds a client's credentials to a request (RFC 6749 §2.3, RFC 7523)."""
    # Imported here: whoever imports the library need not wait for it.
    from authlib.oauth2.auth import ClientAuth

    if method == "client_secret_basic":
        # RFC 6749 §2.3.1: both are form-urlencoded first; Authlib leaves that to the caller.
        return _prepare(ClientAuth(quote_plus(client_id), quote_plus(client_secret or ""), method))
    if method not in _SIGNING:
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


def _prepare(auth: Any) -> _Prepare:
    def prepare(url: str, headers: dict[str, str], body: str) -> tuple[dict[str, str], str]:
        _, headers, body = auth.prepare("POST", url, headers, body)
        return headers, body

    return prepare


def _can_sign(prepare: _Prepare, url: str) -> bool:
    """Try it now. What a key's parser says of a key that it does not like may hold parts of it."""
    try:
        prepare(url, {}, "")
    except Exception:
        return False
    return True
