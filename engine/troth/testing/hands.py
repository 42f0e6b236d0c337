"""A worker inside the test's process: started, killed and started again as a supervisor would a process.

Each life is a `troth.Worker` of its own, over pools that the test can make fail. To kill it is to let all of it vanish at once:
nothing that it still says arrives, and the tasks that it holds stay claimed in its name. What no test can take back from a
function that runs in a thread is the thread; it runs on to its end, and nobody hears of it.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, Final

from troth.client import Troth
from troth.gateway.pool import Pool
from troth.gateway.transactions import Transactions
from troth.registry import Registry, Workflow
from troth.testing.faults import Faults, Gate, SeamPool, SeamTransactions
from troth.testing.steps import Steps
from troth.worker import Worker
from troth.worker.seams import Seams

POLL: Final = timedelta(milliseconds=100)
LEASE: Final = timedelta(seconds=3)
"""A claim whose answer was lost is noticed within two heartbeats, three to a lease."""
GRACE: Final = timedelta(seconds=2)

Source = Workflow[..., Any] | types.ModuleType


class Hand:
    """A worker of a test: what `troth_env.worker(...)` answers."""

    def __init__(
        self,
        client: Troth,
        workflows: Iterable[Source],
        queues: Collection[str],
        options: Mapping[str, Any],
        *,
        faults: Faults,
        steps: Steps,
        provide: Mapping[Any, Any],
        watch: AbstractContextManager[object],
    ) -> None:
        self.workflows: tuple[Source, ...] = tuple(workflows)
        self.registry = Registry(self.workflows)
        self.queues = tuple(queues)
        self.options = dict(options)
        self.died: list[str] = []
        """The IDs of its former lives, whose leases nobody renews."""
        self._client = client
        self._faults = faults
        self.gate = Gate()
        """Closed, it takes up nothing."""
        self._steps = steps
        self._provide = provide
        self._watch = watch
        self._pools: list[SeamPool] = []
        self._worker: Worker | None = None
        self._life: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """It was started and has not ended."""
        return self._life is not None and not self._life.done()

    def start(self) -> None:
        """Begin a life, unless one is under way."""
        if self.running:
            return
        self._pools = []
        given: dict[str, Any] = {
            "poll": POLL,
            "lease": LEASE,
            "grace": GRACE,
            "watch": self._watch,
            **self.options,
        }
        if self._provide:
            given["provide"] = {**dict(given.get("provide") or {}), **self._provide}
        self._worker = Worker(
            self._client,
            self.workflows,
            self.queues,
            seams=Seams(self._pool, self._transactions, self._steps.stand_in),
            **given,
        )
        self._life = asyncio.get_running_loop().create_task(self._worker.run(), name="troth worker of a test")

    def kill(self) -> None:
        """Let it vanish, from whatever thread: nothing that it still says arrives."""
        life, worker = self._life, self._worker
        if life is None or worker is None:
            return
        for pool in self._pools:
            pool.dead = True
        self.died.append(worker.id)
        life.get_loop().call_soon_threadsafe(life.cancel)

    def failure(self) -> BaseException | None:
        """What ended it, if it ended by itself and unasked; told once."""
        life = self._life
        if life is None or not life.done() or life.cancelled():
            return None
        self._life = None
        return life.exception()

    async def stop(self) -> None:
        """End it as SIGTERM would, and raise what it raised."""
        life, worker = self._life, self._worker
        if life is None or worker is None:
            return
        if not life.done():
            worker.stop()
            for pool in self._pools:
                pool.leaving = True
            self.gate.open()
        await asyncio.wait([life])  # it may still be killed meanwhile
        self._life = self._worker = None
        if not life.cancelled():
            life.result()

    def _transactions(self, *args: Any, **options: Any) -> Transactions:
        return SeamTransactions(*args, faults=self._faults, dies=self.kill, **options)

    def _pool(self, *args: Any, **options: Any) -> Pool:
        pool = SeamPool(*args, faults=self._faults, gate=self.gate, dies=self.kill, **options)
        if self._pools and self._pools[0].dead:
            pool.dead = True
        self._pools.append(pool)
        return pool
