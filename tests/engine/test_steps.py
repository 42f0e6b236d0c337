"""Steps in full: attempts, timeouts, heartbeats, what they are given, and what becomes of one that nobody waits for."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any

import msgspec
import psycopg
import pytest
import structlog

import troth
from tests.engine.running import Stage, WorkerProcess, until
from troth import (
    Context,
    InvalidArgument,
    PromiseRejected,
    Retry,
    StepAbandoned,
    StepError,
    WorkflowMisuse,
    step,
    step_info,
    workflow,
)
from troth.testing.clock import Clock

Connection = psycopg.Connection[Any]
Spawn = Callable[..., WorkerProcess]
Effects = Callable[[], list[str]]

TALES = ["tests.engine.programs.steps_tales"]
SEEN: list[Any] = []
GATES: dict[str, threading.Event] = {}
AT_ONCE = Retry(attempts=5, first=0)
SOON = Retry(attempts=5, first=0.02, jitter=0)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    SEEN.clear()
    GATES.clear()
    yield
    for each in GATES.values():
        each.set()


@pytest.fixture
def said() -> Iterator[list[Any]]:
    """What the log says."""
    with structlog.testing.capture_logs() as entries:
        yield entries


PATIENCE_OF_CODE_S = 0.5
"""How long code here waits for a step that does not end: long enough for it to begin, also on a busy machine."""


def opened(name: str) -> threading.Event:
    return GATES.setdefault(name, threading.Event())


async def at_gate(name: str) -> None:
    while not opened(name).is_set():  # noqa: ASYNC110 — threads open it too
        await asyncio.sleep(0.005)


# Errors come back as themselves.


class Declined(Exception):
    def __init__(self, code: int, *, card: str) -> None:
        super().__init__(code)
        self.card = card


def declines() -> None:
    try:
        dict[str, str]()["no such card"]
    except KeyError as error:
        raise Declined(402, card="x") from error


def hides() -> None:
    class Hidden(Exception): ...

    raise Hidden("nobody can import me")


@workflow
async def catches(ctx: Context) -> list[Any]:
    told: list[Any] = []
    try:
        await ctx.run(declines)
    except Declined as error:
        told.append([error.args[0], error.card, repr(error.__cause__)])
    try:
        await ctx.run(hides)
    except StepError as error:
        told.append([error.operation, error.type.rpartition(".")[2], error.error_message])
    return told


@pytest.mark.parametrize("keep", [1000, 0])
async def test_errors_of_steps_are_themselves_or_say_what_they_were(stage: Stage, keep: int) -> None:
    stage.work(catches, keep=keep)
    assert await (await stage.troth.start("w", catches)).result(60) == [
        [402, "x", "KeyError('no such card')"],
        ["hides", "Hidden", "nobody can import me"],
    ]


# Attempts.


async def flaky(until_attempt: int) -> int:
    attempt = step_info().attempt
    SEEN.append(attempt)
    if attempt < until_attempt:
        raise ConnectionError(f"attempt {attempt}")
    return attempt


@workflow
async def tries(ctx: Context, until_attempt: int) -> int:
    return await ctx.options(retry=SOON).run(flaky, until_attempt)


async def test_a_step_is_tried_until_it_comes_off(stage: Stage) -> None:
    stage.work(tries)
    assert await (await stage.troth.start("w", tries, 4)).result(60) == 4
    assert SEEN == [1, 2, 3, 4]
    # its code was told once
    assert [(e.operation, e.state) for e in await stage.troth.journal("w")] == [("flaky", "resolved")]


async def test_when_the_attempts_are_used_up_the_last_error_itself_is_told(stage: Stage) -> None:
    stage.work(tries)
    with pytest.raises(PromiseRejected) as caught:
        await (await stage.troth.start("w", tries, 9)).result(60)
    assert (caught.value.type, caught.value.error_message) == ("ConnectionError", "attempt 5")
    assert SEEN == [1, 2, 3, 4, 5]


class Refused(Exception): ...


class RefusedForGood(Refused): ...


async def refuses(kind: str) -> None:
    SEEN.append(step_info().attempt)
    raise {"refused": Refused, "for good": RefusedForGood, "other": KeyError}[kind](kind)


def wanted(error: BaseException) -> bool:
    return "for good" not in str(error)


RULES = {
    "a fatal class": Retry(attempts=3, first=0, fatal=RefusedForGood),
    "its base": Retry(attempts=3, first=0, fatal=(Refused, KeyError)),
    "its name": Retry(attempts=3, first=0, fatal="RefusedForGood"),
    "a predicate": Retry(attempts=3, first=0, when=wanted),
}


@workflow
async def is_refused(ctx: Context, rule: str, kind: str) -> str:
    try:
        await ctx.options(retry=RULES[rule]).run(refuses, kind)
    except (Refused, KeyError) as error:
        return type(error).__name__
    return "?"


@pytest.mark.parametrize(
    ("rule", "kind", "attempts"),
    [
        ("a fatal class", "for good", 1),
        ("a fatal class", "refused", 3),
        ("its base", "for good", 1),
        ("its base", "other", 1),
        ("its name", "for good", 1),
        ("its name", "refused", 3),
        ("a predicate", "for good", 1),
        ("a predicate", "refused", 3),
    ],
)
async def test_what_is_fatal_is_not_tried_again(stage: Stage, rule: str, kind: str, attempts: int) -> None:
    stage.work(is_refused)
    name = {"for good": "RefusedForGood", "refused": "Refused", "other": "KeyError"}[kind]
    assert await (await stage.troth.start("w", is_refused, rule, kind)).result(60) == name
    assert list(range(1, attempts + 1)) == SEEN


@step(retry=AT_ONCE)
def has_its_own() -> int:
    SEEN.append(step_info().attempt)
    if step_info().attempt < 3:
        raise ConnectionError
    return step_info().attempt


@workflow
async def uses_its_own(ctx: Context) -> list[Any]:
    mine: Any
    try:
        mine = await ctx.options(retry=Retry(attempts=1)).run(has_its_own)
    except ConnectionError:
        mine = "once"
    return [mine, await ctx.run(has_its_own)]


async def test_what_a_step_declares_holds_unless_options_say_otherwise(stage: Stage) -> None:
    stage.work(uses_its_own)
    assert await (await stage.troth.start("w", uses_its_own)).result(60) == ["once", 3]
    assert SEEN == [1, 1, 2, 3]


HOURS = Retry(attempts=3, first=timedelta(hours=1), factor=1, jitter=0)


@workflow
async def tries_for_hours(ctx: Context) -> int:
    return await ctx.options(retry=HOURS).run(flaky, 3)


@workflow
async def is_quick(ctx: Context) -> str:
    return "quick"


@pytest.mark.parametrize("keep", [1000, 0])
async def test_a_long_backoff_holds_no_slot(stage: Stage, clock: Clock, db: Connection, keep: int) -> None:
    stage.work(tries_for_hours, is_quick, concurrency=1, keep=keep)
    handle = await stage.troth.start("w", tries_for_hours)
    for attempt in (1, 2):
        await until(
            lambda: (
                db.execute("select count(*) from attempt where ended_at is not null").fetchone() == (attempt,)  # noqa: B023
            )
        )
        await stage.reaches("w", "suspended")
        assert await (await stage.troth.start(f"other{attempt}", is_quick)).result(60) == "quick"
        assert list(range(1, attempt + 1)) == SEEN
        # an hour later by the clock of Postgres, not by that of a worker
        clock.advance(timedelta(hours=1))
    assert await handle.result(60) == 3
    assert SEEN == [1, 2, 3]
    assert db.execute("select count(*) from wait").fetchone() == (0,)


async def test_attempts_are_counted_across_processes_that_die_in_a_backoff(
    stage: Stage, spawn: Spawn, effects: Effects, clock: Clock
) -> None:
    """Killed in each backoff: whoever comes next goes on counting, and keeps the pause."""
    handle = await stage.troth.start("w", "tries_slowly", name="x", first=3600.0)
    for attempt in (1, 2):
        worker = spawn(modules=TALES, lease_s=1)
        await until(lambda: effects() == [f"x {n}" for n in range(1, attempt + 1)])  # noqa: B023
        await stage.reaches("w", "suspended")
        worker.kill()
        clock.advance(timedelta(hours=1))
    spawn(modules=TALES)
    assert await handle.result(60) == 3
    assert effects() == ["x 1", "x 2", "x 3"]


async def test_a_process_that_dies_in_a_short_backoff_begins_no_attempt_anew(
    stage: Stage, spawn: Spawn, effects: Effects
) -> None:
    """The pause is waited for in memory, so the task is held when its worker dies, right after the failure was written."""
    first = spawn(modules=TALES, kill_at='after:advance:1:"retry_in"', lease_s=1)
    handle = await stage.troth.start("w", "tries_slowly", name="x", first=0.5)
    assert await first.death() == -signal.SIGKILL
    spawn(modules=TALES)
    assert await handle.result(60) == 3
    assert effects() == ["x 1", "x 2", "x 3"]


async def test_an_attempt_that_kills_its_process_is_made_again_under_its_number(
    stage: Stage, spawn: Spawn, effects: Effects
) -> None:
    first = spawn(modules=TALES, lease_s=1)
    handle = await stage.troth.start("w", "dies_in_an_attempt")
    assert await first.death() == -signal.SIGKILL
    spawn(modules=TALES)
    assert await handle.result(60) == 3
    assert effects() == ["a 1", "a 2", "a 2", "a 3"]


# Timeouts.


async def takes_long(name: str) -> str:
    try:
        await at_gate(name)
    finally:
        SEEN.append(f"{name} over")
    return name


def takes_long_in_a_thread(name: str) -> str:
    assert opened(name).wait(60)
    try:
        step_info().heartbeat()
        SEEN.append("still wanted")
    except StepAbandoned as error:
        SEEN.append(f"abandoned {error.operation}")
    opened(f"{name} done").set()
    return name


@workflow
async def has_no_patience(ctx: Context, kind: str) -> str:
    fn: Any = takes_long if kind == "async" else takes_long_in_a_thread
    try:
        return await ctx.options(timeout=PATIENCE_OF_CODE_S).run(fn, "a")
    except TimeoutError as error:
        return str(error)


async def test_a_coroutine_that_takes_too_long_is_canceled(stage: Stage) -> None:
    stage.work(has_no_patience)
    told = await (await stage.troth.start("w", has_no_patience, "async")).result(60)
    assert told == "an attempt of step 'takes_long' took longer than 0.5 s"
    assert SEEN == ["a over"]


async def test_a_thread_that_takes_too_long_is_abandoned_and_that_is_said(
    stage: Stage, said: list[Any]
) -> None:
    stage.work(has_no_patience)
    told = await (await stage.troth.start("w", has_no_patience, "thread")).result(60)
    assert told == "an attempt of step 'takes_long_in_a_thread' took longer than 0.5 s"
    assert [each["step"] for each in said if "abandoned" in each["event"]] == ["takes_long_in_a_thread"]
    # it goes on, and hears of it at its next heartbeat
    opened("a").set()
    await until(opened("a done").is_set)
    assert SEEN == ["abandoned w~takes_long_in_a_thread"]


def first_attempt_is_stuck() -> int:
    """The first attempt hangs, and awakes when the second one is under way."""
    info = step_info()
    if info.attempt == 1:
        assert opened("second").wait(60)
        try:
            info.heartbeat("from the first")
            SEEN.append("still wanted")
        except StepAbandoned:
            SEEN.append("abandoned")
        opened("first done").set()
        return 1
    opened("second").set()
    assert opened("first done").wait(60)
    info.heartbeat("from the second")
    if info.attempt == 2:
        raise ConnectionError
    SEEN.append(info.details)
    return info.attempt


@workflow
async def has_one_stuck(ctx: Context) -> int:
    return await ctx.options(timeout=60, retry=AT_ONCE, name="s").run(first_attempt_is_stuck)


async def test_a_thread_of_an_attempt_that_timed_out_does_not_speak_for_the_next(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told to stop although an attempt of the same step is under way, and its details do not pass for those."""
    from troth.worker.steps import Steps

    carried = Steps.carry_out

    async def soon(self: Steps, attempted: Any) -> Any:
        if attempted.number == 1:
            attempted = msgspec.structs.replace(
                attempted, request=msgspec.structs.replace(attempted.request, timeout_s=PATIENCE_OF_CODE_S)
            )
        return await carried(self, attempted)

    monkeypatch.setattr(Steps, "carry_out", soon)
    stage.work(has_one_stuck)
    assert await (await stage.troth.start("w", has_one_stuck)).result(60) == 3
    assert SEEN == ["abandoned", "from the second"]


