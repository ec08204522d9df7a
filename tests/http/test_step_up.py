"""A 401 that requires another login raises StepUpRequired, without a refresh; a new login elsewhere is adopted."""

from __future__ import annotations

import json
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest

from httpx_refresh import (
    ExpiryRule,
    RefreshAuth,
    RefreshAuthError,
    StepUpRequired,
    Token,
    TokenEndpoint,
)
from httpx_refresh._errors import fresh
from tests.fakes import Endpoint, Store, both_libraries

pytestmark = [pytest.mark.anyio]

STRONGER = (
    'Bearer realm="api", error="insufficient_user_authentication", error_description="stronger",'
    ' scope="pay", acr_values="gold", max_age="300", resource_metadata="https://api.test/meta"'
)
MORE_SCOPE = 'Bearer error="insufficient_scope", scope="write admin"'


class Api:
    """Answers by the access token: a challenge, or None for 200; `seen` holds each request's token."""

    def __init__(self, answers: Callable[[str], str | None], *, status: int = 401) -> None:
        self.answers = answers
        self.status = status
        self.seen: list[str] = []
        self.body: Any = b'{"why": "login"}'

    def client(self, auth: RefreshAuth, http: Any = httpx) -> Any:
        async def answer(request: Any) -> Any:
            await anyio.lowlevel.checkpoint()
            token = request.headers["Authorization"].removeprefix("Bearer ")
            self.seen.append(token.removeprefix("SECRET-"))
            challenge = self.answers(token.removeprefix("SECRET-"))
            if challenge is None:
                return http.Response(200)
            body = {"content" if isinstance(self.body, bytes) else "stream": self.body}
            return http.Response(self.status, headers={"www-authenticate": challenge}, **body)

        return http.AsyncClient(
            auth=auth, transport=http.MockTransport(answer), base_url="https://api.test"
        )


def stored(endpoint: Endpoint, **extra: Any) -> Store:
    return Store(json.dumps({**json.loads(endpoint.text()), **extra}))


@both_libraries
async def test_a_challenge_of_another_origin_that_a_redirect_led_to_is_passed_on(http: Any) -> None:
    """That origin never saw the token."""
    endpoint, seen = Endpoint(), list[bool]()

    def answer(request: Any) -> Any:
        seen.append("Authorization" in request.headers)
        if request.url.host == "api.test":
            return http.Response(302, headers={"location": "https://other.test/"})
        return http.Response(401, headers={"www-authenticate": STRONGER})

    async with http.AsyncClient(
        auth=RefreshAuth(endpoint, stored(endpoint)),
        transport=http.MockTransport(answer),
        follow_redirects=True,
    ) as client:
        assert (await client.get("https://api.test/")).status_code == 401
    assert (seen, endpoint.asked) == ([True, False], [])


@both_libraries
async def test_a_stronger_login_is_asked_for_without_a_refresh(http: Any) -> None:
    endpoint = Endpoint()
    store = stored(endpoint, scope="read offline")
    api = Api(lambda _: STRONGER)
    async with api.client(RefreshAuth(endpoint, store), http) as client:
        with pytest.raises(StepUpRequired) as caught:
            await client.post("/pay", content=b"10 EUR")
    error = caught.value
    assert (api.seen, endpoint.asked, store.written) == (["a0"], [], [])
    assert (error.error, error.scope) == ("insufficient_user_authentication", "pay")
    assert (error.acr_values, error.max_age, error.claims) == ("gold", 300, None)
    assert error.resource_metadata == "https://api.test/meta"
    response: Any = error.response
    assert (response.status_code, response.json()) == (401, {"why": "login"})
    assert error.params == {
        "scope": "read offline pay",
        "acr_values": "gold",
        "max_age": "300",
    }
    for word in ("insufficient_user_authentication", "pay", "gold", "300 s", "Log in again"):
        assert word in str(error)


@both_libraries
async def test_a_streamed_challenge_of_any_length_leaves_its_connection_free(http: Any) -> None:
    closed: list[bool] = []

    class Endless(http.AsyncByteStream):  # type: ignore[misc]  # a base of either library
        async def __aiter__(self) -> Any:
            while True:
                await anyio.lowlevel.checkpoint()
                yield b"x" * 10_000

        async def aclose(self) -> None:
            closed.append(True)

    api = Api(lambda _: STRONGER)
    api.body = Endless()
    endpoint = Endpoint()
    async with api.client(RefreshAuth(endpoint, Store(endpoint.text())), http) as client:
        with pytest.raises(StepUpRequired) as caught:
            await client.get("/")
    response: Any = caught.value.response
    assert 0 < len(response.content) <= 65_536
    assert closed


