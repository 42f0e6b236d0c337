"""Both sides of one step: the same call to the oracle and to SQL, and every difference in what they say and what they leave."""

from __future__ import annotations

import json
from typing import Any

from tests.proof.model.oracle import Oracle
from tests.proof.model.rows import (
    Attempt,
    Audit,
    Checkpoint,
    Closing,
    Function,
    Json,
    Limits,
    Promise,
    Task,
    Wait,
    Worker,
)
from tests.proof.model.state import Undetermined
from tests.proof.model.subject import Subject
from tests.proof.model.workers import UNKNOWN_SEED

Given = dict[str, Any]
_ROWS: dict[str, Any] = {
    "promise": Promise,
    "task": Task,
    "checkpoint": Checkpoint,
    "wait": Wait,
    "attempt": Attempt,
    "worker": Worker,
    "function": Function,
    "closing": Closing,
    "audit": Audit,
}
_KEYS: dict[str, Any] = {
    "promise": lambda row: row.id,
    "task": lambda row: row.id,
    "checkpoint": lambda row: (row.task, row.operation),
    "wait": lambda row: (row.task, row.operation),
    "attempt": lambda row: (row.task, row.operation, row.number),
    "worker": lambda row: row.id,
    "function": lambda row: (row.name, row.version),
    "closing": lambda row: row.id,
}
_UNORDERED = {"advance": "task", "heartbeat": "task"}


class Difference(AssertionError):
    """Oracle and SQL part here: one of them is wrong."""


class Both:
    """One namespace, twice."""

    def __init__(self, subject: Subject, limits: Limits) -> None:
        self.subject = subject
        self.oracle = Oracle(limits, subject.actor)
        self._checksums: dict[str, dict[Any, int]] = {table: {} for table in _KEYS}

    def step(self, verb: str, given: Given, now: int, *, read_committed: bool = True) -> Json:
        """Make the call on both sides; its answer. Raises `Difference`, or `Undetermined` where nothing was done."""
        expected = self.oracle.call(verb, given, now, read_committed=read_committed)
        answered = self.subject.call(verb, given, now, read_committed=read_committed)
        found = answered["answer"]
        if verb == "claim":
            self._learn_seeds(expected, found)
        expected, found = _comparable(verb, expected), _comparable(verb, found)
        if expected != found:
            raise Difference(
                f"the answers of {verb} differ\n  oracle: {expected}\n  SQL:    {answered['answer']}"
            )
        if "rows" in answered:
            self._compare_written(answered["rows"])
        return expected

    def compare_all(self) -> None:
        """Whole tables, whatever a step was thought to have written."""
        for table in self.oracle.state.tables().values():
            table.before = dict.fromkeys(table, None)
        self._compare_written(self.subject.rows())

    def _learn_seeds(self, expected: Json, found: Json) -> None:
        """A workflow's seed is drawn by chance, once: from its first claim on both sides have the one that SQL drew."""
        if not isinstance(expected, list) or not isinstance(found, list):
            return
        drawn = {row["task"]: row["seed"] for row in found}
        for row in expected:
            if row["seed"] == UNKNOWN_SEED and drawn.get(row["task"]) is not None:
                row["seed"] = drawn[row["task"]]
                task = self.oracle.state.tasks[row["task"]]
                self.oracle.state.put_task(task, seed=row["seed"])

    def _compare_written(self, written: dict[str, Any]) -> None:
        tables = self.oracle.state.tables()
        for name, (count, checksum, rows) in written.items():
            table = tables[name]
            if name == "audit":
                _compare_audit(table, count, rows)
                continue
            checksums = self._checksums[name]
            found = {}
            for key_checksum, *columns in rows:
                if name == "promise" and not columns.pop():
                    raise Difference(f"{columns[0]}: expires_at or open_at does not follow from its state")
                row = _ROWS[name](*columns)
                found[_KEYS[name](row)] = row
                checksums[_KEYS[name](row)] = key_checksum
            for key in found.keys() | table.before.keys():
                # a row that SQL did not write is as it was
                sql = found[key] if key in found else table.before.get(key)
                if key not in table and key not in found:
                    continue
                if table.get(key) != sql:
                    raise Difference(f"{name} {key} differs\n  oracle: {table.get(key)}\n  SQL:    {sql}")
            expected = 0
            for key in table:
                expected ^= checksums[key]
            if (count, checksum) != (len(table), expected):
                raise Difference(f"{name}: SQL has {count} rows, the oracle {sorted(table)}")


def _compare_audit(table: dict[int, Audit], count: int, rows: list[Any]) -> None:
    found = sorted((Audit(*columns) for _, *columns in rows), key=_in_order)
    expected = sorted((table[n] for n in list(table)[len(table) - len(rows) :]), key=_in_order)
    if count != len(table) or found != expected:
        raise Difference(f"audit differs\n  oracle: {expected}\n  SQL:    {found}")


def _in_order(row: Audit) -> str:
    return json.dumps(row, sort_keys=True)


def _comparable(verb: str, answer: Json) -> Json:
    """What of an answer is compared: of errors the SQLSTATE, of what starts say in short no more than that, of sets no order."""
    if isinstance(answer, dict) and "sqlstate" in answer and "id" not in answer:
        return {"sqlstate": answer["sqlstate"]}
    if verb in {"start_many", "start_each", "start_together"}:
        short = {"refused"} if verb == "start_together" else {"created", "refused"}
        return [
            {key: item[key] for key in ("id", "answer", "sqlstate") if key in item}
            if item["answer"] in short
            else item
            for item in answer
        ]
    if verb in _UNORDERED and isinstance(answer, list):
        return sorted(answer, key=lambda row: (row["task"] or "", repr(row)))
    return answer


__all__ = ["Both", "Difference", "Undetermined"]
