"""The loop's handles: a callback that is due, and one that waits for its timer's entry; and how they are run."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final, cast

from troth.core.events import Entry, Operation

if TYPE_CHECKING:
    from troth.core.loop import MachineLoop

MICROS: Final = 1_000_000
"""In a second."""

Report = Callable[[Mapping[str, object]], None]
"""Hears what asyncio would log: an error in a callback, or one that nobody awaited."""


class Ready(asyncio.Handle):
    """A callback that is due."""

    __slots__ = ("arguments", "callback", "context")

    def __init__(
        self, callback: Callable[..., object], arguments: tuple[Any, ...], context: Context | None
    ) -> None:
        # Not asyncio's own __init__: there is one of these for every turn of every task.
        self.callback: Callable[..., object] | None = callback
        self.arguments = arguments
        self.context = context if context is not None else copy_context()

    def cancel(self) -> None:
        self.callback = None
        self.arguments = ()

    def cancelled(self) -> bool:
        return self.callback is None

    def get_context(self) -> Context:
        return self.context

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'canceled' if self.callback is None else self.callback!r}>"


class Timer(asyncio.TimerHandle):
    """A callback that a timer's entry makes due; without an operation it was due at once."""

    __slots__ = ("_machine_loop", "_number", "_when_s", "arguments", "callback", "context", "operation")

    def __init__(
        self,
        callback: Callable[..., object],
        arguments: tuple[Any, ...],
        context: Context | None,
        loop: MachineLoop,
        operation: Operation,
    ) -> None:
        self.callback: Callable[..., object] | None = callback
        self.arguments = arguments
        self.context = context if context is not None else copy_context()
        self.operation = operation
        self._machine_loop = loop
        self._number = loop.inner_number()
        self._when_s = loop.time() + cast("int", operation.request) / MICROS

    def tell(self, entry: Entry) -> None:
        self._machine_loop.due(self)

    def cancel(self) -> None:
        if self.callback is not None:
            self.callback = None
            self.arguments = ()
            self._machine_loop.take_back(self)

    def cancelled(self) -> bool:
        return self.callback is None

    def when(self) -> float:
        return self._when_s

    def get_context(self) -> Context:
        return self.context

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        return f"<Timer {self.operation.path!r} {'canceled' if self.callback is None else self.callback!r}>"


def drain(ready: deque[Ready | Timer], report: Report | None) -> None:
    """Run what is due, and what that makes due, until nothing is."""
    while ready:
        handle = ready.popleft()
        callback = handle.callback
        if callback is not None:
            try:
                handle.context.run(callback, *handle.arguments)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 — a callback's error is nobody else's, as in asyncio
                if report is not None:
                    report({"message": f"Error in {callback!r}", "exception": error})
