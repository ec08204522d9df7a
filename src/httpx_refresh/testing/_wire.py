"""The server's input and output, independent of the transport: a call, a reply, a refusal."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl

import anyio
import anyio.lowlevel

Headers = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")
# RFC 6749 section 5.1: a response with tokens must not be cached.
NO_STORE = (b"cache-control", b"no-store")

_PADDING = b" " * 65_536


class Loss(Enum):
    """How an exchange ends without a complete answer."""

    NOT_CONNECTED = "the connection was refused"
    NO_ANSWER = "the connection was closed without an answer"
    HALF_ANSWER = "the connection was closed in the middle of the answer"


class Call(NamedTuple):
    """One HTTP request as it arrived. It may hold secrets, so its repr shows no content."""

    method: str
    host: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"<Call {self.method} {self.path}>"


@dataclass(frozen=True, kw_only=True)
class Challenge:
    """The challenge of an API that requires more than a valid token: `error`, and further parameters.

    `insufficient_user_authentication` and `insufficient_claims` come with a 401 (RFC 9470 section
    3), `insufficient_scope` with a 403 (RFC 6750 section 3.1), unless `status` says otherwise.
    `claims` are sent in base64, as Microsoft's APIs do.
    """

    error: str
    scope: str | None = None
    claims: Mapping[str, Any] | None = None
    acr_values: str | None = None
    max_age: int | None = None
    resource_metadata: str | None = None
    status: int | None = None

    def reply(self) -> Reply:
        """Return the response."""
        claims = None
        if self.claims is not None:
            claims = base64.b64encode(json.dumps(self.claims).encode()).decode()
        params = {
            "error": self.error,
            "scope": self.scope,
            "claims": claims,
            "acr_values": self.acr_values,
            "max_age": None if self.max_age is None else str(self.max_age),
            "resource_metadata": self.resource_metadata,
        }
        given = ", ".join(
            f'{name}="{value}"' for name, value in params.items() if value is not None
        )
        status = self.status or (403 if self.error == "insufficient_scope" else 401)
        reply = json_reply({"error": self.error}, status)
        reply.headers.append((b"www-authenticate", f"Bearer {given}".encode()))
        return reply


class Gate:
    """Holds the answers to requests until it is released.

    One gate serves any number of requests, in one event loop.

        gate = Gate()
        server.script(Answer(gate=gate))
        ...                      # start a request
        await gate.arrived()     # the server has done its work and holds the answer
        gate.release()           # now, and from now on, it answers

    A server in another process (`running_server`) knows the gate by its `name`. Use the methods
    `arrived` and `release` of the `RunningServer` there.
    """

    __slots__ = ("_released", "_stirred", "count", "name")

    def __init__(self, name: str | None = None) -> None:
        self.name: str = name or secrets.token_hex(4)
        self.count: int = 0
        self._released = anyio.Event()
        self._stirred = anyio.Event()

    async def arrived(self, count: int = 1) -> None:
        """Wait until this many requests have reached the gate since it was made."""
        while self.count < count:
            await self._stirred.wait()

    def release(self) -> None:
        """Open the gate for the requests that wait and for later ones."""
        self._released.set()

    async def hold(self) -> None:
        """Count an arrival, and wait for the release. The server calls it."""
        self.count += 1
        stirred, self._stirred = self._stirred, anyio.Event()
        stirred.set()
        await self._released.wait()

    def __repr__(self) -> str:
        state = "released" if self._released.is_set() else "closed"
        return f"<Gate {state}, {self.count} arrived>"


@dataclass(slots=True, repr=False)
class Reply:
    """The server's answer, the wait before it, and whether it arrives."""

    status: int
    headers: Headers
    body: bytes
    padding: int = 0
    loss: Loss | None = None
    delay: float = 0.0
    gate: Gate | None = None

    @property
    def wire_headers(self) -> Headers:
        """The headers to send. An answer that will break off announces more bytes than it sends."""
        if self.padding:
            return self.headers
        length = len(self.body) + (self.loss is Loss.HALF_ANSWER)
        return [*self.headers, (b"content-length", b"%d" % length)]

    @property
    def sent_body(self) -> bytes:
        """The part of the body that the server sends."""
        if self.loss is Loss.HALF_ANSWER:
            return self.body[: len(self.body) // 2]
        return self.body


class Refusal(Exception):
    """Raised to refuse a request with an `error` code, which becomes the reply."""

    def __init__(
        self,
        error: str,
        description: str,
        status: int = 400,
        *,
        outcome: str | None = None,
        **fields: str,
    ) -> None:
        super().__init__(error)
        self.error = error
        self.outcome = outcome or error
        self.description = description
        self.status = status
        self.fields = fields

    def reply(self) -> Reply:
        """Return the error response of RFC 6749 section 5.2."""
        reply = json_reply(
            {"error": self.error, "error_description": self.description, **self.fields},
            self.status,
        )
        if self.status == 401:
            reply.headers.append((b"www-authenticate", b'Basic realm="token endpoint"'))
        return reply


class Server(Protocol):
    """The methods that a transport needs of the server behind it."""

    padding_sent: int

    def handle(self, call: Call) -> Reply: ...


async def pace(reply: Reply) -> None:
    """Wait before an answer as its behaviour requires, and for at least one turn of the event loop."""
    if reply.gate is not None:
        await reply.gate.hold()
    if reply.delay:
        await anyio.sleep(reply.delay)
    elif reply.gate is None:
        await anyio.lowlevel.checkpoint()


def pieces(server: Server, reply: Reply) -> Iterator[bytes]:
    """Yield the body as the server sends it. Padding is counted as far as it is read."""
    yield reply.sent_body
    left = reply.padding
    while left:
        size = min(left, len(_PADDING))
        server.padding_sent += size
        left -= size
        yield _PADDING[:size]


def json_reply(fields: Mapping[str, Any], status: int = 200) -> Reply:
    """Return a reply with a JSON object that must not be cached."""
    return Reply(status, [JSON, NO_STORE], json.dumps(fields).encode())


def redirect_reply(location: str, status: int = 302) -> Reply:
    """Return an empty reply that redirects the client."""
    return Reply(status, [(b"location", location.encode()), NO_STORE], b"")


def read_fields(text: str) -> dict[str, str]:
    """Return form or query fields without the empty ones; each may occur once (RFC 6749 section 3.1).

    `resource` and `audience` may occur several times (RFC 8707 section 2, RFC 8693 section 2.1); their
    values are joined with spaces.
    """
    fields: dict[str, str] = {}
    for name, value in parse_qsl(text):
        if name in fields and name in ("resource", "audience"):
            value = f"{fields[name]} {value}"
        elif name in fields:
            raise Refusal("invalid_request", f"the parameter {name!r} is there twice")
        fields[name] = value
    return fields


def read_json(call: Call) -> dict[str, str]:
    """Return the body of a POST as a JSON object whose values are strings."""
    kind = call.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal("invalid_request", "the body must be application/json")
    try:
        fields = json.loads(call.body)
    except ValueError:
        # The error holds the text that was sent, so it must not be chained.
        raise Refusal("invalid_request", "the body must be JSON") from None
    if not isinstance(fields, dict) or not all(isinstance(one, str) for one in fields.values()):
        raise Refusal("invalid_request", "the body must be an object of texts")
    return fields


def read_form(call: Call) -> dict[str, str]:
    """Return the fields of a POST's body, a form (RFC 6749 section 3.2)."""
    kind = call.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Refusal("invalid_request", "the body must be application/x-www-form-urlencoded")
    try:
        text = call.body.decode()
    except UnicodeDecodeError:
        # The error holds the bytes that were sent, so it must not be chained.
        raise Refusal("invalid_request", "the body must be UTF-8") from None
    return read_fields(text)
