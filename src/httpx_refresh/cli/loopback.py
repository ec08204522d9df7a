"""The loopback server: it receives the redirect of one login (RFC 8252 §7.3), answers with a page, and stops.

Any program on this machine, and every page that is open in a browser on it, can send requests here. So only a request
with the login's `state`, which the provider and this browser alone have seen, ends the login. The server knows nothing
about tokens.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import html
import secrets
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import anyio
import anyio.abc
import h11
from anyio.streams.stapled import MultiListener

from .._errors import RefreshAuthError
from .console import Exit, Problem, warn

_REQUEST_TIMEOUT = 10.0  # seconds for a browser to send its request
_MOST = 65_536  # bytes of a request's head
_MOST_WAITING = 32  # connections that have not sent their request yet; a browser opens a few
_ACCEPT_PAUSE = 0.1  # seconds until the next try if the system has no descriptor for a connection
GRACE = 1.0
"""Seconds that the exchange of a code may take if the code arrives at the last moment."""


class Place(NamedTuple):
    """The place that the browser is sent back to."""

    port: int
    path: str
    host: str


def place_of(redirect_uri: str | None, port: int | None) -> Place:
    """Return where to listen: at the redirect URI, on `port`, or on a free port (0)."""
    if redirect_uri is None:
        return Place(port or 0, "/callback", "127.0.0.1")
    try:
        parts = urlsplit(redirect_uri)
        its_port = parts.port
    except ValueError:
        raise Problem(
            f"{redirect_uri!r} is no URL: its port is not a number, or a bracket is missing"
        ) from None
    if parts.scheme != "http" or parts.hostname not in ("127.0.0.1", "localhost"):
        raise Problem(
            f"the browser cannot be awaited at {redirect_uri!r}: only http://127.0.0.1:PORT/… and "
            "http://localhost:PORT/… lead to this machine. With --no-browser any redirect URI will do"
        )
    if parts.query or parts.fragment:
        raise Problem("the redirect URI must have no query and no fragment")
    return Place(80 if its_port is None else its_port, parts.path or "/", parts.hostname)


class Loopback:
    """Listens on the loopback interface for the redirect of one login.

        async with Loopback(place) as server:
            ...                     # begin a login that ends at server.redirect_uri
            await server.serve(open_browser, redeem, state=state, timeout=300)

    It answers its own path only, accepts one redirect, and is closed when the block ends. If the redirect URI has the
    host `localhost`, it listens on both loopback addresses: a browser tries [::1] first, and must not find another
    user's server there (RFC 8252 §8.3).

    `taken` becomes True when the redirect has arrived, and stays True: a second one is rejected. `_error` is its
    result, set before `_answered`, which tells that the browser has its page. `_state` and `_complete` belong to the
    login that is served, and do not change meanwhile. `_waiting` holds a scope for each connection that has not sent
    its request yet, the oldest first. Past a limit the oldest is closed, so that a program which opens many does not
    use up the descriptors of this process.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._stack = AsyncExitStack()
        self._state = b""
        self._warned = False
        self._waiting: dict[anyio.CancelScope, None] = {}
        self.taken: bool = False
        self._answered = anyio.Event()
        self._error: RefreshAuthError | None = None
        self.redirect_uri: str = ""
        self._hosts: tuple[str, ...] = ()

    async def __aenter__(self) -> Loopback:
        place, port, listeners = self._place, self._place.port, list[Any]()
        async with AsyncExitStack() as stack:
            for address in _addresses(place.host):
                one = await _listen(address, port)
                await stack.enter_async_context(one)
                listeners += one.listeners
                port = one.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - not Django's
            self._stack = stack.pop_all()
        self.listener: MultiListener[anyio.abc.SocketStream] = MultiListener(listeners)
        self._hosts = (f"127.0.0.1:{port}", f"localhost:{port}", "127.0.0.1", "localhost")
        self.redirect_uri = f"http://{place.host}:{port}{place.path}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def serve(
        self,
        begin: Callable[[], Coroutine[Any, Any, object]],
        complete: Callable[[str], Awaitable[None]],
        *,
        state: str,
        timeout: float,
    ) -> None:
        """Call `begin`, wait for the redirect, pass it to `complete`, and show the result in the browser.

        It returns when that is done or the time is up; `taken` tells whether the redirect came.

        Args:
            begin: opens the browser.
            complete: gets the redirect, whose `state` has been checked.
            state: the state that the redirect must have (RFC 6749 §10.12); requests without it are rejected.
            timeout: seconds to wait for the redirect.

        Raises:
            RefreshAuthError: the error of `complete`; the browser has shown it.
        """
        self._state = state.encode()
        self._complete = complete
        async with anyio.create_task_group() as tasks:
            for listener in self.listener.listeners:
                tasks.start_soon(self._accept, listener, tasks)
            tasks.start_soon(begin)
            with anyio.move_on_after(timeout):
                await self._answered.wait()
            if self.taken:  # It came at the last moment, and ends soon.
                with anyio.move_on_after(GRACE):
                    await self._answered.wait()
            tasks.cancel_scope.cancel()
        if self._error is not None:
            raise self._error

    async def _accept(
        self,
        listener: Any,  # a SocketListener; the type of a MultiListener does not tell
        tasks: anyio.abc.TaskGroup,
    ) -> None:
        # Not the listener's own `serve`: that ends, and the login with it, at the first connection that fails.
        while True:
            try:
                stream = await listener.accept()
            except OSError:
                await anyio.sleep(_ACCEPT_PAUSE)
            else:
                tasks.start_soon(self._handle, stream)

    async def _request(
        self, stream: anyio.abc.ByteStream
    ) -> tuple[h11.Connection, h11.Request] | None:
        """Read a connection's request; None if there is none. Browsers open connections that they do not use."""
        if len(self._waiting) >= _MOST_WAITING:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.cancel()
        try:
            with anyio.fail_after(_REQUEST_TIMEOUT) as scope:
                self._waiting[scope] = None
                try:
                    return await _read(stream)
                finally:
                    self._waiting.pop(scope, None)
        except (TimeoutError, anyio.BrokenResourceError, h11.ProtocolError):
            return None
        return None  # Closed in favour of a newer connection.

    async def _handle(self, stream: anyio.abc.ByteStream) -> None:
        async with stream:
            request = await self._request(stream)
            if request is None:
                return
            connection, head = request
            mine = self._refusal(head)
            status, body = mine or await self._redirected(head.target.decode("ascii", "replace"))
            # The window may be closed by now; the login is valid all the same.
            with suppress(anyio.BrokenResourceError):
                await _write(stream, connection, status, body, head.method)
            if mine is None:
                self._answered.set()

    def _refusal(self, head: h11.Request) -> tuple[int, bytes] | None:
        """Return the response to a request that is not the redirect; None for the redirect."""
        target = head.target.decode("ascii", "replace")
        headers = {name: value.decode("latin-1") for name, value in head.headers}
        # Another host name that leads here belongs to another site (DNS rebinding).
        if headers.get(b"host", "").lower() not in self._hosts:
            return 421, _page("Not here", "This address is for one login only.", good=False)
        if target.partition("?")[0] != self._place.path:
            return 404, _page("Nothing here", "This address is for one login only.", good=False)
        if head.method != b"GET":
            return 405, _page("Not like this", "A browser comes back with GET.", good=False)
        if self.taken:
            return 409, _page(
                "Already done",
                "This login was answered before. You can close this window.",
                good=False,
            )
        if not self._brings_state(target):
            if not self._warned:
                self._warned = True
                warn(
                    "A request came that is not the answer to this login: its state is another one, or missing "
                    "(RFC 9700 §4.7). It may belong to an earlier login, or a web page has sent it. It was "
                    "rejected, and the login still waits."
                )
            return 400, _page(
                "Not this login",
                "This is not the answer to the login that waits here: it has another state, or none. It may "
                "belong to an earlier login. Go to the address that the command line has printed.",
                good=False,
            )
        return None

    def _brings_state(self, target: str) -> bool:
        try:
            found = parse_qs(target.partition("?")[2], max_num_fields=100).get("state", [])
        except ValueError:  # Too many fields.
            return False
        return len(found) == 1 and secrets.compare_digest(found[0].encode(), self._state)

    async def _redirected(self, target: str) -> tuple[int, bytes]:
        # There is no await between the check of `taken` and this, so only one redirect is accepted.
        self.taken = True
        try:
            await self._complete(target)
        except RefreshAuthError as error:
            self._error = error
            return 400, _page("The login did not work", str(error), good=False)
        return 200, _page(
            "You are logged in", "The token is saved. You can close this window.", good=True
        )


