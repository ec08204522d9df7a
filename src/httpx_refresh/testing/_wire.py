"""What goes in and out of the server, whatever carried it: a call, a reply, a refusal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from ._behaviour import Gate

Headers = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")
# RFC 6749 section 5.1: a response with tokens must not be cached.
NO_STORE = (b"cache-control", b"no-store")


class Loss(Enum):
    """How an exchange ends without a whole answer."""

    NOT_CONNECTED = "the connection was refused"
    NO_ANSWER = "the connection was closed without an answer"
    HALF_ANSWER = "the connection was closed in the middle of the answer"


class Call(NamedTuple):
    """One HTTP request as it arrived. It holds secrets, so its repr shows no content."""

    method: str
    host: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"<Call {self.method} {self.path}>"


@dataclass(slots=True, repr=False)
class Reply:
    """What the server answers, after which wait, and whether it arrives."""

    status: int
    headers: Headers
    body: bytes
    padding: int = 0
    loss: Loss | None = None
    delay: float = 0.0
    gate: Gate | None = None

    @property
    def wire_headers(self) -> Headers:
        """The headers to send; an answer that will break off announces more than it holds."""
        if self.padding:
            return self.headers
        length = len(self.body) + (self.loss is Loss.HALF_ANSWER)
        return [*self.headers, (b"content-length", b"%d" % length)]

    @property
    def sent_body(self) -> bytes:
        """The part of the body that leaves the server."""
        if self.loss is Loss.HALF_ANSWER:
            return self.body[: len(self.body) // 2]
        return self.body


class Refusal(Exception):
    """The request is refused with an `error` code; it becomes the reply."""

    def __init__(
        self, error: str, description: str, status: int = 400, *, outcome: str | None = None
    ) -> None:
        super().__init__(error)
        self.error = error
        self.outcome = outcome or error
        self.description = description
        self.status = status

    def reply(self) -> Reply:
        """Write the error response of RFC 6749 section 5.2."""
        reply = json_reply(
            {"error": self.error, "error_description": self.description}, self.status
        )
        if self.status == 401:
            reply.headers.append((b"www-authenticate", b'Basic realm="token endpoint"'))
        return reply


def json_reply(fields: Mapping[str, Any], status: int = 200) -> Reply:
    """Write a JSON object that no cache keeps."""
    return Reply(status, [JSON, NO_STORE], json.dumps(fields).encode())


def redirect_reply(location: str, status: int = 302) -> Reply:
    """Write an empty answer that sends the client elsewhere."""
    return Reply(status, [(b"location", location.encode()), NO_STORE], b"")


def read_fields(text: str) -> dict[str, str]:
    """Read form or query fields, each at most once (RFC 6749 section 3.1), the empty ones not."""
    fields: dict[str, str] = {}
    for name, value in parse_qsl(text):
        if name in fields:
            raise Refusal("invalid_request", f"the parameter {name!r} is there twice")
        fields[name] = value
    return fields


def read_form(call: Call) -> dict[str, str]:
    """Read the body of a POST as the form that RFC 6749 section 3.2 asks for."""
    kind = call.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Refusal("invalid_request", "the body must be application/x-www-form-urlencoded")
    try:
        text = call.body.decode()
    except UnicodeDecodeError:
        # The error holds the bytes that were sent: it stays out of the chain.
        raise Refusal("invalid_request", "the body must be UTF-8") from None
    return read_fields(text)
