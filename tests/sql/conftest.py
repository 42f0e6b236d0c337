"""What tests of the SQL functions share: calls as a superuser would make them, and a worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.support.sql import Sql, Worker


@pytest.fixture
def sql(db: psycopg.Connection[Any]) -> Sql:
    return Sql(db)


@pytest.fixture
def worker(sql: Sql) -> Worker:
    return Worker(sql)


@pytest.fixture
def another(connect: Callable[..., psycopg.Connection[Any]]) -> Callable[..., Sql]:
    """Makes further sessions."""
    return lambda schema="troth", **options: Sql(connect(schema, **options), schema)
