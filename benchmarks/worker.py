"""One process among many that share a store: `python -m benchmarks.worker`, steered by lines of JSON."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx

from httpx_refresh import FileStore, RefreshAuth, TokenEndpoint, TokenStore

ONE_PIPE = "one pipe, no library"


class Counted:
    """A store, how often it was asked, and when (`time.perf_counter`) it last took a text."""

    def __init__(self, store: TokenStore) -> None:
        self._store = store
        self.operations = 0
        self.written_at = 0.0
        for name in ("hold", "changed"):  # What the store may have besides, as it is.
            if (method := getattr(store, name, None)) is not None:
                setattr(self, name, method)

    async def load(self) -> str | None:
        self.operations += 1
        return await self._store.load()

    async def replace(self, old: str | None, new: str) -> bool:
        self.operations += 1
        written = await self._store.replace(old, new)
        self.written_at = time.perf_counter() if written else self.written_at
        return written


def open_store(backend: str, place: str) -> TokenStore:
    """The store of this backend at a path or a URL."""
    if backend == "file":
        return FileStore(place)
    if backend == "Redis":
        from redis.asyncio import Redis

        from httpx_refresh.stores.redis import RedisStore

        url, _, key = place.rpartition("#")
        return RedisStore(Redis.from_url(url), key)
    from sqlalchemy.ext.asyncio import create_async_engine

    from httpx_refresh.stores.sql import SQLStore

    url, _, key = place.rpartition("#")
    return SQLStore(create_async_engine(url), key)


def prepare_pipe(place: str, login: dict[str, Any]) -> str:
    """Put a login and a pipe there."""
    Path(place).write_text(json.dumps(login), encoding="utf-8")
    os.mkfifo(f"{place}.pipe")
    return place


class OnePipe(httpx.Auth):
    """The least that shares a refresh among processes: one asks, and writes the new token into a pipe for the others.

    Those wait for it in one blocking read. No library, no store, nothing that a crash would leave in order.
    """

    _SIZE = 512  # bytes of a token in the pipe: each reader takes so many

    def __init__(self, order: dict[str, Any]) -> None:
        self._order = order
        self._token = json.loads(Path(order["place"]).read_text(encoding="utf-8"))
        self._pipe = os.open(order["place"] + ".pipe", os.O_RDWR)

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        request.headers["Authorization"] = f"Bearer {self._token['access_token']}"
        response = yield request
        if response.status_code == 401:
            request.headers["Authorization"] = f"Bearer {await self._renewed()}"
            yield request

    async def _renewed(self) -> str:
        order = self._order
        try:
            os.close(os.open(order["place"] + ".claim", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            loop = asyncio.get_running_loop()
            return (
                (await loop.run_in_executor(None, os.read, self._pipe, self._SIZE)).decode().strip()
            )
        form = {"grant_type": "refresh_token", "refresh_token": self._token["refresh_token"]}
        client = (order["client_id"], order["client_secret"])
        async with httpx.AsyncClient(trust_env=False, verify=False) as asking:  # noqa: S501 - plain http
            answer = await asking.post(order["token_url"], data=form, auth=client)
        token: str = answer.raise_for_status().json()["access_token"]
        os.write(self._pipe, token.ljust(self._SIZE).encode() * (order["processes"] - 1))
        return token


async def _work(order: dict[str, Any]) -> None:
    store = auth = None
    if order["backend"] != ONE_PIPE:
        store = Counted(open_store(order["backend"], order["place"]))
        endpoint = TokenEndpoint(order["token_url"], order["client_id"], order["client_secret"])
        auth = RefreshAuth(
            endpoint,
            store,
            origins="any",
            refresh_timeout=order["refresh_timeout"],
            refresh_before=0,
        )
    loop = asyncio.get_running_loop()
    async with httpx.AsyncClient(
        auth=auth or OnePipe(order), timeout=60, trust_env=False
    ) as client:
        url = f"{order['api_url']}/ping"
        assert (await client.get(url)).status_code == 200
        before = store.operations if store else 0
        print("ready", flush=True)
        await loop.run_in_executor(None, sys.stdin.readline)
        worked, start = time.process_time(), time.perf_counter()
        response = await client.get(url)
        answered_at = time.perf_counter()
        worked = time.process_time() - worked
        if auth:
            await auth.aclose()
    report = {
        "status": response.status_code,
        "stall": answered_at - start,
        "processor": worked,
        "answered_at": answered_at,
        "written_at": store.written_at if store else 0.0,
        "operations": store.operations - before if store else 0,
    }
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    asyncio.run(_work(json.loads(sys.stdin.readline())))
