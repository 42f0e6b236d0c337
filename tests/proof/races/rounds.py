"""Rounds of two calls that are inside at once, by construction: the first stands at a point when the second begins.

Which points, who goes on first, and whether some hours pass meanwhile is drawn from a seed. A round counts as a collision
only if it was seen: the first call stood at a point inside when the second one began.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from tests.proof.races.calls import Verb
from tests.proof.races.ground import Make, pass_time
from tests.proof.races.stage import Stage

TIME_PASSES = 0.15
"""How often hours pass while the first call stands inside."""


@dataclass
class Tally:
    """What the rounds of some pairs came to."""

    rounds: int = 0
    collisions: int = 0
    waited: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Who was seen waiting for a row that the other held."""
    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)


def grounds_of(first: Verb, second: Verb) -> list[Make]:
    """Where the two have the most to do: the first one's ground, and the second one's."""
    return list(dict.fromkeys((first.ground, second.ground)))


def collide(stage: Stage, pair: tuple[Verb, Verb], rounds: int, rng: random.Random, tally: Tally) -> None:
    """So many rounds on each of the pair's grounds, and what is asked behind them."""
    said = f"{pair[0].name} x {pair[1].name}"
    for make in grounds_of(*pair):
        for _ in range(rounds):
            _collide(stage, pair, make, rng, tally)
        tally.findings += [f"{said} on {make.__name__}: {each}" for each in stage.wrong()]
    tally.findings += [
        f"{said}, at the end: {each}" for each in stage.stuck() + stage.wrong() + stage.wrong_steps()
    ]
    stage.clean()


def _collide(stage: Stage, pair: tuple[Verb, Verb], make: Make, rng: random.Random, tally: Tally) -> None:
    conductor, (a, b) = stage.conductor, stage.sessions
    paths = [stage.path(each.do, make) for each in pair]
    ground = stage.ground(make)
    for session, path in zip((a, b), paths, strict=True):
        stops = rng.sample(path, min(len(path), rng.randint(1, 2)))
        conductor.arm(session, sorted(stops, key=path.index))
    conductor.step(a, lambda sql: pair[0].do(sql, ground))
    inside = a.rest == "paused"
    if rng.random() < TIME_PASSES:
        pass_time(stage.boss)
    conductor.step(b, lambda sql: pair[1].do(sql, ground))
    conductor.drain(rng.choice((a, b)))

    tally.rounds += 1
    tally.collisions += inside
    for session, verb, other in ((a, pair[0], pair[1]), (b, pair[1], pair[0])):
        tally.answers[verb.name, session.answer()] += 1
        said = f"{verb.name} beside {other.name} on {make.__name__}, stopped at {' '.join(session.stops)}"
        if session.blocked:
            tally.waited[verb.name, other.name] += 1
            if verb.worker:
                tally.findings.append(f"{said}, waited for a row")
        if not verb.allows(session.answer()):
            tally.findings.append(f"{said}, answered {session.answer()}")
