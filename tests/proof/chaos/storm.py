"""When who dies: a schedule drawn from a seed, for workers, API processes and Postgres.

Killed is who lives at that moment, wherever it is in its work. A killed worker or API process is followed by another one at
once, Postgres after up to a second. Others are only stopped for about their lease: they wake as zombies.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable

from tests.proof.chaos.crew import LEASE
from tests.proof.chaos.ground import Api, Crew, Database

WORKERS = 3
APIS = 2
ABATING = 4


class Storm:
    """The killers, each with a pace of its own (seconds between two kills, on average)."""

    def __init__(
        self, database: Database, apis: list[Api], crew: Crew, seed: int, paces: dict[str, float]
    ) -> None:
        self.kills: Counter[str] = Counter()
        self._database = database
        self._apis = apis
        self._crew = crew
        self._paces = paces
        self._chance = random.Random(f"storm {seed}")
        self._born = 0
        self._workers: list[str] = []
        self._paused: set[str] = set()
        self._resting = asyncio.Event()
        self.abating = False
        """Whether enough were killed, and only the load has not come to its end: a slow machine gets on better so."""

    def begin(self) -> None:
        """The first workers; the API processes are there."""
        for _ in range(WORKERS):
            self._spawn()

    async def run(self) -> None:
        """Kill, until `rest`; then whoever is to live lives."""
        killers = {
            "worker": self._kill_worker,
            "postgres": self._kill_postgres,
            "api": self._kill_api,
            "pause": self._pause_worker,
        }
        await asyncio.gather(*[self._again_and_again(kind, kill) for kind, kill in killers.items()])

    def rest(self) -> None:
        """Kill no more."""
        self._resting.set()

    async def mend(self) -> None:
        """For ever: what ended by itself is started again (an API process does if Postgres is away when it begins)."""
        while True:
            await asyncio.sleep(0.3)
            for api in self._apis:
                self.kills["api that could not begin"] += await asyncio.to_thread(api.mend)
            for name in (await asyncio.to_thread(self._crew.say, "ended")).split():
                raise AssertionError(f"worker {name} ended by itself")

    async def _again_and_again(self, kind: str, kill: Callable[[], Awaitable[None]]) -> None:
        while True:
            pace = self._paces[kind] * (ABATING if self.abating else 1)
            try:
                async with asyncio.timeout(pace * self._chance.uniform(0.3, 1.7)):
                    await self._resting.wait()
                return
            except TimeoutError:
                await kill()
                self.kills[kind] += 1

    async def _kill_worker(self) -> None:
        name = self._chance.choice([name for name in self._workers if name not in self._paused])
        self._workers.remove(name)
        await asyncio.to_thread(self._crew.say, "kill", name)
        self._spawn()

    async def _kill_postgres(self) -> None:
        self.kills["backends"] += await asyncio.to_thread(self._database.kill)
        await asyncio.sleep(self._chance.uniform(0, 1))
        await asyncio.to_thread(self._database.start_again)

    async def _kill_api(self) -> None:
        await asyncio.to_thread(self._chance.choice(self._apis).again)

    async def _pause_worker(self) -> None:
        """Stopped for about its lease: it wakes in the middle of its steps while others are taking them over."""
        name = self._chance.choice([name for name in self._workers if name not in self._paused])
        self._paused.add(name)
        try:
            await asyncio.to_thread(self._crew.say, "pause", name)
            await asyncio.sleep(LEASE.total_seconds() + self._chance.uniform(-0.7, 2))
            await asyncio.to_thread(self._crew.say, "continue", name)
        finally:
            self._paused.discard(name)

    def _spawn(self) -> None:
        self._born += 1
        self._crew.say("spawn", f"w{self._born}")
        self._workers.append(f"w{self._born}")
