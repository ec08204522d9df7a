"""Rule 16: every wait ends, and every caller gets an answer, whatever is raised."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from httpx_refresh import (
    ReauthorizationRequired,
    RefreshAuth,
    RefreshAuthError,
    RefreshUnavailable,
    StoreError,
    Token,
)
from httpx_refresh._errors import Outcome
from httpx_refresh._limits import longer
from httpx_refresh._refresh import spending
from httpx_refresh._refresh.host import Host
from httpx_refresh._refresh.record import with_token, write
from httpx_refresh._refresh.spending import Spending
from httpx_refresh.testing import Gate
from tests.fakes import (
    Endpoint,
    Store,
    any_write,
    claims,
    loop_wall,
    no_write,
    refreshing,
    results,
)
from tests.virtual_time import stand_still, virtual_time

pytestmark = [pytest.mark.anyio, virtual_time, pytest.mark.usefixtures("loop_time")]


class Hanging(Store):
    """Calls whose names are in `hangs` wait a long time, if `stubborn` even when cancelled, and do their work then."""

    def __init__(self, text: str, *, stubborn: bool) -> None:
        super().__init__(text)
        self.hangs: set[str] = set()
        self.stubborn = stubborn
        self.begun = 0

    async def _hang(self, what: str) -> None:
        if what in self.hangs:
            self.begun += 1
            if not self.stubborn:
                await anyio.sleep(1000)
            until = anyio.current_time() + 1000
            with anyio.CancelScope(shield=True):  # asyncio's own cancellation ignores this shield.
                while anyio.current_time() < until:
                    with suppress(asyncio.CancelledError):
                        await anyio.sleep(until - anyio.current_time())

    async def load(self) -> str | None:
        await self._hang("load")
        return await super().load()

    async def replace(self, old: str | None, new: str) -> bool:
        await self._hang("replace")
        return await super().replace(old, new)


@pytest.mark.parametrize("stubborn", [False, True], ids=["cancelled", "heedless"])
@pytest.mark.parametrize("call", ["load", "replace"])
async def test_a_store_call_that_does_not_come_back_is_an_error_and_the_next_request_is_fine(
    call: str, stubborn: bool
) -> None:
    endpoint = Endpoint(clock=loop_wall)
    store = Hanging(endpoint.text(expires_in=-1), stubborn=stubborn)
    store.hangs = {call}
    auth = RefreshAuth(endpoint, store, refresh_timeout=10.0)
    before = anyio.current_time()
    with pytest.raises(StoreError, match="no answer within 5 s"):
        await auth.token()
    assert anyio.current_time() - before == pytest.approx(5)
    store.hangs = set()
    await anyio.sleep(0.1)
    assert (await auth.token()).access_token == "SECRET-a1"
    await auth.aclose()
    saved = store.text
    await anyio.sleep(1200)  # The late write comes.
    assert (store.text, endpoint.asked) == (saved, ["SECRET-r0"])


async def test_after_four_calls_that_hang_no_further_one_is_made_until_one_is_back() -> None:
    endpoint = Endpoint(clock=loop_wall)
    store = Hanging(endpoint.text(expires_in=-1), stubborn=True)
    store.hangs = {"load"}
    auth = RefreshAuth(endpoint, store, refresh_timeout=2.0)
    for number in range(8):
        with pytest.raises(StoreError) as caught:
            await auth.token()
        assert ("4 earlier calls have not come back" in str(caught.value)) is (number > 3)
        await anyio.sleep(2)
    assert store.begun == 4
    store.hangs = set()
    await anyio.sleep(1000)
    assert (await auth.token()).access_token == "SECRET-a1"


async def test_a_store_that_hangs_during_a_save_is_no_reason_not_to_serve() -> None:
    endpoint = Endpoint(clock=loop_wall)
    store = Store(endpoint.text(expires_in=-1))
    store.delays = results
    auth = RefreshAuth(endpoint, store, refresh_timeout=10.0)
    before = anyio.current_time()
    assert (await auth.token()).access_token == "SECRET-a1"
    assert anyio.current_time() - before == pytest.approx(5)
    store.delays = no_write
    store.gate.release()
    await anyio.sleep(10)
    assert (store.record.generation, store.record.redeeming) == (1, None)


async def test_no_caller_is_held_longer_than_twice_refresh_timeout() -> None:
    """Forty processes that take turns at an endpoint that hangs."""
    endpoint = Endpoint(clock=loop_wall)
    endpoint.gate = Gate()
    store = Store(endpoint.text(expires_in=-1))
    held: list[float] = []

    async def call(auth: RefreshAuth) -> None:
        before = anyio.current_time()
        with pytest.raises(RefreshAuthError):
            await auth.token()
        held.append(anyio.current_time() - before)

    async with anyio.create_task_group() as group:
        for _ in range(40):
            group.start_soon(call, RefreshAuth(endpoint, store, refresh_timeout=10.0))
    assert max(held) <= 20
    assert len(endpoint.asked) <= 4


async def test_a_caller_that_is_let_go_is_told_so_while_the_flight_goes_on() -> None:
    endpoint = Endpoint(clock=loop_wall)
    claim = {"by": "elsewhere:1", "nonce": "n1", "since": loop_wall(), "for": 100.0}
    store = Store(endpoint.text(expires_in=-1, redeeming=claim))
    auth = RefreshAuth(endpoint, store, refresh_timeout=10.0)
    before = anyio.current_time()
    with pytest.raises(RefreshUnavailable, match="no new token for Fake after 20 s") as caught:
        await auth.token()
    assert 15 <= anyio.current_time() - before <= 20
    assert caught.value.outcome == "not_sent"
    endpoint.issued = 4
    store.text = endpoint.text(expires_in=3600, generation=1)
    await anyio.sleep(1)
    assert (await auth.token()).access_token == "SECRET-a4"
    assert endpoint.asked == []


class Unheard(BaseException):
    """An exception that no code expects."""


@pytest.mark.parametrize(
    "kind", [Unheard, SystemExit, asyncio.CancelledError, GeneratorExit, KeyError, MemoryError]
)
async def test_whatever_an_endpoint_raises_all_waiters_are_answered_and_the_claim_is_gone(
    kind: type[BaseException],
) -> None:
    class Raising(Endpoint):
        async def refresh(self, token: Token, /) -> Token:
            self.asked.append(token.refresh_token)
            await checkpoint()
            raise kind("SECRET")

    endpoint = Raising(clock=loop_wall)
    store = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store)
    errors: list[RefreshUnavailable] = []

    async def call() -> None:
        with pytest.raises(RefreshUnavailable, match="failed with") as caught:
            await auth.token()
        errors.append(caught.value)

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(call)
    assert len(errors) == 10
    for error in errors:
        assert (error.outcome, error.__cause__, error.__context__) == ("unknown", None, None)
        # A coroutine cannot raise GeneratorExit.
        name = kind.__name__
        assert f"failed with {name}" in str(error)
        assert f"{name} (" in str(error.caused_by)
        assert "SECRET" not in repr(vars(error))
    record = store.record
    assert (record.redeeming, len(endpoint.asked)) == (None, 1)
    assert record.uncertain is not None
    assert [one.failures for one in record.failed] == [1]
    # It counts as a failure, so there is a pause.
    with pytest.raises(RefreshUnavailable):
        await auth.token()
    assert len(endpoint.asked) == 1


class Anew:
    """A source that obtains its tokens from nothing."""

    origins = "any"

    async def obtain(self, _: Token | None, /) -> Token:
        raise AssertionError("nobody comes so far")


@pytest.mark.parametrize("source, is_in_doubt", [(Endpoint(), True), (Anew(), False)])
async def test_whatever_is_raised_beside_a_request_leaves_a_doubt_unless_it_costs_nothing_to_repeat_it(
    source: Any, is_in_doubt: bool, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """As a Ctrl-C does that meets this library's own code while the request is under way."""

    async def raises(*_: object) -> None:
        raise Unheard

    monkeypatch.setattr(spending, "bounded", raises)
    store = Store(Endpoint(clock=loop_wall).text(expires_in=-1))
    with pytest.raises(RefreshUnavailable, match="Unheard") as caught:
        await RefreshAuth(source, store).token()
    assert caught.value.outcome == "unknown"
    assert store.record.redeeming is None
    assert (store.record.uncertain is not None) is is_in_doubt


