"""Output for people and scripts, questions, and exit codes."""

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
    """An error that ends the command with a message and an exit code."""

    def __init__(self, message: str, code: Exit = Exit.USAGE) -> None:
        super().__init__(message)
        self.code = code


def visible(text: str) -> str:
    """Return `text` as one line, with control characters and invisible characters as JSON escapes.

    Scopes, a `realmId`, device codes, host names and servers' messages come from others: ESC could move the cursor,
    U+202E reverse the line, and a newline begin a line that looks like this program's.
    """
    return "".join(one if one.isprintable() else _escape(ord(one)) for one in text)


def _escape(code: int) -> str:
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def say(text: str, style: str = "") -> None:
    """Print a line of the result: to standard output, in colour on a terminal only."""
    # Made for each line, so that the current NO_COLOR and streams apply.
    Console(highlight=False).print(Text(visible(text), style), soft_wrap=True)


def tell(text: str, style: str = "") -> None:
    """Print a progress line to standard error, so that a pipe gets the results only."""
    console = Console(stderr=True, highlight=False)
    text = visible(text)
    if console.is_terminal:
        # Words are not broken, and neither is an address that is longer than the line.
        text = textwrap.fill(text, console.width, break_long_words=False, break_on_hyphens=False)
    console.print(Text(text, style), soft_wrap=True)


def warn(text: str) -> None:
    """Print a warning."""
    tell(f"Warning: {text}", "yellow")


def others_may_read_output() -> bool:
    """Whether standard output is a file that other users may read."""
    try:
        mode = os.fstat(sys.stdout.fileno()).st_mode
    except (OSError, ValueError):  # Another object replaces it.
        return False
    return stat.S_ISREG(mode) and bool(stat.S_IMODE(mode) & 0o077)


def write_private(path: str, text: str) -> None:
    """Write a new file that only its owner may read. An existing file or link is left as it is."""
    target = Path(path).expanduser()
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(text)
    except FileExistsError:
        raise Problem(f"{path!r} exists already, and was left as it is") from None
    except OSError as error:
        raise Problem(f"{path!r} cannot be written: {error.strerror}") from None


def at_terminal() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty()


def ask_hidden(prompt: str, *, timeout: float | None = None) -> str:
    """Read a line without echo from a terminal, or from a pipe.

    Args:
        prompt: the question.
        timeout: seconds to wait for the line. There is no limit if it is not given, or if the system has no timer.

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
    """Interrupt a call that blocks this thread after this many seconds."""
    set_timer = getattr(signal, "setitimer", None)  # not there on Windows
    if timeout is None or set_timer is None:
        yield
        return

    def ring(*_: object) -> None:
        raise LoginFailed("Nobody answered in time (--timeout). Nothing has changed.")

    before = signal.signal(signal.SIGALRM, ring)
    # A timer of 0 would be off. It fires again each second, because an exception that it raises may be swallowed, for
    # example in a weak reference's callback.
    set_timer(signal.ITIMER_REAL, max(timeout, 0.001), 1.0)
    try:
        yield
    finally:
        set_timer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def moment(epoch: float) -> str:
    """Return a time for people to read, in UTC."""
    try:
        return datetime.fromtimestamp(epoch, timezone.utc).isoformat(" ", "seconds")
    except (OverflowError, OSError, ValueError):
        return "an unknown time"


def exit_code(error: Exception) -> Exit:
    """Return the exit code for this kind of failure."""
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
    """Run a command's coroutine function on asyncio, which all stores support."""
    return anyio.run(_to_its_end, function, backend_options={"loop_factory": _new_loop})


def _new_loop() -> asyncio.AbstractEventLoop:
    """Make an event loop that resolves host names in threads which need not be waited for.

    The loop and the process wait for the threads of the loop's own executor when they end, so a name server that does
    not answer would delay a command long past its `--timeout`.
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
        # The thread of an aiosqlite connection that could not be opened still calls the event loop when it ends, and
        # would print a traceback if the loop was closed.
        await anyio.to_thread.run_sync(_join_drivers)


def _join_drivers() -> None:
    drivers = [one for one in threading.enumerate() if "_connection_worker_thread" in one.name]
    deque(map(threading.Thread.join, drivers, repeat(1.0)), maxlen=0)


class _Terminal(logging.Handler):
    """Prints the library's warnings as lines of this program, without control characters."""

    def emit(self, record: logging.LogRecord) -> None:
        tell(record.getMessage(), "yellow")


@contextmanager
def reporting() -> Iterator[None]:
    """End the command with a message and an exit code if an error with a message for people is raised.

    The frames of such an error hold tokens and settings, so it is dropped, and `typer.Exit` is raised instead. Any
    other exception is a bug of this program, and shows its traceback. The library's warnings are printed meanwhile.
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
