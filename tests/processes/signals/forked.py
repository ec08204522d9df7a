"""Worker processes, forked from one that has imported everything: a fork takes milliseconds, a start a second.

A worker reads orders and writes answers, a line of JSON each, on the socket that it was given. An order may hold a
doom: the moment at which the process sends itself a signal. That is as real as one from outside, and hits where it is
meant to.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import importlib
import json
import logging
import os
import pkgutil
import signal
import socket
import ssl
import sys
import time
import traceback
from asyncio import events
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx

import httpx_refresh
from httpx_refresh import RefreshAuth, RefreshAuthError, TokenEndpoint
from tests.processes.stores import opened
from tests.processes.worker import LIMITS

if TYPE_CHECKING:
    from httpx_refresh.stores.base import TokenStore

PLACES = ("swap", "call", "step")
"""What a doom counts: a swap's beginning and its end, calls of the operating system, callbacks of the event loop."""

NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Everything is on the loopback, in clear: there are no certificates to read."""

_CALLS = frozenset({"open", "os.rename", "os.remove", "os.chmod", "fcntl.flock", "socket.connect"})


class Doom:
    """Counts what the process does since its last order, and sends the signal once that is due.

    Mutable, from any thread of the process:
        seen: how often it came to each place since then.
        _place: where the signal is due; None: nowhere, or it was sent.
    """

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self._place: str | None = None
        self._number = 0
        self._signal = 0

    def arm(self, doom: dict[str, Any] | None) -> None:
        self.seen.clear()
        self._place = None
        if doom is not None:
            self._number, self._signal = doom["number"], doom["signal"]
            self._place = doom["place"]

    @property
    def is_armed(self) -> bool:
        return self._place is not None

    def come(self, place: str) -> None:
        self.seen[place] += 1
        if self._place == place and self.seen[place] == self._number:
            self._place = None
            os.kill(os.getpid(), self._signal)

    def install(self, store: TokenStore) -> None:
        """Watch this process, and the swaps of this store."""
        kind: Any = type(store)
        replace, run = kind.replace, events.Handle._run
        doom = self

        async def watched_replace(store: TokenStore, old: str | None, new: str) -> bool:
            doom.come("swap")
            won: bool = await replace(store, old, new)
            doom.come("swap")
            return won

        def watched_run(handle: events.Handle) -> None:
            doom.come("step")
            run(handle)

        def audit(name: str, _: tuple[Any, ...]) -> None:
            if name in _CALLS:
                doom.come("call")

        kind.replace = watched_replace
        handles: Any = events.Handle
        handles._run = watched_run
        sys.addaudithook(audit)


async def work(setup: dict[str, Any], pipe: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=pipe)

    async def sign(request: httpx.Request) -> None:
        request.headers["x-who"] = setup["who"]

    def say(what: object) -> None:
        writer.write(f"{json.dumps(what)}\n".encode())

    async with (
        opened(setup["store"], setup["key"]) as store,
        httpx.AsyncClient(
            trust_env=False,
            verify=NOBODY,
            limits=LIMITS,
            timeout=60,
            event_hooks={"request": [sign]},
        ) as token_client,
    ):
        endpoint = TokenEndpoint(
            f"{setup['url']}/token",
            setup["client_id"],
            setup["client_secret"],
            reuse_grace=setup["reuse_grace"],
            client=token_client,
        )
        auth = RefreshAuth(endpoint, store, origins="any", refresh_timeout=setup["refresh_timeout"])
        doom = Doom()
        doom.install(store)
        async with (
            auth,
            httpx.AsyncClient(
                auth=auth, trust_env=False, verify=NOBODY, limits=LIMITS, timeout=60
            ) as client,
        ):
            say("ready")
            while line := await reader.readline():
                order = json.loads(line)
                doom.arm(order["doom"])
                answer = await make_requests(client, setup["url"], order["count"])
                answer["seen"], answer["spared"] = dict(doom.seen), doom.is_armed
                doom.arm(None)
                say(answer)
    writer.close()


async def make_requests(client: httpx.AsyncClient, url: str, count: int) -> dict[str, Any]:
    """Make so many requests at once; return how they ended, and how long the slowest took, in seconds."""
    ends: Counter[str] = Counter()
    said: set[str] = set()
    took: list[float] = []

    async def make_one() -> None:
        began = time.monotonic()
        try:
            response = await client.get(f"{url}/api/ping")
        except RefreshAuthError as error:
            ends[type(error).__name__] += 1
            said.add(str(error))
        else:
            ends[str(response.status_code)] += 1
        took.append(time.monotonic() - began)

    await asyncio.gather(*(make_one() for _ in range(count)))
    return {"ends": ends, "said": sorted(said), "slowest": max(took)}


def import_all() -> None:
    """Import what a worker will need; some of it is imported only where it is used."""
    for module in pkgutil.walk_packages(httpx_refresh.__path__, "httpx_refresh."):
        if not module.name.startswith(("httpx_refresh.cli", "httpx_refresh.__main__")):
            importlib.import_module(module.name)
    for name in ("anyio._backends._asyncio", "filelock", "h11", "httpcore", "redis.asyncio"):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # Else each child copies what it only looks through.


def end_with_parent() -> None:
    """Have this process killed when the one that forked it ends: it may stand still then, and hear nothing."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG; Linux


def main() -> None:
    """Fork a worker for each setup that comes in on standard input, a socket, with the worker's own socket."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Nobody waits for them.
    logging.getLogger("httpx_refresh").addHandler(
        logging.NullHandler()
    )  # That a claim is taken over is no news.
    import_all()
    orders = socket.socket(fileno=0)
    orders.sendall(b"ready")
    while True:
        data, descriptors, _, _ = socket.recv_fds(orders, 65536, 1)
        if not data:
            orders.close()
            return
        (descriptor,) = descriptors
        if pid := os.fork():
            os.close(descriptor)
            orders.sendall(f"{pid}\n".encode())
            continue
        status = 1
        try:
            orders.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            end_with_parent()
            with contextlib.suppress(ConnectionError):  # Who gave the orders has ended.
                asyncio.run(work(json.loads(data), socket.socket(fileno=descriptor)))
            status = 0
        except BaseException:  # pragma: no cover - where the worker itself is wrong
            traceback.print_exc()
        finally:
            os._exit(status)


if __name__ == "__main__":
    main()
