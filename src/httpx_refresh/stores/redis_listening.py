"""One subscription for each Redis client, shared by all waiters, and open only while somebody waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["listening"]


@asynccontextmanager
async def listening(client: Any, channel: str) -> AsyncIterator[asyncio.Future[None]]:
    """Listen to one channel; yield a future that is done when a message has come, or may have been lost.

    It raises what the client raises if it cannot subscribe. The future raises nothing: if the connection is lost, it is
    done, and the next call subscribes again.

    Args:
        client: a client of `redis.asyncio`. The caller runs on the client's event loop.
        channel: the channel's name.
    """
    shared = _subscriptions.get(client)
    if shared is None or shared.over or shared.loop is not asyncio.get_running_loop():
        shared = _subscriptions[client] = _Subscription(client.pubsub(), channel)
    message = shared.join(channel)
    try:
        await shared.confirmed(channel)
        yield message
    finally:
        shared.leave(channel, message)


class _Subscription:
    """The channels of one client on one connection.

    Mutable, on `loop` alone:
        over: the connection was lost, or nobody waits any more; the next waiter makes a new subscription.
        _waiting: the waiters, by channel. Invariant: while `over` is not set, there is at least one.
        _asked: the subscriptions that were requested, by channel; done once the server has confirmed them.
        _tasks: the reader, which closes the connection, and the tasks that subscribe to further channels.
    """

    def __init__(self, pubsub: Any, channel: str) -> None:
        self.loop = asyncio.get_running_loop()
        self.over = False
        self._pubsub = pubsub
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._asked: dict[str, asyncio.Future[None]] = {channel: self.loop.create_future()}
        self._connected: asyncio.Future[None] = self.loop.create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reader = self._start(self._read(channel))

    def join(self, channel: str) -> asyncio.Future[None]:
        """Return a future that the next message on this channel completes."""
        message = self.loop.create_future()
        self._waiting.setdefault(channel, set()).add(message)
        if channel not in self._asked:
            self._asked[channel] = self.loop.create_future()
            self._start(self._subscribe(channel))
        return message

    async def confirmed(self, channel: str) -> None:
        """Wait until the server has confirmed the subscription; raise the error that prevented it."""
        await asyncio.shield(self._asked[channel])

    def leave(self, channel: str, message: asyncio.Future[None]) -> None:
        """Stop waiting; the last waiter that leaves ends the subscription."""
        others = self._waiting.get(channel, set())
        others.discard(message)
        if not others:
            self._waiting.pop(channel, None)
        if not self._waiting and not self.over:
            self.over = True
            self._reader.cancel()

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.loop.create_task(coroutine, name="httpx-refresh subscription")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _subscribe(self, channel: str) -> None:
        try:
            await asyncio.shield(self._connected)
            await self._pubsub.subscribe(channel)
        except Exception:  # Any client's; the reader's own error is the one that is raised.
            self._reader.cancel()

    async def _read(self, channel: str) -> None:
        """Connect and read, until nobody waits or the connection is lost."""
        failure: Exception = ConnectionError("the subscription has ended")
        try:
            await self._pubsub.subscribe(channel)
            self._connected.set_result(None)
            while True:
                self._tell(await self._pubsub.get_message(timeout=None))
        except asyncio.CancelledError:
            pass
        except Exception as error:  # Any client's; those who wait for a confirmation raise it.
            failure = error.with_traceback(None)
        self.over = True
        self._end(failure)
        with suppress(Exception):  # The connection was lost, or the client was closed.
            await self._pubsub.aclose()

    def _tell(self, message: Any) -> None:
        """Wake those who wait for this message or this confirmation."""
        if not isinstance(message, dict):
            return
        name = message.get("channel")
        if isinstance(name, bytes):
            name = name.decode("utf-8", "replace")
        asked = self._asked.get(str(name))
        if message.get("type") == "subscribe" and asked is not None and not asked.done():
            asked.set_result(None)
            return
        # A second confirmation means that the client has reconnected, so messages may have been lost. The same
        # holds for a channel whose name the client spells differently.
        for waiting in [self._waiting.get(str(name), set())] if asked else self._waiting.values():
            for one in waiting:
                if not one.done():
                    one.set_result(None)

    def _end(self, failure: Exception) -> None:
        for asked in (self._connected, *self._asked.values()):
            if not asked.done():
                asked.set_exception(failure)
                asked.exception()  # Perhaps nobody waits for it any more.
        for waiting in self._waiting.values():
            for one in waiting:
                if not one.done():
                    one.set_result(None)


_subscriptions: WeakKeyDictionary[Any, _Subscription] = WeakKeyDictionary()
