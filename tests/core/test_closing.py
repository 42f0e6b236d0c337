"""What the code gives up, and what its end waits for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.core.driving import Run, finish, promise, step, value
from troth.core import Binding, CanceledOutcome, OperationFuture, Raised, current
from troth.errors import Diverged


def child(name: str, binding: Binding = "cancel") -> OperationFuture[Any]:
    return current().issue("call", name, None, None, finish, binding=binding)


def given_up(run: Run[Any]) -> list[str]:
    return [operation.path for operation in run.machine.take_given_up()]


def closing(run: Run[Any]) -> bool:
    return run.machine.closing


def test_what_is_given_up_is_told_once_in_order_and_stays_open() -> None:
    async def main() -> None:
        futures = [step("a"), promise("b"), child("c"), step("d")]
        await step("go")
        for future in reversed(futures):
            future.cancel()
            future.cancel()
        await step("on")

    run = Run(main)
    assert given_up(run) == []
    run.tell("go")
    assert given_up(run) == ["d", "c", "b", "a"]
    assert given_up(run) == []
    assert run.open == ["a", "b", "c", "d", "on"]
    run.tell("b", "ignored")
    run.replay()
    run.machine.evict()


def test_what_is_settled_meanwhile_is_not_given_up_any_more() -> None:
    async def main() -> None:
        future = promise("p")
        await step("a")
        future.cancel()
        await step("b")

    run = Run(main)
    run.tell("a")
    run.tell("p")
    assert given_up(run) == []
    run.machine.evict()


def test_a_wait_that_ends_canceled_is_not_given_up() -> None:
    async def main() -> None:
        def canceled(_entry: object) -> None:
            raise asyncio.CancelledError

        await current().issue("call", "c", None, None, canceled)

    run = Run(main)
    run.tell("c")
    assert run.machine.outcome == CanceledOutcome()
    assert given_up(run) == []


def test_eviction_gives_nothing_up() -> None:
    async def main() -> None:
        await asyncio.gather(child("c"), promise("p"))

    run = Run(main)
    run.machine.evict()
    assert given_up(run) == []


def test_eviction_ends_generators_that_somebody_still_holds() -> None:
    held: list[object] = []
    ended: list[int] = []

    async def numbers(n: int) -> AsyncIterator[int]:
        try:
            yield n
        finally:
            ended.append(n)

    async def main() -> None:
        for n in range(100):
            held.append(generator := numbers(n))
            assert await anext(generator) == n
        await step("a")

    run = Run(main)
    assert ended == []
    run.machine.evict()
    assert ended == [*reversed(range(100))]


def test_a_canceled_group_gives_up_its_children_in_the_order_of_its_branches() -> None:
    async def branch(n: int) -> None:
        await child(f"c{n}")

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for n in range(7):
                group.create_task(branch(n))
            await step("fail")

    run = Run(main)
    run.tell("fail", state="rejected")
    assert sorted(given_up(run)) == [f"{n + 1}~c{n}" for n in range(7)]
    assert run.machine.closing


@pytest.mark.parametrize("how", ["returns", "raises", "is canceled"])
def test_the_end_waits_for_children_and_gives_up_those_that_are_to_be_canceled(how: str) -> None:
    async def main() -> str:
        child("a", "cancel")
        child("b", "wait")
        child("loose", "")
        promise("p")
        outcome = await step("go")
        if outcome == "raises":
            raise ValueError(outcome)
        return "returned"

    run = Run(main)
    if how == "is canceled":
        run.cancel()
    else:
        run.tell("go", how)
    machine = run.machine
    assert (machine.closing, machine.done, machine.outcome) == (True, False, None)
    assert run.open == ["a", "b"]
    gone = ["go", "a"] if how == "is canceled" else ["a"]
    assert given_up(run) == gone[-1:], "what nobody waits for any more is not given up: it is gone"
    late = run.machine._ledger._taken_back["p"]
    run.feed(run.entry(late, "late"))
    run.tell("a", state="canceled")
    assert machine.closing
    run.tell("b", "in the end")
    assert (machine.closing, machine.done, run.open) == (False, True, [])
    kind = {"returns": "Returned", "raises": "Raised", "is canceled": "CanceledOutcome"}[how]
    assert type(machine.outcome).__name__ == kind
    again = run.replay().machine.outcome
    assert again == machine.outcome or (isinstance(again, Raised) and isinstance(machine.outcome, Raised))


def test_a_cancel_while_closing_gives_up_also_what_was_waited_for() -> None:
    async def main() -> None:
        child("a", "cancel")
        child("b", "wait")
        child("c", "wait").cancel()

    run = Run(main)
    assert run.machine.closing
    assert given_up(run) == ["c", "a"]
    run.cancel()
    assert given_up(run) == ["b"]
    run.cancel()
    assert given_up(run) == []
    for path in run.open:
        run.tell(path, state="canceled")
    assert value(run) is None
    run.replay()


def test_clean_up_goes_before_closing() -> None:
    async def branch() -> None:
        try:
            await child("c")
        finally:
            await step("undo")
            child("d", "wait")

    async def main() -> None:
        task = asyncio.create_task(branch())
        await step("a")
        del task

    run = Run(main)
    run.tell("a")
    assert not closing(run)
    assert given_up(run) == ["1~c"]
    assert run.tell("1~undo") == ["1~d"]
    assert closing(run)
    assert given_up(run) == []
    run.tell("1~d")
    run.tell("1~c")
    assert run.machine.done
    run.replay()


def test_a_closing_machine_judges_its_entries_and_can_be_evicted() -> None:
    async def main() -> None:
        child("c", "wait")

    run = Run(main)
    operation = run.machine.open["c"]
    with pytest.raises(Diverged, match="has ended"):
        run.feed(run.entry(type(operation)("x", "call", 0, None, None, 0)))
    assert "closing" in repr(run.machine)
    run.machine.evict()
    assert run.open == []
    with pytest.raises(Diverged):
        run.feed(run.entry(type(operation)("y", "call", 0, None, None, 0)))


def test_a_child_that_has_ended_binds_nothing() -> None:
    async def main() -> object:
        return await child("c")

    run = Run(main)
    run.tell("c", "value")
    assert value(run) == "value"


def test_ten_thousand_branches_clean_up_in_linear_time() -> None:
    """Counted, not timed: the end of the code looks at no branch twice."""
    looked = 0

    async def branch() -> None:
        try:
            await promise("p")
        finally:
            await step("undo")

    async def main() -> None:
        for _ in range(2_000):
            asyncio.create_task(branch())  # noqa: RUF006 — that is the test
        await asyncio.sleep(0)

    run = Run(main)
    machine = run.machine

    class Counting(list[Any]):
        def pop(self, *args: Any) -> Any:
            nonlocal looked
            looked += 1
            return super().pop(*args)

        def __iter__(self) -> Any:
            pytest.fail("all branches were looked at for one entry")

    machine._round = Counting(machine._round)
    for path in [one for one in run.open if one.endswith("undo")]:
        run.machine.feed(run.entry(machine.open[path]))
    assert machine.done
    assert looked == 2_000
