"""A store in Redis or Valkey, shared by all hosts."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol
from urllib.parse import quote

from .._errors import frameless
from .base import (
    decode_text,
    encode_text,
    quotes,
    require_asyncio,
    say_reason,
)
from .redis_listening import listening

__all__ = ["RedisClient", "RedisStore"]

# Without ARGV[3] the key must be absent: GET answers false then. Bytes are compared. `pcall` returns an error where
# `call` would raise it: a user who may not publish there has written all the same, and must be told so.
_COMPARE_AND_SET = """
if redis.call('GET', KEYS[1]) ~= (ARGV[3] or false) then
    return 0
end
redis.call('SET', KEYS[1], ARGV[1])
redis.pcall('PUBLISH', ARGV[2], '')
return 1
"""


class _Script(Protocol):
    def __call__(self, keys: Any = ..., args: Any = ...) -> Awaitable[Any]: ...


class RedisClient(Protocol):
    """The methods that `RedisStore` uses of `redis.asyncio.Redis`, of `RedisCluster`, and of Valkey's clients."""

    def execute_command(self, *args: Any, **options: Any) -> Awaitable[Any]:
        """Send one command and return the awaitable answer."""
        ...

    def register_script(self, script: str) -> _Script:
        """Return a callable that runs `script` by its hash, and sends the script if the server does not know it."""
        ...


class RedisStore:
    """Keeps the text under one Redis key, for all hosts that share the server.

    The swap is one Lua script: Redis runs it as a whole or not at all, and runs nothing else meanwhile
    (Redis documentation, "Scripting with Lua", "Atomicity of scripts"). The value is the plain
    JSON text, and it never expires. The script uses one key, so a cluster works, too.

    A rotated refresh token that Redis loses is lost for good, so configure Redis to keep it:

    - without an append-only file, or with `appendfsync everysec`, a crash of the server loses the
      last second or more; `appendfsync always` loses nothing that was acknowledged (Redis
      documentation, "Redis persistence");
    - replication is asynchronous: a failover may lose acknowledged writes, and `WAIT` makes that
      unlikely, not impossible (Redis documentation, "Redis replication" and "WAIT");
    - an eviction policy other than `noeviction` or `volatile-*` may drop the key (Redis
      documentation, "Key eviction").

    After such a loss the text is absent or an older one: the next refresh is refused and a person
    must log in again. If that is not acceptable, use `SQLStore`.

    A client that retries (redis-py does by default from version 6 on) sends a swap again if the
    answer to the first was lost; the second may then return False for a swap that was won. The
    slot holds `new` in that case: compare it before you conclude that another process has won.

    Each winning swap publishes a message on the channel `<key>:changed`. Processes that wait for another one subscribe
    to it, with one connection for each client, and only while somebody waits. Without permission for that channel the
    store still works, and polls.

    asyncio only. The methods raise RuntimeError under another event loop; the client's own errors
    (`redis.RedisError`), also if the key holds another type than a string; and ValueError if the
    key holds bytes that are not UTF-8. Errors come without frames and chain, which would hold the
    text, and without a server's message that quotes it.

    Args:
        client: the caller's `redis.asyncio.Redis` or `RedisCluster`, or Valkey's, with or without
            `decode_responses`. The store never closes it. Its connections belong to one event loop.
        key: the key's name.
    """

    __slots__ = ("__weakref__", "_client", "_key", "changed")

    changed: Callable[[str | None], Coroutine[Any, Any, None]]
    """Return when the key may hold something other than `old` (see `WakingStore`).

    The attribute is absent if the client cannot subscribe.
    """

    @frameless
    def __init__(self, client: RedisClient, key: str) -> None:
        if not callable(getattr(client, "register_script", None)):
            raise TypeError(
                "client must be a client of redis.asyncio, or of Valkey's, as Redis.from_url makes it, not "
                f"{type(client).__name__}; for a URL there is open_store"
            )
        if not isinstance(key, str):
            raise TypeError(f"key must be a str, not {type(key).__name__}")
        if not key:
            raise ValueError("key is empty")
        self._client = client
        self._key = key
        if callable(getattr(client, "pubsub", None)):
            self.changed = self._changed

    @property
    def slot(self) -> str:
        """The name that `EncryptedStore` binds texts to: the kind of store, and the key's name."""
        return f"redis:{self._key}"

    @property
    def earlier_slots(self) -> tuple[str, ...]:
        """The slot's name in version 0.1: the key's name."""
        return (self._key,)

    @frameless
    async def load(self) -> str | None:
        """Return the text under the key, or None if there is none."""
        require_asyncio("RedisStore")
        # Decoded here, and not by a client with decode_responses: that may have another encoding,
        # and its UnicodeDecodeError would hold the value.
        try:
            data: bytes | None = await self._client.execute_command(
                "GET", self._key, NEVER_DECODE=True
            )
        except Exception as error:  # any client's
            _say_code(error)
            raise
        return None if data is None else decode_text(data, f"the Redis key {self._key!r}")

    @frameless
    async def replace(self, old: str | None, new: str) -> bool:
        """Write `new` if the key still holds exactly `old` (None: absent); else return False."""
        require_asyncio("RedisStore")
        texts = [encode_text(new)] if old is None else [encode_text(new), encode_text(old)]
        told = (texts[0], self._channel, *texts[1:])
        swap = self._client.register_script(_COMPARE_AND_SET)  # computes a hash, sends nothing
        try:
            return bool(await swap(keys=[self._key], args=told))
        except Exception as error:  # any client's
            _withhold(error, [text.decode() for text in texts])
            _say_code(error)
            raise

    @property
    def one_loop(self) -> str | None:
        """How to make a store that serves every event loop; None if this store does (no kept connection)."""
        if getattr(self._client, "serves_every_loop", False):
            return None
        return f'open_store("redis://host/0?key={quote(self._key)}")'

    @property
    def _channel(self) -> str:
        return f"{self._key}:changed"

    @frameless
    async def _changed(self, old: str | None) -> None:
        require_asyncio("RedisStore")
        async with listening(self._client, self._channel) as message:
            # Loaded after the server has confirmed the subscription, so no change goes unnoticed in between.
            if await self.load() == old:
                await message

    def __repr__(self) -> str:
        return f"RedisStore({self._key!r})"


def _say_code(error: Exception) -> None:
    """Have the error's code told, where the client has no type for it: MISCONF, NOREPLICAS, BUSY, WRONGTYPE, ...

    It is the first word of a server's error, in capitals (Redis serialization protocol specification, "Simple errors").
    """
    code = re.match(r"[A-Z]{2,20}(?= )", str(error))
    if code is not None:
        say_reason(error, code[0])


def _withhold(error: Exception, texts: list[str]) -> None:
    """Remove the message of an error if it quotes the texts, as "unknown command" does."""
    if quotes(f"{error} {error!r}", texts):
        error.args = ("the server refused the swap; its message quotes the text and is withheld",)
    for name, value in list(vars(error).items()):
        if quotes(repr(value), texts):
            setattr(error, name, None)
