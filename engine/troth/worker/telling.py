"""From what Postgres keeps of a workflow to a machine that runs it, and from its events to what the machine is told."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import msgspec

from troth import limits
from troth.codec import Json, Payloads
from troth.context import Context
from troth.context.requests import CREATIONS
from troth.core import PATCH, STEP, Entry, Machine
from troth.errors import Diverged
from troth.model import Claimed, JournalEntry, OpenWait
from troth.registry import Workflow


def made_machine(
    workflow: Workflow[..., Any],
    id: str,
    args: Json,
    args_headers: Json,
    *,
    started_at: int,
    seed: int,
    attempt: int = 1,
    payloads: Payloads,
    watch: AbstractContextManager[object] | None = None,
) -> Machine[Any]:
    """A fresh machine for a workflow's code, with its arguments and its context. Raises `UndecodablePayload`."""
    arguments = payloads.plain(args, args_headers, "The arguments")

    async def main() -> Any:
        # arguments that do not fit are the workflow's failure, like any error of its code
        given, named = workflow.arguments(arguments)
        return await workflow.fn(context, *given, **named)

    path_length_max = limits.id_length_max - len(id) - 1
    machine: Machine[Any] = Machine(main, started_at=started_at, path_length_max=path_length_max, watch=watch)
    context = Context(machine, id, payloads=payloads, seed=seed, attempt=attempt)
    return machine


def frontier(entries: Sequence[JournalEntry], waits: Sequence[OpenWait], asked: int) -> int:
    """The first event after which the code was never run: nothing that it issued then, or later, is recorded."""
    if not entries and not waits:
        return 1 + asked
    issued = [asked, *(wait.issued for wait in waits), *(e.issued for e in entries if e.issued is not None)]
    return 1 + max(issued)


def confirm(machine: Machine[Any] | None, claimed: Claimed, told: Sequence[JournalEntry]) -> None:
    """What is recorded of a claimed task and has no event yet must be what its code has asked for, and all of that.

    Raises `Diverged`. An event that came since the claim has been compared by itself.
    """
    if machine is None or not claimed.waits:
        return
    recorded = {entry.operation for entry in told}
    for wait in claimed.waits:
        if wait.operation not in recorded:
            kind = STEP if wait.kind == "retry" else wait.kind
            machine.confirm(
                Entry(0, wait.operation, kind, wait.issued, wait.digest, "", None, 0, wait.cohort)
            )
        recorded.add(wait.operation)
    for path, operation in machine.open.items():
        if operation.kind in CREATIONS and operation.issued <= claimed.asked and path not in recorded:
            nothing = f"nothing of that name among what was asked for up to event {claimed.asked}"
            raise Diverged(
                path, nothing, f"a {operation.kind} issued after entry {operation.issued}", operation.line
            )


def without_parts(claimed: Claimed) -> Claimed:
    """What is still needed of a claim once its journal was told."""
    if not (claimed.journal or claimed.steps or claimed.waits):
        return claimed
    return msgspec.structs.replace(claimed, journal=[], steps=[], waits=[])


def patches(entries: Sequence[JournalEntry]) -> list[str]:
    """The places where `ctx.patched` said yes."""
    return [entry.operation for entry in entries if entry.kind == PATCH]


def begins_with(entries: Sequence[JournalEntry], ahead: Sequence[JournalEntry]) -> bool:
    """Whether the journal went on with just what the code was told ahead."""
    return len(ahead) <= len(entries) and all(
        mine.operation == theirs.operation and mine.at == theirs.at and mine.state == theirs.state
        for mine, theirs in zip(ahead, entries, strict=False)
    )


def as_told(entry: JournalEntry, payloads: Payloads) -> Entry:
    """An event as the machine takes it.

    What the codec hid is opened before the code hears of it: a lost key parks the workflow, it is no event. Raises
    `UndecodablePayload`.
    """
    opened = entry if entry.headers is None else _opened(entry, payloads)
    return Entry(
        entry.seq,
        entry.operation,
        entry.kind,
        entry.issued,
        entry.digest,
        entry.state,
        opened,
        entry.at,
        entry.cohort,
    )


def _opened(entry: JournalEntry, payloads: Payloads) -> JournalEntry:
    what = f"What {entry.operation!r} brought"
    value, error = entry.value, entry.error
    if entry.state == "resolved":
        value = msgspec.Raw(payloads.plain(value, entry.headers, what))
    elif entry.state == "rejected":
        error = msgspec.Raw(payloads.plain(error, entry.headers, what))
    return msgspec.structs.replace(entry, value=value, error=error, headers=None)
