"""The program that the workers of chaos run: workflows of every kind, whose results can be computed from outside.

Each call of a step is noted in a ledger (`ledger`): a plain step's on a connection of its own, a transactional one's in its own
transaction. What a step returns names the very call that brought it, so that the journal can be compared with the ledger.

A workflow returns a `Result`: a number that follows from its arguments and from what it was told, and what it was told of each
promise. `expected` computes the number without running anything.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import troth
from tests.proof.chaos.ledger import Hand
from troth import Context, PromiseCanceled, PromiseRejected, PromiseTimedOut, Retry, provided, step, workflow

TENACIOUS = Retry(attempts=None, first=0.1, factor=2, longest=2)
SILENT_S = 0.5
NEVER_S = 120.0


class Stumbled(Exception):
    """What a step raises that is to be tried again."""


@dataclass
class Said:
    """What a step brought, and which call of it."""

    value: int
    call: str
    kind: str


@dataclass
class Result:
    """What a workflow came to, and what it was told of promises: by ID, in words."""

    total: int
    told: dict[str, str] = field(default_factory=dict)


def make_hand() -> Hand:
    raise AssertionError("the crew gives each worker its hand")


# --- steps ---


def worked(number: int) -> int:
    """What `work` brings."""
    return number * 7 + 1


def booked(number: int) -> int:
    """What `book` brings."""
    return number * 3 + 2


@step(retry=TENACIOUS)
async def work(number: int, hand: Hand = provided(make_hand)) -> Said:
    call = await hand.note("plain")
    return Said(worked(number), call, "plain")


@step(retry=TENACIOUS)
async def stumble(number: int, hand: Hand = provided(make_hand)) -> Said:
    call = await hand.note("plain")
    if troth.step_info().attempt == 1:
        raise Stumbled(number)
    return Said(worked(number), call, "plain")


@step(retry=TENACIOUS)
async def ask(promise: str, hand: Hand = provided(make_hand)) -> Said:
    """As an e-mail would be sent: after the promise is there, perhaps twice."""
    assert promise
    return Said(0, await hand.note("plain"), "plain")


@step(retry=TENACIOUS)
async def book(connection: Any, number: int, hand: Hand = provided(make_hand)) -> Said:
    call = await hand.note_in(connection)
    return Said(booked(number), call, "transaction")


@step(retry=TENACIOUS)
async def rebook(connection: Any, number: int, hand: Hand = provided(make_hand)) -> Said:
    call = await hand.note_in(connection)
    if troth.step_info().attempt == 1:
        raise Stumbled(number)  # what it noted is rolled back
    return Said(booked(number), call, "transaction")


# --- workflows ---


async def heard(promise: troth.Promise[int], result: Result) -> int:
    """Wait for a person's decision; what it counts."""
    try:
        value = await promise
    except PromiseRejected:
        result.told[promise.id] = "rejected"
        return 1
    except PromiseCanceled:
        result.told[promise.id] = "canceled"
        return 2
    result.told[promise.id] = f"resolved {value}"
    return value


@workflow
async def steps(ctx: Context, number: int, count: int) -> Result:
    total = 0
    for n in range(count):
        said = await ctx.run(stumble if n == 1 else work, number + n)
        total += said.value
    return Result(total + (await ctx.transaction(book, number)).value)


@workflow
async def approval(ctx: Context, number: int) -> Result:
    result = Result(0)
    decision = ctx.promise(int, "decision")
    await ctx.run(ask, decision.id)
    result.total = await heard(decision, result)
    result.total += (await ctx.transaction(rebook, number)).value
    return result


@workflow
async def branches(ctx: Context, number: int, width: int) -> Result:
    result = Result(0)

    async def branch(n: int) -> int:
        said = await ctx.run(work, number + n)
        return said.value + (await ctx.transaction(book, number + n)).value

    async def vote(name: str) -> int:
        promise = ctx.promise(int, name)
        await ctx.run(ask, promise.id)
        return await heard(promise, result)

    async with asyncio.TaskGroup() as group:
        votes = [group.create_task(vote(name), name=name) for name in ("first", "second")]
        result.total += sum(await asyncio.gather(*[branch(n) for n in range(width)]))
    result.total += sum(each.result() for each in votes)
    return result


@workflow
async def timers(ctx: Context, number: int) -> Result:
    result = Result(0)
    await asyncio.sleep(0.2 + number % 5 / 10)
    result.total += await ctx.options(timeout=SILENT_S, default=5).promise(int, "silent-default")
    try:
        await ctx.options(timeout=SILENT_S).promise(int, "silent")
    except PromiseTimedOut:
        result.total += 11
    race = ctx.promise(int, "race")
    try:
        async with asyncio.timeout(0.3):
            result.total += await heard(race, result)
    except TimeoutError:
        await ctx.run(ask, race.id)  # once more; whether it comes to that, the journal knows
        result.total += await heard(race, result)
    await ctx.sleep(timedelta(seconds=0.1))
    result.total += (await ctx.run(work, number)).value
    return result


@workflow
async def family(ctx: Context, number: int, width: int) -> Result:
    legacy = ctx.options(id=f"{ctx.id}-legacy").start(steps, number, 2)
    ended = await asyncio.gather(
        ctx.call(approval, number), *[ctx.call(steps, number + n, 1 + n % 3) for n in range(width)]
    )
    result = Result(sum(each.total for each in ended))
    for each in ended:
        result.told.update(each.told)
    result.total += (await ctx.transaction(book, number)).value
    result.told["legacy"] = legacy.id
    return result


@workflow
async def called_off(ctx: Context, number: int) -> Result:
    """Waits for what never comes, until it is canceled; its compensation is durable."""
    await ctx.run(work, number)
    try:
        await ctx.options(timeout=NEVER_S).promise(int, "never")
    finally:
        undone = await ctx.run(work, -number)
        await ctx.transaction(book, undone.value)
    return Result(0)


WORKFLOWS = (steps, approval, branches, timers, family, called_off)


# --- what they must come to ---


def counted(told: str) -> int:
    """What a decision counts, as `heard` does it."""
    state, _, value = told.partition(" ")
    return {"rejected": 1, "canceled": 2}.get(state) or int(value)


def expected(name: str, number: int, size: int, told: dict[str, str]) -> int:
    """The total of a workflow that was told this."""
    decided = sum(counted(each) for key, each in told.items() if key != "legacy")
    match name:
        case "steps":
            return sum(worked(number + n) for n in range(size)) + booked(number)
        case "approval":
            return decided + booked(number)
        case "branches":
            return decided + sum(worked(number + n) + booked(number + n) for n in range(size))
        case "timers":
            return decided + 5 + 11 + worked(number)
        case "family":
            children = sum(expected("steps", number + n, 1 + n % 3, {}) for n in range(size))
            return decided + booked(number) + children + booked(number)
        case _:
            raise AssertionError(f"{name} has no result")


def promises_of(name: str, id: str) -> set[str]:
    """The promises that people decide in a workflow, by their IDs."""
    match name:
        case "approval":
            return {f"{id}~decision"}
        case "branches":
            return {f"{id}~first~first", f"{id}~second~second"}
        case "timers":
            return {f"{id}~race"}
        case "family":
            return {f"{id}~approval~decision"}
        case _:
            return set()
