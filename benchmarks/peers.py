"""The field: what people use to keep a bearer token alive, each on the HTTP library that it picks."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import httpx
import httpx2
from authlib.integrations.httpx_client import AsyncOAuth2Client
from httpx_auth import OAuth2, OAuth2ResourceOwnerPasswordCredentials
from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

from httpx_refresh import MemoryStore, RefreshAuth, TokenEndpoint

from .world import BASE, TOKEN_URL, World

OURS = "httpx-refresh"
STATIC = "static header"
TWICE = "every request twice"
ONE_EVENT = "one event, then again"

_names = itertools.count()


@dataclass(frozen=True)
class Peer:
    """One way to authorize requests: `make(library, world, expires_at, transport)` makes a client that does it.

    `expires_at` is when the client is to believe that its token ends (epoch seconds; None: it is not told).
    """

    name: str
    libraries: tuple[ModuleType, ...]
    make: Callable[[ModuleType, World, float | None, Any], Any]
    refreshes: bool = True


def _static(library: ModuleType, world: World, expires_at: float | None, transport: Any) -> Any:
    headers = {"Authorization": f"Bearer {world.access_token}"}
    return library.AsyncClient(transport=transport, headers=headers)


def _plain(library: ModuleType, world: World, expires_at: float | None, transport: Any) -> Any:
    header = f"Bearer {world.access_token}"

    class Plain(library.Auth):  # type: ignore[name-defined, misc]  # a base of either library
        def auth_flow(self, request: Any) -> Generator[Any, Any, None]:
            request.headers["Authorization"] = header
            yield request

    return library.AsyncClient(transport=transport, auth=Plain())


def _twice(library: ModuleType, world: World, expires_at: float | None, transport: Any) -> Any:
    refused, good = "Bearer refused", f"Bearer {world.access_token}"

    class Twice(library.Auth):  # type: ignore[name-defined, misc]  # a base of either library
        def auth_flow(self, request: Any) -> Generator[Any, Any, None]:
            request.headers["Authorization"] = refused
            response = yield request
            if response.status_code == 401:
                request.headers["Authorization"] = good
                yield request

    return library.AsyncClient(transport=transport, auth=Twice())


def _one_event(library: ModuleType, world: World, expires_at: float | None, transport: Any) -> Any:
    """The least that shares a refresh: who is refused waits for one event, and sends again. Nobody refreshes."""
    refused, good = "Bearer refused", f"Bearer {world.access_token}"
    events: list[asyncio.Event] = []

    class OneEvent(library.Auth):  # type: ignore[name-defined, misc]  # a base of either library
        async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
            request.headers["Authorization"] = refused
            response = yield request
            if response.status_code == 401:
                if not events:
                    events.append(asyncio.Event())
                    # When all have been refused, as the answer to a token request comes.
                    asyncio.get_running_loop().call_later(0.0, events[0].set)
                await events[0].wait()
                request.headers["Authorization"] = good
                yield request

    return library.AsyncClient(transport=transport, auth=OneEvent())


def _ours(library: ModuleType, world: World, expires_at: float | None, transport: Any) -> Any:
    text = json.dumps({**world.response(), "expires_at": expires_at})
    asking = library.AsyncClient(transport=world.transport(library))
    endpoint = TokenEndpoint(TOKEN_URL, "client", "secret", client=asking, origins="any")
    return library.AsyncClient(
        transport=transport, auth=RefreshAuth(endpoint, MemoryStore(text), refresh_before=0)
    )


def _recipe(library: ModuleType, world: World, expires_at: float | None, transport: Any) -> Any:
    class LockAroundRefresh(library.Auth):  # type: ignore[name-defined, misc]  # a base of either library
        """The better of the recipes that people paste: it looks again once it has the lock."""

        requires_response_body = True

        def __init__(self) -> None:
            self.access_token, self.refresh_token = world.access_token, world.refresh_token
            self.expires_at = expires_at
            self.lock = asyncio.Lock()
            self.client = library.AsyncClient(transport=world.transport(library))

        async def renew(self, stale: str) -> None:
            async with self.lock:
                if self.access_token != stale:
                    return
                form = {"grant_type": "refresh_token", "refresh_token": self.refresh_token}
                response = await self.client.post(TOKEN_URL, data=form)
                fields = response.raise_for_status().json()
                self.access_token = fields["access_token"]
                self.refresh_token = fields["refresh_token"]
                self.expires_at = time.time() + fields.get("expires_in", 3600)

        async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
            if self.expires_at is not None and time.time() >= self.expires_at:
                await self.renew(self.access_token)
            sent = self.access_token
            request.headers["Authorization"] = f"Bearer {sent}"
            response = yield request
            if response.status_code == 401:
                await self.renew(sent)
                request.headers["Authorization"] = f"Bearer {self.access_token}"
                yield request

    return library.AsyncClient(transport=transport, auth=LockAroundRefresh())


def _authlib(library: ModuleType, world: World, expires_at: float | None, transport: Any) -> Any:
    # It sends token requests through itself. Its tokens' `expires_at` must be a whole number.
    token = {**world.response(), "expires_at": int(expires_at or time.time() + 3600)}
    return AsyncOAuth2Client(
        "client", "secret", token_endpoint=TOKEN_URL, token=token, leeway=0, transport=transport
    )


def _httpx_auth(library: ModuleType, world: World, expires_at: float | None, transport: Any) -> Any:
    auth = OAuth2ResourceOwnerPasswordCredentials(
        TOKEN_URL,
        username=f"user-{next(_names)}",
        password="password",
        client=httpx.Client(transport=world.sync_transport()),
        early_expiry=1e-9,
    )
    OAuth2.token_cache._add_token(
        auth.state, world.access_token, expires_at or time.time() + 3600, world.refresh_token
    )
    return library.AsyncClient(transport=transport, auth=auth)


class _Kept:
    """The MCP SDK's token storage; it is asked for nothing, for the provider is given all it needs."""

    async def get_tokens(self) -> OAuthToken | None:
        return None

    async def set_tokens(self, tokens: OAuthToken) -> None:
        pass

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        pass


