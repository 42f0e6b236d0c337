"""A replay outside a worker: what it finds in journals made by hand, and what `troth replay` makes of those in Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from tests.engine.running import Stage
from tests.support.cli import Answer, troth
from troth import Context, PromiseInfo, Workflow, workflow
from troth.cli.replaying import _connected
from troth.cli.session import Session
from troth.codec import Payloads, encode
from troth.core import CANCEL, CANCEL_PATH, PATCH, STEP, TIMER, Returned
from troth.errors import InvalidArgument
from troth.model import JournalEntry, OpenWait, Record, TaskInfo
from troth.registry import Registry
from troth.remote import describe_error
from troth.worker.guard import Guard
from troth.worker.replaying import THE_END, Verdict, replay
from troth.worker.telling import as_told, made_machine

STARTED_AT = 1_700_000_000_000_000
Code = Callable[..., Any]


async def send(what: object = None) -> str:
    return f"sent {what}"


async def book(what: object = None) -> str:
    return f"booked {what}"


def flow(code: Code, **options: Any) -> Workflow[..., Any]:
    return workflow(name="flow", **options)(code)


class Life:
    """A workflow that lived without any database: its journal, and what is recorded of it."""

    def __init__(self, code: Code, args: dict[str, Any] | None = None) -> None:
        self.args = msgspec.Raw(encode(args or {}, "args"))
        self.machine = made_machine(
            flow(code), "w", self.args, None, started_at=STARTED_AT, seed=7, payloads=Payloads()
        )
        self.machine.foresee(0, [])
        self.machine.start()
        self.entries: list[JournalEntry] = []

    def tell(
        self, path: str, value: object = None, *, state: str = "resolved", by_hand: bool = False
    ) -> Life:
        operation = self.machine.open[path]
        at = self.machine.now + 10
        if operation.kind == TIMER:
            assert isinstance(operation.request, int)
            at = max(at, operation.at + operation.request)
        raw = msgspec.Raw(encode(value, "value"))
        return self._feed(
            JournalEntry(
                len(self.entries) + 1,
                path,
                operation.kind,
                state,
                at,
                None if by_hand else operation.issued,
                cohort=None if by_hand else self.machine.cohort(operation.issued),
                digest=None if by_hand else operation.digest,
                value=raw if state == "resolved" else msgspec.Raw(b"null"),
                error=raw if state != "resolved" else msgspec.Raw(b"null"),
            )
        )

    def cancel(self) -> Life:
        entry = JournalEntry(len(self.entries) + 1, CANCEL_PATH, CANCEL, "canceled", self.machine.now + 10, 0)
        return self._feed(entry)

    def _feed(self, entry: JournalEntry) -> Life:
        self.machine.feed(as_told(entry, Payloads()))
        self.entries.append(entry)
        return self

    def record(self, state: Any = "pending") -> Record:
        waits = [
            OpenWait(
                one.path,
                "retry" if one.kind == STEP else one.kind,
                None if one.kind in (TIMER, STEP) else f"w~{one.path}",
                one.issued,
                one.digest,
                self.machine.cohort(one.issued),
                one.at if one.kind in (TIMER, STEP) else None,
            )
            for one in self.machine.open.values()
            if one.kind != PATCH
        ]
        last = len(self.entries)
        return Record("w", "flow", 1, "default", STARTED_AT, 7, state, last, self.args, waits=waits)

    def promise(self, task: Any = "suspended") -> PromiseInfo:
        return PromiseInfo(
            "w", "pending", datetime.now(UTC), function="flow", task=TaskInfo(task, "default", "flow@1")
        )

    def ended(self, settler: str = "worker") -> PromiseInfo:
        """Its promise, settled as the code ended."""
        outcome = self.machine.outcome
        if isinstance(outcome, Returned):
            settled: dict[str, Any] = {
                "state": "resolved",
                "value": msgspec.Raw(encode(outcome.value, "value")),
            }
        elif (raised := getattr(outcome, "exception", None)) is not None:
            settled = {"state": "rejected", "error": msgspec.Raw(encode(describe_error(raised), "error"))}
        else:
            settled = {"state": "canceled", "error": msgspec.Raw(b'{"type":"canceled","message":"enough"}')}
        return PromiseInfo(id="w", created_at=datetime.now(UTC), function="flow", settler=settler, **settled)

    def through(self, code: Code, promise: PromiseInfo | None = None) -> Verdict:
        """What other code makes of it; by default it is suspended, or has ended, as it stands."""
        done = self.machine.done
        if promise is None:
            promise = self.ended() if done else self.promise()
        return replay(flow(code), self.record(promise.state), self.entries, promise=promise)


async def approved(ctx: Context) -> str:
    await ctx.run(send, 1)
    approval = ctx.options(timeout=timedelta(days=7)).promise(bool, "approval")
    booked = await ctx.run(book, approval.id)
    return f"{booked}: {await approval}"


def waiting() -> Life:
    """`approved`, waiting for its approval."""
    return Life(approved).tell("send", "sent").tell("book", "booked")


def parts(verdict: Verdict) -> tuple[str, str, str]:
    assert verdict.result == "diverged", verdict
    difference = verdict.difference
    assert difference is not None
    assert difference.line is None or difference.line.startswith("test_replaying.py:")
    return difference.operation, difference.recorded, difference.issued


def test_the_same_code_is_the_same_at_every_length_of_its_journal() -> None:
    life = Life(approved)
    for count in range(4):
        life = Life(approved)
        for path, value in [("send", "sent"), ("book", "booked"), ("approval", True)][:count]:
            life.tell(path, value)
        verdict = life.through(approved)
        assert (verdict.result, verdict.events, verdict.difference) == ("same", count, None), verdict
    assert life.machine.done


# Edits that an event finds.


async def without_the_first(ctx: Context) -> str:
    approval = ctx.promise(bool, "approval")
    return f"{await ctx.run(book, approval.id)}: {await approval}"


async def renamed(ctx: Context) -> str:
    await ctx.options(name="mail").run(send, 1)
    return f"{await ctx.promise(bool, 'approval')}"


async def other_argument(ctx: Context) -> str:
    await ctx.run(send, 2)
    return f"{await ctx.promise(bool, 'approval')}"


async def one_more_at_once(ctx: Context) -> str:
    more = ctx.run(book, 0)
    await ctx.run(send, 1)
    approval = ctx.promise(bool, "approval")
    return f"{await ctx.run(book, approval.id)}: {await approval}{await more}"


@pytest.mark.parametrize(
    ("code", "operation", "recorded", "issued"),
    [
        (
            without_the_first,
            "send",
            "a step issued after entry 0",
            "a promise issued after entry 0 at 'approval'",
        ),
        (renamed, "send", "a step issued after entry 0", "a step issued after entry 0 at 'mail'"),
        (other_argument, "send", "with arguments of digest", "with arguments of digest"),
        (one_more_at_once, "send", "one of 1 operation issued after entry 0", "one of 2: book, send"),
    ],
)
def test_an_event_that_the_code_has_not_asked_for_is_found(
    code: Code, operation: str, recorded: str, issued: str
) -> None:
    verdict = waiting().through(code)
    found = parts(verdict)
    assert found[0] == operation
    assert recorded in found[1]
    assert issued in found[2]
    assert verdict.events == 0
    assert verdict.difference is not None
    assert verdict.difference.line


# Edits that no event finds, for they are behind the last one.


async def no_longer_asks(ctx: Context) -> str:
    await ctx.run(send, 1)
    await ctx.run(book, "w~approval")
    return "always"


async def asks_by_another_name(ctx: Context) -> str:
    await ctx.run(send, 1)
    decision = ctx.promise(bool, "decision")
    booked = await ctx.run(book, "w~approval")
    return f"{booked}: {await decision}"


async def asks_later(ctx: Context) -> str:
    await ctx.run(send, 1)
    booked = await ctx.run(book, "w~approval")
    return f"{booked}: {await ctx.promise(bool, 'approval')}"


async def fails_behind(ctx: Context) -> str:
    approval = await approved_without_waiting(ctx)
    raise ValueError(f"no more of {approval}")


async def approved_without_waiting(ctx: Context) -> str:
    await ctx.run(send, 1)
    approval = ctx.promise(bool, "approval")
    await ctx.run(book, approval.id)
    return "it"


async def sends_once_more(ctx: Context) -> str:
    await ctx.run(send, 1)
    approval = ctx.promise(bool, "approval")
    booked = await ctx.run(book, approval.id)
    await ctx.options(name="thank").run(send, 2)
    return f"{booked}: {await approval}"


async def sends_once_more_patched(ctx: Context) -> str:
    await ctx.run(send, 1)
    approval = ctx.promise(bool, "approval")
    booked = await ctx.run(book, approval.id)
    if ctx.patched("thanks"):
        await ctx.options(name="thank").run(send, 2)
    return f"{booked}: {await approval}"


def test_a_wait_that_the_code_no_longer_asks_for_is_found() -> None:
    # by events: the cohort of `book` had the promise in it. Without cohorts, as journals of an older release are:
    life = waiting()
    life.entries = [msgspec.structs.replace(entry, cohort=None) for entry in life.entries]
    operation, recorded, issued = parts(life.through(no_longer_asks))
    assert (operation, recorded) == ("approval", "a promise issued after entry 1")
    assert issued == "nothing, for it has returned"
    operation, recorded, issued = parts(life.through(asks_by_another_name))
    assert (operation, issued) == ("approval", "a promise issued after entry 1 at 'decision'")
    operation, recorded, issued = parts(life.through(asks_later))
    assert (operation, recorded) == ("approval", "a promise issued after entry 1")
    assert issued == "a promise issued after entry 2 at 'approval'"
    operation, recorded, issued = parts(life.through(fails_behind))
    assert (operation, issued) == (THE_END, "that it has raised ValueError: no more of it")


def test_an_operation_too_many_behind_the_last_event_is_found_where_the_task_is_suspended() -> None:
    life = waiting()
    operation, recorded, issued = parts(life.through(sends_once_more))
    assert (operation, issued) == ("thank", "a step issued after entry 2")
    assert recorded == "nothing of it, although the task waits since event 2"
    # while a worker drives it, a step is on its way that nobody has heard of: that is legal
    for task in ("claimed", "ready", "halted"):
        assert life.through(sends_once_more, life.promise(task)).result == "same"
    # and so it is where nothing is known of the task
    assert replay(flow(sends_once_more), life.record(), life.entries).result == "same"


def test_a_patch_behind_the_last_event_is_not_taken_where_the_code_was_before() -> None:
    assert waiting().through(sends_once_more_patched).result == "same"


async def naps(ctx: Context) -> str:
    await ctx.run(send, 1)
    await asyncio.sleep(60)
    return "rested"


async def naps_longer(ctx: Context) -> str:
    await ctx.run(send, 1)
    await asyncio.sleep(90)
    return "rested"


async def naps_beside_a_step(ctx: Context) -> str:
    await ctx.run(send, 1)
    await asyncio.gather(asyncio.sleep(60), ctx.run(book, 1))
    return "rested"


def test_a_timer_that_is_waited_for_has_its_duration_and_its_company() -> None:
    life = Life(naps).tell("send", "sent")
    assert life.through(naps).result == "same"
    operation, recorded, issued = parts(life.through(naps_longer))
    assert operation == "timer"
    assert recorded == "a timer issued after entry 1 of 60 s"
    assert issued == "a timer issued after entry 1 of 90 s"

    def beside(path: str) -> Verdict:
        together = Life(naps_beside_a_step).tell("send", "sent")
        return together.through(naps) if path == "less" else together.through(naps_beside_a_step)

    assert beside("same").result == "same"
    operation, recorded, issued = parts(beside("less"))
    assert operation in ("book", "2~timer")


async def company(ctx: Context) -> str:
    first, second = ctx.promise(bool, "first"), ctx.promise(bool, "second")
    return f"{await first}{await second}"


async def less_company(ctx: Context) -> str:
    return f"{await ctx.promise(bool, 'first')}"


async def more_company(ctx: Context) -> str:
    third = ctx.promise(bool, "third")
    return await company(ctx) + f"{await third}"


def test_waits_are_compared_together_with_what_was_asked_for_beside_them() -> None:
    life = Life(company)
    assert life.through(company).result == "same"
    operation, recorded, issued = parts(life.through(more_company, life.promise("halted")))
    assert operation == "first"
    assert recorded == "a promise issued after entry 0, together with others"
    assert issued == "it together with third, first, second"
    operation, recorded, issued = parts(life.through(less_company, life.promise("halted")))
    assert operation in ("first", "second")


async def gives_up(ctx: Context) -> str:
    try:
        async with asyncio.timeout(5):
            return f"{await ctx.promise(bool, 'answer')}"
    except TimeoutError:
        return f"{await ctx.promise(bool, 'second')}"


def test_a_timer_that_was_taken_back_since_is_no_divergence_but_one_that_is_recorded_as_open_is() -> None:
    life = Life(gives_up)
    asleep = life.record()
    life.tell("timer")
    assert life.through(gives_up).result == "same"
    stale = [wait for wait in asleep.waits if wait.kind == TIMER]
    record = msgspec.structs.replace(life.record(), waits=[*life.record().waits, *stale])
    assert replay(flow(gives_up), record, life.entries, promise=life.promise("claimed")).result == "same"
    operation, recorded, _ = parts(replay(flow(gives_up), record, life.entries, promise=life.promise()))
    assert operation == "timer"
    assert "still waited for" in recorded


def test_a_step_that_waits_to_be_tried_again_is_no_operation_too_many() -> None:
    life = Life(approved)
    assert [wait.kind for wait in life.record().waits] == ["retry"]
    assert life.through(approved).result == "same"
    operation, recorded, issued = parts(life.through(renamed))
    assert (operation, recorded) == ("send", "a step issued after entry 0")
    assert "'mail'" in issued


def test_what_an_operator_decided_is_no_divergence() -> None:
    life = Life(approved).tell("send", "by hand", by_hand=True).tell("book", "booked")
    assert life.through(approved).result == "same"


# Ends.


async def another_end(ctx: Context) -> str:
    return (await approved(ctx)).upper()


async def another_line_raises(ctx: Context) -> str:
    await approved(ctx)
    raise KeyError("lost")


async def goes_on(ctx: Context) -> str:
    said = await approved(ctx)
    await ctx.run(send, 3)
    return said


async def unstorable(ctx: Context) -> Any:
    await approved(ctx)
    return object()


def test_a_workflow_that_has_ended_must_end_the_same_way() -> None:
    life = waiting().tell("approval", True)
    assert life.through(approved).result == "same"
    assert parts(life.through(another_end)) == (
        THE_END,
        'that it returned "booked: True"',
        'that it returned "BOOKED: TRUE"',
    )
    verdict = life.through(another_line_raises)
    assert parts(verdict)[2] == "that it raised KeyError: 'lost'"
    assert verdict.difference is not None
    assert verdict.difference.line == f"test_replaying.py:{another_line_raises.__code__.co_firstlineno + 2}"
    assert "InvalidPayload" in parts(life.through(unstorable))[2]
    operation, recorded, issued = parts(life.through(goes_on))
    assert (operation, recorded) == (THE_END, "that it was resolved")
    assert issued == "that it goes on, waiting for send:2"
    # without its promise only the state of its end is known
    record = life.record("resolved")
    assert replay(flow(another_end), record, life.entries).result == "same"
    assert replay(flow(another_line_raises), record, life.entries).result == "diverged"


KEPT: list[object] = []


async def raises(ctx: Context) -> str:
    await ctx.run(send, 1)
    KEPT.append(object())  # so that the next one lies elsewhere
    raise ValueError(f"{KEPT[-1]} is broken")


async def raises_another(ctx: Context) -> str:
    await ctx.run(send, 1)
    raise ValueError("all is broken")


def test_an_error_at_the_end_is_compared_by_its_type_and_message_but_not_by_addresses() -> None:
    life = Life(raises).tell("send", "sent")
    assert life.through(raises).result == "same"
    assert "all is broken" in parts(life.through(raises_another))[2]


async def compensates(ctx: Context) -> str:
    try:
        return await approved(ctx)
    except asyncio.CancelledError:
        await asyncio.shield(ctx.options(name="undo").run(book))
        raise


async def swallows(ctx: Context) -> str:
    try:
        return await compensates(ctx)
    except asyncio.CancelledError:
        return "never mind"


def test_a_canceled_workflow_is_replayed_to_its_end_unless_it_was_no_doing_of_its_code() -> None:
    life = Life(compensates).tell("send", "sent").cancel().tell("undo", "undone")
    assert life.machine.done
    assert life.through(compensates).result == "same"
    assert parts(life.through(swallows))[1:] == ("that it was canceled", 'that it returned "never mind"')
    forced = Life(approved)
    for settler in ("operator", "timeout"):
        assert forced.through(approved, forced.ended(settler)).result == "same"
    assert replay(flow(approved), forced.record("canceled"), []).result == "same"
    assert replay(flow(approved), forced.record("timedout"), []).result == "same"
    assert parts(forced.through(approved, forced.ended()))[2] == "that it goes on, waiting for send"


async def ends_at_once(ctx: Context) -> str:
    return "done"


async def waits_for_nothing_recorded(ctx: Context) -> str:
    await asyncio.Event().wait()
    return "never"


def test_code_that_ends_where_it_is_recorded_as_suspended_diverges() -> None:
    life = Life(waits_for_nothing_recorded)
    assert parts(life.through(ends_at_once)) == (THE_END, "that it waits", "that it has returned")
    assert life.through(ends_at_once, life.promise("claimed")).result == "same"


# What is no question of same or diverged.


async def greets(ctx: Context, name: str) -> str:
    return f"hello {await ctx.run(send, name)}"


async def counts(ctx: Context, name: int) -> str:
    return f"hello {await ctx.run(send, name)}"


def test_arguments_that_no_longer_fit_end_the_workflow_as_they_would_in_a_worker() -> None:
    life = Life(greets, {"name": "you"}).tell("send", "sent")
    assert life.through(greets).result == "same"
    assert parts(life.through(counts))[2].startswith("nothing, for it has ended")


class Reverses:
    name = "reverse"

    def encode(self, plain: bytes, /) -> bytes:
        return plain[::-1]

    def decode(self, data: bytes, /) -> bytes:
        return data[::-1]

    def digest(self, plain: bytes, /) -> bytes:
        return plain[:8]


def test_sealed_payloads_need_their_codec() -> None:
    life = Life(greets, {"name": "you"}).tell("send", "sent")
    assert life.machine.done
    sealed = Payloads(Reverses())

    def hidden(plain: object) -> dict[str, Any]:
        made = sealed.seal(plain)
        return {"value": msgspec.Raw(made.data), "headers": {"codec": "reverse"}}

    made = sealed.seal({"name": "you"})
    entries = [msgspec.structs.replace(life.entries[0], **hidden("sent"))]
    record = msgspec.structs.replace(
        life.record("resolved"), args=msgspec.Raw(made.data), args_headers={"codec": "reverse"}
    )
    promise = msgspec.structs.replace(life.ended(), **hidden("hello sent"))
    assert replay(flow(greets), record, entries, sealed, promise=promise).result == "same"
    wrong = msgspec.structs.replace(promise, **hidden("hello you"))
    assert "hello you" in parts(replay(flow(greets), record, entries, sealed, promise=wrong))[1]
    verdict = replay(flow(greets), record, entries, promise=promise)
    assert verdict.result == "undecodable"
    assert "reverse" in (verdict.message or "")


def test_unknown_code_is_said_to_be_unknown_and_a_workflow_itself_takes_any_version() -> None:
    life = waiting()
    old = msgspec.structs.replace(life.record(), version=3)
    verdict = replay(Registry([flow(approved)]), old, life.entries)
    assert (verdict.result, verdict.version) == ("unknown", 3)
    assert "version 3" in (verdict.message or "")
    assert replay(Registry([flow(approved, version=3)]), old, life.entries).result == "same"
    assert replay(flow(approved, version=4), old, life.entries).result == "same"


def test_a_journal_with_a_gap_is_refused() -> None:
    life = waiting()
    for entries in (life.entries[1:], life.entries[:1], []):
        with pytest.raises(InvalidArgument, match="not whole"):
            replay(flow(approved), life.record(), entries)


async def leaves(ctx: Context) -> str:
    raise SystemExit(3)


async def peeks(ctx: Context) -> str:
    import time

    return f"{time.time()}"


def test_code_that_cannot_be_run_at_all_fails_alone_and_is_watched_if_so_wished() -> None:
    verdict = Life(waits_for_nothing_recorded).through(leaves)
    assert (verdict.result, verdict.message) == ("raised", "SystemExit: 3")
    found: list[object] = []
    life = Life(waits_for_nothing_recorded)
    replay(flow(peeks), life.record(), life.entries, watch=Guard("log", found.append))
    assert len(found) == 1


def test_a_verdict_reads_well() -> None:
    verdict = waiting().through(without_the_first)
    first = without_the_first.__code__.co_firstlineno + 1
    assert str(verdict.difference) == (
        "send: recorded a step issued after entry 0; issued a promise issued after entry 0 at 'approval', a step issued "
        f"after entry 0 at 'book' at test_replaying.py:{first}"
    )


# `troth replay`.

OLD = """
import asyncio
from troth import Context, workflow

