"""commit_step: a step's effect and its checkpoint by one commit, at every isolation level, waiting for nobody."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from secrets import token_hex
from typing import Any

import psycopg
import pytest

from tests.sql.test_races import meet
from tests.support.sql import Row, Sql, Worker, promise, refused, step, turn
from troth.testing.clock import Clock

LEVELS = ("read committed", "repeatable read", "serializable")
ROUNDS = 60


def commit(
    sql: Sql, task: str = "w", operation: str = "pay", epoch: int = 1, issued: int = 0, **more: Any
) -> Row:
    (answer,) = sql.commit_step(task, epoch, operation, issued, **more)
    return dict(answer)


def answered(answer: str) -> Row:
    """An answer that says nothing of an event."""
    return {"answer": answer, "seq": None, "at": None}


@pytest.fixture
def held(sql: Sql, worker: Worker) -> Sql:
    """A workflow that w1 holds at epoch 1."""
    sql.start("w", "f")
    worker.claim()
    return sql


def pay(session: Sql, task: str = "w") -> None:
    """An effect of the user's own: something in the same database, another one each time."""
    session.create_promise(f"paid:{task}:{token_hex(8)}")


def pays(session: Sql, level: str = "read committed", **more: Any) -> Row:
    """The user's transaction: an effect of theirs, and the step."""
    with session.connection.transaction():
        session.query(f"set transaction isolation level {level}")
        pay(session)
        answer = commit(session, **more)
        if answer["answer"] != "ok":
            raise psycopg.Rollback
    return answer


def effects(sql: Sql) -> int:
    return len(paid(sql))


def paid(sql: Sql) -> list[str]:
    """For which workflows there is an effect, as often as there is one."""
    return [
        each["task"]
        for each in sql.query(
            "select split_part(id, ':', 2) as task from promise where id like 'paid:%' order by id"
        )
    ]


@pytest.mark.parametrize("level", LEVELS)
def test_effect_and_event_become_true_together(held: Sql, another: Callable[..., Sql], level: str) -> None:
    held.query("update task set attempts = 3")
    answer = pays(another(), level, value={"receipt": 7}, headers={"codec": "c"}, digest=2**62, cohort=-5)
    (event,) = held.journal("w")
    row = held.query("select * from checkpoint")[0]
    assert answer == {"answer": "ok", "seq": 1, "at": event["at"]}
    assert (event["operation"], event["kind"], event["state"], event["value"], event["headers"]) == (
        "pay", "step", "resolved", {"receipt": 7}, {"codec": "c"},
    )  # fmt: skip
    assert (row["issued"], row["digest"], row["cohort"], row["epoch"]) == (0, 2**62, -5, 1)
    task = held.task("w")
    assert task is not None
    assert (task["last_seq"], task["attempts"], task["state"], task["news"]) == (1, 0, "claimed", False)
    assert effects(held) == 1


@pytest.mark.parametrize("level", LEVELS)
def test_a_rollback_leaves_neither(held: Sql, another: Callable[..., Sql], level: str) -> None:
    session = another()
    session.query(f"begin isolation level {level}")
    pay(session)
    assert commit(session)["answer"] == "ok"
    session.query("rollback")
    assert (effects(held), held.events("w")) == (0, [])
    assert pays(session, level)["seq"] == 1


@pytest.mark.parametrize("level", LEVELS)
def test_once_recorded_never_again(held: Sql, another: Callable[..., Sql], level: str) -> None:
    first = pays(another(), level)
    again = pays(another(), level)
    assert again == first | {"answer": "recorded"}
    assert effects(held) == 1


def test_what_was_decided_by_hand_stands(held: Sql, another: Callable[..., Sql]) -> None:
    held.settle_step("w", "pay", "by hand")
    assert pays(another())["answer"] == "recorded"
    assert ([each["value"] for each in held.journal("w")], effects(held)) == (["by hand"], 0)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "how", ["older epoch", "newer epoch", "no epoch", "halted", "suspended", "given back", "ended", "unknown"]
)
def test_whoever_does_not_hold_it_is_fenced(
    held: Sql, worker: Worker, another: Callable[..., Sql], how: str, level: str
) -> None:
    match how:
        case "halted":
            held.halt("w")
        case "suspended":
            worker.wait_for("w")
        case "given back":
            worker.advance(turn("w", 1, 0, "release"))
            worker.claim()
        case "ended":
            worker.finish("w", 1, 0)
        case _:
            pass
    epoch = {"older epoch": 0, "newer epoch": 2, "no epoch": None}.get(how, 1)
    task = "nobody" if how == "unknown" else "w"
    before = held.query("select * from task")
    assert pays(another(), level, task=task, epoch=epoch) == answered("fenced")
    assert (held.events("w"), effects(held), held.query("select * from task")) == ([], 0, before)


