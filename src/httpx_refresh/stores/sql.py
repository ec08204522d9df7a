"""A store in a row of a SQL table, shared by all hosts: its table, its statements, and the databases' answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import quote
from weakref import WeakKeyDictionary

try:
    from sqlalchemy import (
        Column,
        LargeBinary,
        MetaData,
        String,
        Table,
        TypeDecorator,
        bindparam,
        func,
        insert,
        inspect,
        select,
    )
    from sqlalchemy import update as update_rows
    from sqlalchemy.dialects import mysql
    from sqlalchemy.exc import DBAPIError, IntegrityError
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import NullPool, StaticPool
except ImportError:
    raise ImportError("SQLStore needs SQLAlchemy: pip install 'httpx-refresh[sql]'") from None

from .._errors import frameless
from .base import (
    decode_text,
    encode_text,
    quotes,
    require_asyncio,
    say_reason,
)

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, CursorResult, Dialect, Executable
    from sqlalchemy.engine import Connection

__all__ = ["SQLStore", "token_table"]

_SLOT_LIMIT = 255  # bytes
_ATTEMPTS = 10
# PostgreSQL documentation, appendix A "PostgreSQL Error Codes": serialization_failure,
# deadlock_detected. MariaDB documentation, "MariaDB Error Code Reference": ER_CHECKREAD,
# ER_LOCK_DEADLOCK.
_CONFLICTS = frozenset({"40001", "40P01", "1020", "1213"})


class SQLStore:
    """Keeps the text in one row of a SQL table, for all hosts that share the database.

    Tested with PostgreSQL (asyncpg, psycopg), MariaDB (aiomysql) and SQLite (aiosqlite); any
    database with an async SQLAlchemy driver and binary columns should work. The swap is one `INSERT`
    or one `UPDATE ... WHERE slot = ... AND text = ...`, each committed by itself; no connection
    and no transaction is held between calls, and a cancelled call returns its connection. An
    acknowledged write is as durable as the database's settings make it.

    Many stores can share one engine; a store itself takes a few hundred bytes.

    asyncio only. The methods raise RuntimeError under another event loop, and SQLAlchemy's own errors.
    Their parameters are hidden, also from the engine's log, and a driver's message that quotes the
    text is replaced by its error code. They come without frames and chain, which would hold the text.

    Args:
        engine: the caller's `AsyncEngine`. The store never disposes of it. Its connections belong to
            one event loop.
        key: the row's name, at most 255 bytes of UTF-8.
        table: the table's name; `create_table` makes it, or a migration with `token_table`.
    """

    __slots__ = ("__weakref__", "_backend", "_key", "_statements")

    @frameless
    def __init__(self, engine: AsyncEngine, key: str, *, table: str = "httpx_refresh") -> None:
        if not isinstance(engine, AsyncEngine):
            raise TypeError(
                "engine must be an AsyncEngine, as sqlalchemy.ext.asyncio.create_async_engine "
                f"makes it, not {type(engine).__name__}"
            )
        if not 0 < len(encode_text(key)) <= _SLOT_LIMIT:
            raise ValueError(f"key must be 1 to {_SLOT_LIMIT} bytes of UTF-8")
        if not table:
            raise ValueError("table is empty")
        backend = _backends.get(engine)
        if backend is None:
            backend = _backends.setdefault(engine, _Backend(engine))
        self._backend = backend
        self._key = key
        self._statements = _statements_of(table)

    @property
    def slot(self) -> str:
        """The name that `EncryptedStore` binds texts to: the kind of store, the table and the row."""
        table = self._statements.table.name
        return f"sql:{quote(table, safe='')}:{quote(self._key, safe='')}"

    @property
    def earlier_slots(self) -> tuple[str, ...]:
        """The slot's name in version 0.1: the row's name."""
        return (self._key,)

    @property
    def one_loop(self) -> str | None:
        """How to make a store that serves every event loop; None if this store does because its engine has no pool."""
        if isinstance(self._backend.engine.pool, NullPool):
            return None
        return "SQLStore(create_async_engine(url, poolclass=sqlalchemy.NullPool), key), or open_store(url)"

    @property
    def metadata(self) -> MetaData:
        """The SQLAlchemy metadata that holds only this store's table."""
        return self._statements.table.metadata

    @frameless
    async def create_table(self) -> None:
        """Create the table if it does not exist; any number of processes may do so at once."""
        require_asyncio("SQLStore")
        await self._backend.create(self._statements.table)

    @frameless
    async def load(self) -> str | None:
        """Return the row's text, or None if there is no row."""
        require_asyncio("SQLStore")
        data = await self._load()
        return None if data is None else decode_text(data, f"the SQL row {self._key!r}")

    @frameless
    async def replace(self, old: str | None, new: str) -> bool:
        """Write `new` if the row still holds exactly `old` (None: no row); else return False."""
        require_asyncio("SQLStore")
        data = encode_text(new)
        expected = None if old is None else encode_text(old)
        if data == expected:
            # The statement runs, because it shows whether the row can be written. But MariaDB may count
            # changed rows only, and here no row changes.
            return await self._swap(expected, data) or await self._load() == expected
        for _ in range(_ATTEMPTS - 1):
            try:
                return await self._swap(expected, data)
            except DBAPIError as error:
                # A duplicate key means a lost race, unless the row does not exist: then another constraint
                # failed. A deadlock or a serialization failure says nothing about the text.
                if not isinstance(error, IntegrityError) and not _is_conflict(error):
                    raise
                if await self._load() != expected:
                    return False
                if isinstance(error, IntegrityError):
                    raise
        return await self._swap(expected, data)

    async def _load(self) -> bytes | None:
        return cast("bytes | None", (await self._run(self._statements.load))[1])

    async def _swap(self, old: bytes | None, new: bytes) -> bool:
        if old is None:
            await self._run(self._statements.create, new=new)  # or a duplicate key
            return True
        rows, _ = await self._run(self._statements.update, old=old, new=new)
        return rows == 1

    async def _run(self, statement: Executable, **texts: bytes) -> tuple[int, Any]:
        try:
            return await self._backend.run(statement, {"here": self._key.encode(), **texts})
        except DBAPIError as error:
            reason = _reason_of(error)
            clean = _without_texts(error, texts.values())
            say_reason(clean, reason)
            if clean is error:
                raise
        # Raised outside the handler: the driver's error must not become the __context__.
        raise clean

    def __repr__(self) -> str:
        table = self._statements.table.name
        if table == "httpx_refresh":
            return f"SQLStore({self._key!r})"
        return f"SQLStore({self._key!r}, table={table!r})"


