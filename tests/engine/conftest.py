"""A client, workers in this process, and worker processes, all ended behind each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.running import Stage, WorkerProcess, client_options
from troth import Troth


@pytest.fixture
async def stage(dsn: str) -> AsyncIterator[Stage]:
    """A client and workers of a fresh namespace."""
    async with Troth(dsn, **client_options()) as troth:
        stage = Stage(troth, dsn)
        yield stage
        await stage.stop_all()


@pytest.fixture
def spawn(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Starts worker processes; whichever lives at the end is killed."""
    spawned: list[WorkerProcess] = []

    def start(**options: Any) -> WorkerProcess:
        spawned.append(
            WorkerProcess(options.pop("dsn", None) or request.getfixturevalue("dsn"), tmp_path, **options)
        )
        return spawned[-1]

    yield start
    for process in spawned:
        process.close()


@pytest.fixture
def effects(tmp_path: Path) -> Callable[[], list[str]]:
    """What the steps of worker processes did to the world so far."""

    def read() -> list[str]:
        path = tmp_path / "effects"
        return path.read_text().splitlines() if path.exists() else []

    return read
