from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import anyio.lowlevel
import httpx
import pytest

from httpx_refresh import (
    LoginFailed,
    MemoryStore,
    OriginNotAllowed,
    ReauthorizationRequired,
    RefreshAuth,
    RefreshUnavailable,
    RevocationFailed,
    StoreError,
    Token,
    mcp,
)
from httpx_refresh._refresh.record import parse
from httpx_refresh.testing import Answer, AuthorizationServer, Gate, LostAnswer
from tests.fakes import use_loop_time
from tests.oauth.test_login import changed
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.anyio

REDIRECT = "http://127.0.0.1:8000/callback"


def world(**settings: Any) -> AuthorizationServer:
    return AuthorizationServer(
        **{
            "clients": {"by-hand": "SECRET"},
            "resource_metadata": True,
            "registration": "open",
            "scopes_supported": ("read", "write"),
            **settings,
        }
    )


@asynccontextmanager
async def at(server: AuthorizationServer, **options: Any) -> AsyncIterator[Person]:
    async with httpx.AsyncClient(transport=server.transport()) as client:
        yield Person(server, client, options)


class Person:
    """A person who logs in at `server`, and the source for the login."""

    def __init__(
        self, server: AuthorizationServer, client: httpx.AsyncClient, options: dict[str, Any]
    ) -> None:
        self.server = server
        self.client = client
        self.options = options
        self.store = MemoryStore()
        self.source = self.another()

    def another(self, **options: Any) -> mcp.Server:
        """Return a source as another process would make it."""
        return mcp.Server(self.server.mcp_url, client=self.client, **{**self.options, **options})

    async def visit(self, login: mcp.Login) -> str:
        answer = await self.client.get(login.url)
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]

    async def log_in(self, redirect_uri: str = REDIRECT, **options: Any) -> Token:
        login = await self.source.begin_login(self.store, redirect_uri, **options)
        token = await self.source.finish_login(self.store, await self.visit(login), login)
        await RefreshAuth(self.source, self.store).set_token(token)
        return token

    def notes(self) -> dict[str, Any]:
        text = self.store.peek()
        assert text is not None
        notes: dict[str, Any] = json.loads(text)["httpx_refresh"]
        return notes

    def api(self, source: mcp.Server | None = None) -> httpx.AsyncClient:
        auth = RefreshAuth(source or self.source, self.store)
        return httpx.AsyncClient(transport=self.server.transport(), auth=auth)


async def test_a_server_is_asked_nothing_until_a_token_is_needed() -> None:
    asked: list[httpx.Request] = []
    client = httpx.AsyncClient(transport=httpx.MockTransport(lambda request: asked.append(request)))  # type: ignore[arg-type]  # it is never asked
    source = mcp.Server("https://mcp.example.com/mcp?key=1", client=client)
    auth = RefreshAuth(source, MemoryStore())
    assert asked == []
    assert source.origins == ("https://mcp.example.com",)
    assert source.name == "mcp.example.com"
    assert repr(source) == "mcp.Server('https://mcp.example.com/mcp')"
    with pytest.raises(ReauthorizationRequired, match=r"holds no token for mcp\.example\.com yet"):
        await auth.token()
    assert asked == []


async def test_a_person_logs_in_and_the_token_lives_through_refreshes() -> None:
    async with at(world()) as person:
        server = person.server
        token = await person.log_in()
        assert token.extra["scope"] == "read write"
        async with person.api() as api:
            for _ in range(3):
                server.expire_access_tokens()
                assert (await api.post(server.mcp_url)).status_code == 200
        # Login, exchange and refresh name the resource, else the server would have refused them.
        sent = [parse_qs(call.body.decode()) for call in server.token_calls]
        assert [form["resource"] for form in sent] == [[server.api_url]] * 4
        assert {form["client_id"][0] for form in sent} == {"registered-0"}
    assert server.rotations == 3
    assert server.reuses_detected == 0
    (said,) = server.registrations
    assert said["application_type"] == "native"
    assert said["redirect_uris"] == [REDIRECT]
    assert said["scope"] == "read write"
    assert said["token_endpoint_auth_method"] == "none"


