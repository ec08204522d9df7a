from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import anyio
import httpx
import pytest
import trio

from httpx_refresh._http.hosts import Hosts, place_of
from httpx_refresh.testing import RunningServer, running_server
from tests.fakes import both_libraries

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "address, place",
    [
        ("93.184.215.14", "public"),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", "public"),
        ("10.1.2.3", "private"),
        ("172.16.0.1", "private"),
        ("192.168.1.1", "private"),
        ("100.64.0.1", "private"),
        ("fd00::1", "private"),
        ("224.0.0.1", "private"),
        ("169.254.169.254", "link-local"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("127.0.0.1", "loopback"),
        ("127.8.8.8", "loopback"),
        ("0.0.0.0", "loopback"),  # noqa: S104 - an address that is looked at, not listened on
        ("::", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:10.0.0.1", "private"),
        ("64:ff9b::a00:1", "private"),
        ("64:ff9b::5db8:d70e", "public"),
        ("2002:7f00:1::", "loopback"),
        ("mcp.example.com", None),
        ("", None),
    ],
)
def test_an_address_is_told_by_where_it_leads_however_it_is_written(
    address: str, place: str | None
) -> None:
    assert place_of(address) == place


@pytest.mark.parametrize(
    "home, url, may",
    [
        ("https://mcp.example.com/", "https://login.example.com/", True),
        ("https://mcp.example.com/", "https://mcp.example.com/", True),
        ("https://mcp.example.com/", "https://93.184.215.14/", True),
        ("https://mcp.example.com/", "https://10.0.0.1/", False),
        ("https://mcp.example.com/", "https://169.254.169.254/", False),
        ("https://mcp.example.com/", "https://127.0.0.1/", False),
        ("https://mcp.example.com/", "https://[::1]/", False),
        ("https://mcp.example.com/", "https://localhost/", False),
        ("https://mcp.example.com/", "https://localhost./", False),
        ("https://mcp.example.com/", "https://LOCALHOST/", False),
        ("https://mcp.example.com/", "https://a.localhost/", False),
        ("http://127.0.0.1:8000/", "http://localhost:9000/", True),
        ("http://localhost:8000/", "http://[::1]:9000/", True),
        ("http://127.0.0.1:8000/", "https://10.0.0.1/", False),
        ("http://127.0.0.1:8000/", "https://login.example.com/", True),
        ("https://10.0.0.2/", "https://10.0.0.1/", True),
        ("https://10.0.0.2/", "https://127.0.0.1/", False),
        ("https://10.0.0.2/", "https://169.254.169.254/", False),
    ],
)
def test_a_document_leads_to_public_hosts_or_to_neighbours_of_the_server(
    home: str, url: str, may: bool
) -> None:
    hosts = Hosts(httpx.URL(home))
    if may:
        hosts.check(httpx.URL(url))
    else:
        with pytest.raises(ValueError, match="is not"):
            hosts.check(httpx.URL(url))


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        yield running


@pytest.fixture
def _names_lead_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve all names below `.test` to this host."""
    for module, name in ((anyio, "connect_tcp"), (trio, "open_tcp_stream")):
        monkeypatch.setattr(module, name, _leading_here(getattr(module, name)))


def _leading_here(connect: Callable[..., Any]) -> Callable[..., Any]:
    async def connected(*args: Any, **kwargs: Any) -> Any:
        def mapped(value: Any) -> Any:
            return "127.0.0.1" if str(value).endswith(".test") else value

        return await connect(
            *map(mapped, args), **{key: mapped(value) for key, value in kwargs.items()}
        )

    return connected


def page(server: RunningServer, host: str) -> str:
    return f"http://{host}:{httpx.URL(server.url).port}/api/ping"


@both_libraries
@pytest.mark.usefixtures("_names_lead_here")
async def test_a_name_that_leads_into_this_host_is_sent_nothing(
    server: RunningServer, http: Any
) -> None:
    before = server.stats()["api_requests"]
    hosts = Hosts(httpx.URL("https://mcp.example.com/mcp"))
    async with http.AsyncClient(event_hooks={"request": [hosts.watch]}, trust_env=False) as client:
        with pytest.raises(httpx.ConnectError, match=r"inside\.test was found at .* on this host"):
            await client.get(page(server, "inside.test"))
    assert server.stats()["api_requests"] == before


@both_libraries
@pytest.mark.usefixtures("_names_lead_here")
async def test_where_the_server_itself_was_found_there_others_may_be_asked(
    server: RunningServer, http: Any
) -> None:
    before = server.stats()["api_requests"]
    hosts = Hosts(httpx.URL(page(server, "home.test")))
    async with http.AsyncClient(event_hooks={"request": [hosts.watch]}, trust_env=False) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(page(server, "inside.test"))
        for host in ("home.test", "inside.test"):
            assert (await client.get(page(server, host))).status_code == 401
    assert server.stats()["api_requests"] == before + 2


@both_libraries
@pytest.mark.usefixtures("_names_lead_here")
async def test_a_trace_of_somebody_elses_goes_on(server: RunningServer, http: Any) -> None:
    seen: list[str] = []

    async def note(name: str, info: Any) -> None:
        seen.append(name)

    hosts = Hosts(httpx.URL(page(server, "home.test")))
    async with http.AsyncClient(event_hooks={"request": [hosts.watch]}, trust_env=False) as client:
        await client.get(page(server, "home.test"), extensions={"trace": note})
    assert "connection.connect_tcp.complete" in seen


@pytest.mark.usefixtures("_names_lead_here")
async def test_a_proxy_may_be_anywhere(server: RunningServer) -> None:
    """The proxy is the person's choice, and so is where it connects to."""
    proxy = server.url
    hosts = Hosts(httpx.URL("https://mcp.example.com/mcp"))
    async with httpx.AsyncClient(
        event_hooks={"request": [hosts.watch]}, proxy=proxy, trust_env=False
    ) as client:
        answer = await client.get("http://login.example.com/api/ping")
    assert answer.status_code in (401, 404)
