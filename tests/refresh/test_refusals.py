"""Rule 8: when a 401 is worth a refresh."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import anyio
import httpx
import pytest

from httpx_refresh import (
    ReauthorizationRequired,
    RefreshAuth,
    RefreshUnavailable,
    Token,
)
from httpx_refresh._refresh.record import (
    AskedClaims,
    Claim,
    Pause,
    Refusals,
    with_token,
    without_token,
    write,
)
from httpx_refresh._refresh.refusals import (
    MOST_KINDS,
    NOTHING_SAID,
    Doubt,
    Need,
    Verdicts,
    after_acceptance,
    after_claims,
    after_fruit,
    after_futile,
    after_refresh,
    claims_are_futile,
    early_left,
    early_pause,
    held_back,
    kind_of,
    told,
)
from httpx_refresh._refresh.session import Session
from httpx_refresh.testing import Gate
from tests.fakes import Api, Endpoint, Store, loop_wall
from tests.virtual_time import virtual_time

DAY = 86_400.0


in_loop_time = [pytest.mark.anyio, virtual_time, pytest.mark.usefixtures("loop_time")]


def marked(test: Callable[..., object]) -> Callable[..., object]:
    """Run a test in virtual time, including the library's clocks."""
    for mark in in_loop_time:
        test = mark(test)
    return test


class Paths:
    """An API that decides by the path, too; `answers` counts its statuses by path."""

    def __init__(self, accepts: Callable[[str, str], bool]) -> None:
        self.accepts = accepts
        self.seen: list[tuple[str, str]] = []

    def client(self, auth: RefreshAuth) -> httpx.AsyncClient:
        async def answer(request: httpx.Request) -> httpx.Response:
            await anyio.lowlevel.checkpoint()
            token = request.headers["Authorization"].removeprefix("Bearer SECRET-")
            self.seen.append((request.url.path, token))
            return httpx.Response(200 if self.accepts(request.url.path, token) else 401)

        return httpx.AsyncClient(
            auth=auth, transport=httpx.MockTransport(answer), base_url="https://api.test"
        )


def service(lifetime: float | None = 10 * DAY) -> tuple[Endpoint, Store, RefreshAuth]:
    """A token that is valid during the whole test."""
    endpoint = Endpoint(clock=loop_wall, lifetime=lifetime)
    store = Store(endpoint.text(expires_in=lifetime))
    return endpoint, store, RefreshAuth(endpoint, store)


# -- a part of the API that is forbidden -----------------------------------------------------------


@marked
async def test_a_forbidden_endpoint_costs_three_token_requests_in_a_day_and_its_neighbours_nothing() -> (
    None
):
    endpoint, _, auth = service()
    api = Paths(lambda path, _: path != "/forbidden")
    statuses = set()
    async with api.client(auth) as client:
        for number in range(300):
            statuses.add((await client.get(f"/items/{number}")).status_code)
            assert (await client.get("/forbidden")).status_code == 401
            await anyio.sleep(DAY / 300)
    assert statuses == {200}
    assert 1 <= len(endpoint.asked) <= 3


@marked
async def test_that_a_token_is_refused_costs_the_store_as_much_for_fifty_as_for_one() -> None:
    looks = []
    for callers in (1, 50):
        endpoint, store, auth = service()
        api = Paths(lambda *_: False)
        async with api.client(auth) as client:
            async with anyio.create_task_group() as group:
                for _ in range(callers):
                    group.start_soon(client.get, "/refused")
            await anyio.sleep(1)
            await auth.aclose()
        assert len(endpoint.asked) == 1
        assert store.record.refusals is not None
        assert store.record.refusals.futile == 1
        looks.append((store.loads, store.tries))
    assert looks[0] == looks[1]


@marked
async def test_where_a_refresh_ends_the_earlier_token_a_forbidden_endpoint_hurts_nobody() -> None:
    endpoint, _, auth = service()
    api = Paths(lambda path, token: path != "/forbidden" and token == f"a{endpoint.issued}")
    statuses: list[int] = []
    async with api.client(auth) as client:

        async def serve(path: str) -> None:
            for _ in range(100):
                status = (await client.get(path)).status_code
                if path != "/forbidden":
                    statuses.append(status)
                await anyio.sleep(1)

        async with anyio.create_task_group() as group:
            for path in ("/a", "/b", "/c", "/forbidden", "/forbidden"):
                group.start_soon(serve, path)
        assert set(statuses) == {200}
        assert len(endpoint.asked) <= 3
        # A real early end is seen at once.
        asked = len(endpoint.asked)
        old = api.accepts
        api.accepts = lambda path, token: token != f"a{asked}" and old(path, token)
        assert (await client.get("/a")).status_code == 200
    assert len(endpoint.asked) == asked + 1


# -- an API that refuses every request -------------------------------------------------------------


@marked
@pytest.mark.parametrize("pods", [1, 2, 10])
async def test_an_api_that_refuses_everybody_costs_a_fleet_of_any_size_the_same_few(
    pods: int,
) -> None:
    endpoint, store, _ = service()
    api = Paths(lambda *_: False)
    before = anyio.current_time()

    async def serve() -> None:
        async with api.client(RefreshAuth(endpoint, store)) as client:
            while anyio.current_time() - before < 8:
                assert (await client.get("/")).status_code == 401
                await anyio.sleep(0.1)

    async with anyio.create_task_group() as group:
        for _ in range(pods):
            group.start_soon(serve)
    assert 1 <= len(endpoint.asked) <= 4


@marked
async def test_its_pauses_double_from_half_a_minute_to_five_and_an_api_that_is_back_is_used(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "httpx_refresh")
    endpoint, _, auth = service()
    good: set[str] = set()
    api = Paths(lambda _, token: bool(good) and token >= min(good))
    asked_at: list[float] = []
    async with api.client(auth) as client:
        started = anyio.current_time()
        while anyio.current_time() - started < 3600:
            before = len(endpoint.asked)
            assert (await client.get("/")).status_code == 401
            asked_at += [anyio.current_time()] * (len(endpoint.asked) - before)
            await anyio.sleep(5)
        pauses = [later - earlier for earlier, later in pairwise(asked_at)]
        assert all(25 <= pause <= 310 for pause in pauses[2:])
        assert all(pause >= 295 for pause in pauses[7:])
        assert 10 <= len(pauses) <= 20
        warned = [one for one in caplog.records if "had just been refreshed" in one.getMessage()]
        assert [one.levelno for one in warned] == [logging.WARNING]
        # The API is back, but with new tokens only.
        good.add(f"a{endpoint.issued + 1}")
        back = anyio.current_time()
        statuses = [401]
        while statuses[-1] == 401:
            await anyio.sleep(1)
            statuses.append((await client.get("/")).status_code)
        assert anyio.current_time() - back <= 303
        assert "Fake: the API accepts refreshed tokens again" in caplog.messages


@marked
async def test_a_refused_service_heals_within_a_second_or_so_of_a_login_elsewhere() -> None:
    endpoint, store, auth = service()
    api = Paths(lambda _, token: token == "login")
    async with api.client(auth) as client:
        for _ in range(30):
            await client.get("/")
            await anyio.sleep(1)
        asked = len(endpoint.asked)
        store.text = '{"access_token": "SECRET-login", "refresh_token": "SECRET-r9"}'
        await anyio.sleep(1)
        assert (await client.get("/")).status_code == 200
    assert len(endpoint.asked) == asked


