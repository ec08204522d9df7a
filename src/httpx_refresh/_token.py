"""Token: what a token endpoint answered, and when it expires; and the JSON that it is written in.

It knows neither servers nor stores.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ._errors import frameless, shown, without_frames

logger = logging.getLogger("httpx_refresh")

_T = TypeVar("_T")

NAMED = ("access_token", "refresh_token", "expires_at", "token_type")

# RFC 6749 Appendix A.12: 1*VSCHAR; a blank at either end would not survive a header field (RFC 9110 §5.5).
_ACCESS_TOKEN = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")

_MOST_SHOWN = 300  # characters of the names of further fields, which are a server's words

_CENTURY = 3_155_760_000.0
_EPOCH_END = 1e11  # the year 5138; what is more was meant in milliseconds


def seconds(value: object, *, most: float = _CENTURY) -> float | None:
    """Read a positive number of seconds from a JSON value, or None if it is not a credible one.

    Servers send `expires_in` as a number, as a string of digits, as null, and worse. Nothing or less, or more
    than `most` (a century), says nothing.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str) and len(value) > 32:
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and 0 < number <= most else None


def epoch(value: object) -> float | None:
    """Read a moment in epoch seconds from a JSON value, or None if it is not a credible one."""
    return seconds(value, most=_EPOCH_END)


def lifetime(fields: Mapping[str, Any]) -> float | None:
    """Read an access token's lifetime in seconds from a token response's fields.

    Zoho sends `expires_in` in milliseconds where `expires_in_sec` stands beside it
    (zoho/zohocrm-python-sdk-2.0, oauth_token.py).
    """
    return seconds(fields.get("expires_in_sec", fields.get("expires_in")))


def _frameless_init(cls: type[_T]) -> type[_T]:
    """Keep the tokens that are passed to a dataclass out of the frames of what it raises.

    As `frameless` does, which is left to the code that reads what fails: tokens are made at each refresh.
    """
    initialise: Any = cls.__init__

    @functools.wraps(initialise)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            initialise(self, *args, **kwargs)
            return
        except BaseException as error:
            failure = without_frames(error)
        finally:
            del self, args, kwargs
        raise failure

    cls.__init__ = __init__  # type: ignore[method-assign]  # the dataclass's own, wrapped
    return cls


@_frameless_init
@dataclass(frozen=True, slots=True)
class Token:
    """Hold an access token with what came beside it (RFC 6749 §5.1).

    Its repr shows no secret: of `extra`, the field names only.

    Args:
        access_token: printable ASCII, as it goes into the `Authorization` header.
        refresh_token: None where the server gave none.
        expires_at: when the access token expires, in epoch seconds; None if nobody knows.
        token_type: as the server sent it; the header's scheme does not depend on it.
        extra: every other field of the token response (`scope`, `instance_url`, ...), as it came. An `id_token` in it
            is not verified: check its signature, issuer and audience (OpenID Connect Core 1.0 §3.1.3.7) before you
            believe it.

    Raises:
        TypeError: a field of another type than declared.
        ValueError: an access token that cannot stand in a header, or an empty refresh token.
    """

    access_token: str
    refresh_token: str | None = None
    expires_at: float | None = None
    token_type: str = "Bearer"  # noqa: S105 - the name of a scheme, not a secret
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.access_token, str):
            raise TypeError("access_token must be a str")
        if not _ACCESS_TOKEN.fullmatch(self.access_token):
            raise ValueError(
                "access_token must be printable ASCII and not empty (RFC 6749 Appendix A.12)"
            )
        if self.refresh_token is not None and not isinstance(self.refresh_token, str):
            raise TypeError("refresh_token must be a str or None")
        if self.refresh_token == "":
            raise ValueError("refresh_token must not be empty; leave it out (None) instead")
        if isinstance(self.expires_at, str) or (
            self.expires_at is not None and epoch(self.expires_at) is None
        ):
            raise ValueError("expires_at must be epoch seconds or None")
        if not isinstance(self.token_type, str):
            raise TypeError("token_type must be a str")
        if not isinstance(self.extra, Mapping):
            raise TypeError("extra must be a mapping")

    @classmethod
    @frameless
    def from_response(cls, response: Mapping[str, Any]) -> Token:
        """Make a token of a token response's fields (RFC 6749 §5.1), received now.

        `expires_at` is taken as it stands if it is a number; else it is now plus `expires_in`, if that is a
        credible number of seconds (a string of digits is); else None. All other fields are kept in `extra`.

        Args:
            response: the response's JSON object.

        Raises:
            TypeError: `response` is not a mapping, or a token in it is not a string.
            ValueError: there is no access token in it that can stand in a header.
        """
        if not isinstance(response, Mapping):
            raise TypeError("a token response must be a mapping")
        expires_at = epoch(response.get("expires_at"))
        expires_in = lifetime(response)
        if expires_at is None and expires_in is not None:
            expires_at = time.time() + expires_in
        token_type = response.get("token_type")
        return cls(
            response.get("access_token", ""),
            response.get("refresh_token") or None,
            expires_at,
            token_type if isinstance(token_type, str) and token_type else "Bearer",
            {name: value for name, value in response.items() if name not in NAMED},
        )

    def __repr__(self) -> str:
        refresh_token = None if self.refresh_token is None else "***"
        return (
            f"Token(access_token='***', refresh_token={refresh_token!r}, "
            f"expires_at={self.expires_at!r}, token_type={self.token_type!r}, "
            f"extra=<{shown(', '.join(map(str, self.extra)), _MOST_SHOWN)}>)"
        )


