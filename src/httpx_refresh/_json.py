"""JSON that can always be written again: what can be read and not be written is not let in."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from typing import Any, cast

logger = logging.getLogger("httpx_refresh")

DEEPEST = 20
"""Arrays and objects in one another; a reader and a writer differ in how many they can bear."""

_MOST_DIGITS = 300  # the longest that is still a float; Python itself refuses 4,300 and more


def read(text: str | bytes) -> Any:
    """Return the value of a JSON text. Numbers that are none, or too large for a float, are None.

    Raises:
        ValueError: it is not JSON. The exception may hold the text.
        RecursionError: it is nested too deeply to be read.
    """
    return json.loads(text, parse_int=_integer, parse_float=_number, parse_constant=_nothing)


def write(fields: Mapping[str, Any]) -> str:
    """Return the JSON text of an object, without the fields that JSON cannot carry."""
    writable = {name: value for name, value in fields.items() if _can_be_written(name, value)}
    if len(writable) < len(fields):
        logger.warning(
            "Left out, for JSON cannot carry them: %s",
            ", ".join(repr(name) for name in fields if name not in writable),
        )
    return json.dumps(writable)


def is_shallow(value: Any, depth: int = 0) -> bool:
    """Whether a JSON value is nested less than `DEEPEST` deep."""
    if not isinstance(value, (dict, list, tuple)):
        return True
    inner: Any = cast("Any", value)
    if isinstance(value, dict):
        inner = inner.values()
    return depth < DEEPEST and all(is_shallow(one, depth + 1) for one in inner)


def _can_be_written(name: Any, value: Any) -> bool:
    if type(value) is str:
        return isinstance(name, str)
    if not is_shallow(value):
        return False
    try:
        json.dumps({name: value}, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return isinstance(name, str)


def _integer(text: str) -> int | None:
    return int(text) if len(text) <= _MOST_DIGITS else None


def _number(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _nothing(_: str) -> None:
    """Drop NaN and Infinity, which Python writes and nobody else reads."""
