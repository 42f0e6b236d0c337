"""What cannot go on fails by itself, visibly, and takes nobody with it: no task goes round for ever, no worker falls."""

import asyncio
import json
import math
import os
import sys
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.engine.running import Stage, client_options, said_of, until
from troth import Context, PromiseRejected, Troth, Worker, limits, workflow
from troth import codec as troth_codec
from troth.model import ErrorInfo


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


class Stranger:
    pass


VALUES: dict[str, Any] = {
    "too large": lambda: "x" * 10_000_000,
    "far too large": lambda: "x" * 300_000_000,
    "NaN": lambda: {"a": [1.0, math.nan]},
    "infinity": lambda: -math.inf,
    "too deep": lambda: deep(10_000),
    "NUL": lambda: "a\0b",
    "surrogate": lambda: "\ud800",
    "stranger": Stranger,
    "cycle": lambda: CYCLE,
    "big int": lambda: 2**70,
    "fine": lambda: {"a": 1e16},
}
CYCLE: list[Any] = []
CYCLE.append(CYCLE)
CALLS: list[str] = []


async def give(what: str) -> Any:
    CALLS.append(what)
    return VALUES[what]()


def give_in_a_thread(what: str) -> Any:
    return VALUES[what]()


@workflow
async def catches_a_step(ctx: Context, what: str, thread: bool) -> str:
    try:
        return f"value {await ctx.run(give_in_a_thread if thread else give, what)}"
    except Exception as error:
        return ": ".join(said_of(error))


UNSTORABLE = [
    ("too large", "PayloadTooLarge", "pass a reference"),
    ("far too large", "PayloadTooLarge", "pass a reference"),
    ("NaN", "InvalidPayload", "use None"),
    ("infinity", "InvalidPayload", "use None"),
    ("too deep", "PayloadTooDeep", "Flatten it"),
    ("NUL", "InvalidPayload", "remove it"),
    ("surrogate", "InvalidPayload", "mend the string"),
    ("stranger", "InvalidPayload", "dataclasses"),
    ("cycle", "PayloadTooDeep", "contains itself"),
]


@pytest.mark.parametrize(("what", "kind", "advice"), UNSTORABLE)
async def test_s64_to_s68_a_step_whose_result_cannot_be_stored_fails_once(
    stage: Stage, what: str, kind: str, advice: str
) -> None:
    CALLS.clear()
    stage.work(catches_a_step)
    async_step = await stage.troth.start("a", catches_a_step, what, thread=False)
    thread_step = await stage.troth.start("t", catches_a_step, what, thread=True)
    for handle in (async_step, thread_step):
        said = await handle.result(60)
        assert said.startswith(f"troth.errors.{kind}: The result of step")
        assert advice in said
    assert [what] == CALLS


@workflow
async def returns_it(ctx: Context, what: str) -> Any:
    return VALUES[what]()


@pytest.mark.parametrize(("what", "kind", "advice"), UNSTORABLE)
async def test_s64_to_s68_a_workflow_whose_result_cannot_be_stored_fails(
    stage: Stage, what: str, kind: str, advice: str
) -> None:
    stage.work(returns_it)
    with pytest.raises(PromiseRejected) as caught:
        await (await stage.troth.start("w", returns_it, what)).result(60)
    assert caught.value.type == f"troth.errors.{kind}"
    assert advice in caught.value.error_message
    assert "The result of workflow 'returns_it'" in caught.value.error_message


async def test_s65_numbers_come_back_as_they_were(stage: Stage) -> None:
    stage.work(returns_it)
    assert await (await stage.troth.start("a", returns_it, "big int")).result(60) == 2**70
    value = await (await stage.troth.start("b", returns_it, "fine")).result(60)
    assert value == {"a": 1e16}
    assert isinstance(value["a"], float)


# S69, S71: exceptions of every kind.


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def raise_odd(how: str) -> None:
    match how:
        case "mute":
            raise Mute
        case "long":
            raise ValueError("x" * 10_000_000)
        case "cycle":
            a, b = ValueError("a"), ValueError("b")
            a.__cause__, b.__cause__ = b, a
            raise a
        case "surrogate":
            raise ValueError("a\0b\ud800")
        case "stop":
            raise StopIteration
        case "base":
            raise BaseException("bare")
        case _:
            raise KeyError(how)


