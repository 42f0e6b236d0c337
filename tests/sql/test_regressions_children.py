"""Faults that were found once in what the programming model added, each with the case that showed it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.support.sql import Row, Sql, Worker, call, promise, refused, step, timer, turn, wait
from troth.testing.clock import Clock


@pytest.fixture
def w(sql: Sql, worker: Worker) -> Worker:
    """A worker that holds the task `w`, epoch 1, nothing seen."""
    sql.start("w", "f")
    worker.claim()
    return worker


def outcome(entry: Row) -> tuple[str, object, object, object]:
    return entry["state"], entry["value"], entry["error"], entry["headers"]


# outcomes of promises that are purged


@pytest.mark.parametrize("settled", [None, 7])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_event_of_a_promise_elsewhere_stays_what_it_was_when_its_id_is_used_again(
    sql: Sql, w: Worker, clock: Clock, settled: int | None, when: str
) -> None:
    """What was settled with nothing was told with the value of whatever had its ID later, and one without headers with those."""
    sql.create_promise("other")
    if when == "before":
        sql.resolve("other", settled)
    w.advance(turn("w", 1, 0), operations=[wait("w", "its", "other")])
    if when == "after":
        sql.resolve("other", settled)
    clock.advance(timedelta(days=1))
    assert sql.purge(timedelta(hours=1)) == 1
    sql.create_promise("other")
    sql.resolve("other", "another's", headers={"codec": "x"})
    assert [outcome(entry) for entry in sql.journal("w")] == [("resolved", settled, None, None)]
    sql.fork("w", "again")
    assert [outcome(entry) for entry in sql.journal("again")] == [("resolved", settled, None, None)]


# outcomes under the name of a wait


@pytest.mark.parametrize("kind", ["step", "timer", "patch"])
def test_an_outcome_under_the_name_of_a_wait_is_refused(sql: Sql, worker: Worker, kind: str) -> None:
    """It took the place of the promise's one event: whoever settled that got a unique violation, for ever."""
    for each in ("w", "x"):
        sql.start(each, "f")
    worker.claim()
    worker.advance(turn("w", 1, 0), operations=[promise("w", "p")])
    answers = worker.advance(
        turn("w", 1, 0, "suspend"),
        turn("x", 1, 0, "finish", state="resolved"),
        outcomes=[{**step("w", "p"), "kind": kind, "micros": 0}],
    )
    assert {task: row["answer"] for task, row in answers.items()} == {"w": "halted", "x": "ok"}
    task = sql.task("w")
    assert task is not None
    assert task["reason"] == {
        "code": "nondeterminism",
        "message": f"p is a {kind} by now, and waits as a promise",
    }
    assert sql.resolve("w~p", 1)["answer"] == "settled"
    assert sql.events("w") == [(1, "p", "resolved")]


def test_a_step_under_the_name_of_a_timer_is_refused(sql: Sql, w: Worker, clock: Clock) -> None:
    """The tick that fired it failed at it, again and again."""
    w.advance(turn("w", 1, 0, "suspend"), operations=[promise("w", "p")], timers=[timer("w", "t", 1_000_000)])
    sql.resolve("w~p")
    w.claim()
    assert w.advance(turn("w", 2, 1), outcomes=[step("w", "t", 1)])["w"]["answer"] == "halted"
    clock.advance(timedelta(seconds=1))
    assert sql.tick()["timers"] == 1
    assert sql.events("w") == [(1, "p", "resolved"), (2, "t", "resolved")]


# limits


@pytest.mark.parametrize(
    ("more", "sqlstate"),
    [
        ({"title": "t" * 201}, "TR003"),
        ({"tags": {"k": 1}}, "TR002"),
        ({"tags": {f"k{n}": "v" for n in range(33)}}, "TR002"),
        ({"timeout": 1, "has_default": True, "default": "v" * (1 << 20)}, "TR003"),
        (
            {"timeout": 1, "has_default": True, "default": 1, "default_headers": {"h": "v" * (1 << 20)}},
            "TR003",
        ),
        ({"timeout": 40_000 * 86_400 * 1_000_000}, "TR002"),
        ({"has_default": True, "default": 1}, "TR002"),
    ],
)
def test_a_promise_of_a_workflow_has_the_limits_of_any(sql: Sql, w: Worker, more: Row, sqlstate: str) -> None:
    """What `create_promise` refuses was stored when code made it."""
    made = promise("w", "p", **more)
    assert refused(lambda: w.advance(turn("w", 1, 0), operations=[made]))[0] == sqlstate
    assert sql.state("w~p") is None


# what the code asked for


def test_a_holder_may_say_that_nothing_is_unsaid(sql: Sql, w: Worker) -> None:
    """It was known of a suspension only: a long run that crashed compared nothing of what it had asked for."""

    def asked() -> int:
        return int(sql.one("select asked from task"))

    w.advance(turn("w", 1, 0, asked=True))
    assert asked() == -1, "no write for its own sake"
    w.advance(turn("w", 1, 0), outcomes=[step("w", "a")])
    assert asked() == -1
    w.advance(turn("w", 1, 1, asked=True), outcomes=[step("w", "b", 1)], operations=[promise("w", "p", 2)])
    assert asked() == 2
    # an event that came with it is one after which nothing is known
    sql.create_promise("other")
    sql.resolve("other", 1)
    w.advance(turn("w", 1, 2, asked=True), operations=[wait("w", "its", "other", 2)])
    assert (asked(), sql.one("select last_seq from task")) == (2, 3)
    assert w.advance(turn("w", 1, 2, asked=True), outcomes=[step("w", "c", 2)])["w"]["answer"] == "news"
    assert asked() == 2
    assert w.advance(turn("w", 1, 4, asked=True), outcomes=[step("w", "d", 4)])["w"]["answer"] == "ok"
    assert asked() == 5
    # a suspension says it too, also where it is not done, since there is an event to tell first
    answer = w.advance(
        turn("w", 1, 5, "suspend"), outcomes=[step("w", "e", 5)], operations=[wait("w", "same", "other", 6)]
    )["w"]
    assert (answer["last_seq"], asked()) == (7, 6)


