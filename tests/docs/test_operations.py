"""`docs/operations.md` and `docs/performance.md`: their settings exist in Postgres, and their SQL runs."""

from __future__ import annotations

import re
from collections.abc import Callable

import psycopg
import pytest

from tests.docs.pages import Played, blocks, page

PAGES = ("operations.md", "performance.md")
SETTINGS = [
    (name, value.strip())
    for told in PAGES
    for block in blocks(page(told), "ini")
    for name, value in re.findall(r"^(\w+) = ([^#\n]+)", block.text, re.MULTILINE)
    if name.islower()
]
QUERIES = [
    statement
    for told in PAGES
    for block in blocks(page(told), "sql")
    for statement in block.text.split(";\n")
    if statement.strip()
]


@pytest.mark.parametrize(("name", "value"), SETTINGS)
def test_a_setting_is_one_of_postgres(dsn: str, name: str, value: str) -> None:
    with psycopg.connect(dsn) as db:
        (kind,) = db.execute("select vartype from pg_settings where name = %s", [name]).fetchone() or (None,)
    number = re.fullmatch(r"\d+(\w+)?", value)
    assert kind in (
        ("string",) if value.startswith("'") else ("integer", "real") if number else ("enum", "bool")
    )


@pytest.mark.parametrize("query", QUERIES)
def test_its_sql_runs(dsn: str, query: str) -> None:
    with psycopg.connect(dsn) as db:
        db.execute(query.encode())


def test_all_of_its_python_is_a_program(play: Callable[[str], Played]) -> None:
    assert play("operations.md").never_ran == []
