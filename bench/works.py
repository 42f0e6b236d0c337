"""The works, each the same for every system.

starts    W1: workflows started per second by 16 concurrent callers, one by one, and by one caller in batches of a thousand
drain     W2: one-step workflows per second, a backlog worked off by one worker process (or several)
steps     W3: steps per second of ten-step workflows, likewise
slow      workflows per second whose one step takes 50 ms, likewise
low       at 20 starts per second: from the start to the first step, in milliseconds
decide    W4: from a decision in another process to the workflow's code going on, one at a time, in milliseconds
continue  W4: workflows continued per second by 16 concurrent deciders

A backlog's rate is measured from when a tenth of its steps have been called until everything is done for good, so that a
process' start and the first plans count for nobody. Latencies are taken where the code runs, not where that is heard of.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from bench.system import CALLERS, Engine, Marks, System

BATCH = 1000
WARM_UP = 10
"""Decisions that do not count."""
PAUSES_S = (0.005, 0.025)
"""Between two decisions: the worker falls asleep again, and no one's polling is met in step."""
LOOK_S = 0.01
GUARD_S = 240.0
"""After which a work that does not end has failed."""
LOW_PER_S = 20.0
"""Starts under low load, as many a second."""


@dataclass(frozen=True)
class Sizes:
    """How much of each work is done, and by how many workers."""

    starts: int
    batched: int
    workflows: int
    chains: int
    slow: int
    decisions: int
    continued: int
    low: int
    workers: int = 1
    round: int = 0
    """So that a backlog can be worked off again beside what the one before left."""


@dataclass
class Figures:
    """What one work brought: figures by their names, and what the conductor must know to count more."""

    figures: dict[str, float] = field(default_factory=dict)
    workflows: int = 0


def works_of(system: System) -> list[str]:
    """What can be asked of it."""
    return [*QUEUE_WORKS, *(ENGINE_WORKS if isinstance(system, Engine) else ())]


async def measure(system: System, work: str, sizes: Sizes) -> Figures:
    """Do one work once, in a database where nothing else has happened."""
    await system.open()
    try:
        async with asyncio.timeout(GUARD_S):
            if isinstance(system, Engine) and work in ENGINE_WORKS:
                return await ENGINE_WORKS[work](system, sizes)
            return await QUEUE_WORKS[work](system, sizes)
    finally:
        await system.close()


@contextlib.asynccontextmanager
async def worker(
    system: System, kind: str, count: int = 1, mark_every: int = 1
) -> AsyncIterator[list[Marks]]:
    """Worker processes, from when they take work to their end."""
    arguments = [sys.executable, "-m", "bench.driver", system.name, "worker", system.dsn]
    environment = os.environ | {"BENCH_MARK_EVERY": str(mark_every), "BENCH_KIND": kind}
    processes = [
        await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE, env=environment)
        for _ in range(count)
    ]
    marks = [Marks(process) for process in processes]
    try:
        for each in marks:
            await each.ready.wait()
            each.check()
        yield marks
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        for process in processes:
            try:
                await asyncio.wait_for(process.wait(), 20)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _starts(system: System, sizes: Sizes) -> Figures:
    left = iter(range(sizes.starts))

    async def caller() -> None:
        for n in left:
            await system.start("one", f"single-{n}")

    single = await _timed(lambda: asyncio.gather(*(caller() for _ in range(CALLERS))))
    batched = await _timed(lambda: _backlog(system, "one", sizes.batched))
    return Figures({"starts/s, single": sizes.starts / single, "starts/s, batched": sizes.batched / batched})


async def _drain(system: System, sizes: Sizes) -> Figures:
    rate = await _worked_off(system, "one", sizes.workflows, sizes.workflows, sizes)
    return Figures({"workflows/s": rate}, sizes.workflows)


async def _steps(system: System, sizes: Sizes) -> Figures:
    rate = await _worked_off(system, "ten", sizes.chains, sizes.chains * 10, sizes)
    return Figures({"steps/s": rate}, sizes.chains)


async def _slow(system: System, sizes: Sizes) -> Figures:
    rate = await _worked_off(system, "slow", sizes.slow, sizes.slow, sizes)
    return Figures({"50 ms steps/s": rate}, sizes.slow)


