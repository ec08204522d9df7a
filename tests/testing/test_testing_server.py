from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from httpx_refresh.testing import ApiEvent, AuthorizationServer, FamilyEvent, LostAnswer, TokenEvent
from tests.testing.calls import FORM, Clock, basic, ping, post, refresh, send

if TYPE_CHECKING:
    from httpx_refresh.testing import Family


def test_a_login_brings_a_token_that_the_api_accepts() -> None:
    server = AuthorizationServer(lifetime=60)
    token = server.login(scope="read write")
    assert token["token_type"] == "Bearer"
    assert token["expires_in"] == 60
    assert token["scope"] == "read write"
    assert ping(server, token).json == {"pong": True}
    assert (server.api_requests, server.api_accepted, server.api_refused) == (1, 1, 0)


def test_a_refresh_rotates_the_pair_and_the_spent_token_is_no_good() -> None:
    server = AuthorizationServer()
    old = server.login()
    got = refresh(server, old)
    assert got.status == 200
    assert got.headers["cache-control"] == "no-store"
    new = got.json
    assert new["refresh_token"] != old["refresh_token"]
    assert ping(server, new).status == 200
    assert refresh(server, old).error == (400, "invalid_grant")
    assert (server.token_requests, server.rotations, server.reuses_detected) == (2, 1, 1)


def test_reuse_revokes_the_whole_family_once() -> None:
    server = AuthorizationServer()
    old, other = server.login(), server.login()
    new = refresh(server, old).json
    refresh(server, old)
    refresh(server, old)
    assert refresh(server, new).error == (400, "invalid_grant")
    assert ping(server, new).json["reason"] == "revoked"
    assert ping(server, other).status == 200
    assert server.family_revocations == 1
    assert [family.revoked for family in server.families] == [True, False]


def test_reuse_is_only_refused_where_it_does_not_revoke() -> None:
    server = AuthorizationServer(revoke_on_reuse=False)
    old = server.login()
    new = refresh(server, old).json
    assert refresh(server, old).error == (400, "invalid_grant")
    assert refresh(server, new).status == 200
    assert (server.reuses_detected, server.family_revocations) == (1, 0)


def test_within_the_grace_a_spent_token_yields_another_pair_and_its_siblings_stay_good() -> None:
    clock = Clock()
    server = AuthorizationServer(clock=clock, reuse_grace=30)
    old = server.login()
    first = refresh(server, old).json
    clock.now += 29
    second = refresh(server, old).json
    assert ping(server, first).status == ping(server, second).status == 200
    assert refresh(server, first).status == refresh(server, second).status == 200
    assert server.reuses_detected == 0


def test_the_grace_counts_from_the_first_use() -> None:
    clock = Clock()
    server = AuthorizationServer(clock=clock, reuse_grace=30)
    old = server.login()
    refresh(server, old)
    clock.now += 29
    refresh(server, old)
    clock.now += 1
    assert refresh(server, old).error == (400, "invalid_grant")
    assert server.reuses_detected == 1


@pytest.mark.parametrize("rotate, sent", [(False, False), ("same", True)])
def test_without_rotation_the_old_refresh_token_goes_on(rotate: Any, sent: bool) -> None:
    server = AuthorizationServer(rotate=rotate)
    token = server.login()
    for _ in range(2):
        answer = refresh(server, token).json
        assert answer.get("refresh_token") == (token["refresh_token"] if sent else None)
    assert (server.token_requests, server.rotations) == (2, 0)


def test_an_access_token_expires_by_the_clock_and_is_refused_as_rfc_6750_has_it() -> None:
    clock = Clock()
    server = AuthorizationServer(clock=clock, lifetime=60)
    token = server.login()
    clock.now += 59.9
    assert ping(server, token).status == 200
    clock.now += 0.1
    got = ping(server, token)
    assert got.status == 401
    assert 'error="invalid_token"' in got.headers["www-authenticate"]
    assert server.api_refused == 1


def test_all_access_tokens_can_be_made_to_expire_and_later_ones_are_good() -> None:
    server = AuthorizationServer()
    token = server.login()
    server.expire_access_tokens()
    assert ping(server, token).json["reason"] == "expired"
    assert ping(server, refresh(server, token).json).status == 200