async def test_another_process_refreshes_with_what_the_store_holds() -> None:
    async with at(world(auth_methods=("client_secret_post",))) as person:
        await person.log_in()
        person.server.expire_access_tokens()
        async with person.api(person.another()) as api:
            assert (await api.post(person.server.mcp_url)).status_code == 200
    assert person.server.rotations == 1


async def test_a_registration_is_kept_by_issuer_before_there_is_a_token() -> None:
    async with at(world()) as person:
        begun = await person.source.begin_login(person.store, REDIRECT)
        record = parse(person.store.peek())
        assert record.token is None
        assert list(person.notes()["registrations"]) == [person.server.issuer]
        # The person closed the window. Another process starts a login, and does not register again.
        again = await person.another().begin_login(person.store, REDIRECT)
        assert again.client_id == begun.client_id
        with pytest.raises(ReauthorizationRequired, match="holds no token"):
            await RefreshAuth(person.source, person.store).token()
        token = await person.another().finish_login(person.store, await person.visit(again), again)
        await RefreshAuth(person.source, person.store).set_token(token)
        assert list(person.notes()["registrations"]) == [person.server.issuer]
        person.server.expire_access_tokens()
        async with person.api() as api:
            assert (await api.post(person.server.mcp_url)).status_code == 200
        assert list(person.notes()["registrations"]) == [person.server.issuer]
    assert len(person.server.registrations) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"redirect_uri": "http://127.0.0.1:8001/callback"},
        {"scope": "read write admin"},
        {"register": True},
    ],
)
async def test_what_a_registration_does_not_serve_is_registered_anew(
    options: dict[str, Any],
) -> None:
    async with at(world()) as person:
        await person.log_in()
        await person.log_in(**options)
        assert person.notes()["registrations"][person.server.issuer]["client_id"] == "registered-1"
        person.server.expire_access_tokens()
        async with person.api() as api:
            assert (await api.post(person.server.mcp_url)).status_code == 200


async def test_a_refresh_token_is_spent_as_the_client_that_it_was_issued_to() -> None:
    """The login works although another one has registered again meanwhile and was given up."""
    async with at(world()) as person:
        await person.log_in()
        await person.source.begin_login(person.store, REDIRECT, register=True)
        assert person.notes()["registrations"][person.server.issuer]["client_id"] == "registered-1"
        person.server.expire_access_tokens()
        async with person.api(person.another()) as api:
            assert (await api.post(person.server.mcp_url)).status_code == 200
    assert parse_qs(person.server.token_calls[-1].body.decode())["client_id"] == ["registered-0"]


async def test_a_client_that_the_server_has_forgotten_needs_a_login_which_registers_it_anew() -> (
    None
):
    async with at(world()) as person:
        await person.log_in()
        person.server.forget_registrations()
        person.server.expire_access_tokens()
        async with person.api() as api:
            with pytest.raises(ReauthorizationRequired, match=r"invalid_client.*Log in again"):
                await api.post(person.server.mcp_url)
        await person.log_in()
        async with person.api() as api:
            assert (await api.post(person.server.mcp_url)).status_code == 200
    assert len(person.server.registrations) == 2


async def test_a_client_that_was_registered_by_hand_is_used_and_its_secret_is_not_stored() -> None:
    async with at(world(), client_id="by-hand", client_secret="SECRET") as person:
        await person.log_in()
        person.server.expire_access_tokens()
        async with person.api() as api:
            assert (await api.post(person.server.mcp_url)).status_code == 200
        assert "SECRET" not in (person.store.peek() or "")
        assert "registrations" not in person.notes()
    assert person.server.registrations == []


@pytest.mark.parametrize("how", ["client_secret_basic", "client_secret_post"])
async def test_a_client_that_was_registered_by_hand_authenticates_as_it_was_told(how: Any) -> None:
    async with at(world(), client_id="by-hand", client_secret="SECRET", client_auth=how) as person:
        await person.log_in()
        await RefreshAuth(person.source, person.store).refresh()
    forms = [parse_qs(call.body.decode()) for call in person.server.token_calls]
    assert ["client_secret" in form for form in forms] == [how == "client_secret_post"] * 2


