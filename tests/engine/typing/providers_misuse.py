"""What type checkers must refuse: each ignore is needed, or mypy --strict says so. `test_providers.py` runs it."""

from collections.abc import AsyncIterator

from troth.providers import provided


async def make() -> AsyncIterator[int]:
    yield 1


def plain() -> int:
    return 1


async def wrong(number: str = provided(make)) -> None: ...  # type: ignore[assignment]
async def called(number: int = provided(plain())) -> None: ...  # type: ignore[call-overload]
