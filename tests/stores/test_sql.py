from __future__ import annotations

import asyncio
import gc
import logging
import re
import sys
import tracemalloc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import URL, MetaData, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from httpx_refresh import RefreshAuth, StoreError
from httpx_refresh.stores.encrypted import EncryptedStore
from httpx_refresh.stores.sql import SQLStore, _is_conflict, _without_texts, token_table
from httpx_refresh.testing import check_store
from tests.fakes import Endpoint

from .race import check_race
from .secrecy import everything_said

ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio", "asyncio+uvloop"], indirect=True)
ONE_LOOP = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
SECRET = '{"access_token": "sesame-0123456789", "refresh_token": "sesame-9876543210"}'

_numbers = count()


@pytest.fixture
def table() -> str:
    """A table that no other test uses."""
    return f"tokens_{next(_numbers)}"


@pytest.fixture(
    params=[
        pytest.param("postgres_url asyncpg", id="asyncpg"),
        pytest.param("postgres_url psycopg", id="psycopg"),
        pytest.param("mariadb_url aiomysql", id="aiomysql"),
        pytest.param("sqlite_url aiosqlite", id="sqlite"),
    ]
)
def database(request: pytest.FixtureRequest) -> URL:
    """Each database, by each of its drivers."""
    fixture, driver = request.param.split()
    url = make_url(request.getfixturevalue(fixture))
    return url.set(drivername=f"{url.get_backend_name()}+{driver}")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path}/tokens.db"


@asynccontextmanager
async def connected(url: URL | str, **options: Any) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(url, **options)
    try:
        yield engine
    finally:
        await engine.dispose()


async def execute(engine: AsyncEngine, *statements: str) -> None:
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


@ASYNCIO
@pytest.mark.anyio
async def test_a_sql_store_keeps_the_contract_between_engines_of_two_processes(
    database: URL, table: str
) -> None:
    async with connected(database) as one, connected(database) as two:
        await SQLStore(one, "key", table=table).create_table()
        engines = iter([one, two] * 3)
        await check_store(lambda: SQLStore(next(engines), "key", table=table))


@ONE_LOOP
@pytest.mark.anyio
async def test_on_sqlite_in_memory_one_of_many_swaps_wins() -> None:
    """SQLite in memory has one connection for all tasks."""
    async with connected("sqlite+aiosqlite://") as engine:
        await SQLStore(engine, "key").create_table()
        await check_race(lambda: SQLStore(engine, "key"))


@ONE_LOOP
@pytest.mark.anyio
async def test_encrypted_one_of_many_swaps_wins(sqlite_url: str) -> None:
    async with connected(sqlite_url) as engine:
        await SQLStore(engine, "key").create_table()
        await check_race(lambda: EncryptedStore(SQLStore(engine, "key"), [bytes(range(32))]))


@ONE_LOOP
@pytest.mark.anyio
@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_at_stricter_isolation_of_postgresql_one_of_many_swaps_wins(
    postgres_url: str, table: str, level: str
) -> None:
    """A statement that was rolled back in favour of another one is not a lost swap, and is tried again."""
    settings = {"server_settings": {"default_transaction_isolation": level}}
    async with connected(postgres_url, connect_args=settings) as engine:
        await SQLStore(engine, "key", table=table).create_table()
        await check_race(lambda: SQLStore(engine, "key", table=table))


@ONE_LOOP
@pytest.mark.anyio
@pytest.mark.parametrize("level", ["READ COMMITTED", "SERIALIZABLE"])
async def test_at_another_isolation_of_mariadb_one_of_many_swaps_wins(
    mariadb_url: str, table: str, level: str
) -> None:
    settings = {"init_command": f"SET SESSION TRANSACTION ISOLATION LEVEL {level}"}
    async with connected(mariadb_url, connect_args=settings) as engine:
        await SQLStore(engine, "key", table=table).create_table()
        await check_race(lambda: SQLStore(engine, "key", table=table))


@ONE_LOOP
@pytest.mark.anyio
async def test_the_isolation_of_the_callers_engine_is_nobodys_hindrance(
    database: URL, table: str
) -> None:
    async with connected(database, isolation_level="SERIALIZABLE") as engine:
        await SQLStore(engine, "key", table=table).create_table()
        await check_race(lambda: SQLStore(engine, "key", table=table))
        async with engine.connect() as connection:
            assert await connection.get_isolation_level() == "SERIALIZABLE"


