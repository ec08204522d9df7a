"""The API behind the token: which requests it accepts, why it refuses others, and whom it may refuse."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import httpx

from httpx_refresh import StepUpRequired
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
    step_up: str = ""
    """What it is asked for besides a token, see `ApiPlan.step_ups`."""
    wanted: list[Mapping[str, Any]] = field(default_factory=list)
    """The claims that the API wanted of it."""

    @property
    def url(self) -> httpx.URL:
        return _url(self.path)


@dataclass(slots=True)
class Response:
    """As much of a response as `RefreshAuth` looks at."""

    request: Request
    status_code: int
    headers: dict[str, str] = field(default_factory=dict)
    is_stream_consumed: bool = True
    http_version: str = "HTTP/1.1"
    content: bytes = b""

    def read(self) -> bytes:
        return self.content

    async def aread(self) -> bytes:
        return self.content


class Api:
    """Answers requests, and sees whom it refuses.

    Attributes:
        why: why the last answer to each request was a refusal: "stale" (the token is good no more), or one of the
            things that are wrong with the API.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._plan = world.plan.api or ApiPlan()
        self._claims = 0
        self.refused_claims = 0
        """How often the token endpoint wanted a person for claims."""
        self._refused: Counter[str] = Counter()
        """How many innocent requests were refused with each access token that was good no more."""

    def request(self) -> Request:
        """Choose what a caller asks for."""
        world, plan = self._world, self._plan
        if world.plan.api is None or world.calm:
            return Request()
        dice = world.random.random()
        if plan.forbidden and dice < 0.15:
            method, path = _FORBIDDEN[world.below(plan.forbidden)]
            return Request(method, path.format(world.below(1000)), allowed=False)
        if plan.step_ups and dice < 0.5:
            asks = world.choice(plan.step_ups)
            path = f"/{asks}/{world.below(1000)}"
            return Request("POST", path, step_up=asks)
        if plan.public and dice > 0.7:
            return Request("GET", "/health", public=True)
        method, path = world.choice(_ALLOWED)
        return Request(method, path.format(world.below(1000)))

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
        if request.step_up:
            held = world.server.access_tokens[access_token].claims
            return "" if request.step_up == "claims" and "claims" in held else "step-up"
        return "random" if world.chance(plan.random / 100.0) else ""

    def challenge(self, request: Request, why: str) -> dict[str, str]:
        """Return the header fields of a refusal."""
        if why != "step-up":
            return {}
        if request.step_up == "login":
            return {
                "www-authenticate": 'Bearer error="insufficient_user_authentication", acr_values="gold"'
            }
        self._claims += 1
        name = f"new {self._claims}" if request.step_up == "new" else request.step_up
        claims = {"access_token": {name: {"essential": True}}}
        request.wanted.append(claims)
        text = json.dumps(claims).replace('"', '\\"')
        return {"www-authenticate": f'Bearer error="insufficient_claims", claims="{text}"'}

    def stepped_up(self, request: Request, error: StepUpRequired) -> None:
        """Judge that a caller was told to send a person to log in."""
        world, require = self._world, self._world.require
        require(request.step_up, "a login is asked for only where the API does so", request.path)
        # It pauses after the second refresh with claims of which nothing came.
        require(
            request.step_up != "claims" or world.plan.faults or self.refused_claims > 1,
            "claims that a refresh brings are brought",
            request.path,
        )
        named = {"access_token": {"person": {"named": "by the endpoint"}}}
        own = (*request.wanted, *([named] if request.step_up == "person" else []))
        require(
            error.claims in own if own else error.acr_values == "gold",
            "a caller is told what its own request is asked for",
            request.path,
            error.claims,
        )

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
