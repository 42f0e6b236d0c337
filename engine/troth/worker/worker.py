"""The life of a worker process.

It claims a batch, runs the code of each task until it is idle, carries out the steps, says what became of all in one call,
and claims again. Three loops share its event loop: claims, turns and ticks; code is run and answers are heard in plain
callbacks between them (`runs.py`). No connection is held while user code runs. The lease and the ear are the keeper's, in a
thread of its own.

Asleep, it is woken by a hint or looks by itself every `poll`. A worker that was taken for dead (it was stopped, or cut off,
for longer than its lease) lets go of everything and goes on under a new ID: what it held is with others, and whatever it still
says about that is fenced. A task whose last holder died is run alone: nothing is claimed beside it.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import socket
import time
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, Final

import structlog

from troth import calls
from troth.client import Troth
from troth.client.verbs import check_protocol
from troth.errors import (
    DatabaseError,
    InvalidArgument,
    SchemaMismatch,
    TrothError,
    Unreachable,
    WorkerDead,
)
from troth.model import Claimed, HeldNews
from troth.providers import Providers
from troth.registry import Registry, Workflow, check_name
from troth.worker.clock import Clock
from troth.worker.keeper import Ears, Keeper
from troth.worker.run import Run
from troth.worker.runs import Runs
from troth.worker.seams import Seams
from troth.worker.steps import Steps
from troth.worker.vacuum import Vacuum
from troth.worker.watchdog import LEAVE_AFTER_S, NAMED_AFTER_S

CLAIM_BATCH_MAX: Final = 200
"""Tasks in one claim."""
BEGUN_MAX: Final = 100
"""Tasks begun in a row; the steps that these start come before the next ones."""
CONCURRENCY_DEFAULT: Final = 1000
LEASE_SHORTEST: Final = timedelta(seconds=1)
LEASE_LONGEST: Final = timedelta(days=1)
THREADS_DEFAULT: Final = 32
"""Plain (not async) step functions that run at once."""
TRANSACTIONS_DEFAULT: Final = 10
"""Connections for `ctx.transaction`, and so how many of them run at once."""
KEEP_DEFAULT: Final = 1000
"""Suspended workflows whose code stays in memory."""
LOOK_AGAIN_S: Final = (0.002, 0.02, 0.1, 0.5)
"""When a worker that fell asleep looks again. Whoever looked for sleepers before it had said that it is one, and commits after
it looked, sends no hint: that is a matter of one commit, so the first look comes soon.
"""
POLLS_WHEN_LISTENING: Final = 2
"""An idle worker that hears hints looks by itself so many times less often."""
BUSY_CLAIMS: Final = 3
"""After so many claims in a row that brought work, it wants no hints: it looks anyway."""
FEW: Final = 20
"""A claim that brought fewer, and had room for more, took all there was: behind one that heard hints all the while the next waits
for a hint, behind one that wanted none for as long as that took, so that more gather."""
FULL_PARTS: Final = 20
FULL_S: Final = 0.02
"""A busy worker with less than one in so many of its places free waits a moment before it claims, so that more gather: a claim of
five costs Postgres about as much as one of fifty."""
ALONE_WAIT_S: Final = 5.0
"""How long others wait for a task whose last holder died, and it for them."""
TICK_SOONEST_S: Final = 0.02
GIVE_BACK_S: Final = 2.0
LEAVE_S: Final = 5.0

_log = structlog.get_logger("troth.worker")


class Worker:
    """Runs workflows: claims tasks of `queues` for the functions it is given, until `stop`.

    `concurrency`: workflows under way at once. `threads`: plain step functions at once. `transactions`: those of
    `ctx.transaction` at once. `keep`: suspended workflows whose code stays in memory, to go on without a replay. `provide`:
    replacements for what `provided(...)` makes. `lease`: how long it may be silent before its tasks are given to others.
    `poll`: how often it looks for what is due, and for work where it hears no hints (where it does, every second time).
    `grace`: how long `stop` waits for steps under way before it gives their tasks back. `blocked_named_after`,
    `blocked_leave_after`: how long one run of code may block the worker's loop before its line is named in the log, and before
    the lease is left to run out, so that others go on. `watch`: entered around every run of workflow code
    (`troth.worker.guard.Guard` is one). `seams`: for tests.

        async with Troth(dsn) as troth:
            await Worker(troth, [approve_order]).run()
    """

    def __init__(
        self,
        client: Troth,
        workflows: Iterable[Workflow[..., Any] | types.ModuleType],
        queues: Sequence[str] = ("default",),
        *,
        concurrency: int = CONCURRENCY_DEFAULT,
        threads: int = THREADS_DEFAULT,
        transactions: int = TRANSACTIONS_DEFAULT,
        keep: int = KEEP_DEFAULT,
        provide: Mapping[Callable[..., Any], Callable[..., Any]] | None = None,
        watch: AbstractContextManager[object] | None = None,
        lease: timedelta = timedelta(seconds=15),
        poll: timedelta = timedelta(seconds=1),
        grace: timedelta = timedelta(seconds=10),
        blocked_named_after: timedelta = timedelta(seconds=NAMED_AFTER_S),
        blocked_leave_after: timedelta = timedelta(seconds=LEAVE_AFTER_S),
        name: str | None = None,
        seams: Seams | None = None,
    ) -> None:
        self.registry = Registry(workflows)
        if not self.registry:
            raise InvalidArgument("A worker without workflows has nothing to do.", hint="Give it some.")
        if concurrency < 1 or threads < 1 or transactions < 1 or keep < 0 or not queues:
            raise InvalidArgument(
                "A worker needs a queue, a concurrency, threads and transactions of 1 or more, and keeps 0 or more."
            )
        if not LEASE_SHORTEST <= lease <= LEASE_LONGEST or poll <= timedelta(0):
            raise InvalidArgument(
                f"A lease of {lease} and a poll of {poll} cannot be.",
                hint="A lease lies between 1 second and 1 day, and a worker looks again after more than no time.",
            )
        self.queues = tuple(check_name(queue, "queue") for queue in queues)
        self.concurrency = concurrency
        self.lease = lease
        self.poll_s = poll.total_seconds()
        self.grace_s = grace.total_seconds()
        self._blocked_s = blocked_named_after.total_seconds(), blocked_leave_after.total_seconds()
        self.name = name or f"{_short_host()}-{os.getpid()}"
        check_name(self.name, "worker")
        self.id = self._new_id()
        self._info = {"name": self.name, "pid": os.getpid(), "host": _short_host()}
        self._client = client
        self._seams = seams or Seams()
        self._pool = self._seams.pool(client.dsn, client.schema, size=4, prepared=client.prepared)
        self._vacuum = Vacuum(self._pool)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="troth step")
        self._lanes = _lanes(self.registry)
        self._clock = Clock()
        self._steps = Steps(
            client.payloads,
            self._threads,
            Providers(provide),
            self._seams.transactions(client.dsn, client.schema, size=transactions, prepared=client.prepared),
            self._seams.stand_in,
        )
        self._runs = Runs(
            self.registry, client.payloads, self._pool, self._clock, self._steps, kept=keep, watch=watch
        )
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._keeper: Keeper | None = None
        self._listening = False
        self._idle = True
        self._alone_ready_at: float | None = None
        self._alone: tuple[str, float] | None = None

    # --- its life ---

    async def run(self) -> None:
        """Work until `stop`. Raises `Unreachable` or `SchemaMismatch` if it cannot begin; later outages are sat out."""
        try:
            check_protocol(await self._pool.run(calls.protocol()))
            functions = [(w.name, w.version, w.queue or "default") for w in self.registry.values()]
            await self._pool.run(calls.register(functions))
            self._clock.sample((await self._pool.run(calls.tick())).now)
        except BaseException:
            await self._pool.close()
            self._threads.shutdown(wait=False)
            raise
        self._start_keeper()
        names = sorted({name for name, _ in self.registry})
        _log.info("worker started", worker=self.id, queues=self.queues, functions=names)
        jobs = [
            asyncio.create_task(self._runs.turns.send_forever(), name="troth turns"),
            asyncio.create_task(self._claim_forever(), name="troth claims"),
            asyncio.create_task(self._tick_forever(), name="troth ticks"),
        ]
        stopping = asyncio.create_task(self._stopping.wait())
        failure: BaseException | None = None
        try:
            await asyncio.wait([*jobs, stopping], return_when=asyncio.FIRST_COMPLETED)
            failure = next((j.exception() for j in jobs if j.done() and not j.cancelled()), None)
            if failure is None:
                await self._drain()
        finally:
            # before anything is awaited: who is canceled again here must not leave its lease behind, renewed for ever
            keeper, self._keeper = self._keeper, None
            if keeper is not None:
                keeper.stop()
            self._vacuum.stop()
            for job in (*jobs, stopping):
                job.cancel()
            await asyncio.wait([*jobs, stopping])
            await self._end(keeper)
        if failure is not None:
            raise failure

    def stop(self) -> None:
        """Claim no more; let steps end within the grace period, give back the rest, and let `run` return."""
        self._stopping.set()
        self._wake.set()
        self._runs.changed.set()

    async def _drain(self) -> None:
        """Let what is under way end; give back what does not."""
        await self._in_callback(self._runs.wind_up)
        await self._until_empty(self.grace_s)
        await self._in_callback(self._runs.give_back)
        await self._until_empty(GIVE_BACK_S)

    async def _until_empty(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self._runs and (left := until - time.monotonic()) > 0:
            self._runs.changed.clear()
            await _happens(self._runs.changed, left)

    async def _end(self, keeper: Keeper | None) -> None:
        try:
            await self._in_callback(self._runs.abandon)
            try:
                async with asyncio.timeout(LEAVE_S):
                    await self._pool.run(calls.leave(self.id))
            except (TrothError, TimeoutError) as error:
                _log.warning("left without a word; the lease will tell", worker=self.id, error=str(error))
            if keeper is not None:
                await keeper.join()
        finally:
            # also where it was canceled once more meanwhile: nobody else closes its connections
            await self._steps.close()
            await self._pool.close()
            self._threads.shutdown(wait=False, cancel_futures=True)
        _log.info("worker stopped", worker=self.id)

    async def _in_callback(self, act: Callable[..., None], *args: object) -> None:
        """Run what may run code: from a plain callback, never inside this task."""
        done = asyncio.get_running_loop().create_future()

        def call() -> None:
            try:
                act(*args)
            except BaseException as error:  # noqa: BLE001 — it is raised where it is awaited
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(None)

        asyncio.get_running_loop().call_soon(call)
        await done

    # --- what the keeper tells ---

    def _new_id(self) -> str:
        return f"{self.name[:40]}-{secrets.token_hex(4)}"

    def _start_keeper(self) -> None:
        client = self._client
        me = self.id

        def listening(is_listening: bool) -> None:
            if me == self.id:
                self._listening = is_listening
                self._wake.set()

        self._keeper = Keeper(
            me,
            dsn=client.dsn,
            schema=client.schema,
            prepared=client.prepared,
            listen_dsn=client.listen_dsn if client.notify else None,
            beat_every_s=self.lease.total_seconds() / 3,
            held=self._runs.held,
            blocked_named_after_s=self._blocked_s[0],
            blocked_leave_after_s=self._blocked_s[1],
            pool=self._seams.pool,
            ears=Ears(self._wake.set, listening, self._hear_news, self._taken_for_dead),
        )
        self._keeper.start()

    def _hear_news(self, news: list[HeldNews]) -> None:
        for each in news:
            if each.task is None or each.epoch is None:
                self._alone_ready_at = self._alone_ready_at or time.monotonic()
            else:
                self._runs.heard(each.task, each.epoch, lost=each.answer == "lost")

    def _taken_for_dead(self, worker: str, message: str) -> None:
        """Others have all that this worker held. Go on as somebody new."""
        if worker != self.id or self._keeper is None:
            return  # both the keeper and a claim may have met it, or the end has come meanwhile
        _log.warning("taken for dead; going on under a new ID", worker=self.id, error=message)
        self._keeper.stop()
        self._runs.abandon()
        self._listening = False
        self.id = self._new_id()
        self._start_keeper()
        self._wake.set()

    # --- claims ---

    async def _claim_forever(self) -> None:
        streak = looks = 0
        asleep = False
        while not self._stopping.is_set():
            room = self._room()
            if 1 <= room < self.concurrency // FULL_PARTS and not self._idle:
                await _happens(self._stopping, FULL_S)
                room = self._room()
            if room < 1:
                self._runs.changed.clear()
                await _happens(self._runs.changed, self.poll_s)
                continue
            self._wake.clear()
            slept, asleep = asleep, self._idle and self._listening
            claimant, begun = self.id, time.monotonic()
            limit = min(room, CLAIM_BATCH_MAX)
            try:
                found = await self._claim(limit, asleep)
            except Unreachable as error:
                _log.warning("postgres is away", error=str(error))
                await _happens(self._stopping, self.poll_s)
                continue
            except WorkerDead as error:
                await self._in_callback(self._taken_for_dead, claimant, str(error))
                continue
            except (
                DatabaseError,
                SchemaMismatch,
            ) as error:  # a schema being migrated, a standby being promoted
                _log.error("no claim", error=str(error))
                await _happens(self._stopping, self.poll_s)
                continue
            if found:
                streak += 1
                looks = 1 if asleep and slept else 0  # asleep all the while, it cannot have missed a hint
                self._idle = self._idle and streak < BUSY_CLAIMS
            elif not self._idle:
                # the mark is set by the look that comes now, so that whoever adds work after it sends a hint
                streak = looks = 0
                self._idle = True
                continue
            few = found < min(limit, FEW)
            if not found or (few and asleep and not self._wake.is_set()):
                streak = 0
                looks = looks + 1 if not await self._woken(looks) else 0
            elif few and not self._idle:
                await _happens(self._stopping, time.monotonic() - begun)

    async def _woken(self, looks: int) -> bool:
        """Sleep until a hint or the next look; whether it was a hint."""
        if looks < len(LOOK_AGAIN_S):
            pause = LOOK_AGAIN_S[looks]
        else:
            polls = POLLS_WHEN_LISTENING if self._listening else 1
            pause = self.poll_s * polls * random.uniform(0.9, 1.1)  # noqa: S311 — so that workers do not look in step
        if not await _happens(self._wake, pause):
            return False
        if self._keeper is not None and len(self._runs) > 0:
            self._keeper.beat()
        return True

    def _room(self) -> int:
        """How many tasks to claim now. Whose last holder died waits until nothing else is here, and others for it."""
        now = time.monotonic()
        if self._alone is not None:
            task, since = self._alone
            if task in self._runs and now - since < ALONE_WAIT_S:
                return 0
            self._alone = None
        if self._alone_ready_at is not None:
            if self._runs and now - self._alone_ready_at < ALONE_WAIT_S:
                return 0
            return 1
        return self.concurrency - len(self._runs)

    async def _claim(self, limit: int, asleep: bool) -> int:
        """Take up to so many tasks and begin them; how many there were."""
        alone = not self._runs or self._alone_ready_at is not None
        claimant = self.id
        claimed = await self._pool.run(
            calls.claim(
                claimant,
                self.queues,
                self._lanes,
                limit,
                alone=alone,
                sleeping=asleep,
                lease=self.lease,
                info=self._info,
            ),
            again=False,
        )
        if alone:
            self._alone_ready_at = None
        if not claimed:
            return 0
        self._vacuum.claimed(len(claimed))
        self._clock.sample(claimed[0].now)
        if claimed[0].alone:
            self._alone = (claimed[0].task, time.monotonic())
        # held from now on: fetching long journals may take longer than a heartbeat leaves to a claim under way
        self._runs.coming = {each.task: each.epoch for each in claimed}
        kept: dict[str, Run] = {}
        try:
            for each in claimed:
                run = self._runs.kept.take(each.task)
                if run is not None and not run.is_of(each):
                    run.evict()
                    run = None
                if run is not None:
                    kept[each.task] = run
                if each.last_seq:
                    await self._complete(each, run)
            for first in range(0, len(claimed), BEGUN_MAX):
                await self._in_callback(self._begin, claimant, claimed[first : first + BEGUN_MAX], kept)
        finally:
            self._runs.coming = {}
            for run in kept.values():
                run.evict()
        return len(claimed)

    def _begin(self, claimant: str, claimed: list[Claimed], kept: dict[str, Run]) -> None:
        if claimant != self.id:
            return  # taken for dead meanwhile: what was claimed in that name goes to others
        self._runs.begin([(each, kept.pop(each.task, None)) for each in claimed])

    async def _complete(self, claimed: Claimed, kept: Run | None) -> None:
        """Fetch what is missing of a journal: it was too long for the claim, or its first part was thought to be here."""
        journal = claimed.journal
        begins_at = 1 if kept is None else kept.seen + 1
        if journal and journal[0].seq > begins_at:
            journal.clear()
        have = journal[-1].seq if journal else begins_at - 1
        while have < claimed.last_seq:
            page = await self._pool.run(calls.journal(claimed.task, from_seq=have + 1))
            if not page:
                return
            journal.extend(page)
            have = journal[-1].seq

    # --- what is due ---

    async def _tick_forever(self) -> None:
        while True:
            pause = self.poll_s * random.uniform(0.9, 1.1)  # noqa: S311 — so that tickers do not go in step
            try:
                done = await self._pool.run(calls.tick())
                self._clock.sample(done.now)
                idle = not (done.workers or done.promises or done.timers or done.closed)
                # due and not done is what somebody holds: he will not be quicker for being asked often
                if done.next is not None and not (idle and done.next == 0):
                    pause = max(TICK_SOONEST_S, min(pause, done.next / 1e6))
            except Unreachable as error:
                _log.debug("no tick: postgres is away", error=str(error))
            except TrothError as error:
                _log.warning("a tick failed", error=str(error))
            if self._keeper is not None and not self._listening and len(self._runs) > 0:
                self._keeper.beat()
            if await _happens(self._runs.owing, pause):
                self._runs.owing.clear()


async def _happens(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _lanes(registry: Registry) -> list[calls.Lane]:
    newest: dict[str, int] = {}
    lanes: list[calls.Lane] = []
    for name, version in registry:
        newest[name] = max(version, newest.get(name, 0))
        lanes.append(calls.Lane(f"{name}@{version}", f"{name}@{version}"))
    return lanes + [calls.Lane(name, f"{name}@{version}") for name, version in newest.items()]


def _short_host() -> str:
    host = socket.gethostname().partition(".")[0]
    return "".join(c for c in host if c.isascii() and (c.isalnum() or c in "-_"))[:24] or "host"
