from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from httpx_refresh import LoginFailed, RefreshUnavailable, discover
from httpx_refresh.testing import AuthorizationServer, running_server
from tests.virtual_time import virtual_time

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
    """A server with these pages: texts as they are, other values as JSON."""
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
    assert endpoint.client_auth == "client_secret_basic"
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
    assert endpoint.client_auth == method
    public = await discover(ISSUER, "client", client=serving(oauth=facts))
    assert public.client_auth == "none"


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


@pytest.mark.parametrize(
    "name", ["token_endpoint", "revocation_endpoint", "device_authorization_endpoint"]
)
@pytest.mark.parametrize(
    "url, words",
    [
        ("https://xn--nxasmq6bstate/token", "no URL"),
        ("http://127.0.0.1:8500/admin", "on this host"),
        ("https://localhost/admin", "on this host"),
        ("http://[::1]:1/", "on this host"),
        ("https://0.0.0.0/", "on this host"),
        ("https://[::]/", "on this host"),
        ("https://[::ffff:127.0.0.1]/", "on this host"),
        ("https://127.1/", "on this host"),
        ("https://2130706433/", "on this host"),
        ("https://0x7f.1/", "on this host"),
        ("https://localhost./", "on this host"),
        ("https://a.localhost/", "on this host"),
        ("http://10.0.0.1/token", "must be https"),
        ("ftp://server.test/token", "must be https"),
        ("https://a\nb/", "no URL"),
    ],
)
async def test_metadata_sends_no_secret_to_this_host_or_in_clear(
    name: str, url: str, words: str
) -> None:
    client = serving(oauth={**FACTS, name: url})
    with pytest.raises(ValueError, match=words):
        await discover(ISSUER, "client", "secret", client=client)
    with pytest.raises(ValueError, match=words if words == "no URL" else "on this host|https"):
        await discover(ISSUER, "client", "secret", client=client, allow_http=True)


async def test_an_issuer_on_this_host_may_name_endpoints_on_it() -> None:
    issuer = "http://127.0.0.1:8000"
    facts = {"issuer": issuer, "token_endpoint": "http://127.0.0.1:8001/token"}
    endpoint = await discover(issuer, "client", client=serving(oauth=facts))
    assert endpoint.url == "http://127.0.0.1:8001/token"


async def test_an_issuer_in_clear_is_for_those_who_say_so() -> None:
    issuer = "http://keycloak:8080/realms/a"
    facts = {"issuer": issuer, "token_endpoint": f"{issuer}/token"}
    pages = client_of(lambda _: httpx.Response(200, json=facts))
    with pytest.raises(ValueError, match="issuer must be https"):
        await discover(issuer, "client", client=pages)
    assert (await discover(issuer, "client", client=pages, allow_http=True)).allow_http


async def test_what_the_user_says_is_not_measured_by_the_issuer() -> None:
    facts = {**FACTS, "revocation_endpoint": "http://127.0.0.1/"}
    endpoint = await discover(
        ISSUER, "client", client=serving(oauth=facts), revocation_endpoint="http://localhost/r"
    )
    assert endpoint.login.revocation_endpoint == "http://localhost/r"


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_a_server_is_asked_with_nothing_of_the_clients_own(library: Any) -> None:
    heard: list[Any] = []

    def answer(request: Any) -> Any:
        heard.append(request)
        if request.url.host != "server.test":
            return library.Response(200, json=FACTS)
        return library.Response(302, headers={"location": "https://evil.test/"})

    client = library.AsyncClient(
        transport=library.MockTransport(answer),
        headers={"Authorization": "Bearer of-the-api", "X-Key": "of-the-api"},
        cookies={"session": "of-the-api"},
        params={"key": "of-the-api"},
        auth=("user", "of-the-api"),
        follow_redirects=True,
    )
    with pytest.raises(ValueError, match="serves no metadata"):
        await discover(ISSUER, "client", client=client)
    assert [request.url.host for request in heard] == ["server.test"] * 2
    for request in heard:
        assert "of-the-api" not in f"{request.url} {request.headers}"


async def test_a_client_of_discovery_may_be_made_by_a_callable() -> None:
    endpoint = await discover(ISSUER, "client", client=lambda: serving(oauth=FACTS))
    assert endpoint.url == FACTS["token_endpoint"]
    with pytest.raises(RefreshUnavailable, match="made NoneType") as caught:
        await discover(ISSUER, "client", client=lambda: None)  # type: ignore[arg-type, return-value]  # on purpose
    assert not caught.value.transient
    with pytest.raises(TypeError, match="client must be"):
        await discover(ISSUER, "client", client=7)  # type: ignore[arg-type]  # on purpose


@virtual_time
async def test_a_server_that_does_not_answer_holds_discovery_no_longer_than_its_timeout() -> None:
    async def hang(_: httpx.Request) -> httpx.Response:
        await anyio.sleep_forever()
        raise AssertionError("never")

    client = httpx.AsyncClient(transport=httpx.MockTransport(hang))
    began = anyio.current_time()
    with pytest.raises(RefreshUnavailable, match="nothing came within 5 s"):
        await discover(ISSUER, "client", client=client, timeout=5)
    assert anyio.current_time() - began == pytest.approx(5, abs=0.1)
