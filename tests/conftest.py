"""A real Postgres for every test that asks for one, and the invariants looked at behind each of them.

`dsn` is an empty database with the namespace `troth` in it; `db`, `connect` and `clock` build on it. When a test that
used it ends, the view of violations must be empty. The namespace is as `migrate` leaves it, but for its clock, which can
be moved (at rest it is the true one).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.support.postgres import Databases, Template, connected
from troth.schema import migrate
from troth.testing.clock import Clock
from troth.testing.violations import install_violations, violations

Connection = psycopg.Connection[Any]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "broken_on_purpose(why): the test breaks invariants itself, so they are not looked at behind it",
    )


@pytest.fixture(scope="session")
def postgres(troth_server: Template) -> Template:
    """The server of this run and the template that the tests' databases are copied from: the plugin's."""
    return troth_server


@pytest.fixture
def dsn(troth_databases: Databases, request: pytest.FixtureRequest) -> Iterator[str]:
    """A superuser's DSN of an empty database with the namespace `troth`; its roles are there, nothing else."""
    with troth_databases.lend() as lent:
        yield lent
        if request.node.get_closest_marker("broken_on_purpose") is None:
            with connected(lent) as connection:
                assert violations(connection) == []


@pytest.fixture
def connect(dsn: str) -> Iterator[Callable[..., Connection]]:
    """Makes connections as `db` is one (keywords as psycopg's, and `schema`); all are closed at the end."""
    opened: list[Connection] = []

    def make(schema: str | None = "troth", **options: Any) -> Connection:
        opened.append(connected(dsn, schema, **options))
        return opened[-1]

    yield make
    for connection in opened:
        connection.close()


@pytest.fixture
def db(connect: Callable[..., Connection]) -> Connection:
    """An autocommit superuser connection whose path is the namespace."""
    return connect()


@pytest.fixture
def clock(db: Connection) -> Clock:
    """The namespace's clock, made movable: `clock.advance(timedelta(days=1))`."""
    return Clock(db)


@pytest.fixture
def two_namespaces(dsn: str) -> tuple[str, str]:
    """The names of two namespaces in the database of `dsn`."""
    migrate(dsn, schema="troth_other")
    with connected(dsn, "troth_other") as connection:
        install_violations(connection, "troth_other")
    return "troth", "troth_other"
