"""One simulated world: random workflows, workers that die and people who decide at random, and what must be true behind it.

Everything is drawn from one seed. What it leads to is not repeated exactly, since Postgres and the workers keep their own time:
where a seed fails, run it again until it fails again.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from typing import Any, Final

import asyncpg
import psycopg

from tests.engine.running import client_options
from tests.engine.simulation_programs import LAST, MINE, SHARED, Gardener, Wrong, grows
from troth import ErrorInfo, Troth
from troth.codec import Payloads
from troth.context.requests import CALL
from troth.registry import Registry
from troth.testing.faults import FAULT_KINDS, Faults, Point
from troth.testing.hands import Hand
from troth.testing.records import Recorded, recorded
from troth.testing.replays import check_replays, in_callback
from troth.testing.steps import StepCall, Steps
from troth.testing.violations import violations
from troth.worker import replaying
from troth.worker.telling import as_told, made_machine, patches

UNREST_S: Final = 2.0
PATIENCE_S: Final = 100.0
QUIET_S: Final = 0.5
"""After so long without any change nothing moves any more."""
SOMEBODY, LATE_PEOPLE, PEOPLE = "some of what is open", "all but the last", "all"
PAUSE_S: Final = (0.002, 0.03)
FAULTS_PER_CALL: Final = 0.02
KNOWN_NOISE: Final = (
    "Resetting connection with an active transaction",
    "released back to the pool",
    "connection_lost",
)
"""What asyncpg says of connections of transactions that were broken off; nothing is wrong behind it."""
LEGAL_HALTS: Final = ("operator", "attempts")
"""A task may be parked by our operator, or because its workers died too often; anything else is a fault."""


class Broken(AssertionError):
    """The engine did what it must not."""


class Chaos(Faults):
    """Faults that strike any call, with a small chance each, as long as `on`."""

    def __init__(self, rng: random.Random, cut: Callable[[], None]) -> None:
        super().__init__(None, cut)
        self._rng = rng
        self.on = False
        self.struck_so: Counter[str] = Counter()

    def strikes_before(self, function: str) -> bool:
        if not self.on or self._rng.random() > FAULTS_PER_CALL:
            return False
        self.point = Point(function, 0, self._rng.choice(FAULT_KINDS))
        self.struck_so[f"{function} {self.point.kind}"] += 1
        return True

    def strikes_after(self, function: str, answer: object) -> bool:
        del function, answer
        return True


class World:
    """Workers, workflows and people of one seed, over one namespace."""

    def __init__(self, seed: int, dsn: str, db: psycopg.Connection[Any], *, workflows: int) -> None:
        self.seed = seed
        self._rng = random.Random(seed)
        self._dsn = dsn
        self._db = db
        self._roots = [f"w{n}" for n in range(workflows)]
        self._trees = {id: Gardener(self._rng).root(2) for id in self._roots}
        self.client = Troth(dsn, **client_options())
        self.faults = Chaos(random.Random(seed + 1), self._cut)
        self.steps = Steps(self._step_began)
        self._hands: list[Hand] = []
        self._loop_errors: list[str] = []
        self.reached: Counter[str] = Counter()
        self.too_late: list[StepCall] = []
        """Plain steps that were called behind their checkpoint."""

    # --- its life ---

    async def live(self) -> None:
        """Run it to its end, and judge. Raises `Broken`."""
        asyncio.get_running_loop().set_exception_handler(self._heard_error)
        self._db.execute("create table if not exists public.ledger (workflow text, operation text)")
        async with self.client:
            for id in SHARED:
                await self.client.create_promise(str, id)
            for _ in range(1 + (self._rng.random() < 0.6)):
                self._begin_worker()
            try:
                await self._unrest()
                await self._calm()
                await self._stop_workers()
                await self._judge()
            finally:
                self.faults.on = False
                await self._stop_workers()

    async def _unrest(self) -> None:
        loop = asyncio.get_running_loop()
        self.faults.on = True
        until = loop.time() + UNREST_S
        waiting = list(self._roots)
        while loop.time() < until or waiting:
            if waiting and self._rng.random() < 0.7:
                id = waiting.pop()
                timeout = timedelta(seconds=1) if self._rng.random() < 0.1 else None
                await self.client.options(timeout=timeout).start(id, grows, self._trees[id])
            await self._happening()
            self._revive()
            await asyncio.sleep(self._rng.uniform(*PAUSE_S))
            if len(waiting) == 0 and not self._left():
                break
        self.faults.on = False

    async def _calm(self) -> None:
        """No more accidents: now everything must come to its end."""
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE_S
        quiet_since, before = loop.time(), None
        while left := self._left():
            self._revive()
            self._let_the_dead_go()
            if left != before or any(row[1] != "suspended" for row in left):
                quiet_since, before = loop.time(), left
            if loop.time() - quiet_since > QUIET_S:
                await self._judge_cancels()
                await self._decide(PEOPLE)
            await self._decide(LATE_PEOPLE)
            await self._resume()
            if loop.time() > until:
                raise Broken(f"{len(left)} workflows did not end:\n" + "\n".join(map(str, left)))
            await asyncio.sleep(0.02)

    def _left(self) -> list[Any]:
        tasks = self._db.execute(
            """select t.id, t.state, t.epoch, t.last_seq, t.worker, t.reason, p.state,
                      (select array_agg(w.kind || ' ' || w.operation || ' ' || coalesce(w.promise, w.fire_at::text, ''))
                         from wait w where w.task = t.id)
                 from task t join promise p using (id) order by 1"""
        ).fetchall()
        return tasks or self._db.execute("select * from closing order by id").fetchall()

    # --- workers ---

    def _begin_worker(self) -> None:
        options: dict[str, Any] = {
            "keep": self._rng.choice((0, 1, 1000)),
            "poll": timedelta(milliseconds=50),
            "lease": timedelta(seconds=self._rng.choice((1, 3))),
            "grace": timedelta(seconds=self._rng.choice((0.05, 0.5))),
            "concurrency": self._rng.choice((2, 1000)),
            "transactions": self._rng.choice((1, 10)),
        }
        hand = Hand(
            self.client, [grows], ["default"], options,
            faults=self.faults, steps=self.steps, provide={}, watch=nullcontext(),
        )  # fmt: skip
        self._hands.append(hand)
        hand.start()
        hand.gate.open()

    def _revive(self) -> None:
        for hand in self._hands:
            failure = hand.failure()
            if failure is not None and not self.faults.on and not hand.died:
                raise failure
            if not hand.running:
                hand.start()

    async def _stop_workers(self) -> None:
        hands, self._hands = self._hands, []
        await asyncio.gather(*(hand.stop() for hand in hands), return_exceptions=True)

    def _let_the_dead_go(self) -> None:
        self._expire([id for hand in self._hands for id in hand.died])

    def _expire(self, workers: list[str]) -> None:
        self._db.execute(
            """update worker set seen_at = seen_at - lease - interval '1 second' where id in (
                 select id from worker where died_at is null and id = any (%s) order by id for update skip locked)""",
            [workers],
        )

    def _cut(self) -> None:
        mine = self._db.info.backend_pid
        self._db.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> %s",
            [mine],
        )

    # --- what happens ---

    async def _happening(self) -> None:
        """One thing that people, operators or fate do."""
        for chance, what in (
            (0.5, self._decide),
            (0.03, self._cancel),
            (0.005, self._cancel_by_force),
            (0.04, self._settle_step),
            (0.03, self._halt),
            (0.1, self._resume),
            (0.02, self._kill),
            (0.02, self._stop_gracefully),
            (0.02, self._take_for_dead),
            (0.01, self._cut_all),
            (0.2, self._let_the_dead_go_now),
        ):
            if self._rng.random() < chance:
                self.reached[what.__name__.strip("_")] += 1
                try:
                    await what()
                except (asyncpg.PostgresError, OSError) as error:
                    self.reached[type(error).__name__] += 1
                except Exception as error:
                    if type(error).__name__ != "Unreachable":
                        raise

    async def _decide(self, who: str = SOMEBODY) -> None:
        pending = [
            row[0]
            for row in self._db.execute(
                "select id from promise where function is null and state = 'pending' order by id"
            )
        ]
        if who is not PEOPLE:
            pending = [id for id in pending if not id.rpartition("~")[2].startswith(LAST)]
        self._rng.shuffle(pending)
        for id in pending[: self._rng.choice((1, 1, 2, 5))] if who is SOMEBODY else pending:
            if id in SHARED and who is SOMEBODY and self._rng.random() < 0.9:
                continue
            how = self._rng.random()
            if how < 0.8:
                await self.client.resolve(id, id)
            elif how < 0.9:
                await self.client.reject(id, ErrorInfo("person", "no"))
            else:
                await self.client.cancel(id)

    def _some_task(self) -> str | None:
        tasks = [row[0] for row in self._db.execute("select id from task where epoch > 0 order by id")]
        return self._rng.choice(tasks) if tasks else None

    async def _cancel(self) -> None:
        if task := self._some_task():
            await self.client.cancel(task)

    async def _cancel_by_force(self) -> None:
        if task := self._some_task():
            await self.client.cancel(task, force=True)

    async def _settle_step(self) -> None:
        if not len(self.steps):
            return
        call = self.steps[-1 - int(self._rng.random() * min(len(self.steps), 10))]
        await self.client.settle_step(call.workflow, call.operation, value="by hand")

    async def _halt(self) -> None:
        if task := self._some_task():
            await self.client.halt(task)

    async def _resume(self) -> None:
        for id, reason in self._db.execute(
            "select id, reason from task where state = 'halted' order by id"
        ).fetchall():
            if reason["code"] not in LEGAL_HALTS:
                raise Broken(f"{id} was parked: {reason}")
            await self.client.resume(id)

    async def _kill(self) -> None:
        if running := [hand for hand in self._hands if hand.running]:
            self._rng.choice(running).kill()

    async def _stop_gracefully(self) -> None:
        if running := [hand for hand in self._hands if hand.running]:
            hand = self._rng.choice(running)
            self._hands.remove(hand)
            stopping = asyncio.create_task(hand.stop())
            if self._rng.random() < 0.5:
                self._begin_worker()
                await asyncio.wait([stopping])
            else:
                await asyncio.wait([stopping])
                self._begin_worker()
            if (failure := stopping.exception()) is not None and type(failure).__name__ != "Unreachable":
                raise failure

    async def _take_for_dead(self) -> None:
        """One that lives, and does not know it."""
        self._expire(
            [
                row[0]
                for row in self._db.execute(
                    "select id from worker where died_at is null order by random() limit 1"
                )
            ]
        )

    async def _cut_all(self) -> None:
        self._cut()

    async def _let_the_dead_go_now(self) -> None:
        self._let_the_dead_go()

    # --- the judgement ---

    def _step_began(self, call: StepCall) -> None:
        row = self._db.execute(
            "select from checkpoint where task = %s and operation = %s and issued is not null",
            [call.workflow, call.operation],
        ).fetchone()
        if row is not None and call.name != "book":
            self.too_late.append(call)

    def _heard_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        del loop
        if any(noise in f"{context.get('message')} {context.get('exception')!r}" for noise in KNOWN_NOISE):
            return
        self._loop_errors.append(f"{context.get('message')}: {context.get('exception')!r}")

    async def _judge(self) -> None:
        if MINE.get():
            raise Broken(f"{MINE.get()} got out of its workflow")
        if self.too_late:
            raise Broken(f"called behind their checkpoints: {', '.join(map(str, self.too_late))}")
        if self._loop_errors:
            raise Broken("callbacks failed:\n" + "\n".join(self._loop_errors))
        for table in ("task", "wait", "closing"):
            left = self._db.execute(f"select * from {table}").fetchall()
            if left:
                raise Broken(f"left in {table}: {left}")
        broken = violations(self._db)
        if broken:
            raise Broken(f"invariants: {broken}")
        self._judge_effects()
        await self._judge_replays()

    async def _judge_cancels(self) -> None:
        """Nothing moves any more: whatever child was given up by then has been asked to cancel, or has ended."""
        for one in await recorded(self.client, self._db):
            if one.promise is None or not one.promise.pending:
                continue
            given_up = await in_callback(partial(_given_up, one, self.client.payloads))
            left = self._db.execute(
                """select id from promise p where id = any (%s) and state = 'pending'
                      and not exists (select from checkpoint c where c.task = p.id and c.operation = '~cancel')""",
                [[f"{one.id}~{path}" for path in given_up]],
            ).fetchall()
            if left:
                raise Broken(f"{one.id} has given up {left}, and nobody told them")
            self.reached["given up"] += len(given_up)

    def _judge_effects(self) -> None:
        """What is recorded has happened: a transaction exactly once (and otherwise never), a plain step at least once."""
        found = self._db.execute(
            "select workflow, operation, count(*)::integer from public.ledger group by 1, 2"
        ).fetchall()
        ledger = {(workflow, operation): rows for workflow, operation, rows in found}
        recorded_so = """select task, operation from checkpoint
                          where kind = 'step' and state = 'resolved' and issued is not null"""
        recorded = {(task, operation) for task, operation in self._db.execute(recorded_so)}
        called = {(call.workflow, call.operation) for call in self.steps}
        booked = {(call.workflow, call.operation) for call in self.steps if call.name == "book"}
        for step in booked:
            if ledger.get(step, 0) != (step in recorded):
                raise Broken(
                    f"{step} is in the ledger {ledger.get(step, 0)} times; recorded: {step in recorded}"
                )
        if never := recorded - called | ledger.keys() - booked:
            raise Broken(f"never called: {never}")
        self.reached["transactions"] += len(booked)
        self.reached["steps"] += len(called) - len(booked)

    async def _judge_replays(self) -> None:
        registry = Registry([grows])
        records = await recorded(self.client, self._db)

        def check(one: Recorded) -> replaying.Verdict:
            return replaying.replay(registry, one.record, one.journal, promise=one.promise)

        for one in records:
            verdict = await in_callback(partial(check, one))
            if verdict.result != "same":
                raise Broken(f"{one.name}: {verdict}")
            self._judge_end(one)
        seen = await check_replays(records, registry, self.client.payloads)
        self.reached["workflows"] += len(records)
        self.reached["replays"] += seen.runs

    def _judge_end(self, one: Recorded) -> None:
        promise = one.promise
        if promise is None or promise.pending:
            raise Broken(f"{one.name} is there and has not ended")
        self.reached[promise.state] += 1
        if promise.state == "rejected" and Wrong.__name__ in repr(promise.error):
            raise Broken(f"{one.name}: {promise.error!r}")


def _given_up(one: Recorded, payloads: Payloads) -> list[str]:
    """The calls that the code waits for no longer, and that have not ended."""
    record = one.record
    machine = made_machine(
        grows, one.id, record.args, None, started_at=record.started_at, seed=record.seed, payloads=payloads
    )
    machine.foresee(len(one.journal) + 1, patches(one.journal))
    machine.start()
    given_up = machine.take_given_up()
    for entry in one.journal:
        machine.feed(as_told(entry, payloads))
        given_up += machine.take_given_up()
    paths = [each.path for each in given_up if each.kind == CALL and each.path in machine.open]
    machine.evict()
    return paths
