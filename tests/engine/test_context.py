"""What workflow code can ask of its context, live and replayed."""

import asyncio
import dataclasses
import enum
from datetime import timedelta
from typing import Any, Literal

import msgspec
import pytest

from tests.engine.running import Stage, until
from troth import (
    Context,
    IdConflict,
    InvalidArgument,
    PromiseCanceled,
    PromiseRejected,
    PromiseTimedOut,
    TrothError,
    ValueMismatch,
    WorkflowMisuse,
    step,
    workflow,
)
from troth.testing.clock import Clock

pytestmark = pytest.mark.filterwarnings("error")


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Point:
    x: int
    color: Color


async def double(n: int) -> int:
    return 2 * n


def double_in_a_thread(n: int) -> int:
    import threading

    assert threading.current_thread() is not threading.main_thread()
    return 2 * n


@step(name="tripled")
def triple(n: int) -> int:
    return 3 * n


async def paint(point: Point) -> Point:
    assert isinstance(point, Point)
    return Point(point.x + 1, Color.BLUE)


@workflow
async def all_kinds_of_steps(ctx: Context) -> list[Any]:
    return [
        await ctx.run(double, 1),
        await ctx.run(double_in_a_thread, n=2),
        await ctx.run(triple, 3),
        await ctx.options(name="fours").run(lambda: 4),
        await ctx.run(paint, Point(1, Color.RED)),
        await ctx.run(triple, 4),
    ]


async def test_steps_are_async_or_in_threads_and_are_named(stage: Stage) -> None:
    stage.work(all_kinds_of_steps)
    handle = await stage.troth.start("w", all_kinds_of_steps)
    assert await handle.result(60) == [2, 4, 9, 4, {"x": 2, "color": "blue"}, 12]
    journal = await stage.troth.journal("w")
    assert [each.operation for each in journal] == [
        "double",
        "double_in_a_thread",
        "tripled",
        "fours",
        "paint",
        "tripled:2",
    ]
    assert {each.kind for each in journal} == {"step"}


def takes_any(name: str, retry: int, timeout: str, id: str, queue: bool) -> list[Any]:
    return [name, retry, timeout, id, queue]


@workflow
async def s98(ctx: Context, name: str, timeout: str, id: str, queue: str, tags: str) -> list[Any]:  # noqa: PLR0917
    first = await ctx.run(takes_any, name=name, retry=1, timeout=timeout, id=id, queue=True)
    return [*first, queue, tags]


async def test_s98_arguments_called_as_options_are_arrive(stage: Stage) -> None:
    stage.work(s98)
    handle = await stage.troth.start("w", s98, name="n", timeout="t", id="i", queue="q", tags="g")
    assert await handle.result(60) == ["n", 1, "t", "i", True, "q", "g"]
    again = await stage.troth.options(queue="other", tags={"a": "b"}).start(
        "w", "s98", name="n", timeout="t", id="i", queue="q", tags="g"
    )
    assert await again.result(60) == ["n", 1, "t", "i", True, "q", "g"]


@workflow
async def asks_people(ctx: Context) -> list[Any]:
    with_all = ctx.options(
        timeout=timedelta(days=7), default=Color.BLUE, title="Which color?", tags={"for": "ann"}
    )
    color = with_all.promise(Color, "color")
    literal = ctx.promise(Literal["yes", "no"], "literal")
    union = ctx.promise(int | str | None, "union")
    point = ctx.promise(Point, "point")
    assert color.id == f"{ctx.id}~color"
    assert not color.done()
    return [(await color).name, await literal, await union, (await point).color.name]


