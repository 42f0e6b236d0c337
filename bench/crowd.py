"""A namespace full of what is not to be done now: 200,000 suspended workflows, 200,000 that sleep, 1,000,000 finished.

First the backlog is worked off in this crowd; then again and again, for five minutes, while somebody holds a snapshot open, so
that every row that dies stays in every index: the last of those rounds counts. The crowd is made by plain SQL, which takes a
minute where a million starts would take many.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Final

import psycopg

from bench.conductor import Bench, Result, driver
from bench.works import Sizes

CROWDS: Final = ("troth", "floor")
SUSPENDED: Final = 200_000
FINISHED: Final = 1_000_000
HELD_S: Final = 300.0


def crowded(on: Bench, system: str, sizes: Sizes, *, quick: bool) -> None:
    """The backlog in the crowd, and (for Troth) in the crowd under a snapshot that is held."""
    with on.database() as dsn:
        on.prepare(system, dsn)
        _fill(dsn, system, quick=quick)
        on.add(Result(system, "crowd", {"workflows/s in a crowd": _drain(system, dsn, sizes, 0)}))
        if system == "troth":
            on.add(Result(system, "held", _held(system, dsn, sizes, seconds=5 if quick else HELD_S)))


def _fill(dsn: str, system: str, *, quick: bool) -> None:
    text = (Path(__file__).parent / f"crowd_{system}.sql").read_text()
    text = text.format(suspended=2000 if quick else SUSPENDED, finished=10_000 if quick else FINISHED)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(text.encode())
        connection.execute("vacuum analyze")
        connection.execute("checkpoint")


def _held(system: str, dsn: str, sizes: Sizes, *, seconds: float) -> dict[str, float]:
    with psycopg.connect(dsn) as reader:
        reader.execute("set transaction isolation level repeatable read")
        reader.execute("select count(*) from pg_class")
        begun, rates = time.monotonic(), list[float]()
        while not rates or time.monotonic() - begun < seconds:
            rates.append(_drain(system, dsn, sizes, len(rates) + 1))
    return {
        f"workflows/s under a snapshot held for {seconds:.0f} s": rates[-1],
        "rounds worked off under it": float(len(rates)),
        "workflows/s in the first of them": rates[0],
    }


def _drain(system: str, dsn: str, sizes: Sizes, round: int) -> float:
    said = driver(system, "drain", dsn, dataclasses.replace(sizes, round=round))
    rate: float = said["figures"]["workflows/s"]
    return rate
