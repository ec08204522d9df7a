"""Which responses mean that the access token is no longer good."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._libraries import StreamBase

if TYPE_CHECKING:
    from ._libraries import Response

LOOK_LIMIT = 65_536
"""Bytes of a response's body that a rule may look at; a longer body is not looked at."""


@dataclass(frozen=True, slots=True)
class ExpiryRule:
    """Say which responses mean "the access token has expired" for an API that says it in the body.

    A response with one of these statuses is looked into: at most 64 KiB of its body are read, and are still there
    for whoever reads the response afterwards, streamed or not. Larger bodies are not touched.

    Args:
        statuses: the statuses that may mean it; responses with others are never looked into.
        body: gets the body's JSON value (None if it is not JSON, too long, or empty) and says whether it means it.
    """

    body: Callable[[Any], bool]
    statuses: frozenset[int] = frozenset({401})


async def means_expired(
    rule: ExpiryRule | Callable[[Response], bool] | None, response: Response
) -> bool:
    """Whether the API refused the access token, by the rule given (None: 401 means it; RFC 6750 §3.1)."""
    if rule is None:
        return response.status_code == 401
    if not isinstance(rule, ExpiryRule):
        return bool(rule(response))
    if response.status_code not in rule.statuses:
        return False
    return rule.body(await _json(response))


async def _json(response: Response) -> Any:
    length = response.headers.get("content-length", "")
    if length and not (length.isdecimal() and int(length[:20]) <= LOOK_LIMIT):
        return None
    if not length and not await _is_short(response):
        return None
    try:
        return json.loads(await response.aread())
    except (ValueError, RecursionError):
        return None


async def _is_short(response: Response) -> bool:
    """Read the beginning of a body of unknown length, and put it back."""
    stream: Any = response.stream
    rest = stream.__aiter__()
    beginning: list[bytes] = []
    size = 0
    ended = False
    while size <= LOOK_LIMIT and not ended:
        try:
            chunk = await rest.__anext__()
        except StopAsyncIteration:
            ended = True
        else:
            beginning.append(chunk)
            size += len(chunk)
    response.stream = _PutBack(beginning, rest, stream)
    return ended


class _PutBack(StreamBase):
    """A body whose beginning was read already; all else is the original stream's."""

    def __init__(self, beginning: list[bytes], rest: AsyncIterator[bytes], stream: Any) -> None:
        self._beginning = beginning
        self._rest = rest
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._beginning:
            yield chunk
        async for chunk in self._rest:
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
