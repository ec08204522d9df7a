"""The API behind the token: which requests it accepts, why it refuses others, and whom it may refuse."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import httpx

from tests.simulation.plan import ApiPlan

if TYPE_CHECKING:
    from tests.simulation.world import World

_BODY = httpx.ByteStream(b"")
_ALLOWED = (("GET", "/me"), ("GET", "/orders/{}"), ("POST", "/orders"), ("GET", "/users/{}/photos"))
_FORBIDDEN = (("DELETE", "/users/{}"), ("GET", "/reports"), ("PUT", "/orders/{}/price"))
_BACK_WITHIN = 330.0
"""Seconds in which an API that is back is used again: five minutes, and a little."""
_LEARNS_WITHIN = 0.9
"""A token that the API learns of within so many seconds is refused to nobody: it is sent once more after a second."""


@lru_cache(maxsize=4096)
def _url(path: str) -> httpx.URL:
    return httpx.URL(f"https://api.test{path}")


@dataclass(slots=True)
class Request:
    """As much of a request as `RefreshAuth` looks at."""

    method: str = "GET"
    path: str = "/me"
    stream: httpx.ByteStream = _BODY
    headers: dict[str, str] = field(default_factory=dict)
    allowed: bool = True
    public: bool = False

    @property
    def url(self) -> httpx.URL:
        return _url(self.path)


@dataclass(frozen=True, slots=True)
class Response:
    """As much of a response as `RefreshAuth` looks at."""

    request: Request
    status_code: int
    headers: dict[str, str] = field(default_factory=dict)
    is_stream_consumed: bool = True
    http_version: str = "HTTP/1.1"
    content: bytes = b""


class Api:
    """Answers requests, and sees whom it refuses.

    Attributes:
        why: why the last answer to each request was a refusal: "stale" (the token is good no more), or one of the
            things that are wrong with the API.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._plan = world.plan.api or ApiPlan()
        self._refused: Counter[str] = Counter()
        """How many innocent requests were refused with each access token that was good no more."""

    def request(self) -> Request:
        """Choose what a caller asks for."""
        world, plan = self._world, self._plan
        if world.plan.api is None or world.calm:
            return Request()
        dice = world.random.random()
        if plan.forbidden and dice < 0.15:
            method, path = _FORBIDDEN[world.random.randrange(plan.forbidden)]
            return Request(method, path.format(world.random.randrange(1000)), allowed=False)
        if plan.public and dice > 0.7:
            return Request("GET", "/health", public=True)
        method, path = world.random.choice(_ALLOWED)
        return Request(method, path.format(world.random.randrange(1000)))

    def refusal(self, request: Request, access_token: str) -> str:
        """Say why the request is refused; nothing if it is accepted."""
        world, plan = self._world, self._plan
        if request.public:
            return ""
        if plan.refuses[0] <= world.now < plan.refuses[1]:
            return "refuses everybody"
        if not world.server.accepts(access_token):
            return "stale"
        if world.now < world.server.access_tokens[access_token].issued_at + plan.lag:
            return "late"
        if not request.allowed:
            return "forbidden"
        return "random" if world.chance(plan.random / 100.0) else ""

    def passed_on(self, request: Request, access_token: str, why: str, began: float) -> None:
        """Judge a refusal that the caller got to see."""
        world, plan = self._world, self._plan
        if world.plan.api is None or not request.allowed or world.calm:
            return
        world.require(
            why != "late" or plan.lag > _LEARNS_WITHIN,
            "a token that the API learns of within a second is sent once more",
            request.path,
        )
        out, back = plan.refuses
        unused = plan.rekeys and out <= world.now and began < back + _BACK_WITHIN
        if why == "stale" and not unused:
            self._refused[access_token] += 1
            world.require(
                self._refused[access_token] <= plan.innocents,
                "an innocent request is not refused while a good token can be had",
                request.path,
                access_token,
            )
