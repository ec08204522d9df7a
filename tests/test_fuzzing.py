"""What strangers write is read or refused: metadata, redirects, device answers, TOML, URLs, sealed texts, requests.

Texts of a store and answers of a token endpoint have a file of their own, `tests/test_properties.py`. Every example
is bounded in time by `quickly`; what is as large as it may be is measured at the end, in memory too.
"""

from __future__ import annotations

import asyncio
import functools
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import anyio
import h11
import httpx
import pytest
from sqlalchemy.util import compat

from httpx_refresh import (
    AuthorizationRequest,
    LoginFailed,
    OriginNotAllowed,
    RefreshUnavailable,
    StoreError,
    Token,
    TokenEndpoint,
    discover,
    open_store,
)
from httpx_refresh._http.origins import compiled, is_loopback
from httpx_refresh._oauth.answer import MOST, Answer, meaning
from httpx_refresh._oauth.login import code_of
from httpx_refresh._oauth.redaction import redacted
from httpx_refresh._refresh.record import BadText, parse
from httpx_refresh.cli import console
from httpx_refresh.cli.console import Problem, visible
from httpx_refresh.cli.loopback import Loopback, Place, _read, place_of
from httpx_refresh.cli.settings import Settings, has_password, read_config
from httpx_refresh.stores.encrypted import EncryptedStore, generate_key
from httpx_refresh.stores.memory import MemoryStore
from tests.strangers import (
    ISSUER,
    STATE,
    Page,
    device_answer,
    home,
    listening_address,
    metadata,
    origin_and_url,
    quickly,
    read_many,
    redirect,
    requests,
    sealed,
    sealed_part,
    store_url,
    toml,
)

_T = TypeVar("_T")


def tried(function: Callable[[], _T], *documented: type[Exception]) -> tuple[_T | None, str]:
    """Return what a call returns, or None and the words of an exception that is documented."""
    try:
        return function(), ""
    except documented as error:
        return None, f"{error}"


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """One event loop for all examples: to make one for each would take longer than the example."""
    made = asyncio.new_event_loop()
    yield made
    made.close()


class Stranger(httpx.AsyncBaseTransport):
    """Answers each request in the same way, and notes what was asked. Mutable, between two examples: all of it.

    There is one, and one client of it: to make a client takes longer than an example.
    """

    status = 200
    body = b""

    def __init__(self) -> None:
        self.asked: list[httpx.URL] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url)
        return httpx.Response(self.status, content=self.body)

    def serves(self, status: int, body: bytes) -> None:
        self.status, self.body, self.asked = status, body, []


STRANGER = Stranger()
CLIENT = httpx.AsyncClient(transport=STRANGER)


async def found_of(page: Page) -> TokenEndpoint:
    STRANGER.serves(page.status, page.body)
    return await discover(ISSUER, "id", page.secret, client=CLIENT)


# -- metadata ----------------------------------------------------------------------------------------------------


@read_many(
    metadata,
    Page(200, b"[" * 100_000),
    Page(200, b'{"issuer": "https://as.test", "token_endpoint": "https://["}'),
    Page(200, b'{"issuer": "https://as.test", "token_endpoint": "http://127.0.0.1:6379/"}'),
)
def test_any_metadata_makes_an_endpoint_of_that_issuer_or_a_documented_error(
    loop: asyncio.AbstractEventLoop, page: Page
) -> None:
    with quickly():
        found, said = tried(
            lambda: loop.run_until_complete(found_of(page)), RefreshUnavailable, ValueError
        )
    assert said.isprintable()
    assert len(said) < 1000
    if found is not None:
        login = found.login
        for text in (found.url, login.authorization_endpoint, login.device_authorization_endpoint):
            url = httpx.URL(text or found.url)
            assert url.scheme == "https"
            assert url.host not in ("127.0.0.1", "localhost", "::1")


# -- redirects ---------------------------------------------------------------------------------------------------

ENDPOINT = TokenEndpoint(
    "https://as.test/token",
    "id",
    "secret",
    client=CLIENT,
    issuer=ISSUER,
    redirect_fields=("realmId",),
    device_authorization_endpoint="https://as.test/device",
)
BEGUN = AuthorizationRequest(f"https://as.test/?state={STATE}", "http://127.0.0.1/", STATE, "v")


@read_many(
    redirect,
    "http://127.0.0.1/?" + "a=1&" * 500,
    "http://[?state=st4te&code=c",
    {"error": "access_denied"},
)
def test_any_redirect_is_the_answer_to_this_login_or_is_turned_down(
    redirect: str | dict[str, str],
) -> None:
    with quickly():
        found, said = tried(
            lambda: code_of(ENDPOINT._client, ENDPOINT.login, BEGUN, redirect), LoginFailed
        )
    assert said.isprintable()
    assert len(said) < 1000
    # Only who brings the state is believed.
    if found is not None:
        code, kept = found
        assert code
        assert all(value.isprintable() for value in kept.values())
        assert STATE in (redirect if isinstance(redirect, str) else redirect.values())


# -- other answers of a server -----------------------------------------------------------------------------------


