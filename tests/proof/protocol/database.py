"""The functions of `sql/` that move a task, as pure functions of a `Db`.

Each names the file whose law it is. What they do to rows is what is written there; locks are instants here, but for a
settlement, which holds its promise over two steps, since what comes between its look and its write is the point.
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.proof.protocol.programs import CANCEL, Event, Op
from tests.proof.protocol.rules import Rules
from tests.proof.protocol.states import ENTRIES_MAX, Answer, Call, Db, Settling, Wait

TIMER_TICKS = 1


def claim(db: Db, worker: int, rules: Rules) -> Db:
    """sql/worker/claim.sql: ready -> claimed, epoch + 1."""
    assert db.task == "ready"
    kept = db.kept if db.kept == worker or not rules.kept_is_forgotten else None
    return db._replace(task="claimed", holder=worker, epoch=db.epoch + 1, news=False, kept=kept)


def advance(db: Db, call: Call, rules: Rules) -> tuple[Db, Answer]:
    """sql/worker/advance.sql and its parts, for one turn."""
    if task_is_held(db, rules):
        return db, Answer("busy")
    holds = db.task == "claimed" and db.epoch == call.epoch
    if not (holds or (not rules.fence and db.task in ("claimed", "ready", "suspended"))):
        return db, Answer("fenced")
    if rules.timers_are_judged and _is_early(db, call):
        return db, Answer("busy")
    if (
        rules.held_is_busy
        and rules.look_after_lock
        and any(
            db.settling and op.name == db.settling.promise and not _is_recorded(db, op) for op in call.ops
        )
    ):
        return db, Answer("busy")
    verdict = "ok"
    if rules.seen_is_compared and (
        len(db.journal) != call.seen or (rules.instants_are_judged and _is_astray(db, call))
    ):
        verdict = "news"
    known = len(db.journal)
    if verdict == "ok" or rules.outcomes_of_late_turns:
        db = _append_outcomes(db, call, rules)
    if (
        verdict == "news"
    ):  # perhaps to nobody: a call of long ago must not take the mark from who holds the task now
        return db._replace(news=db.news and rules.late_turn_keeps_mark), _answer("news", db, call.seen, rules)
    told = call.seen + len(db.journal) - known
    db = _create(db, call.ops, rules)._replace(news=False)
    if len(db.journal) > told and rules.undelivered_holds_back:
        return db, _answer("ok", db, told, rules)
    match call.then:
        case "suspend":
            db = _suspend(db, call, rules)
        case "finish":
            db = db._replace(task="gone", holder=None, waits=(), kept=None, ends=(*db.ends, call.value))
        case _:
            pass
    return db, Answer("ok", len(db.journal))


def _answer(word: str, db: Db, after: int, rules: Rules) -> Answer:
    entries = db.journal[after : after + ENTRIES_MAX] if rules.entries_are_returned else ()
    return Answer(word, len(db.journal), entries)


def _is_early(db: Db, call: Call) -> bool:
    """_judge: a timer counts from the event that it was issued after."""
    return any(
        event.kind == "timer" and _instant(db, event.issued) + TIMER_TICKS > max(db.clock, _last_at(db))
        for event in call.outcomes
        if len(db.journal) == call.seen or event.issued <= call.seen
    )


def _is_astray(db: Db, call: Call) -> bool:
    """_judge: an instant told ahead stands between the last event and this clock."""
    return any(not _last_at(db) <= event.at <= max(db.clock, _last_at(db)) for event in call.outcomes)


def _append_outcomes(db: Db, call: Call, rules: Rules) -> Db:
    """sql/worker/_advance_record.sql"""
    late = len(db.journal) != call.seen
    for event in call.outcomes:
        if rules.outcome_once and event.name in names(db.journal):
            continue
        if late and event.issued > call.seen:
            continue
        at = max(_last_at(db), min(db.clock, event.at)) if rules.instants_are_judged else event.at
        waits = tuple(wait for wait in db.waits if wait.op.name != event.name)
        db = _changed(db._replace(journal=(*db.journal, event._replace(at=at)), waits=waits), rules)
    return db


def _create(db: Db, ops: Iterable[Op], rules: Rules) -> Db:
    """sql/worker/_advance_create.sql"""
    for op in ops:
        if rules.recorded_is_skipped and _is_recorded(db, op):
            continue
        if op.name in db.settled and rules.settled_becomes_event:
            db = db._replace(journal=(*db.journal, _event(op, db)))
        else:
            pending = db.pending if op.name in db.settled else db.pending | {op.name}
            db = db._replace(pending=pending, waits=tuple(sorted((*db.waits, Wait(op)))))
        db = _changed(db, rules)
    return db


def _changed(db: Db, rules: Rules) -> Db:
    """_store_turns: code that was kept at an earlier suspension is no longer where it stood then."""
    return db._replace(kept=None) if rules.kept_is_forgotten else db


def _suspend(db: Db, call: Call, rules: Rules) -> Db:
    """_suspend_turns: the open timers become waits, those that the code gave up are dropped."""
    names_now = {op.name for op in call.timers}
    kept = [wait for wait in db.waits if wait.due is None or wait.op.name in names_now]
    have = {wait.op.name for wait in kept} | names(db.journal)
    fresh = [Wait(op, _instant(db, op.issued) + TIMER_TICKS) for op in call.timers if op.name not in have]
    waits = tuple(sorted([*kept, *fresh], key=lambda wait: wait.op))
    keeper = db.holder if rules.kept_is_forgotten or db.kept is None else db.kept
    return db._replace(task="suspended", holder=None, waits=waits, kept=keeper, asked=len(db.journal))


def commit_step(db: Db, epoch: int, op: Op, rules: Rules) -> tuple[Db, str]:
    """sql/worker/commit_step.sql: the effect and its event by one commit, or neither."""
    if task_is_held(db, rules):
        return db, "busy"
    if db.task != "claimed" or db.epoch != epoch:
        return db, "fenced"
    if op.name in names(db.journal):
        return db, "recorded"
    return db._replace(journal=(*db.journal, _event(op, db)), effects=(*db.effects, op.name)), "ok"


def begin_settling(db: Db, promise: str, rules: Rules) -> Db:
    """sql/internal/settle.sql, _lock_settling: the promise is held. Broken, it has looked by then, and holds nothing."""
    return db._replace(settling=Settling(promise, None if rules.look_after_lock else _waiters(db, promise)))


def look(db: Db) -> Db:
    """_lock_settling: who waits, looked up under the lock; their tasks are held from here on."""
    assert db.settling is not None
    return db._replace(settling=db.settling._replace(seen=_waiters(db, db.settling.promise)))


def task_is_held(db: Db, rules: Rules) -> bool:
    """Whether somebody's transaction has the task's row: workers pass it over, and nobody waits for it."""
    return rules.look_after_lock and db.settling is not None and bool(db.settling.seen)


def _waiters(db: Db, promise: str) -> tuple[Wait, ...]:
    return tuple(wait for wait in db.waits if wait.op.name == promise)


def settle(db: Db, rules: Rules) -> Db:
    """_settle and _deliver: every wait becomes an event of its awaiter, who goes on."""
    assert db.settling is not None
    name, waits = db.settling
    assert waits is not None
    db = db._replace(settling=None, pending=db.pending - {name}, settled=db.settled | {name})
    if not waits or db.task == "gone":
        return db
    journal = (*db.journal, *(_event(wait.op, db) for wait in waits))
    db = db._replace(journal=journal, waits=tuple(wait for wait in db.waits if wait not in waits))
    return _go_on(db, wakes=rules.settle_wakes, marks=rules.settle_marks_news)


def cancel(db: Db, rules: Rules) -> Db:
    """sql/promise/_decide.sql, _cancel: settles what never ran, else one event in the order."""
    db = db._replace(canceled=True)
    if db.task == "gone":
        return db
    if db.epoch == 0:
        return db._replace(task="gone", holder=None, waits=(), ends=(*db.ends, (CANCEL,)))
    event = Event(CANCEL, "cancel", 0, max(db.clock, _last_at(db)))
    return _go_on(
        db._replace(journal=(*db.journal, event)), wakes=rules.settle_wakes, marks=rules.settle_marks_news
    )


def fire_timers(db: Db, rules: Rules) -> Db:
    """sql/worker/tick.sql, _tick_timers"""
    due = tuple(wait for wait in db.waits if wait.due is not None and wait.due <= db.clock)
    journal = (*db.journal, *(_event(wait.op, db) for wait in due))
    db = db._replace(journal=journal, waits=tuple(wait for wait in db.waits if wait not in due))
    return _go_on(db, wakes=rules.timer_wakes, marks=rules.settle_marks_news)


def free(db: Db) -> Db:
    """_bury_workers, and heartbeat for what its worker does not hold: claimed -> ready."""
    return db._replace(task="ready", holder=None)


def _go_on(db: Db, *, wakes: bool, marks: bool) -> Db:
    if db.task == "suspended" and wakes:
        return db._replace(task="ready")
    if db.task == "claimed" and marks:
        return db._replace(news=True)
    return db


def _event(op: Op, db: Db) -> Event:
    return Event(op.name, op.kind, op.issued, max(db.clock, _last_at(db)))


def _is_recorded(db: Db, op: Op) -> bool:
    return op.name in names(db.journal) or any(wait.op.name == op.name for wait in db.waits)


def _last_at(db: Db) -> int:
    return db.journal[-1].at if db.journal else 0


def _instant(db: Db, seq: int) -> int:
    return db.journal[seq - 1].at if 0 < seq <= len(db.journal) else 0


def names(journal: Iterable[Event]) -> set[str]:
    """The operations that have an event."""
    return {event.name for event in journal}
