"""What type checkers infer of the decorators; `test_registry.py` compares."""

from troth.registry import step, workflow


class Context: ...


@workflow
async def plain(ctx: Context, order: str, *, count: int = 1) -> str:
    return order * count


@workflow(name="other", version=2)
async def named(ctx: Context, order: str) -> list[int]:
    return [len(order)]


@step
def total(prices: list[float]) -> float:
    return sum(prices)


@step(name="send-mail")
async def send(to: str, /, name: str) -> bool:
    return to == name


async def use(ctx: Context) -> None:
    reveal_type(await plain(ctx, "x", count=2))
    reveal_type(await named(ctx, "x"))
    reveal_type(total([1.0]))
    reveal_type(await send("a", name="b"))


reveal_type(plain)
reveal_type(named)
reveal_type(total)
reveal_type(send)