@ONE_LOOP
@pytest.mark.anyio
async def test_keys_that_look_alike_are_different_rows(database: URL, table: str) -> None:
    keys = ["key", "KEY", "key ", "caf\u00e9", "cafe\u0301", "é" * 127, "é" * 127 + "x"]
    async with connected(database) as engine:
        await SQLStore(engine, "key", table=table).create_table()
        for key in keys:
            assert await SQLStore(engine, key, table=table).replace(None, f"text of {key}")
        for key in keys:
            assert await SQLStore(engine, key, table=table).load() == f"text of {key}"


@ONE_LOOP
@pytest.mark.anyio
async def test_a_text_of_a_mebibyte_fits(database: URL, table: str) -> None:
    async with connected(database) as engine:
        store = SQLStore(engine, "key", table=table)
        await store.create_table()
        long = "x" * 1_048_575
        assert await store.replace(None, long + "a")
        assert await store.replace(long + "a", long + "b")
        assert not await store.replace(long + "a", "lost")
        assert await store.load() == long + "b"


@ONE_LOOP
@pytest.mark.anyio
async def test_many_may_create_the_table_at_once_and_again(database: URL, table: str) -> None:
    async with connected(database) as one, connected(database) as two:
        stores = [SQLStore(engine, "key", table=table) for engine in [one, two] * 5]
        await asyncio.gather(*(store.create_table() for store in stores))
        assert await stores[0].replace(None, "kept")
        await stores[1].create_table()
        assert await stores[1].load() == "kept"