async def test_a_metadata_document_is_used_where_the_server_reads_such() -> None:
    document = "https://agents.example.com/client.json"
    for knows in (True, False):
        server = world(client_id_metadata_documents=knows)
        async with at(server, client_id=document) as person:
            await person.log_in()
            server.expire_access_tokens()
            async with person.api() as api:
                assert (await api.post(server.mcp_url)).status_code == 200
        sent = {parse_qs(call.body.decode())["client_id"][0] for call in server.token_calls}
        assert sent == {document if knows else "registered-0"}


@pytest.mark.parametrize(
    "settings, options, scope",
    [
        ({}, {}, "read write"),
        ({"challenge_scope": "files:read"}, {}, "files:read"),
        ({"challenge_scope": "files:read"}, {"scope": "mine"}, "mine"),
        ({"scopes_supported": ()}, {}, None),
    ],
)
async def test_a_login_asks_for_what_the_challenge_asks_for_before_what_the_metadata_names(
    settings: dict[str, Any], options: dict[str, Any], scope: str | None
) -> None:
    async with at(world(**settings)) as person:
        login = await person.source.begin_login(person.store, REDIRECT, **options)
    asked = parse_qs(urlsplit(login.url).query)
    assert asked.get("scope") == (None if scope is None else [scope])
    assert asked["resource"] == [person.server.api_url]
    assert asked["code_challenge_method"] == ["S256"]


async def test_a_step_up_asks_for_the_scopes_that_are_granted_too() -> None:
    async with at(world()) as person:
        await person.log_in(scope="read")
        login = await person.source.begin_login(person.store, REDIRECT, scope="admin")
    assert parse_qs(urlsplit(login.url).query)["scope"] == ["read admin"]


async def test_the_token_goes_to_the_servers_origin_only() -> None:
    async with at(world()) as person:
        await person.log_in()
        async with person.api() as api:
            with pytest.raises(OriginNotAllowed):
                await api.get("https://login.example.com/")


@pytest.mark.parametrize("auth_methods", [("none",), ("client_secret_post",)])
async def test_a_token_is_revoked_where_it_was_issued_as_the_client_that_it_was_issued_to(
    auth_methods: tuple[str, ...],
) -> None:
    async with at(world(auth_methods=auth_methods)) as person:
        await person.log_in()
        await person.source.begin_login(person.store, REDIRECT, register=True)  # Given up.
        assert await RefreshAuth(person.another(), person.store).revoke()
        record = parse(person.store.peek())
        assert record.token is None
        assert record.revoked is not None
        # The registration is kept for the next login.
        await person.log_in()
    assert person.server.family_revocations == 1
    assert len(person.server.registrations) == 2


async def test_where_nothing_is_revoked_the_token_is_kept() -> None:
    async with lying(world()) as (liar, person):
        await person.log_in()
        before = person.store.peek()
        liar.lie(ISSUER, revocation_endpoint=None)
        with pytest.raises(ValueError, match="no revocation_endpoint is known"):
            await RefreshAuth(person.another(), person.store).revoke()
        liar.lie(ISSUER, revocation_endpoint="https://10.0.0.1/revoke")
        with pytest.raises(RevocationFailed, match="in a private network"):
            await RefreshAuth(person.another(), person.store).revoke()
        liar.lies[ISSUER] = lambda _: httpx.Response(503)
        with pytest.raises(RevocationFailed, match=r"nothing was sent.*Try again later.*503"):
            await RefreshAuth(person.another(), person.store).revoke()
        assert not any("10.0.0.1" in one or one.endswith("/revoke") for one in liar.asked)
        assert person.store.peek() == before
        liar.lies.clear()
        await RefreshAuth(person.another(), person.store).forget()
    assert person.server.family_revocations == 0
    assert parse(person.store.peek()).token is None


# -- false metadata, and failures --------------------------------------------------------------------------------