async def test_somebodys_new_login_is_taken_up_and_the_request_sent_again() -> None:
    endpoint = Endpoint()
    store = Store(endpoint.text())
    api = Api(lambda token: STRONGER if token == "a0" else None)
    mine, theirs = RefreshAuth(endpoint, store), RefreshAuth(endpoint, store)
    async with api.client(mine) as client:
        with pytest.raises(StepUpRequired):
            await client.get("/pay")
        await theirs.set_token(Token("SECRET-new", "SECRET-r9"))
        assert (await client.get("/pay")).status_code == 200
    assert (api.seen, endpoint.asked) == (["a0", "a0", "new"], [])


async def test_a_step_up_for_every_token_is_raised_and_not_sent_more_than_three_times() -> None:
    endpoint = Endpoint()
    store = Store(endpoint.text())
    auth = RefreshAuth(endpoint, store)
    other = RefreshAuth(endpoint, store)
    number = 0

    def another(token: str) -> str | None:
        """Whenever a request arrives, somebody has logged in again."""
        nonlocal number
        number += 1
        record = json.loads(store.text or "")
        store.text = json.dumps({**record, "access_token": f"SECRET-b{number}", "rev": number})
        return STRONGER

    api = Api(another)
    async with api.client(auth) as client:
        with pytest.raises(StepUpRequired):
            await client.get("/pay")
    assert (api.seen, endpoint.asked) == (["a0", "b1", "b2"], [])
    assert store.loads == 3  # There is no look for a token that is not sent any more.
    assert (await other.token()).access_token == "SECRET-b3"


async def test_three_sends_are_the_most_also_if_this_process_logs_in_meanwhile() -> None:
    endpoint = Endpoint()
    store = Store(endpoint.text())
    auth = RefreshAuth(endpoint, store)
    seen: list[str] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["Authorization"].removeprefix("Bearer SECRET-"))
        await auth.set_token(Token(f"SECRET-b{len(seen)}", "SECRET-r9"))
        return httpx.Response(401, headers={"www-authenticate": STRONGER})

    async with httpx.AsyncClient(
        auth=auth, transport=httpx.MockTransport(answer), base_url="https://api.test"
    ) as client:
        with pytest.raises(StepUpRequired):
            await client.get("/pay")
    assert seen == ["a0", "b1", "b2"]
    # The store is read at first, and at each login: what is known need not be looked for.
    assert store.loads == 1 + 3


async def test_concurrent_step_ups_share_one_look_at_the_store() -> None:
    endpoint = Endpoint()
    store = Store(endpoint.text())
    api = Api(lambda _: STRONGER)
    raised: list[StepUpRequired] = []

    async with api.client(RefreshAuth(endpoint, store)) as client:

        async def call() -> None:
            with pytest.raises(StepUpRequired) as caught:
                await client.get("/pay")
            raised.append(caught.value)

        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(call)
    assert (len(raised), len(api.seen), endpoint.asked) == (50, 50, [])
    assert store.loads <= 4  # the first token, and the looks


async def test_a_step_up_is_no_early_end_and_begins_no_doubt() -> None:
    """After any number of such answers a real expiry is refreshed at once."""
    endpoint = Endpoint()
    store = Store(endpoint.text())
    expired: set[str] = set()
    api = Api(lambda token: "Bearer error=invalid_token" if token in expired else None)
    auth = RefreshAuth(endpoint, store)
    picky = Api(lambda _: STRONGER)
    async with api.client(auth) as client, picky.client(auth) as pay:
        assert (await client.get("/a")).status_code == 200
        for number in range(200):
            with pytest.raises(StepUpRequired):
                await pay.get("/" + "x" * (number % 20))
        expired.add("a0")
        assert (await client.get("/a")).status_code == 200
    assert endpoint.asked == ["SECRET-r0"]
    assert (
        "refusals" not in (store.text or "")
        or store.record.refusals is None
        or (store.record.refusals.early == 1)
    )


async def test_scope_and_metadata_on_an_ordinary_401_ask_for_no_login() -> None:
    endpoint = Endpoint()
    expired = 'Bearer error="invalid_token", scope="read", resource_metadata="https://api.test/m"'
    api = Api(lambda token: expired if token == "a0" else None)
    async with api.client(RefreshAuth(endpoint, Store(endpoint.text()))) as client:
        assert (await client.get("/")).status_code == 200
    assert api.seen == ["a0", "a1"]


@pytest.mark.parametrize(
    "rule",
    [
        lambda response: response.status_code == 401,
        lambda response: False,
        ExpiryRule(lambda body: True),
        ExpiryRule(lambda body: True, frozenset({403})),
    ],
)
async def test_a_rule_for_expiries_hides_no_step_up(rule: Any) -> None:
    endpoint = Endpoint()
    auth = RefreshAuth(endpoint, Store(endpoint.text()), is_expired=rule)
    async with Api(lambda _: STRONGER).client(auth) as client:
        with pytest.raises(StepUpRequired):
            await client.get("/")
    assert endpoint.asked == []


