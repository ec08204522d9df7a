"""What every test can use: the event loops it runs on."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio.testing

from tests.virtual_time import VirtualTimeLoop

if TYPE_CHECKING:
    from collections.abc import Callable

Backend = tuple[str, dict[str, Any]]


def _eager_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_task_factory(vars(asyncio)["eager_task_factory"])  # new in Python 3.12
    return loop


# anyio's name of the backend, and its options. Those in virtual time are asked for by a test.
_BACKENDS: dict[str, Callable[[], Backend]] = {
    "asyncio": lambda: ("asyncio", {}),
    "asyncio+eager": lambda: ("asyncio", {"loop_factory": _eager_loop}),
    "asyncio+uvloop": lambda: ("asyncio", {"use_uvloop": True}),
    "trio": lambda: ("trio", {}),
    "asyncio+virtual": lambda: ("asyncio", {"loop_factory": VirtualTimeLoop}),
    "trio+virtual": lambda: ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}),
}


@pytest.fixture(
    scope="module",
    params=[
        "asyncio",
        pytest.param(
            "asyncio+eager",
            marks=pytest.mark.skipif(
                sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12"
            ),
        ),
        pytest.param(
            "asyncio+uvloop",
            marks=pytest.mark.skipif(sys.platform == "win32", reason="uvloop is not for Windows"),
        ),
        "trio",
    ],
)
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    """The event loop of an async test; `@virtual_time` names others than these parameters."""
    return _BACKENDS[request.param]()
