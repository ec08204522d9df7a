"""Give a token back (RFC 7009)."""

from __future__ import annotations

import json

import httpx

from .._errors import RefreshUnavailable, RevocationFailed
from .._http.origins import Origins
from .._token import Token
from .answer import Answer
from .login import Post
from .login_settings import LoginSettings


async def revoke(
    post: Post, settings: LoginSettings, token: Token, *, name: str, origins: Origins
) -> None:
    """Revoke the refresh token, and with it the grant (RFC 7009 §2.1); without one the access token.

    Raises:
        RevocationFailed: the server did not confirm it.
        OriginNotAllowed: the token names another host than `origins` to revoke it at.
        ValueError: no revocation endpoint is known.
    """
    url = _endpoint_of(settings, token, name, origins)
    hint = "access_token" if token.refresh_token is None else "refresh_token"
    given_back = token.refresh_token or token.access_token
    if settings.revocation_format == "json":
        body, content_type = json.dumps({"token": given_back}), "application/json"
    else:
        # Imported here: whoever imports the library need not wait for it.
        from authlib.oauth2.rfc7009 import prepare_revoke_token_request

        body, headers = prepare_revoke_token_request(given_back, hint)
        content_type = headers["Content-Type"]
    try:
        answer = await post(body, url=url, content_type=content_type)
    except RefreshUnavailable as error:
        raise RevocationFailed(
            f"{name}'s revocation endpoint could not be reached, or gave no answer: the token may still be good. Try "
            "again later."
        ) from error.__cause__
    _check(answer, name)


def _endpoint_of(settings: LoginSettings, token: Token, name: str, origins: Origins) -> str:
    url = settings.revocation_endpoint
    if url is None:
        raise ValueError(f"no revocation_endpoint is known for {name}")
    if url.startswith("{instance_url}/"):
        host = token.extra.get("instance_url")
        if not isinstance(host, str):
            raise ValueError(
                f"{name} revokes a token at the host that came with it as instance_url, and this one came with none"
            )
        url = url.replace("{instance_url}", host.rstrip("/"))
        # A secret of the client's goes there, and whoever can write to the store chooses the host.
        origins.check(httpx.URL(url))
    return url


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
