"""Which responses mean that the access token is no longer good."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .bounded import let_go, read_some, unpacked
from .libraries import StreamBase

if TYPE_CHECKING:
    from .libraries import Response

LOOK_LIMIT = 65_536
"""Bytes of a response's body that a rule may look at; a longer body is not looked at."""


@dataclass(frozen=True, slots=True)
class ExpiryRule:
    """Say which responses mean "the access token has expired" for an API that says it in the body.

    A response with one of these statuses is looked into: at most 64 KiB of its body are read, and are still there
    for whoever reads the response afterwards, streamed or not. A body that announces more is not touched. One that
    announces no length reaches its reader once 64 KiB of it, or all of it, are there.

    Args:
        body: gets the body's JSON value (None if it is not JSON, too long, or empty) and says whether it means it.
        statuses: the statuses that may mean it; responses with others are never looked into.
    """

    body: Callable[[Any], bool]
    statuses: frozenset[int] = frozenset({401})


async def means_expired(rule: ExpiryRule | Callable[[Response], bool], response: Response) -> bool:
    """Whether the API refused the access token, by the rule given."""
    if not isinstance(rule, ExpiryRule):
        return bool(rule(response))
    if response.status_code not in rule.statuses:
        return False
    body = await _look(response)
    if body is None or len(body) > LOOK_LIMIT:
        return bool(rule.body(None))
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    return bool(rule.body(value))


async def _look(response: Response) -> bytes | None:
    """Return the body's bytes, unpacked, or more than `LOOK_LIMIT` of them, or None if they cannot be had."""
    if response.is_stream_consumed:  # A hook of the client's was here first.
        try:
            return response.content
        except RuntimeError:  # It kept nothing: `ResponseNotRead`.
            return None
    announced = response.headers.get("content-length", "0")
    if not announced.isdecimal() or int(announced[:20]) > LOOK_LIMIT:
        return None
    stream: Any = response.stream
    rest: AsyncIterator[bytes] = stream.__aiter__()
    beginning, ended = await read_some(rest, LOOK_LIMIT)
    response.stream = _PutBack(beginning, rest, stream)
    if not ended:
        return None
    return unpacked(b"".join(beginning), response.headers.get("content-encoding", ""), LOOK_LIMIT)


class _PutBack(StreamBase):
    """A body whose beginning was read already; all else is the original stream's.

    An iterator of its own and no async generator: one that is left half read needs no finalizer.
    """

    def __init__(self, beginning: list[bytes], rest: AsyncIterator[bytes], stream: Any) -> None:
        self._beginning = iter(beginning)
        self._rest = rest
        self._stream = stream

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for chunk in self._beginning:
            return chunk
        return await self._rest.__anext__()

    async def aclose(self) -> None:
        await let_go(self._rest)
        await self._stream.aclose()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
