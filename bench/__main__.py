"""`make bench`: sets up a Postgres of its own with default durability, measures, prints medians and spread.

Figures of one machine in one hour: read differences below a third as undecided.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import tempfile
from pathlib import Path

import psycopg
import uvloop

from bench.replay import replays
from bench.works import Figures, measure
from troth.dev.postgres import Postgres
from troth.schema import migrate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workflows", type=int, default=10_000, help="one-step workflows per run")
    parser.add_argument("--decisions", type=int, default=300)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--postgres", default=None, help="installed, embedded, or a major version")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        Postgres.start(Path(folder) / "pg", prefer=asked.postgres) as server,
    ):
        try:
            runs = [_run(server, number, asked.workflows, asked.decisions) for number in range(asked.runs)]
            print(_as_json(runs, server) if asked.json else _as_table(runs, server))
        finally:
            server.reset()


def _run(server: Postgres, number: int, workflows: int, decisions: int) -> Figures:
    database = f"bench_{number}"
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(f"create database {database}")
    dsn = server.dsn_of(database)
    migrate(dsn)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create table public.written (x integer)")
    return uvloop.run(measure(dsn, workflows, decisions))


def _as_table(runs: list[Figures], server: Postgres) -> str:
    lines = [
        f"Postgres {server.version}, {os.cpu_count()} CPUs, default durability, one worker process, {len(runs)} runs",
        f"{'':24}{'median':>12}{'min':>12}{'max':>12}",
    ]
    for field in dataclasses.fields(Figures):
        values = [getattr(run, field.name) for run in runs]
        lines.append(
            f"{field.name:24}{statistics.median(values):12.1f}{min(values):12.1f}{max(values):12.1f}"
        )
    for events, seconds, kilobytes in replays():
        lines.append(f"replay of {events:,} events: {seconds:.3f} s, {kilobytes:,.0f} KB held")
    return "\n".join(lines)


def _as_json(runs: list[Figures], server: Postgres) -> str:
    return json.dumps(
        {
            "postgres": server.version,
            "cpus": os.cpu_count(),
            "runs": [dataclasses.asdict(run) for run in runs],
        }
    )


if __name__ == "__main__":
    main()
