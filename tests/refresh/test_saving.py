"""Rule 3: the new pair is saved before any request carries it, and stays in use if it cannot be saved."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import math
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from httpx_refresh import MemoryStore, RefreshAuth, RefreshUnavailable, StoreError, Token
from httpx_refresh._refresh.record import Record, parse
from httpx_refresh._refresh.spending import Spending
from httpx_refresh.testing import Gate
from tests.fakes import (
    Endpoint,
    Store,
    any_write,
    claims,
    loop_wall,
    no_write,
    results,
)
from tests.virtual_time import virtual_time

pytestmark = [pytest.mark.anyio, virtual_time, pytest.mark.usefixtures("loop_time")]


class Setup:
    """An expired token, a store that fails on demand, and a record of the pairs that could not be saved."""

    def __init__(self, **options: Any) -> None:
        self.endpoint = Endpoint(clock=loop_wall)
        self.store = Store(self.endpoint.text(expires_in=-1))
        self.unsaved: list[Token] = []
        options.setdefault("on_unsaved", self.unsaved.append)
        self.auth = RefreshAuth(self.endpoint, self.store, **options)


async def test_the_pair_is_saved_before_any_caller_gets_it() -> None:
    it = Setup()
    it.store.holds = results
    async with anyio.create_task_group() as group:
        group.start_soon(it.auth.token)
        await it.store.gate.arrived()
        assert it.auth._session.credential is None
        it.store.gate.release()
    assert (await it.auth.token()).access_token == "SECRET-a1"


@pytest.mark.parametrize("times", [1, 5])
async def test_a_save_that_fails_is_tried_again_while_the_new_token_serves(
    times: int, caplog: pytest.LogCaptureFixture
) -> None:
    it = Setup()
    failures = iter(range(times))
    it.store.fails = lambda record: results(record) and next(failures, None) is not None
    assert (await it.auth.token()).access_token == "SECRET-a1"
    assert it.store.record.generation == 0
    while it.store.record.generation == 0:
        await anyio.sleep(0.1)
        assert (await it.auth.token()).access_token == "SECRET-a1"
    await it.auth.aclose()
    assert it.store.record.token == await it.auth.token()
    assert (it.endpoint.asked, it.unsaved) == (["SECRET-r0"], [])
    assert [one.levelname for one in caplog.records if one.levelno >= logging.WARNING] == [
        *["ERROR"] * times,
        "WARNING",
    ]


async def test_saves_are_tried_with_backoff() -> None:
    it = Setup(refresh_timeout=1.0)
    it.store.fails = results
    await it.auth.token()
    await anyio.sleep(600)
    assert 60 <= it.store.tries <= 200
    it.store.fails = no_write
    await it.auth.aclose()


async def test_a_save_that_was_done_and_whose_answer_was_lost_is_recognised() -> None:
    it = Setup()
    it.store.loses = lambda record: results(record) and len(it.store.written) == 2
    assert (await it.auth.token()).access_token == "SECRET-a1"
    await anyio.sleep(1)
    assert it.store.record.generation == 1
    it.store.loses = no_write
    await it.auth.aclose()
    assert it.auth._session._unsaved is None


async def test_a_pair_that_cannot_be_saved_for_refresh_timeout_is_handed_over_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await anyio.sleep(100)  # What counts is how long saving has failed, whatever the clock shows.
    it = Setup(refresh_timeout=5.0)
    it.store.fails = results
    token = await it.auth.token()
    await anyio.sleep(4)
    assert it.unsaved == []
    await anyio.sleep(60)
    assert it.unsaved == [token]
    assert [one.levelname for one in caplog.records].count("CRITICAL") == 1
    it.store.fails = no_write
    await anyio.sleep(11)
    assert it.store.record.token == token


async def test_on_unsaved_may_be_a_coroutine_function() -> None:
    saved: list[Token] = []

    async def keep(token: Token) -> None:
        await anyio.sleep(0.1)
        saved.append(token)

    it = Setup(on_unsaved=keep)
    it.store.fails = results
    token = await it.auth.token()
    await it.auth.aclose()
    assert saved == [token]


@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_callback_that_hangs_holds_up_neither_saving_nor_aclose(
    stubborn: bool, caplog: pytest.LogCaptureFixture
) -> None:
    called: list[float] = []

    async def hang(_: Token) -> None:
        called.append(anyio.current_time())
        with anyio.CancelScope(shield=stubborn):
            await anyio.sleep(3600)

    it = Setup(on_unsaved=hang, refresh_timeout=5.0)
    it.store.fails = results
    token = await it.auth.token()
    await anyio.sleep(12)
    assert len(called) == 1
    it.store.fails = no_write
    await anyio.sleep(11)
    assert it.store.record.token == token
    await it.auth.aclose()
    assert anyio.current_time() - called[0] < 60
    assert [one for one in caplog.messages if "on_unsaved failed" in one and "NotBack" in one]


class Unheard(BaseException):
    """An exception that no code expects."""


@pytest.mark.parametrize("kind", [Unheard, SystemExit, asyncio.CancelledError])
async def test_a_callback_that_raises_anything_at_all_hurts_nobody(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Token) -> None:
        raise kind

    it = Setup(on_unsaved=fail)
    it.store.fails = results
    token = await it.auth.token()
    await it.auth.aclose()
    await anyio.sleep(0.1)
    assert any(kind.__name__ in one and "on_unsaved" in one for one in caplog.messages)
    assert await it.auth.token() == token


async def test_aclose_tries_once_more_hands_the_pair_over_and_does_not_hang(
    caplog: pytest.LogCaptureFixture,
) -> None:
    it = Setup()
    it.store.fails = results
    token = await it.auth.token()
    before = anyio.current_time()
    await it.auth.aclose()
    assert anyio.current_time() - before < 0.5
    await anyio.sleep(0.1)
    assert it.unsaved == [token]
    assert it.store.tries == 3  # The claim, the save, the last try.
    assert "critical" in [one.levelname.lower() for one in caplog.records]


async def test_aclose_in_the_middle_of_a_failing_save_waits_for_the_save_that_succeeds() -> None:
    it = Setup()
    failures = iter(range(3))
    it.store.fails = lambda record: results(record) and next(failures, None) is not None
    async with it.auth:
        await it.auth.token()
        await anyio.sleep(0.5)
    assert it.store.record.generation == 1
    assert it.unsaved == []


async def test_a_callback_that_raises_is_logged_and_the_pair_goes_on_serving(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_: Token) -> None:
        raise ValueError("not now")

    it = Setup(on_unsaved=fail)
    it.store.fails = results
    token = await it.auth.token()
    await it.auth.aclose()
    await anyio.sleep(0.1)
    (told,) = [one for one in caplog.messages if one.startswith("Fake: on_unsaved failed:")]
    assert f"ValueError ({__file__}, line " in told
    assert "not now" not in told
    assert await it.auth.token() == token


async def test_without_a_callback_the_log_says_that_there_is_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    it = Setup(on_unsaved=None)
    it.store.fails = results
    await it.auth.token()
    await it.auth.aclose()
    (told,) = [one for one in caplog.records if one.levelname == "CRITICAL"]
    assert "handed to on_unsaved: False" in told.getMessage()


async def test_the_next_need_saves_first_and_never_falls_back_to_the_spent_token() -> None:
    it = Setup()
    it.store.fails = results
    await it.auth.token()
    await it.auth.aclose()
    with pytest.raises(StoreError):
        await it.auth.refresh()
    assert it.endpoint.asked == ["SECRET-r0"]
    it.store.fails = no_write
    assert (await it.auth.refresh()).access_token == "SECRET-a2"
    assert it.endpoint.asked == ["SECRET-r0", "SECRET-r1"]
    assert [record.generation for record in it.store.written] == [0, 1, 1, 2]


async def test_a_store_that_fails_before_the_claim_spends_nothing() -> None:
    it = Setup()
    it.store.fails = any_write
    with pytest.raises(StoreError, match="could not be written"):
        await it.auth.token()
    assert it.endpoint.asked == []
    it.store.fails = no_write
    await anyio.sleep(0.1)
    assert (await it.auth.token()).access_token == "SECRET-a1"


async def test_a_claim_of_which_only_the_answer_was_lost_holds_up_nobody() -> None:
    it = Setup()
    it.store.loses = claims
    with pytest.raises(StoreError):
        await it.auth.token()
    assert it.store.record.redeeming is not None
    it.store.loses = no_write
    await anyio.sleep(0.1)
    before = anyio.current_time()
    assert (await it.auth.token()).access_token == "SECRET-a1"
    assert anyio.current_time() == before
    assert [record.uncertain for record in it.store.written] == [None] * 3


async def test_a_refresh_whose_end_could_not_be_noted_holds_up_nobody_later() -> None:
    it = Setup()
    it.endpoint.script.append(RefreshUnavailable("no answer", outcome="unknown"))
    it.store.fails = lambda record: record.uncertain is not None and record.redeeming is None
    with pytest.raises(RefreshUnavailable):
        await it.auth.token()
    claim = it.store.record.redeeming
    assert claim is not None
    it.store.fails = no_write
    before = anyio.current_time()
    assert (await it.auth.refresh()).access_token == "SECRET-a1"
    assert anyio.current_time() == before
    assert it.store.written[1].uncertain == claim


async def test_what_somebody_else_saved_meanwhile_is_the_truth() -> None:
    it = Setup()
    it.store.fails = results
    await it.auth.token()
    it.store.text = it.endpoint.text(generation=7).replace("SECRET-a1", "SECRET-login")
    it.store.fails = no_write
    await it.auth.aclose()
    assert (await it.auth.token()).access_token == "SECRET-login"


async def test_a_login_ends_the_saving_of_the_token_before_it() -> None:
    it = Setup()
    it.store.fails = results
    await it.auth.token()
    it.store.fails = no_write
    await it.auth.set_token(Token("SECRET-login", "SECRET-r9"))
    await it.auth.aclose()
    assert it.store.record.token == await it.auth.token() == Token("SECRET-login", "SECRET-r9")
    assert it.unsaved == []


async def test_a_logout_during_a_refresh_is_not_undone() -> None:
    it = Setup()
    it.endpoint.gate = Gate()
    async with anyio.create_task_group() as group:

        async def call() -> None:
            with pytest.raises(Exception, match="revoked"):
                await it.auth.token()

        group.start_soon(call)
        await it.endpoint.gate.arrived()
        revoked = '{"httpx_refresh": {"generation": 1, "revoked": 1}}'
        it.store.text = revoked
        it.endpoint.gate.release()
    assert it.store.text == revoked


@pytest.mark.parametrize(
    "left", [None, "", " \n"], ids=["nothing", "an empty file", "a blank line"]
)
async def test_a_slot_that_was_emptied_during_a_refresh_gets_the_new_pair(left: str | None) -> None:
    """Somebody deleted the file, or ran `> token.json`, or `echo > token.json`."""
    it = Setup()
    it.endpoint.gate = Gate()
    async with anyio.create_task_group() as group:
        group.start_soon(it.auth.token)
        await it.endpoint.gate.arrived()
        it.store.text = left
        it.endpoint.gate.release()
    assert it.store.record.token == await it.auth.token()
    assert it.store.record.generation == 1


async def test_another_s_claim_on_the_spent_token_is_waited_out_and_then_the_new_pair_is_saved() -> (
    None
):
    it = Setup()
    it.endpoint.gate = Gate()
    async with anyio.create_task_group() as group:
        group.start_soon(it.auth.token)
        await it.endpoint.gate.arrived()
        theirs = {"by": "elsewhere:1", "nonce": "n1", "since": loop_wall(), "for": 20.0}
        it.store.text = it.endpoint.text(expires_in=-1, redeeming=theirs).replace("-a1", "-a0")
        it.store.text = it.store.text.replace("-r1", "-r0")
        it.endpoint.gate.release()
    assert (await it.auth.token()).access_token == "SECRET-a1"
    await anyio.sleep(29)
    assert it.store.record.generation == 0
    await anyio.sleep(3)
    assert it.store.record.token == await it.auth.token()
    assert it.store.record.generation == 1
    assert it.unsaved == []  # The save was under way all the time, and did not fail.


async def test_what_was_given_up_on_is_saved_with_the_next_request() -> None:
    it = Setup()
    it.store.fails = results
    await it.auth.token()
    await it.auth.aclose()
    assert it.store.record.generation == 0
    it.store.fails = no_write
    assert (await it.auth.token()).access_token == "SECRET-a1"
    await it.auth.aclose()
    assert it.store.record.token == await it.auth.token()
    assert it.endpoint.asked == ["SECRET-r0"]


async def test_a_store_that_takes_no_result_holds_up_no_caller_for_good() -> None:
    class Stubborn(Store):
        """Reports for each result that another text was there."""

        taken = False

        async def replace(self, old: str | None, new: str) -> bool:
            if results(parse(new)) and not self.taken:
                await anyio.lowlevel.checkpoint()
                return False
            return await super().replace(old, new)

    it = Setup(refresh_timeout=10.0)
    it.store = Stubborn(it.endpoint.text(expires_in=-1))
    auth = RefreshAuth(it.endpoint, it.store, refresh_timeout=10.0)
    before = anyio.current_time()
    assert (await auth.token()).access_token == "SECRET-a1"
    assert anyio.current_time() - before <= 10.0
    it.store.taken = True
    await auth.aclose()
    assert it.store.record.token == await auth.token()


async def test_a_text_that_loses_its_claim_and_changes_all_the_time_holds_up_no_caller_for_good() -> (
    None
):
    class Changing(Store):
        taken = False

        async def replace(self, old: str | None, new: str) -> bool:
            if results(parse(new)) and not self.taken:
                self.text = it.endpoint.text(expires_in=-1, rev=str(self.tries))
                self.text = self.text.replace("SECRET-a1", "SECRET-a0")
                self.text = self.text.replace("SECRET-r1", "SECRET-r0")
            return await super().replace(old, new)

    it = Setup(refresh_timeout=10.0)
    store = Changing(it.store.text)
    auth = RefreshAuth(it.endpoint, store, refresh_timeout=10.0)
    before = anyio.current_time()
    assert (await auth.token()).access_token == "SECRET-a1"
    assert anyio.current_time() - before <= 10.0
    store.taken = True
    await auth.aclose()
    assert store.record.token == await auth.token()


async def test_a_result_replaces_a_text_from_which_its_claim_was_wiped() -> None:
    it = Setup()
    it.endpoint.gate = Gate()
    async with anyio.create_task_group() as group:
        group.start_soon(it.auth.token)
        await it.endpoint.gate.arrived()
        it.store.text = (
            it.endpoint.text(expires_in=-1)
            .replace("SECRET-a1", "SECRET-a0")
            .replace("SECRET-r1", "SECRET-r0")
        )
        it.endpoint.gate.release()
    assert it.store.record.token == await it.auth.token()
    assert it.store.record.generation == 1


async def test_an_observer_that_raises_changes_nothing() -> None:
    class Raises(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            raise RuntimeError("an observer's own failure")

    logger, broken = logging.getLogger("httpx_refresh"), Raises()
    it = Setup()
    logger.addFilter(broken)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        assert (await it.auth.token()).access_token == "SECRET-a1"
        assert (await it.auth.refresh()).access_token == "SECRET-a2"
    finally:
        logger.removeFilter(broken)
        logger.setLevel(level)
    assert it.store.record.generation == 2


async def test_a_ctrl_c_in_the_endpoint_s_own_code_reaches_the_main_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    presses: list[None] = []
    monkeypatch.setattr("_thread.interrupt_main", lambda: presses.append(None))

    class Pressed(Endpoint):
        async def refresh(self, token: Token, /) -> Token:
            raise KeyboardInterrupt

    auth = RefreshAuth(
        Pressed(clock=loop_wall), Store(Endpoint(clock=loop_wall).text(expires_in=-1))
    )
    with pytest.raises(RefreshUnavailable, match="KeyboardInterrupt"):
        await auth.token()
    await anyio.sleep(1)
    assert presses == [None]


async def test_a_flight_shows_no_token() -> None:
    it = Setup()
    it.endpoint.gate = Gate()
    async with anyio.create_task_group() as group:
        group.start_soon(it.auth.token)
        await it.endpoint.gate.arrived()
        (flight,) = it.auth._session._flights.values()
        assert repr(flight) == "<Flight RESULT, under way>"
        it.endpoint.gate.release()
    assert repr(flight) == "<Flight RESULT, landed>"


async def test_a_ctrl_c_in_a_step_of_ours_leaves_no_claim_and_reaches_the_main_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    presses: list[None] = []
    monkeypatch.setattr("_thread.interrupt_main", lambda: presses.append(None))

    async def pressed(*_: object) -> None:
        raise KeyboardInterrupt

    it = Setup()
    monkeypatch.setattr(Spending, "_ask_once", pressed)
    with pytest.raises(RefreshUnavailable, match="KeyboardInterrupt") as caught:
        await it.auth.refresh()
    assert caught.value.outcome == "unknown"
    await anyio.sleep(1)
    assert presses == [None]
    record = it.store.record
    assert record.redeeming is None
    assert record.uncertain is not None


class Obtains:
    """Starts from nothing."""

    origins = "any"

    def __init__(self) -> None:
        self.asked = 0

    async def obtain(self, _: Token | None, /) -> Token:
        self.asked += 1
        return Token(f"t{self.asked}")


async def test_a_token_that_can_be_obtained_again_is_saved_on_and_not_handed_over() -> None:
    source, store, handed, told = Obtains(), Store(None), list[Token](), list[str]()
    store.fails = results
    auth = RefreshAuth(
        source,
        store,
        on_unsaved=handed.append,
        on_event=lambda event: told.append(type(event).__name__),
    )
    assert (await auth.token()).access_token == "t1"
    await anyio.sleep(200)
    assert handed == []
    store.fails = no_write
    await anyio.sleep(20)
    assert store.record.token == Token("t1")
    assert (await auth.token()).access_token == "t1"
    assert source.asked == 1
    assert "StillUnsaved" not in told


async def test_a_source_that_starts_from_nothing_and_fails_oddly_loses_nothing() -> None:
    class Odd(Obtains):
        async def obtain(self, _: Token | None, /) -> Token:
            raise OSError("SECRET")

    with pytest.raises(RefreshUnavailable, match="Nothing is lost by that") as caught:
        await RefreshAuth(Odd(), Store(None), refresh_timeout=1).token()
    assert "SECRET" not in str(caught.value)


async def test_what_an_api_says_of_a_token_that_is_used_no_more_is_not_held_against_the_next() -> (
    None
):
    it = Setup()
    await it.auth.token()
    session = it.auth._session
    old = session.credential
    assert old is not None
    await it.auth.set_token(Token("another", "r"))
    before = session.verdicts
    session.futile(old, "GET https://api.test/")
    assert session.verdicts == before


async def test_a_verdict_that_finds_no_place_in_the_store_is_given_up() -> None:
    class Contended(Store):
        lost = 0

        async def replace(self, old: str | None, new: str) -> bool:
            if parse(new).refusals is None:
                return await super().replace(old, new)
            self.lost += 1
            self.text = (self.text or "") + " "  # Somebody else was faster.
            return False

    endpoint = Endpoint(clock=loop_wall)
    store = Contended(endpoint.text())
    auth = RefreshAuth(endpoint, store)
    await auth.token()
    session = auth._session
    assert session.credential is not None
    session.futile(session.credential, "GET https://api.test/")
    await anyio.sleep(60)
    assert 1 < store.lost <= 10
    assert store.record.refusals is None


async def test_a_store_may_be_made_of_the_methods_of_others() -> None:
    endpoint = Endpoint(clock=loop_wall)
    store = MemoryStore(endpoint.text(expires_in=-1))
    made: Any = SimpleNamespace(load=store.load, replace=store.replace)
    assert (await RefreshAuth(endpoint, made).token()).access_token == "SECRET-a1"
    assert parse(store.peek()).generation == 1


class ForReports(Endpoint):
    """Its tokens are for reports, and its slot says so."""

    purpose = "reports"


async def test_a_slot_that_is_somebody_else_s_by_now_is_left_to_them_and_the_token_serves() -> None:
    endpoint = ForReports(clock=loop_wall)
    endpoint.gate = gate = Gate()
    store, got = Store(endpoint.text(expires_in=-1)), list[Token]()
    auth = RefreshAuth(endpoint, store)

    async def call() -> None:
        got.append(await auth.token())

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await gate.arrived()
        others = {"access_token": "theirs", "httpx_refresh": {"generation": 9, "purpose": "else"}}
        store.text = text = json.dumps(others)
        gate.release()
    assert [one.access_token for one in got] == ["SECRET-a1"]
    assert store.text == text


async def test_a_token_that_was_not_saved_is_dropped_for_a_login_and_does_not_come_back() -> None:
    it = Setup()

    def spent_for(record: Record) -> bool:
        return record.token is not None and record.token.access_token == "SECRET-a1"

    it.store.fails = spent_for
    assert (await it.auth.token()).access_token == "SECRET-a1"
    await it.auth.set_token(Token("login", "r"))
    it.store.fails = any_write
    await it.auth.aclose()
    it.store.fails = no_write
    assert (await it.auth.token()).access_token == "login"
    await anyio.sleep(60)
    assert (await it.auth.token()).access_token == "login"
    assert it.store.record.token == Token("login", "r")
    assert it.endpoint.asked == ["SECRET-r0"]


async def test_a_slot_that_became_somebody_else_s_while_it_took_nothing_is_left_to_them() -> None:
    endpoint = ForReports(clock=loop_wall)
    store = Store(endpoint.text(expires_in=-1))
    store.fails = results
    auth = RefreshAuth(endpoint, store)
    assert (await auth.token()).access_token == "SECRET-a1"
    others = {"access_token": "theirs", "httpx_refresh": {"generation": 9, "purpose": "else"}}
    store.text = text = json.dumps(others)
    store.fails = no_write
    await anyio.sleep(60)
    assert store.text == text
    assert (await auth.token()).access_token == "SECRET-a1"


async def test_what_a_later_refresh_has_saved_is_not_saved_once_more() -> None:
    """A logout that came after it stays one."""
    it = Setup()
    it.store.fails = results
    await it.auth.token()
    it.store.fails = no_write
    await it.auth.refresh()
    await it.auth.forget()
    await anyio.sleep(60)
    assert it.store.record.token is None
    assert it.endpoint.asked == ["SECRET-r0", "SECRET-r1"]


async def test_what_another_event_loop_has_saved_meanwhile_is_not_saved_again() -> None:
    it = Setup()
    await it.auth.token()
    session, tries = it.auth._session, it.store.tries
    assert session.credential is not None
    # A loop that ends before it could save says so here; then another one's refresh saves.
    session.credential = replace(session.credential, renew_at=-math.inf)
    assert (await it.auth.token()).access_token == "SECRET-a1"
    await anyio.sleep(60)
    assert session.credential.renew_at > loop_wall()
    assert it.store.tries == tries


class NoMoreFiles:
    """Has the import of the module of events fail, as where a process has as many files open as it may have."""

    name = "httpx_refresh._refresh.events"

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.reached = False
        import httpx_refresh._refresh.events  # noqa: F401 - what is taken away has to be there

        patch.delitem(sys.modules, self.name)
        patch.delattr("httpx_refresh._refresh.events")
        patch.setattr(sys, "meta_path", [self, *sys.meta_path])

    def find_spec(self, name: str, *_: object) -> None:
        if name == self.name and self.reached:
            raise OSError(errno.EMFILE, "Too many open files", "events.py")


async def test_where_no_file_can_be_opened_any_more_a_token_in_hand_is_saved_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    it = Setup()
    files = NoMoreFiles(monkeypatch)

    def fails(record: Record) -> bool:
        files.reached = files.reached or results(record)
        return files.reached and it.store.tries < 6

    it.store.fails = fails
    assert (await it.auth.token()).access_token == "SECRET-a1"
    await anyio.sleep(60)
    assert it.store.record.token == await it.auth.token()
    assert it.endpoint.asked == ["SECRET-r0"]


async def test_where_no_file_can_be_opened_to_begin_with_nothing_is_sent_and_the_error_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    it = Setup()
    files = NoMoreFiles(monkeypatch)
    files.reached = True
    with pytest.raises(RefreshUnavailable, match="Too many open files") as caught:
        await it.auth.token()
    assert caught.value.outcome == "not_sent"
    assert (it.endpoint.asked, it.store.written) == ([], [])
    files.reached = False
    await anyio.sleep(2)
    assert (await it.auth.token()).access_token == "SECRET-a1"
