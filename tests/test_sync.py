"""Sync clients: the same object and the same refresh, on an event loop of the library."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import httpx
import httpx2
import pytest
from joserfc.jwk import RSAKey

from httpx_refresh import (
    BodyNotReplayable,
    ExpiryRule,
    FileStore,
    MemoryStore,
    OriginNotAllowed,
    ReauthorizationRequired,
    RefreshAuth,
    RefreshUnavailable,
    StepUpRequired,
    StoreError,
    TokenEndpoint,
    mcp,
    providers,
)
from httpx_refresh._http import bodies, libraries
from httpx_refresh._refresh import own_loop
from httpx_refresh._refresh.record import parse
from httpx_refresh.grants import ClientCredentials
from httpx_refresh.stores.urls import open_store
from httpx_refresh.testing import Gate
from tests.fakes import Api, Endpoint, both_libraries, refreshing
from tests.virtual_time import VirtualTimeLoop


class SyncApi(Api):
    """The same API for sync clients; `answers` makes the answer to an accepted request."""

    def __init__(self, accepts: Callable[[str], bool] = lambda _: True) -> None:
        super().__init__(accepts)
        self.bodies: list[bytes] = []
        self.threads: set[int] = set()

    def sync_client(self, auth: RefreshAuth, http: Any = httpx, **options: Any) -> Any:
        def answer(_: Any, request: Any) -> Any:
            self.threads.add(threading.get_ident())
            token = request.headers["Authorization"].removeprefix("Bearer ")
            self.seen.append(token)
            # As a connection reads it: a mock transport would keep the body.
            self.bodies.append(b"".join(request.stream))
            if self.accepts(token):
                return http.Response(200, json={"token": "good"})
            return http.Response(401, json={"error": "expired"})

        transport = type("Transport", (http.BaseTransport,), {"handle_request": answer})
        return http.Client(auth=auth, transport=transport(), base_url="https://api.test", **options)


def store_of(endpoint: Endpoint, **options: Any) -> MemoryStore:
    return MemoryStore(endpoint.text(**options))


def only_new(endpoint: Endpoint) -> Callable[[str], bool]:
    return lambda token: token == endpoint.current.access_token and endpoint.issued > 0


@both_libraries
def test_a_good_token_goes_out_on_the_callers_thread_and_no_loop_is_made(http: Any) -> None:
    endpoint, api = Endpoint(), SyncApi()
    auth = RefreshAuth(endpoint, store_of(endpoint))
    before = own_loop.own_loop()
    with api.sync_client(auth, http) as client:
        for _ in range(3):
            assert client.get("/").status_code == 200
    assert own_loop.own_loop() is before
    assert api.seen == ["SECRET-a0"] * 3
    assert api.threads == {threading.get_ident()}
    assert endpoint.asked == []


@both_libraries
def test_a_refused_request_is_refreshed_once_and_sent_again_with_its_body(http: Any) -> None:
    endpoint = Endpoint()
    api = SyncApi(only_new(endpoint))
    auth = RefreshAuth(endpoint, store_of(endpoint))

    def body() -> Iterator[bytes]:
        yield b"a"
        yield b"b"

    with api.sync_client(auth, http) as client:
        assert client.post("/", content=body()).json() == {"token": "good"}
    assert api.bodies == [b"ab", b"ab"]
    assert endpoint.asked == ["SECRET-r0"]
    assert api.threads == {threading.get_ident()}


def test_where_the_librarys_own_loop_shares_a_thread_with_its_callers_they_are_served() -> None:
    """Under gevent each thread is a greenlet of one thread, and asyncio takes the own loop for everybody's."""
    endpoint, api = Endpoint(), SyncApi()
    auth = RefreshAuth(endpoint, store_of(endpoint))
    assert auth.sync.refresh().access_token == "SECRET-a1"
    loop: Any = own_loop.own_loop()
    asyncio._set_running_loop(loop)
    try:
        with api.sync_client(auth) as client:
            assert client.get("/").status_code == 200
        assert auth.sync.refresh().access_token == "SECRET-a2"
    finally:
        asyncio._set_running_loop(None)


