"""Rule 15: a forked child drops its parent's flights and starts without them."""

from __future__ import annotations

import os
import sys

import anyio
import anyio.lowlevel
import pytest

from httpx_refresh import RefreshAuth, Token
from httpx_refresh._refresh import slot
from httpx_refresh.testing import Gate
from tests.fakes import Endpoint, Store


@pytest.mark.anyio
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
async def test_a_process_with_another_id_does_not_wait_for_its_parent_s_flight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint = Endpoint()
    endpoint.gate = gate = Gate()
    store = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store)
    async with anyio.create_task_group() as group:
        group.start_soon(auth.token)
        await gate.arrived()
        pid = os.getpid()
        monkeypatch.setattr(
            os, "getpid", lambda: pid + 1
        )  # A child sees this in its copy of the object.
        loads = store.loads
        with anyio.move_on_after(0.2):
            await auth.token()
        assert store.loads > loads  # Its own flight has read the store, and waits for the claim.
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
async def test_a_child_does_not_wait_for_a_claim_that_it_inherited_in_its_own_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = Obtains()
    auth = RefreshAuth(source)
    async with anyio.create_task_group() as group:
        group.start_soon(auth.token)
        await source.gate.arrived()
        with monkeypatch.context() as child:
            pid = os.getpid()
            child.setattr(os, "getpid", lambda: pid + 1)
            child.setattr(slot, "_inherited", slot._inherited)
            slot._inherit()
            with anyio.fail_after(1.0):
                assert (await auth.token()).access_token == "t2"
        source.gate.release()
    await auth.aclose()


@pytest.mark.anyio
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
async def test_a_child_waits_for_its_parent_s_claim_in_a_store_that_both_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint = Endpoint()
    endpoint.gate = gate = Gate()
    store = Store(endpoint.text(expires_in=-1))
    async with anyio.create_task_group() as group:
        group.start_soon(RefreshAuth(endpoint, store).token)
        await gate.arrived()
        with monkeypatch.context() as child:
            pid = os.getpid()
            child.setattr(os, "getpid", lambda: pid + 1)
            child.setattr(slot, "_inherited", slot._inherited)
            slot._inherit()
            loads = store.loads
            group.start_soon(RefreshAuth(endpoint, store).token)
            while store.loads < loads + 3 and len(endpoint.asked) == 1:
                await anyio.lowlevel.checkpoint()
        gate.release()
    assert endpoint.asked == ["SECRET-r0"]
