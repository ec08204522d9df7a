from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any

import anyio
import pytest
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, ResponseError

from httpx_refresh import RefreshAuth, StoreError
from httpx_refresh.stores.encrypted import EncryptedStore
from httpx_refresh.stores.redis import RedisStore, _withhold
from httpx_refresh.stores.redis_listening import listening
from httpx_refresh.stores.urls import open_store
from httpx_refresh.testing import check_store
from tests.fakes import Endpoint

from .secrecy import everything_said, everything_shown

ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio", "asyncio+uvloop"], indirect=True)

_numbers = count()


@pytest.fixture
def key() -> str:
    """A key that no other test uses."""
    return f"token:{next(_numbers)}"


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[Redis]:
    client = Redis.from_url(url, **options)
    try:
        yield client
    finally:
        await client.aclose()


@ASYNCIO
@pytest.mark.anyio
@pytest.mark.parametrize(
    "options", [{}, {"decode_responses": True}, {"encoding": "latin-1", "decode_responses": True}]
)
async def test_a_redis_store_keeps_the_contract(
    redis_url: str, key: str, options: dict[str, Any]
) -> None:
    async with connected(redis_url, **options) as client:
        await check_store(lambda: RedisStore(client, key))


@ASYNCIO
@pytest.mark.anyio
async def test_two_clients_share_one_slot(redis_url: str, key: str) -> None:
    async with connected(redis_url) as one, connected(redis_url, decode_responses=True) as two:
        clients = iter([one, two] * 3)
        await check_store(lambda: RedisStore(next(clients), key))


@ASYNCIO
@pytest.mark.anyio
async def test_on_a_cluster_it_keeps_the_contract(redis_cluster_url: str, key: str) -> None:
    client = RedisCluster.from_url(redis_cluster_url)
    try:
        await check_store(lambda: RedisStore(client, key))
    finally:
        await client.aclose()


@ASYNCIO
@pytest.mark.anyio
async def test_encrypted_it_keeps_the_contract(redis_url: str, key: str) -> None:
    async with connected(redis_url) as client:
        await check_store(lambda: EncryptedStore(RedisStore(client, key), [bytes(range(32))]))


@ASYNCIO
@pytest.mark.anyio
async def test_the_value_is_the_plain_text_and_never_expires(redis_url: str, key: str) -> None:
    async with connected(redis_url) as client:
        store = RedisStore(client, key)
        assert await store.replace(None, "grüße")
        assert await client.get(key) == "grüße".encode()
        await client.expire(key, 100)
        assert await store.replace("grüße", "next")
        assert await client.ttl(key) == -1


@ASYNCIO
@pytest.mark.anyio
async def test_a_server_that_forgot_the_script_is_sent_it_again(redis_url: str, key: str) -> None:
    async with connected(redis_url) as client:
        store = RedisStore(client, key)
        assert await store.replace(None, "one")
        await client.script_flush()
        assert await store.replace("one", "two")


@ASYNCIO
@pytest.mark.anyio
async def test_a_key_of_another_type_is_redis_own_error_and_stays(redis_url: str, key: str) -> None:
    async with connected(redis_url) as client:
        await client.lpush(key, "element")
        store = RedisStore(client, key)
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await store.load()
        with pytest.raises(ResponseError, match="WRONGTYPE") as caught:
            await store.replace(None, "secret-text")
        assert "secret" not in everything_shown(caught.value)
        assert await client.type(key) in {b"list", "list"}


@ASYNCIO
@pytest.mark.anyio
@pytest.mark.parametrize(
    "setting, code", [("min-replicas-to-write", "NOREPLICAS"), ("maxmemory", "OutOfMemoryError")]
)
async def test_a_server_that_takes_no_writes_is_an_error_that_says_why(
    redis_url: str, key: str, setting: str, code: str
) -> None:
    endpoint = Endpoint()
    async with connected(redis_url) as client:
        store = RedisStore(client, key)
        assert await store.replace(None, endpoint.text(expires_in=-1))
        await client.config_set(setting, 1)
        try:
            with pytest.raises(StoreError, match=rf"could not be written \(.*{code}\)"):
                await RefreshAuth(endpoint, store).token()
        finally:
            await client.config_set(setting, 0)
    assert endpoint.asked == []


