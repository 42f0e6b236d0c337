"""Reads every function of the schema against its tables before anybody calls it; any finding fails.

    python tools/check_plpgsql.py

PL/pgSQL functions are read by plpgsql_check with all its warnings on, SQL functions by Postgres' own validator,
which the loader does not wait for. The schema is migrated into a database made for this, on the server of
TROTH_TEST_DSN (a superuser's) if that is given, else on a Postgres 15 that is started and stopped here.

Where plpgsql_check cannot be had it says what is skipped; with CI=true that is a failure.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import LiteralString
from uuid import uuid4

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import class_row

from troth.dev.failures import NoBinaries
from troth.dev.postgres import Postgres
from troth.schema import migrate

SCHEMA = "troth"

# What plpgsql_check begins to say and we do not mend, and why.
ACCEPTED = {
    "routine is marked as VOLATILE, should be": (
        "A function that locks rows in one statement and looks in a later one needs a new snapshot for each, "
        "which only a volatile one has (docs/design.md, locks)."
    ),
}

EXTENSION: LiteralString = "create schema plpgsql_check; create extension plpgsql_check schema plpgsql_check"
FUNCTIONS: LiteralString = """
select p.oid::bigint, p.oid::regprocedure::text as name, l.lanname as language
  from pg_catalog.pg_proc p join pg_catalog.pg_language l on l.oid = p.prolang
 where p.pronamespace = %s::regnamespace
 order by 2
"""
FINDINGS: LiteralString = """
select coalesce(lineno, 0) as line, level, concat_ws(' - ', message, detail, hint) as message
  from plpgsql_check.plpgsql_check_function_tb(
         %s::oid::regprocedure, fatal_errors => false, other_warnings => true, extra_warnings => true,
         performance_warnings => true, security_warnings => true, compatibility_warnings => true)
"""


@dataclass(frozen=True)
class Function:
    """A function as the catalog has it."""

    oid: int
    name: str
    language: str


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a function; line 0 is the whole of it."""

    line: int
    level: str
    message: str


@contextmanager
def server() -> Iterator[str]:
    """The DSN of a server where we may do everything."""
    if given := os.environ.get("TROTH_TEST_DSN"):
        yield given
        return
    with Postgres.start(ephemeral=True, prefer="15") as postgres:
        yield postgres.dsn


@contextmanager
def migrated(dsn: str) -> Iterator[psycopg.Connection]:
    """A connection to a database of our own with the schema in it, gone at the end."""
    name = f"troth_check_{uuid4().hex[:12]}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        try:
            ours = make_conninfo(dsn, dbname=name)
            # Roles belong to the whole server, which may not be ours.
            migrate(ours, schema=SCHEMA, roles=False)
            with psycopg.connect(ours, autocommit=True) as inside:
                yield inside
        finally:
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def findings(connection: psycopg.Connection, function: Function) -> list[Finding]:
    """What is wrong with one function."""
    try:
        if function.language == "sql":
            connection.execute("select pg_catalog.fmgr_sql_validator(%s)", [function.oid])
            return []
        with connection.cursor(row_factory=class_row(Finding)) as cursor:
            return [
                finding
                for finding in cursor.execute(FINDINGS, [function.oid])
                if not finding.message.startswith(tuple(ACCEPTED))
            ]
    except psycopg.Error as error:
        return [Finding(0, "error", str(error))]


def check(connection: psycopg.Connection) -> int:
    """Prints all findings and how many functions were read; the answer is the exit code."""
    connection.execute(EXTENSION)
    connection.execute(sql.SQL("set search_path = {}, pg_temp").format(sql.Identifier(SCHEMA)))
    with connection.cursor(row_factory=class_row(Function)) as cursor:
        functions = cursor.execute(FUNCTIONS, [SCHEMA]).fetchall()
    unreadable = [function.name for function in functions if function.language not in {"plpgsql", "sql"}]
    found = 0
    for function in functions:
        for finding in findings(connection, function):
            found += 1
            print(f"{function.name}, line {finding.line}: {finding.level}: {finding.message}")
    read = {language: sum(f.language == language for f in functions) for language in ("plpgsql", "sql")}
    print(f"plpgsql_check: {read['plpgsql']} PL/pgSQL and {read['sql']} SQL functions read, {found} findings")
    if unreadable:
        print(f"plpgsql_check: nobody can read {', '.join(unreadable)}: another language", file=sys.stderr)
    return 1 if found or unreadable or not read["plpgsql"] else 0


def main() -> int:
    try:
        with server() as dsn:
            with psycopg.connect(dsn) as connection:
                available = connection.execute(
                    "select true from pg_catalog.pg_available_extensions where name = 'plpgsql_check'"
                ).fetchone()
            if available:
                with migrated(dsn) as connection:
                    return check(connection)
            missing = "this Postgres has no plpgsql_check"
    except NoBinaries as error:
        missing = str(error)
    print(f"plpgsql_check: skipped, the functions are not read: {missing}", file=sys.stderr)
    return 1 if os.environ.get("CI") == "true" else 0


if __name__ == "__main__":
    sys.exit(main())
