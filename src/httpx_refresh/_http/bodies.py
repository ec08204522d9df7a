"""Bodies that are read twice: a request's is sent again, whole or not at all; a response's is read ahead within bounds.

Knows nothing of tokens. What is read of a response is put back in front of the rest.
"""

from __future__ import annotations

import sys
import time
import zlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import anyio

from .._errors import BodyNotReplayable
from .libraries import (
    ASYNC_STREAMS,
    BLOCKING_STREAMS,
    BYTE_STREAMS,
    BlockingStreamBase,
    StreamBase,
)

if TYPE_CHECKING:
    from .libraries import Request, Response

# asyncio is imported where it is used: importing the library stays fast.

READ_LIMIT = 65_536
"""Bytes that are read of a response's body before the response is handed on."""

READ_SECONDS = 2.0
"""Seconds that reading them may take; with a sync client, seconds after which no further chunk is waited for."""

DISCARD_LIMIT = 1_048_576
"""Bytes that are read and dropped of a body on HTTP/2: a stream that is closed earlier stalls its connection."""

_GZIP_OR_ZLIB = 47
_RAW_DEFLATE = -15
_BUFFERED = 64  # chunks that may come without a wait


# -- a request's body, sent again ----------------------------------------------------------------------------------


_SENT_ALREADY = (
    "This request's body was sent already, and is not kept: it is larger than replay_limit, or an API accepted it, or "
    "it broke half-way. Nothing of it was sent a second time. Make a new request with a new body."
)


