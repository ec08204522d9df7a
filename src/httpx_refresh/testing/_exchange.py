"""One exchange inside the process, whatever the client library: take the request, keep the pace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

import anyio

from ._behaviour import pace
from ._wire import Call, Reply

if TYPE_CHECKING:
    from ._server import AuthorizationServer

PIECE = b" " * 65_536


class URL(Protocol):
    """What is asked of the libraries' URLs."""

    @property
    def path(self) -> str: ...
    @property
    def query(self) -> bytes: ...


class WrongLength(Exception):
    """The body is not as long as its `Content-Length` says; a real connection breaks on it."""


class Connections:
    """A number of connections, each free again when its response is closed."""

    def __init__(self, number: int | None) -> None:
        self._free = None if number is None else anyio.Semaphore(number)

    async def acquire(self) -> None:
        """Wait for a free connection."""
        if self._free is not None:
            await self._free.acquire()

    def release(self) -> None:
        """Give one back."""
        if self._free is not None:
            self._free.release()


async def read_body(stream: AsyncIterator[bytes], headers: Mapping[str, str]) -> bytes:
    """Read the whole body as a connection would send it: exactly what was announced."""
    body = b"".join([piece async for piece in stream])
    announced = headers.get("content-length")
    if announced is not None and int(announced) != len(body):
        raise WrongLength
    return body


async def exchange(
    server: AuthorizationServer, method: str, url: URL, headers: Mapping[str, str], body: bytes
) -> Reply:
    """Commit, and only then wait: whoever cancels this call cannot undo what the server did."""
    host, query = headers.get("host", ""), url.query.decode("ascii")
    reply = server.handle(Call(method, host, url.path, query, headers, body))
    await pace(reply)
    return reply


def pieces(server: AuthorizationServer, reply: Reply) -> Iterator[bytes]:
    """Yield the body as it leaves the server; padding is counted as far as somebody reads it."""
    yield reply.sent_body
    left = reply.padding
    while left:
        size = min(left, len(PIECE))
        server.padding_sent += size
        left -= size
        yield PIECE[:size]
