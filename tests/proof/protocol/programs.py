"""The programs that the model runs: workflow code as a function of what it has been told.

`code.step("a", after)` is what `ctx.run` is to a workflow: it asks for the operation, issued after an event (0: the
beginning), and answers the sequence number of its event, or 0 while there is none. What a program returns ends it; None
goes on waiting. The value of an end is the whole order of what was told, so that two lives which were told another
order end differently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

CANCEL = "~cancel"


class Event(NamedTuple):
    """An entry of a journal."""

    name: str
    kind: str
    issued: int
    at: int


class Op(NamedTuple):
    """What code has asked for: a step, a transaction, a promise or a timer."""

    name: str
    kind: str
    issued: int


class Situation(NamedTuple):
    """Where code stands after what it was told."""

    asked: tuple[Op, ...]
    open: tuple[Op, ...]
    ended: bool


class Code:
    """A program's view of what it was told."""

    def __init__(self, told: Sequence[Event]) -> None:
        self._seqs = {event.name: seq for seq, event in enumerate(told, 1)}
        self.asked: list[Op] = []

    def step(self, name: str, after: int = 0) -> int:
        return self._ask(Op(name, "step", after))

    def transaction(self, name: str, after: int = 0) -> int:
        return self._ask(Op(name, "transaction", after))

    def promise(self, name: str, after: int = 0) -> int:
        return self._ask(Op(name, "promise", after))

    def timer(self, name: str, after: int = 0) -> int:
        return self._ask(Op(name, "timer", after))

    @property
    def canceled(self) -> int:
        return self._seqs.get(CANCEL, 0)

    def _ask(self, op: Op) -> int:
        self.asked.append(op)
        return self._seqs.get(op.name, 0)


class Program(NamedTuple):
    """A program, and what may happen to it from outside."""

    code: Callable[[Code], bool]
    promises: tuple[str, ...] = ()
    created_before: tuple[str, ...] = ()
    """Promises that somebody made before the workflow names them: they may be settled by then."""
    canceled: bool = False
    timed: bool = False
    """Whether time passes."""
    fast_clock: bool = False
    """Whether workers' clocks may run ahead of the database's."""
    faults: int = 2

    def situation(self, told: tuple[Event, ...]) -> Situation:
        """Where the code stands after what it was told."""
        return _run(self.code, told)


@cache
def _run(program: Callable[[Code], bool], told: tuple[Event, ...]) -> Situation:
    code = Code(told)
    ended = program(code)
    asked = tuple(code.asked)
    names = {event.name for event in told}
    return Situation(asked, () if ended else tuple(op for op in asked if op.name not in names), ended)


def first(*seqs: int) -> int:
    """The earliest event there is, 0 while there is none."""
    return min((seq for seq in seqs if seq), default=0)


def _one_step(code: Code) -> bool:
    return code.step("a") > 0


def _two_steps(code: Code) -> bool:
    a = code.step("a")
    return a > 0 and code.step("b", a) > 0


def _transaction(code: Code) -> bool:
    a = code.transaction("a")
    return a > 0 and code.promise("p", a) > 0


def _wait(code: Code) -> bool:
    return code.promise("p") > 0


def _step_then_promise(code: Code) -> bool:
    a = code.step("a")
    return a > 0 and code.promise("p", a) > 0


def _both_branches(code: Code) -> bool:
    p, q = code.promise("p"), code.promise("q")
    return p > 0 and q > 0


def _first_branch(code: Code) -> bool:
    won = first(code.promise("p"), code.promise("q"))
    return won > 0 and code.step("a", won) > 0


def _step_against_promise(code: Code) -> bool:
    a, p = code.step("a"), code.promise("p")
    won = first(a, p)
    return won > 0 and code.step("b" if won == a else "c", won) > 0


def _step_beside_step(code: Code) -> bool:
    a, b = code.step("a"), code.step("b")
    return a > 0 and b > 0


def _timer_against_promise(code: Code) -> bool:
    return first(code.promise("p"), code.timer("t")) > 0


def _step_by_the_clock(code: Code) -> bool:
    a, p = code.step("a"), code.promise("p")
    return a > 0 and p > 0


def _cleaned_up(code: Code) -> bool:
    p, canceled = code.promise("p"), code.canceled
    if not canceled or 0 < p < canceled:
        return p > 0
    return code.step("undo", canceled) > 0


PROGRAMS: dict[str, Program] = {
    "one step, then the end": Program(_one_step, faults=3),
    "two steps": Program(_two_steps, faults=3),
    "two steps side by side": Program(_step_beside_step),
    "a wait for a promise": Program(_wait, ("p",), faults=3),
    "a wait for a promise made before": Program(_wait, ("p",), ("p",), faults=3),
    "a step, then a promise": Program(_step_then_promise, ("p",), faults=3),
    "a step, then a promise made before": Program(_step_then_promise, ("p",), ("p",), faults=3),
    "a transaction, then a promise": Program(_transaction, ("p",), faults=3),
    "two branches, both": Program(_both_branches, ("p", "q")),
    "two branches, the first": Program(_first_branch, ("p", "q"), ("q",)),
    "a step against a promise": Program(_step_against_promise, ("p",)),
    "a timer against a promise": Program(_timer_against_promise, ("p",), timed=True, fast_clock=True),
    "a worker whose clock is ahead": Program(_step_by_the_clock, ("p",), timed=True, fast_clock=True),
    "a cancel with clean-up": Program(_cleaned_up, ("p",), canceled=True),
}