async def raise_odd_async(how: str) -> None:
    if how == "stop":
        raise StopAsyncIteration
    raise_odd(how)


@workflow
async def meets_odd_errors(ctx: Context, how: str) -> list[list[str]]:
    seen: list[list[str]] = []
    for step in (raise_odd, raise_odd_async):
        try:
            await ctx.run(step, how)
        except Exception as error:
            kind, message = said_of(error)
            seen.append([kind, message[:20]])
    raise_odd("mute" if how == "mute" else "key")
    return seen


@workflow
async def tells_odd_errors(ctx: Context, how: str) -> list[str]:
    seen: list[str] = []
    for step in (raise_odd, raise_odd_async):
        try:
            await ctx.run(step, how)
        except Exception as error:
            seen.append(said_of(error)[0].rpartition(".")[2])
    return seen


@pytest.mark.parametrize(
    ("how", "types"),
    [
        ("mute", ["Mute", "Mute"]),
        ("long", ["ValueError", "ValueError"]),
        ("cycle", ["ValueError", "ValueError"]),
        ("surrogate", ["ValueError", "ValueError"]),
        ("stop", ["RuntimeError", "StopAsyncIteration"]),
        ("base", ["BaseException", "BaseException"]),
    ],
)
async def test_s69_whatever_a_step_raises_is_told(stage: Stage, how: str, types: list[str]) -> None:
    stage.work(tells_odd_errors, meets_odd_errors)
    assert await (await stage.troth.start("t", tells_odd_errors, how)).result(60) == types
    with pytest.raises(PromiseRejected):
        await (await stage.troth.start("m", meets_odd_errors, how)).result(60)


ENDINGS: list[str] = []


def end_the_process(how: str) -> str:
    ENDINGS.append(how)
    if ENDINGS.count(how) == 1:
        raise {"exit": SystemExit, "interrupt": KeyboardInterrupt, "generator": GeneratorExit}[how]
    return "went on"


async def end_the_process_async(how: str) -> str:
    return end_the_process(how)


@workflow
async def meets_an_end(ctx: Context, how: str, thread: bool) -> str:
    return await ctx.run(end_the_process if thread else end_the_process_async, how)


@pytest.mark.parametrize("thread", [False, True])
@pytest.mark.parametrize("how", ["exit", "interrupt", "generator"])
async def test_s71_a_step_that_asks_for_the_end_of_the_process_has_no_result(
    stage: Stage, how: str, thread: bool
) -> None:
    ENDINGS.clear()
    stage.work(meets_an_end)
    handle = await stage.troth.start("w", meets_an_end, how, thread)
    assert await handle.result(60) == "went on"
    (entry,) = await stage.troth.journal("w")
    assert (entry.state, entry.epoch) == ("resolved", 2)


async def always_exit() -> None:
    ENDINGS.append("again")
    sys.exit(1)


@workflow
async def never_ends(ctx: Context) -> None:
    await ctx.run(always_exit)


async def test_a_step_that_asks_for_the_end_each_time_is_parked(stage: Stage) -> None:
    ENDINGS.clear()
    stage.work(never_ends)
    await stage.troth.start("w", never_ends)
    reason = await stage.reason("w")
    assert reason["code"] == "attempts"
    assert len(ENDINGS) == limits.attempts_max


@workflow
async def exits(ctx: Context, how: str) -> None:
    if how == "exit":
        sys.exit(3)
    raise {"generator": GeneratorExit, "base": BaseException}[how]


@workflow
async def fine(ctx: Context) -> str:
    return "fine"


@pytest.mark.parametrize("how", ["exit", "generator", "base"])
async def test_workflow_code_that_exits_takes_no_worker_with_it(stage: Stage, how: str) -> None:
    worker = stage.work(exits, fine)
    await stage.troth.start("w", exits, how)
    await stage.reaches("w", "halted", "rejected")
    assert await (await stage.troth.start("after", fine)).result(60) == "fine"
    assert not stage.ended(worker)


