"""A web service that connects a Xero organisation, and a background job that uses it.

    pip install httpx-refresh fastapi uvicorn
    export XERO_CLIENT_ID=… XERO_CLIENT_SECRET=… OPERATOR_PASSWORD=…
    uvicorn --factory examples.fastapi_xero:app_of_the_environment

Register http://localhost:8000/callback as a redirect URI of the app at Xero, and open http://localhost:8000.

The page sends the browser to Xero, `/callback` exchanges the code for a token and saves it, and the job asks Xero for
invoices again and again. Any number of such services may share the store: they share each refresh.

Whoever may connect decides whose books the service works on: a stranger who logs in at Xero with an account of their
own would replace the token, and the service would read, and write, in the stranger's organisation. So `/connect` and
`/callback` ask for a password (HTTP Basic, RFC 7617; the user is "operator"). An application that knows its users looks
at its own session there instead, and whether this user may connect. Outside of this machine it needs https in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import AsyncIterator
from html import escape
from typing import Annotated

import anyio
import httpx
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from httpx_refresh import (
    AuthorizationRequest,
    LoginFailed,
    ReauthorizationRequired,
    RefreshAuth,
    RefreshAuthError,
    TokenEndpoint,
    open_store,
)
from httpx_refresh.providers import xero

logger = logging.getLogger("fastapi_xero")

REALM = "Invoices"
# Out here: FastAPI looks the names in annotations up in the module.
basic = HTTPBasic(realm=REALM)

COOKIE = "login"
MOST_LOGINS = 1000


def page(title: str, text: str, link: str = "") -> str:
    return (
        f"<!doctype html><meta charset=utf-8><title>{escape(title)}</title>"
        f"<h1>{escape(title)}</h1><p>{escape(text)}</p>{link}"
    )


class Job:
    """Asks the API for invoices, as long as the service runs."""

    def __init__(self, client: httpx.AsyncClient, url: str, every: float) -> None:
        self.client = client
        self.url = url
        self.every = every
        self.state = "Nothing was asked yet."
        self.wake = asyncio.Event()

    async def run(self) -> None:
        while True:
            self.wake.clear()
            self.state = await self.once()
            # A login wakes it; else it is time again after a while. Not asyncio.wait_for: before Python 3.12 that
            # swallows a cancellation which comes together with the event.
            with anyio.move_on_after(self.every):
                await self.wake.wait()

    async def once(self) -> str:
        try:
            response = await self.client.get(self.url)
        except ReauthorizationRequired:
            return "Xero is not connected."
        except (RefreshAuthError, httpx.HTTPError) as error:
            logger.warning("Xero could not be asked: %s", error)
            return "Xero cannot be reached just now."
        return f"Xero answered with status {response.status_code}."


def create_app(
    endpoint: TokenEndpoint,
    auth: RefreshAuth,
    client: httpx.AsyncClient,
    *,
    url: str,
    every: float,
    password: str,
) -> FastAPI:
    """Make the service.

    `client` sends `auth` along, `url` is what the job asks for every so many seconds, and `password` is what the
    person who connects must know.
    """
    if not password:
        raise ValueError("password is empty: everybody could connect an organisation of their own")
    job = Job(client, url, every)
    # Begun logins, by their state. With more than one process they belong into a shared place.
    begun: dict[str, AuthorizationRequest] = {}

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        running = asyncio.create_task(job.run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await auth.aclose()

    app = FastAPI(lifespan=lifespan)

    @app.get("/", response_class=HTMLResponse)
    async def index() -> str:
        return page("Invoices", job.state, '<p><a href="/connect">Connect Xero</a></p>')

    def operator(given: Annotated[HTTPBasicCredentials, Depends(basic)]) -> None:
        # Compared as bytes: compare_digest takes no other text than ASCII.
        right_user = secrets.compare_digest(given.username.encode(), b"operator")
        right_password = secrets.compare_digest(given.password.encode(), password.encode())
        if not (right_user and right_password):
            raise HTTPException(401, headers={"WWW-Authenticate": f'Basic realm="{REALM}"'})

    @app.get("/connect", dependencies=[Depends(operator)])
    async def connect(request: Request) -> Response:
        login = endpoint.authorization_url(str(request.url_for("callback")))
        while len(begun) >= MOST_LOGINS:
            del begun[next(iter(begun))]
        begun[login.state] = login
        response = RedirectResponse(login.url, status_code=303)
        # The login belongs to this browser: nobody can slip in a code of their own (RFC 9700 §4.7).
        secure = request.url.scheme == "https"
        response.set_cookie(COOKIE, login.state, httponly=True, samesite="lax", secure=secure)
        return response

    @app.get("/callback", response_class=HTMLResponse, dependencies=[Depends(operator)])
    async def callback(request: Request) -> Response:
        # Only the answer to the login that this browser began ends that: any other page can send it here, too.
        state = request.query_params.get("state", "")
        cookie = request.cookies.get(COOKIE, "")
        if not secrets.compare_digest(state.encode(), cookie.encode()) or cookie not in begun:
            return HTMLResponse(page("Not connected", "This browser began no such login."), 400)
        login = begun.pop(cookie)
        try:
            token = await endpoint.exchange_code(dict(request.query_params), login)
            await auth.set_token(token)
        except LoginFailed as error:
            return HTMLResponse(page("Not connected", str(error)), 400)
        job.wake.set()
        response = RedirectResponse("/", status_code=303)
        response.delete_cookie(COOKIE)
        return response

    return app


def app_of_the_environment() -> FastAPI:
    """Make the service from XERO_CLIENT_ID, XERO_CLIENT_SECRET, OPERATOR_PASSWORD and TOKEN_STORE."""
    endpoint = xero(
        os.environ["XERO_CLIENT_ID"],
        os.environ.get("XERO_CLIENT_SECRET"),
        scope="accounting.transactions.read",
    )
    auth = RefreshAuth(endpoint, open_store(os.environ.get("TOKEN_STORE", "file:xero-token.json")))
    url = "https://api.xero.com/api.xro/2.0/Invoices"
    password = os.environ["OPERATOR_PASSWORD"]
    client = httpx.AsyncClient(auth=auth)
    return create_app(endpoint, auth, client, url=url, every=300, password=password)
