from __future__ import annotations

import base64
import contextlib
import errno
import importlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest

from httpx_refresh.testing import (
    Answer,
    ApiEvent,
    AuthorizationServer,
    Behaviour,
    FamilyEvent,
    Gate,
    LostAnswer,
    LostRequest,
    Outage,
    RunningServer,
    TokenEvent,
    running_server,
)
from httpx_refresh.testing.__main__ import _has_pipe, main

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.processes


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with running_server(lifetime=5) as running:
        yield running


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=60) as opened:
        yield opened


def spend(
    client: httpx.Client, server: RunningServer, token: dict[str, Any] | None = None
) -> httpx.Response:
    form = {
        "grant_type": "refresh_token",
        "refresh_token": (token or server.token)["refresh_token"],
    }
    return client.post(
        server.token_url, data=form, auth=(server.client_id, server.client_secret or "")
    )


def ping(client: httpx.Client, server: RunningServer, token: dict[str, Any]) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token['access_token']}"}
    return client.get(f"{server.api_url}/ping", headers=headers)


def test_another_process_serves_over_a_socket_and_tells_what_happened(
    server: RunningServer, client: httpx.Client
) -> None:
    assert server.token["expires_in"] == 5
    assert ping(client, server, server.token).status_code == 200
    server.expire()
    assert ping(client, server, server.token).status_code == 401
    assert ping(client, server, spend(client, server).json()).status_code == 200
    stats = server.stats()
    assert (stats["token_requests"], stats["api_accepted"], stats["api_refused"]) == (1, 2, 1)
    kinds = [type(event) for event in server.events()]
    assert kinds == [FamilyEvent, ApiEvent, ApiEvent, TokenEvent, ApiEvent]
    assert [type(event) for event in server.events(since=3)] == [TokenEvent, ApiEvent]
    document = client.get(f"{server.url}/.well-known/oauth-authorization-server").json()
    assert document["issuer"] == server.url


def test_losses_are_losses_on_a_socket_too(
    capfd: pytest.CaptureFixture[str], client: httpx.Client
) -> None:
    # A second connection stays open: only the connection of the request is closed.
    with running_server() as server, httpx.Client(trust_env=False, timeout=60) as other:
        server.script(
            LostRequest(), LostAnswer(half=True), LostAnswer(), Outage(429, retry_after=1)
        )
        assert ping(other, server, server.token).status_code == 200
        for message in ("without sending a response", "complete message", "without sending"):
            with pytest.raises(httpx.RemoteProtocolError, match=message):
                spend(client, server, server.login())
        assert spend(client, server).headers["Retry-After"] == "1"
        assert ping(other, server, server.token).status_code == 200
        assert server.stats()["rotations"] == 2
    assert capfd.readouterr().err == ""  # a loss on purpose is not an error of the server


def test_a_huge_body_comes_over_a_socket(server: RunningServer, client: httpx.Client) -> None:
    server.script(Outage(200, padding=3_000_000))
    assert len(spend(client, server).content) == 3_000_000


def test_a_gate_in_the_other_process_is_waited_for_and_released(
    server: RunningServer, client: httpx.Client
) -> None:
    gate = Gate()
    server.script(Answer(gate=gate))
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(spend(client, server)))
    thread.start()
    server.arrived(gate)
    assert (server.stats()["rotations"], answers) == (1, [])
    server.release(gate)
    thread.join()
    assert answers[0].status_code == 200


def test_a_client_that_goes_away_does_not_undo_the_rotation(
    server: RunningServer, client: httpx.Client
) -> None:
    gate = Gate()
    server.script(Answer(gate=gate))
    request = client.build_request(
        "POST",
        server.token_url,
        data={"grant_type": "refresh_token", "refresh_token": server.token["refresh_token"]},
    )
    credentials = base64.b64encode(f"{server.client_id}:{server.client_secret}".encode())
    request.headers["Authorization"] = f"Basic {credentials.decode()}"
    with socket.create_connection((request.url.host, cast("int", request.url.port))) as connection:
        head = [b"POST /token HTTP/1.1", *(b": ".join(item) for item in request.headers.raw)]
        connection.sendall(b"\r\n".join([*head, b"", request.content]))
        server.arrived(gate)
    server.release(gate)
    assert spend(client, server).json()["error"] == "invalid_grant"


