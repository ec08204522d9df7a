"""The server as an in-process transport, for httpx and for httpx2.

The two libraries have the same classes under the same names, and each requires its own. So a
transport is made for one library, and takes all classes from it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import cache
from types import ModuleType
from typing import Any, ClassVar

import anyio
from anyio.lowlevel import checkpoint

from ._wire import Call, Loss, Reply, Server, pace, pieces


def create_transport(library: ModuleType, server: Server, max_connections: int | None) -> Any:
    """Return a transport for the library's `AsyncClient`; `max_connections` limits the open responses."""
    return _transport_of(library)(server, max_connections)


@cache
def _transport_of(library: ModuleType) -> type[_Transport]:
    stream = type("_Stream", (_Stream, library.AsyncByteStream), {"library": library})
    bases = (_Transport, library.AsyncBaseTransport)
    return type("InProcessTransport", bases, {"library": library, "stream": stream})


class _Connections:
    """A limited number of connections; each is free again when its response is closed."""

    def __init__(self, number: int | None) -> None:
        self._free = None if number is None else anyio.Semaphore(number)

    async def acquire(self) -> None:
        if self._free is not None:
            await self._free.acquire()

    def release(self) -> None:
        if self._free is not None:
            self._free.release()


class _Transport:
    """Passes requests to a server without a socket."""

    library: ClassVar[Any]
    stream: ClassVar[Any]

    def __init__(self, server: Server, max_connections: int | None) -> None:
        self._server = server
        self._connections = _Connections(max_connections)

    async def handle_async_request(self, request: Any) -> Any:
        """Pass the request to the server, with its body as the stream yields it."""
        await self._connections.acquire()
        try:
            return await self._send(request)
        except BaseException:
            self._connections.release()
            raise

    async def _send(self, request: Any) -> Any:
        reply = self._server.handle(await self._read(request))
        # It waits only now, after the server's work, so a cancellation cannot undo that.
        await pace(reply)
        if reply.loss is Loss.NOT_CONNECTED:
            raise self.library.ConnectError("Nobody listens.")
        if reply.loss is Loss.NO_ANSWER:
            raise self.library.ReadError("The connection was closed without an answer.")
        # A response to HEAD has the header of the one to GET, and no body (RFC 9110 section 9.3.2).
        body = iter(()) if request.method == "HEAD" else pieces(self._server, reply)
        stream = self.stream(reply, body, self._connections)
        return self.library.Response(reply.status, headers=reply.wire_headers, stream=stream)

    async def _read(self, request: Any) -> Call:
        """Read the whole request as a connection would send it: the body must be as long as announced."""
        body = b"".join([piece async for piece in request.stream])
        headers, url = request.headers, request.url
        announced = headers.get("content-length")
        if announced is not None and int(announced) != len(body):
            raise self.library.LocalProtocolError(
                "The body is not as long as its Content-Length says."
            )
        host, query = headers.get("host", ""), url.query.decode("ascii")
        return Call(request.method, host, url.path, query, headers, body)


class _Stream:
    """The body of a response.

    It is an iterator and not an async generator, so that a half-read one needs no finalizer.
    """

    library: ClassVar[Any]

    def __init__(self, reply: Reply, body: Iterator[bytes], connections: _Connections) -> None:
        self._reply = reply
        self._pieces = body
        self._connections = connections

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._reply.padding:
            await checkpoint()
        for piece in self._pieces:
            return piece
        if self._reply.loss is Loss.HALF_ANSWER:
            raise self.library.RemoteProtocolError(
                "The connection was closed in the middle of the body."
            )
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._connections.release()
