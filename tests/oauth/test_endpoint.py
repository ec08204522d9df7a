"""TokenEndpoint: its requests, client authentication, and refused arguments."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import httpx
import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from httpx_refresh import (
    ExpiryRule,
    FileStore,
    MemoryStore,
    ReauthorizationRequired,
    RefreshAuth,
    RefreshUnavailable,
    Token,
    TokenEndpoint,
    providers,
)
from httpx_refresh.testing import AuthorizationServer, Outage
from tests.oauth.raw_server import raw_server, reply

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

URL = "https://server.test/token"
HELD = Token("old-access", "old/refresh+token")
FORM = "application/x-www-form-urlencoded"


# -- the four seed providers ---------------------------------------------------------------------------

# preset, secret, path, the file before, the answer, the form's other fields, the file after (beside the notes)
WIRE: dict[str, tuple[Callable[..., TokenEndpoint], str | None, str, Any, Any, Any, Any]] = {
    "xero": (
        providers.xero,
        "s:e/c",
        "/connect/token",
        {"id_token": "I", "scope": "accounting offline_access", "expires_in": 1800},
        {"access_token": "A2", "refresh_token": "R2", "expires_in": 1800, "token_type": "Bearer"},
        {},
        {"refresh_token": "R2", "id_token": "I", "scope": "accounting offline_access"},
    ),
    "quickbooks": (
        providers.quickbooks,
        "s:e/c",
        "/oauth2/v1/tokens/bearer",
        {"x_refresh_token_expires_in": 8_726_400},
        {
            "access_token": "A2",
            "refresh_token": "old/refresh+token",
            "expires_in": 3600,
            "x_refresh_token_expires_in": 8_700_000,
            "token_type": "bearer",
        },
        {},
        {"refresh_token": "old/refresh+token", "x_refresh_token_expires_in": 8_700_000},
    ),
    "salesforce, a public client without rotation": (
        providers.salesforce,
        None,
        "/services/oauth2/token",
        {"instance_url": "https://old.my.salesforce.com", "signature": "S1"},
        {
            "access_token": "A2",
            "instance_url": "https://new.my.salesforce.com",
            "id": "https://login.salesforce.com/id/1/2",
            "issued_at": "1800000000000",
            "token_type": "Bearer",
        },
        {"client_id": "the id"},
        {
            "refresh_token": "old/refresh+token",
            "instance_url": "https://new.my.salesforce.com",
            "signature": "S1",
        },
    ),
    "salesforce, with a secret and rotation": (
        providers.salesforce,
        "s:e/c",
        "/services/oauth2/token",
        {"instance_url": "https://old.my.salesforce.com"},
        {"access_token": "A2", "refresh_token": "R2", "token_type": "Bearer"},
        {"client_id": "the id", "client_secret": "s:e/c"},
        {"refresh_token": "R2", "instance_url": "https://old.my.salesforce.com"},
    ),
    "2ba": (
        providers.twoba,
        "s:e/c",
        "/OAuth/Token",
        {"expires_in": 3600, "as": "left by another tool"},
        {"access_token": "A2", "refresh_token": "R2", "expires_in": 3600, "token_type": "bearer"},
        {"client_id": "the id", "client_secret": "s:e/c"},
        {"refresh_token": "R2", "as": "left by another tool"},
    ),
}


@pytest.mark.anyio
@pytest.mark.parametrize("row", WIRE.values(), ids=WIRE)
async def test_the_seed_providers_are_asked_and_their_answers_kept_as_they_document_it(
    row: tuple[Callable[..., TokenEndpoint], str | None, str, Any, Any, Any, Any], tmp_path: Path
) -> None:
    preset, secret, path, before, answer, credentials, after = row
    file = tmp_path / "token.json"
    file.write_text(
        json.dumps({"access_token": "A1", "refresh_token": "old/refresh+token", **before})
    )
    async with raw_server(reply(json.dumps(answer))) as server:
        endpoint = preset("the id", secret, url=server.url + path)
        token = await RefreshAuth(endpoint, FileStore(file)).refresh()
    (request,) = server.requests
    assert request.line == f"POST {path} HTTP/1.1"
    basic = request.headers.pop("authorization", None)
    assert request.headers == {
        "host": server.url.removeprefix("http://"),
        "user-agent": f"python-httpx/{httpx.__version__}",
        "accept": "application/json",
        "accept-encoding": "identity",
        "content-type": FORM,
        "content-length": str(len(request.body)),
    }
    form = {"grant_type": "refresh_token", "refresh_token": "old/refresh+token"}
    assert parse_qsl(request.body) == [*form.items(), *credentials.items()]
    if credentials:
        assert basic is None
    else:
        assert basic is not None
        assert b64decode(basic.removeprefix("Basic ")) == b"the+id:s%3Ae%2Fc"  # RFC 6749 §2.3.1
    kept = json.loads(file.read_text())
    assert token.access_token == kept["access_token"] == "A2"
    assert kept["httpx_refresh"]["generation"] == 1
    assert {name: kept[name] for name in after} == after
    expires_in = answer.get("expires_in", endpoint.rules.default_lifetime)
    if expires_in is not None:
        assert abs(kept["expires_at"] - time.time() - expires_in) < 60
    else:
        assert "expires_at" not in kept


# -- how a client authenticates --------------------------------------------------------------------------


def capturing(requests: list[httpx.Request]) -> httpx.AsyncClient:
    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, json={"access_token": "A2"})

    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


async def form_of(endpoint_of: Callable[[httpx.AsyncClient], TokenEndpoint]) -> dict[str, str]:
    requests: list[httpx.Request] = []
    async with capturing(requests) as client:
        await endpoint_of(client).refresh(HELD)
    (request,) = requests
    assert "authorization" not in request.headers
    return dict(parse_qsl(request.content.decode()))


def check_assertion(form: dict[str, str], key: RSAKey | OctKey, alg: str) -> None:
    """Check what RFC 7523 §3 asks of a client's assertion."""
    assert form["client_assertion_type"].endswith("client-assertion-type:jwt-bearer")
    assert "client_secret" not in form
    signed = jwt.decode(form["client_assertion"], key, algorithms=[alg])
    claims = signed.claims
    assert signed.header["alg"] == alg
    assert claims["iss"] == claims["sub"] == "the id"
    assert claims["aud"] == URL
    assert claims["exp"] > time.time()
    assert len(claims["jti"]) > 20