@both_libraries
def test_a_multipart_body_whose_file_cannot_be_sought_is_sent_twice(http: Any) -> None:
    class File:
        def __init__(self) -> None:
            self.pieces = [b"once"]

        def read(self, _: int = -1) -> bytes:
            return self.pieces.pop() if self.pieces else b""

    endpoint = Endpoint()
    api = SyncApi(only_new(endpoint))
    with api.sync_client(RefreshAuth(endpoint, store_of(endpoint)), http) as client:
        assert client.post("/", files={"file": ("name", File())}).status_code == 200
    first, second = api.bodies
    assert first == second
    assert b"once" in first


@both_libraries
def test_a_body_past_the_limit_is_not_sent_a_second_time(http: Any) -> None:
    endpoint = Endpoint()
    api = SyncApi(only_new(endpoint))
    auth = RefreshAuth(endpoint, store_of(endpoint), replay_limit=3)
    with api.sync_client(auth, http) as client:
        with pytest.raises(BodyNotReplayable) as raised:
            client.post("/", content=iter([b"ab", b"cd"]))
        assert raised.value.response.json() == {"error": "expired"}  # type: ignore[attr-defined]  # of either library
        assert client.post("/", content=iter([b"ab", b"cd"])).status_code == 200
    assert api.bodies == [b"abcd"] * 2


def test_a_body_that_broke_half_way_is_not_taken_for_a_whole_one() -> None:
    def body() -> Iterator[bytes]:
        yield b"half"
        raise OSError("the disk is gone")

    request = httpx.Request("POST", "https://api.test/", content=body())
    recording = bodies.record(request, 100, bodies.BlockingRecording)
    assert isinstance(recording, bodies.BlockingRecording)
    assert bodies.record(request, 100, bodies.BlockingRecording) is recording
    with pytest.raises(OSError, match="the disk"):
        list(recording)
    with pytest.raises(BodyNotReplayable):
        list(recording)
    recording.close()


def test_what_the_other_kind_of_client_sends_is_left_to_the_client_to_refuse() -> None:
    async def body() -> Any:
        yield b""  # pragma: no cover - nobody reads it

    endpoint, api = Endpoint(), SyncApi()
    with (
        api.sync_client(RefreshAuth(endpoint, store_of(endpoint))) as client,
        pytest.raises(RuntimeError, match="async"),
    ):
        client.post("/", content=body())


@both_libraries
def test_an_expired_token_is_refreshed_before_anything_is_sent(http: Any) -> None:
    endpoint, api = Endpoint(), SyncApi()
    with api.sync_client(RefreshAuth(endpoint, store_of(endpoint, expires_in=-5)), http) as client:
        assert client.get("/").status_code == 200
    assert api.seen == ["SECRET-a1"]


def test_a_token_in_its_last_minute_is_refreshed_while_the_request_goes_on_with_it() -> None:
    endpoint, api = Endpoint(), SyncApi()
    endpoint.gate = Gate()
    auth = RefreshAuth(endpoint, store_of(endpoint, expires_in=5))
    with api.sync_client(auth) as client:
        assert client.get("/").status_code == 200
        own_loop.run(endpoint.gate.arrived, 1, seconds=10)
        assert client.get("/").status_code == 200
        assert api.seen == ["SECRET-a0"] * 2
        own_loop.run(_call(endpoint.gate.release), seconds=10)
        auth.sync.aclose()
        assert client.get("/").status_code == 200
    assert api.seen[-1] == "SECRET-a1"
    assert endpoint.asked == ["SECRET-r0"]


def _call(function: Callable[[], object]) -> Callable[[], Any]:
    async def call() -> None:
        function()

    return call


def test_threads_and_event_loops_of_one_process_share_one_refresh(tmp_path: Any) -> None:
    """Like a Django project: sync views in threads, async views on a loop, and one object made at import time."""
    endpoint = Endpoint()
    api = SyncApi(only_new(endpoint))
    store = FileStore(tmp_path / "token.json")
    (tmp_path / "token.json").write_text(endpoint.text())
    (tmp_path / "token.json").chmod(0o600)
    auth = RefreshAuth(endpoint, store)
    start = threading.Barrier(6)

    def sync_view() -> int:
        with api.sync_client(auth) as client:
            start.wait()
            return int(client.get("/").status_code)

    def async_views() -> int:
        async def view() -> int:
            async with api.client(auth) as client:
                start.wait()
                return int((await client.get("/")).status_code)

        return asyncio.run(view())

    with ThreadPoolExecutor(6) as pool:
        views = [pool.submit(one) for one in (*[sync_view] * 4, *[async_views] * 2)]
        assert [view.result() for view in views] == [200] * 6
    assert endpoint.asked == ["SECRET-r0"]