@workflow
async def retries_what_takes_long(ctx: Context) -> str:
    try:
        return await ctx.options(timeout=0.02, retry=Retry(attempts=3, first=0)).run(takes_long, "a")
    except TimeoutError as error:
        return str(error)


async def test_a_timeout_counts_for_one_attempt(stage: Stage) -> None:
    stage.work(retries_what_takes_long)
    handle = await stage.troth.start("w", retries_what_takes_long)
    assert "took longer than 0.02 s" in await handle.result(60)
    assert SEEN == ["a over"] * 3


async def raises_timeout() -> None:
    raise TimeoutError("the other side's")


@workflow
async def meets_a_timeout(ctx: Context) -> str:
    try:
        await ctx.options(timeout=30).run(raises_timeout)
    except TimeoutError as error:
        return str(error)
    return "?"


async def test_a_timeout_of_the_steps_own_is_its_own(stage: Stage) -> None:
    stage.work(meets_a_timeout)
    assert await (await stage.troth.start("w", meets_a_timeout)).result(60) == "the other side's"


# Heartbeats.


async def test_what_a_heartbeat_said_is_there_for_the_next_attempt_in_another_process(
    stage: Stage, spawn: Spawn, effects: Effects, db: Connection
) -> None:
    first = spawn(modules=TALES, lease_s=1)
    handle = await stage.troth.start("w", "loads_pages", pages=6)
    await until(lambda: db.execute("select details -> 'value' from attempt").fetchone() == ([0, 1, 2],))
    first.kill()
    spawn(modules=TALES)
    assert await handle.result(60) == [0, 1, 2, 3, 4, 5]
    assert effects() == ["begins after [] as attempt 1", "begins after [0, 1, 2] as attempt 1"]


