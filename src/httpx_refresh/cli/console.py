"""What a person reads and is asked, and what a script gets: words, and the exit code."""

from __future__ import annotations

import enum
import getpass
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from itertools import repeat
from typing import TypeVar

import anyio
import anyio.to_thread
import typer
from rich.console import Console
from rich.text import Text

from .._errors import (
    LoginFailed,
    ReauthorizationRequired,
    RefreshAuthError,
    RefreshUnavailable,
    RevocationFailed,
    StoreError,
)

_T = TypeVar("_T")


class Exit(enum.IntEnum):
    """The exit codes; docs/cli.md explains them."""

    DONE = 0
    USAGE = 2
    LOG_IN = 3
    TRY_LATER = 4
    STORE = 5
    LOGIN_FAILED = 6
    REFUSED = 7
    INTERRUPTED = 130


class Problem(Exception):
    """Something that ends the command with a line and an exit code."""

    def __init__(self, message: str, code: Exit = Exit.USAGE) -> None:
        super().__init__(message)
        self.code = code


def say(text: str, style: str = "") -> None:
    """Print a line of the result: to standard output, as it is, in colour on a terminal only."""
    # Made each time: NO_COLOR and the streams are asked for as they are now.
    Console(highlight=False).print(Text(text, style), soft_wrap=True)


def tell(text: str, style: str = "") -> None:
    """Print a line about what happens: to standard error, so that a pipe gets the results only."""
    Console(stderr=True, highlight=False).print(Text(text, style), soft_wrap=True)


def warn(text: str) -> None:
    """Print a warning."""
    tell(f"Warning: {text}", "yellow")


def at_terminal() -> bool:
    """Whether there is a person who can be asked."""
    return sys.stdin.isatty()


def ask_hidden(prompt: str) -> str:
    """Read a line that is not to be seen: without echo from a terminal, as it comes from a pipe."""
    if at_terminal():
        return getpass.getpass(prompt, sys.stderr).strip()
    tell(prompt)
    return sys.stdin.readline().strip()


def moment(epoch: float) -> str:
    """Write a moment for people, in UTC."""
    try:
        return datetime.fromtimestamp(epoch, timezone.utc).isoformat(" ", "seconds")
    except (OverflowError, OSError, ValueError):
        return "an unknown time"


def exit_code(error: Exception) -> Exit:
    """Return the exit code that says what kind of failure this is."""
    if isinstance(error, Problem):
        return error.code
    if isinstance(error, ReauthorizationRequired):
        return Exit.LOG_IN
    if isinstance(error, LoginFailed):
        return Exit.LOGIN_FAILED
    if isinstance(error, StoreError):
        return Exit.STORE
    if isinstance(error, RefreshUnavailable) and error.outcome == "refused":
        return Exit.REFUSED
    if isinstance(error, (RefreshUnavailable, RevocationFailed)):
        return Exit.TRY_LATER
    return Exit.USAGE


def run(function: Callable[[], Awaitable[_T]]) -> _T:
    """Run a command's coroutine function on asyncio, the event loop of all stores."""
    return anyio.run(_to_its_end, function)


async def _to_its_end(function: Callable[[], Awaitable[_T]]) -> _T:
    try:
        return await function()
    finally:
        # A connection of aiosqlite that could not be opened is ended behind our back: its thread still tells the
        # event loop so, and would die with a traceback if that was gone.
        await anyio.to_thread.run_sync(_join_drivers)


def _join_drivers() -> None:
    drivers = [one for one in threading.enumerate() if "_connection_worker_thread" in one.name]
    deque(map(threading.Thread.join, drivers, repeat(1.0)), maxlen=0)


@contextmanager
def reporting() -> Iterator[None]:
    """End with a line and an exit code where something fails that has a message for the person.

    Anything else is a mistake of this program's, and shows its traceback.
    """
    try:
        yield
    except EXPECTED as error:
        tell(f"Error: {error}", "red")
        if isinstance(error, ReauthorizationRequired):
            tell("The command for that is `httpx-refresh login`.")
        raise typer.Exit(exit_code(error)) from None
    except (KeyboardInterrupt, typer.Abort):
        tell("Interrupted. The token in the store is as it was, or newer.")
        raise typer.Exit(Exit.INTERRUPTED) from None


EXPECTED = (Problem, RefreshAuthError)
