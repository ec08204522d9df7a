"""The server in a process of its own, and the handle by which a test steers it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Generator, Mapping
from typing import IO, Any, cast

import httpx

from ._behaviour import Behaviour, Gate
from ._control import dump_behaviour, load_events
from ._events import Event

STOP_TIMEOUT = 10.0


class RunningServer:
    """A server in another process: its address, its first client and token, and what steers it.

    `url` is its address, `token_url` and `api_url` those of its parts; `token` the first token
    response of its client, `client_id` with `client_secret`; `pid` its process.
    """

    def __init__(self, line: Mapping[str, Any], pid: int, client: httpx.Client) -> None:
        self.url: str = line["url"]
        self.client_id: str = line["client_id"]
        self.client_secret: str | None = line["client_secret"]
        self.token: dict[str, Any] = line["token"]
        self.pid = pid
        self._client = client

    @property
    def token_url(self) -> str:
        """The token endpoint's address."""
        return f"{self.url}/token"

    @property
    def api_url(self) -> str:
        """The API's address, without a slash at its end."""
        return f"{self.url}/api"

    def stats(self) -> dict[str, int]:
        """Return all counters by name, as `AuthorizationServer.stats`."""
        stats: dict[str, int] = self._run("stats")
        return stats

    def events(self, since: int = 0) -> list[Event]:
        """Return what happened, in order, from the event of that index on."""
        return load_events(self._run("events", since=since))

    def login(self, client_id: str | None = None, *, scope: str = "") -> dict[str, Any]:
        """Begin another family, and return its first token response."""
        response: dict[str, Any] = self._run("login", client_id=client_id, scope=scope)
        return response

    def expire(self) -> None:
        """From now on refuse every access token issued so far."""
        self._run("expire")

    def revoke_family(self, number: int | None = None) -> None:
        """End a family by its number, without one all of them."""
        self._run("revoke_family", number=number)

    def decide_device(self, user_code: str, *, allow: bool = True) -> None:
        """Decide about a device that asks to be let in, as the person in front of it."""
        self._run("decide_device", user_code=user_code, allow=allow)

    def script(self, *behaviours: Behaviour) -> None:
        """Behave like this to the next token requests, one each."""
        self._run("script", token=[*map(dump_behaviour, behaviours)], api=[])

    def script_api(self, *behaviours: Behaviour) -> None:
        """Behave like this to the next API requests, one each."""
        self._run("script", token=[], api=[*map(dump_behaviour, behaviours)])

    def behave(self, *, token: Behaviour | None = None, api: Behaviour | None = None) -> None:
        """Behave like this to all requests that no script is for; without a behaviour, normally."""
        self._run("behave", token=token and dump_behaviour(token), api=api and dump_behaviour(api))

    def set(self, **settings: Any) -> None:
        """Change settings, by the names that `Settings` gives them."""
        self._run("set", **settings)

    def arrived(self, gate: Gate, count: int = 1) -> None:
        """Wait until that many requests have reached the gate."""
        self._run("arrived", gate=gate.name, count=count)

    def release(self, gate: Gate) -> None:
        """Open the gate, now and for the requests to come."""
        self._run("release", gate=gate.name)

    def _run(self, command: str, **arguments: Any) -> Any:
        response = self._client.post(f"{self.url}/control/{command}", json=arguments)
        return response.raise_for_status().json()


@contextlib.contextmanager
def running_server(
    *, port: int = 0, stop_timeout: float = STOP_TIMEOUT, **settings: Any
) -> Generator[RunningServer]:
    """Run the server in a process of its own, on real sockets, while the block lasts.

        with running_server(lifetime=5) as server:
            client = httpx.Client()
            ...                                 # use server.token_url, server.api_url, server.token
            assert server.stats()["token_requests"] == 1

    `settings` are those of `AuthorizationServer` that JSON can carry. The process is gone when the
    block ends: it is asked to stop, and killed after `stop_timeout` seconds. `RuntimeError` if
    it does not start; what it says goes to standard error. Needs the extra `testing`.
    """
    command = [sys.executable, "-m", "httpx_refresh.testing", "--port", str(port)]
    command += ["--options", json.dumps(settings)]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,  # noqa: S603 - our own command
        httpx.Client(timeout=30.0, trust_env=False) as client,
    ):
        try:
            line = cast("IO[bytes]", process.stdout).readline()
            if not line:
                raise RuntimeError(f"the server did not start: exit code {process.wait()}")
            yield RunningServer(json.loads(line), process.pid, client)
        finally:
            cast("IO[bytes]", process.stdin).close()
            try:
                process.wait(stop_timeout)
            except subprocess.TimeoutExpired:
                process.kill()
