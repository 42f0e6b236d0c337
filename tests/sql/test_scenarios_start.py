"""Scenarios of starting, claiming and crashing, as far as SQL alone decides them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.support.sql import Sql, Worker, promise, refused, step, turn
from troth.testing.clock import Clock


def test_s01_a_hundred_starts_of_one_id_are_one(
    sql: Sql, worker: Worker, another: Callable[..., Sql]
) -> None:
    sessions = [another() for _ in range(10)]
    with ThreadPoolExecutor(10) as pool:
        answers = [
            each
            for part in pool.map(lambda s: [s.start("w", "f", {"x": 1}) for _ in range(10)], sessions)
            for each in part
        ]
    assert Counter(each["answer"] for each in answers) == {"created": 1, "attached": 99}
    assert len({each["created_at"] for each in answers}) == 1
    assert len(worker.claim()) == 1
    worker.finish("w", 1, 0, "once")
    assert {session.start("w", "f", {"x": 1})["value"] for session in sessions} == {"once"}


def test_s02_another_function_or_other_arguments_conflict_and_nothing_runs(sql: Sql, worker: Worker) -> None:
    sql.start("w", "f", {"x": 1})
    assert refused(lambda: sql.start("w", "g", {"x": 1}))[0] == "TR010"
    assert refused(lambda: sql.start("w", "f", {"x": 2}))[0] == "TR010"
    assert [
        (each["task"], each["function"], each["args"]) for each in Worker(sql, lanes=("f", "g")).claim()
    ] == [("w", "f", {"x": 1})]


def test_s03_s4_a_start_after_the_end_shows_the_end(sql: Sql, worker: Worker) -> None:
    sql.start("good", "f")
    sql.start("bad", "f")
    worker.claim()
    worker.finish("good", 1, 0, 5)
    worker.advance(turn("bad", 1, 0, "finish", state="rejected", error={"type": "E", "message": "m"}))
    assert sql.start("good", "f")["value"] == 5
    assert sql.start("bad", "f")["error"] == {"type": "E", "message": "m"}
    assert worker.claim() == []


def listening(connect: Callable[..., Any], sql: Sql) -> psycopg.Connection[Any]:
    """The connection of a worker that sleeps."""
    listener: psycopg.Connection[Any] = connect()
    listener.execute("listen w1")
    Worker(sql).claim(sleeping=True)
    return listener


def heard_so_far(listener: psycopg.Connection[Any], session: Sql) -> int:
    """How often the worker was notified: what was sent before is heard before a mark that is sent now."""
    session.query("select pg_notify('w1', 'mark')")
    payloads: list[str] = []
    while "mark" not in payloads:
        heard = [each.payload for each in listener.notifies(timeout=60, stop_after=1)]
        assert heard, "the mark did not arrive"
        payloads += heard
    assert set(payloads) <= {"", "mark"}
    return payloads.count("")


def test_s05_a_start_that_is_rolled_back_leaves_no_trace_and_wakes_nobody(
    sql: Sql, connect: Callable[..., Any], another: Callable[..., Sql]
) -> None:
    listener, caller = listening(connect, sql), another()
    with caller.connection.transaction(force_rollback=True):
        assert caller.start("w", "f")["answer"] == "created"
    assert (sql.get(["w"]), sql.task("w")) == ([], None)
    assert heard_so_far(listener, caller) == 0


def test_s06_a_start_is_seen_and_heard_when_it_is_committed(
    sql: Sql, worker: Worker, connect: Callable[..., Any], another: Callable[..., Sql]
) -> None:
    listener, caller = listening(connect, sql), another()
    with caller.connection.transaction():
        for n in range(50):
            caller.start(f"w{n}", "f")
        assert (worker.claim(sleeping=True), heard_so_far(listener, sql)) == ([], 0)
    assert heard_so_far(listener, sql) == 1, "once per commit"
    assert len(worker.claim(100)) == 50


IDS_WELL = [
    "a",
    "A",
    "0",
    "-",
    "_",
    "~",
    "!",
    "$",
    "&",
    "'",
    "(",
    ")",
    "*",
    "+",
    ",",
    ";",
    "=",
    ":",
    "@",
    "...",
    "x" * 128,
]
IDS_ILL = [
    "",
    ".",
    "..",
    "a/b",
    "a%2Fb",
    " a",
    "a ",
    "\t",
    "a\n",
    "é",
    "😀",
    "שלום",
    "a\u200bb",
    "x" * 1024,
    '"',
    "\\",
    "a?b",
    "a#b",
    "{",
    "|",
    "^",
    "`",
    "<",
]


@pytest.mark.parametrize("name", [each for each in IDS_WELL if each != "~"])
def test_s07_an_id_comes_back_byte_by_byte(sql: Sql, worker: Worker, name: str) -> None:
    assert sql.start(name, "f")["id"] == name
    assert [each["id"] for each in sql.get([name])] == [name]
    assert [each["task"] for each in worker.claim()] == [name]
    worker.wait_for(name)
    assert sql.resolve(f"{name}~approval", 1)["answer"] == "settled"
    assert [each["id"] for each in sql.tree(name)] == [name, f"{name}~approval"]


@pytest.mark.parametrize("name", IDS_ILL, ids=repr)
def test_s07_or_is_refused(sql: Sql, name: str) -> None:
    assert refused(lambda: sql.start(name, "f"))[0] == "TR001"
    assert refused(lambda: sql.create_promise(name))[0] == "TR001"
    assert sql.resolve(name)["answer"] == "unknown"


def test_s08_ten_thousand_starts_in_one_call(sql: Sql) -> None:
    sql.start("w-5000", "g")
    answers = sql.start_many([{"id": f"w-{n}", "function": "f"} for n in range(10_000)])
    assert Counter(each["answer"] for each in answers) == {"created": 9_999, "conflict": 1}
    assert answers[5000]["function"] == "g"
    assert [each["id"] for each in answers] == [f"w-{n}" for n in range(10_000)]
    assert sql.one("select count(*) from task") == 10_000


def test_s12_a_promise_made_before_the_crash_is_the_same_one_after_it(
    sql: Sql, worker: Worker, clock: Clock
) -> None:
    sql.start("w", "f")
    worker.claim()
    worker.advance(turn("w", 1, 0), operations=[promise("w", "approval")])
    clock.advance(timedelta(seconds=16))
    sql.tick()
    second = Worker(sql, "w2")
    (claimed,) = second.claim(alone=True)
    assert claimed["journal"] == []
    assert (
        second.advance(turn("w", 2, 0, "suspend"), operations=[promise("w", "approval")])["w"]["answer"]
        == "ok"
    )
    assert [each["id"] for each in sql.tree("w")] == ["w", "w~approval"]
    assert sql.resolve("w~approval", 1)["answer"] == "settled"
    assert sql.events("w") == [(1, "approval", "resolved")]


def test_s14_s13_a_settled_wait_needs_no_second_settle_and_any_worker(
    sql: Sql, worker: Worker, clock: Clock
) -> None:
    sql.start("w", "f")
    worker.claim()
    worker.wait_for("w")
    assert sql.query("select worker, claimed_at from task") == [{"worker": None, "claimed_at": None}]
    sql.resolve("w~approval", "yes")
    clock.advance(timedelta(days=30))
    sql.tick()
    (claimed,) = Worker(sql, "w2").claim()
    assert claimed["journal"][0]["value"] == "yes"


def test_s17_every_late_write_is_fenced(sql: Sql, worker: Worker, clock: Clock) -> None:
    sql.start("w", "f")
    worker.claim()
    clock.advance(timedelta(seconds=16))
    sql.tick()
    second = Worker(sql, "w2")
    second.claim(alone=True)

    def late() -> set[str]:
        return {
            worker.advance(turn("w", 1, 0), outcomes=[step("w", "s", value="late")])["w"]["answer"],
            worker.advance(turn("w", 1, 0, "suspend"), operations=[promise("w", "p")])["w"]["answer"],
            worker.advance(turn("w", 1, 0, "halt"))["w"]["answer"],
            worker.advance(turn("w", 1, 0, "release"))["w"]["answer"],
            worker.finish("w", 1, 0, "late"),
        }

    assert late() == {"fenced"}
    assert refused(lambda: sql.heartbeat("w1", ["w"], [1]))[0] == "TR020"
    assert refused(worker.claim)[0] == "TR020"
    assert second.finish("w", 2, 0, "in time") == "ok"
    assert late() == {"fenced"}
    assert (sql.get(["w"])[0]["value"], sql.query("select * from checkpoint")) == ("in time", [])


def test_s18_two_that_recover_at_once_claim_it_once(
    sql: Sql, worker: Worker, clock: Clock, another: Callable[..., Sql]
) -> None:
    for n in range(20):
        sql.start(f"w{n}", "f")
    worker.claim(20)
    clock.advance(timedelta(seconds=16))
    sessions = [another() for _ in range(4)]

    def recover(n: int) -> list[str]:
        sessions[n].tick()
        mine = Worker(sessions[n], f"r{n}")
        return [row["task"] for _ in range(20) for row in mine.claim(1, alone=True)]

    with ThreadPoolExecutor(4) as pool:
        claimed = [task for part in pool.map(recover, range(4)) for task in part]
    assert len(claimed) == len(set(claimed))
    claimed += [row["task"] for _ in range(20) for row in Worker(sql, "last").claim(1, alone=True)]
    assert sorted(claimed) == sorted(f"w{n}" for n in range(20))
    assert sql.query("select distinct epoch, attempts from task") == [{"epoch": 2, "attempts": 2}]


def test_s82_what_nobody_here_knows_burns_nothing(sql: Sql, worker: Worker) -> None:
    sql.start("w", "unknown")
    for _ in range(10):
        assert worker.claim() == []
    task = sql.task("w")
    assert task is not None
    assert (task["state"], task["attempts"], task["epoch"]) == ("ready", 0, 0)
    assert sql.one("select known from queues") is False
    assert len(Worker(sql, "knows", lanes=("unknown",)).claim()) == 1


def test_s88_in_the_callers_transaction_and_away_with_it(
    sql: Sql, worker: Worker, another: Callable[..., Sql]
) -> None:
    sql.query("create temporary table orders (id text)")
    sql.start("w", "f")
    worker.claim()
    worker.wait_for("w")
    with sql.connection.transaction(force_rollback=True):
        sql.query("insert into orders values ('42')")
        assert sql.resolve("w~approval", 1)["answer"] == "settled"
        assert sql.start("order-42", "f")["answer"] == "created"
        assert sql.create_promise("p")["answer"] == "created"
    assert sql.query("select * from orders") == []
    assert (sql.state("w~approval"), sql.state("order-42"), sql.state("p")) == ("pending", None, None)
    assert (sql.events("w"), sql.query("select * from audit")) == ([], [])


def test_s91_a_lost_answer_loses_nothing(sql: Sql, worker: Worker, clock: Clock) -> None:
    sql.start("w", "f")
    worker.claim()  # its answer is lost
    clock.advance(timedelta(seconds=6))
    sql.heartbeat("w1", [], [])
    (claimed,) = worker.claim()
    assert (claimed["epoch"], claimed["attempts"]) == (2, 1)

    def call() -> dict[str, Any]:
        return worker.advance(
            turn("w", 2, 0, "suspend"), outcomes=[step("w", "s", value=1)], operations=[promise("w", "p", 1)]
        )["w"]

    call()  # its answer is lost
    assert call()["answer"] == "fenced"
    assert sql.events("w") == [(1, "s", "resolved")]
    assert sql.one("select count(*) from wait") == 1
    sql.resolve("w~p")
    assert [each["seq"] for each in worker.claim()[0]["journal"]] == [1, 2]
    worker.finish("w", 3, 2)  # its answer is lost
    assert worker.finish("w", 3, 2) == "fenced"
    assert sql.state("w") == "resolved"


@pytest.mark.unrecorded("what is read is counted")
def test_s94_work_that_is_not_for_us_costs_a_claim_nothing(sql: Sql, worker: Worker, dsn: str) -> None:
    """By pages read, which no machine makes slower: a hundred thousand strangers in our queue, and as many not yet due."""
    few = _pages_of_a_claim(sql, worker, "before")
    sql.query(
        """with made as (
             insert into promise (id, function, queue, created_at)
             select format('x%s', n), case when n % 2 = 0 then format('unknown%s', n % 10) else 'f' end, 'default', now()
               from generate_series(1, 100000) n returning *)
           insert into task (id, state, queue, lane, ready_at)
           select id, case when function = 'f' then 'suspended' else 'ready' end, 'default', function,
                  case when function <> 'f' then created_at end from made"""
    )
    sql.query(
        "insert into wait (task, operation, kind, fire_at, issued) select id, '~delay', 'delay', now() + interval '1 day', 0 from task where state = 'suspended'"  # noqa: E501
    )
    sql.query("analyze task, promise, wait")
    many = _pages_of_a_claim(sql, worker, "after")
    assert many < 3 * few, (few, many)  # deeper indexes; to look at the strangers takes thousands


def _pages_of_a_claim(sql: Sql, worker: Worker, name: str) -> int:
    for n in range(10):
        sql.start(f"{name}{n}", "f")
    pages = (
        "select (sum(heap_blks_read + heap_blks_hit + coalesce(idx_blks_read, 0) + coalesce(idx_blks_hit, 0)))::int "
        "from pg_statio_user_tables where schemaname = 'troth'"
    )
    sql.query("select pg_stat_force_next_flush()")
    before = sql.one(pages)
    assert len(worker.claim(10)) == 10
    sql.query("select pg_stat_force_next_flush()")
    return int(sql.one(pages)) - int(before)


def test_s95_one_that_kills_its_process_takes_no_innocents_with_it(sql: Sql, clock: Clock) -> None:
    for n in range(200):
        sql.start(f"w{n:03}", "f")
    finished: set[str] = set()
    for life in range(20):
        worker = Worker(sql, f"life{life}")
        while claimed := worker.claim(50, alone=True):
            if any(row["task"] == "w137" for row in claimed):
                clock.advance(timedelta(seconds=16))  # the process dies with all it holds
                sql.tick()
                break
            answers = worker.advance(
                *(turn(row["task"], row["epoch"], 0, "finish", state="resolved") for row in claimed)
            )
            finished |= {task for task, answer in answers.items() if answer["answer"] == "ok"}
    assert len(finished) == 199
    assert [
        (each["id"], each["state"], each["reason"]["code"]) for each in sql.query("select * from task")
    ] == [("w137", "halted", "attempts")]


def test_s97_a_codec_with_a_nonce_starts_the_same_workflow(sql: Sql) -> None:
    digest = bytes(range(32))
    sealed = [{"sealed": "nonce-1"}, {"sealed": "nonce-2"}]
    assert [
        sql.start("w", "f", each, headers={"codec": "aes"}, digest=digest)["answer"] for each in sealed
    ] == ["created", "attached"]
    assert (
        refused(lambda: sql.start("w", "f", sealed[0], headers={"codec": "aes"}, digest=bytes(32)))[0]
        == "TR010"
    )
    (again,) = sql.start_many(
        [{"id": "w", "function": "f", "args": sealed[1], "headers": {"codec": "aes"}, "digest": digest.hex()}]
    )
    assert again["answer"] == "attached"
