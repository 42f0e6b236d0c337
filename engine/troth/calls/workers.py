"""The functions that workers call, and the records that they are given: all in sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, cast

import msgspec

from troth.calls.call import Call, Row, document, given, json, nothing, number
from troth.model import Advanced, Claimed, HeldNews, JournalEntry, OpenWait, StepAttempt, Ticked

_READ_TICKED = document(Ticked)
_ENTRIES = msgspec.json.Decoder(list[JournalEntry])
_WAITS = msgspec.json.Decoder(list[OpenWait])
_PARTS: Final[tuple[msgspec.json.Decoder[Any], ...]] = (
    _WAITS,
    msgspec.json.Decoder(list[StepAttempt]),
    _ENTRIES,
)


class Lane(msgspec.Struct, frozen=True):
    """A lane that a worker serves, and the version that an unpinned task of it is pinned to."""

    name: str
    pin: str


def register(functions: Sequence[tuple[str, int, str]]) -> Call[None]:
    """Tell the namespace which functions, versions and queues a worker has."""
    items = [{"name": name, "version": version, "queue": queue} for name, version, queue in functions]
    return Call("register", (("functions", "jsonb", json(items)),), nothing)


# in the order of the fields of `Claimed`
_CLAIM_COLUMNS = (
    "task",
    "epoch",
    "function",
    "version",
    "queue",
    "args::text",
    "args_headers::text",
    "tags::text",
    "timeout_at",
    "started_at",
    "seed",
    "attempts",
    "now",
    "last_seq",
    "alone",
    "asked",
    "waits::text",
    "steps::text",
    "journal::text",
)


def claim(
    worker: str,
    queues: Sequence[str],
    lanes: Sequence[Lane],
    limit: int,
    *,
    alone: bool = False,
    sleeping: bool = False,
    lease: timedelta | None = None,
    info: Mapping[str, object] | None = None,
) -> Call[list[Claimed]]:
    """Take ready tasks of these queues and lanes."""
    return Call(
        "claim",
        given(
            worker=("text", worker),
            queues=("text[]", list(queues)),
            lanes=("text[]", [lane.name for lane in lanes]),
            limit=("integer", limit),
            pins=("text[]", [lane.pin for lane in lanes]),
            alone=("boolean", alone),
            sleeping=("boolean", sleeping),
            lease=("interval", lease),
            info=("jsonb", json(info)),
        ),
        _read_claimed,
        _CLAIM_COLUMNS,
    )


def _read_claimed(rows: Sequence[Row]) -> list[Claimed]:
    return [Claimed(*row[:-3], *map(_unless_empty, _PARTS, row[-3:])) for row in rows]


def _unless_empty(decoder: msgspec.json.Decoder[Any], text: str) -> Any:
    return [] if text == "[]" else decoder.decode(text)


class Turn(msgspec.Struct, omit_defaults=True):
    """How one workflow goes on: `then` is suspend, finish, release, halt or nothing.

    `keep`, of a suspension: this worker keeps the code in memory. `close`, of a suspension or of nothing: the code has
    ended while calls of its own are open, which are owed a cancel. `asked`, of nothing: with this turn, all that the code
    asked for after the events up to `seen`, and after the outcomes sent along, is recorded (a suspension says so by itself).
    """

    task: str
    epoch: int
    seen: int
    then: str | None = None
    state: str | None = None
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    headers: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    digest: str | None = None
    reason: Mapping[str, object] | None = None
    charged: bool = False
    keep: bool = False
    close: bool = False
    asked: bool = False


class StepOutcome(msgspec.Struct, omit_defaults=True):
    """What an operation brought, to be appended to its workflow's journal; `at` in microseconds.

    `kind` is step, timer or patch. `retried`: the step had been waiting to be tried again, and that wait goes.
    """

    task: str
    operation: str
    kind: str
    issued: int
    state: str
    cohort: int | None = None
    digest: int | None = None
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    headers: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    at: int | None = None
    micros: int | None = None
    retried: bool = False


class Creation(msgspec.Struct, omit_defaults=True):
    """What a workflow makes or names: a promise, a wait, a call or a start. `timeout` and `delay` in microseconds.

    `promise` is the ID that a wait is for, or that a call or start was given (None: the name of the operation). The
    fields from `function` on are of calls and starts alone; `args_digest` is hexadecimal.
    """

    task: str
    operation: str
    kind: str
    issued: int
    cohort: int | None = None
    digest: int | None = None
    timeout: int | None = None
    default: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    has_default: bool = False
    default_headers: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    title: str | None = None
    tags: Mapping[str, str] | None = None
    promise: str | None = None
    function: str | None = None
    args: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    args_headers: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    args_digest: str | None = None
    queue: str | None = None
    priority: int = 0
    delay: int | None = None


class Timer(msgspec.Struct, omit_defaults=True):
    """An instant that a suspended task waits for: a timer (`micros` from the event after which it was issued), or that
    at which a step is to be tried again (kind retry, `micros` from now).
    """

    task: str
    operation: str
    issued: int
    micros: int
    cohort: int | None = None
    digest: int | None = None
    kind: str = "timer"


class Attempt(msgspec.Struct, omit_defaults=True):
    """A note about an attempt at a step; durations in microseconds. What is left out stays as it was noted before."""

    task: str
    operation: str
    number: int
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    details: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    ended: bool = False
    retry_in: int | None = None
    elapsed: int | None = None


class Cancel(msgspec.Struct):
    """A child that the code of `task` gave up."""

    task: str
    promise: str


def advance(  # noqa: PLR0917 — one sequence for each kind of item
    turns: Sequence[Turn],
    outcomes: Sequence[StepOutcome] = (),
    operations: Sequence[Creation] = (),
    timers: Sequence[Timer] = (),
    attempts: Sequence[Attempt] = (),
    cancels: Sequence[Cancel] = (),
) -> Call[list[Advanced]]:
    """Record the turns of many workflows; one answer each, in no particular order."""
    arguments = [("turns", "jsonb", json(list(turns)))]
    for name, items in (
        ("outcomes", outcomes),
        ("operations", operations),
        ("timers", timers),
        ("attempts", attempts),
        ("cancels", cancels),
    ):
        if items:
            arguments.append((name, "jsonb", json(list(cast("Sequence[object]", items)))))
    return Call("advance", tuple(arguments), _read_advanced, ("task", "answer", "last_seq", "entries::text"))


def _read_advanced(rows: Sequence[Row]) -> list[Advanced]:
    return [
        Advanced(task, answer, last_seq, None if entries is None else _ENTRIES.decode(entries))
        for task, answer, last_seq, entries in rows
    ]


def heartbeat(worker: str, held: Mapping[str, int]) -> Call[list[HeldNews]]:
    """Renew a worker's lease; which of its tasks (with their epochs) have news or are lost."""
    return Call(
        "heartbeat",
        (
            ("worker", "text", worker),
            ("tasks", "text[]", list(held)),
            ("epochs", "integer[]", list(held.values())),
        ),
        lambda rows: [HeldNews(*row) for row in rows],
        ("task", "epoch", "answer"),
    )


def tick(limit: int | None = None) -> Call[Ticked]:
    """Do what is due."""
    return Call("tick", given(limit=("integer", limit)), _READ_TICKED)


def leave(worker: str) -> Call[int]:
    """Give back all that a worker holds, and end it."""
    return Call("leave", (("worker", "text", worker),), number)
