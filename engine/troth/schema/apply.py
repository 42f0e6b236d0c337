"""`migrate`, `check` and `offline_sql`: bring a namespace to what this code needs, compare it, or print how.

A migration is one transaction, so it happens whole or not at all, and any number of them at once do the work once.
Its order: the advisory lock, roles, the schema, then as the owner the tables' revisions, the functions, the views,
what is stale, and the grants. It is safe beside running workers: no lock on a table beyond what a revision takes,
views are locked for milliseconds, functions are replaced in place.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import conninfo, errors
from sqlalchemy import Connection as Alchemy
from sqlalchemy import create_engine, exc
from sqlalchemy.pool import NullPool

from troth.errors import DatabaseError, InvalidArgument, SchemaMismatch, TrothError, Unreachable
from troth.schema import revisions, script
from troth.schema.files import SqlFile, digest, locations, sql_files
from troth.schema.files import revisions as known_revisions
from troth.schema.names import DEFAULT_SCHEMA, Audience, checked, note
from troth.schema.roles import Wanted, choose, granted
from troth.schema.script import Roles
from troth.schema.state import State, judge, query

SERVER_VERSION_MIN = 150000
CONNECT_TIMEOUT_SECONDS = 10

_NOT_REPLACEABLE = (
    errors.InvalidFunctionDefinition,  # another result type, names or defaults of parameters
    errors.InvalidTableDefinition,  # a view's columns renamed, retyped or gone
    errors.WrongObjectType,  # what was a function is a procedure
)

_GONE = ("08", "57P")  # connection exceptions, and a server that shuts down or ends a session


@dataclass(frozen=True)
class MigrateReport:
    """What a migration did. `revision_before` is None for a namespace that was not there."""

    schema: str
    revision_before: str | None
    revision: str
    functions: int
    owner: str
    roles: Mapping[Audience, str] = field(default_factory=dict[Audience, str])
    skipped: tuple[str, ...] = ()
    """What was left out, and why: one sentence each."""


def migrate(
    dsn: str,
    schema: str = DEFAULT_SCHEMA,
    *,
    roles: Wanted = "auto",
    grants: Mapping[str, str] | None = None,
    migrations: Path | None = None,
    sql: Path | None = None,
) -> MigrateReport:
    """Bring a namespace to the tables and functions of this code, in one transaction.

    `roles`: True makes the four NOLOGIN roles, False none, "auto" makes them where this user may. `grants` names
    existing roles instead, by audience: `{"client": "app", "worker": "app"}` (and `owner`). `migrations` and `sql` are
    the folders, those of this package by default.

    Raises Unreachable, InvalidArgument, DatabaseError (Postgres refused), SchemaMismatch (the namespace is newer than
    this code, the server older than 15, or the schema somebody else's).
    """
    checked(schema)
    migrations, files = migrations or locations().migrations, sql_files(sql)
    with _transaction(dsn) as (alchemy, connection):
        _run(connection, script.lock())
        before = _revision(connection, schema, migrations)
        choice = choose(connection, schema, roles, grants)
        _run(connection, script.settings(schema))
        if choice.roles.made:
            _run(connection, script.make_roles(choice.roles))
        _run(connection, script.make_schema(schema, choice.roles))
        _run(connection, script.remember_grants(schema, choice.roles))
        if before != known_revisions(migrations)[-1]:
            _run(connection, script.drop_views(schema))
            revisions.upgrade(alchemy, schema, migrations)
        for file in files:
            _load(connection, schema, file)
        for statement in _closing(schema, choice.roles, files, migrations):
            _run(connection, statement)
        owner = connection.execute("select current_user").fetchone()
    return MigrateReport(
        schema=schema,
        revision_before=before,
        revision=known_revisions(migrations)[-1],
        functions=sum(len(file.names) for file in files if file.kind == "function"),
        owner=owner[0] if owner else "",
        roles=choice.roles.audiences,
        skipped=choice.skipped,
    )


def offline_sql(
    schema: str = DEFAULT_SCHEMA,
    *,
    roles: bool = True,
    grants: Mapping[str, str] | None = None,
    start: str | None = None,
    migrations: Path | None = None,
    sql: Path | None = None,
) -> str:
    """The whole migration as a script for `psql -v ON_ERROR_STOP=1 -f`, leaving what `migrate` leaves: in a database
    without this namespace, or with it at the revision `start`.
    """
    checked(schema)
    migrations, files = migrations or locations().migrations, sql_files(sql)
    if start is not None and start not in known_revisions(migrations):
        raise InvalidArgument(
            f"{start!r} is no revision: known are {', '.join(known_revisions(migrations))}."
        )
    chosen = granted(grants) if grants else Roles.standard(schema) if roles else Roles()
    parts = [script.lock(), script.settings(schema)]
    parts += [script.make_roles(chosen)] if chosen.made else []
    parts += [script.make_schema(schema, chosen), script.remember_grants(schema, chosen)]
    if start != known_revisions(migrations)[-1]:
        parts += [script.drop_views(schema), revisions.render(schema, migrations, start).strip()]
    for file in files:
        parts += [
            f"-- sql/{file.path}",
            *([script.drop_named(schema, file.names)] if start else []),
            file.text,
        ]
    parts += _closing(schema, chosen, files, migrations)
    head = f"-- Troth, schema {schema}. Apply it with psql -v ON_ERROR_STOP=1 -f.\n"
    return head + "begin isolation level read committed read write;\n" + _joined([*parts, "commit"])


def check(
    dsn: str, schema: str = DEFAULT_SCHEMA, *, migrations: Path | None = None, sql: Path | None = None
) -> State:
    """Compare a namespace with this code; nothing is changed, and no right on any table is needed."""
    text = query(schema)
    with _connected(dsn) as connection:
        row = connection.execute(text.encode()).fetchone()
    return judge(schema, row[0] if row else None, migrations=migrations, sql=sql)


def _closing(schema: str, roles: Roles, files: tuple[SqlFile, ...], migrations: Path) -> list[str]:
    """What follows once every file is loaded."""
    return [
        script.drop_stale(schema, files),
        script.tag_and_check(schema, files),
        script.grant(schema, files, roles),
        script.restore_grants(),
        script.annotate(schema, note(known_revisions(migrations)[-1], digest(files))),
    ]


def _joined(parts: list[str]) -> str:
    """Statements as a script, each with its semicolon."""
    ended = [part.rstrip() if part.startswith("-- sql/") else _ended(part.rstrip()) for part in parts]
    return "\n".join(ended)


def _ended(statement: str) -> str:
    return (statement if statement.endswith(";") else f"{statement};") + "\n"


def _run(connection: psycopg.Connection[Any], text: str) -> None:
    connection.execute(text.encode())


def _load(connection: psycopg.Connection[Any], schema: str, file: SqlFile) -> None:
    """Replace in place what the file defines; where Postgres cannot, drop our own first."""
    try:
        try:
            with connection.transaction():
                _run(connection, file.text)
        except _NOT_REPLACEABLE:
            _run(connection, script.drop_named(schema, file.names))
            _run(connection, file.text)
    except psycopg.Error as error:
        raise _refused(error, f"sql/{file.path}: ") from error


def _revision(connection: psycopg.Connection[Any], schema: str, migrations: Path) -> str | None:
    """The revision that is there, or None; SchemaMismatch for what this code must not touch."""
    if connection.info.server_version < SERVER_VERSION_MIN:
        version = connection.info.server_version // 10000
        raise SchemaMismatch(f"This is Postgres {version}; Troth needs 15 or newer.")
    note_row = connection.execute(query(schema).encode()).fetchone()
    if note_row is None:
        _refuse_strangers(connection, schema)
        return None
    state = judge(schema, note_row[0], migrations=migrations)
    if state.kind == "ahead":
        raise SchemaMismatch(state.sentence)
    return state.revision


def _refuse_strangers(connection: psycopg.Connection[Any], schema: str) -> None:
    """A schema that holds somebody else's tables is not ours to fill."""
    row = connection.execute(
        """select c.relname from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            where n.nspname = %s and c.relkind in ('r', 'p', 'v', 'm', 'f') order by 1 limit 1""",
        [schema],
    ).fetchone()
    if row:
        raise SchemaMismatch(
            f'The schema "{schema}" holds tables that are not Troth\'s ({row[0]}, for one): name another with --schema.'
        )


@contextmanager
def _transaction(dsn: str) -> Generator[tuple[Alchemy, psycopg.Connection[Any]]]:
    """One transaction, seen by Alembic and by us; READ COMMITTED, since it looks again once it has the lock."""
    with _connected(dsn) as connection:
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        connection.read_only = False
        engine = create_engine(
            "postgresql+psycopg://", creator=lambda: connection, poolclass=NullPool, use_native_hstore=False
        )
        try:
            with engine.begin() as alchemy:
                yield alchemy, connection
        except exc.DBAPIError as error:
            if not isinstance(error.orig, psycopg.Error):
                raise
            raise _refused(error.orig, "migrations: ") from error


@contextmanager
def _connected(dsn: str) -> Generator[psycopg.Connection[Any]]:
    """A connection, and our errors instead of the driver's."""
    where = _where(dsn)
    try:
        connection: psycopg.Connection[Any] = psycopg.connect(
            dsn, connect_timeout=CONNECT_TIMEOUT_SECONDS, prepare_threshold=None
        )
    except psycopg.OperationalError as error:
        reason = str(error).strip().splitlines()[0].rsplit("failed: ", 1)[-1].removeprefix("FATAL:").strip()
        raise Unreachable(
            f"Postgres at {where} cannot be reached: {reason}.", hint="Start it, or mend the DSN."
        ) from error
    try:
        yield connection
    except psycopg.Error as error:
        raise _refused(error, "") from error
    finally:
        connection.close()


def _where(dsn: str) -> str:
    """Host, port and database of a DSN, never its password."""
    try:
        parts = conninfo.conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        parts = {}
    if not parts:
        # The driver's own words would repeat the DSN, password and all.
        raise InvalidArgument(
            "The DSN cannot be read: write postgresql://user@host:5432/database, or host=... dbname=..."
        )
    host, port = parts.get("host") or parts.get("hostaddr") or "the local socket", parts.get("port") or 5432
    return f"{host}:{port}, database {parts.get('dbname') or parts.get('user') or 'of this user'}"


def _refused(error: psycopg.Error, where: str) -> TrothError:
    """What Postgres said, with what can be done about it."""
    primary = error.diag.message_primary or str(error).strip().splitlines()[0]
    hint = error.diag.message_hint
    if error.sqlstate is None or error.sqlstate.startswith(_GONE):
        return Unreachable(
            f"The connection to Postgres was lost: {primary}.", hint="Nothing was changed: migrate again."
        )
    match error:
        case errors.InsufficientPrivilege():
            hint = "Migrate as a member of the schema's owner, or let a DBA apply what `troth migrate --sql` prints."
        case errors.DependentObjectsStillExist():
            hint = f"Drop what depends on it, migrate, and make it again: {error.diag.message_detail}"
        case errors.LockNotAvailable():
            hint = "Somebody's transaction stands in the way: end it, or migrate again when it has ended."
        case _:
            pass
    return DatabaseError(
        f"{where}{primary}.", code=error.sqlstate or "XX000", detail=error.diag.message_detail, hint=hint
    )
