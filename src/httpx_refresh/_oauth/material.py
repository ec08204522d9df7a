"""Secrets and keys that may be read again before each use: text, a file, or the result of a callable.

This module knows neither cryptography nor requests.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from .._errors import RefreshUnavailable, cause_of
from .._threads import run_blocking

MOST = 1_048_576
"""Bytes that are read of a file at most."""

Text: TypeAlias = "str | bytes | os.PathLike[str] | Callable[[], str | bytes | os.PathLike[str]]"
"""Text, the path of a file, or a callable that returns either. Files and callables are read before each use."""


class Unusable(ValueError):
    """An argument cannot be used. The message names it, and shows nothing of its value.

    Attributes:
        caused_by: the type of the exception that caused this one, and the file and line that raised it.
    """

    def __init__(self, message: str, *, caused_by: str | None = None) -> None:
        super().__init__(message)
        self.caused_by = caused_by


def checked_source(source: Any, argument: str, kinds: tuple[type[Any], ...], words: str) -> Any:
    """Return the source of an argument, or raise TypeError.

    Args:
        source: the argument.
        argument: its name.
        kinds: the types that it may have besides a path and a callable.
        words: these types in words.
    """
    if inspect.iscoroutinefunction(source):
        raise TypeError(
            f"{argument} must not be an async callable: it is called in a thread of the library, where it may block"
        )
    if isinstance(source, type) or not (
        isinstance(source, (*kinds, os.PathLike)) or callable(source)
    ):
        raise TypeError(
            f"{argument} must be {words}, a path (pathlib.Path), or a callable that returns one of these"
        )
    return source


def is_called(source: Any) -> bool:
    """Whether the source is a callable, whose result is not known before it is needed."""
    return callable(source) and not isinstance(source, (os.PathLike, Mapping))


def is_fixed(source: Any) -> bool:
    """Whether the source has the same value each time."""
    return not (is_called(source) or isinstance(source, os.PathLike))


def read(source: Any, argument: str) -> Any:
    """Return the argument's current value; a file's is bytes. This call blocks.

    Raises:
        Unusable: the callable failed, or the file cannot be read.
    """
    value = source
    if is_called(source):
        try:
            value = source()
        except Exception as error:
            raise Unusable(
                f"the callable passed as {argument} raised {type(error).__name__}",
                caused_by=cause_of(error),
            ) from None
        if inspect.iscoroutine(value):
            value.close()  # Closed, because it would warn that it was never awaited.
            raise Unusable(f"the callable passed as {argument} is async, and must not be")
    if not isinstance(value, os.PathLike):
        return value
    try:
        with Path(value).expanduser().open("rb") as file:
            content = file.read(MOST + 1)
    except (OSError, RuntimeError, ValueError) as error:  # no home; a zero byte in the name
        what = getattr(error, "strerror", None) or type(error).__name__
        raise Unusable(
            f"the file passed as {argument} cannot be read: {what}", caused_by=cause_of(error)
        ) from None
    if len(content) > MOST:
        raise Unusable(f"the file passed as {argument} has more than 1 MiB")
    return content


def read_text(source: Any, argument: str) -> str:
    """Return the argument's current value as text, without the line end of a file.

    Raises:
        Unusable: it is empty, or cannot be encoded as UTF-8.
    """
    value = read(source, argument)
    try:
        if isinstance(value, bytes):
            value = value.decode("utf-8")
        elif isinstance(value, str):
            value.encode("utf-8")
    except UnicodeError:
        raise Unusable(f"{argument} must be text that can be encoded as UTF-8") from None
    if not isinstance(value, str):
        raise Unusable(f"{argument} must be text, not {type(value).__name__}")
    if not is_fixed(source):
        value = value.rstrip("\r\n")
    if not value:
        raise Unusable(f"{argument} must not be empty")
    return value


def not_sent(error: Exception, doing: str) -> RefreshUnavailable:
    """Return the error to raise if a token request could not be prepared.

    Args:
        error: the cause.
        doing: the step that failed, in words.
    """
    if isinstance(error, Unusable):
        why, cause = str(error), error.caused_by
    else:
        why, cause = f"{doing} failed with {type(error).__name__}", cause_of(error)
    return RefreshUnavailable(
        f"The token endpoint was not asked: {why}. Check that argument; a file or a callable is read again at the next "
        "try.",
        outcome="not_sent",
        caused_by=cause,
    )


class Secret:
    """A text that is read again before each use if it comes from a file or a callable.

    Mutable: `last`, the text that was read last; None before the first call of a callable. It is replaced as a whole.

    Args:
        source: the text, a path, or a callable that returns either.
        argument: its name.

    Attributes:
        is_fixed: whether it is the same text each time, which is not read again.

    Raises:
        TypeError, ValueError: the source is invalid: another type, an empty text, a missing file.
    """

    __slots__ = ("_argument", "_source", "is_fixed", "last")

    def __init__(self, source: Text, argument: str) -> None:
        self._source = checked_source(source, argument, (str,), "a str")
        self.is_fixed: bool = is_fixed(source)
        self._argument = argument
        self.last: str | None = None
        if not is_called(source):
            try:
                self.last = read_text(source, argument)
            except Unusable as error:
                raise ValueError(str(error)) from None

    def __repr__(self) -> str:
        return f"Secret({self._argument})"

    async def get(self) -> str:
        """Return the current text. Files and callables are read in a thread of the library.

        Raises:
            Unusable: it cannot be read now.
        """
        if self.is_fixed and self.last is not None:
            return self.last
        self.last = text = await run_blocking(read_text, self._source, self._argument, group=self)
        return text
