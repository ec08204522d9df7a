"""TokenEndpoint: ask a token endpoint for the next token, read what it answers, say what that means."""

from __future__ import annotations

import functools
import ssl
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args
from urllib.parse import quote_plus

import anyio
import anyio.to_thread
import httpx

from ._answer import INVALID_GRANT, Answer, Meaning, Refusal, meaning
from ._device import DeviceAuthorization, start, wait
from ._errors import ReauthorizationRequired, RefreshUnavailable
from ._expiry import ExpiryRule
from ._libraries import NOT_SENT, REQUEST_ERRORS
from ._login import (
    FORM,
    AuthorizationRequest,
    authorization_request,
    code_form,
    code_of,
    redeem,
    with_fields,
)
from ._login_settings import LoginOptions, LoginSettings
from ._origins import compiled, is_loopback
from ._revocation import revoke
from ._token import Token

if TYPE_CHECKING:
    from authlib.oauth2.auth import ClientAuth
    from typing_extensions import Unpack

    from ._libraries import AsyncClient, Response

AuthMethod = Literal[
    "client_secret_basic", "client_secret_post", "none", "client_secret_jwt", "private_key_jwt"
]

_MOST = 1_048_576
"""Bytes that are read of an answer."""

# One connection is made and one answer awaited; the session's `refresh_timeout` ends all of it earlier.
_TIMEOUT = {"timeout": 60.0, "connect": 5.0, "pool": 5.0}


