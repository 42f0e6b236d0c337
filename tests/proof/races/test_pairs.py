"""Every ordered pair of functions that change something, both inside at once, on the same rows.

In each round the first call stands somewhere in the middle while the second one begins. No deadlock, no answer but those that
are allowed, no worker's call that waits for a row, no broken invariant (a lost wake-up is I20), and an end that can be reached.
The pairs in which engines have gone wrong get many more rounds: TROTH_RACES_ROUNDS collisions each, at least.
"""

from __future__ import annotations

import os
from random import Random

import pytest

from tests.proof.races.calls import VERBS
from tests.proof.races.report import told
from tests.proof.races.rounds import Tally, collide
from tests.proof.races.stage import Stage

COLLISIONS = int(os.environ.get("TROTH_RACES_ROUNDS", "100"))
"""So often the two of a critical pair meet, at least."""
COLLISIONS_OF_PURGE = max(COLLISIONS, 1000) if COLLISIONS > 100 else 16
"""So often purge meets each of the others: there are many of those."""
EACH = max(COLLISIONS // 100, 1)
"""Rounds of every ordered pair, on each of its grounds."""
BATCH = 10
"""After so many rounds on a ground it is looked at what is broken."""

CRITICAL = (
    ("resolve", "suspend"),
    ("claim", "tick: dead workers"),
    ("tick: timeouts and timers", "resolve"),
    ("cancel", "finish"),
    ("create", "cancel"),
    ("create", "cancel_force"),
)


@pytest.mark.parametrize("first", VERBS)
def test_every_pair(stage: Stage, first: str) -> None:
    tally = Tally()
    for second in VERBS:
        collide(stage, (VERBS[first], VERBS[second]), EACH, Random(f"{first} x {second}"), tally)
    tell(f"{first} x all", tally)
    assert tally.findings == []
    assert tally.collisions * 4 >= tally.rounds * 3, "the first call was inside when the second one began"


@pytest.mark.parametrize("pair", CRITICAL, ids=" x ".join)
def test_critical_pairs(stage: Stage, pair: tuple[str, str]) -> None:
    meet(stage, pair, COLLISIONS)


@pytest.mark.parametrize("other", VERBS)
def test_purge_and_everything(stage: Stage, other: str) -> None:
    meet(stage, ("purge", other), COLLISIONS_OF_PURGE)


def meet(stage: Stage, pair: tuple[str, str], collisions: int) -> None:
    """Let the two meet so often, each of them being first half of the time."""
    tally, rng = Tally(), Random(" x ".join(pair))
    first, second = (VERBS[each] for each in pair)
    while tally.collisions < collisions and not tally.findings:
        assert tally.rounds < 4 * collisions + 4 * BATCH, "they meet at least every fourth time"
        rounds = min(BATCH, -(-collisions // 4))
        collide(stage, (first, second), rounds, rng, tally)
        collide(stage, (second, first), rounds, rng, tally)
    tell(" x ".join(pair), tally)
    assert tally.findings == []


def tell(name: str, tally: Tally) -> None:
    waits = sum(tally.waited.values())
    told(f"pair   {name}: {tally.rounds} rounds, {tally.collisions} collisions, {waits} waits for a row")
