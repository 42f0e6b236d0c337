"""Who may create objects cannot have a function of ours take one of his for its own, which would run with the owner's rights.

The attacker has a schema with a twin of every function of the namespace (same name, same argument types), of what they
call in Postgres, and of the operators they use; each twin raises an error that says who it caught. He has temporary
tables with the names of all our tables and views. He puts all of it first in his path, and calls everything.
"""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from tests.support.sql import Sql

PATHS = ("evil, pg_temp, troth, pg_catalog", "pg_temp, evil, pg_catalog, troth", "pg_temp, troth, evil")

TWINS = """
do $do$
declare
  v_twin record;
begin
  for v_twin in
    select distinct p.proname as name,
           array_to_string(array(
             select format_type(a.t, null) from unnest(p.proargtypes) with ordinality a(t, n) order by n), ', ') as types
      from pg_proc p
     where p.prokind = 'f' and p.prorettype <> 'trigger'::regtype
       and (p.pronamespace = 'troth'::regnamespace
            or p.pronamespace = 'pg_catalog'::regnamespace
               and p.proname = any ('{clock_timestamp,now,random,gen_random_uuid,current_setting,pg_notify,split_part,rtrim,
                 strpos,length,octet_length,jsonb_typeof,jsonb_array_length,cardinality,to_jsonb,decode,encode,left,repeat,
                 starts_with,upper,array_position,jsonb_path_exists,jsonb_strip_nulls}')
               and not 'internal'::regtype = any (p.proargtypes))
  loop
    execute format($f$create function evil.%I(%s) returns text language plpgsql as
      $b$ begin raise exception 'caught %%', current_user; end $b$ $f$, v_twin.name, v_twin.types);
  end loop;
  for v_twin in
    select o.oprname as name, format_type(o.oprleft, null) as a, format_type(o.oprright, null) as b
      from pg_operator o
     where o.oprnamespace = 'pg_catalog'::regnamespace and o.oprkind = 'b'
       and o.oprname in ('=', '<>', '<', '>', '<=', '>=', '||', '->', '->>', '~', '!~', '@>', '?', '@?', '+', '-', '*')
       and format_type(o.oprleft, null) in ('text', 'jsonb', 'integer', 'bigint', 'interval', 'timestamp with time zone')
  loop
    execute format($f$create or replace function evil.op(%1$s, %2$s) returns boolean language plpgsql as
      $b$ begin raise exception 'caught %%', current_user; end $b$ $f$, v_twin.a, v_twin.b);
    execute format('create operator evil.%s (leftarg = %s, rightarg = %s, function = evil.op)', v_twin.name, v_twin.a, v_twin.b);
  end loop;
end $do$
"""

