"""Sources without a person: their requests, the meaning of the answers, and that one request serves everybody."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, parse_qsl

import anyio
import httpx
import pytest

from httpx_refresh import (
    FileStore,
    MemoryStore,
    ReauthorizationRequired,
    RefreshAuth,
    RefreshUnavailable,
    StoreError,
    Token,
    TokenEndpoint,
)
from httpx_refresh._refresh.record import parse
from httpx_refresh.grants import ID_TOKEN, ClientCredentials, Grant, JWTBearer, TokenExchange
from httpx_refresh.testing import Answer, AuthorizationServer, LostAnswer, LostRequest, Outage
from tests.fakes import client_of, endpoint_of, loop_wall, use_loop_time
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.anyio


def asked(server: AuthorizationServer) -> list[dict[str, str]]:
    """The token requests as they were sent."""
    return [dict(parse_qsl(call.body.decode())) for call in server.token_calls]


async def ping(server: AuthorizationServer, auth: RefreshAuth, times: int = 1) -> list[int]:
    """Make requests to the API at once; return the statuses."""
    statuses: list[int] = []

    async def one(client: Any) -> None:
        statuses.append((await client.get("/ping")).status_code)

    async with client_of(server, auth=auth) as client, anyio.create_task_group() as group:
        for _ in range(times):
            group.start_soon(one, client)
    return statuses


# -- the beginning -----------------------------------------------------------------------------------------------------


async def test_a_service_starts_from_nothing_with_one_request_for_all_its_callers() -> None:
    server = AuthorizationServer()
    auth = RefreshAuth(ClientCredentials(endpoint_of(server), scope="read"))
    assert await ping(server, auth, 25) == [200] * 25
    assert asked(server) == [{"grant_type": "client_credentials", "scope": "read"}]
    assert server.api_refused == 0


async def test_each_end_of_a_token_costs_one_request() -> None:
    server = AuthorizationServer()
    auth = RefreshAuth(ClientCredentials(endpoint_of(server)))
    for expiries in range(1, 4):
        assert await ping(server, auth, 10) == [200] * 10
        assert server.token_requests == expiries
        server.expire_access_tokens()


async def test_two_processes_with_one_store_share_a_token(tmp_path: Any) -> None:
    server = AuthorizationServer()
    auths = [
        RefreshAuth(ClientCredentials(endpoint_of(server)), FileStore(tmp_path / "token.json"))
        for _ in range(2)
    ]
    for auth in auths:
        assert await ping(server, auth, 3) == [200] * 3
    assert server.token_requests == 1
    server.expire_access_tokens()
    for auth in auths:
        assert await ping(server, auth, 3) == [200] * 3
    assert server.token_requests == 2


async def test_a_forced_refresh_of_nothing_and_of_a_good_token_asks_once_each() -> None:
    server = AuthorizationServer()
    auth = RefreshAuth(ClientCredentials(endpoint_of(server)))
    first = await auth.refresh()
    assert server.token_requests == 1
    assert await auth.refresh() != first
    assert server.token_requests == 2
    assert (await auth.refresh(refused=first)).access_token != first.access_token
    assert server.token_requests == 2


async def test_a_token_about_to_expire_is_replaced_ahead_of_it_while_requests_go_on() -> None:
    server = AuthorizationServer(lifetime=100.0)
    store = MemoryStore()
    source = ClientCredentials(endpoint_of(server))
    assert await ping(server, RefreshAuth(source, store)) == [200]
    record = parse(store.peek())
    assert record.text is not None
    fields = json.loads(record.text)
    fields["expires_at"] -= 99.0
    store = MemoryStore(json.dumps(fields))
    auth = RefreshAuth(source, store)
    assert await ping(server, auth) == [200]
    await auth.aclose()
    assert server.token_requests == 2
    assert parse(store.peek()).generation == 2


@virtual_time
async def test_a_refresh_token_among_client_credentials_is_neither_kept_nor_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_loop_time(monkeypatch)
    server = AuthorizationServer(clock=loop_wall)
    server.token_behaviour = Answer(fields={"refresh_token": "SECRET-r"})
    store = MemoryStore()
    auth = RefreshAuth(ClientCredentials(endpoint_of(server)), store)
    assert (await auth.token()).refresh_token is None
    assert "SECRET-r" not in str(store.peek())
    server.expire_access_tokens()
    assert await ping(server, auth) == [200]
    assert {one["grant_type"] for one in asked(server)} == {"client_credentials"}


async def test_nothing_of_an_earlier_answer_is_kept_beside_the_next_token() -> None:
    server = AuthorizationServer()
    auth = RefreshAuth(ClientCredentials(endpoint_of(server)))
    server.script(Answer(fields={"instance_url": "https://old.test"}))
    assert (await auth.token()).extra["instance_url"] == "https://old.test"
    assert "instance_url" not in (await auth.refresh()).extra


class Vendor:
    """A custom source that declares nothing."""

    origins = "any"
    purpose: str | None = None

    def __init__(self) -> None:
        self.held: list[Token | None] = []

    async def obtain(self, held: Token | None, /) -> Token:
        self.held.append(held)
        return Token(f"a{len(self.held)}", "SECRET-r")


async def test_anything_that_can_obtain_a_token_is_a_source_and_learns_what_was_held() -> None:
    vendor = Vendor()
    auth = RefreshAuth(vendor)
    first = await auth.token()
    assert await auth.refresh() == Token("a2")
    assert (first, vendor.held) == (Token("a1"), [None, Token("a1")])


async def test_that_another_s_token_was_refused_is_no_doubt_of_the_one_that_replaces_it() -> None:
    pause = {"nonce": "n1", "pause": 30.0, "until": time.time() + 30.0}
    refusals = {"early": 0, "futile": 2, "kinds": [], "generation": 3, **pause}
    notes = {"generation": 3, "purpose": "theirs", "refusals": refusals}
    store = MemoryStore(json.dumps({"access_token": "theirs", "httpx_refresh": notes}))
    vendor = Vendor()
    vendor.purpose = "mine"
    assert parse(await store.load()).refusals is not None
    assert await RefreshAuth(vendor, store).token() == Token("a1")
    assert parse(await store.load()).refusals is None


# -- who needs a store -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda endpoint: endpoint, "the refresh token that it spends has to outlive this process"),
        (lambda endpoint: TokenExchange(endpoint, None), "has to outlive this process"),
        (lambda endpoint: ClientCredentials(endpoint, ends_previous=True), "ends the last one"),
        (lambda endpoint: Grant(endpoint, "once", repeatable=False), "cannot be asked for again"),
    ],
)
async def test_who_needs_a_store_is_told_the_line_to_write(
    make: Callable[[TokenEndpoint], Any], words: str
) -> None:
    source = make(endpoint_of(AuthorizationServer()))
    with pytest.raises(TypeError, match=words) as caught:
        RefreshAuth(source)
    assert "RefreshAuth(source, FileStore('token.json'), ...)" in str(caught.value)
    RefreshAuth(source, MemoryStore())


async def test_tokens_that_end_each_other_are_shared_through_the_store() -> None:
    server = AuthorizationServer(grant_ends_previous=True)
    store = MemoryStore()
    auths = [
        RefreshAuth(ClientCredentials(endpoint_of(server), ends_previous=True), store)
        for _ in range(3)
    ]
    for _ in range(3):
        for auth in auths:
            assert await ping(server, auth, 5) == [200] * 5
        server.expire_access_tokens()
    assert server.token_requests == 3


async def test_the_memory_of_one_process_serves_its_forked_children() -> None:
    auth = RefreshAuth(Vendor())
    await auth.token()
    store: Any = auth._session.slot.store
    store._forks -= 1  # As in a child.
    assert await auth.refresh() == Token("a2")


# -- unknown outcomes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "behaviour", [LostAnswer(), LostAnswer(half=True), LostRequest(), Outage(500), Outage(503)]
)
async def test_a_lost_answer_is_asked_for_again_at_once(behaviour: Any) -> None:
    server = AuthorizationServer()
    server.script(behaviour)
    store = MemoryStore()
    auth = RefreshAuth(ClientCredentials(endpoint_of(server)), store)
    assert await ping(server, auth, 5) == [200] * 5
    assert server.token_requests == 2
    record = parse(store.peek())
    assert (record.uncertain, record.failed) == (None, ())


async def test_what_cannot_be_repeated_is_noted_and_not_repeated() -> None:
    server = AuthorizationServer(vendor_grants={"once": {}})
    server.script(LostAnswer())
    store = MemoryStore()
    auth = RefreshAuth(Grant(endpoint_of(server), "once", repeatable=False), store)
    with pytest.raises(RefreshUnavailable) as caught:
        await auth.token()
    assert (caught.value.outcome, server.token_requests) == ("unknown", 1)
    assert parse(store.peek()).uncertain is not None


async def test_a_claim_that_its_owner_left_is_taken_over_without_a_doubt() -> None:
    server = AuthorizationServer()
    left = {"by": "dead:1", "nonce": "n", "since": 1.0, "for": 20.0}
    store = MemoryStore(json.dumps({"httpx_refresh": {"empty": True, "redeeming": left}}))
    auth = RefreshAuth(ClientCredentials(endpoint_of(server)), store)
    assert await ping(server, auth) == [200]
    assert parse(store.peek()).uncertain is None


# -- refusals ----------------------------------------------------------------------------------------------------------


REFUSALS = [
    "invalid_client",
    "invalid_scope",
    "unauthorized_client",
    "invalid_grant",
    "invalid_target",
    "invalid_request",
    "unsupported_grant_type",
]


@pytest.mark.parametrize("error", REFUSALS)
async def test_a_refusal_sends_nobody_to_a_login_and_is_heeded_by_the_fleet(error: str) -> None:
    server = AuthorizationServer()
    server.token_behaviour = Outage(400, body=json.dumps({"error": error}))
    store = MemoryStore()
    auths = [RefreshAuth(ClientCredentials(endpoint_of(server)), store) for _ in range(3)]
    for auth in auths:
        with pytest.raises(RefreshUnavailable, match=error) as caught:
            await auth.token()
        assert caught.value.outcome == "refused"
        assert "refresh token" not in str(caught.value)
    assert server.token_requests == 1


@pytest.mark.parametrize("error", ["consent_required", "interaction_required"])
async def test_a_missing_consent_names_what_an_administrator_must_do(error: str) -> None:
    server = AuthorizationServer()
    server.token_behaviour = Outage(400, body=json.dumps({"error": error}))
    store = MemoryStore()
    auths = [RefreshAuth(ClientCredentials(endpoint_of(server)), store) for _ in range(3)]
    for auth in auths:
        with pytest.raises(ReauthorizationRequired, match="administrator must grant") as caught:
            await auth.token()
        assert "client client" in str(caught.value)
    assert server.token_requests == 1
    (failed,) = parse(store.peek()).failed
    assert failed.person
    assert parse(store.peek()).dead is None


async def test_what_a_server_repeats_of_a_secret_is_not_shown() -> None:
    server = AuthorizationServer()
    said = {"error": "invalid_client", "error_description": "secret SECRET-subject is wrong"}
    server.token_behaviour = Outage(400, body=json.dumps(said))
    auth = RefreshAuth(TokenExchange(endpoint_of(server), "SECRET-subject"))
    with pytest.raises(RefreshUnavailable) as caught:
        await auth.token()
    assert "is wrong" in str(caught.value)
    assert "SECRET-subject" not in str(caught.value)


# -- what a token is for -----------------------------------------------------------------------------------------------


async def test_a_deployed_change_of_scope_does_not_go_on_with_the_old_token() -> None:
    server = AuthorizationServer()
    store = MemoryStore()
    old = RefreshAuth(ClientCredentials(endpoint_of(server), scope="read"), store)
    new = RefreshAuth(ClientCredentials(endpoint_of(server), scope="read write"), store)
    assert await ping(server, old) == [200]
    assert await ping(server, new, 5) == [200] * 5
    assert [one["scope"] for one in asked(server)] == ["read", "read write"]
    assert (await new.token()).extra["scope"] == "read write"
    # The same words in another order are the same.
    again = RefreshAuth(ClientCredentials(endpoint_of(server), scope=["write", "read"]), store)
    assert await ping(server, again) == [200]
    assert server.token_requests == 2


async def test_a_text_that_does_not_say_what_it_is_for_is_adopted() -> None:
    server = AuthorizationServer()
    response = server.login()
    del response["refresh_token"]
    store = MemoryStore(json.dumps(response))
    auth = RefreshAuth(ClientCredentials(endpoint_of(server), scope="read"), store)
    assert await ping(server, auth) == [200]
    assert server.token_requests == 0
    server.expire_access_tokens()
    assert await ping(server, auth) == [200]
    assert str(parse(store.peek()).purpose).startswith(
        "client_credentials at https://server.test/token"
    )


async def test_a_person_s_grant_is_not_spent_on_what_another_source_left_and_says_both() -> None:
    server = AuthorizationServer(clients={"one": "1", "two": "2"})
    store = MemoryStore()
    await RefreshAuth(endpoint_of(server), store).set_token(Token.from_response(server.login()))
    before = store.peek()
    other = TokenEndpoint(server.token_url, "two", "2", origins="any")
    with pytest.raises(StoreError) as caught:
        await RefreshAuth(other, store).token()
    assert "login at https://server.test/token, client one [" in str(caught.value)
    assert "login at https://server.test/token, client two [" in str(caught.value)
    assert (store.peek(), server.token_requests) == (before, 0)
    # A login confirms the change.
    await RefreshAuth(other, store).set_token(Token("a", "r"))
    assert await RefreshAuth(other, store).token() == Token("a", "r")


async def test_a_service_s_token_does_not_take_the_place_of_a_person_s_login() -> None:
    server = AuthorizationServer()
    store = MemoryStore()
    await RefreshAuth(endpoint_of(server), store).set_token(Token.from_response(server.login()))
    before = store.peek()
    auth = RefreshAuth(ClientCredentials(endpoint_of(server)), store)
    with pytest.raises(StoreError, match="client_credentials at"):
        await auth.token()
    assert (store.peek(), server.token_requests) == (before, 0)


async def test_a_stale_secret_of_a_callable_does_not_bind_who_has_read_the_good_one() -> None:
    server = AuthorizationServer()
    store = MemoryStore()

    def service(secret: Callable[[], str]) -> RefreshAuth:
        endpoint = TokenEndpoint(
            server.token_url, "client", secret, client=lambda: client_of(server), origins="any"
        )
        return RefreshAuth(ClientCredentials(endpoint), store)

    held = ["stale"]
    stale, good = service(lambda: held[0]), service(lambda: "secret")
    with pytest.raises(RefreshUnavailable, match="invalid_client"):
        await stale.token()
    (failed,) = parse(store.peek()).failed
    assert failed.client == TokenEndpoint(server.token_url, "client", "stale").client_fingerprint
    assert (await good.token()).access_token
    assert server.token_requests == 2
    # The refused one pauses, and reads the new secret when the pause ends.
    with pytest.raises(RefreshUnavailable, match="invalid_client"):
        await stale.refresh()
    held[0] = "secret"
    await stale.refresh()
    assert server.token_requests == 4


# -- saving ------------------------------------------------------------------------------------------------------------


class ReadOnly(MemoryStore):
    """From some moment on it refuses every text with a new token."""

    full = True

    async def load(self) -> str | None:
        return await super().load()

    async def replace(self, old: str | None, new: str) -> bool:
        if self.full and parse(new).token is not None:
            raise OSError("the disk is full")
        return await super().replace(old, new)


async def test_a_save_that_fails_costs_no_caller_anything_and_asks_nobody_to_log_in(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = AuthorizationServer()
    handed: list[Token] = []
    store = ReadOnly()
    auth = RefreshAuth(
        ClientCredentials(endpoint_of(server)), store, on_unsaved=handed.append, refresh_timeout=0.2
    )
    assert await ping(server, auth, 5) == [200] * 5
    store.full = False
    await auth.aclose()
    assert parse(store.peek()).token is not None
    assert (server.token_requests, handed) == (1, [])
    said = [record.getMessage() for record in caplog.records]
    assert any("could not be saved" in one for one in said)
    assert not any("log in" in one for one in said)
    assert max(record.levelname for record in caplog.records) == "WARNING"


# -- token exchange ----------------------------------------------------------------------------------------------------


async def test_a_token_is_exchanged_for_another() -> None:
    server = AuthorizationServer(subject_tokens=["SECRET-s"])
    source = TokenExchange(
        endpoint_of(server),
        "SECRET-s",
        subject_token_type=ID_TOKEN,
        actor_token="SECRET-s",
        actor_token_type=ID_TOKEN,
        scope="read",
        audience=["x", "y"],
        resource="https://api.test",
    )
    token = await RefreshAuth(source).token()
    assert token.extra["issued_token_type"].endswith("access_token")
    form = parse_qs(server.token_calls[0].body.decode())
    assert form == {
        "grant_type": ["urn:ietf:params:oauth:grant-type:token-exchange"],
        "subject_token": ["SECRET-s"],
        "subject_token_type": [ID_TOKEN],
        "actor_token": ["SECRET-s"],
        "actor_token_type": [ID_TOKEN],
        "scope": ["read"],
        "audience": ["x", "y"],
        "resource": ["https://api.test"],
    }


@virtual_time
async def test_an_exchange_starts_and_then_refreshes_with_the_rules_of_rotation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_loop_time(monkeypatch)
    server = AuthorizationServer(
        subject_tokens=["SECRET-s"], exchange_is_refreshable=True, clock=loop_wall
    )
    store = MemoryStore()
    web = RefreshAuth(TokenExchange(endpoint_of(server), "SECRET-s"), store)
    with pytest.raises(ReauthorizationRequired, match="holds no token"):
        await RefreshAuth(TokenExchange(endpoint_of(server), None), store).token()
    worker = RefreshAuth(TokenExchange(endpoint_of(server), None), store)
    assert await ping(server, web) == [200]
    server.expire_access_tokens()
    assert await ping(server, worker, 5) == [200] * 5
    server.script(LostAnswer())
    server.expire_access_tokens()
    with pytest.raises(RefreshUnavailable) as caught:
        await worker.refresh(refused=await worker.token())
    assert caught.value.outcome == "unknown"
    assert parse(store.peek()).uncertain is not None
    kinds = [one["grant_type"].rpartition(":")[2] for one in asked(server)]
    assert kinds == ["token-exchange", "refresh_token", "refresh_token"]


async def test_an_exchange_whose_refresh_token_is_dead_starts_anew_if_it_can() -> None:
    server = AuthorizationServer(subject_tokens=["SECRET-s"], exchange_is_refreshable=True)
    store = MemoryStore()
    web = RefreshAuth(TokenExchange(endpoint_of(server), "SECRET-s"), store)
    worker = RefreshAuth(TokenExchange(endpoint_of(server), None), store)
    assert await ping(server, web) == [200]
    server.revoke_family()
    with pytest.raises(ReauthorizationRequired):
        await worker.refresh()
    assert await ping(server, web, 5) == [200] * 5
    kinds = [one["grant_type"].rpartition(":")[2] for one in asked(server)]
    assert kinds == ["token-exchange", "refresh_token", "token-exchange"]
    server.revoke_family()
    await web.refresh()
    kinds = [one["grant_type"].rpartition(":")[2] for one in asked(server)][3:]
    assert kinds == ["refresh_token", "token-exchange"]


async def test_a_token_that_is_no_access_token_is_taken_as_it_is() -> None:
    server = AuthorizationServer(subject_tokens=["SECRET-s"])
    source = TokenExchange(endpoint_of(server), "SECRET-s", requested_token_type=ID_TOKEN)
    token = await RefreshAuth(source).token()
    assert token.token_type == "N_A"
    assert await ping(server, RefreshAuth(source)) == [200]


async def test_a_bad_subject_token_is_refused_and_says_so() -> None:
    server = AuthorizationServer()
    auth = RefreshAuth(TokenExchange(endpoint_of(server), "SECRET-s"))
    with pytest.raises(RefreshUnavailable, match=r"invalid_request.*subject") as caught:
        await auth.token()
    assert caught.value.outcome == "refused"


async def test_an_unknown_target_is_refused_and_says_so() -> None:
    server = AuthorizationServer(targets=["https://api.test"])
    auth = RefreshAuth(ClientCredentials(endpoint_of(server), resource="https://other.test"))
    with pytest.raises(RefreshUnavailable, match=r"invalid_target.*Check resource and audience"):
        await auth.token()


async def test_the_subject_token_may_be_another_auth_s_or_read_from_a_file(tmp_path: Any) -> None:
    server = AuthorizationServer()
    person = RefreshAuth(endpoint_of(server), MemoryStore(json.dumps(server.login())))
    assert await ping(server, RefreshAuth(TokenExchange(endpoint_of(server), person))) == [200]
    projected = tmp_path / "token"
    projected.write_text(f"{(await person.token()).access_token}\n")
    file = TokenExchange(endpoint_of(server), projected.read_text)
    assert await ping(server, RefreshAuth(file)) == [200]

    async def read() -> Token:
        return await person.token()

    assert await ping(server, RefreshAuth(TokenExchange(endpoint_of(server), read))) == [200]
    sent = {one["subject_token"] for one in asked(server)}
    assert sent == {(await person.token()).access_token}


def _raises() -> str:
    raise FileNotFoundError(2, "No such file or directory", "/run/SECRET")


async def _needs_login() -> Token:
    raise ReauthorizationRequired("X holds no token. Log in.")


@pytest.mark.parametrize(
    "subject, words",
    [
        (_raises, "FileNotFoundError: No such file or directory"),
        (lambda: " \n", "it is empty"),
        (lambda: 7, "it is int"),
        (lambda: "SECRET\ud800", "not text that can be encoded as UTF-8"),
        (_needs_login, "X holds no token. Log in."),
    ],
)
async def test_a_subject_token_that_cannot_be_had_names_the_argument_and_sends_nothing(
    subject: Any, words: str
) -> None:
    server = AuthorizationServer()
    store = MemoryStore()
    auth = RefreshAuth(TokenExchange(endpoint_of(server), subject), store)
    with pytest.raises(RefreshUnavailable, match="subject_token could not be had") as caught:
        await auth.token()
    assert words in str(caught.value)
    assert "SECRET" not in f"{caught.value} {caught.value.caused_by}"
    assert (caught.value.outcome, server.token_requests) == ("not_sent", 0)
    assert parse(store.peek()).failed == ()


# -- vendors' grants ---------------------------------------------------------------------------------------------------


async def test_a_vendor_s_grant_is_asked_with_its_parameters() -> None:
    server = AuthorizationServer(vendor_grants={"account_credentials": {"account_id": "7"}})
    source = Grant(endpoint_of(server), "account_credentials", {"account_id": "7"}, subject="7")
    assert await ping(server, RefreshAuth(source)) == [200]

    async def params() -> dict[str, str]:
        return {"account_id": "7"}

    assert await ping(
        server, RefreshAuth(Grant(endpoint_of(server), "account_credentials", params))
    ) == [200]
    wrong = Grant(endpoint_of(server), "account_credentials", lambda: {"account_id": "8"})
    with pytest.raises(RefreshUnavailable, match="invalid_request"):
        await RefreshAuth(wrong).token()


@pytest.mark.parametrize(
    "params, words",
    [
        (_raises, "FileNotFoundError"),
        (lambda: 7, "it is int"),
        (lambda: {"client_id": "SECRET"}, "'client_id'"),
    ],
)
async def test_parameters_that_cannot_be_had_send_nothing(params: Any, words: str) -> None:
    server = AuthorizationServer()
    with pytest.raises(RefreshUnavailable, match="params could not be had") as caught:
        await RefreshAuth(Grant(endpoint_of(server), "x", params)).token()
    assert words in str(caught.value)
    assert "SECRET" not in str(caught.value)
    assert (caught.value.outcome, server.token_requests) == ("not_sent", 0)


async def test_a_closed_client_is_no_outage_and_nothing_is_asked() -> None:
    server = AuthorizationServer()
    client = httpx.AsyncClient(transport=server.transport())
    await client.aclose()
    endpoint = TokenEndpoint(server.token_url, "client", "secret", client=client, origins="any")
    with pytest.raises(RefreshUnavailable, match=r"is closed.*Check what is") as e:
        await RefreshAuth(ClientCredentials(endpoint)).token()
    assert (e.value.outcome, e.value.transient, server.token_requests) == ("not_sent", False, 0)


async def test_a_token_without_a_person_is_revoked_like_any_other() -> None:
    server = AuthorizationServer()
    endpoint = endpoint_of(server, revocation_endpoint=f"{server.issuer}/revoke")
    auth = RefreshAuth(ClientCredentials(endpoint))
    held = await auth.token()
    assert await auth.revoke()
    headers = {"Authorization": f"Bearer {held.access_token}"}
    async with client_of(server) as client:
        assert (await client.get("/ping", headers=headers)).status_code == 401
    assert (await auth.token()).access_token != held.access_token


# -- arguments ---------------------------------------------------------------------------------------------------------


ENDPOINT = TokenEndpoint("https://auth.test/token", "me", "SECRET", origins="any")
PUBLIC = TokenEndpoint("https://auth.test/token", "me", origins="any")


BAD: Any = 7
"""An argument of a type that none may be of."""


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda: ClientCredentials(BAD), TypeError, "endpoint must be a TokenEndpoint"),
        (lambda: ClientCredentials(PUBLIC), ValueError, "client_secret, or a key"),
        (lambda: ClientCredentials(ENDPOINT, scope=""), ValueError, "scope must not be empty"),
        (lambda: ClientCredentials(ENDPOINT, scope=[]), ValueError, "scope must not be empty"),
        (lambda: ClientCredentials(ENDPOINT, scope=" "), ValueError, "scope must not be empty"),
        (lambda: ClientCredentials(ENDPOINT, scope=BAD), TypeError, "scope must be a str"),
        (lambda: ClientCredentials(ENDPOINT, resource="/x"), ValueError, "absolute URI"),
        (lambda: ClientCredentials(ENDPOINT, resource="https://x#y"), ValueError, "absolute URI"),
        (lambda: ClientCredentials(ENDPOINT, audience=""), ValueError, "audience must not be"),
        (lambda: ClientCredentials(ENDPOINT, params={"client_id": "x"}), ValueError, "params"),
        (
            lambda: ClientCredentials(ENDPOINT, scope="a", params={"scope": "b"}),
            ValueError,
            "argument of its own",
        ),
        (lambda: ClientCredentials(ENDPOINT, ends_previous=BAD), TypeError, "ends_previous"),
        (lambda: TokenExchange(ENDPOINT, ""), ValueError, "subject_token must not be empty"),
        (lambda: TokenExchange(ENDPOINT, BAD), TypeError, "subject_token must be"),
        (
            lambda: TokenExchange(ENDPOINT, "x", subject_token_type=""),
            ValueError,
            "subject_token_type",
        ),
        (lambda: TokenExchange(ENDPOINT, "x", actor_token="y"), ValueError, "go together"),
        (
            lambda: TokenExchange(ENDPOINT, "x", actor_token_type=ID_TOKEN),
            ValueError,
            "go together",
        ),
        (lambda: Grant(ENDPOINT, ""), ValueError, "grant_type must not be empty"),
        (lambda: Grant(ENDPOINT, BAD), TypeError, "grant_type must be a str"),
        (lambda: Grant(ENDPOINT, "\ud800"), ValueError, "grant_type must be text that can be"),
        (lambda: JWTBearer(ENDPOINT, "x", claims=BAD), TypeError, "claims must be a mapping"),
        (lambda: Grant(ENDPOINT, "refresh_token"), ValueError, "TokenEndpoint is one"),
        (lambda: Grant(ENDPOINT, "x", {"a": BAD}), TypeError, "params must be"),
        (lambda: Grant(ENDPOINT, "x", repeatable=BAD), TypeError, "repeatable"),
    ],
)
async def test_what_cannot_be_meant_is_an_error_at_once(
    make: Callable[[], Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        make()


async def test_nothing_of_a_source_shows_a_secret() -> None:
    for source in (
        ClientCredentials(ENDPOINT, params={"x": "SECRET"}),
        TokenExchange(ENDPOINT, "SECRET"),
        Grant(ENDPOINT, "x", {"password": "SECRET"}, subject="SECRET"),
    ):
        assert "SECRET" not in f"{source!r} {source.purpose} {RefreshAuth(source)!r}"


async def test_two_versions_of_a_service_that_end_each_other_s_tokens_pause() -> None:
    server = AuthorizationServer(grant_ends_previous=True)
    store = MemoryStore()
    auths = [
        RefreshAuth(ClientCredentials(endpoint_of(server), scope=scope, ends_previous=True), store)
        for scope in ("read", "read write")
    ]
    for _ in range(3):
        for auth in auths:
            assert await ping(server, auth) == [200]
    assert server.token_requests == 6
    refusals = parse(store.peek()).refusals
    assert refusals is not None
    assert refusals.early == 4  # The first token of each did not follow a refusal.
    assert refusals.pause.seconds > 0
