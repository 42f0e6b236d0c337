"""The API of the test's own database: as an application in this process, and as a process of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import psycopg
import pytest
from litestar import Litestar
from structlog.testing import capture_logs
from structlog.typing import EventDict

from tests.api.acting import Acting
from tests.api.asking import asking
from tests.api.serving import Serve, serving
from troth import Troth
from troth_api import create_app


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[EventDict]]:
    """What the application logs in this process."""
    with capture_logs() as captured:
        yield captured


@pytest.fixture
async def troth(dsn: str) -> AsyncIterator[Troth]:
    """The client that the application uses."""
    async with Troth(dsn) as client:
        yield client


@pytest.fixture
def app(troth: Troth) -> Litestar:
    """The application."""
    return create_app(troth)


@pytest.fixture
async def api(app: Litestar) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of the application."""
    async with asking(app) as client:
        yield client


@pytest.fixture
def acting(db: psycopg.Connection[Any]) -> Acting:
    """A worker in plain SQL."""
    return Acting(db)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts `python -m troth_api`; whatever was started is ended with the test."""
    with ExitStack() as stack:
        yield lambda *arguments, **environment: stack.enter_context(serving(*arguments, **environment))
