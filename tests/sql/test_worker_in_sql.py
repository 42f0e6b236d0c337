"""examples/worker.sql: psql and the functions are enough."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.sql import Sql, psql

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "worker.sql"

SAID = """\
-- somebody starts a workflow; a second start of the same ID finds the first
created
attached
-- a worker claims it: one task of the queue "default" whose function it knows
sql-order-42 epoch 1 order x journal []
-- it makes the promise, then runs its step and records the outcome
ok
to decide: sql-order-42~approval
ok
-- its code awaits the promise, so it lets go: from here on no process holds anything
ok
suspended|sql-order-42~approval
-- a person decides, twice
settled
already
-- some worker is woken, is told what has happened so far, and ends the workflow
sql-order-42 epoch 2 approved true
ok
resolved|x: approved
-- and leaves
0
"""


@pytest.mark.skipif(shutil.which("psql") is None, reason="psql is not installed")
def test_the_worker_in_plain_sql_says_what_it_should(sql: Sql, dsn: str) -> None:
    ended = psql(dsn, EXAMPLE)
    assert (ended.stderr, ended.returncode) == ("", 0)
    assert ended.stdout == SAID
    assert sql.events("sql-order-42") == [(1, "send_email", "resolved"), (2, "approval", "resolved")]
