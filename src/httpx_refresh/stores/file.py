"""A store in one file."""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from .._errors import frameless
from .._threads import run_blocking
from .base import Release, decode_text, encode_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["FileStore"]

logger: logging.Logger = logging.getLogger("httpx_refresh")

# Bytes. A token response is a few thousand; the largest that is read of an answer, written and sealed, is half of this.
_LIMIT = 8_388_608
_LOCK_TIMEOUT = 10.0  # seconds
_LOCK_POLL = 0.002  # seconds; a write takes some milliseconds
_MOST_LINKS = 40  # as Linux
_MOST_WARNINGS = 1000  # so that they do not fill the memory of a process with very many files
_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
# Without O_NONBLOCK, opening a FIFO would wait for a writer forever.
_OPEN_READ = _READ | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
_OPEN_LOCK = (
    os.O_RDWR
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOFOLLOW", 0)
)
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
_POSIX = hasattr(os, "geteuid")  # where files have owners and modes


class FileStore:
    """Keeps the text in one file, for all processes of a host.

    A write happens completely or not at all, even across a crash or a power cut: a temporary file in
    the same directory is written and synced, renamed over the old one, and the directory is
    synced. Writers, threads and processes alike, exclude each other by an advisory lock on
    `<file>.lock` beside it; that file stays. All of it happens in a thread of the library.

    The file has mode 0600 after every write. If root writes, the file keeps its owner, and a new file
    gets the owner of its directory. A file that others can read is warned about once. A symbolic link
    stays a link: its target is replaced. Root follows another user's link only to that user's files.
    In a directory that everybody may write to, such as `/tmp`, files, locks and links of another
    user are refused, since they may be an attack. Prefer a private directory with mode 0700.

    A token file of another tool (`{"access_token": ..., "refresh_token": ...}`) is a valid start. Do
    not use it on a network file system without working locks: let hosts share a database instead.

    Args:
        path: the file. It need not exist; its directory must.

    Raises:
        TypeError: `path` is neither text nor a path.
        ValueError: `path` is empty or holds a NUL character.

    The methods raise OSError if the file or its directory cannot be used, belongs to another user, or
    holds more than 8 MiB; TimeoutError if others hold the lock for 10 seconds; and ValueError if the
    file does not hold UTF-8 text. None of them shows the file's content.
    """

    __slots__ = ("__weakref__", "_path")

    @frameless
    def __init__(self, path: str | os.PathLike[str]) -> None:
        name = os.fspath(path)
        if not isinstance(name, str):
            raise TypeError(f"path must be a str or a path of str, not {type(name).__name__}")
        if not name:
            raise ValueError("path is empty")
        if "\0" in name:
            raise ValueError("path holds a NUL character")
        self._path = name

    @property
    def path(self) -> str:
        """The file's path, as it was given."""
        return self._path

    @property
    def slot(self) -> str:
        """The file's absolute path. Symbolic links in it are not resolved."""
        return os.path.abspath(self._path)

    @property
    def earlier_slots(self) -> tuple[str, ...]:
        """The slot's name in version 0.1: the file's name without its directories."""
        return (os.path.basename(self._path),)

    async def load(self) -> str | None:
        """Return the file's text, or None if there is no file."""
        return await run_blocking(_load, self._path, group=self._path)

    async def replace(self, old: str | None, new: str) -> bool:
        """Write `new` if the file still holds exactly `old` (None: no file); else return False."""
        call = run_blocking(_replace, self._path, old, new, group=self._path)
        del old, new  # An exception of the call holds this frame.
        return await call

    async def hold(self) -> Release | None:
        """Take the lock on `<file>.owner` beside the file, without waiting; None if it is taken.

        The lock's file stays. The lock is released when its holder's process ends, also by a signal,
        and when the returned object is collected. A child forked by Python closes the descriptor that
        it inherited; a child forked by other code keeps the lock, and watchers of the claim wait.
        """
        return await run_blocking(_hold, self._path, group=self._path)

    def __repr__(self) -> str:
        return f"FileStore({self._path!r})"


def _load(path: str) -> str | None:
    data = _read(_resolve(path), path)
    # Only the first write needs this import, and it takes most of that write's time. So it is made now, and not
    # once a token has expired and callers wait.
    import filelock  # noqa: F401 - imported for later

    return None if data is None else decode_text(data, path)


def _replace(path: str, old: str | None, new: str) -> bool:
    data = encode_text(new)
    expected = None if old is None else encode_text(old)
    # Resolved at each operation: an operator may change the link while we run.
    target = _resolve(path)
    if len(data) > _LIMIT:
        raise _too_large(target)
    _require_directory(target)
    if _read(target, path) != expected:
        return False  # A swap that has already lost need not wait for the lock.
    deadline = time.monotonic() + _LOCK_TIMEOUT
    while True:
        with _locked(target, deadline) as lock:
            if _read(target, path) != expected:
                return False
            if _write(target, data, lock):
                return True
        _require_time(target, deadline)  # Something deletes the lock's file again and again.


