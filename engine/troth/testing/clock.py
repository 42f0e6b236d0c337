"""A namespace's clock that a test can move.

Every function of a namespace reads the time from `_clock()` alone. Here that helper is replaced by one that adds an
offset from a table of one row, both made at this moment and only in a namespace that holds no promise yet: what has
happened by the true clock must not be judged by another. The next `migrate` puts the true clock back.

It moves what Postgres judges (timeouts, timers, leases, retention), not what a process does with its own time.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final, LiteralString

from psycopg import Connection, sql

from troth.errors import WrongState
from troth.schema.names import DEFAULT_SCHEMA, checked

CLOCK_TABLE: Final = "test_clock"
"""Its one row says by how much the namespace's clock differs from the true one."""

_MOVABLE: Final[LiteralString] = """
create table {schema}.test_clock (shift interval not null);
insert into {schema}.test_clock values ('0');
alter table {schema}.test_clock owner to {owner};
create or replace function {schema}._clock() returns timestamptz
  language sql volatile
as $$ select clock_timestamp() + (select shift from {schema}.test_clock) $$;
"""


class Clock:
    """The clock of the namespace `schema`, made movable over a connection of its owner or of a superuser.

    Raises `WrongState` if the namespace is in use and its clock is not movable already.

        clock = Clock(connection)
        clock.advance(timedelta(days=7))
    """

    def __init__(self, connection: Connection[Any], schema: str = DEFAULT_SCHEMA) -> None:
        self._connection = connection
        self._schema = sql.Identifier(checked(schema))
        with connection.transaction():
            if self._ask("select to_regclass(%s) is null", f"{schema}.{CLOCK_TABLE}"):
                if self._ask("select exists (select from {schema}.promise)"):
                    raise WrongState(
                        f"The namespace {schema} holds promises, so its clock stays the true one.",
                        hint="Make the clock movable right after `migrate`, in a namespace for tests.",
                    )
                owner = self._ask(
                    "select pg_get_userbyid(relowner) from pg_class where oid = %s::regclass",
                    f"{schema}.promise",
                )
                connection.execute(sql.SQL(_MOVABLE).format(schema=self._schema, owner=sql.Identifier(owner)))

    def now(self) -> datetime:
        """What the namespace takes for the present."""
        now: datetime = self._ask("select {schema}._clock()")
        return now

    def advance(self, by: timedelta) -> None:
        """Move the clock by so much; a negative duration moves it back."""
        self._execute("update {schema}.test_clock set shift = shift + %s", by)

    def set(self, offset: timedelta) -> None:
        """Let the clock differ from the true one by so much."""
        self._execute("update {schema}.test_clock set shift = %s", offset)

    def _ask(self, query: LiteralString, *values: object) -> Any:
        row = self._execute(query, *values).fetchone()
        assert row is not None
        return row[0]

    def _execute(self, query: LiteralString, *values: object) -> Any:
        return self._connection.execute(sql.SQL(query).format(schema=self._schema), values or None)
