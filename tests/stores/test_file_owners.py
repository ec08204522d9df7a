"""Owners and modes of a token's file, and files that another user has put in its place."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from httpx_refresh.stores import FileStore
from httpx_refresh.stores import file as file_module

from .secrecy import everything_shown

pytestmark = pytest.mark.skipif(
    os.name != "posix", reason="files have no owners and modes on Windows"
)

ME = 1001
SERVICE = 1002
MALLORY = 1003


class Owners:
    """Pretends that this process is another user, and that files belong to the users that a test names."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, me: int) -> None:
        self.me = me
        self.given: list[tuple[str, int]] = []
        self.refuses_to_give = False
        self._others: dict[tuple[int, int], int] = {}
        self._lstat = os.lstat
        for name in ("stat", "lstat", "fstat"):
            monkeypatch.setattr(os, name, self._wrapped(getattr(os, name)))
        monkeypatch.setattr(os, "geteuid", lambda: self.me)
        monkeypatch.setattr(os, "fchown", self._fchown)

    def _wrapped(self, real: Any) -> Any:
        def status(*args: Any, **options: Any) -> os.stat_result:
            found: os.stat_result = real(*args, **options)
            fields = list(found)
            fields[stat.ST_UID] = self._others.get((found.st_dev, found.st_ino), self.me)
            return os.stat_result(fields)

        return status

    def give(self, path: Path, user: int) -> None:
        """Set the owner of a file, a link or a directory."""
        found = self._lstat(path)
        self._others[found.st_dev, found.st_ino] = user

    def _fchown(self, descriptor: int, user: int, group: int) -> None:
        if self.refuses_to_give:
            raise PermissionError(errno.EPERM, "not root")
        self.given.append((os.readlink(f"/proc/self/fd/{descriptor}"), user))


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch) -> Owners:
    return Owners(monkeypatch, ME)


@pytest.fixture
def shared(tmp_path: Path, owners: Owners) -> Path:
    """A directory that root owns and everybody may write to, such as /tmp."""
    directory = tmp_path / "shared"
    directory.mkdir()
    directory.chmod(0o1777)
    owners.give(directory, 0)
    return directory


@pytest.fixture(autouse=True)
def nothing_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_module, "_warned", set())


@pytest.mark.anyio
@pytest.mark.parametrize("planted", ["token.json", "token.json.lock", "token.json.owner"])
async def test_a_file_that_another_user_has_put_where_everybody_may_is_refused(
    shared: Path, owners: Owners, planted: str
) -> None:
    (shared / planted).write_text("planted")
    owners.give(shared / planted, MALLORY)
    if planted == "token.json.lock":
        # A swap that can win, because one that loses does not need the lock.
        (shared / "token.json").write_text("planted")
        owners.give(shared / "token.json", 0)
    store = FileStore(shared / "token.json")
    calls: dict[str, list[Callable[[], Awaitable[object]]]] = {
        "token.json": [store.load, lambda: store.replace("planted", "sesame")],
        "token.json.lock": [lambda: store.replace("planted", "sesame")],
        "token.json.owner": [store.hold],
    }
    for call in calls[planted]:
        with pytest.raises(PermissionError, match=rf"user {MALLORY}.*may be planted") as caught:
            await call()
        assert "sesame" not in everything_shown(caught.value)
    assert (shared / planted).read_text() == "planted"


@pytest.mark.anyio
@pytest.mark.parametrize("user", [0, ME])
async def test_a_file_of_ones_own_or_of_roots_is_taken_where_everybody_may_write(
    shared: Path, owners: Owners, user: int
) -> None:
    (shared / "token.json").write_text("text")
    owners.give(shared / "token.json", user)
    assert await FileStore(shared / "token.json").replace("text", "next")


@pytest.mark.anyio
async def test_a_file_of_the_directorys_owner_is_taken_and_so_is_any_in_a_directory_of_ones_own(
    shared: Path, owners: Owners
) -> None:
    (shared / "token.json").write_text("text")
    owners.give(shared / "token.json", SERVICE)
    owners.give(shared, SERVICE)
    assert await FileStore(shared / "token.json").load() == "text"
    owners.give(shared, 0)
    os.chmod(shared, stat.S_IRWXU)
    assert await FileStore(shared / "token.json").load() == "text"


