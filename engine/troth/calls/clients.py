"""The functions that clients and operators call."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal

import msgspec

from troth.calls.call import Call, Row, document, documents, duration, given, json, number, plain
from troth.codec import Sealed
from troth.model import JournalEntry, Operated, PromiseInfo, Record, Settlement, Started, StartedItem

_READ_STARTED = document(Started)
_READ_STARTED_ITEMS = documents(StartedItem)
_READ_SETTLEMENT = document(Settlement)
_READ_SETTLEMENTS = documents(Settlement)
_READ_PROMISES = documents(PromiseInfo)
_READ_ENTRIES = documents(JournalEntry)
_READ_OPERATED = document(Operated)
_RECORD = msgspec.json.Decoder(Record)


def start(
    id: str,
    function: str,
    args: Sealed,
    *,
    queue: str | None = None,
    delay: timedelta | None = None,
    timeout: timedelta | None = None,
    priority: int | None = None,
    tags: Mapping[str, str] | None = None,
    on_conflict: str | None = None,
) -> Call[Started]:
    """Start a workflow, or attach to what its ID names."""
    return Call(
        "start",
        given(
            id=("text", id),
            function=("text", function),
            args=("jsonb", plain(args.data)),
            queue=("text", queue),
            delay=("interval", duration(delay, "delay")),
            timeout=("interval", duration(timeout, "timeout")),
            priority=("integer", priority),
            tags=("jsonb", json(tags)),
            on_conflict=("text", on_conflict),
            headers=("jsonb", plain(args.headers)),
            digest=("bytea", args.digest),
        ),
        _READ_STARTED,
    )


class StartItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One workflow of `start_many`; durations in seconds, the digest in hexadecimal."""

    id: str
    function: str
    args: msgspec.Raw = msgspec.Raw(b"{}")
    queue: str | None = None
    delay: float | None = None
    timeout: float | None = None
    priority: int | None = None
    tags: Mapping[str, str] | None = None
    headers: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    digest: str | None = None


def start_many(items: Sequence[StartItem]) -> Call[list[StartedItem]]:
    """Start many workflows, each judged by itself, answered in order."""
    return Call("start_many", (("items", "jsonb", json(list(items))),), _READ_STARTED_ITEMS)


def start_together(
    starts: Sequence[Call[Started]], shown: Collection[str] = ()
) -> Call[list[Started | StartedItem]]:
    """Starts of several callers in one call, answered in order.

    Whoever is attached, or created and in `shown`, has the promise with the answer. What is in conflict or refused is told to its
    caller by his own `start`, which is also the one that knows what `on_conflict` says.
    """
    wanted = frozenset(shown)

    def read(rows: Sequence[Row]) -> list[Started | StartedItem]:
        items = zip(rows, _READ_STARTED_ITEMS(rows), strict=True)
        return [_READ_STARTED([row]) if full(item) else item for row, item in items]

    def full(item: StartedItem) -> bool:
        return item.answer == "attached" or (item.answer == "created" and item.id in wanted)

    items = [
        {name: _in_json(kind, value) for name, kind, value in start.arguments if name != "on_conflict"}
        for start in starts
    ]
    return Call(
        "start_together",
        given(items=("jsonb", json(items)), shown=("text[]", list(shown) or None)),
        read,
    )


def _in_json(kind: str, value: Any) -> object:
    """An argument of a call as an item of a batch says it: durations in seconds, bytes in hexadecimal."""
    match kind:
        case "jsonb":
            return msgspec.Raw(value.encode())
        case "interval":
            return value.total_seconds()
        case "bytea":
            return value.hex()
        case _:
            return value