@both_libraries
def test_a_body_that_says_expired_is_looked_into_and_still_there_for_its_reader(http: Any) -> None:
    endpoint = Endpoint()
    auth = RefreshAuth(
        endpoint, store_of(endpoint), is_expired=ExpiryRule(lambda body: body["error"] == "gone")
    )
    said = deque_of({"error": "gone"}, {"error": "other"})

    def answer(_: Any) -> Any:
        return http.Response(401, content=iter([json.dumps(said.pop(0)).encode()]))

    with http.Client(auth=auth, transport=http.MockTransport(answer)) as client:
        assert client.get("https://api.test/").json() == {"error": "other"}
    assert endpoint.asked == ["SECRET-r0"]


def deque_of(*values: Any) -> list[Any]:
    return list(values)


@both_libraries
def test_of_a_401_no_more_than_its_bound_is_read_and_one_that_is_passed_on_is_whole(
    http: Any,
) -> None:
    read: list[int] = []

    class Body(http.SyncByteStream):  # type: ignore[misc]  # of either library
        def __iter__(self) -> Iterator[bytes]:
            for number in range(20):
                read.append(number)
                yield b"x" * 16_384

    async def look() -> int:
        response = http.Response(401, stream=Body(), request=http.Request("GET", "https://a.test"))
        held = await bodies.read_ahead(response)
        assert isinstance(held, bodies.BlockingHeldBody)
        assert not held.ended
        assert len(read) == 5
        assert len(response.read()) == 20 * 16_384
        return len(read)

    assert _run_without_loop(look) == 20


@both_libraries
def test_of_a_401_in_chunks_of_one_byte_a_thousand_are_read(http: Any) -> None:
    read = 0

    class Body(http.SyncByteStream):  # type: ignore[misc]  # of either library
        def __iter__(self) -> Iterator[bytes]:
            nonlocal read
            while True:
                read += 1
                yield b"x"

    async def look() -> bytes:
        response = http.Response(401, stream=Body(), request=http.Request("GET", "https://a.test"))
        await bodies.give_up(response)
        content = response.read()
        assert isinstance(content, bytes)
        return content

    assert _run_without_loop(look) == b"x" * read
    assert read == bodies.READ_LIMIT // 64 + 1


def _run_without_loop(call: Callable[[], Any]) -> Any:
    try:
        call().send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it suspended")


