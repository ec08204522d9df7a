from __future__ import annotations

import asyncio

import pytest
import sniffio


@pytest.mark.anyio
async def test_a_test_runs_on_the_loop_its_id_names(request: pytest.FixtureRequest) -> None:
    library = sniffio.current_async_library()
    name = library if library == "trio" else _name_of_asyncio_loop(asyncio.get_running_loop())
    assert f"[{name}]" in request.node.name


def _name_of_asyncio_loop(loop: asyncio.AbstractEventLoop) -> str:
    if type(loop).__module__.startswith("uvloop"):
        return "asyncio+uvloop"
    return "asyncio+eager" if loop.get_task_factory() else "asyncio"
