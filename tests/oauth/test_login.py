from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import httpx
import pytest

from httpx_refresh import (
    AuthorizationRequest,
    LoginFailed,
    LoginSettings,
    Token,
    TokenEndpoint,
    providers,
)
from httpx_refresh.testing import AuthorizationServer, LostAnswer, LostRequest, Outage

if TYPE_CHECKING:
    from httpx_refresh.testing import Behaviour

pytestmark = pytest.mark.anyio

REDIRECT = "http://127.0.0.1:8000/callback"


def endpoint_of(
    server: AuthorizationServer, client: httpx.AsyncClient, **options: Any
) -> TokenEndpoint:
    """Return the server's endpoint, with requests through `client`."""
    facts: dict[str, Any] = {
        "authorization_endpoint": f"{server.issuer}/authorize",
        "device_authorization_endpoint": f"{server.issuer}/device_authorization",
        "revocation_endpoint": f"{server.issuer}/revoke",
        "issuer": server.issuer,
        "client": client,
        "name": "Server",
    }
    secret = options.pop("client_secret", server.client_secret)
    return TokenEndpoint(server.token_url, server.client_id, secret, **{**facts, **options})


@asynccontextmanager
async def asked(
    server: AuthorizationServer, **options: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, TokenEndpoint]]:
    async with httpx.AsyncClient(transport=server.transport()) as client:
        yield client, endpoint_of(server, client, **options)


async def visit(client: httpx.AsyncClient, request: AuthorizationRequest) -> str:
    """Follow the person's redirects, and return the last address."""
    answer = await client.get(request.url)
    assert answer.status_code == 302, answer.text
    return answer.headers["location"]


def changed(redirect: str, **fields: str | None) -> str:
    """Return a redirect with other fields; None removes a field."""
    base, _, query = redirect.partition("?")
    held = {**dict(parse_qsl(query)), **fields}
    return f"{base}?{urlencode({key: value for key, value in held.items() if value is not None})}"


async def test_a_login_brings_a_token_that_the_api_accepts() -> None:
    server = AuthorizationServer()
    async with asked(server) as (client, endpoint):
        request = endpoint.authorization_url(REDIRECT, scope="a b")
        token = await endpoint.exchange_code(await visit(client, request), request)
        headers = {"Authorization": f"Bearer {token.access_token}"}
        assert (await client.get(f"{server.api_url}/ping", headers=headers)).status_code == 200
    assert token.extra["scope"] == "a b"
    assert token.refresh_token is not None


async def test_a_web_service_may_hand_over_the_query_as_a_mapping_and_keep_the_request_as_one() -> (
    None
):
    server = AuthorizationServer()
    async with asked(server) as (client, endpoint):
        begun = endpoint.authorization_url(REDIRECT)
        session = json.loads(json.dumps(dataclasses.asdict(begun)))
        query = dict(parse_qsl(urlsplit(await visit(client, begun)).query))
        token = await endpoint.exchange_code(query, AuthorizationRequest(**session))
    assert token.refresh_token is not None


class Several(dict[str, Any]):
    """A query in which a name may stand several times, as Django's and Werkzeug's are: a dict of lists inside."""

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(name)[-1]

    def getlist(self, name: str) -> Any:
        return super().__getitem__(name)


async def test_a_web_frameworks_query_is_read_and_a_parameter_that_comes_twice_in_it_is_refused() -> (
    None
):
    async with asked(AuthorizationServer()) as (client, endpoint):
        begun = endpoint.authorization_url(REDIRECT)
        query = parse_qs(urlsplit(await visit(client, begun)).query)
        with pytest.raises(LoginFailed, match="names a parameter twice"):
            await endpoint.exchange_code(Several({**query, "code": ["a", "b"]}), begun)
        with pytest.raises(TypeError, match="query parameters to str"):
            await endpoint.exchange_code(query, begun)  # type: ignore[arg-type]  # lists, as parse_qs returns them
        token = await endpoint.exchange_code(Several(query), begun)
    assert token.refresh_token is not None


async def test_a_request_carries_a_challenge_a_state_and_what_the_caller_adds() -> None:
    server = AuthorizationServer()
    async with asked(server, authorization_params={"access_type": "offline"}) as (_, endpoint):
        request = endpoint.authorization_url(REDIRECT, prompt="consent")
        other = endpoint.authorization_url(REDIRECT)
    fields = {name: values[0] for name, values in parse_qs(urlsplit(request.url).query).items()}
    assert fields["response_type"] == "code"
    assert fields["redirect_uri"] == REDIRECT
    assert fields["code_challenge_method"] == "S256"
    assert (fields["prompt"], fields["access_type"]) == ("consent", "offline")
    assert fields["state"] == request.state != other.state
    assert request.code_verifier != other.code_verifier
    assert "scope" not in fields


