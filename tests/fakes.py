"""A token endpoint, a store and a clock that tests control, and helpers that tests share."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import httpx
import httpx2
import pytest
from anyio.abc import TaskGroup

from httpx_refresh import MemoryStore, ReauthorizationRequired, RefreshAuth, Token, TokenEndpoint
from httpx_refresh._errors import fresh
from httpx_refresh._refresh.host import Host
from httpx_refresh._refresh.record import Record, parse
from httpx_refresh.testing import Gate

if TYPE_CHECKING:
    from httpx_refresh.testing import AuthorizationServer

EPOCH = time.time()
"""When virtual time begins: now, for not everything asks the library's own clock."""

both_libraries = pytest.mark.parametrize(
    "http", [pytest.param(httpx, id="httpx"), pytest.param(httpx2, id="httpx2")]
)


def use_loop_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the library tell the time by the event loop, whose time may be virtual."""
    monkeypatch.setattr(Host, "monotonic", lambda _: anyio.current_time())
    monkeypatch.setattr(Host, "wall", lambda _: loop_wall())


def loop_wall() -> float:
    return EPOCH + anyio.current_time()


class Endpoint:
    """Rotates as a strict server does: it commits when the request arrives, and accepts no token twice.

    `script` holds exceptions to raise instead of answers, one for each request; `always` is raised by all others.
    All its tokens hold "SECRET".
    """

    name = "Fake"
    origins: tuple[str, ...] | str | None = ("https://api.test",)

    def __init__(
        self, *, lifetime: float | None = 3600.0, clock: Callable[[], float] = time.time
    ) -> None:
        self.lifetime = lifetime
        self.reuse_grace = 0.0
        self.clock = clock
        self.asked: list[str | None] = []
        self.script: deque[Exception] = deque()
        self.always: Exception | None = None
        self.gate: Gate | None = None
        self.issued = 0

    @property
    def current(self) -> Token:
        """The token that was issued last."""
        return self._token(None)

    def _token(self, expires_at: float | None) -> Token:
        extra = {} if self.lifetime is None else {"expires_in": self.lifetime}
        number = self.issued
        return Token(f"SECRET-a{number}", f"SECRET-r{number}", expires_at, extra=extra)

    def text(self, *, expires_in: float | None = None, **notes: Any) -> str:
        """Return the text of a store after a login; `expires_in` counts from now."""
        fields: dict[str, Any] = {
            "access_token": self.current.access_token,
            "refresh_token": self.current.refresh_token,
        }
        if self.lifetime is not None:
            fields["expires_in"] = self.lifetime
        if expires_in is not None:
            fields["expires_at"] = self.clock() + expires_in
        if notes:
            fields["httpx_refresh"] = notes
        return json.dumps(fields)

    async def refresh(self, token: Token, /) -> Token:
        self.asked.append(token.refresh_token)
        if self.script:
            raise self.script.popleft()
        if self.always is not None:
            raise fresh(self.always)
        if token.refresh_token != self.current.refresh_token:
            raise ReauthorizationRequired("no such refresh token", error="invalid_grant")
        self.issued += 1
        answer = self._token(None if self.lifetime is None else self.clock() + self.lifetime)
        if self.gate is not None:
            await self.gate.hold()
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        return answer


@asynccontextmanager
async def refreshing(auth: RefreshAuth, endpoint: Endpoint) -> AsyncIterator[TaskGroup]:
    """Hold a refresh of `auth` at the endpoint while the block runs, then let it end, and with it the group's tasks."""
    gate = endpoint.gate = Gate()
    async with anyio.create_task_group() as group:
        group.start_soon(auth.token)
        await gate.arrived()
        yield group
        gate.release()


class Api:
    """Accepts the access tokens that `accepts` picks; `seen` holds each request's token."""

    def __init__(self, accepts: Callable[[str], bool] = lambda _: True) -> None:
        self.accepts = accepts
        self.seen: list[str] = []

    def client(self, auth: RefreshAuth, http: Any = httpx) -> Any:
        async def answer(request: Any) -> Any:
            await anyio.lowlevel.checkpoint()
            token = request.headers["Authorization"].removeprefix("Bearer ")
            self.seen.append(token)
            return http.Response(200 if self.accepts(token) else 401)

        return http.AsyncClient(
            auth=auth, transport=http.MockTransport(answer), base_url="https://api.test"
        )


Writes = Callable[[Record], bool]
"""Picks writes by what they bring."""


def no_write(_: Record) -> bool:
    return False


def any_write(_: Record) -> bool:
    return True


def claims(record: Record) -> bool:
    return record.redeeming is not None


def results(record: Record) -> bool:
    return record.generation > 0


class Store:
    """A slot in memory that suspends at each call, fails and waits where a test says, and records its calls.

    Writes that `fails` picks are not done. For those that `loses` picks only the answer is lost. Those that `holds`
    picks wait at `gate` after they are done, those that `delays` picks before.
    """

    def __init__(self, text: str | None) -> None:
        self.text = text
        self.loads = 0
        self.tries = 0
        self.written: list[Record] = []
        self.fails: Writes = no_write
        self.loses: Writes = no_write
        self.holds: Writes = no_write
        self.delays: Writes = no_write
        self.gate = Gate()

    def __repr__(self) -> str:
        return "<the test's store>"

    @property
    def record(self) -> Record:
        return parse(self.text)

    async def load(self) -> str | None:
        self.loads += 1
        await anyio.lowlevel.checkpoint()
        return self.text

    async def replace(self, old: str | None, new: str) -> bool:
        await anyio.lowlevel.checkpoint()
        record = parse(new)
        if self.delays(record):
            await self.gate.hold()
        self.tries += 1
        if self.fails(record):
            raise OSError("the disk is full")
        won = self.text == old
        if won:
            self.text = new
            self.written.append(record)
        if self.holds(record):
            await self.gate.hold()
        await anyio.lowlevel.checkpoint()
        if self.loses(record):
            raise OSError("the connection is gone")
        return won


def endpoint_of(server: AuthorizationServer, **options: Any) -> TokenEndpoint:
    """Return an endpoint at that server, without sockets; its tokens may go to any port of the server."""
    options.setdefault("origins", "any")
    client = httpx.AsyncClient(transport=server.transport())
    return TokenEndpoint(
        server.token_url, server.client_id, server.client_secret, client=client, **options
    )


def client_of(server: AuthorizationServer, http: Any = httpx, **options: Any) -> Any:
    """Return a client of either library that sends every request to that server's API."""
    most = options.pop("max_connections", None)
    make = server.transport if http is httpx else server.transport2
    base = options.pop("base_url", server.api_url)
    return http.AsyncClient(transport=make(max_connections=most), base_url=base, **options)


def auth_of(server: AuthorizationServer, store: Any = None, **options: Any) -> RefreshAuth:
    """Log in at that server, save the token in `store` (by default in memory), and return the auth object."""
    if store is None:
        store = MemoryStore(json.dumps(server.login()))
    return RefreshAuth(endpoint_of(server), store, **options)
