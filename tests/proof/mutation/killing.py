"""Runs tests against mutants, each in a copy: the work tree is only read.

A mutant is killed when a stage of the tests fails on it, or does not end within its bound of CPU time (code that goes round
for ever is wrong too). Stages go from the quickest to the most thorough; what all of them pass survives. Before the first
mutant the copy as it is must pass every stage: tests that are red anyhow would kill everything.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.proof.mutation.mutants import Mutant

CPU_S_MAX = 60
WALL_S_MAX = 200
MEMORY_BYTES_MAX = 3 * 1024**3
IGNORED = shutil.ignore_patterns("__pycache__", ".*_cache", "*.pyc")


@dataclass(frozen=True)
class Ground:
    """What is copied, what of it is importable, and what is run there: arguments of Python, stage by stage."""

    root: Path
    copied: tuple[str, ...]
    path: tuple[str, ...]
    stages: tuple[tuple[str, ...], ...]


@dataclass
class Score:
    """What became of the mutants."""

    killed: list[Mutant] = field(default_factory=list)
    survived: list[Mutant] = field(default_factory=list)

    @property
    def share(self) -> float:
        """How many of a hundred were killed."""
        return 100 * len(self.killed) / max(len(self.killed) + len(self.survived), 1)


@contextmanager
def copy_of(ground: Ground) -> Iterator[Path]:
    """A copy of the ground, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as place:
        for each in ground.copied:
            source, target = ground.root / each, Path(place) / each
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=IGNORED)
            else:
                shutil.copy(source, target)
        yield Path(place)


def kill(ground: Ground, chosen: Sequence[Mutant]) -> Iterator[tuple[Mutant, str | None]]:
    """Each mutant with what killed it, or None."""
    with copy_of(ground) as place:
        if (failed := failure(ground, place)) is not None:
            raise AssertionError(f"the tests are red without any mutant:\n{failed}")
        for mutant in chosen:
            file = place / mutant.file
            original = file.read_text()
            file.write_text(mutant.text)
            try:
                yield mutant, failure(ground, place)
            finally:
                file.write_text(original)


def failure(ground: Ground, place: Path) -> str | None:
    """The end of what the first stage that fails has to say; None if all pass."""
    for stage in ground.stages:
        try:
            ran = subprocess.run(
                [sys.executable, "-B", *stage],
                cwd=place,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(str(place / each) for each in ground.path),
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "PYTEST_ADDOPTS": "",
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=WALL_S_MAX,
                preexec_fn=_bounded,
            )
        except subprocess.TimeoutExpired:
            return "did not end"
        if ran.returncode != 0:
            return ran.stdout.decode(errors="replace")[-2000:] or f"exit {ran.returncode}"
    return None


def _bounded() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S_MAX, CPU_S_MAX))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
