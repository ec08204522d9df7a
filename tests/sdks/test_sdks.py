"""Each example of docs/sdks.md, against a token endpoint and an API that refuses the first token."""

from __future__ import annotations

import asyncio
import io
import json
import urllib.error
import urllib.request
from email.message import Message
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

from httpx_refresh import MemoryStore, RefreshAuth, TokenEndpoint
from tests.test_docs import run, snippets

DOCUMENT = Path(__file__).parents[2] / "docs" / "sdks.md"
LIBRARIES: list[Any] = [httpx]
if find_spec("httpx2") is not None:
    import httpx2

    LIBRARIES.append(httpx2)


def major(name: str) -> int:
    """Return the major version of a distribution; 0 if it is not installed."""
    try:
        return int(version(name).partition(".")[0])
    except PackageNotFoundError:
        return 0


def needs(name: str, least: int) -> pytest.MarkDecorator:
    """An SDK of that major version, which its own dependency group installs: the two of MCP exclude each other."""
    found = major(name)
    return pytest.mark.skipif(
        found == 0 or (found != least if name == "mcp" else found < least),
        reason=f"{name} {least} is not installed: see the dependency groups `sdks` and `sdks-mcp1`",
    )


class Api:
    """Refuses the token "old"; answers as each SDK expects."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.refreshes: list[str] = []
        self.library = ""

    def answer(self, library: Any, request: Any) -> Any:
        url = request.url
        if url.host == "login.example.com":
            self.refreshes.append(library.__name__)
            return library.Response(200, json={"access_token": "new", "refresh_token": "r2"})
        token = request.headers["Authorization"].removeprefix("Bearer ")
        self.seen.append((url.path, token))
        self.library = library.__name__
        if token != "new":
            return library.Response(401, json={"error": {"message": "expired"}})
        return self._json(library, url.path, request)

    def _json(self, library: Any, path: str, request: Any) -> Any:
        if path == "/v1/models":
            model: dict[str, Any] = {
                "id": "m",
                "object": "model",
                "type": "model",
                "display_name": "M",
            }
            model |= {"created": 1, "owned_by": "us", "created_at": "2026-01-01T00:00:00Z"}
            return library.Response(
                200, json={"object": "list", "data": [model], "has_more": False}
            )
        if path == "/graphql":
            return library.Response(200, json={"data": {"me": {"name": "we"}}})
        if request.method != "POST":
            return library.Response(405)
        call = json.loads(request.content)
        if "id" not in call:
            return library.Response(202)
        result: dict[str, Any] = {
            "protocolVersion": call.get("params", {}).get("protocolVersion"),
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "s", "version": "1"},
        }
        if call["method"] == "tools/list":
            result = {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]}
        return library.Response(200, json={"jsonrpc": "2.0", "id": call["id"], "result": result})


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    """Replace each library's own connections by the API."""
    api = Api()

    def mock(library: Any) -> None:
        def handle(_: Any, request: Any) -> Any:
            request.read()
            return api.answer(library, request)

        async def handle_async(_: Any, request: Any) -> Any:
            await request.aread()
            return api.answer(library, request)

        monkeypatch.setattr(library.HTTPTransport, "handle_request", handle)
        monkeypatch.setattr(library.AsyncHTTPTransport, "handle_async_request", handle_async)

    for library in LIBRARIES:
        mock(library)
    return api


def example(heading: str) -> dict[str, Any]:
    """Run an example with an auth object whose token has ended."""
    endpoint = TokenEndpoint("https://login.example.com/token", "client-id", "client-secret")
    auth = RefreshAuth(
        endpoint,
        MemoryStore('{"access_token": "old", "refresh_token": "r1"}'),
        origins=["https://api.example.com"],
    )
    (code,) = snippets(DOCUMENT, under=heading)
    return run(code, heading, auth=auth)


@needs("openai", 3)
def test_openai(api: Api) -> None:
    assert example("OpenAI")["answer"] == ["m"]
    assert api.seen == [("/v1/models", "old"), ("/v1/models", "new")]
    assert api.refreshes == ["httpx2"]


@needs("anthropic", 2)
def test_anthropic(api: Api) -> None:
    assert example("Anthropic")["answer"] == ["m"]
    assert api.seen == [("/v1/models", "old"), ("/v1/models", "new")]
    assert api.refreshes == ["httpx2"]


@needs("mcp", 1)
def test_mcp_1(api: Api) -> None:
    assert asyncio.run(example("MCP 1.x")["tools"]()) == ["t"]
    assert api.refreshes == ["httpx"]


@needs("mcp", 2)
def test_mcp_2(api: Api) -> None:
    assert asyncio.run(example("MCP 2.x")["tools"]()) == ["t"]
    assert api.refreshes == ["httpx2"]


@needs("gql", 4)
def test_gql(api: Api) -> None:
    assert example("gql")["answer"] == {"me": {"name": "we"}}
    assert api.seen == [("/graphql", "old"), ("/graphql", "new")]
    assert api.refreshes == [api.library]  # It takes httpx2 where that is installed.


def test_anything_else(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []

    def urlopen(request: urllib.request.Request) -> Any:
        sent.append(str(request.get_header("Authorization")))
        if sent[-1] != "Bearer new":
            raise urllib.error.HTTPError(request.full_url, 401, "no", Message(), None)
        return io.BytesIO(b"yes")

    get = example("Anything else")["get"]
    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    assert get("https://api.example.com/") == b"yes"
    assert sent == ["Bearer old", "Bearer new"]
    assert len(api.refreshes) == 1