def start_each(
    function: str,
    ids: Sequence[str],
    args: bytes,
    *,
    queue: str | None = None,
    delay: timedelta | None = None,
    timeout: timedelta | None = None,
    priority: int | None = None,
    tags: Mapping[str, str] | None = None,
    headers: bytes | None = None,
    digests: Sequence[bytes] | None = None,
) -> Call[list[StartedItem]]:
    """Start one function under many IDs; `args` is the JSON array of the arguments of each. Answered in order."""

    def read(rows: Sequence[Row]) -> list[StartedItem]:
        # what SQL says nothing of is new
        others = {item.id: item for item in _READ_STARTED_ITEMS(rows)}
        return [others.get(id) or StartedItem(id, "created") for id in ids]

    return Call(
        "start_each",
        given(
            function=("text", function),
            ids=("text[]", ids),
            args=("jsonb", plain(args)),
            queue=("text", queue),
            delay=("interval", delay),
            timeout=("interval", timeout),
            priority=("integer", priority),
            tags=("jsonb", json(tags)),
            headers=("jsonb", plain(headers)),
            digests=("bytea[]", digests),
        ),
        read,
    )


def create_promise(
    id: str,
    *,
    timeout: timedelta | None = None,
    default: Sealed | None = None,
    tags: Mapping[str, str] | None = None,
    title: str | None = None,
) -> Call[Started]:
    """Create a latent promise, or attach to the one that is there."""
    return Call(
        "create_promise",
        given(
            id=("text", id),
            timeout=("interval", duration(timeout, "timeout")),
            default=("jsonb", plain(default.data) if default else None),
            has_default=("boolean", True if default else None),
            headers=("jsonb", plain(default.headers) if default else None),
            tags=("jsonb", json(tags)),
            title=("text", title),
        ),
        _READ_STARTED,
    )


def resolve(id: str, value: Sealed, *, actor: str | None = None) -> Call[Settlement]:
    """Resolve a latent promise."""
    return _decision("resolve", id, "value", value, actor)


def reject(id: str, error: Sealed, *, actor: str | None = None) -> Call[Settlement]:
    """Reject a latent promise."""
    return _decision("reject", id, "error", error, actor)


def _decision(verb: str, id: str, what: str, payload: Sealed, actor: str | None) -> Call[Settlement]:
    arguments = given(
        id=("text", id),
        headers=("jsonb", plain(payload.headers)),
        digest=("bytea", payload.digest),
        actor=("text", actor),
    )
    return Call(verb, (*arguments, (what, "jsonb", plain(payload.data))), _READ_SETTLEMENT)


def cancel(
    id: str, *, reason: str | None = None, actor: str | None = None, force: bool = False
) -> Call[Settlement]:
    """Cancel a promise, or ask a running workflow to; with `force` end it without asking its code."""
    return Call(
        "cancel_force" if force else "cancel",
        given(id=("text", id), reason=("text", reason), actor=("text", actor)),
        _READ_SETTLEMENT,
    )


class SettleItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One decision of `settle_many`."""

    id: str
    verb: Literal["resolve", "reject", "cancel"]
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    reason: str | None = None
    headers: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    digest: str | None = None


def settle_many(items: Sequence[SettleItem], *, actor: str | None = None) -> Call[list[Settlement]]:
    """Carry out several decisions in one call, which never deadlocks with another one."""
    return Call(
        "settle_many",
        given(items=("jsonb", json(list(items))), actor=("text", actor)),
        _READ_SETTLEMENTS,
    )


def get(ids: Sequence[str]) -> Call[list[PromiseInfo]]:
    """The promises of these IDs; unknown ones are absent."""
    return Call("get", (("ids", "text[]", list(ids)),), _READ_PROMISES)


def settled(ids: Sequence[str]) -> Call[list[PromiseInfo]]:
    """Of the promises of these IDs those that are settled."""
    return Call("settled", (("ids", "text[]", list(ids)),), _READ_PROMISES)


def search(
    *,
    state: str | None = None,
    queue: str | None = None,
    function: str | None = None,
    prefix: str | None = None,
    tags: Mapping[str, str] | None = None,
    latent: bool | None = None,
    limit: int | None = None,
    after: str | None = None,
) -> Call[list[PromiseInfo]]:
    """A page of promises, in the order of their IDs; `after` is the last ID of the page before."""
    return Call(
        "search",
        given(
            state=("text", state),
            queue=("text", queue),
            function=("text", function),
            prefix=("text", prefix),
            tags=("jsonb", json(tags)),
            latent=("boolean", latent),
            limit=("integer", limit),
            after=("text", after),
        ),
        _READ_PROMISES,
    )


def tree(id: str, *, limit: int | None = None) -> Call[list[PromiseInfo]]:
    """A promise and all that was made below it."""
    return Call("tree", given(id=("text", id), limit=("integer", limit)), _READ_PROMISES)


def journal(id: str, *, from_seq: int = 1, limit: int | None = None) -> Call[list[JournalEntry]]:
    """A page of a workflow's events, in order."""
    return Call(
        "journal",
        given(id=("text", id), from_seq=("integer", from_seq), limit=("integer", limit)),
        _READ_ENTRIES,
    )


