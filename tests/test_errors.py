"""The error tree, and rule 13: no token, secret or code in a repr, a log record or an exception's text."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

import httpx_refresh
from httpx_refresh import (
    BodyNotReplayable,
    OriginNotAllowed,
    ReauthorizationRequired,
    RefreshAuth,
    RefreshAuthError,
    RefreshUnavailable,
    StoreError,
    Token,
)
from httpx_refresh._errors import Outcome, cause_of, fresh, without_frames
from httpx_refresh.testing import Answer, AuthorizationServer, LostAnswer, LostRequest, Outage
from tests.fakes import (
    Endpoint,
    Store,
    any_write,
    both_libraries,
    claims,
    client_of,
    endpoint_of,
    loop_wall,
    no_write,
    results,
    use_loop_time,
)
from tests.virtual_time import virtual_time


@pytest.mark.parametrize(
    "error",
    [BodyNotReplayable, OriginNotAllowed, ReauthorizationRequired, RefreshUnavailable, StoreError],
)
def test_every_error_is_a_refresh_auth_error_and_public(error: type[Exception]) -> None:
    assert issubclass(error, RefreshAuthError)
    assert getattr(httpx_refresh, error.__name__) is error


@pytest.mark.parametrize(
    "error",
    [
        ReauthorizationRequired("m", error="e", error_description="d", since=1.0),
        RefreshUnavailable("m", outcome="busy", retry_after=2.0),
        BodyNotReplayable("m", response="r"),
        KeyError("k", 1),
    ],
)
def test_a_fresh_exception_is_equal_to_the_first_and_shares_no_frame_with_it(
    error: Exception,
) -> None:
    with pytest.raises(type(error)) as caught:
        raise error from ValueError("a cause")
    other = fresh(caught.value)
    assert other is not error
    assert (type(other), str(other), other.args) == (type(error), str(error), error.args)
    assert vars(other) == vars(error)
    assert (other.__traceback__, other.__cause__, other.__context__) == (None, None, None)


@pytest.mark.parametrize(
    "outcome, transient",
    [("not_sent", True), ("busy", True), ("refused", False), ("unknown", False)],
)
def test_what_was_put_off_or_never_sent_may_be_asked_again_soon(
    outcome: Outcome, transient: bool
) -> None:
    assert RefreshUnavailable("m", outcome=outcome).transient is transient
    assert RefreshUnavailable("m", outcome=outcome, transient=not transient).transient != transient


def test_a_cause_is_told_by_its_type_and_by_where_it_was_raised() -> None:
    def innermost() -> None:
        raise json.JSONDecodeError(WORD, WORD, 0)

    with pytest.raises(ValueError, match=WORD) as caught:
        innermost()
    told = cause_of(caught.value)
    line = innermost.__code__.co_firstlineno + 1
    assert told == f"json.decoder.JSONDecodeError ({__file__}, line {line})"
    assert cause_of(OSError(WORD)) == "OSError"
    assert RefreshUnavailable("m", caused_by=told).caused_by == told
    assert StoreError("m").caused_by is None


# -- rule 13 ---------------------------------------------------------------------------------------

WORD = "SECRET"


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Return the traceback of `error`."""
    waiting, seen = [error], set()
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]


def shown(value: BaseException) -> str:
    """Return everything of an exception that a log or an error tracker shows, including its attributes."""
    return f"{value} {value!r} {value.args!r} {vars(value)!r}"


def logged(caplog: pytest.LogCaptureFixture) -> str:
    formatter = logging.Formatter()
    return "".join(f"{formatter.format(one)} {one.args!r}" for one in caplog.records)


def test_the_walk_finds_what_is_hidden_in_a_chain() -> None:
    def fail() -> None:
        try:
            raise KeyError(WORD)
        except KeyError:
            raise ValueError("harmless")  # noqa: B904 - the context is the point

    with pytest.raises(ValueError, match="harmless") as caught:
        fail()
    assert WORD in "".join(map(shown, chain(caught.value)))


_NUMBERS = iter(range(1_000_000))


def _server(**settings: Any) -> AuthorizationServer:
    return AuthorizationServer(
        clients={"client": f"{WORD}-client"},
        new_token=lambda: f"{WORD}-{next(_NUMBERS)}",
        **settings,
    )


