"""`ctx.patched` in the awkward places, and `ctx.scope`: what was begun the old way goes on the old way, always."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.engine.running import Stage, WorkerProcess, until
from troth import Context, Worker, workflow

Spawn = Callable[..., WorkerProcess]
Effects = Callable[[], list[str]]
CALLS: list[str] = []
GATES: dict[str, asyncio.Event] = {}


@pytest.fixture(autouse=True)
def fresh() -> None:
    CALLS.clear()
    GATES.clear()


async def look(what: str) -> str:
    CALLS.append(what)
    return what


async def at_gate(name: str) -> str:
    CALLS.append(name)
    await GATES.setdefault(name, asyncio.Event()).wait()
    return name


def deployed(code: Any) -> Any:
    """The workflow `flow`, as some deploy has it."""
    return workflow(name="flow")(code)


async def deploys(stage: Stage, worker: Worker | None, code: Any) -> Worker:
    """Replace a worker by one with other code."""
    if worker is not None:
        await stage.stop(worker)
    return stage.work(deployed(code))


async def operations(stage: Stage, id: str) -> list[str]:
    return [each.operation for each in await stage.troth.journal(id)]


# before the first event


async def asks_once(ctx: Context) -> list[str]:
    return ["old", await ctx.promise(str, "p")]


async def looks_first(ctx: Context) -> list[str]:
    looked = await ctx.run(look, "new") if ctx.patched("look") else "old"
    return [looked, await ctx.promise(str, "p")]


async def test_before_the_first_event_of_a_suspended_workflow(stage: Stage) -> None:
    worker = await deploys(stage, None, asks_once)
    await stage.troth.start("begun", "flow")
    await stage.reaches("begun", "suspended")
    await stage.stop(worker)
    await stage.troth.start("not-begun", "flow")
    worker = await deploys(stage, None, looks_first)
    for id in ("begun", "not-begun"):
        await stage.exists(f"{id}~p")
        await stage.troth.resolve(f"{id}~p", "x")
    assert await stage.troth.handle("begun").result(60) == ["old", "x"]
    assert await stage.troth.handle("not-begun").result(60) == ["new", "x"]
    assert await operations(stage, "begun") == ["p"]
    assert await operations(stage, "not-begun") == ["look:patch", "look", "p"]


# S27: in one branch of a gather


async def two_branches(ctx: Context) -> list[list[str]]:
    async def branch(name: str) -> list[str]:
        first = await ctx.promise(str, f"{name}-first")
        return [first, await ctx.promise(str, f"{name}-second")]

    return list(await asyncio.gather(branch("left"), branch("right")))


async def patched_left(ctx: Context) -> list[list[str]]:
    async def branch(name: str, patch: str | None = None) -> list[str]:
        first = await ctx.promise(str, f"{name}-first")
        if patch and ctx.patched(patch):
            first = await ctx.run(look, f"new-{first}")
        return [first, await ctx.promise(str, f"{name}-second")]

    return list(await asyncio.gather(branch("left", "look"), branch("right")))


async def test_s27_old_runs_go_the_old_way_in_their_branch(stage: Stage) -> None:
    worker = await deploys(stage, None, two_branches)

    async def decide(id: str, *names: str) -> None:
        for name in names:
            promise = f"{id}~{1 if name.startswith('left') else 2}~{name}"
            await stage.exists(promise)
            await stage.reaches(id, "suspended")
            await stage.troth.resolve(promise, name)

    for id in ("past-it", "right-only", "nowhere"):
        await stage.troth.start(id, "flow")
        await stage.reaches(id, "suspended")
    await decide("past-it", "right-first", "left-first")
    await decide("right-only", "right-first")
    for id, branch in (("past-it", "1~left"), ("right-only", "2~right")):
        await stage.exists(f"{id}~{branch}-second")
        await stage.reaches(id, "suspended")
    worker = await deploys(stage, worker, patched_left)
    await stage.troth.start("fresh", "flow")
    await decide("past-it", "left-second", "right-second")
    await decide("right-only", "right-second", "left-first", "left-second")
    await decide("nowhere", "left-first", "right-first", "right-second", "left-second")
    await decide("fresh", "right-first", "left-first", "left-second", "right-second")
    right = ["right-first", "right-second"]
    old, new = ["left-first", "left-second"], ["new-left-first", "left-second"]
    assert await stage.troth.handle("past-it").result(60) == [old, right]
    # whoever had not come to the place yet goes the new way there, however far the other branch is
    for id in ("right-only", "nowhere", "fresh"):
        assert await stage.troth.handle(id).result(60) == [new, right]
    assert "1~look:patch" not in await operations(stage, "past-it")


# in loops


async def asks_thrice(ctx: Context) -> list[str]:
    return [await ctx.promise(str, f"p{n}") for n in range(3)]


async def asks_thrice_patched(ctx: Context) -> list[str]:
    answers: list[str] = []
    for n in range(3):
        looked = await ctx.run(look, "new") if ctx.patched("look") else "old"
        answers.append(looked + await ctx.promise(str, f"p{n}"))
    return answers


async def asks_thrice_scoped(ctx: Context) -> list[str]:
    answers: list[str] = []
    for n in range(3):
        looked = await ctx.run(look, "new") if ctx.patched(f"look-{n}") else "old"
        answers.append(looked + await ctx.promise(str, f"p{n}"))
    return answers


@pytest.mark.parametrize(
    ("code", "begun", "patches"),
    [(asks_thrice_patched, ["old"] * 3, 1), (asks_thrice_scoped, ["old", "old", "new"], 3)],
    ids=["one name", "a name for each turn"],
)
async def test_in_a_loop(stage: Stage, code: Any, begun: list[str], patches: int) -> None:
    worker = await deploys(stage, None, asks_thrice)
    await stage.troth.start("begun", "flow")
    await stage.exists("begun~p0")
    await stage.troth.resolve("begun~p0", "0")
    await stage.exists("begun~p1")
    await stage.reaches("begun", "suspended")
    worker = await deploys(stage, worker, code)
    await stage.troth.start("fresh", "flow")
    for n in range(3):
        for id in ("begun", "fresh"):
            await stage.exists(f"{id}~p{n}")
            await stage.troth.resolve(f"{id}~p{n}", str(n))
    assert await stage.troth.handle("begun").result(60) == [f"{way}{n}" for n, way in enumerate(begun)]
    assert await stage.troth.handle("fresh").result(60) == ["new0", "new1", "new2"]
    assert len([each for each in await operations(stage, "fresh") if each.endswith(":patch")]) == patches


# after what was told ahead, with the worker killed


POINTS = {
    "before it is said": 'before:advance:1:"patch"',
    "once it is said": 'after:advance:1:"patch"',
    "before the step behind it is said": 'before:advance:1:"operation":"effect:2"',
    "once the step behind it is said": 'split:advance:1:"operation":"effect:2"',
    "at the end": 'before:advance:1:"then":"finish"',
}


@pytest.mark.parametrize("point", POINTS)
async def test_a_worker_dies_around_a_patch(stage: Stage, spawn: Spawn, effects: Effects, point: str) -> None:
    modules = ["tests.engine.programs.branches_patched"]
    first = spawn(modules=modules, kill_at=POINTS[point], lease_s=1, poll_s=0.1)
    await stage.troth.start("w", "patched_behind_a_step")
    assert await first.death() == -signal.SIGKILL, first.said()
    spawn(modules=modules, lease_s=5, poll_s=0.1)
    assert await stage.troth.handle("w").result(60) == ["one", "new"]
    assert await operations(stage, "w") == ["effect", "fix:patch", "effect:2"]
    done = effects()
    assert (set(done), done.count("old")) == ({"one", "new"}, 0)


# removed later


async def always_looks(ctx: Context) -> list[str]:
    return [await ctx.run(look, "new"), await ctx.promise(str, "p")]


async def test_removed_later(stage: Stage) -> None:
    worker = await deploys(stage, None, looks_first)
    await stage.troth.start("w", "flow")
    await stage.reaches("w", "suspended")
    worker = await deploys(stage, worker, always_looks)
    await stage.troth.resolve("w~p", "x")
    assert await stage.troth.handle("w").result(60) == ["new", "x"]
    assert CALLS == ["new"]


async def test_removed_too_early_is_found(stage: Stage) -> None:
    """A run of before the patch is left: it is parked, and goes on with the patch back in its place."""
    worker = await deploys(stage, None, asks_once)
    await stage.troth.start("w", "flow")
    await stage.reaches("w", "suspended")
    worker = await deploys(stage, worker, always_looks)
    await stage.troth.resolve("w~p", "x")
    assert (await stage.reason("w"))["code"] == "nondeterminism"
    assert CALLS == []
    await deploys(stage, worker, looks_first)
    await stage.troth.resume("w")
    assert await stage.troth.handle("w").result(60) == ["old", "x"]


async def test_code_of_before_meets_a_run_of_after(stage: Stage) -> None:
    """A rolled back deploy: runs that went the new way are parked, and wait for it to come again."""
    worker = await deploys(stage, None, looks_first)
    await stage.troth.start("w", "flow")
    await stage.reaches("w", "suspended")
    worker = await deploys(stage, worker, asks_once)
    await stage.troth.resolve("w~p", "x")
    assert (await stage.reason("w"))["code"] == "nondeterminism"
    await deploys(stage, worker, looks_first)
    await stage.troth.resume("w")
    assert await stage.troth.handle("w").result(60) == ["new", "x"]
    assert CALLS == ["new"]


# deployed while a step is under way


async def asks_and_works(ctx: Context) -> list[str]:
    asked = ctx.promise(str, "p")
    return ["old", await ctx.run(at_gate, "g"), await asked]


async def looks_asks_and_works(ctx: Context) -> list[str]:
    looked = await ctx.run(look, "new") if ctx.patched("look") else "old"
    asked = ctx.promise(str, "p")
    return [looked, await ctx.run(at_gate, "g"), await asked]


async def test_deployed_while_a_step_is_under_way(stage: Stage) -> None:
    """What the old code asked for beside the step is recorded, so the run had come past the place."""
    worker = stage.work(deployed(asks_and_works), grace=timedelta(0))
    await stage.troth.start("w", "flow")
    await until(lambda: CALLS == ["g"])
    await stage.exists("w~p")
    await deploys(stage, worker, looks_asks_and_works)
    await until(lambda: len(CALLS) == 2)
    await stage.troth.resolve("w~p", "x")
    GATES["g"].set()
    await stage.reaches("w", "resolved", "halted")
    assert (await stage.troth.get("w")).state == "resolved", await stage.reason("w")
    assert await stage.troth.handle("w").result(60) == ["old", "g", "x"]


# scopes


ORDERS: list[str] = []


async def gathered_by_scope(ctx: Context) -> list[str]:
    futures = [ctx.scope(name).run(look, name) for name in ORDERS]
    found = [await future for future in futures]
    await ctx.promise(str, "p")
    return sorted(found)


async def gathered_by_number(ctx: Context) -> list[str]:
    futures = [ctx.run(look, name) for name in ORDERS]
    found = [await future for future in futures]
    await ctx.promise(str, "p")
    return sorted(found)


async def one_by_one(ctx: Context) -> list[str]:
    found = [await ctx.scope(name).run(look, name) for name in ORDERS]
    await ctx.promise(str, "p")
    return found


async def in_two_orders(stage: Stage, code: Any) -> str:
    """How a workflow stands whose loop goes through the same data in another order at its replay."""
    ORDERS[:] = ["a", "b", "c", "d"]
    worker = await deploys(stage, None, code)
    await stage.troth.start("w", "flow")
    await stage.reaches("w", "suspended")
    assert sorted(CALLS) == ORDERS
    ORDERS[:] = ["c", "a", "d", "b"]
    await deploys(stage, worker, code)
    await stage.troth.resolve("w~p", "x")
    await stage.reaches("w", "resolved", "halted")
    assert sorted(CALLS) == ["a", "b", "c", "d"]
    return await stage.state("w")


async def test_scopes_in_a_loop_over_unordered_data(stage: Stage) -> None:
    assert await in_two_orders(stage, gathered_by_scope) == "resolved"
    assert await stage.troth.handle("w").result() == ["a", "b", "c", "d"]


@pytest.mark.parametrize("code", [gathered_by_number, one_by_one])
async def test_a_loop_over_unordered_data_without_scopes_or_one_by_one_is_found(
    stage: Stage, code: Any
) -> None:
    """By number each would be handed another's; one by one, each is asked for after another event than it was."""
    assert await in_two_orders(stage, code) == "halted"
    assert (await stage.reason("w"))["code"] == "nondeterminism"
    ORDERS[:] = ["a", "b", "c", "d"]
    await stage.troth.resume("w")
    assert await stage.troth.handle("w").result(60) == ORDERS