def test_behaviours_and_settings_can_be_changed(
    server: RunningServer, client: httpx.Client
) -> None:
    server.script_api(Outage(500))
    assert ping(client, server, server.token).status_code == 500
    server.behave(token=Outage(503), api=Outage(502))
    assert spend(client, server).status_code == 503
    assert ping(client, server, server.token).status_code == 502
    server.behave(api=Behaviour())
    assert ping(client, server, server.token).status_code == 200
    server.set(lifetime=7, rotate=False)
    assert spend(client, server).json()["expires_in"] == 7
    assert server.stats()["rotations"] == 0


def test_logins_revocations_and_devices_are_within_reach(
    server: RunningServer, client: httpx.Client
) -> None:
    token = server.login(scope="a")
    assert token["scope"] == "a"
    server.revoke_family(1)
    assert ping(client, server, token).status_code == 401
    assert ping(client, server, server.token).status_code == 200
    auth = (server.client_id, server.client_secret or "")
    device = client.post(f"{server.url}/device_authorization", data={"a": "b"}, auth=auth).json()
    server.decide_device(device["user_code"])
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "device_code": device["device_code"],
    }
    assert client.post(server.token_url, data=form, auth=auth).status_code == 200


def test_the_process_is_gone_when_the_block_ends() -> None:
    with running_server() as server:
        os.kill(server.pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


def test_a_process_that_does_not_stop_is_killed() -> None:
    with running_server(stop_timeout=0) as server:
        os.kill(server.pid, signal.SIGSTOP)
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


def test_a_server_that_cannot_start_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with contextlib.ExitStack() as stack, pytest.raises(RuntimeError, match="did not start"):
        stack.enter_context(running_server(clients={}))
    assert "at least one is needed" in capfd.readouterr().err


@pytest.fixture
def command() -> Iterator[subprocess.Popen[bytes]]:
    arguments = ["--lifetime", "9", "--token-delay", "0.001", "--api-delay", "0.001"]
    with subprocess.Popen(
        [sys.executable, "-m", "httpx_refresh.testing", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, None])
def test_the_command_prints_one_line_and_serves_until_it_is_told_to_stop(
    command: subprocess.Popen[bytes], client: httpx.Client, how: signal.Signals | None
) -> None:
    line = json.loads(cast("Any", command.stdout).readline())
    assert set(line) == {"url", "client_id", "client_secret", "token"}
    server = RunningServer(line, command.pid, client)
    assert spend(client, server).json()["expires_in"] == 9
    assert ping(client, server, server.token).status_code == 200
    behaviours = [
        event.behaviour for event in server.events() if not isinstance(event, FamilyEvent)
    ]
    assert behaviours == ["Answer", "Answer"]
    if how is None:
        cast("Any", command.stdin).write(b"what is said there does not matter")
        cast("Any", command.stdin).close()
    else:
        command.send_signal(how)
    assert command.wait(120) == 0


def test_without_a_pipe_the_command_serves_on(client: httpx.Client) -> None:
    """In a container, under nohup, or in the background of a script its input has ended before it begins."""
    command = [sys.executable, "-m", "httpx_refresh.testing"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            line = json.loads(cast("Any", process.stdout).readline())
            server = RunningServer(line, process.pid, client)
            assert ping(client, server, server.token).status_code == 200
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()


def test_the_command_stops_though_it_holds_an_answer(
    command: subprocess.Popen[bytes], client: httpx.Client
) -> None:
    server = RunningServer(json.loads(cast("Any", command.stdout).readline()), command.pid, client)
    gate = Gate()
    server.script(Answer(gate=gate))
    with socket.create_connection(("127.0.0.1", httpx.URL(server.url).port or 0)) as connection:
        connection.sendall(b"POST /token HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        server.arrived(gate)
        cast("Any", command.stdin).close()
        assert command.wait(120) == 0


def test_the_command_tells_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "--token-delay" in capsys.readouterr().out


@pytest.mark.parametrize(
    "missing, module, extra",
    [
        ("starlette.requests", "_app", "testing"),
        ("uvicorn", "__main__", "testing"),
    ],
)
def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, missing: str, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, f"httpx_refresh.testing.{module}", raising=False)
    with pytest.raises(ImportError, match=re.escape(f"httpx-refresh[{extra}]")):
        importlib.import_module(f"httpx_refresh.testing.{module}")


def test_a_transport_of_a_library_that_is_missing_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(ImportError, match=re.escape("httpx-refresh[httpx2]")):
        AuthorizationServer().transport2()


def test_a_command_whose_input_is_closed_serves_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed input is no pipe that a test may close."""

    def closed(_: int) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", closed)
        assert not _has_pipe()
