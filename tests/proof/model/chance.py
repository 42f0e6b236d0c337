"""Chance, by a seed: picks by weight, and what a program of calls is made of (few names, so that calls meet)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from tests.proof.model.rows import DAY, SECOND, Json, Promise, Task
from tests.proof.model.state import State

T = TypeVar("T")
Given = dict[str, Any]

ROOTS: Final = ("a", "b", "c", "d", "e", "f-6")
LATENT: Final = ("m", "n", "o", "a~p1", "b~p2", "c~2~p1")
FUNCTIONS: Final = ("f", "g", "h")
QUEUES: Final = ("default", "q")
LANES: Final = ("f", "g", "h", "f@1", "g@1", "h@1", "f@2", "g@2")
WORKERS: Final = tuple(f"w{n}" for n in range(1, 13))
ACTORS: Final = (None, None, "ann", "bob")
NOBODY: Final = "nobody"
MISTAKES: Final = 0.05
"""How often an honest caller is late, stale or confused."""


@dataclass
class Step:
    """One call of a program."""

    verb: str
    given: Given
    now: int
    read_committed: bool = True
    nearer: bool = False  # it only brings about what the next one needs


class Chance:
    """What comes next, given what is there."""

    def __init__(self, rng: random.Random, state: State) -> None:
        self.rng = rng
        self.state = state
        self.turn = 0  # which rare case comes next
        self.tries = 0  # how many calls went into bringing it about

    def odds(self, share: float) -> bool:
        return self.rng.random() < share

    def pick(self, items: Sequence[T]) -> T:
        return items[int(self.rng.random() * len(items))]

    def some(self, items: Sequence[T], at_most: int) -> list[T]:
        """Different ones, in a random order."""
        return self.rng.sample(items, min(len(items), self.rng.randint(0, at_most)))

    def weighed(self, weights: dict[T, float]) -> T:
        return self.rng.choices(list(weights), list(weights.values()))[0]

    def maybe(self, share: float, make: Callable[[], T]) -> T | None:
        return make() if self.odds(share) else None

    # -- values

    def value(self) -> Json:
        # no 0 beside False: Python takes them for the same
        return self.pick((None, None, 1, 2, False, "x", [1, None], {"k": None}, {"k": [1, "x"]}))

    def args(self) -> Json:
        return self.pick((None, {}, [], {"n": 1}, {"n": 2}, [1], {"n": None}))

    def headers(self) -> Json:
        return self.maybe(0.1, lambda: self.pick(({"codec": "z"}, {"codec": "y", "n": 1})))

    def error(self) -> Json:
        return self.pick(({"type": "E", "message": "no"}, {"type": "F", "message": "never"}))

    def digest(self) -> str | None:
        return self.maybe(0.1, lambda: self.pick(("00ff", "0a0b")))

    def tags(self) -> Json:
        return self.maybe(0.2, lambda: self.pick(({}, {"t": "1"}, {"t": "1", "u": "2"}, {"u": "2"})))

    def span(self) -> int:
        return self.pick((0, 1, SECOND // 2, SECOND, 2 * SECOND, 5 * SECOND, 30 * SECOND, 3600 * SECOND))

    def timeout(self) -> int | None:
        return self.maybe(
            0.3, lambda: self.weighed({0: 1, SECOND: 3, 5 * SECOND: 4, 60 * SECOND: 6, 2 * DAY: 6})
        )

    def reason(self) -> str | None:
        return self.maybe(0.4, lambda: self.pick(("", "because", "it is late")))

    def actor(self) -> str | None:
        return self.pick(ACTORS)

    # -- what is there

    def promises(self, which: Callable[[Promise], object]) -> list[str]:
        return [p.id for p in self.state.promises.values() if which(p)]

    def tasks(self, which: Callable[[Task], object] = lambda _: True) -> list[Task]:
        return [t for t in self.state.tasks.values() if which(t)]

    def any_id(self) -> str:
        known = list(self.state.promises)
        return self.pick(known) if known and self.odds(0.9) else self.pick((*ROOTS, *LATENT, NOBODY))

    def promise(self, weights: dict[str, float]) -> str:
        """The ID of a promise of one of these sorts, or of any where there is none."""
        sort = self.weighed(weights)
        if sort == "unknown":
            return NOBODY
        found = self.promises(SORTS[sort])
        return self.pick(found) if found else self.any_id()

    def task(self, weights: dict[str, float]) -> str:
        """The ID of a workflow whose task is in one of these states; settled, latent, unknown and any are states too."""
        state = self.weighed(weights)
        if state in {"unknown", *SORTS}:
            return self.promise({state: 1})
        found = self.tasks(lambda task: task.state == state)
        return self.pick(found).id if found else self.any_id()

    def worker(self) -> str:
        live = [w.id for w in self.state.workers.values() if w.died_at is None]
        if live and self.odds(0.7):
            return self.pick(live)
        fresh = [w for w in WORKERS if w not in self.state.workers]
        return self.pick(fresh) if fresh and self.odds(0.9) else self.pick(WORKERS)

    def dead_worker(self) -> str | None:
        dead = [w.id for w in self.state.workers.values() if w.died_at is not None]
        return self.pick(dead) if dead else None

    def lanes(self) -> list[str]:
        """Lanes without one twice: mostly all that a worker of version 1 knows."""
        if self.odds(0.75):
            return ["f", "f@1", "g", "g@1", "h", "h@1"]
        return self.rng.sample(LANES, self.rng.randint(1, len(LANES)))

    def clock(self, now: int) -> int:
        """The next instant: seldom far away, and now and then the very one at which something is due."""
        due = [at for at in self._due() if at >= now]
        if due and self.odds(0.06):
            return min(due)
        return now + self.weighed(
            {
                0: 25,
                1_000: 20,
                SECOND // 2: 20,
                SECOND: 15,
                3 * SECOND: 10,
                20 * SECOND: 3,
                120 * SECOND: 1,
                2 * DAY: 0.4,
            }
        )

    def _due(self) -> list[int]:
        state = self.state
        due = [
            p.timeout_at for p in state.promises.values() if p.state == "pending" and p.timeout_at is not None
        ]
        due += [wait.fire_at for wait in state.waits.values() if wait.fire_at is not None]
        due += [worker.seen_at + worker.lease for worker in state.workers.values() if worker.died_at is None]
        return due + [task.claimed_at + SECOND for task in self.tasks() if task.claimed_at is not None]


SORTS: Final[dict[str, Callable[[Promise], object]]] = {
    "open": lambda p: p.function is None and p.state == "pending",
    "closed": lambda p: p.function is None and p.state != "pending",
    "running": lambda p: p.function is not None and p.state == "pending",
    "settled": lambda p: p.function is not None and p.state != "pending",
    "latent": lambda p: p.function is None,
    "any": lambda _: True,
}