# Errors too large to be wrapped in errors.


@workflow
async def lets_a_rejection_out(ctx: Context) -> None:
    await ctx.promise(bool, "p")


async def test_a_rejection_as_large_as_can_be_still_fails_the_workflow(stage: Stage) -> None:
    worker = stage.work(lets_a_rejection_out, fine)
    handle = await stage.troth.start("w", lets_a_rejection_out)
    await stage.exists("w~p")
    error = ErrorInfo("Rejected", "all of it", data="x" * (2**20 - 100))
    assert (await stage.troth.reject("w~p", error)).answer == "settled"
    with pytest.raises(PromiseRejected, match="all of it"):
        await handle.result(60)
    assert not stage.ended(worker)


def deep_error() -> None:
    raise ExceptionGroup("all", [ValueError("x" * 2_000_000)] * 50)


@workflow
async def runs_a_deep_error(ctx: Context) -> None:
    await ctx.run(deep_error)


async def test_a_group_of_large_errors_is_stored_bounded(stage: Stage) -> None:
    stage.work(runs_a_deep_error)
    with pytest.raises(PromiseRejected) as caught:
        await (await stage.troth.start("w", runs_a_deep_error)).result(60)
    assert caught.value.type == "ExceptionGroup"
    assert len(caught.value.data["exceptions"]) <= limits.error_causes_max


# Divergence.


async def one() -> int:
    CALLS.append("one")
    return 1


async def two() -> int:
    CALLS.append("two")
    return 2


def changing(steps: list[Any], *, name: str = "changing") -> Any:
    """The workflow `changing`, as some deploy has it."""

    @workflow(name=name)
    async def changes(ctx: Context) -> int:
        total = 0
        for each in steps:
            total += await ctx.run(each)
        return total + await ctx.promise(int, "last")

    return changes


@pytest.mark.parametrize(
    "other",
    [[two, two], [one], [two, one], [one, two, one], [one, one]],
    ids=["renamed", "removed", "moved", "inserted", "repeated"],
)
async def test_changed_code_is_parked_and_goes_on_once_it_is_restored(stage: Stage, other: list[Any]) -> None:
    CALLS.clear()
    old, new = changing([one, two]), changing(other)
    worker = stage.work(old)
    handle = await stage.troth.start("w", old)
    await stage.reaches("w", "suspended")
    await stage.stop(worker)
    worker = stage.work(new, fine)
    await stage.troth.resolve("w~last", 4)
    reason = await stage.reason("w")
    assert reason["code"] == "nondeterminism"
    assert "The journal has" in reason["message"]
    assert "test_failures.py" in reason["message"]
    assert "resume" in reason["message"]
    assert CALLS == ["one", "two"]  # no step of the changed code ran
    assert await (await stage.troth.start("after", fine)).result(60) == "fine"
    await stage.stop(worker)
    stage.work(old)
    assert (await stage.troth.resume("w")).answer == "resumed"
    assert await handle.result(60) == 7
    assert CALLS == ["one", "two"]


async def test_divergence_met_while_the_task_is_held_parks_it_too(
    stage: Stage, db: psycopg.Connection[Any]
) -> None:
    """What comes as news is judged like what came with the claim."""
    stage.work(lets_a_rejection_out, fine)
    await stage.troth.start("w", lets_a_rejection_out)
    await stage.reaches("w", "suspended")
    db.execute("update wait set digest = 1 where task = 'w'")
    await stage.troth.resolve("w~p", True)
    assert (await stage.reason("w"))["code"] == "nondeterminism"
    assert await (await stage.troth.start("after", fine)).result(60) == "fine"


# Payloads that cannot be opened.