async def test_promises_are_typed_titled_tagged(stage: Stage, clock: Clock) -> None:
    stage.work(asks_people)
    handle = await stage.troth.start("w", asks_people)
    await stage.reaches("w", "suspended")
    color = await stage.troth.get("w~color")
    assert (color.title, color.tags, color.latent, color.parent) == (
        "Which color?",
        {"for": "ann"},
        True,
        "w",
    )
    assert color.timeout_at is not None
    assert color.timeout_at - color.created_at == timedelta(days=7)
    await stage.troth.resolve("w~literal", "no")
    await stage.troth.resolve("w~union", None)
    await stage.troth.resolve("w~point", Point(1, Color.RED))
    clock.advance(timedelta(days=8))
    assert await handle.result(60) == ["BLUE", "no", None, "RED"]
    settled = await stage.troth.get("w~color")
    assert (settled.state, settled.settler) == ("resolved", "timeout")


@workflow
async def one_answer(ctx: Context) -> str:
    try:
        return f"value {await ctx.options(timeout=60).promise(bool, 'answer')}"
    except PromiseRejected as error:
        return f"rejected {error.id} {error.type} {error.error_message}"
    except PromiseCanceled as error:
        return f"canceled {error.id} {error.reason}"
    except PromiseTimedOut as error:
        return f"timed out {error.id}"
    except ValueMismatch as error:
        return f"mismatch {error.expected} {error.found}"


async def test_s39_each_end_of_a_promise_is_an_error_of_its_own(stage: Stage, clock: Clock) -> None:
    stage.work(one_answer)
    troth = stage.troth
    for name in ("value", "rejected", "canceled", "timedout", "mismatch"):
        await troth.start(name, one_answer)
        await stage.reaches(name, "suspended")
    await troth.resolve("value~answer", True)
    await troth.reject("rejected~answer", ValueError("too dear"))
    await troth.cancel("canceled~answer", "nobody cares")
    assert (await troth.resolve("mismatch~answer", "yes")).answer == "settled"
    assert await troth.handle("value").result(60) == "value True"
    assert await troth.handle("rejected").result(60) == "rejected rejected~answer ValueError too dear"
    assert await troth.handle("canceled").result(60) == "canceled canceled~answer nobody cares"
    assert await troth.handle("mismatch").result(60) == 'mismatch bool "yes"'
    clock.advance(timedelta(minutes=2))
    assert await troth.handle("timedout").result(60) == "timed out timedout~answer"


@workflow
async def lets_it_out(ctx: Context) -> bool:
    return await ctx.promise(bool, "answer")


async def test_a_value_of_the_wrong_type_ends_the_workflow_with_a_clear_error(stage: Stage) -> None:
    stage.work(lets_it_out)
    handle = await stage.troth.start("w", lets_it_out)
    await stage.exists("w~answer")
    await stage.troth.resolve("w~answer", "yes")
    with pytest.raises(PromiseRejected) as caught:
        await handle.result(60)
    assert caught.value.type == "troth.errors.ValueMismatch"
    assert "expected bool" in caught.value.error_message


async def test_s33_a_promise_created_and_resolved_beforehand_keeps_its_value(stage: Stage) -> None:
    created = await stage.troth.create_promise(bool, "w~answer")
    assert (await stage.troth.resolve("w~answer", True)).answer == "settled"
    handle = await stage.troth.start("w", lets_it_out)
    stage.work(lets_it_out)
    assert await handle.result(60) is True
    assert await created.result() is True


async def test_a_workflow_attaches_to_a_pending_promise_created_beforehand(stage: Stage) -> None:
    await stage.troth.create_promise(bool, "w~answer")
    handle = await stage.troth.start("w", lets_it_out)
    stage.work(lets_it_out)
    await stage.reaches("w", "suspended")
    await stage.troth.resolve("w~answer", False)
    assert await handle.result(60) is False


GATES: dict[str, asyncio.Event] = {}


async def pass_gate(name: str) -> str:
    await GATES.setdefault(name, asyncio.Event()).wait()
    return name


@workflow
async def decides_late(ctx: Context) -> bool:
    answer = ctx.promise(bool, "answer")
    await ctx.run(pass_gate, "s32")
    return await answer


