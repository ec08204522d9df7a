"""Rules 1, 2, 5 and 15: one expiry costs one token request, for all who share the token."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import httpx
import pytest

from httpx_refresh import MemoryStore, RefreshAuth, Token
from httpx_refresh.testing import Answer, AuthorizationServer, Gate
from tests.fakes import (
    Endpoint,
    Store,
    auth_of,
    both_libraries,
    client_of,
    loop_wall,
    use_loop_time,
)
from tests.virtual_time import virtual_time

if TYPE_CHECKING:
    pass


@both_libraries
@pytest.mark.anyio
@pytest.mark.parametrize("callers", [100, pytest.param(1000, marks=pytest.mark.size)])
async def test_any_number_of_coroutines_at_one_expiry_make_one_token_request(
    http: Any, callers: int
) -> None:
    server = AuthorizationServer()
    auth = auth_of(server)
    statuses: list[int] = []

    async def call() -> None:
        statuses.append((await client.get("/ping")).status_code)

    async with client_of(server, http, auth=auth) as client:
        await call()
        server.expire_access_tokens()
        async with anyio.create_task_group() as group:
            for _ in range(callers):
                group.start_soon(call)
    assert statuses == [200] * (callers + 1)
    assert (server.token_requests, server.rotations) == (1, 1)
    assert server.api_requests <= 2 * callers + 1


@pytest.mark.anyio
async def test_a_thousand_waiters_look_at_the_store_once_and_write_to_it_twice() -> None:
    endpoint = Endpoint()
    store = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store)
    async with anyio.create_task_group() as group:
        for _ in range(1000):
            group.start_soon(auth.token)
    assert (store.loads, store.tries, len(endpoint.asked)) == (1, 2, 1)


@pytest.mark.anyio
@virtual_time
async def test_twelve_staggered_refusals_of_one_old_token_make_one_token_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_loop_time(monkeypatch)
    server = AuthorizationServer(clock=loop_wall)
    auth = auth_of(server)
    gates = [Gate() for _ in range(12)]
    done: list[int] = []

    async def call() -> None:
        done.append((await client.get("/ping")).status_code)

    async with client_of(server, auth=auth) as client:
        await call()
        server.expire_access_tokens()
        server.script_api(*(Answer(gate=gate) for gate in gates))
        async with anyio.create_task_group() as group:
            for gate in gates:
                group.start_soon(call)
                await gate.arrived()
            for number, gate in enumerate(gates, start=2):
                gate.release()
                while len(done) < number:
                    await anyio.wait_all_tasks_blocked()
    assert done == [200] * 13
    assert (server.token_requests, server.api_requests) == (1, 25)


@pytest.mark.anyio
async def test_a_late_refusal_of_an_older_token_is_replayed_and_not_refreshed() -> None:
    server = AuthorizationServer()
    store = Store(json.dumps(server.login()))
    auth = auth_of(server, store)
    gate = Gate()
    async with client_of(server, auth=auth) as client, anyio.create_task_group() as group:
        await auth.token()
        server.expire_access_tokens()
        server.script_api(Answer(gate=gate))
        group.start_soon(client.get, "/ping")
        await gate.arrived()
        await auth.refresh()
        looks = store.loads
        gate.release()
    assert (server.token_requests, server.api_accepted) == (1, 1)
    assert store.loads == looks


@pytest.mark.anyio
async def test_requests_overlap_before_during_and_after_a_refresh() -> None:
    server = AuthorizationServer()
    auth = auth_of(server)
    held, asked = Gate(), Gate()
    async with client_of(server, auth=auth) as client, anyio.create_task_group() as group:
        await auth.token()
        server.script_api(*(Answer(gate=held) for _ in range(10)))
        for _ in range(10):
            group.start_soon(client.get, "/ping")
        await held.arrived(10)
        server.script(Answer(gate=asked))
        group.start_soon(auth.refresh)
        await asked.arrived()
        # The token is still valid, so the refresh that is under way delays nobody.
        assert (await client.get("/ping")).status_code == 200
        asked.release()
        await auth.aclose()
        assert (await client.get("/ping")).status_code == 200
        held.release()
    assert (server.token_requests, server.api_refused) == (1, 0)


@pytest.mark.anyio
@virtual_time
async def test_twenty_objects_on_one_store_make_one_token_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_loop_time(monkeypatch)
    endpoint = Endpoint(clock=loop_wall)
    store = Store(endpoint.text(expires_in=-1))
    got: list[Token] = []

    async def call() -> None:
        got.append(await RefreshAuth(endpoint, store).token())

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(call)
    assert {token.access_token for token in got} == {"SECRET-a1"}
    assert (len(got), endpoint.asked) == (20, ["SECRET-r0"])


@pytest.mark.anyio
@pytest.mark.parametrize("rotate", [False, "same"])
async def test_a_refresh_token_that_is_not_sent_again_or_the_same_is_kept(rotate: Any) -> None:
    server = AuthorizationServer(rotate=rotate, extra={"instance_url": "https://one.example"})
    login = server.login()
    store = MemoryStore(json.dumps({**login, "id_token": "kept", "expires_in": 3600}))
    auth = auth_of(server, store)
    first = await auth.refresh()
    server.extra = {"instance_url": "https://two.example"}
    second = await auth.refresh()
    assert first.refresh_token == second.refresh_token == login["refresh_token"]
    assert first.access_token != second.access_token
    assert second.extra["id_token"] == "kept"
    assert second.extra["instance_url"] == "https://two.example"
    assert server.token_requests == 2


@pytest.mark.anyio
async def test_a_token_that_came_while_a_refusal_was_read_is_used_and_not_refreshed() -> None:
    endpoint = Endpoint()
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=3600)))
    gate = Gate()

    async def slow() -> AsyncIterator[bytes]:
        await gate.hold()
        yield b"refused"

    def answer(request: httpx.Request) -> httpx.Response:
        if request.headers["Authorization"] == "Bearer SECRET-a0":
            return httpx.Response(401, content=slow())
        return httpx.Response(200)

    async with (
        httpx.AsyncClient(auth=auth, transport=httpx.MockTransport(answer)) as client,
        anyio.create_task_group() as group,
    ):
        group.start_soon(client.get, "https://api.test/")
        await gate.arrived()
        await auth.refresh()
        gate.release()
    assert endpoint.asked == ["SECRET-r0"]


@pytest.mark.anyio
async def test_fifty_who_were_refused_elsewhere_with_one_token_make_one_refresh() -> None:
    endpoint = Endpoint()
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=3600)))
    refused = await auth.token()
    seen: set[str] = set()

    async def call() -> None:
        await anyio.lowlevel.checkpoint()
        seen.add((await auth.refresh(refused=refused)).access_token)

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(call)
    await call()  # Long after the others.
    assert (seen, endpoint.asked) == ({"SECRET-a1"}, ["SECRET-r0"])


@pytest.mark.anyio
async def test_what_was_refused_is_a_token_and_one_that_has_expired_since_is_refreshed() -> None:
    endpoint = Endpoint()
    store = Store(endpoint.text(expires_in=3600))
    auth = RefreshAuth(endpoint, store)
    refused = await auth.token()
    with pytest.raises(TypeError, match="refused must be a Token"):
        await auth.refresh(refused=refused.access_token)  # type: ignore[arg-type]  # on purpose
    other = RefreshAuth(endpoint, store)  # It holds none yet.
    assert (await other.refresh(refused=refused)).access_token == "SECRET-a1"
    known = other._session.credential
    assert known is not None
    other._session.credential = replace(known, expires_at=1.0)
    assert (await other.refresh(refused=refused)).access_token == "SECRET-a2"