@pytest.mark.parametrize("kind", [Unheard, SystemExit, asyncio.CancelledError, KeyError])
@pytest.mark.parametrize("call", ["load", "replace"])
async def test_whatever_a_store_raises_is_a_store_error(
    call: str, kind: type[BaseException]
) -> None:
    endpoint = Endpoint(clock=loop_wall)
    store: Any = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store)

    async def fail(*_: object) -> None:
        raise kind("SECRET")

    setattr(store, call, fail)
    with pytest.raises(StoreError, match=kind.__name__) as caught:
        await auth.token()
    assert "SECRET" not in repr(vars(caught.value)) + str(caught.value)
    delattr(store, call)
    await anyio.sleep(0.1)
    assert (await auth.token()).access_token == "SECRET-a1"


@pytest.mark.parametrize(
    "call, answer, said",
    [
        ("load", 5, "returned an object of type int"),
        ("load", b"x", "returned an object of type bytes"),
        ("replace", None, "returned None. It must return a bool"),
        ("replace", 1, "returned an object of type int. It must return a bool"),
    ],
)
async def test_a_store_that_answers_something_else_is_told_which_method_is_wrong(
    call: str, answer: Any, said: str
) -> None:
    endpoint = Endpoint(clock=loop_wall)
    store: Any = Store(endpoint.text(expires_in=-1))

    async def reply(*_: object) -> Any:
        return answer

    setattr(store, call, reply)
    with pytest.raises(StoreError, match=said):
        await RefreshAuth(endpoint, store).token()
    assert endpoint.asked == []


