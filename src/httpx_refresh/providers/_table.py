"""The facts about providers, written for people (Markdown) and for programs (JSON values)."""

from __future__ import annotations

from typing import Any, cast

from ._preset import DAY, HOUR, PRESETS, SERVICES, Grace, Preset

_GRANTS = {
    "authorization_code": "login",
    "device_code": "device login",
    "refresh_token": "refresh",
    "client_credentials": "client credentials",
    "jwt_bearer": "JWT bearer",
    "token_exchange": "token exchange",
    "account_credentials": "account credentials",
    "installation": "installation",
}

_ROTATION = {
    "always": "each refresh",
    "sometimes": "now and then",
    "never": "never",
    "setting": "a setting",
    "none": "no refresh token",
    "unknown": "not known",
}


def as_dict(preset: Preset) -> dict[str, Any]:
    """Return the facts about a provider as JSON values; lifetimes are in seconds."""
    one = preset.provider
    options, auth = cast("dict[str, Any]", one.options), one.client_auth
    return {
        "preset": preset.name,
        "title": one.title,
        "parameters": list(preset.parameters),
        "grants": list(one.grants),
        "rotation": one.rotation,
        "grace": one.grace,
        "client_auth": auth if auth is None or isinstance(auth, str) else auth.method,
        "access_token_lifetime": one.access_token_lifetime,
        "idle_lifetime": one.idle_lifetime,
        "absolute_lifetime": one.absolute_lifetime,
        "token_endpoint": one.url,
        "refresh_endpoint": options.get("refresh_url", one.url),
        "authorization_endpoint": options.get("authorization_endpoint"),
        "revocation_endpoint": options.get("revocation_endpoint"),
        "origins": list(one.origins),
        "quirks": list(one.quirks),
        "unknown": list(one.unknown),
        "sources": list(preset.sources),
    }


def duration(seconds: float | None) -> str:
    """Return a duration in words; empty if it is not known."""
    if seconds is None:
        return ""
    for size, word in ((DAY, "day"), (HOUR, "hour"), (60.0, "minute"), (1.0, "second")):
        if seconds >= size:
            number = f"{seconds / size:g}"
            return f"{number} {word}" + ("" if number == "1" else "s")
    return "none"


def grace(value: Grace) -> str:
    """Return in words how long a spent refresh token is still accepted."""
    if value is None:
        return ""
    if isinstance(value, str):
        return {"until_used": "until the new one is used", "stays_valid": "stays valid"}[value]
    return duration(value)


def row(preset: Preset) -> tuple[str, ...]:
    """Return the cells of a provider's row; an empty cell means that the fact is not known."""
    one = preset.provider
    lifetimes = [duration(one.idle_lifetime) and f"{duration(one.idle_lifetime)} unused"]
    lifetimes.append(
        duration(one.absolute_lifetime) and f"{duration(one.absolute_lifetime)} in all"
    )
    return (
        one.title,
        preset.name,
        ", ".join(_GRANTS[grant] for grant in one.grants),
        _ROTATION[one.rotation],
        grace(one.grace),
        duration(one.access_token_lifetime),
        ", ".join(filter(None, lifetimes)),
    )


HEADINGS = (
    "provider",
    "preset",
    "grants",
    "new refresh token",
    "old refresh token accepted for",
    "access token lives",
    "refresh token lives",
)


def sorted_presets() -> list[Preset]:
    """Return all presets, sorted by the names of their providers."""
    return sorted(
        [*PRESETS.values(), *SERVICES.values()], key=lambda one: one.provider.title.casefold()
    )


def markdown() -> str:
    """Return the table of all providers, followed by a section about each."""
    lines = [f"| {' | '.join(HEADINGS)} |", f"|{'---|' * len(HEADINGS)}"]
    for preset in sorted_presets():
        title, name, *cells = row(preset)
        cells = [cell or "?" for cell in cells]
        lines.append(f"| [{title}](#{_anchor(title)}) | {' | '.join([f'`{name}`', *cells])} |")
    for preset in sorted_presets():
        lines += ["", *_section(preset)]
    return "\n".join(lines) + "\n"


def _anchor(title: str) -> str:
    return title.casefold().replace(" ", "-")


def _section(preset: Preset) -> list[str]:
    one = preset.provider
    told = ", ".join([*preset.leading, *(f"{name}=" for name in preset.parameters)])
    lines = [f"### {one.title}", "", f"`{preset.name}({told})`"]
    origins = ", ".join(f"`{origin}`" for origin in one.origins) or "none: `origins=` is required"
    lines += ["", f"- Its tokens go to: {origins}."]
    lines += [f"- {_sentence(quirk)}" for quirk in one.quirks]
    lines += [f"- Not known: {text}." for text in one.unknown]
    lines.append(f"- Sources: {'; '.join(preset.sources).rstrip('.')}.")
    return lines


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


MARK = "<!-- made of the presets: python -m httpx_refresh.providers._table docs/providers.md -->\n"


def renewed(document: str) -> str:
    """Return a document in which the text after `MARK` is generated anew."""
    before, mark, _ = document.partition(MARK)
    if not mark:
        raise ValueError(f"the document lacks the line that the table follows: {MARK.strip()}")
    return f"{before}{mark}\n{markdown()}"


if __name__ == "__main__":
    import sys
    from pathlib import Path

    path = Path(sys.argv[1])
    path.write_text(renewed(path.read_text("utf-8")), "utf-8")
