"""The examples of the documents run against the test server, under the providers' addresses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from httpx_refresh.testing import Answer, ApiEvent, AuthorizationServer
from tests.oauth.pems import certificate, pem

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TOKEN_PATHS = (
    "/connect/token",
    "/oauth2/v1/tokens/bearer",
    "/services/oauth2/token",
    "/OAuth/Token",
    "/oauth/token",
)


def snippets(path: Path, *, under: str = "") -> list[str]:
    """Return a document's Python blocks, those under one heading or all."""
    text = path.read_text("utf-8")
    if under:
        text = re.split(r"^#+ ", text.split(f"# {under}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[
            0
        ]
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def run(code: str, name: str, **given: Any) -> dict[str, Any]:
    """Run a snippet as a module with the given names."""
    namespace: dict[str, Any] = {"__name__": name, **given}
    exec(compile(code, f"<{name}>", "exec"), namespace)  # noqa: S102 - our own documents
    return namespace


def routed(server: AuthorizationServer, transport: Any, base: type[Any]) -> Any:
    """Return a transport that maps the provider's paths to those of the test server."""

    class Routed(base):  # type: ignore[misc]  # a base of either library
        async def handle_async_request(self, request: Any) -> Any:
            path = request.url.path
            there = "/token" if path in TOKEN_PATHS else f"/api{path}"
            request.url = request.url.copy_with(path=there)
            return await transport.handle_async_request(request)

    return Routed()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[AuthorizationServer], None]:
    """Connect every client that a snippet makes to the server, and write files to a temporary directory."""

    def start(server: AuthorizationServer) -> None:
        for library, transport in ((httpx, server.transport), (httpx2, server.transport2)):
            routes = routed(server, transport(), library.AsyncBaseTransport)

            class Client(library.AsyncClient):  # type: ignore[name-defined, misc]  # either library's
                def __init__(self, *args: Any, routes: Any = routes, **options: Any) -> None:
                    super().__init__(*args, **{"transport": routes, **options})

            monkeypatch.setattr(library, "AsyncClient", Client)
        monkeypatch.chdir(tmp_path)

    return start


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_snippet_compiles(path: Path) -> None:
    for number, code in enumerate(snippets(path)):
        compile(code, f"{path.name}:{number}", "exec")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)", path.read_text("utf-8")):
        ours = re.fullmatch(re.escape(project_url()) + r"/(?:blob|raw)/main/(.+)", link)
        there = (ROOT / ours[1]).exists() if ours else (path.parent / link).exists()
        assert there or (ours is None and link.startswith("https://")), link


