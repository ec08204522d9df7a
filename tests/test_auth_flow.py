"""The auth flow in a client: attach the token, send, refresh after a refusal, send again (rules 2, 6, 12 and 15)."""

from __future__ import annotations

import json
import math
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from httpx_refresh import (
    MemoryStore,
    ReauthorizationRequired,
    RefreshAuth,
    RefreshUnavailable,
    StoreError,
    Token,
)
from httpx_refresh.testing import Answer, AuthorizationServer, Gate, Outage
from tests.fakes import (
    Api,
    Endpoint,
    Store,
    auth_of,
    both_libraries,
    client_of,
    loop_wall,
    use_loop_time,
)
from tests.virtual_time import virtual_time


@both_libraries
@pytest.mark.anyio
async def test_the_token_goes_out_with_each_request_and_nothing_else_is_asked(http: Any) -> None:
    endpoint = Endpoint()
    store = Store(endpoint.text(expires_in=3600))
    api = Api()
    async with api.client(RefreshAuth(endpoint, store), http) as client:
        for _ in range(5):
            assert (await client.get("/")).status_code == 200
    assert api.seen == ["SECRET-a0"] * 5
    assert (store.loads, store.tries, endpoint.asked) == (1, 0, [])


@pytest.mark.anyio
async def test_one_object_serves_clients_of_both_libraries_at_once() -> None:
    server = AuthorizationServer()
    auth = auth_of(server)
    server.expire_access_tokens()
    statuses = []

    async def call(client: Any) -> None:
        statuses.append((await client.get("/ping")).status_code)

    async with (
        client_of(server, httpx, auth=auth) as one,
        client_of(server, httpx2, auth=auth) as two,
        anyio.create_task_group() as group,
    ):
        for _ in range(10):
            group.start_soon(call, one)
            group.start_soon(call, two)
    assert statuses == [200] * 20
    assert server.token_requests == 1


@pytest.mark.anyio
async def test_another_scheme_than_bearer_is_sent_where_the_endpoint_says_so() -> None:
    endpoint: Any = Endpoint()
    endpoint.authorization_scheme = "Zoho-oauthtoken"
    api = Api()
    async with api.client(RefreshAuth(endpoint, Store(endpoint.text()))) as client:
        await client.get("/")
    assert api.seen == ["Zoho-oauthtoken SECRET-a0"]


@both_libraries
@pytest.mark.anyio
async def test_twenty_calls_that_all_meet_a_401_do_with_a_pool_of_one(http: Any) -> None:
    server = AuthorizationServer()
    auth = auth_of(server)
    await auth.token()
    server.expire_access_tokens()
    statuses = []

    async def call() -> None:
        statuses.append((await client.get("/ping")).status_code)

    async with client_of(server, http, auth=auth, max_connections=1) as client:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(call)
    assert statuses == [200] * 20
    assert server.token_requests == 1


@both_libraries
@pytest.mark.anyio
async def test_a_streamed_request_of_a_pool_of_one_gives_its_connection_back_before_it_waits(
    http: Any,
) -> None:
    server = AuthorizationServer()
    auth = auth_of(server)
    await auth.token()
    server.expire_access_tokens()
    gate = Gate()
    server.script(Answer(gate=gate))
    async with client_of(server, http, auth=auth, max_connections=1) as client:

        async def stream() -> None:
            async with client.stream("GET", "/ping") as response:
                assert (response.status_code, await response.aread()) == (200, b'{"pong":true}')

        async with anyio.create_task_group() as group:
            group.start_soon(stream)
            await gate.arrived()
            with anyio.fail_after(30):
                assert (await client.get("/ping", auth=None)).status_code == 401
            gate.release()


@both_libraries
@pytest.mark.anyio
async def test_a_request_is_sent_three_times_at_most_and_refreshes_once(http: Any) -> None:
    endpoint = Endpoint()
    store = Store(endpoint.text(expires_in=3600))
    auth = RefreshAuth(endpoint, store)
    api = Api(lambda _: False)
    async with api.client(auth, http) as client:
        await auth.token()
        endpoint.issued = 1  # Somebody else refreshed, and that token is refused as well.
        store.text = endpoint.text(expires_in=3600, generation=1)
        response = await client.get("/")
    assert response.status_code == 401
    assert api.seen == ["SECRET-a0", "SECRET-a1", "SECRET-a2"]
    assert endpoint.asked == ["SECRET-r1"]


