"""Rule 12: the token goes over https (loopback excepted), and only to its origins."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import httpx
import httpx2
import pytest

from httpx_refresh import MemoryStore, OriginNotAllowed, RefreshAuth, Token, TokenEndpoint
from httpx_refresh._http.origins import compiled, is_secure
from tests.fakes import Api, Endpoint, Store, both_libraries

LIBRARIES = (httpx, httpx2)


def goes_to(url: str, origins: Any, *, allow_http: bool = False) -> bool:
    """Return whether a token for `origins` goes to `url`; check that both libraries agree, also at a second call."""
    allowed = compiled(origins, allow_http=allow_http)
    answers = set()
    for library in (*LIBRARIES, *LIBRARIES):
        try:
            allowed.check(library.URL(url))
            answers.add(True)
        except OriginNotAllowed:
            answers.add(False)
    (answer,) = answers
    return answer


# -- https or loopback -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scheme, host, secure",
    [
        ("https", "api.test", True),
        ("https", "localhost", True),
        ("http", "localhost", True),
        ("http", "127.0.0.1", True),
        ("http", "127.8.8.8", True),
        ("http", "::1", True),
        ("http", "api.test", False),
        ("http", "localhost.evil.test", False),
        ("http", "127.0.0.1.evil.test", False),
        ("http", "10.0.0.1", False),
        ("http", "0.0.0.0", False),  # noqa: S104 - an address that a request names
        ("http", "::", False),
        ("http", "", False),
        ("ws", "localhost", False),
        ("wss", "api.test", False),
        ("ftp", "localhost", False),
        ("", "localhost", False),
    ],
)
def test_https_is_secure_and_http_to_loopback(scheme: str, host: str, secure: bool) -> None:
    assert is_secure(scheme, host) is secure
    assert is_secure(scheme, host, allow_http=True) is (secure or scheme == "http")


# -- valid origins ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "api.test",
        "api.test:443",
        "https://",
        "https://api.test/path",
        "https://api.test?x=1",
        "https://api.test#x",
        "https://user@api.test",
        "https://*",
        "https://a.*.test",
        "https://*.*.test",
        "https://*api.test",
        "https://api.test:port",
        "https://api.test:65536",
        "https://api.test:-1",
        "https://evil.test\\.api.test",
        "https://evil.test\\api.test",
        "https://*.evil.test\\.api.test",
        "https://evil.test%2f.api.test",
        "https://*.evil.test%00.api.test",
        "https://api..test",
        "https://.api.test",
        "https://api.test.",
        "https://*..api.test",
        "https://*.api.test.",
        "https://[fe80::1%25eth0]",
        "",
        "*",
        "Any",
    ],
)
def test_what_is_no_origin_is_refused_and_named(text: str) -> None:
    with pytest.raises(ValueError, match="is no origin") as caught:
        compiled([text])
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    "text", ["http://api.test", "ftp://api.test", "http://*.api.test", "ws://api.test"]
)
def test_an_origin_that_must_not_get_a_bearer_cannot_be_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"https only.*allow_http=True"):
        compiled(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://*.com",
        "https://*.co.uk",
        "https://*.test",
        "https://*.github.io",
        "https://*.s3.amazonaws.com",
        "https://*.localhost",
        "https://*.0.0.1",
        "https://*.1",
        "https://*.[::1]",
        "https://*.xn--55qx5d.cn",
        "https://*.xn--zzzz.com",
        "https://*.\u516c\u53f8.cn",
        "wss://*.com",
    ],
)
def test_a_wildcard_for_hosts_of_many_owners_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="many owners"):
        compiled(text)
    with pytest.raises(ValueError, match="many owners"):
        compiled(text, allow_http=True)


@pytest.mark.parametrize("origins", [[5], [b"https://api.test"], b"https://api.test", 5])
def test_origins_are_strings(origins: Any) -> None:
    with pytest.raises(TypeError):
        compiled(origins)


def test_the_public_suffix_list_is_read_for_a_wildcard_only() -> None:
    program = (
        "import sys; from httpx_refresh import *; "
        "RefreshAuth(TokenEndpoint('https://a.test/t', 'id', origins='https://a.test'), MemoryStore()); "
        "assert 'publicsuffixlist' not in sys.modules; "
        "TokenEndpoint('https://a.test/t', 'id', origins='https://*.a.test'); "
        "assert 'publicsuffixlist' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_one_origin_need_not_stand_in_a_list_and_equal_lists_are_compiled_once() -> None:
    assert compiled("https://api.test") is compiled(["https://api.test"])
    assert compiled("https://api.test") is not compiled("https://api.test", allow_http=True)
    assert compiled("any") is compiled("any")


# -- where the token goes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://api.test/path?query",
        "https://api.test:8443",
        "wss://api.test/socket",
        "http://localhost:8000",
        "ws://localhost:8000",
        "http://127.0.0.1",
        "http://[::1]:8000",
        "https://[2001:db8::1]",
        "https://my_service.test",
    ],
)
def test_any_is_every_https_origin_and_loopback(url: str) -> None:
    assert goes_to(url, "any")
    assert not goes_to(url, None)
    assert not goes_to(url, [])


@pytest.mark.parametrize(
    "url",
    [
        "http://api.test",
        "http://localhost.evil.test",
        "http://10.0.0.1",
        "ws://api.test",
        "ftp://api.test",
        "ftp://localhost",
        "/relative",
        "https://evil.test\\.api.test/",
        "https://evil.test%2f.api.test/",
        "https://evil.test..api.test/",
        "https://.api.test/",
        "https://a.api.test./",
    ],
)
def test_nothing_else_gets_it_whatever_is_named(url: str) -> None:
    assert not goes_to(url, "any")
    assert not goes_to(url, ["https://api.test", "https://*.api.test"])
    # No host of the plain network was named.
    assert not goes_to(url, "any", allow_http=True)


@pytest.mark.parametrize(
    "url, allowed, goes",
    [
        ("https://api.test/x", "https://api.test", True),
        ("https://API.test/x", "https://api.test", True),
        ("https://api.test/x", "https://API.test", True),
        ("https://api.test:443/x", "https://api.test/", True),
        ("https://api.test", "https://api.test:443", True),
        ("https://api.test:8443", "https://api.test", False),
        ("https://api.test:8443", "https://api.test:8443", True),
        ("https://other.test", "https://api.test", False),
        ("https://api.test.evil.test", "https://api.test", False),
        ("https://evilapi.test", "https://api.test", False),
        ("https://api.test@evil.test", "https://api.test", False),
        ("https://a.api.test", "https://*.api.test", True),
        ("https://a.b.api.test", "https://*.api.test", True),
        ("https://api.test", "https://*.api.test", False),
        ("https://evilapi.test", "https://*.api.test", False),
        ("https://a.api.test:8443", "https://*.api.test", False),
        ("https://a.api.test:8443", "https://*.api.test:8443", True),
        ("http://127.0.0.1:80", "http://127.0.0.1", True),
        ("http://127.0.0.1:81", "http://127.0.0.1", False),
        ("http://127.0.0.1", "https://127.0.0.1", False),
        ("http://[::1]:8000", "http://[::1]:8000", True),
        ("wss://api.test", "https://api.test", True),
        ("wss://api.test:443", "https://api.test", True),
        ("https://api.test", "wss://api.test", True),
        ("wss://a.api.test", "https://*.api.test", True),
        ("ws://127.0.0.1:8000", "http://127.0.0.1:8000", True),
        ("ws://api.test", "https://api.test", False),
        ("https://gmail.googleapis.com", "https://*.googleapis.com", True),
        ("https://b\u00fccher.test", "https://xn--bcher-kva.test", True),
        ("https://xn--bcher-kva.test", "https://b\u00fccher.test", True),
        ("https://a.b\u00fccher.test", "https://*.b\u00fccher.test", True),
        ("https://a.b\u00fccher.test", "https://*.xn--bcher-kva.test", True),
        ("https://xn--9ca.b\u00fccher.test", "https://*.b\u00fccher.test", True),
        ("https://\u00e9.b\u00fccher.test", "https://*.xn--bcher-kva.test", True),
        ("https://evilb\u00fccher.test", "https://*.b\u00fccher.test", False),
        ("https://stra\u00dfe.test", "https://strasse.test", False),
    ],
)
def test_scheme_host_and_port_have_to_be_named(url: str, allowed: str, goes: bool) -> None:
    assert goes_to(url, allowed) is goes
    assert goes_to(url, ["https://first.test", allowed, "https://*.last.test.example"]) is goes


@pytest.mark.parametrize(
    "url, goes",
    [
        ("http://test/", True),
        ("ws://test/", True),
        ("http://test:8000/", False),
        ("https://test/", False),
        ("http://api:8080/", True),
        ("http://other/", False),
        ("http://a.mesh.internal/", True),
        ("http://localhost/", False),
    ],
)
def test_plain_http_is_for_hosts_that_are_named_with_allow_http(url: str, goes: bool) -> None:
    named = ["http://test", "http://api:8080", "http://*.mesh.internal"]
    assert goes_to(url, named, allow_http=True) is goes
    with pytest.raises(ValueError, match="https only"):
        compiled(named)


def test_what_was_asked_once_is_remembered_within_bounds() -> None:
    origins = compiled(["https://*.bounds.test"])
    for number in range(3000):
        origins.check(httpx.URL(f"https://host{number}.bounds.test"))
    assert len(origins._known) <= 1024


# -- who names them --------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", [TokenEndpoint("https://as.test/token", "id"), object])
def test_without_anybody_who_names_the_origins_there_is_no_auth(endpoint: Any) -> None:
    class Mine:
        async def refresh(self, token: Token) -> Token:
            raise AssertionError("never asked")

    with pytest.raises(ValueError, match="where the token may go") as caught:
        RefreshAuth(Mine() if endpoint is object else endpoint, MemoryStore())
    assert 'origins=["https://api.example.com"]' in str(caught.value)
    assert 'origins="any"' in str(caught.value)


@pytest.mark.anyio
@both_libraries
async def test_any_says_aloud_that_the_token_may_go_everywhere(http: Any) -> None:
    endpoint = Endpoint()
    endpoint.origins = None
    api = Api()
    auth = RefreshAuth(endpoint, Store(endpoint.text()), origins="any")
    async with api.client(auth, http) as client:
        assert (await client.get("https://anybody.test/")).status_code == 200
        with pytest.raises(OriginNotAllowed, match="https only"):
            await client.get("http://anybody.test/")


@pytest.mark.anyio
@both_libraries
@pytest.mark.parametrize("who", ["argument", "endpoint"])
async def test_allow_http_is_the_argument_s_or_the_endpoint_s(http: Any, who: str) -> None:
    endpoint: Any = Endpoint()
    endpoint.origins = ("http://test",)
    with pytest.raises(ValueError, match="allow_http=True"):
        RefreshAuth(endpoint, Store(None))
    endpoint.allow_http = who == "endpoint"
    api = Api()
    auth = RefreshAuth(endpoint, Store(endpoint.text()), allow_http=who == "argument")
    async with api.client(auth, http) as client:
        assert (await client.get("http://test/")).status_code == 200
        with pytest.raises(OriginNotAllowed):
            await client.get("http://other/")


@both_libraries
@pytest.mark.anyio
@pytest.mark.parametrize(
    "url, options, said",
    [
        ("http://api.test/", {}, ["http://api.test", "https only", "allow_http=True"]),
        ("https://a.test%2f.api.test/", {}, ["every program reads alike", "a.test%2f.api.test"]),
        (
            "https://other.test/",
            {"origins": ["https://api.test", "https://*.api.test:8443", "http://[::1]:80"]},
            [
                "https://other.test",
                "https://api.test, https://*.api.test:8443",
                "http://[::1]",
                "origins=[..., 'https://other.test']",
            ],
        ),
        ("https://[2001:db8::1]:8/", {"origins": ["https://a.test"]}, ["https://[2001:db8::1]:8"]),
        ("https://api.test/", {"origins": []}, ["no origin at all"]),
    ],
)
async def test_a_refused_origin_is_named_with_the_argument_to_change_before_anything_is_sent(
    http: Any, url: str, options: dict[str, Any], said: list[str]
) -> None:
    endpoint = Endpoint()
    store = Store(endpoint.text(expires_in=-1))
    api = Api()
    async with api.client(RefreshAuth(endpoint, store, **options), http) as client:
        with pytest.raises(OriginNotAllowed) as caught:
            await client.get(url)
    assert [words for words in said if words not in str(caught.value)] == []
    assert (api.seen, store.loads, endpoint.asked) == ([], 0, [])


@pytest.mark.anyio
async def test_the_endpoint_names_its_origins_and_the_argument_goes_before_them() -> None:
    endpoint: Any = Endpoint()
    endpoint.origins = ("https://api.test",)
    api = Api()
    async with api.client(RefreshAuth(endpoint, Store(endpoint.text()))) as client:
        assert (await client.get("https://api.test/")).status_code == 200
        with pytest.raises(OriginNotAllowed):
            await client.get("https://mine.test/")
    auth = RefreshAuth(endpoint, Store(endpoint.text()), origins="https://mine.test")
    async with api.client(auth) as client:
        assert (await client.get("https://mine.test/")).status_code == 200
        with pytest.raises(OriginNotAllowed):
            await client.get("https://api.test/")


@both_libraries
@pytest.mark.anyio
async def test_a_hook_that_changes_the_url_gets_no_new_token_for_it(http: Any) -> None:
    endpoint = Endpoint()
    api = Api(lambda _: False)

    async def elsewhere(request: Any) -> None:
        request.url = request.url.copy_with(host="other.test")

    async with api.client(RefreshAuth(endpoint, Store(endpoint.text())), http) as client:
        client.event_hooks = {"request": [elsewhere]}
        with pytest.raises(OriginNotAllowed, match=r"other\.test"):
            await client.get("/")
    assert api.seen == ["SECRET-a0"]
