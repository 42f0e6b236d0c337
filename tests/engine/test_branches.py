"""Branches that run beside each other, and the workers that run them killed: nobody ever sees another's value."""

from __future__ import annotations

import asyncio
import math
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from operator import contains
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.engine.programs import branches
from tests.engine.programs.worker import state_of
from tests.engine.running import Fork, Stage, WorkerProcess, Zygote, bury, until
from troth import Context, workflow
from troth.calls import Call
from troth.gateway.pool import Pool
from troth.testing.clock import Clock

Database = psycopg.Connection[Any]
Spawn = Callable[..., WorkerProcess]


@pytest.fixture
def zygote(dsn: str, db: Database, tmp_path: Path) -> Iterator[Zygote]:
    """Workers of `programs/branches.py`, and the ledger that their steps write."""
    db.execute(branches.LEDGER)
    zygote = Zygote(dsn, tmp_path, "tests.engine.programs.branches", poll_s=0.05, lease_s=60)
    yield zygote
    zygote.close()


async def test_a_zygote_takes_all_its_workers_with_it(dsn: str, tmp_path: Path) -> None:
    for end in (Zygote.close, lambda zygote: zygote.process.kill()):
        zygote = Zygote(dsn, tmp_path, "tests.engine.programs.branches")
        first, second = zygote.fork(), zygote.fork()
        first.kill()
        assert await first.death() == -signal.SIGKILL
        assert second.alive
        assert state_of(second.pid) != "Z"
        end(zygote)
        await until(partial(_gone, second.pid), "the worker ends with its zygote")
        zygote.close()


def _gone(pid: int) -> bool:
    return state_of(pid) == "Z"


CALLS = ["before:advance", "after:advance", "after:claim"]
WORKERS = 3


class Massacre:
    """Keeps workers running and workflows in flight, and kills."""

    def __init__(self, stage: Stage, db: Database, zygote: Zygote, seed: int, start: list[str]) -> None:
        self.stage = stage
        self.db = db
        self.zygote = zygote
        self.chance = random.Random(seed)
        self.start = start
        self.forks: list[Fork] = []
        self.dead: list[int] = []
        self.started: list[str] = []

    async def kill(self, times: int, in_flight: int) -> None:
        """Kill so many workers, with so many workflows in flight; then let all end."""
        while len(self.dead) < times:
            await self._go_on(in_flight)
            enough = self.effects() + self.chance.randint(0, 8)

            async def moved(enough: int = enough) -> bool:
                bury(self.db, self.dead)
                return self.effects() >= enough or not all(fork.alive for fork in self.forks)

            await until(moved, "the workers do something")
            self.chance.choice(self.forks).kill()

        async def done() -> bool:
            await self._go_on(0)
            return self._count("task") == 0

        await until(done, "all of them end")

    async def _go_on(self, in_flight: int) -> None:
        """Replace the dead; have enough in flight; send on what was killed too often without getting anywhere."""
        alive = [fork.alive for fork in self.forks]
        self.dead += [fork.pid for fork, lives in zip(self.forks, alive, strict=True) if not lives]
        self.forks = [fork for fork, lives in zip(self.forks, alive, strict=True) if lives]
        bury(self.db, self.dead)  # all of them: what a killed one had sent may have been done only now
        while len(self.forks) < WORKERS:
            # some are killed from outside wherever they are, some die at an instruction
            dies = in_flight and self.chance.random() < 0.4
            kill_at = f"{self.chance.choice(CALLS)}:{self.chance.randint(1, 6)}" if dies else None
            self.forks.append(self.zygote.fork(concurrency=self.chance.randint(2, 6), kill_at=kill_at))
        for _ in range(in_flight - self._count("task where id !~ '~'")):
            function = self.start[len(self.started) % len(self.start)]
            self.started.append(f"{function}-{len(self.started)}")
            arguments = {"mark": self.started[-1]} if function == "two_branches" else {}
            await self.stage.troth.start(self.started[-1], function, **arguments)
        parked = "select id, reason ->> 'code', reason ->> 'message' from task where state = 'halted'"
        for id, code, message in self.db.execute(parked).fetchall():
            assert code == "attempts", (id, message)
            await self.stage.troth.resume(id)

    def effects(self) -> int:
        return self._count("public.ledger")

    def _count(self, what: str) -> int:
        row = self.db.execute(f"select count(*) from {what}".encode()).fetchone()
        assert row is not None
        return int(row[0])

    def said(self, id: str) -> dict[str, str]:
        """What each step of a workflow did, which must be the same in each of its lives, and never after it was recorded."""
        steps: dict[str, str] = {}
        query = "select operation, what, late from public.ledger where task = %s order by n"
        for operation, what, late in self.db.execute(query, [id]).fetchall():
            assert steps.setdefault(operation, what) == what, (id, operation)
            assert not late, (id, operation)
        recorded = "select operation from checkpoint where task = %s and kind = 'step' and state = 'resolved'"
        assert {operation for (operation,) in self.db.execute(recorded, [id]).fetchall()} <= set(steps)
        return steps


