"""The locks of a file: for the time of a write, and for the time of a claim."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import filelock
import pytest

from httpx_refresh.stores import FileStore
from httpx_refresh.stores import file as file_module
from httpx_refresh.stores.base import ClaimLock, Release

LONG = 30.0  # seconds after which a test that waits has failed


async def held(store: FileStore) -> Release:
    hold = await store.hold()
    assert hold is not None
    return hold


@pytest.mark.anyio
async def test_a_writer_whose_lock_was_deleted_under_it_begins_again_and_finds_that_it_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "token.json")
    real_fsync = os.fsync
    won: list[bool] = []

    def meanwhile(descriptor: int) -> None:
        real_fsync(descriptor)
        if not won:
            won.append(True)
            os.unlink(path + ".lock")
            won[0] = file_module._replace(path, None, "theirs")

    monkeypatch.setattr(os, "fsync", meanwhile)
    assert not await FileStore(path).replace(None, "ours")
    assert won == [True]
    assert await FileStore(path).load() == "theirs"


@pytest.mark.anyio
async def test_a_lock_that_is_deleted_before_it_is_taken_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "token.json"
    real = filelock.lock_descriptor
    deleted: list[str] = []

    def meanwhile(descriptor: int, **options: Any) -> bool:
        if not deleted:
            deleted.append("token.json.lock")
            os.unlink(tmp_path / "token.json.lock")
        return real(descriptor, **options)

    monkeypatch.setattr(filelock, "lock_descriptor", meanwhile)
    assert await FileStore(path).replace(None, "text")
    assert deleted
    assert (tmp_path / "token.json.lock").exists()


@pytest.mark.anyio
async def test_a_lock_that_is_deleted_again_and_again_is_a_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_module, "_LOCK_TIMEOUT", 0.0)
    monkeypatch.setattr(file_module._Lock, "is_in_place", lambda _: False)
    store = FileStore(tmp_path / "token.json")
    with pytest.raises(TimeoutError, match="lock was not to be had"):
        await store.replace(None, "text")
    in_place = iter([True, False])
    monkeypatch.setattr(file_module._Lock, "is_in_place", lambda _: next(in_place))
    with pytest.raises(TimeoutError, match="lock was not to be had"):
        await store.replace(None, "text")
    assert await store.load() is None
    assert os.listdir(tmp_path) == ["token.json.lock"]


@pytest.mark.anyio
async def test_a_file_system_without_locks_is_an_error_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(descriptor: int, **_: Any) -> bool:
        raise OSError("no locks here")

    monkeypatch.setattr(filelock, "lock_descriptor", no_locks)
    store = FileStore(tmp_path / "token.json")
    with pytest.raises(OSError, match="no locks here"):
        await store.replace(None, "text")
    with pytest.raises(OSError, match="no locks here"):
        await store.hold()
    assert await store.load() is None


@pytest.mark.anyio
async def test_one_holds_the_lock_of_a_claim_and_nobody_else_while_reads_and_writes_go_on(
    tmp_path: Path,
) -> None:
    store, other = FileStore(tmp_path / "token.json"), FileStore(tmp_path / "token.json")
    assert isinstance(store, ClaimLock)
    hold = await held(store)
    assert await store.hold() is None
    assert await other.hold() is None
    assert await other.replace(None, "text")
    assert await other.load() == "text"
    hold.release()
    again = await held(other)
    assert await store.hold() is None
    again.release()


@pytest.mark.anyio
async def test_a_file_and_a_link_to_it_have_one_lock(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("token.json")
    hold = await held(FileStore(tmp_path / "token.json"))
    assert await FileStore(tmp_path / "link").hold() is None
    hold.release()
    assert sorted(os.listdir(tmp_path)) == ["link", "token.json.owner"]


@pytest.mark.anyio
async def test_only_the_first_hold_says_that_nobody_can_have_held_before(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "token.json")
    firsts = []
    for _ in range(3):
        hold = await held(store)
        firsts.append(hold.is_first)
        hold.release()
    os.unlink(tmp_path / "token.json.owner")
    hold = await held(store)
    firsts.append(hold.is_first)
    hold.release()
    assert firsts == [True, False, False, True]


@pytest.mark.anyio
async def test_a_release_is_done_once_and_takes_nothing_from_the_next_holder(
    tmp_path: Path,
) -> None:
    store = FileStore(tmp_path / "token.json")
    first = await held(store)
    first.release()
    second = await held(store)
    first.release()
    assert await store.hold() is None
    second.release()
    second.release()


@pytest.mark.anyio
async def test_a_release_raises_nothing_if_the_system_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError("the system refuses")

    with monkeypatch.context() as broken:
        broken.setattr(filelock, "unlock_descriptor", fail)
        hold = await held(FileStore(tmp_path / "token.json"))
    hold.release()
    (await held(FileStore(tmp_path / "token.json"))).release()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_release_needs_neither_the_thread_nor_the_loop_that_took_the_lock(
    tmp_path: Path, backend: str
) -> None:
    store = FileStore(tmp_path / "token.json")
    hold = anyio.run(held, store, backend=backend)
    assert anyio.run(store.hold, backend=backend) is None
    thread = threading.Thread(target=hold.release)
    thread.start()
    thread.join()
    anyio.run(held, store, backend=backend).release()


@pytest.mark.anyio
async def test_a_lock_that_is_taken_for_a_caller_who_has_left_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(tmp_path / "token.json")
    begun, go_on = threading.Event(), threading.Event()
    real = file_module._try_lock

    def slowly(target: str, suffix: str) -> Any:
        begun.set()
        assert go_on.wait(LONG)
        return real(target, suffix)

    with monkeypatch.context() as slow:
        slow.setattr(file_module, "_try_lock", slowly)
        async with anyio.create_task_group() as group:
            group.start_soon(store.hold)
            await anyio.to_thread.run_sync(begun.wait, LONG)
            group.cancel_scope.cancel()
        go_on.set()
    with anyio.fail_after(LONG):
        while not (tmp_path / "token.json.owner").exists():
            await anyio.lowlevel.checkpoint()  # Another thread takes it, and releases it.
        hold = None
        while hold is None:
            gc.collect()
            hold = await store.hold()
    hold.release()


HOLDS = """
import subprocess, sys
import anyio
from httpx_refresh.stores import FileStore

