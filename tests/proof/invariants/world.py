"""A small world made by the functions alone, in which every kind of row stands somewhere and nothing is wrong."""

from __future__ import annotations

from tests.support.sql import Sql, Worker, attempt, call, promise, retry, start, step, timer, turn

HOUR_MICROS = 3_600_000_000


def make_world(sql: Sql) -> None:
    """Tasks in each state, promises settled by a person and by a workflow, journals, timers, waits, a retry."""
    worker, other = Worker(sql, "w1"), Worker(sql, "w2")
    for each in ("suspended", "halted", "finished", "claimed"):
        sql.start(each, "f")
    sql.create_promise("decided")
    sql.resolve("decided", {"by": "somebody"})
    assert {each["task"] for each in worker.claim()} == {"suspended", "halted", "finished", "claimed"}
    answers = worker.advance(
        turn("suspended", 1, 0, "suspend"),
        turn("halted", 1, 0, "halt", reason={"code": "test"}),
        turn("finished", 1, 0, "finish", state="resolved", value=7),
        turn("claimed", 1, 0),
        outcomes=[step("claimed", "a-step"), step("claimed", "b-step", 1), step("finished", "c-step")],
        operations=[
            promise("suspended", "approval"),
            promise("suspended", "soon", timeout=HOUR_MICROS),
            call("suspended", "child"),
            start("suspended", "free"),
            promise("claimed", "asked", 2, digest=7),
        ],
        timers=[timer("suspended", "later", HOUR_MICROS), retry("suspended", "a-step", HOUR_MICROS)],
        attempts=[attempt("suspended", "a-step", 1, ended=True, retry_in=HOUR_MICROS)],
    )
    assert {task: row["answer"] for task, row in answers.items()} == {
        "suspended": "ok",
        "halted": "halted",
        "finished": "ok",
        "claimed": "ok",
    }
    sql.start("begun", "g")
    sql.claim("w2", ["default"], ["g"], 1)
    assert other.claim(lanes=["none"]) == []
    sql.start("ready", "f")
    sql.start("timely", "f", timeout="1 hour")
