"""What must be true when calm has come, and the figures of what was tried."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import psycopg

from tests.proof.chaos.clients import Book, in_words
from tests.proof.chaos.ledger import broken_promises, figures
from troth import Troth
from troth.errors import Unreachable
from troth.testing.violations import violations

LOOK_S = 0.25
SHOWN_MAX = 20
OVERDUE_S_MAX = 30.0


async def resume_the_unlucky(troth: Troth, book: Book) -> None:
    """The operator: a workflow whose workers died five times in a row is parked, and is sent on. No other may be parked."""
    while True:
        await asyncio.sleep(1)
        with suppress(Unreachable, psycopg.OperationalError):
            for id in await _halted(troth):
                found = (await troth.get_many([id])).get(id)
                reason = found.task.reason if found and found.task else None
                if reason is None:
                    continue
                if reason.code != "attempts":
                    book.contradicted.append(f"{id} is halted: {reason.code}: {reason.message}")
                    return
                await troth.resume(id)
                book.counts["workflows sent on after five deaths"] += 1


async def _halted(troth: Troth) -> list[str]:
    connection = await psycopg.AsyncConnection.connect(troth.dsn, autocommit=True)
    async with connection:
        cursor = await connection.execute("select id from troth.tasks where state = 'halted'")
        return [id for (id,) in await cursor.fetchall()]


async def all_ended(troth: Troth, loading: asyncio.Task[None]) -> None:
    """Return when all clients have their answers and no workflow is left."""
    await loading
    while True:
        connection = await psycopg.AsyncConnection.connect(troth.dsn, autocommit=True)
        async with connection:
            cursor = await connection.execute("select not exists (select from troth.tasks)")
            row = await cursor.fetchone()
            if row is not None and row[0]:
                return
        await asyncio.sleep(LOOK_S)


async def everything(dsn: str, book: Book) -> list[str]:
    """All that is wrong."""
    return [*book.contradicted[:SHOWN_MAX], *await asyncio.to_thread(_in_postgres, dsn, book)]


def _in_postgres(dsn: str, book: Book) -> list[str]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("analyze")
        wrong = broken_promises(connection)
        wrong += _violations(connection)
        wrong += [
            f"{id} has not ended: {state}, {reason}"
            for id, state, reason in connection.execute("select id, state, reason from troth.tasks")
        ]
        return (wrong + _lost(connection, book))[:SHOWN_MAX]


def _violations(connection: psycopg.Connection[Any]) -> list[str]:
    """The invariants. What is only overdue (I47) is given the time that a machine with other work takes."""
    until = time.monotonic() + OVERDUE_S_MAX
    while True:
        found = violations(connection, liveness=True)
        if not found or {each.invariant for each in found} != {"I47"} or time.monotonic() > until:
            return [f"violation of {each.invariant}: {each.id}: {each.detail}" for each in found]
        time.sleep(LOOK_S)


def _lost(connection: psycopg.Connection[Any], book: Book) -> list[str]:
    """What was acknowledged, and is not there, or is otherwise."""
    query = "select id, function, args, state, value from troth.promise"
    stored = {id: tuple(rest) for id, *rest in connection.execute(query).fetchall()}
    wrong: list[str] = []
    for id, (name, args) in book.started.items():
        function, given, state, _ = stored.get(id, (None, None, None, None))
        if (function, given) != (name, args):
            wrong.append(f"the start of {id} was acknowledged; stored is {function} {given}")
        elif book.ended.get(id, state) != state:
            wrong.append(f"{id} was said to be {book.ended[id]}, and is {state}")
    for id, outcome in book.settled.items():
        _, _, state, value = stored.get(id, (None, None, "unknown", None))
        if in_words(state, value) != outcome:
            wrong.append(f"{id} was acknowledged as {outcome}, and is {in_words(state, value)}")
    for id, answer in book.canceled.items():
        if answer in ("settled", "requested") and stored.get(id, (None,) * 4)[2] != "canceled":
            wrong.append(f"{id} was canceled ({answer}), and is not")
    return wrong


def show(dsn: str, book: Book, kills: Counter[str], stormed_s: float, calm_s: float) -> None:
    """The figures, a line each."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        rows = connection.execute(
            "select count(*) filter (where function is not null), count(*) filter (where function is null) from troth.promise"
        ).fetchone() or (0, 0)
        counted = figures(connection)
    shown = {
        "seconds of storm": round(stormed_s, 1),
        "seconds of calm": round(calm_s, 1),
        "workflows started by clients": len(book.started),
        "workflows in all, children too": rows[0],
        "promises for people and timeouts": rows[1],
        **{f"kills: {kind}": count for kind, count in sorted(kills.items())},
        **counted,
        **dict(sorted(book.counts.items())),
    }
    for what, count in shown.items():
        say(f"{count:>8}  {what}")
    say(json.dumps(shown))


def say(text: str) -> None:
    """One line, at once."""
    sys.stdout.write(f"chaos: {text}\n")
    sys.stdout.flush()
