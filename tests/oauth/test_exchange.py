"""One request to a token endpoint: all reading is limited, and no answer that arrived is lost."""

from __future__ import annotations

import contextlib
import gc
import gzip
import json
import socket
import ssl
import subprocess
import sys
import zlib
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import httpx2
import pytest

from httpx_refresh import (
    MemoryStore,
    ReauthorizationRequired,
    RefreshAuth,
    RefreshAuthError,
    RefreshUnavailable,
    Token,
    TokenEndpoint,
)
from httpx_refresh._limits import OutOfTime, may_send
from httpx_refresh.testing import Answer, AuthorizationServer, LostAnswer, LostRequest, Outage
from tests.oauth.raw_server import raw_server, reply
from tests.virtual_time import stand_still, virtual_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import SocketStream

    from httpx_refresh.testing import Behaviour

HELD = Token("old-access-token", "old-refresh-token")
SECRET = "the-client-secret"
GOOD = json.dumps({"access_token": "A2", "refresh_token": "R2"}).encode()
BIG = 50_000_000
MOST = 1_048_576


def endpoint_at(url: str, client: Any = None) -> TokenEndpoint:
    return TokenEndpoint(url, "client", SECRET, client=client, name="X")


def check_no_secret(error: BaseException) -> None:
    """Check that an error shows no secret, and that no error of its chain holds a request with one."""
    seen: BaseException | None = error
    while seen is not None:
        shown = f"{seen!r} {seen} {vars(seen)}"
        for secret in ("old-access-token", "old-refresh-token", SECRET):
            assert secret not in shown
        assert not hasattr(seen, "request")
        seen = seen.__cause__ or seen.__context__


async def failing(endpoint: TokenEndpoint, outcome: str, match: str) -> RefreshUnavailable:
    with pytest.raises(RefreshUnavailable, match=match) as caught:
        await endpoint.refresh(HELD)
    assert caught.value.outcome == outcome
    check_no_secret(caught.value)
    return caught.value


# -- limits ------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_of_fifty_megabytes_one_and_a_piece_is_read(library: Any) -> None:
    server = AuthorizationServer()
    server.script(Answer(padding=BIG))
    transport = server.transport() if library is httpx else server.transport2()
    async with library.AsyncClient(transport=transport) as client:
        token = Token.from_response(server.login())
        with pytest.raises(RefreshUnavailable, match="more than 1 MiB") as caught:
            await endpoint_of(server, client).refresh(token)
    assert caught.value.outcome == "unknown"
    assert MOST - 1000 < server.padding_sent < MOST + 3 * 65_536


def endpoint_of(server: AuthorizationServer, client: Any) -> TokenEndpoint:
    return TokenEndpoint(
        server.token_url, server.client_id, server.client_secret, client=client, name="X"
    )


@pytest.mark.anyio
@pytest.mark.parametrize("library", [None, httpx, httpx2])
async def test_off_a_socket_no_more_is_read_and_nothing_is_left_half_way(library: Any) -> None:
    """The server has also sent the bytes in the kernel's buffers. An unfinished generator would warn on trio."""
    sent = 0

    async def answer(stream: SocketStream) -> None:
        nonlocal sent
        await stream.send(reply(b"", headers={"Content-Length": str(BIG)}))
        with contextlib.suppress(anyio.BrokenResourceError):
            while True:
                await stream.send(b" " * 65_536)
                sent += 65_536

    async with raw_server(answer) as server, contextlib.AsyncExitStack() as stack:
        client = library and await stack.enter_async_context(library.AsyncClient())
        await failing(endpoint_at(server.url, client), "unknown", "more than 1 MiB")
        gc.collect()
        await anyio.lowlevel.checkpoint()
    assert MOST < sent < BIG / 2