@pytest.mark.anyio
async def test_client_secret_jwt_is_signed_with_the_secret() -> None:
    secret = "a shared secret of more than 32 bytes"
    form = await form_of(
        lambda client: TokenEndpoint(
            URL,
            "the id",
            secret,
            client_auth="client_secret_jwt",
            client=client,
        )
    )
    check_assertion(form, OctKey.import_key(secret), "HS256")


@pytest.fixture(scope="session")
def rsa_key() -> RSAKey:
    key: RSAKey = RSAKey.generate_key(2048)
    return key


@pytest.mark.anyio
async def test_private_key_jwt_is_signed_with_the_key(rsa_key: RSAKey) -> None:
    form = await form_of(
        lambda client: TokenEndpoint(
            URL,
            "the id",
            rsa_key.as_pem(private=True).decode(),
            client_auth="private_key_jwt",
            client=client,
        )
    )
    check_assertion(form, rsa_key, "RS256")


@pytest.mark.anyio
async def test_each_assertion_is_good_once(rsa_key: RSAKey) -> None:
    sent = [
        await form_of(
            lambda client: TokenEndpoint(
                URL,
                "the id",
                rsa_key.as_pem(private=True).decode(),
                client_auth="private_key_jwt",
                client=client,
            )
        )
        for _ in range(2)
    ]
    assert sent[0]["client_assertion"] != sent[1]["client_assertion"]


@pytest.mark.anyio
async def test_further_parameters_are_sent() -> None:
    form = await form_of(
        lambda client: TokenEndpoint(
            URL, "the id", client=client, params={"scope": "a b", "resource": "é&="}
        )
    )
    assert form == {
        "grant_type": "refresh_token",
        "refresh_token": "old/refresh+token",
        "scope": "a b",
        "resource": "é&=",
        "client_id": "the id",
    }


# -- the caller's client ---------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_token_is_not_believed_longer_than_its_server_believes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server counts the lifetime from its answer at the latest, and the answer takes time to arrive."""
    now = 1_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal now
        now += 5
        return httpx.Response(200, json={"access_token": "new", "expires_in": 600})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        endpoint = TokenEndpoint("https://as.test/token", "id", "secret", client=client)
        token = await endpoint.refresh(Token("old", "refresh"))
    assert token.expires_at == 1_000_600.0


