"""Each preset, unchanged, against a server that answers as its provider does."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Literal

import anyio
import httpx
import pytest

from httpx_refresh import MemoryStore, ReauthorizationRequired, RefreshAuth, RefreshUnavailable
from httpx_refresh.providers import PRESETS
from httpx_refresh.testing import AuthorizationServer, LostAnswer
from tests.fakes import loop_wall, use_loop_time
from tests.providers.needed import needed
from tests.providers.test_providers import method_of
from tests.virtual_time import virtual_time

if TYPE_CHECKING:
    from httpx_refresh import TokenEndpoint
    from httpx_refresh.providers import Provider

REFRESHED = [name for name, one in PRESETS.items() if "refresh_token" in one.provider.grants]
each = pytest.mark.parametrize("name", REFRESHED)
in_virtual_time = pytest.mark.usefixtures("_loop_time")

# How these refuse an invalid refresh token; the others follow RFC 6749.
DEAD: dict[str, tuple[int, dict[str, Any]]] = {
    "atlassian": (
        403,
        {"error": "unauthorized_client", "error_description": "refresh_token is invalid"},
    ),
    "exact_online": (401, {"message": "Unauthorized Client: Old refresh token used."}),
    "github": (200, {"error": "bad_refresh_token"}),
    "hubspot": (
        400,
        {"status": "BAD_REFRESH_TOKEN", "message": "missing or unknown refresh token"},
    ),
    "notion": (
        400,
        {
            "object": "error",
            "status": 400,
            "code": "invalid_grant",
            "message": "OAuth grant revoked",
        },
    ),
    "slack": (200, {"ok": False, "error": "invalid_refresh_token"}),
    "twoba": (400, {"message": "The request is invalid."}),
    "x": (
        400,
        {
            "error": "invalid_request",
            "error_description": "Value passed for the token was invalid.",
        },
    ),
    "zoho": (200, {"error": "invalid_code"}),
}

# Further fields of an answer, and missing ones.
ANSWERS: dict[str, Any] = {
    "salesforce": lambda fields: {**fields, "instance_url": "https://acme.my.salesforce.com"},
    "slack": lambda fields: {"ok": True, **fields},
    "square": lambda fields: {
        **{name: value for name, value in fields.items() if name != "expires_in"},
        "expires_at": "2099-01-01T00:00:00Z",
    },
    "strava": lambda fields: {**fields, "expires_at": int(loop_wall() + fields["expires_in"])},
    "zoho": lambda fields: {
        **fields,
        "expires_in": fields["expires_in"] * 1000,
        "expires_in_sec": fields["expires_in"],
    },
}

REDIRECT = "https://app.test/back"


@pytest.fixture
def _loop_time(monkeypatch: pytest.MonkeyPatch) -> None:
    use_loop_time(monkeypatch)
    monkeypatch.setattr("time.time", loop_wall)


def server_like(name: str, provider: Provider) -> AuthorizationServer:
    """Return a server with the provider's rules, as far as they are known."""
    options = provider.options
    grace = math.inf if provider.grace == "stays_valid" else provider.grace
    rotate: dict[str, bool | Literal["same"]] = {"never": False, "sometimes": "same"}
    secret_as_user = getattr(provider.client_auth, "secret_as_user", False)
    return AuthorizationServer(
        clients={"s:e/c+r%t": ""} if secret_as_user else {"id": "s:e/c+r%t"},
        auth_methods=[method_of(provider)],
        lifetime=provider.access_token_lifetime or 3600.0,
        send_expires_in="default_lifetime" not in options,
        rotate=rotate.get(provider.rotation, True),
        reuse_grace=grace or 0.0,
        request_format=options.get("request_format", "form"),
        refresh_path="/refresh" if "refresh_url" in options else "/token",
        refresh_params={"redirect_uri": REDIRECT} if name == "gitlab" else {},
        authorization_scheme=options.get("authorization_scheme", "Bearer"),
        dead_refresh_token=DEAD.get(name),
        answer=ANSWERS.get(name, dict),
        clock=loop_wall,
    )


class Routed(httpx.AsyncBaseTransport):
    """Maps the provider's addresses to those of the test server; there are no others."""

    def __init__(self, server: AuthorizationServer, endpoint: TokenEndpoint | None = None) -> None:
        self.endpoint = endpoint
        self.transport = server.transport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert self.endpoint is not None
        # The address for refreshes may differ from the token endpoint's in its query only.
        paths = {self.endpoint.url: "/token"}
        if self.endpoint.refresh_url != self.endpoint.url:
            paths[self.endpoint.refresh_url] = "/refresh"
        path = paths.get(str(request.url), "/api/ping")
        assert (path == "/api/ping") == (request.method == "GET"), request.url
        request.url = request.url.copy_with(path=path, query=None)
        return await self.transport.handle_async_request(request)