@ONE_LOOP
@pytest.mark.anyio
async def test_a_table_created_between_the_look_and_the_statement_is_no_error(
    sqlite_url: str,
) -> None:
    async with connected(sqlite_url) as engine:
        store = SQLStore(engine, "key")
        raced: list[str] = []

        @event.listens_for(engine.sync_engine, "before_cursor_execute")
        def race(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            if "CREATE TABLE" in statement:
                raced.append(statement)
                other = create_engine(sqlite_url.replace("+aiosqlite", ""))
                token_table(metadata=(metadata := MetaData()))
                metadata.create_all(other)
                other.dispose()

        await store.create_table()
        assert len(raced) == 1
        assert await store.replace(None, "x")


@ONE_LOOP
@pytest.mark.anyio
async def test_a_table_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "readonly.db"
    path.touch()
    url = f"sqlite+aiosqlite:///file:{path}?mode=ro&uri=true"
    async with connected(url) as engine:
        with pytest.raises(OperationalError, match="readonly"):
            await SQLStore(engine, "key").create_table()


@ONE_LOOP
@pytest.mark.anyio
async def test_the_table_may_be_one_of_the_applications_own_metadata(database: URL) -> None:
    metadata = MetaData()
    token_table("app_tokens", metadata)
    async with connected(database) as engine:
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
        store = SQLStore(engine, "key", table="app_tokens")
        assert await store.load() is None
        assert await store.replace(None, "x")
        async with engine.begin() as connection:
            await connection.run_sync(metadata.drop_all)
        assert list(store.metadata.tables) == ["app_tokens"]


@ONE_LOOP
@pytest.mark.anyio
async def test_a_missing_table_is_the_databases_own_error_without_the_text(
    database: URL, table: str
) -> None:
    async with connected(database) as engine:
        store = SQLStore(engine, "key", table=table)
        with pytest.raises((ProgrammingError, OperationalError), match=table):
            await store.load()
        for old in (None, "sesame-old"):
            with pytest.raises((ProgrammingError, OperationalError), match=table) as caught:
                await store.replace(old, SECRET)
            assert "sesame" not in everything_said(caught.value)


@ONE_LOOP
@pytest.mark.anyio
async def test_a_row_that_another_constraint_refuses_is_an_error_without_the_text(
    database: URL, table: str
) -> None:
    """A duplicate key is a lost swap; PostgreSQL quotes the failing row for any other."""
    binary = "BYTEA" if database.get_backend_name() == "postgresql" else "VARBINARY(200)"
    async with connected(database) as engine:
        await execute(
            engine,
            f"CREATE TABLE {table} (slot {binary} PRIMARY KEY, text {binary} NOT NULL, "
            "tenant INTEGER NOT NULL)",
        )
        store = SQLStore(engine, "key", table=table)
        with pytest.raises(DBAPIError) as caught:
            await store.replace(None, SECRET)
        said = everything_said(caught.value)
        assert "sesame" not in said
        assert SECRET.encode().hex()[:20] not in said.lower()
        assert await store.load() is None


@ONE_LOOP
@pytest.mark.anyio
async def test_an_update_that_a_check_refuses_is_an_error_without_the_text(
    database: URL, table: str
) -> None:
    async with connected(database) as engine:
        store = SQLStore(engine, "key", table=table)
        binary = "BYTEA" if database.get_backend_name() == "postgresql" else "VARBINARY(200)"
        await execute(
            engine,
            f"CREATE TABLE {table} (slot {binary} PRIMARY KEY, text {binary} NOT NULL, "
            "CHECK (length(text) < 20))",
        )
        assert await store.replace(None, "sesame-old")
        with pytest.raises(DBAPIError) as caught:
            await store.replace("sesame-old", SECRET)
        said = everything_said(caught.value)
        assert "sesame" not in said
        assert SECRET.encode().hex()[:20] not in said.lower()
        assert await store.load() == "sesame-old"


def _only_reads(connection: Any, _: object) -> None:
    connection.cursor().execute("PRAGMA query_only = 1")


@ONE_LOOP
@pytest.mark.anyio
async def test_a_database_that_takes_no_writes_is_an_error_that_says_why(
    database: URL, table: str
) -> None:
    """A standby after a failover, a table that an operator locked, a file that is read-only."""
    endpoint = Endpoint()
    only_reads: dict[str, Any] = {
        "asyncpg": {"server_settings": {"default_transaction_read_only": "on"}},
        "psycopg": {"options": "-c default_transaction_read_only=on"},
        "aiomysql": {"init_command": "SET SESSION TRANSACTION READ ONLY"},
        "aiosqlite": {},
    }
    async with connected(database) as engine:
        store = SQLStore(engine, "key", table=table)
        await store.create_table()
        assert await store.replace(None, endpoint.text(expires_in=-1))
    driver = database.get_driver_name()
    async with connected(database, connect_args=only_reads[driver]) as engine:
        if driver == "aiosqlite":
            event.listen(engine.sync_engine, "connect", _only_reads)
        with pytest.raises(StoreError) as caught:
            await RefreshAuth(endpoint, SQLStore(engine, "key", table=table)).token()
    reasons = {
        "asyncpg": ": ReadOnlySQLTransactionError 25006",
        "psycopg": ": ReadOnlySqlTransaction 25006",
        "aiomysql": ": 25006 1792",
        # The sqlite3 module tells its error codes from Python 3.11 on.
        "aiosqlite": ": SQLITE_READONLY" if sys.version_info >= (3, 11) else "",
    }
    assert re.search(rf"could not be written \(\w+{reasons[driver]}\)", str(caught.value))
    assert endpoint.asked == []


@ONE_LOOP
@pytest.mark.anyio
async def test_an_engine_that_logs_its_statements_logs_no_text(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "sqlalchemy")
    async with connected(sqlite_url) as engine:
        store = SQLStore(engine, "key")
        await store.create_table()
        assert await store.replace(None, "sesame-one")
        assert await store.replace("sesame-one", "sesame-two")
        async with engine.connect() as connection:
            await connection.execute(text("SELECT :mine"), {"mine": "parameter of the caller"})
    assert "UPDATE" in caplog.text
    assert "sesame" not in caplog.text
    assert "parameter of the caller" in caplog.text


@ONE_LOOP
@pytest.mark.anyio
async def test_bytes_that_are_no_text_are_an_error_that_shows_none_of_them(
    sqlite_url: str,
) -> None:
    async with connected(sqlite_url) as engine:
        store = SQLStore(engine, "key")
        await store.create_table()
        await execute(
            engine, "INSERT INTO httpx_refresh VALUES (x'6b6579', CAST('sesame' AS BLOB) || x'ff')"
        )
        await execute(engine, "UPDATE httpx_refresh SET text = CAST(text AS BLOB)")
        with pytest.raises(ValueError, match="the SQL row 'key' does not hold UTF-8") as caught:
            await store.load()
        assert "sesame" not in everything_said(caught.value)


GIVE_WAY = {
    "postgresql": (
        "CREATE SEQUENCE {table}_tries",
        "CREATE FUNCTION {table}_f() RETURNS trigger AS $$ BEGIN "
        "IF nextval('{table}_tries') <= {times} THEN "
        "RAISE EXCEPTION 'could not serialize access' USING ERRCODE = '40001'; END IF; "
        "RETURN NEW; END $$ LANGUAGE plpgsql",
        "CREATE TRIGGER {table}_t BEFORE UPDATE ON {table} FOR EACH ROW "
        "EXECUTE FUNCTION {table}_f()",
    ),
    "mariadb": (
        "CREATE SEQUENCE {table}_tries",
        "CREATE TRIGGER {table}_t BEFORE UPDATE ON {table} FOR EACH ROW "
        "IF NEXTVAL({table}_tries) <= {times} THEN SIGNAL SQLSTATE '40001' "
        "SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'Deadlock found'; END IF",
    ),
}


@asynccontextmanager
async def giving_way(database: URL, table: str, times: int) -> AsyncIterator[SQLStore]:
    """A store whose updates fail this many times, as with deadlocks."""
    async with connected(database) as engine:
        store = SQLStore(engine, "key", table=table)
        await store.create_table()
        assert await store.replace(None, "old")
        for statement in GIVE_WAY[database.get_backend_name()]:
            async with engine.begin() as connection:
                await connection.exec_driver_sql(statement.format(table=table, times=times))
        yield store


SERVERS = pytest.mark.parametrize(
    "database",
    ["postgres_url asyncpg", "postgres_url psycopg", "mariadb_url aiomysql"],
    indirect=True,
)


@ONE_LOOP
@pytest.mark.anyio
@SERVERS
async def test_an_update_that_gave_way_is_tried_again(database: URL, table: str) -> None:
    async with giving_way(database, table, times=3) as store:
        assert await store.replace("old", "new")
        assert await store.load() == "new"


@ONE_LOOP
@pytest.mark.anyio
@SERVERS
async def test_an_update_that_gives_way_ten_times_is_an_error(database: URL, table: str) -> None:
    async with giving_way(database, table, times=10) as store:
        with pytest.raises(DBAPIError, match=r"serialize|Deadlock"):
            await store.replace("old", "new")
        assert await store.load() == "old"
        assert await store.replace("old", "new")


class _Deadlock(Exception):
    sqlstate = "40P01"


@ONE_LOOP
@pytest.mark.anyio
@pytest.mark.parametrize(
    "error, tries",
    [
        (OperationalError("UPDATE", None, _Deadlock()), 10),
        (IntegrityError("UPDATE", None, Exception("a check failed")), 1),
    ],
)
async def test_a_deadlock_is_tried_again_and_a_constraint_is_not(
    sqlite_url: str, error: DBAPIError, tries: int
) -> None:
    tried: list[str] = []

    def fail(_: object, __: object, statement: str, *___: object) -> None:
        if statement.startswith("UPDATE"):
            tried.append(statement)
            raise error

    async with connected(sqlite_url) as engine:
        store = SQLStore(engine, "key")
        await store.create_table()
        assert await store.replace(None, "old")
        event.listen(engine.sync_engine, "before_cursor_execute", fail)
        with pytest.raises(type(error)):
            await store.replace("old", "new")
        assert len(tried) == tries
        assert await store.load() == "old"


@ONE_LOOP
@pytest.mark.anyio
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_cancelled_call_gives_its_connection_back(
    postgres_url: str, table: str, driver: str
) -> None:
    url = make_url(postgres_url).set(drivername=f"postgresql+{driver}")
    async with connected(url) as other, connected(url, pool_size=1, max_overflow=0) as engine:
        store = SQLStore(engine, "key", table=table)
        await store.create_table()
        assert await store.replace(None, "old")
        async with other.begin() as connection:
            await connection.execute(token_table(table).select().with_for_update())
            swap = asyncio.ensure_future(store.replace("old", "new"))
            waiting = 0
            with anyio.fail_after(60):
                while not waiting:
                    waiting = await connection.scalar(
                        text("SELECT count(*) FROM pg_locks WHERE NOT granted")
                    )
            swap.cancel()
            with pytest.raises(asyncio.CancelledError):
                await swap
            assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # QueuePool's, which this one is
        assert await store.load() == "old"


@ONE_LOOP
@pytest.mark.anyio
async def test_no_connection_is_held_between_calls(database: URL, table: str) -> None:
    async with connected(database, pool_size=1, max_overflow=0) as engine:
        store = SQLStore(engine, "key", table=table)
        await store.create_table()
        await store.replace(None, "x")
        await store.load()
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # QueuePool's, which this one is
        await check_race(lambda: SQLStore(engine, "other", table=table))


@ONE_LOOP
@pytest.mark.anyio
async def test_a_store_is_small_and_does_not_keep_its_engine_alive(sqlite_url: str) -> None:
    async with connected(sqlite_url) as engine:
        SQLStore(engine, "first")
        tracemalloc.start()
        stores = [SQLStore(engine, "key") for _ in range(1_000)]
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert size / len(stores) < 300
    gone = weakref.ref(engine)
    del engine
    gc.collect()
    assert gone() is None


@pytest.fixture
def offline() -> SQLStore:
    """A store whose engine never connects."""
    return SQLStore(create_async_engine("sqlite+aiosqlite://"), "xero")


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
async def test_under_trio_it_says_that_it_serves_asyncio_only(offline: SQLStore) -> None:
    for call in (offline.load, offline.create_table, lambda: offline.replace(None, "x")):
        with pytest.raises(RuntimeError, match="SQLStore serves asyncio only"):
            await call()


def test_the_repr_names_the_key_and_a_table_of_ones_own(offline: SQLStore) -> None:
    assert repr(offline) == "SQLStore('xero')"
    engine = create_async_engine("sqlite+aiosqlite://")
    assert repr(SQLStore(engine, "xero", table="mine")) == "SQLStore('xero', table='mine')"


def test_the_slot_is_the_table_and_the_row_and_was_the_row() -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    assert SQLStore(engine, "xero").slot == "sql:httpx_refresh:xero"
    assert SQLStore(engine, "xero").earlier_slots == ("xero",)
    slots = {SQLStore(engine, key, table=table).slot for key, table in [("a:b", "c"), ("b", "c:a")]}
    assert len(slots) == 2


def test_what_is_no_async_engine_is_refused_at_construction() -> None:
    engine: Any = create_engine("sqlite://")
    with pytest.raises(TypeError, match="must be an AsyncEngine"):
        SQLStore(engine, "key")


@pytest.mark.parametrize("key", ["", "x" * 256, "é" * 128])
def test_a_key_that_does_not_fit_is_refused_at_construction(key: str) -> None:
    with pytest.raises(ValueError, match="1 to 255 bytes"):
        SQLStore(create_async_engine("sqlite+aiosqlite://"), key)


def test_an_empty_table_name_is_refused_at_construction() -> None:
    with pytest.raises(ValueError, match="table is empty"):
        SQLStore(create_async_engine("sqlite+aiosqlite://"), "key", table="")


class PostgresError(Exception):
    sqlstate = "23514"


class MariaDBError(Exception):
    sqlstate = "HY000"


def as_sqlalchemy_raises(error: Exception) -> IntegrityError:
    return IntegrityError("INSERT", {"new": SECRET}, error)


@pytest.mark.parametrize(
    "quote", [SECRET[:30], SECRET.encode().hex()[:16], SECRET.encode().hex()[:16].upper()]
)
def test_an_error_that_quotes_the_text_is_replaced_by_its_codes(quote: str) -> None:
    error = as_sqlalchemy_raises(MariaDBError(4025, f"Failing row contains ({quote}, null)."))
    clean = _without_texts(error, [b"another", SECRET.encode()])
    assert isinstance(clean, IntegrityError)
    assert quote not in everything_said(clean)
    assert "MariaDBError HY000 4025; its message quotes the text" in str(clean)


def test_an_error_that_quotes_nothing_keeps_its_words_and_loses_its_parameters() -> None:
    error = as_sqlalchemy_raises(PostgresError("duplicate key"))
    assert _without_texts(error, [SECRET.encode()]) is error
    assert "duplicate key" in str(error)
    assert SECRET not in everything_said(error)


def test_a_conflict_is_known_by_any_of_its_codes() -> None:
    """MariaDB's ER_CHECKREAD has no SQLSTATE of its own."""
    assert _is_conflict(as_sqlalchemy_raises(MariaDBError(1020, "Record has changed")))
    assert not _is_conflict(as_sqlalchemy_raises(MariaDBError(1205, "Lock wait timeout")))
    assert not _is_conflict(as_sqlalchemy_raises(PostgresError("check")))


def test_a_message_that_is_too_long_to_be_searched_is_withheld() -> None:
    error = as_sqlalchemy_raises(MariaDBError(4025, "x" * 20_000))
    clean = _without_texts(error, [SECRET.encode()])
    assert clean is not error
    assert "x" * 100 not in everything_said(clean)


def test_an_error_without_a_driver_s_error_is_kept() -> None:
    """As an event listener of the application's may raise it."""
    error = as_sqlalchemy_raises(PostgresError("no"))
    error.orig = None
    assert _without_texts(error, [SECRET.encode()]) is error
