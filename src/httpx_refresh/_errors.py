"""The error tree. Every message says what happened, what is safe, and the next step."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, ParamSpec, TypeVar, cast

from ._challenges import StepUp, claims_text, parse, step_up_of, united_scope, without

Outcome = Literal["not_sent", "busy", "refused", "unknown"]
"""What became of a refresh token whose refresh brought no new one.

`not_sent`: no byte of it left this host. `busy`: the server put the request off (429, 503). `refused`: the server
turned the request down without looking at the grant (a configuration error). In all three the refresh token is
unspent. `unknown`: it was sent, and whether it was spent cannot be told.
"""

_E = TypeVar("_E", bound=BaseException)
_P = ParamSpec("_P")
_R = TypeVar("_R")


def cause_of(error: BaseException) -> str:
    """Describe what caused a failure: its type, and the file and line that raised it.

    This text is kept in place of the exception. The frames of an exception hold their local variables, which error
    trackers send, and its own text may repeat what was sent.
    """
    kind = type(error)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    name = f"{module}{kind.__qualname__}"
    raised_in = error.__traceback__
    if raised_in is None:
        return name
    while raised_in.tb_next is not None:
        raised_in = raised_in.tb_next
    return f"{name} ({raised_in.tb_frame.f_code.co_filename}, line {raised_in.tb_lineno})"


def shown(text: str, most: int) -> str:
    """Return others' words in one line, without what a terminal would obey, bounded.

    Args:
        text: the words, which hold no secret.
        most: characters of the result.
    """
    line = "".join(one if one.isprintable() else " " for one in text[: most + 1])
    return line if len(line) <= most else line[: most - 1] + "…"


def frameless(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let no frame of `function`, nor of what it calls, stay in an exception that leaves it.

    Its frames hold tokens and keys, and error trackers send local variables. An exception leaves with the frame of
    this wrapper alone, which holds none of the arguments; where it was raised is kept as a note. What caused it is
    dropped, and may be kept as text (`caused_by`). A cancellation keeps its chain, without frames: event
    loops and anyio look at it.

    Args:
        function: a function, or a coroutine function.
    """
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def called(*args: Any, **kwargs: Any) -> Any:
            try:
                return await function(*args, **kwargs)
            except BaseException as error:
                failure = without_frames(error)
            finally:
                del args, kwargs
            raise failure

        return cast("Callable[_P, _R]", called)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            failure = without_frames(error)
        finally:
            del args, kwargs
        raise failure

    return cast("Callable[_P, _R]", call)


def without_frames(error: BaseException) -> BaseException:
    """Return the exception without its traceback and causes; of a group, each of it so. See `frameless`."""
    # A group of exceptions (Python 3.11, and its backport before) is what task groups raise.
    for one in getattr(error, "exceptions", ()):
        if isinstance(one, BaseException):
            without_frames(one)
    if isinstance(error, Exception):
        if not isinstance(error, RefreshAuthError):
            notes = getattr(error, "__notes__", [])
            error.__notes__ = [*notes, f"raised by {cause_of(error)}"]  # type: ignore[attr-defined]  # from 3.11 on
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)
    seen: BaseException | None = error
    while seen is not None:
        seen.__traceback__ = None
        seen = seen.__context__
    return error


class RefreshAuthError(Exception):
    """The base of everything this library raises of its own.

    Attributes:
        caused_by: the type of the exception that caused this one, and the file and line that raised it; None where
            there was none. It is text, since the exception itself could hold a secret.
    """

    def __init__(self, *args: object, caused_by: str | None = None) -> None:
        super().__init__(*args)
        self.caused_by = caused_by


class ReauthorizationRequired(RefreshAuthError):
    """A person must log in again: there is no token, no refresh token, or the server refused it for good.

    Nothing is sent to the token endpoint while this lasts. A login anywhere that reaches the store (or
    `RefreshAuth.set_token`) ends it within about a second, without a restart.

    Attributes:
        error: the server's `error` code (RFC 6749 §5.2), where it gave one.
        error_description: the server's own words, where it gave any; secrets are blotted out.
        since: when the server said so, in epoch seconds; None where no server did.
    """

    def __init__(
        self,
        message: str,
        *,
        error: str | None = None,
        error_description: str | None = None,
        since: float | None = None,
    ) -> None:
        super().__init__(message)
        self.error = error
        self.error_description = error_description
        self.since = since


