"""Two calls, up to three points in each, and every order in which their pieces can come: enumerated, not drawn.

What came of an order is judged by what comes of the two calls one after the other, in either order, on the same ground: the
answers and all rows (instants and names of rounds aside) must be those of one of the two. A worker that is told `busy`
sends its call again, and somebody ticks at the end, as ever: so a call that passed over what another held counts as the
later one. Where a piece cannot go on, since its session waits for a row of the other's, it comes later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations

from tests.proof.races.calls import Do
from tests.proof.races.conductor import Session, worded
from tests.proof.races.ground import Ground, Make
from tests.proof.races.pauses import Point
from tests.proof.races.stage import Stage
from tests.support.sql import Sql

STOPS_MAX = 3
AGAIN = ("busy", "55P03", "none", "held")
"""What a worker is told when it should say the same once more, since another holds a row (or may have held it)."""

NEVER = frozenset({"40P01", "23505", "too many", "untold"})
"""What no call may come to, whoever comes between."""

_ROWS = """
select 'promise ' || row(id, state, value, error ->> 'type', settler, parent)::text as r from promise
union all
select 'task ' || row(id, state, epoch, attempts, worker, last_seq, news, reason ->> 'code', children, lane)::text from task
union all
select 'wait ' || row(task, operation, kind, promise)::text from wait
union all
select 'checkpoint ' || row(task, seq, operation, kind, state, value, epoch)::text from checkpoint
union all
select 'closing ' || row(id, itself, force)::text from closing
union all
select 'audit ' || row(verb, promise, before, after)::text from audit
union all
select 'told ' || row(c.task, c.operation, c.at = p.settled_at)::text
  from checkpoint c join promise p on p.id = coalesce(c.promise, c.task || '~' || c.operation)
 where c.kind in ('promise', 'wait', 'call', 'start') and p.settler <> 'timeout'
"""


@dataclass(frozen=True)
class Pair:
    """Two calls on one ground."""

    name: str
    ground: Make
    first: Do
    second: Do
    waitless: tuple[int, ...] = ()
    """Which of the two (0, 1) is a worker's call, that never waits for a row."""
    early: tuple[int, ...] = ()
    """Which of the two also stops right before its first lock, where it has looked at most."""
    behind: tuple[str, str] = ("", "")
    """Of each of the two, the text of a statement behind which it stops too, if it matters."""
    last: Do = lambda sql, _: str(sql.tick(1000)["closed"])
    """What is called when both have ended: whoever passed over what was held comes by again."""
    mixed: frozenset[tuple[str, str]] = frozenset()
    """Answers that no serial order gives, since one call looked before the other's commit; the rows are those of one."""


@dataclass
class Explored:
    """What all orders of a pair came to."""

    schedules: int = 0
    distinct: int = 0
    blocked: int = 0
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)


def orders(pieces: tuple[int, int]) -> Iterator[tuple[int, ...]]:
    """Every order of so many pieces of the first session (0) and of the second (1)."""
    total = sum(pieces)
    for places in combinations(range(total), pieces[0]):
        yield tuple(0 if n in places else 1 for n in range(total))


def stops_of(path: Sequence[str], points: dict[str, Point], *, early: bool, behind: str) -> list[str]:
    """At most three points of a call: behind its first lock (or before it), behind the last, behind its last write; else others.

    A point that the call itself makes known, outside of all functions, is always one of them.
    """
    inside = [each for each in path if each in points]
    own = [each for each in path if each not in points]
    locks = [each for each in inside if points[each].locks]
    writes = [each for each in inside if points[each].writes]
    looks = [each for each in inside if points[each].looks]
    first = locks[:1]
    if early and first:
        first = inside[: inside.index(first[0])][-1:]
    wanted = [*own, *first, *locks[-1:], *writes[-1:], *looks, *inside]
    if behind:
        [given] = [each for each in inside if behind in points[each].after]
        wanted = [given, *writes[-1:], *wanted]
    return sorted(list(dict.fromkeys(wanted))[:STOPS_MAX], key=path.index)


