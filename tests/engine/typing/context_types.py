"""What type checkers infer of a workflow's context; `test_children.py` compares."""

from typing import Any, Literal

from troth import Context, step, workflow


async def charge(order: str, *, amount: int = 1) -> dict[str, int]:
    return {order: amount}


def total(prices: list[float]) -> float:
    return sum(prices)


@step
async def send(to: str) -> bool:
    return bool(to)


async def book(connection: Any, order: str, amount: int = 1) -> list[int]:
    return [amount]


@workflow
async def ship(ctx: Context, order: str, *, fast: bool = False) -> tuple[str, int]:
    return order, int(fast)


# S98: what a user calls his own arguments is his own affair
async def awkward(name: str, retry: int, timeout: float, id: bytes, queue: bool) -> set[str]:
    return {name}


@workflow
async def awkward_too(ctx: Context, name: str, retry: int, timeout: float, id: int, queue: bool) -> set[int]:
    return {retry}


async def awkward_sql(connection: Any, name: str, retry: int, timeout: float, id: int) -> frozenset[int]:
    return frozenset((retry,))


async def use(ctx: Context) -> None:
    reveal_type(await ctx.run(charge, "x", amount=2))
    reveal_type(await ctx.run(total, [1.0]))
    reveal_type(await ctx.run(send, "a"))
    reveal_type(await ctx.transaction(book, "x", amount=2))
    reveal_type(await ctx.call(ship, "x", fast=True))
    reveal_type(await ctx.options(queue="q", close="wait").call(ship, "x"))
    reveal_type(await ctx.start(ship, "x"))
    reveal_type(await ctx.start(ship, "x").result())
    reveal_type(ctx.start(ship, "x").id)
    reveal_type(await ctx.promise(bool, "approval"))
    reveal_type(await ctx.promise(Literal["yes", "no"]))
    reveal_type(await ctx.wait(int | None, "other"))
    reveal_type(await ctx.run(awkward, name="a", retry=1, timeout=2.0, id=b"", queue=True))
    reveal_type(await ctx.call(awkward_too, name="a", retry=1, timeout=2.0, id=1, queue=True))
    reveal_type(await ctx.start(awkward_too, name="a", retry=1, timeout=2.0, id=1, queue=True))
    reveal_type(await ctx.transaction(awkward_sql, name="a", retry=1, timeout=2.0, id=1))
    reveal_type(await ctx.call("by-name", name="a", queue="b"))


async def misuse(ctx: Context) -> None:
    ctx.run(charge, 1)  # type: ignore[call-overload]  # pyright: ignore
    ctx.call(ship, fast=True)  # type: ignore[call-overload]  # pyright: ignore
    ctx.transaction(book, amount="x")  # type: ignore[call-arg, arg-type]  # pyright: ignore
    ctx.options(isolation="chaos")  # type: ignore[arg-type]  # pyright: ignore
