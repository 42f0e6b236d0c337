"""Random programs, random orders of events: every replay, from every prefix, does the same (DESIGN 5.1, checker iv).

A program is a tree drawn from a seed and run by an interpreter that uses asyncio the way people do. Its journal is
what a random driver told it. Fresh machines are then told prefixes of that journal: they must issue the same
operations in the same turns, see the same values and end alike, whatever addresses their objects have.
"""

from __future__ import annotations

import asyncio
import random
import warnings
from typing import Any, ClassVar

import pytest

from tests.core.driving import STARTED_AT, Failed, Run, litter, promise, step
from troth.core import Raised

Node = tuple[str, Any]
SEEDS = range(120)


def grown(rng: random.Random, depth: int) -> Node:
    leaves = ["step", "step", "promise", "sleep", "nothing"]
    forks = [
        "sequence",
        "sequence",
        "gather",
        "group",
        "timeout",
        "race",
        "queue",
        "shield",
        "abandon",
        "lock",
        "stream",
    ]
    kind = rng.choice(leaves if depth == 0 else leaves + forks * 2)
    match kind:
        case "step" | "promise":
            return kind, rng.choice("abc")
        case "sleep":
            return kind, rng.choice([0, 0.1, 1, 2.5])
        case "timeout":
            return kind, (rng.choice([0.1, 1, 5]), grown(rng, depth - 1))
        case "nothing":
            return kind, None
        case "shield" | "abandon":
            return kind, grown(rng, depth - 1)
        case _:
            return kind, [grown(rng, depth - 1) for _ in range(rng.randrange(1, 4))]


class Interpreter:
    """Runs a tree; `seen` is all that its code came to know, in order."""

    def __init__(self, tree: Node) -> None:
        self.tree = tree
        self.seen: list[object] = []
        self.lock: asyncio.Lock | None = None

    async def main(self) -> object:
        self.seen.append("begin")
        self.lock = asyncio.Lock()
        return await self.run(self.tree)

    async def run(self, node: Node) -> object:
        result: object
        try:
            result = await self.forms[node[0]](self, node[1])
        except (Failed, TimeoutError, ExceptionGroup) as error:
            result = type(error).__name__
        except asyncio.CancelledError:
            self.seen.append((node[0], "canceled"))
            raise
        self.seen.append((node[0], result, asyncio.get_running_loop().time()))
        return result

    async def step(self, name: str) -> object:
        return await step(name, name)

    async def promise(self, name: str) -> object:
        return await promise(f"p{name}")

    async def sleep(self, seconds: float) -> object:
        return await asyncio.sleep(seconds, seconds)

    async def nothing(self, _: None) -> object:
        await asyncio.sleep(0)
        return None

    async def sequence(self, nodes: list[Node]) -> object:
        return [await self.run(node) for node in nodes]

    async def gather(self, nodes: list[Node]) -> object:
        return await asyncio.gather(*map(self.run, nodes))

    async def group(self, nodes: list[Node]) -> object:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.leaf(node), name=f"g{n % 2}") for n, node in enumerate(nodes)]
        return [task.result() for task in tasks]

    async def leaf(self, node: Node) -> object:
        """A branch that lets failures out, so that its group falls."""
        await self.run(node)
        return await step("leaf", node[0])

    async def timeout(self, both: tuple[float, Node]) -> object:
        async with asyncio.timeout(both[0]):
            return await self.run(both[1])

    async def race(self, nodes: list[Node]) -> object:
        tasks = {asyncio.create_task(self.run(node)) for node in nodes}
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        return [task.result() for task in done]

    async def queue(self, nodes: list[Node]) -> object:
        queue: asyncio.Queue[object] = asyncio.Queue(1)

        async def produce(node: Node) -> None:
            await queue.put(await self.run(node))

        async with asyncio.TaskGroup() as group:
            for node in nodes:
                group.create_task(produce(node))
            return [await queue.get() for _ in nodes]

    async def lock_(self, nodes: list[Node]) -> object:
        assert self.lock is not None
        lock = asyncio.Lock()

        async def hold(node: Node) -> object:
            async with lock:
                return await self.run(node)

        tasks = [asyncio.create_task(hold(node)) for node in nodes]
        return [await one for one in asyncio.as_completed(tasks)]

    async def shield(self, node: Node) -> object:
        return await asyncio.shield(self.run(node))

    async def abandon(self, node: Node) -> object:
        async def branch() -> None:
            try:
                await self.run(node)
            finally:
                await step("undo", node[0])

        self.seen.append(asyncio.create_task(branch()).get_name())
        return None

    async def stream(self, nodes: list[Node]) -> object:
        async def each() -> Any:
            try:
                for node in nodes:
                    yield await self.run(node)
            finally:
                await step("close", len(nodes))

        async for item in each():
            return item
        return None

    forms: ClassVar[dict[str, Any]] = {
        "step": step,
        "promise": promise,
        "sleep": sleep,
        "nothing": nothing,
        "sequence": sequence,
        "gather": gather,
        "group": group,
        "timeout": timeout,
        "race": race,
        "queue": queue,
        "lock": lock_,
        "shield": shield,
        "abandon": abandon,
        "stream": stream,
    }