def project_url() -> str:
    """Return the address of the repository."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    found = re.search(r'^Repository = "(.+)"$', text, flags=re.MULTILINE)
    assert found is not None
    return found[1]


def test_the_readme_renders_on_a_package_index() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    links = re.findall(r"\]\(([^)]+)", text)
    assert len(links) > 10
    assert [link for link in links if not link.startswith("https://")] == []
    assert len(text.splitlines()) <= 120


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), flags=re.MULTILINE)
    words = (re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings)
    return {re.sub(r"[\s-]+", "-", one) for one in words}


def test_the_readmes_links_lead_to_headings_that_exist() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    found = re.findall(re.escape(project_url()) + r"/blob/main/([^)#]+)#([^)]+)\)", text)
    assert found
    for file, anchor in found:
        assert anchor in anchors(ROOT / file), anchor


@pytest.mark.parametrize(
    "heading, file, host, settings",
    [
        ("Use", "xero-token.json", "api.xero.com", {}),
        ("Example: Xero", "xero-token.json", "api.xero.com", {}),
        (
            "Example: QuickBooks Online",
            "quickbooks-token.json",
            "quickbooks.api.intuit.com",
            {"rotate": "same"},
        ),
        (
            "Example: Salesforce",
            "salesforce-token.json",
            "acme.my.salesforce.com",
            {
                "clients": {"id": None},
                "rotate": False,
                "send_expires_in": False,
                "extra": {"instance_url": "https://acme.my.salesforce.com"},
            },
        ),
        ("Example: 2BA", "2ba-token.json", "api.2ba.nl", {}),
    ],
)
def test_a_provider_example_refreshes_once_and_gets_its_answer(
    heading: str,
    file: str,
    host: str,
    settings: dict[str, Any],
    serve: Callable[[AuthorizationServer], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = AuthorizationServer(**{"clients": {"id": "secret"}, **settings})
    serve(server)
    for name, value in (
        ("HTTPX_REFRESH_CLIENT_ID", "id"),
        ("HTTPX_REFRESH_CLIENT_SECRET", "secret"),
        ("CLIENT_ID", "id"),
        ("CLIENT_SECRET", "secret"),
        ("XERO_TENANT_ID", "tenant"),
        ("QUICKBOOKS_REALM_ID", "42"),
    ):
        monkeypatch.setenv(name, value)
    Path(file).write_text(json.dumps(server.login("id")))
    server.expire_access_tokens()

    page = ROOT / ("docs/providers.md" if heading.startswith("Example") else "README.md")
    run(snippets(page, under=heading)[0], heading)

    assert capsys.readouterr().out
    assert server.stats()["token_requests"] == 1
    assert server.stats()["api_accepted"] == 1
    assert {event.host for event in server.events if isinstance(event, ApiEvent)} == {host}
    notes = json.loads(Path(file).read_text())["httpx_refresh"]
    assert (notes["generation"], "redeeming" in notes) == (1, False)


def test_the_example_of_use_connects_works_and_prints_no_secret(
    serve: Callable[[AuthorizationServer], None], capsys: pytest.CaptureFixture[str]
) -> None:
    server = AuthorizationServer(clients={"client-id": "client-secret"})
    serve(server)
    example = run("\n".join(snippets(ROOT / "docs" / "use.md")), "use")

    async def main() -> None:
        await example["connect"](server.login("client-id"))
        await example["work"]()

    anyio.run(main)
    assert server.stats()["token_requests"] == 1
    assert server.stats()["api_accepted"] == 1
    assert capsys.readouterr().out.startswith("Token(access_token='***', refresh_token='***'")


def test_the_store_that_a_page_writes_keeps_the_contract(tmp_path: Path) -> None:
    page = ROOT / "docs" / "stores.md"
    blocks = [code for code in snippets(page) if "check_store" in code or "def replace" in code]
    example = run("\n".join(blocks), "store")
    (test,) = [function for name, function in example.items() if name.startswith("test_")]
    anyio.run(lambda: test(*([tmp_path] if test.__code__.co_argcount else [])))


def test_the_table_of_many_tenants_makes_one_object_a_tenant() -> None:
    example = run(snippets(ROOT / "docs" / "stores.md", under="Many tenants")[0], "tenants")
    assert example["auth_of"]("a") is example["auth_of"]("a")
    assert example["auth_of"]("a") is not example["auth_of"]("b")


def test_the_examples_of_client_authentication_make_endpoints(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocks = snippets(ROOT / "docs" / "client-auth.md")
    for name, text in (("key.pem", pem("RSA")), ("cert.pem", certificate("RSA"))):
        (tmp_path / name).write_text(text)
    (tmp_path / "token").write_text("assertion")
    (tmp_path / "client").write_text("secret")
    monkeypatch.chdir(tmp_path)
    code = "\n".join(blocks)
    for path, name in (
        ("/var/run/secrets/azure/tokens/azure-identity-token", "token"),
        ("/run/secrets/client", "client"),
    ):
        assert path in code
        code = code.replace(path, name)
    example = run(code, "client-auth")
    assert example["endpoint"].client_auth == "client_secret_basic"
    assert "assertion" in repr(example["federated"]).lower()


@pytest.mark.parametrize(
    "which, method",
    [(0, "private_key_jwt"), (1, "private_key_jwt"), (3, "tls_client_auth")],
)
def test_each_example_of_client_authentication_is_what_its_heading_says(
    which: int, method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocks = snippets(ROOT / "docs" / "client-auth.md")
    for name, text in (("key.pem", pem("RSA")), ("cert.pem", certificate("RSA"))):
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    code = "\n".join(dict.fromkeys([blocks[0], blocks[which]]))
    assert run(code, "client-auth")["endpoint"].client_auth == method


def test_the_examples_of_grants_make_sources_and_the_first_asks_once(
    serve: Callable[[AuthorizationServer], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = AuthorizationServer(clients={"client-id": "client-secret"})
    serve(server)
    (tmp_path / "key.pem").write_text(pem("RSA"))
    example = run("\n".join(snippets(ROOT / "docs" / "grants.md")), "grants")
    anyio.run(example["main"])
    assert capsys.readouterr().out == "200\n"
    assert (server.stats()["token_requests"], server.stats()["api_refused"]) == (1, 0)
    assert anyio.run(example["auth_of_vault"].token).access_token == "what the vault says"


@pytest.mark.anyio
async def test_a_bare_403_is_taken_for_an_expired_token_where_the_page_says_how(
    serve: Callable[[AuthorizationServer], None],
) -> None:
    """django-oauth-toolkit's decorators answer like this; a 403 with a body is passed on."""
    server = AuthorizationServer(clients={"client-id": "client-secret"})
    serve(server)
    await anyio.Path("token.json").write_text(json.dumps(server.login()))
    (code,) = snippets(ROOT / "docs" / "errors.md", under="When it seems not to work")
    auth = run(code.replace("/o/token/", "/oauth/token"), "errors_403")["auth"]
    bare = Answer(status=403, body="")
    async with httpx.AsyncClient(auth=auth) as client:
        server.script_api(bare)
        response = await client.get("https://app.example.com/ping")
        assert (response.status_code, server.token_requests) == (200, 1)
        server.script_api(Answer(status=403))
        response = await client.get("https://app.example.com/ping")
        assert (response.status_code, server.token_requests) == (403, 1)
