"""record and import_journal: a workflow as it was, taken out of one namespace and brought into another."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.support.sql import Row, Sql, Worker, promise, refused, step, timer, turn, wait
from troth.testing.clock import Clock

Document = tuple[Row, list[Row]]


def exported(sql: Sql, id: str = "w") -> Document:
    record = sql.record(id)
    return record, sql.journal(id)


@pytest.fixture
def suspended(sql: Sql, worker: Worker) -> Sql:
    """A workflow that was told of a step and a promise, and waits for two things more."""
    sql.create_promise("theirs")
    sql.start(
        "w",
        "f",
        ["a"],
        tags={"customer": "7"},
        timeout=timedelta(hours=1),
        headers={"codec": "c"},
        digest=b"\x0f",
    )
    worker.claim()
    worker.advance(
        turn("w", 1, 0),
        outcomes=[step("w", "charge", value={"n": 1}, digest=11, cohort=21, headers={"codec": "c"})],
        operations=[promise("w", "approval", 1, digest=12), wait("w", "their", "theirs", 1)],
    )
    sql.resolve("w~approval", None)
    worker.advance(turn("w", 1, 2, "suspend"), timers=[timer("w", "timer", 10**9, 2)])
    return sql


# record


def test_a_record_says_what_a_replay_needs(suspended: Sql) -> None:
    record = suspended.record("w")
    (task,) = suspended.query("select *, extract(epoch from started_at) * 1000000 as micros from task")
    fires = suspended.one(
        "select (extract(epoch from fire_at) * 1000000)::bigint from wait where kind = 'timer'"
    )
    assert {key: record[key] for key in ("id", "function", "version", "queue", "args", "args_headers", "state", "last_seq")} == {
        "id": "w", "function": "f", "version": 1, "queue": "default", "args": ["a"], "args_headers": {"codec": "c"},
        "state": "pending", "last_seq": 2,
    }  # fmt: skip
    assert (record["started_at"], record["seed"], record["args_digest"]) == (
        task["micros"],
        task["seed"],
        "0f",
    )
    assert record["timeout_at"] == suspended.one(
        "select (extract(epoch from timeout_at) * 1000000)::bigint from task"
    )
    assert [
        {key: each[key] for key in ("operation", "kind", "promise", "issued", "fire_at")}
        for each in record["waits"]
    ] == [
        {"operation": "their", "kind": "wait", "promise": "theirs", "issued": 1, "fire_at": None},
        {"operation": "timer", "kind": "timer", "promise": None, "issued": 2, "fire_at": fires},
    ]


def test_of_one_that_ended_it_says_the_same(suspended: Sql, worker: Worker) -> None:
    before = suspended.record("w")
    suspended.resolve("theirs", 1)
    worker.claim()
    worker.finish("w", 2, 3, "done")
    assert suspended.record("w") == before | {
        "state": "resolved",
        "last_seq": 3,
        "waits": [],
        "task": None,
        "asked": None,
    }


def test_what_never_ran_has_none(sql: Sql) -> None:
    sql.create_promise("p")
    sql.start("w", "f", delay=timedelta(hours=1))
    sql.start("gone", "f")
    sql.cancel("gone")
    assert [sql.record(each) for each in ("nobody", "p", "w", "gone")] == [None] * 4


# import


def test_it_comes_back_as_it_was_and_halted(
    suspended: Sql, two_namespaces: tuple[str, str], another: Callable[..., Sql]
) -> None:
    other = another(two_namespaces[1])
    record, journal = exported(suspended)
    answer = other.import_journal(record, journal, actor="ann")
    assert (answer["answer"], answer["id"], answer["task"]["state"]) == ("created", "w", "halted")
    assert answer["task"]["reason"] == {
        "code": "imported",
        "message": "imported by ann: resume it to let it run here",
    }
    again, told = exported(other)
    assert told == [{**each, "promise": None} for each in journal]
    assert again == record | {"timeout_at": None, "waits": [], "task": "halted", "asked": -1}
    assert other.query("select actor, verb, promise, before, after, detail from audit") == [
        {
            "actor": "ann",
            "verb": "import_journal",
            "promise": "w",
            "before": None,
            "after": "halted",
            "detail": {"from": "w", "events": 2},
        }
    ]
    theirs = Worker(other)
    assert theirs.claim() == []
    assert other.resume("w")["answer"] == "resumed"
    (claimed,) = theirs.claim()
    assert (claimed["epoch"], claimed["seed"], claimed["journal"]) == (2, record["seed"], told)
    assert theirs.finish("w", 2, 2, "done") == "ok"


def test_under_another_id_digests_are_left_out(suspended: Sql) -> None:
    record, journal = exported(suspended)
    suspended.import_journal(record, journal, "copy")
    assert [(each["operation"], each["digest"]) for each in suspended.journal("copy")] == [
        ("charge", None),
        ("approval", 12),
    ]
    assert suspended.events("copy") == suspended.events("w")


def test_what_it_was_told_does_not_follow_others_promises(suspended: Sql) -> None:
    """A promise made later under a name of the imported workflow is none that it was told of."""
    record, journal = exported(suspended)
    suspended.import_journal(record, journal, "copy")
    assert suspended.journal("copy")[1]["value"] is None
    suspended.query("update checkpoint set promise = 'stranger' where task = 'copy' and seq = 2")
    suspended.create_promise("stranger")
    suspended.resolve("stranger", 666)
    assert suspended.journal("copy")[1]["value"] is None


def test_an_empty_journal_and_an_ended_workflow(sql: Sql, worker: Worker) -> None:
    sql.start("w", "f")
    worker.claim()
    worker.finish("w", 1, 0)
    record, journal = exported(sql)
    sql.import_journal(record, journal, "copy")
    task = sql.task("copy")
    assert task is not None
    assert (task["epoch"], task["last_seq"], task["last_at"] == task["started_at"]) == (1, 0, True)


def test_what_a_cancel_and_a_hand_wrote_comes_along(suspended: Sql, worker: Worker) -> None:
    suspended.settle_step("w", "by_hand", 1)
    suspended.cancel("w", "enough")
    record, journal = exported(suspended)
    suspended.import_journal(record, journal, "copy")
    assert [(each["operation"], each["issued"]) for each in suspended.journal("copy")][2:] == [
        ("by_hand", None),
        ("~cancel", 0),
    ]


@pytest.mark.parametrize("name", ["w", "theirs", "below", None])
def test_an_id_that_is_taken(suspended: Sql, name: str | None) -> None:
    suspended.create_promise("below~approval")
    record, journal = exported(suspended)
    before = suspended.query("select * from promise order by id")
    assert refused(lambda: suspended.import_journal(record, journal, name))[0] == "TR010"
    assert suspended.query("select * from promise order by id") == before


def without(record: Row, *names: str) -> Row:
    return {key: value for key, value in record.items() if key not in names}


@pytest.mark.parametrize(
    ("change", "sqlstate"),
    [
        (lambda r: None, "TR002"),
        (lambda r: [r], "TR002"),
        (lambda r: "text", "TR002"),
        *((lambda r, name=name: without(r, name), "TR002") for name in ("function", "version", "started_at", "seed")),
        (lambda r: r | {"function": "no name"}, "TR002"),
        (lambda r: r | {"version": 0}, "TR002"),
        (lambda r: r | {"version": "one"}, "TR002"),
        (lambda r: r | {"started_at": "2026-01-01"}, "TR002"),
        (lambda r: r | {"started_at": -1}, "TR002"),
        (lambda r: r | {"seed": 1.5}, "TR002"),
        (lambda r: r | {"queue": "1"}, "TR002"),
        (lambda r: r | {"args": 1, "args_headers": None}, "TR002"),
        (lambda r: r | {"args_headers": 1}, "TR002"),
        (lambda r: r | {"args_digest": "zz"}, "TR002"),
        (lambda r: r | {"tags": {"a": 1}}, "TR002"),
        (lambda r: r | {"title": "x" * 201}, "TR003"),
        (lambda r: r | {"args": ["x" * 1048577]}, "TR003"),
        (lambda r: r | {"id": "a~b"}, "TR001"),
        (lambda r: without(r, "id"), "TR001"),
    ],
)  # fmt: skip
def test_a_record_that_is_none(suspended: Sql, change: Callable[[Row], Any], sqlstate: str) -> None:
    record, journal = exported(suspended)
    changed = change(record | {"id": "copy"})
    assert refused(lambda: suspended.import_journal(changed, journal))[0] == sqlstate
    assert suspended.state("copy") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda j: None, "there are none"),
        (lambda j: {}, "non-array"),
        (lambda j: [1], "array of objects"),
        (lambda j: j[1:], "entry 1 is numbered 2"),
        (lambda j: [j[1], j[0]], "entry 1 is numbered 2"),
        (lambda j: [j[0], j[1] | {"seq": None}], "entry 2 is numbered"),
        (lambda j: [j[0], j[1] | {"seq": "two"}], "invalid input syntax"),
        (lambda j: [j[0], j[1] | {"operation": "charge"}], "entry 1 is not the only one of charge"),
        (lambda j: [j[0] | {"operation": "a b"}, j[1]], "entry 1 names no operation"),
        (lambda j: [j[0] | {"kind": None}, j[1]], "entry 1 is of no kind"),
        (lambda j: [j[0] | {"state": "pending"}, j[1]], "entry 1 has no outcome"),
        (lambda j: [j[0], j[1] | {"issued": 2}], "entry 2 was issued after entry 2"),
        (lambda j: [j[0] | {"issued": -1}, j[1]], "entry 1 was issued after entry -1"),
        (lambda j: [j[0] | {"at": 1}, j[1]], "entry 1 goes back in time"),
        (lambda j: [j[0], j[1] | {"at": j[0]["at"] - 1}], "entry 2 goes back in time"),
        (lambda j: [j[0], j[1] | {"at": None}], "entry 2 goes back in time"),
        (lambda j: [j[0] | {"epoch": 2}, j[1]], "entry 2 goes back to epoch 1"),
        (lambda j: [j[0] | {"digest": 2**63}, j[1]], "out of range"),
    ],
)  # fmt: skip
def test_a_journal_that_could_not_have_been(
    suspended: Sql, change: Callable[[list[Row]], Any], message: str
) -> None:
    record, journal = exported(suspended)
    changed = change(copy.deepcopy(journal))
    state, said = refused(lambda: suspended.import_journal(record, changed, "copy"))
    assert (state, said.startswith("the journal cannot be read: "), message in said) == (
        "TR002",
        True,
        True,
    ), said
    assert suspended.state("copy") is None


def test_a_payload_that_is_too_large(suspended: Sql) -> None:
    record, journal = exported(suspended)
    journal[0]["value"] = "x" * 1048577
    assert refused(lambda: suspended.import_journal(record, journal, "copy"))[0] == "TR003"


def test_a_journal_as_long_as_they_get(sql: Sql, worker: Worker, clock: Clock) -> None:
    sql.start("w", "f")
    worker.claim()
    record, _ = exported(sql)
    entry = {
        "kind": "step",
        "state": "resolved",
        "issued": 0,
        "at": record["started_at"],
        "epoch": 1,
        "value": None,
    }
    entries = [{**entry, "seq": n, "operation": f"s:{n}"} for n in range(1, 100_002)]
    assert refused(lambda: sql.import_journal(record, entries, "copy"))[0] == "TR030"
    assert sql.import_journal(record, entries[:-1], "copy")["task"]["last_seq"] == 100_000
