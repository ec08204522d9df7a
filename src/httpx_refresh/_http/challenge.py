"""The meaning of a response for the token that was sent: accepted, expired, or not enough. Decisions on plain values.

What follows from that is decided elsewhere.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from .._challenges import StepUp, parse, step_up_of
from .bodies import READ_LIMIT, short_body_of

if TYPE_CHECKING:
    from .libraries import Response


@dataclass(frozen=True, slots=True)
class ExpiryRule:
    """A rule for an API that reports an expired access token in the body of its responses.

    For a response with one of these statuses, at most 64 KiB of its body are read, for at most two seconds. They remain
    available to a later reader of the response, streamed or not. A body that announces more is not read. A body that
    announces no length reaches its reader once 64 KiB of it, or all of it, have arrived.

    Args:
        body: a function of the body's JSON value (None if it is not JSON, too long, too slow, or empty) that returns
            whether the token has expired. The request raises what it raises.
        statuses: the statuses that may mean it; the bodies of other responses are never read.

    Raises:
        TypeError: `body` is async; it must return at once.
    """

    body: Callable[[Any], bool]
    statuses: frozenset[int] = frozenset({401})

    def __post_init__(self) -> None:
        _refuse_async("an ExpiryRule's body", self.body)


Rule: TypeAlias = "ExpiryRule | Callable[[Any], bool] | None"
"""How an API refuses a token. None: by status 401 (RFC 6750 §3.1); a predicate on the response; a rule on its body."""


class Accepted:
    """The API refused no token."""

    __slots__ = ()


class Expired:
    """The API refused the token that was sent, and may accept another one."""

    __slots__ = ()


Challenge: TypeAlias = Accepted | Expired | StepUp
"""The meaning of a response for the token. More kinds may follow, so code that matches on it names each kind."""

# One object of each kind, so that a response costs no allocation.
ACCEPTED = Accepted()
EXPIRED = Expired()


def checked_rule(rule: Rule) -> Rule:
    """Return the rule if it is valid.

    Raises:
        TypeError: it is none of the three kinds, or it is async, so that its result would always be true.
    """
    if not (rule is None or isinstance(rule, ExpiryRule)):
        if not callable(rule):
            raise TypeError("is_expired must be callable, an ExpiryRule, or None")
        _refuse_async("is_expired", rule)
    return rule


def glance(status: int, rule: Rule) -> Challenge | None:
    """Return the meaning of a response by its status, which is enough for nearly every response; None if it is not."""
    if status == 401:
        return None
    if rule is None:
        return ACCEPTED
    return ACCEPTED if isinstance(rule, ExpiryRule) and status not in rule.statuses else None


async def challenge_of(response: Response, rule: Rule) -> Challenge:
    """Return the meaning of a response; its body is read only if the rule needs it."""
    status, headers = response.status_code, response.headers
    if rule is None:
        return read(status, headers, None, None)
    if status == 401 and (step_up := _step_up(headers)) is not None:
        return step_up  # Before its body is read, or a predicate is asked.
    if isinstance(rule, ExpiryRule):
        body = None
        if status in rule.statuses and not _announces_too_much(headers):
            body = await short_body_of(response)
        return read(status, headers, body, rule)
    return EXPIRED if _answer("is_expired", rule(response)) else ACCEPTED


def read(
    status: int, headers: Mapping[str, str], body: bytes | None, rule: ExpiryRule | None
) -> Challenge:
    """Return the meaning of a response for the token.

    A 401 that requires another login (RFC 9470 §3) is recognised by the `error` of its challenge alone, whatever the
    rule says, because ordinary challenges have `scope` and `resource_metadata`, too. A 403 is left to the caller.

    Args:
        status: the response's status.
        headers: its header fields, by names in lower case.
        body: its decoded body; None if it is too long, or was not read.
        rule: how the API refuses a token.
    """
    if status == 401 and (step_up := _step_up(headers)) is not None:
        return step_up
    if rule is None:
        return EXPIRED if status == 401 else ACCEPTED
    if status not in rule.statuses:
        return ACCEPTED
    answer = rule.body(_json(body))
    return EXPIRED if _answer("an ExpiryRule's body", answer) else ACCEPTED


def _step_up(headers: Mapping[str, str]) -> StepUp | None:
    """Return the login that a 401 requires."""
    value = headers.get("www-authenticate")
    if value is None or "insufficient_" not in value:
        return None
    # The client's header fields are read one by one, so that an invalid one does not affect the others.
    one_by_one = getattr(headers, "get_list", None)
    return step_up_of(parse([value] if one_by_one is None else one_by_one("www-authenticate")))


def _json(body: bytes | None) -> Any:
    try:
        return json.loads(body or b"")
    except (ValueError, RecursionError):
        return None


def _announces_too_much(headers: Mapping[str, str]) -> bool:
    length = headers.get("content-length", "0")
    return not length.isdecimal() or int(length[:20]) > READ_LIMIT


def _refuse_async(what: str, function: object) -> None:
    while isinstance(function, functools.partial):
        function = function.func
    for one in (function, type(function).__call__):
        if inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one):
            raise TypeError(
                f"{what} must not be async: it is asked for each response, and must answer at once"
            )


def _answer(what: str, answer: object) -> bool:
    if inspect.isawaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()
        raise TypeError(
            f"{what} returned an awaitable, {type(answer).__name__}: it must answer at once, with True or False"
        )
    return bool(answer)
