"""Each invariant of the view is broken once by hand, and must then be named; nothing else may hide behind an empty view.

The rows are written by a superuser, past the functions, in a transaction that is rolled back; CHECKs and keys that would
stand in the way are dropped in it first. The ground of each is the same small world, in which nothing is wrong.
"""

# ruff: noqa: E501 (a violator is one line)

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import troth.testing.violations as module
from tests.proof.invariants.world import make_world
from tests.support.sql import Connection, Sql
from troth.testing.violations import violations

VIEW = Path(module.__file__).with_name("violations.sql").read_text()

# What the view leaves out, and says so at its head.
NOT_IN_THE_VIEW = {
    *(f"I{n}" for n in (7, 8, 9, 10, 11, 12, 23, 24, 25, 26, 27, 28, 29, 33, 35, 39, 43, 44, 45, 49, 51, 52)),
}

VIOLATORS = {
    "I1": "update promise set settled_at = created_at where id = 'suspended'",
    "I2": "update promise set value = '1' where id = 'suspended'",
    "I3 early": "update promise set settler = 'timeout', timeout_at = created_at + interval '1 day' where id = 'finished'",
    "I3 by nobody": "update promise set settler = null where id = 'finished'",
    "I3 by a client": "update promise set timeout_at = settled_at where id = 'decided'",
    "I4": "update promise set timeout_at = settled_at - interval '1 second' where id = 'decided'",
    "I5 before": "update promise set settled_at = created_at - interval '1 second' where id = 'decided'",
    "I5 future": "update promise set settled_at = settled_at + interval '1 day' where id = 'decided'",
    "I6": "insert into promise (id, created_at, open_at) values ('un/decided', now(), now())",
    "I6 twice": "insert into promise select * from promise where id = 'decided'",
    "I13": "update promise set has_default = true, state = 'timedout', settler = 'timeout', timeout_at = settled_at where id = 'decided'",
    "I14 task": "delete from promise where id = 'ready'",
    "I14 promise": "delete from task where id = 'ready'",
    "I15 task": "insert into task (id, state, queue, lane, ready_at) values ('decided', 'ready', 'q', 'f', now())",
    "I15 wait": "insert into wait (task, operation, kind, fire_at, issued) values ('finished', 't', 'timer', now(), 0)",
    "I16": "update task set worker = null where id = 'claimed'",
    "I16 epoch": "update task set epoch = 0 where id = 'begun'",
    "I17": "update task set worker = 'w1' where id = 'ready'",
    "I18": "update task set ready_at = null where id = 'ready'",
    "I19": "update task set state = 'suspended', ready_at = null where id = 'ready'",
    "I20": "update wait set promise = 'decided' where operation = 'approval'",
    "I20 gone": "update wait set promise = 'never-was' where task = 'suspended' and promise is not null",
    "I21": "update task set attempts = 6 where id = 'ready'",
    "I21 negative": "update task set attempts = -1 where id = 'ready'",
    "I22": "update task set reason = null where id = 'halted'",
    "I30": "insert into wait (task, operation, kind, promise, issued) values ('ready', 'x', 'wait', 'ready', 0)",
    "I30 no task": "insert into wait (task, operation, kind, fire_at, issued) values ('nobody', 't', 'timer', now(), 0)",
    "I31": "insert into wait select * from wait where task = 'suspended'",
    "I32": "insert into wait (task, operation, kind, promise, issued) values ('ready', 'x', 'wait', 'claimed', 0), ('claimed', 'y', 'wait', 'ready', 0)",
    "I34": "insert into wait (task, operation, kind, promise, issued) values ('claimed', 'x', 'wait', 'decided', 0)",
    "I36 gap": "update checkpoint set seq = 7 where task = 'claimed'",
    "I36 last_seq": "update task set last_seq = 5 where id = 'claimed'",
    "I36 twice": "insert into checkpoint select (jsonb_populate_record(c, '{\"operation\": \"d-step\"}')).* from checkpoint c where task = 'finished'",
    "I36 asked": "update task set asked = last_seq + 1 where id = 'claimed'",
    "I37": "insert into checkpoint select (jsonb_populate_record(c, '{\"seq\": 2}')).* from checkpoint c where task = 'finished'",
    "I37 waits": "insert into wait (task, operation, kind, fire_at, issued) values ('claimed', 'a-step', 'timer', now() + interval '1 day', 0)",
    "I38": "update checkpoint set epoch = 3 where task = 'claimed' and seq = 1; update checkpoint set at = at - interval '1 hour' where task = 'claimed' and seq = 2",
    "I38 task": "update task set last_at = last_at - interval '1 hour' where id = 'claimed'",
    "I40": "update checkpoint set kind = 'wait', promise = 'suspended~approval' where task = 'claimed' and seq = 1",
    "I40 child": "update wait set promise = 'suspended~approval' where kind = 'call'",
    "I40 somebody": "update wait set kind = 'promise' where kind = 'call'",
    "I41": "update promise set timeout_at = created_at + interval '1 day' where id = 'suspended~approval'",
    "I41 task": "update task set timeout_at = now() where id = 'claimed'",
    "I41 timer": "update wait set fire_at = null where fire_at is not null",
    "I41 child": "update promise set timeout_at = now() + interval '1 hour', expires_at = now() + interval '1 hour' where id = 'suspended'; update task set timeout_at = now() + interval '1 hour' where id = 'suspended'",
    "I41 retry": "update wait set fire_at = null, promise = 'suspended~approval' where kind = 'retry'",
    "I41 attempt": "update attempt set ended_at = null",
    "I41 left open": "insert into promise (id, parent, created_at, open_at) values ('finished~a', 'finished', now(), now())",
    "I41 passed": "insert into closing (id, since, after) values ('finished', now(), 'finished~b'); insert into promise (id, parent, created_at, open_at) values ('finished~a', 'finished', now(), now())",
    "I41 gone": "insert into closing values ('never-was', now())",
    "I41 schedule": "insert into schedule (id, cron, function, enabled) values ('s', '* * * * *', 'f', true)",
    "I42": "insert into schedule (id, cron, function, last_at, next_at) values ('s', '* * * * *', 'f', now() + interval '2 days', now() + interval '1 day')",
    "I46": "delete from worker",
    "I47 timeout": "update promise set timeout_at = now() - interval '6 seconds', expires_at = now() - interval '6 seconds' where id = 'suspended~approval'",
    "I47 timer": "update wait set fire_at = now() - interval '6 seconds' where fire_at is not null",
    "I47 worker": "update worker set seen_at = now() - interval '21 seconds'",
    "I47 dead": "update worker set died_at = now() - interval '6 seconds'",
    "I47 ready": "update worker set sleeping = true, queues = '{default}', lanes = '{f}'; update task set ready_at = now() - interval '6 seconds' where id = 'ready'",
    "I47 closing": "insert into closing values ('finished', now() - interval '6 seconds')",
    "I47 itself": "insert into closing values ('suspended~child', now() - interval '6 seconds', true)",
    "I47 schedule": "insert into schedule (id, cron, function, next_at) values ('s', '* * * * *', 'f', now() - interval '6 seconds')",
    "I48": "delete from audit where promise = 'decided'",
    "I50 size": "update promise set value = to_jsonb(array(select md5(n::text) from generate_series(1, 40000) n)) where id = 'decided'",
    "I50 depth": "update promise set value = (repeat('[', 101) || '\"deep\"' || repeat(']', 101))::jsonb where id = 'decided'",
    "I50 children": "update task set children = 5 where id = 'suspended'",
    "I50 starts": "update task set children = children + 1 where id = 'suspended'",
    "I50 event": "update checkpoint set value = to_jsonb(array(select md5(n::text) from generate_series(1, 40000) n)) where task = 'claimed' and seq = 1",
    "I50 events": "insert into checkpoint (task, seq, operation, kind, issued, state, at, epoch) select 'long', n, 's' || n, 'step', 0, 'resolved', now(), 1 from generate_series(1, 100001) n",
    "I50 family": "insert into promise (id, created_at, open_at, parent) select 'suspended~' || n, now(), now(), 'suspended' from generate_series(1, 10001) n",
}  # fmt: skip

