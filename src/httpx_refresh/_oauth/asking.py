"""One request to a token endpoint: send it, read its answer, and tell what left this host if there is none."""

from __future__ import annotations

import functools
import logging
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import httpx

from .._errors import RefreshUnavailable
from .._http.bounded import let_go, read_some, unpacked
from .._http.libraries import LIBRARIES, NOT_SENT, REQUEST_ERRORS
from .answer import Answer

if TYPE_CHECKING:
    from .._http.libraries import AsyncClient, Response

logger = logging.getLogger("httpx_refresh")

MOST = 1_048_576
"""Bytes that are read of an answer, and that are unpacked of one."""

# One connection is made and one answer awaited; the session's `refresh_timeout` ends all of it earlier.
_TIMEOUT = {"timeout": 60.0, "connect": 5.0, "pool": 5.0}

CLIENTS: tuple[type[Any], ...] = tuple(library.AsyncClient for library in LIBRARIES)


async def ask(
    client: AsyncClient | None, url: str, headers: Mapping[str, str], body: str, *, name: str
) -> Answer:
    """Post a form and return the answer.

    Args:
        client: asks; it is not closed, and of its defaults (headers, params, cookies, auth, redirects) nothing but
            `User-Agent` is used. None: a client is made for this request.
        url: the token endpoint.
        headers: all that are sent, besides `Host`, `Content-Length` and `User-Agent`.
        body: the form.
        name: what messages call the provider.

    Raises:
        RefreshUnavailable: there is no answer. The exception that the client raised is no part of its chain: it
            holds the request, with the secrets in it.
    """
    answers: list[Answer] = []
    failure = ""
    sent = True
    try:
        if client is not None:
            await _exchange(client, url, headers, body, answers)
        else:
            async with httpx.AsyncClient(verify=await _ssl_context()) as own:
                await _exchange(own, url, headers, body, answers)
    except (Exception, anyio.get_cancelled_exc_class()) as error:
        # With an answer the refresh token is spent: a close that failed, or was cancelled, must not lose the new
        # one. Whoever cancelled gets its way at the next step.
        if not answers:
            if not isinstance(error, REQUEST_ERRORS):
                raise
            sent = not isinstance(error, NOT_SENT)
            failure = type(error).__name__
            if not sent and str(error):  # Nothing was sent, so nothing of ours can be in it.
                failure += f": {error}"
        else:
            logger.debug("%s answered; closing failed with %s", name, type(error).__name__)
    if answers:
        return answers[0]
    if sent:
        raise RefreshUnavailable(
            f"{name}'s token endpoint was asked and gave no answer ({failure}). Whether it spent the refresh token is "
            "unknown; the token is kept. Try again later.",
            outcome="unknown",
        )
    raise RefreshUnavailable(
        f"{name}'s token endpoint could not be reached ({failure}). The refresh token was not sent. Check the url, "
        "proxies and certificates, or try again later.",
        outcome="not_sent",
    )


async def _exchange(
    client: Any, url: str, headers: Mapping[str, str], body: str, answers: list[Answer]
) -> None:
    """Ask, and put the answer into `answers` before anything is closed."""
    library = next(one for one in LIBRARIES if isinstance(client, one.AsyncClient))
    # Not `client.build_request`: what the client sends by default to the API is not for this server.
    request = library.Request(
        "POST",
        url,
        content=body.encode(),
        headers={"User-Agent": client.headers.get("User-Agent", "httpx-refresh"), **headers},
        extensions={"timeout": httpx.Timeout(**_TIMEOUT).as_dict()},
    )
    response = await client.send(request, stream=True, auth=None, follow_redirects=False)
    try:
        answers.append(await read_answer(response))
    finally:
        await response.aclose()


async def read_answer(response: Response) -> Answer:
    """Read the answer, which is never longer than `MOST` and one chunk."""
    if response.is_stream_consumed:  # A hook of the client's read it, or it never was a stream.
        body = response.content
        return Answer(response.status_code, response.headers, body[:MOST], len(body) > MOST)
    # Not `aiter_raw`: it closes the response before it ends, and a close that fails would take the answer along.
    raw: Any = response.stream
    stream: AsyncIterator[bytes] = raw.__aiter__()
    chunks, ended = await read_some(stream, MOST)
    body = b"".join(chunks)
    if ended:
        # Not asked for, but some pack all the same.
        body = unpacked(body, response.headers.get("content-encoding", ""), MOST) or b""
    else:
        await let_go(stream)
    return Answer(response.status_code, response.headers, body[:MOST], len(body) > MOST)


async def _ssl_context() -> ssl.SSLContext:
    """Return the context, made once and in a thread: reading the certificates takes many milliseconds."""
    if _made_ssl_context.cache_info().currsize:
        return _made_ssl_context()
    return await anyio.to_thread.run_sync(_made_ssl_context)


@functools.lru_cache(maxsize=1)
def _made_ssl_context() -> ssl.SSLContext:
    return httpx.create_ssl_context()
