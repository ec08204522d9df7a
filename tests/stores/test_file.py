from __future__ import annotations

import errno
import os
import stat
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from filelock import FileLock

from httpx_refresh import Token
from httpx_refresh._oauth.answer import MOST, Answer, meaning
from httpx_refresh._refresh.record import Record, merged, write
from httpx_refresh.stores import FileStore, TokenStore
from httpx_refresh.stores import file as file_module
from httpx_refresh.stores.encrypted import EncryptedStore, generate_key
from httpx_refresh.testing import check_store

from .secrecy import everything_said


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.anyio
async def test_a_file_store_keeps_the_contract(tmp_path: Path) -> None:
    await check_store(lambda: FileStore(tmp_path / "token.json"))


@pytest.mark.anyio
async def test_a_file_as_another_tool_left_it_is_read_and_swapped(tmp_path: Path) -> None:
    path = tmp_path / "token.json"
    path.write_bytes(b'{"access_token": "a"}\r\n')
    store = FileStore(str(path))
    assert await store.load() == '{"access_token": "a"}\r\n'
    assert await store.replace('{"access_token": "a"}\r\n', "line\r\nline\n")
    assert path.read_bytes() == b"line\r\nline\n"


@pytest.mark.anyio
async def test_an_empty_file_holds_an_empty_text_which_is_not_nothing(tmp_path: Path) -> None:
    path = tmp_path / "token.json"
    path.touch()
    assert await FileStore(path).load() == ""
    assert not await FileStore(path).replace(None, "x")


@pytest.mark.anyio
async def test_the_file_and_its_lock_are_readable_by_the_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "token.json"
    path.write_text("old")
    path.chmod(0o644)
    before = os.umask(0)
    try:
        assert await FileStore(path).replace("old", "new")
    finally:
        os.umask(before)
    assert mode_of(path) == 0o600
    assert mode_of(tmp_path / "token.json.lock") == 0o600


@pytest.mark.anyio
async def test_a_symbolic_link_stays_one_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "token.json"
    link = tmp_path / "link.json"
    link.symlink_to(target)
    store = FileStore(link)
    assert await store.load() is None
    assert await store.replace(None, "one")
    assert await store.replace("one", "two")
    assert link.is_symlink()
    assert target.read_text() == "two"
    assert sorted(os.listdir(tmp_path)) == ["link.json", "real"]
    assert sorted(os.listdir(tmp_path / "real")) == ["token.json", "token.json.lock"]


@pytest.mark.anyio
async def test_a_link_and_its_target_are_one_slot(tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "token.json")
    handles = iter([FileStore(link), FileStore(tmp_path / "token.json")] * 3)
    await check_store(lambda: next(handles))


@pytest.mark.anyio
async def test_a_step_up_from_where_a_link_leads_is_a_step_up_from_there(tmp_path: Path) -> None:
    (tmp_path / "real" / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "below")
    store = FileStore(f"{tmp_path}/link/.././token.json")
    assert await store.replace(None, "text")
    assert (tmp_path / "real" / "token.json").read_text() == "text"


@pytest.mark.anyio
async def test_a_link_that_is_turned_elsewhere_is_followed_anew(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    link = tmp_path / "link"
    link.symlink_to("a")
    store = FileStore(link)
    assert await store.load() == "a"
    link.unlink()
    link.symlink_to("b")
    assert await store.load() == "b"
    assert await store.replace("b", "c")
    assert (tmp_path / "b").read_text() == "c"


@pytest.mark.anyio
async def test_a_lone_file_name_means_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = FileStore("token.json")
    assert await store.load() is None
    assert await store.replace(None, "x")
    assert (tmp_path / "token.json").read_text() == "x"


@pytest.mark.anyio
async def test_a_missing_directory_is_an_error_that_names_it_and_is_not_created(
    tmp_path: Path,
) -> None:
    store = FileStore(tmp_path / "absent" / "token.json")
    with pytest.raises(FileNotFoundError, match="directory of the token file does not exist"):
        await store.load()
    with pytest.raises(FileNotFoundError, match="absent"):
        await store.replace(None, "x")
    assert os.listdir(tmp_path) == []


@pytest.mark.anyio
async def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="not a regular file"):
        await FileStore(tmp_path / "fifo").load()
    with pytest.raises(IsADirectoryError):
        await FileStore(tmp_path).load()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="loop") as caught:
        await FileStore(tmp_path / "loop").load()
    assert caught.value.errno == errno.ELOOP


