"""Tokens for signed assertions: their claims, that each is new, and by which clock they are dated."""

from __future__ import annotations

import json
import time
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest
from joserfc import jws
from joserfc.jwk import ECKey, RSAKey

from httpx_refresh import MemoryStore, RefreshAuth, RefreshUnavailable, Token, TokenEndpoint
from httpx_refresh._refresh.record import parse
from httpx_refresh.client_auth import ClientSecretJWT, PrivateKeyJWT
from httpx_refresh.grants import ClientCredentials, JWTBearer
from httpx_refresh.testing import Answer, AuthorizationServer
from tests.fakes import endpoint_of

pytestmark = pytest.mark.anyio

KEY = RSAKey.generate_key(2048)
EC = ECKey.generate_key("P-256")
PEM = KEY.as_pem(private=True).decode()


def server_of(**options: Any) -> AuthorizationServer:
    keys = {"svc": KEY.as_dict(private=False), "ec": EC.as_dict(private=False)}
    return AuthorizationServer(assertion_keys=keys, **options)


def open_endpoint(server: AuthorizationServer) -> TokenEndpoint:
    """Return an endpoint without a client."""
    client = httpx.AsyncClient(transport=server.transport())
    return TokenEndpoint(server.token_url, client=client, origins="any")


def sent(server: AuthorizationServer) -> list[dict[str, str]]:
    return [dict(parse_qsl(call.body.decode())) for call in server.token_calls]


def claims_of(form: dict[str, str]) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(jws.extract_compact(form["assertion"].encode()).payload)
    return claims


async def test_an_assertion_is_signed_and_new_for_each_request() -> None:
    server = server_of()
    source = JWTBearer(
        open_endpoint(server), PEM, issuer="svc", subject="ann", scope="read", key_id="k1"
    )
    auth = RefreshAuth(source)
    await auth.token()
    await auth.refresh()
    first, second = map(claims_of, sent(server))
    assert first["iss"] == "svc"
    assert (first["sub"], first["aud"]) == ("ann", server.token_url)
    assert first["exp"] - first["iat"] == 60
    assert first["jti"] != second["jti"]
    assert [form["scope"] for form in sent(server)] == ["read", "read"]
    assert "client_id" not in sent(server)[0]
    header = jws.extract_compact(sent(server)[0]["assertion"].encode()).headers()
    assert (header["alg"], header["kid"]) == ("RS256", "k1")


async def test_scope_and_further_claims_may_stand_in_the_assertion() -> None:
    server = server_of()
    mine = {"box_sub_type": "enterprise"}
    source = JWTBearer(
        endpoint_of(server),
        EC.as_dict(private=True),
        issuer="ec",
        scope=["read", "write"],
        scope_as="claim",
        algorithm="ES256",
        audience=server.issuer,
        lifetime=30,
        issued_before=10,
        claims=mine,
        params={"x": "y"},
    )
    token = await RefreshAuth(source).token()
    (form,) = sent(server)
    claims = claims_of(form)
    assert (claims["scope"], claims["box_sub_type"]) == ("read write", "enterprise")
    assert (claims["aud"], claims["exp"] - claims["iat"]) == (server.issuer, 40)
    assert ("scope" not in form, form["x"]) == (True, "y")
    assert token.extra["scope"] == "read write"
    assert mine == {"box_sub_type": "enterprise"}


@pytest.mark.parametrize("ahead", [-900.0, 900.0])
async def test_an_assertion_that_is_refused_for_the_clock_is_made_by_the_server_s(
    ahead: float,
) -> None:
    server = server_of(clock=lambda: time.time() + ahead)
    date = {"Date": formatdate(time.time() + ahead, usegmt=True)}
    server.token_behaviour = Answer(headers=date)
    auth = RefreshAuth(JWTBearer(open_endpoint(server), PEM, issuer="svc"))
    await auth.token()
    assert server.token_requests == 2
    await auth.refresh()
    assert server.token_requests == 3


