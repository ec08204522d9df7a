"""The documentation is complete: it has every public name, its tables agree with the code, and its snippets run."""

from __future__ import annotations

import ast
import functools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import httpx
import pytest

from httpx_refresh._refresh.record import _KNOWN, Claim, Failed, Pause, Record, Refusals, write
from httpx_refresh.cli.console import Exit
from httpx_refresh.cli.settings import Settings
from httpx_refresh.cli.slots import STATES, describe
from httpx_refresh.testing import AuthorizationServer, Call, RunningServer, running_server
from tests.test_docs import DOCUMENTS, ROOT, run, serve, snippets

__all__ = ["serve"]  # a fixture

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


def script(name: str) -> ModuleType:
    spec = spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_name_stands_in_the_reference() -> None:
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    named = set(re.findall(r"^::: (\S+)$", text, flags=re.MULTILINE))
    hooks = script("docs_hooks")
    public = hooks.public_names()
    assert len(public) > 100
    # A named module contributes the names of its `__all__`.
    documented = {name for name in public if name in named or name.rpartition(".")[0] in named}
    assert hooks.absent_names(documented) == []


def test_every_page_stands_in_the_navigation_and_every_entry_is_a_page() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8").split("\nnav:\n")[1]
    entries = re.findall(r"([\w/-]+\.md)$", navigation, flags=re.MULTILINE)
    assert len(entries) == len(set(entries))
    assert sorted(entries) == sorted(page.relative_to(DOCS).as_posix() for page in PAGES)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_test_that_a_page_names_exists(path: Path) -> None:
    for file, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", path.read_text("utf-8")):
        assert name in functions(file), name


@functools.cache
def functions(file: str) -> set[str]:
    """Return the names of a file's functions."""
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {one.name for one in ast.walk(tree) if isinstance(one, kinds)}


def test_the_drawings_are_those_that_the_script_draws() -> None:
    diagrams = script("diagrams")
    for name, text in diagrams.DIAGRAMS.items():
        assert (DOCS / "img" / f"{name}.svg").read_text("utf-8") == diagrams.drawing(text), (
            "python scripts/diagrams.py"
        )


def rows(text: str) -> list[str]:
    """Return the first cells of a page's tables that are code."""
    return re.findall(r"^\| `([^`]+)`", text, flags=re.MULTILINE)


def test_the_json_of_status_is_the_one_that_is_documented() -> None:
    page = (DOCS / "reference" / "configuration.md").read_text("utf-8")
    section = page.split("## `status --json`")[1]
    assert sorted(rows(section)) == sorted(["store", *describe(Record(None), Settings(), 0.0)])
    (states,) = (line for line in section.splitlines() if line.startswith("| `state`"))
    for state in STATES:
        assert f"`{state}`" in states


def test_the_stored_text_is_the_one_that_is_documented() -> None:
    page = (DOCS / "reference" / "stored-text.md").read_text("utf-8")
    assert set(rows(page.split("## The notes")[1])) == set(_KNOWN)
    pause = Pause("nonce", 1.0, 2.0)
    text = write(
        Record(
            None,
            None,
            1,
            Claim("host:1", "nonce", 1.0, 20.0, held="machine"),
            failed=(Failed("message", "busy", True, 1, pause, "client"),),
            refusals=Refusals(0, 0, (), 1, pause),
            revoked=1.0,
        ),
        rev="rev",
    )
    notes = json.loads(text)["httpx_refresh"]
    for fields in (notes["redeeming"], notes["failed"][0], notes["refusals"]):
        for name in fields:
            assert f"`{name}`" in page or name in ("pause", "nonce", "until"), name


def test_each_exit_code_is_documented() -> None:
    page = (DOCS / "cli.md").read_text("utf-8").split("## Exit codes")[1]
    codes = re.findall(r"^\| (\d+) \|", page, flags=re.MULTILINE)
    assert sorted(map(int, codes)) == sorted(map(int, Exit))


# -- the pages run -----------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name, value in (
        ("CLIENT_ID", "client"),
        ("CLIENT_SECRET", "secret"),
        ("TOKEN_STORE", f"file:{tmp_path / 'token.json'}"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["migrating", "operate", "troubleshooting", "why"])
@pytest.mark.usefixtures("environment")
def test_the_snippets_of_a_page_run(name: str) -> None:
    blocks = snippets(DOCS / f"{name}.md")
    assert blocks
    run("\n".join(blocks), name)


def test_tokens_of_other_libraries_are_taken_over(
    environment: Path, serve: Callable[[AuthorizationServer], None]
) -> None:
    serve(AuthorizationServer(clients={"client-id": "client-secret"}))
    page = run("\n".join(snippets(DOCS / "migrating.md")), "migrating")
    authlib = {"access_token": "a", "refresh_token": "r", "expires_at": 9e9, "token_type": "Bearer"}
    anyio.run(page["take_over"], authlib)
    assert json.loads((environment / "token.json").read_text())["refresh_token"] == "r"
    assert page["from_httpx_auth"](["a", 9e9, "r"]).refresh_token == "r"
    token = page["from_mcp"]({"access_token": "a", "refresh_token": "r", "expires_in": 60})
    assert (token.refresh_token, token.expires_at) == ("r", None)


@pytest.mark.usefixtures("environment")
def test_metrics_count_what_happened() -> None:
    page = run("\n".join(snippets(DOCS / "operate.md")), "operate")
    from httpx_refresh.events import Refreshed

    page["count"](Refreshed(generation=1, reason="refused", duration=0.5))
    assert page["events"] == {"Refreshed": 1}
    assert page["seconds"] == [0.5]