class TokenEndpoint:
    """Spend a refresh token at an authorization server's token endpoint (RFC 6749 §6).

    Authlib makes the request. Nothing is sent but over https (loopback excepted), no redirect is followed, and of the
    answer at most 1 MiB is read.

    Args:
        url: the token endpoint.
        client_id: the client's identifier.
        client_secret: the client's secret; for `private_key_jwt` its private key (PEM or JWK). None: a public client.
        token_endpoint_auth_method: how the client authenticates (RFC 7591 §2, RFC 7523). None: `client_secret_basic`
            with a secret, `none` without.
        reuse_grace: seconds for which the server accepts a refresh token that was spent already, because its answer
            may have been lost. 0: it does not, and a second use may end the grant (RFC 9700 §4.14.2).
        client: an `httpx.AsyncClient` or `httpx2.AsyncClient` of yours to ask with, for proxies and certificates; it
            is not closed. None: one is made for each refresh.
        name: what messages call the provider; None: the host of `url`.
        origins: where tokens of this endpoint may be sent, see `RefreshAuth`; None: any https origin.
        is_expired: which of the API's responses mean that the token is no longer good, see `RefreshAuth`.
        authorization_scheme: the word before the token in the `Authorization` header.
        params: further parameters of the token request, such as `scope`.
        dead: the refusals that mean that a person must log in again.
        transient: the refusals that pass by themselves.
        refresh_not_before_expiry: seconds before its expiry up to which the server refuses to replace a token.
        login: what a login needs, and giving a token back: `authorization_endpoint`, `revocation_endpoint`,
            `device_authorization_endpoint`, `issuer`, `scope`, and the rest of `LoginSettings`.

    Raises:
        TypeError, ValueError: an argument that cannot be meant.
    """

    def __init__(
        self,
        url: str,
        client_id: str,
        client_secret: str | None = None,
        *,
        token_endpoint_auth_method: AuthMethod | None = None,
        reuse_grace: float = 0.0,
        client: AsyncClient | None = None,
        name: str | None = None,
        origins: Iterable[str] | str | None = None,
        is_expired: ExpiryRule | Callable[[Any], bool] | None = None,
        authorization_scheme: str = "Bearer",
        params: Mapping[str, str] | None = None,
        dead: Iterable[Refusal] = (INVALID_GRANT,),
        transient: Iterable[Refusal] = (),
        refresh_not_before_expiry: float | None = None,
        **login: Unpack[LoginOptions],
    ) -> None:
        self.url = _checked(url)
        if not isinstance(client_id, str) or not client_id:
            raise TypeError("client_id must be a str that is not empty")
        if client_secret is not None and not isinstance(client_secret, str):
            raise TypeError("client_secret must be a str or None")
        if isinstance(reuse_grace, bool) or not isinstance(reuse_grace, (int, float)):
            raise TypeError("reuse_grace must be a number of seconds")
        if not reuse_grace >= 0:
            raise ValueError("reuse_grace must not be negative")
        method = token_endpoint_auth_method
        if method is None:
            method = "client_secret_basic" if client_secret else "none"
        if method not in get_args(AuthMethod):
            raise ValueError(
                f"token_endpoint_auth_method must be one of {', '.join(get_args(AuthMethod))}, not {method!r}"
            )
        if (method == "none") != (not client_secret):
            raise ValueError(
                f"token_endpoint_auth_method {method!r} and client_secret do not go together: every method but "
                "'none' needs one"
            )
        if client is not None and not callable(getattr(client, "build_request", None)):
            raise TypeError("client must be an AsyncClient of httpx or httpx2, or None")
        if (
            not authorization_scheme.isascii()
            or not authorization_scheme.replace("-", "").isalnum()
        ):
            raise ValueError("authorization_scheme must be one word")
        compiled(origins)  # Raises what is wrong with them.
        self.client_id = client_id
        self.token_endpoint_auth_method: AuthMethod = method
        self.reuse_grace = float(reuse_grace)
        self.name = name or httpx.URL(url).host
        self.origins = origins if origins is None or isinstance(origins, str) else tuple(origins)
        self.is_expired = is_expired
        self.authorization_scheme = authorization_scheme
        self.params = dict(params or {})
        self.dead = tuple(dead)
        self.transient = tuple(transient)
        self.refresh_not_before_expiry = refresh_not_before_expiry
        self.login = LoginSettings(**login)
        self._client = client
        self._client_secret = client_secret
        self._client_auth = self._authentication()

    def __repr__(self) -> str:
        return f"TokenEndpoint({self.url!r}, {self.client_id!r})"

    async def refresh(self, token: Token, /) -> Token:
        """Spend `token.refresh_token` and return the token that the server answered with, as it answered.

        One request; who calls decides about another.

        Raises:
            ReauthorizationRequired: the server refused the refresh token for good.
            RefreshUnavailable: there is no new token; its `outcome` tells what became of the old one.
        """
        refresh_token = token.refresh_token
        if refresh_token is None:
            raise ReauthorizationRequired(
                f"There is no refresh token for {self.name}. Log in again."
            )
        from authlib.oauth2.rfc6749.parameters import prepare_token_request

        body = prepare_token_request("refresh_token", refresh_token=refresh_token, **self.params)
        secrets = (refresh_token, token.access_token, self._client_secret or "")
        return self._understood(await self._post(body), secrets)

    def authorization_url(
        self, redirect_uri: str, *, scope: str | None = None, **params: str
    ) -> AuthorizationRequest:
        """Begin a login with the authorization code grant, PKCE and `state` (RFC 6749 §4.1, RFC 7636, RFC 9700 §2.1).

        Send the browser to the `url` of what this returns, keep the rest, and give it to `exchange_code` together
        with what the browser brings back.

        Args:
            redirect_uri: where the server sends the browser, as it is registered there.
            scope: what is asked for, words with blanks between; None: the endpoint's `scope`.
            params: further parameters of the authorization request, such as `prompt` or `login_hint`.

        Raises:
            LoginFailed: the server says that it does not know PKCE.
            ValueError: there is no `authorization_endpoint`, or an argument cannot be meant.
        """
        return authorization_request(
            self.login,
            name=self.name,
            client_id=self.client_id,
            is_public=not self._client_secret,
            redirect_uri=redirect_uri,
            scope=scope,
            params=params,
        )

    async def exchange_code(
        self, redirect: str | Mapping[str, str], request: AuthorizationRequest
    ) -> Token:
        """Exchange the code that the browser brought back for the first token (RFC 6749 §4.1.3).

        `state` is compared first, and `iss` where the server sends it (RFC 9207). Put the token into use with
        `RefreshAuth.set_token`.

        Args:
            redirect: the URL that the browser was sent to, or its query parameters.
            request: what `authorization_url` returned for this browser.

        Raises:
            LoginFailed: there is no token; no store has changed.
        """
        code, fields = code_of(self.login, request, redirect, name=self.name)
        form = code_form(code, request)
        hidden = self._client_secret or ""
        token = await redeem(self._post, "authorization_code", form, name=self.name, hidden=hidden)
        return with_fields(token, fields)

    async def device_authorization(self, *, scope: str | None = None) -> DeviceAuthorization:
        """Begin a login on another device (RFC 8628): show its address and its code, then await `device_token`.

        Raises:
            LoginFailed: the server began none.
            ValueError: there is no `device_authorization_endpoint`.
        """
        return await start(self._post, self.login, name=self.name, scope=scope)

    async def device_token(self, device: DeviceAuthorization) -> Token:
        """Wait until the person has decided about a device login, and return the first token.

        Raises:
            LoginFailed: the person said no, or nobody decided in time.
        """
        return await wait(self._post, device, name=self.name, hidden=self._client_secret or "")

    async def revoke(self, token: Token) -> None:
        """Give a token back (RFC 7009): its refresh token, and with it the grant; without one its access token.

        Raises:
            RevocationFailed: the server did not confirm it.
            ValueError: there is no `revocation_endpoint`.
        """
        origins = compiled(self.origins)
        await revoke(self._post, self.login, token, name=self.name, origins=origins)

    # -- asking ------------------------------------------------------------------------------------------------

    def _authentication(self) -> ClientAuth:
        # Imported here: whoever imports the library need not wait for it.
        from authlib.oauth2.auth import ClientAuth

        method, secret = self.token_endpoint_auth_method, self._client_secret
        if method == "client_secret_basic":
            # RFC 6749 §2.3.1: both are form-urlencoded first; Authlib leaves that to the caller.
            return ClientAuth(quote_plus(self.client_id), quote_plus(secret or ""), method)
        if method in ("client_secret_jwt", "private_key_jwt"):
            # It brings a JOSE library along.
            from authlib.oauth2.rfc7523 import ClientSecretJWT, PrivateKeyJWT

            maker = ClientSecretJWT if method == "client_secret_jwt" else PrivateKeyJWT
            return ClientAuth(self.client_id, secret, maker(self.url))
        return ClientAuth(self.client_id, secret, method)

    async def _post(self, body: str, *, url: str | None = None, content_type: str = FORM) -> Answer:
        url = url or self.url
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": content_type,
        }
        prepare = functools.partial(self._client_auth.prepare, "POST", url, headers, body)
        if self.token_endpoint_auth_method.endswith("_jwt"):
            _, headers, body = await anyio.to_thread.run_sync(prepare)  # It signs.
        else:
            _, headers, body = prepare()
        answers: list[Answer] = []
        try:
            if self._client is not None:
                await _exchange(self._client, url, headers, body, answers)
            else:
                context = await anyio.to_thread.run_sync(_ssl_context)
                async with httpx.AsyncClient(verify=context) as client:
                    await _exchange(client, url, headers, body, answers)
        except NOT_SENT as error:
            raise RefreshUnavailable(
                f"{self.name}'s token endpoint could not be reached ({type(error).__name__}). The refresh token was "
                "not sent. Try again later.",
                outcome="not_sent",
            ) from error
        except (*REQUEST_ERRORS, anyio.get_cancelled_exc_class()) as error:
            # The server has answered, and the refresh token is spent: a close that failed, or was cancelled, must
            # not lose the new one. Whoever cancelled gets its way a moment later.
            if not answers:
                if not isinstance(error, REQUEST_ERRORS):
                    raise
                raise RefreshUnavailable(
                    f"{self.name}'s token endpoint was asked and gave no answer ({type(error).__name__}). Whether it "
                    "spent the refresh token is unknown; the token is kept. Try again later.",
                    outcome="unknown",
                ) from error
        return answers[0]

    # -- understanding -----------------------------------------------------------------------------------------

    def _understood(self, answer: Answer, secrets: tuple[str, ...]) -> Token:
        means = meaning(answer, dead=self.dead, transient=self.transient, now=time.time())
        if means.token is not None:
            return means.token
        error = _redacted(means.error, secrets, 64)
        description = _redacted(means.error_description, secrets, 300)
        if means.kind == "dead":
            raise ReauthorizationRequired(
                f"{self.name} refused the refresh token for good ({error or f'status {answer.status}'}). Log in again.",
                error=error,
                error_description=description,
            )
        raise RefreshUnavailable(
            _explained(self.name, answer, means, error, description),
            outcome="refused"
            if means.kind == "refused"
            else "busy"
            if means.kind == "busy"
            else "unknown",
            retry_after=means.retry_after,
        )


