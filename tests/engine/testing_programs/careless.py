"""Workflows that do not do the same every time, in the well-known ways. The testing tools must find each."""

from __future__ import annotations

import datetime as dt
import os
import random
import time
import uuid

from troth import Context, workflow

CALLS = 0
SEEN: dict[str, str] = {}
RATES = {"eur": 1.0}


async def look_up(what: str) -> str:
    return what.upper()


async def ship(what: str) -> None:
    del what


@workflow
async def by_the_clock(ctx: Context) -> None:
    if time.time() > 0:
        await ctx.run(ship, "now")


@workflow
async def by_todays_date(ctx: Context) -> None:
    await ctx.run(ship, "a" if dt.datetime.now(dt.UTC).year > 2000 else "b")


@workflow
async def by_chance(ctx: Context) -> None:
    await ctx.run(ship, f"parcel {random.randrange(10**9)}")


@workflow
async def by_uuid(ctx: Context) -> str:
    await ctx.run(ship, "parcel")
    return str(uuid.uuid4())


@workflow
async def by_environment(ctx: Context) -> None:
    await ctx.run(ship, os.environ.get("TROTH_TEST_NOTHING", "nowhere"))


@workflow
async def by_counter(ctx: Context) -> None:
    global CALLS  # noqa: PLW0603 — that is the mistake
    CALLS += 1
    await ctx.run(ship, f"parcel {CALLS}")


@workflow
async def by_memory(ctx: Context, what: str) -> None:
    """A cache that outlives the run: the second time the step is not asked for."""
    if what not in SEEN:
        SEEN[what] = await ctx.run(look_up, what)
    await ctx.run(ship, SEEN[what])


@workflow
async def by_shared_state(ctx: Context) -> float:
    """Its result, and nothing else, depends on how often it has run."""
    RATES["eur"] += 1
    await ctx.run(ship, "parcel")
    return RATES["eur"]


@workflow
async def by_set_order(ctx: Context) -> None:
    cities = frozenset(["Bergen", "Oslo", "Lund", "Kiruna", "Turku", "Aarhus", "Malmö", "Visby"])
    for city in cities:
        await ctx.run(ship, city)