@marked
async def test_refusals_that_are_passed_on_cost_one_look_a_second_however_many_there_are() -> None:
    endpoint, store, auth = service()
    api = Paths(lambda *_: False)
    async with api.client(auth) as client:
        await client.get("/")
        await anyio.sleep(6)
        await client.get("/")
        loads, asked = store.loads, len(endpoint.asked)
        for _ in range(100):
            await client.get("/")
            await client.get("/")
            await anyio.sleep(0.1)
    assert 8 <= store.loads - loads <= 14
    assert len(endpoint.asked) == asked


# -- tokens that end early -------------------------------------------------------------------------


@marked
async def test_a_token_that_was_accepted_is_refreshed_at_its_first_refusal() -> None:
    endpoint, _, auth = service(lifetime=None)
    refused: set[str] = {"a0"}
    api = Paths(lambda _, token: token not in refused)
    async with api.client(auth) as client:
        for number in range(1, 6):
            assert (await client.get("/")).status_code == 200
            await anyio.sleep(2000)
            refused.add(f"a{number}")
    assert len(endpoint.asked) == 5


@marked
async def test_three_good_tokens_that_end_early_in_a_row_are_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    endpoint, _, auth = service()
    refused: set[str] = set()
    api = Paths(lambda _, token: token not in refused)
    async with api.client(auth) as client:
        for number in range(3):
            assert (await client.get("/")).status_code == 200
            assert not [one for one in caplog.messages if "another deployment" in one]
            await anyio.sleep(20)
            refused.add(f"a{number}")
        assert (await client.get("/")).status_code == 200
    (warned,) = [one for one in caplog.messages if "another deployment" in one]
    assert warned.startswith("Fake: 3 good tokens in a row")
    assert len(endpoint.asked) == 3


@marked
@pytest.mark.parametrize(
    "share, most", [pytest.param(0.05, 60, marks=pytest.mark.size), (0.5, 120)]
)
async def test_random_refusals_of_a_good_token_cost_a_bounded_number_of_token_requests_an_hour(
    share: float, most: int
) -> None:
    endpoint, _, auth = service()
    chance = random.Random(5)
    api = Paths(lambda *_: chance.random() >= share)
    async with api.client(auth) as client:
        for _ in range(1800):
            await client.get(f"/{chance.choice('abcdef')}")
            await anyio.sleep(2)
    assert 3 <= len(endpoint.asked) <= most


@marked
async def test_a_token_that_the_api_learns_of_late_is_sent_again_and_not_refreshed() -> None:
    endpoint, _, auth = service()
    known_at: dict[str, float] = {}

    def knows(_: str, token: str) -> bool:
        # Each token is known a second after it was first seen; the first is gone.
        return token != "a0" and anyio.current_time() >= known_at.setdefault(
            token, anyio.current_time() + 0.9
        )

    api = Paths(knows)
    async with api.client(auth) as client:
        before = anyio.current_time()
        assert (await client.get("/")).status_code == 200
        assert 0.9 <= anyio.current_time() - before <= 1.3
    assert [token for _, token in api.seen] == ["a0", "a1", "a1"]
    assert endpoint.asked == ["SECRET-r0"]


@pytest.mark.parametrize("age, asked", [(3.0, []), (6.0, ["SECRET-r0"])])
@marked
async def test_so_is_one_that_another_process_has_just_refreshed(
    age: float, asked: list[str]
) -> None:
    endpoint = Endpoint(clock=loop_wall)
    store = Store(endpoint.text(expires_in=3600, issued=loop_wall() - age))
    known_at = anyio.current_time() + 0.9
    api = Paths(lambda *_: anyio.current_time() >= known_at)
    async with api.client(RefreshAuth(endpoint, store)) as client:
        assert (await client.get("/")).status_code == 200
    assert endpoint.asked == asked


@pytest.mark.parametrize("age, sent", [(4.9, ["a1", "a1", "a2"]), (5.1, ["a1", "a2"])])
@marked
async def test_five_seconds_after_its_issue_a_token_is_known_to_the_api(
    age: float, sent: list[str]
) -> None:
    _, _, auth = service()
    api = Paths(lambda _, token: token == "a2")
    async with api.client(auth) as client:
        await auth.refresh()
        await anyio.sleep(age)
        assert (await client.get("/")).status_code == 200
    assert [token for _, token in api.seen] == sent


@marked
async def test_a_token_that_came_while_the_same_was_to_be_sent_again_is_sent_in_its_place() -> None:
    _, _, auth = service()
    api = Paths(lambda _, token: token == "a2")
    async with api.client(auth) as client, anyio.create_task_group() as group:
        await auth.refresh()
        group.start_soon(client.get, "/")
        await anyio.sleep(0.5)
        await auth.refresh()
    assert [token for _, token in api.seen] == ["a1", "a2"]


@marked
async def test_processes_that_are_refused_at_once_do_not_send_a_new_token_again_all_at_once() -> (
    None
):
    _, _, auth = service()
    await auth.refresh()
    random.seed(5)
    session = auth._session
    assert session.credential is not None
    pauses = [session.second_try(session.credential, lambda: "k") or 0.0 for _ in range(50)]
    assert 0.96 <= min(pauses) < 1.02
    assert 1.14 < max(pauses) <= 1.2


@marked
async def test_a_token_that_one_part_of_the_api_accepts_is_sent_again_to_a_part_that_learns_late() -> (
    None
):
    endpoint, _, auth = service()
    known_at: dict[str, float] = {}

    def knows(path: str, token: str) -> bool:
        known = known_at.setdefault(token, anyio.current_time() + 0.9)
        return path == "/health" or (token != "a0" and anyio.current_time() >= known)

    api = Paths(knows)
    async with api.client(auth) as client:
        await auth.refresh()
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/orders")).status_code == 200
    assert [token for _, token in api.seen] == ["a1", "a1", "a1"]
    assert len(endpoint.asked) == 1


@marked
async def test_a_part_that_accepted_the_token_is_not_asked_again_with_it_but_served_another() -> (
    None
):
    endpoint, _, auth = service()
    ended: set[str] = {"a0"}
    api = Paths(lambda _, token: token not in ended)
    async with api.client(auth) as client:
        assert (await client.get("/")).status_code == 200
        ended.add("a1")
        before = anyio.current_time()
        assert (await client.get("/")).status_code == 200
        assert anyio.current_time() == before
    assert len(endpoint.asked) == 2


@marked
async def test_what_is_forbidden_stays_so_when_an_early_end_shows_that_refreshes_help() -> None:
    endpoint, _, auth = service()
    ended: set[str] = set()
    api = Paths(lambda path, token: path != "/forbidden" and token not in ended)
    async with api.client(auth) as client:
        for _ in range(3):
            for _ in range(20):
                assert (await client.get("/items")).status_code == 200
                assert (await client.get("/forbidden")).status_code == 401
                await anyio.sleep(60)
            ended.add(f"a{endpoint.issued}")
        assert (await client.get("/items")).status_code == 200
    # One for the forbidden part, and one for each end.
    assert len(endpoint.asked) == 1 + 3


