"""What must hold at every step: for what is written, and for what callers get."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from httpx_refresh import ReauthorizationRequired, RefreshAuthError, StoreError
from httpx_refresh._refresh.renewal import _MOST_BEGINNINGS
from tests.simulation.claims import Claimed, Claims

if TYPE_CHECKING:
    from httpx_refresh._refresh.record import Claim, Record
    from tests.simulation.process import Process
    from tests.simulation.world import World


_OF_THE_STORE = {
    "store failed",
    "store resent",
    "store hung",
    "slow store",
    "damage",
    "stop",
    "sleep",
}
"""For these a call of the store may not be back in time, or fail."""


class Watch(Claims):
    """Sees everything: every write, every sending, every answer."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._seen: set[str] = set()
        self._order: dict[str, int] = {}
        """In which order access tokens came into the store."""
        self._raised: dict[int, RefreshAuthError] = {}
        self.slowest = 0.0
        self.logins: set[str] = set()
        """Access tokens of logins that the application itself puts into the store."""

    # -- writes ------------------------------------------------------------------------------------------------

    def written(self, writer: Process | None, before: Record, after: Record) -> None:
        """Judge what is written into the cell."""
        if after.token is not None:
            self._seen.add(after.token.access_token)
            self._order.setdefault(after.token.access_token, len(self._order))
        if before.redeeming is not None and after.redeeming != before.redeeming:
            self.claimed(before.redeeming.nonce).replaced = True
        if writer is None or after.text == before.text:
            return
        if self._plan.purposes:
            self._written_by_service(writer, before, after)
            return
        assert (
            after.token is not None
        )  # Else the code under test sees the store fail, which is found as well.
        if (
            after.token.access_token in self.logins
            and after.redeeming is None
            and after.generation > before.generation
        ):
            return  # The application's own login; a client may have sent it twice.
        if after.redeeming is not None:
            self._claim_written(writer, before, after, after.redeeming)
        elif before.token is None or after.token.access_token != before.token.access_token:
            self._result_written(writer, before, after)
        else:
            self._release_written(writer, before, after)

    def _written_by_service(self, writer: Process, before: Record, after: Record) -> None:
        """Judge what a process writes whose tokens come from nothing."""
        require, claim, purpose = self._world.require, after.redeeming, self._purpose_of(writer)
        require(
            after.uncertain is None,
            "what can be asked for again is never in doubt",
            after.uncertain,
        )
        if claim is not None:
            claimed = self.claimed(claim.nonce)
            require(claimed.by == writer.name == claim.by, "a claim is its writer's", claim)
            require(after.same_base(before), "a claim changes nothing but the claim", claim)
            require(
                before.token is None
                or before.purpose != purpose
                or writer.forces
                or self._is_needed(writer, before),
                "no request without need",
                claim,
            )
            if before.redeeming is not None:
                self.claimed(before.redeeming.nonce).taken_over = True
                self._require_free(writer, before.redeeming)
            claimed.written_at, claimed.record = self._world.now, after
        elif after.token is not None and (
            before.token is None or after.token.access_token != before.token.access_token
        ):
            theirs = self._world.server.purposes.get(after.token.access_token)
            require(theirs == after.purpose == purpose, "a token is for what its text says", theirs)
            require(after.generation > before.generation, "the generation grows with a result")
            self._require_free(writer, before.redeeming)
        else:
            require(after.same_base(before), "a release keeps the token")

    def _purpose_of(self, process: Process) -> str:
        return self._plan.purpose_of(process.number)

    def _claim_written(self, writer: Process, before: Record, after: Record, claim: Claim) -> None:
        require, claimed = self._world.require, self.claimed(claim.nonce)
        require(claimed.by == writer.name == claim.by, "a claim is its writer's", claim)
        require(after.same_base(before), "a claim changes nothing but the claim", claim)
        require(not before.is_dead(), "a dead grant is not asked for again", claim)
        require(before.uncertain is None or after.uncertain is not None, "doubt stays", claim)
        require(
            writer.forces
            or self._is_needed(writer, before)
            or (before.token is not None and before.token.access_token in writer.lacking),
            "no refresh without need",
            claim,
        )
        if before.redeeming is not None:
            old = self.claimed(before.redeeming.nonce)
            old.taken_over = True
            self._require_free(writer, before.redeeming)
            require(
                after.uncertain is not None
                or old.first_sent is None
                or (old.by == writer.name and not old.maybe_spent),
                "a takeover of what was sent is marked unknown",
                claim,
            )
        claimed.written_at, claimed.record = self._world.now, after

    def _result_written(self, writer: Process, before: Record, after: Record) -> None:
        require, server = self._world.require, self._world.server
        assert after.token is not None
        spending = server.spent.get(after.token.access_token)
        require(spending is not None, "a result is the server's", after.token.access_token)
        spent = spending and spending.refresh_token
        held = None if before.token is None else before.token.refresh_token
        require(
            before.text is None or held == spent,
            "a result replaces the token that was spent for it, and no other",
            held,
            spent,
        )
        require(after.generation > before.generation, "the generation grows with a result")
        if before.text is None and after.token.refresh_token is not None:
            self._rescued.add(after.token.refresh_token)
        self._require_free(writer, before.redeeming)

    def _release_written(self, writer: Process, before: Record, after: Record) -> None:
        require, held = self._world.require, after.token
        assert held is not None
        require(after.generation == before.generation, "the generation never falls")
        require(after.same_base(before), "a release keeps the token")
        if after.dead is not None:
            require(
                held.refresh_token in self._world.server.refused,
                "dead is what the server refused for good",
                held.refresh_token,
            )
            return
        claim = before.redeeming
        if claim is None:
            require(after.uncertain == before.uncertain, "a verdict changes nothing but itself")
            return
        by = claim.by
        require(by == writer.name, "a claim is released by its owner", writer.name, claim)
        maybe_spent = self.claimed(claim.nonce).maybe_spent
        require(
            after.uncertain is not None or not maybe_spent,
            "what may be spent is marked so",
            claim,
        )

    def _require_free(self, writer: Process, claim: Claim | None) -> None:
        """Whatever claim stands there, it must be the writer's own and at its end, or abandoned."""
        world, plan = self._world, self._plan
        old = self.claimed(claim.nonce) if claim else Claimed(writer.name, "", 0.0, 0.0)
        stood = world.now - old.written_at
        age = 0.0 if claim is None else writer.wall() - claim.since + writer.machine.stepped
        world.require(
            stood * (1.0 + plan.drift) >= 1.5 * old.lasts
            or age > self.ancient
            or self._is_closed(old)
            or (old.by == writer.name and all(one.nonce != old.nonce for one in self._sending)),
            "a claim is left alone until it is abandoned",
            claim,
            writer.name,
            stood,
        )

    def _is_closed(self, claimed: Claimed) -> bool:
        """Whether the loop that a claim was made on was closed with its task in the middle of it."""
        return any(
            what == "close" and at >= claimed.made_at
            for at, what in self.faults.get(claimed.by, [])
        )

    def _is_needed(self, writer: Process, before: Record) -> bool:
        """Whether this process has a reason to replace the token that it claims."""
        token, plan = before.token, self._plan
        assert token is not None
        lead = min(plan.refresh_before, plan.lifetime / 5 if token.extra else plan.refresh_before)
        expires_at = math.inf if token.expires_at is None else token.expires_at
        return (
            token.access_token in writer.refused
            or writer.wall() + writer.machine.stepped >= expires_at - lead
        )

    def not_saved(self, process: Process) -> None:
        """Take note that the store failed for a process, or that the process ends: what it got until now is unsaved,
        and handed out all the same (rule 3's exception).
        """
        for access_token, spending in self._world.server.spent.items():
            if spending.by == process.name:
                process.unsaved.add(access_token)

    # -- callers -----------------------------------------------------------------------------------------------

    def handed_out(self, process: Process, access_token: str) -> None:
        """Judge a token that a caller got."""
        spending = self._world.server.spent.get(access_token)
        unsaved = spending and spending.by == process.name and self._may_fail(process)
        if self._plan.purposes:
            theirs = self._world.server.purposes.get(access_token)
            mine = self._purpose_of(process)
            self._world.require(theirs == mine, "nobody gets a token for something else", theirs)
            # One that lost the slot to another purpose is used all the same.
            unsaved = unsaved or (self._plan.purposes > 1 and spending is not None)
        self._world.require(
            access_token in self._seen or access_token in process.unsaved or unsaved,
            "nobody gets a token that was not in the store",
            access_token,
        )

    def not_undone(self, login: str | None, access_token: str) -> None:
        """Judge a token that is in use after the application's login, which this process put into the store."""
        order = self._order
        if login in order and access_token in order:
            self._world.require(
                order[access_token] >= order[login],
                "a login is not undone in memory",
                login,
                access_token,
            )

    def _may_fail(self, process: Process) -> bool:
        faults = {what for _, what in self.faults.get(process.name, [])}
        return not _OF_THE_STORE.isdisjoint(faults)

    def _stops_of_late(self, process: Process) -> int:
        """Return how often the process was stopped while a flight may have gone on that begins again each time."""
        since = self._world.now - 7.0 * _MOST_BEGINNINGS * process.refresh_timeout
        return sum(what == "stop" and at > since for at, what in self.faults.get(process.name, []))

    def failed(self, process: Process, error: RefreshAuthError, began: float) -> None:
        """Judge an error that a caller got who began to ask at that time."""
        require = self._world.require
        require("which it should not" not in str(error), "nothing unforeseen happens", error)
        outcome = getattr(error, "outcome", None)
        require(
            self._plan.kind != "freezes"
            or outcome != "not_sent"
            or self._world.now - began >= 1.7 * process.refresh_timeout
            or self._stops_of_late(process) >= _MOST_BEGINNINGS,
            "what was not sent is begun again",
            error,
        )
        require(
            self._plan.kind != "stale secrets" or process.number < self._plan.refuses_clients[2],
            "a client that is not refused is served",
            error,
        )
        require(id(error) not in self._raised, "every caller gets an error of its own")
        self._raised[id(error)] = error
        if isinstance(error, StoreError):
            require(self._may_fail(process), "a store's failure is the store's", error)
            return
        if isinstance(error, ReauthorizationRequired):
            require(not self._plan.purposes, "no person is asked to log in for a service", error)
            require(self.reasons, "a login is asked for with a reason from the list", error)
            cell, plan = self._world.cell, self._plan
            held_up = plan.faults & {"stop", "sleep", "slow store"}
            require(
                held_up
                or cell.record.token is None
                or cell.record.token.refresh_token is None
                or cell.record.is_dead()
                or cell.record.token.refresh_token
                in self._world.server.refused  # and it was not noted
                or cell.since > began - 1.1 - 10 * plan.latency["store"],
                "a login elsewhere is seen within about a second",
                error,
            )

    def answered(self, took: float, claims: int) -> None:
        """Judge how long a caller waited, while so many claims were made."""
        timeouts = (*self._plan.timeouts, self._plan.refresh_timeout)
        bound = (2 + claims) * 1.5 * max(timeouts) + 10.0
        self.slowest = max(self.slowest, took / bound)
        self._world.require(took <= bound, "everybody is answered in time", took, bound)

    def needs_login(self) -> bool:
        """Whether only a person can help, as things are in the store and at the server."""
        record, server = self._world.cell.record, self._world.server
        token = record.token
        if self._plan.purposes:
            return False
        if token is None or token.refresh_token is None:
            return True
        family = server.family_of(token.refresh_token)
        return record.is_dead() and (
            family.ended is not None or token.refresh_token in server.refused
        )