class RefreshUnavailable(RefreshAuthError):
    """No new token could be had now; try again later.

    The grant is not known to be dead. An endpoint of your own raises it too, with the `outcome` it knows: the
    session retries `not_sent` and `busy` within `refresh_timeout`, and notes `unknown` in the store.

    Attributes:
        outcome: what became of the refresh token that was to be spent, see `Outcome`.
        transient: whether asking again soon may help: nothing was sent, or the server answered that it is busy or
            unavailable. It says nothing of the token: a server that answers 503 may have spent it.
        retry_after: seconds that the server asked to wait (RFC 9110 §10.2.3); None where it did not.
    """

    def __init__(
        self,
        message: str,
        *,
        outcome: Outcome = "unknown",
        transient: bool | None = None,
        retry_after: float | None = None,
        caused_by: str | None = None,
    ) -> None:
        """Make the error; `transient` is true by default for `not_sent` and `busy`, false for the others."""
        super().__init__(message, caused_by=caused_by)
        self.outcome: Outcome = outcome
        self.transient: bool = outcome in ("not_sent", "busy") if transient is None else transient
        self.retry_after = retry_after


class StoreError(RefreshAuthError):
    """The store failed, or holds something that is no token; its text is left as it was.

    No refresh token is spent without a claim in the store, so a failing store spends none.
    """


class OriginNotAllowed(RefreshAuthError):
    """The bearer token would have gone to an origin it is not meant for; nothing was sent."""


def _without_response(error: RefreshAuthError) -> tuple[Any, ...]:
    """Return what an error is pickled and copied by: not by its response, whose request holds the token."""
    return type(error), error.args, {**error.__dict__, "response": None}


class BodyNotReplayable(RefreshAuthError):
    """The token was refused and is refreshed, but the request's body cannot be sent a second time.

    Send the request again: it will carry the new token.

    It can be pickled; `response` is left out then, since its request holds the token.

    Attributes:
        response: the 401, read; an `httpx.Response` or `httpx2.Response`.
    """

    def __init__(self, message: str, *, response: object = None) -> None:
        super().__init__(message)
        self.response = response

    def __reduce__(self) -> tuple[Any, ...]:
        return _without_response(self)


