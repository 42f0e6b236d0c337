"""Running workflows' code again from their journals, and comparing what it does.

A worker dies after any event; another one tells a fresh copy of the code what the journal holds up to there, and goes on. So for
each prefix of a journal a fresh machine is made here, told that prefix, compared and thrown away as at a crash. Compared is
what a worker would act on: the operations that the code issued after each event (name, kind, arguments), and its end. The first
run is also held against what the namespace has stored: the journal itself, event by event, and the result.

Code that does the same every time passes whatever the number of runs. Between two runs Python's global chance is seeded
otherwise, so that code which uses it does not get away with it.

Nothing here speaks to a database. Machines run from a plain callback of the loop, as in a worker.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar, cast

import msgspec

from troth.codec import Payloads, encode
from troth.core import STEP, CanceledOutcome, Machine, Operation, Raised, Returned
from troth.errors import Diverged, NotRegistered, TrothError
from troth.model import PromiseInfo
from troth.registry import Registry, Workflow
from troth.remote import describe_error
from troth.testing.failures import ReplayDiffers
from troth.testing.records import Recorded
from troth.worker.telling import as_told, frontier, made_machine, patches

T = TypeVar("T")

PREFIXES_MAX: Final = 200
"""Of a longer journal, so many prefixes are taken: the shortest half of them and the rest spread evenly."""
_ARGUMENTS_SHOWN_MAX: Final = 200

Watch = AbstractContextManager[object] | None


class Issued(msgspec.Struct, frozen=True):
    """One operation that code issued, as far as it must be the same every time."""

    kind: str
    path: str
    digest: int | None
    line: str | None = None
    given: str = ""

    @property
    def same(self) -> tuple[str, str, int | None]:
        """What is compared: not the line, which moves with every edit."""
        return self.kind, self.path, self.digest

    def __str__(self) -> str:
        return f"{self.kind} {self.path}{self.given}" + (f" at {self.line}" if self.line else "")


class Moment(msgspec.Struct, frozen=True):
    """What the code did after one event (or at its start): what it issued, and how it ended if it did."""

    issued: tuple[Issued, ...]
    end: str | None = None

    @property
    def same(self) -> tuple[tuple[tuple[str, str, int | None], ...], str | None]:
        return tuple(each.same for each in self.issued), self.end


@dataclass
class Replays:
    """What `check_replays` has looked at: workflows, runs of their code, and what had to be left out, with the reason."""

    workflows: int = 0
    runs: int = 0
    left_out: dict[str, str] = field(default_factory=dict[str, str])


async def check_replays(
    records: Sequence[Recorded],
    registry: Registry,
    payloads: Payloads,
    *,
    watch: Watch = None,
    hash_seed: int | None = None,
) -> Replays:
    """Run every workflow again from every prefix of its journal. Raises `ReplayDiffers` for all that differ."""
    seen = Replays()
    differences: list[str] = []
    traces: dict[str, tuple[Recorded, list[Moment]]] = {}
    for record in records:
        try:
            workflow = registry.find(record.record.function, record.record.version)
        except NotRegistered:
            seen.left_out[record.id] = (
                f"no worker of this test knows {record.record.function}@{record.record.version}"
            )
            continue
        try:
            trace, runs = await in_callback(partial(_checked, record, workflow, payloads, watch))
        except ReplayDiffers as error:
            differences.append(str(error))
            continue
        seen.workflows += 1
        seen.runs += runs
        traces[record.id] = (record, trace)
    if hash_seed is not None:
        from troth.testing.hashing import check_elsewhere

        differences += await check_elsewhere(traces, registry, payloads, hash_seed, seen)
    if differences:
        raise ReplayDiffers("\n\n".join(differences))
    return seen


def _checked(
    record: Recorded, workflow: Workflow[Any, Any], payloads: Payloads, watch: Watch
) -> tuple[list[Moment], int]:
    """The moments of the whole journal, which every prefix has to repeat, and how many runs that took."""
    journal = record.journal
    whole = _run(record, workflow, payloads, watch, len(journal), attempt=0)
    _check_end(record, whole, payloads)
    prefixes = prefixes_of(len(journal))
    for number, told in enumerate(prefixes, 1):
        again = _run(record, workflow, payloads, watch, told, attempt=number)
        difference = differing(record, whole, again, "a second run")
        if difference is not None:
            raise ReplayDiffers(difference)
    return whole, len(prefixes) + 1


def prefixes_of(length: int) -> list[int]:
    """The lengths of the prefixes to be taken of a journal; always the whole and nothing."""
    if length < PREFIXES_MAX:
        return list(range(length + 1))
    half = PREFIXES_MAX // 2
    step = (length - half) / (PREFIXES_MAX - half - 1)
    return sorted({*range(half), *(half + round(step * n) for n in range(PREFIXES_MAX - half)), length})


def differing(record: Recorded, whole: Sequence[Moment], again: Sequence[Moment], what: str) -> str | None:
    """Where two runs of one workflow's code part, for a person to read; None where they do not."""
    for told, (first, second) in enumerate(zip(whole, again, strict=False)):
        if first.same == second.same:
            continue
        lines = [f"{record.name} does not do the same every time.", _after(record, told)]
        if [each.same for each in first.issued] != [each.same for each in second.issued]:
            lines.append(f"  the first run asked for  {_listed(first.issued)}")
            lines.append(f"  {what:<14} asked for  {_listed(second.issued)}")
        if first.end != second.end:
            lines.append(f"  the first run   {first.end or 'went on'}")
            lines.append(f"  {what:<14}  {second.end or 'went on'}")
        lines.append(
            "Workflow code must do the same whenever it is told the same: take time, chance and the world from ctx "
            "(ctx.now(), ctx.random, ctx.run), loop over sorted things, and keep no state outside of the function."
        )
        return "\n".join(lines)
    return None