async def test_a_refresh_and_then_a_step_up_is_raised_with_the_new_token_in_use() -> None:
    endpoint = Endpoint()
    api = Api(lambda token: "Bearer" if token == "a0" else STRONGER)
    auth = RefreshAuth(endpoint, Store(endpoint.text()))
    async with api.client(auth) as client:
        with pytest.raises(StepUpRequired):
            await client.get("/")
    assert (api.seen, endpoint.asked) == (["a0", "a1"], ["SECRET-r0"])
    assert (await auth.token()).access_token == "SECRET-a1"


@both_libraries
async def test_a_403_with_insufficient_scope_is_passed_on_and_can_be_read(http: Any) -> None:
    endpoint = Endpoint()
    store = stored(endpoint, scope="read")
    async with Api(lambda _: MORE_SCOPE, status=403).client(
        RefreshAuth(endpoint, store), http
    ) as client:
        response = await client.get("/")
    assert (response.status_code, response.json()) == (403, {"why": "login"})
    assert (endpoint.asked, store.written) == ([], [])
    error = StepUpRequired.from_response(response)
    assert error is not None
    assert (error.error, error.scope, error.response) == (
        "insufficient_scope",
        "write admin",
        response,
    )
    assert error.params == {"scope": "read write admin"}
    other = StepUpRequired.from_response(response, granted_scope="all")
    assert other is not None
    assert other.params == {"scope": "all write admin"}


@pytest.mark.parametrize(
    "status, challenge",
    [
        (403, None),
        (403, "Bearer"),
        (403, "Bearer error=invalid_token, scope=a"),
        (200, MORE_SCOPE),
        (404, MORE_SCOPE),
    ],
)
async def test_a_response_that_asks_for_no_login_is_none(
    status: int, challenge: str | None
) -> None:
    headers = {} if challenge is None else {"www-authenticate": challenge}
    assert StepUpRequired.from_response(httpx.Response(status, headers=headers)) is None


@both_libraries
async def test_a_response_without_a_request_is_read_too(http: Any) -> None:
    response = http.Response(
        403, headers=[("WWW-Authenticate", 'Basic realm="x'), ("WWW-Authenticate", MORE_SCOPE)]
    )
    error = StepUpRequired.from_response(response)
    assert error is not None
    assert error.params == {"scope": "write admin"}


async def test_the_error_goes_through_json_and_pickle_to_where_people_log_in() -> None:
    endpoint = Endpoint()
    store = stored(endpoint, scope="read")
    claims = '{"access_token":{"acrs":{"essential":true,"value":"c1"}}}'
    challenge = STRONGER + ', claims="' + claims.replace('"', '\\"') + '"'
    async with Api(lambda _: challenge).client(RefreshAuth(endpoint, store)) as client:
        with pytest.raises(StepUpRequired) as caught:
            await client.get("/")
    error = caught.value
    sent = pickle.dumps(error)
    assert b"SECRET" not in sent
    arrived = pickle.loads(sent)  # noqa: S301 - our own bytes
    assert isinstance(arrived, StepUpRequired)
    assert isinstance(arrived, RefreshAuthError)
    assert (str(arrived), arrived.params, arrived.response) == (str(error), error.params, None)
    assert vars(fresh(error)) == vars(error)
    assert error.claims == json.loads(claims)
    server = TokenEndpoint(
        "https://as.test/token", "app", authorization_endpoint="https://as.test/authorize"
    )
    request = server.authorization_url(
        "https://web.test/callback", **json.loads(json.dumps(arrived.params))
    )
    fields = dict(httpx.URL(request.url).params)
    assert (fields["scope"], fields["acr_values"], fields["max_age"]) == ("read pay", "gold", "300")
    assert fields["claims"] == claims


async def test_an_api_that_repeats_the_token_gets_it_into_no_error() -> None:
    """The token is not in a local variable of the error's frames either, which error trackers send."""
    endpoint = Endpoint()
    challenge = 'Bearer error="insufficient_scope", scope="a SECRET-a0", resource_metadata="https://x/SECRET-a0"'
    auth = RefreshAuth(endpoint, Store(endpoint.text()))
    async with Api(lambda _: challenge).client(auth) as client:
        with pytest.raises(StepUpRequired) as caught:
            await client.get("/")
    error = caught.value
    assert "SECRET" not in f"{error} {error!r} {vars(error)!r} {error.params}"
    frames = traceback.TracebackException.from_exception(error, capture_locals=True).stack
    ours = [frame for frame in frames if "/httpx_refresh/" in frame.filename]
    assert ours
    assert "SECRET" not in "".join(f"{frame.locals}" for frame in ours)


async def test_a_header_of_64_kib_is_read() -> None:
    endpoint = Endpoint()
    auth = RefreshAuth(endpoint, Store(endpoint.text()))
    api = Api(lambda _: 'x="' + '\\"' * 30_000 + '", ' + STRONGER)
    async with api.client(auth) as client:
        with pytest.raises(StepUpRequired) as caught:
            await client.get("/")
    assert caught.value.acr_values == "gold"