async def test_s32_a_value_that_comes_before_the_await_is_kept(stage: Stage) -> None:
    stage.work(decides_late)
    handle = await stage.troth.start("w", decides_late)
    await stage.exists("w~answer")
    await stage.troth.resolve("w~answer", True)
    GATES.setdefault("s32", asyncio.Event()).set()
    assert await handle.result(60) is True
    GATES.clear()


@workflow
async def waits_for(ctx: Context, id: str) -> str:
    try:
        return f"got {await ctx.wait(int, id)}"
    except PromiseRejected as error:
        return f"failed {error.type}"
    except PromiseCanceled:
        return "canceled"


@workflow
async def returns_seven(ctx: Context) -> int:
    return 7


@workflow
async def fails(ctx: Context) -> int:
    raise LookupError("no such thing")


async def test_s47_several_workflows_wait_for_one_promise_or_for_another_workflow(stage: Stage) -> None:
    troth = stage.troth
    await troth.create_promise(int, "shared")
    await troth.options(delay=timedelta(seconds=0.3)).start("seven", returns_seven)
    await troth.start("failing", fails)
    for name, on in [("a", "shared"), ("b", "shared"), ("c", "seven"), ("d", "failing")]:
        await troth.start(name, waits_for, on)
    stage.work(waits_for, returns_seven, fails)
    for name in ("a", "b"):
        await stage.reaches(name, "suspended")
    await troth.resolve("shared", 3)
    assert await troth.handle("a").result(60) == "got 3"
    assert await troth.handle("b").result(60) == "got 3"
    assert await troth.handle("c").result(60) == "got 7"
    assert await troth.handle("d").result(60) == "failed LookupError"
    # the value of another family is a copy of its own in the journal
    (entry,) = await troth.journal("a")
    assert (entry.kind, entry.promise, bytes(entry.value)) == ("wait", "shared", b"3")


async def test_waiting_for_what_does_not_exist_parks_until_it_does(stage: Stage) -> None:
    stage.work(waits_for)
    handle = await stage.troth.start("w", waits_for, "later")
    assert (await stage.reason("w"))["code"] == "unknown_promise"
    await stage.troth.create_promise(int, "later")
    await stage.troth.resume("w")
    await stage.reaches("w", "suspended")
    await stage.troth.resolve("later", 1)
    assert await handle.result(60) == "got 1"


@workflow
async def sleeps(ctx: Context, days: int) -> list[str]:
    before = ctx.now()
    await ctx.sleep(timedelta(days=days))
    middle = ctx.now()
    await asyncio.sleep(0.05)
    await ctx.sleep(0)
    return [str((middle - before).days), str(ctx.now() - middle >= timedelta(seconds=0.05))]


async def test_s46_a_sleep_of_months_ends_when_the_clock_says_so(stage: Stage, clock: Clock) -> None:
    stage.work(sleeps)
    handle = await stage.troth.start("w", sleeps, 90)
    await stage.reaches("w", "suspended")
    clock.advance(timedelta(days=89))
    assert (await stage.reaches("w", "suspended")).pending
    clock.advance(timedelta(days=1))
    assert await handle.result(60) == ["90", "True"]


@workflow
async def asks_for_chance(ctx: Context) -> list[str]:
    first = [str(ctx.uuid4()), str(ctx.random.random()), ctx.now().isoformat()]
    await ctx.run(double, 1)
    second = [str(ctx.uuid4()), str(ctx.random.random()), ctx.now().isoformat()]
    await ctx.promise(bool, "again")
    SEEN.append(first + second)
    return first + second


SEEN: list[list[str]] = []


