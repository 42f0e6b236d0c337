"""How a client waits for results: by looking, for all that it waits for at once, soon at first, then ever less often.

Nothing is held on the server meanwhile, and a hint that got lost cannot hang anybody. An outage of Postgres is sat out for a
while.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final, TypeAlias

from troth import calls
from troth.errors import DatabaseError, Unreachable
from troth.gateway.pool import Pool
from troth.model import PromiseInfo

LOOK_FIRST_S: Final = 0.005
LOOK_LONGEST_S: Final = 0.5
LOOK_FACTOR: Final = 1.5
LOOK_BATCH_MAX: Final = 1000
OUTAGE_LONGEST_S: Final = 30.0
_PASSES: Final = ("25006", "53", "57014", "58")
"""Read-only (a standby), full, too slow for somebody's limit, a failing disk: an outage like another."""


Told: TypeAlias = "asyncio.Future[PromiseInfo | None]"
"""What one waiter is told: the settled promise, or None if he gave up."""


def give_up(told: Told) -> None:
    """End one wait, if it has not ended."""
    if not told.done():
        told.set_result(None)


class Lookout:
    """Waits for the promises of one client."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._waiting: dict[str, set[Told]] = {}
        self._pause = LOOK_FIRST_S
        self._fresh = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._unreachable_since: float | None = None

    async def wait(self, id: str, seconds: float | None, told: Told | None = None) -> PromiseInfo | None:
        """The promise once it is settled; None if that took longer than `seconds`.

        With a future of the caller's own, `told`, the wait can be given up from outside.
        """
        loop = asyncio.get_running_loop()
        told = loop.create_future() if told is None else told
        self._waiting.setdefault(id, set()).add(told)
        self._pause = LOOK_FIRST_S
        self._fresh.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look(), name="troth lookout")
        timer = None if seconds is None else loop.call_later(seconds, give_up, told)
        try:
            return await told
        finally:
            if timer is not None:
                timer.cancel()
            waiters = self._waiting.get(id, set())
            waiters.discard(told)
            if not waiters:
                self._waiting.pop(id, None)

    async def _look(self) -> None:
        while self._waiting:
            self._fresh.clear()
            try:
                async with asyncio.timeout(self._pause):
                    await self._fresh.wait()
                await asyncio.sleep(LOOK_FIRST_S)
            except TimeoutError:
                self._pause = min(self._pause * LOOK_FACTOR, LOOK_LONGEST_S)
            ids = list(self._waiting)
            try:
                for first in range(0, len(ids), LOOK_BATCH_MAX):
                    for promise in await self._pool.run(calls.settled(ids[first : first + LOOK_BATCH_MAX])):
                        self._tell(promise)
                self._unreachable_since = None
            except (Unreachable, DatabaseError) as error:
                if isinstance(error, DatabaseError) and not error.code.startswith(_PASSES):
                    self._fail(error)
                    continue
                now = time.monotonic()
                self._unreachable_since = self._unreachable_since or now
                if now - self._unreachable_since > OUTAGE_LONGEST_S:
                    self._fail(error)
            except Exception as error:  # noqa: BLE001 — whatever it was, those who wait are told
                self._fail(error)

    def _tell(self, promise: PromiseInfo) -> None:
        for future in self._waiting.pop(promise.id, set()):
            if not future.done():
                future.set_result(promise)

    def _fail(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, {}
        for futures in waiting.values():
            for future in futures:
                if not future.done():
                    future.set_exception(error)

    def close(self) -> None:
        """Stop looking; who still waits is told."""
        if self._task is not None:
            self._task.cancel()
        self._fail(
            Unreachable("The client was closed while it waited.", hint="Ask again through an open one.")
        )
