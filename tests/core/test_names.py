"""Structural names: counted per scope, in program order, whoever runs first."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.core.driving import Run, finish, promise, step, value
from troth.core import checked_name, current
from troth.core.names import Scope
from troth.errors import WorkflowMisuse


def test_names_are_counted_per_scope() -> None:
    scope = Scope()
    assert [scope.path("a"), scope.path("b"), scope.path("a"), scope.path("a")] == ["a", "b", "a:2", "a:3"]
    first, second = scope.child(), scope.child()
    assert [first.path("a"), second.path("a"), second.child().path("a")] == ["1~a", "2~a", "2~1~a"]


def test_a_named_task_takes_no_number_and_shares_the_names() -> None:
    scope = Scope()
    assert scope.path("pay") == "pay"
    assert scope.child("pay").path("x") == "pay:2~x"
    assert scope.child("ship").path("x") == "ship~x"
    assert scope.path("ship") == "ship:2"
    assert scope.child().path("x") == "1~x"


@pytest.mark.parametrize("name", ["a", "a.b-c_d", "2a", "-1", "x" * 100, "it's(fine)", "a@b", ".."])
def test_good_names(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize("name", ["", "a~b", "a:2", "12", "a b", "ä", "a/b", "%41", "x" * 101, "a\n", "١"])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(WorkflowMisuse):
        checked_name(name)


def test_a_bad_name_is_refused_where_it_is_used() -> None:
    async def branch() -> None:
        ran.append("branch")
        await step("never")

    ran: list[str] = []
    tasks: list[asyncio.Task[None]] = []

    async def main() -> str:
        with pytest.raises(WorkflowMisuse, match="cannot name"):
            step("a:2")
        with pytest.raises(WorkflowMisuse, match="cannot name"):
            tasks.append(asyncio.create_task(branch(), name="a~b"))
        await asyncio.sleep(0)
        return "went on"

    run = Run(main)
    assert value(run) == "went on"
    assert (tasks, ran) == ([], [])


def test_given_names_name_the_scope_on_every_python() -> None:
    async def branch() -> None:
        await step("a")

    async def main() -> list[str]:
        tasks = [
            asyncio.create_task(branch()),
            asyncio.create_task(branch(), name="pay"),
            asyncio.create_task(branch()),
            asyncio.create_task(branch(), name="pay"),
        ]
        async with asyncio.TaskGroup() as group:
            tasks.append(group.create_task(branch(), name="in-group"))
            tasks.append(group.create_task(branch()))
        await asyncio.gather(*tasks)
        return [task.get_name() for task in tasks]

    run = Run(main)
    assert run.open == ["1~a", "pay~a", "2~a", "pay:2~a", "in-group~a", "3~a"]
    run.finish_all()
    names = value(run)
    assert [names[1], names[3], names[4]] == ["pay", "pay", "in-group"]
    assert all(names[n].startswith("Task-") for n in (0, 2, 5))
    assert run.replay().machine.outcome == run.machine.outcome


def test_a_name_given_late_is_only_for_people() -> None:
    async def branch(*, own: bool) -> None:
        if own:
            task = asyncio.current_task()
            assert task is not None
            task.set_name("own")
        await step("a")

    async def main() -> list[str]:
        first = asyncio.create_task(branch(own=False))
        second = asyncio.create_task(branch(own=True))
        first.set_name("late")
        await asyncio.wait([first, second])
        return [first.get_name(), second.get_name()]

    run = Run(main)
    assert run.open == ["1~a", "2~a"]
    run.finish_all()
    assert value(run) == ["late", "own"]


def test_timers_are_named_in_their_task() -> None:
    async def nap(seconds: float) -> None:
        await asyncio.sleep(seconds)
        await asyncio.sleep(seconds)

    async def main() -> None:
        async with asyncio.timeout(60):
            await asyncio.gather(nap(1), nap(2))

    run = Run(main)
    assert run.open == ["timer", "1~timer", "2~timer"]
    assert run.tell("2~timer") == ["2~timer:2"]


def test_callbacks_name_in_the_workflow_itself() -> None:
    async def branch() -> None:
        ready = asyncio.Event()

        def callback() -> None:
            promise("p")
            ready.set()

        asyncio.get_running_loop().call_soon(callback)
        await ready.wait()
        await step("a")

    async def main() -> None:
        await asyncio.gather(branch())

    assert Run(main).open == ["p", "1~a"]


def test_s20_each_branch_gets_its_own_values_whatever_the_order() -> None:
    """Three branches with three same-named steps each; a shared counter would swap their values on recovery."""
    import random

    async def branch(name: str) -> list[str]:
        return [await step("fetch", name, round_number) for round_number in range(3)]

    async def main() -> list[list[str]]:
        return list(await asyncio.gather(*(branch(name) for name in ("x", "y", "z"))))

    for seed in range(50):
        rng = random.Random(seed)
        run = Run(main)
        while not run.machine.done:
            operation = run.machine.open[rng.choice(run.open)]
            assert isinstance(operation.request, tuple)
            run.tell(operation.path, "{}{}".format(*operation.request))
        assert value(run) == [[f"{name}{n}" for n in range(3)] for name in "xyz"]
        assert value(run.replay()) == value(run)


def test_s21_distinct_names_are_distinct_operations() -> None:
    async def main() -> list[str]:
        return list(await asyncio.gather(step("a"), step("b"), step("c")))

    run = Run(main)
    for path in ("c", "a", "b"):
        run.tell(path, path)
    assert value(run) == ["a", "b", "c"]
    assert value(run.replay()) == ["a", "b", "c"]


def test_wait_for_names_alike_on_every_python() -> None:
    """It makes a task on Python 3.11 and none later on; neither is seen in a name, nor in what is begun first."""

    class Custom:
        def __await__(self) -> Any:
            return step("custom").__await__()

    async def branch(name: str) -> str:
        first = await step(name)
        inner = asyncio.create_task(step_of("inner"))
        return f"{first}{await inner}"

    async def step_of(name: str) -> str:
        return str(await step(name))

    async def waits(name: str) -> str:
        return await asyncio.wait_for(branch(name), 60)

    async def main() -> list[object]:
        both = await asyncio.gather(waits("a"), branch("a"))
        await asyncio.wait_for(Custom(), 5)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(branch("never"), 0)
        after = await asyncio.create_task(branch("a"))
        task = asyncio.current_task()
        assert task is not None
        return [*both, after, await asyncio.wait_for(named(), 5) == task.get_name()]

    async def named() -> str:
        task = asyncio.current_task()
        assert task is not None
        await step("named")
        return task.get_name()

    run = Run(main)
    assert run.open == ["1~timer", "1~a", "2~a"]
    assert run.tell("1~a", "x") == ["1~1~inner"]
    assert run.tell("2~a", "y") == ["2~1~inner"]
    run.tell("2~1~inner", "Y")
    assert run.tell("1~1~inner", "X") == ["timer", "custom"]
    assert run.tell("custom") == ["3~a"]
    run.tell("3~a", "z")
    run.tell("3~1~inner", "Z")
    assert run.last == ["timer:2", "named"]
    run.tell("named")
    assert value(run) == ["xX", "yY", "zZ", True]
    run.replay()


def test_a_task_inside_wait_for_gets_a_name_late_and_its_scope_none() -> None:
    async def branch() -> None:
        for task in tasks:
            task.set_name("other")
        await step("a")

    tasks: list[asyncio.Task[Any]] = []

    async def inner() -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        await asyncio.create_task(branch())
        await step("b")

    async def main() -> None:
        await asyncio.wait_for(asyncio.create_task(outer()), 9)

    async def outer() -> None:
        await asyncio.wait_for(inner(), 9)

    run = Run(main)
    assert run.open == ["timer", "1~timer", "1~1~a"]
    assert run.tell("1~1~a") == ["1~b"]
    run.machine.evict()


def test_scopes_are_counted_like_named_tasks() -> None:
    async def branch() -> None:
        await current().issue("step", "a", None, None, finish, scope=current().scope("pay"))

    async def main() -> None:
        machine = current()
        pay, again = machine.scope("pay"), machine.scope("pay")
        assert step("pay").path == "pay:3"
        for scope in (pay, again, pay):
            machine.issue("step", "a", None, None, finish, scope=scope)
        with pytest.raises(WorkflowMisuse, match="cannot name"):
            machine.scope("1")
        await asyncio.gather(branch())

    run = Run(main)
    assert run.open == ["pay:3", "pay~a", "pay:2~a", "pay~a:2", "1~pay~a"]
    with pytest.raises(WorkflowMisuse, match="outside"):
        run.machine.scope("pay")
    run.machine.evict()
