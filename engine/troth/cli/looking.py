"""What shows promises and changes nothing: `get`, `list`, `tree`, `journal`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from troth import limits
from troth.cli.exits import Exit
from troth.cli.output import (
    cell,
    console,
    counted,
    emit,
    error_of,
    note,
    outcome_of,
    shortened,
    show_facts,
    show_table,
    styled,
    value_text,
    when,
)
from troth.cli.session import Asked
from troth.cli.values import Duration, read_tags
from troth.model import JournalEntry, PromiseInfo, PromiseState, TaskInfo

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree


def get(id: str, /, *, wait: Duration | None = None, session: Asked) -> int:
    """Show a promise as it stands, or wait for its end.

    :param id: The promise or workflow.
    :param wait: Wait so long for its end; then 0 means that it is resolved, 1 anything else.
    """
    with session.client() as client:
        promise = client.get(id) if wait is None else client.wait(id, wait)
    if session.json:
        emit(promise)
    else:
        show_facts(_facts(promise))
    return Exit.OK if wait is None or promise.state == "resolved" else Exit.FAILED


def _facts(promise: PromiseInfo) -> list[tuple[str, object]]:
    error = error_of(promise)
    task = promise.task
    return [
        ("id", promise.id),
        ("state", styled(promise.state)),
        ("overdue", "its timeout has passed; it is about to be settled" if promise.overdue else None),
        ("value", value_text(promise.value, promise.headers) if promise.state == "resolved" else None),
        ("error", f"{error.type}: {error.message}" if error else None),
        ("title", promise.title),
        ("kind", "latent promise" if promise.latent else "workflow"),
        ("workflow", _function(promise)),
        ("arguments", None if promise.latent else value_text(promise.args, promise.args_headers)),
        ("queue", promise.queue),
        ("task", _task(task) if task else None),
        ("halted", f"{task.reason.code}: {task.reason.message}" if task and task.reason else None),
        ("tags", " ".join(f"{key}={value}" for key, value in promise.tags.items())),
        ("parent", promise.parent),
        ("created", when(promise.created_at)),
        ("timeout", when(promise.timeout_at)),
        ("settled", when(promise.settled_at)),
        ("settled by", promise.settler),
    ]


def _function(promise: PromiseInfo) -> str | None:
    if promise.function is None or promise.version is None:
        return promise.function
    return f"{promise.function}@{promise.version}"


def _task(task: TaskInfo) -> str:
    held = f" by {task.worker}" if task.worker else ""
    events, claims = counted(task.last_seq, "event"), counted(task.epoch, "time")
    return f"{task.state}{held}, {events}, claimed {claims}"


def list_(
    *,
    state: PromiseState | None = None,
    queue: str | None = None,
    function: str | None = None,
    prefix: str | None = None,
    tag: Annotated[tuple[str, ...], Parameter(name=("--tag", "-t"), show_default=False)] = (),
    latent: Annotated[bool | None, Parameter(negative="--no-latent")] = None,
    limit: int = 50,
    after: str | None = None,
    session: Asked,
) -> int:
    """List promises in the order of their IDs.

    :param state: Only those in this state.
    :param queue: Only workflows of this queue.
    :param function: Only workflows of this name.
    :param prefix: Only IDs that begin so.
    :param tag: Only those with this key=value; can be given often.
    :param latent: Only promises that somebody outside settles, or only workflows.
    :param limit: How many at most, up to 1000.
    :param after: Begin behind this ID: the last one of the page before.
    """
    with session.client() as client:
        found = client.search(
            state=state,
            queue=queue,
            function=function,
            prefix=prefix,
            tags=read_tags(tag),
            latent=latent,
            limit=limit,
            after=after,
        )
    if session.json:
        for promise in found:
            emit(promise)
    elif found:
        columns = ("id", "state", "workflow", "task", "created", "outcome")
        show_table(columns, [_row(promise) for promise in found])
    else:
        note("Nothing was found.")
    if len(found) == limit:
        note(f"There may be more: --after {found[-1].id}")
    return Exit.OK


def _row(promise: PromiseInfo) -> tuple[object, ...]:
    return (
        promise.id,
        styled(promise.state),
        promise.function or "(latent)",
        styled(promise.task.state) if promise.task else None,
        when(promise.created_at),
        outcome_of(promise).partition(": ")[2],
    )


def tree(id: str, /, *, limit: int = limits.search_limit_max, session: Asked) -> int:
    """Show a workflow and all that was made below it.

    :param id: The workflow.
    :param limit: How many promises at most, up to 1000.
    """
    with session.client() as client:
        found = client.tree(id, limit=limit)
    if session.json:
        for promise in found:
            emit(promise)
    else:
        console().print(_grown(id, found))
    if len(found) == limit:
        note(f"There may be more than these {limit}.")
    return Exit.OK


def _grown(id: str, found: list[PromiseInfo]) -> Tree:
    from rich.tree import Tree

    by_id = {promise.id: promise for promise in found}
    root = Tree(_leaf(by_id[id]))
    nodes = {id: root}
    # Parents come before their children: an ID is the beginning of those below it.
    for promise in found:
        if promise.id != id:
            above = nodes.get(promise.parent or id, root)
            nodes[promise.id] = above.add(_leaf(promise))
    return root


def _leaf(promise: PromiseInfo) -> Text:
    from rich.text import Text

    what = promise.function or promise.title or "latent"
    outcome = outcome_of(promise).partition(": ")[2]
    leaf = Text.assemble(cell(promise.id), "  ", styled(promise.state), "  ", cell(what))
    if promise.task:
        leaf.append_text(Text.assemble(", task ", styled(promise.task.state)))
    return leaf.append_text(Text.assemble("  ", cell(outcome))) if outcome else leaf


def journal(
    id: str,
    /,
    *,
    from_seq: Annotated[int, Parameter(name="--from")] = 1,
    limit: int = limits.search_limit_max,
    session: Asked,
) -> int:
    """Show what a workflow's code has been told, in order.

    :param id: The workflow.
    :param from_seq: Begin at this sequence number.
    :param limit: How many events at most.
    """
    entries: list[JournalEntry] = []
    with session.client() as client:
        client.get(id)  # an unknown ID has no journal, and should hear so
        while len(entries) < limit:
            page = min(limit - len(entries), limits.search_limit_max)
            some = client.journal(id, from_seq=from_seq + len(entries), limit=page)
            entries += some
            if len(some) < page:
                break
    if session.json:
        for entry in entries:
            emit(entry)
    elif entries:
        _show_journal(entries)
    else:
        note(f"{id} has no events{f' from {from_seq} on' if from_seq > 1 else ' yet'}.")
    if entries and len(entries) == limit:
        note(f"There may be more: --from {entries[-1].seq + 1}")
    return Exit.OK


def _show_journal(entries: list[JournalEntry]) -> None:
    rows: list[tuple[Any, ...]] = []
    for entry in entries:
        told = entry.value if entry.state == "resolved" else entry.error
        at = f"{entry.instant:%Y-%m-%d %H:%M:%S.%f}"
        text = shortened(value_text(told, entry.headers))
        rows.append((entry.seq, at, entry.operation, entry.kind, styled(entry.state), text))
    show_table(("seq", "at (UTC)", "operation", "kind", "state", "value"), rows)
    sys.stdout.flush()
