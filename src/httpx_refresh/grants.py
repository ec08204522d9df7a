"""Token sources that need no person: what services get tokens with (RFC 6749 §4.4 and §4.5, RFC 7523, RFC 8693)."""

from __future__ import annotations

import hashlib
import inspect
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Literal, Protocol, TypeAlias, cast

from ._errors import RefreshAuthError, RefreshUnavailable, cause_of, frameless
from ._http.challenge import ExpiryRule
from ._oauth import settings as checked
from ._oauth.clock import Heard
from ._oauth.endpoint import TokenEndpoint
from ._oauth.granting import Granted
from ._oauth.keys import Algorithm, KeySource, SigningKey
from ._oauth.material import Text
from ._oauth.settings import BearerAssertion
from ._refresh.source import purpose_of
from ._threads import run_blocking
from ._token import Token

__all__ = [
    "ACCESS_TOKEN",
    "ID_TOKEN",
    "JWT",
    "REFRESH_TOKEN",
    "SAML1",
    "SAML2",
    "BearerAssertion",
    "ClientCredentials",
    "Grant",
    "JWTBearer",
    "TokenExchange",
]

ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - the name of a kind
"""RFC 8693 §3, as are the other names of kinds of tokens here."""
REFRESH_TOKEN = "urn:ietf:params:oauth:token-type:refresh_token"  # noqa: S105 - likewise
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105 - likewise
JWT = "urn:ietf:params:oauth:token-type:jwt"
SAML1 = "urn:ietf:params:oauth:token-type:saml1"
SAML2 = "urn:ietf:params:oauth:token-type:saml2"

_CLIENT_CREDENTIALS = "client_credentials"
_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - the name of a grant


class HasToken(Protocol):
    """What has a token of its own, as `RefreshAuth` has."""

    async def token(self) -> Token:
        """Return a good token."""
        ...


Secret: TypeAlias = str | Token | HasToken | Callable[[], "str | Token | Awaitable[str | Token]"]
"""A token as text; or, where it is read again for each request: another `RefreshAuth`, or a callable, async or not.

A callable that is not async is called in a thread of the library, where it may read a file.
"""

Words: TypeAlias = str | Iterable[str]
"""One text, or several."""

Params: TypeAlias = Mapping[str, str]

Claims: TypeAlias = Mapping[str, Any] | None
"""What an API asks that a token holds; None: nothing."""

_Pairs = list[tuple[str, str]]


class EndpointSource:
    """What sources around an endpoint have in common: what the endpoint declares, and one token request.

    Nothing of it changes. A subclass says in `_ask` what is asked.
    """

    def __init__(
        self,
        endpoint: TokenEndpoint,
        *,
        grant: str,
        purpose: str,
        ends_previous: bool | None = None,
    ) -> None:
        if ends_previous is None:
            ends_previous = grant in endpoint.exclusive_grants
        if not isinstance(ends_previous, bool):
            raise TypeError("ends_previous must be True or False, or None")
        self.endpoint = endpoint
        self.name: str = endpoint.name
        self.authorization_scheme: str = endpoint.authorization_scheme
        self.refresh_not_before_expiry: float | None = endpoint.refresh_not_before_expiry
        self.origins: tuple[str, ...] | str | None = endpoint.origins
        self.allow_http: bool = endpoint.allow_http
        self.is_expired: ExpiryRule | Callable[[Any], bool] | None = endpoint.is_expired
        self.purpose: str = purpose
        self.repeatable: bool = True
        self.takes_claims: bool = True
        self.ends_previous: bool = ends_previous

    @property
    def client_fingerprint(self) -> str:
        """Tell the client's credentials apart, see `TokenEndpoint`."""
        return self.endpoint.client_fingerprint

    @property
    def one_loop(self) -> str | None:
        """How to pass a client that serves every event loop, see `TokenEndpoint`."""
        return self.endpoint.one_loop

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.endpoint!r})"

    @frameless
    async def obtain(self, held: Token | None, /, *, claims: Claims = None) -> Token:
        """Ask for a token, and return what the server answered.

        One request; who calls decides about another.

        Args:
            held: the token that will not do any more; it does not matter here.
            claims: what an API asks that the token holds (OpenID Connect Core §5.5).

        Raises:
            StepUpRequired: the server gives no token with these claims.
            RefreshUnavailable: there is none now; its `outcome` tells what became of the request.
            ReauthorizationRequired: nobody has agreed to what is asked for yet.
        """
        came = (await self._ask(claims)).came
        if isinstance(came, Token):
            return came
        raise came

    async def _ask(self, claims: Claims) -> Granted:
        raise NotImplementedError

    @frameless
    async def revoke(self, token: Token) -> None:
        """Revoke a token (RFC 7009).

        Raises:
            RevocationFailed: the server did not confirm it.
            ValueError: there is no `revocation_endpoint`.
        """
        await self.endpoint.revoke(token)


