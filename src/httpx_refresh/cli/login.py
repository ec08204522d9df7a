"""The command `httpx-refresh login`: a person logs in, and the token is saved in a slot."""

from __future__ import annotations

import os
import threading
import time
import webbrowser
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

import anyio

from .._auth import RefreshAuth
from .._challenges import claims_of
from .._errors import LoginFailed
from .._oauth.endpoint import TokenEndpoint
from .._oauth.login import AuthorizationRequest
from .._refresh.slot import Slot
from .._token import Token
from ..mcp import Login, Server
from ..stores.base import TokenStore
from .console import Problem, ask_hidden, run, say, tell, warn
from .loopback import GRACE, Loopback, Place, place_of
from .settings import Settings
from .slots import prepare

_T = TypeVar("_T")


@dataclass(frozen=True)
class How:
    """The way of the login, and what it requests besides the scope.

    `timeout` is in seconds and limits the whole login; `register`: register again at an MCP server's issuer.
    """

    device: bool
    paste: bool
    timeout: float
    register: bool = False
    asked: Mapping[str, str] = field(default_factory=dict[str, str])


def asked_for(claims: str | None, acr_values: str | None, max_age: int | None) -> dict[str, str]:
    """Return the parameters of a login that an API requires (RFC 9470 §4)."""
    if claims is not None and claims_of(claims) is None:
        raise Problem(
            "--claims must be a JSON object, such as a StepUpRequired error's params hold"
        )
    asked = {
        "claims": claims,
        "acr_values": acr_values,
        "max_age": None if max_age is None else str(max_age),
    }
    return {name: value for name, value in asked.items() if value is not None}


class _Deadline:
    """The time at which a login is given up, whether it waits for the network, the store or the person."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._ends_at = time.monotonic() + timeout

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return max(0.0, self._ends_at - time.monotonic())

    async def bound(self, what: Callable[[], Awaitable[_T]], late: str, *, grace: float = 0) -> _T:
        """Return the result of `what`; raise `LoginFailed` if it takes longer than the time that is left.

        Args:
            what: a call, which is cancelled when the time is up.
            late: what did not happen, for the message.
            grace: seconds that the call gets at least.
        """
        with anyio.move_on_after(max(self.left, grace)):
            return await what()
        raise self.passed(late)

    def passed(self, late: str, advice: str = "Start the login again.") -> LoginFailed:
        """Return the error for a step that took too long."""
        return LoginFailed(f"{late} within {self._timeout:g} s (--timeout). {advice}")


class _Request(Protocol):
    """A login that has begun: the browser goes to `url`, and comes back with `state`."""

    @property
    def url(self) -> str: ...
    @property
    def state(self) -> str: ...


class _Where(Protocol):
    """A server where a person logs in with a browser. Each finishes only logins that it has begun."""

    name: str

    async def places(self) -> list[Place]:
        """Return the places that the browser may return to, the best one first."""
        ...

    async def begin(self, redirect_uri: str) -> _Request:
        """Begin a login that ends at `redirect_uri`."""
        ...

    async def finish(self, redirect: str, request: Any) -> Token:
        """Exchange the redirect's parameters for a token."""
        ...


class _AtEndpoint:
    """A login at an authorization server whose endpoints are known."""

    def __init__(
        self, endpoint: TokenEndpoint, settings: Settings, asked: Mapping[str, str]
    ) -> None:
        self.name = endpoint.name
        self._asked = asked
        self._endpoint = endpoint
        self._settings = settings

    async def places(self) -> list[Place]:
        return [place_of(self._settings.redirect_uri, self._settings.port)]

    async def begin(self, redirect_uri: str) -> AuthorizationRequest:
        try:
            return self._endpoint.authorization_url(
                redirect_uri, scope=self._settings.scope, **self._asked
            )
        except ValueError as error:
            raise Problem(str(error)) from None

    async def finish(self, redirect: str, request: AuthorizationRequest) -> Token:
        return await self._endpoint.exchange_code(redirect, request)


