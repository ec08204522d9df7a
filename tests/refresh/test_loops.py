"""Rule 15: one object, made at import time, for any number of event loops and threads."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
from anyio.lowlevel import checkpoint

from httpx_refresh import (
    FileStore,
    MemoryStore,
    RefreshAuth,
    RefreshUnavailable,
    Token,
)
from httpx_refresh._refresh import slot
from httpx_refresh.testing import AuthorizationServer, Gate
from tests.fakes import Api, Endpoint, Store, auth_of, client_of
from tests.refresh.test_hold import Holding
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
            barrier.wait()  # Blocks on purpose: all four loops begin each round at the same moment.
            await _refuse_and_call(server, auth)

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(lambda: asyncio.run(serve())) for _ in range(4)]:
            future.result()
    assert (server.token_requests, server.reuses_detected) == (rounds, 0)
    assert server.api_accepted == 4 * rounds * 5


def test_a_claim_whose_owner_still_asks_is_not_taken_by_another_loop() -> None:
    endpoint = Endpoint()
    store = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store)
    first = VirtualTimeLoop()

    async def claim() -> asyncio.Task[Token]:
        endpoint.gate = Gate()
        caller = asyncio.create_task(auth.token())
        await endpoint.gate.arrived()
        return caller

    async def go_on(caller: asyncio.Task[Token]) -> Token:
        assert endpoint.gate is not None
        endpoint.gate.release()
        return await caller

    caller = first.run_until_complete(claim())
    loads = store.loads
    asyncio.run(_patient(auth))
    assert store.loads - loads >= 2  # The other loop has read the store again and again.
    assert (len(store.written), len(endpoint.asked)) == (1, 1)
    assert first.run_until_complete(go_on(caller)).access_token == "SECRET-a1"
    first.close()
    assert endpoint.asked == ["SECRET-r0"]


async def _patient(auth: RefreshAuth) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(auth.token(), 0.2)


# The coroutines that the closed loop left are dropped, and never run to their end.
drops_coroutines = pytest.mark.filterwarnings("ignore:coroutine")


def left_by_a_closed_loop(
    store: Store, callers: int = 1
) -> tuple[RefreshAuth, list[asyncio.Task[Token]]]:
    """Close an event loop, its tasks uncancelled, with a token request on the wire; return what it leaves."""
    gone = VirtualTimeLoop()
    gone.set_exception_handler(lambda *_: None)

    class Silent(Endpoint):
        silent = True

        async def refresh(self, token: Token, /) -> Token:
            if self.silent:
                gone.stop()
                await gone.create_future()
            return await super().refresh(token)

    endpoint = Silent()
    auth = RefreshAuth(endpoint, store)
    left = [gone.create_task(auth.token()) for _ in range(callers)]
    gone.run_forever()
    gone.close()
    endpoint.silent = False
    assert store.record.redeeming is not None
    return auth, left


@pytest.mark.parametrize("next_run", ["asyncio", "trio"])
@drops_coroutines
def test_a_claim_that_a_closed_loop_left_is_known_at_once_to_be_nobodys(next_run: str) -> None:
    """A loop that is closed without cancelling its tasks: they never continue."""
    store = Store(Endpoint().text(expires_in=-1))
    auth, (caller,) = left_by_a_closed_loop(store)

    async def go_on() -> None:
        with anyio.fail_after(30):
            assert (await auth.token()).access_token == "SECRET-a1"

    RUNS[next_run](go_on)
    assert store.record.generation == 1
    assert store.written[1].uncertain == store.written[0].redeeming
    assert not caller.done()


@drops_coroutines
def test_the_lock_of_a_claim_that_a_closed_loop_left_is_let_go_of_with_the_next_claim_anywhere() -> (
    None
):
    """This process may never use that store again, and other processes need the lock."""
    store = Holding(Endpoint().text(expires_in=-1))
    _, (caller,) = left_by_a_closed_loop(store)
    assert store.held
    other = Endpoint()
    asyncio.run(_token_of(RefreshAuth(other, Store(other.text(expires_in=-1)))))
    assert (store.held, store.released) == (False, 1)
    assert slot._holding == set()
    assert not caller.done()


@drops_coroutines
def test_a_flight_that_a_closed_loop_left_is_dropped_without_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its callers wait on the loop that is closed: nobody can be woken there."""
    _, callers = left_by_a_closed_loop(Store(Endpoint().text(expires_in=-1)), callers=2)
    other = Endpoint()
    asyncio.run(_token_of(RefreshAuth(other, Store(other.text(expires_in=-1)))))  # It drops them.
    gc.collect()
    assert caplog.messages == []
    assert not any(caller.done() for caller in callers)


