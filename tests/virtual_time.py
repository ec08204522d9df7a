"""Virtual time: a test's clock jumps to the next timer as soon as nothing else can run.

`@virtual_time` replaces `anyio_backend`'s usual parameters, so such a test runs on
asyncio and on trio, and an hour's backoff takes it no time at all:

    @virtual_time
    @pytest.mark.anyio
    async def test_an_hour_passes_at_once() -> None:
        await anyio.sleep(3600)

Only timers move the clock. A worker thread, a process or a socket is not waited for: the clock
jumps while it works. Tests in virtual time use none of them.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING

import pytest
import sniffio
import trio
import trio.testing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from _typeshed import FileDescriptorLike

VIRTUAL_BACKENDS = ("asyncio+virtual", "trio+virtual")

virtual_time = pytest.mark.parametrize("anyio_backend", VIRTUAL_BACKENDS, indirect=True)


class _JumpingSelector(selectors.BaseSelector):
    """Asks the real selector which events are ready, and moves `now` instead of waiting for a timer."""

    def __init__(self) -> None:
        self.now = 0.0
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        # Without a timer (None) only a real event can continue the loop, so it is waited for.
        ready = self._real.select(None if timeout is None else 0)
        if timeout is not None and not ready:
            self.now += timeout
        return ready

    def register(
        self, fileobj: FileDescriptorLike, events: int, data: object = None
    ) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio loop whose clock starts at 0 and moves by jumps only."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def stand_still(self, seconds: float) -> None:
        """Let this time go by while nothing runs."""
        self._jumping.now += seconds


def stand_still(seconds: float) -> None:
    """Let this time go by in one step of the running event loop, as code that blocks it does."""
    if sniffio.current_async_library() == "trio":
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        clock.jump(seconds)
        return
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop.stand_still(seconds)
