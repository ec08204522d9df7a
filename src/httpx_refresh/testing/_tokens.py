"""The tokens of a server: families, generations, and the judgement of a token that is presented.

Every issued pair has the next generation of its family. A family begins with a login and ends when it
is revoked. Its pairs stay on record, so that a spent token is recognised when it is used again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ._events import Event, Family, FamilyEvent
from ._settings import Settings
from ._wire import Refusal


@dataclass(slots=True, eq=False)
class _Access:
    family: Family
    generation: int
    serial: int
    expires_at: float
    revoked: bool = False


@dataclass(slots=True, eq=False)
class _Refresh:
    family: Family
    generation: int
    spent_at: float | None = None


class Verdict(NamedTuple):
    """The API's judgement of an `Authorization` header."""

    outcome: str
    family: int | None = None
    generation: int | None = None


class Spent(NamedTuple):
    """The result of a refresh: the response, its generation, and `issued` or `reissued`."""

    response: dict[str, Any]
    issued: int
    outcome: str


class TokenBook:
    """All tokens that the server issued. It is not thread-safe: the server calls it under its lock."""

    def __init__(self, settings: Settings, events: list[Event]) -> None:
        self._settings = settings
        self._events = events
        self._families: list[Family] = []
        self._granted: list[Family] = []
        self._access: dict[str, _Access] = {}
        self._refresh: dict[str, _Refresh] = {}
        # By the number of each family: the newest generation of which a token was used.
        self._used: dict[int, int] = {}
        self._serial = 0
        self._oldest_good = 0
        self.rotations = 0
        self.reuses_detected = 0
        self.family_revocations = 0

    @property
    def families(self) -> tuple[Family, ...]:
        """All families, the oldest first."""
        return tuple(self._families)

    def begin(
        self, client_id: str, scope: str, asked: Mapping[str, str] | None = None
    ) -> tuple[Family, dict[str, Any]]:
        """Begin a family, as a login does, and return it with its first token response."""
        family = Family(len(self._families), client_id, scope, asked=dict(asked or {}))
        self._families.append(family)
        self._events.append(FamilyEvent(self._settings.clock(), family.number, "login"))
        return family, self._issue(family, self._new_refresh_token(family))

    def grant(self, client_id: str, scope: str, *, refreshable: bool) -> dict[str, Any]:
        """Begin a family without a person's login, and return its first token response."""
        if self._settings.grant_ends_previous:
            for earlier in self._granted:
                if earlier.client_id == client_id:
                    self.end(earlier, "next grant")
        family = Family(len(self._families), client_id, scope)
        self._families.append(family)
        self._granted.append(family)
        self._events.append(FamilyEvent(self._settings.clock(), family.number, "grant"))
        return self._issue(family, self._new_refresh_token(family) if refreshable else None)

    def known(self, refresh_token: str) -> tuple[int | None, int | None]:
        """Return the family and generation of a refresh token, spent or not; (None, None) if it is unknown."""
        held = self._refresh.get(refresh_token)
        return (None, None) if held is None else (held.family.number, held.generation)

    def known_family(self, refresh_token: str) -> Family:
        """Return the family of a known refresh token."""
        return self._refresh[refresh_token].family

    def spend(self, refresh_token: str, client_id: str, scope: str | None) -> Spent:
        """Spend a refresh token for the next pair (RFC 6749 section 6)."""
        held = self._refresh.get(refresh_token)
        if held is None or held.family.client_id != client_id:
            raise Refusal("invalid_grant", "the refresh token is not one of this client's")
        family, settings = held.family, self._settings
        if family.revoked:
            raise Refusal("invalid_grant", "the refresh token was revoked")
        if scope is not None and not set(scope.split()) <= set(family.scope.split()):
            raise Refusal("invalid_scope", "more than was granted")
        now = settings.clock()
        if held.spent_at is not None and self._is_over(held, held.spent_at, now):
            self.reuses_detected += 1
            if settings.revoke_on_reuse:
                self.end(family, "reuse")
            raise Refusal("invalid_grant", "the refresh token was spent before", outcome="reused")
        self._use(family, held.generation)
        outcome = "issued" if held.spent_at is None else "reissued"
        family.generation += 1
        if settings.refresh_ends_previous_access_token:
            family.oldest_good = family.generation
        if settings.rotate is True:
            # The grace counts from the first use, so further uses do not extend it.
            held.spent_at = now if held.spent_at is None else held.spent_at
            self.rotations += 1
            sent: str | None = self._new_refresh_token(family)
        else:
            sent = refresh_token if settings.rotate == "same" else None
        return Spent(self._issue(family, sent), family.generation, outcome)

    def check(self, authorization: str | None) -> Verdict:
        """Judge an `Authorization` header (RFC 6750 section 2.1)."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != self._settings.authorization_scheme.lower() or not token:
            return Verdict("missing")
        access = self._access.get(token)
        if access is None:
            return Verdict("unknown")
        family = access.family
        if access.revoked or family.revoked or access.generation < family.oldest_good:
            outcome = "revoked"
        elif access.serial < self._oldest_good or self._settings.clock() >= access.expires_at:
            outcome = "expired"
        else:
            outcome = "accepted"
            self._use(family, access.generation)
        return Verdict(outcome, family.number, access.generation)

    def _is_over(self, held: _Refresh, spent_at: float, now: float) -> bool:
        """Whether the grace of a spent refresh token has ended."""
        grace = self._settings.reuse_grace
        if grace == "until_used":
            return self._used.get(held.family.number, 0) > held.generation
        return now - spent_at >= grace

    def _use(self, family: Family, generation: int) -> None:
        self._used[family.number] = max(self._used.get(family.number, 0), generation)

    def expire_access_tokens(self) -> None:
        """Expire every access token issued so far."""
        self._oldest_good = self._serial

    def revoke(self, token: str, client_id: str) -> None:
        """Revoke a token (RFC 7009): a refresh token ends its family, an access token only itself, others nothing."""
        access, refresh = self._access.get(token), self._refresh.get(token)
        if access is not None and access.family.client_id == client_id:
            access.revoked = True
        elif refresh is not None and refresh.family.client_id == client_id:
            self.end(refresh.family, "revocation")

    def end(self, family: Family, reason: str) -> None:
        """Revoke a whole family, once."""
        if not family.revoked:
            family.revoked = True
            self.family_revocations += 1
            self._events.append(FamilyEvent(self._settings.clock(), family.number, reason))

    def _new_refresh_token(self, family: Family) -> str:
        token = self._settings.new_token()
        self._refresh[token] = _Refresh(family, family.generation)
        return token

    def _issue(self, family: Family, refresh_token: str | None) -> dict[str, Any]:
        settings = self._settings
        token = settings.new_token()
        self._access[token] = _Access(
            family, family.generation, self._serial, settings.clock() + settings.lifetime
        )
        self._serial += 1
        response: dict[str, Any] = {"access_token": token, "token_type": "Bearer"}
        if settings.send_expires_in:
            whole = int(settings.lifetime)
            response["expires_in"] = whole if whole == settings.lifetime else settings.lifetime
        if refresh_token is not None:
            response["refresh_token"] = refresh_token
        if family.scope:
            response["scope"] = family.scope
        extra = settings.extra
        response.update(extra(family) if callable(extra) else extra)
        return response
