"""A web service whose requests call the API: `uvicorn tests.processes.web:app` serves it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from httpx_refresh import FileStore, RefreshAuth, TokenEndpoint

SERVER = os.environ["SERVER"]

auth = RefreshAuth(
    TokenEndpoint(f"{SERVER}/token", "client", "secret"),
    FileStore(os.environ["TOKEN"]),
    origins=SERVER,
    refresh_timeout=60,
)


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with auth, httpx.AsyncClient(auth=auth, trust_env=False, timeout=60) as client:
        app.state.client = client
        yield


async def ping(request: Request) -> PlainTextResponse:
    response = await request.app.state.client.get(f"{SERVER}/api/ping")
    return PlainTextResponse(str(response.status_code))


app = Starlette(routes=[Route("/", ping)], lifespan=lifespan)