class Xor:
    """A codec for tests; another key cannot open what this one sealed."""

    def __init__(self, key: int, name: str = "xor") -> None:
        self.name = name
        self._key = key
        self.broken = False

    def encode(self, plain: bytes) -> bytes:
        if self.broken or b"poison" in plain:
            raise OSError("no key for poison")
        nonce = os.urandom(4)
        return bytes([self._key]) + nonce + bytes(b ^ self._key for b in plain)

    def decode(self, sealed: bytes) -> bytes:
        if sealed[0] != self._key:
            raise ValueError("another key")
        return bytes(b ^ self._key for b in sealed[5:])

    def digest(self, plain: bytes) -> bytes:
        import hashlib

        return hashlib.sha256(bytes([self._key]) + plain).digest()


def typed(codec: Xor) -> troth_codec.Codec:
    return codec


async def greet(name: str) -> str:
    return f"hello {name}"


@workflow
async def greets(ctx: Context, name: str) -> str:
    greeting = await ctx.run(greet, name)
    polite = ctx.options(timeout=timedelta(days=1), default="if you please").promise(str, "polite")
    other = ctx.promise(str, "other")
    try:
        await ctx.run(raise_odd, "key")
    except KeyError as error:
        greeting += f" {error}"
    return f"{greeting}, {await other}, {await polite}"


async def test_s97_a_whole_workflow_behind_a_codec_with_nonces(
    stage: Stage, db: psycopg.Connection[Any], clock: Any
) -> None:
    async with Troth(stage.dsn, codec=typed(Xor(7)), **client_options()) as sealed:
        first = await sealed.start("w", greets, "ann")
        again = await sealed.start("w", greets, "ann")
        assert first.started is not None
        assert again.started is not None
        assert (first.started.answer, again.started.answer) == ("created", "attached")
        stage.work(greets, client=sealed)
        await stage.reaches("w", "suspended")
        assert (await sealed.resolve("w~other", "bob")).answer == "settled"
        assert (await sealed.resolve("w~other", "bob")).answer == "already"
        assert (await sealed.resolve("w~other", "eve")).answer == "conflict"
        clock.advance(timedelta(days=2))
        assert await first.result(60) == "hello ann 'key', bob, if you please"
        late = await sealed.start("w", greets, "ann")
        assert await late.result(60) == await first.result()
        rows = db.execute(
            "select concat(args, value, default_value, headers) from promise"
            " union all select concat(value, error) from checkpoint"
        ).fetchall()
        assert not [
            row for row in rows if row[0] and ("ann" in row[0] or "please" in row[0] or "KeyError" in row[0])
        ]
        await stage.stop_all()


async def test_s97_a_plain_settle_beside_a_codec_is_legal(stage: Stage) -> None:
    async with Troth(stage.dsn, codec=typed(Xor(7)), **client_options()) as sealed:
        stage.work(greets, client=sealed)
        handle = await sealed.start("w", greets, "ann")
        await stage.reaches("w", "suspended")
        await stage.troth.resolve("w~other", "plain")
        await stage.troth.resolve("w~polite", "too")
        assert await handle.result(60) == "hello ann 'key', plain, too"
        await stage.stop_all()


async def test_s70_a_payload_whose_key_is_lost_parks_its_workflow_only(stage: Stage) -> None:
    async with (
        Troth(stage.dsn, codec=typed(Xor(7)), **client_options()) as right,
        Troth(stage.dsn, codec=typed(Xor(8)), **client_options()) as wrong,
    ):
        await right.start("args", greets, "ann")
        worker = stage.work(greets, fine, client=wrong)
        reason = await stage.reason("args")
        assert reason["code"] == "undecodable"
        assert "Configure that codec" in reason["message"]
        # and in the middle of a journal, whose beginning can be read
        handle = await wrong.start("value", greets, "bob")
        await stage.reaches("value", "suspended")
        await right.resolve("value~other", "sealed by another")
        assert (await stage.reason("value"))["code"] == "undecodable"
        assert await (await wrong.start("after", fine)).result(60) == "fine"
        assert not stage.ended(worker)
        assert {p.id for p in await stage.troth.search(state="pending", latent=False)} == {"args", "value"}
        await stage.stop(worker)
        del handle


@workflow
async def says(ctx: Context, what: str) -> str:
    return await ctx.run(greet, what)


