"""What `troth_env` gives: workers that work when they are told to, a clock to be moved, steps noted and replaced."""

from __future__ import annotations

import asyncio
import itertools
from datetime import datetime, timedelta

import pytest

import troth
from tests.engine.testing_programs.orders import (
    approve,
    charge,
    forever,
    race,
    remind,
    reserve,
    send_email,
    with_two_branches,
)
from troth import Context, PromiseRejected, Retry, Troth, WrongState, workflow
from troth.testing import Environment, NotEnded, NotIdle
from troth.testing import environment as environment_module
from troth.testing.clock import Clock

DAY = timedelta(days=1)


async def test_a_workflow_waits_and_goes_on(troth_env: Environment) -> None:
    order = await troth_env.start("order-42", approve, "order-42")
    assert len(troth_env.steps) == 0, "nothing runs before it is told to"

    idle = await troth_env.run_until_idle()

    assert idle["order-42"].promises == ["order-42~approval"]
    assert str(idle) == "order-42 (approve) waits for promise order-42~approval"
    assert troth_env.steps.names() == ["send_email"]
    assert troth_env.steps[0].id == "order-42~send_email"
    with pytest.raises(NotEnded, match="waits for promise order-42~approval"):
        await troth_env.result(order)

    await troth_env.client.resolve("order-42~approval", True)
    assert troth_env.steps.times(charge) == 0, "nothing moves between two lines"
    assert not any(hand.gate.is_open for hand in troth_env._hands)
    assert await troth_env.run_until_idle() == {}
    assert await troth_env.result(order) == "receipt of 3 for order-42"
    assert troth_env.steps.of(charge)[0].kwargs == {"amount": 3}


async def test_run_moves_the_clock_to_the_end(troth_env: Environment) -> None:
    assert await troth_env.run(remind, 3) == ["1 days", "2 days", "3 days"]
    assert await troth_env.run(approve, "order-1") == "order-1: refused"


async def test_run_says_what_a_workflow_waits_for(troth_env: Environment) -> None:
    @workflow
    async def patient(ctx: Context) -> bool:
        return await ctx.promise(bool, "answer")

    with pytest.raises(NotEnded, match=r"patient-1 \(patient\) waits for promise patient-1~answer"):
        await troth_env.run(patient)


async def test_run_raises_what_the_workflow_ended_with(troth_env: Environment) -> None:
    @workflow
    async def broken(ctx: Context) -> None:
        raise ValueError("no such order")

    with pytest.raises(PromiseRejected, match="no such order"):
        await troth_env.run(broken)


async def test_time_moves_through_what_is_due_in_order(troth_env: Environment) -> None:
    await troth_env.start("race", race)
    await troth_env.advance(timedelta(hours=0.5))
    assert troth_env.steps.names() == []
    idle = await troth_env.advance(timedelta(hours=4))
    assert [each.args for each in troth_env.steps] == [("soon",), ("late",)]
    assert {each.kind for each in idle["race"].waits} == {"timer"}
    await troth_env.advance(timedelta(days=1))
    assert await troth_env.result(troth_env.client.handle("race", str)) == "timed out"


async def test_a_leap_is_not_an_advance(troth_env: Environment) -> None:
    order = await troth_env.start("remind", remind, 2)
    await troth_env.run_until_idle()
    troth_env.clock.advance(5 * DAY)  # past the first timer; the second one begins there
    await troth_env.run_until_idle()
    await troth_env.advance(DAY)
    assert await troth_env.result(order) == ["5 days", "6 days"]


async def test_a_promise_times_out(troth_env: Environment) -> None:
    order = await troth_env.start("order-1", approve, "order-1")
    await troth_env.advance(6.5 * DAY)
    with pytest.raises(NotEnded):
        await troth_env.result(order)
    await troth_env.advance(DAY)
    assert await troth_env.result(order) == "order-1: refused"


