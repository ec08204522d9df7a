"""Rule 9: before the expiry one flight starts, and nobody waits for it."""

from __future__ import annotations

import logging
import math
from typing import Any

import anyio
import pytest

from httpx_refresh import RefreshAuth, RefreshUnavailable, Token
from httpx_refresh._refresh.refusals import Need
from httpx_refresh.testing import Gate
from tests.fakes import Api, Endpoint, Store, loop_wall
from tests.virtual_time import virtual_time

pytestmark = [pytest.mark.anyio, virtual_time, pytest.mark.usefixtures("loop_time")]


def holding(expires_in: float, *, lifetime: float | None = 3600.0, **options: Any) -> Any:
    endpoint = Endpoint(clock=loop_wall, lifetime=lifetime)
    store = Store(endpoint.text(expires_in=expires_in))
    return endpoint, store, RefreshAuth(endpoint, store, **options)


async def test_inside_the_leeway_nobody_waits_for_a_token_endpoint_that_takes_a_second() -> None:
    endpoint, _, auth = holding(20)
    await auth.token()
    endpoint.gate = Gate()
    before = anyio.current_time()
    for _ in range(1000):
        assert (await auth.token()).access_token == "SECRET-a0"
    assert anyio.current_time() == before
    await endpoint.gate.arrived()
    assert (await auth.token()).access_token == "SECRET-a0"
    await anyio.sleep(1)
    assert (await auth.token()).access_token == "SECRET-a0"
    endpoint.gate.release()
    await auth.aclose()
    assert (await auth.token()).access_token == "SECRET-a1"
    assert endpoint.asked == ["SECRET-r0"]


async def test_a_request_inside_the_leeway_starts_the_flight_too_and_carries_the_old_token() -> (
    None
):
    endpoint, _, auth = holding(20)
    api = Api()
    async with api.client(auth) as client:
        for _ in range(2):
            assert (await client.get("/")).status_code == 200
        await anyio.sleep(1)
        assert (await client.get("/")).status_code == 200
    assert api.seen == ["SECRET-a0", "SECRET-a0", "SECRET-a1"]
    assert endpoint.asked == ["SECRET-r0"]


@pytest.mark.parametrize("ago", [0.0, 0.5, 7200.0])
async def test_a_login_s_token_that_has_expired_by_this_clock_is_used_until_it_is_refused(
    ago: float,
) -> None:
    endpoint, _, auth = holding(3600)
    await auth.set_token(Token("SECRET-login", "SECRET-r9", loop_wall() - ago))
    for _ in range(3):
        assert (await auth.token()).access_token == "SECRET-login"
        await anyio.sleep(1)
    assert endpoint.asked == []


async def test_only_past_the_expiry_do_callers_wait() -> None:
    endpoint, _, auth = holding(20, refresh_timeout=60)
    await auth.token()
    await auth.token()  # The flight starts, and hangs.
    endpoint.gate = Gate()
    await anyio.sleep(19)
    assert (await auth.token()).access_token == "SECRET-a0"
    await anyio.sleep(1)
    async with anyio.create_task_group() as group:
        group.start_soon(auth.token)
        await anyio.sleep(0.5)
        assert auth._session.credential.token.access_token == "SECRET-a0"
        endpoint.gate.release()
    assert (await auth.token()).access_token == "SECRET-a1"
    assert endpoint.asked == ["SECRET-r0"]


@pytest.mark.parametrize(
    "lifetime, before, least, most",
    [
        (3600.0, 60.0, 54, 60),
        (3600.0, 600.0, 540, 600),
        (3600.0, 3600.0, 648, 720),
        (100.0, 60.0, 18, 20),
        (3600.0, 0.0, 0, 0),
    ],
)
async def test_a_refresh_starts_refresh_before_ahead_a_fifth_of_the_lifetime_at_most_with_jitter(
    lifetime: float, before: float, least: float, most: float
) -> None:
    leads = set()
    for _ in range(50):
        _, _, auth = holding(lifetime, lifetime=lifetime, refresh_before=before)
        token = await auth.token()
        leads.add(token.expires_at - auth._session.credential.renew_at)
    assert all(least - 0.001 <= lead <= most + 0.001 for lead in leads)
    assert len(leads) > 25 or before == 0


