"""The server can require stronger logins and claims, for tests of these cases."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from httpx_refresh import RefreshAuth, StepUpRequired, Token
from httpx_refresh.testing import AuthorizationServer, Call, Challenge, Family
from tests.fakes import auth_of, client_of, endpoint_of

pytestmark = pytest.mark.anyio

CLAIMS = {"access_token": {"acrs": {"essential": True, "value": "c1"}}}


def pay_wants(challenge: Challenge, name: str, value: str) -> Any:
    def step_up(call: Call, family: Family) -> Challenge | None:
        return challenge if call.path == "/api/pay" and family.asked.get(name) != value else None

    return step_up


async def test_a_stronger_login_is_asked_for_until_there_was_one() -> None:
    gold = Challenge(error="insufficient_user_authentication", acr_values="gold", max_age=60)
    server = AuthorizationServer(step_up=pay_wants(gold, "acr_values", "gold"))
    auth = auth_of(server)
    async with client_of(server, auth=auth) as client:
        assert (await client.get("/ping")).status_code == 200
        with pytest.raises(StepUpRequired) as caught:
            await client.post("/pay")
        assert caught.value.params == {"acr_values": "gold", "max_age": "60"}
        await auth.set_token(await log_in(server, auth, caught.value))
        assert (await client.post("/pay")).status_code == 200
    assert [event.outcome for event in server.events if event.kind == "api"] == [
        "accepted",
        "insufficient_user_authentication",
        "accepted",
    ]
    assert (server.api_refused, server.token_requests) == (1, 1)


async def log_in(server: AuthorizationServer, auth: RefreshAuth, error: StepUpRequired) -> Token:
    """Log in as the error says, in a browser's place."""
    endpoint = endpoint_of(server, authorization_endpoint=f"{server.issuer}/authorize")
    request = endpoint.authorization_url("https://app.test/back", **error.params)
    async with httpx.AsyncClient(transport=server.transport()) as browser:
        answer = await browser.get(request.url)
    return await endpoint.exchange_code(answer.headers["location"], request)


async def test_a_403_asks_for_scope_and_a_login_with_all_of_it_brings_it() -> None:
    def step_up(call: Call, family: Family) -> Challenge | None:
        if "pay" in family.scope.split():
            return None
        return Challenge(error="insufficient_scope", scope="pay")

    server = AuthorizationServer(step_up=step_up)
    auth = auth_of(server)
    await auth.set_token(Token.from_response(server.login(scope="read")))
    async with client_of(server, auth=auth) as client:
        response = await client.post("/pay")
        assert response.status_code == 403
        error = StepUpRequired.from_response(response)
        assert error is not None
        assert error.params == {"scope": "read pay"}
        await auth.set_token(await log_in(server, auth, error))
        assert (await client.post("/pay")).status_code == 200
    assert server.families[-1].scope == "read pay"