@pytest.mark.parametrize(
    "settings, scope, asked_for",
    [
        ({}, None, ""),
        ({"scope": "a b"}, None, "a b"),
        ({"scope": "a b"}, "c", "c"),
        ({"scope": "a", "offline_scope": "offline_access"}, "c", "c offline_access"),
        ({"offline_scope": "offline_access"}, "offline_access c", "offline_access c"),
    ],
)
async def test_a_scope_is_completed_by_what_brings_a_refresh_token(
    settings: dict[str, Any], scope: str | None, asked_for: str
) -> None:
    assert LoginSettings(**settings).scope_of(scope) == asked_for


async def test_no_secret_of_a_login_shows_in_a_repr() -> None:
    async with asked(AuthorizationServer()) as (_, endpoint):
        request = endpoint.authorization_url(REDIRECT)
        device = await endpoint.device_authorization()
    assert request.state not in repr(request)
    assert str(request.code_verifier) not in repr(request)
    assert device.device_code not in repr(device)
    assert device.user_code in repr(device)


async def test_fields_of_the_redirect_that_matter_are_kept_with_the_token() -> None:
    server = AuthorizationServer(
        redirect_fields={"realmId": "42", "other": "x", "shown": "4\x1b[2J"}
    )
    async with asked(server, redirect_fields=("realmId", "absent", "shown")) as (client, endpoint):
        request = endpoint.authorization_url(REDIRECT)
        token = await endpoint.exchange_code(await visit(client, request), request)
    assert token.extra["realmId"] == "42"
    assert "other" not in token.extra
    assert "absent" not in token.extra
    assert "shown" not in token.extra


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"state": "another"}, "its state is another one"),
        ({"state": None}, "its state is missing"),
        ({"state": "ä"}, "its state is another one"),
        ({"code": None}, "no authorization code"),
        ({"code": ""}, "no authorization code"),
        ({"iss": "https://mallory.example"}, "another issuer"),
        ({"iss": None}, "does not name its issuer"),
        ({"code": None, "error": "access_denied"}, "was denied"),
        ({"code": None, "error": "access_denied", "state": None}, "its state is missing"),
        ({"code": None, "error": "access_denied", "iss": None}, "was denied"),
        ({"code": None, "error": "access_denied", "iss": "https://x.test"}, "another issuer"),
        ({"code": None, "error": "access_denied", "state": "another"}, "its state is another one"),
        ({"code": None, "error": "invalid_scope"}, "turned the login down (invalid_scope)"),
    ],
)
async def test_a_redirect_that_is_no_answer_to_this_login_redeems_nothing(
    fields: dict[str, str | None], words: str
) -> None:
    server = AuthorizationServer()
    async with asked(server, sends_iss=True) as (client, endpoint):
        request = endpoint.authorization_url(REDIRECT)
        redirect = changed(await visit(client, request), **fields)
        with pytest.raises(LoginFailed) as caught:
            await endpoint.exchange_code(redirect, request)
    assert words in str(caught.value)
    assert server.token_requests == 0


async def test_an_issuer_that_is_not_known_here_is_not_compared() -> None:
    async with asked(AuthorizationServer(), issuer=None) as (client, endpoint):
        request = endpoint.authorization_url(REDIRECT)
        token = await endpoint.exchange_code(await visit(client, request), request)
    assert token.refresh_token is not None


async def test_a_server_need_not_name_its_issuer_if_it_does_not_promise_to() -> None:
    async with asked(AuthorizationServer(send_iss=False)) as (client, endpoint):
        request = endpoint.authorization_url(REDIRECT)
        token = await endpoint.exchange_code(await visit(client, request), request)
    assert token.refresh_token is not None


async def test_a_parameter_that_comes_twice_is_refused() -> None:
    async with asked(AuthorizationServer()) as (client, endpoint):
        request = endpoint.authorization_url(REDIRECT)
        redirect = f"{await visit(client, request)}&code=another"
        with pytest.raises(LoginFailed, match="names a parameter twice"):
            await endpoint.exchange_code(redirect, request)


