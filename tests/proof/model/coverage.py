"""What must have been reached: every verb with success and with each of its refusals. And a table of how often it was."""

from __future__ import annotations

from typing import Final

from tests.proof.model.faults import FAULTS
from tests.proof.model.running import Reached

ENOUGH: Final = 100

_ANSWERS: Final = {
    "start": "created attached",
    "start_many": "created attached conflict refused",
    "start_together": "created attached conflict refused",
    "start_each": "attached conflict refused nothing",
    "create_promise": "created attached",
    "resolve": "settled already conflict not_latent unknown",
    "reject": "settled already conflict not_latent unknown",
    "cancel": "settled already conflict requested unknown",
    "settle_many": "settled already conflict not_latent requested unknown",
    "get": "something",
    "search": "something nothing",
    "tree": "something nothing",
    "journal": "something nothing",
    "register": "nothing",
    "claim": "something nothing",
    "advance": "ok news busy fenced halted",
    "commit_step": "ok recorded fenced",
    "heartbeat": "news lost alone nothing",
    "tick": "workers promises timers closed nothing",
    "leave": "something nothing",
    "halt": "halted already settled latent unknown",
    "resume": "resumed not_halted settled latent unknown",
    "cancel_force": "settled already conflict unknown",
    "fork": "created attached",
    "settle_step": "recorded already conflict not_a_step settled latent unknown",
    "purge": "something nothing",
}
WANTED: Final = frozenset(
    {(verb, answer) for verb, answers in _ANSWERS.items() for answer in answers.split()}
    | {(fault.verb, fault.sqlstate) for fault in FAULTS}
)
"""(verb, answer or SQLSTATE). Not here is what needs two sessions (`busy` of commit_step, 55P03): the races have it."""

RULES: Final = (
    "told of a promise while suspended",
    "told of a promise while claimed",
    "told of a promise while halted",
    "told of a call while suspended",
    "told of a wait while ready",
    "a timer of a suspended task fires",
    "a timer of a claimed task fires",
    "a retry of a suspended task fires",
    "a delay of a suspended task fires",
    "children are owed a cancel",
    "a child is given up",
    "code ends before its children",
    "an owed cancel settles",
    "an owed cancel is told",
    "a decision finds the workflow ended",
    "a cancel of claimed told",
    "a cancel of claimed is the same click",
    "a task whose holder died is claimed alone",
    "a dead worker's task is ready",
    "a dead worker's task is parked",
    "a heartbeat frees what is not held",
    "a claim of kept code",
    "an instant told ahead does not fit",
    "an outcome is left out",
    "fenced by its own timeout",
    "halted by the limit of events",
    "halted, for an operation is two things",
    "halted: unknown_promise",
    "a call is told an error",
    "a promise is told an error",
    "a wait is settled already",
    "ok, with events beyond its own",
    "parked, for it waits for nothing",
)
"""Rules that no answer names, each to be met at least once."""


def missing(reached: Reached, enough: int = ENOUGH) -> dict[str, int]:
    """What was met too seldom."""
    answers = {" ".join(case): reached.answers[case] for case in WANTED if reached.answers[case] < enough}
    return answers | {rule: 0 for rule in RULES if reached.rules[rule] == 0}


def table(reached: Reached) -> str:
    """Verbs by answers, then rules, with how often each was met."""
    lines = [f"{reached.runs} runs, {reached.steps} steps, 0 differences", ""]
    for verb in sorted({verb for verb, _ in reached.answers}):
        met = sorted((answer, count) for (other, answer), count in reached.answers.items() if other == verb)
        lines.append(f"{verb:<15} " + "  ".join(f"{answer} {count}" for answer, count in met))
    lines += ["", *(f"{rule:<50} {count}" for rule, count in sorted(reached.rules.items()))]
    return "\n".join(lines)
