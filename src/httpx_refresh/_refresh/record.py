"""The text in the store: read it, and write the next one. Pure functions on plain values, no I/O, no clock.

The text is one JSON object: the token response as the server sent it, `expires_at`, and under "httpx_refresh" the
library's notes. `Notes` says what they are. It knows nothing of stores, tasks or time.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeGuard

from .._errors import Outcome
from .._token import (
    DEEPEST,
    NAMED,
    Token,
    epoch,
    is_shallow,
    lifetime,
    read_json,
    seconds,
    write_json,
)

NOTES = "httpx_refresh"

# What a token's `extra` never stands for in the text.
_OURS = frozenset({*NAMED, NOTES})

# What an access token's lifetime is told by: it goes with the access token, and is not kept for the next one.
_LIFETIME = ("expires_at", "expires_in", "expires_in_sec")

_MOST_GENERATIONS = 2**53  # what every reader of JSON can count to (RFC 8259 §6)

_MOST_EXTRA = 131_072
"""Bytes of a token response's other fields that are kept: with more, an answer could be spent and never saved."""

MOST_FAILED = 8
"""So many clients' refusals are noted."""

MOST_PATIENCE = 300.0
"""Seconds: the longest `refresh_timeout` that there is, in an argument and in a claim."""

A_DAY = 86_400.0
"""A claim whose `since` is this many seconds past needs no watching: no host's clock is that wrong."""


class BadText(ValueError):
    """The text is no token; says why, and never what it was."""


class Claim(NamedTuple):
    """Who spends the refresh token (or was spending it), and since when on that host's own clock.

    Attributes:
        patience: seconds for which the claimant goes on ("for" in the text), so that watchers with another
            one judge the claim rightly. None in texts of 0.1.
        held: the machine on which an operating system's lock is held for as long as the claim stands (see `ClaimLock`
            and `Host.machine`); None if none is held. Processes of other machines may not see that lock.
    """

    by: str
    nonce: str
    since: float
    patience: float | None = None
    held: str | None = None


class Dead(NamedTuple):
    """The server refused the refresh token with this hash: what it said, and when."""

    refresh_token_sha256: str
    error: str | None
    error_description: str | None
    since: float


class Pause(NamedTuple):
    """How long no process should ask again.

    The pause ends `seconds` after it was first seen, or at `until` by the reader's own clock, whichever is earlier.
    Where a clock is wrong, that costs a request, and no token.
    """

    nonce: str
    seconds: float
    until: float


class Failed(NamedTuple):
    """What the token endpoint answered last, if it brought no token.

    All processes that share the store observe the pause.

    Attributes:
        failures: how many attempts failed in a row.
        client: the fingerprint of the client credentials that were refused; others may try. None: it binds everybody.
        person: whether only a person can help, and the next try may find that somebody has.
    """

    message: str
    outcome: Outcome
    transient: bool
    failures: int
    pause: Pause
    client: str | None = None
    person: bool = False


class Refusals(NamedTuple):
    """What refreshes came to that were made because the API refused an access token.

    Attributes:
        early: how many in a row ended a token early (before its time, and soon after the last such refresh).
        futile: how many in a row brought a token that was refused as well: while there are any, all are in doubt.
        kinds: hashes of the kinds of request that were refused with the token of `generation`.
        generation: which token the verdict is about.
        pause: how long refusals are passed on.
        accepted: how long an acceptance of that token counts, from when it was noted; None if none was noted.
        forbidden: the kinds that were refused with that token before another kind was accepted.
        probed: whether that token was obtained to find out if the API is back.
    """

    early: int
    futile: int
    kinds: tuple[str, ...]
    generation: int
    pause: Pause
    accepted: Pause | None = None
    forbidden: tuple[str, ...] = ()
    probed: bool = False


class AskedClaims(NamedTuple):
    """What refreshes with claims came to that an API asked for.

    Attributes:
        tried: hashes of the claims that the token of `generation` was asked for with, or that were refused for it.
        generation: which token that is.
        times: how many such refreshes there were, none of them long after the one before.
        pause: how long there are no more of them.
    """

    tried: tuple[str, ...]
    generation: int
    times: int
    pause: Pause


_NO_OTHERS: Mapping[str, Any] = MappingProxyType({})


