from __future__ import annotations

import dataclasses
import json
import time
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from httpx_refresh import LoginFailed, TokenEndpoint
from httpx_refresh.testing import AuthorizationServer, LostRequest, Outage
from tests.oauth.test_login import asked
from tests.virtual_time import virtual_time

if TYPE_CHECKING:
    from httpx_refresh.testing import Behaviour

pytestmark = pytest.mark.anyio


def server_of(**settings: Any) -> AuthorizationServer:
    """A server that asks the person, and tells the time by the event loop."""
    return AuthorizationServer(consent="ask", clock=anyio.current_time, **settings)


@virtual_time
async def test_a_device_asks_until_the_person_has_decided() -> None:
    server = server_of()
    async with asked(server) as (_, endpoint):
        device = await endpoint.device_authorization(scope="a")

        async def decide_later() -> None:
            await anyio.sleep(3 * device.interval + 1)
            server.decide_device(device.user_code)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(decide_later)
            token = await endpoint.device_token(device)
    assert token.extra["scope"] == "a"
    assert server.token_requests == 4
    assert device.verification_uri_complete is not None


@virtual_time
async def test_a_device_slows_down_when_it_is_told_to() -> None:
    server = server_of()
    async with asked(server) as (_, endpoint):
        device = await endpoint.device_authorization()
        server.script(Outage(status=400, body='{"error": "slow_down"}'))
        server.decide_device(device.user_code)
        began = anyio.current_time()
        await endpoint.device_token(device)
    assert anyio.current_time() - began == pytest.approx(5 + 10)


@virtual_time
@pytest.mark.parametrize("behaviour", [LostRequest(), Outage(status=503, body="")])
async def test_a_connection_that_fails_is_tried_again_less_often(behaviour: Behaviour) -> None:
    server = server_of()
    async with asked(server) as (_, endpoint):
        device = await endpoint.device_authorization()
        server.script(behaviour, behaviour)
        server.decide_device(device.user_code)
        began = anyio.current_time()
        token = await endpoint.device_token(device)
    assert token.refresh_token is not None
    assert anyio.current_time() - began == pytest.approx(5 + 10 + 20)


@virtual_time
async def test_a_person_who_says_no_is_believed() -> None:
    server = server_of()
    async with asked(server) as (_, endpoint):
        device = await endpoint.device_authorization()
        server.decide_device(device.user_code, allow=False)
        with pytest.raises(LoginFailed, match="was denied") as caught:
            await endpoint.device_token(device)
    assert caught.value.error == "access_denied"


@virtual_time
@pytest.mark.parametrize("scripted", [True, False])
async def test_a_code_that_nobody_enters_expires(scripted: bool) -> None:
    server = server_of()
    if scripted:
        server.script(Outage(status=400, body='{"error": "expired_token"}'))
    async with asked(server) as (_, endpoint):
        began = anyio.current_time()
        device = await endpoint.device_authorization()
        with pytest.raises(LoginFailed, match="in time") as caught:
            await endpoint.device_token(device)
    assert caught.value.error == "expired_token"
    assert anyio.current_time() - began <= 600


@virtual_time
async def test_a_refusal_that_is_none_of_these_ends_the_wait() -> None:
    server = server_of()
    server.script(Outage(status=401, body='{"error": "invalid_client"}'))
    async with asked(server) as (_, endpoint):
        device = await endpoint.device_authorization()
        with pytest.raises(LoginFailed, match="refused this client") as caught:
            await endpoint.device_token(device)
    assert caught.value.error == "invalid_client"


