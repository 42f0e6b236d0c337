"""The rules of the protocol that the model can be made to break, one at a time.

Each is a promise of docs/design.md or of a file in sql/. All of them hold in `LAW`; a test takes each out and names the check
that must notice. A rule that could be taken out unnoticed would be a rule that nobody needs, or a hole in the model.
"""

from __future__ import annotations

from typing import NamedTuple


class Rules(NamedTuple):
    """What holds. False: the rule is taken out."""

    # claim
    journal_after_lock: bool = True
    """The journal of a claim is read in a statement after the one that locked the task."""
    seen_is_delivered: bool = True
    """What a worker counts as seen is the last event that it was given, not the last there is."""
    kept_is_forgotten: bool = True
    """Only the last to suspend a task may be told no more than what came since: others' kept code is forgotten."""
    # advance
    fence: bool = True
    """A write is judged by (claimed, epoch) under the task's lock."""
    seen_is_compared: bool = True
    """A turn whose `seen` is not the last event changes nothing but for outcomes without an event."""
    undelivered_holds_back: bool = True
    """Suspend and finish are not done where events came that the caller has not been told."""
    entries_are_returned: bool = True
    """Events beyond the caller's are in the answer."""
    recorded_is_skipped: bool = True
    """A creation that (task, operation) already has is passed over."""
    outcome_once: bool = True
    """An outcome whose operation has an event already is passed over."""
    outcomes_of_late_turns: bool = True
    """A turn with news has its outcomes appended all the same: what ran has run."""
    late_turn_keeps_mark: bool = True
    """A turn that is answered `news` leaves the mark for its holder, who may be another than the one that is answered."""
    settled_becomes_event: bool = True
    """Naming a promise that is settled already appends its event."""
    held_is_busy: bool = True
    """A turn that needs a promise which somebody is settling is `busy`."""
    timers_are_judged: bool = True
    """A timer fired by its holder before its instant is refused."""
    instants_are_judged: bool = True
    """An instant told ahead stands only if it lies between the last event and the database's clock."""
    # settle, cancel, tick, heartbeat
    look_after_lock: bool = True
    """Who waits for a promise is looked up after the promise is locked."""
    settle_wakes: bool = True
    """A suspended task whose promise settles is ready in the same commit."""
    settle_marks_news: bool = True
    """A claimed task whose promise settles is marked to have news."""
    timer_wakes: bool = True
    """A suspended task whose timer fires is ready in the same commit."""
    heartbeat_frees: bool = True
    """A heartbeat frees what is claimed in the worker's name and not held."""
    tick_frees: bool = True
    """The tasks of a dead worker are given to others."""
    # worker
    steps_wait_for_ok: bool = True
    """A step starts only when all that was told and asked for before it is durable."""
    ahead_is_compared: bool = True
    """After `news` the code goes on only if what it was told ahead is exactly that, and is run again otherwise."""
    one_call_at_a_time: bool = True
    """Nothing is told while a turn is under way: the answer says what became of it first."""


LAW = Rules()
