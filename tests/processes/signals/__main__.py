"""Kill or stop a process that refreshes, many times over and at every moment of a refresh, and count what is lost."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tests import services
from tests.processes.signals.rounds import KINDS, Setting
from tests.processes.signals.run import play
from tests.processes.signals.tally import table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def main() -> int:
    parser = argparse.ArgumentParser("scripts/signals", description=__doc__)
    parser.add_argument("--signals", nargs="+", choices=["kill", "stop"], default=["kill", "stop"])
    parser.add_argument("--stores", nargs="+", choices=["file", "redis"], default=["file", "redis"])
    parser.add_argument("--rounds", type=int, default=100, help="of each signal on each store")
    parser.add_argument("--grace", default="60", help="seconds, 0 for none, or until_used")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--slots", type=int, default=8, help="how many rounds go on at once")
    parser.add_argument("--results", type=Path, help="a file, to which a line of JSON is added")
    parser.add_argument("--show", action="store_true", help="only show what --results holds")
    asked = parser.parse_args()
    runs = []
    if asked.show:
        runs = [json.loads(line) for line in asked.results.read_text("utf-8").splitlines()]
    else:
        grace = asked.grace if asked.grace == "until_used" else float(asked.grace)
        for mode in asked.signals:
            for backend in asked.stores:
                setting = Setting(mode, backend, grace, tuple(asked.kinds))
                sizes = {"rounds": asked.rounds, "seed": asked.seed, "slots": asked.slots}
                with started(backend) as url:
                    tally = asyncio.run(play(setting, **sizes, url=url))
                run = {"mode": mode, "backend": backend, "grace": grace, "seed": asked.seed}
                runs.append({**run, **tally.told()})
                if asked.results is not None:
                    with asked.results.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(runs[-1]) + "\n")
    print(table(runs))
    return 1 if any(run["broken"] for run in runs) else 0


def started(backend: str) -> contextlib.AbstractContextManager[str | None]:
    """Start the server of a store; return the URL while it runs."""
    if backend == "file":
        return contextlib.nullcontext()
    # The tests' fixture, outside a test.
    fixture = cast("Callable[[], Iterator[str]]", vars(services.redis_url)["__wrapped__"])
    return contextlib.contextmanager(fixture)()


if __name__ == "__main__":
    sys.exit(main())
