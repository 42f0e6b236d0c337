"""What one workflow's code has asked for and what has become of that here: to be recorded, to be started, to be fired.

The machine says once what was newly issued; here it is sorted by what is to be done about it, so that nothing has to go
through all open operations again at each event: ten thousand children cost ten thousand looks, not a hundred million.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from troth.calls import Timer
from troth.context.requests import CREATIONS, START
from troth.core import STEP, TIMER, Operation
from troth.model import Claimed
from troth.worker.wording import asked_bytes, fires_at, later, timer

CREATIONS_MAX: Final = 1000
"""Operations that one turn records; a fan-out of thousands goes in several."""
_STALE_TIMERS: Final = 64
_NOTHING: Final[deque[Operation]] = deque(maxlen=0)
"""Holds nothing, ever, and is everybody's: an empty deque of one's own weighs 760 bytes."""
_NONE: Final[frozenset[str]] = frozenset()


class Agenda:
    """The open operations of one run, by what is to be done about them."""

    __slots__ = (
        "_dues",
        "_number",
        "_open",
        "_recorded",
        "_timers",
        "_timers_max",
        "_unrecorded",
        "asked",
        "later",
        "running",
        "waiting",
    )

    def __init__(self, claimed: Claimed) -> None:
        self.asked = claimed.asked
        """What was asked for after events up to this one is recorded."""
        self.waiting: dict[str, Operation] = {}
        """Steps that may start as soon as all before them is recorded."""
        self.running: dict[str, Operation] = {}
        """Steps that were started here and are not told yet."""
        self.later: dict[str, tuple[int, Operation]] = {}
        """Steps that are not to start before an instant: they have failed before."""
        self._open: Mapping[str, Operation] = {}
        self._unrecorded: deque[Operation] = _NOTHING
        self._recorded = frozenset([wait.operation for wait in claimed.waits]) if claimed.waits else _NONE
        self._timers: list[tuple[int, int, Operation]] = []
        self._dues: list[tuple[int, str]] = []
        self._timers_max = _STALE_TIMERS
        self._number = 0

    def claimed_again(self, claimed: Claimed) -> None:
        """The task was let go and claimed again, with its code still here: others may have driven it meanwhile."""
        self.asked = max(self.asked, claimed.asked)
        self._recorded |= {wait.operation for wait in claimed.waits}
        self.all_at_once()

    def begin(self, open_operations: Mapping[str, Operation]) -> list[Operation]:
        """The code was run again from the journal, or for the first time: this is what it has open.

        Answers the steps under way of which it has heard meanwhile.
        """
        self._open = open_operations
        self._unrecorded = _NOTHING
        self._timers.clear()
        running, later = self.running, self.later
        if running or later or self.waiting:
            self.waiting, self.running, self.later = {}, {}, {}
        self.add(open_operations.values())
        if not running and not later:
            return []
        for path in running:
            operation = self.waiting.pop(path, None)
            if operation is not None:
                self.running[path] = operation
        for path, (at, _) in later.items():
            self.postpone(path, at)
        return [operation for path, operation in running.items() if path not in self.running]

    def end_steps(self) -> list[Operation]:
        """The code has ended, and no step is to start any more. Answers those under way: nobody waits for them."""
        left = list(self.running.values())
        self.waiting, self.running, self.later = {}, {}, {}
        self._dues.clear()
        return left

    def keep_what_outlives(self) -> None:
        """The code has ended: only children that outlive it are still to be recorded."""
        if self._unrecorded:
            self._unrecorded = deque(each for each in self._unrecorded if each.kind == START)

    def add(self, operations: Iterable[Operation]) -> None:
        """The code has issued these."""
        for operation in operations:
            kind = operation.kind
            if kind == STEP:
                self.waiting[operation.path] = operation
            elif kind == TIMER:
                self._arm(operation)
            elif kind in CREATIONS and not self._is_recorded(operation):
                if self._unrecorded is _NOTHING:
                    self._unrecorded = deque()
                self._unrecorded.append(operation)

    def _arm(self, timer: Operation) -> None:
        # timers that the code took back lie in the heap until they come up, or until there are too many of them
        if len(self._timers) >= self._timers_max:
            self._timers = [each for each in self._timers if self._open.get(each[2].path) is each[2]]
            heapq.heapify(self._timers)
            self._timers_max = 2 * len(self._timers) + _STALE_TIMERS
        self._number += 1
        heapq.heappush(self._timers, (fires_at(timer), self._number, timer))

    def told(self, path: str) -> None:
        """An operation has its event."""
        if self.waiting.pop(path, None) is None and self.running.pop(path, None) is None:
            self.later.pop(path, None)

    # --- creations ---

    def unrecorded(self) -> bool:
        """Whether something is to be recorded before anything may start."""
        queue = self._unrecorded
        if not queue:
            return False
        while queue and self._open.get(queue[0].path) is not queue[0]:
            queue.popleft()
        return bool(queue)

    def creations(self, most_bytes: int) -> tuple[Sequence[Operation], bool]:
        """The next ones to be recorded, in the order in which they were asked for, and whether there are more."""
        if not self._unrecorded:
            return (), False
        found: list[Operation] = []
        size = 0
        for operation in self._unrecorded:
            if self._open.get(operation.path) is not operation:
                continue
            if len(found) >= CREATIONS_MAX or size >= most_bytes:
                return found, True
            size += asked_bytes(operation)
            found.append(operation)
        return found, False

    def recorded(self, operations: Collection[Operation], told: int) -> None:
        """They are recorded, and were the last ones if nothing is left; `told` was the last event then."""
        queue = self._unrecorded
        if not operations and not queue:
            self.asked = max(self.asked, told)
            self._recorded = _NONE
            return
        done = {operation.path for operation in operations}
        while queue and (queue[0].path in done or self._open.get(queue[0].path) is not queue[0]):
            queue.popleft()
        if not queue:
            self._unrecorded = _NOTHING
        if any(operation.issued <= told for operation in queue):
            self._recorded |= done
        else:
            self.asked = max(self.asked, told)
            self._recorded = _NONE

    def _is_recorded(self, operation: Operation) -> bool:
        return operation.issued <= self.asked or operation.path in self._recorded

    # --- steps ---

    def startable(self, now: int) -> Collection[Operation]:
        """The steps that may start now; they count as running from now on."""
        if self._dues:
            self._wake(now)
        operations = self.waiting
        if operations:
            self.running.update(operations)
            self.waiting = {}
        return operations.values()

    def again_at(self, operation: Operation, at: int) -> None:
        """A step that was started is to start again at an instant, not before."""
        started = self.running.pop(operation.path, None)
        if started is not None:
            self.waiting[operation.path] = started
            self.postpone(operation.path, at)

    def postpone(self, path: str, at: int) -> None:
        """A step that waits to be started is to wait for an instant too."""
        operation = self.waiting.pop(path, None)
        if operation is not None:
            self.later[path] = at, operation
            heapq.heappush(self._dues, (at, path))

    def all_at_once(self) -> None:
        """No step waits for an instant any more."""
        for path, (_, operation) in self.later.items():
            self.waiting[path] = operation
        self.later.clear()
        self._dues.clear()

    def _wake(self, now: int) -> None:
        while (due := self._next_start()) is not None and due <= now:
            _, path = heapq.heappop(self._dues)
            self.waiting[path] = self.later.pop(path)[1]

    def _next_start(self) -> int | None:
        dues = self._dues
        while dues and self.later.get(dues[0][1], (None,))[0] != dues[0][0]:
            heapq.heappop(dues)
        return dues[0][0] if dues else None

    @property
    def working(self) -> bool:
        """Whether a step is under way or could start now."""
        return bool(self.running) or bool(self.waiting)

    # --- time ---

    @property
    def timed(self) -> bool:
        """Whether there may be anything that waits for an instant."""
        return bool(self._timers) or bool(self._dues)

    def next_timer(self) -> Operation | None:
        """The open timer that fires first."""
        timers = self._timers
        while timers and self._open.get(timers[0][2].path) is not timers[0][2]:
            heapq.heappop(timers)
        return timers[0][2] if timers else None

    def waits(self, task: str, cohort: Callable[[int], int], now: int) -> list[Timer]:
        """What stays open while nobody holds the task: timers, and steps that are to be tried again."""
        if not self._timers and not self.later:
            return []
        still = [each for _, _, each in self._timers if self._open.get(each.path) is each]
        return [timer(task, each, cohort(each.issued)) for each in still] + [
            later(task, each, at - now, cohort(each.issued)) for at, each in self.later.values()
        ]

    def next_due(self, *, starts: bool = True) -> int | None:
        """The instant at which the next timer fires or (with `starts`) the next step starts again."""
        timer, start = self.next_timer(), self._next_start() if starts else None
        if timer is None:
            return start
        return fires_at(timer) if start is None else min(start, fires_at(timer))
