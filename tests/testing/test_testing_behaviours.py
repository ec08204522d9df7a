from __future__ import annotations

import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs

import anyio
import httpx
import httpx2
import pytest

from httpx_refresh.testing import (
    Answer,
    ApiEvent,
    AuthorizationServer,
    Behaviour,
    Gate,
    LostAnswer,
    LostRequest,
    Outage,
    TokenEvent,
)
from httpx_refresh.testing._app import AnswerLostError
from tests.testing.calls import ping, refresh
from tests.virtual_time import virtual_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.anyio

# A library, and how it reaches the server. The two libraries are alike: `Any` stands for either.
Door = tuple[Any, "Callable[[AuthorizationServer], Any]"]
TRANSPORTS: list[Door] = [
    (httpx, AuthorizationServer.transport),
    (httpx2, AuthorizationServer.transport2),
]
APPS: list[Door] = [
    (httpx, lambda server: httpx.ASGITransport(server.app)),
    (httpx2, lambda server: httpx2.ASGITransport(server.app)),
]


@pytest.fixture(params=TRANSPORTS, ids=["httpx", "httpx2"])
def door(request: pytest.FixtureRequest) -> Door:
    chosen: Door = request.param
    return chosen


@pytest.fixture(params=TRANSPORTS + APPS, ids=["httpx", "httpx2", "httpx-asgi", "httpx2-asgi"])
def any_door(request: pytest.FixtureRequest) -> Door:
    chosen: Door = request.param
    return chosen


@pytest.fixture
def server() -> AuthorizationServer:
    return AuthorizationServer()


def enter(door: Door, server: AuthorizationServer) -> Any:
    library, transport = door
    return library.AsyncClient(transport=transport(server))


async def spend(client: Any, server: AuthorizationServer, token: dict[str, Any]) -> Any:
    form = {"grant_type": "refresh_token", "refresh_token": token["refresh_token"]}
    return await client.post(server.token_url, data=form, auth=("client", "secret"))


