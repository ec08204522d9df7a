"""A store that wraps another one: it encrypts the text and binds it to its slot."""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, cast

try:
    from joserfc import jwe
    from joserfc.errors import JoseError
    from joserfc.jwk import OctKey
    from joserfc.registry import HeaderParameter
except ImportError:
    raise ImportError(
        "EncryptedStore needs joserfc: pip install 'httpx-refresh[encrypted]'"
    ) from None

from .._errors import StoreError, frameless
from .._threads import run_blocking
from .base import Release, TokenStore

__all__ = ["EncryptedStore", "generate_key"]

_KEY_SIZE = 32  # bytes
_FEWEST_BYTES = 8  # different ones; of 10**50 random keys one has less
_ALGORITHMS = ["dir", "A256GCM"]
# Characters of a text that take about a millisecond; a longer one is worked on in a thread.
_QUICK = 65_536


class _Registry(jwe.JWERegistry):
    max_ciphertext_length = 64 * 1_048_576  # bytes; what bounds the text is the store


_REGISTRY = _Registry(
    {"slot": HeaderParameter("the hash of the slot's name", "str", required=True)},
    algorithms=_ALGORITHMS,
)


def generate_key() -> str:
    """Return a new random key for `EncryptedStore`: 32 bytes as URL-safe base64 text."""
    return base64.urlsafe_b64encode(secrets.token_bytes(_KEY_SIZE)).decode()


class EncryptedStore:
    """Encrypts the text that another store holds, so that its backups and readers learn no token.

    The text becomes a JWE in compact serialization (RFC 7516), AES-256-GCM with the key used
    directly (RFC 7518 §4.5, §5.3). Its protected header names the key by a short hash, and the
    slot by another: a text that was copied to another slot cannot be decrypted there.

    To change the key, put a new one in front and keep the old one behind it until every text has been
    written again; each refresh writes its text. All hosts must have the new key before one of them
    encrypts with it.

    A text that cannot be decrypted (unknown key, another slot, altered, or plain text) stays as it
    is, and raises a `StoreError` that says what to do. The inner store's errors pass through, without
    the frames that hold texts. The inner store's swap alone decides who wins. A swap of a text for
    itself leaves its ciphertext, or a plain text, as it is.

    Encryption hides the text from those who can read the store. It does not stop those who can write
    to the store from restoring an earlier text of the same slot.

    Args:
        store: where the encrypted text is kept. If it has `hold` or `changed`, so has this store.
        keys: 32 bytes each, or their URL-safe base64 text as `generate_key` makes it. The first
            writes, all read.
        slot: the slot's name, the same for all who share it. By default the store's own: a file's
            absolute path, a Redis key, a SQL table and row. Required for a store that has no `slot`
            of its own, and for a file that is reached by different paths. Version 0.1 bound texts to
            shorter names; those are read too, and the next write binds them to the whole name.
        allow_plaintext: whether a plain JSON text is read too; the text that replaces it is
            encrypted. Use it only while you introduce encryption: with it, anybody who can write to
            the store can put a token of their own there.

    Raises:
        ValueError: no key, a key that is not 32 bytes or is easily guessed (its position is named),
            or no slot.
        TypeError: `keys` is one key instead of a sequence.
    """

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_allow_plaintext",
        "_earlier",
        "_keys",
        "_kid",
        "_slot",
        "_slots_read",
        "_store",
    )

    # They exist only if the inner store has them, because callers look for them. So they are kept in the instance's
    # dict: a slot would be an attribute of the class in any case.
    hold: Callable[[], Awaitable[Release | None]]
    changed: Callable[[str | None], Awaitable[None]]

    @frameless
    def __init__(
        self,
        store: TokenStore,
        keys: Sequence[bytes | str],
        *,
        slot: str | None = None,
        allow_plaintext: bool = False,
    ) -> None:
        if isinstance(keys, (bytes, bytearray, str)):
            raise TypeError("keys must be a sequence of keys, not one key")
        if not isinstance(keys, Iterable):
            raise TypeError(f"keys must be a sequence of keys, not {type(keys).__name__}")
        read = [_read_key(key, position) for position, key in enumerate(keys)]
        if not read:
            raise ValueError("keys is empty")
        name = getattr(store, "slot", None) if slot is None else slot
        if not isinstance(name, str) or not name:
            raise ValueError(
                f"{type(store).__name__} has no slot name of its own: give one, slot=..., "
                "the same for all who share the slot"
            )
        self._store = store
        self._keys = {_kid(key): _import(key) for key in read}
        self._kid = _kid(read[0])
        self._slot = name
        self._earlier: tuple[str, ...] = getattr(store, "earlier_slots", ()) if slot is None else ()
        self._slots_read = frozenset(_hash("slot", one.encode()) for one in (name, *self._earlier))
        self._allow_plaintext = allow_plaintext
        if (hold := getattr(store, "hold", None)) is not None:
            self.hold = hold
        if getattr(store, "changed", None) is not None:
            self.changed = self._changed

    @property
    def slot(self) -> str:
        """The name of the slot that the texts are bound to."""
        return self._slot

    @property
    def earlier_slots(self) -> tuple[str, ...]:
        """The names that version 0.1 bound texts to. They are read, and never written."""
        return self._earlier

    @property
    def one_loop(self) -> str | None:
        """How to make an inner store that serves every event loop; None if it does."""
        line: str | None = getattr(self._store, "one_loop", None)
        return line

    @frameless
    async def load(self) -> str | None:
        """Return the text the slot holds, decrypted, or None if it holds nothing."""
        return await self._open(await self._store.load())

    @frameless
    async def replace(self, old: str | None, new: str) -> bool:
        """Write `new`, encrypted, if the slot holds exactly `old`; else return False."""
        sealed: str | None = None
        held = await self._store.load()
        while await self._open(held) == old:
            # One text has many ciphertexts, so the swap is made from the one that was just read. A text
            # that stays the same is not encrypted anew: else a plain text that somebody planted would be.
            if held is not None and old == new:
                sealed = held
            elif sealed is None:
                sealed = await self._seal(new)
            if await self._store.replace(held, sealed):
                return True
            seen, held = held, await self._store.load()
            if held == seen:
                return False
        return False

    @frameless
    async def _changed(self, old: str | None) -> None:
        held = await self._store.load()
        if await self._open(held) == old:
            await self._store.changed(held)  # type: ignore[attr-defined]  # only called if it has one

    async def _seal(self, text: str) -> str:
        if len(text) > _QUICK:
            return await run_blocking(self._encrypt, text, group=EncryptedStore)
        return self._encrypt(text)

    async def _open(self, held: str | None) -> str | None:
        if held is None:
            return None
        if held.lstrip().startswith("{"):
            if self._allow_plaintext:
                return held
            raise StoreError(
                f"{self._store!r} holds a text that is not encrypted; it is left as it is. "
                "To take it over, set allow_plaintext=True until the next refresh"
            )
        if len(held) > _QUICK:
            return await run_blocking(self._decrypt, held, group=EncryptedStore)
        return self._decrypt(held)

    def _encrypt(self, text: str) -> str:
        header = {
            "alg": "dir",
            "enc": "A256GCM",
            "kid": self._kid,
            "slot": _hash("slot", self._slot.encode()),
        }
        return jwe.encrypt_compact(header, text, self._keys[self._kid], registry=_REGISTRY)

    def _decrypt(self, held: str) -> str:
        try:
            return self._decrypted(held)
        except (JoseError, ValueError) as error:  # ValueError: not a JWE, not base64, not UTF-8
            reason = str(error) if isinstance(error, _Unreadable) else "it is no JWE, or altered"
        # Raised outside the handler: a UnicodeDecodeError holds the text, and must not become the __context__.
        raise StoreError(
            f"the text in {self._store!r} does not open: {reason}. It is left as it is. "
            "Check the keys, and that the slot is the one it was written to"
        )

    def _decrypted(self, held: str) -> str:
        opened = jwe.decrypt_compact(held, self._find_key, registry=_REGISTRY)
        if opened.protected["slot"] not in self._slots_read:
            raise _Unreadable(
                "it was written for another slot, or for this one under another name or path; give "
                "that name with slot=, or log in again"
            )
        return (opened.plaintext or b"").decode()

    def _find_key(self, message: Any) -> OctKey:
        kid: object = message.headers().get("kid")
        key = self._keys.get(str(kid))
        if key is None:
            raise _Unreadable(
                "it was written with a key that is not among keys; add that key behind the first"
            )
        return key

    def __repr__(self) -> str:
        return f"EncryptedStore({self._store!r})"


