"""Count the steps through the code of one request that is refused, refreshed and sent again.

`python -m tests.moves` prints the steps and the figures. Only the library counts, without its test server: a call,
or a coroutine that is resumed, is one step, and a step in another file than the step before is a move.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

import httpx_refresh
from httpx_refresh import MemoryStore, RefreshAuth, Token, TokenEndpoint
from httpx_refresh.testing import AuthorizationServer
from tests.virtual_time import VirtualTimeLoop

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

HOUSE = Path(httpx_refresh.__file__).parent
API = "https://api.test"


@dataclass(frozen=True)
class Step:
    """One entry into a function; `first` if it is a call and not a resumed coroutine."""

    file: str
    function: str
    first: bool = True


@dataclass(frozen=True)
class Figures:
    calls: int
    functions: int
    files: int
    moves: int
    rooms: int
    moves_between_rooms: int


def figures(steps: Sequence[Step]) -> Figures:
    """Count the steps, moves and files."""
    calls = [step for step in steps if step.first]
    files = [step.file for step in steps]
    rooms = [file.partition("/")[0] for file in files]
    return Figures(
        calls=len(calls),
        functions=len({(step.file, step.function) for step in calls}),
        files=len(set(files)),
        moves=_changes(files),
        rooms=len(set(rooms)),
        moves_between_rooms=_changes(rooms),
    )


def _changes(places: Sequence[str]) -> int:
    return sum(here != there for here, there in pairwise(places))


class Recorder:
    """The function for `sys.setprofile`: it records the steps inside the library in order."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._seen: set[FrameType] = (
            set()
        )  # the frames themselves, so that no identity is used twice

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event != "call" or not path.is_relative_to(HOUSE):
            return
        file = path.relative_to(HOUSE).as_posix()
        function = f"{frame.f_code.co_name}:{frame.f_code.co_firstlineno}"
        # A comprehension is a call on some Pythons only.
        if not file.startswith("testing/") and not function.startswith("<"):
            self.steps.append(Step(file, function, frame not in self._seen))
            self._seen.add(frame)


def run() -> list[Step]:
    """Return the steps of one request, in virtual time: on a slow machine timers would add steps of their own."""
    loop = VirtualTimeLoop()
    try:
        return loop.run_until_complete(walk())
    finally:
        loop.close()


async def walk() -> list[Step]:
    """Make a request that is refused, refreshed and sent again, and return the steps inside the library."""
    server = AuthorizationServer()
    transport = server.transport()
    async with httpx.AsyncClient(transport=transport) as token_client:
        endpoint = TokenEndpoint(
            server.token_url, server.client_id, server.client_secret, client=token_client
        )
        auth = RefreshAuth(endpoint, MemoryStore(), origins=[server.issuer])
        async with auth, httpx.AsyncClient(transport=transport, auth=auth) as client:
            await auth.set_token(Token.from_response(server.login()))
            # The first request reads the store and makes what is made once, so the next one is like all others.
            await client.get(f"{server.api_url}/ping")
            for _ in range(9):
                await asyncio.sleep(
                    0
                )  # Tasks of the earlier request end here, so that they are not counted.
            server.expire_access_tokens()
            recorder = Recorder()
            sys.setprofile(recorder)
            try:
                response = await client.get(f"{server.api_url}/ping")
            finally:
                sys.setprofile(None)
    assert response.status_code == 200
    assert server.stats()["token_requests"] == 1
    return recorder.steps


def main() -> None:
    steps = run()
    for step in steps:
        print(f"{step.file:30}{'' if step.first else '… '}{step.function}")
    for name, count in asdict(figures(steps)).items():
        print(f"{count:5} {name.replace('_', ' ')}")


if __name__ == "__main__":
    main()