class World:
    """One preset, its provider's server, a login, and a client of the API."""

    def __init__(self, name: str) -> None:
        provider = PRESETS[name].provider
        self.server = server_like(name, provider)
        route = Routed(self.server)
        told: dict[str, Any] = {
            "client": lambda: httpx.AsyncClient(transport=Routed(self.server, self.endpoint)),
            **({"redirect_uri": REDIRECT} if name == "gitlab" else {}),
            **({} if provider.origins else {"origins": ["https://api.acme.test"]}),
        }
        self.endpoint: TokenEndpoint = PRESETS[name].function(
            "id", "s:e/c+r%t", **needed(name), **told
        )
        route.endpoint = self.endpoint
        self.token = self.server.login()
        lifetime = self.server.lifetime
        self.store = MemoryStore(
            json.dumps({**self.token, "expires_in": lifetime, "expires_at": loop_wall() + lifetime})
        )
        self.auth = RefreshAuth(self.endpoint, self.store)
        self.client = httpx.AsyncClient(transport=route, auth=self.auth)
        origin = next(iter(self.endpoint.origins or ()))
        self.api = origin.replace("*", "acme") + "/v1/things"

    async def held(self) -> dict[str, Any]:
        text = await self.store.load()
        assert text is not None
        fields: dict[str, Any] = json.loads(text)
        return fields

    async def call_from_many(self) -> list[int]:
        statuses: list[int] = []

        async def call() -> None:
            statuses.append((await self.client.get(self.api)).status_code)

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(call)
        return statuses


@pytest.mark.anyio
@virtual_time
@in_virtual_time
@each
async def test_one_token_request_an_expiry_as_the_provider_wants_it(name: str) -> None:
    world = World(name)
    provider, server = PRESETS[name].provider, world.server
    for expiry in (1, 2):
        await anyio.sleep(server.lifetime + 1)
        assert await world.call_from_many() == [200] * 10
        assert server.token_requests == expiry
    call, held = server.token_calls[-1], await world.held()
    uses_basic = method_of(provider) == "client_secret_basic"
    assert ("authorization" in call.headers) == uses_basic
    assert held["expires_at"] > loop_wall()
    if server.rotate is True:
        assert held["refresh_token"] != world.token["refresh_token"]
    else:
        assert held["refresh_token"] == world.token["refresh_token"]
    assert (server.reuses_detected, server.family_revocations) == (0, 0)


@pytest.mark.anyio
@virtual_time
@in_virtual_time
@each
async def test_what_a_lost_answer_costs_is_what_the_provider_s_grace_says(name: str) -> None:
    world = World(name)
    provider, server = PRESETS[name].provider, world.server
    await anyio.sleep(server.lifetime + 1)
    server.script(LostAnswer())
    if provider.grace:  # The same caller is served by the same flight.
        assert await world.call_from_many() == [200] * 10
        assert server.token_requests == 2
        return
    with pytest.raises(RefreshUnavailable):
        await world.client.get(world.api)
    assert server.token_requests == 1
    await anyio.sleep(60)
    if server.rotate is True:  # A strict server has ended the grant.
        with pytest.raises(ReauthorizationRequired):
            await world.client.get(world.api)
    else:
        assert await world.call_from_many() == [200] * 10
    assert server.token_requests == 2


@pytest.mark.anyio
@virtual_time
@in_virtual_time
@each
async def test_a_dead_refresh_token_is_known_by_what_the_provider_says(name: str) -> None:
    world = World(name)
    await anyio.sleep(world.server.lifetime + 1)
    world.server.revoke_family()
    for _ in range(3):
        with pytest.raises(ReauthorizationRequired):
            await world.client.get(world.api)
    assert world.server.token_requests == 1


@pytest.mark.anyio
@virtual_time
@in_virtual_time
@pytest.mark.parametrize(
    # Exact Online replaces no token before its end; Slack's API says token_expired, which this server's does not.
    "name",
    [name for name in REFRESHED if name not in ("exact_online", "slack")],
)
async def test_a_token_that_ends_early_is_replaced_as_well(name: str) -> None:
    world = World(name)
    assert await world.call_from_many() == [200] * 10
    world.server.expire_access_tokens()
    assert await world.call_from_many() == [200] * 10
    assert world.server.token_requests == 1
