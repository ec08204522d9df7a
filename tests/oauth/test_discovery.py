from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from httpx_refresh import LoginFailed, RefreshUnavailable, discover
from httpx_refresh.testing import AuthorizationServer, running_server

pytestmark = pytest.mark.anyio

ISSUER = "https://server.test"
OAUTH = "/.well-known/oauth-authorization-server"
OPENID = "/.well-known/openid-configuration"
FACTS = {"issuer": ISSUER, "token_endpoint": f"{ISSUER}/token"}


def client_of(
    answer: Callable[[httpx.Request], httpx.Response],
) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


def serving(**pages: Any) -> httpx.AsyncClient:
    """A server with these pages: text as it stands, all else as JSON."""
    where = {"oauth": OAUTH, "openid": OPENID}

    def answer(request: httpx.Request) -> httpx.Response:
        for name, page in pages.items():
            if request.url.path == where[name]:
                return httpx.Response(200, text=page if isinstance(page, str) else json.dumps(page))
        return httpx.Response(404, text="{}")

    return client_of(answer)


async def test_a_server_is_found_by_its_issuer() -> None:
    server = AuthorizationServer()
    async with httpx.AsyncClient(transport=server.transport()) as client:
        endpoint = await discover(server.issuer, "client", "secret", client=client, scope="a")
    assert endpoint.url == server.token_url
    assert endpoint.token_endpoint_auth_method == "client_secret_basic"
    assert endpoint.login.authorization_endpoint == f"{server.issuer}/authorize"
    assert endpoint.login.device_authorization_endpoint == f"{server.issuer}/device_authorization"
    assert endpoint.login.revocation_endpoint == f"{server.issuer}/revoke"
    assert endpoint.login.sends_iss
    assert endpoint.login.scope == "a"
    assert endpoint.name == "server.test"


async def test_a_server_is_asked_over_a_connection_of_ones_own_where_no_client_is_given() -> None:
    with running_server() as server:
        endpoint = await discover(server.url, "client", "secret")
        assert endpoint.url == server.token_url


async def test_openid_discovery_is_the_second_place_to_look() -> None:
    client = serving(oauth="no json", openid={**FACTS, "authorization_endpoint": f"{ISSUER}/a"})
    endpoint = await discover(ISSUER, "client", client=client)
    assert endpoint.login.authorization_endpoint == f"{ISSUER}/a"


async def test_a_server_that_says_nothing_of_pkce_does_not_have_it() -> None:
    """RFC 8414 section 2: where code_challenge_methods_supported is absent, PKCE is not supported."""
    facts = {**FACTS, "authorization_endpoint": f"{ISSUER}/authorize"}
    endpoint = await discover(ISSUER, "client", client=serving(oauth=facts))
    with pytest.raises(LoginFailed, match="does not support PKCE"):
        endpoint.authorization_url("http://127.0.0.1/callback")


@pytest.mark.parametrize(
    "supported, method",
    [
        (None, "client_secret_basic"),
        (["client_secret_post"], "client_secret_post"),
        (["private_key_jwt", "client_secret_post", "client_secret_basic"], "client_secret_basic"),
        (["tls_client_auth"], "client_secret_basic"),
        ("client_secret_post", "client_secret_basic"),
    ],
)
async def test_a_client_authenticates_in_a_way_that_the_server_knows(
    supported: Any, method: str
) -> None:
    facts = {**FACTS, "token_endpoint_auth_methods_supported": supported}
    endpoint = await discover(ISSUER, "client", "secret", client=serving(oauth=facts))
    assert endpoint.token_endpoint_auth_method == method
    public = await discover(ISSUER, "client", client=serving(oauth=facts))
    assert public.token_endpoint_auth_method == "none"


@pytest.mark.parametrize(
    "pages, words",
    [
        ({}, "serves no metadata"),
        ({"oauth": "[]", "openid": "[" * 100_000}, "serves no metadata"),
        ({"oauth": '{"issuer": "' + "x" * 1_100_000}, "serves no metadata"),
        ({"oauth": {**FACTS, "issuer": f"{ISSUER}/"}}, "names another issuer"),
        ({"oauth": {"token_endpoint": f"{ISSUER}/token"}}, "names another issuer"),
        ({"oauth": {"issuer": ISSUER, "token_endpoint": 7}}, "names no token_endpoint"),
        ({"oauth": {**FACTS, "token_endpoint": "http://x.test/"}}, "must be https"),
    ],
)
async def test_metadata_that_cannot_be_used_is_refused(pages: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        await discover(ISSUER, "client", client=serving(**pages))


async def test_a_token_endpoint_that_is_given_need_not_be_found() -> None:
    client = serving(oauth={"issuer": ISSUER})
    endpoint = await discover(ISSUER, "client", client=client, url="https://other.test/token")
    assert endpoint.url == "https://other.test/token"


async def test_an_issuer_is_asked_over_https_only() -> None:
    with pytest.raises(ValueError, match="issuer must be https"):
        await discover("http://server.test", "client", client=serving())


async def test_a_server_that_cannot_be_reached_is_reported_as_such() -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(RefreshUnavailable, match="ConnectError") as caught:
        await discover(ISSUER, "client", client=client_of(refuse))
    assert caught.value.outcome == "not_sent"