@pytest.mark.parametrize("odd", ["7", True, -1, float("nan"), float("inf"), [], 10**400])
async def test_odd_values_in_an_endpoint_s_own_error_are_left_out(odd: Any) -> None:
    endpoint = Endpoint(clock=loop_wall)
    error = RefreshUnavailable("odd", outcome=odd, retry_after=odd)
    vars(error)["transient"] = "yes" if odd is True else odd
    endpoint.script.append(error)
    store = Store(endpoint.text(expires_in=-1))
    with pytest.raises(RefreshUnavailable, match="odd") as caught:
        await RefreshAuth(endpoint, store).token()
    assert (caught.value.outcome, caught.value.retry_after) == ("unknown", None)
    assert type(caught.value.transient) is bool
    assert store.record.redeeming is None


@pytest.mark.parametrize(
    "name, value, error",
    [
        ("reuse_grace", None, TypeError),
        ("reuse_grace", "30", TypeError),
        ("reuse_grace", True, TypeError),
        ("reuse_grace", -1, ValueError),
        ("reuse_grace", float("nan"), ValueError),
        ("refresh_not_before_expiry", "30", TypeError),
        ("refresh_not_before_expiry", float("inf"), ValueError),
        ("name", 5, TypeError),
        ("authorization_scheme", None, TypeError),
        ("client_fingerprint", 5, TypeError),
        ("purpose", 5, TypeError),
        ("purpose", "p" * 1001, ValueError),
    ],
)
async def test_a_fact_that_cannot_be_meant_is_refused_at_construction(
    name: str, value: Any, error: type[Exception]
) -> None:
    endpoint = Endpoint(clock=loop_wall)
    setattr(endpoint, name, value)
    with pytest.raises(error, match=name):
        RefreshAuth(endpoint, Store(endpoint.text()))


async def test_a_purpose_of_a_thousand_characters_is_kept_in_the_store() -> None:
    endpoint: Any = Endpoint(clock=loop_wall)
    endpoint.purpose = "p" * 1000
    store = Store(endpoint.text(expires_in=-1))
    await RefreshAuth(endpoint, store).token()
    assert store.record.purpose == endpoint.purpose


async def test_a_source_that_can_neither_start_nor_refresh_is_refused_at_construction() -> None:
    class Neither:
        starts = False

        async def obtain(self, held: Token | None, /) -> Token:
            raise AssertionError

    with pytest.raises(ValueError, match="neither start nor refresh"):
        RefreshAuth(Neither(), Store("{}"), origins="any")


async def test_a_token_that_is_expired_on_its_arrival_is_used_until_it_is_refused() -> None:
    """A clock that is an hour ahead."""
    endpoint = Endpoint(clock=lambda: loop_wall() - 7200)
    store = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store)
    for _ in range(50):
        assert (await auth.token()).access_token == "SECRET-a1"
        await anyio.sleep(1)
    await auth.aclose()
    assert endpoint.asked == ["SECRET-r0"]


# -- logins ----------------------------------------------------------------------------------------


async def test_a_save_that_is_acknowledged_late_does_not_undo_a_login() -> None:
    endpoint = Endpoint(clock=loop_wall)
    store = Store(endpoint.text(expires_in=-1))
    store.holds = lambda record: record.generation == 1
    auth = RefreshAuth(endpoint, store)
    async with anyio.create_task_group() as group:
        group.start_soon(auth.token)
        await store.gate.arrived()
        await auth.set_token(Token("SECRET-login", "SECRET-r9"))
        assert (await auth.token()).access_token == "SECRET-login"
        store.gate.release()
    assert (await auth.token()).access_token == "SECRET-login"
    assert store.record.token == Token("SECRET-login", "SECRET-r9")


