"""Rule 13 for token requests: an error tracker's report of a failure holds no secret, also not in a local variable."""

from __future__ import annotations

import dataclasses
import inspect
import io
import json
import socket
import traceback
from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import anyio
import httpx
import pytest
import rich.console
import rich.traceback
import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from httpx_refresh import (
    AuthorizationRequest,
    DeviceAuthorization,
    Token,
    TokenEndpoint,
    discover,
    providers,
)
from httpx_refresh._errors import frameless
from tests.providers.needed import needed

pytestmark = pytest.mark.anyio

# Each holds this word, as it does in JSON, in a form and in a header.
MARK = "s3cr3t"
REQUEST = AuthorizationRequest(
    f"https://as.test/?state={MARK}-state", "http://127.0.0.1/", f"{MARK}-state", f"{MARK}-verifier"
)
REDIRECT = {"state": f"{MARK}-state", "code": f"{MARK}-code"}
GOOD = {
    "access_token": f"{MARK}-new",
    "refresh_token": f"{MARK}-next",
    "device_code": f"{MARK}-device",
}


def held() -> Token:
    return Token(
        f"{MARK}-access", f"{MARK}-refresh", extra={"instance_url": f"https://{MARK}.test"}
    )


def device() -> DeviceAuthorization:
    return DeviceAuthorization(f"{MARK}-device", "USER", "https://as.test", None, 4e9, 1.0)


def chain(error: BaseException) -> Iterator[BaseException]:
    """Return an exception and all exceptions of its chain."""
    waiting, seen = [error], set()
    while waiting:
        one = waiting.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [each for each in (one.__cause__, one.__context__) if each is not None]


def frames(traced: TracebackType | None) -> Iterator[Any]:
    while traced is not None:
        yield traced.tb_frame
        traced = traced.tb_next


def expanded(value: Any, depth: int = 0) -> str:
    """Return a value as a tracker sends it: it looks into containers, and uses the repr of other objects."""
    if depth < 4 and isinstance(value, dict):
        return " ".join(expanded(one, depth + 1) for pair in value.items() for one in pair)
    if depth < 4 and isinstance(value, (list, tuple, set)):
        return " ".join(expanded(one, depth + 1) for one in value)
    return repr(value)


def check_frames(error: BaseException, *secrets: str) -> None:
    """Check that an exception, its causes, and the local variables of frames outside the tests hold no secret."""
    for one in chain(error):
        shown = f"{one!r} {vars(one)} {getattr(one, '__notes__', '')}"
        told = traceback.TracebackException.from_exception(one, capture_locals=True)
        shown += "".join(
            f"{frame.locals}" for frame in told.stack if "/tests/" not in frame.filename
        )
        for frame in frames(one.__traceback__):
            if "/tests/" not in frame.f_code.co_filename:
                shown += expanded(dict(frame.f_locals))
        for secret in (MARK, *secrets):
            assert secret not in shown, shown
        assert len(list(frames(one.__traceback__))) < 10


# -- every way to ask, and every way to fail ---------------------------------------------------------------


def echo(request: httpx.Request) -> str:
    """Return all contents of a request, as a server may repeat them."""
    return " ".join(value for _, value in parse_qsl(request.content.decode())) or "nothing"


def answering(status: int, body: object) -> Callable[[httpx.Request], httpx.Response]:
    """Answer with this text, in which ECHO is replaced by the request's contents."""
    text = body if isinstance(body, str) else json.dumps(body)
    return lambda request: httpx.Response(status, text=text.replace("ECHO", echo(request)))


def raising(kind: Callable[[str], Exception]) -> Callable[[httpx.Request], httpx.Response]:
    def handle(request: httpx.Request) -> httpx.Response:
        raise kind(echo(request))

    return handle