# What an administrator's role may call is everything. The order makes a story, so that each gets beyond its first line.
CALLS = (
    "select count(*) from troth.protocol()",
    "select troth.settled('{w,p}')",
    "select troth.start('w', 'f', '{\"a\": 1}', p_tags => '{\"a\": \"b\"}', p_timeout => interval '1 day')",
    "select troth.start('w', 'f', '{\"a\": 1}')",
    "select troth.start('later', 'f', p_delay => interval '1 day')",
    "select troth.start_many('[{\"id\": \"m1\", \"function\": \"f\"}, {\"id\": \"m2\", \"function\": \"f\"}]')",
    "select troth.start_together('[{\"id\": \"t1\", \"function\": \"f\"}, {\"id\": \"t2\", \"function\": \"f\"}]', '{t2}')",
    "select troth.start_each('f', '{e1,e2}', '[[], []]', p_delay => interval '1 day')",
    "select troth.start_each('f', '{e3}', '[{}]')",
    "select troth.create_promise('p', interval '1 day', '1', true)",
    "select troth.create_promise('q')",
    "select troth.create_promise('r')",
    "select troth.register('[{\"name\": \"f\", \"version\": 1}]')",
    "select * from troth.claim('w1', '{default}', '{f}', 10)",
    """select * from troth.advance(
         '[{"task": "w", "epoch": 1, "seen": 0, "then": "suspend"}, {"task": "m1", "epoch": 1, "seen": 0}]',
         '[{"task": "m1", "operation": "s", "kind": "step", "issued": 0, "state": "resolved", "value": 1}]',
         '[{"task": "w", "operation": "c", "kind": "call", "issued": 0, "function": "f"},
           {"task": "w", "operation": "x", "kind": "promise", "issued": 0}]',
         '[{"task": "w", "operation": "t", "kind": "timer", "issued": 0, "micros": 1}]')""",
    "select * from troth.commit_step('m1', 1, 't', 1, p_value => '2')",
    "select * from troth.heartbeat('w1', '{m1}', '{1}')",
    "select troth.tick()",
    "select troth.resolve('w~x', '1')",
    "select troth.reject('p', '\"no\"')",
    "select troth.cancel('q')",
    "select troth.settle_many('[{\"id\": \"r\", \"verb\": \"resolve\", \"value\": 1}]')",
    "select troth.get('{w,p,q}')",
    "select troth.search('pending', p_tags => '{\"a\": \"b\"}')",
    "select troth.tree('w')",
    "select troth.journal('m1')",
    "select troth.record('m1')",
    "select troth.settle_step('m1', 'by-hand', '1')",
    "select troth.fork('m1', 'forked')",
    """select troth.import_journal('{"id": "i", "function": "f", "version": 1, "started_at": 0, "seed": 1, "args": {}}', '[]')""",
    "select troth.cancel('m1')",
    "select troth.halt('m2')",
    "select troth.resume('m2')",
    "select troth.cancel_force('later')",
    "select troth.leave('w1')",
    "select troth.purge(interval '0')",
)  # fmt: skip


@pytest.fixture
def attacker(sql: Sql, as_role: Callable[[str], Sql]) -> Sql:
    """Somebody who may call all our functions and create objects wherever people commonly may."""
    sql.query("create schema evil authorization troth_admin")
    sql.query("grant create on schema public to troth_admin")
    names = [
        each["name"]
        for each in sql.query(
            """select quote_ident(relname) as name from pg_class
                where relnamespace = 'troth'::regnamespace and relkind in ('r', 'v')"""
        )
    ]
    session = as_role("admin")
    session.query("set search_path = pg_catalog, troth")
    session.query(TWINS)
    session.query("grant usage on schema evil to public")
    for name in names:
        session.query(f"create temporary table {name} (id text, state text, stolen text)")
    return session


@pytest.mark.parametrize("path", PATHS)
def test_nothing_of_an_attackers_is_taken_for_ours(attacker: Sql, sql: Sql, path: str) -> None:
    attacker.query(f"set search_path = {path}")
    for call in CALLS:
        attacker.query(call)
    attacker.query("set search_path = pg_catalog")
    assert attacker.one("select count(*) from pg_temp.promise") == 0
    assert sql.one("select count(*) from troth.audit where actor = 'troth_admin'") > 5


def test_every_function_is_called(sql: Sql) -> None:
    rows = sql.query(
        "select proname from pg_proc where pronamespace = 'troth'::regnamespace and not starts_with(proname, '_')"
    )
    assert {each["proname"] for each in rows} == {call.split("troth.")[1].split("(")[0] for call in CALLS}


@pytest.mark.parametrize("path", PATHS[:2])
@pytest.mark.broken_on_purpose("a function without its pinned path")
def test_a_function_without_its_path_is_caught(attacker: Sql, sql: Sql, path: str) -> None:
    """The trap works: it takes nothing but the path away from one of ours."""
    sql.query(
        "alter function troth.create_promise(text, interval, jsonb, boolean, jsonb, text, jsonb) reset search_path"
    )
    attacker.query(f"set search_path = {path}")
    with pytest.raises(psycopg.Error, match="caught troth_owner"):
        attacker.query("select troth.create_promise('p')")
