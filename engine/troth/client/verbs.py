"""What the blocking and the asynchronous client share: options, and the call that each verb makes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, Literal, Self, TypeVar

import msgspec
from typing_extensions import TypeForm

from troth import calls
from troth.calls import Call
from troth.codec import Codec, Payloads, Sealed, encode
from troth.errors import (
    InvalidArgument,
    PromiseCanceled,
    PromiseRejected,
    PromiseTimedOut,
    ResultPending,
    SchemaMismatch,
    TrothError,
    UnknownPromise,
    WrongState,
)
from troth.model import (
    ErrorInfo,
    Exported,
    JournalEntry,
    Operated,
    PromiseInfo,
    Record,
    Settlement,
    Started,
    StartedItem,
)
from troth.registry import Workflow, named_arguments
from troth.schema import checked

T = TypeVar("T")

PROTOCOL: Final = 1
"""The version of the SQL protocol that this release speaks."""

EXPORT_PAGE: Final = 200
"""How many events `export` reads at a time: fewer than Postgres can put into one JSON array, however large they are."""


@dataclass(frozen=True, slots=True)
class Options:
    """How the calls made through a client differ from the usual; see `Troth.options`."""

    queue: str | None = None
    delay: timedelta | None = None
    timeout: timedelta | None = None
    priority: int = 0
    tags: Mapping[str, str] | None = None
    connection: Any = None
    on_conflict: Literal["error", "attach"] = "error"
    actor: str | None = None
    title: str | None = None


class Verbs:
    """What both clients share: options, and the calls that the verbs make."""

    def __init__(self, schema: str, codec: Codec | None) -> None:
        self.schema = checked(schema)
        self.payloads = Payloads(codec)
        self._options = Options()

    def options(
        self,
        *,
        queue: str | None = None,
        delay: timedelta | float | None = None,
        timeout: timedelta | float | None = None,
        priority: int | None = None,
        tags: Mapping[str, str] | None = None,
        connection: Any = None,
        on_conflict: Literal["error", "attach"] | None = None,
        actor: str | None = None,
        title: str | None = None,
    ) -> Self:
        """The client with other options; those not given stay as they are.

        `queue`, `delay`, `timeout`, `priority` (lower goes first), `tags` and `on_conflict` are for `start`; `timeout`,
        `tags` and `title` for `create_promise` (durations are timedeltas or seconds); `actor` says who decides, for
        `resolve`, `reject`, `cancel` and operators' verbs. With `connection=` calls run on that connection,
        inside its transaction.
        """
        given = {
            "queue": queue,
            "delay": _span(delay, "delay"),
            "timeout": _span(timeout, "timeout"),
            "priority": priority,
            "tags": tags,
            "connection": connection,
            "on_conflict": on_conflict,
            "actor": actor,
            "title": title,
        }
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        other._options = replace(self._options, **changes)
        return other

    def _start(
        self, id: str, workflow: Workflow[..., Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Call[Started]:
        name, arguments = _bound(id, workflow, args, kwargs, self.payloads.max_bytes)
        options = self._options
        timeout = options.timeout
        queue = options.queue
        if isinstance(workflow, Workflow):
            timeout = workflow.timeout if timeout is None else timeout
            queue = workflow.queue if queue is None else queue
        return calls.start(
            id,
            name,
            self.payloads.seal_plain(arguments, f"The arguments of {id!r}"),
            queue=queue,
            delay=options.delay,
            timeout=timeout,
            priority=options.priority or None,
            tags=options.tags,
            on_conflict=None if options.on_conflict == "error" else options.on_conflict,
        )

    def _start_many(
        self, workflow: Workflow[..., Any] | str, arguments: Mapping[str, Mapping[str, Any] | Sequence[Any]]
    ) -> Call[list[StartedItem]]:
        options, payloads = self._options, self.payloads
        known = workflow if isinstance(workflow, Workflow) else None
        timeout = options.timeout if options.timeout is not None or known is None else known.timeout
        queue = options.queue or (known.queue if known else None)
        args, headers, digests = _bound_each(workflow, arguments, payloads)
        return calls.start_each(
            known.name if known else str(workflow),
            list(arguments),
            args,
            queue=queue,
            delay=options.delay,
            timeout=timeout,
            priority=options.priority or None,
            tags=options.tags,
            headers=headers,
            digests=digests,
        )

    def _create_promise(self, id: str, default: Sealed | None) -> Call[Started]:
        options = self._options
        return calls.create_promise(
            id, timeout=options.timeout, default=default, tags=options.tags, title=options.title
        )

    def _resolve(self, id: str, value: object) -> Call[Settlement]:
        return calls.resolve(
            id, self.payloads.seal(value, f"The value for {id!r}"), actor=self._options.actor
        )

    def _reject(self, id: str, error: BaseException | str | ErrorInfo) -> Call[Settlement]:
        stored = ErrorInfo("Rejected", error) if isinstance(error, str) else error
        return calls.reject(id, self.payloads.seal_error(stored), actor=self._options.actor)

    def _cancel(self, id: str, reason: str | None, force: bool) -> Call[Settlement]:
        return calls.cancel(id, reason=reason, actor=self._options.actor, force=force)

    def _fork(
        self, id: str, new_id: str, before: str | None, reason: str | None, version: int | None
    ) -> Call[Started]:
        return calls.fork(
            id, new_id, before=before, version=version, reason=reason, actor=self._options.actor
        )

    def _settle_step(
        self,
        id: str,
        operation: str,
        value: object,
        error: BaseException | str | ErrorInfo | None,
        reason: str | None,
    ) -> Call[Operated]:
        if value is not msgspec.UNSET and error is not None:
            raise InvalidArgument("A step has a value or an error, not both.", hint="Give one of them.")
        what = f"of {operation!r} of {id!r}"
        if error is None:
            plain = None if value is msgspec.UNSET else value
            sealed = {"value": self.payloads.seal(plain, f"The value {what}")}
        else:
            stored = ErrorInfo("Rejected", error) if isinstance(error, str) else error
            sealed = {"error": self.payloads.seal_error(stored, f"The error {what}")}
        return calls.settle_step(id, operation, **sealed, reason=reason, actor=self._options.actor)

    def _import(self, document: Exported | bytes | str, id: str | None) -> tuple[str, Call[Started]]:
        exported = document if isinstance(document, Exported) else read_exported(document)
        call = calls.import_journal(exported.record, exported.journal, id=id, actor=self._options.actor)
        return id or exported.record.id, call

    def value_of(self, promise: PromiseInfo, type_: TypeForm[T]) -> T:
        """The value of a settled promise as a `type_`; raises what else it was settled with."""
        match promise.state:
            case "resolved":
                return self.payloads.open(
                    promise.value, promise.headers, type_, f"The value of {promise.id!r}"
                )
            case "rejected":
                raise PromiseRejected(promise.id, self.payloads.open_error(promise.error, promise.headers))
            case "canceled":
                raise PromiseCanceled(promise.id, self.payloads.open_error(promise.error, None).message)
            case "timedout":
                raise PromiseTimedOut(promise.id)
            case "pending":
                raise ResultPending(promise.id, 0.0)


def _bound(
    id: str, workflow: object, args: tuple[Any, ...], kwargs: dict[str, Any], max_bytes: int
) -> tuple[str, bytes]:
    """The name of a workflow, and its arguments as their canonical text, which is worked out once."""
    match workflow:
        case Workflow():
            text = encode(workflow.bind(args, kwargs), f"The arguments of {workflow.name!r}", max_bytes)
            # what the worker would refuse is refused here, before it takes the ID
            workflow.arguments(text)
            return workflow.name, text
        case str():
            return workflow, encode(named_arguments(args, kwargs), f"The arguments of {id!r}", max_bytes)
        case _:
            raise InvalidArgument(
                f"A {type(workflow).__name__} cannot be started.",
                hint="Give a function decorated with @workflow, or its name.",
            )


def _bound_each(
    workflow: object, arguments: Mapping[str, Mapping[str, Any] | Sequence[Any]], payloads: Payloads
) -> tuple[bytes, bytes | None, list[bytes] | None]:
    """The arguments of each as one JSON array, and with a codec their headers and digests.

    Without one, and where no signature has to be looked at, they are encoded all at once: an array is refused for whatever
    any of its items would be. Only then (or if it is too much as a whole) are they taken one by one, which tells the fault.
    """
    if isinstance(workflow, str) and payloads.codec is None:
        with contextlib.suppress(TrothError):
            named = [named_arguments(*_split(each)) for each in arguments.values()]
            return encode(named, "The arguments", payloads.max_bytes, ordered=False), None, None
    sealed = [
        payloads.seal_plain(
            _bound(id, workflow, *_split(each), payloads.max_bytes)[1], f"The arguments of {id!r}"
        )
        for id, each in arguments.items()
    ]
    digests = [each.digest for each in sealed if each.digest is not None]
    headers = sealed[0].headers if sealed else None
    return b"[" + b",".join([each.data for each in sealed]) + b"]", headers, digests or None


def _split(given: Mapping[str, Any] | Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What was given for one call, by name or by position, as positionals and keywords."""
    # looked at by their classes first: asking an ABC takes twice the time of all the rest
    if isinstance(given, dict) or (not isinstance(given, list | tuple) and isinstance(given, Mapping)):
        return (), dict(given)
    return tuple(given), {}


