"""Revoke a token (RFC 7009). It knows no store: forgetting the token there is the caller's."""

from __future__ import annotations

import json
from collections.abc import Iterable

from .._errors import OriginNotAllowed, RevocationFailed
from .._http.origins import compiled, read_url
from .._token import Token
from .answer import Answer, NoAnswer
from .client import FORM, Client
from .settings import LoginSettings, is_sendable


async def revoke(
    client: Client,
    settings: LoginSettings,
    token: Token,
    *,
    origins: Iterable[str] | str | None,
) -> None:
    """Revoke the refresh token, and with it the grant (RFC 7009 §2.1); without one the access token.

    Args:
        client: asks.
        settings: where it asks.
        token: of the tokens in it, the one that is worth more is revoked.
        origins: where this server's tokens may be sent.

    Raises:
        RevocationFailed: the server did not confirm it.
        OriginNotAllowed: the token names another host than `origins` to revoke it at.
        ValueError: no revocation endpoint is known.
    """
    url = _endpoint_of(client.name, settings, token, origins)
    hint = "access_token" if token.refresh_token is None else "refresh_token"
    revoked = token.refresh_token or token.access_token
    if not is_sendable(revoked):
        raise RevocationFailed(
            f"The refresh token for {client.name} is not text that can be sent, and no server has issued it. Nothing "
            "was sent. RefreshAuth.forget() empties the store."
        )
    content_type = FORM
    if settings.revocation_format == "json":
        body, content_type = json.dumps({"token": revoked}), "application/json"
    else:
        # Imported here: importing the library stays fast.
        from authlib.oauth2.rfc7009 import prepare_revoke_token_request

        body, _ = prepare_revoke_token_request(revoked, hint)
    answer = await client.post(body, url=url, content_type=content_type)
    if content_type == FORM and client.is_public and _wants_empty_secret(answer):
        answer = await client.post(f"{body}&client_secret=", url=url, content_type=content_type)
    if isinstance(answer, NoAnswer):
        raise RevocationFailed(
            f"{client.name}'s revocation endpoint could not be reached, or gave no answer ({answer.why}): the token "
            "may still be good. Try again later.",
            caused_by=answer.caused_by,
        )
    _check(answer, client.name)


def _endpoint_of(
    name: str, settings: LoginSettings, token: Token, origins: Iterable[str] | str | None
) -> str:
    url = settings.revocation_endpoint
    if url is None:
        raise ValueError(f"no revocation_endpoint is known for {name}")
    if not url.startswith("{instance_url}/"):
        return url
    host = token.extra.get("instance_url")
    if not isinstance(host, str):
        raise ValueError(
            f"{name} revokes a token at the host that came with it as instance_url, and this one came with none"
        )
    # Secrets go there, and anybody who can write to the store chooses the host: origins that are named must have it.
    if origins is None or origins == "any":
        raise OriginNotAllowed(
            f"{name} revokes a token at the host that came with it as instance_url. No origins are named that it could "
            "be checked against, so nothing was sent. Pass origins= to the endpoint, or its revocation_endpoint= in "
            "full."
        )
    home = read_url(host)
    if home is None or home.userinfo or home.query or home.fragment or home.path not in ("", "/"):
        raise OriginNotAllowed(
            f"The instance_url that came with the token from {name} is no origin, so nothing was sent."
        )
    compiled(origins, allow_http=settings.allow_http).check(home)
    return url.replace("{instance_url}", host.rstrip("/"))


def _wants_empty_secret(answer: Answer | NoAnswer) -> bool:
    """Whether the server misses the secret of a client that has none, as servers of the MCP SDK do (1.x and 2.x).

    A secret that is empty may be left out, or sent (RFC 6749 §2.3.1).
    """
    return isinstance(answer, Answer) and answer.status == 400 and b"client_secret: " in answer.body


def _check(answer: Answer, name: str) -> None:
    # RFC 7009 §2.2: 200 also for a token that was not good any more.
    if not 200 <= answer.status < 300:
        raise RevocationFailed(
            f"{name} did not revoke the token (status {answer.status}): it may still be good. "
            + (
                "Try again later."
                if answer.status in (429, 503)
                else "Check the client id and the client secret."
            )
        )