hold = anyio.run(FileStore(sys.argv[1]).hold)
child = {child}
print("held" if hold is not None else "not held", child, flush=True)
sys.stdin.readline()
"""
FORKS = """0
import os, time
child = os.fork()
if child == 0:
    hold.release()
    while True:
        time.sleep(60)
"""
EXECS = "subprocess.Popen(['sleep', '600'], close_fds=False).pid"


@contextmanager
def holder(path: Path, child: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a process that holds the lock and has that child; both are killed at the end."""
    script = HOLDS.format(child=child)
    with subprocess.Popen(
        [sys.executable, "-c", script, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        said, number = process.stdout.readline().rsplit(maxsplit=1)
        assert said == "held"
        try:
            yield process, int(number)
        finally:
            process.kill()
            if int(number):
                os.kill(int(number), 9)


@pytest.mark.processes
def test_a_process_that_is_killed_has_released_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "token.json"
    with holder(path, "0") as (process, _):
        assert anyio.run(FileStore(path).hold) is None
        process.kill()
        process.wait()
        hold = anyio.run(held, FileStore(path))
        assert not hold.is_first
        hold.release()


@pytest.mark.processes
@pytest.mark.skipif(sys.platform == "win32", reason="nothing forks on Windows")
@pytest.mark.parametrize("child", [FORKS, EXECS])
def test_no_child_of_a_process_that_is_killed_keeps_or_releases_the_lock(
    tmp_path: Path, child: str
) -> None:
    path = tmp_path / "token.json"
    with holder(path, child) as (process, number):
        assert anyio.run(FileStore(path).hold) is None
        process.kill()
        process.wait()
        os.kill(number, 0)  # the child lives
        anyio.run(held, FileStore(path)).release()


def test_a_forked_child_closes_what_it_inherits_and_releases_nothing(tmp_path: Path) -> None:
    """The hooks of a fork, without one."""
    hold = anyio.run(held, FileStore(tmp_path / "token.json"))
    (descriptor,) = file_module._held
    kept = os.dup(descriptor)  # as the parent keeps it
    file_module._close_inherited()
    assert file_module._held == set()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    hold._pid = -1  # type: ignore[attr-defined]  # this process is now another one
    hold.release()
    assert anyio.run(FileStore(tmp_path / "token.json").hold) is None
    os.close(kept)
    anyio.run(held, FileStore(tmp_path / "token.json")).release()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_forty_threads_of_the_application_do_not_keep_the_file_from_being_read(
    tmp_path: Path,
) -> None:
    """Sync endpoints of a web framework wait for a token like this, through `anyio.from_thread`."""
    store = FileStore(tmp_path / "token.json")

    def endpoint() -> str | None:
        return anyio.from_thread.run(store.load)

    waiting = [asyncio.create_task(anyio.to_thread.run_sync(endpoint)) for _ in range(60)]
    with anyio.fail_after(LONG):
        assert await asyncio.gather(*waiting) == [None] * 60
