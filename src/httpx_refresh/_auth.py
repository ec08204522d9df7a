"""RefreshAuth: attach the token, send, renew it when the API refuses it, send again."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import (
    AsyncGenerator,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Mapping,
)
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypedDict, TypeVar, overload

import anyio

from ._challenges import StepUp, without
from ._errors import (
    GRANTED_SCOPE,
    BodyNotReplayable,
    RefreshAuthError,
    RefreshUnavailable,
    StepUpRequired,
    frameless,
)
from ._http import bodies
from ._http.challenge import (
    Accepted,
    Expired,
    ExpiryRule,
    challenge_of,
    checked_rule,
    glance,
)
from ._http.libraries import BYTE_STREAMS, STATUS_ERRORS, AuthBase, asking
from ._http.origins import Origins, compiled
from ._http.present import BEARER, Presenter
from ._refresh import own_loop
from ._refresh.host import THIS_HOST
from ._refresh.observers import Observer, checked_observers
from ._refresh.record import MOST_PATIENCE
from ._refresh.refusals import kind_of
from ._refresh.session import Credential, Session, held_too_long
from ._refresh.slot import Slot
from ._refresh.source import Obtains, TokenSource, facts_of
from ._token import Token
from .stores.base import TokenStore
from .stores.memory import OwnMemory

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._http.libraries import Request, Response

_MOST_SENDS = 3  # refused; adopted from the store and refused; refreshed
_PRESENTER: Presenter = BEARER

_T = TypeVar("_T")


class Options(TypedDict, total=False):
    """The keyword arguments that `RefreshAuth` takes."""

    origins: Iterable[str] | str | None
    refresh_before: float
    refresh_timeout: float
    replay_limit: int
    is_expired: ExpiryRule | Callable[[Any], bool] | None
    on_unsaved: Callable[[Token], object] | None
    on_event: Observer | Iterable[Observer] | None
    label: str | None
    allow_http: bool
    unauthorized: Literal["raise", "return"]


class RefreshAuth(AuthBase):
    """Keep a client's bearer token alive: send it, and when it is refused or about to expire, refresh it once.

    Pass it as `auth=` to an `AsyncClient` or a `Client`, of httpx or httpx2, to as many as you like. All coroutines,
    event loops, threads, processes and hosts that share the store share one refresh; each request is then sent again
    with the new token. A caller can be cancelled at any moment: the refresh goes on without it until its result is
    saved. One object may be made at import time and serve any number of event loops, one after another or at once.

    A request of a sync client stays on its thread while the token is good. Its refresh runs on an event loop of the
    library's own, in a daemon thread, which the end of the interpreter waits for. A store or a client that belongs to
    one event loop (a `redis.asyncio` client, a SQLAlchemy engine with a pool, an `AsyncClient` passed as `client=`)
    cannot be used there, and a sync request says so before anything is sent.

    Args:
        source: where new tokens come from. A `TokenEndpoint`, a preset of `httpx_refresh.providers`, or any object
            with `async refresh(token) -> Token` spends the refresh token. A grant of `httpx_refresh.grants`, or any
            object with `async obtain(held) -> Token`, needs none.
        store: holds the token: a `FileStore`, a `MemoryStore`, one of `httpx_refresh.stores`, or your own. It may be
            omitted (None) if the source needs no refresh token, can be asked repeatedly, and does not end the
            previous token when it issues a new one. Then each process has its own token, in memory.
        origins: where the bearer token may be sent, such as `["https://api.example.com", "https://*.example.com"]`.
            `"any"`: every https origin, and loopback. None: where the endpoint says, as each preset does.
        refresh_before: refresh in the background this many seconds before expiry (at most 20 % of the lifetime). 0
            disables it.
        refresh_timeout: seconds that one refresh may take. A claim that is older than 1.5 times this is taken over. A
            short `reuse_grace` makes both shorter. Use the same value in every process that shares the store.
        replay_limit: bytes of a streamed request body that are kept while it is sent, to be sent again.
        is_expired: which responses mean that the token is no longer good: a predicate on status and headers, or an
            `ExpiryRule` that looks at the body. None: as the endpoint says; if it does not, status 401. It is called
            where the request is made: on its thread, and on its event loop, which it must not block.
        on_unsaved: called (or awaited) with the new token when it could not be saved for `refresh_timeout`: put it
            somewhere safe. It stays in use, and saving is tried again. It is called on the event loop of the refresh,
            which it must not block: that of a request that asked for it, or the library's own (in a daemon thread) if
            that was a sync client's.
        on_event: called with what happens to the token, values of `httpx_refresh.events`; one callable, or several.
            Each is called in a thread of the library, by one thread at a time and in order. What it raises is
            logged once, and nobody waits for one that blocks.
        label: a name for this token, such as a tenant's. Events and log records carry it.
        allow_http: whether `origins` may name http origins besides loopback, for a network that you trust: a service
            mesh, docker-compose, `http://test`. An endpoint with `allow_http` allows it too.
        unauthorized: what happens when the API refused the token and no good one can be had: "raise" the error that
            says why, or "return" the API's own response, unchanged, for callers that understand only responses.
            With "return", a request whose token has expired, and for which there is no other, goes out with the
            expired one, so that the API says so itself. Where this process has had no token that was good, the error is
            raised, since a request without a token might be answered as anybody's.

    Raises:
        TypeError, ValueError: an argument is invalid, the source needs a store and there is none, or nobody
            names the origins.

    Requests raise `ReauthorizationRequired`, `RefreshUnavailable`, `StoreError`, `OriginNotAllowed`,
    `BodyNotReplayable` and `StepUpRequired`; those of a sync client also `RuntimeError`, see `sync`. Sources: RFC 6750
    §2.1 and §3.1 (bearer tokens, 401), RFC 6749 §6 and RFC 9700 §4.14 (refresh tokens and their rotation), RFC 9470
    (stronger logins).
    """

    __slots__ = ("_async_only", "_origins", "_replay_limit", "_returns", "_rule", "_session")

    @overload
    def __init__(
        self, source: TokenSource, store: TokenStore, **options: Unpack[Options]
    ) -> None: ...

    @overload
    def __init__(
        self, source: Obtains, store: TokenStore | None = None, **options: Unpack[Options]
    ) -> None: ...

    def __init__(
        self,
        source: TokenSource,
        store: TokenStore | None = None,
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
        unauthorized: Literal["raise", "return"] = "raise",
    ) -> None:
        if store is None:
            store = _own_memory(source)
        if isinstance(store, type) or not isinstance(store, TokenStore):
            raise TypeError(_no_store(store))
        for name, seconds, least, most in (
            ("refresh_before", refresh_before, 0.0, math.inf),
            ("refresh_timeout", refresh_timeout, 0.001, MOST_PATIENCE),
        ):
            if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
                raise TypeError(f"{name} must be a number of seconds")
            if not least <= seconds <= min(most, sys.float_info.max):
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
        if unauthorized not in ("raise", "return"):
            raise ValueError('unauthorized must be "raise" or "return"')
        self._returns = unauthorized == "return"
        self._async_only = _async_only(source, store) is not None
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

    def __copy__(self) -> RefreshAuth:
        return self  # Copies that know nothing of each other would share no refresh.

    def __deepcopy__(self, _: object) -> RefreshAuth:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a RefreshAuth cannot be pickled: it belongs to this process. Make one in each process, with a store that "
            "they share (a FileStore, or one of httpx_refresh.stores): then they share its refreshes, too"
        )

    async def token(self) -> Token:
        """Return a good token, refreshed if necessary: for WebSockets, gRPC and other protocols than HTTP.

        Raises:
            ReauthorizationRequired, RefreshUnavailable, StoreError: there is no good token.
        """
        session = self._session
        known = session.credential
        if known is None or session.host.wall() >= known.renew_at:
            known = await session.good()
        return known.token

    async def refresh(self, *, refused: Token | None = None) -> Token:
        """Refresh now, and return the new token.

        Joins a refresh that is under way, in this process or another. A refresh token that the server refused for good
        is not sent again.

        Args:
            refused: the token that an API refused, if that request was not made by a client with this auth. The token
                is refreshed only if it is still the current one, so any number of refused callers cause one refresh.
                None: refresh in any case, also during the pause that follows a failure.

        Raises:
            TypeError: `refused` is no `Token`.
            ReauthorizationRequired, RefreshUnavailable, StoreError: there is no new token.
        """
        if not (refused is None or isinstance(refused, Token)):
            raise TypeError("refused must be a Token, as token() returned it, or None")
        return (await self._session.refresh(refused)).token

    @frameless
    async def set_token(self, token: Token) -> None:
        """Save a token after a login, replacing what the store held, and use it from now on.

        Raises:
            TypeError: `token` is no `Token`; make one with `Token.from_response`.
            StoreError: the store failed; `token` is not in use, keep it.
        """
        if not isinstance(token, Token):
            raise TypeError("token must be a Token; make one with Token.from_response(mapping)")
        await self._session.set_token(token)

    async def revoke(self) -> bool:
        """Revoke the token at the authorization server (RFC 7009), then empty the store.

        Waits for a refresh that is under way, in this process or another, since it would bring another token. Others
        that share the store notice at their next refusal or refresh, and need a new login. The revocation continues if
        the caller is cancelled.

        Returns:
            Whether the server was asked: not if there is no token, nor for a refresh token that it refused for good.

        Raises:
            TypeError: the source has no method `revoke`, see `forget`.
            ValueError: the endpoint knows no `revocation_endpoint`.
            RevocationFailed, RefreshUnavailable, StoreError: the token is still there, and may still be good.
        """
        return await self._session.revoke(at_source=True)

    async def forget(self) -> None:
        """Empty the store without revoking the token: for servers that cannot revoke tokens.

        Like `revoke`, but the server is not asked.

        Raises:
            RefreshUnavailable, StoreError: the token is still there.
        """
        await self._session.revoke(at_source=False)

    async def aclose(self) -> None:
        """Wait for a refresh that is under way on this event loop, and for its result to be saved.

        Closes nothing: the object remains usable, and the store and the client belong to the caller.
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

    @property
    def sync(self) -> SyncCalls:
        """The same for sync code: `auth.sync.token()`, `refresh`, `set_token`, `revoke`, `forget`, `aclose`.

        They block the calling thread. On the thread of an event loop that runs they do so, too, and nothing else on
        that loop goes on meanwhile. Where that loop itself is refreshing this token, they raise `RuntimeError` at once,
        as a request of a sync client does: it would wait for itself.
        """
        return SyncCalls(self)

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Send `request` as `async_auth_flow` does; a sync client calls this.

        Raises:
            RuntimeError: the store or the token endpoint's client belongs to one event loop, or the event loop of this
                very thread is refreshing the token. Nothing was sent.
        """
        session = self._session
        if self._async_only:
            raise self._no_sync_calls()
        known = session.credential
        sent: tuple[Credential, Response] | None = None
        if (
            known is not None
            and session.host.wall() < known.renew_at
            and isinstance(request.stream, BYTE_STREAMS)
        ):
            # Nearly every request: what the send loop does of it, without the loop.
            self._origins.check(request.url)
            _PRESENTER.present(request, known)
            try:
                response = yield request
            except GeneratorExit as closed:
                _tell_of_hook(session, request, known, closed)
                raise
            if (
                not session.verdicts.listening
                and response.status_code != 403
                and isinstance(glance(response.status_code, self._rule), Accepted)
            ):
                return
            sent = known, response
        flow = self._flow(request, blocking=True, sent=sent)
        try:
            request = _step(flow.__anext__())
            while request is not None:
                response = yield request
                request = _step(flow.asend(response))
        finally:
            _step(flow.aclose())

    def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """Send `request` with the token, and again with a new one if the API refuses it (at most three times in all).

        The client calls this. It holds no lock and no cancel scope across a `yield`.
        """
        return self._flow(request, blocking=False)

    async def _flow(
        self, request: Any, *, blocking: bool, sent: tuple[Credential, Response] | None = None
    ) -> AsyncGenerator[Any, Any]:
        """Send a request: one loop for async clients and sync ones. With `blocking` it suspends only to send.

        Args:
            request: the request to send.
            blocking: for a sync client.
            sent: what it was sent with, and the response, if it was: it needs no recording then.
        """
        session, url = self._session, request.url
        known = session.credential
        hopeless, recording = False, None
        if sent is not None:
            known, first = sent
        else:
            first = None
            self._origins.check(url)
            if known is None or session.host.wall() >= known.renew_at:
                try:
                    with _AskedBy(request):
                        known = _good(session) if blocking else await session.good()
                except RefreshAuthError:
                    known = session.credential
                    if known is None or not self._returns:
                        raise
                    hopeless = True  # The API itself says so.
            recording = bodies.record(
                request,
                self._replay_limit,
                bodies.BlockingRecording if blocking else bodies.Recording,
            )
            _PRESENTER.present(request, known)
        rule, sends, refreshed, resent = self._rule, 0, False, False
        before: Credential | None = None  # What it was refused with, if that was another token.
        while True:
            if first is None:
                received = None
                try:  # noqa: SIM105 - a context manager would be held across a yield, and costs more
                    received = yield request
                except GeneratorExit:
                    pass
                if received is None:
                    # Only out here it can be seen why: what the client handles while it closes this.
                    _tell_of_hook(session, request, known, sys.exc_info()[1])
                    return
                response = received
            else:
                response, first = first, None
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
                        and not hopeless
                        and sends < _MOST_SENDS
                        and (pause := session.second_try(known, kind)) is not None
                    ):
                        resent = True
                        await bodies.read_ahead(response)
                        if blocking:
                            time.sleep(pause)  # noqa: ASYNC251 - no event loop runs this coroutine
                        else:
                            await anyio.sleep(pause)
                        renewed = session.newer_than(known) or known
                        if renewed is not known:
                            session.replaying(renewed)
                    else:
                        if before is not None and session.is_new(known):
                            session.futile(known, kind())
                        if sends == _MOST_SENDS or (renewed is None and (refreshed or hopeless)):
                            return
                        if renewed is None:
                            # Before waiting: it frees the connection, and a pool of one must work.
                            await bodies.read_ahead(response)
                            try:
                                with _AskedBy(request):
                                    renewed, refreshed = (
                                        _blocked(session, partial(session.renew, known, kind))
                                        if blocking
                                        else await session.renew(known, kind)
                                    )
                            except RefreshAuthError:
                                if not self._returns:
                                    raise
                            if renewed is None:
                                return
                        else:
                            session.replaying(renewed)
                    if renewed is not known:
                        before = known
                    known = renewed
                case StepUp() as asked:  # pragma: no branch  # there is no fourth
                    if not _PRESENTER.was_presented(request, known, response):
                        return
                    # What is raised holds this frame, and an API may repeat the token that it was sent.
                    challenge = asked = without(asked, known.token.access_token)
                    renewed = session.newer_than(known)
                    if renewed is None and sends < _MOST_SENDS:
                        await bodies.read_ahead(response)
                        step_up = partial(
                            session.step_up, known, None if refreshed else asked.claims
                        )
                        try:
                            with _AskedBy(request):
                                renewed, spent = (
                                    _blocked(session, step_up) if blocking else await step_up()
                                )
                            refreshed = refreshed or spent
                        except StepUpRequired as refusal:
                            asked = asked._replace(claims=refusal.claims or asked.claims)
                        except RefreshAuthError:
                            if not self._returns:
                                raise
                    if renewed is None or sends == _MOST_SENDS:
                        if self._returns:
                            return
                        await bodies.give_up(response)
                        await _read(response, blocking)
                        raise StepUpRequired.of(asked, granted_scope=known.scope, response=response)
                    known = renewed
            again = await self._again(response, known, recording, url, blocking=blocking)
            if again is None:
                return
            request = again
        if response.status_code == 403:
            response.extensions[GRANTED_SCOPE] = known.scope
        if recording is not None:
            recording.forget()
        if session.verdicts.listening and _is_answer(response):
            session.accepted(known, _kind(response), after_refusal=refreshed)

    def _no_sync_calls(self) -> RuntimeError:
        return RuntimeError(_async_only(self._session.source, self._session.slot.store))

    async def _again(
        self,
        response: Response,
        known: Credential,
        recording: bodies.Recording | bodies.BlockingRecording | None,
        checked: object,
        *,
        blocking: bool,
    ) -> Request | None:
        """Return the request to send again: the one that was refused, which is a redirect's where one led there.

        What came before the redirect was accepted, and is not done a second time. None if it cannot be sent again and
        the response is handed on. `checked`: the URL that the request was first sent to.
        """
        request = response.request
        if request.url is not checked:  # A redirect's, or a hook of the client's has changed it.
            self._origins.check(request.url)
        if request.stream is recording and recording is not None and not recording.replayable:
            if self._returns:
                return None
            await bodies.give_up(response)
            await _read(response, blocking)
            raise BodyNotReplayable(
                "The API refused the token, and it has been refreshed; but this request's body is longer than "
                "replay_limit and cannot be sent a second time. Nothing of it was. Send the request again with a new "
                "body: it will carry the new token. Or raise replay_limit.",
                response=response,
            )
        await bodies.give_up(response)
        _PRESENTER.present(request, known)
        return request


class SyncCalls:
    """What `RefreshAuth.sync` is: the calls of a `RefreshAuth`, for sync code. Each blocks its thread."""

    __slots__ = ("_auth",)

    def __init__(self, auth: RefreshAuth) -> None:
        self._auth = auth

    def __repr__(self) -> str:
        return f"{self._auth!r}.sync"

    def token(self) -> Token:
        """Return a good token, see `RefreshAuth.token`."""
        session = self._auth._session
        known = session.credential
        if known is None or session.host.wall() >= known.renew_at:
            self._check()
            known = _good(session)
        return known.token

    def refresh(self, *, refused: Token | None = None) -> Token:
        """Refresh now, and return the new token, see `RefreshAuth.refresh`."""
        return self._run(partial(self._auth.refresh, refused=refused))

    @frameless
    def set_token(self, token: Token) -> None:
        """Put a token into the store after a login, and use it from now on, see `RefreshAuth.set_token`."""
        self._run(partial(self._auth.set_token, token))

    def revoke(self) -> bool:
        """Revoke the token at the authorization server, then empty the store, see `RefreshAuth.revoke`."""
        return self._run(self._auth.revoke)

    def forget(self) -> None:
        """Empty the store without revoking the token, see `RefreshAuth.forget`."""
        self._run(self._auth.forget)

    def aclose(self) -> None:
        """Wait for a refresh that a sync caller has begun, and for its result to be saved."""
        if own_loop.own_loop() is not None:
            self._run(self._auth.aclose)

    def _check(self) -> None:
        if self._auth._async_only:
            raise self._auth._no_sync_calls()

    def _run(self, call: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        self._check()
        return _blocked(self._auth._session, call)


# -- where no event loop runs ------------------------------------------------------------------------------------------


def _step(step: Coroutine[Any, Any, _T]) -> _T | None:
    """Take one step of a send loop that never suspends; return what it yields, None once it has ended."""
    try:
        step.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # it is what the step returns
    except StopAsyncIteration:
        return None
    raise AssertionError("a way of waiting that blocks has suspended")


def _good(session: Session) -> Credential:
    """Return a credential that holds, as `Session.good` does; wait only if there is none."""
    known = session.at_hand()
    if known is None:
        return _blocked(session, session.good)
    if session.is_due(known, own_loop.own_loop()):
        own_loop.soon(session.renew_ahead, seconds=session.longest)
    return known


def _blocked(session: Session, call: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Run `call` on the library's own event loop, and wait for it.

    Raises:
        RuntimeError: the event loop of this thread would have to go on for that.
    """
    here = own_loop.callers_loop()
    if here is not None and here is own_loop.own_loop():
        raise RuntimeError(
            "This synchronous call is made on the library's own event loop, by a token source, a store or a callback "
            "that runs there: it would wait for itself. Nothing was sent for it. Await the async call there, such as "
            "auth.token() instead of auth.sync.token()."
        )
    if here is not None and session.is_hosted_on(here):
        raise _waits_for_itself()
    try:
        return own_loop.run(call, seconds=session.longest)
    except own_loop.WaitsForItself:
        pass  # Its frames are let go: they hold tokens.
    except own_loop.NoAnswer as error:
        if error.is_ending:
            raise RefreshUnavailable(
                f"The interpreter is ending, and there is no new token for {session.facts.name}. A token request that "
                "is under way is waited for, and its token is saved. Try again in another run of the program.",
                outcome="unknown",
            ) from None
        if error.no_loop is not None:
            raise RefreshUnavailable(
                f"There is no new token for {session.facts.name}: the event loop that serves sync clients cannot be "
                f"started ({error.no_loop}). Nothing was sent. See whether this process has as many threads or open "
                "files as it may have, and try again.",
                outcome="not_sent",
            ) from None
        raise held_too_long(session.facts.name, session.longest, sent=True) from None
    raise _waits_for_itself()


