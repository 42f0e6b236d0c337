"""claim: which tasks, in which order, how many, with what; and who is refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.support.sql import Row, Sql, Worker, promise, refused, step, turn
from troth.testing.clock import Clock


def names(claimed: list[Row]) -> list[str]:
    return [row["task"] for row in claimed]


def test_a_first_claim_tells_all_that_a_run_needs(sql: Sql, worker: Worker) -> None:
    sql.start("w", "f", {"x": [1]}, tags={"t": "1"}, timeout=timedelta(days=1))
    (row,) = worker.claim()
    assert {key: row[key] for key in ("task", "epoch", "function", "version", "queue", "args", "tags", "attempts", "last_seq", "journal")} == {  # noqa: E501
        "task": "w", "epoch": 1, "function": "f", "version": 1, "queue": "default", "args": {"x": [1]}, "tags": {"t": "1"},
        "attempts": 1, "last_seq": 0, "journal": [],
    }  # fmt: skip
    assert row["started_at"] <= row["now"] < row["timeout_at"]
    assert 0 <= row["seed"] < 2**53
    task = sql.task("w")
    assert task is not None
    assert (task["state"], task["worker"], task["lane"], task["seed"]) == (
        "claimed",
        "w1",
        "f@1",
        row["seed"],
    )
    assert sql.query("select id, queues, lanes from worker") == [
        {"id": "w1", "queues": ["default"], "lanes": ["f", "f@1"]}
    ]


def test_started_at_and_seed_are_those_of_the_first_claim(sql: Sql, worker: Worker) -> None:
    sql.start("w", "f")
    (first,) = worker.claim()
    worker.advance(turn("w", 1, 0, "release"))
    (second,) = worker.claim()
    assert (second["epoch"], second["attempts"]) == (2, 1)
    assert (second["started_at"], second["seed"]) == (first["started_at"], first["seed"])


def test_urgent_before_old_before_new(sql: Sql, worker: Worker) -> None:
    for name, priority in (("old", 0), ("new", 0), ("late", 5), ("urgent", -1)):
        sql.start(name, "f", priority=priority)
    assert [names(worker.claim(1)) for _ in range(5)] == [["urgent"], ["old"], ["new"], ["late"], []]


def test_the_order_is_one_over_all_lanes(sql: Sql) -> None:
    worker = Worker(sql, lanes=("f", "g", "h"))
    for n, function in enumerate("fghgfh"):
        sql.start(f"w{n}", function)
    assert sorted(names(worker.claim(4))) == ["w0", "w1", "w2", "w3"]
    assert sorted(names(worker.claim(4))) == ["w4", "w5"]


def test_only_known_queues_and_lanes(sql: Sql, worker: Worker) -> None:
    sql.start("unknown", "g")
    sql.start("elsewhere", "f", queue="other")
    assert worker.claim() == []
    assert names(worker.claim(queues=["other", "default"])) == ["elsewhere"]
    assert sql.one("select attempts from task where id = 'unknown'") == 0
    assert worker.claim(queues=[]) == worker.claim(lanes=[]) == []


def test_the_first_claim_pins_the_version(sql: Sql) -> None:
    sql.start("a", "f")
    sql.start("b", "f")
    old, new = Worker(sql, "old"), Worker(sql, "new")
    lanes: dict[str, Any] = {"lanes": ["f", "f@2"], "pins": ["f@2", "f@2"]}
    assert [(row["task"], row["version"]) for row in new.claim(1, **lanes)] == [("a", 2)]
    assert [(row["task"], row["version"]) for row in old.claim()] == [("b", 1)]
    new.advance(turn("a", 1, 0, "release"))
    old.advance(turn("b", 1, 0, "release"))
    assert names(old.claim()) == ["b"]
    assert [(row["task"], row["version"]) for row in new.claim(**lanes)] == [("a", 2)]
    old.finish("b", 2, 0)
    assert sql.get(["b"])[0]["version"] == 1
    assert sql.get(["a"])[0]["version"] == 2


def test_a_task_past_its_timeout_is_not_claimed(sql: Sql, worker: Worker, clock: Clock) -> None:
    sql.start("late", "f", timeout=timedelta(seconds=1))
    sql.start("w", "f")
    clock.advance(timedelta(seconds=1))
    assert names(worker.claim()) == ["w"]


def test_what_another_holds_is_passed_over(sql: Sql, worker: Worker, another: Callable[..., Sql]) -> None:
    for n in range(4):
        sql.start(f"w{n}", "f")
    holder = another()
    with holder.connection.transaction():
        holder.query("select from task where id in ('w0', 'w2') for update")
        assert sorted(names(worker.claim(3))) == ["w1", "w3"]
    assert sorted(names(worker.claim(3))) == ["w0", "w2"]


def test_the_journal_comes_with_it_and_is_bounded(sql: Sql, worker: Worker) -> None:
    sql.start("w", "f")
    worker.claim()
    worker.advance(turn("w", 1, 0), outcomes=[step("w", f"s{n}", n, value=n) for n in range(5)])
    worker.advance(turn("w", 1, 5, "release"))
    (whole,) = worker.claim()
    assert [entry["value"] for entry in whole["journal"]] == [0, 1, 2, 3, 4]
    worker.advance(turn("w", 2, 5, "release"))
    (bounded,) = worker.claim(entries=2)
    assert ([entry["seq"] for entry in bounded["journal"]], bounded["last_seq"]) == ([1, 2], 5)
    # `seen` is the last one delivered, not the last there is
    answer = worker.advance(turn("w", 3, 2, "finish", state="resolved"))["w"]
    assert (answer["answer"], [entry["seq"] for entry in answer["entries"]]) == ("news", [3, 4, 5])


def suspended(sql: Sql, worker: Worker, **more: Any) -> None:
    """The workflow w, suspended after two steps, and then told of its promise."""
    sql.start("w", "f")
    worker.claim()
    worker.advance(turn("w", 1, 0), outcomes=[step("w", f"s{n}", n) for n in range(2)])
    worker.advance(turn("w", 1, 2, "suspend", **more), operations=[promise("w", "p", 2)])
    sql.resolve("w~p")


def test_who_keeps_the_code_gets_what_came_since(sql: Sql, worker: Worker) -> None:
    suspended(sql, worker, keep=True)
    assert sql.query("select kept_by, asked, worker from task") == [
        {"kept_by": "w1", "asked": 2, "worker": None}
    ]
    (row,) = worker.claim()
    assert (row["asked"], [entry["operation"] for entry in row["journal"]]) == (2, ["p"])
    # it was not told: the same again
    worker.advance(turn("w", 2, 3, "release"))
    assert [entry["seq"] for entry in worker.claim()[0]["journal"]] == [3]


def test_who_does_not_keep_the_code_gets_the_whole_journal(sql: Sql, worker: Worker) -> None:
    suspended(sql, worker)
    (row,) = worker.claim()
    assert (row["asked"], len(row["journal"])) == (2, 3)


def test_a_task_kept_by_one_and_claimed_by_another_is_kept_by_nobody(sql: Sql, worker: Worker) -> None:
    suspended(sql, worker, keep=True)
    second = Worker(sql, "w2")
    (row,) = second.claim()
    assert (row["asked"], len(row["journal"])) == (2, 3)
    assert sql.one("select kept_by from task") is None
    # nor by the first, whose code stands before what the other did
    second.advance(turn("w", 2, 3, "release"), outcomes=[step("w", "t", 3)])
    assert len(worker.claim()[0]["journal"]) == 4
    # a suspension that keeps nothing takes the mark away
    worker.advance(turn("w", 3, 4, "suspend", keep=True), operations=[promise("w", "q", 4)])
    sql.resolve("w~q")
    worker.claim()
    worker.advance(turn("w", 4, 5, "suspend"), operations=[promise("w", "r", 5)])
    assert sql.query("select kept_by, asked from task") == [{"kept_by": None, "asked": 5}]


def test_before_the_first_suspension_nothing_is_known_to_be_asked(sql: Sql, worker: Worker) -> None:
    sql.start("w", "f")
    assert worker.claim()[0]["asked"] == -1


def dead(sql: Sql, clock: Clock) -> None:
    """All workers fall silent and are buried."""
    clock.advance(timedelta(seconds=16))
    sql.tick()


def test_a_task_whose_holder_died_goes_alone(sql: Sql, worker: Worker, clock: Clock) -> None:
    for n in range(3):
        sql.start(f"w{n}", "f")
    worker.claim()
    dead(sql, clock)
    sql.start("innocent", "f")
    crowd, single = Worker(sql, "crowd"), Worker(sql, "single")
    assert names(crowd.claim()) == ["innocent"]
    assert [(row["task"], row["attempts"], row["version"]) for row in single.claim(alone=True)] == [
        ("w0", 2, 1)
    ]
    assert sql.one("select lane from task where id = 'w0'") == "f@1"
    assert len(single.claim(alone=True)) == 1
    assert single.finish("w0", 2, 0) == "ok"


def test_alone_asks_for_the_crowd_when_nobody_died(sql: Sql, worker: Worker) -> None:
    sql.start("a", "f")
    sql.start("b", "f")
    assert sorted(names(worker.claim(alone=True))) == ["a", "b"]


def test_a_dead_worker_is_refused_for_ever(sql: Sql, worker: Worker, clock: Clock) -> None:
    worker.claim()
    dead(sql, clock)
    state, message = refused(worker.claim)
    assert state == "TR020"
    assert message.startswith("worker w1 was taken for dead at ")
    assert Worker(sql, "w2").claim() == []


def test_the_worker_says_whether_it_sleeps_and_what_it_knows(sql: Sql, worker: Worker) -> None:
    worker.claim(sleeping=True, info={"host": "h"}, lease=timedelta(seconds=20))
    (row,) = sql.query("select sleeping, info, lease, lanes from worker")
    assert row == {
        "sleeping": True,
        "info": {"host": "h"},
        "lease": timedelta(seconds=20),
        "lanes": ["f", "f@1"],
    }
    worker.claim(lanes=["g"], queues=["q"])
    assert sql.query("select sleeping, lanes, queues from worker") == [
        {"sleeping": False, "lanes": ["g"], "queues": ["q"]}
    ]


def test_a_worker_whose_row_is_held_claims_all_the_same(
    sql: Sql, worker: Worker, another: Callable[..., Sql]
) -> None:
    worker.claim()
    sql.start("w", "f")
    holder = another()
    with holder.connection.transaction():
        holder.query("select from worker for update")
        assert names(worker.claim(sleeping=True)) == ["w"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"worker": None},
        {"worker": ""},
        {"worker": "w 1"},
        {"worker": "w" * 64},
        {"limit": 0},
        {"limit": 10001},
        {"limit": None},
        {"queues": None},
        {"lanes": None},
        {"pins": ["f@1", "g@1"]},
        {"lease": timedelta(milliseconds=999)},
        {"lease": timedelta(days=2)},
        {"lease": None},
    ],
    ids=str,
)
def test_a_claim_that_is_none(sql: Sql, wrong: dict[str, Any]) -> None:
    sql.start("w", "f")
    good: dict[str, Any] = {"worker": "w1", "queues": ["default"], "lanes": ["f"], "limit": 1}
    assert refused(lambda: sql.call("claim", **(good | wrong)))[0] == "TR002"
    assert sql.one("select epoch from task") == 0
