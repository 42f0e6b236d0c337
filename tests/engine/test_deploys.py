"""New code meets workflows that the old code began: what differs is found and named, nothing runs, and mending helps."""

from __future__ import annotations

import inspect
import linecache
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.engine.programs import deploys
from tests.engine.programs.deploys import HALTS, OLD_CALLS, RESULT, SAFE, deployed
from tests.engine.running import Stage, until
from troth import Context
from troth.testing.clock import Clock

OLD = deployed(deploys.order)
Database = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    deploys.CALLS.clear()
    yield
    deploys.CALLS.clear()


async def begun_by_old_code(stage: Stage) -> None:
    """`w` waits for its approval, its three steps done; no worker is left."""
    worker = stage.work(OLD)
    await stage.troth.start("w", OLD, "book")
    await until(lambda: "ship" in deploys.CALLS)
    await stage.reaches("w", "suspended")
    await stage.stop(worker)
    assert deploys.CALLS == OLD_CALLS


# S26


@pytest.mark.parametrize("change", HALTS)
async def test_s26_a_change_is_found_and_named_and_mended(stage: Stage, change: str) -> None:
    code, operation, line = HALTS[change]
    await begun_by_old_code(stage)
    before = [(e.seq, e.operation) for e in await stage.troth.journal("w")]
    worker = stage.work(deployed(code))
    await stage.troth.resolve("w~approval", True)
    promise = await stage.reaches("w", "halted")
    assert promise.task is not None
    reason = promise.task.reason
    assert reason is not None
    assert reason.code == "nondeterminism"
    _reads_well(reason.message, code, operation, line)
    assert [each[:2] for each in before] == [(e.seq, e.operation) for e in await stage.troth.journal("w")][
        : len(before)
    ]
    ids = {each.id for each in await stage.troth.tree("w")}
    assert ids == {"w", "w~approval"}, "the changed code made something"
    assert deploys.CALLS == OLD_CALLS, "a step of the changed code ran"
    # a resume does not help as long as the code is not mended
    assert (await stage.troth.resume("w")).answer == "resumed"
    assert (await stage.reaches("w", "halted")).task is not None
    assert deploys.CALLS == OLD_CALLS
    await stage.stop(worker)
    stage.work(OLD)
    assert (await stage.troth.resume("w")).answer == "resumed"
    assert await stage.troth.handle("w").result(60) == RESULT
    assert deploys.CALLS == OLD_CALLS


def _reads_well(message: str, code: Any, operation: str, line: str | None) -> None:
    """The operation, recorded against issued, and the file and line."""
    assert f"at {operation!r}, but the code issued" in message
    assert message.startswith("The journal has ")
    if line is None:
        assert "deploys.py" not in message
        return
    path = inspect.getsourcefile(code)
    assert path is not None
    _, _, rest = message.partition("deploys.py:")
    number = int("".join(c for c in rest[:6] if c.isdigit()))
    first = code.__code__.co_firstlineno
    assert first < number < first + 12
    assert line in linecache.getline(path, number), (message, linecache.getline(path, number))


@pytest.mark.parametrize("change", SAFE)
async def test_a_safe_edit_goes_on(stage: Stage, change: str) -> None:
    code, result, calls = SAFE[change]
    await begun_by_old_code(stage)
    stage.work(deployed(code))
    await stage.troth.resolve("w~approval", True)
    assert await stage.troth.handle("w").result(60) == result
    assert sorted(deploys.CALLS) == sorted(OLD_CALLS + calls)


async def test_s26_a_change_before_what_is_recorded_and_has_no_event_yet(stage: Stage) -> None:
    """The event that wakes it is of another branch and agrees; what the changed branch waits for is in Postgres, in no event."""
    old = deployed(deploys.fork_of_the_road)
    worker = stage.work(old)
    await stage.troth.start("w", old)
    await stage.exists("w~2~first")
    await stage.troth.resolve("w~2~first", "1")
    await stage.exists("w~2~second")
    await stage.reaches("w", "suspended")
    await stage.stop(worker)
    worker = stage.work(deployed(deploys.fork_with_a_step))
    await stage.troth.resolve("w~1~left", "l")

    async def decided() -> bool:
        return bool(deploys.CALLS) or await stage.state("w") == "halted"

    await until(decided)
    assert deploys.CALLS == [], "a step of the changed code ran"
    assert (await stage.reason("w"))["code"] == "nondeterminism"
    await stage.stop(worker)
    stage.work(old)
    await stage.troth.resume("w")
    await stage.troth.resolve("w~2~second", "2")
    assert await stage.troth.handle("w").result(60) == ["l", "2"]


