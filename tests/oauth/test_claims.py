"""Claims in a refresh, a grant and a login, and the answer of a server that requires a person for them."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from httpx_refresh import (
    ReauthorizationRequired,
    RefreshAuth,
    RefreshUnavailable,
    StepUpRequired,
    Token,
    TokenEndpoint,
    providers,
)
from httpx_refresh.grants import ClientCredentials

pytestmark = pytest.mark.anyio

CLAIMS: dict[str, Any] = {"access_token": {"nbf": {"essential": True, "value": "1604106651"}}}
CAPABLE = '{"access_token":{"xms_cc":{"values":["cp1"]}}}'
BOTH = {
    "access_token": {
        "nbf": {"essential": True, "value": "1604106651"},
        "xms_cc": {"values": ["cp1"]},
    }
}
MFA = {"access_token": {"polids": {"essential": True, "values": ["5ce770ea"]}}}
TOKEN = Token("SECRET-a", "SECRET-r")


class Server:
    """A token endpoint that gives the answers that a test sets, and keeps the forms of its requests."""

    def __init__(self, status: int = 200, **answer: Any) -> None:
        self.status = status
        self.answer = answer or {"access_token": "SECRET-b", "expires_in": 3600}
        self.forms: list[dict[str, list[str]]] = []

    def endpoint(self, **options: Any) -> TokenEndpoint:
        def answer(request: httpx.Request) -> httpx.Response:
            self.forms.append(parse_qs(request.content.decode()))
            return httpx.Response(self.status, json=self.answer)

        client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        return TokenEndpoint(
            "https://as.test/token",
            "app",
            "hidden",
            client=client,
            authorization_endpoint="https://as.test/authorize",
            **options,
        )


async def test_a_refresh_sends_the_claims_that_are_asked_for() -> None:
    server = Server()
    await server.endpoint().refresh(TOKEN, claims=CLAIMS)
    await server.endpoint().refresh(TOKEN)
    (text,) = server.forms[0]["claims"]
    assert json.loads(text) == CLAIMS
    assert "claims" not in server.forms[1]


async def test_claims_are_united_with_what_the_client_says_of_itself() -> None:
    server = Server()
    endpoint = server.endpoint(params={"claims": CAPABLE, "scope": "a"})
    await endpoint.refresh(TOKEN, claims=CLAIMS)
    await endpoint.refresh(TOKEN)
    await ClientCredentials(endpoint, scope="b").obtain(None, claims=CLAIMS)
    assert [json.loads(*form["claims"]) for form in server.forms] == [
        BOTH,
        json.loads(CAPABLE),
        BOTH,
    ]
    assert [form["scope"] for form in server.forms] == [["a"], ["a"], ["b"]]


async def test_a_login_unites_them_too() -> None:
    endpoint = Server().endpoint(authorization_params={"claims": CAPABLE, "prompt": "login"})

    def asked(**params: str) -> dict[str, str]:
        url = endpoint.authorization_url("https://web.test/callback", **params).url
        return dict(httpx.URL(url).params)

    error = StepUpRequired("m", claims=CLAIMS, scope="pay", max_age=0)
    fields = asked(**error.params)
    assert json.loads(fields["claims"]) == BOTH
    assert (fields["prompt"], fields["scope"], fields["max_age"]) == ("login", "pay", "0")
    assert asked()["claims"] == CAPABLE


@pytest.mark.parametrize(
    "answer, claims",
    [
        ({"error": "interaction_required", "claims": json.dumps(MFA)}, MFA),
        ({"error": "interaction_required"}, CLAIMS),
        ({"error": "interaction_required", "claims": "%%%"}, CLAIMS),
        ({"error": "interaction_required", "claims": {"a": 1}}, CLAIMS),
        ({"error": "login_required"}, CLAIMS),
        ({"error": "invalid_request", "error_description": "no claims here"}, CLAIMS),
        # AADSTS50076 comes with the code of a dead grant as well.
        ({"error": "invalid_grant", "claims": json.dumps(MFA)}, MFA),
        ({"error": "interaction_required", "claims": '{"a":"SECRET-r"}'}, CLAIMS),
    ],
)
async def test_claims_that_need_a_person_are_raised_as_such(
    answer: dict[str, Any], claims: dict[str, Any]
) -> None:
    server = Server(400, **answer)
    with pytest.raises(StepUpRequired) as caught:
        await server.endpoint().refresh(TOKEN, claims=CLAIMS)
    error = caught.value
    assert (error.error, error.claims) == (answer["error"], claims)
    assert "SECRET" not in f"{error} {vars(error)!r}"
    assert "Log in again" in str(error)
    with pytest.raises(StepUpRequired):
        await ClientCredentials(server.endpoint()).obtain(None, claims=CLAIMS)


@pytest.mark.parametrize(
    "status, answer, kind",
    [
        (400, {"error": "invalid_grant"}, ReauthorizationRequired),
        (401, {"error": "invalid_client"}, RefreshUnavailable),
        (503, {"error": "interaction_required"}, RefreshUnavailable),
        (400, {"why": "?"}, RefreshUnavailable),
        (302, {"why": "?"}, RefreshUnavailable),
    ],
)
async def test_other_refusals_have_nothing_to_do_with_the_claims(
    status: int, answer: dict[str, Any], kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        await Server(status, **answer).endpoint().refresh(TOKEN, claims=CLAIMS)


async def test_a_service_gets_another_token_with_the_claims_and_a_second_refusal_is_raised() -> (
    None
):
    server = Server()
    source = ClientCredentials(server.endpoint(origins=["https://api.test"]))
    asks = True

    def api(_: httpx.Request) -> httpx.Response:
        if not asks and len(server.forms) > 1:
            return httpx.Response(200)
        challenge = "Bearer error=insufficient_claims, claims=" + "eyJhIjogMX0"
        return httpx.Response(401, headers={"www-authenticate": challenge})

    for asks, requests in ((False, 2), (True, 2)):
        server.forms.clear()
        auth = RefreshAuth(source)
        async with httpx.AsyncClient(auth=auth, transport=httpx.MockTransport(api)) as client:
            server.answer = {"access_token": f"SECRET-{asks}", "expires_in": 3600}
            await auth.token()
            server.answer = {"access_token": f"SECRET-{asks}2", "expires_in": 3600}
            if asks:
                for _ in range(3):
                    with pytest.raises(StepUpRequired):
                        await client.get("https://api.test/")
            else:
                assert (await client.get("https://api.test/")).status_code == 200
        assert [form.get("claims") for form in server.forms] == [None, ['{"a":1}']]
        assert len(server.forms) == requests


async def test_the_microsoft_preset_says_what_the_client_can_do() -> None:
    """MicrosoftDocs/entra-docs claims-challenge.md: client capabilities."""
    server = Server()

    def answer(request: httpx.Request) -> httpx.Response:
        server.forms.append(parse_qs(request.content.decode()))
        return httpx.Response(200, json=server.answer)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        endpoint = providers.microsoft(
            "app",
            "hidden",
            tenant="contoso.com",
            client_capabilities=["cp1"],
            params={"x": "y"},
            client=client,
        )
        request = endpoint.authorization_url("https://app.test/callback", claims=json.dumps(CLAIMS))
        await endpoint.exchange_code({"code": "c", "state": request.state}, request)
        await endpoint.refresh(TOKEN)
        await endpoint.refresh(TOKEN, claims=CLAIMS)
        await ClientCredentials(endpoint, scope="https://graph.microsoft.com/.default").obtain(None)
    asked = parse_qs(urlsplit(request.url).query)
    assert json.loads(asked["claims"][0]) == BOTH
    # The code is bound to the parameters of its login.
    claims = [json.loads(form["claims"][0]) for form in server.forms[1:]]
    assert claims == [json.loads(CAPABLE), BOTH, json.loads(CAPABLE)]
    assert {form["x"][0] for form in server.forms[1:]} == {"y"}
    wrong: Any = "cp1"
    with pytest.raises(TypeError, match="client_capabilities"):
        providers.microsoft("app", client_capabilities=wrong)
    assert "claims" not in dict(providers.microsoft("app").login.authorization_params)
