"""Drives machines by hand: feeds entries, keeps the journal, replays it on a fresh machine that must do the same."""

from __future__ import annotations

import gc
import random
import zlib
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from troth.core import (
    CANCEL,
    CANCEL_PATH,
    PROMISE,
    STEP,
    TIMER,
    Entry,
    Machine,
    Operation,
    OperationFuture,
    current,
)

T = TypeVar("T")

STARTED_AT = 1_700_000_000_000_000

Issued = tuple[str, str, int, int | None]


class Failed(Exception):
    """What a rejected entry raises in the code."""


def finish(entry: Entry) -> Any:
    if entry.state == "rejected":
        raise Failed(entry.outcome)
    return entry.outcome


def digest_of(*args: object) -> int:
    return zlib.crc32(repr(args).encode())


def step(name: str, *args: object) -> OperationFuture[Any]:
    """What `ctx.run` does: issue a step in the scope of the running task."""
    return current().issue(STEP, name, args, digest_of(name, *args), finish)


def promise(name: str) -> OperationFuture[Any]:
    return current().issue(PROMISE, name, None, None, finish)


def described(operations: list[Operation]) -> list[Issued]:
    return [(one.path, one.kind, one.issued, one.digest) for one in operations]


class Run(Generic[T]):
    """A machine, the journal it was told, and what it issued at each turn."""

    def __init__(self, main: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self.main = main
        self.reports: list[Any] = []
        self.machine = Machine(main, started_at=STARTED_AT, report=self.reports.append)
        self.journal: list[Entry] = []
        self.turns = [described(self.machine.start())]

    @property
    def open(self) -> list[str]:
        return list(self.machine.open)

    @property
    def last(self) -> list[str]:
        """The paths issued in the last turn."""
        return [path for path, *_ in self.turns[-1]]

    def feed(self, entry: Entry) -> list[str]:
        self.turns.append(described(self.machine.feed(entry)))
        self.journal.append(entry)
        return self.last

    def tell(
        self, path: str, outcome: object = None, *, state: str = "resolved", micros: int = 10
    ) -> list[str]:
        """An entry about an open operation, so many microseconds after the last one; a timer's at its instant."""
        return self.feed(self.entry(self.machine.open[path], outcome, state=state, micros=micros))

    def entry(
        self, operation: Operation, outcome: object = None, *, state: str = "resolved", micros: int = 10
    ) -> Entry:
        at = self.machine.now + micros
        if operation.kind == TIMER:
            assert isinstance(operation.request, int)
            at = max(self.machine.now, operation.at + operation.request)
        seq = self.machine.told + 1
        return Entry(
            seq, operation.path, operation.kind, operation.issued, operation.digest, state, outcome, at
        )

    def cancel(self) -> list[str]:
        seq = self.machine.told + 1
        return self.feed(Entry(seq, CANCEL_PATH, CANCEL, 0, None, "canceled", None, self.machine.now + 10))

    def finish_all(self, rng: random.Random | None = None, *, turns_max: int = 2_000) -> None:
        """Settle open operations, the first or a random one, each with its path as value, until the code has ended."""
        while not self.machine.done:
            assert len(self.journal) < turns_max, "the code does not end"
            assert self.machine.open, "the code waits for nothing"
            paths = self.open
            path = rng.choice(paths) if rng else paths[0]
            state = "rejected" if rng and rng.random() < 0.15 else "resolved"
            self.tell(path, f"{path}@{self.machine.told}", state=state, micros=rng.randrange(3) if rng else 1)

    def replay(self, upto: int | None = None) -> Run[T]:
        """A fresh machine, told the same; whatever it issues must be what this one issued, turn by turn."""
        again = Run(self.main)
        assert again.turns[0] == self.turns[0]
        for entry in self.journal[:upto]:
            again.feed(entry)
            assert again.turns[-1] == self.turns[entry.seq]
        if upto is None or upto == len(self.journal):
            assert again.machine.done == self.machine.done
            assert described(list(again.machine.open.values())) == described(list(self.machine.open.values()))
        return again


def value(run: Run[T]) -> T:
    """What the code returned."""
    outcome = run.machine.outcome
    assert outcome is not None, f"still waiting for {run.open}"
    assert hasattr(outcome, "value"), outcome
    result: T = outcome.value
    return result


def litter(rng: random.Random) -> list[object]:
    """Disturb the allocator, so that objects get other addresses the next time."""
    kept: list[object] = [bytearray(rng.randrange(16, 700)) for _ in range(rng.randrange(200))]
    rng.shuffle(kept)
    del kept[: len(kept) // 2]
    gc.collect(0)
    return kept
