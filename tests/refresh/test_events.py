"""The events that observers get, and that an observer cannot harm a refresh."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import anyio
import httpx
import pytest

from httpx_refresh import (
    MemoryStore,
    ReauthorizationRequired,
    RefreshAuth,
    RefreshUnavailable,
    StoreError,
    Token,
    events,
)
from httpx_refresh._refresh import observers
from httpx_refresh._refresh.events import LOG
from httpx_refresh._refresh.spending import Spending
from httpx_refresh.stores.file import FileStore
from httpx_refresh.testing import Gate
from tests.fakes import Api, Endpoint, Store, claims, loop_wall, results
from tests.virtual_time import virtual_time

ORIGINS = ["https://api.test"]


def all_told(seconds: float = 20.0) -> None:
    """Wait until every callback has got all events."""
    post = observers._post
    with post.changed:
        assert post.changed.wait_for(lambda: not post._serving, seconds)


class Seen:
    """A callback that keeps its events."""

    def __init__(self) -> None:
        self.all: list[events.Event] = []
        self.threads: set[threading.Thread] = set()

    def __call__(self, event: events.Event) -> None:
        self.threads.add(threading.current_thread())
        self.all.append(event)

    def told(self) -> list[events.Event]:
        """Return the events without the store's calls."""
        all_told()
        return [one for one in self.all if not isinstance(one, events.StoreCalled)]

    def kinds(self) -> list[str]:
        return [type(one).__name__ for one in self.told()]

    def one(self, kind: type[Any]) -> Any:
        (found,) = [one for one in self.told() if isinstance(one, kind)]
        return found


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observers, "_failed", set())


@pytest.mark.parametrize("bad", [7, "print", [print, None], object(), Seen])
def test_what_is_no_callable_is_refused(bad: Any) -> None:
    with pytest.raises(TypeError, match="on_event must be"):
        RefreshAuth(Endpoint(), MemoryStore(), on_event=bad)


class _Awaited:
    async def __call__(self, event: events.Event) -> None: ...


async def _awaited(event: events.Event) -> None: ...


@pytest.mark.parametrize("bad", [_awaited, _Awaited(), functools.partial(_awaited), [_awaited]])
def test_a_coroutine_function_is_refused(bad: Any) -> None:
    with pytest.raises(TypeError, match="coroutine function"):
        RefreshAuth(Endpoint(), MemoryStore(), on_event=bad)


def test_a_label_is_text() -> None:
    label: Any = 7
    with pytest.raises(TypeError, match="label must be"):
        RefreshAuth(Endpoint(), MemoryStore(), label=label)


@pytest.mark.anyio
async def test_a_refused_request_tells_of_a_refresh_and_of_its_replay() -> None:
    endpoint, one, two = Endpoint(), Seen(), Seen()
    store = Store(endpoint.text(expires_in=3600, generation=3))
    auth = RefreshAuth(endpoint, store, on_event=[one, two], label="tenant-7")
    async with Api(lambda token: token == "SECRET-a1").client(auth) as client:
        assert (await client.get("/")).status_code == 200
    # No wait: when a refresh returns, its callbacks have got their events.
    kinds = [type(event).__name__ for event in one.all if type(event) is not events.StoreCalled]
    assert kinds == ["RefreshStarted", "Refreshed", "Replayed"]
    assert one.told() == two.told()
    started, done, replayed = one.told()
    assert isinstance(done, events.Refreshed)
    assert (started.generation, done.generation, replayed.generation) == (3, 4, 4)
    assert (started.reason, done.reason, done.waiters) == ("refused", "refused", 1)
    assert 0 < done.duration < 10
    for event in one.all:
        assert (event.provider, event.store) == ("Fake", "<the test's store>")
        assert event.label == "tenant-7"
    assert not {thread for thread in one.threads if thread is threading.current_thread()}


@pytest.mark.anyio
async def test_events_tell_no_token() -> None:
    endpoint, seen = Endpoint(), Seen()
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=-1)), on_event=seen)
    endpoint.script.append(RefreshUnavailable("busy", outcome="busy", transient=True))
    await auth.token()
    assert len(seen.told()) == 3
    assert "SECRET" not in repr(seen.all)
    assert "SECRET" not in json.dumps([dataclasses.asdict(one) for one in seen.all])


