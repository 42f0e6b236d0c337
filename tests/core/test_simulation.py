"""Random programs, random orders of events, crashes at random points: every life does the same (DESIGN 5.1, checker iv).

`make simulate RUNS=1000000` goes on for as long as anybody wants; what it is made of is in `simulation/`.
"""

from __future__ import annotations

import gc
import os

import pytest

from tests.core.simulation.breakages import BREAKAGES, CALM_BREAKAGES, Breakage
from tests.core.simulation.life import Difference
from tests.core.simulation.programs import FORMS, LEAVES
from tests.core.simulation.runs import calm_all, checked, simulate
from troth.errors import Diverged

RUNS = int(os.environ.get("TROTH_TEST_SIMULATIONS", "20000"))
CHUNKS = 20
CAUGHT_WITHIN = 400


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_life_of_a_random_program_is_the_same(chunk: int) -> None:
    size = RUNS // CHUNKS
    checked(range(chunk * size, (chunk + 1) * size))


def test_where_nothing_races_the_order_of_events_changes_nothing() -> None:
    calm_all(range(RUNS // CHUNKS))


def test_the_simulation_reaches_what_it_is_about() -> None:
    """Counters: a simulation whose programs never raced, timed out or were canceled would prove nothing."""
    reached = checked(range(1_000))
    for what in (
        *LEAVES,
        *FORMS,
        "timer",
        "a change",
        "a crash",
        "being overtaken",
        "late",
        "by hand",
        "by hand, early",
        "closing",
        "given up",
        "patch True",
        "patch False",
        "CanceledOutcome",
        "Returned",
        "timeout TimeoutError",
        "wait_for TimeoutError",
        "completed TimeoutError",
        "group ExceptionGroup",
        "gather Failed",
        "step Failed",
        "call canceled",
        "promise canceled",
        "step canceled",
    ):
        assert reached[what] >= 5, f"{what}: {reached[what]}"
    assert reached["entries"] >= 5 * reached["runs"]


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda breakage: breakage.__name__)
def test_determinism_broken_on_purpose_is_found(breakage: Breakage, monkeypatch: pytest.MonkeyPatch) -> None:
    breakage(monkeypatch)
    with pytest.raises((Difference, Diverged)) as caught:
        checked(range(CAUGHT_WITHIN))
    monkeypatch.undo()
    (note,) = caught.value.__notes__
    simulate(int(note.rpartition("SEED=")[2]))  # which is at peace with the machine as it is


@pytest.mark.parametrize("breakage", CALM_BREAKAGES, ids=lambda breakage: breakage.__name__)
def test_names_that_depend_on_the_order_of_events_are_found(
    breakage: Breakage, monkeypatch: pytest.MonkeyPatch
) -> None:
    breakage(monkeypatch)
    with pytest.raises(Difference):
        calm_all(range(CAUGHT_WITHIN))


@pytest.fixture(autouse=True)
def _quiet() -> None:
    gc.collect()
