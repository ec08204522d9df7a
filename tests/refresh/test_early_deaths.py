"""A token that is refused long before its expiry counts once, however many callers get the refusal."""

from __future__ import annotations

import json
import logging
import time

import httpx
import pytest
from anyio import create_task_group
from anyio.lowlevel import checkpoint

from httpx_refresh import MemoryStore, RefreshAuth, Token


class _Api(httpx.AsyncBaseTransport):
    """Accepts one access token; it answers the first caller after all have asked."""

    def __init__(self) -> None:
        self.good = "access-0"

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        good = request.headers["authorization"] == f"Bearer {self.good}"
        await checkpoint()
        return httpx.Response(200 if good else 401)


class _Endpoint:
    def __init__(self, api: _Api) -> None:
        self._api = api
        self.refreshes = 0

    async def refresh(self, token: Token, /) -> Token:
        self.refreshes += 1
        self._api.good = f"access-{self.refreshes}"
        fields = {"access_token": self._api.good, "refresh_token": "r", "expires_in": 3600}
        return Token.from_response(fields)


@pytest.mark.anyio
async def test_one_early_refusal_met_by_many_callers_is_no_row_of_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Three early ends in a row cause a warning; one end causes none, however many callers it affects."""
    api = _Api()
    endpoint = _Endpoint(api)
    fields = {"access_token": api.good, "refresh_token": "r", "expires_in": 3600}
    text = json.dumps({**fields, "expires_at": time.time() + 3600})
    auth = RefreshAuth(endpoint, MemoryStore(text), origins="https://api.test")
    answers: list[int] = []

    async def call() -> None:
        answers.append((await client.get("https://api.test/")).status_code)

    async with httpx.AsyncClient(transport=api, auth=auth) as client:
        for round_ in range(3):
            await call()
            warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
            assert warned == [], f"after {round_} refusals"
            api.good = "nobody's"
            async with create_task_group() as group:
                for _ in range(5):
                    group.start_soon(call)
    assert answers == [200] * 18
    assert endpoint.refreshes == 3
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "3 good tokens in a row" in warning.getMessage()
