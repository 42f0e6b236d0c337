"""A replay outside a worker: registered code against one journal, without writing anything.

The code is run from its beginning and told all its events, as a worker would after a restart. That finds what a worker would
find (`Diverged`), and then some, since here is time to look:

- what the workflow waits for by its record must be what the code has asked for, after the same event;
- where a task is suspended, all that its code asked for is recorded: anything else that is open is one operation too many;
- a workflow that has ended must end the same way, with the same value or the same error.

What cannot be told is not guessed: a task that is just being driven may have asked for more than is recorded, and a workflow
whose end was no doing of its code (its own timeout, a cancel by force) may be anywhere in it.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import msgspec

from troth.calls import Turn
from troth.codec import Payloads
from troth.core import PATCH, STEP, TIMER, Machine, Operation, Raised, Returned
from troth.errors import Diverged, InvalidArgument, UndecodablePayload
from troth.model import ErrorInfo, JournalEntry, OpenWait, PromiseInfo, Record
from troth.registry import Registry, Workflow
from troth.remote import text_of
from troth.worker.frames import owner
from troth.worker.telling import as_told, frontier, made_machine, patches
from troth.worker.wording import finish

Result: TypeAlias = Literal["same", "diverged", "undecodable", "raised", "unknown"]

THE_END: Final = "the end"
"""Where a verdict is about how a workflow ends, instead of an operation's path."""
RETRY: Final = "retry"
"""The kind of wait of a step that failed and is tried again later."""

NAMED_MAX: Final = 5
"""How many of many operations are named."""
EXCERPT_LENGTH_MAX: Final = 300

_ADDRESS: Final = re.compile(r"0x[0-9a-f]+")


class Difference(msgspec.Struct, frozen=True):
    """Where code and record part: what is recorded of an operation and what the code issued, at which line."""

    operation: str
    recorded: str
    issued: str
    line: str | None = None

    def __str__(self) -> str:
        at = f" at {self.line}" if self.line else ""
        return f"{self.operation}: recorded {self.recorded}; issued {self.issued}{at}"


class Verdict(msgspec.Struct, frozen=True):
    """What a replay came to.

    `same`: the code does what is recorded. `diverged`: it does not, `difference` tells where. `undecodable`: a payload cannot
    be opened here. `raised`: the replay itself could not go on. `unknown`: no such workflow is known in that version.
    `events` is how many events the code was told.
    """

    id: str
    function: str
    version: int
    result: Result
    events: int = 0
    difference: Difference | None = None
    message: str | None = None


def replay(
    known: Registry | Workflow[..., Any],
    record: Record,
    entries: Sequence[JournalEntry],
    payloads: Payloads | None = None,
    *,
    promise: PromiseInfo | None = None,
    watch: AbstractContextManager[object] | None = None,
) -> Verdict:
    """Run code against a workflow's record and journal. Nothing is written, and no step is carried out.

    `known`: where the code is looked for by the record's function and version, or the one workflow to run whatever they are.
    `promise`: the workflow's promise as it stood when the record was read; with it more can be told. `watch` is entered
    around every run of the code. Raises `InvalidArgument` when the journal is not whole. To be called where no asyncio task
    runs.
    """
    _refuse_parts(record, entries)
    workflow = known if isinstance(known, Workflow) else known.get((record.function, record.version))
    if workflow is None:
        message = f"no workflow {record.function!r} in version {record.version} is known here"
        return Verdict(record.id, record.function, record.version, "unknown", message=message)
    return _Replay(workflow, record, entries, payloads or Payloads(), promise).verdict(watch)


def _refuse_parts(record: Record, entries: Sequence[JournalEntry]) -> None:
    for seq, entry in enumerate(entries, 1):
        if entry.seq != seq:
            raise InvalidArgument(
                f"The journal of {record.id!r} is not whole: event {entry.seq} stands where {seq} should.",
                hint="Give all its events, from the first one on.",
            )
    if len(entries) < record.last_seq:
        raise InvalidArgument(
            f"The journal of {record.id!r} is not whole: it has {len(entries)} of {record.last_seq} events.",
            hint="Give all its events, from the first one on.",
        )


