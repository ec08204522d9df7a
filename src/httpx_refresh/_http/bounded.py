"""Read so much of a body and no more, packed or not."""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, AsyncIterator

import anyio

_GZIP_OR_ZLIB = 47
_RAW_DEFLATE = -15
_BUFFERED = 64  # chunks that may come without a wait


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


async def let_go(chunks: AsyncIterator[bytes]) -> None:
    """End a body that nobody will read on, before its response is closed.

    A chain of async generators leads down to the socket, and on trio none of them may be left to the garbage
    collector half way. Cancelled, the innermost ends where it waits for the network, and the others with it.
    """
    with anyio.CancelScope() as scope:
        scope.cancel()
        for _ in range(_BUFFERED):
            try:
                await chunks.__anext__()
            except StopAsyncIteration:
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
