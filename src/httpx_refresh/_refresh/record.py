"""The text in the store: read it, and write the next one. Pure functions on plain values, no I/O, no clock.

The text is one JSON object: the token response as the server sent it, `expires_at`, and under "httpx_refresh" the
library's notes: `generation`, `redeeming`, `uncertain`, `dead`, and `revoked` for a slot whose token was given back.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

from .. import _json
from .._token import NAMED, Token, epoch, lifetime

NOTES = "httpx_refresh"

# What a token's `extra` never stands for in the text.
_OURS = frozenset({*NAMED, NOTES})

# What an access token's lifetime is told by: it goes with the access token, and is not kept for the next one.
_LIFETIME = ("expires_at", "expires_in", "expires_in_sec")

_MOST_GENERATIONS = 2**53  # what every reader of JSON can count to (RFC 8259 §6)

ABANDONED_AFTER = 300.0
"""A claim whose `since` is this many seconds past needs no watching: no clock is that wrong."""


class BadText(ValueError):
    """The text is no token; says why, and never what it was."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Who spends the refresh token (or was spending it), and since when on that host's own clock."""

    by: str
    nonce: str
    since: float


@dataclass(frozen=True, slots=True)
class Dead:
    """The server refused the refresh token with this hash: what it said, and when."""

    refresh_token_sha256: str
    error: str | None
    error_description: str | None
    since: float


@dataclass(frozen=True, slots=True)
class Record:
    """One text of the store, read. `token` is None where the slot is empty or its token was revoked."""

    text: str | None
    token: Token | None = None
    generation: int = 0
    redeeming: Claim | None = None
    uncertain: Claim | None = None
    dead: Dead | None = None
    revoked: bool = False

    def is_dead(self) -> bool:
        """Whether the refresh token held here is the one that was refused."""
        return (
            self.dead is not None
            and self.token is not None
            and self.token.refresh_token is not None
            and self.dead.refresh_token_sha256 == fingerprint(self.token.refresh_token)
        )

    def same_base(self, other: Record) -> bool:
        """Whether no result came between these two: claims and latches may have."""
        mine, its = self.token, other.token
        return (
            self.generation == other.generation
            and mine is not None
            and its is not None
            and mine.access_token == its.access_token
            and mine.refresh_token == its.refresh_token
        )


def fingerprint(refresh_token: str) -> str:
    """Hash a refresh token, so that a latch can be tied to it without holding it."""
    return hashlib.sha256(refresh_token.encode("utf-8", "surrogatepass")).hexdigest()


def parse(text: str | None) -> Record:
    """Read a text of the store; raise `BadText` if it is no token."""
    if text is None:
        return Record(None)
    try:
        fields = _json.read(text)
    except RecursionError:
        raise BadText("it is nested too deeply") from None
    except ValueError:  # The decoder's own error holds the whole text.
        raise BadText("it is not JSON") from None
    if not isinstance(fields, dict):
        raise BadText("it is not a JSON object")
    if not all(map(_json.is_shallow, fields.values())):
        raise BadText("it is nested too deeply")
    notes = fields.pop(NOTES, {})
    if not isinstance(notes, dict):
        raise BadText(f"its {NOTES!r} notes are not an object")
    generation = notes.get("generation", 0)
    if type(generation) is not int or not 0 <= generation < _MOST_GENERATIONS:
        raise BadText("its generation is not a whole number")
    revoked = "revoked" in notes
    if "access_token" not in fields and not revoked:
        raise BadText("it has no access_token")
    return Record(
        text,
        None if revoked else _token(fields),
        generation,
        _claim(notes, "redeeming"),
        _claim(notes, "uncertain"),
        _dead(notes),
        revoked,
    )


def _token(fields: dict[str, Any]) -> Token:
    token_type = fields.get("token_type")
    try:
        return Token(
            fields["access_token"],
            fields.get("refresh_token") or None,
            # `expires_in` alone says nothing: nobody knows since when.
            epoch(fields.get("expires_at")),
            # Interned, and in a dict of its own size: a process may hold the tokens of very many tenants.
            sys.intern(token_type) if isinstance(token_type, str) else "Bearer",
            {sys.intern(name): value for name, value in fields.items() if name not in NAMED},
        )
    except (TypeError, ValueError) as error:
        raise BadText(f"its token is not usable: {error}") from None