def _waits_for_itself() -> RuntimeError:
    return RuntimeError(
        "This synchronous call is made on the thread of an event loop that is refreshing the very token it needs: "
        "it would wait for itself. Nothing was sent to the token endpoint for it, and the API has taken no request "
        "of it. Use an AsyncClient there, or make the call in a thread, as in anyio.to_thread.run_sync(call)."
    )


async def _read(response: Response, blocking: bool) -> None:
    if blocking:
        response.read()
    else:
        await response.aread()


def _async_only(source: object, store: object) -> str | None:
    """Say why sync clients cannot be served, and what to do; None if they can."""
    for what, one in (("The store", store), ("The client of the token endpoint", source)):
        line = getattr(one, "one_loop", None)
        if isinstance(line, str):
            return (
                f"{what} belongs to one event loop, and synchronous calls run on another one, the library's own: "
                f"{one!r} cannot be used there. Nothing was sent. What works for sync and async clients alike: {line}"
            )
    return None


def _no_store(value: object) -> str:
    """Say what to pass as `store` instead of `value`."""
    if isinstance(value, type):
        return f"store must be a store, not the class {value.__name__}: make one with {value.__name__}(...)"
    if isinstance(value, str) and ":" in value:  # A URL may hold a password.
        return "store must be a store, not a str. Did you mean open_store(url)?"
    if isinstance(value, (str, os.PathLike)):
        return f"store must be a store, not a path. Did you mean FileStore({os.fspath(value)!r})?"
    return (
        f"store must have the async methods load() and replace(old, new); {type(value).__name__} has not. For a token "
        "response, MemoryStore(json.dumps(response))"
        if isinstance(value, Mapping)
        else f"store must have the async methods load() and replace(old, new); {type(value).__name__} has not"
    )


