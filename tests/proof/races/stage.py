"""A namespace with points in its functions, two sessions and their conductor; and what is asked of it when they have ended.

What is asked: no invariant is broken (lost wake-ups among them), and the end can be reached from there: a worker that comes
later finishes everything, with nobody's help but that of operators who resume what is halted and of people who decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from itertools import count

from psycopg import sql as composed
from psycopg.errors import Diagnostic

from tests.proof.invariants.changes import forget_changes, install_changes, violated_changes
from tests.proof.races.calls import Do
from tests.proof.races.conductor import Conductor, Session, worded
from tests.proof.races.ground import Ground, Make, Names
from tests.proof.races.pauses import Function, functions, install, load
from tests.support.postgres import connected
from tests.support.sql import Sql, Worker, turn
from troth.testing.server import tables
from troth.testing.violations import violations

CALM_ROUNDS_MAX = 50
"""So often a later worker looks whether anything is left to do."""


class Stage:
    """One database, for one pair after another."""

    def __init__(self, boss: Sql, conductor: Conductor) -> None:
        self.boss = boss
        self.conductor = conductor
        self._functions = functions(boss.connection)
        install_changes(boss.connection)
        self.points = install(boss.connection)
        self._paths: dict[tuple[Do, Make], list[str]] = {}
        self._emptying = composed.SQL("; ").join(
            [
                *(
                    composed.SQL("delete from {}").format(composed.Identifier(table))
                    for table in tables(boss.connection)
                ),
                composed.SQL("update test_clock set shift = '0' where shift <> '0'"),
            ]
        )
        self._numbers = count(1)

    @property
    def sessions(self) -> Sequence[Session]:
        return self.conductor.sessions

    def ground(self, make: Make) -> Ground:
        """Rows that no round has used yet."""
        return make(self.boss, Names(f"r{next(self._numbers)}"))

    def path(self, do: Do, make: Make) -> list[str]:
        """The points that a call passes on a ground where nobody disturbs it, each once."""
        if (do, make) not in self._paths:
            session = self.sessions[0]
            ground = self.ground(make)
            passed: list[str] = []
            note = partial(_note, passed)
            session.sql.connection.add_notice_handler(note)
            session.sql.query("select set_config('races.stops', 'trace', false)")
            worded(lambda sql: do(sql, ground), session.sql)
            session.sql.query("select set_config('races.stops', '', false)")
            session.sql.connection.remove_notice_handler(note)
            self._paths[do, make] = list(dict.fromkeys(passed))
        return self._paths[do, make]

    @contextmanager
    def mutated(self, edits: Iterable[tuple[str, str, str]]) -> Iterator[None]:
        """Functions with other texts for a while: (function, old text, new text); old text must stand in it once."""
        changed: dict[str, Function] = {}
        for name, old, new in edits:
            function = changed.get(name, self._functions[name])
            if function.definition.count(old) != 1:
                raise LookupError(f"{name} has {function.definition.count(old)} times: {old}")
            changed[name] = replace(
                function,
                body=function.body.replace(old, new),
                definition=function.definition.replace(old, new),
            )
        self._load(changed.values())
        try:
            yield
        finally:
            self._load(self._functions[name] for name in changed)

    def _load(self, changed: Iterable[Function]) -> None:
        for each in changed:
            load(self.boss.connection, each, self.points)
        self._paths.clear()

    def wrong(self) -> list[str]:
        """What is broken, as sentences; none if all is well."""
        return [f"{each.invariant} {each.id}: {each.detail}" for each in violations(self.boss.connection)]

    def wrong_steps(self) -> list[str]:
        """What was broken from one state to the next since this was asked last."""
        found = violated_changes(self.boss.connection)
        forget_changes(self.boss.connection)
        return [f"{each.invariant} {each.id}: {each.detail}" for each in found]

    def stuck(self) -> list[str]:
        """Bring everything to its end, and say what would not come to one."""
        worker = Worker(self.boss, f"calm-{next(self._numbers)}")
        for _ in range(CALM_ROUNDS_MAX):
            if not self._calmed(worker):
                break
        rows = self.boss.query(
            """select 'task' as what, id, state from task
               union all select 'promise', id, state from promise where state = 'pending'
               union all select 'closing', id, '' from closing union all select 'wait', task, operation from wait"""
        )
        return [f"no end of {each['what']} {each['id']} ({each['state']})" for each in rows]

    def _calmed(self, worker: Worker) -> bool:
        """One look at what is left to do; whether there was anything."""
        sql = self.boss
        sql.tick(1000)
        for each in sql.query("select distinct worker from task where worker is not null"):
            sql.leave(each["worker"])
        for each in sql.query("select id from task where state = 'halted'"):
            sql.resume(each["id"])
        latent = sql.query("select id from promise where open_at is not null")
        if latent:
            sql.settle_many([{"id": each["id"], "verb": "resolve"} for each in latent])
        queues = [each["queue"] for each in sql.query("select distinct queue from task")]
        for alone in (True, False):
            claimed = worker.claim(1000, queues, alone=alone) if queues else []
            if claimed:
                worker.advance(
                    *(
                        turn(each["task"], each["epoch"], each["last_seq"], "finish", state="resolved")
                        for each in claimed
                    )
                )
        return bool(queues or latent or sql.query("select from closing"))

    def recover(self) -> None:
        """Whatever a test left standing: let everybody go on to the end, and empty the namespace."""
        self.conductor.give_up()
        self.clean()
        forget_changes(self.boss.connection)

    def clean(self) -> None:
        """Empty the namespace."""
        self.boss.connection.execute(self._emptying)


def _note(passed: list[str], notice: Diagnostic) -> None:
    message = notice.message_primary or ""
    if message.startswith("at "):
        passed.append(message.removeprefix("at "))


@contextmanager
def staged(dsn: str) -> Iterator[Stage]:
    """A stage in the database of `dsn`, which nobody else uses."""
    with (
        closing(connected(dsn)) as boss,
        closing(connected(dsn)) as first,
        closing(connected(dsn)) as second,
        closing(connected(dsn)) as watcher,
    ):
        sessions = [Session.of(first), Session.of(second)]
        try:
            yield Stage(Sql(boss), Conductor(watcher, sessions))
        finally:
            for each in sessions:
                each.close()