@pytest.mark.parametrize("ends", [True, False])
def test_a_refresh_ends_the_previous_access_token_if_so_set(ends: bool) -> None:
    server = AuthorizationServer(refresh_ends_previous_access_token=ends)
    old = server.login()
    new = refresh(server, old).json
    assert ping(server, old).status == (401 if ends else 200)
    assert ping(server, new).status == 200


@pytest.mark.parametrize("lifetime, sent", [(2.5, 2.5), (2.0, 2)])
def test_expires_in_is_a_whole_number_where_it_can_be(lifetime: float, sent: float) -> None:
    expires_in = AuthorizationServer(lifetime=lifetime).login()["expires_in"]
    assert (expires_in, type(expires_in)) == (sent, type(sent))


def test_expires_in_can_be_withheld() -> None:
    assert "expires_in" not in AuthorizationServer(send_expires_in=False).login()


def test_further_fields_come_with_every_response() -> None:
    def extra(family: Family) -> dict[str, Any]:
        return {"instance_url": f"https://{family.generation}.test"}

    server = AuthorizationServer(extra=extra)
    token = server.login()
    assert token["instance_url"] == "https://0.test"
    assert refresh(server, token).json["instance_url"] == "https://1.test"
    assert AuthorizationServer(extra={"id": 7}).login()["id"] == 7


def test_a_refresh_token_is_bound_to_its_client() -> None:
    server = AuthorizationServer(clients={"one": "1", "two": "2"})
    assert refresh(server, server.login("two")).error == (400, "invalid_grant")
    assert refresh(server, server.login("one")).status == 200


def test_a_refresh_may_ask_for_less_scope_and_not_for_more() -> None:
    server = AuthorizationServer()
    token = server.login(scope="a b")
    assert refresh(server, token, scope="a c").error == (400, "invalid_scope")
    assert refresh(server, token, scope="b").status == 200


def test_families_can_be_ended_one_by_one_or_all_at_once() -> None:
    server = AuthorizationServer()
    one, two = server.login(), server.login()
    server.revoke_family(0)
    assert (ping(server, one).status, ping(server, two).status) == (401, 200)
    server.revoke_family()
    assert ping(server, two).status == 401
    assert server.family_revocations == 2


def test_basic_credentials_are_form_urlencoded_first() -> None:
    server = AuthorizationServer(clients={"a:b c": "p%s+t"})
    token = server.login()
    form = {"grant_type": "refresh_token", "refresh_token": token["refresh_token"]}
    wrong = post(server, "/token", form, basic("a:b c", "p%s+t"))
    assert wrong.error == (401, "invalid_client")
    assert wrong.headers["www-authenticate"].startswith("Basic")
    assert post(server, "/token", form, basic("a%3Ab+c", "p%25s%2Bt")).status == 200


def test_client_secret_post_and_public_clients_authenticate_in_the_body() -> None:
    server = AuthorizationServer(clients={"confidential": "secret", "public": None})
    for client_id, secret in (("confidential", {"client_secret": "secret"}), ("public", {})):
        token = server.login(client_id)
        form = {
            "grant_type": "refresh_token",
            "refresh_token": token["refresh_token"],
            "client_id": client_id,
        }
        assert post(server, "/token", {**form, **secret}, None).status == 200


@pytest.mark.parametrize(
    "form, authorization",
    [
        ({"client_id": "client"}, None),
        ({"client_id": "client", "client_secret": "wrong"}, None),
        ({"client_id": "nobody", "client_secret": "secret"}, None),
        ({}, None),
        ({}, basic("client", "wrong")),
        ({}, "Bearer x"),
        ({}, "Basic ###"),
        ({}, "Basic /w=="),
        ({}, "Basic Y2xpZW50"),
    ],
)
def test_a_client_that_does_not_prove_itself_is_refused(
    form: dict[str, str], authorization: str | None
) -> None:
    server = AuthorizationServer()
    token = server.login()
    form = {"grant_type": "refresh_token", "refresh_token": token["refresh_token"], **form}
    assert post(server, "/token", form, authorization).error == (401, "invalid_client")
    assert refresh(server, token).status == 200