@pytest.mark.anyio
@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_an_answer_in_chunks_of_one_byte_is_cut_and_other_tasks_go_on_meanwhile(
    library: Any,
) -> None:
    """A megabyte of them is a million steps of a client's parser, during which an event loop does nothing else."""
    read = turns = 0

    class Crumbs(library.AsyncByteStream):  # type: ignore[misc]  # of either library
        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            nonlocal read
            read += 1
            return b" "

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    transport = library.MockTransport(lambda _: library.Response(200, stream=Crumbs()))
    async with (
        library.AsyncClient(transport=transport) as client,
        anyio.create_task_group() as group,
    ):
        group.start_soon(take_turns)
        await failing(endpoint_at("https://as.test", client), "unknown", "more than 1 MiB")
        group.cancel_scope.cancel()
    assert read < MOST / 64 + 100
    assert turns > 200


@pytest.mark.anyio
async def test_a_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(b" " * 64 * MOST)
    assert len(bomb) < 100_000
    async with raw_server(reply(bomb, headers={"Content-Encoding": "gzip"})) as server:
        await failing(endpoint_at(server.url), "unknown", "more than 1 MiB")


@pytest.mark.anyio
@pytest.mark.parametrize(
    "encoding, packed",
    [
        ("gzip", gzip.compress(GOOD)),
        ("X-GZIP", gzip.compress(GOOD)),
        ("deflate", zlib.compress(GOOD)),
        ("deflate", zlib.compress(GOOD)[2:-4]),
        ("identity", GOOD),
    ],
    ids=["gzip", "x-gzip", "deflate", "raw deflate", "identity"],
)
async def test_an_answer_that_is_packed_although_nobody_asked_is_read(
    encoding: str, packed: bytes
) -> None:
    async with raw_server(reply(packed, headers={"Content-Encoding": encoding})) as server:
        assert (await endpoint_at(server.url).refresh(HELD)).access_token == "A2"


@pytest.mark.anyio
@pytest.mark.parametrize("encoding", ["br", "gzip", "gzip, gzip"])
async def test_an_answer_that_cannot_be_unpacked_is_no_verdict(encoding: str) -> None:
    answer = reply(b'{"error": "invalid_grant"}', headers={"Content-Encoding": encoding})
    async with raw_server(answer) as server:
        await failing(endpoint_at(server.url), "unknown", "no token")


class Stream(httpx.AsyncByteStream):
    """An answer's body that records how it is closed."""

    def __init__(self, close: Any, chunks: Any = (GOOD,), pause: float = 0.0) -> None:
        self._close = close
        self._chunks = iter(chunks)
        self._pause = pause

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await anyio.sleep(self._pause)
        chunk: bytes | None = next(self._chunks, None)
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        await self._close()


class Transport(httpx.AsyncBaseTransport):
    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=self._stream)


async def do_nothing() -> None:
    pass


@virtual_time
@pytest.mark.anyio
async def test_an_answer_that_drips_holds_nobody_longer_than_refresh_timeout() -> None:
    drip = Stream(do_nothing, (b" " for _ in range(BIG)), pause=1.0)
    client = httpx.AsyncClient(transport=Transport(drip))
    store = MemoryStore('{"access_token": "A", "refresh_token": "R"}')
    auth = RefreshAuth(
        endpoint_at("https://server.test/token", client), store, origins=(), refresh_timeout=20.0
    )
    started = anyio.current_time()
    with pytest.raises(RefreshUnavailable, match="within 20 s") as caught:
        await auth.refresh()
    assert caught.value.outcome == "unknown"
    assert anyio.current_time() - started == pytest.approx(20.0, abs=0.1)
    assert '"uncertain"' in str(await store.load())
    await client.aclose()


