"""Writes docs/benchmarks.md and its picture: medians of all runs with their spread, who was measured, and how it was set up.

`python -m bench.report RESULTS.json FOLDER` writes them anew from the figures of an earlier run.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import platform
import re
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import psutil

from bench.conductor import Bench, Result
from bench.plot import plot
from bench.targets import TARGETS, Key, Target

ORDER: Final = ("troth", "floor", "dbos", "absurd", "procrastinate", "pgqueuer")
COMPARED: Final = ("floor", "dbos", "absurd")
"""With whom a ratio is written out."""
PLOTTED: Final[tuple[Key, ...]] = (
    Key("drain", "workflows/s"),
    Key("steps", "steps/s"),
    Key("slow", "50 ms steps/s"),
    Key("continue", "continued/s"),
    Key("starts", "starts/s, single"),
    Key("starts", "starts/s, batched"),
)
PARTS: Final = (
    ("One worker process", r"starts|drain|steps|slow|low|decide|continue"),
    ("Several worker processes, the same backlog", r"\d+ workers"),
    ("One more millisecond between clients and Postgres", r".*1 ms away"),
    ("In a crowd", r"crowd|held"),
    ("An idle worker", r"idle"),
    ("Troth alone", r"children|transactions|http|memory|growth.*|replay"),
)

INTRODUCTION: Final = """# Benchmarks

Written by `make bench` on {day}. Client, worker and Postgres share one machine: {machine}. Postgres {postgres} as it comes
({settings}), so its durability is what every system had: `synchronous_commit` and `fsync` are on. Python {python}.{again}

Each work of each system ran in a fresh database, the systems in turn, {runs}. A figure is the median; in brackets stand the
lowest and the highest, where it was measured more than once. **Read differences below a third as undecided**: quiet runs differ
by a quarter.

**The floor** is no system but a yardstick (`bench/systems/floor.py`, 330 lines with its SQL): the least that still has IDs,
fences and durable checkpoints, and nothing else that an engine needs, no retries, timers, leases, cancellation or errors. It says
what this machine gives. **Procrastinate** and **PgQueuer** are queues of plain jobs, without steps and waiting: they show what a
queue costs, and have less to write.

![rates](benchmarks.svg)
"""

WORKS: Final = """## What the works are

- **Starts**: 16 concurrent callers, each start its own durable commit; and one caller with batches of a thousand.
- **Backlogs** (`workflows/s`, `steps/s`, `50 ms steps/s`): everything is enqueued, then worked off by one worker process. The
  clock runs from when a tenth of the steps have been called until the last workflow is done for good. Ten-step workflows call
  each step after the one before is recorded. Steps do nothing, or wait 50 ms. Commits, WAL, bytes and Postgres' CPU are those of
  the whole database, enqueuing included, for each workflow of the backlog; a ten-step workflow counts as one.
- **Decisions**: workflows wait for a person. `decide`: another process decides one at a time, at random moments; until the
  workflow's code goes on. `continued/s`: 16 callers decide as fast as they can, until the last workflow went on.
- **Low load**: 20 starts a second; from the start to the first step.
- **One more millisecond**: the same through a proxy that holds every packet back, so that a round trip takes a millisecond more
  (what it came to is shown). Who sends few calls loses little; a call for each step is felt.
- **A crowd**: the backlog beside 200,000 workflows that wait for a person, 200,000 that sleep, and 1,000,000 that have ended;
  then again and again beside a transaction that holds a snapshot for five minutes. For the peers such a crowd was not made.

## What is not comparable

- The engines promise different things. What Troth does and DBOS and Absurd do not (one order of events in which asyncio code
  replays, fences in every write, code that no longer fits found and halted) costs Troth rows and CPU; DBOS and Absurd have
  features that are not used here, and cost nothing here.
- A system with less to write has an advantage that is no merit: the queues keep no outcome of a step; PgQueuer deletes a job
  that is done; the floor has no second chance for anything. Bytes for each workflow show some of that.
- Peers got fewer workflows, so that they take about as long: rates are compared, and every rate is that of seconds.
- Two cores are shared by everything. On more cores the ratios will be others, in favour of whoever waits for Postgres most.
- Polling intervals of the peers were shortened where their defaults would have been all that was measured. That costs them
  idle transactions, which are shown with the same settings.
- One machine, one disk, one version each. Each system's adapter is about 150 lines in `bench/systems/`: whoever knows a system
  better is asked to correct it there.
