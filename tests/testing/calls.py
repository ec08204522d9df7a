"""Calls to an `AuthorizationServer` without a client library, and their answers."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

from httpx_refresh.testing import Call

if TYPE_CHECKING:
    from collections.abc import Mapping

    from httpx_refresh.testing import AuthorizationServer

FORM = "application/x-www-form-urlencoded"


class Got(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads(self.body)
        return fields

    @property
    def error(self) -> tuple[int, str]:
        return self.status, self.json["error"]


def basic(client_id: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()


def send(server: AuthorizationServer, method: str, path: str, **parts: Any) -> Got:
    """Make one call; `headers`, `query` and `body` are keywords."""
    headers: Mapping[str, str] = parts.get("headers", {})
    call = Call(
        method, "server.test", path, parts.get("query", ""), headers, parts.get("body", b"")
    )
    reply = server.handle(call)
    headers = {name.decode(): value.decode() for name, value in reply.wire_headers}
    return Got(reply.status, dict(headers), reply.sent_body)


def post(
    server: AuthorizationServer,
    path: str,
    form: Mapping[str, str],
    authorization: str | None = "default",
) -> Got:
    """Post a form, authenticated as the server's first client unless told otherwise."""
    if authorization == "default":
        authorization = basic(server.client_id, server.client_secret or "")
    headers = {"content-type": FORM}
    if authorization is not None:
        headers["authorization"] = authorization
    return send(server, "POST", path, headers=headers, body=urlencode(form).encode())


def refresh(server: AuthorizationServer, token: Mapping[str, Any], **more: str) -> Got:
    """Spend the refresh token of a token response."""
    form = {"grant_type": "refresh_token", "refresh_token": token["refresh_token"], **more}
    return post(server, "/token", form)


def ping(server: AuthorizationServer, token: Mapping[str, Any]) -> Got:
    """Ask the API with the access token of a token response."""
    headers = {"authorization": f"Bearer {token['access_token']}"}
    return send(server, "GET", "/api/ping", headers=headers)


class Clock:
    """A clock that only moves when a test moves it."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now