class _AtServer:
    """A login at the issuer of an MCP server's tokens."""

    def __init__(self, server: Server, settings: Settings, store: TokenStore, how: How) -> None:
        self.name = server.name
        self._how = how
        self._server = server
        self._settings = settings
        self._store = store

    async def places(self) -> list[Place]:
        chosen = place_of(self._settings.redirect_uri, self._settings.port)
        if self._settings.redirect_uri is not None or self._settings.port is not None:
            return [chosen]
        # Most servers compare the port, too. On the port of the last login, no new registration is needed.
        before = await self._server.registered_redirect_uris(self._store)
        return [*(place_of(uri, None) for uri in before if _is_loopback(uri)), chosen]

    async def begin(self, redirect_uri: str) -> Login:
        return await self._server.begin_login(
            self._store,
            redirect_uri,
            scope=self._settings.scope,
            register=self._how.register,
            **self._how.asked,
        )

    async def finish(self, redirect: str, request: Login) -> Token:
        return await self._server.finish_login(self._store, redirect, request)


def _is_loopback(uri: str) -> bool:
    try:
        place_of(uri, None)
    except Problem:
        return False
    return True


def log_in(settings: Settings, how: How) -> None:
    """Log in and save the token. If anything fails, the earlier token stays."""
    if settings.grant is not None:
        raise Problem(
            f"{settings.label} is a service (grant {settings.grant}): nobody logs in for it. `httpx-refresh token "
            f"{settings.name or ''}` gets its token".rstrip()
        )
    if how.device and how.asked:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in how.asked)
        raise Problem(
            f"a device login cannot ask for {names} (RFC 8628 §3.1); log in without --device"
        )
    if how.device and settings.mcp is not None:
        raise Problem(
            "--device does not go with --mcp: the authorization of MCP servers has no device login (RFC 8628). Log in "
            "with a browser; --no-browser does for a machine that has none"
        )
    settings.check_login()
    deadline = _Deadline(how.timeout)
    source, slot = run(partial(_prepare, settings, deadline))
    _clear_environment(settings)
    # No origins, because a login sends no request to the API.
    auth = RefreshAuth(source, slot.store, origins=())
    where: _Where
    if isinstance(source, Server):
        where = _AtServer(source, settings, slot.store, how)
    else:
        where = _AtEndpoint(source, settings, how.asked)
    if how.paste:
        # Asked while no event loop runs, so that Ctrl-C ends the question at once.
        redirect_uri = _unawaited(settings)
        request = run(partial(_begun, where, redirect_uri, deadline))
        redirect = _ask_for_redirect(request, redirect_uri, deadline)
        token = run(partial(_redeem_pasted, where, auth, redirect, request, deadline))
    elif how.device and not isinstance(source, Server):
        token = run(partial(_with_device, source, settings, auth, deadline))
    else:
        token = run(partial(_with_browser, where, auth, deadline))
    say(f"Logged in at {where.name}. The token is in {slot.store!r}.", "green")
    fields = () if isinstance(source, Server) else source.login.redirect_fields
    for name in fields:
        if name in token.extra:
            say(f"{name}: {token.extra[name]}")
    if token.refresh_token is None:
        warn(
            f"{where.name} gave no refresh token, so this one ends when its access token does. Most providers give "
            "one for the scope offline_access only."
        )


async def _prepare(settings: Settings, deadline: _Deadline) -> tuple[TokenEndpoint | Server, Slot]:
    """Check everything that can be checked before a person is asked for anything."""
    source = await deadline.bound(
        settings.login_place, "The provider did not say where its endpoints are"
    )
    if isinstance(source, TokenEndpoint) and settings.scope is None and not source.login.scope:
        tell("No --scope was given: the provider decides what the token may do.")
    slot = await deadline.bound(partial(prepare, settings), "The store did not answer")
    return source, slot


def _clear_environment(settings: Settings) -> None:
    """Remove this program's settings from the environment, which the browser inherits.

    They have been read by now, and may hold a secret or a store's password.
    """
    for name in list(os.environ):
        if name.startswith("HTTPX_REFRESH_") or name == settings.client_secret_env:
            del os.environ[name]


