"""Claims that an API requires: one shared refresh with them, and pauses between such refreshes."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest

from httpx_refresh import (
    MemoryStore,
    ReauthorizationRequired,
    RefreshAuth,
    RefreshUnavailable,
    StepUpRequired,
    Token,
)
from httpx_refresh._http.libraries import library_asking
from httpx_refresh._refresh import refusals
from httpx_refresh.testing import Gate
from tests.fakes import Endpoint, Store, both_libraries, use_loop_time
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.anyio

C1: dict[str, Any] = {"access_token": {"acrs": {"essential": True, "value": "c1"}}}
C2: dict[str, Any] = {"access_token": {"nbf": {"essential": True, "value": "1604106651"}}}


def challenge(claims: Mapping[str, Any] | str) -> str:
    text = (
        claims
        if isinstance(claims, str)
        else base64.b64encode(json.dumps(claims).encode()).decode()
    )
    return f'Bearer realm="", authorization_uri="https://as.test", error="insufficient_claims", claims="{text}"'


class Claiming(Endpoint):
    """An endpoint that accepts claims; `with_claims` holds the claims of each request, or None."""

    takes_claims = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.with_claims: list[Mapping[str, Any] | None] = []
        self.refuses: StepUpRequired | None = None

    async def refresh(self, token: Token, /, *, claims: Mapping[str, Any] | None = None) -> Token:
        self.with_claims.append(claims)
        if claims is not None and self.refuses is not None:
            self.asked.append(token.refresh_token)
            raise self.refuses
        return await super().refresh(token)


class Api:
    """Answers by the access token: with a challenge for claims, 401 for False, 200 for None."""

    def __init__(self, asks: Callable[[str, str], Mapping[str, Any] | str | bool | None]) -> None:
        self.asks = asks
        self.seen: list[str] = []

    def client(self, auth: RefreshAuth, http: Any = httpx) -> Any:
        async def answer(request: Any) -> Any:
            await anyio.lowlevel.checkpoint()
            token = request.headers["Authorization"].removeprefix("Bearer SECRET-")
            self.seen.append(token)
            asked = self.asks(token, request.url.path)
            if asked is None:
                return http.Response(200)
            headers = {} if isinstance(asked, bool) else {"www-authenticate": challenge(asked)}
            return http.Response(401, headers=headers)

        return http.AsyncClient(
            auth=auth, transport=http.MockTransport(answer), base_url="https://api.test"
        )


def first_lacks(claims: Mapping[str, Any]) -> Api:
    return Api(lambda token, _: claims if token == "a0" else None)


async def test_a_refresh_with_the_claims_serves_the_request() -> None:
    endpoint = Claiming()
    store = Store(endpoint.text())
    api = first_lacks(C1)
    async with api.client(RefreshAuth(endpoint, store)) as client:
        assert (await client.get("/")).status_code == 200
        assert (await client.get("/")).status_code == 200
    assert api.seen == ["a0", "a1", "a1"]
    assert endpoint.with_claims == [C1]
    assert store.record.refusals is None  # no early end


@both_libraries
async def test_claims_are_asked_for_with_the_library_whose_client_asks(http: Any) -> None:
    libraries: list[Any] = []

    class Noting(Claiming):
        async def refresh(
            self, token: Token, /, *, claims: Mapping[str, Any] | None = None
        ) -> Token:
            libraries.append(library_asking())
            return await super().refresh(token, claims=claims)

    endpoint, api = Noting(), first_lacks(C1)
    auth = RefreshAuth(endpoint, Store(endpoint.text()))
    async with api.client(auth, http) as client:
        assert (await client.get("/")).status_code == 200
    assert libraries == [http]


async def test_equal_claims_of_any_number_of_callers_make_one_token_request() -> None:
    endpoint = Claiming()
    endpoint.gate = Gate()
    api = first_lacks(C1)
    statuses: list[int] = []
    async with api.client(RefreshAuth(endpoint, Store(endpoint.text()))) as client:

        async def call() -> None:
            statuses.append((await client.get("/")).status_code)

        async with anyio.create_task_group() as tasks:
            for _ in range(40):
                tasks.start_soon(call)
            await endpoint.gate.arrived()
            endpoint.gate.release()
    assert statuses == [200] * 40
    assert endpoint.with_claims == [C1]


async def test_other_claims_and_expiries_wait_for_that_flight_and_take_what_it_brings() -> None:
    """Its result serves them, too, or they refresh by themselves."""
    endpoint = Claiming()
    endpoint.gate = gate = Gate()

    def asks(token: str, path: str) -> Mapping[str, Any] | bool | None:
        if token == "a0":
            return False if path == "/old" else C1 if path == "/c1" else C2
        return C2 if path == "/c2" and token == "a1" else None

    api = Api(asks)
    statuses: dict[str, int] = {}
    async with api.client(RefreshAuth(endpoint, Store(endpoint.text()))) as client:

        async def call(path: str) -> None:
            statuses[path] = (await client.get(path)).status_code

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, "/c1")
            await gate.arrived()
            tasks.start_soon(call, "/c2")
            tasks.start_soon(call, "/old")
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            gate.release()
    assert statuses == {"/c1": 200, "/c2": 200, "/old": 200}
    assert endpoint.with_claims == [C1, C2]


async def test_refused_claims_are_raised_with_those_that_the_server_names() -> None:
    endpoint = Claiming()
    store = Store(json.dumps({**json.loads(endpoint.text()), "scope": "read"}))
    endpoint.refuses = StepUpRequired("mfa", error="interaction_required", claims=C2)
    api = Api(lambda _, path: C1 if path == "/pay" else None)
    auth = RefreshAuth(endpoint, store)
    async with api.client(auth) as client:
        with pytest.raises(StepUpRequired) as caught:
            await client.get("/pay")
        # The token is valid for other requests, and the same claims are not requested again with it.
        assert (await client.get("/")).status_code == 200
        with pytest.raises(StepUpRequired) as again:
            await client.get("/pay")
    error = caught.value
    assert (error.error, error.claims) == ("insufficient_claims", C2)
    assert error.params["scope"] == "read"
    assert json.loads(error.params["claims"]) == C2
    response: Any = error.response
    assert response.status_code == 401
    assert again.value.claims == C1
    assert endpoint.with_claims == [C1]
    assert not store.record.is_dead()
    assert store.record.redeeming is None


async def test_refused_claims_stop_no_refresh_of_others() -> None:
    endpoint = Claiming()
    endpoint.refuses = StepUpRequired("mfa", error="interaction_required", claims=C1)
    api = Api(lambda token, path: C1 if path == "/pay" else {"a0": False}.get(token))
    async with api.client(RefreshAuth(endpoint, Store(endpoint.text()))) as client:
        with pytest.raises(StepUpRequired):
            await client.get("/pay")
        assert (await client.get("/")).status_code == 200
    assert endpoint.with_claims == [C1, None]


async def test_an_api_that_always_asks_for_the_same_claims_costs_one_token_request() -> None:
    endpoint = Claiming()
    text = Store(endpoint.text())
    api = Api(lambda _, __: C1)
    processes = [RefreshAuth(endpoint, text) for _ in range(5)]
    for auth in processes * 3:
        async with api.client(auth) as client:
            with pytest.raises(StepUpRequired) as caught:
                await client.get("/")
            assert caught.value.claims == C1
    assert endpoint.with_claims == [C1]


@virtual_time
async def test_an_api_that_asks_for_new_claims_each_time_costs_a_bounded_number_of_token_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_loop_time(monkeypatch)
    endpoint = Claiming(lifetime=None)
    store = Store(endpoint.text())
    number = 0

    def asks(_: str, __: str) -> Mapping[str, Any]:
        nonlocal number
        number += 1
        return {"access_token": {"nbf": {"value": str(number)}}}

    api = Api(asks)
    clients = [api.client(RefreshAuth(endpoint, store)) for _ in range(2)]
    for _ in range(180):  # an hour
        for client in clients:
            with pytest.raises(StepUpRequired):
                await client.get("/")
        await anyio.sleep(20)
    for client in clients:
        await client.aclose()
    assert 10 < len(endpoint.with_claims) <= 40


@virtual_time
async def test_after_a_quiet_time_claims_are_asked_for_at_once_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_loop_time(monkeypatch)
    endpoint = Claiming(lifetime=None)
    event = 0

    def asks(token: str, _: str) -> Mapping[str, Any] | None:
        return {"nbf": event} if token != f"a{event}" else None

    async with Api(asks).client(RefreshAuth(endpoint, Store(endpoint.text()))) as client:
        for _ in range(24):
            event += 1
            assert (await client.get("/")).status_code == 200
            await anyio.sleep(3600)
    assert len(endpoint.with_claims) == 24


async def test_a_request_refreshes_once_whatever_is_asked_for_after_it() -> None:
    endpoint = Claiming()

    def asks(token: str, _: str) -> Mapping[str, Any] | bool | None:
        return False if token == "a0" else C1 if token == "a1" else None

    api = Api(asks)
    async with api.client(RefreshAuth(endpoint, Store(endpoint.text()))) as client:
        with pytest.raises(StepUpRequired):
            await client.get("/")
        assert endpoint.with_claims == [None]
        assert (await client.get("/")).status_code == 200
    assert endpoint.with_claims == [None, C1]


async def test_a_refresh_with_claims_is_the_one_of_its_request_whose_refusal_then_is_passed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(refusals, "LATE_LEARNER", -1.0)  # The API knows each token at once.
    endpoint = Claiming()
    api = Api(lambda token, _: C1 if token == "a0" else False)
    async with api.client(RefreshAuth(endpoint, Store(endpoint.text()))) as client:
        assert (await client.get("/")).status_code == 401
    assert endpoint.with_claims == [C1]


async def test_a_source_that_takes_no_claims_is_asked_for_none() -> None:
    class Deaf(Claiming):
        """It inherits the declaration, but its method does not have the argument."""

        async def refresh(self, token: Token, /) -> Token:  # type: ignore[override]  # that is the point
            return await Endpoint.refresh(self, token)

    for endpoint in (Endpoint(), Deaf()):
        async with first_lacks(C1).client(RefreshAuth(endpoint, Store(endpoint.text()))) as client:
            with pytest.raises(StepUpRequired) as caught:
                await client.get("/")
        assert (endpoint.asked, caught.value.claims) == ([], C1)


@pytest.mark.parametrize("claims", ["", "%%%", "e30=", "W10=", "x" * 60_000])
async def test_claims_that_cannot_be_read_are_raised_without_a_refresh(claims: str) -> None:
    endpoint = Claiming()
    async with first_lacks({}).client(RefreshAuth(endpoint, Store(endpoint.text()))):
        pass
    api = Api(lambda _, __: claims)
    async with api.client(RefreshAuth(endpoint, Store(endpoint.text()))) as client:
        with pytest.raises(StepUpRequired) as caught:
            await client.get("/")
    assert (caught.value.claims, endpoint.asked) == (None, [])


async def test_a_dead_or_absent_refresh_token_is_no_matter_where_a_login_is_asked_for_anyway() -> (
    None
):
    endpoint = Claiming()
    endpoint.script.append(ReauthorizationRequired("dead", error="invalid_grant"))
    api = Api(lambda _, path: C1 if path == "/pay" else None)
    auth = RefreshAuth(endpoint, Store(endpoint.text()))
    async with api.client(auth) as client:
        assert (await client.get("/")).status_code == 200
        with pytest.raises(ReauthorizationRequired):
            await auth.refresh()
        with pytest.raises(StepUpRequired):
            await client.get("/pay")
        assert (await client.get("/")).status_code == 200
    alone = RefreshAuth(endpoint, MemoryStore('{"access_token": "SECRET-x"}'))
    async with api.client(alone) as client:
        with pytest.raises(StepUpRequired):
            await client.get("/pay")
    assert endpoint.with_claims == [None]


async def test_an_outage_during_a_refresh_with_claims_is_told_as_one() -> None:
    endpoint = Claiming()
    endpoint.script.append(RefreshUnavailable("no", outcome="refused"))
    async with first_lacks(C1).client(RefreshAuth(endpoint, Store(endpoint.text()))) as client:
        with pytest.raises(RefreshUnavailable):
            await client.get("/")


async def test_a_source_that_wants_a_person_though_nobody_asked_for_claims_is_dead() -> None:
    endpoint = Claiming()
    endpoint.script.append(StepUpRequired("mfa", error="interaction_required", claims=C1))
    store = Store(endpoint.text())
    auth = RefreshAuth(endpoint, store)
    with pytest.raises(ReauthorizationRequired) as caught:
        await auth.refresh()
    assert caught.value.error == "interaction_required"
    assert store.record.is_dead()


async def test_somebodys_login_is_taken_up_before_claims_are_asked_for() -> None:
    endpoint = Claiming()
    store = Store(endpoint.text())
    mine, theirs = RefreshAuth(endpoint, store), RefreshAuth(endpoint, store)
    api = first_lacks(C1)
    async with api.client(mine) as client:
        assert (await mine.token()).access_token == "SECRET-a0"
        await theirs.set_token(Token("SECRET-new", "SECRET-r9"))
        assert (await client.get("/")).status_code == 200
    assert (api.seen, endpoint.asked) == (["a0", "new"], [])


async def test_a_login_that_is_taken_up_is_no_refresh_of_the_request() -> None:
    endpoint = Claiming()
    store = Store(endpoint.text())
    mine, theirs = RefreshAuth(endpoint, store), RefreshAuth(endpoint, store)
    answers: dict[str, Any] = {"a0": C1, "new": False}
    api = Api(lambda token, _: answers.get(token))
    async with api.client(mine) as client:
        await mine.token()
        await theirs.set_token(Token("SECRET-new", "SECRET-r0"))
        assert (await client.get("/")).status_code == 200
    assert (api.seen, endpoint.asked) == (["a0", "new", "a1"], ["SECRET-r0"])


async def test_a_refresh_with_claims_that_fails_hands_on_the_refusal_where_that_is_wanted() -> None:
    class Broken(Claiming):
        async def refresh(
            self, token: Token, /, *, claims: Mapping[str, Any] | None = None
        ) -> Token:
            self.with_claims.append(claims)
            raise RefreshUnavailable("no answer; try again", outcome="refused")

    endpoint = Broken()

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(401, headers={"www-authenticate": challenge(C1)})

    auth = RefreshAuth(
        endpoint, MemoryStore(endpoint.text()), unauthorized="return", refresh_timeout=1.0
    )
    async with httpx.AsyncClient(
        auth=auth, transport=httpx.MockTransport(answer), base_url="https://api.test"
    ) as client:
        assert (await client.get("/")).status_code == 401
    assert endpoint.with_claims == [C1]


async def test_a_login_during_a_refresh_with_claims_counts_more_than_their_refusal() -> None:
    endpoint, gate = Claiming(), Gate()
    store = Store(endpoint.text())

    class Held(Claiming):
        async def refresh(
            self, token: Token, /, *, claims: Mapping[str, Any] | None = None
        ) -> Token:
            self.with_claims.append(claims)
            await gate.hold()
            raise StepUpRequired("mfa", error="interaction_required", claims=C2)

    held = Held()
    api = Api(lambda token, _: C1 if token == "a0" else None)
    statuses: list[int] = []

    async def call(client: httpx.AsyncClient) -> None:
        statuses.append((await client.get("/")).status_code)

    async with api.client(RefreshAuth(held, store)) as client, anyio.create_task_group() as group:
        group.start_soon(call, client)
        await gate.arrived()
        await RefreshAuth(endpoint, store).set_token(Token("SECRET-login", "r"))
        gate.release()
    assert statuses == [200]
    assert api.seen == ["a0", "login"]
    assert held.with_claims == [C1]
