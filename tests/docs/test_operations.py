"""`docs/operations.md`: its settings exist in Postgres, and its SQL runs."""

from __future__ import annotations

import re
from collections.abc import Callable

import psycopg
import pytest

from tests.docs.pages import Played, blocks, page

SETTINGS = [
    (name, value.strip())
    for block in blocks(page("operations.md"), "ini")
    for name, value in re.findall(r"^(\w+) = ([^#\n]+)", block.text, re.MULTILINE)
    if name.islower()
]
QUERIES = [
    statement
    for block in blocks(page("operations.md"), "sql")
    for statement in block.text.split(";\n")
    if statement.strip()
]


@pytest.mark.parametrize(("name", "value"), SETTINGS)
def test_a_setting_is_one_of_postgres(dsn: str, name: str, value: str) -> None:
    with psycopg.connect(dsn) as db:
        (kind,) = db.execute("select vartype from pg_settings where name = %s", [name]).fetchone() or (None,)
    plain = "enum" if name == "synchronous_commit" else "integer" if value.strip().isdigit() else "bool"
    assert kind == ("string" if value.startswith("'") else plain)


@pytest.mark.parametrize("query", QUERIES)
def test_its_sql_runs(dsn: str, query: str) -> None:
    with psycopg.connect(dsn) as db:
        db.execute(query.encode())


def test_all_of_its_python_is_a_program(play: Callable[[str], Played]) -> None:
    assert play("operations.md").never_ran == []
