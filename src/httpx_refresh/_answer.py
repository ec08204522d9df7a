"""What a token endpoint's answer means: one pure function from (rules, status, headers, body) to one of five things."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import parse_qsl

from ._token import Token

_DEEPEST = 20
_LONGEST_WAIT = 86_400.0

# RFC 6749 §5.2, RFC 8693 §2.2.2: the client's own fault; the grant was not looked at.
_CLIENT_ERRORS = frozenset(
    {
        "invalid_client",
        "unauthorized_client",
        "invalid_scope",
        "invalid_request",
        "unsupported_grant_type",
        "invalid_target",
    }
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Recognise a kind of refusal in a token endpoint's answer; what is None does not matter.

    Args:
        status: the HTTP status.
        error: the answer's `error` code (RFC 6749 §5.2).
        text: words that stand somewhere in the body, in upper or lower case.

    A rule of a status alone is for answers without an `error` code: a code says more.
    """

    status: int | None = None
    error: str | None = None
    text: str | None = None

    def matches(self, status: int, error: str | None, text: str) -> bool:
        """Whether an answer is of this kind."""
        if self.status is not None and self.status != status:
            return False
        if self.error is None and self.text is None:
            return self.status is not None and error is None
        return (self.error is None or self.error == error) and (
            self.text is None or self.text.casefold() in text.casefold()
        )


INVALID_GRANT = Refusal(error="invalid_grant")
"""RFC 6749 §5.2: the refresh token is invalid, expired or revoked."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A token endpoint's answer. `body` holds `cut` bytes at most; `cut`: there was more."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an answer means.

    Attributes:
        kind: `token`: here is one. `dead`: the grant is refused for good. `refused`: this client, or this request,
            is refused, and the grant was not looked at. `busy`: try again. `unknown`: whether the refresh token was
            spent cannot be told.
        token: the token, as this response has it.
        error: the `error` code, if there was one.
        error_description: the server's words, if there were any.
        retry_after: seconds that the server asked to wait.
    """

    kind: Literal["token", "dead", "refused", "busy", "unknown"]
    token: Token | None = None
    error: str | None = None
    error_description: str | None = None
    retry_after: float | None = None


def meaning(
    answer: Answer,
    *,
    dead: tuple[Refusal, ...] = (INVALID_GRANT,),
    transient: tuple[Refusal, ...] = (),
    now: float,
) -> Meaning:
    """Say what an answer means.

    Args:
        answer: the answer.
        dead: the refusals that mean that the grant is dead.
        transient: the refusals that mean "try again", though they may look like dead ones.
        now: epoch seconds, for a `Retry-After` that is a date.
    """
    status = answer.status
    fields = _fields(answer)
    token = _token(fields) if 200 <= status < 300 else None
    if token is not None:
        return Meaning("token", token)
    error, description = _error(fields)
    text = answer.body.decode("utf-8", "replace")
    retry_after = _retry_after(answer.headers, now)

    def means(kind: Literal["dead", "refused", "busy", "unknown"]) -> Meaning:
        return Meaning(kind, None, error, description, retry_after)

    if any(rule.matches(status, error, text) for rule in transient):
        return means("busy")
    if status in (408, 425, 429, 503):
        return means("busy")
    if status >= 500:
        # A gateway's words, or a server's in distress: never a verdict on the grant.
        return means("unknown")
    if any(rule.matches(status, error, text) for rule in dead):
        return means("dead")
    if error == "temporarily_unavailable":
        return means("busy")
    if error in _CLIENT_ERRORS or status >= 300:
        return means("refused")
    # A success without a token: with an error code it is none after all.
    return means("unknown" if error is None else "refused")


def _fields(answer: Answer) -> dict[str, Any]:
    if answer.cut:
        return {}
    try:
        fields = json.loads(answer.body, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        fields = None
    if isinstance(fields, dict):
        return {name: value for name, value in fields.items() if _is_shallow(value)}
    if fields is None and b"=" in answer.body:
        try:
            text = answer.body.decode("utf-8").strip()
            # RFC 6749 asks for JSON; GitHub, for one, answers like a form unless asked.
            return dict(parse_qsl(text, strict_parsing=True, max_num_fields=100))
        except ValueError:
            return {}
    return {}


def _is_shallow(value: Any, depth: int = 0) -> bool:
    """Whether a value can be written again: what can only just be read is too deep for that."""
    if isinstance(value, dict):
        return depth < _DEEPEST and all(_is_shallow(one, depth + 1) for one in value.values())
    if isinstance(value, list):
        return depth < _DEEPEST and all(_is_shallow(one, depth + 1) for one in value)
    return True


def _token(fields: dict[str, Any]) -> Token | None:
    if "access_token" not in fields:
        return None
    if not isinstance(fields.get("refresh_token"), str):
        fields.pop("refresh_token", None)
    try:
        return Token.from_response(fields)
    except (TypeError, ValueError):
        return None


def _error(fields: dict[str, Any]) -> tuple[str | None, str | None]:
    error = fields.get("error")
    description = fields.get("error_description") or fields.get("message")
    if isinstance(error, dict):  # Google's and Microsoft's APIs nest it.
        description = description or error.get("message")
        error = error.get("status") or error.get("code")
    return (
        error if isinstance(error, str) and error else None,
        description if isinstance(description, str) and description else None,
    )


def _retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Read `Retry-After` (RFC 9110 §10.2.3): seconds, or a date."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), _LONGEST_WAIT)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return min(max(moment.timestamp() - now, 0.0), _LONGEST_WAIT)