def test_code_that_was_kept_and_went_on_is_not_where_it_was_kept(sql: Sql, w: Worker) -> None:
    """Kept at a suspension, it went on and was given back: the next claim began where nobody's code stood any more."""
    w.advance(turn("w", 1, 0, "suspend", keep=True), operations=[promise("w", "p")])
    sql.resolve("w~p")
    w.claim()
    w.advance(turn("w", 2, 1, asked=True), outcomes=[step("w", "s", 1)])
    w.advance(turn("w", 2, 2, "release"))
    assert [entry["seq"] for entry in w.claim()[0]["journal"]] == [1, 2]


# a tick beside an operator


@pytest.mark.parametrize("limit", [1, 1000])
def test_a_tick_waits_for_no_operator_who_has_not_committed(
    sql: Sql, w: Worker, another: Callable[..., Sql], limit: int
) -> None:
    """He ends a child by force and writes its row of `closing`; the tick that passes the child writes that row too."""
    w.advance(turn("w", 1, 0), operations=[call("w", f"c{n}") for n in range(3)])
    w.claim()
    w.advance(turn("w~c1", 1, 0), operations=[promise("w~c1", "p")])
    w.finish("w", 1, 0)
    operator, ticker = another(), another()
    ticker.query("set statement_timeout = '5s'")
    with operator.connection.transaction():
        operator.cancel_force("w~c1")
        for _ in range(4):
            ticker.tick(limit)
        passed = ["w~c0"] if limit == 1 else ["w~c0", "w~c2"]
        assert [sql.events(each) for each in passed] == [[(1, "~cancel", "canceled")] for _ in passed]
    for _ in range(10):
        sql.tick(limit)
    assert sql.query("select * from closing") == []
    assert {each: sql.state(each) for each in ("w~c0", "w~c1", "w~c1~p", "w~c2")} == {
        "w~c0": "pending", "w~c1": "canceled", "w~c1~p": "canceled", "w~c2": "pending",
    }  # fmt: skip
    assert [len(sql.events(f"w~c{n}")) for n in (0, 2)] == [1, 1]


@pytest.fixture
def small_limits(db: psycopg.Connection[Any]) -> None:
    """Two children a workflow, three members a family."""
    for name, limit in (("children", 2), ("family_members", 3)):
        db.execute(
            f"create or replace function _{name}_max() returns integer language sql immutable as $$ select {limit} $$".encode()
        )


@pytest.mark.usefixtures("small_limits")
def test_one_that_may_not_be_made_leaves_the_id_to_one_that_may(sql: Sql, worker: Worker) -> None:
    """The first to ask for an ID was beyond its limit, and who asked for it after him in the same call got 55P03, whenever that
    was sent again."""
    for name in ("a", "b"):
        sql.start(name, "f")
    worker.claim()
    worker.advance(turn("a", 1, 0), operations=[promise("a", "p"), promise("a", "q")])
    answers = worker.advance(
        turn("a", 1, 0),
        turn("b", 1, 0),
        operations=[call("a", "c", promise="k"), call("b", "c", promise="k")],
    )
    (refusal,) = answers["a"]["entries"]
    assert (refusal["state"], refusal["error"]["type"]) == ("rejected", "troth.errors.LimitExceeded")
    assert (answers["b"]["answer"], answers["b"]["entries"]) == ("ok", None)
    made = sql.query(
        "select p.parent, t.children from promise p join task t on t.id = p.parent where p.id = 'k'"
    )
    assert made == [{"parent": "b", "children": 1}]


@pytest.mark.usefixtures("small_limits")
def test_two_that_may_not_be_made_are_both_told(sql: Sql, worker: Worker) -> None:
    sql.start("a", "f")
    worker.claim()
    worker.advance(turn("a", 1, 0), operations=[promise("a", "p"), promise("a", "q")])
    answer = worker.advance(
        turn("a", 1, 0), operations=[call("a", "c", promise="k"), call("a", "d", promise="k")]
    )["a"]
    assert [(each["operation"], each["error"]["type"]) for each in answer["entries"]] == [
        ("c", "troth.errors.LimitExceeded"),
        ("d", "troth.errors.LimitExceeded"),
    ]


@pytest.mark.usefixtures("small_limits")
def test_a_full_family_refuses_its_root_nothing_for_who_asks_beside_it(sql: Sql, worker: Worker) -> None:
    """Whether a root was held to the limit of its family depended on the other turns of the call."""
    sql.start("a", "f")
    worker.claim()
    worker.advance(turn("a", 1, 0), operations=[call("a", "c")])
    worker.claim()
    worker.advance(turn("a~c", 1, 0), operations=[promise("a~c", "p"), promise("a~c", "q")])
    answers = worker.advance(
        turn("a", 1, 0), turn("a~c", 1, 0), operations=[promise("a", "p"), call("a~c", "d")]
    )
    assert (answers["a"]["answer"], answers["a"]["entries"]) == ("ok", None)
    assert answers["a~c"]["entries"][0]["error"]["type"] == "troth.errors.LimitExceeded"