def _explained(
    name: str, answer: Answer, means: Meaning, error: str | None, description: str | None
) -> str:
    said = f"status {answer.status}" + (f", {error}" if error else "")
    if description:
        said += f": {description}"
    if means.kind == "busy":
        return f"{name}'s token endpoint is busy ({said}). The refresh token was not spent. Try again later."
    if means.kind == "unknown":
        what = "more than 1 MiB" if answer.cut else "no token"
        return (
            f"{name}'s token endpoint answered with {what} ({said}). Whether it spent the refresh token is unknown; "
            "the token is kept, and tried once more at the next need."
        )
    if 300 <= answer.status < 400:
        return (
            f"{name}'s token endpoint redirects ({said}), and a redirect is never followed with a secret. The refresh "
            "token was not spent. Set the endpoint's url to the address that answers itself."
        )
    return (
        f"{name}'s token endpoint refused this client or its request, not the grant ({said}). The refresh token was "
        "not spent, and nobody needs to log in again. Check client_id, client_secret, token_endpoint_auth_method, "
        "params and url."
    )


async def _exchange(
    client: Any, url: str, headers: dict[str, str], body: str, answers: list[Answer]
) -> None:
    """Ask, and put the answer into `answers` before anything is closed."""
    request = client.build_request("POST", url, content=body, headers=headers)
    if "Authorization" not in headers:
        request.headers.pop(
            "Authorization", None
        )  # A default header of the client's is not for this server.
    request.extensions["timeout"] = httpx.Timeout(**_TIMEOUT).as_dict()
    response = await client.send(request, stream=True, auth=None, follow_redirects=False)
    try:
        answers.append(await _read(response))
    finally:
        await response.aclose()


