"""How a server in a process of its own is steered: commands and behaviours as JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ._behaviour import Answer, Behaviour, Gate, LostAnswer, LostRequest, Outage
from ._events import ApiEvent, Event, FamilyEvent, TokenEvent

if TYPE_CHECKING:
    from ._server import AuthorizationServer

_BEHAVIOURS: dict[str, type[Behaviour]] = {
    kind.__name__: kind for kind in (Behaviour, Answer, Outage, LostAnswer, LostRequest)
}
_EVENTS: dict[str, Callable[..., Event]] = {
    "token": TokenEvent,
    "api": ApiEvent,
    "family": FamilyEvent,
}


def dump_behaviour(behaviour: Behaviour) -> dict[str, Any]:
    """Write the behaviour as JSON, its gate by name."""
    values = {field.name: getattr(behaviour, field.name) for field in fields(behaviour)}
    if behaviour.gate is not None:
        values["gate"] = behaviour.gate.name
    return {"behaviour": type(behaviour).__name__, **values}


def load_events(rows: Iterable[Mapping[str, Any]]) -> list[Event]:
    """Read the events as they were before they became JSON."""
    return [_EVENTS[row["kind"]](**row) for row in rows]


class Control:
    """Does what a `RunningServer` in another process asks of the server."""

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
