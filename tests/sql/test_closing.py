"""Who is owed a cancel, and how tick works that off: politely, by force, in batches, past what others hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from tests.support.sql import Row, Sql, Worker, call, promise, start, step, turn, wait

CANCELED = {"type": "canceled", "message": "m"}


@pytest.fixture
def w(sql: Sql, worker: Worker) -> Worker:
    """A worker that holds the task `w`, epoch 1, nothing seen."""
    sql.start("w", "f")
    worker.claim()
    return worker


def states(sql: Sql) -> dict[str, str]:
    return {each["id"]: each["state"] for each in sql.query("select id, state from promise order by id")}


def closing(sql: Sql) -> list[Row]:
    return sql.query("select id, itself, force, after from closing order by id")


def owed(*ids: str, itself: bool = False, force: bool = False, after: str | None = None) -> list[Row]:
    return [{"id": each, "itself": itself, "force": force, "after": after} for each in ids]


def begin(sql: Sql, w: Worker, children: Iterable[str]) -> None:
    """Children of `w` whose code has begun, and waits for a promise of its own."""
    names = {each: f"w~{each}" for each in children}
    w.advance(turn("w", 1, 0), operations=[call("w", each) for each in names])
    assert {each["task"] for each in w.claim(1000)} == set(names.values())
    answers = w.advance(
        *(turn(each, 1, 0, "suspend") for each in names.values()),
        operations=[promise(each, "p") for each in names.values()],
    )
    assert {each["answer"] for each in answers.values()} == {"ok"}


def drain(sql: Sql, limit: int = 1000) -> list[int]:
    """Tick as long as there is something to close; how much each did."""
    counts = []
    while closing(sql):
        counts.append(sql.tick(limit)["closed"])
        assert len(counts) < 100
    return counts


# who is owed one


def test_only_who_leaves_something_open_owes(sql: Sql, w: Worker) -> None:
    w.advance(turn("w", 1, 0), operations=[call("w", "c"), promise("w", "p"), start("w", "s")])
    w.claim(1)
    w.finish("w~c", 1, 0)
    sql.resolve("w~p")
    assert w.finish("w", 1, 2) == "ok"
    assert closing(sql) == []


def test_by_what_it_is_each_child_has_its_end(sql: Sql, w: Worker) -> None:
    begin(sql, w, ["begun"])
    w.advance(
        turn("w", 1, 0),
        operations=[
            call("w", "never-ran"),
            call("w", "later", delay=10**9),
            promise("w", "latent"),
            start("w", "free"),
        ],
    )
    w.finish("w", 1, 0)
    assert closing(sql) == owed("w")
    assert sql.tick()["closed"] == 4
    assert {key: value for key, value in states(sql).items() if key != "w~begun~p"} == {
        "w": "resolved", "w~begun": "pending", "w~never-ran": "canceled", "w~later": "canceled", "w~latent": "canceled",
        "w~free": "pending",
    }  # fmt: skip
    assert sql.events("w~begun") == [(1, "~cancel", "canceled")]
    assert sql.query("select id, state from task order by id") == [
        {"id": "w~begun", "state": "ready"}, {"id": "w~free", "state": "ready"},
    ]  # fmt: skip
    assert (closing(sql), sql.tick()["closed"]) == ([], 0)
    assert {
        each["settler"] for each in sql.query("select settler from promise where state = 'canceled'")
    } == {"workflow"}


def test_a_child_that_was_asked_already_is_not_asked_again(sql: Sql, w: Worker) -> None:
    begin(sql, w, ["a", "b"])
    sql.cancel("w~a", actor="ann")
    w.advance(turn("w", 1, 0), cancels=[{"task": "w", "promise": "w~b"}])
    assert sql.tick()["closed"] == 1
    w.advance(turn("w", 1, 0, "suspend", close=True))
    w.advance(turn("w", 1, 0), cancels=[{"task": "w", "promise": "w~b"}])
    assert drain(sql) == [0]
    assert [sql.events(f"w~{each}") for each in "ab"] == [[(1, "~cancel", "canceled")]] * 2


def test_a_halted_child_is_told_and_stays_halted(sql: Sql, w: Worker) -> None:
    begin(sql, w, ["c"])
    sql.halt("w~c")
    w.finish("w", 1, 0)
    assert drain(sql) == [1]
    assert (sql.events("w~c"), sql.one("select state from task")) == ([(1, "~cancel", "canceled")], "halted")


def test_the_holder_of_a_child_gets_news(sql: Sql, w: Worker) -> None:
    w.advance(turn("w", 1, 0), operations=[call("w", "c")])
    w.claim()
    w.finish("w", 1, 0)
    assert drain(sql) == [1]
    assert sql.heartbeat("w1", ["w~c"], [1]) == [{"task": "w~c", "epoch": 1, "answer": "news"}]
    answer = w.advance(turn("w~c", 1, 1, "finish", state="canceled", error=CANCELED))["w~c"]
    assert answer["answer"] == "ok"


# what the code gave up


def test_children_given_up_are_canceled_one_by_one(sql: Sql, w: Worker) -> None:
    begin(sql, w, ["begun"])
    sql.create_promise("other")
    w.advance(
        turn("w", 1, 0),
        operations=[call("w", "new"), call("w", "stays"), start("w", "free"), wait("w", "its", "other")],
    )
    given_up = ["w~begun", "w~new", "w~free", "other", "nobody", "w"]
    w.advance(
        turn("w", 1, 0, "suspend"),
        cancels=[{"task": "w", "promise": each} for each in [*given_up, *given_up]],
    )
    assert closing(sql) == owed("w~begun", "w~new", itself=True)
    assert sql.tick()["closed"] == 2
    assert closing(sql) == []
    assert states(sql) == {
        "other": "pending", "w": "pending", "w~begun": "pending", "w~begun~p": "pending", "w~free": "pending",
        "w~new": "canceled", "w~stays": "pending",
    }  # fmt: skip
    assert sql.events("w~begun") == [(1, "~cancel", "canceled")]
    # and the parent is told like of any other end
    assert sql.events("w") == [(1, "new", "canceled")]
    assert sql.one("select state from task where id = 'w'") == "ready"


@pytest.mark.parametrize("why", ["news", "busy", "fenced"])
def test_a_turn_that_does_not_stand_gives_nothing_up(
    sql: Sql, w: Worker, another: Callable[..., Sql], why: str
) -> None:
    w.advance(turn("w", 1, 0), operations=[call("w", "c")])
    holder = another()
    with holder.connection.transaction():
        if why == "busy":
            holder.query("select from task where id = 'w' for update")
        elif why == "news":
            sql.cancel("w")
        answer = w.advance(
            turn("w", 2 if why == "fenced" else 1, 0, close=True), cancels=[{"task": "w", "promise": "w~c"}]
        )["w"]
    assert (answer["answer"], closing(sql)) == (why, [])


# code that has ended while calls are open


def test_code_that_ended_waits_for_the_children_that_it_closes(sql: Sql, w: Worker) -> None:
    begin(sql, w, ["a", "b"])
    answer = w.advance(turn("w", 1, 0, "suspend", close=True), operations=[call("w", "c")])["w"]
    assert (answer["answer"], answer["entries"], closing(sql)) == ("ok", None, owed("w"))
    assert drain(sql) == [3]
    assert sql.events("w") == [(1, "c", "canceled")]
    for each in w.claim():
        end = {"state": "canceled", "error": CANCELED}
        then = None if each["task"] == "w" else "finish"
        w.advance(turn(each["task"], each["epoch"], each["last_seq"], then, **(end if then else {})))
    assert [name for _, name, _ in sql.events("w")] == ["c", "a", "b"]
    answer = w.advance(turn("w", 2, 3, "finish", state="rejected", error={"type": "E", "message": "m"}))["w"]
    assert (answer["answer"], closing(sql)) == ("ok", owed("w~a", "w~b")), (
        "they left something open, w did not"
    )


def test_nobody_owes_for_children_that_have_ended(sql: Sql, w: Worker) -> None:
    w.advance(turn("w", 1, 0), operations=[call("w", "c"), promise("w", "p")])
    sql.cancel("w~c")
    sql.resolve("w~p")
    w.advance(turn("w", 1, 2, close=True))
    assert closing(sql) == []


def test_said_again_it_goes_on_where_it_was_unless_there_is_more(sql: Sql, w: Worker) -> None:
    w.advance(turn("w", 1, 0), operations=[promise("w", f"p{n}") for n in range(4)])
    w.advance(turn("w", 1, 0, close=True))
    assert sql.tick(2)["closed"] == 2
    seen = 2
    w.advance(turn("w", 1, seen, close=True))
    assert closing(sql) == owed("w", after="w~p1")
    w.advance(turn("w", 1, seen, close=True), operations=[call("w", "a-new-one")])
    assert closing(sql) == owed("w")
    assert drain(sql) == [3]
    assert "pending" not in {states(sql)[f"w~{each}"] for each in ("p0", "p1", "p2", "p3", "a-new-one")}


def test_one_that_is_both_owed_and_owes(sql: Sql, w: Worker) -> None:
    """A child in the midst of closing its own children is given up by its parent; and the other way round."""
    for first in ("itself", "children"):
        name = f"w~{first}"
        w.advance(turn("w", 1, 0), operations=[call("w", first)])
        w.claim()
        w.advance(turn(name, 1, 0), operations=[promise(name, each) for each in "ab"])
        give_up = {"cancels": [{"task": "w", "promise": name}]}
        if first == "itself":
            w.advance(turn("w", 1, 0), turn(name, 1, 0), **give_up)
            w.advance(turn(name, 1, 0, close=True))
        else:
            w.advance(turn(name, 1, 0, close=True))
            w.advance(turn("w", 1, 0), **give_up)
        assert closing(sql) == owed(name, itself=True, after="")
        assert [sql.tick()["closed"] for _ in range(2)] == [1, 2]
        assert closing(sql) == []
        assert sql.events(name) == [(1, "~cancel", "canceled"), (2, "a", "canceled"), (3, "b", "canceled")]


def test_one_given_up_that_ends_meanwhile_owes_only_for_its_children(sql: Sql, w: Worker) -> None:
    begin(sql, w, ["c", "d"])
    w.advance(turn("w", 1, 0), cancels=[{"task": "w", "promise": f"w~{each}"} for each in "cd"])
    sql.resolve("w~d~p")
    sql.cancel_force("w~c")
    claimed = [each for each in w.claim() if each["task"] == "w~d"]
    w.finish("w~d", claimed[0]["epoch"], 1)
    assert closing(sql) == [*owed("w~c", force=True), *owed("w~d", itself=True)]
    drain(sql)
    assert states(sql)["w~c~p"] == "canceled"


# in batches


def test_ten_thousand_children_are_closed_in_batches(sql: Sql, w: Worker) -> None:
    """Half of them never ran, some ended by themselves; no tick reads more than its batch asks for, from first to last."""
    for chunk in range(10):
        w.advance(
            turn("w", 1, 0),
            operations=[call("w", f"c{n:05}") for n in range(1000 * chunk, 1000 * (chunk + 1))],
        )
    assert sql.one("select children from task where id = 'w'") == 10_000
    for _ in range(2):
        claimed = w.claim(1000)
        w.advance(*(turn(each["task"], 1, 0, "finish", state="resolved") for each in claimed[:500]))
    answer = w.advance(turn("w", 1, 0))["w"]
    assert sql.cancel("w")["answer"] == "requested"
    assert (
        w.advance(turn("w", 1, answer["last_seq"] + 1, "finish", state="canceled", error=CANCELED))["w"][
            "answer"
        ]
        == "ok"
    )

    reads, closed = [], []
    rows = "select sum(seq_tup_read + idx_tup_fetch)::integer from pg_stat_xact_user_tables"
    while closing(sql):
        with sql.connection.transaction():
            before = sql.one(rows)
            answer = sql.tick()
            reads.append(sql.one(rows) - before)
        closed.append(answer["closed"])
        assert answer.get("next") == (0 if closing(sql) else None)
    assert (len(closed), sum(closed)) == (10, 9000)
    assert max(reads) < 25_000
    assert max(reads[1:]) < 2 * min(reads) + 1000, "the last is as short as the first"
    assert sql.query("select state, count(*)::int as n from promise group by 1 order by 1") == [
        {"state": "canceled", "n": 8001}, {"state": "pending", "n": 1000}, {"state": "resolved", "n": 1000},
    ]  # fmt: skip
    assert sql.one("select count(*) from checkpoint where operation = '~cancel' and task <> 'w'") == 1000


def test_many_small_families_share_a_tick(sql: Sql, worker: Worker) -> None:
    names = [f"w{n:03}" for n in range(100)]
    sql.start_many([{"id": each, "function": "f"} for each in names])
    worker.claim(100)
    operations = [promise(each, operation) for each in names for operation in "abc"]
    worker.advance(*(turn(each, 1, 0) for each in names), operations=operations)
    worker.advance(*(turn(each, 1, 0, "finish", state="resolved") for each in names))
    answers = [sql.tick(200) for _ in range(2)]
    assert [(each["closed"], each.get("next")) for each in answers] == [(200, 0), (100, None)]


# what others hold


def test_a_child_that_is_held_gets_a_row_of_its_own(sql: Sql, w: Worker, another: Callable[..., Sql]) -> None:
    begin(sql, w, ["c0", "c1"])
    w.advance(turn("w", 1, 0), operations=[call("w", "c2"), promise("w", "p3"), promise("w", "p4")])
    w.finish("w", 1, 0)
    holder = another()
    with holder.connection.transaction():
        holder.query("select from task where id in ('w~c1', 'w~c2') for update")
        holder.query("select from promise where id = 'w~p3' for update")
        answer = sql.tick()
        assert (answer["closed"], answer.get("next")) == (2, None), "nothing is left that could be worked on"
        assert closing(sql) == owed("w~c1", "w~c2", "w~p3", itself=True)
        assert sql.tick()["closed"] == 0
    assert sql.tick()["closed"] == 3
    assert (closing(sql), states(sql)["w~c2"], sql.events("w~c1")) == (
        [],
        "canceled",
        [(1, "~cancel", "canceled")],
    )


def test_rows_that_are_held_stand_in_nobodys_way(
    sql: Sql, worker: Worker, another: Callable[..., Sql]
) -> None:
    for each in ("held", "free"):
        sql.start(each, "f")
    worker.claim()
    worker.advance(turn("held", 1, 0), operations=[promise("held", f"p{n}") for n in range(4)])
    worker.advance(turn("free", 1, 0), operations=[promise("free", "p")])
    worker.finish("held", 1, 0)
    holder = another()
    with holder.connection.transaction():
        holder.query("select from promise where parent = 'held' for update")
        for _ in range(3):
            sql.tick(2)
        worker.finish("free", 1, 0)
        for _ in range(3):
            sql.tick(2)
        assert states(sql)["free~p"] == "canceled"
        assert closing(sql) == owed(*(f"held~p{n}" for n in range(4)), itself=True)
    assert drain(sql, 2) == [2, 2]


def test_a_parent_that_is_held_is_left_for_later(sql: Sql, w: Worker, another: Callable[..., Sql]) -> None:
    w.advance(turn("w", 1, 0), operations=[promise("w", f"p{n}") for n in range(3)])
    w.advance(turn("w", 1, 0, close=True))
    holder = another()
    with holder.connection.transaction():
        holder.query("select from task where id = 'w' for update")
        answer = sql.tick()
        assert (answer["closed"], answer.get("next"), closing(sql)) == (0, None, owed("w"))
    assert drain(sql) == [3]


def test_two_tickers_close_side_by_side(sql: Sql, worker: Worker, another: Callable[..., Sql]) -> None:
    for each in "ab":
        sql.start(each, "f")
    worker.claim()
    for each in "ab":
        worker.advance(turn(each, 1, 0), operations=[promise(each, f"p{n}") for n in range(3)])
        worker.finish(each, 1, 0)
    other = another()
    with other.connection.transaction():
        assert other.tick(1)["closed"] == 1
        sql.query("set lock_timeout = '1s'")
        assert sql.tick()["closed"] == 0, "the rows are with the other, and so is what they owe"
    assert drain(sql) == [5]
    assert set(states(sql).values()) == {"resolved", "canceled"}


def test_one_poisonous_child_stops_nobody(sql: Sql, w: Worker) -> None:
    begin(sql, w, ["good", "poison", "well"])
    sql.query(
        "insert into checkpoint (task, seq, operation, kind, issued, state, at, epoch) values ('w~poison', 1, 'x', 'step', 0, 'resolved', now(), 1)"  # noqa: E501
    )
    w.finish("w", 1, 0)
    assert [sql.tick()["closed"] for _ in range(2)] == [2, 0]
    assert closing(sql) == owed("w~poison", itself=True)
    sql.query("delete from checkpoint where task = 'w~poison'")
    assert drain(sql) == [1]
    assert {len(sql.events(f"w~{each}")) for each in ("good", "poison", "well")} == {1}


# by force


def test_force_ends_a_whole_tree_whatever_its_code_would_say(sql: Sql, w: Worker) -> None:
    begin(sql, w, ["asked", "halted", "running"])
    sql.halt("w~halted")
    sql.cancel("w~asked")
    w.advance(turn("w", 1, 0, "suspend"), operations=[call("w", "new"), start("w", "free")])
    sql.resolve("w~running~p")
    assert {each["task"] for each in w.claim()} >= {"w~running"}
    w.advance(
        turn("w~running", 2, 1), operations=[call("w~running", "grandchild", 1), promise("w~running", "q", 1)]
    )
    w.claim()
    w.advance(turn("w~running~grandchild", 1, 0), operations=[promise("w~running~grandchild", "p")])
    assert sql.cancel_force("w", "enough", actor="ann")["answer"] == "settled"
    assert closing(sql) == owed("w", force=True)
    assert [sql.tick()["closed"] for _ in range(4)] == [4, 4, 1, 0]
    assert closing(sql) == []
    left = {key: value for key, value in states(sql).items() if value != "canceled"}
    assert left == {"w~free": "pending", "w~running~p": "resolved"}
    assert sql.query("select id from task") == [{"id": "w~free"}]
    assert (
        w.advance(turn("w~running", 2, 1), outcomes=[step("w~running", "s", 1)])["w~running"]["answer"]
        == "fenced"
    )


def test_force_goes_through_children_that_were_asked_politely_before(sql: Sql, w: Worker) -> None:
    begin(sql, w, ["a", "b", "c"])
    w.advance(turn("w", 1, 0, "suspend", close=True))
    assert sql.tick(2)["closed"] == 2
    sql.cancel_force("w")
    assert drain(sql)[:1] == [3]
    assert set(states(sql).values()) == {"canceled"}


def test_a_child_held_while_force_passes_is_ended_by_force_later(
    sql: Sql, w: Worker, another: Callable[..., Sql]
) -> None:
    begin(sql, w, ["c"])
    sql.cancel_force("w")
    holder = another()
    with holder.connection.transaction():
        holder.query("select from task where id = 'w~c' for update")
        assert sql.tick()["closed"] == 0
        assert closing(sql) == owed("w~c", itself=True, force=True)
    assert drain(sql) == [1, 1]
    assert states(sql) == {"w": "canceled", "w~c": "canceled", "w~c~p": "canceled"}


# who touches one first


def test_an_operator_asks_a_child_that_has_begun_and_ends_one_that_has_not(sql: Sql, w: Worker) -> None:
    begin(sql, w, ["begun"])
    w.advance(turn("w", 1, 0), operations=[call("w", "new")])
    w.finish("w", 1, 0)
    assert sql.cancel("w~begun")["answer"] == "requested"
    assert sql.cancel("w~new")["answer"] == "already"
    assert drain(sql) == [0]


@pytest.mark.unrecorded("what is read is counted")
def test_what_is_closed_reads_nothing_else(sql: Sql, w: Worker) -> None:
    """The pinned plans hold for fan-out and closing too, at tables that nobody has analysed."""
    crowd = 3000
    for table, columns, values in (
        (
            "promise",
            "id, state, function, queue, args, created_at",
            "'c' || n, 'pending', 'f', 'q', '{}', now()",
        ),
        ("task", "id, state, queue, lane, ready_at", "'c' || n, 'ready', 'q', 'f', now()"),
        ("wait", "task, operation, kind, promise, issued", "'c' || n, 'x', 'wait', 'd' || n, 0"),
        ("attempt", "task, operation, number, epoch, started_at", "'c' || n, 'x', 1, 1, now()"),
        ("promise", "id, created_at, open_at", "'d' || n, now(), now()"),
    ):
        sql.query(f"insert into {table} ({columns}) select {values} from generate_series(1, {crowd}) n")
    rows = "select sum(seq_tup_read + idx_tup_fetch)::integer from pg_stat_xact_user_tables"

    def read(act: Callable[[], Any]) -> int:
        with sql.connection.transaction():
            before = sql.one(rows)
            act()
            return int(sql.one(rows) - before)

    w.advance(turn("w", 1, 0), operations=[call("w", "n")])
    w.claim()
    reads = {
        "fan-out": read(
            lambda: w.advance(
                turn("w", 1, 0),
                turn("w~n", 1, 0),
                operations=[call("w", "a"), start("w~n", "b", delay=9), call("w", "c", promise="c1")],
            )
        ),
        "attempts": read(
            lambda: w.advance(turn("w", 1, 0), attempts=[{"task": "w", "operation": "s", "number": 1}])
        ),
        "gave up": read(lambda: w.advance(turn("w", 1, 0), cancels=[{"task": "w", "promise": "w~n"}])),
        "itself": read(sql.tick),
        "close": read(lambda: w.advance(turn("w", 1, 0, "suspend", close=True))),
        "claim": read(lambda: w.claim(1)),
        "children": read(sql.tick),
    }
    assert {what: count for what, count in reads.items() if count > crowd // 10} == {}
    assert sql.events("w~a") == [(1, "~cancel", "canceled")]
