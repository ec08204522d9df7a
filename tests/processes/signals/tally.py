"""What came of the rounds: counted, and shown as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Tally:
    """What came of the rounds so far. The rounds of all slots count in one tally, on one event loop.

    Attributes:
        rounds: those in which the signal came.
        missed: those in which it would have come after the refresh. They are not rounds.
        lost: grants that a person had to log in again for.
        requests: token requests.
        revoked: families of tokens that the server ended, because a spent refresh token was used again.
        hung: rounds in which callers got no answer at all.
        late: token requests with a spent refresh token by a process that had been stopped, once it went on. The
            signal came between the last look at the clock and the request's body.
        ends: how the callers ended, by whose they were.
        moments: where in its refresh the process was.
        lost_at: the lost grants, by the same.
        slowest: the longest that a caller was held, by whose it was: in parts of twice its `refresh_timeout`.
        broken: promises that were broken.
    """

    rounds: int = 0
    missed: int = 0
    lost: int = 0
    requests: int = 0
    revoked: int = 0
    hung: int = 0
    late: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    moments: Counter[str] = field(default_factory=Counter)
    lost_at: Counter[str] = field(default_factory=Counter)
    slowest: dict[str, float] = field(default_factory=dict)
    broken: Counter[str] = field(default_factory=Counter)

    def told(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return {
            name: dict(value) if isinstance(value, dict) else value
            for name, value in vars(self).items()
        }

    def held(self, who: str, part: float) -> None:
        """Note how long a caller was held."""
        self.slowest[who] = max(self.slowest.get(who, 0.0), round(part, 2))


_COLUMNS = (
    "signal",
    "store",
    "grace",
    "rounds",
    "grants lost",
    "token requests",
    "families revoked",
    "spent token sent late",
    "callers that hung",
    "slowest, in parts of twice refresh_timeout",
)


def table(runs: Iterable[Mapping[str, Any]]) -> str:
    """Return the runs as tables in Markdown: what they cost, how callers ended, and what was lost at which moment."""
    runs = list(runs)
    lines = [_row(_COLUMNS), _row(["---"] * len(_COLUMNS))]
    for run in runs:
        slowest = max(run["slowest"].values(), default=0.0)
        figures = (run[name] for name in ("rounds", "lost", "requests", "revoked", "late", "hung"))
        lines.append(_row([*_named(run), *map(str, figures), f"{slowest:.2f}"]))
    lines += ["", _row(["signal", "store", "grace", "callers' ends"]), _row(["---"] * 4)]
    lines += [_row([*_named(run), _counted(run["ends"])]) for run in runs]
    lines += [
        "",
        _row(["signal", "store", "grace", "moment: grants lost of rounds"]),
        _row(["---"] * 4),
    ]
    for run in runs:
        moments = sorted(run["moments"].items())
        told = [f"{moment}: {run['lost_at'].get(moment, 0)} of {of}" for moment, of in moments]
        lines.append(_row([*_named(run), "<br>".join(told)]))
    return "\n".join(lines)


def _named(run: Mapping[str, Any]) -> list[str]:
    return [run["mode"], run["backend"], str(run["grace"])]


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
