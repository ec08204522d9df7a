"""How a person logs in: the authorization request, what the browser brings back, the code for a token (RFC 6749 §4.1).

Decisions on plain values. Who asks the server is a function that is passed in.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from .._errors import LoginFailed, RefreshUnavailable
from .._token import Token
from .answer import Answer, meaning
from .login_settings import LoginSettings
from .redaction import redacted

FORM = "application/x-www-form-urlencoded"


class Post(Protocol):
    """Ask an endpoint of the server as the client, authenticated; raises `RefreshUnavailable`."""

    def __call__(
        self, body: str, *, url: str | None = None, content_type: str = FORM
    ) -> Awaitable[Answer]: ...


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
    # Imported here: whoever imports the library need not wait for it.
    from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
    from authlib.oauth2.rfc7636 import create_s256_code_challenge

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
        asked["code_challenge"] = create_s256_code_challenge(verifier)  # type: ignore[no-untyped-call]  # Authlib does not type it
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
    iss = fields.get("iss")
    if (
        iss is not None or error is None
    ):  # Some leave it out of an error, which redeems nothing anyway.
        _check_issuer(settings, iss, name)
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
    return fields["code"], {key: fields[key] for key in settings.redirect_fields if fields.get(key)}


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


def code_form(code: str, request: AuthorizationRequest) -> dict[str, str]:
    """Return the parameters that redeem a code (RFC 6749 §4.1.3, RFC 7636 §4.5)."""
    form = {"code": code, "redirect_uri": request.redirect_uri}
    if request.code_verifier is not None:
        form["code_verifier"] = request.code_verifier
    return form


async def redeem(
    post: Post, grant_type: str, form: Mapping[str, str], *, name: str, hidden: str
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
    from authlib.oauth2.rfc6749.parameters import prepare_token_request

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
