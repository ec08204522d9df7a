"""Revocation: a token is revoked at the server and then removed from the store, for all processes."""

from __future__ import annotations

import threading
import traceback
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from httpx_refresh import (
    MemoryStore,
    ReauthorizationRequired,
    RefreshAuth,
    RefreshAuthError,
    RefreshUnavailable,
    RevocationFailed,
    StoreError,
    Token,
    TokenEndpoint,
)
from httpx_refresh._refresh.record import write
from httpx_refresh.events import Event, Refreshed
from httpx_refresh.testing import AuthorizationServer, Gate
from tests.fakes import (
    Api,
    Endpoint,
    Store,
    any_write,
    auth_of,
    client_of,
    endpoint_of,
    loop_wall,
)
from tests.virtual_time import virtual_time


class Revoking(Endpoint):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.revoked: list[str | None] = []
        self.failure: Exception | None = None

    async def revoke(self, token: Token) -> None:
        self.revoked.append(token.refresh_token)
        if self.failure is not None:
            raise self.failure


@pytest.mark.anyio
async def test_a_revoked_token_is_revoked_at_the_server_and_gone_from_the_store() -> None:
    server = AuthorizationServer()
    store = Store(None)
    endpoint = endpoint_of(server, revocation_endpoint=f"{server.issuer}/revoke")
    auth = RefreshAuth(endpoint, store)
    await auth.set_token(Token.from_response(server.login()))
    async with client_of(server, auth=auth) as client:
        assert (await client.get("/ping")).status_code == 200
        assert await auth.revoke() is True
        assert store.record.token is None
        assert store.record.revoked is not None
        asked = server.stats()["api_requests"]
        with pytest.raises(ReauthorizationRequired, match="was revoked"):
            await client.get("/ping")
        assert server.stats()["api_requests"] == asked
        assert await auth.revoke() is False  # There is no token any more.
        await auth.set_token(Token.from_response(server.login()))
        assert (await client.get("/ping")).status_code == 200
    assert server.family_revocations == 1


@pytest.mark.anyio
async def test_a_refresh_under_way_is_waited_for_and_what_it_brings_is_revoked() -> None:
    endpoint = Revoking()
    endpoint.gate = Gate()
    store = Store(endpoint.text(expires_in=-1))
    auth, other = RefreshAuth(endpoint, store), RefreshAuth(endpoint, store)
    async with anyio.create_task_group() as group:
        group.start_soon(other.token)
        await endpoint.gate.arrived()
        group.start_soon(auth.revoke)
        await anyio.wait_all_tasks_blocked()
        assert endpoint.revoked == []
        endpoint.gate.release()
    assert endpoint.revoked == ["SECRET-r1"]
    assert store.record.token is None


@pytest.mark.anyio
async def test_a_refresh_that_lands_after_its_token_was_revoked_puts_it_to_no_use() -> None:
    """The token is in the store before the refresh ends, because callbacks are called in between."""
    endpoint = Revoking()
    store = Store(endpoint.text(expires_in=-1))
    told = threading.Event()

    def on_event(event: Event) -> None:
        if isinstance(event, Refreshed):
            told.wait(60)

    auth = RefreshAuth(endpoint, store, on_event=on_event)
    failures: list[RefreshAuthError] = []

    async def refresh() -> None:
        try:
            await auth.token()
        except ReauthorizationRequired as error:
            failures.append(error)

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(refresh)
            with anyio.fail_after(60):
                while "SECRET-r1" not in (await store.load() or ""):
                    await anyio.lowlevel.checkpoint()
            await auth.revoke()
    finally:
        told.set()
    with pytest.raises(ReauthorizationRequired, match="was revoked"):
        await auth.token()
    assert endpoint.revoked == ["SECRET-r1"]
    assert len(failures) <= 1  # On a slow machine the refresh may have ended before.


@pytest.mark.anyio
async def test_a_note_that_is_written_meanwhile_has_no_token_revoked_twice() -> None:
    endpoint = Revoking()
    store = Store(endpoint.text())
    auth = RefreshAuth(endpoint, store)

    async def revoke(token: Token) -> None:
        endpoint.revoked.append(token.refresh_token)
        record = store.record
        assert await store.replace(record.text, write(record._replace(issued=1.0), rev="n"))

    endpoint.revoke = revoke  # type: ignore[method-assign]  # this one writes a note meanwhile
    assert await auth.revoke() is True
    assert endpoint.revoked == ["SECRET-r0"]
    assert store.record.token is None


