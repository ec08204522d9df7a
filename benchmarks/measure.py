"""Interleaved rounds, medians and their spread; what they were taken on."""

from __future__ import annotations

import gc
import os
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

PACKAGES = [
    "httpx-refresh",
    "httpx",
    "httpx2",
    "httpcore",
    "httpcore2",
    "anyio",
    "Authlib",
    "httpx_auth",
    "mcp",
    "filelock",
    "redis",
    "SQLAlchemy",
]


@dataclass(frozen=True)
class Spread:
    """A median, with the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)

    def scaled(self, factor: float) -> Spread:
        return Spread(self.median * factor, self.low * factor, self.high * factor)

    def json(self) -> dict[str, float]:
        return asdict(self)


async def interleaved(
    cases: Mapping[str, Callable[[], Awaitable[float]]], rounds: int
) -> dict[str, list[float]]:
    """Run every case once a round, each round in another order; return the figures of each.

    What else the machine does meets all cases alike. Garbage is collected between the runs, and during them as always.
    """
    names = list(cases)
    figures: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            gc.collect()
            figures[name].append(await cases[name]())
    return figures


class Collector:
    """What the garbage collector takes, all in all: `seconds`, and the `full` collections.

    When it looks at everything is decided by thresholds. A run that holds hardly more objects than another may meet
    one such look more, which at very many callers is a tenth of its time.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.full = 0
        self._began = 0.0
        gc.callbacks.append(self._note)

    def _note(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.perf_counter()
        else:
            self.seconds += time.perf_counter() - self._began
            self.full += info["generation"] == 2


COLLECTOR = Collector()


def ratios(figures: Mapping[str, Sequence[float]], baseline: str) -> dict[str, Spread]:
    """Each case's figures against those of the baseline in the same round."""
    return {
        name: Spread.of([one / base for one, base in zip(values, figures[baseline], strict=True)])
        for name, values in figures.items()
    }


def percentile(values: Sequence[float], part: float) -> float:
    """The value that `part` of them are below."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)]


def machine() -> dict[str, Any]:
    """What the figures were taken on, and with."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
        "packages": {name: version(name) for name in PACKAGES},
        "hash_seed": os.environ.get("PYTHONHASHSEED", "random"),
        "implementation": sys.implementation.name,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            names = [
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            ]
    except OSError:
        names = []
    return names[0] if names else platform.machine()
