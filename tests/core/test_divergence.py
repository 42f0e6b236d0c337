"""Code that does something else than its journal says is found before it hears of the entry."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.core.driving import STARTED_AT, Run, promise, step
from troth.core import Entry, Machine, Returned, current
from troth.errors import Diverged

Main = Callable[[], Coroutine[Any, Any, Any]]


async def recorded() -> None:
    await step("reserve", 1)
    await step("charge", 2)
    await asyncio.gather(step("ship"), asyncio.sleep(5), promise("receipt"))


def journal() -> list[Entry]:
    run = Run(recorded)
    run.finish_all()
    return run.journal


def diverges(changed: Main, after: int) -> Diverged:
    """The divergence of the changed code, which must come exactly after so many entries, with nothing told."""
    machine = Machine(changed, started_at=STARTED_AT)
    machine.start()
    entries = journal()
    for entry in entries[:after]:
        machine.feed(entry)
    with pytest.raises(Diverged) as caught:
        machine.feed(entries[after])
    assert machine.told == after
    machine.evict()
    return caught.value


def test_the_same_code_does_not_diverge() -> None:
    machine = Machine(recorded, started_at=STARTED_AT)
    machine.start()
    for entry in journal():
        machine.feed(entry)
    assert machine.done


def test_s26_a_removed_step() -> None:
    async def changed() -> None:
        await step("reserve", 1)
        await asyncio.gather(step("ship"), asyncio.sleep(5), promise("receipt"))

    error = diverges(changed, 1)
    assert error.operation == "charge"
    assert error.recorded == "a step issued after entry 1"
    assert "a step issued after entry 1 at 'ship'" in error.issued


def test_s26_a_renamed_step_is_named_with_its_line() -> None:
    async def changed() -> None:
        await step("reserve", 1)
        await step("bill", 2)

    error = diverges(changed, 1)
    assert error.operation == "charge"
    assert error.issued == "a step issued after entry 1 at 'bill'"
    assert error.line is not None
    assert error.line.startswith("driving.py:")


def test_s26_an_inserted_step() -> None:
    async def changed() -> None:
        await step("reserve", 1)
        await step("check")
        await step("charge", 2)

    error = diverges(changed, 1)
    assert error.operation == "charge"
    assert "'check'" in error.issued


def test_s26_a_moved_step() -> None:
    async def changed() -> None:
        charge = step("charge", 2)
        await step("reserve", 1)
        await charge

    error = diverges(changed, 1)
    assert error.operation == "charge"
    assert (error.recorded.startswith("a step issued after entry 1"), error.issued[:27]) == (
        True,
        "a step issued after entry 0",
    )


def test_other_arguments() -> None:
    async def changed() -> None:
        await step("reserve", 1)
        await step("charge", 3)

    error = diverges(changed, 1)
    assert error.operation == "charge"
    assert "digest" in error.recorded
    assert error.recorded != error.issued


def test_of_many_others_a_few_are_named() -> None:
    async def changed() -> None:
        await asyncio.gather(*(step(f"s{n}") for n in range(10)))

    issued = diverges(changed, 0).issued
    assert issued.startswith("a step issued after entry 0 at 's0', ")
    assert issued.endswith(" at 's2' and 7 more")


def test_another_kind() -> None:
    async def changed() -> None:
        await promise("reserve")

    error = diverges(changed, 0)
    assert (error.recorded, error.issued) == ("a step issued after entry 0", "a promise issued after entry 0")


def test_another_duration() -> None:
    async def changed() -> None:
        await step("reserve", 1)
        await step("charge", 2)
        await asyncio.gather(step("ship"), asyncio.sleep(6), promise("receipt"))

    error = diverges(changed, 4)
    assert error.operation == "1~timer"
    assert error.recorded == "a timer issued after entry 2 of 5 s"
    assert error.issued == "a timer issued after entry 2 of 6 s"


def test_an_early_end() -> None:
    async def changed() -> None:
        await step("reserve", 1)

    error = diverges(changed, 1)
    assert error.issued == "nothing, for it has ended"
    assert error.line is None


def test_code_that_waits_for_nothing() -> None:
    async def changed() -> None:
        await step("reserve", 1)
        await asyncio.Event().wait()

    assert diverges(changed, 1).issued == "nothing that is still open"


def test_a_digest_that_was_opted_out_is_not_compared() -> None:
    entries = [
        Entry(one.seq, one.path, one.kind, one.issued, None, one.state, one.outcome, one.at)
        for one in journal()
    ]

    async def changed() -> None:
        await step("reserve", 100)
        await step("charge", 200)

    machine = Machine(changed, started_at=STARTED_AT)
    machine.start()
    for entry in entries[:2]:
        machine.feed(entry)
    assert machine.done


def with_cohorts(run: Run[Any]) -> list[Entry]:
    """The journal as a worker records it."""
    return [
        Entry(
            e.seq,
            e.path,
            e.kind,
            e.issued,
            e.digest,
            e.state,
            e.outcome,
            e.at,
            run.machine.cohort(e.issued or 0),
        )
        for e in run.journal
    ]


async def pair() -> None:
    await step("first")
    await asyncio.gather(step("a"), step("b"))


@pytest.mark.parametrize(
    ("names", "issued"),
    [
        (["a", "b", "extra"], "one of 3: a, b, extra"),
        (["a"], "one of 1: a"),
        (["a", "c"], "one of 2 others: a, c"),
        ([*"abcdefghijkl"], "one of 12: a, b, c, d, e, f, g, h, i, j and 2 more"),
    ],
)
def test_s26_what_was_issued_together_must_be_issued_together_again(names: list[str], issued: str) -> None:
    async def changed() -> None:
        await step("first")
        await asyncio.gather(*map(step, names))

    run = Run(pair)
    run.tell("first")
    run.tell("a")
    entries = with_cohorts(run)
    machine = Machine(changed, started_at=STARTED_AT)
    machine.start()
    machine.feed(entries[0])
    with pytest.raises(Diverged) as caught:
        machine.feed(entries[1])
    assert machine.told == 1
    assert (caught.value.operation, caught.value.recorded) == (
        "a",
        "one of 2 operations issued after entry 1",
    )
    assert caught.value.issued == issued
    assert str(caught.value.line).startswith("driving.py:")
    machine.evict()


def test_cohorts_are_positive_31_bit_numbers_with_their_size_above() -> None:
    async def main() -> None:
        for n in range(5_000):
            step(f"s{n}")
        await promise("p")
        async with asyncio.timeout(5):
            await asyncio.sleep(0)
        await asyncio.gather(step("a"), step("b"))
        await step("c")

    run = Run(main)
    assert run.machine.cohort(0) >> 19 == 4095
    run.tell("p")
    assert run.machine.cohort(1) >> 19 == 2, "what was taken back at once does not count"
    run.tell("s0")
    assert run.machine.cohort(2) == 0
    assert 0 < run.machine.cohort(0) < 2**31
    assert run.machine.cohort(0) == run.replay().machine.cohort(0)
    run.machine.evict()


def test_a_cohort_that_was_not_recorded_is_not_compared() -> None:
    run = Run(pair)
    run.tell("first")
    run.tell("b")
    entries = with_cohorts(run)
    entries[1] = Entry(2, "b", "step", 1, entries[1].digest, "resolved", None, STARTED_AT + 20)

    async def changed() -> None:
        await step("first")
        await asyncio.gather(step("a"), step("b"), step("extra"))

    machine = Machine(changed, started_at=STARTED_AT)
    machine.start()
    for entry in entries:
        machine.feed(entry)
    assert list(machine.open) == ["a", "extra"]
    machine.evict()


def by_hand(run: Run[Any], path: str, outcome: object, kind: str = "step") -> Entry:
    return Entry(run.machine.told + 1, path, kind, None, 1, "resolved", outcome, run.machine.now + 5)


def test_s62_an_entry_by_hand_is_for_its_step_wherever_that_was_issued() -> None:
    async def main() -> list[object]:
        return [await step("a", 1), await step("b", 2)]

    run = Run(main)
    run.tell("a", "A")
    run.feed(by_hand(run, "b", "by hand"))
    assert run.machine.outcome == Returned(["A", "by hand"])
    assert run.replay().machine.outcome == run.machine.outcome


def test_s62_an_entry_by_hand_may_be_there_before_its_step() -> None:
    async def main() -> list[object]:
        early = [await step("a"), asyncio.get_running_loop().time()]
        b = step("b")
        assert not b.done()
        return [*early, await b, await step("c")]

    run = Run(main)
    assert run.feed(by_hand(run, "b", "by hand")) == []
    assert run.feed(by_hand(run, "never", "asked for")) == []
    assert run.open == ["a"]
    assert run.tell("a", "A", micros=1_000_000) == ["c"], "b is settled as soon as it is issued"
    assert run.machine.cohort(3) >> 19 == 2
    run.tell("c", "C")
    assert run.machine.outcome == Returned(["A", 1.00001, "by hand", "C"])
    assert run.replay().machine.outcome == run.machine.outcome


def test_entries_by_hand_are_told_one_by_one_as_all_are() -> None:
    log: list[str] = []

    async def branch(name: str) -> None:
        await step(name)
        log.append(name)
        await asyncio.sleep(0)
        log.append(f"{name} went on")

    async def main() -> None:
        await step("go")
        await asyncio.gather(branch("a"), branch("b"))

    run = Run(main)
    run.feed(by_hand(run, "2~b", 2))
    run.feed(by_hand(run, "1~a", 1))
    run.tell("go")
    assert run.machine.done
    assert log == ["a", "a went on", "b", "b went on"]


def test_an_entry_by_hand_is_only_for_a_step_of_that_name() -> None:
    async def main() -> None:
        try:
            await promise("p")
        except Exception:
            pytest.fail("the code heard of it")

    run = Run(main)
    with pytest.raises(Diverged, match="settled by hand"):
        run.feed(by_hand(run, "p", "no"))
    run.machine.evict()

    async def later() -> None:
        await step("a")
        await main()

    run = Run(later)
    run.feed(by_hand(run, "p", "no"))
    with pytest.raises(Diverged, match="settled by hand"):
        run.tell("a")
    run.machine.evict()


def test_control_flow_in_an_entry_by_hand_reaches_the_driver() -> None:
    class Halt(BaseException):
        pass

    def halt(_entry: Entry) -> None:
        raise Halt

    async def main() -> None:
        await step("a")
        await current().issue("step", "b", None, None, halt)

    run = Run(main)
    run.feed(by_hand(run, "b", "unreadable"))
    with pytest.raises(Halt):
        run.tell("a")
    run.machine.evict()


def test_an_entry_is_told_once() -> None:
    async def main() -> None:
        await step("a")
        await step("b")

    run = Run(main)
    run.tell("a")
    first = run.journal[0]
    with pytest.raises(Diverged):
        run.machine.feed(Entry(2, "a", "step", 0, first.digest, "resolved", None, first.at))
    run.machine.evict()


def test_code_cannot_swallow_a_divergence() -> None:
    async def changed() -> None:
        while True:
            try:
                await step("other")
            except Exception:
                pytest.fail("the code heard of it")

    diverges(changed, 0)


def test_after_the_last_entry_new_operations_are_legal() -> None:
    async def changed() -> None:
        await recorded()
        await step("thank")

    machine = Machine(changed, started_at=STARTED_AT)
    machine.start()
    issued = [machine.feed(entry) for entry in journal()]
    assert [one.path for one in issued[-1]] == ["thank"]
    machine.evict()


def test_a_timer_that_was_taken_back_may_have_fired_all_the_same() -> None:
    async def main() -> str:
        try:
            async with asyncio.timeout(5):
                return str(await step("slow"))
        except TimeoutError:
            return "timed out"

    run = Run(main)
    timer = run.machine.open["timer"]
    run.feed(run.entry(run.machine.open["slow"], "answer"))
    assert run.machine.done
    run.feed(run.entry(timer))
    assert run.machine.now == STARTED_AT + 5_000_000
    with pytest.raises(Diverged):
        run.feed(run.entry(timer))


def test_a_timer_taken_back_at_once_never_was() -> None:
    async def main() -> None:
        async with asyncio.timeout(5):
            await asyncio.sleep(0)
        await step("a")

    run = Run(main)
    assert run.last == ["a"]
    assert run.open == ["a"]


PROBE = """
import sys
from tests.core.driving import *
import asyncio

