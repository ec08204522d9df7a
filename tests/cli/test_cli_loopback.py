from __future__ import annotations

import errno
import gc
import socket
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, NoReturn

import anyio
import anyio.abc
import httpx
import pytest

from httpx_refresh import LoginFailed
from httpx_refresh.cli import loopback
from httpx_refresh.cli.console import Exit, Problem
from httpx_refresh.cli.loopback import Loopback, Place

pytestmark = pytest.mark.anyio

FREE = Place(0, "/callback", "127.0.0.1")


class Login:
    """The arguments of `serve`: it begins, waits at `gate` if there is one, and fails with `error` if there is one."""

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
async def serving(
    login: Login, *, timeout: float = 60, place: Place = FREE
) -> AsyncIterator[tuple[str, list[str]]]:
    """Serve one login; yield its redirect URI, and a list that gets its result."""
    ended: list[str] = []
    async with Loopback(place) as server, anyio.create_task_group() as tasks:

        async def serve() -> None:
            try:
                await server.serve(login.begin, login.complete, state="STATE", timeout=timeout)
            except LoginFailed as error:
                ended.append(str(error))
            else:
                ended.append("taken" if server.taken else "nobody came")

        tasks.start_soon(serve)
        await login.begun.wait()
        yield server.redirect_uri, ended


def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(trust_env=False, timeout=60)


