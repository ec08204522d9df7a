from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest
from joserfc import jwe
from joserfc.jwk import OctKey

from httpx_refresh._errors import StoreError
from httpx_refresh.stores import FileStore, MemoryStore, TokenStore
from httpx_refresh.stores.base import ClaimLock, WakingStore
from httpx_refresh.stores.encrypted import EncryptedStore, generate_key
from httpx_refresh.testing import check_store

from .secrecy import everything_said, everything_shown

KEY = bytes(range(32))
OTHER = bytes(range(1, 33))
TEXT = '{"access_token": "secret"}'


def sealed(store: TokenStore, *keys: bytes | str, **options: Any) -> EncryptedStore:
    return EncryptedStore(store, keys or [KEY], **{"slot": "slot", **options})


def header_of(text: str | None) -> dict[str, str]:
    assert text is not None
    part = text.split(".")[0]
    header: dict[str, str] = json.loads(base64.urlsafe_b64decode(part + "=="))
    return header


@pytest.mark.anyio
@pytest.mark.parametrize("allow_plaintext", [False, True])
async def test_around_a_memory_store_it_keeps_the_contract(allow_plaintext: bool) -> None:
    store = MemoryStore()
    await check_store(lambda: sealed(store, allow_plaintext=allow_plaintext))


@pytest.mark.anyio
async def test_around_a_file_store_it_keeps_the_contract(tmp_path: Path) -> None:
    await check_store(lambda: EncryptedStore(FileStore(tmp_path / "token"), [KEY]))


@pytest.mark.anyio
async def test_the_store_within_holds_nothing_of_the_text() -> None:
    inner = MemoryStore()
    assert await sealed(inner).replace(None, TEXT)
    held = await inner.load()
    assert held is not None
    for part in held.split("."):
        assert b"secret" not in base64.urlsafe_b64decode(part + "==")
    assert header_of(held).keys() == {"alg", "enc", "kid", "slot"}
    assert header_of(held)["alg"] == "dir"
    assert header_of(held)["enc"] == "A256GCM"


@pytest.mark.anyio
async def test_any_jose_library_opens_the_text_with_the_key() -> None:
    inner = MemoryStore()
    await sealed(inner).replace(None, TEXT)
    held = await inner.load()
    assert held is not None
    registry = jwe.JWERegistry(algorithms=["dir", "A256GCM"], strict_check_header=False)
    assert jwe.decrypt_compact(held, OctKey.import_key(KEY), registry=registry).plaintext == (
        TEXT.encode()
    )


@pytest.mark.anyio
async def test_the_same_text_is_never_encrypted_the_same_way_twice() -> None:
    seen = set()
    for _ in range(2):
        inner = MemoryStore()
        await sealed(inner).replace(None, TEXT)
        seen.add(await inner.load())
    assert len(seen) == 2


@pytest.mark.anyio
@pytest.mark.parametrize("plain", [False, True])
async def test_a_probe_that_swaps_a_text_for_itself_leaves_what_it_found(plain: bool) -> None:
    """Somebody without a key may plant a plain text; encrypting it would make it valid."""
    inner = MemoryStore()
    await (inner if plain else sealed(inner)).replace(None, TEXT)
    found = await inner.load()
    store = sealed(inner, allow_plaintext=True)
    assert await store.replace(TEXT, TEXT)
    assert not await store.replace("other", "other")
    assert await inner.load() == found


@pytest.mark.anyio
async def test_an_old_key_reads_until_the_next_write_which_takes_the_first_key() -> None:
    inner = MemoryStore()
    await sealed(inner, OTHER).replace(None, TEXT)
    rotated = sealed(inner, KEY, OTHER)
    assert await rotated.load() == TEXT
    assert await rotated.replace(TEXT, "next")
    assert await sealed(inner, KEY).load() == "next"
    with pytest.raises(StoreError, match="not among keys"):
        await sealed(inner, OTHER).load()


@pytest.mark.anyio
async def test_an_unknown_key_is_an_error_and_the_text_stays() -> None:
    inner = MemoryStore()
    await sealed(inner, OTHER).replace(None, TEXT)
    seen = await inner.load()
    for old in (None, TEXT):
        with pytest.raises(StoreError, match="with a key that is not among keys"):
            await sealed(inner, KEY).replace(old, "new")
    assert await inner.load() == seen


