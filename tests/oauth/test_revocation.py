from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from httpx_refresh import OriginNotAllowed, RevocationFailed, Token, TokenEndpoint, providers
from httpx_refresh.testing import AuthorizationServer
from tests.oauth.test_login import asked

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("which", ["refresh_token", "access_token"])
async def test_a_token_that_was_given_back_is_no_longer_good(which: str) -> None:
    server = AuthorizationServer()
    token = Token.from_response(server.login())
    given = token if which == "refresh_token" else Token(token.access_token)
    async with asked(server) as (client, endpoint):
        await endpoint.revoke(given)
        headers = {"Authorization": f"Bearer {token.access_token}"}
        assert (await client.get(f"{server.api_url}/ping", headers=headers)).status_code == 401


class Heard:
    """A server that answers every request with one status, and keeps the requests."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.requests: list[httpx.Request] = []
        self.client = httpx.AsyncClient(transport=httpx.MockTransport(self.handle))

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if not self.status:
            raise httpx.ConnectError("refused")
        return httpx.Response(self.status)


async def test_intuit_is_asked_in_json() -> None:
    heard = Heard()
    await providers.quickbooks("client", "secret", client=heard.client).revoke(Token("a", "r"))
    (request,) = heard.requests
    assert request.headers["content-type"] == "application/json"
    assert request.headers["authorization"].startswith("Basic ")
    assert json.loads(request.content) == {"token": "r"}


async def test_a_refresh_token_that_cannot_be_sent_is_in_no_exception() -> None:
    endpoint = providers.quickbooks("client", "secret", client=Heard().client)
    for sent in (
        endpoint,
        TokenEndpoint("https://as.test/", "id", revocation_endpoint="https://as.test/r"),
    ):
        with pytest.raises(RevocationFailed, match="Nothing was sent") as caught:
            await sent.revoke(Token("a", "s3cr3t\ud800"))
        assert "s3cr3t" not in f"{caught.value!r}"


@pytest.mark.parametrize(
    "status, words",
    [(0, "could not be reached"), (503, "Try again later"), (401, "Check the client id")],
)
async def test_a_revocation_that_is_not_confirmed_is_reported(status: int, words: str) -> None:
    endpoint = TokenEndpoint(
        "https://server.test/token",
        "client",
        "secret",
        revocation_endpoint="https://server.test/revoke",
        client=Heard(status).client,
    )
    with pytest.raises(RevocationFailed) as caught:
        await endpoint.revoke(Token("access", "SECRET"))
    assert words in str(caught.value)
    assert "may still be good" in str(caught.value)
    assert "SECRET" not in str(caught.value)


async def test_a_public_client_sends_an_empty_secret_where_the_server_misses_one() -> None:
    """The MCP SDK's servers require the field of every client."""
    sent: list[dict[str, list[str]]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(parse_qs(request.content.decode(), keep_blank_values=True))
        if "client_secret" in sent[-1]:
            return httpx.Response(200)
        said = {"error": "invalid_request", "error_description": "client_secret: Field required"}
        return httpx.Response(400, json=said)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        endpoint = TokenEndpoint(
            "https://server.test/token",
            "client",
            revocation_endpoint="https://server.test/revoke",
            client=client,
        )
        await endpoint.revoke(Token("a", "r"))
    first, second = sent
    assert (first["token"], first["client_id"]) == (["r"], ["client"])
    assert second == {**first, "client_secret": [""]}


@pytest.mark.parametrize(
    "options, extra, host",
    [
        ({"domain": "acme"}, {}, "acme.my.salesforce.com"),
        ({}, {"instance_url": "https://acme.my.salesforce.com"}, "acme.my.salesforce.com"),
    ],
)
async def test_salesforce_revokes_where_the_token_is_at_home(
    options: dict[str, Any], extra: dict[str, Any], host: str
) -> None:
    heard = Heard()
    endpoint = providers.salesforce("client", "secret", client=heard.client, **options)
    await endpoint.revoke(Token("a", "r", extra=extra))
    assert [request.url.host for request in heard.requests] == [host]


async def test_a_home_that_the_token_names_is_not_trusted_beyond_the_providers_origins() -> None:
    heard = Heard()
    endpoint = providers.salesforce("client", "secret", client=heard.client)
    with pytest.raises(OriginNotAllowed):
        await endpoint.revoke(Token("a", "r", extra={"instance_url": "https://mallory.example"}))
    with pytest.raises(ValueError, match="came with none"):
        await endpoint.revoke(Token("a", "r"))
    assert heard.requests == []


@pytest.mark.parametrize(
    "home",
    [
        "https://acme.my.salesforce.com/evil",
        "https://acme.my.salesforce.com?to=evil",
        "https://user@acme.my.salesforce.com",
        "https://acme.my.salesforce.com#evil",
        "http://acme.my.salesforce.com",
        "acme.my.salesforce.com",
        "https://acme.my.salesforce.com.evil.test",
        "https://a\nb",
        "https://xn--nxasmq6bstate",  # encoded, and no name that idna knows
        "https://\ud800",
        "",
    ],
)
async def test_a_home_that_is_more_than_an_origin_gets_no_token(home: str) -> None:
    heard = Heard()
    endpoint = providers.salesforce("client", "secret", client=heard.client)
    with pytest.raises(OriginNotAllowed, match=r"nothing was sent|Nothing was sent"):
        await endpoint.revoke(Token("a", "r", extra={"instance_url": home}))
    assert heard.requests == []


@pytest.mark.parametrize("origins", [None, "any"])
async def test_a_home_is_not_believed_where_no_origins_are_named(origins: str | None) -> None:
    """Anybody who can write to the store can choose it."""
    heard = Heard()
    endpoint = providers.salesforce("client", "secret", client=heard.client, origins=origins)
    token = Token("a", "r", extra={"instance_url": "https://acme.my.salesforce.com"})
    with pytest.raises(OriginNotAllowed, match="Pass origins="):
        await endpoint.revoke(token)
    assert heard.requests == []
