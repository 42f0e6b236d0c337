"""Futures and tasks of a workflow: asyncio's own, which hash by the order of their creation.

Objects hash by address, so a set of tasks would be walked in another order in every process; `asyncio.wait` and
`TaskGroup` keep their tasks in sets. A task also carries its scope, from which its operations get their names.

What code makes itself (tasks, operations, gatherings) has a count of its own: what asyncio makes for its own ends is
more on one version of Python than on another, and must not change the order in which a set of tasks is walked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar, cast

from troth.core.events import Entry, Operation
from troth.core.hooks import GatheringFuture, unregister_task
from troth.core.names import Scope

if TYPE_CHECKING:
    from troth.core.loop import MachineLoop

T = TypeVar("T")


class MachineFuture(asyncio.Future[T]):
    """A future of a workflow; `number` counts them as they are made."""

    __slots__ = ("number",)

    def __init__(self, number: int, *, loop: MachineLoop) -> None:
        self.number = number
        loop.making = True
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number


class OperationFuture(MachineFuture[T]):
    """What code awaits of an operation. Canceling it gives up the waiting, not the operation: that stays open."""

    __slots__ = ("_finish", "operation")

    def __init__(
        self,
        operation: Operation,
        finish: Callable[[Entry], T],
        number: int,
        *,
        loop: MachineLoop,
    ) -> None:
        self.operation = operation
        self._finish = finish
        super().__init__(number, loop=loop)

    @property
    def path(self) -> str:
        """The operation's path, known as soon as it is issued."""
        return self.operation.path

    def cancel(self, msg: Any | None = None) -> bool:
        """Stop waiting: the driver hears of it."""
        canceled = super().cancel(msg)
        if canceled:
            cast("MachineLoop", self.get_loop()).give_up(self.operation)
        return canceled

    def tell(self, entry: Entry) -> None:
        """Settle with what the entry says. An ordinary exception is the code's; anything beyond goes to the caller."""
        if self.done():
            return
        try:
            value = self._finish(entry)
        except asyncio.CancelledError as canceled:
            super().cancel(*canceled.args)
        except StopIteration as stop:
            # A future refuses it, since it would end the awaiting coroutine as if it had returned.
            error = RuntimeError(f"StopIteration was raised in telling {self.path!r}")
            error.__cause__ = stop
            self.set_exception(error)
        except Exception as error:  # noqa: BLE001 — whatever it is, it belongs to the awaiting code
            self.set_exception(error)
            self._log_traceback = False  # the journal has it: nobody needs a warning that it was not awaited
        else:
            self.set_result(value)


class MachineTask(asyncio.Task[T]):
    """A branch of a workflow: a scope of its own."""

    __slots__ = ("_given", "number", "scope")

    def __init__(
        self,
        coro: Coroutine[Any, Any, T],
        scope: Scope,
        number: int,
        *,
        loop: MachineLoop,
        name: str | None = None,
        context: Context | None = None,
        eager: bool = False,
    ) -> None:
        self.number = number
        self.scope = scope
        self._given = name
        loop.making = True
        options: dict[str, Any] = {"eager_start": True} if eager else {}
        super().__init__(coro, loop=loop, name="", context=context, **options)
        # asyncio keeps all tasks of the process in one set. Ours hash alike from machine to machine, so that a
        # thousand suspended ones would make it a list; the machine keeps its tasks itself.
        unregister_task(self)

    def __hash__(self) -> int:
        return self.number

    def get_name(self) -> str:
        """The given name, or one by number: asyncio's own counter is the whole process's."""
        return self._given or f"Task-{self.number}"

    def set_name(self, value: object) -> None:
        """Name the task, and its scope too if it was just made: then it is what `create_task(name=)` does."""
        if self._given is None and asyncio.current_task(self.get_loop()) is not self:
            try:
                self.scope.rename(str(value))
            except BaseException:
                self.cancel()
                raise
        self._given = str(value)

    def forget(self) -> None:
        """End without running: the coroutine is closed, so let go of what was waited for and of who waits here.

        A future that is canceled drops its callbacks, and nobody is warned of a pending task: then what remains holds
        nothing in a circle. `gather` would only cancel its children, so each is canceled as the plain future it is.
        """
        waiter: asyncio.Future[Any] | None = getattr(self, "_fut_waiter", None)
        self.cancel()
        for future in (waiter, cast("asyncio.Future[Any]", self)):
            if future is not None:
                asyncio.Future[Any].cancel(future)


class _Gathering(GatheringFuture):
    """What `asyncio.gather` answers with, given a number too."""

    number: int

    def __hash__(self) -> int:
        return self.number


def number_gathering(future: object, number: int) -> None:
    """Let a future that `gather` is just making hash like ours. It cannot be given a class of ours beforehand."""
    if type(future) is GatheringFuture:
        future.__class__ = _Gathering
        cast("_Gathering", future).number = number
