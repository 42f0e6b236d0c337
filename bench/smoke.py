"""`make bench-smoke`: what does not depend on the machine, counted at small sizes and held.

Statements, calls and commits for each workflow, rows written, updates that stay in their page, what is read by which index and
that nothing is read otherwise, calls for each step of a lone workflow, what an idle worker says. No times: a slow machine passes
too. Exits 1 with what does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import psycopg
import uvloop
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bench.conductor import SETTINGS, Bench, bench
from bench.programs import WORKFLOWS, asks, one_step, steps
from troth import Troth, Worker

COUNTING: Final = {
    **SETTINGS,
    "track_functions": "all",
    "shared_preload_libraries": "pg_stat_statements",
    "autovacuum": "off",
}
"""Functions and statements are counted, and nobody but us commits."""
BACKLOG: Final = 3000
LONE_STEPS: Final = 30
WAITERS: Final = 500
IDLE_S: Final = 30.0
GUARD_S: Final = 300.0
LOOKED: Final = {"commits": 3.0, "statements": 3.0}
"""What one look at the counters itself adds to them."""


@dataclass
class Held:
    """One expectation: what was counted, and between what it must lie."""

    what: str
    counted: float
    least: float
    most: float

    def __str__(self) -> str:
        holds = self.least <= self.counted <= self.most
        return f"{'ok ' if holds else 'NOT'} {self.what}: {self.counted:.4g} (between {self.least:g} and {self.most:g})"

    @property
    def holds(self) -> bool:
        return self.least <= self.counted <= self.most


def counted(dsn: str, phase: Callable[[Troth], Awaitable[None]]) -> dict[str, float]:
    """What Postgres counted while a phase ran with a worker of its own: backends tell it all at their end."""
    before = _look(dsn)
    uvloop.run(_with_worker(dsn, phase))
    looks, settled = 1, _look(dsn)
    while True:
        looks, again = looks + 1, _look(dsn)
        if all(again[key] == settled.get(key) for key in again if key not in LOOKED):
            break
        settled = again
    return {key: again[key] - before.get(key, 0.0) - looks * LOOKED.get(key, 0.0) for key in again}


def _look(dsn: str) -> dict[str, float]:
    time.sleep(0.5)
    found: dict[str, float] = {}
    with psycopg.connect(dsn, autocommit=True) as connection:
        for name, calls in connection.execute("select funcname, calls from pg_stat_user_functions"):
            found[f"calls.{name}"] = float(calls)
        for table, *numbers in connection.execute(
            "select relname, n_tup_ins, n_tup_upd, n_tup_del, n_tup_hot_upd, seq_scan from pg_stat_user_tables"
        ):
            for kind, number in zip(
                ("inserted", "updated", "deleted", "hot", "scanned"), numbers, strict=True
            ):
                found[f"{table}.{kind}"] = float(number)
        for index, entries in connection.execute(
            "select indexrelname, idx_tup_read from pg_stat_user_indexes"
        ):
            found[f"{index}.read"] = float(entries)
    with psycopg.connect(_elsewhere(dsn), autocommit=True) as connection:
        row = connection.execute(
            """select d.xact_commit, (select sum(s.calls) from pg_stat_statements s where s.dbid = d.datid)
                 from pg_stat_database d where d.datname = %s""",
            [conninfo_to_dict(dsn)["dbname"]],
        ).fetchone()
    assert row is not None
    found["commits"], found["statements"] = float(row[0]), float(row[1] or 0)
    return found


def _elsewhere(dsn: str) -> str:
    return make_conninfo(dsn, dbname="postgres")


async def _with_worker(dsn: str, phase: Callable[[Troth], Awaitable[None]]) -> None:
    async with Troth(dsn) as troth:
        worker = Worker(troth, WORKFLOWS)
        life = asyncio.create_task(worker.run())
        try:
            await phase(troth)
        finally:
            worker.stop()
            await life


def _one_step(dsn: str) -> list[Held]:
    async def phase(troth: Troth) -> None:
        for first in range(0, BACKLOG, 1000):
            await troth.start_many(one_step.name, {f"one-{n}": [n] for n in range(first, first + 1000)})
        await _ended(dsn)

    found = counted(dsn, phase)
    each = {key: value / BACKLOG for key, value in found.items()}
    calls = each["calls.claim"] + each["calls.advance"]
    return [
        Held("commits a one-step workflow", each["commits"], 0, 0.1),
        Held("statements a one-step workflow", each["statements"], 0, 0.1),
        Held("calls of claim and advance a one-step workflow", calls, 0, 0.06),
        Held("task rows written between start and end", each["task.updated"], 1, 1.01),
        Held("promise rows written after the start", each["promise.updated"], 1, 1.01),
        Held("checkpoints", each["checkpoint.inserted"], 1, 1),
        Held("waits", each["wait.inserted"], 0, 0),
        Held("task rows that stay", each["task.inserted"] - each["task.deleted"], 0, 0),
        # a plan that joins by anything but keys reads as many as there are in the batch, or in the table, for each
        Held("entries of what is ready read a one-step workflow", each["task_ready.read"], 1, 10),
        Held("task keys read a one-step workflow", each["task_pkey.read"], 1, 40),
        Held("promise keys read a one-step workflow", each["promise_pkey.read"], 1, 20),
        *_unscanned("a backlog", found),
    ]


def _unscanned(when: str, found: dict[str, float]) -> list[Held]:
    scans = sum(found[f"{table}.scanned"] for table in ("promise", "task", "checkpoint", "wait", "attempt"))
    return [Held(f"sequential scans of tables that grow, {when}", scans, 0, 0)]


def _waiting(dsn: str) -> list[Held]:
    ids = [f"asks-{n}" for n in range(WAITERS)]

    async def asked(troth: Troth) -> None:
        await troth.start_many(asks.name, {id: [0] for id in ids})
        await _suspended(troth, ids)

    async def decided(troth: Troth) -> None:
        for id in ids:
            await troth.resolve(f"{id}~answer", 1)
        await _ended(dsn)

    first, second = counted(dsn, asked), counted(dsn, decided)
    return [
        # at its claim, when it is stored and suspended; woken, claimed, told
        Held("task rows written from the start to the decision", first["task.updated"] / WAITERS, 2, 3.01),
        Held("task rows written from the decision to the end", second["task.updated"] / WAITERS, 2, 2.01),
        Held(
            "promise rows written from the start to the end",
            (first["promise.updated"] + second["promise.updated"]) / WAITERS,
            2,
            2.01,
        ),
        Held("waits read by their promise a decision", second["wait_promise.read"] / WAITERS, 1, 4),
        *_unscanned("decisions", {key: first.get(key, 0.0) + second[key] for key in second}),
    ]


def _lone(dsn: str) -> list[Held]:
    async def phase(troth: Troth) -> None:
        await troth.start("lone", steps, LONE_STEPS)
        await troth.handle("lone").result(GUARD_S)

    each = counted(dsn, phase)
    kept = each["task.updated"] - 1  # the claim takes it out of the index of what is ready
    return [
        Held("calls of advance a step of a lone workflow", each["calls.advance"] / LONE_STEPS, 1, 1),
        Held("task rows written a step of a lone workflow", each["task.updated"] / LONE_STEPS, 0.95, 1.05),
        Held("checkpoints a step", each["checkpoint.inserted"] / LONE_STEPS, 1, 1),
        Held("share of those task updates in their page (HOT)", each["task.hot"] / kept, 0.95, 1.05),
        Held(
            "share of a worker's own updates in their page (HOT)",
            each["worker.hot"] / each["worker.updated"],
            0.95,
            1,
        ),
        *_unscanned("a lone workflow", each),
    ]


def _idle(dsn: str, seconds: float) -> list[Held]:
    def slept(seconds: float) -> Callable[[Troth], Awaitable[None]]:
        return lambda _: asyncio.sleep(seconds)

    short, long = counted(dsn, slept(5)), counted(dsn, slept(5 + seconds))
    return [Held("statements/s of an idle worker", (long["commits"] - short["commits"]) / seconds, 0, 2.0)]


async def _ended(dsn: str) -> None:
    """Looked for by an index, so that who scans a table is none of us."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute("set enable_seqscan = off")
        while await (await connection.execute("select from troth.task limit 1")).fetchone() is not None:
            await asyncio.sleep(0.1)


async def _suspended(troth: Troth, ids: list[str]) -> None:
    while True:
        found = await troth.get_many(ids)
        if all(p.task is not None and p.task.state == "suspended" for p in found.values()):
            return
        await asyncio.sleep(0.1)


def run(on: Bench, idle_s: float) -> list[Held]:
    """On a database of its own."""
    with on.database() as dsn:
        on.prepare("troth", dsn)
        with psycopg.connect(_elsewhere(dsn), autocommit=True) as connection:
            connection.execute("create extension pg_stat_statements")
        return [*_one_step(dsn), *_waiting(dsn), *_lone(dsn), *_idle(dsn, idle_s)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postgres", default=None, help="installed, embedded, or a major version")
    parser.add_argument(
        "--idle", type=float, default=IDLE_S, help="how many seconds the idle worker is watched"
    )
    asked = parser.parse_args()
    with bench(asked.postgres, COUNTING) as on:
        held = run(on, asked.idle)
    print(*held, sep="\n")
    failed = sum(1 for each in held if not each.holds)
    print(f"{len(held) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
