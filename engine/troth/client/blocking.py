"""`SyncTroth`: the same verbs, blocking."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

import msgspec
from typing_extensions import TypeForm

from troth import calls
from troth.calls import Call
from troth.client.lookout import LOOK_FACTOR, LOOK_FIRST_S, LOOK_LONGEST_S, OUTAGE_LONGEST_S
from troth.client.verbs import (
    EXPORT_PAGE,
    Verbs,
    check_protocol,
    exported,
    only,
    recorded,
    result_type_of,
    seconds_of,
)
from troth.codec import Codec
from troth.dsn import find_dsn
from troth.errors import ResultPending, Unreachable
from troth.gateway.blocking import Blocking
from troth.gateway.borrowed import run_blocking
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
from troth.registry import Workflow

P = ParamSpec("P")
T = TypeVar("T")


class SyncHandle(Generic[T]):
    """As `Handle`, blocking."""

    def __init__(self, client: SyncTroth, id: str, type_: TypeForm[T], started: Started | None) -> None:
        self._client = client
        self._type = type_
        self.id = id
        self.started = started

    def result(self, timeout: timedelta | float | None = None) -> T:
        """Wait for the end and give its value, or raise what it ended with; as `Handle.result`."""
        promise = self._client.wait(self.id, timeout)
        if promise.pending:
            raise ResultPending(self.id, seconds_of(timeout) or 0.0)
        return self._client.value_of(promise, self._type)

    def status(self) -> PromiseInfo:
        """How it stands now."""
        return self._client.get(self.id)


class SyncTroth(Verbs):
    """As `Troth`, blocking: for scripts, threads, Django, Flask. Calls of several threads take turns."""

    def __init__(
        self,
        dsn: str | None = None,
        *,
        schema: str = "troth",
        prepared: bool = True,
        codec: Codec | None = None,
    ) -> None:
        super().__init__(schema, codec)
        self.dsn = find_dsn(dsn)
        self._gateway = Blocking(self.dsn, schema, prepared=prepared)

    def __enter__(self) -> Self:
        try:
            self.connect()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def connect(self) -> None:
        """Connect now, and check that the schema fits. Raises `Unreachable` or `SchemaMismatch`."""
        check_protocol(self._gateway.run(calls.protocol()))

    def close(self) -> None:
        """Close the connection."""
        self._gateway.close()

    def _run(self, call: Call[T]) -> T:
        if self._options.connection is not None:
            return run_blocking(self._options.connection, self.schema, call)
        return self._gateway.run(call)

    @overload
    def start(
        self, id: str, workflow: Workflow[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> SyncHandle[T]: ...
    @overload
    def start(self, id: str, workflow: str, /, *args: Any, **kwargs: Any) -> SyncHandle[Any]: ...
    def start(
        self, id: str, workflow: Workflow[Any, Any] | str, /, *args: Any, **kwargs: Any
    ) -> SyncHandle[Any]:
        """Start a workflow under an ID of yours, or attach to the one that it names; as `Troth.start`."""
        started = self._run(self._start(id, workflow, args, kwargs))
        return SyncHandle(self, id, result_type_of(workflow), started)

    def start_many(
        self,
        workflow: Workflow[..., Any] | str,
        arguments: Mapping[str, Mapping[str, Any] | Sequence[Any]],
    ) -> list[StartedItem]:
        """Start many workflows of one function in one call: {ID: arguments}."""
        return self._run(self._start_many(workflow, arguments))

    @overload
    def handle(self, id: str, type_: TypeForm[T], /) -> SyncHandle[T]: ...
    @overload
    def handle(self, id: str, /) -> SyncHandle[Any]: ...
    def handle(self, id: str, type_: TypeForm[Any] = Any, /) -> SyncHandle[Any]:
        """A handle on a promise that was started or created elsewhere; nothing is asked."""
        return SyncHandle(self, id, type_, None)

    def get(self, id: str) -> PromiseInfo:
        """A promise as it stands. Raises `UnknownPromise`."""
        found = self._run(calls.get([id]))
        return only(id, found)

    def get_many(self, ids: Iterable[str]) -> dict[str, PromiseInfo]:
        """Promises by their IDs; unknown ones are absent."""
        return {promise.id: promise for promise in self._run(calls.get(list(ids)))}

    def wait(self, id: str, timeout: timedelta | float | None = None) -> PromiseInfo:
        """Wait until a promise is settled, or for `timeout` (seconds or a timedelta), and give it as it is then."""
        seconds = seconds_of(timeout)
        until = None if seconds is None else time.monotonic() + seconds
        pause = LOOK_FIRST_S
        away_since: float | None = None
        while True:
            try:
                promise = self.get(id)
                away_since = None
            except Unreachable:  # sat out for a while, as `Troth` does
                now = time.monotonic()
                away_since = away_since or now
                if now - away_since > OUTAGE_LONGEST_S or (until is not None and now >= until):
                    raise
                time.sleep(LOOK_LONGEST_S)
                continue
            left = None if until is None else until - time.monotonic()
            if promise.settled or (left is not None and left <= 0):
                return promise
            time.sleep(pause if left is None else min(pause, left))
            pause = min(pause * LOOK_FACTOR, LOOK_LONGEST_S)

    def create_promise(
        self, type_: TypeForm[T], id: str, *, default: T | msgspec.UnsetType = msgspec.UNSET
    ) -> SyncHandle[T]:
        """Create a latent promise, or attach to the one that is there; as `Troth.create_promise`."""
        sealed = None if default is msgspec.UNSET else self.payloads.seal(default, f"The default of {id!r}")
        started = self._run(self._create_promise(id, sealed))
        return SyncHandle(self, id, type_, started)

    def resolve(self, id: str, value: object = None) -> Settlement:
        """Resolve a latent promise. Late, double and unknown are answers: see `Settlement`."""
        return self._run(self._resolve(id, value))

    def reject(self, id: str, error: BaseException | str | ErrorInfo) -> Settlement:
        """Reject a latent promise; the code that awaits it raises `PromiseRejected`."""
        return self._run(self._reject(id, error))

    def cancel(self, id: str, reason: str | None = None, *, force: bool = False) -> Settlement:
        """Cancel a promise, or ask a running workflow to; with `force` end it without asking; as `Troth.cancel`."""
        return self._run(self._cancel(id, reason, force))

    def settle_many(self, items: Sequence[calls.SettleItem]) -> list[Settlement]:
        """Carry out several decisions in one call."""
        return self._run(calls.settle_many(items, actor=self._options.actor))

    def search(
        self,
        *,
        state: str | None = None,
        queue: str | None = None,
        function: str | None = None,
        prefix: str | None = None,
        tags: Mapping[str, str] | None = None,
        latent: bool | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> list[PromiseInfo]:
        """A page of promises in the order of their IDs; `after` is the last ID of the page before."""
        return self._run(
            calls.search(
                state=state,
                queue=queue,
                function=function,
                prefix=prefix,
                tags=tags,
                latent=latent,
                limit=limit,
                after=after,
            )
        )

    def tree(self, id: str, *, limit: int = 1000) -> list[PromiseInfo]:
        """A promise and all that was made below it. Raises `UnknownPromise`."""
        found = self._run(calls.tree(id, limit=limit))
        only(id, found)
        return found

    def journal(self, id: str, *, from_seq: int = 1, limit: int = 1000) -> list[JournalEntry]:
        """A page of a workflow's events, in order."""
        return self._run(calls.journal(id, from_seq=from_seq, limit=limit))

    def record(self, id: str) -> Record:
        """What a replay of a workflow needs beside its journal. Raises `UnknownPromise`, or `WrongState` for what never ran."""
        found = self._run(calls.record(id))
        return recorded(found, self.get(id) if found is None else None)

    def export(self, id: str) -> Exported:
        """A workflow as one document: its record, and its journal as it was when the record was read.

        `msgspec.json.encode` writes it, `import_journal` takes it. Raises as `record` does.
        """
        record = self.record(id)
        entries: list[JournalEntry] = []
        while len(entries) < record.last_seq:
            page = self.journal(id, from_seq=len(entries) + 1, limit=EXPORT_PAGE)
            if not page:
                break
            entries += page
        return exported(record, entries)

    def import_journal(self, document: Exported | bytes | str, id: str | None = None) -> SyncHandle[Any]:
        """Bring in a workflow that `export` gave (or the JSON text of it), under its own ID or another; it is halted.

        `resume` lets it run here. Raises `IdConflict` if something is there already, `InvalidArgument` for what is no
        exported workflow.
        """
        name, call = self._import(document, id)
        started = self._run(call)
        return SyncHandle(self, name, object, started)

    def halt(self, id: str, reason: str | None = None) -> Operated:
        """Park a workflow until `resume`."""
        return self._run(calls.halt(id, reason=reason, actor=self._options.actor))

    def resume(self, id: str) -> Operated:
        """Send a halted workflow on."""
        return self._run(calls.resume(id, actor=self._options.actor))

    def fork(
        self,
        id: str,
        new_id: str,
        before: str | None = None,
        reason: str | None = None,
        version: int | None = None,
    ) -> SyncHandle[Any]:
        """Run a workflow again under a new ID, with what it was told before the operation `before` (else with all of it).

        The original, pending or finished, stays as it is. `version` runs it with another version of its code. Raises
        `UnknownPromise`, `IdConflict`, `InvalidArgument` (no such operation), `WrongState` (behind a cancel request).
        """
        started = self._run(self._fork(id, new_id, before, reason, version))
        return SyncHandle(self, new_id, object, started)

    def settle_step(
        self,
        id: str,
        operation: str,
        *,
        value: object = msgspec.UNSET,
        error: BaseException | str | ErrorInfo | None = None,
        reason: str | None = None,
    ) -> Operated:
        """Decide by hand what a step brought: its `value` (None unless given), or its failure with `error`.

        `operation` is its path as the journal shows it. Late, double and unknown are answers: see `Operated`.
        """
        return self._run(self._settle_step(id, operation, value, error, reason))

    def purge(self, before: timedelta, *, limit: int = 1000) -> int:
        """Delete families that settled longer ago than `before`; how many promises went."""
        return self._run(calls.purge(before, limit=limit))