@pytest.mark.usefixtures("environment")
def test_a_hook_that_leaves_a_401_alone_raises_on_other_errors() -> None:
    page = run("\n".join(snippets(DOCS / "troubleshooting.md")), "troubleshooting")

    def answered(status: int) -> httpx.Response:
        return httpx.Response(status, request=httpx.Request("GET", "https://api.example.com"))

    anyio.run(page["raise_on_errors"], answered(401))
    with pytest.raises(httpx.HTTPStatusError):
        anyio.run(page["raise_on_errors"], answered(500))
    assert page["says_expired"]({"error": "token_expired"})
    assert not page["says_expired"](["token_expired"])


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        yield running


@pytest.mark.usefixtures("environment")
def test_the_first_page_refreshes_once(capsys: pytest.CaptureFixture[str]) -> None:
    run(snippets(DOCS / "index.md")[0], "index")
    assert capsys.readouterr().out == "200 1\n"


def test_the_tutorial_does_what_it_says(environment: Path, server: RunningServer) -> None:
    call, expire, test, preset = snippets(DOCS / "tutorial.md")
    for name, code in (("call.py", call), ("expire.py", expire), ("test_call.py", test)):
        Path(name).write_text(code.replace("http://127.0.0.1:8321", server.url), "utf-8")
    token = Path("token.json")
    token.touch(mode=0o600)
    token.write_text(json.dumps(server.token))

    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "error", *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert python("call.py") == "200 {'pong': True}\n"
    said = python("expire.py")
    assert said.count("token refreshed (generation 1)") == 1
    assert "{200}\n" in said
    stats = server.stats()
    assert (stats["token_requests"], stats["reuses_detected"]) == (1, 0)
    assert "passed" in python("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_call.py")
    run(preset, "preset")


MOCKS = "respx, pytest-httpx and httpx2-pytest"


def passes(blocks: list[str], *options: str) -> int:
    """Run blocks as a test file; return how many tests passed."""
    Path("test_page.py").write_text("\n".join(blocks), "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *options, "test_page.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    found = re.search(r"^(\d+) passed", done.stdout, flags=re.MULTILINE)
    assert found is not None
    return int(found[1])


@pytest.mark.usefixtures("environment")
def test_the_page_about_tests_passes_as_a_test_file() -> None:
    page, mocks = DOCS / "testing.md", snippets(DOCS / "testing.md", under=MOCKS)
    assert passes([block for block in snippets(page) if block not in mocks]) > 6


@pytest.mark.usefixtures("environment")
def test_the_mocks_of_other_libraries_see_one_token_request() -> None:
    for name in ("respx", "pytest_httpx", "pytest_httpx2"):
        pytest.importorskip(name, reason=f"{name}: the group all-tests")
    # Each of the three once, on asyncio: the mocks are the same on trio.
    assert passes(snippets(DOCS / "testing.md", under=MOCKS), "-k", "asyncio") == 3


# -- deploy ------------------------------------------------------------------------------------------------------------


def deployed(under: str) -> dict[str, Any]:
    """Run a part of the page after the settings at its beginning."""
    settings = snippets(DOCS / "deploy.md")[0]
    return run("\n".join([settings, *snippets(DOCS / "deploy.md", under=under)]), "deploy")


@pytest.fixture
def refused(
    environment: Path,
    serve: Callable[[AuthorizationServer], None],
    monkeypatch: pytest.MonkeyPatch,
) -> AuthorizationServer:
    """A server behind the pages' addresses that refuses the token in the store; for sync clients, too."""
    server = AuthorizationServer()
    serve(server)

    def answer(request: httpx.Request) -> httpx.Response:
        url = request.url
        call = Call("GET", url.host, f"/api{url.path}", "", request.headers, request.read())
        reply = server.handle(call)
        fields: dict[str, Any] = {"orders": []} if reply.status == 200 else {}
        return httpx.Response(reply.status, json=fields)

    class Client(httpx.Client):
        def __init__(self, **options: Any) -> None:
            super().__init__(transport=httpx.MockTransport(answer), **options)

    monkeypatch.setattr(httpx, "Client", Client)
    (environment / "token.json").write_text(json.dumps(server.login()))
    server.expire_access_tokens()
    return server


def test_the_web_service_answers_after_an_expiry_and_tells_of_an_outage(
    refused: AuthorizationServer,
) -> None:
    page = deployed("FastAPI and Starlette")
    app = page["app"]

    async def main() -> int:
        async with page["lifespan"](app):
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
                first = await client.get("/orders")
                refused.revoke_family()
                second = await client.get("/orders")
        assert first.status_code == 200, first.text
        return second.status_code

    assert anyio.run(main) == 503
    assert refused.token_requests == 2


def test_a_sync_and_an_async_django_view_share_the_refresh(refused: AuthorizationServer) -> None:
    pytest.importorskip("django", reason="Django is in the dependency group all-tests")
    from django.conf import settings
    from django.http import HttpRequest

    if not settings.configured:
        settings.configure()
    page = deployed("Django")

    async def main() -> int:
        return int((await page["order_list_async"](HttpRequest())).status_code)

    assert page["order_list"](HttpRequest()).status_code == 200
    assert anyio.run(main) == 200
    assert refused.token_requests == 1


def test_the_function_gets_its_answer_after_an_expiry(refused: AuthorizationServer) -> None:
    page = deployed("AWS Lambda and other functions that freeze")
    assert page["handler"]({}, None) == {"orders": []}
    assert refused.token_requests == 1


def test_the_task_gets_its_answer_after_an_expiry(refused: AuthorizationServer) -> None:
    pytest.importorskip("celery", reason="Celery is in the dependency group all-tests")
    page = deployed("Celery")
    assert page["fetch_order"].apply(args=[7]).get() == {"orders": []}
    assert refused.token_requests == 1