@marked
async def test_what_one_pod_had_accepted_in_doubt_spares_the_others_their_probes() -> None:
    endpoint, store, first = service()
    api = Paths(lambda path, _: path != "/forbidden")
    async with api.client(first) as client:
        assert (await client.get("/items")).status_code == 200
        assert (await client.get("/forbidden")).status_code == 401
        assert (await client.get("/items")).status_code == 200
        await anyio.sleep(1)
    asked = len(endpoint.asked)
    for _ in range(8):
        async with api.client(RefreshAuth(endpoint, store)) as client:
            await anyio.sleep(301)  # Longer than any pause.
            assert (await client.get("/forbidden")).status_code == 401
    assert len(endpoint.asked) == asked == 1


@marked
async def test_an_early_end_in_doubt_on_paths_with_ids_refuses_at_most_three() -> None:
    endpoint, _, auth = service()
    ended: set[str] = set()
    api = Paths(lambda path, token: path != "/forbidden" and token not in ended)
    async with api.client(auth) as client:
        for number in range(20):
            await client.get(f"/users/{number}/orders/{number}")
            await client.get("/forbidden")
            await anyio.sleep(10)
        ended.add(f"a{endpoint.issued}")
        statuses = [(await client.get(f"/users/{n}/orders/{n}")).status_code for n in range(600)]
    assert statuses.count(401) <= 3


@marked
async def test_an_older_token_that_is_accepted_late_proves_nothing_of_the_fresh_one() -> None:
    _, _, auth = service()
    gate = Gate()
    seen: list[str] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["Authorization"].removeprefix("Bearer SECRET-"))
        if seen[-1] != "a0":
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
    # It was sent once more, because the API might not know it yet.
    assert seen == ["a0", "a1", "a1", "a2"]


@marked
async def test_a_token_that_was_refused_and_is_not_in_use_any_more_begins_no_doubt(
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, _, auth = service()
    gate, before = Gate(), anyio.current_time()

    async def answer(request: httpx.Request) -> httpx.Response:
        token = request.headers["Authorization"].removeprefix("Bearer SECRET-")
        if token == "a1":
            await gate.hold()
        return httpx.Response(200 if token == "a2" else 401)

    async def get() -> None:
        assert (await client.get("/")).status_code == 200

    async with (
        httpx.AsyncClient(
            auth=auth, transport=httpx.MockTransport(answer), base_url="https://api.test"
        ) as client,
        anyio.create_task_group() as group,
    ):
        group.start_soon(get)
        await gate.arrived()
        await auth.refresh()
        gate.release()
    # Nor is it sent a second time, which would take a second.
    assert anyio.current_time() == before
    assert "had just been refreshed" not in caplog.text


@marked
async def test_a_refused_request_is_sent_again_with_another_token_that_still_holds_and_no_other() -> (
    None
):
    _, _, auth = service(lifetime=10.0)
    await auth.token()
    session = auth._session
    refused = session.credential
    assert refused is not None
    assert session.newer_than(refused) is None
    # The same token as the store tells of it once it is saved.
    assert session.newer_than(replace(refused, generation=7)) is None
    await auth.refresh()
    assert session.newer_than(refused) is session.credential
    await anyio.sleep(11)
    assert session.newer_than(refused) is None


@marked
async def test_a_fruitful_refresh_ends_the_doubt_for_all_processes() -> None:
    endpoint, store, auth = service()
    good: set[str] = set()
    api = Paths(lambda _, token: token in good)
    async with api.client(auth) as client:
        assert (await client.get("/")).status_code == 401
        await anyio.sleep(31)
        good.add("a2")
        assert (await client.get("/")).status_code == 200
        await anyio.sleep(1)
    assert len(endpoint.asked) == 2
    assert store.record.refusals is not None
    assert store.record.refusals[:3] == (2, 0, ())


@marked
async def test_a_verdict_that_cannot_be_noted_is_logged_and_stays_in_memory(
    caplog: pytest.LogCaptureFixture,
) -> None:
    endpoint, store, auth = service()
    store.fails = lambda record: record.refusals is not None and record.refusals.futile > 0
    api = Paths(lambda *_: False)
    async with api.client(auth) as client:
        for _ in range(20):
            assert (await client.get("/")).status_code == 401
            await anyio.sleep(1)
    assert len(endpoint.asked) <= 2
    assert [one for one in caplog.messages if "could not be noted" in one]


@marked
async def test_a_pod_that_adopts_a_token_learns_from_the_store_that_it_is_in_doubt() -> None:
    endpoint, store, auth = service()
    api = Paths(lambda *_: False)
    async with api.client(auth) as client:
        await client.get("/")
        await anyio.sleep(1)
    assert store.record.refusals is not None
    asked = len(endpoint.asked)
    async with api.client(RefreshAuth(endpoint, store)) as client:
        for _ in range(10):
            assert (await client.get("/")).status_code == 401
            await anyio.sleep(1)
    assert len(endpoint.asked) == asked


@pytest.mark.parametrize("there", ["a claim", "a logout", "another token"])
@marked
async def test_a_verdict_is_written_to_no_text_but_that_of_its_token_unclaimed(there: str) -> None:
    """While a claim stands only its owner writes."""
    _, store, auth = service()

    def meanwhile(token: str) -> bool:
        if token == "SECRET-a1" and not texts:
            held = store.record
            store.text = write(
                {
                    "a claim": held._replace(redeeming=Claim("b:1", "n1", loop_wall(), 20.0)),
                    "a logout": without_token(held, since=loop_wall()),
                    "another token": with_token(held, Token("SECRET-b", "SECRET-rb")),
                }[there],
                rev="v9",
            )
            texts.append(store.text)
        return False

    texts: list[str] = []
    async with Api(meanwhile).client(auth) as client:
        assert (await client.get("/")).status_code == 401
        await anyio.sleep(5)
        await auth.aclose()
    assert texts == [store.text]


@marked
async def test_aclose_waits_for_a_verdict_that_is_being_written_also_after_a_refresh() -> None:
    _, store, auth = service()
    store.delays = lambda record: record.refusals is not None and record.refusals.futile > 0
    ended: list[str] = []

    async def close() -> None:
        await auth.aclose()
        ended.append("closed")

    async with Api(lambda _: False).client(auth) as client:
        assert (await client.get("/")).status_code == 401
    await store.gate.arrived()
    await auth.refresh()
    async with anyio.create_task_group() as group:
        group.start_soon(close)
        await anyio.sleep(1)
        assert ended == []
        store.gate.release()
    assert ended == ["closed"]


@marked
async def test_a_look_that_ends_after_a_logout_learns_nothing_and_fails_at_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    endpoint, gate = Endpoint(clock=loop_wall), Gate()

    class Late(Store):
        async def load(self) -> str | None:
            text = await super().load()
            if self.loads == 2:
                await gate.hold()
            return text

    store = Late(endpoint.text(expires_in=3600))
    refusals = Refusals(0, 2, ("a",), 0, Pause("p", 30.0, loop_wall() + 30.0))
    auth = RefreshAuth(endpoint, store)
    errors: list[ReauthorizationRequired] = []

    async def call() -> None:
        async with Api(lambda _: False).client(auth) as client:
            with pytest.raises(ReauthorizationRequired) as caught:
                await client.get("/")
            errors.append(caught.value)

    await auth.token()
    store.text = write(store.record._replace(refusals=refusals), rev="v1")
    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await gate.arrived()
        await auth.forget()
        gate.release()
    assert len(errors) == 1
    assert [one for one in caplog.messages if "which it should not" in one] == []


@pytest.mark.parametrize("told", ["before it is used", "while it is used"])
@pytest.mark.parametrize("futile, asked, status", [(1, 1, 200), (2, 0, 401)])
@marked
async def test_one_futile_refresh_elsewhere_leaves_a_token_the_benefit_of_the_doubt(
    told: str, futile: int, asked: int, status: int
) -> None:
    """What was accepted before the doubt is not known, so the first refusal is an end; after two such refreshes not."""
    endpoint, store, auth = service()
    api = Paths(lambda _, token: token != "a0")
    async with api.client(auth) as client:
        if told == "while it is used":
            await auth.token()
        pause = Pause("p", 30.0, loop_wall() + 30.0)
        refusals = Refusals(0, futile, (kind_of("GET", "https://b", "/"),), 0, pause)
        store.text = write(store.record._replace(refusals=refusals), rev="v1")
        assert (await client.get("/")).status_code == status
    assert len(endpoint.asked) == asked


@pytest.mark.parametrize("timeout, status", [(4.0, 401), (20.0, 200)])
@marked
async def test_a_pause_between_early_ends_is_waited_out_for_half_of_refresh_timeout_at_most(
    timeout: float, status: int
) -> None:
    endpoint, store, _ = service()
    seconds = early_pause(12)
    assert 2.0 < seconds < 4.0
    refusals = Refusals(12, 0, (), 0, Pause("p", seconds, loop_wall() + seconds))
    store.text = write(store.record._replace(refusals=refusals), rev="v1")
    auth = RefreshAuth(endpoint, store, refresh_timeout=timeout)
    async with Api(lambda token: token != "SECRET-a0").client(auth) as client:
        assert (await client.get("/")).status_code == status


@marked
async def test_an_acceptance_that_another_process_has_just_noted_is_not_told_again() -> None:
    _, store, auth = service()
    refusals = Refusals(
        0,
        2,
        (),
        0,
        Pause("p", 30.0, loop_wall() + 30.0),
        Pause("q", 300.0, loop_wall() + 300.0),
        ("other",),
    )
    store.text = write(store.record._replace(refusals=refusals), rev="v1")
    async with Api().client(auth) as client:
        assert (await client.get("/")).status_code == 200
        await auth.aclose()
    assert store.loads == 1


@marked
async def test_a_pause_between_early_ends_that_an_acceptance_finds_is_waited_out_all_the_same() -> (
    None
):
    endpoint, store, auth = service()
    ended: set[str] = set()
    api = Paths(lambda _, token: token not in ended)
    pause = Pause("p", 30.0, loop_wall() + 30.0)
    store.text = write(store.record._replace(refusals=Refusals(0, 1, (), 0, pause)), rev="v1")
    async with api.client(auth) as client:
        await auth.token()  # It is in doubt here; then another process's refresh was fruitful.
        seconds = early_pause(12)
        refusals = Refusals(12, 0, (), 0, Pause("q", seconds, loop_wall() + seconds))
        store.text = write(store.record._replace(refusals=refusals), rev="v2")
        assert (await client.get("/")).status_code == 200
        await auth.aclose()
        ended.add("a0")
        before = anyio.current_time()
        assert (await client.get("/")).status_code == 200
    assert anyio.current_time() - before == pytest.approx(seconds, abs=0.3)
    assert endpoint.asked == ["SECRET-r0"]


@marked
async def test_a_refresh_because_of_a_refusal_that_fails_raises_why() -> None:
    endpoint, _, auth = service()
    endpoint.always = RefreshUnavailable("down", outcome="refused")
    async with Api(lambda _: False).client(auth) as client:
        with pytest.raises(RefreshUnavailable, match="down"):
            await client.get("/")


# -- the decisions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "one, other, alike",
    [
        (("GET", "https://a", "/users/1"), ("GET", "https://a", "/users/22"), True),
        (("GET", "https://a", "/users/1"), ("POST", "https://a", "/users/1"), False),
        (("GET", "https://a", "/users/1"), ("GET", "https://b", "/users/1"), False),
        (("GET", "https://a", "/users"), ("GET", "https://a", "/groups"), False),
        (("GET", "https://a", "/x/" + "k" * 25), ("GET", "https://a", "/x/" + "l" * 30), True),
        (("GET", "https://a", "/x/" + "k" * 24), ("GET", "https://a", "/x/" + "l" * 24), False),
        (("GET", "https://a", "/x/a%20b"), ("GET", "https://a", "/x/c%20d"), True),
        # What is hashed of a path is bounded.
        (("GET", "https://a", "/a" * 256 + "/b"), ("GET", "https://a", "/a" * 256 + "/c"), True),
        (("GET", "https://a", "/a" * 255 + "/b"), ("GET", "https://a", "/a" * 255 + "/c"), False),
    ],
)
def test_requests_are_of_one_kind_but_for_ids_and_numbers(
    one: tuple[str, str, str], other: tuple[str, str, str], alike: bool
) -> None:
    assert (kind_of(*one) == kind_of(*other)) is alike
    assert len(kind_of("GET", "https://a", "/\ud800" * 10_000)) == 12


