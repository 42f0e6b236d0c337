"""The protocol, gone through: no interleaving of two workers, an outsider and a few faults breaks a promise of it.

Each rule taken out on purpose is noticed by the check that is named for it: a model that could not tell would prove nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.proof.protocol.checks import LOST_WAKE_UP, REPLAY, STALE, TIME, TWICE, UNTOLD, WEDGE, Broken
from tests.proof.protocol.exploring import explore
from tests.proof.protocol.programs import PROGRAMS
from tests.proof.protocol.rules import LAW

# How each program may end: by the order in which its code was told.
ENDS = {
    "one step, then the end": {"a"},
    "two steps": {"a b"},
    "two steps side by side": {"a b", "b a"},
    "a wait for a promise": {"p"},
    "a wait for a promise made before": {"p"},
    "a step, then a promise": {"a p"},
    "a step, then a promise made before": {"a p"},
    "a transaction, then a promise": {"a p"},
    "two branches, both": {"p q", "q p"},
    "two branches, the first": {"p a", "p q a", "q a", "q p a"},
    "a step against a promise": {"a b", "a p b", "p a c", "p c"},
    "a timer against a promise": {"p", "p t", "t", "t p"},
    "a worker whose clock is ahead": {"a p", "p a"},
    "a cancel with clean-up": {"p", "p ~cancel", "~cancel", "~cancel p undo", "~cancel undo"},
}
TAKEN_OUT = [
    ("journal_after_lock", "a wait for a promise", UNTOLD),
    ("seen_is_delivered", "a step against a promise", REPLAY),
    ("kept_is_forgotten", "two branches, both", REPLAY),
    ("fence", "one step, then the end", STALE),
    ("seen_is_compared", "a step, then a promise made before", REPLAY),
    ("undelivered_holds_back", "a wait for a promise made before", LOST_WAKE_UP),
    ("entries_are_returned", "a wait for a promise made before", WEDGE),
    ("recorded_is_skipped", "a step against a promise", TWICE),
    ("outcome_once", "a step, then a promise made before", TWICE),
    ("outcomes_of_late_turns", "a step against a promise", TWICE),
    ("late_turn_keeps_mark", "a step against a promise", UNTOLD),
    ("settled_becomes_event", "a wait for a promise made before", LOST_WAKE_UP),
    ("held_is_busy", "a wait for a promise made before", LOST_WAKE_UP),
    ("timers_are_judged", "a timer against a promise", TIME),
    ("instants_are_judged", "a worker whose clock is ahead", TIME),
    ("look_after_lock", "a wait for a promise made before", LOST_WAKE_UP),
    ("settle_wakes", "a wait for a promise", LOST_WAKE_UP),
    ("settle_marks_news", "a step against a promise", UNTOLD),
    ("timer_wakes", "a timer against a promise", LOST_WAKE_UP),
    ("heartbeat_frees", "one step, then the end", WEDGE),
    ("tick_frees", "one step, then the end", WEDGE),
    ("steps_wait_for_ok", "two steps", REPLAY),
    ("ahead_is_compared", "a step against a promise", REPLAY),
    ("one_call_at_a_time", "a step against a promise", TWICE),
]


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_interleaving_keeps_what_is_promised(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    explored = explore(PROGRAMS[name])
    record_property("states", explored.states)
    assert {" ".join(end) for end in explored.ends} == ENDS[name]


@pytest.mark.parametrize(("rule", "name", "check"), TAKEN_OUT, ids=[rule for rule, _, _ in TAKEN_OUT])
def test_a_rule_taken_out_is_noticed(rule: str, name: str, check: str) -> None:
    with pytest.raises(Broken) as caught:
        explore(PROGRAMS[name]._replace(faults=1), LAW._replace(**{rule: False}))
    assert caught.value.check == check, str(caught.value)
    assert caught.value.trace or check == WEDGE


def test_each_rule_is_taken_out_once() -> None:
    assert [rule for rule, _, _ in TAKEN_OUT] == list(LAW._fields)


def test_everything_that_can_happen_happens() -> None:
    """Moves that no program made would be words."""
    reached = {what for name in REACHING for what in explore(PROGRAMS[name]._replace(faults=1)).reached}
    assert reached >= {
        "settles p", "looks who waits for p", "commits p", "cancels", "time passes", "fires timers", "buries a worker", "claims",
        "claims, and is not told", "is refused, and goes on as another", "frees what it does not hold", "hears of news",
        "hears that it is dead", "hears that it lost its task", "starts a", "ends a at 1", "fires t at 1", "commits a",
        "commits a, and is not told", "is fenced at a", "says a turn", "says suspend", "says finish",
        "is answered ok", "is answered news", "is answered busy", "is answered fenced",
        "hears nothing, and says it again", "dies", "dies with a call under way", "is taken for dead",
        "a call of long ago arrives",
    }  # fmt: skip


REACHING = (
    "a wait for a promise made before",
    "a transaction, then a promise",
    "a timer against a promise",
    "a worker whose clock is ahead",
    "a cancel with clean-up",
)
