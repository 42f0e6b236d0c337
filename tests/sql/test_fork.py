"""fork: a workflow runs again under a new ID from a point of its journal, and the original is what it was (S4, S61)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.sql.test_races import meet
from tests.support.sql import Row, Sql, Worker, promise, refused, step, timer, turn, wait
from troth.testing.clock import Clock

ORIGINALS = ("running", "suspended", "halted", "finished", "failed")


def everything(sql: Sql, family: str = "old") -> dict[str, list[Row]]:
    """All rows of a family, to be the same before and after."""
    return {
        table: sql.query(
            f"select * from {table} where split_part({column}, '~', 1) = %s order by 1, 2", family
        )
        for table, column in (
            ("promise", "id"),
            ("task", "id"),
            ("checkpoint", "task"),
            ("wait", "task"),
            ("closing", "id"),
        )
    }


@pytest.fixture
def old(sql: Sql, worker: Worker, clock: Clock) -> Sql:
    """A workflow of two claims: a sealed step, its own promise, another's, a timer, one that failed; the last is open."""
    sql.create_promise("theirs")
    sql.start(
        "old", "f", {"n": 1}, queue="default", priority=3, timeout=timedelta(days=1), tags={"customer": "7"},
        headers={"codec": "c"}, digest=b"\x01\x02",
    )  # fmt: skip
    worker.claim(lanes=["f@1", "f"], pins=["f@1", "f@4"])
    worker.advance(
        turn("old", 1, 0),
        outcomes=[step("old", "charge", value="sealed", headers={"codec": "c"}, digest=11, cohort=21)],
        operations=[
            promise("old", "approval", 1, digest=12),
            wait("old", "their", "theirs", 1),
            promise("old", "late", 1),
        ],
    )
    sql.resolve("old~approval", {"yes": True}, headers={"codec": "d"}, digest=b"\x03")
    sql.resolve("theirs", None)
    worker.advance(
        turn("old", 1, 3, "suspend"), timers=[timer("old", "timer", 10_000_000, 3) | {"digest": 10_000_000}]
    )
    clock.advance(timedelta(seconds=11))
    sql.tick()
    worker.claim(lanes=["f@4"])
    worker.advance(
        turn("old", 2, 4),
        outcomes=[step("old", "2~ship", 4, state="rejected", error={"type": "E", "message": "m"})],
    )
    return sql


def ended_as(sql: Sql, worker: Worker, state: str) -> None:
    match state:
        case "suspended":
            worker.advance(turn("old", 2, 5, "suspend"))
        case "halted":
            worker.advance(turn("old", 2, 5, "halt", reason={"code": "nondeterminism", "message": "m"}))
        case "finished":
            assert worker.finish("old", 2, 5, "done") == "ok"
        case "failed":
            worker.advance(turn("old", 2, 5, "finish", state="rejected", error={"type": "E", "message": "m"}))
        case _:
            assert state == "running"


@pytest.mark.parametrize("state", ORIGINALS)
def test_s61_what_came_before_is_copied_and_the_original_intact(old: Sql, worker: Worker, state: str) -> None:
    ended_as(old, worker, state)
    before, journal = everything(old), old.journal("old")
    answer = old.fork("old", "new", "2~ship", "shipped too early", "ann")
    assert everything(old) == before
    assert (answer["answer"], answer["id"], answer["state"], answer["version"]) == (
        "created",
        "new",
        "pending",
        4,
    )

    copied = old.journal("new")
    assert [each["operation"] for each in copied] == ["charge", "approval", "their", "timer"]
    for new, original in zip(copied, journal, strict=False):
        assert {**new, "digest": None} == {**original, "digest": None}
    assert [each["promise"] for each in copied] == [None, "old~approval", "theirs", None]
    # arguments may have the old ID in them, a promise's or a timer's digest has not
    assert [each["digest"] for each in copied] == [None, 12, None, 10_000_000]

    (task,) = old.query("select * from task where id = 'new'")
    (original,) = before["promise"][:1]
    (made,) = old.query("select * from promise where id = 'new'")
    assert (task["state"], task["lane"], task["epoch"], task["last_seq"], task["children"]) == (
        "ready",
        "f@4",
        1,
        4,
        0,
    )
    assert task["priority"] == (3 if before["task"] else 0)
    assert task["last_at"] == before["checkpoint"][3]["at"]
    for name in ("function", "queue", "args", "args_headers", "args_digest", "tags", "title"):
        assert made[name] == original[name]
    assert made["timeout_at"] - made["created_at"] == timedelta(days=1)
    assert (made["parent"], made["timeout_at"]) == (None, task["timeout_at"])
    assert old.query("select actor, verb, promise, before, after, detail from audit where verb = 'fork'") == [
        {"actor": "ann", "verb": "fork", "promise": "new", "before": None, "after": "pending",
         "detail": {"from": "old", "before": "2~ship", "version": None, "reason": "shipped too early"}}
    ]  # fmt: skip