@pytest.mark.anyio
async def test_a_request_with_a_good_token_tells_nothing() -> None:
    endpoint, seen = Endpoint(), Seen()
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=3600)), on_event=seen)
    async with Api().client(auth) as client:
        await client.get("/")
        all_told()
        seen.all.clear()
        for _ in range(5):
            await client.get("/")
    all_told()
    assert seen.all == []


@virtual_time
@pytest.mark.anyio
async def test_the_reason_says_why_the_token_is_refreshed(loop_time: None) -> None:
    endpoint, seen = Endpoint(clock=loop_wall), Seen()
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=-1)), on_event=seen)
    first = await auth.token()
    await auth.refresh()
    await auth.refresh(refused=first)  # It is not the token in use.
    await auth.refresh(refused=await auth.token())
    await anyio.sleep(3600 - 30)
    await auth.token()
    await anyio.sleep(3600)
    await auth.token()
    done = [one for one in seen.told() if isinstance(one, events.Refreshed)]
    assert [one.reason for one in done] == ["first", "forced", "refused", "ahead", "expired"]
    assert [one.generation for one in done] == [1, 2, 3, 4, 5]
    assert [one.waiters for one in done] == [1, 1, 1, 0, 1]


@pytest.mark.anyio
async def test_all_who_wait_are_counted() -> None:
    endpoint, seen = Endpoint(), Seen()
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=-1)), on_event=seen)
    async with anyio.create_task_group() as group:
        for _ in range(7):
            group.start_soon(auth.token)
    assert seen.one(events.Refreshed).waiters == 7


@virtual_time
@pytest.mark.anyio
async def test_a_failure_is_told_with_its_outcome_and_heeding_it_is_told_once(
    loop_time: None,
) -> None:
    endpoint, seen, other = Endpoint(clock=loop_wall), Seen(), Seen()
    store = Store(endpoint.text(expires_in=-1))
    endpoint.always = RefreshUnavailable("it is down", outcome="unknown")
    auth = RefreshAuth(endpoint, store, on_event=seen)
    heeds = RefreshAuth(endpoint, store, on_event=other)
    with pytest.raises(RefreshUnavailable):
        await auth.token()
    failed = seen.one(events.RefreshFailed)
    assert (failed.outcome, failed.reason, failed.asked) == ("unknown", "first", True)
    assert (failed.message, failed.waiters) == ("it is down", 1)
    for _ in range(2):
        with pytest.raises(RefreshUnavailable):
            await heeds.token()
    assert other.one(events.RefreshFailed).asked is False


@pytest.mark.anyio
@virtual_time
async def test_a_request_that_fails_while_its_object_is_closed_is_told(loop_time: None) -> None:
    gate = Gate()

    class Failing(Endpoint):
        async def refresh(self, token: Token, /) -> Token:
            self.asked.append(token.refresh_token)
            await gate.hold()
            raise RefreshUnavailable("down", outcome="unknown")

    endpoint, seen = Failing(clock=loop_wall), Seen()
    store = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store, on_event=seen)

    async def call() -> None:
        with pytest.raises(RefreshUnavailable, match="down"):
            await auth.token()

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await gate.arrived()
        group.start_soon(auth.aclose)
        await anyio.sleep(0.1)
        gate.release()
    assert seen.one(events.RefreshFailed).outcome == "unknown"


@virtual_time
@pytest.mark.anyio
async def test_a_wait_that_is_closed_is_told_nobody_and_holds_up_no_later_request(
    loop_time: None,
) -> None:
    endpoint, seen = Endpoint(clock=loop_wall), Seen()
    claim = {"by": "elsewhere:1", "nonce": "n1", "since": loop_wall()}
    store = Store(endpoint.text(expires_in=-1, generation=4, redeeming=claim))
    auth = RefreshAuth(endpoint, store, on_event=seen)

    async def call() -> None:
        with pytest.raises(RefreshUnavailable, match="before anything was sent"):
            await auth.token()

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await anyio.sleep(1)
        await auth.aclose()
    endpoint.issued = 3
    store.text = endpoint.text(expires_in=3600, generation=5)
    assert (await auth.token()).access_token == "SECRET-a3"
    assert "RefreshFailed" not in seen.kinds()


