"""What an operation is known by, and what its event means to the code that awaits it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, cast

from typing_extensions import TypeForm

from troth.codec import Payloads, digest_operation, encode
from troth.context.requests import CALL, START
from troth.core import STEP, Entry
from troth.errors import (
    InvalidPayload,
    PayloadTooDeep,
    PromiseCanceled,
    PromiseRejected,
    PromiseTimedOut,
    StepError,
)
from troth.model import JournalEntry
from troth.registry import result_type
from troth.remote import rebuilt

T = TypeVar("T")


def opened(entry: Entry, workflow: str, payloads: Payloads, type_: TypeForm[T]) -> T:
    """What an event means to the code that awaits its operation: a value, or an error raised.

    Errors of steps and children were written by workers: they come back as themselves where their class can be found. What
    a person rejected with is a `PromiseRejected`, whatever type it claims to be.
    """
    stored = cast("JournalEntry", entry.outcome)
    if entry.state == "resolved":
        what = f"The result of step {entry.path!r}" if entry.kind == STEP else f"The value of {entry.path!r}"
        return payloads.open(stored.value, stored.headers, type_, what)
    if entry.kind == STEP:
        error = payloads.open_error(stored.error, stored.headers)
        raise rebuilt(error, lambda: StepError(entry.path, error), lambda part: StepError(entry.path, part))
    id = stored.promise or f"{workflow}~{entry.path}"
    match entry.state:
        case "rejected":
            error = payloads.open_error(stored.error, stored.headers)
            rejected = PromiseRejected(id, error)
            raise rebuilt(error, lambda: rejected) if entry.kind in (CALL, START) else rejected
        case "timedout":
            raise PromiseTimedOut(id)
        case _:
            raise PromiseCanceled(id, payloads.open_error(stored.error, None).message)


_RESULT_TYPES: Final[weakref.WeakKeyDictionary[Callable[..., Any], Any]] = weakref.WeakKeyDictionary()
"""Working out a function's annotations costs as much as a step's other overhead together; kept while the function lives."""


def result_type_of(fn: Callable[..., Any]) -> Any:
    """The type of what a step function returns; Any where it does not say."""
    try:
        return _RESULT_TYPES[fn]
    except (KeyError, TypeError):
        found = result_type(fn)
    try:
        _RESULT_TYPES[fn] = found
    except TypeError:  # nothing weak can be held on it
        return found
    return found


def digest_of(
    kind: str, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], encoded: bytes | None = None
) -> int:
    """Kind, function and arguments as one number. Arguments that are no JSON (a pool, a client) do not count."""
    if encoded is not None:
        return digest_operation(kind, name, encoded)
    if not args and not kwargs:
        return digest_operation(kind, name, b"")
    try:
        text = encode([args, kwargs], "The arguments", max_bytes=2**31)
    except (InvalidPayload, PayloadTooDeep):
        text = b"?"
    return digest_operation(kind, name, text)