class ClientCredentials(EndpointSource):
    """Get tokens for the client itself (RFC 6749 §4.4): for a service that acts for nobody else.

    A refresh token in an answer is left out, as there should be none (§4.4.3).

    Args:
        endpoint: asks; it has a secret, or what else the client authenticates with.
        scope: what the token may do: words with blanks between, or several texts.
        audience: whom the token is for, at servers that want that told, such as Auth0.
        resource: the API that the token is for, an absolute URI, or several (RFC 8707 §2).
        params: further parameters; their values count as secrets.
        ends_previous: whether each new token ends the last one; then all processes must share a store. None: as the
            provider is known to do.

    Raises:
        TypeError, ValueError: an argument is invalid.
    """

    @frameless
    def __init__(
        self,
        endpoint: TokenEndpoint,
        *,
        scope: Words | None = None,
        audience: str | None = None,
        resource: Words | None = None,
        params: Params | None = None,
        ends_previous: bool | None = None,
    ) -> None:
        _check_endpoint(endpoint)
        if endpoint.is_public:
            raise ValueError(
                "client credentials are for clients that authenticate (RFC 6749 §4.4): give the endpoint a "
                "client_secret, or a key"
            )
        asked = _Asked(scope, audience, resource, params)
        self._form: _Pairs = asked.form
        self._secrets = asked.secrets
        super().__init__(
            endpoint,
            grant=_CLIENT_CREDENTIALS,
            purpose=asked.purpose(_CLIENT_CREDENTIALS, endpoint, endpoint.client_id),
            ends_previous=ends_previous,
        )

    async def _ask(self, claims: Claims) -> Granted:
        return await self.endpoint.granted(
            _CLIENT_CREDENTIALS, self._form, secrets=self._secrets, claims=claims
        )


# What the library says in an assertion by itself (RFC 7523 §3).
_OWN_CLAIMS = frozenset({"aud", "exp", "iat", "iss", "jti", "sub"})