def only(id: str, found: Sequence[PromiseInfo]) -> PromiseInfo:
    if not found:
        raise UnknownPromise(f"No promise has the ID {id!r}.", hint="Look for it with `troth list`.")
    return found[0]


def recorded(record: Record | None, promise: PromiseInfo | None) -> Record:
    """The record of a workflow, or why it has none."""
    if record is not None:
        return record
    found = only("", [] if promise is None else [promise])
    raise WrongState(
        f"{found.id!r} is a latent promise: it has no journal."
        if found.latent
        else f"{found.id!r} has not run yet: it has no journal.",
        hint="Only a workflow that a worker has claimed can be replayed.",
    )


def exported(record: Record, entries: Sequence[JournalEntry]) -> Exported:
    """A record and the journal that belongs to it: what was told since is left out."""
    if len(entries) < record.last_seq:
        raise UnknownPromise(f"{record.id!r} was purged while it was read.")
    return Exported(record=record, journal=list(entries[: record.last_seq]))


def read_exported(text: bytes | str) -> Exported:
    """What `export` gave, from its JSON text."""
    try:
        return _EXPORTED.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise InvalidArgument(
            f"This is no exported workflow: {error}.",
            hint='Give what `export` wrote: {"format": 1, "record": ..., "journal": [...]}.',
        ) from None


