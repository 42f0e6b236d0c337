"""Connections that calls take and give back, at most so many, each opened when it is needed.

asyncpg's own pool takes more CPU than the call itself: a proxy for each taking, a task and a reset for each giving back. Our
calls leave nothing behind on a connection, so here it goes from hand to hand: what was given back last is taken first, who has
to wait is served in turn, and one that nobody takes for a while is closed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import asyncpg

IDLE_S: Final = 60.0
"""How long a connection is kept for whoever may need it."""
GIVE_BACK_S: Final = 5.0
"""How long a connection whose call was given up may take to confirm that, or to close; then it is dropped."""

Connection: TypeAlias = "asyncpg.Connection[Any]"


class Connections:
    """At most `size` connections that `connect` opens, in one event loop."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], size: int) -> None:
        self._connect = connect
        self._size = size
        self._places = 0
        """How many are idle, taken, or being opened."""
        self._idle: list[tuple[Connection, float]] = []
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._sweep: asyncio.TimerHandle | None = None
        self._jobs: set[asyncio.Task[None]] = set()
        self._closing = False
        self._empty = asyncio.Event()

    async def take(self) -> Connection:
        """One that nobody else uses, until it is given back. Raises what opening one raises."""
        while self._idle:
            connection, _ = self._idle.pop()
            if not connection.is_closed():
                return connection
            self._places -= 1
        if self._places < self._size:
            self._places += 1
        else:
            given = await self._wait()
            if given is not None:
                return given
        try:
            return await self._connect()
        except BaseException:
            self._leave_place()
            raise

    async def _wait(self) -> Connection | None:
        """What somebody gives back; None if it is a place for a new one."""
        turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # both came at once
                given = turn.result()
                if given is None:
                    self._leave_place()
                else:
                    self.give_back(given)
            raise

    def give_back(self, connection: Connection) -> None:
        """It has done what it was taken for."""
        if connection.is_closed():
            self._leave_place()
        elif (turn := self._next()) is not None:
            turn.set_result(connection)
        elif self._closing:
            self._close(connection)
        else:
            loop = asyncio.get_running_loop()
            self._idle.append((connection, loop.time()))
            if self._sweep is None:
                self._sweep = loop.call_later(IDLE_S, self._close_unused)

    def give_up(self, connection: Connection) -> None:
        """The call that it was taken for was given up: it is given back when that has been confirmed."""
        self._job(self._confirmed(connection))

    async def close(self) -> None:
        """Close all, those that are taken once they are given back."""
        self._closing = True
        if self._sweep is not None:
            self._sweep.cancel()
        while self._idle:
            self._close(self._idle.pop()[0])
        while self._places:
            self._empty.clear()
            await self._empty.wait()
        while self._jobs:
            await asyncio.wait(self._jobs)

    def _next(self) -> asyncio.Future[Connection | None] | None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                return turn
        return None

    def _leave_place(self) -> None:
        turn = self._next()
        if turn is not None:
            turn.set_result(None)
            return
        self._places -= 1
        self._empty.set()

    def _close_unused(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweep = None
        while self._idle and self._idle[0][1] + IDLE_S <= loop.time():
            self._close(self._idle.pop(0)[0])
        if self._idle:
            self._sweep = loop.call_at(self._idle[0][1] + IDLE_S, self._close_unused)

    def _close(self, connection: Connection) -> None:
        self._leave_place()
        self._job(_closed(connection))

    async def _confirmed(self, connection: Connection) -> None:
        try:
            # asyncpg says nothing further on a connection before the server has answered to the cancel
            await connection.execute("select 1", timeout=GIVE_BACK_S)
        except Exception:  # noqa: BLE001 — whatever it was, another connection is better
            connection.terminate()
        finally:
            self.give_back(connection)

    def _job(self, work: Any) -> None:
        job = asyncio.get_running_loop().create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)


async def _closed(connection: Connection) -> None:
    try:
        await connection.close(timeout=GIVE_BACK_S)
    except Exception:  # noqa: BLE001 — it was to go anyway
        connection.terminate()
