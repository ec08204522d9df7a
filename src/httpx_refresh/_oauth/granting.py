"""Token requests for grants without a person, and the meaning of their answers (RFC 6749 §4.4, §4.5).

They spend no refresh token. This module knows neither the contents of the grant nor the token's store.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

from .._errors import ReauthorizationRequired, RefreshUnavailable, StepUpRequired
from .._token import Token
from .answer import Answer, Meaning, NoAnswer, Refusal, Rules, declined, meaning, words
from .client import FORM, Client
from .clock import ahead_of

CONSENT_REQUIRED = (Refusal(error="consent_required"), Refusal(error="interaction_required"))
"""OpenID Connect Core 1.0 §3.1.2.6: nobody has yet consented to the request."""

Form = Sequence[tuple[str, str]]


class Granted(NamedTuple):
    """The result of one request.

    Attributes:
        came: the token, or the error to raise.
        ahead: seconds by which the server's clock is ahead of this host's, by the answer's `Date` (RFC 9110 §6.6.1),
            to a second or two; None if the answer has none.
    """

    came: Token | ReauthorizationRequired | RefreshUnavailable | StepUpRequired
    ahead: float | None = None

    @property
    def refused(self) -> bool:
        """Whether the server refused the request."""
        return isinstance(self.came, RefreshUnavailable) and self.came.outcome == "refused"


async def ask(
    client: Client,
    form: Form,
    *,
    secrets: Sequence[str],
    rules: Rules,
    claims: Mapping[str, Any] | None = None,
) -> Granted:
    """Make one token request.

    Args:
        client: makes the request.
        form: the parameters; a name may occur several times (RFC 8707 §2, `resource`).
        secrets: texts that are removed from the server's messages, should it repeat them.
        rules: how to read the server's answers; `dead` are the refusals that mean that somebody must consent
            first.
        claims: the claims that an API requires the token to hold.
    """
    return await ask_with(
        client, urlencode(form), FORM, secrets=secrets, rules=rules, claims=claims
    )


async def ask_with(
    client: Client,
    body: str,
    content_type: str,
    *,
    secrets: Sequence[str],
    rules: Rules,
    claims: Mapping[str, Any] | None = None,
) -> Granted:
    """Make one token request whose body is not a form (see `ask`)."""
    asked_at = time.time()
    answer = await client.post(body, content_type=content_type)
    if isinstance(answer, NoAnswer):
        return Granted(_without_answer(answer, client.name))
    answered_at = time.time()
    means = meaning(answer, rules, now=asked_at)
    if means.token is not None:
        return Granted(means.token)
    came: ReauthorizationRequired | RefreshUnavailable | StepUpRequired | None = None
    if claims is not None:
        came = declined(
            answer,
            means,
            claims,
            client.name,
            lambda text, most: client.redact(text, most, *secrets),
        )
    came = came or _refusal(answer, means, client, secrets)
    return Granted(came, ahead_of(answer, asked_at, answered_at))


def _refusal(
    answer: Answer, means: Meaning, client: Client, secrets: Sequence[str]
) -> ReauthorizationRequired | RefreshUnavailable:
    error, description, said = words(
        answer, means, lambda text, most: client.redact(text, most, *secrets)
    )
    name, who = client.name, f"client {client.client_id}" if client.client_id else "this client"
    if means.kind == "dead":
        return ReauthorizationRequired(
            f"{name} gives no token to {who}, because nobody has agreed to it yet ({said}). An administrator must "
            f"grant its consent to {who} at {name}, once, for all that is asked for. That is tried again by "
            "itself; nothing needs to be restarted.",
            error=error,
            error_description=description,
        )
    wait = "" if means.retry_after is None else f", in {means.retry_after:.0f} s at the earliest"
    message = f"{name}'s token endpoint "
    if means.kind == "busy":
        message += f"is busy ({said}). Try again later{wait}."
    elif means.kind == "unavailable":
        message += f"is unavailable ({said}). Try again later{wait}."
    elif means.kind == "unknown":
        what = "more than 1 MiB" if answer.cut else "no token"
        message += (
            f"answered with {what} ({said}). It is asked again at the next need. If that goes on, look whether the url "
            "is the token endpoint's."
        )
    elif 300 <= answer.status < 400:
        message += (
            f"redirects ({said}), and a redirect is never followed with a secret. Set the endpoint's url to the "
            "address that answers itself."
        )
    else:
        message += f"refused this request ({said}). {_ADVICE.get(means.error or '', _OTHER_ADVICE)}"
    if means.kind in ("busy", "refused"):
        return RefreshUnavailable(message, outcome=means.kind, retry_after=means.retry_after)
    return RefreshUnavailable(
        message,
        outcome="unknown",
        transient=means.kind == "unavailable",
        retry_after=means.retry_after,
    )


_OTHER_ADVICE = "Check what is asked for, the client's credentials, and the url."

_ADVICE = {
    "invalid_client": "Check client_id, the client's secret or key, and how it authenticates.",
    "unauthorized_client": "This client may not use this grant: allow it where the client is registered.",
    "unsupported_grant_type": "The server does not know this grant, or not at this url.",
    "invalid_scope": "Check scope: what it names is not known, or not allowed to this client.",
    "invalid_target": "Check resource and audience: the server gives no tokens for them (RFC 8707 §2, RFC 8693 "
    "§2.2.2).",
    "invalid_grant": "What was shown was not accepted: check the key, issuer, subject, audience, and the clocks.",
    "invalid_request": "Something in it is wrong: for a token exchange most likely the subject or the actor token "
    "(RFC 8693 §2.2.2).",
}


def _without_answer(answer: NoAnswer, name: str) -> RefreshUnavailable:
    if answer.sent:
        return RefreshUnavailable(
            f"{name}'s token endpoint was asked and gave no answer ({answer.why}). Try again later.",
            outcome="unknown",
            caused_by=answer.caused_by,
        )
    if not answer.transient:
        return RefreshUnavailable(
            f"{name}'s token endpoint was not asked: {answer.why}. Check what is passed as client=.",
            outcome="not_sent",
            transient=False,
            caused_by=answer.caused_by,
        )
    return RefreshUnavailable(
        f"{name}'s token endpoint could not be reached ({answer.why}). Check the url, proxies and certificates, or try "
        "again later.",
        outcome="not_sent",
        caused_by=answer.caused_by,
    )
