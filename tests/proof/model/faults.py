"""Calls that must be refused: for every verb each SQLSTATE that sql/README.md names for it, by one fault in a call that is good
otherwise. Some need something to be there; where it is not, `instead` says which honest verb brings it nearer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tests.proof.model.chance import NOBODY, Chance, Given
from tests.proof.model.rows import DAY, SECOND, Json

Make = Callable[[Chance], Given | None]


@dataclass(frozen=True)
class Fault:
    verb: str
    sqlstate: str
    make: Make
    instead: str | None = None


LARGE: Final = "x" * 2_100
LONG: Final = "y" * 1_001


def _deep() -> Json:
    value: Json = 1
    for n in range(101):
        value = [value] if n % 2 else {"k": value}
    return value


DEEP: Final = _deep()
BAD_IDS: Final = ("", ".", "..", "a/b", "a b", "é", "x" * 256, "a\n")
BAD_NAMES: Final = (None, "", "12", "a~b", "n" * 101, "a:b")
BAD_TAGS: Final[tuple[Json, ...]] = (
    [],
    "t",
    {"t": 1},
    {"t": "v" * 201},
    {"k" * 201: "v"},
    {f"t{n}": "" for n in range(33)},
)
BAD_SPANS: Final = (-1, -SECOND, 36_501 * DAY)
MANY: Final = [{"id": f"m{n}"} for n in range(13)]


def _with(base: Given, *faults: Given) -> Make:
    return lambda chance: base | chance.pick(faults)


def _each(name: str, values: Any) -> list[Given]:
    return [{name: value} for value in values]


_START = {"id": "z", "function": "f", "args": {}}
_EACH = {"function": "f", "ids": ["z", "y"], "args": [{}, {}], "digests": [None, None]}
_BAD_STARTS = [
    *_each("function", BAD_NAMES),
    *_each("queue", BAD_NAMES[1:]),
    *_each("args", (1, "x", True)),
    *_each("priority", (-32_769, 32_768)),
    *_each("delay", BAD_SPANS),
    *_each("timeout", BAD_SPANS),
    *_each("tags", BAD_TAGS),
]
_STARTS = [
    Fault("start", "TR001", _with(_START, *_each("id", (*BAD_IDS, "a~b", "x" * 129)))),
    Fault("start", "TR002", _with(_START, *_BAD_STARTS, {"on_conflict": "ignore"})),
    Fault("start", "TR003", _with(_START, {"args": [LARGE]}, {"headers": {"h": LARGE}})),
    Fault("start", "TR004", _with(_START, {"args": DEEP}, {"headers": DEEP})),
    Fault("start", "TR010", lambda chance: _taken(chance, "start"), "start"),
    Fault("start_many", "TR002", lambda chance: {"items": chance.pick((None, {}, 1, [1], [_START, []]))}),
    Fault("start_many", "TR030", lambda _: {"items": MANY}),
    Fault("start_together", "TR002", lambda chance: {"items": chance.pick((None, {}, 1)), "shown": []}),
    Fault("start_together", "TR030", lambda _: {"items": MANY, "shown": []}),
    Fault("start_each", "TR002", lambda chance: _EACH | {"args": chance.pick((None, {}, [], [{}]))}),
    Fault(
        "start_each",
        "TR030",
        lambda _: _EACH | {key: [None] * len(MANY) for key in ("ids", "args", "digests")},
    ),
]
_PROMISE = {"id": "z"}
_PROMISES = [
    Fault("create_promise", "TR001", _with(_PROMISE, *_each("id", BAD_IDS))),
    Fault(
        "create_promise",
        "TR002",
        _with(
            _PROMISE,
            *_each("timeout", BAD_SPANS),
            *_each("tags", BAD_TAGS),
            {"has_default": True, "default": 1},
        ),
    ),
    Fault(
        "create_promise",
        "TR003",
        _with(_PROMISE, {"default": LARGE}, {"headers": [LARGE]}, {"title": "t" * 201}),
    ),
    Fault("create_promise", "TR004", _with(_PROMISE, {"default": DEEP}, {"headers": DEEP})),
    Fault("create_promise", "TR010", lambda chance: _taken(chance, "create_promise"), "start"),
]


def _taken(chance: Chance, verb: str) -> Given | None:
    """An ID that is something else's."""
    workflows = chance.promises(lambda p: p.function is not None)
    if verb == "create_promise":
        return {"id": chance.pick(workflows)} if workflows else None
    latent = chance.promises(lambda p: p.function is None and "~" not in p.id)
    if latent and chance.odds(0.3):
        return {"id": chance.pick(latent), "function": "f", "on_conflict": chance.pick(("error", "attach"))}
    roots = [id for id in workflows if "~" not in id]
    return {"id": chance.pick(roots), "function": "f", "args": {"other": 1}} if roots else None


