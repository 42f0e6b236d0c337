"""A scenario with a crash at every point between its workers and Postgres.

The first run is undisturbed and counts the calls that the workers made. Each of them is a point: the call may not arrive, its
answer may be lost, all connections may be cut, the worker may die before it or after it. Then the scenario is run once for each
point, on a namespace of its own, with that one thing happening there. It must come to the same every time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from troth.testing.failures import CrashDiffers, TestFailure
from troth.testing.faults import FaultKind, Point

if TYPE_CHECKING:
    from troth.testing.environment import Environment

T = TypeVar("T")

POINTS_MAX: Final = 2000
"""More points than this are no test any more: choose `functions` or `kinds`, or a shorter scenario."""


@dataclass
class CrashReport:
    """Where a scenario was crashed. `missed`: points that a run did not come to, as when two turns shared one call."""

    crashed: list[Point] = field(default_factory=list[Point])
    missed: list[Point] = field(default_factory=list[Point])

    def __str__(self) -> str:
        return f"{len(self.crashed)} crashes, {len(self.missed)} points not come to"


async def crash_everywhere(
    another: Callable[[Point | None], Environment],
    scenario: Callable[[Environment], Awaitable[T]],
    expect: T | msgspec.UnsetType,
    *,
    functions: Collection[str],
    kinds: Collection[FaultKind],
) -> CrashReport:
    """See `Environment.crash_everywhere`."""
    async with another(None) as undisturbed:
        came = await _run(undisturbed, scenario, None)
        points = undisturbed.faults.points(functions, kinds)
    expected = came if isinstance(expect, msgspec.UnsetType) else expect
    if came != expected:
        raise CrashDiffers(f"Undisturbed, the scenario came to {came!r}, not to {expected!r}.")
    if len(points) > POINTS_MAX:
        raise CrashDiffers(
            f"The scenario has {len(points)} points, and {POINTS_MAX} are the most: choose some functions or kinds."
        )
    report = CrashReport()
    for point in points:
        async with another(point) as crashed:
            came = await _run(crashed, scenario, point)
            if came != expected:
                raise CrashDiffers(
                    f"With a crash at {point}, the scenario came to {came!r}, not to {expected!r}."
                )
            (report.crashed if crashed.faults.struck else report.missed).append(point)
    return report


async def _run(
    environment: Environment, scenario: Callable[[Environment], Awaitable[T]], point: Point | None
) -> T:
    try:
        came = await scenario(environment)
        environment.check_invariants()
        await environment.check_replays()
    except Exception as error:
        if point is None:
            raise
        what = str(error) if isinstance(error, TestFailure) else f"{type(error).__name__}: {error}"
        raise CrashDiffers(f"With a crash at {point}:\n{what}") from error
    return came
