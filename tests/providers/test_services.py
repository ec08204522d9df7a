"""Presets for services with a key, and client credentials with the other presets."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import anyio
import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from httpx_refresh import MemoryStore, RefreshAuth, RefreshUnavailable, TokenEndpoint
from httpx_refresh.grants import ClientCredentials, Grant
from httpx_refresh.providers import (
    PRESETS,
    SERVICES,
    github_installation,
    google_service_account,
    zoom,
)
from httpx_refresh.testing import AuthorizationServer
from tests.providers.needed import needed
from tests.providers.test_providers import method_of

if TYPE_CHECKING:
    from pathlib import Path

KEY = RSAKey.generate_key(2048)
PEM = KEY.as_pem(private=True).decode()
ACCOUNT = {
    "type": "service_account",
    "client_email": "robot@acme.iam.gserviceaccount.com",
    "private_key_id": "k1",
    "private_key": PEM,
}


class Server:
    """Accepts assertions signed with `KEY`, and answers with `answer`; its clock may be ahead."""

    def __init__(self, *, ahead: float = 0.0) -> None:
        self.ahead = ahead
        self.requests: list[httpx.Request] = []
        self.claims: list[dict[str, Any]] = []
        self.headers: list[dict[str, Any]] = []

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        import time
        from email.utils import formatdate

        self.requests.append(request)
        if request.url.host == "api.github.com":
            assertion = request.headers["authorization"].removeprefix("Bearer ")
            token: dict[str, Any] = {
                "token": f"ghs_{len(self.requests)}",
                "expires_at": "2099-01-01T00:00:00Z",
            }
        else:
            assertion = parse_qs(request.content.decode())["assertion"][0]
            token = {"access_token": f"ya29.{len(self.requests)}", "expires_in": 3599}
        signed = jwt.decode(assertion, KEY, algorithms=["RS256"])
        self.claims.append(signed.claims)
        self.headers.append(signed.header)
        now = time.time() + self.ahead
        date = {"date": formatdate(now, usegmt=True)}
        if not signed.claims["iat"] - 5 <= now <= signed.claims["exp"]:
            if request.url.host == "api.github.com":  # It has no error codes.
                refused = {"message": "'Expiration time' claim ('exp') is in the past"}
                return httpx.Response(401, json=refused, headers=date)
            return httpx.Response(400, json={"error": "invalid_grant"}, headers=date)
        return httpx.Response(201, json=token, headers=date)


@pytest.mark.anyio
async def test_a_google_service_account_asks_as_google_wants_it(tmp_path: Path) -> None:
    file, server = tmp_path / "sa.json", Server()
    file.write_text(json.dumps(ACCOUNT))
    source = google_service_account(
        str(file), scope=["a", "b"], subject="ada@acme.test", client=server.client
    )
    auth = RefreshAuth(source)
    assert (await auth.token()).access_token == "ya29.1"
    (request,), (claims,) = server.requests, server.claims
    assert str(request.url) == "https://oauth2.googleapis.com/token"
    assert claims["exp"] - claims["iat"] == 3600
    assert {name: claims[name] for name in ("iss", "sub", "aud", "scope")} == {
        "iss": ACCOUNT["client_email"],
        "sub": "ada@acme.test",
        "aud": "https://oauth2.googleapis.com/token",
        "scope": "a b",
    }
    assert server.headers[0]["kid"] == "k1"
    file.write_text(json.dumps({**ACCOUNT, "private_key_id": "k2"}))  # The key was rotated.
    await auth.refresh()
    assert server.headers[1]["kid"] == "k2"
    file.unlink()
    with pytest.raises(RefreshUnavailable, match="passed as key cannot be read") as caught:
        await source.obtain(None)
    assert caught.value.outcome == "not_sent"
    assert len(server.requests) == 2


@pytest.mark.anyio
@pytest.mark.parametrize("ahead", [-600.0, 600.0])
async def test_an_assertion_that_is_refused_for_the_clock_follows_the_server_s(
    ahead: float,
) -> None:
    server = Server(ahead=ahead * 10)
    source = google_service_account(ACCOUNT, scope="a", client=server.client)
    await source.obtain(None)
    assert len(server.requests) == 2
    await source.obtain(None)
    assert len(server.requests) == 3
    server = Server(ahead=ahead)
    installation = github_installation("id", PEM, 7, client=server.client)
    assert (await installation.obtain(None)).access_token == "ghs_2"
    assert len(server.requests) == 2


@pytest.mark.anyio
async def test_a_github_installation_asks_as_github_wants_it() -> None:
    server = Server()
    source = github_installation(
        12, PEM, 345, repositories=["a"], permissions={"contents": "read"}, client=server.client
    )
    token = await RefreshAuth(source).token()
    assert token.access_token == "ghs_1"
    assert token.expires_at == 4_070_908_800.0
    (request,), (claims,) = server.requests, server.claims
    assert str(request.url) == "https://api.github.com/app/installations/345/access_tokens"
    assert json.loads(request.content) == {
        "repositories": ["a"],
        "permissions": {"contents": "read"},
    }
    assert claims["iss"] == "12"
    assert claims["exp"] - claims["iat"] <= 600


def test_a_github_enterprise_server_s_tokens_go_to_its_own_host() -> None:
    api = "https://ghe.acme.test/api/v3"
    source = github_installation("id", PEM, 7, api=api)
    assert source.endpoint.url == f"{api}/app/installations/7/access_tokens"
    assert source.origins == ("https://ghe.acme.test",)


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda: google_service_account("gone.json", scope="a"), "key cannot be read"),
        (lambda: google_service_account("", scope="a"), "key must not be empty"),
        (lambda: google_service_account(Path(__file__), scope="a"), "is not the JSON file of"),
        (lambda: google_service_account({**ACCOUNT, "private_key": 7}, scope="a"), "must hold"),
        (lambda: google_service_account({**ACCOUNT, "client_email": ""}, scope="a"), "must hold"),
        (lambda: google_service_account({**ACCOUNT, "private_key": "x"}, scope="a"), "key"),
        (lambda: google_service_account(ACCOUNT, scope=" "), "scope"),
        (lambda: google_service_account(ACCOUNT, scope="a", subject=""), "subject"),
        (lambda: github_installation("id", PEM, "7/x"), "installation_id"),
        (lambda: github_installation("", PEM, 7), "app_id"),
        (lambda: github_installation("id", "no key", 7), "key"),
        (lambda: github_installation("id", PEM, 7, api="api.github.com"), "api must be"),
        (lambda: github_installation("id", PEM, 7, api="https://a.test/"), "api must be"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(call: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        call()
    assert PEM not in str(caught.value)


def test_a_misspelt_argument_of_a_service_is_named() -> None:
    with pytest.raises(TypeError, match=r"Did you mean 'origins'\?"):
        google_service_account(ACCOUNT, scope="a", orgins=[])  # type: ignore[call-arg]  # the claim: it is a type error, too
    assert set(SERVICES) == {"google_service_account", "github_installation"}
    for one in SERVICES.values():
        assert one.sources
        assert one.provider.rotation == "none"


# -- client credentials ------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize(
    "name",
    [name for name, one in PRESETS.items() if "client_credentials" in one.provider.grants],
)
async def test_a_preset_serves_client_credentials(name: str) -> None:
    provider = PRESETS[name].provider
    options = provider.options
    server = AuthorizationServer(
        clients={"id": "s:e/c+r%t"},
        auth_methods=[method_of(provider)],
        request_format=options.get("request_format", "form"),
        send_expires_in="default_lifetime" not in options,
    )

    def route(request: httpx.Request) -> None:
        path = "/token" if str(request.url) == endpoint.url else "/api/ping"
        request.url = request.url.copy_with(path=path)

    class Routed(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            route(request)
            return await server.transport().handle_async_request(request)

    more = {} if provider.origins else {"origins": ["https://api.acme.test"]}
    endpoint: TokenEndpoint = PRESETS[name].function(
        "id",
        "s:e/c+r%t",
        **needed(name),
        **more,
        client=lambda: httpx.AsyncClient(transport=Routed()),
    )
    source = ClientCredentials(endpoint, scope="a b", params={"audience_hint": "x"})
    api = next(iter(endpoint.origins or ())).replace("*", "acme")
    statuses = []
    async with httpx.AsyncClient(transport=Routed(), auth=RefreshAuth(source)) as client:

        async def call() -> None:
            statuses.append((await client.get(f"{api}/v1/things")).status_code)

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(call)
    assert statuses == [200] * 10
    assert server.token_requests == 1


@pytest.mark.anyio
async def test_zoom_s_server_to_server_apps_share_a_store() -> None:
    server = AuthorizationServer(
        clients={"id": "secret"}, vendor_grants={"account_credentials": {"account_id": "acc"}}
    )

    class Routed(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            request.url = request.url.copy_with(path="/token")
            return await server.transport().handle_async_request(request)

    endpoint = zoom("id", "secret", client=lambda: httpx.AsyncClient(transport=Routed()))
    source = Grant(endpoint, "account_credentials", {"account_id": "acc"}, ends_previous=True)
    with pytest.raises((TypeError, ValueError), match="store"):
        RefreshAuth(source)
    store = MemoryStore()
    first, second = RefreshAuth(source, store), RefreshAuth(source, store)
    assert (await first.token()).access_token == (await second.token()).access_token
    assert server.token_requests == 1
    assert math.isfinite((await first.token()).expires_at or 0.0)
