"""The command `providers`: facts about each provider."""

from __future__ import annotations

import json

from ..providers import _table as table
from .console import Problem, say
from .settings import PRESETS


def show(name: str | None, *, as_json: bool) -> None:
    """Print the facts about a provider, or a line for each provider.

    Args:
        name: the preset's name, as spelled on the command line or in Python; None: all.
        as_json: whether to print JSON: an object for one, an array for all.
    """
    presets = table.sorted_presets()
    spelled = {one.name: one.name.replace("_", "-") for one in presets}
    spelled.update({one.name: key for key, one in PRESETS.items()})
    named = {spelled[one.name]: one for one in presets}
    if name is not None:
        wanted = name.lower().replace("_", "-")
        preset = named.get("2ba" if wanted == "twoba" else wanted)
        if preset is None:
            raise Problem(f"{name!r} is not known; known are {', '.join(named)}")
        facts = table.as_dict(preset)
        if as_json:
            say(json.dumps(facts))
            return
        for heading, cell in zip(table.HEADINGS, table.row(preset), strict=True):
            say(f"{heading:<21}  {cell or 'not known'}")
        for key in ("token_endpoint", "origins", "quirks", "unknown", "sources"):
            found = facts[key]
            for one in [found] if isinstance(found, str) else found:
                say(f"{key.replace('_', ' '):<21}  {one}")
        return
    if as_json:
        say(json.dumps([table.as_dict(one) for one in presets]))
        return
    rows: list[tuple[str, ...]] = [table.HEADINGS[1:]]
    rows += [(spelled[one.name], *(cell or "?" for cell in table.row(one)[2:])) for one in presets]
    widths = [max(len(one[column]) for one in rows) for column in range(len(rows[0]))]
    for cells in rows:
        say(
            "  ".join(
                f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)
            ).rstrip()
        )