class JWTBearer(EndpointSource):
    """Get tokens for a signed assertion (RFC 7523 §2.1): of a service account, of an app, of a user it acts for.

    Each request carries an assertion of its own, with a fresh `jti`, `iat` and `exp`, signed in a thread of the
    library's. Where the server refuses it, and its `Date` says that the clocks differ, it is asked once more by the
    server's clock, as are the requests after that.

    What an argument does not say is as the endpoint's provider is known to want it, see `BearerAssertion`, or else as
    RFC 7523 has it.

    Args:
        endpoint: asks. Its client id may be left out: the assertion says who asks.
        key: the private key: PEM text or bytes, a JWK, the JSON of a Google service account's key, a path, or a
            callable; files and callables are read before each use. None where `assertion` is given.
        issuer: who makes the assertion (`iss`); None: the endpoint's client.
        subject: whom the token is for (`sub`); None: the issuer.
        audience: whom the assertion is for (`aud`); None: the token endpoint.
        scope: what the token may do: words with blanks between, or several texts.
        scope_as: whether the scope is a parameter of the request, or a claim of the assertion; None: a parameter.
        algorithm: how the key signs.
        key_id: the key's `kid`.
        password: of an encrypted key.
        lifetime: seconds for which an assertion is good; None: 60.
        issued_before: seconds by which `iat` is set back, for servers whose clock is behind.
        claims: further claims.
        assertion: instead of a key: what returns an assertion, or a token, that others have signed, see `Secret`.
            It is read again for each request (Entra's on-behalf-of flow).
        params: further parameters of the request; their values count as secrets.
        ends_previous: whether each new token ends the last one; then all processes must share a store. None: as the
            provider is known to do.

    Raises:
        TypeError, ValueError: an argument is invalid, or no key of the algorithm's kind.
    """

    @frameless
    def __init__(
        self,
        endpoint: TokenEndpoint,
        key: KeySource | None = None,
        *,
        issuer: str | None = None,
        subject: str | None = None,
        audience: str | None = None,
        scope: Words | None = None,
        scope_as: Literal["parameter", "claim"] | None = None,
        algorithm: Algorithm = "RS256",
        key_id: str | None = None,
        password: Text | None = None,
        lifetime: float | None = None,
        issued_before: float = 0,
        claims: Mapping[str, Any] | None = None,
        assertion: Secret | None = None,
        params: Params | None = None,
        ends_previous: bool | None = None,
    ) -> None:
        _check_endpoint(endpoint)
        _check_secret(assertion, "assertion")
        if (key is None) == (assertion is None):
            raise ValueError("give either a key to sign assertions with, or assertion=")
        if scope_as not in (None, "parameter", "claim"):
            raise ValueError("scope_as must be 'parameter' or 'claim', or None")
        own: Mapping[str, Any] = {} if claims is None else claims
        if not isinstance(own, Mapping):
            raise TypeError("claims must be a mapping, or None")
        for name in own:
            if name in _OWN_CLAIMS:
                raise ValueError(f"claims must not hold {name!r}: the assertion says it by itself")
        for name, value in (("issuer", issuer), ("subject", subject), ("audience", audience)):
            if value is not None:
                _text(value, name)
        asked = _Asked(scope, None, None, params)
        known = endpoint.jwt_bearer
        self._lifetime = checked.seconds(
            "lifetime", known.get("lifetime", 60.0) if lifetime is None else lifetime
        )
        self._issued_before = checked.seconds("issued_before", issued_before)
        if not self._lifetime:
            raise ValueError("lifetime must be more than 0 seconds")
        self._form: _Pairs = asked.form
        self._secrets = asked.secrets
        self._key: SigningKey | None = None
        self._assertion = assertion
        self._claims: dict[str, Any] = {}
        if key is not None:
            issuer = issuer or endpoint.client_id
            if issuer is None:
                raise ValueError("issuer is missing: who makes the assertion (RFC 7523 §3, iss)")
            self._key = SigningKey(key, algorithm=algorithm, key_id=key_id, password=password)
            self._claims = {
                **own,
                "iss": issuer,
                "aud": audience or known.get("audience", endpoint.url),
            }
            if subject is not None or known.get("issuer_is_subject", True):
                self._claims["sub"] = subject or issuer
            if (scope_as or known.get("scope_as")) == "claim" and scope is not None:
                self._form = [pair for pair in asked.form if pair[0] != "scope"]
                self._claims["scope"] = dict(asked.form)["scope"]
        elif issuer or subject or audience or claims or key_id or scope_as == "claim":
            raise ValueError(
                "assertion= comes with all its claims: issuer, subject, audience, claims, key_id, scope_as "
                "are for a key"
            )
        super().__init__(
            endpoint,
            grant=_JWT_BEARER,
            purpose=asked.purpose(
                "jwt-bearer", endpoint, endpoint.client_id or issuer, subject=subject or ""
            ),
            ends_previous=ends_previous,
        )

    @property
    def client_fingerprint(self) -> str:
        """Tell the client's credentials and the key apart: 8 hex digits."""
        key = None if self._key is None else self._key.thumbprint
        parts = f"{self.endpoint.client_fingerprint} {self._claims.get('iss')} {key}"
        return hashlib.sha256(parts.encode("utf-8", "replace")).hexdigest()[:8]

    async def _ask(self, claims: Claims) -> Granted:
        clock = self.endpoint.clock
        used = clock.ahead
        granted, ahead = await self._ask_once(used, claims)
        if ahead is None:
            return granted
        return await clock.agree(granted, used, ahead, lambda ahead: self._ask_once(ahead, claims))

    async def _ask_once(self, ahead: float, claims: Claims) -> Heard[Granted]:
        try:
            assertion = (
                await _read(self._assertion, "assertion")
                if self._key is None
                else await self._signed(self._key, time.time() + ahead)
            )
        except RefreshUnavailable as error:
            return Granted(error), None
        form = [("assertion", assertion), *self._form]
        granted = await self.endpoint.granted(
            _JWT_BEARER, form, secrets=[assertion, *self._secrets], claims=claims
        )
        return granted, granted.ahead if granted.refused and self._key is not None else None

    async def _signed(self, key: SigningKey, now: float) -> str:
        # Of its own for each request: servers refuse a `jti` that they have seen.
        claims = {
            **self._claims,
            "jti": secrets.token_urlsafe(16),
            "iat": int(now - self._issued_before),
            "exp": int(now + self._lifetime),
        }
        return await key.sign(claims)


