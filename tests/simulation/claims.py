"""What is known of every claim, and whether what is sent under it may be sent."""

from __future__ import annotations

from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from httpx_refresh._refresh import record as _record
from tests.simulation.server import Spending

if TYPE_CHECKING:
    from httpx_refresh._refresh.record import Record
    from tests.simulation.process import Process
    from tests.simulation.world import World


_made_here: ContextVar[tuple[str, ...]] = ContextVar("_made_here", default=())
"""Nonces that the running task made, or the tasks that it came of."""

_TOOK_TIME = {"not sent", "lost request", "error before", "busy", "refused"}


@dataclass(slots=True, eq=False)
class Claimed:
    """What is known of one claim.

    Attributes:
        lasts: seconds for which its owner goes on.
    """

    by: str
    nonce: str
    made_at: float
    lasts: float
    written_at: float = -1.0
    record: Record | None = None
    replaced: bool = False
    taken_over: bool = False
    maybe_spent: bool = False
    first_sent: float | None = None
    outcome: str = "not_sent"


class Claims:
    """Sees every claim and every sending."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._plan = world.plan
        self._claims: dict[str, Claimed] = {}
        self._made: dict[str, tuple[Process, float]] = {}
        self._sending: list[Spending] = []
        self._rescued: set[str] = set()
        """Refresh tokens that were put into an emptied slot, by a process that did not know what became of them."""
        self.claims_made = 0
        self._nonces_of: Counter[str] = Counter()
        self.faults: dict[str, list[tuple[float, str]]] = {}
        """What went wrong for each process, and when."""
        self.ancient = 86_400.0
        """A claim that is older than this by its reader's clock, in seconds, need not be watched."""
        self.reasons: list[str] = []
        """Why a person has to log in again."""

    @property
    def _apart(self) -> bool:
        """Whether clocks may differ by a day or more: a live claim may then be taken for an old one."""
        machines = [process.machine for process in self._world.processes.values()]
        ahead = max(machine.skew + machine.stepped for machine in machines)
        behind = min(machine.skew - machine.stepped for machine in machines)
        return ahead - behind > self.ancient - 1.5 * self._plan.refresh_timeout

    # -- claims ------------------------------------------------------------------------------------------------

    def new_nonce(self, process: Process) -> str:
        """Name whatever is to be like nothing else after its owner. It may be a claim."""
        self._nonces_of[process.name] += 1
        nonce = f"{process.name}#{self._nonces_of[process.name]}"
        self._made[nonce] = (process, self._world.now)
        _made_here.set((*_made_here.get(), nonce))
        return nonce

    def claimed(self, nonce: str) -> Claimed:
        """Return what is known of the claim of that name."""
        known = self._claims.get(nonce)
        if known is None:
            process, made_at = self._made[nonce]
            known = Claimed(process.name, nonce, made_at, self._time_of(process))
            self._claims[nonce] = known
            self.claims_made += 1
        return known

    def _time_of(self, process: Process) -> float:
        """Return the seconds that a process has for one spending: less than `refresh_timeout` with a short grace."""
        most, grace = process.refresh_timeout, self._plan.client_grace
        return most if grace == 0 else min(most, max(grace / 2, most / 4))

    def claims_since(self, moment: float, process: Process) -> list[Claimed]:
        """Return the claims that a process made after that moment."""
        return [
            one
            for one in self._claims.values()
            if one.by == process.name and one.made_at > moment and one.record is not None
        ]

    def sends(self, process: Process, refresh_token: str) -> Spending:
        """Judge whether this refresh token may be sent now."""
        world, plan, require = self._world, self._plan, self._world.require
        # What this task, or the one that started it, claimed last.
        claimed = next(
            (self._claims[one] for one in reversed(_made_here.get()) if one in self._claims),
            Claimed(process.name, "", -1.0, 0.0),
        )
        spending = Spending(process.name, claimed.nonce, refresh_token, claimed.made_at)
        record = claimed.record or _record.parse(None)
        held = None if record.token is None else record.token.refresh_token
        require(
            held == refresh_token,
            "what is sent is what was claimed, in the store",
            spending,
        )
        require(
            self._apart or not claimed.taken_over,
            "nothing is sent under a claim that was taken over",
            spending,
        )
        late = world.now - claimed.made_at - claimed.lasts
        require(late <= 1e-6 + world.now * plan.drift, "nothing is sent after its time", late)
        for other in self._sending:
            if other.refresh_token == refresh_token:
                require(
                    self._apart
                    or (other.nonce != claimed.nonce and self._claims[other.nonce].replaced),
                    "no two requests with one refresh token at once, but for a takeover",
                    other,
                    spending,
                )
        spent = world.server.refresh_tokens[refresh_token].spent
        forgiven = (
            claimed.first_sent is not None and world.now - claimed.first_sent < plan.client_grace
        )
        require(
            spent is None
            or record.uncertain is not None
            or forgiven
            or refresh_token in self._rescued
            or self._apart,
            "no spent refresh token is sent, unless the outcome was marked unknown",
            spending,
        )
        require(
            not claimed.maybe_spent or forgiven,
            "sent and no answer: sent again only where that is forgiven",
            spending,
        )
        claimed.first_sent = world.now if claimed.first_sent is None else claimed.first_sent
        claimed.maybe_spent = True
        self._sending.append(spending)
        return spending

    def asks(self, process: Process) -> Spending:
        """Judge whether a token may be asked for now, from nothing."""
        world, plan, require = self._world, self._plan, self._world.require
        claimed = next(
            (self._claims[one] for one in reversed(_made_here.get()) if one in self._claims),
            Claimed(process.name, "", -1.0, 0.0),
        )
        asking = Spending(process.name, claimed.nonce, "", claimed.made_at)
        require(claimed.record is not None, "nothing is asked for without a claim", asking)
        require(
            self._apart or not claimed.taken_over,
            "nothing is sent under a claim that was taken over",
            asking,
        )
        late = world.now - claimed.made_at - claimed.lasts
        require(late <= 1e-6 + world.now * plan.drift, "nothing is sent after its time", late)
        for other in self._sending:
            require(
                self._apart
                or (other.nonce != claimed.nonce and self._claims[other.nonce].replaced),
                "no two requests for a token at once, but for a takeover",
                other,
                asking,
            )
        self._sending.append(asking)
        return asking

    def has_sent(self, spending: Spending, outcome: str) -> None:
        """Take note of what the sender knows now."""
        self._sending.remove(spending)
        if not spending.nonce:
            return  # It was sent without a claim, which is a violation.
        claimed = self.claimed(spending.nonce)
        if outcome in ("not_sent", "busy", "refused") and claimed.outcome != "unknown":
            claimed.maybe_spent = False
        else:
            claimed.outcome = "unknown"

    def why_reused(self, *spendings: Spending) -> str:
        """Find the reason why a spent refresh token comes back."""
        if spendings[-1].refresh_token in self._rescued:
            self.reasons.append("emptied")
            return "emptied"
        found = [
            what
            for spending in spendings
            for at, what in self.faults.get(spending.by, [])
            if at >= spending.claimed_at
            # The answer comes while a process is stopped, or soon after that; and there is no other process.
            and not (self._plan.kind == "freezes" and what in ("stop", "pause"))
        ]
        if found:
            # What left the token unspent took only time: it is the reason if there is no better one.
            self.reasons.append(min(found, key=_TOOK_TIME.__contains__))
            return self.reasons[-1]
        self._world.require(
            self._apart, "a spent refresh token comes back for no reason", *spendings
        )
        self.reasons.append("clocks that differ by more than five minutes")
        return self.reasons[-1]