FAILURES: dict[str, Callable[[httpx.Request], httpx.Response]] = {
    "invalid_grant": answering(400, {"error": "invalid_grant", "error_description": "ECHO"}),
    "invalid_client": answering(401, {"error": "invalid_client", "error_description": "ECHO"}),
    "an error that repeats": answering(400, {"error": "ECHO"}),
    "a login denied": answering(400, {"error": "access_denied"}),
    "500": answering(500, "<html>ECHO"),
    "503": answering(503, ""),
    "429": answering(429, {"error": "slow", "error_description": "ECHO"}),
    "a redirect": answering(302, ""),
    "garbage": answering(200, "\xff\x00ECHO"),
    "HTML": answering(200, "<html>ECHO</html>"),
    "a token that cannot be sent": answering(200, {**GOOD, "access_token": f"{MARK}\n"}),
    "tokens of wrong types": answering(200, {**GOOD, "access_token": [f"{MARK}"]}),
    "deep JSON": answering(200, f'{{"access_token": "{MARK}", "x": ' + "[" * 99_999),
    "connection refused": raising(lambda _: httpx.ConnectError("refused")),
    "a timeout": raising(httpx.ReadTimeout),
    "a server that speaks no HTTP": raising(httpx.RemoteProtocolError),
    "a failure of httpx itself": raising(RuntimeError),
}


def endpoint_of(client: Any, **options: Any) -> TokenEndpoint:
    facts: dict[str, Any] = {
        "authorization_endpoint": "https://as.test/authorize",
        "device_authorization_endpoint": "https://as.test/device",
        "revocation_endpoint": "https://as.test/revoke",
        "client": client,
        "client_auth": "client_secret_post",
    }
    return TokenEndpoint("https://as.test/token", "id", f"{MARK}-secret", **{**facts, **options})


ASKED: dict[str, Callable[[TokenEndpoint], Awaitable[object]]] = {
    "refresh": lambda endpoint: endpoint.refresh(held()),
    "exchange_code": lambda endpoint: endpoint.exchange_code(dict(REDIRECT), REQUEST),
    "device_authorization": lambda endpoint: endpoint.device_authorization(),
    "device_token": lambda endpoint: endpoint.device_token(device()),
    "revoke": lambda endpoint: endpoint.revoke(held()),
    "discover": lambda endpoint: discover(
        "https://as.test", "id", f"{MARK}-secret", client=endpoint._client._source
    ),
}


async def failure_of(asking: Awaitable[object]) -> BaseException | None:
    try:
        await asking
    except Exception as error:
        return error
    return None


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    async def checkpoint(_: float) -> None:
        await anyio.lowlevel.checkpoint()

    monkeypatch.setattr("httpx_refresh._oauth.device.anyio.sleep", checkpoint)
    monkeypatch.setattr("httpx_refresh._oauth.device._MOST_LIFETIME", 3.0)


# An exception's frames are those of the library that runs the tasks, however a loop runs their steps.
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"], indirect=True)
@pytest.mark.usefixtures("no_pause")
@pytest.mark.parametrize("failing", FAILURES)
@pytest.mark.parametrize("asked", ASKED)
async def test_no_failure_keeps_a_secret_in_a_frame(asked: str, failing: str) -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(FAILURES[failing])) as client:
        error = await failure_of(ASKED[asked](endpoint_of(client)))
    if error is None:
        # RFC 7009 §2.2: with status 200 a token is revoked; the body does not matter.
        assert asked == "revoke"
        assert FAILURES[failing](httpx.Request("POST", "/")).status_code == 200
    else:
        check_frames(error)


@pytest.mark.usefixtures("no_pause")
@pytest.mark.parametrize("asked", ASKED)
async def test_a_client_that_cannot_be_used_keeps_no_secret_in_a_frame(asked: str) -> None:
    closed = httpx.AsyncClient()
    await closed.aclose()
    for source in (closed, lambda: None, lambda: 1 / 0):
        error = await failure_of(ASKED[asked](endpoint_of(source)))
        assert error is not None
        check_frames(error)


