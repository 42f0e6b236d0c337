"""The workers' verbs but for `advance`: say what one can run, take tasks, keep the lease, end a transactional step, go."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from tests.proof.model import refusing
from tests.proof.model.rows import DAY, SECOND, Checkpoint, Function, Json, Task, Worker
from tests.proof.model.state import Refused, State, entries, plain_lane, version_of

Given = dict[str, Any]
_WORKER = re.compile(r"[A-Za-z0-9_.-]{1,63}")
UNKNOWN_SEED = -1
"""The seed of a workflow is drawn by chance: what SQL drew takes this one's place."""


def register(state: State, given: Given) -> Json:
    """Written only where it differs."""
    refusing.isolation(state)
    refusing.batch(state, given["functions"])
    for item in given["functions"]:
        name, version, queue = item.get("name"), item.get("version"), item.get("queue") or "default"
        refusing.name(state, name)
        refusing.name(state, queue)
        refusing.refuse("TR002", version is None or version < 1)
        known = state.functions.get((name, version))
        if known is None or known.queue != queue:
            state.functions[name, version] = Function(name, version, queue, state.now)


def claim(state: State, given: Given) -> Json:
    """The first tasks of the lanes that this worker knows, by priority and age; one whose last holder died first and alone, if
    this worker holds nothing."""
    refusing.isolation(state)
    worker, queues, lanes, limit = given["worker"], given["queues"], given["lanes"], given["limit"]
    pins = given.get("pins") or [lane if "@" in lane else f"{lane}@1" for lane in lanes or []]
    lease = given.get("lease", 15 * SECOND)
    refusing.refuse("TR002", not _WORKER.fullmatch(worker or ""))
    refusing.page(limit, state.limits.batch_items)
    refusing.refuse("TR002", queues is None or lanes is None or len(pins) != len(lanes))
    refusing.refuse("TR002", not SECOND <= lease <= DAY)
    _present(state, given, lease)
    taken: list[Task] = []
    alone = False
    for alone in (True, False) if given.get("alone") else (False,):
        suffix = "!" if alone else ""
        taken = _heads(state, queues, [lane + suffix for lane in lanes], 1 if alone else limit)
        if taken:
            break
    if alone:
        state.met["a task whose holder died is claimed alone"] += len(taken)
    for task in taken:
        _take(state, task, worker, pins[lanes.index(plain_lane(task.lane))])
    claimed = sorted((state.tasks[task.id] for task in taken), key=lambda t: (t.priority, t.id))
    return [_delivered(state, task, alone, given.get("entries", 1000)) for task in claimed]


def _present(state: State, given: Given, lease: int) -> None:
    """The worker's row, made by its first claim. Death is final."""
    id, queues, lanes = given["worker"], given["queues"], given["lanes"]
    sleeping = given.get("sleeping", False)
    known = state.workers.get(id)
    if known is None:
        state.workers[id] = Worker(
            id, queues, lanes, lease, state.now, state.now, given.get("info"), sleeping
        )
        return
    refusing.refuse("TR020", known.died_at is not None)
    state.workers[id] = known._replace(queues=queues, lanes=lanes, sleeping=sleeping)


def _heads(state: State, queues: list[str], lanes: list[str], limit: int) -> list[Task]:
    """The first of all lanes together. A task past its timeout takes up its place and is left to whoever times it out."""
    ready = sorted(
        (t for t in state.tasks.values() if t.state == "ready" and t.queue in queues and t.lane in lanes),
        key=lambda t: (t.priority, t.ready_at or 0, t.id),
    )
    share = Counter((task.queue, task.lane) for task in ready[:limit])
    taken = []
    for task in ready:
        if (task.timeout_at is None or task.timeout_at > state.now) and share[task.queue, task.lane] > 0:
            share[task.queue, task.lane] -= 1
            taken.append(task)
    return taken


def _take(state: State, task: Task, worker: str, lane: str) -> None:
    state.put_task(
        task,
        state="claimed",
        worker=worker,
        epoch=task.epoch + 1,
        attempts=task.attempts + 1,
        claimed_at=state.now,
        ready_at=None,
        news=False,
        lane=lane,
        started_at=state.now if task.started_at is None else task.started_at,
        last_at=state.now if task.last_at is None else task.last_at,
        seed=UNKNOWN_SEED if task.seed is None else task.seed,
        kept_by=worker if task.kept_by == worker else None,
    )


def _delivered(state: State, task: Task, alone: bool, limit: int) -> Json:
    """What a worker is given to run a task: all of its journal, or what came after what its kept code knows."""
    promise = state.promises[task.id]
    anew = task.epoch > 1 and task.kept_by is None
    if task.kept_by is not None:
        state.met["a claim of kept code"] += 1
    waits = [
        {
            "operation": wait.operation,
            "kind": wait.kind,
            "promise": wait.promise,
            "issued": wait.issued,
            "digest": wait.digest,
            "cohort": wait.cohort,
        }
        for wait in state.waits_of(task.id)
        if wait.kind != "delay"
    ]
    return {
        "task": task.id,
        "epoch": task.epoch,
        "function": promise.function,
        "version": version_of(task.lane),
        "queue": task.queue,
        "args": promise.args,
        "args_headers": promise.args_headers,
        "tags": promise.tags,
        "timeout_at": task.timeout_at,
        "started_at": task.started_at,
        "seed": task.seed,
        "attempts": task.attempts,
        "now": state.now,
        "last_seq": task.last_seq,
        "alone": alone,
        "asked": task.asked,
        "waits": waits if anew else [],
        "steps": _attempts(state, task) if task.epoch > 1 else [],
        "journal": entries(state, task.id, 0 if task.kept_by is None else task.asked, limit),
    }


