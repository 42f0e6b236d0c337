"""`patched`: a change on purpose. Code that was here before goes on as it was, at every replay."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from tests.core.driving import STARTED_AT, Run, finish, step, value
from troth.core import PATCH, Entry, Machine, current
from troth.errors import Diverged, WorkflowMisuse


async def old() -> str:
    await step("a")
    return f"old {await step('b')}"


async def new() -> str:
    await step("a")
    if current().patched("fix"):
        return f"new {await step('c')}"
    return f"old {await step('b')}"


def patches(entries: Iterable[Entry]) -> list[str]:
    return [entry.path for entry in entries if entry.kind == PATCH]


def replayed(main: object, entries: list[Entry], *, told: int | None = None, asked: int = 0) -> Machine[str]:
    machine: Machine[str] = Machine(main, started_at=STARTED_AT)  # type: ignore[arg-type]
    machine.foresee(max(len(entries), asked), patches(entries))
    machine.start()
    for entry in entries[:told]:
        machine.feed(entry)
    return machine


def test_at_the_end_of_the_journal_the_new_way_is_taken_and_the_patch_issued() -> None:
    run = Run(new)
    assert run.tell("a") == ["fix:patch", "c"]
    assert run.machine.open["fix:patch"].kind == PATCH
    assert run.machine.open["fix:patch"].line is not None
    run.tell("fix:patch")
    run.tell("c", "done")
    assert value(run) == "new done"
    again = replayed(new, run.journal)
    assert again.outcome == run.machine.outcome


def test_code_that_was_here_before_goes_on_as_it_was() -> None:
    run = Run(old)
    run.tell("a")
    run.tell("b", "done")
    machine = replayed(new, run.journal)
    assert machine.outcome == run.machine.outcome
    assert machine.open == {}


def test_code_that_asked_for_something_here_was_here_though_nothing_came_of_it_yet() -> None:
    run = Run(old)
    run.tell("a")
    assert list(replayed(new, run.journal).open) == ["fix:patch", "c"]
    machine = replayed(new, run.journal, asked=2)
    assert list(machine.open) == ["b"]
    machine.evict()


def test_the_answer_to_a_patch_may_stand_further_on_in_the_journal() -> None:
    run = Run(new)
    run.tell("a")
    run.tell("c", "done")
    late = Entry(3, "fix:patch", PATCH, 1, None, "resolved", None, run.machine.now)
    machine = replayed(new, [*run.journal, late])
    assert machine.told == 3
    assert machine.outcome == run.machine.outcome


def test_what_is_told_ahead_is_not_foreseen() -> None:
    run = Run(new)
    run.machine.foresee(0, [])
    assert run.tell("a") == ["fix:patch", "c"]
    run.machine.evict()


def test_a_patch_is_decided_once_in_its_scope() -> None:
    async def main() -> list[bool]:
        asked = [current().patched("fix")]
        for _ in range(3):
            await step("a")
            asked.append(current().patched("fix"))
        return asked

    run = Run(main)
    assert run.last == ["fix:patch", "a"]
    run.finish_all()
    assert value(run) == [True] * 4
    assert patches(run.journal) == ["fix:patch"]

    async def unpatched() -> None:
        for _ in range(3):
            await step("a")

    before = Run(unpatched)
    before.tell("a")
    machine = replayed(main, before.journal)
    operation = machine.open["a:2"]
    machine.feed(Entry(2, "a:2", "step", 1, operation.digest, "resolved", None, STARTED_AT))
    assert list(machine.open) == ["a:3"], "the loop began the old way, and does not change in its midst"
    machine.evict()


def test_s27_each_branch_decides_for_itself() -> None:
    async def branch(changed: bool) -> str:
        await step("a")
        if changed and current().patched("fix"):
            return "new"
        return str(await step("b"))

    async def main(changed: bool) -> list[str]:
        return list(await asyncio.gather(branch(changed), branch(changed)))

    run = Run(lambda: main(False))
    run.tell("1~a")
    machine = replayed(lambda: main(True), run.journal, asked=2)
    assert list(machine.open) == ["2~a", "1~b"]
    operation = machine.open["2~a"]
    told = machine.feed(Entry(2, "2~a", "step", 0, operation.digest, "resolved", None, STARTED_AT + 20))
    assert [one.path for one in told] == ["2~fix:patch"]
    assert list(machine.open) == ["1~b", "2~fix:patch"]
    machine.evict()


def test_a_patch_changes_no_other_names_and_is_in_no_cohort() -> None:
    async def without() -> None:
        await asyncio.gather(step("fix"), step("fix"))

    async def with_it() -> None:
        current().patched("fix")
        await without()

    one, other = Run(without), Run(with_it)
    assert [path for path in other.last if path != "fix:patch"] == one.last == ["fix", "fix:2"]
    assert one.machine.cohort(0) == other.machine.cohort(0) > 0
    for run in (one, other):
        run.machine.evict()


def test_a_patch_that_the_code_no_longer_asks_about_is_passed_over() -> None:
    async def cleaned() -> str:
        await step("a")
        return f"new {await step('c')}"

    run = Run(new)
    run.tell("a")
    run.tell("fix:patch", micros=7)
    run.tell("c", "done")
    cohort = run.machine.cohort(1)
    machine = replayed(cleaned, run.journal)
    assert machine.outcome == run.machine.outcome
    assert machine.cohort(1) == cohort
    other = replayed(cleaned, run.journal, told=2)
    assert other.now == run.journal[1].at
    other.evict()


def test_an_entry_of_a_patch_is_only_for_a_patch() -> None:
    run = Run(new)
    run.tell("a")
    with pytest.raises(Diverged):
        run.feed(Entry(2, "c", PATCH, 1, None, "resolved", None, STARTED_AT))
    run.machine.evict()


def test_patches_are_asked_about_inside_only_and_have_good_names() -> None:
    async def main() -> None:
        with pytest.raises(WorkflowMisuse, match="cannot name"):
            current().patched("a:b")
        scope = current().scope("pay")
        assert current().patched("fix", scope=scope)
        await current().issue("step", "a", None, None, finish, scope=scope)

    run = Run(main)
    assert run.open == ["pay~fix:patch", "pay~a"]
    with pytest.raises(WorkflowMisuse, match="outside"):
        run.machine.patched("fix")
    run.machine.evict()


def test_a_patch_stays_open_as_long_as_the_workflow_waits_for_its_children() -> None:
    async def main() -> bool:
        current().issue("call", "child", None, None, finish, binding="wait")
        return current().patched("fix")

    run = Run(main)
    assert run.last == ["child", "fix:patch"]
    assert run.machine.closing
    run.tell("fix:patch")
    assert run.machine.closing
    run.tell("child")
    assert value(run) is True

    run = Run(main)
    run.tell("child")
    assert value(run) is True
    assert run.open == [], "what was not recorded by then need not be"
