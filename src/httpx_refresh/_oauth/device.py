"""A login on another device: show a code, and ask until the person has decided (RFC 8628)."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import anyio

from .._errors import LoginFailed
from .._token import Token, seconds
from .answer import NoAnswer, Rules
from .client import Client
from .login import redeem
from .settings import LoginSettings, checked_url, is_sendable

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"

_LEAST_INTERVAL = 1.0
_MOST_INTERVAL = 300.0
_MOST_LIFETIME = 86_400.0
_MOST_CHARACTERS = 2_048  # of what is shown: a code, an address


@dataclass(frozen=True, slots=True)
class DeviceAuthorization:
    """A device login that was begun: show `verification_uri` and `user_code` to the person.

    `expires_at` is in epoch seconds, `interval` in seconds. Its repr does not show the device code.
    """

    device_code: str = field(repr=False)
    user_code: str
    verification_uri: str
    verification_uri_complete: str | None
    expires_at: float
    interval: float


async def start(
    client: Client, settings: LoginSettings, *, scope: str | None
) -> DeviceAuthorization:
    """Ask for a device code and a user code (RFC 8628 §3.1 and §3.2).

    Raises:
        LoginFailed: the server gave none.
        ValueError: no device authorization endpoint is known.
    """
    url = settings.device_authorization_endpoint
    if url is None:
        raise ValueError(f"no device_authorization_endpoint is known for {client.name}: give one")
    asked = settings.scope_of(scope)
    form = {**({"scope": asked} if asked else {}), **settings.resource_params()}
    answer = await client.post(urlencode(form), url=url)
    if isinstance(answer, NoAnswer):
        raise LoginFailed(
            f"{client.name}'s device authorization endpoint could not be reached, or gave no answer ({answer.why}). "
            "Try again later.",
            transient=answer.transient,
            caused_by=answer.caused_by,
        )
    try:
        fields = json.loads(answer.body)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        fields = {}
    begun = _begun(fields, settings) if answer.status == 200 else None
    if begun is None:
        code = fields.get("error")
        error_code = client.redact(code, 64) if isinstance(code, str) else None
        raise LoginFailed(
            f"{client.name} began no device login (status {answer.status}{', ' + error_code if error_code else ''}). "
            "Check the client id, and whether this client may log in devices.",
            error=error_code,
        )
    return begun


def _begun(fields: dict[str, Any], settings: LoginSettings) -> DeviceAuthorization | None:
    device_code, user_code = fields.get("device_code"), fields.get("user_code")
    # Google calls it verification_url, as a draft of the RFC did.
    uri: Any = fields.get("verification_uri") or fields.get("verification_url")
    complete: Any = fields.get("verification_uri_complete")
    if not (isinstance(device_code, str) and device_code and isinstance(user_code, str)):
        return None
    if not is_sendable(device_code):
        return None
    # A terminal shows it, and a person types it.
    if not (user_code and user_code.isprintable() and len(user_code) <= _MOST_CHARACTERS):
        return None
    http = settings.allow_http
    try:
        uri = checked_url(uri, "verification_uri", allow_http=http)
        complete = complete and checked_url(complete, "verification_uri_complete", allow_http=http)
    except (TypeError, ValueError):
        return None
    if max(len(uri), len(complete or "")) > _MOST_CHARACTERS:
        return None
    lifetime = min(seconds(fields.get("expires_in")) or 600.0, _MOST_LIFETIME)
    # RFC 8628 §3.2: five seconds where the server names no interval.
    interval = _bounded(seconds(fields.get("interval")) or 5.0)
    return DeviceAuthorization(
        device_code, user_code, uri, complete or None, time.time() + lifetime, interval
    )


def _bounded(interval: float) -> float:
    return min(max(interval, _LEAST_INTERVAL), _MOST_INTERVAL)


async def wait(
    client: Client, settings: LoginSettings, device: DeviceAuthorization, rules: Rules
) -> Token:
    """Ask, as often as the server allows, until the person has decided (RFC 8628 §3.4 and §3.5).

    Raises:
        LoginFailed: the person said no, or the code expired.
    """
    interval = _bounded(device.interval)
    deadline = anyio.current_time() + min(device.expires_at - time.time(), _MOST_LIFETIME)
    while True:
        await anyio.sleep(interval)
        form = {"device_code": device.device_code, **settings.resource_params()}
        token = await redeem(client, DEVICE_GRANT, form, rules)
        if isinstance(token, Token):
            return token
        interval = _next_interval(token, interval, client.name)
        if anyio.current_time() + interval >= deadline:
            raise _expired(client.name)


def _next_interval(error: LoginFailed, interval: float, name: str) -> float:
    """Return the pause before the next question; raise if there is none."""
    if error.error == "authorization_pending":
        return interval
    if error.error == "slow_down":
        return interval + 5.0
    if error.error == "expired_token":
        raise _expired(name)
    if error.error == "access_denied":
        raise LoginFailed(
            f"The login at {name} was denied. Nothing has changed.", error=error.error
        )
    if error.transient:
        return interval * 2  # RFC 8628 §3.5: a connection that failed is tried again, less often.
    raise error


def _expired(name: str) -> LoginFailed:
    return LoginFailed(
        f"Nobody decided about the login at {name} in time, and its code is no longer good. Start the login again.",
        error="expired_token",
    )
