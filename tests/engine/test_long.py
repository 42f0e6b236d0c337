"""S73: a workflow of 100,000 steps, the longest there may be. How long that takes is measured in `bench/`, not here."""

from __future__ import annotations

import gc
import tracemalloc

from bench.replay import journal_of, machine_of, told
from troth import limits
from troth.core import Returned


def test_s73_the_longest_journal_replays_to_its_end() -> None:
    journal = journal_of(limits.journal_entries_max)
    machine = told(machine_of(limits.journal_entries_max), journal)
    assert machine.outcome == Returned(limits.journal_entries_max)


def test_s73_what_a_replay_holds_grows_with_the_journal_and_no_faster() -> None:
    small, large = (_held(size) for size in (2_000, 16_000))
    assert large < 12 * small, f"8 times as many events hold {large / small:.1f} times as much"


def _held(size: int) -> int:
    journal = journal_of(size)[:-1]
    tracemalloc.start()
    try:
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        machine = told(machine_of(size), journal)
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    machine.evict()
    return held
