"""Sessions of people who may do little, and try more."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.sql import Connection, Sql


@pytest.fixture
def sql(db: Connection) -> Sql:
    return Sql(db)


@pytest.fixture
def as_role(connect: Callable[..., Connection]) -> Callable[[str], Sql]:
    """A session that is nothing but a member of the role; its functions are known before it is one."""

    def become(role: str) -> Sql:
        session = Sql(connect())
        session.query(f"set session authorization troth_{role}")
        return session

    return become
