"""Rules 7 and 8: when nobody is asked, and when somebody is asked again."""

from __future__ import annotations

import logging
from itertools import pairwise

import anyio
import httpx
import pytest

from httpx_refresh import ReauthorizationRequired, RefreshAuth, RefreshUnavailable, Token
from httpx_refresh.testing import Gate
from tests.fakes import Api, Endpoint, Store, loop_wall, use_loop_time
from tests.virtual_time import virtual_time

pytestmark = [pytest.mark.anyio, virtual_time]


@pytest.fixture(autouse=True)
def _loop_time(monkeypatch: pytest.MonkeyPatch) -> None:
    use_loop_time(monkeypatch)


def expired() -> tuple[Endpoint, Store, RefreshAuth]:
    endpoint = Endpoint(clock=loop_wall)
    store = Store(endpoint.text(expires_in=-1))
    return endpoint, store, RefreshAuth(endpoint, store)


async def attempt(auth: RefreshAuth) -> str:
    """Name what comes of asking for a token."""
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
    # What ends a pause is the next look at the store, up to a second later.
    assert 0.5 <= pauses[0] <= 2.2
    assert 1.0 <= pauses[1] <= 3.2
    assert all(15 <= pause <= 31.2 for pause in pauses[5:])
    endpoint.always = None
    await anyio.sleep(32)
    assert await attempt(auth) == "SECRET-a1"
    endpoint.always = RefreshUnavailable("no", outcome="refused")
    with pytest.raises(RefreshUnavailable):
        await auth.refresh()
    # The good token is used meanwhile.
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


async def test_a_store_that_is_back_is_seen_at_once() -> None:
    _, store, auth = expired()
    store.fails = lambda _: True
    with pytest.raises(Exception, match="could not be written"):
        await auth.token()
    store.fails = lambda _: False
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


# -- rule 8: an API that refuses every token -------------------------------------------------------


async def test_a_fresh_token_that_is_refused_is_not_refreshed_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    endpoint, _, auth = expired()
    api = Api(lambda _: False)
    async with api.client(auth) as client:
        for _ in range(50):
            assert (await client.get("/")).status_code == 401
            await anyio.sleep(1)
    assert len(endpoint.asked) == 1
    warnings = [one for one in caplog.messages if "had just come from the token endpoint" in one]
    assert len(warnings) == 1


async def test_the_pause_grows_while_one_fresh_token_after_the_other_is_refused() -> None:
    endpoint = Endpoint(clock=loop_wall, lifetime=None)
    auth = RefreshAuth(endpoint, Store(endpoint.text()))
    api = Api(lambda _: False)
    asked_at: list[float] = []
    async with api.client(auth) as client:
        while anyio.current_time() < 20_000:
            before = len(endpoint.asked)
            assert (await client.get("/")).status_code == 401
            asked_at += [anyio.current_time()] * (len(endpoint.asked) - before)
            await anyio.sleep(5)
    pauses = [later - earlier for earlier, later in pairwise(asked_at)]
    assert [round(pause, -1) for pause in pauses[:6]] == [60, 120, 240, 480, 960, 1920]
    assert all(3595 <= pause <= 3610 for pause in pauses[6:])
    assert len(pauses) >= 8


async def test_once_the_api_accepts_a_token_all_is_forgotten() -> None:
    endpoint = Endpoint(clock=loop_wall, lifetime=None)
    auth = RefreshAuth(endpoint, Store(endpoint.text()))
    accepted: set[str] = set()
    api = Api(accepted.__contains__)
    async with api.client(auth) as client:
        for _ in range(100):
            await client.get("/")
            await anyio.sleep(5)
        issued = endpoint.issued
        assert issued == 4  # At 0, 60, 180 and 420 s.
        accepted.add(f"SECRET-a{issued}")
        assert (await client.get("/")).status_code == 200
        accepted.clear()
        assert (await client.get("/")).status_code == 401
        assert endpoint.issued == issued + 1
        await anyio.sleep(61)
        await client.get("/")
        assert endpoint.issued == issued + 2


async def test_a_token_that_was_accepted_is_refreshed_at_its_first_refusal() -> None:
    endpoint = Endpoint(clock=loop_wall, lifetime=None)
    auth = RefreshAuth(endpoint, Store(endpoint.text()))
    refused: set[str] = {"SECRET-a0"}
    api = Api(lambda token: token not in refused)
    async with api.client(auth) as client:
        for number in range(1, 6):
            assert (await client.get("/")).status_code == 200
            refused.add(f"SECRET-a{number}")
    assert len(endpoint.asked) == 5


async def test_a_fresh_token_that_is_refused_heals_within_a_second_of_a_login_elsewhere() -> None:
    endpoint, store, auth = expired()
    api = Api(lambda token: token == "SECRET-login")
    async with api.client(auth) as client:
        assert (await client.get("/")).status_code == 401
        store.text = '{"access_token": "SECRET-login", "refresh_token": "SECRET-r9"}'
        await anyio.sleep(1)
        assert (await client.get("/")).status_code == 200
    assert len(endpoint.asked) == 1


async def test_refused_fresh_tokens_cost_one_look_a_second_however_many_ask() -> None:
    _, store, auth = expired()
    api = Api(lambda _: False)
    async with api.client(auth) as client:
        await client.get("/")
        loads = store.loads
        for _ in range(100):
            await client.get("/")
            await client.get("/")
            await anyio.sleep(0.1)
    assert 9 <= store.loads - loads <= 13


# -- good tokens that keep dying -------------------------------------------------------------------


async def test_three_good_tokens_refused_long_before_their_time_make_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    endpoint = Endpoint(clock=loop_wall)
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=3600)))
    refused: set[str] = set()
    api = Api(lambda token: token not in refused)
    warned = []
    async with api.client(auth) as client:
        for number in range(6):
            assert (await client.get("/")).status_code == 200
            await anyio.sleep(100)
            refused.add(f"SECRET-a{number}")
            assert (await client.get("/")).status_code == 200
            warned.append(sum("another deployment" in one for one in caplog.messages))
    assert warned == [0, 0, 1, 1, 1, 2]
    assert {one.levelno for one in caplog.records} == {logging.WARNING}


@pytest.mark.parametrize("lifetime", [3600.0, None])
async def test_tokens_refused_near_their_time_or_of_unknown_lifetime_make_none(
    lifetime: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = Endpoint(clock=loop_wall, lifetime=lifetime)
    auth = RefreshAuth(endpoint, Store(endpoint.text()))
    refused: set[str] = set()
    api = Api(lambda token: token not in refused)
    async with api.client(auth) as client:
        for number in range(10):
            assert (await client.get("/")).status_code == 200
            await anyio.sleep(2000)
            refused.add(f"SECRET-a{number}")
            assert (await client.get("/")).status_code == 200
    assert len(endpoint.asked) == 10
    assert not [one for one in caplog.messages if "another deployment" in one]


async def test_an_older_token_that_is_accepted_late_proves_nothing_of_the_fresh_one() -> None:
    endpoint = Endpoint(clock=loop_wall)
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=3600)))
    gate = Gate()

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.headers["Authorization"] != "Bearer SECRET-a0":
            return httpx.Response(401)
        await gate.hold()
        return httpx.Response(200)

    async with httpx.AsyncClient(
        auth=auth, transport=httpx.MockTransport(answer), base_url="https://api.test"
    ) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(client.get, "/")
            await gate.arrived()
            await auth.refresh()
            gate.release()
        assert (await client.get("/")).status_code == 401
    assert endpoint.asked == ["SECRET-r0"]
