"""A store in Redis or Valkey, shared by all hosts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol
from urllib.parse import quote

from .._errors import frameless
from .base import (
    decode_text,
    encode_text,
    quotes,
    require_asyncio,
)
from .redis_listening import listening

__all__ = ["RedisClient", "RedisStore"]

# Without ARGV[3] the key must be absent: GET answers false for that. The comparison is of bytes. `pcall` hands back an
# error where `call` raises it: who may not publish there has written all the same, and must not be told otherwise.
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
    """What `RedisStore` uses of `redis.asyncio.Redis`, `RedisCluster` and their Valkey twins."""

    def execute_command(self, *args: Any, **options: Any) -> Awaitable[Any]:
        """Send one command and return the awaitable answer."""
        ...

    def register_script(self, script: str) -> _Script:
        """Return a callable that runs `script` by its hash, and sends it where it is unknown."""
        ...


class RedisStore:
    """Keeps the text under one Redis key, for all hosts that share the server.

    The swap is one Lua script: Redis runs it as a whole or not at all, and nothing in between
    (Redis documentation, "Scripting with Lua", "Atomicity of scripts"). The value is the plain
    JSON text, and it never expires. One key is touched, so a cluster serves as well.

    A rotated refresh token that Redis forgets is gone for good, so Redis must not forget:

    - without an append-only file, or with `appendfsync everysec`, a crash of the server loses the
      last second or more; `appendfsync always` loses nothing that was acknowledged (Redis
      documentation, "Redis persistence");
    - replication is asynchronous: a failover may lose acknowledged writes, and `WAIT` makes that
      unlikely, not impossible (Redis documentation, "Redis replication" and "WAIT");
    - an eviction policy other than `noeviction` or `volatile-*` may drop the key (Redis
      documentation, "Key eviction").

    After such a loss the text is absent or an older one: the next refresh is refused and somebody
    must log in again. Where that is too much to ask, use `SQLStore`.

    A client that is set to retry (redis-py does so from version 6 on) sends a swap again when the
    answer to the first was lost; the second may then answer False for a swap that was won. The
    slot holds `new` in that case: compare it before you believe that another has won.

    Each swap that is won says so on the channel `<key>:changed`, and processes that wait for another one listen there,
    with one connection for each client while somebody waits, and none else. A user whom the server's access control
    keeps from that channel writes all the same, and polls.

    asyncio only. Raises RuntimeError under another event loop, and the client's own errors
    (`redis.RedisError`), also when the key holds another type than a string; ValueError when the
    key holds bytes that are no UTF-8. Errors come without frames and chain, which would hold the
    text; a server's message that quotes it is withheld.

    Args:
        client: a `redis.asyncio.Redis` or `RedisCluster` of the caller's, or Valkey's; with or
            without `decode_responses`. It is never closed here. Its connections belong to one
            event loop.
        key: the key's name.
    """

    __slots__ = ("__weakref__", "_client", "_key", "changed")

    changed: Callable[[str | None], Coroutine[Any, Any, None]]
    """Returns when the key may hold something else than `old`; where the client can subscribe (see `WakingStore`)."""

    @frameless
    def __init__(self, client: RedisClient, key: str) -> None:
        if not key:
            raise ValueError("key is empty")
        self._client = client
        self._key = key
        if callable(getattr(client, "pubsub", None)):
            self.changed = self._changed

    @property
    def slot(self) -> str:
        """What EncryptedStore binds texts to: the kind of store, and the key's name."""
        return f"redis:{self._key}"

    @property
    def earlier_slots(self) -> tuple[str, ...]:
        """What version 0.1 took for the slot's name: the key's."""
        return (self._key,)

    @frameless
    async def load(self) -> str | None:
        """Return the text under the key, or None if there is none."""
        require_asyncio("RedisStore")
        # Decoded here and not by a client with decode_responses: its encoding may be another,
        # and its UnicodeDecodeError would hold the value.
        data: bytes | None = await self._client.execute_command("GET", self._key, NEVER_DECODE=True)
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
        except Exception as error:  # of whatever client it is
            _withhold(error, [text.decode() for text in texts])
            raise

    @property
    def one_loop(self) -> str | None:
        """How to make a store that serves every event loop; None if this one does: its client keeps no connection."""
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
            # Asked once the server has confirmed that it will tell: nothing can come in between unseen.
            if await self.load() == old:
                await message

    def __repr__(self) -> str:
        return f"RedisStore({self._key!r})"


def _withhold(error: Exception, texts: list[str]) -> None:
    """Take a message out of an error if it quotes the texts, as "unknown command" does."""
    if quotes(f"{error} {error!r}", texts):
        error.args = ("the server refused the swap; its message quotes the text and is withheld",)
    for name, value in list(vars(error).items()):
        if quotes(repr(value), texts):
            setattr(error, name, None)
