"""The calls whose plans are held to: each verb of the protocol, `advance` with each part that it may have.

A call is two functions, what must be there before and the call itself, and the number of things that it is about. All that a
call asks for is its own, or a few rows of the crowd, so what it reads may grow with that number and with nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Self

from tests.support.sql import (
    Row,
    Sql,
    Worker,
    attempt,
    call,
    promise,
    retry,
    start,
    step,
    timer,
    turn,
    wait,
)

ITEMS: Final = 10
NAMES: Final = tuple(f"n{n}" for n in range(ITEMS))
LATENT: Final = tuple(f"s{n}~p" for n in range(1001, 1001 + ITEMS))
"""Promises of the crowd that suspended workflows of the crowd wait for."""


class Stage:
    """Where a call is made: a session, and a worker in it."""

    def __init__(self, sql: Sql) -> None:
        self.sql = sql
        self.worker = Worker(sql, "mine", ("f", "g"))

    def held(self) -> Self:
        """Tasks of our own that our worker holds, epoch 1, nothing seen."""
        self.sql.start_many([{"id": each, "function": "f", "queue": "mine"} for each in NAMES])
        claimed = self.worker.claim(ITEMS, queues=["mine"])
        assert len(claimed) == ITEMS
        return self

    def advance(self, *turns: Row, **parts: Iterable[Row]) -> dict[str, Row]:
        """Turns that all go well."""
        answers = self.worker.advance(*turns, **parts)
        assert {each["answer"] for each in answers.values()} <= {"ok", "halted"}, answers
        return answers

    def turns(self, then: str | None = None, seen: int = 0, **more: Any) -> list[Row]:
        return [turn(each, 1, seen, then, **more) for each in NAMES]

    def waiting(self, **options: Any) -> Self:
        """Tasks of our own that are suspended, each on a promise `p` of its own."""
        self.held()
        self.advance(*self.turns("suspend"), operations=[promise(each, "p", **options) for each in NAMES])
        return self

    def parents(self, suspended: bool) -> Self:
        """Tasks of our own, each with a child that our worker holds."""
        self.held()
        children = [call(each, "c", queue="mine") for each in NAMES]
        self.advance(*self.turns("suspend" if suspended else None), operations=children)
        assert len(self.worker.claim(ITEMS, queues=["mine"])) == ITEMS
        return self


Act = Callable[[Stage], Any]


@dataclass(frozen=True)
class Call:
    """`act`, after `before`, is about `items` things."""

    act: Act
    before: Act = lambda stage: None
    items: int = ITEMS


def finish(stage: Stage, names: Iterable[str] = NAMES, seen: int = 0) -> dict[str, Row]:
    return stage.advance(*(turn(each, 1, seen, "finish", state="resolved", value=1) for each in names))


def settled(stage: Stage) -> None:
    stage.waiting()
    stage.sql.settle_many([{"id": f"{each}~p", "verb": "resolve", "value": 1} for each in NAMES])


def silent(stage: Stage) -> None:
    stage.held()
    stage.sql.query("update worker set seen_at = now() - interval '1 hour' where id = 'mine'")


def ticked(what: str, count: int = ITEMS) -> Act:
    """A tick that may do no more than `count` things, and does them."""

    def act(stage: Stage) -> None:
        answer = stage.sql.tick(count)
        assert answer[what] == count, answer

    return act


def settle_many(verb: str) -> Act:
    return lambda stage: stage.sql.settle_many([{"id": each, "verb": verb} for each in LATENT])


ADVANCES: Final[dict[str, Call]] = {
    "outcomes": Call(lambda s: s.advance(*s.turns(), outcomes=[step(each, "x") for each in NAMES]), Stage.held),
    "promises": Call(lambda s: s.advance(*s.turns(), operations=[promise(each, "p") for each in NAMES]), Stage.held),
    "waits for what is pending": Call(
        lambda s: s.advance(
            *s.turns(),
            operations=[wait(each, "w", on) for each, on in zip(NAMES, LATENT, strict=True)],
        ),
        Stage.held,
    ),
    "waits for what is settled": Call(
        lambda s: s.advance(
            *s.turns(), operations=[wait(each, "w", f"f{n}") for n, each in enumerate(NAMES, 77)]
        ),
        Stage.held,
    ),
    "calls": Call(lambda s: s.advance(*s.turns(), operations=[call(each, "c") for each in NAMES]), Stage.held),
    "starts": Call(
        lambda s: s.advance(*s.turns(), operations=[start(each, "c", delay=9) for each in NAMES]), Stage.held
    ),
    "nested calls": Call(
        lambda s: s.advance(
            *(turn(f"{each}~c", 1, 0) for each in NAMES), operations=[call(f"{each}~c", "d") for each in NAMES]
        ),
        lambda s: s.parents(suspended=True),
    ),
    "a call that is there": Call(
        lambda s: s.advance(
            *s.turns(),
            operations=[call(each, "c", promise=f"r{n}", function="g") for n, each in enumerate(NAMES, 1)],
        ),
        Stage.held,
    ),
    "timers": Call(
        lambda s: s.advance(*s.turns("suspend"), timers=[timer(each, "t", 10**9) for each in NAMES]), Stage.held
    ),
    "a retry": Call(
        lambda s: s.advance(
            *s.turns("suspend"),
            timers=[retry(each, "x", 10**9) for each in NAMES],
            attempts=[attempt(each, "x", 1, ended=True, retry_in=10**9) for each in NAMES],
        ),
        Stage.held,
    ),
    "attempts": Call(
        lambda s: s.advance(*s.turns(), attempts=[attempt(each, "x", 1) for each in NAMES]), Stage.held
    ),
    "cancels": Call(
        lambda s: s.advance(*s.turns(), cancels=[{"task": each, "promise": f"{each}~c"} for each in NAMES]),
        lambda s: s.parents(suspended=False),
    ),
    "finish": Call(finish, Stage.held),
    "finish with a step": Call(
        lambda s: s.advance(
            *s.turns("finish", state="resolved"), outcomes=[step(each, "x") for each in NAMES]
        ),
        Stage.held,
    ),
    "finish of children": Call(
        lambda s: finish(s, [f"{each}~c" for each in NAMES]), lambda s: s.parents(suspended=True)
    ),
    "finish of parents": Call(finish, lambda s: s.parents(suspended=False)),
    "suspend": Call(
        lambda s: s.advance(*s.turns("suspend", keep=True), operations=[promise(each, "p") for each in NAMES]),
        Stage.held,
    ),
    "close": Call(
        lambda s: s.advance(*s.turns("suspend", close=True)), lambda s: s.parents(suspended=False)
    ),
    "release": Call(lambda s: s.advance(*s.turns("release")), Stage.held),
    "halt": Call(lambda s: s.advance(*s.turns("halt")), Stage.held),
    "news": Call(
        lambda s: s.worker.advance(*s.turns("suspend"), outcomes=[step(each, "x") for each in NAMES]),
        lambda s: (s.held(), [s.sql.cancel(each) for each in NAMES]),
    ),
    "a fired timer": Call(
        lambda s: s.advance(
            *(turn(each, 2, 1) for each in NAMES),
            outcomes=[{**step(each, "t"), "kind": "timer", "micros": 1} for each in NAMES],
        ),
        lambda s: (
            s.held(),
            s.advance(
                *s.turns("suspend"),
                timers=[timer(each, "t", 1) for each in NAMES],
                operations=[promise(each, "p") for each in NAMES],
            ),
            s.sql.settle_many([{"id": f"{each}~p", "verb": "resolve"} for each in NAMES]),
            s.worker.claim(ITEMS, queues=["mine"]),
        ),
    ),
}  # fmt: skip

SETTLES: Final[dict[str, Call]] = {
    "resolve": Call(lambda s: s.sql.resolve("s77~p", 1), items=1),
    "reject": Call(lambda s: s.sql.reject("s77~p", {"type": "E", "message": "m"}), items=1),
    "cancel of a promise": Call(lambda s: s.sql.cancel("s77~p"), items=1),
    "cancel of what never ran": Call(lambda s: s.sql.cancel("r77"), items=1),
    "cancel of what waits": Call(lambda s: s.sql.cancel("s77"), items=1),
    "cancel by force": Call(lambda s: s.sql.cancel_force("s77"), items=1),
    "settle_many: resolve": Call(settle_many("resolve")),
    "settle_many: cancel": Call(settle_many("cancel")),
    "a timeout that get meets": Call(
        lambda s: s.sql.get([f"{each}~p" for each in NAMES]), lambda s: s.waiting(timeout=0)
    ),
}

TICKS: Final[dict[str, Call]] = {
    "tick: nothing": Call(lambda s: s.sql.tick(), items=1),
    "tick: timeouts": Call(ticked("promises"), lambda s: s.waiting(timeout=0)),
    "tick: timers": Call(
        ticked("timers"),
        lambda s: (s.held(), s.advance(*s.turns("suspend"), timers=[timer(each, "t", 0) for each in NAMES])),
    ),
    "tick: a silent worker": Call(ticked("workers"), silent),
    "tick: children owed a cancel": Call(ticked("closed"), lambda s: (s.parents(suspended=False), finish(s))),
    "tick: given up": Call(
        ticked("closed"),
        lambda s: (
            s.parents(suspended=False),
            s.advance(*s.turns(), cancels=[{"task": each, "promise": f"{each}~c"} for each in NAMES]),
        ),
    ),
}

OTHERS: Final[dict[str, Call]] = {
    "claim: new": Call(lambda s: s.worker.claim(ITEMS)),
    "claim: woken": Call(lambda s: s.worker.claim(ITEMS, queues=["mine"]), settled),
    "claim: alone": Call(lambda s: s.worker.claim(ITEMS, alone=True)),
    "claim: nothing": Call(lambda s: s.worker.claim(ITEMS, lanes=["unknown"])),
    "heartbeat": Call(lambda s: s.sql.heartbeat("mine", list(NAMES), [1] * ITEMS), Stage.held),
    "heartbeat: a claim that was lost": Call(lambda s: s.sql.heartbeat("mine", [], [], "0"), Stage.held),
    "leave": Call(lambda s: s.sql.leave("mine"), Stage.held),
    "get": Call(lambda s: s.sql.get([*NAMES, *LATENT, "f5", "s5"]), Stage.held, items=22),
    "settled": Call(lambda s: s.sql.settled([*NAMES, *LATENT, "f5", "s5"]), Stage.held, items=22),
    "start": Call(lambda s: s.sql.start("n", "f"), items=1),
    "start: attached": Call(lambda s: s.sql.start("f77", "f"), items=1),
    "start_many": Call(lambda s: s.sql.start_many([{"id": each, "function": "f"} for each in NAMES])),
    "start_many: attached": Call(
        lambda s: s.sql.start_many([{"id": f"f{n}", "function": "f"} for n in range(1, 1 + ITEMS)])
    ),
    "start_together": Call(
        lambda s: s.sql.start_together([{"id": each, "function": "f"} for each in NAMES], list(NAMES))
    ),
    "start_together: attached": Call(
        lambda s: s.sql.start_together([{"id": f"f{n}", "function": "f"} for n in range(1, 1 + ITEMS)])
    ),
    "start_each": Call(lambda s: s.sql.start_each("f", list(NAMES), [{}] * ITEMS)),
    "start_each: attached": Call(
        lambda s: s.sql.start_each("f", [f"f{n}" for n in range(1, 1 + ITEMS)], [{}] * ITEMS)
    ),
    "create_promise": Call(lambda s: s.sql.create_promise("n", "1 hour"), items=1),
    "commit_step": Call(lambda s: s.sql.commit_step("n1", 1, "x", 0), Stage.held, items=1),
    "journal": Call(lambda s: s.sql.journal("f77"), items=1),
    "record": Call(lambda s: s.sql.record("s77"), items=1),
    "tree": Call(lambda s: s.sql.tree("f77"), items=2),
    "purge": Call(lambda s: s.sql.purge("30 days", ITEMS)),
    "purge: nothing": Call(lambda s: s.sql.purge("3650 days", ITEMS), items=1),
    "halt": Call(lambda s: s.sql.halt("s77"), items=1),
    "resume": Call(lambda s: s.sql.resume("s77"), lambda s: s.sql.halt("s77"), items=1),
    "fork": Call(lambda s: s.sql.fork("f77", "n"), items=1),
    "settle_step": Call(lambda s: s.sql.settle_step("s76", "x", 1), items=1),
}

CROWDED: Final[dict[str, Call]] = {
    "tick: some of many timeouts": Call(
        ticked("promises"),
        lambda s: s.sql.query(
            """update promise set timeout_at = created_at, expires_at = created_at
                where id = any (array(select 's' || n || '~p' from generate_series(1, 3000) n))"""
        ),
    ),
    "tick: some of many timers": Call(
        ticked("timers"),
        lambda s: s.sql.query(
            """update wait set fire_at = now() where promise is null
                  and task = any (array(select 's' || n from generate_series(1, 12000, 4) n))"""
        ),
    ),
}
"""What leaves thousands of dead rows behind for those who come next: last of all."""

CALLS: Final = {f"advance: {name}": each for name, each in ADVANCES.items()} | SETTLES | TICKS | OTHERS
