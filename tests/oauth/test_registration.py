from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from httpx_refresh import LoginFailed
from httpx_refresh._oauth.documents import Documents
from httpx_refresh._oauth.registration import (
    Registration,
    application_type_of,
    client_metadata,
    method_for,
    register,
)

pytestmark = pytest.mark.anyio

URL = "https://login.test/register"
REDIRECT = "http://127.0.0.1:8000/callback"
ASKED = client_metadata(REDIRECT, client_name="agents", scope="a b", method="none")
NOW = 1_000.0


async def registered(
    answer: httpx.Response | httpx.ConnectError, asked: dict[str, Any] = ASKED
) -> Registration:
    def handle(request: httpx.Request) -> httpx.Response:
        assert str(request.url) == URL
        assert request.headers["content-type"] == "application/json"
        assert json.loads(request.content) == asked
        if isinstance(answer, httpx.ConnectError):
            raise answer
        return answer

    async with httpx.AsyncClient(transport=httpx.MockTransport(handle)) as client:
        return await register(URL, asked, Documents(client, 10), name="login.test")


def test_a_client_says_what_it_is() -> None:
    assert ASKED == {
        "client_name": "agents",
        "redirect_uris": [REDIRECT],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "application_type": "native",
        "scope": "a b",
    }
    assert "scope" not in client_metadata(REDIRECT, client_name="a", scope="", method="none")


@pytest.mark.parametrize(
    "redirect_uri, kind",
    [
        ("http://127.0.0.1:8000/callback", "native"),
        ("http://localhost/callback", "native"),
        ("http://[::1]:8000/", "native"),
        ("com.example.app:/callback", "native"),
        ("https://app.example.com/callback", "web"),
    ],
)
def test_a_client_is_native_where_the_browser_comes_back_to_this_computer(
    redirect_uri: str, kind: str
) -> None:
    assert application_type_of(redirect_uri) == kind


@pytest.mark.parametrize(
    "supported, method",
    [
        ([], "client_secret_basic"),
        (["client_secret_basic", "none"], "none"),
        (["client_secret_basic", "client_secret_post"], "client_secret_post"),
        (["private_key_jwt", "client_secret_basic"], "client_secret_basic"),
    ],
)
def test_a_client_authenticates_in_a_way_that_the_server_knows(
    supported: list[str], method: str
) -> None:
    assert method_for(supported) == method


def test_a_server_that_wants_a_key_takes_no_client_that_registers_itself() -> None:
    with pytest.raises(ValueError, match="private_key_jwt, tls_client_auth"):
        method_for(["tls_client_auth", "private_key_jwt"])


@pytest.mark.parametrize("status", [200, 201])
async def test_a_registration_is_what_the_server_made_of_it(status: int) -> None:
    answer = {
        **ASKED,
        "client_id": "c1",
        "client_secret": "SECRET",
        "client_secret_expires_at": 2_000,
        "token_endpoint_auth_method": "client_secret_basic",
        "scope": "a",
        "redirect_uris": [REDIRECT, "https://other.test/"],
    }
    came = await registered(httpx.Response(status, json=answer))
    uris = (REDIRECT, "https://other.test/")
    assert came == Registration("c1", "SECRET", "client_secret_basic", uris, "a", 2_000)
    assert "SECRET" not in repr(came)
    assert Registration.from_note(json.loads(json.dumps(came.note()))) == came


async def test_what_the_answer_leaves_out_is_as_it_was_asked_for() -> None:
    came = await registered(httpx.Response(201, json={"client_id": "c1"}))
    assert came == Registration("c1", None, "none", (REDIRECT,), "a b")
    asked = {**ASKED, "token_endpoint_auth_method": "client_secret_post"}
    answer = httpx.Response(201, json={"client_id": "c1", "client_secret": "s"})
    came = await registered(answer, asked)
    assert came.method == "client_secret_post"


@pytest.mark.parametrize(
    "change",
    [
        {"client_id": None},
        {"client_id": ""},
        {"client_id": 7},
        {"client_id": "x" * 10_000},
        {"client_secret": "x" * 10_000},
        {"token_endpoint_auth_method": "private_key_jwt"},
        {"token_endpoint_auth_method": "client_secret_post"},
    ],
)
async def test_a_registration_that_cannot_be_used_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(LoginFailed, match="no client that can be used"):
        await registered(httpx.Response(201, json={**ASKED, "client_id": "c1", **change}))


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(201, text="no json"),
        httpx.Response(201, text="[" * 100_000),
        httpx.Response(201, json=[]),
        httpx.Response(201, text='{"client_id": "c1", "pad": "' + "x" * 70_000 + '"}'),
    ],
)
async def test_an_answer_that_cannot_be_read_is_no_registration(answer: httpx.Response) -> None:
    with pytest.raises(LoginFailed, match="no client that can be used"):
        await registered(answer)


async def test_a_registration_endpoint_that_is_down_registers_nobody_and_may_be_asked_again() -> (
    None
):
    with pytest.raises(LoginFailed, match=r"could not be reached.*Try again later") as caught:
        await registered(httpx.ConnectError("no route"))
    assert caught.value.transient


async def test_a_server_that_sends_people_elsewhere_is_not_used() -> None:
    changed = {**ASKED, "client_id": "c1", "redirect_uris": ["https://evil.test/"]}
    with pytest.raises(LoginFailed, match="another redirect URI"):
        await registered(httpx.Response(201, json=changed))


@pytest.mark.parametrize(
    "answer, words, transient",
    [
        (
            httpx.Response(
                400,
                json={"error": "invalid_redirect_uri", "error_description": "no\x1b[2J loopback"},
            ),
            r"invalid_redirect_uri: no \[2J loopback\).*--port",
            False,
        ),
        (httpx.Response(400, json={"error": "invalid_client_metadata"}), "--scope", False),
        (httpx.Response(403, text="no"), "--client-id", False),
        (httpx.Response(503, text="no"), "Try again later", True),
        (httpx.Response(429, text="no"), "Try again later", True),
        (httpx.Response(307, headers={"location": "https://evil.test/"}), "status 307", False),
    ],
)
async def test_a_refused_registration_says_what_may_help(
    answer: httpx.Response, words: str, transient: bool
) -> None:
    with pytest.raises(LoginFailed, match=words) as caught:
        await registered(answer)
    assert caught.value.transient is transient
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    "registration, fits",
    [
        (Registration("c", redirect_uris=(REDIRECT,)), True),
        (Registration("c", redirect_uris=(REDIRECT,), scope="b a c"), True),
        (Registration("c", redirect_uris=(REDIRECT,), scope="a"), False),
        (Registration("c", redirect_uris=("http://127.0.0.1:8001/callback",)), False),
        (Registration("c", "s", "client_secret_post", (REDIRECT,), None, NOW), False),
        (Registration("c", "s", "client_secret_post", (REDIRECT,), None, NOW + 1), True),
    ],
)
def test_a_registration_serves_the_logins_that_it_was_made_for(
    registration: Registration, fits: bool
) -> None:
    assert registration.fits(REDIRECT, "a b", now=NOW) is fits


@pytest.mark.parametrize("note", [None, 7, [], {}, {"client_id": ""}, {"client_secret": "s"}])
def test_a_note_that_is_no_registration_is_as_good_as_none(note: Any) -> None:
    assert Registration.from_note(note) is None


def test_a_secret_that_does_not_end_is_told_by_zero() -> None:
    note = {"client_id": "c", "client_secret": "s", "client_secret_expires_at": 0}
    came = Registration.from_note(note)
    assert came == Registration("c", "s", "client_secret_basic")
