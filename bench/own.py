"""What only Troth is measured at: children, transactions, HTTP, memory, growth of the hot tables, long journals.

Its peers have some of these, of other shapes; a ratio of different things says nothing, so these stand alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import httpx
import msgspec
import psutil
import psycopg
import uvloop

from bench.asker import Asker
from bench.conductor import HOME, Bench, Result
from bench.replay import replays
from troth import Context, Troth, Worker, workflow
from troth.cli.working import calm_collector
from troth.dev.server import free_port

CHILDREN: Final = 10_000
TRANSACTIONS: Final = 5000
REQUESTS: Final = 3000
CONNECTIONS: Final = 64
IN_FLIGHT: Final = 100_000
GROWTH: Final = (10_000, 1_000_000)
BATCH: Final = 1000


@workflow
async def child(ctx: Context, x: int) -> int:
    """Only returns."""
    return x


async def leaf(x: int) -> int:
    """A step that costs nothing."""
    return x


@workflow
async def one_step(ctx: Context, x: int) -> int:
    """One step."""
    return await ctx.run(leaf, x)


@workflow
async def fans_out(ctx: Context, children: int) -> int:
    """From its start until all its children are joined."""
    return sum(await asyncio.gather(*[ctx.call(child, n) for n in range(children)]))


async def write(connection: Any, x: int) -> int:
    """One row of a user's own."""
    await connection.execute("insert into public.written values ($1)", x)
    return x


@workflow
async def one_transaction(ctx: Context, x: int) -> int:
    """A step that commits with its row."""
    return await ctx.transaction(write, x)


@workflow
async def awaits_person(ctx: Context) -> bool:
    """Suspends at once."""
    return await ctx.promise(bool, "approval")


WORKFLOWS: Final = (child, one_step, fans_out, one_transaction, awaits_person)


def _children(on: Bench, quick: bool) -> None:
    count = 500 if quick else CHILDREN

    async def measure(dsn: str) -> dict[str, float]:
        async with _working(dsn) as (troth, _):
            begun = time.perf_counter()
            await (await troth.start("parent", fans_out, count)).result(600)
            return {"children/s": count / (time.perf_counter() - begun)}

    _measured(on, "children", measure)


def _transactions(on: Bench, quick: bool) -> None:
    count = 300 if quick else TRANSACTIONS

    async def measure(dsn: str) -> dict[str, float]:
        async with _working(dsn) as (troth, _):
            begun = time.perf_counter()
            await _started(troth, one_transaction.name, "t", count)
            await _ended(dsn)
            return {"transactions/s": count / (time.perf_counter() - begun)}

    _measured(on, "transactions", measure)


def _http(on: Bench, quick: bool) -> None:
    count = 300 if quick else REQUESTS

    async def measure(dsn: str) -> dict[str, float]:
        async with _working(dsn), _api(dsn) as port:
            askers = [await Asker.connected("127.0.0.1", port) for _ in range(CONNECTIONS)]

            async def asked(first: int, last: int) -> float:
                left = iter(range(first, last))

                async def caller(asker: Asker) -> None:
                    for n in left:
                        body = msgspec.json.encode({"id": f"h{n}", "args": {"x": n}})
                        _, answer = await asker.post("/workflows/one_step?wait=30", body)
                        assert msgspec.json.decode(answer)["value"] == n, answer

                begun = time.perf_counter()
                await asyncio.gather(*map(caller, askers))
                return time.perf_counter() - begun

            await asked(-CONNECTIONS, 0)  # every connection once before it counts
            elapsed = await asked(0, count)
            for asker in askers:
                asker.close()
            return {"HTTP start + wait/s": count / elapsed}

    _measured(on, "http", measure)


