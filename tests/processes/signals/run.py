"""Many slots at once: rounds wait for most of their time, and a slot's rounds follow each other."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.processes.signals.provider import Provider
from tests.processes.signals.rounds import Bed, Setting
from tests.processes.signals.tally import Tally
from tests.processes.signals.workers import Nursery
from tests.processes.stores import opened


async def play(
    setting: Setting, *, rounds: int, seed: int, slots: int, url: str | None = None
) -> Tally:
    """Play at least so many rounds, in so many slots at once; return what came of them.

    The slots are keys of the Redis server under `url`, or files. A round that breaks a promise is told on standard
    error, with what it takes to play it again.
    """
    tally = Tally()

    def log(told: dict[str, Any]) -> None:  # pragma: no cover - where a promise is broken
        named = {"mode": setting.mode, "backend": setting.backend, "grace": setting.grace}
        print(json.dumps({**named, **told}), file=sys.stderr, flush=True)

    async with contextlib.AsyncExitStack() as stack:
        nursery = stack.enter_context(Nursery.open())
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="signals-")))
        provider = await stack.enter_async_context(Provider.running())

        async def keep_playing(number: int) -> None:
            folder = home / str(number)
            folder.mkdir()
            place = {"store": url or f"file:{folder}/token.json", "key": f"slot-{number}"}
            async with opened(place["store"], place["key"]) as store:
                bed = Bed(number, seed, setting, tally, provider, nursery, store, place, log)
                await bed.start()
                played = 0
                while tally.rounds < rounds:
                    played += 1
                    await bed.round(played)
                await bed.close()

        await asyncio.gather(*map(keep_playing, range(slots)))
    return tally
