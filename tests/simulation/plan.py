"""What is drawn for a seed before it runs: how many of everything, how slow, and what goes wrong."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.budget import Bound

FAULTS = (
    "crash",  # a process is killed, and started again
    "stop",  # a process is stopped (SIGSTOP), and goes on
    "sleep",  # a host sleeps, its monotonic clock with it
    "shutdown",  # an event loop ends as asyncio.run does, and another begins
    "store",  # the store fails before or after it applied a write, or applies it after it failed
    "slow store",
    "store outage",
    "endpoint",  # requests and answers are lost, late, busy or odd
    "api",  # the API fails, or ends access tokens early
    "cancel",  # callers are cancelled
    "others",  # another tool logs in, logs out, empties the slot; the server revokes
    "wall",  # wall clocks are stepped
)

NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class ApiPlan:
    """What is wrong with the API behind the token. Times are in seconds.

    Attributes:
        forbidden: how many kinds of requests it refuses to this token, for good.
        public: whether it has an endpoint that looks at no token.
        refuses: when it refuses everybody, and until when.
        rekeys: whether it knows none of the tokens from before, after it refused everybody.
        lag: how long after its issue it learns of a token.
        random: how many of a hundred requests it refuses for no reason.
        ends_every: how often somebody else ends all access tokens.
        innocents: how many innocent requests may be refused with one access token that ended early.
        step_ups: what some requests are asked for, each of these by a kind of its own. `claims`: a refresh brings them,
            and they stay. `person`: claims for which the endpoint wants a person. `login`: a stronger login. `same` and
            `new`: claims, whatever the token holds, the same ones always or others each time.
    """

    forbidden: int = 0
    public: bool = False
    refuses: tuple[float, float] = (NEVER, NEVER)
    rekeys: bool = False
    lag: float = 0.0
    random: int = 0
    ends_every: float = 0.0
    innocents: float = 0.0
    step_ups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """One world. Times are in seconds."""

    kind: str = "faults"
    faults: frozenset[str] = frozenset()
    api: ApiPlan | None = None
    processes: int = 2
    loops: int = 1
    callers: int = 2
    """On each event loop."""
    threads: int = 0
    """How many threads of each process make sync calls."""
    shuffled: bool = False
    skew: float = 0.0
    drift: float = 0.0
    horizon: float = 120.0
    think: float = 5.0
    refresh_timeout: float = 5.0
    refresh_before: float = 10.0
    lifetime: float = 30.0
    says_lifetime: bool = True
    rotates: bool = True
    server_grace: float = 0.0
    client_grace: float = 0.0
    revokes_on_reuse: bool = True
    ends_previous: bool = False
    sets_tokens: bool = False
    forces: bool = False
    latency: dict[str, float] = field(default_factory=lambda: {"store": 0.01, "server": 0.1})
    # How likely each thing is.
    strike: float = 0.0
    store_fails: float = 0.0
    endpoint_fails: float = 0.0
    cancels: float = 0.0
    clock_steps: float = 60.0
    """The most by which a wall clock is stepped."""
    lenient: bool = False
    one_claim: bool = False
    """Whether the store never fails: an event loop then writes one claim at a time."""
    timeouts: tuple[float, ...] = ()
    """Each process's own `refresh_timeout`, in turn; none: all have the same."""
    refuses_clients: tuple[float, float, int] = (NEVER, NEVER, 0)
    """From when and until when the endpoint answers `invalid_client`, and to how many processes."""
    silent: tuple[float, float] = (NEVER, NEVER)
    """From when and until when the endpoint does not answer, and does nothing."""
    held: float = 2.0
    """The most that a caller is held, in `refresh_timeout`s."""
    bounds: tuple[Bound, ...] = ()
    on_unsaved: str = ""
    """What the application does with a token that is not saved."""
    purposes: int = 0
    """For how many purposes services get tokens that need no person, in turn; none: all use one login."""
    absolute_expiry: bool = False
    """Whether the endpoint says when a token expires, by its own clock, and not how long it lives."""

    def timeout_of(self, process: int) -> float:
        """Return the `refresh_timeout` of the process with that number."""
        return (
            self.timeouts[process % len(self.timeouts)] if self.timeouts else self.refresh_timeout
        )

    def purpose_of(self, process: int) -> str:
        """Return what the tokens of the process with that number are for; nothing if they are a login's."""
        return f"purpose {process % self.purposes}" if self.purposes else ""

    def has(self, fault: str) -> bool:
        return fault in self.faults

    def __str__(self) -> str:
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        values["faults"] = sorted(self.faults)
        return "\n".join(f"    {name}: {value}" for name, value in values.items())