async def _nobody(url: str) -> None:
    raise RuntimeError("nobody is here to log in")


async def _nothing() -> tuple[str, str | None]:
    raise RuntimeError("nobody is here to log in")


def _mcp(library: ModuleType, world: World, expires_at: float | None, transport: Any) -> Any:
    auth = OAuthClientProvider(
        f"{BASE}/ping",
        OAuthClientMetadata(redirect_uris=["http://localhost/callback"]),
        _Kept(),
        _nobody,
        _nothing,
    )
    auth._initialized = True
    auth.context.client_info = OAuthClientInformationFull(
        client_id="client",
        client_secret="secret",
        client_auth="client_secret_post",
        redirect_uris=["http://localhost/callback"],
    )
    auth.context.current_tokens = OAuthToken(
        access_token=world.access_token, refresh_token=world.refresh_token
    )
    auth.context.token_expiry_time = expires_at
    return library.AsyncClient(transport=transport, auth=auth)


_BOTH = (httpx, httpx2)
PEERS = {
    peer.name: peer
    for peer in (
        Peer(STATIC, _BOTH, _static, refreshes=False),
        Peer("plain Auth", _BOTH, _plain, refreshes=False),
        Peer(TWICE, _BOTH, _twice, refreshes=False),
        Peer(ONE_EVENT, _BOTH, _one_event, refreshes=False),
        Peer(OURS, _BOTH, _ours),
        Peer("asyncio.Lock recipe", _BOTH, _recipe),
        Peer("Authlib", (httpx2,), _authlib),
        Peer("httpx-auth", (httpx,), _httpx_auth),
        Peer("MCP SDK", (httpx,), _mcp),
    )
}


def of(library: ModuleType, *, refreshing: bool = False) -> list[Peer]:
    """The peers that run on this library."""
    return [
        peer
        for peer in PEERS.values()
        if library in peer.libraries and (peer.refreshes or not refreshing)
    ]
