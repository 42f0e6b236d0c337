"""The plugin in projects of other people: whatever their mode of asyncio, and whether they use it or not."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

pytest_plugins = ["pytester"]

ORDERS = """
from datetime import timedelta
from troth import Context, workflow

CALLS = []

async def charge(order: str) -> str:
    return f"{order} paid"

@workflow
async def buy(ctx: Context, order: str) -> str:
    await ctx.sleep(timedelta(days=1))
    return await ctx.run(charge, order)

@workflow
async def careless(ctx: Context) -> None:
    CALLS.append(1)
    await ctx.run(charge, f"order {len(CALLS)}")

@workflow
async def hasty(ctx: Context) -> str:
    import time
    if time.time() > 0:
        await ctx.run(charge, "order")
    return "done"
"""

GOOD = """
import asyncio
import pytest
from orders import buy, charge
{marks}

async def test_buy(troth_env):
    troth_env.replace(charge, lambda order: f"{{order}} was free")
    assert await troth_env.run(buy, "order-1") == "order-1 was free"

class TestClass:
    async def test_in_a_class(self, troth_client, troth_env):
        loop = asyncio.get_running_loop()
        await troth_env.start("a", buy, "order-1")
        assert list(await troth_env.run_until_idle()) == ["a"]
        assert asyncio.get_running_loop() is loop

    @pytest.mark.parametrize("order", ["x", "y"])
    async def test_with_parameters(self, order, started, troth_env):
        assert (await troth_env.client.get("started")).function == "buy"
        assert await troth_env.run(buy, order) == f"{{order}} paid"
"""

PLAIN = """
from troth import SyncTroth

def test_without_asyncio(troth_dsn):
    with SyncTroth(troth_dsn) as client:
        assert client.start("a", "buy", "order-1").started.answer == "created"
"""

STRICT = """
[pytest]
asyncio_mode = {mode}
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""

SESSION = "asyncio_default_test_loop_scope = session\n"

STARTED = """
import {module} as given
@given.fixture
async def started(troth_env):
    await troth_env.start("started", "buy", "order-2")
"""


