"""Every mutant of `sql/` is killed by the tests that it names, and without a mutation those tests pass.

`make mutants` runs each against the wide suite instead.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.proof.mutants.mutant import Mutant
from tests.proof.mutants.mutants import MUTANTS
from tests.proof.mutants.tool import mutated
from tests.support.postgres import Template

ROOT = Path(__file__).resolve().parents[3]
PARTS = 12
"""Each part is a test, so that none takes long on a busy machine."""


def run(postgres: Template, *arguments: str) -> str:
    """The tool over the server of this run; what it wrote, if all were killed."""
    without = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    ended = subprocess.run(
        [sys.executable, "-m", "tests.proof.mutants", *arguments],
        cwd=ROOT,
        env={**without, "TROTH_TEST_DSN": postgres.dsn},
        capture_output=True,
        text=True,
        timeout=230,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.parametrize("part", range(1, PARTS + 1))
def test_every_mutant_is_killed(postgres: Template, part: int) -> None:
    written = run(postgres, f"--part={part}/{PARTS}")
    assert written.count("killed ") == len(MUTANTS[part - 1 :: PARTS])


def test_without_a_mutation_their_tests_pass(postgres: Template) -> None:
    assert "all pass" in run(postgres, "--control")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda each: each.name)
def test_it_fits_into_its_file(mutant: Mutant) -> None:
    assert mutant.new in mutated(mutant)


def test_there_are_enough_and_a_text_that_is_gone_is_an_error() -> None:
    assert len({each.name for each in MUTANTS}) == len(MUTANTS) >= 40
    with pytest.raises(LookupError, match="0 times"):
        mutated(Mutant("none", "operator/halt.sql", "nowhere to be found", "", "", ()))
