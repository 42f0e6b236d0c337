"""advance: the contract of DESIGN 4, sentence by sentence, and every answer."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.support.sql import Row, Sql, Worker, promise, refused, step, timer, turn, wait
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


# fenced


@pytest.mark.parametrize("then", [None, "suspend", "finish", "release", "halt"])
def test_whoever_does_not_hold_it_changes_nothing(
    sql: Sql, w: Worker, clock: Clock, then: str | None
) -> None:
    more: Row = {"state": "resolved", "value": "late"} if then == "finish" else {}
    w.advance(turn("w", 1, 0, "release"))
    Worker(sql, "w2").claim()
    before = sql.query("select * from task, promise")
    outcomes, operations = [step("w", "s")], [promise("w", "p")]
    for epoch in (1, 3):
        answer = w.advance(
            turn("w", epoch, 0, then, **more),
            outcomes=outcomes,
            operations=operations,
            timers=[timer("w", "t", 1)],
        )
        assert answer == {"w": {"task": "w", "answer": "fenced", "last_seq": None, "entries": None}}
    assert sql.query("select * from task, promise") == before
    assert (sql.query("select * from checkpoint"), sql.query("select * from wait")) == ([], [])


@pytest.mark.parametrize("how", ["released", "suspended", "halted", "finished", "unknown"])
def test_what_is_not_claimed_is_fenced(sql: Sql, w: Worker, how: str) -> None:
    match how:
        case "released":
            w.advance(turn("w", 1, 0, "release"))
        case "suspended":
            w.wait_for("w")
        case "halted":
            sql.halt("w")
        case "finished":
            w.finish("w", 1, 0)
        case _:
            assert how == "unknown"
    task = "nobody" if how == "unknown" else "w"
    assert w.advance(turn(task, 1, 0), outcomes=[step(task, "s")])[task]["answer"] == "fenced"
    assert sql.query("select * from checkpoint") == []


def test_past_its_own_timeout_a_workflow_is_fenced(sql: Sql, worker: Worker, clock: Clock) -> None:
    sql.start("w", "f", timeout=timedelta(minutes=1))
    worker.claim()
    clock.advance(timedelta(minutes=1))
    assert worker.finish("w", 1, 0) == "fenced"
    assert sql.get(["w"])[0]["state"] == "timedout"
    assert sql.task("w") is None


def test_an_expired_lease_that_nobody_took_is_still_good(sql: Sql, w: Worker, clock: Clock) -> None:
    clock.advance(timedelta(hours=1))
    assert w.finish("w", 1, 0) == "ok"


# busy


def test_a_held_row_is_busy_and_nothing_is_written(sql: Sql, w: Worker, another: Callable[..., Sql]) -> None:
    sql.create_promise("w~p")
    holder = another()
    for held in ("task where id = 'w'", "promise where id = 'w'", "promise where id = 'w~p'"):
        with holder.connection.transaction():
            holder.query(f"select from {held} for update")
            answer = w.advance(
                turn("w", 1, 0, "finish", state="resolved"),
                outcomes=[step("w", "s")],
                operations=[promise("w", "p")],
            )["w"]
            assert answer == {"task": "w", "answer": "busy", "last_seq": None, "entries": None}
        assert (sql.query("select * from checkpoint"), sql.query("select * from wait")) == ([], [])
    answer = w.advance(turn("w", 1, 0, "suspend"), outcomes=[step("w", "s")], operations=[promise("w", "p")])[
        "w"
    ]
    assert told(answer) == ("ok", [])


def test_an_end_whose_awaiter_is_held_is_busy(sql: Sql, w: Worker, another: Callable[..., Sql]) -> None:
    sql.start("x", "f")
    w.claim()
    w.advance(turn("x", 1, 0, "suspend"), operations=[wait("x", "w", "w")])
    holder = another()
    with holder.connection.transaction():
        holder.query("select from task where id = 'x' for update")
        assert w.finish("w", 1, 0) == "busy"
    assert w.finish("w", 1, 0) == "ok"
    assert sql.events("x") == [(1, "w", "resolved")]


def test_a_timer_before_its_instant_is_busy(sql: Sql, w: Worker, clock: Clock) -> None:
    fired = {**step("w", "t"), "kind": "timer", "micros": MINUTE}
    assert w.advance(turn("w", 1, 0), outcomes=[fired])["w"]["answer"] == "busy"
    assert sql.events("w") == []
    clock.advance(timedelta(minutes=1))
    assert w.advance(turn("w", 1, 0), outcomes=[fired])["w"]["answer"] == "ok"
    again = {**step("w", "t2", 1), "kind": "timer", "micros": MINUTE}
    assert w.advance(turn("w", 1, 1), outcomes=[again])["w"]["answer"] == "busy"


# news


def test_with_news_outcomes_are_kept_and_nothing_else_is_done(sql: Sql, w: Worker) -> None:
    answer: Row = {}
    sql.create_promise("w~p")
    w.advance(turn("w", 1, 0), operations=[promise("w", "p")])
    sql.resolve("w~p", 1)
    for then in ("suspend", "finish", "release"):
        more: Row = {"state": "resolved"} if then == "finish" else {}
        answer = w.advance(
            turn("w", 1, 0, then, **more),
            outcomes=[step("w", f"s-{then}")],
            operations=[promise("w", "q")],
            timers=[timer("w", "t", MINUTE)],
        )["w"]
        assert told(answer)[0] == "news"
    assert told(answer)[1] == ["p", "s-suspend", "s-finish", "s-release"]
    assert (answer["last_seq"], row(sql)["state"], row(sql)["news"]) == (4, "claimed", True)
    assert (sql.state("w~q"), sql.query("select * from wait")) == (None, [])


def test_halt_is_done_whatever_came_meanwhile(sql: Sql, w: Worker) -> None:
    sql.cancel("w")
    assert w.advance(turn("w", 1, 0, "halt", reason={"code": "nondeterminism"}))["w"]["answer"] == "halted"
    assert row(sql)["reason"] == {"code": "nondeterminism"}


def test_the_same_call_again_is_harmless(sql: Sql, w: Worker) -> None:
    def call() -> Row:
        return w.advance(
            turn("w", 1, 0),
            outcomes=[step("w", "s", value=1), step("w", "t", 1)],
            operations=[promise("w", "p", 2)],
        )["w"]

    assert told(call()) == ("ok", [])
    journal, waits = sql.journal("w"), sql.query("select * from wait")
    for _ in range(2):
        assert told(call()) == ("news", ["s", "t"])
    assert (sql.journal("w"), sql.query("select * from wait")) == (journal, waits)
    # and with what it has learnt
    answer = w.advance(turn("w", 1, 2), operations=[promise("w", "p", 2)])["w"]
    assert told(answer) == ("ok", [])
    assert sql.one("select count(*) from promise where parent = 'w'") == row(sql)["children"] == 1


@pytest.mark.parametrize("then", ["suspend", "release", "finish"])
def test_the_same_end_again_is_fenced(sql: Sql, w: Worker, then: str) -> None:
    more: Row = {"state": "resolved"} if then == "finish" else {}

    def call() -> str:
        answer: str = w.advance(turn("w", 1, 0, then, **more), operations=[promise("w", "p")])["w"]["answer"]
        return answer

    assert [call(), call()] == ["ok", "fenced"]


# outcomes


def test_an_outcome_is_recorded_once(sql: Sql, w: Worker) -> None:
    w.advance(turn("w", 1, 0), outcomes=[step("w", "s", value="first")])
    answer = w.advance(turn("w", 1, 1), outcomes=[step("w", "s", value="second"), step("w", "t", 1)])["w"]
    assert told(answer) == ("ok", [])
    assert [(entry["operation"], entry["value"]) for entry in sql.journal("w")] == [
        ("s", "first"),
        ("t", None),
    ]


def test_an_instant_told_ahead_is_stored_verbatim(sql: Sql, worker: Worker, clock: Clock) -> None:
    sql.start("w", "f")
    (claimed,) = worker.claim()
    clock.advance(timedelta(seconds=10))
    first, second = claimed["started_at"] + 1, claimed["started_at"] + 5_000_001
    answer = worker.advance(
        turn("w", 1, 0), outcomes=[step("w", "s", at=first), step("w", "t", 1, at=second)]
    )["w"]
    assert told(answer) == ("ok", [])
    assert [entry["at"] for entry in sql.journal("w")] == [first, second]
    third = second  # the same instant again is in order
    assert worker.advance(turn("w", 1, 2), outcomes=[step("w", "u", 2, at=third)])["w"]["answer"] == "ok"
    assert sql.journal("w", 3)[0]["at"] == third


@pytest.mark.parametrize("shift", [-1, 3_600_000_000], ids=["before the last event", "after the clock"])
def test_an_instant_that_cannot_stand_is_news(sql: Sql, worker: Worker, shift: int) -> None:
    sql.start("w", "f")
    (claimed,) = worker.claim()
    answer = worker.advance(
        turn("w", 1, 0, "finish", state="resolved"),
        outcomes=[step("w", "s", value=1, at=claimed["started_at"] + shift)],
    )["w"]
    assert told(answer) == ("news", ["s"])
    (entry,) = answer["entries"]
    assert claimed["started_at"] <= entry["at"] < claimed["started_at"] + 60_000_000
    assert row(sql)["state"] == "claimed"


def test_the_cohort_is_kept_of_every_kind_of_event(sql: Sql, w: Worker, clock: Clock) -> None:
    """Whatever writes the event: advance, a settlement, a timer that tick fires."""
    sql.create_promise("other")
    w.advance(
        turn("w", 1, 0, "suspend"),
        outcomes=[step("w", "s", cohort=1)],
        operations=[{**promise("w", "p", 1), "cohort": 2}, {**wait("w", "x", "other", 1), "cohort": 3}],
        timers=[{**timer("w", "t", MINUTE, 1), "cohort": 4}],
    )
    sql.resolve("w~p")
    sql.resolve("other")
    clock.advance(timedelta(minutes=1))
    sql.tick()
    (claimed,) = Worker(sql, "w2").claim()
    assert {entry["operation"]: entry["cohort"] for entry in claimed["journal"]} == {
        "s": 1,
        "p": 2,
        "x": 3,
        "t": 4,
    }


def test_told_out_of_order_is_news(sql: Sql, worker: Worker, clock: Clock) -> None:
    sql.start("w", "f")
    (claimed,) = worker.claim()
    clock.advance(timedelta(seconds=10))
    at = claimed["started_at"] + 100
    answer = worker.advance(turn("w", 1, 0), outcomes=[step("w", "s", at=at + 50), step("w", "t", 1, at=at)])[
        "w"
    ]
    assert told(answer) == ("news", ["s", "t"])
    # one told ahead after one that was not: it cannot be kept verbatim either
    answer = worker.advance(turn("w", 1, 2), outcomes=[step("w", "u", 2), step("w", "v", 3, at=at + 60)])["w"]
    assert told(answer) == ("news", ["u", "v"])


def test_instants_never_go_back_when_the_clock_does(sql: Sql, w: Worker, clock: Clock) -> None:
    w.advance(turn("w", 1, 0), outcomes=[step("w", "s")])
    clock.advance(timedelta(seconds=-5))
    w.advance(turn("w", 1, 1), outcomes=[step("w", "t", 1)])
    sql.cancel("w")
    instants = [entry["at"] for entry in sql.journal("w")]
    assert instants == [instants[0]] * 3
    clock.set(timedelta(0))


# operations


def test_a_promise_is_made_with_all_that_was_asked(sql: Sql, w: Worker, clock: Clock) -> None:
    asked = promise(
        "w",
        "p",
        0,
        timeout=7 * MINUTE,
        default=False,
        has_default=True,
        default_headers={"h": 1},
        title="Approve?",
        tags={"t": "1"},
        digest=5,
    )
    assert told(w.advance(turn("w", 1, 0, "suspend"), operations=[asked])["w"]) == ("ok", [])
    (made,) = sql.get(["w~p"])
    assert (made["parent"], made["title"], made["tags"], made["latent"]) == (
        "w",
        "Approve?",
        {"t": "1"},
        True,
    )
    assert row(sql)["state"] == "suspended"
    clock.advance(timedelta(minutes=7))
    sql.tick()
    (entry,) = sql.journal("w")
    assert (entry["state"], entry["value"], entry["headers"], entry["digest"]) == (
        "resolved",
        False,
        {"h": 1},
        5,
    )


def test_one_created_beforehand_is_attached_to_as_it_stands(sql: Sql, w: Worker) -> None:
    sql.create_promise("w~p", timeout=timedelta(days=9))
    sql.create_promise("w~done")
    sql.resolve("w~done", "early")
    answer = w.advance(
        turn("w", 1, 0, "suspend"), operations=[promise("w", "p", timeout=1), promise("w", "done")]
    )["w"]
    assert told(answer) == ("ok", ["done"])
    assert (answer["entries"][0]["value"], answer["last_seq"], row(sql)["state"]) == ("early", 1, "claimed")
    assert sql.query("select operation, promise from wait") == [{"operation": "p", "promise": "w~p"}]
    assert told(w.advance(turn("w", 1, 1, "suspend"))["w"]) == ("ok", [])
    assert row(sql)["state"] == "suspended"


@pytest.mark.parametrize("then", ["suspend", "finish", "release"])
def test_events_beyond_the_callers_keep_it_going(sql: Sql, w: Worker, then: str) -> None:
    sql.create_promise("w~p")
    sql.resolve("w~p", 1)
    more: Row = {"state": "resolved"} if then == "finish" else {}
    answer = w.advance(
        turn("w", 1, 0, then, **more), outcomes=[step("w", "s")], operations=[promise("w", "p", 1)]
    )["w"]
    assert told(answer) == ("ok", ["p"])
    assert [entry["seq"] for entry in answer["entries"]] == [2]
    assert row(sql)["state"] == "claimed"


@pytest.mark.parametrize(
    ("code", "operation"),
    [
        ("id_conflict", {"operation": "taken"}),
        ("unknown_promise", {"operation": "x", "kind": "wait", "promise": "nobody"}),
        ("waits_for_itself", {"operation": "x", "kind": "wait", "promise": "w"}),
    ],
)
def test_a_wrong_thing_halts_with_its_reason(sql: Sql, w: Worker, code: str, operation: Row) -> None:
    if code == "id_conflict":
        # only a superuser can put a workflow there: an ID given to start has no ~
        sql.query(
            "insert into promise (id, function, queue, created_at, state, settled_at, settler) values ('w~taken', 'g', 'q', now(), 'resolved', now(), 'worker')"  # noqa: E501
        )
    answer = w.advance(turn("w", 1, 0, "suspend"), operations=[{**promise("w", "x"), **operation}])["w"]
    assert (answer["answer"], answer["entries"]) == ("halted", None)
    assert (row(sql)["state"], row(sql)["reason"]["code"]) == ("halted", code)


def test_a_wait_for_anothers_promise_copies_what_it_learns(sql: Sql, w: Worker) -> None:
    sql.start("x", "f")
    w.claim()
    assert told(w.advance(turn("w", 1, 0, "suspend"), operations=[wait("w", "its", "x")])["w"]) == ("ok", [])
    w.finish("x", 1, 0, {"v": 1})
    (claimed,) = w.claim()
    assert [(e["operation"], e["value"], e["promise"]) for e in claimed["journal"]] == [
        ("its", {"v": 1}, "x")
    ]


def test_all_in_one_call(sql: Sql, worker: Worker) -> None:
    """x waits for y, y ends, both in one call: x is told at once."""
    for each in "xyz":
        sql.start(each, "f")
    worker.claim()
    answers = worker.advance(
        turn("x", 1, 0, "suspend"),
        turn("y", 1, 0, "finish", state="resolved", value="from y"),
        turn("z", 1, 0, "suspend"),
        operations=[wait("x", "y", "y"), wait("z", "x", "x")],
    )
    assert told(answers["x"]) == ("ok", ["y"])
    assert answers["x"]["entries"][0]["value"] == "from y"
    assert (told(answers["y"]), told(answers["z"])) == (("ok", []), ("ok", []))
    assert (row(sql, "x")["state"], row(sql, "z")["state"]) == ("claimed", "suspended")


def test_two_that_end_together_owe_each_other_nothing(sql: Sql, worker: Worker) -> None:
    for each in "xy":
        sql.start(each, "f")
    worker.claim()
    worker.advance(turn("x", 1, 0), turn("y", 1, 0), operations=[wait("x", "y", "y"), promise("x", "p")])
    answers = worker.advance(*(turn(each, 1, 0, "finish", state="resolved") for each in "xy"))
    assert {each["answer"] for each in answers.values()} == {"ok"}
    assert (sql.query("select * from task"), sql.query("select * from checkpoint")) == ([], [])
    assert [each["id"] for each in sql.query("select id from closing")] == ["x"]


def test_the_same_operation_twice_in_a_turn_fails_and_changes_nothing(sql: Sql, w: Worker) -> None:
    twice = "TR002", "p of w is named twice"
    assert (
        refused(lambda: w.advance(turn("w", 1, 0), operations=[promise("w", "p"), promise("w", "p")]))
        == twice
    )
    assert refused(lambda: w.advance(turn("w", 1, 0), outcomes=[step("w", "p"), step("w", "p")])) == twice
    assert (sql.state("w~p"), row(sql)["last_seq"]) == (None, 0)


# suspend


def test_a_suspended_task_holds_nothing(sql: Sql, w: Worker) -> None:
    w.wait_for("w")
    task = row(sql)
    assert (task["state"], task["worker"], task["claimed_at"], task["attempts"]) == (
        "suspended",
        None,
        None,
        0,
    )


def test_timers_become_waits_from_the_event_they_were_issued_after(sql: Sql, w: Worker) -> None:
    w.advance(turn("w", 1, 0), outcomes=[step("w", "s")])
    w.advance(turn("w", 1, 1, "suspend"), timers=[timer("w", "t0", MINUTE), timer("w", "t1", 2 * MINUTE, 1)])
    rows = sql.query(
        """select w.operation, w.fire_at - coalesce(c.at, t.started_at) as after
             from wait w join task t on t.id = w.task left join checkpoint c on c.task = w.task and c.seq = w.issued order by 1"""
    )
    assert rows == [
        {"operation": "t0", "after": timedelta(minutes=1)},
        {"operation": "t1", "after": timedelta(minutes=2)},
    ]


def test_timers_given_up_are_dropped_and_others_keep_their_instant(sql: Sql, w: Worker, clock: Clock) -> None:
    w.advance(
        turn("w", 1, 0, "suspend"),
        operations=[promise("w", "p")],
        timers=[timer("w", "a", MINUTE), timer("w", "b", 60 * MINUTE)],
    )
    before = sql.one("select fire_at from wait where operation = 'b'")
    clock.advance(timedelta(minutes=1))
    sql.tick()
    second = Worker(sql, "w2")
    assert [e["operation"] for e in second.claim()[0]["journal"]] == ["a"]
    second.advance(turn("w", 2, 1, "suspend"), timers=[timer("w", "b", 60 * MINUTE)])
    assert sql.one("select fire_at from wait where operation = 'b'") == before
    sql.resolve("w~p")
    second.claim()
    second.advance(turn("w", 3, 2, "suspend"), timers=[timer("w", "c", MINUTE, 2)])
    assert [each["operation"] for each in sql.query("select operation from wait")] == ["c"]


def test_a_timer_that_the_worker_fires_is_no_longer_waited_for(sql: Sql, w: Worker, clock: Clock) -> None:
    w.advance(turn("w", 1, 0, "suspend"), operations=[promise("w", "p")], timers=[timer("w", "t", MINUTE)])
    sql.resolve("w~p")
    w.claim()
    clock.advance(timedelta(minutes=1))
    fired = {**step("w", "t"), "kind": "timer", "micros": MINUTE}
    assert w.advance(turn("w", 2, 1), outcomes=[fired])["w"]["answer"] == "ok"
    assert sql.query("select * from wait") == []
    sql.tick()
    assert sql.events("w") == [(1, "p", "resolved"), (2, "t", "resolved")]


def test_a_recorded_timer_is_not_waited_for_again(sql: Sql, w: Worker, clock: Clock) -> None:
    clock.advance(timedelta(minutes=1))
    w.advance(turn("w", 1, 0), outcomes=[{**step("w", "t"), "kind": "timer", "micros": MINUTE}])
    w.advance(turn("w", 1, 1, "suspend"), operations=[promise("w", "p", 1)], timers=[timer("w", "t", MINUTE)])
    assert [each["operation"] for each in sql.query("select operation from wait")] == ["p"]
    assert sql.tick()["timers"] == 0


def test_waiting_for_nothing_is_a_deadlock(sql: Sql, w: Worker) -> None:
    answer = w.advance(turn("w", 1, 0, "suspend"))["w"]
    assert (answer["answer"], answer["entries"]) == ("halted", None)
    assert row(sql)["reason"]["code"] == "deadlock"


# finish, release, halt


@pytest.mark.parametrize(
    ("state", "more"),
    [
        ("resolved", {"value": {"a": None}, "headers": {"h": 1}, "digest": "0a0b"}),
        ("resolved", {"value": None, "error": None}),
        ("rejected", {"error": {"type": "E", "message": "m"}}),
        ("canceled", {"error": {"type": "canceled", "message": "m"}}),
    ],
)
def test_a_workflow_ends(sql: Sql, w: Worker, state: str, more: Row) -> None:
    answer = w.advance(turn("w", 1, 0, "finish", state=state, **more), outcomes=[step("w", "s")])["w"]
    assert (answer["answer"], answer["last_seq"], answer["entries"]) == ("ok", 1, None)
    (ended,) = sql.get(["w"])
    assert (ended["state"], ended["settler"], ended["version"]) == (state, "worker", 1)
    assert {key: ended.get(key) for key in ("value", "error", "headers")} == {
        key: more.get(key) for key in ("value", "error", "headers")
    }
    assert sql.query("select started_at is not null as began, seed is not null as seeded from promise") == [
        {"began": True, "seeded": True}
    ]
    assert sql.task("w") is None


def test_release_costs_no_attempt_and_progress_forgets_them(sql: Sql, w: Worker) -> None:
    assert row(sql)["attempts"] == 1
    w.advance(turn("w", 1, 0, "release"))
    assert (row(sql)["state"], row(sql)["attempts"]) == ("ready", 0)
    w.claim()
    w.advance(turn("w", 2, 0), operations=[promise("w", "p")])
    assert row(sql)["attempts"] == 0


def test_what_outsiders_settle_and_repeats_are_no_progress(sql: Sql, w: Worker) -> None:
    w.advance(turn("w", 1, 0, "release"), operations=[promise("w", "p")])
    w.claim()
    sql.resolve("w~p")
    w.advance(turn("w", 2, 0))
    w.advance(turn("w", 2, 1), operations=[promise("w", "p")])
    assert row(sql)["attempts"] == 1


def test_halt_parks_with_a_reason(sql: Sql, w: Worker) -> None:
    assert w.advance(turn("w", 1, 0, "halt"), outcomes=[step("w", "s")])["w"]["answer"] == "halted"
    assert (row(sql)["state"], row(sql)["reason"]["code"], row(sql)["last_seq"]) == ("halted", "halted", 1)
    assert w.claim() == []


def test_past_its_limits_a_workflow_is_halted(sql: Sql, w: Worker) -> None:
    sql.query(
        """insert into checkpoint (task, seq, operation, kind, issued, state, at, epoch)
           select 'w', n, 's' || n, 'step', 0, 'resolved', t.started_at, 1 from task t, generate_series(1, 99999) n"""
    )
    sql.query("update task set last_seq = 99999")
    assert (
        w.advance(turn("w", 1, 99999), outcomes=[step("w", "a"), step("w", "b")])["w"]["answer"] == "halted"
    )
    assert (row(sql)["reason"]["code"], row(sql)["last_seq"]) == ("limit", 99999)
    sql.resume("w")
    w.claim(entries=1)
    assert w.advance(turn("w", 2, 99999), outcomes=[step("w", "a")])["w"]["answer"] == "ok"


def test_the_limit_of_children_counts_what_is_new(sql: Sql, w: Worker) -> None:
    w.advance(turn("w", 1, 0), operations=[promise("w", f"p{n}") for n in range(10_000)])
    assert row(sql)["children"] == 10_000
    again = w.advance(turn("w", 1, 0), operations=[promise("w", f"p{n}") for n in range(100)])["w"]
    assert again["answer"] == "ok"
    sql.create_promise("other")
    assert w.advance(turn("w", 1, 0), operations=[wait("w", "x", "other")])["w"]["answer"] == "ok"
    answer = w.advance(turn("w", 1, 0), operations=[promise("w", "one-more")])["w"]
    assert (answer["answer"], answer["entries"][0]["error"]["type"]) == ("ok", "troth.errors.LimitExceeded")


# sets


def test_every_item_is_judged_by_itself(sql: Sql, worker: Worker, another: Callable[..., Sql]) -> None:
    for each in ("bad", "busy", "good", "news", "stale", "wrong"):
        sql.start(each, "f")
    worker.claim()
    sql.cancel("news")
    worker.advance(turn("stale", 1, 0, "release"))
    holder = another()
    with holder.connection.transaction():
        holder.query("select from task where id = 'busy' for update")
        answers = worker.advance(
            *(turn(each, 1, 0) for each in ("wrong", "stale", "news", "good", "busy", "nobody")),
            turn("bad", 1, 0, "suspend"),
            outcomes=[step(each, "s") for each in ("news", "good", "busy", "stale", "nobody")],
            operations=[wait("wrong", "x", "nobody")],
        )
    assert {task: answer["answer"] for task, answer in answers.items()} == {
        "bad": "halted", "busy": "busy", "good": "ok", "news": "news", "nobody": "fenced", "stale": "fenced", "wrong": "halted",
    }  # fmt: skip
    assert {each: len(sql.events(each)) for each in ("good", "busy", "stale", "news")} == {
        "good": 1,
        "busy": 0,
        "stale": 0,
        "news": 2,
    }


def test_nothing_is_an_answer_too(worker: Worker) -> None:
    assert worker.advance() == {}


GOOD = turn("w", 1, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"turns": {}},
        {"turns": [{**GOOD, "task": None}]},
        {"turns": [{**GOOD, "epoch": None}]},
        {"turns": [{**GOOD, "seen": None}]},
        {"turns": [GOOD, GOOD]},
        {"turns": [{**GOOD, "then": "stop"}]},
        {"turns": [{**GOOD, "then": "finish"}]},
        {"turns": [{**GOOD, "then": "finish", "state": "timedout"}]},
        {"turns": [{**GOOD, "then": "finish", "state": "rejected"}]},
        {"turns": [{**GOOD, "then": "finish", "state": "resolved", "error": {"type": "E"}}]},
        {"outcomes": [{**step("w", "s"), "kind": "promise"}]},
        {"outcomes": [{**step("w", "s"), "state": "canceled"}]},
        {"outcomes": [step("w", "")]},
        {"outcomes": [step("w", "~cancel")]},
        {"outcomes": [step("w", "~delay")]},
        {"outcomes": [{**step("w", "s"), "issued": None}]},
        {"operations": [{**promise("w", "p"), "kind": "step"}]},
        {"operations": [promise("w", "~cancel")]},
        {"operations": [promise("w", "p", timeout=-1)]},
        {"operations": [{**promise("w", "p"), "kind": "wait"}]},
        {"operations": [promise("w", "p", promise="other")]},
        {"outcomes": [{**step("w", "s"), "kind": "call"}]},
        {"turns": [{**GOOD, "then": "release", "close": True}]},
        {"turns": [{**GOOD, "then": "finish", "state": "resolved", "close": True}]},
        {"cancels": [{"task": "w"}]},
        {"cancels": [{"promise": "w"}]},
        {"cancels": {}},
        {"attempts": {}},
    ],
    ids=lambda wrong: str(wrong)[:60],
)
def test_a_malformed_call_is_refused_whole(sql: Sql, w: Worker, wrong: dict[str, Any]) -> None:
    assert refused(lambda: sql.advance(**({"turns": [GOOD]} | wrong)))[0] == "TR002"
    assert row(sql)["last_seq"] == 0


def test_too_large_is_refused_before_anything_is_written(sql: Sql, w: Worker) -> None:
    large = "x" * 2**20
    assert refused(lambda: w.advance(turn("w", 1, 0), outcomes=[step("w", "s", value=large)]))[0] == "TR003"
    assert refused(lambda: w.finish("w", 1, 0, large))[0] == "TR003"
    assert refused(lambda: sql.advance([{}] * 10001))[0] == "TR030"
    assert refused(lambda: sql.advance([turn("w", 1, 0)], attempts=[{}] * 10001))[0] == "TR030"
    assert row(sql)["last_seq"] == 0


def test_a_timer_issued_after_an_outcome_told_ahead_in_the_same_call_counts_from_that(
    sql: Sql, w: Worker, clock: Clock
) -> None:
    clock.advance(timedelta(seconds=30))
    now = sql.one("select _micros(_clock())")
    fired = {
        "task": "w",
        "operation": "timer",
        "kind": "timer",
        "issued": 1,
        "state": "resolved",
        "micros": 10_000_000,
    }
    early = w.advance(turn("w", 1, 0), outcomes=[step("w", "s", at=now), {**fired, "at": now}])["w"]
    assert told(early) == ("busy", [])
    assert sql.journal("w") == []
    clock.advance(timedelta(seconds=10))
    due = sql.one("select _micros(_clock())")
    late = w.advance(turn("w", 1, 0), outcomes=[step("w", "s", at=now), {**fired, "at": due}])["w"]
    assert told(late) == ("ok", [])
    assert [entry["at"] for entry in sql.journal("w")] == [now, due]