def test_a_kind_that_was_accepted_and_is_refused_is_an_end_and_all_know_it() -> None:
    doubt = Doubt.of(1)
    doubt.accepted("a", 0.0)
    assert doubt.refused("b", 1.0) == "forbidden"
    assert doubt.refused("a", 2.0) == "ended"
    assert doubt.refused("b", 3.0) == "ended"
    doubt.accepted("c", 4.0)
    assert doubt.refused("b", 5.0) == "forbidden"


def test_three_unknown_kinds_refused_with_no_acceptance_between_are_an_end() -> None:
    doubt = Doubt.of(1, accepted_at=0.0)
    assert [doubt.refused(kind, 1.0) for kind in "abbc"] == [*["forbidden"] * 3, "ended"]
    doubt = Doubt.of(1)
    doubt.accepted("x", 0.0)
    assert [doubt.refused(kind, 1.0) for kind in "ab"] == ["forbidden"] * 2
    doubt.accepted("x", 2.0)
    assert [doubt.refused(kind, 3.0) for kind in "cde"] == [*["forbidden"] * 2, "ended"]


def test_kinds_that_were_refused_before_are_no_unknown_ones() -> None:
    doubt = Doubt.of(1)
    assert [doubt.refused(kind, 0.0) for kind in "abc"] == ["probe"] * 3
    doubt.accepted("x", 1.0)
    assert [doubt.refused(kind, 2.0) for kind in "abcabc"] == ["forbidden"] * 6


def test_where_nothing_is_accepted_at_all_no_refusal_is_an_end() -> None:
    doubt = Doubt.of(1)
    assert [doubt.refused(kind, 0.0) for kind in "abcdefgh"] == ["probe"] * 8


def test_the_benefit_of_the_doubt_is_given_once() -> None:
    doubt = Doubt.of(1, accepted_at=0.0, benefit=True)
    assert doubt.refused("a", 1.0) == "ended"
    doubt.accepted("x", 2.0)
    assert doubt.refused("b", 3.0) == "forbidden"


