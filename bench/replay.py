"""How long a replay takes and what it holds: a workflow of many steps, its journal made beforehand, on a fresh machine.

It is the worker's own way from rows to a machine that stands where it stood; no Postgres takes part.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Sequence

import msgspec

from troth import Context, JournalEntry, workflow
from troth.codec import Payloads
from troth.core import Machine
from troth.worker.telling import as_told, made_machine

SIZES = (10_000, 100_000)
_STARTED_AT = 1_700_000_000_000_000


async def step(n: int) -> int:
    """Is never called: the journal has what it returned."""
    return n


@workflow
async def long(ctx: Context, steps: int) -> int:
    """A step after the other, and what they returned in all."""
    total = 0
    for n in range(steps):
        total += await ctx.run(step, n)
    return total


def replays() -> list[tuple[int, float, float]]:
    """For each size: the events, the seconds of a replay, and the kilobytes that it holds in the end."""
    return [_replay(size) for size in SIZES]


def _replay(size: int) -> tuple[int, float, float]:
    journal = journal_of(size)
    begun = time.perf_counter()
    told(machine_of(size), journal[:-1])
    seconds = time.perf_counter() - begun
    tracemalloc.start()
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    machine = told(machine_of(size), journal[:-1])
    gc.collect()
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    machine.evict()
    return size, seconds, held / 1024


def machine_of(steps: int) -> Machine[object]:
    args = msgspec.json.encode({"steps": steps})
    return made_machine(long, "w", args, None, started_at=_STARTED_AT, seed=1, payloads=Payloads())


def told(machine: Machine[object], journal: Sequence[JournalEntry]) -> Machine[object]:
    payloads = Payloads()
    machine.foresee(len(journal), ())
    machine.start()
    for entry in journal:
        machine.feed(as_told(entry, payloads))
    return machine


def journal_of(steps: int) -> list[JournalEntry]:
    """What a worker would have recorded."""
    machine, payloads = machine_of(steps), Payloads()
    issued = machine.start()
    journal: list[JournalEntry] = []
    while not machine.done:
        (operation,) = issued
        seq = machine.told + 1
        entry = JournalEntry(
            seq,
            operation.path,
            operation.kind,
            "resolved",
            _STARTED_AT + seq,
            issued=operation.issued,
            digest=operation.digest,
            cohort=machine.cohort(operation.issued),
            value=msgspec.Raw(b"1"),
        )
        journal.append(entry)
        issued = machine.feed(as_told(entry, payloads))
    return journal
