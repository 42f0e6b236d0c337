"""Writes docs/benchmarks.md and its picture: medians of all runs with their spread, who was measured, and how it was set up."""

from __future__ import annotations

import datetime as dt
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from html import escape
from math import log10
from pathlib import Path
from typing import Final

from bench.conductor import Bench, Result

ORDER: Final = ("troth", "floor", "dbos", "absurd", "procrastinate", "pgqueuer")
PLOTTED: Final = ("workflows/s", "steps/s", "starts/s, single", "starts/s, batched", "continued/s")
COLORS: Final = {
    "troth": "#1b6e53",
    "floor": "#9aa5ab",
    "dbos": "#c0603c",
    "absurd": "#c9a23f",
    "procrastinate": "#6b77b5",
    "pgqueuer": "#8c5a91",
}

INTRODUCTION: Final = """# Benchmarks

Written by `make bench`, on {day}: Postgres {postgres}, {cpus} CPUs ({machine}), Python {python}. Postgres as it comes: its
durability (`synchronous_commit`, fsync) is what every system had. Client, worker and Postgres share the machine; each work of
each system ran in a fresh database, the systems in turn, {runs} times. A figure is the median; in brackets the lowest and the
highest. Read differences below a third as undecided.

**The floor** is no system but a yardstick (`bench/systems/floor.py`): the least that still has IDs, fences and durable
checkpoints, and nothing else that an engine needs. Procrastinate and PgQueuer are queues of plain jobs, without steps and
waiting: they show what a queue costs. What each work is, `bench/works.py` says; how each system was set up, the list below.
Whoever knows a peer better is asked to correct it there.

![rates, on a logarithmic scale](benchmarks.svg)
"""


def write(docs: Path, on: Bench, postgres: str) -> None:
    """Both files."""
    systems = [name for name in ORDER if any(result.system == name for result in on.results)]
    day = dt.datetime.now(dt.UTC).date()
    runs = max(_count(on.results, "troth", "workflows/s"), 1)
    lines = [
        INTRODUCTION.format(
            day=day,
            postgres=postgres,
            cpus=os.cpu_count(),
            machine=platform.machine(),
            python=platform.python_version(),
            runs=runs,
        ),
        "## Side by side",
        "",
        *_table(on.results, systems),
        "",
        "## Troth alone",
        "",
        *_alone(on.results),
        "",
        "## How they were set up",
        "",
        *(f"- **{name}** {on.about[name]['version']}: {on.about[name]['settings']}" for name in systems),
        "",
    ]
    (docs / "benchmarks.md").write_text("\n".join(lines))
    (docs / "benchmarks.svg").write_text(_plot(on.results, systems))


def _values(results: Iterable[Result], system: str, key: tuple[str, str]) -> list[float]:
    work, figure = key
    return [
        r.figures[figure] for r in results if r.system == system and r.work == work and figure in r.figures
    ]


def _count(results: Iterable[Result], system: str, figure: str) -> int:
    return sum(1 for r in results if r.system == system and r.work == "drain" and figure in r.figures)


def _keys(results: Iterable[Result], *, shared: bool) -> list[tuple[str, str]]:
    keys: dict[tuple[str, str], set[str]] = {}
    for result in results:
        for figure in result.figures:
            keys.setdefault((result.work, figure), set()).add(result.system)
    return [key for key, who in keys.items() if (len(who) > 1) == shared]


def _table(results: list[Result], systems: Sequence[str]) -> list[str]:
    head = [
        "work",
        "figure",
        *systems,
        *(f"troth / {name}" for name in systems if name in {"floor", "dbos", "absurd"}),
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for key in _keys(results, shared=True):
        ours = _values(results, "troth", key)
        cells = [_cell(_values(results, name, key)) for name in systems]
        ratios = [
            f"{statistics.median(ours) / statistics.median(theirs):.2f}"
            if ours and (theirs := _values(results, name, key)) and statistics.median(theirs)
            else ""
            for name in systems
            if name in {"floor", "dbos", "absurd"}
        ]
        lines.append("| " + " | ".join([*key, *cells, *ratios]) + " |")
    return lines


def _alone(results: list[Result]) -> list[str]:
    lines = ["| figure | |", "|---|---|"]
    for key in _keys(results, shared=False):
        lines.extend(
            f"| {key[1]} | {_cell(values)} |" for values in [_values(results, "troth", key)] if values
        )
    return lines


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    if len(values) == 1:
        return _number(values[0])
    return f"{_number(statistics.median(values))} ({_number(min(values))}–{_number(max(values))})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _plot(results: list[Result], systems: Sequence[str]) -> str:
    """Bars of the rates, a group for each: hand-made SVG, since one picture needs no library."""
    keys = [key for key in _keys(results, shared=True) if key[1] in PLOTTED and "," not in key[0]]
    bar, gap, left, width = 13, 16, 150, 560
    parts: list[str] = []
    y = 34
    for key in keys:
        parts.append(f'<text x="{left - 10}" y="{y + 12}" text-anchor="end">{escape(key[1])}</text>')
        for name in systems:
            values = _values(results, name, key)
            if not values:
                continue
            rate = statistics.median(values)
            length = max(log10(max(rate, 10)) - 1, 0) / 4 * width
            parts.append(
                f'<rect x="{left}" y="{y}" width="{length:.0f}" height="{bar - 2}" fill="{COLORS[name]}"/>'
            )
            parts.append(
                f'<text x="{left + length + 5:.0f}" y="{y + 10}" class="n">{_number(rate)} {name}</text>'
            )
            y += bar
        y += gap
    style = "text{font:12px sans-serif;fill:#333}.n{font-size:10px}"
    title = "per second, logarithmic: each quarter of the width is a factor of ten"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 120}" height="{y}" role="img">'
        f'<title>{title}</title><style>{style}</style><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="{left}" y="18">{title}</text>{"".join(parts)}</svg>\n'
    )
