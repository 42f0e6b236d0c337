"""Scenarios of promises, people and time, as far as SQL alone decides them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import psycopg
import pytest

from tests.support.sql import Sql, Worker, promise, timer, turn, wait
from troth.testing.clock import Clock


def test_s32_a_value_that_came_before_the_await_is_kept(sql: Sql, worker: Worker) -> None:
    sql.start("w", "f")
    worker.claim()
    worker.advance(turn("w", 1, 0), operations=[promise("w", "p")])
    sql.resolve("w~p", "early")
    answer = worker.advance(turn("w", 1, 0, "suspend"))["w"]
    assert (answer["answer"], answer["entries"][0]["value"]) == ("news", "early")


def test_s33_a_value_that_came_before_the_start_is_kept(sql: Sql, worker: Worker) -> None:
    sql.create_promise("w~approval")
    sql.resolve("w~approval", "very early")
    sql.start("w", "f")
    worker.claim()
    answer = worker.advance(turn("w", 1, 0, "suspend"), operations=[promise("w", "approval")])["w"]
    assert (answer["answer"], answer["entries"][0]["value"]) == ("ok", "very early")
    assert worker.finish("w", 1, 1) == "ok"


def test_s34_of_fifty_deciders_one_wins_and_all_see_him(sql: Sql, another: Callable[..., Sql]) -> None:
    sql.create_promise("p")
    sessions = [another() for _ in range(10)]
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda n: sessions[n % 10].resolve("p", n), range(50)))
    assert Counter(each["answer"] for each in answers) == {"settled": 1, "conflict": 49}
    assert len({each["promise"]["value"] for each in answers}) == 1
    assert sql.one("select count(*) from audit") == 1


def test_s35_the_same_decision_again_is_the_same_answer(sql: Sql) -> None:
    sql.create_promise("p")
    first = sql.resolve("p", {"ok": True}, actor="ann")
    second = sql.resolve("p", {"ok": True}, actor="ann")
    assert (first["answer"], second["answer"], first["promise"]) == ("settled", "already", second["promise"])


def test_s36_a_late_decision_meets_the_timeout(sql: Sql, worker: Worker, clock: Clock) -> None:
    sql.start("w", "f")
    worker.claim()
    worker.advance(turn("w", 1, 0, "suspend"), operations=[promise("w", "p", timeout=60_000_000)])
    clock.advance(timedelta(minutes=1))
    answer = sql.resolve("w~p", "late")
    assert (answer["answer"], answer["promise"]["state"]) == ("conflict", "timedout")
    (claimed,) = Worker(sql, "w2").claim()
    assert [(e["operation"], e["state"], e["value"]) for e in claimed["journal"]] == [("p", "timedout", None)]


def test_s38_nobody_is_raised_from_the_dead(sql: Sql, worker: Worker) -> None:
    for each in ("finished", "canceled"):
        sql.start(each, "f")
    worker.claim()
    for each in ("finished", "canceled"):
        worker.advance(turn(each, 1, 0), operations=[promise(each, "p")])
    worker.finish("finished", 1, 0)
    error = {"type": "canceled", "message": "m"}
    worker.advance(turn("canceled", 1, 0, "finish", state="canceled", error=error))
    for each in ("finished", "canceled"):
        answer = sql.resolve(f"{each}~p", 1)
        assert (answer["answer"], answer["promise"]["state"]) == ("conflict", "canceled")
        assert sql.task(each) is None


def test_s39_a_reason_reaches_the_code(sql: Sql, worker: Worker) -> None:
    sql.start("w", "f")
    worker.claim()
    worker.wait_for("w")
    error = {"type": "Denied", "message": "too expensive", "data": {"limit": 5}}
    sql.reject("w~approval", error)
    assert [(e["state"], e["error"]) for e in worker.claim()[0]["journal"]] == [("rejected", error)]


def test_s40_unknown_is_an_answer_and_tells_nothing_of_others(
    two_namespaces: tuple[str, str], another: Callable[..., Sql]
) -> None:
    here, there = (another(schema) for schema in two_namespaces)
    there.create_promise("secret")
    there.create_promise("same")
    here.create_promise("same")
    assert here.resolve("secret", 1) == here.resolve("nobody", 1) == {"answer": "unknown", "promise": None}
    assert (here.get(["secret"]), here.search()[0]["id"], len(here.search())) == ([], "same", 1)
    here.resolve("same", "here")
    assert there.get(["same"])[0]["state"] == "pending"
    assert there.get(["secret"])[0]["state"] == "pending"


def test_s87_a_role_of_one_namespace_is_nobody_in_another(
    two_namespaces: tuple[str, str], another: Callable[..., Sql]
) -> None:
    there = another(two_namespaces[1])
    there.create_promise("secret")
    there.query("set session authorization troth_admin")
    for call in (
        lambda: there.get(["secret"]),
        lambda: there.resolve("secret"),
        lambda: there.query("select * from troth_other.promises"),
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            call()


def test_s47_two_workflows_wait_for_one_promise_and_both_wake(sql: Sql, worker: Worker) -> None:
    sql.create_promise("p")
    for each in ("a", "b"):
        sql.start(each, "f")
    worker.claim()
    worker.advance(
        *(turn(each, 1, 0, "suspend") for each in "ab"), operations=[wait(each, "x", "p") for each in "ab"]
    )
    sql.resolve("p", 7)
    assert {(row["task"], row["journal"][0]["value"]) for row in worker.claim()} == {("a", 7), ("b", 7)}


def test_s46_what_is_parked_for_a_month_wakes(sql: Sql, worker: Worker, clock: Clock) -> None:
    sql.start("w", "f")
    worker.claim()
    worker.advance(turn("w", 1, 0, "suspend"), timers=[timer("w", "t", 30 * 86_400_000_000)])
    for day in range(30):
        assert worker.sql.one("select state from task") == "suspended", day
        clock.advance(timedelta(days=1))
        sql.tick()
    assert [e["operation"] for e in Worker(sql, "w2").claim()[0]["journal"]] == ["t"]


def test_s79_nothing_is_lost_when_nobody_hears(sql: Sql, worker: Worker, another: Callable[..., Sql]) -> None:
    """The listener is gone, its worker still marked as asleep: what was hinted at is found by looking."""
    gone = another()
    gone.query("listen w1")
    worker.claim(sleeping=True)
    gone.connection.close()
    for n in range(20):
        sql.start(f"w{n}", "f")
    assert len(worker.claim(20)) == 20
    worker.wait_for("w7")
    sql.resolve("w7~approval")
    assert [row["task"] for row in worker.claim(sleeping=True)] == ["w7"]


def test_s89_a_caller_who_takes_his_time_holds_up_nobody_else(
    sql: Sql, worker: Worker, another: Callable[..., Sql]
) -> None:
    for n in range(200):
        sql.start(f"w{n:03}", "f")
    worker.claim(200)
    names = [f"w{n:03}" for n in range(200)]
    worker.advance(*(turn(each, 1, 0) for each in names), operations=[promise(each, "p") for each in names])
    caller = another()
    with caller.connection.transaction():
        caller.resolve("w100~p", "in a moment")
        sql.query("set lock_timeout = '60s'")  # who waits for the caller waits for ever
        answers = worker.advance(*(turn(each, 1, 0, "suspend") for each in names))
        assert Counter(each["answer"] for each in answers.values()) == {"ok": 199, "busy": 1}
        assert worker.claim() == []
        assert sql.heartbeat("w1", ["w100"], [1]) == []
        sql.tick()
    answer = worker.advance(turn("w100", 1, 0, "suspend"))["w100"]
    assert (answer["answer"], answer["entries"][0]["value"]) == ("news", "in a moment")


def test_s90_two_callers_in_opposite_orders_never_hurt_a_worker(
    sql: Sql, worker: Worker, another: Callable[..., Sql]
) -> None:
    names = [f"w{n}" for n in range(2)]
    for each in names:
        sql.start(each, "f")
    worker.claim()
    worker.advance(
        *(turn(each, 1, 0) for each in names),
        operations=[promise(each, f"p{n}") for each in names for n in range(40)],
    )
    callers = [another(), another()]
    for caller in callers:
        caller.query("set deadlock_timeout = '20ms'")
    both_hold_one = Barrier(2)

    def call(n: int) -> Counter[str | None]:
        seen: Counter[str | None] = Counter()
        for round_ in range(40):
            try:
                with callers[n].connection.transaction():
                    for each in names[:: 1 - 2 * n]:
                        callers[n].resolve(f"{each}~p{round_}", round_)
                        if round_ == 0 and each == names[n]:
                            both_hold_one.wait(60)
                        time.sleep(0.002)
                seen["ok"] += 1
            except psycopg.errors.DeadlockDetected:
                seen["deadlock"] += 1
        return seen

    told: Counter[str] = Counter()
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(call, n) for n in range(2)]
        while not all(each.done() for each in running):
            for task in names:
                told[worker.advance(turn(task, 1, 0))[task]["answer"]] += 1
        outcomes = sum((each.result() for each in running), Counter[str | None]())
    assert set(outcomes) == {"ok", "deadlock"}, "they did meet"
    assert set(told) <= {"ok", "busy", "news"}
    # each transaction settled both or neither, and every settlement was told once
    settled = [sorted(name.split("~")[1] for name in _settled(sql, each)) for each in names]
    assert settled[0] == settled[1] == sorted(event[1] for event in sql.events(names[0]))
    assert len(sql.events(names[1])) == len(settled[1])


def _settled(sql: Sql, family: str) -> list[str]:
    return [
        row["id"]
        for row in sql.query("select id from promise where parent = %s and state = 'resolved'", family)
    ]


def test_s96_ten_thousand_children_are_canceled_at_leisure(sql: Sql, worker: Worker) -> None:
    sql.start("w", "f")
    worker.claim()
    worker.advance(turn("w", 1, 0), operations=[promise("w", f"p{n}") for n in range(10_000)])
    error: dict[str, Any] = {"type": "canceled", "message": "m"}
    sql.cancel("w")
    worker.advance(turn("w", 1, 1, "finish", state="canceled", error=error))
    assert sql.state("w") == "canceled"
    assert sql.one("select count(*) from promise where state = 'pending'") == 10_000
    assert [sql.tick(4_000)["closed"] for _ in range(4)] == [4_000, 4_000, 2_000, 0]
    assert sql.one("select count(*) from promise where state = 'pending'") == 0
