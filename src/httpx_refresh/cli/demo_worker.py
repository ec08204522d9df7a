"""One process of the demo: callers with the recipe's auth, or with this library's.

It reads commands as lines of JSON from its standard input, and answers each with lines of JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from .._auth import RefreshAuth
from .._oauth.endpoint import TokenEndpoint
from ..stores import FileStore
from .demo_recipe import LockedAuth

REPORT_EVERY = 0.1  # seconds
CONNECTIONS = 20


def auth_of(setup: dict[str, Any]) -> httpx.Auth:
    """Return the auth that this process uses."""
    path = Path(setup["path"])
    client = (setup["token_url"], setup["client_id"], setup["client_secret"])
    if setup["recipe"]:
        return LockedAuth(*client, path)
    endpoint = TokenEndpoint(*client, reuse_grace=setup["reuse_grace"])
    return RefreshAuth(
        endpoint,
        FileStore(path),
        origins=setup["url"],
        refresh_timeout=setup["refresh_timeout"],
    )


def report(**facts: Any) -> None:
    """Write one line of JSON for the process that started this one."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


class Reporter(logging.Handler):
    """Reports the library's log records."""

    def emit(self, record: logging.LogRecord) -> None:
        """Report one record."""
        report(log=record.getMessage())


class Callers:
    """The callers of this process. Mutable: `_one`, the caller that can be cancelled; `_seen`, the users' results."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self._url = url
        self._one: asyncio.Task[None] | None = None
        self._seen: Counter[str] = Counter()

    async def do(self, command: str, count: int = 1) -> None:
        """Run one command: `call`, `start one` or `cancel one`."""
        if command == "call":
            await self._call(count)
        elif command == "start one":
            self._one = asyncio.create_task(self._caller(0))
            report(done=True)
        elif self._one is not None:
            cancelled = self._one.cancel()
            await asyncio.wait([self._one])
            report(done=True, cancelled=cancelled and self._one.cancelled())

    async def _call(self, count: int) -> None:
        self._seen.clear()
        callers = {asyncio.create_task(self._caller(number)) for number in range(count)}
        while callers:
            _, callers = await asyncio.wait(callers, timeout=REPORT_EVERY)
            report(seen=dict(self._seen))
        report(done=True, seen=dict(self._seen))

    async def _caller(self, number: int) -> None:
        try:
            response = await self._client.get(f"{self._url}/invoices/{number}")
        except Exception as error:
            self._seen[type(error).__name__] += 1
        else:
            self._seen[str(response.status_code)] += 1


async def main() -> None:
    """Serve commands until standard input ends."""
    setup = json.loads(await asyncio.to_thread(sys.stdin.readline))
    logger = logging.getLogger("httpx_refresh")
    logger.addHandler(Reporter(logging.WARNING))
    # The server closes connections that were idle for five seconds. If a request is sent just then, it fails.
    limits = httpx.Limits(max_connections=CONNECTIONS, keepalive_expiry=2.0)
    async with httpx.AsyncClient(
        auth=auth_of(setup), limits=limits, timeout=60, trust_env=False
    ) as client:
        callers = Callers(client, setup["api_url"])
        report(done=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            await callers.do(**json.loads(line))


if __name__ == "__main__":
    asyncio.run(main())
