"""Every function that changes something, as a call on the rows of a ground, and what it may answer, whoever comes between.

A call answers with a word, or with several joined by `+`. An SQLSTATE is a word too; a deadlock (40P01), a broken key
(23505) or any other error that is not listed is never allowed. What a worker's call brings is looked at more closely where
a race could hide: a claim never gives more than it was asked for, and tells the whole journal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from tests.proof.races import ground as grounds
from tests.proof.races.ground import HOUR, Ground, Make
from tests.support.sql import Row, Sql, Worker, attempt, call, promise, start, step, timer, turn, wait

CANCELED = {"type": "canceled", "message": "m"}
Do = Callable[[Sql, Ground], str]


@dataclass(frozen=True)
class Verb:
    """One function, as it is called here."""

    name: str
    do: Do
    ground: Make
    """The state in which it finds the most to do."""
    answers: frozenset[str]
    worker: bool = False
    """A worker's call never waits for a row that somebody holds."""

    def allows(self, answer: str) -> bool:
        return set(answer.split("+")) <= self.answers


def _answer(call: Callable[[Sql, Ground], Row]) -> Do:
    return lambda sql, ground: str(call(sql, ground)["answer"])


def _answers(rows: list[Row]) -> str:
    return "+".join(sorted({str(each["answer"]) for each in rows}))


def _advance(then: str | None = None, **more: Any) -> Do:
    """One turn of `w` by its holder; `more` is made of its name."""

    def do(sql: Sql, ground: Ground) -> str:
        w = ground.names.w
        said: dict[str, Any] = {"state": "resolved"} if then == "finish" else {}
        given = {name: made(ground) for name, made in more.items()}
        return str(
            Worker(sql, ground.names.holder).advance(
                turn(w, ground.epoch, ground.seen, then, **said), **given
            )[w]["answer"]
        )

    return do


def _made(ground: Ground) -> list[Row]:
    """What is recorded already, and what is new: a promise, a child, one that is started, and a second wait for a promise."""
    w, queue = ground.names.w, ground.names.queue
    return [
        promise(w, "p", timeout=HOUR),
        promise(w, "p2"),
        call(w, "c", queue=queue),
        call(w, "c2", queue=queue),
        start(w, "d", promise=f"d{w}", queue=queue),
        wait(w, "again", ground.names.p),
    ]


def _claim(sql: Sql, ground: Ground) -> str:
    limit, worker = 1, f"{ground.names.newcomer}-{sql.connection.info.backend_pid}"
    rows = Worker(sql, worker).claim(limit, [ground.names.queue], lease=grounds.LEASE)
    taken = sql.one("select count(*) from task where worker = %s", worker)
    if len(rows) > limit or taken > limit:
        return "too many"
    if any(len(each["journal"]) != each["last_seq"] for each in rows):
        return "untold"
    return "claimed" if rows else "none"


def _heartbeat(sql: Sql, ground: Ground) -> str:
    rows = sql.heartbeat(ground.names.holder, [ground.names.w], [ground.epoch], timedelta(0))
    return _answers(rows) or "nothing"


def _tick(sql: Sql, _: Ground) -> str:
    sql.tick(1000)
    return "done"


def _leave(sql: Sql, ground: Ground) -> str:
    return "left" if sql.leave(ground.names.holder) else "none"


def _register(sql: Sql, ground: Ground) -> str:
    sql.register([{"name": "f", "version": 1, "queue": ground.names.queue}])
    return "done"


def _purge(sql: Sql, _: Ground) -> str:
    sql.purge(timedelta(0))
    return "done"


def _settle_many(sql: Sql, ground: Ground) -> str:
    names = ground.names
    return _answers(
        sql.settle_many(
            [
                {"id": names.c, "verb": "cancel"},
                {"id": names.p, "verb": "resolve", "value": 2},
                {"id": names.w, "verb": "cancel"},
            ]
        )
    )


def _verb(name: str, do: Do, ground: Make, answers: str, *, worker: bool = False) -> Verb:
    return Verb(name, do, ground, frozenset(answers.split()), worker)


SETTLED = "settled already conflict unknown"
TURN = "ok news busy fenced 55P03"