async def _begun(where: _Where, redirect_uri: str, deadline: _Deadline) -> _Request:
    late = f"{where.name} did not say where to log in"
    return await deadline.bound(partial(where.begin, redirect_uri), late)


async def _redeem(where: _Where, auth: RefreshAuth, redirect: str, request: _Request) -> Token:
    return await _save(auth, await where.finish(redirect, request))


async def _save(auth: RefreshAuth, token: Token) -> Token:
    # Nobody else has this token, so it is saved even if the time is up. A store's calls are limited anyway.
    with anyio.CancelScope(shield=True):
        await auth.set_token(token)
    return token


async def _redeem_pasted(
    where: _Where, auth: RefreshAuth, redirect: str, request: _Request, deadline: _Deadline
) -> Token:
    redeem = partial(_redeem, where, auth, redirect, request)
    late = f"The code was not redeemed at {where.name}"
    return await deadline.bound(redeem, late, grace=GRACE)


async def _with_browser(where: _Where, auth: RefreshAuth, deadline: _Deadline) -> Token:
    tokens: list[Token] = []
    async with AsyncExitStack() as stack:
        server = await _listening(stack, await where.places())
        request = await _begun(where, server.redirect_uri, deadline)

        async def begin() -> None:
            tell(f"Opening a browser at {where.name}. If none opens, go to this address yourself:")
            say(request.url)
            # A text browser returns only when it is closed. Nothing waits for it, not even at the end.
            threading.Thread(target=webbrowser.open, args=(request.url,), daemon=True).start()

        async def complete(redirect: str) -> None:
            # Saved before the page tells the person so.
            tokens.append(await _redeem(where, auth, redirect, request))

        await server.serve(begin, complete, state=request.state, timeout=deadline.left)
        if not tokens and server.taken:
            raise deadline.passed(f"The code was not redeemed at {where.name}")
        if not tokens:
            raise deadline.passed(
                "Nobody came back from the login",
                "The browser was closed, or is on another machine (then use --no-browser). Nothing has changed.",
            )
    return tokens[0]


async def _listening(stack: AsyncExitStack, places: list[Place]) -> Loopback:
    """Return a server that listens at the first free one of these places."""
    *better, last = places
    for place in better:
        with suppress(Problem):
            return await stack.enter_async_context(Loopback(place))
    return await stack.enter_async_context(Loopback(last))


def _unawaited(settings: Settings) -> str:
    """Return the redirect URI of a login whose browser does not return to this program."""
    if settings.redirect_uri is not None:
        return settings.redirect_uri
    port = "" if settings.port is None else f":{settings.port}"
    return f"http://127.0.0.1{port}/callback"


def _ask_for_redirect(request: _Request, redirect_uri: str, deadline: _Deadline) -> str:
    tell("Open this address in a browser, anywhere, and log in:")
    say(request.url)
    tell(
        f"It ends at an address that begins with {redirect_uri}, on a page that need not load. Copy that address from "
        "the address bar."
    )
    redirect = ask_hidden("Paste it here (it is not shown): ", timeout=deadline.left)
    if not redirect:
        raise LoginFailed("No address was pasted. Nothing has changed.")
    return redirect


async def _with_device(
    endpoint: TokenEndpoint, settings: Settings, auth: RefreshAuth, deadline: _Deadline
) -> Token:
    if endpoint.login.device_authorization_endpoint is None:
        raise Problem(
            f"{endpoint.name} is not known to log in devices; give --device-authorization-url if it does"
        )
    device = await deadline.bound(
        partial(endpoint.device_authorization, scope=settings.scope),
        f"{endpoint.name} began no device login",
    )
    tell(f"On any device, open {device.verification_uri} and enter this code:")
    say(device.user_code, "bold")
    if device.verification_uri_complete is not None:
        tell(f"Or open {device.verification_uri_complete}")

    async def wait() -> Token:
        return await _save(auth, await endpoint.device_token(device))

    return await deadline.bound(wait, "Nobody decided about the login")
