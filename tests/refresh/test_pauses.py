"""Rule 7: pauses after failures, and when the endpoint is asked again."""

from __future__ import annotations

import traceback
from itertools import pairwise
from typing import Literal

import anyio
import pytest

from httpx_refresh import (
    ReauthorizationRequired,
    RefreshAuth,
    RefreshUnavailable,
    StoreError,
    Token,
)
from tests.fakes import Endpoint, Store, any_write, loop_wall, no_write
from tests.virtual_time import virtual_time

pytestmark = [pytest.mark.anyio, virtual_time, pytest.mark.usefixtures("loop_time")]


def expired() -> tuple[Endpoint, Store, RefreshAuth]:
    endpoint = Endpoint(clock=loop_wall)
    store = Store(endpoint.text(expires_in=-1))
    return endpoint, store, RefreshAuth(endpoint, store)


async def attempt(auth: RefreshAuth) -> str:
    """Return the result of asking for a token, in a word."""
    try:
        return (await auth.token()).access_token
    except (ReauthorizationRequired, RefreshUnavailable) as error:
        return str(error)


# -- outages ---------------------------------------------------------------------------------------


async def test_forty_callers_in_an_outage_make_a_handful_of_requests_and_fail_alike() -> None:
    endpoint, _, auth = expired()
    endpoint.always = RefreshUnavailable("down", outcome="busy")
    got: list[str] = []

    async def call() -> None:
        got.append(await attempt(auth))

    async with anyio.create_task_group() as group:
        for _ in range(40):
            group.start_soon(call)
    assert got == ["down"] * 40
    assert len(endpoint.asked) <= 10


async def test_after_a_failure_callers_fail_at_once_instead_of_queueing() -> None:
    endpoint, store, auth = expired()
    endpoint.always = RefreshUnavailable("no", outcome="refused")
    await attempt(auth)
    loads, before = store.loads, anyio.current_time()
    assert {await attempt(auth) for _ in range(100)} == {"no"}
    assert (len(endpoint.asked), store.loads, anyio.current_time()) == (1, loads, before)


async def test_each_caller_within_a_pause_gets_an_error_of_its_own_with_no_other_s_frames() -> None:
    endpoint, _, auth = expired()
    endpoint.always = RefreshUnavailable("no", outcome="refused")
    errors: list[RefreshUnavailable] = []
    for _ in range(3):
        with pytest.raises(RefreshUnavailable) as caught:
            await auth.token()
        errors.append(caught.value)
    assert len({id(one) for one in errors}) == 3
    frames = [len(list(traceback.walk_tb(one.__traceback__))) for one in errors]
    assert frames[1] == frames[2]


async def test_the_pause_grows_to_half_a_minute_and_ends_with_a_success() -> None:
    endpoint, _, auth = expired()
    endpoint.always = RefreshUnavailable("no", outcome="refused")
    asked_at: list[float] = []
    while anyio.current_time() < 600:
        before = len(endpoint.asked)
        await attempt(auth)
        asked_at += [anyio.current_time()] * (len(endpoint.asked) - before)
        await anyio.sleep(0.1)
    pauses = [later - earlier for earlier, later in pairwise(asked_at)]
    # The next load of the store ends a pause, up to a second later.
    assert 0.6 <= pauses[0] <= 2.2
    assert 1.2 <= pauses[1] <= 3.2
    assert all(18 <= pause <= 31.2 for pause in pauses[5:])
    endpoint.always = None
    await anyio.sleep(32)
    assert await attempt(auth) == "SECRET-a1"
    endpoint.always = RefreshUnavailable("no", outcome="refused")
    with pytest.raises(RefreshUnavailable):
        await auth.refresh()
    # The valid token is used meanwhile.
    assert await attempt(auth) == "SECRET-a1"


async def test_the_pause_is_as_long_as_the_server_asks_five_minutes_at_most() -> None:
    for asked_for, least, most in ((40, 40, 40), (100_000, 300, 300)):
        endpoint, _, auth = expired()
        endpoint.script.append(
            RefreshUnavailable("no", outcome="refused", retry_after=float(asked_for))
        )
        await attempt(auth)
        await anyio.sleep(least - 0.1)
        assert await attempt(auth) == "no"
        assert len(endpoint.asked) == 1
        await anyio.sleep(most - least + 1.2)
        assert await attempt(auth) == "SECRET-a1"


async def test_within_a_pause_the_store_is_looked_at_once_a_second_and_heals() -> None:
    endpoint, store, auth = expired()
    endpoint.script.append(RefreshUnavailable("no", outcome="refused", retry_after=100))
    await attempt(auth)
    loads = store.loads
    for _ in range(100):
        await anyio.sleep(0.1)
        assert await attempt(auth) == "no"
    assert 9 <= store.loads - loads <= 13
    assert len(endpoint.asked) == 1
    endpoint.issued = 5
    store.text = endpoint.text(expires_in=3600)
    await anyio.sleep(1)
    assert await attempt(auth) == "SECRET-a5"
    assert len(endpoint.asked) == 1


async def test_refresh_asks_also_within_the_pause() -> None:
    endpoint, _, auth = expired()
    endpoint.script.append(RefreshUnavailable("no", outcome="refused", retry_after=100))
    await attempt(auth)
    assert (await auth.refresh()).access_token == "SECRET-a1"


