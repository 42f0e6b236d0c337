"""How a run's operations, outcomes and end are said to `advance`: from the machine's words to those of the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from troth.calls import Attempt, Cancel, Creation, StepOutcome, Timer, Turn
from troth.codec import Payloads, Sealed
from troth.context.requests import ChildRequest, PromiseRequest, StepRequest, WaitRequest
from troth.core import CANCEL, TIMER, CanceledOutcome, Operation, Outcome, Raised, Returned
from troth.errors import Diverged, TrothError
from troth.model import JSON_NULL, JournalEntry


class TurnParts(msgspec.Struct, eq=False):
    """One turn as `advance` takes it."""

    turn: Turn
    outcomes: Sequence[StepOutcome] = ()
    operations: Sequence[Creation] = ()
    timers: Sequence[Timer] = ()
    attempts: Sequence[Attempt] = ()
    cancels: Sequence[Cancel] = ()
    outcome_bytes: int = 0
    """How much of the outcomes is payload."""

    @property
    def items(self) -> int:
        """How much it says, in things said."""
        return (
            len(self.outcomes)
            + len(self.operations)
            + len(self.timers)
            + len(self.attempts)
            + len(self.cancels)
        )

    @property
    def size(self) -> int:
        """How much of it is payload, in bytes."""
        said = [self.turn.value, self.turn.error]
        for asked in self.operations:
            said += asked.args, asked.default
        size = self.outcome_bytes
        for each in said:
            if each is not msgspec.UNSET:
                size += len(memoryview(each))
        return size


class Arrived(msgspec.Struct, eq=False):
    """What an operation brought; `retried` says that attempts of it had failed before."""

    operation: Operation
    state: str
    value: Sealed | None
    error: Sealed | None
    retried: bool = False

    @property
    def size(self) -> int:
        """Its payload, in bytes."""
        sealed = self.value or self.error
        return 0 if sealed is None else len(sealed.data)


def happened(
    arrived: Arrived, seq: int, at: int, *, epoch: int, cohort: int, payloads: Payloads
) -> JournalEntry:
    """What an operation brought, as the event that it will be if nobody was faster."""
    operation = arrived.operation
    return JournalEntry(
        seq,
        operation.path,
        operation.kind,
        arrived.state,
        at,
        operation.issued,
        epoch,
        cohort,
        operation.digest,
        raw(arrived.value, payloads.plain),
        raw(arrived.error, payloads.plain),
    )


def outcome(task: str, arrived: Arrived, entry: JournalEntry) -> StepOutcome:
    """What a step brought, or that a timer fired, at the instant that the code was told."""
    operation = arrived.operation
    said = StepOutcome(
        task,
        operation.path,
        operation.kind,
        operation.issued,
        arrived.state,
        cohort=entry.cohort,
        digest=operation.digest,
        at=entry.at,
        retried=arrived.retried,
    )
    if operation.kind == TIMER:
        said.micros = duration(operation)
    sealed = arrived.value or arrived.error
    if sealed is not None:
        if arrived.value is not None:
            said.value = msgspec.Raw(sealed.data)
        else:
            said.error = msgspec.Raw(sealed.data)
        if sealed.headers is not None:
            said.headers = msgspec.Raw(sealed.headers)
    return said


def creation(task: str, operation: Operation, cohort: int, payloads: Payloads) -> Creation:
    """A promise that the code made or named, or a child that it started."""
    said = Creation(task, operation.path, operation.kind, operation.issued, cohort, operation.digest)
    request = operation.request
    if isinstance(request, WaitRequest):
        said.promise = request.promise
    elif isinstance(request, PromiseRequest):
        said.timeout = request.timeout
        said.title = request.title
        said.tags = request.tags
        if request.default is not None:
            said.has_default = True
            said.default = msgspec.Raw(request.default.data)
            if request.default.headers is not None:
                said.default_headers = msgspec.Raw(request.default.headers)
    elif isinstance(request, ChildRequest):
        _child(said, request, payloads)
    return said


def _child(said: Creation, request: ChildRequest, payloads: Payloads) -> None:
    sealed = payloads.seal_plain(request.arguments, f"The arguments of {request.function!r}")
    said.function = request.function
    said.args = msgspec.Raw(sealed.data)
    if sealed.headers is not None:
        said.args_headers = msgspec.Raw(sealed.headers)
    if sealed.digest is not None:
        said.args_digest = sealed.digest.hex()
    said.promise = request.id
    said.queue = request.queue
    said.priority = request.priority
    said.delay = request.delay
    said.timeout = request.timeout
    said.title = request.title
    said.tags = request.tags


def asked_bytes(operation: Operation) -> int:
    """How much of a creation is payload."""
    request = operation.request
    if isinstance(request, ChildRequest):
        return len(request.arguments)
    if isinstance(request, PromiseRequest) and request.default is not None:
        return len(request.default.data)
    return 0


def parked(code: str, error: BaseException) -> dict[str, object]:
    """Why a task is parked, for a person to read."""
    reason: dict[str, object] = {"code": code, "message": str(error)[:2000] or type(error).__name__}
    if isinstance(error, Diverged):
        reason["data"] = {
            "operation": error.operation,
            "recorded": error.recorded,
            "issued": error.issued,
            "line": error.line,
        }
    return reason


def child_id(task: str, operation: Operation) -> str:
    """The ID of the promise that a child settles."""
    request = operation.request
    given = request.id if isinstance(request, ChildRequest) else None
    return given or f"{task}~{operation.path}"


def timer(task: str, operation: Operation, cohort: int) -> Timer:
    """A timer that stays open while its task is suspended."""
    return Timer(task, operation.path, operation.issued, duration(operation), cohort, operation.digest)


def later(task: str, operation: Operation, micros: int, cohort: int) -> Timer:
    """A step that is to be tried again in so many microseconds, with nobody holding the task meanwhile."""
    return Timer(task, operation.path, operation.issued, max(micros, 0), cohort, operation.digest, "retry")


def given_up() -> BaseException:
    """What becomes of a step for which the code no longer waits."""
    return asyncio.CancelledError("the workflow gave up waiting for it")


def finish(
    turn: Turn, name: str, ended: Outcome[Any] | None, told: Sequence[JournalEntry], payloads: Payloads
) -> None:
    """How the workflow `name` ended. A result that cannot be stored is its failure."""
    turn.then = "finish"
    match ended:
        case Returned(value):
            try:
                _resolved(turn, payloads.seal(value, f"The result of workflow {name!r}"))
            except TrothError as error:
                _rejected(turn, payloads.seal_error(error))
        case Raised(exception):
            _rejected(turn, payloads.seal_error(exception))
        case CanceledOutcome() | None:
            asked = next((entry.error for entry in reversed(told) if entry.kind == CANCEL), None)
            turn.state = "canceled"
            turn.error = asked or msgspec.Raw(b'{"type":"canceled","message":"canceled by its own code"}')


def _resolved(turn: Turn, sealed: Sealed) -> None:
    turn.state, turn.value = "resolved", msgspec.Raw(sealed.data)
    _marked(turn, sealed)


def _rejected(turn: Turn, sealed: Sealed) -> None:
    turn.state, turn.error = "rejected", msgspec.Raw(sealed.data)
    _marked(turn, sealed)


def _marked(turn: Turn, sealed: Sealed) -> None:
    if sealed.headers is not None:
        turn.headers = msgspec.Raw(sealed.headers)
    if sealed.digest is not None:
        turn.digest = sealed.digest.hex()


def raw(sealed: Sealed | None, plain: Callable[[bytes, bytes | None, str], bytes]) -> msgspec.Raw:
    """The plain JSON text of what was sealed."""
    if sealed is None:
        return JSON_NULL
    if sealed.headers is None:
        return msgspec.Raw(sealed.data)
    return msgspec.Raw(plain(sealed.data, sealed.headers, "The outcome"))


def step_request(operation: Operation) -> StepRequest:
    """What a step's operation asks for."""
    request = operation.request
    assert isinstance(request, StepRequest)
    return request


def duration(operation: Operation) -> int:
    """A timer's duration in microseconds."""
    micros = operation.request
    assert isinstance(micros, int)
    return micros


def fires_at(operation: Operation) -> int:
    """The instant of a timer, in microseconds since the Unix epoch."""
    return operation.at + duration(operation)