def test_an_acceptance_shows_for_five_minutes_that_what_is_refused_is_forbidden() -> None:
    doubt = Doubt.of(1)
    doubt.accepted("a", 0.0)
    assert doubt.refused("b", 299.0) == "forbidden"
    assert doubt.refused("b", 300.0) == "probe"


def test_that_a_kind_is_known_to_be_forbidden_is_news() -> None:
    doubt = Doubt.of(1)
    assert doubt.accepted("a", 0.0)
    assert doubt.refused("b", 1.0) == "forbidden"
    assert [doubt.accepted("a", at) for at in (2.0, 3.0)] == [True, False]
    doubt.accepted("b", 4.0)
    assert doubt.forbidden == set()


def test_a_doubt_is_settled_once_all_that_is_refused_is_known_to_be_forbidden() -> None:
    doubt = Doubt.of(1)
    assert doubt.is_settled()
    doubt.refused("b", 0.0)
    assert not doubt.is_settled()
    doubt.accepted("a", 1.0)
    assert doubt.is_settled()


def test_what_is_refused_before_another_kind_is_accepted_is_forbidden() -> None:
    doubt = Doubt.of(1)
    assert doubt.refused("b", 0.0) == "probe"
    doubt.accepted("a", 1.0)
    assert doubt.refused("b", 3600.0) == "forbidden"
    assert doubt.forbidden == {"b"}
    doubt.accepted("b", 3601.0)
    assert doubt.refused("b", 3602.0) == "ended"


def test_a_forbidden_kind_is_worth_a_refresh_once_nothing_was_accepted_for_an_hour() -> None:
    doubt = Doubt.of(1)
    doubt.refused("b", 0.0)
    doubt.accepted("a", 1.0)
    assert [doubt.refused("b", at) for at in (3600.9, 3601.0)] == ["forbidden", "probe"]
    # An acceptance by another process counts from when it was told.
    doubt.accepted_elsewhere(100.0, 3700.0)
    assert [doubt.refused("b", at) for at in (7099.9, 7100.0)] == ["forbidden", "probe"]
    doubt.accepted_elsewhere(0.0, 7200.0)
    assert doubt.refused("b", 7200.0) == "probe"
    # So does the use of a new token.
    verdicts = Verdicts("", True, doubt).of_next(
        2, None, refusals_for=0.0, accepted_for=0.0, now=8000.0
    )
    assert verdicts.doubt is not None
    assert [verdicts.doubt.refused("b", at) for at in (11_599.9, 11_600.0)] == [
        "forbidden",
        "probe",
    ]


def test_who_finds_a_forbidden_kind_accepted_tells_the_others() -> None:
    noted = Refusals(0, 1, (), 7, _PAUSE, forbidden=("b", "c"), accepted=_PAUSE)
    verdicts = Verdicts("", True, Doubt.of(7, noted, good_at=0.0))
    assert verdicts.doubt is not None
    assert verdicts.doubt.refused("b", 1.0) == "forbidden"
    verdicts, _, _ = verdicts.after_acceptance("a", 2.0, after_refusal=False)
    verdicts, _, news = verdicts.after_acceptance("b", 3.0, after_refusal=False)
    assert news
    assert (verdicts.forbidden(), verdicts.allowed()) == (("c",), ("a", "b"))
    told_of = after_acceptance(
        noted,
        299.0,
        verdicts.forbidden(),
        allowed=verdicts.allowed(),
        generation=7,
        now=3.0,
        nonce="n",
    )
    assert told_of is not None
    assert told_of.forbidden == ("c",)
    _, _, news = verdicts.after_acceptance("b", 4.0, after_refusal=False)
    assert not news


@pytest.mark.parametrize("how", ["learnt", "of_next"])
def test_what_the_store_lists_as_forbidden_no_more_was_accepted_elsewhere(how: str) -> None:
    def forbidden_after(note: Refusals) -> set[str]:
        doubt = Doubt(7, {"b": False, "c": False}, set(), here={"b", "c"}, forbidden={"b", "c"})
        verdicts = Verdicts("", True, doubt)
        after = getattr(verdicts, how)(7, note, refusals_for=0.0, accepted_for=290.0, now=10.0)
        assert after.doubt is not None
        return set(after.doubt.forbidden)

    note = Refusals(0, 1, (), 7, _PAUSE, forbidden=("c",), accepted=_PAUSE)
    assert forbidden_after(note) == {"c"}
    # A note that nobody was accepted after, or of another token, or that is full, says nothing of what it leaves out.
    assert forbidden_after(note._replace(accepted=None)) == {"b", "c"}
    assert forbidden_after(note._replace(generation=6)) == {"b", "c"}
    full = note._replace(forbidden=("c", *(f"k{number}" for number in range(15))))
    assert forbidden_after(full) >= {"b", "c"}


def test_a_kind_that_only_the_token_before_was_refused_for_is_not_forbidden_for_good() -> None:
    doubt = Doubt.of(2)
    doubt.kinds["b"] = False
    doubt.accepted("a", 0.0)
    assert doubt.refused("b", 300.0) == "probe"


def test_an_acceptance_that_goes_on_is_told_every_two_and_a_half_minutes_by_one_process() -> None:
    doubt = Doubt.of(1)
    assert [at for at in range(0, 600, 10) if doubt.accepted("a", float(at))] == [0, 150, 300, 450]
    doubt.accepted_elsewhere(290.0, 600.0)  # Another process noted it ten seconds ago.
    assert [at for at in range(600, 800, 10) if doubt.accepted("a", float(at))] == [740]


def test_what_other_processes_are_accepted_with_counts_for_as_long_as_they_say() -> None:
    doubt = Doubt.of(1)
    doubt.accepted_elsewhere(0.0, 1000.0)
    assert doubt.refused("b", 1000.0) == "probe"
    doubt.accepted_elsewhere(100.0, 1000.0)
    assert [doubt.refused("b", at) for at in (1099.0, 1100.0)] == ["forbidden", "probe"]
    # What was accepted here later counts for longer, and was told later.
    assert doubt.accepted("a", 1100.0)
    doubt.accepted_elsewhere(100.0, 1110.0)
    assert not doubt.accepted("a", 1200.0)
    doubt.accepted_elsewhere(100.0, 1210.0)
    assert doubt.refused("c", 1499.0) == "forbidden"


def test_what_others_tell_is_about_one_token() -> None:
    refusals = Refusals(0, 1, ("a",), 7, Pause("p", 30.0, 30.0))
    assert Doubt.of(7, refusals).kinds == {"a": False}
    assert Doubt.of(8, refusals).kinds == {}


def test_an_acceptance_is_noted_again_once_half_of_its_time_is_over() -> None:
    doubtful = Refusals(0, 1, ("a",), 7, Pause("p", 30.0, 30.0))
    note = partial(after_acceptance, generation=7, now=10.0, nonce="n")
    noted = note(doubtful, 0.0, ())
    assert noted == doubtful._replace(accepted=Pause("n", 300.0, 310.0))
    assert note(doubtful, 150.0, ()) == noted
    assert note(doubtful, 150.5, ()) == doubtful
    for other in (None, doubtful._replace(generation=8), doubtful._replace(futile=0)):
        assert note(other, 0.0, ("b",)) == other


