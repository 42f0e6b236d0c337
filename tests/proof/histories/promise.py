"""One promise as everybody must see it: what each call answers, given all that took effect before it.

This is the sequential truth that histories are held against. It knows one ID: calls on different promises commute.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

PENDING = ("pending", None)
OVERDUE = ("overdue", None)
Outcome = tuple[str, Any]
"""How a promise stands: its state and its value or error."""


class Answer(NamedTuple):
    """What a caller was told: a word, and how the promise stands (None where no document came)."""

    word: str
    seen: Outcome | None = None


class State(NamedTuple):
    """A promise between two calls. `late`: the instant of its timeout has passed."""

    function: str | None = None
    args: str | None = None
    there: bool = False
    has_timeout: bool = False
    default: Any = None
    outcome: Outcome = PENDING
    by_timeout: bool = False
    late: bool = False


ABSENT = State()


@dataclass
class Call:
    """One call of a history: from when it was sent until its answer came, or for ever where none did."""

    verb: str
    id: str
    given: dict[str, Any]
    client: int
    begin: float
    end: float = float("inf")
    answer: Answer | None = None
    timeout_at: float | None = field(default=None)  # what its document says of the promise

    @property
    def lost(self) -> bool:
        return self.answer is None


def step(state: State, call: Call) -> State | None:
    """The promise after this call, or None where no truth could have given that answer."""
    after, expected = _carry_out(state, call)
    told = call.answer
    if told is None:
        return after
    if told.word != expected.word:
        return None
    if told.seen is None or expected.seen is None:
        return after if told.seen == expected.seen else None
    if told.seen == OVERDUE:
        # somebody holds the row, so nothing is said of its outcome; `linearizable` looks whether that may be
        return after if state.has_timeout and call.verb in {"get", "create", "start"} else None
    return after if told.seen == expected.seen else None


def _carry_out(state: State, call: Call) -> tuple[State, Answer]:
    match call.verb:
        case "create":
            return _create(state, call)
        case "start":
            return _start(state, call)
        case "resolve" | "reject":
            return _decide(state, call)
        case "cancel":
            return _cancel(state, call)
        case "timeout":
            return _time_out(state)
        case _:
            return state, Answer("get", state.outcome if state.there else None)


def _create(state: State, call: Call) -> tuple[State, Answer]:
    if not state.there:
        timeout, default = call.given.get("timeout") is not None, call.given.get("default")
        made = State(there=True, has_timeout=timeout, default=default, late=state.late)
        return _timed_out(made) if state.late else made, Answer("created", PENDING)
    return state, Answer("taken" if state.function else "attached", state.outcome)


def _start(state: State, call: Call) -> tuple[State, Answer]:
    wanted = (call.given["function"], call.given["args"])
    if not state.there:
        timeout = call.given.get("timeout") is not None
        made = State(*wanted, there=True, has_timeout=timeout, late=state.late)
        return _timed_out(made) if state.late else made, Answer("created", PENDING)
    return state, Answer("attached" if (state.function, state.args) == wanted else "taken", state.outcome)


def _decide(state: State, call: Call) -> tuple[State, Answer]:
    wanted = ("resolved" if call.verb == "resolve" else "rejected", call.given["payload"])
    if not state.there:
        return state, Answer("unknown")
    if state.function:
        return state, Answer("not_latent", state.outcome)
    if state.outcome == PENDING:
        return state._replace(outcome=wanted), Answer("settled", wanted)
    # a default that came with the timeout is nobody's decision: who says the same is too late all the same
    same = state.outcome == wanted and not state.by_timeout
    return state, Answer("already" if same else "conflict", state.outcome)


def _cancel(state: State, call: Call) -> tuple[State, Answer]:
    if not state.there:
        return state, Answer("unknown")
    if state.outcome == PENDING:
        outcome = ("canceled", call.given["reason"])
        return state._replace(outcome=outcome), Answer("settled", outcome)
    return state, Answer("already" if state.outcome[0] == "canceled" else "conflict", state.outcome)


def _time_out(state: State) -> tuple[State, Answer]:
    return _timed_out(state._replace(late=True)), Answer("timeout")


def _timed_out(state: State) -> State:
    """From that instant on it is over, whoever writes it down; also one that was not there yet for others when it came."""
    if state.there and state.has_timeout and state.outcome == PENDING:
        outcome = ("timedout", None) if state.default is None else ("resolved", state.default)
        return state._replace(outcome=outcome, by_timeout=True)
    return state