def explore(stage: Stage, pair: Pair, *, enough: int | None = None) -> Explored:
    """Try every order; with `enough`, stop at so many findings."""
    explored = Explored()
    serial = {_serial(stage, pair, order, explored) for order in (0, 1)}
    stops = [
        stops_of(
            stage.path(each, pair.ground),
            stage.points,
            early=which in pair.early,
            behind=pair.behind[which],
        )
        for which, each in enumerate((pair.first, pair.second))
    ]
    stage.clean()
    seen = set()
    for order in orders((len(stops[0]) + 1, len(stops[1]) + 1)):
        if enough is not None and len(explored.findings) >= enough:
            break
        happened, outcome, broken = _play(stage, pair, stops, order)
        seen.add(happened)
        explored.schedules += 1
        explored.blocked += any(each.blocked for each in stage.sessions)
        explored.outcomes[outcome[0]] += 1
        mixed = outcome[0] in pair.mixed and outcome[1] in {rows for _, rows in serial}
        if outcome not in serial and not mixed:
            broken.append(_difference(outcome, serial))
        explored.findings += [f"{pair.name}, {happened}: {each}" for each in broken]
    explored.findings += [f"{pair.name}: {each}" for each in stage.wrong_steps()]
    explored.distinct = len(seen)
    return explored


Outcome = tuple[tuple[str, str], tuple[str, ...]]


def _serial(stage: Stage, pair: Pair, first: int, explored: Explored) -> Outcome:
    """What comes of one call behind the other."""
    ground = stage.ground(pair.ground)
    answers = ["", ""]
    for which in (first, 1 - first):
        call = partial(_called, (pair.first, pair.second)[which], ground)
        answers[which] = worded(call, stage.sessions[which].sql)
        if answers[which] in AGAIN:
            answers[which] = worded(call, stage.sessions[which].sql)
    outcome = _outcome(stage, pair, ground, answers)
    explored.findings += [f"{pair.name}, one behind the other: {each}" for each in _broken(stage, answers)]
    stage.clean()
    return outcome


def _play(
    stage: Stage, pair: Pair, stops: list[list[str]], order: tuple[int, ...]
) -> tuple[str, Outcome, list[str]]:
    """One order: what happened, what it came to, and what is broken."""
    ground = stage.ground(pair.ground)
    calls = [partial(_called, do, ground) for do in (pair.first, pair.second)]
    conductor, sessions = stage.conductor, stage.sessions
    for session, each in zip(sessions, stops, strict=True):
        conductor.arm(session, each)
    happened = []
    for which in order:
        before = _places(sessions)
        if sessions[which].rest in ("idle", "paused"):
            conductor.step(sessions[which], calls[which])
        if _places(sessions) != before:
            happened.append("AB"[which] + ("!" if any(each.rest == "blocked" for each in sessions) else ""))
    conductor.drain(sessions[order[-1]])

    answers = [each.answer() for each in sessions]
    broken = [f"{'AB'[which]} waited for a row" for which in pair.waitless if sessions[which].blocked]
    for which, answer in enumerate(answers):
        if answer in AGAIN:
            answers[which] = worded(calls[which], sessions[which].sql)
    outcome = _outcome(stage, pair, ground, answers)
    broken += _broken(stage, answers)
    stage.clean()
    return " ".join(happened), outcome, broken


def _called(do: Do, ground: Ground, sql: Sql) -> str:
    return do(sql, ground)


def _broken(stage: Stage, answers: Sequence[str]) -> list[str]:
    return [f"answered {each}" for each in answers if each in NEVER] + stage.wrong()


def _places(sessions: Sequence[Session]) -> list[tuple[str, str]]:
    return [(each.rest, each.at) for each in sessions]


def _outcome(stage: Stage, pair: Pair, ground: Ground, answers: Sequence[str]) -> Outcome:
    pair.last(stage.boss, ground)
    rows = sorted(str(each["r"]).replace(ground.names.w, "w") for each in stage.boss.query(_ROWS))
    first, second = answers
    return (first, second), tuple(rows)


def _difference(outcome: Outcome, serial: set[Outcome]) -> str:
    """How an outcome differs from the nearest that one call behind the other can have."""
    nearest = min(serial, key=lambda each: (each[0] != outcome[0], len(set(each[1]) ^ set(outcome[1]))))
    return (
        f"answered {outcome[0]} (one behind the other: {sorted(each[0] for each in serial)}); "
        f"there is {sorted(set(outcome[1]) - set(nearest[1]))}, there should be {sorted(set(nearest[1]) - set(outcome[1]))}"
    )