def test_what_is_known_to_be_forbidden_is_told_at_once_and_sixteen_kinds_of_it() -> None:
    doubtful = Refusals(0, 1, ("a",), 7, Pause("p", 30.0, 30.0), forbidden=("a", "b"))
    note = partial(after_acceptance, generation=7, now=10.0, nonce="n")
    assert note(doubtful, 299.0, ("b", "a")) == doubtful
    noted = note(doubtful, 299.0, ("b", "c"))
    assert noted is not None
    assert noted.forbidden == ("a", "b", "c")
    noted = note(doubtful, 299.0, tuple(f"k{number}" for number in range(20)))
    assert noted is not None
    assert noted.forbidden == tuple(f"k{number}" for number in range(4, 20))


def test_what_others_know_to_be_forbidden_is_forbidden_here() -> None:
    refusals = Refusals(0, 1, ("a",), 7, Pause("p", 30.0, 30.0), forbidden=("b",))
    doubt = Doubt.of(7, refusals, good_at=0.0)
    assert [doubt.refused(kind, 0.0) for kind in "ab"] == ["probe", "forbidden"]
    # Also where the first unknown kind would be an end.
    doubt = Doubt.of(7, refusals, good_at=0.0, benefit=True)
    assert doubt.refused("b", 0.0) == "forbidden"
    # And what they were refused is forbidden once another kind is accepted here.
    doubt = Doubt.of(7, refusals)
    doubt.accepted("x", 0.0)
    assert doubt.forbidden == {"a", "b"}
    assert Doubt.of(8, refusals).refused("b", 0.0) == "probe"


def test_a_hundred_and_twenty_eight_kinds_are_remembered_and_sixteen_told() -> None:
    doubt = Doubt.of(1)
    for number in range(200):
        doubt.accepted(f"k{number}", 0.0)
    assert list(doubt.kinds) == [f"k{number}" for number in range(72, 200)]
    # The one that was met last is kept longest.
    doubt.accepted("k72", 0.0)
    doubt.accepted("new", 0.0)
    assert list(doubt.kinds)[-3:] == ["k199", "k72", "new"]
    assert next(iter(doubt.kinds)) == "k74"
    for number in range(20):
        doubt.kinds[f"k{100 + number}"] = False
    assert told(doubt.kinds) == tuple(f"k{number}" for number in range(104, 120))


@pytest.mark.parametrize("is_accepted, ended", [(False, False), (True, False), (True, True)])
def test_requests_of_very_many_kinds_take_a_bounded_memory(is_accepted: bool, ended: bool) -> None:
    """Paths may hold what users have written."""
    doubt = Doubt.of(1)
    for number in range(2000):
        doubt.refused(f"k{number}", 0.0)
        if is_accepted:
            doubt.accepted(f"a{number}", 0.0)
        if ended:
            assert doubt.refused(f"a{number}", 0.0) == "ended"
            doubt.refused(f"e{number}", 0.0)
    known = (doubt.kinds, doubt.forbidden, doubt.here, doubt.strangers)
    assert max(map(len, known)) <= MOST_KINDS + 1
    assert doubt.forbidden <= doubt.kinds.keys()


def test_what_two_tokens_are_refused_for_takes_a_bounded_memory() -> None:
    doubt = Doubt.of(1)
    for number in range(2000):
        doubt.refused_again(f"k{number}")
    assert (len(doubt.kinds), len(doubt.here)) == (MOST_KINDS, MOST_KINDS)
    # What others tell of the next token comes beside it, up to the next refusal.
    note = Refusals(0, 1, ("a", "b"), 2, _PAUSE)
    verdicts = Verdicts("", True, doubt)
    after = verdicts.of_next(2, note, refusals_for=0.0, accepted_for=0.0, now=0.0).doubt
    assert after is not None
    assert len(after.kinds) == MOST_KINDS + 2
    after.refused("c", 0.0)
    assert len(after.kinds) == MOST_KINDS


def test_of_a_doubt_what_is_forbidden_is_left_once_a_refresh_was_fruitful() -> None:
    doubt = Doubt.of(7)
    for kind in "bcd":
        doubt.refused(kind, 0.0)
    doubt.accepted("a", 1.0)
    doubt.refused("e", 2.0)
    left = doubt.after_fruit("b")
    assert left == Doubt(
        7,
        {"c": False, "d": False},
        set(),
        tell_at=151.0,
        benefit=True,
        here={"c", "d"},
        forbidden={"c", "d"},
    )
    assert left.after_fruit("a") == left
    left = left.after_fruit("c")
    assert left is not None
    assert left.after_fruit("d") is None


def test_a_token_that_comes_into_use_in_doubt_inherits_what_was_refused_and_nothing_else() -> None:
    before = Doubt.of(1)
    before.refused("b", 1.0)
    before.accepted("a", 2.0)
    before.refused("c", 3.0)
    verdicts = Verdicts("a", False, before, probe_at=5.0)

    def of_next(note: Refusals | None, verdicts: Verdicts = verdicts) -> Verdicts:
        return verdicts.of_next(2, note, refusals_for=30.0, accepted_for=100.0, now=10.0)

    after = of_next(None)
    inherited = Doubt(2, {"b": False, "c": False}, set(), good_at=10.0, forbidden={"b"})
    assert after == Verdicts("", True, inherited, probe_at=5.0)
    # And what other processes tell of this very token.
    note = Refusals(0, 1, ("d",), 2, _PAUSE, forbidden=("e",))
    doubt = of_next(note).doubt
    assert doubt is not None
    assert doubt == Doubt(
        2,
        dict.fromkeys("debc", False),
        set(),
        accepted_at=-190.0,
        good_at=10.0,
        tell_at=-40.0,
        here={"d", "e"},
        forbidden={"b", "e"},
    )
    assert of_next(note._replace(generation=3)) == Verdicts("", True, inherited, probe_at=40.0)
    # The benefit of the doubt is given again only where no doubt was before.
    before.benefit = True
    for futile in (1, 2):
        doubt = of_next(note._replace(futile=futile)).doubt
        assert doubt is not None
        assert doubt.benefit
        doubt = of_next(note._replace(futile=futile), NOTHING_SAID).doubt
        assert doubt is not None
        assert doubt.benefit is (futile == 1)
    assert of_next(note._replace(futile=0), NOTHING_SAID) == Verdicts("", True)


@pytest.mark.parametrize(
    "accepted, here, kind, age, early, pause",
    [
        # The API may not know the token yet.
        ("", None, "k", 5.0, 0, 1.2),
        ("", None, "k", 5.1, 0, None),
        ("a", None, "k", 1.0, 0, 1.2),
        ("", "other", "k", 1.0, 0, 1.2),
        # It does, at least here.
        ("k", None, "k", 1.0, 0, None),
        ("", "k", "k", 1.0, 0, None),
        # Tokens end early in a row: most likely a fault, which comes and goes.
        ("a", None, "k", 1000.0, 2, 0.0),
        ("a", None, "k", 1000.0, 1, None),
        ("", None, "k", 1000.0, 5, None),
    ],
)
def test_the_same_token_is_sent_once_more_to_who_may_not_know_it_or_errs_at_random(
    accepted: str, here: str | None, kind: str, age: float, early: int, pause: float | None
) -> None:
    doubt = None if here is None else Doubt(1, {}, set(), here={here})
    verdicts = Verdicts(accepted, True, doubt)
    assert verdicts.second_try(lambda: kind, age=age, early=early) == pause