async def test_a_socket_that_refuses_keeps_no_secret_in_a_frame() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    endpoint = TokenEndpoint(f"http://127.0.0.1:{port}/token", "id", f"{MARK}-secret")
    error = await failure_of(endpoint.refresh(held()))
    assert error is not None
    check_frames(error)


class Call(NamedTuple):
    call: Callable[[], Any]


WRONG: dict[str, Call] = {
    "a secret that is empty text": Call(lambda: TokenEndpoint("https://as.test", "id", "")),
    "a secret of bytes": Call(lambda: TokenEndpoint("https://as.test", "id", f"{MARK}".encode())),
    "half a surrogate pair": Call(lambda: TokenEndpoint("https://as.test", "id", f"{MARK}\ud800")),
    "no key": Call(
        lambda: TokenEndpoint("https://as.test", "id", f"{MARK}", client_auth="private_key_jwt")
    ),
    "a key that is cut off": Call(
        lambda: TokenEndpoint(
            "https://as.test",
            "id",
            f"-----BEGIN PRIVATE KEY-----\n{MARK}",
            client_auth="private_key_jwt",
        )
    ),
    "no such method": Call(
        lambda: TokenEndpoint(
            "https://as.test",
            "id",
            f"{MARK}",
            client_auth="other",  # type: ignore[arg-type]  # on purpose
        )
    ),
    "no such address": Call(lambda: TokenEndpoint("http://as.test", "id", f"{MARK}")),
    "discovery without TLS": Call(lambda: discover("http://as.test", "id", f"{MARK}")),
    "a token with a line end": Call(lambda: Token(f"{MARK}\n", f"{MARK}")),
    "a token of bytes": Call(lambda: Token(f"{MARK}".encode())),  # type: ignore[arg-type]  # on purpose
    "a response without a token": Call(lambda: Token.from_response({"refresh_token": f"{MARK}"})),
    "a response that is a list": Call(lambda: Token.from_response([f"{MARK}"])),  # type: ignore[arg-type]  # on purpose
    "a token that is no token": Call(lambda: endpoint_of(None).refresh({"refresh_token": MARK})),  # type: ignore[arg-type]  # on purpose
    "a redirect of another login": Call(
        lambda: endpoint_of(None).exchange_code({"state": f"{MARK}-x", "code": MARK}, REQUEST)
    ),
    "a redirect twice": Call(
        lambda: endpoint_of(None).exchange_code(f"?code={MARK}&code={MARK}", REQUEST)
    ),
    "a redirect that is none": Call(
        lambda: endpoint_of(None).exchange_code([f"{MARK}"], REQUEST)  # type: ignore[arg-type]  # on purpose
    ),
    "a login that the server denied": Call(
        lambda: endpoint_of(None).exchange_code(
            {
                **REDIRECT,
                "error": "access_denied",
                "error_description": f"{MARK}-code, {MARK}-state",
            },
            REQUEST,
        )
    ),
    "a home that is no origin": Call(
        lambda: endpoint_of(
            None, revocation_endpoint="{instance_url}/revoke", origins="https://*.as.test"
        ).revoke(dataclasses.replace(held(), extra={"instance_url": "https://a.as.test/x"}))
    ),
}


@pytest.mark.parametrize("name", providers.PRESETS)
async def test_no_preset_keeps_a_secret_in_a_frame(name: str) -> None:
    with pytest.raises(ValueError, match="UTF-8") as caught:
        getattr(providers, name)("id", f"{MARK}\ud800", **needed(name))
    check_frames(caught.value)


@pytest.mark.parametrize("what", WRONG)
async def test_what_cannot_be_meant_is_refused_without_a_secret_in_a_frame(what: str) -> None:
    async def call() -> None:
        made = WRONG[what].call()
        if inspect.isawaitable(made):
            await made

    error = await failure_of(call())
    assert error is not None
    check_frames(error)


# -- the wrapper that ensures it -----------------------------------------------------------------------------


