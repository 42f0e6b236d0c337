"""Who waited for a row, or stood still for another reason, answers by the clock of that moment, not by one from before."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.proof.races.stage import Stage
from tests.support.sql import Sql

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    "there",
    [
        lambda sql: sql.create_promise("late", timeout=SECOND),
        lambda sql: sql.start("late", "f", timeout=SECOND),
    ],
    ids=["attached", "taken"],
)
def test_create_promise_says_overdue_of_what_ran_out_while_it_stood(
    stage: Stage, there: Callable[[Sql], Any]
) -> None:
    """Another one holds the promise, so it cannot be settled as timed out; `pending` alone would say that there is time."""
    there(stage.boss)
    told: list[Any] = []

    def asks(sql: Sql) -> str:
        try:
            told.append(sql.create_promise("late"))
        except psycopg.Error as error:  # TR010: taken
            told.append(json.loads(error.diag.message_detail or ""))
        return "told"

    one, other = stage.sessions
    inserted = next(
        name for name, each in stage.points.items() if name.startswith("create_promise:") and each.writes
    )
    stage.conductor.arm(one, [inserted])
    stage.conductor.step(one, asks)
    assert one.at == inserted
    with other.sql.connection.transaction():
        other.sql.query("select from promise where id = 'late' for no key update")
        stage.boss.query("update test_clock set shift = '1 minute'")
        stage.conductor.step(one, asks)
        assert one.answer() == "told"
    assert [(each["state"], each.get("overdue")) for each in told] == [("pending", True)]
