"""Random programs: trees of the ways in which people use asyncio, grown from a seed.

A node is its form and what that needs. `interpreter.py` runs them; nothing here knows how.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

Node = tuple[str, Any]

LEAVES: Final = (
    "step",
    "step",
    "step",
    "promise",
    "call",
    "sleep",
    "nothing",
    "left",
    "start",
    "give_up",
    "scoped",
)
FORMS: Final = (
    "sequence",
    "gather",
    "group",
    "timeout",
    "timeout_at",
    "wait_for",
    "race",
    "completed",
    "queue",
    "shield",
    "abandon",
    "lock",
    "semaphore",
    "event",
    "condition",
    "barrier",
    "stream",
    "cancel",
    "undo",
    "stack",
    "patched",
    "variable",
    "later",
)
CALM_LEAVES: Final = ("step", "promise", "nothing", "scoped")
CALM_FORMS: Final = ("sequence", "gather", "group", "abandoned_awaited", "stream_all", "stack", "variable")
"""Forms in which nothing races: what they do depends on no order of events."""

_NAMES: Final = "abc"
_SECONDS: Final = (0, 0.1, 1, 2.5)
_TIMEOUTS: Final = (0, 0.1, 1, 5)


class Gardener:
    """Grows trees of some forms."""

    def __init__(
        self, rng: random.Random, leaves: Sequence[str] = LEAVES, forms: Sequence[str] = FORMS
    ) -> None:
        self.rng = rng
        self.leaves = leaves
        self.forms = forms

    def program(self) -> Node:
        rng = self.rng
        depth = 1 + (rng.random() < 0.6) + (rng.random() < 0.4)
        return "sequence", [self.grown(depth) for _ in range(2 + int(rng.random() * 3))]

    def grown(self, depth: int) -> Node:
        rng = self.rng
        leafy = depth <= 0 or rng.random() < 0.2
        form = _of(rng, self.leaves if leafy else self.forms)
        return form, self._payload(form, depth - 1)

    def some(self, depth: int, least: int = 1) -> list[Node]:
        return [self.grown(depth) for _ in range(least + int(self.rng.random() * 3))]

    def _payload(self, form: str, depth: int) -> Any:
        rng = self.rng
        match form:
            case "step" | "promise" | "give_up" | "start" | "scoped":
                return _of(rng, _NAMES)
            case "call" | "left":
                return _of(rng, _NAMES), _of(rng, ("", "cancel", "wait"))
            case "sleep":
                return _of(rng, _SECONDS)
            case "nothing":
                return None
            case "timeout" | "timeout_at":
                return _of(rng, _TIMEOUTS), self.grown(depth)
            case "wait_for":
                return _of(rng, _TIMEOUTS), self.grown(depth), _of(rng, ("coroutine", "task", "future"))
            case "gather":
                return self.some(depth), rng.random() < 0.4
            case "race":
                mode = _of(rng, ("FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"))
                return self.some(depth, 2), mode, _of(rng, (None, 1)), rng.random() < 0.6
            case "completed":
                return (
                    self.some(depth, 2),
                    _of(rng, (None, None, 1)),
                    _of(rng, ("task", "coroutine", "mixed")),
                )
            case "queue":
                return self.some(depth), _of(rng, ("Queue", "PriorityQueue", "LifoQueue")), _of(rng, (0, 1))
            case "semaphore":
                return self.some(depth, 2), _of(rng, (1, 2)), rng.random() < 0.5
            case "cancel" | "patched":
                return self.grown(depth), self.grown(depth)
            case "later":
                return _of(rng, _SECONDS), self.grown(depth)
            case "shield" | "abandon" | "abandoned_awaited" | "undo" | "variable":
                return self.grown(depth)
            case _:
                return self.some(depth)


def _of(rng: random.Random, items: Sequence[Any]) -> Any:
    # not rng.choice: which bits that takes is Python's business, and programs must be the same on all of them
    return items[int(rng.random() * len(items))]