@pytest.mark.anyio
async def test_a_text_copied_to_another_slot_does_not_open_there(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    first = FileStore(tmp_path / "token.json")
    await EncryptedStore(first, [KEY]).replace(None, TEXT)
    copy = await first.load()
    assert copy is not None
    for name in ("other.json", "b/token.json"):
        second = FileStore(tmp_path / name)
        await second.replace(None, copy)
        with pytest.raises(StoreError, match="written for another slot"):
            await EncryptedStore(second, [KEY]).load()
        assert await EncryptedStore(second, [KEY], slot=first.slot).load() == TEXT


@pytest.mark.anyio
async def test_what_0_1_wrote_under_the_files_name_is_read_and_bound_to_its_path_by_the_next_write(
    tmp_path: Path,
) -> None:
    inner = FileStore(tmp_path / "token.json")
    await EncryptedStore(inner, [KEY], slot="token.json").replace(None, TEXT)
    store = EncryptedStore(inner, [KEY])
    assert await store.load() == TEXT
    twice = EncryptedStore(EncryptedStore(inner, [KEY], slot="x"), [KEY])
    assert twice.earlier_slots == ()
    assert EncryptedStore(store, [KEY]).earlier_slots == ("token.json",)
    assert await store.replace(TEXT, "next")
    with pytest.raises(StoreError, match="another slot"):
        await EncryptedStore(inner, [KEY], slot="token.json").load()
    assert await EncryptedStore(inner, [KEY], slot=inner.slot).load() == "next"


@pytest.mark.anyio
async def test_a_slot_that_was_given_is_the_only_one_that_is_read(tmp_path: Path) -> None:
    inner = FileStore(tmp_path / "token.json")
    await EncryptedStore(inner, [KEY], slot="token.json").replace(None, TEXT)
    with pytest.raises(StoreError, match="another slot"):
        await EncryptedStore(inner, [KEY], slot="mine").load()


@pytest.mark.anyio
async def test_the_slot_is_authenticated_and_not_only_written_beside_the_text() -> None:
    inner = MemoryStore()
    await sealed(inner, slot="one").replace(None, TEXT)
    held = await inner.load()
    assert held is not None
    other = MemoryStore()
    await sealed(other, slot="two").replace(None, TEXT)
    target = await other.load()
    assert target is not None
    forged = ".".join([target.split(".")[0], *held.split(".")[1:]])
    with pytest.raises(StoreError, match="no JWE, or altered"):
        await sealed(MemoryStore(forged), slot="two").load()


@pytest.mark.anyio
@pytest.mark.parametrize("part", range(5))
async def test_a_text_altered_anywhere_does_not_open(part: int) -> None:
    inner = MemoryStore()
    await sealed(inner).replace(None, TEXT)
    held = await inner.load()
    assert held is not None
    parts = held.split(".")
    parts[part] = "A" + parts[part][1:] if parts[part][:1] != "A" else "B" + parts[part][1:]
    altered = MemoryStore(".".join(parts))
    with pytest.raises(StoreError, match="does not open") as caught:
        await sealed(altered).load()
    assert "secret" not in everything_said(caught.value)
    assert await altered.load() == ".".join(parts)


@pytest.mark.anyio
@pytest.mark.parametrize("junk", ["", "token", "a.b.c.d.e", "....", "é.b.c.d.e", "e30.a.b.c.d"])
async def test_what_is_neither_encrypted_nor_json_is_an_error(junk: str) -> None:
    with pytest.raises(StoreError, match="no JWE, or altered"):
        await sealed(MemoryStore(junk)).load()


@pytest.mark.anyio
async def test_a_text_that_somebody_with_the_key_wrote_as_no_utf8_is_an_error_without_it() -> None:
    inner = MemoryStore()
    await sealed(inner).replace(None, TEXT)
    header = header_of(await inner.load())
    registry = jwe.JWERegistry(algorithms=["dir", "A256GCM"], strict_check_header=False)
    text = jwe.encrypt_compact(header, b"secret\xff", OctKey.import_key(KEY), registry=registry)
    with pytest.raises(StoreError) as caught:
        await sealed(MemoryStore(text)).load()
    assert "secret" not in everything_said(caught.value)


@pytest.mark.anyio
async def test_an_empty_text_is_a_text() -> None:
    inner = MemoryStore()
    assert await sealed(inner).replace(None, "")
    assert await sealed(inner).load() == ""
    assert await sealed(inner).replace("", "x")


@pytest.mark.anyio
async def test_a_plain_text_is_refused_with_the_next_step_and_stays() -> None:
    inner = MemoryStore(TEXT)
    with pytest.raises(StoreError, match="allow_plaintext=True") as caught:
        await sealed(inner).load()
    assert "secret" not in everything_said(caught.value)
    with pytest.raises(StoreError):
        await sealed(inner).replace(None, "new")
    assert await inner.load() == TEXT


@pytest.mark.anyio
async def test_a_plain_text_that_is_allowed_is_read_and_encrypted_by_the_next_write() -> None:
    inner = MemoryStore(TEXT)
    store = sealed(inner, allow_plaintext=True)
    assert await store.load() == TEXT
    assert not await store.replace("other", "new")
    assert await store.replace(TEXT, '{"access_token": "next"}')
    assert "enc" in header_of(await inner.load())
    assert await sealed(inner).load() == '{"access_token": "next"}'


class Crossed(MemoryStore):
    """Another process writes once between this one's load and its swap."""

    __slots__ = ("crossing",)

    def __init__(self, crossing: str) -> None:
        super().__init__()
        self.crossing: str | None = crossing

    async def replace(self, old: str | None, new: str) -> bool:
        crossing, self.crossing = self.crossing, None
        if crossing is not None:
            theirs = MemoryStore()
            await sealed(theirs).replace(None, crossing)
            assert await super().replace(await self.load(), await theirs.load() or "")
        return await super().replace(old, new)


@pytest.mark.anyio
async def test_a_swap_crossed_by_the_same_text_encrypted_anew_still_wins() -> None:
    inner = Crossed(TEXT)
    inner.crossing = None
    await sealed(inner).replace(None, TEXT)
    for new in ("new", TEXT):
        inner.crossing = held = await sealed(inner).load()
        assert held is not None
        assert await sealed(inner).replace(held, new)
        assert await sealed(inner).load() == new


@pytest.mark.anyio
async def test_a_swap_crossed_by_another_text_loses() -> None:
    inner = Crossed("theirs")
    assert not await sealed(inner).replace(None, "ours")
    assert await sealed(inner).load() == "theirs"


@pytest.mark.anyio
async def test_a_store_within_that_refuses_without_a_change_has_lost() -> None:
    class Refuses(MemoryStore):
        __slots__ = ()

        async def replace(self, old: str | None, new: str) -> bool:
            return False

    assert not await sealed(Refuses()).replace(None, "ours")


@pytest.mark.anyio
async def test_long_texts_are_worked_on_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[bool] = []
    here = threading.get_ident()
    for name in ("encrypt_compact", "decrypt_compact"):
        real = getattr(jwe, name)

        def watched(*args: Any, real: Any = real, **options: Any) -> Any:
            threads.append(threading.get_ident() != here)
            return real(*args, **options)

        monkeypatch.setattr(jwe, name, watched)
    inner = MemoryStore()
    await sealed(inner).replace(None, "short")
    await sealed(inner).load()
    assert threads == [False, False]
    threads.clear()
    long = "x" * 1_048_576
    assert await sealed(inner).replace("short", long)
    assert await sealed(inner).load() == long
    assert threads == [False, True, True]


@pytest.mark.parametrize(
    "key", [b"", bytes(31), bytes(33), "x" * 32, "not base64!", "é", bytes(32).hex(), None, 7]
)
def test_a_key_of_another_size_is_refused_and_its_position_named(key: Any) -> None:
    with pytest.raises(ValueError, match=r"keys\[1\] is not 32 bytes"):
        sealed(MemoryStore(), KEY, key)


@pytest.mark.parametrize("key", [KEY, base64.urlsafe_b64encode(KEY).decode()])
def test_one_key_instead_of_a_sequence_is_refused(key: Any) -> None:
    with pytest.raises(TypeError, match="sequence of keys"):
        EncryptedStore(MemoryStore(), key, slot="x")


def test_no_key_is_refused() -> None:
    with pytest.raises(ValueError, match="keys is empty"):
        EncryptedStore(MemoryStore(), [], slot="x")


@pytest.mark.anyio
async def test_a_key_is_bytes_or_their_base64_text_with_or_without_padding() -> None:
    inner = MemoryStore()
    text = base64.urlsafe_b64encode(KEY).decode()
    assert text.endswith("=")
    await sealed(inner, text).replace(None, TEXT)
    assert await sealed(inner, text.rstrip("=")).load() == TEXT
    assert await sealed(inner, KEY).load() == TEXT


@pytest.mark.anyio
async def test_a_generated_key_is_new_each_time_and_works() -> None:
    first, second = generate_key(), generate_key()
    assert first != second
    inner = MemoryStore()
    await sealed(inner, first).replace(None, TEXT)
    assert await sealed(inner, second, first).load() == TEXT


@pytest.mark.parametrize("slot", ["", 7, b"slot"])
def test_a_slot_s_name_is_text(slot: Any) -> None:
    with pytest.raises(ValueError, match="give one"):
        EncryptedStore(MemoryStore(), [KEY], slot=slot)


def test_a_store_without_a_name_needs_one() -> None:
    with pytest.raises(ValueError, match="MemoryStore has no slot name"):
        EncryptedStore(MemoryStore(), [KEY])
    with pytest.raises(ValueError, match="slot"):
        EncryptedStore(MemoryStore(), [KEY], slot="")


def test_the_slot_is_the_inner_stores_unless_given() -> None:
    inner = EncryptedStore(FileStore("/mnt/a/token.json"), [KEY])
    assert inner.slot == "/mnt/a/token.json"
    assert EncryptedStore(inner, [KEY]).slot == "/mnt/a/token.json"
    assert EncryptedStore(inner, [KEY], slot="mine").slot == "mine"


@pytest.mark.parametrize(
    "key", [bytes(32), b"\xff" * 32, bytes([1, 2] * 16), b"password" * 4, "A" * 43]
)
def test_a_key_that_is_easily_guessed_is_refused_and_its_position_named(key: bytes | str) -> None:
    with pytest.raises(ValueError, match=r"keys\[1\] is easily guessed"):
        sealed(MemoryStore(), KEY, key)


@pytest.mark.parametrize("keys", [(KEY, b"sesame" * 2), (KEY, b"sesame--" * 4), "sesame"])
def test_no_error_of_the_construction_shows_a_key(keys: Any) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        EncryptedStore(MemoryStore(), keys, slot="slot")
    shown = everything_shown(caught.value)
    assert "sesame" not in shown
    assert repr(KEY) not in shown


class Waking(MemoryStore):
    """A store that reports changes, and keeps its calls."""

    __slots__ = ("asked",)

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str | None] = []

    async def changed(self, old: str | None) -> None:
        self.asked.append(old)


