"""What the database's clock shows, as far as this process can tell between two answers.

Each answer that carries the database's instant is a sample; between samples the process's monotonic clock counts on. The
estimate is never ahead of the sample's truth (the answer travelled meanwhile), and being wrong is harmless: the database
accepts an instant told ahead only if it lies between the last event and its own clock.
"""

from __future__ import annotations

import time


class Clock:
    """An estimate of the database's clock, in microseconds since the Unix epoch."""

    __slots__ = ("_base", "_mark")

    def __init__(self) -> None:
        self._base = 0
        self._mark = 0

    def sample(self, now: int) -> None:
        """The database said that it was `now`, at most a moment ago."""
        self._base = now
        self._mark = time.monotonic_ns()

    def now(self) -> int:
        """The estimate."""
        return self._base + (time.monotonic_ns() - self._mark) // 1000
