"""What must be true, by name. `Broken` says which of them is not, and how."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from tests.proof.protocol.database import TIMER_TICKS, names
from tests.proof.protocol.programs import CANCEL, Op, Program
from tests.proof.protocol.states import Call, Db, Run, State

LOST_WAKE_UP = "no lost wake-up"
REPLAY = "replay tells what live told"
TWICE = "nothing twice"
STALE = "no stale write"
WEDGE = "the end stays reachable"
UNTOLD = "news of a held task are marked"
TIME = "time goes forward"
CHECKS = (LOST_WAKE_UP, REPLAY, TWICE, STALE, WEDGE, UNTOLD, TIME)


class Broken(Exception):
    """One of the checks failed; `trace` is the shortest way there."""

    def __init__(self, check: str, detail: str) -> None:
        super().__init__(check, detail)
        self.check = check
        self.detail = detail
        self.trace: list[str] = []

    def __str__(self) -> str:
        return "\n  ".join([f"{self.check}: {self.detail}", *self.trace])


def judge(state: State, program: Program) -> None:
    """Every state."""
    judge_db(state.db, program)
    for number, worker in enumerate(state.workers):
        if worker.run is not None:
            _judge_run(state.db, worker.run, number)


@cache
def judge_db(db: Db, program: Program) -> None:
    """What the database alone must fulfil."""
    if db.task == "suspended":
        asleep = [wait.op.name for wait in db.waits if wait.op.name in db.settled]
        if asleep:
            raise Broken(LOST_WAKE_UP, f"suspended on {asleep}, which is settled")
        if not db.waits:
            raise Broken(LOST_WAKE_UP, "suspended on nothing that could come")
        if len(db.journal) != db.asked:
            raise Broken(LOST_WAKE_UP, f"suspended, and {db.journal[db.asked :]} came since")
    if len(names(db.journal)) != len(db.journal):
        raise Broken(TWICE, f"an operation has two events: {db.journal}")
    if len({wait.op for wait in db.waits}) != len(db.waits):
        raise Broken(TWICE, f"an operation waits twice: {db.waits}")
    if len(db.ends) > 1:
        raise Broken(TWICE, f"settled twice: {db.ends}")
    done = tuple(event.name for event in db.journal if event.kind == "transaction")
    if db.effects != done:
        raise Broken(TWICE, f"transactions had the effects {db.effects}, and the journal says {done}")
    _judge_order(db, program)
    _judge_time(db)


def _judge_order(db: Db, program: Program) -> None:
    """Whatever is recorded is what code issues that is told just the journal up to there."""
    recorded = [Op(event.name, event.kind, event.issued) for event in db.journal if event.name != CANCEL]
    for op in [*recorded, *(wait.op for wait in db.waits)]:
        if op not in program.situation(db.journal[: op.issued]).asked:
            raise Broken(
                REPLAY, f"{op} is recorded, and code told {db.journal[: op.issued]} does not ask for it"
            )
    for seq, event in enumerate(db.journal, 1):
        if event.issued >= seq:
            raise Broken(REPLAY, f"{event} was issued after itself")


def _judge_time(db: Db) -> None:
    instants = [0, *(event.at for event in db.journal)]
    if instants != sorted(instants) or instants[-1] > db.clock:
        raise Broken(TIME, f"instants {instants} at {db.clock}")
    for event in db.journal:
        if event.kind == "timer" and event.at < instants[event.issued] + TIMER_TICKS:
            raise Broken(TIME, f"{event} fired before its instant")


def _judge_run(db: Db, run: Run, number: int) -> None:
    if run.told[: run.seen] != db.journal[: run.seen]:
        raise Broken(
            REPLAY, f"worker {number} was told {run.told[: run.seen]}, and the journal has {db.journal}"
        )
    if not is_held(db, run.epoch) or run.call is not None or run.news:
        return
    if len(db.journal) > run.seen and not db.news:
        raise Broken(
            UNTOLD, f"worker {number} was told {run.seen} of {len(db.journal)} events and nothing says so"
        )


def is_held(db: Db, epoch: int) -> bool:
    """Whether a write with this epoch is the holder's."""
    return db.task == "claimed" and db.epoch == epoch


def judge_write(before: Db, after: Db, call: Call, program: Program) -> None:
    """Every application of an `advance`."""
    if not is_held(before, call.epoch) and after != before:
        raise Broken(STALE, f"epoch {call.epoch} wrote, and {before.task} {before.epoch} is the law")
    if len(after.ends) > len(before.ends):
        told = tuple(event.name for event in after.journal)
        if call.value != told or not program.situation(after.journal).ended:
            raise Broken(REPLAY, f"ended with {call.value}, and its journal tells {told}")


def judge_start(db: Db, run: Run, op: Op, asked: Sequence[Op]) -> None:
    """Every start of a step by the holder of its task."""
    if op.kind == "step" and op.name in run.started:
        raise Broken(TWICE, f"one holder starts {op.name} again")
    if not is_held(db, run.epoch):
        return  # a fenced worker, who does not know yet: its steps run at least once
    if run.told != db.journal[: len(run.told)]:
        raise Broken(REPLAY, f"{op.name} starts after {run.told}, and the journal has {db.journal}")
    missing = {each.name for each in asked if each.kind == "promise"} - names(db.journal)
    missing -= {wait.op.name for wait in db.waits}
    if missing:
        raise Broken(REPLAY, f"{op.name} starts before {sorted(missing)} exists")
