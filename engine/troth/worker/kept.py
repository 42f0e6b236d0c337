"""Suspended workflows whose code stays in memory for a while, so that going on costs no replay.

It is a convenience with a bound and nothing more: whoever is not here is replayed from the journal, and does the same.
"""

from __future__ import annotations

from collections import OrderedDict

from troth.worker.run import Run


class Kept:
    """Suspended runs by task, the ones kept longest going first when there are too many.

    `size` counts workflows of ordinary length; one with a long journal counts for several. At 0 nothing is kept.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._weights: dict[str, int] = {}
        self._weight = 0

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, task: object) -> bool:
        return task in self._runs

    def put(self, run: Run) -> None:
        """Keep a run whose task was suspended."""
        self.drop(run.task)
        weight = run.weight
        self._runs[run.task] = run
        self._weights[run.task] = weight
        self._weight += weight
        while self._weight > self.size:
            self.drop(next(iter(self._runs)))

    def take(self, task: str) -> Run | None:
        """The run of a task, no longer kept here."""
        run = self._runs.pop(task, None)
        if run is not None:
            self._weight -= self._weights.pop(task)
        return run

    def drop(self, task: str) -> None:
        """Let go of the run of a task, if it is here."""
        run = self.take(task)
        if run is not None:
            run.evict()

    def clear(self) -> None:
        """Let go of all."""
        for task in list(self._runs):
            self.drop(task)
