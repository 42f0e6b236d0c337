"""Every verb of the clients, blocking and not, and what they say when something is wrong."""

import asyncio
import dataclasses
import enum
import inspect
import os
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any, Final

import msgspec
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.engine.running import Stage, client_options, until
from troth import (
    Context,
    IdConflict,
    InvalidArgument,
    InvalidId,
    InvalidPayload,
    PayloadTooLarge,
    PromiseCanceled,
    PromiseRejected,
    PromiseTimedOut,
    ResultPending,
    SchemaMismatch,
    SyncTroth,
    Troth,
    TrothError,
    UnknownPromise,
    Unreachable,
    ValueMismatch,
    Worker,
    WrongState,
    calls,
    workflow,
)
from troth.calls import SettleItem
from troth.client.verbs import exported as troth_exported
from troth.testing.clock import Clock


class Answer(enum.Enum):
    YES = "yes"
    NO = "no"


@dataclasses.dataclass
class Order:
    id: str
    items: list[int]


@workflow
async def give_order(ctx: Context, id: str) -> Order:
    return Order(id, [1, 2])


@workflow
async def give_answer(ctx: Context, what: str) -> Answer | int | None:
    answers: dict[str, Answer | int | None] = {"yes": Answer.YES, "seven": 7, "nothing": None}
    return answers[what]


@workflow
async def lies(ctx: Context) -> bool:
    return "yes"  # type: ignore[return-value]


@workflow
async def asks(ctx: Context, title: str = "t") -> bool:
    return await ctx.options(title=title).promise(bool, "approval")


# The two clients as one: the verbs of `SyncTroth` in a thread.


class Blocking:
    """`SyncTroth` behind the face of `Troth`: a test of a verb holds for both."""

    def __init__(self, sync: SyncTroth) -> None:
        self._sync = sync

    def options(self, **options: Any) -> "Blocking":
        return Blocking(self._sync.options(**options))

    def handle(self, *args: Any) -> Any:
        return Blocking(self._sync.handle(*args))  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._sync, name)
        if not inspect.ismethod(found):
            return found

        async def call(*args: Any, **kwargs: Any) -> Any:
            answer = await asyncio.to_thread(found, *args, **kwargs)
            return Blocking(answer) if type(answer).__name__ == "SyncHandle" else answer

        return call


@pytest.fixture(params=["Troth", "SyncTroth"])
async def client(request: pytest.FixtureRequest, dsn: str) -> AsyncIterator[Any]:
    if request.param == "Troth":
        async with Troth(dsn, **client_options()) as troth:
            yield troth
    else:
        with SyncTroth(dsn) as sync:
            yield Blocking(sync)


def test_both_clients_have_the_same_verbs() -> None:
    def face(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(member).parameters)
            for name, member in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    assert face(Troth) == face(SyncTroth)


async def test_s02_s03_a_start_is_found_again_or_a_conflict(client: Any, stage: Stage) -> None:
    first = await client.start("order-1", give_order, "order-1")
    assert (first.id, first.started.answer, first.started.function) == ("order-1", "created", "give_order")
    assert (await client.start("order-1", "give_order", id="order-1")).started.answer == "attached"
    with pytest.raises(IdConflict, match="other arguments") as caught:
        await client.start("order-1", give_order, "order-2")
    assert "attach" in str(caught.value)
    stored = msgspec.json.decode(caught.value.detail or "")
    assert (stored["id"], stored["args"]) == ("order-1", {"id": "order-1"})
    with pytest.raises(IdConflict, match="another function: give_order"):
        await client.start("order-1", "something_else")
    attached = await client.options(on_conflict="attach").start("order-1", give_order, "order-2")
    stage.work(give_order)
    assert await attached.result(60) == Order("order-1", [1, 2])
    after = await client.start("order-1", give_order, "order-1")
    assert after.started.state == "resolved"
    assert await after.result() == Order("order-1", [1, 2])
    assert (await stage.troth.get("order-1")).settled_at == after.started.settled_at


