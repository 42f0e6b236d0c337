"""The functions as Python calls, for what is shown here of the log and of the judges."""

from __future__ import annotations

import pytest

from tests.support.sql import Connection, Sql


@pytest.fixture
def sql(db: Connection) -> Sql:
    return Sql(db)
