"""Workflows that run others: what they are called, how they end, and what becomes of them when their parent does."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.engine.programs.children_tales import echoes, fans_out
from tests.engine.running import ROOT, Stage, WorkerProcess, until
from troth import (
    Context,
    IdConflict,
    InvalidArgument,
    InvalidId,
    LimitExceeded,
    PromiseCanceled,
    PromiseInfo,
    PromiseRejected,
    PromiseTimedOut,
    workflow,
)
from troth.testing.clock import Clock

Connection = psycopg.Connection[Any]
Spawn = Callable[..., WorkerProcess]

SEEN: list[str] = []


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    SEEN.clear()


async def see(text: str) -> str:
    SEEN.append(text)
    return text


def settled_at(promise: PromiseInfo) -> datetime:
    assert promise.settled_at is not None
    return promise.settled_at


# A child has a promise, a task and perhaps a queue of its own.


@dataclasses.dataclass
class Page:
    number: int
    text: str


@workflow
async def counts(ctx: Context, page: Page) -> Page:
    return Page(page.number, await ctx.run(see, page.text.upper()))


@workflow
async def counts_pages(ctx: Context) -> list[Page]:
    pages = [Page(n, f"page {n}") for n in range(3)]
    return list(await asyncio.gather(*[ctx.call(counts, page) for page in pages]))


async def test_children_are_typed_and_named_by_where_they_stand(stage: Stage) -> None:
    stage.work(counts, counts_pages)
    handle = await stage.troth.start("w", counts_pages)
    assert await handle.result(60) == [Page(n, f"PAGE {n}") for n in range(3)]
    tree = {each.id: each for each in await stage.troth.tree("w")}
    assert set(tree) == {"w", "w~counts", "w~counts:2", "w~counts:3"}
    assert {(each.function, each.parent) for id, each in tree.items() if id != "w"} == {("counts", "w")}
    assert {(e.kind, e.operation) for e in await stage.troth.journal("w")} == {
        ("call", "counts"),
        ("call", "counts:2"),
        ("call", "counts:3"),
    }


@workflow
async def delegates(ctx: Context) -> str:
    remote = ctx.options(queue="other", priority=3, title="The other one", tags={"of": "w"}, name="far")
    said: str = await remote.call(answers, "yes")
    return f"it said {said}"


@workflow
async def answers(ctx: Context, text: str) -> str:
    return await ctx.run(see, text)


async def test_a_parent_is_gone_from_memory_while_its_child_is_elsewhere(stage: Stage) -> None:
    here = stage.work(delegates, concurrency=1, keep=0)
    handle = await stage.troth.start("w", delegates)
    await stage.reaches("w", "suspended")
    child = await stage.exists("w~far")
    assert child.task is not None
    assert (child.queue, child.task.priority, child.title, child.tags) == (
        "other",
        3,
        "The other one",
        {"of": "w"},
    )
    await until(lambda: len(here._runs) == 0, "nothing is held")
    stage.work(answers, queues=["other"])
    assert await handle.result(60) == "it said yes"


@workflow
async def calls_by_name(ctx: Context) -> list[Any]:
    return [
        await ctx.call("answers", text="a"),
        await ctx.call("answers", "b"),
        await ctx.start("answers", "c"),
    ]


async def test_a_child_may_be_called_by_its_name_alone(stage: Stage) -> None:
    stage.work(answers, calls_by_name)
    assert await (await stage.troth.start("w", calls_by_name)).result(60) == ["a", "b", "c"]


@workflow(queue="slow", timeout=timedelta(days=3))
async def declared(ctx: Context) -> int:
    return 1


@workflow
async def uses_declared(ctx: Context) -> list[str]:
    ctx.start(declared)
    ctx.options(queue="fast", timeout=timedelta(days=1)).start(declared)
    await ctx.promise(bool, "never")
    return []


async def test_what_a_workflow_declares_holds_for_it_as_a_child(stage: Stage) -> None:
    stage.work(uses_declared)
    await stage.troth.start("w", uses_declared)
    await stage.reaches("w", "suspended")
    as_declared, otherwise = await stage.troth.get("w~declared"), await stage.troth.get("w~declared:2")
    assert (as_declared.queue, otherwise.queue) == ("slow", "fast")
    assert as_declared.timeout_at == as_declared.created_at + timedelta(days=3)
    assert otherwise.timeout_at == otherwise.created_at + timedelta(days=1)


@workflow
async def delays(ctx: Context) -> str:
    return await ctx.options(delay=timedelta(days=2)).call(answers, "late")


async def test_a_delayed_child_begins_at_its_time(stage: Stage, clock: Clock) -> None:
    stage.work(delays, answers)
    handle = await stage.troth.start("w", delays)
    child = await stage.reaches("w~answers", "suspended")
    assert child.task is not None
    assert child.task.epoch == 0
    clock.advance(timedelta(days=2))
    assert await handle.result(60) == "late"


# How a child ends is told to its parent.


class Declined(Exception):
    def __init__(self, code: int, why: str) -> None:
        super().__init__(code, why)
        self.code = code
        self.why = why


@workflow
async def ends(ctx: Context, how: str) -> str:
    match how:
        case "known":
            raise Declined(402, "no money")
        case "unknown":

            class Hidden(Exception): ...

            raise Hidden("nobody can import me")
        case "canceled":
            raise asyncio.CancelledError
        case _:
            return await ctx.promise(str, "never")


@workflow
async def watches(ctx: Context, how: str) -> list[Any]:
    child = ctx.options(timeout=timedelta(hours=1)).call(ends, how)
    try:
        return ["returned", await child]
    except Declined as error:
        return ["itself", error.code, error.why]
    except PromiseRejected as error:
        return ["rejected", error.id, error.type, error.error_message]
    except PromiseTimedOut as error:
        return ["timed out", error.id]
    except PromiseCanceled as error:
        return ["canceled", error.id, error.reason]


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("known", ["itself", 402, "no money"]),
        ("unknown", ["rejected", "w~ends", "Hidden", "nobody can import me"]),
        ("canceled", ["canceled", "w~ends", "canceled by its own code"]),
        ("by a person", ["canceled", "w~ends", "not today"]),
        ("late", ["timed out", "w~ends"]),
    ],
)
async def test_each_end_of_a_child_is_told_as_what_it_is(
    stage: Stage, clock: Clock, how: str, told: list[Any]
) -> None:
    stage.work(ends, watches)
    handle = await stage.troth.start("w", watches, how)
    if how in ("by a person", "late"):
        await stage.reaches("w~ends", "suspended")
        if how == "late":
            clock.advance(timedelta(hours=1))
        else:
            await stage.troth.cancel("w~ends", "not today")
    found = await handle.result(60)
    if how == "unknown":
        assert found[2].endswith("Hidden")
        found[2] = "Hidden"
    assert found == told


@workflow
async def fails_among_others(ctx: Context) -> list[str]:
    async with asyncio.TaskGroup() as group:
        for how in ("known", "waits"):
            group.create_task(_of(ctx, how), name=how)
    return []


async def _of(ctx: Context, how: str) -> None:
    await ctx.call(ends, how)


async def test_a_failure_cancels_the_children_of_its_siblings(stage: Stage) -> None:
    stage.work(ends, fails_among_others)
    handle = await stage.troth.start("w", fails_among_others)
    with pytest.raises(PromiseRejected) as caught:
        await handle.result(60)
    assert caught.value.type == "ExceptionGroup"
    assert (await stage.troth.get("w~waits~ends")).state == "canceled"


# Timeouts: a call never outlasts its parent, what is started may.


@workflow
async def gives_time(ctx: Context) -> None:
    ctx.options(timeout=timedelta(days=1)).call(waits)
    ctx.options(timeout=timedelta(minutes=5)).call(waits)
    ctx.call(waits)
    ctx.options(timeout=timedelta(days=1)).start(waits)
    await ctx.start(waits)


@workflow
async def waits(ctx: Context) -> str:
    return await ctx.promise(str, "go")


async def test_a_called_child_never_outlasts_its_parents_timeout(stage: Stage, clock: Clock) -> None:
    stage.work(gives_time, waits)
    handle = await stage.troth.options(timeout=timedelta(hours=1)).start("w", gives_time)
    await stage.reaches("w", "suspended")
    for n in range(1, 6):
        await stage.reaches(f"w~waits{f':{n}' if n > 1 else ''}", "suspended")
    mine = (await stage.troth.get("w")).timeout_at
    assert mine is not None
    capped, shorter, none_given, started, endless = [
        await stage.troth.get(f"w~waits{n}") for n in ("", ":2", ":3", ":4", ":5")
    ]
    assert capped.timeout_at == none_given.timeout_at == mine
    assert shorter.timeout_at == shorter.created_at + timedelta(minutes=5)
    assert started.timeout_at == started.created_at + timedelta(days=1)
    assert endless.timeout_at is None
    clock.advance(timedelta(hours=1))
    with pytest.raises(PromiseTimedOut):
        await handle.result(60)
    for id in ("w~waits", "w~waits:2", "w~waits:3"):
        await stage.reaches(id, "timedout")
    assert (await stage.troth.get("w~waits:4")).pending
    assert (await stage.troth.get("w~waits:5")).pending


# IDs of one's own.


@workflow
async def gives_ids(ctx: Context, id: str, text: str, how: str = "call") -> str:
    mine = ctx.options(id=id)
    try:
        if how == "start":
            started = mine.start(answers, text)
            assert started.id == id
            return await started.result()
        return await mine.call(answers, text)
    except IdConflict as conflict:
        return f"conflict: {conflict.message}"


@pytest.mark.parametrize("how", ["call", "start"])
async def test_a_given_id_is_its_ticket_for_all_who_give_it(stage: Stage, how: str) -> None:
    stage.work(gives_ids, answers)
    both = [await stage.troth.start(f"w{n}", gives_ids, "shared-1", "same", how) for n in (1, 2)]
    assert [await each.result(60) for each in both] == ["same", "same"]
    assert SEEN == ["same"]
    # and a client is one of them, before and after
    assert await (await stage.troth.start("shared-1", answers, "same")).result(60) == "same"
    await (await stage.troth.start("shared-2", answers, "early")).result(60)
    third = await stage.troth.start("w3", gives_ids, "shared-2", "early", how)
    assert await third.result(60) == "early"
    assert SEEN == ["same", "early"]


@pytest.mark.parametrize("how", ["call", "start"])
async def test_a_given_id_that_is_something_else_is_a_conflict_that_code_can_catch(
    stage: Stage, how: str
) -> None:
    stage.work(gives_ids, answers, waits)
    await stage.troth.start("other-arguments", answers, "x")
    await stage.troth.start("other-function", waits)
    await stage.troth.create_promise(str, "latent")
    for id in ("other-arguments", "other-function", "latent"):
        handle = await stage.troth.start(f"w-{id}", gives_ids, id, "y", how)
        said = await handle.result(60)
        assert said.startswith(f"conflict: {id} is there already"), said
    # its own ID, which it would wait for for ever
    said = await (await stage.troth.start("w", gives_ids, "w", "y", how)).result(60)
    assert said.startswith("conflict: w is "), said
    assert "y" not in SEEN


@workflow
async def misnames(ctx: Context, how: str) -> str:
    try:
        match how:
            case "nested":
                await ctx.options(id="a~b").call(waits)
            case "long":
                await ctx.options(id="x" * 129).call(waits)
            case "arguments":
                untyped: Any = waits
                await ctx.call(untyped, 1)
            case _:
                await ctx.call("no name")
    except (InvalidId, InvalidArgument) as error:
        return type(error).__name__
    return "?"


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("nested", "InvalidId"),
        ("long", "InvalidId"),
        ("arguments", "InvalidArgument"),
        ("name", "InvalidArgument"),
    ],
)
async def test_a_child_that_cannot_be_is_refused_where_it_is_asked_for(
    stage: Stage, how: str, error: str
) -> None:
    stage.work(misnames)
    assert await (await stage.troth.start("w", misnames, how)).result(60) == error


# What the end of a workflow means to its children.


@workflow
async def lingers(ctx: Context) -> str:
    """Ends when it is told to; canceled, it cleans up first."""
    try:
        return await ctx.promise(str, "go")
    except asyncio.CancelledError:
        await ctx.run(see, "cleaned up")
        raise


@workflow
async def leaves(ctx: Context, how: str, close: Any) -> str:
    child = ctx.options(close=close).call(lingers)
    await ctx.run(see, "begun")
    if how == "raises":
        raise LookupError("gone wrong")
    if how == "is canceled":
        await child
    return "mine"


async def ended_as(how: str, handle: Any) -> None:
    if how == "raises":
        with pytest.raises(PromiseRejected, match="gone wrong"):
            await handle.result(60)
    elif how == "is canceled":
        with pytest.raises(PromiseCanceled, match="enough"):
            await handle.result(60)
    else:
        assert await handle.result(60) == "mine"


@pytest.mark.parametrize("keep", [1000, 0])
@pytest.mark.parametrize("how", ["returns", "raises", "is canceled"])
async def test_a_workflow_that_ends_cancels_its_calls_and_waits_for_their_cleaning_up(
    stage: Stage, how: str, keep: int
) -> None:
    aside = stage.work(lingers, queues=["default"], keep=keep)
    parent = await stage.troth.start("w", leaves, how, "cancel")
    stage.work(leaves, keep=keep)
    if how == "is canceled":
        await stage.reaches("w~lingers", "suspended")
        await stage.reaches("w", "suspended")
        await stage.troth.cancel("w", "enough")
    await ended_as(how, parent)
    tree = {each.id: each for each in await stage.troth.tree("w")}
    child = tree["w~lingers"]
    assert child.state == "canceled"
    assert settled_at(child) <= settled_at(tree["w"])
    if how == "is canceled":
        assert SEEN == ["begun", "cleaned up"]
        await stage.reaches("w~lingers~go", "canceled")
    await stage.stop(aside)


@pytest.mark.parametrize("how", ["returns", "raises", "is canceled"])
async def test_by_policy_it_waits_for_them_instead(stage: Stage, how: str) -> None:
    worker = stage.work(lingers, leaves)
    parent = await stage.troth.start("w", leaves, how, "wait")
    await stage.reaches("w~lingers", "suspended")
    if how == "is canceled":
        await stage.reaches("w", "suspended")
        await stage.troth.cancel("w", "enough")
    if how != "is canceled":
        await stage.reaches("w", "suspended")
        assert "begun" in SEEN
        # it has ended, but for its child: whoever goes on with it comes to the same end
        await stage.stop(worker)
        stage.work(lingers, leaves)
        assert (await stage.troth.get("w")).pending
        await stage.troth.resolve("w~lingers~go", "x")
        await ended_as(how, parent)
        assert (await stage.troth.get("w~lingers")).state == "resolved"
        assert "cleaned up" not in SEEN
    else:
        # the code gave up the wait by being canceled in it: that is its own word, and beats the policy
        await ended_as(how, parent)
        assert (await stage.troth.get("w~lingers")).state == "canceled"


async def test_a_cancel_ends_the_waiting_of_one_whose_code_has_ended(stage: Stage) -> None:
    stage.work(lingers, leaves)
    parent = await stage.troth.start("w", leaves, "returns", "wait")
    await stage.reaches("w~lingers", "suspended")
    await stage.reaches("w", "suspended")
    assert (await stage.troth.cancel("w", "enough")).answer == "requested"
    assert await parent.result(60) == "mine"
    assert (await stage.troth.get("w~lingers")).state == "canceled"
    assert SEEN == ["begun", "cleaned up"]


@workflow
async def leaves_two(ctx: Context) -> str:
    ctx.options(close="wait", name="slow").call(lingers)
    ctx.options(name="quick").call(lingers)
    await ctx.run(see, "begun")
    return "mine"


async def test_each_call_has_its_own_policy(stage: Stage) -> None:
    stage.work(lingers, leaves_two)
    parent = await stage.troth.start("w", leaves_two)
    await stage.reaches("w~quick", "canceled")
    await stage.reaches("w~slow", "suspended")
    assert (await stage.troth.get("w")).pending
    await stage.troth.resolve("w~slow~go", "x")
    assert await parent.result(60) == "mine"
    assert (await stage.troth.get("w~slow")).state == "resolved"


@workflow
async def returns_at_once(ctx: Context, width: int) -> str:
    for n in range(width):
        ctx.options(queue="nobody").call(echoes, n)
    return "done"


async def test_calls_asked_for_and_left_at_once_are_all_canceled(stage: Stage, db: Connection) -> None:
    """More of them than one turn records: none may be made after the others were canceled, and stay."""
    stage.work(returns_at_once)
    for n in range(3):
        handle = await stage.troth.start(f"w{n}", returns_at_once, 2300)
        assert await handle.result(60) == "done"
        states = db.execute(
            "select state, count(*) from promise where parent = %s group by 1", [f"w{n}"]
        ).fetchall()
        assert dict(states).keys() <= {"canceled"}


@workflow
async def gives_up(ctx: Context) -> str:
    try:
        async with asyncio.timeout(1.5):
            await ctx.call(lingers)
    except TimeoutError:
        pass
    await ctx.run(see, "gave up")
    return await ctx.promise(str, "last")


async def test_a_call_that_timed_out_in_the_code_is_canceled_and_not_waited_for(stage: Stage) -> None:
    stage.work(gives_up, lingers)
    handle = await stage.troth.start("w", gives_up)
    await stage.reaches("w~lingers", "canceled")
    assert (await stage.troth.get("w")).pending
    assert set(SEEN) == {"gave up", "cleaned up"}
    await stage.reaches("w", "suspended")
    await stage.troth.resolve("w~last", "end")
    assert await handle.result(60) == "end"


@workflow
async def gives_up_many(ctx: Context, width: int) -> str:
    nobody = ctx.options(queue="nobody")
    everyone = [nobody.call(echoes, n) for n in range(width)]
    await ctx.wait(bool, "go")
    for each in reversed(everyone):
        each.cancel()
    return await ctx.promise(str, "last")


async def test_many_calls_given_up_while_they_are_still_being_asked_for_are_all_canceled(
    stage: Stage, db: Connection
) -> None:
    """The value that decides is there already, so it is told with the first turn, and the rest is yet to be recorded."""
    await stage.troth.create_promise(bool, "go")
    await stage.troth.resolve("go", True)
    stage.work(gives_up_many)
    handle = await stage.troth.start("w", gives_up_many, 2300)

    def states() -> dict[str, int]:
        return dict(
            db.execute(
                "select state, count(*)::int from promise where parent = 'w' and id <> 'w~last' group by 1"
            ).fetchall()
        )

    await until(lambda: states() == {"canceled": 2300} or None, "all are canceled")
    await stage.reaches("w", "suspended")
    await stage.troth.resolve("w~last", "end")
    assert await handle.result(60) == "end"


# ctx.start: what goes on by itself.


@workflow
async def starts(ctx: Context, how: str) -> str:
    if how == "canceled":
        child = ctx.start(lingers)
        await child
    elif how == "in a branch":
        task = asyncio.create_task(_start(ctx), name="aside")
        await asyncio.sleep(0)
        assert not task.done()
    else:
        child = ctx.start(lingers)
        if how == "raised":
            raise LookupError("gone wrong")
        if how == "timed out":
            try:
                async with asyncio.timeout(0.1):
                    await child
            except TimeoutError:
                assert not child.done()
                await ctx.run(see, "no longer")
    return "mine"


async def _start(ctx: Context) -> None:
    ctx.start(lingers)
    await ctx.promise(bool, "never")


@pytest.mark.parametrize("how", ["returned", "raised", "canceled", "timed out", "in a branch"])
async def test_what_is_started_outlives_whoever_started_it(stage: Stage, how: str) -> None:
    stage.work(starts)
    handle = await stage.troth.start("w", starts, how)
    if how == "canceled":
        await stage.reaches("w", "suspended")
        await stage.troth.cancel("w", "enough")
        with pytest.raises(PromiseCanceled):
            await handle.result(60)
    elif how == "raised":
        with pytest.raises(PromiseRejected):
            await handle.result(60)
    else:
        assert await handle.result(60) == "mine"
    id = "w~aside~lingers" if how == "in a branch" else "w~lingers"
    assert (await stage.exists(id)).parent is None
    stage.work(lingers)
    await stage.reaches(id, "suspended")
    await stage.troth.resolve(f"{id}~go", "alone")
    assert await stage.troth.handle(id).result(60) == "alone"
    assert "cleaned up" not in SEEN


@workflow
async def starts_many(ctx: Context, width: int) -> int:
    for n in range(width):
        ctx.start(echoes, n)
    return width


async def test_thousands_started_as_the_last_thing_are_all_there(stage: Stage, db: Connection) -> None:
    stage.work(starts_many)
    assert await (await stage.troth.start("w", starts_many, 2300)).result(60) == 2300
    assert db.execute("select count(*) from promise where function = 'echoes'").fetchone() == (2300,)


@workflow
async def forgets(ctx: Context) -> str:
    async def aside() -> None:
        try:
            await ctx.run(see, "aside")
            await ctx.call(lingers)
        finally:
            await ctx.run(see, "wound up")

    task = asyncio.create_task(aside())
    await ctx.run(see, "main")
    await ctx.promise(bool, "p")
    assert not task.done()
    return "done"


async def test_s31_a_task_that_nobody_awaits_is_canceled_with_its_children(stage: Stage) -> None:
    stage.work(forgets, lingers)
    handle = await stage.troth.start("w", forgets)
    await stage.reaches("w~1~lingers", "suspended")
    await stage.reaches("w", "suspended")
    await stage.troth.resolve("w~p", True)
    assert await handle.result(60) == "done"
    assert set(SEEN) == {"aside", "main", "wound up", "cleaned up"}
    left = [each.id for each in await stage.troth.tree("w") if each.pending and each.function]
    assert left == []


# Somebody else's.


@workflow
async def joins(ctx: Context, id: str) -> list[Any]:
    try:
        return ["value", await ctx.wait(Page, id)]
    except PromiseRejected as error:
        return ["rejected", error.id, error.error_message]
    except PromiseCanceled as error:
        return ["canceled", error.id]


async def test_any_promise_of_the_namespace_can_be_waited_for(stage: Stage) -> None:
    stage.work(joins, counts, ends)
    await stage.troth.start("good", counts, Page(7, "seven"))
    await stage.troth.start("bad", ends, "known")
    await stage.troth.start("gone", ends, "canceled")
    told = [
        await (await stage.troth.start(f"w-{id}", joins, id)).result(60) for id in ("good", "bad", "gone")
    ]
    assert told == [
        ["value", {"number": 7, "text": "SEVEN"}],
        # whoever it belongs to may have other classes than this code: it is told as what it is, a rejection
        ["rejected", "bad", "(402, 'no money')"],
        ["canceled", "gone"],
    ]
    # what is told across families is kept here, whatever becomes of the other family
    (entry,) = await stage.troth.journal("w-good")
    assert bytes(entry.value) == b'{"text": "SEVEN", "number": 7}'


# Load and abuse.


def small(db: Connection, limit: str, most: int) -> None:
    """Make one of the namespace's limits small."""
    db.execute(
        f"create or replace function {limit}() returns integer language sql immutable as $$ select {most} $$"
    )


