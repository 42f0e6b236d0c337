"""What type checkers infer of `provided`; `test_providers.py` compares, with mypy and pyright."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager

from troth.providers import Providers, provided
from troth.registry import step


class Pool:
    async def __aenter__(self) -> None: ...
    async def __aexit__(self, *error: object) -> None: ...


async def yields() -> AsyncIterator[Pool]:
    yield Pool()


async def generates() -> AsyncGenerator[Pool, None]:
    yield Pool()


def yields_plainly() -> Iterator[int]:
    yield 1


def generates_plainly() -> Generator[int, None, None]:
    yield 1


@asynccontextmanager
async def below_async() -> AsyncGenerator[Pool, None]:
    yield Pool()


@contextmanager
def below_plain() -> Generator[int, None, None]:
    yield 1


async def returns() -> Pool:
    return Pool()


def returns_plainly(limit: int = 1) -> list[str]:
    return ["a"] * limit


def lock() -> asyncio.Semaphore:
    return asyncio.Semaphore(3)


reveal_type(provided(yields))
reveal_type(provided(generates))
reveal_type(provided(yields_plainly))
reveal_type(provided(generates_plainly))
reveal_type(provided(below_async))
reveal_type(provided(below_plain))
reveal_type(provided(returns))
reveal_type(provided(returns_plainly))
reveal_type(provided(lock))
reveal_type(provided(Pool))


@step
async def charge(
    order: str, pool: Pool = provided(yields), *, names: list[str] = provided(returns_plainly)
) -> bool:
    return True


async def use(providers: Providers) -> None:
    await charge("a")
    await charge("a", Pool(), names=[])
    reveal_type(await providers.arguments(charge, ("a",), {}))
