"""One stage a module and process: putting the points in costs more than emptying the namespace between two tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.proof.races.stage import Stage, staged
from troth.testing.server import Databases


@pytest.fixture(scope="module")
def one_stage(troth_databases: Databases) -> Iterator[Stage]:
    with troth_databases.lend() as dsn, staged(dsn) as stage:
        yield stage


@pytest.fixture
def stage(one_stage: Stage) -> Iterator[Stage]:
    """An empty namespace with points in its functions, two sessions and their conductor."""
    yield one_stage
    one_stage.recover()
