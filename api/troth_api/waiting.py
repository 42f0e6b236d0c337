"""Waiting for results on behalf of requests, for as long as somebody listens and the process is not told to end.

The client looks for all its waiters at once, so a waiting request costs no connection. When whoever asked goes away,
the wait goes too; when the process ends, whoever waits is told how things stand and can ask another process.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import FrameType
from typing import Any, Final

from litestar import Litestar, Request

from troth import PromiseInfo, Troth
from troth.client.lookout import Told, give_up

ORPHAN_LOOK_S: Final = 1.0
"""How often a server process looks whether the one that started it still lives."""


class Waiting:
    """What the waiting requests of one application share."""

    def __init__(self, troth: Troth) -> None:
        self._troth = troth
        self._under_way: set[Told] = set()
        self._ending = False

    async def settled(self, promise_id: str, seconds: float, request: Request[Any, Any, Any]) -> PromiseInfo:
        """The promise, pending when last seen, once it is settled; or as it is when time has run out or waiting is pointless."""
        told: Told = asyncio.get_running_loop().create_future()
        listening = asyncio.create_task(_gone(request))

        def gone(task: asyncio.Task[None]) -> None:
            _ = task.cancelled() or task.exception()
            give_up(told)

        listening.add_done_callback(gone)
        self._under_way.add(told)
        if self._ending:
            give_up(told)
        try:
            promise = await self._troth.lookout.wait(promise_id, seconds, told)
            return promise or await self._troth.get(promise_id)
        finally:
            self._under_way.discard(told)
            listening.cancel()

    @asynccontextmanager
    async def until_told_to_end(self, _: Litestar) -> AsyncGenerator[None]:
        """A server process' life: SIGTERM, SIGINT or the end of its parent end all waits; then the server ends."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            # The server hears of signals through the loop, whose file descriptor is written to before this is called.
            signal.signal(number, self._on_signal(loop))
        looking = asyncio.create_task(_end_with(os.getppid()))
        try:
            yield
        finally:
            looking.cancel()

    def _on_signal(self, loop: asyncio.AbstractEventLoop) -> Any:
        def handle(number: int, frame: FrameType | None) -> None:
            del number, frame
            loop.call_soon_threadsafe(self._end)

        return handle

    def _end(self) -> None:
        self._ending = True
        for told in self._under_way:
            give_up(told)


async def _gone(request: Request[Any, Any, Any]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _end_with(parent: int) -> None:
    """A worker process whose parent was killed would hold the port for ever."""
    while os.getppid() == parent:  # noqa: ASYNC110 — no event tells of it
        await asyncio.sleep(ORPHAN_LOOK_S)
    os.kill(os.getpid(), signal.SIGTERM)
