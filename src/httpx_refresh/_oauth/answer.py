"""What a token endpoint's answer means: pure functions from rules and an answer to a token, or to what to raise.

They know neither who asked nor how.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, cast
from urllib.parse import parse_qsl

from .._challenges import claims_of, claims_text
from .._errors import ReauthorizationRequired, RefreshUnavailable, StepUpRequired
from .._token import DEEPEST, Token, bounded_extra, epoch, is_shallow, lifetime, read_json

MOST = 1_048_576
"""Bytes that are read of an answer, and that are unpacked of one."""

_LONGEST_WAIT = 86_400.0


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
        """Whether an answer is of this kind.

        Args:
            status: the HTTP status.
            error: the `error` code, if there is one.
            text: the body, and the server's words in it unescaped.
        """
        if self.status is not None and self.status != status:
            return False
        if self.error is None and self.text is None:
            return self.status is not None and error is None
        return (self.error is None or self.error == error) and (
            self.text is None or self.text.casefold() in text.casefold()
        )


INVALID_GRANT = Refusal(error="invalid_grant")
"""RFC 6749 §5.2: the refresh token is invalid, expired or revoked."""


class Rules(NamedTuple):
    """How to read the answers of one server, where they differ from RFC 6749 §5.

    Args:
        dead: the refusals that mean that the grant is dead.
        transient: the refusals that mean "try again", though they may look like dead ones.
        fields: where the server keeps a field that it calls something else: the path of its place, with dots between
            the names, by the name that RFC 6749 gives it. What is found there is moved to that name, if that is free.
        default_lifetime: seconds that an access token lives if the answer does not say.
    """

    dead: tuple[Refusal, ...] = (INVALID_GRANT,)
    transient: tuple[Refusal, ...] = ()
    fields: Mapping[str, str] = MappingProxyType({})
    default_lifetime: float | None = None


RFC6749 = Rules()
"""How a server answers that does as the RFC says."""


@dataclass(slots=True, eq=False)
class Answer:
    """A server's answer. `body` holds `MOST` bytes at most; `cut`: there was more."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    cut: bool = False


class NoAnswer(NamedTuple):
    """Why there is no answer.

    Attributes:
        sent: whether a part of the request may have left this host.
        why: in words, without a secret.
        transient: whether asking again may help; not where it is the caller's client that cannot ask.
        unready: whether it is the client's credentials that were not there.
        caused_by: the exception's type, file and line.
    """

    sent: bool
    why: str
    transient: bool = True
    unready: bool = False
    caused_by: str | None = None


Kind = Literal["token", "dead", "refused", "busy", "unavailable", "unknown"]


class Meaning(NamedTuple):
    """What an answer means.

    Attributes:
        kind: `token`: here is one. `dead`: the grant is refused for good. `refused`: this client, or this request,
            is refused, and the grant was not looked at. `busy`: the request was put off. `unavailable`: a 503, from
            no matter who answered; `unknown`: anything else. In these two whether the refresh token was spent cannot be
            told.
        token: the token, as this response has it.
        error: the `error` code, if there was one.
        error_description: the server's words, if there were any.
        retry_after: seconds that the server asked to wait.
    """

    kind: Kind
    token: Token | None = None
    error: str | None = None
    error_description: str | None = None
    retry_after: float | None = None

    def __repr__(self) -> str:
        return f"Meaning({self.kind!r})"


def meaning(
    answer: Answer,
    rules: Rules = RFC6749,
    *,
    now: float,
) -> Meaning:
    """Say what an answer means.

    Args:
        answer: the answer.
        rules: how to read this server's answers.
        now: epoch seconds: for the token's `expires_at`, and for a `Retry-After` that is a date.
    """
    status = answer.status
    fields = _moved(_fields(answer), rules.fields)
    token = _token(fields, rules.default_lifetime, now) if 200 <= status < 300 else None
    if token is not None:
        return Meaning("token", token)
    error, description = _error(fields)
    text = f"{answer.body.decode('utf-8', 'replace')}\n{description or ''}"
    retry_after = _retry_after(answer.headers, now)

    def means(kind: Kind) -> Meaning:
        return Meaning(kind, None, error, description, retry_after)

    if any(rule.matches(status, error, text) for rule in rules.transient):
        return means("busy")
    if status in (408, 425, 429) or error == "temporarily_unavailable":
        # RFC 9110 §15.5.9, RFC 8470 §5.2, RFC 6585 §4: the request was not processed.
        return means("busy")
    if status == 503:
        # A gateway answers so, too, and it may have passed the request on.
        return means("unavailable")
    if status >= 500:
        # A gateway's words, or a server's in distress: never a verdict on the grant.
        return means("unknown")
    if any(rule.matches(status, error, text) for rule in rules.dead):
        return means("dead")
    if error == "server_error":
        return means("unknown")
    # Another refusal; a success with an error code is one, too. A success without either tells nothing.
    return means("refused" if status >= 300 or error is not None else "unknown")


