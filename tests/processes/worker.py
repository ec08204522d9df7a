"""A process with many callers. Each line of its input is the number of requests to make at once.

It answers with a line of JSON: how many ended with which status or error, and the errors' messages.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any

import anyio
import anyio.to_thread
import httpx

from httpx_refresh import RefreshAuth, RefreshAuthError, TokenEndpoint
from httpx_refresh.grants import ClientCredentials
from tests.processes.stores import opened

# Each request has a connection of its own: the server may close a kept one while it is used again.
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=0)


async def work(setup: dict[str, Any]) -> None:
    async with (
        opened(setup["store"], setup["key"]) as store,
        httpx.AsyncClient(trust_env=False, limits=LIMITS, timeout=60) as token_client,
    ):
        endpoint = TokenEndpoint(
            setup["token_url"],
            setup["client_id"],
            setup["client_secret"],
            reuse_grace=setup["reuse_grace"],
            client=token_client,
        )
        source = ClientCredentials(endpoint) if setup["service"] else endpoint
        auth = RefreshAuth(source, store, origins="any", refresh_timeout=setup["refresh_timeout"])
        async with (
            auth,
            httpx.AsyncClient(auth=auth, trust_env=False, limits=LIMITS, timeout=60) as client,
        ):
            print(json.dumps("ready"), flush=True)
            while line := await anyio.to_thread.run_sync(sys.stdin.readline):
                print(
                    json.dumps(await make_requests(client, setup["api_url"], int(line))), flush=True
                )


async def make_requests(client: httpx.AsyncClient, api_url: str, count: int) -> dict[str, Any]:
    ends: Counter[str] = Counter()
    said: set[str] = set()

    async def make_one() -> None:
        try:
            response = await client.get(f"{api_url}/ping")
        except RefreshAuthError as error:
            ends[type(error).__name__] += 1
            said.add(str(error))
        else:
            ends[str(response.status_code)] += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(make_one)
    return {"ends": ends, "said": sorted(said)}


def main() -> None:
    """Run the worker; the command line's argument is its setup in JSON."""
    anyio.run(work, json.loads(sys.argv[1]))
