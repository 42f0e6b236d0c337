"""`crash_everywhere` comes to every point between workers and Postgres, and goes red where something depends on it."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from tests.engine.testing_programs.orders import approve, charge, reserve, send_email, with_two_branches
from troth import Context, Unreachable, calls, workflow
from troth.testing import CrashDiffers, Environment, InvariantBroken, Point, ReplayDiffers, StepCall
from troth.testing.faults import FAULT_KINDS, Faults, Gate, SeamPool


async def approved(env: Environment) -> str:
    order = await env.start("order-42", approve, "order-42")
    await env.run_until_idle()
    await env.client.resolve("order-42~approval", True)
    await env.run_until_idle()
    return await env.result(order)


async def test_a_human_in_the_loop_survives_a_crash_anywhere(troth_env: Environment) -> None:
    troth_env.worker([approve])
    report = await troth_env.crash_everywhere(approved, "receipt of 3 for order-42")
    crashed = Counter((point.function, point.kind) for point in report.crashed)
    # two claims brought something, and three turns were said at least: the promise, the first step, the end
    for kind in FAULT_KINDS:
        assert crashed["claim", kind] == 2
        assert crashed["advance", kind] >= 3
        assert crashed["tick", kind] >= 1
    assert len(report.missed) <= len(report.crashed) / 4, str(report.missed)


async def test_branches_and_time_survive_a_crash_anywhere(troth_env: Environment) -> None:
    @workflow
    async def slow(ctx: Context, order: str) -> list[str]:
        await ctx.sleep(timedelta(days=1))
        return await with_two_branches.fn(ctx, order)

    async def story(env: Environment) -> Any:
        handle = await env.start("slow", slow, "order")
        await env.advance(timedelta(days=2))
        return await env.result(handle)

    troth_env.worker([slow])
    troth_env.replace(charge, lambda order, amount: f"{order}!")
    report = await troth_env.crash_everywhere(
        story, ["a!", "b!"], functions=["claim", "advance"], kinds=["lost", "killed before", "killed after"]
    )
    assert len(report.crashed) >= 9
    assert troth_env.steps.names() == [], "each run has an environment of its own"


@pytest.mark.parametrize("kind", FAULT_KINDS)
async def test_transactions_survive_a_crash_at_their_end(troth_env: Environment, kind: Any) -> None:
    async def book(connection: Any, order: str) -> int:
        await connection.execute("create table if not exists public.booking (name text)")
        await connection.execute("insert into public.booking values ($1)", order)
        return int(await connection.fetchval("select count(*) from public.booking"))

    @workflow
    async def booking(ctx: Context, order: str) -> int:
        await ctx.run(send_email, order)
        return await ctx.transaction(book, order)

    async def story(env: Environment) -> Any:
        handle = await env.start("booking", booking, "order")
        await env.run_until_idle()
        assert bool(env._hands[0].died) == (env.faults.struck and kind.startswith("killed"))
        rows = env._connection.execute("select count(*) from public.booking").fetchone()
        return await env.result(handle), rows

    troth_env.worker([booking])
    report = await troth_env.crash_everywhere(story, (1, (1,)), functions=["commit_step"], kinds=[kind])
    assert [point.number for point in report.crashed] == [1]


async def test_a_scenario_that_counts_its_steps_goes_red_and_names_the_point(troth_env: Environment) -> None:
    """A step runs at least once: after a crash before its outcome is recorded it runs again."""

    async def counted(env: Environment) -> int:
        await approved(env)
        return env.steps.times(send_email)

    troth_env.worker([approve])
    with pytest.raises(CrashDiffers) as caught:
        await troth_env.crash_everywhere(counted, 1, functions=["advance"], kinds=["killed before"])
    assert "With a crash at advance #" in str(caught.value)
    assert "the worker died before it was sent, the scenario came to 2, not to 1" in str(caught.value)


async def test_memory_that_a_crash_would_lose_is_found(troth_env: Environment) -> None:
    """What a workflow keeps outside of its function is there again after a real crash only by chance."""
    begun: list[str] = []

    @workflow
    async def forgetful(ctx: Context) -> int:
        begun.append(ctx.id)
        await ctx.run(reserve, "x")
        return len(begun)

    async def story(env: Environment) -> int:
        begun.clear()
        handle = await env.start("forgetful", forgetful)
        await env.run_until_idle()
        return await env.result(handle)

    troth_env.worker([forgetful])
    with pytest.raises((CrashDiffers, ReplayDiffers)):
        await troth_env.crash_everywhere(story, 1)


async def test_an_undisturbed_run_must_come_to_what_is_expected(troth_env: Environment) -> None:
    troth_env.worker([approve])
    with pytest.raises(CrashDiffers, match="Undisturbed, the scenario came to"):
        await troth_env.crash_everywhere(approved, "something else")


async def test_a_failing_scenario_names_the_point(troth_env: Environment) -> None:
    async def asserting(env: Environment) -> None:
        await approved(env)
        assert not env.faults.struck, "it has struck"

    troth_env.worker([approve])
    with pytest.raises(
        CrashDiffers, match=r"(?s)With a crash at advance #1: it could not be sent:.*it has struck"
    ):
        await troth_env.crash_everywhere(asserting, None, functions=["advance"], kinds=["unsent"])


async def test_a_repeated_step_is_a_broken_invariant(troth_env: Environment) -> None:
    await troth_env.run(with_two_branches, "order")
    troth_env.check_invariants()
    troth_env._step_began(StepCall("with_two_branches-1", "9~charge", 1, "charge", (), {}))
    troth_env.check_invariants()
    troth_env._step_began(StepCall("with_two_branches-1", "1~charge", 1, "charge", ("a",), {"amount": 1}))
    with pytest.raises(
        InvariantBroken, match=r"(?s)called again.*with_two_branches-1~1~charge: charge\('a', amount=1\)"
    ):
        troth_env.check_invariants()
    troth_env.repeated.clear()


@pytest.mark.troth(invariants=False, replays=False)
async def test_a_broken_namespace_is_found(troth_env: Environment) -> None:
    await troth_env.start("order-42", approve, "order-42")
    await troth_env.run_until_idle()
    troth_env._connection.execute("delete from wait")
    with pytest.raises(InvariantBroken, match="I19 order-42"):
        troth_env.check_invariants()


async def test_a_closed_gate_lets_nothing_be_taken_up(troth_env: Environment) -> None:
    gate = Gate()
    pool = SeamPool(troth_env.dsn, "troth", size=1, faults=troth_env.faults, gate=gate, dies=lambda: None)
    ticking = asyncio.create_task(pool.run(calls.tick()))
    await pool.run(calls.protocol())
    assert not ticking.done()
    assert troth_env.faults.calls["tick"] == 0
    gate.open()
    await ticking
    pool.dead = True
    with pytest.raises(Unreachable):
        await pool.run(calls.protocol())
    await pool.close()


def test_a_fault_strikes_once_at_its_call() -> None:
    faults = Faults(Point("advance", 2, "lost"))
    assert [faults.strikes_before("advance") for _ in range(4)] == [False, True, False, False]
    assert faults.calls["advance"] == 4


def test_claims_count_when_they_bring_something() -> None:
    faults = Faults(Point("claim", 2, "killed after"))
    assert not faults.strikes_before("claim")
    faults.noted("claim", [])
    faults.noted("claim", ["task"])
    assert faults.strikes_before("claim")
    assert not faults.strikes_after("claim", [])
    assert faults.strikes_before("claim")
    assert faults.strikes_after("claim", ["task"])
    assert not faults.strikes_before("claim")
    assert faults.calls["claim"] == 2


def test_every_counted_call_is_a_point_of_each_kind() -> None:
    faults = Faults()
    for _ in range(3):
        faults.strikes_before("advance")
    faults.strikes_before("register")
    assert faults.points() == [Point("advance", n, kind) for n in (1, 2, 3) for kind in FAULT_KINDS]
    assert faults.points(kinds=["lost"], functions=["advance"]) == [
        Point("advance", n, "lost") for n in (1, 2, 3)
    ]
    assert str(Point("advance", 2, "lost")) == "advance #2: it was carried out, and its answer was lost"


async def test_a_worker_that_is_stopped_may_still_be_killed(troth_env: Environment) -> None:
    """The call that was to be its last waits for the kill, and would wait for ever."""
    hand = troth_env.worker([approve])
    hand.start()
    stopping = asyncio.create_task(hand.stop())
    await asyncio.sleep(0)
    hand.kill()
    await asyncio.wait_for(stopping, 60)
    assert len(hand.died) == 1
    assert not hand.running