@virtual_time
@pytest.mark.anyio
async def test_a_look_at_an_emptied_store_tells_of_no_token(loop_time: None) -> None:
    endpoint, seen = Endpoint(clock=loop_wall), Seen()
    store = Store(endpoint.text(expires_in=3600))
    auth = RefreshAuth(endpoint, store, on_event=seen)
    async with Api(lambda _: False).client(auth) as client:
        assert (await client.get("/")).status_code == 401  # From now on it is in doubt.
        await anyio.sleep(3)
        await RefreshAuth(endpoint, store).forget()
        told = len(seen.told())
        assert (await client.get("/")).status_code == 401
    assert seen.kinds()[told:] == []


@virtual_time
@pytest.mark.anyio
async def test_a_failure_is_told_with_the_generation_of_the_token_in_use(loop_time: None) -> None:
    endpoint, seen = Endpoint(clock=loop_wall), Seen()
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=-1)), on_event=seen)
    await auth.token()
    endpoint.always = RefreshUnavailable("it is down", outcome="unknown")
    with pytest.raises(RefreshUnavailable):
        await auth.refresh()
    assert seen.one(events.RefreshFailed).generation == 1


@virtual_time
@pytest.mark.anyio
async def test_a_store_that_fails_is_told_with_its_error(loop_time: None) -> None:
    endpoint, seen = Endpoint(clock=loop_wall), Seen()
    store = Store(endpoint.text(expires_in=-1))
    store.fails = claims
    with pytest.raises(StoreError):
        await RefreshAuth(endpoint, store, on_event=seen).token()
    assert seen.one(events.RefreshFailed).outcome == "store"
    called = [one for one in seen.all if isinstance(one, events.StoreCalled)]
    assert [(one.operation, one.outcome) for one in called] == [
        ("load", None),
        ("replace", "OSError"),
    ]
    assert all(one.duration >= 0 for one in called)


@virtual_time
@pytest.mark.anyio
async def test_another_process_s_token_is_adopted_and_its_claim_waited_for(
    loop_time: None,
) -> None:
    endpoint, mine, its = Endpoint(clock=loop_wall), Seen(), Seen()
    store = Store(endpoint.text(expires_in=100))
    one = RefreshAuth(endpoint, store, on_event=mine)
    two = RefreshAuth(endpoint, store, on_event=its)
    await one.token()
    await two.token()
    assert mine.kinds() == its.kinds() == []  # The first token in a process causes no event.
    store.holds = results
    await anyio.sleep(101)
    async with anyio.create_task_group() as group:
        group.start_soon(one.token)
        await store.gate.arrived()
        store.text, after = store.written[0].text, store.text
        group.start_soon(two.token)
        await anyio.sleep(1)
        store.text = after
        store.gate.release()
    assert mine.kinds() == ["RefreshStarted", "Refreshed"]
    assert its.kinds() == ["ClaimWaited", "Adopted"]
    assert 0.5 < its.one(events.ClaimWaited).duration < 3.0
    assert its.one(events.Adopted).generation == 1


@virtual_time
@pytest.mark.anyio
async def test_a_claim_that_is_taken_over_names_its_owner(loop_time: None) -> None:
    endpoint, seen = Endpoint(clock=loop_wall), Seen()
    claim = {"by": "elsewhere:1", "nonce": "n1", "since": loop_wall(), "for": 2.0}
    store = Store(endpoint.text(expires_in=-1, generation=4, redeeming=claim))
    await RefreshAuth(endpoint, store, on_event=seen).token()
    assert seen.kinds() == ["ClaimWaited", "ClaimTakenOver", "RefreshStarted", "Refreshed"]
    assert seen.one(events.ClaimTakenOver).by == "elsewhere:1"
    assert 2.9 < seen.one(events.ClaimWaited).duration < 3.5


@virtual_time
@pytest.mark.anyio
async def test_a_grant_that_ends_asks_for_a_login_once_and_a_login_is_seen(
    loop_time: None,
) -> None:
    endpoint, seen, setter = Endpoint(clock=loop_wall), Seen(), Seen()
    store = Store(endpoint.text(expires_in=-1))
    endpoint.always = ReauthorizationRequired("no longer", error="invalid_grant")
    auth = RefreshAuth(endpoint, store, on_event=seen)
    for _ in range(3):
        with pytest.raises(ReauthorizationRequired):
            await auth.token()
        await anyio.sleep(3)
    assert seen.kinds() == ["RefreshStarted", "RefreshFailed", "LoginRequired"]
    assert seen.one(events.RefreshFailed).outcome == "login_required"
    login = RefreshAuth(endpoint, store, on_event=setter)
    await login.set_token(Token("SECRET-b", "SECRET-s"))
    assert setter.kinds() == ["LoginSeen"]
    assert (await auth.token()).access_token == "SECRET-b"
    assert seen.kinds()[3:] == ["LoginSeen"]


