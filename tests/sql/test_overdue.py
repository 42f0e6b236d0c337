"""I47: what is due is overdue until somebody ticks, and nothing is afterwards, whatever has gathered meanwhile."""

from __future__ import annotations

from datetime import timedelta

from tests.proof.invariants.reach import Reach
from tests.support.sql import Connection, Sql, Worker, call, promise, retry, timer, turn
from troth.testing.clock import Clock
from troth.testing.violations import violations

MINUTE_MICROS = 60_000_000


def test_i47_nothing_is_overdue_once_somebody_ticked(
    sql: Sql, worker: Worker, db: Connection, clock: Clock, reach: Reach
) -> None:
    sql.create_promise("decision", timeout="1 minute")
    sql.create_promise("defaulted", timeout="1 minute", default=1, has_default=True)
    sql.start("delayed", "f", delay="1 minute")
    sql.start("late", "f", timeout="1 minute")
    for task in ("parent", "sleeper", "retrier", "held", "force"):
        sql.start(task, "f")
    worker.claim()
    answers = worker.advance(
        turn("sleeper", 1, 0, "suspend"),
        turn("retrier", 1, 0, "suspend"),
        turn("parent", 1, 0, "finish", state="resolved"),
        turn("force", 1, 0, "suspend"),
        operations=[
            promise("parent", "p"),
            call("parent", "c"),
            call("force", "c"),
            promise("sleeper", "p", timeout=MINUTE_MICROS),
        ],
        timers=[timer("sleeper", "t", MINUTE_MICROS), retry("retrier", "s", MINUTE_MICROS)],
    )
    assert {row["answer"] for row in answers.values()} == {"ok"}
    sql.cancel_force("force")
    sql.query("update worker set sleeping = true")  # idle from now on, and silent
    sql.start("ready", "f")

    clock.advance(timedelta(minutes=2))
    overdue = [each for each in violations(db, liveness=True) if each.invariant == "I47"]
    assert [each for each in violations(db, liveness=True) if each.invariant != "I47"] == []
    assert {each.id for each in overdue} == {
        *("decision", "defaulted", "delayed", "late", "sleeper~p", "sleeper", "retrier", "parent", "force"),
        *("w1", "ready", "parent~c", "force~c"),
    }
    for _ in range(5):
        sql.tick()
    assert violations(db, liveness=True) == []
    reach.add({("I47", "was overdue, and was done"): len(overdue)})