def test_a_method_that_is_not_accepted_is_refused() -> None:
    server = AuthorizationServer(auth_methods=["client_secret_post"])
    assert refresh(server, server.login()).error == (401, "invalid_client")


@pytest.mark.parametrize(
    "form",
    [
        {"client_secret": "secret"},
        {"client_id": "another"},
        {"grant_type": "refresh_token"},
    ],
)
def test_contradictory_or_incomplete_requests_are_invalid(form: dict[str, str]) -> None:
    assert post(AuthorizationServer(), "/token", form).error == (400, "invalid_request")


def test_an_unknown_grant_is_unsupported() -> None:
    got = post(AuthorizationServer(), "/token", {"grant_type": "password"})
    assert got.error == (400, "unsupported_grant_type")


@pytest.mark.parametrize(
    "kind, body",
    [(FORM, b"a=1&a=2"), (FORM, b"\xff"), ("application/json", b"{}")],
    ids=["twice", "not UTF-8", "JSON"],
)
def test_a_body_that_is_not_a_form_is_invalid(kind: str, body: bytes) -> None:
    got = send(AuthorizationServer(), "POST", "/token", headers={"content-type": kind}, body=body)
    assert got.error == (400, "invalid_request")


def test_the_api_tells_what_arrived() -> None:
    server = AuthorizationServer()
    headers = {
        "authorization": f"bearer {server.login()['access_token']}",
        "content-type": "text/plain",
    }
    got = send(server, "PUT", "/api/things/1", query="a=b", headers=headers, body=b"hello")
    assert got.json == {
        "method": "PUT",
        "path": "/api/things/1",
        "query": "a=b",
        "length": 5,
        "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
        "content_type": "text/plain",
        "count": 1,
    }


def test_the_api_redirects_where_it_is_told() -> None:
    server = AuthorizationServer()
    headers = {"authorization": f"Bearer {server.login()['access_token']}"}
    there = send(
        server, "GET", "/api/redirect", query="to=https://x.test/&status=302", headers=headers
    )
    assert (there.status, there.headers["location"]) == (302, "https://x.test/")
    nowhere = send(server, "GET", "/api/redirect", headers=headers)
    assert nowhere.error == (400, "invalid_request")


def test_half_an_answer_without_a_body_breaks_off_too() -> None:
    server = AuthorizationServer()
    server.script_api(LostAnswer(half=True))
    headers = {"authorization": f"Bearer {server.login()['access_token']}"}
    got = send(server, "GET", "/api/redirect", query="to=/", headers=headers)
    assert (got.body, got.headers["content-length"]) == (b"", "1")


@pytest.mark.parametrize("authorization", [None, "Bearer ", "Basic x", "Bearer unknown"])
def test_the_api_refuses_what_is_no_token_of_this_server(authorization: str | None) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    got = send(AuthorizationServer(), "GET", "/api/ping", headers=headers)
    assert got.status == 401
    # RFC 6750 section 3.1: no error code where no token was sent.
    assert ("error=" in got.headers["www-authenticate"]) == (authorization == "Bearer unknown")


def test_other_addresses_are_not_found() -> None:
    assert send(AuthorizationServer(), "GET", "/token").status == 404


def test_the_metadata_names_the_endpoints() -> None:
    server = AuthorizationServer(issuer="https://id.test", auth_methods=["none"])
    document = send(server, "GET", "/.well-known/oauth-authorization-server").json
    assert document["issuer"] == "https://id.test"
    assert document["token_endpoint"] == server.token_url == "https://id.test/token"
    assert document["token_endpoint_auth_methods_supported"] == ["none"]
    assert document["code_challenge_methods_supported"] == ["S256"]
    server.pkce = "unsupported"
    document = send(server, "GET", "/.well-known/oauth-authorization-server").json
    assert "code_challenge_methods_supported" not in document


def test_revocation_ends_an_access_token_alone_and_with_a_refresh_token_the_family() -> None:
    server = AuthorizationServer(clients={"client": "secret", "other": "secret"})
    token = server.login()
    other = server.login("other")
    for value in ("unknown", other["refresh_token"], other["access_token"]):
        assert post(server, "/revoke", {"token": value}).status == 200
    assert ping(server, other).status == ping(server, token).status == 200
    post(server, "/revoke", {"token": token["access_token"]})
    assert ping(server, token).status == 401
    token = refresh(server, token).json
    post(server, "/revoke", {"token": token["refresh_token"]})
    assert ping(server, token).status == 401
    assert refresh(server, token).error == (400, "invalid_grant")


