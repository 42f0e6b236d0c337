"""One run: a random program, made up step by step from what is there, against both sides. A difference is found again by the
seed, and shown by the fewest steps that still show one."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from tests.proof.model.chance import Chance, Step
from tests.proof.model.comparing import Both, Difference
from tests.proof.model.programs import next_step
from tests.proof.model.rows import SECOND, Json, Limits
from tests.proof.model.state import Undetermined
from tests.proof.model.subject import Subject

BEGIN: Final = 1_800_000_000 * SECOND
STEPS_TO_A_RARE_CASE: Final = 3  # about: so that runs together give each its turn
REPLAYS_MAX: Final = 400
"""How often a failed program is run again to make it shorter."""


@dataclass
class Reached:
    """What a number of runs came to: (verb, answer or SQLSTATE) by how often, and rules by name."""

    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    steps: int = 0
    runs: int = 0

    def add(self, other: Reached) -> None:
        self.answers.update(other.answers)
        self.rules.update(other.rules)
        self.steps += other.steps
        self.runs += other.runs


class Failure(AssertionError):
    """A run in which oracle and SQL part, as people want to read it."""

    def __init__(self, seed: int, steps: list[Step], difference: str) -> None:
        program = "\n".join(json.dumps(asdict(step)) for step in steps)
        super().__init__(f"seed {seed}: {difference}\n\nthe fewest steps found that differ:\n{program}")
        self._given = (seed, steps, difference)

    def __reduce__(self) -> Any:
        return Failure, self._given  # it comes out of a process of its own


def run(
    subject: Subject, seed: int, steps: int, limits: Limits, reached: Reached, *, shorten: bool = True
) -> None:
    """A program of so many steps. Raises `Failure` at a difference or at a broken invariant."""
    rng = random.Random(seed)
    subject.empty()
    both = Both(subject, limits)
    chance = Chance(rng, both.oracle.state)
    chance.turn = seed * steps // STEPS_TO_A_RARE_CASE
    done: list[Step] = []
    now = BEGIN
    try:
        for _ in range(steps):
            step = next_step(chance, now)
            now = step.now
            done.append(step)
            _make(both, step, reached)
        _look(both, now)
    except Difference as difference:
        fewest, shown = done, str(difference)
        if shorten:
            fewest, shown = shortened(subject, limits, done, shown)
        raise Failure(seed, fewest, shown) from None
    reached.rules.update(both.oracle.state.met)
    reached.runs += 1


def _make(both: Both, step: Step, reached: Reached) -> None:
    try:
        answer = both.step(step.verb, step.given, step.now, read_committed=step.read_committed)
    except Undetermined:
        reached.answers[step.verb, "left open"] += 1
        return
    reached.steps += 1
    reached.answers.update((step.verb, each) for each in outcomes(step.verb, answer))


def _look(both: Both, now: int) -> None:
    """At the end whole tables are compared, and the invariants hold."""
    both.step("get", {"ids": []}, now)
    both.compare_all()
    broken = [
        each
        for each in both.subject.violations()
        # the limit of events, ten here, is one for what a workflow does: what it waits for is told beyond it
        if not (each.invariant == "I50" and each.detail.endswith(" events"))
        # and two that wait for each other are legal, and reported
        and each.invariant != "I32"
    ]
    if broken:
        raise Difference(f"broken invariants: {broken}")


def outcomes(verb: str, answer: Json) -> list[str]:
    """The words that count in an answer."""
    if isinstance(answer, dict) and "sqlstate" in answer:
        return [answer["sqlstate"]]
    if verb == "tick":
        done = [part for part in ("workers", "promises", "timers", "closed") if answer[part] > 0]
        return done or ["nothing"]
    if isinstance(answer, dict):
        return [answer["answer"]]
    if isinstance(answer, list) and answer and isinstance(answer[0], dict) and "answer" in answer[0]:
        return [row["answer"] for row in answer]
    return ["something" if answer else "nothing"]


def replay(subject: Subject, limits: Limits, steps: list[Step]) -> str | None:
    """The difference that these very calls come to, if any."""
    subject.empty()
    both = Both(subject, limits)
    try:
        for step in steps:
            _make(both, step, Reached())
        if steps:
            _look(both, steps[-1].now)
    except Difference as difference:
        return str(difference)
    return None


def shortened(subject: Subject, limits: Limits, steps: list[Step], shown: str) -> tuple[list[Step], str]:
    """Leave out what is not needed, halves first, then single steps."""
    size = len(steps) // 2
    replays = 0
    while size > 0 and replays < REPLAYS_MAX:
        start = 0
        while start < len(steps) and replays < REPLAYS_MAX:
            fewer = steps[:start] + steps[start + size :]
            replays += 1
            difference = replay(subject, limits, fewer)
            if difference is None or difference.splitlines()[0] != shown.splitlines()[0]:
                start += size
            else:
                steps, shown = fewer, difference
        size //= 2
    return steps, shown


def read(lines: Any) -> list[Step]:
    """A program as a `Failure` shows it, one step a line."""
    return [Step(**json.loads(line)) for line in lines if line.strip()]
