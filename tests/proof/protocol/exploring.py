"""Every interleaving of a program: breadth first, so that what is found wrong is told by the shortest way there.

In such a way A is always the worker with the younger claim: a name that changes hands is a claim by the other one.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import NamedTuple

from tests.proof.protocol import database as sql
from tests.proof.protocol import workers as own
from tests.proof.protocol.checks import WEDGE, Broken, is_held, judge, judge_start, judge_write
from tests.proof.protocol.programs import Op, Program
from tests.proof.protocol.rules import LAW, Rules
from tests.proof.protocol.states import GONE, Db, Run, State, Worker

CLOCK_MAX = 1
STATES_MAX = 2_000_000


class Move(NamedTuple):
    """One thing that happens. `fault`: something goes wrong, which nobody may count on."""

    label: str
    state: State
    fault: bool = False


class Explored(NamedTuple):
    """What was seen of a program."""

    states: int
    moves: int
    ends: frozenset[tuple[str, ...]]
    reached: Counter[str]


def explore(program: Program, rules: Rules = LAW) -> Explored:
    """Go everywhere. Raises `Broken` with the way to what is wrong."""
    began = State(Db(pending=frozenset(program.created_before)), (Worker(), Worker()), (), program.faults)
    numbers = {began: 0}
    came_from: list[tuple[int, str]] = [(0, "")]
    calm_into: list[list[int]] = [[]]
    order = deque([began])
    ends: set[tuple[str, ...]] = set()
    ended: list[int] = []
    reached: Counter[str] = Counter()
    moves = 0
    while order:
        state = order.popleft()
        here = numbers[state]
        try:
            judge(state, program)
            for raw in happens(state, program, rules):
                move = raw._replace(state=_sorted(raw.state))
                moves += 1
                reached[move.label.partition(":")[2].strip() or move.label] += 1
                there = numbers.setdefault(move.state, len(numbers))
                if there == len(came_from):
                    came_from.append((here, move.label))
                    calm_into.append([])
                    order.append(move.state)
                if not move.fault:
                    calm_into[there].append(here)
        except Broken as broken:
            broken.trace = _way(came_from, here)
            raise
        assert len(numbers) <= STATES_MAX, "the model has become too large to be gone through"
        if state.db.ends:
            ends.add(state.db.ends[0])
            ended.append(here)
    stuck = _never(len(numbers), ended, calm_into)
    if stuck is not None:
        wedge = Broken(WEDGE, "from here it comes to no end, even if nothing more goes wrong")
        wedge.trace = _way(came_from, stuck)
        raise wedge
    return Explored(len(numbers), moves, frozenset(ends), reached)


def _way(came_from: list[tuple[int, str]], here: int) -> list[str]:
    way = []
    while here:
        here, label = came_from[here]
        way.append(label)
    return way[::-1]


def _never(many: int, ended: list[int], calm_into: list[list[int]]) -> int | None:
    """The first state from which no end can be reached by calm moves."""
    reaches = bytearray(many)
    todo = list(ended)
    for each in todo:
        reaches[each] = 1
    while todo:
        for before in calm_into[todo.pop()]:
            if not reaches[before]:
                reaches[before] = 1
                todo.append(before)
    at = reaches.find(0)
    return None if at < 0 else at


def happens(state: State, program: Program, rules: Rules) -> Iterator[Move]:
    """All that could happen next."""
    yield from _outside(state, program, rules)
    yield from _tick(state, program, rules)
    for number in (0, 1):
        yield from _claims(state, number, rules)
        yield from _beats(state, number, rules)
        if (run := state.workers[number].run) is not None:
            yield from _works(state, number, run, program, rules)
            yield from _speaks(state, number, run, program, rules)
            yield from _dies(state, number, run)
    for stray in dict.fromkeys(state.strays):
        left = list(state.strays)
        left.remove(stray)
        after, _ = sql.advance(state.db, stray, rules)
        judge_write(state.db, after, stray, program)
        yield Move("a call of long ago arrives", state._replace(db=after, strays=tuple(left)))


def _outside(state: State, program: Program, rules: Rules) -> Iterator[Move]:
    db = state.db
    if db.settling is not None:
        if db.settling.seen is None:
            yield Move(
                f"outsider: looks who waits for {db.settling.promise}", state._replace(db=sql.look(db))
            )
        else:
            yield Move(f"outsider: commits {db.settling.promise}", state._replace(db=sql.settle(db, rules)))
    else:
        for promise in sorted(db.pending & set(program.promises)):
            yield Move(
                f"outsider: settles {promise}", state._replace(db=sql.begin_settling(db, promise, rules))
            )
    if program.canceled and not db.canceled and not sql.task_is_held(db, rules):
        yield Move("outsider: cancels", state._replace(db=sql.cancel(db, rules)))


def _tick(state: State, program: Program, rules: Rules) -> Iterator[Move]:
    db = state.db
    if program.timed and db.clock < CLOCK_MAX:
        yield Move("time passes", state._replace(db=db._replace(clock=db.clock + 1)))
    if sql.task_is_held(db, rules):
        return
    if any(wait.due is not None and wait.due <= db.clock for wait in db.waits):
        yield Move("tick: fires timers", state._replace(db=sql.fire_timers(db, rules)))
    if db.task == "claimed" and (db.holder == GONE or db.holder in db.dead) and rules.tick_frees:
        yield Move("tick: buries a worker", state._replace(db=sql.free(db)))


def _claims(state: State, number: int, rules: Rules) -> Iterator[Move]:
    db, worker = state.db, state.workers[number]
    if worker.run is not None or db.task != "ready" or sql.task_is_held(db, rules):
        return
    name = _name(number)
    if number in db.dead:
        yield Move(f"{name}: is refused, and goes on as another", _anew(state, number))
        return
    if not rules.journal_after_lock and worker.looked is None:
        yield Move(f"{name}: reads a journal", _with(state, number, worker._replace(looked=db.journal)))
        return
    claimed = state._replace(db=sql.claim(db, number, rules))
    run = own.begin(claimed.db, number, worker.kept, worker.looked, rules)
    yield Move(f"{name}: claims", _with(claimed, number, Worker(run)))
    if state.faults:
        lost = claimed._replace(faults=state.faults - 1)
        yield Move(f"{name}: claims, and is not told", _with(lost, number, Worker()), fault=True)


def _beats(state: State, number: int, rules: Rules) -> Iterator[Move]:
    db, worker = state.db, state.workers[number]
    run, name = worker.run, _name(number)
    holds = run is not None and is_held(db, run.epoch)
    if number in db.dead:
        if run is not None and run.call is None:
            yield Move(f"{name}: hears that it is dead", _anew(state, number))
    elif db.task == "claimed" and db.holder == number and not holds:
        if rules.heartbeat_frees and (run is None or run.call is None) and not sql.task_is_held(db, rules):
            freed = state._replace(db=sql.free(db))
            yield Move(
                f"{name}: frees what it does not hold", _with(freed, number, worker._replace(run=None))
            )
    elif run is not None and run.call is None:
        if not holds:
            yield Move(f"{name}: hears that it lost its task", _with(state, number, Worker()))
        elif db.news and not run.news:
            yield Move(f"{name}: hears of news", _with(state, number, Worker(run._replace(news=True))))


def _works(state: State, number: int, run: Run, program: Program, rules: Rules) -> Iterator[Move]:
    """Steps and timers."""
    db, name = state.db, _name(number)
    situation = program.situation(run.told)
    for op in own.startable(run, situation, rules):
        judge_start(db, run, op, situation.asked)
        began = run._replace(running=run.running | {op.name}, started=run.started | {op.name})
        yield Move(f"{name}: starts {op.name}", _with(state, number, Worker(began)))
    clocks = [(db.clock, state, False)]
    if program.fast_clock and state.faults:
        clocks.append((db.clock + 1, state._replace(faults=state.faults - 1), True))
    for clock, then, fault in clocks:
        for op in situation.open:
            if op.name in run.running and op.kind == "step":
                after = own.arrived(run, program, op, clock, rules)
                yield Move(f"{name}: ends {op.name} at {clock}", _with(then, number, Worker(after)), fault)
        for op, at in own.due_timers(run, situation, clock):
            after = own.tell(run, program, [op], max(at, clock))
            yield Move(f"{name}: fires {op.name} at {clock}", _with(then, number, Worker(after)), fault)
    for op in situation.open:
        if op.name in run.running and op.kind == "transaction":
            yield from _commits(state, number, run, op, rules)


def _commits(state: State, number: int, run: Run, op: Op, rules: Rules) -> Iterator[Move]:
    name = _name(number)
    db, word = sql.commit_step(state.db, run.epoch, op, rules)
    after = state._replace(db=db)
    match word:
        case "ok":
            told = own.committed(run, op, len(db.journal), db.journal[-1].at)
            yield Move(f"{name}: commits {op.name}", _with(after, number, Worker(told)))
        case "recorded":
            yield Move(f"{name}: rolls {op.name} back", _with(after, number, Worker(_unknown(run, op.name))))
        case "busy":
            pass
        case _:
            yield Move(f"{name}: is fenced at {op.name}", _with(after, number, Worker()))
    if state.faults:
        lost = after._replace(faults=state.faults - 1)
        label = f"{name}: commits {op.name}, and is not told"
        yield Move(label, _with(lost, number, Worker(_unknown(run, op.name))), fault=True)


def _unknown(run: Run, op: str) -> Run:
    return run._replace(running=run.running - {op}, news=True)


def _speaks(state: State, number: int, run: Run, program: Program, rules: Rules) -> Iterator[Move]:
    """One call after another, each said until it is answered."""
    name = _name(number)
    situation = program.situation(run.told)
    if own.wants_turn(run, situation):
        call = own.said(run, situation)
        sent = run._replace(call=call, news=False)
        yield Move(f"{name}: says {call.then or 'a turn'}", _with(state, number, Worker(sent)))
    if run.call is None:
        return
    db, answer = sql.advance(state.db, run.call, rules)
    judge_write(state.db, db, run.call, program)
    told = own.answered(state.workers[number], program, answer, state.db.clock, rules)
    yield Move(f"{name}: is answered {answer.word}", _with(state._replace(db=db), number, told))
    if state.faults:
        strays = tuple(sorted((*state.strays, run.call)))
        label = f"{name}: hears nothing, and says it again"
        yield Move(label, state._replace(strays=strays, faults=state.faults - 1), fault=True)


def _dies(state: State, number: int, run: Run) -> Iterator[Move]:
    if not state.faults:
        return
    name = _name(number)
    fewer = state._replace(faults=state.faults - 1)
    yield Move(f"{name}: dies", _anew(fewer, number), fault=True)
    if run.call is not None:
        strays = tuple(sorted((*state.strays, run.call)))
        yield Move(
            f"{name}: dies with a call under way", _anew(fewer._replace(strays=strays), number), fault=True
        )
    if number not in state.db.dead:
        db = state.db._replace(dead=state.db.dead | {number})
        yield Move(f"{name}: is taken for dead", fewer._replace(db=db), fault=True)


def _anew(state: State, number: int) -> State:
    """A process is gone, and another stands in its place: what was its own is nobody's."""
    db = state.db
    db = db._replace(
        holder=GONE if db.holder == number else db.holder,
        kept=None if db.kept == number else db.kept,
        dead=db.dead - {number},
    )
    return _with(state._replace(db=db), number, Worker())


def _with(state: State, number: int, worker: Worker) -> State:
    first, second = state.workers
    return state._replace(workers=(worker, second) if number == 0 else (first, worker))


def _sorted(state: State) -> State:
    """The two workers are alike: which of them is A says nothing, so it is the one with the younger claim."""
    a, b = state.workers
    if _rank(b, state.db, 1) <= _rank(a, state.db, 0):
        return state
    db = state.db
    db = db._replace(
        holder=_other(db.holder), kept=_other(db.kept), dead=frozenset(1 - number for number in db.dead)
    )
    return state._replace(db=db, workers=(b, a))


def _rank(worker: Worker, db: Db, number: int) -> tuple[int, bool, bool, int, int]:
    run, kept, looked = worker
    return (
        run.epoch if run else 0,
        db.holder == number,
        db.kept == number,
        -1 if kept is None else len(kept),
        -1 if looked is None else len(looked),
    )


def _other(number: int | None) -> int | None:
    return 1 - number if number in (0, 1) else number


def _name(number: int) -> str:
    return "AB"[number]
