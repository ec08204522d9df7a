"""The server in a process of its own: the handle that controls it, and its counterpart in that process.

Commands, behaviours and events are sent as JSON. `RunningServer` sends commands, `Control` runs them.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import fields
from typing import IO, Any, cast

import httpx

from ._behaviour import Answer, Behaviour, LostAnswer, LostRequest, Outage
from ._events import ApiEvent, Event, FamilyEvent, TokenEvent
from ._server import AuthorizationServer
from ._wire import Gate

STOP_TIMEOUT = 10.0

# The server closes connections that were idle for five seconds. If a request is sent just then, it fails.
_LIMITS = httpx.Limits(keepalive_expiry=2.0)

_BEHAVIOURS: dict[str, type[Behaviour]] = {
    kind.__name__: kind for kind in (Behaviour, Answer, Outage, LostAnswer, LostRequest)
}
_EVENTS: dict[str, Callable[..., Event]] = {
    "token": TokenEvent,
    "api": ApiEvent,
    "family": FamilyEvent,
}


class RunningServer:
    """A server in another process: its address, its first client and token, and the methods that control it.

    `url` is its address, and `token_url` and `api_url` are the addresses of its parts. `client_id` and
    `client_secret` are its first client's; `token` is that client's first token response; `pid` is
    the process id.
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
        """The address of the token endpoint."""
        return f"{self.url}/token"

    @property
    def api_url(self) -> str:
        """The address of the API, without a slash at the end."""
        return f"{self.url}/api"

    def stats(self) -> dict[str, int]:
        """Return all counters by name, as `AuthorizationServer.stats`."""
        stats: dict[str, int] = self._run("stats")
        return stats

    def events(self, since: int = 0) -> list[Event]:
        """Return the events in order, from the one with this index on."""
        return [_EVENTS[row["kind"]](**row) for row in self._run("events", since=since)]

    def login(self, client_id: str | None = None, *, scope: str = "") -> dict[str, Any]:
        """Begin another family of tokens, and return its first token response."""
        response: dict[str, Any] = self._run("login", client_id=client_id, scope=scope)
        return response

    def expire(self) -> None:
        """Expire every access token issued so far."""
        self._run("expire")

    def revoke_family(self, number: int | None = None) -> None:
        """Revoke the family with this number; without a number all families."""
        self._run("revoke_family", number=number)

    def decide_device(self, user_code: str, *, allow: bool = True) -> None:
        """Allow or deny a device login, as the person in front of the device."""
        self._run("decide_device", user_code=user_code, allow=allow)

    def script(self, *behaviours: Behaviour) -> None:
        """Set the behaviours for the next token requests, one for each."""
        self._run("script", token=[*map(_dump_behaviour, behaviours)], api=[])

    def script_api(self, *behaviours: Behaviour) -> None:
        """Set the behaviours for the next API requests, one for each."""
        self._run("script", token=[], api=[*map(_dump_behaviour, behaviours)])

    def behave(self, *, token: Behaviour | None = None, api: Behaviour | None = None) -> None:
        """Set the behaviour for requests without a scripted one; None is the normal behaviour."""
        self._run(
            "behave", token=token and _dump_behaviour(token), api=api and _dump_behaviour(api)
        )

    def set(self, **settings: Any) -> None:
        """Change settings, by their names in `Settings`."""
        self._run("set", **settings)

    def arrived(self, gate: Gate, count: int = 1) -> None:
        """Wait until that many requests have reached the gate."""
        self._run("arrived", gate=gate.name, count=count)

    def release(self, gate: Gate) -> None:
        """Open the gate for the requests that wait and for later ones."""
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

    `settings` are settings of `AuthorizationServer` that JSON can represent. When the block ends, the
    process is asked to stop, and is killed after `stop_timeout` seconds. RuntimeError is raised if it
    does not start; its messages go to standard error. This needs the extra `testing`.
    """
    command = [sys.executable, "-m", "httpx_refresh.testing", "--port", str(port)]
    command += ["--options", json.dumps(settings)]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,  # noqa: S603 - our own command
        httpx.Client(timeout=60.0, limits=_LIMITS, trust_env=False) as client,
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


def _dump_behaviour(behaviour: Behaviour) -> dict[str, Any]:
    """Return the behaviour as a JSON value; its gate is named."""
    values = {field.name: getattr(behaviour, field.name) for field in fields(behaviour)}
    if behaviour.gate is not None:
        values["gate"] = behaviour.gate.name
    return {"behaviour": type(behaviour).__name__, **values}


class Control:
    """Runs the commands that a `RunningServer` in another process sends."""

    def __init__(self, server: AuthorizationServer) -> None:
        self._server = server
        self._gates: dict[str, Gate] = {}
        self._commands: dict[str, Callable[..., Awaitable[Any]]] = {
            "arrived": self.arrived,
            "behave": self.behave,
            "decide_device": self.decide_device,
            "events": self.events,
            "expire": self.expire,
            "login": self.login,
            "release": self.release,
            "revoke_family": self.revoke_family,
            "script": self.script,
            "set": self.set,
            "stats": self.stats,
        }

    async def run(self, command: str, arguments: Mapping[str, Any]) -> Any:
        """Run one command by its name."""
        return await self._commands[command](**arguments)

    async def stats(self) -> dict[str, int]:
        return self._server.stats()

    async def events(self, since: int) -> list[dict[str, Any]]:
        return [event._asdict() for event in self._server.events[since:]]

    async def login(self, client_id: str | None, scope: str) -> dict[str, Any]:
        return self._server.login(client_id, scope=scope)

    async def expire(self) -> None:
        self._server.expire_access_tokens()

    async def revoke_family(self, number: int | None) -> None:
        self._server.revoke_family(number)

    async def decide_device(self, user_code: str, allow: bool) -> None:
        self._server.decide_device(user_code, allow=allow)

    async def script(self, token: list[dict[str, Any]], api: list[dict[str, Any]]) -> None:
        self._server.script(*map(self._behaviour, token))
        self._server.script_api(*map(self._behaviour, api))

    async def behave(self, token: dict[str, Any] | None, api: dict[str, Any] | None) -> None:
        self._server.token_behaviour = None if token is None else self._behaviour(token)
        self._server.api_behaviour = None if api is None else self._behaviour(api)

    async def set(self, **settings: Any) -> None:
        for name, value in settings.items():
            setattr(self._server, name, value)

    async def arrived(self, gate: str, count: int) -> None:
        await self._gate(gate).arrived(count)

    async def release(self, gate: str) -> None:
        self._gate(gate).release()

    def _gate(self, name: str) -> Gate:
        return self._gates.setdefault(name, Gate(name))

    def _behaviour(self, values: dict[str, Any]) -> Behaviour:
        kind = _BEHAVIOURS[values.pop("behaviour")]
        if values["gate"] is not None:
            values["gate"] = self._gate(values["gate"])
        return kind(**values)
