"""What an operation is known by, and what its event means to the code that awaits it."""

from __future__ import annotations

import functools
import hashlib
import inspect
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, cast

from msgspec import Struct
from typing_extensions import TypeForm

from troth import limits
from troth.codec import Payloads, encode, only_scalars
from troth.context.requests import CALL, START
from troth.core import STEP, Entry
from troth.errors import (
    InvalidArgument,
    InvalidPayload,
    PayloadTooDeep,
    PromiseCanceled,
    PromiseRejected,
    PromiseTimedOut,
    StepError,
)
from troth.model import JournalEntry
from troth.registry import Step, result_type, step_name
from troth.remote import rebuilt

T = TypeVar("T")


def opened(workflow: str, payloads: Payloads, type_: TypeForm[T], entry: Entry) -> T:
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


class Known(Struct, frozen=True, eq=False):
    """What a step function says of itself: the name that it runs under (None: none that says anything), the type of what it
    returns (Any where it does not say), and whether it is an `async def`.
    """

    name: str | None
    result_type: Any
    is_async: bool


_KNOWN: Final[weakref.WeakKeyDictionary[Callable[..., Any], Known]] = weakref.WeakKeyDictionary()
"""Working out a function's annotations costs as much as a step's other overhead together; kept while the function lives."""


def known_of(fn: Callable[..., Any]) -> Known:
    """What a step function, or a `Step`, says of itself."""
    try:
        return _KNOWN[fn]
    except (KeyError, TypeError):
        try:
            name = step_name(fn)
        except InvalidArgument:
            name = None
        inner = cast("Step[..., Any]", fn).fn if isinstance(fn, Step) else fn
        known = Known(name, result_type(inner), inspect.iscoroutinefunction(inner))
    try:
        _KNOWN[fn] = known
    except TypeError:  # nothing weak can be held on it
        return known
    return known


def digest_of(
    kind: str, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], encoded: bytes | None = None
) -> int:
    """Kind, function and arguments as one number. Arguments that are no JSON (a pool, a client) do not count."""
    if encoded is not None:
        return digest_operation(kind, name, encoded)
    if not args and not kwargs:
        return digest_operation(kind, name, b"")
    try:
        if not kwargs and only_scalars(args):  # the same text, in half the time
            text = b"[" + encode(args, "The arguments", max_bytes=2**31) + b",{}]"
        else:
            text = encode([args, kwargs], "The arguments", max_bytes=2**31)
    except (InvalidPayload, PayloadTooDeep):
        text = b"?"
    return digest_operation(kind, name, text)


def digest_operation(kind: str, name: str, args: bytes) -> int:
    """What a journal keeps of an operation's kind, function and arguments, to know it again: 63 bits of SHA-256.

    `args` is the text that `encode` gave, whose keys have one order.
    """
    said = _spelled(kind, name) + len(args).to_bytes(8, "big") + args
    return int.from_bytes(hashlib.sha256(said).digest()[:8], "big") >> 1


@functools.lru_cache(maxsize=limits.decoders_cached_max)
def _spelled(kind: str, name: str) -> bytes:
    parts = kind.encode(), name.encode()
    return b"".join([piece for part in parts for piece in (len(part).to_bytes(8, "big"), part)])
