"""No call reads more than what it is about, however much there is beside it, whatever the planner knows or may not do.

Counted are the rows and pages that each call reads in a namespace with a million promises of the past and 200,000 workflows
that wait (a fifth of that on the embedded Postgres). What the planner knows is true, or nothing, or false: a table that was
analysed at the moment when its rows had gone (a queue worked off) is believed to be empty for as long as nobody looks again.
docs/decisions/0001 tells the story.
"""

from __future__ import annotations

from contextlib import closing
from typing import Final

import pytest

from tests.proof.plans.calls import CALLS, CROWDED, Call, Stage
from tests.proof.plans.counting import reads
from tests.proof.plans.ground import STATISTICS, Connection, Crowd, ground, know
from tests.support.sql import Sql
from troth.testing.server import connected

SWITCHES: Final = ("", "enable_seqscan", "enable_indexscan", "enable_bitmapscan")
STATEMENT_TIMEOUT: Final = "60s"
"""A guard: a call that reads everything for each of its items would not end."""


CROWDS: Final = {
    "15": Crowd(),
    "embedded": Crowd(finished=180_000, children=20_000, suspended=40_000),
}


@pytest.mark.parametrize("postgres_of", CROWDS)
def test_every_call_reads_what_it_is_about(postgres_of: str) -> None:
    """One test for each Postgres: processes that shared out its parts would each fill a namespace of their own."""
    beyond: list[str] = []
    with ground(postgres_of, CROWDS[postgres_of]) as dsn:
        for statistics in STATISTICS:
            for switch in SWITCHES:
                beyond += _beyond(dsn, statistics, switch, CALLS)
            # a limit is a limit where thousands are due
            for name, each in CROWDED.items():
                beyond += _beyond(dsn, statistics, "", {name: each})
            with closing(connected(dsn)) as connection:
                connection.execute("vacuum (index_cleanup on, truncate off) wait, promise")
    assert beyond == []


def test_emptied_is_what_analyze_leaves(dsn: str) -> None:
    """`know` writes to the catalog what ANALYZE would: seen side by side, on tables that were worked off."""
    few = Crowd(finished=900, children=100, suspended=400, ready=200, claimed=100)
    shape = """select relname, reltuples, relpages, (select count(*) from pg_statistic where starelid = c.oid)
                 from pg_class c where relnamespace = 'troth'::regnamespace and relkind in ('r', 'i')
                  and relname ~ '^(promise|task|wait|checkpoint)' and relname !~ 'tags|created' order by 1"""
    with closing(connected(dsn, autocommit=False)) as connection:
        for statement in few.statements():
            connection.execute(statement.encode())
        connection.commit()
        for table in ("promise", "task", "wait", "checkpoint"):
            connection.execute(f"delete from {table}".encode())
        connection.commit()
        connection.execute("analyze promise, task, wait, checkpoint")
        seen = connection.execute(shape.encode()).fetchall()
        know(connection, "emptied")
        assert connection.execute(shape.encode()).fetchall() == seen
        assert {each[1] for each in seen} == {0}


def _beyond(dsn: str, statistics: str, switch: str, calls: dict[str, Call]) -> list[str]:
    """Which calls read more than they may, in a session of its own: no plan is left from what was known before."""
    with closing(connected(dsn)) as connection:
        know(connection, statistics)
    with closing(connected(dsn)) as connection:
        connection.execute(f"set statement_timeout = '{STATEMENT_TIMEOUT}'".encode())
        if switch:
            connection.execute(f"set {switch} = off".encode())
        _settle_dust(connection)
        found = {name: _excess(connection, each) for name, each in calls.items()}
    return [f"{statistics}, {switch or 'all on'}: {name} {each}" for name, each in found.items() if each]


def _excess(connection: Connection, call: Call) -> str:
    """What a call reads beyond its measure, or nothing: an empty string."""
    sql = Sql(connection)
    with connection.transaction(force_rollback=True):
        stage = Stage(sql)
        call.before(stage)
        found = reads(sql, lambda: call.act(stage))
    rows = sum(each.rows for each in found.values())
    pages = sum(each.pages for each in found.values())
    if rows <= 100 * call.items + 400 and pages <= 150 * call.items + 400:
        return ""
    worst = sorted(found.items(), key=lambda each: each[1].pages, reverse=True)[:3]
    return f"reads {rows} rows and {pages} pages for {call.items}: {worst}"


def _settle_dust(connection: Connection) -> None:
    """Dead entries that calls before left in front of an index are marked by the first who passes them."""
    with connection.transaction(force_rollback=True):
        stage = Stage(Sql(connection))
        stage.sql.tick()
        stage.worker.claim()