async def test_options_of_a_start_are_stored(client: Any, stage: Stage, clock: Clock) -> None:
    given = client.options(queue="slow", delay=timedelta(hours=1), timeout=timedelta(days=2), priority=5)
    with_tags = given.options(tags={"customer": "ann"})
    await with_tags.start("w", give_order, "o")
    stored = await client.get("w")
    assert (stored.queue, stored.tags, stored.function) == ("slow", {"customer": "ann"}, "give_order")
    assert stored.timeout_at - stored.created_at == timedelta(days=2)
    assert (stored.task.state, stored.task.priority) == ("suspended", 5)
    assert (await client.get("w")).latent is False
    stage.work(give_order, queues=["slow"])
    clock.advance(timedelta(hours=1, seconds=1))
    assert await stage.troth.handle("w").result(60) == {"id": "o", "items": [1, 2]}


async def test_start_many_answers_each(client: Any) -> None:
    await client.start("w1", give_order, "taken")
    answers = await client.options(tags={"a": "b"}).start_many(
        give_order, {"w0": ["0"], "w1": {"id": "1"}, "w~2": ["2"], "w3": {"id": "3"}}
    )
    assert [(each.id, each.answer) for each in answers] == [
        ("w0", "created"),
        ("w1", "conflict"),
        ("w~2", "refused"),
        ("w3", "created"),
    ]
    assert answers[2].sqlstate == "TR001"
    assert (await client.get("w3")).tags == {"a": "b"}


async def test_decisions_and_their_answers(client: Any) -> None:
    for id in ("a", "b", "c"):
        assert (await client.create_promise(bool, id)).started.answer == "created"
    assert (await client.create_promise(bool, "a")).started.answer == "attached"
    by_ann = client.options(actor="ann")
    assert (await by_ann.resolve("a", True)).answer == "settled"
    again = await client.resolve("a", True)
    assert (again.answer, again.accepted, again.promise.settler) == ("already", True, "ann")
    other = await client.resolve("a", False)
    assert (other.answer, other.accepted, bytes(other.promise.value)) == ("conflict", False, b"true")
    assert (await client.reject("a", "no")).answer == "conflict"
    assert (await client.reject("b", ValueError("too dear"))).answer == "settled"
    assert (await client.cancel("c", "not needed")).answer == "settled"
    assert (await client.cancel("c", "for another reason")).answer == "already"
    assert (await client.resolve("unknown", True)).answer == "unknown"
    await client.start("w", give_order, "o")
    assert (await client.resolve("w", True)).answer == "not_latent"
    answers = await client.settle_many(
        [
            SettleItem("a", "resolve", msgspec.Raw(b"true")),
            SettleItem("x", "cancel"),
            SettleItem("w", "cancel"),
        ]
    )
    assert [each.answer for each in answers] == ["already", "unknown", "settled"]


async def test_results_and_their_errors(client: Any, clock: Clock) -> None:
    for id in ("value", "wrong", "rejected", "canceled"):
        await client.create_promise(Answer, id)
    await client.options(timeout=timedelta(hours=1)).create_promise(bool, "timedout")
    await client.options(timeout=timedelta(hours=1)).create_promise(Answer, "default", default=Answer.NO)
    await client.resolve("value", Answer.YES)
    await client.resolve("wrong", "perhaps")
    await client.reject("rejected", ValueError("too dear"))
    await client.cancel("canceled", "not needed")
    assert await client.handle("value", Answer).result() is Answer.YES
    assert await client.handle("value").result() == "yes"
    with pytest.raises(ValueMismatch, match="expected Answer") as mismatch:
        await client.handle("wrong", Answer).result()
    assert '"perhaps"' in str(mismatch.value)
    with pytest.raises(PromiseRejected) as rejected:
        await client.handle("rejected").result()
    assert (rejected.value.type, rejected.value.error_message) == ("ValueError", "too dear")
    with pytest.raises(PromiseCanceled, match="not needed"):
        await client.handle("canceled").result()
    with pytest.raises(ResultPending, match="it goes on, ask again") as pending:
        await client.handle("timedout").result(0.05)
    assert isinstance(pending.value, TimeoutError)
    clock.advance(timedelta(hours=2))
    with pytest.raises(PromiseTimedOut, match="timed out") as timedout:
        await client.handle("timedout").result()
    assert isinstance(timedout.value, TimeoutError)
    assert await client.handle("default", Answer).result() is Answer.NO
    with pytest.raises(UnknownPromise, match="'nobody'"):
        await client.handle("nobody").result(60)