@pytest.mark.anyio
@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_a_callers_client_lends_its_connections_and_nothing_else(library: Any) -> None:
    server = AuthorizationServer()
    transport = server.transport() if library is httpx else server.transport2()
    async with library.AsyncClient(
        transport=transport,
        auth=("user", "of-the-api"),
        base_url="https://elsewhere.test/api",
        headers={"Authorization": "Bearer of-the-api", "X-Tenant": "t", "User-Agent": "mine/1"},
        params={"key": "of-the-api"},
        cookies={"session": "of-the-api"},
        follow_redirects=True,
    ) as client:
        token = Token.from_response(server.login())
        for method in ("client_secret_post", "client_secret_basic"):
            endpoint = TokenEndpoint(
                server.token_url,
                "client",
                "secret",
                client=client,
                client_auth=method,
            )
            token = await endpoint.refresh(token)
            call = server.token_calls[-1]
            assert call.query == ""
            expected = {"host", "user-agent", "accept", "accept-encoding", "content-type"}
            expected |= {"content-length"}
            if method == "client_secret_basic":
                expected.add("authorization")
                assert call.headers["authorization"].startswith("Basic ")
            assert set(call.headers) == expected
            assert call.headers["user-agent"] == "mine/1"
        assert not client.is_closed


@pytest.mark.anyio
@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_a_client_whose_auth_needs_the_endpoint_can_be_the_endpoints_own(
    library: Any,
) -> None:
    server = AuthorizationServer()
    transport = server.transport() if library is httpx else server.transport2()
    client = library.AsyncClient(transport=transport)
    endpoint = TokenEndpoint(
        server.token_url, "client", "secret", client=client, origins=server.issuer
    )
    client.auth = RefreshAuth(endpoint, MemoryStore(json.dumps(server.login())))
    server.expire_access_tokens()
    async with client:
        assert (await client.get(f"{server.api_url}/ping")).status_code == 200
    assert server.token_requests == 1


@pytest.mark.anyio
async def test_a_redirect_is_never_followed_with_the_secret() -> None:
    server = AuthorizationServer()
    for status in (301, 302, 303, 307, 308):
        server.script(Outage(status, headers={"location": "https://evil.test/token"}))
        async with httpx.AsyncClient(transport=server.transport(), follow_redirects=True) as client:
            endpoint = TokenEndpoint(server.token_url, "client", "secret", client=client)
            with pytest.raises(RefreshUnavailable, match="Set the endpoint's url") as caught:
                await endpoint.refresh(HELD)
        assert caught.value.outcome == "refused"
    assert server.token_requests == 5


@pytest.mark.anyio
@pytest.mark.parametrize("refresh_token", [None, "half \ud800 a pair"])
async def test_a_refresh_token_that_cannot_be_sent_is_a_login_that_is_missing(
    refresh_token: str | None,
) -> None:
    endpoint = TokenEndpoint(URL, "id", "secret", client=capturing([]), name="X")
    with pytest.raises(
        ReauthorizationRequired, match=r"refresh token for X.*Log in again"
    ) as caught:
        await endpoint.refresh(Token("A", refresh_token))
    assert caught.value.__context__ is None


# -- refused arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "",
        "token",
        "/token",
        "http://server.test/token",
        "ftp://server.test/token",
        "https://user:pass@server.test/token",
        "https://server.test/token#here",
        "https:///token",
        "https://server.test:port/token",
        "https://server.test/\n",
        "http://127.0.0.1.evil.test/token",
        "http://localhost.evil.test/token",
    ],
)
def test_an_address_that_secrets_must_not_go_to_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"^url "):
        TokenEndpoint(url, "id", "secret")


@pytest.mark.parametrize("url", ["http://localhost:8000/t", "http://[::1]/t", "http://127.9.9.9/t"])
def test_plain_http_to_this_host_is_fine(url: str) -> None:
    assert TokenEndpoint(url, "id").url == url