PLACES = {
    f"{branch}~report{again}": f"{side}.{number}"
    for branch, side in ((1, "left"), (2, "right"))
    for number, again in enumerate(("", ":2", ":3"))
}


async def test_s20_two_branches_of_three_steps_and_two_hundred_kills(
    stage: Stage, db: Database, zygote: Zygote
) -> None:
    massacre = Massacre(stage, db, zygote, 20, ["two_branches"])
    await massacre.kill(200, 16)
    assert massacre.effects() > 6 * len(massacre.started), "no step was ever begun again"
    for id in massacre.started:
        expected = {operation: f"{id}-{place}" for operation, place in PLACES.items()}
        assert massacre.said(id) == expected
        recorded = db.execute("select operation, value from checkpoint where task = %s", [id]).fetchall()
        assert dict(recorded) == expected
        sides = [[f"{id}-{side}.{number}" for number in range(3)] for side in ("left", "right")]
        assert await stage.troth.handle(id).result() == sides


async def test_s22_to_s25_and_s28_whatever_dies_each_life_decides_alike(
    stage: Stage, db: Database, zygote: Zygote
) -> None:
    """A race with the clock (S22), of six children (S23), hand-overs (S24), a group that fails (S25), time and chance (S28)."""
    massacre = Massacre(stage, db, zygote, 22, ["hurried", "race", "hand_over", "falls_apart", "draws"])
    await massacre.kill(60, 10)
    kinds: Counter[str] = Counter()
    for id in massacre.started:
        steps = massacre.said(id)
        kind = id.partition("-")[0]
        promise = await stage.troth.get(id)
        assert promise.state == ("rejected" if kind == "falls_apart" else "resolved"), (id, promise.error)
        if kind == "falls_apart":
            assert b"Broken" in bytes(promise.error)
            assert b"ExceptionGroup" in bytes(promise.error)
            names = {what for what in steps.values() if what.startswith("cleaned up")}
            assert names <= {"cleaned up a.0", "cleaned up b.0"}
            left = await stage.troth.tree(id)
            assert {each.state for each in left if each.id != id} <= {"pending", "canceled"}
            kinds[kind] += 1
            continue
        result = await stage.troth.handle(id).result()
        match kind:
            case "hurried":
                way, slow, end = result
                assert (slow, end[:-2]) == ("slow", way[:-2])
                assert steps == {"slowly": "slowly", "report": way, "report:2": end}
                kinds[way] += 1
            case "race":
                assert sorted(result) == list(range(6))
                places = [what for operation, what in steps.items() if operation.startswith("report")]
                assert sorted(places) == sorted(f"place {n} to.{who}" for n, who in enumerate(result, 1))
                kinds[kind] += 1
            case "hand_over":
                notes = {what for what in steps.values() if " took " in what}
                assert notes == {f"{n}: {what}.0" for n, what in enumerate(result, 1)}
                assert sorted(each[-1] for each in result) == ["1", "2", "3", "4"]
                kinds[kind] += 1
            case _:
                assert [steps[name] for name in ("report", "report:2", "report:3", "report:4")] == result
                assert len(set(result)) == 4
                kinds[kind] += 1
    assert set(kinds) >= {"race", "hand_over", "falls_apart", "draws"}, kinds
    assert "late.0" in kinds or "in time.0" in kinds


# S28, S29: between processes whose strings hash otherwise


MODULES = ["tests.engine.programs.branches"]