class Record(NamedTuple):
    """One text of the store, read. `token` is None where the slot is empty or its token was revoked.

    Attributes:
        generation: how many tokens this slot has held; it grows with each new one.
        redeeming: the claim of who spends the refresh token now.
        uncertain: the claim under which the refresh token may have been spent without an answer.
        dead: the server's final refusal of the refresh token.
        revoked: when the token was revoked (RFC 7009), in epoch seconds: a refresh under way must not bring it back.
        failed: what the endpoint answered last, if that was no token; one for each client that was refused.
        refusals: what the API's refusals came to.
        issued: when a refresh brought the token, in epoch seconds; None if a login did.
        purpose: what the token is for, as its source declares it (see `Facts`); None if no source said.
        asked_claims: what refreshes with claims came to that an API asked for.
        others: notes of other versions of this library, which are carried along.
    """

    text: str | None
    token: Token | None = None
    generation: int = 0
    redeeming: Claim | None = None
    uncertain: Claim | None = None
    dead: Dead | None = None
    revoked: float | None = None
    failed: tuple[Failed, ...] = ()
    refusals: Refusals | None = None
    issued: float | None = None
    purpose: str | None = None
    asked_claims: AskedClaims | None = None
    others: Mapping[str, Any] = _NO_OTHERS

    def __repr__(self) -> str:
        return f"<Record {self.token!r}, generation {self.generation}>"  # Its text holds secrets.

    def is_dead(self) -> bool:
        """Whether the refresh token held here is the one that was refused."""
        return (
            self.dead is not None
            and self.token is not None
            and self.token.refresh_token is not None
            and self.dead.refresh_token_sha256 == fingerprint(self.token.refresh_token)
        )

    def is_for_another(self, purpose: str | None) -> bool:
        """Whether the token held here is for something else than this; where either is not known, it is not."""
        return (
            self.token is not None
            and self.purpose is not None
            and purpose is not None
            and self.purpose != purpose
        )

    def same_base(self, other: Record) -> bool:
        """Whether no result came between these two: claims and other notes may have."""
        mine, its = self.token, other.token
        if mine is None or its is None:
            return (
                mine is its
                and self.generation == other.generation
                and self.revoked == other.revoked
            )
        return (
            self.generation == other.generation
            and mine.access_token == its.access_token
            and mine.refresh_token == its.refresh_token
        )

    def next_generation(self) -> int:
        """Return the generation of the token that comes next."""
        return self.generation + 1 if self.generation + 1 < _MOST_GENERATIONS else 1


def fingerprint(refresh_token: str) -> str:
    """Hash a refresh token, so that a note can be tied to it without holding it."""
    return hashlib.sha256(refresh_token.encode("utf-8", "surrogatepass")).hexdigest()


def is_blank(text: str | None) -> bool:
    """Whether nothing is there: no text, or that of a file which somebody has made or emptied."""
    return text is None or not text or text.isspace()


def parse(text: str | None) -> Record:
    """Read a text of the store.

    Raises:
        BadText: it is no token.
    """
    if text is None or is_blank(text):
        return Record(text)
    try:
        fields = read_json(text)
    except RecursionError:
        raise BadText("it is nested too deeply") from None
    except ValueError:  # The decoder's own error holds the whole text.
        raise BadText("it is not JSON") from None
    if not isinstance(fields, dict):
        raise BadText("it is not a JSON object")
    if not is_shallow(fields, DEEPEST + 1):
        raise BadText("it is nested too deeply")
    notes = fields.pop(NOTES, {})
    if not isinstance(notes, dict):
        raise BadText(f"its {NOTES!r} notes are not an object")
    generation = notes.get("generation", 0)
    if type(generation) is not int or not 0 <= generation < _MOST_GENERATIONS:
        raise BadText("its generation is not a whole number")
    revoked = notes.get("revoked", 0.0) if "revoked" in notes else None
    if revoked is not None and not _is_number(revoked):
        revoked = 0.0
    if "access_token" not in fields and revoked is None and notes.get("empty") is not True:
        raise BadText("it has no access_token")
    purpose, issued = notes.get("purpose"), epoch(notes.get("issued"))
    others = {name: note for name, note in notes.items() if name not in _KNOWN}
    return Record(
        text,
        None if revoked is not None or "access_token" not in fields else _token(fields),
        generation,
        _claim(notes, "redeeming"),
        _claim(notes, "uncertain"),
        _dead(notes),
        revoked,
        _all_failed(notes.get("failed")),
        _refusals(notes.get("refusals")),
        issued,
        purpose if isinstance(purpose, str) and purpose else None,
        _asked_claims(notes.get("claims")),
        others or _NO_OTHERS,
    )