class TokenExchange(EndpointSource):
    """Exchange a token for another (RFC 8693): a workload's identity, a session's token, the token of a caller.

    A refresh token that comes with it (§2.2.1) is used from then on, with all the rules of rotation; only when that is
    refused for good the exchange is made again.

    Args:
        endpoint: asks.
        subject_token: the token of the party that the new one is for, see `Secret`. None: this process cannot begin,
            since it has none; it refreshes what another one has begun, and needs a store for that.
        subject_token_type: its kind, one of the names of this module, or another URI.
        actor_token: the token of the party that acts for the other one.
        actor_token_type: its kind.
        requested_token_type: the kind that is asked for; None: the server decides.
        scope: what the token may do: words with blanks between, or several texts.
        audience: whom the token is for, or several.
        resource: the API that the token is for, an absolute URI, or several (RFC 8707 §2).
        params: further parameters; their values count as secrets.
        ends_previous: whether each new token ends the last one; then all processes must share a store. None: as the
            provider is known to do.

    Raises:
        TypeError, ValueError: an argument is invalid.
    """

    @frameless
    def __init__(
        self,
        endpoint: TokenEndpoint,
        subject_token: Secret | None,
        *,
        subject_token_type: str = ACCESS_TOKEN,
        actor_token: Secret | None = None,
        actor_token_type: str | None = None,
        requested_token_type: str | None = None,
        scope: Words | None = None,
        audience: Words | None = None,
        resource: Words | None = None,
        params: Params | None = None,
        ends_previous: bool | None = None,
    ) -> None:
        _check_endpoint(endpoint)
        _check_secret(subject_token, "subject_token")
        _check_secret(actor_token, "actor_token")
        if (actor_token is None) != (actor_token_type is None):
            raise ValueError(
                "actor_token and actor_token_type go together (RFC 8693 §2.1): give both, or neither"
            )
        kinds = [("subject_token_type", _text(subject_token_type, "subject_token_type"))]
        for name, kind in (
            ("actor_token_type", actor_token_type),
            ("requested_token_type", requested_token_type),
        ):
            if kind is not None:
                kinds.append((name, _text(kind, name)))
        asked = _Asked(scope, audience, resource, params)
        self._subject = subject_token
        self._actor = actor_token
        self._form: _Pairs = [*kinds, *asked.form]
        self._secrets = asked.secrets
        self.starts: bool = subject_token is not None
        self.reuse_grace = endpoint.reuse_grace
        super().__init__(
            endpoint,
            grant=_TOKEN_EXCHANGE,
            purpose=asked.purpose("token-exchange", endpoint, endpoint.client_id, **dict(kinds)),
            ends_previous=ends_previous,
        )

    @frameless
    async def refresh(self, token: Token, /, *, claims: Claims = None) -> Token:
        """Spend `token.refresh_token`, see `TokenEndpoint.refresh`."""
        return await self.endpoint.refresh(token, claims=claims)

    async def _ask(self, claims: Claims) -> Granted:
        try:
            form = [("subject_token", await _read(self._subject, "subject_token"))]
            if self._actor is not None:
                form.append(("actor_token", await _read(self._actor, "actor_token")))
        except RefreshUnavailable as error:
            return Granted(error)
        secrets = [*(value for _, value in form), *self._secrets]
        return await self.endpoint.granted(
            _TOKEN_EXCHANGE, [*form, *self._form], secrets=secrets, claims=claims
        )


