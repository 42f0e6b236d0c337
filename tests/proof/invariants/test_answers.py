"""Answers that cannot be are named: by what was said before, by what is stored, by what was issued."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.proof.invariants.answers import Answers
from tests.support.sql import Row, Sql, Worker

Heard = Callable[..., set[str]]


@pytest.fixture
def world(sql: Sql) -> Sql:
    sql.create_promise("settled")
    sql.resolve("settled", 1)
    sql.create_promise("open", timeout="1 hour")
    sql.start("w", "f")
    return sql


def judged(sql: Sql, *said: tuple[str, Any], ahead: timedelta = timedelta(0)) -> set[str]:
    """What is broken once these answers were given, one after the other."""
    answers = Answers()
    for n, (verb, answer) in enumerate(said):
        answers.heard(sql, verb, (2 * n, datetime.now(UTC) + ahead), 2 * n + 1, answer)
    return {each.invariant for each in answers.judge(sql)}


def test_what_was_truly_answered_is_right(world: Sql) -> None:
    claimed = Worker(world).claim()
    assert judged(world, ("get", world.get(["settled", "open"])), ("claim", claimed)) == set()


def test_i44_another_outcome_than_before_is_named(world: Sql) -> None:
    (document,) = world.get(["settled"])
    other: Row = {**document, "value": 2}
    assert judged(world, ("get", [document]), ("get", [other])) == {"I44"}
    assert judged(world, ("get", [document]), ("resolve", {"answer": "conflict", "promise": other})) == {
        "I44"
    }


def test_i44_pending_after_settled_is_named(world: Sql) -> None:
    (document,) = world.get(["settled"])
    pending: Row = {**document, "state": "pending"}
    assert judged(world, ("get", [document]), ("get", [pending])) == {"I44"}
    assert judged(world, ("get", [pending]), ("get", [document])) == set()


def test_i45_an_outcome_that_is_not_stored_is_named(world: Sql) -> None:
    (document,) = world.get(["settled"])
    assert judged(world, ("get", [{**document, "value": 2}])) == {"I45"}
    (document,) = world.get(["open"])
    assert judged(world, ("get", [{**document, "state": "timedout"}])) == {"I45"}


def test_i45_pending_past_its_timeout_is_named_unless_it_says_overdue(world: Sql) -> None:
    (document,) = world.get(["open"])
    late = timedelta(hours=2)
    assert judged(world, ("get", [document]), ahead=late) == {"I45"}
    assert judged(world, ("get", [{**document, "overdue": True}]), ahead=late) == set()


def test_i46_an_epoch_that_nobody_issued_or_twice_is_named(world: Sql) -> None:
    claimed = Worker(world).claim()
    assert judged(world, ("claim", [{**claimed[0], "epoch": 2}])) == {"I46"}
    assert judged(world, ("claim", claimed), ("claim", claimed)) == {"I46"}
