"""Bodies that are read twice: a request's is sent again completely or not at all, a response's is read ahead in part.

The part of a response that was read is put back in front of the rest. This module knows nothing about tokens.
"""

from __future__ import annotations

import sys
import time
import zlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import anyio
import anyio.lowlevel

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

# asyncio is imported where it is used, so that the library imports fast.

READ_LIMIT = 65_536
"""Bytes of a response's body that are read before the response is returned; fewer of one in very small chunks."""

READ_SECONDS = 2.0
"""Seconds that this reading may take. With a sync client: seconds after which no further chunk is waited for."""

DISCARD_LIMIT = 1_048_576
"""Bytes of an HTTP/2 body that are read and dropped: closing a stream earlier stalls its connection."""

_GZIP_OR_ZLIB = 47
_RAW_DEFLATE = -15
_BUFFERED = 64  # chunks that may come without a wait
_LEAST = 64  # bytes that a chunk counts for at least: chunks of one byte take long to read


# -- a request's body, sent again ----------------------------------------------------------------------------------


_SENT_ALREADY = (
    "This request's body was sent already, and is not kept: it is larger than replay_limit, or an API accepted it, or "
    "it broke half-way. Nothing of it was sent a second time. Make a new request with a new body."
)


class _Recorded:
    """The part of a body that has been sent so far.

    Mutable: `_chunks`, up to `limit` bytes of it; `_size`, the bytes of all of it; `_rest`, the part not yet sent.
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
        """Whether everything that was sent so far is still recorded."""
        return self._size <= self._limit

    def forget(self) -> None:
        """Drop the recorded chunks: the body was accepted, or it broke, so it is not sent again."""
        self._chunks = []
        self._size = self._limit + 1

    def _recorded(self) -> list[bytes]:
        """Return the chunks that a further pass begins with."""
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
    """Passes a body through while it is sent, and keeps up to `limit` bytes of it for a second pass.

    A second pass yields the recorded chunks and then the rest of the body, because an API may refuse a request before
    it has read all of it. Past the limit nothing is kept, and `replayable` is False.
    """

    records: ClassVar[tuple[type, ...]] = ASYNC_STREAMS

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._recorded():
            yield chunk
        rest = self._rest
        if rest is None:
            rest = self._rest = self._body.__aiter__()
        # Not `async for` over the body: this generator is abandoned if the connection breaks, and a second pass
        # continues the body from there.
        while True:
            try:
                chunk = await rest.__anext__()
            except StopAsyncIteration:
                return
            except BaseException:
                # A generator that raised has ended, and would look like a complete body.
                self.forget()
                raise
            self._record(chunk)
            yield chunk

    async def aclose(self) -> None:
        """Close the body."""
        await self._body.aclose()


class BlockingRecording(_Recorded, BlockingStreamBase):
    """Does the same for a body that a sync client sends."""

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
    """Make the request's body repeatable, and return its recording; None if the body is repeatable as it is.

    Bytes, text, JSON and forms are repeatable, and so is a multipart body whose files are seekable. Any other body is
    recorded while it is sent.
    """
    stream = request.stream
    if isinstance(stream, BYTE_STREAMS) or _is_seekable_multipart(stream):
        return None
    if isinstance(stream, (Recording, BlockingRecording)):
        return stream
    if not isinstance(stream, kind.records):
        return None  # The client cannot send this, and raises its own error.
    recording = kind(stream, limit)
    request.stream = recording
    return recording


def _is_seekable_multipart(stream: object) -> bool:
    """Whether this is the library's multipart body, and each of its files can be read from the start again."""
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
    """A response's body that is read ahead of its reader, who gets the chunks that were read and then the rest.

    Mutable state, used by the response's reader alone: `chunks`, which were read ahead and not yielded yet; `ended`,
    whether nothing comes after them; `_error`, an error of reading, which is raised after them; `_is_closed`, whether
    `_source`, the original body, was closed; `_started`, whether it was read ahead.
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
    """A body that is read ahead, of an async client's response.

    Invariant: from `read_ahead` on, until `_idle` is set, a task of this object waits for the next chunk, and nothing
    else uses `_rest`. The task is needed because a wait could not be given up otherwise: a cancelled `__anext__` ends
    the generators below it, and the rest would be lost.

    It is an iterator and not an async generator, so that a half-read one needs no finalizer.
    """

    def __init__(self, source: Any) -> None:
        super().__init__(source)
        self._rest: AsyncIterator[bytes] = source.__aiter__()
        self._reads_on = True
        self._scope = anyio.CancelScope()
        self._idle = anyio.Event()

    async def read_ahead(self) -> None:
        """Read until the body ends, is longer than `READ_LIMIT`, or `READ_SECONDS` are over.

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
                    size += max(len(chunk), _LEAST)
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
        """Read on and drop the chunks: up to `DISCARD_LIMIT` bytes, for at most `READ_SECONDS`."""
        size = 0
        with anyio.move_on_after(READ_SECONDS):
            try:
                while size <= DISCARD_LIMIT:
                    size += max(len(await self.__anext__()), _LEAST)
            except StopAsyncIteration:
                self.ended = True
            except Exception as error:  # Nobody needs the rest.
                self._error = error

    async def aclose(self) -> None:
        """Close the body; the chunks that were read ahead are still yielded."""
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
    """A body that is read ahead, of a sync client's response. Its coroutines never suspend, so they need no event loop.

    A blocking read cannot be given up: if its socket were closed meanwhile, the reading thread might read from another
    socket with the same number. So only the client's own read timeout bounds the wait for one chunk.
    """

    def __init__(self, source: Any) -> None:
        super().__init__(source)
        self._rest: Iterator[bytes] = iter(source)

    async def read_ahead(self) -> None:
        """Read until the body ends, is longer than `READ_LIMIT`, or `READ_SECONDS` are over after a chunk.

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
                size += max(len(chunk), _LEAST)
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
        """Read on and drop the chunks: up to `DISCARD_LIMIT` bytes, for about `READ_SECONDS`."""
        if self._error is None:
            self._read(DISCARD_LIMIT)

    async def aclose(self) -> None:
        """Close the body; the chunks that were read ahead are still yielded."""
        self.close()

    def close(self) -> None:
        """Close the body; the chunks that were read ahead are still yielded."""
        if not self._is_closed:
            self._is_closed = True
            self._source.close()


async def read_ahead(response: Response) -> HeldBody | BlockingHeldBody | None:
    """Read the beginning of a response's body, and put it back. For a sync client this does not suspend.

    The connection is free afterwards if the body ended within the bounds. A second call does nothing.

    Returns:
        None if the body was read before, for example by a hook of the client; it is used as it is.
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
    """Return a response's body, decoded; None if it is longer than `READ_LIMIT`, slow, broken, or not available."""
    held = await read_ahead(response)
    if held is not None:
        plain = _unpacked(held, response)
        return plain if held.ended and _is_short(plain) else None
    try:
        content = response.content
    except RuntimeError:  # It was read and not kept: `ResponseNotRead`.
        return None
    return content if _is_short(content) else None


