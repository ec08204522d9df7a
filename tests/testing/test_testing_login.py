from __future__ import annotations

import html
import re
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from httpx_refresh.testing import AuthorizationServer
from tests.testing.calls import Clock, Got, basic, ping, post, send

REDIRECT = "http://127.0.0.1:8000/callback"
# The example of RFC 7636, appendix B.
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = {
    "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
    "code_challenge_method": "S256",
}
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"


def authorize(server: AuthorizationServer, **query: str) -> Got:
    asked = {"response_type": "code", "client_id": "client", "redirect_uri": REDIRECT, **query}
    return send(server, "GET", "/authorize", query=urlencode(asked))


def brought_back(got: Got) -> dict[str, str]:
    """The fields of the redirect."""
    assert got.status == 302
    return {
        name: values[0]
        for name, values in parse_qs(urlsplit(got.headers["location"]).query).items()
    }


def redeem(server: AuthorizationServer, code: str, /, **form: str) -> Got:
    asked = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT}
    return post(server, "/token", {**asked, "code_verifier": VERIFIER, **form})


def test_a_code_brings_a_token_for_the_right_verifier() -> None:
    server = AuthorizationServer()
    back = brought_back(authorize(server, state="xyz", scope="a b", **CHALLENGE))
    assert (back["state"], back["iss"]) == ("xyz", server.issuer)
    token = redeem(server, back["code"]).json
    assert token["scope"] == "a b"
    assert ping(server, token).status == 200


def test_a_redirect_keeps_the_query_of_its_address_and_carries_further_fields() -> None:
    server = AuthorizationServer(send_iss=False, redirect_fields={"realmId": "42"})
    got = authorize(server, redirect_uri=f"{REDIRECT}?tenant=1", **CHALLENGE)
    back = brought_back(got)
    assert set(back) == {"tenant", "code", "realmId"}
    assert (back["tenant"], back["realmId"]) == ("1", "42")


@pytest.mark.parametrize(
    "form",
    [
        {"code_verifier": "another"},
        {"code_verifier": ""},
        {"redirect_uri": "http://127.0.0.1:1/"},
        {"code": "unknown"},
    ],
)
def test_a_code_is_refused_to_whoever_does_not_know_what_came_with_it(form: dict[str, str]) -> None:
    server = AuthorizationServer()
    code = brought_back(authorize(server, **CHALLENGE))["code"]
    assert redeem(server, code, **form).error == (400, "invalid_grant")
    assert redeem(server, code).status == 200


def test_a_code_is_bound_to_its_client() -> None:
    server = AuthorizationServer(clients={"client": "1", "other": "2"}, pkce="optional")
    code = brought_back(authorize(server))["code"]
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT}
    assert post(server, "/token", form, basic("other", "2")).error == (400, "invalid_grant")
    assert post(server, "/token", form, basic("client", "1")).status == 200


def test_a_device_code_is_bound_to_its_client() -> None:
    server = AuthorizationServer(clients={"client": "1", "other": "2"})
    device = start_device(server)
    server.decide_device(device["user_code"])
    form = {"grant_type": DEVICE, "device_code": device["device_code"]}
    assert post(server, "/token", form, basic("other", "2")).error == (400, "invalid_grant")
    assert post(server, "/token", form, basic("client", "1")).status == 200


def test_a_code_that_comes_twice_ends_what_it_brought() -> None:
    server = AuthorizationServer()
    code = brought_back(authorize(server, **CHALLENGE))["code"]
    token = redeem(server, code).json
    assert redeem(server, code).error == (400, "invalid_grant")
    assert ping(server, token).status == 401


def test_a_code_expires_after_a_minute() -> None:
    clock = Clock()
    server = AuthorizationServer(clock=clock)
    code = brought_back(authorize(server, **CHALLENGE))["code"]
    clock.now += 61
    assert redeem(server, code).error == (400, "invalid_grant")


@pytest.mark.parametrize(
    "query", [{"client_id": "nobody"}, {"redirect_uri": "/here"}, {"redirect_uri": f"{REDIRECT}#f"}]
)
def test_nobody_is_sent_to_an_address_that_cannot_be_trusted(query: dict[str, str]) -> None:
    got = authorize(AuthorizationServer(), **{**CHALLENGE, **query})
    assert got.error == (400, "invalid_request")


