"""What others see of a refresh under way, and what they do if it does not end."""

from __future__ import annotations

import anyio
import pytest

from httpx_refresh import RefreshAuth, RefreshUnavailable
from httpx_refresh.testing import Gate
from tests.fakes import Endpoint, Store, claims, loop_wall, use_loop_time
from tests.virtual_time import virtual_time


@pytest.fixture(autouse=True)
def _loop_time(monkeypatch: pytest.MonkeyPatch) -> None:
    use_loop_time(monkeypatch)


def _claimed(since: float = 0.0) -> tuple[Endpoint, Store]:
    endpoint = Endpoint(clock=loop_wall)
    claim = {"by": "elsewhere:1", "nonce": "n1", "since": loop_wall() - since}
    return endpoint, Store(endpoint.text(expires_in=-1, generation=4, redeeming=claim))


@pytest.mark.anyio
@virtual_time
async def test_a_claim_is_taken_over_after_one_and_a_half_timeouts_and_not_before() -> None:
    endpoint, store = _claimed()
    auth = RefreshAuth(endpoint, store, refresh_timeout=10.0)
    before = anyio.current_time()
    token = await auth.token()
    assert 15.0 <= anyio.current_time() - before < 18.0
    assert (token.access_token, endpoint.asked) == ("SECRET-a1", ["SECRET-r0"])
    # Nobody knows how far its owner came.
    uncertain = store.written[0].uncertain
    assert uncertain is not None
    assert uncertain.nonce == "n1"
    assert store.record.generation == 5


@pytest.mark.anyio
@virtual_time
async def test_a_claim_more_than_five_minutes_old_needs_no_watching() -> None:
    endpoint, store = _claimed(since=301)
    before = anyio.current_time()
    await RefreshAuth(endpoint, store).token()
    assert anyio.current_time() == before


@pytest.mark.anyio
@virtual_time
async def test_a_claim_that_changes_hands_is_watched_anew() -> None:
    endpoint, store = _claimed()
    auth = RefreshAuth(endpoint, store, refresh_timeout=10.0)
    async with anyio.create_task_group() as group:
        group.start_soon(auth.token)
        await anyio.sleep(14)
        assert store.text is not None
        store.text = store.text.replace('"n1"', '"n2"')
        await anyio.sleep(14)
        assert endpoint.asked == []
    assert endpoint.asked == ["SECRET-r0"]


@pytest.mark.anyio
@virtual_time
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


@pytest.mark.anyio
@virtual_time
async def test_whoever_waited_for_a_refresh_that_failed_late_spends_nothing_any_more() -> None:
    endpoint, store = _claimed()
    auth = RefreshAuth(endpoint, store, refresh_timeout=10.0)
    async with anyio.create_task_group() as group:

        async def call() -> None:
            with pytest.raises(RefreshUnavailable, match="another process tried") as caught:
                await auth.token()
            assert caught.value.outcome == "not_sent"

        group.start_soon(call)
        await anyio.sleep(9)
        store.text = endpoint.text(expires_in=-1, generation=4)
    assert endpoint.asked == []


@pytest.mark.anyio
@virtual_time
async def test_a_claimant_that_was_held_up_sends_nothing_after_its_time() -> None:
    endpoint = Endpoint(clock=loop_wall)
    store = Store(endpoint.text(expires_in=-1))
    store.holds = claims
    auth = RefreshAuth(endpoint, store, refresh_timeout=10.0)
    async with anyio.create_task_group() as group:

        async def call() -> None:
            with pytest.raises(RefreshUnavailable, match="held up") as caught:
                await auth.token()
            assert caught.value.outcome == "not_sent"

        group.start_soon(call)
        await store.gate.arrived()
        await anyio.sleep(10)
        store.gate.release()
    assert endpoint.asked == []
    assert store.text == endpoint.text(expires_in=-11)


@pytest.mark.anyio
@virtual_time
async def test_a_claimant_that_lost_its_claim_replaces_nothing_and_adopts() -> None:
    endpoint = Endpoint(clock=loop_wall)
    endpoint.gate = Gate()
    store = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store)
    async with anyio.create_task_group() as group:
        group.start_soon(auth.token)
        await endpoint.gate.arrived()
        endpoint.issued = 9
        theirs = store.text = endpoint.text(expires_in=3600, generation=1)
        endpoint.gate.release()
    assert (await auth.token()).access_token == "SECRET-a9"
    assert store.text == theirs


@pytest.mark.anyio
@virtual_time
async def test_a_result_waits_for_anothers_claim_on_the_spent_token_and_is_not_lost() -> None:
    endpoint = Endpoint(clock=loop_wall)
    endpoint.gate = Gate()
    store = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store, refresh_timeout=10.0)
    async with anyio.create_task_group() as group:
        group.start_soon(auth.token)
        await endpoint.gate.arrived()
        assert store.text is not None
        mine = store.record.redeeming
        assert mine is not None
        store.text = store.text.replace(mine.nonce, "theirs")
        endpoint.gate.release()
        await anyio.sleep(14)
        assert auth._session.credential is None
    assert store.record.token == await auth.token()
    assert (store.record.generation, endpoint.asked) == (1, ["SECRET-r0"])