@virtual_time
@pytest.mark.anyio
async def test_a_token_that_cannot_be_saved_is_told_until_it_is(loop_time: None) -> None:
    endpoint, seen = Endpoint(clock=loop_wall), Seen()
    store = Store(endpoint.text(expires_in=-1))
    failures = iter(range(2))
    store.fails = lambda record: results(record) and next(failures, None) is not None
    auth = RefreshAuth(endpoint, store, on_event=seen)
    await auth.token()
    while store.record.generation == 0:
        await anyio.sleep(0.1)
        assert (await auth.token()).access_token == "SECRET-a1"
    await auth.aclose()
    assert seen.kinds() == ["RefreshStarted", "Unsaved", "StillUnsaved", "Saved"]


@virtual_time
@pytest.mark.anyio
async def test_doubt_begins_and_ends(loop_time: None) -> None:
    endpoint, seen = Endpoint(clock=loop_wall), Seen()
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=3600)), on_event=seen)
    api = Api(lambda _: False)
    async with api.client(auth) as client:
        assert (await client.get("/")).status_code == 401
        await anyio.sleep(40)
        api.accepts = lambda token: token == endpoint.current.access_token and endpoint.issued > 1
        assert (await client.get("/")).status_code == 200
    assert seen.one(events.DoubtBegan).pause == 30
    assert seen.one(events.DoubtEnded)


@pytest.mark.anyio
async def test_a_callback_that_raises_hurts_nobody_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(event: events.Event) -> None:
        raise SystemExit("SECRET")

    endpoint, seen = Endpoint(), Seen()
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=-1)), on_event=[fails, seen])
    assert (await auth.token()).access_token == "SECRET-a1"
    await auth.refresh()
    assert seen.kinds() == ["RefreshStarted", "Refreshed"] * 2
    (logged,) = [one for one in caplog.messages if "observer" in one]
    assert "SystemExit" in logged
    assert "SECRET" not in logged


@pytest.mark.anyio
async def test_a_callback_that_returns_a_coroutine_is_told_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    endpoint = Endpoint()
    store = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store, on_event=lambda event: _awaited(event))
    await auth.token()
    all_told()
    assert (
        len([one for one in caplog.messages if "observer of events failed: TypeError" in one]) == 1
    )


@contextlib.contextmanager
def _blocking() -> Iterator[Any]:
    end = threading.Event()
    try:
        yield lambda event: end.wait(60)
    finally:
        end.set()
        all_told()


@pytest.mark.anyio
async def test_a_callback_that_blocks_hurts_nobody_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    endpoint, seen = Endpoint(), Seen()
    with _blocking() as blocks:
        store = Store(endpoint.text(expires_in=-1))
        auth = RefreshAuth(endpoint, store, on_event=[blocks, seen])
        began = time.monotonic()
        for _ in range(5):
            await auth.refresh()
        await auth.aclose()
        assert time.monotonic() - began < 5
        assert [type(one).__name__ for one in seen.all].count("Refreshed") == 5
        assert len([one for one in caplog.messages if "has not returned" in one]) == 1


@pytest.mark.anyio
async def test_what_a_blocked_callback_is_not_told_is_bounded(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observers, "_MOST_KEPT", 10)
    endpoint = Endpoint()
    with _blocking() as blocks:
        auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=-1)), on_event=blocks)
        for _ in range(20):
            await auth.refresh()
        (box,) = auth._session._observers._boxes
        assert len(box._kept) <= 10
        box.late = False
        began = anyio.current_time()
        await box.emptied()  # There is no room for a mark, and so nobody waits for one.
        assert not box.late
        assert anyio.current_time() - began < 20
        assert len([one for one in caplog.messages if "are dropped" in one]) == 1


@pytest.mark.anyio
async def test_a_callback_is_called_by_one_thread_at_a_time_whatever_the_token() -> None:
    inside, most = 0, 0
    all_landed = threading.Event()

    def slow(event: events.Event) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        # A second thread would be here when all refreshes have ended.
        assert all_landed.wait(30)
        inside -= 1

    async def one(endpoint: Endpoint) -> None:
        store = Store(endpoint.text(expires_in=-1))
        await RefreshAuth(endpoint, store, on_event=slow).refresh()

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(one, Endpoint())
    all_landed.set()
    all_told()
    assert most == 1


