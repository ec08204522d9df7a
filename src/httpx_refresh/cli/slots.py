"""The slot that a command works on: how it is opened, checked and described.

A slot is the place where a store keeps the text of one token. `state_of`, `is_to_be_used` and
`refresh_token_expires_at` judge a stored token; they are pure functions of plain values.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .._errors import StoreError
from .._refresh.host import THIS_HOST
from .._refresh.record import Record
from .._refresh.slot import Slot
from .._token import Token, epoch, lifetime, seconds
from ..stores.file import FileStore
from ..stores.urls import open_store
from .console import Problem, moment
from .settings import NO_STORE, Settings, read_text, warn_of_readers

if TYPE_CHECKING:
    from .._refresh.record import Claim
    from ..stores.base import TokenStore

# Token responses give the lifetime of the refresh token in one of these fields: Intuit's name, and GitHub's.
_REFRESH_TOKEN_LIFETIME = ("x_refresh_token_expires_in", "refresh_token_expires_in")


_STORE_TIMEOUT = 20.0  # seconds; half of it is how long one call of a store may take


def open_slot(settings: Settings, *, allow_plaintext: bool = False) -> Slot:
    """Return the slot that the settings name, without connecting to its store."""
    if settings.store is None:
        raise Problem(NO_STORE)
    keys = _keys(settings.encrypt_key_file)
    inner = _open(settings.store)
    if isinstance(inner, FileStore) and not keys:
        warn_of_readers(inner.path, "a token")
    store = _open(settings.store, keys=keys, allow_plaintext=allow_plaintext) if keys else inner
    return Slot(store, THIS_HOST, refresh_timeout=_STORE_TIMEOUT)


def _keys(path: str | None) -> list[str]:
    if path is None:
        return []
    warn_of_readers(path, "keys")
    lines = read_text(path, "key file").split()
    if not lines:
        raise Problem(f"the key file {path!r} is empty; `httpx-refresh generate-key` makes a key")
    return lines


def _open(url: str, **options: Any) -> TokenStore:
    if url.lower().startswith("memory:"):
        raise Problem("what is put into memory: is gone when the command ends; use another store")
    try:
        return open_store(url, **options)
    except (ValueError, ImportError) as error:
        raise Problem(str(error)) from None


async def prepare(settings: Settings) -> Slot:
    """Prepare the slot for a login: make its table if there is none, read it, and check that it can be written.

    The contents of the slot stay unchanged until the person has logged in. An empty slot is still empty after a login
    that was given up, and a plain text in an encrypted store, which anybody may have put there, is not encrypted. The
    check is a swap that loses. A store may accept that and still refuse a swap that wins; then the token is not saved,
    and the login reports it.

    Raises:
        StoreError: the slot cannot be read or written.
    """
    slot = open_slot(settings, allow_plaintext=True)
    # Checked below the encryption, which compares texts before it writes.
    inner = _open(settings.store or "")
    create_table = getattr(inner, "create_table", None)
    if create_table is not None:
        try:
            await create_table()
        except Exception as error:  # Any error of the database.
            raise StoreError(
                f"{slot.store!r}: its table could not be made ({type(error).__name__}). Nothing was sent. Repair the "
                "store, then log in."
            ) from error
    await slot.read()
    if isinstance(inner, FileStore) and not _may_write_beside(inner.path):
        raise StoreError(
            f"{slot.store!r} could not be written: its directory is not writable. Nothing was sent."
        )
    nobodys = f"no text of any store: {secrets.token_hex(16)}"
    await Slot(inner, THIS_HOST, refresh_timeout=_STORE_TIMEOUT).swap(nobodys, Record(None))
    return slot


def _may_write_beside(path: str) -> bool:
    return os.access(Path(path).resolve().parent, os.W_OK)


def obtained_at(token: Token) -> float | None:
    """Return when the token was issued, in epoch seconds; None if that is not known."""
    life = lifetime(token.extra)
    if token.expires_at is not None and life is not None:
        return token.expires_at - life
    # Salesforce: a string of epoch milliseconds.
    issued_at = seconds(token.extra.get("issued_at"), most=1e14)
    return None if issued_at is None else epoch(issued_at / 1000)


def refresh_token_expires_at(token: Token, idle_lifetime: float | None) -> float | None:
    """Return when an unused refresh token expires, in epoch seconds; None if that is not known."""
    since = obtained_at(token)
    if since is None or token.refresh_token is None:
        return None
    said = (seconds(token.extra.get(name)) for name in _REFRESH_TOKEN_LIFETIME)
    life = next((one for one in said if one is not None), idle_lifetime)
    return None if life is None else since + life


State = Literal["good", "due", "expired", "dead", "revoked", "empty"]


def state_of(token: Token | None, *, dead: bool, revoked: bool, now: float) -> State:
    """Return the state of a stored token in words.

    Args:
        token: the stored token; None if there is none.
        dead: whether the server has refused this refresh token for good.
        revoked: whether the token that was stored was revoked (RFC 7009).
        now: epoch seconds.
    """
    if token is None:
        return "revoked" if revoked else "empty"
    if dead:
        return "dead"
    if token.expires_at is None or token.expires_at > now:
        return "good"
    return "expired" if token.refresh_token is None else "due"


NEEDS_LOGIN = ("expired", "dead", "revoked", "empty")

STATES: dict[State, str] = {
    "good": "good",
    "due": "expired; the next request refreshes it",
    "expired": "expired, and there is no refresh token: log in again",
    "dead": "dead: log in again",
    "revoked": "no token: it was revoked. Log in",
    "empty": "no token: log in",
}


def is_to_be_used(dies_at: float, *, lifetime: float, within: float | None, now: float) -> bool:
    """Whether an unused refresh token should be used now, before it expires.

    Args:
        dies_at: when it expires, in epoch seconds.
        lifetime: seconds that it lives without use.
        within: seconds; a token that expires within this time is used. None: half its lifetime.
        now: epoch seconds.
    """
    return dies_at - now <= (lifetime / 2 if within is None else within)


_UNKNOWN_LIFETIME = 30 * 86_400.0
"""Seconds to assume if the lifetime is not known: that of Salesforce, the shortest known one."""


@dataclass(frozen=True)
class Idle:
    """The remaining life of an unused refresh token, for `status`, `watch` and `keep-alive`.

    Attributes:
        dies_at: when it expires, in epoch seconds; None if that is not known.
        assumed: whether 30 days are assumed, because neither the token nor its provider tells the lifetime.
        due: whether it must be used now, so that it does not expire.
    """

    dies_at: float | None
    assumed: bool
    due: bool


def idle_of(
    token: Token, settings: Settings, *, now: float, within: float | None = None
) -> Idle | None:
    """Return the remaining life of an unused refresh token; None if there is no refresh token.

    Args:
        token: the stored token.
        settings: the settings of its slot.
        now: epoch seconds.
        within: seconds; a token that expires within this time is due. None: half its lifetime.
    """
    if token.refresh_token is None:
        return None
    told = refresh_token_expires_at(token, settings.refresh_token_lifetime())
    dies_at = refresh_token_expires_at(token, _UNKNOWN_LIFETIME) if told is None else told
    since = obtained_at(token)
    if dies_at is None or since is None:
        return Idle(None, assumed=False, due=True)  # Not known; a refresh too many does no harm.
    due = is_to_be_used(dies_at, lifetime=dies_at - since, within=within, now=now)
    return Idle(dies_at, told is None, due)


def describe(record: Record, settings: Settings, now: float) -> dict[str, Any]:
    """Return the contents of a slot without its token, as `status --json` prints them."""
    token = record.token
    dead = record.dead if record.is_dead() else None
    idle = None if token is None else idle_of(token, settings, now=now)
    state = state_of(token, dead=dead is not None, revoked=bool(record.revoked), now=now)
    return {
        "name": settings.name,
        "provider": settings.provider,
        "state": state,
        "generation": record.generation,
        "expires_at": None if token is None else token.expires_at,
        "has_refresh_token": token is not None and token.refresh_token is not None,
        "refresh_token_expires_at": None if idle is None else idle.dies_at,
        "refresh_token_expires_at_assumed": idle is not None and idle.assumed,
        "refresh_token_due": idle is not None and idle.due and state not in NEEDS_LOGIN,
        "scope": None if token is None else _word(token, "scope"),
        "realmId": None if token is None else _word(token, "realmId"),
        "redeeming": _claim(record.redeeming),
        "uncertain": _claim(record.uncertain),
        "dead": None
        if dead is None
        else {
            "error": dead.error,
            "error_description": dead.error_description,
            "since": dead.since,
        },
    }


def _word(token: Token, name: str) -> str | None:
    value = token.extra.get(name)
    return value if isinstance(value, str) else None


def _claim(claim: Claim | None) -> dict[str, Any] | None:
    return None if claim is None else {"by": claim.by, "since": claim.since}


def lines(about: dict[str, Any], now: float) -> list[tuple[str, str]]:
    """Return the result of `describe` for people: a name and a value on each line."""
    found = [("state", STATES[about["state"]]), ("generation", str(about["generation"]))]
    if about["expires_at"] is not None:
        found.append(("access token", _until(about["expires_at"], now)))
    elif about["state"] == "good":
        found.append(("access token", "no expiry is known; it is refreshed when it is refused"))
    if about["refresh_token_expires_at"] is not None:
        words = _until(about["refresh_token_expires_at"], now)
        if about["refresh_token_expires_at_assumed"]:
            words += " (assumed: 30 days without use)"
        if about["refresh_token_due"]:
            words += "; keep-alive would use it now"
        found.append(("refresh token", words))
    elif about["has_refresh_token"]:
        found.append(("refresh token", "present; idle expiry unknown"))
    found += [(name, about[name]) for name in ("scope", "realmId") if about[name]]
    for name, words in (
        ("redeeming", "being refreshed by {by} since {since}"),
        ("uncertain", "the outcome of a refresh by {by} at {since} is unknown"),
    ):
        if about[name] is not None:
            since = moment(about[name]["since"])
            found.append((name, words.format(by=about[name]["by"], since=since)))
    if about["dead"] is not None:
        said = ": ".join(
            part for part in (about["dead"]["error"], about["dead"]["error_description"]) if part
        )
        found.append(("refused", f"at {moment(about['dead']['since'])} ({said or 'no reason'})"))
    return found


def until(about: dict[str, Any], now: float) -> tuple[str, str]:
    """Return in a few words how long the access token and the refresh token of a slot live."""

    def words(moment: float | None) -> str:
        return "" if moment is None else _until(moment, now).partition(",")[0]

    refresh_token = words(about["refresh_token_expires_at"])
    if refresh_token and about["refresh_token_expires_at_assumed"]:
        refresh_token += " (assumed)"
    if about["refresh_token_due"]:
        refresh_token = f"due: {refresh_token}" if refresh_token else "due"
    return words(about["expires_at"]), refresh_token


_UNITS = ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))


def _until(epoch_seconds: float, now: float) -> str:
    left = epoch_seconds - now
    size, unit = next((one for one in _UNITS if abs(left) >= 2 * one[0]), _UNITS[-1])
    words = f"{abs(left) / size:.0f} {unit}"
    when = moment(epoch_seconds)
    return f"expires in {words}, {when}" if left > 0 else f"expired {words} ago, {when}"
