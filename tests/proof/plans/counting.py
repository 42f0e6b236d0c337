"""What one call reads, by the counters that Postgres keeps for the transaction under way: exact, and the same on any machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tests.support.sql import Sql

_COUNTERS = """
select c.relname, pg_stat_get_xact_tuples_returned(c.oid), pg_stat_get_xact_blocks_fetched(c.oid)
  from pg_class c where c.relnamespace = 'troth'::regnamespace and c.relkind in ('r', 'i')"""


class Reads(NamedTuple):
    """Of one table or index: rows that a sequential scan, or entries that an index scan, returned; and pages looked at."""

    rows: int
    pages: int


def reads(sql: Sql, act: Callable[[], Any]) -> dict[str, Reads]:
    """What `act` reads, by relation; what it did not touch is left out. Within a transaction."""
    before = _counted(sql)
    act()
    after = _counted(sql)
    found = {
        name: Reads(after[name].rows - before[name].rows, after[name].pages - before[name].pages)
        for name in after
    }
    return {name: each for name, each in found.items() if any(each)}


def _counted(sql: Sql) -> dict[str, Reads]:
    rows = sql.connection.execute(_COUNTERS).fetchall()
    return {name: Reads(returned, pages) for name, returned, pages in rows}