@workflow
async def breeds(ctx: Context) -> int:
    try:
        return 1 + sum(await asyncio.gather(ctx.call(breeds), ctx.call(breeds)))
    except LimitExceeded as error:
        await ctx.run(see, error.message)
        await ctx.sleep(timedelta(days=1))
        return 1


async def test_s72_a_fork_bomb_is_told_of_its_limit_and_ends_with_its_root(
    stage: Stage, db: Connection
) -> None:
    small(db, "_family_members_max", 100)
    stage.work(breeds)
    await stage.troth.start("w", breeds)
    await until(lambda: SEEN, "the limit is met")

    async def still() -> bool:
        rows = db.execute("select count(*) from task where state in ('ready', 'claimed')").fetchone()
        return rows == (0,)

    await until(still, "all wait")
    count = db.execute("select count(*) from promise where function = 'breeds'").fetchone()
    assert count is not None
    assert count[0] <= 101
    assert all("a family has at most 100" in each for each in SEEN)
    assert (await stage.troth.cancel("w", "enough")).answer == "requested"
    with pytest.raises(PromiseCanceled):
        await stage.troth.handle("w").result(60)
    assert db.execute("select count(*) from task").fetchone() == (0,)


async def test_s72_force_ends_a_tree_of_which_some_are_parked(stage: Stage, db: Connection) -> None:
    """Nobody who is parked answers a cancel."""
    small(db, "_family_members_max", 20)
    stage.work(breeds)
    handle = await stage.troth.start("w", breeds)
    live = "select count(*) from task where state in ('ready', 'claimed')"
    await until(lambda: SEEN and db.execute(live).fetchone() == (0,))
    for child in ("w~breeds", "w~breeds:2~breeds"):
        await stage.troth.halt(child)
    assert (await stage.troth.cancel("w", "enough", force=True)).answer == "settled"
    with pytest.raises(PromiseCanceled, match="enough"):
        await handle.result(60)
    await until(lambda: db.execute("select count(*) from task").fetchone() == (0,), "the tree has ended")


