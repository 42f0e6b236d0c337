"""The Postgres of a test run: one server and one migrated template for all its processes, copies for their tests.

A copy takes 40 ms of an idle machine and a second of a busy one, emptying a used one a tenth of that. So a database
whose definitions are still what they were is emptied and lent again; any other, and one that has grown, is dropped.

Which server: the one that TROTH_TEST_DSN names (as a superuser), else one that the first process in need of it starts
with our own launcher; TROTH_TEST_POSTGRES ("installed", "embedded", "15", ...) says which binaries. Under xdist the
processes meet in the directory that they share: whoever finds no `server.json` makes server and template, the others
read it. Who made them is the last to go: each process holds a shared lock for as long as it needs the server, which
the kernel lets go of even when it is killed.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pytest_postgresql.janitor import DatabaseJanitor

from troth.dev.postgres import Postgres
from troth.schema import migrate
from troth.testing.clock import Clock
from troth.testing.violations import install_violations

SETTINGS: dict[str, str | int] = {"max_connections": 200}
DATABASE_BYTES_MAX = 16 * 1024 * 1024
TABLES = (
    "promise",
    "task",
    "checkpoint",
    "wait",
    "attempt",
    "worker",
    "function",
    "closing",
    "schedule",
    "audit",
)


@dataclass(frozen=True)
class Template:
    """A server, as superuser, and the database on it that every test's database is a copy of."""

    dsn: str
    database: str

    def janitor(self, database: str, *, as_template: bool = False) -> DatabaseJanitor:
        """Makes and drops one database."""
        parts = conninfo_to_dict(self.dsn)
        return DatabaseJanitor(
            user=str(parts.get("user", "postgres")),
            host=str(parts.get("host", "")),
            port=str(parts.get("port", "5432")),
            password=None if parts.get("password") is None else str(parts["password"]),
            dbname=database,
            template_dbname=None if as_template else self.database,
            maintenance_dbname=str(parts.get("dbname", "postgres")),
            as_template=as_template,
        )

    def dsn_of(self, database: str) -> str:
        """The DSN of another database of the server, in the form of a URL where the server's own is one."""
        parts = conninfo_to_dict(self.dsn)
        if not self.dsn.startswith(("postgresql://", "postgres://")):
            return make_conninfo(self.dsn, dbname=database)
        password = f":{parts['password']}" if parts.get("password") else ""
        return f"postgresql://{parts.get('user', 'postgres')}{password}@{parts['host']}:{parts.get('port', 5432)}/{database}"

    @contextmanager
    def clone(self) -> Iterator[str]:
        """A fresh database with the namespace `troth` in it, gone at the end: its DSN."""
        database = f"troth_test_{secrets.token_hex(6)}"
        with self.janitor(database):
            yield self.dsn_of(database)


class Pool:
    """The databases of one process: each is lent to one test at a time, empty."""

    def __init__(self, template: Template) -> None:
        self.template = template
        self._spare: list[str] = []
        self._definitions: object = None

    @contextmanager
    def lend(self) -> Iterator[str]:
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
                self.template.janitor(database).drop()

    def close(self) -> None:
        """Drop them all."""
        while self._spare:
            self.template.janitor(self._spare.pop()).drop()

    def _copy(self) -> str:
        database = f"troth_test_{secrets.token_hex(6)}"
        self.template.janitor(database).init()
        if self._definitions is None:
            # of a copy, which is ours alone: who copies the template ends all other connections to it
            with connected(self.template.dsn_of(database)) as connection:
                self._definitions = _definitions(connection)
        return database

    def _emptied(self, database: str) -> bool:
        with connected(self.template.dsn_of(database)) as connection:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s and pid <> pg_backend_pid()",
                [database],
            )
            if _definitions(connection) != self._definitions:
                return False
            (size,) = connection.execute("select pg_database_size(current_database())").fetchone() or (0,)
            if size > DATABASE_BYTES_MAX:
                return False
            connection.execute("; ".join(f"delete from {table}" for table in TABLES).encode())
            connection.execute("update test_clock set shift = '0' where shift <> '0'")
        return True


def _definitions(connection: psycopg.Connection[Any]) -> object:
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
    """The part that one process has in the run's server."""

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
        """This process needs the server no more. Whoever made it waits for the others and ends it."""
        if self._users is None or self._template is None:
            return
        self._users.close()
        if self._made:
            with self._alone(), _locked(self._directory / "users.lock", fcntl.LOCK_EX):
                (self._directory / "server.json").unlink()
                if self._server is None:
                    self._template.janitor(self._template.database, as_template=True).drop()
                else:
                    self._server.stop()
        self._users = self._template = self._server = None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with _locked(self._directory / "server.lock", fcntl.LOCK_EX):
            yield

    def _found(self) -> Template | None:
        try:
            return Template(**json.loads((self._directory / "server.json").read_text()))
        except FileNotFoundError:
            return None

    def _make(self) -> Template:
        self._made = True
        dsn = os.environ.get("TROTH_TEST_DSN")
        if not dsn:
            prefer = os.environ.get("TROTH_TEST_POSTGRES") or None
            self._server = Postgres.start(ephemeral=True, prefer=prefer, settings=SETTINGS)
            dsn = self._server.dsn
        template = Template(dsn, f"troth_template_{secrets.token_hex(6)}")
        template.janitor(template.database, as_template=True).init()
        migrate(template.dsn_of(template.database))
        with psycopg.connect(template.dsn_of(template.database), autocommit=True) as connection:
            Clock(connection)
            install_violations(connection)
        (self._directory / "server.json").write_text(json.dumps(asdict(template)))
        return template


def _locked(path: Path, kind: int) -> IO[str]:
    file = path.open("a")
    fcntl.flock(file, kind)
    return file


def connected(dsn: str, schema: str | None = "troth", **options: Any) -> psycopg.Connection[Any]:
    """An autocommit connection that finds the namespace's functions by their bare names."""
    path = {} if schema is None else {"options": f"-c search_path={schema},pg_temp"}
    return psycopg.connect(dsn, autocommit=True, **{**path, **options})
