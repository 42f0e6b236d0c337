"""The environment of one test: a namespace of its own, workers in this process, and a clock that the test moves.

Nothing moves between two lines of a test. Workers take up work only while `run_until_idle`, or something that calls it, is
awaited: then they go on until nothing is ready, held or due. Time goes on by itself as it does everywhere, but what is due in
an hour happens when the test has moved the clock there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import closing
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar, overload

import msgspec

from troth import calls
from troth.client import Handle, Troth
from troth.errors import InvalidArgument, Unreachable
from troth.registry import Registry, Workflow
from troth.testing.clock import Clock
from troth.testing.crashes import CrashReport, crash_everywhere
from troth.testing.failures import GuardFound, InvariantBroken, NotEnded, NotIdle
from troth.testing.faults import FAULT_FUNCTIONS, FAULT_KINDS, FaultKind, Faults, Point
from troth.testing.hands import Hand, Source
from troth.testing.looks import Idle, Standing, standing
from troth.testing.records import recorded
from troth.testing.replays import Replays, check_replays
from troth.testing.server import Databases, connected
from troth.testing.steps import StepCall, Steps
from troth.testing.violations import violations
from troth.worker.guard import Finding, Guard

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE_S: Final = 30.0
"""How long, by the true clock, workflows may take until nothing moves any more."""
LOOK_FIRST_S: Final = 0.002
LOOK_LONGEST_S: Final = 0.05
MOVES_MAX: Final = 10_000
"""Instants that one `advance` or `run` goes through; a workflow that sleeps for ever would never let it end."""


class Environment:
    """What a test of workflows works with: `client`, `clock`, `steps`, and workers that run when they are told to.

        async def test_a_week_without_an_answer(troth_env: Environment) -> None:
            order = await troth_env.start("order-42", approve_order, "order-42")
            await troth_env.advance(timedelta(days=7))
            assert await troth_env.result(order) == "order-42: timed out"

    Use it in the event loop of the test. It is made by the fixture `troth_env`; elsewhere, by hand over a `Databases`:
    `async with Environment(databases) as env`.
    """

    def __init__(
        self,
        databases: Databases,
        *,
        options: Mapping[str, Any] | None = None,
        point: Point | None = None,
    ) -> None:
        """`options` are those of `Troth`; `point` is where a crash shall strike."""
        self._databases = databases
        self._options = dict(options or {})
        self._lent = databases.lend()
        self.dsn = self._lent.__enter__()
        """Where the namespace `troth` of this test lies, as its owner or a superuser."""
        self._connection = connected(self.dsn)
        self.clock = Clock(self._connection)
        """The namespace's clock; `advance` moves it through all that is due on the way, `clock.advance` leaps."""
        self.client = Troth(self.dsn, **self._options)
        """A client of the namespace."""
        self.steps = Steps(self._step_began)
        """The step calls so far, and what is called instead of some."""
        self.faults = Faults(point, self._cut)
        """The calls between workers and Postgres so far, counted."""
        self.repeated: list[StepCall] = []
        """Steps that were called although their outcome was recorded: always empty, unless the engine is broken."""
        self.findings: list[Finding] = []
        """Lines of workflow code that used time, chance or I/O of Python's own."""
        self._guard = Guard("log", self.findings.append)
        self._hands: list[Hand] = []
        self._provided: dict[Any, Any] = {}
        self._runs = 0

    # --- what a test sets up ---

    def worker(
        self, workflows: Iterable[Source], queues: Collection[str] = ("default",), **options: Any
    ) -> Hand:
        """A worker in this process for these workflows (or modules of them); `options` are those of `troth.Worker`.

        It works whenever the environment runs. It can be killed (`.kill()`), and is started again when work is left.
        """
        hand = Hand(
            self.client,
            workflows,
            queues,
            options,
            faults=self.faults,
            steps=self.steps,
            provide=self._provided,
            watch=self._guard,
        )
        self._hands.append(hand)
        return hand

    def replace(self, step: Callable[..., Any], fake: Callable[..., Any]) -> None:
        """Let `fake` be called wherever a workflow runs `step`. The name and the type of its result stay those of `step`.

        troth_env.replace(charge, lambda order, amount: Receipt(id="r-1"))
        """
        self.steps.replace(step, fake)

    def provide(self, factory: Any, fake: Any) -> None:
        """Let steps that take what `factory` provides get `fake`, in workers that start from now on."""
        self._provided[factory] = fake

    # --- starting and running ---

    @overload
    async def start(
        self, id: str, workflow: Workflow[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Handle[T]: ...
    @overload
    async def start(self, id: str, workflow: str, /, *args: Any, **kwargs: Any) -> Handle[Any]: ...
    async def start(
        self, id: str, workflow: Workflow[Any, Any] | str, /, *args: Any, **kwargs: Any
    ) -> Handle[Any]:
        """Start a workflow, as `client.start` does; it runs when the environment does.

        If no worker of this test knows it, one is made.
        """
        if isinstance(workflow, Workflow) and not any(workflow.key in hand.registry for hand in self._hands):
            self.worker([workflow], [workflow.queue or "default"])
        return await self.client.start(id, workflow, *args, **kwargs)

    async def run(self, workflow: Workflow[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a workflow to its end and give its result, or raise what it ended with.

        Time is moved through whatever it sleeps for or lets time out. Raises `NotEnded` if it waits for somebody.
        """
        self._runs += 1
        handle = await self.start(f"{workflow.name}-{self._runs}", workflow, *args, **kwargs)
        for _ in range(MOVES_MAX):
            idle = await self.run_until_idle()
            due = self._look().next_due
            if handle.id not in idle or due is None or idle[handle.id].state != "suspended":
                break
            self._move(due - self.clock.now())
        return await self.result(handle)

    async def result(self, workflow: Handle[T]) -> T:
        """The result of a workflow that has ended, or what it ended with raised. Raises `NotEnded` if it goes on."""
        promise = await workflow.status()
        if promise.pending:
            told = self._look().workflows.get(workflow.id)
            raise NotEnded(
                f"It has not ended: {told or workflow.id}. Settle what it waits for, or move the clock."
            )
        return await workflow.result(0)

    async def run_until_idle(self, *, within: timedelta | float = PATIENCE_S) -> Idle:
        """Let the workers work until nothing is ready, held or due; what is not done then, and what it waits for.

        Raises `NotIdle` when that has not come `within` so long by the true clock, and what ended a worker.
        """
        seconds = within.total_seconds() if isinstance(within, timedelta) else within
        for hand in self._hands:
            hand.gate.open()
        try:
            return await self._until_idle(asyncio.get_running_loop().time() + seconds)
        finally:
            for hand in self._hands:
                hand.gate.close()

    async def advance(self, by: timedelta | float) -> Idle:
        """Move the clock by so much, through every instant that is due on the way, in order: timers, timeouts, retries.

        At each of them the workers run until nothing moves; so what happened is what happens in as much time.
        """
        span = by if isinstance(by, timedelta) else timedelta(seconds=by)
        if span < timedelta(0):
            raise InvalidArgument(f"Time does not run back, and {span} is negative; see `clock.advance`.")
        left = span
        idle = Idle()
        for _ in range(MOVES_MAX):
            idle = await self.run_until_idle()
            due = self._look().next_due
            # measured from now: true time has gone on as well, and what began a moment later is due a moment later
            by = left if due is None else due - self.clock.now()
            if due is None or by > left:
                self._move(left)
                return await self.run_until_idle()
            self._move(by)
            left -= max(by, timedelta(0))
        raise NotIdle(f"{MOVES_MAX} instants came due, and {left} are left of {span}. Under way:\n{idle}")

    # --- checking ---

    async def check_replays(self, *, hash_seed: int | None = None) -> Replays:
        """Run the code of every workflow of the namespace again from every prefix of its journal, and compare.

        With a `hash_seed` it is also run in a process of its own, under that PYTHONHASHSEED: sets of strings have another
        order there. Workflows that are defined inside functions cannot be found there, and are left out of that.
        Raises `ReplayDiffers`, which says where the code went another way.
        """
        registry = Registry(
            {each.key: each for hand in self._hands for each in hand.registry.values()}.values()
        )
        records = await recorded(self.client, self._connection)
        return await check_replays(
            records, registry, self.client.payloads, watch=self._guard, hash_seed=hash_seed
        )

    def check_guard(self) -> None:
        """See that no workflow code has used time, chance or I/O of Python's own. Raises `GuardFound`, which names the lines."""
        if self.findings:
            raise GuardFound("\n".join(str(each) for each in self.findings))

    def check_invariants(self) -> None:
        """See that the namespace is as it must be after every commit. Raises `InvariantBroken`."""
        broken = violations(self._connection)
        if broken:
            raise InvariantBroken("\n".join(f"{each.invariant} {each.id}: {each.detail}" for each in broken))
        if self.repeated:
            calls_made = "\n".join(str(each) for each in self.repeated)
            raise InvariantBroken(
                f"Steps were called again although their outcomes were recorded:\n{calls_made}"
            )

    async def crash_everywhere(
        self,
        scenario: Callable[[Environment], Awaitable[T]],
        expect: T | msgspec.UnsetType = msgspec.UNSET,
        *,
        functions: Collection[str] = FAULT_FUNCTIONS,
        kinds: Collection[FaultKind] = FAULT_KINDS,
    ) -> CrashReport:
        """Run a scenario once as it is, then once with a crash at every point between its workers and Postgres.

        Each run has a namespace of its own, the workers and fakes of this environment, and must come to the same: the
        scenario returns `expect` (or what it returned undisturbed), no step is called after its outcome was recorded, every
        invariant holds, every workflow replays. Raises `CrashDiffers`, which names the point.

            async def story(env: Environment) -> str:
                order = await env.start("order-42", approve_order, "order-42")
                await env.run_until_idle()
                await env.client.resolve("order-42~approval", True)
                await env.run_until_idle()
                return await env.result(order)

            await troth_env.crash_everywhere(story, "order-42: approved")
        """
        return await crash_everywhere(self._another, scenario, expect, functions=functions, kinds=kinds)

    # --- its end ---

    async def close(self) -> None:
        """Stop the workers, close the client, and give the namespace back."""
        hands, self._hands = self._hands, []
        try:
            ended = await asyncio.gather(*(hand.stop() for hand in hands), return_exceptions=True)
            await self.client.close()
        finally:
            self.release()
        for failure in ended:
            if isinstance(failure, BaseException) and not self.faults.struck:
                raise failure

    def release(self) -> None:
        """Give the namespace back; whoever is connected to it is cut off. Again, it does nothing."""
        if not self._connection.closed:
            self._connection.close()
            self._lent.__exit__(None, None, None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except BaseException as late:
            if error is None:
                raise
            error.add_note(f"When the environment was closed: {late!r}")

    # --- within ---

    def _another(self, point: Point | None) -> Environment:
        """An environment like this one over a namespace of its own."""
        other = Environment(self._databases, options=self._options, point=point)
        other._provided.update(self._provided)
        other.steps.take_fakes_of(self.steps)
        for hand in self._hands:
            other.worker(hand.workflows, hand.queues, **hand.options)
        return other

    async def _until_idle(self, deadline: float) -> Idle:
        loop = asyncio.get_running_loop()
        pause = LOOK_FIRST_S
        while True:
            self._revive()
            look = self._look()
            moved = look.busy
            if look.orphaned:
                self._let_leases_end()
            if self.faults.lost_a_claim and look.claimed:
                self._let_claims_age()
            if look.due or look.closing or look.orphaned:
                # a worker's own tick may be quicker than this one: what was due is movement, whoever saw to it
                await self.client.pool.run(calls.tick())
                moved = True
            if not moved:
                return look.idle
            if loop.time() > deadline:
                raise NotIdle(f"Workflows still go on: {look}. Under way:\n{look.idle}")
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LOOK_LONGEST_S)

    def _look(self) -> Standing:
        lanes = [
            f"{queue} {lane}"
            for hand in self._hands
            for queue in hand.queues
            for name, version in hand.registry
            for lane in (name, f"{name}@{version}")
        ]
        return standing(self._connection, lanes, self._dead)

    def _revive(self) -> None:
        """Start the workers that do not run. What ended one is the test's failure, unless the test has seen to it."""
        for hand in self._hands:
            failure = hand.failure()
            if failure is not None and not (self.faults.struck and isinstance(failure, Unreachable)):
                raise failure
            hand.start()

    def _move(self, by: timedelta) -> None:
        """Move the clock on. The workers' leases go along: nobody dies of a leap."""
        if by > timedelta(0):
            with self._connection.transaction():
                self.clock.advance(by)
                self._connection.execute(
                    "update worker set seen_at = seen_at + %s where died_at is null and id <> all (%s)",
                    [by, self._dead],
                )

    def _let_leases_end(self) -> None:
        """Let as much time go by for the dead as makes their leases end, and for nobody else."""
        self._connection.execute(
            "update worker set seen_at = seen_at - lease - interval '1 second' where died_at is null and id = any (%s)",
            [self._dead],
        )

    def _let_claims_age(self) -> None:
        """A claim whose answer was lost is freed once it is too old to be under way still: let it be so at once."""
        self._connection.execute(
            """update task set claimed_at = claimed_at - interval '1 minute'
                where state = 'claimed' and claimed_at > _clock() - interval '30 seconds'"""
        )

    @property
    def _dead(self) -> list[str]:
        return [id for hand in self._hands for id in hand.died]

    def _cut(self) -> None:
        with closing(connected(self.dsn)) as connection:
            connection.execute(
                """select pg_terminate_backend(pid) from pg_stat_activity
                    where datname = current_database() and pid <> all (%s)""",
                [[connection.info.backend_pid, self._connection.info.backend_pid]],
            )

    def _step_began(self, call: StepCall) -> None:
        row = self._connection.execute(
            "select from checkpoint where task = %s and operation = %s", [call.workflow, call.operation]
        ).fetchone()
        if row is not None:
            self.repeated.append(call)
