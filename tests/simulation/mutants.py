"""The protocol with one thing wrong: what the simulation must find, to be believed when it finds nothing."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from httpx_refresh._refresh.journal import Journal, NotSaved
from httpx_refresh._refresh.redemption import Redemption

from httpx_refresh import RefreshUnavailable
from httpx_refresh._refresh import record as _record
from httpx_refresh._refresh import session as sessions
from httpx_refresh._refresh.flight import Flight
from httpx_refresh._refresh.session import Session
from httpx_refresh._refresh.slot import Slot

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from httpx_refresh import Token
    from httpx_refresh._refresh.record import Record


def token_read_before_the_claim(patch: pytest.MonkeyPatch) -> None:
    """The refresh token that is spent is the one that its flight read first, not the one that was claimed."""
    first: dict[object, Token] = {}
    init = Redemption.__init__

    def remembers(
        self: Redemption, slot: Slot, endpoint: Any, base: Record, held: Token, **options: Any
    ) -> None:
        init(self, slot, endpoint, base, held, **options)
        self._held = first.setdefault(asyncio.current_task(), held)

    patch.setattr(Redemption, "__init__", remembers)


def memory_before_the_store(patch: pytest.MonkeyPatch) -> None:
    """The new token is in use before it is saved."""
    save = Journal.save
    session_of = _sessions(patch)

    async def publishes(self: Journal) -> Record:
        session_of[self._slot].publish(self.new_token, fresh=True)
        return await save(self)

    patch.setattr(Journal, "save", publishes)


def takeover_by_the_wall_clock(patch: pytest.MonkeyPatch) -> None:
    """A claim's age is told by its `since`, which another host's clock wrote."""

    def is_abandoned(self: Slot, record: Record, patience: float) -> bool:
        claim = record.redeeming
        return claim is not None and self.host.wall() - claim.since >= patience

    patch.setattr(Slot, "is_abandoned", is_abandoned)


def impatient_takeover(patch: pytest.MonkeyPatch) -> None:
    """A claim is taken over while its owner may still be waiting for the answer."""
    is_abandoned = Slot.is_abandoned
    patch.setattr(Slot, "is_abandoned", lambda self, r, p: is_abandoned(self, r, p / 3))


def claim_not_fenced(patch: pytest.MonkeyPatch) -> None:
    """Whoever has a result writes it, whatever stands there by now."""

    async def put(self: Journal) -> None:
        await self._slot.swap((await self._slot.read()).text, self._next_text())
        self._text = self._next_text()

    patch.setattr(Journal, "put", put)


def server_errors_are_death(patch: pytest.MonkeyPatch) -> None:
    """An answer that is no token is taken for a refusal of the grant."""
    ask_once = Redemption._ask_once

    async def dies(self: Redemption) -> Any:
        answer = await ask_once(self)
        unknown = isinstance(answer, RefreshUnavailable) and answer.outcome == "unknown"
        self.journal.dead = _record.Dead("", None, None, 0.0) if unknown else None
        return answer

    patch.setattr(Redemption, "_ask_once", dies)


def release_by_another(patch: pytest.MonkeyPatch) -> None:
    """Whoever finds another's claim tidies it up."""
    read = Slot.read

    async def tidies(self: Slot) -> Record:
        record = await read(self)
        fields = json.loads(record.text or "{}")
        if fields.get(_record.NOTES, {}).pop("redeeming", None):
            await self.swap(record.text, json.dumps(fields))
        return record

    patch.setattr(Slot, "read", tidies)


def takeover_forgets_the_doubt(patch: pytest.MonkeyPatch) -> None:
    """A takeover does not note that the one before it may have spent the token."""
    patch.setattr(Slot, "was_unsent", lambda self, claim: True)


def cancellation_forgets_the_doubt(patch: pytest.MonkeyPatch) -> None:
    """Who is cut off gives its claim up as if nothing had been sent."""
    settle = Journal.settle

    async def forgets(self: Journal) -> bool:
        self.maybe_spent = False
        return await settle(self)

    patch.setattr(Journal, "settle", forgets)


def sent_after_its_time(patch: pytest.MonkeyPatch) -> None:
    """A process that was held up sends all the same."""
    remaining = Redemption._remaining
    patch.setattr(Redemption, "_remaining", lambda self: max(remaining(self), 1.0))


