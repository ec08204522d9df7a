"""A web server that gets SIGTERM while it refreshes, as from Kubernetes or systemd."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from httpx_refresh import FileStore, RefreshAuth, TokenEndpoint
from httpx_refresh.testing import Answer, Gate, running_server

ROOT = Path(__file__).parents[2]
APP = "tests.processes.web:app"
WORKER = ["-k", "uvicorn_worker.UvicornWorker", "-w", "1", "-b", "fd://{fd}"]
SERVERS = {
    "uvicorn": ["uvicorn", APP, "--fd", "{fd}"],
    "gunicorn": ["gunicorn", APP, *WORKER],
    "gunicorn, preloaded": ["gunicorn", APP, "--preload", *WORKER],
}


@pytest.mark.parametrize("name", SERVERS)
def test_a_web_server_that_is_stopped_during_a_refresh_saves_it_and_answers(
    name: str, tmp_path: Path
) -> None:
    module = name.partition(",")[0]
    pytest.importorskip(module, reason=f"{module} is in the dependency group all-tests")
    path = tmp_path / "token.json"
    with (
        running_server() as server,
        socket.create_server(("127.0.0.1", 0)) as listener,  # early callers wait in its queue
        httpx.Client(trust_env=False, timeout=120) as client,
        ThreadPoolExecutor(1) as callers,
    ):
        path.touch(mode=0o600)
        path.write_text(json.dumps(server.token))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        fd = listener.fileno()
        command = [part.format(fd=fd) for part in SERVERS[name]]
        with subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env={**os.environ, "SERVER": server.url, "TOKEN": str(path)},
            pass_fds=[fd],
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert client.get(url).text == "200"
                gate = Gate()
                server.expire()
                server.script(Answer(gate=gate))
                call = callers.submit(client.get, url)
                server.arrived(gate)
                process.send_signal(signal.SIGTERM)
                assert process.stderr is not None
                assert any("Shutting down" in line for line in process.stderr)
                server.release(gate)
                assert call.result().text == "200"
                process.communicate(timeout=60)
            finally:
                process.kill()
        assert json.loads(path.read_text())["httpx_refresh"]["generation"] == 1
        server.expire()
        endpoint = TokenEndpoint(server.token_url, "client", "secret")
        auth = RefreshAuth(endpoint, FileStore(path), origins=server.url, refresh_timeout=60)
        with httpx.Client(auth=auth, trust_env=False, timeout=60) as next_one:
            assert next_one.get(f"{server.api_url}/ping").status_code == 200
        assert server.stats()["reuses_detected"] == 0
        assert server.stats()["token_requests"] == 2
