"""A worker in plain SQL, for workflows to go on and end without one of ours."""

from __future__ import annotations

import json
from typing import Any

import psycopg


class Acting:
    """Claims tasks and says what became of them."""

    def __init__(self, db: psycopg.Connection[Any]) -> None:
        self._db = db

    def claim(self, function: str) -> dict[str, tuple[int, int]]:
        """Take all ready tasks of a function: their epoch and last seq."""
        rows = self._db.execute(
            "select task, epoch, last_seq from claim('acting', '{default}', %s, 100)",
            ([function, f"{function}@1"],),
        )
        return {task: (epoch, seen) for task, epoch, seen in rows}

    def step(self, task: str, epoch: int, seen: int, operation: str, value: object) -> None:
        """Record a step."""
        self._advance(
            {"task": task, "epoch": epoch, "seen": seen},
            outcomes=[
                {
                    "task": task,
                    "operation": operation,
                    "kind": "step",
                    "issued": 0,
                    "state": "resolved",
                    "value": value,
                }
            ],
        )

    def promise(self, task: str, epoch: int, seen: int, operation: str) -> None:
        """Create a latent promise and suspend."""
        self._advance(
            {"task": task, "epoch": epoch, "seen": seen},
            operations=[{"task": task, "operation": operation, "kind": "promise", "issued": 0}],
        )
        self._advance({"task": task, "epoch": epoch, "seen": seen, "then": "suspend"})

    def finish(self, task: str, epoch: int, seen: int, **outcome: object) -> None:
        """End the workflow, by default resolved with null."""
        self._advance(
            {"task": task, "epoch": epoch, "seen": seen, "then": "finish", "state": "resolved", **outcome}
        )

    def run(self, function: str, **outcome: object) -> list[str]:
        """Claim all of a function and end them: which they were."""
        claimed = self.claim(function)
        for task, (epoch, seen) in claimed.items():
            self.finish(task, epoch, seen, **outcome)
        return list(claimed)

    def _advance(self, turn: dict[str, object], **sets: list[dict[str, object]]) -> None:
        rows = self._db.execute(
            "select answer from advance(%s, %s, %s)",
            (
                json.dumps([turn]),
                json.dumps(sets.get("outcomes", [])),
                json.dumps(sets.get("operations", [])),
            ),
        ).fetchall()
        assert rows == [("ok",)]
