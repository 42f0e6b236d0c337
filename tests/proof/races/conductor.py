"""Two sessions, driven step by step: from one point to the next, until both have ended.

A session is at rest when it stands at a point, has ended, or is blocked by the other one while that is at rest itself. All
of that is seen in Postgres (pg_locks, pg_blocking_pids), never guessed from the time that passed: a wait is a look, again
and again, and ends with an error only if nothing happened for a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import psycopg

from tests.support.sql import Sql

GUARD_S = 60.0
"""For so long nothing may happen."""

LOOK_AGAIN_S = 0.0003

Rest = Literal["idle", "paused", "blocked", "ended"]
Call = Callable[[Sql], str]


@dataclass
class Session:
    """One connection with a thread of its own, and the call that runs on it."""

    sql: Sql
    pid: int
    thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    stops: Sequence[str] = ()
    running: Future[str] | None = None
    rest: Rest = "idle"
    at: str = ""
    blocked: bool = False

    @classmethod
    def of(cls, connection: psycopg.Connection[Any]) -> Session:
        connection.execute("set deadlock_timeout = '50ms'; set statement_timeout = '60s'")
        return cls(Sql(connection), connection.info.backend_pid)

    @property
    def ended(self) -> bool:
        return self.running is None or self.running.done()

    def close(self) -> None:
        self.thread.shutdown()

    def answer(self) -> str:
        """What the call answered: a word, or the SQLSTATE that it raised."""
        assert self.running is not None
        return self.running.result()


def worded(call: Call, sql: Sql) -> str:
    """What a call came to: its own word, or the SQLSTATE."""
    try:
        return call(sql)
    except psycopg.Error as error:
        return error.sqlstate or type(error).__name__


class Conductor:
    """Who lets the sessions go on."""

    def __init__(self, connection: psycopg.Connection[Any], sessions: Sequence[Session]) -> None:
        self._connection = connection
        self.sessions = sessions

    def arm(self, session: Session, stops: Sequence[str]) -> None:
        """Let the session's next call stop at these points, in whichever order it comes by them."""
        session.stops, session.running, session.rest, session.blocked = stops, None, "idle", False
        session.sql.connection.execute("select set_config('races.stops', %s, false)", [" ".join(stops)])
        self._connection.execute(
            "select pg_advisory_lock(%s, n) from generate_series(1, %s) n", [session.pid, len(stops)]
        )

    def step(self, session: Session, call: Call) -> None:
        """Let the session begin, or go on, until everybody is at rest again. A blocked one has to wait for the other."""
        if session.running is None:
            session.running = session.thread.submit(worded, call, session.sql)
        elif session.rest == "paused":
            self._release(session, session.at)
        self.settle()

    def drain(self, first: Session) -> None:
        """Let everybody go on to the end, `first` first."""
        for session in (first, *(each for each in self.sessions if each is not first)):
            for stop in session.stops:
                if not (session.rest == "paused" and stop == session.at):
                    self._release(session, stop)
            if session.rest == "paused":
                self._release(session, session.at)
            self.settle()
        assert all(session.ended for session in self.sessions)

    def give_up(self) -> None:
        """Let go of everything, whoever stands where."""
        self._connection.execute("select pg_advisory_unlock_all()")
        for session in self.sessions:
            if session.running is not None:
                session.running.exception(timeout=GUARD_S)

    def settle(self) -> None:
        """Until everybody is at rest."""
        until = time.monotonic() + GUARD_S
        while not self._at_rest():
            assert time.monotonic() < until, [(each.rest, each.at) for each in self.sessions]
            time.sleep(LOOK_AGAIN_S)

    def _release(self, session: Session, stop: str) -> None:
        place = session.stops.index(stop) + 1
        # what was let go of before is not held any more: a second word about it would only warn
        self._connection.execute(
            """select pg_advisory_unlock(%s, %s) from pg_locks
                where pid = pg_backend_pid() and locktype = 'advisory' and classid = %s and objid = %s""",
            [session.pid, place, session.pid, place],
        )

    def _at_rest(self) -> bool:
        running = [each for each in self.sessions if not each.ended]
        for each in self.sessions:
            if each.ended:
                each.rest = "ended" if each.running is not None else "idle"
        if not running:
            return True
        waits = {
            pid: (kind, place)
            for pid, kind, place in self._connection.execute(
                "select pid, locktype, objid from pg_locks where not granted and pid = any (%s)",
                [[each.pid for each in running]],
            )
        }
        blocked: list[Session] = []
        for each in running:
            kind, place = waits.get(each.pid, (None, None))
            if kind == "advisory":
                each.rest, each.at = "paused", each.stops[place - 1]
            elif kind is None:
                return False
            else:
                blocked.append(each)
        return all(self._is_blocked(each, running, blocked) for each in blocked)

    def _is_blocked(self, session: Session, running: Sequence[Session], blocked: Sequence[Session]) -> bool:
        others = [each.pid for each in running if each not in blocked]
        (by_other,) = self._connection.execute(
            "select pg_blocking_pids(%s) && %s::integer[]", [session.pid, others]
        ).fetchone() or (False,)
        if by_other:
            session.rest, session.blocked = "blocked", True
        return bool(by_other)
