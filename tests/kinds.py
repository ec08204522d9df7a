"""The kind of each test, the sizes of the long kinds, and the summary in the last lines.

A test without a kind is quick and needs nothing. `--worlds` and `--rounds` set the sizes of two kinds.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

KINDS = ("services", "processes", "simulation", "browser", "packaging", "loops", "size")

# Event loops that run a task's steps at other moments than asyncio's own. The protocol's tests always use them.
_OTHER_LOOPS = {"asyncio+eager", "asyncio+uvloop", "trio"}
_PROTOCOL = {"refresh", "test_auth_flow.py", "test_backends.py", "test_threads.py"}

# Tests in these folders are of the kind that the folder is named after.
_FOLDERS = {"processes", "simulation", "browser"}

# A test is of the kind `services` if it uses one of these fixtures, or has the name of one in a parameter.
_SERVERS = {"redis_url", "redis_cluster_url", "postgres_url", "mariadb_url", "oidc_provider"}

_OUTCOMES = ("passed", "failed", "error", "skipped")
_deselected = pytest.StashKey[Counter[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    sizes = parser.getgroup("sizes")
    sizes.addoption(
        "--worlds", type=int, default=300, help="simulated worlds that keep every promise"
    )
    sizes.addoption(
        "--rounds", type=int, default=1, help="of each way for a process or a server to fail"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_deselected] = Counter[str]()


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by `-m`
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for kind in _FOLDERS.intersection(item.path.parts):
            item.add_marker(kind)
        if _SERVERS & {*getattr(item, "fixturenames", ()), *_words(item)}:
            item.add_marker("services")
        callspec = getattr(item, "callspec", None)
        loop = callspec.params.get("anyio_backend") if callspec else None
        if loop in _OTHER_LOOPS and not _PROTOCOL.intersection(item.path.parts):
            item.add_marker("loops")


def _words(item: pytest.Item) -> Iterable[str]:
    """The words in an item's parameters: a fixture may be named there, and asked for later."""
    callspec = getattr(item, "callspec", None)
    values = callspec.params.values() if callspec else ()
    return [word for value in values if isinstance(value, str) for word in value.split()]


def parts(rounds: int, most: int = 5) -> list[int]:
    """Divide the rounds into tests of at most five, each with processes of its own."""
    return [min(most, rounds - begun) for begun in range(0, rounds, most)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "rounds" in metafunc.fixturenames:
        sizes = parts(metafunc.config.getoption("rounds"))
        metafunc.parametrize("rounds", sizes, ids=[str(number) for number in range(len(sizes))])


@pytest.fixture
def worlds(request: pytest.FixtureRequest) -> int:
    """The number of simulated worlds."""
    count: int = request.config.getoption("worlds")
    return count


def pytest_deselected(items: Iterable[pytest.Item]) -> None:
    for item in items:
        item.config.stash[_deselected].update(kind for kind in KINDS if kind in item.keywords)


def pytest_sessionfinish(session: pytest.Session) -> None:
    # Only a worker of pytest-xdist has this; its controller collects no tests.
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        deselected = session.config.stash[_deselected]
        output["deselected"] = dict(deselected)


@pytest.hookimpl(optionalhook=True)  # it is pytest-xdist's
def pytest_testnodedown(node: Any) -> None:
    # Every worker collects everything, so one of them reports for all. A crashed worker has no output.
    deselected: dict[str, int] = getattr(node, "workeroutput", {}).get("deselected", {})
    node.config.stash[_deselected] = Counter[str](deselected)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    counts = {
        outcome: Counter(
            kind
            for report in terminalreporter.stats.get(outcome, ())
            for kind in KINDS
            if kind in getattr(report, "keywords", ())  # a module that failed to import has none
        )
        for outcome in _OUTCOMES
    }
    counts["not selected"] = config.stash[_deselected]
    sizes = {
        "simulation": f"{config.getoption('worlds')} worlds",
        "processes": f"{config.getoption('rounds')} rounds",
    }
    for line in say(counts, sizes):
        terminalreporter.write_line(line)


def say(counts: dict[str, Counter[str]], sizes: dict[str, str]) -> list[str]:
    """Print the outcomes of the tests of each kind that was collected."""
    lines = []
    for kind in KINDS:
        found = [f"{count[kind]} {outcome}" for outcome, count in counts.items() if count[kind]]
        if found:
            size = f" ({sizes[kind]})" if kind in sizes and counts["passed"][kind] else ""
            lines.append(f"{kind}: {', '.join(found)}{size}")
    return lines
