"""The Postgres of a test run: one server and one migrated template for all its processes, copies for their tests.

A copy takes 40 ms of an idle machine and a second of a busy one, emptying a used one a tenth of that. So a database
whose definitions are still what they were is emptied and lent again; any other, and one that has grown, is dropped.

Which server: the one that TROTH_TEST_DSN names (as a superuser, or as a user who may create databases), else one that
the first process in need of it starts with our own launcher; TROTH_TEST_POSTGRES ("installed", "embedded", "15", ...)
says which binaries. No other variable is looked at: an application's DATABASE_URL never becomes a place for tests.

Under pytest-xdist the processes meet in the directory that they share: whoever finds no `server.json` makes server and
template, the others read it. Who made them is the last to go: each process holds a shared lock for as long as it needs
the server, which the kernel lets go of even when it is killed.

This file knows nothing of pytest.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from troth.dev.postgres import Postgres
from troth.schema import migrate
from troth.schema.names import DEFAULT_SCHEMA, VERSION_TABLE
from troth.testing.clock import CLOCK_TABLE, Clock
from troth.testing.violations import install_violations

DSN_VARIABLE: Final = "TROTH_TEST_DSN"
POSTGRES_VARIABLE: Final = "TROTH_TEST_POSTGRES"
SETTINGS: Final[dict[str, str | int]] = {"max_connections": 200}
DATABASE_BYTES_MAX: Final = 16 * 1024 * 1024
"""A database that has grown beyond this is dropped instead of emptied."""

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Template:
    """A server, as the user who may create databases there, and the database that every test's is a copy of."""

    dsn: str
    database: str

    def dsn_of(self, database: str) -> str:
        """The DSN of another database of the server, in the form of a URL where the server's own is one."""
        parts = conninfo_to_dict(self.dsn)
        plain = {"host", "port", "user", "password", "dbname"}
        if not self.dsn.startswith(("postgresql://", "postgres://")) or not plain.issuperset(parts):
            return make_conninfo(self.dsn, dbname=database)
        password = f":{parts['password']}" if parts.get("password") else ""
        port = parts.get("port", 5432)
        return f"postgresql://{parts.get('user', 'postgres')}{password}@{parts['host']}:{port}/{database}"

    def create(self, database: str, *, empty: bool = False) -> None:
        """Make a database, a copy of the template unless it is to be `empty`."""
        with closing(connected(self.dsn, None)) as connection:
            command = sql.SQL("create database {}").format(sql.Identifier(database))
            if not empty:
                # nobody has business there, and whoever is connected to it keeps it from being copied
                _end_sessions(connection, self.database)
                command += sql.SQL(" template {}").format(sql.Identifier(self.database))
            connection.execute(command)

    def drop(self, database: str) -> None:
        """Drop a database, whoever is connected to it."""
        with closing(connected(self.dsn, None)) as connection:
            connection.execute(
                sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(database))
            )

    @contextmanager
    def clone(self, *, empty: bool = False) -> Generator[str]:
        """A database of its own (`empty`: without any namespace), gone at the end: its DSN."""
        database = f"troth_test_{secrets.token_hex(6)}"
        self.create(database, empty=empty)
        try:
            yield self.dsn_of(database)
        finally:
            self.drop(database)


class Databases:
    """The databases of one process: each is lent to one test at a time, empty."""

    def __init__(self, template: Template) -> None:
        self.template = template
        self._spare: list[str] = []
        self._definitions: object = None
        self._tables: Sequence[str] = ()

    @contextmanager
    def lend(self) -> Generator[str]:
        """The DSN of a database that holds nothing but the namespace `troth`."""
        database = self._spare.pop() if self._spare else self._copy()
        returned = False
        try:
            yield self.template.dsn_of(database)
            returned = self._emptied(database)
        finally:
            if returned:
                self._spare.append(database)
            else:
                self.template.drop(database)

    def close(self) -> None:
        """Drop them all."""
        while self._spare:
            self.template.drop(self._spare.pop())

    def _copy(self) -> str:
        database = f"troth_test_{secrets.token_hex(6)}"
        self.template.create(database)
        if self._definitions is None:
            # of a copy, which is ours alone: who copies the template ends all other connections to it
            with closing(connected(self.template.dsn_of(database))) as connection:
                self._definitions = _definitions(connection)
                self._tables = tables(connection)
        return database

    def _emptied(self, database: str) -> bool:
        with closing(connected(self.template.dsn_of(database))) as connection:
            _end_sessions(connection, database)
            if _definitions(connection) != self._definitions:
                return False
            (size,) = connection.execute("select pg_database_size(current_database())").fetchone() or (0,)
            if size > DATABASE_BYTES_MAX:
                return False
            with connection.transaction():
                for table in self._tables:
                    connection.execute(sql.SQL("delete from {}").format(sql.Identifier(table)))
                connection.execute("update test_clock set shift = '0' where shift <> '0'")
        return True


