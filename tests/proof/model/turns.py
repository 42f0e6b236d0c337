"""`advance`: the turns of many workflows in one call, each judged by itself, carried out in the order that the law gives:
outcomes and creations, then ends and their deliveries, then suspensions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.proof.model import refusing
from tests.proof.model.creating import create, refuse_odd_operations
from tests.proof.model.judging import Turn, judge
from tests.proof.model.rows import Attempt, Checkpoint, Closing, Json, Wait
from tests.proof.model.settling import Outcome, settle
from tests.proof.model.state import State, entries
from tests.proof.model.workers import give_back

Given = dict[str, Any]
DEADLOCK = {"code": "deadlock", "message": "the workflow waits for nothing that could ever come"}
SPENT = {"code": "attempts", "message": "its step asked for the end of the process each time"}
BY_ITS_WORKER = {"code": "halted", "message": "halted by its worker"}


def advance(state: State, given: Given) -> Json:
    parts = {
        part: given.get(part) or []
        for part in ("turns", "outcomes", "operations", "timers", "attempts", "cancels")
    }
    refusing.isolation(state)
    _refuse_odd(state, parts)
    turns = [judge(state, Turn(**_turn(row)), parts["outcomes"]) for row in parts["turns"]]
    ok = {turn.task: turn for turn in turns}
    _append_outcomes(state, turns, parts["outcomes"])
    create(state, ok, parts["operations"])
    _note_attempts(state, ok, parts["attempts"])
    for turn in turns:
        _store(state, turn)
    _finish(state, turns)
    _give_up(state, ok, parts["cancels"])
    asking = {row["task"] for row in parts["operations"]}
    for turn in turns:
        _owe_children(state, turn, turn.task in asking)
    for turn in turns:
        _suspend(state, turn, [row for row in parts["timers"] if row["task"] == turn.task])
    for turn in turns:
        _let_go(state, turn)
    return [_answer(state, turn) for turn in turns]


def _turn(row: Given) -> Given:
    return {key: value for key, value in row.items() if key != "then"} | {"next": row.get("then")}


def _refuse_odd(state: State, parts: dict[str, Json]) -> None:
    """A malformed call is the worker's fault, not a race: it is an error as a whole."""
    for part in parts.values():
        refusing.batch(state, part)
    turns, outcomes, timers = parts["turns"], parts["outcomes"], parts["timers"]
    refusing.refuse("TR002", refusing.lacks(turns, "task", "epoch", "seen"))
    refusing.refuse("TR002", len({turn["task"] for turn in turns}) < len(turns))
    for turn in turns:
        then, ends = turn.get("then"), turn.get("state")
        refusing.refuse("TR002", then not in {None, "suspend", "finish", "release", "halt"})
        refusing.refuse("TR002", then == "finish" and ends not in {"resolved", "rejected", "canceled"})
        refusing.refuse("TR002", then == "finish" and (ends == "resolved") != (turn.get("error") is None))
        refusing.refuse("TR002", turn.get("close") and then not in {None, "suspend"})
        for payload in ("value", "error", "headers"):
            refusing.payload(state, turn.get(payload))
    for row in outcomes:
        refusing.refuse("TR002", row.get("kind") not in {"step", "timer", "patch"})
        refusing.refuse("TR002", row.get("state") not in {"resolved", "rejected"})
        for payload in ("value", "error", "headers"):
            refusing.payload(state, row.get(payload))
    for row in timers:
        refusing.refuse(
            "TR002", row.get("kind", "timer") not in {"timer", "retry"} or row.get("micros") is None
        )
    for row in outcomes + timers:
        refusing.operation_name(row.get("operation"))
        refusing.refuse("TR002", row.get("issued") is None)
    refuse_odd_operations(state, parts["operations"])
    for row in parts["attempts"]:
        refusing.refuse("TR002", not row.get("task") or not row.get("operation"))
        refusing.refuse("TR002", not 1 <= (row.get("number") or 0) <= 32_767)
        for micros in (row.get("retry_in"), row.get("elapsed")):
            refusing.span(state, micros)
        for payload in ("error", "details"):
            refusing.payload(state, row.get(payload))
    refusing.refuse("TR002", refusing.lacks(parts["cancels"], "task", "promise"))


