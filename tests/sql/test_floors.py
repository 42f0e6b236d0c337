"""Under an old snapshot, what was worked off stays in the indexes: nobody goes through it each time, and nothing is missed.

Every look counts as a long one here, so that floors are in use from the first claim on.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import pytest

from tests.proof.plans.counting import Reads, reads
from tests.support.sql import Row, Sql, Worker, turn
from troth.testing.clock import Clock

DEAD: Final = 3000
SECOND: Final = timedelta(seconds=1)
ROUNDS: Final = 20
"""A floor is used for a second: one of so many claims comes within it, however busy the machine is."""


@pytest.fixture
def look(sql: Sql) -> None:
    sql.query(
        "create or replace function _long_look() returns interval language sql immutable as $$ select interval '-1 s' $$"
    )


def names(claimed: list[Row]) -> list[str]:
    return [row["task"] for row in claimed]


def worked_off(sql: Sql, worker: Worker, count: int = DEAD, **options: Any) -> None:
    """So many workflows come and go, and leave their dead entries behind."""
    for first in range(0, count, 1000):
        sql.start_many(
            [{"id": f"{worker.name}-{n}", "function": "f", **options} for n in range(first, first + 1000)]
        )
    while claimed := worker.claim(1000):
        worker.advance(*(turn(row["task"], 1, 0, "finish", state="resolved") for row in claimed))


def held(session: Sql) -> None:
    session.connection.autocommit = False
    session.query("set transaction isolation level repeatable read")
    session.query("select 1")


def fewest(sql: Sql, act: Callable[[], Any], table: str) -> int:
    """The entries of an index that the best of some calls went through; none is committed."""
    found: list[int] = []
    for _ in range(ROUNDS):
        with sql.connection.transaction(force_rollback=True):
            found.append(reads(sql, act).get(table, Reads(0, 0)).rows)
        act()
    return min(found)


def test_a_claim_begins_at_the_floor(
    sql: Sql, another: Callable[..., Sql], worker: Worker, clock: Clock, look: None
) -> None:
    snapshot = another()
    held(snapshot)
    worked_off(sql, worker)
    worked_off(sql, Worker(sql, "w2"), priority=5)
    clock.advance(2 * SECOND)
    sql.start_many([{"id": f"x{n}", "function": "f"} for n in range(ROUNDS)])
    assert fewest(sql, lambda: worker.claim(1), "task_ready") < 100
    snapshot.connection.rollback()


def test_what_comes_in_front_of_a_floor_is_claimed_after_the_next_full_look(
    sql: Sql, another: Callable[..., Sql], worker: Worker, clock: Clock, look: None
) -> None:
    slow = another()
    with slow.connection.transaction():
        slow.start("late", "f")
        clock.advance(10 * SECOND)
        sql.start("a", "f")
        assert names(worker.claim()) == ["a"]
        assert sql.one("select max(f.ready_at) > now() from worker w, unnest(w.floors) f")
    clock.advance(2 * SECOND)
    assert names(worker.claim()) == ["late"]


@pytest.mark.broken_on_purpose("by this clock, what is there was made in the future")
def test_a_clock_that_was_set_back_is_no_reason_to_wait(
    sql: Sql, worker: Worker, clock: Clock, look: None
) -> None:
    sql.start("a", "f")
    assert names(worker.claim()) == ["a"]
    clock.advance(timedelta(hours=-1))
    sql.start("b", "f")
    assert names(worker.claim()) == ["b"]


def test_the_urgent_goes_first_wherever_a_floor_is(
    sql: Sql, worker: Worker, clock: Clock, look: None
) -> None:
    order = [("c", 0), ("late", 5), ("a", -7), ("b", -7), ("last", 9)]
    for name, priority in order:
        sql.start(name, "f", priority=priority)
    sql.start("elsewhere", "g", priority=-32768)
    clock.advance(2 * SECOND)
    assert [names(worker.claim(1)) for _ in range(2)] == [["a"], ["b"]]
    for name, priority in (("urgent", -9), ("very", -32768), ("d", 0), ("least", 32767), ("e", -7)):
        sql.start(name, "f", priority=priority)
    assert [names(worker.claim(1)) for _ in range(9)] == [
        [each] for each in ("very", "urgent", "e", "c", "d", "late", "last", "least")
    ] + [[]]


def test_two_lanes_have_floors_of_their_own(sql: Sql, clock: Clock, look: None) -> None:
    both = Worker(sql, lanes=("f", "g"))
    sql.start_many([{"id": f"f{n}", "function": "f"} for n in range(4)])
    clock.advance(2 * SECOND)
    assert names(both.claim(2)) == ["f0", "f1"]
    sql.start("g0", "g")
    sql.start("f9", "f", priority=-1)
    assert names(both.claim(2)) == ["f9", "f2"]
    assert names(both.claim(9)) == ["f3", "g0"]


def test_a_dead_worker_is_looked_through_ever_less_often(sql: Sql, worker: Worker, clock: Clock) -> None:
    sql.start("a", "f")
    worker.claim()
    sql.leave("w1")
    clock.advance(4 * SECOND)
    sql.tick()
    again = sql.one("select search_at - died_at from worker where id = 'w1'")
    assert 2 * 4 * SECOND <= again < 2 * 60 * SECOND
    # a claim that was under way when its worker was marked
    sql.query("begin")
    sql.query(
        """update task set state = 'claimed', worker = 'w1', epoch = epoch + 1, ready_at = null, claimed_at = _clock(),
                  attempts = attempts + 1 where id = 'a'"""
    )
    assert sql.tick()["workers"] == 0
    clock.advance(again)
    assert sql.tick()["workers"] == 1
    sql.query("rollback")


def test_a_search_that_took_long_is_not_repeated_soon(sql: Sql, worker: Worker, clock: Clock) -> None:
    sql.start("a", "f")
    worker.claim()
    clock.advance(10 * SECOND)
    sql.query("update worker set search_at = _clock() + interval '1 minute'")
    sql.heartbeat("w1", [], [])
    assert sql.one("select state from task") == "claimed"
    clock.advance(61 * SECOND)
    sql.heartbeat("w1", [], [])
    assert sql.one("select state from task") == "ready"
