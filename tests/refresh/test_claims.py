"""How other processes see a refresh that is under way, and what they do if it does not end."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import anyio
import pytest

from httpx_refresh import (
    MemoryStore,
    ReauthorizationRequired,
    RefreshAuth,
    RefreshUnavailable,
    Token,
)
from httpx_refresh._refresh import slot
from httpx_refresh._refresh.host import Host
from httpx_refresh._refresh.record import parse
from httpx_refresh._refresh.slot import Slot
from tests.fakes import Endpoint, Store, claims, loop_wall, refreshing
from tests.virtual_time import virtual_time

pytestmark = [pytest.mark.anyio, virtual_time, pytest.mark.usefixtures("loop_time")]


def _claimed(since: float = 0.0, patience: float | None = None) -> tuple[Endpoint, Store]:
    endpoint = Endpoint(clock=loop_wall)
    claim: dict[str, Any] = {"by": "elsewhere:1", "nonce": "n1", "since": loop_wall() - since}
    if patience is not None:
        claim["for"] = patience
    return endpoint, Store(endpoint.text(expires_in=-1, generation=4, redeeming=claim))


async def test_a_claim_is_taken_over_after_one_and_a_half_timeouts_and_not_before() -> None:
    endpoint, store = _claimed()
    auth = RefreshAuth(endpoint, store, refresh_timeout=10.0)
    before = anyio.current_time()
    token = await auth.token()
    assert 15.0 <= anyio.current_time() - before < 18.0
    assert (token.access_token, endpoint.asked) == ("SECRET-a1", ["SECRET-r0"])
    # It is not known how far its owner came.
    uncertain = store.written[0].uncertain
    assert uncertain is not None
    assert uncertain.nonce == "n1"
    assert store.record.generation == 5


@pytest.mark.parametrize("patience, mine", [(4.0, 10.0), (40.0, 10.0), (10.0, 0.5)])
async def test_a_claim_is_judged_by_its_owner_s_patience_and_not_by_the_watcher_s(
    patience: float, mine: float
) -> None:
    endpoint, store = _claimed(patience=patience)
    auth = RefreshAuth(endpoint, store, refresh_timeout=mine)
    before = anyio.current_time()
    while not endpoint.asked:
        with contextlib.suppress(RefreshUnavailable):
            await auth.token()
    assert 1.5 * patience <= anyio.current_time() - before < 1.5 * patience + 2.0


@pytest.mark.parametrize("skew", [-3600.0, -360.0, 360.0, 3600.0, 86_000.0])
async def test_clocks_that_differ_do_not_make_a_claim_older(skew: float) -> None:
    endpoint, store = _claimed(since=skew)
    auth = RefreshAuth(endpoint, store, refresh_timeout=10.0)
    async with anyio.create_task_group() as group:
        group.start_soon(auth.token)
        await anyio.sleep(14.9)
        assert endpoint.asked == []
    assert endpoint.asked == ["SECRET-r0"]


async def test_a_claim_more_than_a_day_old_needs_no_watching() -> None:
    endpoint, store = _claimed(since=86_401)
    before = anyio.current_time()
    await RefreshAuth(endpoint, store).token()
    assert anyio.current_time() == before


async def test_nothing_is_in_doubt_where_a_claim_is_taken_over_under_which_nothing_was_spent() -> (
    None
):
    """The source starts from nothing, and may be asked again."""

    class Starts:
        origins = ("https://api.test",)

        async def obtain(self, held: Token | None, /) -> Token:
            return Token("SECRET-o1")

    _, store = _claimed(since=86_401)
    assert (await RefreshAuth(Starts(), store).token()).access_token == "SECRET-o1"
    assert [one.uncertain for one in store.written] == [None, None]


async def test_who_loses_every_claim_looks_again_in_peace_and_gives_up() -> None:
    """A store that always says that somebody else was faster, and shows nobody's claim."""

    class Loses(Store):
        async def replace(self, old: str | None, new: str) -> bool:
            self.tries += 1
            assert self.tries < 2000
            return False

    endpoint = Endpoint(clock=loop_wall)
    store = Loses(endpoint.text(expires_in=-1))
    before = anyio.current_time()
    with pytest.raises(RefreshUnavailable) as caught:
        await RefreshAuth(endpoint, store).token()
    assert (caught.value.outcome, endpoint.asked) == ("not_sent", [])
    assert store.tries <= 8 * (anyio.current_time() - before)


async def test_a_claim_says_for_how_long_its_owner_may_go_on() -> None:
    endpoint = Endpoint(clock=loop_wall)
    store = Store(endpoint.text(expires_in=-1))
    await RefreshAuth(endpoint, store, refresh_timeout=7.5).token()
    claim = store.written[0].redeeming
    assert claim is not None
    assert (claim.patience, claim.held) == (7.5, None)
    assert claim.since == pytest.approx(loop_wall())


