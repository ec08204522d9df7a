from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from httpx_refresh import MemoryStore, RefreshAuth
from httpx_refresh.testing import running_server
from tests import moves
from tests.fakes import Endpoint
from tests.moves import Figures, Recorder, Step, figures

ROOT = Path(__file__).parents[1]
REQUEST = httpx.Request("GET", "https://api.test/")

# What a reader of one refreshed request meets at most. The bounds only come down.
MOVES = 114
MOVES_BETWEEN_ROOMS = 52


def test_one_refreshed_request_is_a_way_of_so_many_moves() -> None:
    found = figures(moves.run())
    assert found.calls > found.functions > found.files > found.rooms > 3
    assert found.moves <= MOVES
    assert found.moves_between_rooms <= MOVES_BETWEEN_ROOMS


def test_a_move_is_a_step_in_another_file_than_the_step_before() -> None:
    steps = [
        Step("_auth.py", "send:1"),
        Step("_refresh/slot.py", "load:1"),
        Step("_refresh/slot.py", "load:1"),
        Step("_refresh/record.py", "parse:1"),
        Step("_refresh/slot.py", "load:1", first=False),
        Step("_auth.py", "send:1", first=False),
    ]
    assert figures(steps) == Figures(
        calls=4, functions=3, files=3, moves=4, rooms=2, moves_between_rooms=2
    )


def test_a_step_is_a_call_inside_the_library() -> None:
    """Called by hand: what runs inside a profile function is invisible to coverage."""
    flow = RefreshAuth(Endpoint(), MemoryStore()).async_auth_flow(REQUEST)
    testing: Any = running_server()
    recorder = Recorder()
    for event in ("call", "return", "call"):
        recorder(flow.ag_frame, event, None)  # type: ignore[attr-defined]  # every async generator has one
        recorder(testing.gen.gi_frame, event, None)
        recorder(sys._getframe(), event, None)
    assert [(step.file, step.first) for step in recorder.steps] == [
        ("_auth.py", True),
        ("_auth.py", False),
    ]


def test_the_command_prints_the_way_and_the_figures() -> None:
    command = [sys.executable, "-m", "tests.moves"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    way, _, counts = done.stdout.partition(" calls\n")
    assert "_auth.py" in way
    assert [line.split(maxsplit=1)[1] for line in counts.splitlines()] == [
        "functions",
        "files",
        "moves",
        "rooms",
        "moves between rooms",
    ]
