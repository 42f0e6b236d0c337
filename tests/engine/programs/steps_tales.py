"""Steps that fail, take long, or write to the same Postgres, for worker processes that are killed; see `stories.py`."""

from __future__ import annotations

import os
import signal
from typing import Any

import troth
from tests.engine.programs.stories import effect, gate, scratch
from troth import Context, Retry, workflow


async def fails_twice(name: str) -> int:
    attempt = troth.step_info().attempt
    effect(f"{name} {attempt}")
    if attempt < 3:
        raise ConnectionError(f"attempt {attempt}")
    return attempt


@workflow
async def tries_slowly(ctx: Context, name: str, first: float) -> int:
    """Waits so long after a failure that its task is suspended meanwhile."""
    return await ctx.options(retry=Retry(attempts=3, first=first, factor=1, jitter=0)).run(fails_twice, name)


async def fails_and_dies(name: str) -> int:
    """Fails, and its process dies in the next attempt."""
    attempt = troth.step_info().attempt
    effect(f"{name} {attempt}")
    if attempt == 2 and not scratch("died").exists():
        scratch("died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if attempt < 3:
        raise ConnectionError(f"attempt {attempt}")
    return attempt


@workflow
async def dies_in_an_attempt(ctx: Context) -> int:
    return await ctx.options(retry=Retry(attempts=3, first=0.05, jitter=0)).run(fails_and_dies, "a")


async def loads(pages: int) -> list[int]:
    """Says after each page how far it has come. One that begins at the beginning stops half-way, for ever."""
    info = troth.step_info()
    done: list[int] = list(info.details or [])
    begun_with = len(done)
    effect(f"begins after {done} as attempt {info.attempt}")
    for page in range(begun_with, pages):
        if begun_with == 0 and page == pages // 2:
            await gate("never")
        done.append(page)
        info.heartbeat(done)
    return done


@workflow
async def loads_pages(ctx: Context, pages: int) -> list[int]:
    return await ctx.run(loads, pages)


async def book(connection: Any, order: str, amount: int) -> int:
    """One row in a ledger that counts: it is there exactly as often as this has happened."""
    await connection.execute("insert into public.ledger (entry, amount) values ($1, $2)", order, amount)
    total: int = await connection.fetchval(
        "select sum(amount)::int from public.ledger where entry = $1", order
    )
    return total


@workflow
async def books(ctx: Context, order: str, times: int) -> list[int]:
    return [await ctx.transaction(book, order, 1) for _ in range(times)]


async def book_at_gate(connection: Any, order: str) -> int:
    total = await book(connection, order, 1)
    effect("booked")
    await gate("open")
    return total


@workflow
async def books_at_gate(ctx: Context, order: str) -> int:
    return await ctx.transaction(book_at_gate, order)
