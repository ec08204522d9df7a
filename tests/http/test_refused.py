"""Rule 14: the body of a 401 is read within limits, before anybody waits, and is complete if it is passed on."""

from __future__ import annotations

import functools
import gc
import gzip
import json
import tracemalloc
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from httpx_refresh import BodyNotReplayable, ExpiryRule, RefreshAuth
from httpx_refresh._http.bodies import DISCARD_LIMIT, READ_LIMIT, give_up
from tests.fakes import Endpoint, Store, both_libraries, loop_wall, use_loop_time
from tests.oauth.raw_server import raw_server
from tests.virtual_time import virtual_time

pytestmark = [pytest.mark.anyio, both_libraries]

Chunks = Callable[[], AsyncIterator[bytes]]


class Refusing:
    """An API that refuses the first token, or all tokens, with a body.

    `pulled` counts the bytes that were read, and `chunks` their pieces.

    The body goes through a chain of async generators, as a body from a socket does. `ended` counts the innermost ones
    that have ended, by a cancellation, by a close or by themselves.
    """

    def __init__(
        self,
        http: Any,
        chunks: Chunks,
        *,
        headers: dict[str, str] | None = None,
        always: bool = False,
        version: bytes = b"HTTP/1.1",
    ) -> None:
        self.http = http
        self.pulled = self.chunks = 0
        self.begun = self.ended = self.closed = 0
        self.sent: list[str] = []
        api = self

        class Stream(http.AsyncByteStream):  # type: ignore[misc]  # a base of either library
            async def __aiter__(self) -> AsyncIterator[bytes]:
                async for chunk in api.pull(chunks()):
                    yield chunk

            async def aclose(self) -> None:
                api.closed += 1

        async def answer(request: Any) -> Any:
            async for _ in request.stream:
                pass
            self.sent.append(request.headers["authorization"])
            if always or "SECRET-a0" in self.sent[-1]:
                return http.Response(
                    401,
                    headers=headers,
                    stream=Stream(),
                    extensions={"http_version": version},
                )
            return http.Response(200, text="welcome")

        class Transport(http.AsyncBaseTransport):  # type: ignore[misc]  # a base of either library
            async def handle_async_request(self, request: Any) -> Any:
                return await answer(request)

        self.transport = Transport()

    async def pull(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self.begun += 1
        try:
            async for chunk in chunks:
                self.pulled += len(chunk)
                self.chunks += 1
                yield chunk
        finally:
            self.ended += 1

    def client(self, *, virtual: bool = False, **options: Any) -> Any:
        self.endpoint = Endpoint(clock=loop_wall) if virtual else Endpoint()
        auth = RefreshAuth(self.endpoint, Store(self.endpoint.text()), **options)
        return self.http.AsyncClient(
            auth=auth, transport=self.transport, base_url="https://api.test", timeout=None
        )

    @property
    def all_closed(self) -> bool:
        return self.begun == self.ended == self.closed


def pieces(*chunks: bytes, pause: float = 0.0) -> Chunks:
    async def generate() -> AsyncGenerator[bytes]:
        for chunk in chunks:
            await (anyio.sleep(pause) if pause else anyio.lowlevel.checkpoint())
            yield chunk

    return generate


def without_end(chunk: bytes, pause: float = 0.0) -> Chunks:
    async def generate() -> AsyncGenerator[bytes]:
        while True:
            await (anyio.sleep(pause) if pause else anyio.lowlevel.checkpoint())
            yield chunk

    return generate


async def fetched(client: Any, streamed: bool) -> str:
    """Get the page in one of the two ways, and return the body of the last response."""
    if not streamed:
        return str((await client.get("/")).text)
    async with client.stream("GET", "/") as response:
        return "".join([text async for text in response.aiter_text()])


in_both_ways = pytest.mark.parametrize("streamed", [False, True], ids=["get", "stream"])


@functools.cache
def packed_zeros(wbits: int) -> bytes:
    """Return 300 KiB that decode to 300 MiB: one repeated block."""
    packer = zlib.compressobj(9, wbits=wbits)
    first, block = (
        packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2)
    )
    return first + 299 * block


# -- sent again: any refused body costs little ---------------------------------------------------------


