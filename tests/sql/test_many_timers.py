"""S51: 100,000 timers are due at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg

from tests.support.sql import Sql, Worker
from troth.testing.clock import Clock

TIMERS = 100_000
LIMIT = 2_000

DELAYED = """
  with started as (
    insert into promise (id, function, queue, args, created_at)
    select 'delayed-' || n, 'f', 'default', '{}', _clock() from generate_series(1, %s) n
    returning id
  ), sleeping as (
    insert into task (id, state, queue, lane) select id, 'suspended', 'default', 'f' from started returning id
  )
  insert into wait (task, operation, kind, fire_at, issued)
  select id, '~delay', 'delay', _clock() + interval '1 hour', 0 from sleeping
"""
"""What `start` with a delay leaves, a hundred thousand times in one statement."""


def test_s51_many_timers_due_at_once_come_in_batches_and_hold_nobody_up(
    sql: Sql, connect: Callable[..., psycopg.Connection[Any]], clock: Clock
) -> None:
    sql.query(DELAYED, TIMERS)
    sql.start("now", "g")
    clock.advance(timedelta(hours=2))

    def tick_until_none_is_left() -> list[int]:
        mine, fired = Sql(connect()), []
        while (done := mine.tick(LIMIT)["timers"]) > 0 or sql_left(mine):
            fired.append(done)
        return fired

    def claim_meanwhile() -> list[str]:
        mine = connect()
        mine.execute("set lock_timeout = '1s'")  # whoever waited for a row of the tickers' would fail here
        worker = Worker(Sql(mine), "busy", ["g"])
        return [row["task"] for row in worker.claim()]

    with ThreadPoolExecutor(3) as sessions:
        tickers = [sessions.submit(tick_until_none_is_left) for _ in range(2)]
        assert sessions.submit(claim_meanwhile).result() == ["now"]
        fired = [count for ticker in tickers for count in ticker.result()]
    assert sum(fired) == TIMERS, "each timer fired once"
    assert max(fired) <= LIMIT
    assert sql.one("select count(*) from task where state = 'ready' and lane = 'f'") == TIMERS


def sql_left(sql: Sql) -> bool:
    return bool(sql.one("select exists (select from wait where fire_at <= _clock())"))
