"""The oracle's tables: a call writes into them, and what it wrote is kept or taken back as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Generic, TypeVar

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

Key = TypeVar("Key")
Row = TypeVar("Row")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Refused(Exception):
    """The call raises this SQLSTATE, and nothing of it is written."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate


class Undetermined(Exception):
    """The contract leaves open what this call answers (which of many rows a limit leaves out): not one to compare by."""


class Table(dict[Key, Row], Generic[Key, Row]):
    """Rows by their keys, and what stood there before this call (`before`: None where there was nothing)."""

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[Key, Row | None] = {}

    def __setitem__(self, key: Key, row: Row) -> None:
        self.before.setdefault(key, self.get(key))
        super().__setitem__(key, row)

    def __delitem__(self, key: Key) -> None:
        self.before.setdefault(key, self[key])
        super().__delitem__(key)

    def take_back(self) -> None:
        for key, row in self.before.items():
            if row is None:
                self.pop(key, None)
            else:
                super().__setitem__(key, row)
        self.before.clear()


class State:
    """One namespace at one instant. `met` counts which rules were reached."""

    def __init__(self, limits: Limits, actor: str) -> None:
        self.limits = limits
        self.actor = actor  # whose session it is
        self.now = 0
        self.read_committed = True
        self.met: Counter[str] = Counter()
        self.promises: Table[str, Promise] = Table()
        self.tasks: Table[str, Task] = Table()
        self.checkpoints: Table[tuple[str, str], Checkpoint] = Table()
        self.waits: Table[tuple[str, str], Wait] = Table()
        self.attempts: Table[tuple[str, str, int], Attempt] = Table()
        self.workers: Table[str, Worker] = Table()
        self.functions: Table[tuple[str, int], Function] = Table()
        self.closings: Table[str, Closing] = Table()
        self.audits: Table[int, Audit] = Table()

    def tables(self) -> dict[str, Table[Any, Any]]:
        return {
            "promise": self.promises,
            "task": self.tasks,
            "checkpoint": self.checkpoints,
            "wait": self.waits,
            "attempt": self.attempts,
            "worker": self.workers,
            "function": self.functions,
            "closing": self.closings,
            "audit": self.audits,
        }

    # -- what is asked of the tables in many places

    def task(self, id: str) -> Task | None:
        return self.tasks.get(id)

    def journal(self, task: str) -> list[Checkpoint]:
        """A task's events in order."""
        return sorted((c for c in self.checkpoints.values() if c.task == task), key=lambda c: c.seq)

    def waits_of(self, task: str) -> list[Wait]:
        return sorted((w for w in self.waits.values() if w.task == task), key=lambda w: w.operation)

    def waits_for(self, promises: Iterable[str]) -> list[Wait]:
        wanted = set(promises)
        return [w for w in self.waits.values() if w.promise in wanted]

    def children(self, parent: str) -> list[Promise]:
        return sorted((p for p in self.promises.values() if p.parent == parent), key=lambda p: p.id)

    def has_open_child(self, parent: str) -> bool:
        return any(p.parent == parent and p.state == "pending" for p in self.promises.values())

    def is_recorded(self, task: str, operation: str) -> bool:
        return (task, operation) in self.checkpoints or (task, operation) in self.waits

    def is_overdue(self, promise: Promise) -> bool:
        """Pending at its timeout or later: nobody settles it any more but by that timeout."""
        return (
            promise.state == "pending" and promise.timeout_at is not None and promise.timeout_at <= self.now
        )

    def put_task(self, task: Task, **changes: Any) -> None:
        self.tasks[task.id] = task._replace(**changes)

    def append(self, event: Checkpoint) -> None:
        """One more event. Two of one operation, or one before what it was issued after, no table takes: a worker that asks for
        that in one call has lost its mind, and gets the table's own error."""
        if event.issued is not None and not 0 <= event.issued < event.seq:
            raise Refused("23514")
        if (event.task, event.operation) in self.checkpoints:
            raise Refused("23505")
        self.checkpoints[event.task, event.operation] = event

    def audit(  # noqa: PLR0917  # the columns, in their order
        self, actor: str, verb: str, promise: str, before: str | None, after: str, detail: Json
    ) -> None:
        self.audits[len(self.audits)] = Audit(self.now, actor, verb, promise, before, after, detail)