def token_table(name: str = "httpx_refresh", metadata: MetaData | None = None) -> Table:
    """Return the table that `SQLStore` keeps its rows in, as a SQLAlchemy `Table`.

    For Alembic and for `metadata.create_all`, register it in the application's own `metadata`. Both
    columns are binary, so that every database compares them byte for byte: by their default
    collations, text columns of MariaDB and MySQL treat `A` as `a` and `"x "` as `"x"` (MariaDB
    documentation, "Character Sets and Collations", "NO PAD Collations").

    Args:
        name: the table's name.
        metadata: where the table is registered; a new one by default.
    """
    key = LargeBinary(_SLOT_LIMIT).with_variant(mysql.VARBINARY(_SLOT_LIMIT), "mysql", "mariadb")
    text = LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")
    return Table(
        name,
        MetaData() if metadata is None else metadata,
        Column("slot", key, primary_key=True),
        Column("text", text, nullable=False),
    )


class _Hex(TypeDecorator[bytes]):
    """Bytes that travel as hexadecimal digits.

    aiomysql 0.3.2 cannot send bytes with PyMySQL 1.2, which has removed a function that it imports.
    """

    impl = String
    cache_ok = True

    def process_bind_param(self, value: bytes | None, dialect: Dialect) -> str | None:
        return None if value is None else value.hex()

    def bind_expression(self, bindparam: ColumnElement[bytes]) -> ColumnElement[bytes]:
        return func.unhex(bindparam)


class _Statements(NamedTuple):
    """The statements of a store; their parameters are `old` and `new`."""

    table: Table
    load: Executable
    create: Executable
    update: Executable