class _Replay:
    """One replay under way."""

    def __init__(
        self,
        workflow: Workflow[..., Any],
        record: Record,
        entries: Sequence[JournalEntry],
        payloads: Payloads,
        promise: PromiseInfo | None,
    ) -> None:
        self._workflow = workflow
        self._record = record
        self._entries = entries
        self._payloads = payloads
        self._promise = promise
        self._issued: dict[str, Operation] = {}
        self._told = 0

    def verdict(self, watch: AbstractContextManager[object] | None) -> Verdict:
        machine: Machine[Any] | None = None
        try:
            machine = self._machine(watch)
            self._run(machine)
            difference = self._in_waits(machine) or self._left_over(machine) or self._at_the_end(machine)
        except Diverged as error:
            difference = Difference(error.operation, error.recorded, error.issued, error.line)
        except UndecodablePayload as error:
            return self._said("undecodable", message=str(error))
        except (Exception, SystemExit) as error:  # noqa: BLE001 — one workflow's trouble is not the others'
            message = f"{type(error).__qualname__}: {text_of(error)}"
            return self._said("raised", message=_shortened(message))
        finally:
            if machine is not None:
                machine.evict()
        return self._said("diverged" if difference else "same", difference)

    def _said(
        self, result: Result, difference: Difference | None = None, message: str | None = None
    ) -> Verdict:
        record = self._record
        return Verdict(record.id, record.function, record.version, result, self._told, difference, message)

    def _machine(self, watch: AbstractContextManager[object] | None) -> Machine[Any]:
        record = self._record
        return made_machine(
            self._workflow,
            record.id,
            record.args,
            None if record.args_headers is None else msgspec.Raw(msgspec.json.encode(record.args_headers)),
            started_at=record.started_at,
            seed=record.seed,
            payloads=self._payloads,
            watch=watch,
        )

    def _run(self, machine: Machine[Any]) -> None:
        asked = self._record.asked
        if asked is None:
            asked = self._record.last_seq if self._suspended else -1
        machine.foresee(frontier(self._entries, self._record.waits, asked), patches(self._entries))
        self._keep(machine.start())
        for entry in self._entries:
            self._keep(machine.feed(as_told(entry, self._payloads)))
            self._told = entry.seq

    def _keep(self, operations: Sequence[Operation]) -> None:
        for operation in operations:
            self._issued[operation.path] = operation

    @property
    def _suspended(self) -> bool:
        task = None if self._promise is None else self._promise.task
        return self._record.task == "suspended" if task is None else task.state == "suspended"

    # --- what is waited for ---

    def _in_waits(self, machine: Machine[Any]) -> Difference | None:
        """A recorded wait that the code has not asked for, or not so."""
        for wait in self._record.waits:
            operation = self._issued.get(wait.operation)
            if operation is None or not _is_of(operation, wait):
                return self._missed(machine, wait, operation)
            if None not in (wait.digest, operation.digest) and wait.digest != operation.digest:
                recorded = _described(wait.kind, wait.issued, wait.digest)
                issued = _described(operation.kind, operation.issued, operation.digest)
                return Difference(wait.operation, recorded, issued, operation.line)
            cohort = machine.cohort(wait.issued)
            if wait.cohort is not None and wait.cohort != cohort:
                recorded = f"{_described(wait.kind, wait.issued)}, together with others"
                together = (
                    one.path
                    for one in self._issued.values()
                    if one.issued == wait.issued and one.kind != PATCH
                )
                return Difference(
                    wait.operation, recorded, f"it together with {_listed(together)}", operation.line
                )
            if self._suspended and wait.operation not in machine.open and not _ended(machine):
                recorded = f"{_described(wait.kind, wait.issued)}, still waited for"
                return Difference(wait.operation, recorded, "it, and took it back", operation.line)
        return None

    def _missed(self, machine: Machine[Any], wait: OpenWait, instead: Operation | None) -> Difference:
        recorded = {each.operation for each in self._record.waits}
        if instead is None:
            others = [one for one in machine.open.values() if one.path not in recorded]
            instead = next(
                (one for one in others if one.issued == wait.issued), others[0] if others else None
            )
        if instead is not None:
            issued = f"{_described(instead.kind, instead.issued)} at {instead.path!r}"
        elif machine.done:
            issued = f"nothing, for it {_came_to(machine)}"
        else:
            issued = "nothing that is still open"
        line = instead.line if instead else _raised_at(machine)
        return Difference(wait.operation, _described(wait.kind, wait.issued), issued, line)

    def _left_over(self, machine: Machine[Any]) -> Difference | None:
        """An operation that is open although a suspended task has all of its own recorded."""
        if not self._suspended or _ended(machine):
            return None
        waits = {wait.operation for wait in self._record.waits}
        for one in machine.open.values():
            if one.path not in waits and one.kind != PATCH:
                recorded = f"nothing of it, although the task waits since event {self._record.last_seq}"
                return Difference(one.path, recorded, _described(one.kind, one.issued), one.line)
        return None

    # --- how it ends ---

    def _at_the_end(self, machine: Machine[Any]) -> Difference | None:
        """Another end than the stored one."""
        state, promise = self._record.state, self._promise
        if state == "pending":
            if not self._suspended or not machine.done:
                return None
            return Difference(THE_END, "that it waits", f"that it {_came_to(machine)}", _raised_at(machine))
        if state == "timedout" or (promise is not None and promise.settler != "worker"):
            return None
        if not machine.done:
            if state == "canceled" and promise is None:
                return None  # perhaps by force
            first = next(iter(machine.open.values()), None)
            issued = f"that it goes on, waiting for {_listed(machine.open)}"
            return Difference(THE_END, f"that it was {state}", issued, first.line if first else None)
        stored = None if promise is None else self._stored(promise)
        came = _end(self._record.id, self._workflow, machine, self._entries)
        if came.state == state and (stored is None or stored.is_like(came)):
            return None
        recorded = f"that it was {state}" if stored is None else f"that it {stored}"
        return Difference(THE_END, recorded, f"that it {came}", _raised_at(machine))

    def _stored(self, promise: PromiseInfo) -> _End:
        headers = None if promise.headers is None else msgspec.Raw(msgspec.json.encode(promise.headers))
        if promise.state == "resolved":
            return _End("resolved", value=self._payloads.plain(promise.value, headers, "The result"))
        if promise.state == "rejected":
            return _End("rejected", error=self._payloads.open_error(promise.error, headers))
        return _End(promise.state)


