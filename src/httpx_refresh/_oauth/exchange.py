"""One HTTP exchange with an authorization server: whose client makes it, a bounded answer, and what left this host.

It knows no OAuth: what is sent and what an answer means is decided elsewhere.
"""

from __future__ import annotations

import logging
import ssl
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import httpx

from .._errors import cause_of, shown
from .._http.bodies import drain, read_some, unpacked
from .._http.libraries import LIBRARIES, NOT_SENT, library_asking
from .._limits import OutOfTime, longer, require_time
from .._threads import run_blocking
from .answer import MOST, Answer, NoAnswer
from .settings import CLIENTS

if TYPE_CHECKING:
    from .._http.libraries import AsyncClient, Response

logger = logging.getLogger("httpx_refresh")

# One connection is made, and one answer awaited. How long that may take is said by the exchange's own timeout alone,
# since a client's is over at once when its event loop has stood still.
_TIMEOUT = httpx.Timeout(None, connect=5.0, pool=5.0).as_dict()


async def exchange(
    source: AsyncClient | Callable[[], AsyncClient] | None,
    method: str,
    url: str,
    headers: Mapping[str, str],
    content: str | None = None,
    *,
    timeout: float,
) -> Answer | NoAnswer:
    """Send one request and read its answer; follow no redirect.

    Args:
        source: a client, which is not closed; or a callable that makes one, which is closed afterwards. Of a client's
            defaults (headers, params, cookies, auth, redirects) nothing but `User-Agent` is used. None: a client is
            made for this request, of the library whose client asks.
        method: of the request.
        url: where it goes.
        headers: all that are sent, besides `Host`, `Content-Length` and `User-Agent`.
        content: the body.
        timeout: seconds for all of it.

    Raises:
        OutOfTime: it took so long to come so far that the body, or all of the request, was not sent, see `may_send`.
    """
    attempt = _Attempt()
    with anyio.CancelScope() as scope:
        unless = _later(timeout, scope.cancel)
        try:
            await attempt.run(source, method, url, headers, content)
        finally:
            unless()
    if attempt.answer is not None:
        return attempt.answer
    return attempt.failure or NoAnswer(attempt.begun, f"nothing came within {timeout:g} s")


class _Attempt:
    """One exchange, and what is known of it should it end early.

    Mutable: `begun`, set before a client sees the request; `answer`, set before anything is closed, since with an
    answer a refresh token is spent, and what fails afterwards must not lose the new one; `failure`, set only while
    there is no answer.
    """

    __slots__ = ("answer", "begun", "failure")

    def __init__(self) -> None:
        self.begun = False
        self.answer: Answer | None = None
        self.failure: NoAnswer | None = None

    async def run(
        self, source: Any, method: str, url: str, headers: Mapping[str, str], content: str | None
    ) -> None:
        """Get a client, ask with it, and close it if it was made for this."""
        try:
            found = await _client_of(source, url)
        except Exception as error:
            why = f"no client could be made: {type(error).__name__}"
            self.failure = NoAnswer(False, why, transient=source is None, caused_by=cause_of(error))
            return
        if isinstance(found, NoAnswer):
            self.failure = found
            return
        try:
            await self._ask(found, method, url, headers, content)
        except OutOfTime:
            raise
        except (Exception, anyio.get_cancelled_exc_class()) as error:
            self._failed(error)
        finally:
            if found is not source:
                await self._close(found)

    def _failed(self, error: BaseException) -> None:
        if self.answer is not None:
            # The cancellation takes effect at the next step.
            logger.debug("There is an answer; closing failed with %s", type(error).__name__)
        elif not isinstance(error, Exception):
            raise error
        else:
            sent = not isinstance(error, NOT_SENT)
            why = type(error).__name__
            if not sent and str(error):  # Nothing was sent, so nothing of ours can be in it.
                why += f": {shown(str(error), 300)}"
            self.failure = NoAnswer(sent, why, caused_by=cause_of(error))

    async def _ask(
        self, client: Any, method: str, url: str, headers: Mapping[str, str], content: str | None
    ) -> None:
        library = next(one for one in LIBRARIES if isinstance(client, one.AsyncClient))
        # Not `client.build_request`: what the client sends by default to the API is not for this server.
        request = library.Request(
            method,
            url,
            content=None if content is None else content.encode(),
            headers={"User-Agent": client.headers.get("User-Agent", "httpx-refresh"), **headers},
            extensions={"timeout": dict(_TIMEOUT), "trace": _in_time},
        )
        self.begun = True
        response = await client.send(request, stream=True, auth=None, follow_redirects=False)
        try:
            # What came over a network has this extension (httpx: "network_stream"), what a test's transport made not.
            if "network_stream" in response.extensions:
                _loops[client] = _this_loop()
            self.answer = await _read_answer(response)
        finally:
            await response.aclose()

    async def _close(self, client: Any) -> None:
        try:
            await client.aclose()
        except (Exception, anyio.get_cancelled_exc_class()) as error:
            if self.answer is None and not isinstance(error, Exception):
                raise
            logger.debug("Closing a client failed with %s", type(error).__name__)


