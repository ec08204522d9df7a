"""What a response says of the token that was sent: accepted, expired, or not enough. Decisions on plain values.

Knows nothing of what follows from it.
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
    """Say which responses mean "the access token has expired" for an API that says it in the body.

    A response with one of these statuses is looked into: at most 64 KiB of its body are read, for at most two
    seconds, and are still there for a later reader of the response, streamed or not. A body that announces
    more is not touched. One that announces no length reaches its reader once 64 KiB of it, or all of it, are there.

    Args:
        body: gets the body's JSON value (None if it is not JSON, too long, too slow, or empty) and says whether it
            means it. What it raises, the request raises.
        statuses: the statuses that may mean it; responses with others are never looked into.

    Raises:
        TypeError: `body` is async: it must answer at once.
    """

    body: Callable[[Any], bool]
    statuses: frozenset[int] = frozenset({401})

    def __post_init__(self) -> None:
        _refuse_async("an ExpiryRule's body", self.body)


Rule: TypeAlias = "ExpiryRule | Callable[[Any], bool] | None"
"""How an API refuses a token: None, by status 401 (RFC 6750 §3.1); a predicate on the response; or by its body."""


class Accepted:
    """The API refused no token."""

    __slots__ = ()


class Expired:
    """The API refused the token that was sent; another one may be accepted."""

    __slots__ = ()


Challenge: TypeAlias = Accepted | Expired | StepUp
"""What a response says of the token. More kinds may come: who matches on it names each."""

# One object of each kind: a response costs no allocation.
ACCEPTED = Accepted()
EXPIRED = Expired()


def checked_rule(rule: Rule) -> Rule:
    """Return the rule, if it is a valid one.

    Raises:
        TypeError: it is none of the three kinds, or it is async: what it returns would always count as true.
    """
    if not (rule is None or isinstance(rule, ExpiryRule)):
        if not callable(rule):
            raise TypeError("is_expired must be callable, an ExpiryRule, or None")
        _refuse_async("is_expired", rule)
    return rule


def glance(status: int, rule: Rule) -> Challenge | None:
    """Return what the status alone says of the token, as it does of nearly every response; None: it does not tell."""
    if status == 401:
        return None
    if rule is None:
        return ACCEPTED
    return ACCEPTED if isinstance(rule, ExpiryRule) and status not in rule.statuses else None


async def challenge_of(response: Response, rule: Rule) -> Challenge:
    """Return what a response says of the token; its body is read as far as the rule asks for that."""
    status, headers = response.status_code, response.headers
    if status == 401 and (step_up := _step_up(headers)) is not None:
        return step_up
    if isinstance(rule, ExpiryRule):
        body = None
        if status in rule.statuses and not _announces_too_much(headers):
            body = await short_body_of(response)
        return read(status, headers, body, rule)
    if rule is None:
        return read(status, headers, None, None)
    return EXPIRED if _answer("is_expired", rule(response)) else ACCEPTED


def read(
    status: int, headers: Mapping[str, str], body: bytes | None, rule: ExpiryRule | None
) -> Challenge:
    """Say what a response says of the token.

    A 401 that asks for another login (RFC 9470 §3) is told by the `error` of its challenge alone, whatever the rule
    says: `scope` and `resource_metadata` stand on ordinary ones, too. A 403 is the caller's.

    Args:
        status: the response's status.
        headers: its header fields, by names in lower case.
        body: its body, unpacked; None if it is too long, or was not read.
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
    """Return the login that a 401 asks for."""
    value = headers.get("www-authenticate")
    if value is None or "insufficient_" not in value:
        return None
    # A client's header fields can be had one by one: junk in one of them spoils no other.
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