@pytest.mark.anyio
async def test_it_has_hold_and_changed_if_the_store_within_has_them(tmp_path: Path) -> None:
    inner = Waking()
    store = sealed(inner)
    assert not isinstance(store, ClaimLock)
    assert isinstance(store, WakingStore)
    await store.changed(None)
    await store.changed("another")
    await store.replace(None, TEXT)
    await store.changed(TEXT)
    await store.changed(None)
    assert inner.asked == [None, await inner.load()]

    file = FileStore(tmp_path / "token.json")
    locked = sealed(file)
    assert isinstance(locked, ClaimLock)
    assert not isinstance(locked, WakingStore)
    hold = await locked.hold()
    assert hold is not None
    assert await file.hold() is None
    hold.release()


class Fails(MemoryStore):
    """A store whose errors hold its arguments."""

    __slots__ = ()

    async def replace(self, old: str | None, new: str) -> bool:
        raise OSError("the disk is full")


@pytest.mark.anyio
async def test_an_error_of_the_store_within_holds_no_text() -> None:
    with pytest.raises(OSError, match="the disk is full") as caught:
        await sealed(Fails()).replace(None, "ses" + "ame")
    assert "sesame" not in everything_shown(caught.value)


def test_another_process_opens_it_by_another_path(tmp_path: Path) -> None:
    store = EncryptedStore(FileStore(tmp_path / "token.json"), [KEY])
    anyio.run(store.replace, None, TEXT)
    script = (
        "import anyio\n"
        "from httpx_refresh.stores import FileStore\n"
        "from httpx_refresh.stores.encrypted import EncryptedStore\n"
        "store = EncryptedStore(FileStore('token.json'), [bytes(range(32))])\n"
        "print(anyio.run(store.load))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == TEXT


def test_the_repr_names_the_store_within_and_no_key() -> None:
    store = EncryptedStore(FileStore("token.json"), [generate_key()])
    assert repr(store) == "EncryptedStore(FileStore('token.json'))"
