"""The kinds of worlds there are, each drawn for a seed: what real deployments were found to break."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.simulation.budget import Bound
from tests.simulation.plan import FAULTS, NEVER, ApiPlan, Plan

HOUR = 3600.0


def faults(chance: random.Random) -> Plan:
    """Everything that goes wrong with processes, hosts, the store, the endpoint and callers, in any mixture."""
    some = chance.choice([0, 1, 2, 3, 5, len(FAULTS)])
    drawn = frozenset(chance.sample(FAULTS, some))
    # A host that sleeps measures on its wall clock how long: one that is stepped as well knows nothing.
    drawn -= {"wall"} if "sleep" in drawn else set()
    timeout = chance.choice([1.0, 2.0, 5.0, 20.0])
    lifetime = chance.choice([20.0, 40.0, 100.0])
    horizon = lifetime * chance.choice([2.5, 4.5])
    grace = chance.choice([0.0, 0.0, 0.0, timeout * 3, 60.0])
    return Plan(
        kind="faults",
        lenient=True,
        faults=drawn,
        processes=chance.choice([1, 2, 2, 3, 4, 5]),
        loops=chance.choice([1, 1, 1, 2]),
        callers=chance.choice([1, 2, 3]),
        shuffled=chance.random() < 0.5,
        # Hours apart: see `clocks`.
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
        latency=_latency(chance, timeout),
        strike=chance.choice([0.02, 0.1, 0.3]),
        store_fails=chance.choice([0.02, 0.1, 0.3]),
        endpoint_fails=chance.choice([0.1, 0.3, 0.7]),
        cancels=chance.choice([0.05, 0.3]),
        threads=chance.choice([0, 0, 0, 1, 2]),
    )


def _latency(chance: random.Random, timeout: float) -> dict[str, float]:
    return {
        "store": min(chance.choice([0.001, 0.02, 0.1]), timeout / 20),
        "server": timeout * chance.choice([0.01, 0.05, 0.13]),
    }


def _calm(chance: random.Random, kind: str, *faults: str) -> dict[str, object]:
    """Return what most worlds have in common in which one thing goes wrong."""
    timeout = chance.choice([2.0, 5.0, 20.0])
    lifetime = chance.choice([40.0, 100.0, 300.0])
    horizon = lifetime * chance.choice([2.5, 4.5])
    return {
        "kind": kind,
        "faults": frozenset(faults),
        "processes": chance.choice([1, 2, 3]),
        "callers": chance.choice([1, 2, 3]),
        "shuffled": chance.random() < 0.5,
        "horizon": horizon,
        "think": horizon / chance.choice([8, 16, 32]),
        "refresh_timeout": timeout,
        "refresh_before": chance.choice([0.0, 5.0, 60.0]),
        "lifetime": lifetime,
        "revokes_on_reuse": chance.random() < 0.8,
        "latency": _latency(chance, timeout),
        "strike": chance.choice([0.1, 0.3, 1.0]),
    }


def _plan(*parts: dict[str, object], **more: object) -> Plan:
    fields: dict[str, object] = {}
    for part in (*parts, more):
        fields |= part
    return Plan(**fields)  # type: ignore[arg-type]  # each part is drawn with the types that it needs


# -- processes and event loops -------------------------------------------------------------------------------------


def loop_ends(chance: random.Random) -> Plan:
    """Event loops end as `asyncio.run` does and others begin, or the process exits: no grant is lost by it."""
    some = chance.choice([["shutdown"], ["exit"], ["shutdown", "exit"], ["shutdown", "cancel"]])
    return _plan(_calm(chance, "loop ends", *some), cancels=0.3, callers=chance.choice([1, 5]))


def loops_closed(chance: random.Random) -> Plan:
    """Event loops are closed with their tasks in the middle of it, and others begin: nobody waits for the dead."""
    common = _calm(chance, "loops closed", "close")
    return _plan(common, processes=1, loops=chance.choice([1, 2]), server_grace=NEVER, held=1.0)


def sync_callers(chance: random.Random) -> Plan:
    """Threads make sync calls, beside coroutines or without: they share their refreshes, and no Ctrl-C loses one."""
    some = chance.choice(
        [
            [],
            ["cancel"],
            ["cancel"],
            ["cancel", "shutdown"],
            ["exit"],
            ["exit", "cancel"],
            ["crash", "cancel"],
            ["stop"],
            ["endpoint", "cancel"],
            ["store"],
            ["hung store", "cancel"],
            ["api", "others"],
        ]
    )
    common = _calm(chance, "sync callers", *some)
    return _plan(
        common,
        callers=chance.choice([0, 0, 1, 2]),
        threads=chance.choice([1, 2, 3]),
        cancels=0.3,
        forces=chance.random() < 0.15,
        one_claim=not {"store", "hung store"}.intersection(some),
        store_fails=0.1,
        endpoint_fails=0.3,
    )


def closing(chance: random.Random) -> Plan:
    """`aclose` comes in the middle, also while another process that is dead has a claim: it starts nothing."""
    common = _calm(chance, "closing", *chance.choice([["aclose"], ["aclose", "crash"]]))
    return _plan(common, processes=chance.choice([2, 3]))


def freezes(chance: random.Random) -> Plan:
    """A process is stopped and goes on: what was not sent is begun again, and what came meanwhile is not lost."""
    common = _calm(chance, "freezes", "stop")
    latency = {
        "store": 0.02,
        "server": chance.choice([0.01, 0.05]) * float(str(common["refresh_timeout"])),
    }  # An answer to what is sent in time comes in time.
    return _plan(common, processes=1, latency=latency)


def timeouts(chance: random.Random) -> Plan:
    """A rolling deployment changes `refresh_timeout`: a claim is judged by its owner's."""
    long = chance.choice([10.0, 30.0])
    latency = {"store": 0.01, "server": long * chance.choice([0.05, 0.15])}
    return _plan(
        _calm(chance, "timeouts", *chance.choice([[], ["crash"], ["stop"]])),
        processes=chance.choice([2, 3, 4]),
        timeouts=chance.choice([(2.0, long), (long, 2.0), (5.0, long, 60.0)]),
        refresh_timeout=long,
        latency=latency,
        lifetime=300.0,
        horizon=900.0,
        think=20.0,
    )