@pytest.mark.parametrize("level", LEVELS)
def test_past_its_timeout_a_workflow_is_fenced(
    sql: Sql, worker: Worker, clock: Clock, another: Callable[..., Sql], level: str
) -> None:
    sql.start("w", "f", timeout=timedelta(minutes=1))
    worker.claim()
    session = another()
    with session.connection.transaction():
        session.query(f"set transaction isolation level {level}")
        clock.advance(timedelta(seconds=61))  # in the middle of their transaction
        assert commit(session) == answered("fenced")
    assert sql.events("w") == []


def test_a_retry_that_was_due_is_not_any_more(held: Sql, another: Callable[..., Sql]) -> None:
    held.query(
        "insert into wait (task, operation, kind, fire_at, issued) values ('w', 'pay', 'retry', now() + interval '1 hour', 0),"
        " ('w', 'other', 'retry', now() + interval '1 hour', 0)"
    )
    assert pays(another())["answer"] == "ok"
    assert held.query("select operation from wait") == [{"operation": "other"}]


@pytest.mark.parametrize(
    ("more", "sqlstate"),
    [
        ({"operation": ""}, "TR002"),
        ({"operation": "~cancel"}, "TR002"),
        ({"operation": None}, "TR002"),
        ({"issued": None}, "TR002"),
        ({"issued": -1}, "TR002"),
        ({"issued": 1}, "TR002"),
        ({"value": "x" * 1048577}, "TR003"),
    ],
)
def test_what_cannot_be_is_an_error_and_writes_nothing(held: Sql, more: Row, sqlstate: str) -> None:
    assert refused(lambda: commit(held, **more))[0] == sqlstate
    assert held.events("w") == []


def test_a_name_that_something_else_waits_under(held: Sql, worker: Worker) -> None:
    worker.advance(turn("w", 1, 0), operations=[promise("w", "approval")])
    state, message = refused(lambda: commit(held, operation="approval"))
    assert (state, message) == ("TR012", "approval of w is no step: the workflow waits under that name")


def test_a_journal_has_an_end(held: Sql) -> None:
    held.query(
        "insert into checkpoint (task, seq, operation, kind, issued, state, at, epoch)"
        " select 'w', n, 's' || n, 'step', 0, 'resolved', t.last_at, 1 from task t, generate_series(1, 100000) n"
    )
    held.query("update task set last_seq = 100000")
    assert refused(lambda: commit(held))[0] == "TR030"


# who else is at the task's row


@pytest.mark.parametrize("level", LEVELS)
def test_it_waits_for_nobody(held: Sql, another: Callable[..., Sql], level: str) -> None:
    holder, session = another(), another()
    session.query("set statement_timeout = '2s'")
    with holder.connection.transaction():
        holder.query("select from task where id = 'w' for no key update")
        assert pays(session, level) == answered("busy")
    assert (held.events("w"), effects(held)) == ([], 0)
    assert pays(session, level)["answer"] == "ok"


def test_busy_may_be_asked_again_in_the_same_transaction(held: Sql, another: Callable[..., Sql]) -> None:
    holder, session = another(), another()
    with session.connection.transaction():
        with holder.connection.transaction():
            holder.query("select from task where id = 'w' for no key update")
            assert commit(session) == answered("busy")
        assert commit(session)["answer"] == "ok"
    assert held.events("w") == [(1, "pay", "resolved")]


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
@pytest.mark.parametrize("meanwhile", ["event", "end"])
def test_a_row_that_changed_since_the_snapshot_is_a_serialization_failure(
    held: Sql, worker: Worker, another: Callable[..., Sql], level: str, meanwhile: str
) -> None:
    session = another()
    with pytest.raises(psycopg.errors.SerializationFailure), session.connection.transaction():  # noqa: PT012
        session.query(f"set transaction isolation level {level}")
        session.query("select 1")
        if meanwhile == "event":
            worker.advance(turn("w", 1, 0), outcomes=[step("w", "other")])
        else:
            worker.finish("w", 1, 0)
        commit(session)
    again = pays(session, level)
    if meanwhile == "event":
        assert (again["answer"], again["seq"]) == ("ok", 2)
    else:
        assert again == answered("fenced")


def test_read_committed_sees_what_came_meanwhile(
    held: Sql, worker: Worker, another: Callable[..., Sql]
) -> None:
    session = another()
    with session.connection.transaction():
        session.query("select 1")
        worker.advance(turn("w", 1, 0), outcomes=[step("w", "other")])
        assert commit(session)["seq"] == 2