@pytest.mark.anyio
async def test_a_link_that_another_user_has_planted_is_not_followed(
    tmp_path: Path, shared: Path, owners: Owners
) -> None:
    (tmp_path / "loot").mkdir()
    (shared / "app").symlink_to(tmp_path / "loot")
    store = FileStore(shared / "app" / "token.json")
    owners.give(shared / "app", MALLORY)
    for call in (store.load, lambda: store.replace(None, "text"), store.hold):
        with pytest.raises(PermissionError, match="may be planted"):
            await call()
    assert os.listdir(tmp_path / "loot") == []
    # The same link is allowed if it belongs to the operator.
    owners.give(shared / "app", ME)
    assert await store.replace(None, "text")
    assert (tmp_path / "loot" / "token.json").read_text() == "text"


@pytest.mark.anyio
async def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "token.json.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="lock") as caught:
        await FileStore(tmp_path / "token.json").replace(None, "text")
    assert caught.value.errno == errno.ELOOP
    assert os.listdir(tmp_path) == ["token.json.lock"]


@pytest.mark.anyio
async def test_a_lock_that_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "token.json.lock")
    with pytest.raises(OSError, match="not a regular file"):
        await FileStore(tmp_path / "token.json").replace(None, "text")


@pytest.mark.anyio
async def test_what_root_writes_stays_the_services_and_so_do_the_locks(
    tmp_path: Path, owners: Owners
) -> None:
    path = tmp_path / "token.json"
    path.write_text("text")
    owners.give(path, SERVICE)
    owners.me = 0
    store = FileStore(path)
    hold = await store.hold()
    assert hold is not None
    hold.release()
    assert await store.replace("text", "next")
    assert owners.given == [
        (f"{tmp_path}/token.json.owner", SERVICE),
        (f"{tmp_path}/token.json.lock", SERVICE),
        (f"{tmp_path}/.token.json.tmp", SERVICE),
    ]


@pytest.mark.anyio
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can do it")
async def test_in_earnest_what_root_writes_stays_the_services(tmp_path: Path) -> None:
    path = tmp_path / "token.json"
    path.write_text("text")
    os.chown(path, SERVICE, SERVICE)
    store = FileStore(path)
    hold = await store.hold()
    assert hold is not None
    assert await store.replace("text", "next")
    hold.release()
    for name in ("token.json", "token.json.lock", "token.json.owner"):
        found = (tmp_path / name).stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (
            SERVICE,
            SERVICE,
            0o600,
        )


@pytest.mark.anyio
async def test_a_file_that_root_makes_is_the_directorys_owners(
    tmp_path: Path, owners: Owners, shared: Path
) -> None:
    owners.give(tmp_path, SERVICE)
    owners.me = 0
    assert await FileStore(tmp_path / "token.json").replace(None, "text")
    assert owners.given == [
        (f"{tmp_path}/token.json.lock", SERVICE),
        (f"{tmp_path}/.token.json.tmp", SERVICE),
    ]
    # If everybody may write to the directory, its owner does not matter.
    owners.given.clear()
    owners.give(shared, SERVICE)
    assert await FileStore(shared / "token.json").replace(None, "text")
    assert owners.given == []


@pytest.mark.anyio
async def test_root_follows_a_users_link_only_to_what_is_that_users(
    tmp_path: Path, owners: Owners
) -> None:
    for name in ("service", "root"):
        (tmp_path / name).mkdir()
    owners.give(tmp_path / "service", SERVICE)
    owners.give(tmp_path / "root", 0)
    for link, target in (
        ("new", "root/new"),
        ("old", "root/old"),
        ("own", "service/file"),
        ("nowhere", "absent/token"),
    ):
        (tmp_path / "service" / link).symlink_to(tmp_path / target)
        owners.give(tmp_path / "service" / link, SERVICE)
    (tmp_path / "root" / "old").write_text("root's")
    owners.give(tmp_path / "root" / "old", 0)
    owners.me = 0
    for link in ("new", "old"):
        store = FileStore(tmp_path / "service" / link)
        for call in (store.load, lambda store=store: store.replace(None, "text"), store.hold):
            with pytest.raises(PermissionError, match="leads to what is not theirs"):
                await call()
    assert [one.name for one in (tmp_path / "root").iterdir()] == ["old"]
    with pytest.raises(FileNotFoundError):
        await FileStore(tmp_path / "service" / "nowhere").load()
    assert await FileStore(tmp_path / "service" / "own").replace(None, "text")
    # Root follows root's own links anywhere.
    owners.give(tmp_path / "service" / "new", 0)
    assert await FileStore(tmp_path / "service" / "new").replace(None, "text")