def test_a_401_that_trickles_is_read_for_two_seconds_and_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    class Trickle(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            while True:
                now[0] += 0.75
                yield b"x"

    async def look() -> bytes:
        response = httpx.Response(
            401, stream=Trickle(), request=httpx.Request("GET", "https://a.test")
        )
        await bodies.read_ahead(response)
        assert now[0] == 2.25
        await bodies.give_up(response)
        return response.read()

    assert _run_without_loop(look) == b"xxx"


@both_libraries
def test_a_401_that_breaks_is_no_reason_not_to_refresh(http: Any) -> None:
    endpoint = Endpoint()

    def broken() -> Iterator[bytes]:
        yield b"a"
        raise http.ReadError("gone")

    def answer(request: Any) -> Any:
        good = request.headers["Authorization"] == "Bearer SECRET-a1"
        return http.Response(200) if good else http.Response(401, content=broken())

    auth = RefreshAuth(endpoint, store_of(endpoint))
    with http.Client(auth=auth, transport=http.MockTransport(answer)) as client:
        assert client.get("https://api.test/").status_code == 200


@both_libraries
def test_a_401_that_broke_and_is_passed_on_breaks_for_its_reader(http: Any) -> None:
    endpoint = Endpoint()
    endpoint.always = RefreshUnavailable("down", outcome="not_sent", transient=False)

    def broken() -> Iterator[bytes]:
        yield b"a"
        raise http.ReadError("gone")

    auth = RefreshAuth(endpoint, store_of(endpoint), unauthorized="return")
    transport = http.MockTransport(lambda _: http.Response(401, content=broken()))
    with (
        http.Client(auth=auth, transport=transport) as client,
        client.stream("GET", "https://api.test/") as response,
    ):
        assert response.status_code == 401
        chunks = response.iter_raw()
        assert next(chunks) == b"a"
        with pytest.raises(http.ReadError, match="gone"):
            next(chunks)


@both_libraries
@pytest.mark.parametrize("breaks", [False, True])
def test_of_a_long_401_over_http_2_the_rest_is_read_and_dropped_up_to_a_bound(
    http: Any, breaks: bool
) -> None:
    """A stream that is closed early stalls its connection."""
    endpoint, sent = Endpoint(), list[int]()

    def body() -> Iterator[bytes]:
        while True:
            if breaks and sum(sent) >= bodies.READ_LIMIT // 2:
                raise http.ReadError("gone")
            sent.append(16_384)
            yield b"x" * sent[-1]

    def answer(request: Any) -> Any:
        if request.headers["Authorization"] == "Bearer SECRET-a1":
            return http.Response(200)
        return http.Response(401, content=body(), extensions={"http_version": b"HTTP/2"})

    auth = RefreshAuth(endpoint, store_of(endpoint))
    with http.Client(auth=auth, transport=http.MockTransport(answer)) as client:
        assert client.get("https://api.test/").status_code == 200
    if breaks:
        assert sum(sent) <= bodies.READ_LIMIT
    else:
        most = bodies.READ_LIMIT + bodies.DISCARD_LIMIT
        assert most <= sum(sent) <= most + 3 * sent[0]


@both_libraries
def test_a_verdict_of_a_sync_caller_s_is_told_to_other_processes(http: Any) -> None:
    endpoint, told = Endpoint(), threading.Event()

    class Told(MemoryStore):
        async def replace(self, old: str | None, new: str) -> bool:
            won = await super().replace(old, new)
            refusals = parse(new).refusals
            if won and refusals is not None and refusals.futile:
                told.set()
            return won

    auth = RefreshAuth(endpoint, Told(endpoint.text()))
    with SyncApi(lambda _: False).sync_client(auth, http) as client:
        assert client.get("/").status_code == 401
    assert told.wait(60)


def test_an_api_that_learns_late_of_a_token_is_asked_a_second_time_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    endpoint = Endpoint()
    accepted = iter([False, False, True])
    api = SyncApi(lambda _: next(accepted))
    with api.sync_client(RefreshAuth(endpoint, store_of(endpoint))) as client:
        assert client.get("/").status_code == 200
    assert api.seen == ["SECRET-a0", "SECRET-a1", "SECRET-a1"]
    assert len(slept) == 1
    assert 0.5 < slept[0] < 1.5


def test_a_part_that_accepted_the_token_is_not_asked_again_with_it_but_served_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    endpoint, ended = Endpoint(), set[str]()
    api = SyncApi(lambda token: token not in ended)
    auth = RefreshAuth(endpoint, store_of(endpoint))
    with api.sync_client(auth) as client:
        auth.sync.refresh()
        assert client.get("/").status_code == 200
        ended.add("SECRET-a1")
        assert client.get("/").status_code == 200
    assert api.seen == ["SECRET-a1", "SECRET-a1", "SECRET-a2"]
    assert slept == []


def test_a_403_tells_what_the_token_may_do_and_what_more_it_needs() -> None:
    endpoint = Endpoint()
    text = json.dumps({**json.loads(endpoint.text()), "scope": "read"})
    challenge = {"www-authenticate": 'Bearer error="insufficient_scope", scope="write"'}

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(403, headers=challenge)

    transport = httpx.MockTransport(answer)
    auth = RefreshAuth(endpoint, MemoryStore(text))
    with httpx.Client(auth=auth, transport=transport, base_url="https://api.test") as client:
        for _ in range(3):
            error = StepUpRequired.from_response(client.get("/"))
            assert error is not None
            assert error.params == {"scope": "read write"}


def test_the_api_is_told_nothing_that_is_not_meant_for_it() -> None:
    endpoint, api = Endpoint(), SyncApi()
    with (
        api.sync_client(RefreshAuth(endpoint, store_of(endpoint))) as client,
        pytest.raises(OriginNotAllowed),
    ):
        client.get("https://elsewhere.test/")
    assert api.seen == []


@pytest.mark.parametrize(
    "failure, kind",
    [
        (ReauthorizationRequired("no", error="invalid_grant"), ReauthorizationRequired),
        (RefreshUnavailable("busy", outcome="refused"), RefreshUnavailable),
    ],
    ids=["dead", "refused"],
)
def test_a_sync_caller_hears_why_there_is_no_token(failure: Exception, kind: Any) -> None:
    endpoint = Endpoint()
    endpoint.always = failure
    api = SyncApi(lambda _: False)
    with (
        api.sync_client(RefreshAuth(endpoint, store_of(endpoint))) as client,
        pytest.raises(kind),
    ):
        client.get("/")


def test_the_calls_without_a_request_have_a_sync_twin() -> None:
    endpoint = Endpoint()
    auth = RefreshAuth(endpoint, MemoryStore())
    with pytest.raises(ReauthorizationRequired):
        auth.sync.token()
    auth.sync.set_token(endpoint.current)
    first = auth.sync.token()
    assert first.access_token == "SECRET-a0"
    assert auth.sync.refresh(refused=first).access_token == "SECRET-a1"
    assert auth.sync.refresh(refused=first).access_token == "SECRET-a1"
    assert auth.sync.refresh().access_token == "SECRET-a2"
    auth.sync.aclose()
    assert repr(auth.sync) == f"{auth!r}.sync"
    with pytest.raises(TypeError):
        auth.sync.set_token("text")  # type: ignore[arg-type]  # that is the test


def test_a_failing_store_is_a_store_error_for_sync_callers_too() -> None:
    with pytest.raises(StoreError):
        RefreshAuth(Endpoint(), MemoryStore("no JSON")).sync.token()


@pytest.mark.parametrize("expires_in", [-5, None], ids=["expired", "refused"])
def test_a_caller_s_context_does_not_keep_whose_client_asked(expires_in: float | None) -> None:
    """A later token request without a client of either library goes out by httpx, whoever asked before."""
    for blocking in (True, False):
        endpoint = Endpoint()
        api = SyncApi(only_new(endpoint))
        auth = RefreshAuth(endpoint, store_of(endpoint, expires_in=expires_in))

        async def ask(api: SyncApi = api, auth: RefreshAuth = auth) -> int:
            async with api.client(auth, httpx2) as client:
                status = int((await client.get("/")).status_code)
            assert libraries.asking.get() is None
            return status

        if blocking:
            with api.sync_client(auth, httpx2) as client:
                assert client.get("/").status_code == 200
        else:
            assert asyncio.run(ask()) == 200
        assert endpoint.asked == ["SECRET-r0"]
        assert libraries.asking.get() is None


# -- unsupported stores and clients ------------------------------------------------------------------------------------


@both_libraries
def test_a_client_that_belongs_to_an_event_loop_is_refused_with_the_line_that_works(
    http: Any,
) -> None:
    lent = http.AsyncClient()
    endpoint = TokenEndpoint("https://as.test/token", "id", client=lent, origins="any")
    api = SyncApi()
    auth = RefreshAuth(endpoint, MemoryStore('{"access_token": "a", "refresh_token": "r"}'))
    with api.sync_client(auth) as client:
        for call in (lambda: client.get("/"), auth.sync.token, auth.sync.refresh):
            with pytest.raises(
                RuntimeError, match=rf"Nothing was sent.*client=lambda: {http.__name__}.AsyncClient"
            ):
                call()
    assert api.seen == []
    asyncio.run(lent.aclose())


def test_each_source_that_has_such_a_client_says_so() -> None:
    lent = httpx.AsyncClient()
    key = RSAKey.generate_key(2048).as_pem(private=True).decode()
    account = {"client_email": "me@x.test", "private_key": key, "private_key_id": "k1"}
    for source in (
        ClientCredentials(TokenEndpoint("https://as.test/", "id", "s", client=lent, origins="any")),
        providers.google_service_account(account, scope="read", client=lent),
        mcp.Server("https://mcp.test/", client=lent),
    ):
        auth = RefreshAuth(source, MemoryStore('{"access_token": "a"}'), origins="any")
        with pytest.raises(RuntimeError, match=r"Nothing was sent.*client=lambda: httpx\.Async"):
            auth.sync.refresh()
    asyncio.run(lent.aclose())


def test_a_redis_client_that_belongs_to_an_event_loop_is_refused_and_open_store_is_not() -> None:
    import redis.asyncio

    from httpx_refresh.stores.encrypted import EncryptedStore, generate_key
    from httpx_refresh.stores.redis import RedisStore

    store = RedisStore(redis.asyncio.Redis(), "a key")
    for one in (store, EncryptedStore(store, [generate_key()])):
        auth = RefreshAuth(Endpoint(), one)
        with pytest.raises(RuntimeError, match=r'open_store\("redis://host/0\?key=a%20key"\)'):
            auth.sync.token()
    assert open_store("redis://host/0?key=name").one_loop is None  # type: ignore[attr-defined]  # RedisStore's


def test_an_engine_with_a_pool_is_refused_and_one_without_is_not(tmp_path: Any) -> None:
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    from httpx_refresh.stores.sql import SQLStore

    url = f"sqlite+aiosqlite:///{tmp_path}/tokens.db"
    endpoint = Endpoint()
    pooled = SQLStore(create_async_engine(url), "name")
    with pytest.raises(RuntimeError, match="NullPool"):
        RefreshAuth(endpoint, pooled).sync.token()
    for store in (
        SQLStore(create_async_engine(url, poolclass=NullPool), "name"),
        open_store(f"{url}?key=other"),
    ):
        asyncio.run(store.create_table())  # type: ignore[attr-defined]  # SQLStore's
        auth = RefreshAuth(endpoint, store)
        auth.sync.set_token(endpoint.current)
        auth.sync.refresh()
        assert asyncio.run(auth.token()) == auth.sync.token()


# -- on the thread of an event loop ------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_sync_request_on_the_loop_that_refreshes_raises_and_nothing_is_sent() -> None:
    endpoint, api = Endpoint(), SyncApi()
    endpoint.gate = Gate()
    store = store_of(endpoint, expires_in=-5)
    auth, other = RefreshAuth(endpoint, store), RefreshAuth(endpoint, store)
    async with anyio.create_task_group() as tasks, api.client(auth) as waiting:
        tasks.start_soon(waiting.get, "/")
        await endpoint.gate.arrived()
        for one in (
            auth,
            other,
        ):  # Another object on the same store would wait for that very claim.
            with (
                api.sync_client(one) as client,
                pytest.raises(RuntimeError, match="wait for itself"),
            ):
                client.get("/")
            with pytest.raises(RuntimeError, match="wait for itself"):
                one.sync.token()
        assert api.seen == []
        endpoint.gate.release()
    assert endpoint.asked == ["SECRET-r0"]
    with api.sync_client(auth) as client:
        assert client.get("/").status_code == 200


class Handle:
    """A custom store on a cell with several stores, without a name for it."""

    def __init__(self, cell: MemoryStore, slot: str | None = None) -> None:
        self.cell = cell
        if slot is not None:
            self.slot = slot

    async def load(self) -> str | None:
        return await self.cell.load()

    async def replace(self, old: str | None, new: str) -> bool:
        return await self.cell.replace(old, new)


@pytest.mark.anyio
async def test_nor_does_it_wait_for_itself_through_another_store_on_the_same_cell() -> None:
    endpoint, api = Endpoint(), SyncApi()
    cell = store_of(endpoint, expires_in=-5)
    auth, other = RefreshAuth(endpoint, Handle(cell)), RefreshAuth(endpoint, Handle(cell))
    endpoint.revoke = None  # type: ignore[attr-defined]  # forget() asks nobody
    async with refreshing(auth, endpoint):
        began = time.monotonic()
        with (
            api.sync_client(other) as client,
            pytest.raises(RuntimeError, match="wait for itself") as raised,
        ):
            client.get("/")
        assert raised.value.__context__ is None
        for call in (other.sync.token, other.sync.refresh, other.sync.forget):
            with pytest.raises(RuntimeError, match="wait for itself"):
                call()
        assert (
            time.monotonic() - began < 20
        )  # Of the 45 s after which the claim would be taken over.
    assert api.seen == []
    assert endpoint.asked == ["SECRET-r0"]
    assert other.sync.token().access_token == "SECRET-a1"


@pytest.mark.anyio
async def test_a_refresh_of_another_token_on_the_loop_is_nothing_to_a_sync_request() -> None:
    """Two databases may each have a row of the same name."""
    endpoint, api = Endpoint(), SyncApi()
    other_endpoint = Endpoint()
    auth = RefreshAuth(endpoint, Handle(store_of(endpoint, expires_in=-5), "sql:tokens:xero"))
    other = RefreshAuth(
        other_endpoint, Handle(store_of(other_endpoint, expires_in=-5), "sql:tokens:xero")
    )
    async with refreshing(auth, endpoint):
        with api.sync_client(other) as client:
            assert client.get("/").status_code == 200
    assert (endpoint.asked, other_endpoint.asked) == (["SECRET-r0"], ["SECRET-r0"])


@pytest.mark.anyio
async def test_a_sync_request_on_the_thread_of_a_loop_blocks_it_and_is_served() -> None:
    endpoint, api = Endpoint(), SyncApi()
    with api.sync_client(RefreshAuth(endpoint, store_of(endpoint, expires_in=-5))) as client:
        assert client.get("/").status_code == 200
    assert endpoint.asked == ["SECRET-r0"]


@pytest.mark.anyio
async def test_a_sync_request_in_a_worker_thread_waits_for_the_refresh_of_the_loop() -> None:
    endpoint, api = Endpoint(), SyncApi()
    endpoint.gate = Gate()
    auth = RefreshAuth(endpoint, store_of(endpoint, expires_in=-5))

    def view() -> int:
        with api.sync_client(auth) as client:
            return int(client.get("/").status_code)

    statuses: list[int] = []

    async def in_thread() -> None:
        statuses.append(await anyio.to_thread.run_sync(view))

    async with anyio.create_task_group() as tasks, api.client(auth) as waiting:
        tasks.start_soon(waiting.get, "/")
        await endpoint.gate.arrived()
        tasks.start_soon(in_thread)
        endpoint.gate.release()
    assert statuses == [200]
    assert endpoint.asked == ["SECRET-r0"]


def test_a_sync_call_on_the_library_s_own_loop_raises_at_once() -> None:
    endpoint = Endpoint()
    auth = RefreshAuth(endpoint, store_of(endpoint, expires_in=-5))

    async def inside() -> None:  # Like a token source, a store or a callback of another token.
        with pytest.raises(RuntimeError, match="own event loop"):
            auth.sync.token()

    own_loop.run(inside, seconds=5.0)
    assert endpoint.asked == []
    assert auth.sync.token().access_token == endpoint.current.access_token


@both_libraries
def test_a_good_token_goes_to_no_other_origin(http: Any) -> None:
    endpoint, api = Endpoint(), SyncApi()
    with api.sync_client(RefreshAuth(endpoint, store_of(endpoint)), http) as client:
        for _ in range(2):  # A request in between has had the token.
            with pytest.raises(OriginNotAllowed):
                client.get("https://elsewhere.test/")
            assert client.get("/").status_code == 200
    assert api.seen == ["SECRET-a0"] * 2


def test_a_token_of_the_wrong_type_stays_in_no_frame() -> None:
    endpoint = Endpoint()
    auth = RefreshAuth(endpoint, store_of(endpoint))
    wrong: Any = {"access_token": "SECRET-x"}
    for put in (auth.sync.set_token, lambda token: asyncio.run(auth.set_token(token))):
        with pytest.raises(TypeError, match="must be a Token") as raised:
            put(wrong)
        frames = [one.frame for one in raised.traceback if "httpx_refresh" in str(one.path)]
        assert frames
        assert "SECRET" not in "".join(repr(frame.f_locals) for frame in frames)


def test_where_the_interpreter_is_ending_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(*_: object, **__: object) -> None:
        raise own_loop.NoAnswer(is_ending=True)

    monkeypatch.setattr(own_loop, "run", ends)
    endpoint = Endpoint()
    auth = RefreshAuth(endpoint, store_of(endpoint))
    with pytest.raises(RefreshUnavailable, match="interpreter is ending") as caught:
        auth.sync.refresh()
    assert (caught.value.outcome, endpoint.asked) == ("unknown", [])


FORKS_DURING_AN_IMPORT = """
import logging, os, signal, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads: that is what is tried here
logging.disable()  # That the child takes its copy of the claim over is told.
from httpx_refresh import RefreshAuth, Token
importing, go = threading.Event(), threading.Event()
class Source:
    origins = "any"
    async def obtain(self, held):
        import takes_its_time  # as anyio's backend and an HTTP library's connections are: at their first use
        return Token("t")
auth = RefreshAuth(Source())
first = threading.Thread(target=auth.sync.token)
first.start()
assert importing.wait(60)
threading.Timer(0.1, go.set).start()
child = os.fork()
if child == 0:
    signal.alarm(50)
    assert auth.sync.token().access_token == "t"
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
first.join()
print("both have a token")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="nothing forks on Windows")
def test_a_child_that_is_forked_while_the_loop_imports_something_has_it_too(
    tmp_path: Path,
) -> None:
    (tmp_path / "takes_its_time.py").write_text(
        "import __main__\n__main__.importing.set()\nassert __main__.go.wait(60)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORKS_DURING_AN_IMPORT],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("both have a token\n", "")


def test_a_fork_by_what_runs_on_the_loop_waits_for_nothing() -> None:
    """As a token source that starts a process does: its own step cannot end first."""

    async def forks() -> float:
        began = time.monotonic()
        own_loop._before_fork()
        own_loop._after_fork()
        return time.monotonic() - began

    assert own_loop.run(forks, seconds=60.0) < own_loop._LONGEST_STEP


class _Ends:
    """Stands for the library's own loop, at the end of the interpreter."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def finish(self) -> None:
        self.told.append("finish")
        own_loop.soon(_nothing, seconds=1.0)  # What ends may have something to note.

    def stop(self) -> None:
        self.told.append("stop")


def _nothing() -> None:
    pass


@pytest.mark.parametrize("daemon, told", [(False, []), (True, ["finish"])])
def test_the_end_of_the_main_thread_ends_no_refresh_while_another_thread_works(
    daemon: bool, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = _Ends()
    monkeypatch.setattr(own_loop, "_own", ends)
    monkeypatch.setattr(own_loop, "soon", lambda *_, **__: None)
    threads = [threading.main_thread(), threading.Thread(daemon=daemon)]
    monkeypatch.setattr(threading, "enumerate", lambda: threads)
    own_loop._main_thread_ended()
    assert ends.told == told


def test_once_the_interpreter_has_ended_its_refreshes_nothing_begins_that_nobody_waits_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ends, begun = _Ends(), []

    def get(_: float) -> Any:
        begun.append(list(ends.told))
        raise own_loop.NoAnswer

    monkeypatch.setattr(own_loop, "_own", ends)
    monkeypatch.setattr(own_loop, "_is_over", False)
    monkeypatch.setattr(own_loop, "_get", get)
    own_loop._interpreter_ends()
    assert ends.told == ["finish", "stop"]
    assert own_loop.own_loop() is None
    own_loop.soon(_nothing, seconds=1.0)
    assert begun == [["finish"]]


def test_what_runs_on_the_loop_is_told_of_its_end_and_waited_for() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(3600.0)
        except asyncio.CancelledError:
            for _ in range(3):
                await asyncio.sleep(0)
            ended.append("it was told, and ended")

    async def end() -> None:
        await own_loop._end_tasks()  # Nothing runs yet, and that is no error.
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        await own_loop._end_tasks()
        assert task.done()

    loop = VirtualTimeLoop()
    try:
        loop.run_until_complete(end())
    finally:
        loop.close()
    assert ended == ["it was told, and ended"]


def test_a_fork_waits_until_the_loop_is_between_two_steps_and_lets_it_go_on() -> None:
    steps: list[str] = []
    own_loop.run(_call(lambda: steps.append("before")), seconds=60.0)
    own_loop._before_fork()
    standing = own_loop._standstill
    try:
        assert standing is not None
        assert standing.reached.is_set()
    finally:
        own_loop._after_fork()
    assert standing.over.is_set()
    assert own_loop._standstill is None
    own_loop.run(_call(lambda: steps.append("after")), seconds=60.0)
    assert steps == ["before", "after"]
