"""Processes that share a file, and processes that are killed while they write one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from httpx_refresh.stores import FileStore

pytestmark = pytest.mark.processes

COUNT = """
import sys
import anyio
from httpx_refresh.stores import FileStore

async def count():
    store = FileStore(sys.argv[1])
    for _ in range(25):
        while True:
            held = await store.load()
            if await store.replace(held, str(int(held or 0) + 1)):
                break

anyio.run(count)
"""

WRITE_FOR_EVER = """
import sys
import anyio
from httpx_refresh.stores import FileStore

async def write():
    store = FileStore(sys.argv[1])
    while True:
        for letter in "abcdefgh":
            await store.replace(await store.load(), letter * 300_000)
            print(letter, flush=True)

anyio.run(write)
"""


def test_processes_that_count_in_one_file_lose_no_step(tmp_path: Path) -> None:
    path = tmp_path / "count"
    counters = [subprocess.Popen([sys.executable, "-c", COUNT, path]) for _ in range(3)]
    assert [counter.wait() for counter in counters] == [0, 0, 0]
    assert path.read_text() == "75"


@pytest.mark.parametrize("kill_after", range(20))
def test_a_process_killed_in_the_middle_of_its_writes_leaves_a_whole_file(
    tmp_path: Path, kill_after: int
) -> None:
    path = tmp_path / "token.json"
    with subprocess.Popen(
        [sys.executable, "-c", WRITE_FOR_EVER, path], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        for _ in range(kill_after + 1):
            assert writer.stdout.readline()
        writer.kill()
    text = path.read_text()
    assert text == text[0] * 300_000

    # Its lock ended with it, and the next write replaces a half-written file.
    assert anyio.run(FileStore(path).replace, text, "next")
    assert sorted(os.listdir(tmp_path)) == ["token.json", "token.json.lock"]