def refuses_client(answer: Answer) -> bool:
    """Whether the server refuses the client's credentials (RFC 6749 §5.2), and looked at nothing else."""
    error = _error(_fields(answer))[0]
    if error is None:
        return answer.status == 401
    return error == "invalid_client" and 400 <= answer.status < 500


Redact = Callable[[str | None, int], str | None]
"""Make a server's words fit to be shown, at most so many characters of them."""


def words(answer: Answer, means: Meaning, redact: Redact) -> tuple[str | None, str | None, str]:
    """Return the error code, its description, and a summary of the answer, all fit to be shown."""
    error = redact(means.error, 64)
    description = redact(means.error_description, 300)
    said = f"status {answer.status}" + (f", {error}" if error else "")
    return error, description, said + (f": {description}" if description else "")


def refreshed(
    answer: Answer | NoAnswer,
    *,
    name: str,
    rules: Rules,
    redact: Redact,
    now: float,
    claims: Mapping[str, Any] | None = None,
) -> Token | ReauthorizationRequired | RefreshUnavailable | StepUpRequired:
    """Return the token that an answer to a refresh brings, or the error to raise, which says the next step.

    Args:
        answer: the answer, or why there is none.
        name: what messages call the provider.
        rules: how to read this server's answers.
        redact: hides what was sent, should the server repeat it.
        now: epoch seconds when it was asked. The server counts `expires_in` from a moment after that: what is
            reckoned from here ends too early, if anything, never too late.
        claims: what was asked for that an API wants the token to hold.
    """
    if isinstance(answer, NoAnswer):
        return _without_answer(answer, name)
    means = meaning(answer, rules, now=now)
    if means.token is not None:
        return means.token
    if claims is not None and (refusal := declined(answer, means, claims, name, redact)):
        return refusal
    error, description, said = words(answer, means, redact)
    if means.kind == "dead":
        return ReauthorizationRequired(
            f"{name} refused the refresh token for good ({error or f'status {answer.status}'}). Log in again.",
            error=error,
            error_description=description,
        )
    message = f"{name}'s token endpoint " + _explained(answer, means, said)
    if means.kind in ("busy", "refused"):
        return RefreshUnavailable(message, outcome=means.kind, retry_after=means.retry_after)
    return RefreshUnavailable(
        message,
        outcome="unknown",
        transient=means.kind == "unavailable",
        retry_after=means.retry_after,
    )


_NEEDS_A_PERSON = frozenset(
    {"interaction_required", "login_required", "consent_required", "account_selection_required"}
)
"""OpenID Connect Core §3.1.2.6."""

_THE_CLIENTS = frozenset({"invalid_client", "unauthorized_client"})
"""RFC 6749 §5.2: refusals that have nothing to do with what is asked for."""


def declined(
    answer: Answer, means: Meaning, claims: Mapping[str, Any], name: str, redact: Redact
) -> StepUpRequired | None:
    """Return what to raise if a request with claims was turned down because of them; None if not.

    A server that wants a person for them says which claims the login needs, where it knows better than the API. It may
    say so with the code of a dead grant.
    """
    if means.error is None or means.kind not in ("dead", "refused") or means.error in _THE_CLIENTS:
        return None
    wanted = _fields(answer).get("claims")
    named = claims_of(wanted) if isinstance(wanted, str) else None
    if means.kind == "dead" and named is None and means.error not in _NEEDS_A_PERSON:
        return None
    if named is not None:
        text = claims_text(named)
        named = named if redact(text, len(text)) == text else None
    error, _, said = words(answer, means, redact)
    return StepUpRequired(
        f"{name} gives no token with the claims that the API asks for ({said}). No refresh token was spent, and the "
        "token in use is kept. Log in again with the error's params, and put the token into the store.",
        error=error,
        claims=named or claims,
    )


def _without_answer(answer: NoAnswer, name: str) -> RefreshUnavailable:
    if answer.sent:
        return RefreshUnavailable(
            f"{name}'s token endpoint was asked and gave no answer ({answer.why}). Whether it spent the refresh token "
            "is unknown; the token is kept. Try again later.",
            outcome="unknown",
            caused_by=answer.caused_by,
        )
    if answer.unready:
        return RefreshUnavailable(
            f"{name}'s token endpoint was not asked, and the refresh token was not sent: {answer.why}. Check "
            "client_auth and client_secret; what is a file or a callable is read again at the next try.",
            outcome="not_sent",
            caused_by=answer.caused_by,
        )
    if not answer.transient:
        return RefreshUnavailable(
            f"{name}'s token endpoint was not asked, and the refresh token was not sent: {answer.why}. Check what is "
            "passed as client=.",
            outcome="not_sent",
            transient=False,
            caused_by=answer.caused_by,
        )
    return RefreshUnavailable(
        f"{name}'s token endpoint could not be reached ({answer.why}). The refresh token was not sent. Check the url, "
        "proxies and certificates, or try again later.",
        outcome="not_sent",
        caused_by=answer.caused_by,
    )


