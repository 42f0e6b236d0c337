"""Group commit: one `advance` for the turns that gathered while the last one was under way.

Idle, a turn is sent at once; busy, many share a call and a commit. What is due when an answer comes is sent before that answer is
told, so that Postgres works on the one while the code goes on with the other. Postgres away: the same call is said again until
it is back, which is harmless by contract. A batch that errors is sent again item by item; an item that errors alone parks its
task, so that nothing poisonous goes round for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import structlog

from troth import calls
from troth.errors import DatabaseError, IsolationLevel, SchemaMismatch, TrothError, Unreachable
from troth.gateway.pool import Pool
from troth.model import Advanced
from troth.worker.run import Run
from troth.worker.wording import TurnParts

BATCH_MAX: Final = 500
"""Turns in one call."""
ITEMS_MAX: Final = 5000
"""Operations after which no further turn is taken into a call, so that it stays below what SQL takes at once."""
BYTES_MAX: Final = 32 * 1024 * 1024
"""Payload after which none is either."""
TOLD_MAX: Final = 100
"""Answers told in a row. The steps that these start, and what those bring, come before the next ones: then what a workflow
consists of is still in the processor's cache."""
AWAY_FIRST_S: Final = 0.1
AWAY_LONGEST_S: Final = 2.0
_ITS_OWN_FAULT: Final = ("22", "23", "54")
"""Data, constraints, limits: it will never go through. A full disk, a lock, a schema that is being migrated pass."""

_Answers: TypeAlias = list[tuple[Run, Advanced]]

_log = structlog.get_logger("troth.worker")


class Turns:
    """Sends the turns of the runs that have something to say."""

    def __init__(
        self,
        pool: Pool,
        lingers: Callable[[Run], bool],
        answered: Callable[[Sequence[tuple[Run, Advanced]]], None],
    ) -> None:
        self._pool = pool
        self._lingers = lingers
        self._answered = answered
        self._due: dict[str, Run] = {}
        self._any = asyncio.Event()

    def add(self, run: Run) -> None:
        """A run has something to say."""
        self._due[run.task] = run
        self._any.set()

    def forget(self) -> None:
        """Say nothing of what is due: the worker lost it all."""
        self._due.clear()

    async def send_forever(self) -> None:
        """Send what is due, batch after batch."""
        told: _Answers = []
        while True:
            if not told:
                await self._any.wait()
            runs, parts = self._gather()
            if not runs:
                self._any.clear()
            sending = asyncio.create_task(self._send(parts), name="troth advance") if runs else None
            try:
                for first in range(0, len(told), TOLD_MAX):
                    await self._told(told[first : first + TOLD_MAX])
                told = _matched(runs, await sending) if sending is not None else []
            finally:
                if sending is not None:
                    sending.cancel()

    async def _told(self, answers: _Answers) -> None:
        done = asyncio.Event()
        asyncio.get_running_loop().call_soon(self._tell, answers, done)
        await done.wait()

    def _tell(self, answers: _Answers, done: asyncio.Event) -> None:
        # machines run from a plain callback, never inside a task
        try:
            self._answered(answers)
        finally:
            done.set()

    def _gather(self) -> tuple[list[Run], list[TurnParts]]:
        runs: list[Run] = []
        parts: list[TurnParts] = []
        items = size = 0
        while self._due and len(runs) < BATCH_MAX and items < ITEMS_MAX and size < BYTES_MAX:
            run = self._due.pop(next(iter(self._due)))
            lingering = self._lingers(run)
            if run.wants_turn(lingering):
                runs.append(run)
                parts.append(_said(run, lingering))
                items += parts[-1].items
                size += parts[-1].size
        return runs, parts

    async def _send(self, parts: list[TurnParts]) -> list[Advanced]:
        pause = AWAY_FIRST_S
        while True:
            try:
                return await self._pool.run(_call(parts))
            except Unreachable as error:
                _log.warning("postgres is away", error=str(error), again_in_s=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, AWAY_LONGEST_S)
            except TrothError as error:
                return await self._one_by_one(parts, error)

    async def _one_by_one(self, parts: list[TurnParts], error: TrothError) -> list[Advanced]:
        if len(parts) > 1:
            _log.warning(
                "a batch of turns failed; sending them one by one", turns=len(parts), error=str(error)
            )
            return [answer for part in parts for answer in await self._send([part])]
        turn = parts[0].turn
        if not _is_its_own_fault(error):
            _log.warning("a turn could not be stored; it is sent again", task=turn.task, error=str(error))
            return [Advanced(turn.task, "busy", None, None)]
        if turn.then == "halt":
            _log.error("a task could not even be parked", task=turn.task, error=str(error))
            return [Advanced(turn.task, "fenced", None, None)]
        _log.error("a turn cannot be stored; its task is parked", task=turn.task, error=str(error))
        reason = {"code": "unstorable", "message": str(error)[:2000]}
        halt = calls.Turn(turn.task, turn.epoch, turn.seen, "halt", reason=reason)
        return await self._send([TurnParts(halt)])


def _matched(runs: Sequence[Run], answers: Sequence[Advanced]) -> _Answers:
    by_task = {answer.task: answer for answer in answers}
    return [(run, by_task[run.task]) for run in runs if run.task in by_task]


def _said(run: Run, lingering: bool) -> TurnParts:
    """What a run has to say. If that cannot be put into words (its codec fails), it is parked."""
    try:
        return run.turn(lingering)
    except Exception as error:  # noqa: BLE001 — one workflow's trouble is not the others'
        _log.exception("what a workflow brought cannot be written; it is parked", task=run.task)
        run.halt("broken", error)
        return run.turn(lingering)


def _is_its_own_fault(error: TrothError) -> bool:
    if isinstance(error, DatabaseError):
        return error.code.startswith(_ITS_OWN_FAULT)
    return not isinstance(error, SchemaMismatch | IsolationLevel)


def _call(parts: Sequence[TurnParts]) -> calls.Call[list[Advanced]]:
    return calls.advance(
        [part.turn for part in parts],
        [outcome for part in parts for outcome in part.outcomes],
        [operation for part in parts for operation in part.operations],
        [timer for part in parts for timer in part.timers],
        [attempt for part in parts for attempt in part.attempts],
        [cancel for part in parts for cancel in part.cancels],
    )
