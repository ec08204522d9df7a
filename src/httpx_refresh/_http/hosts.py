"""Which hosts may get a request because a server's document names them: public ones, or neighbours of that server.

Otherwise the author of such a document could make this process send requests to anything it can reach: a service on
this host or in the same network, or a cloud's metadata service.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import httpx

from .origins import is_loopback

if TYPE_CHECKING:
    from .libraries import URL, Request

Place = Literal["public", "private", "link-local", "loopback"]
"""Where an address is: on the Internet, in a private network, on this link, or on this host."""

# RFC 6052 §2.1: an IPv4 address in the last four bytes.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def place_of(address: str) -> Place | None:
    """Return where an IP address is; None for a text that is no address.

    `127.1`, `0x7f.1` and `2130706433` are addresses, too, because clients read them as inet_aton(3) does.
    """
    try:
        ip: Any = ipaddress.ip_address(address)
    except ValueError:
        try:
            ip = ipaddress.IPv4Address(socket.inet_aton(address))
        except (OSError, ValueError):
            return None
    if ip.version == 6:
        inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None
        ip = inner or ip.ipv4_mapped or ip.sixtofour or ip
    if ip.is_loopback or ip.is_unspecified:  # 0.0.0.0 connects to this host.
        return "loopback"
    if ip.is_link_local:
        return "link-local"
    return "public" if ip.is_global and not ip.is_multicast else "private"


def is_this_host(url: URL) -> bool:
    """Return whether a URL leads to this machine in any notation; names below `localhost` do (RFC 6761)."""
    host = _name_of(url.raw_host)
    return host == "localhost" or host.endswith(".localhost") or place_of(host) == "loopback"


class Hosts:
    """The hosts that may get requests besides a server that a person has named.

    That server's own host is always allowed. Other hosts must be public, or in a place of the same kind.

    Mutable: `_home`, the places where that server was found. It only grows. A connection counts once a request is
    about to be sent on it, when its certificate has been checked.

    Args:
        home: the server's URL.
    """

    __slots__ = ("_home", "_host")

    def __init__(self, home: URL) -> None:
        self._host = _name_of(home.raw_host)
        place = "loopback" if is_loopback(self._host) else place_of(self._host)
        self._home: frozenset[Place] = frozenset() if place is None else frozenset({place})

    def check(self, url: URL) -> None:
        """Raise ValueError if the host of a URL is an address, or `localhost`, that is not allowed."""
        host = _name_of(url.raw_host)
        place: Place | None = "loopback" if host.endswith("localhost") else place_of(host)
        if host != self._host and not self._may_ask(place):
            raise ValueError(f"{host} is {_WORDS[place or 'private']}, where {self._host} is not")

    async def watch(self, request: Request) -> None:
        """Raise an error before a request is sent to an address that is not allowed; an event hook of httpx's clients.

        A name may resolve to another address for each connection, so the address of the connection itself is checked.
        A proxy's address is not checked: the proxy's owner has chosen it.
        """
        before = request.extensions.get("trace")
        connecting: str | None = None
        found: Place | None = None
        host = _name_of(request.url.raw_host)

        async def trace(name: str, info: Mapping[str, Any]) -> None:
            nonlocal connecting, found
            if before is not None:
                await before(name, info)
            event = name.partition(".")[2]
            if event == "connect_tcp.started":
                connecting = str(info["host"]).lower()
            elif event == "connect_tcp.complete" and connecting == host:
                stream = info["return_value"]
                address = stream.get_extra_info("server_addr")
                found = None if address is None else place_of(str(address[0]))
                if host != self._host and not self._may_ask(found):
                    await stream.aclose()
                    raise httpx.ConnectError(
                        f"{host} was found at an address that is {_WORDS[found or 'private']}, where {self._host} is "
                        "not"
                    )
            elif event == "send_request_headers.started" and host == self._host and found:
                self._home = frozenset((*self._home, found))

        request.extensions = {**request.extensions, "trace": trace}

    def _may_ask(self, place: Place | None) -> bool:
        return place is None or place == "public" or place in self._home


_WORDS: dict[Place, str] = {
    "public": "public",
    "private": "in a private network",
    "link-local": "link-local",
    "loopback": "on this host",
}


def _name_of(raw_host: bytes) -> str:
    return raw_host.decode("ascii").lower().rstrip(".")