@pytest.mark.parametrize(
    "redirect, words",
    [
        ("http://127.0.0.1/?" + "a=1&" * 101, "more than 100 parameters"),
        ("http://[?state=x&code=y", "its state is another one"),
        ("?state=\ud800&code=y", "its state is another one"),
        ({"state": "\ud800", "code": "y"}, "its state is another one"),
        ("", "its state is missing"),
    ],
)
async def test_a_redirect_that_cannot_be_read_is_no_answer_to_this_login(
    redirect: str | dict[str, str], words: str
) -> None:
    server = AuthorizationServer()
    async with asked(server) as (_, endpoint):
        with pytest.raises(LoginFailed) as caught:
            await endpoint.exchange_code(redirect, endpoint.authorization_url(REDIRECT))
    assert words in str(caught.value)
    assert server.token_requests == 0


async def test_a_code_that_cannot_be_sent_is_none_and_is_in_no_exception() -> None:
    async with asked(AuthorizationServer(send_iss=False)) as (_, endpoint):
        request = endpoint.authorization_url(REDIRECT)
        with pytest.raises(LoginFailed, match="brings no authorization code"):
            await endpoint.exchange_code({"state": request.state, "code": "c\ud800"}, request)


async def test_what_a_server_says_of_a_denial_is_shown_without_the_secrets_it_repeats() -> None:
    async with asked(AuthorizationServer()) as (_, endpoint):
        request = endpoint.authorization_url(REDIRECT)
        said = f"no\nscope {request.code_verifier}"
        redirect = {"error": "invalid_scope", "error_description": said, "state": request.state}
        with pytest.raises(LoginFailed) as caught:
            await endpoint.exchange_code(redirect, request)
    assert caught.value.error == "invalid_scope"
    assert caught.value.error_description == "no scope ***"
    assert str(request.code_verifier) not in str(caught.value)


async def test_a_redirect_that_is_replayed_is_refused_by_the_server() -> None:
    async with asked(AuthorizationServer()) as (client, endpoint):
        request = endpoint.authorization_url(REDIRECT)
        redirect = await visit(client, request)
        await endpoint.exchange_code(redirect, request)
        with pytest.raises(LoginFailed, match="good once") as caught:
            await endpoint.exchange_code(redirect, request)
    assert caught.value.error == "invalid_grant"


async def test_a_wrong_client_secret_is_named_as_the_cause_and_not_shown() -> None:
    server = AuthorizationServer()
    async with asked(server, client_secret="not-the-one") as (client, endpoint):
        request = endpoint.authorization_url(REDIRECT)
        with pytest.raises(LoginFailed, match="Check the client id, the client secret") as caught:
            await endpoint.exchange_code(await visit(client, request), request)
    assert caught.value.error == "invalid_client"
    assert "not-the-one" not in str(caught.value)


@pytest.mark.parametrize(
    "behaviour, words, transient",
    [
        (LostRequest(connected=False), "could not be reached", True),
        (LostAnswer(), "gave no answer", True),
        (Outage(status=503, body=""), "is unavailable (status 503)", True),
        (Outage(status=200, body="{}"), "answered without a token", False),
        (Outage(status=500, body="<html>"), "answered without a token (status 500)", False),
    ],
)
async def test_a_token_endpoint_that_fails_is_told_apart(
    behaviour: Behaviour, words: str, transient: bool
) -> None:
    server = AuthorizationServer()
    server.script(behaviour)
    async with asked(server) as (client, endpoint):
        request = endpoint.authorization_url(REDIRECT)
        with pytest.raises(LoginFailed) as caught:
            await endpoint.exchange_code(await visit(client, request), request)
    assert words in str(caught.value)
    assert caught.value.transient is transient


async def test_a_server_that_says_it_knows_no_pkce_is_not_logged_in_at_unless_told_to() -> None:
    server = AuthorizationServer(pkce="unsupported")
    async with asked(server, code_challenge_methods=("plain",)) as (_, endpoint):
        with pytest.raises(LoginFailed, match="does not support PKCE"):
            endpoint.authorization_url(REDIRECT)
    async with asked(server, pkce=False) as (client, endpoint):
        request = endpoint.authorization_url(REDIRECT)
        assert request.code_verifier is None
        token = await endpoint.exchange_code(await visit(client, request), request)
    assert token.refresh_token is not None


async def test_a_public_client_never_goes_without_pkce() -> None:
    async with asked(AuthorizationServer(), client_secret=None, pkce=False) as (_, endpoint):
        with pytest.raises(ValueError, match="must use PKCE"):
            endpoint.authorization_url(REDIRECT)


