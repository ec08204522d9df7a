"""The server as a transport of httpx2."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, cast

from anyio.lowlevel import checkpoint

try:
    import httpx2
except ImportError:
    raise ImportError("transport2() needs httpx2: pip install 'httpx-refresh[httpx2]'") from None

from ._exchange import Connections, WrongLength, exchange, pieces, read_body
from ._wire import Loss, Reply

if TYPE_CHECKING:
    from ._server import AuthorizationServer


class InProcessTransport2(httpx2.AsyncBaseTransport):
    """Carries requests to an `AuthorizationServer` without a socket; made by its `transport2()`."""

    def __init__(self, server: AuthorizationServer, max_connections: int | None) -> None:
        self._server = server
        self._connections = Connections(max_connections)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Hand the request over, with its body as the stream gives it."""
        await self._connections.acquire()
        try:
            return await self._send(request)
        except BaseException:
            self._connections.release()
            raise

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        stream = cast("httpx2.AsyncByteStream", request.stream)  # an AsyncClient sends no other
        try:
            body = await read_body(stream.__aiter__(), request.headers)
        except WrongLength:
            raise httpx2.LocalProtocolError(
                "The body is not as long as its Content-Length says."
            ) from None
        reply = await exchange(self._server, request.method, request.url, request.headers, body)
        if reply.loss is Loss.NOT_CONNECTED:
            raise httpx2.ConnectError("Nobody listens.")
        if reply.loss is Loss.NO_ANSWER:
            raise httpx2.ReadError("The connection was closed without an answer.")
        # The answer to HEAD has the head of the one to GET and no body (RFC 9110 section 9.3.2).
        body_pieces = iter(()) if request.method == "HEAD" else pieces(self._server, reply)
        answer = _Stream(reply, body_pieces, self._connections)
        return httpx2.Response(reply.status, headers=reply.wire_headers, stream=answer)


class _Stream(httpx2.AsyncByteStream):
    # An iterator of its own and no async generator: one that is left half read needs no finalizer.
    def __init__(
        self, reply: Reply, body_pieces: Iterator[bytes], connections: Connections
    ) -> None:
        self._reply = reply
        self._pieces = body_pieces
        self._connections = connections

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._reply.padding:
            await checkpoint()
        for piece in self._pieces:
            return piece
        if self._reply.loss is Loss.HALF_ANSWER:
            raise httpx2.RemoteProtocolError("The connection was closed in the middle of the body.")
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._connections.release()
