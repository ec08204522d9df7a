"""RefreshAuth: attach the token, send, renew it when the API refuses it, send again."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import anyio

from ._challenges import StepUp
from ._errors import GRANTED_SCOPE, BodyNotReplayable, StepUpRequired
from ._http import bodies
from ._http.challenge import (
    Accepted,
    Expired,
    ExpiryRule,
    challenge_of,
    checked_rule,
    glance,
)
from ._http.libraries import AuthBase
from ._http.origins import Origins, compiled
from ._http.present import BEARER, Presenter
from ._refresh.host import THIS_HOST
from ._refresh.observers import Observer, checked_observers
from ._refresh.pauses import kind_of
from ._refresh.record import MOST_PATIENCE
from ._refresh.session import Credential, Session
from ._refresh.slot import Slot
from ._refresh.source import TokenSource
from ._token import Token
from .stores.base import TokenStore

if TYPE_CHECKING:
    from ._http.libraries import Request, Response

_MOST_SENDS = 3  # refused; adopted from the store and refused; refreshed
_PRESENTER: Presenter = BEARER


class RefreshAuth(AuthBase):
    """Keep an async client's bearer token alive: send it, and when it is refused or about to expire, refresh it once.

    Pass it as `auth=` to an `httpx.AsyncClient` or `httpx2.AsyncClient`, to as many as you like. All coroutines, event
    loops, threads, processes and hosts that share the store share one refresh; each request is then sent again with
    the new token. A caller can be cancelled at any moment: the refresh goes on without it until its result is saved.
    One object may be made at import time and serve any number of event loops, one after another or at once.

    Args:
        source: spends the refresh token: a `TokenEndpoint`, a preset of `httpx_refresh.providers`, or anything with
            `async refresh(token) -> Token`.
        store: holds the token: a `FileStore`, a `MemoryStore`, one of `httpx_refresh.stores`, or your own.
        origins: where the bearer token may go, such as `["https://api.example.com", "https://*.example.com"]`.
            `"any"`: every https origin, and loopback. None: where the endpoint says, as each preset does.
        refresh_before: seconds before its expiry from which on a token is refreshed while requests go on with it; a
            fifth of the token's lifetime at most. 0: not ahead.
        refresh_timeout: seconds that one refresh may take; also what tells a claim left by a dead process from a live
            one. Give all that share a store the same.
        replay_limit: bytes of a streamed request body that are kept while it is sent, to be sent again.
        is_expired: which responses mean that the token is no longer good: a predicate on status and headers, or an
            `ExpiryRule` that looks at the body. None: as the endpoint says; if it does not, status 401.
        on_unsaved: called (or awaited) with the new token when it could not be saved for `refresh_timeout`: put it
            somewhere safe. It stays in use, and the save is tried on.
        on_event: called with what happens to the token, values of `httpx_refresh.events`; one callable, or several.
            Each is called in a thread of the library's own, by one thread at a time and in order. What it raises is
            logged once, and nobody waits for one that blocks.
        label: what you call this token, such as a tenant's name: events and log records carry it.
        allow_http: whether `origins` may name http origins besides loopback, for a network that you trust: a service
            mesh, docker-compose, `http://test`. An endpoint with `allow_http` allows it too.

    Raises:
        TypeError, ValueError: an argument that cannot be meant, or nobody names the origins.

    Requests raise `ReauthorizationRequired`, `RefreshUnavailable`, `StoreError`, `OriginNotAllowed`,
    `BodyNotReplayable` and `StepUpRequired`. Sources: RFC 6750 §2.1 and §3.1 (bearer tokens, 401), RFC 6749 §6 and
    RFC 9700 §4.14 (refresh tokens and their rotation), RFC 9470 (stronger logins).
    """

    __slots__ = ("_origins", "_replay_limit", "_rule", "_session")

    def __init__(
        self,
        source: TokenSource,
        store: TokenStore,
        *,
        origins: Iterable[str] | str | None = None,
        refresh_before: float = 60.0,
        refresh_timeout: float = 20.0,
        replay_limit: int = 1_048_576,
        is_expired: ExpiryRule | Callable[[Any], bool] | None = None,
        on_unsaved: Callable[[Token], object] | None = None,
        on_event: Observer | Iterable[Observer] | None = None,
        label: str | None = None,
        allow_http: bool = False,
    ) -> None:
        if isinstance(store, type) or not isinstance(store, TokenStore):
            raise TypeError("store must have the async methods load() and replace(old, new)")
        for name, seconds, least, most in (
            ("refresh_before", refresh_before, 0.0, math.inf),
            ("refresh_timeout", refresh_timeout, 0.001, MOST_PATIENCE),
        ):
            if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
                raise TypeError(f"{name} must be a number of seconds")
            if not (math.isfinite(seconds) and least <= seconds <= most):
                raise ValueError(
                    f"{name} must be finite, and at least {least:g} seconds"
                    + ("" if most == math.inf else f", and at most {most:g}")
                )
        if isinstance(replay_limit, bool) or not isinstance(replay_limit, int):
            raise TypeError("replay_limit must be a whole number of bytes")
        if replay_limit < 0:
            raise ValueError("replay_limit must not be negative")
        if not (on_unsaved is None or callable(on_unsaved)):
            raise TypeError("on_unsaved must be callable, or None")
        if not (label is None or isinstance(label, str)):
            raise TypeError("label must be a str, or None")
        observers = checked_observers(on_event)
        if not isinstance(allow_http, bool):
            raise TypeError("allow_http must be True or False")
        self._origins = _named_origins(source, origins, allow_http=allow_http)
        self._rule = checked_rule(
            getattr(source, "is_expired", None) if is_expired is None else is_expired
        )
        self._replay_limit = replay_limit
        self._session = Session(
            source,
            Slot(store, THIS_HOST, refresh_timeout=refresh_timeout),
            refresh_before=refresh_before,
            on_unsaved=on_unsaved,
            observers=observers,
            label=label,
        )

    def __repr__(self) -> str:
        return f"RefreshAuth({self._session.source!r}, {self._session.slot.store!r})"

    async def token(self) -> Token:
        """Return a good token, refreshed if need be: for what is not an HTTP request, such as a WebSocket or gRPC.

        Raises:
            ReauthorizationRequired, RefreshUnavailable, StoreError: there is none to be had.
        """
        session = self._session
        known = session.credential
        if known is None or session.host.wall() >= known.renew_at:
            known = await session.good()
        return known.token

    async def refresh(self, *, refused: Token | None = None) -> Token:
        """Refresh now, and return the new token.

        Shares a refresh that is under way, in this process or another. A grant that the server refused for good is not
        asked for again.

        Args:
            refused: the token that an API refused, where that was no request of a client with this auth. There is a
                refresh only if it is still the one held; so any number of callers that were refused make one. None:
                there is one in any case, also within the pause that follows a failure.

        Raises:
            TypeError: `refused` is no `Token`.
            ReauthorizationRequired, RefreshUnavailable, StoreError: there is no new token.
        """
        if not (refused is None or isinstance(refused, Token)):
            raise TypeError("refused must be a Token, as token() returned it, or None")
        return (await self._session.refresh(refused)).token

    async def set_token(self, token: Token) -> None:
        """Put a token into the store after a login, in the place of whatever was there, and use it from now on.

        Raises:
            TypeError: `token` is no `Token`; make one with `Token.from_response`.
            StoreError: the store failed; `token` is not in use, keep it.
        """
        if not isinstance(token, Token):
            raise TypeError("token must be a Token; make one with Token.from_response(mapping)")
        await self._session.set_token(token)

    async def aclose(self) -> None:
        """Wait for a refresh that is under way on this event loop, and for its result to be saved.

        Closes nothing: the object goes on working, and the store and the client are yours.
        """
        await self._session.aclose()

    async def __aenter__(self) -> RefreshAuth:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Refuse a synchronous client.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(
            "RefreshAuth serves async clients only: use it with AsyncClient, of httpx or httpx2. Nothing was sent."
        )

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """Send `request` with the token, and again with a new one if the API refuses it (at most three times in all).

        The client calls this. It holds no lock and no cancel scope across a `yield`.
        """
        session = self._session
        self._origins.check(request.url)
        known = session.credential
        if known is None or session.host.wall() >= known.renew_at:
            known = await session.good()
        recording = bodies.record(request, self._replay_limit)
        _PRESENTER.present(request, known)
        rule, sends, refreshed, resent = self._rule, 0, False, False
        before: Credential | None = None  # What it was refused with, if that was another token.
        while True:
            response = yield request
            sends += 1
            challenge = glance(response.status_code, rule)
            if challenge is None:
                challenge = await challenge_of(response, rule)
            match challenge:
                case Accepted():
                    break
                case Expired():
                    if not _PRESENTER.was_presented(request, known, response):
                        return
                    kind = partial(_kind, response)
                    renewed = session.newer_than(known)
                    if (
                        renewed is None
                        and not resent
                        and sends < _MOST_SENDS
                        and (pause := session.second_try(known, kind)) is not None
                    ):
                        resent = True
                        await bodies.read_ahead(response)
                        await anyio.sleep(pause)
                        renewed = session.newer_than(known) or known
                        if renewed is not known:
                            session.replaying(renewed)
                    else:
                        if before is not None and session.is_new(known):
                            session.futile(known, kind())
                        if sends == _MOST_SENDS or (renewed is None and refreshed):
                            return
                        if renewed is None:
                            # Before waiting: it frees the connection, and a pool of one must work.
                            await bodies.read_ahead(response)
                            renewed, refreshed = await session.renew(known, kind)
                            if renewed is None:
                                return
                        else:
                            session.replaying(renewed)
                    if renewed is not known:
                        before = known
                    known = renewed
                    request = await self._again(response, known, recording)
                case StepUp() as asked:
                    if not _PRESENTER.was_presented(request, known, response):
                        return
                    renewed = session.newer_than(known)
                    if renewed is None and sends < _MOST_SENDS:
                        await bodies.read_ahead(response)
                        renewed = await session.look(known)
                    if renewed is None or sends == _MOST_SENDS:
                        await bodies.give_up(response)
                        await response.aread()
                        raise StepUpRequired.of(asked, granted_scope=known.scope, response=response)
                    known = renewed
                    request = await self._again(response, known, recording)
        if response.status_code == 403:
            response.extensions[GRANTED_SCOPE] = known.scope
        if recording is not None:
            recording.forget()
        if session.listening and _is_answer(response):
            session.accepted(known, _kind(response), after_refusal=refreshed)

    async def _again(
        self, response: Response, known: Credential, recording: bodies.Recording | None
    ) -> Request:
        """Return the request to send again: the one that was refused, which is a redirect's where one led there.

        What came before the redirect was accepted, and is not done a second time.
        """
        request = response.request
        self._origins.check(request.url)  # A hook of the client's may have changed it.
        await bodies.give_up(response)
        if request.stream is recording and recording is not None and not recording.replayable:
            await response.aread()
            raise BodyNotReplayable(
                "The API refused the token, and it has been refreshed; but this request's body is longer than "
                "replay_limit and cannot be sent a second time. Nothing of it was. Send the request again with a new "
                "body: it will carry the new token. Or raise replay_limit.",
                response=response,
            )
        _PRESENTER.present(request, known)
        return request


def _kind(response: Response) -> str:
    """Say what kind of request it was that was answered."""
    url = response.request.url
    return kind_of(response.request.method, f"{url.scheme}://{url.netloc!r}", url.path)


def _is_answer(response: Response) -> bool:
    """Whether the API looked at the request: not so if it was too busy, or failed."""
    return response.status_code < 500 and response.status_code not in (408, 429)


def _named_origins(
    endpoint: object, origins: Iterable[str] | str | None, *, allow_http: bool
) -> Origins:
    """Return where the token may go: by the argument, else by the endpoint."""
    if origins is None:
        origins = getattr(endpoint, "origins", None)
    if origins is None:
        raise ValueError(
            "nobody says where the token may go: name the origins of the API, as in RefreshAuth(..., "
            'origins=["https://api.example.com"]). origins="any" lets it go to every https origin that a request is '
            "made to"
        )
    return compiled(
        origins, allow_http=allow_http or getattr(endpoint, "allow_http", False) is True
    )
