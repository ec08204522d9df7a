"""How the server treats one request: it answers late or oddly, breaks off, or is out of order."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlencode

from ._wire import JSON, Gate, Loss, Reply


@dataclass(frozen=True, kw_only=True, repr=False)
class Behaviour:
    """The base of all behaviours: `delay` (seconds) and `gate` hold the answer after the server has done its work."""

    delay: float = 0.0
    gate: Gate | None = None

    # Whether the server does what the request asks for.
    commits: ClassVar[bool] = True

    def shape(self, reply: Reply) -> Reply:
        """Turn the server's reply into the one to send; the reply is empty if the server does no work."""
        return self._pace(reply)

    def _pace(self, reply: Reply) -> Reply:
        reply.delay = self.delay
        reply.gate = self.gate
        return reply

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


@dataclass(frozen=True, kw_only=True, repr=False)
class Answer(Behaviour):
    """The server does its work and answers, perhaps late or in another form.

    `fields` are added to the JSON answer, or replace fields of it, and `omit` removes fields; `form`
    sends the answer form-encoded. `status` and `headers` replace those of the answer, and `body`
    replaces the whole body.

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
        """Change the reply."""
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
    """The server does no work, and gives this answer instead.

    `retry_after` sets the header `Retry-After` (seconds or an HTTP date). `padding` adds this many
    bytes of white space to the body, streamed in pieces, without a `Content-Length`.

        server.script(Outage(503, retry_after=2), Outage(200, body='{"error": "invalid_grant"}'))
    """

    commits: ClassVar[bool] = False
    status: int = 503
    body: str = ""
    headers: Mapping[str, str] | None = None
    retry_after: float | str | None = None
    padding: int = 0

    def shape(self, reply: Reply) -> Reply:
        """Return the answer of the outage."""
        headers = _wire(self.headers)
        if self.retry_after is not None:
            headers.append((b"retry-after", str(self.retry_after).encode()))
        if not any(name == b"content-type" for name, _ in headers):
            headers.append(JSON)
        return self._pace(Reply(self.status, headers, self.body.encode(), self.padding))


@dataclass(frozen=True, kw_only=True, repr=False)
class LostAnswer(Behaviour):
    """The server does its work, but the answer is lost: the old token is spent and the new one does not arrive.

    With `half`, the connection breaks in the middle of the answer; otherwise before its first byte.
    """

    half: bool = False

    def shape(self, reply: Reply) -> Reply:
        """Make the reply break off."""
        loss = Loss.HALF_ANSWER if self.half else Loss.NO_ANSWER
        return self._pace(Reply(reply.status, reply.headers, reply.body, loss=loss))


@dataclass(frozen=True, kw_only=True, repr=False)
class LostRequest(Behaviour):
    """The request is lost before the server does anything: the token in it stays valid.

    With `connected=False` the connection is refused, so the client knows that nothing was sent
    (in-process transports only; over a socket the connection is closed without an answer).
    """

    commits: ClassVar[bool] = False
    connected: bool = True

    def shape(self, reply: Reply) -> Reply:
        """Return a reply that is never sent."""
        loss = Loss.NO_ANSWER if self.connected else Loss.NOT_CONNECTED
        return self._pace(Reply(500, [], b"", loss=loss))


def _wire(headers: Mapping[str, str] | None) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
