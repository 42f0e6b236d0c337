"""The context: what workflow code asks of the world, each as an operation that is recorded once.

`ctx.run(fn, ...)` calls a function outside the workflow, `ctx.promise(T, "name")` names a value that somebody will settle,
`ctx.wait(T, id)` waits for a promise that is there already. All give a future at once; awaiting it waits durably. Time, chance
and sleep come from the journal: `ctx.now()`, `ctx.random`, `ctx.uuid4()`, `ctx.sleep(...)`, and asyncio's own `sleep` and
`timeout` are durable as they are.

The context issues operations on the machine whose code is running, and decodes what they brought. It does no I/O: the worker
carries out what a request says.
"""

from __future__ import annotations

import asyncio
import random
import uuid
import weakref
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Generic, ParamSpec, Self, TypeVar, cast, overload

import msgspec
from typing_extensions import TypeForm

from troth import limits
from troth.codec import Payloads, Sealed, decode, digest_operation, encode
from troth.core import PROMISE, STEP, Entry, Machine, OperationFuture
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
from troth.registry import Step, check_name, result_type, step_name

P = ParamSpec("P")
T = TypeVar("T")

WAIT = "wait"
"""The kind of operation that waits for somebody else's promise."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class StepRequest:
    """A function to call outside the workflow."""

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PromiseRequest:
    """A latent promise to make under the operation's ID; `timeout` in microseconds."""

    timeout: int | None
    default: Sealed | None
    title: str | None
    tags: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class WaitRequest:
    """A promise of the namespace to wait for."""

    promise: str


@dataclass(frozen=True, slots=True)
class _Options:
    name: str | None = None
    timeout: timedelta | None = None
    default: object = msgspec.UNSET
    title: str | None = None
    tags: Mapping[str, str] | None = None


class Promise(Awaitable[T], Generic[T]):
    """A value that will exist: anybody settles it by `id`, awaiting it waits for that."""

    __slots__ = ("_future", "id")

    def __init__(self, id: str, future: OperationFuture[T]) -> None:
        self.id = id
        self._future = future

    def __await__(self) -> Generator[Any, None, T]:
        # a timeout around one wait cancels that wait, not the promise: it can be awaited again
        return asyncio.shield(self._future).__await__()

    def done(self) -> bool:
        """The workflow has been told the outcome."""
        return self._future.done()

    def __repr__(self) -> str:
        return f"<Promise {self.id}>"


