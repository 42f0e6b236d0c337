"""Code that is kept in memory while its task is suspended: it saves replays, is bounded, and changes nothing else."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from operator import contains
from typing import Any

import psycopg
import pytest

from tests.engine.running import Stage, until
from troth import Context, Unreachable, Worker, workflow
from troth.calls import Call
from troth.gateway.pool import Pool
from troth.testing.clock import Clock

Database = psycopg.Connection[Any]
RUNS: list[str] = []
CALLS: list[str] = []
HELD: weakref.WeakSet[Ballast] = weakref.WeakSet()


class Ballast:
    """What code has in a variable, so that one can see whether the code is in memory."""

    def __init__(self, id: str) -> None:
        self.id = id
        HELD.add(self)


def held() -> set[str]:
    return {each.id for each in HELD}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    RUNS.clear()
    CALLS.clear()
    HELD.clear()
    yield
    gc.collect()
    assert held() == set(), "no worker is left, and code is still in memory"


async def call(what: str) -> str:
    CALLS.append(what)
    return what


@workflow
async def asks(ctx: Context, first: str, times: int = 3) -> list[str]:
    """Asks for `p0`, `p1`, ... with a step behind each answer."""
    RUNS.append(ctx.id)
    ballast = Ballast(ctx.id)
    answers = [first]
    for n in range(times):
        answers.append(await ctx.promise(str, f"p{n}"))
        await ctx.run(call, f"{ballast.id} {n}")
    return answers


async def waiting_for(stage: Stage, id: str, n: int) -> None:
    await stage.exists(f"{id}~p{n}")
    await stage.reaches(id, "suspended")
    await stage.lets_go(id)


async def answered(stage: Stage, id: str, n: int, value: str | None = None) -> None:
    """The workflow waits for its n-th promise, and gets it."""
    await waiting_for(stage, id, n)
    await stage.troth.resolve(f"{id}~p{n}", value or str(n))


def idles(worker: Worker, idle: bool = True) -> None:
    """Have a worker claim nothing, or again."""
    if idle:
        worker._room = lambda: 0  # type: ignore[method-assign]
    else:
        del worker._room


@pytest.mark.parametrize(("keep", "runs"), [(1000, 1), (1, 1), (0, 4)])
async def test_a_resume_on_the_same_worker_costs_no_replay(stage: Stage, keep: int, runs: int) -> None:
    stage.work(asks, keep=keep)
    await stage.troth.start("w", asks, "a")
    for n in range(3):
        await answered(stage, "w", n)
        await until(partial(contains, CALLS, f"w {n}"))
    assert await stage.troth.handle("w").result(60) == ["a", "0", "1", "2"]
    assert (set(RUNS), len(RUNS)) == ({"w"}, runs)
    assert CALLS == ["w 0", "w 1", "w 2"]


async def test_one_place_evicts_and_the_rest_is_replayed(stage: Stage) -> None:
    worker = stage.work(asks, keep=1)
    for id in ("a", "b"):
        await stage.troth.start(id, asks, id, times=2)
        await waiting_for(stage, id, 0)
        await until(partial(contains, worker._runs.kept, id))
    assert held() == {"b"}
    # b is here; a was thought to be here when it was claimed, and is fetched and replayed
    await answered(stage, "b", 0)
    await waiting_for(stage, "b", 1)
    assert RUNS == ["a", "b"]
    await until(lambda: "b" in worker._runs.kept)
    await answered(stage, "a", 0)
    await waiting_for(stage, "a", 1)
    assert RUNS == ["a", "b", "a"]
    await until(lambda: "a" in worker._runs.kept)
    assert held() == {"a"}
    for id in ("a", "b"):
        await stage.troth.resolve(f"{id}~p1", "1")
        assert await stage.troth.handle(id).result(60) == [id, "0", "1"]
    assert sorted(CALLS) == ["a 0", "a 1", "b 0", "b 1"]


async def test_a_long_journal_counts_for_several(stage: Stage) -> None:
    @workflow
    async def long(ctx: Context, steps: int) -> str:
        RUNS.append(ctx.id)
        await asyncio.gather(*[ctx.run(call, "x") for _ in range(steps)])
        return await ctx.promise(str, "p0")

    stage.work(long, keep=3)
    for id, steps in (("short", 10), ("long", 350)):
        await stage.troth.start(id, long, steps)
        await answered(stage, id, 0)
        assert await stage.troth.handle(id).result(60) == "0"
    assert RUNS == ["short", "long", "long"]
    assert len(CALLS) == 360


# stale code


async def test_another_worker_takes_it_and_gives_it_back(stage: Stage) -> None:
    """The code that was kept missed what happened elsewhere; it is told, and goes on."""
    one = stage.work(asks, keep=100)
    await stage.troth.start("w", asks, "a", times=5)
    await waiting_for(stage, "w", 0)
    await until(lambda: "w" in one._runs.kept)
    idles(one)
    two = stage.work(asks, keep=100)
    await answered(stage, "w", 0)
    await answered(stage, "w", 1)
    await waiting_for(stage, "w", 2)
    assert RUNS == ["w", "w"]
    await until(lambda: "w" in two._runs.kept)
    idles(two)
    idles(one, False)
    await answered(stage, "w", 2)
    await waiting_for(stage, "w", 3)
    await until(lambda: "w" in one._runs.kept)
    idles(one)
    idles(two, False)
    await answered(stage, "w", 3)
    await answered(stage, "w", 4)
    assert await stage.troth.handle("w").result(60) == ["a", "0", "1", "2", "3", "4"]
    assert RUNS == ["w", "w"], "stale code was thrown away"
    assert CALLS == ["w 0", "w 1", "w 2", "w 3", "w 4"]
    idles(one, False)


async def test_an_id_that_was_purged_and_started_again_is_another_workflow(
    stage: Stage, db: Database
) -> None:
    one = stage.work(asks, keep=100)
    await stage.troth.start("w", asks, "first", times=1)
    await waiting_for(stage, "w", 0)
    await until(lambda: "w" in one._runs.kept)
    idles(one)
    two = stage.work(asks, keep=100)
    await answered(stage, "w", 0)
    assert await stage.troth.handle("w").result(60) == ["first", "0"]
    await stage.stop(two)

    def purged() -> bool:
        return db.execute("select purge('1 millisecond')").fetchone() == (2,)

    await until(purged)
    idles(one, False)
    await stage.troth.start("w", asks, "second", times=1)
    async with asyncio.timeout(60):
        await stage.exists("w~p0")
    await stage.troth.resolve("w~p0", "other")
    assert await stage.troth.handle("w").result(60) == ["second", "other"]


async def test_stale_code_does_not_patch_what_another_worker_had_come_past(stage: Stage) -> None:
    async def old(ctx: Context) -> list[str]:
        return ["old", await ctx.promise(str, "p0"), await ctx.promise(str, "p1")]

    async def new(ctx: Context) -> list[str]:
        first = await ctx.promise(str, "p0")
        way = await ctx.run(call, "new") if ctx.patched("fix") else "old"
        return [way, first, await ctx.promise(str, "p1")]

    one = stage.work(workflow(name="flow")(new), keep=100)
    await stage.troth.start("w", "flow")
    await waiting_for(stage, "w", 0)
    await until(lambda: "w" in one._runs.kept)
    idles(one)
    two = stage.work(workflow(name="flow")(old))
    await answered(stage, "w", 0)
    await waiting_for(stage, "w", 1)
    await stage.stop(two)
    await stage.troth.halt("w", reason="to wake it without any event")
    await stage.troth.resume("w")
    idles(one, False)
    await answered(stage, "w", 1)
    await stage.reaches("w", "resolved", "halted")
    assert await stage.state("w") == "resolved"
    assert await stage.troth.handle("w").result() == ["old", "0", "1"]


# what goes wrong on the way


class Trouble:
    """Breaks calls of `Pool.run` for one function, once each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.before: list[str] = []
        self.after: list[tuple[str, str]] = []
        self.seen: list[str] = []
        self.cut: set[str] = set()
        run = Pool.run

        async def troubled(pool: Pool, call: Call[Any], **options: Any) -> Any:
            self.seen.append(call.function)
            if call.function in self.before:
                self.before.remove(call.function)
                raise Unreachable("cut off")
            answer = await run(pool, call, **options)
            for each in self.after:
                if each[0] == call.function and each[1] in " ".join(map(str, call.values)):
                    self.after.remove(each)
                    raise Unreachable("the answer is lost")
            if call.function == "claim" and answer:
                for claimed in answer:
                    if claimed.task in self.cut:
                        claimed.journal.clear()  # as if it had been too long for the claim
            return answer

        monkeypatch.setattr(Pool, "run", troubled)


