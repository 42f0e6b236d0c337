"""settle_step: what a step brought, decided by hand (S62)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.sql.test_races import meet
from tests.support.sql import Row, Sql, Worker, promise, refused, step, timer, turn
from troth.testing.clock import Clock

ERROR = {"type": "Stuck", "message": "it never answered"}


def row(sql: Sql, task: str = "w") -> Row:
    found = sql.task(task)
    assert found is not None
    return found


@pytest.fixture
def held(sql: Sql, worker: Worker) -> Sql:
    """A workflow that w1 holds, with one step behind it."""
    sql.start("w", "f")
    worker.claim()
    worker.advance(turn("w", 1, 0), outcomes=[step("w", "before")])
    return sql


def test_s62_a_stuck_step_gets_its_outcome_and_the_workflow_goes_on(held: Sql, worker: Worker) -> None:
    answer = held.settle_step("w", "stuck", {"n": 1}, reason="the bank called", actor="ann")
    assert (answer["answer"], answer["promise"]["task"]["last_seq"]) == ("recorded", 2)
    (event,) = held.query("select * from checkpoint where seq = 2")
    assert (event["operation"], event["kind"], event["state"], event["value"], event["error"], event["epoch"]) == (
        "stuck", "step", "resolved", {"n": 1}, None, 1,
    )  # fmt: skip
    assert (event["issued"], event["digest"], event["cohort"]) == (None, None, None)
    assert (row(held)["state"], row(held)["news"]) == ("claimed", True)
    assert [each["answer"] for each in held.heartbeat("w1", ["w"], [1])] == ["news"]
    # what the step brings after all counts no more
    late = worker.advance(turn("w", 1, 1), outcomes=[step("w", "stuck", 1, value="late")])["w"]
    assert (late["answer"], [each["value"] for each in late["entries"]]) == ("news", [{"n": 1}])
    assert held.query("select actor, verb, promise, before, after, detail from audit") == [
        {"actor": "ann", "verb": "settle_step", "promise": "w", "before": "pending", "after": "resolved",
         "detail": {"operation": "stuck", "seq": 2, "reason": "the bank called"}}
    ]  # fmt: skip
    assert worker.finish("w", 1, 2) == "ok"


def test_an_error_is_the_steps_failure(held: Sql) -> None:
    held.settle_step("w", "2~stuck:3", error=ERROR, headers={"codec": "c"})
    (event,) = held.query("select state, value, error, headers from checkpoint where operation = '2~stuck:3'")
    assert event == {"state": "rejected", "value": None, "error": ERROR, "headers": {"codec": "c"}}
    assert held.one("select after from audit") == "rejected"


def test_whoever_waits_goes_on_with_it(held: Sql, worker: Worker) -> None:
    worker.advance(turn("w", 1, 1, "suspend"), operations=[promise("w", "p", 1)])
    held.settle_step("w", "stuck", 1)
    assert row(held)["state"] == "ready"
    (claimed,) = worker.claim()
    assert [each["operation"] for each in claimed["journal"]] == ["before", "stuck"]
    assert held.query("select operation from wait") == [{"operation": "p"}]


def test_a_retry_that_it_waited_for_is_not_due_any_more(held: Sql, worker: Worker) -> None:
    worker.advance(turn("w", 1, 1, "suspend"), operations=[promise("w", "p", 1)])
    held.query(
        "insert into wait (task, operation, kind, fire_at, issued) values ('w', 'stuck', 'retry', now() + interval '1 day', 1)"
    )
    assert held.settle_step("w", "stuck", 1)["answer"] == "recorded"
    assert held.query("select operation from wait") == [{"operation": "p"}]


def test_a_halted_one_stays_so_until_it_is_sent_on(held: Sql, worker: Worker) -> None:
    held.halt("w", "its step hangs")
    assert held.settle_step("w", "stuck", 1)["promise"]["task"]["reason"]["message"] == "its step hangs"
    assert (row(held)["state"], worker.claim()) == ("halted", [])
    held.resume("w")
    (claimed,) = worker.claim()
    assert [each["operation"] for each in claimed["journal"]] == ["before", "stuck"]


def test_one_that_is_ready_has_it_at_its_next_claim(held: Sql, worker: Worker) -> None:
    worker.advance(turn("w", 1, 1, "release"))
    ready_at = row(held)["ready_at"]
    held.settle_step("w", "stuck", 1)
    assert (row(held)["state"], row(held)["ready_at"]) == ("ready", ready_at)
    assert [each["operation"] for each in worker.claim()[0]["journal"]] == ["before", "stuck"]


def test_the_same_once_more_is_so_already(held: Sql) -> None:
    held.settle_step("w", "stuck", {"n": 1})
    held.settle_step("w", "fails", error=ERROR)
    before = held.query("select * from checkpoint")
    assert held.settle_step("w", "stuck", {"n": 1})["answer"] == "already"
    assert held.settle_step("w", "fails", error=ERROR)["answer"] == "already"
    for other in ({"value": {"n": 2}}, {"error": ERROR}, {"value": {"n": 1}, "headers": {"codec": "c"}}, {}):
        assert held.settle_step("w", "stuck", **other)["answer"] == "conflict"
    assert held.query("select * from checkpoint") == before
    assert held.one("select count(*) from audit") == 2


def test_what_the_code_was_told_stays(held: Sql) -> None:
    assert held.settle_step("w", "before")["answer"] == "conflict"
    assert held.events("w") == [(1, "before", "resolved")]


def test_what_is_no_step(held: Sql, worker: Worker) -> None:
    worker.advance(
        turn("w", 1, 1, "suspend"), operations=[promise("w", "p", 1)], timers=[timer("w", "timer", 10**9, 1)]
    )
    for each in ("p", "timer"):
        answer = held.settle_step("w", each, 1)
        assert (answer["answer"], answer["promise"]["task"]["state"]) == ("not_a_step", "suspended")
    assert (len(held.events("w")), held.one("select count(*) from audit")) == (1, 0)


def test_what_does_not_run_is_an_answer(held: Sql, worker: Worker) -> None:
    held.create_promise("p")
    worker.finish("w", 1, 1, "done")
    assert held.settle_step("nobody", "s") == {"answer": "unknown", "promise": None}
    assert held.settle_step("p", "s")["answer"] == "latent"
    answer = held.settle_step("w", "s")
    assert (answer["answer"], answer["promise"]["value"]) == ("settled", "done")
    assert held.one("select count(*) from audit") == 0


def test_past_its_timeout_it_has_ended(sql: Sql, worker: Worker, clock: Clock) -> None:
    sql.start("w", "f", timeout=timedelta(minutes=1))
    worker.claim()
    clock.advance(timedelta(minutes=2))
    answer = sql.settle_step("w", "s", 1)
    assert (answer["answer"], answer["promise"]["state"]) == ("settled", "timedout")
    assert sql.events("w") == []


@pytest.mark.parametrize("delay", [None, timedelta(hours=1)])
def test_before_it_ever_ran_it_has_no_time_to_stand_in(sql: Sql, delay: timedelta | None) -> None:
    sql.start("w", "f", delay=delay)
    before = row(sql)
    state, message = refused(lambda: sql.settle_step("w", "s", 1))
    assert (state, message) == ("TR012", "w has not begun, and its time neither")
    assert row(sql) == before


@pytest.mark.parametrize(
    ("arguments", "sqlstate"),
    [
        (("",), "TR002"),
        ((None,), "TR002"),
        (("~cancel",), "TR002"),
        (("a b",), "TR002"),
        (("x" * 256,), "TR002"),
        (("s", 1, ERROR), "TR002"),
        (("s", "x" * 1048577), "TR003"),
        (("s", None, "x" * 1048577), "TR003"),
        (("s", 1, None, None, "x" * 1001), "TR003"),
        (("s", 1, None, None, None, "worker"), "TR002"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_cannot_be_is_an_error_and_changes_nothing(
    held: Sql, arguments: tuple[Any, ...], sqlstate: str
) -> None:
    assert refused(lambda: held.settle_step("w", *arguments))[0] == sqlstate
    assert len(held.events("w")) == 1


def test_a_journal_has_an_end(held: Sql) -> None:
    held.query(
        "insert into checkpoint (task, seq, operation, kind, issued, state, at, epoch)"
        " select 'w', n, 's' || n, 'step', 0, 'resolved', t.last_at, 1 from task t, generate_series(2, 100000) n"
    )
    held.query("update task set last_seq = 100000")
    assert refused(lambda: held.settle_step("w", "s", 1))[0] == "TR030"


# races


def test_beside_the_step_itself_one_of_the_two_counts(
    sql: Sql, worker: Worker, another: Callable[..., Sql]
) -> None:
    names = [f"w{n:02}" for n in range(60)]
    sql.start_many([{"id": each, "function": "f"} for each in names])
    worker.claim(60)
    operator, holder = another(), Worker(another())

    def advance(n: int) -> str:
        while True:
            said = holder.advance(turn(names[n], 1, 0), outcomes=[step(names[n], "s", value="own")])[names[n]]
            if said["answer"] != "busy":
                answer: str = said["answer"]
                return answer

    outcomes = meet(60, lambda n: operator.settle_step(names[n], "s", "by hand")["answer"], advance)
    for name, outcome in zip(names, outcomes, strict=True):
        assert outcome in {("recorded", "news"), ("conflict", "ok")}
        assert [each["value"] for each in sql.journal(name)] == [
            "by hand" if outcome[0] == "recorded" else "own"
        ]
    assert sql.one("select count(*) from audit") == sum(first == "recorded" for first, _ in outcomes)


def test_beside_its_end(sql: Sql, worker: Worker, another: Callable[..., Sql]) -> None:
    names = [f"w{n:02}" for n in range(60)]
    sql.start_many([{"id": each, "function": "f"} for each in names])
    worker.claim(60)
    operator, holder = another(), Worker(another())

    def finish(n: int) -> str:
        while (answer := holder.finish(names[n], 1, 0)) == "busy":
            pass
        return answer

    outcomes = meet(60, lambda n: operator.settle_step(names[n], "s", 1)["answer"], finish)
    assert set(outcomes) <= {("recorded", "news"), ("settled", "ok")}
