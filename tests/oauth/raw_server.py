"""A server on a real socket that keeps the bytes of each request, and gives the answers that a test sets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
from anyio.abc import SocketAttribute, SocketStream

Respond = Callable[[SocketStream], Awaitable[None]]


@dataclass
class Request:
    line: str
    headers: dict[str, str]
    body: str


@dataclass
class RawServer:
    url: str
    respond: Respond
    requests: list[Request] = field(default_factory=list)

    async def serve(self, stream: SocketStream) -> None:
        async with stream:
            self.requests.append(await _read(stream))
            await self.respond(stream)


async def _read(stream: SocketStream) -> Request:
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive()
    head, _, body = data.partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    headers = dict(_field(one) for one in fields)
    while len(body) < int(headers["content-length"]):
        body += await stream.receive()
    return Request(line, headers, body.decode())


def _field(text: str) -> tuple[str, str]:
    name, _, value = text.partition(": ")
    return name.lower(), value


def reply(
    body: bytes | str = b"", status: int = 200, headers: Mapping[str, str] | None = None
) -> bytes:
    """Return the bytes of an answer."""
    raw = body.encode() if isinstance(body, str) else body
    fields = {"Content-Length": str(len(raw)), "Connection": "close", **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + raw


@asynccontextmanager
async def raw_server(respond: Respond | bytes) -> AsyncIterator[RawServer]:
    """Serve on a free port of 127.0.0.1 while the block lasts."""

    async def answer(stream: SocketStream) -> None:
        assert isinstance(respond, bytes)
        await stream.send(respond)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - no Django
    server = RawServer(f"http://127.0.0.1:{port}", respond if callable(respond) else answer)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, server.serve)
        yield server
        tasks.cancel_scope.cancel()