class _End(msgspec.Struct, frozen=True):
    """How a workflow ended."""

    state: str
    value: bytes = b"null"
    error: ErrorInfo | None = None

    def is_like(self, other: _End) -> bool:
        """The same value, or an error of the same type that says the same; where an object lies in memory is not said."""
        if self.error is None or other.error is None:
            return self.state != "resolved" or msgspec.json.decode(self.value) == msgspec.json.decode(
                other.value
            )
        said = [_ADDRESS.sub("", error.message) for error in (self.error, other.error)]
        return self.error.type == other.error.type and said[0] == said[1]

    def __str__(self) -> str:
        if self.state == "resolved":
            return f"returned {_shortened(self.value.decode(errors='replace'))}"
        if self.error is not None:
            return f"raised {self.error.type}: {_shortened(self.error.message)}"
        return f"was {self.state}"


def _end(id: str, workflow: Workflow[..., Any], machine: Machine[Any], told: Sequence[JournalEntry]) -> _End:
    """How the code ended now, as a worker would store it: a value that cannot be stored is an error."""
    turn = Turn(id, 0, 0)
    payloads = Payloads()
    finish(turn, workflow.name, machine.outcome, told, payloads)
    if isinstance(turn.value, msgspec.Raw) and turn.state == "resolved":
        return _End("resolved", value=bytes(turn.value))
    if isinstance(turn.error, msgspec.Raw) and turn.state == "rejected":
        return _End("rejected", error=payloads.open_error(turn.error, None))
    return _End(str(turn.state))


def _ended(machine: Machine[Any]) -> bool:
    return machine.done or machine.closing


def _came_to(machine: Machine[Any]) -> str:
    match machine.outcome:
        case Returned():
            return "has returned"
        case Raised(error):
            return f"has raised {type(error).__qualname__}: {_shortened(text_of(error))}"
        case _:
            return "was canceled by its own code"


def _raised_at(machine: Machine[Any]) -> str | None:
    """The line of the user's code that raised what ended the workflow."""
    outcome = machine.outcome
    if not isinstance(outcome, Raised):
        return None
    line: str | None = None
    for frame, number in traceback.walk_tb(outcome.exception.__traceback__):
        if owner(frame) == "user":
            line = f"{Path(frame.f_code.co_filename).name}:{number}"
    return line


def _is_of(operation: Operation, wait: OpenWait) -> bool:
    kind = STEP if wait.kind == RETRY else wait.kind
    return operation.kind == kind and operation.issued == wait.issued


def _described(kind: str, issued: int, digest: int | None = None) -> str:
    kind = STEP if kind == RETRY else kind
    said = f"a {kind} issued after entry {issued}"
    if digest is None:
        return said
    return f"{said} of {digest / 1e6:g} s" if kind == TIMER else f"{said} with arguments of digest {digest:x}"


def _listed(paths: Iterable[str]) -> str:
    names = list(islice(paths, NAMED_MAX + 1))
    return (", ".join(names[:NAMED_MAX]) + (", ..." if len(names) > NAMED_MAX else "")) or "nothing"


def _shortened(text: str) -> str:
    return text if len(text) <= EXCERPT_LENGTH_MAX else text[: EXCERPT_LENGTH_MAX - 1] + "…"
