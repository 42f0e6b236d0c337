"""One simulated workflow, from a seed: grown, lived through, and lived through again from prefixes of its journal."""

from __future__ import annotations

import random
import zlib
from collections import Counter
from collections.abc import Iterable
from typing import Final

from tests.core.driving import litter
from tests.core.simulation.life import Difference, Life
from tests.core.simulation.programs import CALM_FORMS, CALM_LEAVES, FORMS, LEAVES, Gardener
from tests.core.simulation.world import World

SEEN: Final = ("canceled", "TimeoutError", "Failed", "ExceptionGroup", "BrokenBarrierError", True, False)
"""Results that are counted by form."""

UNEVEN: Final = ("wait_for", "cancel")
"""Forms that wake their callers some turns of the loop later on Python 3.11 than on others: `wait_for`, and a `gather` of
what is done already. Names are the same; which of two branches comes first, made ready by the same entry, may not be.
"""


def simulate(seed: int, forms: Iterable[str] = FORMS) -> World:
    """Live through one workflow and check all that must hold. Raises Difference."""
    rng = random.Random(seed)
    tree = Gardener(rng, LEAVES, tuple(forms)).program()
    world = World(tree, rng)
    try:
        world.run()
        for upto in (int(rng.random() * (len(world.journal) + 1)), len(world.journal)):
            kept = litter(rng)
            again = world.replayed(upto)
            again.same_as(world.life, upto, f"replay of {upto} entries")
            if upto == len(world.journal) and again.log != world.life.log:
                raise Difference("the whole replay saw something else at its end")
            _check_reports(again)
            del kept
        _check_reports(world.life)
    finally:
        world.evict()
    return world


def calm(seed: int) -> None:
    """Where nothing races, every order of events leads to the same operations with the same arguments and values."""
    rng = random.Random(seed)
    tree = Gardener(rng, CALM_LEAVES, CALM_FORMS).program()
    seen: list[tuple[object, ...]] = []
    for order in range(2):
        world = World(tree, random.Random(seed + order), calm=True)
        world.run()
        world.evict()
        machine = world.life.machine
        operations = sorted(
            (path, kind, digest or 0) for turn in world.life.turns for path, kind, _, digest in turn.issued
        )
        seen.append((machine.done, str(machine.outcome), operations))
    if seen[0] != seen[1]:
        raise Difference(f"another order of events:\n  then {seen[0]}\n  now  {seen[1]}")


def calm_all(seeds: Iterable[int]) -> None:
    for seed in seeds:
        calm(seed)


def checked(seeds: Iterable[int]) -> Counter[str]:
    """Simulate each; the counters of what was reached. A difference names the seed that shows it again."""
    reached: Counter[str] = Counter()
    for seed in seeds:
        try:
            world = simulate(seed)
        except BaseException as error:
            error.add_note(f"seed {seed}: make simulate RUNS=1 SEED={seed}")
            raise
        reached.update(world.reached)
        reached["runs"] += 1
        reached[str(world.life.turns[-1].outcome).partition(" ")[0].partition("(")[0]] += 1
        reached["entries"] += len(world.journal)
        for seen in world.life.log:
            if isinstance(seen, tuple):
                reached[str(seen[0])] += 1
                if seen[1] in SEEN:
                    reached[f"{seen[0]} {seen[1]}"] += 1
        for life in world.lives:
            reached.update(life.reached)
        for turn in world.life.turns:
            reached["closing"] += turn.closing
            reached["given up"] += len(turn.given_up)
    return reached


def fingerprint(seed: int) -> int:
    """All that could be seen of one run as a number, to be compared between processes and Pythons."""
    world = simulate(seed, [form for form in FORMS if form not in UNEVEN])
    life = world.life
    return zlib.crc32(repr((life.turns, life.log, world.journal)).encode())


def _check_reports(life: Life) -> None:
    for report in life.reports:
        if "never retrieved" not in str(report.get("message")):
            raise Difference(f"asyncio reports {report}")