async def test_typed_results(client: Any, stage: Stage) -> None:
    stage.work(give_order, give_answer, lies)
    assert await (await client.start("o", give_order, "o")).result(60) == Order("o", [1, 2])
    assert await (await client.start("yes", give_answer, "yes")).result(60) is Answer.YES
    assert await (await client.start("nothing", give_answer, "nothing")).result(60) is None
    assert await (await client.start("seven", give_answer, "seven")).result(60) == 7
    with pytest.raises(ValueMismatch, match="The value of 'lies'"):
        await (await client.start("lies", lies)).result(60)
    assert (await client.handle("o").status()).state == "resolved"


async def test_looking(client: Any, stage: Stage) -> None:
    for n in range(5):
        await client.options(tags={"n": str(n % 2)}).start(f"w{n}", asks)
    stage.work(asks)
    for n in range(5):
        await stage.reaches(f"w{n}", "suspended")
    assert [p.id for p in await client.search(latent=False, limit=2)] == ["w0", "w1"]
    assert [p.id for p in await client.search(latent=False, limit=2, after="w1")] == ["w2", "w3"]
    assert [p.id for p in await client.search(tags={"n": "1"})] == ["w1", "w3"]
    assert [p.id for p in await client.search(prefix="w2")] == ["w2", "w2~approval"]
    assert [p.id for p in await client.search(function="asks", state="resolved")] == []
    assert [p.id for p in await client.search(latent=True, state="pending", prefix="w4")] == ["w4~approval"]
    assert [(p.id, p.parent) for p in await client.tree("w0")] == [("w0", None), ("w0~approval", "w0")]
    assert set(await client.get_many(["w0", "none"])) == {"w0"}
    await client.resolve("w0~approval", True)
    assert await stage.troth.handle("w0", bool).result(60) is True
    (entry,) = await client.journal("w0")
    assert (entry.seq, entry.operation, entry.kind, entry.state, bytes(entry.value)) == (
        1,
        "approval",
        "promise",
        "resolved",
        b"true",
    )
    assert entry.instant.tzinfo is not None
    assert await client.journal("w0", from_seq=2) == []
    with pytest.raises(UnknownPromise):
        await client.tree("none")
    with pytest.raises(UnknownPromise):
        await client.get("none")


async def test_operators_verbs(client: Any, stage: Stage, clock: Clock) -> None:
    await client.start("w", asks)
    halted = await client.options(actor="ann").halt("w", "let me look")
    assert (halted.answer, halted.promise.task.reason.message) == ("halted", "let me look")
    stage.work(asks)
    assert (await client.halt("w")).answer == "already"
    assert (await client.resume("w")).answer == "resumed"
    await stage.reaches("w", "suspended")
    assert (await client.resume("w")).answer == "not_halted"
    await client.resolve("w~approval", True)
    assert await stage.troth.handle("w").result(60) is True
    assert (await client.halt("w")).answer == "settled"
    assert (await client.halt("none")).answer == "unknown"
    clock.advance(timedelta(days=2))
    # until a tick has seen to what the workflow left behind, its family stays
    assert await until(lambda: client.purge(timedelta(days=1))) == 2
    assert await client.get_many(["w", "w~approval"]) == {}


LABELS: dict[str, str] = {}
CHARGED: list[str] = []


def charge(order: str, approval: str) -> str:
    CHARGED.append(order)
    return f"{order} charged by {approval}"


def label(order: str) -> str:
    return LABELS[order]


@workflow
async def sells(ctx: Context, order: str) -> list[object]:
    approval = ctx.promise(bool, "approval")
    charged = await ctx.run(charge, order, approval.id)
    approved = await approval
    printed = await ctx.run(label, order)
    if not printed:
        raise ValueError(f"an empty label for {order}")
    return [charged, approved, printed]


