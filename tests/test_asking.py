"""The client of a token request: of the library whose client needs the token, or from a factory."""

from __future__ import annotations

from typing import Any

import httpx
import httpx2
import pytest

from httpx_refresh import MemoryStore, RefreshAuth, RefreshUnavailable, TokenEndpoint
from httpx_refresh._http.libraries import asking, library_asking
from tests.fakes import both_libraries

TOKEN = '{"access_token": "old", "refresh_token": "r", "expires_at": 1}'


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What each library's own transports carry, as its mocks see it: they are put in their place."""
    seen: list[tuple[str, str]] = []

    def mock(library: Any) -> None:
        def answer(request: Any) -> Any:
            seen.append((library.__name__, request.url.host))
            if request.url.host == "as.test":
                return library.Response(200, json={"access_token": "new", "refresh_token": "s"})
            return library.Response(200)

        async def answer_async(_: Any, request: Any) -> Any:
            return answer(request)

        monkeypatch.setattr(
            library.HTTPTransport, "handle_request", lambda _, request: answer(request)
        )
        monkeypatch.setattr(library.AsyncHTTPTransport, "handle_async_request", answer_async)

    mock(httpx)
    mock(httpx2)
    return seen


def auth_with(client: Any = None) -> RefreshAuth:
    endpoint = TokenEndpoint("https://as.test/token", "id", client=client, origins="any")
    return RefreshAuth(endpoint, MemoryStore(TOKEN))


@pytest.mark.anyio
@both_libraries
async def test_the_token_request_goes_out_by_the_library_whose_client_asks(
    http: Any, sent: list[tuple[str, str]]
) -> None:
    async with http.AsyncClient(auth=auth_with()) as client:
        await client.get("https://api.test/")
    assert sent == [(http.__name__, "as.test"), (http.__name__, "api.test")]


@both_libraries
def test_so_it_does_for_a_sync_client(http: Any, sent: list[tuple[str, str]]) -> None:
    with http.Client(auth=auth_with()) as client:
        client.get("https://api.test/")
    assert sent == [(http.__name__, "as.test"), (http.__name__, "api.test")]


@pytest.mark.anyio
async def test_where_no_client_asks_it_is_httpx(sent: list[tuple[str, str]]) -> None:
    asking.set(None)
    await auth_with().token()
    assert sent == [("httpx", "as.test")]


def test_a_request_of_neither_library_counts_as_none() -> None:
    before = asking.get()
    asking.set(int)
    try:
        assert library_asking() is httpx
    finally:
        asking.set(before)


def closed(http: Any) -> Any:
    client = http.AsyncClient(transport=http.MockTransport(lambda _: http.Response(500)))
    client._state = type(client._state).CLOSED
    return client


@pytest.mark.anyio
@both_libraries
@pytest.mark.parametrize("kind", ["closed", "sync", "nothing", "raises"])
async def test_a_factory_that_makes_no_usable_client_sends_nothing(
    kind: str, http: Any, sent: list[tuple[str, str]]
) -> None:
    def make() -> Any:
        if kind == "raises":
            raise OSError("no certificate")
        return {"closed": lambda: closed(http), "sync": http.Client, "nothing": lambda: None}[
            kind
        ]()

    with pytest.raises(RefreshUnavailable) as raised:
        await auth_with(make).token()
    assert raised.value.outcome == "not_sent"
    assert not raised.value.transient
    assert sent == []
