"""The commands that maintain slots: status, token, refresh, revoke, watch, keep-alive."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import anyio

from .._auth import RefreshAuth
from .._errors import ReauthorizationRequired, StoreError
from .._oauth.endpoint import TokenEndpoint
from .._refresh.record import Record
from .._refresh.slot import Slot
from .._token import Token
from ..mcp import Server
from .console import EXPECTED, Exit, Problem, exit_code, moment, run, say, tell, warn
from .settings import GRANTS, Settings
from .slots import (
    NEEDS_LOGIN,
    describe,
    idle_of,
    lines,
    open_slot,
    prepare,
    state_of,
    until,
)

_DAY = 86_400.0
_STYLES = {"good": "green", "due": "yellow"}

REFRESH_TIMEOUT = 20.0
"""Seconds; the default of `RefreshAuth`."""


async def status(settings: Settings, *, as_json: bool) -> Exit:
    """Print the contents of a slot; return 0 if a token is available without a person."""
    slot = open_slot(settings)
    record = await slot.read()
    now = time.time()
    about = {"store": repr(slot.store), **describe(record, settings, now)}
    if as_json:
        say(json.dumps(about))
    else:
        found = [("provider", settings.provider or "not named"), ("store", about["store"])]
        found += lines(about, now)
        if settings.grant is not None and about["state"] in NEEDS_LOGIN:
            found[2] = ("state", "no valid token; one is requested when it is needed")
        width = max(len(name) for name, _ in found)
        for name, value in found:
            style = _STYLES.get(about["state"], "red") if name == "state" else ""
            say(f"{name:<{width}}  {value}", style)
    needs_login = about["state"] in NEEDS_LOGIN and settings.grant is None
    return Exit.LOG_IN if needs_login else Exit.DONE


async def obtain(settings: Settings) -> None:
    """Make sure that a service's slot holds a valid token; request one if it does not."""
    if settings.grant is None:
        raise Problem(
            f"{settings.label} names no grant, so a person logs in for it: `httpx-refresh login`. A service's table of "
            f"the configuration file says grant = {' or '.join(map(repr, GRANTS))}"
        )
    source, slot = await settings.source(), await prepare(settings)
    # No origins, because the commands send no request to the API.
    async with RefreshAuth(source, slot.store, origins=(), refresh_timeout=REFRESH_TIMEOUT) as auth:
        token = await auth.token()
    until = "" if token.expires_at is None else f"; it holds until {moment(token.expires_at)}"
    say(f"The token of {settings.label} is in {slot.store!r}{until}.", "green")


async def status_of_all(slots: Sequence[Settings], *, as_json: bool) -> Exit:
    """Print a table with a row for each slot; return the worst exit code."""
    worst, rows = Exit.DONE, [("name", "state", "access token", "refresh token", "store")]
    for settings in slots:
        now = time.time()
        try:
            slot = open_slot(settings)
            about = describe(await slot.read(), settings, now)
        except EXPECTED as error:
            tell(f"{settings.label}: {error}", "red")
            worst = max(worst, exit_code(error), key=_GRAVITY.index)
            rows.append((settings.label, "cannot be read", "", "", settings.store or ""))
            continue
        if about["state"] in NEEDS_LOGIN and settings.grant is None:
            worst = max(worst, Exit.LOG_IN, key=_GRAVITY.index)
        if as_json:
            say(json.dumps({"store": repr(slot.store), **about}))
        rows.append((settings.label, about["state"], *until(about, now), repr(slot.store)))
    if not as_json:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            words = "  ".join(f"{one:<{width}}" for one, width in zip(row, widths, strict=True))
            say(words.rstrip(), "" if row is rows[0] else _STYLES.get(row[1], "red"))
    return worst


async def refresh(settings: Settings) -> None:
    """Refresh now by the same code as every service, with a claim. A refresh that is under way is shared."""
    source = await settings.source()
    slot = open_slot(settings)
    # No origins, because the commands send no request to the API.
    async with RefreshAuth(source, slot.store, origins=(), refresh_timeout=REFRESH_TIMEOUT) as auth:
        token = await auth.refresh()
    record = await slot.read()
    until = (
        ""
        if token.expires_at is None
        else f"; the access token holds until {moment(token.expires_at)}"
    )
    say(f"Refreshed {settings.label}: generation {record.generation}{until}.", "green")


def revoke(settings: Settings, *, confirm: Callable[[str], bool]) -> None:
    """Revoke the token (RFC 7009), then empty the slot."""
    slot = open_slot(settings)
    source, record = run(partial(_look_before, settings, slot))
    if record.token is None:
        say(f"There is no token in {slot.store!r}: nothing to revoke.")
        return
    can_revoke = run(partial(_can_revoke, source, record.token))
    if not can_revoke:
        warn(
            f"{source.name} has no known revocation endpoint: the slot is emptied, and the token stays valid until it "
            "expires."
        )
    # Asked while no event loop runs, so that Ctrl-C ends the question at once.
    if not confirm(f"Revoke the token in {slot.store!r}? Everybody who uses it must log in again."):
        raise Problem("nothing was revoked", Exit.DONE)
    revoked = run(partial(_revoke, source, slot, at_source=can_revoke))
    done = f"Revoked at {source.name}, and" if revoked else "Not revoked, but"
    say(f"{done} emptied: {slot.store!r}.", "green")


