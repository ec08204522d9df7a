"""A caller: it calls the API or asks for a token repeatedly, is sometimes cancelled, and records what it got."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio
import httpx

from httpx_refresh import RefreshAuthError, StepUpRequired, Token
from tests.simulation.api import Request, Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.simulation.process import Process

_FORCES, _LOGS_IN = 0.05, 0.05


class Caller:
    """Calls until the horizon, and then until a request is accepted or a login is needed."""

    def __init__(self, process: Process, name: str) -> None:
        self._process = process
        self._world = process.world
        self._name = name

    async def run(self) -> None:
        """Call while things go wrong, and once more when they do no longer."""
        world, plan = self._world, self._world.plan
        while not world.calm:
            await self._sleep(world.about(plan.think))
            if plan.has("cancel") and world.chance(plan.cancels):
                await self._cancelled(self._choice())
            else:
                await self._answered(self._choice())
        await self.settle()

    async def settle(self) -> None:
        """Ask until the API accepts, or a login is needed and nothing else will do."""
        pause = 1.0
        while not await self._answered(self._request) and not self._world.watch.needs_login():
            await self._sleep(self._world.about(pause))
            pause = min(pause * 1.3, 60.0)

    def _choice(self) -> Callable[[], Awaitable[bool]]:
        plan, dice = self._world.plan, self._world.random.random()
        if plan.forces and dice < _FORCES:
            return self._refresh
        if plan.sets_tokens and dice > 1.0 - _LOGS_IN:
            return self._set_token
        return self._token if dice < 0.1 else self._request

    # -- how it waits: a caller in a thread does it otherwise ---------------------------------------------------

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def _flow(self, request: Request) -> Any:
        return self._process.auth.async_auth_flow(request)

    def _answer(self) -> Any:
        return asyncio.get_running_loop().create_future()

    async def _wait_for(self, answer: Any) -> Any:
        return await answer

    async def _ask_token(self) -> Token:
        return await self._process.auth.token()

    async def _ask_refresh(self) -> Token:
        return await self._process.auth.refresh()

    async def _ask_set_token(self, token: Token) -> None:
        await self._process.auth.set_token(token)

    # -- what it asks ------------------------------------------------------------------------------------------

    async def _request(self) -> bool:
        """Make one request as an HTTP client does with an `Auth`; return whether the API accepted it."""
        asked = self._world.api.request()
        flow = self._flow(asked)
        sends, began, login = 0, self._world.now, self._process.login
        try:
            request = await self._held(flow.__anext__())
            while True:
                sends += 1
                self._world.watch.not_undone(login, _sent(request))
                self._world.require(sends <= 3, "a request is sent three times at most")
                response, why = await self._send(request)
                try:
                    request = await self._held(flow.asend(response))
                except StopAsyncIteration:
                    break
        except StepUpRequired as error:
            self._world.api.stepped_up(asked, error)
            return True
        finally:
            await flow.aclose()
        if response.status_code == 401:
            self._world.api.passed_on(asked, _sent(asked), why, began)
        return response.status_code == 200 or not asked.allowed

    async def _held(self, call: Awaitable[Any]) -> Any:
        """Await what the library does, and see that it holds nobody longer than it may."""
        world, process = self._world, self._process
        began, stopped = world.now, process.time_stopped
        try:
            return await call
        finally:
            took = world.now - began - (process.time_stopped - stopped)
            most = world.plan.held * process.refresh_timeout + 0.1
            if took > most * (1.0 + world.plan.drift) and not world.plan.lenient:
                world.require(False, "nobody is held for longer", took, most)

    async def _send(self, request: Request) -> tuple[Response, str]:
        world, process = self._world, self._process
        access_token = _sent(request)
        world.watch.handed_out(process, access_token)
        answer = self._answer()
        there, back = world.about(0.03), world.about(0.03)

        def arrives() -> None:
            fails = world.plan.has("api") and world.chance(0.02)
            why = world.api.refusal(request, access_token)
            if fails and world.random.random() < 0.5:
                world.after(back, lambda: process.raises(answer, httpx.ReadError("lost")))
            else:
                status = 500 if fails else 401 if why else 200
                said = {} if fails else world.api.challenge(request, why)
                world.after(back, lambda: process.hands(answer, (status, why, said)))

        world.after(there, arrives)
        status, why, headers = await self._wait_for(answer)
        if status == 401 and not headers:
            process.refused.add(access_token)
        if "claims=" in headers.get("www-authenticate", ""):
            process.lacking.add(access_token)
        return Response(request, status, headers), why

    async def _token(self) -> bool:
        login = self._process.login
        token = await self._held(self._ask_token())
        self._world.watch.not_undone(login, token.access_token)
        self._world.watch.handed_out(self._process, token.access_token)
        return True

    async def _refresh(self) -> bool:
        self._process.forces = True
        token = await self._held(self._ask_refresh())
        self._world.watch.handed_out(self._process, token.access_token)
        return True

    async def _set_token(self) -> bool:
        fields = self._world.server.login()
        token = Token(fields["access_token"], fields["refresh_token"])
        self._world.watch.logins.add(token.access_token)
        try:
            await self._held(self._ask_set_token(token))
        except RefreshAuthError as error:
            slow = self._world.plan.has("slow store") or self._world.plan.lenient
            self._world.require(slow, "a login repairs what is damaged", error)
            raise
        self._process.login = token.access_token
        return True

    # -- how it asks -------------------------------------------------------------------------------------------

    async def _answered(self, ask: Callable[[], Awaitable[bool]]) -> bool:
        """Ask, and see that the answer comes in time and is one of those that may come."""
        world, process = self._world, self._process
        began, stopped, claims = world.now, process.time_stopped, world.watch.claims_made
        try:
            good = await ask()
            said = "good" if good else "refused"
        except RefreshAuthError as error:
            good, said = False, type(error).__name__
            world.watch.failed(process, error, began)
        except httpx.ReadError:
            good, said = False, "no answer from the API"
        took = world.now - began - (process.time_stopped - stopped)
        world.note(self._name, f"{ask.__name__} {said} after {took:.2f} s")
        world.watch.answered(took, world.watch.claims_made - claims)
        # A token of which nobody knows how long it lives, and that nobody has used yet, may be refused for a minute.
        plan = world.plan
        if not good:
            disturbed = plan.faults or plan.forces or world.calm or not plan.says_lifetime
            disturbed = disturbed or plan.skew > 1.0 or bool(plan.timeouts)
            # Who waits for the refreshes of all others may have no time left for its own.
            slowest = 4.0 * plan.latency["server"]
            disturbed = disturbed or plan.purposes * slowest > plan.refresh_timeout
            disturbed = disturbed or (plan.api is not None and not plan.api.step_ups)
            world.require(disturbed, "where nothing fails, everybody is served", said)
        return good

    async def _cancelled(self, ask: Callable[[], Awaitable[bool]]) -> None:
        """Ask, but not for long: whoever cancels has its way at once."""
        world, process = self._world, self._process
        patience = world.random.choice([0.0, 0.05, 0.3, 1.0]) * process.refresh_timeout
        due, stopped = process.machine.monotonic() + patience, process.time_stopped
        if world.random.random() < 0.5:
            with anyio.move_on_after(patience):
                await self._answered(ask)
        else:
            try:
                await asyncio.wait_for(self._answered(ask), patience)
            except asyncio.TimeoutError:
                world.note(self._name, "gave up")
        late = process.machine.monotonic() - due
        on_time = late < 1e-6 or process.time_stopped != stopped
        world.require(on_time, "a caller that is cancelled ends at once", self._name, late)


def _sent(request: Request) -> str:
    """Return the access token that a request carries."""
    return request.headers["Authorization"].removeprefix("Bearer ")
