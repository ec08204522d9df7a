"""The demo: 200 callers, a server in a process of its own, a token that ends under them, one refresh."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from .._auth import RefreshAuth
from .._oauth.endpoint import TokenEndpoint
from .._token import Token
from ..stores import FileStore
from ..testing import Answer, RunningServer, running_server

ROWS = 24


class WatchedEndpoint(TokenEndpoint):
    """A `TokenEndpoint` that notes when it asked, and when it had an answer."""

    asked: tuple[float, float] | None = None

    async def refresh(self, token: Token, /) -> Token:
        """Refresh as ever, and note the time."""
        started = time.monotonic()
        try:
            return await super().refresh(token)
        finally:
            self.asked = (started, time.monotonic())


@dataclass
class Run:
    """What the callers saw: each response's moment (seconds from the start) and what it was."""

    callers: int
    calls: int
    started: float = 0.0
    wall: float = 0.0
    answers: list[tuple[float, str]] = field(default_factory=list)
    ended: tuple[float, float] | None = None
    statuses: Counter[int] = field(default_factory=Counter)
    server: dict[str, int] = field(default_factory=dict)
    generation: int = 0

    async def note(self, response: httpx.Response) -> None:
        """Note a response as it comes in: `401`, `200`, or `replay` for the 200 of a request sent again."""
        extensions = response.request.extensions
        kind = str(response.status_code)
        if response.status_code == 401:
            extensions["refused"] = True
        elif extensions.pop("refused", False):
            kind = "replay"
        self.answers.append((time.monotonic() - self.started, kind))

    @property
    def seen(self) -> Counter[str]:
        """How many responses of each kind."""
        return Counter(kind for _, kind in self.answers)

    def checks(self) -> list[tuple[str, int, bool]]:
        """Return the sums that have to be right: name, figure, and whether it is."""
        seen, total, server = self.seen, self.callers * self.calls, self.server
        return [
            ("calls", total, True),
            ("answers with status 200", self.statuses[200], self.statuses[200] == total),
            ("401s met", seen["401"], 0 < seen["401"] == server["api_refused"]),
            (
                "refresh" if server["token_requests"] == 1 else "refreshes",
                server["token_requests"],
                server["token_requests"] == 1,
            ),
            ("replays", seen["replay"], seen["replay"] == seen["401"]),
            (
                "refresh tokens spent twice",
                server["reuses_detected"],
                server["reuses_detected"] == 0,
            ),
            ("generation in the token file", self.generation, self.generation == 1),
        ]


async def drive(run: Run, server: RunningServer, path: Path, progress: Progress) -> None:
    """Run the callers, and end the token when half of the calls are answered."""
    endpoint = WatchedEndpoint(server.token_url, server.client_id, server.client_secret)
    auth = RefreshAuth(endpoint, FileStore(path), origins=server.url)
    half = run.callers * run.calls // 2
    task = progress.add_task("calls", total=run.callers * run.calls)

    async def caller(client: httpx.AsyncClient, number: int) -> None:
        for _ in range(run.calls):
            response = await client.get(f"{server.api_url}/invoices/{number}")
            run.statuses[response.status_code] += 1
            progress.advance(task)
            answered = sum(run.statuses.values())
            if progress.disable and answered % (2 * half // 5 or 1) == 0:
                progress.console.print(f"{answered} calls answered")
            if answered == half:
                await anyio.to_thread.run_sync(server.expire)
                progress.console.print(
                    f"[yellow]{half} calls answered: the access token ends now[/]"
                )

    limits = httpx.Limits(max_connections=50)
    hooks = {"response": [run.note]}
    async with (
        auth,
        httpx.AsyncClient(auth=auth, limits=limits, event_hooks=hooks, timeout=60) as client,
        anyio.create_task_group() as callers,
    ):
        run.started = time.monotonic()
        for number in range(run.callers):
            callers.start_soon(caller, client, number)
    run.wall = time.monotonic() - run.started
    if endpoint.asked is not None:
        run.ended = (endpoint.asked[0] - run.started, endpoint.asked[1] - run.started)


def timeline(run: Run) -> Table:
    """Draw the expiry: what came in, step by step, around the one refresh."""
    table = Table(title="The expiry, step by step", title_justify="left", header_style="bold")
    for heading, justify in (
        ("seconds", "right"),
        ("200", "right"),
        ("401", "right"),
        ("replayed", "right"),
    ):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]  # rich's literals
    table.add_column("what happens")
    refused = [at for at, kind in run.answers if kind == "401"]
    replayed = [at for at, kind in run.answers if kind == "replay"]
    if not refused or not replayed or run.ended is None:
        return table
    begin, end = refused[0], max(*replayed, *refused)
    width = (end - begin) / (ROWS - 4)
    begin -= 2 * width
    for row in range(ROWS):
        low, high = begin + row * width, begin + (row + 1) * width
        seen = Counter(kind for at, kind in run.answers if low <= at < high)
        asked, answered = run.ended
        bar = Text()
        if low < answered and asked < high:
            bar.append("refresh " if asked >= low else "   |    ", "bold magenta")
        if seen["401"]:
            bar.append("x" * -(-seen["401"] // 4), "red")
        if seen["replay"]:
            bar.append("o" * -(-seen["replay"] // 4), "green")
        if seen["200"]:
            bar.append("." * -(-seen["200"] // 4), "dim")
        counts = [str(seen[kind]) if seen[kind] else "" for kind in ("200", "401", "replay")]
        table.add_row(f"{low:.3f}", *counts, bar)
    table.caption = (
        ". four answers   x four 401s   o four replays: the same requests, with the new token"
    )
    table.caption_justify = "left"
    return table


def sums(run: Run) -> Table:
    """Draw the sums, each with whether it is right."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(justify="right", style="bold")
    table.add_column()
    table.add_column()
    for name, figure, right in run.checks():
        table.add_row(str(figure), name, "[green]ok[/]" if right else "[red]WRONG[/]")
    table.add_row(f"{run.wall:.2f} s", "wall time", "")
    return table


def demo(console: Console, *, callers: int = 200, calls: int = 5) -> int:
    """Run the demo, show it on `console`, and return the exit code: 0 if all sums are right, else 1."""
    live = console.is_terminal
    console.print(
        f"A test server in a process of its own, {callers} callers with {calls} calls each over HTTP, "
        "and one token file."
    )
    run = Run(callers, calls)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with tempfile.TemporaryDirectory() as directory, running_server(lifetime=3600) as server:
        path = Path(directory, "token.json")
        path.write_text(json.dumps(server.token))
        # Slow enough for a person to see the callers wait for it.
        server.script(Answer(delay=0.25))
        with Progress(*columns, console=console, disable=not live) as progress:
            anyio.run(drive, run, server, path, progress)
        run.server = server.stats()
        run.generation = json.loads(path.read_text()).get("httpx_refresh", {}).get("generation", 0)
    console.print(timeline(run))
    console.print(sums(run))
    right = all(good for _, _, good in run.checks())
    console.print("[green]All sums are right.[/]" if right else "[red]Some sums are not right.[/]")
    return 0 if right else 1


def main() -> int:
    """Run the demo on the standard output."""
    return demo(Console(highlight=False))