@workflow
async def asks_beyond_the_limit(ctx: Context) -> str:
    first = ctx.promise(bool, "first")
    try:
        await ctx.promise(bool, "second")
    except PromiseRejected as error:
        return f"{error.type}, {first.done()}"
    return "?"


async def test_s72_a_promise_beyond_the_limit_is_told_to_the_code(stage: Stage, db: Connection) -> None:
    small(db, "_children_max", 1)
    stage.work(asks_beyond_the_limit)
    handle = await stage.troth.start("w", asks_beyond_the_limit)
    assert await handle.result(60) == "troth.errors.LimitExceeded, False"


@workflow
async def asks_too_much(ctx: Context, width: int) -> list[str]:
    children = await asyncio.gather(*[ctx.call(echoes, n) for n in range(width)], return_exceptions=True)
    return [type(each).__name__ for each in children]


async def test_s72_too_many_children_of_one_workflow_are_refused_one_by_one(
    stage: Stage, db: Connection
) -> None:
    small(db, "_children_max", 5)
    stage.work(asks_too_much, echoes)
    handle = await stage.troth.start("w", asks_too_much, 7)
    assert await handle.result(60) == ["int"] * 5 + ["LimitExceeded"] * 2


WIDTH = 10_000


async def test_s74_a_fan_out_whose_worker_dies_in_the_middle_has_no_duplicates_and_no_gaps(
    stage: Stage, spawn: Spawn, db: Connection
) -> None:
    first = spawn(
        modules=["tests.engine.programs.children_tales"], kill_at='after:advance:5:"kind":"call"', lease_s=1
    )
    handle = await stage.troth.start("w", fans_out, WIDTH)
    assert await first.death() == -signal.SIGKILL
    made = db.execute("select count(*) from promise where parent = 'w'").fetchone()
    assert made is not None
    assert 0 < made[0] < WIDTH
    stage.work(fans_out, echoes)
    assert await handle.result(60) == sum(range(WIDTH))
    assert db.execute(
        "select count(*), count(distinct args ->> 'n'), bool_and(state = 'resolved') from promise where parent = 'w'"
    ).fetchone() == (WIDTH, WIDTH, True)
    assert db.execute("select count(*) from checkpoint where task = 'w'").fetchone() == (WIDTH,)