def _settling(verb: str, payload: str) -> list[Fault]:
    def base(chance: Chance, *faults: Given) -> Given:
        return {"id": chance.promise({"open": 8, "any": 1, "unknown": 1})} | chance.pick(faults)

    engine = _each("actor", ("timeout", "worker", "workflow"))
    large: list[Given] = [{payload: LARGE}, {"headers": [LARGE]}, {"actor": LONG}]
    return [
        Fault(verb, "TR002", lambda chance: base(chance, *engine)),
        Fault(verb, "TR003", lambda chance: base(chance, *large)),
        Fault(verb, "TR004", lambda chance: base(chance, {payload: DEEP}, {"headers": DEEP})),
        Fault(verb, "25001", lambda chance: base(chance, {payload: 1})),
    ]


def _many(chance: Chance, *faults: Given) -> Given:
    good = {"id": chance.any_id(), "verb": "resolve", "value": 1}
    return {"items": [good, good | chance.pick(faults)]}


_SETTLES = [
    *_settling("resolve", "value"),
    *_settling("reject", "error"),
    Fault(
        "settle_many",
        "TR002",
        lambda chance: chance.pick(
            (_many(chance, {"verb": "start"}, {"verb": None}), {"items": None}, {"items": [7]}, {"items": {}})
        ),
    ),
    Fault(
        "settle_many",
        "TR003",
        lambda chance: _many(chance, {"value": LARGE}, {"reason": LONG}, {"headers": LARGE}),
    ),
    Fault("settle_many", "TR004", lambda chance: _many(chance, {"value": DEEP}, {"headers": DEEP})),
    Fault("settle_many", "TR030", lambda _: {"items": MANY}),
    Fault("settle_many", "25001", lambda chance: _many(chance, {})),
]


def _operating(verb: str, *, reason: bool) -> list[Fault]:
    long = [{"actor": LONG}, {"reason": LONG}] if reason else [{"actor": LONG}]
    engine = _each("actor", ("timeout", "worker", "workflow"))
    return [
        Fault(verb, "TR002", lambda chance: {"id": chance.any_id()} | chance.pick(engine)),
        Fault(verb, "TR003", lambda chance: {"id": chance.any_id()} | chance.pick(long)),
        Fault(verb, "25001", lambda chance: {"id": chance.any_id()}),
    ]


def _fork(chance: Chance, *faults: Given) -> Given:
    workflows = chance.promises(lambda p: p.function is not None)
    return {"id": chance.pick(workflows) if workflows else chance.any_id(), "new_id": "z"} | chance.pick(
        faults
    )


def _fork_over(chance: Chance) -> Given | None:
    there = chance.promises(lambda p: "~" not in p.id and p.function is not None)
    return {"id": chance.any_id(), "new_id": chance.pick(there), "before": "never"} if there else None


def _unforkable(chance: Chance) -> Given | None:
    asked = [task for task, operation in chance.state.checkpoints if operation == "~cancel"]
    latent = chance.promises(lambda p: p.function is None)
    if asked and chance.odds(0.5):
        return {"id": chance.pick(asked), "new_id": "z"}
    return {"id": chance.pick(latent), "new_id": "z"} if latent else None


_OPERATORS = [
    *_operating("cancel", reason=True),
    *_operating("cancel_force", reason=True),
    *_operating("halt", reason=True),
    *_operating("resume", reason=False),
    Fault("fork", "TR001", lambda chance: _fork(chance, *_each("new_id", (*BAD_IDS, "a~b", "x" * 129)))),
    Fault(
        "fork",
        "TR002",
        lambda chance: _fork(
            chance, {"version": 0}, {"before": "never"}, {"actor": "worker"}, {"version": -1}
        ),
        "start",
    ),
    Fault("fork", "TR003", lambda chance: _fork(chance, {"reason": LONG}, {"actor": LONG})),
    Fault("fork", "TR010", _fork_over, "start"),
    Fault("fork", "TR011", lambda _: {"id": NOBODY, "new_id": "z"}),
    Fault("fork", "TR012", _unforkable, "create_promise"),
    Fault("fork", "25001", lambda chance: _fork(chance, {})),
    Fault(
        "purge",
        "TR002",
        _with({"before": 0, "limit": 12}, {"before": -1}, {"before": None}, *_each("limit", (0, 13, None))),
    ),
    Fault("purge", "25001", lambda _: {"before": 0, "limit": 12}),
]


def _by_hand(chance: Chance, *faults: Given) -> Given:
    return {"id": chance.any_id(), "operation": "s1", "value": 1} | chance.pick(faults)


def _on_task(chance: Chance, which: Callable[[Any], object], more: Given) -> Given | None:
    found = chance.tasks(which)
    return {"id": chance.pick(found).id, "operation": "never"} | more if found else None