class StepUpRequired(RefreshAuthError):
    """The API wants another login than the one that the token comes from: a stronger or more recent one, or more scope.

    The token is good for other requests, and nothing of it was spent on this one. Send a person to log in with
    `params`; once the new token is in the store, requests are accepted, without a restart. Sources: RFC 9470,
    RFC 6750 §3.1, and Microsoft Entra's claims challenge.

    It can be pickled, so that a worker's error reaches the web process where people log in; `response` is left out
    then, since its request holds the token.

    Attributes:
        error: what the API said: `insufficient_user_authentication`, `insufficient_claims` or `insufficient_scope`.
        scope: the scopes that the request needs, words with blanks between; None if the API did not say.
        claims: the claims that the token needs, decoded (OpenID Connect Core §5.5).
        acr_values: the authentication contexts that will do, words with blanks between, the preferred one first.
        max_age: seconds since the login at most.
        resource_metadata: the URL of the protected resource's metadata (RFC 9728), as the API said it.
        response: the response, an `httpx.Response` or `httpx2.Response`.
    """

    def __init__(
        self,
        message: str,
        *,
        error: str | None = None,
        scope: str | None = None,
        claims: Mapping[str, Any] | None = None,
        acr_values: str | None = None,
        max_age: int | None = None,
        resource_metadata: str | None = None,
        granted_scope: str | None = None,
        response: object = None,
    ) -> None:
        """Make the error; `granted_scope` is what the token has, which `params` asks for again."""
        super().__init__(message)
        self.error = error
        self.scope = scope
        self.claims = claims
        self.acr_values = acr_values
        self.max_age = max_age
        self.resource_metadata = resource_metadata
        self.granted_scope = granted_scope
        self.response = response

    @classmethod
    def from_response(
        cls, response: Any, *, granted_scope: str | None = None
    ) -> StepUpRequired | None:
        """Read what a response asks for; None if it asks for no other login.

        A 403 with `insufficient_scope` is passed on by `RefreshAuth` as the response that it is: give it to this. So
        it is with a 401 where `unauthorized="return"`. A response that came through a client with `RefreshAuth` knows
        the granted scope.

        Args:
            response: an `httpx.Response` or `httpx2.Response`; its body is not looked at.
            granted_scope: the scope that the token has, if it is not known from the response.
        """
        if response.status_code not in (401, 403):
            return None
        asked = step_up_of(parse(response.headers.get_list("www-authenticate")))
        if asked is None:
            return None
        if granted_scope is None:
            granted_scope = response.extensions.get(GRANTED_SCOPE)
        return cls.of(asked, granted_scope=granted_scope, response=response)

    @classmethod
    def of(
        cls, asked: StepUp, *, granted_scope: str | None = None, response: object = None
    ) -> StepUpRequired:
        """Return the error for what a response asks for; of values that repeat the token it knows nothing."""
        # A response that somebody made by hand may have no request.
        request = getattr(response, "_request", None)
        if request is not None:
            _, _, token = request.headers.get("Authorization", "").partition(" ")
            asked = without(asked, token) if token else asked
        what = {
            "scope": asked.scope and f"the scope {asked.scope[:300]}",
            "acr": asked.acr_values and f"a login of {asked.acr_values[:300]} (acr_values)",
            "age": asked.max_age is not None and f"a login within the last {asked.max_age} s",
            "claims": asked.claims is not None and "a token with the claims that it names",
        }
        wanted = ", ".join(word for word in what.values() if word)
        return cls(
            f"The API asks for another login ({asked.error}"
            + (f"): {wanted}" if wanted else ")")
            + ". The token in use is kept: it is good for other requests, and no refresh would change this. Log in "
            "again with the error's params, as in endpoint.authorization_url(redirect_uri, **error.params), and put "
            "the token into the store; then send the request again.",
            error=asked.error,
            scope=asked.scope,
            claims=asked.claims,
            acr_values=asked.acr_values,
            max_age=asked.max_age,
            resource_metadata=asked.resource_metadata,
            granted_scope=granted_scope,
            response=response,
        )

    @property
    def params(self) -> dict[str, str]:
        """What the next login is to ask for, as `TokenEndpoint.authorization_url` takes it: strings by their names.

        It can be written as JSON, and is used in another process just as well. `scope` holds the scopes granted so
        far and those asked for, so that the new token can do all that the old one could.
        """
        values = {
            "scope": united_scope(self.granted_scope, self.scope),
            "claims": None if self.claims is None else claims_text(self.claims),
            "acr_values": self.acr_values,
            "max_age": None if self.max_age is None else str(self.max_age),
        }
        return {name: value for name, value in values.items() if value is not None}

    def __reduce__(self) -> tuple[Any, ...]:
        return _without_response(self)


GRANTED_SCOPE = "httpx_refresh.granted_scope"
"""Where a response's `extensions` say the scope of the token that its request carried."""


class LoginFailed(RefreshAuthError):
    """A login brought no token: it was denied, was not the one that was begun, or its code was refused.

    Nothing in a store has changed. Start the login again.

    Attributes:
        error: the server's `error` code (RFC 6749 §4.1.2.1 and §5.2), where it gave one.
        error_description: the server's own words, where it gave any; secrets are blotted out.
        transient: whether the connection failed or the server was busy.
    """

    def __init__(
        self,
        message: str,
        *,
        error: str | None = None,
        error_description: str | None = None,
        transient: bool = False,
        caused_by: str | None = None,
    ) -> None:
        super().__init__(message, caused_by=caused_by)
        self.error = error
        self.error_description = error_description
        self.transient = transient


class RevocationFailed(RefreshAuthError):
    """The server did not confirm that it revoked the token (RFC 7009), which may still be good."""


# Tracebacks name them as users import them.
for _error in (
    RefreshAuthError,
    ReauthorizationRequired,
    RefreshUnavailable,
    StoreError,
    OriginNotAllowed,
    BodyNotReplayable,
    StepUpRequired,
    LoginFailed,
    RevocationFailed,
):
    _error.__module__ = "httpx_refresh"


def fresh(error: _E) -> _E:
    """Return a new exception like `error`, with no traceback, cause or context: each waiter raises one of its own."""
    other = type(error).__new__(type(error), *error.args)
    other.args = error.args
    other.__dict__.update(error.__dict__)
    return other