def endpoint_that_hears(answer: httpx.Response | Exception) -> TokenEndpoint:
    def handle(_: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return TokenEndpoint(
        "https://server.test/token",
        "client",
        name="Server",
        device_authorization_endpoint="https://server.test/device",
        client=httpx.AsyncClient(transport=httpx.MockTransport(handle)),
    )


GOOD = {
    "device_code": "d",
    "user_code": "U",
    "verification_uri": "https://server.test/go",
    "expires_in": 60,
}


@pytest.mark.parametrize(
    "answer, words",
    [
        (httpx.ConnectError("refused"), "could not be reached"),
        (httpx.Response(200, text="<html>"), "status 200"),
        (httpx.Response(200, text="[1]"), "status 200"),
        (httpx.Response(500, text="[" * 100_000), "status 500"),
        (httpx.Response(200, json={**GOOD, "device_code": None}), "status 200"),
        (httpx.Response(200, text=json.dumps({**GOOD, "device_code": "d\ud800"})), "status 200"),
        (httpx.Response(200, json={**GOOD, "user_code": 7}), "status 200"),
        (httpx.Response(200, json={**GOOD, "user_code": ""}), "status 200"),
        (httpx.Response(200, json={**GOOD, "user_code": "A\x1b[2J"}), "status 200"),
        (httpx.Response(200, json={**GOOD, "user_code": "A\u202eB"}), "status 200"),
        (httpx.Response(200, json={**GOOD, "user_code": "A" * 2_049}), "status 200"),
        (httpx.Response(200, json={**GOOD, "verification_uri": "https://x/" + "a" * 2_048}), "200"),
        (httpx.Response(200, json={**GOOD, "verification_uri": "https://x.test/\x1b"}), "200"),
        (httpx.Response(200, json={**GOOD, "verification_uri": "https://x.test/\u202e"}), "200"),
        (httpx.Response(200, json={**GOOD, "verification_uri_complete": "https://\n"}), "200"),
        (httpx.Response(400, json={"error": "e\x1b[2J\nf"}), r"400, e [2J f)"),
        (httpx.Response(200, json={**GOOD, "verification_uri": None}), "status 200"),
        (httpx.Response(200, json={**GOOD, "verification_uri": "http://x.test"}), "status 200"),
        (httpx.Response(400, json={"error": "unauthorized_client"}), "unauthorized_client"),
    ],
)
async def test_a_server_that_begins_no_device_login_is_reported(
    answer: httpx.Response | Exception, words: str
) -> None:
    with pytest.raises(LoginFailed) as caught:
        await endpoint_that_hears(answer).device_authorization()
    assert words in str(caught.value)


async def test_what_a_device_answer_leaves_out_is_as_in_the_rfc() -> None:
    fields = {**GOOD, "verification_url": GOOD["verification_uri"]}
    del fields["verification_uri"]
    device = await endpoint_that_hears(httpx.Response(200, json=fields)).device_authorization()
    assert device.interval == 5
    assert device.verification_uri == "https://server.test/go"
    assert device.verification_uri_complete is None


@pytest.mark.parametrize(
    "interval, kept", [(0.001, 1.0), (0, 5.0), (-1, 5.0), ("2", 2.0), (1e6, 300.0), (None, 5.0)]
)
async def test_a_device_asks_once_a_second_at_most_and_every_five_minutes_at_least(
    interval: object, kept: float
) -> None:
    answer = httpx.Response(200, json={**GOOD, "interval": interval})
    assert (await endpoint_that_hears(answer).device_authorization()).interval == kept


@virtual_time
async def test_a_device_of_ones_own_making_asks_no_faster_and_no_longer_than_a_day() -> None:
    server = server_of()
    async with asked(server) as (_, endpoint):
        begun = await endpoint.device_authorization()
        device = dataclasses.replace(begun, interval=0.001, expires_at=4e9)
        began = anyio.current_time()
        with anyio.move_on_after(30):
            await endpoint.device_token(device)
        assert server.token_requests <= 30
        server.script(*[Outage(status=503, body="")] * 60)
        with pytest.raises(LoginFailed, match="in time"):
            await endpoint.device_token(device)
    assert anyio.current_time() - began < 2 * 86_400


async def test_what_a_server_says_of_a_codes_lifetime_is_believed_for_a_day() -> None:
    answer = httpx.Response(200, json={**GOOD, "expires_in": 1e9})
    device = await endpoint_that_hears(answer).device_authorization()
    assert device.expires_at == pytest.approx(time.time() + 86_400, abs=60)