def _memory(on: Bench, quick: bool) -> None:
    count = 2000 if quick else IN_FLIGHT

    async def measure(dsn: str) -> dict[str, float]:
        async with _working(dsn) as (troth, process):
            await _started(troth, awaits_person.name, "m", count)
            while await _count(dsn, "select count(*) from troth.task where state = 'suspended'") < count:
                await asyncio.sleep(0.5)
            return {"MB, 100,000 in flight": psutil.Process(process.pid).memory_info().rss / 1e6}

    _measured(on, "memory", measure)


def _growth(on: Bench, quick: bool) -> None:
    few, many = (1000, 5000) if quick else GROWTH

    async def measure(dsn: str) -> dict[str, float]:
        sizes: list[float] = []
        async with _working(dsn) as (troth, _):
            for first, last in ((0, few), (few, many)):
                for begun in range(first, last, 5 * BATCH):
                    await _started(troth, one_step.name, "g", min(last, begun + 5 * BATCH), begun)
                    await _ended(dsn)  # a steady rate: what comes is done before more comes
                sizes.append(await _count(dsn, "select pg_total_relation_size('troth.task')"))
            kept = await _count(
                dsn,
                """select sum(pg_total_relation_size(oid)) from pg_class
                    where relnamespace = 'troth'::regnamespace and relkind = 'r'""",
            )
        return {
            "task table, MB at first": sizes[0] / 1e6,
            "task table, MB at last": sizes[1] / 1e6,
            "bytes/finished workflow": kept / many,
        }

    _measured(on, "growth", measure)


def _replay(on: Bench, quick: bool) -> None:
    figures: dict[str, float] = {}
    for events, seconds, kilobytes in replays():
        figures[f"replay of {events:,} events, s"] = seconds
        figures[f"replay of {events:,} events, KB held"] = kilobytes
    on.results.append(Result("troth", "replay", figures))


OWN_WORKS: Final[dict[str, Callable[[Bench, bool], None]]] = {
    "children": _children,
    "transactions": _transactions,
    "http": _http,
    "memory": _memory,
    "growth": _growth,
    "replay": _replay,
}


def _measured(on: Bench, label: str, measure: Callable[[str], Any]) -> None:
    with on.database() as dsn:
        on.about["troth"] = on.prepare("troth", dsn)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("create table public.written (x integer)")
        figures: dict[str, float] = uvloop.run(measure(dsn))
    on.results.append(Result("troth", label, figures))
    print(f"{label:10} {'troth':14}", {k: round(v, 3) for k, v in figures.items()}, flush=True)


@contextlib.asynccontextmanager
async def _working(dsn: str) -> AsyncIterator[tuple[Troth, asyncio.subprocess.Process]]:
    """A client and a warm worker process."""
    async with Troth(dsn) as troth:
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.own", dsn, cwd=HOME)
        try:
            await _started(troth, one_step.name, "warm", 200)
            await _ended(dsn)
            yield troth, process
        finally:
            process.terminate()
            await process.wait()


@contextlib.asynccontextmanager
async def _api(dsn: str) -> AsyncIterator[int]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "troth_api", "--port", str(port)],
        env=os.environ | {"TROTH_DSN": dsn},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient() as session:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if (await session.get(f"{url}/readyz")).status_code == 200:
                        break
                await asyncio.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


async def _started(troth: Troth, function: str, prefix: str, last: int, first: int = 0) -> None:
    for begun in range(first, last, BATCH):
        ids = range(begun, min(last, begun + BATCH))
        await troth.start_many(
            function, {f"{prefix}{n}": ([] if function == awaits_person.name else [n]) for n in ids}
        )


async def _ended(dsn: str) -> None:
    while await _count(dsn, "select count(*) from (select from troth.task limit 1) t"):
        await asyncio.sleep(0.02)


async def _count(dsn: str, query: str) -> float:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        row = await (await connection.execute(query.encode())).fetchone()
    assert row is not None
    return float(row[0])


async def _work(dsn: str) -> None:
    import signal

    async with Troth(dsn) as troth:
        worker = Worker(troth, WORKFLOWS)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        calm_collector()
        await worker.run()


if __name__ == "__main__":
    uvloop.run(_work(sys.argv[1]))