@pytest.mark.parametrize(
    "grace, patience",
    [(0.0, 20.0), (60.0, 20.0), ("until_used", 20.0), (40.0, 20.0), (30.0, 15.0), (1.0, 5.0)],
)
async def test_a_claim_is_short_where_the_provider_forgives_a_second_use_for_a_short_time(
    grace: Any, patience: float
) -> None:
    """Else who takes it over comes too late."""
    endpoint = Endpoint(clock=loop_wall)
    endpoint.reuse_grace = grace
    store = Store(endpoint.text(expires_in=-1))
    await RefreshAuth(endpoint, store).token()
    claim = store.written[0].redeeming
    assert claim is not None
    assert claim.patience == patience


@pytest.mark.parametrize("grace", [8.0, 10.0, 20.0, 30.0, 60.0])
async def test_who_takes_over_after_a_crash_asks_within_the_grace(grace: float) -> None:
    dead, heir = Endpoint(clock=loop_wall), Endpoint(clock=loop_wall)
    dead.reuse_grace = heir.reuse_grace = grace
    left = Store(dead.text(expires_in=-1))
    await RefreshAuth(dead, left).token()
    spent_at = anyio.current_time()
    # What a process leaves that dies before it saves.
    await RefreshAuth(heir, Store(left.written[0].text)).token()
    assert dead.asked == heir.asked == ["SECRET-r0"]
    assert anyio.current_time() - spent_at < grace


async def test_an_answer_is_waited_for_as_long_as_the_claim_says() -> None:
    class Silent(Endpoint):
        async def refresh(self, token: Token, /) -> Token:
            self.asked.append(token.refresh_token)
            await anyio.sleep_forever()
            raise AssertionError

    endpoint = Silent(clock=loop_wall)
    endpoint.reuse_grace = 30.0
    began = anyio.current_time()
    with pytest.raises(RefreshUnavailable, match=r"within 15 s \(less than refresh_timeout, "):
        await RefreshAuth(endpoint, Store(endpoint.text(expires_in=-1))).token()
    assert anyio.current_time() - began == pytest.approx(15.0, abs=1.0)


async def test_a_claim_that_changes_hands_is_watched_anew() -> None:
    endpoint, store = _claimed()
    auth = RefreshAuth(endpoint, store, refresh_timeout=10.0)
    async with anyio.create_task_group() as group:

        async def call() -> None:
            with pytest.raises(RefreshUnavailable, match="no new token for Fake after 20 s"):
                await auth.token()

        group.start_soon(call)
        await anyio.sleep(14)
        assert store.text is not None
        store.text = store.text.replace('"n1"', '"n2"')
        await anyio.sleep(14.9)
        assert endpoint.asked == []
        # The flight has gone on without its caller.
        assert (await auth.token()).access_token == "SECRET-a1"
    assert endpoint.asked == ["SECRET-r0"]


async def test_whoever_waits_for_anothers_claim_adopts_its_result() -> None:
    endpoint, store = _claimed()
    auth = RefreshAuth(endpoint, store)
    async with anyio.create_task_group() as group:
        group.start_soon(auth.token)
        await anyio.sleep(5)
        endpoint.issued = 9
        store.text = endpoint.text(expires_in=3600, generation=5)
    assert (await auth.token()).access_token == "SECRET-a9"
    assert (endpoint.asked, store.tries) == ([], 0)


FAILED: dict[str, Any] = {
    "message": "The server is out of order.",
    "outcome": "unknown",
    "transient": True,
    "failures": 1,
    "nonce": "p1",
    "pause": 0.5,
}


@pytest.mark.parametrize(
    "failed, words, outcome",
    [([], "another process tried", "not_sent"), ([FAILED], "out of order", "unknown")],
    ids=["without a note", "with a note"],
)
async def test_whoever_waited_for_a_refresh_that_failed_late_spends_nothing_and_hears_of_it(
    failed: list[dict[str, Any]], words: str, outcome: str
) -> None:
    endpoint, store = _claimed()
    auth = RefreshAuth(endpoint, store, refresh_timeout=10.0)
    notes = [{**one, "until": loop_wall() + 9.5} for one in failed]
    async with anyio.create_task_group() as group:

        async def call() -> None:
            with pytest.raises(RefreshUnavailable, match=words) as caught:
                await auth.token()
            assert caught.value.outcome == outcome

        group.start_soon(call)
        await anyio.sleep(9)
        store.text = endpoint.text(expires_in=-1, generation=4, failed=notes)
    assert endpoint.asked == []


class Freezing(Store):
    """A store on a machine that sleeps ten seconds after each write of a claim, up to `most` seconds in all.

    Only the wall clock goes on meanwhile, as in a process that was stopped.
    """

    def __init__(self, text: str, monkeypatch: pytest.MonkeyPatch, *, most: float) -> None:
        super().__init__(text)
        self.slept = 0.0
        self.most = most
        monkeypatch.setattr(Host, "wall", lambda _: loop_wall() + self.slept)

    async def replace(self, old: str | None, new: str) -> bool:
        won = await super().replace(old, new)
        if claims(parse(new)) and self.slept < self.most:
            self.slept += 10
        return won