async def test_a_store_that_fails_is_left_in_peace_for_two_seconds_at_most() -> None:
    _, store, auth = expired()
    store.fails = any_write
    tried_at: list[float] = []
    ends = anyio.current_time() + 60
    while anyio.current_time() < ends:
        tries = store.tries
        with pytest.raises(StoreError, match="could not be written"):
            await auth.token()
        tried_at += [anyio.current_time()] * (store.tries - tries)
        await anyio.sleep(0.01)
    pauses = [later - earlier for earlier, later in pairwise(tried_at)]
    assert 0.05 <= pauses[0] <= 0.12
    assert 0.1 <= pauses[1] <= 0.23
    assert all(0.99 <= pause <= 2.05 for pause in pauses[5:])
    store.fails = no_write
    await anyio.sleep(2)
    assert await attempt(auth) == "SECRET-a1"


async def test_a_store_that_fails_once_is_back_after_a_tenth_of_a_second() -> None:
    _, store, auth = expired()
    store.fails = any_write
    with pytest.raises(StoreError):
        await auth.token()
    store.fails = no_write
    await anyio.sleep(0.1)
    assert await attempt(auth) == "SECRET-a1"


async def test_what_was_never_sent_is_one_process_s_own_affair() -> None:
    endpoint, store, auth = expired()
    endpoint.script.append(RefreshUnavailable("no route", outcome="not_sent", retry_after=100))
    assert await attempt(auth) == "no route"
    assert (store.record.failed, store.record.uncertain) == ((), None)
    assert await attempt(auth) == "no route"
    # Another process that shares the store can reach the endpoint.
    assert await attempt(RefreshAuth(endpoint, store)) == "SECRET-a1"
    await anyio.sleep(1)
    assert await attempt(auth) == "SECRET-a1"


async def test_what_the_endpoint_answered_is_the_fleet_s_affair() -> None:
    """Thirty processes, a call each tenth of a second, and an outage of ten seconds."""
    endpoint = Endpoint(clock=loop_wall)
    store = Store(endpoint.text(expires_in=-1))
    endpoint.always = RefreshUnavailable("down", outcome="unknown", transient=True)
    pods = [RefreshAuth(endpoint, store) for _ in range(30)]
    ends = anyio.current_time() + 10

    async def serve(auth: RefreshAuth) -> None:
        while anyio.current_time() < ends:
            assert await attempt(auth) == "down"
            await anyio.sleep(0.1)

    async with anyio.create_task_group() as group:
        for auth in pods:
            group.start_soon(serve, auth)
    assert len(endpoint.asked) <= 15
    endpoint.always = None
    await anyio.sleep(31)
    got = [await attempt(auth) for auth in pods]
    assert got == ["SECRET-a1"] * 30


async def test_those_with_a_stale_secret_do_not_silence_the_one_with_a_good_one() -> None:
    endpoint = Endpoint(clock=loop_wall)
    store = Store(endpoint.text(expires_in=-1))
    asked: list[str] = []

    class Client(Endpoint):
        def __init__(self, fingerprint: str) -> None:
            super().__init__(clock=loop_wall)
            self.client_fingerprint = fingerprint

        async def refresh(self, token: Token, /) -> Token:
            asked.append(self.client_fingerprint)
            if self.client_fingerprint != "good":
                raise RefreshUnavailable("invalid_client", outcome="refused")
            return await endpoint.refresh(token)

    stale = [RefreshAuth(Client("stale"), store) for _ in range(9)]
    assert {await attempt(auth) for auth in stale} == {"invalid_client"}
    assert asked == ["stale"]
    assert await attempt(RefreshAuth(Client("older"), store)) == "invalid_client"
    assert [one.client for one in store.record.failed] == ["older", "stale"]
    assert await attempt(RefreshAuth(Client("good"), store)) == "SECRET-a1"
    assert asked == ["stale", "older", "good"]


@pytest.mark.size
@pytest.mark.parametrize("outcome", ["refused", "not_sent"])
async def test_twelve_hundred_failures_later_callers_are_still_answered_at_once(
    outcome: Literal["refused", "not_sent"],
) -> None:
    endpoint, _, _ = expired()
    # In half a second there is no time to ask twice.
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=-1)), refresh_timeout=0.5)
    endpoint.always = RefreshUnavailable("no", outcome=outcome, retry_after=1)
    for _ in range(1200):
        await attempt(auth)
        await anyio.sleep(31)
    assert len(endpoint.asked) == 1200
    before = anyio.current_time()
    assert await attempt(auth) == "no"
    assert anyio.current_time() == before
    endpoint.always = None
    await anyio.sleep(31)
    assert await attempt(auth) == "SECRET-a1"


# -- dead grants -----------------------------------------------------------------------------------


async def test_a_dead_grant_costs_one_request_and_one_look_a_second_however_many_ask() -> None:
    endpoint, store, auth = expired()
    endpoint.always = ReauthorizationRequired("no", error="invalid_grant")
    await attempt(auth)
    loads = store.loads
    for _ in range(100):
        for _ in range(10):
            assert "refused the refresh token" in await attempt(auth)
        await anyio.sleep(0.1)
    assert 9 <= store.loads - loads <= 13
    assert len(endpoint.asked) == 1


async def test_a_running_service_heals_within_about_a_second_of_a_login_elsewhere() -> None:
    endpoint, store, auth = expired()
    endpoint.script.append(ReauthorizationRequired("no", error="invalid_grant"))
    await attempt(auth)
    await anyio.sleep(3600)
    await attempt(auth)
    endpoint.issued = 5
    store.text = endpoint.text(expires_in=3600)
    await anyio.sleep(1)
    assert await attempt(auth) == "SECRET-a5"


async def test_a_login_in_the_same_process_heals_at_once() -> None:
    endpoint, _, auth = expired()
    endpoint.script.append(ReauthorizationRequired("no", error="invalid_grant"))
    await attempt(auth)
    await auth.set_token(Token("SECRET-login"))
    assert await attempt(auth) == "SECRET-login"
