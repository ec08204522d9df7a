"""An authorization server and its API in the process, as small as can be: what is measured is the client."""

from __future__ import annotations

import asyncio
import json
import time
from types import ModuleType
from typing import Any
from urllib.parse import parse_qs

import httpx
import httpx2

BASE = "https://api.test"
PING = f"{BASE}/ping"
TOKEN_URL = f"{BASE}/token"
_PONG = b'{"pong":true}'
_REFUSED = b'{"error":"invalid_token"}'


class World:
    """One grant whose refresh token rotates: spent a second time, it is refused and counted.

    Args:
        lifetime: seconds after which the API refuses an access token by itself; None: only after `expire()`.
        latency: seconds that the token endpoint takes.
        tell: whether the token response says `expires_in`.
    """

    def __init__(
        self, *, lifetime: float | None = None, latency: float = 0.0, tell: bool = True
    ) -> None:
        self.lifetime = lifetime
        self.latency = latency
        self.tell = tell
        self.generation = 0
        self._good: dict[str, float] = {}
        self.api_requests = 0
        self.refused = 0
        self.token_requests = 0
        self.reuses = 0
        self._issue()

    def _issue(self) -> None:
        self.generation += 1
        self.access_token = f"access-{self.generation:032d}"
        self.refresh_token = f"refresh-{self.generation:032d}"
        self._let_in()

    def _let_in(self) -> None:
        """Accept the access token until its time is over; those before it go on until theirs is."""
        now = time.monotonic()
        self._good = {header: ends_at for header, ends_at in self._good.items() if ends_at > now}
        self._good[f"Bearer {self.access_token}"] = now + (self.lifetime or float("inf"))

    def expire(self) -> None:
        """Refuse the access tokens that are out; the refresh token stays good."""
        self._good = {}

    def response(self) -> dict[str, Any]:
        """The token response of the tokens that are out."""
        fields = {
            "access_token": self.access_token,
            "refresh_token": self.refresh_token,
            "token_type": "Bearer",
        }
        return {**fields, "expires_in": self.lifetime or 3600} if self.tell else fields

    def api(self, authorization: str | None) -> tuple[int, bytes]:
        """Answer one request of the API."""
        self.api_requests += 1
        if time.monotonic() < self._good.get(authorization or "", 0.0):
            return 200, _PONG
        self.refused += 1
        return 401, _REFUSED

    def token(self, body: bytes) -> tuple[int, bytes]:
        """Answer one token request."""
        self.token_requests += 1
        form = parse_qs(body.decode())
        if form.get("refresh_token") != [self.refresh_token]:
            self.reuses += 1
            return 400, b'{"error":"invalid_grant"}'
        self._issue()
        return 200, json.dumps(self.response()).encode()

    def transport(self, library: ModuleType) -> Any:
        """A transport of `httpx` or `httpx2` that is this world."""
        return (_Transport if library is httpx else _Transport2)(self)

    def sync_transport(self, library: ModuleType = httpx) -> Any:
        """The same for the library's `Client`, which blocks as it does on a socket."""
        return _SyncTransport(self) if library is httpx else _SyncTransport2(self)


_JSON = {"content-type": "application/json"}


class _Transport(httpx.AsyncBaseTransport):
    library: Any = httpx

    def __init__(self, world: World) -> None:
        self._world = world

    async def handle_async_request(self, request: Any) -> Any:
        await asyncio.sleep(0)
        path = request.url.path
        if path == "/ping":
            status, body = self._world.api(request.headers.get("authorization"))
        elif path == "/token":
            status, body = self._world.token(await request.aread())
            await asyncio.sleep(self._world.latency)
        else:
            status, body = 404, b"{}"
        return self.library.Response(status, headers=_JSON, content=body)


class _Transport2(httpx2.AsyncBaseTransport):
    library: Any = httpx2
    __init__ = _Transport.__init__
    handle_async_request = _Transport.handle_async_request


class _SyncTransport(httpx.BaseTransport):
    library: Any = httpx

    def __init__(self, world: World) -> None:
        self._world = world

    def handle_request(self, request: Any) -> Any:
        if request.url.path == "/token":
            status, body = self._world.token(request.read())
            time.sleep(self._world.latency)
        else:
            status, body = self._world.api(request.headers.get("Authorization"))
        return self.library.Response(status, headers=_JSON, content=body)


class _SyncTransport2(httpx2.BaseTransport):
    library: Any = httpx2
    __init__ = _SyncTransport.__init__
    handle_request = _SyncTransport.handle_request
