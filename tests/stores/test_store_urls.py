from __future__ import annotations

import sys
from pathlib import Path

import pytest
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError

from httpx_refresh import FileStore, MemoryStore, StoreError, open_store
from httpx_refresh.stores.encrypted import EncryptedStore, generate_key
from httpx_refresh.stores.redis import RedisStore
from httpx_refresh.stores.sql import SQLStore

from .race import check_race
from .secrecy import everything_shown

asyncio_only = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@pytest.mark.parametrize(
    "url, path",
    [
        ("file:xero.json", "xero.json"),
        ("FILE:xero.json", "xero.json"),
        ("file:a/b%20c.json", "a/b c.json"),
        ("file:/var/lib/xero.json", "/var/lib/xero.json"),
        ("file:///var/lib/xero.json", "/var/lib/xero.json"),
        ("file://localhost/xero.json", "/xero.json"),
    ],
)
def test_a_file_url_is_a_file_store(url: str, path: str) -> None:
    store = open_store(url)
    assert isinstance(store, FileStore)
    assert repr(store) == f"FileStore({path!r})"


def test_a_tilde_is_the_home_directory() -> None:
    assert repr(open_store("file:~/x.json")) == f"FileStore({str(Path.home() / 'x.json')!r})"


def test_a_memory_url_is_a_memory_store() -> None:
    assert isinstance(open_store("memory:"), MemoryStore)


@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "valkeys"])
def test_a_redis_url_is_a_redis_store_of_its_key(scheme: str) -> None:
    store = open_store(f"{scheme}://:PASSWORD@cache.test:6380/1?key=xero&protocol=3")
    assert isinstance(store, RedisStore)
    assert repr(store) == "RedisStore('xero')"


def test_a_sql_url_is_a_sql_store_of_its_key_and_table() -> None:
    store = open_store("postgresql+asyncpg://user:PASSWORD@db.test/app?key=xero&ssl=require")
    assert repr(store) == "SQLStore('xero')"
    store = open_store("sqlite+aiosqlite:///app.db?key=xero&table=tokens")
    assert isinstance(store, SQLStore)
    assert repr(store) == "SQLStore('xero', table='tokens')"


@asyncio_only
@pytest.mark.anyio
async def test_of_many_swaps_one_wins_with_a_connection_for_each_call(
    tmp_path: Path,
) -> None:
    async def make_store() -> SQLStore:
        store = open_store(f"sqlite+aiosqlite:///{tmp_path}/tokens.db?key=xero&timeout=60")
        assert isinstance(store, SQLStore)
        await store.create_table()
        return store

    await check_race(make_store)


@asyncio_only
@pytest.mark.anyio
@pytest.mark.parametrize("database", ["postgres_url", "mariadb_url"])
async def test_a_database_by_url_swaps(database: str, request: pytest.FixtureRequest) -> None:
    store = open_store(f"{request.getfixturevalue(database)}?key=xero&table=by_url")
    assert isinstance(store, SQLStore)
    await store.create_table()
    assert await store.replace(None, "one")
    assert not await store.replace(None, "two")
    assert await store.replace("one", "two")
    assert await store.load() == "two"


@asyncio_only
@pytest.mark.anyio
async def test_redis_by_url_swaps_and_leaves_no_connection_open(redis_url: str) -> None:
    store = open_store(f"{redis_url}?key=xero")
    assert await store.load() is None
    assert await store.replace(None, "one")
    assert not await store.replace(None, "two")
    assert await store.replace("one", "two")
    assert await store.load() == "two"


@pytest.mark.anyio
async def test_with_keys_the_text_is_encrypted(tmp_path: Path) -> None:
    path = tmp_path / "token.json"
    store = open_store(f"file:{path}", keys=[generate_key()])
    assert isinstance(store, EncryptedStore)
    assert await store.replace(None, '{"access_token": "SECRET"}')
    assert "SECRET" not in path.read_text()
    assert await store.load() == '{"access_token": "SECRET"}'


@pytest.mark.anyio
async def test_a_plain_text_is_read_with_keys_only_where_that_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "token.json"
    path.write_text("{}")
    key = generate_key()
    with pytest.raises(StoreError, match="not encrypted"):
        await open_store(f"file:{path}", keys=[key]).load()
    store = open_store(f"file:{path}", keys=[key], slot="shared", allow_plaintext=True)
    assert await store.load() == "{}"
    assert isinstance(store, EncryptedStore)
    assert store.slot == "shared"