@workflow
async def keeps_many(ctx: Context, width: int) -> int:
    nobody = ctx.options(queue="nobody")
    return sum(await asyncio.gather(*[nobody.call(echoes, n) for n in range(width)]))


async def test_s96_to_cancel_a_parent_of_thousands_returns_at_once_and_they_follow(
    stage: Stage, db: Connection
) -> None:
    stage.work(keeps_many)
    handle = await stage.troth.start("w", keeps_many, WIDTH)
    # the worker lets go of it once all are asked for
    await until(lambda: db.execute("select count(*) from wait where task = 'w'").fetchone() == (WIDTH,))
    await stage.reaches("w", "suspended")
    with db.transaction():  # what the person waits for: one event, and nothing of the children
        assert db.execute("select cancel('w', 'enough') ->> 'answer'").fetchone() == ("requested",)
        assert db.execute(
            "select count(*) from promise where parent = 'w' and state = 'pending'"
        ).fetchone() == (WIDTH,)
        assert db.execute("select count(*) from closing").fetchone() == (0,)
    with pytest.raises(PromiseCanceled, match="enough"):
        await handle.result(60)
    assert db.execute("select state, count(*) from promise where parent = 'w' group by 1").fetchall() == [
        ("canceled", WIDTH)
    ]


# Crashes between a parent's words.