@pytest.fixture
def project(pytester: pytest.Pytester, postgres: object, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A fresh project with some workflows; its tests run on the server of this run."""
    dsn: str = postgres.dsn  # type: ignore[attr-defined]
    monkeypatch.setenv("TROTH_TEST_DSN", dsn)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    pytester.makepyfile(orders=ORDERS, test_plain=PLAIN)
    return pytester


def run(project: pytest.Pytester, *args: str) -> pytest.RunResult:
    registered = any(each.name == "troth" for each in entry_points(group="pytest11"))
    plugin = () if registered else ("-p", "troth.testing.plugin")
    return project.runpytest_subprocess(*plugin, "-p", "no:cacheprovider", "--strict-markers", *args)


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_it_works_in_both_modes_of_pytest_asyncio(project: pytest.Pytester, mode: str) -> None:
    project.makeini(STRICT.format(mode=mode))
    project.makeconftest(STARTED.format(module="pytest_asyncio"))
    marks = "" if mode == "auto" else "pytestmark = pytest.mark.asyncio"
    project.makepyfile(GOOD.format(marks=marks))
    run(project).assert_outcomes(passed=5)


def test_it_works_with_anyio(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\nfilterwarnings = error\n")
    project.makeconftest(
        STARTED.format(module="pytest") + "\n@given.fixture\ndef anyio_backend(): return 'asyncio'\n"
    )
    marks = "pytestmark = [pytest.mark.anyio]"
    project.makepyfile(GOOD.format(marks=marks))
    run(project, "-p", "no:asyncio").assert_outcomes(passed=5)


def test_processes_of_xdist_share_one_server(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\nasyncio_mode = auto\n")
    project.makepyfile(
        """
        import pytest
        from orders import buy

        @pytest.mark.parametrize("n", range(4))
        async def test_each(troth_env, troth_server, n):
            print("server", troth_server.dsn, troth_server.database)
            assert await troth_env.run(buy, str(n)) == f"{n} paid"
        """
    )
    result = run(project, "-n", "2", "-rA")
    result.assert_outcomes(passed=5)
    assert len({line for line in result.outlines if line.startswith("server ")}) == 1


def test_what_is_wrong_fails_the_test(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\nasyncio_mode = auto\n")
    project.makepyfile(
        """
        import pytest
        from orders import buy, careless, hasty

        async def test_careless(troth_env):
            await troth_env.run(careless)

        async def test_hasty(troth_env):
            assert await troth_env.run(hasty) == "done"

        async def test_broken(troth_env):
            await troth_env.start("a", buy, "order-1")
            await troth_env.run_until_idle()
            troth_env._connection.execute("delete from wait")

        async def test_wrong(troth_env):
            await troth_env.run(careless)
            assert "apples" == "pears"

        @pytest.mark.troth(replay=False)
        async def test_mistyped(troth_env):
            pass

        @pytest.mark.troth(replays=False)
        async def test_without_replays(troth_env):
            await troth_env.run(careless)

        @pytest.mark.troth(guard=False)
        async def test_without_guard(troth_env):
            assert await troth_env.run(hasty) == "done"
        """
    )
    result = run(project)
    result.assert_outcomes(passed=3, failed=5)
    result.stdout.fnmatch_lines(
        [
            "*careless-1 (careless) does not do what its journal says.*",
            "*orders.py:*: workflow code called time.time*",
            "*InvariantBroken: I19 a: *",
            "*AssertionError: assert 'apples' == 'pears'*",
            "*@pytest.mark.troth takes replays=, guard=, invariants= only*",
        ]
    )
    # what the test itself raised is what is told, not what the checks would have found
    result.stdout.fnmatch_lines(["FAILED *::test_wrong - AssertionError*"])


def test_the_checks_are_chosen_in_the_ini(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\nasyncio_mode = auto\ntroth_checks = invariants\n")
    project.makepyfile(
        """
        import pytest
        from orders import careless

        async def test_careless(troth_env):
            await troth_env.run(careless)

        @pytest.mark.troth(replays=True)
        async def test_checked(troth_env):
            await troth_env.run(careless)
        """
    )
    run(project).assert_outcomes(passed=2, failed=1)
    project.makeini("[pytest]\ntroth_checks = everything\n")
    result = run(project)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*troth_checks: everything is not one of replays, guard, invariants*"])


def test_an_owner_who_may_create_databases_is_enough_and_any_scope_of_the_loop(
    project: pytest.Pytester, postgres: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg
    from psycopg.conninfo import make_conninfo

    dsn: str = postgres.dsn  # type: ignore[attr-defined]
    user = f"troth_tester_{os.getpid()}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"create role {user} login createdb password 'secret'".encode())
    try:
        monkeypatch.setenv("TROTH_TEST_DSN", make_conninfo(dsn, user=user, password="secret"))
        project.makeini(STRICT.format(mode="auto").replace("= function", "= session") + SESSION)
        project.makeconftest(STARTED.format(module="pytest_asyncio"))
        project.makepyfile(GOOD.format(marks=""))
        run(project).assert_outcomes(passed=5)
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f"drop role {user}".encode())


def test_loading_it_loads_nothing_else() -> None:
    code = (
        "import sys, troth; before = set(sys.modules); import pytest, troth.testing.plugin; "
        "print(*sorted(each for each in set(sys.modules) - before if each.startswith('troth')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["troth.testing", "troth.testing.plugin"]


def test_every_public_name_is_there() -> None:
    import troth.testing

    for name in troth.testing.__all__:
        assert getattr(troth.testing, name).__name__ == name or name == "FaultKind"
    with pytest.raises(AttributeError, match="nothing"):
        _ = troth.testing.nothing