# S83, S54: versions


async def first_version(ctx: Context) -> list[str]:
    return ["v1", await ctx.promise(str, "p")]


async def second_version(ctx: Context) -> list[str]:
    await ctx.run(check, "v2")
    return ["v2", await ctx.promise(str, "p")]


async def check(what: str) -> None:
    deploys.CALLS.append(what)


V1 = deployed(first_version)
V2 = deployed(second_version, version=2)


async def test_s83_two_versions_side_by_side(stage: Stage, db: Database) -> None:
    """Pinned runs end on their version, whoever is alive; new ones go to the newest that a worker knows."""
    one = stage.work(V1)
    for n in range(5):
        await stage.troth.start(f"old-{n}", "order")
        await stage.reaches(f"old-{n}", "suspended")
    two = stage.work(V2)
    both = stage.work(V1, V2)
    await until(lambda: two._idle and both._idle)
    await stage.stop(one)
    for n in range(5):
        await stage.troth.start(f"new-{n}", "order")
        await stage.reaches(f"new-{n}", "suspended")
    for n in range(5):
        for id in (f"old-{n}", f"new-{n}"):
            await stage.troth.resolve(f"{id}~p", "x")
    for n in range(5):
        assert await stage.troth.handle(f"old-{n}").result(60) == ["v1", "x"]
        assert await stage.troth.handle(f"new-{n}").result(60) == ["v2", "x"]
    assert deploys.CALLS == ["v2"] * 5


async def test_s54_a_sleeper_is_resumed_only_by_a_worker_of_its_version(
    stage: Stage, db: Database, clock: Clock
) -> None:
    async def sleeps(ctx: Context) -> str:
        await ctx.sleep(timedelta(days=3))
        return "v1"

    async def sleeps_less(ctx: Context) -> str:
        await ctx.sleep(timedelta(days=1))
        return "v2"

    worker = stage.work(deployed(sleeps))
    await stage.troth.start("w", "order")
    await stage.reaches("w", "suspended")
    await stage.stop(worker)
    newer = stage.work(deployed(sleeps_less, version=2))
    clock.advance(timedelta(days=4))
    await stage.reaches("w", "ready")  # its time has come, and nobody here knows it
    assert queues(db) == [("order@1", 1, 0, False)]
    # the newer one is awake and takes what it knows, and only that
    await stage.troth.start("other", "order")
    await stage.reaches("other", "suspended")
    assert queues(db) == [("order@1", 1, 0, False), ("order@2", 0, 1, True)]
    promise = await stage.troth.get("w")
    assert promise.task is not None
    assert (promise.task.state, promise.task.epoch, promise.task.attempts) == ("ready", 1, 0)
    older = stage.work(deployed(sleeps))
    assert await stage.troth.handle("w").result(60) == "v1"
    assert not stage.ended(newer)
    assert not stage.ended(older)


async def test_s83_what_nobody_knows_is_seen(stage: Stage, db: Database) -> None:
    """A start before any worker of it, and a run whose version has been taken away."""
    await stage.troth.start("nobody", "unheard-of")
    worker = stage.work(V1)
    await stage.troth.start("w", "order")
    await stage.reaches("w", "suspended")
    assert queues(db) == [("order@1", 0, 1, True), ("unheard-of", 1, 0, False)]
    await stage.stop(worker)
    stage.work(V2)
    await until(lambda: queues(db) == [("order@1", 0, 1, False), ("unheard-of", 1, 0, False)])
    await stage.troth.resolve("w~p", "x")
    await until(lambda: queues(db) == [("order@1", 1, 0, False), ("unheard-of", 1, 0, False)])
    stage.work(V1)
    assert await stage.troth.handle("w").result(60) == ["v1", "x"]


def queues(db: Database) -> list[Any]:
    return db.execute('select lane, ready, suspended, known from queues order by lane collate "C"').fetchall()