class Grant(EndpointSource):
    """Get tokens with a grant of a vendor's own (RFC 6749 §4.5), such as Zoom's `account_credentials`.

    Args:
        endpoint: asks.
        grant_type: the grant's name, a word or a URI.
        params: its parameters; or a callable, async or not, that returns them and is called for each request. Their
            values count as secrets. One that is not async is called in a thread of the library, and may read a file.
        subject: whom or what the tokens are for, where a parameter says so, such as an account's id: it goes into what
            the stored text says of itself, and a token for another one is not adopted.
        repeatable: whether asking again is safe when an answer may have been lost.
        ends_previous: whether each new token ends the last one; then all processes must share a store. None: as the
            provider is known to do.

    Raises:
        TypeError, ValueError: an argument is invalid.
    """

    @frameless
    def __init__(
        self,
        endpoint: TokenEndpoint,
        grant_type: str,
        params: Params | Callable[[], Params | Awaitable[Params]] | None = None,
        *,
        subject: str | None = None,
        repeatable: bool = True,
        ends_previous: bool | None = None,
    ) -> None:
        _check_endpoint(endpoint)
        if not isinstance(repeatable, bool):
            raise TypeError("repeatable must be True or False")
        self._grant_type = _text(grant_type, "grant_type")
        if grant_type == "refresh_token":
            raise ValueError(
                "the grant 'refresh_token' needs no source of its own: TokenEndpoint is one"
            )
        asked: dict[str, str] = {}
        if callable(params):
            self._params: Any = params
        else:
            self._params = asked = checked.params(params)
        if subject is not None:
            _text(subject, "subject")
        super().__init__(
            endpoint,
            grant=grant_type,
            purpose=purpose_of(
                grant_type,
                endpoint.url,
                endpoint.client_id,
                subject=subject,
                **{name: asked.get(name) for name in ("scope", "audience", "resource")},
            ),
            ends_previous=ends_previous,
        )
        self.repeatable = repeatable

    async def _ask(self, claims: Claims) -> Granted:
        params = self._params
        if callable(params):
            try:
                params = _checked_params(await _called(params))
            except Exception as error:
                return Granted(_not_sent(error, "params"))
        return await self.endpoint.granted(
            self._grant_type, list(params.items()), secrets=params.values(), claims=claims
        )


# -- what is asked for -------------------------------------------------------------------------------------------------


class _Asked:
    """What a token should be good for, checked: as parameters, and as words for its purpose."""

    def __init__(
        self,
        scope: Words | None,
        audience: Words | None,
        resource: Words | None,
        params: Params | None,
    ) -> None:
        more = checked.params(params)
        self._audience = _several(audience, "audience")
        self._resource = _several(resource, "resource")
        self._scope = " ".join(" ".join(_several(scope, "scope")).split())
        for one in self._resource:
            scheme, colon, rest = one.partition(":")
            if not (colon and rest and scheme.isascii() and scheme[:1].isalpha()) or "#" in one:
                raise ValueError(
                    "resource must be an absolute URI without a fragment (RFC 8707 §2)"
                )
        self.form: _Pairs = [("audience", one) for one in self._audience]
        self.form += [("resource", one) for one in self._resource]
        if self._scope:
            self.form.append(("scope", self._scope))
        for name, _ in self.form:
            if name in more:
                raise ValueError(f"params must not hold {name!r}: it is an argument of its own")
        self._more = more
        self.form += more.items()
        self.secrets = tuple(more.values())

    def purpose(
        self, grant: str, endpoint: TokenEndpoint, client_id: str | None, **kinds: str
    ) -> str:
        """Say what the tokens are for."""
        more = {**endpoint.login.resource_params(), **endpoint.params, **self._more}
        named = {
            "scope": self._scope or more.get("scope"),
            "audience": " ".join(sorted(self._audience)) or more.get("audience"),
            "resource": " ".join(sorted(self._resource)) or more.get("resource"),
        }
        return purpose_of(grant, endpoint.url, client_id, **named, **kinds)