# -- JSON that can always be written again: what can be read and not be written is not let in --------------------

DEEPEST = 20
"""Arrays and objects in one another; a reader and a writer differ in how many they can bear."""

_NESTING = (dict, list, tuple)

_MOST_DIGITS = 300  # the longest that is still a float; Python itself refuses 4,300 and more


def read_json(text: str | bytes) -> Any:
    """Return the value of a JSON text. Numbers that are none, or too large for a float, are None.

    Raises:
        ValueError: it is not JSON. The exception may hold the text.
        RecursionError: it is nested too deeply to be read.
    """
    return json.loads(text, **_HOOKS) if isinstance(text, bytes) else _DECODER.decode(text)


def write_json(fields: Mapping[str, Any]) -> str:
    """Return the JSON text of an object, without the fields that JSON cannot carry."""
    whole = _written(fields)
    if (
        whole is not None
    ):  # Nearly always. Writing each field by itself takes several times as long.
        return whole
    writable = {name: value for name, value in fields.items() if _written({name: value})}
    logger.warning(
        "Left out, for JSON cannot carry them: %s",
        ", ".join(repr(name) for name in fields if name not in writable),
    )
    return _ENCODER.encode(writable)


def is_shallow(value: Any, most: int = DEEPEST) -> bool:
    """Whether a JSON value has at most `most` arrays and objects in one another."""
    if not isinstance(value, _NESTING):
        return True
    inner: Any = value.values() if isinstance(value, dict) else value
    return most > 0 and all(is_shallow(one, most - 1) for one in inner if isinstance(one, _NESTING))


MOST_EXTRA = 65_536
"""Bytes of JSON that are kept of what comes beside the tokens."""


def bounded_extra(extra: Mapping[str, Any], most: int = MOST_EXTRA) -> dict[str, Any]:
    """Return the fields that together take at most `most` bytes of JSON, without the largest if that is needed.

    What is left out is named in the log.
    A store holds a limited text: too much beside a token must not keep the token from being saved.

    Args:
        extra: fields of a JSON object.
        most: bytes.
    """
    if len(json.dumps(dict(extra))) <= most:
        return dict(extra)
    sizes = {name: len(json.dumps({name: value})) for name, value in extra.items()}
    kept: set[str] = set()
    for name in sorted(sizes, key=sizes.__getitem__):  # pragma: no branch  # not all of them fit
        most -= sizes[name]
        if most < 0:
            break
        kept.add(name)
    logger.warning(
        "Left out of a token response, for it is too large: %s",
        ", ".join(ascii(name)[:64] for name in list(sizes)[:20] if name not in kept),
    )
    return {name: value for name, value in extra.items() if name in kept}


def _written(fields: Mapping[Any, Any]) -> str | None:
    """Return the JSON text of an object; None if JSON cannot carry all of it."""
    if not (is_shallow(fields, DEEPEST + 1) and all(isinstance(name, str) for name in fields)):
        return None
    try:
        return _ENCODER.encode(fields)
    except (TypeError, ValueError):
        return None


def _integer(text: str) -> int | None:
    return int(text) if len(text) <= _MOST_DIGITS else None


def _number(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _nothing(_: str) -> None:
    """Drop NaN and Infinity, which Python writes and nobody else reads."""


_HOOKS: Any = {"parse_int": _integer, "parse_float": _number, "parse_constant": _nothing}
_DECODER = json.JSONDecoder(**_HOOKS)
_ENCODER = json.JSONEncoder(allow_nan=False)
