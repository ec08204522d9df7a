from __future__ import annotations

import socket
import time

import anyio
import pytest

from tests.virtual_time import virtual_time


@virtual_time
@pytest.mark.anyio
async def test_an_hour_passes_at_once() -> None:
    began, really_began = anyio.current_time(), time.monotonic()
    await anyio.sleep(3600)
    assert anyio.current_time() - began == pytest.approx(3600)
    assert time.monotonic() - really_began < 60


@virtual_time
@pytest.mark.anyio
async def test_timers_fire_in_the_order_of_their_times() -> None:
    fired: list[int] = []

    async def note(seconds: int) -> None:
        await anyio.sleep(seconds)
        fired.append(seconds)

    async with anyio.create_task_group() as tasks:
        for seconds in (30, 10, 20):
            tasks.start_soon(note, seconds)
    assert fired == [10, 20, 30]


@virtual_time
@pytest.mark.anyio
async def test_a_deadline_cuts_a_wait_that_would_never_end() -> None:
    began = anyio.current_time()
    with anyio.move_on_after(5) as scope:
        await anyio.Event().wait()
    assert scope.cancelled_caught
    assert anyio.current_time() - began == pytest.approx(5)


@virtual_time
@pytest.mark.anyio
async def test_the_clock_stands_still_while_something_can_run() -> None:
    began = anyio.current_time()
    for _ in range(100):
        await anyio.lowlevel.checkpoint()
    assert anyio.current_time() == began


@virtual_time
@pytest.mark.anyio
async def test_a_socket_that_is_ready_goes_before_a_timer() -> None:
    began = anyio.current_time()
    ours, theirs = socket.socketpair()
    with ours, theirs, anyio.fail_after(60):
        theirs.send(b"ready")
        await anyio.wait_readable(ours)
        assert anyio.current_time() == began
