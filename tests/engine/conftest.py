"""A client, workers in this process, and worker processes, all ended behind each test.

With TROTH_TEST_POOLED=on all of them go through pgbouncer in transaction mode, but for LISTEN.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.running import Stage, WorkerProcess, client_options
from tests.support.pooler import led_through, pooler
from tests.support.postgres import Template
from troth import Troth


@pytest.fixture(scope="session")
def pooler_of_all(postgres: Template) -> Iterator[None]:
    with (
        tempfile.TemporaryDirectory(prefix="troth-pooler-") as place,
        pooler(postgres.dsn, Path(place)) as port,
        led_through(postgres.dsn, port),
    ):
        assert f":{port}/" in Troth(postgres.dsn).dsn
        yield


@pytest.fixture(autouse=True)
def pooled(request: pytest.FixtureRequest) -> None:
    """All clients go through the pooler, if the run is to have one."""
    if os.environ.get("TROTH_TEST_POOLED") == "on" and "dsn" in request.fixturenames:
        request.getfixturevalue("pooler_of_all")


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