async def tasks():
    async def branch(name):
        await step("work", name)
        return name
    group = {asyncio.create_task(branch(str(n))) for n in range(40)}
    order = []
    while group:
        for task in group:
            order.append(step("look", repr(sorted(order and [])), task.number).path)
        done, group = await asyncio.wait(group, return_when=asyncio.FIRST_COMPLETED)
        if len(group) < 37:
            break
    return order

async def strings():
    for name in {"alpha", "beta", "gamma", "delta", "epsilon"}:
        await step("fetch", name)

run = Run({"tasks": tasks, "strings": strings}[sys.argv[1]])
for _ in range(3):
    path = [one for one in run.open if one.endswith("work") or one.startswith("fetch")][-1]
    run.tell(path, path)
print(run.turns)
print([(e.seq, e.path, e.kind, e.issued, e.digest, e.state, e.outcome, e.at) for e in run.journal])
run.machine.evict()
"""


def probe(what: str, hash_seed: int) -> tuple[str, str]:
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": os.pathsep.join(sys.path)}
    answer = subprocess.run(
        [sys.executable, "-c", PROBE, what], env=environment, capture_output=True, text=True, check=True
    )
    turns, entries = answer.stdout.splitlines()
    return turns, entries


def test_s29_sets_of_tasks_are_walked_alike_in_every_process() -> None:
    assert len({probe("tasks", seed) for seed in (1, 2, 3)}) == 1


def test_s29_a_loop_over_a_set_of_strings_is_found() -> None:
    async def strings(order: list[str]) -> None:
        for name in order:
            await step("fetch", name)

    import ast

    _, text = probe("strings", 1)
    entries = [Entry(*fields) for fields in ast.literal_eval(text)]
    orders = {probe("strings", seed)[0] for seed in range(1, 5)}
    assert len(orders) > 1, "the probe must differ from process to process"
    machine = Machine(lambda: strings(["nothing", "like", "it"]), started_at=STARTED_AT)
    machine.start()
    with pytest.raises(Diverged, match="digest"):
        machine.feed(entries[0])
    machine.evict()