def cut_short(patch: pytest.MonkeyPatch) -> None:
    """What a flight had waited is taken from the time of its request: found soonest where much is waited for."""
    claim, run = Redemption.claim, Flight.run
    began: dict[Slot, float] = {}

    async def runs(self: Flight) -> None:
        slot = self.session.slot
        began[slot] = slot.host.monotonic()
        await run(self)

    async def claims(self: Redemption) -> bool:
        slot = self.journal._slot
        won = await claim(self)
        self._deadline = began[slot] + self._refresh_timeout
        return won

    patch.setattr(Flight, "run", runs)
    patch.setattr(Redemption, "claim", claims)


def unsaved_token_dropped(patch: pytest.MonkeyPatch) -> None:
    """When the save fails, the new token is forgotten and the claim given up."""

    async def drops(self: Flight, unsaved: NotSaved) -> None:
        self.error = RefreshUnavailable("not saved")
        unsaved.journal.result, unsaved.journal.maybe_spent = None, False
        await unsaved.journal.put_or_warn()

    patch.setattr(Flight, "_land_unsaved", drops)


def sent_token_not_compared(patch: pytest.MonkeyPatch) -> None:
    """A late 401 for an older token refreshes the new one."""
    patch.setattr(Session, "held", lambda self, refused: None)
    decide = _record.decide

    def spends(record: Record, **state: Any) -> Any:
        step = decide(record, **state)
        return "spend" if step == "adopt" and state["stale"] is not None else step

    patch.setattr(_record, "decide", spends)


def retried_without_grace(patch: pytest.MonkeyPatch) -> None:
    """Sent and no answer: sent again, at a server that forgives no reuse."""
    ask_once = Redemption._ask_once

    async def forgets(self: Redemption) -> Any:
        answer = await ask_once(self)
        self.journal.maybe_spent = False
        return answer

    patch.setattr(Redemption, "_ask_once", forgets)


def dead_not_noted(patch: pytest.MonkeyPatch) -> None:
    """That a grant is dead is not written down: everybody asks for it."""
    write = _record.write
    patch.setattr(_record, "write", lambda *args, dead=None, **notes: write(*args, **notes))


def generation_not_counted(patch: pytest.MonkeyPatch) -> None:
    """The result is written with the generation of what it replaces."""
    next_text = Journal._next_text

    def same(self: Journal) -> str:
        fields = json.loads(next_text(self))
        fields[_record.NOTES]["generation"] = self._base.generation
        return json.dumps(fields)

    patch.setattr(Journal, "_next_text", same)


def flight_of_its_caller(patch: pytest.MonkeyPatch) -> None:
    """The refresh is the task of the caller that began it, and ends with it."""

    def spawn(run: Callable[[], Any], over: Callable[[], None]) -> None:
        caller, task = asyncio.current_task(), asyncio.ensure_future(run())
        assert caller is not None
        caller.add_done_callback(lambda _: task.cancel())
        task.add_done_callback(lambda _: over())

    patch.setattr(sessions, "spawn", spawn)


def error_of_nobody(patch: pytest.MonkeyPatch) -> None:
    """A callback of the event loop fails, where no caller sees it."""
    patch.setattr(Flight, "over", lambda self: 1 / 0)


def _sessions(patch: pytest.MonkeyPatch) -> dict[Slot, Session]:
    """The session of each slot that is made from now on."""
    session_of: dict[Slot, Session] = {}
    init = Session.__init__

    def notes(self: Session, endpoint: Any, slot: Slot, **options: Any) -> None:
        init(self, endpoint, slot, **options)
        session_of[slot] = self

    patch.setattr(Session, "__init__", notes)
    return session_of


MUTANTS: list[Callable[[pytest.MonkeyPatch], None]] = [
    token_read_before_the_claim,
    memory_before_the_store,
    takeover_by_the_wall_clock,
    impatient_takeover,
    claim_not_fenced,
    server_errors_are_death,
    release_by_another,
    takeover_forgets_the_doubt,
    cancellation_forgets_the_doubt,
    sent_after_its_time,
    unsaved_token_dropped,
    sent_token_not_compared,
    retried_without_grace,
    dead_not_noted,
    generation_not_counted,
    flight_of_its_caller,
    error_of_nobody,
]