VERBS = {
    verb.name: verb
    for verb in (
        _verb(
            "start",
            _answer(lambda sql, g: sql.start(g.names.w, "f", queue=g.names.queue)),
            grounds.free,
            "created attached TR010",
        ),
        _verb(
            "start_many",
            lambda sql, g: _answers(
                sql.start_many(
                    [{"id": each, "function": "f", "queue": g.names.queue} for each in (g.names.x, g.names.w)]
                )
            ),
            grounds.free,
            "created attached conflict",
        ),
        _verb(
            "start_together",
            lambda sql, g: _answers(
                sql.start_together(
                    [{"id": each, "function": "f", "queue": g.names.queue} for each in (g.names.x, g.names.w)]
                )
            ),
            grounds.free,
            "created attached conflict 55P03",
        ),
        _verb(
            "start_each",
            lambda sql, g: (
                _answers(sql.start_each("f", [g.names.x, g.names.w], [{}, {}], queue=g.names.queue))
                or "created"
            ),
            grounds.free,
            "created attached conflict",
        ),
        _verb(
            "create_promise",
            _answer(lambda sql, g: sql.create_promise(g.names.p)),
            grounds.free,
            "created attached",
        ),
        _verb("resolve", _answer(lambda sql, g: sql.resolve(g.names.p, 1)), grounds.suspended, SETTLED),
        _verb("reject", _answer(lambda sql, g: sql.reject(g.names.p, "no")), grounds.suspended, SETTLED),
        _verb(
            "cancel", _answer(lambda sql, g: sql.cancel(g.names.w)), grounds.suspended, SETTLED + " requested"
        ),
        _verb("settle_many", _settle_many, grounds.suspended, SETTLED + " requested"),
        _verb("cancel_force", _answer(lambda sql, g: sql.cancel_force(g.names.w)), grounds.held, SETTLED),
        _verb(
            "halt",
            _answer(lambda sql, g: sql.halt(g.names.w)),
            grounds.held,
            "halted already settled unknown",
        ),
        _verb(
            "resume",
            _answer(lambda sql, g: sql.resume(g.names.w)),
            grounds.halted,
            "resumed not_halted settled unknown",
        ),
        _verb(
            "fork",
            _answer(lambda sql, g: sql.fork(g.names.w, f"f{g.names.w}")),
            grounds.held,
            "created attached TR011 TR012",
        ),
        _verb(
            "settle_step",
            _answer(lambda sql, g: sql.settle_step(g.names.w, "s", 1)),
            grounds.suspended,
            "recorded already conflict not_a_step settled unknown TR012",
        ),
        _verb("purge", _purge, grounds.ended, "done"),
        _verb(
            "import_journal",
            _answer(lambda sql, g: sql.import_journal(grounds.free(sql, g.names).record, [])),
            grounds.free,
            "created TR010",
        ),
        _verb("claim", _claim, grounds.ready, "claimed none", worker=True),
        _verb(
            "suspend",
            _advance(
                "suspend",
                operations=lambda g: [wait(g.names.w, "again", g.names.p)],
                timers=lambda g: [timer(g.names.w, "t2", HOUR)],
            ),
            grounds.held,
            TURN,
            worker=True,
        ),
        _verb("finish", _advance("finish"), grounds.held, TURN, worker=True),
        _verb("create", _advance(None, operations=_made), grounds.held, TURN + " halted", worker=True),
        _verb(
            "outcomes",
            _advance(
                None,
                outcomes=lambda g: [step(g.names.w, "s"), step(g.names.w, "s2")],
                attempts=lambda g: [attempt(g.names.w, "s3", 1)],
            ),
            grounds.held,
            TURN,
            worker=True,
        ),
        _verb("release", _advance("release"), grounds.held, TURN, worker=True),
        _verb(
            "commit_step",
            lambda sql, g: str(sql.commit_step(g.names.w, g.epoch, "s", 0)[0]["answer"]),
            grounds.held,
            "ok recorded busy fenced",
            worker=True,
        ),
        _verb("heartbeat", _heartbeat, grounds.held, "nothing news lost alone TR020", worker=True),
        _verb("tick: timeouts and timers", _tick, grounds.overdue, "done", worker=True),
        _verb("tick: dead workers", _tick, grounds.orphaned, "done", worker=True),
        _verb("tick: closings", _tick, grounds.closing, "done", worker=True),
        _verb("leave", _leave, grounds.held, "left none", worker=True),
        _verb("register", _register, grounds.free, "done"),
    )
}
