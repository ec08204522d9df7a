"""The page about events lists every event with its log level, every field and every instrument."""

from __future__ import annotations

import dataclasses
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from httpx_refresh import events, otel
from httpx_refresh._refresh.events import LOG

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "events.md").read_text("utf-8")


def test_every_event_is_on_the_page_with_the_level_of_its_record() -> None:
    rows = dict(re.findall(r"^\| \**`(\w+)`\** \| ([A-Z]+) \|", PAGE, re.MULTILINE))
    assert rows == {kind.__name__: logging.getLevelName(level) for kind, (level, _) in LOG.items()}


def test_every_common_field_is_on_the_page() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [a-z]", PAGE, re.MULTILINE)
    assert rows == [one.name for one in dataclasses.fields(events.Event)]


def test_what_is_special_in_an_event_is_on_the_page() -> None:
    common = {one.name for one in dataclasses.fields(events.Event)}
    for kind in LOG:
        (row,) = re.findall(rf"^\| \**`{kind.__name__}`.*$", PAGE, re.MULTILINE)
        special = {one.name for one in dataclasses.fields(kind)} - common - {"message"}
        assert all(f"`{name}`" in row for name in special), kind.__name__


def test_every_instrument_is_on_the_page() -> None:
    on_page = re.findall(r"^\| `httpx_refresh\.([\w.]+)`", PAGE, re.MULTILINE)
    assert sorted(on_page) == sorted(otel._instruments(None))


def test_every_record_outside_the_events_is_on_the_page() -> None:
    told = re.findall(r"^\| `((?:an|the|a) [\w …]+)`", PAGE, re.MULTILINE)
    source = "".join(
        (ROOT / "src/httpx_refresh/_refresh" / name).read_text("utf-8")
        for name in ("observers.py", "host.py", "events.py", "session.py", "spending.py")
    )
    calls = re.findall(r"logger\.(?:error|warning|critical|info|debug)\(\s*\"([^\"]+)\"", source)
    for words in calls:
        start = words.split("%s")[0].split(":")[0].strip()
        assert any(one.startswith(start) or start.startswith(one) for one in told), words


def test_the_page_s_examples_run() -> None:
    first, second = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    namespace: dict[str, Any] = {"__name__": "the page"}
    exec(compile(first + second, "<docs/events.md>", "exec"), namespace)  # noqa: S102 - our own page
    assert "RefreshAuth" in repr(namespace["auth"])


@pytest.mark.parametrize("kind", [one for one in LOG if one is not events.Event])
def test_every_event_is_frozen_and_every_record_s_words_name_its_fields_only(kind: Any) -> None:
    fields = {one.name for one in dataclasses.fields(kind)}
    assert set(re.findall(r"\{(\w+)", LOG[kind][1])) <= fields
    assert kind.__dataclass_params__.frozen
