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

    A write is whole or not there at all, also after a crash or a power cut: a temporary file in
    the same directory is written and synced, renamed over the old one, and the directory is
    synced. Writers exclude each other, threads and processes alike, by an advisory lock on
    `<file>.lock` beside it, which stays. All of it happens in a thread of the library's own.

    The file has mode 0600 after every write, and root's writes leave it its owner; a new one gets
    its directory's. A file that others can read is warned about once. A symbolic link stays one: what
    it points to is replaced. Root follows another user's link only to what is that user's.
    In a directory that everybody may write to, such as `/tmp`, files, locks and links of another
    user are refused, since they may be an attack. Prefer a private directory with mode 0700.

    A file as another tool leaves it (`{"access_token": ..., "refresh_token": ...}`) is a valid
    start. Not for network file systems without working locks: hosts share a database instead.

    Args:
        path: the file; it need not exist, its directory must.

    Raises:
        TypeError: `path` is neither text nor a path.
        ValueError: `path` is empty or holds a NUL character.

    The methods raise OSError when the file or its directory cannot be used, belongs to somebody
    else, or holds more than 8 MiB, TimeoutError when the lock is not to be had for 10 seconds, and
    ValueError when the file does not hold UTF-8 text. None of them shows the file's content.
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
        """The file, as it was named."""
        return self._path

    @property
    def slot(self) -> str:
        """The file's absolute path; symbolic links in it are not followed."""
        return os.path.abspath(self._path)

    @property
    def earlier_slots(self) -> tuple[str, ...]:
        """What version 0.1 took for the slot's name: the file's name without its directories."""
        return (os.path.basename(self._path),)

    async def load(self) -> str | None:
        """Return the file's text, or None if there is no file."""
        return await run_blocking(_load, self._path, group=self._path)

    async def replace(self, old: str | None, new: str) -> bool:
        """Write `new` if the file still holds exactly `old` (None: no file); else return False."""
        call = run_blocking(_replace, self._path, old, new, group=self._path)
        del old, new  # What the call raises holds this frame.
        return await call

    async def hold(self) -> Release | None:
        """Take the lock on `<file>.owner` beside the file, which stays, without waiting; None if it is taken.

        Its holder's death releases it, also by a signal, and so does the collection of what this
        returns. A forked child of Python's closes what it has inherited of it; a child that was
        forked behind Python's back keeps the lock, and watchers of the claim wait.
        """
        return await run_blocking(_hold, self._path, group=self._path)

    def __repr__(self) -> str:
        return f"FileStore({self._path!r})"


def _load(path: str) -> str | None:
    data = _read(_resolve(path), path)
    # Needed by the first write only, and most of that write's time: rather now than when a token has expired and
    # everybody waits.
    import filelock  # noqa: F401 - what is imported once is there

    return None if data is None else decode_text(data, path)


def _replace(path: str, old: str | None, new: str) -> bool:
    data = encode_text(new)
    expected = None if old is None else encode_text(old)
    # Resolved at each operation: an operator may point the link elsewhere while we run.
    target = _resolve(path)
    if len(data) > _LIMIT:
        raise _too_large(target)
    _require_directory(target)
    if _read(target, path) != expected:
        return False  # Who has lost already need not wait for the lock of who has won.
    deadline = time.monotonic() + _LOCK_TIMEOUT
    while True:
        with _locked(target, deadline) as lock:
            if _read(target, path) != expected:
                return False
            if _write(target, data, lock):
                return True
        _require_time(target, deadline)  # Somebody deletes the lock's file, again and again.


def _hold(path: str) -> Release | None:
    target = _resolve(path)
    _require_directory(target)
    lock = _try_lock(target, ".owner")
    return None if lock is None else _Hold(lock)


class _Hold:
    """The lock of a claim, held in this process: a `Release`.

    `_lock` holds the lock, or nothing once it is released; what takes it out releases it.
    """

    __slots__ = ("_is_first", "_lock", "_pid")

    def __init__(self, lock: _Lock) -> None:
        self._lock = [lock]
        self._is_first = lock.is_new
        self._pid = os.getpid()

    @property
    def is_first(self) -> bool:
        """Whether nobody had the lock before: its file was made for it."""
        return self._is_first

    def release(self) -> None:
        """Release the lock, once; nothing is raised. In a forked child, nothing is done."""
        with suppress(IndexError):
            lock = self._lock.pop()
            if self._pid == os.getpid():
                with suppress(OSError):  # The system has closed it, or will with the process.
                    lock.release()

    def __del__(self) -> None:
        # The result of a call that nobody waited for any more: only this releases it.
        self.release()


