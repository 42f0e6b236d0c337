"""How long a replay takes and what it holds: a workflow of many steps, its journal made beforehand, on a fresh machine.

It is the worker's own way from rows to a machine that stands where it stood; no Postgres takes part.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Sequence

import msgspec

from bench.programs import steps
from troth import JournalEntry
from troth.codec import Payloads
from troth.core import Machine
from troth.worker.telling import as_told, made_machine

SIZES = (100, 1000, 10_000, 100_000)
_STARTED_AT = 1_700_000_000_000_000


def replayed(size: int) -> dict[str, float]:
    """CPU for each event of a journal of this size, and what the machine holds for it in the end."""
    journal = journal_of(size)
    begun = time.process_time()
    told(machine_of(size), journal[:-1])
    seconds = time.process_time() - begun
    tracemalloc.start()
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    machine = told(machine_of(size), journal[:-1])
    gc.collect()
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    machine.evict()
    return {
        f"replay of {size:,} events, µs of CPU each": seconds / size * 1e6,
        f"replay of {size:,} events, bytes held each": held / size,
    }


def machine_of(count: int) -> Machine[object]:
    args = msgspec.json.encode({"count": count})
    return made_machine(steps, "w", args, None, started_at=_STARTED_AT, seed=1, payloads=Payloads())


def told(machine: Machine[object], journal: Sequence[JournalEntry]) -> Machine[object]:
    payloads = Payloads()
    machine.foresee(len(journal), ())
    machine.start()
    for entry in journal:
        machine.feed(as_told(entry, payloads))
    return machine


def journal_of(count: int) -> list[JournalEntry]:
    """What a worker would have recorded."""
    machine, payloads = machine_of(count), Payloads()
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
