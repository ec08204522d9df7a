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
    """One world. Times are in seconds; chances are between 0 and 1.

    Attributes:
        kind: its name in `KINDS`.
        faults: what goes wrong in it, of `FAULTS` and a few that only some kinds have.
        api: what is wrong with the API; None: an API that accepts each token that the server knows.
        processes: how many share the token.
        loops: how many event loops each process has.
        callers: how many coroutines make requests on each event loop.
        threads: how many threads of each process make sync calls.
        shuffled: whether callbacks that are ready run in an order of the seed's, and not in asyncio's.
        skew: the most by which a host's wall clock is ahead of the world's, or behind it.
        drift: the part by which the hosts' monotonic clocks may be faster or slower than the world's.
        clock_steps: the most by which a wall clock is stepped.
        horizon: when the world ends.
        think: how long a caller waits between two requests, on average.
        refresh_timeout, refresh_before: the library's options of these names.
        timeouts: the `refresh_timeout` of each process, in turn; empty: all have the same.
        lifetime: of an access token.
        says_lifetime: whether the endpoint says how long a token lives.
        absolute_expiry: whether it says when a token expires, by its own clock, and not how long it lives.
        rotates: whether each refresh brings another refresh token.
        server_grace: for how long the server answers a spent refresh token again.
        client_grace: the library's `reuse_grace`.
        revokes_on_reuse: whether the server revokes the grant where a spent refresh token comes back later than that.
        ends_previous: whether a new access token ends the one before.
        sets_tokens: whether the application logs in again now and then, and calls `set_token`.
        forces: whether callers call `refresh()` now and then.
        latency: how long a message to the store, or to the server, takes one way, on average.
        strike: the chance that a process is struck by one of its faults, at each occasion.
        store_fails, endpoint_fails: the chance that a call fails, where `faults` have them fail.
        store_down_at_answer: the chance that the store is down for a while when a token comes.
        cancels: the chance that a caller is cancelled, where `faults` has `cancel`.
        lenient: whether callers may be held longer than the library promises, because of what happens to their host.
        one_claim: whether the store never fails: an event loop then writes one claim at a time.
        refuses_clients: from when and until when the endpoint answers `invalid_client`, and to how many processes.
        silent: from when and until when the endpoint does not answer, and does nothing.
        held: how long a caller is held at most, in multiples of `refresh_timeout`.
        bounds: how many token requests there may be.
        on_unsaved: what the application does with a token that is not saved: `hangs`, `raises`, `waits`.
        purposes: for how many purposes services get tokens that need no person, in turn; 0: all use one login.
    """

    kind: str = "faults"
    faults: frozenset[str] = frozenset()
    api: ApiPlan | None = None
    processes: int = 2
    loops: int = 1
    callers: int = 2
    threads: int = 0
    shuffled: bool = False
    skew: float = 0.0
    drift: float = 0.0
    clock_steps: float = 60.0
    horizon: float = 120.0
    think: float = 5.0
    refresh_timeout: float = 5.0
    refresh_before: float = 10.0
    timeouts: tuple[float, ...] = ()
    lifetime: float = 30.0
    says_lifetime: bool = True
    absolute_expiry: bool = False
    rotates: bool = True
    server_grace: float = 0.0
    client_grace: float = 0.0
    revokes_on_reuse: bool = True
    ends_previous: bool = False
    sets_tokens: bool = False
    forces: bool = False
    latency: dict[str, float] = field(default_factory=lambda: {"store": 0.01, "server": 0.1})
    strike: float = 0.0
    store_fails: float = 0.0
    store_down_at_answer: float = 0.0
    endpoint_fails: float = 0.0
    cancels: float = 0.0
    lenient: bool = False
    one_claim: bool = False
    refuses_clients: tuple[float, float, int] = (NEVER, NEVER, 0)
    silent: tuple[float, float] = (NEVER, NEVER)
    held: float = 2.0
    bounds: tuple[Bound, ...] = ()
    on_unsaved: str = ""
    purposes: int = 0

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
