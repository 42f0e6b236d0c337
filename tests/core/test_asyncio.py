"""asyncio itself, inside a workflow: it works, and each replay does the same."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.core.driving import STARTED_AT, Failed, Run, litter, promise, step, value
from troth.core import CanceledOutcome, Raised
from troth.core.loop import MachineLoop
from troth.errors import WorkflowMisuse


def ended(run: Run[Any]) -> Any:
    """The value of the run, which a replay must have too."""
    assert run.replay().machine.outcome == run.machine.outcome
    return value(run)


def test_gather_keeps_the_order_of_its_arguments() -> None:
    async def branch(name: str) -> str:
        return f"{name}{await step('a')}"

    async def main() -> list[str]:
        return list(await asyncio.gather(branch("x"), branch("y"), branch("z")))

    run = Run(main)
    for path in ("3~a", "1~a", "2~a"):
        run.tell(path, path[0])
    assert ended(run) == ["x1", "y2", "z3"]


def test_gather_returns_exceptions() -> None:
    async def main() -> list[str]:
        results = await asyncio.gather(step("a"), step("b"), return_exceptions=True)
        return [type(one).__name__ for one in results]

    run = Run(main)
    run.tell("b", "no", state="rejected")
    run.tell("a", "yes")
    assert ended(run) == ["str", "Failed"]


def test_s25_a_failure_in_a_group_cancels_its_siblings() -> None:
    canceled: list[str] = []

    async def branch(name: str) -> None:
        try:
            await step("a")
        except asyncio.CancelledError:
            canceled.append(name)
            raise

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for name in ("x", "y", "z"):
                group.create_task(branch(name))

    run = Run(main)
    run.tell("2~a", "no", state="rejected")
    outcome = run.machine.outcome
    assert isinstance(outcome, Raised)
    assert isinstance(outcome.exception, ExceptionGroup)
    assert [type(one) for one in outcome.exception.exceptions] == [Failed]
    assert canceled == ["x", "z"]


def test_s22_a_timeout_takes_the_same_way_again() -> None:
    async def main() -> str:
        slow = step("slow")
        try:
            async with asyncio.timeout(0.1):
                return str(await slow)
        except TimeoutError:
            return f"late, then {await step('other')}"

    run = Run(main)
    assert run.machine.open["timer"].request == 100_000
    assert run.tell("timer") == ["other"]
    run.tell("slow", "answer")
    run.tell("other", "that")
    assert ended(run) == "late, then that"

    run = Run(main)
    run.tell("slow", "answer")
    assert ended(run) == "answer"


def test_wait_for() -> None:
    async def main() -> list[str]:
        seen = []
        for name in ("a", "b"):
            try:
                seen.append(str(await asyncio.wait_for(promise(name), 60)))
            except TimeoutError:
                seen.append("timed out")
        return seen

    run = Run(main)
    run.tell("a", "answer")
    assert run.open == ["b", "timer:2"]
    run.tell("timer:2")
    assert ended(run) == ["answer", "timed out"]


def test_wait_for_a_shielded_promise_may_wait_again() -> None:
    async def main() -> str:
        approval = promise("approval")
        reminders = 0
        while True:
            try:
                return f"{await asyncio.wait_for(asyncio.shield(approval), 60)} after {reminders}"
            except TimeoutError:
                reminders += 1
                await step("remind")

    run = Run(main)
    run.tell("timer")
    run.tell("remind")
    run.tell("timer:2")
    run.tell("remind:2")
    run.tell("approval", "yes")
    assert ended(run) == "yes after 2"


def test_s23_the_first_of_six_is_the_first_again() -> None:
    async def branch(name: str) -> str:
        await step("a")
        return name

    async def main() -> list[list[str]]:
        pending = {asyncio.create_task(branch(name)) for name in "uvwxyz"}
        rounds = []
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            rounds.append([task.result() for task in done] + [str(len(pending))])
        return rounds

    run = Run(main)
    for number in (4, 2, 6, 1, 3, 5):
        run.tell(f"{number}~a")
    assert ended(run) == [["x", "5"], ["v", "4"], ["z", "3"], ["u", "2"], ["w", "1"], ["y", "0"]]


@pytest.mark.parametrize("mode", [asyncio.ALL_COMPLETED, asyncio.FIRST_EXCEPTION, asyncio.FIRST_COMPLETED])
def test_wait_in_all_its_modes_and_with_a_timeout(mode: str) -> None:
    async def main() -> tuple[int, int]:
        tasks = [asyncio.create_task(asyncio.sleep(n)) for n in (1, 2, 30)]
        done, pending = await asyncio.wait(tasks, timeout=10, return_when=mode)
        return len(done), len(pending)

    run = Run(main)
    while not run.machine.done:
        operations = run.machine.open.values()
        run.tell(min(operations, key=lambda one: one.at + int(str(one.request))).path)
    assert ended(run) == ((1, 2) if mode == asyncio.FIRST_COMPLETED else (2, 1))


def test_as_completed_over_tasks() -> None:
    async def branch(name: str) -> str:
        await step("a")
        return name

    async def main() -> list[str]:
        tasks = [asyncio.create_task(branch(name)) for name in "xyz"]
        return [await one for one in asyncio.as_completed(tasks, timeout=60)]

    run = Run(main)
    for number in (3, 1, 2):
        run.tell(f"{number}~a")
    assert ended(run) == ["z", "x", "y"]


def test_as_completed_begins_coroutines_in_the_order_in_which_they_are_given() -> None:
    class Custom:
        def __await__(self) -> Any:
            return step("custom").__await__()

    async def branch(name: str) -> str:
        return f"{name} {await step('a', name)}"

    async def main() -> list[str]:
        first = asyncio.create_task(branch("first"))
        given = [first, *(branch(f"n{n}") for n in range(20)), Custom(), branch("last")]
        given.append(given[3])
        return [await one for one in asyncio.as_completed(given, timeout=60)]

    kept: list[object] = []
    for _ in range(5):
        run = Run(main)
        assert run.open == [*(f"{n}~a" for n in range(1, 22)), "22~custom", "23~a", "timer"] or run.open == [
            "timer",
            *(f"{n}~a" for n in range(1, 22)),
            "22~custom",
            "23~a",
        ]
        for path in reversed([one for one in run.open if one != "timer"]):
            run.tell(path, path)
        assert ended(run)[:3] == ["last 23~a", "22~custom", "n19 21~a"]
        kept.append([litter(random.Random(len(kept))), run])


def test_as_completed_over_what_has_no_order_is_refused() -> None:
    async def branch() -> None:
        await step("never")

    async def completed(given: Any) -> None:
        for one in asyncio.as_completed(given):
            await one

    async def main() -> list[str]:
        done = asyncio.create_task(asyncio.sleep(0))
        await done
        said = []
        coroutines = [branch(), branch()]
        for given in ({*coroutines}, iter(coroutines), reversed(coroutines), [done, *coroutines]):
            with pytest.raises(WorkflowMisuse) as caught:
                await completed(given)
            said.append(str(caught.value))
        other = asyncio.new_event_loop()
        for bad, kind in ((print, TypeError), (other.create_future(), ValueError)):
            coroutines.append(branch())
            with pytest.raises(kind):
                await completed([coroutines[-1], bad])
        await asyncio.sleep(0)
        other.close()
        for coroutine in coroutines:
            coroutine.close()
        return said

    run = Run(main)
    said = value(run)
    assert [("list of them" in one, "create_task" in one) for one in said] == [(True, False)] * 3 + [
        (False, True)
    ]
    assert run.turns == [[]]


def test_s24_queues_locks_and_semaphores_hand_over_in_order() -> None:
    async def main() -> list[str]:
        queue: asyncio.Queue[str] = asyncio.Queue(maxsize=1)
        lock, semaphore, log = asyncio.Lock(), asyncio.Semaphore(2), list[str]()
        ready, condition = asyncio.Event(), asyncio.Condition()

        async def producer(name: str) -> None:
            async with semaphore:
                await step("make", name)
                await queue.put(name)
            await ready.wait()
            async with condition:
                condition.notify()

        async def consumer() -> None:
            for _ in range(4):
                item = await queue.get()
                async with lock:
                    await step("use", item)
                    log.append(item)
            ready.set()
            async with condition:
                await condition.wait()

        async with asyncio.TaskGroup() as group:
            for name in "wxyz":
                group.create_task(producer(name))
            group.create_task(consumer())
        return log

    orders = set()
    for seed in range(20):
        rng = random.Random(seed)
        run = Run(main)
        while not run.machine.done:
            run.tell(rng.choice(run.open))
        orders.add(tuple(ended(run)))
    assert len(orders) > 1
    assert {tuple(sorted(order)) for order in orders} == {("w", "x", "y", "z")}


def test_shield_keeps_its_task_from_being_canceled() -> None:
    async def compensate() -> str:
        return str(await step("undo"))

    async def main() -> str:
        try:
            await step("work")
        except asyncio.CancelledError:
            undoing = asyncio.create_task(compensate())
            while True:
                try:
                    return str(await asyncio.shield(undoing))
                except asyncio.CancelledError:
                    continue
        return "never"

    run = Run(main)
    assert run.cancel() == ["1~undo"]
    run.cancel()
    run.tell("1~undo", "undone")
    assert ended(run) == "undone"


def test_canceling_a_task_gives_up_what_it_waits_for() -> None:
    async def main() -> object:
        task = asyncio.ensure_future(step("a"))
        await step("b")
        task.cancel()
        await step("c")
        return task.cancelled()

    run = Run(main)
    run.tell("b")
    assert [one.path for one in run.machine.take_given_up()] == ["a"]
    assert run.open == ["a", "c"]
    run.tell("a", "ignored")
    assert run.machine.take_given_up() == []
    run.tell("c")
    assert ended(run) is True


def test_cancelled_error_that_leaves_the_code_is_its_outcome() -> None:
    async def main() -> None:
        future = step("a")
        future.cancel()
        await future

    assert Run(main).machine.outcome == CanceledOutcome()


@pytest.mark.parametrize(
    ("seconds", "micros"),
    [(0.1, 100_000), (1, 1_000_000), (1e-6, 1), (2.5e-6, 2), (86_400 * 36_500, 3_153_600_000_000_000)],
)
def test_durations_are_whole_microseconds(seconds: float, micros: int) -> None:
    async def main() -> None:
        await asyncio.sleep(seconds)

    run = Run(main)
    operation = run.machine.open["timer"]
    assert (operation.request, operation.digest) == (micros, micros)
    run.tell("timer")
    assert run.machine.now == STARTED_AT + micros


def test_deadlines_come_back_to_exact_microseconds() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(50):
            async with asyncio.timeout(0.1):
                await step("a")
            async with asyncio.timeout_at(loop.time() + 3600.000001):
                await step("a")

    run = Run(main)
    while not run.machine.done:
        expected = 100_000 if len(run.journal) % 2 == 0 else 3_600_000_001
        timer = next(one for one in run.machine.open.values() if one.kind == "timer")
        assert timer.request == expected
        step_path = next(path for path in run.open if path != timer.path)
        run.tell(step_path, micros=99_999 if expected == 100_000 else 1_234_567_891)


@pytest.mark.parametrize("seconds", [0, -1, -float("inf"), 1e-7])
def test_s52_no_time_is_no_timer(seconds: float) -> None:
    async def main() -> str:
        await asyncio.sleep(seconds)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds):
                await promise("never")
        return "went on"

    assert value(Run(main)) == "went on"


@pytest.mark.parametrize("seconds", [float("inf"), 86_400 * 36_500 + 1, 1e300, 10**400])
def test_s52_too_long_is_refused(seconds: float) -> None:
    async def main() -> str:
        with pytest.raises((WorkflowMisuse, OverflowError), match=r"36500 days|too large"):
            await asyncio.sleep(seconds)
        with pytest.raises((WorkflowMisuse, OverflowError), match=r"36500 days|too large"):
            async with asyncio.timeout(seconds):
                await promise("never")
        return "refused"

    assert value(Run(main)) == "refused"


def test_s52_nan_is_refused() -> None:
    async def main() -> str:
        with pytest.raises((ValueError, WorkflowMisuse), match=r"(?i)nan"):
            await asyncio.sleep(float("nan"))
        with pytest.raises(WorkflowMisuse, match="nan"):
            async with asyncio.timeout(float("nan")):
                await promise("never")
        return "refused"

    assert value(Run(main)) == "refused"


def test_call_later_call_at_and_their_handles() -> None:
    async def main() -> list[str]:
        loop, log = asyncio.get_running_loop(), list[str]()
        later = loop.call_later(2, log.append, "later")
        at = loop.call_at(loop.time() + 1, log.append, "at")
        never = loop.call_later(3, log.append, "never")
        soon = loop.call_soon(log.append, "soon")
        dropped = loop.call_soon(log.append, "dropped")
        dropped.cancel()
        never.cancel()
        never.cancel()
        assert (later.when(), at.when()) == (2.0, 1.0)
        assert [one.cancelled() for one in (later, never, soon, dropped)] == [False, True, False, True]
        assert len({later, at, never}) == 3
        assert "timer" in repr(later)
        await step("a")
        return log

    run = Run(main)
    assert run.open == ["timer", "timer:2", "a"]
    run.tell("timer:2")
    run.tell("timer")
    run.tell("a")
    assert ended(run) == ["soon", "at", "later"]


def test_a_timers_handle_shows_the_context_it_will_run_in() -> None:
    async def main() -> bool:
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()
        handle: Any = loop.call_later(1, print, context=context)
        handle.cancel()
        return handle.get_context() is context

    assert value(Run(main)) is True


def test_only_a_coroutine_becomes_a_task() -> None:
    async def main() -> str:
        coroutine: Any = 5
        try:
            asyncio.get_running_loop().create_task(coroutine)
        except TypeError as error:
            return str(error)
        return "made"

    assert value(Run(main)) == "a coroutine was expected, got 5"


def test_what_code_makes_hashes_by_creation() -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        first = step("a")
        loop.create_future()  # asyncio's own: not the same number of them on every Python
        loop.call_later(9, print).cancel()
        task = asyncio.create_task(asyncio.sleep(0))
        gathered = asyncio.gather(step("b"), asyncio.sleep(0))
        futures = [loop.create_future(), loop.create_future()]
        assert hash(futures[1]) - hash(futures[0]) == 1
        return [hash(one) - hash(first) for one in (task, gathered, step("d"))]

    assert value(Run(main)) == [1, 4, 5]


def test_sets_of_gatherings_are_walked_in_the_order_of_creation() -> None:
    async def branch(name: str) -> str:
        return f"{name}{await step('a', name)}"

    async def main() -> list[Any]:
        gathered = {asyncio.gather(branch(f"x{n}"), branch(f"y{n}")) for n in range(30)}
        order = [(await step("look")) for one in gathered]
        done, _ = await asyncio.wait(gathered)
        return [order, [one.result() for one in done]]

    runs = []
    for seed in range(4):
        littered = litter(random.Random(seed))
        run = Run(main)
        run.finish_all()
        runs.append(run)
        assert ended(run) == value(runs[0])
        del littered


def test_suspended_tasks_do_not_crowd_asyncios_own_set() -> None:
    async def main() -> None:
        await asyncio.gather(*(asyncio.sleep(1) for _ in range(10)))

    runs = [Run(main) for _ in range(10)]
    tasks: Any = vars(asyncio.tasks)
    assert not [
        one for one in list(tasks.get("_scheduled_tasks", tasks.get("_all_tasks"))) if hash(one) < 1_000
    ]
    for run in runs:
        run.machine.evict()


def test_tasks_that_nobody_holds_are_not_collected() -> None:
    canceled: list[int] = []

    async def branch(number: int) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            canceled.append(number)
            raise

    async def main() -> None:
        for number in range(20):
            asyncio.create_task(branch(number))  # noqa: RUF006 — that is the test
        await asyncio.sleep(0)
        gc.collect()

    run = Run(main)
    assert run.machine.done
    assert canceled == list(range(20))


def test_many_tasks_are_not_kept_after_their_end() -> None:
    async def main() -> int:
        for _ in range(1_000):
            await asyncio.create_task(asyncio.sleep(0))
        loop = asyncio.get_running_loop()
        assert isinstance(loop, MachineLoop)
        return len(loop._tasks)

    assert value(Run(main)) < 50


@pytest.mark.parametrize(
    "misuse",
    [
        lambda loop: loop.run_in_executor(None, print),
        lambda loop: loop.call_soon_threadsafe(print),
        lambda loop: loop.create_connection(None, "localhost", 1),
        lambda loop: loop.add_signal_handler(2, print),
        lambda loop: loop.run_forever(),
        lambda loop: loop.set_task_factory(None),
        lambda loop: loop.subprocess_exec(None),
    ],
)
def test_what_has_no_place_in_a_workflow_is_refused_at_once(misuse: Callable[[Any], object]) -> None:
    async def main() -> None:
        misuse(asyncio.get_running_loop())

    outcome = Run(main).machine.outcome
    assert isinstance(outcome, Raised)
    assert isinstance(outcome.exception, WorkflowMisuse)
    assert ":" in str(outcome.exception)


def test_threads_and_sockets_through_asyncio_are_refused_with_the_way() -> None:
    async def main() -> list[str]:
        said = []
        for call in (
            asyncio.to_thread(print),
            asyncio.open_connection("localhost", 1),
            asyncio.create_subprocess_exec("x"),
        ):
            with pytest.raises(WorkflowMisuse) as caught:
                await call
            said.append(str(caught.value))
        return said

    assert all("ctx.run" in one for one in value(Run(main)))


def test_other_ways_to_drive_coroutines_are_refused() -> None:
    async def nothing() -> None: ...

    async def main() -> str:
        coroutine = nothing()
        with pytest.raises(RuntimeError, match="running event loop"):
            asyncio.run(coroutine)
        runner = asyncio.Runner()
        with pytest.raises(RuntimeError, match="running event loop"):
            runner.run(coroutine)
        with pytest.raises(WorkflowMisuse, match=r"ctx\.run"):
            asyncio.run_coroutine_threadsafe(coroutine, asyncio.get_running_loop())
        coroutine.close()
        return "refused"

    assert value(Run(main)) == "refused"


def test_every_method_of_an_event_loop_is_ours_or_refused() -> None:
    inherited = [
        name
        for name, member in inspect.getmembers(MachineLoop, callable)
        if not name.startswith("_") and getattr(asyncio.AbstractEventLoop, name, None) is member
    ]
    assert inherited == []


def test_a_task_made_past_the_loop_has_no_name() -> None:
    async def branch() -> None:
        await step("a")

    async def main() -> None:
        await asyncio.Task(branch(), loop=asyncio.get_running_loop())

    outcome = Run(main).machine.outcome
    assert isinstance(outcome, Raised)
    assert "asyncio.create_task" in str(outcome.exception)


def test_what_else_the_loop_says_of_itself() -> None:
    async def main() -> list[object]:
        loop = asyncio.get_running_loop()
        return [
            loop.is_running(),
            loop.is_closed(),
            loop.get_debug(),
            loop.get_task_factory(),
            loop.get_exception_handler(),
        ]

    run = Run(main)
    assert value(run) == [True, False, False, None, None]
    assert run.machine._loop.is_closed()