def run_moments(
    record: Recorded, workflow: Workflow[Any, Any], payloads: Payloads, watch: Watch, told: int
) -> list[Moment]:
    """What fresh code does when it is told so many events. Raises `Diverged`, and what telling raises."""
    stored, journal = record.record, record.journal[:told]
    machine = made_machine(
        workflow,
        record.id,
        stored.args,
        None if stored.args_headers is None else msgspec.json.encode(stored.args_headers),
        started_at=stored.started_at,
        seed=stored.seed,
        payloads=payloads,
        watch=watch,
    )
    try:
        # what ctx.patched answers depends on what lies ahead, so every prefix looks ahead as far as the journal goes
        machine.foresee(
            frontier(record.journal, stored.waits, -1 if stored.asked is None else stored.asked),
            patches(record.journal),
        )
        first = _moment(machine.start(), machine)
        return [first, *(_moment(machine.feed(as_told(entry, payloads)), machine) for entry in journal)]
    finally:
        machine.evict()


def _run(
    record: Recorded,
    workflow: Workflow[Any, Any],
    payloads: Payloads,
    watch: Watch,
    told: int,
    *,
    attempt: int,
) -> list[Moment]:
    try:
        with _other_chance(attempt):
            return run_moments(record, workflow, payloads, watch, told)
    except Diverged as error:
        raise ReplayDiffers(
            f"{record.name} does not do what its journal says.\n"
            f"  operation  {error.operation}" + (f" at {error.line}" if error.line else "") + "\n"
            f"  recorded   {error.recorded}\n"
            f"  issued     {error.issued}"
        ) from None
    except TrothError as error:
        raise ReplayDiffers(f"{record.name} cannot be run again: {error}") from error


def _check_end(record: Recorded, whole: Sequence[Moment], payloads: Payloads) -> None:
    """Hold the end of the code against what is stored of it."""
    promise = record.promise
    if promise is None or promise.state not in ("resolved", "rejected"):
        return  # it goes on, or was ended by a timeout or a cancel, which may run no code
    stored = _stored_end(promise, payloads)
    end = whole[-1].end
    if end is None or not _same_end(end, stored):
        raise ReplayDiffers(
            f"{record.name} ends otherwise than it did.\n"
            f"  when it ran    {stored}\n"
            f"  run again      {end or 'goes on'}"
        )


def _same_end(end: str, stored: str) -> bool:
    how, _, what = end.partition(" ")
    how_stored, _, what_stored = stored.partition(" ")
    if how != how_stored or how != "returned":
        return end == stored
    # Postgres has its own order of keys and spelling of numbers
    return cast("bool", msgspec.json.decode(what) == msgspec.json.decode(what_stored))


def _stored_end(promise: PromiseInfo, payloads: Payloads) -> str:
    if promise.state == "resolved":
        return f"returned {payloads.plain(promise.value, promise.headers, 'The result').decode()}"
    return f"raised {payloads.open_error(promise.error, promise.headers).type}"


def _moment(operations: Sequence[Operation], machine: Machine[Any]) -> Moment:
    # what was asked for side by side has no order: a loop over a set may ask for it in any
    return Moment(tuple(sorted(map(_issued, operations), key=lambda each: each.path)), _end_of(machine))


def _issued(operation: Operation) -> Issued:
    given = ""
    if operation.kind == STEP:
        request = cast("Any", operation.request)
        shown = [repr(each) for each in request.args] + [f"{k}={v!r}" for k, v in request.kwargs.items()]
        text = f"({', '.join(shown)})"
        given = text if len(text) <= _ARGUMENTS_SHOWN_MAX else f"{text[:_ARGUMENTS_SHOWN_MAX]}...)"
    return Issued(operation.kind, operation.path, operation.digest, operation.line, given)


def _end_of(machine: Machine[Any]) -> str | None:
    match machine.outcome:
        case None:
            return None
        case Returned(value):
            try:
                return f"returned {encode(value, 'The result').decode()}"
            except TrothError as error:
                return f"raised {describe_error(error).type}"
        case Raised(exception):
            return f"raised {describe_error(exception).type}"
        case CanceledOutcome():
            return "was canceled"


def _after(record: Recorded, told: int) -> str:
    if told == 0:
        return "  at its start"
    entry = record.journal[told - 1]
    return f"  after event {told} of {len(record.journal)} ({entry.kind} {entry.operation} {entry.state})"


def _listed(issued: Collection[Issued]) -> str:
    return ", ".join(str(each) for each in issued) or "nothing"


@contextmanager
def _other_chance(number: int) -> Generator[None]:
    before = random.getstate()
    random.seed(number)
    try:
        yield
    finally:
        random.setstate(before)


async def in_callback(act: Callable[[], T]) -> T:
    """Run what runs workflow code: from a plain callback of the loop, never inside a task."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def call() -> None:
        try:
            done.set_result(act())
        except BaseException as error:  # noqa: BLE001 — it is raised where it is awaited
            done.set_exception(error)

    loop.call_soon(call)
    return await done
