"""The floor: a bare engine of one file of SQL and one worker loop, to show what the machine gives.

Its worker claims in batches, runs generators, and says everything that all of them brought in one call. One step after the
other, as durable as everybody's: a step begins when the one before it is committed, the last one shares the commit of the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import uvloop

from bench.system import CALLERS, PAUSE_S, Engine, mark, stepped

CLAIM = 500
IN_FLIGHT = 1000
POLL_S = 1.0

Program = Generator[tuple[str, Any], Any, Any]


async def noop(x: int) -> int:
    """Costs nothing."""
    stepped()
    return x


async def pause(x: int) -> int:
    """Waits for something."""
    stepped()
    await asyncio.sleep(PAUSE_S)
    return x


def one(id: str) -> Program:
    """One step."""
    return (yield "step", noop(1))


def ten(id: str) -> Program:
    """Ten steps."""
    total = 0
    for n in range(10):
        total += yield "step", noop(n)
    return total


def slow(id: str) -> Program:
    """A step of 50 ms."""
    return (yield "task", pause(1))


def wait(id: str) -> Program:
    """Waits for a decision."""
    value = yield "wait", f"{id}~approval"
    mark(continued=id)
    return value


def low(id: str) -> Program:
    """Says when its step was called."""

    async def note() -> None:
        mark(continued=id)

    yield "step", note()


PROGRAMS = {"one": one, "ten": ten, "slow": slow, "wait": wait, "low": low}


class Run:
    """A workflow under way: its program, where it is, and what it has to say."""

    def __init__(self, row: asyncpg.Record) -> None:
        self.id, self.epoch = row["id"], row["epoch"]
        self.program = PROGRAMS[row["kind"]](self.id)
        self.step = 0
        self.journal = dict(zip(row["steps"] or (), map(json.loads, row["results"] or ()), strict=True))
        self.checkpoints: list[tuple[str, int, str]] = []
        self.end: str | None = None
        self.event: str | None = None
        self.wanted: tuple[str, Any] | None = None


class Floor(Engine):
    """See the module."""

    name = "floor"
    settings = f"one process; claims of {CLAIM}, {IN_FLIGHT} in flight, one call for all that gathered; uvloop, asyncpg"

    @property
    def version(self) -> str:
        return "-"

    async def prepare(self) -> None:
        connection = await asyncpg.connect(self.dsn)
        await connection.execute(Path(__file__).with_suffix(".sql").read_text())
        await connection.close()

    async def open(self) -> None:
        self._pool = await asyncpg.create_pool(self.dsn, min_size=CALLERS, max_size=CALLERS)

    async def close(self) -> None:
        await self._pool.close()

    async def start(self, kind: str, id: str) -> None:
        await self._pool.execute(
            "with s as (insert into floor.task (id, kind) values ($1, $2)) select pg_notify('floor', '')",
            id,
            kind,
        )

    async def start_many(self, kind: str, ids: Sequence[str]) -> None:
        await self._pool.execute(
            "insert into floor.task (id, kind) select i, $2 from unnest($1::text[]) i", ids, kind
        )

    async def unfinished(self, kind: str) -> bool:
        looking = "select exists (select from floor.task where state <> 'd' and id >= $1 and id < $2)"
        return bool(await self._pool.fetchval(looking, f"{kind}-", f"{kind}."))

    async def suspended(self, count: int) -> bool:
        waiting = await self._pool.fetchval("select count(*) from floor.task where state = 'w'")
        return int(waiting or 0) >= count

    async def resolve(self, id: str) -> None:
        await self._pool.execute("select floor.resolve($1, 'true')", f"{id}~approval")

    def work(self) -> None:
        uvloop.run(Worker(self.dsn).run())


class Worker:
    """One loop: claim, run, say, again."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._runs: dict[str, Run] = {}
        self._due: list[Run] = []
        self._wake = asyncio.Event()
        self._stopped = False

    async def run(self) -> None:
        """Until SIGTERM."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop)
        self._connection = await asyncpg.connect(self._dsn)
        ear = await asyncpg.connect(self._dsn)
        await ear.add_listener("floor", lambda *_: self._wake.set())
        mark(ready=True)
        while not self._stopped:
            self._wake.clear()
            claimed = 0
            if len(self._runs) <= IN_FLIGHT - CLAIM:
                rows = await self._connection.fetch("select * from floor.claim($1)", CLAIM)
                claimed = len(rows)
                for row in rows:
                    run = self._runs[row["id"]] = Run(row)
                    self._go_on(run, None)
            if self._due:
                await self._say()
            elif not claimed:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), POLL_S)

    def _stop(self) -> None:
        self._stopped = True
        self._wake.set()

    def _go_on(self, run: Run, value: Any) -> None:
        """Run the program to its next step or wait; what the journal has is answered from there."""
        while True:
            try:
                kind, wanted = run.program.send(value)
            except StopIteration as stop:
                run.end = json.dumps(stop.value)
                self._due.append(run)
                return
            run.step += 1
            if kind == "wait":
                if run.epoch > 1 and run.step not in run.journal:  # it was woken: the decision is there
                    value = True
                    continue
                run.event = wanted
                self._due.append(run)
                return
            if run.step in run.journal:
                wanted.close()
                value = run.journal[run.step]
                continue
            if run.checkpoints:  # the next step waits until this one is durable
                run.wanted = kind, wanted
                self._due.append(run)
            else:
                self._call(run, kind, wanted)
            return

    def _call(self, run: Run, kind: str, wanted: Any) -> None:
        """A step that never waits is done at once; a task goes on by itself."""
        if kind == "task":
            task = asyncio.ensure_future(wanted)
            task.add_done_callback(lambda done: self._stepped(run, done.result()))
            return
        try:
            wanted.send(None)
        except StopIteration as stop:
            self._stepped(run, stop.value)

    def _stepped(self, run: Run, value: Any) -> None:
        run.checkpoints.append((run.id, run.step, json.dumps(value)))
        self._wake.set()
        self._go_on(run, value)

    async def _say(self) -> None:
        due, self._due = self._due, []
        checks = [each for run in due for each in run.checkpoints]
        ends = [run for run in due if run.end is not None]
        waits = [run for run in due if run.event is not None]
        await self._connection.execute(
            "select floor.turn($1, $2, $3, $4, $5::text[]::jsonb[], $6, $7::text[]::jsonb[], $8, $9)",
            [run.id for run in due],
            [run.epoch for run in due],
            [id for id, _, _ in checks],
            [step for _, step, _ in checks],
            [value for _, _, value in checks],
            [run.id for run in ends],
            [run.end for run in ends],
            [run.id for run in waits],
            [run.event for run in waits],
        )
        for run in due:
            run.checkpoints.clear()
            if run.end is not None or run.event is not None:
                del self._runs[run.id]
            elif run.wanted is not None:
                wanted, run.wanted = run.wanted, None
                self._call(run, *wanted)


make = Floor
