"""What `WWW-Authenticate` says: the challenges of RFC 9110 §11.6.1, and the login that they ask for. Pure.

The grammar is small, and no library that is kept up reads all of it: Werkzeug's and WebOb's readers take several
challenges for one, and the only reader of several (www-authenticate, 2015) keeps one for each scheme.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

MOST_READ = 131_072
"""Characters of a response's challenges that are read; more than a client takes of a header as a rule."""

MOST_CHALLENGES = 256
"""Challenges of one response that are read; most have one or two."""

MOST_CLAIMS = 16_384
"""Characters of a `claims` parameter that are read; Entra's have some hundred."""

_MOST_DEPTH = 16  # of claims; those of OpenID Connect Core §5.5 have four
_MOST_SECONDS = 10  # digits of a `max_age`

INSUFFICIENT_SCOPE = "insufficient_scope"
"""RFC 6750 §3.1: the request needs more than the token's scope."""

INSUFFICIENT_AUTHENTICATION = "insufficient_user_authentication"
"""RFC 9470 §3: the request needs a stronger login, or a more recent one."""

INSUFFICIENT_CLAIMS = "insufficient_claims"
"""Microsoft Entra's claims challenge: the request needs a token with these claims."""

_STEP_UPS = frozenset({INSUFFICIENT_SCOPE, INSUFFICIENT_AUTHENTICATION, INSUFFICIENT_CLAIMS})
_SCHEMES = frozenset({"bearer", "dpop"})

# Of each, what it is and where it ends follows from its first character: nothing is tried twice.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_QUOTED = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"', re.DOTALL)
_PAIR = re.compile(r"\\(.)", re.DOTALL)
_EQUALS = re.compile(r"[ \t]*=[ \t]*")
_TOKEN68 = re.compile(r"[ \t]+([A-Za-z0-9._~+/-]+=*)[ \t]*(?:,|\Z)")
_BETWEEN = re.compile(r"[ \t,]+")
_JUNK = re.compile(r'[^",]+')


class AuthChallenge(NamedTuple):
    """One challenge: a scheme, and its parameters or its `token68`.

    Attributes:
        scheme: in lower case.
        params: by names in lower case, quotes undone; of one that is there twice the first.
        token68: what stands instead of parameters, as in `Negotiate oRQwEqADCgEBow==`.
    """

    scheme: str
    params: Mapping[str, str]
    token68: str | None = None


def parse(values: Iterable[str]) -> tuple[AuthChallenge, ...]:
    """Read the challenges of all `WWW-Authenticate` fields of a response (RFC 9110 §11.6.1).

    What cannot be read is left out, up to the next comma; a string without an end ends its field. A blank in the place
    of a comma between parameters is let pass. The time is proportional to the length, of which `MOST_READ` counts.

    Args:
        values: the fields' values, each of which may hold several challenges.
    """
    found: list[AuthChallenge] = []
    left = MOST_READ
    for value in values:
        _read_value(value[:left], found)
        left -= len(value)
        if left <= 0:
            break
    return tuple(found)


def _read_value(text: str, found: list[AuthChallenge]) -> None:
    params: dict[str, str] | None = None  # of the challenge that is being read
    at = 0
    while at < len(text) and len(found) < MOST_CHALLENGES:
        between = _BETWEEN.match(text, at)
        if between is not None:
            at = between.end()
            continue
        name = _TOKEN.match(text, at)
        if name is None:
            at = _after_junk(text, at)
            continue
        equals = _EQUALS.match(text, name.end())
        if equals is None:
            params = {}
            token68 = _TOKEN68.match(text, name.end())
            found.append(
                AuthChallenge(
                    name.group().lower(), params, None if token68 is None else token68.group(1)
                )
            )
            at = name.end() if token68 is None else token68.end()
            continue
        quoted = _QUOTED.match(text, equals.end())
        plain = None if quoted is not None else _TOKEN.match(text, equals.end())
        if quoted is not None:
            value, at = _PAIR.sub(r"\1", quoted.group(1)), quoted.end()
        elif plain is not None:
            value, at = plain.group(), plain.end()
        else:
            at = _after_junk(text, equals.end())
            continue
        if params is not None:
            params.setdefault(name.group().lower(), value)


def _after_junk(text: str, at: int) -> int:
    """Return where to read on after what is no part of a challenge: at the next comma that is in no string."""
    while at < len(text) and text[at] != ",":
        match = _QUOTED.match(text, at) or _JUNK.match(text, at)
        if match is None:
            return len(text)  # A string without an end.
        at = match.end()
    return at


