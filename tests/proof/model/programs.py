"""Random programs: honest calls, by weight, of every verb (`advance` has a file of its own, faults too)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.proof.model.chance import (
    FUNCTIONS,
    LATENT,
    QUEUES,
    ROOTS,
    Chance,
    Given,
    Step,
)
from tests.proof.model.faults import FAULTS
from tests.proof.model.rows import DAY, SECOND
from tests.proof.model.turning import advance, steps_of
from tests.proof.model.wishes import WISHES

TRIES_MAX: Final = 4
"""How many calls may go into bringing about one rare case."""
ANY_ISOLATION: Final = (
    "start",
    "start_many",
    "start_together",
    "start_each",
    "create_promise",
    "get",
    "search",
    "tree",
    "journal",
    "commit_step",
)
"""What may stand in a transaction of any isolation level."""


def next_step(chance: Chance, now: int) -> Step:
    """The call that comes next: every other one is a rare case, or brings about the one whose turn it is."""
    now = chance.clock(now)
    if chance.tries > 0 or chance.odds(0.5):
        step = _rare(chance, now)
        chance.tries += 1
        if step is None or not step.nearer or chance.tries == TRIES_MAX:
            chance.turn, chance.tries = chance.turn + 1, 0
        if step is not None:
            return step
    verb = _sensible(chance, chance.weighed(WEIGHTS))
    plain = verb in ANY_ISOLATION and chance.odds(0.06)
    return Step(verb, HONEST[verb](chance), now, not plain)


def _rare(chance: Chance, now: int) -> Step | None:
    """A fault or an answer that is rare otherwise, each in its turn."""
    number = chance.turn % (len(FAULTS) + len(WISHES))
    if number >= len(FAULTS):
        return WISHES[number - len(FAULTS)](chance, now)
    fault = FAULTS[number]
    given = fault.make(chance)
    if given is not None:
        return Step(fault.verb, given, now, fault.sqlstate != "25001")
    if fault.instead is None:
        return None
    verb = _sensible(chance, fault.instead)
    return Step(verb, HONEST[verb](chance), now, nearer=True)


def _sensible(chance: Chance, verb: str) -> str:
    """Where a verb would find nothing to do, mostly another one that brings about something."""
    if chance.odds(0.05):
        return verb
    states = {task.state for task in chance.state.tasks.values()}
    if verb in {"advance", "commit_step"} and "claimed" not in states:
        verb = "claim"
    if verb == "claim" and "ready" not in states:
        verb = "tick" if "suspended" in states and chance.odds(0.3) else "start"
    if verb == "resume" and "halted" not in states:
        verb = "halt"
    if verb in {"halt", "settle_step", "cancel", "fork"} and not states:
        verb = "start"
    return verb


def _start(chance: Chance) -> Given:
    given: Given = {
        "id": chance.pick(ROOTS),
        "function": chance.weighed({"f": 6, "g": 3, "h": 1}),
        "args": chance.args(),
        "queue": chance.maybe(0.15, lambda: chance.pick(QUEUES)),
        "delay": chance.maybe(0.15, chance.span),
        "timeout": chance.timeout(),
        "priority": chance.pick((0, 0, 0, 1, -1)),
        "tags": chance.tags(),
        "headers": chance.headers(),
        "digest": chance.digest(),
    }
    there = chance.state.promises.get(given["id"])
    if there is not None and there.function and chance.odds(0.6):
        given |= {"function": there.function, "args": there.args, "digest": there.args_digest}
    if chance.odds(0.15):
        given["on_conflict"] = "attach"
    return given


def _start_many(chance: Chance) -> Given:
    items = []
    for _ in range(chance.rng.randint(0, 4)):
        item = _start(chance)
        item.pop("on_conflict", None)
        if chance.odds(0.2):
            item |= chance.pick(
                ({"id": "a~b"}, {"function": "7"}, {"tags": {"t": 1}}, {"args": "x", "headers": None})
            )
        items.append(item)
    return {"items": items}


def _start_together(chance: Chance) -> Given:
    given = _start_many(chance)
    return given | {"shown": [item["id"] for item in given["items"] if chance.odds(0.5)]}


def _start_each(chance: Chance) -> Given:
    each = [_start(chance) for _ in range(chance.rng.randint(1, 3))]
    if chance.odds(0.1):
        each[-1]["id"] = "a~b"
    ids = [one["id"] for one in each]
    args = [one["args"] if one["function"] == each[0]["function"] else {} for one in each]
    common = {
        key: value for key, value in each[0].items() if key not in {"id", "args", "digest", "on_conflict"}
    }
    if chance.odds(0.1):
        common |= chance.pick(({"function": "7"}, {"tags": {"t": 1}}))
    return common | {"ids": ids, "args": args, "digests": [one["digest"] for one in each]}


def _create_promise(chance: Chance) -> Given:
    timeout = chance.timeout()
    has_default = timeout is not None and chance.odds(0.4)
    return {
        "id": chance.pick(LATENT),
        "timeout": timeout,
        "has_default": has_default,
        "default": chance.value(),
        "tags": chance.tags(),
        "title": chance.maybe(0.2, lambda: "May I?"),
        "headers": chance.headers(),
    }


def _decision(chance: Chance, payload: str) -> Given:
    id = chance.promise({"open": 45, "closed": 30, "running": 8, "settled": 4, "unknown": 8, "any": 5})
    given: Given = {"id": id, "headers": chance.headers(), "digest": chance.digest(), "actor": chance.actor()}
    given[payload] = chance.value() if payload == "value" else chance.error()
    there = chance.state.promises.get(id)
    if there is not None and there.state != "pending" and chance.odds(0.7):
        given |= {payload: getattr(there, payload), "headers": there.headers, "digest": there.value_digest}
    return given


def _cancel(chance: Chance) -> Given:
    id = chance.promise({"open": 20, "running": 55, "closed": 10, "settled": 12, "unknown": 8})
    begun = [t.id for t in chance.tasks(lambda t: t.epoch > 0)]
    if begun and chance.odds(0.35):
        id = chance.pick(begun)
    return {"id": id, "reason": chance.reason(), "actor": chance.actor()}


def _settle_many(chance: Chance) -> Given:
    items = []
    for _ in range(chance.rng.randint(0, 4)):
        verb = chance.pick(("resolve", "reject", "cancel"))
        payload = "value" if verb == "resolve" else "error"
        item = _cancel(chance) if verb == "cancel" else _decision(chance, payload)
        item.pop("actor")
        items.append(item | {"verb": verb})
    return {"items": items, "actor": chance.actor()}


def _get(chance: Chance) -> Given:
    return {"ids": [chance.any_id() for _ in range(chance.rng.randint(0, 5))]}


def _search(chance: Chance) -> Given:
    given: Given = {
        "state": chance.pick((None, "pending", "pending", "resolved", "canceled", "timedout", "rejected")),
        "queue": chance.maybe(0.2, lambda: chance.pick(QUEUES)),
        "function": chance.maybe(0.2, lambda: chance.pick(FUNCTIONS)),
        "prefix": chance.maybe(0.3, lambda: chance.pick(("a", "a~", "b", "", "f"))),
        "after": chance.maybe(0.3, chance.any_id),
        "tags": chance.maybe(0.3, lambda: chance.pick(({}, {"t": "1"}, {"u": "2"}))),
        "latent": chance.pick((None, None, True, False)),
        "limit": chance.pick((1, 2, 50)),
    }
    return given


def _tree(chance: Chance) -> Given:
    return {"id": chance.any_id(), "limit": chance.pick((1, 3, 5))}


def _journal(chance: Chance) -> Given:
    return {"id": chance.any_id(), "from_seq": chance.pick((1, 1, 2, 5)), "limit": chance.pick((1, 3, 1000))}


def _register(chance: Chance) -> Given:
    known = [(name, version) for name in FUNCTIONS for version in (1, 2)]
    return {
        "functions": [
            {"name": name, "version": version, "queue": chance.pick((None, *QUEUES))}
            for name, version in chance.some(known, 4)
        ]
    }


def _claim(chance: Chance) -> Given:
    lanes = chance.lanes()
    return {
        "worker": chance.worker(),
        "queues": ["default", "q"] if chance.odds(0.8) else [chance.pick(QUEUES)],
        "lanes": lanes,
        "pins": [lane if "@" in lane else f"{lane}@2" for lane in lanes] if chance.odds(0.1) else None,
        "limit": chance.pick((1, 3, 5, 10)),
        "alone": chance.odds(0.5),
        "sleeping": chance.odds(0.2),
        "lease": chance.pick((SECOND, 5 * SECOND, 60 * SECOND, 600 * SECOND, 600 * SECOND)),
        "info": chance.maybe(0.1, lambda: {"host": "here"}),
        "entries": chance.pick((1, 3, 1000)),
    }


def _commit_step(chance: Chance) -> Given:
    task = chance.task({"claimed": 90, "suspended": 3, "ready": 3, "unknown": 4})
    row = chance.state.task(task)
    epoch, last_seq = (row.epoch, row.last_seq) if row else (1, 0)
    return {
        "task": task,
        "epoch": epoch if chance.odds(0.95) else epoch - 1,
        "operation": chance.pick(steps_of(chance, task)),
        "issued": chance.rng.randint(0, last_seq),
        "cohort": chance.maybe(0.2, lambda: 3),
        "digest": chance.maybe(0.2, lambda: 4),
        "value": chance.value(),
        "headers": chance.headers(),
    }


def _heartbeat(chance: Chance) -> Given:
    worker = chance.worker()
    held = [(t.id, t.epoch) for t in chance.tasks(lambda t: t.worker == worker) if chance.odds(0.8)]
    if chance.odds(0.15):
        held.append((chance.any_id(), chance.rng.randint(1, 3)))
    held = list(dict(held).items())
    return {
        "worker": worker,
        "tasks": [task for task, _ in held],
        "epochs": [epoch for _, epoch in held],
        "under_way": chance.pick((0, SECOND, SECOND, 5 * SECOND)),
    }


def _leave(chance: Chance) -> Given:
    return {"worker": chance.worker()}


def _tick(chance: Chance) -> Given:
    return {"limit": chance.pick((1, 2, 3, 10, 10, 12))}


def _halt(chance: Chance) -> Given:
    id = chance.task(
        {
            "claimed": 20,
            "ready": 15,
            "suspended": 15,
            "halted": 15,
            "settled": 12,
            "latent": 10,
            "unknown": 10,
        }
    )
    return {"id": id, "reason": chance.reason(), "actor": chance.actor()}


def _resume(chance: Chance) -> Given:
    id = chance.task(
        {"halted": 50, "claimed": 8, "ready": 4, "suspended": 4, "settled": 12, "latent": 12, "unknown": 10}
    )
    return {"id": id, "actor": chance.actor()}


def _cancel_force(chance: Chance) -> Given:
    id = chance.promise({"open": 15, "running": 30, "closed": 20, "settled": 20, "unknown": 12})
    return {"id": id, "reason": chance.reason(), "actor": chance.actor()}


def _fork(chance: Chance) -> Given:
    id = chance.promise({"running": 50, "settled": 40, "any": 10})
    forks = [a for a in chance.state.audits.values() if a.verb == "fork"]
    if forks and chance.odds(0.35):  # the same once more
        last = chance.pick(forks)
        return {
            "id": last.detail["from"],
            "new_id": last.promise,
            "before": last.detail["before"],
            "version": last.detail["version"],
            "reason": "again",
        }
    journal = chance.state.journal(id)
    return {
        "id": id,
        "new_id": chance.pick(ROOTS),
        "before": chance.pick(journal).operation if journal and chance.odds(0.5) else None,
        "reason": chance.reason(),
        "actor": chance.actor(),
        "version": chance.maybe(0.15, lambda: chance.pick((1, 2))),
    }


def _settle_step(chance: Chance) -> Given:
    id = chance.task({"claimed": 30, "suspended": 25, "halted": 20, "settled": 9, "latent": 8, "unknown": 8})
    given: Given = {
        "id": id,
        "operation": chance.pick(steps_of(chance, id)),
        "headers": chance.headers(),
        "reason": chance.reason(),
        "actor": chance.actor(),
    }
    given["error" if chance.odds(0.3) else "value"] = chance.error() if chance.odds(0.3) else chance.value()
    waits, by_hand = chance.state.waits_of(id), [c for c in chance.state.journal(id) if c.issued is None]
    if waits and chance.odds(0.2):
        given["operation"] = chance.pick(waits).operation.lstrip("~")
    elif by_hand and chance.odds(0.5):
        event = chance.pick(by_hand)
        given |= {
            "operation": event.operation,
            "value": event.value,
            "error": event.error,
            "headers": event.headers,
        }
    return given


def _purge(chance: Chance) -> Given:
    return {"before": chance.pick((0, SECOND, 60 * SECOND, DAY)), "limit": 12}


HONEST: Final[dict[str, Callable[[Chance], Given]]] = {
    "start": _start,
    "start_many": _start_many,
    "start_together": _start_together,
    "start_each": _start_each,
    "create_promise": _create_promise,
    "resolve": lambda chance: _decision(chance, "value"),
    "reject": lambda chance: _decision(chance, "error"),
    "cancel": _cancel,
    "settle_many": _settle_many,
    "get": _get,
    "search": _search,
    "tree": _tree,
    "journal": _journal,
    "register": _register,
    "claim": _claim,
    "advance": advance,
    "commit_step": _commit_step,
    "heartbeat": _heartbeat,
    "leave": _leave,
    "tick": _tick,
    "halt": _halt,
    "resume": _resume,
    "cancel_force": _cancel_force,
    "fork": _fork,
    "settle_step": _settle_step,
    "purge": _purge,
}
WEIGHTS: Final[dict[str, float]] = {
    "start": 6, "start_many": 4, "start_together": 4, "start_each": 4, "create_promise": 5, "resolve": 6, "reject": 4,
    "cancel": 5, "settle_many": 4, "get": 2, "search": 2, "tree": 1, "journal": 1, "register": 2, "claim": 14, "advance": 36,
    "commit_step": 4, "heartbeat": 5, "leave": 1, "tick": 8, "halt": 4, "resume": 5, "cancel_force": 2, "fork": 5,
    "settle_step": 6, "purge": 1,
}  # fmt: skip