async def _low(system: System, sizes: Sizes) -> Figures:
    latencies: list[float] = []
    async with worker(system, "low") as (marks, *_):
        for n in range(sizes.low):
            begun = time.monotonic()
            await system.start("low", f"low-{n}")
            (at,) = await marks.until_continued([f"low-{n}"])
            latencies.append((at - begun) * 1e3)
            await asyncio.sleep(max(0.0, 1 / LOW_PER_S - (time.monotonic() - begun)))
    return Figures(_percentiles("start to step", latencies[sizes.low // 20 :]))


async def _decide(system: Engine, sizes: Sizes) -> Figures:
    latencies: list[float] = []
    pauses = random.Random(1)
    async with worker(system, "wait") as (marks, *_):
        ids = await _waiting(system, "decide", sizes.decisions + WARM_UP)
        for id in ids:
            begun = time.monotonic()
            await system.resolve(id)
            (at,) = await marks.until_continued([id])
            latencies.append((at - begun) * 1e3)
            await asyncio.sleep(pauses.uniform(*PAUSES_S))
    return Figures(_percentiles("decide", latencies[WARM_UP:]))


async def _continue(system: Engine, sizes: Sizes) -> Figures:
    async with worker(system, "wait") as (marks, *_):
        ids = await _waiting(system, "continue", sizes.continued)
        left = iter(ids)

        async def caller() -> None:
            for id in left:
                await system.resolve(id)

        begun = time.monotonic()
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        ended = max(await marks.until_continued(ids))
    return Figures({"continued/s": len(ids) / (ended - begun)})


QUEUE_WORKS: dict[str, Callable[[System, Sizes], Awaitable[Figures]]] = {
    "starts": _starts,
    "drain": _drain,
    "slow": _slow,
    "low": _low,
}
ENGINE_WORKS: dict[str, Callable[[Engine, Sizes], Awaitable[Figures]]] = {
    "steps": _steps,
    "decide": _decide,
    "continue": _continue,
}
WORKS = ("starts", "drain", "steps", "slow", "low", "decide", "continue")
"""All of them, in the order in which they are done and shown."""


async def _worked_off(system: System, kind: str, workflows: int, steps: int, sizes: Sizes) -> float:
    await _backlog(system, kind, workflows, sizes.round)
    async with worker(system, kind, sizes.workers, max(1, steps // 100 // sizes.workers)) as marks:
        while not (reached := _reached(marks, steps // 10)):
            await asyncio.sleep(LOOK_S)
        before, begun = reached
        while await system.unfinished(kind):
            await asyncio.sleep(LOOK_S)
            for each in marks:
                each.check()
        return (steps - before) / (time.monotonic() - begun)


def _reached(marks: Sequence[Marks], wanted: int) -> tuple[int, float] | None:
    """When the workers together had called so many steps, and how many exactly, once they have."""
    called = dict.fromkeys(range(len(marks)), 0)
    for each in marks:
        each.check()
    for at, number, steps in sorted(
        (at, n, steps) for n, each in enumerate(marks) for steps, at in each.steps
    ):
        called[number] = steps
        if (together := sum(called.values())) >= wanted:
            return together, at
    return None


async def _backlog(system: System, kind: str, count: int, round: int = 0) -> None:
    for first in range(0, count, BATCH):
        last = min(count, first + BATCH)
        await system.start_many(kind, [f"{kind}-{round}-{n}" for n in range(first, last)])


async def _waiting(system: Engine, prefix: str, count: int) -> Sequence[str]:
    ids = [f"{prefix}-{n}" for n in range(count)]
    await system.start_many("wait", ids)
    while not await system.suspended(count):
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    return ids


def _percentiles(name: str, milliseconds: list[float]) -> dict[str, float]:
    return {
        f"{name} p50 ms": statistics.median(milliseconds),
        f"{name} p99 ms": statistics.quantiles(milliseconds, n=100, method="inclusive")[98],
    }


async def _timed(act: Callable[[], Awaitable[object]]) -> float:
    begun = time.perf_counter()
    await act()
    return time.perf_counter() - begun
