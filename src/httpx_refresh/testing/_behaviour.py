"""How the server behaves towards one request: late, broken, odd, or out of order."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlencode

import anyio
import anyio.lowlevel

from ._wire import JSON, Loss, Reply


class Gate:
    """Holds the answers of requests that have arrived until it is released.

    One gate serves any number of requests, in one event loop.

        gate = Gate()
        server.script(Answer(gate=gate))
        ...                      # start a request
        await gate.arrived()     # the server has done its work and holds the answer
        gate.release()           # now, and from now on, it answers

    For a server in another process (`running_server`) the gate is known by its `name`, and waited
    for and released with the methods of the `RunningServer`.
    """

    __slots__ = ("_released", "_stirred", "count", "name")

    def __init__(self, name: str | None = None) -> None:
        self.name: str = name or secrets.token_hex(4)
        self.count: int = 0
        self._released = anyio.Event()
        self._stirred = anyio.Event()

    async def arrived(self, count: int = 1) -> None:
        """Wait until that many requests have reached the gate, since it was made."""
        while self.count < count:
            await self._stirred.wait()

    def release(self) -> None:
        """Let every request through, those that wait and those that will come."""
        self._released.set()

    async def hold(self) -> None:
        """Note one arrival and wait for the release (the server's side of the gate)."""
        self.count += 1
        stirred, self._stirred = self._stirred, anyio.Event()
        stirred.set()
        await self._released.wait()

    def __repr__(self) -> str:
        state = "released" if self._released.is_set() else "closed"
        return f"<Gate {state}, {self.count} arrived>"


@dataclass(frozen=True, kw_only=True, repr=False)
class Behaviour:
    """What all behaviours share: `delay` in seconds and `gate`, both after the work is done."""

    delay: float = 0.0
    gate: Gate | None = None

    # Whether the server does what the request asks for.
    commits: ClassVar[bool] = True

    def shape(self, reply: Reply) -> Reply:
        """Turn the reply of a server that did its work, or an empty one, into the one to send."""
        return self._pace(reply)

    def _pace(self, reply: Reply) -> Reply:
        reply.delay = self.delay
        reply.gate = self.gate
        return reply

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


@dataclass(frozen=True, kw_only=True, repr=False)
class Answer(Behaviour):
    """The server does its work and answers, perhaps late or oddly.

    `fields` are put over those of the JSON answer and `omit` are left out of it; `form` sends them
    form-encoded. `status` and `headers` replace what would have been sent, and `body` replaces all
    of the body.

        server.script(Answer(delay=1.0), Answer(fields={"expires_in": "3600"}))
    """

    status: int | None = None
    headers: Mapping[str, str] | None = None
    fields: Mapping[str, Any] | None = None
    omit: Sequence[str] = ()
    form: bool = False
    body: str | None = None
    padding: int = 0

    def shape(self, reply: Reply) -> Reply:
        """Change the reply in the ways that were asked for."""
        body = reply.body
        if self.fields is not None or self.omit or self.form:
            fields = {**json.loads(body), **(self.fields or {})}
            for name in self.omit:
                fields.pop(name, None)
            body = urlencode(fields).encode() if self.form else json.dumps(fields).encode()
        if self.body is not None:
            body = self.body.encode()
        headers = list(reply.headers)
        if self.form:
            headers.remove(JSON)
            headers.append((b"content-type", b"application/x-www-form-urlencoded"))
        replaced = _wire(self.headers)
        names = {name for name, _ in replaced}
        headers = [item for item in headers if item[0] not in names] + replaced
        status = reply.status if self.status is None else self.status
        return self._pace(Reply(status, headers, body, self.padding))


@dataclass(frozen=True, repr=False)
class Outage(Behaviour):
    """The server does no work and answers this instead.

    `retry_after` is a shorthand for that header (seconds or an HTTP date). `padding` adds that
    many bytes of white space to the body, streamed in pieces, without a `Content-Length`.

        server.script(Outage(503, retry_after=2), Outage(200, body='{"error": "invalid_grant"}'))
    """

    commits: ClassVar[bool] = False
    status: int = 503
    body: str = ""
    headers: Mapping[str, str] | None = None
    retry_after: float | str | None = None
    padding: int = 0

    def shape(self, reply: Reply) -> Reply:
        """Make the answer that is given instead."""
        headers = _wire(self.headers)
        if self.retry_after is not None:
            headers.append((b"retry-after", str(self.retry_after).encode()))
        if not any(name == b"content-type" for name, _ in headers):
            headers.append(JSON)
        return self._pace(Reply(self.status, headers, self.body.encode(), self.padding))


@dataclass(frozen=True, kw_only=True, repr=False)
class LostAnswer(Behaviour):
    """The server does its work and the answer never arrives: the token is spent, the new one lost.

    With `half`, the connection breaks in the middle of the answer; without, before its first byte.
    """

    half: bool = False

    def shape(self, reply: Reply) -> Reply:
        """Make the reply break off."""
        loss = Loss.HALF_ANSWER if self.half else Loss.NO_ANSWER
        return self._pace(Reply(reply.status, reply.headers, reply.body, loss=loss))


@dataclass(frozen=True, kw_only=True, repr=False)
class LostRequest(Behaviour):
    """The request is lost before the server does anything: the token it carries stays good.

    With `connected=False` nobody listens, so that the client knows that nothing was sent
    (in-process transports only: over a socket the connection is closed without an answer).
    """

    commits: ClassVar[bool] = False
    connected: bool = True

    def shape(self, reply: Reply) -> Reply:
        """No reply at all."""
        loss = Loss.NO_ANSWER if self.connected else Loss.NOT_CONNECTED
        return self._pace(Reply(500, [], b"", loss=loss))


async def pace(reply: Reply) -> None:
    """Keep the answer back as its behaviour says, and for at least one turn of the event loop."""
    if reply.gate is not None:
        await reply.gate.hold()
    if reply.delay:
        await anyio.sleep(reply.delay)
    elif reply.gate is None:
        await anyio.lowlevel.checkpoint()


def _wire(headers: Mapping[str, str] | None) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
