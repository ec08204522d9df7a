"""What is drawn for a seed before it runs: how many of everything, how slow, and what goes wrong."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, fields

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


@dataclass(frozen=True, slots=True)
class Plan:
    """One world. Times are in seconds."""

    faults: frozenset[str] = frozenset()
    processes: int = 2
    loops: int = 1
    callers: int = 2
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

    def has(self, fault: str) -> bool:
        return fault in self.faults

    def __str__(self) -> str:
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        values["faults"] = sorted(self.faults)
        return "\n".join(f"    {name}: {value}" for name, value in values.items())


def draw(seed: int) -> Plan:
    """Draw the plan of a seed."""
    chance = random.Random(f"plan {seed}")
    some = chance.choice([0, 1, 2, 3, 5, len(FAULTS)])
    faults = frozenset(chance.sample(FAULTS, some))
    # A host that sleeps measures on its wall clock how long: one that is stepped as well knows nothing.
    faults -= {"wall"} if "sleep" in faults else set()
    timeout = chance.choice([1.0, 2.0, 5.0, 20.0])
    lifetime = chance.choice([20.0, 40.0, 100.0])
    horizon = lifetime * chance.choice([2.5, 4.5])
    grace = chance.choice([0.0, 0.0, 0.0, timeout * 3, 60.0])
    return Plan(
        faults=faults,
        processes=chance.choice([1, 2, 2, 3, 4, 5]),
        loops=chance.choice([1, 1, 1, 2]),
        callers=chance.choice([1, 2, 3]),
        shuffled=chance.random() < 0.5,
        # Beyond five minutes a claim is taken for abandoned at once: rare, and known.
        skew=chance.choice([0.0, 1.0, 30.0, 140.0, 140.0, chance.choice([140.0, 1000.0])]),
        drift=chance.choice([0.0, 0.001]),
        horizon=horizon,
        think=horizon / chance.choice([4, 8, 12]),
        refresh_timeout=timeout,
        refresh_before=chance.choice([0.0, 5.0, 60.0]),
        lifetime=lifetime,
        says_lifetime=chance.random() < 0.8,
        rotates=chance.random() < 0.9,
        server_grace=grace,
        client_grace=chance.choice([0.0, grace, grace]),
        revokes_on_reuse=chance.random() < 0.8,
        ends_previous=chance.random() < 0.3,
        sets_tokens=chance.random() < 0.1,
        forces=chance.random() < 0.15,
        latency={
            "store": min(chance.choice([0.001, 0.02, 0.1]), timeout / 20),
            "server": timeout * chance.choice([0.01, 0.05, 0.13]),
        },
        strike=chance.choice([0.02, 0.1, 0.3]),
        store_fails=chance.choice([0.02, 0.1, 0.3]),
        endpoint_fails=chance.choice([0.1, 0.3, 0.7]),
        cancels=chance.choice([0.05, 0.3]),
    )
