"""`tick`: what is due, done in bounded batches: dead workers, timeouts, timers, cancels that are owed."""

from __future__ import annotations

from typing import Any

from tests.proof.model import refusing
from tests.proof.model.rows import DAY, Checkpoint, Closing, Json, Promise, Wait
from tests.proof.model.settling import GIVEN_UP, Outcome, append_cancel, settle, time_out, told
from tests.proof.model.state import State, Undetermined, plain_lane


def tick(state: State, given: dict[str, Any]) -> Json:
    refusing.isolation(state)
    limit = given.get("limit", 10)
    refusing.page(limit, state.limits.batch_items)
    workers = _bury(state, limit)
    overdue = sorted(
        (p for p in state.promises.values() if state.is_overdue(p)), key=lambda p: (p.timeout_at or 0, p.id)
    )
    promises = time_out(state, [p.id for p in overdue[:limit]])
    timers = _fire(state, limit)
    closed = _close(state, limit)
    return {
        "now": state.now,
        "workers": workers,
        "promises": promises,
        "timers": timers,
        "closed": closed,
        "next": _next(state),
    }


def _next(state: State) -> int | None:
    """In how many microseconds the next thing is due."""
    if any(closing.since < state.now for closing in state.closings.values()):
        return 0
    due = [p.timeout_at for p in state.promises.values() if p.state == "pending" and p.timeout_at is not None]
    due += [w.fire_at for w in state.waits.values() if w.fire_at is not None]
    return max(min(due) - state.now, 0) if due else None


def _bury(state: State, limit: int) -> int:
    """A worker silent beyond its lease is dead for ever. What it held goes to others, alone if it made no progress; what has
    killed too many is parked."""
    for worker in list(state.workers.values()):
        if worker.died_at is None and worker.seen_at + worker.lease < state.now:
            state.workers[worker.id] = worker._replace(died_at=state.now, sleeping=False)
    holders = {task.worker for task in state.tasks.values()}
    for worker in list(state.workers.values()):
        if worker.died_at is not None and worker.died_at < state.now - DAY and worker.id not in holders:
            del state.workers[worker.id]
    dead = {worker.id for worker in state.workers.values() if worker.died_at is not None}
    orphans = [task for task in state.tasks.values() if task.worker in dead]
    if len(orphans) > limit:
        raise Undetermined
    for task in orphans:
        used_up = task.attempts >= state.limits.attempts
        message = f"{task.attempts} workers died while they held it; the last was {task.worker}"
        state.met["a dead worker's task is " + ("parked" if used_up else "ready")] += 1
        state.put_task(
            task,
            state="halted" if used_up else "ready",
            ready_at=None if used_up else state.now,
            reason={"code": "attempts", "message": message} if used_up else None,
            lane=plain_lane(task.lane) + ("!" if task.attempts > 0 else ""),
            worker=None,
            claimed_at=None,
        )
    return len(orphans)


def _fire(state: State, limit: int) -> int:
    """A timer becomes an event. A delayed start, or a task whose step is to be tried again, becomes ready and is told nothing."""
    due = sorted(
        (w for w in state.waits.values() if w.fire_at is not None and w.fire_at <= state.now),
        key=lambda w: (w.fire_at or 0, w.task),
    )
    tasks = {wait.task for wait in due[:limit]}
    fired = sorted(
        (wait for wait in due if wait.task in tasks), key=lambda w: (w.task, w.fire_at or 0, w.operation)
    )
    for wait in fired:
        _fire_one(state, wait)
    return len(fired)


def _fire_one(state: State, wait: Wait) -> None:
    task = state.tasks[wait.task]
    state.met[f"a {wait.kind} of a {task.state} task fires"] += 1
    del state.waits[wait.task, wait.operation]
    if wait.kind != "timer":
        asleep = task.state == "suspended"
        state.put_task(
            task, state="ready" if asleep else task.state, ready_at=state.now if asleep else task.ready_at
        )
        return
    at = max(state.now, task.last_at or 0)
    state.append(
        Checkpoint(
            task.id,
            task.last_seq + 1,
            wait.operation,
            "timer",
            "resolved",
            at,
            task.epoch,
            wait.issued,
            wait.cohort,
            wait.digest,
        )
    )
    told(state, task)


def _close(state: State, limit: int) -> int:
    """Cancels that are owed: to single promises, and to all children of what has ended, passed one by one in the order of their
    IDs (`after` is how far)."""
    rows = sorted(state.closings.values(), key=lambda c: (c.since, c.id))[:limit]
    itself = [row for row in rows if row.itself]
    parents = [row for row in rows if not row.itself]
    walked = _walk(state, parents, limit - len(itself))
    forced = [p.id for row, p in walked if row.force] + [row.id for row in itself if row.force]
    asked = [p.id for row, p in walked if not row.force] + [row.id for row in itself if not row.force]
    closed = (_cancel(state, asked, force=False) if asked else 0) + (
        _cancel(state, forced, force=True) if forced else 0
    )
    for row in itself:
        _pay_itself(state, row)
    for row in parents:
        now = state.closings[row.id]
        if not now.itself and not any(child.id > (now.after or "") for child in state.children(row.id)):
            del state.closings[row.id]
    return closed


def _walk(state: State, parents: list[Closing], limit: int) -> list[tuple[Closing, Promise]]:
    walked: list[tuple[Closing, Promise]] = []
    for row in parents:
        for child in state.children(row.id):
            if child.id > (row.after or "") and len(walked) < limit:
                walked.append((row, child))
                state.closings[row.id] = state.closings[row.id]._replace(after=child.id)
    return walked


def _pay_itself(state: State, row: Closing) -> None:
    """Its own cancel is no longer owed; those of its children may be."""
    now = state.closings[row.id]
    if now.itself and now.after is None:
        del state.closings[row.id]
    elif now.itself:
        state.closings[row.id] = now._replace(itself=False)


def _cancel(state: State, ids: list[str], *, force: bool) -> int:
    """What never ran, or is ended by force, settles; what has begun is asked, once. What is past its timeout times out."""
    pending = [
        p
        for p in map(state.promises.get, sorted(set(ids)))
        if p and p.state == "pending" and not state.is_overdue(p)
    ]
    ended, asked = [], []
    for promise in pending:
        task = state.task(promise.id)
        if task is None or force or task.epoch == 0:
            ended.append(promise.id)
        elif (promise.id, "~cancel") not in state.checkpoints:
            asked.append(promise.id)
    settle(state, {id: Outcome("canceled", error=GIVEN_UP) for id in ended}, "workflow")
    if force:
        for id in ended:
            if id in state.closings:
                state.closings[id] = state.closings[id]._replace(force=True)
    for id in asked:
        append_cancel(state, state.tasks[id], "~cancel", GIVEN_UP)
    state.met["an owed cancel settles"] += len(ended)
    state.met["an owed cancel is told"] += len(asked)
    return len(ended) + len(asked)
