"""A response hook that raises at a refusal hides it from the auth object: no refresh follows, which is logged once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from httpx_refresh import RefreshAuth, _auth
from tests.fakes import Endpoint, Store, both_libraries

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(autouse=True)
def _nothing_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reset the log message that is logged once for each process."""
    monkeypatch.setattr(_auth, "_hook_told", False)


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


@pytest.fixture
def auth(endpoint: Endpoint) -> RefreshAuth:
    """An auth object whose store holds a token that the endpoint issued."""
    return RefreshAuth(endpoint, Store(endpoint.text(expires_in=3600)))


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


def answering(http: Any, status: int) -> Callable[[Any], Any]:
    return lambda request: http.Response(status)


def options_of(http: Any, auth: RefreshAuth, answer: Callable[[Any], Any], hook: Any) -> Any:
    """The arguments of a client, sync or async, whose responses come from `answer` and go through `hook`."""
    return {
        "auth": auth,
        "transport": http.MockTransport(answer),
        "base_url": "https://api.test",
        "event_hooks": {"response": [hook]},
    }


def raising_where(picks: Callable[[int], bool]) -> Any:
    """A hook of an async client that raises at the responses whose status is picked."""

    async def hook(response: Any) -> None:
        if picks(response.status_code):
            response.raise_for_status()

    return hook


raises = raising_where(lambda _: True)


def raises_sync(response: Any) -> None:
    response.raise_for_status()


async def get(http: Any, options: Any, times: int = 1) -> None:
    """Make requests of an async client; each ends with the error that its hook raises."""
    async with http.AsyncClient(**options, follow_redirects=True) as client:
        for _ in range(times):
            with pytest.raises(http.HTTPStatusError):
                await client.get("/orders")


@both_libraries
@pytest.mark.anyio
async def test_the_first_refusal_that_a_hook_hides_is_logged(
    http: Any, endpoint: Endpoint, auth: RefreshAuth, caplog: pytest.LogCaptureFixture
) -> None:
    await get(http, options_of(http, auth, answering(http, 401), raises), times=2)
    assert endpoint.asked == []
    (said,) = warnings_of(caplog)
    assert said.startswith(
        "Fake: a response hook of the client raised HTTPStatusError at a refusal"
    )
    assert "SECRET" not in said


@both_libraries
def test_it_is_logged_for_sync_clients_too(
    http: Any, auth: RefreshAuth, caplog: pytest.LogCaptureFixture
) -> None:
    # The first request takes the whole send loop. Once a token is in use, later requests take the short way.
    with http.Client(**options_of(http, auth, answering(http, 200), raises_sync)) as client:
        client.get("/orders")
    assert warnings_of(caplog) == []
    with (
        http.Client(**options_of(http, auth, answering(http, 401), raises_sync)) as client,
        pytest.raises(http.HTTPStatusError),
    ):
        client.get("/orders")
    assert len(warnings_of(caplog)) == 1


@both_libraries
def test_it_is_logged_for_the_very_first_request_of_a_sync_client(
    http: Any, auth: RefreshAuth, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        http.Client(**options_of(http, auth, answering(http, 401), raises_sync)) as client,
        pytest.raises(http.HTTPStatusError),
    ):
        client.get("/orders")
    assert len(warnings_of(caplog)) == 1


@both_libraries
@pytest.mark.anyio
@pytest.mark.parametrize("status", [403, 500])
async def test_a_hook_that_raises_at_another_answer_hides_no_refusal(
    http: Any, status: int, auth: RefreshAuth, caplog: pytest.LogCaptureFixture
) -> None:
    await get(http, options_of(http, auth, answering(http, status), raises))
    assert warnings_of(caplog) == []


@both_libraries
@pytest.mark.anyio
async def test_an_origin_that_never_saw_the_token_refuses_none(
    http: Any, auth: RefreshAuth, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(request: Any) -> Any:
        if request.url.host == "api.test":
            return http.Response(302, headers={"location": "https://elsewhere.test/"})
        assert "authorization" not in request.headers
        return http.Response(401)

    await get(http, options_of(http, auth, answer, raising_where(lambda status: status == 401)))
    assert warnings_of(caplog) == []


@both_libraries
@pytest.mark.anyio
async def test_a_caller_that_is_cancelled_in_its_hook_hides_no_refusal(
    http: Any, auth: RefreshAuth, caplog: pytest.LogCaptureFixture
) -> None:
    in_hook = anyio.Event()

    async def hook(_: Any) -> None:
        in_hook.set()
        await anyio.sleep_forever()

    async with (
        http.AsyncClient(**options_of(http, auth, answering(http, 401), hook)) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(client.get, "/orders")
        await in_hook.wait()
        tasks.cancel_scope.cancel()
    assert warnings_of(caplog) == []


@both_libraries
@pytest.mark.anyio
async def test_what_a_hook_raises_at_the_replay_is_no_hidden_refusal_if_it_is_accepted(
    http: Any, endpoint: Endpoint, auth: RefreshAuth, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(request: Any) -> Any:
        return http.Response(401 if "SECRET-a0" in request.headers["authorization"] else 404)

    await get(http, options_of(http, auth, answer, raising_where(lambda status: status != 401)))
    assert endpoint.issued == 1
    assert warnings_of(caplog) == []