async def test_one_redirect_is_taken_and_then_nobody_listens_any_more() -> None:
    login = Login()
    async with serving(login) as (uri, ended), client() as browser:
        page = await browser.get(f"{uri}?code=a&state=STATE")
    assert page.status_code == 200
    assert login.redirects == ["/callback?code=a&state=STATE"]
    assert ended == ["taken"]
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
            pages.append(await browser.get(f"{uri}?code=a&state=STATE"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(come_back)
            await login.completing.wait()
            second = await browser.get(f"{uri}?code=a&state=STATE")
            gate.set()
    assert second.status_code == 409
    assert "This login was answered before" in second.text
    assert [page.status_code for page in pages] == [200]
    assert login.redirects == ["/callback?code=a&state=STATE"]
    assert ended == ["taken"]


@pytest.mark.parametrize(
    "method, path, host, status",
    [
        ("GET", "/favicon.ico", None, 404),
        ("GET", "/", None, 404),
        ("GET", "/callback/x", None, 404),
        ("POST", "/callback?code=a&state=STATE", None, 405),
        ("HEAD", "/callback?code=a&state=STATE", None, 405),
        ("GET", "/callback?code=a&state=STATE", "attacker.example", 421),
        ("GET", "/callback?code=a&state=STATE", "", 421),
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
        page = await browser.get(f"{uri}?code=b&state=STATE")
    assert other.status_code == status
    assert page.status_code == 200
    assert ended == ["taken"]


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
        assert (await browser.get(f"{uri}?code=b&state=STATE")).status_code == 200
    assert ended == ["taken"]


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
        assert (await browser.get(f"{uri}?code=b&state=STATE")).status_code == 200


async def test_whoever_opens_many_connections_keeps_no_browser_out() -> None:
    login = Login()
    async with serving(login) as (uri, ended), client() as browser:
        port = httpx.URL(uri).port
        assert port is not None
        opened = [await anyio.connect_tcp("127.0.0.1", port) for _ in range(3 * 32)]
        for stream in opened:
            await stream.send(b"GET /callback")
        # The oldest connections are closed for the newest.
        for stream in opened[:64]:
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await stream.receive()
        assert (await browser.get(f"{uri}?code=b&state=STATE")).status_code == 200
        for stream in opened:
            await stream.aclose()
    assert ended == ["taken"]


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ECONNABORTED])
async def test_a_connection_that_cannot_be_had_does_not_end_the_login(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = anyio.Event()
    monkeypatch.setattr(loopback, "_ACCEPT_PAUSE", 0)
    listen = loopback._listen

    async def unlucky(address: str, port: int) -> object:
        many = await listen(address, port)
        listener: Any = many.listeners[0]
        accept = listener.accept

        async def accept_later() -> object:
            if not failed.is_set():
                failed.set()
                raise OSError(code, "no")
            return await accept()

        monkeypatch.setattr(listener, "accept", accept_later)
        return many

    monkeypatch.setattr(loopback, "_listen", unlucky)
    login = Login()
    async with serving(login) as (uri, ended), client() as browser:
        await failed.wait()
        assert (await browser.get(f"{uri}?code=b&state=STATE")).status_code == 200
    assert ended == ["taken"]


async def test_a_window_that_is_closed_while_the_code_is_redeemed_loses_nothing() -> None:
    gate = anyio.Event()
    login = Login(gate=gate)
    async with serving(login) as (uri, ended):
        port = httpx.URL(uri).port
        assert port is not None
        stream = await anyio.connect_tcp("127.0.0.1", port)
        await stream.send(
            f"GET /callback?code=a&state=STATE HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        )
        await login.completing.wait()
        attribute = anyio.abc.SocketAttribute.raw_socket
        raw: socket.socket = stream.extra(attribute)  # noqa: S610 - not Django's
        # Not a close but a reset: sending to it fails.
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await stream.aclose()
        gate.set()
    assert ended == ["taken"]


async def test_what_went_wrong_is_on_the_page_and_is_raised() -> None:
    login = Login(error=LoginFailed("The <cause>."))
    async with serving(login) as (uri, ended), client() as browser:
        page = await browser.get(f"{uri}?code=a&state=STATE")
    assert page.status_code == 400
    assert "The &lt;cause&gt;." in page.text
    assert ended == ["The <cause>."]


@pytest.mark.parametrize(
    "query",
    [
        "code=a",
        "code=a&state=another",
        "code=a&state=STATE&state=STATE",
        "code=a&state=another&state=STATE",
        "code=a&state=",
        "error=access_denied",
        "error=access_denied&state=another",
        "code=a&state=%53TATE%00",
        "code=a&state=STAT%C3%89",
        "state=STATE&" + "&".join(f"a{number}=b" for number in range(200)),
        "",
    ],
)
async def test_a_request_without_the_state_of_this_login_does_not_end_it(
    query: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Send a request as a web page does that has an image with this address."""
    login = Login()
    async with serving(login) as (uri, ended), client() as browser:
        pages = [await browser.get(f"{uri}?{query}") for _ in range(2)]
        assert (login.redirects, ended) == ([], [])
        assert (await browser.get(f"{uri}?code=b&state=STATE")).status_code == 200
    assert [page.status_code for page in pages] == [400, 400]
    assert "Not this login" in pages[0].text
    assert login.redirects == ["/callback?code=b&state=STATE"]
    assert ended == ["taken"]
    # Reported once, because a page can send any number of them.
    assert capsys.readouterr().err.count("is not the answer to this login") == 1


async def test_an_error_that_brings_the_state_ends_the_login() -> None:
    login = Login(error=LoginFailed("denied"))
    async with serving(login) as (uri, ended), client() as browser:
        await browser.get(f"{uri}?error=access_denied&state=STATE")
    assert ended == ["denied"]


has_ipv6 = pytest.mark.skipif(
    not loopback._has_ipv6_loopback(), reason="[::1] is no address of this machine"
)


@has_ipv6
async def test_localhost_is_listened_for_on_both_its_addresses() -> None:
    login = Login()
    place = Place(0, "/callback", "localhost")
    async with serving(login, place=place) as (uri, ended), client() as browser:
        port = httpx.URL(uri).port
        assert uri == f"http://localhost:{port}/callback"
        headers = {"Host": f"localhost:{port}"}
        answers = [
            await browser.get(f"http://{address}:{port}/callback?{query}", headers=headers)
            for address, query in (("[::1]", "code=a"), ("127.0.0.1", "code=a"))
        ]
        assert [answer.status_code for answer in answers] == [400, 400]
        page = await browser.get(f"http://[::1]:{port}/callback?state=STATE", headers=headers)
    assert page.status_code == 200
    assert ended == ["taken"]


@has_ipv6
@pytest.mark.parametrize("address", ["::1", "127.0.0.1"])
async def test_localhost_that_somebody_else_holds_in_part_is_not_used(address: str) -> None:
    """A browser would go to [::1] first, and send the code to another program that listens there."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as other:
        port = other.getsockname()[1]
        with pytest.raises(Problem, match=f"port {port} of {address} is in use") as caught:
            await Loopback(Place(port, "/callback", "localhost")).__aenter__()
    assert caught.value.code == Exit.LOGIN_FAILED
    # anyio before 4.11 leaves a socket that could not be bound to the garbage collector.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        caught.value.__context__ = None
        del caught
        gc.collect()
    # The addresses that were opened before are free again.
    for one, its_family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
        socket.create_server((one, port), family=its_family).close()


async def test_where_a_machine_has_no_ipv6_nobody_can_listen_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_socket(*_: object) -> NoReturn:
        raise OSError(errno.EAFNOSUPPORT, "no such family")

    monkeypatch.setattr(loopback, "socket", SimpleNamespace(socket=no_socket, AF_INET6=0))
    assert loopback._addresses("localhost") == ["127.0.0.1"]


async def test_an_address_that_cannot_be_listened_on_is_a_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def denied(**_: object) -> NoReturn:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(anyio, "create_tcp_listener", denied)
    with pytest.raises(Problem, match=r"port 80 of 127.0.0.1 cannot be listened on \(Permission"):
        await loopback._listen("127.0.0.1", 80)


async def test_a_redirect_at_the_last_moment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is up while the code is exchanged, at a moment that the test chooses."""
    patience, grace = anyio.CancelScope(), anyio.CancelScope()
    scopes = iter([patience, grace])
    monkeypatch.setattr("anyio.move_on_after", lambda timeout: next(scopes))
    gate = anyio.Event()
    login = Login(gate=gate)
    async with serving(login) as (uri, ended), client() as browser:
        pages: list[httpx.Response] = []

        async def come_back() -> None:
            pages.append(await browser.get(f"{uri}?code=a&state=STATE"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(come_back)
            await login.completing.wait()
            patience.cancel()
            await anyio.wait_all_tasks_blocked()
            assert ended == []
            gate.set()
    assert [page.status_code for page in pages] == [200]
    assert ended == ["taken"]


async def test_a_redirect_that_takes_too_long_to_be_redeemed_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loopback, "GRACE", 0)
    login = Login(gate=anyio.Event())
    patience = anyio.CancelScope()
    move_on_after = anyio.move_on_after
    monkeypatch.setattr(
        anyio, "move_on_after", lambda timeout: move_on_after(0) if timeout == 0 else patience
    )
    async with serving(login) as (uri, ended):
        port = httpx.URL(uri).port
        assert port is not None
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(
                f"GET /callback?state=STATE HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
            )
            await login.completing.wait()
            patience.cancel()
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()
    assert ended == ["taken"]


async def test_nobody_who_comes_back_is_waited_for_in_vain() -> None:
    async with serving(Login(), timeout=0) as (_, ended):
        pass
    assert ended == ["nobody came"]
