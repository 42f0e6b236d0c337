"""The invariants of a namespace as a view, `violations(inv, id, detail)`: no row means that all of them hold.

The view stands in a schema of its own beside the namespace (`troth_checks` for `troth`), so that migrations of the
namespace never meet it. What each row means is said in `violations.sql`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, LiteralString, NamedTuple

from psycopg import Connection, sql

from troth.schema.names import DEFAULT_SCHEMA, checked

_VIEW: Final = Path(__file__).with_name("violations.sql")

_LIVENESS: Final = ("I47",)
"""What holds only where something ticks: no test without a worker can be held to it."""


class Violation(NamedTuple):
    """One broken invariant: its number, whose row breaks it, and how."""

    invariant: str
    id: str
    detail: str


def install_violations(connection: Connection[Any], schema: str = DEFAULT_SCHEMA) -> None:
    """Make the view for a namespace, over a connection that may read its tables; again after each migration."""
    checks = sql.Identifier(_checks(schema))
    path: LiteralString = "set local search_path = {checks}, {schema}, pg_temp"
    with connection.transaction():
        connection.execute(sql.SQL("drop schema if exists {} cascade").format(checks))
        connection.execute(sql.SQL("create schema {}").format(checks))
        connection.execute(sql.SQL(path).format(checks=checks, schema=sql.Identifier(checked(schema))))
        connection.execute(_VIEW.read_text("utf-8").encode())


def violations(
    connection: Connection[Any], schema: str = DEFAULT_SCHEMA, *, liveness: bool = False
) -> list[Violation]:
    """What is broken in the namespace right now; with `liveness` also what is overdue (I47), where a worker runs."""
    query: LiteralString = (
        "select inv, id, detail from {}.violations where inv <> all (%s) order by 1, 2, 3 limit 100"
    )
    ignored = [] if liveness else list(_LIVENESS)
    with connection.transaction():
        for each in settings():
            connection.execute(each)
        rows = connection.execute(
            sql.SQL(query).format(sql.Identifier(_checks(schema))), [ignored]
        ).fetchall()
    return [Violation(*row) for row in rows]


def settings() -> tuple[LiteralString, ...]:
    """What the view is read with, in a transaction.

    Compiling so large a view takes longer than to run it. It joins whole tables: where the statistics say that they are
    empty (they were when somebody last looked), Postgres would go through them once for each of their rows.
    """
    return ("set local jit = off", "set local enable_nestloop = off")


def _checks(schema: str) -> str:
    return f"{checked(schema)}_checks"
