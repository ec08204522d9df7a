"""A server on a socket, a browser that a test controls, and the command line."""

from __future__ import annotations

import os
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn
from typer.main import get_command
from typer.testing import CliRunner

from httpx_refresh.cli.app import app
from httpx_refresh.testing import AuthorizationServer

if TYPE_CHECKING:
    from typer.testing import Result

Run = Callable[..., "Result"]

COMMAND = get_command(app)


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve an application on a port of its own, in a thread; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # The socket accepts connections from here on, so nobody has to wait for the thread.
        config = uvicorn.Config(app, lifespan="off", log_level="error", ws="none")
        web = uvicorn.Server(config)
        thread = threading.Thread(target=web.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            web.should_exit = True
            thread.join()


class Site:
    """What the tests' web server serves: one test's authorization server after the other."""

    def __init__(self) -> None:
        self.app: Any = None
        self.url = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """A web server for all tests: one that ends looks only ten times a second whether it should."""
    site = Site()
    with serving(site) as site.url:
        yield site


@pytest.fixture
def server(site: Site) -> AuthorizationServer:
    server = AuthorizationServer()
    server.issuer = site.url
    site.app = server.app
    return server


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Hide this machine's settings, leave nothing on it, and make files readable by their owner only."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(webbrowser, "open", _no_browser)
    umask = os.umask(0o077)
    yield
    os.umask(umask)


def _no_browser(url: str) -> bool:
    return False


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command: its arguments, and `env` and `input` as keywords."""
    # Typer's runner would make all commands anew each time, which takes most of the time of a run.
    monkeypatch.setattr("typer.testing._get_command", lambda _app: COMMAND)

    def run(*arguments: str, **options: Any) -> Result:
        result = CliRunner().invoke(app, arguments, prog_name="httpx-refresh", **options)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        return result

    return run


@pytest.fixture
def at(server: AuthorizationServer) -> list[str]:
    """The options of a client of `server` with a slot in token.json."""
    options = ["--issuer", server.issuer, "--client-id", server.client_id]
    Path("secret.txt").write_text(f"{server.client_secret}\n")
    return [*options, "--client-secret-file", "secret.txt", "--store", "file:token.json"]


class Browser:
    """A person's browser: it follows redirects, and keeps the pages that it got.

    `change` may change each address before the browser goes there: the login's, and the redirect's.
    """

    def __init__(self) -> None:
        self.change: Callable[[str], str] = str
        self.opened: list[str] = []
        self._pages: list[httpx.Response] = []
        self._seen = threading.Condition()

    def open(self, url: str) -> bool:
        self.opened.append(url)
        with httpx.Client(trust_env=False, timeout=60) as client:
            redirect = client.get(url).headers["location"]
            page = client.get(self.change(redirect))
        with self._seen:
            self._pages.append(page)
            self._seen.notify_all()
        return True

    @property
    def pages(self) -> list[httpx.Response]:
        """Return the final page. Wait for it, because the command may be done before."""
        with self._seen:
            self._seen.wait_for(lambda: len(self._pages) == len(self.opened), timeout=120)
            return self._pages


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> Browser:
    browser = Browser()
    monkeypatch.setattr(webbrowser, "open", browser.open)
    return browser


@pytest.fixture
def free_port() -> int:
    """Return a port that is free at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
