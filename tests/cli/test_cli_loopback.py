from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.abc
import httpx
import pytest

from httpx_refresh import LoginFailed
from httpx_refresh.cli import loopback
from httpx_refresh.cli.loopback import Loopback, Place

pytestmark = pytest.mark.anyio

FREE = Place(0, "/callback", "127.0.0.1")


class Login:
    """What `serve` is given: it begins, waits at `gate` if there is one, and fails with `error` if there is one."""

    def __init__(
        self, *, gate: anyio.Event | None = None, error: LoginFailed | None = None
    ) -> None:
        self.begun = anyio.Event()
        self.redirects: list[str] = []
        self.completing = anyio.Event()
        self._gate = gate
        self._error = error

    async def begin(self) -> None:
        self.begun.set()

    async def complete(self, redirect: str) -> None:
        self.redirects.append(redirect)
        self.completing.set()
        if self._gate is not None:
            await self._gate.wait()
        if self._error is not None:
            raise self._error


@asynccontextmanager
async def serving(login: Login, *, timeout: float = 60) -> AsyncIterator[tuple[str, list[str]]]:
    """Serve one login; give its redirect URI, and a list that holds "ended" once it is over."""
    ended: list[str] = []
    async with Loopback(FREE) as server, anyio.create_task_group() as tasks:

        async def serve() -> None:
            try:
                await server.serve(login.begin, login.complete, timeout=timeout)
            except LoginFailed as error:
                ended.append(str(error))
            else:
                ended.append("ended")

        tasks.start_soon(serve)
        await login.begun.wait()
        yield server.redirect_uri, ended


def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(trust_env=False)


async def test_one_redirect_is_taken_and_then_nobody_listens_any_more() -> None:
    login = Login()
    async with serving(login) as (uri, ended), client() as browser:
        page = await browser.get(f"{uri}?code=a&state=b")
    assert page.status_code == 200
    assert login.redirects == ["/callback?code=a&state=b"]
    assert ended == ["ended"]
    port = httpx.URL(uri).port
    assert port is not None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


async def test_it_listens_on_the_loopback_address_and_on_no_other() -> None:
    async with Loopback(FREE) as server:
        listener = server.listener
        local = anyio.abc.SocketAttribute.local_address
        addresses = [one.extra(local)[0] for one in listener.listeners]  # noqa: S610 - not Django's
    assert addresses == ["127.0.0.1"]


async def test_while_a_redirect_is_worked_on_a_second_one_is_turned_away() -> None:
    gate = anyio.Event()
    login = Login(gate=gate)
    async with serving(login) as (uri, ended), client() as browser:
        pages: list[httpx.Response] = []

        async def come_back() -> None:
            pages.append(await browser.get(f"{uri}?code=a"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(come_back)
            await login.completing.wait()
            second = await browser.get(f"{uri}?code=a")
            gate.set()
    assert second.status_code == 409
    assert "This login was answered before" in second.text
    assert [page.status_code for page in pages] == [200]
    assert login.redirects == ["/callback?code=a"]
    assert ended == ["ended"]


@pytest.mark.parametrize(
    "method, path, host, status",
    [
        ("GET", "/favicon.ico", None, 404),
        ("GET", "/", None, 404),
        ("GET", "/callback/x", None, 404),
        ("POST", "/callback?code=a", None, 405),
        ("HEAD", "/callback?code=a", None, 405),
        ("GET", "/callback?code=a", "attacker.example", 421),
        ("GET", "/callback?code=a", "", 421),
    ],
)
async def test_what_is_not_the_redirect_is_turned_away_and_the_login_goes_on(
    method: str, path: str, host: str | None, status: int
) -> None:
    login = Login()
    async with serving(login) as (uri, ended), client() as browser:
        headers = {} if host is None else {"Host": host}
        other = await browser.request(method, httpx.URL(uri).join(path), headers=headers)
        assert login.redirects == []
        page = await browser.get(f"{uri}?code=b")
    assert other.status_code == status
    assert page.status_code == 200
    assert ended == ["ended"]


@pytest.mark.parametrize(
    "sent", [b"", b"GET /callback", b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"x" * 70_000]
)
async def test_a_connection_that_brings_no_request_does_no_harm(sent: bytes) -> None:
    login = Login()
    async with serving(login) as (uri, ended), client() as browser:
        port = httpx.URL(uri).port
        assert port is not None
        stream = await anyio.connect_tcp("127.0.0.1", port)
        async with stream:
            await stream.send(sent)
        assert (await browser.get(f"{uri}?code=b")).status_code == 200
    assert ended == ["ended"]


async def test_a_connection_that_is_left_open_is_closed_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loopback, "_REQUEST_TIMEOUT", 0.01)
    login = Login()
    async with serving(login) as (uri, _), client() as browser:
        port = httpx.URL(uri).port
        assert port is not None
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()
        monkeypatch.undo()
        assert (await browser.get(f"{uri}?code=b")).status_code == 200


async def test_a_window_that_is_closed_while_the_code_is_redeemed_loses_nothing() -> None:
    gate = anyio.Event()
    login = Login(gate=gate)
    async with serving(login) as (uri, ended):
        port = httpx.URL(uri).port
        assert port is not None
        stream = await anyio.connect_tcp("127.0.0.1", port)
        await stream.send(
            f"GET /callback?code=a HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        )
        await login.completing.wait()
        attribute = anyio.abc.SocketAttribute.raw_socket
        raw: socket.socket = stream.extra(attribute)  # noqa: S610 - not Django's
        # Not a close but a reset: sending to it fails.
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await stream.aclose()
        gate.set()
    assert ended == ["ended"]


async def test_what_went_wrong_is_on_the_page_and_is_raised() -> None:
    login = Login(error=LoginFailed("The <cause>."))
    async with serving(login) as (uri, ended), client() as browser:
        page = await browser.get(f"{uri}?code=a")
    assert page.status_code == 400
    assert "The &lt;cause&gt;." in page.text
    assert ended == ["The <cause>."]


async def test_a_redirect_at_the_last_moment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is up while the code is redeemed; the test says when."""
    patience = anyio.CancelScope()
    monkeypatch.setattr("anyio.move_on_after", lambda timeout: patience)
    gate = anyio.Event()
    login = Login(gate=gate)
    async with serving(login) as (uri, ended), client() as browser:
        pages: list[httpx.Response] = []

        async def come_back() -> None:
            pages.append(await browser.get(f"{uri}?code=a"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(come_back)
            await login.completing.wait()
            patience.cancel()
            await anyio.wait_all_tasks_blocked()
            assert ended == []
            gate.set()
    assert [page.status_code for page in pages] == [200]
    assert ended == ["ended"]


async def test_nobody_who_comes_back_is_waited_for_in_vain() -> None:
    async with serving(Login(), timeout=0) as (_, ended):
        pass
    assert ended[0].startswith("Nobody came back from the login within 0 s")