class Simulation:
    def __init__(self, tree: Node) -> None:
        self.interpreters: list[Interpreter] = []
        self.tree = tree

    async def main(self) -> object:
        interpreter = Interpreter(self.tree)
        self.interpreters.append(interpreter)
        return await interpreter.main()


def drive(run: Run[object], rng: random.Random) -> None:
    """Tell random entries; timers fire in any order after their instant, and now and then somebody cancels."""
    for _ in range(400):
        if run.machine.done:
            return
        if rng.random() < 0.02:
            run.cancel()
            continue
        assert run.machine.open, "the code waits for nothing"
        path = rng.choice(run.open)
        state = "rejected" if rng.random() < 0.15 else "resolved"
        run.tell(path, f"{path}@{run.machine.told}", state=state, micros=rng.choice([0, 1, 50_000, 700_000]))
    pytest.fail("the code does not end")


def told(outcome: object) -> object:
    return repr(outcome.exception) if isinstance(outcome, Raised) else outcome


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_program_replays_alike(seed: int) -> None:
    rng = random.Random(seed)
    simulation = Simulation(("sequence", [grown(rng, 4) for _ in range(3)]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = Run(simulation.main)
        drive(first, rng)
        seen = simulation.interpreters[0].seen
        for upto in {len(first.journal), *(rng.randrange(len(first.journal) + 1) for _ in range(6))}:
            littered = litter(rng)
            again = first.replay(upto)
            assert again.machine.now == (first.journal[upto - 1].at if upto else STARTED_AT)
            if upto == len(first.journal):
                assert simulation.interpreters[-1].seen == seen
                assert told(again.machine.outcome) == told(first.machine.outcome)
            else:
                assert simulation.interpreters[-1].seen == seen[: len(simulation.interpreters[-1].seen)]
            again.machine.evict()
            del littered
        assert first.reports == [] or all(
            "never retrieved" in str(one.get("message")) for one in first.reports
        )


def test_the_simulation_reaches_what_it_is_about() -> None:
    """Counters: a simulation whose programs never raced, timed out or were canceled would prove nothing."""
    reached: dict[str, int] = {}
    for seed in SEEDS:
        rng = random.Random(seed)
        simulation = Simulation(("sequence", [grown(rng, 4) for _ in range(3)]))
        run = Run(simulation.main)
        drive(run, rng)
        for one in [type(run.machine.outcome).__name__, *(entry.kind for entry in run.journal)]:
            reached[one] = reached.get(one, 0) + 1
        for item in simulation.interpreters[0].seen:
            if isinstance(item, tuple):
                for key in (str(item[0]), str(item[1])[:12]):
                    reached[key] = reached.get(key, 0) + 1
    for what in (
        *Interpreter.forms,
        "TimeoutError",
        "ExceptionGro",
        "canceled",
        "cancel",
        "timer",
        "Returned",
        "CanceledOutcome",
    ):
        assert reached.get(what, 0) >= 5, f"{what}: {reached.get(what, 0)}"
