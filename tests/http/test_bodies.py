"""Rule 11: a body is sent again completely or not at all, and never silently as an empty one."""

from __future__ import annotations

import hashlib
import io
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from httpx_refresh import BodyNotReplayable
from httpx_refresh._http import bodies
from httpx_refresh.testing import AuthorizationServer
from tests.fakes import auth_of, both_libraries, client_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.anyio, both_libraries]

PIECES = [b"one", b"two" * 1000, b"", b"three"]
WHOLE = b"".join(PIECES)


def arrived_whole(response: Any, body: bytes = WHOLE) -> bool:
    got = response.json()
    return (response.status_code, got["length"], got["sha256"]) == (
        200,
        len(body),
        hashlib.sha256(body).hexdigest(),
    )


async def generator() -> AsyncIterator[bytes]:
    for piece in PIECES:
        yield piece


class Iterable:
    """An iterable that is not a generator and can be iterated once."""

    def __init__(self) -> None:
        self.pieces = list(PIECES)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.pieces:
            yield self.pieces.pop(0)


class Unseekable(io.BytesIO):
    def seekable(self) -> bool:
        return False

    def seek(self, *_: Any) -> int:
        raise io.UnsupportedOperation


def refused_once(server: AuthorizationServer, http: Any, **options: Any) -> Any:
    """A client whose next request is refused, and whose second one is accepted."""
    auth = auth_of(server, **options)
    server.expire_access_tokens()
    return client_of(server, http, auth=auth)


@pytest.mark.parametrize(
    "what",
    [
        {"content": WHOLE},
        {"content": "text"},
        {"json": {"a": 1}},
        {"data": {"a": "1"}},
        {"data": {"a": "1"}, "files": {"f": b"bytes"}},
        {},
    ],
)
async def test_a_body_in_memory_is_sent_again_as_it_was(http: Any, what: dict[str, Any]) -> None:
    server = AuthorizationServer()
    async with refused_once(server, http) as client:
        request = client.build_request("POST", "/echo", **what)
        response = await client.send(request)
        assert arrived_whole(response, await request.aread())
    assert (server.api_requests, server.token_requests) == (2, 1)


@pytest.mark.parametrize("make", [generator, Iterable])
async def test_a_streamed_body_is_sent_again_whole(http: Any, make: Any) -> None:
    server = AuthorizationServer()
    async with refused_once(server, http) as client:
        assert arrived_whole(await client.post("/echo", content=make()))
    assert (server.api_requests, server.token_requests) == (2, 1)


