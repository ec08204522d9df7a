"""A store in a row of a SQL table, shared by all hosts."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

try:
    from sqlalchemy import inspect
    from sqlalchemy.exc import DBAPIError, IntegrityError
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import StaticPool

    from ._sql_table import SLOT_LIMIT, statements, token_table
except ImportError:
    raise ImportError("SQLStore needs SQLAlchemy: pip install 'httpx-refresh[sql]'") from None

from ._sql_errors import is_conflict, without_texts
from .base import decode_text, encode_text, require_asyncio

if TYPE_CHECKING:
    from sqlalchemy import CursorResult, Executable, MetaData, Table
    from sqlalchemy.engine import Connection

__all__ = ["SQLStore", "token_table"]

_ATTEMPTS = 10


class _Backend:
    """What all stores on one engine share."""

    def __init__(self, engine: AsyncEngine) -> None:
        # Each statement is a transaction of its own: nothing to hold, nothing to roll back. It
        # shares the caller's pool and events.
        self.engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        # Ours only: the caller's engine may go on logging its own parameters.
        self.engine.sync_engine.hide_parameters = True
        # One connection for everybody, as SQLite in memory has it, would mix the statements of
        # two tasks in one transaction.
        self._alone: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] | None = (
            WeakKeyDictionary() if isinstance(engine.pool, StaticPool) else None
        )

    async def run(self, statement: Executable, values: dict[str, Any]) -> tuple[int, Any]:
        """Execute one statement; return the number of rows it met, and the first column."""
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
                # Another process has created it between the look and the statement; PostgreSQL
                # then reports a duplicate in a catalogue, others that it exists.
                if not await connection.run_sync(_exists, table.name):
                    raise


def _exists(connection: Connection, name: str) -> bool:
    return inspect(connection).has_table(name)


_backends: WeakKeyDictionary[AsyncEngine, _Backend] = WeakKeyDictionary()


class SQLStore:
    """Keeps the text in one row of a SQL table, for all hosts that share the database.

    Tested with PostgreSQL (asyncpg, psycopg), MariaDB (aiomysql) and SQLite (aiosqlite); any
    database with an async SQLAlchemy driver and binary columns should do. The swap is one `INSERT`
    or one `UPDATE ... WHERE slot = ... AND text = ...`, each committed by itself; no connection
    and no transaction is held between calls, and a cancelled call gives its connection back. What
    the database has acknowledged is as durable as its own settings make it.

    Many stores share one engine: a store itself is a few hundred bytes.

    asyncio only. Raises RuntimeError under another event loop, and SQLAlchemy's own errors: their
    parameters are hidden, also from the engine's log, and a driver's message that quotes the text
    is replaced by its error code.

    Args:
        engine: an `AsyncEngine` of the caller's, never disposed of here. Its connections belong
            to one event loop.
        key: the row's name, at most 255 bytes of UTF-8.
        table: the table's name; `create_table` makes it, or a migration with `token_table`.
    """

    __slots__ = ("__weakref__", "_backend", "_key", "_statements")

    def __init__(self, engine: AsyncEngine, key: str, *, table: str = "httpx_refresh") -> None:
        if not isinstance(engine, AsyncEngine):
            raise TypeError(
                "engine is to be an AsyncEngine, as sqlalchemy.ext.asyncio.create_async_engine "
                f"makes it, not {type(engine).__name__}"
            )
        if not 0 < len(encode_text(key)) <= SLOT_LIMIT:
            raise ValueError(f"key is to be 1 to {SLOT_LIMIT} bytes of UTF-8")
        if not table:
            raise ValueError("table is empty")
        backend = _backends.get(engine)
        if backend is None:
            backend = _backends.setdefault(engine, _Backend(engine))
        self._backend = backend
        self._key = key
        self._statements = statements(table)

    @property
    def slot(self) -> str:
        """The row's name."""
        return self._key

    @property
    def metadata(self) -> MetaData:
        """The SQLAlchemy metadata that holds this store's table, and nothing else."""
        return self._statements.table.metadata

    async def create_table(self) -> None:
        """Create the table if it does not exist; any number of processes may do so at once."""
        require_asyncio("SQLStore")
        await self._backend.create(self._statements.table)

    async def load(self) -> str | None:
        """Return the row's text, or None if there is no row."""
        require_asyncio("SQLStore")
        data = await self._load()
        return None if data is None else decode_text(data, f"the SQL row {self._key!r}")

    async def replace(self, old: str | None, new: str) -> bool:
        """Write `new` if the row still holds exactly `old` (None: no row); else return False."""
        require_asyncio("SQLStore")
        data = encode_text(new)
        expected = None if old is None else encode_text(old)
        if data == expected:
            # Nothing would change, and MariaDB may count the rows that did.
            return await self._load() == expected
        for _ in range(_ATTEMPTS - 1):
            try:
                return await self._swap(expected, data)
            except DBAPIError as error:
                # A duplicate key is a lost race, unless the row is not there: then it is another
                # constraint. A deadlock or a serialization failure says nothing about the text.
                if not isinstance(error, IntegrityError) and not is_conflict(error):
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
            clean = without_texts(error, texts.values())
            if clean is error:
                raise
        # Outside the handler: the driver's error must not travel as __context__.
        raise clean

    def __repr__(self) -> str:
        table = self._statements.table.name
        if table == "httpx_refresh":
            return f"SQLStore({self._key!r})"
        return f"SQLStore({self._key!r}, table={table!r})"