async def beats_once() -> list[Any]:
    info = step_info()
    SEEN.append(info.details)
    if info.attempt == 1:
        info.heartbeat({"page": 7})
    if info.attempt < 4:
        raise ConnectionError
    return [info.id, info.workflow, info.operation, info.attempt, info.details]


@workflow
async def beats(ctx: Context) -> list[Any]:
    return await ctx.options(retry=HOURS_OF_FOUR).run(beats_once)


HOURS_OF_FOUR = Retry(attempts=4, first=3600, factor=1, jitter=0)


async def test_details_last_over_attempts_that_say_none(stage: Stage, clock: Clock) -> None:
    """Each attempt is another worker's: what the first one said is not forgotten by the second one's silence."""
    handle = await stage.troth.start("w", beats)
    for attempt in range(1, 5):
        worker = stage.work(beats)
        await until(lambda: len(SEEN) == attempt)  # noqa: B023
        if attempt < 4:
            await stage.reaches("w", "suspended")
            await stage.stop(worker)
            clock.advance(timedelta(hours=1))
    assert await handle.result(60) == ["w~beats_once", "w", "beats_once", 4, {"page": 7}]
    assert SEEN == [None, {"page": 7}, {"page": 7}, {"page": 7}]


async def beats_oddly(what: str) -> str:
    try:
        step_info().heartbeat(object() if what == "object" else "x" * 2_000_000)
    except troth.TrothError as error:
        return type(error).__name__
    return "?"