def clocks(chance: random.Random) -> Plan:
    """Clocks of hosts that are minutes and hours apart, and are stepped by hours: no token is spent twice."""
    some = chance.choice([["wall"], ["crash"], ["wall", "stop"], []])
    common = _calm(chance, "clocks", *some)
    return _plan(
        common,
        processes=chance.choice([2, 3, 4]),
        skew=chance.choice([0.0, 200.0, 400.0, 4000.0, 20_000.0]),
        clock_steps=chance.choice([60.0, 400.0, 5 * HOUR]),
        drift=chance.choice([0.0, 0.001]),
    )


# -- the store -----------------------------------------------------------------------------------------------------


def stores_that_hang(chance: random.Random) -> Plan:
    """Calls of the store never return, or late, and their writes land or do not: nobody waits for them."""
    some = chance.choice([["hung store"], ["hung store", "shutdown"], ["hung store", "cancel"]])
    return _plan(
        _calm(chance, "hung store", *some), store_fails=chance.choice([0.02, 0.1]), cancels=0.1
    )


def unsaved(chance: random.Random) -> Plan:
    """The store is down when a token comes, and what the application does about it hangs: it is saved all the same."""
    some = chance.choice([[], ["shutdown"], ["cancel"], ["others"], ["others"]])
    return _plan(
        _calm(chance, "unsaved", "store outage", *some),
        on_unsaved=chance.choice(["hangs", "raises", "waits"]),
        store_down_at_answer=0.5,
        cancels=0.1,
        lifetime=40.0,
        horizon=300.0,
    )


def logins(chance: random.Random) -> Plan:
    """The application logs in again while the store is slow, also over a text that is damaged: the login counts.

    What the store did before the login may be answered after it.
    """
    slow = ["slow store", "late answers"]
    some = chance.choice([["slow store"], ["damage"], ["slow store", "damage"], slow, slow])
    return _plan(_calm(chance, "logins", *some), sets_tokens=True, lifetime=40.0)


# -- the token endpoint --------------------------------------------------------------------------------------------


