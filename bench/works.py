"""The works, each the same for every system.

starts    W1: workflows started per second by 16 concurrent callers, one by one, and by one caller in batches
drain     W2: one-step workflows per second, a backlog worked off by one worker process (or several)
steps     W3: steps per second of ten-step workflows
decide    W4: from a decision in another process to the workflow's code going on, one at a time, in milliseconds
continue  W4: workflows continued per second by 16 concurrent deciders
slow      workflows per second whose one step takes 50 ms
low       at 20 starts per second: from the start to the first step, in milliseconds

Rates of backlogs are measured from the moment when a tenth of the steps have been called until everything is done for good, so
that a process' start and the first plans count for nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from bench.system import CALLERS, Marks, System

BATCH = 1000
WARM_UP = 100
LOOK_S = 0.01
GUARD_S = 900.0
LOW_PER_S = 20.0


@dataclass(frozen=True)
class Sizes:
    """How much of each work is done, and by how many workers."""

    starts: int = 3000
    batched: int = 20_000
    workflows: int = 20_000
    chains: int = 3000
    decisions: int = 300
    slow: int = 2000
    low: int = 200
    workers: int = 1
    round: int = 0
    """So that a backlog can be worked off again beside what the one before left."""


@dataclass
class Figures:
    """What one work brought: figures by their names, and what the conductor must know to count more."""

    figures: dict[str, float] = field(default_factory=dict)
    workflows: int = 0
    steps: int = 0


async def measure(system: System, work: str, sizes: Sizes) -> Figures:
    """Do one work once, in a database where nothing else has happened."""
    await system.open()
    try:
        return await asyncio.wait_for(WORKS[work](system, sizes), GUARD_S)
    finally:
        await system.close()


@contextlib.asynccontextmanager
async def worker(system: System, count: int = 1) -> AsyncIterator[list[Marks]]:
    """Worker processes, from when they take work to their end."""
    arguments = [sys.executable, "-m", "bench.driver", system.name, "worker", system.dsn]
    processes = [
        await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE) for _ in range(count)
    ]
    marks = [Marks(process) for process in processes]
    try:
        for each in marks:
            await each.ready.wait()
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
    return Figures({"workflows/s": rate}, sizes.workflows, sizes.workflows)


async def _steps(system: System, sizes: Sizes) -> Figures:
    rate = await _worked_off(system, "ten", sizes.chains, sizes.chains * 10, sizes)
    return Figures({"steps/s": rate}, sizes.chains, sizes.chains * 10)


async def _slow(system: System, sizes: Sizes) -> Figures:
    rate = await _worked_off(system, "slow", sizes.slow, sizes.slow, sizes)
    return Figures({"50 ms steps/s": rate}, sizes.slow, sizes.slow)


async def _decide(system: System, sizes: Sizes) -> Figures:
    latencies: list[float] = []
    async with worker(system) as (marks, *_):
        ids = await _waiting(system, "decide", sizes.decisions + 10)
        for id in ids:
            begun = time.monotonic()
            await system.resolve(id)
            (at,) = await marks.until_continued([id])
            latencies.append((at - begun) * 1e3)
            await asyncio.sleep(0.005)  # a person is not as quick as a worker that goes back to sleep
    return Figures(_percentiles("decide", latencies[10:]))


async def _continue(system: System, sizes: Sizes) -> Figures:
    async with worker(system) as (marks, *_):
        ids = await _waiting(system, "continue", sizes.decisions * 4)
        left = iter(ids)

        async def caller() -> None:
            for id in left:
                await system.resolve(id)

        begun = time.monotonic()
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        ended = max(await marks.until_continued(ids))
    return Figures({"continued/s": len(ids) / (ended - begun)})


async def _low(system: System, sizes: Sizes) -> Figures:
    latencies: list[float] = []
    async with worker(system) as (marks, *_):
        for n in range(sizes.low):
            begun = time.monotonic()
            await system.start("low", f"low-{n}")
            (at,) = await marks.until_continued([f"low-{n}"])
            latencies.append((at - begun) * 1e3)
            await asyncio.sleep(max(0.0, 1 / LOW_PER_S - (time.monotonic() - begun)))
    return Figures(_percentiles("start to step", latencies[sizes.low // 20 :]))


WORKS: dict[str, Callable[[System, Sizes], Awaitable[Figures]]] = {
    "starts": _starts,
    "drain": _drain,
    "steps": _steps,
    "slow": _slow,
    "decide": _decide,
    "continue": _continue,
    "low": _low,
}


async def _worked_off(system: System, kind: str, workflows: int, steps: int, sizes: Sizes) -> float:
    workers = sizes.workers
    await _backlog(system, kind, workflows, sizes.round)
    async with worker(system, workers) as marks:
        begun = max([await each.until_steps(max(steps // 10 // workers, 1)) for each in marks])
        before = sum(
            next(n for n, at in each.steps if at >= begun or n == each.steps[-1][0]) for each in marks
        )
        while await system.unfinished(kind):
            await asyncio.sleep(LOOK_S)
        return (steps - before) / (time.monotonic() - begun)


async def _backlog(system: System, kind: str, count: int, round: int = 0) -> None:
    for first in range(0, count, BATCH):
        last = min(count, first + BATCH)
        await system.start_many(kind, [f"{kind}-{round}-{n}" for n in range(first, last)])


async def _waiting(system: System, prefix: str, count: int) -> Sequence[str]:
    ids = [f"{prefix}-{n}" for n in range(count)]
    await system.start_many("wait", ids)
    while not await system.suspended(count):
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    return ids


def _percentiles(name: str, milliseconds: list[float]) -> dict[str, float]:
    return {
        f"{name} p50 ms": statistics.median(milliseconds),
        f"{name} p99 ms": statistics.quantiles(milliseconds, n=100)[98],
    }


async def _timed(act: Callable[[], Awaitable[object]]) -> float:
    begun = time.perf_counter()
    await act()
    return time.perf_counter() - begun
