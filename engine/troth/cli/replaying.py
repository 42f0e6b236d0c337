"""`troth replay`: checks code against the journals of workflows, before it is deployed. It writes nothing.

What is read of one workflow is of one moment: record, promise and journal come from one transaction, which is read only. The
code runs in this process, so what it prints goes to standard error; its steps are not carried out.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from troth import calls, limits
from troth.cli.exits import Exit
from troth.cli.output import clean, counted, emit, note, say
from troth.cli.session import Asked, Session
from troth.errors import InvalidArgument, UnknownPromise
from troth.model import Exported, JournalEntry, PromiseInfo, PromiseState, Record

if TYPE_CHECKING:
    import psycopg

    from troth.registry import Registry
    from troth.worker.replaying import Verdict

Words = tuple[str, ...]


class _Case(msgspec.Struct, frozen=True):
    record: Record
    entries: Sequence[JournalEntry]
    promise: PromiseInfo | None = None


def replay(
    target: str,
    /,
    *targets: str,
    id: Annotated[Words, Parameter(name=("--id", "-i"), show_default=False)] = (),
    function: str | None = None,
    state: PromiseState | Literal["all"] | None = None,
    queue: str | None = None,
    prefix: str | None = None,
    limit: int | None = None,
    file: Annotated[Words, Parameter(name=("--file", "-f"), show_default=False)] = (),
    session: Asked,
) -> int:
    """Run workflows' code against their journals, and report where it does something else. Nothing is written.

    Without --id or --file it takes all unfinished workflows that the code knows by name. The exit code is 1 if one of them
    diverges, or cannot be replayed.

    :param target: A file such as approval.py, or a module; file.py:name,other takes only those of its workflows.
    :param targets: More of them.
    :param id: A workflow to replay; can be given often.
    :param function: Only workflows of this name.
    :param state: Those in this state instead of the unfinished ones; all for every one.
    :param queue: Only workflows of this queue.
    :param prefix: Only IDs that begin so.
    :param limit: How many at most.
    :param file: A file that `troth export` wrote, instead of anything in Postgres; can be given often.
    """
    from troth.cli.loading import load_workflows
    from troth.registry import Registry

    filtered = [function, state, queue, prefix, limit]
    if file and (id or filtered != [None] * 5):
        raise InvalidArgument(
            "Files are replayed whole.", hint="Give --file, or what to look for in Postgres."
        )
    if id and filtered != [None] * 5:
        raise InvalidArgument("An ID names one workflow.", hint="Give --id, or what to look for.")
    if limit is not None and limit < 1:
        raise InvalidArgument(f"A limit of {limit} leaves nothing.", hint="Give 1 or more.")
    known = Registry(load_workflows((target, *targets)))
    if file:
        return _reported(known, map(_read, file), json=session.json)
    with _connected(session) as connection:
        source = _Source(connection, session.schema)
        if id:
            found = source.by_id(id)
        else:
            names = [function] if function else sorted({name for name, _ in known})
            found = source.matching(names, state or "pending", queue, prefix, limit)
        return _reported(known, found, json=session.json)


# Where the journals come from.


def _read(path: str) -> _Case:
    try:
        exported = msgspec.json.decode(Path(path).read_bytes(), type=Exported)
    except OSError as error:
        raise InvalidArgument(f"The file {path!r} cannot be read: {error.strerror}.") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidArgument(
            f"{path!r} is no exported workflow: {error}.", hint="Give what `troth export` wrote."
        ) from None
    return _Case(exported.record, exported.journal)


@contextlib.contextmanager
def _connected(session: Session) -> Generator[psycopg.Connection[Any]]:
    """A connection whose every transaction is read only and sees one moment."""
    import psycopg

    from troth.client.verbs import check_protocol
    from troth.errors import Unreachable
    from troth.gateway.borrowed import run_blocking
    from troth.gateway.failures import parse_dsn, place_of, translated

    dsn = session.dsn()
    parts: dict[str, Any] = {"connect_timeout": "10", "application_name": "troth replay", **parse_dsn(dsn)}
    try:
        connection = psycopg.connect("", prepare_threshold=None, **parts)
    except psycopg.Error as error:
        raise translated(error, place_of(dsn)) or Unreachable(str(error)) from error
    with contextlib.closing(connection):
        connection.read_only = True
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with connection.transaction():
            check_protocol(run_blocking(connection, session.schema, calls.protocol()))
        yield connection


class _Source:
    """Workflows of a namespace, each read in a transaction of its own."""

    def __init__(self, connection: psycopg.Connection[Any], schema: str) -> None:
        self._connection = connection
        self._schema = schema

    def by_id(self, ids: Sequence[str]) -> Iterator[_Case]:
        """These workflows. Raises `UnknownPromise`."""
        for id in ids:
            found = self._case(id)
            if found is not None:
                yield found
            else:
                note(f"{id} has never run, so there is nothing to replay.")

    def matching(
        self, names: Sequence[str], state: str, queue: str | None, prefix: str | None, limit: int | None
    ) -> Iterator[_Case]:
        """The workflows of these names that match, page by page."""
        left = limit
        for name in names:
            after: str | None = None
            while left is None or left > 0:
                with self._connection.transaction():
                    page = self._run(
                        calls.search(
                            state=None if state == "all" else state,
                            queue=queue,
                            function=name,
                            prefix=prefix,
                            latent=False,
                            limit=limits.search_limit_max,
                            after=after,
                        )
                    )
                for promise in page:
                    found = None if left == 0 else self._case(promise.id, gone=True)
                    if found is not None:
                        left = None if left is None else left - 1
                        yield found
                if len(page) < limits.search_limit_max:
                    break
                after = page[-1].id

    def _case(self, id: str, *, gone: bool = False) -> _Case | None:
        """All of one workflow; None of one that never ran, or (`gone`) that was purged meanwhile."""
        with self._connection.transaction():
            found = self._run(calls.get([id]))
            if not found:
                if gone:
                    return None
                raise UnknownPromise(f"No promise has the ID {id!r}.", hint="Look for it with `troth list`.")
            record = self._run(calls.record(id))
            if record is None:
                return None
            entries: list[JournalEntry] = []
            while len(entries) < record.last_seq:
                page = self._run(calls.journal(id, from_seq=len(entries) + 1, limit=limits.search_limit_max))
                if not page:
                    break
                entries += page
            return _Case(record, entries, found[0])

    def _run(self, call: calls.Call[Any]) -> Any:
        from troth.gateway.borrowed import run_blocking

        return run_blocking(self._connection, self._schema, call)


# What is said of them.


def _reported(known: Registry, cases: Iterator[_Case], *, json: bool) -> int:
    from troth.worker.replaying import replay as replayed

    results: Counter[str] = Counter()
    events = 0
    for case in cases:
        with contextlib.redirect_stdout(sys.stderr):
            verdict = replayed(known, case.record, case.entries, promise=case.promise)
        results[verdict.result] += 1
        events += verdict.events
        if json:
            emit(verdict)
        elif verdict.result != "same":
            _show(verdict)
    if json:
        emit({"replayed": results.total(), "events": events, **results})
    else:
        _sum_up(results, events)
    failed = results["diverged"] + results["undecodable"] + results["raised"]
    return Exit.FAILED if failed else Exit.OK


def _show(verdict: Verdict) -> None:
    of = f"{verdict.id} ({verdict.function}@{verdict.version})"
    difference = verdict.difference
    if difference is None:
        say(f"{of} {_SAID[verdict.result]}: {verdict.message}")
        return
    say(f"{of} diverges at {difference.operation}" + (f", {difference.line}" if difference.line else ""))
    print(f"  recorded  {clean(difference.recorded)}\n  issued    {clean(difference.issued)}", flush=True)


_SAID = {
    "undecodable": "cannot be read here",
    "raised": "cannot be replayed",
    "unknown": "was not replayed",
}


def _sum_up(results: Counter[str], events: int) -> None:
    if not results:
        note("Nothing was found to replay.")
        return
    parts = [
        (results["same"], "the same"),
        (results["diverged"], "diverged"),
        (results["undecodable"], "undecodable"),
        (results["raised"], "failed to replay"),
        (results["unknown"], "of unknown code"),
    ]
    shown = ", ".join(f"{number} {what}" for number, what in parts if number)
    say(f"{counted(results.total(), 'workflow')}, {counted(events, 'event')}: {shown}")