async def _token_of(auth: RefreshAuth) -> None:
    await auth.token()


# -- loops that end with a token request on the wire -----------------------------------------------


def _asyncio_run(new_loop: Callable[[], asyncio.AbstractEventLoop], main: Any) -> None:
    """Do what `asyncio.run` does on another kind of loop."""
    loop = new_loop()
    try:
        loop.run_until_complete(main())
    finally:
        asyncio.runners._cancel_all_tasks(loop)  # type: ignore[attr-defined]  # what asyncio.run calls
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _uvloop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


def _eager() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]  # from Python 3.12 on
    return loop


RUNS: dict[str, Callable[[Any], None]] = {
    "asyncio": lambda main: asyncio.run(main()),
    "trio": trio.run,
    **({"uvloop": partial(_asyncio_run, _uvloop)} if sys.platform != "win32" else {}),
    **({"eager": partial(_asyncio_run, _eager)} if sys.version_info >= (3, 12) else {}),
}


class _Slow(Endpoint):
    """Its answer takes many steps of the event loop."""

    async def refresh(self, token: Token, /) -> Token:
        answer = await super().refresh(token)
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        return answer


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("why", ["ahead of its expiry", "because of a 401"])
def test_a_run_that_returns_during_a_token_request_saves_its_result(
    why: str, run: Callable[[Any], None]
) -> None:
    endpoint = _Slow()
    ahead = why == "ahead of its expiry"
    store = Store(endpoint.text(expires_in=30 if ahead else 3600))
    auth = RefreshAuth(endpoint, store)
    api = Api("SECRET-a0".__ne__)

    async def script() -> None:
        if ahead:
            await auth.token()
            await auth.token()
        else:
            async with api.client(auth) as client, anyio.create_task_group() as tasks:
                tasks.start_soon(client.get, "/")
                while not endpoint.asked:
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
        while not endpoint.asked:
            await anyio.lowlevel.checkpoint()

    run(script)
    assert store.record.token is not None
    assert store.record.token.access_token == "SECRET-a1"
    assert (store.record.generation, store.record.redeeming) == (1, None)
    assert store.record.uncertain is None
    assert endpoint.asked == ["SECRET-r0"]


def test_ctrl_c_during_a_token_request_saves_its_result() -> None:
    endpoint = _Slow()
    store = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store)

    async def script() -> None:
        caller = asyncio.create_task(auth.token())
        while not endpoint.asked:
            await checkpoint()
        signal.raise_signal(signal.SIGINT)
        await caller

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(script())
    assert (store.record.generation, store.record.redeeming) == (1, None)
    assert endpoint.asked == ["SECRET-r0"]


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_aclose_starts_nothing_new(run: Callable[[Any], None]) -> None:
    """A caller that waits for another process's claim is released, and no token is spent without a caller."""
    endpoint = Endpoint()
    claim = {"by": "elsewhere:1", "nonce": "n1", "since": time.time(), "for": 0.2}
    store = Store(endpoint.text(expires_in=-1, redeeming=claim))
    auth = RefreshAuth(endpoint, store, refresh_timeout=30)
    errors: list[RefreshUnavailable] = []

    async def call() -> None:
        with pytest.raises(RefreshUnavailable, match="object was closed") as caught:
            await auth.token()
        errors.append(caught.value)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(call)
            while not store.loads:
                await anyio.lowlevel.checkpoint()
            with anyio.fail_after(30):
                await auth.aclose()
        assert [error.outcome for error in errors] == ["not_sent"]
        assert (store.tries, endpoint.asked) == (0, [])
        # The object still works.
        assert (await auth.token()).access_token == "SECRET-a1"

    run(main)


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


def test_what_empties_the_store_does_so_although_its_loop_ends_before_it_begins() -> None:
    endpoint = Endpoint()
    store = MemoryStore(endpoint.text())
    auth = RefreshAuth(endpoint, store)

    async def main() -> None:
        call = asyncio.ensure_future(auth.forget())
        guards: list[asyncio.Task[Any]] = []
        while not guards:
            await asyncio.sleep(0)
            guards = [one for one in asyncio.all_tasks() if one.get_name() == "httpx-refresh guard"]
        guards[0].cancel()
        await call

    asyncio.run(main())
    assert "SECRET" not in str(store.peek())
