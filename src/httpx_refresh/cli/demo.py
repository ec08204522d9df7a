"""The demo: an `asyncio.Lock` recipe and this library side by side at one server, and their results.

Each side has one grant and two processes, and plays the same scenes: a token ends early under 200 callers, the caller
that refreshes is cancelled, a second process joins, and one process is killed while it refreshes.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..testing import Answer, ApiEvent, FamilyEvent, Gate, RunningServer, TokenEvent, running_server

GRACE = "until_used"
# Seconds, the default. The demo does not wait that long: the lock of a killed process ends with the process.
REFRESH_TIMEOUT = 20.0
PATIENCE = 120.0  # seconds for one step of the demo, on a slow machine
LAST_WORDS = 10.0  # seconds for a process to end by itself

SCENES = (
    "The token ends early under {first} callers. The caller that refreshes is cancelled.",
    "{second} callers of a second process use the token that it had at its start.",
    "The token ends again. kill -9 of process 1 while it refreshes; process 2 goes on.",
)


class Worker:
    """A process of callers, and its reports.

    Mutable: `seen`, the results that its users saw in this scene so far; `logged`, the warnings of this library.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self.logged: list[str] = []
        self.seen: Counter[str] = Counter()

    @classmethod
    async def start(cls, setup: dict[str, Any]) -> Worker:
        """Start the process, and wait until it is ready."""
        module = f"{__package__}.demo_worker"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, stdin=PIPE, stdout=PIPE
        )
        worker = cls(process)
        worker._write(setup)
        await worker._done()
        return worker

    async def do(self, command: str, count: int = 1) -> dict[str, Any]:
        """Send a command, and return the process's report when it is done."""
        self._write({"command": command, "count": count})
        return await self._done()

    def kill(self) -> None:
        """Kill the process: `kill -9`."""
        self._process.kill()

    async def stop(self) -> None:
        """End the process if it still runs, and wait for it."""
        assert self._process.stdin is not None  # noqa: S101 - a pipe, as it was asked for
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), LAST_WORDS)
        except asyncio.TimeoutError:
            self._process.kill()
            await self._process.wait()

    def _write(self, line: dict[str, Any]) -> None:
        assert self._process.stdin is not None  # noqa: S101 - a pipe, as it was asked for
        self._process.stdin.write(json.dumps(line).encode() + b"\n")

    async def _done(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 - likewise
        while True:
            line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
            if not line:
                raise RuntimeError("a process of the demo ended before its work was done")
            said: dict[str, Any] = json.loads(line)
            if "seen" in said:
                self.seen = Counter(said["seen"])
            if "log" in said:
                self.logged.append(said["log"])
            if said.get("done"):
                return said


@dataclass
class Side:
    """One of the two sides: its grant at the server, its processes, and its results.

    The story changes all of it. `scenes` holds one `Counter` of the users' results for each scene that was played;
    `refreshes` holds the token requests that the server counted in each.
    """

    title: str
    recipe: bool
    path: Path
    family: int
    workers: list[Worker] = field(default_factory=list)
    scenes: list[Counter[str]] = field(default_factory=list)
    refreshes: list[int] = field(default_factory=list)
    lost: bool = False
    accepted: int = 0
    caller_cancelled: bool = False

    @property
    def seen(self) -> Counter[str]:
        """The users' results in all scenes."""
        return sum(self.scenes, Counter())

    @property
    def generation(self) -> int:
        """The generation of the token in the file, by this library's note."""
        notes: dict[str, int] = json.loads(self.path.read_text()).get("httpx_refresh", {})
        return notes.get("generation", 0)


@dataclass
class Story:
    """The scenes and their progress. Mutable: `started`, when the first token ended (monotonic), and the sides."""

    server: RunningServer
    recipe: Side
    ours: Side
    callers: int
    tell: Callable[[str], None]
    started: float = 0.0
    ended: float = 0.0
    before: int = 0
    counted: int = 0

    @property
    def second_callers(self) -> int:
        """The number of callers of the second process."""
        return max(1, self.callers // 4)

    @property
    def sides(self) -> tuple[Side, Side]:
        """Both sides, in the order of the screen."""
        return self.recipe, self.ours

    def scene(self, number: int) -> str:
        """Return a description of a scene."""
        return SCENES[number].format(first=self.callers, second=self.second_callers)

    async def play(self) -> None:
        """Play all scenes."""
        async with AsyncExitStack() as stack:
            await asyncio.gather(*(self._start(side, stack) for side in self.sides))
            await self._both(self._warm_up)
            self.before = self.counted = len(await self._ask(self.server.events))
            for number, play in enumerate((self._early, self._second, self._killed)):
                self.tell(f"{self.clock():5.1f} s  {self.scene(number)}")
                for side in self.sides:
                    side.scenes.append(Counter())
                    side.refreshes.append(0)
                await play()
                await self._count()
            self.ended = self.clock()

    def clock(self) -> float:
        """Return the seconds since the first token ended, or from then to the end of the story."""
        if self.ended:
            return self.ended
        return time.monotonic() - self.started if self.started else 0.0

    async def _start(self, side: Side, stack: AsyncExitStack) -> None:
        setup = {
            "recipe": side.recipe,
            "path": str(side.path),
            "url": self.server.url,
            "token_url": self.server.token_url,
            "api_url": self.server.api_url,
            "client_id": self.server.client_id,
            "client_secret": self.server.client_secret,
            "reuse_grace": GRACE,
            "refresh_timeout": REFRESH_TIMEOUT,
        }
        for worker in await asyncio.gather(Worker.start(setup), Worker.start(setup)):
            stack.push_async_callback(worker.stop)
            side.workers.append(worker)

    async def _warm_up(self, side: Side) -> None:
        for worker in side.workers:
            await worker.do("call", 10)

    async def _early(self) -> None:
        gate = await self._expire()
        await asyncio.gather(*(side.workers[0].do("start one") for side in self.sides))
        await self._ask(self.server.arrived, gate, 2)
        for side in self.sides:
            said = await side.workers[0].do("cancel one")
            side.caller_cancelled = said["cancelled"]
        calls = asyncio.gather(*(self._call(side, 0) for side in self.sides))
        await self._ask(self.server.release, gate)
        await calls

    async def _second(self) -> None:
        await self._both(lambda side: self._call(side, 1))

    async def _killed(self) -> None:
        gate = await self._expire()
        await asyncio.gather(*(side.workers[0].do("start one") for side in self.sides))
        await self._until_refreshing(self.ours)
        for side in self.sides:
            side.workers[0].kill()
        await self._ask(self.server.release, gate)
        await self._both(lambda side: self._call(side, 1))

    async def _expire(self) -> Gate:
        """Expire every access token. Later token requests are answered when the gate opens."""
        gate = Gate()
        await self._ask(lambda: self.server.behave(token=Answer(gate=gate)))
        await self._ask(self.server.expire)
        self.started = self.started or time.monotonic()
        return gate

    async def _until_refreshing(self, side: Side) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self._refreshes_of(side, await self._ask(self.server.events, self.counted)):
            if time.monotonic() > deadline:
                raise RuntimeError("the demo's process did not begin to refresh")
            await asyncio.sleep(0.02)

    async def _call(self, side: Side, number: int) -> None:
        """Let every caller of one process make a call, and record each result when it comes."""
        worker, before = side.workers[number], side.scenes[-1]
        worker.seen = Counter()
        callers = self.second_callers if number else self.callers
        calls = asyncio.create_task(worker.do("call", callers))
        while not calls.done():
            await asyncio.wait([calls], timeout=0.1)
            side.scenes[-1] = before + worker.seen
        await calls
        side.scenes[-1] = before + worker.seen

    async def _count(self) -> None:
        events = await self._ask(self.server.events, self.before)
        self.counted = self.before + len(events)
        for side in self.sides:
            side.refreshes[-1] += len(self._refreshes_of(side, events)) - sum(side.refreshes)
            side.lost = any(
                isinstance(one, FamilyEvent) and one.family == side.family for one in events
            )
            side.accepted = sum(
                isinstance(one, ApiEvent)
                and one.family == side.family
                and one.outcome == "accepted"
                for one in events
            )

    def _refreshes_of(self, side: Side, events: list[Any]) -> list[TokenEvent]:
        return [one for one in events if isinstance(one, TokenEvent) and one.family == side.family]

    async def _both(self, play: Callable[[Side], Awaitable[None]]) -> None:
        await asyncio.gather(*(play(side) for side in self.sides))

    async def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call the server's controls in a thread, because their client is sync."""
        return await asyncio.to_thread(function, *arguments)


@dataclass(frozen=True, slots=True)
class Sum:
    """A figure, its expected value, and whether they agree."""

    name: str
    figure: object
    right: bool


def sums(story: Story) -> list[Sum]:
    """Return all figures that the exit code depends on."""
    recipe, ours = story.sides
    calls = story.callers + 2 * story.second_callers
    found = [
        Sum(f"{side.title}: the caller was cancelled", side.caller_cancelled, side.caller_cancelled)
        for side in story.sides
    ]
    for side in story.sides:
        answers, good = sum(side.seen.values()), side.seen["200"]
        found += [
            Sum(f"{side.title}: calls that ended", answers, answers == calls),
            Sum(f"{side.title}: calls that the API accepted", side.accepted, side.accepted == good),
        ]
    good, refused = ours.seen["200"], recipe.seen["401"]
    return [
        *found,
        Sum(f"{ours.title}: calls with status 200", good, good == calls),
        # The third scene has two requests: the killed process's, and that of the process which went on.
        Sum(f"{ours.title}: refreshes, by scene", ours.refreshes, ours.refreshes == [1, 0, 2]),
        Sum(f"{ours.title}: the grant was lost", ours.lost, not ours.lost),
        Sum(f"{ours.title}: generation in the file", ours.generation, ours.generation == 2),
        Sum(
            f"{recipe.title}: refreshes of the first end",
            recipe.refreshes[0],
            recipe.refreshes[0] == 2,
        ),
        Sum(f"{recipe.title}: the grant was lost", recipe.lost, recipe.lost),
        Sum(f"{recipe.title}: 401s", refused, refused == calls - recipe.seen["200"] > 0),
    ]


def _kinds(seen: Counter[str]) -> str:
    return ", ".join(f"{count} x {kind}" for kind, count in sorted(seen.items()))


def described(side: Side, scene: int) -> Text:
    """Return the users' results of one side in one scene so far, in words."""
    if scene >= len(side.scenes):
        return Text("")
    seen = side.scenes[scene]
    text = Text(f"{seen['200']} x 200", "green" if seen["200"] else "dim")
    text.append(", ", "default")
    text.append(f"{seen['401']} x 401", "bold red" if seen["401"] else "dim")
    others = sum(seen.values()) - seen["200"] - seen["401"]
    if others:
        text.append(f", {others} x error", "bold red")
    return text


def screen(story: Story) -> Table:
    """Draw both sides with their results so far."""
    table = Table(title=f"{story.clock():.1f} s since the expiry", title_justify="left")
    table.add_column("what happens, and what the users see")
    for side in story.sides:
        table.add_column(side.title, justify="right", min_width=20)
    for number in range(len(SCENES)):
        row = [described(side, number) for side in story.sides]
        table.add_row(Text(story.scene(number), "default" if str(row[0]) else "dim"), *row)
    return table


def score(story: Story) -> Table:
    """Draw the final score."""
    table = Table(show_header=True, box=None, pad_edge=False)
    table.add_column("score", style="bold")
    for side in story.sides:
        table.add_column(side.title, justify="right")
    table.add_row("refreshes (token requests)", *(str(sum(side.refreshes)) for side in story.sides))
    table.add_row("401s that users saw", *(str(side.seen["401"]) for side in story.sides))
    table.add_row("grants lost", *(str(int(side.lost)) for side in story.sides))
    return table


async def show(story: Story, console: Console) -> None:
    """Play the story; draw its progress on a terminal."""
    if not console.is_terminal:
        await story.play()
        return
    with Live(get_renderable=lambda: screen(story), console=console, refresh_per_second=10):
        await story.play()


def demo(console: Console, *, callers: int = 200) -> int:
    """Play the demo on `console`; return exit code 0 if all figures are as expected, else 1."""
    live = console.is_terminal
    console.print(
        f"{callers} callers, two processes and one grant on each side, and one server. It ends the grant if a refresh "
        "token is spent again after its successor was used.",
        soft_wrap=not live,
    )
    with (
        tempfile.TemporaryDirectory() as directory,
        running_server(lifetime=3600, reuse_grace=GRACE) as server,
    ):
        sides = []
        for title, family, token in (
            ("asyncio.Lock recipe", 0, server.token),
            ("httpx-refresh", 1, server.login()),
        ):
            path = Path(directory, f"{family}.json")
            path.write_text(json.dumps(token))
            path.chmod(0o600)
            sides.append(Side(title, family == 0, path, family))

        def tell(line: str) -> None:
            if not live:
                console.print(line, soft_wrap=True)

        story = Story(server, sides[0], sides[1], callers, tell)
        asyncio.run(show(story, console))
        found = sums(story)
    if not live:
        console.print(screen(story))
    for worker in story.ours.workers:
        for line in worker.logged:
            console.print(Text(f"logged by {story.ours.title}: {line}", "dim"), soft_wrap=not live)
    for one in found:
        if not one.right:
            console.print(f"[red]WRONG[/] {one.name}: {one.figure}")
    if not all(one.right for one in found):
        for side in story.sides:
            console.print(f"{side.title}: {_kinds(side.seen)}")
    right = all(one.right for one in found)
    console.print(
        f"[green]All {len(found)} figures are as expected.[/]"
        if right
        else "[red]Some figures are not as expected.[/]"
    )
    console.print(f"{story.ended:.1f} s from the first expiry to the last answer.\n")
    console.print(score(story))
    return 0 if right else 1


def main() -> int:
    """Run the demo on the standard output."""
    return demo(Console(highlight=False))
