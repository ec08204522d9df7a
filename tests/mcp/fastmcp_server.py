"""fastmcp's MCP server with its OAuth proxy, in a process: `python -m tests.mcp.fastmcp_server`.

Clients register themselves at the proxy. The proxy is itself a client of another authorization server, from
`httpx_refresh.testing`, in the same process. The program prints one line of JSON (`url`) and serves until its standard
input is closed. `/control/expire`, `/control/forget` and `/control/stats` end the tokens behind the proxy, and count.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
import warnings
from collections import Counter
from typing import ClassVar

import httpx
import uvicorn
from fastmcp import FastMCP
from fastmcp.server.auth import AccessToken, OAuthProxy, TokenVerifier
from key_value.aio.stores.memory import MemoryStore
from mcp.shared.auth import OAuthClientInformationFull
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from httpx_refresh.testing import AuthorizationServer


class Verifier(TokenVerifier):  # type: ignore[misc]  # fastmcp is not where types are checked
    """Asks the API behind the proxy whether it accepts a token."""

    def __init__(self, behind: AuthorizationServer) -> None:
        super().__init__(required_scopes=["use"])
        self.behind = behind
        self.client = httpx.AsyncClient(transport=behind.transport())

    async def verify_token(self, token: str) -> AccessToken | None:
        answer = await self.client.get(
            f"{self.behind.api_url}/ping", headers={"Authorization": f"Bearer {token}"}
        )
        if answer.status_code != 200:
            return None
        return AccessToken(token=token, client_id="proxy", scopes=["use"])


class Proxy(OAuthProxy):  # type: ignore[misc]  # see above
    """Counts the clients that register."""

    counts: ClassVar[Counter[str]] = Counter()

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        self.counts["registrations"] += 1
        await super().register_client(client_info)


def server_of(url: str, behind: AuthorizationServer) -> FastMCP:
    """Make the server for `url`."""
    proxy = Proxy(
        upstream_authorization_endpoint=f"{behind.issuer}/authorize",
        upstream_token_endpoint=behind.token_url,
        upstream_client_id=behind.client_id,
        upstream_client_secret=behind.client_secret,
        upstream_revocation_endpoint=f"{behind.issuer}/revoke",
        token_verifier=Verifier(behind),
        base_url=url,
        client_storage=MemoryStore(),
        jwt_signing_key="a key of tests",
        forward_resource=False,  # The server behind it knows no resources.
    )
    server = FastMCP("whoami", auth=proxy)

    def whoami(number: int) -> str:
        """Say that somebody called."""
        return f"call {number}"

    async def expire(request: Request) -> Response:
        behind.expire_access_tokens()
        return JSONResponse({})

    async def forget(request: Request) -> Response:
        behind.revoke_family()
        return JSONResponse({})

    async def stats(request: Request) -> Response:
        counts = {"rotations": behind.rotations, "reuses": behind.reuses_detected}
        return JSONResponse({**counts, "revocations": behind.family_revocations, **proxy.counts})

    server.tool(whoami)
    server.custom_route("/control/expire", methods=["POST"])(expire)
    server.custom_route("/control/forget", methods=["POST"])(forget)
    server.custom_route("/control/stats", methods=["GET"])(stats)
    return server


async def serve() -> None:
    """Serve until standard input is closed."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=128) as front,
        socket.create_server(("127.0.0.1", 0), backlog=128) as back,
    ):
        url, issuer = (f"http://127.0.0.1:{one.getsockname()[1]}" for one in (front, back))
        behind = AuthorizationServer(issuer=issuer)
        pairs = [(server_of(url, behind).http_app(), front), (behind.app, back)]
        servers = [
            uvicorn.Server(
                uvicorn.Config(
                    app, log_level="error", access_log=False, ws="none", timeout_graceful_shutdown=1
                )
            )
            for app, _ in pairs
        ]

        def stop() -> None:
            sys.stdin.read()
            for one in servers:
                one.should_exit = True

        threading.Thread(target=stop, daemon=True).start()
        print(json.dumps({"url": url}), flush=True)
        await asyncio.gather(
            *(one.serve(sockets=[at]) for one, (_, at) in zip(servers, pairs, strict=True))
        )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    asyncio.run(serve())