@pytest.mark.parametrize(
    "error, match, arguments",
    [
        (TypeError, "url", {"url": 5}),
        (TypeError, "client_id", {"client_id": 5}),
        (ValueError, "client_id must be given", {"client_id": None}),
        (ValueError, "client_id", {"client_id": ""}),
        (ValueError, "client_id", {"client_id": "\udfff"}),
        (TypeError, "client_secret", {"client_secret": b"bytes"}),
        (ValueError, "client_secret", {"client_secret": ""}),
        (ValueError, "client_secret", {"client_secret": "my secret \ud800"}),
        (ValueError, "must be one of", {"client_auth": "basic"}),
        (ValueError, "do not go together", {"client_auth": "none"}),
        (
            ValueError,
            "do not go together",
            {"client_secret": None, "client_auth": "client_secret_post"},
        ),
        (ValueError, "client_secret is no private", {"client_auth": "private_key_jwt"}),
        (TypeError, "reuse_grace", {"reuse_grace": "5"}),
        (TypeError, "reuse_grace", {"reuse_grace": True}),
        (ValueError, "reuse_grace", {"reuse_grace": -1}),
        (ValueError, "reuse_grace", {"reuse_grace": float("nan")}),
        (ValueError, "reuse_grace", {"reuse_grace": float("inf")}),
        (ValueError, "refresh_not_before_expiry", {"refresh_not_before_expiry": -1}),
        (TypeError, "client", {"client": httpx.Client}),
        (TypeError, "client", {"client": object()}),
        (TypeError, "name", {"name": 5}),
        (TypeError, "origins", {"origins": [5]}),
        (ValueError, "no origin", {"origins": "api.example.com"}),
        (TypeError, "is_expired", {"is_expired": 401}),
        (TypeError, "authorization_scheme", {"authorization_scheme": None}),
        (ValueError, "authorization_scheme", {"authorization_scheme": "Bearer "}),
        (ValueError, "authorization_scheme", {"authorization_scheme": ""}),
        (ValueError, "authorization_scheme", {"authorization_scheme": "Beärer"}),
        (TypeError, "params", {"params": {"scope": ["a"]}}),
        (ValueError, "'refresh_token'", {"params": {"refresh_token": "x"}}),
        (ValueError, "'client_secret'", {"params": {"client_secret": "x"}}),
        (ValueError, "params", {"params": {"scope": "\ud800"}}),
        (TypeError, "dead", {"dead": ["invalid_grant"]}),
        (TypeError, "transient", {"transient": [400]}),
    ],
)
def test_an_argument_that_cannot_be_meant_is_refused_at_construction(
    error: type[Exception], match: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(error, match=match) as caught:
        TokenEndpoint(**{"url": URL, "client_id": "id", "client_secret": "my secret", **arguments})
    shown: BaseException | None = caught.value
    while shown is not None:
        assert "my secret" not in repr(shown)
        shown = shown.__cause__ or shown.__context__


def test_a_synchronous_client_is_refused() -> None:
    with httpx.Client() as client, pytest.raises(TypeError, match="AsyncClient"):
        TokenEndpoint(URL, "id", client=client)  # type: ignore[arg-type]  # no async client, on purpose


def test_what_is_not_said_follows_from_what_is() -> None:
    public, confidential = TokenEndpoint(URL, "id"), TokenEndpoint(URL, "id", "secret")
    assert public.client_auth == "none"
    assert confidential.client_auth == "client_secret_basic"
    assert public.name == "server.test"
    assert TokenEndpoint(URL, "id", name="Mine").name == "Mine"


def test_origins_may_come_from_a_generator() -> None:
    origins = (f"https://{host}.test" for host in "ab")
    endpoint = TokenEndpoint(URL, "id", origins=origins)
    assert endpoint.origins == ("https://a.test", "https://b.test")
    assert TokenEndpoint(URL, "id", origins="https://a.test").origins == "https://a.test"


def test_a_rule_and_a_predicate_are_taken_as_they_are() -> None:
    rule = ExpiryRule(lambda body: body is None)
    assert TokenEndpoint(URL, "id", is_expired=rule).is_expired is rule
    assert TokenEndpoint(URL, "id", is_expired=callable).is_expired is callable
    assert TokenEndpoint(URL, "id", refresh_not_before_expiry=30).refresh_not_before_expiry == 30.0


def test_a_repr_shows_no_secret() -> None:
    endpoint = TokenEndpoint(f"{URL}?key=hidden", "the id", "my secret", params={"p": "hidden"})
    assert repr(endpoint) == "TokenEndpoint('https://server.test/token', 'the id')"
