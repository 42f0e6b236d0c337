"""Starts that come while one is under way share the next call, as a worker's turns do.

A start in a batch costs Postgres a twentieth of one by itself. A lone one is sent at once, and none waits long behind another:
what takes longer than usual (an ID that somebody's open transaction holds) is overtaken. Whatever a shared call does not settle
for one of its callers, he asks for himself, so that each has the answer that he would have had alone.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from troth import Troth, calls
from troth.calls import Call
from troth.errors import DatabaseError, Unreachable
from troth.model import Started, StartedItem
from troth_api import limits

LOCK_NOT_AVAILABLE: Final = "55P03"

_log: Final = structlog.stdlib.get_logger("troth_api")


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A start that waits for its turn; None tells who asked to ask by himself."""

    id: str
    call: Call[Started]
    bytes: int
    shown: bool
    answer: asyncio.Future[Started | StartedItem | None]


class Starts:
    """The starts of one application, in the order in which they came."""

    def __init__(self, troth: Troth) -> None:
        self._troth = troth
        self._gathered: deque[_Asked] = deque()
        self._ahead: asyncio.TimerHandle | None = None
        """The latest call that is under way, by what ends its being waited for."""
        self._under_way: set[asyncio.Task[None]] = set()
        self._noted: set[str] = set()

    async def start(self, id: str, call: Call[Started], *, shown: bool) -> Started | StartedItem:
        """What `start` answers, and raises; of what is created perhaps no more than that, if it need not be `shown`."""
        if self._ahead is None:
            ahead = self._goes()
            try:
                return await self._troth.pool.run(call)
            finally:
                self._ended(ahead)
        size = sum(len(value.encode()) for value in call.values if isinstance(value, str))
        answer: asyncio.Future[Started | StartedItem | None] = asyncio.get_running_loop().create_future()
        self._gathered.append(_Asked(id, call, size, shown, answer))
        if (answered := await answer) is not None:
            return answered
        return await self._troth.pool.run(call)

    def _goes(self) -> asyncio.TimerHandle:
        """A call goes: what comes from now on gathers behind it, for a while."""
        self._ahead = asyncio.get_running_loop().call_later(limits.gather_seconds_max, self._next)
        return self._ahead

    def _ended(self, ahead: asyncio.TimerHandle) -> None:
        if ahead is self._ahead:
            ahead.cancel()
            self._next()

    def _next(self) -> None:
        """Send what has gathered."""
        group = self._group()
        if not group:
            self._ahead = None
            return
        # in a context of its own: that of whoever was answered just now is none of theirs
        sending = self._send(group, self._goes())
        task = asyncio.create_task(sending, name="troth starts", context=contextvars.Context())
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    def _group(self) -> list[_Asked]:
        group: list[_Asked] = []
        size = 0
        while self._gathered and len(group) < limits.gathered_starts_max:
            if not self._gathered[0].answer.done():
                size += self._gathered[0].bytes
                if group and size > limits.gathered_bytes_max:
                    break
                group.append(self._gathered[0])
            self._gathered.popleft()
        return group

    async def _send(self, group: Sequence[_Asked], ahead: asyncio.TimerHandle) -> None:
        try:
            answers = await self._troth.pool.run(_one_call(group))
            for asked, answer in zip(group, answers, strict=True):
                if not asked.answer.done():
                    asked.answer.set_result(answer if answer.answer in ("created", "attached") else None)
        except Exception as error:  # noqa: BLE001 — whatever it was, those who asked are told
            if len(group) == 1 or isinstance(error, Unreachable):
                _tell(group, error)
                return
            # what could not be done for all, may be done for each, or refused in other words
            self._note(error)
            _tell(group, None)
        finally:
            for asked in group:
                asked.answer.cancel()  # what has no answer by now is not going to have one
            self._ended(ahead)

    def _note(self, error: Exception) -> None:
        """Say once of each kind of trouble, but for an ID that somebody holds, that it keeps starts from sharing a call."""
        kind = error.code if isinstance(error, DatabaseError) else type(error).__name__
        if kind != LOCK_NOT_AVAILABLE and kind not in self._noted:
            self._noted.add(kind)
            _log.warning("starts could not share a call; each goes by itself", error=str(error))


def _one_call(group: Sequence[_Asked]) -> Call[list[Started | StartedItem]]:
    if len(group) > 1:
        return calls.start_together(
            [asked.call for asked in group], [asked.id for asked in group if asked.shown]
        )
    call = group[0].call
    return Call(call.function, call.arguments, lambda rows: [call.read(rows)])


def _tell(group: Sequence[_Asked], error: Exception | None) -> None:
    for asked in group:
        if asked.answer.done():
            continue
        if error is None:
            asked.answer.set_result(None)
        else:
            asked.answer.set_exception(error)
