"""The arguments for providers' rules: each is data of the endpoint, and is tested against a server with that rule."""

from __future__ import annotations

import inspect
import json
from typing import Any

import anyio
import httpx
import pytest

from httpx_refresh import (
    MemoryStore,
    ReauthorizationRequired,
    RefreshAuth,
    RefreshUnavailable,
    Token,
    TokenEndpoint,
)
from httpx_refresh._oauth.endpoint import EndpointOptions
from httpx_refresh._oauth.settings import LoginOptions
from httpx_refresh.testing import AuthorizationServer, LostAnswer
from tests.fakes import loop_wall, use_loop_time
from tests.virtual_time import virtual_time


def endpoint_of(server: AuthorizationServer, **ways: Any) -> TokenEndpoint:
    return TokenEndpoint(
        server.token_url,
        server.client_id,
        server.client_secret,
        client=lambda: httpx.AsyncClient(transport=server.transport()),
        origins=[server.issuer],
        **ways,
    )


def held(server: AuthorizationServer) -> Token:
    return Token.from_response(server.login())


# -- requests ------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_a_token_request_may_be_json(method: str) -> None:
    server = AuthorizationServer(request_format="json", auth_methods=[method])
    ways = {"client_auth": method, "params": {"scope": "a b"}}
    with pytest.raises(RefreshUnavailable, match="application/json"):
        await endpoint_of(server, **ways).refresh(held(server))
    server.login(scope="a b")
    token = Token.from_response(server.login(scope="a b"))
    await endpoint_of(server, request_format="json", **ways).refresh(token)
    call = server.token_calls[-1]
    sent = json.loads(call.body)
    assert call.headers["content-type"] == "application/json"
    assert sent["refresh_token"] == token.refresh_token
    assert (sent["grant_type"], sent["scope"]) == ("refresh_token", "a b")
    assert ("client_secret" in sent) == (method == "client_secret_post")


@pytest.mark.anyio
async def test_a_login_at_a_server_that_takes_json_is_json_and_a_revocation_is_a_form() -> None:
    server = AuthorizationServer(request_format="json")
    endpoint = endpoint_of(
        server,
        request_format="json",
        authorization_endpoint=f"{server.issuer}/authorize",
        revocation_endpoint=f"{server.issuer}/revoke",
    )
    request = endpoint.authorization_url("https://app.test/back")
    async with httpx.AsyncClient(transport=server.transport()) as browser:
        redirect = (await browser.get(request.url)).headers["location"]
    token = await endpoint.exchange_code(redirect, request)
    await endpoint.revoke(token)
    assert server.families[0].revoked


@pytest.mark.anyio
async def test_a_refresh_may_have_an_address_of_its_own() -> None:
    server = AuthorizationServer(refresh_path="/v1/oauth/refresh")
    token = held(server)
    with pytest.raises(RefreshUnavailable, match="not at this address"):
        await endpoint_of(server).refresh(token)
    endpoint = endpoint_of(server, refresh_url=f"{server.issuer}/v1/oauth/refresh")
    await endpoint.refresh(token)
    assert [call.path for call in server.token_calls] == ["/token", "/v1/oauth/refresh"]


@pytest.mark.anyio
async def test_a_refresh_alone_may_carry_a_parameter() -> None:
    back = "https://app.test/back"
    server = AuthorizationServer(refresh_params={"redirect_uri": back})
    token = held(server)
    with pytest.raises(RefreshUnavailable, match="redirect_uri is missing"):
        await endpoint_of(server).refresh(token)
    await endpoint_of(server, refresh_params={"redirect_uri": back}).refresh(token)


# -- answers -------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_lifetime_that_is_not_sent_is_the_default_one() -> None:
    server = AuthorizationServer(send_expires_in=False)
    assert (await endpoint_of(server).refresh(held(server))).expires_at is None
    endpoint = endpoint_of(server, default_lifetime=7200)
    token = await endpoint.refresh(held(server))
    assert token.expires_at == pytest.approx(server.clock() + 7200, abs=60)
    server.send_expires_in = True  # The server's own value takes precedence.
    token = await endpoint.refresh(held(server))
    assert token.expires_at == pytest.approx(server.clock() + 3600, abs=60)