async def give_up(response: Response) -> None:
    """End a response that only the client itself reads, to keep it in the next response's history.

    The client reads a bounded body: if the body is not complete, or would be longer than `READ_LIMIT` when decoded, a
    part of it replaces it.
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

    Other tasks take their turns meanwhile, also if thousands of chunks are there without a wait.

    Args:
        chunks: the body; the rest of it can be read afterwards.
        most: bytes, of which each chunk counts for some at least; the chunk that exceeds them is the last one that is
            read.
    """
    some: list[bytes] = []
    size = 0
    while size <= most:
        try:
            chunk = await chunks.__anext__()
        except StopAsyncIteration:
            return some, True
        some.append(chunk)
        size += max(len(chunk), _LEAST)
        if len(some) % _BUFFERED == 0:
            await anyio.lowlevel.checkpoint()
    return some, False


async def drain(chunks: AsyncIterator[bytes]) -> None:
    """End a body that nobody will read further, before its response is closed.

    A chain of async generators leads down to the socket, and on trio none of them may be left unfinished to the garbage
    collector. When cancelled, the innermost one ends where it waits for the network, and the others with it.
    """
    with anyio.CancelScope() as scope:
        scope.cancel()
        for _ in range(_BUFFERED):
            try:
                await chunks.__anext__()
            except Exception:  # It has ended or broken; either way there is no more.
                break
    if isinstance(chunks, AsyncGenerator):
        await chunks.aclose()  # Needed only for a body that neither ends nor waits.


def unpacked(body: bytes, encoding: str, most: int) -> bytes | None:
    """Decode a `Content-Encoding` (RFC 9110 §8.4.1), up to `most` bytes and one.

    A client's own decoder has no limit: some kilobytes of gzip can become gigabytes.

    Args:
        body: the body as it was received.
        encoding: the header field's value; empty if there was none.
        most: bytes; a longer result was cut.

    Returns:
        None if the body cannot be decoded.
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
    """Start `run` in a task that no caller owns; `over` is called when it has ended, even if it never began."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        trio.lowlevel.spawn_system_task(run)
        return
    import asyncio

    task = asyncio.get_running_loop().create_task(run())
    _running.add(task)
    task.add_done_callback(_running.discard)
    task.add_done_callback(lambda _: over())


# An event loop keeps only weak references to its tasks.
_running: set[object] = set()