async def test_what_a_server_wants_of_assertions_holds_where_nothing_else_is_said() -> None:
    server = server_of(clients={"svc": None}, assertion_audiences=["aud", "other"])
    endpoint = TokenEndpoint(
        server.token_url,
        "svc",
        jwt_bearer={
            "audience": "aud",
            "lifetime": 30,
            "scope_as": "claim",
            "issuer_is_subject": False,
        },
        client=httpx.AsyncClient(transport=server.transport()),
    )
    await JWTBearer(endpoint, PEM, scope="a").obtain(None)
    await JWTBearer(
        endpoint, PEM, scope="a", subject="ann", audience="other", lifetime=9, scope_as="parameter"
    ).obtain(None)
    first, second = map(claims_of, sent(server))
    assert (first["iss"], first["aud"], first["scope"]) == ("svc", "aud", "a")
    assert "sub" not in first
    assert first["exp"] - first["iat"] == 30
    assert (second["aud"], second["sub"], "scope" in second) == ("other", "ann", False)
    assert second["exp"] - second["iat"] == 9


def dated(server: AuthorizationServer, ahead: float) -> None:
    """Set the server's clock ahead, as its answers show."""
    server.clock = lambda: time.time() + ahead
    date = formatdate(time.time() + ahead, usegmt=True)
    server.token_behaviour = Answer(headers={"Date": date})


@pytest.mark.parametrize("ahead", [-900.0, 900.0])
@pytest.mark.parametrize("kind", ["private_key_jwt", "client_secret_jwt"])
async def test_a_client_s_assertion_follows_the_server_s_clock_as_well(
    kind: str, ahead: float
) -> None:
    secret = "a secret that is long enough to sign with"
    server = server_of(
        clients={"svc": secret},
        client_keys={"svc": KEY.as_dict(private=False)},
        auth_methods=[kind],
    )
    signs: Any = (
        PrivateKeyJWT(PEM, algorithm="RS256")
        if kind == "private_key_jwt"
        else ClientSecretJWT(secret)
    )
    client = httpx.AsyncClient(transport=server.transport())
    endpoint = TokenEndpoint(server.token_url, "svc", client_auth=signs, client=client)
    dated(server, ahead)
    await ClientCredentials(endpoint).obtain(None)
    assert server.token_requests == 2
    await ClientCredentials(endpoint).obtain(None)
    assert server.token_requests == 3
    # A person's refresh token is sent again, too: the server refused the client before it looked at the token.
    other = TokenEndpoint(server.token_url, "svc", client_auth=signs, client=client)
    held = Token.from_response(server.login("svc"))
    assert (await other.refresh(held)).refresh_token != held.refresh_token
    assert (server.token_requests, server.reuses_detected) == (5, 0)


async def test_the_assertion_and_its_client_s_follow_one_clock() -> None:
    server = server_of(
        client_keys={"svc": KEY.as_dict(private=False)}, auth_methods=["private_key_jwt"]
    )
    dated(server, 900.0)
    endpoint = TokenEndpoint(
        server.token_url,
        "svc",
        client_auth=PrivateKeyJWT(PEM, algorithm="RS256"),
        client=httpx.AsyncClient(transport=server.transport()),
    )
    await JWTBearer(endpoint, PEM, issuer="svc").obtain(None)
    # The client is refused; the client is good, and the assertion is not; both are good.
    assert server.token_requests == 3


@pytest.mark.parametrize("ahead", [-900.0, 900.0])
async def test_a_date_that_is_wrong_does_no_lasting_harm(ahead: float) -> None:
    server = server_of()
    wrong = formatdate(time.time() + ahead, usegmt=True)
    server.script(*[Answer(headers={"Date": wrong})] * 4)
    server.scopes = []
    source = JWTBearer(open_endpoint(server), PEM, issuer="svc", scope="x")
    for requests in (2, 4):
        with pytest.raises(RefreshUnavailable):
            await source.obtain(None)
        assert server.token_requests == requests
    server.scopes = None
    await source.obtain(None)
    assert server.token_requests == 5


async def test_a_clock_that_is_set_right_later_is_followed_again() -> None:
    server = server_of()
    source = JWTBearer(open_endpoint(server), PEM, issuer="svc")
    for ahead in (900.0, 0.0, -900.0):
        dated(server, ahead)
        await source.obtain(None)
        assert source.endpoint.clock.ahead == pytest.approx(ahead, abs=60.0)


