"""The keeper: a thread with connections of its own that renews the lease, listens, and watches the worker's loop.

User code may block that loop for a while, and the lease is kept all the same; for how long, the watchdog decides. The
listening connection proves itself alive every few seconds and is opened anew, with jitter, when it does not: until then the
worker polls, as it always does. What the keeper hears goes to the worker's loop as plain callbacks.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from troth import calls
from troth.errors import TrothError, WorkerDead
from troth.gateway.pool import Deaf, Ear, Pool
from troth.model import HeldNews
from troth.worker.watchdog import LEAVE_AFTER_S, NAMED_AFTER_S, Watchdog

PROBE_EVERY_S: Final = 4.0
PROBE_TIMEOUT_S: Final = 4.0
"""A listener that died in silence is noticed within the two together."""
RECONNECT_FIRST_S: Final = 0.1
RECONNECT_LONGEST_S: Final = 5.0
DEAF_AGAIN_S: Final = 300.0
"""When a way that hands on no hints is tried again."""

_log = structlog.get_logger("troth.worker")


@dataclass(frozen=True, slots=True)
class Ears:
    """Whom the keeper tells; all are called in the worker's loop."""

    heard: Callable[[], None]
    listening: Callable[[bool], None]
    news: Callable[[list[HeldNews]], None]
    dead: Callable[[str, str], None]
    """With the worker's ID, for it may go by another one already."""


class Keeper:
    """Keeps one worker's lease and listens for it, until stopped."""

    def __init__(
        self,
        worker: str,
        *,
        dsn: str,
        schema: str,
        prepared: bool,
        listen_dsn: str | None,
        beat_every_s: float,
        held: Callable[[], Mapping[str, int]],
        ears: Ears,
        blocked_named_after_s: float = NAMED_AFTER_S,
        blocked_leave_after_s: float = LEAVE_AFTER_S,
        pool: Callable[..., Pool] = Pool,
    ) -> None:
        """To be made in the worker's loop.

        `blocked_named_after_s`: how long one run of code may block the loop before its line is named;
        `blocked_leave_after_s`: and before the lease is left to run out.
        """
        self._worker = worker
        self._dsn = dsn
        self._schema = schema
        self._prepared = prepared
        self._listen_dsn = listen_dsn
        self._beat_every_s = beat_every_s
        self._make_pool = pool
        self._held = held
        self._ears = ears
        self._host = asyncio.get_running_loop()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._beat_now: asyncio.Event | None = None
        self._stopped: asyncio.Event | None = None
        self._watchdog = Watchdog(
            worker,
            named_after_s=blocked_named_after_s,
            leave_after_s=blocked_leave_after_s,
            back=lambda: self._beat_now.set() if self._beat_now else None,
        )
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"troth keeper {worker}", daemon=True)

    def start(self) -> None:
        """Begin, in the thread."""
        self._thread.start()
        self._ready.wait()

    def beat(self) -> None:
        """Beat now: there may be news for a task that is held."""
        self._tell_thread(lambda: self._beat_now.set() if self._beat_now else None)

    def stop(self) -> None:
        """End the thread, without waiting for it."""
        self._tell_thread(lambda: self._stopped.set() if self._stopped else None)

    async def join(self) -> None:
        """Wait for the thread's end."""
        await asyncio.to_thread(self._thread.join, 5.0)

    def _tell_thread(self, callback: Callable[[], None]) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            try:
                loop.call_soon_threadsafe(callback)
            except RuntimeError:  # it was closed this very moment
                return

    def _tell_host(self, callback: Callable[..., None], *args: object) -> None:
        if not self._host.is_closed():
            try:
                self._host.call_soon_threadsafe(callback, *args)
            except RuntimeError:
                return

    def _run(self) -> None:
        asyncio.run(self._live())

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._beat_now = asyncio.Event()
        self._stopped = asyncio.Event()
        self._ready.set()
        jobs = [
            asyncio.create_task(self._beat_forever(self._beat_now)),
            asyncio.create_task(self._watchdog.watch_forever()),
        ]
        if self._listen_dsn is not None:
            jobs.append(asyncio.create_task(self._listen_forever(self._listen_dsn)))
        await self._stopped.wait()
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    async def _beat_forever(self, now: asyncio.Event) -> None:
        pool = self._make_pool(self._dsn, self._schema, size=1, prepared=self._prepared)
        try:
            while True:
                try:
                    async with asyncio.timeout(self._beat_every_s * random.uniform(0.8, 1.0)):  # noqa: S311
                        await now.wait()
                except TimeoutError:
                    pass
                now.clear()
                if self._watchdog.silent:
                    continue
                try:
                    # not repeated as it is: what was claimed since would be taken for not held, and freed
                    news = await pool.run(calls.heartbeat(self._worker, self._held()), again=False)
                except WorkerDead as error:
                    self._tell_host(self._ears.dead, self._worker, str(error))
                    return
                except TrothError as error:
                    _log.warning("no heartbeat", worker=self._worker, error=str(error))
                    await asyncio.sleep(min(1.0, self._beat_every_s / 2))
                    now.set()
                    continue
                if news:
                    self._tell_host(self._ears.news, news)
        finally:
            await pool.close()

    async def _listen_forever(self, dsn: str) -> None:
        pause = RECONNECT_FIRST_S
        heard = self._ears.heard
        while True:
            ear = Ear(dsn, self._worker, lambda: self._tell_host(heard))
            try:
                await ear.open()
                pause = RECONNECT_FIRST_S
                self._tell_host(self._ears.listening, True)
                while True:
                    await asyncio.sleep(PROBE_EVERY_S)
                    await ear.probe(PROBE_TIMEOUT_S)
            except Deaf as error:
                _log.warning("hints do not arrive; polling instead", worker=self._worker, error=str(error))
                pause = DEAF_AGAIN_S
            except (TrothError, TimeoutError, OSError) as error:
                pause = min(pause, RECONNECT_LONGEST_S)
                _log.warning("not listening; polling meanwhile", worker=self._worker, error=str(error))
            finally:
                ear.close()
                self._tell_host(self._ears.listening, False)
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 — jitter
            pause = min(pause * 2, max(pause, RECONNECT_LONGEST_S))
