"""`httpx-refresh login`: from a person in front of a browser to a token in a slot."""

from __future__ import annotations

import os
import threading
import time
import webbrowser
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import anyio

from .._auth import RefreshAuth
from .._errors import LoginFailed
from .._oauth.endpoint import TokenEndpoint
from .._oauth.login import AuthorizationRequest
from .._refresh.slot import Slot
from .._token import Token
from .console import Problem, ask_hidden, run, say, tell, warn
from .loopback import GRACE, Loopback, place_of
from .settings import Settings
from .slots import prepare

_T = TypeVar("_T")


@dataclass(frozen=True)
class How:
    """In which way the person logs in; `timeout` is in seconds, and bounds the whole login."""

    device: bool
    paste: bool
    timeout: float


class _Deadline:
    """The moment at which a login is given up, whatever it waits for: the network, the store, the person."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._ends_at = time.monotonic() + timeout

    @property
    def left(self) -> float:
        """Seconds until then."""
        return max(0.0, self._ends_at - time.monotonic())

    async def bound(self, what: Callable[[], Awaitable[_T]], late: str, *, grace: float = 0) -> _T:
        """Return what `what` does; raise `LoginFailed` that says `late` if it takes longer than there is time.

        Args:
            what: is cancelled when the time is up.
            late: what did not happen.
            grace: seconds that there are at least.
        """
        with anyio.move_on_after(max(self.left, grace)):
            return await what()
        raise self.passed(late)

    def passed(self, late: str, advice: str = "Start the login again.") -> LoginFailed:
        """Make the error of what was not done in time."""
        return LoginFailed(f"{late} within {self._timeout:g} s (--timeout). {advice}")


def log_in(settings: Settings, how: How) -> None:
    """Log in and save the token; whatever fails, the token that was there stays."""
    if settings.grant is not None:
        raise Problem(
            f"{settings.label} is a service (grant {settings.grant}): nobody logs in for it. `httpx-refresh token "
            f"{settings.name or ''}` gets its token".rstrip()
        )
    deadline = _Deadline(how.timeout)
    endpoint, slot = run(partial(_prepare, settings, deadline))
    _clear_environment(settings)
    # No origins: a login sends no request to the API.
    auth = RefreshAuth(endpoint, slot.store, origins=())
    if how.paste:
        # Asked for while no event loop runs: Ctrl-C is to end the question at once.
        redirect, request = _ask_for_redirect(endpoint, settings, deadline)
        token = run(partial(_redeem_pasted, endpoint, auth, redirect, request, deadline))
    elif how.device:
        token = run(partial(_with_device, endpoint, settings, auth, deadline))
    else:
        token = run(partial(_with_browser, endpoint, settings, auth, deadline))
    say(f"Logged in at {endpoint.name}. The token is in {slot.store!r}.", "green")
    for name in endpoint.login.redirect_fields:
        if name in token.extra:
            say(f"{name}: {token.extra[name]}")
    if token.refresh_token is None:
        warn(
            f"{endpoint.name} gave no refresh token, so this one ends when its access token does. Most providers give "
            "one for the scope offline_access only."
        )


async def _prepare(settings: Settings, deadline: _Deadline) -> tuple[TokenEndpoint, Slot]:
    """Find out what can be found out before a person is asked for anything."""
    endpoint = await deadline.bound(
        settings.endpoint, "The provider did not say where its endpoints are"
    )
    if settings.scope is None and not endpoint.login.scope:
        tell("No --scope was given: the provider decides what the token may do.")
    slot = await deadline.bound(partial(prepare, settings), "The store did not answer")
    return endpoint, slot


def _clear_environment(settings: Settings) -> None:
    """Take this program's settings out of the environment, which the browser and all it starts inherit.

    They have been read by now: a secret, a store's password.
    """
    for name in list(os.environ):
        if name.startswith("HTTPX_REFRESH_") or name == settings.client_secret_env:
            del os.environ[name]


async def _redeem(
    endpoint: TokenEndpoint, auth: RefreshAuth, redirect: str, request: AuthorizationRequest
) -> Token:
    return await _save(auth, await endpoint.exchange_code(redirect, request))


async def _save(auth: RefreshAuth, token: Token) -> Token:
    # Nobody else has this token: it is saved, though the time may be up. A store's calls end by themselves.
    with anyio.CancelScope(shield=True):
        await auth.set_token(token)
    return token


async def _redeem_pasted(
    endpoint: TokenEndpoint,
    auth: RefreshAuth,
    redirect: str,
    request: AuthorizationRequest,
    deadline: _Deadline,
) -> Token:
    redeem = partial(_redeem, endpoint, auth, redirect, request)
    late = f"The code was not redeemed at {endpoint.name}"
    return await deadline.bound(redeem, late, grace=GRACE)


async def _with_browser(
    endpoint: TokenEndpoint, settings: Settings, auth: RefreshAuth, deadline: _Deadline
) -> Token:
    tokens: list[Token] = []
    async with Loopback(place_of(settings.redirect_uri, settings.port)) as server:
        request = _begin(endpoint, server.redirect_uri, settings)

        async def begin() -> None:
            tell(
                f"Opening a browser at {endpoint.name}. If none opens, go to this address yourself:"
            )
            say(request.url)
            # A browser for terminals returns when it is left. Nobody waits for it, not even at the end.
            threading.Thread(target=webbrowser.open, args=(request.url,), daemon=True).start()

        async def complete(redirect: str) -> None:
            # Saved before the person is told so.
            tokens.append(await _redeem(endpoint, auth, redirect, request))

        await server.serve(begin, complete, state=request.state, timeout=deadline.left)
        if not tokens and server.taken:
            raise deadline.passed(f"The code was not redeemed at {endpoint.name}")
        if not tokens:
            raise deadline.passed(
                "Nobody came back from the login",
                "The browser was closed, or is on another machine (then use --no-browser). Nothing has changed.",
            )
    return tokens[0]


def _begin(endpoint: TokenEndpoint, redirect_uri: str, settings: Settings) -> AuthorizationRequest:
    try:
        return endpoint.authorization_url(redirect_uri, scope=settings.scope)
    except ValueError as error:
        raise Problem(str(error)) from None


def _ask_for_redirect(
    endpoint: TokenEndpoint, settings: Settings, deadline: _Deadline
) -> tuple[str, AuthorizationRequest]:
    redirect_uri = settings.redirect_uri
    if redirect_uri is None:
        port = "" if settings.port is None else f":{settings.port}"
        redirect_uri = f"http://127.0.0.1{port}/callback"
    request = _begin(endpoint, redirect_uri, settings)
    tell("Open this address in a browser, anywhere, and log in:")
    say(request.url)
    tell(
        f"It ends at an address that begins with {redirect_uri}, on a page that need not load. Copy that address from "
        "the address bar."
    )
    redirect = ask_hidden("Paste it here (it is not shown): ", timeout=deadline.left)
    if not redirect:
        raise LoginFailed("No address was pasted. Nothing has changed.")
    return redirect, request


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
