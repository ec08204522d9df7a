"""The SDK's own MCP server with its authorization routes, in a process: `python -m tests.mcp.sdk_server`.

It works with either generation of the SDK. It prints one line of JSON (`url`) and serves until its standard input is
closed. Besides the SDK's routes it has a page that asks for consent. For tests it has `/control/expire`, which ends the
access tokens; `/control/hold`, which does the same and holds the next refresh until `/control/release`, while
`/control/arrived` answers once that refresh is there; `/control/forget` and `/control/stats`. It has one tool.
"""

from __future__ import annotations

import asyncio
import html
import json
import secrets
import socket
import sys
import threading
import time
import warnings
from collections import Counter
from typing import Any

import uvicorn
from mcp.server.auth.provider import (
    AccessToken,
    AuthorizationCode,
    AuthorizationParams,
    RefreshToken,
    TokenError,
    construct_redirect_uri,
)
from mcp.server.auth.settings import AuthSettings, ClientRegistrationOptions, RevocationOptions
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

try:
    from mcp.server.mcpserver import MCPServer

    GENERATION = 2
except ImportError:
    from mcp.server.fastmcp import FastMCP as MCPServer

    GENERATION = 1

LIFETIME = 3600


class Provider:
    """Keeps everything in memory. A refresh token that is used twice ends its grant."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.clients: dict[str, OAuthClientInformationFull] = {}
        self.asked: dict[str, tuple[str, AuthorizationParams]] = {}
        self.codes: dict[str, AuthorizationCode] = {}
        self.access: dict[str, AccessToken] = {}
        self.refresh: dict[str, RefreshToken] = {}
        self.spent: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.arrived = asyncio.Event()
        self.released = asyncio.Event()
        self.released.set()

    async def get_client(self, client_id: str) -> OAuthClientInformationFull | None:
        return self.clients.get(client_id)

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        self.counts["registrations"] += 1
        self.clients[str(client_info.client_id)] = client_info

    async def authorize(
        self, client: OAuthClientInformationFull, params: AuthorizationParams
    ) -> str:
        name = secrets.token_urlsafe(16)
        self.asked[name] = (str(client.client_id), params)
        return f"{self.url}/consent?request={name}"

    async def consent(self, request: Request) -> Response:
        name = request.query_params["request"]
        client_id, params = self.asked[name]
        if request.method == "GET":
            client = html.escape(str(self.clients[client_id].client_name))
            return HTMLResponse(
                f"<!doctype html><title>Consent</title><h1>{client} asks for access</h1>"
                f'<form method="post" action="/consent?request={name}">'
                '<button name="decision" value="allow" id="allow">Allow</button>'
                '<button name="decision" value="deny" id="deny">Deny</button></form>'
            )
        form = await request.form()
        del self.asked[name]
        if form["decision"] != "allow":
            denied = construct_redirect_uri(
                str(params.redirect_uri), error="access_denied", state=params.state
            )
            return RedirectResponse(denied, 302)
        code = secrets.token_urlsafe(32)
        self.codes[code] = AuthorizationCode(
            code=code,
            scopes=params.scopes or [],
            expires_at=time.time() + 60,
            client_id=client_id,
            code_challenge=params.code_challenge,
            redirect_uri=params.redirect_uri,
            redirect_uri_provided_explicitly=params.redirect_uri_provided_explicitly,
            resource=params.resource,
        )
        target = construct_redirect_uri(str(params.redirect_uri), code=code, state=params.state)
        return RedirectResponse(target, 302)

    async def load_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: str
    ) -> AuthorizationCode | None:
        return self.codes.get(authorization_code)

    async def exchange_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: AuthorizationCode
    ) -> OAuthToken:
        del self.codes[authorization_code.code]
        return self.issue(
            str(client.client_id), authorization_code.scopes, authorization_code.resource
        )

    def issue(self, client_id: str, scopes: list[str], resource: str | None) -> OAuthToken:
        access, refresh = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        expires_at = int(time.time()) + LIFETIME
        self.access[access] = AccessToken(
            token=access,
            client_id=client_id,
            scopes=scopes,
            expires_at=expires_at,
            resource=resource,
        )
        self.refresh[refresh] = RefreshToken(token=refresh, client_id=client_id, scopes=scopes)
        self.counts["resource " + str(resource)] += 1
        return OAuthToken(
            access_token=access,
            refresh_token=refresh,
            expires_in=LIFETIME,
            scope=" ".join(scopes),
        )

    async def load_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: str
    ) -> RefreshToken | None:
        self.counts["refreshes"] += 1
        if refresh_token in self.spent:
            self.counts["reuses"] += 1
            self.refresh.clear()
        return self.refresh.get(refresh_token)

    async def exchange_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: RefreshToken, scopes: list[str]
    ) -> OAuthToken:
        if self.refresh.pop(refresh_token.token, None) is None:
            raise TokenError("invalid_grant", "spent")
        self.spent.add(refresh_token.token)
        self.arrived.set()
        await self.released.wait()
        self.counts["rotations"] += 1
        return self.issue(str(client.client_id), scopes, f"{self.url}/mcp")

    async def load_access_token(self, token: str) -> AccessToken | None:
        return self.access.get(token)

    async def revoke_token(self, token: AccessToken | RefreshToken) -> None:
        self.counts["revocations"] += 1
        self.access.clear()
        self.refresh.clear()

    async def expire(self, request: Request) -> Response:
        self.access.clear()
        return JSONResponse({})

    async def hold(self, request: Request) -> Response:
        """End the access tokens, and hold the refreshes to come."""
        self.access.clear()
        self.arrived.clear()
        self.released.clear()
        return JSONResponse({})

    async def wait_for_arrival(self, request: Request) -> Response:
        """Answer once a refresh is held."""
        await self.arrived.wait()
        return JSONResponse({})

    async def release(self, request: Request) -> Response:
        self.released.set()
        return JSONResponse({})

    async def forget(self, request: Request) -> Response:
        """End every grant: the next refresh is refused."""
        self.access.clear()
        self.refresh.clear()
        return JSONResponse({})

    async def stats(self, request: Request) -> Response:
        return JSONResponse(dict(self.counts))


def app_of(url: str) -> tuple[Any, Provider]:
    """Make the server's application."""
    provider = Provider(url)
    scopes = ["use"]
    settings: dict[str, Any] = {
        "issuer_url": url,
        "resource_server_url": f"{url}/mcp",
        "required_scopes": scopes,
        "client_registration_options": ClientRegistrationOptions(
            enabled=True, valid_scopes=scopes, default_scopes=scopes
        ),
        "revocation_options": RevocationOptions(enabled=True),
    }
    if GENERATION == 2:
        settings["validate_token_resource"] = True
    server = MCPServer("whoami", auth_server_provider=provider, auth=AuthSettings(**settings))

    def whoami(number: int) -> str:
        """Say that somebody called."""
        return f"call {number}"

    server.add_tool(whoami)
    app = server.streamable_http_app()
    app.add_route("/consent", provider.consent, methods=["GET", "POST"])
    app.add_route("/control/expire", provider.expire, methods=["POST"])
    app.add_route("/control/hold", provider.hold, methods=["POST"])
    app.add_route("/control/arrived", provider.wait_for_arrival, methods=["POST"])
    app.add_route("/control/release", provider.release, methods=["POST"])
    app.add_route("/control/forget", provider.forget, methods=["POST"])
    app.add_route("/control/stats", provider.stats, methods=["GET"])
    return app, provider


def main() -> None:
    """Serve until standard input is closed."""
    warnings.simplefilter("ignore")
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        app, _ = app_of(url)
        config = uvicorn.Config(
            app, log_level="error", access_log=False, ws="none", timeout_graceful_shutdown=1
        )
        web = uvicorn.Server(config)

        def stop() -> None:
            sys.stdin.read()
            web.should_exit = True

        threading.Thread(target=stop, daemon=True).start()
        print(json.dumps({"url": url, "generation": GENERATION}), flush=True)
        web.run(sockets=[listener])


if __name__ == "__main__":
    main()
