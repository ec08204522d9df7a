from __future__ import annotations

import json
from typing import Any

import anyio
import httpx
import pytest

from httpx_refresh import RefreshUnavailable
from httpx_refresh._http.hosts import Hosts
from httpx_refresh._oauth.documents import Documents
from httpx_refresh._oauth.protected_resource import (
    ProtectedResource,
    covers,
    protected_resource,
)

pytestmark = pytest.mark.anyio

URL = "https://mcp.test/public/mcp"
AT_PATH = "https://mcp.test/.well-known/oauth-protected-resource/public/mcp"
AT_ROOT = "https://mcp.test/.well-known/oauth-protected-resource"
FACTS = {"resource": URL, "authorization_servers": ["https://login.test"]}


class World:
    """Serves pages by address, and records the requests."""

    def __init__(self, pages: dict[str, Any]) -> None:
        self.pages = pages
        self.asked: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        assert "authorization" not in request.headers
        page = self.pages.get(str(request.url), 404)
        if isinstance(page, httpx.Response):
            return page
        if isinstance(page, int):
            return httpx.Response(page, text="{}")
        return httpx.Response(200, text=page if isinstance(page, str) else json.dumps(page))

    async def find(self, url: str = URL, **options: Any) -> ProtectedResource | None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(self)) as client:
            documents = Documents(client, 10, hosts=Hosts(httpx.URL(url)))
            return await protected_resource(url, documents, **options)


async def test_the_metadata_of_a_path_is_looked_for_before_that_of_the_root() -> None:
    world = World({AT_ROOT: {**FACTS, "resource": "https://mcp.test"}})
    found = await world.find()
    assert found == ProtectedResource("https://mcp.test", ("https://login.test",))
    assert world.asked == [AT_PATH, AT_ROOT]
    world = World({AT_PATH: {**FACTS, "scopes_supported": ["a", 7, "b"]}})
    found = await world.find()
    assert found == ProtectedResource(URL, ("https://login.test",), ("a", "b"))
    assert world.asked == [AT_PATH]


async def test_a_server_at_the_root_has_one_place() -> None:
    world = World({})
    assert await world.find("https://mcp.test/") is None
    assert world.asked == [AT_ROOT]


async def test_where_the_server_says_where_its_metadata_is_nowhere_else_is_looked() -> None:
    named = "https://cdn.test/metadata/mcp.json"
    world = World(
        {named: FACTS, AT_PATH: {**FACTS, "authorization_servers": ["https://evil.test"]}}
    )
    found = await world.find(named=named)
    assert found is not None
    assert found.authorization_servers == ("https://login.test",)
    assert world.asked == [named]
    with pytest.raises(ValueError, match="no metadata is there"):
        await World({AT_PATH: FACTS}).find(named=named)


@pytest.mark.parametrize(
    "named",
    [
        "http://mcp.test/metadata",
        "http://cdn.test/metadata",
        "ftp://mcp.test/metadata",
        "/metadata",
        "https://user:word@mcp.test/metadata",
        "https://127.0.0.1/metadata",
        "https://10.0.0.1/metadata",
        "https://169.254.169.254/latest/meta-data",
        "https:///metadata",
        "https://xn--nxasmq6bstate/metadata",
    ],
)
async def test_a_place_that_no_public_server_would_name_is_not_asked(named: str) -> None:
    world = World({named: FACTS})
    with pytest.raises(ValueError, match=r"must be https|is not|no address"):
        await world.find(named=named)
    assert world.asked == []


@pytest.mark.parametrize(
    "facts, words",
    [
        ({"resource": "https://other.test/public/mcp"}, "of another resource"),
        ({"resource": "https://mcp.test/private"}, "of another resource"),
        ({"resource": 7}, "of another resource"),
        ({"authorization_servers": []}, "names no authorization_servers"),
        ({"authorization_servers": "https://login.test"}, "names no authorization_servers"),
        ({"authorization_servers": [7]}, "names no authorization_servers"),
    ],
)
async def test_metadata_of_another_resource_or_of_no_issuer_is_refused(
    facts: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        await World({AT_PATH: {**FACTS, **facts}}).find()


@pytest.mark.parametrize(
    "page",
    [
        "no json",
        "[]",
        "[" * 100_000,
        '{"resource": "' + "x" * 1_100_000,
        httpx.Response(307, headers={"location": AT_PATH}),
        httpx.Response(302, headers={"location": "https://evil.test/"}),
    ],
)
async def test_what_is_no_document_is_as_good_as_none_and_no_redirect_is_followed(
    page: Any,
) -> None:
    world = World({AT_PATH: page})
    assert await world.find() is None
    assert world.asked == [AT_PATH, AT_ROOT]


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_server_in_distress_is_asked_again_later(status: int) -> None:
    with pytest.raises(RefreshUnavailable, match=f"status {status}") as caught:
        await World({AT_PATH: status}).find()
    assert caught.value.outcome == "not_sent"
    assert caught.value.transient


async def test_all_documents_together_take_no_longer_than_they_may() -> None:
    async def never(request: httpx.Request) -> httpx.Response:
        await anyio.sleep_forever()
        raise AssertionError

    async with httpx.AsyncClient(transport=httpx.MockTransport(never)) as client:
        with pytest.raises(RefreshUnavailable, match="nothing came within"):
            await protected_resource(URL, Documents(client, 0.0))


@pytest.mark.parametrize(
    "resource, does",
    [
        ("https://mcp.test/public/mcp", True),
        ("https://mcp.test/public/mcp/", True),
        ("HTTPS://MCP.test/public/mcp", True),
        ("https://mcp.test:443/public", True),
        ("https://mcp.test/public", True),
        ("https://mcp.test/", True),
        ("https://mcp.test", True),
        ("https://mcp.test/pub", False),
        ("https://mcp.test/public/mcp/more", False),
        ("https://mcp.test/Public", False),
        ("https://mcp.test/public/../public", False),
        ("https://mcp.test/public/%2e%2e/public", False),
        ("https://mcp.test/public%2Fmcp", False),
        ("https://mcp.test/public?a=b", False),
        ("https://mcp.test/public#a", False),
        ("https://mcp.test@evil.test/public", False),
        ("https://user@mcp.test/public", False),
        ("https://mcp.test:444/public", False),
        ("http://mcp.test/public", False),
        ("https://evil.test/public", False),
        ("urn:mcp:public", False),
        ("", False),
        ("https://[", False),
        ("https://xn--nxasmq6bstate/public", False),
        ("https://\ud800/public", False),
    ],
)
def test_a_resource_covers_its_own_address_and_what_is_below_it(resource: str, does: bool) -> None:
    assert covers(resource, URL) is does


def test_a_query_belongs_to_a_resource() -> None:
    assert covers("https://mcp.test/mcp?tenant=1", "https://mcp.test/mcp?tenant=1")
    assert not covers("https://mcp.test/mcp?tenant=1", "https://mcp.test/mcp?tenant=2")
    assert covers("https://mcp.test/mcp", "https://mcp.test/mcp?tenant=2")
