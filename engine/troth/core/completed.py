"""`asyncio.as_completed`, begun in program order.

asyncio makes a task of each coroutine that it is given, one by one, while it walks a set of them, which is in the order
of their addresses: the tasks would have other numbers in every process. So the first time it asks for one, all of them
are made, in the order in which the code gave them, and each of the later requests gets its own.

What has no order (a set, a generator that is used up) is refused, and so are futures that are done already beside
coroutines: in which order asyncio hears of those depends on the addresses of the others.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Coroutine, Iterable, KeysView, ValuesView
from typing import TYPE_CHECKING, Any, cast

from troth.core.branches import MachineTask
from troth.errors import WorkflowMisuse

if TYPE_CHECKING:
    from troth.core.loop import MachineLoop


class Begun:
    """The tasks of one call of `as_completed` that it has not asked for yet. Between two calls there are none."""

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: dict[int, MachineTask[Any]] = {}

    def take(self, coroutine: Coroutine[Any, Any, Any], given: object, loop: MachineLoop) -> MachineTask[Any]:
        """The task for one of what was given, of which asyncio may have made a coroutine first."""
        if not self._tasks:
            for one in _in_order(given, loop):
                self._tasks[id(one)] = loop.create_task(one if asyncio.iscoroutine(one) else _awaited(one))
        task = self._tasks.pop(id(_original(coroutine)))
        if task.get_coro() is not coroutine:
            coroutine.close()
        return task


def _in_order(given: object, loop: MachineLoop) -> list[Any]:
    """What is to become a task, once each and in order. Everything is judged here, before the first is begun."""
    if not isinstance(given, list | tuple | deque | dict | KeysView | ValuesView):
        raise WorkflowMisuse(
            f"asyncio.as_completed() was given a {type(given).__name__}, from which coroutines begin in no fixed order:"
            " give it a list of them."
        )
    to_begin: dict[int, Any] = {}
    for one in cast("Iterable[Any]", given):
        if asyncio.isfuture(one):
            if one.get_loop() is not loop:
                raise ValueError("asyncio.as_completed() was given a future of another loop.")
            if one.done():
                raise WorkflowMisuse(
                    "asyncio.as_completed() was given a future that is done beside others that are not begun: the order"
                    " would be another each time. Give it tasks only: asyncio.create_task(...) of each coroutine."
                )
        elif inspect.isawaitable(one):
            to_begin[id(one)] = one
        else:
            raise TypeError(f"asyncio.as_completed() takes futures, coroutines and awaitables, not {one!r}")
    return list(to_begin.values())


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def _original(coroutine: Any) -> object:
    """The awaitable that asyncio has wrapped into this coroutine, or the coroutine itself."""
    frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
    if frame is not None and frame.f_code.co_name == "_wrap_awaitable":
        return frame.f_locals["awaitable"]
    return coroutine
