"""halt, resume, purge, register, protocol, the views: what operators and workers ask besides."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.support.sql import Row, Sql, Worker, call, promise, refused, step, turn, wait
from troth.testing.clock import Clock


def row(sql: Sql, task: str) -> Row:
    found = sql.task(task)
    assert found is not None
    return found


def test_a_workflow_is_parked_and_sent_on(sql: Sql, worker: Worker) -> None:
    sql.start("w", "f")
    worker.claim()
    answer = sql.halt("w", "looks odd", actor="ann")
    assert (answer["answer"], answer["promise"]["task"]["state"]) == ("halted", "halted")
    assert answer["promise"]["task"]["reason"] == {"code": "operator", "message": "looks odd"}
    assert worker.advance(turn("w", 1, 0), outcomes=[step("w", "s")])["w"]["answer"] == "fenced"
    assert worker.claim() == []
    assert sql.halt("w")["answer"] == "already"
    answer = sql.resume("w", actor="bob")
    assert (answer["answer"], answer["promise"]["task"]["state"], answer["promise"]["task"]["attempts"]) == (
        "resumed",
        "ready",
        0,
    )
    assert [each["epoch"] for each in worker.claim()] == [2]
    assert sql.query("select actor, verb, before, after from audit order by at") == [
        {"actor": "ann", "verb": "halt", "before": "claimed", "after": "halted"},
        {"actor": "bob", "verb": "resume", "before": "halted", "after": "ready"},
    ]


def test_from_every_state(sql: Sql, worker: Worker) -> None:
    sql.start("suspended", "f")
    worker.claim()
    worker.wait_for("suspended")
    sql.start("ready", "f")
    sql.start("delayed", "f", delay=timedelta(hours=1))
    for each in ("ready", "suspended", "delayed"):
        assert sql.halt(each)["answer"] == "halted"
        assert sql.resume(each)["answer"] == "resumed"
        assert row(sql, each)["state"] == "ready"
    assert [each["task"] for each in sql.query("select task from wait")] == ["suspended"]


def test_what_cannot_be_halted_or_resumed_is_an_answer(sql: Sql, worker: Worker) -> None:
    sql.create_promise("p")
    sql.start("done", "f")
    worker.claim()
    worker.finish("done", 1, 0)
    sql.start("w", "f")
    for verb in (sql.halt, sql.resume):
        assert verb("nobody") == {"answer": "unknown", "promise": None}
        assert verb("p")["answer"] == "latent"
        assert (verb("done")["answer"], verb("done")["promise"]["state"]) == ("settled", "resolved")
    assert sql.resume("w")["answer"] == "not_halted"
    assert sql.one("select count(*) from audit") == 0
    assert refused(lambda: sql.halt("w", "x" * 1001))[0] == "TR003"


# cancel_force


@pytest.mark.parametrize("state", ["ready", "delayed", "claimed", "suspended", "halted"])
def test_s57_a_forced_cancel_ends_it_whatever_it_does(sql: Sql, worker: Worker, state: str) -> None:
    sql.start("w", "f", delay=timedelta(hours=1) if state == "delayed" else None)
    if state in {"claimed", "suspended", "halted"}:
        worker.claim()
    if state == "suspended":
        worker.wait_for("w")
    elif state == "halted":
        sql.halt("w")
    answer = sql.cancel_force("w", "enough", actor="ann")
    assert (answer["answer"], answer["promise"]["state"], answer["promise"]["settler"]) == (
        "settled",
        "canceled",
        "ann",
    )
    assert answer["promise"]["error"] == {"type": "canceled", "message": "enough"}
    assert (sql.task("w"), sql.query("select * from wait")) == (None, [])
    assert worker.advance(turn("w", 1, 0, "finish", state="resolved"))["w"]["answer"] == "fenced"
    before = "suspended" if state == "delayed" else state
    assert sql.query("select actor, verb, before, after from audit where verb = 'cancel_force'") == [
        {"actor": "ann", "verb": "cancel_force", "before": before, "after": "canceled"}
    ]
    assert sql.cancel_force("w")["answer"] == "already"


def test_who_waits_for_it_is_told(sql: Sql, worker: Worker) -> None:
    sql.start("w", "f")
    sql.start("other", "f")
    worker.claim()
    worker.advance(turn("other", 1, 0, "suspend"), operations=[wait("other", "its", "w")])
    sql.cancel_force("w")
    assert sql.events("other") == [(1, "its", "canceled")]
    assert row(sql, "other")["state"] == "ready"


def test_what_it_left_open_is_owed_the_same(sql: Sql, worker: Worker) -> None:
    sql.start("w", "f")
    sql.start("done", "f")
    worker.claim()
    worker.wait_for("w")
    worker.advance(turn("done", 1, 0), operations=[promise("done", "p")])
    sql.resolve("done~p")
    for each in ("w", "done"):
        sql.cancel_force(each)
    assert sql.query("select id, itself, force from closing where force") == [
        {"id": "w", "itself": False, "force": True}
    ]
    sql.tick()
    assert (sql.state("w~approval"), sql.query("select * from closing")) == ("canceled", [])


def test_one_that_was_asked_and_does_not_end(sql: Sql, worker: Worker) -> None:
    """A cancel that is owed to itself is paid by it, and its children are owed theirs."""
    sql.start("w", "f")
    worker.claim()
    worker.wait_for("w")
    assert sql.cancel("w")["answer"] == "requested"
    sql.query("insert into closing (id, since, itself, after) values ('w', now(), true, 'w~a')")
    assert sql.cancel_force("w")["answer"] == "settled"
    assert sql.query("select id, itself, force, after from closing") == [
        {"id": "w", "itself": False, "force": True, "after": None}
    ]


def test_what_cannot_be_ended_by_force_is_an_answer(sql: Sql, worker: Worker, clock: Clock) -> None:
    assert sql.cancel_force("nobody") == {"answer": "unknown", "promise": None}
    sql.start("done", "f")
    worker.claim()
    worker.finish("done", 1, 0)
    assert (sql.cancel_force("done")["answer"], sql.state("done")) == ("conflict", "resolved")
    sql.create_promise("p")
    assert (sql.cancel_force("p")["answer"], sql.state("p")) == ("settled", "canceled")
    sql.start("late", "f", timeout=timedelta(minutes=1))
    clock.advance(timedelta(minutes=2))
    assert (sql.cancel_force("late")["answer"], sql.state("late")) == ("conflict", "timedout")
    assert refused(lambda: sql.cancel_force("p", "x" * 1001))[0] == "TR003"
    assert refused(lambda: sql.cancel_force("p", actor="worker"))[0] == "TR002"


# purge


@pytest.fixture
def old(sql: Sql, worker: Worker, clock: Clock) -> Sql:
    """A finished family, one with a pending promise left, one that another waits for; all a month old."""
    for each in ("done", "open", "waits"):
        sql.start(each, "f")
    worker.claim()
    worker.advance(
        turn("done", 1, 0),
        turn("open", 1, 0),
        outcomes=[step("done", "s")],
        operations=[promise("done", "p", 1), promise("open", "p")],
    )
    sql.resolve("done~p")
    worker.advance(turn("done", 1, 2, "finish", state="resolved"))
    sql.tick()  # it is owed a look at its children, and stays until then
    worker.advance(turn("waits", 1, 0, "suspend"), operations=[wait("waits", "its", "open~p")])
    worker.finish("open", 1, 0)
    clock.advance(timedelta(days=30))
    return sql


def test_whole_families_go_and_only_settled_ones(old: Sql) -> None:
    assert old.purge(timedelta(days=31)) == 0
    assert old.purge(timedelta(days=29)) == 2
    assert [each["id"] for each in old.query("select id from promise order by id")] == [
        "open",
        "open~p",
        "waits",
    ]
    assert old.query("select * from checkpoint where task = 'done'") == []
    assert old.purge(timedelta(days=29)) == 0


def test_what_is_owed_a_cancel_stays_until_it_had_it(sql: Sql, worker: Worker, clock: Clock) -> None:
    sql.start("w", "f")
    worker.claim()
    worker.advance(turn("w", 1, 0), operations=[promise("w", "p")])
    sql.resolve("w~p")
    worker.finish("w", 1, 1)
    sql.query("insert into closing (id, since) values ('w', now()) on conflict do nothing")
    clock.advance(timedelta(days=30))
    assert sql.purge(timedelta(days=29)) == 0
    sql.tick()
    assert sql.purge(timedelta(days=29)) == 2


def test_the_oldest_go_first_past_those_that_stay(sql: Sql, worker: Worker, clock: Clock) -> None:
    """One at a time, and three in front of them stay: each is waited for."""
    names = ["s1", "s2", "s3", "c", "b", "a", "awaits"]
    for each in names:
        sql.start(each, "f")
    worker.claim()
    worker.advance(
        turn("awaits", 1, 0),
        operations=[
            wait("awaits", each, f"{each}~p")
            for each in ("s1", "s2", "s3")
            if sql.create_promise(f"{each}~p")
        ],
    )
    for each in names[:-1]:
        worker.finish(each, 1, 0)
        clock.advance(timedelta(seconds=1))
    clock.advance(timedelta(days=30))
    for gone in ("c", "b", "a"):
        assert (sql.purge(timedelta(days=29), 1), sql.state(gone)) == (1, None)
    assert sql.purge(timedelta(days=29), 1) == 0
    assert {sql.state(each) for each in ("s1", "s2", "s3")} == {"resolved"}


def test_once_purged_an_id_is_free(old: Sql) -> None:
    assert old.start("done", "f")["answer"] == "attached"
    old.purge(timedelta(days=29))
    assert old.start("done", "g")["answer"] == "created"


def test_what_was_settled_lately_stays(old: Sql, clock: Clock) -> None:
    old.tick()
    assert old.purge(timedelta(days=29)) == 2, "open~p was canceled just now"
    clock.advance(timedelta(days=30))
    assert old.purge(timedelta(days=29)) == 2
    assert [each["id"] for each in old.query("select id from promise order by id")] == ["waits"]


def test_latent_promises_and_neighbours_in_the_alphabet(sql: Sql, clock: Clock) -> None:
    for each in ("a", "a~x", "a-b", "a~x~y", "b", "a.~z"):
        sql.create_promise(each)
        if each != "a~x~y":
            sql.resolve(each)
    clock.advance(timedelta(days=2))
    assert sql.purge(timedelta(days=1)) == 3
    assert [each["id"] for each in sql.query("select id from promise order by id")] == ["a", "a~x", "a~x~y"]


def test_a_child_with_an_id_of_its_own_is_a_family_that_goes_too(
    sql: Sql, worker: Worker, clock: Clock
) -> None:
    sql.start("w", "f")
    worker.claim()
    worker.advance(turn("w", 1, 0, "suspend"), operations=[call("w", "child", promise="own")])
    worker.claim()
    worker.finish("own", 1, 0)
    clock.advance(timedelta(days=30))
    assert sql.purge(timedelta(days=29)) == 0, "its parent is pending"
    worker.claim()
    worker.finish("w", 2, 1)
    clock.advance(timedelta(days=30))
    assert sql.purge(timedelta(days=29)) == 2


def test_i11_what_stands_below_a_pending_ancestor_stays(sql: Sql, worker: Worker, clock: Clock) -> None:
    """Children with IDs of their own are families of their own; the one between them has ended long ago."""
    sql.start("top", "f")
    worker.claim()
    worker.advance(
        turn("top", 1, 0, "suspend"), operations=[call("top", "c", promise="middle"), promise("top", "p")]
    )
    worker.claim()
    worker.advance(turn("middle", 1, 0, "suspend"), operations=[call("middle", "c", promise="bottom")])
    worker.claim()
    worker.finish("bottom", 1, 0, 1)
    (claimed,) = worker.claim()
    worker.finish("middle", claimed["epoch"], claimed["last_seq"], 2)
    clock.advance(timedelta(days=2))
    assert sql.purge(timedelta(days=1)) == 0
    worker.name = "w2"
    (claimed,) = worker.claim()
    sql.resolve("top~p", 3)
    worker.finish("top", claimed["epoch"], claimed["last_seq"] + 1, 4)
    clock.advance(timedelta(days=2))
    assert sql.purge(timedelta(days=1)) == 4


@pytest.mark.parametrize(
    "wrong", [(None,), (timedelta(-1),), (timedelta(1), 0), (timedelta(1), 10001), (timedelta(1), None)]
)
def test_a_purge_that_is_none(sql: Sql, wrong: tuple[Any, ...]) -> None:
    assert refused(lambda: sql.purge(*wrong))[0] == "TR002"


# register, protocol


def test_functions_are_registered_once_and_moved_when_they_move(sql: Sql) -> None:
    sql.register(
        [
            {"name": "g", "version": 2},
            {"name": "f", "version": 1, "queue": "a"},
            {"name": "f", "version": 1, "queue": "a"},
        ]
    )
    first = sql.query("select * from function order by name")
    assert [(each["name"], each["version"], each["queue"]) for each in first] == [
        ("f", 1, "a"),
        ("g", 2, "default"),
    ]
    sql.register([{"name": "f", "version": 1, "queue": "a"}])
    assert sql.query("select * from function order by name") == first
    sql.register([{"name": "f", "version": 1, "queue": "b"}])
    assert sql.one("select queue from function where name = 'f'") == "b"


@pytest.mark.parametrize(
    "wrong",
    [
        Jsonb(None),
        {},
        [{"version": 1}],
        [{"name": "f"}],
        [{"name": "f", "version": 0}],
        [{"name": "f g", "version": 1}],
        [{"name": "f", "version": 1, "queue": "1"}],
    ],
    ids=str,
)
def test_a_function_that_is_none(sql: Sql, wrong: Any) -> None:
    assert refused(lambda: sql.register(wrong))[0] == "TR002"
    assert sql.query("select * from function") == []


def test_the_protocol_is_spoken(sql: Sql) -> None:
    spoken = sql.protocol()
    assert 1 <= spoken["oldest"] <= spoken["current"]


# views


def test_the_views_tell_what_goes_on(sql: Sql, worker: Worker) -> None:
    sql.start("w", "f")
    sql.start("other", "g", queue="q")
    worker.claim()
    worker.wait_for("w")
    sql.create_promise("p", title="?")
    tasks = {each["id"]: each for each in sql.query("select * from tasks")}
    (waiting,) = tasks["w"]["waits"]
    assert (waiting["operation"], waiting["kind"], waiting["promise"]) == (
        "approval",
        "promise",
        "w~approval",
    )
    assert (tasks["other"]["state"], tasks["other"]["waits"]) == ("ready", None)
    promises = {each["id"]: each for each in sql.query("select * from promises")}
    assert set(promises) == {"w", "w~approval", "other", "p"}
    assert (promises["w"]["task_state"], promises["p"]["title"]) == ("suspended", "?")
    (seen,) = sql.query("select * from workers")
    assert (seen["id"], seen["claimed"]) == ("w1", 0)
    queues = {each["lane"]: each for each in sql.query("select * from queues")}
    assert (
        queues["g"]["ready"],
        queues["g"]["known"],
        queues["f@1"]["suspended"],
        queues["f@1"]["known"],
    ) == (1, False, 1, True)
