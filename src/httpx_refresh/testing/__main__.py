"""Serve an authorization server and its API on 127.0.0.1: `python -m httpx_refresh.testing`.

Prints one line of JSON (`url`, `client_id`, `client_secret`, `token`: the first token response) and
serves until SIGTERM or SIGINT. Where its standard input is a pipe, as that of a test which starts it, it also ends when
that is closed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import stat
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

try:
    import uvicorn
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Mount, Route, Router
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError:
    raise ImportError(
        "the command needs Starlette and uvicorn: pip install 'httpx-refresh[testing]'"
    ) from None

from ._app import create_app
from ._behaviour import Answer
from ._process import Control
from ._server import AuthorizationServer


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop."""
    chosen = _read_arguments(arguments)
    server = AuthorizationServer(**chosen.options)
    if chosen.lifetime is not None:
        server.lifetime = chosen.lifetime
    if chosen.token_delay:
        server.token_behaviour = Answer(delay=chosen.token_delay)
    if chosen.api_delay:
        server.api_behaviour = Answer(delay=chosen.api_delay)
    with socket.create_server(("127.0.0.1", chosen.port), backlog=2048) as listener:
        # The socket accepts connections from here on, so a client needs to wait for the printed line only.
        server.issuer = f"http://127.0.0.1:{listener.getsockname()[1]}"
        serve(server, listener)
    return 0


def serve(server: AuthorizationServer, listener: socket.socket) -> None:
    """Print the line and serve on the socket until a signal comes or the pipe is closed."""

    def close_connection(scope: Mapping[str, Any]) -> None:
        for connection in list(web.server_state.connections):
            if isinstance(connection, H11Protocol) and connection.client == scope["client"]:
                connection.transport.close()

    control = Control(server)

    async def steer(request: Request) -> JSONResponse:
        return JSONResponse(await control.run(request.path_params["command"], await request.json()))

    def stop(*_: object) -> None:
        web.should_exit = True

    def stop_with_input() -> None:
        # Not sys.stdin: a thread that waits in it holds a lock that the interpreter needs to end.
        while os.read(0, 4096):
            pass
        stop()

    steering = Route("/control/{command}", steer, methods=["POST"])
    web = uvicorn.Server(
        uvicorn.Config(
            Router([steering, Mount("/", create_app(server, close_connection))]),
            http="h11",
            ws="none",
            lifespan="off",
            log_level="error",
            access_log=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        )
    )
    # Installed around uvicorn's own handlers: when uvicorn is done, it sends itself the signal again.
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if _has_pipe():
        threading.Thread(target=stop_with_input, daemon=True).start()
    line = {
        "url": server.issuer,
        "client_id": server.client_id,
        "client_secret": server.client_secret,
        "token": server.login(),
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
    web.run(sockets=[listener])


def _has_pipe() -> bool:
    """Whether standard input is a pipe that may be closed. A terminal is none, nor is /dev/null in a container."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m httpx_refresh.testing", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0, the default: a free one")
    parser.add_argument("--lifetime", type=float, help="of an access token, in seconds")
    parser.add_argument("--token-delay", type=float, help="of the token endpoint, in seconds")
    parser.add_argument("--api-delay", type=float, help="of the API, in seconds")
    parser.add_argument(
        "--options", type=json.loads, default={}, help="settings of AuthorizationServer, as JSON"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
