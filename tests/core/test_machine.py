"""The machine: how it is driven, what it answers, how it ends."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import warnings
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.core.driving import STARTED_AT, Failed, Run, digest_of, finish, promise, step, value
from troth.core import STEP, CanceledOutcome, Entry, Evicted, Machine, Raised, Returned, current
from troth.errors import InvalidId, WorkflowMisuse


def test_runs_until_idle_and_answers_what_was_issued_in_program_order() -> None:
    async def main() -> list[str]:
        first, second = step("a"), step("b")
        return [await first, await second, await step("a")]

    run = Run(main)
    assert run.turns == [[("a", "step", 0, digest_of("a")), ("b", "step", 0, digest_of("b"))]]
    assert run.tell("b", "B") == []
    assert run.open == ["a"]
    assert run.tell("a", "A") == ["a:2"]
    assert run.machine.open["a:2"].issued == 2
    assert not run.machine.done
    run.tell("a:2", "A2")
    assert run.machine.outcome == Returned(["A", "B", "A2"])
    assert run.open == []


def test_an_operation_knows_its_path_and_instant_at_once() -> None:
    async def main() -> str:
        await step("first")
        future = promise("approval")
        assert future.path == "approval"
        assert future.operation.at == STARTED_AT + 10
        return future.path

    run = Run(main)
    run.tell("first")
    assert value(run) == "approval"


def test_operations_name_the_line_that_issued_them() -> None:
    async def main() -> None:
        waiting = step("a")
        await asyncio.sleep(3)
        await waiting

    run = Run(main)
    first = main.__code__.co_firstlineno
    # `step` is the tests' own function: only frames of troth and asyncio are passed over.
    assert run.machine.open["a"].line == f"driving.py:{step.__code__.co_firstlineno + 2}"
    assert run.machine.open["timer"].line == f"test_machine.py:{first + 2}"


def test_a_timer_that_no_user_code_asked_for_has_no_line() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_later, 1, print)
        await step("a")

    run = Run(main)
    assert run.machine.open["timer"].line is None
    run.machine.evict()


def test_what_belongs_to_a_workflow_is_not_touched_from_outside() -> None:
    loops: list[asyncio.AbstractEventLoop] = []
    events: list[asyncio.Event] = []
    futures: list[asyncio.Future[Any]] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        event = asyncio.Event()
        events.append(event)
        futures.append(step("b"))
        futures[0].add_done_callback(print)
        task = asyncio.create_task(event.wait())
        await step("a")
        del task

    run = Run(main)
    with pytest.raises(WorkflowMisuse, match="from outside"):
        events[0].set()
    for seconds in (0, 1):
        with pytest.raises(WorkflowMisuse, match="from outside"):
            loops[0].call_later(seconds, print)
    run.machine.evict()
    futures[0].cancel()

    run = Run(main)
    run.tell("a")
    assert run.machine.done
    futures[1].cancel()  # late, and of no consequence: all is over


def test_a_context_is_of_no_use_in_another_thread() -> None:
    caught: list[BaseException] = []

    async def main() -> None:
        machine = current()

        def meddle() -> None:
            try:
                machine.issue(STEP, "b", None, None, finish)
            except WorkflowMisuse as error:
                caught.append(error)

        thread = threading.Thread(target=meddle)
        thread.start()
        thread.join()
        await step("a")

    run = Run(main)
    assert run.open == ["a"]
    assert len(caught) == 1
    run.machine.evict()


def test_code_cannot_evict_itself() -> None:
    async def main() -> None:
        current().evict()

    outcome = Run(main).machine.outcome
    assert isinstance(outcome, Raised)
    assert isinstance(outcome.exception, RuntimeError)


def test_finish_decides_what_the_code_gets() -> None:
    async def main() -> str:
        try:
            await step("a")
        except Failed as error:
            return f"caught {error}"
        return "nothing"

    run = Run(main)
    run.tell("a", "boom", state="rejected")
    assert value(run) == "caught boom"


def test_finish_may_refuse_with_control_flow_that_reaches_the_driver_and_not_the_code() -> None:
    class Halt(BaseException):
        pass

    def halt(_entry: Entry) -> None:
        raise Halt

    heard: list[type[BaseException]] = []

    async def main() -> None:
        try:
            await current().issue(STEP, "a", None, None, halt)
        except BaseException as error:
            heard.append(type(error))
            raise

    run = Run(main)
    with pytest.raises(Halt):
        run.tell("a")
    assert heard == []
    run.machine.evict()
    assert heard == [GeneratorExit]


def test_finish_that_raises_stop_iteration_does_not_end_the_code() -> None:
    def stop(_entry: Entry) -> None:
        raise StopIteration("odd")

    async def main() -> str:
        with pytest.raises(RuntimeError, match="StopIteration"):
            await current().issue(STEP, "a", None, None, stop)
        return "went on"

    run = Run(main)
    run.tell("a")
    assert value(run) == "went on"


def test_finish_that_raises_cancelled_error_cancels_the_future() -> None:
    def canceled(_entry: Entry) -> None:
        raise asyncio.CancelledError("gone")

    async def main() -> str:
        try:
            await current().issue(STEP, "a", None, None, canceled)
        except asyncio.CancelledError:
            return "canceled"
        return "nothing"

    run = Run(main)
    run.tell("a")
    assert value(run) == "canceled"


def test_a_failure_that_nobody_awaits_warns_nobody() -> None:
    async def main() -> None:
        step("a")
        await step("b")

    run = Run(main)
    run.tell("a", state="rejected")
    run.tell("b")
    gc.collect()
    assert run.machine.done
    assert run.reports == []


def test_time_is_that_of_the_last_entry_told() -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        seen: list[Any] = [loop.time(), current().now]
        await step("a")
        return [*seen, loop.time(), current().now]

    run = Run(main)
    run.tell("a", micros=1_500_001)
    assert value(run) == [0.0, STARTED_AT, 1.500001, STARTED_AT + 1_500_001]


def test_entries_come_one_by_one() -> None:
    async def main() -> None:
        await step("a")

    run = Run(main)
    good = run.entry(run.machine.open["a"])
    for seq in (0, 2):
        with pytest.raises(ValueError, match="one by one"):
            run.machine.feed(Entry(seq, "a", "step", 0, good.digest, "resolved", None, good.at))
    assert run.machine.told == 0
    run.feed(good)
    assert run.machine.done


def test_a_machine_starts_once_and_hears_nothing_before_or_after_its_life() -> None:
    async def main() -> None:
        await step("a")

    machine = Machine(main, started_at=0)
    with pytest.raises(RuntimeError, match="not started"):
        machine.feed(Entry(1, "a", "step", 0, None, "resolved", None, 0))
    machine.start()
    with pytest.raises(RuntimeError, match="started already"):
        machine.start()
    machine.evict()
    with pytest.raises(RuntimeError, match="evicted"):
        machine.feed(Entry(1, "a", "step", 0, None, "resolved", None, 0))


def test_what_the_code_raises_is_the_outcome() -> None:
    error = Failed("as it is")

    async def main() -> None:
        raise error

    outcome = Run(main).machine.outcome
    assert isinstance(outcome, Raised)
    assert outcome.exception is error


def test_a_cancel_request_is_an_event_and_the_clean_up_is_durable() -> None:
    async def main() -> None:
        try:
            await step("work")
        finally:
            await step("undo")

    run = Run(main)
    assert run.cancel() == ["undo"]
    assert not run.machine.done
    assert [one.path for one in run.machine.take_given_up()] == ["work"]
    run.tell("work", "too late")  # given up, yet its outcome may come: only time moves
    run.tell("undo")
    assert run.machine.outcome == CanceledOutcome()
    assert run.replay().machine.outcome == CanceledOutcome()


def test_code_may_survive_a_cancel_and_hear_a_second_one() -> None:
    async def main() -> int:
        heard = 0
        while heard < 2:
            try:
                await promise("forever")
            except asyncio.CancelledError:
                heard += 1
        return heard

    run = Run(main)
    assert run.cancel() == ["forever:2"]
    run.cancel()
    assert value(run) == 2


def test_branches_left_open_are_canceled_and_cleaned_up_before_the_end() -> None:
    log: list[str] = []

    async def branch(name: str) -> None:
        try:
            await step("work", name)
        finally:
            await step("undo", name)
            log.append(name)

    async def main() -> str:
        tasks = [asyncio.create_task(branch("x")), asyncio.create_task(branch("y"))]
        await step("main")
        del tasks
        return "returned"

    run = Run(main)
    assert run.tell("main") == ["1~undo", "2~undo"]
    assert not run.machine.done
    assert run.machine.outcome is None
    run.tell("2~undo")
    run.tell("1~work")
    assert not run.machine.done
    run.tell("1~undo")
    assert value(run) == "returned"
    assert log == ["y", "x"]
    log.clear()
    run.replay()
    assert log == ["y", "x"]


def test_what_a_clean_up_leaves_open_is_canceled_in_its_turn() -> None:
    async def orphan() -> None:
        await promise("never")

    async def branch() -> None:
        try:
            await promise("work")
        finally:
            task = asyncio.create_task(orphan())
            await step("undo")
            del task

    async def main() -> None:
        task = asyncio.create_task(branch())
        await asyncio.sleep(0)
        del task

    run = Run(main)
    assert "1~1~never" in run.open
    run.tell("1~undo")
    assert run.machine.done


def test_a_cancel_while_branches_clean_up_reaches_them() -> None:
    async def branch() -> None:
        try:
            await promise("work")
        finally:
            await promise("stuck")

    async def main() -> str:
        task = asyncio.create_task(branch())
        await asyncio.sleep(0)
        del task
        return "returned"

    run = Run(main)
    assert run.open == ["1~work", "1~stuck"]
    run.cancel()
    assert value(run) == "returned"


def test_a_branch_that_never_idles_ends_with_the_code() -> None:
    log: list[str] = []

    async def spin() -> None:
        for _ in range(10_000):
            await asyncio.sleep(0)
        log.append("never stopped")

    async def main() -> str:
        task = asyncio.create_task(spin())
        for _ in range(5):
            await asyncio.sleep(0)
        del task
        return "returned"

    assert value(Run(main)) == "returned"
    assert log == []


def test_late_entries_about_what_was_dropped_at_the_end_only_move_time() -> None:
    async def main() -> str:
        promise("p")
        return "returned"

    run = Run(main)
    assert run.last == []
    operation_entry = Entry(1, "p", "promise", 0, None, "resolved", True, STARTED_AT + 5)
    assert run.machine.done
    assert run.feed(operation_entry) == []
    assert run.machine.told == 1
    assert run.machine.now == STARTED_AT + 5
    run.cancel()
    assert value(run) == "returned"


def test_async_generators_left_open_are_closed_at_the_end_in_order() -> None:
    log: list[str] = []

    async def numbers(name: str) -> AsyncIterator[int]:
        try:
            for number in range(10):
                yield number
        finally:
            await step("close", name)
            log.append(name)

    async def main() -> str:
        async for _ in numbers("a"):
            break
        async for _ in numbers("b"):
            break
        gc.collect()
        assert log == []
        return "returned"

    run = Run(main)
    assert run.open == ["1~close"]
    run.tell("1~close")
    assert run.open == ["1~close:2"]
    run.tell("1~close:2")
    assert value(run) == "returned"
    assert log == ["a", "b"]
    run.replay()


def test_eviction_is_silent_and_issues_nothing() -> None:
    log: list[str] = []

    async def branch() -> None:
        try:
            await step("work")
        except Exception:
            log.append("swallowed")
        finally:
            log.append("finally")
            try:
                await step("undo")
            except Exception:
                log.append("swallowed")
            log.append("went on")

    async def timed() -> None:
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(branch())
            group.create_task(branch())
            try:
                await asyncio.sleep(10)
            finally:
                await asyncio.sleep(10)

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(1)

    async def main() -> None:
        task = asyncio.create_task(timed())
        async for _ in numbers():
            await asyncio.gather(branch(), asyncio.shield(branch()), promise("p"))
        del task

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = Run(main)
        before = run.open
        assert len(before) > 5
        run.machine.evict()
        run.machine.evict()
        gc.collect()
    assert log == ["finally"] * 4
    assert run.reports == []
    assert run.open == []


def test_eviction_lets_code_set_no_timer() -> None:
    log: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        try:
            await step("work")
        finally:
            for set_timer in (loop.call_later, loop.call_at):
                try:
                    set_timer(9, print)
                except Evicted:
                    log.append("refused")
            log.append("went on")

    run = Run(main)
    run.machine.evict()
    assert log == ["refused", "refused", "went on"]
    assert (run.open, run.reports) == ([], [])


def test_eviction_reaches_code_that_an_async_generator_waits_for() -> None:
    log: list[str] = []

    async def inner() -> None:
        try:
            await step("work")
        finally:
            log.append("finally")
            raise Failed  # which nobody hears, and nobody is warned of

    async def numbers() -> AsyncIterator[int]:
        await inner()
        yield 1

    async def main() -> None:
        async for _ in numbers():
            pass

    run = Run(main)
    run.machine.evict()
    gc.collect()
    assert log == ["finally"]


def test_eviction_frees_memory_without_the_collector() -> None:
    class Big:
        pass

    seen: list[weakref.ref[Big]] = []

    async def branch() -> None:
        big = Big()
        seen.append(weakref.ref(big))
        async with asyncio.timeout(9):
            await asyncio.gather(step("a"), asyncio.sleep(3))
        del big

    async def main() -> None:
        big = Big()
        seen.append(weakref.ref(big))
        async with asyncio.TaskGroup() as group:
            group.create_task(branch())
            group.create_task(branch())
        del big

    gc.collect()
    gc.disable()
    try:
        run = Run(main)
        machine = weakref.ref(run.machine._loop)
        assert len(seen) == 3
        run.machine.evict()
        assert [ref() for ref in seen] == [None] * 3
        del run
        assert machine() is None
    finally:
        gc.enable()


def test_a_machine_that_ended_leaves_nothing_for_the_collector() -> None:
    async def main() -> int:
        return len(await asyncio.gather(step("a"), step("b")))

    gc.collect()
    gc.disable()
    try:
        run = Run(main)
        run.finish_all()
        loop = weakref.ref(run.machine._loop)
        assert value(run) == 2
        del run
        assert loop() is None
    finally:
        gc.enable()


def test_code_that_swallows_even_generator_exit_is_left_after_a_while() -> None:
    class Shut(BaseException):
        pass

    tries = 0

    async def main() -> None:
        nonlocal tries
        while tries < 30:
            try:
                await asyncio.sleep(0) if tries else await step("a")
            except GeneratorExit:
                tries += 1
        raise Shut

    run = Run(main)
    run.machine.evict()
    assert tries == 30


def test_evicted_is_beyond_except_exception() -> None:
    assert not issubclass(Evicted, Exception)


def test_driven_from_a_plain_callback_of_a_host_loop() -> None:
    hosts: list[asyncio.AbstractEventLoop] = []

    async def main() -> str:
        assert asyncio.get_running_loop() is not hosts[0]
        return str(await step("a"))

    async def host() -> str:
        host_loop = asyncio.get_running_loop()
        hosts.append(host_loop)
        ended: asyncio.Future[str] = host_loop.create_future()

        def drive() -> None:
            try:
                run = Run(main)
                assert asyncio.get_running_loop() is host_loop
                run.tell("a", "told")
                ended.set_result(value(run))
            except BaseException as error:
                ended.set_exception(error)

        host_loop.call_soon(drive)
        result = await ended
        await asyncio.sleep(0)
        return result

    assert asyncio.run(host()) == "told"


def test_refuses_to_run_inside_a_task() -> None:
    async def main() -> None:
        await step("a")

    async def host() -> None:
        machine = Machine(main, started_at=0)
        with pytest.raises(RuntimeError, match="inside an asyncio task"):
            machine.start()
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def start() -> None:
            try:
                machine.start()
                ended.set_result(None)
            except BaseException as error:
                ended.set_exception(error)

        asyncio.get_running_loop().call_soon(start)
        await ended
        with pytest.raises(RuntimeError, match="inside an asyncio task"):
            machine.feed(Entry(1, "a", "step", 0, None, "resolved", None, 0))
        assert machine.told == 0
        machine.evict()

    asyncio.run(host())


def test_refuses_to_run_inside_another_machine() -> None:
    async def inner() -> None: ...

    async def main() -> str:
        with pytest.raises(RuntimeError, match="inside an asyncio task"):
            Machine(inner, started_at=0).start()
        return "refused"

    assert value(Run(main)) == "refused"


def test_driven_from_a_thread_that_has_no_loop() -> None:
    values: list[str] = []

    async def main() -> str:
        return str(await step("a"))

    def drive() -> None:
        run = Run(main)
        run.tell("a", "told")
        values.append(value(run))

    thread = threading.Thread(target=drive)
    thread.start()
    thread.join()
    assert values == ["told"]


def test_the_hosts_generator_hooks_come_back() -> None:
    import sys

    def firstiter(_generator: object) -> None: ...

    async def main() -> None:
        await step("a")

    before = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(firstiter=firstiter)
    try:
        run = Run(main)
        assert sys.get_asyncgen_hooks().firstiter is firstiter
        run.machine.evict()
        assert sys.get_asyncgen_hooks().firstiter is firstiter
    finally:
        sys.set_asyncgen_hooks(*before)


def test_context_variables_stay_inside() -> None:
    variable = contextvars.ContextVar("variable", default="outside")

    async def main() -> str:
        variable.set("inside")
        await step("a")
        return variable.get()

    run = Run(main)
    assert variable.get() == "outside"
    run.tell("a")
    assert value(run) == "inside"
    assert variable.get() == "outside"


def test_the_machine_is_known_only_inside() -> None:
    with pytest.raises(WorkflowMisuse, match="inside a workflow"):
        current()

    machines: list[Machine[Any]] = []

    async def tell() -> None:
        machines.append(current())
        await step("a")

    run = Run(tell)
    assert machines == [run.machine]
    with pytest.raises(WorkflowMisuse, match="outside its workflow"):
        run.machine.issue(STEP, "b", None, None, finish)
    assert run.open == ["a"]


def test_too_long_a_path_is_refused_where_it_is_issued() -> None:
    async def main() -> str:
        with pytest.raises(InvalidId, match="shorter"):
            step("x" * 21)
        task = asyncio.create_task(asyncio.sleep(1), name="y" * 15)
        with pytest.raises(InvalidId, match="shorter"):
            await task
        await step("x" * 20)
        return "went on"

    machine = Machine(main, started_at=0, path_length_max=20)
    assert [one.path for one in machine.start()] == ["x" * 20]
    machine.evict()


def test_an_exit_in_the_code_leaves_through_the_driver() -> None:
    async def main() -> None:
        await step("a")
        raise SystemExit(3)

    run = Run(main)
    with pytest.raises(SystemExit):
        run.tell("a")
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    run.machine.evict()


def test_errors_in_callbacks_are_reported_and_do_no_harm() -> None:
    async def main() -> None:
        def broken() -> None:
            raise Failed

        asyncio.get_running_loop().call_soon(broken)
        await step("a")

    run = Run(main)
    assert [type(report["exception"]) for report in run.reports] == [Failed]
    run.tell("a")
    assert run.machine.done


def test_the_watch_is_entered_around_every_run_of_code() -> None:
    class Watch:
        def __init__(self) -> None:
            self.inside = False
            self.entered = 0
            self.errors: list[object] = []

        def __enter__(self) -> None:
            self.inside = True
            self.entered += 1

        def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
            self.inside = False
            self.errors.append(kind)

    watch = Watch()
    seen: list[bool] = []

    async def main() -> None:
        try:
            seen.append(watch.inside)
            await step("a")
            seen.append(watch.inside)
            await step("b")
            raise SystemExit
        finally:
            seen.append(watch.inside)

    def driven(entries: int) -> None:
        machine = Machine(main, started_at=0, watch=watch)
        machine.start()
        for seq in range(1, entries + 1):
            assert not watch.inside
            (operation,) = machine.open.values()
            machine.feed(
                Entry(seq, operation.path, "step", operation.issued, operation.digest, "resolved", None, 0)
            )
        machine.evict()

    driven(1)
    assert seen == [True] * 3
    assert (watch.entered, watch.inside) == (3, False)
    with pytest.raises(SystemExit):
        driven(2)
    assert watch.errors[-1] is SystemExit
    assert seen == [True] * 6


def test_memory_of_what_is_told_is_not_kept() -> None:
    class Big:
        pass

    async def main() -> None:
        for _ in range(50):
            await step("a")

    run = Run(main)
    bigs = []
    for _ in range(40):
        big = Big()
        bigs.append(weakref.ref(big))
        (operation,) = run.machine.open.values()
        run.machine.feed(run.entry(operation, big))
        del big, operation
    gc.collect()
    assert [one for one in bigs if one() is not None] == []
    run.machine.evict()


def test_what_outlives_the_workflow_is_still_to_be_begun_after_its_end() -> None:
    async def ends_at_once() -> str:
        current().issue("start", "child", None, None, finish, binding="outlives")
        current().issue("promise", "left", None, None, finish)
        return "done"

    machine = Machine(ends_at_once, started_at=STARTED_AT)
    assert [operation.path for operation in machine.start()] == ["child"]
    assert machine.done
    assert list(machine.open) == ["child"]
    machine.feed(Entry(1, "child", "start", 0, None, "resolved", 1, STARTED_AT))
    assert not machine.open
