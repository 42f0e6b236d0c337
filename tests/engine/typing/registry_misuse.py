"""What type checkers must refuse: each ignore is needed, or mypy --strict says so. `test_registry.py` runs it."""

from troth.registry import step, workflow


@workflow
async def plain(ctx: int, order: str) -> str:
    return order


@step
def total(prices: list[float]) -> float:
    return sum(prices)


async def use() -> None:
    await plain(1, 2)  # type: ignore[arg-type]
    await plain(1)  # type: ignore[call-arg]
    await plain(1, "x", other=1)  # type: ignore[call-arg]
    total("x")  # type: ignore[arg-type]


@workflow  # type: ignore[arg-type]
def not_async(ctx: int) -> str:
    return ""


@workflow(version="2")  # type: ignore[call-overload, untyped-decorator]
async def odd_version(ctx: int) -> str:
    return ""