class _Unreadable(ValueError):
    """The reason why a text cannot be decrypted, in the words of a `StoreError`'s message."""


def _import(key: bytes) -> OctKey:
    # joserfc says what this returns to Python 3.11 and later only.
    return cast("OctKey", OctKey.import_key(key))  # pyright: ignore[reportUnknownMemberType]  # joserfc does not type it


def _hash(purpose: str, data: bytes) -> str:
    digest = hashlib.sha256(f"httpx-refresh {purpose}\0".encode() + data).digest()
    return base64.urlsafe_b64encode(digest[:12]).decode()


def _kid(key: bytes) -> str:
    return _hash("key", key)


def _read_key(key: bytes | str, position: int) -> bytes:
    raw = _decoded(key) if isinstance(key, str) else key
    if not isinstance(raw, bytes) or len(raw) != _KEY_SIZE:
        raise ValueError(
            f"keys[{position}] is not {_KEY_SIZE} bytes, nor URL-safe base64 text of as many: "
            "generate_key() makes one"
        )
    if len(set(raw)) < _FEWEST_BYTES:
        raise ValueError(
            f"keys[{position}] is easily guessed: generate_key() makes one that is not"
        )
    return raw


def _decoded(key: str) -> bytes | None:
    try:
        # urlsafe_b64decode skips what is not base64; a key with a typo must be refused.
        return base64.b64decode(
            key.encode() + b"=" * (-len(key) % 4), altchars=b"-_", validate=True
        )
    except (binascii.Error, ValueError):
        return None