def odd_endpoints(chance: random.Random) -> Plan:
    """A custom endpoint raises what it likes and declares odd values: waiters are answered, claims are settled."""
    return _plan(
        _calm(chance, "odd endpoint", "odd endpoint", *chance.choice([[], ["cancel"]])),
        endpoint_fails=chance.choice([0.1, 0.5]),
        cancels=0.1,
        server_grace=NEVER,
    )


def graces(chance: random.Random) -> Plan:
    """The server forgives a second use for so short a while that claims are shorter than `refresh_timeout`."""
    some = chance.choice([["crash"], ["stop"], ["endpoint"], ["crash", "endpoint"], ["cancel"]])
    common = _calm(chance, "graces", *some)
    timeout = chance.choice([2.0, 5.0, 20.0])
    grace = timeout * chance.choice([0.4, 0.5, 1.0, 1.5, 3.0])
    return _plan(
        common,
        lenient=True,
        processes=chance.choice([2, 3, 4]),
        refresh_timeout=timeout,
        server_grace=grace,
        client_grace=grace,
        latency={"store": 0.01, "server": timeout * chance.choice([0.01, 0.03])},
        endpoint_fails=0.3,
        cancels=0.1,
    )


def silence(chance: random.Random) -> Plan:
    """The endpoint does not answer for a while: nobody is held longer than twice `refresh_timeout`."""
    timeout = chance.choice([2.0, 5.0])
    common = _calm(chance, "silence", "silence")
    return _plan(
        common,
        processes=chance.choice([1, 4, 12]),
        silent=(30.0, 30.0 + timeout * chance.choice([1.0, 10.0])),
        refresh_timeout=timeout,
        lifetime=40.0,
        horizon=160.0,
        think=2.0,
        latency={"store": 0.01, "server": 0.1},
        server_grace=NEVER,
    )


def outages(chance: random.Random) -> Plan:
    """The endpoint refuses all pods of a fleet for some seconds: it costs a handful of requests, not each pod's."""
    pods, lasts, most = chance.choice([(10, 8.0, 4), (30, 10.0, 15), (5, 60.0, 19), (20, 60.0, 19)])
    return _plan(
        _calm(chance, "outage", "silence"),
        processes=pods,
        callers=1,
        lifetime=40.0,
        horizon=120.0,
        think=1.0,
        refresh_before=chance.choice([0.0, 5.0]),
        latency={"store": 0.005, "server": 0.05},
        refuses_clients=(45.0, 45.0 + lasts, pods),
        bounds=(Bound(most, lasts, since=45.0, until=45.0 + lasts),),
    )


def stale_secrets(chance: random.Random) -> Plan:
    """All pods but one have a client secret that is refused: they do not silence that one."""
    pods = chance.choice([2, 5, 10])
    return _plan(
        _calm(chance, "stale secrets", "silence"),
        processes=pods,
        callers=1,
        lifetime=60.0,
        horizon=300.0,
        think=chance.choice([1.0, 10.0]),
        latency={"store": 0.005, "server": 0.05},
        refuses_clients=(0.0, 300.0, pods - 1),
    )


def hours_of_failure(chance: random.Random) -> Plan:
    """A wrong secret for a day: failures are counted without an end, and everybody is answered."""
    lasts = 12.0 * HOUR
    return _plan(
        _calm(chance, "hours of failure", "silence"),
        processes=1,
        callers=1,
        lifetime=60.0,
        horizon=lasts + 1000.0,
        think=chance.choice([10.0, 16.0]),
        refuses_clients=(100.0, 100.0 + lasts, 1),
    )


def early_and_late(chance: random.Random) -> Plan:
    """The endpoint says by its own clock when a token expires: one that is expired on arrival is used all the same."""
    return _plan(
        _calm(chance, "expired on arrival", "wall"),
        absolute_expiry=True,
        skew=chance.choice([500.0, 4000.0]),
        clock_steps=0.0,
        processes=1,
        lifetime=300.0,
        horizon=1500.0,
        think=10.0,
        bounds=(
            Bound(34, 1500.0, unneeded=True),
        ),  # Pauses of 0.05 s, each half as long again, up to 300 s.
    )