@ASYNCIO
@pytest.mark.anyio
async def test_a_failing_read_says_why_too(redis_url: str, key: str) -> None:
    async with connected(redis_url) as client:
        await client.lpush(key, "element")
        with pytest.raises(StoreError, match=r"could not be read \(ResponseError: WRONGTYPE\)"):
            await RefreshAuth(Endpoint(), RedisStore(client, key)).token()


@ASYNCIO
@pytest.mark.anyio
@pytest.mark.parametrize("decode", [False, True])
async def test_bytes_that_are_no_text_are_an_error_that_shows_none_of_them(
    redis_url: str, key: str, decode: bool
) -> None:
    async with connected(redis_url, decode_responses=decode) as client:
        await client.set(key, b"secret-\xff")
        with pytest.raises(ValueError, match=re.escape(repr(key))) as caught:
            await RedisStore(client, key).load()
        assert "secret" not in everything_said(caught.value)


@asynccontextmanager
async def refuses(code: str) -> AsyncIterator[str]:
    """Run a server without scripts, whose error repeats the arguments as Redis does; yield its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while header := await reader.readline():
            words = []
            for _ in range(int(header[1:])):
                length = int((await reader.readline())[1:])
                words.append((await reader.readexactly(length + 2))[:-2].decode())
            if words[0] == "EVALSHA":
                quoted = " ".join(f"'{word}'" for word in words[1:])
                writer.write(
                    f"-{code} '{words[0]}', with args beginning with: {quoted}\r\n".encode()
                )
            else:
                writer.write(b"+OK\r\n")
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}?protocol=2"


@ASYNCIO
@pytest.mark.anyio
async def test_a_servers_message_that_quotes_the_text_is_withheld() -> None:
    text = '{"access_token": "sesame-0123456789"}'
    async with refuses("ERR unknown command") as url, connected(url) as client:
        with pytest.raises(ResponseError) as caught:
            await RedisStore(client, "key").replace(text, text + " ")
        assert "its message quotes the text and is withheld" in str(caught.value)
        assert "sesame" not in everything_shown(caught.value)
        assert "sesame" not in repr(vars(caught.value))


def test_an_attribute_of_an_error_that_quotes_the_text_is_emptied() -> None:
    error = ResponseError("ERR no")
    error.command = "SET key sesame-0123456789"  # type: ignore[attr-defined]  # as another client might
    _withhold(error, ["sesame-0123456789"])
    assert error.command is None  # type: ignore[attr-defined]  # as above
    assert str(error) == "ERR no"


class CutsTheFirstAnswer:
    """A proxy between a client and the server that drops the answer to the first script."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self.cut = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._server)
        while command := await reader.read(65_536):
            server_writer.write(command)
            answer = await server_reader.read(65_536)
            if b"EVALSHA" in command and not answer.startswith(b"-NOSCRIPT") and not self.cut:
                self.cut = True
                break
            writer.write(answer)
        for stream in (writer, server_writer):
            stream.close()
            await stream.wait_closed()


@ASYNCIO
@pytest.mark.anyio
async def test_a_client_that_resends_loses_to_itself_and_the_slot_holds_its_text(
    redis_url: str, key: str
) -> None:
    """The only False for a swap that was won, as the docstring says; the text shows it."""
    address = re.search(r"//(.*):(\d+)", redis_url)
    assert address is not None
    proxy = CutsTheFirstAnswer(address[1], int(address[2]))
    listening = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        retry = Retry(NoBackoff(), 1)
        async with connected(f"redis://127.0.0.1:{port}", retry=retry) as client:
            store = RedisStore(client, key)
            assert not await store.replace(None, "mine")
            assert proxy.cut
            assert await store.load() == "mine"


@pytest.fixture
def offline() -> RedisStore:
    """A store whose client never connects."""
    return RedisStore(Redis(), "xero:token")


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
async def test_under_trio_it_says_that_it_serves_asyncio_only(offline: RedisStore) -> None:
    with pytest.raises(RuntimeError, match="RedisStore serves asyncio only"):
        await offline.load()
    with pytest.raises(RuntimeError, match="RedisStore serves asyncio only"):
        await offline.replace(None, "x")


def test_the_repr_names_the_key_and_the_slot_is_the_key(offline: RedisStore) -> None:
    assert repr(offline) == "RedisStore('xero:token')"
    assert offline.slot == "redis:xero:token"
    assert offline.earlier_slots == ("xero:token",)


def test_an_empty_key_is_refused() -> None:
    with pytest.raises(ValueError, match="key is empty"):
        RedisStore(Redis(), "")


