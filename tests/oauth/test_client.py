"""The HTTP client of token requests: a given one, a callable's, or the library's own; and its event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import httpx2
import pytest
import trio
from anyio.from_thread import start_blocking_portal

from httpx_refresh import LoginFailed, RefreshUnavailable, RevocationFailed, Token, TokenEndpoint
from httpx_refresh._oauth.client import Client
from tests.oauth.test_login import REDIRECT

HELD = Token("old-access", "old-refresh")
SECRET = "the-client-secret"


class Counting(httpx.AsyncBaseTransport):
    """Answers with a token, and counts requests and closings."""

    def __init__(self) -> None:
        self.asked = 0
        self.closed = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        over_a_network = {"network_stream": object()}
        return httpx.Response(200, json={"access_token": "new"}, extensions=over_a_network)

    async def aclose(self) -> None:
        self.closed += 1


def endpoint_of(client: Any, url: str = "https://as.test/token", **options: Any) -> TokenEndpoint:
    facts: dict[str, Any] = {
        "authorization_endpoint": "https://as.test/authorize",
        "device_authorization_endpoint": "https://as.test/device",
        "revocation_endpoint": "https://as.test/revoke",
        "name": "X",
    }
    return TokenEndpoint(url, "client", SECRET, client=client, **{**facts, **options})


# -- a callable that makes clients -----------------------------------------------------------------------------


@pytest.mark.anyio
async def test_what_a_callable_makes_serves_one_request_and_is_closed() -> None:
    transports: list[Counting] = []

    def make() -> httpx.AsyncClient:
        transports.append(Counting())
        return httpx.AsyncClient(transport=transports[-1])

    endpoint = endpoint_of(make)
    assert transports == []
    for _ in range(2):
        await endpoint.refresh(HELD)
    assert [(one.asked, one.closed) for one in transports] == [(1, 1), (1, 1)]


@pytest.mark.anyio
async def test_the_class_of_a_client_is_such_a_callable(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = Counting()

    class Mine(httpx.AsyncClient):
        def __init__(self) -> None:
            super().__init__(transport=transport)

    await endpoint_of(Mine).refresh(HELD)
    assert (transport.asked, transport.closed) == (1, 1)


@pytest.mark.anyio
async def test_a_client_that_cannot_be_closed_loses_no_token() -> None:
    class Failing(Counting):
        async def aclose(self) -> None:
            raise OSError("no")

    token = await endpoint_of(lambda: httpx.AsyncClient(transport=Failing())).refresh(HELD)
    assert token.access_token == "new"


@pytest.mark.anyio
async def test_a_cancelled_request_closes_what_was_made_for_it() -> None:
    closed = 0

    class Hanging(Counting):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            scope.cancel()
            await anyio.sleep_forever()
            raise AssertionError("never")

        async def aclose(self) -> None:
            nonlocal closed
            closed += 1
            await anyio.lowlevel.checkpoint()

    with anyio.CancelScope() as scope:
        await endpoint_of(lambda: httpx.AsyncClient(transport=Hanging())).refresh(HELD)
    assert scope.cancelled_caught
    assert closed == 1


async def closed_client() -> httpx.AsyncClient:
    client = httpx.AsyncClient()
    await client.aclose()
    return client


def sources(closed: httpx.AsyncClient) -> dict[str, tuple[Any, str]]:
    return {
        "a closed client": (closed, r"the client passed as client= is closed; pass a call"),
        "a factory of it": (lambda: closed, "client= made a client that is closed"),
        "a sync client": (lambda: httpx.Client(), "client= made Client, not an AsyncClient"),
        "nothing": (lambda: None, "client= made NoneType"),
        "a failure": (lambda: 1 / 0, "no client could be made: ZeroDivisionError"),
    }


@pytest.mark.anyio
@pytest.mark.parametrize("which", sources(None))  # type: ignore[arg-type]  # the names only
async def test_a_client_that_cannot_ask_is_found_before_anything_is_sent(which: str) -> None:
    source, words = sources(await closed_client())[which]
    endpoint = endpoint_of(source)
    with pytest.raises(RefreshUnavailable, match=words) as refreshed:
        await endpoint.refresh(HELD)
    assert refreshed.value.outcome == "not_sent"
    assert not refreshed.value.transient
    assert "the refresh token was not sent" in str(refreshed.value)
    request = endpoint.authorization_url(REDIRECT)
    redirect = {"code": "c", "state": request.state}
    with pytest.raises(LoginFailed, match=words) as logged_in:
        await endpoint.exchange_code(redirect, request)
    assert not logged_in.value.transient
    with pytest.raises(LoginFailed, match=words):
        await endpoint.device_authorization()
    with pytest.raises(RevocationFailed, match=words):
        await endpoint.revoke(HELD)


@pytest.mark.anyio
async def test_a_thread_that_cannot_be_had_for_a_signature_spends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def none(*_: Any, **__: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("httpx_refresh._oauth.authentication.run_blocking", none)
    transport = Counting()
    async with httpx.AsyncClient(transport=transport) as client:
        endpoint = TokenEndpoint(
            "https://as.test/token",
            "id",
            "a shared secret of more than 32 bytes",
            client_auth="client_secret_jwt",
            client=client,
        )
        with pytest.raises(RefreshUnavailable, match="could not authenticate: Runt") as caught:
            await endpoint.refresh(HELD)
    assert caught.value.outcome == "not_sent"
    assert caught.value.transient
    assert transport.asked == 0


# -- event loops -----------------------------------------------------------------------------------------------


class Rotating(BaseHTTPRequestHandler):
    """Keeps its connections open, and answers each token request with the next token."""

    protocol_version = "HTTP/1.1"
    requests = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        type(self).requests += 1
        body = b'{"access_token": "new", "refresh_token": "next"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    Rotating.requests = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Rotating) as served:
        served.daemon_threads = True
        thread = threading.Thread(target=served.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}/token"
        served.shutdown()
        thread.join()


def on_asyncio(function: Callable[[], Any]) -> Any:
    return asyncio.run(function())


def on_trio(function: Callable[[], Any]) -> Any:
    return trio.run(function)


runners = pytest.mark.parametrize("run", [on_asyncio, on_trio])


def check_refused(refresh: Callable[[], object]) -> None:
    with pytest.raises(RefreshUnavailable, match=r"another event loop; pass a callable") as caught:
        refresh()
    assert caught.value.outcome == "not_sent"
    assert not caught.value.transient


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("library", [httpx, httpx2])
def test_a_lent_client_is_not_used_on_a_second_event_loop(
    server: str, library: Any, backend: str
) -> None:
    """The connection that it keeps open belongs to the first."""
    client = library.AsyncClient()
    endpoint = endpoint_of(client, server)
    with start_blocking_portal(backend) as first:
        for _ in range(2):
            first.call(endpoint.refresh, HELD)
        with start_blocking_portal(backend) as second:
            check_refused(lambda: second.call(endpoint.refresh, HELD))
        assert Rotating.requests == 2
        first.call(client.aclose)


@runners
def test_nor_after_the_first_has_ended(run: Callable[..., Any]) -> None:
    transport = Counting()
    endpoint = endpoint_of(httpx.AsyncClient(transport=transport))

    async def refresh() -> Token:
        return await endpoint.refresh(HELD)

    run(refresh)
    check_refused(lambda: run(refresh))
    assert transport.asked == 1


@runners
@pytest.mark.parametrize("library", [httpx, httpx2])
def test_a_callable_serves_every_event_loop(
    server: str, library: Any, run: Callable[..., Any]
) -> None:
    endpoint = endpoint_of(lambda: library.AsyncClient(), server)

    async def refresh() -> str | None:
        return (await endpoint.refresh(HELD)).refresh_token

    assert [run(refresh) for _ in range(3)] == ["next"] * 3
    assert Rotating.requests == 3


@runners
def test_the_librarys_own_clients_serve_every_event_loop(
    server: str, run: Callable[..., Any]
) -> None:
    endpoint = endpoint_of(None, server)

    async def refresh() -> str | None:
        return (await endpoint.refresh(HELD)).refresh_token

    assert [run(refresh) for _ in range(2)] == ["next"] * 2


# -- proxies -----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize(
    "url, tunnelled", [("http://127.0.0.1:1/token", False), ("https://as.test/token", True)]
)
async def test_a_proxy_of_the_environment_sees_no_secret(
    url: str, tunnelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain requests go to this host and not to a proxy; encrypted ones are tunnelled through the proxy."""
    made: list[dict[str, Any]] = []

    class Watched(httpx.AsyncClient):
        def __init__(self, **options: Any) -> None:
            made.append(options)
            super().__init__(transport=Counting(), **options)

    monkeypatch.setattr("httpx_refresh._oauth.exchange.httpx.AsyncClient", Watched)
    await endpoint_of(None, url).refresh(HELD)
    assert [options["trust_env"] for options in made] == [tunnelled]


