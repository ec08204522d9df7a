"""Which responses mean that the token is no longer valid, and how much of them is read."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from functools import partial
from typing import Any

import pytest

from httpx_refresh import ExpiryRule, RefreshAuth
from tests.fakes import Endpoint, Store, both_libraries, loop_wall, use_loop_time
from tests.virtual_time import virtual_time

pytestmark = [pytest.mark.anyio, both_libraries, virtual_time]

EXPIRED = json.dumps({"ok": False, "error": "token_expired"}).encode()
LIMIT = 65_536


@pytest.fixture(autouse=True)
def loop_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new token that is refused is sent again after a second: it goes by at once."""
    use_loop_time(monkeypatch)


def says_expired(body: Any) -> bool:
    return isinstance(body, dict) and body.get("error") == "token_expired"


def noting(seen: list[Any]) -> Callable[[Any], bool]:
    """A rule that never reports an expiry, and records the bodies that it gets."""

    def body(value: Any) -> bool:
        seen.append(value)
        return False

    return body


class Site:
    """Gives the same answer to each request; `replays` counts the refusals that were treated as an expiry."""

    def __init__(self, http: Any, rule: Any, make: Any) -> None:
        self.endpoint = Endpoint(clock=loop_wall)
        auth = RefreshAuth(self.endpoint, Store(self.endpoint.text()), is_expired=rule)
        self.client = http.AsyncClient(
            auth=auth,
            transport=http.MockTransport(lambda _: make(http)),
            base_url="https://api.test",
        )

    @property
    def replays(self) -> int:
        return self.endpoint.issued


def piecewise(body: bytes, pieces: int) -> AsyncIterator[bytes]:
    async def generate() -> AsyncIterator[bytes]:
        size = len(body) // pieces + 1
        for at in range(0, len(body), size):
            yield body[at : at + size]

    return generate()


async def test_a_predicate_on_the_response_decides_in_the_place_of_the_status(http: Any) -> None:
    def rule(response: Any) -> bool:
        return bool(response.headers.get("x-token") == "expired")

    expired = Site(http, rule, lambda http: http.Response(400, headers={"x-token": "expired"}))
    good = Site(http, rule, lambda http: http.Response(401))
    async with expired.client, good.client:
        assert (await expired.client.get("/")).status_code == 400
        assert (await good.client.get("/")).status_code == 401
    assert (expired.replays, good.replays) == (1, 0)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_rule_finds_the_expiry_in_a_200_and_the_body_is_still_there(
    http: Any, streamed: bool
) -> None:
    def make(http: Any) -> Any:
        return http.Response(200, content=piecewise(EXPIRED, 3) if streamed else EXPIRED)

    site = Site(http, ExpiryRule(says_expired, statuses=frozenset({200})), make)
    async with site.client:
        assert (await site.client.get("/")).content == EXPIRED
        assert site.replays == 1
        async with site.client.stream("GET", "/") as response:
            assert b"".join([piece async for piece in response.aiter_bytes()]) == EXPIRED


async def test_a_status_that_the_rule_does_not_name_is_not_looked_into(http: Any) -> None:
    site = Site(
        http,
        ExpiryRule(says_expired),
        lambda http: http.Response(403, content=piecewise(EXPIRED, 1)),
    )
    async with site.client, site.client.stream("GET", "/") as response:
        assert not response.is_stream_consumed
        assert [piece async for piece in response.aiter_raw()] == [EXPIRED]
    assert site.replays == 0


async def test_a_401_is_accepted_where_the_rule_names_other_statuses(http: Any) -> None:
    rule = ExpiryRule(says_expired, statuses=frozenset({200}))
    site = Site(http, rule, lambda http: http.Response(401, content=EXPIRED))
    async with site.client:
        assert (await site.client.get("/")).content == EXPIRED
    assert site.replays == 0


async def test_a_401_that_is_not_about_expiry_is_passed_on_without_a_refresh(http: Any) -> None:
    body = json.dumps({"Detail": "AuthorizationUnsuccessful"})
    rule = ExpiryRule(lambda body: body.get("Detail") != "AuthorizationUnsuccessful")
    site = Site(http, rule, lambda http: http.Response(401, text=body))
    async with site.client:
        assert (await site.client.get("/")).json() == json.loads(body)
    assert site.replays == 0


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"\xff\xfe", b"[" * 50_000, b'{"error": "token_expired"'],
    ids=["empty", "HTML", "no text", "deep", "cut short"],
)
async def test_a_body_that_is_no_json_is_none_to_the_rule(http: Any, body: bytes) -> None:
    seen: list[Any] = []
    site = Site(http, ExpiryRule(noting(seen)), lambda http: http.Response(401, content=body))
    async with site.client:
        assert (await site.client.get("/")).content == body
    assert (seen, site.replays) == ([None], 0)


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_of_more_than_64_kib_is_none_to_the_rule_and_arrives_whole(
    http: Any, announced: bool
) -> None:
    body = EXPIRED + b" " * (LIMIT + 1 - len(EXPIRED))
    seen: list[Any] = []

    def make(http: Any) -> Any:
        headers = {"content-length": str(len(body))} if announced else {}
        return http.Response(401, headers=headers, content=piecewise(body, 10))

    site = Site(http, ExpiryRule(noting(seen)), make)
    async with site.client:
        assert (await site.client.get("/")).content == body
        async with site.client.stream("GET", "/") as response:
            assert not response.is_stream_consumed
            assert b"".join([piece async for piece in response.aiter_raw()]) == body
    assert (seen, site.replays) == ([None, None], 0)