async def _in_time(step: str, _: Mapping[str, Any]) -> None:
    # The client was held up by its connection, or with its process: the time to send may be over by now. Looked at
    # again before the body, which leaves by itself and has the refresh token: no server acts on headers without it.
    if step.endswith((".send_request_headers.started", ".send_request_body.started")):
        require_time()


async def _read_answer(response: Response) -> Answer:
    """Read the answer, which is never longer than `MOST` and one chunk, nor in more chunks than `read_some` takes."""
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
        await drain(stream)
    is_long = not ended or len(body) > MOST
    return Answer(response.status_code, response.headers, body[:MOST], is_long)


def _later(seconds: float, then: Callable[[], object]) -> Callable[[], None]:
    """Call `then` after `seconds`; somewhat later if the event loop stood still. Return what prevents it."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        scope = trio.CancelScope()

        async def sleep() -> None:
            more, times = seconds, 0
            with scope:
                while more:
                    due = trio.current_time() + more
                    await trio.sleep_until(due)
                    more = longer(seconds, trio.current_time() - due, times)
                    times += 1
                then()

        trio.lowlevel.spawn_system_task(sleep)
        cancel: Callable[[], None] = scope.cancel
        return cancel

    import asyncio  # Not at the top: importing the library stays fast.

    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def look(due: float, times: int) -> None:
        nonlocal timer
        if more := longer(seconds, loop.time() - due, times):
            due = loop.time() + more
            timer = loop.call_at(due, look, due, times + 1)
        else:
            then()

    due = loop.time() + seconds
    timer = loop.call_at(due, look, due, 0)
    return lambda: timer.cancel()


# -- whose client ------------------------------------------------------------------------------------------------------

_loop: anyio.lowlevel.RunVar[object] = anyio.lowlevel.RunVar("httpx_refresh_loop")
_loops: weakref.WeakKeyDictionary[Any, object] = weakref.WeakKeyDictionary()
"""Which event loop a lent client has a connection on. It belongs to that loop, and must not be used on another."""


def _this_loop() -> object:
    here = _loop.get(None)
    if here is None:
        here = object()
        _loop.set(here)
    return here


_FACTORY = (
    "pass a callable that makes a client for each request, client=lambda: httpx.AsyncClient(...)"
)


async def _client_of(source: Any, url: str) -> Any:
    """Return the client to ask with, or a `NoAnswer` if there is none that could."""
    if source is None:
        if (
            httpx.URL(url).scheme == "http"
        ):  # No certificates to read, and no proxy, which would see the secret.
            return library_asking().AsyncClient(verify=_TRUSTS_NOBODY, trust_env=False)
        await prepared(None)
        return client_maker(tunnelled=True)()
    if isinstance(source, CLIENTS):
        if source.is_closed:
            return _unfit(f"the client passed as client= is closed; {_FACTORY}")
        used_on = _loops.get(source)
        if used_on is not None and used_on is not _this_loop():
            return _unfit(
                f"the client passed as client= has its connections on another event loop; {_FACTORY}"
            )
        return source
    made = source()
    if not isinstance(made, CLIENTS):
        return _unfit(f"client= made {type(made).__name__}, not an AsyncClient")
    if made.is_closed:
        return _unfit("client= made a client that is closed; it must make a new one each time")
    return made


def _unfit(why: str) -> NoAnswer:
    return NoAnswer(False, why, transient=False)


def client_maker(*, tunnelled: bool) -> Callable[[], AsyncClient]:
    """Return what makes the clients of those who lend none; await `prepared` first, so that it takes no time.

    Args:
        tunnelled: whether requests are https. A proxy would see what is sent in clear: from the environment one is
            taken for https only, which it tunnels.
    """

    def make() -> AsyncClient:
        library = library_asking()
        context = _ssl_contexts.get(library) or library.create_ssl_context()
        client: AsyncClient = library.AsyncClient(verify=context, trust_env=tunnelled)
        return client

    return make


async def prepared(source: object) -> None:
    """Read the certificates, once and in a thread, which takes many milliseconds; not for a client that was lent."""
    library = library_asking()
    if not isinstance(source, CLIENTS) and library not in _ssl_contexts:
        made = await run_blocking(library.create_ssl_context, group=prepared)
        _ssl_contexts.setdefault(library, made)


_ssl_contexts: dict[Any, ssl.SSLContext] = {}
"""Each library's own context, once it was made."""

_TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients that connect without TLS: they need no certificates, which take long to read."""
