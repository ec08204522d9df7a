"""How a person logs in: the authorization request, what the browser brings back, the code for a token (RFC 6749 §4.1).

Decisions on plain values. Who asks the server is a function that is passed in.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict
from urllib.parse import parse_qsl, urlsplit

import httpx
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from ._answer import Answer, meaning
from ._errors import LoginFailed, RefreshUnavailable
from ._origins import is_loopback
from ._redacted import redacted
from ._token import Token

if TYPE_CHECKING:
    from typing_extensions import NotRequired

FORM = "application/x-www-form-urlencoded"


class Post(Protocol):
    """Ask an endpoint of the server as the client, authenticated; raises `RefreshUnavailable`."""

    def __call__(
        self, body: str, *, url: str | None = None, content_type: str = FORM
    ) -> Awaitable[Answer]: ...


class LoginOptions(TypedDict):
    """The keyword arguments that `LoginSettings` takes."""

    authorization_endpoint: NotRequired[str | None]
    device_authorization_endpoint: NotRequired[str | None]
    revocation_endpoint: NotRequired[str | None]
    issuer: NotRequired[str | None]
    scope: NotRequired[str]
    offline_scope: NotRequired[str]
    authorization_params: NotRequired[Mapping[str, str]]
    redirect_fields: NotRequired[tuple[str, ...]]
    pkce: NotRequired[bool]
    code_challenge_methods: NotRequired[tuple[str, ...] | None]
    sends_iss: NotRequired[bool]
    revocation_format: NotRequired[Literal["form", "json"]]
    refresh_token_lifetime: NotRequired[float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginSettings:
    """What a server has besides its token endpoint: where people log in, and where a token is given back.

    Args:
        authorization_endpoint: where the browser is sent (RFC 6749 §3.1).
        device_authorization_endpoint: where a device asks for a code to show (RFC 8628 §3.1).
        revocation_endpoint: where a token is given back (RFC 7009); `{instance_url}` in it stands for that field of
            the token.
        issuer: the server's identifier (RFC 8414 §2); an `iss` in a redirect is compared with it (RFC 9207).
        scope: what a login asks for if it is not told.
        offline_scope: added to every scope that lacks it, for without it there is no refresh token.
        authorization_params: further parameters of the authorization request.
        redirect_fields: parameters of the redirect that are kept with the token.
        pkce: whether a login is protected by PKCE, S256 (RFC 7636). False only for a server that does not know it.
        code_challenge_methods: what the server says that it knows of PKCE; None if it is not known to say.
        sends_iss: whether every redirect must name the issuer (RFC 9207).
        revocation_format: how the revocation endpoint is asked: like a form, as RFC 7009 has it, or in JSON.
        refresh_token_lifetime: seconds after which a refresh token that was not used is no longer good.

    Raises:
        ValueError: an endpoint that is no https URL (http to loopback excepted).
    """

    authorization_endpoint: str | None = None
    device_authorization_endpoint: str | None = None
    revocation_endpoint: str | None = None
    issuer: str | None = None
    scope: str = ""
    offline_scope: str = ""
    authorization_params: Mapping[str, str] = field(default_factory=dict)
    redirect_fields: tuple[str, ...] = ()
    pkce: bool = True
    code_challenge_methods: tuple[str, ...] | None = None
    sends_iss: bool = False
    revocation_format: Literal["form", "json"] = "form"
    refresh_token_lifetime: float | None = None

    def __post_init__(self) -> None:
        for name in (
            "authorization_endpoint",
            "device_authorization_endpoint",
            "revocation_endpoint",
        ):
            url = getattr(self, name)
            if url is not None and not url.startswith("{instance_url}/"):
                checked_url(url, name)

    def scope_of(self, scope: str | None) -> str:
        """Return the scope that a login asks for."""
        asked = (self.scope if scope is None else scope).split()
        return " ".join(dict.fromkeys([*asked, *self.offline_scope.split()]))


def checked_url(url: str, name: str) -> str:
    """Return `url` if secrets may go there; raise ValueError or TypeError, which call it `name`, if not."""
    if not isinstance(url, str):
        raise TypeError(f"{name} must be a str")
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{name} is no URL: {error}") from None
    if parsed.scheme != "https" and not (parsed.scheme == "http" and is_loopback(parsed.host)):
        raise ValueError(
            f"{name} must be https (RFC 6749 §3.1 and §3.2; http to loopback excepted): secrets go there"
        )
    if not parsed.host or parsed.userinfo or parsed.fragment:
        raise ValueError(f"{name} must name a host, and have no user information and no fragment")
    return url


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """One login that was begun: send the browser to `url`, keep the rest until it comes back.

    Whoever sees `code_verifier` and the redirect can redeem the code: keep it on the server, or in an encrypted
    session, and bind `state` to the browser. Its repr shows neither.
    """

    url: str = field(repr=False)
    redirect_uri: str
    state: str = field(repr=False)
    code_verifier: str | None = field(repr=False)


def authorization_request(
    settings: LoginSettings,
    *,
    name: str,
    client_id: str,
    is_public: bool,
    redirect_uri: str,
    scope: str | None,
    params: Mapping[str, str],
) -> AuthorizationRequest:
    """Begin a login: RFC 6749 §4.1.1, RFC 7636 §4.3."""
    if settings.authorization_endpoint is None:
        raise ValueError(f"no authorization_endpoint is known for {name}: give one")
    if urlsplit(redirect_uri).fragment or not urlsplit(redirect_uri).scheme:
        raise ValueError("redirect_uri must be absolute, without a fragment (RFC 6749 §3.1.2)")
    state, verifier = secrets.token_urlsafe(24), None
    asked = {**settings.authorization_params, **params}
    if settings.pkce:
        if (
            settings.code_challenge_methods is not None
            and "S256" not in settings.code_challenge_methods
        ):
            raise LoginFailed(
                f"{name} does not support PKCE with S256, as its own metadata says: a code that is intercepted could "
                "be redeemed by others (RFC 9700 §2.1.1). No login was begun. If its word is out of date, or the risk "
                "is yours to take, pass pkce=False (--no-pkce); that needs a client secret."
            )
        verifier = secrets.token_urlsafe(48)
        asked["code_challenge"] = create_s256_code_challenge(verifier)
        asked["code_challenge_method"] = "S256"
    elif is_public:
        raise ValueError("a client without a secret must use PKCE (RFC 9700 §2.1.1): pkce=True")
    url = prepare_grant_uri(
        settings.authorization_endpoint,
        client_id,
        "code",
        redirect_uri,
        settings.scope_of(scope) or None,
        state,
        **asked,
    )
    return AuthorizationRequest(url, redirect_uri, state, verifier)


def _fields_of(redirect: str | Mapping[str, str]) -> dict[str, str]:
    if not isinstance(redirect, str):
        return dict(redirect)
    text = redirect.strip()
    query = urlsplit(text).query if "?" in text else text
    pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=100)
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise LoginFailed(
            "The redirect names a parameter twice, which RFC 6749 §3.1 forbids. Nothing was redeemed."
        )
    return fields


def code_of(
    settings: LoginSettings,
    request: AuthorizationRequest,
    redirect: str | Mapping[str, str],
    *,
    name: str,
) -> tuple[str, dict[str, str]]:
    """Return the code that the browser brought back, and what else is to be kept of the redirect.

    Raises:
        LoginFailed: the redirect is not the answer to this request, or the answer is no.
    """
    fields = _fields_of(redirect)
    state, error = fields.get("state"), fields.get("error")
    if (state is not None or error is None) and not secrets.compare_digest(
        (state or "").encode(), request.state.encode()
    ):
        raise LoginFailed(
            "The redirect is not the answer to this login: its state is "
            + ("missing" if state is None else "another one")
            + ". It may belong to an earlier login, or somebody tried to slip in theirs (RFC 9700 §4.7). Nothing was "
            "redeemed. Start the login again."
        )
    _check_issuer(settings, fields.get("iss"), name)
    if error is not None:
        own = (request.state, request.code_verifier or "", fields.get("code", ""))
        error = redacted(error, own, 64)
        description = redacted(fields.get("error_description"), own, 300)
        said = f"{error}: {description}" if description else f"{error}"
        raise LoginFailed(
            f"The login at {name} was denied ({said}). Nothing has changed."
            if error == "access_denied"
            else f"{name} turned the login down ({said}). Check the client id, the redirect URI and the scope.",
            error=error,
            error_description=description,
        )
    if not fields.get("code"):
        raise LoginFailed(
            f"The redirect from {name} brings no authorization code. Start the login again."
        )
    return fields["code"], {
        key: fields[key] for key in settings.redirect_fields if fields.get(key)
    }


def _check_issuer(settings: LoginSettings, iss: str | None, name: str) -> None:
    """Compare the issuer in the redirect with the one that was asked (RFC 9207 §2.4)."""
    if iss is None:
        if settings.sends_iss:
            raise LoginFailed(
                f"The redirect does not name its issuer, which {name} promises to do (RFC 9207). It may come from "
                "another server; nothing was redeemed."
            )
    elif settings.issuer is not None and iss != settings.issuer:
        raise LoginFailed(
            f"The redirect names another issuer than {settings.issuer} (RFC 9207): another server sent it, and its "
            "code was not shown to this one. Nothing was redeemed."
        )


async def redeem(
    post: Post, grant_type: str, form: Mapping[str, str | None], *, name: str, hidden: str
) -> Token:
    """Ask the token endpoint for a first token.

    Args:
        post: asks the token endpoint.
        grant_type: of the request (RFC 6749 §4.1.3, RFC 8628 §3.4).
        form: its other parameters; each of them is a secret.
        name: what messages call the provider.
        hidden: the client's secret, for the same reason.

    Raises:
        LoginFailed: there is no token; `error` is the server's code.
    """
    try:
        answer = await post(prepare_token_request(grant_type, **form))
    except RefreshUnavailable as error:
        raise LoginFailed(
            f"{name}'s token endpoint "
            + ("could not be reached" if error.outcome == "not_sent" else "gave no answer")
            + ". Start the login again later.",
            transient=True,
        ) from error.__cause__
    means = meaning(answer, now=time.time())
    if means.token is not None:
        return means.token
    own = [value for value in (*form.values(), hidden) if value]
    error_code = redacted(means.error, own, 64)
    description = redacted(means.error_description, own, 300)
    said = f"status {answer.status}" + (f", {error_code}" if error_code else "")
    said += f": {description}" if description else ""
    why = {
        "dead": "refused the code ({said}). It is good once, for a short time, and only with the "
        "redirect URI and the verifier it was asked with. Start the login again.",
        "refused": "refused this client ({said}). Check the client id, the client secret, how the client "
        "authenticates (token_endpoint_auth_method) and the redirect URI; then start the login again.",
        "busy": "is busy ({said}). Start the login again later.",
        "unknown": "answered without a token ({said}). Start the login again.",
    }[means.kind]
    raise LoginFailed(
        f"{name}'s token endpoint " + why.format(said=said),
        error=error_code,
        error_description=description,
        transient=means.kind == "busy",
    )


def with_fields(token: Token, fields: Mapping[str, Any]) -> Token:
    """Return the token with what the redirect brought beside its code."""
    return replace(token, extra={**token.extra, **fields}) if fields else token
