"""A server's words, made fit to be shown: without secrets of ours and control characters, in bounded length and time.

It knows no client and no request.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

from .._errors import shown

_PIECE = 8
"""Characters of a secret in a row that are recognised: servers repeat the beginning of what they refuse."""

_WORD = 4
"""A secret that is shorter is hidden where it stands alone. It would be found in every other word."""

_LONG = 4096
"""A secret of more characters is looked for whole as it is, in other forms by its beginning and its end."""

# A JWT (RFC 7519 §3.1), ours or not: `eyJ` is the beginning of a JSON object in base64.
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)*")

_OCTET = re.compile("%[0-9A-F]{2}")


def redacted(text: str | None, secrets: Iterable[str], most: int) -> str | None:
    """Return a server's words without the secrets of ours that they repeat, in one line, bounded.

    A secret is recognised whole or in part, as it is, and as it looks in a URL, a form, JSON, HTML, base64, and HTTP
    Basic credentials, if 8 characters of it stand in a row. One of fewer than 4 characters is hidden only where it is
    a word of its own. Of one of more than 4,096 the middle is recognised as it is only, and in rows of 15: servers
    repeat the beginning of what they refuse, or the end, and the time that this takes is bounded.

    Args:
        text: the words.
        secrets: what must not be shown; empty ones do not matter.
        most: characters of the result.
    """
    if text is None:
        return None
    text = text[: 8 * most]  # What follows would not be shown.
    hidden = bytearray(len(text))
    for found in _JWT.finditer(text):
        _hide(hidden, *found.span())
    for form in {form for secret in secrets if secret for form in _forms(secret)}:
        for start, end in _found(text, form):
            _hide(hidden, start, end)
    return shown("".join(_visible(text, hidden)), most)


def _hide(hidden: bytearray, start: int, end: int) -> None:
    hidden[start:end] = b"\1" * (end - start)


def _visible(text: str, hidden: bytearray) -> Iterator[str]:
    before = 0
    for one, is_hidden in zip(text, hidden, strict=True):
        if not is_hidden:
            yield one if one.isprintable() else " "
        elif not before:
            yield "***"
        before = is_hidden


def _found(text: str, form: str) -> Iterator[tuple[int, int]]:
    """Yield where a form of a secret, or a piece of it, stands in a text."""
    if len(form) < _WORD:
        for found in re.finditer(rf"(?<!\w){re.escape(form)}(?!\w)", text):
            yield found.span()
        return
    size = min(_PIECE, len(form))
    step = 1 if len(form) <= 3 * _LONG else size  # Each character may be three in a URL.
    pieces = {form[at : at + size]: at for at in range(0, len(form) - size + 1, step)}
    # Where the last piece stands in the form, counted from where it stands in the text, and the end of what is like
    # the form around it. The next piece of the same row is widened to the same bounds.
    shift, covered = None, 0
    for start in range(len(text) - size + 1):
        at = pieces.get(text[start : start + size])
        if at is None or (at - start == shift and start < covered):
            continue
        shift = at - start
        bounds = _widened(text, start, start + size, form, at)
        covered = bounds[1]
        yield bounds


def _widened(text: str, start: int, end: int, form: str, at: int) -> tuple[int, int]:
    """Return the bounds in `text` of all that is like `form` around the piece that stands at `at` in it."""
    to = at + end - start
    while start > 0 and at > 0 and text[start - 1] == form[at - 1]:
        start, at = start - 1, at - 1
    while end < len(text) and to < len(form) and text[end] == form[to]:
        end, to = end + 1, to + 1
    return start, end


def _forms(secret: str) -> Iterator[str]:
    """Yield a secret as it may look in a server's words."""
    if len(secret) > _LONG:
        yield secret
        yield from _forms(secret[: _LONG // 2])
        yield from _forms(secret[-_LONG // 2 :])
        return
    for form in (secret, quote_plus(secret, errors="replace")):
        yield form
        for before in range(3):
            yield from _in_base64(form.encode("utf-8", "replace"), before)
    for form in (quote(secret, safe="", errors="replace"), quote_plus(secret, errors="replace")):
        yield form
        yield _OCTET.sub(lambda octet: octet[0].lower(), form)
    yield json.dumps(secret)[1:-1]
    yield html.escape(secret)


def _in_base64(secret: bytes, before: int) -> Iterator[str]:
    """Yield what of the base64 of a longer text is the secret's alone; it begins at a multiple of 3, plus `before`."""
    encoded = base64.b64encode(b"\0" * before + secret)
    begin = (before * 8 + 5) // 6
    end = (before + len(secret)) * 8 // 6
    own = encoded[begin:end].decode()
    if len(own) >= _PIECE:  # Less is in every other word.
        yield own
        yield own.replace("+", "-").replace("/", "_")
