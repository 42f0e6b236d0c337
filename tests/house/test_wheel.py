"""The wheel, installed where nothing of the repository is in reach.

What a user gets from pip must bring its tables and functions along, and work from there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests.support.postgres import Template

# One process builds and installs it, whatever the number of them.
pytestmark = [pytest.mark.wheel, pytest.mark.xdist_group("wheel")]


def run(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """What the command printed; its failure is the test's, with all it said."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, root, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def away(root: Path, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean environment somewhere else, with the wheel and what it asks for, and nothing more."""
    folder = tmp_path_factory.mktemp("away")
    venv.create(folder / "venv", with_pip=False)
    # The pip at hand installs into it: a copy of pip for each environment would be half of the time.
    into = ("--python", folder / "venv")
    asked = ("install", "--quiet", "--disable-pip-version-check", "--constraint", root / "constraints.txt")
    run(sys.executable, "-m", "pip", *into, *asked, f"{wheel}[api]", cwd=folder)
    return folder


@pytest.fixture
def empty(postgres: Template) -> Iterator[str]:
    """The DSN of a database with nothing in it."""
    name = f"troth_wheel_{uuid4().hex[:12]}"
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        yield make_conninfo(postgres.dsn, dbname=name)
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable may lead the installed copy back to the repository."""
    for name in ("PYTHONPATH", "VIRTUAL_ENV", "TROTH_DSN", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)


def test_the_wheel_carries_every_table_function_and_module(
    root: Path, files: list[Path], wheel: Path
) -> None:
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    moved = {"engine/": "", "api/": "", "sql/": "troth/sql/", "migrations/": "troth/migrations/"}
    expected = {
        there + path.as_posix().removeprefix(here)
        for path in files
        for here, there in moved.items()
        if path.as_posix().startswith(here)
    }
    assert {
        "troth/__init__.py",
        "troth/py.typed",
        "troth_api/py.typed",
        "troth/migrations/env.py",
    } <= expected
    assert any(name.startswith("troth/sql/") for name in expected)
    assert inside == expected


def test_the_wheel_says_who_made_it_and_under_which_licence(root: Path, wheel: Path) -> None:
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"troth-{version}.dist-info/METADATA").decode()
        licence = archive.read(f"troth-{version}.dist-info/licenses/LICENSE").decode()
    assert "License-Expression: MIT\n" in metadata
    assert "Requires-Python: >=3.11\n" in metadata
    assert "The Troth developers" in licence


@pytest.mark.usefixtures("clean")
def test_both_packages_import_from_the_wheel_alone(root: Path, away: Path) -> None:
    said = run(
        away / "venv/bin/python", "-I", "-W", "error", "-c",
        "import troth, troth_api; print(troth.__file__); print(troth_api.__file__)",
        cwd=away,
    )  # fmt: skip
    places = [Path(line) for line in said.splitlines()]
    assert len(places) == 2
    assert all(place.is_relative_to(away) and not place.is_relative_to(root) for place in places)


@pytest.mark.usefixtures("clean")
def test_the_commands_are_there(away: Path) -> None:
    assert "migrate" in run(away / "venv/bin/troth", "--help", cwd=away)
    assert (away / "venv/bin/troth-api").is_file()


MIGRATE = """
import sys, troth.schema
report = troth.schema.migrate(sys.argv[1], roles=False)
print(report.revision_before, report.revision, report.functions, *troth.schema.locations().__dict__.values())
"""


@pytest.mark.usefixtures("clean")
def test_an_empty_database_is_migrated_from_the_wheel_alone(away: Path, empty: str) -> None:
    first, second = (
        run(away / "venv/bin/python", "-I", "-c", MIGRATE, empty, cwd=away).split() for _ in range(2)
    )
    assert first[0] == "None"
    assert second[0] == first[1]
    assert all(Path(place).is_relative_to(away) for place in first[3:])
    with psycopg.connect(empty) as connection:
        loaded = connection.execute(
            "select count(distinct proname) from pg_proc where pronamespace = 'troth'::regnamespace"
        ).fetchone()
        assert loaded == (int(first[2]),)
        answer = connection.execute(
            "select troth.create_promise('from-the-wheel') ->> 'answer',"
            " troth.resolve('from-the-wheel', 'true') ->> 'answer'"
        ).fetchone()
    assert answer == ("created", "settled")


WORK = """
import asyncio, sys
from troth import Context, Troth, Worker, workflow

async def send(promise_id: str) -> str:
    return f"sent {promise_id}"

@workflow
async def waits(ctx: Context, who: str) -> str:
    decision = ctx.promise(bool, "decision")
    said = await ctx.run(send, decision.id)
    return f"{who}: {said}, {await decision}"

async def main(dsn: str) -> None:
    async with Troth(dsn) as troth:
        worker = Worker(troth, [waits])
        running = asyncio.create_task(worker.run())
        await troth.create_promise(bool, "w~decision")
        await troth.resolve("w~decision", True)
        handle = await troth.start("w", waits, "ann")
        print(await handle.result(60))
        worker.stop()
        await running

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.usefixtures("clean")
def test_a_workflow_runs_from_the_wheel_alone(away: Path, empty: str) -> None:
    run(away / "venv/bin/python", "-I", "-c", MIGRATE, empty, cwd=away)
    said = run(away / "venv/bin/python", "-I", "-W", "error", "-c", WORK, empty, cwd=away)
    assert said.splitlines()[-2:-1] == ["ann: sent w~decision, True"]
