"""How promises leave `pending`, and what follows from it, whoever settles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tests.proof.model.rows import SECOND, Checkpoint, Closing, Json, Promise, Task
from tests.proof.model.state import State, family, version_of

ENDED = {"type": "canceled", "message": "its workflow has ended"}
GIVEN_UP = {"type": "canceled", "message": "its workflow has ended, or gave it up"}


class Outcome(NamedTuple):
    """What a promise becomes."""

    state: str
    value: Json = None
    error: Json = None
    headers: Json = None
    digest: str | None = None


def settle(state: State, outcomes: dict[str, Outcome], settler: str) -> None:
    """Settle pending promises. What ends in one call no longer waits; all others that wait are told; what a workflow leaves open
    is owed a cancel."""
    for id, outcome in outcomes.items():
        promise, task = state.promises[id], state.task(id)
        by_timeout = settler == "timeout"
        state.promises[id] = promise._replace(
            state=outcome.state,
            value=outcome.value,
            error=outcome.error,
            headers=outcome.headers,
            value_digest=outcome.digest,
            settler=settler,
            settled_at=promise.timeout_at if by_timeout else max(state.now, promise.created_at),
            started_at=task and task.started_at,
            seed=task and task.seed,
            version=task and version_of(task.lane),
        )
    for key in [key for key in state.waits if key[0] in outcomes]:
        del state.waits[key]
    deliver(state, outcomes)
    for id in outcomes:
        task = state.tasks.get(id)
        if task is None:
            continue
        del state.tasks[id]
        if task.children > 0 and state.has_open_child(id):
            state.met["children are owed a cancel"] += 1
            owed = state.closings.get(id) or Closing(id, state.now)
            state.closings[id] = owed._replace(itself=False, after=None)


def deliver(state: State, promises: Iterable[str]) -> None:
    """Turn the waits for settled promises into events, in the order of the promises' IDs."""
    for wait in sorted(state.waits_for(promises), key=lambda w: (w.task, w.promise or "", w.operation)):
        promise, task = state.promises[wait.promise or ""], state.tasks[wait.task]
        copied = family(wait.task) != family(promise.id)
        outcome: tuple[Json, Json, Json] = (None, None, None)
        if copied:
            outcome = (promise.value, promise.error, promise.headers)
        state.append(
            Checkpoint(
                wait.task,
                task.last_seq + 1,
                wait.operation,
                wait.kind,
                promise.state,
                max(state.now, task.last_at or 0),
                task.epoch,
                wait.issued,
                wait.cohort,
                wait.digest,
                *outcome,
                promise.id if promise.id != f"{wait.task}~{wait.operation}" else None,
                any(part is not None for part in outcome),
            )
        )
        del state.waits[wait.task, wait.operation]
        told(state, task)
        state.met[f"told of a {wait.kind} while {task.state}"] += 1


def told(state: State, task: Task, events: int = 1) -> None:
    """What new events do to a task: a sleeping one is ready, a holder has news, a parked one stays so."""
    state.put_task(
        task,
        last_seq=task.last_seq + events,
        last_at=max(state.now, task.last_at or 0),
        news=task.news or task.state == "claimed",
        ready_at=state.now if task.state == "suspended" else task.ready_at,
        state="ready" if task.state == "suspended" else task.state,
    )


def by_timeout(promise: Promise) -> Outcome:
    if promise.has_default:
        return Outcome("resolved", promise.default_value, None, promise.default_headers)
    return Outcome("timedout")


def time_out(state: State, ids: Sequence[str]) -> int:
    """Settle those that are past their timeout."""
    overdue = [p for p in map(state.promises.get, dict.fromkeys(ids)) if p and state.is_overdue(p)]
    settle(state, {p.id: by_timeout(p) for p in overdue}, "timeout")
    return len(overdue)


def expire(state: State, ids: Sequence[str]) -> None:
    """Whoever looks at an overdue promise settles it, unless his transaction sees the past."""
    if state.read_committed:
        time_out(state, ids)


def catch_up(state: State, id: str) -> None:
    """What is true of a promise before somebody decides about it: its timeout has come, or its workflow has ended and it with it
    (but for a child whose code has begun: that is asked)."""
    promise = state.promises.get(id)
    if promise is None or promise.state != "pending":
        return
    parent, task = state.promises.get(promise.parent or ""), state.task(id)
    if state.is_overdue(promise):
        time_out(state, [id])
    elif parent and parent.state != "pending" and (promise.function is None or (task and task.epoch == 0)):
        settle(state, {id: Outcome("canceled", error=ENDED)}, "workflow")
        state.met["a decision finds the workflow ended"] += 1


def cancels(state: State, task: str) -> list[Checkpoint]:
    """The requests to cancel that stand in a journal."""
    return [c for c in state.journal(task) if c.operation.startswith("~cancel")]


def next_cancel(state: State, task: Task) -> str | None:
    """The name of one more request to cancel; none while the code was not told of the last one, or within a second of it."""
    asked = cancels(state, task.id)
    if not asked:
        return "~cancel"
    last = asked[-1]
    was_told = task.asked >= last.seq or (task.state == "claimed" and not task.news)
    if last.at > state.now - SECOND or not was_told:
        return None
    return f"~cancel:{len(asked) + 1}"


def append_cancel(state: State, task: Task, operation: str, error: Json) -> None:
    """A request to cancel takes its place in the order."""
    at = max(state.now, task.last_at or 0)
    state.append(
        Checkpoint(
            task.id,
            task.last_seq + 1,
            operation,
            "cancel",
            "canceled",
            at,
            task.epoch,
            0,
            error=error,
            own=True,
        )
    )
    told(state, task)