class Context:
    """What a workflow's code is given as its first argument. It belongs to one run of one workflow."""

    __slots__ = ("_machine", "_options", "_payloads", "_random", "_seed", "attempt", "id")

    def __init__(
        self, machine: Machine[Any], id: str, *, payloads: Payloads, seed: int, attempt: int = 1
    ) -> None:
        self.id = id
        """The workflow's ID."""
        self.attempt = attempt
        """How many claims this run of the code is since it last made progress; not the same at a replay."""
        self._machine = machine
        self._payloads = payloads
        self._seed = seed
        self._random: random.Random | None = None
        self._options = _Options()

    def options(
        self,
        *,
        name: str | None = None,
        timeout: timedelta | float | None = None,
        default: object = msgspec.UNSET,
        title: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Self:
        """The context with options for the operation asked through it; they never mix with a function's arguments.

        `name`: the operation's name, instead of the function's. `timeout` (timedelta or seconds), `default`, `title`
        and `tags`: of a promise. With a default, running out of time resolves the promise with it.

            approval = ctx.options(timeout=timedelta(days=7), default=False).promise(bool, "approval")
        """
        other = object.__new__(type(self))
        for slot in Context.__slots__:
            setattr(other, slot, getattr(self, slot))
        span = timedelta(seconds=timeout) if isinstance(timeout, int | float) else timeout
        if span is not None and not timedelta(0) <= span <= timedelta(days=limits.timeout_days_max):
            raise InvalidArgument(f"A timeout of {span} cannot be: 0 to {limits.timeout_days_max} days.")
        given = {"name": name, "timeout": span, "title": title, "tags": tags}
        changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        if default is not msgspec.UNSET:
            changes["default"] = default
        other._options = replace(self._options, **changes)
        return other

    @overload
    def run(
        self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[T]: ...
    @overload
    def run(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]: ...
    def run(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> asyncio.Future[Any]:
        """Call a function as a step, an `async def` or (in a thread) a plain one: at least once until its outcome is
        recorded, then never again.

        Its arguments are taken as they are when it starts: do not change a list that you gave it.
        What it returns must be JSON (dataclasses, enums, pydantic models, ... included) and comes back as the type that
        the function declares, live and replayed alike. What it raises arrives as `StepError`.

            receipt = await ctx.run(charge, order, amount=3)
        """
        inner: Callable[..., Any] = fn
        name = self._options.name or step_name(fn)
        if isinstance(fn, Step):
            inner = cast("Step[..., Any]", fn).fn
        request = StepRequest(inner, args, kwargs)
        return self._issue(STEP, name, request, _digest(STEP, name, args, kwargs), _result_type(inner))

    def promise(self, type_: TypeForm[T], name: str | None = None) -> Promise[T]:
        """A latent promise of this workflow: its `id` is known at once, anybody settles it by that, awaiting it waits.

        A value that is no `type_` raises `ValueMismatch` here. Awaiting raises `PromiseRejected`, `PromiseCanceled` or
        `PromiseTimedOut` for the other ends. If a latent promise with that ID is there already, this is it.

            approval = ctx.promise(bool, "approval")
            await ctx.run(send_email, approval.id)
            if await approval: ...
        """
        options = self._options
        default = None
        if options.default is not msgspec.UNSET:
            if options.timeout is None:
                raise InvalidArgument(
                    "A default without a timeout would never come.", hint="Give both, or neither."
                )
            decode(encode(options.default, "The default"), type_, "The default")
            default = self._payloads.seal(options.default, "The default")
        request = PromiseRequest(_micros(options.timeout), default, options.title, options.tags)
        future = self._issue(
            PROMISE, name or options.name or "promise", request, _digest(PROMISE, "", (), {}), type_
        )
        return Promise(f"{self.id}~{future.operation.path}", future)

    def wait(self, type_: TypeForm[T], id: str) -> asyncio.Future[T]:
        """Wait for any promise of the namespace, a workflow's or a latent one; its value as a `type_`.

        Raises as `promise` does; a promise that does not exist parks the workflow until it is resumed.
        """
        return self._issue(
            WAIT,
            self._options.name or "wait",
            WaitRequest(id),
            _digest(WAIT, id, (), {}),
            type_,
        )

    async def sleep(self, duration: timedelta | float) -> None:
        """Sleep durably, for seconds or months: the process may end meanwhile. `asyncio.sleep` does the same."""
        seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
        await asyncio.sleep(seconds)

    def now(self) -> datetime:
        """The instant of the last event that this code was told, in UTC; the same at a replay."""
        return _EPOCH + timedelta(microseconds=self._machine.now)

    @property
    def random(self) -> random.Random:
        """Chance that falls the same way at a replay. Not for secrets."""
        if self._random is None:
            self._random = random.Random(self._seed)  # noqa: S311 — replayed chance, not for secrets
        return self._random

    def uuid4(self) -> uuid.UUID:
        """A UUID that is the same at a replay. Not for secrets."""
        return uuid.UUID(int=self.random.getrandbits(128), version=4)

    def _issue(
        self, kind: str, name: str, request: object, digest: int | None, type_: TypeForm[T]
    ) -> OperationFuture[T]:
        check_name(name, "operation")
        payloads = self._payloads
        workflow = self.id

        def finish(entry: Entry) -> T:
            return _opened(entry, workflow, payloads, type_)

        return self._machine.issue(kind, name, request, digest, finish)


def _opened(entry: Entry, workflow: str, payloads: Payloads, type_: TypeForm[T]) -> T:
    """What an event means to the code that awaits its operation: a value, or an error raised."""
    stored = cast("JournalEntry", entry.outcome)
    if entry.state == "resolved":
        what = f"The result of step {entry.path!r}" if entry.kind == STEP else f"The value of {entry.path!r}"
        return payloads.open(stored.value, stored.headers, type_, what)
    if entry.kind == STEP:
        raise StepError(entry.path, payloads.open_error(stored.error, stored.headers))
    id = stored.promise or f"{workflow}~{entry.path}"
    match entry.state:
        case "rejected":
            raise PromiseRejected(id, payloads.open_error(stored.error, stored.headers))
        case "timedout":
            raise PromiseTimedOut(id)
        case _:
            raise PromiseCanceled(id, payloads.open_error(stored.error, None).message)


_RESULT_TYPES: Final[weakref.WeakKeyDictionary[Callable[..., Any], Any]] = weakref.WeakKeyDictionary()
"""Working out a function's annotations costs as much as a step's other overhead together; kept while the function lives."""


def _result_type(fn: Callable[..., Any]) -> Any:
    try:
        return _RESULT_TYPES[fn]
    except (KeyError, TypeError):
        found = result_type(fn)
    try:
        _RESULT_TYPES[fn] = found
    except TypeError:  # nothing weak can be held on it
        return found
    return found


def _digest(kind: str, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Kind, function and arguments as one number. Arguments that are no JSON (a pool, a client) do not count."""
    if not args and not kwargs:
        return digest_operation(kind, name, b"")
    try:
        text = encode([args, kwargs], "The arguments", max_bytes=2**31)
    except (InvalidPayload, PayloadTooDeep):
        text = b"?"
    return digest_operation(kind, name, text)


def _micros(span: timedelta | None) -> int | None:
    return None if span is None else span // timedelta(microseconds=1)
