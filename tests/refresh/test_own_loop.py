"""The library's own event loop for sync callers: whose errors are whose, and what is done as the interpreter ends."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import gc
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from httpx_refresh import MemoryStore, RefreshAuth, RefreshUnavailable
from httpx_refresh._refresh import own_loop
from tests.fakes import Endpoint

LONG = 30.0  # seconds after which a test that waits has failed


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the library find no loop, as in a process that has just begun; stop the one that the test made."""
    monkeypatch.setattr(own_loop, "_own", None)
    monkeypatch.setattr(own_loop, "_is_over", False)
    yield
    own = own_loop._own
    if own is not None:
        own.finish()
        own.loop.call_soon_threadsafe(own.loop.stop)
        own.thread.join(LONG)
        own.loop.close()


@contextlib.contextmanager
def stuck() -> Iterator[None]:
    """Have a step of the loop do nothing while the block runs."""
    own = own_loop._get(LONG)
    begun, go_on = threading.Event(), threading.Event()

    def step() -> None:
        begun.set()
        assert go_on.wait(LONG)

    own.loop.call_soon_threadsafe(step)
    assert begun.wait(LONG)
    try:
        yield
    finally:
        go_on.set()


async def current_loop() -> Any:
    return asyncio.get_running_loop()


def test_what_runs_longer_than_it_may_is_cancelled_and_no_answer() -> None:
    ended = threading.Event()

    async def waits() -> None:
        try:
            await asyncio.sleep(LONG)
        finally:
            ended.set()

    with pytest.raises(own_loop.NoAnswer) as caught:
        own_loop.run(waits, seconds=0.05)
    assert not caught.value.is_ending
    assert ended.wait(LONG)


def test_a_time_out_of_what_runs_is_its_own_error() -> None:
    async def fails() -> None:
        raise asyncio.TimeoutError("its own")

    with pytest.raises(asyncio.TimeoutError, match="its own"):
        own_loop.run(fails, seconds=LONG)


def test_an_error_of_what_runs_is_not_taken_for_the_end_of_the_loop() -> None:
    async def fails() -> None:
        raise RuntimeError("its own")

    with pytest.raises(RuntimeError, match="its own"):
        own_loop.run(fails, seconds=LONG)


def test_what_ignores_that_nobody_waits_any_more_ends_without_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended = threading.Event()

    async def goes_on() -> str:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.01, ended.set)
        return "too late"

    with pytest.raises(own_loop.NoAnswer):
        own_loop.run(goes_on, seconds=0.05)
    assert ended.wait(LONG)
    assert caplog.messages == []


def test_a_loop_that_does_not_answer_holds_no_sync_caller_for_ever() -> None:
    endpoint = Endpoint()
    auth = RefreshAuth(endpoint, MemoryStore(endpoint.text(expires_in=-5)), refresh_timeout=0.1)
    with stuck(), pytest.raises(RefreshUnavailable, match=r"0\.2 s") as caught:
        auth.sync.token()
    assert caught.value.outcome == "unknown"


def test_names_are_looked_up_without_the_executor_that_ends_before_the_last_refresh() -> None:
    async def look_up() -> Any:
        return await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80)

    found = own_loop.run(look_up, seconds=LONG)
    assert ("127.0.0.1", 80) in [one[-1] for one in found]
    assert own_loop.run(current_loop, seconds=LONG)._default_executor is None


def test_without_sniffio_the_loop_serves_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """anyio needs it no longer."""
    monkeypatch.delitem(sys.modules, "sniffio", raising=False)
    assert own_loop.run(current_loop, seconds=LONG) is own_loop.own_loop()


def test_closing_where_nobody_made_a_sync_call_makes_no_loop() -> None:
    endpoint = Endpoint()
    RefreshAuth(endpoint, MemoryStore(endpoint.text())).sync.aclose()
    assert own_loop.own_loop() is None


# -- the end of the interpreter ----------------------------------------------------------------------------------------


def begun_task() -> tuple[threading.Event, list[str]]:
    """Begin work on the loop that nobody waits for; return what is set when it runs, and how it ended."""
    begun, ends = threading.Event(), list[str]()

    async def works() -> None:
        begun.set()
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # As a refresh that is settled.
            ends.append("cancelled")
            raise

    async def begin() -> None:
        tasks.append(asyncio.ensure_future(works()))

    tasks: list[asyncio.Future[None]] = []
    own_loop.run(begin, seconds=LONG)
    assert begun.wait(LONG)
    return begun, ends


@pytest.fixture
def no_threads_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that other tests left behind, as an event loop's executor has, are not there."""
    before, real = set(threading.enumerate()), threading.enumerate
    monkeypatch.setattr(
        threading, "enumerate", lambda: [one for one in real() if one not in before]
    )


@pytest.mark.usefixtures("no_threads_before")
def test_what_is_under_way_as_the_main_thread_ends_is_told_so_and_waited_for() -> None:
    _, ends = begun_task()
    own_loop._main_thread_ended()
    assert ends == ["cancelled"]