@pytest.mark.anyio
async def test_an_answer_may_have_its_fields_in_another_place() -> None:
    server = AuthorizationServer(
        answer=lambda fields: {
            "code": 0,
            "data": {
                "token": fields["access_token"],
                "renewal": {"refresh_token": fields["refresh_token"]},
                "expires_in": 600,
                "open_id": "o1",
            },
        }
    )
    with pytest.raises(RefreshUnavailable):
        await endpoint_of(server).refresh(held(server))
    places = {
        "access_token": "data.token",
        "refresh_token": "data.renewal.refresh_token",
        "expires_in": "data.expires_in",
    }
    token = await endpoint_of(server, answer_fields=places).refresh(held(server))
    assert token.refresh_token is not None
    assert token.expires_at == pytest.approx(server.clock() + 600, abs=60)
    # The token is kept once, and the fields around it are kept, too.
    assert token.extra["code"] == 0
    assert token.extra["data"] == {"renewal": {}, "open_id": "o1"}
    assert token.access_token not in json.dumps(dict(token.extra))
    async with httpx.AsyncClient(transport=server.transport()) as client:
        headers = {"Authorization": f"Bearer {token.access_token}"}
        assert (await client.get(f"{server.api_url}/ping", headers=headers)).status_code == 200


@pytest.mark.anyio
@pytest.mark.parametrize(
    "written, moment",
    [
        ("2033-05-18T03:33:20Z", 2_000_000_000.0),
        ("2033-05-18T05:33:20+02:00", 2_000_000_000.0),
        ("2033-05-18T03:33:20", 2_000_000_000.0),
        ("2000-01-01T00:00:00Z", None),  # Long ago by this clock, so it is ignored.
        ("2033-13-18T03:33:20Z", None),
        ("T", None),
        ("9999-12-31T23:59:59-14:00", None),
        (2_000_000_000, 2_000_000_000.0),
    ],
)
async def test_a_moment_may_be_a_date_and_a_time(written: Any, moment: float | None) -> None:
    server = AuthorizationServer(
        answer=lambda fields: {"token": fields["access_token"], "expires_at": written}
    )
    endpoint = endpoint_of(server, answer_fields={"access_token": "token"})
    token = await endpoint.refresh(held(server))
    assert token.expires_at == moment


@pytest.mark.anyio
@pytest.mark.parametrize("body", [[], {"data": []}, {"data": {"token": 5}}, {"data": None}, "x"])
async def test_a_place_that_is_not_there_is_no_token(body: Any) -> None:
    server = AuthorizationServer(answer=lambda _: body)
    endpoint = endpoint_of(server, answer_fields={"access_token": "data.token"})
    with pytest.raises(RefreshUnavailable) as caught:
        await endpoint.refresh(held(server))
    assert caught.value.outcome == "unknown"


@pytest.mark.anyio
async def test_an_error_may_have_another_name() -> None:
    server = AuthorizationServer(dead_refresh_token=(400, {"code": "invalid_grant", "msg": "gone"}))
    endpoint = endpoint_of(server, answer_fields={"error": "code", "error_description": "msg"})
    with pytest.raises(ReauthorizationRequired) as caught:
        await endpoint.refresh(Token("A", "none of the server's"))
    assert (caught.value.error, caught.value.error_description) == ("invalid_grant", "gone")


# -- the grace that ends with the first use ------------------------------------------------------------------------


def doorkeeper() -> AuthorizationServer:
    return AuthorizationServer(reuse_grace="until_used", clock=loop_wall)


@pytest.fixture
def _loop_time(monkeypatch: pytest.MonkeyPatch) -> None:
    use_loop_time(monkeypatch)
    monkeypatch.setattr("time.time", loop_wall)


@pytest.mark.anyio
@virtual_time
@pytest.mark.usefixtures("_loop_time")
async def test_a_lost_answer_costs_no_caller_anything_until_the_new_token_is_used() -> None:
    server = doorkeeper()
    store = MemoryStore(json.dumps({**server.login(), "expires_at": loop_wall() - 1}))
    server.script(LostAnswer(), LostAnswer(half=True), LostAnswer())
    auth = RefreshAuth(endpoint_of(server, reuse_grace="until_used"), store)
    token = await auth.token()
    assert server.token_requests == 4
    assert server.reuses_detected == 0
    async with httpx.AsyncClient(transport=server.transport()) as client:
        headers = {"Authorization": f"Bearer {token.access_token}"}
        assert (await client.get(f"{server.api_url}/ping", headers=headers)).status_code == 200


@pytest.mark.anyio
@virtual_time
@pytest.mark.usefixtures("_loop_time")
async def test_without_that_grace_a_lost_answer_is_not_asked_for_again_at_once() -> None:
    server = AuthorizationServer(clock=loop_wall)
    store = MemoryStore(json.dumps({**server.login(), "expires_at": loop_wall() - 1}))
    server.script(LostAnswer())
    with pytest.raises(RefreshUnavailable):
        await RefreshAuth(endpoint_of(server), store).token()
    assert server.token_requests == 1


