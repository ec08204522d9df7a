"""The demo plays both sides against one server in its own process; its exit code tells whether all figures hold."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from rich.console import Console
from rich.text import Text

from httpx_refresh.cli import demo, demo_recipe, demo_worker
from httpx_refresh.testing import AuthorizationServer, RunningServer

# Not among the slow ones, though it starts processes: on CPython 3.11 a tracer loses what comes after an event loop
# that connected a socket, so coverage has it from the other Pythons.


def shown(*, terminal: bool, callers: int) -> tuple[int, str]:
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=100, no_color=True)
    code = demo.demo(console, callers=callers)
    return code, Text.from_ansi(output.getvalue()).plain


@pytest.mark.processes
@pytest.mark.parametrize("terminal", [True, False])
def test_the_demo_ends_with_the_score_of_both_sides(terminal: bool) -> None:
    code, output = shown(terminal=terminal, callers=20)
    assert code == 0, output
    assert "All 13 figures are as expected." in output
    rows = [line.split() for line in output.splitlines() if line.strip()][-4:]
    assert [row[-1] for row in rows] == ["httpx-refresh", "3", "0", "0"]
    # The recipe: two for the first expiry, and one for each call after that; five callers, twice.
    assert rows[2][-2:] == ["10", "0"]
    assert rows[3][-2:] == ["1", "0"]
    assert "taken over" in output


def a_story(tmp_path: Path) -> demo.Story:
    """A story with the expected results, without processes."""
    path = tmp_path / "ours.json"
    path.write_text('{"access_token": "x", "httpx_refresh": {"generation": 2}}')
    recipe = demo.Side("recipe", recipe=True, path=path, family=0)
    recipe.scenes = [Counter({"200": 20}), Counter({"401": 5}), Counter({"401": 5})]
    recipe.refreshes, recipe.lost, recipe.accepted = [2, 5, 6], True, 20
    ours = demo.Side("ours", recipe=False, path=path, family=1)
    ours.scenes = [Counter({"200": 20}), Counter({"200": 5}), Counter({"200": 5})]
    ours.refreshes, ours.accepted = [1, 0, 2], 30
    recipe.caller_cancelled = ours.caller_cancelled = True
    line = {"url": "http://127.0.0.1:1", "client_id": "x", "client_secret": "x", "token": {}}
    with httpx.Client() as client:  # it has no process, and gets no commands
        return demo.Story(RunningServer(line, 0, client), recipe, ours, 20, print)


def test_a_story_that_went_well_has_no_wrong_sum(tmp_path: Path) -> None:
    assert [one.name for one in demo.sums(a_story(tmp_path)) if not one.right] == []


@pytest.mark.parametrize(
    "side, change",
    [
        ("ours", {"lost": True}),
        ("ours", {"refreshes": [1, 1, 2]}),
        ("ours", {"accepted": 31}),
        ("ours", {"caller_cancelled": False}),
        ("ours", {"scenes": [Counter({"200": 20}), Counter({"200": 5}), Counter({"200": 4})]}),
        ("ours", {"scenes": [Counter({"200": 29, "401": 1})]}),
        ("ours", {"scenes": [Counter({"200": 29, "ReadError": 1})]}),
        ("recipe", {"lost": False}),
        ("recipe", {"refreshes": [1, 5, 6]}),
        ("recipe", {"accepted": 0}),
        ("recipe", {"caller_cancelled": False}),
        ("recipe", {"scenes": [Counter({"200": 20, "ReadError": 10})]}),
    ],
)
def test_a_figure_that_is_not_right_is_a_wrong_sum(
    tmp_path: Path, side: str, change: dict[str, object]
) -> None:
    story = a_story(tmp_path)
    changed = replace(getattr(story, side), **change)
    story = replace(story, **{side: changed})
    assert [one for one in demo.sums(story) if not one.right]


def test_a_scene_shows_what_has_happened_and_nothing_before_it_begins(tmp_path: Path) -> None:
    story = a_story(tmp_path)
    story.ours.scenes = [Counter({"200": 3, "401": 2, "ReadError": 1})]
    assert demo.described(story.ours, 0).plain == "3 x 200, 2 x 401, 1 x error"
    assert demo.described(story.ours, 1).plain == ""


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_process_that_does_not_end_by_itself_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(demo, "LAST_WORDS", 0.01)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import signal; signal.pause()", stdin=PIPE, stdout=PIPE
    )
    await demo.Worker(process).stop()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_process_that_ends_too_early_is_an_error() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "input()", stdin=PIPE, stdout=PIPE, stderr=DEVNULL
    )
    worker = demo.Worker(process)
    with pytest.raises(RuntimeError, match="ended before its work was done"):
        await worker.do("call")
    await worker.stop()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_side_that_does_not_refresh_ends_the_demo_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "PATIENCE", -1.0)
    monkeypatch.setattr(RunningServer, "events", lambda *_: [])
    story = a_story(tmp_path)
    with pytest.raises(RuntimeError, match="did not begin to refresh"):
        await story._until_refreshing(story.ours)


# -- one process of the demo -------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_caller_is_started_and_cancelled_and_what_users_saw_is_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arrived, held = asyncio.Event(), asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/0") and not arrived.is_set():
            arrived.set()
            await held.wait()
        if request.url.path.endswith("/1"):
            raise httpx.ReadError("gone")
        return httpx.Response(200)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        callers = demo_worker.Callers(client, "https://api.test")
        await callers.do("cancel one")  # There is none.
        await callers.do("start one")
        await arrived.wait()
        await callers.do("cancel one")
        await callers.do("call", 3)
    *_, started, cancelled, seen, done = map(json.loads, capsys.readouterr().out.splitlines())
    assert started == {"done": True}
    assert cancelled == {"done": True, "cancelled": True}
    assert seen == {"seen": {"200": 2, "ReadError": 1}}
    assert done == {"done": True, **seen}


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
@pytest.mark.parametrize("refused", [False, True])
async def test_the_recipe_refreshes_under_its_lock_and_saves_what_it_got(
    tmp_path: Path, refused: bool
) -> None:
    server = AuthorizationServer()
    path = tmp_path / "token.json"
    path.write_text(json.dumps(server.login()))
    auth = demo_recipe.LockedAuth(server.token_url, "client", "secret", path)
    auth._client = httpx.AsyncClient(auth=("client", "secret"), transport=server.transport())
    server.expire_access_tokens()
    if refused:
        server.revoke_family()
    async with (
        auth._client,
        httpx.AsyncClient(transport=server.transport(), auth=auth) as client,
    ):
        answers = await asyncio.gather(*(client.get(f"{server.api_url}/ping") for _ in range(3)))
    assert {one.status_code for one in answers} == {401 if refused else 200}
    assert server.rotations == (not refused)
    saved = json.loads(path.read_text())
    assert saved == auth._token


@pytest.mark.processes
def test_a_wrong_sum_is_named_and_makes_the_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = demo.Sum("a sum", 3, right=False)
    monkeypatch.setattr(demo, "sums", lambda story: [wrong])
    code, output = shown(terminal=False, callers=4)
    assert code == 1
    assert "WRONG a sum: 3" in output
    assert "Some figures are not as expected." in output


def test_the_script_exits_with_the_code_of_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "demo", lambda console: 7 if console.file is sys.stdout else 8)
    assert demo.main() == 7
