"""What every test can use: the event loops it runs on, and the servers it runs against."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio.testing

from tests.virtual_time import VirtualTimeLoop

if TYPE_CHECKING:
    from collections.abc import Callable

pytest_plugins = ["tests.services"]

# The fixtures that start a server, and the folders whose tests start processes or run for long.
_SERVERS = {"redis_url", "redis_cluster_url", "postgres_url", "mariadb_url"}
_SLOW_FOLDERS = {"browser", "processes", "simulation"}

Backend = tuple[str, dict[str, Any]]


def _loop(task_factory: Any) -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_task_factory(task_factory)
    return loop


# New in Python 3.12: a task's first step runs as the task is made.
_EAGER = getattr(asyncio, "eager_task_factory", None)

# anyio's name of the backend, and its options. Those in virtual time are asked for by a test.
_BACKENDS: dict[str, Callable[[], Backend]] = {
    "asyncio": lambda: ("asyncio", {"loop_factory": partial(_loop, None)}),
    "asyncio+eager": lambda: ("asyncio", {"loop_factory": partial(_loop, _EAGER)}),
    "asyncio+uvloop": lambda: ("asyncio", {"use_uvloop": True}),
    "trio": lambda: ("trio", {}),
    "asyncio+virtual": lambda: ("asyncio", {"loop_factory": VirtualTimeLoop}),
    "trio+virtual": lambda: ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}),
}


@pytest.fixture(
    scope="module",
    params=[
        "asyncio",
        *(["asyncio+eager"] if _EAGER else []),
        *(["asyncio+uvloop"] if sys.platform != "win32" else []),
        "trio",
    ],
)
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    """The event loop of an async test; `@virtual_time` names others than these parameters."""
    return _BACKENDS[request.param]()


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by `-m`
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if fixtures & _SERVERS or _SLOW_FOLDERS.intersection(item.path.parts):
            item.add_marker("slow")
