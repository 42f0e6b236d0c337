"""Faults that were found once, each with the case that showed it."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.support.sql import Sql, Worker, promise, refused, step, timer, turn
from troth.testing.clock import Clock

CROWD = 3000


@pytest.fixture
def crowd(sql: Sql) -> None:
    """Many workflows that wait, and as many that have ended."""
    sql.query(
        """insert into promise (id, state, function, queue, created_at)
           select 'c' || n, 'pending', 'f', 'default', clock_timestamp() - interval '1 hour' from generate_series(1, %s) n""",
        CROWD,
    )
    sql.query(
        """insert into promise (id, state, parent, created_at, open_at)
           select id || '~p', 'pending', id, created_at, created_at from promise where id like 'c%%'"""
    )
    sql.query(
        """insert into task (id, state, queue, lane, epoch, last_seq, children, started_at, last_at)
           select 'c' || n, 'suspended', 'default', 'f@1', 1, 1, 1, t, t
             from generate_series(1, %s) n, (select min(created_at) as t from promise) c""",
        CROWD,
    )
    sql.query(
        """insert into checkpoint (task, seq, operation, kind, issued, state, at, epoch)
           select id, 1, 's', 'step', 0, 'resolved', last_at, 1 from task"""
    )
    sql.query(
        "insert into wait (task, operation, kind, promise, issued) select id, 'p', 'promise', id || '~p', 1 from task"
    )


@pytest.mark.unrecorded("what is read is counted")
@pytest.mark.usefixtures("crowd")
def test_what_a_call_reads_does_not_grow_with_what_is_there(sql: Sql, worker: Worker) -> None:
    """The pinned plans reach into the helpers: an anti join there read a whole table at each call."""

    def read(call: Any) -> int:
        rows = "select sum(seq_tup_read + idx_tup_fetch)::integer from pg_stat_xact_user_tables"
        with sql.connection.transaction():
            before = sql.one(rows)
            call()
            return int(sql.one(rows) - before)

    # their IDs sort behind the others': a merge that reads as far as it must reads all
    sql.start_many([{"id": each, "function": "f"} for each in "xyz"])
    worker.claim()
    reads = {
        "creations": read(
            lambda: worker.advance(
                turn("x", 1, 0), operations=[promise("x", "p"), promise("x", "q", timeout=1)]
            )
        ),
        "timers": read(lambda: worker.advance(turn("y", 1, 0, "suspend"), timers=[timer("y", "t", 1)])),
        "ticks": read(sql.tick),
        "an end": read(lambda: worker.advance(turn("x", 1, 1, "finish", state="resolved"))),
        "its debts": read(sql.tick),
        "a beat": read(lambda: sql.heartbeat("w1", ["z"], [1])),
        "a tree": read(lambda: sql.tree("c7")),
    }
    assert sql.query("select id from promise where state = 'pending' and parent = 'x'") == []
    assert {what: rows for what, rows in reads.items() if rows > CROWD // 10} == {}


def test_a_family_that_stays_does_not_stop_a_purge(sql: Sql) -> None:
    """What was settled in families that still go on filled the batch, again and again."""
    for n in range(5):
        sql.create_promise(f"a{n}~early")
        sql.resolve(f"a{n}~early")
        sql.start(f"a{n}", "f")
    sql.start("b", "f")
    sql.cancel("b")
    assert sql.purge(timedelta(0), 2) == 1
    assert sql.state("b") is None
    assert sql.state("a0~early") == "resolved"


def test_what_was_issued_after_an_event_told_ahead_falls_with_it(sql: Sql, worker: Worker) -> None:
    """A step's end and a timer after it are told ahead; a decision came before both. The timer was issued after an event
    that stands elsewhere now: it would say in the journal what no replay can repeat."""
    sql.start("w", "f")
    worker.claim()
    worker.advance(turn("w", 1, 0), operations=[promise("w", "p")])
    sql.resolve("w~p")
    fired = {**step("w", "timer", 1), "kind": "timer", "micros": 0}
    answer = worker.advance(turn("w", 1, 0), outcomes=[step("w", "s"), fired])["w"]
    assert answer["answer"] == "news"
    assert sql.events("w") == [(1, "p", "resolved"), (2, "s", "resolved")]


def test_a_tick_waits_for_no_worker_that_is_long_dead(
    sql: Sql, clock: Clock, another: Callable[..., Sql]
) -> None:
    Worker(sql).claim()
    clock.advance(timedelta(minutes=1))
    sql.tick()
    clock.advance(timedelta(days=2))
    holder, ticker = another(), another()
    ticker.query("set lock_timeout = '1s'")
    with holder.connection.transaction():
        holder.query("select 1 from worker for update")
        ticker.tick()
    assert sql.one("select count(*) from worker") == 1
    ticker.tick()
    assert sql.one("select count(*) from worker") == 0


def test_a_call_of_long_ago_takes_no_news_away(sql: Sql, worker: Worker) -> None:
    """A turn was cut off, sent again and answered; then the first one arrives, and nobody hears what it is told."""
    sql.start("w", "f")
    worker.claim()

    def call() -> str:
        answer: str = worker.advance(turn("w", 1, 0), operations=[promise("w", "p")])["w"]["answer"]
        return answer

    assert call() == "ok"
    sql.resolve("w~p", 1)
    assert call() == "news"
    assert [each["answer"] for each in sql.heartbeat("w1", ["w"], [1])] == ["news"]
    assert worker.advance(turn("w", 1, 1))["w"]["answer"] == "ok"
    assert sql.heartbeat("w1", ["w"], [1]) == []


def test_json_null_and_sql_null_are_one_value(sql: Sql) -> None:
    """A client that sends `null` for what it leaves out was refused, or its repeated decision called a conflict."""
    null = Jsonb(None)
    started = sql.start("a", "f", args=null, tags=null, headers=null)
    assert (started["args"], "tags" in started, "args_headers" in started) == ({}, False, False)
    assert sql.start("a", "f")["answer"] == "attached"
    assert "tags" not in sql.create_promise("p", tags=null, headers=null)
    assert [each["id"] for each in sql.search(tags=null)] == ["a", "p"]

    assert "headers" not in sql.resolve("p", 1, headers=null)["promise"]
    assert sql.resolve("p", 1)["answer"] == "already"
    sql.create_promise("q")
    assert sql.reject("q", {"type": "E"})["answer"] == "settled"
    assert sql.reject("q", {"type": "E"}, headers=null)["answer"] == "already"


@pytest.mark.parametrize(
    "span",
    ["-12 mons 360 days", "-1 mon 30 days", "1 mon -30 days", "-1 days 24:00", "-1 mons 30 days 23:00"],
)
def test_a_duration_that_only_compares_as_none_is_negative(sql: Sql, span: str) -> None:
    """Months and days make up for each other in a comparison; from a given instant on they need not."""
    for call in (
        "select start('w', 'f', p_timeout => %s)",
        "select start('w', 'f', p_delay => %s)",
        "select create_promise('p', %s)",
        "select purge(%s)",
    ):
        state, message = refused(lambda call=call: sql.query(call, span))  # type: ignore[misc]
        assert (state, "is negative" in message) == ("TR002", True)
    for fine in ("1 day -01:00", "2 mons -1 day", "0", "1 mon 1 day 01:00", "-1 mon 31 days"):
        sql.query("select create_promise(%s, %s)", fine.replace(" ", "_"), fine)


@pytest.mark.parametrize(
    ("lanes", "pins"),
    [("{f}", "{null}"), ("{f}", "{g}"), ("{f}", "{f@x}"), ("{f}", "{f@0}"), ("{f}", "{f@99999999999}"), ("{f,null}", None),
     ("{{f,g},{h,i}}", None), ("{f@99999999999}", None)],
)  # fmt: skip
def test_lanes_and_pins_that_are_none_are_refused_at_the_door(sql: Sql, lanes: str, pins: str | None) -> None:
    sql.start("w", "f")
    call = "select * from claim('w1', '{default}', %s, 1, %s)"
    assert refused(lambda: sql.query(call, lanes, pins))[0] == "TR002"
    assert sql.query("select * from worker") == []
    (claimed,) = sql.query("select task from claim('w1', '{default}', '{f}', 1, p_sleeping => null)")
    assert (claimed["task"], sql.one("select sleeping from worker")) == ("w", False)


def test_an_imported_epoch_leaves_room_for_claims(sql: Sql, worker: Worker) -> None:
    """At the end of the integers it would have stopped every claim of its lane."""
    record = {"id": "i", "function": "f", "version": 1, "started_at": 1, "seed": 1}
    entry = {"seq": 1, "operation": "s", "kind": "step", "issued": 0, "state": "resolved", "at": 2}
    for epoch in (2**31 - 1, 10**9 + 1):
        state, message = refused(lambda epoch=epoch: sql.import_journal(record, [{**entry, "epoch": epoch}]))  # type: ignore[misc]
        assert (state, str(epoch) in message) == ("TR002", True)
    sql.import_journal(record, [{**entry, "epoch": 10**9}])
    sql.resume("i")
    assert [each["epoch"] for each in worker.claim()] == [10**9 + 1]


def test_a_decision_knows_only_what_it_has_locked(sql: Sql, another: Callable[..., Sql]) -> None:
    """A promise that appeared between the lock and the look of a decision was settled without being held: another's outcome won,
    and both were told that theirs had. (Whoever came to wait for it in that moment would not have been told.)"""
    late, early = another(), another()
    sql.query(
        """create or replace function _clock() returns timestamptz language plpgsql volatile as $$
           begin perform pg_advisory_xact_lock_shared(77); return clock_timestamp(); end $$"""
    )
    early.query("select pg_advisory_lock(77)")
    pid = late.one("select pg_backend_pid()")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(late.resolve, "p", 3)
        stuck = "select count(*) from pg_locks where pid = %s and locktype = 'advisory' and not granted"
        until = time.monotonic() + 60
        while not answer.done() and not sql.one(stuck, pid) and time.monotonic() < until:
            time.sleep(0.01)
        early.create_promise("p")
        with early.connection.transaction():
            assert early.resolve("p", 1)["answer"] == "settled"
            early.query("select pg_advisory_unlock(77)")
            waits = (
                "select count(*) from pg_locks where pid = %s and locktype = 'transactionid' and not granted"
            )
            while not answer.done() and not sql.one(waits, pid) and time.monotonic() < until:
                time.sleep(0.01)
        assert answer.result(60)["answer"] == "unknown"
    assert [each["value"] for each in sql.get(["p"])] == [1]


def test_an_operation_named_twice_in_a_call_is_refused_at_the_door(sql: Sql, worker: Worker) -> None:
    for each in ("w", "v"):
        sql.start(each, "f")
    worker.claim()
    suspend = turn("w", 1, 0, "suspend")
    for call in (
        lambda: worker.advance(suspend, outcomes=[step("w", "s"), step("w", "s")]),
        lambda: worker.advance(suspend, operations=[promise("w", "p"), promise("w", "p")]),
        lambda: worker.advance(suspend, timers=[timer("w", "t", 5), timer("w", "t", 6)]),
    ):
        state, message = refused(call)
        assert (state, "twice" in message) == ("TR002", True)
    answers = worker.advance(suspend, turn("v", 1, 0), operations=[promise("w", "p"), promise("v", "p")])
    assert [each["answer"] for each in answers.values()] == ["ok", "ok"]