@pytest.mark.anyio
async def test_what_the_server_did_not_confirm_stays_in_the_store() -> None:
    endpoint = Revoking()
    store = Store(endpoint.text())
    auth = RefreshAuth(endpoint, store)
    for failure, message in (
        (RevocationFailed("not now"), "not now"),
        (OSError("SECRET"), "did not confirm"),
    ):
        endpoint.failure = failure
        with pytest.raises(RevocationFailed, match=message) as raised:
            await auth.revoke()
        assert "SECRET" not in str(raised.value)
        assert store.record.token is not None
    endpoint.failure, store.fails = None, any_write
    with pytest.raises(StoreError):
        await auth.revoke()
    assert (await auth.token()).access_token == "SECRET-a0"


@pytest.mark.anyio
async def test_a_server_that_does_not_answer_holds_nobody_for_ever() -> None:
    endpoint = Revoking()

    async def hangs(_: Token) -> None:
        await anyio.sleep_forever()

    endpoint.revoke = hangs  # type: ignore[method-assign,assignment]  # it hangs
    auth = RefreshAuth(endpoint, Store(endpoint.text()), refresh_timeout=0.05)
    with pytest.raises(RevocationFailed, match="no answer within"):
        await auth.revoke()


@virtual_time
@pytest.mark.anyio
async def test_a_claim_that_stands_holds_nobody_who_revokes_longer_than_other_callers(
    loop_time: None,
) -> None:
    endpoint = Revoking(clock=loop_wall)
    claim = {"by": "elsewhere:1", "nonce": "n1", "since": loop_wall(), "for": 300.0}
    auth = RefreshAuth(endpoint, Store(endpoint.text(redeeming=claim)), refresh_timeout=10.0)
    before = anyio.current_time()
    with pytest.raises(RefreshUnavailable, match="after 20 s"):
        await auth.revoke()
    assert anyio.current_time() - before < 22
    assert endpoint.revoked == []


@virtual_time
@pytest.mark.anyio
async def test_a_store_that_never_takes_it_holds_nobody_who_forgets_a_token_for_ever(
    loop_time: None,
) -> None:
    class Never(Store):
        async def replace(self, old: str | None, new: str) -> bool:
            await anyio.sleep(0.1)
            return False

    auth = RefreshAuth(Endpoint(), Never(Endpoint().text()), refresh_timeout=10.0)
    with anyio.fail_after(40), pytest.raises(StoreError, match="another text at each attempt"):
        await auth.forget()


@pytest.mark.anyio
async def test_no_frame_of_a_failed_revocation_holds_the_token() -> None:
    endpoint = Revoking()
    endpoint.failure = RevocationFailed("not now")
    auth = RefreshAuth(endpoint, Store(endpoint.text()))
    with pytest.raises(RevocationFailed) as caught:
        await auth.revoke()
    ours = [
        frame
        for frame, _ in traceback.walk_tb(caught.value.__traceback__)
        if "httpx_refresh" in frame.f_globals["__name__"]
    ]
    assert ours
    assert "SECRET" not in "".join(repr(frame.f_locals) for frame in ours)


@pytest.mark.anyio
async def test_a_source_that_cannot_revoke_says_so_and_its_token_can_be_forgotten() -> None:
    endpoint = Endpoint()
    store = Store(endpoint.text())
    auth = RefreshAuth(endpoint, store)
    with pytest.raises(TypeError, match="no method revoke"):
        await auth.revoke()
    assert store.record.token is not None
    await auth.forget()
    assert store.record.token is None
    unknown = TokenEndpoint("https://as.test/token", "id", origins="any")
    with pytest.raises(ValueError, match="no revocation_endpoint"):
        await RefreshAuth(unknown, MemoryStore(endpoint.text())).revoke()