async def test_a_refusal_that_is_not_for_the_clock_is_not_asked_for_again() -> None:
    server = server_of()
    server.token_behaviour = Answer(headers={"Date": formatdate(usegmt=True)})
    store = MemoryStore()
    for _ in range(3):
        with pytest.raises(RefreshUnavailable, match="invalid_grant") as caught:
            await RefreshAuth(
                JWTBearer(
                    open_endpoint(server),
                    EC.as_pem(private=True).decode(),
                    issuer="svc",
                    algorithm="ES256",
                ),
                store,
            ).token()
        assert caught.value.outcome == "refused"
    assert server.token_requests == 1
    (failed,) = parse(store.peek()).failed
    assert failed.client is not None


async def test_a_key_in_a_file_is_read_before_each_use_and_one_that_is_gone_sends_nothing(
    tmp_path: Any,
) -> None:
    server = server_of()
    path = tmp_path / "key.pem"
    other = RSAKey.generate_key(2048)
    path.write_bytes(other.as_pem(private=True))
    source = JWTBearer(open_endpoint(server), path, issuer="svc")
    path.write_text(PEM)
    await RefreshAuth(source).token()
    path.unlink()
    with pytest.raises(RefreshUnavailable, match="key") as caught:
        await source.obtain(None)
    assert (caught.value.outcome, server.token_requests) == ("not_sent", 1)


async def test_an_assertion_may_be_somebody_else_s() -> None:
    server = server_of()
    signer = JWTBearer(open_endpoint(server), PEM, issuer="svc")
    assert signer._key is not None

    async def sign() -> str:
        assert signer._key is not None
        return await signer._signed(signer._key, time.time())

    source = JWTBearer(
        endpoint_of(server), assertion=sign, params={"requested_token_use": "on_behalf_of"}
    )
    await RefreshAuth(source).token()
    assert sent(server)[0]["requested_token_use"] == "on_behalf_of"
    empty = JWTBearer(endpoint_of(server), assertion=lambda: "")
    with pytest.raises(RefreshUnavailable, match="assertion could not be had: it is empty"):
        await RefreshAuth(empty).token()


ENDPOINT = TokenEndpoint("https://auth.test/token", origins="any")


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({}, "either a key"),
        ({"key": PEM, "assertion": "x", "issuer": "svc"}, "either a key"),
        ({"key": PEM}, "issuer is missing"),
        ({"key": "SECRET", "issuer": "svc"}, "key is no private key"),
        ({"key": PEM, "issuer": "svc", "algorithm": "ES256"}, "wrong kind"),
        ({"key": PEM, "issuer": "svc", "password": "SECRET"}, "not encrypted"),
        ({"key": PEM, "issuer": "svc", "scope": ""}, "scope must not be empty"),
        ({"key": PEM, "issuer": "svc", "scope_as": "x"}, "scope_as"),
        ({"key": PEM, "issuer": "svc", "lifetime": 0}, "lifetime"),
        ({"key": PEM, "issuer": "svc", "claims": {"jti": "x"}}, "claims must not hold 'jti'"),
        ({"key": PEM, "issuer": ""}, "issuer must not be empty"),
        ({"assertion": "x", "subject": "y"}, "all its claims"),
    ],
)
async def test_what_cannot_be_meant_is_an_error_at_once(
    arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        JWTBearer(ENDPOINT, **arguments)
    assert "SECRET" not in str(caught.value)


async def test_the_purpose_tells_subjects_apart_and_shows_none() -> None:
    one, other = (JWTBearer(ENDPOINT, PEM, issuer="svc", subject=who) for who in ("ann@x", "bob@x"))
    assert one.purpose != other.purpose
    assert "ann" not in one.purpose
    assert "client svc" in one.purpose
    assert one.client_fingerprint == other.client_fingerprint
    assert one.client_fingerprint != JWTBearer(ENDPOINT, PEM, issuer="other").client_fingerprint