async def _listeners(client: Redis, key: str) -> int:
    ((_, number),) = await client.pubsub_numsub(f"{key}:changed")
    return int(number)


async def _until(says: Callable[[], Awaitable[bool]]) -> None:
    with anyio.fail_after(60):
        while not await says():  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.01)


@ASYNCIO
@pytest.mark.anyio
@pytest.mark.parametrize("decode", [False, True])
async def test_who_waits_is_woken_by_another_client_s_swap_and_only_then_subscribed(
    redis_url: str, key: str, decode: bool
) -> None:
    async with connected(redis_url, decode_responses=decode) as one, connected(redis_url) as two:
        mine, its = RedisStore(one, key), RedisStore(two, key)
        assert await mine.replace(None, "first")
        waits = [asyncio.create_task(mine.changed("first")) for _ in range(3)]

        async def subscribed() -> bool:
            return await _listeners(two, key) == 1

        await _until(subscribed)
        assert not any(one.done() for one in waits)
        assert await its.replace("first", "second")
        with anyio.fail_after(60):
            await asyncio.gather(*waits)

        async def gone() -> bool:
            return await _listeners(two, key) == 0

        await _until(gone)


@ASYNCIO
@pytest.mark.anyio
async def test_what_has_changed_already_is_not_waited_for(redis_url: str, key: str) -> None:
    async with connected(redis_url) as client:
        store = RedisStore(client, key)
        assert await store.replace(None, "second")
        with anyio.fail_after(60):
            await store.changed("first")
            await store.changed(None)


@ASYNCIO
@pytest.mark.anyio
async def test_slots_of_one_client_share_one_connection_and_each_is_told_of_its_own(
    redis_url: str, key: str
) -> None:
    async with connected(redis_url) as client, connected(redis_url) as other:
        stores = [RedisStore(client, f"{key}-{number}") for number in range(3)]
        for store in stores:
            assert await store.replace(None, "first")
        waits = [asyncio.create_task(store.changed("first")) for store in stores]

        async def subscribed() -> bool:
            return all([await _listeners(other, f"{key}-{number}") == 1 for number in range(3)])

        await _until(subscribed)
        listening = [one for one in await other.client_list() if one["sub"] != "0"]
        assert [one["sub"] for one in listening] == ["3"]
        assert await stores[1].replace("first", "second")
        with anyio.fail_after(60):
            await waits[1]
        assert [one.done() for one in waits] == [False, True, False]
        for wait in waits:
            wait.cancel()


@ASYNCIO
@pytest.mark.anyio
async def test_a_lost_connection_wakes_and_the_next_wait_subscribes_anew(
    redis_url: str, key: str
) -> None:
    async with connected(redis_url) as client, connected(redis_url) as other:
        store = RedisStore(client, key)
        assert await store.replace(None, "first")

        async def subscribed() -> bool:
            return await _listeners(other, key) == 1

        for _ in range(2):
            wait = asyncio.create_task(store.changed("first"))
            await _until(subscribed)

            async def woken(wait: asyncio.Task[None] = wait) -> bool:
                # A subscription that is killed before its confirmation has lost nothing, so the waiter still waits.
                await other.client_kill_filter(_type="pubsub")
                return wait.done()

            await _until(woken)
            await wait
        wait = asyncio.create_task(store.changed("first"))
        await _until(subscribed)
        assert await RedisStore(other, key).replace("first", "second")
        with anyio.fail_after(60):
            await wait


@ASYNCIO
@pytest.mark.anyio
async def test_a_user_without_channels_writes_all_the_same_and_cannot_wait(
    redis_url: str, key: str
) -> None:
    async with connected(redis_url) as admin:
        await admin.acl_setuser(
            "narrow",
            enabled=True,
            reset=True,
            passwords=["+sesame"],
            keys=["*"],
            commands=["+@all"],
            reset_channels=True,
        )
        async with connected(redis_url, username="narrow", password="sesame") as client:
            store = RedisStore(client, key)
            assert await store.replace(None, "first") is True
            assert await store.load() == "first"
            with anyio.fail_after(60):
                with pytest.raises(NoPermissionError):
                    await store.changed("first")
        await admin.acl_deluser("narrow")


@ASYNCIO
@pytest.mark.anyio
async def test_a_client_that_knows_no_channels_has_a_store_without_changed(key: str) -> None:
    class Plain:
        def execute_command(self, *args: Any) -> Any:
            raise NotImplementedError

        def register_script(self, script: str) -> Any:
            raise NotImplementedError

    client: Any = Plain()
    assert not hasattr(RedisStore(client, key), "changed")


