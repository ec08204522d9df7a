from __future__ import annotations

import importlib.util
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from httpx_refresh import MemoryStore, RefreshAuth, TokenEndpoint
from httpx_refresh.testing import AuthorizationServer, Outage
from tests.oauth.test_login import changed

if TYPE_CHECKING:
    from fastapi import FastAPI

PASSWORD = "correct horse"
EXAMPLES = Path(__file__).parents[1] / "examples"

# FastAPI is asyncio's.
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("anyio_backend", ["asyncio"], scope="module"),
]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """Import examples/fastapi_xero.py from its place."""
    spec = importlib.util.spec_from_file_location("fastapi_xero", EXAMPLES / "fastapi_xero.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its annotations are resolved by the module's name.
    sys.modules["fastapi_xero"] = module
    spec.loader.exec_module(module)
    return module


class Service:
    """The example with its job, a server instead of Xero, and a person's browser."""

    def __init__(self, example: ModuleType, server: AuthorizationServer) -> None:
        self.server = server
        self.world = httpx.AsyncClient(transport=server.transport())
        self.endpoint = TokenEndpoint(
            server.token_url,
            "client",
            "secret",
            authorization_endpoint=f"{server.issuer}/authorize",
            client=self.world,
        )
        self.auth = RefreshAuth(self.endpoint, MemoryStore(), origins=server.issuer)
        self.asked = anyio.Event()
        self.api = httpx.AsyncClient(
            auth=self.auth,
            transport=server.transport(),
            event_hooks={"response": [self.note]},
        )
        self.app: FastAPI = example.create_app(
            self.endpoint,
            self.auth,
            self.api,
            url=f"{server.api_url}/ping",
            every=3600,
            password=PASSWORD,
        )
        transport = httpx.ASGITransport(self.app)
        self.browser = httpx.AsyncClient(
            transport=transport, base_url="https://service.test", auth=("operator", PASSWORD)
        )

    async def note(self, response: httpx.Response) -> None:
        self.asked.set()

    async def connect(self, **fields: str | None) -> httpx.Response:
        """Click on the link, log in, and come back; with other `fields` in the redirect."""
        sent = await self.browser.get("/connect")
        assert sent.status_code == 303
        returned = await self.world.get(sent.headers["location"])
        return await self.browser.get(changed(returned.headers["location"], **fields))

    async def says(self) -> str:
        return (await self.browser.get("/")).text


@asynccontextmanager
async def running(example: ModuleType, server: AuthorizationServer) -> AsyncIterator[Service]:
    service = Service(example, server)
    async with (
        service.world,
        service.api,
        service.browser,
        service.app.router.lifespan_context(service.app),
    ):
        yield service


async def test_a_person_connects_and_the_job_uses_the_token_through_refreshes(
    example: ModuleType,
) -> None:
    server = AuthorizationServer()
    async with running(example, server) as service:
        assert "Connect Xero" in await service.says()
        back = await service.connect()
        assert back.status_code == 303
        await service.asked.wait()
        await anyio.wait_all_tasks_blocked()
        assert "Xero answered with status 200." in await service.says()
        for _ in range(3):
            server.expire_access_tokens()
            assert (await service.api.get(f"{server.api_url}/ping")).status_code == 200
    assert server.rotations == 3
    assert server.reuses_detected == 0


@pytest.mark.parametrize(
    "credentials", [None, ("operator", "another"), ("stranger", PASSWORD), ("operator", "")]
)
async def test_a_stranger_can_neither_begin_nor_finish_a_connection(
    example: ModuleType, credentials: tuple[str, str] | None
) -> None:
    """The stranger cannot do it with the cookie of a login that the operator began either."""
    async with running(example, AuthorizationServer()) as service:
        sent = await service.browser.get("/connect")
        returned = await service.world.get(sent.headers["location"])
        service.browser.auth = credentials or httpx.Auth()
        answers = [
            await service.browser.get(address)
            for address in ("/connect", returned.headers["location"])
        ]
        assert [answer.status_code for answer in answers] == [401, 401]
        assert answers[0].headers["WWW-Authenticate"] == 'Basic realm="Invoices"'
        assert "set-cookie" not in answers[0].headers
        assert "Xero is not connected." in await service.says()


async def test_without_a_password_the_service_does_not_start(example: ModuleType) -> None:
    nothing: Any = None
    with pytest.raises(ValueError, match="password is empty"):
        example.create_app(nothing, nothing, nothing, url="", every=1, password="")


async def test_before_a_login_the_job_says_what_is_missing(example: ModuleType) -> None:
    async with running(example, AuthorizationServer()) as service:
        await anyio.wait_all_tasks_blocked()
        assert "Xero is not connected." in await service.says()


async def test_a_job_that_meets_an_outage_goes_on(example: ModuleType) -> None:
    server = AuthorizationServer()
    async with running(example, server) as service:
        await service.connect()
        await service.asked.wait()
        server.expire_access_tokens()
        server.script(Outage(500))
        job = example.Job(service.api, f"{server.api_url}/ping", 3600)
        assert await job.once() == "Xero cannot be reached just now."


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"code": None}, "brings no authorization code"),
        ({"code": None, "error": "access_denied"}, "was denied"),
    ],
)
async def test_a_login_that_fails_is_explained_and_saves_nothing(
    example: ModuleType, fields: dict[str, str | None], words: str
) -> None:
    async with running(example, AuthorizationServer()) as service:
        answer = await service.connect(**fields)
        assert answer.status_code == 400
        assert words in answer.text
        await anyio.wait_all_tasks_blocked()
        assert "Xero is not connected." in await service.says()


@pytest.mark.parametrize("state", ["another", "", None])
async def test_what_is_not_the_answer_to_a_login_does_not_end_it(
    example: ModuleType, state: str | None
) -> None:
    async with running(example, AuthorizationServer()) as service:
        sent = await service.browser.get("/connect")
        returned = await service.world.get(sent.headers["location"])
        ended_at = returned.headers["location"]
        other = changed(ended_at, state=state, code=None, error="access_denied")
        assert (await service.browser.get(other)).status_code == 400
        assert (await service.browser.get(ended_at)).status_code == 303


async def test_a_redirect_that_comes_to_another_browser_is_refused(example: ModuleType) -> None:
    async with running(example, AuthorizationServer()) as service:
        sent = await service.browser.get("/connect")
        returned = await service.world.get(sent.headers["location"])
        service.browser.cookies.clear()
        answer = await service.browser.get(returned.headers["location"])
    assert answer.status_code == 400
    assert "This browser began no such login." in answer.text


async def test_logins_that_nobody_finishes_are_forgotten(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example, "MOST_LOGINS", 1)
    async with running(example, AuthorizationServer()) as service:
        sent = await service.browser.get("/connect")
        held = dict(service.browser.cookies)
        await service.browser.get("/connect")
        service.browser.cookies.clear()
        service.browser.cookies.update(held)
        returned = await service.world.get(sent.headers["location"])
        assert (await service.browser.get(returned.headers["location"])).status_code == 400


async def test_the_example_starts_from_the_environment(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XERO_CLIENT_ID", "client")
    monkeypatch.setenv("TOKEN_STORE", "memory:")
    monkeypatch.setenv("OPERATOR_PASSWORD", PASSWORD)
    app = example.app_of_the_environment()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as browser:
        sent = await browser.get("/connect", auth=("operator", PASSWORD))
    assert sent.headers["location"].startswith("https://login.xero.com/identity/connect/authorize?")
    assert "redirect_uri=http%3A%2F%2Flocalhost%3A8000%2Fcallback" in sent.headers["location"]