def _claim(notes: dict[str, Any], name: str) -> Claim | None:
    note = notes.get(name)
    if note is None:
        return None
    if isinstance(note, dict):
        by, nonce, since = note.get("by"), note.get("nonce"), note.get("since")
        if isinstance(by, str) and isinstance(nonce, str) and _is_moment(since):
            return Claim(by, nonce, since)
    raise BadText(f"its note {name!r} is not readable")


def _dead(notes: dict[str, Any]) -> Dead | None:
    note = notes.get("dead")
    if note is None:
        return None
    if isinstance(note, dict):
        digest, since = note.get("refresh_token_sha256"), note.get("since")
        error, description = note.get("error"), note.get("error_description")
        if (
            isinstance(digest, str)
            and _is_moment(since)
            and (error is None or isinstance(error, str))
            and (description is None or isinstance(description, str))
        ):
            return Dead(digest, error, description, since)
    raise BadText("its note 'dead' is not readable")


def _is_moment(value: Any) -> TypeGuard[float]:
    return type(value) in (int, float)  # not a bool; and what was read is finite


def write(
    token: Token,
    generation: int,
    *,
    redeeming: Claim | None = None,
    uncertain: Claim | None = None,
    dead: Dead | None = None,
) -> str:
    """Write the text that holds this token and these notes."""
    fields: dict[str, Any] = {
        "access_token": token.access_token,
        "token_type": token.token_type,
        **{name: value for name, value in token.extra.items() if name not in _OURS},
    }
    if token.refresh_token is not None:
        fields["refresh_token"] = token.refresh_token
    if token.expires_at is not None:
        fields["expires_at"] = token.expires_at
    notes: dict[str, Any] = {"generation": generation}
    for claim, name in ((redeeming, "redeeming"), (uncertain, "uncertain")):
        if claim is not None:
            notes[name] = {"by": claim.by, "nonce": claim.nonce, "since": claim.since}
    if dead is not None:
        notes["dead"] = {
            "refresh_token_sha256": dead.refresh_token_sha256,
            "error": dead.error,
            "error_description": dead.error_description,
            "since": dead.since,
        }
    return _json.write({**fields, NOTES: notes})


def merged(held: Token, new: Token, *, now: float) -> Token:
    """Put a token response over the token it replaces: what was not sent again is kept (RFC 6749 §6).

    The lifetime is not kept: it was the old access token's. The new one's is told from `now` where it only has an end:
    else nobody who reads the text could tell a short-lived token from one that is about to expire.
    """
    extra = {name: value for name, value in held.extra.items() if name not in _LIFETIME}
    extra.update(new.extra)
    if new.expires_at is not None and new.expires_at > now and lifetime(extra) is None:
        extra["expires_in"] = new.expires_at - now
    refresh_token = new.refresh_token or held.refresh_token
    return Token(new.access_token, refresh_token, new.expires_at, new.token_type, extra)


def revoked(record: Record, *, since: float) -> str:
    """Write the text of a slot whose token was given back: a refresh under way must not bring it back to life."""
    return _json.write({NOTES: {"generation": record.generation + 1, "revoked": since}})


Step = Literal["adopt", "none", "no_refresh_token", "dead", "wait", "spend"]


def decide(record: Record, *, stale: str | None, now: float, abandoned: bool) -> Step:
    """Say what whoever needs a token has to do about what the store holds.

    Args:
        record: the store's text, just read.
        stale: the access token that will not do (it was refused, or it expires); None if any that holds will do.
        now: epoch seconds.
        abandoned: whether a claim on the record is known to be nobody's any more.
    """
    token = record.token
    if token is None:
        return "none"
    if token.access_token != stale and (token.expires_at is None or token.expires_at > now):
        return "adopt"
    if token.refresh_token is None:
        return "no_refresh_token"
    if record.is_dead():
        return "dead"
    if record.redeeming is not None and not abandoned:
        return "wait"
    return "spend"