class Liar:
    """A server in front of another one that changes its pages."""

    def __init__(self, server: AuthorizationServer) -> None:
        self.server = server
        self.lies: dict[str, Callable[[httpx.Response], httpx.Response]] = {}
        self.asked: list[str] = []
        self.inner = httpx.AsyncClient(transport=server.transport())

    def lie(self, path: str, **fields: Any) -> None:
        """Change fields of the JSON at a path."""
        self.lies[path] = lambda response: httpx.Response(
            response.status_code, json={**response.json(), **fields}
        )

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        if f"{request.url.scheme}://{request.url.netloc.decode()}" != self.server.issuer:
            return httpx.Response(404)
        answer = await self.inner.request(
            request.method, request.url, headers=request.headers, content=request.content
        )
        lie = self.lies.get(request.url.path)
        return answer if lie is None else lie(answer)


@asynccontextmanager
async def lying(server: AuthorizationServer, **options: Any) -> AsyncIterator[tuple[Liar, Person]]:
    liar = Liar(server)
    async with httpx.AsyncClient(transport=httpx.MockTransport(liar)) as client, liar.inner:
        yield liar, Person(server, client, options)


RESOURCE = "/.well-known/oauth-protected-resource/api"
ISSUER = "/.well-known/oauth-authorization-server"
EVIL = "https://evil.test"

LIES = [
    (RESOURCE, {"resource": f"{EVIL}/api"}, "of another resource"),
    (RESOURCE, {"authorization_servers": []}, "names no authorization_servers"),
    (RESOURCE, {"authorization_servers": ["http://evil.test"]}, "must be https"),
    (RESOURCE, {"authorization_servers": ["https://127.0.0.1:1"]}, "on this host"),
    (RESOURCE, {"authorization_servers": ["https://169.254.169.254"]}, "link-local"),
    (RESOURCE, {"authorization_servers": ["urn:x"]}, "must be https"),
    (RESOURCE, {"authorization_servers": [EVIL]}, "serves no metadata|names other auth"),
    (ISSUER, {"issuer": EVIL}, "names another issuer"),
    (ISSUER, {"token_endpoint": "http://evil.test/token"}, "must be https"),
    (ISSUER, {"token_endpoint": "https://10.0.0.1/token"}, "in a private network"),
    (ISSUER, {"token_endpoint": None}, "names no token_endpoint"),
    (ISSUER, {"token_endpoint": "https://localhost/token"}, "on this host"),
]


@pytest.mark.parametrize("path, fields, words", LIES)
async def test_a_login_at_a_server_that_lies_is_not_begun(
    path: str, fields: dict[str, Any], words: str
) -> None:
    async with lying(world()) as (liar, person):
        liar.lie(path, **fields)
        with pytest.raises(LoginFailed, match=words) as caught:
            await person.source.begin_login(person.store, REDIRECT)
        assert "nothing has changed" in str(caught.value)
        assert not any("127.0.0.1" in one or "169.254" in one for one in liar.asked)
    assert person.server.registrations == [] or "token_endpoint" in fields
    assert person.server.token_requests == 0


@pytest.mark.parametrize("path, fields, words", LIES)
async def test_a_refresh_at_a_server_that_lies_sends_nothing_and_loses_nothing(
    path: str, fields: dict[str, Any], words: str
) -> None:
    async with lying(world()) as (liar, person):
        await person.log_in()
        before = person.server.token_requests
        liar.lie(path, **fields)
        auth = RefreshAuth(person.another(), person.store, refresh_timeout=5)
        words += "|names other authorization servers"
        with pytest.raises(RefreshUnavailable, match=words) as caught:
            await auth.refresh()
        assert caught.value.outcome == "not_sent"
        assert person.server.token_requests == before
        liar.lies.clear()
        await auth.refresh()
    assert person.server.rotations == 1
    assert person.server.reuses_detected == 0


async def test_a_server_that_has_moved_to_another_issuer_is_not_shown_the_clients_secret() -> None:
    other = world(issuer="https://other.test")
    async with lying(world(), client_id="by-hand", client_secret="SECRET") as (liar, person):
        await person.log_in()
        liar.lie(RESOURCE, authorization_servers=[other.issuer])
        with pytest.raises(RefreshUnavailable, match=r"names other authorization servers.*other"):
            await RefreshAuth(person.another(), person.store).refresh()
        with pytest.raises(LoginFailed, match=r"registered by hand, and now it names"):
            await person.another().begin_login(person.store, REDIRECT)


