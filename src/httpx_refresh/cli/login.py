"""`httpx-refresh login`: from a person in front of a browser to a token in a slot."""

from __future__ import annotations

import threading
import webbrowser
from dataclasses import dataclass
from functools import partial

import anyio

from .._auth import RefreshAuth
from .._errors import LoginFailed
from .._oauth.endpoint import TokenEndpoint
from .._oauth.login import AuthorizationRequest
from .._refresh.slot import Slot
from .._token import Token
from .console import Problem, ask_hidden, run, say, tell, warn
from .loopback import Loopback, place_of
from .settings import Settings
from .slots import prepare


@dataclass(frozen=True)
class How:
    """In which way the person logs in; `timeout` in seconds."""

    device: bool
    paste: bool
    timeout: float


def log_in(settings: Settings, how: How) -> None:
    """Log in and save the token; whatever fails, the token that was there stays."""
    endpoint, slot = run(partial(_prepare, settings))
    # No origins: a login sends no request to the API.
    auth = RefreshAuth(endpoint, slot.store, origins=())
    if how.paste:
        # Asked for while no event loop runs: Ctrl-C is to end the question at once.
        redirect, request = _ask_for_redirect(endpoint, settings)
        token = run(partial(_exchange, endpoint, auth, redirect, request))
    elif how.device:
        token = run(partial(_with_device, endpoint, settings, how, auth))
    else:
        token = run(partial(_with_browser, endpoint, settings, how, auth))
    say(f"Logged in at {endpoint.name}. The token is in {slot.store!r}.", "green")
    for name in endpoint.login.redirect_fields:
        if name in token.extra:
            say(f"{name}: {token.extra[name]}")
    if token.refresh_token is None:
        warn(
            f"{endpoint.name} gave no refresh token, so this one ends when its access token does. Most providers give "
            "one for the scope offline_access only."
        )


async def _prepare(settings: Settings) -> tuple[TokenEndpoint, Slot]:
    """Find out what can be found out before a person is asked for anything."""
    endpoint = await settings.endpoint()
    if settings.scope is None and not endpoint.login.scope:
        tell("No --scope was given: the provider decides what the token may do.")
    return endpoint, await prepare(settings)


async def _exchange(
    endpoint: TokenEndpoint, auth: RefreshAuth, redirect: str, request: AuthorizationRequest
) -> Token:
    token = await endpoint.exchange_code(redirect, request)
    await auth.set_token(token)
    return token


async def _with_browser(
    endpoint: TokenEndpoint, settings: Settings, how: How, auth: RefreshAuth
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
            tokens.append(await _exchange(endpoint, auth, redirect, request))

        await server.serve(begin, complete, timeout=how.timeout)
    return tokens[0]


def _begin(endpoint: TokenEndpoint, redirect_uri: str, settings: Settings) -> AuthorizationRequest:
    try:
        return endpoint.authorization_url(redirect_uri, scope=settings.scope)
    except ValueError as error:
        raise Problem(str(error)) from None


def _ask_for_redirect(
    endpoint: TokenEndpoint, settings: Settings
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
    redirect = ask_hidden("Paste it here (it is not shown): ")
    if not redirect:
        raise LoginFailed("No address was pasted. Nothing has changed.")
    return redirect, request


async def _with_device(
    endpoint: TokenEndpoint, settings: Settings, how: How, auth: RefreshAuth
) -> Token:
    if endpoint.login.device_authorization_endpoint is None:
        raise Problem(
            f"{endpoint.name} is not known to log in devices; give --device-authorization-url if it does"
        )
    device = await endpoint.device_authorization(scope=settings.scope)
    tell(f"On any device, open {device.verification_uri} and enter this code:")
    say(device.user_code, "bold")
    if device.verification_uri_complete is not None:
        tell(f"Or open {device.verification_uri_complete}")
    with anyio.move_on_after(how.timeout):
        token = await endpoint.device_token(device)
        await auth.set_token(token)
        return token
    raise LoginFailed(
        f"Nobody decided about the login within {how.timeout:g} s (--timeout). Nothing has changed."
    )
