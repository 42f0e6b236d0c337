"""Each invariant about pairs of states is broken once by hand, and that one must then be named, and no other."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.proof.invariants.answers import KINDS
from tests.proof.invariants.changes import (
    forget_changes,
    judged_changes,
    violated_changes,
)
from tests.proof.invariants.violators import CHANGES
from tests.proof.invariants.world import make_world
from tests.support.sql import Connection, Sql

# Judged elsewhere, by what is answered (answers.py) or in two namespaces (below).
NOT_IN_THE_VIEW = {"I44", "I45", "I52"}
OF_PAIRS = {f"I{n}" for n in (*range(7, 13), *range(23, 30), 33, 34, 35, 39, 40, 43, 44, 45, 46, 48, 52)}


@pytest.fixture
def world(sql: Sql) -> Sql:
    make_world(sql)
    sql.query(
        "insert into schedule (id, cron, function, next_at) values ('s', '* * * * *', 'f', now() + interval '9 days')"
    )
    return sql


def unprotected(sql: Sql) -> None:
    """Without CHECKs and keys, which would stand in the way of what is to be caught behind them."""
    rows = sql.query(
        """select conrelid::regclass::text as name, string_agg(format('drop constraint %I', conname), ', ') as rules
             from pg_constraint where connamespace = 'troth'::regnamespace and contype in ('c', 'p', 'u') group by 1"""
    )
    for row in rows:
        sql.query(f"alter table {row['name']} {row['rules']}")


def named(sql: Sql, deed: str) -> set[str]:
    """The invariants that are named after a deed by hand, which is undone."""
    with sql.connection.transaction(force_rollback=True):
        unprotected(sql)
        sql.query("set local troth.by_hand = on")
        for statement in deed.split("; "):
            sql.query(statement)
        assert violated_changes(sql.connection) == []
        return {each.invariant for each in violated_changes(sql.connection, by_hand=True)}


@pytest.mark.parametrize("invariant", sorted({violator.split()[0] for violator in CHANGES}))
def test_a_change_is_named(world: Sql, invariant: str) -> None:
    assert violated_changes(world.connection, by_hand=True) == []
    for violator, (deed, also) in CHANGES.items():
        if violator.split()[0] == invariant:
            assert named(world, deed) == {invariant} | also, violator


def test_what_a_function_does_is_judged_without_being_asked_for(world: Sql, db: Connection) -> None:
    """As the owner of the tables, which the functions run as: a deed by hand is left out, theirs never."""
    with db.transaction(force_rollback=True):
        unprotected(world)
        db.execute("grant create, usage on schema troth to troth_owner")
        db.execute("set local role troth_owner")
        db.execute("update promise set value = '2' where id = 'finished'")
        db.execute("reset role")
        assert {each.invariant for each in violated_changes(db)} == {"I9"}


def test_every_rule_has_its_violator() -> None:
    text = Path(__file__).with_name("transitions.sql").read_text()
    in_view = set(re.findall(r"select '(I\d+)'", text))
    assert in_view == {violator.split()[0] for violator in CHANGES}
    assert in_view | NOT_IN_THE_VIEW == OF_PAIRS


def test_every_branch_of_the_view_is_needed_by_a_violator(world: Sql, db: Connection) -> None:
    """The branches are numbered, and each must be the one that names some violator."""
    text = Path(__file__).with_name("transitions.sql").read_text()
    numbers = iter(range(1000))
    numbered = re.sub(r"select '(I\d+)'", lambda found: f"select '{found[1]}/{next(numbers)}'", text)
    branches = set(re.findall(r"select '(I\d+/\d+)'", numbered))
    met: set[str] = set()
    db.execute("set search_path = troth_changes, troth, pg_temp")
    db.execute("set enable_nestloop = off")
    db.execute("set jit = off")
    db.execute(
        numbered.replace("create view transitions_violated", "create temporary view numbered").encode()
    )
    for deed, _ in CHANGES.values():
        with db.transaction(force_rollback=True):
            unprotected(world)
            db.execute("set local troth.by_hand = on")
            for statement in deed.split("; "):
                world.query(statement)
            met |= {each["inv"] for each in world.query("select distinct inv from pg_temp.numbered")}
    assert sorted(branches - met) == []


@pytest.mark.broken_on_purpose("the log begins anew, and the answers do not")
def test_every_invariant_of_pairs_is_counted(world: Sql, db: Connection) -> None:
    counted = {inv for inv, _ in judged_changes(db)}
    assert counted | {inv for inv, _ in KINDS} >= OF_PAIRS
    assert judged_changes(db)["I24", "ready → claimed"] == 5
    assert judged_changes(db)["I39", "step"] == 3
    assert judged_changes(db)["I48", "resolve"] == 1
    forget_changes(db)
    assert judged_changes(db) == {}


def test_what_was_rolled_back_never_was(sql: Sql, db: Connection) -> None:
    with db.transaction(force_rollback=True):
        sql.start("w", "f")
    assert sql.one("select count(*) from troth_changes.change") == 0


@pytest.mark.broken_on_purpose("two namespaces in one call")
def test_i52_a_call_that_changed_two_namespaces_is_named(
    two_namespaces: tuple[str, str], connect: Callable[..., Connection]
) -> None:
    here, there = (Sql(connect(name), name) for name in two_namespaces)
    here.start("a", "f")
    there.start("a", "f")
    assert violated_changes(here.connection) == []
    assert judged_changes(here.connection)["I52", "transactions beside another namespace"] == 1
    with here.connection.transaction():
        here.start("b", "f")
        here.connection.execute("select troth_other.start('b', 'f')")
    assert {each.invariant for each in violated_changes(here.connection)} == {"I52"}