async def moved_to_another_process(
    stage: Stage, db: Database, spawn: Spawn, monkeypatch: pytest.MonkeyPatch, function: str, *promises: str
) -> None:
    """Begun by one process and gone on with by another."""
    db.execute(branches.LEDGER)
    monkeypatch.setenv("TROTH_TEST_LEDGER", stage.dsn)
    first = spawn(modules=MODULES, hash_seed=1)
    await stage.troth.start("w", function)
    for promise in promises:
        await stage.exists(f"w~{promise}")
    await stage.reaches("w", "suspended")
    first.kill()
    spawn(modules=MODULES, hash_seed=2)
    for promise in promises:
        await stage.troth.resolve(f"w~{promise}", "x")
    await stage.reaches("w", "resolved", "halted")


async def test_s29_sets_of_tasks_are_the_same_for_every_hash_seed(
    stage: Stage, db: Database, spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    promises = [f"{number}~p" for number in range(20, 0, -1)]
    await moved_to_another_process(stage, db, spawn, monkeypatch, "set_of_tasks", *promises)
    assert await stage.state("w") == "resolved", await stage.reason("w")
    result = await stage.troth.handle("w").result()
    assert sorted(result[20:]) == sorted(f"n{number}.0" for number in range(20))


@pytest.mark.parametrize("function", ["set_of_strings", "draws_by_itself"])
async def test_s28_s29_what_the_process_decides_is_found(
    stage: Stage, db: Database, spawn: Spawn, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    """A loop over a set of strings swaps arguments between processes, and so does chance that is not the context's."""
    await moved_to_another_process(stage, db, spawn, monkeypatch, function, "p")
    before = db.execute("select count(*) from public.ledger").fetchone()
    reason = await stage.reason("w")
    assert reason["code"] == "nondeterminism"
    assert "with arguments of digest" in reason["message"]
    assert "at 'report'" in reason["message"]
    assert "branches.py:" in reason["message"]
    assert db.execute("select count(*) from public.ledger").fetchone() == before


# one order and one time: S49, S50, S52, S92, S93


@workflow
async def naps(ctx: Context) -> list[str]:
    seen = [ctx.now().isoformat()]
    for seconds in (0.1, 1.5):
        await ctx.sleep(seconds)
        seen.append(ctx.now().isoformat())
    return seen


@pytest.mark.parametrize("days", [1, -1])
async def test_s49_a_worker_with_a_wrong_clock(
    stage: Stage, db: Database, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    true = time.time
    monkeypatch.setattr(time, "time", lambda: true() + 86_400 * days)
    monkeypatch.setattr(time, "time_ns", lambda: int((true() + 86_400 * days) * 1e9))
    stage.work(naps)
    before = db.execute("select _clock()").fetchone()
    handle = await stage.troth.start("w", naps)
    seen = [datetime.fromisoformat(each) for each in await handle.result(60)]
    after = db.execute("select _clock()").fetchone()
    assert before is not None
    assert after is not None
    assert before[0] <= seen[0] <= seen[2] <= after[0]
    assert timedelta(seconds=0.1) <= seen[1] - seen[0] < timedelta(hours=1)
    assert timedelta(seconds=1.5) <= seen[2] - seen[1] < timedelta(hours=1)


@workflow
async def counts(ctx: Context) -> list[str]:
    seen: list[str] = []
    for number in range(4):
        await ctx.run(note, str(number))
        await ctx.sleep(0.05)
        seen.append(ctx.now().isoformat())
        if number < 3:
            await ctx.promise(str, f"p{number}")
    return seen


NOTED: list[str] = []


async def note(what: str) -> str:
    NOTED.append(what)
    return what


@pytest.fixture(autouse=True)
def fresh() -> None:
    NOTED.clear()


@pytest.mark.parametrize("keep", [0, 100])
async def test_s50_the_databases_clock_steps_back(stage: Stage, clock: Clock, keep: int) -> None:
    """A workflow's time stands still until the clock has caught up; nothing fires twice, nothing is negative."""
    worker = stage.work(counts, keep=keep, lease=timedelta(seconds=60))
    await stage.troth.start("w", counts)
    for number in range(3):
        await stage.exists(f"w~p{number}")
        await stage.reaches("w", "suspended")
        clock.advance(timedelta(seconds=-5))
        await stage.troth.resolve(f"w~p{number}", "x")
        await until(partial(contains, NOTED, str(number + 1)))
        clock.advance(timedelta(seconds=5.2))
    seen = await stage.troth.handle("w").result(60)
    assert seen == sorted(seen)
    assert NOTED == ["0", "1", "2", "3"]
    journal = await stage.troth.journal("w")
    assert [each.at for each in journal] == sorted(each.at for each in journal)
    timers = [each.operation for each in journal if each.kind == "timer"]
    assert timers == ["timer", "timer:2", "timer:3", "timer:4"]
    assert not stage.ended(worker)


@workflow
async def sleeps_oddly(ctx: Context) -> list[str]:
    said: list[str] = []
    for seconds in (0, -1, -math.inf, math.nan, math.inf, 10_000 * 365 * 86_400.0):
        for sleep in (ctx.sleep, asyncio.sleep):
            try:
                await sleep(seconds)
                said.append("at once")
            except Exception as error:
                said.append(f"{type(error).__name__}: {error}")
    return said


async def test_s52_sleeps_that_are_none(stage: Stage) -> None:
    stage.work(sleeps_oddly)
    said = await (await stage.troth.start("w", sleeps_oddly)).result(60)
    assert said[:6] == ["at once"] * 6
    assert said[0::2] == said[1::2], "ctx.sleep and asyncio.sleep differ"
    assert "nan" in said[6].lower()
    for each in said[8:]:
        assert "days" in each or "years" in each, each
    assert await stage.troth.journal("w") == []


class Gate:
    """Holds back the first `advance` that says a text."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()
        run = Pool.run

        async def gated(pool: Pool, call: Call[Any], **options: Any) -> Any:
            if (
                call.function == "advance"
                and not self.reached.is_set()
                and text in " ".join(map(str, call.values))
            ):
                self.reached.set()
                await self.opened.wait()
            return await run(pool, call, **options)

        monkeypatch.setattr(Pool, "run", gated)


@workflow
async def hears_a_cancel(ctx: Context) -> list[str]:
    told: list[str] = []
    try:
        told.append(await ctx.run(note, "one"))
        told.append(await ctx.promise(str, "p"))
    except asyncio.CancelledError:
        told.append("canceled")
    # what it had heard in which order is part of what it asks for: a replay that heard otherwise would be found
    await ctx.run(note, str(told))
    told.append(await ctx.promise(str, "q"))
    return told


async def test_s92_a_cancel_comes_before_what_was_told_ahead(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch, '"kind":"step"')
    worker = stage.work(hears_a_cancel)
    await stage.troth.start("w", hears_a_cancel)
    await gate.reached.wait()
    assert NOTED == ["one"]
    assert (await stage.troth.cancel("w")).answer == "requested"
    gate.opened.set()
    await stage.exists("w~q")
    await stage.reaches("w", "suspended")
    assert [each.operation for each in await stage.troth.journal("w")] == ["~cancel", "note", "note:2"]
    assert NOTED == ["one", "['canceled']"]
    await stage.stop(worker)
    stage.work(hears_a_cancel)
    await stage.troth.resolve("w~q", "end")
    assert await stage.troth.handle("w").result(60) == ["canceled", "end"]
    assert NOTED == ["one", "['canceled']"]


@workflow
async def tells_the_time(ctx: Context) -> list[str]:
    other = ctx.promise(str, "other")
    await ctx.run(note, "one")
    async with asyncio.timeout(600) as scope:
        seen = f"{ctx.now().isoformat()} {asyncio.get_running_loop().time()} {scope.when()}"
        said = await ctx.run(note, seen)
        await other
        await ctx.promise(str, "p")
    return [said, seen]


@pytest.mark.parametrize("disturbed", [False, True])
async def test_s93_time_after_what_was_told_ahead_is_the_same_at_a_replay(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, disturbed: bool
) -> None:
    """Also where the event that was told ahead came later than it was told, since another was faster."""
    gate = Gate(monkeypatch, '"state":"resolved"')
    worker = stage.work(tells_the_time)
    await stage.troth.start("w", tells_the_time)
    await gate.reached.wait()
    if disturbed:
        await stage.troth.resolve("w~other", "x")
    gate.opened.set()
    if not disturbed:
        await until(lambda: len(NOTED) == 2)
        await stage.troth.resolve("w~other", "x")
    await stage.exists("w~p")
    await stage.reaches("w", "suspended")
    await stage.stop(worker)
    stage.work(tells_the_time)
    await stage.troth.resolve("w~p", "x")
    await stage.reaches("w", "resolved", "halted")
    assert await stage.state("w") == "resolved", await stage.reason("w")
    said, seen = await stage.troth.handle("w").result()
    assert said == seen == NOTED[-1]
    first = (await stage.troth.journal("w"))[0]
    assert (first.operation == "other") is disturbed