def test_events_tell_what_happened_in_order() -> None:
    clock = Clock()
    server = AuthorizationServer(clock=clock)
    token = server.login()
    refresh(server, token)
    clock.now += 1
    refresh(server, token)
    ping(server, token)
    start = clock.now - 1
    grant = "refresh_token"
    assert server.events == [
        FamilyEvent(start, 0, "login"),
        TokenEvent(start, grant, "client", 0, 0, 1, "issued", None),
        TokenEvent(clock.now, grant, "client", 0, 0, None, "reused", None),
        FamilyEvent(clock.now, 0, "reuse"),
        ApiEvent(clock.now, "GET", "server.test", "/api/ping", 0, 0, "revoked", None),
    ]


def test_no_repr_shows_a_token_or_a_secret() -> None:
    server = AuthorizationServer(clients={"client": "s3cr3t"})
    token = server.login()
    refresh(server, token)
    shown = repr([server, server.events, server.token_calls, server.families])
    for secret in (token["access_token"], token["refresh_token"], "s3cr3t"):
        assert secret not in shown
    assert token["refresh_token"].encode() in server.token_calls[0].body


def test_tokens_can_be_made_the_same_in_every_run() -> None:
    numbers = iter(range(100))
    server = AuthorizationServer(new_token=lambda: f"token-{next(numbers)}")
    assert server.login()["refresh_token"] == "token-0"
    assert refresh(server, {"refresh_token": "token-0"}).json["access_token"] == "token-3"


def test_many_threads_may_use_one_server() -> None:
    server = AuthorizationServer()
    old = server.login()
    start = threading.Barrier(8)
    statuses: list[int] = []

    def spend() -> None:
        start.wait()
        statuses.append(refresh(server, old).status)

    threads = [threading.Thread(target=spend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [400] * 7
    assert server.stats()["rotations"] == 1


def test_settings_that_cannot_work_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="clients"):
        AuthorizationServer(clients={})
    with pytest.raises(ValueError, match="tls_client_auth"):
        AuthorizationServer(auth_methods=["tls_client_auth"])


def test_a_grace_may_last_until_the_new_token_is_used() -> None:
    clock = Clock()
    server = AuthorizationServer(reuse_grace="until_used", clock=clock)
    old = server.login()
    refresh(server, old)
    clock.now += 1_000.0
    second = refresh(server, old).json
    assert (
        ping(server, old).status == 200
    )  # Using the old access token does not count as a use of the new one.
    third = refresh(server, old).json
    assert ping(server, third).status == 200
    assert refresh(server, old).error == (400, "invalid_grant")
    assert refresh(server, second).error == (400, "invalid_grant")  # Its family has ended with it.


def test_a_grace_until_use_ends_with_the_use_of_the_new_refresh_token_too() -> None:
    server = AuthorizationServer(reuse_grace="until_used", revoke_on_reuse=False)
    old = server.login()
    new = refresh(server, old).json
    assert refresh(server, new).status == 200
    assert refresh(server, old).error == (400, "invalid_grant")


def test_json_is_what_such_a_server_reads_and_nothing_else() -> None:
    server = AuthorizationServer(request_format="json")
    token = server.login()
    assert refresh(server, token).error == (400, "invalid_request")
    headers = {"content-type": "application/json", "authorization": basic("client", "secret")}
    for body in (b"{", b"[]", b'{"grant_type": 5}'):
        got = send(server, "POST", "/token", headers=headers, body=body)
        assert got.error == (400, "invalid_request")
    form = {"grant_type": "refresh_token", "refresh_token": token["refresh_token"]}
    got = send(server, "POST", "/token", headers=headers, body=json.dumps(form).encode())
    assert got.status == 200


def test_a_refusal_of_a_refresh_token_may_be_of_any_kind() -> None:
    server = AuthorizationServer(dead_refresh_token=(401, {"message": "no"}))
    got = refresh(server, {"refresh_token": "x"})
    assert (got.status, got.json) == (401, {"message": "no"})