@pytest.mark.anyio
@pytest.mark.parametrize("sealed", [False, True])
async def test_the_tokens_of_the_largest_answer_that_is_read_can_be_saved(
    tmp_path: Path, sealed: bool
) -> None:
    """Every two bytes of it are written as six, and fields of earlier answers are kept beside them."""
    room = MOST - len('{"access_token": "A", "refresh_token": ""}')
    body = f'{{"access_token": "A", "refresh_token": "{"é" * (room // 2)}"}}'.encode()
    token = meaning(Answer(200, {}, body), now=1.0).token
    assert token is not None
    held = Token("B", extra={"kept": "x" * 100_000})
    text = write(Record(None, merged(held, token, now=1.0), 1), rev="v")
    store: TokenStore = FileStore(tmp_path / "token.json")
    if sealed:
        store = EncryptedStore(store, [generate_key()])
    assert await store.replace(None, text)
    assert await store.load() == text


@pytest.mark.anyio
async def test_more_than_eight_mebibytes_are_neither_read_nor_written(tmp_path: Path) -> None:
    path = tmp_path / "token.json"
    store = FileStore(path)
    fits = "x" * 8_388_608
    assert await store.replace(None, fits)
    assert await store.load() == fits
    with pytest.raises(OSError, match="more than 8388608 bytes") as caught:
        await store.replace(fits, fits + "x")
    assert "xxxx" not in everything_said(caught.value)
    assert await store.load() == fits
    path.write_text(fits + "x")
    with pytest.raises(OSError, match="more than 8388608 bytes"):
        await store.load()


@pytest.mark.anyio
async def test_bytes_that_are_no_text_are_an_error_that_shows_none_of_them(tmp_path: Path) -> None:
    path = tmp_path / "token.json"
    path.write_bytes(b'{"access_token": "secret-\xff"}')
    with pytest.raises(ValueError, match="does not hold UTF-8 text") as caught:
        await FileStore(path).load()
    assert "secret" not in everything_said(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.anyio
async def test_a_text_that_cannot_be_written_is_an_error_that_does_not_show_it(
    tmp_path: Path,
) -> None:
    store = FileStore(tmp_path / "token.json")
    with pytest.raises(ValueError, match="lone surrogate") as caught:
        await store.replace(None, "secret-\ud800")
    assert "secret" not in everything_said(caught.value)
    assert os.listdir(tmp_path) == []


def fail(*_: Any, **__: Any) -> None:
    raise OSError(errno.EIO, "the disk is gone")


@pytest.mark.anyio
@pytest.mark.parametrize("step", ["fsync", "replace"])
async def test_a_write_that_fails_leaves_the_old_text_and_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    store = FileStore(tmp_path / "token.json")
    await store.replace(None, "old")
    with monkeypatch.context() as broken:
        broken.setattr(os, step, fail)
        with pytest.raises(OSError, match="the disk is gone"):
            await store.replace("old", "new")
    assert await store.load() == "old"
    assert sorted(os.listdir(tmp_path)) == ["token.json", "token.json.lock"]
    assert await store.replace("old", "new")


@pytest.mark.anyio
async def test_what_a_killed_process_left_is_gone_with_the_next_write(tmp_path: Path) -> None:
    (tmp_path / ".token.json.tmp").write_text("half a tok")
    store = FileStore(tmp_path / "token.json")
    assert await store.load() is None
    assert await store.replace(None, "x")
    assert sorted(os.listdir(tmp_path)) == ["token.json", "token.json.lock"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "number, raised", [(errno.EACCES, False), (errno.EINVAL, False), (errno.EIO, True)]
)
async def test_a_directory_that_cannot_be_synced_at_all_is_no_failed_write_but_a_failing_disk_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, raised: bool
) -> None:
    synced: list[bool] = []

    def sync(descriptor: int) -> None:
        is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        synced.append(is_directory)
        if is_directory:
            raise OSError(number, "directory")

    monkeypatch.setattr(os, "fsync", sync)
    errors: list[OSError] = []
    try:
        assert await FileStore(tmp_path / "token.json").replace(None, "x")
    except OSError as error:
        errors.append(error)
    assert synced == [False, True]
    assert [error.errno for error in errors] == ([number] if raised else [])


@pytest.mark.anyio
async def test_the_event_loop_never_touches_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[int] = set()
    real_open, real_lstat = os.open, os.lstat

    def watched_open(*args: Any, **options: Any) -> int:
        threads.add(threading.get_ident())
        return real_open(*args, **options)

    def watched_lstat(*args: Any, **options: Any) -> os.stat_result:
        threads.add(threading.get_ident())
        return real_lstat(*args, **options)

    monkeypatch.setattr(os, "open", watched_open)
    monkeypatch.setattr(os, "lstat", watched_lstat)
    store = FileStore(tmp_path / "token.json")
    assert await store.replace(None, "x")
    assert await store.load() == "x"
    assert threads
    assert threading.get_ident() not in threads