def _addresses(host: str) -> list[str]:
    """Return the addresses of this machine that a browser may connect to for `host`."""
    if host != "localhost":
        return [host]
    return ["127.0.0.1", "::1"] if _has_ipv6_loopback() else ["127.0.0.1"]


def _has_ipv6_loopback() -> bool:
    """Whether [::1] is an address of this machine, so that one can listen there."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


async def _listen(address: str, port: int) -> MultiListener[anyio.abc.SocketStream]:
    try:
        # First tried with a socket that is closed on failure, because anyio 4.7 leaves its own open.
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        socket.create_server((address, port), family=family).close()
        return await anyio.create_tcp_listener(local_host=address, local_port=port)
    except OSError as error:
        busy = error.errno == errno.EADDRINUSE
        raise Problem(
            f"port {port} of {address} "
            + ("is in use" if busy else f"cannot be listened on ({error.strerror})")
            + ". Free it, or choose another with --port, one that is registered with the provider",
            Exit.LOGIN_FAILED,
        ) from None


async def _read(stream: anyio.abc.ByteStream) -> tuple[h11.Connection, h11.Request]:
    """Read a request's head; raise `h11.ProtocolError` if the connection ends before there is one."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MOST)
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            return connection, event
        if event is not h11.NEED_DATA:
            raise h11.RemoteProtocolError("the connection was closed")
        try:
            connection.receive_data(await stream.receive())
        except anyio.EndOfStream:
            connection.receive_data(b"")