async def test_s04_s61_a_fork_runs_again_what_the_original_failed_of(client: Any, stage: Stage) -> None:
    LABELS["x"] = ""
    CHARGED.clear()
    stage.work(sells)
    handle = await client.start("sale", sells, "x")
    await client.resolve((await stage.exists("sale~approval")).id, True)
    with pytest.raises(PromiseRejected, match="an empty label"):
        await handle.result(60)
    before = await client.get("sale"), await client.journal("sale")
    LABELS["x"] = "printed"
    forked = await client.options(actor="ann").fork("sale", "sale-2", before="label", reason="paper was out")
    assert (forked.id, forked.started.answer) == ("sale-2", "created")
    assert await forked.result(60) == ["x charged by sale~approval", True, "printed"]
    assert CHARGED == ["x"], "what the original was told is not done again"
    assert (await client.get("sale"), await client.journal("sale")) == before
    assert (await client.fork("sale", "sale-2", "label")).started.answer == "attached"
    with pytest.raises(IdConflict):
        await client.fork("sale", "sale-2")
    with pytest.raises(InvalidArgument, match="label"):
        await client.fork("sale", "sale-3", "lable")
    with pytest.raises(UnknownPromise):
        await client.fork("none", "sale-3")
    with pytest.raises(WrongState):
        await client.fork("sale~approval", "sale-3")
    assert (await client.fork("sale", "sale-3", version=2)).started.version == 2


NEVER: Final = "never"


async def hang(what: str) -> str:
    if what == NEVER:
        await asyncio.Event().wait()
    return what


@workflow
async def hangs(ctx: Context, what: str) -> str:
    return await ctx.run(hang, what)


async def test_s62_a_step_that_hangs_is_settled_by_hand(client: Any, stage: Stage) -> None:
    stage.work(hangs)
    handle = await client.start("w", hangs, NEVER)
    await stage.reaches("w", "claimed")
    by_ann = client.options(actor="ann")
    assert (await by_ann.settle_step("w", "hang", value="by hand", reason="it hung")).answer == "recorded"
    assert await handle.result(60) == "by hand"
    assert (await client.settle_step("w", "hang", value="again")).answer == "settled"
    failing = await client.start("f", hangs, NEVER)
    await stage.reaches("f", "claimed")
    assert (await client.settle_step("f", "hang", error="gave up")).accepted
    with pytest.raises(PromiseRejected, match="gave up"):
        await failing.result(60)


async def test_a_step_is_settled_once(client: Any, stage: Stage) -> None:
    worker = stage.work(asks)
    await client.start("w", asks)
    await stage.reaches("w", "suspended")
    await stage.stop(worker)
    assert (await client.settle_step("w", "approval", value=True)).answer == "not_a_step"
    assert (await client.settle_step("w", "later")).answer == "recorded"
    assert (await client.settle_step("w", "later")).answer == "already"
    conflict = await client.settle_step("w", "later", error=ValueError("no"))
    assert (conflict.answer, conflict.accepted) == ("conflict", False)
    with pytest.raises(InvalidArgument, match="not both"):
        await client.settle_step("w", "other", value=1, error="no")
    with pytest.raises(InvalidArgument):
        await client.settle_step("w", "~cancel", value=1)
    (entry,) = await client.journal("w")
    assert (entry.operation, entry.issued, entry.value) == ("later", None, msgspec.Raw(b"null"))


async def test_s57_a_cancel_by_force_asks_nobody(client: Any, stage: Stage) -> None:
    stage.work(hangs)
    handle = await client.start("w", hangs, NEVER)
    await stage.reaches("w", "claimed")
    assert (await client.options(actor="ann").cancel("w", "enough", force=True)).answer == "settled"
    with pytest.raises(PromiseCanceled, match="enough"):
        await handle.result(60)
    assert (await client.cancel("w", force=True)).answer == "already"


async def test_a_workflow_is_exported_and_imported(
    client: Any, stage: Stage, two_namespaces: tuple[str, str]
) -> None:
    LABELS["x"] = "printed"
    worker = stage.work(sells)
    await client.start("sale", sells, "x")
    await stage.reaches("sale", "suspended")
    await stage.stop(worker)
    exported = await client.export("sale")
    assert (exported.format, exported.record.function, exported.record.last_seq) == (1, "sells", 1)
    assert [(wait.operation, wait.promise) for wait in exported.record.waits] == [
        ("approval", "sale~approval")
    ]
    assert [entry.operation for entry in exported.journal] == ["charge"]
    text = msgspec.json.encode(exported)
    assert text.startswith(b'{"format":1,"record":{')

    async with Troth(stage.dsn, schema=two_namespaces[1]) as there:
        imported = await there.import_journal(text)
        status = await imported.status()
        assert (imported.id, status.task and status.task.state) == ("sale", "halted")
        back = await there.export("sale")
        assert [entry.value for entry in back.journal] == [entry.value for entry in exported.journal]
        with pytest.raises(IdConflict):
            await there.import_journal(exported)

    copied = await client.options(actor="ann").import_journal(exported, "copy")
    assert (copied.id, copied.started.answer) == ("copy", "created")
    stage.work(sells)
    await client.resume("copy")
    await client.resolve((await stage.exists("copy~approval")).id, False)
    assert await copied.result(60) == ["x charged by sale~approval", False, "printed"]


