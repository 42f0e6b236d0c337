"""Random turns: what workers say of the tasks that they hold, mostly true."""

from __future__ import annotations

from typing import Any, Final

from tests.proof.model.chance import FUNCTIONS, MISTAKES, NOBODY, ROOTS, Chance, Given
from tests.proof.model.rows import SECOND, Task

STEPS: Final = tuple(f"s{n}" for n in range(1, 9))
PROMISES: Final = ("p1", "p2", "p3", "2~p1")
WAITS: Final = ("w1", "w2", "w3")
CALLS: Final = ("c1", "c2", "c3", "c4", "c5")
STARTS: Final = ("k1", "k2")
TIMERS: Final = ("t1", "t2", "t3")


def steps_of(chance: Chance, task: str) -> list[str]:
    """Names for a step: mostly one that has no outcome yet."""
    fresh = [each for each in STEPS if (task, each) not in chance.state.checkpoints]
    return fresh[:3] if fresh and chance.odds(0.85) else list(STEPS)


def advance(chance: Chance) -> Given:
    """A few turns in one call. Of each task at most one."""
    held = chance.tasks(lambda task: task.state == "claimed")
    tasks = chance.rng.sample(held, min(len(held), chance.pick((1, 1, 2, 3))))
    others = chance.tasks(lambda task: task.state != "claimed")
    if others and (not tasks or chance.odds(MISTAKES)):
        tasks.append(chance.pick(others))
    call: Given = {part: [] for part in ("turns", "outcomes", "operations", "timers", "attempts", "cancels")}
    for task in tasks:
        _turn(chance, task, call)
    if not tasks or chance.odds(MISTAKES / 2):
        call["turns"].append({"task": NOBODY, "epoch": 1, "seen": 0, "then": None})
    return call


def _turn(chance: Chance, task: Task, call: Given) -> None:
    seen = task.last_seq
    if chance.odds(0.12):
        seen = chance.pick((0, max(seen - 1, 0), max(seen - 2, 0), seen + 1))
    turn: Given = {
        "task": task.id,
        "epoch": task.epoch if chance.odds(1 - MISTAKES / 2) else task.epoch - 1,
        "seen": seen,
    }
    outcomes = _outcomes(chance, task, seen) if chance.odds(0.5) else []
    call["outcomes"] += outcomes
    call["operations"] += _operations(chance, task) if chance.odds(0.5) else []
    call["attempts"] += _attempts(chance, task) if chance.odds(0.12) else []
    if chance.odds(0.3):
        children = [p.id for p in chance.state.children(task.id)]
        call["cancels"] += [{"task": task.id, "promise": id} for id in chance.some([*children, NOBODY], 2)]
    turn |= _end(chance, task)
    if turn["then"] == "suspend":
        call["timers"] += _timers(chance, task)
    call["turns"].append(turn)


def _end(chance: Chance, task: Task) -> Given:
    then = chance.weighed({"suspend": 38, None: 24, "finish": 12, "release": 9, "halt": 5})
    if then == "finish":
        state = chance.weighed({"resolved": 6, "rejected": 3, "canceled": 1})
        return {
            "then": then,
            "state": state,
            "value": chance.value(),
            "error": None if state == "resolved" else chance.error(),
            "headers": chance.headers(),
            "digest": chance.digest(),
        }
    if then == "halt":
        reason = chance.maybe(0.7, lambda: {"code": "nondeterminism", "message": "other code"})
        return {"then": then, "reason": reason}
    if then == "release":
        return {"then": then, "charged": chance.pick((None, False, True, True))}
    ends = chance.state.has_open_child(task.id) and chance.odds(0.25)
    if then == "suspend":
        return {"then": then, "keep": chance.odds(0.4), "close": ends}
    return {"then": None, "asked": chance.odds(0.4), "close": ends}


def _outcomes(chance: Chance, task: Task, seen: int) -> list[Given]:
    """Steps that ended, timers that the holder fired, patches; told at an instant ahead, or at none."""
    state = chance.state
    names = chance.some(steps_of(chance, task.id), 3)
    rows: list[Given] = []
    for name in names:
        failed = chance.odds(0.25)
        retried = (task.id, name) in state.waits
        rows.append(
            {
                "kind": "step",
                "operation": name,
                "state": "rejected" if failed else "resolved",
                "value": None if failed else chance.value(),
                "error": chance.error() if failed else None,
                "headers": chance.headers(),
                "retried": retried or None,
            }
        )
    if chance.odds(0.3):
        rows.append(_fired(chance, task))
    if chance.odds(0.05):
        rows.append(
            {"kind": "patch", "operation": chance.pick(("x1:patch", "x2:patch")), "state": "resolved"}
        )
    waits = [w for w in state.waits_of(task.id) if w.kind not in {"timer", "retry"}]
    if waits and chance.odds(0.04):
        rows.append(
            {"kind": "step", "operation": chance.pick(waits).operation.lstrip("~"), "state": "resolved"}
        )
    rows = list({row["operation"]: row for row in rows}.values())
    recorded = any((task.id, row["operation"]) in state.checkpoints for row in rows)
    ahead = seen == task.last_seq and not recorded
    at = task.last_at or state.now
    for n, row in enumerate(rows):
        if chance.odds(0.3):
            at = chance.pick((at, at + 1, min(at + SECOND, state.now), state.now))
            row["at"] = at if chance.odds(0.93) else chance.pick((at - SECOND, state.now + 3600 * SECOND))
        row |= {
            "task": task.id,
            "cohort": chance.maybe(0.3, lambda: 1),
            "digest": chance.maybe(0.3, lambda: 7),
        }
        latest = task.last_seq + (n if ahead else 0)
        row.setdefault("issued", chance.pick((0, task.last_seq, min(seen, task.last_seq), latest)))
    return rows


