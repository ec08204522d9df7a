"""The client of an authorization server (RFC 6749 §2): it authenticates, asks, and hides its secrets.

It knows no grant: refreshes, logins and revocations tell it what to ask.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode

import anyio
import httpx

from .._errors import cause_of
from .._http.libraries import library_asking
from .answer import Answer, NoAnswer, refuses_client
from .authentication import Asked, ClientAuth, Method, Proof, Public, authentication
from .clock import Heard, ServerClock, ahead_of
from .exchange import exchange
from .material import Text, Unusable
from .redaction import redacted
from .settings import one_loop_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from .._http.libraries import AsyncClient

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"

_SECRETS_KEPT = 16  # of the last requests: what a server may still repeat


class Client:
    """A client of one authorization server. Its repr shows nothing.

    Mutable: `_sent`, the secrets of the last requests, so that answers to them can be shown; and `clock`, see there.

    Args:
        url: the token endpoint.
        client_id: the client's identifier; None where the grant names the client.
        client_secret: its secret; text, a path, or a callable that returns either.
        client_auth: how it authenticates, see `authentication`.
        name: what messages call the server.
        source: makes the requests, see `exchange`.
        timeout: seconds for one exchange, and for the credentials before it.
        audience: what signed assertions are for (RFC 7523 §3); None: the token endpoint.
        json_urls: the endpoints that take JSON where the RFCs have a form.

    Raises:
        TypeError, ValueError: these do not go together, or the credentials cannot be used.
    """

    __slots__ = (
        "_audience",
        "_auth",
        "_json_urls",
        "_sent",
        "_source",
        "_timeout",
        "client_id",
        "clock",
        "name",
        "url",
    )

    def __init__(
        self,
        url: str,
        client_id: str | None,
        client_secret: Text | None,
        client_auth: Method | ClientAuth | None,
        *,
        name: str,
        source: AsyncClient | Callable[[], AsyncClient] | None,
        timeout: float,
        audience: str | None = None,
        json_urls: frozenset[str] = frozenset(),
    ) -> None:
        self.url = url
        self.client_id = client_id
        self.name = name
        self._auth = authentication(client_auth, client_id, client_secret)
        if self.method == "tls_client_auth":
            if source is not None:
                raise ValueError(
                    "client_auth MutualTLS and client do not go together: its connections carry the certificate"
                )
            if httpx.URL(url).scheme != "https":
                raise ValueError("client_auth MutualTLS needs a url that is https")
        self._audience = audience or url
        self.clock = ServerClock()
        self._source = source
        self._timeout = timeout
        self._json_urls = json_urls
        self._sent: deque[str] = deque(maxlen=_SECRETS_KEPT)

    @property
    def method(self) -> str:
        """How it authenticates, as RFC 7591 §2 and RFC 8705 §2 name it."""
        return self._auth.method

    @property
    def is_public(self) -> bool:
        """Whether it has no credentials (RFC 6749 §2.1)."""
        return isinstance(self._auth, Public)

    @property
    def one_loop(self) -> str | None:
        """How to pass a client that serves every event loop; None if what makes the requests does."""
        return one_loop_of(self._source)

    @property
    def fingerprint(self) -> str:
        """Tell credentials apart, as they were read last: 8 hex digits, of which no secret can be made."""
        client_id = self.client_id or ""
        credentials = f"{len(client_id)} {client_id} {self._auth.identity}"
        return hashlib.sha256(credentials.encode()).hexdigest()[:8]

    async def post(
        self, body: str, *, url: str | None = None, content_type: str = FORM
    ) -> Answer | NoAnswer:
        """Ask an endpoint of the server, authenticated.

        A client that is refused, and whose assertion was made by a clock that is not the server's, is asked for once
        more with a new one: nothing of the body was looked at.

        Args:
            body: what is asked.
            url: the endpoint; None: the token endpoint.
            content_type: of the body.
        """
        url, used = url or self.url, self.clock.ahead
        answer, ahead = await self._ask(body, url, content_type, used)
        if ahead is None:
            return answer
        return await self.clock.agree(
            answer, used, ahead, lambda ahead: self._ask(body, url, content_type, ahead)
        )

    async def _ask(
        self, body: str, url: str, content_type: str, ahead: float
    ) -> Heard[Answer | NoAnswer]:
        """Make one request, for a server whose clock is so many seconds ahead."""
        asked_at = time.time()
        proof = await self._proof(asked_at + ahead)
        if isinstance(proof, NoAnswer):
            return proof, None
        answer = await self._send(proof, body, url, content_type)
        if not (proof.dated and isinstance(answer, Answer) and refuses_client(answer)):
            return answer, None
        return answer, ahead_of(answer, asked_at, time.time())

    async def _send(
        self, proof: Proof, body: str, url: str, content_type: str
    ) -> Answer | NoAnswer:
        self._sent.extend(proof.secrets)
        body = _added(body, content_type, proof.params)
        if content_type == FORM and url in self._json_urls:
            content_type, body = JSON, _as_json(body)
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": content_type,
            **proof.headers,
        }
        source = self._source
        if proof.ssl_context is not None:
            if httpx.URL(url).scheme != "https":
                return NoAnswer(False, "a certificate is shown over https only", unready=True)
            source = functools.partial(_client_with, proof.ssl_context)
        return await exchange(source, "POST", url, headers, body, timeout=self._timeout)

    async def _proof(self, now: float) -> Proof | NoAnswer:
        """Return what a request at this moment carries of the client; nothing is sent if there is none."""
        asked = Asked(self.client_id, self._audience, now)
        try:
            if getattr(self._auth, "is_ready", False):
                return await self._auth.prove(asked)
            with anyio.move_on_after(self._timeout):
                return await self._auth.prove(asked)
        except Unusable as error:
            return NoAnswer(False, str(error), unready=True, caused_by=error.caused_by)
        except Exception as error:
            why = f"the client could not authenticate: {type(error).__name__}"
            return NoAnswer(False, why, unready=True, caused_by=cause_of(error))
        why = f"the client's credentials did not come within {self._timeout:g} s"
        return NoAnswer(False, why, unready=True)

    def redact(self, text: str | None, most: int, *secrets: str | None) -> str | None:
        """Make a server's words fit to be shown, without the client's secret and these.

        Args:
            text: the words.
            most: characters of the result.
            secrets: what else was sent and must not be shown.
        """
        return redacted(text, [one for one in (*self._sent, *secrets) if one], most)


def _client_with(context: ssl.SSLContext) -> Any:
    return library_asking().AsyncClient(verify=context)


def _added(body: str, content_type: str, params: Mapping[str, str]) -> str:
    """Return a body with further parameters."""
    if not params:
        return body
    if content_type != FORM:
        return json.dumps({**json.loads(body), **params})
    return "&".join(part for part in (body, urlencode(params)) if part)


def _as_json(form: str) -> str:
    """Return the JSON object of a form; a parameter that stands there several times is a list."""
    fields = parse_qs(form, keep_blank_values=True)
    return json.dumps({name: one[0] if len(one) == 1 else one for name, one in fields.items()})
