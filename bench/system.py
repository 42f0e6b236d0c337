"""What a system must offer to be measured, and how its worker process says how far it is.

Every system is driven by the same works (`works.py`), in a process of its own interpreter: peers live in another virtual
environment, so nothing here imports Troth. A worker process writes marks to its standard output; they carry CLOCK_MONOTONIC,
which all processes of one machine share, so that what happens inside a workflow is timed where it happens.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Final

MARK_EVERY: Final = 100
"""Steps between two marks of a worker."""
CALLERS: Final = 16
"""Concurrent callers of a system under load, and connections that they share."""
PAUSE_S: Final = 0.05
"""How long a step of the kind `slow` takes, in the steps' own time."""

_steps = itertools.count(1)


def mark(**what: Any) -> None:
    """One line to whoever drives the worker; may be called from any thread."""
    os.write(1, (json.dumps({**what, "at": time.monotonic()}) + "\n").encode())


def stepped() -> None:
    """A step was called in this process."""
    n = next(_steps)
    if n % MARK_EVERY == 0:
        mark(steps=n)


class System(ABC):
    """A system as its users use it. Kinds of workflows: `one` step, `ten` steps, `wait` for a decision, `slow`: one of 50 ms."""

    name: ClassVar[str]
    settings: ClassVar[str]
    """How it is set up, and by which page of its documentation."""
    works: ClassVar[frozenset[str]] = frozenset(
        {"starts", "drain", "steps", "decide", "continue", "slow", "low"}
    )
    """What it can do at all."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    @property
    @abstractmethod
    def version(self) -> str:
        """The installed version."""

    @abstractmethod
    async def prepare(self) -> None:
        """Make its schema in the empty database, as its documentation says."""

    @abstractmethod
    async def open(self) -> None:
        """Connect as a client."""

    @abstractmethod
    async def close(self) -> None:
        """Disconnect."""

    @abstractmethod
    async def start(self, kind: str, id: str) -> None:
        """Start one workflow, durably."""

    @abstractmethod
    async def start_many(self, kind: str, ids: Sequence[str]) -> None:
        """Start many, by the best way that it has."""

    @abstractmethod
    async def unfinished(self, kind: str) -> bool:
        """Whether any workflow of this kind (its ID begins with it and a hyphen) is not done yet, by one cheap query."""

    async def suspended(self, count: int) -> bool:
        """Whether so many workflows wait for their decision."""
        raise NotImplementedError

    async def resolve(self, id: str) -> None:
        """Decide what a workflow waits for."""
        raise NotImplementedError

    @abstractmethod
    def work(self) -> None:
        """Be a worker process until SIGTERM. Says `mark(ready=True)` when it takes work."""


class Marks:
    """What a worker process has said so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.steps: list[tuple[int, float]] = []
        self.continued: dict[str, float] = {}
        self.ready = asyncio.Event()
        self._more = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    async def until_steps(self, count: int) -> float:
        """When that many steps had been called in the worker."""
        while True:
            for steps, at in self.steps:
                if steps >= count:
                    return at
            await self._next()

    async def until_continued(self, ids: Sequence[str]) -> list[float]:
        """When each of these workflows went on."""
        while not all(id in self.continued for id in ids):
            await self._next()
        return [self.continued[id] for id in ids]

    async def _next(self) -> None:
        if self._reader.done():
            raise RuntimeError(f"the worker ended (exit code {self.process.returncode})")
        self._more.clear()
        await asyncio.wait(
            [self._reader, asyncio.ensure_future(self._more.wait())], return_when="FIRST_COMPLETED"
        )

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            try:
                said = json.loads(line)
            except ValueError:
                continue  # a system may print what it likes
            if not isinstance(said, dict):
                continue
            if "steps" in said:
                self.steps.append((said["steps"], said["at"]))
            if "continued" in said:
                self.continued[said["continued"]] = said["at"]
            if "ready" in said:
                self.ready.set()
            self._more.set()
        self.ready.set()
        self._more.set()