def _explained(answer: Answer, means: Meaning, said: str) -> str:
    wait = "" if means.retry_after is None else f", in {means.retry_after:.0f} s at the earliest"
    if means.kind == "busy":
        return f"is busy ({said}). The refresh token was not spent. Try again later{wait}."
    if means.kind == "unavailable":
        return (
            f"is unavailable ({said}). Whether the refresh token was spent is unknown; the token is kept. Try again "
            f"later{wait}."
        )
    if means.kind == "unknown":
        what = "more than 1 MiB" if answer.cut else "no token"
        return (
            f"answered with {what} ({said}). Whether it spent the refresh token is unknown; the token is kept, and "
            "tried once more at the next need. If that goes on, look whether the url is the token endpoint's."
        )
    if 300 <= answer.status < 400:
        return (
            f"redirects ({said}), and a redirect is never followed with a secret. The refresh token was not spent. Set "
            "the endpoint's url to the address that answers itself."
        )
    return (
        f"refused this client or its request, not the grant ({said}). The refresh token was not spent, and nobody "
        "needs to log in again. Check client_id, client_secret, client_auth, params and url."
    )


# -- reading ----------------------------------------------------------------------------------------------------


def _fields(answer: Answer) -> dict[str, Any]:
    """Read the fields of an answer; none of what cannot be read, or could not be written again."""
    if answer.cut:
        return {}
    try:
        value = _read(answer.body)
    except (ValueError, RecursionError):
        return _form(answer.body)
    if not isinstance(value, dict):
        return {}
    fields = cast("dict[str, Any]", value)
    if is_shallow(fields, DEEPEST + 1):
        return fields
    return {name: one for name, one in fields.items() if is_shallow(one)}


def _read(body: bytes) -> Any:
    try:
        text: str | bytes = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        # UTF-16 and UTF-32 have zero bytes, and are told by them; what has none is an old server's Latin-1.
        text = body if b"\0" in body else body.decode("latin-1")
    return read_json(text)


def _form(body: bytes) -> dict[str, Any]:
    """Read a form: RFC 6749 asks for JSON, but GitHub, for one, answers like this unless told otherwise."""
    try:
        text = body.decode("ascii").strip()
        return dict(
            parse_qsl(text, keep_blank_values=True, strict_parsing=True, max_num_fields=100)
        )
    except ValueError:
        return {}


def _moved(fields: dict[str, Any], places: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields under the names that RFC 6749 gives them; a token is not kept under two names."""
    for name, place in places.items():
        *way, last = place.split(".")
        inside: Any = fields
        for step in way:
            inside = inside.get(step) if isinstance(inside, dict) else None
        if name not in fields and isinstance(inside, dict) and last in inside:
            fields[name] = cast("dict[str, Any]", inside).pop(last)
    return fields


def _moment(value: object) -> float | None:
    """Read a moment: epoch seconds, or a date and a time as in RFC 3339."""
    if not isinstance(value, str) or "T" not in value:
        return epoch(value)
    try:
        moment = datetime.fromisoformat(value.strip().replace("Z", "+00:00"))
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        return epoch(moment.timestamp())
    except (ValueError, OverflowError):
        return None


def _token(fields: dict[str, Any], default_lifetime: float | None, now: float) -> Token | None:
    if not isinstance(fields.get("refresh_token"), str):
        fields.pop("refresh_token", None)
    expires_in, said = lifetime(fields), fields.pop("expires_at", None)
    if expires_in is not None:
        fields["expires_at"] = now + expires_in
    else:
        # What the server says in its own clock's time counts only if it says nothing better.
        expires_at = _moment(said)
        if expires_at is not None and expires_at > now:
            fields["expires_at"] = expires_at
        elif default_lifetime is not None and expires_at is None:
            fields["expires_at"] = now + default_lifetime
    try:
        token = Token.from_response(fields)
    except (TypeError, ValueError):
        return None
    extra = bounded_extra(token.extra)
    return token if len(extra) == len(token.extra) else replace(token, extra=extra)


def _error(fields: dict[str, Any]) -> tuple[str | None, str | None]:
    error = fields.get("error")
    description = fields.get("error_description") or fields.get("message")
    if isinstance(error, dict):  # Google's and Microsoft's APIs nest it.
        nested = cast("dict[str, Any]", error)
        description = description or nested.get("message")
        error = nested.get("status") or nested.get("code")
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
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        wait = moment.timestamp() - now
    except (ValueError, OverflowError):
        return None
    return min(max(wait, 0.0), _LONGEST_WAIT)
