"""The provider: an authorization server for each slot, all of them in this process, on one port."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from httpx_refresh.testing import AuthorizationServer, Gate, TokenEvent
from httpx_refresh.testing._app import create_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Arrival(NamedTuple):
    """A token request that arrived: when (monotonic), whose it was, and what it spends."""

    at: float
    who: str
    family: int | None
    generation: int | None


class Realm:
    """One slot's authorization server and API, and the wire before it.

    Mutable:
        arrivals: the token requests, in the order in which they came.
        transit: holds the next token request back before the server sees it, if it is set.
        answered: how many token requests have been answered, as far as the server can tell.
    """

    def __init__(self, url: str, close: Callable[[Mapping[str, Any]], None], grace: Any) -> None:
        self.url = url
        self.server = AuthorizationServer(lifetime=3600, reuse_grace=grace)
        self.arrivals: list[Arrival] = []
        self.transit: Gate | None = None
        self.answered = 0
        self._app: ASGIApp = create_app(self.server, close)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/token":
            await self._app(scope, receive, send)
            return
        messages: list[Message] = []
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return  # What did not come in whole spends nothing.
            messages.append(message)
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        token = parse_qs(body.decode())["refresh_token"][0]
        who = dict(scope["headers"])[b"x-who"].decode()
        self.arrivals.append(Arrival(time.monotonic(), who, *self.server._book.known(token)))
        if self.transit is not None:
            gate, self.transit = self.transit, None
            await gate.hold()

        async def again() -> Message:
            return messages.pop(0) if messages else await receive()

        try:
            await self._app(scope, again, send)
        finally:
            self.answered += 1

    def outcomes(self, since: int) -> list[tuple[int | None, str]]:
        """Return the generation and the outcome of each token request that was decided, from an event on."""
        return [
            (event.generation, event.outcome)
            for event in self.server.events[since:]
            if isinstance(event, TokenEvent)
        ]


class Provider:
    """The realms, by their number in the path."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._realms: list[Realm] = []
        self._web: uvicorn.Server | None = None

    def realm(self, grace: Any) -> Realm:
        realm = Realm(f"{self._url}/{len(self._realms)}", self._close, grace)
        self._realms.append(realm)
        return realm

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        _, number, path = scope["path"].split("/", 2)
        await self._realms[int(number)].serve({**scope, "path": f"/{path}"}, receive, send)

    def _close(self, scope: Mapping[str, Any]) -> None:
        assert self._web is not None
        for connection in list(self._web.server_state.connections):
            if isinstance(connection, H11Protocol) and connection.client == scope["client"]:
                connection.transport.close()

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls) -> AsyncIterator[Provider]:
        with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
            provider = cls(f"http://127.0.0.1:{listener.getsockname()[1]}")
            web = uvicorn.Server(
                uvicorn.Config(
                    provider.app,
                    http="h11",
                    ws="none",
                    interface="asgi3",
                    lifespan="off",
                    log_level="error",
                    access_log=False,
                    proxy_headers=False,
                    timeout_graceful_shutdown=1,
                )
            )
            provider._web = web
            serving = asyncio.create_task(web._serve([listener]))
            try:
                yield provider
            finally:
                web.should_exit = True
                await serving
