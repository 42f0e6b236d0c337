"""A busy worker vacuums the tables whose rows come and go, where it may: Postgres by itself looks once a minute.

It looks after so many claims, since each leaves two dead rows: the one it changed, and that which its task leaves in the end. So
whoever claims nothing says nothing. How many there are is counted by Postgres, for all workers together. It is a courtesy on
the side: no claim and no turn waits for it, what fails is left to autovacuum, and while it takes long it comes seldom (under a
snapshot that somebody holds, all that died stays).
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

import structlog

from troth import calls
from troth.errors import TrothError
from troth.gateway.pool import Pool

CLAIMS_BETWEEN: Final = 2000
DEAD_ROWS: Final = 5000
"""The least that makes it worth while, in both tables."""
SOONEST_S: Final = 0.5
TIMES_AS_LONG: Final = 20
"""It begins again not before so many times what it took: a twentieth of this worker's time at most."""
AFTER_FAILURE_S: Final = 60.0

_log = structlog.get_logger("troth.worker")


def not_before(begun_s: float, ended_s: float) -> float:
    """When it may look again after what began and ended then."""
    return begun_s + max(SOONEST_S, TIMES_AS_LONG * (ended_s - begun_s))


class Vacuum:
    """Vacuums on a connection of the pool, in the background, as often as what was claimed asks for."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._claims = 0
        self._not_before = 0.0
        self._under_way: asyncio.Task[None] | None = None
        self._over = False

    def claimed(self, tasks: int) -> None:
        """So many tasks were claimed."""
        self._claims += tasks
        if self._claims < CLAIMS_BETWEEN or self._over or self._under_way is not None:
            return
        if time.monotonic() >= self._not_before:
            self._claims = 0
            self._under_way = asyncio.create_task(self._vacuum(), name="troth vacuum")

    def stop(self) -> None:
        """No more; what is under way is canceled, and Postgres told so by the pool."""
        self._over = True
        if self._under_way is not None:
            self._under_way.cancel()

    async def _vacuum(self) -> None:
        begun = time.monotonic()
        try:
            # asked first: what it may not do is a warning in the server's log, and whoever is at a table is waited for
            match await self._pool.run(calls.may_vacuum(DEAD_ROWS), again=False):
                case "now":
                    await self._pool.run(calls.vacuum(), again=False)
                case "never":
                    self._over = True
                    _log.info("not the owner of the tables: vacuuming them is left to autovacuum")
                case "later":
                    pass
            self._not_before = not_before(begun, time.monotonic())
        except TrothError as error:
            _log.debug("no vacuum", error=str(error))
            self._not_before = time.monotonic() + AFTER_FAILURE_S
        finally:
            self._under_way = None
