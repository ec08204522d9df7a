"""The token endpoint as a process sees it: over a network that delays and loses, from a server that may be busy."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from httpx_refresh import (
    ReauthorizationRequired,
    RefreshUnavailable,
    StepUpRequired,
    Token,
    _limits,
)
from tests.simulation.server import Spending

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.simulation.process import Process
    from tests.simulation.world import World

_FAULTS = (
    "not sent",
    "lost request",
    "late request",
    "lost answer",
    "late answer",
    "busy",
    "refused",
    "error before",  # 5xx, and nothing was done
    "error after",  # 5xx, and the token was spent
    "garbage",  # something that is no token, and the token was spent
)


_ODD = ("odd retry_after", "odd outcome", "BaseException", "odd token")
_ARRIVES = {"", "late request", "late answer", "lost answer", "error after", "garbage", "odd token"}


class Odd(BaseException):
    """What a custom endpoint raises, and no `except Exception` catches."""


class Endpoint:
    """What `RefreshAuth` of one process refreshes with."""

    name = "server"
    origins = ("https://api.test",)
    is_expired = None

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process
        api = world.plan.api
        self.takes_claims = api is not None and bool(api.step_ups)
        self.client_fingerprint = (
            "stale" if process.number < world.plan.refuses_clients[2] else "good"
        )
        odd = world.plan.has("odd endpoint") and world.random.random() < 0.3
        self.reuse_grace: Any = world.plan.client_grace
        if odd:
            self.reuse_grace = world.random.choice([None, "7", float("nan"), -1.0, object()])

    async def refresh(self, token: Token, /, *, claims: Mapping[str, Any] | None = None) -> Token:
        world, process = self._world, self._process
        assert token.refresh_token is not None
        await self._connects()
        world.budget.sends(process)
        asked = frozenset((claims or {}).get("access_token", {}))
        spending = world.watch.sends(process, token.refresh_token)
        outcome = "unknown"
        try:
            fields = await self._exchange(spending, asked)
            outcome = "token"
        except RefreshUnavailable as error:
            outcome = error.outcome
            raise
        except StepUpRequired:
            outcome = "refused"
            raise
        finally:
            world.watch.has_sent(spending, outcome)
        if fields is None:
            raise ReauthorizationRequired("refused", error="invalid_grant")
        return token_of(fields, process.wall())

    @property
    def _latency(self) -> float:
        plan = self._world.plan
        return plan.latency["server"] * self._process.refresh_timeout / plan.refresh_timeout

    async def _connects(self) -> None:
        """Make a connection, if there is none: whoever is stopped meanwhile would send late."""
        world, process = self._world, self._process
        if world.random.random() < 0.3:
            connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            world.after(world.about(self._latency), lambda: process.hands(connected, None))
            await connected
            _limits.require_time()

    def _answer(self, spending: Spending, claims: frozenset[str]) -> dict[str, Any] | None:
        """Do what the request asks for, at the server."""
        return self._world.server.spend(spending, claims)

    async def _exchange(
        self, spending: Spending, claims: frozenset[str] = frozenset()
    ) -> dict[str, Any] | None:
        world, process, plan = self._world, self._process, self._world.plan
        fault, there, back = "", *(world.about(self._latency) for _ in range(2))
        if plan.has("endpoint") and world.chance(plan.endpoint_fails):
            fault = world.random.choice(_FAULTS)
            process.fault(fault)
        if plan.has("odd endpoint") and world.chance(plan.endpoint_fails):
            fault = world.random.choice(_ODD)
            process.fault(fault)
        if process.is_refused():
            fault = "refused"
        if plan.silent[0] <= world.now < plan.silent[1]:
            fault = "lost request"
        world.note(process.name, f"sends {spending.refresh_token} {fault}")
        if fault == "late request":
            there += world.random.uniform(0.5, 2.0) * plan.refresh_timeout
        elif fault == "late answer":
            back += world.random.uniform(0.5, 2.0) * plan.refresh_timeout
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        error = _error(world, fault)
        process.hazard()

        def arrives() -> None:
            if "person" in claims:  # Refused before anything is spent.
                world.api.refused_claims += 1
                world.after(back, lambda: process.raises(answer, _wants_a_person()))
                return
            fields = self._answer(spending, claims)
            process.hazard()
            if fault == "garbage":
                fields = {}
            elif fault == "odd token":
                fields = {"access_token": 7}
            if error is None:
                world.after(back, lambda: process.hands(answer, fields))
            elif fault == "error after" or world.random.random() < 0.5:  # else it is silence
                world.after(back, lambda: process.raises(answer, error))

        if fault in _ARRIVES:
            world.after(there, arrives)
        elif fault != "lost request" or world.random.random() < 0.5:
            assert error is not None
            world.after(there + back, lambda: process.raises(answer, error))
        fields: dict[str, Any] | None = await answer
        process.hazard()
        return fields


class Service(Endpoint):
    """What a service gets tokens with: nothing is spent, and asking again is safe."""

    refresh = None  # type: ignore[assignment]  # it can only obtain

    def __init__(self, world: World, process: Process) -> None:
        super().__init__(world, process)
        self.purpose = world.plan.purpose_of(process.number)

    async def obtain(self, held: Token | None) -> Token:
        world, process = self._world, self._process
        await self._connects()
        world.budget.sends(process)
        spending = world.watch.asks(process)
        outcome = "unknown"
        try:
            fields = await self._exchange(spending)
            outcome = "token"
        except RefreshUnavailable as error:
            outcome = error.outcome
            raise
        finally:
            world.watch.has_sent(spending, outcome)
        assert fields is not None
        return token_of(fields, process.wall())

    def _answer(self, spending: Spending, claims: frozenset[str]) -> dict[str, Any] | None:
        return self._world.server.grant(spending, self.purpose)


def _wants_a_person() -> StepUpRequired:
    claims = {"access_token": {"person": {"named": "by the endpoint"}}}
    return StepUpRequired("interaction_required", error="interaction_required", claims=claims)


def _error(world: World, fault: str) -> BaseException | None:
    if fault == "odd retry_after":
        odd: Any = world.random.choice(["7", float("nan"), float("inf"), -1.0, object()])
        return RefreshUnavailable("busy", outcome="busy", retry_after=odd)
    if fault == "odd outcome":
        odd = world.random.choice([None, "perhaps", 7])
        return RefreshUnavailable("what", outcome=odd)
    if fault == "BaseException":
        return world.random.choice([Odd, SystemError, asyncio.CancelledError])("odd")
    if fault == "not sent":
        return RefreshUnavailable("not reached", outcome="not_sent")
    if fault == "refused":
        return RefreshUnavailable("invalid_client", outcome="refused")
    if fault == "busy":
        retry_after = world.random.choice([None, 0.5, 3.0])
        return RefreshUnavailable("busy", outcome="busy", retry_after=retry_after)
    if fault in ("lost request", "lost answer"):
        return ConnectionResetError("lost")
    if fault in ("error before", "error after"):
        return RefreshUnavailable("status 500", outcome="unknown")
    return None


def token_of(fields: dict[str, Any], wall: float) -> Token:
    """Read a token response at this host's time; of garbage, return the garbage."""
    if not isinstance(fields.get("access_token"), str):
        return fields  # type: ignore[return-value]  # no Token, on purpose
    extra = {name: value for name, value in fields.items() if name == "expires_in"}
    expires_at = wall + extra["expires_in"] if extra else fields.get("expires_at")
    return Token(fields["access_token"], fields.get("refresh_token"), expires_at, "Bearer", extra)