@virtual_time
@pytest.mark.anyio
@pytest.mark.parametrize("asked", ["refresh", "exchange_code", "device_authorization", "revoke"])
@pytest.mark.parametrize("drips", [True, False])
async def test_nobody_is_held_longer_than_the_endpoints_timeout(asked: str, drips: bool) -> None:
    chunks = (b" " for _ in range(BIG))
    stream = Stream(do_nothing, chunks, pause=1.0 if drips else 1e6)
    client = httpx.AsyncClient(transport=Transport(stream))
    endpoint = TokenEndpoint(
        "https://server.test/token",
        "client",
        SECRET,
        client=client,
        timeout=7.0,
        authorization_endpoint="https://server.test/authorize",
        device_authorization_endpoint="https://server.test/device",
        revocation_endpoint="https://server.test/revoke",
    )
    request = endpoint.authorization_url("http://127.0.0.1/")
    ask: dict[str, Any] = {
        "refresh": lambda: endpoint.refresh(HELD),
        "exchange_code": lambda: endpoint.exchange_code(
            {"code": "c", "state": request.state}, request
        ),
        "device_authorization": endpoint.device_authorization,
        "revoke": lambda: endpoint.revoke(HELD),
    }
    began = anyio.current_time()
    with pytest.raises(RefreshAuthError, match="nothing came within 7 s"):
        await ask[asked]()
    assert anyio.current_time() - began == pytest.approx(7.0, abs=0.1)
    await client.aclose()


@virtual_time
@pytest.mark.anyio
async def test_a_close_that_hangs_holds_nobody_and_loses_no_token() -> None:
    async with httpx.AsyncClient(transport=Transport(Stream(anyio.sleep_forever))) as client:
        token = await endpoint_at("https://server.test/token", client).refresh(HELD)
    assert token.refresh_token == "R2"


