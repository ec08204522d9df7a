"""What the errors of databases say: a lost race, and words that must not be repeated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.exc import DBAPIError

__all__ = ["is_conflict", "without_texts"]

# PostgreSQL documentation, appendix A "PostgreSQL Error Codes": serialization_failure,
# deadlock_detected. MariaDB documentation, "MariaDB Error Code Reference": ER_CHECKREAD,
# ER_LOCK_DEADLOCK.
_CONFLICTS = frozenset({"40001", "40P01", "1020", "1213"})
_PIECE = 8  # characters of a text that a message may not repeat


def _codes(error: DBAPIError) -> list[str]:
    """Return the database's own error codes: SQLSTATE, SQLite's name, MariaDB's number."""
    names = [getattr(error.orig, name, None) for name in ("sqlstate", "sqlite_errorname")]
    numbers = [number for number in getattr(error.orig, "args", ()) if isinstance(number, int)]
    return [str(code) for code in (*names, *numbers) if code is not None]


def is_conflict(error: DBAPIError) -> bool:
    """Whether the statement gave way to another one and may be tried again."""
    return not _CONFLICTS.isdisjoint(_codes(error))


class _Withheld(Exception):
    """A driver's error without its words."""


def without_texts(error: DBAPIError, texts: Iterable[bytes]) -> DBAPIError:
    """Return this error, its parameters gone, or another if a message quotes a piece of `texts`.

    Drivers and servers quote values: "Failing row contains (...)", "near '...'", "invalid input
    for query argument $1". The error returned then has no cause and names the code only.
    """
    error.params = None
    error.hide_parameters = True
    messages: list[str] = []
    link: BaseException | None = error
    while link is not None:
        messages.append(f"{link} {link!r}")
        link = link.__cause__ or link.__context__
    said = "\n".join(messages).replace("httpx_refresh", "")
    if not any(_quotes(said, text) for text in texts):
        return error
    words = " ".join([type(error.orig).__name__, *_codes(error)])
    return type(error)(
        error.statement,
        None,
        _Withheld(f"{words}; its message quotes the text and is withheld"),
        hide_parameters=True,
        connection_invalidated=error.connection_invalidated,
    )


def _quotes(message: str, text: bytes) -> bool:
    for known in (text.decode(), text.hex(), text.hex().upper()):
        for start in range(len(message) - _PIECE + 1):
            if message[start : start + _PIECE] in known:
                return True
    return False