_STEPS = [
    Fault(
        "settle_step",
        "TR002",
        lambda chance: _by_hand(
            chance,
            *_each("operation", (None, "", "~s", "a b", "x" * 256)),
            {"error": {"type": "E"}},
            {"actor": "timeout"},
        ),
    ),
    Fault(
        "settle_step",
        "TR003",
        lambda chance: _by_hand(chance, {"value": LARGE}, {"headers": LARGE}, {"reason": LONG}),
    ),
    Fault("settle_step", "TR004", lambda chance: _by_hand(chance, {"value": DEEP}, {"headers": DEEP})),
    Fault(
        "settle_step", "TR012", lambda chance: _on_task(chance, lambda t: t.epoch == 0, {"value": 1}), "start"
    ),
    Fault(
        "settle_step",
        "TR030",
        lambda chance: _on_task(chance, lambda t: t.last_seq >= _most(chance), {}),
        "settle_step",
    ),
    Fault("settle_step", "25001", lambda chance: _by_hand(chance, {})),
]


def _most(chance: Chance) -> int:
    return chance.state.limits.journal_entries


def _commit(
    chance: Chance, *faults: Given, instead: Callable[[Any], object] = lambda _: True
) -> Given | None:
    held = chance.tasks(lambda t: t.state == "claimed" and instead(t))
    if not held:
        return None
    task = chance.pick(held)
    good = {"task": task.id, "epoch": task.epoch, "operation": "never", "issued": 0, "value": 1}
    return good | chance.pick(faults)


def _commit_a_wait(chance: Chance) -> Given | None:
    waits = [
        w
        for w in chance.state.waits.values()
        if w.kind not in {"retry", "delay"} and chance.state.tasks[w.task].state == "claimed"
    ]
    if not waits:
        return None
    wait = chance.pick(waits)
    return {
        "task": wait.task,
        "epoch": chance.state.tasks[wait.task].epoch,
        "operation": wait.operation,
        "issued": 0,
    }


_COMMITS = [
    Fault(
        "commit_step",
        "TR002",
        lambda chance: _commit(
            chance, *_each("operation", (None, "", "~s")), *_each("issued", (None, -1, 1_000))
        ),
        "claim",
    ),
    Fault(
        "commit_step", "TR003", lambda chance: _commit(chance, {"value": LARGE}, {"headers": LARGE}), "claim"
    ),
    Fault(
        "commit_step", "TR004", lambda chance: _commit(chance, {"value": DEEP}, {"headers": DEEP}), "claim"
    ),
    Fault("commit_step", "TR012", _commit_a_wait, "advance"),
    Fault(
        "commit_step",
        "TR030",
        lambda chance: _commit(chance, {}, instead=lambda t: t.last_seq >= _most(chance)),
        "commit_step",
    ),
]

_FUNCTION = {"name": "f", "version": 1}
_CLAIM = {"worker": "w9", "queues": ["default"], "lanes": ["f"], "limit": 1}
_HEARTBEAT = {"worker": "w9", "tasks": [], "epochs": []}


def _of_the_dead(chance: Chance, base: Given) -> Given | None:
    worker = chance.dead_worker()
    return base | {"worker": worker} if worker else None


_WORKERS = [
    Fault(
        "register",
        "TR002",
        lambda chance: {
            "functions": chance.pick(
                (
                    None,
                    {},
                    [1],
                    [{"name": "f"}],
                    [_FUNCTION | {"version": 0}],
                    [_FUNCTION | {"queue": "7"}],
                    [{"version": 1}],
                )
            )
        },
    ),
    Fault("register", "TR030", lambda _: {"functions": [_FUNCTION] * 13}),
    Fault("register", "25001", lambda _: {"functions": [_FUNCTION]}),
    Fault(
        "claim",
        "TR002",
        _with(
            _CLAIM,
            *_each("worker", (None, "", "a b", "w" * 64)),
            *_each("limit", (0, 13, None)),
            *_each("lease", (0, DAY + 1)),
            {"queues": None},
            {"lanes": None},
            {"pins": ["f@1", "g@1"]},
        ),
    ),
    Fault("claim", "TR020", lambda chance: _of_the_dead(chance, _CLAIM), "leave"),
    Fault("claim", "25001", lambda _: _CLAIM),
    Fault("heartbeat", "TR002", _with(_HEARTBEAT, {"tasks": None}, {"epochs": None}, {"tasks": ["a"]})),
    Fault("heartbeat", "TR020", lambda chance: _of_the_dead(chance, _HEARTBEAT), "leave"),
    Fault("heartbeat", "25001", lambda _: _HEARTBEAT),
    Fault("leave", "25001", lambda chance: {"worker": chance.worker()}),
    Fault("tick", "TR002", lambda chance: {"limit": chance.pick((None, 0, 13))}),
    Fault("tick", "25001", lambda _: {"limit": 5}),
    *(
        Fault(verb, "TR002", _with(base, *_each("limit", faults)))
        for verb, base, faults in (
            ("tree", {"id": "a"}, (None, 0, 6)),
            ("journal", {"id": "a"}, (None, 0, 1_001)),
            ("search", {}, (None, 0, 1_001)),
        )
    ),
    Fault("search", "TR002", _with({}, {"state": "open"}, {"tags": []})),
]


