"""One slot and its rounds: a process that refreshes gets a signal, and another one needs the token.

Its sleeps are real: the moment of a signal is what is drawn, and other processes have no virtual time.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from httpx_refresh.testing import Answer, Gate, LostRequest
from tests.processes.signals.forked import PLACES
from tests.processes.signals.workers import Died, Hung, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from httpx_refresh.stores.base import TokenStore
    from tests.processes.signals.provider import Arrival, Provider, Realm
    from tests.processes.signals.tally import Tally
    from tests.processes.signals.workers import Nursery, Worker

CALLERS = 3

_MOST_TRIES = 300

KINDS = {
    "held": 3,  # while it waits for the answer: the server has rotated the token
    "unserved": 1,  # while it waits for an answer, and the server has done nothing
    "answered": 2,  # once the answer is in its socket, unread
    "transit": 1,  # while its request is on the way; the server gets it later
    "after": 2,  # some milliseconds after the answer was sent
    "any": 2,  # some milliseconds after its callers began
    "swap": 3,  # at the beginning or the end of the claim's or the save's swap
    "call": 3,  # before a call of the operating system
    "step": 4,  # before a callback of its event loop
}
"""The moments at which the signal comes, and how often each is drawn."""


@dataclass(frozen=True)
class Setting:
    """What all rounds of a run have in common.

    Attributes:
        mode: which signal.
        backend: which store.
        grace: for how long a spent refresh token is accepted: seconds, or `until_used`.
        kinds: the moments that are drawn, of `KINDS`.
    """

    mode: Literal["kill", "stop"]
    backend: Literal["file", "redis"]
    grace: float | Literal["until_used"]
    kinds: tuple[str, ...] = tuple(KINDS)

    @property
    def timeout(self) -> float:
        """Return the `refresh_timeout` (seconds) of the process that gets the signal.

        A file's lock tells at once that its owner has died. Else others wait for 1.5 times this.
        """
        return 20.0 if (self.mode, self.backend) == ("kill", "file") else 3.0

    @property
    def signal(self) -> signal.Signals:
        return signal.SIGKILL if self.mode == "kill" else signal.SIGSTOP


class Bed:
    """One slot with its provider and two processes.

    Mutable:
        victim: the process that gets the next signal.
        witness: the other one.
        most: how much of each place a refresh without a signal was seen to take, for drawing moments in it.
    """

    def __init__(
        self,
        number: int,
        seed: int,
        setting: Setting,
        tally: Tally,
        provider: Provider,
        nursery: Nursery,
        store: TokenStore,
        place: dict[str, str],
        log: Callable[[dict[str, Any]], None],
    ) -> None:
        self.number = number
        self.seed = seed
        self.setting = setting
        self.tally = tally
        self.realm: Realm = provider.realm(setting.grace)
        self.store = store
        self._nursery = nursery
        self._place = place
        self._log = log
        self._born = 0
        # In every other slot both have the same; else the witness has more, and judges the claim by its owner's.
        self.witness_timeout = setting.timeout if number % 2 else max(20.0, setting.timeout)
        self.most = {"swap": 4, "call": 60, "step": 300}
        self.victim: Worker
        self.witness: Worker

    async def start(self) -> None:
        await self.fill(self.realm.server.login())
        self.victim = await self.worker("victim")
        self.witness = await self.worker("witness")
        await self.settle()
        # How long a refresh is, in the units of a doom.
        self.realm.server.expire_access_tokens()
        self.victim.ask(CALLERS)
        seen = (await self.victim.answer())["seen"]
        self.most = {place: seen.get(place, 1) for place in PLACES}
        await self.settle()
        await self.rest()

    async def worker(self, role: str) -> Worker:
        self._born += 1
        server = self.realm.server
        timeout = self.setting.timeout if role == "victim" else self.witness_timeout
        setup = {
            **self._place,
            "who": f"{role}-{self._born}",
            "url": self.realm.url,
            "client_id": server.client_id,
            "client_secret": server.client_secret,
            "refresh_timeout": timeout,
            "reuse_grace": self.setting.grace,
        }
        return await self._nursery.worker(setup)

    # -- the store, as another tool sees it --------------------------------------------------------------------

    async def fill(self, fields: dict[str, Any]) -> None:
        written = False
        while not written:
            written = await self.store.replace(await self.store.load(), json.dumps(fields))

    async def read(self) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads(await self.store.load() or "{}")
        return fields

    async def rest(self) -> None:
        """End the pauses that follow when many tokens end early, as if some minutes had passed."""
        while True:
            text = await self.store.load()
            fields = json.loads(text or "{}")
            if fields.get("httpx_refresh", {}).pop("refusals", None) is None:
                return
            if await self.store.replace(text, json.dumps(fields)):
                return

    # -- rounds ------------------------------------------------------------------------------------------------

    async def settle(self) -> bool:
        """Let the requests of both be accepted, after a login where the grant is lost; return whether it was."""
        lost = False
        for worker in (self.witness, self.victim):
            answer: dict[str, Any] = {}
            for _ in range(_MOST_TRIES):
                worker.ask(1)
                answer = await worker.answer()
                if answer["ends"] == {"200": 1}:
                    break
                self.tally.ends.update(f"afterwards {end}" for end in answer["ends"])
                # Half a minute of 401s may pass until callers hear of it: they begin with a token that is new.
                if self.realm.server.families[-1].revoked:
                    lost = True
                    await self.fill(self.realm.server.login())
                await asyncio.sleep(0.1)
            else:  # pragma: no cover - where a promise is broken
                raise Hung(f"it does not heal: {answer}")
        return lost

    async def round(self, number: int) -> None:
        """Play a round, and count it."""
        plan = Plan(random.Random(f"{self.seed}:{self.number}:{number}"), self.setting, self.most)
        played = Played(self, plan)
        lost = False
        try:
            await played.play()
            lost = await self.settle()
            if plan.calm and (asked := await self.calm()) != 1:
                played.broken.append(f"an expiry without a signal cost {asked} token requests")
            notes = set((await self.read()).get("httpx_refresh", {}))
            if left := notes - {"rev", "refusals", "issued", "purpose", "generation"}:
                played.broken.append(f"notes are left: {sorted(left)}")
        except (Hung, Died) as error:  # pragma: no cover - where a promise is broken
            played.broken.append(f"{type(error).__name__}: {error}")
            self.tally.hung += 1
            await self.renew()
        played.judge(lost=lost)
        if played.broken:  # pragma: no cover - where a promise is broken
            self._log({"slot": self.number, "round": number, **played.told()})
        await self.rest()

    async def calm(self) -> int:
        """Let both need another token at once, without a signal; return how many token requests that cost."""
        await self.rest()
        before = len(self.realm.arrivals)
        self.realm.server.expire_access_tokens()
        for worker in (self.victim, self.witness):
            worker.ask(CALLERS)
        for worker in (self.victim, self.witness):
            ends = (await worker.answer())["ends"]
            self.tally.ends.update({f"no signal {end}": count for end, count in ends.items()})
        return len(self.realm.arrivals) - before

    async def renew(self) -> None:  # pragma: no cover - where a promise is broken
        """Begin again with other processes and another login."""
        for worker in (self.victim, self.witness):
            await worker.kill()
        await self.fill(self.realm.server.login())
        self.victim, self.witness = await self.worker("victim"), await self.worker("witness")
        await self.settle()

    async def close(self) -> None:
        """Let both processes end."""
        await self.victim.close()
        await self.witness.close()


class Plan:
    """What a round does; drawn, and the same for the same seed."""

    def __init__(self, chance: random.Random, setting: Setting, most: dict[str, int]) -> None:
        kinds = {kind: weight for kind, weight in KINDS.items() if kind in setting.kinds}
        if setting.backend == "redis":
            kinds.pop("call", None)  # It makes hardly any.
        self.kind = chance.choices([*kinds], [*kinds.values()])[0]
        self.early = chance.random() < 0.4
        """The witness needs the token before the signal comes, and waits for the claim."""
        self.overtaken = chance.random() < 0.5
        """A request in transit arrives after another process has spent the token."""
        self.delay = chance.uniform(0.0, 0.06 if self.kind == "after" else 0.2)
        self.doom: dict[str, Any] | None = None
        part = chance.random()
        if self.kind in PLACES:
            number = 1 + int(part * most[self.kind])
            self.doom = {"place": self.kind, "number": number, "signal": int(setting.signal)}
            self.early = False
        self.brief = chance.uniform(0.0, 1.0) if chance.random() < 0.15 else None
        """Seconds after which a stopped process goes on; None: after the other one was served."""
        self.calm = chance.random() < 0.3
        """Afterwards both need another token, and nobody gets a signal."""


class Played:
    """One round while it is played, and what is known of it.

    Mutable:
        hit: the signal came while there was something to hit.
        broken: promises that this round broke.
        said: the messages of the callers' errors.
        resumed_at: when (monotonic) the stopped process went on.
        _saved, _claimed: whether the store had the new token, or a claim, just after the signal; None if the witness
            was there already, and nobody could look.
    """

    def __init__(self, bed: Bed, plan: Plan) -> None:
        self.bed = bed
        self.plan = plan
        self.hit = False
        self.broken: list[str] = []
        self.said: list[str] = []
        self.resumed_at: float | None = None
        self._saved: bool | None = None
        self._claimed: bool | None = None
        self._began = time.monotonic()
        self._arrivals = len(bed.realm.arrivals)
        self._events = len(bed.realm.server.events)
        self._revoked = bed.realm.server.family_revocations

    # -- playing -----------------------------------------------------------------------------------------------

    async def play(self) -> None:
        """Let the victim refresh, send it the signal, let the witness need the token."""
        bed, plan, server = self.bed, self.plan, self.bed.realm.server
        generation = (await bed.read()).get("httpx_refresh", {}).get("generation", 0)
        gate = Gate()
        if plan.kind in ("held", "answered", "after"):
            server.script(Answer(gate=gate))
        elif plan.kind == "unserved":
            server.script(LostRequest(gate=gate))
        elif plan.kind == "transit":
            bed.realm.transit = gate
        server.expire_access_tokens()
        answered = bed.realm.answered
        bed.victim.ask(CALLERS, plan.doom)
        if plan.doom is not None:
            await self.meet_doom()
        else:
            await self.send_signal(gate, answered)
        if self.hit:
            await (self.after_kill if bed.setting.mode == "kill" else self.after_stop)(
                gate, generation
            )

    async def send_signal(self, gate: Gate, answered: int) -> None:
        """Wait for the moment, and send the signal."""
        bed, plan = self.bed, self.plan
        if plan.kind == "any":
            await asyncio.sleep(plan.delay)
        else:
            await gate.arrived()
        if plan.early:
            bed.witness.ask(CALLERS)
        if plan.kind == "answered":
            bed.victim.send(signal.SIGSTOP)
            await until(bed.victim.stands_still)
            gate.release()
            await until(lambda: bed.realm.answered > answered)
            await asyncio.sleep(0.01)
        elif plan.kind == "after":
            gate.release()
            await asyncio.sleep(plan.delay)
        bed.victim.send(bed.setting.signal)
        self.hit = True

    async def meet_doom(self) -> None:
        """Wait for the signal that the process sends itself, or for its answer, if the moment never came."""
        victim = self.bed.victim
        gone = victim.has_ended if self.bed.setting.mode == "kill" else victim.stands_still
        await until(lambda: gone() or victim.has_answer())
        self.hit = not victim.has_answer()
        if not self.hit:
            self.note("spared", await victim.answer())

    async def _others_go_on(self, gate: Gate, generation: int) -> bool:
        """Let the server and the witness go on; return whether the witness' request is to arrive first."""
        overtaken = self.plan.kind == "transit" and self.plan.overtaken
        if not overtaken:
            gate.release()
        if not self.plan.early:
            await self.look(generation)
            self.bed.witness.ask(CALLERS)
        return overtaken

    async def after_kill(self, gate: Gate, generation: int) -> None:
        bed = self.bed
        await bed.victim.wait_until_gone()
        overtaken = await self._others_go_on(gate, generation)
        # Beside it: a process takes some time to start.
        successor = asyncio.create_task(bed.worker("victim"))
        self.note("witness", await bed.witness.answer())
        if overtaken:
            gate.release()
            await asyncio.sleep(0.05)
        bed.victim = await successor

    async def after_stop(self, gate: Gate, generation: int) -> None:
        bed, plan = self.bed, self.plan
        await until(bed.victim.stands_still)
        overtaken = await self._others_go_on(gate, generation)
        if plan.brief is None:
            self.note("witness", await bed.witness.answer())
        else:
            await asyncio.sleep(plan.brief)
        if overtaken:
            gate.release()
            await asyncio.sleep(0.05)
        self.resumed_at = time.monotonic()
        bed.victim.send(signal.SIGCONT)
        self.note("resumed", await bed.victim.answer())
        if plan.brief is not None:
            self.note("witness", await bed.witness.answer())

    async def look(self, generation: int) -> None:
        """See what the process left in the store, before another one looks."""
        await asyncio.sleep(0.05)  # What it sent last is read by its servers.
        notes = (await self.bed.read()).get("httpx_refresh", {})
        self._saved = notes.get("generation", 0) != generation
        self._claimed = "redeeming" in notes

    def note(self, who: str, answer: dict[str, Any]) -> None:
        """Count how the callers of one process ended."""
        bed, tally = self.bed, self.bed.tally
        for end, count in answer["ends"].items():
            tally.ends[f"{who} {end}"] += count
        self.said += [f"{who}: {said}" for said in answer["said"]]
        timeout = bed.witness_timeout if who == "witness" else bed.setting.timeout
        held = answer["slowest"]
        if who == "resumed" and self.resumed_at is not None:
            held = (
                time.monotonic() - self.resumed_at
            )  # What it stood still for is nobody's waiting.
        tally.held(who, held / (2 * timeout))

    # -- judging -----------------------------------------------------------------------------------------------

    def judge(self, *, lost: bool) -> None:
        """Count the round."""
        bed, tally, realm = self.bed, self.bed.tally, self.bed.realm
        arrivals = realm.arrivals[self._arrivals :]
        revoked = realm.server.family_revocations - self._revoked
        tally.requests += len(arrivals)
        tally.revoked += revoked
        tally.lost += lost
        late = self.sent_late(arrivals)
        tally.late += late
        # One needs a token, and the one that takes over sends the same again. Without a signal nobody takes over.
        most = 2 if self.hit else 1
        for (_, generation), count in Counter(
            (one.family, one.generation) for one in arrivals
        ).items():
            if count > most:
                self.broken.append(f"generation {generation} was sent {count} times")
        if self.hit:
            moment = "sent late" if late else self.moment_of(arrivals)
            tally.rounds += 1
            tally.kinds[self.plan.kind] += 1
            tally.moments[moment] += 1
            tally.lost_at[moment] += lost
        else:
            moment = "no signal"
            tally.missed += 1
        if lost and (bed.setting.grace or moment not in MAY_LOSE):
            self.broken.append(f"the grant is lost: {moment}")
        if revoked and bed.setting.grace:
            self.broken.append("the family was revoked")
        for broken in self.broken:
            tally.broken[_without_figures(broken)] += 1

    def sent_late(self, arrivals: list[Arrival]) -> int:
        """Return how often the stopped process sent, once it went on, what another one had spent meanwhile."""
        if self.resumed_at is None:
            return 0
        taken: set[tuple[int | None, int | None]] = set()
        late = 0
        for one in arrivals:
            if not one.who.startswith("victim"):
                taken.add((one.family, one.generation))
            elif one.at > self.resumed_at and (one.family, one.generation) in taken:
                late += 1
        return late

    def moment_of(self, arrivals: list[Arrival]) -> str:
        """Say where in its refresh the process was, as far as the server and the store tell."""
        brief = (
            ", stopped briefly"
            if self.resumed_at is not None and self.plan.brief is not None
            else ""
        )
        return self._moment_of(arrivals) + brief

    def _moment_of(self, arrivals: list[Arrival]) -> str:
        if self.plan.kind == "transit":
            order = "after" if self.plan.overtaken else "before"
            return f"request on the way, arrives {order} the next one's"
        if not arrivals or not arrivals[0].who.startswith("victim"):
            return "claimed, nothing sent" if self._claimed else "not claimed"
        if self.plan.kind == "unserved":
            return "sent, and not served"
        if self.resumed_at is not None and arrivals[0].at > self.resumed_at:
            return "sent only once it went on"
        saved = self._saved
        if saved is None:  # The witness was there already: did it need the old token?
            old = arrivals[0].generation
            saved = not any(one.generation == old for one in arrivals[1:])
        return "rotated, saved" if saved else "rotated, not saved"

    def told(self) -> dict[str, Any]:  # pragma: no cover - where a promise is broken
        """Return what is known of this round, for the one who looks for the cause."""
        realm = self.bed.realm
        story = [
            f"{one.at - self._began:.2f} s: {one.who} sends {one.family}/{one.generation}"
            for one in realm.arrivals[self._arrivals :]
        ]
        if self.resumed_at is not None:
            story.append(f"{self.resumed_at - self._began:.2f} s: it goes on")
        return {
            "broken": self.broken,
            "seed": self.bed.seed,
            "plan": vars(self.plan),
            "witness_timeout": self.bed.witness_timeout,
            "moment": self.moment_of(realm.arrivals[self._arrivals :]),
            "story": sorted(story),
            "server": realm.outcomes(self._events),
            "said": self.said,
        }


MAY_LOSE = frozenset(
    {
        "rotated, not saved",
        "sent late",
        "request on the way, arrives after the next one's",
        "request on the way, arrives before the next one's",
    }
)
"""The moments at which the grant may be lost where a spent refresh token is not forgiven."""


def _without_figures(text: str) -> str:
    return "".join("#" if letter.isdigit() else letter for letter in text)