def tables(connection: Connection, schema: str = DEFAULT_SCHEMA) -> list[str]:
    """The tables of a namespace that hold what happened in it."""
    rows = connection.execute(
        """select relname from pg_class
            where relnamespace = %s::regnamespace and relkind in ('r', 'p') and relname <> all (%s) order by relname""",
        [schema, [VERSION_TABLE, CLOCK_TABLE]],
    )
    return [name for (name,) in rows]


def _end_sessions(connection: Connection, database: str) -> None:
    connection.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s and pid <> pg_backend_pid()",
        [database],
    )


def _definitions(connection: Connection) -> object:
    """What tells whether anything but rows has changed: which catalog rows there are, and which versions of them."""
    return connection.execute(
        """select count(*), sum(hashtextextended(item, 0)) from (
             select format('proc %s %s', oid, xmin) from pg_proc where pronamespace >= 16384
             union all select format('class %s %s %s %s', oid, relname, relfilenode, relowner) from pg_class
               where relnamespace >= 16384
             union all select format('column %s %s %s', attrelid, attnum, xmin) from pg_attribute where attrelid >= 16384
             union all select format('constraint %s %s', oid, xmin) from pg_constraint where oid >= 16384
             union all select format('trigger %s %s', oid, xmin) from pg_trigger
             union all select format('schema %s %s', oid, xmin) from pg_namespace where oid >= 16384
           ) i(item)"""
    ).fetchone()


class Ground:
    """The part that one process has in the run's server; `directory` is what the processes of a run share."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._users: IO[str] | None = None
        self._template: Template | None = None
        self._server: Postgres | None = None
        self._made = False

    def template(self) -> Template:
        """The server and its template, made by the first process that asks."""
        if self._template is None:
            with self._alone():
                self._users = _locked(self._directory / "users.lock", fcntl.LOCK_SH)
                self._template = self._found() or self._make()
        return self._template

    def release(self) -> None:
        """Need the server no more. Whoever made it waits for the others and ends it."""
        if self._users is None or self._template is None:
            return
        self._users.close()
        if self._made:
            with self._alone(), _locked(self._directory / "users.lock", fcntl.LOCK_EX):
                (self._directory / "server.json").unlink()
                if self._server is None:
                    self._template.drop(self._template.database)
                else:
                    self._server.stop()
        self._users = self._template = self._server = None

    @contextmanager
    def _alone(self) -> Generator[None]:
        with _locked(self._directory / "server.lock", fcntl.LOCK_EX):
            yield

    def _found(self) -> Template | None:
        try:
            return Template(**json.loads((self._directory / "server.json").read_text()))
        except FileNotFoundError:
            return None

    def _make(self) -> Template:
        self._made = True
        dsn = os.environ.get(DSN_VARIABLE)
        if not dsn:
            prefer = os.environ.get(POSTGRES_VARIABLE) or None
            self._server = Postgres.start(ephemeral=True, prefer=prefer, settings=SETTINGS)
            dsn = self._server.dsn
        template = Template(dsn, f"troth_template_{secrets.token_hex(6)}")
        template.create(template.database, empty=True)
        home = template.dsn_of(template.database)
        migrate(home)
        with closing(connected(home, None)) as connection:
            Clock(connection)
            install_violations(connection)
        (self._directory / "server.json").write_text(json.dumps(asdict(template)))
        return template


def _locked(path: Path, kind: int) -> IO[str]:
    file = path.open("a")
    fcntl.flock(file, kind)
    return file


def connected(dsn: str, schema: str | None = DEFAULT_SCHEMA, **options: Any) -> Connection:
    """An autocommit connection that finds the namespace's functions by their bare names; `options` are psycopg's."""
    given: dict[str, Any] = {"autocommit": True, **options}
    if schema is not None:
        given.setdefault("options", f"-c search_path={schema},pg_temp")
    return psycopg.connect(dsn, **given)