def record(id: str) -> Call[Record | None]:
    """What a replay of a workflow needs beside its journal; None for what never ran."""
    return Call("record", given(id=("text", id)), _read_record)


def _read_record(rows: Sequence[Row]) -> Record | None:
    return None if rows[0][0] is None else _RECORD.decode(rows[0][0])


def protocol() -> Call[tuple[int, int]]:
    """Which versions of the protocol the namespace speaks: the current one and the oldest."""
    return Call(
        "protocol", (), lambda rows: (int(rows[0][0]), int(rows[0][1])), columns=("current", "oldest")
    )


def halt(id: str, *, reason: str | None = None, actor: str | None = None) -> Call[Operated]:
    """Park a workflow."""
    return Call(
        "halt", given(id=("text", id), reason=("text", reason), actor=("text", actor)), _READ_OPERATED
    )


def resume(id: str, *, actor: str | None = None) -> Call[Operated]:
    """Send a parked workflow on."""
    return Call("resume", given(id=("text", id), actor=("text", actor)), _READ_OPERATED)


def fork(
    id: str,
    new_id: str,
    *,
    before: str | None = None,
    version: int | None = None,
    reason: str | None = None,
    actor: str | None = None,
) -> Call[Started]:
    """Run a workflow again under a new ID, with its events before the operation `before`."""
    return Call(
        "fork",
        given(
            id=("text", id),
            new_id=("text", new_id),
            before=("text", before),
            version=("integer", version),
            reason=("text", reason),
            actor=("text", actor),
        ),
        _READ_STARTED,
    )


def settle_step(
    id: str,
    operation: str,
    *,
    value: Sealed | None = None,
    error: Sealed | None = None,
    reason: str | None = None,
    actor: str | None = None,
) -> Call[Operated]:
    """Decide by hand what a step brought."""
    payload = error or value
    return Call(
        "settle_step",
        given(
            id=("text", id),
            operation=("text", operation),
            value=("jsonb", plain(value.data) if value else None),
            error=("jsonb", plain(error.data) if error else None),
            headers=("jsonb", plain(payload.headers) if payload else None),
            reason=("text", reason),
            actor=("text", actor),
        ),
        _READ_OPERATED,
    )


def import_journal(
    record: Record, entries: Sequence[JournalEntry], *, id: str | None = None, actor: str | None = None
) -> Call[Started]:
    """Bring in an exported workflow, halted."""
    return Call(
        "import_journal",
        given(
            record=("jsonb", json(record)),
            entries=("jsonb", json(list(entries))),
            id=("text", id),
            actor=("text", actor),
        ),
        _READ_STARTED,
    )


def purge(before: timedelta, *, limit: int | None = None) -> Call[int]:
    """Delete families that settled longer ago than `before`."""
    return Call(
        "purge",
        given(before=("interval", duration(before, "retention")), limit=("integer", limit)),
        number,
    )
