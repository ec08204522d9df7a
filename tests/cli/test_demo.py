"""The demo plays both sides against one server in its own process; its exit code tells whether all figures hold."""

from __future__ import annotations

import io
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from rich.console import Console
from rich.text import Text

from httpx_refresh.cli import demo
from httpx_refresh.testing import RunningServer

# Not among the slow ones, though it starts processes: on CPython 3.11 a tracer loses what comes after an event loop
# that connected a socket, so coverage has it from the other Pythons.


def shown(*, terminal: bool, callers: int) -> tuple[int, str]:
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=100, no_color=True)
    code = demo.demo(console, callers=callers)
    return code, Text.from_ansi(output.getvalue()).plain


@pytest.mark.processes
@pytest.mark.parametrize("terminal", [True, False])
def test_the_demo_ends_with_the_score_of_both_sides(terminal: bool) -> None:
    code, output = shown(terminal=terminal, callers=20)
    assert code == 0, output
    assert "All 13 figures are as expected." in output
    rows = [line.split() for line in output.splitlines() if line.strip()][-4:]
    assert [row[-1] for row in rows] == ["httpx-refresh", "3", "0", "0"]
    # The recipe: two for the first expiry, and one for each call after that; five callers, twice.
    assert rows[2][-2:] == ["10", "0"]
    assert rows[3][-2:] == ["1", "0"]
    assert "taken over" in output


def a_story(tmp_path: Path) -> demo.Story:
    """A story with the expected results, without processes."""
    path = tmp_path / "ours.json"
    path.write_text('{"access_token": "x", "httpx_refresh": {"generation": 2}}')
    recipe = demo.Side("recipe", recipe=True, path=path, family=0)
    recipe.scenes = [Counter({"200": 20}), Counter({"401": 5}), Counter({"401": 5})]
    recipe.refreshes, recipe.lost, recipe.accepted = [2, 5, 6], True, 20
    ours = demo.Side("ours", recipe=False, path=path, family=1)
    ours.scenes = [Counter({"200": 20}), Counter({"200": 5}), Counter({"200": 5})]
    ours.refreshes, ours.accepted = [1, 0, 2], 30
    recipe.caller_cancelled = ours.caller_cancelled = True
    line = {"url": "http://127.0.0.1:1", "client_id": "x", "client_secret": "x", "token": {}}
    with httpx.Client() as client:  # it has no process, and gets no commands
        return demo.Story(RunningServer(line, 0, client), recipe, ours, 20, print)


def test_a_story_that_went_well_has_no_wrong_sum(tmp_path: Path) -> None:
    assert [one.name for one in demo.sums(a_story(tmp_path)) if not one.right] == []


@pytest.mark.parametrize(
    "side, change",
    [
        ("ours", {"lost": True}),
        ("ours", {"refreshes": [1, 1, 2]}),
        ("ours", {"accepted": 31}),
        ("ours", {"caller_cancelled": False}),
        ("ours", {"scenes": [Counter({"200": 20}), Counter({"200": 5}), Counter({"200": 4})]}),
        ("ours", {"scenes": [Counter({"200": 29, "401": 1})]}),
        ("ours", {"scenes": [Counter({"200": 29, "ReadError": 1})]}),
        ("recipe", {"lost": False}),
        ("recipe", {"refreshes": [1, 5, 6]}),
        ("recipe", {"accepted": 0}),
        ("recipe", {"caller_cancelled": False}),
        ("recipe", {"scenes": [Counter({"200": 20, "ReadError": 10})]}),
    ],
)
def test_a_figure_that_is_not_right_is_a_wrong_sum(
    tmp_path: Path, side: str, change: dict[str, object]
) -> None:
    story = a_story(tmp_path)
    changed = replace(getattr(story, side), **change)
    story = replace(story, **{side: changed})
    assert [one for one in demo.sums(story) if not one.right]


@pytest.mark.processes
def test_a_wrong_sum_is_named_and_makes_the_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = demo.Sum("a sum", 3, right=False)
    monkeypatch.setattr(demo, "sums", lambda story: [wrong])
    code, output = shown(terminal=False, callers=4)
    assert code == 1
    assert "WRONG a sum: 3" in output
    assert "Some figures are not as expected." in output


def test_the_script_exits_with_the_code_of_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "demo", lambda console: 7 if console.file is sys.stdout else 8)
    assert demo.main() == 7
