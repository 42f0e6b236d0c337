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

MARK_EVERY: Final = int(os.environ.get("BENCH_MARK_EVERY", "1"))
"""Steps between two marks of a worker: a hundredth of the work, so that marks cost nobody anything."""
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
    """A system as its users use it. Kinds of work: `one` step; `slow`: one of 50 ms; `low`: one that says when it was called."""

    name: ClassVar[str]
    settings: ClassVar[str]
    """How it is set up here, and how that differs from what it does by itself."""

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

    @abstractmethod
    def work(self) -> None:
        """Be a worker process until SIGTERM. Says `mark(ready=True)` when it takes work."""


class Engine(System):
    """A system with steps and waiting. Kinds besides: `ten` steps, `wait` for a decision (it says when its code goes on)."""

    @abstractmethod
    async def suspended(self, count: int) -> bool:
        """Whether so many workflows wait for their decision."""

    @abstractmethod
    async def resolve(self, id: str) -> None:
        """Decide what a workflow waits for, durably."""


class Marks:
    """What a worker process has said so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.steps: list[tuple[int, float]] = []
        self.continued: dict[str, float] = {}
        self.ready = asyncio.Event()
        self._more = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    async def until_continued(self, ids: Sequence[str]) -> list[float]:
        """When each of these workflows went on."""
        for id in ids:
            while id not in self.continued:
                await self._next()
        return [self.continued[id] for id in ids]

    def check(self) -> None:
        """Raise RuntimeError if the worker has ended by itself."""
        if self._reader.done():
            raise RuntimeError(f"the worker ended by itself (exit code {self.process.returncode})")

    async def _next(self) -> None:
        self.check()
        self._more.clear()
        more = asyncio.ensure_future(self._more.wait())
        await asyncio.wait([self._reader, more], return_when="FIRST_COMPLETED")
        more.cancel()

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