@pytest.mark.anyio
async def test_who_cannot_keep_the_files_owner_writes_and_warns_once(
    tmp_path: Path, owners: Owners, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "token.json"
    store = FileStore(path)
    owners.refuses_to_give = True
    await store.replace(None, "0")
    for number in range(2):
        owners.give(path, SERVICE)
        assert await store.replace(str(number), str(number + 1))
    (record,) = caplog.records
    assert record.getMessage().startswith(f"The token file '{path}' belonged to user {SERVICE}")


@pytest.mark.anyio
async def test_a_file_that_others_can_read_is_warned_about_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, mode in (("a", 0o644), ("b", 0o620), ("c", 0o600)):
        (tmp_path / name).write_text("sesame")
        (tmp_path / name).chmod(mode)
        assert await FileStore(tmp_path / name).load() == "sesame"
        assert await FileStore(tmp_path / name).load() == "sesame"
    assert [(record.levelno, record.getMessage().split(". ")[0]) for record in caplog.records] == [
        (
            logging.WARNING,
            f"Other users of this host can access the token in '{tmp_path}/a' (mode 0644)",
        ),
        (
            logging.WARNING,
            f"Other users of this host can access the token in '{tmp_path}/b' (mode 0620)",
        ),
    ]


@pytest.mark.anyio
async def test_warnings_do_not_fill_the_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_module, "_MOST_WARNINGS", 2)
    for name in "abc":
        (tmp_path / name).write_text("text")
        (tmp_path / name).chmod(0o644)
        await FileStore(tmp_path / name).load()
    assert len(caplog.records) == 2


@pytest.mark.anyio
@pytest.mark.parametrize("mask", [0, 0o077, 0o777])
async def test_under_any_umask_the_files_are_the_owners_to_read_and_write(
    tmp_path: Path, mask: int
) -> None:
    store = FileStore(tmp_path / "token.json")
    before = os.umask(mask)
    try:
        assert await store.replace(None, "one")
        hold = await store.hold()
        assert await store.replace("one", "two")
    finally:
        os.umask(before)
    assert hold is not None
    hold.release()
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in os.scandir(tmp_path)}
    assert modes == {"token.json": 0o600, "token.json.lock": 0o600, "token.json.owner": 0o600}


@pytest.mark.anyio
async def test_where_files_have_no_owners_none_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on Windows."""
    monkeypatch.setattr(file_module, "_POSIX", False)
    monkeypatch.delattr(os, "geteuid")
    monkeypatch.delattr(os, "fchown")
    (tmp_path / "link").symlink_to("token.json")
    (tmp_path / "token.json").write_text("text")
    (tmp_path / "token.json").chmod(0o666)
    assert await FileStore(tmp_path / "link").replace("text", "next")
    assert (tmp_path / "token.json").read_text() == "next"
    assert not caplog.records


@pytest.mark.anyio
@pytest.mark.parametrize("suffix", [".lock", ".owner"])
async def test_root_gives_nothing_away_that_has_another_name(
    tmp_path: Path, owners: Owners, suffix: str
) -> None:
    """If a system lets users link to other users' files, a lock may be a link to a file of root."""
    owners.give(tmp_path, SERVICE)
    roots = tmp_path / "roots"
    roots.write_text("root's")
    roots.chmod(0o644)
    (tmp_path / f"token.json{suffix}").hardlink_to(roots)
    owners.give(roots, 0)
    owners.me = 0
    store = FileStore(tmp_path / "token.json")
    release = await store.hold()
    assert release is not None
    release.release()
    assert await store.replace(None, "text")
    assert [path for path, _ in owners.given if path.endswith(suffix)] == []
    assert stat.S_IMODE(roots.stat().st_mode) == 0o644


@pytest.mark.anyio
async def test_a_lock_that_appears_while_it_is_made_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = tmp_path / "token.json", os.open
    planted: list[str] = []

    def opened(name: Any, flags: int, *mode: int) -> int:
        if str(name).endswith(".lock") and flags & os.O_CREAT and not planted:
            planted.append(f"{name}")
            (tmp_path / "another").touch(0o644)
            (tmp_path / "token.json.lock").hardlink_to(tmp_path / "another")
        return real(name, flags, *mode)

    monkeypatch.setattr(os, "open", opened)
    assert await FileStore(path).replace(None, "text")
    assert planted
    assert stat.S_IMODE((tmp_path / "another").stat().st_mode) == 0o644