def _check_endpoint(endpoint: object) -> None:
    if not isinstance(endpoint, TokenEndpoint):
        raise TypeError(
            "endpoint must be a TokenEndpoint, for instance a preset of httpx_refresh.providers"
        )


def _text(value: str, name: str) -> str:
    """Return a text that says something."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str")
    if not value.strip():
        raise ValueError(f"{name} must not be empty; leave it out (None) instead")
    if not checked.is_sendable(value):
        raise ValueError(f"{name} must be text that can be encoded as UTF-8")
    return value


def _several(value: Words | None, name: str) -> list[str]:
    """Return the texts of an argument that may be one or several."""
    if value is None:
        return []
    if not isinstance(value, (str, Iterable)):
        raise TypeError(f"{name} must be a str, or several")
    texts = [value] if isinstance(value, str) else list(value)
    if not texts:
        raise ValueError(f"{name} must not be empty; leave it out (None) instead")
    return [_text(one, name) for one in texts]


# -- what is read again for each request -------------------------------------------------------------------------------


def _check_secret(value: object, name: str) -> None:
    if value is None or isinstance(value, Token) or callable(getattr(value, "token", None)):
        return
    if isinstance(value, str):
        _text(value, name)
    elif isinstance(value, type) or not callable(value):
        raise TypeError(
            f"{name} must be a str, a Token, a RefreshAuth, or a callable that returns a token"
        )


async def _called(function: Callable[[], Any]) -> Any:
    """Call what the application gave; in a thread, unless it says that it is async."""
    if inspect.iscoroutinefunction(function):
        return await function()
    value = await run_blocking(function, group=function)
    return await value if inspect.isawaitable(value) else value


async def _read(source: Secret | None, name: str) -> str:
    """Return a token as it is now.

    Raises:
        RefreshUnavailable: there is none; the message names the argument.
    """
    value: object = source
    try:
        if not isinstance(source, (str, Token)):
            read = getattr(source, "token", source)
            value = await _called(cast("Callable[[], Any]", read))
        if isinstance(value, Token):
            value = value.access_token
        if not isinstance(value, str):
            raise _Unusable(f"it is {type(value).__name__}, and must be a str or a Token")
        value = value.strip()  # Files end with a line end.
        if not value:
            raise _Unusable("it is empty")
        if not checked.is_sendable(value):
            raise _Unusable("it is not text that can be encoded as UTF-8")
        return value
    except Exception as error:
        failure = _not_sent(error, name)
    del value
    raise failure


def _checked_params(value: object) -> dict[str, str]:
    """Return the parameters that a callable returned."""
    if not isinstance(value, Mapping):
        raise _Unusable(f"it is {type(value).__name__}, and must be a mapping of str to str")
    try:
        return checked.params(cast("Params", value))
    except (TypeError, ValueError) as error:  # It names a parameter, and shows no value.
        raise _Unusable(str(error)) from None


class _Unusable(ValueError):
    """What was read is of no use; the text shows nothing of it."""


def _not_sent(error: Exception, name: str) -> RefreshUnavailable:
    """Return what to raise where an argument that is read again brought nothing."""
    if isinstance(error, (_Unusable, RefreshAuthError)):
        why = str(error)  # Neither shows a secret.
    elif isinstance(error, OSError) and error.strerror:
        why = f"{type(error).__name__}: {error.strerror}"
    else:
        why = type(error).__name__
    return RefreshUnavailable(
        f"The token endpoint was not asked, because {name} could not be had: {why.rstrip('.')}. Check the argument "
        f"{name}; it is read again at the next try.",
        outcome="not_sent",
        transient=isinstance(error, RefreshUnavailable) and error.transient,
        retry_after=error.retry_after if isinstance(error, RefreshUnavailable) else None,
        caused_by=None if isinstance(error, (_Unusable, RefreshAuthError)) else cause_of(error),
    )