def bearer(token: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {token['access_token']}"}


async def test_each_way_in_serves_tokens_and_the_api(
    any_door: Door, server: AuthorizationServer
) -> None:
    async with enter(any_door, server) as client:
        old = server.login()
        new = (await spend(client, server, old)).json()
        response = await client.post(
            f"{server.api_url}/things?a=b", headers=bearer(new), json={"x": 1}
        )
        assert response.status_code == 200
        assert response.json()["length"] == len(response.request.content)
        assert response.json()["query"] == "a=b"
        again = await spend(client, server, old)
        assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
        refused = await client.get(f"{server.api_url}/ping", headers=bearer(new))
        assert refused.status_code == 401
        assert 'error="invalid_token"' in refused.headers["WWW-Authenticate"]
    assert server.token_calls[0].headers["content-type"] == "application/x-www-form-urlencoded"
    assert [event.host for event in server.events if isinstance(event, ApiEvent)] == [
        "server.test"
    ] * 2


async def test_the_answer_to_head_has_no_body(any_door: Door, server: AuthorizationServer) -> None:
    async with enter(any_door, server) as client:
        response = await client.head(f"{server.api_url}/x", headers=bearer(server.login()))
    assert (response.status_code, response.content) == (200, b"")
    assert int(response.headers["Content-Length"]) > 0


async def test_a_redirect_is_followed_to_the_api(
    any_door: Door, server: AuthorizationServer
) -> None:
    async with enter(any_door, server) as client:
        response = await client.post(
            f"{server.api_url}/redirect",
            params={"to": "/api/there", "status": "307"},
            headers=bearer(server.login()),
            content=b"body",
            follow_redirects=True,
        )
    assert (response.json()["path"], response.json()["length"]) == ("/api/there", 4)


async def test_a_script_is_used_up_request_by_request_and_then_the_standing_behaviour_holds(
    door: Door, server: AuthorizationServer
) -> None:
    server.script(Outage(503, retry_after=2), Outage(429, headers={"Retry-After": "3"}))
    server.token_behaviour = Outage(500, body="<h1>no</h1>", headers={"Content-Type": "text/html"})
    token = server.login()
    async with enter(door, server) as client:
        answers = [await spend(client, server, token) for _ in range(4)]
        server.token_behaviour = None
        answers.append(await spend(client, server, token))
    assert [answer.status_code for answer in answers] == [503, 429, 500, 500, 200]
    assert [answer.headers.get("Retry-After") for answer in answers[:2]] == ["2", "3"]
    assert answers[2].headers["Content-Type"] == "text/html"
    outcomes = [
        (event.outcome, event.behaviour) for event in server.events if isinstance(event, TokenEvent)
    ]
    assert outcomes == [("not served", "Outage")] * 4 + [("issued", None)]


@pytest.mark.parametrize("value", ["3600", 3600.5, None, 1e308, -1, "soon"])
async def test_a_field_can_be_anything(
    door: Door, server: AuthorizationServer, value: object
) -> None:
    server.script(Answer(fields={"expires_in": value}))
    async with enter(door, server) as client:
        answer = await spend(client, server, server.login())
    assert answer.json()["expires_in"] == value
    assert answer.json()["refresh_token"]


async def test_answers_can_be_odd_in_form_status_and_body(
    door: Door, server: AuthorizationServer
) -> None:
    server.script(
        Answer(omit=["refresh_token", "nothing"]),
        Answer(form=True),
        Answer(body="", status=204),
        Answer(headers={"Content-Type": "text/plain", "X-Odd": "1"}),
        Outage(200, body='{"error": "invalid_grant"}'),
        Outage(302, headers={"Location": "https://elsewhere.test/"}),
    )
    async with enter(door, server) as client:
        bare, form, empty, plain, error, moved = [
            await spend(client, server, server.login()) for _ in range(6)
        ]
    assert "refresh_token" not in bare.json()
    assert form.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert parse_qs(form.text)["token_type"] == ["Bearer"]
    assert (empty.status_code, empty.content) == (204, b"")
    assert (plain.headers.get_list("Content-Type"), plain.headers["X-Odd"]) == (["text/plain"], "1")
    assert (error.status_code, error.json()) == (200, {"error": "invalid_grant"})
    assert moved.headers["Location"] == "https://elsewhere.test/"
    assert server.rotations == 4


async def test_a_huge_body_is_streamed_and_what_nobody_reads_is_not_sent(
    any_door: Door, server: AuthorizationServer
) -> None:
    server.script(Outage(200, body="{}", padding=200_000), Answer(padding=200_000))
    async with enter(any_door, server) as client:
        whole = await spend(client, server, server.login())
        assert "Content-Length" not in whole.headers
        assert len(whole.content) == 200_002
        assert json.loads(whole.content) == {}
        assert server.padding_sent == 200_000
        assert "access_token" in (await spend(client, server, server.login())).json()


# httpx's own generator around a response is not closed when the reader leaves; trio says so.
@pytest.mark.filterwarnings(
    "ignore:.*BoundAsyncStream.__aiter__:pytest.PytestUnraisableExceptionWarning"
)
async def test_a_client_that_stops_reading_stops_the_stream(
    door: Door, server: AuthorizationServer
) -> None:
    server.script(Outage(200, body="{", padding=50_000_000))
    async with (
        enter(door, server) as client,
        client.stream("POST", server.token_url) as response,
        aclosing(response.aiter_raw()) as pieces,
    ):
        assert await pieces.__anext__() == b"{"
        assert set(await pieces.__anext__()) == set(b" ")
    assert 0 < server.padding_sent < 200_000


async def test_a_lost_answer_has_spent_the_token(door: Door, server: AuthorizationServer) -> None:
    server.script(LostAnswer(), LostAnswer(half=True))
    first, second = server.login(), server.login()
    async with enter(door, server) as client:
        with pytest.raises(door[0].ReadError):
            await spend(client, server, first)
        with pytest.raises(door[0].RemoteProtocolError):
            await spend(client, server, second)
    assert server.rotations == 2
    assert refresh(server, first).status == refresh(server, second).status == 400


async def test_half_an_answer_has_its_head_and_half_of_its_body(
    door: Door, server: AuthorizationServer
) -> None:
    server.script(LostAnswer(half=True))
    async with (
        enter(door, server) as client,
        client.stream("POST", server.token_url) as response,
        aclosing(response.aiter_raw()) as pieces,
    ):
        received = await pieces.__anext__()
        with pytest.raises(door[0].RemoteProtocolError):
            await pieces.__anext__()
    assert response.status_code == 400
    assert 0 < len(received) < int(response.headers["Content-Length"])


async def test_a_lost_request_has_spent_nothing(door: Door, server: AuthorizationServer) -> None:
    server.script(LostRequest(), LostRequest(connected=False))
    token = server.login()
    async with enter(door, server) as client:
        with pytest.raises(door[0].ReadError):
            await spend(client, server, token)
        with pytest.raises(door[0].ConnectError):
            await spend(client, server, token)
    assert server.rotations == 0
    assert refresh(server, token).status == 200


async def test_the_api_can_misbehave_too(door: Door, server: AuthorizationServer) -> None:
    server.script_api(Outage(500), LostAnswer(), Answer(status=401), LostRequest())
    server.api_behaviour = Outage(418)
    headers = bearer(server.login())
    async with enter(door, server) as client:
        url = f"{server.api_url}/ping"
        assert (await client.get(url, headers=headers)).status_code == 500
        with pytest.raises(door[0].ReadError):
            await client.get(url, headers=headers)
        assert (await client.get(url, headers=headers)).status_code == 401
        with pytest.raises(door[0].ReadError):
            await client.get(url, headers=headers)
        assert (await client.get(url, headers=headers)).status_code == 418
    assert (server.api_requests, server.api_accepted, server.api_refused) == (5, 2, 0)


async def test_the_token_is_spent_before_the_client_can_be_cancelled(
    any_door: Door, server: AuthorizationServer
) -> None:
    gate = Gate()
    server.script(Answer(gate=gate))
    token = server.login()
    async with enter(any_door, server) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(spend, client, server, token)
        await gate.arrived()
        assert server.rotations == 1
        tasks.cancel_scope.cancel()
    assert refresh(server, token).status == 400


async def test_a_transport_commits_before_it_first_waits(
    door: Door, server: AuthorizationServer
) -> None:
    token = server.login()
    library, transport = door
    form = {"grant_type": "refresh_token", "refresh_token": token["refresh_token"]}
    request = library.Request("POST", server.token_url, data=form)
    sending = transport(server).handle_async_request(request)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await sending
    assert scope.cancelled_caught
    assert server.token_requests == 1


async def test_a_gate_counts_arrivals_and_lets_all_through_at_once(
    any_door: Door, server: AuthorizationServer
) -> None:
    gate = Gate("api")
    server.api_behaviour = Behaviour(gate=gate)
    assert "closed" in repr(gate)
    assert repr(server.api_behaviour) == "<Behaviour>"
    headers = bearer(server.login())
    statuses: list[int] = []

    async def get() -> None:
        statuses.append((await client.get(f"{server.api_url}/ping", headers=headers)).status_code)

    async with enter(any_door, server) as client:
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(get)
            await gate.arrived(5)
            assert (gate.count, server.api_accepted, statuses) == (5, 5, [])
            gate.release()
        assert statuses == [200] * 5
        await get()
    assert "released, 6 arrived" in repr(gate)


@virtual_time
async def test_a_delay_comes_after_the_work(door: Door) -> None:
    server = AuthorizationServer(clock=anyio.current_time, lifetime=60)
    server.script(Answer(delay=5))
    began = anyio.current_time()
    async with enter(door, server) as client:
        answer = await spend(client, server, server.login())
    assert anyio.current_time() - began == pytest.approx(5)
    assert ping(server, answer.json()).status == 200
    await anyio.sleep(56)
    assert ping(server, answer.json()).json["reason"] == "expired"


async def test_a_body_is_taken_as_the_stream_gives_it(
    any_door: Door, server: AuthorizationServer
) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"hello "
        await anyio.lowlevel.checkpoint()
        yield b"world"

    async with enter(any_door, server) as client:
        response = await client.post(
            f"{server.api_url}/x", headers=bearer(server.login()), content=body()
        )
    assert response.json()["length"] == 11
    with pytest.raises(any_door[0].RequestNotRead):
        _ = response.request.content


async def test_a_body_of_another_length_than_announced_breaks_the_request(
    door: Door, server: AuthorizationServer
) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"four"

    headers = {**bearer(server.login()), "Content-Length": "5"}
    async with enter(door, server) as client:
        with pytest.raises(door[0].LocalProtocolError):
            await client.post(f"{server.api_url}/x", headers=headers, content=body())
    assert server.api_requests == 0


@pytest.mark.parametrize("transport", ["transport", "transport2"])
async def test_a_connection_is_free_again_when_its_response_is_closed(
    server: AuthorizationServer, transport: str
) -> None:
    library: Any = {"transport": httpx, "transport2": httpx2}[transport]
    carrier = getattr(server, transport)(max_connections=1)
    url, headers = f"{server.api_url}/ping", bearer(server.login())
    server.script_api(LostRequest())
    async with library.AsyncClient(transport=carrier) as client:
        with pytest.raises(library.ReadError):
            await client.get(url, headers=headers)
        async with client.stream("GET", url, headers=headers):
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(client.get, url)
                    await anyio.wait_all_tasks_blocked()
                    scope.cancel()
            assert server.api_requests == 2
        assert (await client.get(url, headers=headers)).status_code == 200


@pytest.mark.parametrize("behaviour", [LostAnswer(), LostAnswer(half=True), LostRequest()])
async def test_an_asgi_server_that_cannot_close_the_connection_gets_an_error(
    server: AuthorizationServer, behaviour: Behaviour
) -> None:
    server.script(behaviour)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(server.app)) as client:
        with pytest.raises(AnswerLostError):
            await spend(client, server, server.login())


async def test_a_client_that_is_gone_before_its_body_arrived_changes_nothing(
    server: AuthorizationServer,
) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    sent: list[object] = []
    nothing = cast("Any", sent.append)
    await server.app({"type": "http", "method": "POST", "headers": []}, receive, nothing)
    assert (sent, server.token_requests) == ([], 0)