async def test_an_exception_tells_where_it_was_raised_although_its_frames_are_gone() -> None:
    @frameless
    def fails(secret: str) -> None:
        try:
            raise KeyError(secret)
        except KeyError as error:
            raise LookupError("no such thing") from error

    with pytest.raises(LookupError) as caught:
        fails(MARK)
    check_frames(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert caught.value.__notes__ == [f"raised by LookupError ({__file__}, line {_line(fails, 5)})"]  # type: ignore[attr-defined]  # from 3.11 on


async def test_a_group_of_exceptions_goes_on_without_the_frames_of_any_of_them() -> None:
    async def raises(secret: str) -> None:
        raise KeyError(len(secret))

    async def waits(secret: str) -> None:
        await anyio.sleep_forever()

    @frameless
    async def fails(secret: str) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(raises, secret)
            tasks.start_soon(waits, secret)

    with pytest.raises(BaseException) as caught:  # noqa: PT011 - a group, which Python 3.10 has no name for
        await fails(MARK)
    (inner,) = caught.value.exceptions  # type: ignore[attr-defined]  # as above
    for one in (caught.value, inner):
        check_frames(one)
        # `check_frames` ignores frames of this file, so they are checked here: only the caller's may be there.
        kept = [frame.f_code.co_name for frame in frames(one.__traceback__)]
        assert not {"raises", "waits", "fails"} & set(kept)
    assert isinstance(inner, KeyError)


def _line(function: Any, more: int) -> int:
    return int(function.__wrapped__.__code__.co_firstlineno) + more


async def test_a_cancellation_goes_on_without_frames_and_keeps_its_chain() -> None:
    @frameless
    async def waits(secret: str) -> None:
        try:
            raise KeyError(len(secret))
        except KeyError:
            await anyio.sleep_forever()

    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await waits(MARK)
        except anyio.get_cancelled_exc_class() as error:
            check_frames(error)
            raise
    assert scope.cancelled_caught


# -- a real error tracker --------------------------------------------------------------------------------------


class Kept(Transport):
    """Keeps the events that would be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.envelopes: list[bytes] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.envelopes.append(envelope.serialize())


@pytest.mark.parametrize("anyio_backend", ["asyncio"], ids=["asyncio"])  # the tracker's own
@pytest.mark.parametrize("failing", ["503", "invalid_grant", "a failure of httpx itself"])
async def test_sentry_is_sent_no_secret(failing: str) -> None:
    kept = Kept()
    async with httpx.AsyncClient(transport=httpx.MockTransport(FAILURES[failing])) as client:
        endpoint, token = endpoint_of(client), held()
        with sentry_sdk.isolation_scope() as scope:
            scope.set_client(
                sentry_sdk.Client(
                    dsn="https://key@sentry.test/1", transport=kept, default_integrations=False
                )
            )
            try:
                await endpoint.refresh(token)
            except Exception as error:
                sentry_sdk.capture_exception(error)
    (sent,) = kept.envelopes
    assert b'"vars"' in sent
    assert b"TokenEndpoint" in sent
    assert MARK.encode() not in sent


@pytest.mark.parametrize("failing", ["503", "invalid_grant", "a failure of httpx itself"])
async def test_a_traceback_of_rich_with_locals_shows_no_secret(failing: str) -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(FAILURES[failing])) as client:
        endpoint, token = endpoint_of(client), held()
        error = await failure_of(endpoint.refresh(token))
    assert error is not None
    assert error.__traceback__ is not None
    drawn = io.StringIO()
    rich.console.Console(file=drawn, width=200).print(
        rich.traceback.Traceback.from_exception(
            type(error), error, error.__traceback__, show_locals=True, locals_max_string=10_000
        )
    )
    shown = drawn.getvalue()
    # The frames of this test and of the wrapper are there with their locals, but without a secret.
    assert "locals" in shown
    assert "failure" in shown
    assert MARK not in shown
