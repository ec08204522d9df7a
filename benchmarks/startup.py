"""Start-up: what importing the library adds, and its largest parts."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
from typing import Any

from .measure import Spread, interleaved

_CASES = {
    "python": "pass",
    "httpx and httpx2": "import httpx, httpx2",
    "with httpx_refresh": "import httpx, httpx2, httpx_refresh",
    "ready to send": (
        "import httpx, httpx2;"
        "from httpx_refresh import MemoryStore, RefreshAuth, TokenEndpoint;"
        "RefreshAuth(TokenEndpoint('https://as.test/token', 'client', 'secret', origins='any'), MemoryStore())"
    ),
}


# With bytecode, as an installed package has it, whatever this environment says.
_ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
}


async def run(*, smoke: bool) -> dict[str, Any]:
    """Measure processor time of processes of their own."""

    async def once(code: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", code], check=True, env=_ENVIRONMENT
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    await once(_CASES["ready to send"])  # writes the bytecode
    cases = {name: lambda code=code: once(code) for name, code in _CASES.items()}
    figures = await interleaved(cases, 2 if smoke else 31)
    bare, base, ours, ready = figures.values()
    return {
        "httpx_and_httpx2_milliseconds": _difference(base, bare),
        "httpx_refresh_milliseconds": _difference(ours, base),
        "ready_milliseconds": _difference(ready, base),
        "ratio": _ratio(ours, base, bare),
        "ready_ratio": _ratio(ready, base, bare),
        "largest_parts_milliseconds": _parts(),
    }


def _difference(more: list[float], less: list[float]) -> dict[str, float]:
    return Spread.of([(a - b) * 1e3 for a, b in zip(more, less, strict=True)]).json()


def _ratio(more: list[float], base: list[float], bare: list[float]) -> dict[str, float]:
    """What comes on top of httpx and httpx2, as a part of what these take."""
    return Spread.of([(m - b) / (b - n) for m, b, n in zip(more, base, bare, strict=True)]).json()


def _parts() -> dict[str, float]:
    """The modules that cost most by themselves, of those that come with us and not with the libraries."""
    code = _CASES["ready to send"]
    command = [sys.executable, "-X", "importtime", "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=_ENVIRONMENT)
    parts: list[tuple[str, float]] = []
    ours = False
    for line in done.stderr.splitlines():
        own, _, name = line.removeprefix("import time:").split("|")
        if ours and own.strip().isdigit():
            parts.append((name.strip(), int(own) / 1e3))
        # Each module is listed after those it imports: what follows httpx2 comes with us.
        ours = ours or (name.strip() == "httpx2" and not name.startswith("  "))
    parts.sort(key=lambda part: -part[1])
    return dict(parts[:8])