def test_what_a_refusal_is_worth_follows_from_its_verdict_and_the_pauses() -> None:
    def need(doubt: Doubt | None, *, probe_at: float = 0.0, end_at: float = 0.0) -> Need:
        verdicts = Verdicts("", True, doubt, probe_at=probe_at, end_at=end_at)
        return verdicts.need(lambda: "k", 10.0)

    assert need(None) == need(None, end_at=10.0) == Need.REFUSED
    assert need(None, end_at=10.1) == Need.LOOK
    assert need(Doubt.of(1, benefit=True), end_at=10.0) == Need.ENDED
    assert need(Doubt.of(1, benefit=True), end_at=10.1) == Need.LOOK
    assert need(Doubt.of(1), probe_at=10.0) == Need.PROBE
    assert need(Doubt.of(1), probe_at=10.1) == Need.LOOK
    assert need(Doubt.of(1, accepted_at=9.0)) == Need.LOOK


def test_an_acceptance_after_a_refresh_ends_a_doubt_that_is_not_settled() -> None:
    fruit = partial(Verdicts.after_acceptance, kind="a", now=10.0, after_refusal=True)
    assert fruit(Verdicts("", True)) == (Verdicts("a", False), False, False)
    assert fruit(Verdicts("b", True))[0].accepted == "b"
    doubt = Doubt.of(1)
    doubt.refused("b", 0.0)
    assert fruit(Verdicts("", True, doubt, probe_at=30.0)) == (Verdicts("a", False), True, False)
    # What is known to be forbidden stays so.
    doubt.accepted("a", 1.0)
    after, ended, news = fruit(Verdicts("", True, doubt, probe_at=30.0))
    assert (after.forbidden(), after.listening, after.probe_at) == (("b",), True, -math.inf)
    assert (ended, news) == (False, False)


def test_any_other_acceptance_is_noted_in_a_doubt_and_told() -> None:
    doubt = Doubt.of(1)
    before = Verdicts("", False, doubt, probe_at=30.0)
    after, ended, news = before.after_acceptance("a", 10.0, after_refusal=False)
    assert after == Verdicts("a", True, doubt, probe_at=30.0)
    assert (doubt.accepted_at, doubt.kinds, ended, news) == (10.0, {"a": True}, False, True)


def test_a_futile_refresh_begins_a_doubt_and_a_pause_of_half_a_minute() -> None:
    for accepted, at in (("", -math.inf), ("a", 10.0)):
        after = Verdicts(accepted).after_futile(3, "k", 10.0)
        doubt = Doubt(3, {"k": False}, set(), at, 10.0, benefit=True, here={"k"})
        assert after == Verdicts(accepted, True, doubt, probe_at=40.0)
    # Another one in a doubt that has begun: its pauses are the store's.
    doubt = Doubt.of(3)
    again = Verdicts("", False, doubt, probe_at=5.0).after_futile(3, "k", 10.0)
    assert again == Verdicts("", True, doubt, probe_at=5.0)
    assert (doubt.kinds, doubt.here) == ({"k": False}, {"k"})


@pytest.mark.parametrize(
    "accepted, futile, accepted_at, benefit",
    [("", 1, -190.0, True), ("", 2, -190.0, False), ("a", 2, 10.0, True)],
)
def test_a_note_of_others_begins_a_doubt_here(
    accepted: str, futile: int, accepted_at: float, benefit: bool
) -> None:
    refusals = Refusals(4, futile, ("k",), 7, Pause("p", 30.0, 1030.0))
    learnt = partial(
        Verdicts.learnt, refusals=refusals, refusals_for=29.9, accepted_for=100.0, now=10.0
    )
    doubt = Doubt(
        7, {"k": False}, set(), accepted_at, 10.0, tell_at=-40.0, benefit=benefit, here={"k"}
    )
    after = Verdicts(accepted, True, doubt, probe_at=39.9, end_at=10.0 + early_left(refusals, 29.9))
    assert learnt(Verdicts(accepted), 7) == after
    assert after.end_at > 10.0
    # A pause that is known to last longer does.
    assert learnt(Verdicts(accepted, probe_at=50.0), 7).probe_at == 50.0
    # What is told of another token begins a doubt without what was accepted elsewhere.
    other = learnt(Verdicts(accepted), 8).doubt
    assert other is not None
    assert (other.kinds, other.tell_at) == ({}, -math.inf)


def test_a_note_that_tells_of_no_futile_refresh_begins_no_doubt() -> None:
    refusals = Refusals(4, 0, (), 7, Pause("p", 0.1125, 1000.0))
    learnt = partial(
        Verdicts.learnt, refusals=refusals, refusals_for=0.1, accepted_for=0.0, now=10.0
    )
    assert learnt(NOTHING_SAID, 7) == Verdicts(end_at=10.1)
    assert learnt(Verdicts(listening=True), 7) == Verdicts(listening=True, end_at=10.1)


def test_a_login_leaves_no_doubt_and_no_pauses() -> None:
    verdicts = Verdicts("a", True, Doubt.of(1), 5.0, 6.0, 7.0, 3)
    assert verdicts.forgotten() == Verdicts("a", True, None, -math.inf, -math.inf, 7.0, 3)


_PAUSE = Pause("p", 30.0, 1030.0)


@pytest.mark.parametrize(
    "before, need, now, early, pause",
    [
        (None, Need.REFUSED, 1000.0, 1, 0.0),
        (Refusals(1, 0, (), 3, _PAUSE), Need.ENDED, 1010.0, 2, 0.05),
        (Refusals(2, 0, (), 3, _PAUSE), Need.ENDED, 1010.0, 3, 0.05 * 1.5),
        (Refusals(40, 0, (), 3, _PAUSE), Need.ENDED, 1010.0, 41, 300.0),
        # The last token lived for more than five minutes.
        (Refusals(40, 0, (), 3, _PAUSE), Need.ENDED, 1331.0, 1, 0.0),
        (Refusals(40, 0, (), 3, _PAUSE), Need.ENDED, 1330.0, 41, 300.0),
        (Refusals(2, 1, (), 3, _PAUSE), Need.PROBE, 1010.0, 2, 30.0),
        (Refusals(2, 9, ("k",), 3, _PAUSE), Need.PROBE, 1010.0, 2, 300.0),
        (Refusals(2, 3, (), 3, _PAUSE), Need.RESULT, 1010.0, 0, 120.0),
    ],
)
def test_what_is_noted_of_refusals_when_a_refresh_brought_a_token(
    before: Refusals | None, need: Need, now: float, early: int, pause: float
) -> None:
    noted = after_refresh(before, need, generation=4, now=now, nonce="n")
    futile = 0 if before is None else before.futile
    probed = need is Need.PROBE
    assert noted == Refusals(early, futile, (), 4, Pause("n", pause, now + pause), probed=probed)