_KNOWN = frozenset(
    {
        "generation",
        "rev",
        "redeeming",
        "uncertain",
        "dead",
        "revoked",
        "failed",
        "refusals",
        "issued",
        "purpose",
        "claims",
        "empty",
    }
)


def _token(fields: dict[str, Any]) -> Token:
    token_type = fields.get("token_type")
    try:
        return Token(
            fields["access_token"],
            fields.get("refresh_token") or None,
            # `expires_in` alone says nothing: the time of issue is not known.
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
        if isinstance(by, str) and isinstance(nonce, str) and _is_number(since):
            patience, held = seconds(note.get("for"), most=MOST_PATIENCE), note.get("held")
            return Claim(by, nonce, since, patience, held if isinstance(held, str) else None)
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
            and _is_number(since)
            and (error is None or isinstance(error, str))
            and (description is None or isinstance(description, str))
        ):
            return Dead(digest, error, description, since)
    raise BadText("its note 'dead' is not readable")


# Unlike a claim, a pause guards no token: one that cannot be read is as good as none.


def _pause(note: dict[str, Any]) -> Pause | None:
    nonce, seconds, until = note.get("nonce"), note.get("pause"), note.get("until")
    if isinstance(nonce, str) and _is_number(seconds) and _is_number(until):
        return Pause(nonce, min(max(0.0, seconds), MOST_PATIENCE), until)
    return None


def _all_failed(note: Any) -> tuple[Failed, ...]:
    if not isinstance(note, list):
        return ()
    return tuple(one for one in map(_failed, note[:MOST_FAILED]) if one is not None)


def _failed(note: Any) -> Failed | None:
    if not isinstance(note, dict):
        return None
    pause, message, outcome = _pause(note), note.get("message"), note.get("outcome")
    failures, client = note.get("failures"), note.get("client")
    if (
        pause is None
        or not isinstance(message, str)
        or outcome not in ("not_sent", "busy", "refused", "unknown")
        or not _is_count(failures)
        or not (client is None or isinstance(client, str))
    ):
        return None
    transient, person = note.get("transient") is True, note.get("person") is True
    return Failed(message, outcome, transient, failures, pause, client, person)


def _refusals(note: Any) -> Refusals | None:
    if not isinstance(note, dict):
        return None
    pause, kinds, forbidden = _pause(note), _names(note, "kinds"), _names(note, "forbidden")
    early, futile, generation = note.get("early"), note.get("futile"), note.get("generation")
    if (
        pause is None
        or kinds is None
        or forbidden is None
        or not (_is_count(early) and _is_count(futile) and _is_count(generation))
    ):
        return None
    accepted = note.get("accepted")
    accepted_until = _pause(accepted) if isinstance(accepted, dict) else None
    probed = note.get("probed") is True
    return Refusals(early, futile, kinds, generation, pause, accepted_until, forbidden, probed)


def _names(note: dict[str, Any], name: str) -> tuple[str, ...] | None:
    names = note.get(name, [])
    return tuple(one for one in names if isinstance(one, str)) if isinstance(names, list) else None


def _asked_claims(note: Any) -> AskedClaims | None:
    if not isinstance(note, dict):
        return None
    pause, tried = _pause(note), note.get("tried", [])
    count, generation = note.get("count"), note.get("generation")
    if (
        pause is None
        or not (_is_count(count) and _is_count(generation))
        or not isinstance(tried, list)
    ):
        return None
    return AskedClaims(
        tuple(one for one in tried if isinstance(one, str)), generation, count, pause
    )


def _is_number(value: Any) -> TypeGuard[float]:
    return type(value) in (int, float)  # not a bool; and what was read is finite


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < _MOST_GENERATIONS


