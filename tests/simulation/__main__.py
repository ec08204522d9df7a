"""`scripts/simulate`: run seeds until one fails, or one of them with a trace of everything that happened."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tests.simulation.kinds import KINDS
from tests.simulation.orders import enumerate_orders
from tests.simulation.run import quiet, simulate


def main() -> int:
    parser = argparse.ArgumentParser("scripts/simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many (default: 2000)")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first (default: 0)")
    parser.add_argument("--seed", type=int, help="run this one only")
    parser.add_argument("--kind", choices=KINDS, action="append", help="worlds of this kind only")
    parser.add_argument("--enumerate", action="store_true", help="all orders of a few processes")
    parser.add_argument("--processes", type=int, default=2, help="how many (default: 2)")
    parser.add_argument("--faults", type=int, default=1, help="at most in each order (default: 1)")
    parser.add_argument(
        "--takeovers", type=int, default=1, help="at most, with nothing wrong (default: 1)"
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="at most (default: 60)")
    parser.add_argument("--trace", action="store_true", help="with --seed: print all that happened")
    chosen = parser.parse_args()
    if chosen.enumerate:
        return _enumerate(chosen)
    kinds = chosen.kind or list(KINDS)
    if chosen.seed is not None:
        outcome = simulate(chosen.seed, kind=kinds[0])
        print(outcome.trace if chosen.trace else outcome.violation or "nothing found")
        return int(outcome.violation is not None)
    began, reasons, slowest, requests = time.monotonic(), Counter[str](), 0.0, 0
    for done, seed in enumerate(range(chosen.first, chosen.first + chosen.seeds), start=1):
        kind = kinds[seed % len(kinds)]
        outcome = simulate(seed, kind=kind)
        reasons.update(outcome.reasons)
        slowest = max(slowest, outcome.slowest)
        requests += outcome.token_requests
        if outcome.violation:
            print(f"seed {seed}: {outcome.violation}")
            print(
                f"all that happened in it: scripts/simulate --kind '{kind}' --seed {seed} --trace"
            )
            return 1
        if done % 1000 == 0 or done == chosen.seeds:
            print(f"{done} seeds, {time.monotonic() - began:.0f} s, nothing found", flush=True)
    print(f"{requests} token requests; the slowest answer took {slowest:.2f} of its bound")
    print("reasons for a login:", *(f"  {n} {why}" for why, n in reasons.most_common()), sep="\n")
    return 0


def _enumerate(chosen: argparse.Namespace) -> int:
    began = time.monotonic()
    with quiet():
        found = enumerate_orders(
            chosen.processes,
            faults=chosen.faults,
            takeovers=chosen.takeovers,
            seconds=chosen.minutes * 60.0,
        )
    took = time.monotonic() - began
    print(
        f"{chosen.processes} processes, {chosen.faults} faults, {chosen.takeovers} takeovers: {took:.0f} s, "
        f"{found.runs} worlds run, {found.states} distinct states, {found.ends} distinct ends"
    )
    if found.violation:
        print(found.trace, f"VIOLATION: {found.violation}", sep="")
        return 1
    if found.complete:
        print(
            f"{found.orders} orders, all there are, of up to {found.longest} steps: nothing found"
        )
    else:
        print("not all there are; nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
