"""Every error that Troth raises, and when it comes.

One class per SQLSTATE of the class `TR`, and a few that arise on this side of the wire. Each has an HTTP
status, a title that never changes and a message of one or two sentences: what was wrong, what was expected, what
to do. Nobody parses a message: what a program needs is an attribute. All can be pickled and copied.

Late, double, racing and unknown-ID settles are answers (`Settlement`), not errors: an error would lose the
transaction of somebody who merely clicked twice.

This file is the lowest layer: it imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final, Protocol


class ErrorDetails(Protocol):
    """What is known of an exception that was stored: `model.ErrorInfo` has this shape."""

    @property
    def type(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def data(self) -> Any: ...
    @property
    def traceback(self) -> str | None: ...
    @property
    def cause(self) -> ErrorDetails | None: ...


class TrothError(Exception):
    """The root of all errors of Troth; `except TrothError` catches every one of them."""

    sqlstate: ClassVar[str | None] = None
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Troth failed"

    def __init__(self, message: str, *, detail: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        if not self.hint:
            return self.message
        stop = "" if self.message.endswith((".", "!", "?")) else "."
        return f"{self.message}{stop} {self.hint}"

    def __reduce__(self) -> tuple[Any, ...]:
        # Constructors differ from class to class; what an error *is* are its attributes.
        return _rebuilt, (type(self), self.args), self.__dict__


def _rebuilt(kind: type[TrothError], args: tuple[Any, ...]) -> TrothError:
    error = kind.__new__(kind)
    error.args = args
    return error


# What a caller asked for cannot be.


class InvalidId(TrothError):
    """An ID is empty, too long or has characters that a URL would escape; or one given to `start` has a `~`.

    Use 1–128 letters, digits and `-._:@!$&'()*+,;=`; what a workflow makes adds `~` and a name to that.
    """

    sqlstate = "TR001"
    status = 400
    title = "Invalid ID"


class InvalidArgument(TrothError):
    """An argument of a call cannot be: a bad name, a negative timeout, a function that is not `async def`."""

    sqlstate = "TR002"
    status = 400
    title = "Invalid argument"


class PayloadTooLarge(TrothError):
    """A value is longer than `limits.payload_bytes_max` as JSON.

    Nothing was written. Store it elsewhere and pass a reference.
    """

    sqlstate = "TR003"
    status = 413
    title = "Payload too large"


class PayloadTooDeep(TrothError):
    """A value nests lists and objects deeper than `limits.payload_depth_max`, or contains itself."""

    sqlstate = "TR004"
    status = 400
    title = "Payload too deep"


class InvalidPayload(TrothError):
    """A value cannot be stored and come back the same.

    It holds NUL, NaN, Infinity, -0.0, two keys that become one, or a type that JSON has no way to say.
    """

    sqlstate = "TR005"
    status = 400
    title = "Invalid payload"


class IdConflict(TrothError):
    """The ID is taken by something else: another function, other arguments, or another kind of promise.

    Nothing ran. `detail` is the stored promise document as JSON text.
    """

    sqlstate = "TR010"
    status = 409
    title = "ID conflict"


class UnknownPromise(TrothError):
    """No promise has this ID in this namespace."""

    sqlstate = "TR011"
    status = 404
    title = "Unknown promise"


class WrongState(TrothError):
    """The promise or task is not in a state that allows what was asked."""

    sqlstate = "TR012"
    status = 409
    title = "Wrong state"


class WorkerDead(TrothError):
    """The worker was silent beyond its lease and was marked dead, which is final.

    Its tasks are given to others. Start a new worker process.
    """

    sqlstate = "TR020"
    status = 409
    title = "Worker dead"


class LimitExceeded(TrothError):
    """A named limit would be passed: items in a batch, children of a family, waits on a promise."""

    sqlstate = "TR030"
    status = 429
    title = "Limit exceeded"


class SchemaMismatch(TrothError):
    """The schema in Postgres is missing, or older or newer than this library speaks to. Run `troth migrate`."""

    sqlstate = "TR040"
    status = 503
    title = "Schema mismatch"


class IsolationLevel(TrothError):
    """A mutating function was called outside READ COMMITTED, where it would lose wake-ups."""

    sqlstate = "25001"
    status = 400
    title = "Wrong isolation level"


class DatabaseError(TrothError):
    """Postgres refused with an SQLSTATE that is not ours; `code` is that SQLSTATE."""

    status = 500
    title = "Database error"

    def __init__(
        self, message: str, *, code: str, detail: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, detail=detail, hint=hint)
        self.code = code


# What awaiting a promise or a step may tell.


class StoredError(TrothError):
    """An exception that was stored somewhere else and is raised here."""

    def __init__(self, message: str, error: ErrorDetails) -> None:
        super().__init__(message)
        self.error = error

    @property
    def type(self) -> str:
        """The class that was raised, by name: `module.Class`."""
        return self.error.type

    @property
    def error_message(self) -> str:
        """What it said."""
        return self.error.message

    @property
    def data(self) -> Any:
        """What was stored with it, as JSON values."""
        return self.error.data

    @property
    def traceback(self) -> str | None:
        """The code that raised it, as text."""
        return self.error.traceback

    @property
    def cause(self) -> ErrorDetails | None:
        """What it was raised from, stored likewise."""
        return self.error.cause


class PromiseRejected(StoredError):
    """The awaited promise was rejected: by a person, or because its workflow raised.

    `id` names the promise; `type`, `error_message`, `data`, `traceback` and `cause` say what was stored.
    """

    status = 409
    title = "Promise rejected"

    def __init__(self, promise: str, error: ErrorDetails) -> None:
        super().__init__(f"Promise {promise!r} was rejected with {error.type}: {error.message}", error)
        self.id = promise


class StepError(StoredError):
    """A step failed for good: its attempts are used up, or its error was declared fatal.

    `operation` names the step; `type`, `error_message`, `data`, `traceback` and `cause` say what it raised.
    """

    status = 500
    title = "Step failed"

    def __init__(self, operation: str, error: ErrorDetails) -> None:
        super().__init__(f"Step {operation!r} failed with {error.type}: {error.message}", error)
        self.operation = operation


class PromiseCanceled(TrothError):
    """The awaited promise was canceled; `reason` is what the canceler wrote, if anything."""

    status = 409
    title = "Promise canceled"

    def __init__(self, promise: str, reason: str | None = None) -> None:
        super().__init__(f"Promise {promise!r} was canceled" + (f": {reason}" if reason else "."))
        self.id = promise
        self.reason = reason


class PromiseTimedOut(TrothError, TimeoutError):
    """The awaited promise was still pending at its `timeout_at`, and had no default."""

    status = 409
    title = "Promise timed out"

    def __init__(self, promise: str) -> None:
        super().__init__(f"Promise {promise!r} timed out before anybody settled it.")
        self.id = promise


class ResultPending(TrothError, TimeoutError):
    """`result(timeout=)` ran out of time; the promise itself goes on and can be asked again."""

    status = 504
    title = "Result pending"

    def __init__(self, promise: str, timeout_s: float) -> None:
        super().__init__(
            f"Promise {promise!r} was still pending after {timeout_s:g} s; it goes on, ask again."
        )
        self.id = promise
        self.timeout_s = timeout_s


# What arises in a worker or a client.


class Unreachable(TrothError):
    """Postgres cannot be reached or went away; the message names host and port, never a password."""

    status = 503
    title = "Postgres unreachable"


class NotRegistered(TrothError):
    """A workflow was asked for by a name that is not registered here; `known` lists those that are."""

    status = 404
    title = "Workflow not registered"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.known = tuple(sorted(known))
        those = f"known here: {', '.join(self.known)}" if self.known else "none is known here"
        super().__init__(
            f"Workflow {name!r} is not registered; {those}. Give it to the worker, or mend the name."
        )


class ValueMismatch(TrothError):
    """A stored value does not fit the type that the code expects of it.

    `what` names the value, `expected` the type, `found` begins the value, `reason` says where they differ.
    """

    status = 422
    title = "Value does not fit its type"

    def __init__(self, what: str, expected: str, found: str, reason: str | None = None) -> None:
        because = f" ({reason})" if reason else ""
        super().__init__(
            f"{what} does not fit: expected {expected}, found {found}{because}."
            " Give such a value, or mend the type."
        )
        self.what = what
        self.expected = expected
        self.found = found
        self.reason = reason


class UndecodablePayload(TrothError):
    """A stored payload cannot be opened: its headers name a codec that is not configured, or that refused it.

    Configure the codec (and key) that `codec` names; the payload itself is kept as it is.
    """

    status = 422
    title = "Payload cannot be opened"

    def __init__(self, what: str, codec: str, reason: str) -> None:
        super().__init__(
            f"{what} was stored by the codec {codec!r} and cannot be opened: {reason}."
            " Configure that codec with its key, as the program had that stored it."
        )
        self.what = what
        self.codec = codec
        self.reason = reason


class Diverged(TrothError):
    """Replayed code did something else than its journal says, so the task is parked before anything runs.

    `operation` names where, `recorded` and `issued` are the two descriptions, `line` is the line of code.
    Bring the code back to what it did, or mark the change with `ctx.patched`, and resume the task.
    """

    status = 409
    title = "Workflow diverged from its journal"

    def __init__(self, operation: str, recorded: str, issued: str, line: str | None = None) -> None:
        at = f" at {line}" if line else ""
        super().__init__(
            f"The journal has {recorded} at {operation!r}, but the code issued {issued}{at}."
            " Bring the code back, or mark the change with ctx.patched, then resume the task."
        )
        self.operation = operation
        self.recorded = recorded
        self.issued = issued
        self.line = line


class WorkflowMisuse(TrothError):
    """Workflow code called something that has no place in a workflow: a socket, a thread. Do it in a step."""

    status = 500
    title = "Not possible inside a workflow"


class ProviderFailed(TrothError):
    """What a step needs could not be made; its cause says why. The next step that needs it tries again.

    `provider` names the factory.
    """

    status = 500
    title = "Provider failed"

    def __init__(self, provider: str, reason: str) -> None:
        super().__init__(f"The provider {provider} failed: {reason}")
        self.provider = provider


class StepAbandoned(TrothError):
    """Nobody waits for this attempt of a step any more: it timed out, was given up, or its task is with another worker.

    Raised by `step_info().heartbeat()` inside the step, which should stop.
    """

    status = 409
    title = "Step abandoned"

    def __init__(self, operation: str) -> None:
        super().__init__(f"Nobody waits for this attempt of {operation!r} any more: stop.")
        self.operation = operation


def _own(kinds: Iterable[type[TrothError]]) -> dict[str, type[TrothError]]:
    return {kind.sqlstate: kind for kind in kinds if kind.sqlstate is not None}


BY_SQLSTATE: Final = _own(
    (
        InvalidId,
        InvalidArgument,
        PayloadTooLarge,
        PayloadTooDeep,
        InvalidPayload,
        IdConflict,
        UnknownPromise,
        WrongState,
        WorkerDead,
        LimitExceeded,
        SchemaMismatch,
        IsolationLevel,
    )
)
"""Each SQLSTATE that Troth's functions raise, with its class."""

_NOT_MIGRATED: Final = frozenset({"3F000", "42883"})
"""Schema or function does not exist: what a call meets before the first `troth migrate`."""


def from_sqlstate(
    sqlstate: str | None, message: str, detail: str | None = None, hint: str | None = None
) -> TrothError:
    """The error for what a call of one of Troth's SQL functions raised."""
    if sqlstate in _NOT_MIGRATED:
        return SchemaMismatch(message, detail=detail, hint=hint or "Run `troth migrate` on this schema.")
    kind = BY_SQLSTATE.get(sqlstate or "")
    if kind is None:
        return DatabaseError(message, code=sqlstate or "XX000", detail=detail, hint=hint)
    return kind(message, detail=detail, hint=hint)