def test_what_happened_last_is_told_before_the_interpreter_ends() -> None:
    program = """
import asyncio
from httpx_refresh import RefreshAuth
from tests.fakes import Endpoint, Store

def tell(event):
    import time
    time.sleep(0.02)
    print(type(event).__name__, flush=True)

async def main():
    endpoint = Endpoint()
    await RefreshAuth(endpoint, Store(endpoint.text(expires_in=-1)), on_event=tell).token()

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split()[-1] == "Refreshed"


def test_a_callback_that_blocks_does_not_keep_the_interpreter_from_ending() -> None:
    program = """
import asyncio, time
from httpx_refresh import RefreshAuth
from tests.fakes import Endpoint, Store

async def main():
    endpoint = Endpoint()
    store = Store(endpoint.text(expires_in=-1))
    await RefreshAuth(endpoint, store, on_event=lambda _: time.sleep(600)).token()

asyncio.run(main())
"""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert time.monotonic() - began < 30


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_forked_child_tells_its_own_events_and_not_its_parent_s() -> None:
    program = """
import asyncio, os, threading
from httpx_refresh import RefreshAuth
from tests.fakes import Endpoint, Store

go = threading.Event()
told = []

def tell(event):
    go.wait(60)
    told.append((os.getpid(), type(event).__name__))

endpoint = Endpoint()
auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=-1)), on_event=tell)
asyncio.run(auth.refresh())
child = os.fork()
go.set()
if child == 0:
    asyncio.run(auth.refresh())
else:
    assert os.waitpid(child, 0)[1] == 0
from httpx_refresh._refresh import observers
post = observers._post
with post.changed:
    assert post.changed.wait_for(lambda: not post._serving, 20)
refreshed = [one for one in told if one[1] == "Refreshed"]
assert refreshed == [(os.getpid(), "Refreshed")], told
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=60)


@pytest.mark.anyio
async def test_each_log_record_carries_its_event_and_the_label(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "httpx_refresh")
    endpoint, seen = Endpoint(), Seen()
    store = Store(endpoint.text(expires_in=-1))
    await RefreshAuth(endpoint, store, on_event=seen, label="tenant-7").token()
    all_told()
    records = [one for one in caplog.records if one.name == "httpx_refresh"]
    carried: list[Any] = [one.__dict__["httpx_refresh"] for one in records]
    assert carried == seen.all
    assert [one.levelno for one in records] == [LOG[type(one)][0] for one in seen.all]
    assert all(one.getMessage().startswith("Fake [tenant-7]: ") for one in records)


@virtual_time
@pytest.mark.anyio
async def test_only_of_a_refresh_ahead_that_failed_the_log_says_that_the_token_is_still_in_use(
    loop_time: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "httpx_refresh")
    endpoint = Endpoint(clock=loop_wall)
    ahead = RefreshAuth(endpoint, Store(endpoint.text(expires_in=50)))
    await ahead.token()
    await ahead.token()  # The flight starts.
    await anyio.sleep(1)
    endpoint.always = RefreshUnavailable("down", outcome="unknown")
    with pytest.raises(RefreshUnavailable):
        await ahead.refresh()
    said = [(one.levelno, one.getMessage().partition(",")[0]) for one in caplog.records]
    assert said == [
        (logging.INFO, "Fake: token refreshed (generation 1)"),
        (logging.INFO, "Fake: there is no new token (forced"),
    ]


def test_every_event_has_a_log_record_and_is_public() -> None:
    def all_of(kind: type[Any]) -> set[type[Any]]:
        below = kind.__subclasses__()
        return {kind}.union(*map(all_of, below)) if below else {kind}

    # A dataclass with slots is created twice; nothing refers to the first one.
    every = {one.__name__ for one in all_of(events.Event)} - {"Event"}
    assert {one.__name__ for one in LOG} == every
    assert {*events.__all__} == every | {"Event", "Reason"}


