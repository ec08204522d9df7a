"""What follows from a token endpoint's answer to a refresh: the token, or an error that says the next step."""

from __future__ import annotations

from collections.abc import Iterable

from .._errors import ReauthorizationRequired, RefreshUnavailable
from .._token import Token
from .answer import Answer, Meaning, Refusal, meaning
from .redaction import redacted


def verdict(
    answer: Answer,
    *,
    name: str,
    dead: tuple[Refusal, ...],
    transient: tuple[Refusal, ...],
    secrets: Iterable[str],
    now: float,
) -> Token:
    """Return the token that the answer brings.

    Args:
        answer: the answer to a refresh.
        name: what messages call the provider.
        dead: the refusals that mean that the grant is dead.
        transient: the refusals that mean "try again".
        secrets: what was sent, and must not be shown if the server repeats it.
        now: epoch seconds when it was asked. The server counts `expires_in` from a moment after that: what is
            reckoned from here ends too early, if anything, never too late.

    Raises:
        ReauthorizationRequired: the grant is dead.
        RefreshUnavailable: there is no token.
    """
    means = meaning(answer, dead=dead, transient=transient, now=now)
    if means.token is not None:
        return means.token
    secrets = tuple(secrets)
    error = redacted(means.error, secrets, 64)
    description = redacted(means.error_description, secrets, 300)
    if means.kind == "dead":
        raise ReauthorizationRequired(
            f"{name} refused the refresh token for good ({error or f'status {answer.status}'}). Log in again.",
            error=error,
            error_description=description,
        )
    said = f"status {answer.status}"
    said += f", {error}" if error else ""
    said += f": {description}" if description else ""
    message = f"{name}'s token endpoint " + _explained(answer, means, said)
    if means.kind == "busy":
        raise RefreshUnavailable(message, outcome="busy", retry_after=means.retry_after)
    raise RefreshUnavailable(
        message,
        outcome="refused" if means.kind == "refused" else "unknown",
        retry_after=means.retry_after,
    )


def _explained(answer: Answer, means: Meaning, said: str) -> str:
    if means.kind == "busy":
        wait = (
            "" if means.retry_after is None else f", in {means.retry_after:.0f} s at the earliest"
        )
        return f"is busy ({said}). The refresh token was not spent. Try again later{wait}."
    if means.kind == "unknown":
        what = "more than 1 MiB" if answer.cut else "no token"
        return (
            f"answered with {what} ({said}). Whether it spent the refresh token is unknown; the token is kept, and "
            "tried once more at the next need. If that goes on, look whether the url is the token endpoint's."
        )
    if 300 <= answer.status < 400:
        return (
            f"redirects ({said}), and a redirect is never followed with a secret. The refresh token was not spent. Set "
            "the endpoint's url to the address that answers itself."
        )
    return (
        f"refused this client or its request, not the grant ({said}). The refresh token was not spent, and nobody "
        "needs to log in again. Check client_id, client_secret, token_endpoint_auth_method, params and url."
    )
