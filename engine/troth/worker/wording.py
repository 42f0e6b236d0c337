"""How a run's operations, outcomes and end are said to `advance`: from the machine's words to those of the wire."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from troth.calls import Creation, StepOutcome, Timer, Turn
from troth.codec import Payloads, Sealed
from troth.context import PromiseRequest, StepRequest, WaitRequest
from troth.core import CANCEL, TIMER, CanceledOutcome, Operation, Outcome, Raised, Returned
from troth.errors import TrothError
from troth.model import JournalEntry


@dataclass(slots=True)
class TurnParts:
    """One turn as `advance` takes it."""

    turn: Turn
    outcomes: list[StepOutcome] = field(default_factory=list[StepOutcome])
    operations: list[Creation] = field(default_factory=list[Creation])
    timers: list[Timer] = field(default_factory=list[Timer])


@dataclass(slots=True)
class Arrived:
    """What an operation brought."""

    operation: Operation
    state: str
    value: Sealed | None
    error: Sealed | None


def outcome(task: str, arrived: Arrived, entry: JournalEntry) -> StepOutcome:
    """What a step brought, or that a timer fired, at the instant that the code was told."""
    operation = arrived.operation
    said = StepOutcome(
        task,
        operation.path,
        operation.kind,
        operation.issued,
        arrived.state,
        operation.digest,
        at=entry.at,
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


def creation(task: str, operation: Operation) -> Creation:
    """A promise that the code made or named."""
    said = Creation(task, operation.path, operation.kind, operation.issued, operation.digest)
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
    return said


def timer(task: str, operation: Operation) -> Timer:
    """A timer that stays open while its task is suspended."""
    return Timer(task, operation.path, operation.issued, duration(operation), operation.digest)


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
        return msgspec.Raw(b"null")
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
