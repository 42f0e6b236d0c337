"""The checker: what could have happened passes, and each way of being wrong is refuted."""

from __future__ import annotations

from typing import Any

import pytest

from tests.proof.histories.checker import linearizable, refuted, shown
from tests.proof.histories.promise import OVERDUE, PENDING, Answer, Call

FOREVER = float("inf")
ONE, TWO = ("resolved", 1), ("resolved", 2)
TIMEDOUT = ("timedout", None)


def call(verb: str, times: tuple[float, float], word: str, seen: Any = None, **given: Any) -> Call:
    begin, end = times
    answer = Answer(word, seen) if word else None
    return Call(verb, "p", given, 1, begin, end if word else FOREVER, answer, given.pop("timeout_at", None))


def create(begin: float, end: float, word: str = "created", seen: Any = PENDING, **given: Any) -> Call:
    return call("create", (begin, end), word, seen, **given)


def resolve(begin: float, end: float, payload: int, word: str, seen: Any = None) -> Call:
    return call("resolve", (begin, end), word, seen, payload=payload)


def get(begin: float, end: float, seen: Any) -> Call:
    return call("get", (begin, end), "get", seen, **({"timeout_at": 10} if seen == OVERDUE else {}))


LIMITED: dict[str, Any] = {"timeout": 1, "timeout_at": 10}
POSSIBLE = {
    "one after the other": [create(0, 1), resolve(2, 3, 1, "settled", ONE), get(4, 5, ONE)],
    "a reader beside a settle sees either": [
        create(0, 1),
        resolve(2, 6, 1, "settled", ONE),
        get(3, 5, PENDING),
    ],
    "two at once, and one wins": [
        create(0, 1),
        resolve(2, 5, 1, "conflict", TWO),
        resolve(3, 4, 2, "settled", TWO),
    ],
    "a lost settle that was done": [create(0, 1), resolve(2, 0, 1, ""), get(5, 6, PENDING), get(7, 8, ONE)],
    "a lost settle that never was": [create(0, 1), resolve(2, 0, 1, ""), get(5, 6, PENDING)],
    "a lost creation": [create(0, 0, ""), resolve(1, 2, 1, "unknown"), get(3, 4, PENDING)],
    "a settle in time": [create(0, 1, **LIMITED), resolve(8, 12, 1, "settled", ONE), get(13, 14, ONE)],
    "a timeout": [create(0, 1, **LIMITED), resolve(11, 12, 1, "conflict", TIMEDOUT), get(13, 14, TIMEDOUT)],
    "overdue, and then settled in time": [
        create(0, 1, **LIMITED),
        resolve(8, 13, 1, "settled", ONE),
        get(11, 12, OVERDUE),
    ],
    "late before others see it": [create(0, 30, **LIMITED), get(20, 21, None), get(40, 41, TIMEDOUT)],
    "a default": [create(0, 1, default=1, **LIMITED), get(11, 12, ONE), resolve(13, 14, 1, "conflict", ONE)],
}
IMPOSSIBLE = {
    "a stale read": [create(0, 1), resolve(2, 3, 1, "settled", ONE), get(4, 5, PENDING)],
    "a lost settlement": [create(0, 1), resolve(2, 3, 1, "settled", ONE), get(4, 5, TWO)],
    "two winners": [create(0, 1), resolve(2, 6, 1, "settled", ONE), resolve(3, 5, 2, "settled", TWO)],
    "a settle after the timeout": [create(0, 1, **LIMITED), resolve(11, 12, 1, "settled", ONE)],
    "timed out too soon": [create(0, 1, **LIMITED), get(2, 3, TIMEDOUT)],
    "an answer that goes back": [create(0, 1), resolve(2, 0, 1, ""), get(3, 4, ONE), get(5, 6, PENDING)],
    "a settlement that comes and goes": [create(0, 1, **LIMITED), get(11, 12, TIMEDOUT), get(13, 14, OVERDUE)],
    "overdue before its time": [create(0, 1, **LIMITED), get(2, 3, OVERDUE)],
    "the same twice, and both first": [create(0, 1), resolve(2, 3, 1, "settled", ONE), resolve(4, 5, 1, "settled", ONE)],
    "created twice": [create(0, 1), create(2, 3)],
    "there, and then not": [create(0, 1), get(2, 3, None)],
    "seen before it was": [get(0, 1, PENDING), create(2, 3)],
    "settled by nobody": [create(0, 1), get(2, 3, ONE)],
    "a default that somebody is praised for": [create(0, 1, default=1, **LIMITED), resolve(11, 12, 1, "already", ONE)],
}  # fmt: skip


@pytest.mark.parametrize("history", POSSIBLE.values(), ids=POSSIBLE)
def test_what_could_have_happened_passes(history: list[Call]) -> None:
    assert linearizable(history)
    assert linearizable(reversed(history))


@pytest.mark.parametrize("history", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_what_cannot_be_is_refuted(history: list[Call]) -> None:
    assert not linearizable(history)
    assert list(refuted(history)) == ["p"]
    assert "p" in shown(history)


def test_a_timeout_that_changes_is_no_history() -> None:
    with pytest.raises(AssertionError, match="a timeout that changes"):
        linearizable(
            [create(0, 1, timeout=1, timeout_at=10), create(2, 3, "attached", timeout=1, timeout_at=11)]
        )


def test_many_calls_side_by_side_are_checked_in_no_time() -> None:
    """What was reached by the same calls in the same state is not tried twice: 2 to the 20, and not 20!."""
    crowd = [resolve(2, 50, 1, "already", ONE) for _ in range(19)]
    history = [create(0, 1), *crowd, resolve(2, 50, 1, "settled", ONE)]
    assert linearizable(history)
