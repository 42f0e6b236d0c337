"""heartbeat, leave, tick: leases, lost answers, what is due, and what stands in the way of nobody."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.support.sql import Row, Sql, Worker, promise, refused, step, timer, turn, wait
from troth.testing.clock import Clock

MINUTE = 60_000_000


def row(sql: Sql, task: str) -> Row:
    found = sql.task(task)
    assert found is not None
    return found


def done(answer: Row) -> Row:
    return {key: answer[key] for key in ("workers", "promises", "timers", "closed") if answer[key]}


# heartbeat


def test_a_heartbeat_keeps_the_lease(sql: Sql, worker: Worker, clock: Clock) -> None:
    sql.start("w", "f")
    worker.claim()
    for _ in range(3):
        clock.advance(timedelta(seconds=10))
        assert sql.heartbeat("w1", ["w"], [1]) == []
        assert done(sql.tick()) == {}
    assert row(sql, "w")["state"] == "claimed"


def test_it_names_news_and_losses(sql: Sql, worker: Worker) -> None:
    for each in ("calm", "news", "lost", "gone"):
        sql.start(each, "f")
    worker.claim()
    sql.cancel("news")
    worker.finish("gone", 1, 0)
    worker.advance(turn("lost", 1, 0, "release"))
    Worker(sql, "w2").claim()
    answers = sql.heartbeat("w1", ["calm", "news", "lost", "gone"], [1, 1, 1, 1])
    assert {each["task"]: each["answer"] for each in answers} == {
        "news": "news",
        "lost": "lost",
        "gone": "lost",
    }
    # until the worker says what it made of them
    assert worker.advance(turn("news", 1, 0))["news"]["answer"] == "news"
    assert [each["answer"] for each in sql.heartbeat("w1", ["calm", "news"], [1, 1])] == ["news"]
    assert worker.advance(turn("news", 1, 1))["news"]["answer"] == "ok"
    assert sql.heartbeat("w1", ["calm", "news"], [1, 1]) == []


def test_what_a_lost_claim_took_is_freed(sql: Sql, worker: Worker, clock: Clock) -> None:
    sql.start("lost", "f")
    sql.start("held", "f")
    worker.claim()
    assert sql.heartbeat("w1", ["held"], [1]) == []
    assert row(sql, "lost")["state"] == "claimed", "its claim may still be under way"
    clock.advance(timedelta(seconds=6))
    assert sql.heartbeat("w1", ["held"], [1]) == []
    assert (row(sql, "lost")["state"], row(sql, "lost")["attempts"]) == ("ready", 0)
    assert row(sql, "held")["state"] == "claimed"
    assert [each["epoch"] for each in worker.claim()] == [2]
    # held with another epoch is not held
    clock.advance(timedelta(seconds=6))
    answers = sql.heartbeat("w1", ["held", "lost"], [1, 1])
    assert answers == [{"task": "lost", "epoch": 1, "answer": "lost"}]
    assert row(sql, "lost")["state"] == "ready"


def test_it_says_that_a_task_waits_to_be_alone(sql: Sql, worker: Worker, clock: Clock) -> None:
    sql.start("w", "f")
    worker.claim()
    clock.advance(timedelta(seconds=16))
    sql.tick()
    second = Worker(sql, "w2")
    assert second.claim() == []
    assert sql.heartbeat("w2", [], []) == [{"task": None, "epoch": None, "answer": "alone"}]
    second.claim(alone=True)
    assert sql.heartbeat("w2", ["w"], [2]) == []


def test_the_dead_and_the_confused_are_told(sql: Sql, worker: Worker, clock: Clock) -> None:
    assert sql.heartbeat("nobody", ["w"], [1]) == [{"task": "w", "epoch": 1, "answer": "lost"}]
    for tasks, epochs in ((["w"], []), (None, []), ([], None)):
        assert refused(lambda t=tasks, e=epochs: sql.heartbeat("w1", t, e))[0] == "TR002"  # type: ignore[misc]
    worker.claim()
    clock.advance(timedelta(seconds=16))
    sql.tick()
    assert refused(lambda: sql.heartbeat("w1", [], []))[0] == "TR020"


def test_it_never_waits_for_the_workers_row(sql: Sql, worker: Worker, another: Callable[..., Sql]) -> None:
    worker.claim()
    holder = another()
    with holder.connection.transaction():
        holder.query("select from worker for update")
        sql.query("set lock_timeout = '1s'")
        assert sql.heartbeat("w1", [], []) == []


# leave


def test_leaving_gives_everything_back(sql: Sql, worker: Worker) -> None:
    for n in range(3):
        sql.start(f"w{n}", "f")
    worker.claim()
    assert sql.leave("w1") == 3
    assert sql.query("select distinct state, attempts, worker from task") == [
        {"state": "ready", "attempts": 0, "worker": None}
    ]
    assert refused(worker.claim)[0] == "TR020"
    assert (sql.leave("w1"), sql.leave("nobody")) == (0, 0)
    assert len(Worker(sql, "w2").claim()) == 3


# what tick does for workers


def test_a_silent_worker_is_dead_and_its_tasks_go_on(sql: Sql, worker: Worker, clock: Clock) -> None:
    sql.start("w", "f")
    worker.claim()
    clock.advance(timedelta(seconds=14))
    assert done(sql.tick()) == {}
    clock.advance(timedelta(seconds=2))
    assert done(sql.tick()) == {"workers": 1}
    assert (row(sql, "w")["state"], row(sql, "w")["lane"], row(sql, "w")["attempts"]) == ("ready", "f@1!", 1)
    assert worker.advance(turn("w", 1, 0))["w"]["answer"] == "fenced"
    assert sql.query("select died_at is null as alive, sleeping from worker") == [
        {"alive": False, "sleeping": False}
    ]


def test_a_task_that_kills_its_workers_is_parked(sql: Sql, clock: Clock) -> None:
    sql.start("w", "f")
    for n in range(1, 6):
        (claimed,) = Worker(sql, f"victim{n}").claim(alone=True)
        assert claimed["attempts"] == n
        clock.advance(timedelta(seconds=16))
        assert done(sql.tick()) == {"workers": 1}
    assert (row(sql, "w")["state"], row(sql, "w")["reason"]["code"]) == ("halted", "attempts")
    assert row(sql, "w")["reason"]["message"] == "5 workers died while they held it; the last was victim5"
    assert sql.resume("w", actor="ann")["answer"] == "resumed"
    assert (row(sql, "w")["attempts"], row(sql, "w")["lane"]) == (0, "f@1")


def test_the_dead_are_forgotten_after_a_day(sql: Sql, worker: Worker, clock: Clock) -> None:
    worker.claim()
    clock.advance(timedelta(hours=1))
    sql.tick()
    clock.advance(timedelta(days=2))
    sql.tick()
    assert sql.query("select * from worker") == []


def test_what_a_dead_worker_still_holds_is_taken_later(
    sql: Sql, worker: Worker, clock: Clock, another: Callable[..., Sql]
) -> None:
    sql.start("a", "f")
    sql.start("b", "f")
    worker.claim()
    clock.advance(timedelta(seconds=16))
    holder = another()
    with holder.connection.transaction():
        holder.query("select from task where id = 'a' for update")
        assert done(sql.tick()) == {"workers": 1}
        clock.advance(timedelta(minutes=10))
        assert done(sql.tick()) == {}
    assert done(sql.tick()) == {"workers": 1}, "it is not put off for what another held it"
    assert {row(sql, each)["state"] for each in "ab"} == {"ready"}


# what it does when time has come


def test_timeouts_settle_wake_and_fence(sql: Sql, worker: Worker, clock: Clock) -> None:
    sql.start("w", "f")
    sql.start("late", "f", timeout=timedelta(minutes=1))
    worker.claim()
    worker.advance(
        turn("w", 1, 0, "suspend"),
        operations=[
            promise("w", "a", timeout=MINUTE),
            promise("w", "b", timeout=MINUTE, default=7, has_default=True),
            promise("w", "c"),
        ],
    )
    clock.advance(timedelta(minutes=1))
    answer = sql.tick()
    assert done(answer) == {"promises": 3, "workers": 1}
    assert {each: sql.state(each) for each in ("w~a", "w~b", "w~c", "late")} == {
        "w~a": "timedout", "w~b": "resolved", "w~c": "pending", "late": "timedout",
    }  # fmt: skip
    assert sql.task("late") is None
    assert sql.one("select count(*) from promise where settled_at = timeout_at and settler = 'timeout'") == 3
    (claimed,) = Worker(sql, "w2").claim()
    assert [(e["operation"], e["state"], e["value"]) for e in claimed["journal"]] == [
        ("a", "timedout", None),
        ("b", "resolved", 7),
    ]


def test_timers_fire_in_their_order(sql: Sql, worker: Worker, clock: Clock) -> None:
    sql.start("w", "f")
    worker.claim()
    worker.advance(
        turn("w", 1, 0, "suspend"),
        timers=[
            timer("w", "late", 3 * MINUTE),
            timer("w", "b", 2 * MINUTE),
            timer("w", "a", 2 * MINUTE),
            timer("w", "never", 99 * MINUTE),
        ],
    )
    clock.advance(timedelta(minutes=5))
    assert done(sql.tick()) == {"timers": 3, "workers": 0} or done(sql.tick()) == {}
    assert sql.events("w") == [(1, "a", "resolved"), (2, "b", "resolved"), (3, "late", "resolved")]
    assert row(sql, "w")["state"] == "ready"


def test_a_timer_of_a_claimed_task_is_news(sql: Sql, worker: Worker, clock: Clock) -> None:
    sql.start("w", "f")
    worker.claim()
    worker.advance(
        turn("w", 1, 0, "suspend"), operations=[promise("w", "p")], timers=[timer("w", "t", 5_000_000)]
    )
    sql.resolve("w~p")
    worker.claim()
    clock.advance(timedelta(seconds=6))
    assert done(sql.tick()) == {"timers": 1}
    assert (row(sql, "w")["state"], row(sql, "w")["news"]) == ("claimed", True)


def test_a_halted_task_keeps_what_happens(sql: Sql, worker: Worker, clock: Clock) -> None:
    sql.start("w", "f")
    worker.claim()
    worker.advance(
        turn("w", 1, 0, "suspend"), operations=[promise("w", "p")], timers=[timer("w", "t", MINUTE)]
    )
    sql.halt("w")
    sql.resolve("w~p", 1)
    clock.advance(timedelta(minutes=1))
    sql.tick()
    assert (row(sql, "w")["state"], sql.events("w")) == (
        "halted",
        [(1, "p", "resolved"), (2, "t", "resolved")],
    )
    sql.resume("w")
    assert len(Worker(sql, "w2").claim()[0]["journal"]) == 2


def test_it_says_when_to_come_again(sql: Sql, clock: Clock) -> None:
    assert "next" not in sql.tick() or sql.tick()["next"] is None
    sql.create_promise("p", timeout=timedelta(minutes=1))
    sql.start("w", "f", delay=timedelta(seconds=30))
    assert 25_000_000 < sql.tick()["next"] <= 30_000_000
    clock.advance(timedelta(seconds=30))
    sql.tick()
    assert 25_000_000 < sql.tick()["next"] <= 30_000_000


def test_a_batch_is_bounded_and_the_rest_comes_next(sql: Sql, clock: Clock) -> None:
    for n in range(5):
        sql.create_promise(f"p{n}", timeout=timedelta(seconds=1))
        sql.start(f"w{n}", "f", delay=timedelta(seconds=1))
    clock.advance(timedelta(seconds=1))
    assert [done(sql.tick(2)) for _ in range(4)] == [
        {"promises": 2, "timers": 2}, {"promises": 2, "timers": 2}, {"promises": 1, "timers": 1}, {},
    ]  # fmt: skip


def test_two_tickers_do_each_thing_once(sql: Sql, clock: Clock, another: Callable[..., Sql]) -> None:
    for n in range(6):
        sql.create_promise(f"p{n}", timeout=timedelta(seconds=1))
    clock.advance(timedelta(seconds=1))
    other = another()
    with other.connection.transaction():
        assert other.tick(3)["promises"] == 3
        # the heads are taken: the second ticker neither waits nor repeats them
        sql.query("set lock_timeout = '1s'")
        assert sql.tick(6)["promises"] == 3
    assert sql.one("select count(*) from promise where state = 'timedout'") == 6


def test_one_poisonous_row_stops_nobody(sql: Sql, worker: Worker, clock: Clock) -> None:
    for each in ("good", "poison", "well"):
        sql.start(each, "f")
    worker.claim()
    worker.advance(
        *(turn(each, 1, 0, "suspend") for each in ("good", "poison", "well")),
        operations=[promise(each, "p", timeout=MINUTE) for each in ("good", "poison", "well")],
        timers=[timer(each, "t", MINUTE) for each in ("good", "poison", "well")],
    )
    # an event where the next one of this workflow must go: nothing can be appended to it any more
    sql.query(
        "insert into checkpoint (task, seq, operation, kind, issued, state, at, epoch) values ('poison', 1, 'x', 'step', 0, 'resolved', now(), 1)"  # noqa: E501
    )
    clock.advance(timedelta(minutes=1))
    for _ in range(2):
        sql.tick()
    assert {each: sql.events(each)[-1][1] for each in ("good", "well")} == {"good": "t", "well": "t"}
    assert {each: sql.state(f"{each}~p") for each in ("good", "poison", "well")} == {
        "good": "timedout", "poison": "pending", "well": "timedout",
    }  # fmt: skip
    sql.query("delete from checkpoint where task = 'poison'")
    sql.tick()
    assert sql.events("poison") == [(1, "p", "timedout"), (2, "t", "resolved")]


# what it does below ended workflows


def test_children_are_canceled_in_batches_and_their_awaiters_told(sql: Sql, worker: Worker) -> None:
    sql.start("w", "f")
    sql.start("x", "f")
    worker.claim()
    worker.advance(turn("w", 1, 0), turn("x", 1, 0), operations=[promise("w", f"p{n}") for n in range(5)])
    sql.resolve("w~p0", "kept")
    worker.advance(turn("x", 1, 0, "suspend"), operations=[wait("x", "its", "w~p4")])
    worker.advance(turn("w", 1, 1, "finish", state="resolved"))
    worker.finish("w", 1, 1)
    # p0 is settled, and passed in its place
    assert [done(sql.tick(2)) for _ in range(4)] == [{"closed": 1}, {"closed": 2}, {"closed": 1}, {}]
    assert sql.query(
        "select state, settler, count(*)::int as n from promise where parent = 'w' group by 1, 2 order by 1"
    ) == [
        {"state": "canceled", "settler": "workflow", "n": 4},
        {"state": "resolved", "settler": sql.one("select session_user::text"), "n": 1},
    ]
    assert (sql.events("x"), sql.query("select * from closing")) == ([(1, "its", "canceled")], [])


def test_a_child_past_its_timeout_times_out_and_is_not_canceled(
    sql: Sql, worker: Worker, clock: Clock
) -> None:
    sql.start("w", "f")
    worker.claim()
    worker.advance(turn("w", 1, 0), operations=[promise("w", each, timeout=MINUTE) for each in "abc"])
    worker.finish("w", 1, 0)
    clock.advance(timedelta(minutes=1))
    sql.tick(1)
    assert sorted(str(sql.state(f"w~{each}")) for each in "abc") == ["pending", "pending", "timedout"]
    sql.tick()
    assert {sql.state(f"w~{each}") for each in "abc"} == {"timedout"}
    sql.tick()
    assert sql.query("select * from closing") == []


def test_a_child_whose_awaiter_is_held_waits_its_turn(
    sql: Sql, worker: Worker, another: Callable[..., Sql]
) -> None:
    sql.start("w", "f")
    sql.start("x", "f")
    worker.claim()
    worker.advance(turn("w", 1, 0), operations=[promise("w", "a"), promise("w", "b")])
    worker.advance(turn("x", 1, 0, "suspend"), operations=[wait("x", "its", "w~a")])
    worker.finish("w", 1, 0)
    holder = another()
    with holder.connection.transaction():
        holder.query("select from task where id = 'x' for update")
        assert done(sql.tick()) == {"closed": 1}
    assert done(sql.tick()) == {"closed": 1}
    assert sql.events("x") == [(1, "its", "canceled")]


@pytest.mark.parametrize("limit", [0, -1, 10001, None])
def test_a_tick_that_is_none(sql: Sql, limit: int | None) -> None:
    assert refused(lambda: sql.tick(limit))[0] == "TR002"


def test_steps_of_a_workflow_that_timed_out_are_fenced(sql: Sql, worker: Worker, clock: Clock) -> None:
    sql.start("w", "f", timeout=timedelta(seconds=5))
    worker.claim()
    clock.advance(timedelta(seconds=5))
    sql.tick()
    assert worker.advance(turn("w", 1, 0), outcomes=[step("w", "s")])["w"]["answer"] == "fenced"
    assert sql.heartbeat("w1", ["w"], [1]) == [{"task": "w", "epoch": 1, "answer": "lost"}]
    assert sql.query("select * from checkpoint") == []


def sleeping(sql: Sql, name: str, **more: Any) -> Worker:
    worker = Worker(sql, name, **more)
    worker.claim(sleeping=True)
    return worker


def test_only_sleepers_that_know_the_lane_are_woken(sql: Sql, connect: Callable[..., Any]) -> None:
    listener = connect()
    for name in ("awake", "sleeps", "stranger"):
        listener.execute(f"listen {name}".encode())
    Worker(sql, "awake").claim()
    sleeping(sql, "sleeps")
    sleeping(sql, "stranger", lanes=("g",))
    sql.start("w", "f")
    sql.start("q", "f", queue="other")
    sql.start("d", "f", delay=timedelta(days=1))
    heard = [(each.channel, each.payload) for each in listener.notifies(timeout=0.3)]
    assert heard == [("sleeps", "")]
