"""One process among many that share a store: `python -m benchmarks.worker`, steered by lines of JSON."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import httpx

from httpx_refresh import FileStore, RefreshAuth, TokenEndpoint, TokenStore


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


async def _work(order: dict[str, Any]) -> None:
    store = Counted(open_store(order["backend"], order["place"]))
    endpoint = TokenEndpoint(order["token_url"], order["client_id"], order["client_secret"])
    auth = RefreshAuth(
        endpoint, store, origins="any", refresh_timeout=order["refresh_timeout"], refresh_before=0
    )
    loop = asyncio.get_running_loop()
    async with httpx.AsyncClient(auth=auth, timeout=60, trust_env=False) as client:
        url = f"{order['api_url']}/ping"
        assert (await client.get(url)).status_code == 200
        before = store.operations
        print("ready", flush=True)
        await loop.run_in_executor(None, sys.stdin.readline)
        start = time.perf_counter()
        response = await client.get(url)
        answered_at = time.perf_counter()
        await auth.aclose()
    report = {
        "status": response.status_code,
        "stall": answered_at - start,
        "answered_at": answered_at,
        "written_at": store.written_at,
        "operations": store.operations - before,
    }
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    asyncio.run(_work(json.loads(sys.stdin.readline())))