@virtual_time
@pytest.mark.anyio
@pytest.mark.parametrize("stands", [7.5, 3600.0])
async def test_an_answer_that_came_while_the_event_loop_stood_still_is_read(stands: float) -> None:
    asked, came = anyio.Event(), anyio.Event()

    class Slow(Transport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            asked.set()
            await came.wait()
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            return await super().handle_async_request(request)

    tokens: list[Token] = []
    async with httpx.AsyncClient(transport=Slow(Stream(do_nothing))) as client:
        endpoint = TokenEndpoint("https://server.test/token", "client", client=client, timeout=7.0)

        async def refresh() -> None:
            tokens.append(await endpoint.refresh(HELD))

        async with anyio.create_task_group() as group:
            group.start_soon(refresh)
            await asked.wait()
            stand_still(stands)
            came.set()
    assert [token.refresh_token for token in tokens] == ["R2"]


@pytest.mark.anyio
@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
async def test_what_may_not_be_sent_any_more_once_it_is_connected_is_not_sent(library: Any) -> None:
    """A process may be stopped while it connects: another one may have spent the refresh token since then."""
    may_send.set(lambda: False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/token"
        with pytest.raises(OutOfTime):
            await endpoint_at(url, lambda: library.AsyncClient()).refresh(HELD)
        connection, _ = server.accept()
        with connection:
            assert connection.recv(1) == b""


@pytest.mark.anyio
@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
async def test_what_may_not_be_sent_any_more_once_the_headers_are_is_not_sent(library: Any) -> None:
    """Headers and body leave separately, and a process may be stopped between: the body has the refresh token."""
    answers = [True]
    may_send.set(lambda: bool(answers) and answers.pop())
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/token"
        with pytest.raises(OutOfTime):
            await endpoint_at(url, lambda: library.AsyncClient()).refresh(HELD)
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as stream:
            sent = stream.read()
    assert sent.startswith(b"POST /token ")
    assert sent.endswith(b"\r\n\r\n")


# -- a close that fails --------------------------------------------------------------------------------------


def raising(error: Exception) -> Any:
    async def close() -> None:
        raise error

    return close


@pytest.mark.anyio
@pytest.mark.parametrize(
    "error", [httpx.CloseError("x"), OSError("x"), RuntimeError("x"), TimeoutError()], ids=repr
)
async def test_a_close_that_fails_loses_no_token(error: Exception) -> None:
    async with httpx.AsyncClient(transport=Transport(Stream(raising(error)))) as client:
        token = await endpoint_at("https://server.test/token", client).refresh(HELD)
    assert token.refresh_token == "R2"


@pytest.mark.anyio
async def test_a_close_that_is_cancelled_loses_no_token() -> None:
    tokens: list[Token] = []
    with anyio.CancelScope() as scope:

        async def close() -> None:
            scope.cancel()
            await anyio.sleep_forever()

        async with httpx.AsyncClient(transport=Transport(Stream(close))) as client:
            tokens.append(await endpoint_at("https://server.test/token", client).refresh(HELD))
    assert scope.cancel_called
    assert [token.refresh_token for token in tokens] == ["R2"]


@pytest.mark.anyio
async def test_a_request_that_is_cancelled_before_its_answer_ends_at_once() -> None:
    with anyio.CancelScope() as scope:

        async def hold(stream: SocketStream) -> None:
            scope.cancel()
            await anyio.sleep_forever()

        async with raw_server(hold) as server:
            await endpoint_at(server.url).refresh(HELD)
    assert scope.cancelled_caught


# -- no answer -----------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize(
    "behaviour, outcome, match",
    [
        (LostAnswer(), "unknown", r"gave no answer \(ReadError\).*Try again later"),
        (LostAnswer(half=True), "unknown", r"gave no answer \(RemoteProtocolError\)"),
        (LostRequest(), "unknown", r"gave no answer"),
        (LostRequest(connected=False), "not_sent", r"could not be reached \(ConnectError: Nobody"),
        (Outage(200, body=""), "unknown", r"no token \(status 200\).*tried once more"),
        (Outage(200, body="<html>Welcome</html>"), "unknown", r"look whether the url"),
        (Outage(502, body="<html>invalid_grant</html>"), "unknown", r"no token \(status 502\)"),
        (Outage(503), "unknown", r"unavailable \(status 503\). Whether .* is unknown"),
        (Outage(503, retry_after=7), "unknown", r"unavailable \(status 503\).*in 7 s at the ea"),
        (Outage(429), "busy", r"busy \(status 429\). The refresh token was not spent. Try again"),
        (Outage(404, body="<html></html>"), "refused", r"Check client_id, client_secret,"),
        (
            Outage(
                401, body='{"error": "invalid_client", "error_description": "the-client-secret"}'
            ),
            "refused",
            r"\(status 401, invalid_client: \*\*\*\).*nobody needs to log in again",
        ),
    ],
)
async def test_each_failure_says_what_became_of_the_token_and_the_next_step(
    behaviour: Behaviour, outcome: str, match: str
) -> None:
    server = AuthorizationServer()
    server.script(behaviour)
    async with httpx.AsyncClient(transport=server.transport()) as client:
        error = await failing(endpoint_at(server.token_url, client), outcome, match)
    assert error.retry_after == (7 if behaviour == Outage(503, retry_after=7) else None)


@pytest.mark.anyio
async def test_a_dead_grant_says_what_the_server_said_without_what_it_repeats() -> None:
    echo = f"Unknown token {HELD.refresh_token}, access {HELD.access_token[:12]}"
    body = json.dumps({"error": "invalid_grant", "error_description": echo})
    async with raw_server(reply(body, 400)) as server:
        with pytest.raises(ReauthorizationRequired, match=r"invalid_grant.*Log in") as caught:
            await endpoint_at(server.url).refresh(HELD)
    assert caught.value.error == "invalid_grant"
    assert caught.value.error_description == "Unknown token ***, access ***"
    check_no_secret(caught.value)


@pytest.mark.anyio
async def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    endpoint = endpoint_at(f"http://127.0.0.1:{port}/token")
    await failing(endpoint, "not_sent", r"could not be reached \(ConnectError.*try again later")


@pytest.mark.anyio
async def test_certificates_are_read_for_https_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def unreadable() -> ssl.SSLContext:
        read.append("certificates")
        raise OSError("no certificates here")

    for library in (httpx, httpx2):
        monkeypatch.setattr(library, "create_ssl_context", unreadable)
    monkeypatch.setattr("httpx_refresh._oauth.exchange._ssl_contexts", {})
    async with raw_server(reply(GOOD)) as server:
        assert (await endpoint_at(server.url).refresh(HELD)).access_token == "A2"
    assert read == []
    await failing(endpoint_at("https://127.0.0.1:1/token"), "not_sent", "no client could be made")
    assert read == ["certificates"]


def test_a_refresh_imports_nothing_in_the_event_loop() -> None:
    """Authlib takes longer to import than the whole of a refresh, and the claim stands meanwhile."""
    program = """if True:
        import json, sys, anyio, httpx
        from httpx_refresh import MemoryStore, RefreshAuth, TokenEndpoint

        answer = {"access_token": "A2", "refresh_token": "R2"}
        client = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=answer)))
        endpoint = TokenEndpoint("https://as.test/token", "id", "secret", client=client, origins="any")
        auth = RefreshAuth(endpoint, MemoryStore(json.dumps({"access_token": "A1", "refresh_token": "R1"})))
        assert anyio.run(auth.refresh).access_token == "A2"
        print(*(name for name in sys.modules if name.partition(".")[0] == "authlib"))
    """
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == []


@pytest.mark.anyio
async def test_a_server_that_speaks_no_tls_gets_no_secret() -> None:
    heard: list[bytes] = []

    async def serve(stream: SocketStream) -> None:
        async with stream:
            heard.append(await stream.receive())
            await stream.send(b"HTTP/1.1 400 Plain HTTP here\r\n\r\n")

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - no Django
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        endpoint = endpoint_at(f"https://127.0.0.1:{port}/token")
        await failing(endpoint, "not_sent", r"could not be reached \(ConnectError.*certificates")
        tasks.cancel_scope.cancel()
    (hello,) = heard
    assert b"old-refresh-token" not in hello


@pytest.mark.anyio
async def test_a_server_that_echoes_the_request_shows_no_secret() -> None:
    """The answer is not HTTP, and h11's own message would hold the line that it could not read."""
    for echo in (b"client_secret=the-client-secret", b"HTTP/1.1 200 OK\r\nold-refresh-token\r\n"):
        async with raw_server(echo + b"\r\n\r\n") as server:
            match = r"gave no answer \(RemoteProtocolError\)"
            await failing(endpoint_at(server.url), "unknown", match)


# -- hooks of a client -----------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_hook_that_reads_takes_nothing_away() -> None:
    async def read(response: httpx.Response) -> None:
        await response.aread()

    server = AuthorizationServer()
    transport, hooks = server.transport(), {"response": [read]}
    async with httpx.AsyncClient(transport=transport, event_hooks=hooks) as client:
        token = await endpoint_of(server, client).refresh(Token.from_response(server.login()))
        assert token.refresh_token is not None
        server.script(Answer(padding=2 * MOST))
        with pytest.raises(RefreshUnavailable, match="more than 1 MiB"):
            await endpoint_of(server, client).refresh(token)


@pytest.mark.anyio
async def test_a_hook_that_raises_is_heard() -> None:
    async def raise_for_status(response: httpx.Response) -> None:
        response.raise_for_status()

    server = AuthorizationServer()
    server.script(Outage(500))
    transport, hooks = server.transport(), {"response": [raise_for_status]}
    async with httpx.AsyncClient(transport=transport, event_hooks=hooks) as client:
        error = await failing(endpoint_of(server, client), "unknown", r"answer \(HTTPStatusError\)")
    assert error.caused_by is not None
    assert error.caused_by.startswith("httpx.HTTPStatusError (")