@pytest.mark.anyio
async def test_the_third_send_may_succeed() -> None:
    endpoint = Endpoint()
    store = Store(endpoint.text(expires_in=3600))
    auth = RefreshAuth(endpoint, store)
    api = Api("SECRET-a2".__eq__)
    async with api.client(auth) as client:
        await auth.token()
        endpoint.issued = 1
        store.text = endpoint.text(expires_in=3600, generation=1)
        assert (await client.get("/")).status_code == 200
    assert len(api.seen) == 3


@pytest.mark.anyio
@virtual_time
async def test_a_refresh_that_did_not_help_is_not_tried_twice_for_one_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_loop_time(monkeypatch)
    endpoint = Endpoint(clock=loop_wall)
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=3600)))
    api = Api(lambda _: False)
    async with api.client(auth) as client:
        response = await client.get("/")
    assert response.status_code == 401
    # The last request is for APIs that learn of tokens late.
    assert (api.seen, len(endpoint.asked)) == (["SECRET-a0", "SECRET-a1", "SECRET-a1"], 1)


@both_libraries
@pytest.mark.anyio
@pytest.mark.parametrize(
    "error, kind",
    [
        (RefreshUnavailable("down", outcome="refused"), RefreshUnavailable),
        (ReauthorizationRequired("dead"), ReauthorizationRequired),
    ],
)
async def test_a_refusal_without_a_new_token_raises_why_there_is_none(
    http: Any, error: Exception, kind: Any
) -> None:
    endpoint = Endpoint()
    endpoint.always = error
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=3600)))
    async with Api(lambda _: False).client(auth, http) as client:
        with pytest.raises(kind):
            await client.get("/")


@pytest.mark.anyio
async def test_a_broken_store_raises_before_anything_is_sent() -> None:
    api = Api()
    async with api.client(RefreshAuth(Endpoint(), MemoryStore("no JSON"))) as client:
        with pytest.raises(StoreError):
            await client.get("/")
    assert api.seen == []


@pytest.mark.anyio
async def test_statuses_other_than_401_are_passed_on_as_they_are() -> None:
    server = AuthorizationServer()
    async with client_of(server, auth=auth_of(server)) as client:
        for status in (400, 403, 404, 429, 500, 503):
            server.script_api(Outage(status))
            assert (await client.get("/ping")).status_code == status
    assert server.token_requests == 0


@pytest.mark.anyio
@virtual_time
@pytest.mark.parametrize("status", [403, 404, 200, 500, 503, 408, 429])
async def test_an_answer_shows_that_the_api_knows_the_token_unless_it_was_too_busy_to_look(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_loop_time(monkeypatch)
    endpoint = Endpoint(clock=loop_wall)
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=-1)))
    statuses = iter([status, 401, 401, 401])
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["Authorization"].removeprefix("Bearer SECRET-"))
        return httpx.Response(next(statuses))

    async with httpx.AsyncClient(auth=auth, transport=httpx.MockTransport(answer)) as client:
        await client.get("https://api.test/")
        before = anyio.current_time()
        await client.get("https://api.test/")
    # A fresh token that no answer has shown to be known is sent once more, a second later.
    known = status in (403, 404, 200)
    assert seen == (["a1", "a1", "a2", "a2"] if known else ["a1", "a1", "a1", "a2"])
    assert 0.96 <= anyio.current_time() - before <= 1.21


# -- redirects -------------------------------------------------------------------------------------


