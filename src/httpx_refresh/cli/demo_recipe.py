"""The recipe that the demo compares with: an `asyncio.Lock` around the refresh, as in many projects.

It is a good one of its kind: it compares the tokens before it refreshes, and it saves the new one. The demo's score
shows what it lacks; use `RefreshAuth` instead.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx


class LockedAuth(httpx.Auth):
    """Send the token; after a 401 refresh it under a lock, and send the request again."""

    def __init__(self, token_url: str, client_id: str, client_secret: str, path: Path) -> None:
        self._token_url = token_url
        # No connection is kept, because the server closes connections that were idle for five seconds.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._client = httpx.AsyncClient(
            auth=(client_id, client_secret), limits=limits, timeout=60, trust_env=False
        )
        self._path = path
        self._token = json.loads(path.read_text())
        self._lock = asyncio.Lock()

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Send `request`, and send it again with a new token if the API refuses it."""
        used = self._token["access_token"]
        request.headers["Authorization"] = f"Bearer {used}"
        response = yield request
        if response.status_code != 401:
            return
        async with self._lock:
            if self._token["access_token"] == used and not await self._refresh():
                return
        request.headers["Authorization"] = f"Bearer {self._token['access_token']}"
        yield request

    async def _refresh(self) -> bool:
        form = {"grant_type": "refresh_token", "refresh_token": self._token["refresh_token"]}
        response = await self._client.post(self._token_url, data=form)
        if not response.is_success:
            return False
        self._token = response.json()
        self._path.write_text(json.dumps(self._token))
        return True