@in_both_ways
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
async def test_a_bomb_is_not_unpacked(http: Any, streamed: bool, encoding: str) -> None:
    bomb = packed_zeros(31 if encoding == "gzip" else 15)
    bombs = [bomb[at : at + 4096] for at in range(0, len(bomb), 4096)]
    api = Refusing(http, pieces(*bombs), headers={"content-encoding": encoding})
    async with api.client() as client:
        gc.collect()
        tracemalloc.start()
        try:
            assert await fetched(client, streamed) == "welcome"
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 5_000_000
    assert api.pulled <= READ_LIMIT + 4096
    assert api.all_closed


@in_both_ways
@virtual_time
@pytest.mark.parametrize("pause", [1.0, 1e9], ids=["drip", "silence"])
async def test_a_drip_holds_a_caller_for_two_seconds(
    http: Any, streamed: bool, pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_loop_time(monkeypatch)
    api = Refusing(http, without_end(b".", pause))
    async with api.client(virtual=True) as client:
        began = anyio.current_time()
        assert await fetched(client, streamed) == "welcome"
        assert anyio.current_time() - began == pytest.approx(2.0, abs=0.1)
    assert api.pulled <= 3
    assert api.all_closed


@in_both_ways
async def test_of_a_body_without_end_64_kib_are_read(http: Any, streamed: bool) -> None:
    api = Refusing(http, without_end(b"x" * 1000))
    async with api.client() as client:
        assert await fetched(client, streamed) == "welcome"
    # Chunks that are there without a wait may be read while the body is closed.
    assert READ_LIMIT < api.pulled < READ_LIMIT + 100_000
    assert api.all_closed


@in_both_ways
@pytest.mark.parametrize("chunk", [b"x", b""])
async def test_of_a_body_in_tiny_chunks_a_thousand_are_read(
    http: Any, streamed: bool, chunk: bytes
) -> None:
    api = Refusing(http, without_end(chunk), version=b"HTTP/2")
    async with api.client() as client:
        assert await fetched(client, streamed) == "welcome"
    assert READ_LIMIT / 64 < api.chunks < (READ_LIMIT + DISCARD_LIMIT) / 64 + 100
    assert api.all_closed


@in_both_ways
async def test_on_http_2_a_megabyte_more_is_discarded_and_no_more(
    http: Any, streamed: bool
) -> None:
    endless = Refusing(http, without_end(b"x" * 10_000), version=b"HTTP/2")
    async with endless.client() as client:
        assert await fetched(client, streamed) == "welcome"
    assert DISCARD_LIMIT < endless.pulled < DISCARD_LIMIT + READ_LIMIT + 700_000
    long = Refusing(http, pieces(*[b"x" * 10_000] * 50), version=b"HTTP/2")
    async with long.client() as client:
        assert await fetched(client, streamed) == "welcome"
    assert long.pulled == 500_000
    assert endless.all_closed
    assert long.all_closed


@virtual_time
async def test_on_http_2_a_drip_is_discarded_for_two_seconds(
    http: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_loop_time(monkeypatch)
    api = Refusing(http, without_end(b".", 0.3), version=b"HTTP/2")
    async with api.client(virtual=True) as client:
        began = anyio.current_time()
        assert await fetched(client, streamed=False) == "welcome"
        assert anyio.current_time() - began == pytest.approx(4.0, abs=0.1)
    assert api.all_closed


@in_both_ways
@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/2"])
@pytest.mark.parametrize("size", [1, READ_LIMIT + 1])
async def test_a_body_that_breaks_is_no_obstacle_to_a_replay(
    http: Any, streamed: bool, version: bytes, size: int
) -> None:
    async def breaking() -> AsyncGenerator[bytes]:
        yield b"x" * size
        raise http.ReadError("the connection broke")

    api = Refusing(http, breaking, version=version)
    async with api.client() as client:
        assert await fetched(client, streamed) == "welcome"
    assert api.all_closed


@pytest.mark.parametrize("end", [StopAsyncIteration, ConnectionError])
async def test_a_body_that_ends_or_breaks_while_it_is_discarded_is_asked_for_no_more(
    http: Any, end: type[Exception]
) -> None:
    taken: list[bytes | None] = []

    class Stream(http.AsyncByteStream):  # type: ignore[misc]  # a base of either library
        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            taken.append(b"x" * (READ_LIMIT + 1) if not taken else None)
            await anyio.lowlevel.checkpoint()
            if taken[-1] is None:
                raise end
            return taken[-1]

    response = http.Response(401, stream=Stream(), extensions={"http_version": b"HTTP/2"})
    await give_up(response)
    assert taken == [b"x" * (READ_LIMIT + 1), None]
    assert await response.aread() == b"x" * READ_LIMIT


async def test_the_refused_response_stays_in_the_history_and_can_be_read(http: Any) -> None:
    said = json.dumps({"error": "invalid_token"}).encode()
    packed = gzip.compress(said)
    for chunks, headers, text in (
        (pieces(said[:5], said[5:]), {}, said.decode()),
        (pieces(packed), {"content-encoding": "gzip"}, said.decode()),
        (pieces(b"x" * 40_000, b"x" * 40_000), {"content-length": "80000"}, "x" * READ_LIMIT),
        (pieces(gzip.compress(b"x" * 99_999)), {"content-encoding": "gzip"}, "x" * READ_LIMIT),
        (pieces(b"no gzip"), {"content-encoding": "gzip"}, ""),
        (pieces(), {}, ""),
    ):
        api = Refusing(http, chunks, headers=headers)
        async with api.client() as client:
            response = await client.get("/")
        (refused,) = response.history
        assert (response.text, refused.status_code, refused.text) == ("welcome", 401, text)
        assert refused.elapsed.total_seconds() >= 0
        assert api.all_closed


async def test_the_response_of_an_error_about_the_request_s_body_is_read_and_bounded(
    http: Any,
) -> None:
    async def upload() -> AsyncIterator[bytes]:
        yield b"body"

    api = Refusing(http, without_end(b"x" * 1000))
    async with api.client(replay_limit=0) as client:
        with pytest.raises(BodyNotReplayable) as caught:
            await client.post("/", content=upload())
    response: Any = caught.value.response
    assert response.text == "x" * READ_LIMIT
    assert api.all_closed


@pytest.mark.parametrize("keeps", [True, False])
async def test_a_body_that_a_hook_has_read_is_used_as_it_is(http: Any, keeps: bool) -> None:
    async def hook(response: Any) -> None:
        if keeps:
            await response.aread()

    api = Refusing(http, pieces(b"{}"))
    async with api.client() as client:
        client.event_hooks = {"response": [hook]}
        response = await client.get("/")
    assert [one.text for one in (*response.history, response)] == ["{}", "welcome"]
    assert api.all_closed


# -- before anybody waits ----------------------------------------------------------------------------


async def test_the_connection_is_free_before_anybody_waits(http: Any) -> None:
    api = Refusing(http, pieces(b"{", b"}"))
    closed: list[int] = []
    async with api.client() as client:
        refresh = api.endpoint.refresh

        async def noting(token: Any) -> Any:
            closed.append(api.closed)
            return await refresh(token)

        api.endpoint.refresh = noting  # type: ignore[method-assign]  # what the session calls
        assert await fetched(client, streamed=True) == "welcome"
    assert closed == [1]


@in_both_ways
@virtual_time
async def test_a_caller_that_is_cancelled_while_the_body_drips_closes_it(
    http: Any, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_loop_time(monkeypatch)
    api = Refusing(http, without_end(b".", 0.7))
    async with api.client(virtual=True) as client:
        with anyio.move_on_after(1.0) as scope:
            await fetched(client, streamed)
        assert scope.cancelled_caught
        assert api.all_closed


# -- passed on: complete -----------------------------------------------------------------------------

BODY = json.dumps({"error": "insufficient_scope", "filler": "f" * 90_000}).encode()
READS: dict[str, Callable[[Any], Any]] = {
    "aread": lambda response: response.aread(),
    "aiter_bytes": lambda response: joined(response.aiter_bytes()),
    "aiter_raw": lambda response: joined(response.aiter_raw()),
}


async def joined(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


async def passed_on(api: Refusing, client: Any, read: str | None) -> bytes:
    """Return the body of a 401 that was read ahead and is passed on; None if the client has read it."""
    if read is None:
        response = await client.get("/")
        assert response.json() == json.loads(BODY)
        body: bytes = response.content
    else:
        async with client.stream("GET", "/") as response:
            body = await READS[read](response)
            assert response.is_closed
    assert response.status_code == 401
    assert api.all_closed
    return body


@pytest.mark.parametrize("read", [None, *READS])
@pytest.mark.parametrize("way", ["rule", "doubt"])
@pytest.mark.parametrize("size", [3000, 100_000])
@virtual_time
async def test_a_401_that_is_passed_on_is_whole_however_it_is_read(
    http: Any, read: str | None, way: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_loop_time(monkeypatch)
    chunks = [BODY[at : at + size] for at in range(0, len(BODY), size)]
    api = Refusing(http, pieces(*chunks), always=True)
    rule = ExpiryRule(lambda _: False) if way == "rule" else None
    async with api.client(virtual=True, is_expired=rule) as client:
        if way == "doubt":  # A refresh does not help: the next 401 of that token is passed on.
            assert await passed_on(api, client, read) == BODY
        sent = len(api.sent)
        assert await passed_on(api, client, read) == BODY
        assert len(api.sent) == sent + 1


@pytest.mark.parametrize("read", [None, *READS])
@virtual_time
async def test_a_slow_401_that_is_passed_on_is_whole_and_loses_nothing_to_the_time_out(
    http: Any, read: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_loop_time(monkeypatch)
    third = len(BODY) // 3
    chunks = BODY[:third], BODY[third : 2 * third], BODY[2 * third :]
    api = Refusing(http, pieces(*chunks, pause=1.5), always=True)
    async with api.client(virtual=True, is_expired=ExpiryRule(lambda _: False)) as client:
        began = anyio.current_time()
        assert await passed_on(api, client, read) == BODY
        assert anyio.current_time() - began == pytest.approx(4.5, abs=0.1)


@pytest.mark.parametrize("size", [100, 80_000])
async def test_a_401_that_breaks_and_is_passed_on_breaks_for_its_reader(
    http: Any, size: int
) -> None:
    async def breaking() -> AsyncGenerator[bytes]:
        yield b"x" * size
        raise http.ReadError("the connection broke")

    api = Refusing(http, breaking, always=True)
    async with (
        api.client(is_expired=ExpiryRule(lambda _: False)) as client,
        client.stream("GET", "/") as response,
        aclosing(response.aiter_raw()) as raw,
    ):
        assert await raw.__anext__() == b"x" * size
        with pytest.raises(http.ReadError):
            await raw.__anext__()
    assert api.all_closed


@virtual_time
@pytest.mark.parametrize("at", ["not at all", "in its beginning", "in the wait", "in its rest"])
async def test_a_401_that_is_passed_on_may_be_left_anywhere(
    http: Any, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_loop_time(monkeypatch)
    api = Refusing(http, without_end(b".", 1.5), always=True)
    async with (
        api.client(virtual=True, is_expired=ExpiryRule(lambda _: False)) as client,
        client.stream("GET", "/") as response,
        aclosing(response.aiter_raw()) as raw,
    ):
        if at != "not at all":
            assert await raw.__anext__() == b"."
        if at == "in the wait":
            with anyio.move_on_after(0.1) as scope:
                await raw.__anext__()
            assert scope.cancelled_caught
        if at == "in its rest":
            assert [await raw.__anext__() for _ in range(3)] == [b"."] * 3
    assert api.all_closed


# -- from a socket -----------------------------------------------------------------------------------


@in_both_ways
@pytest.mark.parametrize("kind", ["short", "long", "endless", "silent"])
async def test_off_a_socket_nothing_is_left_half_way(
    http: Any, streamed: bool, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generator that is left to the garbage collector warns on trio, and a warning is an error here."""
    monkeypatch.setattr("httpx_refresh._http.bodies.READ_SECONDS", 0.05)
    connections = 0

    async def answer(stream: Any) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:
            length = {"short": 100, "long": 200_000}.get(kind, 10**9)
            await stream.send(b"HTTP/1.1 401 X\r\nContent-Length: %d\r\n\r\n" % length)
            try:
                for _ in range(1 if kind == "silent" else length // 100):
                    await stream.send(b"x" * 100)
                await stream.receive()  # The next request, or the end.
            except (anyio.BrokenResourceError, anyio.EndOfStream):
                return
        await stream.send(b"HTTP/1.1 200 X\r\nContent-Length: 7\r\n\r\nwelcome")

    endpoint = Endpoint()
    async with raw_server(answer) as server:
        auth = RefreshAuth(endpoint, Store(endpoint.text()), origins=server.url)
        async with http.AsyncClient(auth=auth, base_url=server.url) as client:
            client.headers["content-length"] = "0"
            with anyio.fail_after(20):
                assert await fetched(client, streamed) == "welcome"
        gc.collect()
        await anyio.lowlevel.checkpoint()
    # A body that was read to its end leaves a connection that can be used again.
    assert connections == (1 if kind == "short" else 2)