class _Recorded:
    """What a body has given so far.

    Mutable: `_chunks`, up to `limit` bytes of it; `_size`, of all that it has given; `_rest`, what it has yet to give.
    Invariant: `_chunks` is whole, or `_size` is more than the limit.
    """

    _rest: Any = None

    def __init__(self, body: Any, limit: int) -> None:
        self._body = body
        self._limit = limit
        self._chunks: list[bytes] = []
        self._size = 0

    @property
    def replayable(self) -> bool:
        """Whether all that was sent so far is still here."""
        return self._size <= self._limit

    def forget(self) -> None:
        """Let go of what was recorded: the body is not sent again, because it was accepted, or because it broke."""
        self._chunks = []
        self._size = self._limit + 1

    def _recorded(self) -> list[bytes]:
        """Return what a further pass begins with."""
        if not self.replayable:
            raise BodyNotReplayable(_SENT_ALREADY)
        return self._chunks

    def _record(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self.replayable:
            self._chunks.append(chunk)
        else:
            self._chunks.clear()


class Recording(_Recorded, StreamBase):
    """Passes a body through as it is sent, and keeps up to `limit` bytes of it to be sent again.

    A second pass yields what was recorded, and then what the body still has to give: an API that refuses a request
    may do so before it took all of it. Past the limit nothing is kept, and a second pass is refused by `replayable`.
    """

    records: ClassVar[tuple[type, ...]] = ASYNC_STREAMS

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._recorded():
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
            self._record(chunk)
            yield chunk

    async def aclose(self) -> None:
        """Close the body."""
        await self._body.aclose()


class BlockingRecording(_Recorded, BlockingStreamBase):
    """The same, for a body that a sync client sends."""

    records: ClassVar[tuple[type, ...]] = BLOCKING_STREAMS

    def __iter__(self) -> Iterator[bytes]:
        yield from self._recorded()
        rest = self._rest
        if rest is None:
            rest = self._rest = iter(self._body)
        while True:
            try:
                chunk = next(rest)
            except StopIteration:
                return
            except BaseException:
                self.forget()
                raise
            self._record(chunk)
            yield chunk

    def close(self) -> None:
        """Close the body."""
        self._body.close()


def record(
    request: Request,
    limit: int,
    kind: type[Recording] | type[BlockingRecording] = Recording,
) -> Recording | BlockingRecording | None:
    """See to it that the request can be sent again; None if it can be as it is.

    Bytes, text, JSON and forms can, and so can a multipart body whose files can be sought. Everything else is
    recorded while it is sent.
    """
    stream = request.stream
    if isinstance(stream, BYTE_STREAMS) or _is_seekable_multipart(stream):
        return None
    if isinstance(stream, (Recording, BlockingRecording)):
        return stream
    if not isinstance(stream, kind.records):
        return None  # The client says best that it cannot send this.
    recording = kind(stream, limit)
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


# -- a response's body, read within bounds -------------------------------------------------------------------------


class _Held:
    """A response's body that is read ahead of its reader: what was read comes first, and then the rest.

    Mutable state, all of it the response's reader's: `chunks`, which were read and not handed on yet; `ended`, whether
    nothing comes after them; `_error`, what reading raised, which is raised again after them; `_is_closed`, whether
    `_source`, the body as it came, was closed; `_started`, whether it was read ahead.
    """

    def __init__(self, source: Any) -> None:
        self.chunks: deque[bytes] = deque()
        self.ended = False
        self._source = source
        self._is_closed = False
        self._error: Exception | None = None
        self._started = False

    def replace(self, body: bytes) -> None:
        """Replace the body with `body`."""
        self.chunks = deque([body])
        self.ended, self._error = True, None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


class HeldBody(_Held, StreamBase):
    """Such a body of an async client's response.

    Invariant: from `read_ahead` on, and until `_idle` is set, a task of this object's own waits for the next chunk, and
    nobody else touches `_rest`. That task is needed because a wait cannot be given up otherwise: a cancelled
    `__anext__` ends the generators below it, and the rest would be lost.

    An iterator of its own and no async generator: one that is left half read needs no finalizer.
    """

    def __init__(self, source: Any) -> None:
        super().__init__(source)
        self._rest: AsyncIterator[bytes] = source.__aiter__()
        self._reads_on = True
        self._scope = anyio.CancelScope()
        self._idle = anyio.Event()

    async def read_ahead(self) -> None:
        """Read until the body ends, or it is longer than `READ_LIMIT`, or `READ_SECONDS` are over.

        A body that ended is closed, and its connection is free.
        """
        if not self._started:
            self._started = True
            _spawn(self._read, self._idle.set)
            with anyio.move_on_after(READ_SECONDS):
                await self._idle.wait()
            self._reads_on = False
            if self.ended:
                await self.aclose()

    async def _read(self) -> None:
        size = 0
        try:
            with self._scope:
                while self._reads_on and size <= READ_LIMIT:
                    chunk = await self._rest.__anext__()
                    self.chunks.append(chunk)
                    size += len(chunk)
        except StopAsyncIteration:
            self.ended = True
        except Exception as error:
            self._error = error
        finally:
            self._idle.set()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self.chunks:
            await self._idle.wait()
        if self.chunks:
            return self.chunks.popleft()
        if self._error is not None:
            raise self._error
        if self.ended:
            raise StopAsyncIteration
        return await self._rest.__anext__()

    async def discard(self) -> None:
        """Read on, and drop what comes: up to `DISCARD_LIMIT`, for at most `READ_SECONDS`."""
        size = 0
        with anyio.move_on_after(READ_SECONDS):
            try:
                while size <= DISCARD_LIMIT:
                    size += len(await self.__anext__())
            except StopAsyncIteration:
                self.ended = True
            except Exception as error:  # Nobody asked for the rest.
                self._error = error

    async def aclose(self) -> None:
        """Close the body; what was read of it can still be had."""
        if not self._is_closed:
            self._is_closed = True
            try:
                await self._leave()
            finally:
                await self._source.aclose()

    async def _leave(self) -> None:
        """End the generators that lead down to the socket."""
        self._reads_on = False
        if not self._idle.is_set():
            self._scope.cancel()
            with anyio.CancelScope(shield=True):
                await self._idle.wait()
        elif not self.ended and self._error is None:
            await drain(self._rest)


class BlockingHeldBody(_Held, BlockingStreamBase):
    """Such a body of a sync client's response. Its coroutines never suspend, and so need no event loop.

    A read that blocks cannot be given up: another thread that reads a socket which is closed under it may read
    somebody else's. So a wait for one chunk is bounded by the client's own read timeout, and by nothing else.
    """

    def __init__(self, source: Any) -> None:
        super().__init__(source)
        self._rest: Iterator[bytes] = iter(source)

    async def read_ahead(self) -> None:
        """Read until the body ends, or it is longer than `READ_LIMIT`, or `READ_SECONDS` are over after a chunk.

        A body that ended is closed, and its connection is free.
        """
        if not self._started:
            self._started = True
            self.chunks.extend(self._read(READ_LIMIT))
            if self.ended:
                self.close()

    def _read(self, most: int) -> list[bytes]:
        chunks: list[bytes] = []
        size, until = 0, time.monotonic() + READ_SECONDS
        try:
            while size <= most and time.monotonic() < until:
                chunk = next(self._rest)
                chunks.append(chunk)
                size += len(chunk)
        except StopIteration:
            self.ended = True
        except Exception as error:  # Its reader gets it.
            self._error = error
        return chunks

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self.chunks:
            return self.chunks.popleft()
        if self._error is not None:
            raise self._error
        if self.ended:
            raise StopIteration
        return next(self._rest)

    async def discard(self) -> None:
        """Read on, and drop what comes: up to `DISCARD_LIMIT`, for about `READ_SECONDS`."""
        if self._error is None:
            self._read(DISCARD_LIMIT)

    async def aclose(self) -> None:
        """Close the body; what was read of it can still be had."""
        self.close()

    def close(self) -> None:
        """Close the body; what was read of it can still be had."""
        if not self._is_closed:
            self._is_closed = True
            self._source.close()


async def read_ahead(response: Response) -> HeldBody | BlockingHeldBody | None:
    """Read the beginning of a response's body, and put it back; a sync client's without suspending.

    The connection is free afterwards if the body ended within the bounds. A second call does nothing.

    Returns:
        None if somebody read the body before, as a hook of the client's may: it is used as it is.
    """
    if response.is_stream_consumed:
        return None
    held = response.stream
    if not isinstance(held, (HeldBody, BlockingHeldBody)):
        kind = HeldBody if isinstance(held, ASYNC_STREAMS) else BlockingHeldBody
        held = response.stream = kind(held)
    await held.read_ahead()
    return held


async def short_body_of(response: Response) -> bytes | None:
    """Return a response's body, unpacked; None if it is longer than `READ_LIMIT`, slow, broken, or cannot be had."""
    held = await read_ahead(response)
    if held is not None:
        plain = _unpacked(held, response)
        return plain if held.ended and _is_short(plain) else None
    try:
        content = response.content
    except RuntimeError:  # Somebody read it and kept nothing: `ResponseNotRead`.
        return None
    return content if _is_short(content) else None


async def give_up(response: Response) -> None:
    """End a response that only the client itself reads, to keep it in the next one's history.

    What the client reads of it is bounded: where the body is not whole, or would become more than `READ_LIMIT` once
    it is unpacked, a part of it stands in its place.
    """
    held = await read_ahead(response)
    if held is None:
        return
    plain = _unpacked(held, response)
    if held.ended and _is_short(plain):
        return
    if not held.ended and response.http_version == "HTTP/2":
        await held.discard()
    await held.aclose()
    for name in ("content-encoding", "content-length"):
        response.headers.pop(name, None)
    held.replace((plain or b"")[:READ_LIMIT])


def _unpacked(held: HeldBody | BlockingHeldBody, response: Response) -> bytes | None:
    encoding = response.headers.get("content-encoding", "")
    return unpacked(b"".join(held.chunks), encoding, READ_LIMIT)


def _is_short(body: bytes | None) -> bool:
    return body is not None and len(body) <= READ_LIMIT


async def read_some(chunks: AsyncIterator[bytes], most: int) -> tuple[list[bytes], bool]:
    """Read until the body ends or more than `most` bytes are there; return them, and whether it ended.

    Args:
        chunks: the body; what is left of it can be read afterwards.
        most: bytes; the chunk that passes them is the last one that is read.
    """
    some: list[bytes] = []
    size = 0
    while size <= most:
        try:
            chunk = await chunks.__anext__()
        except StopAsyncIteration:
            return some, True
        some.append(chunk)
        size += len(chunk)
    return some, False


async def drain(chunks: AsyncIterator[bytes]) -> None:
    """End a body that nobody will read on, before its response is closed.

    A chain of async generators leads down to the socket, and on trio none of them may be left to the garbage
    collector half way. Cancelled, the innermost ends where it waits for the network, and the others with it.
    """
    with anyio.CancelScope() as scope:
        scope.cancel()
        for _ in range(_BUFFERED):
            try:
                await chunks.__anext__()
            except Exception:  # It has ended, or it is broken, which is an end as well.
                break
    if isinstance(chunks, AsyncGenerator):
        await chunks.aclose()  # Nothing to do, but for a body that has no end and no wait.


def unpacked(body: bytes, encoding: str, most: int) -> bytes | None:
    """Undo a `Content-Encoding` (RFC 9110 §8.4.1), but make no more than `most` bytes and one.

    A client's own decoder knows no bound: some kilobytes of gzip become gigabytes.

    Args:
        body: as it came over the wire.
        encoding: the header field's value; empty if there was none.
        most: bytes; a result that is longer was cut.

    Returns:
        None if the body cannot be unpacked.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body[: most + 1]
    if encoding not in ("gzip", "x-gzip", "deflate"):
        return None
    for wbits in (_GZIP_OR_ZLIB, _RAW_DEFLATE):  # Some send "deflate" without zlib's header.
        try:
            return zlib.decompressobj(wbits).decompress(body, most + 1)
        except zlib.error:
            continue
    return None


def _spawn(run: Callable[[], Coroutine[Any, Any, None]], over: Callable[[], None]) -> None:
    """Start `run` in a task that no caller owns; `over` is called once it ended, even if it never began."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        trio.lowlevel.spawn_system_task(run)
        return
    import asyncio

    task = asyncio.get_running_loop().create_task(run())
    _running.add(task)
    task.add_done_callback(_running.discard)
    task.add_done_callback(lambda _: over())


# An event loop keeps no hold of its tasks.
_running: set[object] = set()