@pytest.mark.anyio
async def test_loopback_is_asked_directly_whatever_the_environment_says(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert (await endpoint_of(None, server).refresh(HELD)).access_token == "new"


# -- declared facts ------------------------------------------------------------------------------------------------


def test_credentials_are_told_apart_by_a_fingerprint_that_is_no_secret() -> None:
    url = "https://as.test/token"
    told = [
        TokenEndpoint(url, client_id, secret).client_fingerprint
        for client_id, secret in [("a", "s"), ("a", "t"), ("b", "s"), ("a", None), ("a s", "")][:4]
    ]
    assert len(set(told)) == 4
    assert all(len(one) == 8 and int(one, 16) >= 0 for one in told)
    assert TokenEndpoint("https://b.test/", "a", "s").client_fingerprint == told[0]
    assert TokenEndpoint(url, "1 a", "s").client_fingerprint not in told


def test_plain_http_to_other_hosts_is_for_those_who_say_so() -> None:
    url = "http://keycloak:8080/token"
    with pytest.raises(ValueError, match="must be https"):
        TokenEndpoint(url, "id")
    with pytest.raises(ValueError, match="revocation_endpoint must be https"):
        TokenEndpoint("https://as.test", "id", revocation_endpoint="http://keycloak/revoke")
    with pytest.raises(TypeError, match="allow_http"):
        TokenEndpoint(url, "id", allow_http="yes")  # type: ignore[arg-type]  # on purpose
    endpoint = TokenEndpoint(
        url, "id", allow_http=True, revocation_endpoint="http://keycloak/revoke"
    )
    assert endpoint.allow_http
    assert not TokenEndpoint("https://as.test", "id").allow_http


def test_a_client_shows_nothing() -> None:
    client = Client("https://as.test", "the id", SECRET, None, name="X", source=None, timeout=1.0)
    assert SECRET not in repr(client)
    assert not hasattr(client, "__dict__")
