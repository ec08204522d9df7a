"""Run the benchmarks, print tables, write JSON and plots."""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from rich.console import Console

from . import hot, plots, processes, report, startup, storm, tenants, throughput
from .measure import machine

ROOT = Path(__file__).resolve().parent.parent
SECTIONS: dict[str, Any] = {
    module.__name__.rpartition(".")[2]: module
    for module in (startup, hot, storm, throughput, tenants, processes)
}


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="few rounds, to show that all of it works; writes nothing",
    )
    parser.add_argument("--only", choices=SECTIONS, nargs="+", help="these sections, not all")
    parser.add_argument(
        "--results", type=Path, default=ROOT / "benchmarks" / "results.json", help="the JSON file"
    )
    parser.add_argument("--plots", type=Path, default=ROOT / "docs" / "img", help="for the SVGs")
    parser.add_argument("--redraw", action="store_true", help="only tables and plots, of --results")
    asked = parser.parse_args()
    console = Console(width=150)
    if asked.redraw:
        _show(json.loads(asked.results.read_text(encoding="utf-8")), asked.plots, console)
        return
    # The MCP SDK says that it will move to httpx2; that is no news to those who measure it.
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="mcp")
    results: dict[str, Any] = {}
    if asked.only and not asked.smoke and asked.results.exists():
        results = json.loads(asked.results.read_text(encoding="utf-8"))
    results["machine"] = machine()
    for name in asked.only or SECTIONS:
        start = time.monotonic()
        results[name] = asyncio.run(SECTIONS[name].run(smoke=asked.smoke))
        console.print(f"{name}: measured in {time.monotonic() - start:.0f} s")
        if not asked.smoke:  # after each: the figures of one are not lost with the next
            asked.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if asked.smoke:
        with tempfile.TemporaryDirectory() as directory:
            _show(json.loads(json.dumps(results)), Path(directory), console)
    else:
        _show(results, asked.plots, console)


def _show(results: dict[str, Any], directory: Path, console: Console) -> None:
    report.tables(results, console)
    for path in plots.draw(results, directory):
        console.print(f"drawn: {path.name}")


if __name__ == "__main__":
    main()