def services(chance: random.Random) -> Plan:
    """Tokens come from nothing, whatever fails: nothing is ever in doubt, and nobody has to log in.

    At some servers each new token ends the last one, as Zoom's does: the pods that share one do not end each other's.
    """
    faults = ["crash", "stop", "shutdown", "endpoint", "endpoint", "store", "cancel", "exit"]
    some = chance.sample(faults, chance.choice([0, 1, 2, 3]))
    return _plan(
        _calm(chance, "services", *some),
        lenient=True,
        processes=chance.choice([1, 2, 4, 8]),
        purposes=1,
        endpoint_fails=chance.choice([0.1, 0.5]),
        store_fails=chance.choice([0.02, 0.1]),
        cancels=0.1,
        ends_previous=chance.random() < 0.3,
    )


def purposes(chance: random.Random) -> Plan:
    """Services with other scopes were given one slot: none of them gets what another asked for."""
    common = _calm(chance, "purposes", *chance.choice([[], ["crash"], ["endpoint"], ["cancel"]]))
    return _plan(
        common,
        lenient=True,
        processes=chance.choice([2, 3, 4]),
        purposes=chance.choice([2, 3]),
        endpoint_fails=0.1,
        cancels=0.1,
    )


# -- the API -------------------------------------------------------------------------------------------------------


def _hours(chance: random.Random, kind: str, hours: float, requests: int) -> dict[str, object]:
    processes, callers = chance.choice([(1, 1), (1, 3), (2, 1), (4, 1), (10, 1)])
    return {
        **_calm(chance, kind, "api parts"),
        "processes": processes,
        "callers": callers,
        "horizon": hours * HOUR,
        "think": hours * HOUR * processes * callers / requests,
        "lifetime": HOUR,
        "says_lifetime": chance.random() < 0.8,
        "latency": {"store": 0.01, "server": 0.1},
        "ends_previous": chance.random() < 0.5,
    }


def forbidden(chance: random.Random) -> Plan:
    """The API refuses some kinds of requests for good: three token requests, and nothing for their neighbours.

    Where nobody knows the tokens' lifetime each of them ends early, and what was learnt of the API ends with it. Where
    requests are so few that no pod had one accepted with the new token, a pod that has one refused may probe once more.
    """
    hours, kinds = chance.choice([0.2, 2.0, 24.0]), chance.choice([1, 2, 3])
    base = _hours(chance, "forbidden", hours, 1000 if hours < 24.0 else 6000)
    return _plan(
        base,
        api=ApiPlan(forbidden=kinds, public=chance.random() < 0.5, innocents=3),
        bounds=(
            Bound(
                3 * kinds + (2 if base["processes"] == 10 else 0),
                NEVER if base["says_lifetime"] else HOUR,
                unneeded=True,
            ),
        ),
    )


def refusing(chance: random.Random) -> Plan:
    """The API refuses everybody for minutes or hours: it costs any number of pods the same few; then it is used."""
    lasts = chance.choice([6.0, 60.0, 1000.0, 2 * HOUR])
    out, rekeys = 100.0, chance.random() < 0.6
    hours = _hours(chance, "refusing", (out + lasts + 1500.0) / HOUR, 1000)
    return _plan(
        # An API that accepts a public kind cannot be told from one that forbids all the others. So where there is one,
        # tokens end when they say so, and not because of the outage.
        hours if rekeys else {**hours, "says_lifetime": True},
        api=ApiPlan(refuses=(out, out + lasts), rekeys=rekeys, public=not rekeys),
        bounds=(Bound(6 + int(lasts / 150.0), NEVER, unneeded=True),),
    )


def late(chance: random.Random) -> Plan:
    """The API learns of a token some seconds after its issue.

    Within about a second that costs nothing, since the same token is sent once more then. Later it costs two refreshes
    at most for each of seven tokens in an hour: an API that refuses a new token gets three.
    """
    common = _hours(chance, "late", 2.0, 1000)
    lag = chance.choice([0.3, 0.8, 2.0, 4.5])
    most = 0 if lag < 0.5 else 14
    return _plan(
        common,
        api=ApiPlan(lag=lag, innocents=3),
        lifetime=600.0,
        bounds=(Bound(most, HOUR, unneeded=True),),
    )


