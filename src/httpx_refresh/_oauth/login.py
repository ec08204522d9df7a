"""How a person logs in: the authorization request, what the browser brings back, the code for a token (RFC 6749 §4.1).

It knows no store: what becomes of the first token is the caller's.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from .._challenges import claims_of
from .._errors import LoginFailed
from .._token import Token
from .answer import NoAnswer, Rules, meaning, words
from .client import Client
from .settings import LoginSettings, is_sendable, with_claims

_MOST_FIELDS = 100  # parameters of a redirect; an answer to a login has five or six


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """One login that was begun: send the browser to `url`, keep the rest until it comes back.

    Anybody who sees `code_verifier` and the redirect can redeem the code: keep it on the server, or in an encrypted
    session, and bind `state` to the browser. Its repr shows neither.
    """

    url: str = field(repr=False)
    redirect_uri: str
    state: str = field(repr=False)
    code_verifier: str | None = field(repr=False)


def authorization_request(
    client: Client,
    settings: LoginSettings,
    *,
    redirect_uri: str,
    scope: str | None,
    params: Mapping[str, str],
) -> AuthorizationRequest:
    """Begin a login: RFC 6749 §4.1.1, RFC 7636 §4.3."""
    # Imported here: importing the library stays fast.
    from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
    from authlib.oauth2.rfc7636 import create_s256_code_challenge

    if settings.authorization_endpoint is None:
        raise ValueError(f"no authorization_endpoint is known for {client.name}: give one")
    if client.client_id is None:
        raise ValueError(f"a login at {client.name} needs a client_id")
    if urlsplit(redirect_uri).fragment or not urlsplit(redirect_uri).scheme:
        raise ValueError("redirect_uri must be absolute, without a fragment (RFC 6749 §3.1.2)")
    state, verifier = secrets.token_urlsafe(24), None
    asked = {**settings.resource_params(), **settings.authorization_params, **params}
    wanted = claims_of(params.get("claims"))
    if wanted is not None:
        asked["claims"] = with_claims(settings.authorization_params, wanted)["claims"]
    if settings.pkce:
        if (
            settings.code_challenge_methods is not None
            and "S256" not in settings.code_challenge_methods
        ):
            raise LoginFailed(
                f"{client.name} does not support PKCE with S256, as its own metadata says: a code that is intercepted "
                "could be redeemed by others (RFC 9700 §2.1.1). No login was begun. If its word is out of date, or the "
                "risk is yours to take, pass pkce=False (--no-pkce); that needs a client secret."
            )
        verifier = secrets.token_urlsafe(48)
        asked["code_challenge"] = create_s256_code_challenge(verifier)  # type: ignore[no-untyped-call]  # Authlib does not type it
        asked["code_challenge_method"] = "S256"
    elif client.is_public:
        raise ValueError("a client without a secret must use PKCE (RFC 9700 §2.1.1): pkce=True")
    url = prepare_grant_uri(
        settings.authorization_endpoint,
        client.client_id,
        "code",
        redirect_uri,
        settings.scope_of(scope) or None,
        state,
        **asked,
    )
    return AuthorizationRequest(url, redirect_uri, state, verifier)


def _fields_of(redirect: str | Mapping[str, str]) -> dict[str, str]:
    pairs = _pairs_of_text(redirect) if isinstance(redirect, str) else _pairs_of(redirect)
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise LoginFailed(
            "The redirect names a parameter twice, which RFC 6749 §3.1 forbids. Nothing was redeemed."
        )
    return fields


def _pairs_of(redirect: Mapping[str, str]) -> list[tuple[str, str]]:
    # Not `dict(redirect)`: of mappings in which a name stands several times (Django's, Werkzeug's) that has lists.
    several = getattr(redirect, "getlist", None)
    pairs = [
        (name, text)
        for name in redirect
        for text in (several(name) if several else [redirect[name]])
    ]
    if not all(isinstance(text, str) for _, text in pairs):
        raise TypeError(
            "redirect must be the URL that the browser was sent to, or a mapping of its query parameters to str"
        )
    return pairs


def _pairs_of_text(redirect: str) -> list[tuple[str, str]]:
    text = redirect.strip()
    # Not urlsplit: it raises at half an IPv6 address, and what stands before the query does not matter.
    _, mark, query = text.partition("?")
    try:
        return parse_qsl(
            query.partition("#")[0] if mark else text,
            keep_blank_values=True,
            max_num_fields=_MOST_FIELDS,
        )
    except ValueError:
        raise LoginFailed(
            f"The redirect has more than {_MOST_FIELDS} parameters, which no answer to a login has. Nothing was "
            "redeemed."
        ) from None


def _bytes(text: str | None) -> bytes:
    return (text or "").encode("utf-8", "surrogatepass")


def code_of(
    client: Client,
    settings: LoginSettings,
    request: AuthorizationRequest,
    redirect: str | Mapping[str, str],
) -> tuple[str, dict[str, str]]:
    """Return the code that the browser brought back, and what else of the redirect is kept.

    Raises:
        LoginFailed: the redirect is not the answer to this request, or the answer is no.
    """
    name = client.name
    fields = _fields_of(redirect)
    state, error = fields.get("state"), fields.get("error")
    # Also where it is an error: RFC 6749 §4.1.2.1 has it sent back there too, and any page can send one without.
    if not secrets.compare_digest(_bytes(state), _bytes(request.state)):
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
        own = (request.state, request.code_verifier, fields.get("code"))
        error = client.redact(error, 64, *own)
        description = client.redact(fields.get("error_description"), 300, *own)
        said = f"{error}: {description}" if description else f"{error}"
        raise LoginFailed(
            f"The login at {name} was denied ({said}). Nothing has changed."
            if error == "access_denied"
            else f"{name} turned the login down ({said}). Check the client id, the redirect URI and the scope.",
            error=error,
            error_description=description,
        )
    if not fields.get("code") or not is_sendable(fields["code"]):
        raise LoginFailed(
            f"The redirect from {name} brings no authorization code. Start the login again."
        )
    # What is kept is shown to people later on.
    kept = {key: fields.get(key, "") for key in settings.redirect_fields}
    return fields["code"], {
        key: value for key, value in kept.items() if value and value.isprintable()
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


def code_form(settings: LoginSettings, code: str, request: AuthorizationRequest) -> dict[str, str]:
    """Return the parameters that redeem a code (RFC 6749 §4.1.3, RFC 7636 §4.5, RFC 8707 §2.2)."""
    form = {"code": code, "redirect_uri": request.redirect_uri, **settings.resource_params()}
    if request.code_verifier is not None:
        form["code_verifier"] = request.code_verifier
    return form


async def redeem(
    client: Client, grant_type: str, form: Mapping[str, str], rules: Rules
) -> Token | LoginFailed:
    """Ask the token endpoint for a first token; return it, or the error to raise.

    Args:
        client: asks.
        grant_type: of the request (RFC 6749 §4.1.3, RFC 8628 §3.4).
        form: its other parameters; each of them is a secret.
        rules: how to read this server's answers.
    """
    # Imported here: importing the library stays fast.
    from authlib.oauth2.rfc6749.parameters import prepare_token_request

    asked_at = time.time()
    answer = await client.post(prepare_token_request(grant_type, **form))
    if isinstance(answer, NoAnswer):
        return LoginFailed(
            f"{client.name}'s token endpoint "
            + ("gave no answer" if answer.sent else "could not be reached")
            + f" ({answer.why}). Start the login again later.",
            transient=answer.transient,
            caused_by=answer.caused_by,
        )
    means = meaning(answer, rules, now=asked_at)
    if means.token is not None:
        return means.token
    error, description, said = words(
        answer, means, lambda text, most: client.redact(text, most, *form.values())
    )
    why = {
        "dead": f"refused the code ({said}). It is good once, for a short time, and only with the "
        "redirect URI and the verifier it was asked with. Start the login again.",
        "refused": f"refused this client ({said}). Check the client id, the client secret, how the client "
        "authenticates (client_auth) and the redirect URI; then start the login again.",
        "busy": f"is busy ({said}). Start the login again later.",
        "unavailable": f"is unavailable ({said}). Start the login again later.",
    }.get(means.kind, f"answered without a token ({said}). Start the login again.")
    return LoginFailed(
        f"{client.name}'s token endpoint {why}",
        error=error,
        error_description=description,
        transient=means.kind in ("busy", "unavailable"),
    )


def with_fields(token: Token, fields: Mapping[str, Any]) -> Token:
    """Return the token with what the redirect brought beside its code."""
    return replace(token, extra={**token.extra, **fields}) if fields else token