async def test_a_chosen_issuer_must_be_one_that_the_server_names() -> None:
    async with at(world(), issuer="https://other.test") as person:
        with pytest.raises(LoginFailed, match="names other authorization servers"):
            await person.source.begin_login(person.store, REDIRECT)
    async with at(world(), issuer="https://server.test") as person:
        await person.log_in()


async def test_a_redirect_from_another_issuer_is_not_redeemed() -> None:
    """RFC 9207: this holds also if the server does not announce that it names itself."""
    async with at(world()) as person:
        login = await person.source.begin_login(person.store, REDIRECT)
        redirect = await person.visit(login)
        for iss in (EVIL, f"{person.server.issuer}/", None):
            with pytest.raises(LoginFailed, match="issuer"):
                await person.source.finish_login(person.store, changed(redirect, iss=iss), login)
        assert person.server.token_requests == 0


async def test_a_server_without_pkce_is_not_used() -> None:
    async with at(world(pkce="unsupported")) as person:
        with pytest.raises(LoginFailed, match="does not support PKCE"):
            await person.source.begin_login(person.store, REDIRECT)


async def test_a_refused_registration_is_said_and_saves_nothing() -> None:
    async with at(world(registration="refused")) as person:
        with pytest.raises(LoginFailed, match=r"invalid_redirect_uri.*--port"):
            await person.source.begin_login(person.store, REDIRECT)
        assert person.store.peek() is None
    async with at(world(registration=None)) as person:
        with pytest.raises(LoginFailed, match="registers no clients by itself"):
            await person.source.begin_login(person.store, REDIRECT)


async def test_a_server_without_metadata_needs_an_issuer() -> None:
    server = world(resource_metadata=False)
    async with at(server) as person:
        with pytest.raises(LoginFailed, match=r"serves no protected resource metadata.*--issuer"):
            await person.source.begin_login(person.store, REDIRECT)
    async with at(server, issuer=server.issuer) as person:
        await person.log_in()
    assert parse_qs(server.token_calls[0].body.decode())["resource"] == [server.mcp_url]


def answering(answer: httpx.Response) -> Callable[[httpx.Request], httpx.Response]:
    return lambda request: httpx.Response(
        answer.status_code, headers=answer.headers, content=answer.content
    )


@pytest.mark.parametrize(
    "answer, words",
    [
        (httpx.Response(307, headers={"location": "?again"}), "serves no protected resource"),
        (httpx.Response(308, headers={"location": "http://127.0.0.1/"}), "serves no protected"),
        (httpx.Response(401, headers={"www-authenticate": "B" * 65_536}), "serves no protected"),
        (
            httpx.Response(
                401,
                headers={"www-authenticate": f'Bearer resource_metadata="{"x" * 65_000}"'},
            ),
            "no address",
        ),
        (
            httpx.Response(
                401, headers={"www-authenticate": 'Bearer resource_metadata="http://10.0.0.1/"'}
            ),
            "must be https",
        ),
        (
            httpx.Response(
                401, headers={"www-authenticate": 'Bearer resource_metadata="https://10.0.0.1/"'}
            ),
            "in a private network",
        ),
        (httpx.Response(200, content=b"x" * 2_000_000), "serves no protected resource metadata"),
    ],
)
async def test_a_server_that_answers_anything_ends_in_a_clear_error(
    answer: httpx.Response, words: str
) -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(answering(answer))) as client:
        source = mcp.Server("https://mcp.example.com/mcp", client=client)
        with pytest.raises(LoginFailed, match=words) as caught:
            await source.begin_login(MemoryStore(), REDIRECT)
        assert len(str(caught.value)) < 70_000


