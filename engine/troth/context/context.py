"""The context: what workflow code asks of the world, each as an operation that is recorded once.

`ctx.run(fn, ...)` calls a function outside the workflow, `ctx.transaction` one whose SQL commits with its outcome, `ctx.call`
and `ctx.start` another workflow, `ctx.promise(T, "name")` names a value that somebody will settle, `ctx.wait(T, id)` waits for
a promise that is there already. All give a future at once; awaiting it waits durably. Time, chance and sleep come from the
journal: `ctx.now()`, `ctx.random`, `ctx.uuid4()`, `ctx.sleep(...)`, and asyncio's own `sleep` and `timeout` are durable as they
are.

The context issues operations on the machine whose code is running, and decodes what they brought. It does no I/O: the worker
carries out what a request says.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import uuid
from collections.abc import Awaitable, Callable, Generator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar, cast, overload

import msgspec
from typing_extensions import TypeForm

from troth.codec import Payloads, decode, encode
from troth.context.options import Options, micros
from troth.context.reading import digest_of, known_of, opened
from troth.context.requests import (
    CALL,
    START,
    WAIT,
    ChildRequest,
    Close,
    Isolation,
    PromiseRequest,
    StepRequest,
    WaitRequest,
)
from troth.core import PROMISE, STEP, Binding, Entry, Machine, OperationFuture
from troth.errors import InvalidArgument
from troth.registry import Step, Workflow, check_name, named_arguments, step_name
from troth.retry import Retry

P = ParamSpec("P")
T = TypeVar("T")

_NO_OPTIONS: Final = Options()
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Promise(Awaitable[T], Generic[T]):
    """A value that will exist: anybody settles it by `id`, awaiting it waits for that.

    `ctx.promise` gives one. A timeout around one `await` ends that wait, not the promise: it can be awaited again.

        approval = ctx.promise(bool, "approval")
        await ctx.run(send_email, approval.id)
        approved = await approval
    """

    __slots__ = ("_future", "id")

    def __init__(self, id: str, future: OperationFuture[T]) -> None:
        self.id = id
        self._future = future

    def __await__(self) -> Generator[Any, None, T]:
        # a timeout around one wait cancels that wait, not the promise: it can be awaited again
        return asyncio.shield(self._future).__await__()

    def __hash__(self) -> int:
        return hash(self._future)  # by its creation, so that a set of promises has one order

    def __eq__(self, other: object) -> bool:
        return self is other

    def done(self) -> bool:
        """The workflow has been told the outcome."""
        return self._future.done()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"


class Child(Promise[T]):
    """A workflow that was started by this one and outlives it: its `id`, and its result for whoever awaits it.

    `ctx.start` gives one; awaiting it is the same as its `result()`.

        invoice = ctx.start(send_invoice, order)
        sent = await invoice
    """

    __slots__ = ()

    async def result(self) -> T:
        """Wait for its end and give its value. Raises what the child raised, `PromiseCanceled` or `PromiseTimedOut`."""
        return await self


class _Chance:
    """The chance of one run, made when it is first needed and shared by all contexts of the run."""

    __slots__ = ("_random", "_seed")

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._random: random.Random | None = None

    def get(self) -> random.Random:
        if self._random is None:
            self._random = random.Random(self._seed)  # noqa: S311 — replayed chance, not for secrets
        return self._random


class Context:
    """What a workflow's code is given as its first argument. It belongs to one run of one workflow."""

    __slots__ = ("_chance", "_machine", "_options", "_payloads", "_scope", "attempt", "id")

    def __init__(
        self, machine: Machine[Any], id: str, *, payloads: Payloads, seed: int, attempt: int = 1
    ) -> None:
        self.id = id
        """The workflow's ID."""
        self.attempt = attempt
        """How many claims this run of the code is since it last made progress; not the same at a replay."""
        self._machine = machine
        self._payloads = payloads
        self._chance = _Chance(seed)
        self._scope: Any = None
        self._options = _NO_OPTIONS

    def options(
        self,
        *,
        name: str | None = None,
        id: str | None = None,
        queue: str | None = None,
        priority: int | None = None,
        delay: timedelta | float | None = None,
        retry: Retry | None = None,
        timeout: timedelta | float | None = None,
        default: object = msgspec.UNSET,
        title: str | None = None,
        tags: Mapping[str, str] | None = None,
        close: Close | None = None,
        isolation: Isolation | None = None,
        compare: bool | None = None,
    ) -> Self:
        """The context with options for the operations asked through it; they never mix with a function's arguments.

        `name`: the operation's name, instead of the function's. Durations are timedeltas or seconds.
        Of a step: `retry`, `timeout` (of one attempt), `isolation` (of a transaction), `compare=False` (its arguments may
        differ at a replay).
        Of a promise: `timeout`, `default` (running out of time resolves it with that), `title`, `tags`.
        Of a child: `id` (one of your own, instead of one below this workflow's), `queue`, `priority`, `delay`, `timeout`,
        `title`, `tags`, `close` (what this workflow's end does to a child of `call` that goes on: `cancel` it and wait, or
        only `wait`).

            approval = ctx.options(timeout=timedelta(days=7), default=False).promise(bool, "approval")
        """
        changed = self._options.changed(
            {
                "name": name,
                "id": id,
                "queue": queue,
                "priority": priority,
                "delay": delay,
                "retry": retry,
                "timeout": timeout,
                "title": title,
                "tags": tags,
                "close": close,
                "isolation": isolation,
                "compare": compare,
            },
            default,
        )
        return self._with(_options=changed)

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
        the function declares, live and replayed alike. What it raises arrives as itself where its class can be found again,
        else as `StepError`. With `retry` it is tried again first; with `timeout` an attempt that takes longer fails with
        TimeoutError.

            receipt = await ctx.run(charge, order, amount=3)
        """
        return self._step(fn, args, kwargs, None)

    def transaction(
        self, fn: Callable[Concatenate[Any, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[T]:
        """Call an `async def` as a step inside a transaction of this Postgres: its SQL and its outcome commit together,
        so it has happened exactly once.

        The function gets the connection (asyncpg's) before its arguments; it neither commits nor rolls back. Where Postgres
        refuses to serialize it, or ends a deadlock by it, it is run again. What it raises rolls back, and is as with `run`.

            await ctx.transaction(book, "order-42", amount=3)  # async def book(connection, order, amount): ...
        """
        if not inspect.iscoroutinefunction(fn.fn if isinstance(fn, Step) else fn):
            raise InvalidArgument(
                f"{step_name(cast('Any', fn))!r} is no `async def`, and only one can use the connection of a transaction.",
                hint="Write it as `async def name(connection, ...)`.",
            )
        return self._step(fn, args, kwargs, self._options.isolation or "read_committed")

    def _step(
        self, fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], isolation: Isolation | None
    ) -> asyncio.Future[Any]:
        options = self._options
        known = known_of(fn)
        name = _checked(options.name) or known.name or step_name(fn)
        retry, timeout = options.retry, options.timeout
        inner: Callable[..., Any] = fn
        if isinstance(fn, Step):
            given = cast("Step[..., Any]", fn)
            inner = given.fn
            retry = retry or given.retry
            timeout = given.timeout if timeout is None else timeout
        seconds = None if timeout is None else timeout.total_seconds()
        request = StepRequest(inner, args, kwargs, known.is_async, retry, seconds, isolation)
        digest = digest_of(STEP, name, args, kwargs) if options.compare else None
        return self._issue(STEP, name, request, digest, known.result_type)

    @overload
    def call(self, workflow: Workflow[P, T], /, *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]: ...
    @overload
    def call(self, workflow: str, /, *args: Any, **kwargs: Any) -> asyncio.Future[Any]: ...
    def call(self, workflow: Workflow[Any, Any] | str, /, *args: Any, **kwargs: Any) -> asyncio.Future[Any]:
        """Run another workflow as a child, with a promise, a task and perhaps a queue of its own; awaiting gives its result.

        What it raised arrives as itself where its class can be found again, else as `PromiseRejected`; the other ends are
        `PromiseCanceled` and `PromiseTimedOut`. It never outlasts this workflow's timeout. Giving up the future cancels the
        child, and so does this workflow's end, which waits until the child has ended too (see `close` of `options`).
        Raises `IdConflict` if a given `id` is taken by something else, `LimitExceeded` beyond the children of a workflow
        or the members of a family.

            totals = await asyncio.gather(*[ctx.call(count, page) for page in pages])
        """
        return self._child(CALL, workflow, args, kwargs, self._options.close)[1]

    @overload
    def start(self, workflow: Workflow[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Child[T]: ...
    @overload
    def start(self, workflow: str, /, *args: Any, **kwargs: Any) -> Child[Any]: ...
    def start(self, workflow: Workflow[Any, Any] | str, /, *args: Any, **kwargs: Any) -> Child[Any]:
        """Start another workflow that goes on by itself, also after this one has ended. Its `id` is known at once.

        It can be awaited like a `call`; giving that up, or ending, leaves it alone. It exists as soon as the workflow's next
        word is recorded.

            invoice = ctx.start(send_invoice, order)
            await ctx.run(tell, invoice.id)
        """
        id, future = self._child(START, workflow, args, kwargs, "outlives")
        return Child(id, future)

    def _child(
        self,
        kind: str,
        workflow: Workflow[..., Any] | str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        binding: Binding,
    ) -> tuple[str, OperationFuture[Any]]:
        options = self._options
        queue, timeout, type_ = options.queue, options.timeout, cast("Any", Any)
        if isinstance(workflow, Workflow):
            function = workflow.name
            arguments = encode(workflow.bind(args, kwargs), f"The arguments of {function!r}")
            workflow.arguments(arguments)  # what a worker would refuse is refused here
            queue = workflow.queue if queue is None else queue
            timeout = workflow.timeout if timeout is None else timeout
            type_ = workflow.result_type
        else:
            function = check_name(workflow, "workflow")
            arguments = encode(named_arguments(args, kwargs), f"The arguments of {function!r}")
        request = ChildRequest(
            function,
            arguments,
            options.id,
            queue,
            options.priority,
            micros(options.delay),
            micros(timeout),
            options.title,
            options.tags,
        )
        digest = digest_of(kind, f"{function}~{options.id or ''}", (), {}, arguments)
        future = self._issue(
            kind, _checked(options.name) or function, request, digest, type_, binding=binding
        )
        return options.id or f"{self.id}~{future.path}", future

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
        request = PromiseRequest(micros(options.timeout), default, options.title, options.tags)
        name = _checked(name or options.name) or "promise"
        future = self._issue(PROMISE, name, request, digest_of(PROMISE, "", (), {}), type_)
        return Promise(f"{self.id}~{future.path}", future)

    def wait(self, type_: TypeForm[T], id: str) -> asyncio.Future[T]:
        """Wait for any promise of the namespace, a workflow's or a latent one; its value as a `type_`.

        Raises as `promise` does; a promise that does not exist parks the workflow until it is resumed.

            stock = await ctx.wait(int, "warehouse-7~count")
        """
        name = _checked(self._options.name) or "wait"
        return self._issue(WAIT, name, WaitRequest(id), digest_of(WAIT, id, (), {}), type_)

    async def sleep(self, duration: timedelta | float) -> None:
        """Sleep durably, for seconds or months: the process may end meanwhile.

        `asyncio.sleep` does the same, with seconds only.

            await ctx.sleep(timedelta(days=30))
        """
        seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
        await asyncio.sleep(seconds)

    def now(self) -> datetime:
        """The instant of the last event that this code was told, in UTC; the same at a replay.

        Between two awaits time stands still. It is Postgres' clock.

            deadline = ctx.now() + timedelta(days=7)
        """
        return _EPOCH + timedelta(microseconds=self._machine.now)

    @property
    def random(self) -> random.Random:
        """Chance that falls the same way at a replay: a `random.Random` of this run.

        Not for secrets.

            winner = ctx.random.choice(names)
        """
        return self._chance.get()

    def uuid4(self) -> uuid.UUID:
        """A UUID that is the same at a replay.

        Not for secrets.

            key = str(ctx.uuid4())
        """
        return uuid.UUID(int=self.random.getrandbits(128), version=4)

    def patched(self, name: str) -> bool:
        """Whether this run takes the new way of a change in the code, which `name` stands for; decided once, here.

        False for a run that had come past this place before the change was deployed, True for all others, at each replay
        the same. When no run of before the change is left, delete the old way and the call.

            if ctx.patched("ask-the-manager"):
                await ctx.promise(bool, "manager")
        """
        return self._machine.patched(check_name(name, "patch"), scope=self._scope)

    def scope(self, name: str) -> Self:
        """The context with a scope of its own, in which names count anew: `name~charge` instead of `charge:2`.

        For loops: what is asked through it is named by what it is about, not by which number it was, so what is asked for side
        by side may come in another order at a replay (from a set); and a patch is decided for each round by itself.

            for order in orders:
                await ctx.scope(order.id).run(charge, order)
        """
        return self._with(_scope=self._machine.scope(check_name(name, "scope")))

    def _with(self, **changes: object) -> Self:
        other = object.__new__(type(self))
        for slot in Context.__slots__:
            setattr(other, slot, changes.get(slot, getattr(self, slot)))
        return other

    def _issue(
        self,
        kind: str,
        name: str,
        request: object,
        digest: int | None,
        type_: TypeForm[T],
        *,
        binding: Binding = "",
    ) -> OperationFuture[T]:
        finish: Callable[[Entry], T] = partial(opened, self.id, self._payloads, type_)
        return self._machine.issue(kind, name, request, digest, finish, binding=binding, scope=self._scope)


def _checked(name: str | None) -> str | None:
    """The name that an operation was given, if it was given one."""
    return check_name(name, "operation") if name else None