def _hold(path: str) -> Release | None:
    target = _resolve(path)
    _require_directory(target)
    lock = _try_lock(target, ".owner")
    return None if lock is None else _Hold(lock)


class _Hold:
    """The lock of a claim, held in this process: a `Release`.

    `_lock` holds the lock, or nothing once it is released. Whoever takes the lock out of it releases it.
    """

    __slots__ = ("_is_first", "_lock", "_pid")

    def __init__(self, lock: _Lock) -> None:
        self._lock = [lock]
        self._is_first = lock.is_new
        self._pid = os.getpid()

    @property
    def is_first(self) -> bool:
        """Whether the lock's file was created for this lock, so that nobody held it before."""
        return self._is_first

    def release(self) -> None:
        """Release the lock, once. It raises nothing, and does nothing in a forked child."""
        with suppress(IndexError):
            lock = self._lock.pop()
            if self._pid == os.getpid():
                with suppress(OSError):  # The system has closed it, or will with the process.
                    lock.release()

    def __del__(self) -> None:
        # The result of a call that nobody waited for: nothing else releases it.
        self.release()


# The descriptors of the locks that are held. A forked child inherits them and so the locks, which would outlive their
# owner.
_held: set[int] = set()


def _close_inherited() -> None:
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):  # pragma: no branch  # nothing forks on Windows
    os.register_at_fork(after_in_child=_close_inherited)


class _Lock:
    """An operating system's lock on a file, held through a descriptor of its own.

    Each lock opens the file itself, so it excludes other threads of this process as well as other
    processes. The file stays when the lock is released: after a deletion two could hold the lock.
    """

    def __init__(
        self, path: str, descriptor: int, unlock: Callable[[int], None], *, is_new: bool
    ) -> None:
        self.is_new = is_new
        self._path = path
        self._descriptor = descriptor
        self._unlock = unlock
        _held.add(descriptor)

    def is_in_place(self) -> bool:
        """Whether its file is still the one under that name, which others lock."""
        return _is_at(self._path, os.fstat(self._descriptor))

    def release(self) -> None:
        """Release the lock; once only."""
        # Removed before the descriptor is closed: a child that is forked now may have another file under its number.
        _held.discard(self._descriptor)
        try:
            # Closing alone does not unlock it while a process that is being started has inherited it.
            self._unlock(self._descriptor)
        finally:
            os.close(self._descriptor)


