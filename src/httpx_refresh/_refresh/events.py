"""What happened, as values; and the observer that writes the log. It knows no protocol and no secret."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields

from .._errors import cause_of

logger = logging.getLogger("httpx_refresh")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to one token. No field of any event holds a token, a secret, a key or a code."""


@dataclass(frozen=True, slots=True)
class Refreshed(Event):
    """The token was refreshed here. `duration`: seconds since it was needed."""

    generation: int
    duration: float


@dataclass(frozen=True, slots=True)
class RefreshRetried(Event):
    """The token endpoint is asked again, in `pause` seconds."""

    message: str
    pause: float


@dataclass(frozen=True, slots=True)
class AheadFailed(Event):
    """A refresh ahead of expiry failed; the token goes on being used."""

    message: str


@dataclass(frozen=True, slots=True)
class EndNotNoted(Event):
    """The end of a refresh could not be noted in the store."""

    message: str


@dataclass(frozen=True, slots=True)
class Unsaved(Event):
    """A new token is in memory and in use, but not in the store."""

    message: str


@dataclass(frozen=True, slots=True)
class StillUnsaved(Event):
    """It is still not in the store."""

    message: str


@dataclass(frozen=True, slots=True)
class Saved(Event):
    """A new token is in the store after all."""


@dataclass(frozen=True, slots=True)
class HandedOver(Event):
    """A new token could not be saved for too long. `handled`: `on_unsaved` is called with it."""

    handled: bool


@dataclass(frozen=True, slots=True)
class CallbackFailed(Event):
    """A callback raised. `cause`: the type of what it raised, and where."""

    callback: str
    cause: str


@dataclass(frozen=True, slots=True)
class DoubtBegan(Event):
    """The API refused a refreshed token as well. Refusals are passed on for `pause` seconds."""

    pause: float


@dataclass(frozen=True, slots=True)
class DoubtEnded(Event):
    """The API accepted a refreshed token where it had refused the one before."""


@dataclass(frozen=True, slots=True)
class EarlyEnds(Event):
    """So many good tokens in a row were refused soon after their issue."""

    count: int


_LOG: dict[type[Event], tuple[int, str]] = {
    Refreshed: (
        logging.INFO,
        "token refreshed (generation {generation}), {duration:.3f} s after it was needed",
    ),
    RefreshRetried: (logging.INFO, "{message} Trying again in {pause:.2f} s."),
    AheadFailed: (
        logging.WARNING,
        "the refresh ahead of expiry failed; the token is still in use: {message}",
    ),
    EndNotNoted: (logging.WARNING, "the end of a refresh could not be noted in {store}: {message}"),
    Unsaved: (
        logging.ERROR,
        "the new token could not be saved: {message} It is in memory and in use, and saving is tried again. If this "
        "process ends before that, a person must log in again.",
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
}


def write_log(event: Event, *, provider: str, store: Callable[[], str]) -> None:
    """Write the log record of an event: the library's own observer.

    Args:
        event: what happened.
        provider: the token source's name.
        store: returns the store's name; called only if the record is written.
    """
    level, text = _LOG[type(event)]
    if logger.isEnabledFor(level):
        values = {one.name: getattr(event, one.name) for one in fields(event)}
        logger.log(
            level,
            "%s: %s",
            provider,
            text.format(store=store() if "{store}" in text else "", **values),
        )


_failed_observers: set[str] = set()


def observer_failed(error: Exception) -> None:
    """Say once of each kind of failure that an observer failed; whatever it is, the refresh goes on."""
    cause = cause_of(error)
    if cause not in _failed_observers and len(_failed_observers) < 100:
        _failed_observers.add(cause)
        with suppress(Exception):
            logger.error("an observer of events failed: %s", cause)