@pytest.mark.parametrize("level", LEVELS)
def test_until_its_commit_nobody_passes(
    held: Sql, worker: Worker, another: Callable[..., Sql], level: str
) -> None:
    """Whoever lost the answer to COMMIT looks, and is told to look again until it is known what happened."""
    session, looking = another(), another()
    with session.connection.transaction():
        session.query(f"set transaction isolation level {level}")
        at = commit(session, value=1)["at"]
        assert pays(looking) == answered("busy")
        assert worker.advance(turn("w", 1, 0), outcomes=[step("w", "pay")])["w"]["answer"] == "busy"
        assert held.tick()["workers"] == 0
    assert pays(looking) == {"answer": "recorded", "seq": 1, "at": at}
    answer = worker.advance(turn("w", 1, 0), outcomes=[step("w", "pay", value=2)])["w"]
    assert (answer["answer"], [each["value"] for each in answer["entries"]]) == ("news", [1])


def test_an_instant_never_goes_back(
    held: Sql, worker: Worker, clock: Clock, another: Callable[..., Sql]
) -> None:
    clock.advance(timedelta(seconds=5))
    first = pays(another(), operation="a")
    clock.advance(timedelta(seconds=-5))
    assert pays(another(), operation="b", issued=1)["at"] == first["at"]
    clock.advance(timedelta(seconds=5))


# races


@pytest.fixture
def names(sql: Sql, worker: Worker) -> list[str]:
    """Workflows that w1 holds, each with its promise made."""
    found = [f"w{n:03}" for n in range(ROUNDS)]
    sql.start_many([{"id": each, "function": "f"} for each in found])
    worker.claim(ROUNDS)
    worker.advance(*(turn(each, 1, 0) for each in found), operations=[promise(each, "p") for each in found])
    return found


def insisting(session: Sql, task: str, level: str, operation: str = "pay") -> str:
    """What a worker does: again after a serialization failure, and while somebody holds the row."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            with session.connection.transaction():
                session.query(f"set transaction isolation level {level}")
                pay(session, task)
                answer: str = commit(session, task, operation)["answer"]
                if answer != "ok":
                    raise psycopg.Rollback
        except psycopg.errors.SerializationFailure:
            continue
        if answer != "busy":
            return answer
    raise AssertionError(f"{task} was never told more than busy")


@pytest.mark.parametrize("level", LEVELS)
def test_of_two_at_once_one_is_recorded(
    sql: Sql, names: list[str], another: Callable[..., Sql], level: str
) -> None:
    first, second = another(), another()
    outcomes = meet(
        ROUNDS, lambda n: insisting(first, names[n], level), lambda n: insisting(second, names[n], level)
    )
    assert {tuple(sorted(each)) for each in outcomes} == {("ok", "recorded")}
    assert paid(sql) == names
    assert {tuple(sql.events(each)) for each in names} == {((1, "pay", "resolved"),)}


@pytest.mark.parametrize("level", LEVELS)
def test_with_everybody_at_once(
    sql: Sql, names: list[str], clock: Clock, another: Callable[..., Sql], level: str
) -> None:
    """A step of a transaction, another step by advance, a settled promise, and a sweeper who takes the holder for dead."""
    paying, settler, sweeper = another(), another(), another()
    holder = Worker(another())
    clock.advance(timedelta(seconds=16))

    def advance(n: int) -> str:
        while True:
            said = holder.advance(turn(names[n], 1, 0, "suspend"), outcomes=[step(names[n], "other")])
            if said[names[n]]["answer"] != "busy":
                answer: str = said[names[n]]["answer"]
                return answer

    def sweep(n: int) -> None:
        if n >= ROUNDS // 2:  # and not before: from then on all is lost
            sweeper.tick()

    outcomes = meet(
        ROUNDS,
        lambda n: insisting(paying, names[n], level),
        advance,
        lambda n: settler.resolve(f"{names[n]}~p", n)["answer"],
        sweep,
    )
    assert {settled for _, _, settled, _ in outcomes} == {"settled"}
    assert {answer for answer, *_ in outcomes} <= {"ok", "fenced"}
    assert {"ok", "fenced"} <= {answer for answer, *_ in outcomes}, "nothing was met"
    for name, (answer, *_) in zip(names, outcomes, strict=True):
        events = [operation for _, operation, _ in sql.events(name)]
        assert ("pay" in events, "p" in events) == (answer == "ok", True)
        assert len(events) == len(set(events))
    assert paid(sql) == [name for name, (answer, *_) in zip(names, outcomes, strict=True) if answer == "ok"]