async def _look_before(settings: Settings, slot: Slot) -> tuple[TokenEndpoint | Server, Record]:
    return await settings.login_place(), await slot.read()


async def _can_revoke(source: TokenEndpoint | Server, token: Token) -> bool:
    endpoint = source if isinstance(source, TokenEndpoint) else await source.endpoint(token)
    return endpoint.login.revocation_endpoint is not None


async def _revoke(source: TokenEndpoint | Server, slot: Slot, *, at_source: bool) -> bool:
    """Empty the slot; return whether the provider has revoked its token."""
    # No origins, because the commands send no request to the API.
    auth = RefreshAuth(source, slot.store, origins=(), refresh_timeout=REFRESH_TIMEOUT)
    if at_source:
        try:
            return await auth.revoke()
        except ValueError as error:  # The token does not say where it is revoked.
            raise Problem(
                f"{error}. Nothing was sent, and the slot is as it was. Give --revocation-url, in full"
            ) from None
    await auth.forget()
    return False


async def watch(
    settings: Settings,
    *,
    interval: float,
    changes: int | None = None,
    sleep: Callable[[float], Awaitable[object]] = anyio.sleep,
) -> None:
    """Print a line for each change of a slot, until it is interrupted, or after this many `changes`."""
    slot = open_slot(settings)
    tell(f"Watching {slot.store!r} every {interval:g} s. Ctrl-C ends it.")
    seen, printed = "", 0
    while True:
        line, style = await _look(slot, settings)
        if line != seen:
            seen, printed = line, printed + 1
            say(f"{moment(time.time())}  {line}", style)
        if printed == changes:
            return
        await sleep(interval)


async def _look(slot: Slot, settings: Settings) -> tuple[str, str]:
    try:
        record = await slot.read()
    except StoreError as error:  # It may come back.
        return str(error), "red"
    about = describe(record, settings, time.time())
    parts = [f"generation {record.generation}", about["state"]]
    if about["expires_at"] is not None:
        parts.append(f"until {moment(about['expires_at'])}")
    if about["refresh_token_due"] and about["refresh_token_expires_at"] is not None:
        parts.append("its refresh token is due")
    if about["redeeming"] is not None:
        parts.append(f"being refreshed by {about['redeeming']['by']}")
    if about["uncertain"] is not None:
        parts.append(f"uncertain since {moment(about['uncertain']['since'])}")
    if about["dead"] is not None:
        parts.append(about["dead"]["error"] or "no reason given")
    return ", ".join(parts), _STYLES.get(about["state"], "red")


async def keep_alive(slots: Sequence[Settings], *, within: float | None, verbose: bool) -> Exit:
    """Refresh the slots whose refresh token would expire unused; return the worst exit code.

    Args:
        slots: the slots to check.
        within: seconds; a refresh token that expires within this time is refreshed. None: half its lifetime.
        verbose: whether to print successes, too; cron mails everything that is printed.
    """
    worst = Exit.DONE
    for settings in slots:
        try:
            line = await _keep_alive(settings, within)
        except EXPECTED as error:
            tell(f"{settings.label}: {error}", "red")
            worst = max(worst, exit_code(error), key=_GRAVITY.index)
        else:
            if verbose:
                say(f"{settings.label}: {line}")
    return worst


# From the worst on: first those that need a person, last those that pass by themselves.
_GRAVITY = (Exit.DONE, Exit.TRY_LATER, Exit.STORE, Exit.REFUSED, Exit.USAGE, Exit.LOG_IN)


async def _keep_alive(settings: Settings, within: float | None) -> str:
    if settings.grant is not None:
        return "a service's token, which need not be kept alive"
    slot = open_slot(settings)
    record = await slot.read()
    now = time.time()
    token = _refreshable(record, slot, now)
    idle = idle_of(token, settings, now=now, within=within)
    if idle is not None and idle.dies_at is not None and not idle.due:
        assumed = ", as is assumed" if idle.assumed else ""
        return f"not due; its refresh token lives until {moment(idle.dies_at)}{assumed}"
    source = await settings.source()
    # No origins, because the commands send no request to the API.
    async with RefreshAuth(source, slot.store, origins=(), refresh_timeout=REFRESH_TIMEOUT) as auth:
        await auth.refresh()
    return "refreshed"


def _refreshable(record: Record, slot: Slot, now: float) -> Token:
    token = record.token
    state = state_of(token, dead=record.is_dead(), revoked=bool(record.revoked), now=now)
    if token is None or token.refresh_token is None or state in NEEDS_LOGIN:
        raise ReauthorizationRequired(
            f"{slot.store!r} holds no token that can be refreshed ({state}). Log in."
        )
    return token