@pytest.mark.anyio
@virtual_time
@pytest.mark.usefixtures("_loop_time")
async def test_a_lost_answer_is_asked_for_again_however_late() -> None:
    """The first process loses all answers and ends; another one starts weeks later."""
    server = doorkeeper()
    store = MemoryStore(json.dumps({**server.login(), "expires_at": loop_wall() - 1}))
    server.token_behaviour = LostAnswer()
    first = RefreshAuth(endpoint_of(server, reuse_grace="until_used"), store)
    with pytest.raises(RefreshUnavailable) as caught:
        await first.token()
    assert caught.value.outcome == "unknown"
    asked = server.token_requests
    assert asked > 1
    server.token_behaviour = None
    await anyio.sleep(21 * 86_400)
    token = await RefreshAuth(endpoint_of(server, reuse_grace="until_used"), store).token()
    assert server.token_requests == asked + 1
    assert (server.reuses_detected, server.family_revocations) == (0, 0)
    async with httpx.AsyncClient(transport=server.transport()) as client:
        headers = {"Authorization": f"Bearer {token.access_token}"}
        assert (await client.get(f"{server.api_url}/ping", headers=headers)).status_code == 200


@pytest.mark.anyio
@virtual_time
@pytest.mark.usefixtures("_loop_time")
async def test_a_claim_that_was_left_is_no_end_of_such_a_grant() -> None:
    """The claim's owner died after the server had spent the token. The next process gets the same answer again."""
    server = doorkeeper()
    fields = server.login()
    claim = {"by": "elsewhere:1", "nonce": "n1", "since": loop_wall(), "for": 10.0}
    store = MemoryStore(
        json.dumps({**fields, "expires_at": loop_wall() - 1, "httpx_refresh": {"redeeming": claim}})
    )
    lost = endpoint_of(server, reuse_grace="until_used")
    await lost.refresh(Token.from_response(fields))  # Its answer is neither saved nor used.
    await RefreshAuth(endpoint_of(server, reuse_grace="until_used"), store).token()
    assert [event.outcome for event in server.events if hasattr(event, "grant_type")] == [
        "issued",
        "reissued",
    ]


# -- refused arguments ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong, error",
    [
        ({"request_format": "xml"}, ValueError),
        ({"refresh_url": "http://server.test/refresh"}, ValueError),
        ({"refresh_url": 5}, TypeError),
        ({"refresh_params": {"grant_type": "x"}}, ValueError),
        ({"refresh_params": {"a": 1}}, TypeError),
        ({"answer_fields": {"access_token": "data..token"}}, ValueError),
        ({"answer_fields": {"access_token": ""}}, ValueError),
        ({"answer_fields": {"access_token": 1}}, TypeError),
        ({"default_lifetime": -1}, ValueError),
        ({"default_lifetime": "3600"}, TypeError),
        ({"reuse_grace": "for ever"}, TypeError),
        ({"reuse_grace": float("inf")}, ValueError),
        ({"exclusive_grants": "account_credentials"}, TypeError),
        ({"exclusive_grants": [7]}, TypeError),
        ({"jwt_bearer": "x"}, TypeError),
        ({"jwt_bearer": {"audiense": "x"}}, TypeError),
        ({"jwt_bearer": {"lifetime": 0}}, ValueError),
        ({"jwt_bearer": {"audience": ""}}, ValueError),
        ({"jwt_bearer": {"scope_as": "header"}}, ValueError),
    ],
)
def test_what_cannot_be_meant_is_named(wrong: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(wrong))):
        TokenEndpoint("https://server.test/token", "id", **wrong)


def test_an_argument_that_is_none_names_the_one_that_was_meant() -> None:
    with pytest.raises(TypeError, match=r"'orgins'\. Did you mean 'origins'\?"):
        TokenEndpoint("https://server.test/token", "id", orgins=["https://api.test"])  # type: ignore[call-arg]  # the claim: it is a type error, too
    with pytest.raises(TypeError, match=r"keyword argument 'zzz'"):
        TokenEndpoint("https://server.test/token", "id", zzz=1)  # type: ignore[call-arg]  # as above


def test_the_options_of_an_endpoint_are_its_arguments() -> None:
    parameters = inspect.signature(TokenEndpoint.__init__).parameters.values()
    keywords = {one.name for one in parameters if one.kind is one.KEYWORD_ONLY}
    assert keywords | LoginOptions.__optional_keys__ == EndpointOptions.__optional_keys__
