"""Attempts at steps, the wait before the next one, and what the next holder is told of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.support.sql import Row, Sql, Worker, attempt, promise, refused, retry, step, timer, turn
from troth.testing.clock import Clock

MINUTE = 60_000_000


@pytest.fixture
def w(sql: Sql, worker: Worker) -> Worker:
    """A worker that holds the task `w`, epoch 1, nothing seen."""
    sql.start("w", "f")
    worker.claim()
    return worker


def row(sql: Sql) -> Row:
    found = sql.task("w")
    assert found is not None
    return found


def failed(number: int, operation: str = "s", **more: Any) -> Row:
    return attempt("w", operation, number, ended=True, error={"type": "E", "message": "m"}, **more)


# notes about attempts


def test_an_attempt_is_noted_with_what_is_known_of_it(sql: Sql, w: Worker) -> None:
    w.advance(turn("w", 1, 0), attempts=[attempt("w", "s", 1, details={"done": 5}, elapsed=2_000_000)])
    (noted,) = sql.query("select *, clock_timestamp() - started_at as since from attempt")
    assert timedelta(seconds=2) <= noted["since"] < timedelta(seconds=30)
    assert (noted["details"], noted["error"], noted["ended_at"], noted["retry_at"]) == (
        {"done": 5},
        None,
        None,
        None,
    )
    w.advance(turn("w", 1, 0), attempts=[failed(1, retry_in=MINUTE)])
    (after,) = sql.query("select *, retry_at - ended_at as wait from attempt")
    assert (after["details"], after["error"]["type"], after["wait"]) == (
        {"done": 5},
        "E",
        timedelta(minutes=1),
    )
    assert (after["started_at"], after["epoch"]) == (noted["started_at"], 1)
    # the same note again changes nothing that is known
    w.advance(turn("w", 1, 0), attempts=[failed(1)])
    assert sql.query("select ended_at, retry_at from attempt") == [
        {"ended_at": after["ended_at"], "retry_at": after["retry_at"]}
    ]


def test_notes_about_one_attempt_in_one_call_are_one(sql: Sql, w: Worker) -> None:
    w.advance(
        turn("w", 1, 0),
        attempts=[attempt("w", "s", 1, details=1), attempt("w", "s", 1, details=2), failed(1, retry_in=1)],
    )
    assert sql.query(
        "select number, details, error ->> 'type' as type, retry_at > ended_at as later from attempt"
    ) == [{"number": 1, "details": 2, "type": "E", "later": True}]


def test_an_attempt_begun_again_by_another_holder_keeps_only_its_details(sql: Sql, w: Worker) -> None:
    w.advance(turn("w", 1, 0, "release"), attempts=[failed(1, details="half")])
    w.claim()
    w.advance(turn("w", 2, 0), attempts=[attempt("w", "s", 1)])
    assert sql.query("select epoch, details, error, ended_at from attempt") == [
        {"epoch": 2, "details": "half", "error": None, "ended_at": None}
    ]


@pytest.mark.parametrize(("why", "kept"), [("news", True), ("busy", False), ("fenced", False)])
def test_a_note_is_kept_of_a_turn_with_news_too(
    sql: Sql, w: Worker, another: Callable[..., Sql], why: str, kept: bool
) -> None:
    holder = another()
    with holder.connection.transaction():
        if why == "busy":
            holder.query("select from task for update")
        elif why == "news":
            sql.cancel("w")
        answer = w.advance(turn("w", 2 if why == "fenced" else 1, 0), attempts=[failed(1)])["w"]
    assert (answer["answer"], bool(sql.query("select 1 as x from attempt"))) == (why, kept)


def test_a_note_is_no_progress(sql: Sql, w: Worker) -> None:
    w.advance(turn("w", 1, 0), attempts=[failed(1)])
    assert row(sql)["attempts"] == 1


@pytest.mark.parametrize(
    ("state", "wrong"),
    [
        ("TR002", attempt("w", "", 1)),
        ("TR002", {"task": "w", "operation": "s"}),
        ("TR002", attempt("w", "s", 0)),
        ("TR002", attempt("w", "s", 32768)),
        ("TR002", attempt("w", "s", 1, elapsed=-1)),
        ("TR002", attempt("w", "s", 1, retry_in=-1)),
        ("TR002", attempt("w", "s", 1, retry_in=10**17)),
        ("TR003", attempt("w", "s", 1, details="x" * 2**20)),
        ("TR003", attempt("w", "s", 1, error="x" * 2**20)),
    ],
    ids=lambda each: str(each)[:50],
)
def test_a_note_that_is_none(sql: Sql, w: Worker, state: str, wrong: Row) -> None:
    assert (
        refused(lambda: w.advance(turn("w", 1, 0), outcomes=[step("w", "x")], attempts=[wrong]))[0] == state
    )
    assert sql.query("select 1 from attempt union all select 1 from checkpoint") == []


# what the next holder is told


def test_the_next_holder_is_told_of_the_last_attempts_without_an_outcome(sql: Sql, w: Worker) -> None:
    w.advance(
        turn("w", 1, 0, "release"),
        outcomes=[step("w", "done")],
        attempts=[
            failed(1, "done"),
            attempt("w", "done", 2),
            failed(1, "a"),
            failed(2, "a", retry_in=MINUTE),
            attempt("w", "b", 1, details={"at": 3}),
        ],
    )
    (claimed,) = w.claim()
    retry_at = sql.one("select _micros(retry_at) from attempt where retry_at is not null")
    assert claimed["steps"] == [
        {"operation": "a", "number": 2, "ended": True, "retry_at": retry_at, "details": None, "error": {"type": "E", "message": "m"}},  # noqa: E501
        {"operation": "b", "number": 1, "ended": False, "retry_at": None, "details": {"at": 3}, "error": None},
    ]  # fmt: skip


def test_a_first_holder_has_nothing_to_be_told(sql: Sql, worker: Worker) -> None:
    sql.start("w", "f")
    assert worker.claim()[0]["steps"] == []


# waiting for the next one


def test_a_task_waits_for_its_next_attempt_and_is_told_nothing_by_it(
    sql: Sql, w: Worker, clock: Clock
) -> None:
    answer = w.advance(
        turn("w", 1, 0, "suspend"),
        timers=[{**retry("w", "s", MINUTE), "cohort": 4}],
        attempts=[failed(1, retry_in=MINUTE)],
    )["w"]
    assert (answer["answer"], row(sql)["state"]) == ("ok", "suspended")
    assert sql.query("select kind, cohort, fire_at = (select retry_at from attempt) as same from wait") == [
        {"kind": "retry", "cohort": 4, "same": True}
    ]
    assert 0 < sql.tick()["next"] <= MINUTE
    clock.advance(timedelta(minutes=1))
    assert sql.tick()["timers"] == 1
    assert (row(sql)["state"], row(sql)["last_seq"], row(sql)["news"]) == ("ready", 0, False)
    (claimed,) = Worker(sql, "w2").claim()
    assert ([each["number"] for each in claimed["steps"]], claimed["journal"]) == ([1], [])


def test_it_counts_from_now_and_a_later_one_takes_its_place(sql: Sql, w: Worker, clock: Clock) -> None:
    clock.advance(timedelta(seconds=3))
    w.advance(turn("w", 1, 0, "suspend"), operations=[promise("w", "p")], timers=[retry("w", "s", 5_000_000)])
    assert sql.one(
        "select fire_at - t.started_at > interval '8 seconds' from wait w, task t where w.kind = 'retry'"
    )
    sql.resolve("w~p")
    w.claim()
    # the attempt was made early, by a worker that had its own idea of the time; the next one is later
    w.advance(turn("w", 2, 1, "suspend"), timers=[retry("w", "s", MINUTE)])
    assert sql.one("select fire_at - _clock() > interval '50 seconds' from wait")


def test_one_that_fires_while_the_task_is_held_is_gone_without_a_word(
    sql: Sql, w: Worker, clock: Clock
) -> None:
    w.advance(turn("w", 1, 0, "suspend"), operations=[promise("w", "p")], timers=[retry("w", "s", 5_000_000)])
    sql.resolve("w~p")
    w.claim()
    clock.advance(timedelta(seconds=6))
    assert sql.tick()["timers"] == 1
    assert (row(sql)["state"], row(sql)["news"], sql.query("select * from wait")) == ("claimed", False, [])
    # its holder says by itself when to try again, if it still wants to
    w.advance(turn("w", 2, 1, "suspend"), timers=[retry("w", "s", 0)])
    assert sql.tick()["timers"] == 1
    assert row(sql)["state"] == "ready"


@pytest.mark.parametrize("state", ["halted", "ready"])
def test_one_that_fires_otherwise_changes_no_state(sql: Sql, w: Worker, clock: Clock, state: str) -> None:
    w.advance(turn("w", 1, 0, "suspend"), operations=[promise("w", "p")], timers=[retry("w", "s", MINUTE)])
    if state == "halted":
        sql.halt("w")
    else:
        sql.resolve("w~p")
    clock.advance(timedelta(minutes=1))
    assert sql.tick()["timers"] == 1
    assert row(sql)["state"] == state


def test_a_retry_given_up_is_dropped_and_a_timer_is_none(sql: Sql, w: Worker) -> None:
    w.advance(
        turn("w", 1, 0, "suspend"),
        operations=[promise("w", "p")],
        timers=[retry("w", "a", MINUTE), retry("w", "b", MINUTE), timer("w", "t", MINUTE)],
    )
    sql.resolve("w~p")
    w.claim()
    w.advance(turn("w", 2, 1, "suspend"), timers=[retry("w", "b", MINUTE)])
    assert [each["operation"] for each in sql.query("select operation from wait")] == ["b"]


def test_an_outcome_takes_the_wait_for_its_retry_away(sql: Sql, w: Worker) -> None:
    w.advance(
        turn("w", 1, 0, "suspend"),
        operations=[promise("w", "p")],
        timers=[retry("w", "a", MINUTE), retry("w", "b", MINUTE)],
    )
    sql.resolve("w~p")
    w.claim()
    # also of a turn that has news
    answer = w.advance(turn("w", 2, 0), outcomes=[step("w", "a", retried=True)])["w"]
    assert answer["answer"] == "news"
    assert [each["operation"] for each in sql.query("select operation from wait")] == ["b"]
    w.advance(turn("w", 2, 2, "suspend"), timers=[retry("w", "a", MINUTE), retry("w", "b", MINUTE)])
    assert [each["operation"] for each in sql.query("select operation from wait")] == ["b"], (
        "a has its outcome"
    )


def test_retried_takes_no_other_wait_away(sql: Sql, w: Worker) -> None:
    """Only a wrong worker would say so of what is not a step: nothing else may be lost by it."""
    w.advance(turn("w", 1, 0, "suspend"), timers=[timer("w", "t", MINUTE), retry("w", "a", 0)])
    sql.tick()
    w.claim()
    answer = w.advance(turn("w", 2, 0), outcomes=[step("w", "x", retried=True)])["w"]
    assert (answer["answer"], [each["operation"] for each in sql.query("select operation from wait")]) == (
        "ok",
        ["t"],
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {**retry("w", "s", 1), "kind": "delay"},
        {**timer("w", "t", 1), "issued": None},
        {**timer("w", "t", 1), "micros": None},
        timer("w", "", 1),
    ],
    ids=str,
)
def test_a_timer_that_is_none(sql: Sql, w: Worker, wrong: Row) -> None:
    assert refused(lambda: w.advance(turn("w", 1, 0, "suspend"), timers=[wrong]))[0] == "TR002"
    assert row(sql)["state"] == "claimed"


# patches


def test_a_patch_is_an_event_like_any_other(sql: Sql, w: Worker) -> None:
    patch = {**step("w", "new-way"), "kind": "patch", "cohort": 5}
    answer = w.advance(turn("w", 1, 0), outcomes=[patch])["w"]
    assert (answer["answer"], answer["entries"]) == ("ok", None)
    (entry,) = sql.journal("w")
    assert (entry["kind"], entry["cohort"], entry["state"], entry["value"]) == ("patch", 5, "resolved", None)
    assert w.advance(turn("w", 1, 1), outcomes=[patch])["w"]["answer"] == "ok"
    assert row(sql)["last_seq"] == 1