@pytest.mark.parametrize("state", ORIGINALS)
def test_it_runs_on_as_any_other(old: Sql, worker: Worker, state: str) -> None:
    ended_as(old, worker, state)
    old.fork("old", "new", "2~ship")
    claimed = next(each for each in worker.claim(lanes=["f@4"]) if each["task"] == "new")
    original = old.one(
        "select row(coalesce(t.seed, p.seed), coalesce(t.started_at, p.started_at))::text"
        " from promise p left join task t using (id) where p.id = 'old'"
    )
    assert (claimed["epoch"], claimed["args"], claimed["last_seq"]) == (2, {"n": 1}, 4)
    assert old.one("select row(seed, started_at)::text from task where id = 'new'") == original
    assert [each["value"] for each in claimed["journal"]] == ["sealed", {"yes": True}, None, None]
    # what was open is asked for anew, under the new ID
    said = worker.advance(
        turn("new", 2, 4, "suspend"),
        outcomes=[step("new", "2~ship", 4)],
        operations=[promise("new", "late", 1)],
    )["new"]
    assert (said["answer"], said["entries"]) == ("ok", None)
    old.resolve("new~late")
    assert old.state("old~late") == "pending" or state in {"finished", "failed"}
    assert worker.claim(lanes=["f@4"])[0]["task"] == "new"
    assert worker.finish("new", 3, 6, "done") == "ok"


def test_without_a_point_all_of_it_is_copied(old: Sql, worker: Worker) -> None:
    ended_as(old, worker, "failed")
    old.fork("old", "new")
    assert old.events("new") == old.events("old")
    assert old.journal("new")[4]["error"] == {"type": "E", "message": "m"}
    assert [each["epoch"] for each in worker.claim(lanes=["f@4"])] == [3], "above all that it took along"


def test_from_its_very_beginning(old: Sql) -> None:
    old.fork("old", "new", "charge")
    (task,) = old.query("select * from task where id = 'new'")
    assert (old.events("new"), task["epoch"], task["last_seq"]) == ([], 1, 0)
    assert task["last_at"] == task["started_at"] == old.one("select started_at from task where id = 'old'")


def test_s4_a_failure_stays_and_a_fork_runs_it_again(sql: Sql, worker: Worker) -> None:
    sql.start("old", "f")
    worker.claim()
    failed: Row = {"state": "rejected", "error": {"type": "E", "message": "m"}}
    worker.advance(turn("old", 1, 0, "finish", **failed), outcomes=[step("old", "s", **failed)])
    assert sql.start("old", "f")["state"] == "rejected"
    sql.fork("old", "new", "s")
    (claimed,) = worker.claim()
    assert worker.finish("new", claimed["epoch"], 0, "done") == "ok"
    assert (sql.state("old"), sql.events("old")) == ("rejected", [(1, "s", "rejected")])


def test_what_never_ran_begins_as_it_would_have(sql: Sql, worker: Worker) -> None:
    sql.start("old", "f", delay=timedelta(hours=1))
    sql.start("gone", "f")
    sql.cancel("gone")
    for each in ("old", "gone"):
        sql.fork(each, f"new-{each}")
    assert {each["task"]: each["epoch"] for each in worker.claim()} == {"new-old": 1, "new-gone": 1}
    assert sql.query("select distinct lane from task where id like 'new%'") == [{"lane": "f@1"}]


def test_it_may_be_another_version(old: Sql, worker: Worker) -> None:
    old.query("update task set lane = 'f@4!' where id = 'old'")
    assert old.fork("old", "same")["version"] == 4
    answer = old.fork("old", "new", version=7)
    assert (answer["version"], answer["task"]["lane"]) == (7, "f@7")
    assert [each["task"] for each in worker.claim(lanes=["f@7"])] == ["new"]


def test_a_fork_of_a_fork_and_of_a_child(old: Sql, worker: Worker) -> None:
    old.fork("old", "new")
    old.fork("new", "newer", "2~ship")
    assert [(each["operation"], each["value"]) for each in old.journal("newer")] == [
        ("charge", "sealed"), ("approval", {"yes": True}), ("their", None), ("timer", None),
    ]  # fmt: skip
    assert old.journal("newer")[1]["promise"] == "old~approval"


def test_what_it_was_told_stays_when_the_original_is_purged_and_its_ids_are_used_again(
    old: Sql, worker: Worker, clock: Clock
) -> None:
    ended_as(old, worker, "finished")
    old.fork("old", "new")
    told = old.journal("new")
    old.tick()
    clock.advance(timedelta(hours=2))
    assert old.purge(timedelta(hours=1)) == 4, "old, its two promises, and theirs"
    for each, value in (("theirs", 666), ("old~approval", 666)):
        old.create_promise(each)
        old.resolve(each, value)
    assert old.journal("new") == told


def test_an_event_with_an_outcome_of_its_own_keeps_it(old: Sql, worker: Worker) -> None:
    """A name that was taken: the event says so, whatever stands under that ID."""
    old.create_promise("old~taken", title="not theirs")
    old.resolve("old~taken", "something else")
    old.query(
        "insert into checkpoint (task, seq, operation, kind, issued, state, headers, at, epoch)"
        " select 'old', 6, 'taken', 'call', 5, 'resolved', '{\"mine\": 1}', last_at, 2 from task where id = 'old'"
    )
    old.query("update task set last_seq = 6 where id = 'old'")
    old.fork("old", "new")
    assert old.query("select value, headers from checkpoint where task = 'new' and operation = 'taken'") == [
        {"value": None, "headers": {"mine": 1}}
    ]


