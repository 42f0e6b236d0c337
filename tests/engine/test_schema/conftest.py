"""A place to migrate: databases, namespaces and people of one test, and small folders of tables and functions."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests.support.postgres import Template
from troth.schema import MigrateReport, locations, migrate

TABLE = "create table thing (id text primary key, size integer not null)"

SIZE = """-- How large a thing is.
-- grant: client
create function size(p_id text) returns integer
  language sql stable security definer set search_path from current
as $$ select size from thing where id = p_id $$;
"""

ADD = """-- grant: worker
create function add(p_id text, p_size integer default 1) returns integer
  language plpgsql security definer set search_path from current
as $$ begin
  insert into thing values (p_id, _rounded(p_size)); return p_size;
end $$;
"""

ROUNDED = """create function _rounded(p_size integer) returns integer language sql immutable as $$ select p_size $$;
"""

THINGS = "create view things as select id, size from thing;\n"


def execute(dsn: str, query: str, *parameters: object, role: str | None = None) -> list[tuple[Any, ...]]:
    """Run one statement on a connection of its own, as somebody."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        if role:
            connection.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
        cursor = connection.execute(query.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []


def owners(dsn: str, schema: str) -> set[str]:
    """Whoever owns something in the namespace."""
    query = """select relowner::regrole::text from pg_class where relnamespace = %s::regnamespace
               union select proowner::regrole::text from pg_proc where pronamespace = %s::regnamespace"""
    return {row[0] for row in execute(dsn, query, schema, schema)}


@dataclass
class Folders:
    """Tables and functions of a test's own."""

    migrations: Path
    sql: Path

    def revision(self, number: int, statement: str) -> None:
        """Write a revision that follows the one before."""
        before = f"{number - 1:04}" if number > 1 else None
        text = (
            f"from alembic import op\nrevision = '{number:04}'\ndown_revision = {before!r}\n"
            f'def upgrade() -> None:\n    op.execute("""{statement}""")\n'
        )
        (self.migrations / "versions" / f"{number:04}_test.py").write_text(text)

    def function(self, path: str, text: str) -> None:
        """Write a file of `sql/`."""
        (self.sql / path).parent.mkdir(parents=True, exist_ok=True)
        (self.sql / path).write_text(text)

    def migrate(self, dsn: str, schema: str, **options: Any) -> MigrateReport:
        """Migrate a namespace to what these folders say."""
        return migrate(dsn, schema, migrations=self.migrations, sql=self.sql, **options)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """One table, an entry function for clients, one for workers, a helper and a view."""
    made = Folders(tmp_path / "100%" / "migrations", tmp_path / "100%" / "sql")
    (made.migrations / "versions").mkdir(parents=True)
    shutil.copy(locations().migrations / "env.py", made.migrations)
    made.revision(1, TABLE)
    made.function("thing/size.sql", SIZE)
    made.function("thing/add.sql", ADD)
    made.function("internal/rounded.sql", ROUNDED)
    made.function("view/things.sql", THINGS)
    return made


@dataclass
class Cluster:
    """A server, and what one test made in it."""

    dsn: str
    databases: list[str]
    roles: list[str]

    def database(self) -> str:
        """The DSN of a new, empty database."""
        name = f"schema_{secrets.token_hex(4)}"
        execute(self.dsn, f"create database {name}")
        self.databases.append(name)
        return make_conninfo(self.dsn, dbname=name)

    def person(self, dsn: str, *attributes: str) -> str:
        """The DSN of a new user of this database who may create schemas there."""
        name, password = f"person_{secrets.token_hex(4)}", secrets.token_hex(8)
        execute(self.dsn, f"create role {name} login password '{password}' {' '.join(attributes)}")
        execute(dsn, f"grant create on database {self.databases[-1]} to {name}")
        self.roles.append(name)
        return make_conninfo(dsn, user=name, password=password)

    def sweep(self, schemas: list[str]) -> None:
        """Take away what the test made."""
        for database in self.databases:
            execute(self.dsn, f"drop database if exists {database} with (force)")
        owned = [f"{schema}_{role}" for schema in schemas for role in ("owner", "client", "worker", "admin")]
        # What a person made goes before that person.
        for role in owned + self.roles:
            execute(self.dsn, f"drop role if exists {role}")


@pytest.fixture
def schema() -> str:
    """A namespace whose roles no other test has."""
    return f"n{secrets.token_hex(4)}"


@pytest.fixture
def cluster(postgres: Template, schema: str) -> Iterator[Cluster]:
    """The server that the tests run on."""
    made = Cluster(postgres.dsn, [], [])
    yield made
    made.sweep([schema, f"{schema}_b"])


@pytest.fixture
def database(cluster: Cluster) -> str:
    """The DSN of an empty database."""
    return cluster.database()


def catalog(dsn: str, schema: str) -> str:
    """Everything in the namespace as the catalog has it, one thing a line, the namespace's own name left out."""
    lines = [row[0] for row in execute(dsn, CATALOG.replace("SCHEMA", schema))]
    return "\n".join(line.replace(schema, "SCHEMA") for line in lines) + "\n"


CATALOG = """
with relation as (select * from pg_class where relnamespace = 'SCHEMA'::regnamespace),
routine as (select * from pg_proc where pronamespace = 'SCHEMA'::regnamespace),
granted as (
  select oid, string_agg(format(', %s may %s', coalesce(rolname, 'PUBLIC'), lower(privilege_type)), ''
                         order by rolname, privilege_type) as to_others
    from (
      select oid, relowner as owner, acl.* from relation cross join aclexplode(relacl) acl
      union all
      select oid, proowner, acl.* from routine cross join aclexplode(coalesce(proacl, acldefault('f', proowner))) acl
      union all
      select oid, nspowner, acl.* from pg_namespace cross join aclexplode(nspacl) acl where nspname = 'SCHEMA'
    ) item
    left join (select oid as role, rolname from pg_roles) roles on role = grantee
   where grantee <> owner group by oid
)
select line || coalesce(to_others, '') || coalesce(': ' || comment, '') from (
  select 1 as part, oid, format('schema of %s', nspowner::regrole) as line, null as comment
    from pg_namespace where nspname = 'SCHEMA'
  union all
  select 2, oid, format('%s %s of %s', case relkind when 'v' then 'view' else 'table' end, relname, relowner::regrole),
         obj_description(oid, 'pg_class')
    from relation where relkind in ('r', 'v')
  union all
  select 3, null, format('%s.%s %s%s%s%s', relname, attname, format_type(atttypid, atttypmod),
                         case when collname <> 'default' then ' collate ' || collname end,
                         case when attnotnull then ' not null' end, ' default ' || pg_get_expr(adbin, adrelid)), null
    from relation join pg_attribute on attrelid = relation.oid and attnum > 0 and not attisdropped
    left join pg_collation on pg_collation.oid = attcollation
    left join pg_attrdef on adrelid = attrelid and adnum = attnum where relkind in ('r', 'v')
  union all
  select 4, null, format('%s: "%s" %s', relname, conname, pg_get_constraintdef(pg_constraint.oid)), null
    from relation join pg_constraint on conrelid = relation.oid where contype <> 'n'
  union all
  select 5, null, pg_get_indexdef(oid), null from relation where relkind = 'i'
  union all
  select 6, oid, format('%s(%s) returns %s, %s, of %s, %s', proname,
                        pg_get_function_arguments(oid), pg_get_function_result(oid),
                        case provolatile when 'v' then 'volatile' when 's' then 'stable' else 'immutable' end,
                        proowner::regrole,
                        case when prosecdef then 'security definer ' || proconfig::text else 'plain' end),
         obj_description(oid, 'pg_proc')
    from routine
) everything left join granted using (oid) order by part, line
"""
