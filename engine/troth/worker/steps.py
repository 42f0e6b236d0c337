"""Calling a step function once and making of what happens an outcome that can be stored.

An `async def` runs in the worker's loop, a plain function in a thread. Whatever it raises is an outcome; whatever it returns
that cannot be stored is one too, so that the workflow's code hears of it instead of trying for ever. Only what ends the
process (SystemExit, KeyboardInterrupt) is nobody's result: then the task is given back. An attempt that takes too long fails
with TimeoutError: a coroutine is canceled, a thread cannot be and is abandoned, which is said.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from typing import Any, Literal

import structlog
from msgspec import Struct

from troth import calls
from troth.codec import Payloads, Sealed
from troth.context.info import CURRENT, StepInfo
from troth.context.requests import StepRequest
from troth.core import Operation
from troth.gateway.transactions import Conflicted, InDoubt, NotRecorded, Transactions
from troth.model import Committed
from troth.providers import Providers
from troth.worker.seams import itself

_log = structlog.get_logger("troth.worker")


class StepResult(Struct, frozen=True, eq=False):
    """What an attempt brought.

    `resolved` and `rejected` are outcomes; `committed` one that is recorded already, at `seq` and `at`; `conflicted` is to be
    run again at once; `unknown`: the journal knows; `released`: the process is to end.
    """

    state: Literal["resolved", "rejected", "committed", "conflicted", "unknown", "released"]
    value: Sealed | None = None
    error: Sealed | None = None
    failure: BaseException | None = None
    committed: Committed | None = None


class Attempted(Struct, frozen=True, eq=False):
    """One attempt of a step: whose, which one, and whom its heartbeats go to (from any thread)."""

    task: str
    epoch: int
    operation: Operation
    request: StepRequest
    cohort: int
    number: int
    details: Any
    beat: Callable[[object], None]
    abandoned: Callable[[], bool]

    @property
    def what(self) -> str:
        """How errors call what it returns."""
        return f"The result of step {self.operation.path!r}"


class Steps:
    """Calls step functions, with what they need: threads, providers, connections for transactions."""

    def __init__(
        self,
        payloads: Payloads,
        threads: Executor,
        providers: Providers,
        transactions: Transactions,
        stand_in: Callable[[Callable[..., Any]], Callable[..., Any]] = itself,
    ) -> None:
        self._payloads = payloads
        self._threads = threads
        self._providers = providers
        self._transactions = transactions
        self._stand_in = stand_in

    async def carry_out(self, attempted: Attempted) -> StepResult:
        """Call the function once."""
        request = attempted.request
        self._announce(attempted)
        limit = None if request.timeout_s is None else asyncio.timeout(request.timeout_s)
        try:
            if limit is None:
                return await self._outcome(attempted)
            async with limit:
                return await self._outcome(attempted)
        except (SystemExit, KeyboardInterrupt, GeneratorExit, _EndsProcess):
            return StepResult("released")
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return self.failed(error)
        except Conflicted as error:
            return StepResult("conflicted", failure=error)
        except (InDoubt, NotRecorded) as error:
            return StepResult("unknown", failure=error)
        except TimeoutError as error:
            expired = limit is not None and limit.expired()
            return self.failed(self._too_long(attempted) if expired else error)
        except BaseException as error:  # noqa: BLE001 — whatever a step raises is its outcome
            return self.failed(error)
        finally:
            # an error holds this frame, and the limit the task whose result the error is: a circle
            limit = None

    def failed(self, error: BaseException) -> StepResult:
        """The outcome that an exception is."""
        return StepResult("rejected", error=self._payloads.seal_error(error), failure=error)

    async def close(self) -> None:
        """Close what was provided, and the connections."""
        await self._providers.close()
        await self._transactions.close()

    def _too_long(self, attempted: Attempted) -> TimeoutError:
        request, path = attempted.request, attempted.operation.path
        if not request.is_async:
            _log.warning("a thread took too long and is abandoned", step=path, task=attempted.task)
        return TimeoutError(f"an attempt of step {path!r} took longer than {request.timeout_s:g} s")

    @staticmethod
    def _announce(attempted: Attempted) -> None:
        CURRENT.set(
            StepInfo(
                attempted.task,
                attempted.operation.path,
                attempt=attempted.number,
                details=attempted.details,
                beat=attempted.beat,
                abandoned=attempted.abandoned,
            )
        )

    async def _outcome(self, attempted: Attempted) -> StepResult:
        request = attempted.request
        if request.isolation is not None:
            return await self._transact(attempted)
        value = await self._called(request, request.args)
        return StepResult("resolved", value=self._payloads.seal(value, attempted.what))

    def _called(self, request: StepRequest, args: tuple[Any, ...]) -> Awaitable[Any]:
        fn, kwargs = self._stand_in(request.fn), request.kwargs
        is_async = request.is_async if fn is request.fn else inspect.iscoroutinefunction(fn)
        if is_async and not self._providers.fill(fn):
            called: Awaitable[Any] = fn(*args, **kwargs)
            return called
        return self._provided(fn, is_async, args, kwargs)

    async def _provided(
        self, fn: Callable[..., Any], is_async: bool, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        if self._providers.fill(fn):
            kwargs = {**kwargs, **await self._providers.arguments(fn, args, kwargs)}
        if is_async:
            return await fn(*args, **kwargs)
        context = contextvars.copy_context()
        value = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: context.run(_plainly_called, fn, args, kwargs)
        )
        return await value if inspect.isawaitable(value) else value

    async def _transact(self, attempted: Attempted) -> StepResult:
        request, operation = attempted.request, attempted.operation
        assert request.isolation is not None

        async def work(connection: Any) -> Sealed:
            value = await self._called(request, (connection, *request.args))
            return self._payloads.seal(value, attempted.what)

        def commit(value: Sealed) -> calls.Call[Committed]:
            return calls.commit_step(
                attempted.task,
                attempted.epoch,
                operation.path,
                issued=operation.issued,
                cohort=attempted.cohort,
                digest=operation.digest,
                value=value,
            )

        committed, value = await self._transactions.run(work, commit, request.isolation)
        return StepResult("committed", value=value, committed=committed)


class _EndsProcess(Exception):
    """A thread's function asked for the end of the process; executors would lose or misread that."""


def _plainly_called(fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    try:
        return fn(*args, **kwargs)
    except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
        raise _EndsProcess from error
    except StopIteration as error:
        # a future cannot carry StopIteration
        raise RuntimeError("The step raised StopIteration.") from error