@pytest.mark.parametrize("seconds", [0.0, 1.0])
async def test_a_text_that_is_read_late_does_not_undo_a_login(seconds: float) -> None:
    endpoint, gate = Endpoint(clock=loop_wall), Gate()

    class Late(Store):
        async def load(self) -> str | None:
            text = await super().load()
            if self.loads == 1:
                await gate.hold()
            return text

    auth = RefreshAuth(endpoint, Late(endpoint.text(expires_in=3600)))
    async with anyio.create_task_group() as group:
        group.start_soon(auth.token)
        await gate.arrived()
        await anyio.sleep(seconds)
        await auth.set_token(Token("SECRET-login", "SECRET-r9"))
        gate.release()
    assert (await auth.token()).access_token == "SECRET-login"


async def test_a_login_elsewhere_is_adopted_at_the_moment_of_the_last_use() -> None:
    """A clock may be too coarse to tell the two moments apart: then the generation tells."""
    endpoint = Endpoint(clock=loop_wall)
    store = Store(endpoint.text(expires_in=3600))
    auth = RefreshAuth(endpoint, store)
    before, held = anyio.current_time(), await auth.token()
    store.text = write(with_token(store.record, Token("SECRET-login", "SECRET-r9")), rev="v1")
    assert (await auth.refresh(refused=held)).access_token == "SECRET-login"
    assert (anyio.current_time(), endpoint.asked) == (before, [])


async def test_a_result_that_cannot_be_saved_does_not_undo_a_login() -> None:
    endpoint = Endpoint(clock=loop_wall)
    store = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store)
    async with refreshing(auth, endpoint):
        await anyio.sleep(1)
        await auth.set_token(Token("SECRET-login", "SECRET-r9"))
        store.fails = any_write
    assert (await auth.token()).access_token == "SECRET-login"
    store.fails = no_write
    await auth.aclose()
    assert store.record.token == await auth.token() == Token("SECRET-login", "SECRET-r9")


@pytest.mark.parametrize(
    "text, error",
    [
        ("", ReauthorizationRequired),
        ("SECRET, not JSON", StoreError),
        ("[1]", StoreError),
        ("{}", StoreError),
        ('{"access_token": 5}', StoreError),
    ],
)
async def test_a_login_repairs_a_damaged_text(text: str, error: type[RefreshAuthError]) -> None:
    store = Store(text)
    auth = RefreshAuth(Endpoint(clock=loop_wall), store)
    with pytest.raises(error):
        await auth.token()
    await auth.set_token(Token("SECRET-login", "SECRET-r9"))
    assert store.record.token == await auth.token() == Token("SECRET-login", "SECRET-r9")


async def test_a_login_goes_on_when_its_caller_is_cancelled() -> None:
    store = Store(None)
    store.delays = any_write
    auth = RefreshAuth(Endpoint(clock=loop_wall), store)
    async with anyio.create_task_group() as group:
        group.start_soon(auth.set_token, Token("SECRET-login"))
        await store.gate.arrived()
        group.cancel_scope.cancel()
    store.gate.release()
    await anyio.sleep(0.1)
    assert store.record.token == await auth.token() == Token("SECRET-login")


async def test_a_login_into_a_slot_that_changes_all_the_time_ends_within_refresh_timeout() -> None:
    endpoint = Endpoint(clock=loop_wall)

    class Busy(Store):
        async def replace(self, old: str | None, new: str) -> bool:
            self.text = endpoint.text(generation=self.tries)
            return await super().replace(old, new)

    auth = RefreshAuth(endpoint, Busy(None), refresh_timeout=5.0)
    before = anyio.current_time()
    with pytest.raises(StoreError, match="another text at each attempt"):
        await auth.set_token(Token("SECRET-login"))
    assert anyio.current_time() - before <= 6


async def test_a_login_that_fails_in_an_unforeseen_way_says_so() -> None:
    auth = RefreshAuth(Endpoint(clock=loop_wall), Store(None))
    token = Token("SECRET-login", extra={"x": 1})
    object.__setattr__(token, "extra", None)  # Nobody can make such a token.
    with pytest.raises(RefreshUnavailable, match="AttributeError, which it should not"):
        await auth.set_token(token)


