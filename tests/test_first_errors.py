"""The mistakes of the first five minutes: each message names the next step."""

from __future__ import annotations

import copy
import json
import pickle
import re
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import anyio
import httpx
import pytest
from redis.asyncio import Redis

import httpx_refresh
from httpx_refresh import (
    FileStore,
    MemoryStore,
    ReauthorizationRequired,
    RefreshAuth,
    StoreError,
    TokenEndpoint,
    open_store,
)
from httpx_refresh.providers import xero
from httpx_refresh.stores.encrypted import EncryptedStore
from httpx_refresh.stores.redis import RedisStore
from httpx_refresh.testing import AuthorizationServer

A_TOKEN = json.dumps({"access_token": "access", "refresh_token": "refresh"})


MARK = "SECRET-0123456789"


class ReturnsDict:
    async def load(self) -> Any:
        return {"access_token": "SECRET"}

    async def replace(self, old: str | None, new: str) -> bool:
        return True


class SyncLoad:
    def load(self) -> str | None:
        return A_TOKEN

    def replace(self, old: str | None, new: str) -> bool:
        return True


class SyncReplace(ReturnsDict):
    async def load(self) -> str | None:
        return A_TOKEN

    def replace(self, old: str | None, new: str) -> Any:
        return True


async def failure(store: Any, callers: int = 1) -> list[BaseException]:
    """Return the result of one request with this store, for each kind of caller."""
    server, errors = AuthorizationServer(), list[BaseException]()

    async def caller(client: httpx.AsyncClient) -> None:
        try:
            await client.get(f"{server.api_url}/x")
        except Exception as error:
            errors.append(error)

    async with httpx.AsyncClient(transport=server.transport()) as asking:
        endpoint = TokenEndpoint(
            server.token_url, server.client_id, server.client_secret, client=asking
        )
        auth = RefreshAuth(endpoint, store, origins="any")
        async with (
            httpx.AsyncClient(transport=server.transport(), auth=auth) as client,
            anyio.create_task_group() as group,
        ):
            for _ in range(callers):
                group.start_soon(caller, client)
    return errors


@pytest.mark.anyio
@pytest.mark.parametrize(
    "store, says",
    [
        (ReturnsDict(), "load() returned an object of type dict. It must return the stored text"),
        (SyncLoad(), "load() is no `async def`"),
        (SyncReplace(), "replace() is no `async def`"),
        (FileStore("/no/such/dir/x.json"), "No such file or directory: '/no/such/dir'"),
    ],
)
async def test_a_store_that_cannot_work_is_told_what_to_change(store: Any, says: str) -> None:
    (error,) = await failure(store)
    assert isinstance(error, StoreError)
    assert says in str(error)
    assert "SECRET" not in str(error)


@pytest.mark.anyio
async def test_a_store_without_a_token_names_the_command_of_the_first_login() -> None:
    (error,) = await failure(MemoryStore())
    assert isinstance(error, ReauthorizationRequired)
    assert "`httpx-refresh login`" in str(error)
    assert "again" not in str(error)


@pytest.mark.anyio
async def test_a_waiter_sees_the_message_once_under_its_public_name() -> None:
    errors = await failure(MemoryStore(A_TOKEN), callers=3)
    assert len(errors) == 3
    for error in errors:
        shown = "".join(traceback.format_exception(error))
        assert shown.count("for good") == 1
        assert "\nhttpx_refresh.ReauthorizationRequired: " in shown


def test_every_error_has_its_public_name_and_can_be_pickled() -> None:
    errors = [
        one
        for one in (getattr(httpx_refresh, name) for name in httpx_refresh.__all__)
        if isinstance(one, type) and issubclass(one, Exception)
    ]
    assert len(errors) == 9
    for error in errors:
        assert error.__module__ == "httpx_refresh"
        other = pickle.loads(pickle.dumps(error("why")))  # noqa: S301 - our own
        assert type(other) is error


@pytest.mark.parametrize("error", [httpx_refresh.BodyNotReplayable, httpx_refresh.StepUpRequired])
def test_an_error_with_a_response_is_pickled_without_the_token_that_was_sent(error: Any) -> None:
    """A task queue sends errors to other hosts, and keeps them."""
    request = httpx.Request("GET", "https://api.test", headers={"Authorization": "Bearer SECRET"})
    response = httpx.Response(401, request=request, content=b"")
    sent = pickle.dumps(error("why", response=response))
    assert b"SECRET" not in sent
    assert pickle.loads(sent).response is None  # noqa: S301 - our own


