"""Random workflows for the simulation of the engine: trees grown from a seed, and the one workflow that runs them.

A tree is JSON, for it is the workflow's argument: a node is its form and what that needs. All that a tree's code comes to know is
written into a log, which is its result: two runs that were told the same must end with the same.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Sequence
from typing import Any, Final

import troth
from troth import Context, Retry, workflow

Node = list[Any]

LEAVES: Final = (
    *(
        "step",
        "step",
        "step",
        "transaction",
        "transaction",
        "transaction",
        "promise",
        "promise",
        "call",
        "call",
    ),
    *("start", "sleep", "left_step", "left_call", "shared", "fail"),
)
FORMS: Final = (
    *("sequence", "gather", "group", "timeout", "race", "give_up", "shield", "undo", "scoped", "patched"),
    *("outlived", "queue"),
)
STEPS: Final = ("well", "well", "slowly", "fails", "flaky", "hopeless", "threaded")
TRANSACTIONS: Final = ("well", "well", "slowly", "fails", "flaky", "serializable")
PAUSE_S: Final = 0.03
SHARED: Final = ("shared-1", "shared-2")
"""Promises that many workflows wait for."""

LAST: Final = "pq"
"""What promises are called that nobody decides before everything else is done: who waits for one can only be canceled."""

MINE: contextvars.ContextVar[str] = contextvars.ContextVar("mine", default="")


class Wrong(BaseException):
    """Code was told what belongs to others. No `except Exception` of a tree hears of it."""


class Failed(Exception):
    """What steps and trees fail with."""


class Gardener:
    """Grows trees."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def root(self, depth: int) -> Node:
        nodes = [self._grown(depth, depth) for _ in range(2 + int(self._rng.random() * 3))]
        return ["sequence" if self._rng.random() < 0.9 else "bare", nodes]

    def _grown(self, depth: int, children: int) -> Node:
        leafy = depth <= 0 or self._rng.random() < 0.25
        form = self._of(LEAVES if leafy else FORMS)
        if form in ("call", "start", "left_call") and children <= 0:
            form = "step"
        return [form, *self._given(form, depth - 1, children)]

    def _given(self, form: str, depth: int, children: int) -> list[Any]:
        rng = self._rng
        name = self._of("abc")
        match form:
            case "step" | "left_step":
                return [name, self._of(STEPS)]
            case "transaction":
                return [name, self._of(TRANSACTIONS)]
            case "promise":
                return [self._of("abcq"), self._of((None, None, None, 0.05, 0.5)), rng.random() < 0.5]
            case "call" | "left_call":
                close, timeout = (
                    self._of(("cancel", "cancel", "wait")),
                    self._of((None, None, None, None, 0.3)),
                )
                return [name, self.root(children - 1), close, timeout]
            case "start":
                return [name, self.root(children - 1), rng.random() < 0.5]
            case "sleep":
                return [self._of((0, 0.001, 0.02, 0.06))]
            case "shared":
                return [self._of(SHARED)]
            case "fail":
                return []
            case "timeout":
                return [self._of((0, 0.001, 0.02, 0.1)), self._grown(depth, children)]
            case "gather":
                return [self._some(depth, children), rng.random() < 0.5]
            case "shield" | "undo" | "outlived":
                return [self._grown(depth, children)]
            case "give_up" | "patched":
                return [self._grown(depth, children), self._grown(depth, children)]
            case _:
                return [self._some(depth, children)]

    def _some(self, depth: int, children: int) -> list[Node]:
        return [self._grown(depth, children) for _ in range(2 + int(self._rng.random() * 2))]

    def _of(self, items: Sequence[Any]) -> Any:
        return items[int(self._rng.random() * len(items))]


# --- steps: each answers its own ID, so that whoever is given another's value notices ---


def mine() -> str:
    if MINE.get():
        raise Wrong(f"the step of {troth.step_info().operation} sees what {MINE.get()} has set")
    info = troth.step_info()
    MINE.set(f"{info.workflow}~{info.operation}")
    return MINE.get()


async def act(how: str) -> str:
    id = mine()
    if how == "slowly":
        await asyncio.sleep(PAUSE_S)
        troth.step_info().heartbeat("half of it")
        await asyncio.sleep(PAUSE_S)
    attempt = troth.step_info().attempt
    if how in ("fails", "hopeless") or (how == "flaky" and attempt < 3):
        raise Failed(id)
    return id


def act_in_thread(how: str) -> str:
    del how
    return mine()


async def book(connection: Any, how: str) -> str:
    """Its effect is one row of the ledger."""
    id = mine()
    info = troth.step_info()
    await connection.execute("insert into public.ledger values ($1, $2)", info.workflow, info.operation)
    if how == "slowly":
        await asyncio.sleep(PAUSE_S)
    if how == "fails" or (how == "flaky" and info.attempt < 2):
        raise Failed(id)
    return id