async def test_what_cannot_be_exported_or_imported(client: Any) -> None:
    await client.create_promise(bool, "latent")
    await client.start("fresh", asks)
    with pytest.raises(UnknownPromise):
        await client.export("none")
    for id in ("latent", "fresh"):
        with pytest.raises(WrongState):
            await client.record(id)
    for text in (b"", b"[]", '{"format": 2, "record": {}, "journal": []}', b"\xff", "[" * 10_000):
        with pytest.raises(InvalidArgument, match="no exported workflow"):
            await client.import_journal(text)


async def test_a_long_journal_is_exported_whole_and_no_longer_than_its_record(
    client: Any, db: psycopg.Connection[Any]
) -> None:
    await client.start("w", asks)
    db.execute("select * from claim('x', '{default}', '{asks}', 1)")
    grow = (
        "insert into checkpoint (task, seq, operation, kind, issued, state, value, at, epoch)"
        " select id, n, 's' || n, 'step', 0, 'resolved', to_jsonb(n), last_at, 1 from task, generate_series(%s::int, %s::int) n;"
    )
    db.execute(grow, [1, 901])
    db.execute("update task set last_seq = 901")
    exported = await client.export("w")
    assert [entry.seq for entry in exported.journal] == list(range(1, 902))
    record = await client.record("w")
    db.execute(grow, [902, 950])
    db.execute("update task set last_seq = 950")
    then = await client.journal("w", from_seq=800)
    assert len(troth_exported(record, [*exported.journal[:799], *then]).journal) == 901
    with pytest.raises(UnknownPromise, match="purged"):
        troth_exported(record, then)


async def test_s01_a_hundred_starts_at_once_run_once(stage: Stage) -> None:
    stage.work(counts)
    RUNS.clear()
    handles = await asyncio.gather(*(stage.troth.start("w", counts, "x") for _ in range(100)))
    assert await asyncio.gather(*(handle.result(60) for handle in handles)) == ["ran 1"] * 100
    assert RUNS == ["x"]


RUNS: list[str] = []


def count(name: str) -> str:
    RUNS.append(name)
    return f"ran {len(RUNS)}"


@workflow
async def counts(ctx: Context, name: str) -> str:
    return await ctx.run(count, name)


async def test_s34_s35_fifty_decisions_at_once_have_one_winner(stage: Stage) -> None:
    await stage.troth.create_promise(int, "p")
    answers = await asyncio.gather(*(stage.troth.resolve("p", n) for n in range(50)))
    winner = next(each for each in answers if each.answer == "settled")
    assert [each.answer for each in answers].count("conflict") == 49
    shown = {bytes(each.promise.value) for each in answers if each.promise is not None}
    assert len(shown) == 1
    value = await stage.troth.handle("p", int).result()
    assert shown == {str(value).encode()}
    again = await stage.troth.resolve("p", value)
    assert again.answer == "already"
    assert winner.promise is not None
    assert again.promise is not None
    assert again.promise.settled_at == winner.promise.settled_at


async def test_s36_s38_s40_late_and_unknown_decisions_are_answers(stage: Stage, clock: Clock) -> None:
    await stage.troth.options(timeout=timedelta(hours=1)).create_promise(bool, "p")
    clock.advance(timedelta(hours=2))
    late = await stage.troth.resolve("p", True)
    assert late.promise is not None
    assert (late.answer, late.promise.state) == ("conflict", "timedout")
    stage.work(asks)
    handle = await stage.troth.start("w", asks)
    await stage.reaches("w", "suspended")
    await stage.troth.cancel("w")
    with pytest.raises(PromiseCanceled):
        await handle.result(60)
    after = await stage.troth.resolve("w~approval", True)
    assert after.promise is not None
    assert (after.answer, after.promise.state) == ("conflict", "canceled")
    assert (await stage.troth.resolve("w~nothing", True)).answer == "unknown"
    assert (await stage.troth.get("w")).state == "canceled"