_EXPORTED: Final = msgspec.json.Decoder(Exported)


def check_protocol(spoken: tuple[int, int]) -> None:
    """Refuse a namespace that this release does not understand."""
    current, oldest = spoken
    if current < PROTOCOL:
        raise SchemaMismatch(
            f"The schema speaks protocol {current}, this release needs {PROTOCOL}.",
            hint="Run `troth migrate`.",
        )
    if oldest > PROTOCOL:
        raise SchemaMismatch(
            f"The schema speaks protocol {oldest} and newer, this release only {PROTOCOL}.",
            hint="Upgrade the package `troth`.",
        )


def result_type_of(workflow: Workflow[..., Any] | str) -> Any:
    return workflow.result_type if isinstance(workflow, Workflow) else object


def _span(given: timedelta | float | None, what: str) -> timedelta | None:
    if given is None or isinstance(given, timedelta):
        return given
    try:
        return timedelta(seconds=given)
    except (TypeError, ValueError, OverflowError):
        raise InvalidArgument(
            f"A {what} of {given!r} cannot be.", hint="Give seconds or a timedelta."
        ) from None


def seconds_of(timeout: timedelta | float | None) -> float | None:
    if timeout is None:
        return None
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else float(timeout)
    if not 0 <= seconds <= 10**9:
        raise InvalidArgument(f"A timeout of {timeout} cannot be: it must be zero or more seconds.")
    return seconds