ANSWERS = {
    "a rotation": Answer(),
    "an answer that is lost": LostAnswer(),
    "half an answer": LostAnswer(half=True),
    "a request that is lost": LostRequest(),
    "a server that is not there": LostRequest(connected=False),
    "an outage": Outage(503, retry_after=3600),
    "a page": Outage(200, body="<html>"),
    "nothing": Outage(200, body=""),
    "an answer with a token and an error": Answer(fields={"error": "invalid_grant"}),
    "a refusal that repeats it all": Outage(
        400, body=json.dumps({"error": "invalid_grant", "error_description": f"{WORD}-0"})
    ),
    "an access token that fits no header": Answer(fields={"access_token": f"{WORD}\r\nX: {WORD}"}),
    "an access token of another type": Answer(fields={"access_token": [WORD]}),
    "a refused client": Outage(401, body='{"error": "invalid_client"}'),
    "a redirect": Outage(302, headers={"location": f"https://evil.test/?{WORD}"}),
}


@both_libraries
@pytest.mark.anyio
@virtual_time
@pytest.mark.parametrize("what", ANSWERS)
async def test_whatever_a_token_endpoint_answers_no_secret_is_shown(
    http: Any, what: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_loop_time(monkeypatch)
    caplog.set_level(logging.DEBUG)
    server = _server()
    store = Store(json.dumps(server.login()))
    if what == "a refusal that repeats it all":
        token = store.record.token
        assert token is not None
        said = {"error": "invalid_grant", "error_description": f"no {token.refresh_token}"}
        server.script(Outage(400, body=json.dumps(said)))
    server.expire_access_tokens()
    server.token_behaviour = ANSWERS[what]
    auth = RefreshAuth(endpoint_of(server), store)
    raised: list[BaseException] = []
    async with client_of(server, http, auth=auth) as client:
        for call in (lambda: client.get("/ping"), auth.refresh, auth.token):
            try:
                await call()
            except RefreshAuthError as why:
                raised.append(why)
            await anyio.sleep(2)
    text = logged(caplog) + repr(auth) + repr(auth._session.source)
    for error in raised:
        text += "".join(map(shown, chain(error)))
    assert WORD not in text
    assert bool(raised) is (what not in ("a rotation", "an answer with a token and an error"))


@pytest.mark.anyio
@virtual_time
@pytest.mark.parametrize("writes", [any_write, claims, results, lambda record: not claims(record)])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        None,
        RefreshUnavailable("no", outcome="unknown"),
        ReauthorizationRequired("no"),
        ValueError("in the endpoint"),
    ],
)
async def test_however_a_store_fails_no_secret_is_shown(
    writes: Any,
    late: bool,
    error: Exception | None,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_loop_time(monkeypatch)
    caplog.set_level(logging.DEBUG)
    endpoint = Endpoint(clock=loop_wall)
    endpoint.always = error
    store = Store(endpoint.text(expires_in=-1))
    store.fails, store.loses = (no_write, writes) if late else (writes, no_write)
    auth = RefreshAuth(endpoint, store, refresh_timeout=1.0, on_unsaved=_fail)
    text = repr(auth)
    for _ in range(3):
        try:
            text += repr(await auth.token())
        except RefreshAuthError as raised:
            text += "".join(map(shown, chain(raised)))
        await anyio.sleep(2)
    await auth.aclose()
    assert WORD not in text + logged(caplog)


def _fail(token: Token) -> None:
    raise ValueError("the callback failed, too")


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [BodyNotReplayable, OriginNotAllowed])
async def test_no_secret_in_what_a_request_raises(kind: type[Exception]) -> None:
    server = _server()
    auth = RefreshAuth(
        endpoint_of(server),
        Store(json.dumps(server.login())),
        origins=server.issuer,
        replay_limit=0,
    )
    server.expire_access_tokens()
    url = "/echo" if kind is BodyNotReplayable else "https://other.test/"

    async def body() -> Any:
        yield b"body"

    async with client_of(server, auth=auth) as client:
        with pytest.raises(kind) as caught:
            await client.post(url, content=body())
    assert WORD not in "".join(map(shown, chain(caught.value)))


def test_an_error_whose_exceptions_are_no_exceptions_loses_its_frames_too() -> None:
    """An application's errors may have such an attribute, and it is not that of a group."""

    class Odd(Exception):
        exceptions = ("text", None)

    def fail() -> None:
        raise Odd("odd")

    with pytest.raises(Odd) as caught:
        fail()
    assert without_frames(caught.value).__traceback__ is None
