"""How wrong engines are made: one function of a test's own namespace, with one piece of it replaced."""

from __future__ import annotations

from typing import Any

import psycopg


def change(connection: psycopg.Connection[Any], function: str, right: str, wrong: str) -> None:
    """Replace what is right in a function of the namespace `troth` by what is wrong."""
    row = connection.execute(
        "select pg_get_functiondef(oid) from pg_proc where proname = %s and pronamespace = 'troth'::regnamespace",
        [function],
    ).fetchone()
    assert row is not None, f"there is no function {function}"
    assert right in row[0], f"{function} has no {right!r}"
    connection.execute(row[0].replace(right, wrong).encode())