class Site:
    """`/start` redirects to `goal`, where the API refuses the tokens that it is told to."""

    def __init__(self, goal: str, *, refused: frozenset[str]) -> None:
        self.goal = goal
        self.refused = refused
        self.seen: list[tuple[str, str | None]] = []

    def client(self, auth: RefreshAuth, http: Any) -> Any:
        def answer(request: Any) -> Any:
            sent = request.headers.get("Authorization")
            self.seen.append((str(request.url), sent))
            if request.url.path == "/start":
                return http.Response(302, headers={"Location": self.goal})
            bad = sent is None or sent.removeprefix("Bearer ") in self.refused
            return http.Response(401 if bad else 200)

        return http.AsyncClient(
            auth=auth,
            transport=http.MockTransport(answer),
            base_url="https://api.test",
            follow_redirects=True,
        )


@both_libraries
@pytest.mark.anyio
async def test_a_refusal_behind_a_redirect_is_replayed_there_and_the_first_step_not_redone(
    http: Any,
) -> None:
    endpoint = Endpoint()
    site = Site("/goal", refused=frozenset({"SECRET-a0"}))
    async with site.client(RefreshAuth(endpoint, Store(endpoint.text())), http) as client:
        response = await client.get("/start")
    assert response.status_code == 200
    assert site.seen == [
        ("https://api.test/start", "Bearer SECRET-a0"),
        ("https://api.test/goal", "Bearer SECRET-a0"),
        ("https://api.test/goal", "Bearer SECRET-a1"),
    ]


@both_libraries
@pytest.mark.anyio
@pytest.mark.parametrize(
    "goal", ["https://other.test/goal", "https://api.test:8443/goal", "http://api.test/goal"]
)
async def test_a_401_from_another_origin_is_passed_on_and_never_saw_the_token(
    http: Any, goal: str
) -> None:
    endpoint = Endpoint()
    site = Site(goal, refused=frozenset())
    async with site.client(RefreshAuth(endpoint, Store(endpoint.text())), http) as client:
        response = await client.get("/start")
    assert response.status_code == 401
    assert site.seen == [("https://api.test/start", "Bearer SECRET-a0"), (goal, None)]
    assert endpoint.asked == []


@both_libraries
@pytest.mark.anyio
async def test_a_redirect_back_to_the_api_has_lost_the_token_and_is_passed_on(http: Any) -> None:
    endpoint = Endpoint()
    seen: list[str | None] = []

    def answer(request: Any) -> Any:
        seen.append(request.headers.get("Authorization"))
        goals = {"/start": "https://other.test/over", "/over": "https://api.test/goal"}
        goal = goals.get(request.url.path)
        return (
            http.Response(401) if goal is None else http.Response(302, headers={"Location": goal})
        )

    async with http.AsyncClient(
        auth=RefreshAuth(endpoint, Store(endpoint.text())),
        transport=http.MockTransport(answer),
        follow_redirects=True,
    ) as client:
        assert (await client.get("https://api.test/start")).status_code == 401
    assert seen == ["Bearer SECRET-a0", None, None]
    assert endpoint.asked == []


# -- construction ----------------------------------------------------------------------------------


def declaring(**facts: object) -> Endpoint:
    """Return a source that declares facts."""
    source = Endpoint()
    for name, value in facts.items():
        setattr(source, name, value)
    return source