def _try_lock(target: str, suffix: str) -> _Lock | None:
    """Lock the file with that suffix beside `target`, and create it if there is none; None if it is locked."""
    # Not at the top: it imports asyncio, and the library must import fast.
    from filelock import lock_descriptor, unlock_descriptor

    path = target + suffix
    try:
        descriptor = os.open(path, _OPEN_LOCK)
        is_new = False
    except FileNotFoundError:
        try:
            descriptor = os.open(path, _OPEN_LOCK | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return None  # Another process was faster, and is about to lock it.
        is_new = True
    try:
        status = os.fstat(descriptor)
        _require_regular(status, path)
        _require_trusted(status, path)
        if is_new:
            _set_mode(descriptor)
        # Root gives away no file that has another name, too: the directory's owner may have made that link.
        if _POSIX and os.geteuid() == 0 and status.st_nlink == 1:
            # Else the service that owns the token file could not open it.
            _give_to_owner(descriptor, target)
        locked = lock_descriptor(descriptor, blocking=False)
    except BaseException:
        os.close(descriptor)
        raise
    if not locked:
        os.close(descriptor)
        return None
    lock = _Lock(path, descriptor, unlock_descriptor, is_new=is_new)
    if lock.is_in_place():
        return lock
    lock.release()  # It was deleted since it was opened: the next process would lock another file.
    return None


@contextmanager
def _locked(target: str, deadline: float) -> Iterator[_Lock]:
    while (lock := _try_lock(target, ".lock")) is None:
        _require_time(target, deadline)
        time.sleep(_LOCK_POLL)
    try:
        yield lock
    finally:
        lock.release()


def _read(target: str, path: str) -> bytes | None:
    try:
        descriptor = os.open(target, _OPEN_READ)
    except FileNotFoundError:
        # A missing directory means a disk that is not mounted, not a missing login.
        _require_directory(target)
        return None
    try:
        status = os.fstat(descriptor)
        _require_regular(status, target)
        _require_trusted(status, target)
        if _POSIX and status.st_mode & 0o066:
            _warn_once(
                path,
                "Other users of this host can access the token in %r (mode %04o). Set its mode to 600; "
                "the next refresh does, too.",
                stat.S_IMODE(status.st_mode),
            )
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(_LIMIT + 1)
    finally:
        os.close(descriptor)
    if len(data) > _LIMIT:
        raise _too_large(target)
    return data


def _write(target: str, data: bytes, lock: _Lock) -> bool:
    """Replace `target` with `data`; return False and write nothing if the lock was lost."""
    directory, name = os.path.split(target)
    # A fixed name, because only the holder of the lock uses it, and the next write then removes
    # the file, with a token in it, that a killed process left there.
    temporary = os.path.join(directory, f".{name}.tmp")
    with suppress(FileNotFoundError):
        os.unlink(temporary)
    descriptor = os.open(temporary, _OPEN_TEMP, 0o600)
    ours = os.fstat(descriptor)
    try:
        with open(descriptor, "wb") as file:
            _set_mode(descriptor)
            if _POSIX:
                _give_to_owner(descriptor, target)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        # Else the lock's file was deleted, and another process has or had the lock.
        alone = lock.is_in_place() and _is_at(temporary, ours)
        if alone:
            os.replace(temporary, target)
            _sync_directory(directory)
        return alone
    finally:
        if _is_at(temporary, ours):
            os.unlink(temporary)


def _is_at(path: str, status: os.stat_result) -> bool:
    """Whether the file with this status is the one under that name."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), status)
    except FileNotFoundError:
        return False


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


def _set_mode(descriptor: int) -> None:
    """Set the mode of a file that was just made: the umask may have removed too many bits."""
    if hasattr(os, "fchmod"):  # pragma: no branch  # Windows has it from Python 3.13 on
        os.fchmod(descriptor, 0o600)


def _give_to_owner(descriptor: int, target: str) -> None:
    """Give an open file to the owner of `target`, or of the directory if root makes a new file."""
    try:
        owner = os.stat(target, follow_symlinks=False)
    except FileNotFoundError:
        owner = os.stat(os.path.dirname(target))
        if os.geteuid() != 0 or owner.st_mode & stat.S_IWOTH:
            return
    if owner.st_uid == os.fstat(descriptor).st_uid:
        return
    try:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    except OSError:
        _warn_once(
            target,
            "The token file %r belonged to user %d, and now belongs to the user who refreshed the token. "
            "Let all who use it run as one user.",
            owner.st_uid,
        )


def _resolve(path: str) -> str:
    """Return the path without symbolic links; raise PermissionError for a link that may have been planted."""
    if not _POSIX:
        return os.path.realpath(path)
    where = os.sep if os.path.isabs(path) else os.getcwd()
    ahead = path.split(os.sep)[::-1]
    links = 0
    others: set[int] = set()
    while ahead:
        name = ahead.pop()
        if name in ("", os.curdir):
            continue
        if name == os.pardir:
            where = os.path.dirname(where)
            continue
        step = os.path.join(where, name)
        try:
            status = os.lstat(step)
        except (FileNotFoundError, NotADirectoryError):
            where = step  # Opening it raises the error.
            continue
        if not stat.S_ISLNK(status.st_mode):
            where = step
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        _require_trusted(status, step)
        others.add(status.st_uid)
        link = os.readlink(step)
        where = os.sep if os.path.isabs(link) else where
        ahead += link.split(os.sep)[::-1]
    _require_right_of_links(others, where, path)
    return where


def _require_right_of_links(owners: set[int], where: str, path: str) -> None:
    """Raise PermissionError if root would follow another user's link to a place where that user may not write."""
    owners -= {0}
    if not owners or os.geteuid() != 0:
        return
    try:
        found = os.lstat(where)
    except (FileNotFoundError, NotADirectoryError):
        try:
            found = os.stat(os.path.dirname(where))
        except (FileNotFoundError, NotADirectoryError):
            return  # Opening it raises the error.
    if owners != {found.st_uid}:
        raise PermissionError(
            errno.EACCES,
            f"a link of user {min(owners)} leads to what is not theirs, and root would write there for them. Run this "
            "as that user, or let the link be root's",
            path,
        )


def _require_trusted(status: os.stat_result, path: str) -> None:
    """Raise PermissionError for a file of another user, other than root, in a directory that everybody may write to.

    Linux does the same for symbolic links if fs.protected_symlinks is set (proc(5)).
    """
    if not _POSIX or status.st_uid in (0, os.geteuid()):
        return
    directory = os.stat(os.path.dirname(path))
    if directory.st_mode & stat.S_IWOTH and status.st_uid != directory.st_uid:
        raise PermissionError(
            errno.EACCES,
            f"it belongs to user {status.st_uid}, in a directory that everybody may write to: it may be planted. "
            "Keep tokens in a directory of your own (mode 700)",
            path,
        )


def _require_regular(status: os.stat_result, path: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)


def _require_directory(target: str) -> None:
    directory = os.path.dirname(target)
    if not os.path.isdir(directory):
        raise FileNotFoundError(
            errno.ENOENT, "the directory of the token file does not exist", directory
        )


def _require_time(target: str, deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise TimeoutError(
            errno.ETIMEDOUT,
            f"the lock was not to be had for {_LOCK_TIMEOUT:g} seconds",
            f"{target}.lock",
        )


def _too_large(target: str) -> OSError:
    return OSError(errno.EFBIG, f"more than {_LIMIT} bytes, which no token is", target)


_warned: set[tuple[str, str]] = set()


def _warn_once(path: str, message: str, detail: int) -> None:
    if (path, message) not in _warned and len(_warned) < _MOST_WARNINGS:
        _warned.add((path, message))
        logger.warning(message, path, detail)
