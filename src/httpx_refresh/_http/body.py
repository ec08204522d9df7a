"""A request's body, sent again: whole, or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from .._errors import BodyNotReplayable
from .libraries import ASYNC_STREAMS, BYTE_STREAMS, StreamBase

if TYPE_CHECKING:
    from .libraries import Request


class Recording(StreamBase):
    """Passes a body through as it is sent, and keeps up to `limit` bytes of it to be sent again.

    A second pass yields what was recorded, and then what the body still has to give: an API that refuses a request
    may do so before it took all of it. Past the limit nothing is kept, and a second pass is refused by `replayable`.
    """

    def __init__(self, body: Any, limit: int) -> None:
        self._body = body
        self._limit = limit
        self._rest: AsyncIterator[bytes] | None = None
        self._chunks: list[bytes] = []
        self._size = 0

    @property
    def replayable(self) -> bool:
        """Whether all that was sent so far is still here."""
        return self._size <= self._limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if not self.replayable:
            raise BodyNotReplayable(
                "This request's body was sent already, and is not kept: it is larger than replay_limit, or an API "
                "accepted it, or it broke half-way. Nothing of it was sent a second time. Make a new request with a "
                "new body."
            )
        for chunk in self._chunks:
            yield chunk
        rest = self._rest
        if rest is None:
            rest = self._rest = self._body.__aiter__()
        # Not `async for` over the body: this generator is abandoned where a connection breaks, and the body has
        # to go on from there.
        while True:
            try:
                chunk = await rest.__anext__()
            except StopAsyncIteration:
                return
            except BaseException:
                # A generator that raised has ended, and would pass for a body that is over.
                self.forget()
                raise
            self._size += len(chunk)
            if self.replayable:
                self._chunks.append(chunk)
            else:
                self._chunks.clear()
            yield chunk

    async def aclose(self) -> None:
        """Close the body."""
        await self._body.aclose()

    def forget(self) -> None:
        """Let go of what was recorded: the body is not sent again, because it was accepted, or because it broke."""
        self._chunks = []
        self._size = self._limit + 1


def record(request: Request, limit: int) -> Recording | None:
    """See to it that the request can be sent again; None if it can be as it is.

    Bytes, text, JSON and forms can, and so can a multipart body whose files can be sought. Everything else is
    recorded while it is sent.
    """
    stream = request.stream
    if isinstance(stream, BYTE_STREAMS) or _is_seekable_multipart(stream):
        return None
    if isinstance(stream, Recording):
        return stream
    if not isinstance(stream, ASYNC_STREAMS):
        return None  # The client says best that it cannot send this.
    recording = Recording(stream, limit)
    request.stream = recording
    return recording


def _is_seekable_multipart(stream: object) -> bool:
    """Whether this is the library's multipart body, and each file of it can be read from its start again."""
    fields = getattr(stream, "fields", None)
    if not isinstance(fields, list):
        return False
    for field in fields:
        file = getattr(field, "file", b"")
        if isinstance(file, (str, bytes)):
            continue
        seekable = getattr(file, "seekable", None)
        if seekable is None or not seekable():
            return False
    return True
