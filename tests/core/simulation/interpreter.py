"""Runs the random programs, with asyncio as people use it. All that the code comes to know is written into a log."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from typing import Any

from tests.core.driving import Failed, digest_of, finish, promise, step
from tests.core.simulation.programs import Node
from troth.core import STEP, current

VARIABLE: ContextVar[int] = ContextVar("variable", default=0)


class Interpreter:
    """Runs one tree, once; `log` is all that its code came to know, in order. `changed`: the code as it is later."""

    def __init__(self, tree: Node, log: list[object], reached: Counter[str], *, changed: bool) -> None:
        self.tree = tree
        self.log = log
        self.reached = reached
        self.changed = changed

    async def main(self) -> object:
        self.log.append("begin")
        return await self.bare(self.tree)

    async def run(self, node: Node) -> object:
        """One node, whose failure is its result."""
        try:
            return await self.bare(node)
        except (Failed, TimeoutError, ExceptionGroup, asyncio.BrokenBarrierError) as error:
            self.log.append((node[0], type(error).__name__))
            return type(error).__name__

    async def bare(self, node: Node) -> object:
        """One node, whose failure is its caller's."""
        form, payload = node
        try:
            result: object = await getattr(self, form)(payload)
        except asyncio.CancelledError:
            self.log.append((form, "canceled"))
            raise
        self.log.append((form, result, asyncio.get_running_loop().time()))
        return result

    # --- leaves ---

    async def step(self, name: str) -> object:
        return await step(name, name)

    async def promise(self, name: str) -> object:
        return await promise(f"p{name}")

    async def call(self, how: tuple[str, Any]) -> object:
        return await current().issue("call", f"c{how[0]}", None, None, finish, binding=how[1])

    async def left(self, how: tuple[str, Any]) -> object:
        """A child that nobody awaits."""
        return current().issue("call", f"l{how[0]}", None, None, finish, binding=how[1]).path

    async def start(self, name: str) -> object:
        return current().issue("start", f"s{name}", None, None, finish).path

    async def sleep(self, seconds: float) -> object:
        return await asyncio.sleep(seconds, seconds)

    async def nothing(self, _: None) -> object:
        await asyncio.sleep(0)
        return None

    async def give_up(self, name: str) -> object:
        future = current().issue("call", f"c{name}", None, None, finish, binding="cancel")
        await asyncio.sleep(0)
        return future.cancel()

    async def scoped(self, name: str) -> object:
        scope = current().scope(f"scope-{name}")
        issued = [current().issue(STEP, name, n, digest_of(n), finish, scope=scope) for n in range(2)]
        return [await one for one in issued]

    # --- one after another, or side by side ---

    async def sequence(self, nodes: list[Node]) -> object:
        return [await self.run(node) for node in nodes]

    async def gather(self, how: tuple[list[Node], bool]) -> object:
        nodes, return_exceptions = how
        results = await asyncio.gather(*map(self.bare, nodes), return_exceptions=return_exceptions)
        return [type(one).__name__ if isinstance(one, BaseException) else one for one in results]

    async def group(self, nodes: list[Node]) -> object:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self.bare(node), name=f"g{n % 2}" if n % 3 else None)
                for n, node in enumerate(nodes)
            ]
        return [task.result() for task in tasks]

    async def race(self, how: tuple[list[Node], str, float | None, bool]) -> object:
        nodes, mode, seconds, cancel = how
        racing: set[asyncio.Future[Any]] = {asyncio.create_task(self.bare(node)) for node in nodes[1:]}
        racing.add(asyncio.gather(self.bare(nodes[0])))
        racing.add(step("racing"))
        done, pending = await asyncio.wait(racing, timeout=seconds, return_when=getattr(asyncio, mode))
        if cancel:
            for one in pending:
                one.cancel()
        return [await self.run(("ended", one)) for one in done]

    async def ended(self, future: asyncio.Future[Any]) -> object:
        return await future

    async def completed(self, how: tuple[list[Node], float | None, str]) -> object:
        nodes, seconds, what = how
        given: list[Any] = [
            asyncio.create_task(self.run(node))
            if what == "task" or (what == "mixed" and n == 0)
            else self.run(node)
            for n, node in enumerate(nodes)
        ]
        return [await one for one in asyncio.as_completed(given, timeout=seconds)]

    async def cancel(self, nodes: tuple[Node, Node]) -> object:
        task = asyncio.create_task(self.run(nodes[0]))
        await self.run(nodes[1])
        task.cancel()
        return [type(one).__name__ for one in await asyncio.gather(task, return_exceptions=True)]

    async def abandon(self, node: Node) -> object:
        """A branch that nobody waits for."""
        return asyncio.create_task(self.undo(node)).get_name()

    async def abandoned_awaited(self, node: Node) -> object:
        return await asyncio.create_task(self.undo(node))

    async def shield(self, node: Node) -> object:
        return await asyncio.shield(self.bare(node))

    async def undo(self, node: Node) -> object:
        try:
            return await self.run(node)
        finally:
            self.log.append(await step("undo", node[0]))

    # --- time ---

    async def timeout(self, how: tuple[float, Node]) -> object:
        async with asyncio.timeout(how[0]):
            return await self.bare(how[1])

    async def timeout_at(self, how: tuple[float, Node]) -> object:
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + how[0]):
            return await self.bare(how[1])

    async def wait_for(self, how: tuple[float, Node, str]) -> object:
        seconds, node, what = how
        awaited: Any
        match what:
            case "coroutine":
                awaited = self.bare(node)
            case "task":
                awaited = asyncio.create_task(self.bare(node))
            case _:
                awaited = step("awaited", node[0])
        return await asyncio.wait_for(awaited, seconds)

    async def later(self, how: tuple[float, Node]) -> object:
        loop = asyncio.get_running_loop()
        handle = loop.call_later(how[0], lambda: self.log.append(("late", step("late").path)))
        result = await self.run(how[1])
        handle.cancel()
        return result

    # --- handing over ---

    async def queue(self, how: tuple[list[Node], str, int]) -> object:
        nodes, kind, size = how
        queue: asyncio.Queue[tuple[int, str]] = getattr(asyncio, kind)(size)

        async def produce(number: int, node: Node) -> None:
            await queue.put((-number, repr(await self.run(node))))

        async with asyncio.TaskGroup() as group:
            for number, node in enumerate(nodes):
                group.create_task(produce(number, node))
            await step("consume")
            return [await queue.get() for _ in nodes]

    async def semaphore(self, how: tuple[list[Node], int, bool]) -> object:
        nodes, places, bounded = how
        semaphore = (asyncio.BoundedSemaphore if bounded else asyncio.Semaphore)(places)
        order: list[int] = []

        async def hold(number: int, node: Node) -> None:
            async with semaphore:
                await self.run(node)
                order.append(number)

        await asyncio.gather(*(hold(number, node) for number, node in enumerate(nodes)))
        return order

    async def lock(self, nodes: list[Node]) -> object:
        lock = asyncio.Lock()
        order: list[int] = []

        async def hold(number: int, node: Node) -> None:
            await step("before")
            async with lock:
                await self.run(node)
                order.append(number)

        async with asyncio.TaskGroup() as group:
            for number, node in enumerate(nodes):
                group.create_task(hold(number, node))
        return order

    async def event(self, nodes: list[Node]) -> object:
        event = asyncio.Event()

        async def after(node: Node) -> object:
            await event.wait()
            return await self.run(node)

        tasks = [asyncio.create_task(after(node)) for node in nodes]
        try:
            await step("set")
        finally:
            event.set()
        return [await task for task in tasks]

    async def condition(self, nodes: list[Node]) -> object:
        condition = asyncio.Condition()
        ready = 0

        async def wait(number: int, node: Node) -> object:
            nonlocal ready
            async with condition:
                await condition.wait_for(lambda: ready > number)
                return await self.run(node)

        tasks = [asyncio.create_task(wait(number, node)) for number, node in enumerate(nodes)]
        for _ in nodes:
            await self.run(("step", "n"))
            async with condition:
                ready += 1
                condition.notify_all()
        return [await task for task in tasks]

    async def barrier(self, nodes: list[Node]) -> object:
        barrier = asyncio.Barrier(len(nodes))

        async def meet(node: Node) -> object:
            await self.run(node)
            async with asyncio.timeout(3):
                return await barrier.wait()

        return await asyncio.gather(*map(meet, nodes), return_exceptions=False)

    # --- generators, context managers, context variables, patches ---

    async def _each(self, nodes: list[Node]) -> AsyncIterator[object]:
        try:
            for node in nodes:
                yield await self.run(node)
        finally:
            await step("close", len(nodes))

    async def stream(self, nodes: list[Node]) -> object:
        """Left open after its first item."""
        async for item in self._each(nodes):
            return item
        return None

    async def stream_all(self, nodes: list[Node]) -> object:
        return [item async for item in self._each(nodes)]

    async def stack(self, nodes: list[Node]) -> object:
        @asynccontextmanager
        async def around(node: Node) -> AsyncIterator[object]:
            entered = await self.run(node)
            try:
                yield entered
            finally:
                await step("exit", node[0])

        async with AsyncExitStack() as stack:
            return [await stack.enter_async_context(around(node)) for node in nodes]

    async def variable(self, node: Node) -> object:
        VARIABLE.set(VARIABLE.get() + 1)
        other = asyncio.create_task(self._counted(node))
        await other
        return VARIABLE.get()

    async def _counted(self, node: Node) -> None:
        VARIABLE.set(VARIABLE.get() + 10)
        await self.run(node)
        self.log.append(VARIABLE.get())

    async def patched(self, ways: tuple[Node, Node]) -> object:
        """A change of the code: before it there is one way, and nobody asks."""
        applied = self.changed and current().patched(f"fix-{ways[0][0]}")
        if self.changed:
            self.reached[f"patch {applied}"] += 1
        return await self.run(ways[1] if applied else ways[0])
