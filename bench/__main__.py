"""`make bench`: Troth, its peers and the floor at the same works, in turn; writes docs/benchmarks.md.

Nothing else should run on the machine meanwhile. `--quick` tries everything out at small sizes and writes nothing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from bench.conductor import HOME, OWN, PEERS, PEERS_PYTHON, Bench, bench
from bench.crowd import CROWDS, crowded
from bench.delay import delayed
from bench.idle import idle
from bench.own import OWN_WORKS
from bench.report import write
from bench.works import WORKS, Sizes

QUICK = Sizes(starts=320, batched=2000, workflows=1000, chains=200, decisions=50, slow=100, low=40)
PEERS_SIZES = Sizes(starts=3000, batched=5000, workflows=3000, chains=400, decisions=300, slow=600, low=200)
"""Peers take as long for these as we for ours; rates, not sizes, are compared."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--systems", default=",".join((*OWN, *PEERS)))
    parser.add_argument(
        "--works", default=",".join((*WORKS, *OWN_WORKS, "delay", "workers", "crowd", "idle"))
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--postgres", default=None, help="installed, embedded, or a major version")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path, default=None, help="keep every figure of every run here")
    asked = parser.parse_args()
    systems = asked.systems.split(",")
    if set(systems) & set(PEERS) and not PEERS_PYTHON.exists():
        parser.error("the peers are not installed: make bench-peers")
    with bench(asked.postgres) as on:
        for work in asked.works.split(","):
            for number in range(1 if asked.quick else asked.runs):
                turn = number % len(systems)
                for system in [*systems[turn:], *systems[:turn]]:
                    _one(on, system, work, quick=asked.quick)
        version = on.server.version
    if asked.json:
        asked.json.write_text(json.dumps([vars(result) for result in on.results]))
    if not asked.quick:
        write(HOME / "docs", on, version)


def _one(on: Bench, system: str, work: str, *, quick: bool) -> None:
    sizes = QUICK if quick else Sizes() if system in OWN else PEERS_SIZES
    if work in WORKS:
        on.one(system, work, sizes)
    elif work == "delay":
        delayed(on, system, sizes)
    elif work == "workers":
        for count in (2, 8):
            more = Sizes(**{**vars(sizes), "workers": count})
            on.one(system, "drain", more, label=f"{count} workers")
    elif work == "crowd" and system in CROWDS:
        crowded(on, system, sizes, quick=quick)
    elif work == "idle":
        idle(on, system, seconds=5 if quick else 30)
    elif work in OWN_WORKS and system == "troth":
        OWN_WORKS[work](on, quick)


if __name__ == "__main__":
    main()