@pytest.mark.parametrize(
    "settings, query, error",
    [
        ({}, {"response_type": "token"}, "unsupported_response_type"),
        ({}, {}, "invalid_request"),
        ({}, {"code_challenge": "x"}, "invalid_request"),
        ({"consent": "deny"}, CHALLENGE, "access_denied"),
    ],
)
def test_an_error_is_brought_back_with_the_state(
    settings: dict[str, Any], query: dict[str, str], error: str
) -> None:
    back = brought_back(authorize(AuthorizationServer(**settings), state="xyz", **query))
    assert (back["error"], back["state"]) == (error, "xyz")
    assert "code" not in back


@pytest.mark.parametrize("pkce", ["optional", "unsupported"])
def test_a_server_may_do_without_pkce(pkce: Any) -> None:
    server = AuthorizationServer(pkce=pkce)
    assert redeem(server, brought_back(authorize(server))["code"]).status == 200


def test_a_server_that_does_not_know_pkce_does_not_check_it() -> None:
    server = AuthorizationServer(pkce="unsupported")
    code = brought_back(authorize(server, **CHALLENGE))["code"]
    assert redeem(server, code, code_verifier="another").status == 200


def follow(server: AuthorizationServer, page: Got, word: str) -> Got:
    """Click on the link of that word."""
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    found = re.search(rf'href="([^"]*)">{word}<', page.body.decode())
    assert found is not None
    path, _, query = html.unescape(found[1]).partition("?")
    return send(server, "GET", path, query=query)


def test_a_person_who_is_asked_may_allow_or_deny() -> None:
    server = AuthorizationServer(consent="ask")
    page = authorize(server, state="<x>", **CHALLENGE)
    assert page.status == 200
    assert b"&amp;state=%3Cx%3E" in page.body
    assert "error" not in brought_back(follow(server, page, "allow"))
    denied = brought_back(follow(server, page, "deny"))
    assert (denied["error"], denied["state"]) == ("access_denied", "<x>")


def start_device(server: AuthorizationServer) -> dict[str, Any]:
    return post(server, "/device_authorization", {"scope": "a"}).json


def poll(server: AuthorizationServer, device: dict[str, Any]) -> Got:
    return post(server, "/token", {"grant_type": DEVICE, "device_code": device["device_code"]})


def test_a_device_is_let_in_once_the_person_allows_it() -> None:
    clock = Clock()
    server = AuthorizationServer(clock=clock, consent="ask")
    device = start_device(server)
    assert poll(server, device).error == (400, "authorization_pending")
    server.decide_device(device["user_code"])
    clock.now += device["interval"]
    token = poll(server, device).json
    assert token["scope"] == "a"
    assert ping(server, token).status == 200
    assert poll(server, device).error == (400, "invalid_grant")


def test_a_device_that_asks_too_often_has_to_slow_down() -> None:
    clock = Clock()
    server = AuthorizationServer(clock=clock, consent="ask")
    device = start_device(server)
    poll(server, device)
    clock.now += device["interval"] - 1
    assert poll(server, device).error == (400, "slow_down")
    clock.now += device["interval"]
    assert poll(server, device).error == (400, "slow_down")
    clock.now += device["interval"] + 10
    assert poll(server, device).error == (400, "authorization_pending")


def test_a_device_code_expires() -> None:
    clock = Clock()
    server = AuthorizationServer(clock=clock)
    device = start_device(server)
    clock.now += device["expires_in"] + 1
    assert poll(server, device).error == (400, "expired_token")


@pytest.mark.parametrize("consent, granted", [("auto", True), ("deny", False)])
def test_a_visit_to_the_device_page_decides(consent: Any, granted: bool) -> None:
    server = AuthorizationServer(consent=consent)
    start_device(server)
    device = start_device(server)
    address = urlsplit(device["verification_uri_complete"])
    assert send(server, "GET", address.path, query=address.query).status == 200
    got = poll(server, device)
    if granted:
        assert got.status == 200
    else:
        assert got.error == (400, "access_denied")


def test_a_person_who_is_asked_about_a_device_may_deny() -> None:
    server = AuthorizationServer(consent="ask")
    device = start_device(server)
    query = urlsplit(device["verification_uri_complete"]).query
    page = send(server, "GET", "/device", query=query)
    assert follow(server, page, "deny").status == 200
    assert poll(server, device).error == (400, "access_denied")


def test_a_code_that_no_device_shows_is_refused() -> None:
    got = send(AuthorizationServer(), "GET", "/device", query="user_code=nothing")
    assert got.error == (400, "invalid_request")