class Walk:
    """One run of one tree."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.log: list[str] = []

    async def run(self, node: Node) -> str:
        """One node, whose failure is its result."""
        try:
            return await self.bare(node)
        except Exception as error:
            return self._noted(node[0], type(error).__name__)

    async def bare(self, node: Node) -> str:
        """One node, whose failure is its caller's."""
        form, *given = node
        try:
            result: str = await getattr(self, form)(*given)
        except asyncio.CancelledError:
            self._noted(form, "canceled")
            raise
        if not MINE.get().startswith(self.ctx.id):
            raise Wrong(f"{self.ctx.id} sees what {MINE.get()} has set")
        return self._noted(form, result)

    def _noted(self, form: str, result: str) -> str:
        # microseconds and IDs make it the same only if it is the same
        self.log.append(f"{form}={result}@{self.ctx.now().timestamp():f}")
        return result

    async def _own(self, future: Any, id: str) -> str:
        value = await future
        if value not in (id, "by hand"):
            raise Wrong(f"{id} was told {value}")
        return str(value)

    # --- leaves ---

    def _step(self, name: str, how: str) -> Any:
        retry = (
            Retry(attempts=3, first=0.01, longest=0.05, jitter=0.5) if how in ("flaky", "hopeless") else None
        )
        return self.ctx.options(name=name, retry=retry).run(act_in_thread if how == "threaded" else act, how)

    async def step(self, name: str, how: str) -> str:
        future = self._step(name, how)
        return await self._own(future, f"{self.ctx.id}~{future.path}")

    async def left_step(self, name: str, how: str) -> str:
        return str(self._step(name, how).path)

    async def transaction(self, name: str, how: str) -> str:
        retry = Retry(attempts=3, first=0.01) if how == "flaky" else None
        isolation: Any = "serializable" if how == "serializable" else None
        future: Any = self.ctx.options(name=name, retry=retry, isolation=isolation).transaction(book, how)
        return await self._own(future, f"{self.ctx.id}~{future.path}")

    async def promise(self, name: str, timeout: float | None, default: bool) -> str:
        options: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
        if options and default:
            options["default"] = "by hand"
        promise = self.ctx.options(**options).promise(str, f"p{name}")
        return await self._own(promise, promise.id)

    async def shared(self, id: str) -> str:
        return await self._own(self.ctx.wait(str, id), id)

    def _call(self, name: str, tree: Node, close: Any, timeout: float | None) -> Any:
        return self.ctx.options(name=f"c{name}", close=close, timeout=timeout).call(grows, tree)

    async def call(self, name: str, tree: Node, close: Any, timeout: float | None) -> str:
        future = self._call(name, tree, close, timeout)
        return (await self._own_child(future, f"{self.ctx.id}~{future.path}"))[:200]

    async def left_call(self, name: str, tree: Node, close: Any, timeout: float | None) -> str:
        return str(self._call(name, tree, close, timeout).path)

    async def start(self, name: str, tree: Node, awaited: bool) -> str:
        child = self.ctx.options(name=f"s{name}").start(grows, tree)
        return (await self._own_child(child, child.id))[:200] if awaited else child.id

    async def _own_child(self, awaited: Any, id: str) -> str:
        value = str(await awaited)
        if value.partition(" ")[0] != id:
            raise Wrong(f"{id} was told {value}")
        return value

    async def sleep(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "slept"

    async def fail(self) -> str:
        raise Failed("on purpose")

    # --- forms ---

    async def sequence(self, nodes: list[Node]) -> str:
        return str(len([await self.run(node) for node in nodes]))

    async def gather(self, nodes: list[Node], each: bool) -> str:
        results = await asyncio.gather(*map(self.bare, nodes), return_exceptions=each)
        for one in results:
            if isinstance(one, BaseException) and not isinstance(one, Exception | asyncio.CancelledError):
                raise one
        return ",".join(type(one).__name__ for one in results)

    async def group(self, nodes: list[Node]) -> str:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self.bare(node), name=f"g{n}" if n % 2 else None)
                for n, node in enumerate(nodes)
            ]
        return str(len(tasks))

    async def timeout(self, seconds: float, node: Node) -> str:
        async with asyncio.timeout(seconds):
            return await self.bare(node)

    async def race(self, nodes: list[Node]) -> str:
        tasks = [asyncio.create_task(self.run(node)) for node in nodes]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        return ",".join([await task for task in done])[:200]

    async def give_up(self, first: Node, second: Node) -> str:
        task = asyncio.create_task(self.run(first))
        await self.run(second)
        task.cancel()
        return type((await asyncio.gather(task, return_exceptions=True))[0]).__name__

    async def shield(self, node: Node) -> str:
        return await asyncio.shield(self.bare(node))

    async def undo(self, node: Node) -> str:
        try:
            return await self.run(node)
        finally:
            await self.run(["step", "undo", "well"])

    async def outlived(self, node: Node) -> str:
        """A branch that nobody waits for."""
        return asyncio.create_task(self.undo(node)).get_name()

    async def scoped(self, nodes: list[Node]) -> str:
        before, self.ctx = self.ctx, self.ctx.scope("scope")
        try:
            futures = [self._step(name, "well") for name in "aab"]
        finally:
            self.ctx = before
        for future in futures:
            await self._own(future, f"{self.ctx.id}~{future.path}")
        return await self.sequence(nodes)

    async def patched(self, before: Node, after: Node) -> str:
        return await self.run(after if self.ctx.patched(f"fix-{after[0].replace('_', '-')}") else before)

    async def queue(self, nodes: list[Node]) -> str:
        queue: asyncio.Queue[str] = asyncio.Queue(1)

        async def produce(node: Node) -> None:
            await queue.put(await self.run(node))

        async with asyncio.TaskGroup() as group:
            for node in nodes:
                group.create_task(produce(node))
            return ",".join([await queue.get() for _ in nodes])[:200]


@workflow
async def grows(ctx: Context, tree: Node) -> str:
    """Run a tree; the result begins with its own ID."""
    MINE.set(ctx.id)
    walk = Walk(ctx)
    form, nodes = tree
    if form == "bare":
        for node in nodes:
            await walk.bare(node)
    else:
        await walk.sequence(nodes)
    return " ".join([ctx.id, *walk.log])
