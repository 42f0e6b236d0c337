"""Which step functions were called in a test, and which are called instead of them.

The worker asks `stand_in` for what it shall call when a step starts. What it gets notes the call and then calls the function,
or the fake that the test put in its place. Names, arguments and result types stay those of the real function: a fake whose
value does not fit fails as the real one's would.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, cast, overload

import troth
from troth.errors import InvalidArgument
from troth.registry import Step, step_name

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StepCall:
    """One call of a step function: for which operation of which workflow, and with what."""

    workflow: str
    operation: str
    attempt: int
    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The step's ID in the namespace, the same at each attempt."""
        return f"{self.workflow}~{self.operation}"

    def __str__(self) -> str:
        given = [repr(each) for each in self.args] + [
            f"{key}={value!r}" for key, value in self.kwargs.items()
        ]
        return f"{self.id}: {self.name}({', '.join(given)})"


class Steps:
    """The step calls of a test, in the order in which they began; `len`, iteration and indexing as of a list.

    assert troth_env.steps.names("order-42") == ["reserve", "charge", "send_receipt"]
    assert troth_env.steps.times(charge) == 1
    """

    def __init__(self, began: Callable[[StepCall], None] | None = None) -> None:
        """`began` hears of each call before the function is called, in whatever thread that is."""
        self._calls: list[StepCall] = []
        self._began = began
        self._fakes: dict[Callable[..., Any], Callable[..., Any]] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[StepCall]:
        return iter(list(self._calls))

    @overload
    def __getitem__(self, index: int) -> StepCall: ...
    @overload
    def __getitem__(self, index: slice) -> list[StepCall]: ...
    def __getitem__(self, index: int | slice) -> StepCall | list[StepCall]:
        return self._calls[index]

    def names(self, workflow: str | None = None) -> list[str]:
        """The names of the steps that were called, in order; of one workflow, or of all."""
        return [each.name for each in self._calls if workflow in (None, each.workflow)]

    def of(self, step: Callable[..., Any] | str, workflow: str | None = None) -> list[StepCall]:
        """The calls of one step function, given itself or by name."""
        name = step if isinstance(step, str) else step_name(step)
        return [each for each in self._calls if each.name == name and workflow in (None, each.workflow)]

    def times(self, step: Callable[..., Any] | str, workflow: str | None = None) -> int:
        """How often a step function was called."""
        return len(self.of(step, workflow))

    def clear(self) -> None:
        """Forget the calls so far."""
        self._calls.clear()

    def replace(self, step: Callable[..., Any], fake: Callable[..., Any]) -> None:
        """From now on `fake` is called where `step` would be."""
        if not callable(fake):
            raise InvalidArgument(f"{fake!r:.100} cannot be called in the place of a step.")
        self._fakes[_plain(step)] = _plain(fake)

    def take_fakes_of(self, other: Steps) -> None:
        """Replace what another environment replaces."""
        self._fakes.update(other._fakes)

    def stand_in(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """What the worker calls for a step function."""
        called: Callable[..., Any] = self._fakes.get(fn, fn)
        name = step_name(fn) if hasattr(fn, "__name__") else type(fn).__name__

        if inspect.iscoroutinefunction(called):

            @functools.wraps(called)
            async def noted_async(*args: Any, **kwargs: Any) -> Any:
                self._note(name, args, kwargs)
                return await called(*args, **kwargs)

            return noted_async

        @functools.wraps(called)
        def noted(*args: Any, **kwargs: Any) -> Any:
            self._note(name, args, kwargs)
            return called(*args, **kwargs)

        return noted

    def _note(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        info = troth.step_info()
        call = StepCall(info.workflow, info.operation, info.attempt, name, args, dict(kwargs))
        self._calls.append(call)
        if self._began is not None:
            self._began(call)


def _plain(step: Callable[..., Any]) -> Callable[..., Any]:
    return cast("Step[..., Any]", step).fn if isinstance(step, Step) else step