async def test_a_body_that_was_looked_into_may_be_left_half_read(http: Any) -> None:
    body = EXPIRED + b" " * LIMIT
    rule = ExpiryRule(says_expired)
    site = Site(http, rule, lambda http: http.Response(401, content=piecewise(body, 10)))
    async with (
        site.client,
        site.client.stream("GET", "/") as response,
        aclosing(response.aiter_raw()) as pieces,
    ):
        assert body.startswith(await pieces.__anext__())
    assert site.replays == 0


async def test_a_body_of_exactly_64_kib_is_looked_at(http: Any) -> None:
    body = EXPIRED + b" " * (LIMIT - len(EXPIRED))
    site = Site(http, ExpiryRule(says_expired), lambda http: http.Response(401, content=body))
    async with site.client:
        await site.client.get("/")
    assert site.replays == 1


@pytest.mark.parametrize("length", ["-1", "five", "9" * 5000, "1.5"])
async def test_an_absurd_content_length_is_not_looked_into(http: Any, length: str) -> None:
    seen: list[Any] = []

    def make(http: Any) -> Any:
        return http.Response(401, headers={"content-length": length}, content=piecewise(EXPIRED, 1))

    site = Site(http, ExpiryRule(noting(seen)), make)
    async with site.client:
        await site.client.get("/")
    assert seen == [None]


async def test_a_packed_body_is_unpacked_within_bounds(http: Any) -> None:
    for body, replays in ((EXPIRED, 1), (EXPIRED + b" " * 10_000_000, 0)):

        def make(http: Any, body: bytes = body) -> Any:
            return http.Response(
                401, headers={"content-encoding": "gzip"}, content=piecewise(gzip.compress(body), 2)
            )

        site = Site(http, ExpiryRule(says_expired), make)
        async with site.client:
            assert (await site.client.get("/")).content == body
        assert site.replays == replays


@pytest.mark.parametrize("keep", [True, False])
async def test_a_body_that_a_hook_of_the_client_has_read_is_looked_at_if_it_is_kept(
    http: Any, keep: bool
) -> None:
    async def hook(response: Any) -> None:
        if keep:
            await response.aread()
        else:
            async for _ in response.aiter_raw():
                pass

    seen: list[Any] = []

    def make(http: Any) -> Any:
        return http.Response(401, content=piecewise(EXPIRED, 2))

    site = Site(http, ExpiryRule(noting(seen)), make)
    site.client.event_hooks = {"response": [hook]}
    async with site.client, site.client.stream("GET", "/"):
        pass
    assert seen == [json.loads(EXPIRED) if keep else None]


async def test_what_the_stream_of_a_response_knows_is_still_to_be_had(http: Any) -> None:
    site = Site(
        http,
        ExpiryRule(lambda _: False),
        lambda http: http.Response(401, content=piecewise(EXPIRED, 2)),
    )
    async with site.client, site.client.stream("GET", "/") as response:
        assert response.stream._stream is not None
        assert await response.aread() == EXPIRED
    assert response.elapsed.total_seconds() >= 0


@pytest.mark.parametrize("kind", ["ready", "lazy"])
async def test_a_rule_that_raises_raises_out_of_the_request(http: Any, kind: str) -> None:
    def rule(_: Any) -> bool:
        raise LookupError("what the rule raised")

    rules = {"ready": rule, "lazy": ExpiryRule(rule)}
    site = Site(http, rules[kind], lambda http: http.Response(401))
    async with site.client:
        with pytest.raises(LookupError, match="what the rule raised"):
            await site.client.get("/")
    assert site.replays == 0


@pytest.mark.parametrize("kind", ["ready", "lazy"])
async def test_a_rule_that_returns_an_awaitable_is_an_error_that_says_so(
    http: Any, kind: str
) -> None:
    async def later(_: Any) -> bool:
        return False

    class Awaitable:
        def __await__(self) -> Any:
            raise AssertionError("nobody awaits it")

    rules: list[Any] = [lambda body: later(body), lambda _: Awaitable()]
    for rule in rules:
        made: Any = {"ready": rule, "lazy": ExpiryRule(rule)}[kind]
        site = Site(http, made, lambda http: http.Response(401))
        async with site.client:
            with pytest.raises(TypeError, match="returned an awaitable"):
                await site.client.get("/")
        assert site.replays == 0


class Async:
    async def __call__(self, _: Any) -> bool:
        return True

    async def method(self, _: Any) -> bool:
        return True


async def function(_: Any) -> bool:
    return True


async def generator(_: Any) -> AsyncIterator[bool]:
    yield True


@pytest.mark.parametrize(
    "rule",
    [function, generator, Async(), Async().method, partial(function), partial(partial(Async()))],
    ids=["function", "generator", "callable", "method", "partial", "partial of a callable"],
)
async def test_an_async_rule_is_refused_at_construction(http: Any, rule: Any) -> None:
    endpoint: Any = Endpoint()
    with pytest.raises(TypeError, match="must not be async"):
        RefreshAuth(endpoint, Store(None), is_expired=rule)
    with pytest.raises(TypeError, match="must not be async"):
        ExpiryRule(rule)
    endpoint.is_expired = rule
    with pytest.raises(TypeError, match="must not be async"):
        RefreshAuth(endpoint, Store(None))


async def test_a_class_and_a_partial_may_be_rules(http: Any) -> None:
    class Rule:
        def __call__(self, response: Any) -> bool:
            return bool(response.status_code == 400)

    for rule in (Rule(), partial(lambda status, response: response.status_code == status, 400)):
        site = Site(http, rule, lambda http: http.Response(400))
        async with site.client:
            assert (await site.client.get("/")).status_code == 400
        assert site.replays == 1