@lru_cache(maxsize=64)
def _statements_of(table_name: str) -> _Statements:
    """Return the table and its statements, which all stores of that table name share."""
    table = token_table(table_name)
    binary = LargeBinary().with_variant(_Hex(), "mysql", "mariadb")
    here, old, new = (bindparam(name, type_=binary) for name in ("here", "old", "new"))
    return _Statements(
        table,
        select(table.c.text).where(table.c.slot == here),
        insert(table).values(slot=here, text=new),
        update_rows(table).where(table.c.slot == here, table.c.text == old).values(text=new),
    )


class _Backend:
    """The part that all stores on one engine share."""

    def __init__(self, engine: AsyncEngine) -> None:
        # Each statement is a transaction of its own, so there is none to hold or to roll back. It uses
        # the caller's pool and events.
        self.engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        # For this option's statements only: the caller's engine may log its own parameters.
        self.engine.sync_engine.hide_parameters = True
        # SQLite in memory has one connection for all tasks, which would mix the statements of two
        # tasks in one transaction.
        self._alone: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] | None = (
            WeakKeyDictionary() if isinstance(engine.pool, StaticPool) else None
        )

    async def run(self, statement: Executable, values: dict[str, Any]) -> tuple[int, Any]:
        """Execute one statement; return the number of matched rows, and the first column."""
        async with AsyncExitStack() as stack:
            if self._alone is not None:
                loop = asyncio.get_running_loop()
                await stack.enter_async_context(self._alone.setdefault(loop, asyncio.Lock()))
            connection = await stack.enter_async_context(self.engine.connect())
            result: CursorResult[Any] = await connection.execute(statement, values)
            return result.rowcount, result.scalar_one_or_none() if result.returns_rows else None

    async def create(self, table: Table) -> None:
        async with self.engine.connect() as connection:
            try:
                await connection.run_sync(table.metadata.create_all)
            except DBAPIError:
                # Another process created the table between the check and the statement. PostgreSQL
                # then reports a duplicate in a catalogue; other databases report that it exists.
                if not await connection.run_sync(_exists, table.name):
                    raise


def _exists(connection: Connection, name: str) -> bool:
    return inspect(connection).has_table(name)


_backends: WeakKeyDictionary[AsyncEngine, _Backend] = WeakKeyDictionary()


def _codes(error: DBAPIError) -> list[str]:
    """Return the database's own error codes: SQLSTATE, SQLite's name, MariaDB's number."""
    names = [getattr(error.orig, name, None) for name in ("sqlstate", "sqlite_errorname")]
    numbers = [number for number in getattr(error.orig, "args", ()) if isinstance(number, int)]
    return [str(code) for code in (*names, *numbers) if code is not None]


def _is_conflict(error: DBAPIError) -> bool:
    """Whether the statement was rolled back in favour of another one, and may be tried again."""
    return not _CONFLICTS.isdisjoint(_codes(error))


def _reason_of(error: DBAPIError) -> str:
    """Name the driver's own error, where that is another name, and the database's codes."""
    named: BaseException = error
    while (cause := named.__cause__) is not None:
        named = cause  # SQLAlchemy's asyncpg has one type for all errors, and keeps the driver's.
    name = type(named).__name__
    return " ".join([*([] if name == type(error).__name__ else [name]), *_codes(error)])


class _Withheld(Exception):
    """A driver's error without its message."""


def _without_texts(error: DBAPIError, texts: Iterable[bytes]) -> DBAPIError:
    """Return this error without its parameters, or another error if a message quotes a piece of `texts`.

    Drivers and servers quote values: "Failing row contains (...)", "near '...'", "invalid input
    for query argument $1". The returned error then names the code only. Neither error leads to the
    driver's error or to its frames.
    """
    error.params = None
    said: list[str] = []
    link: BaseException | None = error
    while link is not None:
        said += [str(link), repr(link)]
        said += [str(value) for value in vars(link).values() if isinstance(value, (str, bytes))]
        link = link.__cause__ or link.__context__
    forms = [form for text in texts for form in (text.decode(), text.hex(), text.hex().upper())]
    if not any(quotes(words.replace("httpx_refresh", ""), forms) for words in said):
        if error.orig is not None:
            error.orig.__traceback__ = error.orig.__cause__ = error.orig.__context__ = None
        return error
    words = " ".join([type(error.orig).__name__, *_codes(error)])
    return type(error)(
        error.statement,
        None,
        _Withheld(f"{words}; its message quotes the text and is withheld"),
        connection_invalidated=error.connection_invalidated,
    )