POINTS = {
    "before_the_children_are_asked_for": 'before:advance:1:"kind":"call"',
    "after_the_children_are_there": 'after:advance:1:"kind":"call"',
    "before_an_end_is_written": 'before:advance:1:"then":"finish"',
    "after_a_childs_step": 'after:advance:2:"kind":"step"',
}


@pytest.mark.parametrize("point", POINTS)
async def test_a_worker_dies_among_parents_and_children(
    stage: Stage, spawn: Spawn, tmp_path: Any, point: str
) -> None:
    modules = ["tests.engine.programs.children_tales"]
    first = spawn(modules=modules, kill_at=POINTS[point], lease_s=1)
    handle = await stage.troth.start("w", "has_two")
    assert await first.death() == -signal.SIGKILL
    spawn(modules=modules)
    assert await handle.result(60) == ["first", "second"]
    told = (tmp_path / "effects").read_text().splitlines()
    assert set(told) == {"parent", "first", "second"}
    assert len(told) <= 5
    assert sorted(each.id for each in await stage.troth.tree("w")) == ["w", "w~tells", "w~tells:2"]


# What type checkers see.

REVEALED = [
    "dict[str, int]",
    "float",
    "bool",
    "list[int]",
    "tuple[str, int]",
    "tuple[str, int]",
    "tuple[str, int]",
    "tuple[str, int]",
    "str",
    "bool",
    "Literal['yes', 'no']",
    "int | None",
    "set[str]",
    "set[int]",
    "set[int]",
    "frozenset[int]",
    "Any",
]


def checked(checker: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", checker, *options, str(ROOT / "tests/engine/typing/context_types.py")],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


def test_mypy_infers_what_a_context_gives() -> None:
    run = checked("mypy", "--strict")
    found = re.findall(r'type is "(.*)"', run.stdout)
    assert [
        each.replace("Literal['yes'] | Literal['no']", "Literal['yes', 'no']") for each in found
    ] == REVEALED
    assert run.returncode == 0, run.stdout


def test_pyright_infers_what_a_context_gives() -> None:
    run = checked("pyright", "--pythonpath", sys.executable)
    assert re.findall(r'Type of ".*" is "(.*)"', run.stdout) == REVEALED
    assert run.returncode == 0, run.stdout
