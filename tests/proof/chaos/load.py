"""The load of chaos: workflows that are started, decided upon and waited for, so many at a time, until enough have been.

The loop is closed: a new workflow begins when one has ended. So a busy machine makes it slower, and nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Coroutine
from typing import Any

from tests.proof.chaos.clients import Book, Clients
from tests.proof.chaos.program import expected, promises_of

KINDS = ("steps", "approval", "approval", "branches", "branches", "timers", "family", "called_off")
LEFT_ALONE = ("silent", "silent-default", "never")
"""Promises, by the ends of their IDs, that nobody decides."""
LOOK_S = 0.2


class Load:
    """What is under way, and the people who decide."""

    def __init__(self, clients: Clients, seed: int, open_at_once: int, *, quarrels: bool = True) -> None:
        """`quarrels`: some people contradict each other."""
        self.clients = clients
        self.book: Book = clients.book
        self._chance = random.Random(f"load {seed}")
        self._seed = seed
        self._open_at_once = open_at_once
        self._number = 0
        self._pausing = False
        self._quarrels = quarrels
        self._deciding: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Begin workflows until `finish`, and wait for those that were begun."""
        await asyncio.gather(*[self._one_after_another() for _ in range(self._open_at_once)])

    def finish(self) -> None:
        """Begin no more."""
        self._pausing = True

    async def decide(self) -> None:
        """The people at their inbox, until canceled."""
        try:
            while True:
                for id in await self.clients.open_promises():
                    if id not in self._deciding and id.rpartition("~")[2] not in LEFT_ALONE:
                        self._deciding[id] = asyncio.create_task(self._noting(self._decide(id)))
                await asyncio.sleep(LOOK_S)
        finally:
            for task in self._deciding.values():
                task.cancel()

    async def _one_after_another(self) -> None:
        while not self._pausing:
            self._number += 1
            await self._noting(self._one(self._number))

    async def _noting(self, work: Coroutine[Any, Any, None]) -> None:
        """What goes wrong is written down, and the others go on."""
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self.book.contradicted.append(f"{type(error).__name__}: {error}")

    async def _one(self, number: int) -> None:
        """A workflow's life, as its client sees it."""
        name = self._chance.choice(KINDS)
        id = f"{name.replace('_', '-')}-{number}"
        args = {"number": number}
        if name in ("steps", "branches", "family"):
            args["count" if name == "steps" else "width"] = self._chance.randint(1, 4)
        await self._start(id, name, args)
        if name == "called_off":
            await asyncio.sleep(self._chance.uniform(0, 1.5))
            answer, _ = await self.clients.settle(id, "canceled")
            self.book.canceled[id] = answer
        state, value = await self.clients.ended(id)
        self._check(id, name, args, state, value)

    async def _start(self, id: str, name: str, args: dict[str, int]) -> None:
        """Start it, some of them twice at once, and some with other arguments besides, which must be refused."""
        times = 2 if self._chance.random() < 0.2 else 1
        answers = await asyncio.gather(*[self.clients.start(id, name, args) for _ in range(times)])
        if "conflict" in answers or answers.count("created") > 1:
            self.book.contradicted.append(f"start of {id} was answered {answers}")
        self.book.started[id] = name, args
        self.book.counts["starts repeated"] += times - 1
        if self._chance.random() < 0.05:
            other = await self.clients.start(id, name, {**args, "number": -1})
            if other != "conflict":
                self.book.contradicted.append(f"start of {id} with other arguments was answered {other}")

    def _check(self, id: str, name: str, args: dict[str, int], state: str, value: Any) -> None:
        self.book.ended[id] = state
        self.book.counts[f"ended: {name} {state}"] += 1
        if name == "called_off":
            # it is no contradiction if the machine was so slow that its promise timed out first
            late = self.book.canceled[id] in ("conflict", "already")
            if state != "canceled" and not (late and state == "rejected"):
                self.book.contradicted.append(f"{id} was canceled ({self.book.canceled[id]}), and is {state}")
            return
        if state != "resolved":
            self.book.contradicted.append(f"{id} is {state}: {value}")
            return
        told: dict[str, str] = value["told"]
        total = expected(name, args["number"], args.get("count") or args.get("width") or 0, told)
        if value["total"] != total:
            self.book.contradicted.append(f"{id} came to {value['total']}, and should to {total}")
        decided = {key: outcome for key, outcome in told.items() if key != "legacy"}
        if set(decided) != promises_of(name, id):
            self.book.contradicted.append(f"{id} was told of {sorted(decided)}")
        for key, outcome in decided.items():
            self.book.settles(key, outcome)

    # --- people ---

    async def _decide(self, id: str) -> None:
        """A decision, which follows from the ID: once, twice the same, or two at once that contradict each other."""
        digest = hashlib.sha256(f"{self._seed} {id}".encode()).digest()
        await asyncio.sleep(digest[0] / 400)
        outcomes = [f"resolved {digest[1]}", f"resolved {digest[1]}", "rejected", "canceled"]
        mine = outcomes[digest[2] % 4]
        match digest[3] % 4:
            case 0 | 1:
                asked = [mine]
            case 2:
                asked = [mine, mine]
            case _:
                asked = [mine, f"resolved {digest[1] + 1}"] if self._quarrels else [mine]
        answers = await asyncio.gather(*[self.clients.settle(id, outcome) for outcome in asked])
        for outcome, (answer, stands) in zip(asked, answers, strict=True):
            self.book.counts[f"decisions {answer}"] += 1
            if answer not in ("settled", "already", "conflict"):
                self.book.contradicted.append(f"{id}: {outcome} was answered {answer}")
            elif (answer == "conflict") == (stands == outcome):
                self.book.contradicted.append(f"{id}: {outcome} was answered {answer}, and {stands} stands")
            else:
                self.book.settles(id, stands)
        self.book.counts["promises decided"] += 1