# Waiting.


async def test_waiting_ends_as_soon_as_there_is_an_end(client: Any, stage: Stage) -> None:
    await client.create_promise(int, "p")
    waiting = asyncio.create_task(client.wait("p"))
    also = asyncio.create_task(client.wait("p", 30))
    await stage.troth.resolve("p", 1)
    assert (await waiting).settled
    assert (await also).settled
    assert (await client.wait("p", 0)).settled


async def test_a_wait_that_is_given_up_troubles_no_other(stage: Stage) -> None:
    await stage.troth.create_promise(int, "p")
    given_up = asyncio.create_task(stage.troth.wait("p"))
    stays = asyncio.create_task(stage.troth.handle("p", int).result())
    assert (await stage.troth.wait("p", timedelta(milliseconds=10))).pending
    given_up.cancel()
    await asyncio.wait([given_up])
    await stage.troth.resolve("p", 4)
    assert await stays == 4


async def test_closing_a_client_ends_who_waits(dsn: str) -> None:
    troth = Troth(dsn, **client_options())
    await troth.create_promise(int, "p")
    waiting = asyncio.create_task(troth.wait("p"))
    await asyncio.sleep(0)
    await until(lambda: bool(troth.lookout._waiting))
    await troth.close()
    done, _ = await asyncio.wait([waiting], timeout=60)
    assert done, "it waits for ever"
    assert isinstance(waiting.exception(), TrothError)


# Bad input: each says what was wrong and what to do, and writes nothing.


@pytest.mark.parametrize(
    "id", ["", "a/b", "a b", " a", "é", "a\0b", "\ud800", "a'%s", "x" * 129, ".", "..", "a~b", "100%"]
)
async def test_s07_ids_that_cannot_be(client: Any, id: str) -> None:
    with pytest.raises((InvalidId, InvalidArgument)) as caught:
        await client.start(id, give_order, "o")
    assert any(word in str(caught.value) for word in ("letters", "without NUL", "~", "128"))
    if id != "a~b":
        with pytest.raises((InvalidId, InvalidArgument)):
            await client.create_promise(bool, id + "/" if len(id) > 128 else id)
    assert await client.search() == []


@pytest.mark.parametrize("id", ["x" * 128, "a-b._:@!$&'()*+,;=Z9", "A", "...", "%d".replace("%", "")])
async def test_s07_ids_that_can_be_come_back_as_they_were(client: Any, id: str) -> None:
    assert (await client.start(id, give_order, "o")).started.id == id
    assert (await client.get(id)).id == id


async def soon(client: Any, delay: Any) -> Any:
    return await client.options(delay=delay).start("w", give_order, "o")