async def test_an_open_async_file_is_sent_again_whole(http: Any, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(WHOLE * 100)
    server = AuthorizationServer()
    async with (
        refused_once(server, http) as client,
        await anyio.open_file(tmp_path / "body", "rb") as file,
    ):
        assert arrived_whole(await client.post("/echo", content=file), WHOLE * 100)


@pytest.mark.parametrize("file", [io.BytesIO, Unseekable])
async def test_multipart_is_sent_again_whole_whether_its_files_can_be_sought_or_not(
    http: Any, file: Any
) -> None:
    server = AuthorizationServer()
    async with refused_once(server, http) as client:
        files = [("a", ("a", file(WHOLE))), ("b", ("b", io.BytesIO(b"b"))), ("c", b"c")]
        response = await client.post("/echo", data={"d": "d"}, files=files)
        boundary = response.json()["content_type"].partition("boundary=")[2].encode()
        parts = [
            (b'name="d"', b"d"),
            (b'name="a"; filename="a"', WHOLE),
            (b'name="b"; filename="b"', b"b"),
            (b'name="c"; filename="upload"', b"c"),
        ]
        body = b"".join(
            b"--%s\r\nContent-Disposition: form-data; %s\r\n%s\r\n%s\r\n"
            % (
                boundary,
                head,
                b"" if b"filename" not in head else b"Content-Type: application/octet-stream\r\n",
                content,
            )
            for head, content in parts
        )
        assert arrived_whole(response, body + b"--%s--\r\n" % boundary)
    assert (server.api_requests, server.token_requests) == (2, 1)


@pytest.mark.parametrize("limit", [0, len(WHOLE) - 1])
async def test_a_body_over_replay_limit_is_told_with_the_401_and_the_token_is_refreshed(
    http: Any, limit: int
) -> None:
    server = AuthorizationServer()
    async with refused_once(server, http, replay_limit=limit) as client:
        with pytest.raises(BodyNotReplayable, match="replay_limit") as caught:
            await client.post("/echo", content=generator())
        response: Any = caught.value.response
        assert response.status_code == 401
        assert response.json()["error"] == "invalid_token"
        assert (server.api_requests, server.token_requests) == (1, 1)
        assert arrived_whole(await client.post("/echo", content=generator()))
    assert (server.api_requests, server.token_requests) == (2, 1)


async def test_a_body_of_exactly_replay_limit_is_sent_again(http: Any) -> None:
    server = AuthorizationServer()
    async with refused_once(server, http, replay_limit=len(WHOLE)) as client:
        assert arrived_whole(await client.post("/echo", content=generator()))


async def test_an_accepted_body_of_any_size_is_passed_through_and_not_kept(http: Any) -> None:
    server = AuthorizationServer()
    async with client_of(server, http, auth=auth_of(server, replay_limit=10)) as client:
        request = client.build_request("POST", "/echo", content=generator())
        assert arrived_whole(await client.send(request))
        assert request.stream._chunks == []


@pytest.mark.parametrize("limit", [10, 1_000_000])
async def test_a_streamed_request_that_was_accepted_cannot_be_sent_again_empty(
    http: Any, limit: int
) -> None:
    server = AuthorizationServer()
    async with client_of(server, http, auth=auth_of(server, replay_limit=limit)) as client:
        request = client.build_request("POST", "/echo", content=generator())
        await client.send(request)
        with pytest.raises(BodyNotReplayable, match="was sent already"):
            await client.send(request)
    assert server.api_accepted == 1


async def test_a_streamed_request_that_never_reached_the_api_can_be_sent_again(http: Any) -> None:
    # The part of the body that was read is kept, and the rest is read later.
    server = AuthorizationServer()
    broken = server.transport() if http is httpx else server.transport2()

    class HalfWay(type(broken)):  # type: ignore[misc]  # a base of either library
        tries = 0

        async def handle_async_request(self, request: Any) -> Any:
            self.tries += 1
            if self.tries == 1:
                body = request.stream.__aiter__()
                await body.__anext__()
                await body.aclose()
                raise http.WriteError("the connection broke")
            return await super().handle_async_request(request)

    transport = HalfWay(server, None)
    async with http.AsyncClient(
        transport=transport, auth=auth_of(server), base_url=server.api_url
    ) as client:
        request = client.build_request("POST", "/echo", content=generator())
        with pytest.raises(http.WriteError):
            await client.send(request)
        assert arrived_whole(await client.send(request))


@pytest.mark.parametrize("error", [ValueError("half-way"), anyio.EndOfStream()])
async def test_a_stream_that_breaks_half_way_breaks_the_request_and_is_never_cut_short(
    http: Any, error: Exception
) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield b"half"
        raise error

    server = AuthorizationServer()
    async with refused_once(server, http) as client:
        request = client.build_request("POST", "/echo", content=breaking())
        with pytest.raises(type(error)):
            await client.send(request)
        with pytest.raises(BodyNotReplayable):
            await client.send(request)
    assert server.api_requests == 0


async def test_a_body_that_only_a_sync_client_can_send_gets_the_library_s_own_error(
    http: Any,
) -> None:
    server = AuthorizationServer()
    async with client_of(server, http, auth=auth_of(server)) as client:
        with pytest.raises(RuntimeError, match=r"sync request with an AsyncClient"):
            await client.post("/echo", content=iter(PIECES))
    assert server.api_requests == 0


async def test_a_streamed_response_of_a_replayed_request_is_streamed(http: Any) -> None:
    server = AuthorizationServer()
    async with (
        refused_once(server, http) as client,
        client.stream("POST", "/echo", content=generator()) as response,
    ):
        assert not response.is_stream_consumed
        assert response.status_code == 200
        await response.aread()
        assert arrived_whole(response)


@pytest.mark.parametrize("status", [307, 308])
async def test_a_streamed_body_follows_a_redirect_that_keeps_it(http: Any, status: int) -> None:
    server = AuthorizationServer()
    async with refused_once(server, http, replay_limit=len(WHOLE)) as client:
        where = f"/redirect?to=/api/echo&status={status}"
        response = await client.post(where, content=generator(), follow_redirects=True)
        assert arrived_whole(response)
    assert server.token_requests == 1


async def test_a_long_body_that_a_redirect_dropped_does_not_stand_in_the_way(http: Any) -> None:
    server = AuthorizationServer()

    async def expire(response: Any) -> None:
        if response.status_code == 303:
            server.expire_access_tokens()

    async with client_of(server, http, auth=auth_of(server, replay_limit=10)) as client:
        client.event_hooks = {"response": [expire]}
        where = "/redirect?to=/api/ping&status=303"
        response = await client.post(where, content=generator(), follow_redirects=True)
        assert response.status_code == 200
    assert (server.token_requests, server.api_requests) == (1, 3)


async def test_closing_the_recording_closes_the_body(http: Any) -> None:
    closed: list[bool] = []

    class Body(http.AsyncByteStream):  # type: ignore[misc]  # a base of either library
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield WHOLE

        async def aclose(self) -> None:
            closed.append(True)

    server = AuthorizationServer()
    async with refused_once(server, http) as client:
        request = client.build_request("POST", "/echo", content=b"")
        request.stream = Body()
        request.headers["Content-Length"] = str(len(WHOLE))
        assert arrived_whole(await client.send(request))
        await request.stream.aclose()
    assert closed == [True]


async def test_closing_a_sync_client_s_recording_closes_its_body(http: Any) -> None:
    closed: list[bool] = []

    class Body(http.SyncByteStream):  # type: ignore[misc]  # a base of either library
        def close(self) -> None:
            closed.append(True)

    bodies.BlockingRecording(Body(), 10).close()
    assert closed == [True]


async def test_bytes_are_repeatable_as_they_are_however_many(http: Any) -> None:
    request = http.Request("POST", "https://api.test", content=b"more than one")
    stream = request.stream
    assert bodies.record(request, 1) is None
    assert request.stream is stream


async def test_past_the_limit_nothing_of_a_body_is_kept(http: Any) -> None:
    request = http.Request("POST", "https://api.test", content=generator())
    recording = bodies.record(request, 10)
    assert recording is request.stream
    assert isinstance(recording, bodies.Recording)
    sent = [piece async for piece in recording]
    assert (sent, recording._chunks, recording.replayable) == (PIECES, [], False)


async def test_a_body_of_somebody_s_own_that_has_fields_is_recorded_like_any_other(
    http: Any,
) -> None:
    class Body(http.AsyncByteStream):  # type: ignore[misc]  # a base of either library
        fields = 5

    request = http.Request("POST", "https://api.test", content=b"")
    request.stream = Body()
    assert bodies.record(request, 10) is request.stream