def _append_outcomes(state: State, turns: Iterable[Turn], outcomes: list[Given]) -> None:
    """What steps brought is kept, of a turn with news too. There only what was issued after an event told ahead is left out: that
    event stands elsewhere now, and no replay would issue it again."""
    for turn in turns:
        if turn.verdict not in {"ok", "news"}:
            continue
        latest = turn.last_at
        fits = turn.last_seq == turn.seen
        for row in [row for row in outcomes if row["task"] == turn.task]:
            recorded = (turn.task, row["operation"]) in state.checkpoints
            if not recorded and (fits or row["issued"] <= turn.seen):
                latest = max(latest, min(max(state.now, turn.last_at), row.get("at") or state.now))
                turn.add(state, _event(turn, row, latest))
                turn.told += turn.verdict == "ok"
                state.met[f"an outcome of a turn that is {turn.verdict}"] += 1
            elif not recorded:
                state.met["an outcome is left out"] += 1
            kind = "timer" if row["kind"] == "timer" else "retry"
            wait = state.waits.get((turn.task, row["operation"]))
            if wait is not None and wait.kind == kind and (kind == "timer" or row.get("retried")):
                del state.waits[turn.task, row["operation"]]


def _event(turn: Turn, row: Given, at: int) -> Checkpoint:
    outcome = (row.get("value"), row.get("error"), row.get("headers"))
    return Checkpoint(
        turn.task,
        turn.last_seq + 1,
        row["operation"],
        row["kind"],
        row["state"],
        at,
        turn.epoch,
        row["issued"],
        row.get("cohort"),
        row.get("digest"),
        *outcome,
        own=any(part is not None for part in outcome),
    )


def _note_attempts(state: State, turns: dict[str, Turn], notes: list[Given]) -> None:
    """Outside the order. What comes later about an attempt adds to it; a new holder begins it anew, but for the details."""
    for row in notes:
        turn = turns.get(row["task"])
        if turn is None or turn.verdict not in {"ok", "news"}:
            continue
        key = (turn.task, row["operation"], row["number"])
        old = state.attempts.get(key)
        mine = old if old is not None and old.epoch == turn.epoch else None
        retry_in = row.get("retry_in")
        state.attempts[key] = Attempt(
            *key,
            turn.epoch,
            mine.started_at if mine else state.now - (row.get("elapsed") or 0),
            (mine and mine.ended_at) or (state.now if row.get("ended") else None),
            state.now + retry_in if retry_in is not None else mine and mine.retry_at,
            row["error"] if row.get("error") is not None else mine and mine.error,
            row["details"] if row.get("details") is not None else old and old.details,
        )


def _store(state: State, turn: Turn) -> None:
    """The task's row after what was recorded: progress of its holder forgets the attempts and what another keeps in memory."""
    task = state.task(turn.task)
    if task is None or turn.verdict not in {"ok", "news", "halted"} or not (turn.changed or task.news):
        return
    asked = (
        turn.verdict == "ok"
        and turn.changed
        and (turn.next == "suspend" or (turn.next is None and turn.asked))
    )
    state.put_task(
        task,
        last_seq=turn.last_seq,
        last_at=turn.last_at,
        children=turn.children,
        news=task.news and turn.verdict == "news",
        attempts=0 if turn.changed else task.attempts,
        kept_by=None if turn.changed else task.kept_by,
        asked=max(task.asked, turn.told) if asked else task.asked,
    )


def _finish(state: State, turns: list[Turn]) -> None:
    """Ends are settled together: two that end in one call owe each other nothing."""
    ending = {
        turn.task: Outcome(
            turn.state or "",
            turn.value if turn.state == "resolved" else None,
            turn.error,
            turn.headers,
            turn.digest,
        )
        for turn in turns
        if turn.verdict == "ok" and turn.next == "finish" and turn.last_seq == turn.told
    }
    settle(state, ending, "worker")


def _give_up(state: State, turns: dict[str, Turn], cancels: list[Given]) -> None:
    """Children that the code gave up are owed a cancel, each by itself."""
    for row in cancels:
        turn, promise = turns.get(row["task"]), state.promises.get(row["promise"])
        if turn is None or turn.verdict != "ok" or promise is None:
            continue
        if promise.state == "pending" and promise.parent == turn.task:
            old = state.closings.get(promise.id)
            if old is None:
                state.closings[promise.id] = Closing(promise.id, state.now, itself=True)
            elif not old.itself:
                state.closings[promise.id] = old._replace(itself=True, after=old.after or "")
            state.met["a child is given up"] += 1