async def test_advance_reaches_what_takes_exactly_as_long(troth_env: Environment) -> None:
    """Each sleep begins some true milliseconds after the one before has ended."""
    order = await troth_env.start("order-1", approve, "order-1")
    reminder = await troth_env.start("remind", remind, 7)
    await troth_env.advance(7 * DAY)
    assert await troth_env.result(order) == "order-1: refused"
    assert (await troth_env.result(reminder))[-1] == "7 days"


async def test_time_does_not_run_back(troth_env: Environment) -> None:
    with pytest.raises(Exception, match="Time does not run back"):
        await troth_env.advance(-DAY)


async def test_a_workflow_without_end_is_noticed(
    troth_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment_module, "MOVES_MAX", 20)
    await troth_env.start("forever", forever)
    with pytest.raises(NotIdle, match="20 instants came due, and 80 days"):
        await troth_env.advance(100 * DAY)
    with pytest.raises(NotEnded, match="forever-1"):
        await troth_env.run(forever)


async def test_work_that_does_not_end_is_noticed(troth_env: Environment) -> None:
    stuck = asyncio.Event()

    async def waits(order: str) -> str:
        await stuck.wait()
        return order

    troth_env.replace(reserve, waits)
    await troth_env.start("two", with_two_branches, "x")
    with pytest.raises(NotIdle, match="1 claimed"):
        await troth_env.run_until_idle(within=0.3)
    stuck.set()
    assert await troth_env.run_until_idle() == {}


async def test_steps_are_replaced(troth_env: Environment) -> None:
    def free_of_charge(order: str, amount: int) -> str:
        return f"{order} was free, not {amount}"

    async def unreachable(order: str) -> str:
        raise OSError(f"no stock for {order}")

    troth_env.replace(charge, free_of_charge)
    assert await troth_env.run(with_two_branches, "o") == ["a was free, not 1", "b was free, not 1"]
    assert troth_env.steps.times(charge) == troth_env.steps.times("charge") == 2
    assert sorted(troth_env.steps.names("with_two_branches-1")) == ["charge", "charge", "reserve", "reserve"]
    troth_env.replace(reserve, unreachable)
    with pytest.raises(PromiseRejected, match="no stock for"):
        await troth_env.run(with_two_branches, "p")


async def test_unknown_work_is_told_and_not_waited_for(troth_env: Environment) -> None:
    troth_env.worker([approve])
    await troth_env.start("elsewhere", "somebody_elses")
    idle = await troth_env.run_until_idle()
    assert idle["elsewhere"].state == "ready"
    assert "no worker of this test runs 'somebody_elses'" in str(idle)


async def test_queues_are_kept_apart(troth_env: Environment) -> None:
    troth_env.worker([approve], queues=["mail"])
    await troth_env.client.options(queue="mail").start("a", approve, "a")
    await troth_env.client.options(queue="other").start("b", approve, "b")
    idle = await troth_env.run_until_idle()
    assert {each.id: each.state for each in idle.values()} == {"a": "suspended", "b": "ready"}


async def test_a_killed_worker_is_followed_by_another(troth_env: Environment) -> None:
    hand = troth_env.worker([with_two_branches])
    entered = asyncio.Event()
    tries: list[str] = []

    async def dies_at_first(order: str) -> str:
        tries.append(order)
        if len(tries) == 1:
            entered.set()
            await asyncio.Event().wait()
        return order

    troth_env.replace(reserve, dies_at_first)
    handle = await troth_env.start("two", with_two_branches, "x")
    running = asyncio.create_task(troth_env.run_until_idle())
    await entered.wait()
    hand.kill()
    await running
    assert len(hand.died) == 1
    assert troth_env.faults.calls["leave"] == 0, "it did not even take its leave"
    assert await troth_env.result(handle) == ["receipt of 1 for a", "receipt of 1 for b"]
    assert tries[0] in tries[1:], "what was not recorded runs again"


