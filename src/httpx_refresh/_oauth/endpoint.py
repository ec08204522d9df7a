"""TokenEndpoint: the front door to an authorization server. Refresh, log in, revoke.

What it raises holds no secret, in no local variable either. It knows no store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlencode

import httpx

from .._errors import ReauthorizationRequired, frameless
from .._http.challenge import ExpiryRule, checked_rule
from .._http.origins import compiled
from .._refresh.source import purpose_of
from .._token import Token
from . import settings as checked
from .answer import INVALID_GRANT, Refusal, Rules, refreshed
from .authentication import ClientAuth, Method
from .client import Client
from .clock import ServerClock
from .granting import CONSENT_REQUIRED, Form, Granted, ask, ask_with
from .material import Text
from .settings import (
    BearerAssertion,
    LoginOptions,
    LoginSettings,
    checked_url,
    is_sendable,
    with_claims,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .._http.libraries import AsyncClient
    from .device import DeviceAuthorization
    from .login import AuthorizationRequest

# What a login needs is imported by the first one: importing the library stays fast.


class EndpointOptions(LoginOptions, total=False):
    """The keyword arguments that `TokenEndpoint` takes."""

    client_auth: Method | ClientAuth | None
    client_assertion_audience: str | None
    reuse_grace: float | Literal["until_used"]
    client: AsyncClient | Callable[[], AsyncClient] | None
    timeout: float
    allow_http: bool
    name: str | None
    origins: Iterable[str] | str | None
    is_expired: ExpiryRule | Callable[[Any], bool] | None
    authorization_scheme: str
    params: Mapping[str, str] | None
    refresh_url: str | None
    refresh_params: Mapping[str, str] | None
    request_format: Literal["form", "json"]
    answer_fields: Mapping[str, str] | None
    default_lifetime: float | None
    dead: Iterable[Refusal]
    transient: Iterable[Refusal]
    consent: Iterable[Refusal]
    refresh_not_before_expiry: float | None
    jwt_bearer: BearerAssertion | None
    exclusive_grants: Iterable[str]


class TokenEndpoint:
    """Spend a refresh token at an authorization server's token endpoint (RFC 6749 §6).

    Requests go over https only (loopback excepted), no redirect is followed, and at most
    1 MiB of the answer is read. Up to 64 KiB of further fields are kept with the tokens; the largest are dropped first.
    An `id_token` is kept as it was received, and is not verified.

    Args:
        url: the token endpoint.
        client_id: the client's identifier. None where the grant names the client, as a JWT bearer's assertion does.
        client_secret: the client's secret; a path (`pathlib.Path`), or a callable that returns text or a path, is read
            before each token request. For `private_key_jwt` an RSA private key in PEM (RS256). None: a public client,
            or one whose `client_auth` has credentials of its own.
        client_auth: how the client authenticates: a name of RFC 7591 §2 (`client_secret_basic`, `client_secret_post`,
            `client_secret_jwt`, `private_key_jwt`, `none`), or an object of `httpx_refresh.client_auth`. None:
            `client_secret_basic` with a secret, `none` without.
        client_assertion_audience: the audience of the client's signed assertions (RFC 7523 §3). None: the `issuer`,
            or `url` if that is not known.
        reuse_grace: seconds for which the server accepts a refresh token that was already spent, since the answer may
            have been lost. 0: never; a second use may end the grant (RFC 9700 §4.14.2). `"until_used"`: until a request
            carries the new access token. Less than twice `refresh_timeout` makes the time for an answer shorter: half
            of the grace, but at least a quarter of `refresh_timeout`. So another process comes in time after a crash.
        client: the `httpx.AsyncClient` or `httpx2.AsyncClient` that sends token requests, for proxies and
            certificates; or a callable that makes one, as in `client=lambda: httpx.AsyncClient(verify=context)`. A
            client is not closed, and serves the event loop that it is first used on. A client that the callable makes
            is used for one request and closed, so it serves every loop. The client's default headers, parameters,
            cookies and auth are not sent; its event hooks are called, and one that raises makes the outcome unknown.
            None: a client is made for each request; proxies of the environment are used for https.
        timeout: seconds for one request to this server, from its connection to the end of its answer. A session's
            `refresh_timeout` ends a refresh earlier.
        allow_http: whether this server's addresses may be plain http to other hosts than loopback, as in
            docker-compose or a service mesh.
        name: what messages call the provider; None: the host of `url`.
        origins: where tokens of this endpoint may be sent, see `RefreshAuth`; None: `RefreshAuth` must be told.
        is_expired: which of the API's responses mean that the token is no longer good, see `RefreshAuth`.
        authorization_scheme: the word before the token in the `Authorization` header.
        params: further parameters of each token request that no person takes part in, such as `scope`.
        refresh_url: where a refresh token is spent, if the server has a separate endpoint for that. None: `url`.
        refresh_params: further parameters of a request that spends a refresh token, and of no other.
        request_format: how a token request is encoded: as a form (RFC 6749), or as JSON.
        answer_fields: where the server's answers keep what RFC 6749 §5 calls by another name: paths, with dots between
            names, by the RFC's name, as in `{"access_token": "token"}` or `{"access_token": "data.access_token"}`. An
            `expires_at` may be epoch seconds, or a date and time (RFC 3339).
        default_lifetime: seconds that an access token lives if the answer does not say so. None: unknown.
        dead: the refusals that mean that a person must log in again.
        transient: the refusals that are temporary.
        consent: the refusals of a grant without a person that mean that somebody must give consent first.
        refresh_not_before_expiry: the server refreshes a token only in the last so many seconds before its expiry.
        jwt_bearer: what the assertions of the grant JWT bearer are like here (RFC 7523 §2.1), see `BearerAssertion`:
            what `JWTBearer` is not told.
        exclusive_grants: the grants of which each new token ends the last one, by their `grant_type`: `ends_previous`
            of `httpx_refresh.grants` where it is not told.
        login: what a login and a revocation need: `authorization_endpoint`, `revocation_endpoint`,
            `device_authorization_endpoint`, `issuer`, `scope`, and the rest of `LoginSettings`; `resource` goes with
            a refresh, too.

    Attributes:
        client_auth: the name of how the client authenticates (RFC 7591 §2, RFC 8705 §2).
        client_fingerprint: tells credentials of clients apart: 8 hex digits, of which no secret can be made. Of keys
            and certificates it knows the public part; of what is read again each time, what was read last.
        purpose: what its tokens are for; a stored token for something else is not spent here.

    Raises:
        TypeError, ValueError: an argument is invalid.
    """

    @frameless
    def __init__(
        self,
        url: str,
        client_id: str | None = None,
        client_secret: Text | None = None,
        *,
        client_auth: Method | ClientAuth | None = None,
        client_assertion_audience: str | None = None,
        reuse_grace: float | Literal["until_used"] = 0.0,
        client: AsyncClient | Callable[[], AsyncClient] | None = None,
        timeout: float = 30.0,
        allow_http: bool = False,
        name: str | None = None,
        origins: Iterable[str] | str | None = None,
        is_expired: ExpiryRule | Callable[[Any], bool] | None = None,
        authorization_scheme: str = "Bearer",
        params: Mapping[str, str] | None = None,
        refresh_url: str | None = None,
        refresh_params: Mapping[str, str] | None = None,
        request_format: Literal["form", "json"] = "form",
        answer_fields: Mapping[str, str] | None = None,
        default_lifetime: float | None = None,
        dead: Iterable[Refusal] = (INVALID_GRANT,),
        transient: Iterable[Refusal] = (),
        consent: Iterable[Refusal] = CONSENT_REQUIRED,
        refresh_not_before_expiry: float | None = None,
        jwt_bearer: BearerAssertion | None = None,
        exclusive_grants: Iterable[str] = (),
        **login: Unpack[LoginOptions],
    ) -> None:
        checked.no_others("TokenEndpoint", login, EndpointOptions.__optional_keys__)
        if not isinstance(allow_http, bool):
            raise TypeError("allow_http must be a bool")
        self.url: str = checked_url(url, "url", allow_http=allow_http)
        self.refresh_url: str = (
            url
            if refresh_url is None
            else checked_url(refresh_url, "refresh_url", allow_http=allow_http)
        )
        self.request_format: Literal["form", "json"] = checked.request_format(request_format)
        if name is not None and not isinstance(name, str):
            raise TypeError("name must be a str or None")
        if isinstance(origins, Iterable) and not isinstance(origins, str):
            origins = tuple(origins)  # It is read more than once.
        compiled(origins, allow_http=allow_http)  # Raises what is wrong with them.
        self.name: str = name or httpx.URL(url).host
        self._client = Client(
            url,
            client_id,
            client_secret,
            client_auth,
            name=self.name,
            source=checked.client(client),
            timeout=checked.seconds("timeout", timeout),
            audience=checked.audience(client_assertion_audience) or login.get("issuer"),
            json_urls=frozenset(
                {self.url, self.refresh_url} if self.request_format == "json" else ()
            ),
        )
        self.client_id = client_id
        self.client_auth: str = self._client.method
        self.reuse_grace: float | Literal["until_used"] = checked.grace(reuse_grace)
        self.allow_http = allow_http
        self.origins = origins
        self.is_expired: ExpiryRule | Callable[[Any], bool] | None = checked_rule(is_expired)
        self.authorization_scheme: str = checked.scheme(authorization_scheme)
        self.params: dict[str, str] = checked.params(params)
        self.refresh_params: dict[str, str] = checked.params(refresh_params, "refresh_params")
        self.rules: Rules = Rules(
            dead=checked.refusals("dead", dead),
            transient=checked.refusals("transient", transient),
            fields=checked.fields(answer_fields),
            default_lifetime=checked.optional_seconds("default_lifetime", default_lifetime),
        )
        self.consent: tuple[Refusal, ...] = checked.refusals("consent", consent)
        self.purpose: str = purpose_of("login", url, client_id, resource=login.get("resource"))
        self.refresh_not_before_expiry: float | None = checked.optional_seconds(
            "refresh_not_before_expiry", refresh_not_before_expiry
        )
        self.jwt_bearer: BearerAssertion = checked.bearer_assertion(jwt_bearer)
        self.exclusive_grants: frozenset[str] = checked.names(exclusive_grants, "exclusive_grants")
        self.login: LoginSettings = LoginSettings(**login, allow_http=allow_http)

    @property
    def client_fingerprint(self) -> str:
        """Tell credentials apart, as they were read last; see the class."""
        return self._client.fingerprint

    @property
    def one_loop(self) -> str | None:
        """How to pass a client that serves every event loop; None if there is one, or none is passed."""
        return self._client.one_loop

    @property
    def clock(self) -> ServerClock:
        """What is known of the server's clock."""
        return self._client.clock

    @property
    def is_public(self) -> bool:
        """Whether the client does not authenticate (RFC 6749 §2.1)."""
        return self._client.is_public

    takes_claims = True
    """Servers that know no `claims` in a token request ignore them (RFC 6749 §3.2)."""

    def __repr__(self) -> str:
        # Some servers know a client by a key in the query.
        return (
            f"TokenEndpoint({str(httpx.URL(self.url).copy_with(query=None))!r}, {self.client_id!r})"
        )

    @frameless
    async def refresh(self, token: Token, /, *, claims: Mapping[str, Any] | None = None) -> Token:
        """Spend `token.refresh_token` and return the token that the server answered with, as it answered.

        One request; who calls decides about another.

        Args:
            token: the token whose refresh token is spent.
            claims: what an API asks that the new token holds, as Microsoft Entra's do (OpenID Connect Core §5.5). They
                are united with the `claims` among `params`.

        Raises:
            StepUpRequired: the server wants a person for these claims.
            ReauthorizationRequired: the server refused the refresh token for good.
            RefreshUnavailable: there is no new token; its `outcome` tells what became of the old one.
        """
        refresh_token = token.refresh_token
        if refresh_token is None:
            raise ReauthorizationRequired(
                f"There is no refresh token for {self.name}. Log in again."
            )
        if not is_sendable(refresh_token):
            raise ReauthorizationRequired(
                f"The refresh token for {self.name} is not text that can be sent. Log in again."
            )
        params = {**self.login.resource_params(), **self.params, **self.refresh_params}
        if claims is not None:
            params = with_claims(params, claims)
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token, **params}
        # RFC 6749 §3.2: a parameter without a value is as good as omitted. Not all servers know.
        body = urlencode({name: value for name, value in form.items() if value})
        client, asked_at = self._client, time.time()
        came = refreshed(
            await client.post(body, url=self.refresh_url),
            name=self.name,
            rules=self.rules,
            redact=lambda text, most: client.redact(text, most, refresh_token, token.access_token),
            now=asked_at,
            claims=claims,
        )
        if isinstance(came, Token):
            return came
        raise came

    async def granted(
        self,
        grant_type: str,
        form: Form,
        *,
        secrets: Iterable[str] = (),
        claims: Mapping[str, Any] | None = None,
    ) -> Granted:
        """Ask with a grant that no person takes part in; what came of it is returned, also if it is an error.

        The sources of `httpx_refresh.grants` ask with this.

        Args:
            grant_type: the grant (RFC 6749 §4.5).
            form: its parameters; they take precedence over `params`.
            secrets: which of their values are secret, should the server repeat them.
            claims: what an API asks that the token holds; they are united with the `claims` among the others.
        """
        named = {name for name, _ in form}
        known = {**self.login.resource_params(), **self.params}
        asked = [*form, *(pair for pair in known.items() if pair[0] not in named)]
        if claims is not None:
            united = with_claims(dict(asked), claims)["claims"]
            asked = [*(pair for pair in asked if pair[0] != "claims"), ("claims", united)]
        return await ask(
            self._client,
            [("grant_type", grant_type), *asked],
            secrets=tuple(secrets),
            claims=claims,
            # Nothing is lost by asking again: no refusal of a grant is its death.
            rules=self.rules._replace(dead=self.consent),
        )

    async def asked_with(self, body: str, content_type: str) -> Granted:
        """Ask for a token where the server wants no grant but a body of its own, as GitHub does for its apps.

        Args:
            body: what is asked; no secret.
            content_type: of the body.
        """
        rules = self.rules._replace(dead=self.consent)
        return await ask_with(self._client, body, content_type, secrets=(), rules=rules)

    @frameless
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
            ValueError: there is no `authorization_endpoint`, or an argument is invalid.
        """
        from .login import authorization_request

        return authorization_request(
            self._client,
            self.login,
            redirect_uri=redirect_uri,
            scope=scope,
            params=params,
        )

    @frameless
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
        from .login import code_form, code_of, redeem, with_fields

        code, fields = code_of(self._client, self.login, request, redirect)
        token = await redeem(
            self._client, "authorization_code", code_form(self.login, code, request), self.rules
        )
        if isinstance(token, Token):
            return with_fields(token, fields)
        raise token

    @frameless
    async def device_authorization(self, *, scope: str | None = None) -> DeviceAuthorization:
        """Begin a login on another device (RFC 8628): show its address and its code, then await `device_token`.

        Raises:
            LoginFailed: the server began none.
            ValueError: there is no `device_authorization_endpoint`.
        """
        from .device import start

        return await start(self._client, self.login, scope=scope)

    @frameless
    async def device_token(self, device: DeviceAuthorization) -> Token:
        """Wait until the person has decided about a device login, and return the first token.

        Raises:
            LoginFailed: the person said no, or nobody decided in time.
        """
        from .device import wait

        return await wait(self._client, self.login, device, self.rules)

    @frameless
    async def revoke(self, token: Token) -> None:
        """Revoke a token (RFC 7009): its refresh token, and with it the grant; without one its access token.

        Raises:
            RevocationFailed: the server did not confirm it.
            OriginNotAllowed: the token names a host to revoke it at that is none of `origins`.
            ValueError: there is no `revocation_endpoint`.
        """
        from .revocation import revoke

        await revoke(self._client, self.login, token, origins=self.origins)
