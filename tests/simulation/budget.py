"""What token requests cost: how many there may be in any window, whatever the number of pods and callers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World


@dataclass(frozen=True, slots=True)
class Bound:
    """At most so many token requests in any window of so many seconds.

    Attributes:
        most: how many.
        window: of how many seconds.
        unneeded: whether only those count that replace a token which is good, and not about to expire.
        since, until: those between these moments count.
    """

    most: int
    window: float
    unneeded: bool = False
    since: float = 0.0
    until: float = float("inf")


class Budget:
    """Counts token requests, and holds them against the plan's bounds."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._sent: list[tuple[float, bool]] = []

    def sends(self, process: Process) -> None:
        """Judge that a token request is made now."""
        world, now = self._world, self._world.now
        self._sent.append((now, self._is_needed(process)))
        for bound in world.plan.bounds:
            if not bound.since <= now < bound.until:
                continue
            since = max(bound.since, now - bound.window)
            counted = sum(
                1 for at, needed in self._sent if at >= since and not (bound.unneeded and needed)
            )
            world.require(
                counted <= bound.most,
                "token requests are bounded by what happened",
                f"{counted} in {now - since:.1f} s",
                bound,
            )

    def _is_needed(self, process: Process) -> bool:
        """Whether the token in the store serves no more, or not for long."""
        world, plan, token = self._world, self._world.plan, self._world.cell.record.token
        if token is None or process.forces:
            return True
        held = world.server.access_tokens[token.access_token]
        lead = min(process.refresh_before, plan.lifetime / 5)
        if plan.absolute_expiry:
            # A clock that is ahead by nearly a lifetime sees a token that has little time left, and soon none.
            ahead = process.machine.skew
            if held.issued_at + ahead < held.expires_at <= world.now + ahead + lead + 1.0:
                return True
        return (
            not world.server.accepts(token.access_token)
            or held.expires_at - world.now <= lead + 1.0
        )