async def _read(response: Response) -> Answer:
    raw = bytearray()
    async for chunk in response.aiter_raw():
        raw += chunk
        if len(raw) > _MOST:
            break
    body, cut = bytes(raw[:_MOST]), len(raw) > _MOST
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("gzip", "x-gzip", "deflate") and not cut:
        # Not asked for, but some compress all the same. Unpacked by hand: a client's decoder knows no bound.
        unpack = zlib.decompressobj(wbits=47)
        try:
            body = unpack.decompress(body, _MOST)
        except zlib.error:
            body = b""
        cut = bool(unpack.unconsumed_tail)
    return Answer(response.status_code, response.headers, body, cut)


@functools.lru_cache(maxsize=1)
def _ssl_context() -> ssl.SSLContext:
    """Make the context once: reading the certificates takes many milliseconds."""
    return httpx.create_ssl_context()


def _checked(url: str) -> str:
    if not isinstance(url, str):
        raise TypeError("url must be a str")
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"url is no URL: {error}") from None
    if parsed.scheme != "https" and not (parsed.scheme == "http" and is_loopback(parsed.host)):
        raise ValueError(
            "url must be https (RFC 6749 §3.2; http to loopback excepted): a refresh token and a secret go there"
        )
    if not parsed.host or parsed.userinfo or parsed.fragment:
        raise ValueError("url must name a host, and have no user information and no fragment")
    return url


def _redacted(text: str | None, secrets: tuple[str, ...], most: int) -> str | None:
    """Make a server's words fit to be shown: no secret of ours that it repeats, one line, bounded."""
    if text is None:
        return None
    for secret in secrets:
        for form in (secret, quote_plus(secret)):
            if form:
                text = text.replace(form, "***")
    text = "".join(one if one.isprintable() else " " for one in text)
    return text if len(text) <= most else text[: most - 1] + "…"