class StepUp(NamedTuple):
    """Another login is asked for than the one that the token comes from; what is None is not said.

    Attributes:
        error: why: `insufficient_scope`, `insufficient_user_authentication` or `insufficient_claims`.
        scope: the scopes that the request needs (RFC 6750 §3).
        claims: the claims that the token needs, decoded (OpenID Connect Core §5.5); None if they cannot be read.
        acr_values: the authentication contexts that will do, the preferred one first (RFC 9470 §3).
        max_age: seconds since the login at most (RFC 9470 §3).
        resource_metadata: the URL of the protected resource's metadata (RFC 9728 §5.1).
    """

    error: str
    scope: str | None = None
    claims: Mapping[str, Any] | None = None
    acr_values: str | None = None
    max_age: int | None = None
    resource_metadata: str | None = None


def step_up_of(challenges: Iterable[AuthChallenge]) -> StepUp | None:
    """Return the login that challenges ask for; None if it is none of them.

    The first challenge with an `error` says it, of those for bearer tokens (RFC 6750 §3, RFC 9449 §7.1): the other
    parameters stand on challenges of every kind.
    """
    for challenge in challenges:
        params = challenge.params
        if challenge.scheme not in _SCHEMES or "error" not in params:
            continue
        error = params["error"]
        if error not in _STEP_UPS:
            return None
        return StepUp(
            error,
            _words(params.get("scope")),
            claims_of(params.get("claims")),
            _words(params.get("acr_values")),
            _seconds(params.get("max_age")),
            _printable(params.get("resource_metadata")),
        )
    return None


def without(asked: StepUp, secret: str) -> StepUp:
    """Return what is asked for without the values that repeat `secret`: an API may show what it was sent."""
    values = {name: value for name, value in asked._asdict().items() if name != "error"}
    escaped = json.dumps(secret)[1:-1]  # A token may hold a quotation mark or a backslash.
    nothing: dict[str, Any] = {
        name: None
        for name, value in values.items()
        if (secret in value if isinstance(value, str) else escaped in json.dumps(value))
    }
    return asked._replace(**nothing) if nothing else asked


def claims_of(text: str | None) -> dict[str, Any] | None:
    """Read a `claims` parameter: JSON, as it is or in base64, of either alphabet, with its padding or without.

    None if it is no object, or is longer or nested deeper than any that is meant.
    """
    if text is None or not text.strip() or len(text) > MOST_CLAIMS:
        return None
    text = text.strip()
    try:
        if not text.startswith("{"):
            packed = text.rstrip("=").translate(_URL_SAFE)
            text = base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True).decode()
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
        claims_text(value).encode()  # Half a surrogate pair cannot be sent.
    except (ValueError, RecursionError, binascii.Error):
        return None
    return value if isinstance(value, dict) and value and _depth(value) <= _MOST_DEPTH else None


_URL_SAFE = str.maketrans("-_", "+/")


def claims_text(claims: Mapping[str, Any]) -> str:
    """Write claims as JSON, equal ones alike."""
    return json.dumps(claims, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def united_claims(*parts: Mapping[str, Any] | None) -> dict[str, Any]:
    """Unite claims; where two say different things of one, the later one counts."""
    united: dict[str, Any] = {}
    for part in parts:
        for name, value in (part or {}).items():
            there = united.get(name)
            both = isinstance(there, Mapping) and isinstance(value, Mapping)
            united[name] = united_claims(there, value) if both else value
    return united


def united_scope(*scopes: str | None) -> str | None:
    """Unite scopes, each a list of words with blanks between; None if there is none."""
    words = [word for scope in scopes for word in (scope or "").split()]
    return " ".join(dict.fromkeys(words)) or None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        _refuse_constant("Infinity")  # It would be written so.
    return number


def _depth(value: object, most: int = _MOST_DEPTH) -> int:
    """Return how deep a value is nested, or a number greater than `most`."""
    depth = 0
    level: list[Any] = [value]
    while level and depth <= most:
        depth += 1
        level = [
            inner
            for one in level
            for inner in (
                one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
            )
        ]
    return depth


def _words(text: str | None) -> str | None:
    return None if text is None or not text.isprintable() else " ".join(text.split()) or None


def _printable(text: str | None) -> str | None:
    return text if text and text.isprintable() else None


def _seconds(text: str | None) -> int | None:
    if text is None or len(text) > _MOST_SECONDS or not (text.isascii() and text.isdigit()):
        return None
    return int(text)