@workflow
async def says_odd_things(ctx: Context) -> list[str]:
    return [await ctx.run(beats_oddly, "object"), await ctx.run(beats_oddly, "long")]


async def test_details_that_cannot_be_stored_are_refused_where_they_are_said(stage: Stage) -> None:
    stage.work(says_odd_things)
    handle = await stage.troth.start("w", says_odd_things)
    assert await handle.result(60) == ["InvalidPayload", "PayloadTooLarge"]


async def beats_often() -> int:
    for n in range(500):
        step_info().heartbeat(n)
    return 500


@workflow
async def is_chatty(ctx: Context) -> int:
    return await ctx.run(beats_often)


async def test_a_step_may_beat_as_often_as_it_likes(stage: Stage, db: Connection) -> None:
    stage.work(is_chatty)
    assert await (await stage.troth.start("w", is_chatty)).result(60) == 500


def test_there_is_no_step_info_outside_a_step() -> None:
    with pytest.raises(WorkflowMisuse, match="where no step runs"):
        step_info()


# A step that the workflow no longer waits for.


async def cleans_up(name: str) -> str:
    SEEN.append("under way")
    try:
        await at_gate("never")
    finally:
        with contextlib.suppress(StepAbandoned):
            step_info().heartbeat()
            SEEN.append("still wanted")
        await at_gate(name)
        SEEN.append("cleaned up")
    return name


