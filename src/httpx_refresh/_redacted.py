"""A server's words, made fit to be shown."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote_plus


def redacted(text: str | None, secrets: Iterable[str], most: int) -> str | None:
    """Return a server's words without the secrets of ours that they repeat, in one line, bounded."""
    if text is None:
        return None
    for secret in secrets:
        for form in (secret, quote_plus(secret)):
            if form:
                text = text.replace(form, "***")
    text = "".join(one if one.isprintable() else " " for one in text)
    return text if len(text) <= most else text[: most - 1] + "…"