BAD: list[tuple[Callable[[Any], Any], type[TrothError], str]] = [
    (lambda c: c.start("w", give_order), InvalidArgument, "missing a required argument"),
    (lambda c: c.start("w", give_order, "o", extra=1), InvalidArgument, "unexpected"),
    (lambda c: c.start("w", dict), InvalidArgument, "@workflow"),
    (lambda c: c.start("w", "not a name"), InvalidArgument, "letters"),
    (lambda c: c.start("w", give_order, float("nan")), InvalidPayload, "use None"),
    (lambda c: c.start("w", give_order, "x" * 2**21), PayloadTooLarge, "pass a reference"),
    (lambda c: c.start("w", give_order, "a\0"), InvalidPayload, "remove it"),
    (lambda c: c.start("w", give_order, object()), InvalidPayload, "dataclasses"),
    (lambda c: c.resolve("p", float("inf")), InvalidPayload, "use None"),
    (lambda c: c.resolve("p", "x" * 2**21), PayloadTooLarge, "pass a reference"),
    (lambda c: c.resolve("p", {1, object()}), InvalidPayload, "use builtins"),
    (
        lambda c: c.options(delay=timedelta(days=-1)).start("w", give_order, "o"),
        InvalidArgument,
        "between 0 and",
    ),
    (
        lambda c: c.options(timeout=timedelta(days=40_000)).start("w", give_order, "o"),
        InvalidArgument,
        "36500",
    ),
    (lambda c: c.options(timeout=-1).start("w", give_order, "o"), InvalidArgument, "between 0 and"),
    (lambda c: soon(c, float("nan")), InvalidArgument, "seconds or a timedelta"),
    (lambda c: soon(c, "tomorrow"), InvalidArgument, "seconds or a timedelta"),
    (lambda c: c.options(priority=10**6).start("w", give_order, "o"), InvalidArgument, "lower goes first"),
    (lambda c: c.options(queue="a b").start("w", give_order, "o"), InvalidArgument, "letters"),
    (lambda c: c.options(tags={"a": 1}).start("w", give_order, "o"), InvalidArgument, "tag"),
    (
        lambda c: c.options(on_conflict="ignore").start("w", give_order, "o"),
        InvalidArgument,
        "error or attach",
    ),
    (lambda c: c.options(actor="timeout").resolve("p", 1), InvalidArgument, "name a person"),
    (lambda c: c.create_promise(bool, "q", default=True), InvalidArgument, "timeout"),
    (lambda c: c.search(state="open"), InvalidArgument, "pending"),
    (lambda c: c.search(limit=0), InvalidArgument, "1"),
    (lambda c: c.wait("p", -1), InvalidArgument, "zero or more"),
    (lambda c: c.cancel("p", "a\0"), InvalidArgument, "NUL"),
]


@pytest.mark.parametrize("case", range(len(BAD)))
async def test_bad_input_is_refused_with_advice(client: Any, case: int) -> None:
    call, kind, advice = BAD[case]
    await client.create_promise(bool, "p")
    with pytest.raises(TrothError) as caught:
        await call(client)
    assert isinstance(caught.value, kind), caught.value
    assert advice in str(caught.value)
    assert [(p.id, p.state) for p in await client.search()] == [("p", "pending")]


# Postgres away, elsewhere, or without us.


@pytest.fixture(params=["Troth", "SyncTroth"])
def make(request: pytest.FixtureRequest) -> Any:
    async def connect(dsn: str | None, **options: Any) -> None:
        if request.param == "Troth":
            async with Troth(dsn, **options):
                return
        with SyncTroth(dsn, **options):
            return

    return connect


SECRET = "s3cr3t-w0rd"


@pytest.mark.parametrize(
    ("dsn", "kind", "advice"),
    [
        (f"postgresql://ann:{SECRET}@127.0.0.1:1/db", Unreachable, "Check the DSN"),
        (f"host=127.0.0.1 port=1 user=ann password={SECRET} dbname=db", Unreachable, "Check the DSN"),
        (f"postgresql://ann:{SECRET}@no-such-host.invalid/db", Unreachable, "Check the DSN"),
        (f"postgresql//ann:{SECRET}@host/db", InvalidArgument, "postgresql://user"),
        (f"postgresql://ann:{SECRET}%zz@host/db", InvalidArgument, "postgresql://user"),
        (f"http://ann:{SECRET}@host/db", InvalidArgument, "postgresql://user"),
        (f"postgresql://ann:{SECRET}@127.0.0.1:port/db", InvalidArgument, "no number"),
    ],
)
async def test_a_wrong_dsn_is_told_in_one_sentence_without_the_password(
    make: Any, dsn: str, kind: Any, advice: str
) -> None:
    with pytest.raises(kind) as caught:
        await make(dsn)
    text = str(caught.value)
    assert advice in text
    assert SECRET not in text
    assert "\n" not in text
    assert SECRET not in repr(caught.value)