class Channels:
    """A client of which tests see the subscriptions, and give the messages."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.made = 0
        self.connect = asyncio.Event()
        self._messages: asyncio.Queue[dict[str, str]] = asyncio.Queue()

    def pubsub(self) -> Channels:
        self.made += 1
        return self

    async def subscribe(self, channel: str) -> None:
        self.asked.append(channel)
        await self.connect.wait()
        self.say("subscribe", channel)

    async def get_message(self, *, timeout: float | None) -> dict[str, str]:
        assert timeout is None
        return await self._messages.get()

    async def aclose(self) -> None:
        self.made -= 1

    def say(self, kind: str, channel: str) -> None:
        self._messages.put_nowait({"type": kind, "channel": channel})


@ASYNCIO
@pytest.mark.anyio
async def test_who_still_waits_is_woken_when_another_waiter_has_left() -> None:
    channels = Channels()
    channels.connect.set()
    with anyio.fail_after(60):
        async with AsyncExitStack() as leaves, listening(channels, "a") as message:
            await leaves.enter_async_context(listening(channels, "a"))
            await leaves.aclose()
            await anyio.wait_all_tasks_blocked()
            assert not message.done()
            assert (channels.made, channels.asked) == (1, ["a"])
            channels.say("message", "a")
            await message
        await anyio.wait_all_tasks_blocked()
    assert channels.made == 0


@ASYNCIO
@pytest.mark.anyio
async def test_a_further_channel_is_subscribed_to_once_the_connection_stands() -> None:
    """Two commands at once on a connection that is being made would make two."""
    channels = Channels()

    async def listen(channel: str) -> None:
        async with listening(channels, channel):
            heard.append(channel)

    heard: list[str] = []
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for channel in ("a", "b"):
                group.start_soon(listen, channel)
            await anyio.wait_all_tasks_blocked()
            assert (channels.asked, heard) == (["a"], [])
            channels.connect.set()
    assert (channels.asked, sorted(heard)) == (["a", "b"], ["a", "b"])


@ASYNCIO
@pytest.mark.anyio
async def test_a_store_by_url_is_woken_too(redis_url: str, key: str) -> None:
    store: Any = open_store(f"{redis_url}?key={key}")
    async with connected(redis_url) as other:
        assert await store.replace(None, "first")
        wait = asyncio.create_task(store.changed("first"))

        async def subscribed() -> bool:
            return await _listeners(other, key) == 1

        await _until(subscribed)
        assert await RedisStore(other, key).replace("first", "second")
        with anyio.fail_after(60):
            await wait


class Odd(Channels):
    """Such a client that answers as the test says: with a message, with None, or with an exception."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: asyncio.Queue[Any] = asyncio.Queue()
        self.refuses = ""
        self.connect.set()

    async def subscribe(self, channel: str) -> None:
        if channel == self.refuses:
            raise ConnectionError("no such channel")
        self.asked.append(channel)
        self.say("subscribe", channel)

    async def get_message(self, *, timeout: float | None) -> Any:
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def say(self, kind: str, channel: str) -> None:
        self.answers.put_nowait({"type": kind, "channel": channel})


@ASYNCIO
@pytest.mark.anyio
async def test_answers_without_a_message_wake_nobody_and_two_messages_at_once_wake_once() -> None:
    channels = Odd()
    with anyio.fail_after(60):
        async with listening(channels, "a") as message:
            channels.answers.put_nowait(None)
            await anyio.wait_all_tasks_blocked()
            assert not message.done()
            channels.say("message", "a")
            channels.say("message", "a")
            channels.answers.put_nowait(ConnectionError("gone"))
            await message
            await anyio.wait_all_tasks_blocked()
        await anyio.wait_all_tasks_blocked()
    assert channels.made == 0


@ASYNCIO
@pytest.mark.anyio
async def test_a_channel_that_cannot_be_subscribed_to_is_its_waiter_s_error_and_wakes_the_others() -> (
    None
):
    channels = Odd()
    channels.refuses = "b"
    with anyio.fail_after(60):
        async with listening(channels, "a") as message:
            with pytest.raises(ConnectionError, match="the subscription has ended"):
                async with listening(channels, "b"):
                    pytest.fail("it was subscribed to")
            await message
    assert channels.made == 0
