"""The demo runs against a server in a process of its own, and its exit code is honest."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console
from rich.text import Text

from httpx_refresh.cli import demo

# Not among the slow ones, though it starts a process: on CPython 3.11 a tracer loses what comes after an event loop
# that connected a socket, so coverage has it from the other Pythons.


def shown(*, terminal: bool, callers: int, calls: int) -> tuple[int, str]:
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=100, no_color=True)
    code = demo.demo(console, callers=callers, calls=calls)
    return code, Text.from_ansi(output.getvalue()).plain


@pytest.mark.parametrize("terminal", [True, False])
def test_the_demo_shows_one_refresh_and_as_many_replays_as_refusals(terminal: bool) -> None:
    code, output = shown(terminal=terminal, callers=20, calls=5)
    assert code == 0, output
    assert "1  refresh " in output
    assert "All sums are right." in output
    assert "refresh " in output.split("what happens")[1]


def test_the_demo_fails_when_no_token_ends() -> None:
    code, output = shown(terminal=False, callers=1, calls=1)
    assert code == 1
    assert "0  refreshes" in output
    assert "WRONG" in output


def test_the_script_exits_with_the_code_of_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "demo", lambda console: 7 if console.file is sys.stdout else 8)
    assert demo.main() == 7
