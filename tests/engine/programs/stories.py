"""Workflows that worker processes run in tests. What their steps do to the world is a line in a file, which survives all."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from datetime import timedelta
from pathlib import Path

from troth import Context, PromiseTimedOut, workflow


def scratch(name: str) -> Path:
    return Path(os.environ["TROTH_TEST_SCRATCH"]) / name


def effect(text: str) -> None:
    """Something in the world changes, and everybody can see it."""
    with scratch("effects").open("a") as file:
        file.write(f"{text}\n")


async def gate(name: str) -> None:
    """Wait until the test opens a gate."""
    while not scratch(name).exists():  # noqa: ASYNC110 — other processes open it
        await asyncio.sleep(0.02)


async def send_email(promise_id: str) -> None:
    effect(f"email {promise_id}")


@workflow
async def approve_order(ctx: Context, order: str) -> str:
    approval = ctx.promise(bool, "approval")
    await ctx.run(send_email, approval.id)
    return f"{order}: {'approved' if await approval else 'refused'}"


@workflow
async def approve_in_time(ctx: Context, days: int) -> str:
    approval = ctx.options(timeout=timedelta(days=days)).promise(bool, "approval")
    await ctx.run(send_email, approval.id)
    try:
        return "approved" if await approval else "refused"
    except PromiseTimedOut:
        return "nobody decided"


def add(a: int, b: int) -> int:
    effect(f"add {a} {b}")
    return a + b


async def wander(branch: int, turn: int) -> str:
    await asyncio.sleep(random.random() * 0.03)
    effect(f"wander {branch} {turn}")
    return f"{branch}.{turn}"


@workflow
async def branches(ctx: Context, count: int) -> list[list[str]]:
    async def one(branch: int) -> list[str]:
        return [await ctx.run(wander, branch, turn) for turn in range(3)]

    return list(await asyncio.gather(*(one(branch) for branch in range(count))))


async def wait_at_gate(name: str) -> str:
    effect(f"at {name}")
    await gate(name)
    return f"through {name} with {os.getpid()}"


@workflow
async def gated(ctx: Context, name: str) -> str:
    return await ctx.run(wait_at_gate, name)


@workflow
async def kills_its_process(ctx: Context) -> None:
    await ctx.run(die)


async def die() -> None:
    effect("die")
    os._exit(9)


async def look_busy(n: int) -> int:
    await asyncio.sleep(0.02)
    return n


@workflow
async def innocent(ctx: Context, n: int) -> int:
    return await ctx.run(look_busy, n) + await ctx.run(look_busy, n)


async def die_once(name: str) -> str:
    effect(f"die once {name}")
    marker = scratch(f"died-{name}")
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


@workflow
async def dies_once(ctx: Context, name: str) -> str:
    return await ctx.run(die_once, name)


@workflow
async def long_sleep(ctx: Context) -> str:
    await ctx.sleep(timedelta(days=30))
    return "awake"
