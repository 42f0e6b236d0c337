"""`Troth`: the client for asyncio, and the handle on what it started."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

import msgspec
from typing_extensions import TypeForm

from troth import calls
from troth.calls import Call
from troth.client.lookout import Lookout
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
from troth.errors import ResultPending
from troth.gateway.borrowed import run_async
from troth.gateway.pool import Pool
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


class Handle(Generic[T]):
    """A started workflow: its ID, and its result once there is one."""

    def __init__(self, client: Troth, id: str, type_: TypeForm[T], started: Started | None) -> None:
        self._client = client
        self._type = type_
        self.id = id
        self.started = started

    async def result(self, timeout: timedelta | float | None = None) -> T:
        """Wait for the end and give its value, or raise what it ended with.

        `timeout` is in seconds or a timedelta; past it `ResultPending` (a `TimeoutError`) is raised and the workflow
        goes on. Raises `PromiseRejected`, `PromiseCanceled`, `PromiseTimedOut`, `ValueMismatch`.
        """
        promise = await self._client.wait(self.id, timeout)
        if promise.pending:
            raise ResultPending(self.id, seconds_of(timeout) or 0.0)
        return self._client.value_of(promise, self._type)

    async def status(self) -> PromiseInfo:
        """How it stands now."""
        return await self._client.get(self.id)


class Troth(Verbs):
    """The asynchronous client of one namespace. It connects when first needed; use it in one event loop.

    `dsn`: a Postgres URL or keywords; without one, `TROTH_DSN`, then a server that runs for this directory (`troth dev`).
    `schema`: the namespace. `listen_dsn`: where LISTEN works, if `dsn` leads through a pooler. `prepared=False` for a
    pooler in transaction mode. `notify=False`: workers look by themselves only. `codec`: compresses or encrypts payloads.

        async with Troth(dsn) as troth:
            handle = await troth.start("order-42", approve_order, "order-42")
            print(await handle.result())
    """

    def __init__(
        self,
        dsn: str | None = None,
        *,
        schema: str = "troth",
        listen_dsn: str | None = None,
        prepared: bool = True,
        notify: bool = True,
        codec: Codec | None = None,
        connections: int = 10,
    ) -> None:
        super().__init__(schema, codec)
        self.dsn = find_dsn(dsn)
        self.listen_dsn = listen_dsn or self.dsn
        self.prepared = prepared
        self.notify = notify
        self.pool = Pool(self.dsn, schema, size=connections, prepared=prepared)
        self.lookout = Lookout(self.pool)

    async def __aenter__(self) -> Self:
        try:
            await self.connect()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def connect(self) -> None:
        """Connect now, and check that the schema fits. Raises `Unreachable` or `SchemaMismatch`."""
        check_protocol(await self.pool.run(calls.protocol()))

    async def close(self) -> None:
        """Close all connections."""
        self.lookout.close()
        await self.pool.close()

    async def _run(self, call: Call[T]) -> T:
        if self._options.connection is not None:
            return await run_async(self._options.connection, self.schema, call)
        return await self.pool.run(call)

    @overload
    async def start(
        self, id: str, workflow: Workflow[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Handle[T]: ...
    @overload
    async def start(self, id: str, workflow: str, /, *args: Any, **kwargs: Any) -> Handle[Any]: ...
    async def start(
        self, id: str, workflow: Workflow[Any, Any] | str, /, *args: Any, **kwargs: Any
    ) -> Handle[Any]:
        """Start a workflow under an ID of yours, or attach to the one that it names already.

        The same function with the same arguments is the same workflow, pending or finished. Raises `IdConflict` if
        the ID names something else, `InvalidId`, `InvalidArgument`, `PayloadTooLarge`, ..., and writes nothing then.
        """
        started = await self._run(self._start(id, workflow, args, kwargs))
        return Handle(self, id, result_type_of(workflow), started)

    async def start_many(
        self,
        workflow: Workflow[..., Any] | str,
        arguments: Mapping[str, Mapping[str, Any] | Sequence[Any]],
    ) -> list[StartedItem]:
        """Start many workflows of one function in one call: {ID: arguments}. Each is answered by itself, in order."""
        return await self._run(self._start_many(workflow, arguments))

    @overload
    def handle(self, id: str, type_: TypeForm[T], /) -> Handle[T]: ...
    @overload
    def handle(self, id: str, /) -> Handle[Any]: ...
    def handle(self, id: str, type_: TypeForm[Any] = Any, /) -> Handle[Any]:
        """A handle on a promise that was started or created elsewhere; nothing is asked."""
        return Handle(self, id, type_, None)

    async def get(self, id: str) -> PromiseInfo:
        """A promise as it stands. Raises `UnknownPromise`."""
        found = await self._run(calls.get([id]))
        return only(id, found)

    async def get_many(self, ids: Iterable[str]) -> dict[str, PromiseInfo]:
        """Promises by their IDs; unknown ones are absent."""
        return {promise.id: promise for promise in await self._run(calls.get(list(ids)))}

    async def wait(self, id: str, timeout: timedelta | float | None = None) -> PromiseInfo:
        """Wait until a promise is settled, or for `timeout` (seconds or a timedelta), and give it as it is then."""
        promise = await self.get(id)
        seconds = seconds_of(timeout)
        if promise.settled or seconds == 0.0:
            return promise
        return await self.lookout.wait(id, seconds) or await self.get(id)

    async def create_promise(
        self, type_: TypeForm[T], id: str, *, default: T | msgspec.UnsetType = msgspec.UNSET
    ) -> Handle[T]:
        """Create a latent promise, which anybody settles by its ID, or attach to the one that is there.

        With a `default` (and a `timeout` option) it is resolved with that when time runs out.
        """
        sealed = None if default is msgspec.UNSET else self.payloads.seal(default, f"The default of {id!r}")
        started = await self._run(self._create_promise(id, sealed))
        return Handle(self, id, type_, started)

    async def resolve(self, id: str, value: object = None) -> Settlement:
        """Resolve a latent promise. Late, double and unknown are answers: see `Settlement`."""
        return await self._run(self._resolve(id, value))

    async def reject(self, id: str, error: BaseException | str | ErrorInfo) -> Settlement:
        """Reject a latent promise; the code that awaits it raises `PromiseRejected`."""
        return await self._run(self._reject(id, error))

    async def cancel(self, id: str, reason: str | None = None, *, force: bool = False) -> Settlement:
        """Cancel a promise; a workflow that has begun is asked to (`requested`) and ends as its code decides.

        With `force` it ends at once, whatever it does: its code is not asked, and nothing of its clean-up runs.
        """
        return await self._run(self._cancel(id, reason, force))

    async def settle_many(self, items: Sequence[calls.SettleItem]) -> list[Settlement]:
        """Carry out several decisions in one call, all or (on malformed input) none."""
        return await self._run(calls.settle_many(items, actor=self._options.actor))

    async def search(
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
        return await self._run(
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

    async def tree(self, id: str, *, limit: int = 1000) -> list[PromiseInfo]:
        """A promise and all that was made below it. Raises `UnknownPromise`."""
        found = await self._run(calls.tree(id, limit=limit))
        only(id, found)
        return found

    async def journal(self, id: str, *, from_seq: int = 1, limit: int = 1000) -> list[JournalEntry]:
        """A page of a workflow's events, in order."""
        return await self._run(calls.journal(id, from_seq=from_seq, limit=limit))

    async def record(self, id: str) -> Record:
        """What a replay of a workflow needs beside its journal. Raises `UnknownPromise`, or `WrongState` for what never ran."""
        found = await self._run(calls.record(id))
        return recorded(found, await self.get(id) if found is None else None)

    async def export(self, id: str) -> Exported:
        """A workflow as one document: its record, and its journal as it was when the record was read.

        `msgspec.json.encode` writes it, `import_journal` takes it. Raises as `record` does.
        """
        record = await self.record(id)
        entries: list[JournalEntry] = []
        while len(entries) < record.last_seq:
            page = await self.journal(id, from_seq=len(entries) + 1, limit=EXPORT_PAGE)
            if not page:
                break
            entries += page
        return exported(record, entries)

    async def import_journal(self, document: Exported | bytes | str, id: str | None = None) -> Handle[Any]:
        """Bring in a workflow that `export` gave (or the JSON text of it), under its own ID or another; it is halted.

        `resume` lets it run here. Raises `IdConflict` if something is there already, `InvalidArgument` for what is no
        exported workflow.
        """
        name, call = self._import(document, id)
        started = await self._run(call)
        return Handle(self, name, object, started)

    async def halt(self, id: str, reason: str | None = None) -> Operated:
        """Park a workflow until `resume`."""
        return await self._run(calls.halt(id, reason=reason, actor=self._options.actor))

    async def resume(self, id: str) -> Operated:
        """Send a halted workflow on."""
        return await self._run(calls.resume(id, actor=self._options.actor))

    async def fork(
        self,
        id: str,
        new_id: str,
        before: str | None = None,
        reason: str | None = None,
        version: int | None = None,
    ) -> Handle[Any]:
        """Run a workflow again under a new ID, with what it was told before the operation `before` (else with all of it).

        The original, pending or finished, stays as it is. `version` runs it with another version of its code. Raises
        `UnknownPromise`, `IdConflict`, `InvalidArgument` (no such operation), `WrongState` (behind a cancel request).
        """
        started = await self._run(self._fork(id, new_id, before, reason, version))
        return Handle(self, new_id, object, started)

    async def settle_step(
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
        return await self._run(self._settle_step(id, operation, value, error, reason))

    async def purge(self, before: timedelta, *, limit: int = 1000) -> int:
        """Delete families that settled longer ago than `before`; how many promises went."""
        return await self._run(calls.purge(before, limit=limit))