def write(record: Record, *, rev: str) -> str:
    """Write the text of a record: its token, and its notes.

    Args:
        record: what to write; its `text` does not matter.
        rev: a fresh nonce. No text is ever written twice, so that a late write of an abandoned call never lands on a
            text that only looks like the one it was meant to replace.
    """
    notes: dict[str, Any] = {**record.others, "generation": record.generation, "rev": rev}
    for claim, name in ((record.redeeming, "redeeming"), (record.uncertain, "uncertain")):
        if claim is not None:
            notes[name] = _claim_note(claim)
    dead, refusals = record.dead, record.refusals
    if dead is not None:
        notes["dead"] = {
            "refresh_token_sha256": dead.refresh_token_sha256,
            "error": dead.error,
            "error_description": dead.error_description,
            "since": dead.since,
        }
    if record.failed:
        notes["failed"] = [
            {
                "message": one.message,
                "outcome": one.outcome,
                "transient": one.transient,
                "failures": one.failures,
                **({} if one.client is None else {"client": one.client}),
                **({"person": True} if one.person else {}),
                **_pause_note(one.pause),
            }
            for one in record.failed
        ]
    if refusals is not None:
        notes["refusals"] = {
            "early": refusals.early,
            "futile": refusals.futile,
            "kinds": list(refusals.kinds),
            "generation": refusals.generation,
            **({"forbidden": list(refusals.forbidden)} if refusals.forbidden else {}),
            **({"probed": True} if refusals.probed else {}),
            **({} if refusals.accepted is None else {"accepted": _pause_note(refusals.accepted)}),
            **_pause_note(refusals.pause),
        }
    asked = record.asked_claims
    if asked is not None:
        notes["claims"] = {
            "tried": list(asked.tried),
            "generation": asked.generation,
            "count": asked.times,
            **_pause_note(asked.pause),
        }
    if record.issued is not None:
        notes["issued"] = record.issued
    if record.purpose is not None:
        notes["purpose"] = record.purpose
    if record.revoked is not None:
        notes["revoked"] = record.revoked
    token = record.token
    if token is None:
        if record.revoked is None:
            # No token was here yet, but a claim or a note of one that was asked for.
            notes["empty"] = True
        return write_json({NOTES: notes})
    fields: dict[str, Any] = {
        "access_token": token.access_token,
        "token_type": token.token_type,
        **{name: value for name, value in token.extra.items() if name not in _OURS},
    }
    if token.refresh_token is not None:
        fields["refresh_token"] = token.refresh_token
    if token.expires_at is not None:
        fields["expires_at"] = token.expires_at
    return write_json({**fields, NOTES: notes})


def _claim_note(claim: Claim) -> dict[str, Any]:
    note: dict[str, Any] = {"by": claim.by, "nonce": claim.nonce, "since": claim.since}
    if claim.patience is not None:
        note["for"] = claim.patience
    if claim.held is not None:
        note["held"] = claim.held
    return note


def _pause_note(pause: Pause) -> dict[str, Any]:
    return {"nonce": pause.nonce, "pause": pause.seconds, "until": pause.until}


def with_token(record: Record, token: Token, purpose: str | None = None) -> Record:
    """Return the record of a login: another token instead of this one, and no note about the old one."""
    return Record(None, token, record.next_generation(), purpose=purpose, others=record.others)


def merged(held: Token | None, new: Token, *, now: float) -> Token:
    """Put a token response over the token it replaces: what was not sent again is kept (RFC 6749 §6).

    Where a token was obtained from nothing, `held` is None, and nothing is kept.

    The lifetime is not kept: it was the old access token's. The new one's is told from `now` where it only has an end:
    otherwise a reader of the text could not tell a short-lived token from one that is about to expire. A token that has
    expired on its arrival, by this host's clock, is one of unknown lifetime.
    """
    before = {} if held is None else held.extra
    extra = {name: value for name, value in before.items() if name not in _LIFETIME}
    extra.update(new.extra)
    if not _fits(extra):
        extra = dict(new.extra) if _fits(new.extra) else {}
    expires_at = new.expires_at
    if expires_at is not None and expires_at <= now:
        expires_at = None
        for name in _LIFETIME:
            extra.pop(name, None)
    if expires_at is not None and lifetime(extra) is None:
        extra["expires_in"] = expires_at - now
    refresh_token = new.refresh_token or (None if held is None else held.refresh_token)
    return Token(new.access_token, refresh_token, expires_at, new.token_type, extra)


def _fits(extra: Mapping[str, Any]) -> bool:
    try:
        # What JSON cannot carry is left out when the text is written.
        return not extra or len(json.dumps(dict(extra), default=lambda _: None)) <= _MOST_EXTRA
    except Exception:  # A source's own values may raise anything.
        return False


def without_token(record: Record, *, since: float) -> Record:
    """Return the record of a revoked token: a refresh under way must not bring it back to life."""
    return Record(None, None, record.next_generation(), revoked=since, others=record.others)