@pytest.mark.anyio
async def test_a_dead_grant_is_not_revoked_and_a_cancelled_caller_stops_nothing() -> None:
    endpoint = Revoking()
    endpoint.always = ReauthorizationRequired("no", error="invalid_grant")
    store = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store)
    with pytest.raises(ReauthorizationRequired):
        await auth.token()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await auth.revoke()
    with anyio.fail_after(30):
        while store.record.token is not None:
            await anyio.lowlevel.checkpoint()
    assert endpoint.revoked == []


def test_sync_code_revokes_and_forgets() -> None:
    endpoint = Revoking()
    auth = RefreshAuth(endpoint, MemoryStore(endpoint.text()))
    assert auth.sync.token().access_token == "SECRET-a0"
    assert auth.sync.revoke() is True
    with pytest.raises(ReauthorizationRequired):
        auth.sync.token()
    auth.sync.set_token(endpoint.current)
    auth.sync.forget()
    assert endpoint.revoked == ["SECRET-r0"]


# -- unauthorized="return" ---------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_api_s_own_401_is_returned_whole_where_there_is_no_good_token() -> None:
    server = AuthorizationServer()
    auth = auth_of(server, unauthorized="return")
    async with client_of(server, auth=auth) as client:
        server.revoke_family()
        response = await client.get("/ping")
        assert response.status_code == 401
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert len(response.content) == int(response.headers["content-length"])
        async with client.stream("GET", "/ping") as streamed:
            assert await streamed.aread() == response.content


@pytest.mark.anyio
async def test_an_expired_token_that_cannot_be_renewed_goes_out_and_the_api_says_so() -> None:
    now = [1_000_000.0]
    endpoint = Endpoint(clock=lambda: now[0])
    api = Api(lambda _: False)
    auth = RefreshAuth(endpoint, MemoryStore(endpoint.text()), unauthorized="return")
    endpoint.always = ReauthorizationRequired("no", error="invalid_grant")
    async with api.client(auth) as client:
        assert (await client.get("/")).status_code == 401
        known = auth._session.credential
        assert known is not None
        past = type(known)(
            **{name: getattr(known, name) for name in known.__slots__}
            | {"expires_at": 1.0, "renew_at": 0.0}
        )
        auth._session.credential = past
        assert (await client.get("/")).status_code == 401
        assert api.seen == ["SECRET-a0"] * 2  # Sent once, and not a second time.
    with pytest.raises(ReauthorizationRequired):  # There is nothing to send.
        async with api.client(
            RefreshAuth(endpoint, MemoryStore(), unauthorized="return")
        ) as client:
            await client.get("/")


@pytest.mark.anyio
async def test_a_body_that_cannot_be_sent_again_returns_the_401_too() -> None:
    server = AuthorizationServer()
    auth = auth_of(server, replay_limit=1, unauthorized="return")
    server.expire_access_tokens()

    async def body() -> AsyncIterator[bytes]:
        yield b"long"

    async with client_of(server, auth=auth) as client:
        assert (await client.post("/echo", content=body())).status_code == 401
        assert (server.api_requests, server.token_requests) == (1, 1)
        assert (await client.post("/echo", content=body())).status_code == 200


def test_what_unauthorized_may_be() -> None:
    with pytest.raises(ValueError, match="unauthorized must be"):
        RefreshAuth(Endpoint(), MemoryStore(), unauthorized="ignore")  # type: ignore[call-overload]  # that is the test


@pytest.mark.anyio
async def test_a_first_token_that_is_under_way_is_waited_for_and_revoked() -> None:
    class Service:
        origins = "any"

        def __init__(self) -> None:
            self.gate = Gate()
            self.revoked: list[str] = []

        async def obtain(self, _: Token | None, /) -> Token:
            await self.gate.hold()
            return Token("t1")

        async def revoke(self, token: Token) -> None:
            self.revoked.append(token.access_token)

    service, store = Service(), Store(None)
    auth = RefreshAuth(service, store)
    answers: list[bool] = []

    async def revoke() -> None:
        answers.append(await auth.revoke())

    async with anyio.create_task_group() as group:
        group.start_soon(auth.token)
        await service.gate.arrived()
        loads = store.loads
        group.start_soon(revoke)
        while store.loads < loads + 2:
            await anyio.lowlevel.checkpoint()
        assert answers == []
        service.gate.release()
    assert answers == [True]
    assert service.revoked == ["t1"]
    assert store.record.token is None