async def test_a_server_that_redirects_to_itself_again_and_again_is_given_up() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(307, headers={"location": f"{request.url.path}/x"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        source = mcp.Server("https://mcp.example.com/mcp", client=client)
        with pytest.raises(LoginFailed, match="redirects again and again"):
            await source.begin_login(MemoryStore(), REDIRECT)
    assert len(asked) == 4


async def test_a_token_of_nobodys_login_is_not_sent_for_nobody() -> None:
    async with at(world()) as person:
        await RefreshAuth(person.source, person.store).set_token(Token("a", "r"))
        with pytest.raises(RefreshUnavailable, match="Nobody knows as which client"):
            await RefreshAuth(person.source, person.store).refresh()
    assert person.server.token_requests == 0


@pytest.mark.parametrize(
    "note",
    [
        5,
        {"issuer": 5, "client_id": "registered-0"},
        {"issuer": "https://server.test", "client_id": 5},
        {},
    ],
    ids=str,
)
async def test_a_token_with_a_damaged_note_is_nobodys(note: Any) -> None:
    async with at(world()) as person:
        token = Token("a", "r", extra={"mcp": note})
        await RefreshAuth(person.source, person.store).set_token(token)
        with pytest.raises(RefreshUnavailable, match="Nobody knows as which client"):
            await RefreshAuth(person.source, person.store).refresh()
    assert person.server.token_requests == 0


async def test_a_token_of_nobodys_login_is_refreshed_as_the_client_that_is_named() -> None:
    async with at(world(), client_id="by-hand", client_secret="SECRET") as person:
        login = person.server.login("by-hand")
        auth = RefreshAuth(person.source, person.store)
        await auth.set_token(Token(login["access_token"], login["refresh_token"]))
        assert (await auth.refresh()).extra["mcp"]["issuer"] == person.server.issuer
    assert person.server.rotations == 1


async def test_a_login_of_a_client_that_was_replaced_meanwhile_is_not_finished() -> None:
    async with at(world()) as person:
        begun = await person.source.begin_login(person.store, REDIRECT)
        redirect = await person.visit(begun)
        await person.another().begin_login(person.store, REDIRECT, register=True)
        with pytest.raises(LoginFailed, match="not registered in the store any more"):
            await person.source.finish_login(person.store, redirect, begun)
    assert person.server.token_requests == 0


async def test_a_server_that_is_down_is_said_to_be_and_may_be_asked_again() -> None:
    def down(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route")

    async with httpx.AsyncClient(transport=httpx.MockTransport(down)) as client:
        source = mcp.Server("https://mcp.example.com/mcp", client=client)
        with pytest.raises(LoginFailed, match="could not be asked who issues") as caught:
            await source.begin_login(MemoryStore(), REDIRECT)
    assert caught.value.transient


async def test_a_callable_that_makes_no_client_is_named() -> None:
    source = mcp.Server("https://mcp.example.com/mcp", client=lambda: None)  # type: ignore[arg-type, return-value]  # on purpose
    with pytest.raises(LoginFailed, match="client= made NoneType"):
        await source.begin_login(MemoryStore(), REDIRECT)


async def test_an_issuer_cannot_rewrite_whose_client_a_token_is_for() -> None:
    async with lying(world()) as (liar, person):
        await person.log_in()
        liar.lie("/token", mcp={"issuer": EVIL, "client_id": "x", "registered": True})
        await RefreshAuth(person.another(), person.store).refresh()
        text = person.store.peek()
        assert text is not None
        assert json.loads(text)["mcp"]["issuer"] == person.server.issuer


async def test_offline_access_is_asked_for_where_the_server_has_it() -> None:
    async with lying(world()) as (liar, person):
        liar.lie(ISSUER, scopes_supported=["read", "offline_access"])
        begun = await person.source.begin_login(person.store, REDIRECT)
    assert parse_qs(urlsplit(begun.url).query)["scope"] == ["read write offline_access"]


async def test_after_a_refresh_that_failed_the_server_is_looked_for_again() -> None:
    async with lying(world()) as (liar, person):
        await person.log_in()
        auth = RefreshAuth(person.source, person.store)
        await auth.refresh()
        liar.asked.clear()
        await auth.refresh()
        assert not any(RESOURCE in one for one in liar.asked)
        person.server.script(LostAnswer())
        with pytest.raises(RefreshUnavailable):
            await auth.refresh()
        assert not any(RESOURCE in one for one in liar.asked)
        await person.source.endpoint(await auth.token())
        assert any(RESOURCE in one for one in liar.asked)


async def test_an_outage_of_the_metadata_passes() -> None:
    async with lying(world()) as (liar, person):
        await person.log_in()
        liar.lies[ISSUER] = lambda _: httpx.Response(503)
        auth = RefreshAuth(person.another(), person.store, refresh_timeout=1)
        with pytest.raises(RefreshUnavailable, match="503") as caught:
            await auth.refresh()
        assert caught.value.outcome == "not_sent"
        liar.lies.clear()
        await auth.refresh()
    assert person.server.rotations == 1


async def test_a_registration_waits_for_a_refresh_that_is_under_way() -> None:
    """While a claim stands, only its owner writes; otherwise the new token could not be saved."""
    async with at(world()) as person:
        await person.log_in()
        gate = Gate()
        person.server.script(Answer(gate=gate))
        auth = RefreshAuth(person.source, person.store)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(auth.refresh)
            await gate.arrived()
            claimed = person.store.peek()

            async def begin() -> None:
                await person.another().begin_login(person.store, REDIRECT, register=True)

            tasks.start_soon(begin)
            while len(person.server.registrations) < 2:
                await anyio.lowlevel.checkpoint()
            assert person.store.peek() == claimed
            gate.release()
        record = parse(person.store.peek())
    assert record.token is not None
    assert record.generation == 2
    assert person.notes()["registrations"][person.server.issuer]["client_id"] == "registered-1"


async def test_a_registration_is_tried_again_where_somebody_else_wrote_first() -> None:
    class Contended(MemoryStore):
        lost = 0

        async def replace(self, old: str | None, new: str) -> bool:
            if not self.lost:
                self.lost += 1
                return False
            return await super().replace(old, new)

    async with at(world()) as person:
        person.store = Contended()
        await person.log_in()
        assert list(person.notes()["registrations"]) == [person.server.issuer]
    assert len(person.server.registrations) == 1


@virtual_time
async def test_a_refresh_that_does_not_end_is_waited_for_no_longer_than_a_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_loop_time(monkeypatch)
    claim = {"by": "another", "nonce": "n", "since": time.time(), "for": 300}
    fields = {"access_token": "a", "refresh_token": "r", "httpx_refresh": {"redeeming": claim}}
    text = json.dumps(fields)
    async with at(world()) as person:
        person.store = MemoryStore(text)
        began = anyio.current_time()
        with pytest.raises(StoreError, match="a refresh stands in the way"):
            await person.source.begin_login(person.store, REDIRECT)
        assert 20 <= anyio.current_time() - began < 21
        assert person.store.peek() == text


async def test_the_challenge_that_leads_to_the_metadata_counts_of_several() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        if request.method == "GET":
            return httpx.Response(404)
        challenges = ['Basic realm="without an end', 'Bearer realm="x"']
        challenges.append('Bearer resource_metadata="https://mcp.example.com/here"')
        return httpx.Response(401, headers=[("www-authenticate", one) for one in challenges])

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        source = mcp.Server("https://mcp.example.com/mcp?key=SECRET", client=client)
        with pytest.raises(LoginFailed, match="no metadata is there") as caught:
            await source.begin_login(MemoryStore(), REDIRECT)
    assert asked[-1] == "https://mcp.example.com/here"
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(404),
        httpx.Response(307, headers={"location": "/mcp/x?key=SECRET"}),
        httpx.Response(
            401, headers={"www-authenticate": 'Bearer resource_metadata="http://10.0.0.1/"'}
        ),
        httpx.Response(200, json={"resource": "https://other.example.com/"}),
        httpx.Response(200, json={"resource": "https://mcp.example.com/"}),
        httpx.Response(503),
    ],
)
async def test_a_key_in_the_servers_address_is_in_no_message(answer: httpx.Response) -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(answering(answer))) as client:
        source = mcp.Server("https://mcp.example.com/mcp?key=SECRET", client=client)
        assert "SECRET" not in repr(source)
        with pytest.raises(LoginFailed) as caught:
            await source.begin_login(MemoryStore(), REDIRECT)
        assert "SECRET" not in str(caught.value)


