"""The SQL against an oracle: random programs of calls on both, answers and tables compared after every call.

The seeds are fixed. A failure shows its seed and the fewest calls that still differ; `make model` runs as many more as one likes.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.proof.model.coverage import missing, table
from tests.proof.model.many import runs
from tests.proof.model.rows import Limits
from tests.proof.model.running import Reached, read, replay
from tests.proof.model.subject import Subject

SHARES = 8
RUNS = 100
"""In each share, so that no test is long."""
STEPS = 60
FOUND = sorted((Path(__file__).parent / "found").glob("*.jsonl"))
"""Programs that once differed, the fewest steps of each: a step a line, as a failure shows it."""

# the namespace has limits of its own; the invariants are looked at behind each run
pytestmark = pytest.mark.broken_on_purpose("journals are longer than the small limit allows")


@pytest.fixture(scope="session")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that all processes of this test run share."""
    base = tmp_path_factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "model"
    place.mkdir(exist_ok=True)
    return place


@pytest.mark.parametrize("program", FOUND, ids=lambda each: each.stem)
def test_what_long_runs_found_stays_mended(dsn: str, program: Path) -> None:
    subject = Subject(dsn, Limits())
    try:
        assert replay(subject, Limits(), read(program.read_text().splitlines())) is None
    finally:
        subject.close()


@pytest.mark.parametrize("share", range(SHARES))
def test_oracle_and_sql_agree(dsn: str, share: int, together: Path) -> None:
    """Whichever share is the last to end looks whether all of them together reached all that there is to reach."""
    ended = runs(dsn, share * RUNS, (share + 1) * RUNS, STEPS)
    assert ended.runs == RUNS
    _keep(together, share, ended)
    shares = [_kept(file) for file in together.glob("*.json")]
    if len(shares) == SHARES:
        reached = Reached()
        for each in shares:
            reached.add(each)
        assert not missing(reached), table(reached)


def _keep(place: Path, share: int, reached: Reached) -> None:
    answers = [[*case, count] for case, count in reached.answers.items()]
    written = place / f"{share}.new"
    written.write_text(json.dumps([answers, reached.rules, reached.steps, reached.runs]))
    written.rename(place / f"{share}.json")


def _kept(file: Path) -> Reached:
    answers, rules, steps, ended = json.loads(file.read_text())
    return Reached(Counter({(verb, case): n for verb, case, n in answers}), Counter(rules), steps, ended)


def test_what_is_met_too_seldom_is_named() -> None:
    nothing = missing(Reached())
    assert nothing["claim TR020"] == nothing["resolve already"] == 0
    full = Reached(Counter(dict.fromkeys(map(_case, nothing), 100)), Counter(dict.fromkeys(nothing, 1)))
    assert missing(full) == {}
    few = replace(full, answers=full.answers - Counter({("get", "something"): 1}))
    assert missing(few) == {"get something": 99}


def _case(name: str) -> tuple[str, str]:
    verb, _, answer = name.partition(" ")
    return verb, answer


def test_make_model_runs_in_processes_of_its_own() -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    ran = subprocess.run(
        ["make", "model", "RUNS=4", "STEPS=15", "PROCESSES=2", "SEED=7"],
        cwd=Path(__file__).resolve().parents[3],
        env=clean,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "4 runs, 60 steps, 0 differences" in ran.stdout
