"""The log of row changes in a test namespace, and what in it broke an invariant about pairs of states.

    install_changes(connection)                  # a superuser's; in an empty, migrated namespace
    ...                                          # whatever the proof does
    assert violated_changes(connection) == []    # what the namespace's functions did
    forget_changes(connection)                   # before the next round, where the log would grow for long

The log costs a row for each row that is written, so it is not for measuring; it is judged in one go, at the end. The
tests' `dsn` has it for the tests of the functions (`tests/conftest.py`; TROTH_TEST_CHANGES=all: for every test, =none: for
no test). Never install it in a database that is not a test's own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, LiteralString

from psycopg import Connection, sql

from troth.schema.names import DEFAULT_SCHEMA, checked
from troth.testing.violations import Violation

_FILES: Final = tuple(
    Path(__file__).with_name(name)
    for name in ("changes.sql", "transitions.sql", "judged.sql", "situations.sql")
)

LOG_BYTES_MAX: Final = 1024 * 1024
"""A log that has grown beyond this gives its pages back when it is forgotten."""


def install_changes(connection: Connection[Any], schema: str = DEFAULT_SCHEMA) -> None:
    """Begin to log what happens to a namespace's rows, over a superuser's connection; again after each migration."""
    changes = sql.Identifier(_changes(schema))
    path: LiteralString = "set local search_path = {changes}, {schema}, pg_temp"
    with connection.transaction():
        connection.execute(sql.SQL("drop schema if exists {} cascade").format(changes))
        connection.execute(sql.SQL("create schema {}").format(changes))
        connection.execute(sql.SQL(path).format(changes=changes, schema=sql.Identifier(checked(schema))))
        row = connection.execute(
            "select pg_get_userbyid(relowner) from pg_class where oid = 'promise'::regclass"
        ).fetchone()
        assert row is not None
        meant = {
            ":owner": sql.Literal(row[0]).as_string(connection),
            ":log": changes.as_string(connection),
            ":home": sql.Identifier(schema).as_string(connection),
        }
        for file in _FILES:
            text = re.sub("|".join(meant), lambda found: meant[found[0]], file.read_text("utf-8"))
            connection.execute(text.encode())
        if row[0] != connection.info.user:
            grants: LiteralString = (
                "grant usage on schema {changes} to {owner};"
                "grant insert on all tables in schema {changes} to {owner};"
                "grant usage on all sequences in schema {changes} to {owner}"
            )
            connection.execute(sql.SQL(grants).format(changes=changes, owner=sql.Identifier(row[0])))


def violated_changes(
    connection: Connection[Any], schema: str = DEFAULT_SCHEMA, *, by_hand: bool = False
) -> list[Violation]:
    """What broke an invariant since the log began (a hundred at most).

    `by_hand`: also what no function did but a session that had said `set troth.by_hand = on`.
    """
    query: LiteralString = """
        select inv, id, detail from {}.transitions_violated where not by_hand or %s order by 1, 2, 3 limit 100"""
    if not _any_change(connection, schema):
        return []
    rows = _ask(connection, sql.SQL(query).format(sql.Identifier(_changes(schema))), [by_hand])
    return [Violation(*row) for row in rows] + _crossings(connection, schema)


def judged_changes(connection: Connection[Any], schema: str = DEFAULT_SCHEMA) -> dict[tuple[str, str], int]:
    """How many changes each invariant has judged, by (invariant, kind of change); those never met with 0.

    Nothing at all where nothing has changed.
    """
    if not _any_change(connection, schema):
        return {}
    beside = 0
    if len(logged(connection)) > 1:
        query: LiteralString = "select count(distinct xid) from {}.change"
        ((beside,),) = _ask(connection, sql.SQL(query).format(sql.Identifier(_changes(schema))))
    return _counted(connection, schema, "transitions_judged") | {
        ("I52", "transactions beside another namespace"): beside
    }


def judged_situations(
    connection: Connection[Any], schema: str = DEFAULT_SCHEMA
) -> dict[tuple[str, str], int]:
    """How many rows each invariant of one state is about, as they stand now; likewise."""
    return _counted(connection, schema, "situations_judged")


def _counted(connection: Connection[Any], schema: str, view: str) -> dict[tuple[str, str], int]:
    query: LiteralString = "select * from {}"
    rows = _ask(connection, sql.SQL(query).format(sql.Identifier(_changes(schema), view)))
    return {(inv, kind): times for inv, kind, times in rows}


def forget_changes(connection: Connection[Any], schema: str = DEFAULT_SCHEMA) -> None:
    """Begin the log anew."""
    changes = _changes(schema)
    connection.execute(sql.SQL("delete from {}.change").format(sql.Identifier(changes)))
    large = connection.execute(
        """select oid::regclass::text from pg_class
            where relnamespace = %s::regnamespace and relkind = 'r' and pg_table_size(oid) > %s""",
        [changes, LOG_BYTES_MAX],
    ).fetchall()
    for (name,) in large if connection.autocommit else []:
        connection.execute(f"vacuum {name}".encode())


def logged(connection: Connection[Any]) -> list[str]:
    """The namespaces of this database whose changes are logged."""
    rows = connection.execute(
        "select nspname from pg_namespace where nspname like '%\\_changes' order by 1"
    ).fetchall()
    return [name.removesuffix("_changes") for (name,) in rows]


def _any_change(connection: Connection[Any], schema: str) -> bool:
    query: LiteralString = "select exists (select from {}.change)"
    row = connection.execute(sql.SQL(query).format(sql.Identifier(_changes(schema)))).fetchone()
    return row is not None and bool(row[0])


def _crossings(connection: Connection[Any], schema: str) -> list[Violation]:
    """I52: one transaction that changed two namespaces. (A caller's own may; a function's call never.)"""
    query: LiteralString = """
        select distinct a.xid::text from {mine}.change a join {other}.change b using (xid) where not a.by_hand"""
    found: list[Violation] = []
    for other in logged(connection):
        if other != schema:
            composed = sql.SQL(query).format(
                mine=sql.Identifier(_changes(schema)), other=sql.Identifier(_changes(other))
            )
            rows = _ask(connection, composed)
            found += [Violation("I52", xid, f"changed {schema} and {other}") for (xid,) in rows]
    return found


def _ask(connection: Connection[Any], query: sql.Composed, values: list[Any] | None = None) -> list[Any]:
    """The answer to a large query over tables that nobody has analysed."""
    with connection.transaction():
        connection.execute("set local jit = off")
        connection.execute("set local enable_nestloop = off")
        return connection.execute(query, values).fetchall()


def _changes(schema: str) -> str:
    return f"{checked(schema)}_changes"