"""


@dataclass(frozen=True)
class Kept:
    """All that the page is made of."""

    facts: dict[str, str]
    about: dict[str, dict[str, Any]]
    results: list[Result]

    @classmethod
    def of(cls, on: Bench, *, quick: bool) -> Self:
        runs = max((_count(on.results, "drain"), 1))
        facts = {
            "day": str(dt.datetime.now(dt.UTC).date()),
            "postgres": on.server.version,
            "settings": "changed: " + ", ".join(f"`{name} = {value}`" for name, value in on.settings.items()),
            "machine": f"{_processor()}, {os.cpu_count()} CPUs, "
            f"{psutil.virtual_memory().total / 2**30:.0f} GiB, Linux {_kernel()}",
            "python": platform.python_version(),
            "again": "",
            "runs": "at sizes too small to mean anything" if quick else f"{runs} times",
        }
        return cls(facts, on.about, on.results)

    @classmethod
    def load(cls, path: Path) -> Self:
        document = json.loads(path.read_text())
        return cls(document["facts"], document["about"], [Result(**each) for each in document["results"]])

    def with_new(self, new: Self) -> Self:
        """These figures, but those of works that were done anew."""
        works = {result.work for result in new.results}
        facts = self.facts | {
            "again": f" Done anew later, on {new.facts['day']}: {', '.join(sorted(works))}.",
        }
        left = [result for result in self.results if result.work not in works]
        return type(self)(facts, self.about | new.about, [*left, *new.results])

    def save(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1))

    @property
    def systems(self) -> list[str]:
        return [name for name in ORDER if any(result.system == name for result in self.results)]

    def values(self, system: str, key: Key) -> list[float]:
        """What all runs brought for a figure; a key's figure may be the beginning of its name."""
        return [
            value
            for result in self.results
            if result.system == system and result.work == key.work
            for name, value in result.figures.items()
            if name.startswith(key.figure)
        ]

    def median(self, system: str, key: Key) -> float | None:
        values = self.values(system, key)
        return statistics.median(values) if values else None


def write(docs: Path, kept: Kept) -> None:
    """Both files."""
    docs.mkdir(parents=True, exist_ok=True)
    lines = [
        INTRODUCTION.format(**kept.facts),
        *_targets(kept),
        *(line for title, works in PARTS for line in _part(kept, title, works)),
        *_failures(kept),
        WORKS,
        "## How they were set up",
        "",
        *(
            f"- **{name}** {kept.about[name]['version']}: {kept.about[name]['settings']}"
            for name in kept.systems
            if name in kept.about
        ),
        "",
    ]
    (docs / "benchmarks.md").write_text("\n".join(lines))
    (docs / "benchmarks.svg").write_text(_picture(kept))


def _targets(kept: Kept) -> list[str]:
    lines = ["## What Troth is held to", "", "| | wanted | here |", "|---|---|---|"]
    for target in TARGETS:
        reached = _reached(kept, target)
        said = "not measured" if reached is None else _number(reached)
        if reached is not None and not target.met(reached):
            said = f"**{said}**"
        lines.append(f"| {target.what} | {target.wanted} | {said} |")
    return [
        *lines,
        "",
        "Bold is what misses its target. What does not depend on the machine is asserted in `make bench-smoke`.",
        "",
    ]


def _reached(kept: Kept, target: Target) -> float | None:
    ours = kept.median("troth", target.key)
    if target.over is None or ours is None:
        return ours
    theirs = kept.median(target.over.system, target.over.key)
    return ours / theirs if theirs else None


def _part(kept: Kept, title: str, works: str) -> list[str]:
    results = [result for result in kept.results if re.fullmatch(works, result.work)]
    keys = dict.fromkeys(Key(result.work, figure) for result in results for figure in result.figures)
    if not keys:
        return []
    systems = [name for name in kept.systems if any(result.system == name for result in results)]
    compared = [name for name in COMPARED if name in systems and "troth" in systems]
    head = ["work", "", *systems, *(f"troth / {name}" for name in compared)]
    lines = [f"## {title}", "", _row(head), "|" + "---|" * len(head)]
    for key in keys:
        cells = [_cell(kept, name, key) for name in systems]
        ratios = [_ratio(kept.median("troth", key), kept.median(name, key)) for name in compared]
        lines.append(_row([key.work, key.figure, *cells, *ratios]))
    return [*lines, ""]


def _failures(kept: Kept) -> list[str]:
    failed = [result for result in kept.results if result.failure]
    if not failed:
        return []
    return ["## What failed", "", *(f"- {each.system}, {each.work}: {each.failure}" for each in failed), ""]


def _picture(kept: Kept) -> str:
    rates: dict[str, dict[str, float]] = {}
    numbers: dict[str, str] = {}
    for key in PLOTTED:
        for system in kept.systems:
            if (rate := kept.median(system, key)) is not None:
                rates.setdefault(key.figure, {})[system] = rate
                numbers[f"{key.figure} {system}"] = _number(rate)
    return plot(rates, kept.systems, numbers)


def _cell(kept: Kept, system: str, key: Key) -> str:
    values = [
        result.figures[key.figure]
        for result in kept.results
        if result.system == system and result.work == key.work and key.figure in result.figures
    ]
    if not values:
        failed = any(r.failure and r.system == system and r.work == key.work for r in kept.results)
        return "failed" if failed else ""
    if len(values) == 1:
        return _number(values[0])
    return f"{_number(statistics.median(values))} ({_number(min(values))}–{_number(max(values))})"


def _ratio(ours: float | None, theirs: float | None) -> str:
    return _number(ours / theirs) if ours is not None and theirs else ""


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _count(results: Iterable[Result], work: str) -> int:
    return sum(1 for result in results if result.system == "troth" and result.work == work)


def _kernel() -> str:
    return platform.release().partition("-")[0]


def _processor() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


if __name__ == "__main__":
    write(Path(sys.argv[2]), Kept.load(Path(sys.argv[1])))
