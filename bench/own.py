"""What only Troth is measured at: children, transactions, HTTP, memory, growth of the hot tables, long journals.

Its peers have some of these, of other shapes; a ratio of different things says nothing, so these stand alone.

`python -m bench.own DSN` is their worker process.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
import uvloop

from bench.conductor import HOME, Bench, Result
from bench.http import CONNECTIONS, api, start_and_wait
from bench.programs import WORKFLOWS, asks, fans_out, one_step, one_transaction
from bench.replay import SIZES as REPLAYS
from bench.replay import replayed
from troth import Troth, Worker
from troth.cli.working import calm_collector

BATCH: Final = 1000
WARM_UP: Final = 200
GUARD_S: Final = 600.0
STOPS_S: Final = 30.0


@dataclass(frozen=True)
class Amounts:
    """How much of each is done."""

    children: int = 10_000
    transactions: int = 10_000
    requests: int = 10_000
    in_flight: int = 100_000
    grown: tuple[int, int] = (10_000, 1_000_000)
    replays: tuple[int, ...] = REPLAYS


FEW: Final = Amounts(500, 500, 500, 2000, (1000, 5000), (1000,))


@dataclass(frozen=True)
class Place:
    """Where a work is done: its database, a client, the worker's process."""

    dsn: str
    troth: Troth
    worker: int


async def _children(at: Place, amounts: Amounts) -> dict[str, float]:
    begun = time.perf_counter()
    await (await at.troth.start("parent", fans_out, amounts.children)).result(GUARD_S)
    taken = time.perf_counter() - begun
    return {f"children/s, from the start to all {amounts.children:,} joined": amounts.children / taken}


async def _transactions(at: Place, amounts: Amounts) -> dict[str, float]:
    begun = time.perf_counter()
    await _started(at.troth, one_transaction.name, "t", amounts.transactions)
    await _ended(at.dsn)
    return {"workflows with one `ctx.transaction`/s": amounts.transactions / (time.perf_counter() - begun)}


async def _http(at: Place, amounts: Amounts) -> dict[str, float]:
    async with api(at.dsn) as port:
        await start_and_wait(port, CONNECTIONS * 4, "warm-")
        rate = await start_and_wait(port, amounts.requests, "h")
    return {f"HTTP start + wait/s, {CONNECTIONS} connections, one API process": rate}


async def _memory(at: Place, amounts: Amounts) -> dict[str, float]:
    idle = _memory_mb(at.worker)
    await _started(at.troth, asks.name, "m", amounts.in_flight)
    while (
        await _count(at.dsn, "select count(*) from troth.task where state = 'suspended'") < amounts.in_flight
    ):
        await asyncio.sleep(0.5)
    return {
        "worker's memory when idle, MB": idle,
        f"worker's memory at most, {amounts.in_flight:,} in flight, MB": _memory_mb(at.worker),
    }


async def _growth(at: Place, amounts: Amounts) -> dict[str, float]:
    sizes: list[float] = []
    for first, last in zip((0, *amounts.grown), amounts.grown, strict=False):
        for begun in range(first, last, 5 * BATCH):
            await _started(at.troth, one_step.name, "g", min(last, begun + 5 * BATCH), begun)
            await _ended(at.dsn)  # a steady rate: what comes is done before more comes
        sizes.append(await _count(at.dsn, "select pg_total_relation_size('troth.task')"))
    kept = await _count(
        at.dsn,
        """select sum(pg_total_relation_size(oid)) from pg_class
            where relnamespace = 'troth'::regnamespace and relkind = 'r'""",
    )
    few, many = amounts.grown
    return {
        f"`task` with its indexes after {few:,}, MB": sizes[0] / 1e6,
        f"`task` with its indexes after {many:,}, MB": sizes[1] / 1e6,
        "the one / the other": sizes[1] / sizes[0],
        f"bytes/finished workflow, all tables and indexes, after {many:,}": kept / (many + WARM_UP),
    }


PLACED: Final[dict[str, Callable[[Place, Amounts], Awaitable[dict[str, float]]]]] = {
    "children": _children,
    "transactions": _transactions,
    "http": _http,
    "memory": _memory,
    "growth": _growth,
}
OWN_WORKS: Final = (*PLACED, "replay")


def own(on: Bench, work: str, amounts: Amounts) -> None:
    """One of them."""
    if work == "replay":
        on.add(Result("troth", work, {k: v for size in amounts.replays for k, v in replayed(size).items()}))
        return
    with on.database() as dsn:
        on.about["troth"] = on.prepare("troth", dsn)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("create table public.written (x integer)")
        on.add(Result("troth", work, uvloop.run(_placed(dsn, work, amounts))))


async def _placed(dsn: str, work: str, amounts: Amounts) -> dict[str, float]:
    """With a client and a warm worker process."""
    async with _working(dsn) as worker, Troth(dsn) as troth, asyncio.timeout(GUARD_S):
        await _started(troth, one_step.name, "warm", WARM_UP)
        await _ended(dsn)
        return await PLACED[work](Place(dsn, troth, worker), amounts)


@contextlib.asynccontextmanager
async def _working(dsn: str) -> AsyncIterator[int]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.own", dsn, cwd=HOME, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOPS_S)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _started(troth: Troth, function: str, prefix: str, last: int, first: int = 0) -> None:
    for begun in range(first, last, BATCH):
        ids = range(begun, min(last, begun + BATCH))
        await troth.start_many(function, {f"{prefix}{n}": [n] for n in ids})


async def _ended(dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        while await (await connection.execute("select from troth.task limit 1")).fetchone() is not None:
            await asyncio.sleep(0.02)


async def _count(dsn: str, query: str) -> float:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        row = await (await connection.execute(query.encode())).fetchone()
    assert row is not None
    return float(row[0])


def _memory_mb(pid: int) -> float:
    """The most that the process ever held in memory."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1000


async def _work(dsn: str) -> None:
    async with Troth(dsn) as troth:
        worker = Worker(troth, WORKFLOWS)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        calm_collector()
        await worker.run()


if __name__ == "__main__":
    uvloop.run(_work(sys.argv[1]))