def _fired(chance: Chance, task: Task) -> Given:
    """A timer whose instant has come: one that waits since a suspension, or one of this claim."""
    row: Given = {"kind": "timer", "state": "resolved"}
    waiting = [w for w in chance.state.waits_of(task.id) if w.kind == "timer"]
    if waiting and chance.odds(0.7):
        wait = chance.pick(waiting)
        return row | {"operation": wait.operation, "issued": wait.issued, "micros": wait.micros}
    return row | {"operation": chance.pick(TIMERS), "micros": chance.pick((0, 0, 1, SECOND // 2, SECOND))}


def _operations(chance: Chance, task: Task) -> list[Given]:
    rows = [_promise(chance, name) for name in chance.some(PROMISES, 2)]
    if chance.odds(0.35):
        rows += [_wait(chance, task, name) for name in chance.some(WAITS, 2)]
    if chance.odds(0.35):
        rows += [_child(chance, "call", name) for name in chance.some(CALLS, 4)]
    if chance.odds(0.12):
        rows += [_child(chance, "start", name) for name in chance.some(STARTS, 2)]
    chance.rng.shuffle(rows)
    for row in rows:
        row |= {
            "task": task.id,
            "issued": chance.pick((0, task.last_seq)),
            "cohort": chance.maybe(0.3, lambda: 2),
            "digest": chance.maybe(0.3, lambda: 9),
        }
    return rows


def _promise(chance: Chance, name: str) -> Given:
    timeout = chance.timeout()
    has_default = timeout is not None and chance.odds(0.4)
    return {
        "kind": "promise",
        "operation": name,
        "timeout": timeout,
        "has_default": has_default,
        "default": chance.value() if has_default else None,
        "default_headers": chance.headers() if has_default else None,
        "title": chance.maybe(0.2, lambda: "Please"),
        "tags": chance.tags(),
    }


def _wait(chance: Chance, task: Task, name: str) -> Given:
    """Somebody else's promise; seldom one that is not there, or the task's own."""
    known = [id for id in chance.state.promises if id != task.id]
    promise = chance.pick(known) if known else NOBODY
    if chance.odds(0.03):
        promise = chance.pick((NOBODY, task.id))
    return {"kind": "wait", "operation": name, "promise": promise}


def _child(chance: Chance, kind: str, name: str) -> Given:
    row: Given = {
        "kind": kind,
        "operation": name,
        "function": chance.pick(FUNCTIONS),
        "args": chance.args(),
        "args_headers": chance.headers(),
        "args_digest": chance.digest(),
        "queue": chance.maybe(0.1, lambda: "q"),
        "priority": chance.maybe(0.1, lambda: 1),
        "delay": chance.maybe(0.15, chance.span),
        "timeout": chance.timeout(),
        "title": chance.maybe(0.1, lambda: "a child"),
        "tags": chance.tags(),
    }
    if chance.odds(0.15):
        row["promise"] = chance.pick(ROOTS)
        there = chance.state.promises.get(row["promise"])
        if there is not None and there.function and chance.odds(0.6):
            row |= {"function": there.function, "args": there.args, "args_digest": there.args_digest}
    return row


def _timers(chance: Chance, task: Task) -> list[Given]:
    """What is open at a suspension: mostly all that waited before, and new ones."""
    rows: dict[str, Given] = {}
    for wait in chance.state.waits_of(task.id):
        if wait.kind in {"timer", "retry"} and chance.odds(0.8):
            rows[wait.operation] = {
                "kind": wait.kind,
                "operation": wait.operation,
                "micros": wait.micros or 0,
            }
            rows[wait.operation]["issued"] = wait.issued
    for name in chance.some(TIMERS, 1):
        rows.setdefault(name, {"operation": name, "micros": chance.span()})
    if chance.odds(0.2):
        name = chance.pick(steps_of(chance, task.id))
        rows.setdefault(name, {"kind": "retry", "operation": name, "micros": chance.span()})
    for row in rows.values():
        row |= {
            "task": task.id,
            "cohort": chance.maybe(0.3, lambda: 5),
            "digest": chance.maybe(0.3, lambda: 6),
        }
        row.setdefault("issued", chance.pick((0, task.last_seq)))
    return list(rows.values())


def _attempts(chance: Chance, task: Task) -> list[Given]:
    rows: list[Given] = []
    for name in chance.some(STEPS[:3], 2):
        row: dict[str, Any] = {"task": task.id, "operation": name, "number": chance.pick((1, 1, 2, 3))}
        row["ended"] = chance.pick((None, True))
        row["retry_in"] = chance.maybe(0.4, chance.span) if row["ended"] else None
        row["elapsed"] = chance.maybe(0.5, lambda: SECOND)
        row["error"] = chance.maybe(0.4, chance.error)
        row["details"] = chance.maybe(0.4, lambda: chance.pick(({"n": 1}, {"n": 2})))
        rows.append(row)
    return rows
