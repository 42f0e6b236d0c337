"""Children: calls and starts made by advance, what they are told, what they may not, and what a repetition does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.support.sql import Row, Sql, Worker, call, promise, refused, start, step, turn, wait
from troth.testing.clock import Clock

MINUTE = 60_000_000


@pytest.fixture
def w(sql: Sql, worker: Worker) -> Worker:
    """A worker that holds the task `w`, epoch 1, nothing seen."""
    sql.start("w", "f")
    worker.claim()
    return worker


def row(sql: Sql, task: str = "w") -> Row:
    found = sql.task(task)
    assert found is not None
    return found


def told(answer: Row) -> tuple[str, list[str]]:
    return answer["answer"], [entry["operation"] for entry in answer["entries"] or []]


def only(answer: Row) -> Row:
    (entry,) = answer["entries"]
    found: Row = entry
    return found


# making them


def test_a_call_makes_a_promise_and_a_task_and_waits(sql: Sql, w: Worker) -> None:
    asked = call(
        "w",
        "c",
        function="g",
        args={"x": [1]},
        queue="q",
        priority=-3,
        title="T",
        tags={"t": "1"},
        digest=7,
        cohort=9,
    )
    assert told(w.advance(turn("w", 1, 0, "suspend"), operations=[asked])["w"]) == ("ok", [])
    (child,) = sql.get(["w~c"])
    assert {key: child[key] for key in ("state", "function", "queue", "args", "title", "tags", "parent", "latent")} == {
        "state": "pending", "function": "g", "queue": "q", "args": {"x": [1]}, "title": "T", "tags": {"t": "1"},
        "parent": "w", "latent": False,
    }  # fmt: skip
    assert {key: child["task"][key] for key in ("state", "lane", "queue", "priority", "epoch")} == {
        "state": "ready", "lane": "g", "queue": "q", "priority": -3, "epoch": 0,
    }  # fmt: skip
    assert (row(sql)["state"], row(sql)["children"]) == ("suspended", 1)
    other = Worker(sql, "w2", ("g",))
    (claimed,) = other.claim(queues=["q"])
    assert (claimed["task"], claimed["args"]) == ("w~c", {"x": [1]})
    other.finish("w~c", 1, 0, {"y": 2})
    (claimed,) = w.claim()
    (entry,) = claimed["journal"]
    assert {key: entry[key] for key in ("kind", "state", "value", "digest", "cohort", "issued", "promise")} == {
        "kind": "call", "state": "resolved", "value": {"y": 2}, "digest": 7, "cohort": 9, "issued": 0, "promise": "w~c",
    }  # fmt: skip


def test_what_is_started_is_nobodys_child(sql: Sql, w: Worker) -> None:
    w.advance(turn("w", 1, 0), operations=[start("w", "s", args=[1])])
    (child,) = sql.get(["w~s"])
    assert ("parent" in child, child["args"]) == (False, [1])
    assert w.finish("w", 1, 0) == "ok"
    assert sql.query("select * from closing") == []
    assert sql.tick()["closed"] == 0
    (claimed,) = w.claim()
    assert w.finish("w~s", claimed["epoch"], 0) == "ok"


def test_its_starter_is_told_how_it_ended(sql: Sql, w: Worker) -> None:
    w.advance(turn("w", 1, 0, "suspend"), operations=[start("w", "s")])
    w.claim()
    w.advance(turn("w~s", 1, 0, "finish", state="rejected", error={"type": "E", "message": "m"}))
    (entry,) = w.claim()[0]["journal"]
    assert (entry["kind"], entry["state"], entry["error"]["type"], entry["promise"]) == (
        "start", "rejected", "E", "w~s",
    )  # fmt: skip


@pytest.mark.parametrize("kind", [call, start])
def test_a_queue_that_is_not_given_comes_from_the_function(
    sql: Sql, w: Worker, kind: Callable[..., Row]
) -> None:
    sql.register([{"name": "g", "version": 1, "queue": "old"}, {"name": "g", "version": 2, "queue": "new"}])
    w.advance(turn("w", 1, 0), operations=[kind("w", "a", function="g"), kind("w", "b", function="h")])
    assert [
        (each["id"], each["queue"])
        for each in sql.query("select id, queue from task where id <> 'w' order by 1")
    ] == [
        ("w~a", "new"),
        ("w~b", "default"),
    ]


def test_a_delayed_child_is_ready_when_its_time_has_come(sql: Sql, w: Worker, clock: Clock) -> None:
    w.advance(turn("w", 1, 0, "suspend"), operations=[call("w", "c", delay=MINUTE)])
    assert row(sql, "w~c")["state"] == "suspended"
    assert w.claim() == []
    clock.advance(timedelta(minutes=1))
    assert sql.tick()["timers"] == 1
    assert [each["task"] for each in Worker(sql, "w2").claim()] == ["w~c"]


def test_a_call_never_outlasts_its_parent_and_a_start_does(sql: Sql, worker: Worker) -> None:
    sql.start("w", "f", timeout=timedelta(minutes=10))
    worker.claim()
    worker.advance(
        turn("w", 1, 0),
        operations=[
            call("w", "none"),
            call("w", "longer", timeout=60 * MINUTE),
            call("w", "shorter", timeout=5 * MINUTE),
            start("w", "free"),
            start("w", "late", timeout=60 * MINUTE),
        ],
    )
    rows = sql.query(
        "select p.id, p.timeout_at = w.timeout_at as capped, p.timeout_at - p.created_at as span, p.timeout_at is not distinct from t.timeout_at as same"  # noqa: E501
        " from promise p join promise w on w.id = 'w' join task t on t.id = p.id where p.id <> 'w'"
    )
    assert all(each["same"] for each in rows)
    assert {each["id"]: each["capped"] for each in rows} == {
        "w~none": True, "w~longer": True, "w~shorter": False, "w~free": None, "w~late": False,
    }  # fmt: skip
    assert {each["span"] for each in rows if each["id"] in ("w~shorter", "w~late")} == {
        timedelta(minutes=5),
        timedelta(minutes=60),
    }


def test_a_parent_and_its_children_time_out_together(sql: Sql, worker: Worker, clock: Clock) -> None:
    sql.start("w", "f", timeout=timedelta(minutes=1))
    worker.claim()
    worker.advance(
        turn("w", 1, 0, "suspend"),
        operations=[*(call("w", f"c{n}") for n in range(5)), start("w", "s"), promise("w", "p")],
    )
    worker.claim(2)
    clock.advance(timedelta(minutes=1))
    for _ in range(8):
        sql.tick(2)
    assert {each["id"]: each["state"] for each in sql.query("select id, state from promise")} == {
        "w": "timedout", **{f"w~c{n}": "timedout" for n in range(5)}, "w~s": "pending", "w~p": "canceled",
    }  # fmt: skip
    assert sql.query("select * from closing") == []


# what is there already


def test_a_given_id_is_used_and_crosses_families_by_copy(sql: Sql, w: Worker) -> None:
    w.advance(
        turn("w", 1, 0, "suspend"),
        operations=[call("w", "c", promise="order-1"), start("w", "s", promise="order-2")],
    )
    assert {each["id"]: each["parent"] for each in sql.query("select id, parent from promise")} == {
        "w": None, "order-1": "w", "order-2": None,
    }  # fmt: skip
    w.claim()
    w.finish("order-1", 1, 0, 11)
    w.finish("order-2", 1, 0, 12)
    (claimed,) = w.claim()
    assert [(each["operation"], each["value"], each["promise"]) for each in claimed["journal"]] == [
        ("c", 11, "order-1"),
        ("s", 12, "order-2"),
    ]
    assert sql.one("select count(*) from checkpoint where value is not null and promise is not null") == 2


def test_the_same_start_is_attached_to(sql: Sql, w: Worker) -> None:
    sql.start("done", "f", {"x": 1})
    sql.start("open", "f", {"x": 2}, queue="elsewhere")
    w.claim()
    w.finish("done", 1, 0, "early")
    answer = w.advance(
        turn("w", 1, 0, "suspend"),
        operations=[
            call("w", "a", promise="done", args={"x": 1}),
            call("w", "b", promise="open", args={"x": 2}, timeout=1),
        ],
    )["w"]
    assert told(answer) == ("ok", ["a"])
    assert (only(answer)["value"], only(answer)["state"]) == ("early", "resolved")
    assert (row(sql)["children"], sql.one("select count(*) from promise where parent is not null")) == (0, 0)
    assert told(w.advance(turn("w", 1, 1, "suspend"))["w"]) == ("ok", [])
    # what was only attached to does not end with it
    Worker(sql, "w2").claim(queues=["elsewhere"])
    sql.cancel("w")
    w.claim()
    w.advance(turn("w", 2, 2, "finish", state="canceled", error={"type": "canceled", "message": "m"}))
    sql.tick()
    assert (sql.state("open"), sql.events("open")) == ("pending", [])


def test_sealed_arguments_are_compared_by_their_digest(sql: Sql, w: Worker) -> None:
    sealed: Row = {"args_headers": {"codec": "x"}, "promise": "other"}
    first = call("w", "a", args="nonce-1", args_digest="0a0b", **sealed)
    again = call("w", "b", args="nonce-2", args_digest="0a0b", **sealed)
    another = call("w", "c", args="nonce-1", args_digest="0c", **sealed)
    plain = call("w", "d", args="nonce-1", promise="other", args_headers={"codec": "x"})
    answer = w.advance(turn("w", 1, 0), operations=[first, again, another, plain])["w"]
    assert told(answer) == ("ok", ["c", "d"])
    assert {each["error"]["type"] for each in answer["entries"]} == {"troth.errors.IdConflict"}
    assert sorted(each["operation"] for each in sql.query("select operation from wait")) == ["a", "b"]
    assert row(sql)["children"] == 1


@pytest.mark.parametrize("kind", [call, start])
@pytest.mark.parametrize(
    ("there", "message"),
    [
        ("latent", "is there already: a latent promise"),
        ("function", "is there already: a workflow of function g"),
        ("arguments", "is there already: the same function with other arguments"),
        ("self", "is the workflow that this one belongs to"),
        ("finished", "is there already: a workflow of function g"),
    ],
)
def test_an_id_taken_by_something_else_is_an_answer_to_the_code(
    sql: Sql, w: Worker, kind: Callable[..., Row], there: str, message: str
) -> None:
    taken = {"promise": "w" if there == "self" else "taken"}
    if there == "latent":
        sql.create_promise("w~c")
        sql.resolve("w~c", "not for this operation")
        taken = {}
    elif there == "arguments":
        sql.start("taken", "f", {"x": 1})
    elif there != "self":
        sql.start("taken", "g")
    if there == "finished":
        sql.cancel("taken")
    answer = w.advance(turn("w", 1, 0, "suspend"), operations=[kind("w", "c", cohort=3, **taken)])["w"]
    assert told(answer) == ("ok", ["c"])
    entry = only(answer)
    assert (entry["kind"], entry["state"], entry["value"], entry["cohort"]) == (
        kind("w", "c")["kind"],
        "rejected",
        None,
        3,
    )
    assert entry["error"]["type"] == "troth.errors.IdConflict"
    assert entry["error"]["message"].endswith(message)
    assert sql.query("select * from wait") == []
    assert row(sql)["children"] == 0
    # it is recorded: the same call again changes nothing
    assert told(w.advance(turn("w", 1, 1), operations=[kind("w", "c", **taken)])["w"]) == ("ok", [])


def test_two_that_call_the_same_id_share_one_child(sql: Sql, worker: Worker) -> None:
    for each in "ab":
        sql.start(each, "f")
    worker.claim()
    answers = worker.advance(
        *(turn(each, 1, 0, "suspend") for each in "ba"),
        operations=[
            call("b", "c", promise="shared"),
            call("a", "c", promise="shared"),
            call("a", "d", promise="shared"),
        ],
    )
    assert {each["answer"] for each in answers.values()} == {"ok"}
    assert sql.query("select id, children from task order by 1") == [
        {"id": "a", "children": 0}, {"id": "b", "children": 1}, {"id": "shared", "children": 0},
    ]  # fmt: skip
    worker.claim()
    worker.finish("shared", 1, 0, 1)
    assert sorted(len(each["journal"]) for each in worker.claim()) == [1, 2]


def test_a_child_that_another_holds_is_busy_and_nothing_is_written(
    sql: Sql, w: Worker, another: Callable[..., Sql]
) -> None:
    sql.start("held", "f")
    holder = another()
    asked = [call("w", "a"), call("w", "c", promise="held")]
    with holder.connection.transaction():
        holder.query("select from promise where id = 'held' for update")
        assert w.advance(turn("w", 1, 0), operations=asked)["w"]["answer"] == "busy"
        assert (sql.state("w~a"), sql.query("select * from wait")) == (None, [])
    assert w.advance(turn("w", 1, 0), operations=asked)["w"]["answer"] == "ok"


def test_a_child_that_is_being_created_costs_no_wait(
    sql: Sql, w: Worker, another: Callable[..., Sql]
) -> None:
    other = another()
    with other.connection.transaction():
        other.start("new", "f")
        assert (
            refused(lambda: w.advance(turn("w", 1, 0), operations=[call("w", "c", promise="new")]))[0]
            == "55P03"
        )
    assert told(w.advance(turn("w", 1, 0), operations=[call("w", "c", promise="new")])["w"]) == ("ok", [])


# said again


def test_a_lost_answer_to_a_thousand_creations(sql: Sql, w: Worker, another: Callable[..., Sql]) -> None:
    asked = [call("w", f"c{n}", args={"n": n}) for n in range(600)] + [
        start("w", f"s{n}") for n in range(400)
    ]

    def again() -> Row:
        return w.advance(turn("w", 1, 0), operations=asked)["w"]

    assert told(again()) == ("ok", [])
    before = (
        sql.query("select * from promise order by id"),
        sql.query("select * from wait order by task, operation"),
    )
    assert told(again()) == ("ok", [])
    # children that run, and one that another holds just now, are no hindrance
    w.claim(100)
    holder = another()
    with holder.connection.transaction():
        holder.query("select from promise p join task t using (id) where id = 'w~c7' for update")
        assert told(again()) == ("ok", [])
    assert before == (
        sql.query("select * from promise order by id"),
        sql.query("select * from wait order by task, operation"),
    )
    assert row(sql)["children"] == 1000
    w.advance(
        *(
            turn(f"w~c{n}", 1, 0, "finish", state="resolved", value=n)
            for n in range(3)
            if row(sql, f"w~c{n}")["epoch"]
        )
    )
    assert again()["answer"] == "news"
    assert sql.one("select count(*) from promise") == 1001


# limits


def test_a_workflow_makes_at_most_ten_thousand(sql: Sql, w: Worker) -> None:
    sql.query("update task set children = 9998 where id = 'w'")
    asked = [
        call("w", "a"),
        start("w", "b"),
        call("w", "c"),
        promise("w", "p"),
        start("w", "d", promise="given"),
    ]
    answer = w.advance(turn("w", 1, 0, "suspend"), operations=asked)["w"]
    # promises come first; one too many is an error that the code can catch
    assert told(answer) == ("ok", ["b", "c", "d"])
    assert {(each["kind"], each["state"], each["error"]["type"]) for each in answer["entries"]} == {
        ("call", "rejected", "troth.errors.LimitExceeded"), ("start", "rejected", "troth.errors.LimitExceeded"),
    }  # fmt: skip
    assert (sql.state("w~a"), sql.state("w~p"), sql.state("w~b"), row(sql)["children"]) == (
        "pending",
        "pending",
        None,
        10_000,
    )
    sql.start("there", "f")
    answer = w.advance(
        turn("w", 1, 3, "suspend"), operations=[call("w", "e", 3, promise="there"), start("w", "f", 3)]
    )["w"]
    assert told(answer) == ("ok", ["f"]), "who is there already is not made"
    assert told(w.advance(turn("w", 1, 4), operations=[promise("w", "q", 4)])["w"]) == ("ok", ["q"])
    sql.query("update task set children = 2 where id = 'w'")


def test_a_family_has_at_most_a_hundred_thousand(sql: Sql, w: Worker) -> None:
    """A fork bomb: no workflow makes many, and together they fill their family."""
    w.advance(turn("w", 1, 0), operations=[call("w", "c")])
    w.claim()
    sql.query(
        "insert into promise (id, state, created_at, settled_at, settler) select 'w~x~' || n, 'resolved', t, t, 'worker'"
        " from generate_series(1, 99996) n, (select created_at as t from promise where id = 'w') w"
    )
    sql.start("v", "f")
    w.claim()
    asked = [
        start("w~c", "a"),
        call("w~c", "b", promise="elsewhere"),
        promise("w~c", "p"),
        call("w~c", "d"),
        call("w~c", "e"),
    ]
    answers = w.advance(turn("w~c", 1, 0), turn("v", 1, 0), operations=[*asked, call("v", "free")])
    assert (told(answers["w~c"]), told(answers["v"])) == (("ok", ["e"]), ("ok", []))
    assert only(answers["w~c"])["error"] == {
        "type": "troth.errors.LimitExceeded",
        "message": "a workflow makes at most 10000 promises and children, a family has at most 100000",
    }
    assert told(w.advance(turn("w~c", 1, 1), operations=[promise("w~c", "q", 1)])["w~c"]) == ("ok", ["q"])
    # the root's own children are bounded by themselves
    assert told(w.advance(turn("w", 1, 0), operations=[call("w", "one-more")])["w"]) == ("ok", [])


def test_too_many_waiters_are_an_answer_to_the_code(sql: Sql, w: Worker) -> None:
    sql.start("popular", "f")
    sql.query("update task set state = 'halted', ready_at = null, reason = '{}' where id = 'popular'")
    with sql.connection.transaction(force_rollback=True):
        sql.query(
            "insert into wait (task, operation, kind, promise, issued)"
            " select 'w', 'x' || n, 'wait', 'popular', 0 from generate_series(1, 10000) n"
        )
        answer = w.advance(turn("w", 1, 0), operations=[call("w", "c", promise="popular")])["w"]
    assert (told(answer), only(answer)["error"]["type"]) == (("ok", ["c"]), "troth.errors.LimitExceeded")


# ends and beginnings in one call


def test_a_child_that_ends_while_its_parent_suspends(sql: Sql, w: Worker) -> None:
    w.advance(turn("w", 1, 0), operations=[call("w", "c")])
    w.claim()
    answers = w.advance(turn("w", 1, 0, "suspend"), turn("w~c", 1, 0, "finish", state="resolved", value=5))
    assert (told(answers["w"]), told(answers["w~c"])) == (("ok", ["c"]), ("ok", []))
    assert (only(answers["w"])["value"], row(sql)["state"]) == (5, "claimed")


def test_a_parent_and_its_child_that_end_together(sql: Sql, w: Worker) -> None:
    w.advance(turn("w", 1, 0), operations=[call("w", "c"), start("w", "s")])
    w.claim()
    answers = w.advance(*(turn(each, 1, 0, "finish", state="resolved") for each in ("w", "w~c", "w~s")))
    assert {each["answer"] for each in answers.values()} == {"ok"}
    assert (
        sql.query("select id from task union all select id from closing union all select task from wait")
        == []
    )


def test_a_parent_that_ends_while_it_asks_for_more(sql: Sql, w: Worker) -> None:
    answer = w.advance(
        turn("w", 1, 0, "finish", state="resolved"), operations=[call("w", "c"), start("w", "s")]
    )["w"]
    assert answer["answer"] == "ok"
    assert sql.query("select id from closing") == [{"id": "w"}]
    assert sql.tick()["closed"] == 1
    assert (sql.state("w~c"), sql.state("w~s")) == ("canceled", "pending")


def test_a_child_of_a_canceled_parent_is_made_only_by_who_knows_of_it(sql: Sql, w: Worker) -> None:
    sql.cancel("w")
    answer = w.advance(turn("w", 1, 0, "suspend"), operations=[call("w", "c")])["w"]
    assert (told(answer), sql.state("w~c")) == (("news", ["~cancel"]), None)
    assert told(w.advance(turn("w", 1, 1, "suspend"), operations=[call("w", "clean-up", 1)])["w"]) == (
        "ok",
        [],
    )


def test_a_sleeping_worker_hears_of_a_child(sql: Sql, w: Worker, another: Callable[..., Sql]) -> None:
    listener = another()
    Worker(listener, "w9").claim(sleeping=True)
    listener.query("listen w9")
    w.advance(turn("w", 1, 0), operations=[call("w", "later", delay=MINUTE), promise("w", "p")])
    assert list(listener.connection.notifies(timeout=0)) == []
    w.advance(turn("w", 1, 0), operations=[call("w", "c")])
    assert [each.channel for each in listener.connection.notifies(timeout=60, stop_after=1)] == ["w9"]


# malformed


@pytest.mark.parametrize(
    ("state", "wrong"),
    [
        ("TR001", call("w", "c", promise="with~tilde")),
        ("TR001", start("w", "c", promise="x" * 129)),
        ("TR001", call("w", "c", promise="a b")),
        ("TR001", call("w", "c" * 254)),
        ("TR002", {**call("w", "c"), "function": None}),
        ("TR002", call("w", "c", function="no name")),
        ("TR002", call("w", "c", args="text")),
        ("TR002", call("w", "c", queue="12")),
        ("TR002", call("w", "c", delay=-1)),
        ("TR002", call("w", "c", timeout=-1)),
        ("TR002", call("w", "c", timeout=10**17)),
        ("TR002", call("w", "c", priority=40_000)),
        ("TR002", start("w", "c", tags={"t": 1})),
        ("TR002", call("w", "~cancel")),
        ("TR003", call("w", "c", args=["x" * 2**20])),
        ("TR003", call("w", "c", title="x" * 201)),
        ("TR002", wait("w", "x", "y") | {"promise": None}),
    ],
    ids=lambda each: str(each)[:70],
)
def test_a_child_that_is_none_refuses_the_call(sql: Sql, w: Worker, state: str, wrong: Row) -> None:
    assert (
        refused(
            lambda: w.advance(
                turn("w", 1, 0), outcomes=[step("w", "s")], operations=[call("w", "good"), wrong]
            )
        )[0]
        == state
    )
    assert (row(sql)["last_seq"], sql.state("w~good")) == (0, None)
