"""Whether a history of calls on one promise could have happened one after the other (linearizability).

After Wing and Gong, with Lowe's memory: calls are tried in every order that their real times allow, and what was reached by the
same calls in the same state is not tried twice. A call whose answer was lost may have taken effect at any time after it was
sent, or never.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from tests.proof.histories.promise import ABSENT, OVERDUE, PENDING, Answer, Call, State, step


def linearizable(calls: Iterable[Call]) -> bool:
    """Whether some order explains every answer. The calls are of one promise."""
    calls = list(calls)
    if not _may_be_overdue(calls):
        return False
    history = sorted([*calls, *_timeout_of(calls)], key=lambda call: call.begin)
    answered = sum(1 << n for n, call in enumerate(history) if not call.lost)
    tried: set[tuple[int, State]] = set()
    ahead: list[tuple[int, State]] = [(0, ABSENT)]
    while ahead:
        done, state = ahead.pop()
        if done & answered == answered:
            return True
        if (done, state) in tried:
            continue
        tried.add((done, state))
        # what began after another one had ended cannot come before it
        first_end = min(call.end for n, call in enumerate(history) if not done & 1 << n)
        for n, call in enumerate(history):
            if call.begin > first_end:
                break
            if not done & 1 << n:
                after = step(state, call)
                if after is not None:
                    ahead.append((done | 1 << n, after))
    return False


def _may_be_overdue(calls: Sequence[Call]) -> bool:
    """A promise is called overdue from its timeout on only, and by nobody who asks after an outcome was told."""
    # what an error shows (the ID is taken) is rolled back with it: it was true, but is not told for good
    told = [
        call.end
        for call in calls
        if call.answer and call.answer.word != "taken" and call.answer.seen not in (None, PENDING, OVERDUE)
    ]
    first_told = min(told, default=float("inf"))
    return all(
        call.begin <= first_told and call.timeout_at is not None and call.end >= call.timeout_at
        for call in calls
        if call.answer and call.answer.seen == OVERDUE
    )


def _timeout_of(calls: Iterable[Call]) -> list[Call]:
    """The instant of its timeout is part of a promise's history, and the documents name it, all the same one."""
    instants = {call.timeout_at for call in calls if call.timeout_at is not None}
    assert len(instants) <= 1, f"a timeout that changes: {instants}"
    return [Call("timeout", "", {}, -1, begin=at, end=at, answer=Answer("timeout")) for at in instants]


def refuted(calls: Iterable[Call]) -> dict[str, list[Call]]:
    """The promises whose part of a history nothing explains."""
    by_promise: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        by_promise[call.id].append(call)
    return {id: part for id, part in by_promise.items() if not linearizable(part)}


def shown(calls: Iterable[Call]) -> str:
    """A history as a person reads it, by the time of sending, in microseconds from the first."""
    history = sorted(calls, key=lambda call: call.begin)
    first = history[0].begin

    def at(instant: float) -> str:
        return "     ..." if instant == float("inf") else f"{(instant - first) * 1e6:8.0f}"

    lines = [
        f"{at(call.begin)} {at(call.end)}  client {call.client}  {call.verb} {call.id} {call.given} -> {call.answer}"
        + (f"  (times out at {at(call.timeout_at).strip()})" if call.timeout_at else "")
        for call in history
    ]
    return "\n".join(lines)
