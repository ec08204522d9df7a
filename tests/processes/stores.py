"""The stores that processes share, by URL. Each process makes its own engine or client."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio

from httpx_refresh import FileStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from httpx_refresh.stores.base import TokenStore


@asynccontextmanager
async def opened(url: str, key: str) -> AsyncIterator[TokenStore]:
    """Open the store under this URL; `key` names the slot if the store has several."""
    scheme, _, rest = url.partition(":")
    if scheme == "file":
        yield FileStore(rest)
    elif scheme == "redis":  # Imported here: a process that starts quickly needs no database.
        from redis.asyncio import Redis

        from httpx_refresh.stores.redis import RedisStore

        client = Redis.from_url(url)
        try:
            yield RedisStore(client, key)
        finally:
            await client.aclose()
    else:
        from sqlalchemy.ext.asyncio import create_async_engine

        from httpx_refresh.stores.sql import SQLStore

        engine = create_async_engine(url)
        store = SQLStore(engine, key)
        await store.create_table()
        try:
            yield store
        finally:
            await engine.dispose()


class Slot:
    """A test's access to the slot, outside any event loop."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.key = key

    def fill(self, fields: dict[str, Any]) -> None:
        """Write a token response into the slot, as another tool would."""

        async def fill() -> None:
            async with opened(self.url, self.key) as store:
                assert await store.replace(await store.load(), json.dumps(fields))

        anyio.run(fill)

    def read(self) -> dict[str, Any]:
        """Return the fields of the text in the slot."""

        async def read() -> str | None:
            async with opened(self.url, self.key) as store:
                return await store.load()

        fields: dict[str, Any] = json.loads(anyio.run(read) or "")
        return fields

    def notes(self) -> dict[str, Any]:
        """Return the library's notes in the text, without those that each refresh leaves."""
        notes: dict[str, Any] = self.read()["httpx_refresh"]
        left = ("rev", "refusals", "issued", "purpose")
        return {name: note for name, note in notes.items() if name not in left}

    def rest(self) -> None:
        """End the pauses that follow when many tokens end early, as if some minutes had passed."""
        fields = self.read()
        fields.get("httpx_refresh", {}).pop("refusals", None)
        self.fill(fields)
