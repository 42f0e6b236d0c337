"""What a worker does with a run between two calls, and what it makes of an answer (engine/troth/worker/run.py)."""

from __future__ import annotations

from collections.abc import Iterable

from tests.proof.protocol.database import TIMER_TICKS, names
from tests.proof.protocol.programs import Event, Op, Program, Situation
from tests.proof.protocol.rules import Rules
from tests.proof.protocol.states import ENTRIES_MAX, Answer, Call, Db, Run, Worker


def begin(
    db: Db, worker: int, kept: tuple[Event, ...] | None, looked: tuple[Event, ...] | None, rules: Rules
) -> Run:
    """A claim was answered: the run of a task that this worker has just been given.

    `kept` is what the code in its memory was told, if the database counts on that; `looked`, broken, the journal as it was
    before the lock.
    """
    journal = db.journal if looked is None else looked
    recorded = frozenset(wait.op.name for wait in db.waits)
    if kept is not None and db.kept == worker:
        told, rest = kept, journal[db.asked : db.asked + ENTRIES_MAX]
    else:
        told, rest = (), journal[:ENTRIES_MAX]
    told += rest
    seen = len(told) if rules.seen_is_delivered else len(journal)
    return Run(db.epoch, told, seen, recorded=recorded, news=seen < len(journal))


def waiting(run: Run, situation: Situation) -> list[Op]:
    """Steps that are to be started."""
    busy = run.running | {op.name for op in run.arrived}
    return [op for op in situation.open if op.kind in ("step", "transaction") and op.name not in busy]


def unrecorded(run: Run, situation: Situation) -> list[Op]:
    """What the code asked for and the database does not know yet."""
    return [op for op in situation.open if op.kind == "promise" and op.name not in run.recorded]


def startable(run: Run, situation: Situation, rules: Rules) -> list[Op]:
    """Steps that may start now."""
    held_back = run.call or run.news or len(run.told) > run.seen or unrecorded(run, situation)
    return [] if held_back and rules.steps_wait_for_ok else waiting(run, situation)


def tell(run: Run, program: Program, ops: Iterable[Op], at: int) -> Run:
    """Tell the code outcomes that this process saw first, at an instant that it proposes."""
    for op in ops:
        if op in program.situation(run.told).open:
            last = run.told[-1].at if run.told else 0
            run = run._replace(told=(*run.told, Event(op.name, op.kind, op.issued, max(last, at))))
    return run


def arrived(run: Run, program: Program, op: Op, at: int, rules: Rules) -> Run:
    """A step has ended. Nothing is told while a turn is under way."""
    run = run._replace(running=run.running - {op.name})
    if run.call is not None and rules.one_call_at_a_time:
        return run._replace(arrived=(*run.arrived, op))
    return tell(run, program, [op], at)


def wants_turn(run: Run, situation: Situation) -> bool:
    """Whether there is something to say."""
    if run.call is not None:
        return False
    if run.news or len(run.told) > run.seen or situation.ended or unrecorded(run, situation):
        return True
    return not (run.running or waiting(run, situation))


def said(run: Run, situation: Situation) -> Call:
    """The turn: what was told ahead, what was asked for, and how it goes on."""
    call = Call(run.epoch, run.seen, run.told[run.seen :])
    if situation.ended:
        return call._replace(then="finish", value=tuple(event.name for event in run.told))
    call = call._replace(ops=tuple(unrecorded(run, situation)))
    if run.running or waiting(run, situation):
        return call
    return call._replace(then="suspend", timers=tuple(op for op in situation.open if op.kind == "timer"))


def answered(worker: Worker, program: Program, answer: Answer, at: int, rules: Rules) -> Worker:
    """What becomes of a run by the answer to its turn."""
    run = worker.run
    assert run is not None
    assert run.call is not None
    call, run = run.call, run._replace(call=None, news=False)
    match answer.word:
        case "busy":
            run = run._replace(news=True)
        case "fenced":
            return Worker()
        case "ok":
            run = run._replace(
                seen=run.seen + len(call.outcomes), recorded=run.recorded | {op.name for op in call.ops}
            )
            if answer.entries:
                run = _heard(run, answer.entries)
            elif call.then is not None and answer.last_seq <= run.seen:
                return Worker(kept=run.told if call.then == "suspend" else None)
            run = run._replace(news=answer.last_seq > run.seen)
        case _:
            run = _take_news(run, answer.entries, rules)
            run = run._replace(news=answer.last_seq > run.seen)
    queue, run = run.arrived, run._replace(arrived=())
    return worker._replace(run=tell(run, program, queue, at))


def _heard(run: Run, entries: tuple[Event, ...]) -> Run:
    told = (*run.told, *entries)
    return run._replace(told=told, seen=len(told), running=run.running - names(entries))


def _take_news(run: Run, entries: tuple[Event, ...], rules: Rules) -> Run:
    """Keep what was told ahead if the journal went on with just that, else run the code again."""
    ahead = run.told[run.seen :]
    if entries[: len(ahead)] == ahead or not rules.ahead_is_compared:
        return _heard(run, entries[len(ahead) :])
    told = (*run.told[: run.seen], *entries)
    known = names(told)
    return run._replace(
        told=told,
        seen=len(told),
        running=run.running - known,
        arrived=tuple(op for op in run.arrived if op.name not in known),
    )


def committed(run: Run, op: Op, seq: int, at: int) -> Run:
    """A transaction has recorded its outcome itself."""
    if run.call is not None or len(run.told) > run.seen or seq != run.seen + 1:
        return run._replace(news=True)
    told = (*run.told, Event(op.name, op.kind, op.issued, at))
    return run._replace(told=told, seen=seq, running=run.running - {op.name})


def due_timers(run: Run, situation: Situation, clock: int) -> list[tuple[Op, int]]:
    """Open timers that should have fired by a clock, and when. None while a turn is under way."""
    if run.call is not None:
        return []
    instants = [0, *(event.at for event in run.told)]
    due = [(op, instants[op.issued] + TIMER_TICKS) for op in situation.open if op.kind == "timer"]
    return [(op, at) for op, at in due if at <= clock]