def test_a_copy_of_an_auth_object_is_that_object_and_it_is_not_pickled() -> None:
    """Settings classes copy their defaults; and a process that is spawned pickles what it is given."""
    auth = RefreshAuth(TokenEndpoint("https://x.test/token", "id"), MemoryStore(), origins="any")
    assert copy.copy(auth) is auth
    assert copy.deepcopy({"auth": auth})["auth"] is auth
    with pytest.raises(TypeError, match="Make one in each process"):
        pickle.dumps(auth)


@pytest.mark.parametrize(
    "store, says",
    [
        ("x.json", "Did you mean FileStore('x.json')?"),
        (Path("x.json"), "Did you mean FileStore('x.json')?"),
        ("redis://:SECRET@host/0?key=x", "Did you mean open_store(url)?"),
        (MemoryStore, "make one with MemoryStore(...)"),
        ({"access_token": "SECRET"}, "MemoryStore(json.dumps(response))"),
        (5, "int has not"),
    ],
)
def test_what_is_no_store_is_told_what_was_meant(store: Any, says: str) -> None:
    server = AuthorizationServer()
    endpoint = TokenEndpoint(server.token_url, server.client_id, server.client_secret)
    with pytest.raises(TypeError) as caught:
        RefreshAuth(endpoint, store, origins="any")
    assert says in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_a_memory_store_takes_no_dict() -> None:
    with pytest.raises(TypeError, match=r"not dict.*MemoryStore\(json\.dumps\(response\)\)"):
        MemoryStore(cast("str", {"access_token": "x"}))


def test_a_misspelt_argument_names_the_one_that_was_meant() -> None:
    with pytest.raises(TypeError, match=r"'orgins'\. Did you mean 'origins'\?"):
        TokenEndpoint("https://x.test/token", "id", orgins="any")  # type: ignore[call-arg]  # on purpose


@pytest.mark.parametrize("secret", ["secret", None])
def test_a_preset_without_its_client_id_suggests_an_unset_variable(secret: str | None) -> None:
    with pytest.raises(ValueError, match=r"Xero: client_id is None\. Is the environment variable"):
        xero(cast("str", None), secret)


def test_a_path_in_the_place_of_a_stores_url_is_told_its_url() -> None:
    with pytest.raises(ValueError, match=r"Did you mean file:xero\.json\?"):
        open_store("xero.json")


def _endpoint(**options: Any) -> TokenEndpoint:
    return TokenEndpoint("https://as.test/token", "id", "secret", **options)


def _auth(**options: Any) -> RefreshAuth:
    endpoint = _endpoint(origins="https://api.test")
    return RefreshAuth(endpoint, MemoryStore('{"access_token": "a"}'), **options)


WRONG: dict[str, tuple[Callable[..., object], list[object]]] = {
    **{
        name: (_endpoint, [5, True, [MARK], MARK, b"SECRET"])
        for name in ("params", "refresh_params", "answer_fields")
    },
    **{
        name: (_endpoint, [5, True, None, [MARK], MARK])
        for name in ("dead", "transient", "consent")
    },
    "exclusive_grants": (_endpoint, [5, True, None, MARK, [5]]),
    "client_auth": (_endpoint, [5, True, MARK, [MARK]]),
    **{
        name: (_endpoint, [10**400, -1, float("nan"), MARK])
        for name in ("timeout", "reuse_grace", "default_lifetime")
    },
    **{
        name: (_auth, [10**400, -1, float("nan"), MARK])
        for name in ("refresh_before", "refresh_timeout")
    },
    "origins": (_auth, [5, True, object(), [5]]),
    "keys": (partial(EncryptedStore, FileStore("x")), [5, None, object()]),
    "client": (partial(RedisStore, key="token"), [5, None, MARK]),
    "key": (partial(RedisStore, Redis()), [5, None, b"SECRET", ""]),
}


@pytest.mark.parametrize(
    "name, value", [(name, value) for name, (_, values) in WRONG.items() for value in values]
)
def test_a_value_of_the_wrong_type_is_an_error_that_names_its_argument_and_no_secret(
    name: str, value: Any
) -> None:
    make, _ = WRONG[name]
    with pytest.raises((TypeError, ValueError)) as caught:
        make(**{name: value})
    assert re.match(rf"{name}\b", str(caught.value))
    assert "SECRET" not in str(caught.value)


def test_origins_of_an_endpoint_are_named_too() -> None:
    wrong: Any = 5
    with pytest.raises(TypeError, match="origins must be strings"):
        _endpoint(origins=wrong)
    assert _endpoint(origins=iter(["https://api.test"])).origins == ("https://api.test",)
