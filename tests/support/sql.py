"""The functions of a namespace as Python calls, and a worker that is nothing but such calls.

`Sql` knows no function: it asks the catalog for names, types and shape, so `sql.resolve("a", True)` is
`select resolve(p_id => 'a', p_value => 'true')`. What is a set in SQL is a list here, a row of several columns a dict.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql as composed
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

Connection = psycopg.Connection[Any]
Row = dict[str, Any]

_ORDER = itertools.count()

listeners: Final[list[Callable[[Sql, str, tuple[int, datetime], int, Any], None]]] = []
"""Who is told of every answer that was committed: the session, the verb, when it was asked, after what, and the answers."""


@dataclass(frozen=True)
class _Signature:
    types: Mapping[str, str]
    is_set: bool


class Sql:
    """Calls of the entry functions over one connection."""

    def __init__(self, connection: Connection, schema: str = "troth") -> None:
        self.connection = connection
        self.schema = schema
        rows = connection.execute(
            """select p.proname, p.proretset, coalesce(p.proargnames[1:p.pronargs], '{}'),
                      array(select format_type(t, null) from unnest(p.proargtypes) with ordinality a(t, n) order by n)
                 from pg_proc p where p.pronamespace = %s::regnamespace and p.prokind = 'f'""",
            [schema],
        )
        self._known = {
            name: _Signature(dict(zip(names, types, strict=True)), is_set)
            for name, is_set, names, types in rows
        }

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        if verb not in self._known:
            raise AttributeError(f"no function {verb} in {self.schema}")
        return lambda *given, **named: self.call(verb, *given, **named)

    def call(self, verb: str, *given: Any, **named: Any) -> Any:
        """Positional arguments in the function's order, keywords without their `p_`."""
        signature = self._known[verb]
        values = dict(zip(signature.types, given, strict=False)) | {
            f"p_{key}": each for key, each in named.items()
        }
        arguments = [
            composed.SQL("{} => %s::{}").format(
                composed.Identifier(name), composed.SQL(signature.types[name])
            )
            for name in values
        ]
        query = composed.SQL("select * from {}({})").format(
            composed.Identifier(self.schema, verb), composed.SQL(", ").join(arguments)
        )
        encoded = [
            Jsonb(value)
            if signature.types[name] == "jsonb" and value is not None and not isinstance(value, Jsonb)
            else value
            for name, value in values.items()
        ]
        begun = (next(_ORDER), datetime.now(UTC))
        with self.connection.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(query, encoded).fetchall()
        answers = [next(iter(row.values())) if len(row) == 1 else row for row in rows]
        if self.connection.info.transaction_status is TransactionStatus.IDLE:
            for heard in listeners:
                heard(self, verb, begun, next(_ORDER), answers)
        return answers if signature.is_set else answers[0]

    def query(self, text: str, *values: object) -> list[Row]:
        """Any other statement; its rows as dicts."""
        with self.connection.cursor(row_factory=dict_row) as cursor:
            cursor.execute(text.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def one(self, text: str, *values: object) -> Any:
        """The one column of the one row."""
        (row,) = self.query(text, *values)
        (value,) = row.values()
        return value

    def task(self, task: str) -> Row | None:
        """The task's row, or None once its promise is settled."""
        rows = self.query("select * from task where id = %s", task)
        return rows[0] if rows else None

    def state(self, promise: str) -> str | None:
        """The promise's state as it is stored, judged by nobody."""
        rows = self.query("select state from promise where id = %s", promise)
        return rows[0]["state"] if rows else None

    def events(self, task: str) -> list[tuple[int, str, str]]:
        """The journal as (seq, operation, state)."""
        return [(each["seq"], each["operation"], each["state"]) for each in self.journal(task)]


class Worker:
    """A worker in the terms of the protocol: what it claims and what it says of it. It runs no code."""

    def __init__(self, sql: Sql, name: str = "w1", lanes: Iterable[str] = ("f",)) -> None:
        self.sql = sql
        self.name = name
        self.lanes = [lane for each in lanes for lane in (each, f"{each}@1")]

    def claim(self, limit: int = 10, queues: Iterable[str] = ("default",), **options: Any) -> list[Row]:
        lanes = options.pop("lanes", self.lanes)
        claimed: list[Row] = self.sql.claim(self.name, list(queues), lanes, limit, **options)
        return claimed

    def advance(
        self,
        *turns: Row,
        outcomes: Iterable[Row] = (),
        operations: Iterable[Row] = (),
        timers: Iterable[Row] = (),
        attempts: Iterable[Row] = (),
        cancels: Iterable[Row] = (),
    ) -> dict[str, Row]:
        rows = self.sql.advance(
            list(turns), list(outcomes), list(operations), list(timers), list(attempts), list(cancels)
        )
        return {row["task"]: row for row in rows}

    def finish(self, task: str, epoch: int, seen: int, value: Any = None) -> str:
        """End a workflow; the answer."""
        answer: str = self.advance(turn(task, epoch, seen, "finish", state="resolved", value=value))[task][
            "answer"
        ]
        return answer

    def wait_for(self, task: str, epoch: int = 1, seen: int = 0, operation: str = "approval") -> str:
        """Make a promise and suspend on it; its ID."""
        answer = self.advance(turn(task, epoch, seen, "suspend"), operations=[promise(task, operation, seen)])
        assert (answer[task]["answer"], answer[task]["entries"]) == ("ok", None)
        return f"{task}~{operation}"


def turn(task: str, epoch: int, seen: int, then: str | None = None, **more: Any) -> Row:
    return {"task": task, "epoch": epoch, "seen": seen, "then": then, **more}


def step(task: str, operation: str, issued: int = 0, **more: Any) -> Row:
    return {
        "task": task,
        "operation": operation,
        "kind": "step",
        "issued": issued,
        "state": "resolved",
        **more,
    }


def promise(task: str, operation: str, issued: int = 0, **more: Any) -> Row:
    return {"task": task, "operation": operation, "kind": "promise", "issued": issued, **more}


def wait(task: str, operation: str, on: str, issued: int = 0) -> Row:
    return {"task": task, "operation": operation, "kind": "wait", "promise": on, "issued": issued}


def call(task: str, operation: str, issued: int = 0, **more: Any) -> Row:
    """A child that its parent awaits."""
    return {"task": task, "operation": operation, "kind": "call", "issued": issued, "function": "f", **more}


def start(task: str, operation: str, issued: int = 0, **more: Any) -> Row:
    """A child that outlives its parent."""
    return {**call(task, operation, issued, **more), "kind": "start"}


def retry(task: str, step: str, micros: int, issued: int = 0) -> Row:
    return {"task": task, "operation": step, "kind": "retry", "issued": issued, "micros": micros}


def attempt(task: str, step: str, number: int, **more: Any) -> Row:
    return {"task": task, "operation": step, "number": number, **more}


def timer(task: str, operation: str, micros: int, issued: int = 0) -> Row:
    return {"task": task, "operation": operation, "issued": issued, "micros": micros}


def refused(call: Callable[[], Any]) -> tuple[str | None, str]:
    """The SQLSTATE and the message of the error that a call must raise."""
    with pytest.raises(psycopg.Error) as caught:
        call()
    return caught.value.sqlstate, caught.value.diag.message_primary or ""


def psql(dsn: str, script: Path) -> subprocess.CompletedProcess[str]:
    """Run a script as a person with psql would, stopping at the first error."""
    return subprocess.run(
        ["psql", dsn, "--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--file", str(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PGOPTIONS": "-c search_path=troth,pg_temp"},
    )


def until_blocked(sql: Sql) -> None:
    """Until one session of this database stands before a lock."""
    until = time.monotonic() + 60
    blocked = (
        "select exists (select from pg_locks join pg_stat_activity using (pid) "
        "where not granted and datname = current_database())"
    )
    while not sql.one(blocked):
        assert time.monotonic() < until
