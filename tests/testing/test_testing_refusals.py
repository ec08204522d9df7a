"""What the server refuses of grants, assertions and registrations, so that a client's mistakes show in tests."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from joserfc import jws
from joserfc.jwk import OctKey

from httpx_refresh.testing import AuthorizationServer, Challenge
from tests.testing.calls import Clock, basic, ping, post, refresh, send

if TYPE_CHECKING:
    from collections.abc import Mapping

JWT = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS = "urn:ietf:params:oauth:token-type:access_token"
KEY = OctKey.import_key("k" * 32)
NOW = Clock().now


def signed(server: AuthorizationServer, **changed: Any) -> str:
    """An assertion of the issuer `svc` about itself that this server takes; None leaves a claim out."""
    claims = {
        "iss": "svc",
        "sub": "svc",
        "aud": server.token_url,
        "iat": NOW,
        "exp": NOW + 60,
        "jti": "1",
        **changed,
    }
    kept = {name: value for name, value in claims.items() if value is not None}
    return jws.serialize_compact({"alg": "HS256"}, json.dumps(kept), KEY)


def server_of(**options: Any) -> AuthorizationServer:
    keys = {"svc": KEY.as_dict()}
    options = {"assertion_keys": keys, "client_keys": keys, "clock": Clock(), **options}
    return AuthorizationServer(auth_methods=["private_key_jwt", "client_secret_basic"], **options)


# -- assertions --------------------------------------------------------------------------------------------------------


def by_assertion(server: AuthorizationServer, **form: str) -> tuple[int, str | None]:
    """The answer to an assertion as the grant, without client authentication."""
    got = post(server, "/token", {"grant_type": JWT_GRANT, **form}, None)
    return got.status, got.json.get("error")


def test_an_assertion_is_taken_once() -> None:
    server = server_of()
    assertion = signed(server)
    assert by_assertion(server, assertion=assertion) == (200, None)
    assert by_assertion(server, assertion=assertion) == (400, "invalid_grant")
    assert by_assertion(server, assertion=signed(server, jti="2")) == (200, None)


@pytest.mark.parametrize(
    "changed",
    [
        {"iat": None},
        {"iat": "now"},
        {"exp": None},
        {"sub": 5},
        {"aud": "https://other.test/token"},
        {"aud": None},
        {"jti": None},
    ],
    ids=str,
)
def test_an_assertion_with_a_claim_that_is_missing_or_wrong_is_no_grant(
    changed: dict[str, Any],
) -> None:
    server = server_of()
    assert by_assertion(server, assertion=signed(server, **changed)) == (400, "invalid_grant")


def test_the_grant_of_an_assertion_needs_one() -> None:
    assert by_assertion(server_of()) == (400, "invalid_request")


def as_client(
    server: AuthorizationServer, assertion: str, authorization: str | None = None, **form: str
) -> tuple[int, str | None]:
    """The answer to a client that proves itself with an assertion."""
    given = {
        "grant_type": "client_credentials",
        "client_assertion": assertion,
        "client_assertion_type": JWT,
        **form,
    }
    got = post(server, "/token", given, authorization)
    return got.status, got.json.get("error")


def test_a_client_proves_itself_by_one_method() -> None:
    server = server_of()
    assert as_client(server, signed(server)) == (200, None)
    again = signed(server, jti="2")
    assert as_client(server, again, client_secret="s") == (400, "invalid_request")
    assert as_client(server, again, basic("client", "secret")) == (400, "invalid_request")
    assert as_client(server, again) == (200, None)


def test_a_client_s_assertion_is_of_a_known_type_and_of_this_client() -> None:
    server = server_of()
    refused = (401, "invalid_client")
    assert as_client(server, signed(server), client_assertion_type="saml") == refused
    assert as_client(server, signed(server, sub="another", jti="2")) == refused
    assert as_client(server, signed(server, jti="3"), client_id="another") == refused
    assert as_client(server, signed(server, jti="4"), client_id="svc") == (200, None)


def test_a_federated_client_s_assertion_may_come_again_and_is_about_that_client() -> None:
    server = server_of(federated={"app": ("svc", "the workload")})
    good = signed(server, sub="the workload")
    assert as_client(server, good, client_id="app") == (200, None)
    assert as_client(server, good, client_id="app") == (200, None)
    other = signed(server, sub="another workload")
    assert as_client(server, other, client_id="app") == (401, "invalid_client")


def test_a_public_client_has_no_secret_to_sign_with() -> None:
    server = AuthorizationServer(
        clients={"svc": None, "confidential": "k" * 32},
        auth_methods=["client_secret_jwt"],
        clock=Clock(),
    )
    assert as_client(server, signed(server)) == (401, "invalid_client")
    good = signed(server, iss="confidential", sub="confidential")
    assert as_client(server, good) == (200, None)


# -- grants ------------------------------------------------------------------------------------------------------------


def test_a_public_client_gets_no_token_for_credentials_that_it_has_not() -> None:
    server = AuthorizationServer(clients={"public": None})
    form = {"grant_type": "client_credentials", "client_id": "public"}
    assert post(server, "/token", form, None).error == (400, "unauthorized_client")


@pytest.mark.parametrize(
    "change, why",
    [
        ({"subject_token": None}, "subject_token"),
        ({"subject_token_type": None}, "subject_token"),
        ({"actor_token": "known"}, "actor_token"),
        ({"actor_token_type": ACCESS}, "actor_token"),
        ({"actor_token": "unknown", "actor_token_type": ACCESS}, "actor_token is not valid"),
        ({"subject_token": "unknown"}, "subject_token is not valid"),
    ],
)
def test_a_token_exchange_names_good_tokens_and_their_types(
    change: dict[str, str | None], why: str
) -> None:
    server = AuthorizationServer(subject_tokens=["known"])
    good = {"grant_type": EXCHANGE, "subject_token": "known", "subject_token_type": ACCESS}
    assert post(server, "/token", good).status == 200
    changed: Mapping[str, str | None] = {**good, **change}
    form = {name: value for name, value in changed.items() if value is not None}
    got = post(server, "/token", form)
    assert got.error == (400, "invalid_request")
    assert why in got.json["error_description"]


def test_the_next_grant_ends_the_one_before_of_the_same_client_alone() -> None:
    server = AuthorizationServer(clients={"one": "1", "two": "2"}, grant_ends_previous=True)
    form = {"grant_type": "client_credentials"}
    first, other, second = (
        post(server, "/token", form, basic(*client)).json
        for client in (("one", "1"), ("two", "2"), ("one", "1"))
    )
    assert [ping(server, token).status for token in (first, other, second)] == [401, 200, 200]


# -- claims that an API asks for ---------------------------------------------------------------------------------------

CLAIMS = '{"access_token": {"acrs": {"essential": true, "value": "c1"}}}'


def test_claims_come_with_a_refresh_or_need_a_person_and_then_spend_nothing() -> None:
    server = AuthorizationServer()
    assert refresh(server, server.login(), claims=CLAIMS).status == 200
    assert server.families[0].claims == CLAIMS
    server.claims_need_login = True
    token = server.login()
    got = refresh(server, token, claims=CLAIMS)
    assert got.error == (400, "interaction_required")
    assert got.json["claims"] == CLAIMS
    assert refresh(server, token).status == 200


# -- an API with metadata, and clients that register -------------------------------------------------------------------


def test_an_api_without_metadata_has_no_document() -> None:
    server = AuthorizationServer()
    place = "/.well-known/oauth-protected-resource/api"
    assert send(server, "GET", place).status == 404
    server.resource_metadata = True
    assert send(server, "GET", place).json["resource"] == server.api_url


def test_a_token_for_another_resource_is_not_issued() -> None:
    server = AuthorizationServer(resource_metadata=True)
    token = server.login()
    assert refresh(server, token).error == (400, "invalid_target")
    elsewhere = refresh(server, token, resource="https://other.test")
    assert elsewhere.error == (400, "invalid_target")
    assert refresh(server, token, resource=server.api_url).status == 200


REDIRECT = "http://127.0.0.1/callback"


def register(server: AuthorizationServer, body: object) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return send(server, "POST", "/register", headers={"content-type": "application/json"}, body=raw)


def test_a_server_without_registration_has_no_such_address() -> None:
    assert register(AuthorizationServer(), {"redirect_uris": [REDIRECT]}).status == 404


@pytest.mark.parametrize(
    "body, error",
    [
        (b"{", "invalid_client_metadata"),
        ([REDIRECT], "invalid_client_metadata"),
        ({}, "invalid_redirect_uri"),
        ({"redirect_uris": []}, "invalid_redirect_uri"),
        ({"redirect_uris": [5]}, "invalid_redirect_uri"),
        (
            {"redirect_uris": [REDIRECT], "token_endpoint_auth_method": "tls_client_auth"},
            "invalid_client_metadata",
        ),
    ],
)
def test_a_registration_that_cannot_be_served_registers_nobody(body: object, error: str) -> None:
    server = AuthorizationServer(registration="open")
    before = dict(server.clients)
    assert register(server, body).error == (400, error)
    assert server.clients == before


@pytest.mark.parametrize("resource", ["https://other.test", None])
def test_a_login_for_another_resource_is_brought_back_as_an_error(resource: str | None) -> None:
    server = AuthorizationServer(resource_metadata=True, registration="open")
    client = register(server, {"redirect_uris": [REDIRECT]}).json["client_id"]
    query = {"response_type": "code", "client_id": client, "redirect_uri": REDIRECT}
    if resource is not None:
        query["resource"] = resource
    got = send(server, "GET", "/authorize", query=urlencode(query))
    assert "error=invalid_target" in got.headers["location"]


def test_nobody_is_sent_to_an_address_that_the_client_did_not_register() -> None:
    server = AuthorizationServer(registration="open")
    client = register(server, {"redirect_uris": [REDIRECT]}).json["client_id"]
    elsewhere = "http://127.0.0.1/elsewhere"
    query = urlencode({"response_type": "code", "client_id": client, "redirect_uri": elsewhere})
    got = send(server, "GET", "/authorize", query=query)
    assert got.error == (400, "invalid_request")
    assert "location" not in got.headers


def test_a_challenge_s_claims_are_sent_in_base64() -> None:
    challenge = Challenge(error="insufficient_claims", claims=json.loads(CLAIMS))
    server = AuthorizationServer(step_up=lambda call, family: challenge)
    got = ping(server, server.login())
    assert got.status == 401
    _, _, rest = got.headers["www-authenticate"].partition('claims="')
    assert json.loads(base64.b64decode(rest.partition('"')[0])) == json.loads(CLAIMS)