@workflow
async def gives_up_its_step(ctx: Context, then: str) -> str:
    try:
        async with asyncio.timeout(PATIENCE_OF_CODE_S):
            await ctx.run(cleans_up, "clean")
    except TimeoutError:
        pass
    if then == "goes on":
        await ctx.promise(bool, "go")
    elif then == "ends later":
        # its being given up is told with this one; the end comes while it is still cleaning up
        await ctx.run(takes_no_time)
    return "gave up"


async def takes_no_time() -> None: ...


@pytest.mark.parametrize("then", ["goes on", "ends", "ends later"])
async def test_a_step_that_was_given_up_cleans_up_to_its_end(stage: Stage, then: str) -> None:
    """Also where the workflow has long ended: it is asked to stop once, not again in the middle of its cleaning up."""
    stage.work(gives_up_its_step)
    handle = await stage.troth.start("w", gives_up_its_step, then)
    if then != "goes on":
        assert await handle.result(60) == "gave up"
    else:
        await stage.exists("w~go")
    assert SEEN == ["under way"]
    opened("clean").set()
    await until(lambda: len(SEEN) > 1)
    assert SEEN == ["under way", "cleaned up"]
    if then == "goes on":
        await stage.reaches("w", "suspended")
        (given_up,) = [e for e in await stage.troth.journal("w") if e.kind == "step"]
        assert given_up.state == "rejected"
        assert b"gave up waiting" in bytes(given_up.error)
        await stage.troth.resolve("w~go", True)
        assert await handle.result(60) == "gave up"


async def fails_when_stopped() -> None:
    SEEN.append(step_info().attempt)
    try:
        await at_gate("never")
    except asyncio.CancelledError:
        raise ConnectionError("while it was being stopped") from None


@workflow
async def gives_up_one_that_fails(ctx: Context) -> str:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_OF_CODE_S):
            await ctx.options(retry=AT_ONCE).run(fails_when_stopped)
    await ctx.promise(bool, "go")
    return "done"


async def test_a_step_that_was_given_up_is_not_tried_again(stage: Stage) -> None:
    stage.work(gives_up_one_that_fails)
    handle = await stage.troth.start("w", gives_up_one_that_fails)
    await stage.reaches("w", "suspended")
    assert SEEN == [1]
    await stage.troth.resolve("w~go", True)
    assert await handle.result(60) == "done"
    assert [(e.operation, e.state) for e in await stage.troth.journal("w")] == [
        ("timer", "resolved"),
        ("fails_when_stopped", "rejected"),
        ("go", "resolved"),
    ]


@workflow
async def gives_up_in_a_backoff(ctx: Context) -> str:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(600):
            await ctx.options(retry=HOURS).run(flaky, 3)
    await ctx.run(takes_long, "held")
    return await ctx.promise(str, "go")


@pytest.mark.parametrize("keep", [1000, 0])
async def test_a_step_that_is_given_up_in_its_backoff_leaves_nothing_behind(
    stage: Stage, clock: Clock, db: Connection, keep: int
) -> None:
    stage.work(gives_up_in_a_backoff, keep=keep)
    handle = await stage.troth.start("w", gives_up_in_a_backoff)
    await until(lambda: db.execute("select count(*) from wait where kind = 'retry'").fetchone() == (1,))
    clock.advance(timedelta(minutes=11))

    async def told() -> bool:
        return [(e.operation, e.state) for e in await stage.troth.journal("w")] == [
            ("timer", "resolved"),
            ("flaky", "rejected"),
        ]

    # while its task is held by another step: no suspension has tidied up
    await until(told, "its end is recorded")
    assert await stage.state("w") == "claimed"
    assert db.execute("select count(*) from wait").fetchone() == (0,)
    opened("held").set()
    await stage.exists("w~go")
    await stage.reaches("w", "suspended")
    assert db.execute("select kind from wait where task = 'w'").fetchall() == [("promise",)]
    clock.advance(timedelta(hours=2))
    await stage.troth.resolve("w~go", "end")
    assert await handle.result(60) == "end"
    assert SEEN == [1, "held over"]


# What steps are given.