# The descriptors of the locks that are held. A forked child inherits them, and with them the locks, which would then
# outlive their owner.
_held: set[int] = set()


def _close_inherited() -> None:
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):  # pragma: no branch  # nothing forks on Windows
    os.register_at_fork(after_in_child=_close_inherited)


class _Lock:
    """A system's lock on a file, held through a descriptor of its own.

    Each lock opens the file itself, so it excludes the other threads of this process as it does
    other processes. The file stays when the lock is released: to delete it would let two have it.
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
        """Whether its file is the one that others find; if it was deleted, they have another."""
        return _is_at(self._path, os.fstat(self._descriptor))

    def release(self) -> None:
        """Release the lock; once only."""
        # Before it is closed: then its number may be another file's in a child that is forked now.
        _held.discard(self._descriptor)
        try:
            # Closing is not enough while a process that is being started has inherited it.
            self._unlock(self._descriptor)
        finally:
            os.close(self._descriptor)


def _try_lock(target: str, suffix: str) -> _Lock | None:
    """Lock the file of that suffix beside `target`, made if there is none; None if somebody has it."""
    # Not at the top: it brings asyncio along, and importing the library stays fast.
    from filelock import lock_descriptor, unlock_descriptor

    path = target + suffix
    try:
        descriptor = os.open(path, _OPEN_LOCK)
        is_new = False
    except FileNotFoundError:
        try:
            descriptor = os.open(path, _OPEN_LOCK | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return None  # Somebody else was faster, and is about to lock it.
        is_new = True
    try:
        status = os.fstat(descriptor)
        _require_regular(status, path)
        _require_trusted(status, path)
        if is_new:
            _set_mode(descriptor)
        # Of a file with another name, too, root gives nothing away: the directory's owner may have made this one.
        if _POSIX and os.geteuid() == 0 and status.st_nlink == 1:
            _give_to_owner(descriptor, target)  # or the service whose file it is could not open it
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
    lock.release()  # It was deleted since it was opened, and who comes next opens another.
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
        # A directory that is missing is a disk that is not mounted, not a missing login.
        _require_directory(target)
        return None
    try:
        status = os.fstat(descriptor)
        _require_regular(status, target)
        _require_trusted(status, target)
        if _POSIX and status.st_mode & 0o066:
            _warn_once(
                path,
                "Other users of this host can get at the token in %r (mode %04o). Set its mode to 600; "
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
    """Replace `target` with `data`; return False, with nothing written, if the lock was lost."""
    directory, name = os.path.split(target)
    # One name, not a random one: only the holder of the lock uses it, and what a killed
    # process left there, a token in it, is gone with the next write.
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
        # Else the lock was deleted, and somebody else has it or had it.
        alone = lock.is_in_place() and _is_at(temporary, ours)
        if alone:
            os.replace(temporary, target)
            _sync_directory(directory)
        return alone
    finally:
        if _is_at(temporary, ours):
            os.unlink(temporary)


def _is_at(path: str, status: os.stat_result) -> bool:
    """Whether the file of this status is the one under that name."""
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
    """Set the mode of a file that was just made: the umask may have taken too much of it."""
    if hasattr(os, "fchmod"):  # pragma: no branch  # Windows has it from Python 3.13 on
        os.fchmod(descriptor, 0o600)


def _give_to_owner(descriptor: int, target: str) -> None:
    """Make an open file the owner's of `target`, if that is not us; a new one of root's is its directory's owner's."""
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
            "The token file %r belonged to user %d, and belongs now to the one who refreshed the token. "
            "Let all who use it run as one user.",
            owner.st_uid,
        )


def _resolve(path: str) -> str:
    """Return the path without symbolic links; PermissionError for one that may be planted."""
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
    """Refuse, as root, to follow another user's link to where that user might not write."""
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
    """Refuse what another user, who is not root, has put where everybody may.

    So does Linux for symbolic links, where it is set to (proc(5), fs.protected_symlinks).
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
