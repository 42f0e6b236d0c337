"""Random workflows on real workers over a real Postgres, disturbed in every way, and judged behind it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.engine.simulation_world import World
from troth.worker import runs

SEEDS = range(12)
WORKFLOWS = 10


@pytest.fixture(autouse=True)
def timers_of_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer that is not quite near suspends its workflow, as one of days would."""
    monkeypatch.setattr(runs, "LINGER_S", 0.01)


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_happens_everything_ends_as_it_is_recorded(
    seed: int, dsn: str, db: psycopg.Connection[Any]
) -> None:
    world = World(seed, dsn, db, workflows=WORKFLOWS)
    try:
        await world.live()
    except BaseException as error:
        error.add_note(
            f"seed {seed}; happened: {dict(world.reached)}; struck: {dict(world.faults.struck_so)}"
        )
        raise
