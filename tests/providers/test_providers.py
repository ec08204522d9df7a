"""The presets: their facts, and which responses of their APIs mean an expired token."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from httpx_refresh import MemoryStore, OriginNotAllowed, RefreshAuth, providers
from httpx_refresh._http.challenge import Expired, challenge_of
from httpx_refresh.providers import PRESETS
from tests.fakes import both_libraries
from tests.providers.needed import needed

if TYPE_CHECKING:
    from collections.abc import Callable

    from httpx_refresh import TokenEndpoint
    from httpx_refresh.providers import Provider

BASIC, POST = "client_secret_basic", "client_secret_post"

each = pytest.mark.parametrize("name", PRESETS)


def preset(name: str) -> Callable[..., TokenEndpoint]:
    function: Callable[..., TokenEndpoint] = getattr(providers, name)
    return function


def made(preset_name: str, *client: str, **overrides: Any) -> TokenEndpoint:
    return preset(preset_name)(*(client or ("id", "secret")), **needed(preset_name), **overrides)


def method_of(provider: Provider) -> str:
    """Return how the provider's clients authenticate."""
    auth = provider.client_auth or BASIC
    return auth if isinstance(auth, str) else auth.method


def test_every_preset_is_public_and_there_are_thirty_six_and_more() -> None:
    assert set(PRESETS) <= set(providers.__all__)
    assert len(PRESETS) >= 36
    for name, one in PRESETS.items():
        assert getattr(providers, name).__wrapped__ is one.function
        assert one.required == needed(name).keys()


@each
def test_a_preset_is_what_is_known_of_its_provider(name: str) -> None:
    endpoint, provider = made(name), PRESETS[name].provider
    assert endpoint.name == provider.title
    assert endpoint.url.startswith("https://")
    assert "{" not in endpoint.url
    assert endpoint.client_auth == method_of(provider)
    assert endpoint.login.refresh_token_lifetime == provider.idle_lifetime
    grace = 86_400.0 if provider.grace == "stays_valid" else provider.grace
    assert endpoint.reuse_grace == (grace or 0.0)
    if "authorization_code" in provider.grants:
        assert str(endpoint.login.authorization_endpoint).startswith("https://")
    assert len(endpoint.origins or ()) == len(provider.origins)
    # Without an origin of its own, `origins=` is required: a token must not go to any host.
    assert provider.origins or name == "keycloak"


@each
def test_what_is_known_of_a_provider_makes_sense(name: str) -> None:
    provider = PRESETS[name].provider
    assert ("refresh_token" in provider.grants) == (provider.rotation != "none")
    if provider.grace == "stays_valid":
        assert provider.rotation in ("never", "always")
    if provider.grace is None and provider.rotation in ("always", "sometimes", "setting"):
        said = " ".join((*provider.unknown, *provider.quirks))
        assert "spent" in said or "old refresh token" in said or "Revoke Refresh Token" in said
    for words in (*provider.quirks, *provider.unknown):
        assert words
        assert not words.endswith(".")
        assert "  " not in words


@each
def test_without_a_secret_it_is_a_public_client(name: str) -> None:
    assert made(name, "id").client_auth == "none"


@each
def test_whatever_a_preset_knows_can_be_overridden(name: str) -> None:
    endpoint = made(
        name,
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


def test_another_url_is_the_refreshes_as_well_unless_they_have_one_told() -> None:
    url, other = "http://127.0.0.1:1/t", "http://127.0.0.1:1/r"
    assert made("figma").refresh_url == "https://api.figma.com/v1/oauth/refresh"
    assert made("figma", url=url).refresh_url == url
    assert made("figma", url=url, refresh_url=other).refresh_url == other


def test_gitlab_repeats_the_redirect_uri_where_it_is_told() -> None:
    back = "https://app.test/back"
    assert made("gitlab").refresh_params == {}
    endpoint = made("gitlab", redirect_uri=back, refresh_params={"a": "b"})
    assert endpoint.refresh_params == {"redirect_uri": back, "a": "b"}
    assert made("gitlab", host="git.acme.test:8443").origins == ("https://git.acme.test:8443",)


@each
def test_a_preset_names_its_sources(name: str) -> None:
    one = PRESETS[name]
    assert one.sources
    for source in one.sources:
        where, colon, what = source.partition(": ")
        assert colon, f"{source!r} says where, but not what was read there"
        assert "." in where or " " in where
        assert what
    assert one.summary.endswith(".")


@each
def test_a_misspelt_argument_names_the_one_that_was_meant(name: str) -> None:
    with pytest.raises(TypeError, match=r"'orgins'\. Did you mean 'origins'\?"):
        made(name, orgins=["https://api.test"])
    with pytest.raises(TypeError, match=f"^{name}\\(\\) got an unexpected keyword argument 'zzz'"):
        made(name, zzz=1)


def test_a_misspelt_argument_of_a_preset_s_own_is_named_too() -> None:
    with pytest.raises(TypeError, match=r"'domian'\. Did you mean 'domain'\?"):
        providers.salesforce("id", domian="acme")  # type: ignore[call-arg]  # the claim: it is a type error, too
    with pytest.raises(TypeError, match="Did you mean 'origins'"):
        providers.xero("id", orgins=["https://api.test"])  # type: ignore[call-arg]  # as above


@each
@both_libraries
@pytest.mark.anyio
async def test_a_preset_s_token_goes_to_no_stranger(name: str, http: Any) -> None:
    more = {"origins": ["https://api.acme.test"]} if name == "keycloak" else {}
    auth = RefreshAuth(made(name, **more), MemoryStore('{"access_token": "A"}'))
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
        (providers.gitlab, {"host": "git.test/evil"}),
        (providers.okta, {"domain": "acme.okta.com@evil.test"}),
        (providers.auth0, {"domain": ""}),
        (providers.snowflake, {"host": "a b"}),
        (providers.servicenow, {"host": "-a"}),
        (providers.databricks, {"host": "a/b"}),
        (providers.keycloak, {"realm": "sso.acme.test/realms/acme"}),
        (providers.keycloak, {"realm": "https://sso.acme.test/realms/acme/"}),
        (providers.keycloak, {"realm": "https://sso.acme.test/realms/acme?x"}),
        (providers.workday, {"host": "a/b", "tenant": "t"}),
        (providers.workday, {"tenant": "a/b", "host": "h.test"}),
        (providers.workday, {"login_host": "a/b", "host": "h.test", "tenant": "t"}),
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
        ("gitlab", 401, {"error": "invalid_token"}, True),
        ("notion", 401, {"code": "unauthorized"}, True),
    ],
)
async def test_an_api_says_in_its_own_way_that_a_token_has_expired(
    name: str, status: int, body: Any, expired: bool
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, content=b"" if body is None else json.dumps(body).encode())

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        response = await client.get("https://api.test/")
        challenge = await challenge_of(response, made(name, "id").is_expired)
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
