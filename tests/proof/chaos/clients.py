"""Clients that do what a client should: they repeat what was not answered, under the same ID, and remember what was.

Each verb goes through HTTP or through SQL by chance, and again until it is answered. `Book` is their memory: what was
acknowledged once must be so at every later look (`Book.contradicted` has what was not).
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from troth import Troth
from troth.errors import IdConflict, UnknownPromise, Unreachable

T = TypeVar("T")

AGAIN_S = 0.1
GIVEN_UP_S = 300.0
"""A verb that is not answered for so long fails the run; an outage here takes seconds."""


class Contradicted(Exception):
    """An answer that cannot be."""


@dataclass
class Book:
    """What was acknowledged."""

    started: dict[str, tuple[str, dict[str, int]]] = field(default_factory=dict)
    settled: dict[str, str] = field(default_factory=dict)
    canceled: dict[str, str] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    contradicted: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def settles(self, id: str, outcome: str) -> None:
        """Somebody was told that the promise has this outcome."""
        known = self.settled.setdefault(id, outcome)
        if known != outcome:
            self.contradicted.append(f"{id} was said to be {known}, and then to be {outcome}")


class Clients:
    """The verbs, each by HTTP or by SQL as chance will have it."""

    def __init__(
        self,
        troth: Troth,
        urls: list[str],
        chance: random.Random,
        book: Book,
        *,
        forgiving: bool = False,
    ) -> None:
        """`forgiving`: what is unknown is asked for again until it is known, since it may have been lost."""
        self.troth = troth
        self._forgiving = forgiving
        self._unanswered: tuple[type[Exception], ...] = (Unreachable, httpx.TransportError, _Unavailable)
        if forgiving:
            self._unanswered += (UnknownPromise,)
        self._urls = urls
        self._chance = chance
        self.book = book
        self._http = httpx.AsyncClient(trust_env=False, timeout=httpx.Timeout(10.0, connect=3.0))

    async def close(self) -> None:
        await self._http.aclose()

    async def start(self, id: str, name: str, args: dict[str, int]) -> str:
        """`created`, `attached`, or `conflict`."""

        async def by_sql() -> str:
            try:
                handle = await self.troth.start(id, name, **args)
            except IdConflict:
                return "conflict"
            assert handle.started is not None
            return handle.started.answer

        async def by_http() -> str:
            status, body = await self._post(f"/workflows/{name}", {"id": id, "args": args})
            return "conflict" if status == 409 else str(body["answer"])

        return await self._answered(f"start of {id}", by_sql, by_http)

    async def settle(self, id: str, outcome: str) -> tuple[str, str]:
        """Settle a promise as told in words; what was answered, and the outcome that stands, in words."""
        state, _, value = outcome.partition(" ")

        async def by_sql() -> tuple[str, str]:
            match state:
                case "resolved":
                    settlement = await self.troth.resolve(id, int(value))
                case "rejected":
                    settlement = await self.troth.reject(id, "no")
                case _:
                    settlement = await self.troth.cancel(id, "called off")
            promise = settlement.promise
            if promise is None and self._forgiving:
                raise UnknownPromise(id)
            stands = (
                "unknown"
                if promise is None
                else in_words(promise.state, json.loads(bytes(promise.value) or b"null"))
            )
            return settlement.answer, stands

        async def by_http() -> tuple[str, str]:
            bodies: dict[str, dict[str, Any]] = {
                "resolved": {"value": int(value or 0)},
                "rejected": {"error": {"message": "no"}},
            }
            verb = {"resolved": "resolve", "rejected": "reject"}.get(state, "cancel")
            status, body = await self._post(
                f"/promises/{quote(id, safe='~')}/{verb}", bodies.get(state, {"reason": "called off"})
            )
            if status == 404:
                return "unknown", "unknown"
            promise = body["promise"] if status == 409 else body
            answer = "conflict" if status == 409 else str(body["answer"])
            return answer, in_words(promise["state"], promise.get("value"))

        return await self._answered(f"{outcome} for {id}", by_sql, by_http)

    async def ended(self, id: str) -> tuple[str, Any]:
        """Wait until a workflow has ended: its state and value."""

        async def by_sql() -> tuple[str, Any]:
            while True:
                promise = await self.troth.wait(id, 10)
                if promise.settled:
                    return promise.state, json.loads(bytes(promise.value) or b"null")

        async def by_http() -> tuple[str, Any]:
            while True:
                status, body = await self._get(f"/promises/{id}", wait=5)
                if status == 404:
                    raise Contradicted(f"{id} was started, and nobody knows it")
                if body["state"] != "pending":
                    return body["state"], body.get("value")

        return await self._answered(f"end of {id}", by_sql, by_http, given_up_s=3600)

    async def open_promises(self) -> list[str]:
        """What waits for a person, as an inbox shows it."""

        async def by_sql() -> list[str]:
            found = await self.troth.search(state="pending", latent=True, limit=1000)
            return [each.id for each in found]

        async def by_http() -> list[str]:
            _, body = await self._get("/promises", state="pending", latent="true", limit=1000)
            return [each["id"] for each in body["items"]]

        return await self._answered("the inbox", by_sql, by_http)

    async def _answered(
        self,
        what: str,
        by_sql: Callable[[], Awaitable[T]],
        by_http: Callable[[], Awaitable[T]],
        *,
        given_up_s: float = GIVEN_UP_S,
    ) -> T:
        """Ask until there is an answer, by another way each time."""
        until = asyncio.get_running_loop().time() + given_up_s
        while True:
            http = bool(self._urls) and self._chance.random() < 0.5
            try:
                answer = await (by_http if http else by_sql)()
            except self._unanswered as error:
                self.book.counts["calls repeated"] += 1
                if asyncio.get_running_loop().time() > until:
                    raise Contradicted(f"{what} was not answered: {error}") from error
                await asyncio.sleep(self._chance.uniform(AGAIN_S, 3 * AGAIN_S))
                continue
            self.book.counts["answers by HTTP" if http else "answers by SQL"] += 1
            return answer

    async def _post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return _read(await self._http.post(self._chance.choice(self._urls) + path, json=body))

    async def _get(self, path: str, **asked: str | float) -> tuple[int, dict[str, Any]]:
        return _read(await self._http.get(self._chance.choice(self._urls) + path, params=asked))


class _Unavailable(Exception):
    """503: Postgres is away."""


def _read(response: httpx.Response) -> tuple[int, dict[str, Any]]:
    if response.status_code == 503:
        raise _Unavailable(response.text[:200])
    if response.status_code not in (200, 201, 202, 404, 409):
        raise Contradicted(f"{response.request.url} answered {response.status_code}: {response.text[:500]}")
    document: dict[str, Any] = response.json()
    return response.status_code, document


def in_words(state: str, value: Any) -> str:
    """An outcome as the book has it."""
    return f"resolved {value}" if state == "resolved" else state