async def test_now_random_and_uuid4_are_the_same_at_a_replay(stage: Stage) -> None:
    SEEN.clear()
    first = stage.work(asks_for_chance)
    handle = await stage.troth.start("w", asks_for_chance)
    other = await stage.troth.start("other", asks_for_chance)
    await stage.reaches("w", "suspended")
    await stage.reaches("other", "suspended")
    await stage.stop(first)
    before = await stage.troth.journal("w")
    stage.work(asks_for_chance)
    await stage.troth.resolve("w~again", True)
    await stage.troth.resolve("other~again", True)
    result = await handle.result(60)
    assert len(set(result)) == 6
    assert result in SEEN
    assert result[0] != (await other.result(60))[0]
    assert result[5].startswith(before[0].instant.isoformat()[:19])


@workflow
async def keeps_options_apart(ctx: Context) -> list[str]:
    named = ctx.options(name="mine")
    await named.run(double, 1)
    await ctx.run(double, 2)
    titled = named.options(title="A title")
    first, second = titled.promise(int, "first"), ctx.promise(int, "second")
    await first
    await second
    return []


@workflow
async def passes_odd_arguments(ctx: Context) -> list[str]:
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    return [await ctx.run(kind_of, each) for each in (deep, object(), float("nan"), "x" * 2_000_000)]


def kind_of(thing: object) -> str:
    return type(thing).__name__


async def test_a_step_takes_any_object_for_nothing_of_it_is_stored(stage: Stage) -> None:
    stage.work(passes_odd_arguments)
    handle = await stage.troth.start("w", passes_odd_arguments)
    assert await handle.result(60) == ["list", "object", "float", "str"]


async def test_options_hold_for_what_is_called_through_them_only(stage: Stage) -> None:
    stage.work(keeps_options_apart)
    handle = await stage.troth.start("w", keeps_options_apart)
    await stage.reaches("w", "suspended")
    assert (await stage.troth.get("w~first")).title == "A title"
    assert (await stage.troth.get("w~second")).title is None
    await stage.troth.resolve("w~first", 1)
    await stage.troth.resolve("w~second", 2)
    await handle.result(60)
    assert [each.operation for each in await stage.troth.journal("w")] == [
        "mine",
        "double",
        "first",
        "second",
    ]


# Misuse: each is an error in the code, with what to do about it, and fails the workflow that did not catch it.