@pytest.mark.parametrize(
    "url, words",
    [
        ("", "a store is named by a URL"),
        ("xero.json", "a store is named by a URL"),
        ("/var/lib/xero:1.json", "a store is named by a URL"),
        ("file:", "must name a file"),
        ("file:dir/", "must name a file"),
        ("file:x.json?key=a", "has no query"),
        ("file:x.json#a", "has no query and no fragment"),
        ("file://other.test/x.json", "a file of this host"),
        ("redis://:PASSWORD@host/0", "needs the slot's name"),
        ("redis://:PASSWORD@host/0?key=", "needs the slot's name"),
        ("redis://:PASSWORD@host/0?key=a&table=b", "has no table"),
        ("redis://:PASSWORD@host/0?key=a#b", "no fragment"),
        ("redis://:PASSWORD@host:port/0?key=a", "cannot be read"),
        ("postgresql+asyncpg://u:PASSWORD@host/db", "needs the slot's name"),
        ("postgresql://u:PASSWORD@host/db?key=a", "is not asynchronous"),
        ("nosql://u:PASSWORD@host/db?key=a", "no store is known by the scheme 'nosql'"),
        ("sqlite+aiosqlite:no-slashes?key=a", "cannot be read"),
        ("postgresql+asyncpg://u:PASSWORD@host:port/db?key=a", "cannot be read"),
        ("sqlite+aiosqlite://?key=a", "use memory: instead"),
        ("sqlite+aiosqlite:///:memory:?key=a", "use memory: instead"),
    ],
)
def test_a_url_that_names_no_store_is_refused_without_being_shown(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        open_store(url)
    assert "PASSWORD" not in str(caught.value)
    assert caught.value.__context__ is None or "PASSWORD" not in repr(caught.value.__context__)


def test_a_url_is_text() -> None:
    with pytest.raises(TypeError):
        open_store(Path("x.json"))  # type: ignore[arg-type]  # no URL, on purpose


@pytest.mark.parametrize(
    "absent, url, keys, words",
    [
        ("redis", "redis://host/0?key=a", [], r"httpx-refresh\[redis\]"),
        ("sqlalchemy.exc", "sqlite+aiosqlite:///x?key=a", [], r"httpx-refresh\[sql\]"),
        ("asyncpg", "postgresql+asyncpg://host/db?key=a", [], "pip install asyncpg"),
        (
            "httpx_refresh.stores.encrypted",
            "file:x",
            ["key"],
            r"httpx-refresh\[encrypted\]",
        ),
    ],
)
def test_a_store_that_is_not_installed_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, absent: str, url: str, keys: list[str], words: str
) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(ImportError, match=words):
        open_store(url, keys=keys)


@pytest.mark.parametrize(
    "path, url",
    [
        ("xero.json", "file:xero.json"),
        ("./var/xero.json", "file:./var/xero.json"),
        ("/var/lib/xero.json", "file:/var/lib/xero.json"),
        ("C:\\tokens\\xero.json", "file:C:\\tokens\\xero.json"),
        ("C:/tokens/xero.json", "file:C:/tokens/xero.json"),
        ("", "file:token.json"),
        ("user@host/xero", "file:token.json"),
        ("a\nb", "file:token.json"),
    ],
)
def test_a_path_instead_of_a_url_is_an_error_with_the_url(path: str, url: str) -> None:
    with pytest.raises(ValueError, match="a store is named by a URL") as caught:
        open_store(path)
    assert url in str(caught.value)
    assert "@host/xero" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "sesame@host/db",
        "//user:sesame@host/db",
        "redis://:sesame@host:port/0?key=xero",
        "redis://:sesame@host/0?key=xero&table=t",
        "redis://:sesame@host/0?key=xero&db=none",
        "redis://:sesame@host/0",
        "postgresql+asyncpg://user:sesame@host:port/db?key=xero",
        "postgresql+nothing://user:sesame@host/db?key=xero",
        "postgresql+psycopg2://user:sesame@host/db?key=xero",
        "sqlite+aiosqlite://user:sesame@/?key=xero",
        "postgresql+asyncpg://user:sesame@host/db?key=" + "x" * 256,
        "file://user:sesame@host/x",
        "ftp://user:sesame@host/x#fragment",
    ],
)
def test_no_error_shows_the_password_of_a_url(url: str) -> None:
    with pytest.raises((ValueError, ImportError)) as caught:
        open_store(url)
    assert "sesame" not in everything_shown(caught.value)


def test_no_error_shows_the_keys() -> None:
    with pytest.raises(ValueError, match=r"keys\[0\]") as caught:
        open_store("memory:", keys=["sesame"], slot="slot")
    assert "sesame" not in everything_shown(caught.value)


@asyncio_only
@pytest.mark.anyio
@pytest.mark.parametrize(
    "url",
    [
        "redis://:sesame@127.0.0.1:1/0?key=xero",
        "postgresql+asyncpg://user:sesame@127.0.0.1:1/db?key=xero",
        "postgresql+psycopg_async://user:sesame@127.0.0.1:1/db?key=xero",
        "mariadb+aiomysql://user:sesame@127.0.0.1:1/db?key=xero",
    ],
)
async def test_no_error_of_a_server_that_is_not_there_shows_the_password(url: str) -> None:
    store = open_store(url)
    for call in (store.load, lambda: store.replace("a", "b")):
        with pytest.raises((OSError, RedisError, DBAPIError)) as caught:
            await call()
        assert "sesame" not in everything_shown(caught.value)
