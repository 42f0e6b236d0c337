"""How a turn of `advance` is judged, before anything of it is written: by its fence, by the clock, by the order of events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.proof.model.rows import Checkpoint, Json, Task
from tests.proof.model.state import State

FOREVER = 1 << 62


@dataclass
class Turn:
    """What the caller says of one workflow, and what became of it so far."""

    task: str
    epoch: int
    seen: int
    next: str | None = None
    state: str | None = None
    value: Json = None
    error: Json = None
    headers: Json = None
    digest: str | None = None
    reason: Json = None
    charged: bool | None = None
    keep: bool | None = None
    close: bool | None = None
    asked: bool | None = None

    verdict: str = "ok"
    last_seq: int = 0
    last_at: int = 0
    told: int = 0  # the last event that the caller's code has been told, its own of this call included
    children: int = 0
    changed: bool = False  # by its holder

    def add(self, state: State, event: Checkpoint) -> None:
        state.append(event)
        self.last_seq, self.last_at, self.changed = event.seq, max(event.at, self.last_at), True


def judge(state: State, turn: Turn, outcomes: list[dict[str, Any]]) -> Turn:
    task = state.task(turn.task)
    if task is None or task.state != "claimed" or task.epoch != turn.epoch:
        turn.verdict = "fenced"
        return turn
    turn.last_seq, turn.last_at, turn.children = task.last_seq, task.last_at or 0, task.children
    turn.told = turn.seen
    own = [row for row in outcomes if row["task"] == turn.task]
    mixed = _mixed(state, turn, own)
    if task.timeout_at is not None and task.timeout_at <= state.now:
        turn.verdict = "fenced"
        state.met["fenced by its own timeout"] += 1
    elif _is_early(state, turn, task, own):
        turn.verdict = "busy"
    elif mixed is not None:
        turn.verdict = "halted"
        turn.reason = {"code": "nondeterminism", "message": mixed}
        state.met["halted, for an operation is two things"] += 1
    elif own and task.last_seq + len(own) > state.limits.journal_entries:
        turn.verdict = "halted"
        message = f"a workflow has at most {state.limits.journal_entries} events"
        turn.reason = {"code": "limit", "message": message}
        state.met["halted by the limit of events"] += 1
    elif task.last_seq != turn.seen or _is_astray(state, turn, own):
        turn.verdict = "news"
    return turn


def _mixed(state: State, turn: Turn, outcomes: list[dict[str, Any]]) -> str | None:
    """What an operation waits for is its one event: an outcome of another kind under its name is another program's."""
    found = None
    for row in outcomes:
        wait = state.waits.get((turn.task, row["operation"]))
        expected = "retry" if row["kind"] == "step" else row["kind"]
        if wait is not None and wait.kind != expected:
            found = f"{row['operation']} is a {row['kind']} by now, and waits as a {wait.kind}"
    return found


def _is_astray(state: State, turn: Turn, outcomes: list[dict[str, Any]]) -> bool:
    """An instant told ahead stands if it lies between the last event and the clock, in the order told."""
    latest = turn.last_at
    for row in outcomes:
        at = row.get("at")
        latest = max(latest, state.now if at is None else at)
        if at is not None and at != min(latest, max(state.now, turn.last_at)):
            state.met["an instant told ahead does not fit"] += 1
            return True
    return False


def _is_early(state: State, turn: Turn, task: Task, outcomes: list[dict[str, Any]]) -> bool:
    """A timer counts from the event that it was issued after, which may be told ahead in this same call."""
    journal = {c.seq: c.at for c in state.journal(turn.task)} | {0: task.started_at or 0}
    ahead = {
        task.last_seq + n: state.now if row.get("at") is None else row["at"]
        for n, row in enumerate(outcomes, 1)
    }
    for row in outcomes:
        fits = task.last_seq == turn.seen or row["issued"] <= turn.seen
        if row["kind"] == "timer" and fits:
            known = journal if row["issued"] <= task.last_seq else ahead
            begin = known.get(row["issued"], FOREVER)
            if begin + row["micros"] > max(state.now, turn.last_at):
                return True
    return False