@pytest.mark.anyio
async def test_a_lock_that_is_held_for_too_long_is_a_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_module, "_LOCK_TIMEOUT", 0.0)
    store = FileStore(tmp_path / "token.json")
    with FileLock(tmp_path / "token.json.lock"):
        with pytest.raises(TimeoutError, match="lock was not to be had for 0 seconds"):
            await store.replace(None, "x")
        assert await store.load() is None
    assert await store.replace(None, "x")


@pytest.mark.anyio
async def test_a_writer_waits_for_the_one_that_holds_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock excludes the threads of one process."""
    reached, go_on = threading.Event(), threading.Event()
    real_replace = os.replace

    def slow_replace(source: str, target: str) -> None:
        reached.set()
        go_on.wait(60)
        real_replace(source, target)

    monkeypatch.setattr(os, "replace", slow_replace)
    # Not a list: the order of the two threads is not defined.
    won: dict[str, bool] = {}

    async def swap(new: str) -> None:
        won[new] = await FileStore(tmp_path / "token.json").replace(None, new)

    async with anyio.create_task_group() as group:
        group.start_soon(swap, "first")
        await anyio.to_thread.run_sync(reached.wait, 60)
        group.start_soon(swap, "second")
        await anyio.wait_all_tasks_blocked()
        assert won == {}
        go_on.set()
    assert won == {"first": True, "second": False}
    assert (tmp_path / "token.json").read_text() == "first"


@pytest.mark.anyio
async def test_who_waits_for_the_lock_sleeps_between_two_tries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that waits must not take the processor that the other one needs."""
    path = tmp_path / "token.json"
    slept: list[float] = []
    with ExitStack() as locks:
        locks.enter_context(FileLock(f"{path}.lock", thread_local=False))

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 3:
                locks.close()

        clock = SimpleNamespace(sleep=sleep, monotonic=time.monotonic)
        monkeypatch.setattr(file_module, "time", clock)
        assert await FileStore(path).replace(None, "text")
    assert slept == [file_module._LOCK_POLL] * 3


@pytest.mark.anyio
async def test_a_link_in_the_place_of_what_is_written_does_not_become_the_token_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who may write to the directory moves the new text away, and leaves a link to it there."""
    path, temporary, elsewhere = (tmp_path / name for name in ("t", ".t.tmp", "elsewhere"))
    path.write_text("old")
    real_fsync = os.fsync

    def meanwhile(descriptor: int) -> None:
        real_fsync(descriptor)
        if not elsewhere.exists():
            temporary.rename(elsewhere)
            temporary.symlink_to(elsewhere)

    monkeypatch.setattr(os, "fsync", meanwhile)
    assert await FileStore(path).replace("old", "new")
    assert not path.is_symlink()
    assert path.read_text() == "new"


@pytest.mark.anyio
async def test_as_many_links_are_followed_as_linux_follows_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "0").write_text("text")
    for number in range(1, 42):
        (tmp_path / str(number)).symlink_to(str(number - 1))
    assert await FileStore(tmp_path / "40").load() == "text"
    with pytest.raises(OSError, match="symbolic links"):
        await FileStore(tmp_path / "41").load()


def test_threads_that_count_in_one_file_lose_no_step(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "count")

    async def count() -> None:
        for _ in range(10):
            won = False
            while not won:
                held = await store.load()
                won = await store.replace(held, str(int(held or 0) + 1))

    threads = [threading.Thread(target=anyio.run, args=(count,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "count").read_text() == "40"


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_a_path_that_names_no_file_is_refused_at_construction(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        FileStore(path)


@pytest.mark.parametrize("path", [None, 3, b"token.json"])
def test_what_is_no_path_is_refused_at_construction(path: Any) -> None:
    with pytest.raises(TypeError, match=r"path|PathLike"):
        FileStore(path)


def test_the_repr_names_the_file() -> None:
    assert repr(FileStore("xero-token.json")) == "FileStore('xero-token.json')"


def test_the_path_is_the_one_that_was_given() -> None:
    assert FileStore(Path("a") / "xero.json").path == os.path.join("a", "xero.json")


def test_the_slot_is_the_whole_path_and_was_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert FileStore("/mnt/a/xero.json").slot == "/mnt/a/xero.json"
    monkeypatch.chdir(tmp_path)
    assert FileStore("xero.json").slot == str(tmp_path / "xero.json")
    assert FileStore("/mnt/a/xero.json").earlier_slots == ("xero.json",)
