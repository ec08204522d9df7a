"""Sync clients and their process: its end, a fork, Ctrl-C, and other processes beside it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from httpx_refresh.testing import Answer, Gate, RunningServer, running_server

_SETUP = """
import json, os, signal, sys, threading, time
import httpx
from httpx_refresh import FileStore, RefreshAuth, TokenEndpoint
token_url, api_url, client_id, secret, path = sys.argv[1:]
endpoint = TokenEndpoint(token_url, client_id, secret, origins="any")
auth = RefreshAuth(endpoint, FileStore(path), refresh_timeout=60)
def get():
    with httpx.Client(auth=auth, base_url=api_url, timeout=60) as client:
        return client.get("/ping").status_code
"""


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with running_server() as server:
        yield server


@pytest.fixture
def path(tmp_path: Path, server: RunningServer) -> Path:
    path = tmp_path / "token.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(server.login()))
    return path


def start(server: RunningServer, path: Path, script: str) -> subprocess.Popen[str]:
    client = (server.client_id, server.client_secret or "")
    arguments = (server.token_url, server.api_url, *client, str(path))
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", _SETUP + script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(server: RunningServer, path: Path, script: str) -> str:
    process = start(server, path, script)
    said, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    return said


def generation(path: Path) -> int:
    return int(json.loads(path.read_text()).get("httpx_refresh", {}).get("generation", 0))


def expires_soon(path: Path, seconds: float) -> None:
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, "expires_in": 3600, "expires_at": time.time() + seconds}))


def test_a_script_that_ends_with_a_refresh_under_way_loses_no_grant(
    server: RunningServer, path: Path
) -> None:
    expires_soon(path, 50)  # A refresh starts earlier than that, whatever its jitter.
    gate = Gate()
    server.script(Answer(gate=gate))
    # The script waits for a line, so that it does not end before its refresh has begun.
    process = start(server, path, "get(); get(); sys.stdin.readline(); print(get(), flush=True)")
    server.arrived(gate)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("the token request is under way\n")
    process.stdin.flush()
    assert process.stdout.readline() == "200\n"  # With the old token; the script is at its end.
    server.release(gate)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    assert generation(path) == 1
    assert server.stats()["token_requests"] == 1
    assert run(server, path, "print(get())") == "200\n"


def test_a_script_whose_other_threads_outlive_the_main_one_goes_on_refreshing(
    server: RunningServer, path: Path
) -> None:
    expires_soon(path, -1)
    script = """
def later():
    threading.main_thread().join()
    print(get())
threading.Thread(target=later).start()
"""
    assert run(server, path, script) == "200\n"
    assert generation(path) == 1


def test_ctrl_c_in_a_waiting_caller_ends_the_wait_at_once_and_loses_no_grant(
    server: RunningServer, path: Path
) -> None:
    expires_soon(path, -1)
    gate = Gate()
    server.script(Answer(gate=gate))
    script = """
try:
    get()
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    process = start(server, path, script)
    server.arrived(gate)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "interrupted\n"
    server.release(gate)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    assert generation(path) == 1
    assert run(server, path, "print(get())") == "200\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_forked_child_has_a_loop_of_its_own(server: RunningServer, path: Path) -> None:
    expires_soon(path, -1)
    # From 3.12 on Python warns of any fork in a process with threads.
    script = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
get()
assert any(thread.name == "httpx-refresh loop" for thread in threading.enumerate())
child = os.fork()
auth.sync.refresh()
if child:
    assert os.waitpid(child, 0)[1] == 0
    print("parent", get())
else:
    print("child", get(), flush=True)
    os._exit(0)
"""
    assert sorted(run(server, path, script).splitlines()) == ["child 200", "parent 200"]
    assert server.stats()["reuses_detected"] == 0


def test_threads_loops_and_processes_make_one_token_request_for_each_expiry(
    server: RunningServer, path: Path
) -> None:
    """Four sync threads and two event loops of one process, and another process with the same."""
    script = """
import asyncio
from concurrent.futures import ThreadPoolExecutor
async def views():
    async with httpx.AsyncClient(auth=auth, base_url=api_url, timeout=60) as client:
        return [one.status_code for one in await asyncio.gather(*[client.get("/ping") for _ in range(3)])]
with ThreadPoolExecutor(6) as pool:
    for line in sys.stdin:
        calls = [pool.submit(get) for _ in range(4)]
        loops = [pool.submit(asyncio.run, views()) for _ in range(2)]
        print({one.result() for one in calls} | {status for one in loops for status in one.result()}, flush=True)
"""
    client = (server.client_id, server.client_secret or "")
    arguments = (server.token_url, server.api_url, *client, str(path))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _SETUP + script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        for expiry in range(1, 5):
            server.expire()
            for one in processes:
                assert one.stdin is not None
                one.stdin.write("go\n")
                one.stdin.flush()
            for one in processes:
                assert one.stdout is not None
                assert one.stdout.readline() == "{200}\n"
            assert server.stats()["token_requests"] == expiry
        assert generation(path) == 4
    finally:
        for one in processes:
            one.communicate(timeout=120)
    assert server.stats()["reuses_detected"] == 0