async def test_a_provider_that_refuses_early_refreshes_is_not_asked_before_it_allows_one() -> None:
    endpoint, store, _ = holding(600, lifetime=600)
    endpoint.refresh_not_before_expiry = 30.0
    auth = RefreshAuth(endpoint, store)
    await auth.token()
    await anyio.sleep(569)
    await auth.token()
    await anyio.sleep(0.5)  # Not `aclose`: a flight would be told to leave its request out.
    assert endpoint.asked == []
    await anyio.sleep(30.5)
    await auth.token()
    assert endpoint.asked == ["SECRET-r0"]


async def test_without_a_known_expiry_only_a_refusal_starts_a_refresh() -> None:
    endpoint = Endpoint(clock=loop_wall, lifetime=None)
    auth = RefreshAuth(endpoint, Store(endpoint.text()))
    for _ in range(10):
        await auth.token()
        await anyio.sleep(10_000)
    assert endpoint.asked == []


async def test_expires_in_without_expires_at_says_nothing() -> None:
    endpoint = Endpoint(clock=loop_wall, lifetime=1.0)
    auth = RefreshAuth(endpoint, Store(endpoint.text()))
    await anyio.sleep(100)
    assert (await auth.token()).access_token == "SECRET-a0"
    assert endpoint.asked == []


async def test_a_token_of_an_endpoint_that_names_no_lifetime_is_not_refreshed_at_once() -> None:
    class Plain(Endpoint):
        async def refresh(self, token: Token, /) -> Token:
            answer = await super().refresh(token)
            return Token(answer.access_token, answer.refresh_token, loop_wall() + 50)

    endpoint = Plain(clock=loop_wall, lifetime=None)
    store = Store(endpoint.text())
    auth, other = RefreshAuth(endpoint, store), RefreshAuth(endpoint, store)
    await auth.refresh()
    for _ in range(39):
        await anyio.sleep(1)
        await auth.token()
        await other.token()
    assert endpoint.asked == ["SECRET-r0"]


async def test_a_refresh_ahead_that_fails_is_logged_and_tried_again_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    endpoint, _, auth = holding(50)
    endpoint.script.append(RefreshUnavailable("down", outcome="refused"))
    before = anyio.current_time()
    while endpoint.issued == 0:
        assert (await auth.token()).access_token == "SECRET-a0"
        await anyio.sleep(0.1)
    assert anyio.current_time() - before < 50
    assert len(endpoint.asked) == 2
    assert [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING] == [
        "Fake: the refresh ahead of expiry failed; the token is still in use: down"
    ]


async def test_a_refresh_ahead_that_fails_is_tried_again_within_half_of_the_time_that_is_left() -> (
    None
):
    endpoint, _, auth = holding(10)
    endpoint.script.append(RefreshUnavailable("down", outcome="refused"))
    before = anyio.current_time()
    while anyio.current_time() - before < 6:
        await auth.token()
        await anyio.sleep(0.1)
    assert (len(endpoint.asked), endpoint.issued) == (2, 1)


@pytest.mark.parametrize(
    "expires_in, least, most", [(500, 10.0, 20.0), (30, 7.5, 15.0), (0.1, 0.1, 0.2)]
)
async def test_flights_ahead_follow_at_half_of_what_is_left_refresh_timeout_at_most_with_jitter(
    expires_in: float, least: float, most: float
) -> None:
    _, _, auth = holding(expires_in, refresh_before=0)
    await auth.token()
    session, pauses = auth._session, set()
    for _ in range(50):
        session._look_ahead_later()
        pauses.add(session._ahead_at - anyio.current_time())
    assert all(least - 1e-6 <= pause <= most + 1e-6 for pause in pauses)
    assert len(pauses) > 25


async def test_a_look_because_of_a_refusal_postpones_no_refresh_ahead() -> None:
    """It brings no token. There is one each second where an API refuses a part of the requests."""
    endpoint, _, auth = holding(100)
    held = await auth.token()
    await auth._session._wait(held, Need.LOOK)
    await anyio.sleep(60)
    await auth.token()  # The flight starts.
    assert auth._session._ahead_at == -math.inf
    await anyio.sleep(1)
    assert endpoint.asked == ["SECRET-r0"]


