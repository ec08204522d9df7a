"""An authorization server that commits when a request arrives, and the API behind it. No network: see network.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.simulation.loop import EPOCH

if TYPE_CHECKING:
    from httpx_refresh import Token
    from tests.simulation.world import World


@dataclass(slots=True, eq=False)
class Family:
    """What one login began. `ended`: why it is dead."""

    number: int
    ended: str | None = None
    claims: frozenset[str] = frozenset()
    """The claims that its tokens have from now on."""


@dataclass(frozen=True, slots=True)
class Spending:
    """One sending of a refresh token, as its sender claimed it."""

    by: str
    nonce: str
    refresh_token: str
    claimed_at: float


@dataclass(slots=True, eq=False)
class _Refresh:
    family: Family
    spent: Spending | None = None
    spent_at: float = 0.0


@dataclass(slots=True, eq=False)
class _Access:
    family: Family
    issued_at: float
    expires_at: float
    spending: Spending | None
    claims: frozenset[str]


class Server:
    """Strict: a spent refresh token that comes back ends its family (RFC 9700 §4.14.2), as the plan has it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._plan = world.plan
        self._issued = 0
        self._family: Family | None = None
        self.families: list[Family] = []
        self.refresh_tokens: dict[str, _Refresh] = {}
        self.access_tokens: dict[str, _Access] = {}
        self.refused: set[str] = set()
        """Refresh tokens that were refused for good."""
        self.spent: dict[str, Spending] = {}
        """What each access token was got for, but those of logins."""
        self.purposes: dict[str, str] = {}
        """What each access token of a service is for."""

    def login(self) -> dict[str, Any]:
        """Begin a family, and return its first token response."""
        self._family = Family(len(self.families))
        self.families.append(self._family)
        return self._issue(self._family, None, new_refresh_token=True)

    def spend(
        self, spending: Spending, claims: frozenset[str] = frozenset()
    ) -> dict[str, Any] | None:
        """Spend a refresh token for the next pair, with these claims too; None: it is refused for good."""
        world, held = self._world, self.refresh_tokens[spending.refresh_token]
        if held.family.ended is None and held.spent is not None:
            in_grace = world.now - held.spent_at < self._plan.server_grace
            if not in_grace:
                why = world.watch.why_reused(held.spent, spending)
                world.note("server", f"{spending.refresh_token} comes back: {why}")
                if self._plan.revokes_on_reuse:
                    held.family.ended = why
                self.refused.add(spending.refresh_token)
                return None
        if held.family.ended is not None:
            self.refused.add(spending.refresh_token)
            world.note("server", f"{spending.refresh_token} refused: {held.family.ended}")
            return None
        if self._plan.rotates and held.spent is None:
            held.spent, held.spent_at = spending, world.now
        if self._plan.ends_previous:
            self.expire(held.family)
        held.family.claims |= claims
        fields = self._issue(held.family, spending, new_refresh_token=self._plan.rotates)
        self.spent[fields["access_token"]] = spending
        world.note("server", f"{spending.refresh_token} gives {fields['access_token']}")
        down = self._plan.store_down_at_answer
        if down and world.chance(down):
            lasts = world.random.choice([0.3, 1.0, 3.0]) * self._plan.refresh_timeout
            world.cell.down_until["everyone"] = world.now + lasts
        return fields

    def grant(self, spending: Spending, purpose: str) -> dict[str, Any]:
        """Return a token response to a service."""
        if self._plan.ends_previous:
            for earlier in self.families:
                self.expire(earlier)
        family = Family(len(self.families))
        self.families.append(family)
        fields = self._issue(family, spending, new_refresh_token=False)
        self.spent[fields["access_token"]] = spending
        self.purposes[fields["access_token"]] = purpose
        self._world.note("server", f"grants {fields['access_token']} for {purpose}")
        return fields

    def accepts(self, access_token: str) -> bool:
        """Whether the API accepts it."""
        held = self.access_tokens[access_token]
        return held.family.ended is None and self._world.now < held.expires_at

    def expire(self, family: Family | None = None) -> None:
        """End the access tokens of a family, or all there are, before their time."""
        for held in self.access_tokens.values():
            if family is None or held.family is family:
                held.expires_at = min(held.expires_at, self._world.now)

    def end(self, token: Token, why: str) -> None:
        """End a token's family."""
        family = self.access_tokens[token.access_token].family
        family.ended = family.ended or why

    def family_of(self, refresh_token: str) -> Family:
        return self.refresh_tokens[refresh_token].family

    def _issue(
        self, family: Family, spending: Spending | None, *, new_refresh_token: bool
    ) -> dict[str, Any]:
        self._issued += 1
        name = f"{family.number}-{self._issued}"
        now = self._world.now
        self.access_tokens[f"at-{name}"] = _Access(
            family, now, now + self._plan.lifetime, spending, family.claims
        )
        fields: dict[str, Any] = {"access_token": f"at-{name}"}
        if self._plan.absolute_expiry:
            fields["expires_at"] = EPOCH + now + self._plan.lifetime
        elif self._plan.says_lifetime:
            fields["expires_in"] = self._plan.lifetime
        if new_refresh_token:
            self.refresh_tokens[f"rt-{name}"] = _Refresh(family)
            fields["refresh_token"] = f"rt-{name}"
        return fields