ALSO = {
    "I3 by a client": {"I4"},
    "I15 task": {"I14"},
    "I15 wait": {"I30"},
    "I30": {"I32"},
}
"""What else such a deed cannot but break."""


@pytest.fixture
def world(sql: Sql) -> Sql:
    make_world(sql)
    return sql


def test_nothing_is_wrong_with_the_world(world: Sql, db: Connection) -> None:
    assert violations(db, liveness=True) == []


@pytest.mark.parametrize("invariant", sorted({violator.split()[0] for violator in VIOLATORS}))
def test_a_violation_is_named(world: Sql, db: Connection, invariant: str) -> None:
    """It, and nothing but what such a deed cannot but break as well."""
    for violator, deed in VIOLATORS.items():
        if violator.split()[0] == invariant:
            with broken(world, deed):
                found = violations(db, liveness=True)
            assert {each.invariant for each in found} == {invariant} | ALSO.get(violator, set()), violator


def test_every_branch_of_the_view_is_needed_by_a_violator(world: Sql, db: Connection) -> None:
    """The branches are numbered, and each must be the one that names some violator."""
    numbers = iter(range(1000))
    numbered = re.sub(r"select '(I\d+)'", lambda found: f"select '{found[1]}/{next(numbers)}'", VIEW)
    branches = set(re.findall(r"select '(I\d+/\d+)'", numbered))
    met: set[str] = set()
    db.execute("set jit = off")
    db.execute(numbered.replace("create view violations", "create temporary view numbered").encode())
    for deed in VIOLATORS.values():
        with broken(world, deed):
            met |= {each["inv"] for each in world.query("select distinct inv from pg_temp.numbered")}
    assert sorted(branches - met) == []


def test_every_invariant_of_the_view_has_its_violator() -> None:
    named = set(re.findall(r"select '(I\d+)'", VIEW))
    assert named == {violator.split()[0] for violator in VIOLATORS}
    assert named | NOT_IN_THE_VIEW == {f"I{n}" for n in range(1, 53)}
    assert named & NOT_IN_THE_VIEW == set()


@contextmanager
def broken(sql: Sql, deed: str) -> Iterator[None]:
    """The world after a deed by hand, which is undone; CHECKs and keys do not stand in its way."""
    with sql.connection.transaction(force_rollback=True):
        rows = sql.query(
            """select conrelid::regclass::text as name, string_agg(format('drop constraint %I', conname), ', ') as rules
                 from pg_constraint where connamespace = 'troth'::regnamespace and contype in ('c', 'p', 'u') group by 1"""
        )
        for row in rows:
            sql.query(f"alter table {row['name']} {row['rules']}")
        for statement in deed.split("; "):
            sql.query(statement)
        yield
