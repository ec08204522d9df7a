"""Rule 15: one object, made at import time, for any number of event loops and threads."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from httpx_refresh import FileStore, MemoryStore, RefreshAuth, Token
from httpx_refresh.testing import AuthorizationServer, Gate
from tests.fakes import Endpoint, Store, auth_of, claims, client_of
from tests.virtual_time import VirtualTimeLoop


async def _refuse_and_call(server: AuthorizationServer, auth: RefreshAuth) -> None:
    async with client_of(server, auth=auth) as client:
        for _ in range(5):
            assert (await client.get("/ping")).status_code == 200


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_an_object_made_at_import_time_serves_three_event_loops_in_a_row(
    kind: str, tmp_path: Path
) -> None:
    server = AuthorizationServer()
    text = json.dumps(server.login())
    store: Any = MemoryStore(text)
    if kind == "file":
        (tmp_path / "token.json").write_text(text)
        store = FileStore(tmp_path / "token.json")
    auth = auth_of(server, store)
    for _ in range(3):
        server.expire_access_tokens()
        asyncio.run(_refuse_and_call(server, auth))
    assert (server.token_requests, server.reuses_detected) == (3, 0)


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_four_threads_with_an_event_loop_each_share_one_refresh_an_expiry(
    kind: str, tmp_path: Path
) -> None:
    server = AuthorizationServer()
    text = json.dumps(server.login())
    store: Any = MemoryStore(text)
    if kind == "file":
        (tmp_path / "token.json").write_text(text)
        store = FileStore(tmp_path / "token.json")
    auth = auth_of(server, store)
    rounds = 5
    barrier = threading.Barrier(4, action=server.expire_access_tokens, timeout=30)

    async def serve() -> None:
        for _ in range(rounds):
            barrier.wait()  # On purpose: all four loops begin each round at one moment.
            await _refuse_and_call(server, auth)

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(lambda: asyncio.run(serve())) for _ in range(4)]:
            future.result()
    assert (server.token_requests, server.reuses_detected) == (rounds, 0)
    assert server.api_accepted == 4 * rounds * 5


def test_a_claim_whose_writer_waits_for_the_answer_is_not_taken_by_another_loop() -> None:
    endpoint = Endpoint()
    store = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store)
    first, second = VirtualTimeLoop(), VirtualTimeLoop()

    async def claim() -> asyncio.Task[Token]:
        store.holds, store.gate = claims, Gate()
        caller = asyncio.create_task(auth.token())
        await store.gate.arrived()
        return caller

    async def look_for_a_minute() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(auth.token(), 60)
        (flight,) = asyncio.all_tasks() - {asyncio.current_task()}
        flight.cancel()
        await asyncio.wait([flight])

    async def go_on(caller: asyncio.Task[Token]) -> Token:
        store.gate.release()
        return await caller

    caller = first.run_until_complete(claim())
    second.run_until_complete(look_for_a_minute())
    assert (len(store.written), endpoint.asked) == (1, [])
    assert first.run_until_complete(go_on(caller)).access_token == "SECRET-a1"
    first.close()
    second.close()
    assert endpoint.asked == ["SECRET-r0"]
    assert store.loads > 10  # The other loop has looked, again and again.


def test_aclose_waits_for_no_flight_of_another_loop() -> None:
    endpoint = Endpoint()
    store = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store)
    first = VirtualTimeLoop()

    async def ask() -> asyncio.Task[Token]:
        endpoint.gate = Gate()
        caller = asyncio.create_task(auth.token())
        await endpoint.gate.arrived()
        return caller

    async def go_on(caller: asyncio.Task[Token]) -> Token:
        assert endpoint.gate is not None
        endpoint.gate.release()
        return await caller

    caller = first.run_until_complete(ask())
    asyncio.run(asyncio.wait_for(auth.aclose(), 10))
    assert first.run_until_complete(go_on(caller)) == store.record.token
    first.close()