def _owe_children(state: State, turn: Turn, asks: bool) -> None:
    """Code that has ended while calls of its own are open: its children are owed a cancel. Said again, it goes on where it was,
    unless there are new ones."""
    if turn.verdict != "ok" or not turn.close or not state.has_open_child(turn.task):
        return
    state.met["code ends before its children"] += 1
    old = state.closings.get(turn.task)
    if old is None:
        state.closings[turn.task] = Closing(turn.task, state.now)
    elif asks or (old.itself and old.after is None):
        state.closings[turn.task] = old._replace(after="" if old.itself else None)


def _goes_on(state: State, turn: Turn, next: str) -> bool:
    """Nothing came that the code has not been told, in this call either."""
    task = state.task(turn.task)
    return turn.verdict == "ok" and turn.next == next and task is not None and task.last_seq == turn.told


def _suspend(state: State, turn: Turn, timers: list[Given]) -> None:
    """Lets go of a task that waits; its open timers, and those alone, are waits now. One that waits for nothing is parked."""
    if not _goes_on(state, turn, "suspend"):
        return
    task = state.tasks[turn.task]
    kept = {row["operation"] for row in timers}
    for wait in state.waits_of(task.id):
        if wait.kind in {"timer", "retry"} and wait.operation not in kept:
            del state.waits[task.id, wait.operation]
    for row in timers:
        _keep_timer(state, task.id, task.started_at or 0, row)
    waits = bool(state.waits_of(task.id))
    state.met["suspended" if waits else "parked, for it waits for nothing"] += 1
    state.put_task(
        task,
        state="suspended" if waits else "halted",
        reason=None if waits else DEADLOCK,
        kept_by=task.worker if turn.keep else None,
        asked=task.last_seq,
        worker=None,
        claimed_at=None,
        attempts=0,
    )


def _keep_timer(state: State, task: str, started_at: int, row: Given) -> None:
    """A timer counts from the event that it was issued after, a retry from now."""
    operation, kind = row["operation"], row.get("kind") or "timer"
    if (task, operation) in state.checkpoints:
        return
    begin = next((c.at for c in state.journal(task) if c.seq == row["issued"]), started_at)
    fire_at = (state.now if kind == "retry" else begin) + row["micros"]
    old = state.waits.get((task, operation))
    if old is None:
        state.waits[task, operation] = Wait(
            task,
            operation,
            kind,
            row["issued"],
            None,
            fire_at,
            row["micros"],
            row.get("cohort"),
            row.get("digest"),
        )
    elif old.kind == kind == "retry":
        state.waits[task, operation] = old._replace(fire_at=fire_at)


def _let_go(state: State, turn: Turn) -> None:
    """Gives a task back, or parks it."""
    task = state.task(turn.task)
    if _goes_on(state, turn, "release"):
        task = state.tasks[turn.task]
        if not turn.charged:
            give_back(state, task)
        elif task.attempts >= state.limits.attempts:
            state.met["parked, for its step ends the process"] += 1
            state.put_task(task, state="halted", reason=SPENT, worker=None, claimed_at=None)
        else:
            state.put_task(task, state="ready", ready_at=state.now, worker=None, claimed_at=None)
    elif task is not None and (
        turn.verdict == "halted" or (turn.next == "halt" and turn.verdict in {"ok", "news"})
    ):
        reason = BY_ITS_WORKER if turn.reason is None else turn.reason
        state.put_task(task, state="halted", reason=reason, worker=None, claimed_at=None)


def _answer(state: State, turn: Turn) -> Json:
    task = state.task(turn.task)
    judged = turn.verdict in {"ok", "news"}
    last_seq = (task.last_seq if task else turn.last_seq) if judged else None
    more = None
    if turn.verdict == "news":
        more = entries(state, turn.task, turn.seen, 1000)
    elif turn.verdict == "ok" and task is not None and task.last_seq > turn.told:
        more = entries(state, turn.task, turn.told, 1000)
        state.met["ok, with events beyond its own"] += 1
    halted = judged and task is not None and task.state == "halted"
    return {
        "task": turn.task,
        "answer": "halted" if halted else turn.verdict,
        "last_seq": last_seq,
        "entries": more,
    }