async def test_a_public_client_logs_in_with_pkce() -> None:
    server = AuthorizationServer(clients={"client": None})
    async with asked(server) as (client, endpoint):
        request = endpoint.authorization_url(REDIRECT)
        token = await endpoint.exchange_code(await visit(client, request), request)
    assert token.refresh_token is not None


@pytest.mark.parametrize("redirect_uri", ["/callback", f"{REDIRECT}#here"])
async def test_a_redirect_uri_is_absolute_and_has_no_fragment(redirect_uri: str) -> None:
    async with asked(AuthorizationServer()) as (_, endpoint):
        with pytest.raises(ValueError, match="redirect_uri must be absolute"):
            endpoint.authorization_url(redirect_uri)


async def test_what_an_endpoint_cannot_do_it_says() -> None:
    endpoint = TokenEndpoint("https://server.test/token", "client", name="Server")
    with pytest.raises(ValueError, match="no authorization_endpoint is known for Server"):
        endpoint.authorization_url(REDIRECT)
    nobody = TokenEndpoint(
        "https://server.test/token",
        authorization_endpoint="https://server.test/authorize",
        name="Server",
    )
    with pytest.raises(ValueError, match="a login at Server needs a client_id"):
        nobody.authorization_url(REDIRECT)
    with pytest.raises(ValueError, match="no device_authorization_endpoint is known for Server"):
        await endpoint.device_authorization()
    with pytest.raises(ValueError, match="no revocation_endpoint is known for Server"):
        await endpoint.revoke(Token("access"))


@pytest.mark.parametrize(
    "name", ["authorization_endpoint", "device_authorization_endpoint", "revocation_endpoint"]
)
async def test_no_login_goes_over_plain_http(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be https"):
        LoginSettings(**{name: "http://server.test/x"})  # type: ignore[arg-type]  # its fields are of several types


@pytest.mark.parametrize(
    "url, words",
    [
        ("https://server.test:x/", "is no URL"),
        ("https://xn--nxasmq6bstate/", "is no URL"),
        ("https://\ud800/", "is no URL"),
        ("https:///authorize", "must name a host"),
        ("https://user@server.test/authorize", "no user information"),
        ("https://server.test/authorize#here", "no fragment"),
    ],
)
async def test_an_endpoint_for_logins_is_a_plain_url(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LoginSettings(authorization_endpoint=url)


# Each preset knows the parameters of a login; the expected ones are from the providers' pages.
@pytest.mark.parametrize(
    "make, host, scope",
    [
        (providers.xero, "login.xero.com", "offline_access"),
        (providers.quickbooks, "appcenter.intuit.com", "com.intuit.quickbooks.accounting"),
        (providers.salesforce, "login.salesforce.com", "api refresh_token"),
        (providers.twoba, "authorize.2ba.nl", ""),
    ],
)
async def test_presets_know_where_people_log_in_and_what_to_ask_for(
    make: Callable[..., TokenEndpoint], host: str, scope: str
) -> None:
    endpoint = make("client", "secret")
    address = urlsplit(endpoint.authorization_url(REDIRECT).url)
    assert address.hostname == host
    assert parse_qs(address.query).get("scope", [""]) == [scope]


async def test_salesforce_logs_in_at_the_domain_it_is_told() -> None:
    for domain, host in [("test", "test.salesforce.com"), ("acme", "acme.my.salesforce.com")]:
        endpoint = providers.salesforce("client", "secret", domain=domain)
        assert urlsplit(endpoint.authorization_url(REDIRECT).url).hostname == host


async def test_a_resource_is_named_at_the_login_the_exchange_and_each_refresh() -> None:
    """RFC 8707 section 2: without the parameter a server issues a token for another API."""
    server = AuthorizationServer()
    async with asked(server, resource="https://api.test/v1") as (client, endpoint):
        request = endpoint.authorization_url(REDIRECT)
        assert parse_qs(urlsplit(request.url).query)["resource"] == ["https://api.test/v1"]
        token = await endpoint.exchange_code(await visit(client, request), request)
        await endpoint.refresh(token)
    sent = [parse_qs(call.body.decode()) for call in server.token_calls]
    assert [form["grant_type"] for form in sent] == [["authorization_code"], ["refresh_token"]]
    assert [form["resource"] for form in sent] == [["https://api.test/v1"]] * 2


@pytest.mark.parametrize("resource", ["api.test", "/v1", "https://api.test/#a", "", 7, "a: b\n"])
def test_a_resource_is_an_absolute_uri_without_a_fragment(resource: Any) -> None:
    with pytest.raises(ValueError, match="absolute URI without a fragment"):
        TokenEndpoint("https://server.test/token", "client", resource=resource)
