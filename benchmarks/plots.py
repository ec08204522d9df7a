"""The figures as plots, one SVG a question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import peers
from .report import groups

_COLOURS = {
    peers.STATIC: "#8c8c8c",
    "plain Auth": "#b5b5b5",
    peers.TWICE: "#8c8c8c",
    peers.ONE_EVENT: "#5c6b7a",
    peers.OURS: "#0b7a5b",
    "httpx-refresh, ahead of expiry": "#0b7a5b",
    "httpx-refresh, on refusal": "#63b59c",
    "asyncio.Lock recipe": "#c98a1b",
    "Authlib": "#3867b8",
    "httpx-auth": "#8a4fae",
    "MCP SDK": "#b8433f",
}


def draw(results: dict[str, Any], directory: Path) -> list[Path]:
    """Draw what was measured; return the files."""
    import matplotlib as mpl

    mpl.use("svg")
    # Text stays text, and the same figures make the same file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "httpx-refresh", "font.size": 9})
    directory.mkdir(parents=True, exist_ok=True)
    drawn = []
    for section, drawn_by in _PLOTS.items():
        if section in results:
            figure = drawn_by(results[section])
            path = directory / f"{section}.svg"
            figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
            drawn.append(path)
    return drawn


def _axes(panels: int, width: float = 4.2) -> tuple[Any, list[Any]]:
    """Return a figure of so many panels, two side by side at most: it is read at the width of a page."""
    from matplotlib.figure import Figure

    columns = min(panels, 2)
    rows = -(-panels // columns)
    figure = Figure(figsize=(width * columns, 3.2 * rows), layout="constrained")
    axes = [figure.add_subplot(rows, columns, number + 1) for number in range(panels)]
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _draw_hot(rows: list[dict[str, Any]]) -> Any:
    parts = groups([row for row in rows if row["way"] == "in the process"], "library")
    figure, axes = _axes(len(parts))
    for one, ((library,), group) in zip(axes, parts.items(), strict=True):
        names = [row["peer"] for row in group]
        values = [row["ratio"]["median"] for row in group]
        ends = [
            [row["ratio"]["median"] - row["ratio"]["low"] for row in group],
            [row["ratio"]["high"] - row["ratio"]["median"] for row in group],
        ]
        one.barh(names, values, xerr=ends, color=[_COLOURS[name] for name in names])
        one.axvline(1, color="#333333", linewidth=0.8)
        one.invert_yaxis()
        one.set_title(f"{library}: a request with a good token")
        one.set_xlabel("times a static header")
    return figure


def _draw_storm(rows: list[dict[str, Any]]) -> Any:
    parts = groups(rows, "expiry", "library")
    figure, axes = _axes(len(parts))
    for one, ((expiry, library), group) in zip(axes, parts.items(), strict=True):
        for (name,), line in groups(group, "peer").items():
            broken = any(row["failed"] for row in line)
            one.plot(
                [row["callers"] for row in line],
                [row["ratio"]["median"] for row in line],
                color=_COLOURS[name],
                linestyle=":" if broken else "-",
                marker="x" if broken else "o",
                markersize=4,
                label=f"{name} (calls fail)" if broken else name,
            )
        one.set_xscale("log")
        one.set_yscale("log")
        one.set_title(f"{library}: {expiry}", fontsize=8)
        one.set_xlabel("callers")
        one.set_yticks(ticks := [0.5, 1, 1.5, 2, 4, 8], [f"{tick:g}" for tick in ticks])
        one.minorticks_off()
        one.set_ylim(0.45, 8)
        one.set_ylabel("times the bare requests")
        one.legend(fontsize=6, frameon=False)
    return figure


def _draw_throughput(rows: list[dict[str, Any]]) -> Any:
    parts = groups(rows, "library")
    figure, axes = _axes(len(parts), 4.8)
    for one, ((library,), group) in zip(axes, parts.items(), strict=True):
        names = [row["peer"] for row in group]
        values = [row["longest_hold_milliseconds"]["median"] for row in group]
        bars = one.barh(names, values, color=[_COLOURS[name] for name in names])
        one.bar_label(bars, fmt="%.1f", padding=3)
        one.margins(x=0.15)
        one.invert_yaxis()
        one.set_title(f"{library}: {group[0]['callers']} callers across 20 expiries")
        one.set_xlabel("longest time that the auth held a request, ms")
    return figure


def _draw_processes(results: dict[str, Any]) -> Any:
    figure, (one,) = _axes(1, 5.0)
    for (backend,), line in groups(results["expiries"], "backend").items():
        one.plot(
            [row["processes"] for row in line],
            [row["stall_milliseconds"]["median"] for row in line],
            marker="o",
            label=backend,
        )
    one.set_title("One expiry, many processes")
    one.set_xlabel("processes")
    one.set_ylabel("median stall, ms")
    one.set_ylim(bottom=0)
    one.legend(frameon=False)
    return figure


_PLOTS = {
    "hot": _draw_hot,
    "storm": _draw_storm,
    "throughput": _draw_throughput,
    "processes": _draw_processes,
}
