"""The figures as tables for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table

from . import peers, storm


def tables(results: dict[str, Any], console: Console) -> None:
    """Print what was measured."""
    machine = results["machine"]
    console.print(
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, "
        f"Python {machine['python']}, load {machine['load_before']} when it began"
    )
    console.print(", ".join(f"{name} {number}" for name, number in machine["packages"].items()))
    for section, print_section in _SECTIONS.items():
        if section in results:
            for table in print_section(results[section]):
                console.print(table)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=True)
    return table


def _spread(spread: dict[str, float], digits: int = 3) -> str:
    """A median with its quartiles."""
    return f"{spread['median']:.{digits}f} ({spread['low']:.{digits}f}-{spread['high']:.{digits}f})"


def groups(rows: Iterable[dict[str, Any]], *keys: str) -> dict[tuple[Any, ...], list[Any]]:
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


def _hot(rows: list[dict[str, Any]]) -> Iterable[Table]:
    for (library, way), group in groups(rows, "library", "way").items():
        title = f"Hot path: {library}, {way}"
        table = _table(title, "", "µs a request", "best µs", "times the static header")
        for row in group:
            table.add_row(
                row["peer"],
                _spread(row["microseconds"], 1),
                f"{row['best_microseconds']:.1f}",
                _spread(row["ratio"]),
            )
        yield table


def _storm(rows: list[dict[str, Any]]) -> Iterable[Table]:
    for (library, expiry), group in groups(rows, "library", "expiry").items():
        base = peers.TWICE if expiry == storm.REFUSED else "every request once"
        table = _table(
            f"Storm: {library}, {expiry}",
            "callers",
            "",
            "ms",
            f"times {base}",
            "without gc",
            "full gc",
            "stall p50 ms",
            "p99 ms",
            "token requests",
            "failed calls",
            "kB a caller",
        )
        for row in group:
            peak = row["peak_bytes_a_caller"]
            table.add_row(
                f"{row['callers']:,}",
                row["peer"],
                f"{row['milliseconds']['median']:.1f}",
                _spread(row["ratio"], 2),
                f"{row['ratio_without_collector']['median']:.2f}",
                f"{row['full_collections']:.0f}",
                f"{row['stall_p50_milliseconds']:.1f}",
                f"{row['stall_p99_milliseconds']:.1f}",
                str(row["token_requests"]),
                str(row["failed"]),
                "" if peak is None else f"{peak / 1e3:.1f}",
            )
        yield table


def _throughput(rows: list[dict[str, Any]]) -> Iterable[Table]:
    for (library, callers), group in groups(rows, "library", "callers").items():
        table = _table(
            f"Across refreshes: {library}, {callers} callers in a loop",
            "",
            "requests a second",
            "times the static header",
            "longest wait ms",
            "p99.9 ms",
            "held by its auth ms",
            "refreshes",
            "401s",
            "failed",
        )
        for row in group:
            table.add_row(
                row["peer"],
                f"{row['requests_a_second']['median']:,.0f}",
                f"{row['ratio']['median']:.3f}",
                f"{row['longest_stall_milliseconds']['median']:.1f}",
                f"{row['p999_stall_milliseconds']['median']:.1f}",
                f"{row['longest_hold_milliseconds']['median']:.2f}",
                f"{row['refreshes_a_round']:.0f}",
                f"{row['refused_a_round']:.0f}",
                str(row["failed"]),
            )
        yield table


def _processes(results: dict[str, Any]) -> Iterable[Table]:
    table = _table(
        "Many processes, one expiry",
        "backend",
        "processes",
        "stall ms",
        "longest ms",
        "processor ms, all",
        "store operations",
        "token requests",
    )
    for row in results["expiries"]:
        table.add_row(
            row["backend"],
            str(row["processes"]),
            _spread(row["stall_milliseconds"], 0),
            f"{row['longest_stall_milliseconds']:.0f}",
            _spread(row["processor_milliseconds"], 0),
            f"{row['store_operations']['median']:.0f}",
            str(row["token_requests"]),
        )
    yield table
    title = f"Two processes, a refresh that takes {results['waking_refresh']:g} s"
    table = _table(title, "backend", "ms from the save to the answer that the other process had")
    for row in results["wakings"]:
        table.add_row(row["backend"], _spread(row["milliseconds"], 0))
    yield table
    limit = results["takeover_refresh_timeout"]
    title = f"Takeover after a kill, refresh_timeout {limit:g} s"
    table = _table(title, "backend", "seconds until the next process had its answer")
    for row in results["takeovers"]:
        table.add_row(row["backend"], f"{row['seconds']:.2f}")
    yield table


def _tenants(results: dict[str, Any]) -> Iterable[Table]:
    table = _table(
        "Many tenants in a process",
        "tenants",
        "bytes each, idle",
        "after a request",
        "its text",
        "µs to build each",
        "µs a request",
    )
    for row in results["sizes"]:
        table.add_row(
            f"{row['tenants']:,}",
            f"{row['idle_bytes_each']:.0f}",
            f"{row['used_bytes_each']:.0f}",
            f"{row['text_bytes_each']:.0f}",
            f"{row['build_microseconds_each']:.1f}",
            _spread(row["request_microseconds"], 1),
        )
    yield table
    mass = results["mass_expiry"]
    table = _table(
        f"All of {mass['tenants']:,} tenants expire at once",
        "seconds",
        "times the same requests alone",
        "without the collector",
        "token requests a tenant",
    )
    table.add_row(
        _spread(mass["seconds"], 2),
        _spread(mass["ratio"], 2),
        _spread(mass["ratio_without_collector"], 2),
        f"{mass['token_requests_a_tenant']:g}",
    )
    yield table


def _startup(results: dict[str, Any]) -> Iterable[Table]:
    table = _table("Start-up, processor time", "", "ms")
    table.add_row("import httpx, httpx2", _spread(results["httpx_and_httpx2_milliseconds"], 1))
    table.add_row("and httpx_refresh", _spread(results["httpx_refresh_milliseconds"], 1))
    table.add_row(
        "and a RefreshAuth that is ready to send", _spread(results["ready_milliseconds"], 1)
    )
    table.add_row("httpx_refresh against httpx, httpx2", _spread(results["ratio"]))
    table.add_row("the RefreshAuth against them", _spread(results["ready_ratio"]))
    for name, part in results["largest_parts_milliseconds"].items():
        table.add_row(f"  {name}", f"{part:.1f}")
    yield table


_SECTIONS = {
    "hot": _hot,
    "storm": _storm,
    "throughput": _throughput,
    "processes": _processes,
    "tenants": _tenants,
    "startup": _startup,
}