async def test_a_codec_that_fails_parks_what_it_fails_for_and_no_worker(stage: Stage) -> None:
    codec = Xor(7)
    async with Troth(stage.dsn, codec=typed(codec), **client_options()) as sealed:
        await stage.troth.start("step", says, "poison")
        await stage.troth.start("result", returns_poison)
        worker = stage.work(says, returns_poison, fine, client=sealed)
        assert (await stage.reason("step"))["code"] == "broken"
        assert (await stage.reason("result"))["code"] == "broken"
        assert await (await sealed.start("after", fine)).result(60) == "fine"
        assert not stage.ended(worker)
        await stage.stop(worker)


@workflow
async def returns_poison(ctx: Context) -> str:
    return "poison"


# Workflows that can never go on, and values that SQL refuses.


@workflow
async def deadlocks(ctx: Context) -> None:
    await asyncio.get_running_loop().create_future()


async def test_a_workflow_that_waits_for_nothing_is_parked(stage: Stage) -> None:
    stage.work(deadlocks, fine)
    await stage.troth.start("w", deadlocks)
    reason = await stage.reason("w")
    assert reason["code"] == "deadlock"
    assert "waits for nothing" in reason["message"]
    assert await (await stage.troth.start("after", fine)).result(60) == "fine"


@workflow
async def innocent(ctx: Context, n: int) -> int:
    return await ctx.run(plus_one, n)


async def plus_one(n: int) -> int:
    return n + 1


@workflow
async def titles(ctx: Context, title: str) -> str:
    return await ctx.options(title=title).promise(str, "p")


async def test_a_turn_that_sql_refuses_parks_its_task_only(stage: Stage) -> None:
    for n in range(20):
        await stage.troth.start(f"i{n}", innocent, n)
    await stage.troth.start("nul", titles, "a")
    await stage.troth.start("tag", tags_oddly)
    stage.work(innocent, titles, tags_oddly)
    assert (await stage.reason("tag"))["code"] == "unstorable"
    assert [await stage.troth.handle(f"i{n}").result(60) for n in range(20)] == list(range(1, 21))
    await stage.troth.cancel("nul")
    await stage.reaches("nul", "canceled")


@workflow
async def tags_oddly(ctx: Context) -> str:
    return await ctx.options(tags={"a": "b\0c"}).promise(str, "p")


# Bad input at the door of a worker.


async def test_worker_options_are_checked(stage: Stage) -> None:
    with pytest.raises(Exception, match="Give it some"):
        Worker(stage.troth, [])
    with pytest.raises(Exception, match="decorate it with @workflow"):
        Worker(stage.troth, [plus_one])  # type: ignore[list-item]
    with pytest.raises(Exception, match="concurrency"):
        Worker(stage.troth, [fine], concurrency=0)
    with pytest.raises(Exception, match="1 second"):
        await Worker(stage.troth, [fine], lease=timedelta(0)).run()


def test_a_workflow_that_is_not_async_is_refused() -> None:
    with pytest.raises(Exception, match="async def"):

        @workflow  # type: ignore[arg-type]
        def plain(ctx: Context) -> int:
            return 1


async def test_an_unfit_annotation_is_told(stage: Stage) -> None:
    stage.work(promises_a_stranger)
    with pytest.raises(PromiseRejected, match="fits no payload"):
        await (await stage.troth.start("w", promises_a_stranger)).result(60)


@workflow
async def promises_a_stranger(ctx: Context) -> str:
    await ctx.run(make_stranger)
    return "?"


def make_stranger() -> Stranger:
    return "x"  # type: ignore[return-value]


async def test_poisoned_arguments_park_nothing_but_fail(stage: Stage) -> None:
    """Arguments that SQL took and no function could: the workflow fails, and says so."""
    stage.work(innocent)
    await stage.troth.start("w", "innocent", n="one")
    with pytest.raises(PromiseRejected, match="Argument 'n' of workflow 'innocent'"):
        await stage.troth.handle("w").result(60)
    assert json.loads(bytes((await stage.troth.get("w")).args)) == {"n": "one"}
    assert await until(lambda: True)
