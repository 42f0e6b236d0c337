"""A real Postgres for every test that asks for one, and the invariants looked at behind each of them.

`dsn` is an empty database with the namespace `troth` in it; `db`, `connect` and `clock` build on it. When a test that
used it ends, the view of violations must be empty. The namespace is as `migrate` leaves it, but for its clock, which can
be moved (at rest it is the true one).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.proof.invariants.answers import Answers
from tests.proof.invariants.changes import (
    forget_changes,
    install_changes,
    judged_changes,
    judged_situations,
    logged,
    violated_changes,
)
from tests.proof.invariants.reach import REACH, Reach
from tests.support.postgres import Databases, Template, connected
from tests.support.sql import Sql, listeners
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

_HERE = Path(__file__).parent
_RECORDED = (_HERE / "sql", _HERE / "proof" / "invariants")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Reach(_HERE / "sql"), REACH)
    config.addinivalue_line(
        "markers",
        "broken_on_purpose(why): the test breaks invariants itself, so they are not looked at behind it",
    )
    config.addinivalue_line(
        "markers", "unrecorded(why): no log of row changes for this test, which its triggers would disturb"
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


@pytest.fixture(scope="session")
def recording_databases(troth_server: Template) -> Iterator[Databases]:
    """As the plugin's, but with the log of row changes in each."""
    with troth_server.clone() as home:
        with connected(home) as connection:
            install_changes(connection)
        databases = Databases(Template(troth_server.dsn, str(conninfo_to_dict(home)["dbname"])))
        yield databases
        databases.close()


@pytest.fixture
def dsn(request: pytest.FixtureRequest) -> Iterator[str]:
    """A superuser's DSN of an empty database with the namespace `troth`; its roles are there, nothing else."""
    looked_at = request.node.get_closest_marker("broken_on_purpose") is None
    with (_recording if _records(request.node) else _plain)(request) as lent:
        yield lent
        if looked_at:
            with connected(lent) as connection:
                assert violations(connection) == []


def _records(node: pytest.Item) -> bool:
    """Whether the changes of rows are logged for a test: for those of the functions, unless it says `unrecorded`."""
    where = os.environ.get("TROTH_TEST_CHANGES", "some")
    if where == "none" or node.get_closest_marker("unrecorded") is not None:
        return False
    return where == "all" or any(each in node.path.parents for each in _RECORDED)


@contextmanager
def _plain(request: pytest.FixtureRequest) -> Generator[str]:
    databases: Databases = request.getfixturevalue("troth_databases")
    with databases.lend() as lent:
        yield lent


@contextmanager
def _recording(request: pytest.FixtureRequest) -> Generator[str]:
    """With the log of changes and the answers of `Sql`: both are judged and counted behind the test."""
    databases: Databases = request.getfixturevalue("recording_databases")
    answers = Answers()
    with databases.lend() as lent:
        listeners.append(answers.heard)
        try:
            yield lent
        finally:
            listeners.remove(answers.heard)
        with connected(lent) as connection:
            reach: Reach = request.config.pluginmanager.getplugin(REACH)
            for counted in (judged_changes(connection), judged_situations(connection), answers.counts):
                reach.add(counted)
            if request.node.get_closest_marker("broken_on_purpose") is None:
                for schema in logged(connection):
                    assert violated_changes(connection, schema) == []
                assert not answers.heard_anything or answers.judge(Sql(connection)) == []
            forget_changes(connection)


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
        if logged(connection):
            install_changes(connection, "troth_other")
    return "troth", "troth_other"


@pytest.fixture
def reach(request: pytest.FixtureRequest) -> Reach:
    """Where a test counts what only it can see of an invariant that it has put to the test."""
    plugin: Reach = request.config.pluginmanager.getplugin(REACH)
    return plugin
