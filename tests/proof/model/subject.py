"""The SQL side: calls over one connection, and what each of them changed.

One round trip a step: a function of the test's own sets the clock, makes the call, and answers with what the call said and every
row that it wrote (those whose `xmin` is this transaction's or one within it), with the number and a checksum of the keys
of each table, by which rows that are gone are missed. Limits and clock are replaced in this one namespace.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg

from tests.proof.model.changing import change
from tests.proof.model.rows import SECOND, Json, Limits
from tests.support.postgres import connected
from troth.testing.violations import Violation, violations

Given = dict[str, Any]
_STEP: Final = Path(__file__).with_name("step.sql")
_TABLES: Final = (
    "promise",
    "task",
    "checkpoint",
    "wait",
    "attempt",
    "worker",
    "function",
    "closing",
    "audit",
)
_RUNS_TO_VACUUM: Final = 20


class Subject:
    """The functions of the namespace `troth` behind a DSN. The database is this object's alone."""

    def __init__(self, dsn: str, limits: Limits) -> None:
        self._plain = connected(dsn, "troth")
        for name, limit in asdict(limits).items():
            self._plain.execute(
                f"create or replace function _{name}_max() returns integer"
                f" language sql immutable as $$ select {limit} $$".encode()
            )
        self._plain.execute(_STEP.read_text().encode())
        for setting in (
            "synchronous_commit = off",
            "timezone = 'UTC'",
            "jit = off",
            "client_min_messages = error",
        ):
            self._plain.execute(f"set {setting}".encode())
        self._snapshot = connected(
            dsn,
            "troth",
            options="-c search_path=troth,pg_temp -c default_transaction_isolation=repeatable\\ read -c timezone=UTC",
        )
        self.actor: str = self._one("select session_user::text")
        self._runs = 0

    def _one(self, query: str, *values: object) -> Any:
        row = self._plain.execute(query.encode(), values or None).fetchone()
        assert row is not None
        return row[0]

    def call(self, verb: str, given: Given, now: int, *, read_committed: bool = True) -> Given:
        """`{"answer", "rows": {table: [number, checksum, rows written]}}`; of an error `{"answer": {"sqlstate", "message"}}`."""
        connection = self._plain if read_committed else self._snapshot
        with connection.cursor() as cursor:
            cursor.execute(
                "select step(%s, %s::jsonb, %s)",
                [verb, msgspec.json.encode(_as_sent(verb, given)).decode(), now],
                prepare=True,
            )
            row = cursor.fetchone()
        assert row is not None
        answered: Given = msgspec.json.decode(row[0])
        return answered

    def rows(self) -> Given:
        """Every row of every table, as `call` answers what was written."""
        found: Given = self._one("select written(0)")
        return found

    def violations(self) -> list[Violation]:
        return violations(self._plain)

    def empty(self) -> None:
        """Make room for the next run: no rows, and now and then no traces of them."""
        for table in _TABLES:
            self._plain.execute(f"delete from {table}".encode())
        self._runs += 1
        if self._runs % _RUNS_TO_VACUUM == 0:
            self._plain.execute(f"vacuum {', '.join(_TABLES)}".encode())

    def change(self, function: str, right: str, wrong: str) -> None:
        """Make one function of this namespace another (how wrong engines are made)."""
        change(self._plain, function, right, wrong)

    def close(self) -> None:
        with suppress(psycopg.Error):
            self._snapshot.close()
            self._plain.close()


def _as_sent(verb: str, given: Given) -> Json:
    """Items of starts say their durations in seconds, all else is in microseconds."""
    if verb not in {"start_many", "start_together"} or not isinstance(given["items"], list):
        return given

    def seconds(item: Json) -> Json:
        if not isinstance(item, dict):
            return item
        return {
            key: value / SECOND if key in {"delay", "timeout"} and isinstance(value, int) else value
            for key, value in item.items()
        }

    return given | {"items": [seconds(item) for item in given["items"]]}
