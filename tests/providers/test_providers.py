"""The presets: what each knows, and which of its API's responses mean an expired token."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from httpx_refresh import MemoryStore, OriginNotAllowed, RefreshAuth, providers
from httpx_refresh._http.challenge import Expired, challenge_of
from httpx_refresh.providers import __all__ as names
from tests.fakes import both_libraries

if TYPE_CHECKING:
    from collections.abc import Callable

    from httpx_refresh import TokenEndpoint

BASIC, POST = "client_secret_basic", "client_secret_post"
GRACE_FOR_EVER = 86_400.0

# url, client authentication, origins, reuse grace
FACTS: dict[str, tuple[str, str, tuple[str, ...], float]] = {
    "xero": ("identity.xero.com/connect/token", BASIC, ("https://api.xero.com",), 1800.0),
    "quickbooks": (
        "oauth.platform.intuit.com/oauth2/v1/tokens/bearer",
        BASIC,
        ("https://quickbooks.api.intuit.com", "https://sandbox-quickbooks.api.intuit.com"),
        0.0,
    ),
    "salesforce": (
        "login.salesforce.com/services/oauth2/token",
        POST,
        ("https://*.salesforce.com",),
        0.0,
    ),
    "twoba": ("authorize.2ba.nl/OAuth/Token", POST, ("https://api.2ba.nl",), 0.0),
    "hubspot": ("api.hubapi.com/oauth/2026-03/token", POST, ("https://api.hubapi.com",), 0.0),
    "google": ("oauth2.googleapis.com/token", POST, ("https://*.googleapis.com",), 0.0),
    "microsoft": (
        "login.microsoftonline.com/common/oauth2/v2.0/token",
        POST,
        ("https://graph.microsoft.com",),
        GRACE_FOR_EVER,
    ),
    "atlassian": ("auth.atlassian.com/oauth/token", POST, ("https://api.atlassian.com",), 600.0),
    "zoho": (
        "accounts.zoho.com/oauth/v2/token",
        POST,
        ("https://www.zohoapis.com",),
        GRACE_FOR_EVER,
    ),
    "slack": (
        "slack.com/api/oauth.v2.access",
        BASIC,
        ("https://slack.com", "https://files.slack.com"),
        0.0,
    ),
    "github": (
        "github.com/login/oauth/access_token",
        POST,
        ("https://api.github.com", "https://uploads.github.com"),
        0.0,
    ),
    "dropbox": (
        "api.dropboxapi.com/oauth2/token",
        POST,
        ("https://api.dropboxapi.com", "https://content.dropboxapi.com"),
        GRACE_FOR_EVER,
    ),
    "box": (
        "api.box.com/oauth2/token",
        POST,
        ("https://api.box.com", "https://upload.box.com"),
        0.0,
    ),
    "exact_online": (
        "start.exactonline.nl/api/oauth2/token",
        POST,
        ("https://start.exactonline.nl",),
        0.0,
    ),
}

each = pytest.mark.parametrize("name", names)


def preset(name: str) -> Callable[..., TokenEndpoint]:
    function: Callable[..., TokenEndpoint] = getattr(providers, name)
    return function


def test_every_preset_has_its_facts_here() -> None:
    assert set(FACTS) == set(names)


@each
def test_a_preset_knows_its_provider(name: str) -> None:
    endpoint = preset(name)("id", "secret")
    url, method, origins, grace = FACTS[name]
    assert endpoint.url == f"https://{url}"
    assert endpoint.client_auth == method
    assert endpoint.origins == origins
    assert endpoint.reuse_grace == grace
    assert endpoint.name.replace(" ", "").lower() == {"twoba": "2ba"}.get(
        name, name.replace("_", "")
    )
    assert str(endpoint.login.authorization_endpoint).startswith("https://")


@each
def test_without_a_secret_it_is_a_public_client(name: str) -> None:
    assert preset(name)("id").client_auth == "none"


@each
def test_whatever_a_preset_knows_can_be_overridden(name: str) -> None:
    endpoint = preset(name)(
        "id",
        "secret",
        url="http://127.0.0.1:1/t",
        client_auth=BASIC,
        origins=["http://127.0.0.1:1"],
        reuse_grace=5,
        name="Mine",
        is_expired=None,
    )
    assert endpoint.url == "http://127.0.0.1:1/t"
    assert endpoint.client_auth == BASIC
    assert endpoint.origins == ("http://127.0.0.1:1",)
    assert endpoint.reuse_grace == 5.0
    assert endpoint.name == "Mine"
    assert endpoint.is_expired is None


@each
def test_a_preset_names_its_sources(name: str) -> None:
    assert "Sources: " in (preset(name).__doc__ or "")


@each
@both_libraries
@pytest.mark.anyio
async def test_a_preset_s_token_goes_to_no_stranger(name: str, http: Any) -> None:
    auth = RefreshAuth(preset(name)("id", "secret"), MemoryStore('{"access_token": "A"}'))
    transport = http.MockTransport(lambda _: http.Response(200))
    async with http.AsyncClient(transport=transport, auth=auth) as client:
        for host in ("stranger.test", "com", "api.test.evil.test"):
            with pytest.raises(OriginNotAllowed):
                await client.get(f"https://{host}/next")


@pytest.mark.parametrize(
    "domain, host",
    [
        ("login", "login.salesforce.com"),
        ("production", "login.salesforce.com"),
        ("TEST", "test.salesforce.com"),
        ("sandbox", "test.salesforce.com"),
        ("acme", "acme.my.salesforce.com"),
        ("acme.my", "acme.my.salesforce.com"),
        ("Acme.my.salesforce.com", "acme.my.salesforce.com"),
        ("acme--uat.sandbox", "acme--uat.sandbox.my.salesforce.com"),
        ("acme--uat.sandbox.my.salesforce.com", "acme--uat.sandbox.my.salesforce.com"),
    ],
)
def test_salesforce_has_a_host_for_each_domain(domain: str, host: str) -> None:
    endpoint = providers.salesforce("id", domain=domain)
    assert endpoint.url == f"https://{host}/services/oauth2/token"
    assert endpoint.login.authorization_endpoint == f"https://{host}/services/oauth2/authorize"
    revoked_at = f"https://{host}" if host.endswith(".my.salesforce.com") else "{instance_url}"
    assert endpoint.login.revocation_endpoint == f"{revoked_at}/services/oauth2/revoke"


@pytest.mark.parametrize(
    "function, arguments",
    [
        (providers.salesforce, {"domain": ""}),
        (providers.salesforce, {"domain": "evil.test/"}),
        (providers.salesforce, {"domain": "-acme"}),
        (providers.salesforce, {"domain": "acme@evil"}),
        (providers.microsoft, {"tenant": "a/b"}),
        (providers.microsoft, {"tenant": ""}),
        (providers.zoho, {"dc": "com/evil"}),
        (providers.zoho, {"dc": "evil.test.com"}),
        (providers.exact_online, {"country": "xx"}),
    ],
)
def test_a_part_of_an_address_that_is_none_is_refused(
    function: Callable[..., TokenEndpoint], arguments: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        function("id", **arguments)


def test_parts_of_addresses_are_put_where_they_belong() -> None:
    tenant = "8eaef023-2b34-4da1-9baa-8bc8c9d6a490"
    assert f"/{tenant}/" in providers.microsoft("id", tenant=tenant).url
    assert providers.microsoft("id", tenant="contoso.com").url.count("/contoso.com/") == 1
    endpoint = providers.zoho("id", dc="com.au")
    assert endpoint.url == "https://accounts.zoho.com.au/oauth/v2/token"
    assert endpoint.origins == ("https://www.zohoapis.com.au",)
    endpoint = providers.exact_online("id", country="co.uk")
    assert endpoint.origins == ("https://start.exactonline.co.uk",)
    assert endpoint.url == "https://start.exactonline.co.uk/api/oauth2/token"
    assert endpoint.refresh_not_before_expiry == 30.0


# -- which responses mean an expired token -------------------------------------------------------------


def salesforce_says(message: str) -> list[dict[str, str]]:
    return [{"errorCode": "INVALID_SESSION_ID", "message": message}]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "name, status, body, expired",
    [
        ("xero", 401, {"Detail": "TokenExpired: token expired at ..."}, True),
        ("xero", 401, {"Detail": "AuthorizationUnsuccessful"}, False),
        ("xero", 401, None, True),
        ("xero", 403, {"Detail": "AuthenticationUnsuccessful"}, False),
        ("salesforce", 401, salesforce_says("Session expired or invalid"), True),
        (
            "salesforce",
            401,
            salesforce_says("This session is not valid for use with the REST API"),
            False,
        ),
        ("salesforce", 401, [], True),
        ("salesforce", 401, {"message": "x"}, True),
        ("slack", 200, {"ok": False, "error": "token_expired"}, True),
        ("slack", 200, {"ok": False, "error": "channel_not_found"}, False),
        ("slack", 200, {"ok": True}, False),
        ("slack", 200, None, False),
        ("slack", 401, {"ok": False, "error": "token_expired"}, True),
        ("dropbox", 401, {"error": {".tag": "expired_access_token"}}, True),
        ("dropbox", 401, {"error": {".tag": "missing_scope"}}, False),
        ("dropbox", 401, {"error": "text"}, True),
        ("dropbox", 401, None, True),
        ("quickbooks", 401, {"fault": {"error": [{"code": "3200"}]}}, True),
        ("twoba", 401, {"IsError": True}, True),
        ("hubspot", 401, {"category": "EXPIRED_AUTHENTICATION"}, True),
        ("google", 401, {"error": {"status": "UNAUTHENTICATED"}}, True),
        ("microsoft", 401, {"error": {"code": "InvalidAuthenticationToken"}}, True),
        ("atlassian", 401, None, True),
        ("atlassian", 404, None, False),
        ("zoho", 401, {"code": "INVALID_TOKEN"}, True),
        ("github", 401, {"message": "Bad credentials"}, True),
        ("box", 401, None, True),
        ("exact_online", 401, None, True),
    ],
)
async def test_an_api_says_in_its_own_way_that_a_token_has_expired(
    name: str, status: int, body: Any, expired: bool
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, content=b"" if body is None else json.dumps(body).encode())

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        response = await client.get("https://api.test/")
        challenge = await challenge_of(response, preset(name)("id").is_expired)
        assert isinstance(challenge, Expired) is expired


@pytest.mark.anyio
async def test_zohos_word_stands_before_the_token() -> None:
    headers: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        headers.append(request.headers["authorization"])
        return httpx.Response(200)

    auth = RefreshAuth(providers.zoho("id", "secret"), MemoryStore('{"access_token": "A"}'))
    transport = httpx.MockTransport(answer)
    async with httpx.AsyncClient(transport=transport, auth=auth) as client:
        await client.get("https://www.zohoapis.com/crm/v8/Leads")
    assert headers == ["Zoho-oauthtoken A"]