@pytest.mark.parametrize(
    "options, error, said",
    [
        ({"source": object()}, TypeError, "source must have"),
        ({"source": Endpoint}, TypeError, "source must have"),
        ({"source": declaring(name=7)}, TypeError, "name must be a str or None"),
        ({"source": declaring(authorization_scheme=None)}, TypeError, "scheme must be a str"),
        ({"source": declaring(client_fingerprint=7)}, TypeError, "client_fingerprint must be"),
        ({"source": declaring(purpose=7)}, TypeError, "purpose must be a str or None"),
        ({"source": declaring(purpose="x" * 5_000)}, ValueError, "purpose must not be longer"),
        ({"source": declaring(reuse_grace="no")}, TypeError, "reuse_grace must be a number"),
        ({"source": declaring(reuse_grace=-1)}, ValueError, "reuse_grace must be finite"),
        ({"source": declaring(ends_previous="no")}, TypeError, "ends_previous must be True"),
        ({"store": object()}, TypeError, "store must have"),
        ({"store": "token.json"}, TypeError, "not a path. Did you mean FileStore"),
        ({"store": MemoryStore}, TypeError, "not the class MemoryStore"),
        ({"refresh_before": "60"}, TypeError, "refresh_before must be a number"),
        ({"refresh_before": True}, TypeError, "refresh_before must be a number"),
        ({"refresh_before": -1}, ValueError, "refresh_before must be finite"),
        ({"refresh_before": math.nan}, ValueError, "refresh_before must be finite"),
        ({"refresh_timeout": None}, TypeError, "refresh_timeout must be a number"),
        ({"refresh_timeout": 0}, ValueError, "refresh_timeout must be finite"),
        ({"refresh_timeout": math.inf}, ValueError, "refresh_timeout must be finite"),
        ({"refresh_timeout": 300.1}, ValueError, "at most 300"),
        ({"replay_limit": 1.5}, TypeError, "replay_limit must be a whole number"),
        ({"replay_limit": True}, TypeError, "replay_limit must be a whole number"),
        ({"replay_limit": -1}, ValueError, "replay_limit must not be negative"),
        ({"is_expired": 401}, TypeError, "is_expired must be"),
        ({"on_unsaved": "print"}, TypeError, "on_unsaved must be callable"),
        ({"origins": 5}, TypeError, None),
        ({"origins": ["http://api.test"]}, ValueError, "https only"),
        ({"allow_http": "yes"}, TypeError, "allow_http must be True or False"),
    ],
)
def test_an_invalid_argument_is_refused_at_construction(
    options: dict[str, Any], error: type[Exception], said: str | None
) -> None:
    arguments = {"source": Endpoint(), "store": MemoryStore(), "origins": "any", **options}
    with pytest.raises(error, match=said):
        RefreshAuth(**arguments)


def test_an_expiry_rule_is_no_callback() -> None:
    from httpx_refresh import ExpiryRule

    with pytest.raises(TypeError, match="on_unsaved must be callable"):
        RefreshAuth(Endpoint(), MemoryStore(), on_unsaved=ExpiryRule(bool))  # type: ignore[call-overload]  # no callback, on purpose


def test_the_repr_names_endpoint_and_store_and_no_token() -> None:
    endpoint = Endpoint()
    shown = repr(RefreshAuth(endpoint, MemoryStore(endpoint.text())))
    assert shown == f"RefreshAuth({endpoint!r}, <MemoryStore, holding a text>)"


@pytest.mark.anyio
async def test_another_object_than_a_token_endpoint_serves_if_it_has_refresh() -> None:
    class Mine:
        async def refresh(self, token: Token) -> Token:
            return Token("SECRET-mine", token.refresh_token)

    store = MemoryStore(json.dumps({"access_token": "SECRET", "refresh_token": "SECRET-r"}))
    auth = RefreshAuth(Mine(), store, origins="any")
    assert (await auth.refresh()).access_token == "SECRET-mine"
    assert "Mine" in repr(auth)


@pytest.mark.anyio
async def test_three_sends_are_the_most_however_many_new_tokens_others_bring() -> None:
    endpoint = Endpoint()
    store = Store(endpoint.text())

    def refuse(_: str) -> bool:
        endpoint.issued += 1  # Somebody else refreshes, each time.
        store.text = endpoint.text(generation=endpoint.issued)
        return False

    api = Api(refuse)
    async with api.client(RefreshAuth(endpoint, store)) as client:
        assert (await client.get("/")).status_code == 401
    assert api.seen == ["SECRET-a0", "SECRET-a1", "SECRET-a2"]
    assert endpoint.asked == []


@pytest.mark.anyio
@virtual_time
async def test_one_request_refreshes_once_also_if_others_are_accepted_with_the_new_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_loop_time(monkeypatch)
    endpoint = Endpoint(clock=loop_wall)
    auth = RefreshAuth(endpoint, Store(endpoint.text()))

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/good":
            return httpx.Response(200)
        await client.get("/good")
        return httpx.Response(401)

    async with httpx.AsyncClient(
        auth=auth, transport=httpx.MockTransport(answer), base_url="https://api.test"
    ) as client:
        assert (await client.get("/bad")).status_code == 401
    assert endpoint.asked == ["SECRET-r0"]