def family(id: str) -> str:
    """The workflow that an ID belongs to."""
    return id.split("~", 1)[0]


def member_of(id: str, root: str) -> bool:
    return id == root or id.startswith(root + "~")


def plain_lane(lane: str) -> str:
    """A lane without the mark that its last holder died."""
    return lane.rstrip("!")


def version_of(lane: str) -> int | None:
    """The version that a lane is pinned to."""
    _, at, version = plain_lane(lane).partition("@")
    return int(version) if at and version else None


@lru_cache(maxsize=10_000)
def iso(micros: int) -> str:
    """An instant as a document shows it."""
    at = _EPOCH + timedelta(microseconds=micros)
    fraction = f".{at.microsecond:06d}".rstrip("0").rstrip(".")
    return f"{at:%Y-%m-%dT%H:%M:%S}{fraction}+00:00"


def without_nulls(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [without_nulls(each) for each in value]
    return value


def document(promise: Promise, task: Task | None, now: int) -> dict[str, Json]:
    """What an answer shows of a promise. Nulls are left out, but never inside a payload."""

    def at(micros: int | None) -> str | None:
        return None if micros is None else iso(micros)

    shown = {
        "id": promise.id,
        "state": promise.state,
        "latent": promise.function is None,
        "function": promise.function,
        "version": promise.version if task is None or version_of(task.lane) is None else version_of(task.lane),
        "queue": promise.queue,
        "title": promise.title,
        "parent": promise.parent,
        "created_at": at(promise.created_at),
        "timeout_at": at(promise.timeout_at),
        "settled_at": at(promise.settled_at),
        "settler": promise.settler,
        "overdue": (
            promise.state == "pending" and promise.timeout_at is not None and promise.timeout_at <= now
        ) or None,
        "task": task and {
            "state": task.state,
            "queue": task.queue,
            "lane": task.lane,
            "priority": task.priority,
            "ready_at": at(task.ready_at),
            "attempts": task.attempts,
            "epoch": task.epoch,
            "worker": task.worker,
            "last_seq": task.last_seq,
            "claimed_at": at(task.claimed_at),
            "started_at": at(task.started_at),
            "reason": without_nulls(task.reason),
        },
    }  # fmt: skip
    if shown["task"]:
        shown["task"] = without_nulls(shown["task"])
    payloads = {
        key: getattr(promise, key)
        for key in ("args", "args_headers", "tags", "value", "error", "headers")
        if getattr(promise, key) is not None
    }
    return {key: value for key, value in shown.items() if value is not None} | payloads


def entries(state: State, task: str, after: int, limit: int) -> list[dict[str, Json]]:
    """A journal as it is told: an event that does not hold its outcome itself has that of its promise."""
    told = []
    for event in [each for each in state.journal(task) if each.seq > after][:limit]:
        promise = promise_of(state, event)
        outcome: Any = promise if refers(event) else event
        told.append(
            {
                "seq": event.seq,
                "operation": event.operation,
                "kind": event.kind,
                "issued": event.issued,
                "cohort": event.cohort,
                "digest": event.digest,
                "state": event.state,
                "value": outcome and outcome.value,
                "error": outcome and outcome.error,
                "headers": outcome and outcome.headers,
                "at": event.at,
                "epoch": event.epoch,
                "promise": promise and promise.id,
            }
        )
    return told


PROMISING = ("promise", "call", "start", "wait")
"""The kinds of operations that wait for a promise."""


def refers(event: Checkpoint) -> bool:
    """Whether an event's outcome is that of its promise, a member of the same family."""
    return (
        event.kind in PROMISING
        and not event.own
        and (event.promise is None or family(event.promise) == family(event.task))
    )


def promise_of(state: State, event: Checkpoint) -> Promise | None:
    if event.kind not in PROMISING:
        return None
    return state.promises.get(event.promise or f"{event.task}~{event.operation}")
