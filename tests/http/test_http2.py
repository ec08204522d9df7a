"""HTTP/2: many requests on one connection are refused and sent again with their bodies."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import anyio
import httpx
import pytest
from hypercorn.asyncio import serve
from hypercorn.config import Config

from httpx_refresh import BodyNotReplayable, RefreshAuth
from httpx_refresh.testing import AuthorizationServer
from tests.fakes import Endpoint, Store, auth_of

# Hypercorn runs on asyncio here; the client under test is the same on every event loop.
pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@asynccontextmanager
async def listening(app: Any) -> AsyncIterator[str]:
    """Serve HTTP/2 with prior knowledge (RFC 9113 §3.3) on a socket of loopback."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = Config()
    config.bind = [
        f"fd://{listener.detach()}"
    ]  # From now on the server owns the socket and closes it.
    config.loglevel = "CRITICAL"
    # At the end all clients are closed, and an endless answer still goes on.
    config.graceful_timeout = 0.05
    stop = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: serve(app, config, shutdown_trigger=stop.wait))
        yield url
        stop.set()


async def chunks(count: int) -> AsyncGenerator[bytes]:
    for number in range(count):
        yield b"%04d" % number * 1024


@pytest.mark.anyio
async def test_bodies_and_streams_are_sent_again_whole_on_one_connection() -> None:
    server = AuthorizationServer()
    auth = auth_of(server)
    async with (
        listening(server.app) as url,
        httpx.AsyncClient(
            auth=auth, http1=False, http2=True, timeout=60, base_url=f"{url}/api"
        ) as client,
    ):
        server.expire_access_tokens()
        responses: list[httpx.Response] = []

        async def post() -> None:
            responses.append(await client.post("/things", content=chunks(20)))

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(post)
        async with client.stream("GET", "/ping") as streamed:
            assert await streamed.aread()
    whole = b"".join(b"%04d" % number * 1024 for number in range(20))
    assert {response.http_version for response in responses} == {"HTTP/2"}
    assert [response.status_code for response in responses] == [200] * 20
    assert {response.json()["sha256"] for response in responses} == {
        hashlib.sha256(whole).hexdigest()
    }
    assert server.token_requests == 1
    assert server.api_refused == 20


@pytest.mark.anyio
async def test_a_body_over_the_limit_is_not_sent_again_and_the_next_request_carries_the_new_token() -> (
    None
):
    server = AuthorizationServer()
    auth = auth_of(server, replay_limit=1024)
    async with (
        listening(server.app) as url,
        httpx.AsyncClient(
            auth=auth, http1=False, http2=True, timeout=60, base_url=f"{url}/api"
        ) as client,
    ):
        server.expire_access_tokens()
        with pytest.raises(BodyNotReplayable):
            await client.post("/things", content=chunks(20))
        assert (await client.post("/things", content=chunks(20))).json()["length"] == 20 * 4096
    assert server.token_requests == 1


class Refusing:
    """An ASGI application that refuses the first token with a body; `sockets` are the connections that it saw."""

    def __init__(self, size: int | None) -> None:
        self.size = size
        """Bytes; None: without end."""
        self.sockets: set[Any] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        self.sockets.add(scope["client"])
        refuses = (b"authorization", b"Bearer SECRET-a0") in scope["headers"]
        status = 401 if refuses else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        for at in count(step=10_000) if refuses else ():
            if self.size is not None and at >= self.size:
                break
            await send({"type": "http.response.body", "body": b"x" * 10_000, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


@pytest.mark.anyio
@pytest.mark.parametrize("size", [10_000, 300_000])
async def test_long_refusals_are_read_out_and_stall_no_other_stream(size: int) -> None:
    app = Refusing(size)
    endpoint = Endpoint()
    async with listening(app) as url:
        auth = RefreshAuth(endpoint, Store(endpoint.text()), origins=url)
        async with httpx.AsyncClient(
            auth=auth, http1=False, http2=True, timeout=60, base_url=url, trust_env=False
        ) as client:
            statuses: list[int] = []

            async def get() -> None:
                statuses.append((await client.get("/")).status_code)

            with anyio.fail_after(30):
                async with anyio.create_task_group() as group:
                    for _ in range(30):
                        group.start_soon(get)
    assert statuses == [200] * 30
    assert len(app.sockets) == 1
    assert endpoint.issued == 1


@pytest.mark.anyio
async def test_a_refusal_without_end_is_left_and_the_request_sent_again() -> None:
    app = Refusing(None)
    endpoint = Endpoint()
    async with listening(app) as url:
        auth = RefreshAuth(endpoint, Store(endpoint.text()), origins=url)
        async with httpx.AsyncClient(
            auth=auth, http1=False, http2=True, timeout=60, base_url=url, trust_env=False
        ) as client:
            with anyio.fail_after(30):
                assert (await client.get("/")).status_code == 200