@workflow
async def misuses(ctx: Context, how: str) -> str:
    try:
        if how == "lambda":
            await ctx.run(lambda: 1)
        elif how == "name":
            await ctx.options(name="a~b").run(double, 1)
        elif how == "default":
            await ctx.options(default=True).promise(bool, "p")
        elif how == "default type":
            await ctx.options(default="x", timeout=1).promise(bool, "p")
        elif how == "timeout":
            await ctx.options(timeout=-1).promise(bool, "p")
        elif how == "thread":
            await asyncio.to_thread(double_in_a_thread, 1)
        elif how == "socket":
            await asyncio.open_connection("localhost", 1)
        elif how == "long sleep":
            await ctx.sleep(float("inf"))
    except (TrothError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


@pytest.mark.parametrize(
    ("how", "kind", "advice"),
    [
        ("lambda", InvalidArgument, "ctx.options(name=...)"),
        ("name", InvalidArgument, "letters"),
        ("default", InvalidArgument, "Give both"),
        ("default type", ValueMismatch, "expected bool"),
        ("timeout", InvalidArgument, "0 to 36500 days"),
        ("thread", WorkflowMisuse, "step"),
        ("socket", WorkflowMisuse, "step"),
        ("long sleep", WorkflowMisuse, "seconds"),
    ],
)
async def test_misuse_is_an_error_with_advice(stage: Stage, how: str, kind: type, advice: str) -> None:
    stage.work(misuses)
    handle = await stage.troth.start("w", misuses, how)
    said = await handle.result(60)
    assert said.startswith(f"{kind.__name__}: ")
    assert advice in said


LEAKED: list[Context] = []


async def uses_a_context(id: str) -> str:
    LEAKED[0].run(double, 1)
    return "it went"


async def test_a_context_used_outside_its_workflow_says_so(stage: Stage) -> None:
    @workflow
    async def leaks(ctx: Context) -> str:
        LEAKED[:] = [ctx]
        try:
            return await ctx.run(uses_a_context, ctx.id)
        except WorkflowMisuse as error:
            return f"refused: {error}"

    stage.work(leaks)
    said = await (await stage.troth.start("w", leaks)).result(60)
    assert said.startswith("refused: ")
    assert "outside its workflow" in said
    LEAKED.clear()


# Cancel.

CLEANED: list[str] = []


async def clean_up(what: str) -> None:
    CLEANED.append(what)


@workflow
async def cleans_up(ctx: Context) -> str:
    try:
        await ctx.promise(bool, "never")
        return "?"
    finally:
        await ctx.run(clean_up, "the table")


async def test_a_canceled_workflow_cleans_up_durably_and_ends_canceled(stage: Stage) -> None:
    CLEANED.clear()
    stage.work(cleans_up)
    handle = await stage.troth.start("w", cleans_up)
    await stage.reaches("w", "suspended")
    assert (await stage.troth.cancel("w", "no more")).answer == "requested"
    with pytest.raises(PromiseCanceled) as caught:
        await handle.result(60)
    assert caught.value.reason == "no more"
    assert CLEANED == ["the table"]
    assert [e.operation for e in await stage.troth.journal("w")] == ["~cancel", "clean_up"]
    # what it left open is canceled with it
    await stage.reaches("w~never", "canceled")


@workflow
async def steps_on(ctx: Context) -> str:
    try:
        await ctx.run(pass_gate, "cancel")
    except asyncio.CancelledError:
        return "I went on"
    return "?"


async def test_cancel_reaches_a_workflow_whose_step_is_under_way(stage: Stage) -> None:
    stage.work(steps_on)
    handle = await stage.troth.start("w", steps_on)
    await until(lambda: "cancel" in GATES)
    assert (await stage.troth.cancel("w")).answer == "requested"
    assert await handle.result(60) == "I went on"
    GATES.clear()


async def test_cancel_before_the_first_claim_runs_no_code(stage: Stage) -> None:
    handle = await stage.troth.start("w", returns_seven)
    assert (await stage.troth.cancel("w")).answer == "settled"
    stage.work(returns_seven)
    with pytest.raises(PromiseCanceled):
        await handle.result(60)
    assert (await stage.troth.cancel("w")).answer == "already"


# Structured concurrency, and asyncio itself.


@workflow
async def races(ctx: Context) -> str:
    try:
        async with asyncio.timeout(3600):
            await ctx.promise(bool, "slow")
    except TimeoutError:
        return "late"
    return "in time"


async def test_asyncio_timeout_is_durable(stage: Stage, clock: Clock) -> None:
    stage.work(races)
    late, in_time = await stage.troth.start("late", races), await stage.troth.start("in-time", races)
    await stage.reaches("late", "suspended")
    await stage.reaches("in-time", "suspended")
    await stage.troth.resolve("in-time~slow", True)
    assert await in_time.result(60) == "in time"
    clock.advance(timedelta(hours=2))
    assert await late.result(60) == "late"


@workflow
async def grouped(ctx: Context, fail: bool) -> list[int]:
    async def one(n: int) -> int:
        total = 0
        for _ in range(3):
            total = await ctx.run(add_one, total, n)
        if fail and n == 1:
            raise ValueError("the second")
        return total

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(n)) for n in range(4)]
    return [task.result() for task in tasks]


async def add_one(a: int, b: int) -> int:
    await asyncio.sleep(0.001 * b)
    return a + b


async def test_task_groups_of_branches_of_several_steps(stage: Stage) -> None:
    stage.work(grouped)
    well, badly = (
        await stage.troth.start("well", grouped, False),
        await stage.troth.start("badly", grouped, True),
    )
    assert await well.result(60) == [0, 3, 6, 9]
    with pytest.raises(PromiseRejected) as caught:
        await badly.result(60)
    assert caught.value.type == "ExceptionGroup"
    assert caught.value.data["exceptions"][0]["message"] == "the second"


