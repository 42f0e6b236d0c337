"""A namespace full of what is not to be done now: 200,000 suspended workflows, 200,000 that sleep, 1,000,000 finished.

And the same under a snapshot that somebody holds open.

The crowd is made by plain SQL, which takes a minute where a million starts would take an hour.
"""

from __future__ import annotations

import dataclasses
import json
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
    """The backlog worked off in the crowd, then in the crowd under a held snapshot."""
    text = (
        (Path(__file__).parent / f"crowd_{system}.sql")
        .read_text()
        .format(suspended=2000 if quick else SUSPENDED, finished=10_000 if quick else FINISHED)
    )
    for label, held in (("crowd", False), ("held", True)):
        with on.database() as dsn:
            on.prepare(system, dsn)
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute(text.encode())
                connection.execute("vacuum analyze")
            said = _drained(system, dsn, sizes, held=held, seconds=5 if quick else HELD_S)
            on.results.append(Result(system, label, said))
            print(f"{label:10} {system:14}", said, flush=True)


def _drained(system: str, dsn: str, sizes: Sizes, *, held: bool, seconds: float) -> dict[str, float]:
    if not held:
        return {"workflows/s in a crowd": _drain(system, dsn, sizes, 0)}
    with psycopg.connect(dsn) as reader:
        reader.execute("set transaction isolation level repeatable read")
        reader.execute("select count(*) from pg_class")
        begun, round = time.monotonic(), 0
        while True:  # what is dead stays in every index, more with each round
            rate = _drain(system, dsn, sizes, round)
            round += 1
            if time.monotonic() - begun > seconds:
                return {"workflows/s under a held snapshot": rate}


def _drain(system: str, dsn: str, sizes: Sizes, round: int) -> float:
    asked = json.dumps(dataclasses.asdict(sizes) | {"round": round})
    rate: float = driver(system, "drain", dsn, asked)["figures"]["workflows/s"]
    return rate
