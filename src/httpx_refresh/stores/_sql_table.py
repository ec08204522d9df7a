"""The table of the SQL store, and what is said about it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

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
    select,
)
from sqlalchemy import update as update_rows
from sqlalchemy.dialects import mysql

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Dialect, Executable

__all__ = ["SLOT_LIMIT", "Statements", "statements", "token_table"]

SLOT_LIMIT = 255  # bytes


def token_table(name: str = "httpx_refresh", metadata: MetaData | None = None) -> Table:
    """Return the table that `SQLStore` keeps its rows in, as a SQLAlchemy `Table`.

    For Alembic and for `metadata.create_all`: put it in the application's own `metadata`. Both
    columns are binary, so that every database compares them byte for byte: text columns of
    MariaDB and MySQL take `A` for `a` and `"x "` for `"x"` in their default collations (MariaDB
    documentation, "Character Sets and Collations", "NO PAD Collations").

    Args:
        name: the table's name.
        metadata: where the table is registered; one of its own by default.
    """
    key = LargeBinary(SLOT_LIMIT).with_variant(mysql.VARBINARY(SLOT_LIMIT), "mysql", "mariadb")
    text = LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")
    return Table(
        name,
        MetaData() if metadata is None else metadata,
        Column("slot", key, primary_key=True),
        Column("text", text, nullable=False),
    )


class _Hex(TypeDecorator[bytes]):
    """Bytes that travel as hexadecimal digits.

    aiomysql 0.3.2 cannot send bytes with PyMySQL 1.2: it imports a function that is none any more.
    """

    impl = String
    cache_ok = True

    def process_bind_param(self, value: bytes | None, dialect: Dialect) -> str | None:
        return None if value is None else value.hex()

    def bind_expression(self, bindparam: ColumnElement[bytes]) -> ColumnElement[bytes]:
        return func.unhex(bindparam)


class Statements(NamedTuple):
    """What a store says to the database; the values are bound as here, old and new."""

    table: Table
    load: Executable
    create: Executable
    update: Executable


@lru_cache(maxsize=64)
def statements(table_name: str) -> Statements:
    """Return the table and its statements, shared by all stores of that table name."""
    table = token_table(table_name)
    binary = LargeBinary().with_variant(_Hex(), "mysql", "mariadb")
    here, old, new = (bindparam(name, type_=binary) for name in ("here", "old", "new"))
    return Statements(
        table,
        select(table.c.text).where(table.c.slot == here),
        insert(table).values(slot=here, text=new),
        update_rows(table).where(table.c.slot == here, table.c.text == old).values(text=new),
    )
