"""Rule 12: the bearer goes over https (loopback excepted), and only where it is meant to go."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from httpx_refresh import OriginNotAllowed, RefreshAuth
from httpx_refresh._http.origins import Origins, compiled
from tests.fakes import Api, Endpoint, Store, both_libraries


def goes_to(url: str, *allowed: str) -> bool:
    try:
        Origins(allowed or None).check(httpx.URL(url))
    except OriginNotAllowed:
        return False
    return True


@pytest.mark.parametrize(
    "url",
    [
        "https://api.test/path?query",
        "https://api.test:8443",
        "http://localhost:8000",
        "http://127.0.0.1",
        "http://127.8.8.8:1",
        "http://[::1]:8000",
    ],
)
def test_without_a_list_every_https_origin_and_loopback_gets_it(url: str) -> None:
    assert goes_to(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://api.test",
        "http://localhost.evil.test",
        "http://127.0.0.1.evil.test",
        "http://10.0.0.1",
        "http://0.0.0.0",
        "ftp://api.test",
        "ws://localhost",
        "/relative",
    ],
)
def test_nothing_else_gets_it_list_or_no_list(url: str) -> None:
    assert not goes_to(url)
    assert not goes_to(url, "https://api.test", "https://*.test")


@pytest.mark.parametrize(
    "url, allowed, goes",
    [
        ("https://api.test/x", "https://api.test", True),
        ("https://API.test/x", "https://api.test", True),
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
        ("http://[::1]:8000", "http://[::1]:8000", True),
        ("https://b\u00fccher.test", "https://xn--bcher-kva.test", True),
    ],
)
def test_scheme_host_and_port_have_to_be_listed(url: str, allowed: str, goes: bool) -> None:
    assert goes_to(url, allowed) is goes
    assert goes_to(url, "https://first.test", allowed, "https://*.last.test") is goes


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
        "https://api.test:port",
        "",
        "*",
    ],
)
def test_what_is_no_origin_is_refused_and_named(text: str) -> None:
    with pytest.raises(ValueError, match="is no origin") as caught:
        compiled([text])
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["http://api.test", "ftp://api.test", "http://*.api.test"])
def test_an_origin_that_must_not_get_a_bearer_cannot_be_listed(text: str) -> None:
    with pytest.raises(ValueError, match="https only"):
        compiled(text)


@pytest.mark.parametrize("origins", [[5], [b"https://api.test"], b"https://api.test", 5])
def test_origins_are_strings(origins: Any) -> None:
    with pytest.raises(TypeError):
        compiled(origins)


def test_one_origin_need_not_stand_in_a_list_and_equal_lists_are_compiled_once() -> None:
    assert compiled("https://api.test") is compiled(["https://api.test"])
    assert compiled(None) is compiled(None)


def test_what_was_asked_once_is_remembered_within_bounds() -> None:
    origins = Origins(("https://*.test",))
    for number in range(3000):
        origins.check(httpx.URL(f"https://host{number}.test"))
    assert len(origins._known) <= 1024


@both_libraries
@pytest.mark.anyio
@pytest.mark.parametrize(
    "url, options, said",
    [
        ("http://api.test/", {}, ["http://api.test", "https only"]),
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
