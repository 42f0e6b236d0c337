"""What code asks for in a turn: promises, children, waits. Made by their IDs and subscribed to in one commit."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from tests.proof.model import refusing
from tests.proof.model.clients import is_same_start, make_workflow
from tests.proof.model.judging import Turn
from tests.proof.model.rows import Checkpoint, Json, Promise, Wait
from tests.proof.model.state import PROMISING, State, Undetermined, family

Given = dict[str, Any]


@dataclass
class Asked:
    """One operation that is not recorded yet."""

    row: Given
    turn: Turn
    id: str
    made: bool = False
    over: bool = False  # a limit does not let it be

    @property
    def kind(self) -> str:
        kind: str = self.row["kind"]
        return kind

    @property
    def is_child(self) -> bool:
        return self.kind in {"call", "start"}


def refuse_odd_operations(state: State, operations: list[Given]) -> None:
    for row in operations:
        kind, promise = row.get("kind"), row.get("promise")
        refusing.refuse("TR002", kind not in PROMISING)
        refusing.operation_name(row.get("operation"))
        refusing.refuse("TR002", row.get("issued") is None)
        refusing.refuse("TR002", kind == "wait" and promise is None)
        refusing.refuse("TR002", kind == "promise" and promise is not None)
        refusing.span(state, row.get("timeout"))
        refusing.refuse("TR002", row.get("has_default") and row.get("timeout") is None)
        if promise is None:
            refusing.id_(f"{row['task']}~{row['operation']}", state.limits.id_length)
        if kind == "promise":
            refusing.payload(state, row.get("default"))
            refusing.payload(state, row.get("default_headers"))
            refusing.tags(state, row.get("tags"))
            refusing.title(state, row.get("title"))
        elif kind in {"call", "start"}:
            if promise is not None:
                refusing.id_to_start(state, promise)
            headers = {"headers": row.get("args_headers"), "priority": row.get("priority") or 0}
            refusing.start(state, row | headers)
            refusing.title(state, row.get("title"))


def create(state: State, turns: dict[str, Turn], operations: list[Given]) -> None:
    """Operations of the turns that are `ok`. One that is recorded is passed over, one that is settled is an event at once."""
    asked = []
    for row in operations:
        turn = turns.get(row["task"])
        if turn and turn.verdict == "ok" and not state.is_recorded(turn.task, row["operation"]):
            asked.append(Asked(row, turn, row.get("promise") or f"{row['task']}~{row['operation']}"))
    _make(state, asked)
    crowds = Counter(wait.promise for wait in state.waits.values())
    refusals: dict[str, Json] = {}
    for each in asked:
        each.turn.changed = True
        each.turn.children += each.made
        crowded = (
            not each.made
            and each.kind != "promise"
            and each.id in state.promises
            and state.promises[each.id].state == "pending"
            and crowds[each.id] >= state.limits.waits_per_promise
        )
        refusal = _refusal(state, each, crowded)
        if refusal is not None:
            if each.turn.task in refusals:
                raise Undetermined  # which of two faults is told
            refusals[each.turn.task] = refusal
            state.met[f"halted: {refusal['code']}"] += 1
        else:
            _subscribe(state, each, _answer(state, each, crowded))
    for task, refusal in refusals.items():
        turns[task].verdict, turns[task].reason = "halted", refusal


def _make(state: State, asked: list[Asked]) -> None:
    """Makes what is not there, up to the limits: promises before children, in the order asked for."""
    fresh = [each for each in asked if each.kind != "wait" and each.id not in state.promises]
    members = {family(each.turn.task): _members(state, each.turn.task) for each in fresh}
    wanted: Counter[str] = Counter()
    joining: Counter[str] = Counter()
    for each in sorted(fresh, key=lambda each: each.kind != "promise"):
        task, root = each.turn.task, family(each.turn.task)
        wanted[task] += 1
        each.over = each.turn.children + wanted[task] > state.limits.children
        if each.row.get("promise") is None:
            joining[root] += 1
            if "~" in task and members[root] + joining[root] > state.limits.family_members:
                each.over = True
    made: set[str] = set()
    for each in fresh:
        if not each.over and each.id not in made:
            _make_one(state, each)
            made.add(each.id)
            each.made = True
            state.met[f"makes a {each.kind}"] += 1


def _members(state: State, task: str) -> int:
    root = family(task)
    return sum(id.startswith(f"{root}~") for id in state.promises)


def _make_one(state: State, each: Asked) -> None:
    row, turn = each.row, each.turn
    task = state.tasks[turn.task]
    timeout = row.get("timeout")
    timeout_at = None if timeout is None else state.now + timeout
    if each.kind == "call" and task.timeout_at is not None:
        # never outlasts its parent
        timeout_at = task.timeout_at if timeout_at is None else min(timeout_at, task.timeout_at)
    if each.is_child:
        make_workflow(
            state,
            each.id,
            row | {"headers": row.get("args_headers"), "digest": row.get("args_digest")},
            timeout_at=timeout_at,
            title=row.get("title"),
            parent=turn.task if each.kind == "call" else None,
        )
        return
    state.promises[each.id] = Promise(
        each.id,
        state.now,
        tags=row.get("tags"),
        title=row.get("title"),
        parent=turn.task,
        timeout_at=timeout_at,
        has_default=bool(row.get("has_default")),
        default_value=row.get("default"),
        default_headers=row.get("default_headers"),
    )


def _refusal(state: State, each: Asked, crowded: bool) -> Json:
    """Why the task is parked: its code names what cannot be meant."""
    promise, operation, task = state.promises.get(each.id), each.row["operation"], each.turn.task
    if promise is None and not each.is_child and not each.over:
        return {
            "code": "unknown_promise",
            "message": f"{operation} waits for {each.id}, which does not exist",
        }
    if each.kind == "promise" and promise and (promise.function or promise.parent not in {None, task}):
        message = f"{each.id} is there already and is not a latent promise of this workflow"
        return {"code": "id_conflict", "message": message}
    if each.kind == "wait" and each.id == task:
        return {"code": "waits_for_itself", "message": f"{task} waits for itself"}
    if each.kind == "wait" and crowded:
        limit = state.limits.waits_per_promise
        return {"code": "limit", "message": f"{each.id} has {limit} waiters already"}
    return None


def _answer(state: State, each: Asked, crowded: bool) -> Json:
    """The error that the code is told where something cannot be made."""
    promise, row, limits = state.promises.get(each.id), each.row, state.limits
    if each.over:
        message = (
            f"a workflow makes at most {limits.children} promises and children,"
            f" a family has at most {limits.family_members}"
        )
        return _told("LimitExceeded", message)
    if not each.is_child:
        return None
    if each.id == family(each.turn.task):
        return _told("IdConflict", f"{each.id} is the workflow that this one belongs to")
    if (
        promise
        and not each.made
        and not is_same_start(promise, row["function"], row.get("args"), row.get("args_digest"))
    ):
        what = (
            "a latent promise"
            if promise.function is None
            else f"a workflow of function {promise.function}"
            if promise.function != row["function"]
            else "the same function with other arguments"
        )
        return _told("IdConflict", f"{each.id} is there already: {what}")
    if crowded:
        return _told("LimitExceeded", f"{each.id} has {limits.waits_per_promise} waiters already")
    return None


def _told(error: str, message: str) -> Json:
    return {"type": f"troth.errors.{error}", "message": message}


def _subscribe(state: State, each: Asked, error: Json) -> None:
    row, turn = each.row, each.turn
    if error is None and state.promises[each.id].state == "pending":
        state.waits[turn.task, row["operation"]] = Wait(
            turn.task,
            row["operation"],
            each.kind,
            row["issued"],
            each.id,
            cohort=row.get("cohort"),
            digest=row.get("digest"),
        )
        return
    promise = state.promises.get(each.id)
    outcome: tuple[Json, Json, Json] = (None, error, None)
    if error is None and promise is not None and family(turn.task) != family(each.id):
        outcome = (promise.value, promise.error, promise.headers)
    state.met[f"a {each.kind} is " + ("told an error" if error else "settled already")] += 1
    turn.add(
        state,
        Checkpoint(
            turn.task,
            turn.last_seq + 1,
            row["operation"],
            each.kind,
            promise.state if promise and error is None else "rejected",
            max(state.now, turn.last_at),
            turn.epoch,
            row["issued"],
            row.get("cohort"),
            row.get("digest"),
            *outcome,
            row.get("promise"),
            any(part is not None for part in outcome),
        ),
    )