def test_a_file_s_events_name_it(tmp_path: Any) -> None:
    endpoint, seen = Endpoint(), Seen()
    path = tmp_path / "token.json"
    path.write_text(endpoint.text(expires_in=-1))
    path.chmod(0o600)
    asyncio.run(RefreshAuth(endpoint, FileStore(path), on_event=seen).refresh())
    assert seen.one(events.Refreshed).store == f"FileStore({str(path)!r})"
    assert {one.operation for one in seen.all if isinstance(one, events.StoreCalled)} == {
        "load",
        "replace",
        "hold",
    }


def test_the_token_endpoint_s_host_is_told() -> None:
    from httpx_refresh.testing import AuthorizationServer
    from tests.fakes import endpoint_of

    server, seen = AuthorizationServer(), Seen()
    store = MemoryStore(json.dumps(server.login()))
    auth = RefreshAuth(endpoint_of(server), store, on_event=seen)
    asyncio.run(auth.refresh())
    assert seen.one(events.Refreshed).server == httpx.URL(server.token_url).host


class BrokenTracer(Seen):
    """A tracer that raises in one of its calls."""

    def __init__(self, broken: str) -> None:
        super().__init__()
        self.broken = broken

    def _fail(self, call: str) -> None:
        if call == self.broken:
            raise OSError(call)

    def waiting(self) -> object:
        self._fail("waiting")
        return None

    @contextlib.contextmanager
    def refreshing(self, started: Any, links: Any) -> Iterator[Any]:
        self._fail("refreshing")
        yield lambda outcome: self._fail("failed")
        self._fail("leaving")


@pytest.mark.anyio
@pytest.mark.parametrize("broken", ["waiting", "refreshing", "failed", "leaving", "nothing"])
async def test_a_tracer_that_fails_anywhere_changes_nothing_and_is_logged(
    broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = Endpoint()
    endpoint.script.append(RefreshUnavailable("no", outcome="not_sent", transient=False))
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=-1)), on_event=BrokenTracer(broken))
    with pytest.raises(RefreshUnavailable, match="no"):
        await auth.refresh()
    assert (await auth.refresh()).access_token == "SECRET-a1"
    all_told()
    said = [one for one in caplog.messages if "OSError" in one]
    assert len(said) == (broken != "nothing")


@pytest.mark.anyio
async def test_a_store_whose_name_cannot_be_had_is_refreshed_and_that_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Nameless(Store):
        def __repr__(self) -> str:
            raise OSError("no name")

    endpoint, seen = Endpoint(), BrokenTracer("nothing")
    auth = RefreshAuth(endpoint, Nameless(endpoint.text(expires_in=-1)), on_event=seen)
    assert (await auth.token()).access_token == "SECRET-a1"
    all_told()
    assert any("OSError" in one for one in caplog.messages)


@pytest.mark.anyio
async def test_the_span_of_what_was_interrupted_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(BaseException):
        pass

    outcomes: list[str] = []

    class Tracer(Seen):
        @contextlib.contextmanager
        def refreshing(self, started: Any, links: Any) -> Iterator[Any]:
            yield outcomes.append

        def waiting(self) -> object:
            return None

    async def interrupted(*_: object) -> None:
        raise Interrupted

    monkeypatch.setattr(Spending, "_ask_once", interrupted)
    endpoint = Endpoint()
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=-1)), on_event=Tracer())
    with pytest.raises(RefreshUnavailable, match="Interrupted"):
        await auth.token()
    assert outcomes == ["Interrupted"]


@pytest.mark.anyio
@pytest.mark.parametrize("url", ["https://[as.test/token", 5])
async def test_a_source_whose_url_is_none_has_no_server_to_tell(url: Any) -> None:
    endpoint, seen = Endpoint(), Seen()
    setattr(endpoint, "url", url)  # noqa: B010 - it has no such attribute
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=-1)), on_event=seen)
    await auth.token()
    assert seen.one(events.Refreshed).server is None


@pytest.mark.anyio
async def test_more_callbacks_than_threads_are_all_called(monkeypatch: pytest.MonkeyPatch) -> None:
    all_told()
    monkeypatch.setattr(observers, "_post", observers._Post())
    monkeypatch.setattr(observers, "_MOST_THREADS", 1)
    endpoint, callbacks = Endpoint(), [Seen() for _ in range(5)]
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=-1)), on_event=callbacks)
    await auth.token()
    kinds = [one.kinds() for one in callbacks]
    assert "Refreshed" in kinds[0]
    assert kinds == [kinds[0]] * 5
    assert len({thread for one in callbacks for thread in one.threads}) == 1
