"""What a person is told when a login is needed: what happened, what is safe, the next step."""

from __future__ import annotations

from datetime import datetime, timezone

from .._errors import ReauthorizationRequired
from ..stores.base import TokenStore
from .record import Claim, Record
from .redemption import Endpoint, describe

_NEXT_STEP = (
    "Log in again and put the token there (RefreshAuth.set_token, or write it to the store); a running service sees "
    "it within about a second."
)


def _moment(epoch: float) -> str:
    try:
        return datetime.fromtimestamp(epoch, timezone.utc).isoformat(" ", "seconds")
    except (OverflowError, OSError, ValueError):
        return "an unknown time"


def _interrupted(claim: Claim) -> str:
    return (
        f" A refresh by {claim.by} at {_moment(claim.since)} had been interrupted, and its outcome was never known: "
        "the server most likely rotated the refresh token then, and the one that is left here was spent."
    )


def reauthorization_required(
    record: Record, endpoint: Endpoint, store: TokenStore
) -> ReauthorizationRequired:
    """Say why the token in `record` can serve no more."""
    name, dead = describe(endpoint), record.dead
    if record.revoked:
        return ReauthorizationRequired(
            f"The token for {name} in {store!r} was revoked. {_NEXT_STEP}"
        )
    if record.token is None:
        return ReauthorizationRequired(f"{store!r} holds no token for {name} yet. {_NEXT_STEP}")
    if record.token.refresh_token is None:
        return ReauthorizationRequired(
            f"The access token for {name} in {store!r} is no longer good, and there is no refresh token beside it to "
            f"get another with. {_NEXT_STEP} For most providers the login has to ask for offline access."
        )
    if dead is None:
        raise AssertionError("this token is not known to be dead")
    said = dead.error or "no error code"
    if dead.error_description:
        said += f": {dead.error_description}"
    interrupted = "" if record.uncertain is None else _interrupted(record.uncertain)
    return ReauthorizationRequired(
        f"{name} refused the refresh token in {store!r} for good, at {_moment(dead.since)} ({said}).{interrupted} It "
        f"is kept as it is, and not sent again. {_NEXT_STEP}",
        error=dead.error,
        error_description=dead.error_description,
        since=dead.since,
    )
