"""A real Postgres for every test that asks for one, and the invariants looked at behind each of them.

`dsn` is an empty database with the namespace `troth` in it; `db`, `connect` and `clock` build on it. When a test that
used it ends, the view of violations must be empty. The namespace is as `migrate` leaves it, but for its clock, which can
be moved (at rest it is the true one).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import psycopg
import pytest

from tests.support.postgres import Databases, Template, connected
from troth.schema import migrate
from troth.testing.clock import Clock
from troth.testing.violations import install_violations, violations

Connection = psycopg.Connection[Any]

# No example is too slow on a busy machine; and in CI a run tries what the one before it tried.
hypothesis.settings.register_profile(
    "here",
    deadline=None,
    database=None,
    derandomize=os.environ.get("CI") == "true",
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("here")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "broken_on_purpose(why): the test breaks invariants itself, so they are not looked at behind it",
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one `xdist_group` run in one process.

    pytest-xdist 3.8 tells the process that deals out the tests which group one is in by a suffix of its ID, and puts
    that where pytest before 9.2 had the ID. Without this the groups are spread.
    """
    for item in items:
        marked: str | None = vars(item).get("_nodeid")
        if marked is not None and "@" in marked and item.nodeid != marked:
            item._id = type(item._id).parse(marked)


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