async def test_an_endpoint_that_is_not_used_is_not_looked_at() -> None:
    async with lying(world()) as (liar, person):
        liar.lie(ISSUER, device_authorization_endpoint="http://10.0.0.1/device")
        await person.log_in()


class Held:
    """The contents of the SDK's `TokenStorage`."""

    class Fields(dict[str, Any]):
        def model_dump(self, **_: Any) -> dict[str, Any]:
            return {**self}

    def __init__(self, token: Token) -> None:
        self.client: Any = token.extra["mcp"]
        self.token: Any = {
            "access_token": token.access_token,
            "refresh_token": token.refresh_token,
        }

    async def get_tokens(self) -> Any:
        return self.token and self.Fields(self.token)

    async def get_client_info(self) -> Any:
        return self.client and self.Fields(self.client)


async def test_of_what_the_sdk_has_not_nothing_is_taken_over() -> None:
    async with at(world()) as person:
        held = Held(await person.log_in())
        store = MemoryStore()
        held.token, client, held.client = None, held.client, None
        assert await mcp.from_token_storage(held, person.another(), store) is None
        assert store.peek() is None
        # A registration without a token: the SDK's own login was given up. It serves the next one.
        held.client = {**client, "redirect_uris": [REDIRECT]}
        assert await mcp.from_token_storage(held, person.another(), store) is None
        begun = await person.another().begin_login(store, REDIRECT)
        assert begun.client_id == client["client_id"]
    assert len(person.server.registrations) == 1


