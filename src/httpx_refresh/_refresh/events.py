"""What happened, as values, and the words of the log for each. It knows no protocol and no secret."""

# An event that always has a field demands it, where `Event` has it optional: with slots, no default is inherited.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from typing import Literal

from .._errors import shown

logger = logging.getLogger("httpx_refresh")

_LONGEST = 4_000  # characters of a log record

Reason = Literal["ahead", "refused", "claims", "expired", "forced", "first"]
"""Why a token is refreshed.

`ahead`: it expires soon. `refused`: the API refused it. `claims`: the API asked for claims.
`expired`: its time is over. `forced`: `refresh()` was called.
`first`: this process has had no token yet, and the one in the store is no longer good.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to one token. No field of any event holds a token, a secret, a key or a code.

    What does not apply to an event, or is not known, is None.

    Attributes:
        provider: the token source's name.
        store: the store's name, without a password.
        label: what the user calls this token: `RefreshAuth(..., label=...)`.
        server: the host of the token endpoint.
        generation: which token of the slot it is about; it grows by one with each new token.
        reason: why the token was refreshed, or was to be.
        outcome: how it failed; for a refresh, as `RefreshUnavailable.outcome` says, or "store" or "login_required".
        duration: seconds.
    """

    provider: str = ""
    store: str = ""
    label: str | None = None
    server: str | None = None
    generation: int | None = None
    reason: Reason | None = None
    outcome: str | None = None
    duration: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshStarted(Event):
    """The refresh token is claimed by this process, and is about to be sent.

    `generation` is that of the token that is replaced.
    """

    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed(Event):
    """The token was refreshed here, and saved.

    `duration`: seconds since it was needed. `waiters`: how many requests waited.
    """

    generation: int
    reason: Reason
    duration: float
    waiters: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshFailed(Event):
    """There is no new token. Who waited got an error; ahead of expiry nobody waits, and the token goes on being used.

    `asked`: whether this process sent a token request; else it keeps a pause, or the store failed.
    """

    reason: Reason
    outcome: str
    duration: float
    message: str
    waiters: int = 0
    asked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshRetried(Event):
    """The token endpoint is asked again, in `pause` seconds."""

    outcome: str
    message: str
    pause: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted(Event):
    """Another token was found in the store, which another process had put there, and is in use."""

    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed(Event):
    """A request that the API refused is sent again with another token."""

    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimWaited(Event):
    """Another process held the refresh token, and was waited for; `duration` seconds."""

    duration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimTakenOver(Event):
    """Another process had claimed the refresh token, and went no further. It was `by` (host and process)."""

    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndNotNoted(Event):
    """The end of a refresh could not be noted in the store."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsaved(Event):
    """A new token is in memory and in use, but not in the store."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotShared(Event):
    """A new token that can be had again is in use here, but not in the store: others ask for one of their own."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StillUnsaved(Event):
    """It is still not in the store."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved(Event):
    """A new token is in the store after all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOver(Event):
    """A new token could not be saved for too long. `handled`: `on_unsaved` is called with it."""

    handled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackFailed(Event):
    """A callback raised. `cause`: the type of what it raised, and where."""

    callback: str
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DoubtBegan(Event):
    """The API refused a refreshed token as well. Refusals are passed on for `pause` seconds."""

    pause: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DoubtEnded(Event):
    """The API accepted a refreshed token where it had refused the one before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyEnds(Event):
    """So many good tokens in a row were refused soon after their issue."""

    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalHidden(Event):
    """A response hook of the client raised at a 401 that the auth object never saw: no refresh follows.

    Told once a process. `raised`: the type of what the hook raised.
    """

    raised: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginRequired(Event):
    """No token can be had without a person: the server refused the refresh token for good, or there is none."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginSeen(Event):
    """The token of a new login is in use.

    `set_token` was called here, or it was found in the store where a person was needed.
    """

    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreCalled(Event):
    """A store outside this process answered, or failed. `outcome`: the type of what it raised; None: it answered.

    `operation`: the store's method: `load`, `replace`, or `hold`.
    """

    operation: str
    duration: float


LOG: dict[type[Event], tuple[int, str]] = {
    RefreshStarted: (logging.DEBUG, "the token endpoint is asked (reason: {reason})"),
    Refreshed: (
        logging.INFO,
        "token refreshed (generation {generation}), {duration:.3f} s after it was needed",
    ),
    RefreshFailed: (
        logging.INFO,
        "there is no new token ({reason}, {outcome}), {duration:.3f} s after it was needed: {message}",
    ),
    RefreshRetried: (logging.INFO, "{message} Trying again in {pause:.2f} s."),
    Adopted: (
        logging.INFO,
        "the token that another process put into {store} is in use (generation {generation})",
    ),
    Replayed: (logging.DEBUG, "a refused request is sent again (generation {generation})"),
    ClaimWaited: (
        logging.DEBUG,
        "another process held the refresh token; it was waited for, {duration:.3f} s",
    ),
    ClaimTakenOver: (
        logging.WARNING,
        "the refresh by {by} was interrupted; the refresh token in {store} is taken over",
    ),
    EndNotNoted: (logging.WARNING, "the end of a refresh could not be noted in {store}: {message}"),
    Unsaved: (
        logging.ERROR,
        "the new token could not be saved: {message} It is in memory and in use, and saving is tried again. If this "
        "process ends before that, a person must log in again.",
    ),
    NotShared: (
        logging.WARNING,
        "the new token could not be saved: {message} It is in memory and in use, and saving is tried again. Other "
        "processes may ask for tokens of their own meanwhile.",
    ),
    StillUnsaved: (logging.ERROR, "the new token is still not saved: {message}"),
    Saved: (logging.WARNING, "the new token is saved after all"),
    HandedOver: (
        logging.CRITICAL,
        "the new token could not be saved in {store}. It is in memory and in use (handed to on_unsaved: {handled}). "
        "Repair the store before this process ends, or a person must log in again.",
    ),
    CallbackFailed: (logging.ERROR, "{callback} failed: {cause}"),
    DoubtBegan: (
        logging.WARNING,
        "the API refused a token that had just been refreshed because of an earlier refusal. Refusals are passed on, "
        "and no other token is asked for within {pause:.0f} s. Look at the token's scope and audience, at the API's "
        "address, and at the clocks.",
    ),
    DoubtEnded: (logging.INFO, "the API accepts refreshed tokens again"),
    EarlyEnds: (
        logging.WARNING,
        "{count} good tokens in a row were refused long before they expire. The likely cause: another deployment "
        "refreshes the same grant from a store of its own, and each refresh ends the other's token. Let all of them "
        "share one store, or give each a login of its own.",
    ),
    RefusalHidden: (
        logging.WARNING,
        "a response hook of the client raised {raised} at a refusal (401), before this library saw it: no refresh "
        "follows. Let the hook leave a 401 alone, or call raise_for_status() where the response is used. This is "
        "logged once.",
    ),
    LoginRequired: (logging.ERROR, "a person must log in: {message}"),
    LoginSeen: (
        logging.INFO,
        "the token of a new login in {store} is in use (generation {generation})",
    ),
    StoreCalled: (logging.DEBUG, "{operation} of {store} took {duration:.3f} s ({outcome})"),
}
"""The level and the words of each event's log record."""

_AHEAD_FAILED = "the refresh ahead of expiry failed; the token is still in use: {message}"


def level_of(event: Event) -> int:
    """Return the level of an event's log record."""
    if isinstance(event, RefreshFailed) and event.reason == "ahead":
        return logging.WARNING  # Nobody waited, and so nobody got the error.
    return LOG[type(event)][0]


def write_log(event: Event) -> None:
    """Write the log record of an event; its attribute `httpx_refresh` is the event."""
    level, text = level_of(event), LOG[type(event)][1]
    if isinstance(event, RefreshFailed) and event.reason == "ahead":
        text = _AHEAD_FAILED
    values = {one.name: getattr(event, one.name) for one in fields(event)}
    who = event.provider if event.label is None else f"{event.provider} [{event.label}]"
    # Some of the words are a server's, or those of who can write to the store.
    said = shown(f"{who}: {text.format(**values)}", _LONGEST)
    logger.log(level, "%s", said, extra={"httpx_refresh": event})