async def _asks(auth: RefreshAuth) -> None:
    with suppress(RefreshUnavailable):
        await auth.token()


class Held(Endpoint):
    """Answers once it is let go; who waits for it reads the answer in a few steps."""

    def __init__(self) -> None:
        super().__init__(clock=loop_wall)
        self.came = anyio.Event()
        self.sent = anyio.Event()

    async def refresh(self, token: Token, /) -> Token:
        answer = await super().refresh(token)
        self.sent.set()
        await self.came.wait()
        for _ in range(20):
            await checkpoint()
        return answer


@pytest.mark.parametrize("stands", [10.5, 3600.0])
async def test_an_answer_that_came_while_the_event_loop_stood_still_is_not_thrown_away(
    stands: float,
) -> None:
    """A handler blocks the loop, a process is stopped, a function freezes: the answer lies in the socket meanwhile."""
    endpoint = Held()
    store = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store, refresh_timeout=10.0)
    async with anyio.create_task_group() as group:
        group.start_soon(_asks, auth)
        await endpoint.sent.wait()
        stand_still(stands)
        endpoint.came.set()
    await auth.aclose()
    assert (await auth.token()).access_token == "SECRET-a1"
    assert json.loads(str(store.text))["refresh_token"] == "SECRET-r1"
    assert endpoint.asked == ["SECRET-r0"]


async def test_an_event_loop_that_stood_still_waits_for_an_answer_a_quarter_longer_and_no_more() -> (
    None
):
    endpoint = Held()
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=-1)), refresh_timeout=10.0)
    async with anyio.create_task_group() as group:
        group.start_soon(_asks, auth)
        await endpoint.sent.wait()
        stand_still(12.0)
        stood = anyio.current_time()
    assert anyio.current_time() - stood == pytest.approx(2.5, abs=0.1)
    await auth.aclose()


async def test_an_event_loop_that_stands_still_again_and_again_waits_twice_as_long_and_no_more() -> (
    None
):
    class Left(Held):
        left_at = 0.0

        async def refresh(self, token: Token) -> Token:
            try:
                return await super().refresh(token)
            finally:
                self.left_at = anyio.current_time()

    endpoint = Left()
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=-1)), refresh_timeout=10.0)
    async with anyio.create_task_group() as group:
        group.start_soon(_asks, auth)
        await endpoint.sent.wait()
        sent_at = anyio.current_time()
        while not endpoint.left_at:
            stand_still(0.3)  # So each timer of this loop is late.
            await checkpoint()
            assert anyio.current_time() - sent_at < 30.0
    assert endpoint.left_at - sent_at == pytest.approx(22.0, abs=2.5)
    await auth.aclose()


async def test_a_timer_that_is_a_little_late_lengthens_no_limit() -> None:
    assert longer(0.05, 0.04, 0) == 0.0
    assert longer(10.0, 0.09, 0) == 0.0
    assert [longer(10.0, 0.11, times) for times in range(6)] == [2.5, 2.5, 2.5, 2.5, 0.0, 0.0]


