"""What the functions answered in one test, held against what they answered before and against what is stored.

Judged are I44 (once settled, always that), I45 (no answer says settled that is not stored, none past its timeout says
merely pending) and I46 (no answer names an epoch that was not issued, none is given twice). Only answers of calls that
committed count: what a caller's own transaction was told may have been rolled back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final

from tests.support.sql import Row, Sql
from troth.testing.violations import Violation

KINDS: Final = (
    ("I9", "asked to settle what was settled"),
    ("I44", "said settled again"),
    ("I45", "said settled"),
    ("I45", "said overdue"),
    ("I46", "epochs given out"),
)

_SETTLING: Final = ("resolve", "reject", "cancel", "cancel_force", "settle_many")
_OUTCOME: Final = ("state", "value", "error", "headers", "settler", "settled_at")


class Answers:
    """Give `heard` to `tests.support.sql.listeners`; `judge` at the end."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter(dict.fromkeys(KINDS, 0))
        self._settled: dict[tuple[str, str, str], tuple[int, Row]] = {}
        self._claims: set[tuple[str, str, int, int]] = set()
        self._broken: list[Violation] = []

    def heard(self, sql: Sql, verb: str, begun: tuple[int, datetime], order: int, answers: Any) -> None:
        """One call's answer; `begun` and `order` say what it came after."""
        for document in _documents(answers):
            if document["state"] != "pending":
                self._said_settled(sql, document, order)
            else:
                self._said_pending(sql, document, begun)
        for each in answers if isinstance(answers, list) else [answers]:
            if isinstance(each, dict) and verb in _SETTLING and each.get("answer") in ("already", "conflict"):
                self.counts["I9", "asked to settle what was settled"] += 1
        if verb == "claim":
            for row in answers:
                self._said_claimed(sql, row)

    @property
    def heard_anything(self) -> bool:
        """Whether there is anything to be judged."""
        return bool(self._settled or self._claims or self._broken)

    def judge(self, sql: Sql) -> list[Violation]:
        """What was wrong in the answers about the namespace that `sql` speaks to."""
        return [*self._broken, *self._not_stored(sql), *self._not_issued(sql)]

    def _said_settled(self, sql: Sql, document: Row, order: int) -> None:
        key = (sql.schema, document["id"], document["created_at"])
        outcome = {name: document.get(name) for name in _OUTCOME}
        self.counts["I45", "said settled"] += 1
        _, before = self._settled.setdefault(key, (order, outcome))
        if before is not outcome:
            self.counts["I44", "said settled again"] += 1
        if before != outcome:
            self._broken.append(Violation("I44", document["id"], f"was {before}, became {outcome}"))

    def _said_pending(self, sql: Sql, document: Row, begun: tuple[int, datetime]) -> None:
        known = self._settled.get((sql.schema, document["id"], document["created_at"]))
        if known is not None and known[0] < begun[0]:
            self._broken.append(Violation("I44", document["id"], f"was {known[1]}, became pending"))
        if document.get("overdue"):
            self.counts["I45", "said overdue"] += 1
        elif "timeout_at" in document:
            ahead: timedelta = sql.one(f"select {sql.schema}._clock() - clock_timestamp()")
            if datetime.fromisoformat(document["timeout_at"]) <= begun[1] + ahead:
                self._broken.append(
                    Violation("I45", document["id"], f"past {document['timeout_at']}, and merely pending")
                )

    def _said_claimed(self, sql: Sql, row: Row) -> None:
        self.counts["I46", "epochs given out"] += 1
        claim = (sql.schema, row["task"], row["epoch"], row["started_at"])
        if claim in self._claims:
            self._broken.append(Violation("I46", row["task"], f"epoch {row['epoch']} was given out twice"))
        self._claims.add(claim)

    def _not_stored(self, sql: Sql) -> Iterator[Violation]:
        rows = sql.query(
            f"""select id, created_at, state, value, error from {sql.schema}.promise where state <> 'pending'
                union all
                select (old).id, (old).created_at, (old).state, (old).value, (old).error
                  from {sql.schema}_changes.promise_change where op = 'delete'"""
        )
        stored = {(row["id"], row["created_at"]): (row["state"], row["value"], row["error"]) for row in rows}
        for (schema, id, created_at), (_, outcome) in self._settled.items():
            said = (outcome["state"], outcome["value"], outcome["error"])
            there = stored.get((id, datetime.fromisoformat(created_at)))
            if schema == sql.schema and said != there:
                yield Violation("I45", id, f"said {said}, stored is {there}")

    def _not_issued(self, sql: Sql) -> Iterator[Violation]:
        rows = sql.query(
            f"""select (new).id, (new).epoch from {sql.schema}_changes.task_change
                 where op = 'update' and (old).state = 'ready' and (new).state = 'claimed'"""
        )
        issued = {(row["id"], row["epoch"]) for row in rows}
        for schema, task, epoch, _ in self._claims:
            if schema == sql.schema and (task, epoch) not in issued:
                yield Violation("I46", task, f"epoch {epoch} was given out and never issued")


def _documents(answers: Any) -> Iterator[Row]:
    """The promises' documents in an answer."""
    for each in answers if isinstance(answers, list) else [answers]:
        if not isinstance(each, dict):
            continue
        document = each["promise"] if isinstance(each.get("promise"), dict) else each
        if {"id", "state", "latent", "created_at"} <= set(document):
            yield document