async def test_a_claimant_that_was_frozen_sends_nothing_under_the_old_claim_and_begins_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint = Endpoint(clock=loop_wall)
    store = Freezing(endpoint.text(expires_in=-1), monkeypatch, most=20)
    auth = RefreshAuth(endpoint, store, refresh_timeout=10.0)
    assert (await auth.token()).access_token == "SECRET-a1"
    # Two claims without a request, each released; then the one that was used.
    assert [record.redeeming is not None for record in store.written] == [True, False] * 3
    assert len({record.redeeming.nonce for record in store.written if record.redeeming}) == 3
    assert [record.uncertain for record in store.written] == [None] * 6
    assert endpoint.asked == ["SECRET-r0"]


async def test_a_claimant_that_is_always_held_up_says_so_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint = Endpoint(clock=loop_wall)
    store = Freezing(endpoint.text(expires_in=-1), monkeypatch, most=math.inf)
    with pytest.raises(RefreshUnavailable, match="did not send") as caught:
        await RefreshAuth(endpoint, store, refresh_timeout=10.0).token()
    assert (caught.value.outcome, endpoint.asked) == ("not_sent", [])
    assert store.record.redeeming is None


async def test_a_claimant_that_lost_its_claim_replaces_nothing_and_adopts() -> None:
    endpoint = Endpoint(clock=loop_wall)
    store = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store)
    async with refreshing(auth, endpoint):
        endpoint.issued = 9
        theirs = store.text = endpoint.text(expires_in=3600, generation=1)
    assert (await auth.token()).access_token == "SECRET-a9"
    assert store.text == theirs


async def test_a_result_that_meets_anothers_claim_is_served_at_once_and_saved_after_it() -> None:
    endpoint = Endpoint(clock=loop_wall)
    store = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store, refresh_timeout=10.0)
    async with refreshing(auth, endpoint):
        assert store.text is not None
        mine = store.record.redeeming
        assert mine is not None
        theirs = store.text = store.text.replace(mine.nonce, "theirs")
    assert (await auth.token()).access_token == "SECRET-a1"
    assert store.text == theirs
    await anyio.sleep(14)
    assert store.text == theirs
    await anyio.sleep(3)
    assert store.record.token == await auth.token()
    assert (store.record.generation, endpoint.asked) == (1, ["SECRET-r0"])


async def test_a_claim_that_somebody_else_wrote_into_is_released_all_the_same() -> None:
    endpoint = Endpoint(clock=loop_wall)
    store = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store)
    async with refreshing(auth, endpoint):
        assert store.text is not None
        store.text += "  "
    assert store.record.token == await auth.token()
    assert (store.record.redeeming, store.record.generation) == (None, 1)


async def test_a_login_of_a_tool_that_keeps_the_notes_is_not_replaced_by_a_result() -> None:
    """The claim still stands then, beside another token than the one that it is for."""
    endpoint = Endpoint(clock=loop_wall)
    store = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store)
    async with refreshing(auth, endpoint):
        fields = json.loads(store.text or "")
        fields |= {"access_token": "SECRET-login", "refresh_token": "SECRET-r9"}
        store.text = json.dumps({**fields, "expires_at": loop_wall() + 3600})
    assert store.record.token is not None
    assert store.record.token.refresh_token == "SECRET-r9"
    await auth.aclose()


async def test_a_refusal_that_meets_anothers_claim_leaves_it_be_and_waits_for_its_result() -> None:
    store = Store(Endpoint(clock=loop_wall).text(expires_in=-1))
    stolen: list[str] = []

    class Stolen(Endpoint):
        async def refresh(self, token: Token, /) -> Token:
            mine = store.record.redeeming
            assert mine is not None
            assert store.text is not None
            store.text = store.text.replace(mine.nonce, "theirs")
            stolen.append(store.text)
            raise ReauthorizationRequired("spent before", error="invalid_grant")

    endpoint = Stolen(clock=loop_wall)
    auth = RefreshAuth(endpoint, store, refresh_timeout=10.0)
    async with anyio.create_task_group() as group:
        group.start_soon(auth.token)
        await anyio.sleep(5)
        assert [store.text] == stolen
        endpoint.issued = 7
        store.text = endpoint.text(expires_in=3600, generation=1)
    assert (await auth.token()).access_token == "SECRET-a7"
    assert len(stolen) == 1


async def test_a_claim_looks_through_no_claims_that_hold_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten thousand tenants that expire at once claim at once."""
    slots = [Slot(MemoryStore(), Host(), refresh_timeout=10.0) for _ in range(50)]
    claims = [one.claim(None, 10.0) for one in slots]
    looked: list[object] = []
    monkeypatch.setattr(slot, "is_closed", looked.append)

    class Standing(dict[str, Any]):
        def __iter__(self) -> Any:
            looked.append(self)
            return super().__iter__()

    monkeypatch.setattr(slot, "_standing", Standing(slot._standing))
    one_more = slots[0].claim(None, 10.0)
    assert looked == []
    for of, claim in zip([*slots, slots[0]], [*claims, one_more], strict=True):
        of.release(claim)
