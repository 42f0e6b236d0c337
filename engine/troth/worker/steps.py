"""Calling a step function and making of what happens an outcome that can be stored.

An `async def` runs in the worker's loop, a plain function in a thread. Whatever it raises is an outcome; whatever it returns
that cannot be stored is one too, so that the workflow's code hears of it instead of trying for ever. Only what ends the
process (SystemExit, KeyboardInterrupt) is nobody's result: then the task is given back.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from troth.codec import Payloads, Sealed
from troth.context import StepRequest


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step brought: a value, or an error, or neither where the process is to end (`state` is `released`)."""

    state: str
    value: Sealed | None = None
    error: Sealed | None = None


async def carry_out(request: StepRequest, name: str, payloads: Payloads, threads: Executor) -> StepResult:
    """Call the function once."""
    try:
        value: Any
        if inspect.iscoroutinefunction(request.fn):
            value = await request.fn(*request.args, **request.kwargs)
        else:
            context = contextvars.copy_context()
            value = await asyncio.get_running_loop().run_in_executor(
                threads, lambda: context.run(_called, request.fn, request.args, dict(request.kwargs))
            )
            if inspect.isawaitable(value):
                value = await value
        return StepResult("resolved", value=payloads.seal(value, f"The result of step {name!r}"))
    except (SystemExit, KeyboardInterrupt, GeneratorExit, _EndsProcess):
        return StepResult("released")
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return _failed(error, payloads)
    except BaseException as error:  # noqa: BLE001 — whatever a step raises is its outcome
        return _failed(error, payloads)


class _EndsProcess(Exception):
    """A thread's function asked for the end of the process; executors would lose or misread that."""


def _called(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return fn(*args, **kwargs)
    except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
        raise _EndsProcess from error
    except StopIteration as error:
        # a future cannot carry StopIteration
        raise RuntimeError("The step raised StopIteration.") from error


def _failed(error: BaseException, payloads: Payloads) -> StepResult:
    return StepResult("rejected", error=payloads.seal_error(error))