def random_refusals(chance: random.Random) -> Plan:
    """One request of twenty is refused for no reason: sixty token requests an hour at most."""
    return _plan(
        _hours(chance, "random", 1.5, 5000),
        api=ApiPlan(random=5, public=chance.random() < 0.3, innocents=3),
        bounds=(Bound(60, HOUR, unneeded=True),),
    )


def early_ends(chance: random.Random) -> Plan:
    """Somebody else ends our access tokens again and again: token requests in an hour are bounded."""
    every = chance.choice([5.0, 20.0, 100.0])
    return _plan(
        _hours(chance, "early ends", 1.2, 3000),
        api=ApiPlan(ends_every=every, innocents=NEVER),
        bounds=(Bound(60, HOUR),),
    )


def end_in_doubt(chance: random.Random) -> Plan:
    """A token ends early while it is in doubt, on paths with ids: three innocent requests are refused at most."""
    return _plan(
        _hours(chance, "end in doubt", 2.0, 2000),
        api=ApiPlan(
            forbidden=chance.choice([1, 2, 3]),
            public=chance.random() < 0.5,
            ends_every=chance.choice([1000.0, 3000.0]),
            innocents=3,
        ),
        bounds=(Bound(20, HOUR),),
    )


def quiet(chance: random.Random) -> Plan:
    """Minutes go by between two requests, and nobody knows how long a token lives, while some parts are forbidden.

    What was accepted long ago says nothing of a token that may have ended since.
    """
    return _plan(
        _hours(chance, "quiet", 3.0, chance.choice([30, 100])),
        says_lifetime=False,
        lifetime=chance.choice([600.0, HOUR]),
        api=ApiPlan(forbidden=chance.choice([1, 2, 3]), innocents=NEVER),
        bounds=(Bound(20, HOUR),),
    )


def step_ups(chance: random.Random) -> Plan:
    """Some requests are asked for claims or another login: each costs what it may, and nobody else anything.

    An API that lies asks for claims whatever the token holds. If they are the same ones, they are tried once with each
    token; if they are others each time, some thirty times an hour.
    """
    asks: tuple[str, ...] = chance.choice(
        [
            ("claims",),
            ("claims", "person"),
            ("claims", "person", "login"),
            ("login",),
            ("same",),
            ("new",),
        ]
    )
    lasts = 1.2 * HOUR if asks == ("new",) else 150.0
    processes, callers = chance.choice([(1, 3), (2, 2), (4, 2)])
    return _plan(
        _calm(chance, "step-ups", *chance.choice([[], [], ["cancel"], ["crash"]])),
        api=ApiPlan(step_ups=asks, innocents=3),
        processes=processes,
        callers=callers,
        cancels=0.2,
        strike=0.05,
        lifetime=lasts / 2,
        horizon=lasts,
        think=lasts / 60,
        bounds=(
            Bound({"new": 40, "same": 4}.get(asks[0], 8), HOUR, unneeded=True)
            if asks != ("login",)
            else Bound(0, NEVER, unneeded=True),
        ),
    )


KINDS: dict[str, Callable[[random.Random], Plan]] = {
    "faults": faults,
    "loop ends": loop_ends,
    "loops closed": loops_closed,
    "sync callers": sync_callers,
    "closing": closing,
    "freezes": freezes,
    "timeouts": timeouts,
    "clocks": clocks,
    "hung store": stores_that_hang,
    "unsaved": unsaved,
    "logins": logins,
    "odd endpoint": odd_endpoints,
    "graces": graces,
    "silence": silence,
    "outage": outages,
    "stale secrets": stale_secrets,
    "hours of failure": hours_of_failure,
    "expired on arrival": early_and_late,
    "services": services,
    "purposes": purposes,
    "forbidden": forbidden,
    "quiet": quiet,
    "refusing": refusing,
    "late": late,
    "random": random_refusals,
    "early ends": early_ends,
    "end in doubt": end_in_doubt,
    "step-ups": step_ups,
}


def draw(seed: int, kind: str = "faults") -> Plan:
    """Draw the plan of a seed, in a world of this kind."""
    return KINDS[kind](random.Random(f"plan {seed}" if kind == "faults" else f"{kind} {seed}"))
