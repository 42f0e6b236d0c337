"""Answers that chance alone comes to too seldom: for each of them, the call that gets it from what is there, or else one that
brings it nearer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tests.proof.model.chance import LATENT, NOBODY, ROOTS, WORKERS, Chance, Given, Step
from tests.proof.model.rows import SECOND, Json, Promise, Task

Wish = Callable[[Chance, int], Step | None]
ALL_LANES: Final = ["f", "f@1", "f@2", "g", "g@1", "g@2", "h", "h@1", "h@2"]


def _first(chance: Chance, items: list[Any]) -> Any:
    return chance.pick(items) if items else None


def _held(chance: Chance, which: Callable[[Task], object] = lambda _: True) -> Task | None:
    found: Task | None = _first(chance, chance.tasks(lambda t: t.state == "claimed" and which(t)))
    return found


def _claim(chance: Chance, now: int) -> Step:
    """Somebody takes what is there to be taken, or something is started."""
    if not chance.tasks(lambda t: t.state == "ready"):
        free = [id for id in ROOTS if id not in chance.state.promises]
        return (
            Step("start", {"id": free[0], "function": "f"}, now, nearer=True) if free else _away(chance, now)
        )
    if chance.tasks(lambda t: t.state == "ready" and t.timeout_at is not None and t.timeout_at <= now):
        return Step("tick", {"limit": 12}, now, nearer=True)
    fresh = [w for w in WORKERS if w not in chance.state.workers or chance.state.workers[w].died_at is None]
    given = {
        "worker": chance.pick(fresh or WORKERS),
        "queues": ["default", "q"],
        "lanes": ALL_LANES,
        "limit": 2,
        "alone": True,
    }
    return Step("claim", given | {"lease": chance.pick((5 * SECOND, 600 * SECOND))}, now, nearer=True)


def _away(chance: Chance, now: int) -> Step:
    """Something goes on, or ends, so that there is room."""
    halted = _first(chance, chance.tasks(lambda t: t.state == "halted"))
    if halted and chance.odds(0.7):
        return Step("resume", {"id": halted.id}, now, nearer=True)
    root = chance.pick(ROOTS)
    pending = chance.state.promises[root].state == "pending"
    return (
        Step("cancel_force", {"id": root}, now) if pending else Step("purge", {"before": 0, "limit": 12}, now)
    )


def _turn(task: Task, now: int, **parts: Any) -> Step:
    turn = {"task": task.id, "epoch": task.epoch, "seen": task.last_seq, "then": None}
    return Step("advance", {"turns": [turn]} | parts, now)


def _nearer(task: Task, now: int, **parts: Any) -> Step:
    step = _turn(task, now, **parts)
    step.nearer = True
    return step


def _answered(verb: str, given: Given) -> Wish:
    return lambda _, now: Step(verb, given, now)


def _of(
    verb: str, which: Callable[[Promise], object], more: Callable[[Promise], Given] = lambda _: {}
) -> Wish:
    """The verb on a promise like this one, if there is one."""

    def make(chance: Chance, now: int) -> Step | None:
        found = _first(chance, [p for p in chance.state.promises.values() if which(p)])
        return Step(verb, {"id": found.id} | more(found), now) if found else _towards(chance, now)

    return make


def _towards(chance: Chance, now: int) -> Step:
    """Some of everything: a latent promise, then a workflow, and each settled."""
    free = [id for id in (*ROOTS[:2], *LATENT[:2]) if id not in chance.state.promises]
    if free and free[0] in ROOTS:
        return Step("start", {"id": free[0], "function": "f"}, now, nearer=True)
    if free:
        return Step("create_promise", {"id": free[0]}, now, nearer=True)
    verb = chance.pick(("cancel_force", "resolve", "reject"))
    return Step(
        verb,
        {"id": chance.pick(LATENT[:2] if verb in {"resolve", "reject"} else ROOTS[:2])},
        now,
        nearer=True,
    )


def _in(verb: str, which: Callable[[Task], object]) -> Wish:
    """The verb on a workflow whose task is like this one, if there is one."""

    def make(chance: Chance, now: int) -> Step | None:
        found = _first(chance, chance.tasks(which))
        if found is not None:
            return Step(verb, {"id": found.id}, now)
        running = _first(chance, chance.tasks())
        return Step("halt", {"id": running.id}, now, nearer=True) if running else _towards(chance, now)

    return make


def _same_again(verb: str, state: str, payload: str) -> Wish:
    def make(chance: Chance, now: int) -> Step | None:
        found = [p for p in _latent(chance) if p.state == state and p.settler != "timeout"]
        if found:
            there = chance.pick(found)
            given: Given = {"id": there.id, payload: getattr(there, payload), "headers": there.headers}
            if chance.odds(0.3):
                items = [given | {"verb": verb}]
                return Step("settle_many", {"items": items * chance.pick((1, 2, 3))}, now)
            return Step(verb, given, now)
        return _settle_one(chance, now, verb, {payload: chance.error()})

    return make


def _latent(chance: Chance) -> list[Promise]:
    return [p for p in chance.state.promises.values() if p.function is None]


def _settle_one(chance: Chance, now: int, verb: str, more: Given) -> Step:
    open_ = [p for p in _latent(chance) if p.state == "pending"]
    if open_:
        return Step(verb, {"id": chance.pick(open_).id} | more, now, nearer=True)
    return Step("create_promise", {"id": chance.pick(LATENT)}, now, nearer=True)


def _busy(chance: Chance, now: int) -> Step:
    """A timer that is told before its instant."""
    task = _held(chance)
    if task is None:
        return _claim(chance, now)
    timer = {"task": task.id, "kind": "timer", "operation": "t9", "issued": 0, "state": "resolved"}
    return _turn(task, now, outcomes=[timer | {"micros": 400 * 86_400 * SECOND}])


def _news(chance: Chance, now: int) -> Step | None:
    """A heartbeat of who holds a task that was told something."""
    told = _held(chance, lambda t: t.news)
    if told:
        given: Given = {"worker": told.worker, "tasks": [told.id], "epochs": [told.epoch]}
        return Step("heartbeat", given, now)
    task = _held(chance)
    if task is None:
        return _claim(chance, now)
    given = {"id": task.id, "operation": f"n{len(chance.state.checkpoints)}", "value": 1}
    return Step("settle_step", given, now, nearer=True)


def _alone(chance: Chance, now: int) -> Step | None:
    """A task whose holder died, ready again, and a live worker that could take it."""
    state = chance.state
    guilty = chance.tasks(lambda t: t.state == "ready" and t.lane.endswith("!"))
    for task in guilty:
        for worker in state.workers.values():
            if worker.died_at is None and task.queue in worker.queues and task.lane[:-1] in worker.lanes:
                return Step("heartbeat", {"worker": worker.id, "tasks": [], "epochs": []}, now)
    if guilty:
        fresh = [w for w in WORKERS if w not in state.workers]
        queues, lanes = [guilty[0].queue], [guilty[0].lane[:-1]]
        given: Given = {"worker": chance.pick(fresh or WORKERS), "queues": queues, "lanes": lanes, "limit": 1}
        return Step("claim", given, now, nearer=True)
    holders = {t.worker for t in chance.tasks(lambda t: t.state == "claimed")}
    silent = [w for w in state.workers.values() if w.id in holders and w.died_at is None]
    if not silent:
        return _claim(chance, now)
    dies_at = min(worker.seen_at + worker.lease for worker in silent) + 1
    return Step("tick", {"limit": 12}, max(now, dies_at), nearer=True)


def _full(verb: str) -> Wish:
    """A journal at its limit."""

    def make(chance: Chance, now: int) -> Step:
        limit = chance.state.limits.journal_entries
        task = _held(chance, lambda t: t.last_seq >= limit)
        if task is not None:
            given: Given = {
                "id": task.id,
                "task": task.id,
                "epoch": task.epoch,
                "operation": "never",
                "issued": 0,
            }
            return Step(verb, given, now)
        task = _held(chance, lambda t: t.attempts >= 0)
        if task is None:
            return _claim(chance, now)
        names = [
            name for name in (f"g{n}" for n in range(40)) if (task.id, name) not in chance.state.checkpoints
        ]
        step = {"task": task.id, "kind": "step", "issued": 0, "state": "resolved"}
        return _nearer(
            task, now, outcomes=[step | {"operation": name} for name in names[: limit - task.last_seq]]
        )

    return make


def _waiting(make: Callable[[Task, str], Given], verb: str, states: str) -> Wish:
    """A task that waits for something under a name."""

    def wish(chance: Chance, now: int) -> Step:
        kinds = {"promise", "call", "wait"}
        tasks = chance.state.tasks
        waits = [
            w
            for w in chance.state.waits.values()
            if w.kind in kinds and tasks[w.task].state in states.split()
        ]
        if waits:
            wait = chance.pick(waits)
            return Step(verb, make(tasks[wait.task], wait.operation), now)
        task = _held(chance)
        if task is None:
            return _claim(chance, now)
        promise = {"task": task.id, "kind": "promise", "operation": "p9", "issued": 0}
        return _nearer(task, now, operations=[promise])

    return wish


def _by_hand(*, again: bool) -> Wish:
    def make(chance: Chance, now: int) -> Step | None:
        alive = [c for c in chance.state.checkpoints.values() if c.task in chance.state.tasks]
        events = [c for c in alive if c.issued is None] if again else alive
        if events:
            event = chance.pick(events)
            given: Given = {"id": event.task, "operation": event.operation.lstrip("~"), "value": "another"}
            if again:
                given |= {"value": event.value, "error": event.error, "headers": event.headers}
            return Step("settle_step", given, now)
        begun = _first(chance, chance.tasks(lambda t: t.epoch > 0))
        if begun is None:
            return _claim(chance, now)
        return Step("settle_step", {"id": begun.id, "operation": "s7", "value": 7}, now, nearer=True)

    return make


def _recorded(chance: Chance, now: int) -> Step:
    tasks = chance.state.tasks
    events = [
        c for c in chance.state.checkpoints.values() if c.task in tasks and tasks[c.task].state == "claimed"
    ]
    events = [c for c in events if not c.operation.startswith("~")]
    if events:
        event = chance.pick(events)
        given = {
            "task": event.task,
            "epoch": tasks[event.task].epoch,
            "operation": event.operation,
            "issued": 0,
        }
        return Step("commit_step", given, now)
    task = _held(chance)
    if task is None:
        return _claim(chance, now)
    given = {"task": task.id, "epoch": task.epoch, "operation": "s6", "issued": 0, "value": 6}
    return Step("commit_step", given, now, nearer=True)


def _forked_again(chance: Chance, now: int) -> Step | None:
    for audit in reversed(list(chance.state.audits.values())):
        there = chance.state.promises.get(audit.promise or "")
        if audit.verb == "fork" and there is not None and there.created_at == audit.at:
            given = {"id": audit.detail["from"], "new_id": there.id}
            return Step("fork", given | {key: audit.detail[key] for key in ("before", "version")}, now)
    begun = chance.promises(lambda p: p.function is not None)
    free = [id for id in ROOTS if id not in chance.state.promises]
    if not begun or not free:
        return _claim(chance, now)
    return Step("fork", {"id": chance.pick(begun), "new_id": free[0]}, now, nearer=True)


def _holder_leaves(chance: Chance, now: int) -> Step:
    task = _held(chance)
    return Step("leave", {"worker": task.worker}, now) if task else _claim(chance, now)


def _closed(chance: Chance, now: int) -> Step:
    """A cancel that is owed to a child, and a tick that carries it out."""
    if chance.state.closings:
        return Step("tick", {"limit": 12}, now)
    parents = [p.parent for p in chance.state.promises.values() if p.state == "pending" and p.parent]
    if parents:
        return Step("cancel_force", {"id": chance.pick(parents)}, now, nearer=True)
    task = _held(chance)
    if task is None:
        return _claim(chance, now)
    child = {"task": task.id, "kind": "call", "operation": "c1", "issued": 0, "function": "f"}
    return _nearer(task, now, operations=[child])


def _journal(chance: Chance, now: int) -> Step:
    tasks = [task for task, _ in chance.state.checkpoints]
    return Step("journal", {"id": chance.pick(tasks)}, now) if tasks else _claim(chance, now)


def _lost(chance: Chance, now: int) -> Step:
    worker = chance.worker()
    return Step("heartbeat", {"worker": worker, "tasks": [chance.any_id()], "epochs": [77]}, now)


def _more(given: Given) -> Callable[[Promise], Given]:
    return lambda _: given


def _other(payload: str, value: Json) -> Callable[[Promise], Given]:
    return _more({payload: value})


def _is(state: str, *, latent: bool | None = None) -> Callable[[Promise], object]:
    return lambda p: p.state == state and latent in {None, p.function is None}


def _ended(p: Promise) -> object:
    return p.state not in {"pending", "canceled"}


def _settled_workflow(p: Promise) -> object:
    return p.function is not None and p.state != "pending"


_commit_a_wait = _waiting(
    lambda task, name: {"task": task.id, "epoch": task.epoch, "operation": name, "issued": 0},
    "commit_step",
    "claimed",
)
_settle_a_wait = _waiting(
    lambda task, name: {"id": task.id, "operation": name, "value": 1},
    "settle_step",
    "claimed suspended ready halted",
)
WISHES: Final[tuple[Wish, ...]] = (
    _alone,
    _alone,
    _news,
    _news,
    _recorded,
    _commit_a_wait,
    _settle_a_wait,
    _full("commit_step"),
    _full("commit_step"),
    _recorded,
    _full("settle_step"),
    _same_again("reject", "rejected", "error"),
    _same_again("reject", "rejected", "error"),
    _same_again("resolve", "resolved", "value"),
    _same_again("resolve", "resolved", "value"),
    _forked_again,
    _by_hand(again=True),
    _of("cancel", _is("canceled")),
    _of("cancel", _is("canceled")),
    _of("cancel_force", _is("canceled")),
    _of("settle_step", lambda p: p.function is None, _more({"operation": "s1"})),
    _busy,
    _lost,
    _closed,
    _holder_leaves,
    _journal,
    _journal,
    _by_hand(again=False),
    _of("create_promise", lambda p: p.function is None),
    _of("cancel", _ended),
    _of("cancel_force", _ended),
    _of("resolve", lambda p: p.function is None and p.state != "pending", _other("value", "another")),
    _of("reject", lambda p: p.function is None and p.state != "pending", _other("error", {"type": "another"})),
    _of("reject", _is("pending", latent=True), _other("error", {"type": "E"})),
    _of("resume", lambda p: p.function is None),
    _of("resume", _settled_workflow),
    _in("resume", lambda t: t.state != "halted"),
    _in("halt", lambda t: t.state == "halted"),
    _in("halt", lambda t: t.state == "halted"),
    _of("halt", _settled_workflow),
    _of("settle_step", _settled_workflow, _more({"operation": "s1"})),
    _of("tree", lambda p: "~" not in p.id, _more({"limit": 5})),
    _answered("search", {}),
    _answered("get", {"ids": ["a", "b", "m", "n"]}),
    _answered("purge", {"before": 0, "limit": 12}),
    _answered("purge", {"before": 0, "limit": 12}),
    _answered("tree", {"id": NOBODY, "limit": 1}),
    *(_answered(verb, {"id": NOBODY}) for verb in ("cancel", "cancel_force", "resolve", "reject", "resume", "halt")),
)  # fmt: skip
