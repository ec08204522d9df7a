"""The kinds of tests, and the summary in the last lines."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.kinds import parts, say

ROOT = Path(__file__).parents[1]

TESTS = """
import pytest

@pytest.fixture
def redis_url():
    pytest.skip("Redis is not installed")

@pytest.mark.parametrize("url", ["redis_url as a name"])
def test_with_a_name(url): ...

def test_with_a_server(redis_url): ...

@pytest.mark.processes
@pytest.mark.sample
def test_some(rounds):
    assert rounds == 2

@pytest.mark.processes
def test_many(rounds): ...

@pytest.mark.packaging
def test_wheel(): ...

def test_quick(): ...
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A small suite with tests of several kinds."""
    folder = tmp_path / "simulation"
    folder.mkdir()
    (folder / "test_worlds.py").write_text("def test_worlds(worlds): assert worlds == 7\n")
    (tmp_path / "test_kinds_of.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nmarkers = services\n  processes\n  simulation\n  browser\n  packaging\n  loops\n  size\n  sample\n"
    )
    return tmp_path


def run(suite: Path, workers: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.kinds"]
    command += ["-p", "xdist", f"-n{workers}"] if workers else []
    command += ["-p", "no:cacheprovider", "--rounds=2", "--worlds=7", "--rootdir", str(suite)]
    command += ["-c", str(suite / "pytest.ini"), "-m", "not (processes or packaging) or sample"]
    return subprocess.run(
        [*command, str(suite)],
        cwd=ROOT,
        # No other plugins, because importing them takes time.
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_the_last_lines_say_what_became_of_each_kind(suite: Path, workers: int) -> None:
    done = run(suite, workers)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-5:-1] == [
        "services: 1 passed, 1 skipped",
        "processes: 1 passed, 1 not selected (2 rounds)",
        "simulation: 1 passed (7 worlds)",
        "packaging: 1 not selected",
    ]
    assert "4 passed, 1 skipped" in done.stdout.splitlines()[-1]


def test_other_event_loops_are_a_kind_of_their_own_but_for_the_protocol(suite: Path) -> None:
    cases = (
        "import pytest\n"
        "@pytest.mark.parametrize('anyio_backend', ['asyncio', 'asyncio+eager', 'asyncio+uvloop'])\n"
        "def test_it(anyio_backend): ...\n"
    )
    (suite / "test_words.py").write_text(cases)
    (suite / "refresh").mkdir()
    (suite / "refresh" / "test_flights.py").write_text(cases)
    done = run(suite)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "loops: 2 passed" in done.stdout.splitlines()
    assert "10 passed, 1 skipped" in done.stdout.splitlines()[-1]


def test_a_module_that_does_not_import_is_of_no_kind(suite: Path) -> None:
    (suite / "test_broken.py").write_text("import nothing_of_this_name")
    done = run(suite)
    assert done.returncode == 2
    assert "No module named 'nothing_of_this_name'" in done.stdout
    assert "INTERNALERROR" not in done.stdout + done.stderr


def test_the_size_of_a_kind_is_said_if_something_of_it_passed() -> None:
    counts = {"passed": Counter[str](), "failed": Counter(simulation=2)}
    assert say(counts, {"simulation": "300 worlds"}) == ["simulation: 2 failed"]


def test_rounds_are_divided_into_tests_of_five() -> None:
    assert parts(1) == [1]
    assert parts(5) == [5]
    assert parts(12) == [5, 5, 2]