@workflow
async def same_names(ctx: Context) -> list[int]:
    return list(await asyncio.gather(*(ctx.run(double, n) for n in range(5))))


async def test_s21_the_same_name_twice_is_no_error(stage: Stage) -> None:
    stage.work(same_names)
    assert await (await stage.troth.start("w", same_names)).result(60) == [0, 2, 4, 6, 8]
    names = {each.operation for each in await stage.troth.journal("w")}
    assert names == {"double", "double:2", "double:3", "double:4", "double:5"}


@workflow
async def leaves_a_branch(ctx: Context) -> str:
    async def branch() -> None:
        try:
            await ctx.promise(bool, "open")
        finally:
            await ctx.run(clean_up, "the branch")

    CLEANED.clear()
    task = asyncio.create_task(branch())
    await ctx.run(double, 1)
    assert not task.done()
    return "done"


async def test_a_branch_left_open_is_canceled_and_cleans_up(stage: Stage) -> None:
    stage.work(leaves_a_branch)
    assert await (await stage.troth.start("w", leaves_a_branch)).result(60) == "done"
    assert CLEANED == ["the branch"]


# What a workflow's ID and a promise's are.


async def test_the_promise_id_of_a_branch_has_its_place_in_it(stage: Stage) -> None:
    stage.work(two_branches)
    handle = await stage.troth.start("w", two_branches)
    await stage.reaches("w", "suspended")
    open_ones = sorted(p.id for p in await stage.troth.search(prefix="w~", latent=True))
    assert len(set(open_ones)) == 4
    for n, id in enumerate(open_ones):
        await stage.troth.resolve(id, n)
    assert await handle.result(60) == open_ones


@workflow
async def two_branches(ctx: Context) -> list[str]:
    async def one() -> list[str]:
        first, second = ctx.promise(int, "p"), ctx.promise(int, "p")
        await first
        await second
        return [first.id, second.id]

    a, b = await asyncio.gather(one(), one())
    return sorted([*a, *b])


async def test_a_promise_under_an_id_of_another_kind_parks_the_workflow(stage: Stage, clock: Clock) -> None:
    """Only the schema's owner could bring this about: nobody can start under an ID with a `~`."""
    del clock
    await stage.troth.start("w", returns_seven)
    with pytest.raises(IdConflict, match="a workflow of function returns_seven"):
        await stage.troth.create_promise(int, "w")


class Big(msgspec.Struct):
    text: str


@workflow
async def takes_types(ctx: Context, /, point: Point, big: Big, *colors: Color, **more: int) -> str:
    assert isinstance(point, Point)
    assert isinstance(big, Big)
    assert all(isinstance(color, Color) for color in colors)
    return f"{point.x} {big.text} {len(colors)} {sorted(more.items())}"


async def test_arguments_arrive_as_the_types_that_the_function_declares(stage: Stage) -> None:
    stage.work(takes_types)
    handle = await stage.troth.start(
        "w", takes_types, Point(1, Color.RED), Big("b"), Color.RED, Color.BLUE, a=1, b=2
    )
    assert await handle.result(60) == "1 b 2 [('a', 1), ('b', 2)]"


async def test_arguments_that_do_not_fit_fail_the_workflow_clearly(stage: Stage) -> None:
    stage.work(takes_types, s98)
    wrong = await stage.troth.start("wrong", "takes_types", point={"x": "one"}, big={"text": "b"})
    missing = await stage.troth.start("missing", "s98", name="n")
    with pytest.raises(PromiseRejected, match="point"):
        await wrong.result(60)
    with pytest.raises(PromiseRejected, match="missing a required argument"):
        await missing.result(60)
