"""Determinism, broken on purpose, in ways that real engines have got wrong: a simulator that does not notice is no use."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from typing import Any, Final
from weakref import WeakKeyDictionary

import pytest

from troth.core import Operation
from troth.core import loop as loop_module
from troth.core.branches import MachineTask
from troth.core.ledger import Ledger
from troth.core.loop import MachineLoop
from troth.core.machine import Machine
from troth.core.names import Scope

Breakage = Callable[[pytest.MonkeyPatch], None]


def names_counted_by_the_process(patch: pytest.MonkeyPatch) -> None:
    """Operations are numbered by one counter for all workflows."""
    counter = itertools.count()
    patch.setattr(Scope, "path", lambda self, name: f"{self.prefix}{name}:{next(counter)}")


def names_counted_for_all_branches(patch: pytest.MonkeyPatch) -> None:
    """Operations are numbered as they come, whatever branch asks for them: so branches swap their values."""
    counters: WeakKeyDictionary[MachineLoop, Iterator[int]] = WeakKeyDictionary()

    def path(loop: MachineLoop, name: str, _scope: Scope | None = None) -> str:
        return f"{name}:{next(counters.setdefault(loop, itertools.count()))}"

    patch.setattr(MachineLoop, "path", path)


def tasks_hashed_by_address(patch: pytest.MonkeyPatch) -> None:
    """Sets of tasks are walked in another order in every process."""
    patch.setattr(MachineTask, "__hash__", object.__hash__)


def callbacks_out_of_order(patch: pytest.MonkeyPatch) -> None:
    """What is ready overtakes what was ready before it, now and then."""
    call_soon = MachineLoop.call_soon

    def unfair(loop: MachineLoop, *args: Any, **kwargs: Any) -> Any:
        handle = call_soon(loop, *args, **kwargs)
        if random.random() < 0.1:
            loop._ready.rotate()
        return handle

    patch.setattr(MachineLoop, "call_soon", unfair)


def time_of_the_process(patch: pytest.MonkeyPatch) -> None:
    """The loop shows the clock of the machine that it runs on."""
    patch.setattr(MachineLoop, "time", lambda _loop: time.monotonic())


def chance_of_the_process(patch: pytest.MonkeyPatch) -> None:
    """Timers get a jitter that nobody records."""
    timer = MachineLoop._timer

    def jittered(loop: MachineLoop, micros: int, *args: Any) -> Any:
        return timer(loop, micros + random.randrange(1_000), *args)

    patch.setattr(MachineLoop, "_timer", jittered)


def two_entries_told_at_once(patch: pytest.MonkeyPatch) -> None:
    """A replay in a hurry does not let the code run until idle between two entries that are both there."""
    run = MachineLoop.run

    def hasty(loop: MachineLoop, host: Any, at_idle: Any, first: Any, *args: Any) -> None:
        ledger = loop._ledger
        if ledger.told % 2 == 0 or ledger.told >= ledger._foreseen:
            run(loop, host, at_idle, first, *args)
            return
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(loop_module, "drain", lambda *_: None)
            run(loop, host, lambda: False, first, *args)

    patch.setattr(MachineLoop, "run", hasty)


def timers_taken_back_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A timer that fired while the code was taking it back is news to the ledger."""
    take_back = Ledger.take_back

    def forgetful(ledger: Ledger, operation: Operation) -> None:
        take_back(ledger, operation)
        ledger._taken_back.clear()

    patch.setattr(Ledger, "take_back", forgetful)


def patches_always_applied(patch: pytest.MonkeyPatch) -> None:
    """`patched` says yes also to code that was here before the change."""
    patch.setattr(Ledger, "decide", lambda _ledger, _path: True)


def patches_not_foreseen(patch: pytest.MonkeyPatch) -> None:
    """`patched` does not look at what the journal has still to tell."""
    patch.setattr(Machine, "foresee", lambda _machine, last_seq, _patches: None)


def given_up_in_the_order_of_a_set(patch: pytest.MonkeyPatch) -> None:
    """What the code gave up is reported in the order of addresses."""
    take = Ledger.take_given_up
    patch.setattr(Ledger, "take_given_up", lambda ledger: sorted(take(ledger), key=id))


BREAKAGES: Final[tuple[Breakage, ...]] = (
    names_counted_by_the_process,
    tasks_hashed_by_address,
    callbacks_out_of_order,
    time_of_the_process,
    chance_of_the_process,
    two_entries_told_at_once,
    timers_taken_back_are_forgotten,
    patches_always_applied,
    patches_not_foreseen,
    given_up_in_the_order_of_a_set,
)
"""Found by living through a workflow again."""

CALM_BREAKAGES: Final[tuple[Breakage, ...]] = (names_counted_for_all_branches,)
"""Found by living through it with events in another order."""