class Till:
    def __init__(self) -> None:
        self.open = True


async def open_till() -> AsyncIterator[Till]:
    till = Till()
    SEEN.append("opened")
    yield till
    till.open = False
    SEEN.append("closed")


async def sells(thing: str, till: Till = troth.provided(open_till)) -> str:
    assert till.open
    if thing == "slow":
        SEEN.append("selling")
        try:
            await at_gate("never")
        finally:
            await asyncio.sleep(0)
            SEEN.append(f"till open: {till.open}")
    return f"sold {thing}"


def sells_in_a_thread(thing: str, till: Till = troth.provided(open_till)) -> str:
    assert till.open
    return f"sold {thing}"


@workflow
async def trades(ctx: Context, *things: str) -> list[str]:
    return [
        *[await ctx.run(sells, thing) for thing in things],
        *[await ctx.run(sells_in_a_thread, thing) for thing in things],
    ]


async def test_a_provider_is_made_once_and_closed_when_the_worker_ends(stage: Stage) -> None:
    worker = stage.work(trades)
    assert await (await stage.troth.start("w", trades, "a", "b")).result(60) == ["sold a", "sold b"] * 2
    await (await stage.troth.start("v", trades, "c")).result(60)
    assert SEEN == ["opened"]
    await stage.stop(worker)
    assert SEEN == ["opened", "closed"]


async def test_a_provider_is_closed_only_when_the_steps_that_use_it_have_ended(stage: Stage) -> None:
    worker = stage.work(trades, grace=timedelta(seconds=0))
    await stage.troth.start("w", trades, "slow")
    await until(lambda: "selling" in SEEN)
    await stage.stop(worker)
    assert SEEN == ["opened", "selling", "till open: True", "closed"]
    assert await stage.state("w") == "ready"


async def broken_till() -> Till:
    raise OSError("no key")


async def sells_badly(till: Till = troth.provided(broken_till)) -> str:
    return "?"


@workflow
async def trades_badly(ctx: Context) -> str:
    try:
        return await ctx.run(sells_badly)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


async def test_a_provider_that_fails_is_the_steps_failure(stage: Stage) -> None:
    stage.work(trades_badly)
    told = await (await stage.troth.start("w", trades_badly)).result(60)
    assert told.startswith("ProviderFailed: ")
    assert told.endswith("OSError: no key")


# By hand.


@workflow
async def is_stuck(ctx: Context) -> str:
    return f"it was {await ctx.run(takes_long, 'never')}"


async def test_s62_a_step_settled_by_hand_is_stopped_and_the_workflow_goes_on(
    stage: Stage, db: Connection
) -> None:
    stage.work(is_stuck, lease=timedelta(seconds=1.5))
    handle = await stage.troth.start("w", is_stuck)
    await stage.reaches("w", "claimed")
    operated = await stage.troth.options(actor="ann").settle_step(
        "w", "takes_long", value="decided", reason="it hangs"
    )
    assert operated.answer == "recorded"
    assert await handle.result(60) == "it was decided"
    await until(lambda: SEEN == ["never over"], "the coroutine is stopped")
    assert db.execute("select actor, verb, detail ->> 'reason' from audit").fetchall() == [
        ("ann", "settle_step", "it hangs")
    ]


async def test_s62_a_step_in_its_backoff_can_be_settled_by_hand(stage: Stage, db: Connection) -> None:
    stage.work(tries_for_hours)
    handle = await stage.troth.start("w", tries_for_hours)
    await until(lambda: db.execute("select count(*) from wait where kind = 'retry'").fetchone() == (1,))
    await stage.troth.settle_step("w", "flaky", error=ConnectionError("given up by ann"))
    with pytest.raises(PromiseRejected) as caught:
        await handle.result(60)
    assert (caught.value.type, caught.value.error_message) == ("ConnectionError", "given up by ann")
    assert SEEN == [1]


# Options that cannot be.


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": -1},
        {"timeout": "soon"},
        {"timeout": float("nan")},
        {"retry": 3},
        {"close": "never"},
        {"isolation": "chaos"},
        {"priority": 99_999},
        {"queue": "no name"},
    ],
)
def test_options_that_cannot_be_are_refused(options: Any) -> None:
    from troth.context.options import Options

    with pytest.raises(InvalidArgument):
        Options().changed(options, msgspec.UNSET)
