"""A state of the model: the database, two workers, calls that are still under way without anybody to hear of them.

Everything is a frozen value. One workflow, one task; `holder` and `kept` are numbers of workers, or GONE for a process
that is no more.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.proof.protocol.programs import Event, Op

GONE = -1
ENTRIES_MAX = 2
"""How many events one answer holds."""


class Wait(NamedTuple):
    """A row of `wait`: for the promise of that name, or (timers) for an instant."""

    op: Op
    due: int | None = None


class Settling(NamedTuple):
    """A settlement that is not committed yet: it holds its promise. `seen`: who waited when it looked; their task is held too."""

    promise: str
    seen: tuple[Wait, ...] | None


class Db(NamedTuple):
    """One namespace."""

    task: str = "ready"
    holder: int | None = None
    epoch: int = 0
    journal: tuple[Event, ...] = ()
    waits: tuple[Wait, ...] = ()
    pending: frozenset[str] = frozenset()
    settled: frozenset[str] = frozenset()
    news: bool = False
    kept: int | None = None
    asked: int = 0
    ends: tuple[tuple[str, ...], ...] = ()
    """Every settlement of the workflow's own promise, with its value."""
    effects: tuple[str, ...] = ()
    """What transactions wrote into a table of the user's."""
    settling: Settling | None = None
    dead: frozenset[int] = frozenset()
    canceled: bool = False
    clock: int = 0


class Call(NamedTuple):
    """An `advance`, as the worker sends it and sends it again."""

    epoch: int
    seen: int
    outcomes: tuple[Event, ...] = ()
    ops: tuple[Op, ...] = ()
    then: str | None = None
    value: tuple[str, ...] = ()
    timers: tuple[Op, ...] = ()


class Answer(NamedTuple):
    """What it is answered."""

    word: str
    last_seq: int = 0
    entries: tuple[Event, ...] = ()


class Run(NamedTuple):
    """A workflow in a worker's hands. `told[:seen]` is durable, the rest was told ahead."""

    epoch: int
    told: tuple[Event, ...] = ()
    seen: int = 0
    running: frozenset[str] = frozenset()
    started: frozenset[str] = frozenset()
    arrived: tuple[Op, ...] = ()
    recorded: frozenset[str] = frozenset()
    call: Call | None = None
    news: bool = False


class Worker(NamedTuple):
    """A process. `kept`: what the code it keeps in memory was told. `looked`: a journal read before its lock."""

    run: Run | None = None
    kept: tuple[Event, ...] | None = None
    looked: tuple[Event, ...] | None = None


class State(NamedTuple):
    """All of it. `faults` is how many things may still go wrong."""

    db: Db
    workers: tuple[Worker, Worker]
    strays: tuple[Call, ...] = ()
    faults: int = 0
