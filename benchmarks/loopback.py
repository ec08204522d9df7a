"""A server on a loopback socket that does next to nothing, in a process of its own: `python -m benchmarks.loopback`."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator

_ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n"
    + b'{"pong":true}'
)


class _Pong(asyncio.Protocol):
    """Answers each request head (requests here have no body)."""

    def __init__(self) -> None:
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.WriteTransport = transport  # type: ignore[assignment]  # TCP transports write

    def data_received(self, data: bytes) -> None:
        *heads, self._head = (self._head + data).split(b"\r\n\r\n")
        for _ in heads:
            self._transport.write(_ANSWER)


@contextlib.contextmanager
def running() -> Iterator[str]:
    """Run the server while the block lasts; gives its address."""
    command = [sys.executable, "-m", "benchmarks.loopback"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Pong, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print(f"http://127.0.0.1:{port}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)  # until whoever started it lets go
    server.close()


if __name__ == "__main__":
    asyncio.run(_serve())
