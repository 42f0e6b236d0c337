"""Cancel: an event in the workflow's order, which its code may answer to; and by force, which asks nobody."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.engine.running import Stage, WorkerProcess, until
from troth import Context, PromiseCanceled, workflow
from troth.testing.clock import Clock

Connection = psycopg.Connection[Any]
Spawn = Callable[..., WorkerProcess]
Effects = Callable[[], list[str]]

TALES = ["tests.engine.programs.children_tales"]
SEEN: list[str] = []
GATES: dict[str, asyncio.Event] = {}


@pytest.fixture(autouse=True)
def fresh() -> None:
    SEEN.clear()
    GATES.clear()


def gate(name: str) -> asyncio.Event:
    return GATES.setdefault(name, asyncio.Event())


async def see(text: str) -> str:
    SEEN.append(text)
    return text


async def hangs(name: str) -> None:
    SEEN.append(f"{name} begins")
    try:
        await gate(name).wait()
    finally:
        SEEN.append(f"{name} ends")


@workflow
async def child(ctx: Context, name: str) -> str:
    try:
        return await ctx.promise(str, "go")
    finally:
        await asyncio.shield(ctx.run(see, f"{name} compensated"))


@workflow
async def has_everything(ctx: Context) -> str:
    started = ctx.start(child, "started")
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_await(ctx.run(hangs, "step")))
            group.create_task(_await(ctx.options(queue="remote").call(child, "called")))
            group.create_task(_await(ctx.promise(bool, "latent")))
            group.create_task(asyncio.sleep(3600))
    finally:
        await asyncio.shield(ctx.run(see, "compensated"))
        await ctx.run(see, "cleaned up")
    return started.id


async def _await(what: Any) -> None:
    await what


@pytest.mark.parametrize("keep", [1000, 0])
async def test_s55_each_thing_under_way_gets_its_policy(stage: Stage, db: Connection, keep: int) -> None:
    stage.work(has_everything, child, keep=keep, lease=timedelta(seconds=1.5))
    stage.work(child, queues=["remote"], keep=keep)
    handle = await stage.troth.start("w", has_everything)
    await until(lambda: "step begins" in SEEN)
    await stage.reaches("w~child:2", "suspended")
    await stage.reaches("w~child", "suspended")
    assert (await stage.troth.options(actor="ann").cancel("w", "changed our minds")).answer == "requested"
    with pytest.raises(PromiseCanceled, match="changed our minds"):
        await handle.result(60)
    tree = {each.id: each.state for each in await stage.troth.tree("w")}
    assert tree["w"] == tree["w~child:2"] == "canceled"
    await stage.reaches("w~latent", "canceled")
    await stage.reaches("w~child:2~go", "canceled")
    # what was started is its own
    assert tree["w~child"] == tree["w~child~go"] == "pending"
    assert Counter(SEEN) == Counter(
        ["step begins", "step ends", "compensated", "cleaned up", "called compensated"]
    )
    assert db.execute("select count(*) from wait where task <> 'w~child'").fetchone() == (0,)
    assert db.execute("select actor, detail ->> 'message' from audit where verb = 'cancel'").fetchall() == [
        ("ann", "changed our minds")
    ]


async def test_s55_compensation_is_durable(stage: Stage, spawn: Spawn, effects: Effects) -> None:
    """Its worker dies between two compensating steps: another goes on, and what was recorded is not done again."""
    first = spawn(modules=TALES, lease_s=1, kill_at='after:advance:1:"tell:2"')
    handle = await stage.troth.start("w", "compensates")
    await stage.reaches("w", "suspended")
    await stage.troth.cancel("w", "enough")
    assert await first.death() == -signal.SIGKILL
    spawn(modules=TALES)
    with pytest.raises(PromiseCanceled, match="enough"):
        await handle.result(60)
    assert effects() == ["undo-1", "undo-2", "undo-3"]


@workflow
async def answers_back(ctx: Context, how: str) -> str:
    try:
        await ctx.promise(bool, "never")
    except asyncio.CancelledError:
        if how == "returns":
            return "I had it already"
        raise LookupError("could not undo it") from None
    return "?"


async def test_a_workflow_may_end_otherwise_than_it_was_asked_to(stage: Stage) -> None:
    stage.work(answers_back)
    for how in ("returns", "raises"):
        await stage.troth.start(how, answers_back, how)
        await stage.reaches(how, "suspended")
        await stage.troth.cancel(how)
    assert (await stage.reaches("returns", "resolved")).settler == "worker"
    await stage.reaches("raises", "rejected")


# Races.


@workflow
async def decides(ctx: Context) -> bool:
    return await ctx.promise(bool, "p")


async def test_s56_cancel_races_completion_a_thousand_times(stage: Stage, db: Connection) -> None:
    """Each ends in one way, which fits what came first in its journal and what the canceler was told."""
    stage.work(decides)
    ids = [f"w{n}" for n in range(1000)]
    for id in ids:
        await stage.troth.start(id, decides)

    def waiting() -> bool:
        return db.execute("select count(*) from task where state = 'suspended'").fetchone() == (1000,)

    await until(waiting, "all wait")
    answers: dict[str, str] = {}

    async def race(n: int) -> None:
        id = f"w{n}"

        async def resolve() -> None:
            await stage.troth.resolve(f"{id}~p", True)

        async def cancel() -> None:
            answers[id] = (await stage.troth.cancel(id, "enough")).answer

        await asyncio.gather(*((resolve(), cancel()) if n % 2 else (cancel(), resolve())))

    for start in range(0, 1000, 50):
        await asyncio.gather(*(race(n) for n in range(start, start + 50)))
    await until(lambda: db.execute("select count(*) from task").fetchone() == (0,), "all have ended")
    rows = db.execute(
        "select p.id, p.state, c.kind from promise p left join checkpoint c on c.task = p.id and c.seq = 1"
        " where p.function is not null"
    ).fetchall()
    ends = Counter((state, kind) for _, state, kind in rows)
    assert set(ends) <= {("resolved", "promise"), ("canceled", "cancel")}
    assert len(rows) == 1000
    for id, state, _ in rows:
        assert answers[id] == "requested" or (answers[id], state) == ("conflict", "resolved")
    # twice the same question, twice the same answer
    some = ids[::97]
    for id in some:
        again = await stage.troth.cancel(id)
        assert again.answer == ("already" if (await stage.troth.get(id)).state == "canceled" else "conflict")


# Twice, and by force.


@workflow
async def compensates_long(ctx: Context) -> str:
    try:
        await ctx.promise(bool, "never")
    finally:
        try:
            await ctx.promise(bool, "compensated")
            await ctx.run(see, "compensated")
        except asyncio.CancelledError:
            await ctx.run(see, "compensation canceled")
            return "?"
    return "never"


async def test_s57_a_second_cancel_is_delivered_to_what_compensates(stage: Stage, clock: Clock) -> None:
    stage.work(compensates_long)
    handle = await stage.troth.start("w", compensates_long)
    await stage.exists("w~never")
    await stage.reaches("w", "suspended")
    assert (await stage.troth.cancel("w", "once")).answer == "requested"
    await stage.exists("w~compensated")
    await stage.reaches("w", "suspended")
    assert (await stage.troth.cancel("w", "the same click")).answer == "requested"
    assert len(await stage.troth.journal("w")) == 1
    clock.advance(timedelta(seconds=2))
    assert (await stage.troth.cancel("w", "twice")).answer == "requested"
    assert [each.kind for each in await stage.troth.journal("w")] == ["cancel", "cancel"]
    assert await handle.result(60) == "?"
    assert SEEN == ["compensation canceled"]


async def test_s57_force_ends_it_while_it_compensates_and_leaves_nothing(
    stage: Stage, db: Connection
) -> None:
    stage.work(compensates_long)
    handle = await stage.troth.start("w", compensates_long)
    await stage.exists("w~never")
    await stage.troth.cancel("w", "once")
    await stage.exists("w~compensated")
    forced = await stage.troth.options(actor="ann").cancel("w", "now", force=True)
    assert forced.answer == "settled"
    with pytest.raises(PromiseCanceled, match="now"):
        await handle.result(60)
    await stage.reaches("w~compensated", "canceled")
    assert db.execute("select count(*) from task").fetchone() == (0,)
    assert SEEN == []
    assert (await stage.troth.cancel("w", force=True)).answer == "already"
    assert ("ann", "cancel_force") in db.execute("select actor, verb from audit").fetchall()


@workflow
async def hangs_with_children(ctx: Context) -> None:
    await asyncio.gather(ctx.run(hangs, "step"), ctx.call(hangs_below))


@workflow
async def hangs_below(ctx: Context) -> None:
    try:
        await asyncio.gather(ctx.run(hangs, "below"), ctx.call(child, "deep"))
    finally:
        await ctx.run(see, "never asked")


async def test_s57_force_ends_the_whole_tree_and_stops_its_steps(stage: Stage, db: Connection) -> None:
    stage.work(hangs_with_children, hangs_below, child, lease=timedelta(seconds=1.5))
    handle = await stage.troth.start("w", hangs_with_children)
    await until(lambda: {"step begins", "below begins"} <= set(SEEN))
    await stage.reaches("w~hangs_below~child", "suspended")
    await stage.troth.cancel("w", force=True)
    with pytest.raises(PromiseCanceled):
        await handle.result(60)
    await until(lambda: db.execute("select count(*) from task").fetchone() == (0,), "the tree has ended")
    await until(lambda: {"step ends", "below ends"} <= set(SEEN), "whoever held it has stopped")
    assert sorted(SEEN) == ["below begins", "below ends", "step begins", "step ends"]


# Before and after.


async def test_s58_what_never_ran_runs_no_code(stage: Stage, db: Connection) -> None:
    delayed = stage.troth.options(delay=timedelta(days=1))
    await delayed.start("delayed", child, "delayed")
    await stage.troth.options(queue="nobody").start("queued", child, "queued")
    for id in ("delayed", "queued"):
        assert (await stage.troth.cancel(id, "never mind")).answer == "settled"
    stage.work(child, queues=["default", "nobody"])
    for id in ("delayed", "queued"):
        with pytest.raises(PromiseCanceled, match="never mind"):
            await stage.troth.handle(id).result(60)
    assert SEEN == []
    assert db.execute("select count(*) from task").fetchone() == (0,)
    assert db.execute("select count(*) from checkpoint").fetchone() == (0,)


async def test_s59_cancel_is_idempotent_and_of_what_has_ended_changes_nothing(
    stage: Stage, db: Connection
) -> None:
    stage.work(decides)
    handle = await stage.troth.start("w", decides)
    await stage.exists("w~p")
    await stage.troth.resolve("w~p", True)
    assert await handle.result(60) is True
    before = db.execute("select * from promise order by id").fetchall()
    for force in (False, True):
        late = await stage.troth.cancel("w", "too late", force=force)
        assert late.answer == "conflict"
        assert late.promise is not None
        assert late.promise.state == "resolved"
    assert (await stage.troth.cancel("no-such")).answer == "unknown"
    assert db.execute("select * from promise order by id").fetchall() == before
    assert db.execute("select count(*) from audit where verb like 'cancel%%'").fetchone() == (0,)
    again = await stage.troth.start("v", decides)
    await stage.exists("v~p")
    assert {(await stage.troth.cancel("v")).accepted for _ in range(3)} == {True}
    with pytest.raises(PromiseCanceled):
        await again.result(60)
    assert (await stage.troth.cancel("v")).answer == "already"
