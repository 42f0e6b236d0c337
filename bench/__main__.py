"""`make bench`: Troth, its peers and the floor at the same works, in turn; writes docs/benchmarks.md.

Nothing else should run on the machine meanwhile: it takes about half an hour. `--quick` tries everything out at small sizes
and writes nothing. A work that fails for one system is shown as failed, the rest goes on, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from bench.conductor import HOME, OWN, PEERS, PEERS_PYTHON, SETTINGS, Bench, bench
from bench.crowd import CROWDS, crowded
from bench.delay import delayed
from bench.idle import idle
from bench.own import FEW, OWN_WORKS, Amounts, own
from bench.report import Kept, write
from bench.workers import together
from bench.works import WORKS, Sizes

KEPT: Final = HOME / ".bench" / "results.json"
"""Every figure of the last run; `python -m bench.report` writes the page anew from it."""

QUICK: Final = Sizes(
    starts=320, batched=2000, workflows=1000, chains=200, slow=200, decisions=40, continued=80, low=40
)
OWN_SIZES: Final = Sizes(
    starts=8000,
    batched=100_000,
    workflows=60_000,
    chains=8000,
    slow=10_000,
    decisions=300,
    continued=3000,
    low=150,
)
PEERS_SIZES: Final = Sizes(
    starts=3000, batched=5000, workflows=2000, chains=200, slow=1000, decisions=200, continued=600, low=150
)
"""Peers take as long for these as we for ours; rates, not sizes, are compared."""
FURTHER: Final = ("workers", "delay", "crowd", "idle")
ONCE: Final = ("delay", "crowd", "idle", "memory", "growth", "replay")
"""What takes minutes, or is counted rather than timed, is done in the first run only."""
IDLE_S: Final = 20.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--systems", default=",".join((*OWN, *PEERS)))
    parser.add_argument("--works", default=",".join((*WORKS, *FURTHER, *OWN_WORKS)))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--postgres", default=None, help="installed, embedded, or a major version")
    parser.add_argument(
        "--set", action="append", default=[], help="a setting of the server, such as autovacuum_naptime=5"
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help="do these works anew, and keep the last run's figures of the others",
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path, default=None, help="keep every figure of every run here")
    parser.add_argument("--docs", type=Path, default=None, help="write the page here, also a quick one")
    asked = parser.parse_args()
    systems = asked.systems.split(",")
    if set(systems) & set(PEERS) and not PEERS_PYTHON.exists():
        parser.error("the peers are not installed: make bench-peers")
    works, runs = asked.works.split(","), 1 if asked.quick else asked.runs
    settings = {**SETTINGS, **dict(each.partition("=")[::2] for each in asked.set)}
    before = Kept.load(KEPT) if asked.again else None
    with bench(asked.postgres, settings) as on:
        kept = Kept.of(on, quick=asked.quick)
        for _ in _all(on, systems, works, runs, quick=asked.quick):
            kept = Kept.of(on, quick=asked.quick)
            if before is not None:
                kept = before.with_new(kept)
            for path in filter(None, (asked.json, None if asked.quick else KEPT)):
                kept.save(path)  # each time, so that a run that is cut off has not been for nothing
    if asked.docs or not asked.quick:
        write(asked.docs or HOME / "docs", kept)
    sys.exit(1 if any(result.failure for result in on.results) else 0)


def _all(on: Bench, systems: Sequence[str], works: Sequence[str], runs: int, *, quick: bool) -> Iterator[str]:
    """Everything; stops at the end of each work of all systems."""
    for number in range(runs):
        # nobody is always the first after a pause, or the last on a warm disk
        turn = number % len(systems)
        for work in works:
            if number and work in ONCE:
                continue
            for system in [*systems[turn:], *systems[:turn]]:
                if number and work == "workers" and system not in OWN:
                    continue
                if act := _act(on, system, work, quick=quick):
                    on.tried(system, work, act)
            yield work


def _act(on: Bench, system: str, work: str, *, quick: bool) -> Callable[[], None] | None:
    """How this system does this work, if it does."""
    sizes = QUICK if quick else OWN_SIZES if system in OWN else PEERS_SIZES
    if work in WORKS:
        return lambda: on.one(system, work, sizes)
    if work == "workers":
        return lambda: together(on, system, sizes)
    if work == "delay":
        return lambda: delayed(on, system, _third(sizes))
    if work == "crowd" and system in CROWDS:
        return lambda: crowded(on, system, sizes, quick=quick)
    if work == "idle":
        return lambda: idle(on, system, seconds=5 if quick else IDLE_S)
    if work in OWN_WORKS and system == "troth":
        return lambda: own(on, work, FEW if quick else Amounts())
    return None


def _third(sizes: Sizes) -> Sizes:
    """What is slower for everybody is done a third as often; a 99th percentile needs its number."""
    return dataclasses.replace(
        sizes,
        starts=sizes.starts // 3,
        batched=sizes.batched // 3,
        workflows=sizes.workflows // 3,
        chains=sizes.chains // 3,
    )


if __name__ == "__main__":
    main()