def _call(chance: Chance, part: str, *rows: Given) -> Given:
    """One turn of a task that is held, if any is, and one odd row beside it."""
    held = chance.tasks(lambda t: t.state == "claimed")
    turn: Given = {"task": "z", "epoch": 1, "seen": 0, "then": None}
    if held:
        task = chance.pick(held)
        turn |= {"task": task.id, "epoch": task.epoch, "seen": task.last_seq}
    row = chance.pick(rows)
    if part == "turns":
        return {"turns": [turn | row]}
    return {"turns": [turn], part: [{"task": turn["task"]} | row]}


_STEP = {"kind": "step", "operation": "s", "issued": 0, "state": "resolved"}
_PROMISED = {"kind": "promise", "operation": "p", "issued": 0}
_CHILD = {"kind": "call", "operation": "c", "issued": 0, "function": "f"}
_TIMER = {"operation": "t", "issued": 0, "micros": 1}
_NOTE = {"operation": "s", "number": 1}
ENDS: Final[list[Given]] = [
    {"state": "resolved", "error": 1},
    {"state": "rejected"},
    {"state": "timedout"},
]
_ODD_PROMISES: Final[list[Given]] = [{"kind": "wait"}, {"timeout": -1}, {"has_default": True}, {"tags": []}]
_ODD: Final[list[tuple[str, Given]]] = [
    *(("turns", row) for row in ({"task": None}, {"epoch": None}, {"seen": None}, {"then": "go"}, {"then": "finish"})),
    *[("turns", {"then": "finish"} | end) for end in ENDS],
    ("turns", {"then": "finish", "state": "resolved", "close": True}),
    *(("outcomes", _STEP | row) for row in ({"kind": "promise"}, {"operation": "~s"}, {"issued": None})),
    ("outcomes", _STEP | {"state": "canceled"}),
    *(("operations", _PROMISED | row) for row in ({"kind": "step"}, {"operation": ""}, {"issued": None}, {"promise": "a"})),
    *(("operations", _PROMISED | row) for row in _ODD_PROMISES),
    *(("operations", _CHILD | row) for row in ({"function": "7"}, {"args": 1}, {"queue": ""}, {"delay": -1}, {"tags": 1})),
    *(("timers", _TIMER | row) for row in ({"kind": "step"}, {"operation": "~t"}, {"issued": None}, {"micros": None})),
    *(("attempts", _NOTE | row) for row in ({"number": 0}, {"operation": ""}, {"number": 32_768}, {"retry_in": -1})),
    ("cancels", {"task": None, "promise": "a"}),
    ("cancels", {"promise": None}),
]  # fmt: skip


def _odd(chance: Chance) -> Given:
    part, row = chance.pick(_ODD)
    return _call(chance, part, row)


def _payloads(payload: Json) -> Make:
    rows: list[tuple[str, Given]] = [
        ("turns", {"then": "finish", "state": "resolved", "value": payload}),
        ("outcomes", _STEP | {"value": payload}),
        ("operations", _CHILD | {"args": [payload]}),
        ("operations", _PROMISED | {"timeout": 1, "has_default": True, "default": payload}),
        ("attempts", _NOTE | {"details": payload}),
    ]

    def make(chance: Chance) -> Given:
        part, row = chance.pick(rows)
        return _call(chance, part, row)

    return make


_TURNS = [
    Fault(
        "advance",
        "TR001",
        lambda chance: _call(
            chance,
            "operations",
            _CHILD | {"promise": "a~b"},
            _CHILD | {"promise": "a/b"},
            _PROMISED | {"operation": "x" * 255},
        ),
    ),
    Fault("advance", "TR002", _odd),
    Fault("advance", "TR003", _payloads(LARGE)),
    Fault("advance", "TR004", _payloads(DEEP)),
    Fault(
        "advance", "TR030", lambda _: {"turns": [{"task": f"m{n}", "epoch": 1, "seen": 0} for n in range(13)]}
    ),
    Fault("advance", "25001", lambda _: {"turns": [{"task": "a", "epoch": 1, "seen": 0}]}),
]

FAULTS: Final = (*_STARTS, *_PROMISES, *_SETTLES, *_OPERATORS, *_STEPS, *_COMMITS, *_WORKERS, *_TURNS)
