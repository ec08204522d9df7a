"""The server as an ASGI application, for real sockets and for the libraries' ASGI transports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ._wire import Call, Loss, Server, pace, pieces

try:
    from starlette.requests import ClientDisconnect, Request
except ImportError:
    raise ImportError("server.app needs Starlette: pip install 'httpx-refresh[testing]'") from None

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class AnswerLostError(ConnectionError):
    """The answer is dropped on purpose, and the ASGI server offers no way to close the connection."""


def create_app(
    server: Server, close_connection: Callable[[Mapping[str, Any]], None] | None = None
) -> ASGIApp:
    """Make the application; `close_connection(scope)` closes the client's connection."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            body = await request.body()
        except ClientDisconnect:
            return  # the request did not arrive completely, so nothing is done
        query = scope["query_string"].decode("ascii")
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        host = headers.get("host", "")
        reply = server.handle(Call(scope["method"], host, scope["path"], query, headers, body))
        await pace(reply)
        if reply.loss is None or reply.loss is Loss.HALF_ANSWER:
            await send(
                {
                    "type": "http.response.start",
                    "status": reply.status,
                    "headers": reply.wire_headers,
                }
            )
            for piece in pieces(server, reply):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        if reply.loss is None:
            await send({"type": "http.response.body", "body": b""})
        elif close_connection is None:
            raise AnswerLostError(reply.loss.value)
        else:
            close_connection(scope)
            await receive()  # the disconnect: the ASGI server must not answer in our place

    return app