@read_many(device_answer)
def test_any_answer_begins_a_device_login_that_can_be_shown_or_none(
    loop: asyncio.AbstractEventLoop, page: Page
) -> None:
    STRANGER.serves(page.status, page.body)
    with quickly():
        begun, said = tried(
            lambda: loop.run_until_complete(ENDPOINT.device_authorization()), LoginFailed
        )
    assert said.isprintable()
    if begun is None:
        return
    codes = (begun.user_code, begun.verification_uri, begun.verification_uri_complete or "")
    assert all(one.isprintable() and len(one) < 10_000 for one in codes)
    assert 1 <= begun.interval <= 300
    assert begun.expires_at < time.time() + 86_401


HOMES = {
    origins: TokenEndpoint(
        "https://as.test/token",
        "id",
        client=CLIENT,
        revocation_endpoint="{instance_url}/revoke",
        origins=origins,
    )
    for origins in ("https://*.as.test", "https://as.test")
}


@pytest.mark.parametrize("origins", list(HOMES))
@read_many(
    home,
    "https://evil.test\\.as.test",
    "https://evil.test#.as.test",
    "https://xn--nxasmq6bstate",
)
def test_any_home_of_a_token_gets_it_only_where_it_is_one_of_the_origins(
    loop: asyncio.AbstractEventLoop, origins: str, instance_url: Any
) -> None:
    STRANGER.serves(200, b"")
    endpoint = HOMES[origins]
    with quickly(), suppress(OriginNotAllowed, ValueError):
        loop.run_until_complete(
            endpoint.revoke(Token("A", "R", extra={"instance_url": instance_url}))
        )
    for url in STRANGER.asked:
        assert url.scheme == "https"
        assert url.host.endswith(".as.test") if "*" in origins else url.host == "as.test"


# -- where a token may go ----------------------------------------------------------------------------------------


@read_many(
    origin_and_url,
    ("https://*.as.test", "https://evil.test\\.as.test/"),
    ("https://as.test", "https://xn--nxasmq6bstate/"),  # httpx has an error of its own for its host
)
def test_any_text_names_an_origin_or_is_refused_and_no_other_host_gets_the_token(
    both: tuple[str, str],
) -> None:
    allowed, url = both
    with quickly():
        origins, said = tried(lambda: compiled(allowed), ValueError)
        assert len(said) < 500 + 10 * len(allowed)
        # Of half a surrogate httpx makes no URL, but an error of the codec's.
        asked, _ = tried(lambda: httpx.URL(url), httpx.InvalidURL, UnicodeEncodeError)
        if asked is None:
            return
        _, said = tried(
            functools.partial((origins or compiled("any")).check, asked), OriginNotAllowed
        )
    assert said.isprintable()
    if said:
        return
    scheme, host = asked.scheme, asked.raw_host.decode("ascii")
    assert scheme in ("https", "wss") or is_loopback(host)
    if origins is not None and allowed != "any":
        named = httpx.URL(allowed.replace("*.", "", 1)).raw_host.decode("ascii")
        assert host.endswith(f".{named}") if "://*." in allowed else host == named


# -- what a person has in files and in the environment -----------------------------------------------------------


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "config.toml"
    path.touch(0o600)
    return path


@read_many(
    toml,
    "x = " + "[" * 100_000,
    "[" * 100_000,
    "[a]\nport = " + "9" * 5_000,
    "[a" + ".b" * 10_000 + "]\n",
    '[a]\nstore = "http://["',
)
def test_any_configuration_file_is_tables_of_settings_or_a_problem_that_says_so(
    config: Path, text: str
) -> None:
    config.write_bytes(text.encode("utf-8", "surrogatepass"))
    with quickly():
        found, said = tried(lambda: read_config(str(config)), Problem)
    assert visible(said).isprintable()
    if found is None:
        assert said
        return
    assert all(isinstance(one, Settings) for one in found.values())


@pytest.fixture(scope="module")
def drivers() -> Iterator[None]:
    """Import what stores need, which takes seconds, before any time is taken.

    SQLAlchemy looks through all installed packages for each scheme that it does not know; here it does so once.
    """
    open_store("redis://h/0?key=a")
    open_store("sqlite+aiosqlite:///a.db?key=a")
    open_store("postgresql+asyncpg://h/a?key=a")
    with pytest.MonkeyPatch.context() as patch:
        found = functools.cache(compat.importlib_metadata_get)
        patch.setattr(compat, "importlib_metadata_get", found)
        yield


@pytest.mark.usefixtures("drivers")
@pytest.mark.filterwarnings("ignore:Query string argument:sqlalchemy.exc.SAWarning")  # the driver's
@read_many(
    store_url,
    "sqlite+aiosqlite://u:s3cr3t@host/a.db?key=a",
    "redis://[?key=a",
    "postgresql+asyncpg://u:p@h:x/db?key=a",
    "redis://h/0?key=a&" + "a=1&" * 2_000,
    "file:\0",
)
def test_any_store_url_opens_a_store_or_says_what_is_wrong_with_it(url: str) -> None:
    with quickly():
        store, said = tried(lambda: open_store(url), ImportError, ValueError)
    assert len(said) < 500 + len(url)
    assert "s3cr3t" not in said
    assert (store is None) == bool(said)


