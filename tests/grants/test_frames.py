"""Rule 13 for services: no failure of a grant shows a secret, a key or an assertion, in no local variable either."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from httpx_refresh import RefreshAuth, RefreshUnavailable, TokenEndpoint
from httpx_refresh.client_auth import ClientAssertion, ClientSecretJWT, PrivateKeyJWT
from httpx_refresh.grants import (
    ID_TOKEN,
    ClientCredentials,
    EndpointSource,
    Grant,
    JWTBearer,
    TokenExchange,
)
from httpx_refresh.providers import github_installation, google_service_account
from tests.oauth.pems import pem
from tests.oauth.test_frames import FAILURES, MARK, check_frames, failure_of

pytestmark = pytest.mark.anyio

PEM = pem("RSA")
PARTS_OF_KEYS = tuple(PEM.splitlines()[number] for number in (1, 5, 9))
"""Whole lines of the private key: what would be enough to know whose it is."""

DAMAGED = PEM.replace(PEM.splitlines()[3], f"{MARK}")

ASSERTION = "eyJ"
"""How each signed assertion begins: the base64 of a JSON object."""

ACCOUNT = {"client_email": "robot@acme.test", "private_key": PEM, "private_key_id": "k1"}

Make = Callable[[Any], EndpointSource]


def endpoint(client: Any, secret: Any = f"{MARK}-secret", **told: Any) -> TokenEndpoint:
    return TokenEndpoint("https://as.test/token", "id", secret, client=client, **told)


def signing(client: Any, auth: Any) -> TokenEndpoint:
    return endpoint(client, None, client_auth=auth)


async def later() -> dict[str, str]:
    return {"pin": f"{MARK}-pin"}


SOURCES: dict[str, Make] = {
    "client credentials": lambda client: ClientCredentials(
        endpoint(client), params={"pin": f"{MARK}-pin"}
    ),
    "a client's key": lambda client: ClientCredentials(
        signing(client, PrivateKeyJWT(PEM, algorithm="RS256"))
    ),
    "a client's secret that signs": lambda client: ClientCredentials(
        signing(client, ClientSecretJWT(MARK * 5))
    ),
    "a client's assertion": lambda client: ClientCredentials(
        signing(client, ClientAssertion(lambda: f"{MARK}-assertion"))
    ),
    "JWT bearer": lambda client: JWTBearer(endpoint(client), PEM, issuer="id"),
    "a foreign assertion": lambda client: JWTBearer(
        endpoint(client), assertion=lambda: f"{MARK}-assertion"
    ),
    "token exchange": lambda client: TokenExchange(
        endpoint(client),
        f"{MARK}-subject",
        actor_token=lambda: f"{MARK}-actor",
        actor_token_type=ID_TOKEN,
    ),
    "a vendor's grant": lambda client: Grant(endpoint(client), "own", {"pin": f"{MARK}-pin"}),
    "a vendor's grant that is read": lambda client: Grant(endpoint(client), "own", later),
    "a Google service account": lambda client: google_service_account(
        ACCOUNT, scope="a", client=client
    ),
    "a GitHub installation": lambda client: github_installation("id", PEM, 7, client=client),
}


def check(error: BaseException) -> None:
    check_frames(error, ASSERTION, *PARTS_OF_KEYS)


# A source knows no event loop. The other loops' frames are looked at in tests/oauth/test_frames.py.
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
@pytest.mark.parametrize("failing", FAILURES)
@pytest.mark.parametrize("name", SOURCES)
async def test_no_failure_of_a_grant_keeps_a_secret_in_a_frame(name: str, failing: str) -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(FAILURES[failing])) as client:
        source = SOURCES[name](client)
        error = await failure_of(source.obtain(None))
        assert error is not None
        check(error)
        # What `RefreshAuth` makes of it is told to everybody who waits.
        error = await failure_of(RefreshAuth(source, origins="any", refresh_timeout=0.2).token())
        assert error is not None
        check(error)
        assert MARK not in f"{source!r} {source.purpose}"


def _raises() -> Any:
    try:
        raise OSError(2, "No such file or directory", f"/run/{MARK}")
    except OSError as error:
        raise RuntimeError(f"{MARK} in a message") from error


def _returns_half() -> Any:
    return f"{MARK}\ud800"


UNREADABLE: dict[str, tuple[Make, str]] = {
    "a subject token that raises": (
        lambda client: TokenExchange(endpoint(client), _raises),
        "subject_token",
    ),
    "a subject token that cannot be sent": (
        lambda client: TokenExchange(endpoint(client), _returns_half),
        "subject_token",
    ),
    "an actor token that raises": (
        lambda client: TokenExchange(
            endpoint(client), f"{MARK}-s", actor_token=_raises, actor_token_type=ID_TOKEN
        ),
        "actor_token",
    ),
    "an assertion that raises": (
        lambda client: JWTBearer(endpoint(client), assertion=_raises),
        "assertion",
    ),
    "parameters that raise": (lambda client: Grant(endpoint(client), "own", _raises), "params"),
    "parameters that cannot be sent": (
        lambda client: Grant(endpoint(client), "own", lambda: {"pin": f"{MARK}\ud800"}),
        "params",
    ),
    "a key that raises": (
        lambda client: JWTBearer(endpoint(client), _raises, issuer="id"),
        "key",
    ),
    "a key that is none": (
        lambda client: JWTBearer(endpoint(client), lambda: f"{MARK} no key", issuer="id"),
        "key",
    ),
    "a key of another kind": (
        lambda client: JWTBearer(endpoint(client), lambda: PEM, issuer="id", algorithm="ES256"),
        "key",
    ),
    "a key's password that is wrong": (
        lambda client: JWTBearer(
            endpoint(client), lambda: pem("RSA", b"right"), issuer="id", password=f"{MARK}-wrong"
        ),
        "key",
    ),
    "a client's key that raises": (
        lambda client: ClientCredentials(
            signing(client, PrivateKeyJWT(_raises, algorithm="RS256"))
        ),
        "key",
    ),
    "a client's secret that raises": (
        lambda client: ClientCredentials(endpoint(client, _raises)),
        "client_secret",
    ),
    "a client's assertion that raises": (
        lambda client: ClientCredentials(signing(client, ClientAssertion(_raises))),
        "ClientAssertion",
    ),
}


@pytest.mark.parametrize("what", UNREADABLE)
async def test_what_cannot_be_read_names_the_argument_and_sends_nothing(what: str) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"access_token": "a"})

    make, argument = UNREADABLE[what]
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        source = make(client)
        with pytest.raises(RefreshUnavailable, match=argument) as caught:
            await source.obtain(None)
        assert caught.value.outcome == "not_sent"
        check(caught.value)
    assert asked == []


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "a key of another kind": (
        lambda _: JWTBearer(endpoint(None), PEM, issuer="id", algorithm="Ed25519"),
        "key is of the wrong kind",
    ),
    "a key that is damaged": (
        lambda _: JWTBearer(endpoint(None), DAMAGED, issuer="id"),
        "key is no private key",
    ),
    "a wrong password": (
        lambda _: JWTBearer(
            endpoint(None), pem("RSA", b"right"), issuer="id", password=f"{MARK}-wrong"
        ),
        "the password is wrong",
    ),
    "a file that is gone": (
        lambda home: JWTBearer(endpoint(None), home / "gone.pem", issuer="id"),
        "the file passed as key cannot be read",
    ),
    "an empty scope": (lambda _: ClientCredentials(endpoint(None), scope=" "), "scope must not"),
    "an empty subject token": (
        lambda _: TokenExchange(endpoint(None), " "),
        "subject_token must not be empty",
    ),
    "a service account's key that is damaged": (
        lambda _: google_service_account({**ACCOUNT, "private_key": DAMAGED}, scope="a"),
        "key is no private key",
    ),
    "a service account of another kind": (
        lambda _: google_service_account({"client_id": f"{MARK}"}, scope="a"),
        "key must hold client_email",
    ),
    "an app's key that is a public one": (
        lambda _: github_installation("id", "-----BEGIN PUBLIC KEY-----\n" + MARK, 7),
        "must be a private key",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_meant_is_an_error_at_construction(what: str, tmp_path: Path) -> None:
    make, words = WRONG[what]
    with pytest.raises(ValueError, match=words) as caught:
        make(tmp_path)
    check(caught.value)