async def _write(
    stream: anyio.abc.ByteStream,
    connection: h11.Connection,
    status: int,
    body: bytes,
    method: bytes,
) -> None:
    length = (b"content-length", str(len(body)).encode())
    response = h11.Response(status_code=status, headers=[*_HEADERS, length])
    data = h11.Data(data=b"" if method == b"HEAD" else body)
    for event in (response, data, h11.EndOfMessage()):
        await stream.send(connection.send(event) or b"")


_STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5b6675;--paper:#f4f6f9;--card:#fff;--line:#e3e7ed;--mark:#16794c}
.wrong{--mark:#b3261e}
@media(prefers-color-scheme:dark){:root{--ink:#e8ecf2;--soft:#9aa6b6;--paper:#12161c;--card:#1b212a;--line:#2b333f;
--mark:#4cc38a}.wrong{--mark:#ff8a80}}
*{box-sizing:border-box}
body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1.5rem;background:var(--paper);color:var(--ink);
font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
main{width:100%;max-width:28rem;padding:2.5rem 2.25rem;background:var(--card);border:1px solid var(--line);
border-radius:1rem;box-shadow:0 1px 2px #0000000a,0 12px 32px #0000000f;text-align:center}
svg{width:3.5rem;height:3.5rem;color:var(--mark)}
h1{margin:1rem 0 .5rem;font-size:1.375rem;line-height:1.3;font-weight:650;letter-spacing:-.01em}
p{margin:.5rem 0 0;color:var(--soft);overflow-wrap:anywhere}
footer{margin-top:1.75rem;padding-top:1rem;border-top:1px solid var(--line);font-size:.8125rem;color:var(--soft)}
"""

_RING = '<circle cx="24" cy="24" r="21" fill="none" stroke="currentColor" stroke-width="3"/>'
_SIGN = {
    True: '<path d="M15 24.5l6.5 6.5L33.5 18" fill="none" stroke="currentColor" stroke-width="3.5" '
    'stroke-linecap="round" stroke-linejoin="round"/>',
    False: '<path d="M24 14v13" fill="none" stroke="currentColor" stroke-width="3.5" stroke-linecap="round"/>'
    '<circle cx="24" cy="33.5" r="2.25" fill="currentColor"/>',
}

_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

_HEADERS = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"cache-control", b"no-store"),
    # The address holds the code, so it must not be sent as a Referer.
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'".encode(),
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"connection", b"close"),
)


def _page(title: str, text: str, *, good: bool) -> bytes:
    """Return the page: a sign, a title and a sentence. It loads nothing and runs no script."""
    title, text = html.escape(title), html.escape(text)
    return (
        f'<!doctype html><html lang="en"{"" if good else " class=wrong"}><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><main>"
        f'<svg viewBox="0 0 48 48" aria-hidden="true">{_RING}{_SIGN[good]}</svg>'
        f"<h1>{title}</h1><p>{text}</p><footer>httpx-refresh</footer></main></body></html>"
    ).encode()
