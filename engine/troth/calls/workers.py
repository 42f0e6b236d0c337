"""The functions that workers call, and the records that they are given: all in sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import cast

import msgspec

from troth.calls.call import Call, Row, document, given, json, nothing, number
from troth.model import Advanced, Claimed, HeldNews, JournalEntry, Ticked

_READ_TICKED = document(Ticked)
_ENTRIES = msgspec.json.Decoder(list[JournalEntry])


class Lane(msgspec.Struct, frozen=True):
    """A lane that a worker serves, and the version that an unpinned task of it is pinned to."""

    name: str
    pin: str


def register(functions: Sequence[tuple[str, int, str]]) -> Call[None]:
    """Tell the namespace which functions, versions and queues a worker has."""
    items = [{"name": name, "version": version, "queue": queue} for name, version, queue in functions]
    return Call("register", (("functions", "jsonb", json(items)),), nothing)


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
    "journal::text",
)

_CLAIM_FIELDS = tuple(column.partition("::")[0] for column in _CLAIM_COLUMNS[:-1])


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
    claimed: list[Claimed] = []
    for row in rows:
        *told, journal = row
        entries = [] if journal == "[]" else _ENTRIES.decode(journal)
        claimed.append(Claimed(**dict(zip(_CLAIM_FIELDS, told, strict=True)), journal=entries))
    return claimed


class Turn(msgspec.Struct, omit_defaults=True):
    """How one workflow goes on: `then` is suspend, finish, release, halt or nothing."""

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


class StepOutcome(msgspec.Struct, omit_defaults=True):
    """What an operation brought, to be appended to its workflow's journal; `at` in microseconds."""

    task: str
    operation: str
    kind: str
    issued: int
    state: str
    digest: int | None = None
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    headers: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    at: int | None = None
    micros: int | None = None


class Creation(msgspec.Struct, omit_defaults=True):
    """A promise that a workflow makes or names; `timeout` in microseconds."""

    task: str
    operation: str
    kind: str
    issued: int
    digest: int | None = None
    timeout: int | None = None
    default: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    has_default: bool = False
    default_headers: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    title: str | None = None
    tags: Mapping[str, str] | None = None
    promise: str | None = None


class Timer(msgspec.Struct, omit_defaults=True):
    """A timer that is open while its task is suspended; `micros` from the event after which it was issued."""

    task: str
    operation: str
    issued: int
    micros: int
    digest: int | None = None


def advance(
    turns: Sequence[Turn],
    outcomes: Sequence[StepOutcome] = (),
    operations: Sequence[Creation] = (),
    timers: Sequence[Timer] = (),
) -> Call[list[Advanced]]:
    """Record the turns of many workflows; one answer each, in no particular order."""
    arguments = [("turns", "jsonb", json(list(turns)))]
    for name, items in (("outcomes", outcomes), ("operations", operations), ("timers", timers)):
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
