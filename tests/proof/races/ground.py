"""The rows that two calls meet on: one workflow and what belongs to it, in each state that a call may find it in.

    w       a workflow; it made the latent promise w~p and calls the child w~c, which is ready
    x       another workflow, suspended, that waits for w and for w~p
    h, n    the worker that holds (or held) w, and one that comes new

All names carry the round's number, and each round has a queue of its own: rounds do not meet, but for what tick and purge do
to all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from tests.support.sql import Sql, Worker, call, promise, timer, turn, wait

HOUR = 3_600_000_000
"""Microseconds."""
LEASE = timedelta(hours=1)
"""However slow the machine is, nobody is taken for dead who is not meant to be."""


@dataclass(frozen=True)
class Names:
    """What the rows of one round are called."""

    w: str

    @property
    def p(self) -> str:
        return f"{self.w}~p"

    @property
    def c(self) -> str:
        return f"{self.w}~c"

    @property
    def x(self) -> str:
        return f"x{self.w}"

    @property
    def holder(self) -> str:
        return f"h-{self.w}"

    @property
    def newcomer(self) -> str:
        return f"n-{self.w}"

    @property
    def queue(self) -> str:
        return f"q-{self.w}"


@dataclass(frozen=True)
class Ground:
    """The rows of one round as they lie there: their names, and what the holder of `w` knows of it."""

    names: Names
    seen: int = 0
    epoch: int = 1
    record: Any = None


def _base(sql: Sql, names: Names, then: str | None = None, *, timers: bool = False, **more: Any) -> Ground:
    """`w` is held, or goes on by `then` in the very turn that makes `w~p` and `w~c`; `x` waits."""
    sql.start_many([{"id": each, "function": "f", "queue": names.queue} for each in (names.w, names.x)])
    worker = Worker(sql, names.holder)
    assert len(worker.claim(2, [names.queue], lease=LEASE)) == 2
    answers = worker.advance(
        turn(names.w, 1, 0, then, **({"asked": True} if then is None else {}), **more),
        turn(names.x, 1, 0, "suspend"),
        operations=[
            promise(names.w, "p", timeout=HOUR),
            call(names.w, "c", queue=names.queue),
            wait(names.x, "its_p", names.p),
            wait(names.x, "its_w", names.w),
        ],
        timers=[timer(names.w, "t", HOUR)] if timers else [],
    )
    assert {each["answer"] for each in answers.values()} <= {"ok", "halted"}, answers
    return Ground(names)


def free(sql: Sql, names: Names) -> Ground:
    """Nothing is there. What an import brings was exported from somewhere else."""
    record = {
        "id": names.w,
        "function": "f",
        "queue": names.queue,
        "args": {},
        "version": 1,
        "started_at": 1_700_000_000_000_000,
        "seed": 1,
    }
    return Ground(names, record=record)


def ready(sql: Sql, names: Names) -> Ground:
    """`w` was given back by its worker, and is ready."""
    return _base(sql, names, "release")


def held(sql: Sql, names: Names) -> Ground:
    """`w` is claimed."""
    return _base(sql, names)


def suspended(sql: Sql, names: Names) -> Ground:
    """`w` is suspended on its promise, its child and a timer."""
    return _base(sql, names, "suspend", timers=True)


def waiting(sql: Sql, names: Names) -> Ground:
    """`w` is suspended on its promise and its child."""
    return _base(sql, names, "suspend")


def halted(sql: Sql, names: Names) -> Ground:
    """`w` is parked."""
    return _base(sql, names, "halt")


def orphaned(sql: Sql, names: Names) -> Ground:
    """`w` is claimed by a worker that was silent for longer than its lease."""
    ground = _base(sql, names)
    sql.query("update worker set seen_at = seen_at - interval '2 hours' where id = %s", names.holder)
    return ground


def overdue(sql: Sql, names: Names) -> Ground:
    """`w` is suspended, and the time of its promise and of its timer has come."""
    ground = _base(sql, names, "suspend", timers=True)
    pass_time(sql)
    return ground


def closing(sql: Sql, names: Names) -> Ground:
    """`w` has ended, and owes a cancel to what it left open."""
    ground = _base(sql, names)
    assert Worker(sql, names.holder).finish(names.w, 1, 0) == "ok"
    return ground


def ended(sql: Sql, names: Names) -> Ground:
    """`w` and all that it made have ended, and nobody waits for any of it."""
    _base(sql, names)
    settled = sql.settle_many([{"id": names.p, "verb": "resolve"}, {"id": names.c, "verb": "cancel"}])
    assert [each["answer"] for each in settled] == ["settled", "settled"]
    assert Worker(sql, names.holder).finish(names.w, 1, 2) == "ok"
    return Ground(names, seen=2)


def pass_time(sql: Sql, by: timedelta = timedelta(hours=2)) -> None:
    """Move the namespace's clock."""
    sql.query("update test_clock set shift = shift + %s", by)


Make = Callable[[Sql, Names], Ground]