@read_many(listening_address, "http://[")
def test_any_address_of_a_redirect_is_a_place_to_listen_at_or_a_problem(url: str) -> None:
    with quickly():
        assert has_password(url) in (True, False)
        place, said = tried(lambda: place_of(url, None), Problem)
    assert visible(said).isprintable()
    if place is None:
        return
    assert place.host in ("127.0.0.1", "localhost")


# -- what a writer of the store without a key puts there ---------------------------------------------------------

KEY = generate_key()


@read_many(
    sealed,
    "." * 4,
    sealed_part({"alg": "dir", "enc": "A256GCM", "kid": []}) + "....",
    sealed_part({"alg": "dir", "enc": "A256GCM", "zip": "DEF"}) + "....",
)
def test_what_was_not_sealed_with_a_key_never_opens(
    loop: asyncio.AbstractEventLoop, text: str
) -> None:
    store = EncryptedStore(MemoryStore(text), [KEY], slot="s")
    with quickly(), pytest.raises(StoreError) as caught:
        loop.run_until_complete(store.load())
    assert len(f"{caught.value}") < 500


# -- what connects to the loopback server ------------------------------------------------------------------------


class Sent:
    """The stream of a connection that has sent these bytes, in pieces, and ended."""

    def __init__(self, chunks: list[bytes]) -> None:
        self.chunks = [chunk for chunk in chunks if chunk]

    async def receive(self) -> bytes:
        if not self.chunks:
            raise anyio.EndOfStream
        return self.chunks.pop(0)


@read_many(
    requests,
    [b"GET /callback?" + b"a=1&" * 500 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"],
    [b"GET /callback?state=%ff HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"],
)
def test_any_bytes_are_turned_away_by_the_server_of_a_login(
    loop: asyncio.AbstractEventLoop, chunks: list[bytes]
) -> None:
    server = Loopback(Place(80, "/callback", "127.0.0.1"))
    server._hosts = ("127.0.0.1",)
    server._state = b"st4te"
    server._warned = True
    stream: Any = Sent(chunks)
    with quickly():
        try:
            _, head = loop.run_until_complete(_read(stream))
        except h11.ProtocolError:
            return
        refusal = server._refusal(head)
    assert refusal is not None
    assert 400 <= refusal[0] < 500


# -- as large as it may be: time and memory ----------------------------------------------------------------------

# Each is about a mebibyte, what is read of an answer and of a file.
LARGE: dict[str, str] = {
    "arrays in arrays": "[" * MOST,
    "arrays in arrays, closed": "[" * (MOST // 2) + "]" * (MOST // 2),
    "objects in objects": '{"a":' * (MOST // 5),
    "many fields": "{" + ",".join(f'"a{number}":0' for number in range(MOST // 12)) + "}",
    "one long token": '{"access_token":"' + "a" * (MOST - 20) + '"}',
    "one long number": '{"access_token":"A","expires_in":' + "9" * (MOST - 60) + "}",
    "one long word beside a token": '{"access_token":"A","scope":"'
    + "\\u001b" * (MOST // 6)
    + '"}',
    "a form": "&".join(["access_token=a"] * (MOST // 16)),
    "blanks": " " * MOST,
    "escapes": '{"error":"' + "\\ud800" * (MOST // 6) + '"}',
}


def measured(function: Callable[[], object]) -> tuple[float, int]:
    """Return the seconds of this thread that a call takes, and the bytes that it has at its peak."""
    tracemalloc.start()
    before = time.thread_time()
    try:
        function()
        return time.thread_time() - before, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _parsed(text: str) -> None:
    with suppress(BadText):
        parse(text)


def _discovered(text: str) -> None:
    with pytest.raises(ValueError, match="metadata"):
        asyncio.run(found_of(Page(200, text.encode(), "secret")))


def _configured(text: str, config: Path) -> None:
    config.write_text(text, "utf-8")
    with suppress(Problem):
        read_config(str(config))


def _redirected(text: str) -> None:
    with pytest.raises(LoginFailed):
        code_of(ENDPOINT._client, ENDPOINT.login, BEGUN, f"http://127.0.0.1/?{text}")


@pytest.mark.parametrize("what", LARGE)
def test_the_largest_of_what_strangers_write_is_read_in_bounded_time_and_memory(
    what: str, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "tell", lambda *_: None)
    text = LARGE[what]
    for function in (
        lambda: _parsed(text),
        lambda: meaning(Answer(200, {}, text.encode()), now=1.0),
        lambda: meaning(Answer(400, {}, text.encode()), now=1.0),
        lambda: redacted(text, ["s3cr3t" * 1_000], 300),
        lambda: _discovered(text),
        lambda: _configured(text, config),
        lambda: _redirected(text),
    ):
        seconds, peak = measured(function)
        # tracemalloc itself makes it several times slower than it is.
        assert seconds < 10
        assert peak < 64 * MOST
