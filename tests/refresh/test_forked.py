"""Rule 15: a forked child drops its parent's flights and starts without them."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import anyio
import anyio.lowlevel
import pytest

from httpx_refresh import RefreshAuth, Token
from httpx_refresh._refresh import slot
from httpx_refresh.testing import Gate
from tests.fakes import Endpoint, Store


@contextlib.contextmanager
def forked() -> Iterator[None]:
    """Let the code inside see what a forked child sees: another process id, and claims that are its parent's."""
    with pytest.MonkeyPatch.context() as child:
        pid = os.getpid()
        child.setattr(os, "getpid", lambda: pid + 1)
        child.setattr(slot, "_inherited", slot._inherited)
        slot._inherit()
        yield


@pytest.mark.anyio
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
async def test_a_process_with_another_id_does_not_wait_for_its_parent_s_flight() -> None:
    endpoint = Endpoint()
    endpoint.gate = gate = Gate()
    store = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store)
    async with anyio.create_task_group() as group:
        group.start_soon(auth.token)
        await gate.arrived()
        with forked():
            loads = store.loads
            group.start_soon(auth.token)
            while store.loads == loads:  # Its own flight reads the store, and waits for the claim.
                await anyio.lowlevel.checkpoint()
        gate.release()
    assert endpoint.asked == ["SECRET-r0"]
    await auth.aclose()


class Obtains:
    """Starts without a token; its first answer waits for the gate."""

    origins = "any"

    def __init__(self) -> None:
        self.gate = Gate()
        self.asked = 0

    async def obtain(self, _: Token | None, /) -> Token:
        self.asked += 1
        if self.asked == 1:
            await self.gate.hold()
        return Token(f"t{self.asked}")


@pytest.mark.anyio
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
async def test_a_child_does_not_wait_for_a_claim_that_it_inherited_in_its_own_memory() -> None:
    source = Obtains()
    auth = RefreshAuth(source)
    async with anyio.create_task_group() as group:
        group.start_soon(auth.token)
        await source.gate.arrived()
        with forked(), anyio.fail_after(30):
            assert (await auth.token()).access_token == "t2"
        source.gate.release()
    await auth.aclose()


@pytest.mark.anyio
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
async def test_a_child_waits_for_its_parent_s_claim_in_a_store_that_both_have() -> None:
    endpoint = Endpoint()
    endpoint.gate = gate = Gate()
    store = Store(endpoint.text(expires_in=-1))
    async with anyio.create_task_group() as group:
        group.start_soon(RefreshAuth(endpoint, store).token)
        await gate.arrived()
        with forked():
            loads = store.loads
            group.start_soon(RefreshAuth(endpoint, store).token)
            while store.loads < loads + 3 and len(endpoint.asked) == 1:
                await anyio.lowlevel.checkpoint()
        gate.release()
    assert endpoint.asked == ["SECRET-r0"]
