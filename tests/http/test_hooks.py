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
    """What is said once a process is said once a test."""
    monkeypatch.setattr(_auth, "_hook_told", False)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


def answering(
    http: Any, status: int, headers: dict[str, str] | None = None
) -> Callable[[Any], Any]:
    return lambda request: http.Response(status, headers=headers)


def async_client(auth: RefreshAuth, http: Any, answer: Callable[[Any], Any], hook: Any) -> Any:
    transport = http.MockTransport(answer)
    return http.AsyncClient(
        auth=auth,
        transport=transport,
        base_url="https://api.test",
        event_hooks={"response": [hook]},
    )


def sync_client(auth: RefreshAuth, http: Any, answer: Callable[[Any], Any], hook: Any) -> Any:
    transport = http.MockTransport(answer)
    return http.Client(
        auth=auth,
        transport=transport,
        base_url="https://api.test",
        event_hooks={"response": [hook]},
    )


async def raises(response: Any) -> None:
    response.raise_for_status()


@both_libraries
@pytest.mark.anyio
async def test_the_first_refusal_that_a_hook_hides_is_logged(
    http: Any, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = Endpoint()
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=3600)))
    async with async_client(auth, http, answering(http, 401), raises) as client:
        for _ in range(2):
            with pytest.raises(http.HTTPStatusError):
                await client.get("/orders")
    assert endpoint.asked == []
    (said,) = warnings_of(caplog)
    assert said.startswith(
        "Fake: a response hook of the client raised HTTPStatusError at a refusal"
    )
    assert "SECRET" not in said


@both_libraries
def test_it_is_logged_for_sync_clients_too(http: Any, caplog: pytest.LogCaptureFixture) -> None:
    endpoint = Endpoint()
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=3600)))

    def hook(response: Any) -> None:
        response.raise_for_status()

    # The first request takes the whole send loop; once a token is in use, the next take its short way.
    for answer in (answering(http, 200), answering(http, 401)):
        with sync_client(auth, http, answer, hook) as client:
            try:
                client.get("/orders")
            except http.HTTPStatusError:
                assert len(warnings_of(caplog)) == 1
    assert len(warnings_of(caplog)) == 1


@both_libraries
def test_it_is_logged_for_the_very_first_request_of_a_sync_client(
    http: Any, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = Endpoint()
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=3600)))

    def hook(response: Any) -> None:
        response.raise_for_status()

    with (
        sync_client(auth, http, answering(http, 401), hook) as client,
        pytest.raises(http.HTTPStatusError),
    ):
        client.get("/orders")
    assert len(warnings_of(caplog)) == 1


@both_libraries
@pytest.mark.anyio
@pytest.mark.parametrize("status", [403, 500])
async def test_a_hook_that_raises_at_another_answer_hides_no_refusal(
    http: Any, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = Endpoint()
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=3600)))
    async with async_client(auth, http, answering(http, status), raises) as client:
        with pytest.raises(http.HTTPStatusError):
            await client.get("/orders")
    assert warnings_of(caplog) == []


@both_libraries
@pytest.mark.anyio
async def test_an_origin_that_never_saw_the_token_refuses_none(
    http: Any, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = Endpoint()
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=3600)))

    def answer(request: Any) -> Any:
        if request.url.host == "api.test":
            return http.Response(302, headers={"location": "https://elsewhere.test/"})
        assert "authorization" not in request.headers
        return http.Response(401)

    async def hook(response: Any) -> None:
        if response.status_code == 401:
            response.raise_for_status()

    async with async_client(auth, http, answer, hook) as client:
        with pytest.raises(http.HTTPStatusError):
            await client.get("/orders", follow_redirects=True)
    assert warnings_of(caplog) == []


@both_libraries
@pytest.mark.anyio
async def test_a_caller_that_is_cancelled_in_its_hook_hides_no_refusal(
    http: Any, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = Endpoint()
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=3600)))
    in_hook = anyio.Event()

    async def hook(_: Any) -> None:
        in_hook.set()
        await anyio.sleep_forever()

    async with (
        async_client(auth, http, answering(http, 401), hook) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(client.get, "/orders")
        await in_hook.wait()
        tasks.cancel_scope.cancel()
    assert warnings_of(caplog) == []


@both_libraries
@pytest.mark.anyio
async def test_what_a_hook_raises_at_the_replay_is_no_hidden_refusal_if_it_is_accepted(
    http: Any, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = Endpoint()
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=3600)))

    def answer(request: Any) -> Any:
        return http.Response(401 if "SECRET-a0" in request.headers["authorization"] else 404)

    async def leaves_refusals_alone(response: Any) -> None:
        if response.status_code != 401:
            response.raise_for_status()

    async with async_client(auth, http, answer, leaves_refusals_alone) as client:
        with pytest.raises(http.HTTPStatusError):
            await client.get("/orders")
    assert endpoint.issued == 1
    assert warnings_of(caplog) == []
