"""How the tables that claims touch grow at a steady rate: `python -m bench.growth [--workflows 200000] [--naptime 5s]`.

One-step workflows through one worker process, each thousand started when the one before has ended. What is deleted leaves room
only when autovacuum comes, and how often it comes is a setting of the server (`autovacuum_naptime`, a minute by default):
run it with both to see what that setting is worth.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from typing import Final

import psycopg
import uvloop

from bench.conductor import HOME, bench
from bench.programs import one_step
from troth import Troth

FEW: Final = 10_000
BATCH: Final = 1000
TABLES: Final = ("task", "wait")


async def _run(dsn: str, first: int, last: int) -> None:
    async with Troth(dsn) as troth:
        for begun in range(first, last, BATCH):
            await troth.start_many(one_step.name, {f"g{n}": [n] for n in range(begun, begun + BATCH)})
            while _asked(dsn, "select count(*) from (select from troth.task limit 1) t"):
                await asyncio.sleep(0.02)


def _asked(dsn: str, query: str) -> float:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return float(row[0])


def _sizes(dsn: str) -> dict[str, float]:
    return {
        table: _asked(dsn, f"select pg_total_relation_size('troth.{table}')") / 1e6 for table in TABLES
    } | {"vacuums": _asked(dsn, "select autovacuum_count from pg_stat_user_tables where relname = 'task'")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workflows", type=int, default=1_000_000)
    parser.add_argument("--naptime", default=None, help="the server's autovacuum_naptime, such as 5s")
    parser.add_argument("--postgres", default=None, help="installed, embedded, or a major version")
    asked = parser.parse_args()
    with bench(asked.postgres) as on, on.database() as dsn:
        if asked.naptime:
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute(f"alter system set autovacuum_naptime = '{asked.naptime}'".encode())
                connection.execute("select pg_reload_conf()")
        on.prepare("troth", dsn)
        worker = subprocess.Popen([sys.executable, "-m", "bench.own", dsn], cwd=HOME)
        try:
            uvloop.run(_run(dsn, 0, FEW))
            few, begun = _sizes(dsn), time.monotonic()
            uvloop.run(_run(dsn, FEW, asked.workflows))
            many, took_s = _sizes(dsn), time.monotonic() - begun
        finally:
            worker.terminate()
            worker.wait()
    print(f"workflows/s {(asked.workflows - FEW) / took_s:.0f}, vacuums of task {many['vacuums']:.0f}")
    for table in TABLES:
        print(f"{table}: {few[table]:.2f} MB after {FEW:,}, {many[table]:.2f} MB after {asked.workflows:,}")


if __name__ == "__main__":
    main()
