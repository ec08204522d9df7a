"""A store in one file."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from functools import partial

import anyio.to_thread

from .base import decode_text, encode_text

__all__ = ["FileStore"]

_LIMIT = 1_048_576  # bytes; a token response is a few thousand
_LOCK_TIMEOUT = 10.0  # seconds
_LOCK_POLL = 0.01  # seconds
_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
# Without O_NONBLOCK, opening a FIFO would wait for a writer for ever.
_OPEN_READ = _READ | getattr(os, "O_NONBLOCK", 0)
_OPEN_TEMP = (
    os.O_WRONLY
    | os.O_CREAT
    | os.O_EXCL
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NOFOLLOW", 0)
)
# What systems answer that cannot open or sync a directory: Windows, and some network mounts.
_NO_DIRECTORY_SYNC = frozenset({errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOTSUP})


class FileStore:
    """Keeps the text in one file, for all processes of a host.

    A write is whole or not there at all, also after a crash or a power cut: a temporary file in
    the same directory is written and synced, renamed over the old one, and the directory is
    synced. Writers exclude each other, threads and processes alike, by an advisory lock on
    `<file>.lock` beside it, which stays. The file has mode 0600 after every write. A symbolic
    link stays one: what it points to is replaced. All of it happens in a worker thread.

    A file as another tool leaves it (`{"access_token": ..., "refresh_token": ...}`) is a valid
    start. Not for network file systems without working locks: hosts share a database instead.

    Args:
        path: the file; it need not exist, its directory must.

    Raises:
        TypeError: `path` is neither text nor a path.
        ValueError: `path` is empty or holds a NUL character.

    Both methods raise OSError when the file or its directory cannot be used or holds more than
    1 MiB, TimeoutError (`filelock.Timeout`) when the lock is not to be had for 10 seconds, and
    ValueError when the file does not hold UTF-8 text. None of them shows the file's content.
    """

    __slots__ = ("__weakref__", "_path")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        name = os.fspath(path)
        if not isinstance(name, str):
            raise TypeError(f"path is to be str or a path of str, not {type(name).__name__}")
        if not name:
            raise ValueError("path is empty")
        if "\0" in name:
            raise ValueError("path holds a NUL character")
        self._path = name

    @property
    def path(self) -> str:
        """The file, as it was named."""
        return self._path

    @property
    def slot(self) -> str:
        """The file's name without its directories, which may differ from host to host."""
        return os.path.basename(self._path)

    async def load(self) -> str | None:
        """Return the file's text, or None if there is no file."""
        return await anyio.to_thread.run_sync(_load, self._path)

    async def replace(self, old: str | None, new: str) -> bool:
        """Write `new` if the file still holds exactly `old` (None: no file); else return False."""
        return await anyio.to_thread.run_sync(partial(_replace, self._path, old, new))

    def __repr__(self) -> str:
        return f"FileStore({self._path!r})"


def _load(path: str) -> str | None:
    data = _read(os.path.realpath(path))
    return None if data is None else decode_text(data, path)


def _replace(path: str, old: str | None, new: str) -> bool:
    # Not at the top: it brings asyncio along, and whoever imports the library need not wait for them.
    from filelock import FileLock

    data = encode_text(new)
    expected = None if old is None else encode_text(old)
    # Resolved at each operation: an operator may point the link elsewhere while we run.
    target = os.path.realpath(path)
    if len(data) > _LIMIT:
        raise _too_large(target)
    # Looked at first, for the lock would create the directories it lacks.
    _require_directory(target)
    lock = FileLock(
        target + ".lock",
        timeout=_LOCK_TIMEOUT,
        poll_interval=_LOCK_POLL,
        mode=0o600,
        # One object an operation: each opens the lock file itself, and so the system's lock
        # excludes the threads of this process as it does other processes.
        thread_local=False,
        is_singleton=False,
    )
    with lock:
        if _read(target) != expected:
            return False
        _write(target, data)
        return True


def _read(target: str) -> bytes | None:
    try:
        descriptor = os.open(target, _OPEN_READ)
    except FileNotFoundError:
        # A directory that is missing is a disk that is not mounted, not a missing login.
        _require_directory(target)
        return None
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), target)
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", target)
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(_LIMIT + 1)
    finally:
        os.close(descriptor)
    if len(data) > _LIMIT:
        raise _too_large(target)
    return data


def _write(target: str, data: bytes) -> None:
    """Put `data` in the place of `target`; the caller holds the lock."""
    directory, name = os.path.split(target)
    # One name, not a random one: whoever holds the lock is alone with it, and what a killed
    # process left there, a token in it, is gone with the next write.
    temporary = os.path.join(directory, f".{name}.tmp")
    with suppress(FileNotFoundError):
        os.unlink(temporary)
    descriptor = os.open(temporary, _OPEN_TEMP, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync_directory(directory)


def _sync_directory(directory: str) -> None:
    try:
        descriptor = os.open(directory, _READ)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_SYNC:
            raise


def _require_directory(target: str) -> None:
    directory = os.path.dirname(target)
    if not os.path.isdir(directory):
        raise FileNotFoundError(
            errno.ENOENT, "the directory of the token file does not exist", directory
        )


def _too_large(target: str) -> OSError:
    return OSError(errno.EFBIG, f"more than {_LIMIT} bytes, which no token is", target)
