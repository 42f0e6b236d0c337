"""No role writes, locks or copies a row of any table or view, nor changes what there is: all goes through the functions."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from tests.support.sql import Sql

ROLES = ("client", "worker", "admin")
DENIED = "42501"

ON_TABLES = (
    "select * from {0}",
    "select * from {0} for no key update",
    "select * from {0} for update skip locked",
    "copy {0} to stdout",
    "lock table {0} in access share mode",
    "lock table {0} in access exclusive mode",
)
ON_ALL = (
    "insert into {0} default values",
    "insert into {0} select * from {0}",
    "update {0} set {1} = {1}",
    "delete from {0}",
    "truncate {0}",
    "copy {0} from stdin",
    "with gone as (delete from {0} returning *) select count(*) from gone",
    "merge into {0} t using (select 1) s on true when matched then delete",
    "alter table {0} add column mine text",
    "alter table {0} rename to mine",
    "alter table {0} owner to current_user",
    "drop table {0} cascade",
    "comment on table {0} is 'mine'",
    "create rule mine as on delete to {0} do instead nothing",
    "create trigger mine before insert on {0} for each row execute function suppress_redundant_updates_trigger()",
)
DDL = (
    "create table troth.mine ()",
    "create view troth.mine as select 1",
    "create sequence troth.mine",
    "create type troth.mine as (a integer)",
    "create domain troth.mine as text",
    "create function troth.mine() returns integer language sql as 'select 1'",
    "create operator troth.= (leftarg = text, rightarg = text, function = texteq)",
    "create index on troth.promise (id)",
    "alter schema troth rename to mine",
    "alter schema troth owner to current_user",
    "drop schema troth cascade",
    "alter function troth._clock() rename to mine",
    "alter function troth.tick(integer) reset all",
    "alter function troth.tick(integer) security invoker",
    "drop function troth.tick(integer)",
    "set role troth_owner",
    "grant troth_owner to current_user",
    "create role mine superuser",
    "alter default privileges for role troth_owner in schema troth grant all on tables to public",
)
# Who may hand on nothing is told so by a warning, if he may do something himself.
GRANTS = (
    "grant all on schema troth to public",
    "grant all on all tables in schema troth to public",
    "grant execute on all functions in schema troth to public",
    "revoke all on all functions in schema troth from troth_worker",
)
# What Postgres itself cannot do to a view, or knows to be another kind of thing, before it asks who wants it.
NOT_FOR_VIEWS = {"42809", "55000", "0A000"}


def refusal(session: Sql, statement: str) -> str | None:
    """The SQLSTATE that a statement fails with, and None where it went through."""
    try:
        with session.connection.transaction():
            session.query(statement)
    except psycopg.Error as error:
        return error.sqlstate
    return None


def relations(sql: Sql, kinds: str) -> list[tuple[str, str]]:
    """All tables or views of the namespace, each with its first column."""
    rows = sql.query(
        """select c.oid::regclass::text as name, quote_ident(a.attname) as first from pg_class c
             join pg_attribute a on a.attrelid = c.oid and a.attnum = 1
            where c.relnamespace = 'troth'::regnamespace and c.relkind::text = any (%s) order by 1""",
        list(kinds),
    )
    return [(f"troth.{each['name']}", each["first"]) for each in rows]


@pytest.mark.parametrize("role", ROLES)
def test_no_table_is_written_read_locked_or_copied(
    sql: Sql, as_role: Callable[[str], Sql], role: str
) -> None:
    session, tables = as_role(role), relations(sql, "rp")
    assert len(tables) > 10
    for name, first in tables:
        for statement in (*ON_TABLES, *ON_ALL):
            assert refusal(session, statement.format(name, first)) == DENIED, (name, statement)


@pytest.mark.parametrize("role", ROLES)
def test_no_table_is_changed_through_a_view(sql: Sql, as_role: Callable[[str], Sql], role: str) -> None:
    session, views = as_role(role), relations(sql, "v")
    assert len(views) > 3
    for name, first in views:
        assert refusal(session, f"select * from {name}") is None
        for statement in ON_ALL:
            assert refusal(session, statement.format(name, first)) in {DENIED, *NOT_FOR_VIEWS}, (
                name,
                statement,
            )


@pytest.mark.parametrize("role", ROLES)
def test_nothing_is_made_changed_or_dropped(as_role: Callable[[str], Sql], role: str) -> None:
    session = as_role(role)
    for statement in DDL:
        assert refusal(session, statement) == DENIED, statement


@pytest.mark.parametrize("role", ROLES)
def test_nothing_is_granted_or_revoked(sql: Sql, as_role: Callable[[str], Sql], role: str) -> None:
    rights = """
        select coalesce((select nspacl::text from pg_namespace where nspname = 'troth'), '')
               || coalesce((select string_agg(oid || relacl::text, ',' order by oid) from pg_class
                             where relnamespace = 'troth'::regnamespace), '')
               || (select string_agg(oid || coalesce(proacl::text, ''), ',' order by oid) from pg_proc
                    where pronamespace = 'troth'::regnamespace)"""
    before, session = sql.one(rights), as_role(role)
    assert {refusal(session, statement) for statement in GRANTS} <= {DENIED, None}
    assert sql.one(rights) == before