async def test_what_has_no_time_left_when_it_is_to_be_sent_is_begun_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process that was held up between its claim and its request has sent nothing, and says nothing else."""
    answers = [False, False]
    has_time = Spending._has_time
    monkeypatch.setattr(
        Spending, "_has_time", lambda self: answers.pop() if answers else has_time(self)
    )
    endpoint = Endpoint(clock=loop_wall)
    store = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store, refresh_timeout=10.0)
    assert (await auth.token()).access_token == "SECRET-a1"
    assert answers == []
    assert endpoint.asked == ["SECRET-r0"]
    assert not any(record.uncertain for record in store.written)
    await auth.aclose()


async def test_a_token_of_a_source_that_is_no_coroutine_function_is_not_lost() -> None:
    endpoint = Endpoint(clock=loop_wall)

    class Plain:
        origins = ("https://api.test",)

        def refresh(self, token: Token, /) -> Token:
            assert token.refresh_token == "SECRET-r0"
            return Token("SECRET-a1", "SECRET-r1")

    store = Store(endpoint.text(expires_in=-1))
    source: Any = Plain()
    auth = RefreshAuth(source, store)
    assert (await auth.token()).access_token == "SECRET-a1"
    assert json.loads(str(store.text))["refresh_token"] == "SECRET-r1"
    await auth.aclose()


async def test_a_login_may_bring_back_a_refresh_token_that_was_exchanged_here_and_no_other_text() -> (
    None
):
    endpoint = Endpoint(clock=loop_wall)
    store = Store(endpoint.text(expires_in=-1))
    oldest = store.text
    auth = RefreshAuth(endpoint, store)
    await auth.refresh()
    await auth.refresh()
    await auth.set_token(Token("SECRET-login", "SECRET-r1", loop_wall() - 1))
    with pytest.raises(RefreshAuthError):  # The server refuses it.
        await auth.refresh()
    assert endpoint.asked == ["SECRET-r0", "SECRET-r1", "SECRET-r1"]
    store.text = oldest
    with pytest.raises(StoreError, match="already exchanged"):
        await auth.refresh()
    assert endpoint.asked == ["SECRET-r0", "SECRET-r1", "SECRET-r1"]


def after_the_first_write(store: Store, happens: Callable[[], None]) -> None:
    """Have something happen as soon as a claim is written."""
    replace, writes = store.replace, itertools.count()

    async def replaced(old: str | None, new: str) -> bool:
        won = await replace(old, new)
        if next(writes) == 0:
            happens()
        return won

    store.replace = replaced  # type: ignore[method-assign]  # the store itself knows of no such moment


async def test_a_claim_whose_machine_slept_before_the_request_sends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The monotonic clock stands still meanwhile, and others have taken the claim for abandoned since."""
    slept = 0.0
    monkeypatch.setattr(Host, "wall", lambda _: loop_wall() + slept)
    endpoint = Endpoint(clock=loop_wall)
    store = Store(endpoint.text(expires_in=-1))

    def sleeps() -> None:
        nonlocal slept
        slept = 3600.0

    after_the_first_write(store, sleeps)
    auth = RefreshAuth(endpoint, store, refresh_timeout=10.0)
    assert (await auth.token()).access_token == "SECRET-a1"
    assert endpoint.asked == ["SECRET-r0"]
    claims = [one.redeeming for one in store.written if one.redeeming is not None]
    assert [claim.since - loop_wall() > 1800 for claim in claims] == [False, True]


async def test_a_wall_clock_that_is_set_back_during_a_request_lengthens_no_time_to_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await anyio.sleep(100)  # What counts is the time since the claim, whatever the clocks show.
    back = 0.0
    monkeypatch.setattr(Host, "wall", lambda _: loop_wall() - back)
    endpoint = Endpoint(clock=loop_wall)
    store = Store(endpoint.text(expires_in=-1))

    def is_set_back() -> None:
        nonlocal back
        back = 3600.0

    after_the_first_write(store, is_set_back)
    endpoint.gate = Gate()  # It never answers.
    auth = RefreshAuth(endpoint, store, refresh_timeout=10.0)
    before = anyio.current_time()
    with pytest.raises(RefreshUnavailable, match="no answer within 10 s"):
        await auth.token()
    assert anyio.current_time() - before < 11.0
    await auth.aclose()


@pytest.mark.parametrize("outcome, asked", [("refused", 1), ("not_sent", 2)])
async def test_one_request_answers_all_who_had_joined_its_flight_if_it_was_sent(
    outcome: Outcome, asked: int
) -> None:
    """Also those who want another token in any case; they ask themselves only where nothing was sent."""
    endpoint = Endpoint(clock=loop_wall)
    endpoint.always = RefreshUnavailable("no", outcome=outcome, transient=False)
    store = Store(endpoint.text(expires_in=-1))
    store.delays = claims
    auth = RefreshAuth(endpoint, store)
    async with anyio.create_task_group() as group:
        group.start_soon(_asks, auth)
        await store.gate.arrived()
        group.start_soon(_insists, auth)
        await anyio.sleep(0.1)
        store.gate.release()
    assert len(endpoint.asked) == asked


async def _insists(auth: RefreshAuth) -> None:
    with pytest.raises(RefreshUnavailable):
        await auth.refresh()


async def test_who_closes_between_two_requests_has_no_other_one_made_and_the_error_is_the_first_s() -> (
    None
):
    endpoint = Endpoint(clock=loop_wall)
    endpoint.always = RefreshUnavailable("down", outcome="busy", transient=True)
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=-1)))
    errors: list[str] = []

    async def call() -> None:
        with pytest.raises(RefreshUnavailable) as caught:
            await auth.token()
        errors.append(str(caught.value))

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        while not endpoint.asked:
            await checkpoint()
        await anyio.sleep(0.05)  # The pause lasts longer.
        await auth.aclose()
    assert (endpoint.asked, errors) == (["SECRET-r0"], ["down"])
