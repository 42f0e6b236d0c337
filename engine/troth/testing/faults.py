"""What can go wrong between a worker and Postgres, made to go wrong at one chosen call.

`Faults` counts the calls of all workers of a test and lets its one fault strike when its point is reached; `SeamPool` is the
pool that asks it at each call. Above it the worker is as always: what it repeats by itself it repeats here too.

It also holds the gate: while that is closed no worker claims or ticks, so that nothing moves between two lines of a test.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, TypeVar, get_args

from troth.calls import Call
from troth.errors import Unreachable
from troth.gateway.pool import Pool
from troth.gateway.transactions import InDoubt, Isolation, Transactions
from troth.model import Committed, Sealed

T = TypeVar("T")

FaultKind: TypeAlias = Literal["unsent", "lost", "cut", "killed before", "killed after"]

FAULT_KINDS: Final[tuple[FaultKind, ...]] = get_args(FaultKind)
FAULT_FUNCTIONS: Final = ("claim", "advance", "commit_step", "heartbeat", "tick")

_GATED: Final = frozenset({"claim", "tick"})

_MEANING: Final[dict[FaultKind, str]] = {
    "unsent": "it could not be sent",
    "lost": "it was carried out, and its answer was lost",
    "cut": "all connections were cut before it",
    "killed before": "the worker died before it was sent",
    "killed after": "the worker died after it was carried out",
}


@dataclass(frozen=True, slots=True)
class Point:
    """One place for a crash: the `number`-th call of a function, and what happens there.

    Claims that bring nothing are not counted: how many there are depends on the time of day.
    """

    function: str
    number: int
    kind: FaultKind

    def __str__(self) -> str:
        return f"{self.function} #{self.number}: {_MEANING[self.kind]}"


class Faults:
    """The calls of a test's workers, counted, and the one fault that may strike them."""

    def __init__(self, point: Point | None = None, cut: Callable[[], None] | None = None) -> None:
        self.point = point
        self.struck = False
        self.calls: Counter[str] = Counter()
        """How often each function was called; of claims, those that brought something."""
        self._cut = cut
        self._owed: str | None = None
        self._lock = threading.Lock()

    def strikes_before(self, function: str) -> bool:
        """Count a call that is about to be sent; whether the fault strikes it, now or when it was carried out."""
        with self._lock:
            if function != "claim":
                self.calls[function] += 1
            point = self.point
            if point is None or self.struck or point.function != function:
                return False
            # a claim is counted when it has brought something: it is the one that would be the next to
            reached = self.calls[function] + (function == "claim")
            if reached != point.number:
                return False
            if function == "claim" and point.kind in ("lost", "killed after"):
                return True  # it strikes only if that claim brings something
            self.struck = True
            return True

    def strikes_after(self, function: str, answer: object) -> bool:
        """A call was carried out; whether a fault that waits for that strikes it now."""
        with self._lock:
            if function == "claim":
                if not answer:
                    return False
                self.calls[function] += 1
                self.struck = True
            return True

    def noted(self, function: str, answer: object) -> None:
        """A call that no fault strikes was carried out."""
        if function == "claim" and answer:
            with self._lock:
                self.calls[function] += 1

    @property
    def lost_a_claim(self) -> bool:
        """Somebody holds tasks and does not know it."""
        point = self.point
        return self.struck and point is not None and (point.function, point.kind) == ("claim", "lost")

    def owe_after(self, function: str) -> None:
        """The fault is to strike when what this call is a part of was carried out."""
        self._owed = function

    def owed_after(self, function: str) -> bool:
        """Whether it is to strike now; once."""
        owed, self._owed = self._owed, None
        return owed == function

    def cut(self) -> None:
        """Cut all connections to the namespace's database."""
        if self._cut is not None:
            self._cut()

    def points(
        self, functions: Collection[str] = FAULT_FUNCTIONS, kinds: Collection[FaultKind] = FAULT_KINDS
    ) -> list[Point]:
        """Every place for a crash among the calls that were counted."""
        return [
            Point(function, number, kind)
            for function in FAULT_FUNCTIONS
            if function in functions
            for number in range(1, self.calls[function] + 1)
            for kind in FAULT_KINDS
            if kind in kinds
        ]


class Gate:
    """Open while workers may take up work. To be used in the loop that it was made in."""

    def __init__(self) -> None:
        self._open = asyncio.Event()

    @property
    def is_open(self) -> bool:
        return self._open.is_set()

    def open(self) -> None:
        self._open.set()

    def close(self) -> None:
        self._open.clear()

    async def passed(self) -> None:
        """Wait until it is open."""
        await self._open.wait()


class SeamPool(Pool):
    """A worker's pool, whose calls a test counts, holds up, and lets fail."""

    def __init__(
        self, *args: Any, faults: Faults, gate: Gate, dies: Callable[[], None], **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self._faults = faults
        self._gate = gate
        self._dies = dies
        self.dead = False
        """Nothing that it is asked to say arrives any more."""
        self.leaving = False
        """It takes up no more work."""

    async def _run(self, call: Call[T]) -> T:
        function = call.function
        if function in _GATED:
            await self._gate.passed()
        if self.dead or (self.leaving and function == "claim"):
            raise Unreachable("The test has ended this worker.")
        faults = self._faults
        if not faults.strikes_before(function):
            answer = await super()._run(call)
            faults.noted(function, answer)
            if self.dead:
                raise Unreachable("The test has ended this worker.")
            return answer
        assert faults.point is not None
        match faults.point.kind:
            case "unsent":
                raise Unreachable("The test let this call fail before it was sent.")
            case "cut":
                await asyncio.to_thread(faults.cut)
                return await super()._run(call)
            case "killed before":
                await self._die()
            case "lost" | "killed after" as kind:
                answer = await super()._run(call)
                if not faults.strikes_after(function, answer):
                    return answer
                if kind == "lost":
                    raise Unreachable("The test lost the answer to this call.")
                await self._die()
        raise AssertionError("every kind of fault ends the call")

    async def _die(self) -> None:
        """The end of this worker: whoever made the call hears nothing any more."""
        self._dies()
        await asyncio.get_running_loop().create_future()


class SeamTransactions(Transactions):
    """A worker's transactions, whose last call a test counts and lets fail. What comes after it is the commit."""

    def __init__(self, *args: Any, faults: Faults, dies: Callable[[], None], **options: Any) -> None:
        super().__init__(*args, **options)
        self._faults = faults
        self._dies = dies

    async def _transact(
        self,
        connection: Any,
        work: Callable[[Any], Awaitable[Sealed]],
        commit: Callable[[Sealed], Call[Committed]],
        isolation: Isolation,
    ) -> tuple[Committed, Sealed]:
        faults = self._faults
        done = await super()._transact(connection, work, commit, isolation)
        if faults.point is not None and faults.owed_after("commit_step"):
            if faults.point.kind == "lost":
                raise InDoubt("The test lost the answer to this commit.")
            await self._die()
        return done

    async def _record(self, connection: Any, call: Call[Committed]) -> Committed:
        faults = self._faults
        if faults.strikes_before(call.function) and faults.point is not None:
            match faults.point.kind:
                case "unsent":
                    connection.terminate()
                case "cut":
                    await asyncio.to_thread(faults.cut)
                case "killed before":
                    await self._die()
                case "lost" | "killed after":
                    faults.owe_after(call.function)
        return await super()._record(connection, call)

    async def _die(self) -> None:
        self._dies()
        await asyncio.get_running_loop().create_future()
