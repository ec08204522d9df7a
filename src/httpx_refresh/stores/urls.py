"""Stores from URLs: one line of configuration instead of an engine or a client.

A URL may hold a password. No message repeats it, and no exception leads to a frame that does.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

from .._errors import frameless
from .base import TokenStore
from .file import FileStore
from .memory import MemoryStore

_REDIS = ("redis", "rediss", "unix", "valkey", "valkeys")


@frameless
def open_store(
    url: str,
    *,
    keys: Sequence[bytes | str] = (),
    slot: str | None = None,
    allow_plaintext: bool = False,
) -> TokenStore:
    """Return the store that a URL names.

    `file:xero.json`, `file:///var/lib/app/xero.json`; `rediss://host/0?key=xero` (also `redis`, `unix`);
    `postgresql+asyncpg://user@host/db?ssl=verify-full&key=xero`, `mariadb+aiomysql://…?key=xero`, `sqlite+aiosqlite:///app.db?key=xero`
    (and `&table=…`); `memory:`. Other parameters of the query are the driver's.

    The call opens no connection, and the store keeps none between two calls. So there is nothing to close, and one
    store serves any number of event loops. For a store that is used often, make an engine or a client of your own:
    `SQLStore`, `RedisStore`.

    Args:
        url: the store's URL.
        keys: keys of `EncryptedStore`; the text is encrypted if there are any.
        slot: with keys, the slot's name (see `EncryptedStore`).
        allow_plaintext: with keys, whether a plain text is read too (see `EncryptedStore`).

    Raises:
        ValueError: the URL names no store. No message shows the URL, because it may hold a password.
        ImportError: the store or the database's driver is not installed; the message says what to install.
    """
    if not isinstance(url, str):
        raise TypeError("url must be a str")
    store = _opened(url)
    if not keys:
        return store
    with _Needs("encrypted", "a store with keys"):
        from .encrypted import EncryptedStore
    return EncryptedStore(store, keys, slot=slot, allow_plaintext=allow_plaintext)


def _opened(url: str) -> TokenStore:
    scheme, colon, rest = url.partition(":")
    scheme = scheme.lower()
    if not colon or not scheme or "/" in scheme or "\\" in scheme:
        raise ValueError(
            f"a store is named by a URL. Did you mean {_as_file(url)}? Other stores: rediss://host/0?key=name, "
            "postgresql+asyncpg://user@host/db?ssl=verify-full&key=name, sqlite+aiosqlite:///app.db?key=name"
        )
    if scheme == "file":
        return FileStore(_path(rest))
    if len(scheme) == 1 and rest[:1] in ("/", "\\"):
        raise ValueError(
            f"a store is named by a URL, a drive's file too. Did you mean {_as_file(url)}?"
        )
    if scheme == "memory":
        return MemoryStore()
    if "#" in url:
        raise ValueError("a store's URL has no fragment; write # as %23")
    address, taken = _without(url, ("key", "table"))
    if "key" not in taken:
        raise ValueError(f"a {scheme}: store needs the slot's name: ?key=name at the URL's end")
    if scheme in _REDIS:
        if "table" in taken:
            raise ValueError(f"a {scheme}: store has no table")
        with _Needs("redis", f"a {scheme}: store"):
            import redis.asyncio

        from .redis import RedisStore

        with _Unreadable(scheme):
            client = _Redis(redis.asyncio.from_url, _redis_url(address))
        return RedisStore(client, taken["key"])
    return _sql_store(scheme, address, taken)


def _as_file(path: str) -> str:
    """Return the URL of a text that looks like a file's path; for any other text the URL of an example."""
    plain = path.isprintable() and not set(path) & set("@?#%=&")
    return f"file:{path}" if plain and path else "file:token.json"


def _path(rest: str) -> str:
    if "?" in rest or "#" in rest:
        raise ValueError("a file: URL has no query and no fragment; write ? as %3F, and # as %23")
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host not in ("", "localhost"):
            raise ValueError(
                "a file: URL names a file of this host: file:name, or file:///absolute/name"
            )
        rest = slash + path
    path = os.path.expanduser(unquote(rest))
    if not path or path.endswith("/"):
        raise ValueError("a file: URL must name a file: file:token.json")
    return path


def _without(url: str, names: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """Remove this library's parameters from a URL's query."""
    before, _, query = url.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    taken = {name: value for name, value in pairs if name in names and value}
    rest = urlencode([(name, value) for name, value in pairs if name not in names])
    return (f"{before}?{rest}" if rest else before), taken


def _redis_url(url: str) -> str:
    # Valkey and Redis speak one protocol, and redis-py knows its own schemes only.
    if url.lower().startswith("valkey"):
        url = "redis" + url[len("valkey") :]
    return url


class _Redis:
    """A Redis client that connects for each command, so it belongs to no event loop and leaves nothing open."""

    serves_every_loop = True

    def __init__(self, connect: Callable[[str], Any], url: str) -> None:
        self._connect = connect
        self._url = url
        connect(url)  # Raises an error if the URL is wrong; it does not connect.

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command."""
        async with self._connect(self._url) as client:
            return await client.execute_command(*args, **options)

    def register_script(self, script: str) -> Callable[..., Awaitable[Any]]:
        """Return a callable that runs the script."""

        async def run(keys: Any = None, args: Any = None) -> Any:
            async with self._connect(self._url) as client:
                return await client.register_script(script)(keys=keys, args=args)

        return run

    def pubsub(self) -> Any:
        """Return a subscriber with a connection of its own; closing the subscriber closes the connection."""
        return self._connect(self._url).pubsub()


def _sql_store(scheme: str, address: str, taken: dict[str, str]) -> TokenStore:
    with _Needs("sql", f"a {scheme}: store"):
        from sqlalchemy.exc import NoSuchModuleError

    from sqlalchemy.engine import make_url
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    from .sql import SQLStore

    with _Unreadable(scheme):
        parsed = make_url(address)
    try:
        dialect = parsed.get_dialect()
    except NoSuchModuleError:
        raise ValueError(f"no store is known by the scheme {scheme!r}") from None
    if not dialect.is_async:
        raise ValueError(
            f"the driver of {scheme!r} is not asynchronous; name one that is, as in postgresql+asyncpg, "
            "mariadb+aiomysql or sqlite+aiosqlite"
        )
    if dialect.name == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise ValueError("SQLite in memory is empty for each connection: use memory: instead")
    try:
        # A pooled connection would belong to one event loop, and would have to be closed there.
        with _Unreadable(scheme):
            engine = create_async_engine(parsed, poolclass=NullPool)
    except ImportError as error:
        raise ImportError(
            f"the driver of {scheme!r} is not installed: pip install {error.name}"
        ) from None
    return SQLStore(engine, taken["key"], table=taken.get("table", "httpx_refresh"))


class _Unreadable:
    """Turn errors about a URL into a ValueError that does not show it; the libraries' own errors do."""

    def __init__(self, scheme: str) -> None:
        self._message = (
            f"this {scheme}: URL cannot be read; its port must be a number, special characters escaped, and its host "
            "and its other parts what the driver expects"
        )

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        # SQLAlchemy's own errors are not ValueErrors. A missing driver has an error of its own.
        if isinstance(error, Exception) and not isinstance(error, ImportError):
            error.args = ()
            raise ValueError(self._message) from None


class _Needs:
    """Name the missing extra if an import fails."""

    def __init__(self, extra: str, what: str) -> None:
        self._message = f"{what} needs more: pip install 'httpx-refresh[{extra}]'"

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, ImportError):
            raise ImportError(self._message) from None
