"""Mutates `troth.core` and says what its tests do not notice: `make mutate-core MUTANTS=60 SEED=0`."""

from __future__ import annotations

import random
import resource
import sys
from collections import Counter
from pathlib import Path

from tests.proof.mutation.killing import Ground, Score, kill
from tests.proof.mutation.mutants import Mutant, mutants

ROOT = Path(__file__).parents[3]
CORE = "engine/troth/core"
QUICK = tuple(
    f"tests/core/test_{name}.py"
    for name in ("machine", "asyncio", "names", "closing", "divergence", "patches")
)
PYTEST = ("-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", "-p", "no:troth", "--no-header")
CORES_GROUND = Ground(
    root=ROOT,
    copied=("engine/troth", "tests/core", "pyproject.toml"),
    path=("engine", "."),
    stages=((*PYTEST, *QUICK), ("-m", "tests.core.simulation", "1000", "0")),
)


def of_core() -> list[Mutant]:
    """Every mutant of the core."""
    return [
        mutant
        for file in sorted((ROOT / CORE).glob("*.py"))
        for mutant in mutants(str(file.relative_to(ROOT)), file.read_text())
    ]


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(many: int, seed: int) -> int:
    """Kill a sample, and say what survived. 0 at most of mutants means all of them."""
    everything = of_core()
    chosen = (
        everything if many <= 0 or many >= len(everything) else random.Random(seed).sample(everything, many)
    )
    _say(f"{len(chosen)} of {len(everything)} mutants of {CORE}, seed {seed}")
    score, by_kind = Score(), Counter[tuple[str, bool]]()
    for mutant, why in kill(CORES_GROUND, chosen):
        (score.survived if why is None else score.killed).append(mutant)
        by_kind[mutant.kind, why is not None] += 1
        _say(f"{'SURVIVED' if why is None else 'killed  '} {mutant}")
    _say(f"\n{len(score.killed)} of {len(chosen)} killed: {score.share:.1f} %")
    for kind in sorted({kind for kind, _ in by_kind}):
        _say(f"  {kind}: {by_kind[kind, True]} killed, {by_kind[kind, False]} survived")
    _say("\n  ".join(["\nsurvivors:", *map(str, score.survived)]))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    _say(f"\n{used.ru_utime + used.ru_stime:.0f} s of CPU")
    return 0


if __name__ == "__main__":
    given = [int(each) for each in sys.argv[1:]]
    sys.exit(main(*given, *(60, 0)[len(given) :]))
