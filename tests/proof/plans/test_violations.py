"""The view of violations stays fast where the planner believes that there is nothing: it is looked at when something is wrong.

It joins every table with every other; believing them empty, Postgres chose nested loops, and 100,000 rows took minutes. Counted
are the rows that its nodes go through, which must grow with the rows that are there and not with their square.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.proof.plans.ground import STATISTICS, Crowd, fill, know
from troth.testing.server import connected
from troth.testing.violations import settings

CROWD = Crowd(finished=2000, children=500, suspended=2000, ready=500, claimed=500)
ROWS = 20_000


@pytest.mark.broken_on_purpose("the crowd is no history that could have been")
@pytest.mark.parametrize("statistics", STATISTICS)
def test_the_view_goes_through_each_row_a_few_times(dsn: str, statistics: str) -> None:
    with closing(connected(dsn)) as connection:
        fill(connection, CROWD)
        know(connection, statistics)
        with connection.transaction():
            for each in settings():
                connection.execute(each)
            explained = connection.execute(
                "explain (analyze, timing off, format json) select * from troth_checks.violations"
            ).fetchone()
    assert explained is not None
    ((plan,),) = (explained[0] if isinstance(explained[0], list) else json.loads(explained[0]),)
    worst = max(_nodes(plan["Plan"]), key=_work)
    assert _work(worst) < 20 * ROWS, worst["Node Type"]


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for each in plan.get("Plans", ()):
        yield from _nodes(each)


def _work(node: dict[str, Any]) -> int:
    """Rows that a node handed on or threw away, in all its loops."""
    removed = ("Rows Removed by Filter", "Rows Removed by Join Filter", "Rows Removed by Index Recheck")
    return int(node["Actual Loops"] * (node["Actual Rows"] + sum(node.get(each, 0) for each in removed)))