async def test_what_ends_a_worker_fails_the_test(troth_env: Environment) -> None:
    await troth_env.start("x", approve, "x")
    troth_env._connection.execute("drop function protocol() cascade")
    with pytest.raises(Exception, match="protocol"):
        await troth_env.run_until_idle()


async def test_the_client_and_the_clock_are_the_environments(
    troth_env: Environment, troth_client: Troth, troth_clock: Clock
) -> None:
    assert troth_client is troth_env.client
    assert troth_clock is troth_env.clock
    await troth_client.start("x", approve, "x")
    assert (await troth_env.run_until_idle())["x"].function == "approve"


async def test_two_tests_share_nothing(troth_env: Environment) -> None:
    assert await troth_env.client.search() == []
    await troth_env.start("order-42", approve, "of another test")


def test_only_an_unused_namespace_gets_a_movable_clock(troth_dsn: str) -> None:
    import psycopg

    from troth import SyncTroth
    from troth.schema import migrate

    with psycopg.connect(troth_dsn, autocommit=True) as connection:
        migrate(troth_dsn, schema="in_use")
        assert connection.execute("select to_regclass('in_use.test_clock')").fetchone() == (None,)
        with SyncTroth(troth_dsn, schema="in_use") as client:
            client.create_promise(bool, "asked")
        with pytest.raises(WrongState, match="its clock stays the true one"):
            Clock(connection, "in_use")


async def test_replacing_something_uncallable_is_refused(troth_env: Environment) -> None:
    with pytest.raises(Exception, match="cannot be called"):
        troth_env.replace(send_email, "nothing")  # type: ignore[arg-type]


class Mail:
    def __init__(self, host: str) -> None:
        self.host = host


def real_mail() -> Mail:
    raise AssertionError("a test must not reach the mail server")


async def by_mail(order: str, mail: Mail = troth.provided(real_mail)) -> str:
    return f"{order} by {mail.host}"


async def test_what_is_provided_is_replaced(troth_env: Environment) -> None:
    @workflow
    async def mailing(ctx: Context, order: str) -> str:
        return await ctx.run(by_mail, order)

    troth_env.provide(real_mail, lambda: Mail("nowhere"))
    assert await troth_env.run(mailing, "order-1") == "order-1 by nowhere"
    assert troth_env.steps.of(by_mail)[0].args == ("order-1",)


async def test_retries_come_in_their_time(troth_env: Environment) -> None:
    tried: list[datetime] = []

    async def unlucky() -> str:
        raise OSError("nobody home")

    async def lucky_at_last() -> str:
        tried.append(troth_env.clock.now())
        if len(tried) < 4:
            raise OSError("nobody home")
        return "done"

    @workflow
    async def insisting(ctx: Context) -> str:
        return await ctx.options(retry=Retry(attempts=5, first=3600, factor=2, longest=86400, jitter=0)).run(
            unlucky
        )

    troth_env.replace(unlucky, lucky_at_last)
    handle = await troth_env.start("insisting", insisting)
    idle = await troth_env.run_until_idle()
    assert [each.kind for each in idle["insisting"].waits] == ["retry"]
    await troth_env.advance(timedelta(hours=24))
    assert await troth_env.result(handle) == "done"
    assert [each.attempt for each in troth_env.steps] == [1, 2, 3, 4]
    pauses = [(after - before).total_seconds() for before, after in itertools.pairwise(tried)]
    assert [round(each / 3600, 1) for each in pauses] == [1.0, 2.0, 4.0]


async def test_children_run_beside_their_parents(troth_env: Environment) -> None:
    @workflow
    async def parent(ctx: Context) -> list[str]:
        first, _ = await asyncio.gather(ctx.call(with_two_branches, "a"), ctx.call(with_two_branches, "b"))
        return first

    troth_env.worker([parent, with_two_branches])
    assert await troth_env.run(parent) == ["receipt of 1 for a", "receipt of 1 for b"]
    assert (await troth_env.check_replays()).workflows == 3