async def test_a_journal_that_cannot_be_fetched_lets_the_kept_code_go(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    trouble = Trouble(monkeypatch)
    stage.work(asks, keep=100, lease=timedelta(seconds=1))
    await stage.troth.start("w", asks, "a", times=2)
    await waiting_for(stage, "w", 0)
    trouble.cut.add("w")
    trouble.before.append("journal")
    await stage.troth.resolve("w~p0", "0")
    await waiting_for(stage, "w", 1)
    assert trouble.before == []
    assert RUNS == ["w", "w"]
    await answered(stage, "w", 1)
    assert await stage.troth.handle("w").result(60) == ["a", "0", "1"]
    assert CALLS == ["w 0", "w 1"]


async def test_a_suspension_whose_answer_is_lost_keeps_nothing_and_loses_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    trouble = Trouble(monkeypatch)
    trouble.after.append(("advance", '"then":"suspend"'))
    worker = stage.work(asks, keep=100)
    await stage.troth.start("w", asks, "a", times=2)
    await waiting_for(stage, "w", 0)
    await until(lambda: trouble.after == [] and len(worker._runs) == 0)
    await answered(stage, "w", 0)
    await answered(stage, "w", 1)
    assert await stage.troth.handle("w").result(60) == ["a", "0", "1"]
    assert CALLS == ["w 0", "w 1"]


async def test_a_partial_claim_of_evicted_code_fetches_its_journal(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    trouble = Trouble(monkeypatch)
    worker = stage.work(asks, keep=100)
    await stage.troth.start("w", asks, "a", times=2)
    await answered(stage, "w", 0)
    await waiting_for(stage, "w", 1)
    await until(lambda: "w" in worker._runs.kept)
    asyncio.get_running_loop().call_soon(worker._runs.kept.clear)
    await until(lambda: "w" not in worker._runs.kept)
    assert held() == set()
    assert "journal" not in trouble.seen
    await answered(stage, "w", 1)
    assert await stage.troth.handle("w").result(60) == ["a", "0", "1"]
    assert trouble.seen.count("journal") == 1
    assert RUNS == ["w", "w"]
    assert CALLS == ["w 0", "w 1"]


# memory


async def test_stopping_lets_go_of_it(stage: Stage) -> None:
    worker = stage.work(asks, keep=100)
    for n in range(20):
        await stage.troth.start(f"w{n}", asks, "a")
    for n in range(20):
        await waiting_for(stage, f"w{n}", 0)
    await until(lambda: len(worker._runs.kept) == 20)
    assert held() == {f"w{n}" for n in range(20)}
    await stage.stop(worker)
    assert len(worker._runs.kept) == 0
    assert held() == set()


async def test_a_worker_that_was_taken_for_dead_lets_go_of_it(stage: Stage, db: Database) -> None:
    worker = stage.work(asks, keep=100, lease=timedelta(seconds=1))
    await stage.troth.start("w", asks, "a", times=1)
    await waiting_for(stage, "w", 0)
    await until(lambda: "w" in worker._runs.kept)
    before = worker.id
    db.execute("select leave(%s)", [before])
    await until(lambda: worker.id != before)
    await until(lambda: held() == set())
    await answered(stage, "w", 0)
    assert await stage.troth.handle("w").result(60) == ["a", "0"]
    assert RUNS == ["w", "w"]


# events of each kind reach kept code


@workflow
async def much(ctx: Context) -> list[str]:
    told: list[str] = []

    async def branch(name: str) -> None:
        told.append(await ctx.promise(str, name))
        told.append(f"{await ctx.run(call, name)} {ctx.random.random()}")

    try:
        async with asyncio.TaskGroup() as group:
            for name in ("a", "b"):
                group.create_task(branch(name), name=name)
            try:
                async with asyncio.timeout(5):
                    await ctx.promise(str, "never")
            except TimeoutError:
                told.append(f"late {ctx.uuid4()}")
            await ctx.sleep(5)
            told.append(await ctx.promise(str, "last"))
    finally:
        told.append(await ctx.run(call, f"finally {len(told)}"))
    return told


@pytest.mark.parametrize("end", ["returns", "canceled"])
async def test_all_sizes_tell_the_same_story(stage: Stage, clock: Clock, db: Database, end: str) -> None:
    stories = []
    for keep in (1000, 1, 0):
        worker = stage.work(much, asks, keep=keep)
        id = f"{end}-{keep}"
        await stage.troth.start(id, much)
        await stage.exists(f"{id}~never")
        await stage.reaches(id, "suspended")
        db.execute("update task set seed = 7 where id = %s", [id])
        await stage.stop(worker)
        worker = stage.work(much, asks, keep=keep)
        for what in ("a", "time", "time", "b", "end"):
            last = await _last_seq(stage, id)
            match what:
                case "time":
                    clock.advance(timedelta(seconds=6))
                case "end" if end == "canceled":
                    await stage.troth.cancel(id)
                case "end":
                    await stage.troth.resolve(f"{id}~last", "last")
                case name:
                    await stage.troth.resolve(f"{id}~{name}~{name}", name)
            if what != "end":
                await until(partial(_moved, stage, id, last))
        await stage.reaches(id, "resolved", "canceled")
        journal = [(e.operation, e.kind, e.issued, e.state) for e in await stage.troth.journal(id)]
        promise = await stage.troth.get(id)
        stories.append((promise.state, promise.value, journal))
        await stage.stop(worker)
    assert stories[0] == stories[1] == stories[2]
    assert stories[0][0] == ("resolved" if end == "returns" else "canceled")
    assert len(CALLS) == 9


async def _last_seq(stage: Stage, id: str) -> int:
    promise = await stage.troth.get(id)
    return promise.task.last_seq if promise.task else 0


async def _moved(stage: Stage, id: str, last: int) -> bool:
    promise = await stage.troth.get(id)
    return promise.task is not None and promise.task.last_seq > last and promise.task.state == "suspended"