def _own_memory(source: object) -> TokenStore:
    """Return the store of a source that needs none; raise TypeError for one that does."""
    facts = facts_of(source)
    if not facts.needs_store:
        return OwnMemory()
    if facts.ends_previous:
        why = (
            "each token that it gives ends the last one, so all processes must share one: two with tokens of their own "
            "would end each other's tokens forever"
        )
    elif not facts.starts:
        why = "the refresh token that it spends has to outlive this process"
    else:
        why = "what it asks for cannot be asked for again, and has to outlive this process"
    raise TypeError(
        f"{facts.name} needs a store: {why}. Write RefreshAuth(source, FileStore('token.json'), ...), or take one of "
        "httpx_refresh.stores for several hosts"
    )


_hook_told = False
"""Whether this process has told that a response hook hides refusals."""


class _AskedBy:
    """Notes whose client asks, while a token is asked for; no request is sent in the meantime.

    Entered and left once, by the caller that waits.
    """

    __slots__ = ("_before", "_kind")

    def __init__(self, request: Request) -> None:
        self._kind = type(request)

    def __enter__(self) -> None:
        self._before = asking.get()
        asking.set(self._kind)

    def __exit__(self, *_: object) -> None:
        # Not reset by its `Token`: if the event loop was closed under it, it ends in another context.
        asking.set(self._before)


def _tell_of_hook(
    session: Session, request: Request, known: Credential, error: BaseException | None
) -> None:
    """Tell, once a process, if a client closes a request because a hook of its raised at a refusal.

    Args:
        session: whose refresh does not follow.
        request: what was sent.
        known: what it carried.
        error: the exception that the client handles while it closes the request.
    """
    global _hook_told
    while isinstance(error, GeneratorExit):
        error = error.__context__
    if not isinstance(error, STATUS_ERRORS) or _hook_told:
        return
    response: Response = error.response  # type: ignore[attr-defined]  # each of these has it
    if response.status_code == 401 and _PRESENTER.was_presented(request, known, response):
        from ._refresh import events

        _hook_told = True
        session.emit(events.RefusalHidden(raised=type(error).__name__))


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
