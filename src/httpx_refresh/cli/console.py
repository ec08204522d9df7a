"""What a person reads and is asked, and what a script gets: words, and the exit code."""

from __future__ import annotations

import asyncio
import enum
import getpass
import logging
import os
import signal
import socket
import stat
import sys
import textwrap
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, TypeVar

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
    without_frames,
)
from .._threads import run_blocking

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


def visible(text: str) -> str:
    """Return `text` with what a terminal would obey, or not show, written as JSON escapes it: in one line.

    Scopes, a `realmId`, device codes, the names of hosts that refresh, and what a server says are others' words: ESC
    moves the cursor, U+202E turns the line around, a newline begins one that this program never wrote.
    """
    return "".join(one if one.isprintable() else _escape(ord(one)) for one in text)


def _escape(code: int) -> str:
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def say(text: str, style: str = "") -> None:
    """Print a line of the result: to standard output, in colour on a terminal only."""
    # Made each time: NO_COLOR and the streams are asked for as they are now.
    Console(highlight=False).print(Text(visible(text), style), soft_wrap=True)


def tell(text: str, style: str = "") -> None:
    """Print a line about what happens: to standard error, so that a pipe gets the results only."""
    console = Console(stderr=True, highlight=False)
    text = visible(text)
    if console.is_terminal:
        # Words stay whole, and so does an address that is longer than the line.
        text = textwrap.fill(text, console.width, break_long_words=False, break_on_hyphens=False)
    console.print(Text(text, style), soft_wrap=True)


def warn(text: str) -> None:
    """Print a warning."""
    tell(f"Warning: {text}", "yellow")


def others_may_read_output() -> bool:
    """Whether standard output is a file that others than its owner may read."""
    try:
        mode = os.fstat(sys.stdout.fileno()).st_mode
    except (OSError, ValueError):  # Something else stands in its place.
        return False
    return stat.S_ISREG(mode) and bool(stat.S_IMODE(mode) & 0o077)


def write_private(path: str, text: str) -> None:
    """Write a new file that only its owner may read; what is there already, a link too, is left as it is."""
    target = Path(path).expanduser()
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(text)
    except FileExistsError:
        raise Problem(f"{path!r} is there already, and was left as it is") from None
    except OSError as error:
        raise Problem(f"{path!r} cannot be written: {error.strerror}") from None


def at_terminal() -> bool:
    """Whether there is a person who can be asked."""
    return sys.stdin.isatty()


def ask_hidden(prompt: str, *, timeout: float | None = None) -> str:
    """Read a line that is not to be seen: without echo from a terminal, as it comes from a pipe.

    Args:
        prompt: the question.
        timeout: seconds to wait for the line; without end if not given, or where the system knows no such timer.

    Raises:
        LoginFailed: no line came in time.
    """
    if at_terminal():
        with _alarm(timeout):
            return getpass.getpass(visible(prompt), sys.stderr).strip()
    tell(prompt)
    with _alarm(timeout):
        return sys.stdin.readline().strip()


@contextmanager
def _alarm(timeout: float | None) -> Iterator[None]:
    """Raise out of a call that blocks this thread, once so many seconds are over."""
    set_timer = getattr(signal, "setitimer", None)  # not there on Windows
    if timeout is None or set_timer is None:
        yield
        return

    def ring(*_: object) -> None:
        raise LoginFailed("Nobody answered in time (--timeout). Nothing has changed.")

    before = signal.signal(signal.SIGALRM, ring)
    # A timer of 0 would be none. It rings again each second: an exception that is raised where others are caught, or in
    # a weak reference's callback, goes nowhere.
    set_timer(signal.ITIMER_REAL, max(timeout, 0.001), 1.0)
    try:
        yield
    finally:
        set_timer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


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
    return anyio.run(_to_its_end, function, backend_options={"loop_factory": _new_loop})


def _new_loop() -> asyncio.AbstractEventLoop:
    """Make an event loop that looks names up in threads which nobody has to wait for.

    Its own executor's threads are waited for where the loop ends, and where the process does: a name server that does
    not answer would hold a command up for long after its `--timeout`.
    """
    loop = asyncio.new_event_loop()
    loop.getaddrinfo = _looked_up  # type: ignore[method-assign]  # on purpose
    return loop


async def _looked_up(host: Any, port: Any, **options: int) -> list[Any]:
    look_up = partial(socket.getaddrinfo, host, port, **options)
    return await run_blocking(look_up, group=("name", host))


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


class _Terminal(logging.Handler):
    """Prints the library's warnings as lines of this program, so that they hold no control characters either."""

    def emit(self, record: logging.LogRecord) -> None:
        tell(record.getMessage(), "yellow")


@contextmanager
def reporting() -> Iterator[None]:
    """End with a line and an exit code where something fails that has a message for the person.

    Its frames hold tokens and settings, so they are let go of: `typer.Exit` is raised in its context. Anything else is
    a mistake of this program's, and shows its traceback. Meanwhile the library's warnings are printed.
    """
    logger, terminal = logging.getLogger("httpx_refresh"), _Terminal(logging.WARNING)
    logger.addHandler(terminal)
    try:
        yield
    except EXPECTED as error:
        tell(f"Error: {error}", "red")
        if isinstance(error, ReauthorizationRequired):
            tell("The command for that is `httpx-refresh login`.")
        without_frames(error)
        raise typer.Exit(exit_code(error)) from None
    except (KeyboardInterrupt, typer.Abort) as error:
        tell("Interrupted. The token in the store is as it was, or newer.")
        without_frames(error)
        raise typer.Exit(Exit.INTERRUPTED) from None
    finally:
        logger.removeHandler(terminal)


EXPECTED = (Problem, RefreshAuthError)