async def send(what: object) -> str:
    print("SENDING")
    return "sent"

@workflow
async def approve(ctx: Context, order: str) -> str:
    print("running", order)
    await ctx.run(send, order)
    return f"{order}: {await ctx.promise(bool, 'approval')}"

@workflow
async def other(ctx: Context) -> int:
    return 1
"""
NEW = OLD.replace("await ctx.run(send, order)", "await ctx.options(name='mail').run(send, order)")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "old.py").write_text(OLD)
    (tmp_path / "new.py").write_text(NEW)
    return tmp_path


async def replayed(dsn: str, files: Path, *words: str) -> Answer:
    return await asyncio.to_thread(troth, *words, dsn=dsn, cwd=files)


async def lived(stage: Stage, files: Path) -> None:
    """Two approvals that wait, one that has ended, one that never ran, and another workflow."""
    from troth.cli.loading import load_workflows

    known = {each.name: each for each in load_workflows([str(files / "old.py")])}
    worker = stage.work(*known.values())
    for n in range(3):
        await stage.troth.start(f"order-{n}", "approve", order=f"order-{n}")
        await stage.reaches(f"order-{n}", "suspended")
    await stage.troth.resolve("order-2~approval", True)
    await stage.troth.handle("order-2").result(60)
    await (await stage.troth.start("else", "other")).result(60)
    await stage.stop(worker)
    await stage.troth.start("order-9", "approve", order="order-9")


def test_the_connection_can_write_nothing(dsn: str) -> None:
    with _connected(Session(dsn, "troth", json=False, traceback=False)) as connection:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), connection.transaction():
            connection.execute("select troth.start('a', 'f')")
        with connection.transaction():
            assert connection.execute("show transaction_isolation").fetchone() == ("repeatable read",)


async def test_journals_in_postgres_are_replayed_and_nothing_is_written(stage: Stage, files: Path) -> None:
    await lived(stage, files)
    dsn = stage.dsn
    before = [await stage.troth.get(id) for id in ("order-0", "order-2", "else")]
    same = await replayed(dsn, files, "replay", "old.py")
    assert (same.code, same.out.strip()) == (0, "2 workflows, 2 events: 2 the same")
    assert "running order-0" in same.err, "what the code prints is no part of the answer"
    assert "SENDING" not in same.err, "no step is carried out"
    everything = await replayed(dsn, files, "replay", "old.py", "--state", "all")
    assert (everything.code, everything.out.strip()) == (0, "4 workflows, 4 events: 4 the same")

    edited = await replayed(dsn, files, "replay", "new.py", "--state", "all")
    assert edited.code == 1
    lines = edited.out.splitlines()
    number = NEW.splitlines().index("    await ctx.options(name='mail').run(send, order)") + 1
    assert lines[:3] == [
        f"order-0 (approve@1) diverges at send, new.py:{number}",
        "  recorded  a step issued after entry 0",
        "  issued    a step issued after entry 0 at 'mail'",
    ]
    assert lines[-1] == "4 workflows, 0 events: 1 the same, 3 diverged"
    assert [await stage.troth.get(id) for id in ("order-0", "order-2", "else")] == before


async def test_what_is_replayed_can_be_chosen(stage: Stage, files: Path) -> None:
    await lived(stage, files)
    dsn = stage.dsn

    async def ids(*words: str) -> list[str]:
        answer = await replayed(dsn, files, "--json", "replay", "new.py", *words)
        *verdicts, summary = answer.documents
        assert summary["replayed"] == len(verdicts)
        assert answer.code == (1 if any(each["result"] == "diverged" for each in verdicts) else 0)
        return [each["id"] for each in verdicts]

    assert await ids("--id", "order-2", "--id", "else") == ["order-2", "else"]
    assert await ids("--state", "resolved") == ["order-2", "else"]
    assert await ids("--state", "all", "--function", "other") == ["else"]
    assert await ids("--prefix", "order-1") == ["order-1"]
    assert await ids("--queue", "elsewhere") == []
    assert await ids("--limit", "1") == ["order-0"]
    assert await ids("--id", "order-9") == []
    unknown = await replayed(dsn, files, "replay", "new.py:other", "--id", "order-0")
    assert (unknown.code, "1 of unknown code" in unknown.out) == (0, True)
    assert "no workflow 'approve' in version 1" in unknown.out


async def test_an_exported_file_is_replayed_without_any_postgres(stage: Stage, files: Path) -> None:
    await lived(stage, files)
    exported = await replayed(stage.dsn, files, "export", "order-0", "--output", "order.json")
    assert exported.code == 0, exported
    same = await replayed("postgresql://127.0.0.1:1/x", files, "replay", "old.py", "--file", "order.json")
    assert (same.code, same.out.strip()) == (0, "1 workflow, 1 event: 1 the same")
    edited = await replayed(
        "postgresql://127.0.0.1:1/x", files, "--json", "replay", "new.py", "-f", "order.json"
    )
    assert edited.code == 1
    verdict, summary = edited.documents
    assert (verdict["result"], verdict["difference"]["operation"]) == ("diverged", "send")
    assert summary == {"replayed": 1, "events": 0, "diverged": 1}


MISUSES: dict[str, tuple[tuple[str, ...], str, int]] = {
    "no target": (("replay",), "", 2),
    "a file that is not there": (("replay", "old.py", "--file", "nowhere.json"), "cannot be read", 2),
    "a file of something else": (("replay", "old.py", "--file", "old.py"), "no exported workflow", 2),
    "files and filters": (
        ("replay", "old.py", "--file", "x", "--function", "f"),
        "Files are replayed whole",
        2,
    ),
    "an ID and filters": (("replay", "old.py", "--id", "x", "--limit", "3"), "An ID names one workflow", 2),
    "no such state": (("replay", "old.py", "--state", "broken"), "", 2),
    "no workflow in it": (("replay", "empty.py"), "no workflows", 2),
    "an unknown ID": (("replay", "old.py", "--id", "nobody"), "No promise has the ID 'nobody'", 3),
    "limit of nothing": (("replay", "old.py", "--limit", "0"), "leaves nothing", 2),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_misuse_says_so(dsn: str, files: Path, misuse: str) -> None:
    words, said, code = MISUSES[misuse]
    (files / "empty.py").write_text("x = 1\n")
    answer = troth(*words, dsn=dsn, cwd=files)
    assert answer.code == code, answer
    assert said in answer.complaint


def test_postgres_away_is_no_divergence(files: Path) -> None:
    answer = troth("replay", "old.py", "--dsn", "postgresql://127.0.0.1:1/x", cwd=files)
    assert answer.code == 4
