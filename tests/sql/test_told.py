"""What a settlement leaves behind for those whom it concerns: the holder, a sleeper, whoever decides again, the ticker."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import pytest

from tests.support.sql import Sql, Worker, promise, step, turn, wait
from troth.testing.clock import Clock

DECISIONS: Final = ("resolve", "cancel")
"""Settlements of one latent promise: by itself, and by what settles sets."""


@pytest.mark.parametrize("verb", DECISIONS)
def test_a_holder_has_news_until_the_next_claim_tells_it(sql: Sql, worker: Worker, verb: str) -> None:
    sql.start("w", "f")
    worker.claim()
    worker.advance(turn("w", 1, 0), operations=[promise("w", "p")])
    getattr(sql, verb)("w~p")
    assert [each["answer"] for each in sql.heartbeat("w1", ["w"], [1])] == ["news"]
    sql.leave("w1")
    [again] = Worker(sql, "w2").claim()
    assert again["last_seq"] == 1
    assert sql.heartbeat("w2", ["w"], [2]) == []


@pytest.mark.parametrize("verb", DECISIONS)
def test_an_event_never_stands_before_the_last(sql: Sql, worker: Worker, clock: Clock, verb: str) -> None:
    sql.start("w", "f")
    worker.claim()
    worker.advance(turn("w", 1, 0), outcomes=[step("w", "s")], operations=[promise("w", "p")])
    clock.advance(timedelta(seconds=-5))
    getattr(sql, verb)("w~p")
    step_at, promise_at = [each["at"] for each in sql.journal("w")]
    assert promise_at == step_at
    clock.set(timedelta(0))


@pytest.mark.parametrize("verb", DECISIONS)
def test_who_waits_twice_is_told_by_name(sql: Sql, worker: Worker, verb: str) -> None:
    sql.start("w", "f")
    worker.claim()
    worker.advance(turn("w", 1, 0), operations=[promise("w", "p")])
    worker.advance(turn("w", 1, 0), operations=[wait("w", "c", "w~p"), wait("w", "b", "w~p")])
    getattr(sql, verb)("w~p")
    assert [(seq, operation) for seq, operation, _ in sql.events("w")] == [(1, "b"), (2, "c"), (3, "p")]


def test_what_the_timeout_decided_is_nobodys(sql: Sql, clock: Clock) -> None:
    sql.create_promise("p", timeout=timedelta(days=1), default=True, has_default=True)
    clock.advance(timedelta(days=1))
    assert sql.tick()["promises"] == 1
    assert sql.resolve("p", True)["answer"] == "conflict"


@pytest.mark.parametrize("verb", DECISIONS)
def test_a_sleeper_hears_of_a_decision(
    sql: Sql, worker: Worker, connect: Callable[..., Any], verb: str
) -> None:
    sql.start("w", "f")
    worker.claim()
    worker.advance(turn("w", 1, 0, "suspend"), operations=[promise("w", "p")])
    listener = connect()
    listener.execute("listen w1")
    assert worker.claim(sleeping=True) == []
    getattr(sql, verb)("w~p")
    sql.query("select pg_notify('w1', 'the last')")
    assert _heard(listener) == ["", "the last"]


def test_a_sleeper_hears_of_a_task_that_goes_alone(
    sql: Sql, worker: Worker, clock: Clock, connect: Callable[..., Any]
) -> None:
    sql.start("w", "f")
    worker.claim()
    clock.advance(timedelta(minutes=1))
    listener = connect()
    listener.execute("listen sleeps")
    assert Worker(sql, "sleeps").claim(sleeping=True) == []
    assert sql.tick()["workers"] == 1
    assert sql.one("select lane from task") == "f@1!"
    sql.query("select pg_notify('sleeps', 'the last')")
    assert _heard(listener) == ["", "the last"]


def _heard(listener: Any) -> list[str]:
    heard: list[str] = []
    for each in listener.notifies(timeout=60):
        heard.append(each.payload)
        if each.payload == "the last":
            break
    return heard


def test_one_promise_left_open_is_owed_a_cancel(sql: Sql, worker: Worker) -> None:
    sql.start("w", "f")
    worker.claim()
    worker.advance(turn("w", 1, 0), operations=[promise("w", "p")])
    assert worker.finish("w", 1, 0) == "ok"
    assert sql.tick()["closed"] == 1
    assert (sql.state("w~p"), sql.query("select from closing")) == ("canceled", [])


def test_a_second_cancel_is_told_once_the_first_was(sql: Sql, worker: Worker, clock: Clock) -> None:
    sql.start("w", "f")
    worker.claim()
    sql.cancel("w")
    clock.advance(timedelta(seconds=2))
    sql.cancel("w")
    assert [name for _, name, _ in sql.events("w")] == ["~cancel"]  # its code knows of none yet
    assert worker.advance(turn("w", 1, 1, asked=True))["w"]["answer"] == "ok"
    sql.cancel("w")
    assert [name for _, name, _ in sql.events("w")] == ["~cancel", "~cancel:2"]