def _attempts(state: State, task: Task) -> Json:
    """The last attempt at each step that has no outcome yet."""
    last = {}
    for attempt in sorted(state.attempts.values()):
        if attempt.task == task.id and (task.id, attempt.operation) not in state.checkpoints:
            last[attempt.operation] = attempt
    return [
        {
            "operation": attempt.operation,
            "number": attempt.number,
            "ended": attempt.ended_at is not None,
            "retry_at": attempt.retry_at,
            "details": attempt.details,
            "error": attempt.error,
        }
        for attempt in last.values()
    ]


def give_back(state: State, task: Task) -> None:
    """Ready again, and it was nobody's fault."""
    state.put_task(
        task,
        state="ready",
        ready_at=state.now,
        worker=None,
        claimed_at=None,
        attempts=max(task.attempts - 1, 0),
    )


def heartbeat(state: State, given: Given) -> Json:
    """Renews the lease, frees what is claimed in this name and not held, names what has news or is lost."""
    refusing.isolation(state)
    id, tasks, epochs = given["worker"], given["tasks"], given["epochs"]
    under_way = given.get("under_way", 5 * SECOND)
    refusing.refuse("TR002", tasks is None or epochs is None or len(tasks) != len(epochs))
    worker = state.workers.get(id)
    if worker is not None:
        refusing.refuse("TR020", worker.died_at is not None)
        state.workers[id] = worker._replace(seen_at=max(state.now, worker.seen_at))
    held = list(zip(tasks, epochs, strict=True))
    for task in list(state.tasks.values()):
        if (
            task.worker == id
            and (task.claimed_at or 0) < state.now - under_way
            and (task.id, task.epoch) not in held
        ):
            give_back(state, task)
            state.met["a heartbeat frees what is not held"] += 1
    answers: list[Json] = []
    for name, epoch in held:
        there = state.task(name)
        if there is None or there.epoch != epoch or there.worker != id:
            answers.append({"task": name, "epoch": epoch, "answer": "lost"})
        elif there.news:
            answers.append({"task": name, "epoch": epoch, "answer": "news"})
    if worker is not None and any(
        t.state == "ready" and t.queue in worker.queues and t.lane in [f"{lane}!" for lane in worker.lanes]
        for t in state.tasks.values()
    ):
        answers.append({"task": None, "epoch": None, "answer": "alone"})
    return answers


def leave(state: State, given: Given) -> Json:
    """Gives back all that it holds, and is dead from then on."""
    refusing.isolation(state)
    id = given["worker"]
    held = [task for task in state.tasks.values() if task.worker == id]
    for task in held:
        give_back(state, task)
    worker = state.workers.get(id)
    if worker is not None and worker.died_at is None:
        state.workers[id] = worker._replace(died_at=state.now, sleeping=False)
    return len(held)


def commit_step(state: State, given: Given) -> Json:
    """The outcome of a step, in the transaction of its own effects; only the task's holder may, and only once."""
    id, operation, issued = given["task"], given.get("operation"), given.get("issued")
    value, headers = given.get("value"), given.get("headers")
    refusing.operation_name(operation)
    refusing.refuse("TR002", issued is None)
    refusing.payload(state, value)
    refusing.payload(state, headers)
    task = state.task(id)
    if (
        task is None
        or task.state != "claimed"
        or task.epoch != given.get("epoch")
        or (task.timeout_at is not None and task.timeout_at <= state.now)
    ):
        return [{"answer": "fenced", "seq": None, "at": None}]
    assert operation is not None
    assert issued is not None
    event = state.checkpoints.get((id, operation))
    if event is not None:
        return [{"answer": "recorded", "seq": event.seq, "at": event.at}]
    wait = state.waits.get((id, operation))
    refusing.refuse("TR002", not 0 <= issued <= task.last_seq)
    refusing.refuse("TR030", task.last_seq >= state.limits.journal_entries)
    if wait is not None and wait.kind != "retry":
        raise Refused("TR012")
    seq, at = task.last_seq + 1, max(state.now, task.last_at or 0)
    state.append(
        Checkpoint(
            id,
            seq,
            operation,
            "step",
            "resolved",
            at,
            task.epoch,
            issued,
            given.get("cohort"),
            given.get("digest"),
            value,
            headers=headers,
            own=value is not None or headers is not None,
        )
    )
    if wait is not None:
        del state.waits[id, operation]
    state.put_task(task, last_seq=seq, last_at=at, attempts=0)
    return [{"answer": "ok", "seq": seq, "at": at}]