async def test_no_dsn_at_all(make: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.delenv("TROTH_DSN", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", "postgresql://production/db")
    with pytest.raises(InvalidArgument, match="TROTH_DSN"):
        await make(None)


async def test_s99_database_url_is_never_looked_at(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/production")
    monkeypatch.setenv("PGHOST", "no-such-host.invalid")
    monkeypatch.setenv("TROTH_DSN", dsn)
    async with Troth(**client_options()) as troth:
        worker = Worker(troth, [give_order])
        running = asyncio.create_task(worker.run())
        assert await (await troth.start("w", give_order, "o")).result(60) == Order("o", [1, 2])
        worker.stop()
        await running
    with SyncTroth() as sync:
        assert sync.get("w").state == "resolved"


async def test_a_wrong_password_user_or_database(make: Any, dsn: str) -> None:
    for part in ({"dbname": "nowhere"}, {"user": "nobody-here"}):
        with pytest.raises(Unreachable) as caught:
            await make(make_conninfo(dsn, **part))
        assert "cannot be reached" in str(caught.value)
        assert any(
            word in str(caught.value)
            for word in ("Create the database", "Check user and password", "Check the DSN")
        )


async def test_a_dsn_with_libpq_parameters_is_taken_by_both(make: Any, dsn: str) -> None:
    await make(make_conninfo(dsn, connect_timeout="5", keepalives="1", application_name="mine"))
    await make(f"{dsn}?connect_timeout=5&keepalives=1&channel_binding=prefer&gssencmode=disable")


async def test_before_the_first_migration(make: Any, dsn: str) -> None:
    with pytest.raises(SchemaMismatch, match="troth migrate"):
        await make(dsn, schema="nowhere")


@pytest.mark.parametrize(
    ("current", "oldest", "advice"), [(0, 0, "troth migrate"), (9, 9, "Upgrade the package")]
)
async def test_s85_another_protocol_is_refused(  # noqa: PLR0917
    make: Any, dsn: str, db: psycopg.Connection[Any], current: int, oldest: int, advice: str
) -> None:
    db.execute(
        "create or replace function protocol(out current integer, out oldest integer) language sql"
        f" as $$ select {current}, {oldest} $$".encode()
    )
    with pytest.raises(SchemaMismatch, match=advice):
        await make(dsn)
    with pytest.raises(SchemaMismatch):
        await Worker(Troth(dsn, **client_options()), [give_order]).run()


async def test_a_newer_schema_that_still_speaks_ours_is_taken(
    make: Any, dsn: str, db: psycopg.Connection[Any]
) -> None:
    db.execute(
        "create or replace function protocol(out current integer, out oldest integer) language sql as $$ select 9, 1 $$"
    )
    await make(dsn)


async def test_s86_a_client_and_a_worker_need_no_more_than_their_roles(
    dsn: str, stage: Stage, db: psycopg.Connection[Any]
) -> None:
    # roles are the cluster's, and other tests run beside this one
    names = {kind: f"troth_test_{kind}_{os.getpid()}" for kind in ("client", "worker")}
    for kind, name in names.items():
        db.execute(f"create role {name} login password 'secret' in role troth_{kind}".encode())
    try:
        as_client = make_conninfo(dsn, user=names["client"], password="secret")
        as_worker = make_conninfo(dsn, user=names["worker"], password="secret")
        async with (
            Troth(as_client, **client_options()) as client,
            Troth(as_worker, **client_options()) as holder,
        ):
            stage.work(asks, client=holder)
            handle = await client.start("w", asks)
            await stage.reaches("w", "suspended")
            with SyncTroth(as_client) as sync:
                assert sync.resolve("w~approval", True).answer == "settled"
            assert await handle.result(60) is True
            with (
                psycopg.connect(as_worker, autocommit=True) as connection,
                pytest.raises(psycopg.errors.InsufficientPrivilege),
            ):
                connection.execute("update troth.promise set state = 'pending'")
            with pytest.raises(TrothError, match="permission denied"):
                await client.pool.run(calls.tick())
            await stage.stop_all()
    finally:
        for name in names.values():
            db.execute(f"drop role {name}".encode())


async def test_a_blocking_client_serves_threads_in_turns(dsn: str) -> None:
    with SyncTroth(dsn) as sync:
        answers = await asyncio.gather(
            *(asyncio.to_thread(sync.start, f"w{n}", give_order, "o") for n in range(8))
        )
        assert [answer.id for answer in answers] == [f"w{n}" for n in range(8)]


async def test_a_connection_that_broke_is_replaced(client: Any, db: psycopg.Connection[Any]) -> None:
    await client.start("w", give_order, "o")
    db.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where application_name = 'troth' and datname = current_database()"
    )
    assert (await client.get("w")).pending
