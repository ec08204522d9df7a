"""Rules 1, 2, 5 and 15: one expiry, one token request, whoever shares the token."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from httpx_refresh import FileStore, MemoryStore, RefreshAuth, Token
from httpx_refresh.testing import Answer, AuthorizationServer, Gate
from tests.fakes import (
    Endpoint,
    Store,
    auth_of,
    both_libraries,
    claims,
    client_of,
    endpoint_of,
    loop_wall,
    use_loop_time,
)
from tests.virtual_time import VirtualTimeLoop, virtual_time

if TYPE_CHECKING:
    from pathlib import Path


def test_a_claim_whose_writer_waits_for_the_answer_is_not_taken_by_another_loop() -> None:
    endpoint = Endpoint()
    store = Store(endpoint.text(expires_in=-1))
    store.holds = claims
    auth = RefreshAuth(endpoint, store)
    first, second = VirtualTimeLoop(), VirtualTimeLoop()

    async def look_often() -> None:
        caller = asyncio.create_task(auth.token())
        while store.loads < 5:
            await asyncio.sleep(1)
        caller.cancel()
        await asyncio.wait([caller])

    try:
        caller = first.create_task(auth.token())
        first.run_until_complete(store.gate.arrived())
        second.run_until_complete(asyncio.wait_for(look_often(), 60))
        assert (len(store.written), endpoint.asked) == (1, [])
        store.gate.release()
        assert first.run_until_complete(caller).access_token == "SECRET-a1"
    finally:
        for loop in (first, second):
            for task in asyncio.all_tasks(loop):
                task.cancel()
                loop.run_until_complete(asyncio.wait([task]))
            loop.close()
    assert endpoint.asked == ["SECRET-r0"]
