"""`scripts/simulate`: run seeds until one fails, or one of them with a trace of everything that happened."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tests.simulation.run import simulate


def main() -> int:
    parser = argparse.ArgumentParser("scripts/simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many (default: 2000)")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first (default: 0)")
    parser.add_argument("--seed", type=int, help="run this one only")
    parser.add_argument("--trace", action="store_true", help="with --seed: print all that happened")
    chosen = parser.parse_args()
    if chosen.seed is not None:
        outcome = simulate(chosen.seed)
        print(outcome.trace if chosen.trace else outcome.violation or "nothing found")
        return int(outcome.violation is not None)
    began, reasons, slowest, requests = time.monotonic(), Counter[str](), 0.0, 0
    for done, seed in enumerate(range(chosen.first, chosen.first + chosen.seeds), start=1):
        outcome = simulate(seed)
        reasons.update(outcome.reasons)
        slowest = max(slowest, outcome.slowest)
        requests += outcome.token_requests
        if outcome.violation:
            print(f"seed {seed}: {outcome.violation}")
            print(f"all that happened in it: scripts/simulate --seed {seed} --trace")
            return 1
        if done % 1000 == 0 or done == chosen.seeds:
            print(f"{done} seeds, {time.monotonic() - began:.0f} s, nothing found", flush=True)
    print(f"{requests} token requests; the slowest answer took {slowest:.2f} of its bound")
    print("reasons for a login:", *(f"  {n} {why}" for why, n in reasons.most_common()), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