@pytest.mark.parametrize(
    "early, pause",
    [(0, 0.0), (1, 0.0), (2, 0.05), (3, 0.075), (4, 0.1125), (100, 300.0), (10**9, 300.0)],
)
def test_pauses_apply_from_the_third_early_end_on_and_grow_to_five_minutes(
    early: int, pause: float
) -> None:
    assert early_pause(early) == pytest.approx(pause)


@pytest.mark.parametrize(
    "early, seconds, left, early_for",
    [
        (4, 0.1125, 0.1, 0.1),
        # A pause for everything that is longer than the one for early ends.
        (4, 30.0, 29.9, 0.0125),
        (4, 30.0, 29.0, 0.0),
        # One that is over, and was shorter.
        (4, 0.05, 0.0, 0.0),
        (0, 30.0, 29.0, 0.0),
    ],
)
def test_an_early_end_waits_for_the_pause_between_early_ends_and_for_no_other(
    early: int, seconds: float, left: float, early_for: float
) -> None:
    refusals = Refusals(early, 1, (), 3, Pause("p", seconds, 1000.0))
    assert early_left(refusals, left) == pytest.approx(early_for)
    assert held_back(Need.ENDED, refusals, left, 0.0) == early_left(refusals, left)
    quiet = refusals._replace(futile=0)
    for need in (Need.REFUSED, Need.PROBE, Need.ENDED):
        assert held_back(need, quiet, left, 100.0) == early_left(refusals, left)


@pytest.mark.parametrize(
    "need, left, accepted_for, wait",
    [
        # What is known of refusals holds back no refresh that is due for another reason.
        (Need.LOOK, 30.0, 300.0, 0.0),
        (Need.AHEAD, 30.0, 300.0, 0.0),
        (Need.RESULT, 30.0, 300.0, 0.0),
        (Need.CLAIMS, 30.0, 300.0, 0.0),
        # Who did not know of the doubt judges again.
        (Need.REFUSED, 0.0, 0.0, math.inf),
        (Need.PROBE, 30.0, 0.0, 30.0),
        (Need.PROBE, 0.0, 0.0, 0.0),
        # Forbidden: others are accepted.
        (Need.PROBE, 0.0, 1.0, math.inf),
    ],
)
def test_a_refusal_in_doubt_is_worth_a_refresh_at_each_pause_s_end_while_nothing_is_accepted(
    need: Need, left: float, accepted_for: float, wait: float
) -> None:
    refusals = Refusals(40, 3, ("k",), 3, Pause("p", 30.0, 1000.0))
    assert held_back(need, refusals, left, accepted_for) == wait


def test_a_probe_that_is_fruitful_shows_that_a_token_had_ended_early() -> None:
    probed = after_refresh(
        Refusals(2, 1, ("k",), 3, _PAUSE), Need.PROBE, generation=4, now=1.0, nonce="n"
    )
    fruit = after_fruit(probed)
    assert fruit is not None
    assert (fruit.early, fruit.futile, fruit.probed) == (3, 0, False)
    refused = after_futile(probed, ("k",), generation=4, now=1.0, nonce="n")
    assert (refused.early, refused.futile, refused.probed) == (2, 2, True)


def test_a_refresh_at_an_expiry_ends_what_is_known_of_early_ends() -> None:
    for before in (None, Refusals(2, 0, (), 3, _PAUSE)):
        for need in (Need.AHEAD, Need.RESULT):
            assert after_refresh(before, need, generation=4, now=1.0, nonce="n") is None


@pytest.mark.parametrize(
    "now, count, pause", [(400.0, 6, 0.05 * 1.5**4), (400.1, 1, 0.0), (100.0, 6, 0.05 * 1.5**4)]
)
def test_refreshes_with_claims_are_counted_until_five_minutes_go_by_without_one(
    now: float, count: int, pause: float
) -> None:
    before = AskedClaims(("c",), 1, 5, Pause("p", 1.0, 100.0))
    note = after_claims(before, "{}", generation=2, now=now, nonce="n")
    assert (note.times, note.generation, len(note.tried)) == (count, 2, 1)
    assert note.pause.seconds == pytest.approx(pause)
    assert note.pause.until == now + note.pause.seconds


def test_claims_are_futile_within_the_pause_and_for_the_token_that_they_were_asked_of() -> None:
    asked = after_claims(None, "{}", generation=1, now=100.0, nonce="n")
    cases = [("{}", 1, 0.0), ("[]", 1, 0.0), ("{}", 2, 0.0), ("[]", 2, 1.0)]
    assert [claims_are_futile(asked, *case) for case in cases] == [True, False, False, True]
    assert not claims_are_futile(None, "{}", 1, 1.0)


def test_sixteen_claims_that_one_token_was_asked_for_are_noted() -> None:
    note = None
    for number in range(20):
        note = after_claims(note, str(number), generation=1, now=100.0, nonce="n")
    futile = [number for number in range(20) if claims_are_futile(note, str(number), 1, 0.0)]
    assert futile == list(range(4, 20))


def test_claims_that_were_refused_are_noted_beside_those_that_the_same_token_was_asked_for() -> (
    None
):
    before = AskedClaims(("c",), 1, 1, Pause("p", 1.0, 100.0))
    options: dict[str, Any] = {"now": 100.0, "nonce": "n"}
    same = after_claims(before, "{}", generation=1, **options)
    assert same.tried[1:] == ("c",)
    assert after_claims(before, "{}", generation=2, **options).tried == same.tried[:1]
    first = after_claims(None, "{}", generation=1, **options)
    assert first == AskedClaims(same.tried[:1], 1, 1, Pause("n", 0.0, 100.0))


def test_futile_refreshes_pause_for_half_a_minute_to_five_and_fruit_ends_that() -> None:
    noted = None
    pauses = []
    for _ in range(6):
        noted = after_futile(noted, ("k",) * 20, generation=4, now=10.0, nonce="n")
        pauses.append(noted.pause.seconds)
    assert pauses == [30.0, 60.0, 120.0, 240.0, 300.0, 300.0]
    assert noted is not None
    assert (noted.futile, len(noted.kinds), noted.generation) == (6, 16, 4)
    assert after_fruit(noted) is None
    assert after_fruit(None) is None
    early = after_futile(Refusals(2, 0, (), 3, _PAUSE), (), generation=4, now=1.0, nonce="n")
    assert early.early == 2
    # It does not shorten a pause between early ends.
    often = after_futile(Refusals(40, 0, (), 3, _PAUSE), (), generation=4, now=1.0, nonce="n")
    assert often.pause == Pause("n", 300.0, 301.0)
    known = early._replace(kinds=("k",), accepted=_PAUSE, forbidden=("f",))
    assert after_fruit(known) == Refusals(2, 0, (), 4, early.pause)


@marked
async def test_a_refusal_is_judged_twice_at_most_whatever_others_note_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint, store, auth = service()
    api = Paths(lambda *_: False)
    async with api.client(auth) as client:
        await client.get("/")
        await anyio.sleep(1)
    asked, judged = len(endpoint.asked), list[None]()

    def judge(*_: object) -> Need:
        judged.append(None)
        return Need.PROBE  # As if each look had brought something else.

    monkeypatch.setattr(Session, "_judge", judge)
    async with api.client(RefreshAuth(endpoint, store)) as client:
        assert (await client.get("/")).status_code == 401
    assert (len(judged), len(endpoint.asked)) == (2, asked)
