"""What a worker leaves lying: no workflow that has ended waits for the garbage collector."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from datetime import timedelta

import troth
from tests.engine.running import Stage, until
from troth import Context, Retry, Worker, step, workflow
from troth.worker.runs import Runs

WORKFLOWS = 20
ATTEMPTS = 5


async def doubles(x: int) -> int:
    return 2 * x


def doubles_in_a_thread(x: int) -> int:
    return 2 * x


@step(retry=Retry(attempts=2, first=timedelta(0)), timeout=timedelta(seconds=60))
async def beats_and_fails_once(x: int) -> int:
    info = troth.step_info()
    if info.attempt == 1:
        info.heartbeat({"x": x})
        raise ValueError("the first time")
    return x


@workflow
async def has_steps(ctx: Context, x: int) -> int:
    for _ in range(3):
        x = await ctx.run(doubles, x)
    x += await ctx.run(doubles_in_a_thread, x)
    return x + sum(await asyncio.gather(ctx.run(beats_and_fails_once, 1), ctx.run(doubles, 1)))


@workflow
async def waits(ctx: Context) -> int:
    return await ctx.promise(int, "p")


async def test_what_has_ended_leaves_no_circle(stage: Stage) -> None:
    """A circle through a step's task once made the collector's work two fifths of a worker's."""
    worker = stage.work(has_steps, waits)
    await (await stage.troth.start("warm", has_steps, 1)).result(60)
    left: Counter[str] = Counter()
    for attempt in range(ATTEMPTS):
        gc.collect()
        gc.disable()
        try:
            await _works(stage, worker, f"{attempt}")
            left = _circles()
        finally:
            gc.enable()
        # ours is in use: a whole worker is one of an earlier test, let go of in this moment
        if _name(Runs) not in left:
            break
    assert left == Counter()


async def _works(stage: Stage, worker: Worker, name: str) -> None:
    handles = [await stage.troth.start(f"w-{name}-{n}", has_steps, n) for n in range(WORKFLOWS)]
    waiting = [await stage.troth.start(f"p-{name}-{n}", waits) for n in range(WORKFLOWS)]
    for n, handle in enumerate(handles):
        assert await handle.result(60) == 24 * n + 3
    for n, each in enumerate(waiting):
        await stage.reaches(each.id, "suspended")
        await stage.troth.resolve(f"{each.id}~p", n)
        assert await each.result(60) == n
    await until(lambda: not worker._runs._runs)


def _circles() -> Counter[str]:
    """What of ours, or of asyncio's tasks, only the collector would free."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        found = [type(each) for each in gc.garbage]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    return Counter(
        _name(each)
        for each in found
        if each.__module__.startswith("troth.worker") or each.__name__ == "StepInfo"
    )


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