async def test_a_client_that_was_registered_by_hand_takes_over_the_token_alone() -> None:
    async with at(world(), client_id="by-hand", client_secret="SECRET") as person:
        held = Held(await person.log_in())
        person.store = MemoryStore()
        taken = await mcp.from_token_storage(held, person.another(), person.store)
        assert taken is not None
        assert "registrations" not in person.notes()
        await RefreshAuth(person.another(), person.store).refresh()
    assert person.server.rotations == 1


async def test_a_store_that_takes_nothing_ends_the_takeover_with_an_error() -> None:
    class Full(MemoryStore):
        async def replace(self, old: str | None, new: str) -> bool:
            return "access_token" not in new and await super().replace(old, new)

    async with at(world()) as person:
        held = Held(await person.log_in())
        with pytest.raises(StoreError, match="holds another text at each attempt"):
            await mcp.from_token_storage(held, person.another(), Full())


async def test_what_another_process_took_over_and_refreshed_is_not_undone() -> None:
    async with at(world()) as person:
        held = Held(await person.log_in())

        class Racing(MemoryStore):
            raced = False

            async def replace(self, old: str | None, new: str) -> bool:
                if "access_token" in new and not self.raced:
                    self.raced = True  # Another process is faster, and refreshes at once.
                    await mcp.from_token_storage(held, person.another(), self)
                    await RefreshAuth(person.another(), self).refresh()
                return await super().replace(old, new)

        store = Racing()
        taken = await mcp.from_token_storage(held, person.another(), store)
        assert taken is not None
        assert taken.refresh_token != held.token["refresh_token"]
        await RefreshAuth(person.another(), store).refresh()
    assert person.server.rotations == 2
    assert person.server.reuses_detected == 0


@pytest.mark.parametrize(
    "options, words",
    [
        ({"url": "http://mcp.example.com/mcp"}, "must be https"),
        ({"url": "mcp.example.com"}, "must be https"),
        ({"issuer": "http://login.example.com"}, "must be https"),
        ({"client_secret": "s"}, "registered by hand"),
        ({"client_auth": "client_secret_post"}, "client_auth is of a client_id"),
        ({"client_id": "https://a.example/c.json", "client_secret": "s"}, "registered by hand"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(options: dict[str, Any], words: str) -> None:
    url = options.pop("url", "https://mcp.example.com/mcp")
    with pytest.raises(ValueError, match=words):
        mcp.Server(url, **options)


@pytest.mark.parametrize(
    "name", ["client_id", "issuer", "scope", "name", "client_name", "allow_http"]
)
def test_arguments_of_another_type_are_refused(name: str) -> None:
    wrong: Any = {name: 7}
    with pytest.raises(TypeError, match=name):
        mcp.Server("https://mcp.example.com/mcp", **wrong)