async def test_a_refresh_ahead_asks_once_where_what_was_sent_may_be_spent() -> None:
    endpoint, store, auth = holding(50)
    endpoint.always = RefreshUnavailable("503", outcome="unknown", transient=True)
    await auth.token()
    await auth.token()  # The flight starts.
    await anyio.sleep(5)
    assert endpoint.asked == ["SECRET-r0"]
    assert store.record.uncertain is not None


async def test_in_an_outage_a_good_token_is_used_to_its_end_and_the_endpoint_left_in_peace() -> (
    None
):
    endpoint, _, auth = holding(60)
    endpoint.always = RefreshUnavailable("down", outcome="refused")
    before = anyio.current_time()
    while anyio.current_time() - before < 59:
        assert (await auth.token()).access_token == "SECRET-a0"
        await anyio.sleep(0.05)
    assert 2 <= len(endpoint.asked) <= 12
    await anyio.sleep(1)
    with pytest.raises(RefreshUnavailable):
        await auth.token()


async def test_a_flight_ahead_that_finds_another_s_claim_leaves_it_be() -> None:
    endpoint, store, auth = holding(20)
    claim = {"by": "elsewhere:1", "nonce": "n", "since": loop_wall()}
    store.text = endpoint.text(expires_in=20, redeeming=claim)
    await auth.token()
    await auth.token()
    await auth.aclose()
    assert (store.loads, store.tries, endpoint.asked) == (2, 0, [])


async def test_a_flight_ahead_that_brought_nothing_is_not_followed_by_one_for_each_request() -> (
    None
):
    endpoint = Endpoint(clock=loop_wall)
    claim = {"by": "elsewhere:1", "nonce": "n1", "since": loop_wall()}
    store = Store(endpoint.text(expires_in=50, redeeming=claim))
    auth = RefreshAuth(endpoint, store)
    for _ in range(20):
        await auth.token()
        await anyio.sleep(0.01)
    assert store.loads <= 3  # The first load, and the flight's.
    assert endpoint.asked == []


async def test_whoever_comes_past_the_expiry_makes_such_a_flight_wait_for_the_claim() -> None:
    endpoint, store, auth = holding(20)
    claim = {"by": "elsewhere:1", "nonce": "n", "since": loop_wall()}
    store.text = endpoint.text(expires_in=20, redeeming=claim)
    await auth.token()
    await anyio.sleep(20)
    async with anyio.create_task_group() as group:
        group.start_soon(auth.token)
        await anyio.sleep(1)
        endpoint.issued = 3
        store.text = endpoint.text(expires_in=3600, generation=1)
    assert (await auth.token()).access_token == "SECRET-a3"
    assert endpoint.asked == []


async def test_a_401_that_meets_a_flight_ahead_shares_it_and_waits_for_the_claim_in_it() -> None:
    endpoint, store, auth = holding(20)
    await auth.token()
    claim = {"by": "elsewhere:1", "nonce": "n", "since": loop_wall()}
    store.text = endpoint.text(expires_in=20, redeeming=claim)
    loads = store.loads
    await auth.token()  # The flight starts.
    api = Api("SECRET-a0".__ne__)
    async with api.client(auth) as client, anyio.create_task_group() as group:
        group.start_soon(client.get, "/")
        await anyio.sleep(0.005)  # Before a second look is due.
        assert store.loads - loads == 1
        endpoint.issued = 3
        store.text = endpoint.text(expires_in=3600, generation=1)
    assert api.seen == ["SECRET-a0", "SECRET-a3"]
    assert (await auth.token()).access_token == "SECRET-a3"
    assert endpoint.asked == []


@pytest.mark.size
async def test_a_thousand_objects_on_one_store_make_one_request_and_do_not_poll_in_chorus() -> None:
    endpoint, store, _ = holding(50)
    auths = [RefreshAuth(endpoint, store) for _ in range(1000)]
    for auth in auths:
        await auth.token()
    endpoint.gate = Gate()
    loads = store.loads
    before = anyio.current_time()
    while anyio.current_time() - before < 10:  # The endpoint takes ten seconds for its answer.
        for auth in auths:
            assert (await auth.token()).access_token == "SECRET-a0"
        await anyio.sleep(0.5)
    # Each may load once when it starts, and a few times more.
    assert store.loads - loads <= 3000
    assert store.tries <= 1001
    endpoint.gate.release()
    await anyio.sleep(40)
    assert {(await auth.token()).access_token for auth in auths} == {"SECRET-a1"}
    assert endpoint.asked == ["SECRET-r0"]
