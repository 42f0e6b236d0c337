"""A run in which an invariant was never met fails and names it, in one process and in several; part of a run does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.proof.invariants.answers import KINDS
from tests.proof.invariants.changes import judged_changes, judged_situations
from tests.proof.invariants.held import HEAD, lines
from tests.proof.invariants.reach import EVERY, NOT_BUILT, never, table
from tests.support.sql import Connection, Sql

ROOT = Path(__file__).parents[3]

CONFTEST = """
from pathlib import Path

import pytest

from tests.proof.invariants.reach import EVERY, REACH, Reach


def pytest_configure(config):
    config.pluginmanager.register(Reach(Path(__file__).parent), REACH)


@pytest.fixture
def reach(request):
    return request.config.pluginmanager.getplugin(REACH)
"""
FIRST = """
from tests.proof.invariants.reach import EVERY

def test_all(reach):
    reach.add({(inv, "rows"): 1 for inv in EVERY})

def test_nothing(reach):
    reach.add({("I8", "pending → timedout"): 0})
"""
SECOND = """
def test_times_out(reach):
    reach.add({("I8", "pending → timedout"): TIMES})
"""


def run(folder: Path, *arguments: str, times: int) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_first.py").write_text(FIRST)
    (folder / "test_second.py").write_text(SECOND.replace("TIMES", str(times)))
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:troth", "--rootdir", str(folder), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize("processes", ["0", "2"])
def test_an_invariant_that_was_never_met_fails_the_run(tmp_path: Path, processes: str) -> None:
    without = run(tmp_path, "-n", processes, times=0)
    assert without.returncode == pytest.ExitCode.TESTS_FAILED, without.stdout + without.stderr
    assert "NEVER MET, so not tested: I8 (pending → timedout)" in without.stdout
    assert "3 passed" in without.stdout
    with_it = run(tmp_path, "-n", processes, times=7)
    assert with_it.returncode == pytest.ExitCode.OK, with_it.stdout + with_it.stderr
    assert "pending → timedout 7, rows 1" in with_it.stdout
    assert "NEVER MET" not in with_it.stdout


@pytest.mark.parametrize(
    "chosen",
    [["test_first.py"], ["-k", "test_all"], ["test_first.py::test_all", "test_second.py"]],
)
def test_part_of_a_run_shows_the_table_and_judges_nothing(tmp_path: Path, chosen: list[str]) -> None:
    part = run(tmp_path, "-n", "0", *chosen, times=0)
    assert part.returncode == pytest.ExitCode.OK, part.stdout + part.stderr
    assert "how often each invariant was put to the test" in part.stdout
    assert "NEVER MET" not in part.stdout


def test_every_invariant_is_counted_or_said_not_to_be_built(sql: Sql, db: Connection) -> None:
    sql.start("w", "f")
    counted = {inv for inv, _ in (*judged_changes(db), *judged_situations(db), *KINDS)}
    assert set(EVERY) - counted - set(NOT_BUILT) == {"I47"}  # counted where it is tried
    assert never({}) == [inv for inv in EVERY if inv not in NOT_BUILT]
    assert [line.split()[0] for line in table({})] == list(EVERY)


def test_what_is_not_built_is_not_there(db: Connection) -> None:
    """The excuses fall when somebody builds what they speak of."""
    written = "\n".join(file.read_text() for file in (ROOT / "sql").rglob("*.sql"))
    for words in ("into schedule", "update schedule", "into link"):
        assert words not in written, words
    assert db.execute("select to_regclass('troth.link')").fetchone() == (None,)


def test_the_page_says_where_each_is_judged() -> None:
    """The table of docs/reliability.md is the one that `python -m tests.proof.invariants.held` prints."""
    assert len(lines()) == 2 + len(EVERY)
    page = ROOT / "docs" / "reliability.md"
    if page.exists() and HEAD[0] in page.read_text("utf-8"):
        assert "\n".join(lines()) in page.read_text("utf-8")