@pytest.mark.usefixtures("no_threads_before")
def test_while_other_threads_work_the_end_of_the_main_one_ends_nothing() -> None:
    _, ends = begun_task()
    go_on = threading.Event()
    other = threading.Thread(target=go_on.wait, args=(LONG,))
    other.start()
    own_loop._main_thread_ended()
    assert ends == []
    go_on.set()
    other.join()
    own_loop._main_thread_ended()
    assert ends == ["cancelled"]


def test_a_caller_that_waits_as_the_interpreter_ends_hears_of_it() -> None:
    begun, heard = threading.Event(), list[bool]()

    async def waits() -> None:
        begun.set()
        await asyncio.sleep(LONG)

    def call() -> None:
        try:
            own_loop.run(waits, seconds=LONG)
        except own_loop.NoAnswer as error:
            heard.append(error.is_ending)

    caller = threading.Thread(target=call, daemon=True)
    caller.start()
    assert begun.wait(LONG)
    own_loop._interpreter_ends()
    caller.join(LONG)
    assert heard == [True]


def test_after_the_end_nothing_is_begun_that_nobody_waits_for() -> None:
    own_loop.run(current_loop, seconds=LONG)
    own_loop._interpreter_ends()
    own_loop.soon(pytest.fail, "it was begun", seconds=LONG)
    assert own_loop.own_loop() is None


def test_where_nothing_was_begun_the_end_has_nothing_to_do() -> None:
    own_loop._interpreter_ends()
    own_loop._main_thread_ended()
    assert not own_loop._is_over
    assert own_loop.own_loop() is None


def test_a_loop_that_hangs_holds_the_end_up_for_a_moment_and_is_not_closed_under_its_thread() -> (
    None
):
    own = own_loop._get(LONG)
    with stuck():
        own.stop()
        assert not own.loop.is_closed()
    own.thread.join(LONG)
    own_loop._own = None
    own.loop.close()


def test_where_no_thread_can_be_started_the_interpreter_is_ending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ends(_: object) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", ends)
    with pytest.raises(own_loop.NoAnswer) as caught:
        own_loop.run(current_loop, seconds=LONG)
    assert caught.value.is_ending
    own_loop.soon(pytest.fail, "it was begun", seconds=LONG)
    assert own_loop.own_loop() is None


@pytest.mark.parametrize(
    "failure", [RuntimeError("can't start new thread"), OSError(24, "Too many open files")]
)
def test_where_a_limit_leaves_no_thread_or_descriptor_the_error_says_so_and_nothing_was_sent(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RLIMIT_NPROC and RLIMIT_NOFILE, or a container's limit: the interpreter is not ending; the next call works."""

    def fails() -> None:
        raise failure

    endpoint = Endpoint()
    auth = RefreshAuth(endpoint, MemoryStore(endpoint.text(expires_in=-5)))
    with monkeypatch.context() as limited:
        limited.setattr(own_loop, "_OwnLoop", fails)
        with pytest.raises(RefreshUnavailable, match=str(failure.args[-1])) as caught:
            auth.sync.token()
    assert caught.value.outcome == "not_sent"
    assert endpoint.asked == []
    assert auth.sync.token().access_token == "SECRET-a1"


def test_a_call_that_the_loop_never_begins_leaves_no_coroutine_that_was_never_awaited() -> None:
    """As where a step takes for ever, or the interpreter's end stops the loop: Python warns of such a coroutine."""
    with stuck(), pytest.raises(own_loop.NoAnswer):
        own_loop.run(current_loop, seconds=0.05)
    own = own_loop._get(LONG)
    own.loop.call_soon_threadsafe(own.loop.stop)
    own.thread.join(LONG)
    with pytest.raises(own_loop.NoAnswer) as caught:
        own_loop.run(current_loop, seconds=0.05)
    assert not caught.value.is_ending
    own.loop.close()
    with pytest.raises(own_loop.NoAnswer) as caught:
        own_loop.run(current_loop, seconds=LONG)
    assert caught.value.is_ending
    own_loop.soon(pytest.fail, "it was begun", seconds=LONG)
    own_loop._own = None
    gc.collect()


def test_a_caller_that_gave_up_before_its_call_began_begins_nothing() -> None:
    begun: list[int] = []

    async def begins() -> None:
        begun.append(1)

    with stuck(), pytest.raises(own_loop.NoAnswer):
        own_loop.run(begins, seconds=0.05)
    own_loop.run(current_loop, seconds=LONG)  # The steps before this one have been taken.
    assert begun == []


@pytest.mark.parametrize("has_hook", [True, False])
def test_the_end_is_waited_for_also_where_threading_has_no_hook(
    has_hook: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`threading._register_atexit` is the interpreter's own, and may be gone in a later version."""
    hooks: list[Any] = []
    monkeypatch.setattr(atexit, "register", hooks.append)
    if has_hook:
        monkeypatch.setattr(threading, "_register_atexit", hooks.append)
    else:
        monkeypatch.delattr(threading, "_register_atexit")
    own_loop._hook()
    assert hooks == [own_loop._main_thread_ended, own_loop._interpreter_ends][not has_hook :]
