"""Applies mutants of `sql/` one at a time to a database of their own, and runs the tests that should notice.

    python -m tests.proof.mutants                 # each mutant, its narrow tests
    python -m tests.proof.mutants --wide          # each, the wide suite, until the first test that fails
    python -m tests.proof.mutants NAME ...        # these only
    python -m tests.proof.mutants --part=1/4      # the first quarter of them
    python -m tests.proof.mutants --control       # no mutant, some of the narrow tests: they pass

One process imports everything and starts the server; each mutant is a copy of the migrated database with one file of `sql/`
loaded anew, and a fork of that process in which pytest runs. A mutant whose old text is not in its file exactly once is an
error.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest
from psycopg.conninfo import conninfo_to_dict

import troth.testing.server as servers
from tests.proof.mutants.mutant import Mutant
from tests.proof.mutants.mutants import MUTANTS
from troth.schema import sql_files
from troth.testing.server import Ground, Template, connected

ROOT = Path(__file__).resolve().parents[3]
WIDE = ("tests/sql", "tests/proof/races/test_schedules.py")
HANGS_S = 60
"""A mutant in which a test does not end is noticed too."""
OPTIONS = (
    *("-x", "-q", "--tb=line", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist"),
    *("-o", f"faulthandler_timeout={HANGS_S}"),
)
SURVIVED, KILLED = 0, 1
"""What pytest ends with: every test passed, or one failed."""


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: how pytest ended, what it wrote, and the seconds of CPU that it took."""

    mutant: Mutant | None
    code: int
    output: str
    cpu_s: float

    @property
    def killer(self) -> str:
        """The first test that failed."""
        failed = [line for line in self.output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
        return failed[0].split(" - ")[0] if failed else ""


def mutated(mutant: Mutant) -> str:
    """The text of the mutant's file, with the mutation."""
    [file] = [each for each in sql_files() if each.path == mutant.file]
    if file.text.count(mutant.old) != 1:
        raise LookupError(
            f"{mutant.name}: sql/{mutant.file} has {file.text.count(mutant.old)} times: {mutant.old}"
        )
    return file.text.replace(mutant.old, mutant.new)


@contextmanager
def server() -> Iterator[Template]:
    """A Postgres of this process with the migrated template, as the tests' plugin makes it."""
    with tempfile.TemporaryDirectory(prefix="troth-mutants-") as folder:
        ground = Ground(Path(folder))
        try:
            yield ground.template()
        finally:
            ground.release()


def judged(template: Template, mutant: Mutant | None, tests: Sequence[str]) -> Verdict:
    """Run the tests against the mutant, or against none."""
    with template.clone() as dsn:
        if mutant is not None:
            with closing(connected(dsn)) as connection:
                connection.execute(mutated(mutant).encode())
        database = str(conninfo_to_dict(dsn)["dbname"])
        with tempfile.TemporaryFile("w+") as output:
            before = os.times()
            code = _forked(Template(template.dsn, database), tests, output.fileno())
            after = os.times()
            output.seek(0)
            return Verdict(mutant, code, output.read(), sum(after[2:4]) - sum(before[2:4]))


def _forked(template: Template, tests: Sequence[str], output: int) -> int:
    """pytest in a fork, with a template that is there already; how it ended."""

    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.chdir(ROOT)
            with patch.object(servers.Ground, "_found", lambda _: template):
                code = int(pytest.main([*OPTIONS, *tests]))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def chosen(names: Sequence[str]) -> list[Mutant]:
    """The mutants of these names, or the part that `--part=n/of` says, or all."""
    known = {each.name: each for each in MUTANTS}
    named = [known[name] for name in names if not name.startswith("--")]
    for part in [each for each in names if each.startswith("--part=")]:
        n, of = map(int, part.removeprefix("--part=").split("/"))
        return list(MUTANTS[n - 1 :: of])
    return named or list(MUTANTS)


def main(arguments: Sequence[str]) -> int:
    """Judge mutants, a line each; 1 if one survived."""
    with server() as template:
        if "--control" in arguments:
            return _control(template)
        mutants = chosen(arguments)
        alive = [each for each in mutants if not _killed(template, each, wide="--wide" in arguments)]
    sys.stdout.write(f"{len(mutants) - len(alive)} of {len(mutants)} killed\n")
    return 1 if alive else 0


def _killed(template: Template, mutant: Mutant, *, wide: bool) -> bool:
    verdict = judged(template, mutant, WIDE if wide else mutant.tests)
    killed = verdict.code == KILLED
    word = "killed  " if killed else "SURVIVED"
    sys.stdout.write(f"{word} {verdict.cpu_s:5.1f} s  {mutant.name}  {verdict.killer}\n")
    if not killed:
        sys.stdout.write(f"  {mutant.why}\n  pytest ended with {verdict.code}: {verdict.output[-600:]}\n")
    sys.stdout.flush()
    return killed


def _control(template: Template) -> int:
    # `make test` runs all of them; here it is to be seen that they pass in a fork
    verdict = judged(template, None, sorted({test for each in MUTANTS for test in each.tests})[::6])
    passed = verdict.code == SURVIVED
    sys.stdout.write("all pass\n" if passed else verdict.output[-3000:])
    return 0 if passed else 1