# what is refused


@pytest.fixture
def untouched(old: Sql) -> Any:
    before = everything(old)
    yield
    assert everything(old) == before
    assert everything(old, "new") == {table: [] for table in before}


@pytest.mark.usefixtures("untouched")
def test_a_point_that_is_none_names_those_that_are(old: Sql) -> None:
    state, message = refused(lambda: old.fork("old", "new", "shop"))
    assert state == "TR002"
    assert message == (
        "old has no event of an operation 'shop': the last that are recorded are charge, approval, their, timer, 2~ship"
    )
    assert refused(lambda: old.fork("old", "new", "late"))[0] == "TR002", "open, so not in the journal"


@pytest.mark.usefixtures("untouched")
def test_behind_a_request_to_cancel_there_is_no_fork(old: Sql, worker: Worker) -> None:
    old.start("canceled", "f")
    worker.claim()
    worker.advance(turn("canceled", 1, 0), outcomes=[step("canceled", "a")])
    old.cancel("canceled")
    worker.advance(turn("canceled", 1, 2), outcomes=[step("canceled", "undo", 2)])
    for before in ("undo", None):
        state, message = refused(lambda: old.fork("canceled", "new", before))  # noqa: B023
        assert (state, message) == (
            "TR012", "canceled was asked to cancel at event 2, and a copy from behind it would be canceled too",
        )  # fmt: skip
    for before in ("a", "~cancel"):
        assert old.fork("canceled", f"n{before[1:]}", before)["answer"] == "created"
    assert (old.events("n"), old.events("ncancel")) == ([], [(1, "a", "resolved")])


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("arguments", "sqlstate"),
    [
        (("nobody", "new"), "TR011"),
        (("old~approval", "new"), "TR012"),
        (("old", "new~x"), "TR001"),
        (("old", "n w"), "TR001"),
        (("old", None), "TR001"),
        (("old", "theirs"), "TR010"),
        (("old", "old"), "TR010"),
        (("old", "new", None, "x" * 1001), "TR003"),
        (("old", "new", None, None, "worker"), "TR002"),
        (("old", "new", None, None, None, 0), "TR002"),
    ],
    ids=str,
)
def test_what_cannot_be_forked_changes_nothing(old: Sql, arguments: tuple[Any, ...], sqlstate: str) -> None:
    assert refused(lambda: old.fork(*arguments))[0] == sqlstate
    assert old.query("select * from audit where verb = 'fork'") == []


def test_the_same_fork_again_is_the_same_fork(old: Sql, worker: Worker) -> None:
    """Its answer may have been lost; anything else under that ID is another's."""
    old.fork("old", "new", "timer", "first")
    worker.claim(lanes=["f@4"])
    again = old.fork("old", "new", "timer", "second")
    assert (again["answer"], again["task"]["state"]) == ("attached", "claimed")
    old.cancel("old")
    assert old.fork("old", "new", "timer")["answer"] == "attached", "whatever the original is by now"
    for arguments in (
        ("old", "new"),
        ("old", "new", "their"),
        ("theirs", "new", "timer"),
        ("old", "new", "timer", None, None, 4),
    ):
        assert refused(lambda: old.fork(*arguments))[0] == "TR010", arguments  # noqa: B023
    assert old.one("select count(*) from audit where verb = 'fork'") == 1


# beside others


def test_beside_a_worker_who_goes_on(sql: Sql, worker: Worker, another: Callable[..., Sql]) -> None:
    """Whatever it was when it was read, a fork is a whole prefix of it."""
    sql.start("old", "f")
    worker.claim()
    forker, holder = another(), Worker(another())

    def advance(n: int) -> str:
        while True:
            said = holder.advance(turn("old", 1, n), outcomes=[step("old", f"s{n}", n, value=n)])["old"]
            if said["answer"] != "busy":
                answer: str = said["answer"]
                return answer

    outcomes = meet(50, advance, lambda n: forker.fork("old", f"new{n}")["task"]["last_seq"])
    assert {answer for answer, _ in outcomes} == {"ok"}
    assert len({taken for _, taken in outcomes}) > 5, "nothing was met"
    for n, (_, taken) in enumerate(outcomes):
        assert sql.events(f"new{n}") == [(k + 1, f"s{k}", "resolved") for k in range(taken)]


def test_of_two_forks_at_once_there_is_one(old: Sql, another: Callable[..., Sql]) -> None:
    first, second = another(), another()
    outcomes = meet(
        30, *(lambda n, each=each: each.fork("old", f"new{n}", "timer")["answer"] for each in (first, second))
    )
    assert {tuple(sorted(each)) for each in outcomes} == {("attached", "created")}
    assert old.one("select count(*) from audit where verb = 'fork'") == 30
