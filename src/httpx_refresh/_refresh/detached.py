"""A task that no caller owns: what it does must not end because a caller was cancelled.

anyio's shields do not hold against asyncio's own `task.cancel()`, so the work runs in a task of its own.
"""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

# asyncio is imported where it is used: whoever imports the library need not wait for it.


def _trio() -> Any:
    """Return the trio module if the caller is a trio task, else None; never imports it."""
    trio = sys.modules.get("trio")
    return trio if trio is not None and trio.lowlevel.in_trio_task() else None


def current_loop() -> object:
    """Return what stands for the running event loop: alike for all its tasks, and for no other loop's."""
    trio = _trio()
    if trio is not None:
        return trio.lowlevel.current_trio_token()
    import asyncio

    return asyncio.get_running_loop()


# An event loop keeps no hold of its tasks, and whoever started one may be gone before it ends.
_running: set[object] = set()


def spawn(run: Callable[[], Coroutine[Any, Any, None]], over: Callable[[], None]) -> None:
    """Start `run` detached from the caller; on asyncio, call `over` once it ended.

    It starts in an empty context (trio: the system's): a caller's context variables (a database session, a
    request's log fields) must neither leak into the work of all nor be kept alive by it. `run` may begin before this
    returns (eager tasks), and must raise nothing but cancellation. An asyncio task that is cancelled before its first
    step never runs at all: `over` is then all that is called. A trio task always takes its first step.
    """
    trio = _trio()
    if trio is not None:
        trio.lowlevel.spawn_system_task(run)
        return
    import asyncio

    contextvars.Context().run(_spawn_task, asyncio.get_running_loop(), run, over)


def _spawn_task(
    loop: asyncio.AbstractEventLoop,
    run: Callable[[], Coroutine[Any, Any, None]],
    over: Callable[[], None],
) -> None:
    task = loop.create_task(run(), name="httpx-refresh")
    _running.add(task)
    task.add_done_callback(_running.discard)
    task.add_done_callback(lambda _: over())
